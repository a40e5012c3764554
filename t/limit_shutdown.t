#!/usr/bin/perl

# Charges of transactions that end with their worker: given back when it
# shuts down gracefully, gone by themselves when it is killed; and senders
# that send nothing leave no keys behind.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Test::More;
use Time::HiRes qw(time);

use MailPolicy;
use MailPolicy::Limits qw(lasting send_one wait_used);

my $t = MailPolicy->new();
my $redis = $t->run_redis();
my $relay = $t->run_relay(name => 'relay');

$t->conf(<<'EOF');
mail {
    policy_redis  redis://127.0.0.1:%%PORT_redis%% timeout=5s;
    policy_auth   off;
    proxy_pass    127.0.0.1:%%PORT_relay%%;

    server {
        listen        127.0.0.1:%%PORT_smtp%%;
        protocol      smtp;
        policy        on;
        policy_limit  s  key=$sender  messages=100/1h  recipients=100/1h;
    }

    server {
        listen        127.0.0.1:%%PORT_brief%%;
        protocol      smtp;
        policy        on;
        policy_limit  brief  key=$sender  messages=1/2s;
    }
}
EOF
$t->run_nginx();

my $sender = 'alice@example.com';
my $mail = "MAIL FROM:<$sender>";


sub session {
    my ($where) = @_;

    return $t->session($where // 'smtp');
}


sub charged {
    my ($name, @expected) = @_;

    local $Test::Builder::Level = $Test::Builder::Level + 1;

    is_deeply(wait_used($redis, 's', $sender, \@expected), \@expected,
        "$name: @expected are charged");
}


# a base, so that what is given back twice would be missed

my $c = session();
like(send_one($c, $sender), qr/^250 /, 'a message');
charged('a message', 1, 1);

# many senders

my @flood = map { ("MAIL FROM:<flood$_\@example.com>",
                   'RCPT TO:<a@example.net>', 'RSET') } 1 .. 200;

# a session may not RSET for ever
is(scalar(map { my $c = session(); grep { /^250 / } $c->pipeline(@$_) }
    [ @flood[0 .. 299] ], [ @flood[300 .. 599] ]), 600,
    'two hundred senders, each with RSET');
ok($t->wait_for(sub { 1 == (() = $redis->keys()) }), 'they leave no keys');

# killed

my ($worker) = $t->worker_pids();

$t->allow(qr/worker process $worker exited on signal 9/);

$c = session('brief');
like($c->cmd($mail), qr/^250 /, 'RED-10 killed: charged');
like(session('brief')->cmd($mail), qr/^450 /, 'RED-10 killed: no room');
kill('KILL', $worker);
ok($c->wait_close(), 'RED-10 killed');
cmp_ok($redis->cmd('PTTL', "mail:used:brief:{$sender}"), '>', 0,
    'RED-10 killed: there is a TTL');
ok($t->wait_for(sub { session('brief')->cmd($mail) =~ /^250 / }, 10),
    'RED-10 killed: there is room again');
$t->disconnect();
ok($t->wait_for(sub { 1 == (() = $redis->keys('mail:used:*')) }, 10),
    'RED-10 killed: and then no key');

# A worker that has nothing to wait for but an idle session, and one that has
# charges to give back.

$t->disconnect();
$c = session();
ok($t->reload(), 'an idle session: reload');

my $begin = time();
like($c->read_reply(), qr/^421 4\.3\.2 /, 'an idle session: 421');
ok($c->wait_close(), 'an idle session: closed');
cmp_ok(time() - $begin, '<', 3, 'an idle session: it is told at once');

for my $how (qw(reload stop)) {
    my $idle = session();
    send_one($idle, 'bob@example.com');

    my @open = map { session() } 1 .. 5;
    $_->pipeline($mail, 'RCPT TO:<a@example.net>', 'RCPT TO:<b@example.net>')
        for @open;
    charged("$how: before", 6, 11);

    $how eq 'reload' ? ok($t->reload(), 'reload') : $t->stop();

    is(scalar(grep { $_->read_reply() =~ /^421 4\.3\.2 / } $idle, @open), 6,
        "$how: 421 between commands");
    charged($how, 1, 1);
}

is_deeply([ lasting($redis) ], [], 'no key without TTL');

$t->done();
