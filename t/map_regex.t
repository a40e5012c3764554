#!/usr/bin/perl

# Regular expressions in a map: order, case, what they capture.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Test::More;

use MailPolicy;

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

    upstream one { server 127.0.0.1:%%PORT_relay%%; }
    upstream two { server 127.0.0.1:%%PORT_other%%; }

    log_format  maps '$regex|$hosts|$regex';
    access_log  %%DIR%%/maps.log maps;

    server {
        listen    127.0.0.1:%%PORT_smtp%%;
        protocol  smtp;
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

$t->done();
