#!/usr/bin/perl

# policy_auth relay with a real Postfix, whose users are a Dovecot's: by each
# method that a relay may be logged in to with, right and wrong; the message
# goes on by the same connection; and what Postfix says when its Dovecot is
# gone.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use MIME::Base64 qw(encode_base64);
use Test::More;

use MailPolicy;
use MailPolicy::Dovecot;
use MailPolicy::Postfix;

plan(skip_all => MailPolicy::Postfix::missing())
    if MailPolicy::Postfix::missing();
plan(skip_all => 'the package dovecot-core is not installed')
    if !grep { -x "$_/dovecot" } split /:/, $ENV{PATH};

my $t = MailPolicy->new();
my ($crt, $key) = $t->certificate('relay', 'relay.example.com');

my $ALICE = 'alice@example.com';
my $IN = qr/^235 2\.7\.0 Authentication successful$/;

my $dovecot = MailPolicy::Dovecot->new(dir => $t->dir(),
    mechanisms => 'plain login cram-md5 scram-sha-256 xoauth2 oauthbearer',
    users => { $ALICE => 'canary-of-alice', 'bob@example.com' => 'canary-b' });

my %filter = (plain => 'plain', login => 'login', cram => 'cram-md5',
    scram => 'scram-sha-256', all => 'static:rest');

my $postfix = MailPolicy::Postfix->new($t,
    smtpd => { map { $_ => [ "smtpd_sasl_mechanism_filter=$filter{$_}",
        'smtpd_relay_restrictions=permit_sasl_authenticated,reject' ] }
        keys %filter },
    main => [
        'smtpd_sasl_auth_enable = yes', 'smtpd_sasl_type = dovecot',
        'smtpd_sasl_path = ' . $dovecot->socket(),
        'smtpd_tls_security_level = may', 'smtpd_tls_auth_only = yes',
        "smtpd_tls_cert_file = $crt", "smtpd_tls_key_file = $key",
        'smtpd_authorized_xclient_hosts = 127.0.0.1',
    ]);

my $servers = join('', map { <<"EOS" } sort keys %filter);
    server {
        listen      127.0.0.1:%%PORT_by_$_%%;
        protocol    smtp;
        proxy_pass  127.0.0.1:%%PORT_$_%%;
    }
EOS

$t->conf(<<"EOC");
mail {
    server_name            edge.example.com;
    policy                 on;
    policy_auth            relay;
    policy_auth_delay      0;
    policy_auth_methods    plain login xoauth2 oauthbearer;
    policy_auth_plaintext  on;
    proxy_starttls         required;
    proxy_ssl_verify       off;
$servers
}
EOC
$t->run_nginx();


sub since { return substr($postfix->log(), $_[0]) }

sub mail {
    my ($c) = @_;

    return ($c->send_mail($ALICE, [ 'b@example.net' ], "x\n"))[-1];
}


for my $where (sort keys %filter) {
    my $name = "by $filter{$where}";
    my $before = length $postfix->log();

    my $c = $t->session("by_$where");
    like($c->auth_plain($ALICE, 'canary-of-alice'), $IN, "$name: in");
    like(mail($c), qr/^250 /, "$name: mail");
    like(mail($c), qr/^250 /, "$name: and another one");
    $c->quit();

    ok($t->wait_for(sub { since($before) =~ /smtpd\[\d+\]: disconnect / }),
        "$name: done");

    my $log = since($before);
    is(scalar(() = $log =~ /smtpd\[\d+\]: connect from/g), 1,
        "$name: by one connection");
    is(scalar(() = $log =~ /sasl_username=\Q$ALICE\E$/mg), 2,
        "$name: Postfix knows whose it is");

    $c = $t->session("by_$where");
    like($c->auth_login($ALICE, 'canary-wrong'),
        qr/^535 5\.7\.8 Error: authentication failed/, "$name: wrong");
    like($c->auth_plain('nobody', 'canary-x'), qr/^535 5\.7\.8 /,
        "$name: unknown");
    like($c->cmd("MAIL FROM:<$ALICE>"), qr/^530 /, "$name: no mail");
    like($c->auth_login('bob@example.com', 'canary-b'), $IN, "$name: then right");
    $c->quit();
}

# cancelled and cut off before anybody is asked

my $before = length $postfix->log();
my $c = $t->session('by_plain');
$c->cmd('AUTH PLAIN');
like($c->cmd('*'), qr/^501 /, 'cancelled');
$c->cmd('AUTH LOGIN');
$c->cmd(encode_base64($ALICE, ''));
$c->close();
unlike(since($before), qr/connect from/, 'cancelled: Postfix hears nothing');

# tokens

for my $how (qw(XOAUTH2 OAUTHBEARER)) {
    for my $expired (0, 1) {
        my $token = $dovecot->token($ALICE, expired => $expired);
        my $message = ($how eq 'XOAUTH2' ? "user=$ALICE\1" : "n,a=$ALICE,\1")
            . "auth=Bearer $token\1\1";

        $c = $t->session('by_all');
        my $reply = $c->cmd("AUTH $how " . encode_base64($message, ''));

        if ($expired) {
            like($reply, qr/^334 /, "$how, expired: told why");
            like($c->cmd($how eq 'XOAUTH2' ? '' : 'AQ=='),
                qr/^535 5\.7\.8 Error: authentication failed/,
                "$how, expired: refused");

        } else {
            like($reply, $IN, "$how: in");
            like(mail($c), qr/^250 /, "$how: mail");
        }

        $c->quit();
    }
}

like($postfix->log(), qr/sasl_method=XOAUTH2, sasl_username=\Q$ALICE/,
    'Postfix was given the token');

# its Dovecot is gone: nobody can tell, and nobody is called wrong

$dovecot->kill();
$c = $t->session('by_plain');
like($c->auth_plain($ALICE, 'canary-of-alice'), qr/^454 4\.7\.0 /,
    'without Dovecot: later');
$dovecot->start();
ok($t->wait_for(sub { $c->auth_plain($ALICE, 'canary-of-alice') =~ $IN }),
    'with Dovecot again: in');
like(mail($c), qr/^250 /, 'with Dovecot again: mail');
$c->quit();

ok($t->error_log() !~ /canary-/, 'no password in the log');

$t->done();
$dovecot->stop();
