#!/usr/bin/perl

# ASYNC A7: while TLS with a relay is made, and while we log in to one, also in
# a thread: clients leave, the relay goes or answers late, workers are told
# to go or are cut; and nothing is left of it.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Test::More;
use Time::HiRes qw(sleep time);

use MailPolicy;

my $t = MailPolicy->new();
my ($crt, $key) = $t->certificate('relay', 'relay.example.com');
my %certificate = (cert => $crt, key => $key);
my $AUTH = 'AUTH SCRAM-SHA-256 PLAIN';

my $relay = $t->run_relay(name => 'relay', users => { edge => 'secret' },
    certificate => { %certificate });

# how the relay is, so that it is waited for

my %WAITING = (
    'A7 at once'        => { at_once => 1, tls => 'hang' },
    'A7 STARTTLS'       => { tls => 'hang' },
    'A7 220 to come'    => { starttls => 'hang' },
    'AUTH'              => { auth => 'hang' },
    'AUTH in a thread'  => { scram => { iterations => 300_000 } },
);

my $conf = <<'EOF';
worker_shutdown_timeout 1s;

mail {
    policy             on;
    policy_auth        off;
    proxy_ssl_verify   off;
    proxy_auth         edge secret;
    proxy_pass         127.0.0.1:%%PORT_relay%%;

    server {
        listen     127.0.0.1:%%PORT_once%%;
        protocol   smtp;
        proxy_ssl  on;
    }

    server {
        listen          127.0.0.1:%%PORT_starttls%%;
        protocol        smtp;
        proxy_starttls  required;
    }
}
EOF

$t->conf($conf);
$t->run_nginx();


sub behave {
    my (%other) = @_;

    $relay->set(tls => undef, starttls => undef, auth => undef, scram => {},
        extensions => [ 'PIPELINING', 'STARTTLS', $AUTH ],
        certificate => { %certificate, at_once => delete $other{at_once} },
        %other);
}


# clients whose MAIL waits for the relay

my $salt = 0;

sub waiting {
    my ($point, $count) = @_;

    my %how = %{ $WAITING{$point} };
    my $where = $how{at_once} ? 'once' : 'starttls';

    # keys that are known would not be waited for
    $how{scram} = { %{ $how{scram} }, salt => 'salt ' . ++$salt }
        if $how{scram};

    behave(%how);
    my $before = $relay->stats()->{total};
    my @clients = map { $t->session($where) } 1 .. $count;

    $_->send_raw("MAIL FROM:<a\@example.com>\r\n"
        . "RCPT TO:<b\@example.net>\r\n") for @clients;

    $t->wait_for(sub { $relay->stats()->{total} >= $before + $count });
    sleep($how{scram} ? 0.1 : 0.05);
    return @clients;
}


sub descriptors {
    return scalar map { glob("/proc/$_/fd/*") } $t->worker_pids();
}


sub steady {
    my ($name, $before) = @_;

    ok($t->wait_for(sub { descriptors() <= $before }), "$name: nothing is left")
        or diag(descriptors() . " descriptors, $before before");

    behave();
    my $c = $t->session('starttls');
    my @replies = $c->send_mail('a@example.com', [ 'b@example.net' ], "x\n");
    like($replies[-1], qr/^250 /, "$name: and mail goes through");
    $c->quit();
}


# how many there are when a worker has served, and has nothing to do

sub baseline {
    my ($last, $same) = (0, 0);

    behave();
    my $first = $t->session('starttls');
    $first->send_mail('a@example.com', [ 'b@example.net' ], "x\n");
    $first->quit();

    $t->wait_for(sub {
        sleep(0.05);
        my $now = descriptors();
        $same = $now == $last ? $same + 1 : 0;
        $last = $now;
        return $same >= 4;
    });

    return $last;
}


my $base = baseline();

for my $point (sort keys %WAITING) {

    # the client goes; what comes late, comes for nobody

    for my $end (qw(close reset)) {
        my @clients = waiting($point, 3);
        $_->$end() for @clients;
        steady("$point, client: $end", $base);
    }

    # the relay goes; also with an answer that is on its way

    my @clients = waiting($point, 2);
    $relay->stop();
    my @replies = map { $_->read_reply() } @clients;
    is(scalar(grep { /^(?:451 4\.|250)/ } @replies), 2,
        "$point, relay: gone: told") or diag(join("\n", @replies));
    $relay->start();
    $_->close() for @clients;
    steady("$point, relay: gone", $base);

    # reload, and the end of the old worker's time

    @clients = waiting($point, 2);
    my @old = $t->worker_pids();
    $t->reload();
    ok($t->wait_for(sub { !grep { kill(0, $_) } @old }),
        "$point, reload: the old worker leaves");
    $_->close() for @clients;
    $base = baseline();
    steady("$point, reload", $base);
}

$t->done(faults => 0);
