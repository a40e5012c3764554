#!/usr/bin/perl

# map: whole strings, letters in any case, default, include, results with
# variables, maps of maps, the sizes of its hash; a route by a map.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Test::More;

use MailPolicy;

my $t = MailPolicy->new();
my $relay = $t->run_relay(name => 'relay');
my $other = $t->run_relay(name => 'other');

$t->write_file('more', "included\@example.com  from-file;\n"
    . join('', map { "user$_\@example.com  number-$_;\n" } 1 .. 2000));

$t->conf(<<'EOF');
mail {
    server_name  edge.example.com;
    policy       on;
    policy_auth  off;
    max_errors   1000;
    proxy_pass   $route;

    map_hash_max_size     4096;
    map_hash_bucket_size  256;

    map $sender $simple {
        volatile;
        default              "nothing";
        A@example.com        "is a";
        \default             "the word";
        \include             "the other word";
        include              %%DIR%%/more;
        b@example.com        "$sender_domain of ${sender_local}";
        ""                   "null";
    }

    map $sender_domain $no_default { x.example "x"; }
    map $sender $empty { }
    map "$helo-$sender_domain" $joined { client.example-x.example yes; }
    map $chain $last { "is a!" a; "!" empty; default "$chain"; }
    map $simple $chain { default "$simple!"; nothing "!"; }
    map $sender_domain $route {
        default      127.0.0.1:%%PORT_relay%%;
        x.example    127.0.0.1:%%PORT_other%%;
    }

    log_format  maps '$simple|$no_default|$empty|$joined|$last|$SIMPLE';
    access_log  %%DIR%%/maps.log maps;

    server {
        listen    127.0.0.1:%%PORT_smtp%%;
        protocol  smtp;
    }
}
EOF
$t->run_nginx();

my $c = $t->session('smtp', helo => 'client.example');

sub maps {
    my ($sender) = @_;

    $c->cmd("MAIL FROM:<$sender>");
    $c->cmd('RSET');

    my ($line) = $t->read_file('maps.log') =~ /(.*)\n\z/;
    return $line;
}

is(maps('a@example.com'), 'is a|-|-|-|a|is a', 'a key');
is(maps('A@EXAMPLE.com'), 'is a|-|-|-|a|is a', 'in any case');
is(maps('aa@example.com'), 'nothing|-|-|-|empty|nothing', 'default');
is(maps('b@Example.com'), 'example.com of b|-|-|-|example.com of b!|'
    . 'example.com of b', 'variables in a result');
is(maps('included@example.com'),
    'from-file|-|-|-|from-file!|from-file', 'include');
is(maps("user$_\@example.com"),
    "number-$_|-|-|-|number-$_!|number-$_", "one of many: $_")
    for 1, 999, 2000;
is(maps('z@x.example'), 'nothing|x|-|yes|empty|nothing',
    'a source of several variables');
is(maps(''), 'null|-|-|-|null!|null', 'an empty key');

$c->quit();

$c = $t->session('smtp');
$c->send_mail('a@x.example', [ 'b@example.net' ], "x\n");
$c->send_mail('a@y.example', [ 'b@example.net' ], "x\n");
$c->quit();

is($other->stats()->{messages}, 1, 'a route by a map');
is($relay->stats()->{messages}, 1, 'and by its default');

$t->done();
