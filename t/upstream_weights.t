#!/usr/bin/perl

# Weights, over all workers: they share whose turn it is.  With
# TEST_BALANCE=10000 so many messages, of many clients at a time.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Test::More;

use MailPolicy;
use MailPolicy::Process qw(fork_server wait_exit);

my $MESSAGES = $ENV{TEST_BALANCE} || 90;
my $CLIENTS = $ENV{TEST_BALANCE} ? 8 : 3;

my %WEIGHT = (a => 5, b => 3, c => 1);

my $t = MailPolicy->new();
my %relay = map { $_ => $t->run_relay(name => $_, store => 0) } qw(a b c d);

$t->conf(<<'EOF');
worker_processes  4;

mail {
    server_name  edge.example.com;
    policy       on;
    policy_auth  off;

    upstream relays {
        server  127.0.0.1:%%PORT_a%% weight=5;
        server  127.0.0.1:%%PORT_b%% weight=3;
        server  127.0.0.1:%%PORT_c%%;
        server  127.0.0.1:%%PORT_d%% backup;
    }

    server {
        listen      127.0.0.1:%%PORT_smtp%%;
        protocol    smtp;
        proxy_pass  relays;
    }
}
EOF
$t->run_nginx();

# each message is a session of its own

my @pids = map {
    fork_server($t->dir() . "/client$_", [], sub {
        for (1 .. $MESSAGES / $CLIENTS) {
            my $c = MailPolicy::Client->new(port => $t->port('smtp'),
                timeout => 30);
            $c->greeting();
            $c->ehlo();
            my @replies = $c->send_mail('s@example.com', [ 'r@example.net' ],
                "x\n");
            print STDERR "@replies\n" if $replies[-1] !~ /^250 /;
            $c->quit();
        }
    })
} 1 .. $CLIENTS;

wait_exit($_, $ENV{TEST_BALANCE} ? 900 : 30) for @pids;

is(join('', map { $t->read_file("client$_") } 1 .. $CLIENTS), '',
    'all messages were accepted');

my %got = map { $_ => $relay{$_}->stats()->{messages} } keys %relay;
my $all = 0;
$all += $_ for values %got;

is($all, $CLIENTS * int($MESSAGES / $CLIENTS), 'none is missing');

for my $name (sort keys %WEIGHT) {
    my $share = $all * $WEIGHT{$name} / 9;

    # 2 %, and one turn
    cmp_ok(abs($got{$name} - $share), '<=', 1 + 0.02 * $share,
        "$name: weight $WEIGHT{$name}") or diag("$got{$name} of $share");
    diag("$name: $got{$name} of $all, exactly: $share")
        if $ENV{TEST_BALANCE};
}

is($got{d}, 0, 'nothing for the backup');

$t->done();
