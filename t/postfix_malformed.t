#!/usr/bin/perl

# "protocol policy" and whatever may be sent to it, by several clients at a
# time and beside good ones: each question has its one answer, what is none
# has none, and no worker comes to harm.  What is to be answered, and charged,
# is said by a model.  TEST_REQUESTS is how many questions, or attempts at one,
# there are, TEST_SEED what they follow from.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Errno ();
use IO::Select;
use IO::Socket::INET;
use IO::Socket::UNIX;
use Socket qw(IPPROTO_TCP SOL_SOCKET SO_LINGER TCP_NODELAY);
use Storable qw(store retrieve);
use Test::More;
use Time::HiRes qw(sleep time);

use MailPolicy;
use MailPolicy::Policy;
use MailPolicy::PolicyModel;
use MailPolicy::PolicyNoise;
use MailPolicy::Process qw(fork_server wait_exit);

use constant { CLIENTS => 3, ENOUGH => 5 };

my $REQUESTS = $ENV{TEST_REQUESTS} || 10000;
my $SEED = $ENV{TEST_SEED} || time() % 1000000;
my $MAX = MailPolicy::PolicyModel::MAX;

diag("TEST_SEED=$SEED TEST_REQUESTS=$REQUESTS");
alarm(120 + $REQUESTS / 50);

my $t = MailPolicy->new();
my $redis = $t->run_redis();

$t->conf(<<"EOF");
worker_processes 2;

mail {
    policy_redis  redis://127.0.0.1:%%PORT_redis%% timeout=10s;

    map \$sasl_username \$blocked { ~^no-  \$sasl_username; }

    policy_limit  user  key=\$sasl_username  messages=$MAX  recipients=$MAX;
    policy_limit  none  key=\$blocked  messages=blocked;

    server {
        listen    127.0.0.1:%%PORT_policy%%;
        listen    unix:%%DIR%%/policy.sock;
        protocol  policy;
        timeout   20s;
    }

    server {
        listen    127.0.0.1:%%PORT_short%%;
        listen    unix:%%DIR%%/short.sock;
        protocol  policy;
        timeout   1s;
    }
}
EOF
$t->run_nginx();

my @workers;
$t->wait_for(sub { 2 == (@workers = $t->worker_pids()) });
my $asan = $t->read_file("/proc/$workers[0]/maps") =~ /asan/;


# clients


sub connected {
    my ($port, $unix) = @_;

    my $socket = $unix
        ? IO::Socket::UNIX->new(Peer => $t->dir() . "/$port.sock")
        : IO::Socket::INET->new(PeerAddr => '127.0.0.1',
            PeerPort => $t->port($port));

    die "no connection to $port: $!\n" if !$socket;

    setsockopt($socket, IPPROTO_TCP, TCP_NODELAY, 1) if !$unix;
    $socket->blocking(0);
    return $socket;
}


# Sends pieces while it reads.  At the end of them it shuts down its side, when
# so many octets have come if it waits for them.  Returns all answers.

sub talk {
    my ($socket, $wait, @pieces) = @_;

    my $select = IO::Select->new($socket);
    my $answers = '';
    my $sending = 1;
    my $end = time() + 30;

    while (time() < $end) {

        if ($sending && !@pieces && length($answers) >= $wait) {
            shutdown($socket, 1);
            $sending = 0;
        }

        my ($r, $w) = IO::Select->select($select,
            $sending && @pieces ? $select : undef, undef, 1);

        if ($w && @$w) {
            my $n = syswrite($socket, $pieces[0]);

            if (defined $n) {
                substr($pieces[0], 0, $n, '');
                shift @pieces if $pieces[0] eq '';

            } elsif (!$!{EAGAIN}) {
                @pieces = ();
                $wait = 0;
            }
        }

        if ($r && @$r) {
            my $n = sysread($socket, $answers, 65536, length $answers);

            return $answers if defined $n ? !$n : !$!{EAGAIN};
        }
    }

    return "$answers(no end)";
}


# one that goes away amid it; what it asks costs nothing, as it may be answered

sub leave {
    my ($noise, $socket, $reset) = @_;

    my @questions = map { $noise->good('', protocol_state =>
        $noise->one_of('RCPT', 'CONNECT')) } 0 .. $noise->random(20);

    $questions[-1] = $noise->cut($questions[-1]) if $noise->random(2);
    syswrite($socket, join('', @questions));
    sysread($socket, my $answers, 1 + $noise->random(100))
        if $noise->random(2);
    setsockopt($socket, SOL_SOCKET, SO_LINGER, pack('ii', 1, 0)) if $reset;

    close($socket);
    return scalar @questions;
}


