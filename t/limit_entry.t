#!/usr/bin/perl

# What an operator writes with redis-cli: a key's own entry is in force from
# the next message on, in a session that is open, and a value that cannot be
# read is said once and skipped, never taken as unlimited.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Test::More;

use MailPolicy;
use MailPolicy::Limits qw(lasting send_one used wait_used);

my $t = MailPolicy->new();
my $redis = $t->run_redis();
my $relay = $t->run_relay(name => 'relay');

$t->write_file('users', 'alice@example.com:' . $t->crypt('secret') . "\n");

# a limit of its own for each: what was said of one is not said again within
# a minute

my %limits = (
    nonsense => 'messages=2/1h',
    zero     => 'messages=2/1h',
    type     => 'messages=2/1h',
    counter  => 'messages=2/1h',
    sizes    => 'messages=2/1h',
    rcpts    => 'messages=unlimited recipients=2/1h',
    bare     => '',
    plain    => 'messages=2/1h recipients=unlimited',
    bucket   => 'messages=2/1h',
);

my $servers = join('', map { <<"EOF" } sort keys %limits);
    server {
        listen        127.0.0.1:%%PORT_$_%%;
        protocol      smtp;
        policy        on;
        policy_auth   off;
        policy_limit  $_  key=\$sender  $limits{$_};
    }
EOF

$t->conf(<<"EOF");
mail {
    policy_redis  redis://127.0.0.1:%%PORT_redis%% timeout=5s;
    proxy_pass    127.0.0.1:%%PORT_relay%%;
    access_log    %%DIR%%/access.log;

    server {
        listen                 127.0.0.1:%%PORT_user%%;
        protocol               smtp;
        policy                 on;
        policy_auth            file:%%DIR%%/users;
        policy_auth_plaintext  on;
        policy_limit           user  key=\$sasl_username  messages=2/1h;
    }

$servers
}
EOF
$t->run_nginx();


sub session {
    my ($where) = @_;

    return $t->session($where);
}


sub entry   { my ($limit, @fields) = @_;
              $redis->cmd('HSET', "mail:limit:$limit:{alice\@example.com}",
                  @fields) }

sub said    { my ($pattern) = @_;
              return scalar(() = $t->error_log() =~ /$pattern/g) }


# sends until one is refused: how many were accepted, and that reply

sub until_refused {
    my ($c) = @_;

    my $accepted = 0;

    while ($accepted < 20) {
        my $reply = send_one($c, 'alice@example.com');
        return ($accepted, $reply) unless $reply =~ /^250/;
        $accepted++;
    }

    return ($accepted, 'none was refused');
}


sub accepts {
    my ($name, $c, $expected, $reply) = @_;

    local $Test::Builder::Level = $Test::Builder::Level + 1;

    my ($accepted, $text) = until_refused($c);

    is($accepted, $expected, "$name: $expected more are accepted");
    like($text, $reply // qr/^450 4\.7\.1 Rate limit "\w+" exceeded, /,
        "$name: then refused");
}


# a login's entry

my $c = session('user');
like($c->auth_plain('alice@example.com', 'secret'), qr/^235 /, 'login');

my $key = 'mail:limit:user:{alice@example.com}';

accepts('2/1h of the directive', $c, 2);

$redis->cmd('HSET', $key, 'messages', '5/1h');
accepts('HSET 5/1h', $c, 3);
is(used($redis, 'user', 'alice@example.com'), 5, 'five are counted');

$redis->cmd('HSET', $key, 'messages', '1/1h');
accepts('HSET 1/1h', $c, 0);

$redis->cmd('HSET', $key, 'messages', '7/1h', 'note', 'phoned', 'plan', 'x');
accepts('HSET 7/1h, and a note', $c, 2);

$redis->cmd('HSET', $key, 'messages', 'unlimited');
accepts('HSET unlimited', $c, 20, qr/^none/);
is(used($redis, 'user', 'alice@example.com'), 7,
    'what is unlimited is not counted');

