#!/usr/bin/perl

# Keys that are near their limit: four fifths are told of once in a window, in
# the stream of events, the error log and a counter; by two edges of two
# workers each that race, whatever is given back meanwhile; and the same where
# shared memory is the store.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use JSON::PP ();
use List::Util qw(sum0);
use Test::More;
use Time::HiRes qw(sleep time);

use MailPolicy;
use MailPolicy::Limits qw(send_one used);
use MailPolicy::Process qw(fork_server wait_exit);

use constant SENDERS => 12;

my $t = MailPolicy->new();
my $redis = $t->run_redis();
my $relay = $t->run_relay(name => 'relay');

$t->write_file('users', 'alice@example.com:' . $t->crypt('secret') . "\n");

my %limit = (
    user    => 'key=$sender messages=10/1h',
    short   => 'key=$sender messages=5/2s',
    report  => 'key=$sender messages=5/1h on_exceed=report',
    bucket  => 'key=$sender messages=60/1h,burst=10',
    bytes   => 'key=$sender bytes=10000/1d',
    rcpts   => 'key=$sender recipients=10/1h',
    small   => 'key=$sender messages=4/1h',
    open    => 'key=$client_net sessions=5',
    guess   => 'key=$client_net auth_failures=5/1h',
    odd     => 'key=$helo messages=5/1h',
);

for my $edge (qw(a b memory)) {
    my $servers = join('', map { <<"EOF" } sort keys %limit);
    server {
        listen        127.0.0.1:%%PORT_${_}_$edge%%;
        protocol      smtp;
        policy        on;
        policy_auth   @{[ /guess/ ? 'file:%%DIR%%/users' : 'off' ]};
        policy_limit  $_  $limit{$_};
    }
EOF
    my $store = $edge eq 'memory' ? ''
        : 'policy_redis redis://127.0.0.1:%%PORT_redis%% timeout=5s;';

    $t->conf($edge, <<"EOF");
worker_processes 2;
error_log %%DIR%%/$edge.error.log notice;
events { worker_connections 256; accept_mutex off; }
http {
    server {
        listen 127.0.0.1:%%PORT_http_$edge%%;
        location / { policy_status json; }
    }
}
mail {
    $store
    proxy_pass             127.0.0.1:%%PORT_relay%%;
    policy_auth_plaintext  on;
    policy_auth_delay      0;
    access_log             off;
$servers}
EOF
    $t->run_nginx($edge);
}


# a session with a server of an edge

