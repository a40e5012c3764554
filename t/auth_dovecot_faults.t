#!/usr/bin/perl

# A Dovecot that says what a Dovecot does not say.  Nobody is logged in but
# by an OK for the very request that was made for them.

use strict;
use warnings;

use FindBin qw($Bin);
use lib "$Bin/../tests/lib";

use MIME::Base64 qw(encode_base64);
use Test::More;

use MailPolicy;
use MailPolicy::FakeDovecot;
use MailPolicy::Sasl;

my $t = MailPolicy->new();
my $alice = 'alice@example.com';
my $user = "user=$alice";
my $long = 'x' x 300;
my $json = '{"status":"401","openid-configuration":"https://example.com/"}';
my ($first, @waiting);

# each an answer to AUTH, and what the client is to hear

my $wrong = qr/^535 5\.7\.8 /;
my $later = qr/^454 4\.7\.0 /;

my %plain = (
    good       => [ qr/^235 /, sub { "OK\t$_[0]\t$user\n" } ],
    unknown    => [ qr/^235 /, sub { "NEWS\t$_[0]\tx\n\nOK\t$_[0]\t$user\n" } ],
    extra      => [ qr/^235 /, sub { "OK\t$_[0]\tx=\t=\t\t$user\t\n" } ],
    twice      => [ qr/^235 /, sub { "OK\t$_[0]\t$user\n" x 2 } ],
    halves     => [ qr/^235 /, sub { "OK\t$_[0]\tuser=al", \0.3,
        "ice\@example.com", \0.1, "\n" } ],
    half       => [ $later, sub { "OK\t$_[0]\t$user", 'CLOSE' } ],
    nul        => [ $later, sub { "OK\t$_[0]\t$user\0\n" } ],
    nonsense   => [ $later, sub { "\x00\xff\xfe\n" } ],
    carriage   => [ $later, sub { "OK\t$_[0]\r\n" } ],
    id_next    => [ $later, sub { "OK\t" . ($_[0] + 1) . "\t$user\n" } ],
    id_none    => [ $later, sub { "OK\t$user\n" } ],
    id_zero    => [ $later, sub { "OK\t0\t$user\n" } ],
    id_signed  => [ $later, sub { "OK\t+$_[0]\t$user\n" } ],
    id_wide    => [ $later, sub { "OK\t" . ($_[0] + 2 ** 32) . "\t$user\n" } ],
    id_cont    => [ $later, sub { "CONT\t99999\tPDE+\n" } ],
    no_user    => [ $later, sub { "OK\t$_[0]\n" } ],
    user_empty => [ $later, sub { "OK\t$_[0]\tuser=\n" } ],
    user_bare  => [ $later, sub { "OK\t$_[0]\tuser\n" } ],
    user_tab   => [ $later, sub { "OK\t$_[0]\tuser=a\001tb\n" } ],
    user_lf    => [ $later, sub { "OK\t$_[0]\tuser=a\001n235 x\n" } ],
    user_nul   => [ $later, sub { "OK\t$_[0]\tuser=a\0010b\n" } ],
    user_utf8  => [ $later, sub { "OK\t$_[0]\tuser=\xff\xfe\n" } ],
    user_long  => [ $later, sub { "OK\t$_[0]\tuser=$long\n" } ],
    user_cut   => [ $later, sub { "OK\t$_[0]\tuser=a\001\n" } ],
    long       => [ $later, sub { "OK\t$_[0]\t$user\tx=" . 'x' x 102400
        . "\n" } ],
    endless    => [ $later, sub { 'OK' . 'x' x 65536 } ],
    cont       => [ $later, sub { "CONT\t$_[0]\t\n" } ],
    gone       => [ $later, sub { 'CLOSE' } ],
    fail       => [ $wrong, sub { "FAIL\t$_[0]\t$user\n" } ],
    fail_ok    => [ $wrong, sub { "FAIL\t$_[0]\nOK\t$_[0]\t$user\n" } ],
    reason     => [ $wrong, sub { "FAIL\t$_[0]\treason=x\n" } ],
    authz      => [ $wrong, sub { "FAIL\t$_[0]\tcode=authz_fail\treason=x\n" } ],
    temp       => [ $later, sub { "FAIL\t$_[0]\ttemp\n" } ],
    temp_fail  => [ $later, sub { "FAIL\t$_[0]\tcode=temp_fail\n" } ],
    disabled   => [ $wrong, sub { "FAIL\t$_[0]\tcode=user_disabled\n" } ],
    why        => [ qr/^535 5\.7\.13 a  b\?\?235 c\?\z/, sub {
        "FAIL\t$_[0]\tcode=user_disabled\treason=a\001t b\001r\001n235 c\xe9\n"
        } ],
    why_long   => [ qr/^535 5\.7\.13 x{200}\z/, sub {
        "FAIL\t$_[0]\tcode=pass_expired\treason=$long\n" } ],
    why_old    => [ qr/^535 5\.7\.13 Gone\z/, sub {
        "FAIL\t$_[0]\tuser_disabled\treason=Gone\n" } ],
    nologin    => [ qr/^535 5\.7\.13 Not here\z/, sub {
        "OK\t$_[0]\t$user\tnologin\treason=Not here\n" } ],
    host       => [ $later, sub { "OK\t$_[0]\t$user\thost=a:25\n" } ],
    port       => [ $later, sub { "OK\t$_[0]\t$user\thost=a\tport=x\n" } ],
);

