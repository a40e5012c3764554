#!/usr/bin/perl

# TLS: STARTTLS on and only, implicit TLS; what was learnt before it is
# forgotten; nothing that was sent in clear is read as if under TLS.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Test::More;

use MailPolicy;

eval { require IO::Socket::SSL };
plan(skip_all => 'IO::Socket::SSL is not installed') if $@;

my $t = MailPolicy->new();
my $relay = $t->run_relay(name => 'relay');

$t->write_file('users', 'alice@example.com:' . $t->crypt('secret') . "\n");
$t->certificate('edge');

$t->conf(<<'EOF');
mail {
    server_name          edge.example.com;
    ssl_certificate      %%DIR%%/edge.crt;
    ssl_certificate_key  %%DIR%%/edge.key;

    access_log           %%DIR%%/access.log;

    policy               on;
    policy_auth          file:%%DIR%%/users;
    proxy_pass           127.0.0.1:%%PORT_relay%%;
    max_errors           20;

    server {
        listen    127.0.0.1:%%PORT_only%%;
        protocol  smtp;
        starttls  only;
    }

    server {
        listen    127.0.0.1:%%PORT_on%%;
        protocol  smtp;
        starttls  on;
    }

    server {
        listen    127.0.0.1:%%PORT_tls%% ssl;
        protocol  smtp;
    }
}
EOF
$t->run_nginx();

# starttls only

my $c = $t->client('only');
$c->greeting();

my $ehlo = $c->ehlo();
like($ehlo, qr/^250.STARTTLS$/m, 'only: offered');
unlike($ehlo, qr/AUTH/, 'AUTH-8 no AUTH in clear');

for my $cmd ('MAIL FROM:<a@example.com>', 'AUTH PLAIN AGEAYg==',
    'RCPT TO:<a@example.com>', 'DATA', 'VRFY x')
{
    like($c->cmd($cmd), qr/^530 5\.7\.0 /, "TLS-9 only: $cmd");
}

like($c->cmd('NOOP'), qr/^250 /, 'TLS-9 only: NOOP');
like($c->cmd('STARTTLS now'), qr/^501 /, 'TLS-8 an argument');
like($c->starttls(), qr/^220 2\.0\.0 /, 'STARTTLS');
like($c->cmd('MAIL FROM:<a@example.com>'), qr/^503 5\.5\.1 /,
    'TLS-2 EHLO is needed again');
$ehlo = $c->ehlo();
unlike($ehlo, qr/STARTTLS/, 'not offered twice');
like($ehlo, qr/^250.AUTH PLAIN LOGIN$/m, 'AUTH under TLS');
like($c->cmd('STARTTLS'), qr/^503 5\.5\.1 /, 'TLS-8 twice');
like($c->auth_plain('alice@example.com', 'secret'), qr/^235 /, 'login');
like(($c->send_mail('a@example.com', [ 'b@example.net' ], "x\n"))[-1],
    qr/^250 /, 'mail');
like($c->quit(), qr/^221 /, 'QUIT');

# starttls on

$c = $t->client('on');
$c->greeting();
$c->ehlo();
like($c->auth_plain('alice@example.com', 'secret'), qr/^538 5\.7\.11 /,
    'AUTH-8 AUTH in clear');
like($c->cmd('AUTH LOGIN'), qr/^538 5\.7\.11 /, 'AUTH-8 LOGIN in clear');
like($c->cmd('MAIL FROM:<a@example.com>'), qr/^530 5\.7\.0 /, 'MAIL in clear');
like($c->starttls(), qr/^220 /, 'STARTTLS');
$c->ehlo();
like($c->auth_login('alice@example.com', 'secret'), qr/^235 /, 'login');
$c->quit();

# TLS-1 CVE-2011-0411

$c = $t->client('on');
$c->greeting();
$c->ehlo();
$c->send_raw("STARTTLS\r\nEHLO injected.example\r\n");
like($c->read_reply(), qr/^554 5\.5\.0 /, 'TLS-1 pipelined behind STARTTLS');
ok($c->wait_close(), 'TLS-1 closed');

# the handshake fails, or never begins

$c = $t->client('on');
$c->greeting();
$c->ehlo();
like($c->cmd('STARTTLS'), qr/^220 /, 'STARTTLS');
$c->send_raw("MAIL FROM:<a\@example.com>\r\n");
unlike($c->read_reply(), qr/^[0-9]{3}/, 'TLS-1 no SMTP in clear after it');

$c = $t->client('on');
$c->greeting();
$c->ehlo();
like($c->cmd('STARTTLS'), qr/^220 /, 'STARTTLS');
$c->reset();

# implicit

$c = $t->client('tls', tls => 1);
like($c->greeting(), qr/^220 /, 'implicit TLS');
unlike($c->ehlo(), qr/STARTTLS/, 'no STARTTLS under TLS');
like($c->auth_plain('alice@example.com', 'secret'), qr/^235 /, 'login');

# a body that ends under TLS without its dot

$c->cmd('MAIL FROM:<cut@example.com>');
$c->cmd('RCPT TO:<b@example.net>');
like($c->cmd('DATA'), qr/^354 /, 'DATA');
$c->send_raw("Subject: cut\r\n\r\nhalf a mess");
$c->close();

$t->wait_for(sub { grep { $_->{outcome} eq 'aborted' } $t->access_log() }, 5);

my @messages = $relay->messages();
is(scalar @messages, 1, 'TLS-7 the cut message was not delivered');

my ($log) = grep { $_->{outcome} eq 'accepted' } $t->access_log();
is($log->{protocol}, 'ESMTPSA', 'log: protocol');

# real clients

my $swaks = `which swaks 2>/dev/null`;
chomp($swaks);

SKIP: {
    skip 'swaks is not installed', 2 unless $swaks;

    for my $how ([ 'only', '-tls' ], [ 'tls', '--tls-on-connect' ]) {
        my ($port, $option) = ($t->port($how->[0]), $how->[1]);
        my $out = `$swaks -s 127.0.0.1 -p $port $option -au alice\@example.com \\
            -ap secret -f alice\@example.com -t bob\@example.net 2>&1`;
        is($?, 0, "swaks $option") or diag($out);
    }
}

$t->done();
