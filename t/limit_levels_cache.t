#!/usr/bin/perl

# How long entries of domains, defaults and plans are remembered, and what a
# message asks of Redis: one question, and now and then what is due.  What
# cannot be read is said once, and skipped.  More domains than are remembered.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use IO::Socket::INET;
use Test::More;
use Time::HiRes qw(sleep time);

use MailPolicy;
use MailPolicy::Limits qw(codes lasting send_one used);

use constant CACHE  => 1;
use constant MARGIN => 3;               # the machine may be busy

my $t = MailPolicy->new();
my $redis = $t->run_redis();
my $relay = $t->run_relay(name => 'relay', store => 0);

my $server = <<'EOF';
    policy_auth   off;
    proxy_pass    127.0.0.1:%%PORT_relay%%;

    server {
        listen        127.0.0.1:%%PORT_NAME%%;
        protocol      smtp;
        policy        on;
        policy_limit  a  key=$sender         messages=100/1h;
        policy_limit  b  key=$sender_domain  messages=10000/1h;
    }

    server {
        listen        127.0.0.1:%%PORT_many_NAME%%;
        protocol      smtp;
        policy        on;
        policy_limit  m  key=$sender  messages=100/1h;
    }
}
EOF

for my $case ([ second => 'cache=1s' ], [ none => 'cache=0' ]) {
    my ($name, $cache) = @$case;

    $t->conf($name, "error_log %%DIR%%/$name.log info;\n"
        . "mail {\n    policy_redis  redis://127.0.0.1:%%PORT_redis%% $cache"
        . " timeout=5s;\n" . $server =~ s/NAME/$name/gr);
    $t->run_nginx($name);
}


sub session {
    my ($where) = @_;

    return $t->session($where);
}


sub said { my ($name, $text) = @_; return scalar(() =
    $t->read_file("$name.log") =~ /$text/g) }


# What Redis is asked, but by scripts: a socket that has said MONITOR.

sub monitor {
    my $socket = IO::Socket::INET->new(PeerAddr => '127.0.0.1',
        PeerPort => $redis->port()) or die "monitor: $!\n";

    syswrite($socket, "MONITOR\r\n");
    sysread($socket, my $ok, 5);
    return $socket;
}


sub asked {
    my ($socket) = @_;

    my $text = '';
    my $end = $redis->cmd('ECHO', 'end-' . time());

    until ($text =~ /"\Q$end\E"/) {
        sysread($socket, $text, 65536, length $text) or last;
    }

    return grep { !/^ECHO/ } $text =~ /^\+[\d.]+ \[\d+ [\d.:]+\] "(.*)"/mg;
}


# a steady state: one EVALSHA a message, HMGET when it is due

my $c = session('second');
send_one($c, 'alice@example.com') for 1 .. 2;

my $m = monitor();
my $begin = time();
my $n = 0;

while (time() - $begin < 2.5) {
    like(send_one($c, 'alice@example.com'), qr/^250/, 'a message') or last;
    $n++;
    sleep(0.1);
}

my $took = time() - $begin;
my @asked = asked($m);
my @evalsha = grep { /^EVALSHA/ } @asked;
my %due;
/^HMGET" "(\S+)"/ and $due{$1}++ for @asked;

is(scalar(@evalsha), $n, 'one EVALSHA for each message');
is(scalar(grep { !/^(?:EVALSHA|HMGET)/ } @asked), 0, 'and nothing else, but')
    or diag(map { substr($_, 0, 99) . "\n" } @asked);
is_deeply([ sort keys %due ], [ 'mail:limit:a:{*}',
    'mail:limit:a:{@example.com}', 'mail:limit:b:{*}' ],
    'HMGET of the entries there may be');
is(scalar(grep { $due{$_} < 2 || $due{$_} > $took / CACHE + 1 } keys %due), 0,
    'no more often than the cache time says') or diag(explain(\%due));

# refused ones cost no more, nor do those that pay and are given back

