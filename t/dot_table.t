#!/usr/bin/perl

# The table of the final dot, stages S1 to S7: from the connection to a relay
# to its 354.  Up to MAIL a relay that is away or refuses us gives way to
# another one; what it says of the message is the client's to hear; and
# nothing is charged.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use IO::Socket::INET;
use Socket qw(AF_UNIX PF_UNSPEC SOCK_STREAM);
use Test::More;
use Time::HiRes qw(sleep);

use MailPolicy;
use MailPolicy::DotTable;
use MailPolicy::Process qw(fork_server stop_process);

my $t = MailPolicy->new();
my $table = MailPolicy::DotTable->new($t, map { [ $_, $_ ] }
    qw(nobody late));

my $AWAY = '451 4\.4\.1 ';
my $LOST = '451 4\.4\.2 ';
my $SETUP = '451 4\.3\.5 ';

# cells that cannot be

my %NOT = (map { ("S1 $_" => 'there is no reply before a connection') }
    '4xx', '5xx', '421', 'garbage', 'early reply');

my %FAULT = (
    '4xx'     => '450 4.2.0 not now',
    '5xx'     => '554 5.7.0 never',
    '421'     => '421 4.3.2 closing',
    'garbage' => 'garbage',
    'silence' => 'hang',
    'FIN'     => 'close',
    'RST'     => 'rst',
    'slow'    => { trickle => 0.01, then => 'ok' },
);

# a reply, and one to a command that was not sent yet

my %EARLY = (
    greeting => "220 a\r\n250 b\r\n",
    ehlo     => "250-a\r\n250 PIPELINING\r\n250 b\r\n",
    xclient  => "220 a\r\n220 b\r\n",
    mail     => "250 a\r\n250 b\r\n",
    rcpt     => "250 a\r\n354 b\r\n",
    data     => "354 a\r\n250 b\r\n",
);

my %SLOW = (slow => 1);

# S1: "nobody" does not answer the SYN, as the queue of its listener is full;
# nor does "late", but the SYN's repetition

my (@late, $late_pid);
my @queues = map { full_queue($_) } qw(nobody late);

my %S1 = (
    silence => { server => 'nobody', dead => 1 },
    FIN     => { fault => { connect => 'close' } },
    RST     => { fault => { connect => 'refuse' } },
    slow    => { server => 'late' },
);

