#!/usr/bin/perl

# Logins that Dovecot decides about: each mechanism good, wrong, cancelled and
# cut off, what comes with a login, and what never reaches Dovecot.

use strict;
use warnings;

use FindBin qw($Bin);
use lib "$Bin/../tests/lib";

use MIME::Base64 qw(encode_base64);
use Test::More;
use Time::HiRes qw(sleep);

use MailPolicy;
use MailPolicy::Authority;
use MailPolicy::Dovecot;
use MailPolicy::Sasl;

my $t = MailPolicy->new();

my $ca = MailPolicy::Authority->new($t, 'ca');
$ca->certificate('edge');
$ca->certificate('carol', names => [ 'email:carol@example.com' ]);

# a name with what a saslname escapes
my $odd = 'b=o,b@example.com';
my $alice = 'alice@example.com';
my $parallel = 200;

my $dovecot = MailPolicy::Dovecot->new(dir => $t->dir(),
    users => {
        $alice => 'canary-a', $odd => 'canary-b',
        'gone@example.com' => 'canary-g', 'closed@example.com' => 'canary-c',
        'routed@example.com' => 'canary-r', 'routed6@example.com' => 'canary-r',
        'lost@example.com' => 'canary-l', 'far@example.com' => 'canary-f',
        'many@example.com' => 'canary-m',
        map { ("u$_\@example.com" => "canary-$_") } 1 .. $parallel,
    },
    fields => {
        $alice => 'senders=alice@example.com,@example.net',
        'gone@example.com' => 'nologin=y reason=Closed_in_May',
        'closed@example.com' => 'nologin=y',
        'routed@example.com' => 'host=127.0.0.1 port=' . $t->port('other'),
        'routed6@example.com' => 'host=::1',
        'lost@example.com' => 'host=in_valid',
        'far@example.com' => 'host=127.0.0.1 port=65536',
        'many@example.com' => 'senders=' . '@a.example,' x 300,
    },
);

my $socket = $dovecot->socket();

my %relay = map { ($_ => $t->run_relay(name => $_)) } qw(relay other);
$t->conf(<<"EOF");
worker_processes 1;
mail {
    policy        on;
    policy_sender own;
    access_log    %%DIR%%/access.log json;
    server_name   edge.example;

    policy_auth_methods   plain login cram-md5 scram-sha-256 xoauth2
                          oauthbearer external;
    policy_auth_plaintext on;
    policy_auth_delay     0;

    map \$auth_relay \$relay {
        ""       127.0.0.1:%%PORT_relay%%;
        default  \$auth_relay;
    }

    proxy_pass    \$relay;

    server {
        listen 127.0.0.1:%%PORT_plain%%;
        protocol smtp;
        policy_auth dovecot:unix:$socket;
    }

    server {
        listen 127.0.0.1:%%PORT_tls%% ssl;
        protocol smtp;
        policy_auth dovecot:unix:$socket;

        ssl_certificate        %%DIR%%/edge.crt;
        ssl_certificate_key    %%DIR%%/edge.key;
        ssl_client_certificate %%DIR%%/ca.crt;
        ssl_verify_client      optional;
    }
}
EOF
$t->run_nginx();

my $wrong = '535 5.7.8 Authentication credentials invalid';
my @mechanisms = grep { !/PLUS|EXTERNAL/ } MailPolicy::Sasl::names();

# each mechanism, with and without an initial response