$redis->cmd('HSET', $key, 'messages', 'Blocked');
accepts('HSET blocked', $c, 0, qr/^450 4\.7\.1 Rate limit "user" exceeded$/);
is(used($redis, 'user', 'alice@example.com'), 7,
    'what is blocked is not counted');

$redis->cmd('HSET', $key, 'messages', '8/1d');
accepts('HSET 8/1d, another period', $c, 1);

$redis->cmd('HDEL', $key, 'messages');
accepts('HDEL', $c, 0);
$redis->cmd('DEL', 'mail:used:user:{alice@example.com}', $key);
accepts('DEL of the counter', $c, 2);

is(said(qr/entry skipped/), 0, 'nothing was wrong so far');

# nonsense

for my $case ([ nonsense => 'many' ], [ zero => '0' ]) {
    my ($limit, $value) = @$case;
    my $text = qr/\[warn\] .*: policy limit "$limit" of key (?#
        )"alice\@example\.com" in Redis: "messages" is not a rate, entry (?#
        )skipped$/m;

    $c = session($limit);
    entry($limit, messages => $value);
    is(said($text), 0, "\"$value\": nothing said");
    accepts("\"$value\"", $c, 2);
    is(said($text), 1, "\"$value\": said once, of three messages");

    entry($limit, messages => '3/1h');
    accepts("\"$value\" put right", $c, 1);

    entry($limit, messages => $value);
    accepts("\"$value\" again", $c, 0);
    is(said($text), 1, "\"$value\": not said again within a minute");
}

# each of these is a rate more generous than the directive's if it is read
# carelessly: the first two messages pass, the third does not

$c = session('sizes');
accepts('no entry', $c, 2);

for my $value ('', ' ', '0/1h', '-5/1h', '5', '5/', '/1h', '5/0h', '5/1',
    '5/1y', ' 5/1h', '5/1h ', "5/1h\n", "5/1h\0", '5.5/1h', '5e3/1h',
    '0x50/1h',
    '5k/1h', '5/1h,burst=', '5/1h,burst=0', '5/1h;burst=5', '5/1h,burst=5x',
    '1099511627777/1h', '99999999999999999999999/1h', '5/367d', '5/53w',
    '5/9007199254740993s', '+5/1h', 'unlimited ', 'unlimitedx', 'none', 'nan',
    'inf/1h', '%s%n', '5/1h/1h', "\xef\xbb\xbf5/1h", '5' x 5000, '5/1h' x 999)
{
    entry('sizes', messages => $value);

    my $shown = substr($value, 0, 12) =~ s/[^ -~]/?/gr;
    like(send_one($c, 'alice@example.com'), qr/^450 4\.7\.1 /,
        "RED-3 \"$shown\" is not a rate");
}

# right ones in other clothes

for my $value ('3/H', '3/60M', '3/01h', '003/1h') {
    entry('sizes', messages => $value);
    $redis->cmd('DEL', 'mail:used:sizes:{alice@example.com}');
    accepts("\"$value\"", $c, 3);
}

# a key of another type

$c = session('type');

for my $type ([ SET => 'x' ], [ RPUSH => 'x' ], [ ZADD => 1, 'x' ]) {
    my ($command, @value) = @$type;
    my $entry = 'mail:limit:type:{alice@example.com}';

    $redis->cmd('DEL', $entry, 'mail:used:type:{alice@example.com}');
    $redis->cmd($command, $entry, @value);
    accepts("RED-3 an entry made by $command", $c, 2);
    is($redis->cmd('EXISTS', $entry), 1, "$command: it is still there");
}

is(said(qr/policy limit "type" .* entry skipped/), 1, 'said once');

# a counter of another type, or made by somebody else

$c = session('counter');
$redis->cmd('SET', 'mail:used:counter:{alice@example.com}', 'mine');
accepts('RED-3 a counter that is no hash', $c, 20, qr/^none/);
is(said(qr/limit "counter" .* is not counted: "mail:used:counter:\{alice\@(?#
        )example\.com\}" in Redis is not a hash, delete it/), 1, 'said once');
