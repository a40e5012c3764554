#!/usr/bin/perl

# What once went wrong between us and a relay: replies that were taken for
# those of other commands, and relays that hang and were waited for without
# end.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Test::More;
use Time::HiRes qw(sleep time);

use MailPolicy;

my $MARGIN = 2;

my @DATA = ('PIPELINING', '8BITMIME', 'SIZE', 'ENHANCEDSTATUSCODES');
my @CHUNKS = (@DATA, 'CHUNKING');

my $t = MailPolicy->new();

my %relay = map { $_->[0] => $t->run_relay(name => $_->[0],
    extensions => $_->[1]) } [ bdat => \@CHUNKS ], [ data => \@DATA ],
    [ hang => \@DATA ];

$t->conf(<<'EOF');
error_log  %%DIR%%/error.log info;

mail {
    server_name    edge.example.com;
    access_log     %%DIR%%/access.log;
    policy         on;
    policy_auth    off;
    timeout        60s;
    proxy_timeout  20s;

    server {
        listen      127.0.0.1:%%PORT_smtp_bdat%%;
        protocol    smtp;
        proxy_pass  127.0.0.1:%%PORT_bdat%%;
    }

    server {
        listen      127.0.0.1:%%PORT_smtp_data%%;
        protocol    smtp;
        proxy_pass  127.0.0.1:%%PORT_data%%;
    }

    server {
        listen               127.0.0.1:%%PORT_smtp_hasty%%;
        protocol             smtp;
        proxy_pass           127.0.0.1:%%PORT_bdat%%;
        proxy_timeout        1s;
        proxy_final_timeout  6s;
    }

    server {
        listen         unix:%%DIR%%/hang.sock;
        protocol       smtp;
        proxy_pass     127.0.0.1:%%PORT_hang%%;
        proxy_timeout  2s;
    }
}
EOF
$t->run_nginx();

my $CONTENT = 'x' x 198 . "\r\n";
my $number = 0;

sub session {
    my ($where, @more) = @_;

    return $t->session($where, timeout => 20, @more);
}


# up to the recipient, whatever the replies: the sender, and they

sub begin {
    my ($c) = @_;

    my $from = 's' . ++$number . '@example.com';
    return ($from,
        $c->pipeline("MAIL FROM:<$from>", 'RCPT TO:<r@example.net>'));
}


sub bdat {
    my ($octets, $last) = @_;

    return 'BDAT ' . length($octets) . ($last ? ' LAST' : '') . "\r\n$octets";
}