for my $name (@mechanisms) {
    for my $login ($alice, $odd) {
        my $password = $login eq $alice ? 'canary-a' : 'canary-b';
        next if $login ne $alice && $name =~ /XOAUTH2/;

        my $s = sasl($name, $login, $password, $dovecot->token($login));

        for my $initial (0 .. $s->has_initial()) {
            my $c = fresh();
            like($s->login($c, initial => $initial), qr/^235 2\.7\.0 /,
                "$name, $login" . ($initial ? ', initial response' : ''));
            ok($s->proved(), "$name: Dovecot knows the password, too")
                if $name =~ /SCRAM/;
        }
    }

    my $s = sasl($name, $alice, 'canary-x', $dovecot->token($alice,
        key => 'x'));
    my $c = fresh();

    is($s->login($c), $wrong, "$name, wrong");
    is((grep { /^\{/ } $s->challenges())[0] // '',
        $name eq 'XOAUTH2'
            ? '{"status":"401","schemes":"bearer","scope":"mail"}'
            : '{"status":"invalid_token"}',
        "AUTH-20 $name: what Dovecot has to say to the client")
        if $name =~ /XOAUTH2|BEARER/;
    is($s->login($c), $wrong, "$name, wrong again");
    is(sasl($name, 'nobody@example.com', 'x', $dovecot->token('n'))
        ->login($c), $wrong, "$name, nobody");
    like(sasl($name, $alice, 'canary-a', $dovecot->token($alice))->login($c),
        qr/^235 /, "$name, and then right");
}

is(sasl('XOAUTH2', $alice, '', $dovecot->token($alice, expired => 1))
    ->login(fresh()), $wrong, 'an old token');
is(sasl('OAUTHBEARER', $odd, '', $dovecot->token($alice))
    ->login(fresh()), $wrong, 'the token of somebody else');

# AUTH-4: one mechanism after the other in one session

for my $first (@mechanisms) {
    my $c = fresh();

    for my $second (@mechanisms) {
        is(sasl($first, $alice, 'canary-x', 'x.y.z')->login($c), $wrong,
            "AUTH-4 $first");
        $c = fresh() unless $c->cmd('NOOP') =~ /^250/;
        like(sasl($second, $alice, 'canary-a', $dovecot->token($alice))
            ->login($c), qr/^235 /, "AUTH-4 $second after it");
        $c = fresh();
    }
}

# AUTH-5: cancelled and cut off at each step

my $cancels = $dovecot->requests('CANCEL');

for my $name (@mechanisms) {
    my $s = sasl($name, $alice, 'canary-a', $dovecot->token($alice));

    for my $n (1 .. $s->steps()) {
        my $c = fresh();
        like($s->login($c, cancel => $n), qr/^501 5\.7\.0 /,
            "AUTH-5 $name cancelled at step $n");
        like($c->cmd('NOOP'), qr/^250 /, 'AUTH-5 the session goes on');

        is($s->login(fresh(), cut => $n), 'CUT',
            "AUTH-5 $name cut at step $n");
        is($s->login(fresh(), leave => $n), 'CUT',
            "AUTH-5 $name left after step $n");
    }
}

ok($t->wait_for(sub { $dovecot->requests('CANCEL') >= $cancels + 8 }),
    'AUTH-5 Dovecot is told');

# AUTH-6, AUTH-7: what is no message reaches nobody; the log may be late

for (1 .. 20) {
    my $seen = $dovecot->requests('AUTH');

    sleep(0.5);
    last if $seen == $dovecot->requests('AUTH');
}

my ($auth, $cont) = ($dovecot->requests('AUTH'), $dovecot->requests('CONT'));

like(fresh()->cmd("AUTH $_ !!!!"), qr/^501 5\.5\.2 /, "AUTH-7 $_: bad base64")
    for grep { $_ ne 'CRAM-MD5' } @mechanisms;
is(fresh()->cmd("AUTH $_ " . b64('nonsense')), $wrong,
    "AUTH-7 $_: no message") for grep { $_ !~ /CRAM|LOGIN/ } @mechanisms;
like(fresh()->cmd('AUTH CRAM-MD5 ' . b64('x y')), qr/^501 5\.7\.0 /,
    'CRAM-MD5: an initial response');
is(fresh()->cmd('AUTH PLAIN ='), $wrong, 'AUTH-6 no octets');
is(fresh()->auth_login($alice, "canary-a\0x"), $wrong, 'LOGIN: a NUL');
is(fresh()->auth_plain("a\tb", 'canary-a'), $wrong,
    'AUTH-1 a control octet');
is(fresh()->auth_plain("\xff\xfe", 'canary-a'), $wrong, 'AUTH-1 no UTF-8');

is(sasl('SCRAM-SHA-256', $alice, 'canary-a', '', flag => 'p=tls-unique')
    ->login(fresh()), $wrong, 'AUTH-12 a channel binding');
is(sasl('SCRAM-SHA-256', $alice, 'canary-a', '', authzid => $odd)
    ->login(fresh()), $wrong, 'SCRAM: acting for somebody else');

is($dovecot->requests('AUTH'), $auth, 'AUTH-7 Dovecot saw none of them');

my $c = fresh();
like($c->cmd('AUTH CRAM-MD5'), qr/^334 /, 'CRAM-MD5');
like($c->cmd('!!!!'), qr/^501 5\.5\.2 /, 'AUTH-7 CRAM-MD5: bad base64');
like($c->cmd('AUTH CRAM-MD5'), qr/^334 /, 'CRAM-MD5');
is($c->cmd(b64('no digest')), $wrong, 'AUTH-7 CRAM-MD5: no message');
like($c->cmd('AUTH SCRAM-SHA-256'), qr/^334 $/, 'SCRAM');
is($c->cmd(''), $wrong, 'AUTH-6 SCRAM: no octets');

is($dovecot->requests('CONT'), $cont, 'AUTH-7 nor of these');

like(sasl('SCRAM-SHA-256', $alice, 'canary-a', '', flag => 'y')->login($c),
    qr/^235 /, 'AUTH-12 "y" where -PLUS is not offered');
is(sasl('SCRAM-SHA-256', $alice, 'canary-a', '', channel => 'y,,')
    ->login(fresh()), $wrong, 'AUTH-12 another gs2 header');

$c = fresh();
is($c->auth_plain($alice, 'x' x 1024), $wrong, 'AUTH-6 a long password');
is(sasl('XOAUTH2', $alice, '', 'x' x 8192)->login($c), $wrong,
    'AUTH-6 a long token');
like($c->auth_plain($alice, 'canary-a', $alice), qr/^235 /,
    'acting for oneself');
is(fresh()->auth_plain('u1@example.com', 'canary-1', $alice),
    $wrong, 'and for somebody else');

# EXTERNAL: the name of a certificate of this connection

my %tls = (tls => 1, ssl => { SSL_verify_mode => 0 });
my %carol = (tls => 1, ssl => { SSL_verify_mode => 0,
    SSL_cert_file => $t->dir() . '/carol.crt',
    SSL_key_file => $t->dir() . '/carol.key' });

for my $initial (0, 1) {
    my $c = $t->session('tls', %carol);
    like(sasl('EXTERNAL')->login($c, initial => $initial), qr/^235 /,
        'EXTERNAL');
}

unlike($t->client('tls', %tls)->ehlo(), qr/EXTERNAL/,
    'AUTH-11 no certificate: not offered');
$auth = $dovecot->requests('AUTH');
unlike(sasl('EXTERNAL', undef, undef, undef, authzid => $alice)
    ->login($t->session('tls', %tls)), qr/^235/, 'AUTH-11 nor taken');
is($dovecot->requests('AUTH'), $auth, 'AUTH-11 Dovecot is not asked');
is(sasl('EXTERNAL', undef, undef, undef, authzid => $alice)
    ->login($t->session('tls', %carol)), $wrong, 'AUTH-11 another authzid');
like($dovecot->log(), qr/client in: AUTH\t\d+\tEXTERNAL\tservice=smtp(?#
    )\tsecured=tls\trip=127\.0\.0\.1\trport=\d+\tlip=127\.0\.0\.1\tlport=(?#
    )\d+\tvalid-client-cert\tcert_username=carol\@example\.com\tresp=/,
    'what Dovecot is told of the client');
like($t->session('tls', %carol)->auth_plain($alice, 'canary-a'), qr/^235 /,
    'PLAIN over TLS');
unlike($dovecot->log(), qr/\tPLAIN\t[^\n]*cert/,
    'a certificate is for EXTERNAL only');

# what comes with a login

$c = fresh();
like($c->auth_plain($alice, 'canary-a'), qr/^235 /, 'senders');
like($c->cmd("MAIL FROM:<$_>"), qr/^250 /, "may send from $_")
    and $c->cmd('RSET') for $alice, 'x@example.net';
like($c->cmd('MAIL FROM:<x@example.org>'), qr/^553 /, 'but not from others');

$c = fresh();
like($c->auth_plain('many@example.com', 'canary-m'), qr/^235 /,
    'too many senders');
like($c->cmd('MAIL FROM:<x@a.example>'), qr/^553 /, 'are none');

is(fresh()->auth_plain('gone@example.com', 'canary-g'),
    '535 5.7.13 Closed_in_May', 'a login that is not allowed: why');
is(fresh()->auth_plain('gone@example.com', 'canary-x'), $wrong,
    'and only who has the password is told');
is(fresh()->auth_plain('closed@example.com', 'canary-c'),
    '535 5.7.13 Login is not allowed', 'without a reason');
is(sasl('CRAM-MD5', 'gone@example.com', 'canary-g')
    ->login(fresh()), '535 5.7.13 Closed_in_May',
    'in a dialogue');
like(fresh()->auth_plain('lost@example.com', 'canary-l'), qr/^454 4\.7\.0 /,
    'a relay that is none');
like(fresh()->auth_plain('far@example.com', 'canary-f'),
    qr/^454 4\.7\.0 /, 'a port that is none');

for my $name ('routed@example.com', $alice) {
    my $c = fresh();
    $c->auth_plain($name, $name eq $alice ? 'canary-a' : 'canary-r');
    my @replies = $c->send_mail($name, [ 'b@example.org' ], "x\n");
    like($replies[-1], qr/^250 /, "a mail of $name");
    $c->quit();
}

$c = fresh();
like($c->auth_plain('routed6@example.com', 'canary-r'), qr/^235 /,
    'a relay with an address of IPv6');
$c->cmd('MAIL FROM:<routed6@example.com>');
$c->quit();

is(scalar($relay{other}->messages()), 1,
    'one went to the relay that Dovecot named');
is(scalar($relay{relay}->messages()), 1, 'the other one to the usual one');

# all at a time, over one connection

my @sessions = map { fresh() } 1 .. $parallel;
my $connections = () = $dovecot->log() =~ /auth client connected/g;

for my $n (1 .. $parallel) {
    my $password = 'canary-' . ($n % 3 ? $n : $n + 1);
    $sessions[$n - 1]->send_raw('AUTH PLAIN '
        . b64("\0u$n\@example.com\0$password") . "\r\n");
}

my @wrong = grep {
    $sessions[$_ - 1]->read_reply() !~ ($_ % 3 ? qr/^235 / : qr/^535 5\.7\.8 /)
} 1 .. $parallel;
is("@wrong", '', "$parallel logins at a time: each its own answer");

$_->reset() for @sessions;
@sessions = map { fresh() } 1 .. $parallel;
my @sasl = map {
    sasl('CRAM-MD5', "u$_\@example.com", 'canary-' . ($_ % 3 ? $_ : $_ + 1))
} 1 .. $parallel;

$_->send_raw("AUTH CRAM-MD5\r\n") for @sessions;

for my $n (reverse 1 .. $parallel) {
    my ($challenge) = $sessions[$n - 1]->read_reply() =~ /^334 (.*)/;
    $sessions[$n - 1]->send_raw(b64($sasl[$n - 1]->respond(
        MIME::Base64::decode_base64($challenge // ''))) . "\r\n");
}

@wrong = grep {
    $sessions[$_ - 1]->read_reply() !~ ($_ % 3 ? qr/^235 / : qr/^535 5\.7\.8 /)
} 1 .. $parallel;
is("@wrong", '', "$parallel dialogues at a time: each its own answer");
cmp_ok(scalar(() = $dovecot->log() =~ /auth client connected/g), '<',
    $connections + 20, 'over one connection, or one after the other');
$_->reset() for @sessions;

unlike($dovecot->log(), qr/BUG|Fatal|Panic/,
    'Dovecot has nothing to complain about');

# OUT-2

my $log = $t->error_log();
unlike($log, qr/canary/, 'OUT-2 no password in the log');
unlike($log, qr/eyJ/, 'OUT-2 no token');

$t->disconnect();
$t->done();

$dovecot->stop();


sub sasl {
    my ($name, $user, $password, $token, %option) = @_;

    return MailPolicy::Sasl->new($name, user => $user, password => $password,
        token => $token, %option);
}


sub fresh { return $t->session('plain') }


sub b64 { return encode_base64($_[0], '') }