my %token = (
    token_ok   => [ $later, sub { "CONT\t$_[0]\t" . b64($json) . "\n" },
        sub { "OK\t$_[0]\t$user\n" } ],
    token_cont => [ $later, sub { "CONT\t$_[0]\t" . b64($json) . "\n" },
        sub { "CONT\t$_[0]\t" . b64($json) . "\n" } ],
    token_fail => [ $wrong, sub { "CONT\t$_[0]\t" . b64($json) . "\n" },
        sub { "FAIL\t$_[0]\n" } ],
    token_odd  => [ $wrong, sub { "CONT\t$_[0]\t" . b64("{\r\n}") . "\n" },
        sub { "FAIL\t$_[0]\n" } ],
);

my %dialogue = (
    cram_ok     => [ $later, sub { "OK\t$_[0]\t$user\n" } ],
    cram_fail   => [ $wrong, sub { "FAIL\t$_[0]\n" } ],
    cram_base64 => [ $later, sub { "CONT\t$_[0]\t!!!!\n" } ],
    cram_band   => [ $later, sub { "CONT\t$_[0]\t#\n" } ],
    cram_none   => [ $later, sub { "CONT\t$_[0]\n" } ],
    cram_early  => [ $later, sub {
        "CONT\t$_[0]\tPDE+\nOK\t$_[0]\t$user\n" } ],
    cram_cont   => [ $later, sub { "CONT\t$_[0]\tPDE+\n" },
        sub { "CONT\t$_[0]\tPDE+\n" } ],
    cram_gone   => [ $later, sub { "CONT\t$_[0]\tPDE+\n", 'CLOSE' } ],
    cram_good   => [ qr/^235 /, sub { "CONT\t$_[0]\tPDE+\n" },
        sub { "OK\t$_[0]\t$user\n" } ],
);

my %greeting = (
    version   => "VERSION\t2\t0\nMECH\tPLAIN\nDONE\n",
    versions  => "VERSION\t1\nMECH\tPLAIN\nDONE\n",
    none      => "MECH\tPLAIN\nDONE\n",
    http      => "HTTP/1.1 400 Bad Request\r\n\r\n",
    early     => "VERSION\t1\t2\nOK\t1\t$user\n",
    shut      => 'CLOSE',
    silence   => '',
);

