#!/usr/bin/perl

# What has no end, by its ids: a command line (RES-1), a relay's reply
# (RES-2), recipients (RES-3), replies that the client does not read (RES-6)
# or has to wait for (RES-11); and connections, RES-8.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Socket qw(SOL_SOCKET SO_RCVBUF);
use Test::More;
use Time::HiRes qw(sleep time);

use MailPolicy;

my $t = MailPolicy->new();
my $relay = $t->run_relay(name => 'relay');

$t->conf(<<'EOF');
mail {
    server_name    edge.example.com;
    policy         on;
    policy_auth    off;
    proxy_timeout  20s;
    proxy_pass     127.0.0.1:%%PORT_relay%%;

    server {
        listen    127.0.0.1:%%PORT_smtp%%;
        protocol  smtp;
    }

    server {
        listen                 127.0.0.1:%%PORT_few%%;
        protocol               smtp;
        policy_max_recipients  3;
    }

    server {
        listen                 127.0.0.1:%%PORT_many%% sndbuf=4k;
        protocol               smtp;
        policy_max_recipients  100000;
    }

    server {
        listen        127.0.0.1:%%PORT_rate%%;
        protocol      smtp;
        policy_limit  rate  key=$client_net  connections=2/1m;
    }

    server {
        listen        127.0.0.1:%%PORT_held%%;
        protocol      smtp;
        policy_limit  held  key=$client_net  sessions=2;
    }
}
EOF
$t->run_nginx();

my $MAIL = 'MAIL FROM:<a@example.com>';
my $RCPT = 'RCPT TO:<b@example.net>';
my ($worker) = $t->worker_pids();


