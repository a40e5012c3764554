#!/usr/bin/perl

# Redis as policy_status shows it: as many answers as it has given, and how
# long they took; questions without one; which workers it is there for, while
# it hangs, is killed and comes back, over reload and the death of workers;
# and events that were not written.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use IO::Select;
use IO::Socket::INET;
use JSON::PP ();
use Test::More;
use Time::HiRes qw(sleep);

use MailPolicy;

my $t = MailPolicy->new();
my $redis = $t->run_redis();
$t->run_relay(name => 'relay', store => 0);

$t->conf(<<'EOF');
worker_processes  2;

mail {
    server_name   edge.example.com;
    policy        on;
    policy_auth   off;
    policy_redis  redis://127.0.0.1:%%PORT_redis%% timeout=400ms events=1000;
    proxy_pass    127.0.0.1:%%PORT_relay%%;

    policy_lookup  $home  home:$sender_domain  where;

    map $home $anywhere { default 127.0.0.1:%%PORT_relay%%; }

    server {
        listen        127.0.0.1:%%PORT_limit%%;
        protocol      smtp;
        policy_limit  sender  key=$sender  messages=1/1h;
    }

    server {
        listen      127.0.0.1:%%PORT_lookup%%;
        protocol    smtp;
        proxy_pass  $anywhere;
    }
}

http {
    server {
        listen  127.0.0.1:%%PORT_http%%;

        location / {
            policy_status  json;
        }
    }
}
EOF
$t->run_nginx();
$t->allow(qr/\[error\]/, qr/\[alert\].*exited on signal 9/);


sub status {
    return JSON::PP->new()->utf8()->decode($t->http_get('http', '/'));
}

sub store { return status()->{store} }

sub lost { return status()->{log}{events_lost} }


# "workers that use it, those that it is there for"

sub workers_are {
    my ($expected, $name) = @_;

    my $now;
    $t->wait_for(sub {
        $now = eval { join(' ', @{ store() }{qw(workers up)}) } // '';
        return $now eq $expected;
    });
    is($now, $expected, $name);
}


my $number = 0;

sub sender { return 's' . ++$number . '@' . (@_ ? "d$number." : '')
    . 'example.com' }

# a session that ends without a message

sub mail {
    my ($where, $sender) = @_;

    my $c = $t->session($where);
    my $reply = $c->cmd("MAIL FROM:<$sender>");
    $c->close();
    return substr($reply, 0, 3);
}

# one with a message, and a second that is one too many

sub exceed {
    my $sender = sender();
    my $c = $t->session('limit');

    like($c->cmd($_), qr/^(?:250|354) /, $_) for "MAIL FROM:<$sender>",
        'RCPT TO:<r@example.net>', 'DATA', "x\r\n.";
    like($c->cmd("MAIL FROM:<$sender>"), qr/^450 /, 'one too many');
    $c->quit();
}


# scripts and lookups that Redis was sent, when no more come

my $monitor = IO::Socket::INET->new(PeerAddr => '127.0.0.1:'
    . $redis->port()) or die "redis: $@\n";
$monitor->syswrite("MONITOR\r\n");
my $seen = '';

sub calls {
    while (IO::Select->new($monitor)->can_read(0.1)) {
        $monitor->sysread($seen, 65536, length($seen)) or last;
    }

    # scripts call as "lua"
    return scalar(() = $seen
        =~ /^\+\S+ \[0 [\d.:]+\] "(?:EVAL|EVALSHA|HMGET|GET)"/mg);
}


workers_are('2 2', 'there for both');

my $store = store();
is($store->{answers}, 0, 'nothing was asked');
is($store->{seconds}, 0, 'no time');
is(scalar(@{ $store->{histogram} }), 12, 'bounds');


# each answer counts once; what is given back, nobody waits for

is(mail('limit', sender()), '250', 'a limit') for 1 .. 3;
is(mail('lookup', sender(1)), '250', 'a lookup') for 1 .. 4;
cmp_ok(calls(), '>=', 7 + 3, 'Redis was asked');
is(store()->{answers}, calls() - 3, 'as many as Redis says');

exceed();
is(store()->{answers}, calls() - 3, 'a refusal is an answer, too');

$store = store();
my @counts = map { $_->{count} } @{ $store->{histogram} };
ok(!grep({ $counts[$_] < $counts[$_ - 1] } 1 .. $#counts), 'it adds up');
is($counts[-1], $store->{answers}, 'none took a second');
cmp_ok($store->{seconds}, '>', 0.00001, 'they took their time');
cmp_ok($store->{seconds}, '<', 0.1, 'and not much');
is($store->{errors}, 0, 'none was without an answer');
is($redis->cmd('XLEN', 'mail:events'), 1, 'an event');
is(lost(), 0, 'none is lost');


# one that is slow, and answers in time

sub quick {
    my ($bound) = grep { $_->{le} == 0.1 } @{ store()->{histogram} };
    return $bound->{count};
}

my $quick = quick();
$redis->signal('STOP');
my $c = $t->session('lookup');
$c->send_raw('MAIL FROM:<' . sender(1) . ">\r\n");
sleep(0.2);
$redis->signal('CONT');
like($c->read_reply(), qr/^250 /, 'a slow answer');
$c->close();

is(quick(), $quick, 'is not among the quick ones');
is(store()->{answers}, $store->{answers} + 1, 'and an answer');
is(store()->{errors}, 0, 'no error');


# it hangs: the worker that has asked learns it

$redis->signal('STOP');
is(mail('lookup', sender(1)), '250', 'it hangs');
is(store()->{errors}, 1, 'a question without an answer');
workers_are('2 1', 'it is away for one worker');
my $answers = store()->{answers};
$redis->signal('CONT');
workers_are('2 2', 'it goes on');
is(store()->{answers}, $answers, 'a late answer is none');


# it is killed, and comes back

$redis->kill();
workers_are('2 0', 'it is killed');
is(mail('lookup', sender(1)), '250', 'a question meanwhile') for 1 .. 3;
is(store()->{errors}, 1 + 3, 'each counts');
is(store()->{answers}, $answers, 'none was answered');

is(lost(), 0, 'no event was lost');
exceed();
ok($t->wait_for(sub { lost() == 1 }), 'an event is');

$redis->start();
workers_are('2 2', 'it is back');

$redis->cmd('SET', 'mail:events', 'not a stream');
exceed();
ok($t->wait_for(sub { lost() == 2 }), 'an event that Redis refuses is lost');


# reload with a session, and a worker that is killed

$c = $t->session('limit');
like($c->cmd($_), qr/^(?:250|354) /, $_) for 'MAIL FROM:<' . sender() . '>',
    'RCPT TO:<r@example.net>', 'DATA';
my $total = store()->{answers};
ok($t->reload(), 'reload');
workers_are('3 3', 'the old worker lives on with its message');
like($c->cmd("x\r\n."), qr/^250 /, 'which it gets');
$c->quit();
workers_are('2 2', 'and is gone with it');
is(store()->{answers}, $total, 'the counters stay');

my ($victim) = $t->worker_pids();
kill('KILL', $victim);
ok($t->wait_for(sub {
    my @pids = $t->worker_pids();
    return @pids == 2 && !grep({ $_ == $victim } @pids);
}), 'a worker is killed');
workers_are('2 2', 'another one has its place');

$redis->kill();
workers_are('2 0', 'killed once more');
$redis->start();
workers_are('2 2', 'and back');

$t->done();
