#!/usr/bin/perl

# AUTH as RFC 4954 has it, with each mechanism: initial responses, responses
# that are not base64 or very long, at each step; AUTH where it has no place;
# and after each mechanism that failed, each other one.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use MIME::Base64 qw(encode_base64);
use Test::More;

use MailPolicy;
use MailPolicy::AuthMatrix;

my $t = MailPolicy->new();
my $relay = $t->run_relay(name => 'relay');
my $matrix = MailPolicy::AuthMatrix->new($t, providers => [ 'file', 'http' ]);

$t->conf($matrix->conf(<<'EOF'));

    policy_auth      file:%%DIR%%/users;
    proxy_pass       127.0.0.1:%%PORT_relay%%;
    max_errors       1000;

    server {
        listen               127.0.0.1:%%PORT_all_tls%% ssl;
        protocol             smtp;
        policy_auth          file:%%DIR%%/users
                             http://127.0.0.1:%%PORT_auth%%;
        policy_auth_methods  plain login cram-md5 scram-sha-256
                             scram-sha-256-plus xoauth2 oauthbearer external;
    }

    server {
        listen     127.0.0.1:%%PORT_old%%;
        protocol   smtp;
        smtp_auth  login cram-md5;
    }

    server {
        listen                 127.0.0.1:%%PORT_closed%%;
        protocol               smtp;
        policy_auth_plaintext  off;
    }
EOF
$t->run_nginx();

my $INVALID = '535 5.7.8 Authentication credentials invalid';
my $DONE = '235 2.7.0 Authentication successful';
my $BASE64 = '501 5.5.2 Invalid base64';

my @MECHANISMS = MailPolicy::Sasl::names();
my %cell = map { $_ => { provider => 'all', mode => 'tls', mechanism => $_,
    user => $matrix->USER } } @MECHANISMS;


# all of them can be used in it

sub session {
    return $matrix->session($cell{EXTERNAL});
}


sub good  { return $matrix->sasl($cell{ $_[0] }) }
sub wrong { return $matrix->wrong($cell{ $_[0] }) }


# a session in which the n-th 334 of a mechanism was said; its good client

sub at_step {
    my ($mechanism, $n) = @_;

    my $c = session();
    my $sasl = good($mechanism);

    $sasl->login($c, stop => $n);
    return ($c, $sasl);
}


sub goes_on {
    my ($c, $name) = @_;

    like($c->cmd('NOOP'), qr/^250 /, "$name: the session goes on");
    is(good('PLAIN')->login($c), $DONE, "$name: to a login");
    $c->quit();
}


# names

my $c = session();
my ($offered) = $c->{offered} =~ /^250.AUTH (.*)$/m;
is(join(' ', sort split / /, $offered), "@MECHANISMS", 'all are offered');

for my $mechanism (@MECHANISMS) {
    is(good($mechanism)->login(session(), name => lc $mechanism), $DONE,
        "$mechanism: in lower case");
}

like($c->cmd("AUTH $_"), qr/^504 5\.5\.4 /, "AUTH-9 no mechanism: $_")
    for qw(NTLM PLAI PLAINX SCRAM-SHA-1 SCRAM-SHA-256- ANONYMOUS =);
like($c->cmd('AUTH'), qr/^501 5\.5\.4 /, 'no mechanism at all');
goes_on($c, 'AUTH-9');

$c = $t->session('old');
like($c->ehlo(), qr/^250.AUTH LOGIN CRAM-MD5$/m, "nginx's own smtp_auth");
like($c->cmd("AUTH $_"), qr/^504 5\.5\.4 /, "AUTH-9 not enabled: $_")
    for qw(PLAIN SCRAM-SHA-256 SCRAM-SHA-256-PLUS XOAUTH2 OAUTHBEARER
        EXTERNAL);
is(good('CRAM-MD5')->login($c), $DONE, 'AUTH-9 an enabled one');

$c = $t->session('closed');
unlike($c->ehlo(), qr/AUTH/, 'AUTH-8 nothing is offered in clear');
like($c->cmd("AUTH $_"), qr/^538 5\.7\.11 /, "AUTH-8 in clear: $_")
    for @MECHANISMS;


# initial responses

