#!/usr/bin/perl

# A client that does not wait for the replies that it has to wait for, and
# one that keeps a session busy without sending a message.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Test::More;
use Time::HiRes qw(sleep);

use MailPolicy;

my $t = MailPolicy->new();
my $relay = $t->run_relay(name => 'relay');

$t->certificate();
$t->write_file('users', "alice\@example.com:{PLAIN}secret\n");

$t->conf(<<'EOF');
mail {
    server_name   edge.example.com;
    access_log    %%DIR%%/access.log;
    policy        on;
    policy_auth   off;
    proxy_pass    127.0.0.1:%%PORT_relay%%;

    server {
        listen      127.0.0.1:%%PORT_smtp%%;
        protocol    smtp;
    }

    server {
        listen      127.0.0.1:%%PORT_auth%%;
        protocol    smtp;
        policy_auth            file:%%DIR%%/users;
        policy_auth_plaintext  on;
    }

    ssl_certificate      %%DIR%%/localhost.crt;
    ssl_certificate_key  %%DIR%%/localhost.key;

    server {
        listen      127.0.0.1:%%PORT_tls%% ssl;
        protocol    smtp;
    }

    server {
        listen      127.0.0.1:%%PORT_tlsdelay%% ssl;
        protocol    smtp;
        smtp_greeting_delay  1s;
    }

    server {
        listen      127.0.0.1:%%PORT_delay%%;
        protocol    smtp;
        smtp_greeting_delay  1s;
    }

    server {
        listen      127.0.0.1:%%PORT_rate%%;
        protocol    smtp;
        timeout     700ms;
        policy_min_data_rate  1000;
    }

    server {
        listen      127.0.0.1:%%PORT_slow%%;
        protocol    smtp;
        timeout     700ms;
        policy_min_data_rate  0;
    }
}
EOF
$t->run_nginx();

my ($worker) = $t->worker_pids();
my $MAIL = 'MAIL FROM:<a@example.com>';
my $RCPT = 'RCPT TO:<b@example.net>';

sub session {
    my ($where) = @_;

    return $t->session($where // 'smtp');
}


sub cut_off {
    my ($c, $name) = @_;

    local $Test::Builder::Level = $Test::Builder::Level + 1;

    # smtp_greeting_delay is nginx' own, and has a code of its own; what TLS
    # has read with the end of the handshake it does not see, so that this is
    # refused behind the delay
    like($c->read_reply(), $name !~ /greeting_delay/ ? qr/^554 5\.5\.0 /
        : $name =~ /TLS/ ? qr/^5(?:03|54) 5\.5\.0 /
        : qr/^503 5\.5\.0 /, "SMUG-10 $name");
    ok($c->wait_close(), "SMUG-10 $name: closed");
}

# before the greeting: what came while the worker could not look

kill('STOP', $worker);
$t->wait_for(sub { $t->read_file("/proc/$worker/stat") =~ /\) T / });
my $c = $t->client('smtp');
$c->send_raw("EHLO client.example\r\n");
kill('CONT', $worker);
cut_off($c, 'before the greeting');

$c = $t->client('tls', tls => 1);
like($c->greeting(), qr/^220 /, 'TLS');
like($c->ehlo(), qr/^250 /m, 'TLS, EHLO behind the greeting');
like($c->quit(), qr/^221 /, 'TLS, QUIT');

$c = $t->client('tlsdelay', tls => 1);
$c->send_raw("EHLO client.example\r\n");
cut_off($c, 'under TLS, during smtp_greeting_delay');

$c = $t->client('delay');
sleep(0.05);
$c->send_raw("EHLO client.example\r\n");
cut_off($c, 'during smtp_greeting_delay');

# behind a command that is the last of its group

for my $command ('EHLO client.example', 'HELO client.example') {
    $c = session();
    $c->send_raw("$command\r\n$MAIL\r\n");
    cut_off($c, $command);
}

$c = session('auth');
$c->send_raw("AUTH LOGIN\r\nYWxpY2VAZXhhbXBsZS5jb20=\r\n");
cut_off($c, 'AUTH LOGIN');
$c = session('auth');
$c->send_raw("AUTH PLAIN AGFsaWNlQGV4YW1wbGUuY29tAHNlY3JldA==\r\n$MAIL\r\n");
cut_off($c, 'AUTH PLAIN');

