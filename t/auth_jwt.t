#!/usr/bin/perl

# "policy_auth jwt:": tokens of a program that nobody here wrote, with each
# algorithm; AUTH-16 to AUTH-18; a key set that changes.  What of a token is
# looked at has its table in jwt.t.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use IO::Socket::INET;
use JSON::PP ();
use MIME::Base64 qw(decode_base64 encode_base64 encode_base64url);
use Test::More;
use Time::HiRes qw(sleep time);

use MailPolicy;
use MailPolicy::Token qw(available hmac);

plan(skip_all => 'needs python3-jwt and python3-cryptography')
    unless available();

my $JSON = JSON::PP->new()->canonical()->utf8();
my $SECRET = 'canary-secret-of-32-octets-------';
my $USER = 'alice@example.com';

my $t = MailPolicy->new();
my $relay = $t->run_relay(name => 'relay');
my $tokens = MailPolicy::Token->new();

# one key for each algorithm, by whose name it goes

my %kind = (
    (map { $_ => 'RSA' } qw(RS256 RS384 RS512 PS256 PS384 PS512)),
    ES256 => 'P-256', ES384 => 'P-384', EdDSA => 'Ed25519',
);
my %secret = (HS256 => $SECRET, HS384 => $SECRET x 2, HS512 => $SECRET x 2);
my %jwk = (
    (map { $_ => { %{$tokens->key($_, $kind{$_})}, alg => $_, kid => $_ } }
        keys %kind),
    (map { $_ => { kty => 'oct', k => encode_base64url($secret{$_}),
        alg => $_, kid => $_ } } keys %secret),
);

my $next = { %{$tokens->key('next', 'P-256')}, alg => 'ES256',
    kid => 'next.1' };

write_keys(values %jwk, { kty => 'RSA', use => 'enc', alg => 'RSA-OAEP' });
$t->write_file('one.json', $JSON->encode({ keys => [ { kty => 'oct',
    alg => 'HS256', k => encode_base64url($SECRET) } ] }));
$t->write_file('users', "file\@example.com:{PLAIN}canary-p\n");

$t->conf(<<'EOF');
mail {
    server_name  edge.example.com;

    policy                 on;
    policy_auth_plaintext  on;
    policy_auth_methods    xoauth2 oauthbearer;
    proxy_pass             127.0.0.1:%%PORT_relay%%;
    access_log             %%DIR%%/access.log json;
    max_errors             1000;

    server {
        listen       127.0.0.1:%%PORT_jwt%%;
        protocol     smtp;
        policy_auth  jwt:main;
    }

    server {
        listen       127.0.0.1:%%PORT_sub%%;
        protocol     smtp;
        policy_auth  jwt:sub;
    }

    server {
        listen       127.0.0.1:%%PORT_both%%;
        protocol     smtp;
        policy_auth  jwt:sub file:%%DIR%%/users jwt:main;
        policy_auth_methods  plain xoauth2 oauthbearer;
    }

    policy_auth_jwt  main  keys=%%DIR%%/keys.json
                     issuer=https://login.example.com
                     audience=mail audience=smtp://edge.example.com;
    policy_auth_jwt  sub  keys=%%DIR%%/one.json issuer=https://other
                     audience=mail claim=sub leeway=0s;
}
EOF
$t->run_nginx();

# every algorithm, both mechanisms

for my $alg (sort keys %jwk) {
    my $key = $secret{$alg} // $alg;
    my $token = $tokens->sign($key, $alg, claims(), { kid => $alg });
    my $cut = $token;
    $cut =~ s/\.[^.]{4}([^.]*)$/.$1/;

    good($alg, XOAUTH2 => $USER, $token);
    good("$alg, no user said", OAUTHBEARER => '', $token);
    bad("AUTH-18 $alg, a truncated signature", 'the signature does not match',
        XOAUTH2 => $USER, $cut);
    bad("AUTH-18 $alg, another user", 'its user is not the one',
        XOAUTH2 => 'bob@example.com', $token);
    bad("AUTH-18 $alg, a signature of zeros", 'the signature does not match',
        XOAUTH2 => $USER, zeros($token));
}

# AUTH-18 the client's user and the token's are octets

my $token = token();

good('OAUTHBEARER with a user', OAUTHBEARER => $USER, $token);
bad('AUTH-18 a user in upper case', 'its user is not the one',
    OAUTHBEARER => 'Alice@example.com', $token);
bad('AUTH-18 a prefix of the user', 'its user is not the one',
    XOAUTH2 => 'alice@example.co', $token);

