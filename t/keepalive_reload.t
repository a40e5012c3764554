#!/usr/bin/perl

# Kept connections when nginx is told to reload, to quit, to stop: old workers
# are gone in time, with QUIT, and leave no connection at the relay, wherever
# the connections stand.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Test::More;
use Time::HiRes qw(sleep time);

use MailPolicy;

my $t = MailPolicy->new();
my $relay = $t->run_relay(name => 'relay');


sub conf {
    my ($name, $main) = @_;

    $t->conf($name, <<"EOF_CONF");
$main
mail {
    server_name    edge.example.com;
    access_log     off;
    policy         on;
    policy_auth    off;
    proxy_timeout  20s;

    upstream kept {
        server             127.0.0.1:%%PORT_relay%%;
        keepalive          8;
        keepalive_timeout  1h;
    }

    server {
        listen      127.0.0.1:%%PORT_$name%%;
        protocol    smtp;
        proxy_pass  kept;
    }
}
EOF_CONF
    $t->run_nginx($name);
}


sub session { return $t->session($_[0], from => $_[1]) }

sub message {
    my ($c) = @_;

    return ($c->send_mail('s@example.com', [ 'r@example.net' ], "x\n"))[-1];
}


sub left { return $relay->stats()->{open} }

sub none_left {
    my ($name) = @_;

    ok($t->wait_for(sub { left() == 0 }), "$name: no connection is left");
}


sub old_gone {
    my ($nginx, $name, $seconds) = @_;

    my $begin = time();
    ok($t->wait_for(sub { 1 == $t->instance($nginx)->all_worker_pids() }),
        "$name: the old worker is gone");
    cmp_ok(time() - $begin, '<', $seconds, "$name: in time");
}


# what a connection said last

sub quits { return scalar(() = join('', $relay->transcripts()) =~ /^C: QUIT$/mg) }

conf('main', '');

# idle ones

my @clients = map { session('main') } 1 .. 5;
$_->cmd('MAIL FROM:<s@example.com>') for @clients;
$_->quit() for @clients;
ok($t->wait_for(sub { left() == 5 }), 'five are kept');
my $quits = quits();
ok($t->reload('main'), 'reload');
old_gone('main', 'idle', 2);
none_left('idle');
is(quits() - $quits, 5, 'idle: each with QUIT');

# a relay that does not answer it

message($_), $_->quit() for session('main');
$relay->set(quit => 'hang');
ok($t->reload('main'), 'reload');
old_gone('main', 'QUIT without reply', 8);
$relay->set(quit => undef);

# a session's own, which goes on until its message is sent

my $c = session('main');
message($c);
my $busy = session('main');
$busy->cmd($_) for 'MAIL FROM:<s@example.com>', 'RCPT TO:<r@example.net>',
    'DATA';
ok($t->reload('main'), 'reload');
like($c->read_reply(), qr/^421 4\.3\.2 /, 'an idle session is closed');
ok($t->wait_for(sub { left() == 1 }), '... and its connection to the relay');
like($busy->cmd("x\r\n."), qr/^250 /, 'one that sends a message may go on');
like($busy->read_reply(), qr/^421 4\.3\.2 /, '... to its end');
old_gone('main', 'with a message', 2);
none_left('with a message');

# RSET without reply; XCLIENT without reply, and with it later

$relay->set(rset => { delay => 0.5, then => 'ok' });
$c = session('main');
$c->cmd('MAIL FROM:<s@example.com>');
$c->quit();
ok($t->reload('main'), 'reload');
old_gone('main', 'RSET is due', 2);
none_left('RSET is due');
$relay->set(rset => undef);

$relay->set(extensions => [ 'PIPELINING', 'XCLIENT ADDR' ]);
message($_), $_->quit() for session('main', '127.0.0.2');
sleep(1.1);
$relay->set(xclient => { delay => 0.5, then => 'ok' });
$c = session('main', '127.0.0.3');
$c->send_raw("MAIL FROM:<s\@example.com>\r\nRCPT TO:<r\@example.net>\r\n"
    . "DATA\r\n");
$t->wait_for(sub { join('', $relay->transcripts()) =~ /ADDR=127\.0\.0\.3/ });
ok($t->reload('main'), 'reload');
like(join('', map { $c->read_reply() } 1 .. 3), qr/^250 .*354 /s,
    'XCLIENT is due: the message goes on');
is(left(), 1, 'XCLIENT is due: on that connection');
like($c->cmd("x\r\n."), qr/^250 /, 'XCLIENT is due: the message is sent');
old_gone('main', 'XCLIENT is due', 2);
none_left('XCLIENT is due');
$relay->set(xclient => undef);

# new workers keep theirs

message($_), $_->quit() for session('main') ;
is(left(), 1, 'the new worker keeps one');
is($t->stop('main'), 0, 'it stops');
none_left('stop');

# worker_shutdown_timeout, and no time at all

conf('hasty', 'worker_shutdown_timeout 1s;');
message($_), $_->quit() for session('hasty');
$relay->set(quit => 'hang');
ok($t->reload('hasty'), 'worker_shutdown_timeout: reload');
old_gone('hasty', 'worker_shutdown_timeout', 3);
$relay->set(quit => undef);
$t->stop('hasty');

conf('fast', '');
message($_), $_->quit() for session('fast');
$t->instance('fast')->signal('TERM');
none_left('TERM');
$t->done();
