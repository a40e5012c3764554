#!/usr/bin/perl

# Questions of "policy_service" that nobody waits for any more, as the client
# has gone or the worker ends; and workers that end all the same: in peace,
# after worker_shutdown_timeout, and at once.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Test::More;
use Time::HiRes qw(sleep time);

use MailPolicy;
use MailPolicy::PolicyServer;

my $t = MailPolicy->new();

$t->run_relay(name => 'relay');

# mute waits until it is left; slow_N answers after N tenths of a second

my $server = MailPolicy::PolicyServer->new(dir => $t->dir(), name => 'spf',
    port => $t->port('spf'), handler => sub {
        my ($socket, $request) = @_;
        my ($name) = $request->{recipient} =~ /^(\w+)\@/;

        return sysread($socket, my $octet, 1) && 0 if $name eq 'mute';
        sleep($1 / 10) if $name =~ /^slow_(\d+)/;
        MailPolicy::PolicyServer::answer($socket, 'DUNNO');
        return 1;
    });

push @{ $t->{servers} }, $server;


sub configure {
    my ($timeout) = @_;

    $t->conf(<<"EOF");
worker_shutdown_timeout  $timeout;

mail {
    server_name  edge.example.com;
    policy       on;
    policy_auth  off;
    max_errors   1000;
    proxy_pass   127.0.0.1:%%PORT_relay%%;
    access_log   %%DIR%%/access.log json;

    server {
        listen          127.0.0.1:%%PORT_edge%%;
        protocol        smtp;
        policy_service  inet:127.0.0.1:%%PORT_spf%% timeout=60s connections=6;
    }

    server {
        listen          127.0.0.1:%%PORT_one%%;
        protocol        smtp;
        policy_service  inet:localhost:%%PORT_spf%% timeout=60s connections=1;
    }

    server {
        listen          127.0.0.1:%%PORT_late%%;
        protocol        smtp;
        policy_service  inet:127.0.0.1:%%PORT_later%% timeout=60s;
    }
}
EOF
}


configure('60s');
$t->run_nginx();

my $LATER = '451 4.3.5 Server configuration problem';
my $OK = qr/^250 2\.1\.5 /;


sub begin {
    my $c = $t->session($_[0]);

    $c->cmd('MAIL FROM:<alice@example.com>');
    return $c;
}


sub rcpt { return $_[0]->cmd("RCPT TO:<$_[1]\@example.net>") }

sub ask { $_[0]->send_raw("RCPT TO:<$_[1]\@example.net>\r\n") }

sub asked { return scalar($server->texts()) }


# nobody new, and this one ends

sub gone {
    my ($pid, $timeout) = @_;

    return $t->wait_for(sub { !grep { $_ == $pid }
        $t->instance()->all_worker_pids() }, $timeout);
}


# the client goes, in each way, while its question is asked; there are six
# connections, so that those of others would be missed

for my $how (qw(close reset)) {
    my $before = asked();
    my @gone = map { begin('edge') } 1 .. 5;

    ask($_, 'mute') for @gone;
    ok($t->wait_for(sub { asked() == $before + 5 }), "$how: all are asked");
    $how eq 'reset' ? $_->reset() : $_->close() for @gone;
    ok($t->wait_for(sub { $server->ended() == $server->connections() }),
        "$how: their connections are closed");

    my $c = begin('edge');
    like(rcpt($c, 'bob'), $OK, "$how: others are served");
    $c->quit();
}

# with QUIT behind it, it is taken to be there until it is answered

my $before = asked();
my @quit = map { begin('edge') } 1 .. 6;

$_->send_raw("RCPT TO:<slow_3\@example.net>\r\nQUIT\r\n") for @quit;
ok($t->wait_for(sub { asked() == $before + 6 }), 'quit: all are asked');
$_->close() for @quit;

my $c = begin('edge');
like(rcpt($c, 'bob'), $OK, 'quit: others are served');
$c->quit();

# the same while they wait for a connection, or for the second to pass

my @wait = map { begin('one') } 1 .. 3;

$c = begin('one');
$before = asked();

