#!/usr/bin/perl

# How clients log in: a wrong policy_auth_methods, policy_auth_cache or
# policy_auth_delay fails "nginx -t" with a line that says what to write
# instead; and what is right does not.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Test::More;

use MailPolicy;

my $t = MailPolicy->new();

$t->write_file('users', "alice:{PLAIN}secret\n");

my @METHODS = qw(plain login cram-md5 scram-sha-256 scram-sha-256-plus
    xoauth2 oauthbearer external);

bad('an unknown mechanism', 'policy_auth_methods plain gssapi;',
    qr/unknown mechanism "gssapi" in "policy_auth_methods", write some of /);
bad('a mechanism twice', 'policy_auth_methods plain PLAIN;',
    qr/duplicate mechanism "PLAIN" in "policy_auth_methods"/);
bad('no mechanism', 'policy_auth_methods;',
    qr/invalid number of arguments in "policy_auth_methods"/);
bad('policy_auth_methods twice',
    'policy_auth_methods plain; policy_auth_methods login;',
    qr/"policy_auth_methods" directive is duplicate/);
bad("$_ of a file", "policy_auth_methods plain $_;",
    qr/no provider of "policy_auth" can serve \U$_\E: leave that out of "pol/)
    for qw(xoauth2 oauthbearer);
bad("policy_auth_$_->[0] $_->[1]", "policy_auth_$_->[0] $_->[1];",
    qr/"policy_auth_$_->[0]" directive invalid value/)
    for [ 'delay', '1x' ], [ 'delay', -1 ], [ 'cache', 'off' ];
bad("policy_auth_$_ twice", "policy_auth_$_ 1s; policy_auth_$_ 1s;",
    qr/"policy_auth_$_" directive is duplicate/) for qw(delay cache);

good('all mechanisms of passwords', 'policy_auth_methods '
    . join(' ', grep { !/oauth|external/ } @METHODS) . ';');
good('names in capitals', 'policy_auth_methods PLAIN Scram-SHA-256;');
good('neither a delay nor a cache',
    'policy_auth_delay 0; policy_auth_cache 0;');
good('a mechanism that a server without logins has no use for', '',
    'policy_auth_methods xoauth2;', 'policy_auth off;');

my ($passed, $output) = $t->check_conf(<<'EOF');
mail {
    policy_limit all key=$sender messages=1/1h;
    server { listen 127.0.0.1:8025; protocol policy; policy_auth_cache 1s; }
}
EOF
ok(!$passed && $output =~ /"policy_auth_cache" is for sessions of SMTP/,
    'not with protocol policy') or diag($output);

$t->done();


sub check {
    my ($server, $mail, $auth) = @_;

    $mail //= '';
    $auth //= 'policy_auth file:%%DIR%%/users;';

    return $t->check_conf(<<"EOF");
mail {
    policy_auth_plaintext on;
    $mail
    server {
        listen 127.0.0.1:8025; protocol smtp; policy on; $auth
        proxy_pass 127.0.0.1:25; $server
    }
}
EOF
}


sub bad {
    my ($name, $server, $expected) = @_;

    my ($ok, $said) = check($server);
    my @emerg = grep { /\[emerg\]/ } split(/\n/, $said);

    ok(!$ok && @emerg == 1 && $emerg[0] =~ $expected, $name) or diag($said);
}


sub good {
    my ($name, @args) = @_;

    my ($ok, $said) = check(@args);

    ok($ok && $said !~ /\[(?:emerg|warn)\]/, $name) or diag($said);
}