sub session {
    my ($server, $edge, $helo) = @_;

    return $t->session("${server}_$edge", helo => $helo // 'client.example');
}


sub status { return JSON::PP::decode_json($t->http_get("http_$_[0]", '/')) }


# what that limit has counted as near, on all edges named

sub counted {
    my ($limit, @edges) = @_;

    return sum0(map { $_->{near} } grep { $_->{name} eq $limit }
        map { @{ status($_)->{limits} } } @edges);
}


# the lines of a limit in the error logs

sub lines {
    my ($limit, @edges) = @_;

    return map { $t->error_log($_)
        =~ /(\[notice\] .*limit "$limit" of .* is near, .*)/g } @edges;
}


# events "near" of a limit, or of one of its keys; waits for so many

sub events {
    my ($limit, $expected, $key) = @_;

    my @events;
    my $ask = sub {
        @events = grep { $_->{limit} eq $limit && $_->{action} eq 'near'
                && (!defined $key || $_->{key} eq $key) }
            map { +{ @{ $_->[1] } } } @{ $redis->cmd('XRANGE', 'mail:events',
                '-', '+') };
        return @events >= $expected;
    };

    $t->wait_for($ask, 5);
    sleep(0.05);
    $ask->();

    return @events;
}


sub one {
    my ($what, $limit, $key, %expected) = @_;

    local $Test::Builder::Level = $Test::Builder::Level + 1;

    my @events = events($limit, 1, $key);

    is(scalar @events, 1, "$what: one event");
    is($events[0]{$_}, $expected{$_}, "$what: $_") for sort keys %expected;
}


# many at once: SENDERS keys, ten messages each, of four clients

sub race {
    my ($server, @edges) = @_;

    my @pids;

    for my $n (0 .. 3) {
        my $file = $t->dir() . "/client-$server-$edges[0]-$n";

        push @pids, fork_server($file, [], sub {
            for my $message (1 .. ($n == 3 ? 1 : 3)) {
                my $c = session($server, $edges[$n % @edges]);
                send_one($c, "u$_\@example.com") for 1 .. SENDERS;
                $c->quit();
            }
        });
    }

    wait_exit($_, 20) for @pids;
}


race('user', qw(a b));

my %seen;
$seen{$_->{key}}++ for events('user', SENDERS);

is_deeply(\%seen, { map { ("u$_\@example.com" => 1) } 1 .. SENDERS },
    'two edges: one event for each key');
is(used($redis, 'user', 'u1@example.com'), 10, 'all of them passed');
is(scalar(lines('user', qw(a b))), SENDERS, 'one line for each');
is(counted('user', qw(a b)), SENDERS, 'counted once');
like((lines('user', qw(a b)))[0], qr/limit "user" of messages is near, (?#
    )(?:8|9|10) of 10 are used, key: u\d+\@example\.com, client: 127\.0\.0\.1$/,
    'what the line says');

my @warned = $redis->keys('mail:warned:user:*');

is_deeply([ sort @warned ], [ sort map {
    "mail:warned:user:{u$_\@example.com}:messages" } 1 .. SENDERS ],
    'a key for each');
is(scalar(grep { my $ttl = $redis->cmd('PTTL', $_);
    $ttl < 3_500_000 || $ttl > 3_600_000 } @warned), 0,
    'which lives for a window');

# what is given back, and charged again

my $c = session('user', 'a');
send_one($c, 'back@example.com') for 1 .. 7;
is(scalar(events('user', 0, 'back@example.com')), 0, 'seven are not near');

my $d = session('user', 'b');

for (1 .. 3) {
    for my $s ($c, $d) {
        like($s->cmd('MAIL FROM:<back@example.com>'), qr/^250/, 'the eighth');
        $s->cmd('RSET');
    }
}

one('given back', 'user', 'back@example.com', max => 10, unit => 'messages',
    retry => 0, client => '127.0.0.1', sender => 'back@example.com',
    sasl_username => '');

send_one($c, 'back@example.com') for 1 .. 4;
is(scalar(events('user', 1, 'back@example.com')), 1, 'full: no other one');
is((grep { $_->{key} eq 'back@example.com' } @{ status('a')->{near} })[0]{used},
    10, 'and on the board');

# the next window

$c = session('short', 'a');
send_one($c, 'a@example.com') for 1 .. 5;
one('a short window', 'short', 'a@example.com', used => 4, max => 5);
$t->wait_for(sub { !$redis->cmd('EXISTS',
    'mail:warned:short:{a@example.com}:messages') }, 4);
sleep(0.2);     # the last slot counts a little longer
send_one($c, 'a@example.com') for 1 .. 5;
is(scalar(events('short', 2, 'a@example.com')), 2, 'the next one tells again');

# what refuses nobody, and other units

$c = session('report', 'a');
send_one($c, 'a@example.com') for 1 .. 7;
one('report', 'report', 'a@example.com', used => 4, max => 5);

$c = session('bucket', 'a');
send_one($c, 'a@example.com') for 1 .. 10;
one('a bucket', 'bucket', 'a@example.com', used => 8, max => 10);

$c = session('rcpts', 'a');
send_one($c, 'a@example.com', map { "r$_\@example.net" } 1 .. 9);
one('recipients', 'rcpts', 'a@example.com', used => 8, unit => 'recipients');

$c = session('bytes', 'a');
$c->send_mail('a@example.com', [ 'x@example.net' ], 'x' x 4000);
is(scalar(events('bytes', 0)), 0, 'four thousand octets are not near');
$c->send_mail('a@example.com', [ 'x@example.net' ], 'x' x 4500);
one('octets, at the end', 'bytes', 'a@example.com', max => 10000,
    unit => 'bytes');
$c->cmd('MAIL FROM:<b@example.com> SIZE=8000');
one('octets, declared', 'bytes', 'b@example.com', used => 8000);

my @open = map { session('open', 'a') } 1 .. 5;
one('sessions', 'open', '127.0.0.1', used => 4, max => 5, unit => 'sessions');
my $ttl = $redis->cmd('PTTL', 'mail:warned:open:{127.0.0.1}:sessions');
cmp_ok($ttl, '>', 3_500_000, 'sessions: once an hour');
$_->quit() for @open;

for my $password (qw(w1 secret w2 secret w3 secret w4)) {
    $c = session('guess', 'a');
    $c->auth_plain('alice@example.com', $password);
    $c->quit();
}

is(scalar(events('guess', 0)), 0, 'a login that succeeds is no failure');
$c = session('guess', 'a');
like($c->auth_plain('alice@example.com', 'secret'), qr/^235 /, 'and passes');
one('failed logins', 'guess', '127.0.0.1', used => 4, max => 5,
    unit => 'auth_failures');

$c = session('small', 'a');
send_one($c, 'a@example.com') for 1 .. 5;
is(scalar(events('small', 0)), 0, 'below five there is no warning');

# what clients say

my $helo = "\xff{x}\"\\";
$c = session('odd', 'a', $helo);
send_one($c, "$_\@example.com") for 1 .. 5;
one('odd', 'odd', $helo, used => 4);
like((lines('odd', 'a'))[0], qr/key: %FF%7Bx%7D"\\, /,
    'OUT-1 odd: escaped in the log');

# where shared memory is the store

race('user', 'memory');
is(scalar(lines('user', 'memory')), SENDERS, 'memory: one line for each');
is(counted('user', 'memory'), SENDERS, 'memory: counted once');

$c = session('short', 'memory');
send_one($c, 'a@example.com') for 1 .. 5;
is(scalar(lines('short', 'memory')), 1, 'memory: a short window');
sleep(2.2);
send_one($c, 'a@example.com') for 1 .. 5;
is(scalar(lines('short', 'memory')), 2, 'memory: and the next one');

is_deeply([ grep { $redis->cmd('PTTL', $_) == -1 && $_ ne 'mail:events' }
    $redis->keys() ], [], 'no key without TTL');

$t->disconnect();
$t->stop($_) for qw(a b memory);
$t->done();
