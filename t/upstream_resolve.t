#!/usr/bin/perl

# "resolve": the addresses of a relay are asked for as long as nginx runs.
# New ones join, those that are no longer named get nothing new, and what is
# going on with them is ended; a name that is not answered loses nothing.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Test::More;

use MailPolicy;
use MailPolicy::Dns;

my $t = MailPolicy->new();

my %relay = map { $_ => $t->run_relay(name => $_, port => $t->port('relay'),
    address => "127.0.0.$_") } 1 .. 3;
my $dns = MailPolicy::Dns->new(dir => $t->dir(), port => $t->port('dns'),
    ttl => 1, a => { 'relay.example' => '127.0.0.1 127.0.0.2' });
push @{ $t->{servers} }, $dns;

$t->conf(<<'EOF');
worker_processes  2;

mail {
    server_name  edge.example.com;
    access_log   %%DIR%%/access.log;
    policy       on;
    policy_auth  off;

    upstream relays {
        resolver          127.0.0.1:%%PORT_dns%% ipv6=off valid=1s;
        resolver_timeout  1s;

        server  relay.example:%%PORT_relay%% resolve max_fails=0;
    }

    upstream late {
        resolver          127.0.0.1:%%PORT_dns%% valid=1s;
        resolver_timeout  1s;

        server  late.example:%%PORT_relay%% resolve;
        keepalive  4;
    }

    server {
        listen      127.0.0.1:%%PORT_smtp%%;
        protocol    smtp;
        proxy_pass  relays;
    }

    server {
        listen      127.0.0.1:%%PORT_late%%;
        protocol    smtp;
        proxy_pass  late;
    }
}
EOF
$t->run_nginx();

my %seen;


sub taken {
    my $taken = '';

    for my $name (sort keys %relay) {
        my $now = $relay{$name}->stats()->{messages};
        $taken .= $name x ($now - ($seen{$name} // 0));
        $seen{$name} = $now;
    }

    return $taken;
}


# the relays that so many messages went to, or the reply to one's MAIL

sub messages {
    my ($where, $n) = @_;

    taken();

    for (1 .. $n) {
        my $c = $t->session($where);
        my @replies = $c->send_mail('s@example.com', [ 'r@example.net' ],
            "x\n");
        $c->quit();
        return $replies[0] if $replies[-1] !~ /^250 /;
    }

    return join('', sort { $a <=> $b } split(//, taken()));
}


# each worker asks by itself

sub logged {
    my ($re, $n) = @_;

    return $t->wait_for(sub { (() = $t->error_log() =~ /$re/g) >= $n }, 10);
}


my $r = qr/relay "127\.0\.0\.\d:\d+" of upstream "relays"/;

ok(logged(qr/$r has joined/, 4), 'each worker has both addresses');
like(messages('smtp', 8), qr/^1{2,6}2{2,6}$/, 'both get messages');

# one that leaves, with a transaction under way, and one that joins

my $c = $t->session('smtp');
$c->cmd('MAIL FROM:<s@example.com>');
$c->cmd('RCPT TO:<r@example.net>');
my ($busy) = grep { $relay{$_}->stats()->{open} } 1, 2;
my $other = 3 - $busy;

$dns->set('relay.example' => "127.0.0.$other 127.0.0.3");
ok(logged(qr/$r has left/, 2), 'one has left');
ok(logged(qr/$r has joined/, 6), 'one has joined');
like(messages('smtp', 8), qr/^$other{2,6}3{2,6}$/,
    'those that are named get messages');

like($c->cmd('DATA'), qr/^354 /, 'what was begun goes on');
like($c->cmd("x\r\n."), qr/^250 /, 'and is ended');
is(taken(), $busy, 'where it was begun');
is(join(' ', map { substr($_, 0, 3) } $c->send_mail('s@example.com',
    [ 'r@example.net' ], "x\n")), '250 250 354 250', 'the next transaction');
unlike(taken(), qr/$busy/, 'goes elsewhere');
$c->quit();

# no answer, no change

$dns->set('relay.example' => 'silent');
ok(logged(qr/relay\.example could not be resolved \(110/, 1), 'no answer');
like(messages('smtp', 4), qr/^[3$other]{4}$/, 'what was known stays');

ok($t->reload(), 'reload, and the resolver is silent');
like(messages('smtp', 8), qr/^$other{2,6}3{2,6}$/,
    'the new workers know what the old ones knew');

$dns->set('relay.example' => '');
ok($t->wait_for(sub { messages('smtp', 1) =~ /^451 4\.4\.1 / }, 15),
    'a name that is no more: no relay');
$dns->set('relay.example' => '127.0.0.3');
ok($t->wait_for(sub { messages('smtp', 1) eq '3' }, 15), 'it is back');

# not known at the start

like(messages('late', 1), qr/^451 4\.4\.1 /, 'not known yet: no relay');
$dns->set('late.example' => '127.0.0.1 ::1');
ok($t->wait_for(sub { messages('late', 1) eq '1' }, 15), 'until it is');
ok(logged(qr/relay "127\.0\.0\.1:\d+" of upstream "late" has joined/, 2),
    'of which each worker hears');
ok(logged(qr/relay "\[::1\]:\d+" of upstream "late" has joined/, 2),
    'IPv6, too');

# what is open to one that has left is kept for nobody

$c = $t->session('late');
$c->cmd('MAIL FROM:<s@example.com>');
$c->cmd('RCPT TO:<r@example.net>');
$dns->set('late.example' => '127.0.0.2');
ok(logged(qr/relay "127\.0\.0\.1:\d+" of upstream "late" has left/, 2),
    'one has left');
like($c->cmd('DATA'), qr/^354 /, 'what was begun with it goes on');
like($c->cmd("x\r\n."), qr/^250 /, 'and is ended');
is($relay{1}->stats()->{open}, 1, 'by the connection that is there');
$c->quit();
ok($t->wait_for(sub { $relay{1}->stats()->{open} == 0 }, 5),
    'which is not kept');

$t->done();
