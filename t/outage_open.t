#!/usr/bin/perl

# What is open while one Redis goes away, or comes back: messages that are
# refused or reset on the other side of it, sessions, failed logins, buckets,
# rates of own entries.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Test::More;
use Time::HiRes qw(sleep time);

use MailPolicy;
use MailPolicy::Limits qw(BACK is_told lasting send_one store_away store_back
    used);

my $t = MailPolicy->new();
my $relay = $t->run_relay(name => 'relay', store => 0);
my $redis = $t->run_redis();

$t->write_file('users', join('', map { "$_\@example.com:"
    . $t->crypt('secret') . "\n" } qw(alice bob)));

$t->conf(<<'EOF');
error_log %%DIR%%/error.log notice;
worker_processes 2;
mail {
    policy_redis  redis://127.0.0.1:%%PORT_redis%% timeout=200ms
                  on_error=local;
    policy_auth   off;
    proxy_pass    127.0.0.1:%%PORT_relay%%;
    max_errors    1000;
    access_log    %%DIR%%/access.log;

    server {
        listen        127.0.0.1:%%PORT_smtp%%;
        protocol      smtp;
        policy        on;
        policy_limit  s  key=$sender  messages=100/1h  recipients=200/1h
                         bytes=100k/1h;
    }

    server {
        listen        127.0.0.1:%%PORT_bucket%%;
        protocol      smtp;
        policy        on;
        policy_limit  b  key=$sender  messages=100/1d,burst=30;
    }

    server {
        listen        127.0.0.1:%%PORT_held%%;
        protocol      smtp;
        policy        on;
        policy_limit  held  key=$client_net  sessions=4;
    }

    server {
        listen                 127.0.0.1:%%PORT_auth%%;
        protocol               smtp;
        policy                 on;
        policy_auth            file:%%DIR%%/users;
        policy_auth_plaintext  on;
        policy_limit  guess  key=$client_net  auth_failures=5/15m;
    }
}
EOF
$t->run_nginx();


sub charged {
    local $Test::Builder::Level = $Test::Builder::Level + 1;

    is_told($redis, @_);
}