sub session {
    my ($where, %option) = @_;

    return $t->session($where // 'smtp', %option);
}


sub codes { return join(' ', map { substr($_, 0, 3) } @_) }


sub memory {
    return $t->read_file("/proc/$worker/status") =~ /^RssAnon:\s+(\d+)/m && $1;
}


# RES-1

my $c = session();
like($c->cmd('RCPT TO:<' . 'x' x 3000 . '>'), qr/^500 5\.5\.2 /,
    'RES-1 too long a line');
like($c->cmd('NOOP'), qr/^250 /, 'RES-1 the session goes on');
$c->quit();

my @endless = map { session() } 1 .. 20;
my $before = memory();
$_->send_raw('NOOP ' . 'x' x 60_000) for @endless;
like($endless[0]->cmd(''), qr/^500 5\.5\.2 /, 'RES-1 a very long one');

SKIP: {
    skip('a sanitizer keeps what is freed', 1)
        if $t->read_file("/proc/$worker/maps") =~ /asan/;
    cmp_ok(memory() - $before, '<', 600, 'RES-1 is not kept');
}

$_->send_raw('x' x 70_000) for @endless;
is(scalar(grep { $_->read_reply() =~ /^421 4\.7\.0 / } @endless), 20,
    'RES-1 one without end');
is(scalar(grep { $_->wait_close() } @endless), 20, 'RES-1 is cut off');

# RES-2: no reply is waited for that can only become too long

for my $case ([ 'a line', '250-' . 'x' x 70_000 ],
    [ 'a last line', '250 ' . 'x' x 70_000 ],
    [ 'lines', "250-x\r\n" x 2_000 . "250 x\r\n" ],
    [ 'lines, never the last', "250-x\r\n" x 120 ])
{
    my ($what, $octets) = @$case;

    for my $stage (qw(greeting ehlo mail rcpt data dot)) {
        my $name = "RES-2 $stage: $what";
        my $said = $octets;

        $said =~ s/250/220/g if $stage eq 'greeting';
        $said =~ s/250/354/g if $stage eq 'data';
        $relay->set($stage => { send => $said });

        my $start = time();
        $c = session();
        my @replies = map { $c->cmd($_) } $MAIL, $RCPT, 'DATA';
        push @replies, $c->cmd("x\r\n.") if $replies[-1] =~ /^354/;
        my ($reply) = grep { /^4/ } @replies;

        like($reply // 'none', qr/^451 4\.4\.[12] /, "$name: refused");
        cmp_ok(time() - $start, '<', 5, "$name: at once");
        $relay->set($stage => undef);
        $c->quit();
    }
}

# RES-3

$c = session('few');
is(codes($c->pipeline($MAIL, ($RCPT) x 5)), '250 250 250 250 452 452',
    'RES-3 more than policy_max_recipients');
like($c->cmd($RCPT), qr/^452 4\.5\.3 /, 'RES-3 the reply');
$c->send_raw("$RCPT\r\n" x 300);
my @replies = $c->read_reply();
push @replies, $c->read_reply() while $replies[-1] =~ /^452/;
like($replies[-1], qr/^421 4\.7\.0 /, 'RES-3 who does not stop is cut off');
cmp_ok(scalar @replies, '>', 90, 'RES-3 after many');
ok($c->wait_close(), 'RES-3 closed');

# RES-11: replies that wait for the relay are so many, and no more

my $COUNT = 10_000;

$relay->set(mail => { delay => 1.5, then => 'ok' });
$c = session('many', timeout => 20);
$before = memory();
$c->send_raw("$MAIL\r\n" . "$RCPT\r\n" x $COUNT);
sleep(0.8);

SKIP: {
    skip('a sanitizer keeps what is freed', 1)
        if $t->read_file("/proc/$worker/maps") =~ /asan/;
    cmp_ok(memory() - $before, '<', 1000, 'RES-11 what waits is not kept');
}

like($c->read_reply(), qr/^250 2\.1\.0 /, 'RES-11 then MAIL is answered');
like($c->read_reply(), qr/^250 2\.1\.5 /, 'RES-11 and recipients');
$c->close();
$relay->set(mail => undef);

# RES-6: as much as waits for a client is not read from it; and when it reads
# at last, it is all there, and in order

$relay->set(rcpt => { match => qr/<r\d*7@/, action => '550 5.1.1 no' });
$c = session('many', timeout => 20);
setsockopt($c->socket(), SOL_SOCKET, SO_RCVBUF, 4096);
$c->cmd($MAIL);

my $commands = join('', map { "RCPT TO:<r$_\@example.net>\r\n" } 1 .. $COUNT);
my ($seen, $now) = (-1, 0);

sub send_more {
    my $n = syswrite($c->socket(), $commands, 16384);
    substr($commands, 0, $n // 0) = '';
    return $n;
}

until ($seen == $now) {
    1 while send_more();
    $seen = $now;
    sleep(0.5);
    $now = () = ($relay->transcripts())[-1] =~ /^C: RCPT/mg;
}

cmp_ok($seen, '>', 256, 'RES-6 replies are not read: some come');
cmp_ok($seen, '<', $COUNT / 2, 'RES-6 but no more');

@replies = ();

do {
    send_more();
    push @replies, $c->read_reply();
} while (@replies < $COUNT && $replies[-1] =~ /^[25]50 /);

is(scalar @replies, $COUNT, 'RES-6 when it reads, all of them come');
is(scalar(grep { ($replies[$_ - 1] =~ /^550/ ? 1 : 0) != ($_ % 10 == 7) }
    1 .. @replies), 0, 'RES-6 and in order');
$relay->set(rcpt => undef);
is(join(' ', $t->worker_pids()), $worker, 'RES-6 the worker is the same');

# RES-8: connections and sessions, see also limit_sessions.t

for my $limited (qw(rate held)) {
    my @clients = map { $t->client($limited) } 1 .. 3;
    my @replies = map { $_->greeting(); $_->ehlo(); } @clients;

    is(join(' ', map { /^(\d+)/ } @replies), '250 250 421',
        "RES-8 $limited: the third one has to go");
    $_->close() for @clients;
}

$t->done();
