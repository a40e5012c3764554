#!/usr/bin/perl

# The PROXY protocol towards relays, of both versions: the client's address in
# front of all else, of TLS too; nobody's where there is none; and no
# connection that tells of one client serves another.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Test::More;

use MailPolicy;
use MailPolicy::Postfix;

my $t = MailPolicy->new();
my ($crt, $key) = $t->certificate('relay', 'relay.example.com');

my $relay = $t->run_relay(name => 'relay', proxy_protocol => 1);
my $tls = $t->run_relay(name => 'tls', proxy_protocol => 1,
    certificate => { cert => $crt, key => $key, at_once => 1 });

$t->conf(<<'EOF');
mail {
    server_name     edge.example.com;
    policy          on;
    policy_auth     off;
    proxy_protocol  on;

    upstream kept {
        server     127.0.0.1:%%PORT_relay%%;
        keepalive  8;
    }

    server {
        listen      127.0.0.1:%%PORT_one%%;
        protocol    smtp;
        proxy_pass  127.0.0.1:%%PORT_relay%%;
    }

    server {
        listen                  127.0.0.1:%%PORT_two%%;
        listen                  unix:%%DIR%%/two.sock;
        protocol                smtp;
        proxy_pass              127.0.0.1:%%PORT_relay%%;
        proxy_protocol_version  2;
    }

    server {
        listen      unix:%%DIR%%/one.sock;
        protocol    smtp;
        proxy_pass  127.0.0.1:%%PORT_relay%%;
    }

    server {
        listen                  127.0.0.1:%%PORT_six%%  proxy_protocol;
        protocol                smtp;
        set_real_ip_from        127.0.0.1;
        proxy_pass              127.0.0.1:%%PORT_relay%%;
        proxy_protocol_version  2;
    }

    server {
        listen      127.0.0.1:%%PORT_kept%%;
        protocol    smtp;
        proxy_pass  kept;
    }

    server {
        listen                  127.0.0.1:%%PORT_over%%;
        protocol                smtp;
        proxy_pass              127.0.0.1:%%PORT_tls%%;
        proxy_ssl               on;
        proxy_ssl_verify        off;
        proxy_protocol_version  2;
    }

    server {
        listen      127.0.0.1:%%PORT_postfix%%;
        protocol    smtp;
        xclient     off;
        proxy_pass  127.0.0.1:%%PORT_smtpd%%;
    }
}
EOF
$t->run_nginx();


sub send_one {
    my ($where, %option) = @_;

    my $c = $t->client($where, from => '127.0.0.5', %option);
    my $port = $option{path} ? 0 : $c->socket()->sockport();

    $c->send_raw($option{first}) if $option{first};
    $c->greeting();
    $c->ehlo('client.example');

    my @replies = $c->send_mail('a@example.com', [ 'b@example.net' ], "x\n");
    $c->quit();
    return ($replies[-1], $port);
}


my $port = $t->port('one');
my ($reply, $client) = send_one('one');
like($reply, qr/^250 /, 'version 1: accepted');
is(($relay->proxied())[-1], "1 TCP4 127.0.0.5 127.0.0.1 $client $port",
    'version 1: who the client is');

$port = $t->port('two');
($reply, $client) = send_one('two');
like($reply, qr/^250 /, 'version 2: accepted');
is(($relay->proxied())[-1], "2 33 127.0.0.5 127.0.0.1 $client $port",
    'version 2: who the client is');

# clients without an address

($reply) = send_one(undef, path => $t->dir() . '/one.sock', from => undef);
like($reply, qr/^250 /, 'unix, version 1: accepted');
is(($relay->proxied())[-1], '1 UNKNOWN', 'unix, version 1: UNKNOWN');

($reply) = send_one(undef, path => $t->dir() . '/two.sock', from => undef);
like($reply, qr/^250 /, 'unix, version 2: accepted');
is(($relay->proxied())[-1], '2 32 none', 'unix, version 2: LOCAL');

# what another proxy has told does not fit the address that it came to

($reply) = send_one('six', from => '127.0.0.1',
    first => "PROXY TCP6 2001:db8::5 2001:db8::1 4711 25\r\n");
like($reply, qr/^250 /, 'of another family: accepted');
is(($relay->proxied())[-1], '2 32 none', 'of another family: LOCAL');

($reply) = send_one('six', from => '127.0.0.1',
    first => "PROXY TCP4 192.0.2.9 192.0.2.1 4711 25\r\n");
like(($relay->proxied())[-1], qr/^2 33 192\.0\.2\.9 127\.0\.0\.1 4711 /,
    'what another proxy has told is passed on');

# in front of TLS

($reply, $client) = send_one('over');
like($reply, qr/^250 /, 'TLS: accepted');
like(($tls->proxied())[-1], qr/^2 33 127\.0\.0\.5 127\.0\.0\.1 $client /,
    'TLS: in front of it');
is_deeply([ $tls->said_in_clear() ], [], 'TLS: and no more');

# kept connections

my @clients = map { $t->client('kept', from => "127.0.0.$_") } 11 .. 13;

for my $n (1, 2) {
    for my $c (@clients) {
        $n == 1 and $c->greeting(), $c->ehlo('client.example');
        my @replies = $c->send_mail('a@example.com', [ 'b@example.net' ],
            "x\n");
        like($replies[-1], qr/^250 /, 'kept: accepted');
    }
}

$_->quit() for @clients;
my @proxied = $relay->proxied();
is_deeply([ map { (split)[2] } @proxied[-3 .. -1] ],
    [ map { "127.0.0.$_" } 11 .. 13 ], 'kept: each client has its own');

for my $n (14, 15) {
    send_one('kept', from => "127.0.0.$n");
    like(($relay->proxied())[-1], qr/ 127\.0\.0\.$n /,
        'kept: none is used again');
}

# Postfix

SKIP: {
    my $missing = MailPolicy::Postfix::missing();
    skip($missing, 2) if $missing;

    my $postfix = MailPolicy::Postfix->new($t, smtpd => {
        first => [], smtpd => [ 'smtpd_upstream_proxy_protocol=haproxy' ] });

    ($reply) = send_one('postfix', from => '127.0.0.9');
    like($reply, qr/^250 2\.0\.0 Ok: queued as /, 'Postfix: accepted');
    like($postfix->log(), qr/client=unknown\[127\.0\.0\.9\]/,
        'Postfix: knows the client');
    $postfix->stop();
}

$t->done();
