#!/usr/bin/perl

# The table of the final dot, stages S8 to S12: from the first octet of a
# message to the relay's reply to its end.  No other relay is ever asked.
# Before the dot is out, nothing was delivered, and nothing is charged; when
# it is, the relay's answer is the client's; and without an answer nobody
# knows, so that the client is told 451 and the charge stands.
#
#     S8    the client is sending
#     S9    it has sent its dot, which the relay does not take off us
#     S10   the relay has the dot: what it says is no answer
#     S11   it says 250; and then something more
#     S12   it refuses; and then something more

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Test::More;
use Time::HiRes qw(sleep time);

use MailPolicy;
use MailPolicy::DotTable;

# more than a relay's socket and ours for it hold, together with what a
# client's does not; see "stalled" below, which says if it is not
use constant STALL => 5_000_000;

my $t = MailPolicy->new();
my $table = MailPolicy::DotTable->new($t);
my $relay = $table->relay();
my ($worker) = $t->worker_pids();

my $LOST = '451 4\.4\.2 ';
my $GARBAGE = "\x00\xff\x16\x03 this is no reply\r\n";
my %SLOW = (slow => 1);
my @EVENTS = MailPolicy::DotTable::EVENTS;

# S8 and S9: what the relay does before it has the dot

my %BODY = (
    '4xx'         => '452 4.3.1 full',
    '5xx'         => '554 5.6.0 spam',
    '421'         => '421 4.3.2 closing',
    'garbage'     => 'garbage',
    'silence'     => 'hang',
    'FIN'         => 'close',
    'RST'         => 'rst',
    'early reply' => '250 2.0.0 Ok: queued as EARLY',
);

my %HEARD = (
    '4xx' => [ '452 4\.3\.1 full$' ],
    '5xx' => [ '554 5\.6\.0 spam$', 'rejected' ],
    '421' => [ '451 4\.3\.2 closing$' ],
);

