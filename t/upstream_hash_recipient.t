#!/usr/bin/perl

# hash with what comes with RCPT: the relay is chosen then, by the first
# recipient, and always the same one for it.  Behind another method the key is
# forgotten.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Test::More;

use MailPolicy;

my $t = MailPolicy->new();
my %relay = map { $_ => $t->run_relay(name => $_) } qw(a b);

$t->conf(<<'EOF');
mail {
    server_name  edge.example.com;
    policy       on;
    policy_auth  off;
    proxy_pass   group;

    map $recipient $lower { "~^(.*)@" $1; }

    upstream group {
        hash    $lower consistent;
        server  127.0.0.1:%%PORT_a%%;
        server  127.0.0.1:%%PORT_b%%;
    }

    upstream random {
        hash    $lower;
        random;
        server  127.0.0.1:%%PORT_a%%;
        server  127.0.0.1:%%PORT_b%%;
    }

    server {
        listen    127.0.0.1:%%PORT_smtp%%;
        protocol  smtp;
    }

    server {
        listen      127.0.0.1:%%PORT_random%%;
        protocol    smtp;
        proxy_pass  random;
    }
}
EOF
$t->run_nginx();

my $c = $t->session('smtp');

for my $n (1 .. 60) {
    my $to = 'user' . $n % 20 . '@example.net';
    $c->send_mail('a@example.com', [ $to ], "x\n");
}

$c->quit();

my %where;

for my $name (sort keys %relay) {
    $where{ $_->{rcpts}[0] }{$name}++ for $relay{$name}->messages();
}

is(scalar(keys %where), 20, 'all of them came');
is(join(' ', grep { keys %{ $where{$_} } > 1 } sort keys %where), '',
    'each recipient at one relay');
cmp_ok(scalar(grep { $where{$_}{a} } keys %where), '>', 2,
    'some at the one');
cmp_ok(scalar(grep { $where{$_}{b} } keys %where), '>', 2, 'others at the other');

# at MAIL, as for any other group without a key

$_->stop(), $_->start() for values %relay;
$c = $t->session('random');
$c->cmd('MAIL FROM:<a@example.com>');
is($relay{a}->stats()->{open} + $relay{b}->stats()->{open}, 1,
    'hash; random; a relay is asked before a recipient is known');
$c->quit();

$t->done();
