#!/usr/bin/perl

# The table of the final dot, stages S13 and S14: the client is lost before
# its dot, or the worker is killed, whatever the relay does meanwhile and
# however far it all has come.  A relay never has a dot, nor RSET or QUIT in a
# message, which the client did not send.  What a lost client was charged is
# given back; what a killed worker has charged stands until the window lets
# it go.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use IO::Socket::INET;
use Test::More;
use Time::HiRes qw(sleep);

use MailPolicy;
use MailPolicy::DotTable;

my $t = MailPolicy->new();
my $table = MailPolicy::DotTable->new($t, [ 'nobody', 'nobody' ]);
my $relay = $table->relay();

my $MAIL = 'MAIL FROM:<' . MailPolicy::DotTable::SENDER . '>';
my $TO = 'RCPT TO:<a@example.net>';
my %ENDS = (FIN => 'close', RST => 'reset');

# the relay, while the client is amid its message

my %BODY = (
    '4xx'         => { action => '452 4.3.1 full' },
    '5xx'         => { action => '554 5.6.0 spam' },
    '421'         => { action => '421 4.3.2 closing' },
    'garbage'     => { action => 'garbage' },
    'silence'     => { action => 'hang' },
    'FIN'         => { action => 'close' },
    'RST'         => { action => 'rst' },
    'slow'        => { delay => 0.3 },
    'early reply' => { action => '250 2.0.0 Ok: queued as EARLY' },
);

# How far it has come: [ relay's rule, commands before, what waits for the
# relay, what is charged then ].  S1 is a relay that does not answer the SYN.

my @BEFORE_DOT = ($MAIL, $TO, 'DATA');
my %STAGE = (
    S1  => [ undef, [], $MAIL, 1, 1 ],
    S2  => [ greeting => [], $MAIL, 1, 1 ],
    S3  => [ ehlo => [], $MAIL, 1, 1 ],
    S4  => [ xclient => [], $MAIL, 1, 1 ],
    S5  => [ mail => [], $MAIL, 1, 1 ],
    S6  => [ rcpt => [ $MAIL ], $TO, 1, 1 ],
    S7  => [ data => [ $MAIL, $TO ], 'DATA', 1, 1 ],
    S8  => [ body => \@BEFORE_DOT, "Subject: x\r\n\r\nlast", 1, 1 ],
);
my @STAGES = sort keys %STAGE;

my @queue = (IO::Socket::INET->new(LocalAddr => '127.0.0.1', Listen => 1,
    LocalPort => $t->port('nobody'), ReuseAddr => 1));
push @queue, map { IO::Socket::INET->new(PeerAddr => '127.0.0.1',
    PeerPort => $t->port('nobody'), Blocking => 0) } 1 .. 4;

# S13, by what the relay does

for my $event (MailPolicy::DotTable::EVENTS) {
    for my $end (sort keys %ENDS) {
        my $name = "DOT S13 $event, client's $end";
        my ($c, $helo) = amid($event);
        my $method = $ENDS{$end};

        $table->charged("$name, before", 1, 1);
        my $asked = $table->asked();
        $c->$method();

        $table->logged($name, $helo, 'aborted');
        $table->charged($name, -1, -1);
        is($table->asked(), $asked, "$name: no other relay is told MAIL");
        never_ended($name);
    }

    $table->{cells}{"S13 $event"}++;
}

# S13, by how far it has come

for my $stage (@STAGES) {
    for my $end (sort keys %ENDS) {
        my $name = "DOT S13 at $stage, client's $end";
        # who has said DATA is not read from before the relay has answered
        my ($c, $helo) = waiting($stage, $stage eq 'S7'
            ? { delay => 0.5, then => 'ok' } : 'hang');
        my $method = $ENDS{$end};
        my @charged = @{ $STAGE{$stage} }[3, 4];

        $table->charged("$name, before", @charged);
        $c->$method();

        $table->logged($name, $helo, 'aborted');
        $table->charged($name, map { -$_ } @charged);
        never_ended($name) if $stage =~ /S[78]/;
    }
}

# behind its dot the relay's reply is waited for all the same