my $c = session('jwt');
like(auth($c, OAUTHBEARER => '', $token), qr/^235 /, 'login');
$c->send_mail('x@example.com', ['y@example.com'], "Subject: x\n\nx\n");
$c->quit();
like($t->read_file('access.log'), qr/"\Q$USER\E"/,
    'the login is that of the token');

# AUTH-16 the algorithm is the key's

bad('AUTH-16 none', 'no key with its "kid" and "alg"', XOAUTH2 => $USER,
    raw('{"alg":"none","kid":"HS256"}', claims()));
bad('AUTH-16 none, and a form that is none', 'not three parts',
    XOAUTH2 => $USER, raw('{"alg":"none"}', claims()) =~ s/[^.]*$//r);
bad('AUTH-16 HS256 with the RSA key as secret',
    'no key with its "kid" and "alg"', XOAUTH2 => $USER,
    raw('{"alg":"HS256","kid":"RS256"}', claims(), $tokens->pem('RS256')));
bad('AUTH-16 HS256 with the RSA key as secret, another kid',
    'the signature does not match', XOAUTH2 => $USER,
    raw('{"alg":"HS256","kid":"HS256"}', claims(), $tokens->pem('RS256')));
bad('AUTH-16 HS256 with no secret', 'the signature does not match',
    XOAUTH2 => $USER, raw('{"alg":"HS256","kid":"HS256"}', claims(), ''));
bad('AUTH-16 RS256 with the key of PS256', 'no key with its "kid" and "alg"',
    XOAUTH2 => $USER, $tokens->sign('PS256', 'RS256', claims(),
        { kid => 'PS256' }));
bad('AUTH-16 PS256 with the key of RS256', 'the signature does not match',
    XOAUTH2 => $USER, $tokens->sign('RS256', 'PS256', claims(),
        { kid => 'PS256' }));
bad('AUTH-16 crit', '"crit" is not supported', XOAUTH2 => $USER,
    raw('{"alg":"HS256","kid":"HS256","crit":["b64"],"b64":true}', claims()));

# AUTH-17

bad('AUTH-17 kid ' . s/\n/\\n/r, 'invalid "kid"', XOAUTH2 => $USER,
    token({}, { kid => $_ }))
    for '/etc/passwd', '../keys.json', "x' or 1", "HS256\n", 'x' x 65;
bad('AUTH-17 kid unknown', 'no key with its "kid"', XOAUTH2 => $USER,
    token({}, { kid => 'HS256x' }));
good('kid missing, and one key has its algorithm', XOAUTH2 => $USER,
    $tokens->sign('ES256', 'ES256', claims()));

my $fetched = $t->port('fetched');
my $listener = IO::Socket::INET->new(LocalAddr => "127.0.0.1:$fetched",
    Listen => 1, Blocking => 0) or die "listen: $!\n";
my $url = "http://127.0.0.1:$fetched/";
good('AUTH-17 jku, x5u and jwk are not looked at', XOAUTH2 => $USER,
    token({}, { jku => $url, x5u => $url, jwk => $next }));
ok(!$listener->accept(), 'AUTH-17 nor asked');
close($listener);

# AUTH-18 claims

for my $case (
    [ 'no iss', 'another "iss"', { iss => undef } ],
    [ 'wrong iss', 'another "iss"', { iss => 'https://login.example.org' } ],
    [ 'no aud', 'another "aud"', { aud => undef } ],
    [ 'wrong aud', 'another "aud"', { aud => 'imap' } ],
    [ 'wrong auds', 'another "aud"', { aud => [ 'imap', 'pop3' ] } ],
    [ 'no exp', 'no "exp"', { exp => undef } ],
    [ 'expired', 'expired', { exp => int(time()) - 65 } ],
    [ 'nbf in the future', 'by "nbf"', { nbf => int(time()) + 65 } ],
    [ 'iat in the future', 'by "iat"', { iat => int(time()) + 65 } ],
    [ 'no email', 'no login', { email => undef } ],
    [ 'email of another type', 'no login', { email => [ $USER ] } ],
    [ 'control octets', 'no login', { email => "$USER\r\nRCPT TO:<x>" } ],
    [ 'NUL', 'no JSON object', { email => "$USER\0" } ],
    [ 'email not verified', '"email_verified"',
        { email_verified => JSON::PP::false } ],
) {
    my ($name, $why, $claims) = @$case;
    bad("AUTH-18 $name", $why, OAUTHBEARER => '', token($claims));
}

for my $case (
    [ 'aud array', { aud => [ 'imap', 'mail' ] } ],
    [ 'second aud', { aud => 'smtp://edge.example.com' } ],
    [ 'expired within leeway', { exp => int(time()) - 30 } ],
    [ 'nbf within leeway', { nbf => int(time()) + 30 } ],
    [ 'exp with a fraction', { exp => int(time()) + 60.5 } ],
    [ 'email verified', { email_verified => JSON::PP::true } ],
) {
    my ($name, $claims) = @$case;
    good("AUTH-18 $name", OAUTHBEARER => '', token($claims));
}

# what PyJWT does not make

my $header = '{"alg":"HS256","kid":"HS256"}';
my $claims = $JSON->encode(claims());
my $deep = ',"x":' . '[' x 999 . ']' x 999 . '}';

good('signed here', XOAUTH2 => $USER, hmac($SECRET, $header, $claims));
bad('AUTH-18 a claim twice', 'a member twice', XOAUTH2 => $USER,
    hmac($SECRET, $header, $claims =~ s/\}$/,"email":"$USER"}/r));
