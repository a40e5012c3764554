#!/usr/bin/perl

# Leases of sessions in Redis: they are of a minute, renewed as long as the
# session is open, and gone with it; that of a worker that was killed goes by
# itself.  Operators can say how many, and delete what they like.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Test::More;
use Time::HiRes qw(sleep time);

use MailPolicy;

my $t = MailPolicy->new();
my $redis = $t->run_redis();
my $relay = $t->run_relay(name => 'relay');

$t->write_file('users', "alice\@example.com:{PLAIN}secret\n");

my $servers = join('', map { <<"EOF" } qw(killed renewed again entry free));
    server {
        listen        127.0.0.1:%%PORT_$_%%;
        protocol      smtp;
        policy_auth   off;
        policy_limit  $_ key=\$client_net sessions=1;
    }
EOF

$t->conf(<<"EOF");
worker_processes 2;

mail {
    policy_redis           redis://127.0.0.1:%%PORT_redis%% timeout=5s;
    policy                 on;
    policy_auth_plaintext  on;
    proxy_pass             127.0.0.1:%%PORT_relay%%;
    $servers

    server {
        listen        127.0.0.1:%%PORT_user%%;
        protocol      smtp;
        policy_auth   file:%%DIR%%/users;
        policy_limit  user key=\$sasl_username sessions=1;
        policy_limit  many key=\$client_net sessions=9;
    }
}
EOF
$t->run_nginx();


sub session {
    my ($where) = @_;

    my $c = $t->client($where);

    $c->greeting();
    $c->{hello} = $c->ehlo();
    return $c;
}


# 250 or 421; its session is over then

sub state {
    my ($where) = @_;

    my $c = session($where);
    $c->close();
    return substr($c->{hello}, 0, 3);
}


# a session as soon as there is room: what has ended is on its way to Redis

sub enter {
    my ($where) = @_;

    my $c;
    $t->wait_for(sub { ($c = session($where))->{hello} =~ /^250/ }, 5);
    return $c;
}


