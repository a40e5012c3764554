#!/usr/bin/perl

# SCRAM-SHA-256 and -PLUS, RFC 5802, 7677, 9266: the arithmetic with the keys
# of RFC 7677, channel bindings and their downgrade, messages that are not
# what they should be, and identities.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use MIME::Base64 qw(decode_base64 encode_base64);
use Test::More;

use MailPolicy;
use MailPolicy::AuthMatrix;
use MailPolicy::Sasl;

my $t = MailPolicy->new();
my $relay = $t->run_relay(name => 'relay');
my $matrix = MailPolicy::AuthMatrix->new($t, providers => [ 'file' ]);

my $PASSWORD = $matrix->PASSWORD;
my $SALT = decode_base64('W22ZaJ0SNY7soEsUEjb6gQ==');

# of RFC 7677, section 3
my $PENCIL = '{SCRAM-SHA-256}4096,W22ZaJ0SNY7soEsUEjb6gQ==,'
    . 'WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=,'
    . 'wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=';

$t->write_file('more', "user:$PENCIL\n"
    . "a,b=c\@example.com:" . MailPolicy::Sasl::secret($PASSWORD, $SALT, 4096)
    . ":senders=list\@example.net,x=y\@example.net,*\@lists.example.com\n");

$matrix->{ca}->openssl('req', '-x509', '-newkey', 'ec', '-pkeyopt',
    'ec_paramgen_curve:P-256', '-nodes', '-days', '2', '-subj',
    '/CN=localhost', '-sha384', '-keyout', $t->dir() . '/sha384.key', '-out',
    $t->dir() . '/sha384.crt');

$t->conf($matrix->conf(<<'EOF'));

    proxy_pass  127.0.0.1:%%PORT_relay%%;
    max_errors  1000;

    log_format  who  '$sender|$sasl_method|$sasl_username|$sasl_authzid';
    access_log  %%DIR%%/who.log who;

    server {
        listen               127.0.0.1:%%PORT_more%% ssl;
        protocol             smtp;
        policy_auth          file:%%DIR%%/more;
        policy_auth_methods  plain scram-sha-256 scram-sha-256-plus;
        policy_sender        own;
    }

    server {
        listen               127.0.0.1:%%PORT_bare%% ssl;
        protocol             smtp;
        policy_auth          file:%%DIR%%/more;
        policy_auth_methods  scram-sha-256;
    }

    server {
        listen               127.0.0.1:%%PORT_sha384%% ssl;
        protocol             smtp;
        ssl_certificate      %%DIR%%/sha384.crt;
        ssl_certificate_key  %%DIR%%/sha384.key;
        policy_auth          file:%%DIR%%/more;
        policy_auth_methods  scram-sha-256 scram-sha-256-plus;
    }
EOF
$t->run_nginx();

my $INVALID = '535 5.7.8 Authentication credentials invalid';
my $DONE = '235 2.7.0 Authentication successful';
my ($S, $P) = ('SCRAM-SHA-256', 'SCRAM-SHA-256-PLUS');


sub session {
    my ($where, %ssl) = @_;

    return $t->session($where, tls => 1, ssl => {
        SSL_reuse_ctx => $matrix->context(), %ssl });
}


sub client {
    my ($mechanism, %option) = @_;

    return MailPolicy::Sasl->new($mechanism, user => 'user',
        password => 'pencil', %option);
}


# the last reply, and how many challenges came before

sub ends {
    my ($where, $reply, $challenges, $name, $mechanism, %option) = @_;

    my $c = session($where);
    my $sasl = client($mechanism, %option);

    is($sasl->login($c), $reply, $name);
    is(scalar $sasl->challenges(), $challenges, "$name: challenges");
    is(client($mechanism)->login($c), $DONE, "$name: then a good one")
        if $reply ne $DONE;
    $c->quit();
}


# RFC 7677, section 3: only the server's half of the nonce is another one