my $fake = MailPolicy::FakeDovecot->new(dir => $t->dir(), modes => {
    (map { ($_ => { AUTH => $plain{$_}[1] }) } keys %plain),
    (map { ($_ => { AUTH => $token{$_}[1], CONT => $token{$_}[2] }) }
        keys %token),
    (map { ($_ => { AUTH => $dialogue{$_}[1],
        CONT => $dialogue{$_}[2] // sub { () } }) } keys %dialogue),
    (map { ("greeting_$_" => { greeting => $greeting{$_} }) } keys %greeting),
    no_mech => { greeting => "VERSION\t1\t2\nMECH\tLOGIN\nDONE\n" },
    quiet   => { AUTH => sub { () } },

    # the first one is kept waiting, and the second has its answer
    other   => { AUTH => sub {
        push @waiting, $_[0];
        return @waiting < 2 ? () : ("OK\t$waiting[0]\t$user\n",
            \0.3, "FAIL\t$waiting[1]\n") } },

    # an answer to a request that is over
    late    => { AUTH => sub {
        my $id = $first;
        $first //= $_[0];
        return defined $id ? ("OK\t$id\t$user\n", \0.3, "FAIL\t$_[0]\n")
            : "FAIL\t$_[0]\n" } },
});

# to one more there is no answer at all
my $mute = MailPolicy::FakeDovecot->new(dir => $t->dir(), name => 'mute',
    modes => { good => { AUTH => sub { () } } });

my $conf = join('', map { <<"EOF" } [ fake => $fake ], [ mute => $mute ]);
    server {
        listen      127.0.0.1:%%PORT_$_->[0]%%;
        protocol    smtp;
        policy_auth dovecot:unix:@{[ $_->[1]->socket() ]};
    }
EOF

$t->conf(<<"EOF");
mail {
    policy                on;
    policy_sender         own;
    policy_auth_methods   plain login cram-md5 xoauth2;
    policy_auth_plaintext on;
    policy_auth_delay     0;
    proxy_pass            127.0.0.1:1;
    server_name           edge.example;
    timeout               150s;
$conf
}
EOF
$t->run_nginx();

my $waits = $t->session('mute', timeout => 100);
$waits->send_raw('AUTH PLAIN ' . b64("\0$alice\0canary-m") . "\r\n");
my $begin = time();

for my $mode (sort keys %plain) {
    tried($mode, $plain{$mode}[0], sub {
        $t->session('fake')->auth_plain($alice, 'canary-p') });
}

for my $mode (sort keys %token) {
    my $s = MailPolicy::Sasl->new('XOAUTH2', user => $alice,
        token => 'canary-t');
    tried($mode, $token{$mode}[0], sub { $s->login($t->session('fake')) });
    is(($s->challenges())[-1], $json, 'the client is told why')
        if $mode eq 'token_fail';
    is(($s->challenges())[-1], '{"status":"invalid_token"}',
        'what is no line is not passed on') if $mode eq 'token_odd';
}

for my $mode (sort keys %dialogue) {
    my $s = MailPolicy::Sasl->new('CRAM-MD5', user => $alice,
        password => 'canary-c');
    tried($mode, $dialogue{$mode}[0], sub {
        my $c = $t->session('fake');
        my $reply = $s->login($c);
        $reply = $c->cmd('*') =~ s/^501.*/454 4.7.0 two challenges/r
            if $mode eq 'cram_cont' && $reply =~ /^334/;
        return $reply });
}

for my $mode (sort keys %greeting) {
    $fake->mode("greeting_$mode");
    like($t->session('fake')->auth_plain($alice, 'canary-p'), $later,
        "greeting, $mode");
    recovers();
}

$fake->mode('no_mech');
is($t->session('fake')->auth_plain($alice, 'canary-p'),
    '504 5.5.4 Authentication mechanism not available', 'no PLAIN');
is($t->session('fake')->auth_login($alice, 'canary-p'),
    '504 5.5.4 Authentication mechanism not available', 'LOGIN is PLAIN');

# answers go to whom they are for

$fake->mode('other');
my @c = map { $t->session('fake') } 1, 2;
$c[0]->send_raw('AUTH PLAIN ' . b64("\0$alice\0canary-p") . "\r\n");
$t->wait_for(sub { (grep { /^AUTH/ } $fake->lines())[-1] =~ /PLAIN/ });
sleep(1);
is($c[1]->auth_plain($alice, 'canary-q') =~ s/ .*//r, '535',
    'two at a time: no for the second');
is($c[0]->read_reply() =~ s/ .*//r, '235', 'and yes for the first');

$fake->mode('late');
like($t->session('fake')->auth_plain($alice, 'canary-p'), $wrong, 'a no');
like($t->session('fake')->auth_plain($alice, 'canary-p'), $wrong,
    'and a yes to that, which is not for the next one');

# who leaves

$fake->mode('cram_cont');
my $c = $t->session('fake');
like($c->cmd('AUTH CRAM-MD5'), qr/^334 /, 'a dialogue');
my ($id) = ($fake->lines())[-1] =~ /^AUTH\t(\d+)\t/;
$c->reset();
ok($t->wait_for(sub { ($fake->lines())[-1] eq "CANCEL\t$id" }),
    'who leaves it: Dovecot is told');

recovers();

# no answer

like($waits->read_reply(), $later, 'no answer at all');
cmp_ok(time() - $begin, '>=', 58, 'after a minute');
$mute->mode('other');
$mute->stop();

my $log = $t->error_log();
is(scalar(() = $log =~ /has no mechanism "PLAIN"/g) <= 1, 1,
    'what is wrong is not said each time');
like($log, qr/Dovecot at unix:\S+ is away: /, 'that it is away is');
like($log, qr/Dovecot at unix:\S+ is back/, 'and that it is back');
unlike($log, qr/canary/, 'OUT-2 no password in the log');

$t->disconnect();
$fake->stop();
$t->done();


# in that mode, over a new connection; afterwards all is well

sub tried {
    my ($mode, $want, $code) = @_;

    $fake->mode($mode);
    like($code->(), $want, $mode);
    recovers() if $want eq $later;
}


sub recovers {
    $fake->mode('good');
    ok($t->wait_for(sub {
        $t->session('fake')->auth_plain($alice, 'canary-p') =~ /^235 /
    }), 'and all is well again') or diag((split /\n/, $t->error_log())[-1]);
}


sub b64 { return encode_base64($_[0], '') }
