#!/usr/bin/perl

# Keys that are near their limit, with a Redis Cluster: who tells is known to
# the node of the key, and the stream is on another one.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Test::More;
use Time::HiRes qw(sleep);

use MailPolicy;
use MailPolicy::Cluster;
use MailPolicy::Limits qw(send_one);

use constant SENDERS => 12;

my $t = MailPolicy->new();
my $cluster = MailPolicy::Cluster->new($t);
my $relay = $t->run_relay(name => 'relay');
my $urls = join(' ', map { $_->url() } ($cluster->nodes())[0, 1]);

for my $edge (qw(a b)) {
    $t->conf($edge, <<"EOF");
worker_processes 2;
events { worker_connections 256; accept_mutex off; }
mail {
    policy_redis  $urls cluster timeout=5s on_error=closed;
    policy_auth   off;
    proxy_pass    127.0.0.1:%%PORT_relay%%;
    policy_limit  user  key=\$sender messages=10/1h;
    server {
        listen    127.0.0.1:%%PORT_$edge%%;
        protocol  smtp;
        policy    on;
    }
}
EOF
    $t->run_nginx($edge);
}


sub events {
    my $node = $cluster->owner($cluster->slot('mail:events'));

    return grep { $_->{action} eq 'near' } map { +{ @{ $_->[1] } } }
        @{ $node->cmd('XRANGE', 'mail:events', '-', '+') };
}


for my $edge (qw(a b)) {
    ok($t->wait_for(sub {
        my $c = $t->session($edge);
        my $reply = $c->cmd("MAIL FROM:<ready\@$edge.example>");
        $c->quit();
        return $reply =~ /^250/;
    }), "$edge is ready");
}

my %code;

for my $n (1 .. 10) {
    my $c = $t->session($n % 2 ? 'a' : 'b');
    $code{substr(send_one($c, "u$_\@example.com"), 0, 3)}++ for 1 .. SENDERS;
    $c->quit();
}

is_deeply(\%code, { 250 => 10 * SENDERS }, 'all of them passed');

$t->wait_for(sub { events() >= SENDERS }, 5);
sleep(0.1);

my %seen;
$seen{$_->{key}}++ for events();

is_deeply(\%seen, { map { ("u$_\@example.com" => 1) } 1 .. SENDERS },
    'one event for each key');

my %nodes;

for my $n (1 .. SENDERS) {
    my $key = "mail:warned:user:{u$n\@example.com}:messages";
    my $node = $cluster->owner($cluster->slot($key));

    $nodes{$node->port()}++;
    cmp_ok($node->cmd('PTTL', $key), '>', 3_500_000, "u$n: is remembered");
    is($cluster->slot($key), $cluster->slot(
        "mail:used:user:{u$n\@example.com}"), "u$n: where its counter is");
}

cmp_ok(scalar keys %nodes, '>', 1, 'on several nodes');

$t->disconnect();
$t->stop($_) for qw(a b);
$t->done();
