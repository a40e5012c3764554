#!/usr/bin/perl

# Each example of policies/examples passes "nginx -t" without a word, and so
# does the one in README.md.  What some of them do is in example_*.t.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Test::More;

use MailPolicy;
use MailPolicy::Example qw(complete_text runnable);

my $t = MailPolicy->new();
my $ROOT = $t->root();

my @examples = sort glob("$ROOT/policies/examples/*.conf");

cmp_ok(scalar @examples, '>=', 5, 'there are examples');

$t->certificate('mail');
$t->write_file('mail.users',
    'alice@example.com:' . $t->crypt('wonderland') . "\n");

$t->write_file('smarthost.password', "secret\n");

my $readme = $t->read_file("$ROOT/README.md");

for my $file (@examples) {
    my ($name) = $file =~ m{([^/]+)$};
    my $text = $t->read_file($file);

    passes($name, $text);
    like($text, qr/\A# \S/, "$name: says what it is for");
    like($readme, qr/\Q$name\E/, "$name: is in README.md");
}

my $example = complete_text($t);

ok(defined $example, 'README.md has a complete example')
    and passes('README.md', $example);

# all of it for Postfix

my ($recipe) = $readme =~ /^### Recipes for Postfix\n.*?^    (mail \{\n.*?^    \})\n/ms;

if (ok(defined $recipe, 'README.md has a recipe for Postfix')) {
    my ($passed, $output) = $t->check_conf(runnable($recipe));

    ok($passed && $output !~ /\[(?:warn|emerg|alert)\]/, 'which is good')
        or diag($output);
}

# lines that stand alone

my @lines = $readme =~ /^    (policy_redis  .*;)$/mg;

cmp_ok(scalar @lines, '>=', 2, 'README.md has lines of policy_redis');

for my $line (@lines) {
    my ($passed, $output) = $t->check_conf('mail { '
        . ($line =~ s/redis-\d+\.example\.com/127.0.0.1/gr)
        . ' policy_redis_ssl_verify off;
        policy on; policy_auth off; proxy_pass 127.0.0.1:25;
        server { listen 127.0.0.1:%%PORT_1%%; protocol smtp; } }');

    ok($passed, $line) or diag($output);
}

$t->done();


sub passes {
    my ($name, $text) = @_;

    my $changed = runnable($text);

    my ($passed, $output) = $t->check_conf($changed);

    ok($passed && $output !~ /\[(?:warn|error|crit|alert|emerg)\]/,
        "$name: nginx -t") or diag($output);
    like($text, qr/^load_module modules\/ngx_mail_policy_module\.so;$/m,
        "$name: is complete");
    like($changed, qr/^\s+listen +127\.0\.0\.1:%%/m, "$name: listens");
}