$redis->cmd('HSET', 'mail:limit:a:{alice@example.com}', 'messages', 'blocked');
asked($m);
like(send_one($c, 'alice@example.com'), qr/^450/, 'refused') for 1 .. 3;
is_deeply([ map { /^(\w+)/ } grep { !/^HMGET/ } asked($m) ],
    [ ('EVALSHA', 'XADD') x 3 ], 'refused: an event besides');
$redis->cmd('DEL', 'mail:limit:a:{alice@example.com}');
asked($m);
$c->pipeline('MAIL FROM:<alice@example.com>', 'RSET');
my @paid;
$t->wait_for(sub { push @paid, grep { /^EVAL(?:SHA)?"/ } asked($m);
    @paid >= 2 }, 5);
sleep(0.1);
push @paid, grep { /^EVAL(?:SHA)?"/ } asked($m);
is(scalar @paid, 2, 'given back: one more');

# an own entry's plan is remembered: one question still

$redis->cmd('HSET', 'mail:limit:a:{alice@example.com}', 'plan', 'gold');
$redis->cmd('HSET', 'mail:plan:gold', 'a.messages', '90/1h');
send_one($c, 'alice@example.com');
asked($m);
send_one($c, 'alice@example.com') for 1 .. 5;
is(scalar(grep { /^EVALSHA/ } asked($m)), 5,
    'a plan of the own entry costs nothing');
$redis->cmd('HSET', 'mail:limit:a:{alice@example.com}', 'plan', 'tin');
$redis->cmd('HSET', 'mail:plan:tin', 'a.messages', 'blocked');
like(send_one($c, 'alice@example.com'), qr/^450/,
    'another plan in the own entry: at once');
$redis->cmd('HDEL', 'mail:limit:a:{alice@example.com}', 'plan');
like(send_one($c, 'alice@example.com'), qr/^250/, 'and none: at once');
close($m);
$c->quit();

# What is changed in an entry is in force behind the cache time, and not asked
# for before.

# sender => [ key, field ] of the level that its number comes from

my %level = (
    'a@domain.example'  => [ 'mail:limit:a:{@domain.example}', 'messages' ],
    'a@default.example' => [ 'mail:limit:a:{*}', 'messages' ],
    'a@own.example'     => [ 'mail:plan:own', 'a.messages' ],
    'a@plan.example'    => [ 'mail:plan:domain', 'a.messages' ],
);

my @senders = sort keys %level;

$redis->cmd('FLUSHDB');
$redis->cmd('HSET', 'mail:limit:a:{a@own.example}', 'plan', 'own');
$redis->cmd('HSET', 'mail:limit:a:{@plan.example}', 'plan', 'domain');
$redis->cmd('HSET', @{ $level{$_} }, '100/1h') for @senders;

# the second message is the first for which each plan has been read

$c = session('second');
sleep(CACHE + 0.1);
send_one($c, $_) for @senders, @senders;
sleep(CACHE + 0.1);

my $read = time();
send_one($c, $_) for @senders;
$redis->cmd('HSET', @{ $level{$_} }, 'blocked') for @senders;
my $changed = time();
my @replies = map { send_one($c, $_) } @senders;

SKIP: {
    skip 'this machine is too slow', 1 if time() - $read > 0.9 * CACHE;
    is(codes(@replies), '250 250 250 250', 'what was read is remembered');
}

for my $sender (@senders) {
    ok($t->wait_for(sub { send_one($c, $sender) =~ /^450/ }),
        "$level{$sender}[0]: forgotten");
    cmp_ok(time() - $changed, '<', CACHE + MARGIN,
        "$level{$sender}[0]: soon enough");
}

$redis->cmd('DEL', $level{$_}[0]) for @senders;
$c = session('second');

for my $sender (@senders) {
    ok($t->wait_for(sub { send_one($c, $sender) =~ /^250/ }),
        "$level{$sender}[0]: deleted");
}

# own entries in between are in force at once, whatever is remembered

$redis->cmd('FLUSHDB');
$redis->cmd('HSET', 'mail:limit:a:{@c.example}', 'messages', '1/1h');
$c = session('second');
sleep(CACHE + 0.1);
is(codes(map { send_one($c, 'a@c.example') } 1 .. 2), '250 450', 'a domain');
$redis->cmd('HSET', 'mail:limit:a:{a@c.example}', 'messages', '2/1h');
is(codes(map { send_one($c, 'a@c.example') } 1 .. 2), '250 450',
    'its own: at once');
$redis->cmd('HSET', 'mail:limit:a:{a@c.example}', 'suspended', 'yes',
    'messages', 'unlimited');
like(send_one($c, 'a@c.example'), qr/^450/, 'suspended: at once');

# What cannot be read at a level is skipped, said once, and not in the way of
# what is below.

$c = session('none');

for my $case (
    [ 'mail:limit:a:{@d.example}', 'messages', 'mail:limit:a:{*}' ],
    [ 'mail:limit:a:{*}', 'messages' ],
    [ 'mail:plan:d', 'a.messages', 'mail:limit:a:{*}' ],
) {
    my ($key, $field, $below) = @$case;

    for my $value ('many', '0', '5', '', ' 9/1h', '9/1h ', "9/1h\0", '9k/1h',
        '9/1h,burst=0', '9' x 5000)
    {
        my $shown = substr($value, 0, 12) =~ s/[^ -~]/?/gr;

        $redis->cmd('FLUSHDB');
        $redis->cmd('HSET', 'mail:limit:a:{@d.example}', 'plan', 'd')
            if $key =~ /plan/;
        $redis->cmd('HSET', $key, $field, $value);
        $redis->cmd('HSET', $below, 'messages', '1/1h') if $below;
        send_one($c, 'z@d.example');
        is(codes(map { send_one($c, 'a@d.example') } 1 .. 2),
            $below ? '250 450' : '250 250', "RED-3 $key: \"$shown\"");
    }

    my ($name) = $key =~ /^mail:(.*)/;
    is(said('none', qr/\[warn\] .*"mail:\Q$name\E.*"\Q$field\E" cannot/), 1,
        "RED-3 $key: said once");
    $c = session('none');
}

for my $key ('mail:limit:a:{@e.example}', 'mail:limit:a:{*}', 'mail:plan:e') {
    for my $type ([ SET => 'x' ], [ RPUSH => 'x' ], [ ZADD => 1, 'x' ]) {
        my ($command, @value) = @$type;

        # what was read before stays what it was
        $redis->cmd('FLUSHDB');
        send_one($c, 'z@e.example');

        $redis->cmd('HSET', 'mail:limit:a:{@e.example}', 'plan', 'e')
            if $key =~ /plan/;
        $redis->cmd('HSET', 'mail:limit:a:{*}', 'messages', '1/1h')
            if $key !~ /\*/;
        $redis->cmd($command, $key, @value);
        send_one($c, 'z@e.example');
        is(codes(map { send_one($c, 'a@e.example') } 1 .. 2),
            $key =~ /\*/ ? '250 250' : '250 450',
            "RED-3 $key: made by $command");
        is($redis->cmd('TYPE', $key) eq 'hash', '', "$command: left alone");
    }
}

is(said('none', qr/is away/), 0, 'Redis is none the worse');

# More domains than a worker remembers: each has its own number, and the
# first of them still when it comes again.

$redis->cmd('FLUSHDB');
$redis->cmd('HSET', "mail:limit:m:{\@d$_.example}", 'messages',
    $_ % 2 ? 'blocked' : '1/1h') for 1 .. 4500;

my @wrong;

for my $round (0 .. 91) {
    my @n = map { $_ + 50 * ($round % 90) } 1 .. 50;

    $c = session('many_second');
    my @replies = $c->pipeline(
        map { ("MAIL FROM:<a$round\@d$_.example>", 'RSET') } @n);

    for my $i (0 .. $#n) {
        my $expected = $n[$i] % 2 ? '450 4.7.1' : '250 2.1.0';
        push @wrong, "$n[$i]: $replies[2 * $i]"
            if substr($replies[2 * $i], 0, 9) ne $expected;
    }
    $c->quit();
}

is_deeply(\@wrong, [], '4500 domains, and a hundred of them again');

$t->stop($_) for qw(second none);

is_deeply([ lasting($redis) ], [], 'no counter without TTL');

$t->done();