sub outcome {
    my ($from) = @_;

    my $outcome;

    $t->wait_for(sub {
        ($outcome) = map { $_->{outcome} }
            grep { ($_->{sender} // '') eq $from } $t->access_log();
    });
    return $outcome // 'none';
}


# the message as the relay has it, or nothing

sub received {
    my ($relay, $from) = @_;

    my ($message) = grep { ($_->{from} // '') eq $from } $relay->received();
    return $message // {};
}


# A relay refuses a message in its middle, and answers its end, too.  The
# second reply was taken for that of the next command, and so on: the next
# message, which is refused, had the 250 of its recipient.

my $EARLY = '552 5.3.4 too big';
my $NO = '554 5.7.1 a virus';

$relay{bdat}->set(
    body => { times => 1, after => 100, action => $EARLY },
    dot  => [ { times => 1, action => { delay => 0.3, then => '250 2.0.0 b' } },
              $NO ],
    rcpt => [ { times => 1, action => 'ok' },
              { delay => 0.3, then => '250 2.1.5 of the recipient' } ]);

my $c = session('smtp_bdat');
my ($one) = begin($c);
$c->send_raw(bdat($CONTENT, 1));
is($c->read_reply(), $EARLY, 'DOT S12 an end answered twice');

my ($two, @replies) = begin($c);
is("@replies", '250 2.1.0 Ok 250 2.1.5 of the recipient',
    'DOT S12 an end answered twice: the next recipient has its own reply');
$c->send_raw(bdat($CONTENT, 1));
is($c->read_reply(), $NO,
    'DOT S12 an end answered twice: so has the next message');
is(outcome($two), 'rejected', 'DOT S12 an end answered twice: logged');
isnt(received($relay{bdat}, $two)->{connection} // 0,
    received($relay{bdat}, $one)->{connection} // 0,
    'DOT S12 an end answered twice: on another connection');
$c->quit();

# of DATA it was MAIL that was told what the message before was

$relay{data}->set(
    body => { times => 1, after => 100, action => $EARLY },
    dot  => { times => 1, action => { delay => 0.3, then => "$EARLY again" } });

$c = session('smtp_data');
begin($c);
$c->cmd('DATA');
$c->send_raw("$CONTENT.\r\n");
is($c->read_reply(), $EARLY, 'DOT S12 a dot answered twice');
is(($c->send_mail('a@example.com', [ 'b@example.net' ], "x\n"))[-1] =~ /^250/,
    1, 'DOT S12 a dot answered twice: the next message passes');
$c->quit();

# The end of a reply that nobody asked for comes behind the next MAIL.  An
# octet each 0.15 s: the first reply is there after 1.2 s, the other one then
# takes as long again.

$relay{bdat}->set(
    body => undef,
    dot  => [ { times => 1, action => { trickle => 0.15,
                  then => "250 aa\n250 bb" } }, $NO ],
    rcpt => [ { times => 1, action => 'ok' },
              { delay => 0.3, then => '250 2.1.5 of the recipient' } ]);

$c = session('smtp_bdat');
($one) = begin($c);
$c->send_raw(bdat($CONTENT, 1));
is($c->read_reply(), '250 2.0.0 aa', 'DOT S11 a reply and half of another');
sleep(0.5);
($two) = begin($c);
$c->send_raw(bdat($CONTENT, 1));
is($c->read_reply(), $NO,
    'DOT S11 a reply and half of another: the next message has its own');
is(outcome($two), 'rejected', 'DOT S11 a reply and half of another: logged');
$c->quit();
$relay{bdat}->set(dot => undef, rcpt => undef);

# Two replies to one chunk: the second was the message's, LAST being out.

$relay{bdat}->set(
    bdat => { delay => 0.3, then => { send => "250 one\r\n250 two\r\n" } },
    dot  => $NO);

$c = session('smtp_bdat');
($one) = begin($c);
$c->send_raw(bdat($CONTENT) . bdat($CONTENT, 1));
like($c->read_reply(), qr/^250 /, 'DOT S8 a chunk answered twice: the chunk');
like($c->read_reply(), qr/^451 4\.4\.2 /,
    'DOT S8 a chunk answered twice: no reply to the message');
is(outcome($one), 'deferred', 'DOT S8 a chunk answered twice: logged');
ok(!told_last($relay{bdat}, $one),
    'DOT S8 a chunk answered twice: LAST has waited');
$c->quit();
$relay{bdat}->set(bdat => undef, dot => undef);


# of the octets that it got: a relay that hangs has no transcript of them

sub told_last {
    my ($relay, $from) = @_;

    my ($stream) = grep { /<\Q$from\E>/ } $relay->streams();
    return $stream =~ /^BDAT \d+ LAST\r$/m;
}


# A chunk that is not answered: LAST went out all the same, and it was the
# final reply that was waited for.

$relay{bdat}->set(bdat => 'hang');

$c = session('smtp_hasty');
($one) = begin($c);
my $start = time();
$c->send_raw(bdat($CONTENT) . bdat($CONTENT, 1));
like($c->read_reply(), qr/^250 /, 'RES-7 a chunk is not answered: our 250');
like($c->read_reply(), qr/^451 4\.4\.2 /,
    'RES-7 a chunk is not answered: the message is given up');
cmp_ok(time() - $start, '<', 1 + $MARGIN,
    'RES-7 a chunk is not answered: in time');
is(outcome($one), 'deferred', 'RES-7 a chunk is not answered: logged');
ok(!told_last($relay{bdat}, $one),
    'RES-7 a chunk is not answered: no LAST');
$c->quit();
$relay{bdat}->set(bdat => undef);

# A relay takes no more of a body, and the client sends an octet now and then:
# each began the relay's time anew.

$relay{hang}->set(body => 'hang');

$c = session(undef, path => $t->dir() . '/hang.sock');
($one) = begin($c);
like($c->cmd('DATA'), qr/^354 /, 'RES-7 a relay that does not read: DATA');
ok(fill($c), 'RES-7 a relay that does not read: all is full');

$start = time();
my ($lost, $came) = (0, 0);
my $queue = unread($c);

while (!$lost && time() - $start < 6) {
    $c->send_raw('x');
    sleep(0.4);
    $came ||= unread($c) > $queue;
    $lost = timed_out('hang');
}

ok($lost, 'RES-7 a relay that does not read, a client that trickles: given up');
cmp_ok(time() - $start, '<', 2 + $MARGIN,
    'RES-7 a relay that does not read, a client that trickles: in time');
ok($came, 'RES-7 a relay that does not read: what trickled has come');

SKIP: {
    skip('the relay is waited for', 1) unless $lost;

    $c->send_raw("\r\n.\r\n");
    like($c->read_reply(), qr/^451 4\.4\.2 /,
        'RES-5 a relay that does not read: what the client is told');
}

$c->close();


sub timed_out {
    my ($name) = @_;

    my $port = $t->port($name);
    return $t->error_log() =~ /relay timed out.*, relay: 127\.0\.0\.1:$port,/;
}


# Sends until nginx has stopped reading, and not much more: what comes later
# is to reach it.

sub fill {
    my ($c) = @_;

    for (1 .. 2000) {
        $c->send_raw($CONTENT x 100) or return 0;

        my ($queue, $since) = (unread($c), time());

        while ($queue) {
            return 1 if time() - $since > 0.4;
            sleep(0.02);
            my $now = unread($c);
            ($queue, $since) = ($now, time()) if $now != $queue;
        }
    }

    return 0;
}


# what of it nginx has not read yet; of a socket in the file system, this is
# known to the other side

sub unread {
    my ($c) = @_;

    my $octets = pack('i', 0);

    ioctl($c->socket(), 0x5411, $octets) or die "TIOCOUTQ: $!\n";
    return unpack('i', $octets);
}


$t->done();