for my $mechanism (@MECHANISMS) {
    my $expected = {
        EXTERNAL   => qr/^\Q$DONE\E\z/,
        LOGIN      => qr/^334 UGFzc3dvcmQ6\z/,
        'CRAM-MD5' => qr/^501 5\.7\.0 /,
    }->{$mechanism} // qr/^\Q$INVALID\E\z/;

    like(session()->cmd("AUTH $mechanism ="), $expected,
        "$mechanism: an empty initial response");
}

$c = session();
like($c->cmd('AUTH CRAM-MD5 ' . encode_base64('x y', '')), qr/^501 5\.7\.0 /,
    'CRAM-MD5: the server speaks first');
is(good('CRAM-MD5')->login($c), $DONE, 'CRAM-MD5: so it does');

is(good('LOGIN')->login(session(), initial => 1), $DONE,
    'LOGIN: the login as initial response');
is(session()->cmd('AUTH PLAIN   '
    . encode_base64(good('PLAIN')->respond(), '')), $DONE, 'spaces between');


# no octets, and one: nothing that a mechanism could go on with

for my $mechanism (@MECHANISMS) {
    for my $n (1 .. good($mechanism)->steps()) {
        for my $response ('', '=', 'AA==', 'AQ==') {
            my ($c) = at_step($mechanism, $n);
            my $reply = $c->cmd($response);

            # LOGIN: the login, which is none, is told with the password
            $reply = $c->cmd('AA==')
                if $mechanism eq 'LOGIN' && $n == 1 && $reply =~ /^334/;

            is($reply, good_empty($mechanism, $n, $response) ? $DONE
                : $INVALID, "AUTH-6 $mechanism: \"$response\" at $n");
            $c->quit();
        }
    }
}


# where a response is to have no octets

sub good_empty {
    my ($mechanism, $n, $response) = @_;

    return $response =~ /^=?\z/ && ($mechanism eq 'EXTERNAL'
        || ($mechanism =~ /^SCRAM/ && $n == 3));
}


# what is not base64

for my $mechanism (@MECHANISMS) {
    for my $n (1 .. good($mechanism)->steps()) {
        for my $response ('!!!!', 'A', 'AAA', 'AB=C', 'AB==', '====', 'AA=A',
            '**', '* ', ' AAAA', 'AAAA AAAA', "AAAA\t", 'AAA_', "AA\x80A")
        {
            my ($c, $sasl) = at_step($mechanism, $n);
            my $name = $response =~ s/([^ -~])/'\\' . ord($1)/ger;

            like($c->cmd($response), qr/^501 5\.5\.2 /,
                "AUTH-6 $mechanism: \"$name\" at $n");
            is($sasl->login($c), $DONE,
                "AUTH-6 $mechanism: good after \"$name\" at $n");
            $c->quit();
        }
    }

    is(session()->cmd("AUTH $mechanism $_"), $BASE64,
        "AUTH-6 $mechanism: initial response \"$_\"")
        for '!!!!', 'AAAA AAAA', '==';
}


# long ones

for my $mechanism (@MECHANISMS) {
    for my $n (1 .. good($mechanism)->steps()) {
        my ($c) = at_step($mechanism, $n);
        my $reply = $c->cmd('A' x 12288);

        $reply = $c->cmd('AA==') if $mechanism eq 'LOGIN' && $n == 1;
        is($reply, $INVALID, "AUTH-6 $mechanism: 12,288 octets at $n");

        ($c) = at_step($mechanism, $n);
        like($c->cmd('A' x 20_000), qr/^500 5\.5\.2 /,
            "AUTH-6 $mechanism: too long at $n");
        goes_on($c, "AUTH-6 $mechanism: too long at $n");
    }
}

for my $mechanism (qw(XOAUTH2 OAUTHBEARER)) {
    for my $initial (0, 1) {
        my $sasl = $matrix->sasl($cell{$mechanism}, token => $matrix->LONG);
        is($sasl->login(session(), initial => $initial), $DONE,
            "AUTH-6 $mechanism: a token of 8,192 octets");
    }
}


# AUTH-20, RFC 7628: what is wrong is told, and whatever a client says to
# that ends it; the forms of a first message

