#!/usr/bin/perl

# "policy_auth relay" with a relay that nobody here wrote: Postfix, which asks
# Dovecot, and takes mail of those only who have logged in.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Test::More;

use MailPolicy;
use MailPolicy::Authority;
use MailPolicy::Dovecot;
use MailPolicy::Postfix;
use MailPolicy::Sasl;

plan(skip_all => MailPolicy::Postfix::missing())
    if MailPolicy::Postfix::missing();

my $t = MailPolicy->new();
my $dir = $t->dir();
my $ca = MailPolicy::Authority->new($t, 'ca');
my ($ALICE, $BOB) = ('alice@example.com', 'bob@example.com');
my %password = ($ALICE => 'correct "horse" & \\staple', $BOB => 'of bob only');

$ca->certificate('relay', names => [ 'DNS:relay.example' ]);

my $dovecot = MailPolicy::Dovecot->new(dir => $dir, users => \%password,
    mechanisms => 'plain login xoauth2 oauthbearer');
push @{ $t->{servers} }, $dovecot;

my @SASL = ('smtpd_sasl_auth_enable=yes', 'smtpd_sasl_type=dovecot',
    'smtpd_sasl_path=' . $dovecot->socket(), 'smtpd_tls_auth_only=yes',
    "smtpd_tls_cert_file=$dir/relay.crt", "smtpd_tls_key_file=$dir/relay.key",
    'smtpd_relay_restrictions=permit_sasl_authenticated,reject',
    'smtpd_error_sleep_time=0');

my $postfix = MailPolicy::Postfix->new($t, smtpd => {
    clear   => [ @SASL, 'smtpd_tls_security_level=may' ],
    wrapped => [ @SASL, 'smtpd_tls_wrappermode=yes' ],
});

$t->conf(<<'EOF');
mail {
    server_name                    edge.example.com;
    policy                         on;
    policy_auth                    relay;
    policy_auth_methods            plain login xoauth2 oauthbearer;
    policy_auth_plaintext          on;
    proxy_ssl_trusted_certificate  %%DIR%%/ca.crt;
    proxy_ssl_name                 relay.example;
    access_log                     %%DIR%%/access.log;

    upstream kept {
        server     127.0.0.1:%%PORT_clear%%;
        keepalive  4;
    }

    server {
        listen          127.0.0.1:%%PORT_by_starttls%%;
        protocol        smtp;
        proxy_pass      127.0.0.1:%%PORT_clear%%;
        proxy_starttls  required;
    }

    server {
        listen     127.0.0.1:%%PORT_by_tls%%;
        protocol   smtp;
        proxy_pass 127.0.0.1:%%PORT_wrapped%%;
        proxy_ssl  on;
    }

    server {
        listen          127.0.0.1:%%PORT_by_kept%%;
        protocol        smtp;
        proxy_pass      kept;
        proxy_starttls  required;
    }
}
EOF
$t->run_nginx();

my $number = 0;
my %sent;


sub sasl {
    my ($mechanism, $user, %more) = @_;

    return MailPolicy::Sasl->new($mechanism, user => $user,
        password => $password{$user}, token => $dovecot->token($user), %more);
}


for my $where (qw(by_starttls by_tls by_kept)) {
    for my $mechanism (qw(PLAIN LOGIN XOAUTH2 OAUTHBEARER)) {
        my $name = "$where, $mechanism";
        my $c = $t->session($where);

        like(sasl($mechanism, $ALICE, password => $password{$BOB},
            token => $dovecot->token($BOB))->login($c), qr/^535 5\.7\.8 /,
            "$name: wrong");
        is(sasl($mechanism, $ALICE)->login($c), '235 2.7.0 Authentication '
            . 'successful', "$name: good");

        for (1, 2) {
            my $from = 'f' . ++$number . '@example.com';
            my @replies = $c->send_mail($from, [ 'b@example.net' ], "x\n");

            like($replies[-1], qr/^250 2\.0\.0 Ok: queued as /,
                "$name: a message");
            $sent{$from} = [ $mechanism, $ALICE, $replies[-1] =~ /as (\w+)/ ];
        }

        $c->quit();
    }
}

# another login does not go by a connection of the first one's

my $c = $t->session('by_kept');
is(sasl('PLAIN', $BOB)->login($c), '235 2.7.0 Authentication successful',
    'another login');
my ($queued) = ($c->send_mail('bob@example.net', [ 'b@example.net' ],
    "x\n"))[-1] =~ /^250 .* as (\w+)$/;
ok($queued, 'another login: a message');
$sent{'bob@example.net'} = [ 'PLAIN', $BOB, $queued ];
$c->quit();


# both logs know who it was

my %line = map { ($_->{sender} // '') => $_ } $t->access_log();
my $log = $t->read_file("$dir/postfix/mail.log");

for my $from (sort keys %sent) {
    my ($mechanism, $user, $id) = @{ $sent{$from} };

    is_deeply([ @{ $line{$from} }{qw(sasl_method sasl_username outcome)} ],
        [ $mechanism, $user, 'accepted' ], "$from: log");
    like($log, qr/: $id: client=.*, sasl_username=\Q$user\E$/m,
        "$from: the log of Postfix");
}


# Dovecot away: nobody can tell

$dovecot->kill();
like(sasl('PLAIN', $ALICE)->login($t->session($_)), qr/^454 4\.7\.0 /,
    "$_: Dovecot is away") for qw(by_starttls by_tls);

$t->done();
