#!/usr/bin/perl

# Regular expressions in a map: order, case, what they capture; and one that
# would take a worker's time.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Test::More;
use Time::HiRes qw(time);

use MailPolicy;
use MailPolicy::Policy;

my $t = MailPolicy->new();
my $relay = $t->run_relay(name => 'relay');
my $other = $t->run_relay(name => 'other');

my ($good, $said) = $t->check_conf("mail { map \$helo \$a { ~^x 1; } }\n");

plan(skip_all => 'nginx is built without PCRE')
    if !$good && $said =~ /needs nginx with PCRE/;

$t->conf(<<'EOF');
mail {
    server_name  edge.example.com;
    policy       on;
    policy_auth  off;
    max_errors   1000;
    proxy_pass   $route;

    map $sender $regex {
        default                                "default";
        ~^exact                                "regex";
        exact@example.com                      "exact";
        ~^first                                "first of two";
        ~^first                                "second of two";
        ~*^anycase@                            "any case";
        ~^Case@                                "this case";
        "~^(\w+)\+(\w*)@(.+)$"                 "$2 of $1 at $3";
        "~^(?<user>\w+)-(?<tag>\w+)@"          "${tag}/$user/$2$sender_domain";
        "~^one(x)?(y)?@"                       "[$1][$2]";
        "~^\S+@lists\."                        "$name";
        "~^$"                                  "null";
        "~^(?<sender>own)@"                    "$sender";
        plain@example.com                      "$sender";
        \~tilde@example.com                    "a tilde";
    }

    map $sender $name { "~^(?<local>.+)@" "list $local"; }

    map $sender_domain $hosts {
        hostnames;
        "~^(.*)\.example\.com$"   "regex $1";
        *.example.com             "wildcard";
        "~^(.*)\.example\.net$"   "regex $1";
        default                   "none";
    }

    map $sender_domain $route {
        default                 one;
        "~^(?<group>\w+)\.to$"  $group;
    }

    map $sender $slow {
        "~^(a+)+@$"  first;
        default      default;
    }

    upstream one { server 127.0.0.1:%%PORT_relay%%; }
    upstream two { server 127.0.0.1:%%PORT_other%%; }

    log_format  slow '$slow';
    log_format  maps '$regex|$hosts|$regex';
    access_log  %%DIR%%/maps.log maps;

    server {
        listen    127.0.0.1:%%PORT_smtp%%;
        protocol  smtp;
    }

    server {
        listen      127.0.0.1:%%PORT_slow%%;
        protocol    smtp;
        access_log  %%DIR%%/slow.log slow;
    }

    server {
        listen        127.0.0.1:%%PORT_policy%%;
        protocol      policy;
        policy_limit  slow  key=$slow  messages=1/1h;
    }
}
EOF
$t->run_nginx();

my $c = $t->session('smtp');

for my $case (
    [ 'exact@example.com', 'exact' ],
    [ 'exact@example.org', 'regex' ],
    [ 'first@x.org', 'first of two' ],
    [ 'ANYcase@x.org', 'any case' ],
    [ 'Case@x.org', 'this case' ],
    [ 'case@x.org', 'default' ],
    [ 'bob+tag@x.org', 'tag of bob at x.org' ],
    [ 'bob+@x.org', ' of bob at x.org' ],
    [ 'bob-tag@X.org', 'tag/bob/tagx.org' ],
    [ 'one@x.org', '[][]' ],
    [ 'oney@x.org', '[][y]' ],
    [ 'onexy@x.org', '[x][y]' ],
    [ 'dev@lists.org', 'list dev' ],
    [ '', 'null' ],
    [ 'own@x.org', 'own' ],
    [ 'plain@example.com', 'plain@example.com' ],
    [ '~tilde@example.com', 'a tilde' ],
    [ 'x@y.example.com', 'default', 'wildcard' ],
    [ 'x@y.example.net', 'default', 'regex y' ],
) {
    my ($sender, $regex, $hosts) = @$case;

    $hosts //= 'none';
    $c->cmd("MAIL FROM:<$sender>");
    $c->cmd('RSET');

    my ($line) = $t->read_file('maps.log') =~ /(.*)\n\z/;
    is($line, "$regex|$hosts|$regex", "<$sender>");
}

$c->quit();

$c = $t->session('smtp');
$c->send_mail('a@two.to', [ 'b@example.net' ], "x\n");
like($c->cmd('MAIL FROM:<a@three.to>'), qr/^451 4\.3\.5 /,
    'a route that is no group');
$c->quit();

is($other->stats()->{messages}, 1, 'a captured name is a route');


# PCRE alone gives up after ten million steps, which is more than 0.1 s each

my $long = 'a' x 60 . '@example.com';
my $before = time();

$c = $t->session('slow');

for (1 .. 60) {
    $c->cmd("MAIL FROM:<$long>");
    $c->cmd('RSET');
}

$c->quit();

cmp_ok(time() - $before, '<', 3, 'one that takes its time is given little');
is($t->read_file('slow.log'), "default\n" x 60, 'and does not match');
like($t->error_log(), qr/\[error\] .* failed: -\d+ on "a{60}\@example\.com"(?#
    ) using "~\^\(a\+\)\+\@\$"/, 'which is said');

is(MailPolicy::Policy->new($t, 'policy')->ask(
    sender => "a" x 60 . "\e[2J\r\xff\@example.com"), 'DUNNO', 'of Postfix');
like($t->error_log(), qr/on "a{60}\\x1B\[2J\\x0D\\xFF\@example\.com" using/,
    'without its control characters');

$t->done();