bad('AUTH-18 alg twice', 'a member twice', XOAUTH2 => $USER,
    hmac($SECRET, $header =~ s/\}$/,"alg":"HS256"}/r, $claims));
bad('AUTH-18 nested deep', 'nested too deep', XOAUTH2 => $USER,
    hmac($SECRET, $header, $claims =~ s/\}$/$deep/r));

# a signature of 32 octets leaves two bits over

bad('AUTH-18 base64url that is not canonical', 'not three parts',
    XOAUTH2 => $USER, next_digit($token));
bad('AUTH-18 padded', 'not three parts', XOAUTH2 => $USER, "$token=");
bad('AUTH-18 base64, not base64url', 'not three parts', XOAUTH2 => $USER,
    "$token/+/");
bad('AUTH-18 two parts', 'not three parts', XOAUTH2 => $USER,
    $token =~ s/\.[^.]*$//r);
bad('AUTH-18 five parts', 'not three parts', XOAUTH2 => $USER,
    "$token.AAAA.AAAA");

my ($long, $huge) = map {
    my $more = ',"x":"' . 'x' x $_ . '"}';
    hmac($SECRET, $header, $claims =~ s/\}$/$more/r)
} 5700, 6300;

good('a token of ' . length($long) . ' octets', XOAUTH2 => $USER, $long);
cmp_ok(length($huge), '>', 8192, 'a huge token');
like(auth(session('jwt'), XOAUTH2 => $USER, $huge), qr/^535 /,
    'AUTH-18 a huge token');

# another claim, no leeway; several providers

my %other = (iss => 'https://other', sub => 'carol');

like(auth(session('sub'), XOAUTH2 => 'carol', raw('{"alg":"HS256"}',
    claims(\%other))), qr/^235 /, 'claim=sub');
like(auth(session('sub'), XOAUTH2 => 'carol', raw('{"alg":"HS256"}',
    claims({ %other, exp => int(time()) - 1 }))), qr/^535 /, 'leeway=0s');

$c = session('both');
like(auth($c, XOAUTH2 => $USER, raw('{"alg":"RS256"}', claims())), qr/^535 /,
    'no provider takes it');
like(auth($c, XOAUTH2 => $USER, $token), qr/^235 /, 'the second set does');
like(session('both')->auth_plain('file@example.com', 'canary-p'), qr/^235 /,
    'passwords are asked of the other provider');
unlike(session('jwt')->ehlo(), qr/AUTH.*PLAIN/, 'a set of keys knows none');

# AUTH-20

$c = session('jwt');
like($c->cmd('AUTH OAUTHBEARER ' . encode_base64(
    "n,,\x01auth=Bearer $token.x\x01\x01", '')), qr/^334 /,
    'AUTH-20 refused by a challenge');
like($c->cmd('AQ=='), qr/^535 5\.7\.8 /, 'AUTH-20 and then by a reply');
like($c->cmd('NOOP'), qr/^250 /, 'AUTH-20 the session goes on');

# cut off while the key set is looked at again

sleep(1.1);
for (1 .. 20) {
    my $cut = session('jwt');
    $cut->send_raw('AUTH XOAUTH2 ' . xoauth2($USER, $token) . "\r\n");
    $cut->reset();
}
good('others log in', XOAUTH2 => $USER, $token);

# a key set is replaced while it is in use

write_keys($next, grep { $_->{alg} ne 'RS256' } values %jwk);

my $start = time();
my $new = $tokens->sign('next', 'ES256', claims(), { kid => 'next.1' });
my $said = '';

while ($said !~ /^235/ && time() - $start < 5) {
    $said = auth(session('jwt'), XOAUTH2 => $USER, $new);
    sleep(0.1);
}

