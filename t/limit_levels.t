#!/usr/bin/perl

# Where the number of a limit comes from: the key's own entry, its plan, the
# domain's, its plan, the default's, its plan, the directive; for each unit by
# itself.  Nothing is remembered here (cache=0), so each message shows what is
# in Redis; how long it is remembered is shown in limit_levels_cache.t.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Test::More;

use MailPolicy;
use MailPolicy::Limits qw(codes lasting send_one used);

my $t = MailPolicy->new();
my $redis = $t->run_redis();
my $relay = $t->run_relay(name => 'relay');

$t->write_file('users', join('', map { "$_:" . $t->crypt('secret') . "\n" }
    'alice@example.com', 'plain'));

$t->conf(<<'EOF');
mail {
    policy_redis  redis://127.0.0.1:%%PORT_redis%% timeout=5s cache=0;
    proxy_pass    127.0.0.1:%%PORT_relay%%;
    access_log    %%DIR%%/access.log;
    policy_auth_plaintext  on;

    server {
        listen        127.0.0.1:%%PORT_all%%;
        protocol      smtp;
        policy        on;
        policy_auth   off;
        policy_limit  a  key=$sender  messages=100/1h  recipients=200/1h
                                      bytes=300k/1h;
    }

    server {
        listen        127.0.0.1:%%PORT_none%%;
        protocol      smtp;
        policy        on;
        policy_auth   off;
        policy_limit  none  key=$sender;
    }

    server {
        listen        127.0.0.1:%%PORT_two%%;
        protocol      smtp;
        policy        on;
        policy_auth   off;
        policy_limit  x  key=$sender  messages=100/1h;
        policy_limit  y  key=$sender  messages=100/1h;
        policy_limit  z  key=$sender_domain  messages=100/1h;
    }

    server {
        listen        127.0.0.1:%%PORT_keys%%;
        protocol      smtp;
        policy        on;
        policy_auth   file:%%DIR%%/users;
        policy_limit  both  key=$sasl_username/$client_net  messages=100/1h;
        policy_limit  with  key=from:$sender                messages=100/1h;
        policy_limit  to    key=$recipient                  messages=100/1h;
        policy_limit  net   key=$client_net                 messages=100/1h;
        policy_limit  user  key=$sasl_username              messages=100/1h;
    }
}
EOF
$t->run_nginx();

my @UNITS = qw(messages recipients bytes);

# level => [ the letter in the counter, its key, what is before a unit ]; the
# most specific first; each plan is named by the entry before it

my @LEVELS = (
    [ k => 'mail:limit:a:{alice@example.com}', '' ],
    [ p => 'mail:plan:own',                    'a.' ],
    [ '@' => 'mail:limit:a:{@example.com}',    '' ],
    [ p => 'mail:plan:domain',                 'a.' ],
    [ '*' => 'mail:limit:a:{*}',               '' ],
    [ p => 'mail:plan:default',                'a.' ],
);


sub session {
    my ($where, $login) = @_;

    my $c = $t->client($where);

    $c->greeting();
    $c->ehlo();
    like($c->auth_plain($login, 'secret'), qr/^235/, "login $login")
        if defined $login;
    return $c;
}


