#!/usr/bin/perl

# A wrong map, geo, log_format or access_log fails "nginx -t" with a line that
# says what to write instead; and what is right does not.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Test::More;

use MailPolicy;

my $t = MailPolicy->new();


# map

bad('map to no variable', 'map $sender relay { }',
    qr/invalid variable name "relay"/);
bad("map to $_", "map \$helo $_ { }", qr/invalid variable name "\Q$_\E", write/)
    for q($), q($1), q($1a), q($a-b),  '$a$b';
bad('map over a variable that exists', 'map $helo $sender { }',
    qr/duplicate "sender" variable/);
bad('map twice', 'map $helo $a { } map $helo $a { }',
    qr/duplicate "a" variable/);
bad('map of an unknown variable', 'map $nobody $a { }',
    qr/unknown "nobody" variable/);
bad('map with an unknown result', 'map $helo $a { b $nobody; }',
    qr/unknown "nobody" variable/);
bad('map with two defaults', 'map $helo $a { default 1; default 2; }',
    qr/duplicate default map parameter/);
bad('map with a key twice', 'map $helo $a { Key 1; kEY 2; }',
    qr/conflicting parameter "key"/);
bad('map with three words', 'map $helo $a { a b c; }',
    qr/invalid number of the map parameters/);
bad('map with one word', 'map $helo $a { a; }',
    qr/invalid number of the map parameters/);
bad("map with the regular expression $_->[0]",
    "map \$helo \$a { \"$_->[0]\" \"$_->[1]\"; }", $_->[2])
    for [ '~(', 1, qr/pcre2?_compile\(\) failed: .* in "\("/ ],
        [ '~', 1, qr/empty regular expression "~" in a map, write "\\~" for/ ],
        [ '~*', 1, qr/empty regular expression "~\*" in a map/ ],
        [ '~(x)', '$2', qr/"\$2" in "\$2", but the regular expression has 1 g/ ],
        [ '~x', '$1', qr/"\$1" in "\$1", but the regular expression has 0 gr/ ],
        [ '~(?<x>.)', '$y', qr/unknown "y" variable/ ];
bad("map with a captured text where nothing is captured: $_",
    "map \$helo \$a { $_ }", qr/unknown "1" variable/)
    for 'b $1;', '~(x) $1; b $1;', '~(x) $1; default $1;';
