#!/usr/bin/perl

# Mistakes of "policy_auth_jwt", in its line and in its key set: each fails
# "nginx -t" with a line that says what to write instead.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Test::More;

use MailPolicy;

my $t = MailPolicy->new();

my $K = 'MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY';
my $X = 'f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU';
my $RULES = 'issuer=https://i audience=mail';
my $KEYS = "keys=%%DIR%%/keys.json $RULES";

write_keys(qq({"kty":"oct","alg":"HS256","k":"$K"}));

good('all there is', "policy_auth_jwt a.B_c-1 $KEYS audience=b claim=sub
    leeway=0s;");
good('leeway=60s', "policy_auth_jwt a $KEYS leeway=60s;");
good('behind its use', server('jwt:a') . "policy_auth_jwt a $KEYS;");
good('in front of its use', "policy_auth_jwt a $KEYS;" . server('jwt:a'));
good('several', "policy_auth_jwt a $KEYS; policy_auth_jwt b $KEYS;"
    . server('jwt:a jwt:b'));
good('relative to nginx.conf',
    "policy_auth_jwt a keys=keys.json $RULES;" . server('jwt:a'));

# the line

for my $case (
    [ 'a', qr/needs "keys=\/path", "issuer=https:\S+" and "audience=\.\.\."/ ],
    [ "a $RULES", qr/"policy_auth_jwt a" needs "keys=/ ],
    [ 'a keys=/x audience=b', qr/"policy_auth_jwt a" needs .*"issuer=/ ],
    [ 'a keys=/x issuer=b', qr/"policy_auth_jwt a" needs .*"audience=/ ],
    [ "a $KEYS keys=/y", qr/"keys=\/y" is the second one of its kind, write/ ],
    [ "a $KEYS issuer=y", qr/"issuer=y" is the second one of its kind/ ],
    [ "a $KEYS claim=x claim=y", qr/"claim=y" is the second one/ ],
    [ "a $KEYS leeway=1 leeway=2", qr/a second "leeway", write only one/ ],
    [ "a $KEYS audience=", qr/invalid parameter "audience=", write "keys=/ ],
    [ "a $KEYS scope=x", qr/invalid parameter "scope=x", write "keys=/ ],
    [ "a $KEYS x", qr/invalid parameter "x", write "keys=\/path", "issuer=/ ],
    [ "a $KEYS leeway=61s", qr/invalid "leeway=61s", write .* at most 60s/ ],
    [ "a $KEYS leeway=x", qr/invalid "leeway=x", write a time of at most/ ],
    [ "a/b $KEYS", qr/"a\/b" is no name of a "policy_auth_jwt", write 1 to/ ],
    [ "'' $KEYS", qr/"" is no name of a "policy_auth_jwt", write 1 to 64/ ],
    [ 'a keys=/nowhere/keys.json ' . $RULES,
        qr/open\(\) "\/nowhere\/keys.json" of "policy_auth_jwt" failed \(2/ ],
    [ "a keys=%%DIR%% $RULES", qr/is not a regular file|has to be a/ ],
) {
    my ($line, $expected) = @$case;
    bad("policy_auth_jwt $line", "policy_auth_jwt $line;", $expected);
}

bad('policy_auth_jwt twice', "policy_auth_jwt a $KEYS;\n" x 2,
    qr/duplicate "policy_auth_jwt a"/);
bad('policy_auth_jwt alone', 'policy_auth_jwt;',
    qr/invalid number of arguments in "policy_auth_jwt" directive/);
bad('policy_auth_jwt in a server', "server { policy_auth_jwt a $KEYS; }",
    qr/"policy_auth_jwt" directive is not allowed here/);

bad('no such set', server('jwt:b'),
    qr/"policy_auth jwt:b" needs the directive "policy_auth_jwt b keys=/);
bad('no name', server('jwt:'), qr/"" is no name of a "policy_auth_jwt"/);
bad('a path', server('jwt:/etc/keys.json'),
    qr/"\/etc\/keys.json" is no name of a "policy_auth_jwt", write 1 to 64/);
bad('no passwords', "policy_auth_jwt a $KEYS;" . server('jwt:a', 'plain'),
    qr/no provider of "policy_auth" can serve PLAIN: leave that out of/);

# AUTH-16 the key set

for my $case (
    [ '', qr/has no key that verifies signatures/ ],
    [ '{', qr/keys\.json:\d+: no valid JSON, or a member of an object twice/ ],
    [ qq({"kty":"oct","alg":"HS256","k":"$K","k":"$K"}),
        qr/keys\.json:\d+: no valid JSON, or a member of an object twice/ ],
    [ qq({"kty":"oct","k":"$K"}),
        qr/bad key, number 1: no "alg", write the one algorithm of this key:/ ],
    [ qq({"kty":"oct","k":"$K","alg":"none"}),
        qr/number 1: "alg" is not supported, expected RS256, / ],
    [ qq({"use":"enc"},{"kty":"oct","k":"$K","alg":"RS256"}),
        qr/number 2: "kty" does not fit its "alg", expected "RSA" for RS/ ],
    [ qq({"kty":"oct","k":"AAAA","alg":"HS256"}),
        qr/"k" of base64url expected, at least 32 octets for HS256/ ],
    [ qq({"kty":"RSA","n":"$K","e":"AQAB","alg":"RS256"}),
        qr/an RSA key of 2048 to 8192 bits expected/ ],
    [ qq({"kty":"EC","crv":"P-256","x":"$X","y":"$X","alg":"ES256"}),
        qr/"x" and "y" are no point of the curve/ ],
    [ qq({"kty":"EC","crv":"P-256","x":"$X","y":"$X","alg":"ES384"}),
        qr/"crv" does not fit its "alg"/ ],
    [ qq({"kty":"OKP","crv":"Ed25519","x":"$X","d":"$X","alg":"EdDSA"}),
        qr/it is a private key, expected the public one, without "d"/ ],
    [ qq({"kid":"/etc/x","kty":"oct","k":"$K","alg":"HS256"}),
        qr/invalid "kid", expected 1 to 64 of letters, digits/ ],
    [ join(',', (qq({"kid":"x","kty":"oct","k":"$K","alg":"HS256"})) x 2),
        qr/number 2: another key has the same "kid"/ ],
) {
    my ($keys, $expected) = @$case;

    write_keys($keys);
    bad("AUTH-16 $expected", "policy_auth_jwt a $KEYS;", $expected);
}

$t->write_file('keys.json', '[]');
bad('AUTH-16 no key set', "policy_auth_jwt a $KEYS;",
    qr/is no key set, expected \{"keys": \[ \.\.\. \]\}/);

$t->done();


sub write_keys {
    $t->write_file('keys.json', "{\"keys\":[\n$_[0]\n]}\n");
}


sub server {
    my ($providers, $methods) = @_;

    $methods //= 'xoauth2 oauthbearer';

    return "server { listen 127.0.0.1:%%PORT_smtp%%; protocol smtp; policy on;
        policy_auth $providers; policy_auth_methods $methods;
        proxy_pass 127.0.0.1:25; }\n";
}


sub good {
    my ($name, $mail) = @_;

    my ($passed, $output) = $t->check_conf("mail {\n$mail\n}\n");
    ok($passed, $name) or diag($output);
}


# exactly one line, with a place in a file and none of the keys

sub bad {
    my ($name, $mail, $expected) = @_;

    my ($passed, $output) = $t->check_conf("mail {\n$mail\n}\n");
    my @emerg = grep { /\[emerg\]/ } split(/\n/, $output);

    my $said = !$passed && @emerg == 1 && $emerg[0] =~ $expected
        && $emerg[0] =~ /in \S+:\d+$/ && $output !~ /MDEy|f83O/;

    ok($said, $name) or diag($output);
}
