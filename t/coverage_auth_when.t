#!/usr/bin/perl

# AUTH, by its ids: what is no message, and how long one may be (AUTH-6);
# in clear (AUTH-8), of a mechanism that is not enabled (AUTH-9), out of
# sequence (AUTH-10).

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use MIME::Base64 qw(encode_base64);
use Test::More;

use MailPolicy;
use MailPolicy::Sasl;

BEGIN {
    plan(skip_all => 'IO::Socket::SSL is not installed')
        unless eval { require IO::Socket::SSL };
}

my @MECHANISMS = ('PLAIN', 'LOGIN', 'CRAM-MD5', 'SCRAM-SHA-256');
my $PASSWORD = 'canary-in-clear';
my $INVALID = qr/^535 5\.7\.8 /;

my $t = MailPolicy->new();
$t->run_relay(name => 'relay');

$t->secret($PASSWORD);
$t->certificate('edge');
$t->write_file('users', "alice\@example.com:{PLAIN}$PASSWORD\n");

my $servers = join('', map { <<"EOF" } @MECHANISMS);
    server {
        listen               127.0.0.1:%%PORT_${\ port($_) }%%;
        protocol             smtp;
        policy_auth          file:%%DIR%%/users;
        policy_auth_methods  \L$_\E;
    }
EOF

$t->conf(<<"EOF");
mail {
    server_name            edge.example.com;
    ssl_certificate        %%DIR%%/edge.crt;
    ssl_certificate_key    %%DIR%%/edge.key;
    policy                 on;
    policy_auth_plaintext  on;
    policy_auth_methods    plain login cram-md5 scram-sha-256;
    proxy_pass             127.0.0.1:%%PORT_relay%%;
    max_errors             100000;

    server {
        listen       127.0.0.1:%%PORT_file%%;
        protocol     smtp;
        policy_auth  file:%%DIR%%/users;
    }

    server {
        listen                 127.0.0.1:%%PORT_starttls%%;
        protocol               smtp;
        starttls               on;
        policy_auth            file:%%DIR%%/users;
        policy_auth_plaintext  off;
    }

$servers
}
EOF
$t->run_nginx();

messages();
in_clear();
disabled();
sequence();

$t->done();