for my $event (@EVENTS) {
    my ($reply, $outcome) = @{ $HEARD{$event} // [ $LOST ] };
    my %cell = (where => 'dot', reply => $reply,
        outcome => $outcome // 'deferred');

    # amid the message; a relay that stops reading shows with a long one

    if ($event eq 'slow') {
        $table->cell('S8', $event, %SLOW, data => \&long,
            fault => { body => { after => 1, delay => 0.5 } });
    } else {
        $table->cell('S8', $event, %cell,
            data => $event eq 'silence' ? \&long : \&amid,
            fault => { body => { after => 1, action => $BODY{$event} } });
    }

    # behind the client's dot, before ours

    my $dots = dots();

    if ($event eq 'slow') {
        $table->cell('S9', $event, %SLOW, data => \&stalled,
            fault => { body => { after => 1, delay => 0.7 } });
    } else {
        $table->cell('S9', $event, %cell, data => \&stalled,
            fault => { body => { after => 1, action => $event eq 'silence'
                ? 'hang' : { delay => 0.7, then => $BODY{$event} } } });
        is(dots(), $dots, "DOT S9 $event: the dot did not get there");
    }
}

# S10: the relay has the dot, and does not say what it made of it

my %UNKNOWN = (where => 'dot', reply => $LOST, outcome => 'unknown',
    charge => [ 1, 1 ]);

my %NO_ANSWER = (
    '4xx'     => { send => '450 4.2.0 half a li', close => 'close' },
    '5xx'     => { send => "554-5.7.0 of several lines\r\n", close => 'rst' },
    '421'     => { send => "421-4.3.2 closing\r\n250 2.0.0 Ok\r\n" },
    'garbage' => 'garbage',
    'silence' => 'hang',
    'FIN'     => 'close',
    'RST'     => 'rst',
    # behind the deadline
    'slow'    => { delay => MailPolicy::DotTable::DEADLINE + 0.5,
                   then => 'ok' },
);

for my $event (sort keys %NO_ANSWER) {
    $table->cell('S10', $event, %UNKNOWN,
        fault => { dot => $NO_ANSWER{$event} });
}

# A 250 of which there is something when the dot is not yet out is no reply
# to it.  "first": the worker sees both in one turn of its loop, in that
# order; "half": the rest of it comes behind the dot.

for my $order ('client first', 'relay first', 'half') {
    my $name = "DOT S10 early reply, $order";
    my $helo = $table->new_helo();
    my $c = $table->session('relay_slow', $helo);
    my $before = dots();

    $relay->set($order eq 'half'
        ? (body => { after => 1, action => { send => '250 2.0.0 Ok: qu' } },
           dot => { send => "eued as EARLY\r\n" })
        : (body => { after => 1,
               action => { delay => 0.3, then => $BODY{'early reply'} } }));
    $c->cmd($_) for 'MAIL FROM:<' . MailPolicy::DotTable::SENDER . '>',
        'RCPT TO:<a@example.net>', 'DATA';
    $c->send_raw("Subject: x\r\n\r\n");

    if ($order eq 'half') {
        relay_has(qr/^S: \[250 2\.0\.0 Ok: qu\]/m);
        $c->send_raw("first\r\n");
        sleep(0.1);
        $c->send_raw("last $helo\r\n.\r\n");

    } else {
        relay_has(qr/^-- body rule/m);
        kill('STOP', $worker);
        $t->wait_for(sub { $t->read_file("/proc/$worker/stat") =~ /\) T / });
        $c->send_raw("last $helo\r\n.\r\n") if $order eq 'client first';
        relay_has(qr/^S: 250 2\.0\.0 Ok: queued as EARLY/m);
        $c->send_raw("last $helo\r\n.\r\n") if $order ne 'client first';
        sleep(0.01);
        kill('CONT', $worker);
    }

    like($c->read_reply(), qr/^$LOST/, "$name: it is not the client's 250");
    $relay->set(body => undef, dot => undef);

    # it may have had the dot, if so nobody knows what it has made of it
    $t->wait_for(sub { ($relay->transcripts())[-1] =~ /^-- \w+ by/m }, 2);
    my $dots = dots() - $before;
    $table->charged($name, $dots, $dots);
    like(($c->send_mail(MailPolicy::DotTable::SENDER, [ 'a@example.net' ],
        "good $helo\n"))[-1], qr/^250 /, "$name: the next message passes");
    $table->charged("$name: the next message", 1, 1);
    $c->quit();
    $table->logged($name, $helo, $dots ? 'unknown' : 'deferred', 'accepted');
}

$table->{cells}{'S10 early reply'}++;

# S11 and S12: an answer, and what follows it is another matter: the
# connection is not used again, and the next message does not hear of it

my %BEHIND = (
    '4xx'         => { send => "%s\r\n450 4.2.0 not now\r\n" },
    '5xx'         => { send => "%s\r\n554 5.7.0 never\r\n" },
    '421'         => { send => "%s\r\n421 4.3.2 closing\r\n" },
    'garbage'     => { send => "%s\r\n$GARBAGE" },
    'silence'     => { reply => '%s', close => 'hang' },
    'FIN'         => { reply => '%s', close => 'close' },
    'RST'         => { reply => '%s', close => 'rst' },
    'slow'        => { trickle => 0.01, then => '%s' },
    'early reply' => { send => "%s\r\n250 2.0.0 Ok: queued as EARLY\r\n" },
);

for my $event (@EVENTS) {
    my ($answer, %cell) = ('250 2.0.0 Ok: queued as FIRST');

    $table->cell('S11', $event, behind($event, $answer), data => \&once,
        $event eq 'slow' ? %SLOW : ());

    # those that are answers themselves come without anything behind them

    my %refusal = ('4xx' => '450 4.2.0 not now', '5xx' => '554 5.7.0 never',
        '421' => '421 4.3.2 closing');

    $answer = $refusal{$event} // "554-5.7.0 never\r\n554 5.7.0 and again";
    my ($code, $text) = $answer =~ /^(\d+) (.*)/;

    $table->cell('S12', $event, where => 'dot', data => \&once,
        $refusal{$event}
            ? (fault => { dot => $answer },
               reply => ($code == 421 ? 451 : $code) . quotemeta(" $text")
                   . '$',
               outcome => $event eq '5xx' ? 'rejected' : 'deferred')
            : (behind($event, $answer), outcome => 'rejected',
               reply => '554 5\.7\.0 and again$'),
        $event eq 'slow' ? %SLOW : ());
}

$table->complete(map { "S$_" } 8 .. 12);

like($t->error_log(), qr/\[warn\] .*outcome=unknown/,
    'DOT S10 the error log tells of it, too');
$t->done();


sub behind {
    my ($event, $answer) = @_;

    my %rule = %{ $BEHIND{$event} };
    $rule{$_} &&= $rule{$_} =~ s/%s/$answer/r for qw(send reply then);

    return fault => { dot => \%rule };
}


# messages of this table that a relay has had to their end

sub dots { return scalar grep { $_->{raw} =~ /^last c/m } $relay->received() }


sub relay_has {
    my ($what) = @_;

    $t->wait_for(sub { ($relay->transcripts())[-1] =~ $what })
        or die "the relay has not seen $what\n";
}


sub descriptors { return scalar(() = glob("/proc/$worker/fd/*")) }


# messages: the reply to the dot, and the seconds that it took


# nothing is said before the dot; and the fault is known before the client
# sends it

sub amid {
    my ($c, $last) = @_;

    my $descriptors = descriptors();

    $c->send_raw("Subject: x\r\n\r\nfirst\r\n");
    $t->wait_for(sub { descriptors() < $descriptors });

    return quiet($c, "$last\r\n.\r\n");
}


sub long {
    my ($c, $last) = @_;

    my $line = 'x' x 998 . "\r\n";

    $c->send_raw($line x (STALL / length($line)));
    return quiet($c, "$last\r\n.\r\n");
}


sub quiet {
    my ($c, $octets) = @_;

    is($c->read_some(0), undef, 'DOT S8 nothing is said before the dot');
    return MailPolicy::DotTable::end_of_data($c, $octets);
}


# all of a message at once, the relay not reading: it is with us, or in the
# sockets, when the relay does what it does

sub stalled {
    my ($c, $last) = @_;

    my $line = 'x' x 998 . "\r\n";
    my $begin = time();

    $c->send_raw($line x (STALL / length($line)) . "$last\r\n.\r\n");
    cmp_ok(time() - $begin, '<', 0.6, 'DOT S9 the dot is out in time');
    return ($c->read_reply(), time() - $begin);
}


# one reply, whatever the relay says

sub once {
    my ($c, $last) = @_;

    my ($reply, $took) = MailPolicy::DotTable::small($c, $last);
    is($c->read_some(0.05), undef, 'DOT S11 S12 one reply');
    return ($reply, $took);
}