for my $case ([ S11 => 'ok', qr/^(?:accepted|delivered_unacked)$/, 1 ],
    [ S12 => '450 4.2.0 not now', qr/^deferred$/, 0 ],
    [ S12 => '554 5.7.0 never', qr/^rejected$/, 0 ],
    [ S10 => 'close', qr/^unknown$/, 1 ])
{
    my ($stage, $action, $outcome, $charge) = @$case;

    for my $end (sort keys %ENDS) {
        my $name = "DOT $stage " . substr($action, 0, 3) . ", client's $end";
        my $helo = $table->new_helo();
        my $c = $table->session('relay_slow', $helo);
        my $method = $ENDS{$end};

        $relay->set(dot => { delay => 0.2, then => $action });
        $c->cmd($_) for @BEFORE_DOT;
        $c->send_raw("last $helo\r\n.\r\n");
        relay_has(qr/^-- body of/m);
        $c->$method();

        my ($line, $logged);
        $t->wait_for(sub {
            ($line) = grep { ($_->{helo} // '') eq $helo } $t->access_log();
        });
        $logged = $line->{outcome} // 'none';
        like($logged, $outcome, "$name: outcome");
        is($logged, 'delivered_unacked', "$name: nobody took the 250")
            if $stage eq 'S11' && $end eq 'RST';
        $table->charged($name, $charge, $charge);
    }
}

$relay->set(dot => undef);

# S14, by what the relay does: one worker has all these sessions

my %killed;
my $first = 1 + transcripts();

for my $event (MailPolicy::DotTable::EVENTS) {
    ($killed{$event}) = amid($event);
    $table->charged("DOT S14 $event, before", 1, 1);
}

kill_worker();

for my $event (MailPolicy::DotTable::EVENTS) {
    ok($killed{$event}->wait_close(), "DOT S14 $event: the client sees it");
    $table->{cells}{"S14 $event"}++;
}

$table->charged('DOT S14 what was charged stands', 0, 0);
ok($t->wait_for(sub {
    !grep { !/^-- (?:\w+ by|hangs)/m } $relay->transcripts()
}), 'DOT S14 the relay has seen it');
never_ended('DOT S14', $first);
serves('DOT S14');

# S14, by how far it has come; at S9 and S10 it is the client that has ended
# the message

my @clients;
my @sum = (0, 0);

for my $stage (@STAGES) {
    push @clients, (waiting($stage))[0];
    $sum[$_] += $STAGE{$stage}[3 + $_] for 0, 1;
}

my $messages = $relay->received();
push @clients, behind_dot('S9', body => { after => 1, delay => 1.5 });
push @clients, behind_dot('S10', dot => 'hang');
$table->charged('DOT S14 at each stage, before', $sum[0] + 2, $sum[1] + 2);
$t->wait_for(sub { $relay->received() > $messages });
kill_worker();

is(scalar(grep { !$_->wait_close() } @clients), 0,
    'DOT S14 at each stage: the clients see it');
$table->charged('DOT S14 at each stage: what was charged stands', 0, 0);
cmp_ok($table->{redis}->cmd('PTTL', 'mail:used:s:{'
    . MailPolicy::DotTable::SENDER . '}'), '>', 0,
    'DOT S14 until the window lets it go');
sleep(1.5);
is($relay->received() - $messages, 1,
    'DOT S14 at S9: the dot did not get there; at S10 it had');
serves('DOT S14 at each stage');

$table->complete(qw(S13 S14));
close($_) for @queue;
$t->done();


# a client amid its message, when the relay has done what it does

sub amid {
    my ($event) = @_;

    my $helo = $table->new_helo();

    $relay->set(body => { after => 1, %{ $BODY{$event} } });
    my $c = $table->session('relay_slow', $helo);
    $c->cmd($_) for @BEFORE_DOT;
    $c->send_raw("Subject: x\r\n\r\nlast");
    relay_has(qr/^-- body rule/m);
    $relay->set(body => undef);
    return ($c, $helo);
}


# one that waits for a relay which has come to that stage

sub waiting {
    my ($stage, $action) = @_;

    my ($rule, $before, $command) = @{ $STAGE{$stage} };
    my $helo = $table->new_helo();
    my $total = $relay->stats()->{total};

    $action //= 'hang';
    $relay->set($rule => $rule eq 'body' ? { after => 1, action => $action }
        : $action, extensions => [ 'PIPELINING',
            $rule eq 'xclient' ? 'XCLIENT ADDR' : () ]) if $rule;

    my $c = $table->session($rule ? 'relay_slow' : 'nobody_slow', $helo);
    $c->cmd($_) for @$before;
    $c->send_raw($command . ($stage eq 'S8' ? '' : "\r\n"));

    if ($rule) {
        $t->wait_for(sub { $relay->stats()->{total} > $total });
        relay_has(ref $action ? qr/^C: DATA/m : qr/^-- (?:hangs|body rule)/m);
        $relay->set($rule => undef, extensions => [ 'PIPELINING' ]);
    }

    return ($c, $helo);
}


# one that has sent all of its message: as much as no socket holds for S9

sub behind_dot {
    my ($stage, $rule, $action) = @_;

    my $helo = $table->new_helo();
    my $line = 'x' x 998 . "\r\n";

    $relay->set($rule => $action);
    my $c = $table->session('relay_slow', $helo);
    $c->cmd($_) for @BEFORE_DOT;
    $c->send_raw($line x ($stage eq 'S9' ? 5_000 : 1) . "last $helo\r\n.\r\n");
    relay_has($stage eq 'S9' ? qr/^-- body rule/m : qr/^-- hangs/m);
    $relay->set($rule => undef);
    return $c;
}


sub relay_has {
    my ($what) = @_;

    $t->wait_for(sub { ($relay->transcripts())[-1] =~ $what })
        or die "the relay has not seen $what\n";
}


sub transcripts { return scalar(() = $relay->transcripts()) }


# The connections from that one on, or the last one: cut off in the message,
# with no octet that the client did not send.

sub never_ended {
    my ($name, $from) = @_;

    my @streams = $relay->streams();
    my @said = grep { /^DATA\r\n/m }
        @streams[ ($from // scalar @streams) - 1 .. $#streams ];
    my $end = qr/^DATA\r\n(?:Subject: x\r\n\r\nlast)?\z/m;

    ok(@said && !(grep { $_ !~ $end } @said),
        "$name: the relay has no dot, RSET or QUIT");
    is(scalar @said, $#streams - $from + 2, "$name: of all connections")
        if $from;
}


sub kill_worker {
    my ($worker) = $t->worker_pids();

    $t->allow(qr/worker process $worker exited on signal 9/);
    kill('KILL', $worker);
    ok($t->wait_for(sub { grep { $_ != $worker } $t->worker_pids() }),
        'DOT S14 another worker is there');
}


sub serves {
    my ($name) = @_;

    my $helo = $table->new_helo();
    my $c = $table->session('relay_pair', $helo);

    like(($c->send_mail(MailPolicy::DotTable::SENDER, [ 'a@example.net' ],
        "good $helo\n"))[-1], qr/^250 /, "$name: others are served");
    $c->quit();
    $table->charged("$name: others", 1, 1);
}