sub port { return lc($_[0] =~ tr/-//dr) }

sub b64 { return encode_base64($_[0], '') }


sub sasl {
    my ($mechanism, %option) = @_;

    return MailPolicy::Sasl->new($mechanism, user => 'alice@example.com',
        password => $PASSWORD, %option);
}


# AUTH-6

sub messages {
    my $c = $t->session('file');

    for my $mechanism (@MECHANISMS) {
        for my $step (1 .. sasl($mechanism)->steps()) {
            for my $bad ('!!!!', 'QUJD!', 'QUJ', 'Q===', 'QR==', '====',
                'QQ==QQ==', 'QU JD')
            {
                is(broken($c, $mechanism, $step, $bad),
                    '501 5.5.2 Invalid base64',
                    "AUTH-6 $mechanism, $step: $bad");
            }

            # RFC 4954, section 4: no octets, and one; SCRAM has the last word
            for my $short ('', 'eA==') {
                my $last = $mechanism =~ /SCRAM/ && $step == 3 && $short eq '';
                like(broken($c = $last ? $t->session('file') : $c,
                    $mechanism, $step, $short), $last ? qr/^235 / : $INVALID,
                    "AUTH-6 $mechanism, $step: \"$short\"");
                $c = $t->session('file') if $last;
            }

            like(broken($c, $mechanism, $step, 'A' x 12288), $INVALID,
                "AUTH-6 $mechanism, $step: 12,288 octets");
            like(broken($c, $mechanism, $step, 'A' x 13000),
                qr/^500 5\.5\.2 Line too long/,
                "AUTH-6 $mechanism, $step: and more");
            like($c->cmd('NOOP'), qr/^250 /, 'AUTH-6 the session goes on');
        }

        next if $mechanism eq 'CRAM-MD5';
        like($c->cmd("AUTH $mechanism QUJ"), qr/^501 5\.5\.2 /,
            "AUTH-6 $mechanism: no base64 at once");
    }

    like($c->cmd('AUTH CRAM-MD5 QUJD'), qr/^501 5\.7\.0 /,
        'AUTH-6 CRAM-MD5: the server is first');
}


# What is said to a line in the place of a response; all of LOGIN's are asked
# for, as a name that is none is told with the password.

sub broken {
    my ($c, $mechanism, $step, $line) = @_;

    my $sasl = sasl($mechanism);
    my $reply = $c->cmd("AUTH $mechanism");

    for my $n (1 .. $sasl->steps()) {
        my ($challenge) = $reply =~ /^334 ?(.*)\z/ or last;
        my $response = b64($sasl->respond(
            MIME::Base64::decode_base64($challenge)));

        $reply = $c->cmd($n == $step ? $line : $response);
    }

    return $reply;
}


# AUTH-8

sub in_clear {
    my $c = $t->client('starttls');

    $c->greeting();
    unlike($c->ehlo(), qr/AUTH/, 'AUTH-8 not offered in clear');

    like($c->cmd("AUTH $_"), qr/^538 5\.7\.11 /, "AUTH-8 $_ in clear")
        for @MECHANISMS, 'EXTERNAL', 'OAUTHBEARER', 'XOAUTH2';
    like($c->auth_plain('alice@example.com', $PASSWORD), qr/^538 5\.7\.11 /,
        'AUTH-8 with the password at once');
    like($c->cmd('MAIL FROM:<a@example.com>'), qr/^530 5\.7\.0 /,
        'AUTH-8 no mail without');

    like($c->starttls(), qr/^220 /, 'AUTH-8 STARTTLS');
    like($c->ehlo(), qr/^250.AUTH SCRAM-SHA-256 PLAIN LOGIN CRAM-MD5$/m,
        'AUTH-8 offered within');
    like(sasl('PLAIN')->login($c), qr/^235 /, 'AUTH-8 and accepted');
}


# AUTH-9

sub disabled {
    for my $only (@MECHANISMS) {
        my $c = $t->session(port($only));
        my ($offered) = $c->ehlo() =~ /^250.AUTH (.*)$/m;

        is($offered, $only, "AUTH-9 $only alone is offered");

        like($c->cmd("AUTH $_"), qr/^504 5\.5\.4 /, "AUTH-9 $only, not $_")
            for grep { $_ ne $only } @MECHANISMS, 'SCRAM-SHA-256-PLUS',
                'EXTERNAL', 'XOAUTH2', 'OAUTHBEARER', 'GSSAPI', 'NTLM',
                substr($only, 0, -1), "${only}X";
        like(sasl($only)->login($c, name => lc $only), qr/^235 /,
            "AUTH-9 \L$only\E is");
    }
}


# AUTH-10

sub sequence {
    for my $mechanism (@MECHANISMS) {
        my $c = $t->client('file');
        my $command = "AUTH $mechanism";

        $c->greeting();
        like($c->cmd($command), qr/^503 5\.5\.1 /, "AUTH-10 $command first");
        like($c->cmd('HELO client.example'), qr/^250 /, 'AUTH-10 HELO');
        like($c->cmd($command), qr/^503 5\.5\.1 /, "AUTH-10 HELO, $command");
        $c->ehlo();
        like(sasl($mechanism)->login($c), qr/^235 /, "AUTH-10 EHLO, $command");
        like($c->cmd($command), qr/^503 5\.5\.1 /, "AUTH-10 $command, twice");
        unlike($c->ehlo(), qr/AUTH/, 'AUTH-10 nor offered then');
        like($c->cmd('MAIL FROM:<a@example.com>'), qr/^250 /, 'AUTH-10 MAIL');
        like($c->cmd($command), qr/^503 5\.5\.1 /, "AUTH-10 MAIL, $command");
        like($c->cmd('RCPT TO:<b@example.net>'), qr/^250 /,
            'AUTH-10 and the transaction goes on');
    }
}
