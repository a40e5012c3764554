#!/usr/bin/perl

# Clients that leave at any point of a session, with FIN or RST, while
# anything is awaited; also in the very loop turn in which the answer comes.
# Nothing is left behind, and late answers find nobody (ASYNC).

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use IO::Socket::INET;
use MIME::Base64 qw(encode_base64);
use Test::More;
use Time::HiRes qw(sleep);

use MailPolicy;
use MailPolicy::Oracle qw(oracle_disagreements);
use MailPolicy::Trace qw(trace_violations);

my $t = MailPolicy->new(record => 1);
my $relay = $t->run_relay(name => 'relay');
my $redis = $t->run_redis();

$t->write_file('users', 'alice@example.com:' . $t->crypt('secret') . "\n"
    . 'slow@example.com:' . $t->crypt('secret', '$6$rounds=200000$slow$')
    . "\n");

$t->conf(<<'EOF');
mail {
    server_name    edge.example.com;
    access_log     %%DIR%%/access.log;
    policy_redis   redis://127.0.0.1:%%PORT_redis%% timeout=5s on_error=closed;
    policy         on;
    policy_auth    off;
    proxy_timeout  20s;
    proxy_pass     127.0.0.1:%%PORT_relay%%;

    server {
        listen                 127.0.0.1:%%PORT_smtp%%;
        protocol               smtp;
        policy_auth            file:%%DIR%%/users;
        policy_auth_plaintext  on;
        policy_limit           sender key=$sender messages=1000000/1h;
        policy_limit           rcpt key=$recipient_domain recipients=1000000/1h;
    }

    server {
        listen      127.0.0.1:%%PORT_relayed%%;
        protocol    smtp;
    }

    server {
        listen        127.0.0.1:%%PORT_limited%%;
        protocol      smtp;
        policy_limit  sender key=$sender messages=1000000/1h;
        policy_limit  rcpt key=$recipient_domain recipients=1000000/1h;
    }

    server {
        listen      127.0.0.1:%%PORT_blackhole%%;
        protocol    smtp;
        proxy_pass  127.0.0.1:%%PORT_nobody%%;
        proxy_connect_timeout  1s;
    }
}
EOF
$t->run_nginx();

my ($worker) = $t->worker_pids();
my @ENDS = qw(close reset half_close);
my $TO = 'RCPT TO:<r@example.net>';
my $number = 0;

sub descriptors { return scalar(() = glob("/proc/$worker/fd/*")) }

sub session {
    my ($where, @commands) = @_;

    my $c = $t->client($where);
    $c->greeting();
    $c->ehlo();
    $c->cmd($_) for @commands;
    return $c;
}

sub transaction {
    my ($where, @commands) = @_;

    my $from = 's' . ++$number . '@example.com';
    return ($from, session($where, map { s/SENDER/$from/r } @commands));
}

sub logged {
    my ($from) = @_;

    my $outcome;
    $t->wait_for(sub {
        ($outcome) = $t->read_file('access.log')
            =~ /"sender":"\Q$from\E".*?"outcome":"(\w+)"/;
    });
    return $outcome // 'none';
}


my $MAIL = 'MAIL FROM:<SENDER>';

# all is as before: nobody's connections are left, and the worker is the same

my $baseline;

sub quiet {
    my ($name) = @_;

    $t->disconnect();
    my $c = session('limited');
    my @replies = $c->send_mail('w@example.com', [ 'r@example.net' ], "x\n");
    like($replies[-1], qr/^250 /, "$name: and others are served");
    $c->quit();
    $c->wait_close();

    $baseline //= descriptors();
    ok($t->wait_for(sub { descriptors() <= $baseline }),
        "$name: nothing is left open") or diag(descriptors() . " > $baseline");
    ok($t->wait_for(sub { !$relay->stats()->{open} }),
        "$name: no relay, either");
    is(join(' ', $t->worker_pids()), $worker, "$name: the worker lives");
}

