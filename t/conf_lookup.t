#!/usr/bin/perl

# policy_lookup in a configuration: what is refused says what to write.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Test::More;

use MailPolicy;

my $t = MailPolicy->new();

my $REDIS = 'policy_redis redis://127.0.0.1:6379;';
my $SERVER = 'upstream good { server 127.0.0.1:25; }
    server { listen 127.0.0.1:%%PORT_smtp%%; protocol smtp; policy on;
        policy_auth off; proxy_pass ROUTE; }';


sub conf {
    my ($mail, $route) = @_;

    return "mail {\n$mail\n" . $SERVER =~ s/ROUTE/$route \/\/ 'good'/er
        . "\n}\n";
}


sub bad {
    my ($name, $expected, @conf) = @_;

    my ($passed, $output) = $t->check_conf(conf(@conf));
    my @emerg = grep { /\[emerg\]/ } split(/\n/, $output);

    ok(!$passed && @emerg == 1 && $emerg[0] =~ $expected
        && $emerg[0] =~ /in \S+:\d+$/, $name) or diag($output);
}


sub good {
    my ($name, @conf) = @_;

    my ($passed, $output) = $t->check_conf(conf(@conf));

    ok($passed, $name) or diag($output);
}


sub warned {
    my ($name, $mail, $expected, $redis) = @_;

    my ($passed, $output) = $t->check_conf(conf(($redis // $REDIS) . $mail));

    ok($passed && $output =~ $expected, $name) or diag($output);
}


good('with a default', "$REDIS policy_lookup \$r route:\$sender_domain good;",
    '$r');
good('without one', "$REDIS policy_lookup \$r route:\$sender_domain;", '$r');
good('behind its use', "map \$r \$m { default \$r; }"
    . " policy_lookup \$r x:\$helo good; $REDIS", '$m');
good('a default with variables', "$REDIS policy_lookup \$r \"r:\$recipient\""
    . " \$d; map \$sender_domain \$d { default good; }", '$r');
good('a constant key', "$REDIS policy_lookup \$r route good;", '$r');
good('an address as the default',
    "$REDIS policy_lookup \$r route:\$sender 127.0.0.1:26;", '$r');
good('lookups of lookups', "$REDIS policy_lookup \$a a:\$sender;"
    . ' policy_lookup $b b:$a good;', '$b');
good('64 of them', "$REDIS " . join(' ', map { "policy_lookup \$v$_ k$_;" }
    1 .. 64));

warned('the prefix of all keys', 'policy_lookup $r mail:route:$sender good;',
    qr/is "mail:mail:route:\$sender" so: leave "mail:" out in \S+:\d+$/m);
warned('a prefix that is set behind it', 'policy_lookup $r mx:$helo good;'
    . 'policy_redis redis://127.0.0.1:6379 prefix=mx:;', qr/leave "mx:" out/,
    '');

bad('without policy_redis',
    qr/"policy_lookup" reads from Redis: add "policy_redis redis:/,
    'policy_lookup $r route:$sender good;', '$r');
bad('65 of them', qr/too many "policy_lookup": write 64 at the most/,
    "$REDIS " . join(' ', map { "policy_lookup \$v$_ k$_;" } 1 .. 65));
bad('no "$"', qr/invalid variable name "r"/, "$REDIS policy_lookup r key;");
bad('no name', qr/invalid variable name "\$"/, "$REDIS policy_lookup \$ key;");
bad('no key', qr/invalid number of arguments in "policy_lookup"/,
    "$REDIS policy_lookup \$r;");
bad('an empty key', qr/"policy_lookup" directive has an empty key: write what/,
    "$REDIS policy_lookup \$r '';");
bad('two defaults', qr/invalid number of arguments in "policy_lookup"/,
    "$REDIS policy_lookup \$r key a b;");
bad('a variable that is there', qr/duplicate "sender" variable/,
    "$REDIS policy_lookup \$sender key;");
bad('a lookup that is there', qr/duplicate "r" variable/,
    "$REDIS policy_lookup \$r key; policy_lookup \$r other;");
bad('a map that is there', qr/duplicate "r" variable/,
    "$REDIS map \$helo \$r { default 1; } policy_lookup \$r other;");
bad('a map behind it', qr/duplicate "r" variable/,
    "$REDIS policy_lookup \$r other; map \$helo \$r { default 1; }");
bad('an unknown variable in the key', qr/unknown "nobody" variable/,
    "$REDIS policy_lookup \$r x:\$nobody;");
bad('an unknown variable in the default', qr/unknown "nobody" variable/,
    "$REDIS policy_lookup \$r x \$nobody;");
bad('a key of itself', qr/leads back to itself/,
    "$REDIS policy_lookup \$r x:\$r;");
bad('a default of itself', qr/leads back to itself/,
    "$REDIS policy_lookup \$r x \$r;");
bad('a key of itself, by a map', qr/leads back to itself/,
    "$REDIS policy_lookup \$r x:\$m; map \$r \$m { default 1; }");
bad('a key that is known at the end',
    qr/policy_lookup of "r" variable has a key that is known for the log only/,
    "$REDIS policy_lookup \$r x:\$status;");
bad('a default that is known at the end',
    qr/"r" variable needs what is known at the end of a transaction only, as /,
    "$REDIS policy_lookup \$r x:\$sender \$status;");
bad('a misspelled group as the default',
    qr/no upstream "god" and no port in "god"/,
    "$REDIS policy_lookup \$r route:\$sender god;", '$r');
bad('the same, by a map', qr/no upstream "god" and no port in "god"/,
    "$REDIS policy_lookup \$r route:\$sender god;"
    . ' map $helo $m { default $r; }', '$m');
bad('sessions under what is known with MAIL', qr/is known with MAIL only/,
    "$REDIS policy_lookup \$r class:\$sender;"
    . ' policy_limit a key=$r sessions=2;');

my ($passed, $output) = $t->check_conf(conf($REDIS)
    =~ s/protocol smtp;/protocol smtp; policy_lookup \$r key;/r);
ok(!$passed && $output =~ /"policy_lookup" directive is not allowed here/,
    'in a server');

$t->done();
