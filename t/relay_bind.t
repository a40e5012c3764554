#!/usr/bin/perl

# proxy_bind: where connections to relays come from, as the configuration or
# the client's address says; inherited, and switched off.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Test::More;

use MailPolicy;

my $t = MailPolicy->new();
my $relay = $t->run_relay(name => 'relay');

$t->conf(<<'EOF');
mail {
    policy       on;
    policy_auth  off;
    proxy_pass   127.0.0.1:%%PORT_relay%%;
    proxy_bind   127.0.0.3;

    upstream kept {
        server     127.0.0.1:%%PORT_relay%%;
        keepalive  8;
    }

    map $remote_addr $from {
        default    '';
        127.0.0.8  127.0.0.108;
        127.0.0.9  nonsense;
    }

    server {
        listen    127.0.0.1:%%PORT_inherited%%;
        protocol  smtp;
    }

    server {
        listen      127.0.0.1:%%PORT_off%%;
        protocol    smtp;
        proxy_bind  off;
    }

    server {
        listen      127.0.0.1:%%PORT_other%%;
        protocol    smtp;
        proxy_bind  127.0.0.4;
    }

    server {
        listen      127.0.0.1:%%PORT_client%%;
        protocol    smtp;
        proxy_pass  kept;
        proxy_bind  $remote_addr transparent;
    }

    server {
        listen      127.0.0.1:%%PORT_map%%;
        protocol    smtp;
        proxy_bind  $from;
    }

    server {
        listen      127.0.0.1:%%PORT_family%%;
        protocol    smtp;
        proxy_bind  ::1;
    }
}
EOF
$t->run_nginx();


# where the relay saw it come from

sub source {
    my ($where, $from) = @_;

    my $c = $t->client($where, from => $from // '127.0.0.1');
    $c->greeting();
    $c->ehlo('client.example');
    my @replies = $c->send_mail('a@example.com', [ 'b@example.net' ], "x\n");
    $c->quit();

    return $replies[-1] =~ /^250 / ? ($relay->sources())[-1] : $replies[-1];
}


is(source('inherited'), '127.0.0.3', 'an address, inherited');
is(source('off'), '127.0.0.1', 'off');
is(source('other'), '127.0.0.4', 'an address of its own');
is(source('client', '127.0.0.5'), '127.0.0.5', "the client's");
is(source('client', '127.0.0.6'), '127.0.0.6',
    "the client's: never another's connection");
is(source('map', '127.0.0.8'), '127.0.0.108', 'a map');
is(source('map', '127.0.0.7'), '127.0.0.1', 'a map: nothing');
is(source('map', '127.0.0.9'), '127.0.0.1', 'a map: no address');
like($t->error_log(), qr/invalid local address "nonsense"/,
    'a map: no address, the log says so');
is(source('family'), '127.0.0.1', 'an address of another family');

$t->done();
