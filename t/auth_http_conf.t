#!/usr/bin/perl

# policy_auth http:, policy_auth_http_* and policy_auth_ssl_*: what is refused
# says why, and what to write instead; never the value of a header.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Test::More;

use MailPolicy;

my $t = MailPolicy->new();

my $SERVICE = 'http://127.0.0.1:%%PORT_service%%';
my $SECURE = 'https://127.0.0.1:%%PORT_service%%';

my %bad = (
    "policy_auth http://;" =>
        qr/no host in "policy_auth http:\/\/", expected "http:\/\/host/,
    'policy_auth "http://127.0.0.1/a b";' =>
        qr/invalid character in "policy_auth http.*write it as %20/,
    'policy_auth http://127.0.0.1:x/;' =>
        qr/invalid port in "policy_auth http:/,
    'policy_auth http://no.such.host.invalid/;' =>
        qr/host not found in "policy_auth http:/,
    "policy_auth $SERVICE; policy_auth_http_header X-Key: canary;" =>
        qr/invalid header name "X-Key:", write letters, digits/,
    "policy_auth $SERVICE; policy_auth_http_header X-Key \"canary\r\nA: b\";" =>
        qr/the value of header "X-Key" has a control character/,
    "policy_auth $SERVICE; policy_auth_http_timeout never;" =>
        qr/"policy_auth_http_timeout" directive invalid value/,
    "policy_auth $SECURE; policy_auth_ssl_trusted_certificate none.crt;" =>
        qr/none\.crt/,
    "policy_auth $SERVICE; policy_auth_http_pass_client_cert maybe;" =>
        qr/in "policy_auth_http_pass_client_cert" directive, it must be "on"/,
    "policy_auth $SECURE; policy_auth_ssl_name a; policy_auth_ssl_name b;" =>
        qr/"policy_auth_ssl_name" directive is duplicate/,
    "policy_auth $SECURE; policy_auth_ssl_name;" =>
        qr/invalid number of arguments in "policy_auth_ssl_name" directive/,
    "policy_auth $SECURE; policy_auth_ssl_verify maybe;" =>
        qr/it must be "on" or "off"/,
);

for my $text (sort keys %bad) {
    my ($good, $output) = $t->check_conf(<<"EOF");
thread_pool  default threads=2;

mail {
    proxy_pass  127.0.0.1:25;

    server {
        listen    127.0.0.1:%%PORT_plain%%;
        protocol  smtp;
        policy    on;
        $text
    }
}
EOF
    ok(!$good, "refused: $text");
    like($output, $bad{$text}, 'and the reason is given');
    unlike($output, qr/canary/, 'and no value');
}

$t->done();