for my $event (MailPolicy::DotTable::EVENTS) {
    relay_behind(@{ $queues[1] }) if $event eq 'slow';
    cell('S1', $event, %{ $S1{$event} // {} },
        $event eq 'slow' ? %SLOW
            : (next => 1, where => 'mail', reply => $AWAY));
}

# S2 to S4: the relay does not want us, which is no concern of the client's

my %XCLIENT = (extensions => [ 'PIPELINING', 'XCLIENT NAME ADDR HELO LOGIN' ]);

for my $stage ([ 'S2', 'greeting', $AWAY ], [ 'S3', 'ehlo', $AWAY ],
    [ 'S4', 'xclient', $SETUP, %XCLIENT ])
{
    my ($id, $rule, $reply, @more) = @$stage;

    for my $event (MailPolicy::DotTable::EVENTS) {
        cell($id, $event, fault => { @more, $rule => fault($rule, $event) },
            $event eq 'slow' ? %SLOW
                : (next => 1, where => 'mail', reply => $reply));
    }
}

# S5 to S7: what the relay says of the message; who is lost after it has said
# something is not replaced.  S6 is the second recipient of two.

my %LAST = (S5 => 'mail', S6 => 'rcpt', S7 => 'data');
my %NEXT = (mail => 'rcpt', rcpt => 'data', data => 'dot');

for my $id (sort keys %LAST) {
    my $rule = $LAST{$id};
    my @rcpts = $rule eq 'rcpt' ? ('a@example.net', 'b@example.net')
                                : ('a@example.net');

    for my $event (MailPolicy::DotTable::EVENTS) {
        my $fault = fault($rule, $event);

        # behind what the limits say to MAIL; before it: see below
        $fault = { delay => 0.4, then => $fault }
            if "$id $event" eq 'S5 early reply';

        $fault = { match => qr/<b@/, action => $fault } if @rcpts > 1;

        my %cell = (fault => { $rule => $fault }, rcpts => \@rcpts,
            where => $rule);

        if ($event eq 'slow') {
            %cell = (%cell, %SLOW, where => undef);

        } elsif ($event =~ /^([45])xx/) {
            $cell{outcome} = $1 == 5 ? 'rejected' : 'deferred';
            $cell{reply} = quotemeta($FAULT{$event}) . '$';

            # the first one is not refused, and has the message
            %cell = (%cell, passed => 'mail data dot', outcome => 'accepted',
                charge => [ 1, 1 ]) if $rule eq 'rcpt';

        } else {
            $cell{reply} = $LOST;
            $cell{where} = $NEXT{$rule} if $event eq 'early reply';
            $cell{next} = $rule eq 'mail' && $event ne 'early reply';
        }

        cell($id, $event, %cell);
    }
}

# S5 to S7 with "proxy_next_upstream 4xx": MAIL, and a recipient that is
# alone, may go elsewhere; one behind another, and DATA, may not.

for my $case ([ 'S5 4xx', mail => 1 ], [ 'S6 4xx', rcpt => 1 ],
    [ 'S5 5xx', mail => 0 ], [ 'S6 5xx', rcpt => 0 ], [ 'S6 FIN', rcpt => 0 ],
    [ 'S6 421', rcpt => 0 ], [ 'S7 4xx', data => 0 ])
{
    my ($name, $rule, $next) = @$case;
    my ($event) = $name =~ /(\S+)$/;

    $table->play("DOT $name, passed on: $next", 'relay_more',
        fault => { $rule => $FAULT{$event} }, asked => $next,
        where => $next ? undef : $rule,
        reply => $event =~ /xx/ ? quotemeta $FAULT{$event} : $LOST,
        outcome => $event eq '5xx' ? 'rejected' : $next ? 'accepted'
                                                        : 'deferred');
}

$table->play('DOT S6 4xx, the second recipient', 'relay_more',
    fault => { rcpt => { match => qr/<b@/, action => $FAULT{'4xx'} } },
    rcpts => [ 'a@example.net', 'b@example.net' ], where => 'rcpt',
    reply => quotemeta $FAULT{'4xx'}, passed => 'mail data dot',
    outcome => 'accepted', charge => [ 1, 1 ]);

# Where the relay has failed before the limits have answered MAIL, the client
# knows nothing of it yet.

$table->{redis}->cmd('CLIENT', 'PAUSE', 800);
$table->play('DOT S5 early reply, before the limits', 'relay_pair',
    fault => { mail => fault('mail', 'early reply') }, asked => 1);

stop_process($late_pid, 'TERM', 5);
$table->complete(map { "S$_" } 1 .. 7);
$t->done();


sub cell {
    my ($stage, $event, %cell) = @_;

    my $why = $NOT{"$stage $event"};
    return $table->no_cell($stage, $event, $why) if $why;

    $table->cell($stage, $event, %cell);
}


sub fault {
    my ($rule, $event) = @_;

    return $event eq 'early reply' ? { send => $EARLY{$rule} }
                                   : $FAULT{$event};
}


# a listener that takes no more connections: [ it, those that it has ]

sub full_queue {
    my ($name) = @_;

    my $listener = IO::Socket::INET->new(LocalAddr => '127.0.0.1',
        LocalPort => $t->port($name), Listen => 1, ReuseAddr => 1)
        or die "port of $name: $!\n";

    return [ $listener, map { IO::Socket::INET->new(Blocking => 0,
        PeerAddr => '127.0.0.1', PeerPort => $t->port($name)) } 1 .. 4 ];
}


# accepts them after a while, when nginx has tried in vain

sub relay_behind {
    my ($listener, @clients) = @_;

    # whose SYNs would be repeated together with nginx's, and fill it again

    $_->close() for grep { !defined $_->peerport() } @clients;

    socketpair(my $ours, my $theirs, AF_UNIX, SOCK_STREAM, PF_UNSPEC)
        or die "socketpair: $!\n";
    mkdir($t->dir() . '/late');

    my $server = MailPolicy::Relay::Server->new(name => 'late',
        store => $t->dir() . '/late', control => $theirs,
        listener => $listener);

    $late_pid = fork_server($t->dir() . '/late.log', [ $theirs, $listener ],
        sub { sleep(0.5); $server->run() });
    push @late, $ours;
}