# One of several at a time.  It leaves a file of what it saw.

sub client {
    my ($n) = @_;

    my $noise = MailPolicy::PolicyNoise->new($SEED * CLIENTS + $n, (qw(quick brown jumps))[$n - 1]);
    my $model = MailPolicy::PolicyModel->new();
    my %seen = (asked => 0, bad => 0, wrong => [], answers => 0);

    while ($seen{asked} < $REQUESTS / CLIENTS
        && @{ $seen{wrong} } < ENOUGH)
    {
        my $unix = $noise->random(2);
        my $socket = connected('policy', $unix);

        if (!$noise->random(10)) {
            $seen{asked} += leave($noise, $socket, $noise->random(2));
            next;
        }

        my @pieces = $noise->connection();
        my $octets = join('', @pieces);
        my ($expected, $end) = $model->connection($octets);

        $seen{bad}++ if $end eq 'bad';
        $seen{answers} += () = $expected =~ /\n\n/g;
        $seen{asked} += (() = $expected =~ /\n\n/g) + ($end ne 'idle');

        my $wait = $noise->random(3) ? length($expected) : 0;
        my $got = talk($socket, $wait, @pieces);

        # a TCP socket that is closed before all was read from it takes with it
        # what has not been sent
        $expected = $got if $end eq 'bad' && !$unix
            && substr($expected, 0, length $got) eq $got;

        push @{ $seen{wrong} }, 'answers ' . brief($got) . ' instead of '
            . brief($expected) . ", $end:\n" . printable($octets)
            if $got ne $expected;
    }

    store({ %seen, used => $model->used() }, $t->dir() . "/seen.$n");
}


sub brief {
    return join('', map { $_ eq 'action=DUNNO' ? '+'
        : /^action=DEFER.* "(.).*" exceeded\z/ ? $1 : "($_)" }
        split /\n\n/, $_[0]);
}


sub printable {
    return $_[0] =~ s/[^\n -~]/sprintf('\\x%02x', ord $&)/ger;
}


# the good one: always answered, and at once

sub load {
    my @p = map { MailPolicy::Policy->new($t, $_) } 'policy',
        $t->dir() . '/policy.sock';
    my %seen = (asked => 0, wrong => [], slowest => 0);

    until (-e $t->dir() . '/enough') {
        for my $p (@p) {
            my $before = time();
            my $answer = $p->message()->ask(
                sasl_username => 'load@example.com');
            my $took = time() - $before;

            $seen{asked}++;
            $seen{slowest} = $took if $took > $seen{slowest};
            push @{ $seen{wrong} }, $answer
                if $answer ne 'DUNNO' && @{ $seen{wrong} } < ENOUGH;
        }

        sleep(0.002);
    }

    store(\%seen, $t->dir() . '/seen.load');
}


sub background {
    my ($name, $code) = @_;

    return fork_server($t->dir() . "/$name.log", [], $code);
}


sub seen { return retrieve($t->dir() . "/seen.$_[0]") }


sub resident {
    my $sum = 0;

    for my $pid (@workers) {
        my ($kb) = $t->read_file("/proc/$pid/status") =~ /^RssAnon:\s+(\d+)/m;
        $sum += $kb;
    }

    return $sum;
}


sub descriptors { return join(' ', map { scalar(() = glob("/proc/$_/fd/*")) }
    @workers) }


# each octet: cut there, written in two, and what comes before it alone

sub cuts {
    my $noise = MailPolicy::PolicyNoise->new(1, 'cuts');
    my $length = length($noise->good('cuts@example.com'));
    my ($n, @wrong) = (0);

    for my $cut (0 .. $length - 10) {
        for my $unix (0, 1) {
            my $question = $noise->good('cuts@example.com');
            my $first = substr($question, 0, $cut);
            my $second = substr($question, $cut);

            $n++;
            push @wrong, "$cut, alone"
                if talk(connected('policy', $unix), 0, $first) ne '';

            push @wrong, "$cut, in two"
                if talk(connected('policy', $unix), 0,
                    grep { $_ ne '' } $first, $second)
                ne MailPolicy::PolicyModel::DUNNO;
        }
    }

    MailPolicy::none('cut at each octet', @wrong);
    return $n;
}