bad("map with hostnames: $_", "map \$helo \$a { hostnames; $_ 1; }",
    qr/invalid hostname or wildcard "\Q$_\E", write "example\.com", "\*\./)
    for '*', 'a.*.b', '*a.b', 'a..b', '*.a.*';
bad("map with hostnames: $_", "map \$helo \$a { hostnames; $_; }",
    qr/conflicting parameter "/)
    for 'a.b 1; A.b 2', '*.b 1; *.B 2', '.b 1; *.b 2', 'a.* 1; a.* 2';
bad('map with hostnames behind a key', 'map $helo $a { b 1; hostnames; }',
    qr/"hostnames" must be in front of the keys of a map/);
bad("map_hash_$_ behind a map", "map \$helo \$a { } map_hash_$_ 128;",
    qr/"map_hash_$_" directive must be in front of all "map" and "geo"/)
    for qw(max_size bucket_size);
bad("map_hash_$_ twice", "map_hash_$_ 128; map_hash_$_ 128;",
    qr/"map_hash_$_" directive is duplicate/)
    for qw(max_size bucket_size);
bad("map_hash_$_ large", "map_hash_$_ large;", qr/invalid number/)
    for qw(max_size bucket_size);
bad('map of itself', 'map $a $a { }',
    qr/map of "a" variable leads back to itself/);
bad('maps in a circle', 'map $c $a { } map $a $b { } map $helo $c { x $b; }',
    qr/map of "\w" variable leads back to itself/);


# geo

bad('geo to no variable', 'geo place { }', qr/invalid variable name "place"/);
bad('geo of no variable', 'geo 127.0.0.1 $place { }',
    qr/invalid variable name "127\.0\.0\.1"/);
bad('geo over a variable that exists', 'geo $sender { }',
    qr/duplicate "sender" variable/);
bad('geo twice', 'geo $a { } geo $a { }', qr/duplicate "a" variable/);
bad('geo and map', 'geo $a { } map $helo $a { }',
    qr/duplicate "a" variable/);
bad('geo of an unknown variable', 'geo $nobody $a { }',
    qr/unknown "nobody" variable/);
bad('geo of itself', 'geo $a $a { }',
    qr/map of "a" variable leads back to itself/);
bad('geo with two defaults', 'geo $a { default 1; default 2; }',
    qr/duplicate default geo parameter/);
bad("geo: $_", "geo \$a { $_; }", qr/invalid number of the geo parameters/)
    for '127.0.0.1', '127.0.0.1 a b';
bad("geo: $_", "geo \$a { $_ 1; }",
    qr/invalid network "$_", write "192\.0\.2\.0\/24", or "ranges;" first/)
    for qw(nothing 127.0.0.1/33 127.0.0 ::1/129 127.0.0.1-127.0.0.9);
bad("geo, ranges: $_", "geo \$a { ranges; $_ 1; }",
    qr/invalid range "$_", write "192\.0\.2\.1-192\.0\.2\.9"/)
    for qw(nothing 127.0.0.1 127.0.0.0/8 127.0.0.2-127.0.0.1 127.0.0.1-
           -127.0.0.1 ::1-::2 127.0.0.1-127.0.0.2-127.0.0.3);
bad("geo, ranges: $_", "geo \$a { ranges; 10.0.0.5-10.0.0.9 1; $_ 2; }",
    qr/range "$_" overlaps another one, write the larger one first, or cut/)
    for qw(10.0.0.4-10.0.0.9 10.0.0.5-10.0.0.10 10.0.0.0-10.1.0.0
           10.0.0.9-10.0.0.10 10.0.0.4-10.0.0.5);
bad("geo with ranges behind $_", "geo \$a { $_; ranges; }",
    qr/the "ranges" directive must be the first directive inside "geo" block/)
    for '127.0.0.1 1', 'default 1', 'ranges';
bad('geo with a proxy', 'geo $a { proxy 127.0.0.1; }',
    qr/"proxy" in a geo is not supported, write "set_real_ip_from 127\.0/);
bad('geo with a recursive proxy', 'geo $a { proxy_recursive; }',
    qr/"proxy_recursive" in a geo is not supported, write "set_real_ip_fr/);
warned("geo: $_->[0]", "geo \$a { $_->[0]; }", $_->[1])
    for [ 'delete 10.0.0.0/8', qr/no network "10.0.0.0\/8" to delete in / ],
        [ '10.0.0.1/8 1', qr/low address bits of 10.0.0.1\/8 are meaningl/ ],
        [ '10.0.0.0/8 1; 10.0.0.0/8 2',
            qr/duplicate network "10.0.0.0\/8", its value is "2" now/ ],
        [ 'ranges; delete 10.0.0.1-10.0.0.9',
            qr/no address range "10.0.0.1-10.0.0.9" to delete in / ],
        [ 'ranges; 10.0.0.1-10.0.0.9 1; 10.0.0.1-10.0.0.9 2',
            qr/duplicate range "10.0.0.1-10.0.0.9", its value is "2" now/ ];
bad('geo in a server', 'server { geo $a { } }',
    qr/"geo" directive is not allowed here/);
bad('geo with a route that is none',
    'geo $a { default nowhere; }' . server('policy_auth off; proxy_pass $a;'),
    qr/no port in upstream "nowhere"|host not found|nowhere/);


# log_format

bad('log_format json', "log_format json '\$sender';",
    qr/duplicate "log_format" name "json", write another one/);
bad('log_format postfix', "log_format postfix '\$sender';",
    qr/duplicate "log_format" name "postfix"/);
bad('log_format twice',
    "log_format a '\$sender'; log_format a '\$helo';",
    qr/duplicate "log_format" name "a"/);
bad('log_format with an unknown escape',
    "log_format a escape=xml '\$sender';",
    qr/unknown log format escaping "xml", write "escape=default", "escape=j/);
bad('log_format with nothing', "log_format a '';",
    qr/log format "a" is empty, write what is to be logged/);
bad('log_format with an escape and nothing', 'log_format a escape=json;',
    qr/log format "a" is empty/);
bad('log_format with an unknown variable', "log_format a '\$nobody';",
    qr/unknown "nobody" variable/);
bad('log_format with a bracket too few', "log_format a '\${sender';",
    qr/the closing bracket in "sender" variable is missing/);
bad('log_format without variable name', "log_format a 'US\$ 1';",
    qr/invalid variable name in "US\$ 1/);


# access_log

bad('access_log in an unknown format',
    whole('access_log %%DIR%%/access.log main;'),
    qr/unknown log format "main", write "json", "postfix", or define it with "log_f/);
bad('access_log in a format that comes behind it',
    "access_log %%DIR%%/access.log main; log_format main '\$sender';",
    qr/unknown log format "main", write "json", "postfix", or define it with "log_f/);
bad("access_log $_", whole("access_log %%DIR%%/access.log json $_;"),
    qr/parameter "$_" is not supported by this version, have files compress/)
    for qw(gzip gzip=9);
bad("access_log $_", whole("access_log %%DIR%%/access.log $_ json;"),
    qr/invalid buffer size "(?:\Q${\ substr($_, 7)}\E)", write a size, as "b/)
    for qw(buffer= buffer=0 buffer=-1 buffer=32x);
bad("access_log $_", whole("access_log %%DIR%%/access.log buffer=1k $_;"),
    qr/invalid flush time "(?:\Q${\ substr($_, 6)}\E)", write a time, as "fl/)
    for qw(flush= flush=0 flush=-1 flush=1x);
bad('access_log flush=', whole('access_log %%DIR%%/access.log flush=1m;'),
    qr/no buffer is defined for access_log "\S+access.log", write "buffer=6/);
bad("access_log with two $_->[0]",
    whole("access_log %%DIR%%/access.log @$_;"),
    qr/"\w+=" is set twice in "access_log"/)
    for [ 'buffer=1k', 'buffer=1k' ], [ 'buffer=1k flush=1s', 'flush=2s' ];
bad('access_log with two formats',
    whole('access_log %%DIR%%/access.log json json;'),
    qr/invalid parameter "json", write "access_log path \[format\] \[buffe/);
bad('access_log off with a format', whole('access_log off json;'),
    qr/invalid parameter "json", write "access_log off" alone/);
bad('access_log with an unknown parameter',
    whole('access_log %%DIR%%/access.log level=1;'),
    qr/invalid parameter "level=1", write "access_log path \[format\] \[b/);
bad('access_log with two conditions',
    whole('access_log %%DIR%%/access.log if=$helo if=$sender;'),
    qr/"if=" is set twice in "access_log"/);
bad("access_log $_", whole("access_log %%DIR%%/access.log $_;"),
    qr/invalid parameter "$_", write a variable, as "if=\$loggable" with/)
    for qw(if= if=1);
bad('access_log with an unknown variable',
    whole('access_log %%DIR%%/access.log if=$nobody;'),
    qr/unknown "nobody" variable/);
bad('access_log off json', whole('access_log off json;'),
    qr/invalid parameter "json"/);
bad('access_log to nothing', whole('access_log "";'),
    qr/"access_log" directive is empty: write a file's name, or "off"/);
bad("access_log syslog:$_->[0]", whole("access_log syslog:$_->[0];"),
    qr/$_->[1]/)
    for [ '', 'unknown syslog parameter ""' ],
        [ 'tag=edge', 'no syslog server specified' ],
        [ 'server=127.0.0.1,facility=post', 'unknown syslog facility "post"' ],
        [ 'server=127.0.0.1 flush=1s', 'no buffer is defined for access_log' ],
        [ 'server=127.0.0.1 json buffer=1k', 'logs to syslog cannot be buffe'
            . 'red, write "access_log syslog:server=127.0.0.1" without "buffer' ];
bad("access_log with $_->[0], then $_->[1]",
    whole(join(' ', map { "access_log %%DIR%%/access.log $_;" } @$_)),
    qr/access_log "\S+access.log" already defined with conflicting paramet(?#
        )ers, write the same "buffer=" and "flush="/)
    for [ 'buffer=1k', 'buffer=2k' ], [ 'buffer=1k', 'buffer=1k flush=1s' ],
        [ 'buffer=1k flush=2s', 'buffer=1k flush=1s' ];

{
    my ($passed, $output) = $t->check_conf(
        "http {\nserver { access_log %%DIR%%/access.log combined buffer=1k; }\n}"
        . "\nmail {\n" . whole('access_log %%DIR%%/access.log buffer=1k;')
        . "\n}\n");

    ok(!$passed && $output =~ /"\S+access.log" has a buffer of another module,/,
        'access_log with the buffer of another module') or diag($output);
}

bad('access_log with a variable', whole('access_log %%DIR%%/$sender.log;'),
    qr/is not supported by this version, write a file's name without vari/);
bad('access_log to nowhere',
    whole('access_log %%DIR%%/nowhere/access.log;'),
    qr/open\(\) "\S+nowhere\/access.log" failed/);


# what is known at the end only

bad("policy_limit: $_", whole("policy_limit a key=$_ messages=1/h;"),
    qr/needs what is known at the end of a transaction only, as \$status/)
    for '$status', 'x$queue_id', '$sender if=$upstream_addr',
        '$helo "message=$reply"';
bad('policy_limit by way of a map',
    'map $status $a { 250 1; }' . whole('policy_limit a key=$a messages=1/h;'),
    qr/needs what is known at the end of a transaction only, as \$status/);
bad('proxy_pass', server('policy_auth off; proxy_pass $upstream_name;'),
    qr/"proxy_pass \$upstream_name" needs what is known at the end of a tr/);


$t->done();


sub server {
    my ($directives, $policy) = @_;

    $policy //= 'policy on;';

    return "server { listen 127.0.0.1:%%PORT_smtp%%; protocol smtp; $policy\n"
        . "$directives\n}";
}


# a server that is complete, and the directives given

sub whole {
    return server("policy_auth off; proxy_pass 127.0.0.1:25;\n$_[0]");
}


# what is taken, but not without a word

sub warned {
    my ($name, $mail, $expected) = @_;

    my ($passed, $output) = $t->check_conf("mail {\n$mail\n"
        . whole('') . "\n}\n");
    my @warn = grep { /\[warn\]/ } split(/\n/, $output);

    ok($passed && @warn == 1 && $warn[0] =~ $expected, "$name: a warning")
        or diag($output);
}


# exactly one line, with a place in a file; place "server": that of the server

sub bad {
    my ($name, $mail, $expected, $place) = @_;

    my ($passed, $output) = $t->check_conf("mail {\n$mail\n}\n");
    my @emerg = grep { /\[emerg\]/ } split(/\n/, $output);

    $place = defined $place ? qr/for server in \S+:\d+$/ : qr/in \S+:\d+$/;
    $place = qr// if $expected =~ /open\\\(\\\)/;

    my $said = !$passed && @emerg == 1 && $emerg[0] =~ $expected
        && $emerg[0] =~ $place;

    ok($said, $name) or diag($output);
}