for my $initial (0, 1) {
    my $sasl = client($S, nonce => 'rOprNGfwEbeRWgbNEkqO');

    is($sasl->login(session('more'), initial => $initial), $DONE, 'pencil');
    like(($sasl->challenges())[-2], qr/^r=rOprNGfwEbeRWgbNEkqO[!-+\x2d-~]{16,}
        ,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096\z/x, 'server-first');
    ok($sasl->proved(), 'ServerSignature');
    is(client($S, password => 'Pencil')->login(session('more')), $INVALID,
        'not pencil');
}

my ($one, $two) = map {
    my $sasl = client($S, nonce => 'same');
    $sasl->login(session('more'));
    ($sasl->challenges())[1];
} 1, 2;
isnt($one, $two, 'AUTH-13 the server has a nonce of its own each time');


# channel bindings

for my $where (qw(more sha384)) {
    for my $version (qw(TLSv1_2 TLSv1_3)) {
        for my $binding (qw(tls-exporter tls-server-end-point)) {
            my $sasl = client($P, binding => $binding);
            my $c = session($where, SSL_reuse_ctx => undef,
                SSL_version => $version);
            my $name = "AUTH-12 $where, $version, $binding";

            is($sasl->login($c), $DONE, $name);
            ok($sasl->proved(), "$name: proved");
        }
    }
}

ends('more', $INVALID, 2, "AUTH-12 $_: of another connection", $P,
    channel => "p=$_,," . 'x' x 32, binding => $_)
    for qw(tls-exporter tls-server-end-point);
ends('more', $INVALID, 2, 'AUTH-12 -PLUS, and c= has no octets of it', $P,
    channel => 'p=tls-exporter,,');
ends('more', $INVALID, 2, 'AUTH-12 -PLUS, and c= is that of "n"', $P,
    channel => 'n,,');
ends('more', $INVALID, 2, 'AUTH-12 c= says "y"', $S, channel => 'y,,');
ends('more', $INVALID, 2, 'AUTH-12 c= has more behind', $S,
    channel => 'n,,x');
ends('more', $INVALID, 1, "AUTH-12 $_: is not known", $P, binding => $_,
    channel => '') for qw(tls-unique tls-exporter2 TLS-EXPORTER x);

ends('more', $INVALID, 1, 'AUTH-12 "y" where -PLUS was offered', $S,
    flag => 'y');
ends('more', $INVALID, 1, "AUTH-12 -PLUS with \"$_\"", $P, flag => $_)
    for qw(n y);
ends('more', $INVALID, 1, 'AUTH-12 a binding without -PLUS', $S,
    binding => 'tls-exporter');
is(client($S, flag => 'y')->login(session('bare')), $DONE,
    'AUTH-12 "y" where -PLUS is not offered');
is(client($S, flag => 'y', user => $matrix->USER, password => $PASSWORD)
    ->login($matrix->session({ provider => 'file', mode => 'plain',
    mechanism => $S })), $DONE, 'AUTH-12 "y" where there is no TLS');
like($matrix->session({ provider => 'file', mode => 'plain',
    mechanism => $S })->cmd("AUTH $P"), qr/^504 5\.5\.4 /,
    'AUTH-12 no -PLUS without TLS');


# AUTH-13 messages: what spoil makes of each step's

