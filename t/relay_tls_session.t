#!/usr/bin/perl

# Sessions of TLS with relays: used again with the same relay, under the same
# name and the same server{} only, of either version; not where that is
# switched off; and no hindrance when the relay has forgotten them.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Test::More;

use MailPolicy;

my $t = MailPolicy->new();
my ($crt, $key) = $t->certificate('relay', 'relay.example.com', 'localhost');
my %certificate = (cert => $crt, key => $key, at_once => 1);

my $one = $t->run_relay(name => 'one', certificate => \%certificate);
my $two = $t->run_relay(name => 'two', certificate => \%certificate);

$t->conf(<<'EOF');
mail {
    policy                         on;
    policy_auth                    off;
    proxy_ssl                      on;
    proxy_ssl_trusted_certificate  %%DIR%%/relay.crt;

    upstream both {
        server  127.0.0.1:%%PORT_one%%;
        server  localhost:%%PORT_two%%;
    }

    server {
        listen      127.0.0.1:%%PORT_a%%;
        protocol    smtp;
        proxy_pass  localhost:%%PORT_one%%;
    }

    server {
        listen      127.0.0.1:%%PORT_b%%;
        protocol    smtp;
        proxy_pass  localhost:%%PORT_one%%;
    }

    server {
        listen                   127.0.0.1:%%PORT_off%%;
        protocol                 smtp;
        proxy_pass               localhost:%%PORT_one%%;
        proxy_ssl_session_reuse  off;
    }

    server {
        listen      127.0.0.1:%%PORT_both%%;
        protocol    smtp;
        proxy_pass  both;
    }

    server {
        listen          127.0.0.1:%%PORT_wrong%%;
        protocol        smtp;
        proxy_pass      localhost:%%PORT_one%%;
        proxy_ssl_name  other.example.com;
    }
}
EOF
$t->run_nginx();


sub send_one {
    my ($where) = @_;

    my $c = $t->session($where);
    my @replies = $c->send_mail('a@example.com', [ 'b@example.net' ], "x\n");
    $c->quit();
    return $replies[-1];
}


# "new" or "resumed", of the handshakes since the last time

my %seen;

sub handshakes {
    my ($relay) = @_;

    my @all = map { (split)[1] } $relay->tls();
    my $before = $seen{ $relay->name() } // 0;

    $seen{ $relay->name() } = @all;
    return join(' ', @all[$before .. $#all]);
}


for my $version (0x0304, 0x0303) {
    my $name = $version == 0x0304 ? 'TLSv1.3' : 'TLSv1.2';

    $_->set(certificate => { %certificate, version => $version })
        for $one, $two;
    handshakes($_) for $one, $two;

    like(send_one('a'), qr/^250 /, "$name: accepted") for 1 .. 3;
    like(($one->tls())[-1], qr/^$name /, "$name: it is");
    is(handshakes($one), 'new resumed resumed', "$name: used again");

    send_one('b') for 1 .. 2;
    is(handshakes($one), 'new resumed', "$name: not that of another server");

    send_one('off') for 1 .. 2;
    is(handshakes($one), 'new new', "$name: off");

    send_one('both') for 1 .. 4;
    is(handshakes($one) . ', ' . handshakes($two), 'new resumed, new resumed',
        "$name: each relay has its own");

    like(send_one('wrong'), qr/^451 4\.7\.5 /, "$name: wrong name, refused")
        for 1 .. 2;
    is(handshakes($one), 'new new',
        "$name: what was refused is not used again");

    # the same certificate, and other keys for its tickets

    $one->set(certificate => { %certificate, version => $version });
    like(send_one('a'), qr/^250 /, "$name: forgotten by the relay: accepted");
    is(handshakes($one), 'new', "$name: forgotten by the relay: a new one");
}

$t->done();
