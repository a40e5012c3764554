#!/usr/bin/perl

# EXTERNAL: the login is what a certificate says that was verified in this
# very handshake; whom it may act as; sessions of TLS that are not resumed.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Test::More;

use IO::Socket::SSL;

use MailPolicy;
use MailPolicy::Authority;
use MailPolicy::Sasl;

my $t = MailPolicy->new();
my $dir = $t->dir();
my $relay = $t->run_relay(name => 'relay');
my $ca = MailPolicy::Authority->new($t, 'ca');
my $stranger = MailPolicy::Authority->new($t, 'stranger');
my $hash = $t->crypt('secret', '$5$rounds=1000$external$');

$ca->certificate('edge', names => [ 'DNS:localhost', 'IP:127.0.0.1' ]);
$t->write_file('users', <<"EOF");
alice\@example.com:$hash:senders=bob\@example.net,*\@lists.example.com
carol:$hash
j\xc3\xb6rg\@example.com:$hash
dora\@example.com:$hash
EOF

$t->conf(<<'EOF');
mail {
    server_name             localhost;
    ssl_certificate         %%DIR%%/edge.crt;
    ssl_certificate_key     %%DIR%%/edge.key;
    ssl_client_certificate  %%DIR%%/ca.crt;
    ssl_protocols           TLSv1.2 TLSv1.3;
    ssl_verify_client       optional;
    ssl_session_cache       shared:tls:1m;

    policy                  on;
    policy_auth             file:%%DIR%%/users;
    policy_auth_methods     plain external;
    policy_sender           own;
    proxy_pass              127.0.0.1:%%PORT_relay%%;
    max_errors              100;

    log_format  who  '$sender|$sasl_method|$sasl_username|$sasl_authzid';
    access_log  %%DIR%%/who.log who;

    server {
        listen    127.0.0.1:%%PORT_optional%% ssl;
        protocol  smtp;
    }

    server {
        listen             127.0.0.1:%%PORT_any%% ssl;
        protocol           smtp;
        ssl_verify_client  optional_no_ca;
    }

    server {
        listen             127.0.0.1:%%PORT_off%% ssl;
        protocol           smtp;
        ssl_verify_client  off;
    }

    server {
        listen    127.0.0.1:%%PORT_starttls%%;
        protocol  smtp;
        starttls  only;
    }

    server {
        listen               127.0.0.1:%%PORT_resumed%% ssl;
        protocol             smtp;
        policy_auth_methods  plain;
    }
}
EOF
$t->run_nginx();

my $INVALID = '535 5.7.8 Authentication credentials invalid';
my $DONE = '235 2.7.0 Authentication successful';
my $UNKNOWN = '504 5.5.4 Authentication mechanism unknown';


# a certificate of an authority's, with any subject and any names