my @SPOILT = (
    [ 'nonce: one octet differs',   1, qr/r=(.)/, 'r=_' ],
    [ 'nonce: one less',            1, qr/.,p=/, ',p=' ],
    [ 'nonce: one more',            1, qr/,p=/, 'x,p=' ],
    [ 'nonce: of the client alone', 1, qr/r=same[^,]*/, 'r=same' ],
    [ 'no nonce',                   1, qr/,r=[^,]*/, '' ],
    [ 'no proof',                   1, qr/,p=.*/, '' ],
    [ 'proof: one octet differs',   1, qr/p=./, 'p=_' ],
    [ 'proof: short',               1, qr/p=..../, 'p=' ],
    [ 'proof: empty',               1, qr/p=.*/, 'p=' ],
    [ 'no channel',                 1, qr/^c=[^,]*,/, '' ],
    [ 'm= in the last one',         1, qr/,p=/, ',m=x,p=' ],
    [ 'm= at its beginning',        1, qr/^/, 'm=x,' ],
    [ 'm= in the first one',        0, qr/n=user/, 'm=x,n=user' ],
    [ 'm= at its end',              0, qr/\z/, ',m=x' ],
    [ 'no user',                    0, qr/n=user/, 'n=' ],
    [ 'no r=',                      0, qr/,r=.*/, '' ],
    [ 'no nonce in r=',             0, qr/,r=.*/, ',r=' ],
    [ 'nonce with a space',         0, qr/r=/, 'r= ' ],
    [ 'nonce: 257 octets',          0, qr/r=.*/, 'r=' . 'n' x 257 ],
    [ 'no header',                  0, qr/^n,,/, '' ],
    [ 'a= without a name',          0, qr/^n,,/, 'n,a=,' ],
    [ 'authzid without a=',         0, qr/^n,,/, 'n,user,' ],
    [ '"=" that encodes nothing',   0, qr/user/, 'us=er' ],
    [ '"=2c" in lower case',        0, qr/user/, 'us=2cer' ],
    [ 'NUL in a name',              0, qr/user/, "us\0er" ],
    [ 'control octet in a name',    0, qr/user/, "us\1er" ],
    [ 'no UTF-8',                   0, qr/user/, "us\xffer" ],
    [ 'the last one first',         0, qr/.*/s, 'c=biws,r=same,p=' . 'A' x 43
                                                . '=' ],
    [ 'the first one again',        1, qr/.*/s, 'n,,n=user,r=same' ],
    [ 'octets at the end',          2, qr/\z/, 'x' ],
    [ 'the last one again',         2, qr/\z/, 'c=biws,r=same,p=' . 'A' x 43
                                               . '=' ],
);

for my $case (@SPOILT) {
    my ($name, $at, $from, $to) = @$case;
    my $spoil = sub {
        my ($message, $step) = @_;
        return $step == $at ? $message =~ s/$from/$to/r : $message;
    };

    ends('more', $INVALID, $at + 1, "AUTH-13 $name", $S, spoil => $spoil,
        nonce => 'same');
}

ends('more', $DONE, 3, 'AUTH-13 another extension', $S, extension => 'x=yz');


# identities: own, owned, not owned; PLAIN and SCRAM alike

my $LOGIN = 'a,b=c@example.com';
my $NOT_OWN = qr/^553 5\.7\.1 /;
my $OK = qr/^250 /;

for my $mechanism ('PLAIN', $S, $P) {
    for my $case ([ $LOGIN, 'list@example.net', 'bob@example.com' ],
        [ 'x=y@example.net', 'x=y@example.net', 'list@example.net' ],
        [ 'x@lists.example.com', 'X@lists.example.com',
            'y@lists.example.com' ])
    {
        my ($authzid, $own, $not) = @$case;
        my $acts = $authzid eq $LOGIN ? '-' : $authzid;
        my $c = session('more');

        is(client($mechanism, user => $LOGIN, password => $PASSWORD,
            authzid => $authzid)->login($c), $DONE,
            "$mechanism: acts as $authzid");
        like($c->cmd("MAIL FROM:<$not>"), $NOT_OWN,
            "AUTH-22 $mechanism as $authzid: $not");
        like(($c->send_mail($own, [ 'bob@example.net' ], "x\n"))[-1], $OK,
            "AUTH-22 $mechanism as $authzid: $own");
        $c->quit();

        is((split /\n/, $t->read_file('who.log'))[-1],
            "$own|$mechanism|$LOGIN|$acts", "$mechanism as $authzid: log");
    }

    for my $authzid ('user', 'bob@example.com', 'x@lists.example.org',
        'LIST', "list\@example.net\r\n", ' list@example.net', 'x' x 300)
    {
        my $c = session('more');
        is(client($mechanism, user => $LOGIN, password => $PASSWORD,
            authzid => $authzid)->login($c), $INVALID,
            "$mechanism: not as " . substr($authzid =~ s/\r\n//r, 0, 20));
        is(client($mechanism)->login($c), $DONE, 'then as nobody else');
        $c->quit();
    }
}

$t->done();
