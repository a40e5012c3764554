#!/usr/bin/perl

# hash by what is looked up for a recipient: the first one's key decides, also
# where all commands come at once, and the group itself has to be looked up, or
# a limit says so.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Test::More;

use MailPolicy;

my $t = MailPolicy->new();
my %relay = map { $_ => $t->run_relay(name => $_) } qw(a b);
my $redis = $t->run_redis();

$t->conf(<<'EOF');
mail {
    server_name   edge.example.com;
    policy_redis  redis://127.0.0.1:%%PORT_redis%% timeout=5s cache=1h;
    policy        on;
    policy_auth   off;

    policy_lookup  $class  class:$recipient_domain;
    policy_lookup  $by     by:$class;
    policy_lookup  $group  group:$sender_domain;

    upstream hashed {
        hash    $by;
        server  127.0.0.1:%%PORT_a%%;
        server  127.0.0.1:%%PORT_b%%;
    }

    server {
        listen      127.0.0.1:%%PORT_static%%;
        protocol    smtp;
        proxy_pass  hashed;
    }

    server {
        listen      127.0.0.1:%%PORT_group%%;
        protocol    smtp;
        proxy_pass  $group;
    }

    upstream plain { server 127.0.0.1:%%PORT_a%%; }

    server {
        listen        127.0.0.1:%%PORT_limit%%;
        protocol      smtp;
        proxy_pass    plain;
        policy_limit  few  key=$sender  messages=1/1h  on_exceed=relay:hashed;
    }
}
EOF
$t->run_nginx();

my %seen;

# the names of the relays that got a message since the last call

sub taken {
    my $taken = '';

    for my $name (sort keys %relay) {
        my $now = $relay{$name}->stats()->{messages};
        $taken .= $name x ($now - ($seen{$name} // 0));
        $seen{$name} = $now;
    }

    return $taken;
}


sub codes { return join(' ', map { substr($_, 0, 3) } @_) }


# a recipient of whom nothing is known yet, whose key leads to this relay; two
# lookups, one behind the other

my ($n, %key) = (0);

sub recipient {
    my ($key) = @_;

    my $id = $n++;
    $redis->cmd('SET', "mail:class:d$id.example", "c$id");
    $redis->cmd('SET', "mail:by:c$id", $key);
    return "r\@d$id.example";
}


# which key leads where

for my $try (1 .. 20) {
    my $c = $t->session('static');
    $c->send_mail('s@example.com', [ recipient("key $try") ], "x\n");
    $c->quit();
    $key{ taken() } //= "key $try";
    last if keys %key == 2;
}

is(join(' ', sort keys %key), 'a b', 'keys for both relays');

# all at once: the other recipient is at hand when the first one's key is known

for my $first (qw(a a b b)) {
    my $other = $first eq 'a' ? 'b' : 'a';

    for my $where (qw(static group limit)) {
        my $from = "s\@s$n.example";
        $redis->cmd('SET', "mail:group:s$n.example", 'hashed');

        my $c = $t->session($where);
        $c->send_mail($from, [ 'r@example.com' ], "x\n") if $where eq 'limit';
        taken();

        is(codes($c->pipeline("MAIL FROM:<$from>",
            (map { 'RCPT TO:<' . recipient($key{$_}) . '>' } $first, $other),
            'DATA')), '250 250 250 354', "$where, $first: pipelined");
        like($c->cmd("x\r\n."), qr/^250 /, "$where, $first: accepted");
        is(taken(), $first, "$where, $first: as the first recipient says");
        $c->quit();
    }
}

$t->done();