sub issue {
    my ($name, $subject, $names, $by, @more) = @_;

    my $file = "$dir/$name";
    my $issuer = "$dir/" . ($by // 'ca');

    $t->write_file("$name.ext", "subjectAltName=$names\n");
    $ca->openssl('req', '-new', '-newkey', 'ec', '-pkeyopt',
        'ec_paramgen_curve:P-256', '-nodes', '-utf8', '-subj', $subject,
        '-keyout', "$file.key", '-out', "$file.csr");
    $ca->openssl('x509', '-req', '-in', "$file.csr", '-CA', "$issuer.crt",
        '-CAkey', "$issuer.key", '-CAcreateserial', '-days', '2', '-extfile',
        "$file.ext", '-out', "$file.crt", @more);
}


# an address as it stands in a certificate

sub der {
    my ($address) = @_;

    my $name = "\x81" . chr(length $address) . $address;

    return 'DER:' . join(':', map { sprintf('%02x', ord) } split(//,
        "\x30" . chr(length $name) . $name));
}


sub session {
    my ($where, $certificate, %ssl) = @_;

    return $t->session($where, tls => 1, ssl => { $certificate
        ? (SSL_cert_file => "$dir/$certificate.crt",
           SSL_key_file => "$dir/$certificate.key") : (), %ssl });
}


sub external {
    my ($c, $authzid, %option) = @_;

    return MailPolicy::Sasl->new('EXTERNAL', authzid => $authzid)
        ->login($c, %option);
}


sub logged { return (split /\n/, $t->read_file('who.log'))[-1] }


# whose certificate it is

my $ALICE = 'alice@example.com';
my @CASES = (
    [ 'one address', '/CN=dora@example.com', "email:$ALICE", $ALICE ],
    [ 'an address among other names', '/CN=x',
        "DNS:example.com,email:$ALICE,URI:mailto:bob\@example.net", $ALICE ],
    [ 'no address: the common name', '/CN=carol', 'DNS:example.com',
        'carol' ],
    [ 'a common name in UTF-8', "/CN=j\xc3\xb6rg\@example.com",
        'DNS:example.com', "j\xc3\xb6rg\@example.com" ],
    [ 'an address that nobody has, a name that somebody has', '/CN=carol',
        'email:nobody@example.com' ],
    [ 'AUTH-11 two addresses', '/CN=carol',
        "email:$ALICE,email:dora\@example.com" ],
    [ 'AUTH-11 the same address twice', '/CN=carol',
        "email:$ALICE,email:$ALICE" ],
    [ 'AUTH-11 two common names', '/CN=carol/CN=dora@example.com',
        'DNS:example.com' ],
    [ 'AUTH-11 neither', '/O=carol', 'DNS:carol' ],
    [ 'AUTH-11 an address in the subject only', "/emailAddress=$ALICE",
        'DNS:example.com' ],
    [ 'AUTH-1 NUL in an address', '/CN=carol', der("$ALICE\0.example.org") ],
    [ 'AUTH-1 NUL behind an address', '/CN=carol', der("$ALICE\0") ],
    [ 'AUTH-1 a line end in an address', '/CN=carol', der("$ALICE\r\n") ],
    [ 'AUTH-1 an empty address', '/CN=carol', der('') ],
    [ 'another case', '/CN=carol', 'email:Alice@example.com' ],
);

for my $case (@CASES) {
    my ($name, $subject, $names, $login) = @$case;

    issue('case', $subject, $names);
    my $c = session('optional', 'case');

    is(external($c), defined $login ? $DONE : $INVALID, $name);

    if (!defined $login) {
        is(external($c, $ALICE), $INVALID, "$name: nor as one who is said");
        is($c->auth_plain($ALICE, 'secret'), $DONE, "$name: by password");
        $c->quit();
        next;
    }

    my $from = $login =~ /@/ ? $login : '';
    $from = '' if $from =~ /[^ -~]/;
    like(($c->send_mail("<$from>", [ 'b@example.net' ], "x\n"))[-1],
        qr/^250 /, "$name: a message");
    $c->quit();
    is(logged(), ($from || '-') . "|EXTERNAL|$login|-", "$name: log")
        unless $login =~ /[^ -~]/;
}


# whose certificate was not verified

issue('alice', '/CN=x', "email:$ALICE");
issue('false', '/CN=x', "email:$ALICE", 'stranger');
$ca->certificate('old', names => [ "email:$ALICE" ], expired => 1);

for my $case ([ 'optional', 'alice', 1 ], [ 'any', 'alice', 1 ],
    [ 'off', 'alice', 0 ], [ 'optional', undef, 0 ], [ 'any', undef, 0 ],
    [ 'any', 'false', 0 ])
{
    my ($where, $certificate, $good) = @$case;
    my $name = "AUTH-11 $where, " . ($certificate // 'none');
    my $c = session($where, $certificate);

    $good ? like($c->ehlo(), qr/^250.AUTH PLAIN EXTERNAL$/m,
                "$name: is offered")
        : like($c->ehlo(), qr/^250.AUTH PLAIN$/m, "$name: is not offered");
    is(external($c, $_, initial => 1), $good ? $DONE : $UNKNOWN,
        "$name: \"$_\"") for $good ? '' : ('', $ALICE);
    is($c->auth_plain($ALICE, 'secret'), $DONE, "$name: a password is")
        unless $good;
    $c->quit();
}

for my $certificate (qw(false old)) {
    my $c = $t->client('optional', tls => 1, ssl => {
        SSL_cert_file => "$dir/$certificate.crt",
        SSL_key_file => "$dir/$certificate.key" });

    like($c->greeting(), qr/^421 4\.7\.1 SSL certificate error/,
        "AUTH-11 optional, $certificate: nginx itself refuses it");
    ok($c->wait_close(), "AUTH-11 optional, $certificate: closed");
}

my $c = $t->session('starttls', ssl => { SSL_cert_file => "$dir/alice.crt",
    SSL_key_file => "$dir/alice.key" });
unlike($c->ehlo(), qr/AUTH/, 'STARTTLS: not offered before it');
like(external($c, ''), qr/^530 5\.7\.0 /, 'STARTTLS: nor taken');
like($c->starttls(), qr/^220 /, 'STARTTLS');
like($c->ehlo(), qr/^250.AUTH PLAIN EXTERNAL$/m, 'offered behind it');
is(external($c, ''), $DONE, 'and taken');
$c->quit();


# whom it may act as

for my $case ([ $ALICE, '-', $ALICE, 'dora@example.com' ],
    [ 'bob@example.net', 'bob@example.net', 'bob@example.net', $ALICE ],
    [ 'x@lists.example.com', 'x@lists.example.com', 'x@lists.example.com',
        'bob@example.net' ])
{
    my ($authzid, $acts, $own, $not) = @$case;

    for my $initial (0, 1) {
        my $c = session('optional', 'alice');

        is(external($c, $authzid, initial => $initial), $DONE,
            "as $authzid");
        like($c->cmd("MAIL FROM:<$not>"), qr/^553 5\.7\.1 /,
            "AUTH-22 as $authzid: not $not");
        like(($c->send_mail($own, [ 'b@example.net' ], "x\n"))[-1],
            qr/^250 /, "AUTH-22 as $authzid: $own");
        $c->quit();
        is(logged(), "$own|EXTERNAL|$ALICE|$acts", "as $authzid: log");
    }
}

$c = session('optional', 'alice');
is(external($c, $_), $INVALID, 'not as ' . s/[^ -~]//gr)
    for 'dora@example.com', 'carol', 'bob@example.com', "$ALICE\0",
        "bob\@example.net\r\n", 'x@sub.lists.example.com', ' ', 'x' x 300;
is(external($c), $DONE, 'but as oneself');
$c->quit();


# TLS-6 sessions of TLS that are not resumed: the authority is asked each time

for my $version (qw(TLSv1_2 TLSv1_3)) {
    for my $where (qw(resumed optional)) {
        for my $certificate ('alice', undef) {
            my $context = IO::Socket::SSL::SSL_Context->new(
                SSL_verify_mode => 0, SSL_session_cache_size => 10,
                SSL_version => $version, $certificate
                    ? (SSL_cert_file => "$dir/$certificate.crt",
                       SSL_key_file => "$dir/$certificate.key") : ());
            my @ssl = (SSL_reuse_ctx => $context, SSL_session_key => 'edge');
            my @reused;

            for my $n (1 .. 3) {
                my $c = session($where, undef, @ssl);
                push @reused, $c->socket()->get_session_reused() ? 1 : 0;
                is(external($c), $certificate ? $DONE : $UNKNOWN,
                    "$where, $version: EXTERNAL, time $n")
                    if $where eq 'optional';
                $c->quit();
            }

            is("@reused", $where eq 'resumed' ? '0 1 1' : '0 0 0',
                "TLS-6 $where, $version, " . ($certificate // 'none'));
        }
    }
}

$t->done();