is($redis->cmd('GET', 'mail:used:counter:{alice@example.com}'), 'mine',
    'it was left alone');
$redis->cmd('DEL', 'mail:used:counter:{alice@example.com}');
accepts('DEL', $c, 2);

for my $value ('', 'x', 'w', 'w 0 1:1', 'w 56250000 1:x', 'w -5 1:1',
    'w 56250000 99999999999999999999:1', 'b 99999999999999999999999',
    'w 56250000 ' . '1:1 ' x 5000)
{
    my $shown = substr($value, 0, 20);

    $redis->cmd('DEL', 'mail:used:counter:{alice@example.com}');
    $redis->cmd('HSET', 'mail:used:counter:{alice@example.com}',
        'messages', $value);
    accepts("RED-3 a counter of \"$shown\"", $c, 2);
}

# from the future: the whole window counts from now at the latest

my $slot = int(time() * 1000000 / 56250000);
$redis->cmd('HSET', 'mail:used:counter:{alice@example.com}',
    'messages', 'w 56250000 2 c ' . ($slot + 100000) . ':2');
my ($accepted, $text) = until_refused($c);
is($accepted, 0, 'RED-9 a counter of the future counts');
my ($seconds) = $text =~ /retry in (\d+) s$/;
cmp_ok($seconds, '<=', 3657, 'RED-9 but not longer than one from now');
$redis->cmd('DEL', 'mail:used:counter:{alice@example.com}');

# recipients

$c = session('rcpts');
my @rcpts = map { "RCPT TO:<$_\@example.net>" } 1 .. 5;

is(join(' ', map { substr($_, 0, 9) }
        map { $c->cmd($_) } 'MAIL FROM:<alice@example.com>', @rcpts),
    '250 2.1.0 250 2.1.5 250 2.1.5 450 4.7.1 450 4.7.1 450 4.7.1',
    'recipients: 2/1h of the directive');

# in the midst of a transaction

entry('rcpts', recipients => '4/1h');
is(join(' ', map { substr($_, 0, 9) }
        map { $c->cmd($_) } @rcpts[2 .. 4]),
    '250 2.1.5 250 2.1.5 450 4.7.1', 'recipients: HSET 4/1h');
$c->cmd('DATA');
$c->send_raw("x\r\n.\r\n");
like($c->read_reply(), qr/^250 /, 'recipients: the message is accepted');
is_deeply(wait_used($redis, 'rcpts', 'alice@example.com', [ 0, 4 ]), [ 0, 4 ],
    'recipients: four are counted');
like(send_one($c, 'alice@example.com'), qr/^450 4\.7\.1 .*"rcpts"/,
    'recipients: none is left');
entry('rcpts', messages => 'blocked');
like(($c->send_mail('alice@example.com', [ 'x@example.net' ], "x\n"))[0],
    qr/^450 4\.7\.1 /, 'messages of the same limit: at MAIL');

# a limit that only entries set

$c = session('bare');
accepts('no rate at all', $c, 20, qr/^none/);
is_deeply([ $redis->keys('mail:used:bare:*') ], [], 'nor a counter');
entry('bare', messages => '1/1h');
accepts('HSET 1/1h', $c, 1);
like(send_one($c, 'carol@example.com'), qr/^250 /, 'others have none still');

# the key is normalised once: one address, one counter, one entry

$c = session('plain');
entry('plain', messages => '3/1h');
like(send_one($c, $_), qr/^250 /, "RED-2 $_")
    for qw(ALICE@EXAMPLE.COM Alice@example.com alice@Example.Com);
like(send_one($c, 'aLICE@example.com'), qr/^450 /, 'RED-2 as one');

# a bucket

$c = session('bucket');
entry('bucket', messages => '1/1h,burst=4');
accepts('HSET 1/1h,burst=4', $c, 4,
    qr/"bucket" exceeded, retry in 3[56]\d\d s$/);
entry('bucket', messages => '6/1h');
accepts('a window finds a bucket empty', $c, 6);

$t->stop();

is_deeply([ lasting($redis) ], [], 'no key without TTL');

$t->done();