ask($c, 'slow_10');
ok($t->wait_for(sub { asked() == $before + 1 }), 'waiting: one is asked');
ask($_, 'bob') for @wait;
sleep(0.2);
$_->close() for @wait[0, 2];
like($c->read_reply(), $OK, 'waiting: the first is answered');
like($wait[1]->read_reply(), $OK, 'waiting: who stays is answered');
is(asked(), $before + 2, 'waiting: the others are not asked about');
$_->quit() for $c, $wait[1];

@wait = map { begin('late') } 1 .. 3;
ask($_, 'bob') for @wait;
ok($t->wait_for(sub { 3 == (() = $t->error_log() =~ /it is asked again/g) }),
    'paused: all are');
$_->close() for @wait;

# reload: questions that are asked, wait, or pause are answered by the old
# worker, which then ends, whatever connections it has kept

my ($old) = $t->worker_pids();
my ($first, $second, $third) = map { begin($_) } qw(one one late);
my $begin = time();

$before = asked();
ask($first, 'slow_15');
ok($t->wait_for(sub { asked() == $before + 1 }), 'reload: one is asked');
ask($second, 'slow_1');
ask($third, 'bob');
ok($t->wait_for(sub { 4 == (() = $t->error_log() =~ /it is asked again/g) }),
    'reload: one pauses');

ok($t->reload(), 'reload');

my $later = MailPolicy::PolicyServer->new(dir => $t->dir(), name => 'later',
    port => $t->port('later'), handler => $server->{handler});

push @{ $t->{servers} }, $later;

like($third->read_reply(), $OK, 'reload: who paused is answered');
like($first->read_reply(), $OK, 'reload: who was asked is answered');
cmp_ok(time() - $begin, '>', 1.4, 'reload: when it was its time');
like($second->read_reply(), $OK, 'reload: who waited is answered');
$_->quit() for $first, $second, $third;
ok(gone($old, 5), 'reload: the old worker is gone');

$c = begin('edge');
like(rcpt($c, 'bob'), $OK, 'reload: the new one asks, too');
$c->quit();

# one that only has connections that are kept

($old) = $t->worker_pids();
my $ended = $server->ended();
$begin = time();
ok($t->reload(), 'kept: reload');
ok(gone($old, 5), 'kept: the old worker is gone');
cmp_ok(time() - $begin, '<', 4, 'kept: at once');
ok($t->wait_for(sub { $server->ended() > $ended }), 'kept: they are closed');

# worker_shutdown_timeout: no question holds it up, be it asked or waiting

configure('1s');
ok($t->reload(), 'shut down: reload');

$before = asked();

my @mute = (begin('edge'), map { begin('one') } 1 .. 3);

ask($_, 'mute') for @mute;
ok($t->wait_for(sub { asked() == $before + 2 }), 'shut down: two are asked');

($old) = $t->worker_pids();
$begin = time();
ok($t->reload(), 'shut down: reload again');
ok(gone($old, 8), 'shut down: the old worker is gone');
cmp_ok(time() - $begin, '>', 0.9, 'shut down: after its timeout');
unlike($_->read_reply(), $OK, 'shut down: nobody hears what was not said')
    for @mute;
$_->close() for @mute;

# at once

@mute = (begin('edge'), map { begin('one') } 1 .. 3);
$before = asked();
ask($_, 'mute') for @mute;
ok($t->wait_for(sub { asked() == $before + 2 }), 'quick: two are asked');
($old) = $t->worker_pids();
kill('TERM', $old);
ok(gone($old, 5), 'quick: the worker is gone');
unlike($_->read_reply(), $OK, 'quick: nobody hears what was not said')
    for @mute;
$_->close() for @mute;

ok($t->wait_for(sub { grep { $_ != $old } $t->worker_pids() }),
    'quick: there is another one');
$c = begin('edge');
like(rcpt($c, 'bob'), $OK, 'quick: which asks');
ok($t->wait_for(sub { $server->ended() == $server->connections() - 1 }),
    'quick: only what is kept is still open');
$c->quit();

# the end of all: a graceful one, with something that is kept

$t->done();
