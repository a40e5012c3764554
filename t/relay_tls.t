#!/usr/bin/perl

# TLS to relays: from the first octet on, and by STARTTLS, where it is offered
# or always; what was said in clear is forgotten, messages of any size come
# through, and what goes wrong in the middle is seen.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Digest::MD5 qw(md5_hex);
use Test::More;

use MailPolicy;
use MailPolicy::Postfix;

my $t = MailPolicy->new();

my ($crt, $key) = $t->certificate('relay', 'relay.example.com');
$t->certificate('postfix.example.com');

my %certificate = (cert => $crt, key => $key);

my @PLAIN = ('PIPELINING', 'SIZE 52428800', '8BITMIME');

my $tls = $t->run_relay(name => 'tls',
    certificate => { %certificate, at_once => 1 });
my $starttls = $t->run_relay(name => 'starttls', certificate => \%certificate,
    extensions => [ @PLAIN, 'STARTTLS' ]);

my $VERIFY = 'proxy_ssl_name relay.example.com;
              proxy_ssl_trusted_certificate %%DIR%%/relay.crt;';

$t->conf(<<"EOC");
mail {
    server_name            edge.example.com;
    policy                 on;
    policy_auth            off;
    $VERIFY

    server {
        listen      127.0.0.1:%%PORT_edge_tls%%;
        protocol    smtp;
        proxy_pass  127.0.0.1:%%PORT_tls%%;
        proxy_ssl   on;
    }

    server {
        listen          127.0.0.1:%%PORT_edge_starttls%%;
        protocol        smtp;
        proxy_pass      127.0.0.1:%%PORT_starttls%%;
        proxy_starttls  required;
    }

    server {
        listen          127.0.0.1:%%PORT_edge_on%%;
        protocol        smtp;
        proxy_pass      127.0.0.1:%%PORT_starttls%%;
        proxy_starttls  on;
    }

    server {
        listen      127.0.0.1:%%PORT_edge_off%%;
        protocol    smtp;
        proxy_pass  127.0.0.1:%%PORT_starttls%%;
    }

    server {
        listen          127.0.0.1:%%PORT_edge_postfix%%;
        protocol        smtp;
        proxy_pass      localhost:%%PORT_smtpd%%;
        proxy_ssl_name  postfix.example.com;
        proxy_starttls  required;
        proxy_ssl_trusted_certificate  %%DIR%%/postfix.example.com.crt;
    }
}
EOC
$t->run_nginx();


sub send_one {
    my ($where, $content) = @_;

    my $c = $t->session($where);
    my @replies = $c->send_mail('a@example.com', [ 'b@example.net' ],
        $content // "x\n");
    $c->quit();
    return $replies[-1];
}


# from the first octet on

like(send_one('edge_tls'), qr/^250 /, 'proxy_ssl: accepted');
is_deeply([ $tls->said_in_clear() ], [], 'proxy_ssl: nothing is said in clear');
like(($tls->tls())[0], qr/^TLSv1\.3 new name=relay\.example\.com .*client=none/,
    'proxy_ssl: the newest version, the name is told');

# by STARTTLS

like(send_one('edge_starttls'), qr/^250 /, 'required: accepted');
is_deeply([ $starttls->said_in_clear() ],
    [ 'EHLO edge.example.com', 'STARTTLS' ], 'required: no more in clear');

like(send_one('edge_on'), qr/^250 /, 'on: accepted');
is(($starttls->tls())[1] // '', ($starttls->tls())[0],
    'on: TLS where it is offered');

like(send_one('edge_off'), qr/^250 /, 'off: accepted');
is(scalar($starttls->tls()), 2, 'off: no TLS');

# what is offered in clear counts for nothing

$starttls->set(ehlo => [
    { times => 1, action => "250-relay.example\n250-STARTTLS\n"
        . "250-SMTPUTF8\n250-XCLIENT ADDR\n250 8BITMIME" },
    { action => "250-relay.example\n250 PIPELINING" } ]);

my $c = $t->session('edge_starttls');
like($c->cmd('MAIL FROM:<a@example.com> BODY=8BITMIME'), qr/^554 5\.6\.3 /,
    'TLS-3 forgotten: 8BITMIME was offered in clear only');
$c->quit();
$starttls->set(ehlo => undef);

# refused where it need not be

for my $code ('454 4.7.0 not now', '502 5.5.1 what?') {
    $starttls->set(starttls => $code);
    like(send_one('edge_on'), qr/^250 /, "on, refused ($code): in clear");
}

$starttls->set(starttls => undef, extensions => \@PLAIN);
like(send_one('edge_on'), qr/^250 /, 'on, not offered: in clear');
$starttls->set(extensions => [ @PLAIN, 'STARTTLS' ]);

# several messages on one connection, and big ones

for my $relay ([ edge_tls => $tls ], [ edge_starttls => $starttls ]) {
    my ($where, $relay) = @$relay;

    my $c = $t->session($where);
    my $count = $relay->stats()->{total};

    for my $size (1, 4096, 16384, 16385, 300_000, 3_000_000) {
        my $content = join('', map { "$_ " . ('z' x 70) . "\n" }
            1 .. 1 + $size / 76);
        my @replies = $c->send_mail('a@example.com', [ 'b@example.net' ],
            $content);
        like($replies[-1], qr/^250 /, "$where: $size octets");
        is(md5_hex(($relay->messages())[-1]{data}),
            md5_hex($content =~ s/\n/\r\n/gr), "$where: to the octet");
    }

    is($relay->stats()->{total}, $count + 1, "$where: on one connection");
    $c->quit();
}

# a relay that reads slowly

$tls->set(body => { after => 100_000, action => { delay => 1 } });
my $content = join('', map { "$_ " . ('y' x 70) . "\n" } 1 .. 60_000);
like(send_one('edge_tls', $content), qr/^250 /, 'slow: accepted');
is(md5_hex(($tls->messages())[-1]{data}), md5_hex($content =~ s/\n/\r\n/gr),
    'slow: to the octet');
$tls->set(body => undef);

# it goes away; also TLS alone, with the connection left open

for my $end ('close', 'rst', 'notify') {
    for my $stage (qw(ehlo mail rcpt)) {
        $tls->set($stage => $end);
        like(send_one('edge_tls'), qr/^451 4\.4\.[12] /, "$stage: $end");
        $tls->set($stage => undef);
    }

    $tls->set(dot => $end);
    like(send_one('edge_tls'), qr/^451 4\.4\.2 /, "dot: $end");
    $tls->set(dot => undef);
}

# Postfix

SKIP: {
    my $missing = MailPolicy::Postfix::missing();
    skip($missing, 3) if $missing;

    my $postfix = MailPolicy::Postfix->new($t, main => [
        'smtpd_tls_security_level = encrypt', 'smtpd_tls_loglevel = 1',
        map { "smtpd_tls_${_}_file = " . $t->dir() . "/postfix.example.com."
            . ($_ eq 'cert' ? 'crt' : 'key') } qw(cert key) ]);

    like(send_one('edge_postfix'), qr/^250 2\.0\.0 Ok: queued as /,
        'Postfix: accepted');
    ok($t->wait_for(sub { $postfix->log() =~ /status=sent/ }),
        'Postfix: delivered');
    like($postfix->log(), qr/Anonymous TLS connection established/,
        'Postfix: by TLS');
    $postfix->stop();
}

$t->done();