sub session {
    my ($where) = @_;

    return $t->session($where // 'smtp');
}


# Messages that are open: begun before (charged in Redis), within, ended
# within, behind.

my $rcpt = 'RCPT TO:<bob@example.net>';

sub begin {
    my ($sender) = @_;

    my $c = session();
    $c->pipeline("MAIL FROM:<$sender>", $rcpt);
    return $c;
}

sub ends_well { my ($c) = @_;
    $c->cmd('DATA'); return $c->cmd("0123456789\r\n.") }

like(send_one(session(), "$_\@open.example"), qr/^250/, "$_: a base")
    for qw(before within across later);

my $before = begin('before@open.example');
my $before_reset = begin('before@open.example');
my $across = begin('across@open.example');
my $across_reset = begin('across@open.example');
my $later_bad = begin('later@open.example');
charged('two are open', 's', 'across@open.example', messages => 3);

store_away($t, $redis);

like(ends_well($before), qr/^250/, 'begun before, accepted within');
like($before_reset->cmd('RSET'), qr/^250/, 'begun before, reset within');

my $within = begin('within@open.example');
like(ends_well($within), qr/^250/, 'begun and accepted within');
$within = begin('within@open.example');
$within->cmd('RSET');

my $later = begin('later@open.example');
my $later_reset = begin('later@open.example');

store_back($t, $redis, 'open');

charged('begun and ended within', 's', 'within@open.example',
    messages => 2, recipients => 2);

# the one that was reset cannot be given back: Redis was away
charged('begun before, ended within', 's', 'before@open.example',
    messages => 3, recipients => 3);

charged('begun within, still open', 's', 'later@open.example',
    messages => 4, recipients => 4);
like(ends_well($later), qr/^250/, 'begun within, accepted later');
$later_reset->cmd('RSET');
$later_bad->reset();
charged('begun within, ended later', 's', 'later@open.example',
    messages => 2, recipients => 2);

like(ends_well($across), qr/^250/, 'begun before, accepted later');
$across_reset->cmd('RSET');
charged('begun before, ended later', 's', 'across@open.example',
    messages => 2, recipients => 2);
$t->disconnect();

# Octets that are more than were declared are asked for at the end.

like(send_one(session(), 'big@open.example'), qr/^250/, 'bytes: a base');
my $base = used($redis, 's', 'big@open.example', 'bytes');
my $c = begin('big@open.example');
store_away($t, $redis);
$c->cmd('DATA');
$c->send_raw(('x' x 70 . "\r\n") x 1000 . ".\r\n");
like($c->read_reply(), qr/^250/, 'bytes: 72000 fit');
$c->pipeline('MAIL FROM:<big@open.example>', $rcpt, 'DATA');
$c->send_raw(('x' x 70 . "\r\n") x 500 . ".\r\n");
like($c->read_reply(), qr/^450/, 'bytes: 36000 more do not');
store_back($t, $redis, 'bytes');
$t->wait_for(sub { used($redis, 's', 'big@open.example', 'bytes')
    >= $base + 72000 });
my $bytes = used($redis, 's', 'big@open.example', 'bytes');
cmp_ok($bytes, '>=', $base + 72000, 'bytes: they are handed back');
cmp_ok($bytes, '<=', $base + 72000 + 1, 'bytes: and no others');
$t->disconnect();

# A bucket, filled from 12 before to 30.

$c = session('bucket');
send_one($c, 'fill@bucket.example') for 1 .. 12;
my ($tat) = ($redis->cmd('HGET', 'mail:used:b:{fill@bucket.example}',
    'messages') // '') =~ /^b (\d+) 100 /;
store_away($t, $redis);
is(scalar(grep { send_one($c, 'fill@bucket.example') =~ /^250/ } 1 .. 25), 18,
    'a bucket: the rest of it, and no more');
store_back($t, $redis, 'a bucket');
ok($t->wait_for(sub {
        my ($now) = $redis->cmd('HGET', 'mail:used:b:{fill@bucket.example}',
            'messages') =~ /^b (\d+) 100 /;
        abs($now - $tat - 18 * 864e6) < 1e6;
    }, BACK), 'a bucket: is as full in Redis');
like(send_one($c, 'fill@bucket.example'), qr/^450/, 'a bucket: nothing more');
$t->disconnect();

# Own entries: what was learned of them is in force.

$redis->cmd('HSET', 'mail:limit:s:{own@entry.example}', 'messages', '7/1h');
$redis->cmd('HSET', 'mail:limit:s:{more@entry.example}', 'messages',
    '120/1h');
send_one(session(), "$_\@entry.example") for qw(own own more);
store_away($t, $redis);
$c = session();
is(scalar(grep { send_one($c, 'own@entry.example') =~ /^250/ } 1 .. 9), 5,
    'an own entry: the rest of it');
is(scalar(grep { send_one($c, 'more@entry.example') =~ /^250/ } 1 .. 121),
    119, 'an own entry that grants more');
store_back($t, $redis, 'own entries');
charged('an own entry', 's', 'own@entry.example', messages => 7);
charged('an own entry that grants more', 's', 'more@entry.example',
    messages => 120);
$t->disconnect();

# Sessions: those that are there before count within; those of within, later.

my @held = map { session('held') } 1 .. 2;
my $lease = 'mail:lease:held:{127.0.0.1}';
is($redis->cmd('ZCARD', $lease), 2, 'sessions: two leases');
store_away($t, $redis);
push @held, map { session('held') } 1 .. 2;
like($held[3]->cmd('NOOP'), qr/^250/, 'sessions: two more within');
like($t->client('held')->wait_close() ? '421' : 'open', qr/421/,
    'sessions: not five');
(shift @held)->quit();
$held[3] = session('held');
like($held[3]->cmd('NOOP'), qr/^250/, 'sessions: one ends, one begins');
store_back($t, $redis, 'sessions');
note('leases ' . $redis->cmd('ZCARD', $lease));
$_->quit() for splice @held;
ok($t->wait_for(sub { $redis->cmd('ZCARD', $lease) <= 1 }),
    'sessions: all end: at most the one that could not be told is left');
$t->disconnect();

# Failed logins.

sub guess {
    my ($word, $login) = @_;

    my $c = session('auth');
    my $reply = $c->auth_plain($login // 'alice@example.com', $word);
    $c->close();
    return substr($reply, 0, 3);
}

is(join(' ', map { guess("wrong$_") } 1 .. 2), '535 535', 'two fail');
store_away($t, $redis);
is(join(' ', map { guess("wrong$_") } 3 .. 6), '535 535 535 454',
    'auth_failures: three more, and no fourth');
my $since = store_back($t, $redis, 'auth_failures');
ok($t->wait_for(sub { $redis->cmd('ZCARD', 'mail:failed:guess:{127.0.0.1}')
    == 5 }, BACK), 'auth_failures: five are known')
    or diag($redis->cmd('ZCARD', 'mail:failed:guess:{127.0.0.1}'));
is(guess('wrong7'), '454', 'auth_failures: and no sixth');
is(guess('wrong1'), '454', 'auth_failures: nor one that was tried');

$t->stop();
is_deeply([ lasting($redis) ], [], 'no key without TTL');

$t->done();