$c = session();
$c->send_raw("$MAIL\r\n$RCPT\r\nDATA\r\nSubject: x\r\n\r\nx\r\n.\r\n");
like($c->read_reply(), qr/^250 /, 'MAIL');
like($c->read_reply(), qr/^250 /, 'RCPT');
cut_off($c, 'DATA');

# in a packet of its own, while the relay has not said 354

$relay->set(data => { delay => 0.3, then => 'ok' });
$c = session();
$c->pipeline($MAIL, $RCPT);
$c->send_raw("DATA\r\n");
sleep(0.1);
$c->send_raw("Subject: x\r\n\r\nx\r\n.\r\n");
cut_off($c, 'DATA, the body before 354');
$relay->set(data => undef);

is(scalar(() = $relay->received()), 0, 'SMUG-11 none of it at the relay');
is(scalar(grep { /^C: Subject|^-- body/m } $relay->transcripts()), 0,
    'SMUG-11 not an octet');
ok($t->wait_for(sub { 2 == grep { $_->{outcome} eq 'aborted' }
    $t->access_log() }), 'SMUG-10 logged');

# what may be pipelined

$c = session();
is(join(' ', map { substr($_, 0, 3) } $c->pipeline('RSET', $MAIL, $RCPT, $RCPT,
    'DATA')), '250 250 250 250 354', 'SMUG-10 a group');
$c->send_raw("x\r\n.\r\nRSET\r\n$MAIL\r\n$RCPT\r\nDATA\r\n");
is(join(' ', map { substr($c->read_reply(), 0, 3) } 1 .. 5),
    '250 250 250 250 354', 'EXT-8 a group behind the end of a message');
$c->send_raw("x\r\n.\r\nQUIT\r\n");
like($c->read_reply(), qr/^250 /, 'EXT-8 the message');
like($c->read_reply(), qr/^221 /, 'EXT-8 QUIT behind it');

# busy without a message

for my $junk ('NOOP', 'RSET', 'VRFY x', 'HELP') {
    $c = session();
    $c->send_raw("$junk\r\n" x 300);
    my @replies = $c->read_reply();
    push @replies, $c->read_reply() while $replies[-1] =~ /^2/;
    is($replies[-1], '421 4.7.0 Too many errors', "RES-4 $junk ends in 421");
    cmp_ok(scalar(@replies), '>', 90, "RES-4 $junk: some are allowed");
    cmp_ok(scalar(@replies), '<', 120, "RES-4 $junk: not many");
}

$c = session();
for (1 .. 150) {
    last if $c->ehlo() !~ /^250/;
}
ok($c->wait_close(), 'RES-4 EHLO without end');

$c = session();
for (1 .. 3) {
    $c->cmd('NOOP') for 1 .. 80;
    is(($c->send_mail('a@example.com', [ 'b@example.net' ], "x\n"))[-1]
        =~ /^250/, 1, 'RES-4 a message makes up for it');
}
$c->quit();

# replies that wait for the relay are not without number

$relay->set(rcpt => { delay => 0.4, then => 'ok', times => 1 });
$c = session();
my @replies = $c->pipeline($MAIL, ($RCPT) x 900);
is(scalar(grep { /^250 / } @replies), 901, 'RES-11 nine hundred recipients');
$relay->set(rcpt => undef);
$c->quit();

# a body has to come at some rate

sub trickle {
    my ($where, $octets, $pause, $count) = @_;

    my $c = session($where);
    $c->pipeline($MAIL, $RCPT, 'DATA');

    for (1 .. $count) {
        $c->send_raw($octets) or last;
        sleep($pause);
    }

    $c->send_raw("\r\n.\r\n");
    return $c->read_reply(2);
}

like(trickle('rate', 'x' x 10, 0.1, 20), qr/CLOSED/, 'RES-5 100 octets a second');
like(trickle('rate', 'x' x 300, 0.1, 20), qr/^250 /, 'RES-5 3000 a second');
like(trickle('slow', 'x', 0.2, 10), qr/^250 /, 'RES-5 no rate is asked for');

# and a command by its deadline, however it comes

$c = session('slow');
my $alive = 0;
for (1 .. 40) {
    $c->send_raw('x') or last;
    $alive++;
    last if defined $c->read_some(0.1);
}
cmp_ok($alive, '<', 15, 'RES-5 a command line, an octet a time');

$t->done();