sub used {
    my ($key) = @_;

    my @values = map { $redis->cmd('HGET', "mail:used:user:{$key}", $_) // '' }
        qw(messages recipients);

    return join(' ', map { my $sum = 0; $sum += $_ for /:(\d+)/g; $sum }
        @values);
}


# those that take their time

my $asked = cuts();
my $before = descriptors();
my @idle = map { connected('policy', $_ % 2) } 1 .. 10;

# of TCP it would be the kernel that knows when what is not read is too much
my $unread = connected('short', 1);

my @slow = map { { socket => connected('short', $_ % 2), sent => 0 } } 1 .. 4;
my $question = MailPolicy::PolicyNoise->new(1, 's')->good('');

sub slowly {
    for my $slow (@slow) {
        $slow->{sent} += syswrite($slow->{socket},
            substr($question, $slow->{sent}, 1)) // 0
            if $slow->{sent} < length($question) - 1;
    }

    1 while (syswrite($unread, $question x 10) // 0) > 0;
}

my %pid = (load => background('load', \&load));
my $slow_since = time();

for my $n (1 .. CLIENTS) {
    $pid{$n} = background("client$n", sub { client($n) });
}

my $warm;
my %done;

while (keys %done < CLIENTS) {
    sleep(0.05);
    slowly();
    $warm = resident() if !defined $warm && time() - $slow_since > 2;

    for my $n (grep { !$done{$_} } 1 .. CLIENTS) {
        $done{$n} = 1 if waitpid($pid{$n}, 1) == $pid{$n};
    }
}

my $took = time() - $slow_since;
my $grown = resident() - ($warm // resident());

# what the clients saw

my %used = ('cuts@example.com' => [ $asked, $asked ]);
my ($requests, $bad, $answers) = ($asked * 2, 0, $asked);

for my $n (1 .. CLIENTS) {
    my $seen = seen($n);

    $requests += $seen->{asked};
    $bad += $seen->{bad};
    $answers += $seen->{answers};
    MailPolicy::none("client $n: its answers, and no others",
        @{ $seen->{wrong} });

    for my $key (keys %{ $seen->{used} }) {
        $used{$key}[$_] += $seen->{used}{$key}[$_] for 0, 1;
    }
}

cmp_ok($requests, '>=', $REQUESTS, sprintf('%d requests, %d answered, %d '
    . 'refused, in %.1f s', $requests, $answers, $bad, $took));

$t->write_file('enough', '');
wait_exit($pid{load}, 30);
my $load = seen('load');
MailPolicy::none("$load->{asked} good ones beside them", @{ $load->{wrong} });
cmp_ok($load->{slowest}, '<', 10, "the slowest took $load->{slowest} s");
$used{'load@example.com'} = [ $load->{asked}, $load->{asked} ];

# what it cost

# of more messages than are remembered, few that are gone back to are charged
# again, but none too little

my $forgotten = $REQUESTS > 20000 ? $REQUESTS / 5000 : 0;
my @wrong;

for my $key (sort keys %used) {
    my @now = split / /, used($key);

    next if "@now" eq "@{ $used{$key} }";
    push @wrong, "$key: @now, not @{ $used{$key} }"
        if $now[0] < $used{$key}[0] || $now[1] < $used{$key}[1]
        || ($forgotten -= 1 + $now[0] - $used{$key}[0]) < 0;
}

MailPolicy::none(keys(%used) . ' counters are what was answered', @wrong);
is(scalar(grep { /^mail:used:/ } $redis->keys('mail:used:*')),
    scalar(grep { $_->[0] || $_->[1] } values %used), 'and there are no others');

# those that took their time

is(join(' ', map { syswrite($_, $question); talk($_, 14) } @idle),
    join(' ', (MailPolicy::PolicyModel::DUNNO) x @idle),
    'who was idle all the time is answered');
is(join('', map { talk($_->{socket}, 0) } @slow), '',
    'who was slow is not');
ok($t->wait_for(sub { !defined syswrite($unread, 'x') && !$!{EAGAIN} }),
    'who does not read is closed');

# the workers

is(join(' ', sort $t->worker_pids()), join(' ', sort @workers),
    'the same workers');

my $log = $t->error_log();
unlike($log, qr/exited on signal|exited with code|\[(?:alert|emerg|crit)\]/,
    'nothing is wrong');
is(scalar(() = $log =~ /\[error\] .*policy client sent a request with/g), $bad,
    'each refusal was logged, once');

close($_) for @idle, $unread, map { $_->{socket} } @slow;
ok($t->wait_for(sub { descriptors() eq $before }), 'no descriptor is left')
    or diag("$before, then " . descriptors());

SKIP: {
    skip('AddressSanitizer', 1) if $asan;
    cmp_ok($grown, '<', 4096, 'nor memory, in KB');
}

$t->done();