sub plans {
    my ($limit) = @_;

    for my $i (0, 2, 4) {
        $redis->cmd('HSET', $LEVELS[$i]->[1] =~ s/:a:/:$limit:/r, 'plan',
            $LEVELS[$i + 1]->[1] =~ s/^mail:plan://r);
    }
}


sub clear { $redis->cmd('FLUSHDB'); plans('a') }


sub set {
    my ($i, $unit, $rate) = @_;

    my (undef, $key, $prefix) = @{ $LEVELS[$i] };
    $redis->cmd('HSET', $key, "$prefix$unit", $rate);
}


# what a message is charged by, unit by unit: "k101" is the own entry's 101

sub charged_by {
    my ($c) = @_;

    my $reply = $c->cmd('MAIL FROM:<alice@example.com> SIZE=1');
    my $used = $redis->hash('mail:used:a:{alice@example.com}');

    $c->cmd('RSET');
    return $reply =~ s/ .*//r unless $reply =~ /^250/;
    return join(' ', map { ($used->{$_} // '') =~ /^w \d+ (\d+) (\S)/
        ? "$2$1" : '-' } @UNITS);
}


# Every set of levels, another one for each unit at the same time: the most
# specific that has a rate is in force.

my $c = session('all');
my (@wrong, $seen);

clear();
charged_by($c) for 1 .. 2;

for my $n (0 .. 63) {
    my @expected;
    my @mask = ($n, ($n * 5 + 21) % 64, ($n * 11 + 42) % 64);

    clear();

    for my $u (0 .. 2) {
        my $base = 100 * ($u + 1) + 1;
        my @there = grep { $mask[$u] & 1 << $_ } 0 .. 5;

        set($_, $UNITS[$u], $base + $_ . '/1h') for @there;

        push @expected, @there ? $LEVELS[$there[0]]->[0] . ($base + $there[0])
                               : ('c100', 'c200', 'c307200')[$u];
    }

    my $got = charged_by($c);
    push @wrong, "@mask: $got, not @expected" if $got ne "@expected";
    $seen++ if $got =~ /p/;

    # too many transactions without a message end a session
    $c = session('all') if $n % 10 == 9;
}

is_deeply(\@wrong, [], '64 sets of levels for each of three units');
cmp_ok($seen, '>', 30, 'plans were among them');

# a unit that the directive does not have

$c = session('none');

for my $i (0 .. 5) {
    my (undef, $key, $prefix) = map { s/\ba\b/none/r } @{ $LEVELS[$i] };

    $redis->cmd('FLUSHDB');
    plans('none');
    like(send_one($c, 'alice@example.com'), qr/^250/, "$key: nothing set");
    $redis->cmd('HSET', $key, "${prefix}recipients", '2/1h');
    is(codes($c->pipeline('MAIL FROM:<alice@example.com>',
            map { "RCPT TO:<$_\@example.net>" } 1 .. 3)),
        '250 250 250 450', "$key: recipients that the directive has not");
    $c->cmd('RSET');
}

# unlimited, and blocked, at each level

for my $i (0 .. 5) {
    my $key = $LEVELS[$i]->[1];

    clear();
    $c = session('all');
    charged_by($c);

    set($_, 'messages', '1/1h') for $i + 1 .. 5;
    set($i, 'messages', 'unlimited');
    is(codes(map { send_one($c, 'alice@example.com') } 1 .. 3),
        '250 250 250', "$key: unlimited, in spite of those below");
    is(used($redis, 'a', 'alice@example.com'), 0, "$key: not counted");

    set($_, 'messages', 'unlimited') for $i + 1 .. 5;
    set($i, 'messages', 'BLOCKED');
    like(send_one($c, 'alice@example.com'),
        qr/^450 4\.7\.1 Rate limit "a" exceeded$/,
        "$key: blocked, in spite of those below");

    next if $i == 0;
    set($i - 1, 'messages', '50/1h');
    like(send_one($c, 'alice@example.com'), qr/^250 /,
        "$key: blocked, which the more specific one is not");
    set($i, 'recipients', 'blocked');
    like(send_one($c, 'alice@example.com'), qr/^450 /,
        "$key: each unit by itself");
}

# suspended: in an entry of any level, and nothing helps

for my $i (0, 2, 4) {
    my $key = $LEVELS[$i]->[1];

    clear();
    set(0, 'messages', 'unlimited');
    $c = session('all');

    for my $value ('', 0, 'no') {
        $redis->cmd('HSET', $key, 'suspended', $value);
        like(send_one($c, 'alice@example.com'), qr/^250 /,
            "$key: suspended \"$value\" is not");
    }

    for my $value ('yes', 1, 'true', '00', 'nope', ' ', "\0", 'y' x 5000) {
        $redis->cmd('HSET', $key, 'suspended', $value);
        like(send_one($c, 'alice@example.com'),
            qr/^450 4\.7\.1 Rate limit "a" exceeded$/,
            "$key: suspended \"" . substr($value, 0, 5) =~ s/\0/?/r . '"');
    }

    $redis->cmd('HDEL', $key, 'suspended');
    like(send_one($c, 'alice@example.com'), qr/^250 /, "$key: resumed");
}


# names of plans

for my $case ([ 'x', 1 ], [ 'x' x 64, 1 ], [ 'A-b_9', 1 ], [ 'x' x 65, 0 ],
    [ '', 0 ], [ 'a b', 0 ], [ 'gold a', 0 ], [ '{x}', 0 ], [ "x\n", 0 ],
    [ 'p*', 0 ], [ "x\0", 0 ], [ "\xc3\xa4", 0 ])
{
    my ($name, $good) = @$case;
    my $shown = substr($name, 0, 9) =~ s/[^ -~]/?/gr;

    $c = session('all');

    for my $i (0, 2) {
        $redis->cmd('FLUSHDB');
        $redis->cmd('HSET', "mail:plan:$name", 'a.messages', '9/1h');
        $redis->cmd('HSET', $LEVELS[$i]->[1], 'plan', $name);
        charged_by($c);
        is(charged_by($c), $good ? 'p9 c200 c307200' : 'c100 c200 c307200',
            "$LEVELS[$i]->[0]: a plan named \"$shown\"");
    }
}

# a plan that is not there, or has the rates of other limits only

$redis->cmd('FLUSHDB');
$redis->cmd('HSET', $LEVELS[0]->[1], 'plan', 'nowhere');
is(charged_by($c), 'c100 c200 c307200', 'a plan that is not there');
$redis->cmd('HSET', 'mail:plan:nowhere', 'b.messages', '9/1h', 'messages',
    '8/1h', 'aa.messages', '7/1h', 'A.messages', '6/1h', 'a.Messages', '5/1h');
is(charged_by($c), 'c100 c200 c307200', 'a plan of other limits');

# two limits of one key, and their plans

$redis->cmd('FLUSHDB');
$redis->cmd('HSET', 'mail:limit:x:{alice@example.com}', 'plan', 'gold');
$redis->cmd('HSET', 'mail:limit:y:{alice@example.com}', 'plan', 'tin');
$redis->cmd('HSET', 'mail:plan:gold', 'x.messages', '3/1h',
    'y.messages', '1/1h');
$redis->cmd('HSET', 'mail:plan:tin', 'x.messages', '1/1h',
    'y.messages', '2/1h', 'z.messages', '1/1h');
$c = session('two');
is(codes(map { send_one($c, 'alice@example.com') } 1 .. 3), '250 250 450',
    'two limits, two plans: the tighter one');
like(send_one($c, 'alice@example.com'), qr/ "y" /, 'two limits: which one');
is(used($redis, 'x', 'alice@example.com'), 2, 'and the other is not charged');
$redis->cmd('HSET', "mail:limit:$_->[0]:{alice\@example.com}", 'plan', $_->[1])
    for [ y => 'gold' ], [ x => 'tin' ];
like(send_one($c, 'alice@example.com'), qr/^450 /, 'they change places');

# keys without a domain, and of several parts

$redis->cmd('FLUSHDB');
$redis->cmd('HSET', 'mail:limit:z:{example.com}', 'messages', '2/1h');
$redis->cmd('HSET', 'mail:limit:z:{@example.com}', 'messages', '1/1h');
$redis->cmd('HSET', 'mail:limit:z:{*}', 'messages', '1/1h');
is(codes(map { send_one($c, "$_\@example.com") } 1 .. 3), '250 250 450',
    'a domain as key: its own entry, and none of a domain');
is(codes(map { send_one($c, "$_\@example.org") } 1 .. 2), '250 450',
    'a domain as key: the default of others');

$c = session('keys', 'alice@example.com');

# [ what is said, entry, senders, recipients ]: the second is one too many

for my $case (
    [ 'two variables: an own entry', 'both:{alice@example.com/127.0.0.1}',
      [ 'a@a.example' ], [ 'x@b.example' ] ],
    [ 'a word and a variable: the domain', 'with:{@c.example}',
      [ 'a@c.example' ], [ 'x@b.example' ] ],
    [ "a recipient's domain, in whatever case", 'to:{@d.example}',
      [ 'a@a.example' ], [ 'x@D.example' ] ],
    [ 'a network: its own entry', 'net:{127.0.0.1}',
      [ 'a@a.example' ], [ 'x@b.example' ] ],
    [ 'a network: the default', 'net:{*}',
      [ 'a@a.example' ], [ 'x@b.example' ] ],
    [ "a login's domain", 'user:{@example.com}',
      [ 'a@a.example' ], [ 'x@b.example' ] ],
) {
    my ($name, $entry, $from, $to) = @$case;

    $redis->cmd('FLUSHDB');
    $redis->cmd('HSET', "mail:limit:$entry", 'messages', '1/1h');
    is(codes(map { send_one($c, @$from, @$to) } 1 .. 2), '250 450', $name);
}

$c = session('keys', 'plain');
$redis->cmd('FLUSHDB');
$redis->cmd('HSET', 'mail:limit:user:{*}', 'messages', '1/1h');
is(codes(map { send_one($c, 'a@a.example') } 1 .. 2), '250 450',
    'a login without domain: the default');
$redis->cmd('HSET', 'mail:limit:user:{plain}', 'messages', '2/1h');
is(codes(map { send_one($c, 'a@a.example') } 1 .. 2), '250 450',
    'a login without domain: its own entry');

$t->stop();

is_deeply([ lasting($redis) ], [], 'no counter without TTL');

$t->done();