for my $mechanism (qw(XOAUTH2 OAUTHBEARER)) {
    for my $answer ('', '=', 'AQ==', 'AA==', 'eA==',
        encode_base64(good($mechanism)->respond(), ''))
    {
        my $c = session();
        my $reply = $c->cmd(wrong($mechanism)->command(undef, 1));

        is($reply, '334 ' . encode_base64('{"status":"invalid_token"}', ''),
            "AUTH-20 $mechanism: why it is refused");
        is($c->cmd($answer), $INVALID, "AUTH-20 $mechanism: \"$answer\"");
        is(good($mechanism)->login($c), $DONE, "AUTH-20 $mechanism: good");
        $c->quit();
    }

    my $c = session();
    $c->cmd(wrong($mechanism)->command(undef, 1));
    like($c->cmd($_), qr/^501 /, "AUTH-20 $mechanism: \"$_\"")
        for '*', "AUTH $mechanism !";
    goes_on($c, "AUTH-20 $mechanism");
}

my $USER = $matrix->USER;
my $TOKEN = $matrix->TOKEN;

for my $case ([ 1, "n,a=$USER,\1auth=Bearer $TOKEN\1\1" ],
    [ 1, "y,a=$USER,\1auth=bearer  $TOKEN\1\1" ],
    [ 1, "n,a=$USER,\1host=a.example\1port=587\1auth=Bearer $TOKEN\1\1" ],
    [ 1, "n,a=$USER,\1auth=Bearer $TOKEN\1x=y\1\1" ],
    [ 0, "p=tls-exporter,a=$USER,\1auth=Bearer $TOKEN\1\1" ],
    [ 0, "n,a=$USER,\1auth=Basic $TOKEN\1\1" ],
    [ 0, "n,a=$USER,\1auth=Bearer $TOKEN\1" ],
    [ 0, "n,a=$USER,\1auth=Bearer $TOKEN\1\1x" ],
    [ 0, "n,a=$USER,\1auth=Bearer $TOKEN\1auth=Bearer $TOKEN\1\1" ],
    [ 0, "n,a=$USER,\1host=a.example\1\1" ],
    [ 0, "n,a=$USER,\1\1" ],
    [ 0, "n,a=$USER\r\n,\1auth=Bearer $TOKEN\1\1" ],
    [ 0, "n,$USER,\1auth=Bearer $TOKEN\1\1" ],
    [ 0, "user=$USER\1auth=Bearer $TOKEN\1\1" ])
{
    my ($good, $message) = @$case;

    is(session()->cmd('AUTH OAUTHBEARER ' . encode_base64($message, '')),
        $good ? $DONE : $INVALID,
        'AUTH-20 ' . ($message =~ s/$TOKEN/.../gr =~ s/[^ -~]/^/gr));
}


# AUTH-10

$c = $t->client('file_plain');
$c->greeting();
like($c->cmd('AUTH PLAIN'), qr/^503 5\.5\.1 /, 'AUTH-10 before EHLO');
$c->cmd('HELO client.example');
like($c->cmd('AUTH PLAIN'), qr/^503 5\.5\.1 /, 'AUTH-10 behind HELO');

for my $mechanism (@MECHANISMS) {
    my $c = session();
    is(good($mechanism)->login($c), $DONE, "$mechanism: good");
    unlike($c->ehlo(), qr/AUTH/, "AUTH-10 $mechanism: not offered again");
    like($c->cmd("AUTH $_"), qr/^503 5\.5\.1 /,
        "AUTH-10 $_ behind $mechanism") for @MECHANISMS;
    like($c->cmd('MAIL FROM:<a@example.com>'), qr/^250 /, 'MAIL');
    like($c->cmd("AUTH $mechanism"), qr/^503 5\.5\.1 /,
        "AUTH-10 $mechanism: in a transaction");
    like($c->cmd('RCPT TO:<b@example.net>'), qr/^250 /, 'which goes on');
    $c->quit();
}


# AUTH-4 nothing is left of a mechanism that failed, or was cancelled

for my $first (@MECHANISMS) {
    for my $second (@MECHANISMS) {
        my $c = session();
        my $name = "AUTH-4 $first, $second";

        is(wrong($first)->login($c), $INVALID, "$name: failed");
        like(good($first)->login($c, cancel => good($first)->steps()),
            qr/^501 5\.7\.0 /, "$name: cancelled");
        is(wrong($second)->login($c), $INVALID, "$name: failed, too");
        is(good($second)->login($c), $DONE, "$name: good");
        $c->quit();
    }
}

$t->done();