sub lease { my ($limit, $key) = @_;
            return "mail:lease:$limit:{" . ($key // '127.0.0.1') . '}' }


sub held { return scalar(my @keys = $redis->keys('mail:lease:*')) }


# member => when it expires, in seconds from now

sub leases {
    my $now = $redis->cmd('TIME')->[0];
    my %leases = @{ $redis->cmd('ZRANGE', lease(@_), 0, -1, 'WITHSCORES') };

    $_ = $_ / 1000000 - $now for values %leases;
    return \%leases;
}


sub lasts {
    my ($name, $low, @lease) = @_;

    local $Test::Builder::Level = $Test::Builder::Level + 1;

    my ($left, @more) = values %{ leases(@lease) };

    is(@more, 0, "$name: one lease");
    cmp_ok($left // 0, '>', $low, "$name: of a minute");
    cmp_ok($left // 99, '<=', 61, "$name: and no more");
    cmp_ok($redis->cmd('PTTL', lease(@lease)), '>', 1000 * $low,
        "$name: it has a TTL");
    cmp_ok($redis->cmd('PTTL', lease(@lease)), '<=', 62000,
        "$name: of a minute, too");
}


# a worker that is killed leaves a lease, for the rest of its minute

my $c = session('killed');
my @workers = $t->worker_pids();
my %old = map { $_ => 1 } @workers;

$t->allow(qr/worker process (?:@{[ join('|', @workers) ]}) exited on signal 9/);
kill('KILL', @workers);
ok($c->wait_close(), 'killed');
ok($t->wait_for(sub { 2 == grep { !$old{$_} } $t->worker_pids() }),
    'killed: others come');

lasts('killed', 50, 'killed');
is(state('killed'), '421', 'killed: no room');
$redis->cmd('ZADD', lease('killed'), 'XX',
    1e6 * ($redis->cmd('TIME')->[0] - 1), keys %{ leases('killed') });
$c = enter('killed');
like($c->{hello}, qr/^250/, 'killed: a minute later there is');
$c->close();

# those of a worker that goes gracefully

$c = enter('renewed');
my $d = session('user');
$d->auth_plain('alice@example.com', 'secret');
# that of the session before may be on its way out
$t->wait_for(sub { held() == 3 });
is(held(), 3, 'three leases');
ok($t->reload(), 'reload');
like($_->read_reply(), qr/^421 4\.3\.2 /, 'reload: 421') for $c, $d;
ok($t->wait_for(sub { !held() }), 'reload: no lease');

# renewed: looked at when all else is done

$redis->cmd('HSET', 'mail:limit:free:{127.0.0.1}', 'sessions', 'unlimited');

my $free = session('free');
my $long = session('renewed');
my $again = session('again');
my $user = session('user');
my $begin = time();

like($user->auth_plain('alice@example.com', 'secret'), qr/^235 /, 'login');
lasts('new', 57, 'renewed');
lasts('by login', 57, 'user', 'alice@example.com');
is_deeply([ keys %{ leases('user', 'alice@example.com') } ],
    [ keys %{ leases('many') } ], 'a session has one name');
isnt((keys %{ leases('renewed') })[0], (keys %{ leases('again') })[0],
    'and another one has another');

$redis->cmd('DEL', lease('again'));

# operators' entries

my $entry = 'mail:limit:entry:{127.0.0.1}';

$redis->cmd('HSET', $entry, 'sessions', '2');
my @two = map { enter('entry') } 1, 2;
is(state('entry'), '421', 'HSET sessions 2');
$redis->cmd('HSET', $entry, 'sessions', 'unlimited');
is(state('entry'), '250', 'HSET sessions unlimited');
is($redis->cmd('ZCARD', lease('entry')), 2, 'of that one there is no lease');

for my $nonsense ('0', '-1', '5/1h', '5 ', '5.5', '1e3', 'many', '9' x 30) {
    $redis->cmd('HSET', $entry, 'sessions', $nonsense);
    is(state('entry'), '421', "RED-3 \"$nonsense\" is no number");
}

# each of the two workers that has heard of it says so
my %said;
$said{$_}++ for $t->error_log()
    =~ /(\d+)#\d+: [^\n]*limit "entry" [^\n]* "sessions" is not a rate/g;
ok(%said, 'RED-3 said');
is(join(' ', grep { $_ != 1 } values %said), '', 'RED-3 once');

$_->close() for @two;
$redis->cmd('HSET', $entry, 'sessions', '5', 'suspended', 'yes');
is(state('entry'), '421', 'HSET suspended yes');
$redis->cmd('DEL', $entry);
$c = enter('entry');
like($c->{hello}, qr/^250/, 'DEL');

# a key of another type

$redis->cmd('DEL', lease('entry'));
$redis->cmd('SET', lease('entry'), 'mine');
is(join(' ', map { state('entry') } 1 .. 3), '250 250 250',
    'RED-3 leases that are no sorted set');
$c->close();
is($redis->cmd('GET', lease('entry')), 'mine', 'RED-3 they are left alone');
$redis->cmd('DEL', lease('entry'));

# members that nobody can have put there

$redis->cmd('ZADD', lease('entry'), 'inf', "x\r\ny", '-inf', 'a', 0, '', 1e30,
    'b');
is(state('entry'), '421', 'RED-9 leases without end count');
my ($left) = sort { $b <=> $a } values %{ leases('entry') };
cmp_ok($left, '<=', 61, 'RED-9 for a minute');

# a renewal has just been: there is one every 20 seconds

my $soon = 20.5;
$soon += 20 while time() - $begin > $soon;
sleep($begin + $soon - time());

lasts('renewed', 56, 'renewed');
lasts('renewed by login', 56, 'user', 'alice@example.com');
lasts('renewed though it was deleted', 56, 'again');
is(state('again'), '421', 'and that counts');
is($redis->cmd('EXISTS', lease('free')), 0, 'renewed: none where unlimited');

$_->quit() for $long, $again, $user, $free;
$redis->cmd('DEL', lease('entry'));
ok($t->wait_for(sub { !held() }), 'nothing is left');

# nor when all is over

my @last = map { session($_) } qw(killed renewed again);
is(held(), 3, 'three leases');
$t->stop();
is_deeply([ $redis->keys('mail:lease:*') ], [], 'no lease is left');

$t->done();
