#!/usr/bin/perl

# Hundreds of clients that send an octet a second, at any point of a session,
# or send as much as they can and read no replies: each of them is cut off when
# its time is over, costs little memory, and honest ones notice nothing.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use IO::Poll qw(POLLERR POLLHUP POLLIN POLLOUT);
use Test::More;
use Time::HiRes qw(sleep time);

use MailPolicy;
use MailPolicy::Process qw(fork_server wait_exit);

my $TIMEOUT = 2;
my $MARGIN = 2;

my $t = MailPolicy->new();
my $relay = $t->run_relay(name => 'relay');
my $attacked = $t->run_relay(name => 'attacked', store => 0);

$t->write_file('users', 'alice@example.com:'
    . $t->crypt('secret', '$5$rounds=1000$slow$') . "\n");
$t->certificate('edge');

$t->conf(<<'EOF' . servers('', '2s') . servers('patient_', '60s') . "}\n");
error_log  %%DIR%%/error.log info;
events     { worker_connections 4096; }

mail {
    server_name            edge.example.com;
    access_log             %%DIR%%/access.log;
    ssl_certificate        %%DIR%%/edge.crt;
    ssl_certificate_key    %%DIR%%/edge.key;
    policy                 on;
    policy_auth            off;
    policy_auth_plaintext  on;
    proxy_timeout          20s;
    proxy_pass             127.0.0.1:%%PORT_attacked%%;

    server {
        listen       127.0.0.1:%%PORT_honest%%;
        protocol     smtp;
        timeout      2s;
        policy_auth  file:%%DIR%%/users;
        proxy_pass   127.0.0.1:%%PORT_relay%%;
    }
EOF
$t->run_nginx();

my ($worker) = $t->worker_pids();


# a small sndbuf: what is not read is soon in the worker, not in the kernel

sub servers {
    my ($prefix, $timeout) = @_;

    return <<"EOF";

    server {
        listen    127.0.0.1:%%PORT_${prefix}smtp%% sndbuf=16k;
        protocol  smtp;
        starttls  on;
        timeout   $timeout;
    }

    server {
        listen       127.0.0.1:%%PORT_${prefix}auth%%;
        protocol     smtp;
        policy_auth  file:%%DIR%%/users;
        timeout      $timeout;
    }

    server {
        listen    127.0.0.1:%%PORT_${prefix}tls%% ssl;
        protocol  smtp;
        timeout   $timeout;
    }
EOF
}


# What they do: how they come there; then what they send, octet by octet and
# again and again, or (flood) as fast as they can.  An answer: what they are
# told in the end.  24 KiB are what one may cost, but for OpenSSL's share, and
# for those who name as many recipients as they may.

my $HELLO = "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" . 'x' x 512;
my @MAIL = ('EHLO client.example', 'MAIL FROM:<a@example.com>');
my @DATA = (@MAIL, 'RCPT TO:<b@example.net>', 'DATA');
my $SAID = qr/^421 4\.4\.2 /m;

my @PHASE = (
    { name => 'silent', drip => '', answer => $SAID },
    { name => 'first command', drip => 'EHLO ' . 'x' x 200, answer => $SAID },
    { name => 'command', after => [ $MAIL[0] ], answer => $SAID,
      drip => 'MAIL FROM:<' . 'a' x 200 },
    { name => 'no command at all', after => [ $MAIL[0] ], answer => $SAID,
      drip => 'x' },
    { name => 'AUTH', port => 'auth', after => [ $MAIL[0], 'AUTH LOGIN' ],
      drip => 'YWxp', answer => $SAID },
    { name => 'AUTH, initial response', port => 'auth', answer => $SAID,
      after => [ $MAIL[0] ], drip => 'AUTH PLAIN ' . 'YWxp' x 100 },
    { name => 'RCPT', after => \@MAIL, drip => 'RCPT TO:<' . 'b' x 200,
      answer => $SAID },
    { name => 'before DATA', after => [ @DATA[0 .. 2] ], drip => '',
      answer => $SAID },
    { name => 'TLS', port => 'tls', drip => $HELLO, memory => 64 },
    { name => 'STARTTLS', after => [ $MAIL[0], 'STARTTLS' ], drip => $HELLO,
      memory => 64 },
    { name => 'replies not read', after => [ $MAIL[0] ], early => 1,
      flood => "NOOP\r\n" x 100_000 },
    { name => 'replies to RCPT not read', after => \@MAIL, early => 1,
      memory => 560, flood => join('', map { "RCPT TO:<r$_\@example.net>\r\n" }
          1 .. 100_000) },
    { name => 'body', after => \@DATA, drip => "x" },
    { name => 'body, lines', after => \@DATA, drip => "\r\n" },
    { name => 'body, never begun', after => \@DATA, drip => '' },
);

# these cost memory, and have the right to their time
my @PATIENT = (
    { name => 'body, after 100 kB of it', after => \@DATA, drip => 'x',
      burst => join('', map { 'x' x 98 . "\r\n" } 1 .. 1000) },
    { name => 'command, after a long one', drip => 'x',
      after => [ 'NOOP ' . 'x' x 2000 ] },
);

my $COUNT = 300 / @PHASE;


# One that has come so far, and is asked for no more than it says

sub attacker {
    my ($prefix, $phase, $delay) = @_;

    my $port = $prefix . ($phase->{port} // 'smtp');

    # nothing that is asked of it begins before this
    my $before = time();
    my $c = MailPolicy::Client->new(port => $t->port($port));

    die "no connection for $phase->{name}\n" unless $c->connected();
    $c->greeting() unless $phase->{name} eq 'TLS';

    for my $command (@{ $phase->{after} // [] }) {
        $before = time();
        my $reply = $c->cmd($command);
        die "$phase->{name}: $command: $reply\n" unless $reply =~ /^[23]/;
    }

    $c->send_raw($phase->{burst}) if $phase->{burst};

    my $now = time();

    return { phase => $phase, c => $c, said => '', sent => 0,
        before => $before, start => $now, next => $now + $delay };
}


# plays all of them until they are cut off, or it takes too long

sub play {
    my ($seconds, @attackers) = @_;

    my $poll = IO::Poll->new();
    my $end = time() + $seconds;
    my %open = map { fileno($_->{c}->socket()) => $_ } @attackers;

    $poll->mask($_->{c}->socket(), wanted($_)) for @attackers;

    while (%open && time() < $end) {
        drip($_) for values %open;
        $poll->poll(0.05);

        for my $attacker (values %open) {
            my $socket = $attacker->{c}->socket();
            my $events = $poll->events($socket) or next;

            send_on($attacker) if $events & POLLOUT;
            next unless $events & (POLLERR | POLLHUP) || $events & POLLIN
                && gone($attacker);

            $attacker->{closed} = time();
            $poll->remove($socket);
            delete $open{ fileno($socket) };
            $attacker->{c}->close();
        }

        $poll->mask($_->{c}->socket(), wanted($_)) for values %open;
    }
}


sub wanted {
    my ($attacker) = @_;

    my $flood = $attacker->{phase}{flood} // return POLLIN;

    # POLLERR, and a hang-up, come in any case
    return $attacker->{sent} < length($flood) ? POLLOUT : POLLERR;
}


sub drip {
    my ($attacker) = @_;

    my $octets = $attacker->{phase}{drip} // '';
    return if $octets eq '' || $attacker->{next} > time();

    my $at = $attacker->{sent}++ % length($octets);
    syswrite($attacker->{c}->socket(), substr($octets, $at, 1));
    $attacker->{next} += 1;
}


sub send_on {
    my ($attacker) = @_;

    my $n = syswrite($attacker->{c}->socket(), $attacker->{phase}{flood},
        65536, $attacker->{sent});
    $attacker->{sent} += $n // 0;
}


sub gone {
    my ($attacker) = @_;

    my $n = sysread($attacker->{c}->socket(), $attacker->{said}, 4096,
        length($attacker->{said}));
    return defined $n ? $n == 0 : !$!{EAGAIN};
}


# honest ones, each a process: one mail after the other, until the file "stop"
# is there; a line for each, with the seconds that it took

sub honest {
    my ($number) = @_;

    my $dir = $t->dir();

    return fork_server("$dir/honest$number", [], sub {
        STDOUT->autoflush(1);
        my $c = MailPolicy::Client->new(port => $t->port('honest'));
        my $start = time();

        $c->greeting();
        $c->ehlo();
        my $reply = $c->auth_plain('alice@example.com', 'secret');

        for (my $n = 0; $n < 10 || !-e "$dir/stop"; $n++) {
            ($reply) = reverse $c->send_mail("h$number\@example.com",
                [ 'b@example.net' ], "Subject: x\n\n" . "x\n" x 100);
            printf("%.3f %s\n", time() - $start, $reply);
            last if $reply !~ /^250 /;
            sleep(0.1);
            $start = time();
        }

        print $c->quit() =~ /^221 / ? "done\n" : "not done\n";
    });
}


# one that is slow, and within what it may: a command a second, then a body of
# 2 kB a second, each for longer than the timeout

sub slow_and_honest {
    return fork_server($t->dir() . '/slow', [], sub {
        my $c = MailPolicy::Client->new(port => $t->port('honest'));

        $c->greeting();
        $c->ehlo();
        $c->auth_plain('alice@example.com', 'secret');

        for my $command (@DATA[1 .. 3]) {
            sleep(1);
            $c->cmd($command);
        }

        for (1 .. 20) {
            $c->send_raw(('x' x 510 . "\r\n"));
            sleep(0.25);
        }

        print $c->cmd('.'), "\n";
    });
}


# attacked, and others

my $descriptors = () = glob("/proc/$worker/fd/*");

my @honest = map { honest($_) } 1 .. 20;
my $slow = slow_and_honest();

my @attackers = map { my $phase = $_; map { attacker('', $phase, 0.5) }
    1 .. $COUNT } @PHASE;
play($TIMEOUT + $MARGIN + 3, @attackers);

$t->write_file('stop', '');
wait_exit($_, 20) // kill('KILL', $_) for @honest, $slow;

for my $phase (@PHASE) {
    my @ours = grep { $_->{phase} == $phase } @attackers;
    my @gone = grep { $_->{closed} } @ours;
    my @closed = sort { $a <=> $b } map { $_->{closed} - $_->{start} } @gone;
    my @early = grep { $_->{closed} - $_->{before} < $TIMEOUT - 0.1 } @gone;
    my $name = 'RES-' . (exists $phase->{flood} ? 6 : 5) . " $phase->{name}";

    is(scalar @closed, scalar @ours, "$name: all are cut off");
    cmp_ok($closed[-1] // 99, '<=', $TIMEOUT + $MARGIN, "$name: in time");
    is(scalar @early, 0, "$name: not before that") unless $phase->{early};

    is(scalar(grep { $_->{said} !~ $phase->{answer} } @ours), 0,
        "$name: and told") if $phase->{answer};
    note(sprintf('%s: after %.2f to %.2f s', $name, @closed[0, -1])) if @closed;
}

my @lines = map { split /\n/, $t->read_file("honest$_") } 1 .. 20;
my @took = sort { $a <=> $b } map { /^(\S+) 250 / ? $1 : () } @lines;
my $p99 = $took[ int(0.99 * $#took) ] // 99;

is(scalar(grep { $_ eq 'done' } @lines), 20, 'RES-5 honest ones: all succeed');
is(scalar(grep { !/^\S+ 250 |^done$/ } @lines), 0,
    'RES-5 honest ones: each mail') or diag(join("\n", @lines));
cmp_ok(scalar @took, '>=', 200, 'RES-5 honest ones: mails');
cmp_ok($p99, '<=', 1, 'RES-5 honest ones: 99 % within a second');
note(scalar(@took) . " mails, 99 % within $p99 s");
is(scalar $relay->messages(), @took + 1, 'RES-5 honest ones: at the relay');
like($t->read_file('slow'), qr/^250 /, 'RES-5 slow, and fast enough: accepted');

ok($t->wait_for(sub { !$attacked->stats()->{open} && !$relay->stats()->{open} }),
    'RES-5 no connection to a relay is left');
ok($t->wait_for(sub { $descriptors >= (() = glob("/proc/$worker/fd/*")) }),
    'RES-5 nothing is left open');
is(join(' ', $t->worker_pids()), $worker, 'RES-5 the worker is the same');

# what they cost, one kind after the other, at a server that waits for them;
# a new worker for each, as memory that was used is not given back

my $ATTACKERS = 100;

sub memory {
    my ($pid) = @_;

    my ($kb) = $t->read_file("/proc/$pid/status") =~ /^RssAnon:\s+(\d+)/m;
    return $kb;
}


sub costs {
    my ($phase) = @_;

    $t->reload() or die "no new worker\n";
    my ($pid) = $t->worker_pids();

    # what is paged in once
    my @first = map { attacker('patient_', $phase, 0) } 1 .. 3;
    play(0.2, @first);

    my $before = memory($pid);
    my @clients = map { attacker('patient_', $phase, 0) } 1 .. $ATTACKERS;
    play(exists $phase->{flood} ? 1.5 : 0.3, @clients);
    my $after = memory($pid);

    $_->{c}->close() for grep { !$_->{closed} } @first, @clients;
    return ($after - $before) / $ATTACKERS;
}


my $asan = $t->read_file("/proc/$worker/maps") =~ /asan/;

SKIP: {
    skip('AddressSanitizer', @PHASE + @PATIENT) if $asan;

    for my $phase (@PHASE, @PATIENT) {
        my $kb = costs($phase);
        my $name = "RES-5 $phase->{name}";

        note("$name: $kb KiB each");
        cmp_ok($kb, '<=', $phase->{memory} // 24, "$name: what it costs");
    }
}

$t->done();
