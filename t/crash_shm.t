#!/usr/bin/perl

# Workers are killed while they hold the lock of policy_zone: nginx unlocks it
# for them, and what they left there half done must neither hang nor kill the
# others, nor keep them from counting.
#
# A worker is stopped until it happens to have the lock, which is the first
# word of the zone, and then killed.  TEST_CRASHES: how often.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Test::More;
use Time::HiRes qw(sleep time);

use MailPolicy;
use MailPolicy::Limits qw(send_one);
use MailPolicy::Process qw(fork_server wait_exit);

use constant {
    CLIENTS => 6,
    LEAST   => 40,      # kills
    SECONDS => 8,       # for them, if they are not counted
    ZONE    => 256 * 1024,
};

my $CRASHES = $ENV{TEST_CRASHES};

my $t = MailPolicy->new();
my $relay = $t->run_relay(name => 'relay', store => 0);

# each login is a new key to each of these, so that the zone is always full
my $limits = join('', map { "        policy_limit  f$_  key=\$sasl_username"
    . " auth_failures=9/1h;\n" } 1 .. 6);

$t->write_file('users', "u\@example.com:{PLAIN}secret\n");

$t->conf(<<"EOC");
error_log         %%DIR%%/error.log warn;
worker_processes  2;

mail {
    policy_zone            256k;
    policy                 on;
    policy_auth_plaintext  on;
    max_errors             1000000;
    timeout                20s;
    proxy_pass             127.0.0.1:%%PORT_relay%%;

    server {
        listen        127.0.0.1:%%PORT_flood%%;
        protocol      smtp;
        policy_auth   file:%%DIR%%/users;
$limits
    }

    server {
        listen        127.0.0.1:%%PORT_smtp%%;
        protocol      smtp;
        policy_auth   off;
        policy_limit  one   key=\$sender      messages=3/1h;
        policy_limit  open  key=\$client_net  sessions=500;
    }
}
EOC
$t->run_nginx();
$t->allow(qr/exited on signal 9|shared memory zone .* was locked by/);

my ($first) = $t->worker_pids();
my $zone = zone_of($first);
my $probe = defined $zone && holder($first);

plan(skip_all => 'the memory of workers cannot be read')
    unless defined $probe;

my @pids = map { start_client($_) } 1 .. CLIENTS;
my ($kills, $served, $longest, $number) = (0, 0, 0, 0);
my $end = time() + SECONDS;

sleep(0.2);

while ($CRASHES ? $kills < $CRASHES : $kills < LEAST || time() < $end) {
    kill_one() or last;
    $kills++;
    serves() or last;
    $served++;
}

$t->write_file('stop', '');
is(scalar(grep { !defined wait_exit($_, 20) } @pids), 0,
    'all clients came to their end');

my $unlocked = () = $t->error_log() =~ /was locked by/g;

cmp_ok($kills, '>=', $CRASHES // LEAST, 'enough kills');
is($served, $kills, 'after each of them mail is sent');
cmp_ok($unlocked, '>=', $kills * 0.9, 'the lock was held at the time');
is(join(' ', $t->error_log() =~ /exited on signal (?!9\b)(\d+)/g), '',
    'none died of anything else');
note("$kills kills, $unlocked with the lock, at most $longest s");

is(scalar(grep { !counts($_) } 1 .. 50), 0, 'what is counted is right');

for my $pid ($t->worker_pids()) {
    my $before = cpu($pid);
    sleep(0.5);
    cmp_ok(cpu($pid) - $before, '<', 25, 'a worker that has nothing to do');
}

$t->done(faults => 0);


# wrong logins without end, each another

sub start_client {
    my ($n) = @_;

    my $count = 0;

    return fork_server($t->dir() . "/client$n.err", [], sub {
        until (-e $t->dir() . '/stop') {
            my $c = MailPolicy::Client->new(port => $t->port('flood'));

            $c->greeting();
            $c->ehlo();

            1 while $c->auth_plain("n$n-" . $count++, 'x') =~ /^535/
                && !-e $t->dir() . '/stop';
        }
    });
}


# where the zone is in a worker's memory

sub zone_of {
    my ($pid) = @_;

    for (split /\n/, $t->read_file("/proc/$pid/maps")) {
        my ($from, $to) = map { address($_) } /^(\w+)-(\w+) rw-s/ or next;
        return $from if $to - $from == ZONE;
    }

    return;
}


# hex() warns of large ones
sub address { return unpack('Q>', pack('H16', substr('0' x 16 . $_[0], -16))) }


# the pid that has the lock, 0: nobody, undef: cannot be read

sub holder {
    my ($pid) = @_;

    open(my $fh, '<:raw', "/proc/$pid/mem") or return;
    sysseek($fh, $zone, 0) or return;
    sysread($fh, my $word, 8) == 8 or return;
    return unpack('Q', $word);
}


sub cpu {
    my ($pid) = @_;

    my @stat = split / /, $t->read_file("/proc/$pid/stat") =~ s/^.*\) //sr;
    return $stat[11] + $stat[12];
}


sub is_stopped {
    my ($pid) = @_;

    return $t->read_file("/proc/$pid/stat") =~ /\) T /;
}


# one that has the lock; any, if none has it for long

sub kill_one {
    my ($end, $pid) = (time() + 2);

    until (time() > $end) {
        my @workers = $t->worker_pids() or return 0;

        for (1 .. 200) {
            $pid = $workers[ rand(@workers) ];
            kill('STOP', $pid);
            1 until is_stopped($pid) || !-e "/proc/$pid";

            if (holder($pid) == $pid) {
                kill('KILL', $pid);
                return $t->wait_for(sub { !-e "/proc/$pid" });
            }

            kill('CONT', $pid);
            select(undef, undef, undef, rand(0.0004));
        }
    }

    kill('KILL', $pid);
    return 1;
}


# two sessions at once, as a worker may be asleep when both begin

sub serves {
    my $begin = time();
    my @clients = map { MailPolicy::Client->new(port => $t->port('smtp'),
        timeout => 5) } 1 .. 2;

    $_->greeting() for @clients;
    $_->ehlo() for @clients;

    my @good = map { substr(send_one($_, 'new' . $number++ . '@example.com'),
        0, 3) } @clients;
    $_->close() for @clients;

    my $took = time() - $begin;
    $longest = $took if $took > $longest;

    return 1 if "@good" eq '250 250';
    diag("after kill $kills: @good");
    return 0;
}


# When nobody makes the zone overflow, it is known what it has: to the message,
# and each in a session of its own, so that both workers have a part in it.

sub counts {
    my ($n) = @_;

    my @good = map {
        my $c = $t->client('smtp');
        $c->greeting();
        $c->ehlo();
        my $reply = send_one($c, "s$n\@example.com");
        $c->quit();
        substr($reply, 0, 3);
    } 1 .. 5;

    return "@good" eq '250 250 250 450 450';
}