$t->wait_for(sub { $redis->cmd('CLIENT', 'LIST') =~ tr/\n// > 1 });
quiet('to begin with');

# while something is awaited

my %reached = (mail => [], rcpt => [ $MAIL ], data => [ $MAIL, $TO ],
    dot => [ $MAIL, $TO, 'DATA' ]);
my %next = (mail => $MAIL, rcpt => $TO, data => 'DATA', dot => "x\r\n.");
my %seen = (mail => qr/^C: MAIL/m, rcpt => qr/^C: RCPT/m, data => qr/^C: DATA/m,
    dot => qr/^-- body of/m);

# waits until the relay has got so far with this sender's message

sub at_relay {
    my ($from, $what) = @_;

    $t->wait_for(sub {
        grep { /<$from>/ && $_ =~ $what } $relay->transcripts();
    }) or die "the relay has not seen $from at $what\n";
}

for my $stage (qw(greeting ehlo mail rcpt data dot)) {
    my $at = $reached{$stage} ? $stage : 'mail';

    $relay->set($stage => { delay => 0.4, then => 'close' });

    for my $end (@ENDS) {
        my ($from, $c) = transaction('relayed', @{ $reached{$at} });
        my $connections = $relay->stats()->{total};

        $c->send_raw($next{$at} =~ s/SENDER/$from/r . "\r\n");

        $reached{$stage} ? at_relay($from, $seen{$stage})
            : $t->wait_for(sub { $relay->stats()->{total} > $connections });
        $c->$end();

        # a message that may have been taken is waited for, whoever is gone
        my $outcome = $stage eq 'dot' ? qr/^unknown$/
            : $stage eq 'data' ? qr/^(?:aborted|deferred)$/ : qr/^aborted$/;
        like(logged($from), $outcome, "relay, $stage: $end");
    }

    $relay->set($stage => undef);
}

quiet('relay');

# the body of one that is gone, for a relay that stalls

for my $end (@ENDS) {
    $relay->set(body => { after => 1, delay => 0.3 });
    my ($from, $c) = transaction('relayed', $MAIL, $TO, 'DATA');
    $c->socket()->blocking(0);
    syswrite($c->socket(), ('x' x 70 . "\r\n") x 50_000) for 1 .. 20;
    $c->$end();
    is(logged($from), 'aborted', "relay, body: $end");
}

$relay->set(body => undef);
quiet('relay, body');

# a relay that does not answer the SYN: its queue is full

my $nobody = IO::Socket::INET->new(LocalAddr => '127.0.0.1',
    LocalPort => $t->port('nobody'), Listen => 1, ReuseAddr => 1);
my @queue = map { IO::Socket::INET->new(PeerAddr => '127.0.0.1', Blocking => 0,
    PeerPort => $t->port('nobody')) } 1 .. 4;

for my $end (@ENDS) {
    my ($from, $c) = transaction('blackhole');
    $c->send_raw("MAIL FROM:<$from>\r\n$TO\r\n");
    $c->$end();
    is(logged($from), 'aborted', "connect: $end");
}

close($_) for @queue, $nobody;
quiet('connect');

# the store

$redis->signal('STOP');

for my $end (@ENDS) {
    my ($from, $c) = transaction('limited');
    $c->send_raw("MAIL FROM:<$from>\r\n$TO\r\n");
    $t->wait_for(sub { grep { /<$from>/ } $relay->transcripts() });
    $c->$end();
    is(logged($from), 'aborted', "store: $end");
}

$redis->signal('CONT');
quiet('store');

# a hash that takes its time

for my $end (@ENDS, @ENDS) {
    my $c = session('smtp');
    $c->send_raw('AUTH PLAIN '
        . encode_base64("\0slow\@example.com\0secret", '') . "\r\n");
    sleep(0.01);
    $c->$end();
}

quiet('auth');

# In one loop turn: the worker is stopped until both have happened.  A loop
# turn handles what happened in this order, or nearly so.

sub stopped {
    my ($code) = @_;

    kill('STOP', $worker);
    $t->wait_for(sub { $t->read_file("/proc/$worker/stat") =~ /\) T / });
    $code->();
    kill('CONT', $worker);
}

for my $stage (qw(mail rcpt data dot)) {
    for my $action ('ok', 'rst', '421 4.3.2 closing') {
        for my $order ('client first', 'relay first') {
            my $end = $ENDS[ $number % 2 ];
            my ($from, $c) = transaction('relayed', @{ $reached{$stage} });
            my $answered = qr/$seen{$stage}.*\n(?:S:|--) /;

            $relay->set($stage => { delay => 0.1, then => $action });
            $c->send_raw($next{$stage} =~ s/SENDER/$from/r . "\r\n");
            at_relay($from, $seen{$stage});

            stopped(sub {
                $c->$end() if $order eq 'client first';
                at_relay($from, $answered);
                sleep(0.01);
                $c->$end() if $order ne 'client first';
            });

            my $outcome = $stage ne 'dot' ? 'aborted|deferred'
                : $action eq 'rst' ? 'unknown'
                : $action ne 'ok' ? 'deferred'
                : $end eq 'reset' ? 'delivered_unacked' : 'accepted';
            like(logged($from), qr/^(?:$outcome)$/,
                "one turn, $stage: $action, $end, $order");
        }
    }

    $relay->set($stage => undef);
}

for my $order ('client first', 'store first') {
    for my $end (@ENDS) {
        my ($from, $c) = transaction('limited');

        $redis->signal('STOP');
        $c->send_raw("MAIL FROM:<$from>\r\n$TO\r\n");
        at_relay($from, $seen{mail});

        stopped(sub {
            $c->$end() if $order eq 'client first';
            $redis->signal('CONT');
            # what was asked before this is answered before it
            $redis->cmd('PING');
            $c->$end() if $order ne 'client first';
        });

        like(logged($from), qr/^aborted$/, "one turn, store: $end, $order");
    }
}

quiet('one turn');

# after every octet of a session that waits for nothing

# in groups, as a client has to wait where RFC 2920 says so
my @script = ("EHLO client.example\r\n", 'AUTH PLAIN '
    . encode_base64("\0alice\@example.com\0secret", '') . "\r\n",
    "MAIL FROM:<a\@example.com>\r\n$TO\r\nRCPT TO:<q\@example.net>\r\n"
    . "DATA\r\n", "Subject: x\r\n\r\n..\r\n.\r\n"
    . "MAIL FROM:<b\@example.com>\r\n$TO\r\nRSET\r\nNOOP\r\nQUIT\r\n");

my @last = (qr/^250 /, qr/^235 /, qr/^354 /, qr/^221 /);
my $length = length(join('', @script));
my $dot = $length - length($script[-1]) + index($script[-1], "\r\n.\r\n") + 5;

for my $end (@ENDS) {
    for my $n (0 .. $length) {
        my $c = $t->client('smtp');
        my $left = $n;

        $c->greeting();

        for my $i (0 .. $#script) {
            $c->send_raw(substr($script[$i], 0, $left));
            $left -= length($script[$i]);
            last if $left <= 0 || $i == $#script;
            1 while ($c->read_line() // die "the session has ended\n")
                !~ $last[$i];
        }

        # gives it a little way to go, or all the way to the message's end
        if ($n > $dot && $n % 5 == 0) {
            1 while ($c->read_line() // 'queued') !~ /queued/;

        } elsif ($n % 2) {
            sleep(0.002 * rand);
        }

        $c->$end();
    }
}

quiet('every octet');

# whose client was gone before the reply to the dot: outcome=unknown

my %count;
$count{ $_->{outcome} }++
    for grep { ($_->{sender} // '') =~ /^[ab]\@/ } $t->access_log();

my $sure = ($count{accepted} // 0) + ($count{delivered_unacked} // 0);
my $taken = grep { $_->{from} =~ /^[ab]\@/ } $relay->messages();

cmp_ok($sure, '>', 30, 'every octet: some were accepted');
cmp_ok($sure, '<=', $taken, 'every octet: no more than the relay has');
cmp_ok($sure + ($count{unknown} // 0), '>=', $taken,
    'every octet: DOT what the relay has is told of');
is(scalar(grep { $_->{raw} !~ /^\.\r\n\z/m } $relay->received()), 0,
    "SMUG-12 every octet: no dot but the clients'");

is(join("\n", oracle_disagreements($relay)), '', 'SMUG-5 ORACLE');
is(join("\n", trace_violations($t, relays => [ $relay ],
    secrets => [ 'secret' ])), '',
    'TRACE I2 I3 I5 I6');

$t->done();
