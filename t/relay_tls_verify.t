#!/usr/bin/perl

# Whom a relay's certificate has to be for: the name or the address in
# "server", or proxy_ssl_name; by which authorities; what is told to the relay;
# and the edge's own certificate.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Test::More;

use MailPolicy;
use MailPolicy::Authority;

my $t = MailPolicy->new();
my $ca = MailPolicy::Authority->new($t, 'ca');
my $other = MailPolicy::Authority->new($t, 'other');

my %cert = (
    name     => { $ca->certificate('name', names => [ 'DNS:localhost' ]) },
    wildcard => { $ca->certificate('wildcard',
        names => [ 'DNS:*.example.com' ]) },
    address  => { $ca->certificate('address', names => [ 'IP:127.0.0.1' ]) },
    text     => { $ca->certificate('text', names => [ 'DNS:127.0.0.1' ]) },
);

$ca->certificate('edge', names => [ 'DNS:edge.example.com' ]);

my $relay = $t->run_relay(name => 'relay',
    certificate => { %{ $cert{name} }, at_once => 1 });

# server, directives, certificate, taken or what the log says, name that is told

my @cases = (
    [ 'localhost', '', 'name', '', 'localhost' ],
    [ 'localhost', '', 'address', qr/not for "localhost"/ ],
    [ 'localhost', '', 'wildcard', qr/not for "localhost"/ ],
    [ '127.0.0.1', '', 'address', '', '' ],
    [ '127.0.0.1', '', 'name', qr/not for "127\.0\.0\.1"/ ],
    [ '127.0.0.1', '', 'text', qr/not for "127\.0\.0\.1"/ ],
    [ '127.0.0.1', 'proxy_ssl_name localhost;', 'name', '', 'localhost' ],
    [ '127.0.0.1', 'proxy_ssl_name mx.example.com;', 'wildcard', '',
        'mx.example.com' ],
    [ '127.0.0.1', 'proxy_ssl_name a.mx.example.com;', 'wildcard',
        qr/not for "a\.mx/ ],
    [ '127.0.0.1', 'proxy_ssl_name 127.0.0.2;', 'address', qr/not for "127/ ],
    [ 'localhost', 'proxy_ssl_server_name off;', 'name', '', '' ],
    [ 'localhost', 'proxy_ssl_verify off;', 'address', '', 'localhost' ],
    [ 'localhost', 'proxy_ssl_trusted_certificate %%DIR%%/other.crt;', 'name',
        qr/cannot be verified/ ],
);

my $servers = '';

for my $n (0 .. $#cases) {
    my ($host, $directives) = @{ $cases[$n] };

    $servers .= <<"EOC";
    server {
        listen      127.0.0.1:%%PORT_case_$n%%;
        protocol    smtp;
        proxy_pass  $host:%%PORT_relay%%;
        proxy_ssl   on;
        $directives
    }
EOC
}

$t->conf(<<"EOC");
mail {
    server_name                    edge.example.com;
    policy                         on;
    policy_auth                    off;
    proxy_ssl_trusted_certificate  %%DIR%%/ca.crt;
    proxy_ssl_session_reuse        off;

$servers
    server {
        listen                     127.0.0.1:%%PORT_client%%;
        protocol                   smtp;
        proxy_pass                 localhost:%%PORT_relay%%;
        proxy_ssl                  on;
        proxy_ssl_certificate      %%DIR%%/edge.crt;
        proxy_ssl_certificate_key  %%DIR%%/edge.key;
    }

    server {
        listen          127.0.0.1:%%PORT_on%%;
        protocol        smtp;
        proxy_pass      127.0.0.1:%%PORT_relay%%;
        proxy_starttls  on;
    }

    server {
        listen            127.0.0.1:%%PORT_on_verify%%;
        protocol          smtp;
        proxy_pass        127.0.0.1:%%PORT_relay%%;
        proxy_starttls    on;
        proxy_ssl_verify  on;
    }
}
EOC

$t->conf('system', <<'EOC');
env SSL_CERT_FILE;

mail {
    policy          on;
    policy_auth     off;
    proxy_pass      localhost:%%PORT_relay%%;
    proxy_ssl       on;

    server { listen 127.0.0.1:%%PORT_system%%; protocol smtp; }
}
EOC

$t->run_nginx();

$ENV{SSL_CERT_FILE} = $t->dir() . '/ca.crt';
$t->run_nginx('system');


sub send_one {
    my ($where) = @_;

    my $c = $t->session($where);
    my @replies = $c->send_mail('a@example.com', [ 'b@example.net' ], "x\n");
    $c->quit();
    return $replies[-1];
}


for my $n (0 .. $#cases) {
    my ($host, $directives, $cert, $log, $told) = @{ $cases[$n] };
    my $name = "TLS-5 $host, $directives certificate \"$cert\"";
    my $before = length($t->error_log());

    $relay->set(certificate => { %{ $cert{$cert} }, at_once => 1 });

    if ($log eq '') {
        like(send_one("case_$n"), qr/^250 /, "$name: accepted");
        is((($relay->tls())[-1] =~ /name=(\S*)/)[0], $told, "$name: SNI");
        next;
    }

    like(send_one("case_$n"), qr/^451 4\.7\.5 /, "$name: refused");
    like(substr($t->error_log(), $before), $log, "$name: the log says why");
}

$relay->set(certificate => { %{ $cert{name} }, at_once => 1 });
like(send_one('system'), qr/^250 /, 'TLS-5 the authorities of the system');

# the edge's own

$relay->set(certificate => { %{ $cert{name} }, at_once => 1,
    ca => $t->dir() . '/ca.crt' });
like(send_one('client'), qr/^250 /, 'a certificate of ours: accepted');
like(($relay->tls())[-1], qr/client=\/CN=edge$/, 'a certificate of ours: seen');
like(send_one('case_0'), qr/^250 /, 'none of ours: accepted');
like(($relay->tls())[-1], qr/client=none$/, 'none of ours: none');

# where it need not be

$relay->set(certificate => $cert{wildcard},
    extensions => [ 'PIPELINING', 'STARTTLS' ]);
like(send_one('on'), qr/^250 /, 'proxy_starttls on: not verified');
like(send_one('on_verify'), qr/^451 4\.7\.5 /,
    'proxy_starttls on, proxy_ssl_verify on: verified');

$t->done();
