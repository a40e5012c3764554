#!/usr/bin/perl

# Relays go down and come back while mail is coming in: no message fails
# unless its relay had it already, each that failed is explained in the logs,
# none is lost.  With TEST_BALANCE=10000 so many messages.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use IO::Socket::INET;
use Test::More;
use Time::HiRes qw(sleep);

use MailPolicy;
use MailPolicy::Process qw(fork_server wait_exit);

my $MESSAGES = $ENV{TEST_BALANCE} || 400;
my $CLIENTS = 4;

my $t = MailPolicy->new();
my %relay = map { $_ => $t->run_relay(name => $_) } qw(a b c);

$t->conf(<<'EOF');
worker_processes  4;

mail {
    server_name    edge.example.com;
    access_log     %%DIR%%/access.log;
    policy         on;
    policy_auth    off;
    proxy_timeout  20s;

    upstream relays {
        server        127.0.0.1:%%PORT_a%% weight=3 fail_timeout=1s;
        server        127.0.0.1:%%PORT_b%% weight=2 fail_timeout=1s;
        server        127.0.0.1:%%PORT_c%% backup;
        health_check  interval=100ms;
        keepalive     8;
    }

    server {
        listen      127.0.0.1:%%PORT_smtp%%;
        protocol    smtp;
        proxy_pass  relays;
    }
}

http {
    server {
        listen  127.0.0.1:%%PORT_http%%;

        location / {
            policy_status;
        }
    }
}
EOF
$t->run_nginx();

my @pids = map {
    my $number = $_;

    fork_server($t->dir() . "/client$number", [], sub {
        for my $n (1 .. $MESSAGES / $CLIENTS) {
            my $c = MailPolicy::Client->new(port => $t->port('smtp'),
                timeout => 60);
            $c->greeting();
            $c->ehlo();
            my @replies = $c->send_mail("s$number-$n\@example.com",
                [ 'r@example.net' ], "x\n");
            print STDERR "s$number-$n\@example.com ", $replies[-1], "\n";
            $c->quit();
            sleep(0.03) unless $ENV{TEST_BALANCE};
        }
    })
} 1 .. $CLIENTS;


sub sent {
    return scalar(() = join('', map { $t->read_file("client$_") }
        1 .. $CLIENTS) =~ /\n/g);
}


# one after the other, and both, in all ways

my @FAULTS = ([ a => connect => 'refuse' ], [ b => greeting => '421 4.3.2 no' ],
    [ a => 'stop' ], [ a => mail => 'close' ], [ b => ehlo => 'rst' ],
    [ a => 'stop' ], [ b => connect => 'refuse' ]);
my $step = $MESSAGES / (2 * @FAULTS + 1);

for my $i (0 .. $#FAULTS) {
    my ($name, $stage, $action) = @{ $FAULTS[$i] };

    $t->wait_for(sub { sent() >= (2 * $i + 1) * $step }, 600);
    $stage eq 'stop' ? $relay{$name}->stop()
                     : $relay{$name}->set($stage => $action);
    sleep(0.3);
    $t->wait_for(sub { sent() >= (2 * $i + 2) * $step }, 600);
    $stage eq 'stop' ? $relay{$name}->start()
                     : $relay{$name}->set($stage => undef);
}

wait_exit($_, 600) for @pids;

my %reply = map { split(/ /, $_, 2) }
    map { split(/\n/, $t->read_file("client$_")) } 1 .. $CLIENTS;
my $all = $CLIENTS * int($MESSAGES / $CLIENTS);
my @failed = grep { $reply{$_} !~ /^250 / } sort keys %reply;

is(scalar(keys %reply), $all, 'each message has its reply');

# what is under way at a relay that is killed fails, and no other
my @lost = grep { $reply{$_} =~ /^451 / } @failed;
is(scalar(@failed), scalar(@lost), 'those that failed may try again');
cmp_ok(scalar(@failed), '<=', 2 * $CLIENTS, 'they are few');

ok($t->wait_for(sub { (() = $t->access_log()) == $all }), 'all are logged');
my %line = map { ($_->{sender} // '') => $_ } $t->access_log();

is(scalar(grep { $line{$_}{outcome} =~ /^(?:deferred|unknown)$/
    && $line{$_}{upstream_addr} =~ /:@{[ $t->port('a') ]}$/ } @failed),
    scalar(@failed), 'those that failed were at the relay that was killed');

my %taken;
$taken{$_->{from}}++ for map { $_->messages() } values %relay;
my @accepted = grep { $reply{$_} =~ /^250 / } sort keys %reply;

is(scalar(grep { ($taken{$_} // 0) != 1 } @accepted), 0,
    'all others were taken, once');
is(scalar(grep { $line{$_}{outcome} ne 'accepted' } @accepted), 0,
    'and are so in the log');

diag(sprintf('%u of %u failed: %s', scalar(@failed), $all,
    join(' ', map { $line{$_}{outcome} } @failed))) if $ENV{TEST_BALANCE};

# connections of all workers, of which none is left

sub active {
    my $socket = IO::Socket::INET->new(PeerAddr => '127.0.0.1',
        PeerPort => $t->port('http')) or die "http: $@\n";
    print $socket "GET / HTTP/1.0\r\n\r\n";
    return join(' ', join('', readline($socket))
        =~ /"weight":\d+,"active":(\d+)/g);
}


ok($t->wait_for(sub { active() eq '0 0 0' }), 'none is counted in the end')
    or diag(active());
ok($t->error_log() =~ /is unhealthy: /, 'health_check has found some');
ok($t->error_log() =~ /is healthy again/, 'and that they came back');

$t->done();