like($said, qr/^235 /, 'a new key');
cmp_ok(time() - $start, '<', 2.5, 'is known within two seconds');
bad('the key that is gone', 'no key with its "kid"', XOAUTH2 => $USER,
    $tokens->sign('RS256', 'RS256', claims(), { kid => 'RS256' }));
bad('kid missing, and two have its algorithm now', 'no key with its "kid"',
    XOAUTH2 => $USER, $tokens->sign('ES256', 'ES256', claims()));

# one that is bad changes nothing, and is said once

$t->write_file('keys.json', '{"keys":[{"kty":"oct","k":"canary"}]}');

for (1 .. 3) {
    sleep(1.1);
    good('the old keys stay after a bad file', XOAUTH2 => $USER, $new);
}

my @said = $t->error_log() =~ /(".*keys\.json" of "policy_auth_jwt" has a (?#
    )bad key, number 1: no "alg".*)/g;
is(scalar(@said), 1, 'which is said once') or diag(join("\n", @said));

my $log = $t->error_log() . $t->read_file('access.log');

unlike($log, qr/canary/, 'OUT-2 no secret in the logs');

for ($token, $new, $long) {
    my $signature = substr((split(/\./, $_))[2], 0, 20);
    is(index($log, $signature), -1, 'OUT-2 no token in the logs');
    my $encoded = substr(xoauth2($USER, $_), 400, 40);
    is(index($log, $encoded), -1, 'OUT-2 nor encoded');
}

$t->done();


sub write_keys {
    my (@keys) = @_;

    $t->write_file('keys.new', $JSON->encode({ keys => \@keys }));
    rename($t->dir() . '/keys.new', $t->dir() . '/keys.json')
        or die "rename: $!\n";
}


sub claims {
    my ($more) = @_;

    my %claims = (
        iss   => 'https://login.example.com',
        aud   => 'mail',
        exp   => int(time()) + 600,
        nbf   => int(time()) - 1,
        iat   => int(time()) - 1,
        email => $USER,
        %{$more // {}},
    );

    delete @claims{grep { !defined $claims{$_} } keys %claims};
    return \%claims;
}


sub token {
    my ($claims, $header) = @_;

    return $tokens->sign($SECRET, 'HS256', claims($claims),
        { kid => 'HS256', %{$header // {}} });
}


# with a header as it is

sub raw {
    my ($header, $claims, $secret) = @_;

    return hmac($secret // $SECRET, $header, $JSON->encode($claims));
}


# CVE-2022-21449

sub zeros {
    my ($token) = @_;

    my ($text, $signature) = $token =~ /^(.*)\.(.*)$/;
    my $octets = MIME::Base64::decode_base64url($signature);

    return "$text." . encode_base64url("\0" x length($octets));
}


# the same octets, but for bits that no octet has

sub next_digit {
    my ($token) = @_;

    my $digits = join('', 'A' .. 'Z', 'a' .. 'z', 0 .. 9, '-', '_');
    my $n = index($digits, chop($token));

    return $token . substr($digits, $n + 1, 1);
}


sub session { return $t->session($_[0]) }


sub xoauth2 {
    my ($user, $token) = @_;

    return encode_base64("user=$user\x01auth=Bearer $token\x01\x01", '');
}


sub auth {
    my ($client, $mechanism, $user, $token) = @_;

    my $gs2 = $user eq '' ? 'n,,' : "n,a=$user,";
    my $message = $mechanism eq 'XOAUTH2' ? xoauth2($user, $token)
        : encode_base64("$gs2\x01auth=Bearer $token\x01\x01", '');

    my $reply = $client->cmd("AUTH $mechanism $message");
    return $reply unless $reply =~ /^334 (.*)/;

    my $status = eval { $JSON->decode(decode_base64($1))->{status} };
    return "334 is not of RFC 7628: $reply" unless $status;

    return $client->cmd('AQ==');
}


sub good {
    my ($name, @auth) = @_;

    like(auth(session('jwt'), @auth), qr/^235 2\.7\.0 /, $name);
}


# what the log says of it says that it was that which was wrong

sub bad {
    my ($name, $why, @auth) = @_;

    my $before = length($t->error_log());
    my $reply = auth(session('jwt'), @auth);
    my ($said) = substr($t->error_log(), $before)
        =~ /token is none of "policy_auth_jwt main": (.*?), client/;

    ok($reply =~ /^535 5\.7\.8 / && index($said // '', $why) >= 0, $name)
        or diag("$reply, ", $said // 'no reason');
}
