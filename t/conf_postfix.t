#!/usr/bin/perl

# Directives of "protocol policy": each mistake fails "nginx -t" with a line
# that says what to write instead, and where they may stand.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Test::More;

use MailPolicy;

my $t = MailPolicy->new();

my $LIMIT = 'policy_limit a key=$sender messages=1/1h;';


# policy_edge

good("policy_edge $_", policy("policy_edge $_;"))
    for 'off', 'xclient', '192.0.2.1', '192.0.2.0/24', '2001:db8::/32',
        'server=192.0.2.1', 'server=192.0.2.1:25', 'server=2001:db8::1',
        'server=[2001:db8::1]:465', 'xclient xclient 192.0.2.1';
good('policy_edge on two lines',
    policy('policy_edge xclient; policy_edge 192.0.2.1;'));
good('policy_edge in mail', "policy_edge xclient;\n" . policy('')
    . smtp('policy on;'));
good('policy_edge off in a server', "policy_edge xclient;\n"
    . policy('policy_edge off;'));
warned('policy_edge 192.0.2.1/24', policy('policy_edge 192.0.2.1/24;'),
    qr/low address bits of 192\.0\.2\.1\/24 are meaningless/);

bad("policy_edge $_", policy("policy_edge $_;"),
    qr/invalid parameter "\Q$_\E": write "off", "xclient", an edge's address/)
    for 'on', 'XCLIENT', 'edge.example.com', '192.0.2', '192.0.2.1:25',
        '192.0.2.0/33', 'unix:/x', 'server', 'SERVER=192.0.2.1',
        'client=192.0.2.1';
bad("policy_edge $_", policy("policy_edge $_;"),
    qr/invalid parameter "\Q$_\E": write the address that clients of the edge/)
    for 'server=', 'server=edge.example.com', 'server=192.0.2.1:',
        'server=192.0.2.1:x', 'server=192.0.2.1:65536', 'server=192.0.2.1:0',
        'server=unix:/x', 'server=xclient',
        'server=192.0.2.0/24';
bad("policy_edge $_", policy("policy_edge $_;"),
    qr/"\Q$_\E" is no address that a client can connect to: write that of/)
    for 'server=0.0.0.0', 'server=0.0.0.0:25', 'server=[::]:25';
bad("policy_edge $_", policy("policy_edge $_;"),
    qr/"\Q$_\E" is everybody, and nothing would be charged: write the addr/)
    for '0.0.0.0/0', '10.0.0.0/00', '192.0.2.1/0', '::/0';
bad("policy_edge: $_", policy($_),
    qr/"policy_edge" directive is "off", and names edges: write one of both/)
    for 'policy_edge off xclient;', 'policy_edge off; policy_edge xclient;',
        'policy_edge xclient; policy_edge off;';
bad('policy_edge alone', policy('policy_edge;'),
    qr/invalid number of arguments in "policy_edge" directive/);
bad("policy_edge in a server with $_", smtp("$_; policy_edge xclient;"),
    qr/"policy_edge" is for the questions of Postfix: write it in a server w/,
    'server') for 'policy on', 'policy off';


# policy_clients

good("policy_clients $_", policy("policy_clients $_;"))
    for 'all', 'unix:', '192.0.2.1', '192.0.2.0/24 2001:db8::/32 unix:';
good('policy_clients in mail', "policy_clients unix:;\n"
    . policy('policy_clients all;') . smtp('policy on;'));
warned('policy_clients 192.0.2.1/24', policy('policy_clients 192.0.2.1/24;'),
    qr/low address bits of 192\.0\.2\.1\/24 are meaningless/);
bad("policy_clients $_", policy("policy_clients $_;"),
    qr/invalid parameter "\Q$_\E": write "all", "unix:", or the address or ne/)
    for 'off', 'mx.example.com', '192.0.2', '192.0.2.1:25', '192.0.2.0/33',
        'unix:/x', 'ALL';
bad("policy_clients: $_", policy($_),
    qr/"policy_clients" directive is "all", and names clients: write one of/)
    for 'policy_clients all unix:;',
        'policy_clients all; policy_clients unix:;',
        'policy_clients unix:; policy_clients all;';
bad('policy_clients alone', policy('policy_clients;'),
    qr/invalid number of arguments in "policy_clients" directive/);
bad("policy_clients in a server with $_", smtp("$_; policy_clients unix:;"),
    qr/"policy_clients" is for the questions of Postfix: write it in a server/,
    'server') for 'policy on', 'policy off';


# policy_action

good("policy_action $_", policy("policy_action $_;"))
    for '""', '" "', 'DUNNO', 'HOLD', '"FILTER smtp:[10.0.0.1]:25"',
        '"PREPEND X-Class: bulk"', '"BCC a@example.com"', '"REJECT no"',
        '"REDIRECT $sender"', '$sender', '"PREPEND X-From: $sender"',
        '"FILTER $sender_domain:x"', '550', '$sender_local$sender';
good('policy_action in mail', "policy_action HOLD;\n" . policy('')
    . policy('policy_action "";', 'other') . smtp('policy on;'));
good('policy_action with a map', map_of('a HOLD; default ""; b "FILTER x:y"')
    . policy('policy_action $action;'));
good('policy_action with a lookup', lookup('HOLD')
    . policy('policy_action $action;'));

my $WRITE = qr/: write as "FILTER smtp:\[10\.0\.0\.1\]:25", "PREPEND X-Name/;

for my $case ([ 'OK', 'would let mail pass that Postfix would not' ],
    [ 'permit', 'would let mail pass that Postfix would not' ],
    [ 'RELAY', 'would let mail pass that Postfix would not' ],
    [ '250', 'would let mail pass that Postfix would not' ],
    [ 'DISCARD', 'would lose mail' ],
    [ 'permit_mynetworks', 'no Postfix takes' ],
    [ 'greylist', 'no Postfix takes' ], [ 'FILTER', 'no Postfix takes' ],
    [ 'FILTER x', 'no Postfix takes' ], [ 'PREPEND x', 'no Postfix takes' ],
    [ 'BCC x', 'no Postfix takes' ], [ 'HANGUP', 'no Postfix takes' ],
    [ "HOLD \x1b", 'no Postfix takes' ],
    [ "HOLD \xe4", 'has control characters in it, or is not UTF-8' ],
    [ 'HOLD ' . 'x' x 4083, 'is too long' ])
{
    my ($action, $why) = @$case;
    my $name = 'policy_action ' . substr($action, 0, 20) =~ s/[^ -~]/?/gr;
    bad($name, policy("policy_action \"$action\";"), qr/which $why$WRITE/);
    bad("$name by a map", map_of("a HOLD; b \"$action\"")
        . policy('policy_action $action;'), qr/which $why$WRITE/);
    bad("$name by a lookup", lookup($action)
        . policy('policy_action $action;'), qr/which $why$WRITE/);
}

bad("policy_action $_", policy("policy_action \"$_\";"),
    qr/may answer "\S+ x:\@", which .*$WRITE/)
    for 'OK $sender', 'DISCARD $sender', 'FORWARD $sender';
bad('policy_action with $status', policy('policy_action "HOLD $status";'),
    qr/"policy_action HOLD \$status" needs what is known at the end of a tra/);
bad('policy_action with an unknown variable', policy('policy_action $nobody;'),
    qr/unknown "nobody" variable/);
bad('policy_action twice', policy('policy_action HOLD; policy_action HOLD;'),
    qr/"policy_action" directive is duplicate/);
bad("policy_action$_", policy("policy_action$_;"),
    qr/invalid number of arguments in "policy_action" directive/)
    for '', ' FILTER x:y';
bad("policy_action in a server with $_", smtp("$_; policy_action HOLD;"),
    qr/"policy_action" is for the questions of Postfix: write it in a server/,
    'server') for 'policy on', 'policy off';


# policy_socket_mode

good("policy_socket_mode $_", socket_mode("policy_socket_mode $_;"))
    for '0660', '660', '0600', '0222', '0777',
        $> ? () : ('0660 group=daemon', '0660 user=daemon',
                   '0600 user=root group=root');
good('policy_socket_mode in mail', "policy_socket_mode 0660;\n"
    . policy('') . socket_mode('') . smtp('policy on;'));

bad("policy_socket_mode $_", socket_mode("policy_socket_mode $_;"),
    qr/invalid mode "\Q$_\E": write three octal digits, as "0660"/)
    for 'rw-rw----', '0668', '66', '6', '00660', '1660', '4755', 'group=daemon',
        '-660', '0x1b';
bad("policy_socket_mode $_", socket_mode("policy_socket_mode $_;"),
    qr/mode "$_" lets nobody connect: write as "0660"/)
    for '0000', '0555', '0440';
bad("policy_socket_mode 0660 $_", socket_mode("policy_socket_mode 0660 $_;"),
    qr/no user "\S*" on this machine/)
    for 'user=nobody-of-this-name', 'user=', 'user=0';
bad("policy_socket_mode 0660 $_", socket_mode("policy_socket_mode 0660 $_;"),
    qr/no group "\S*" on this machine/)
    for 'group=nobody-of-this-name', 'group=', 'group=0';
bad("policy_socket_mode 0660 $_", socket_mode("policy_socket_mode 0660 $_;"),
    qr/invalid parameter "\S+": write "user=name" or "group=name", each once/)
    for 'root', 'owner=root', $> ? () : ('user=root user=root',
        'group=root group=root');
bad('policy_socket_mode without a socket',
    policy('policy_socket_mode 0660;'),
    qr/"policy_socket_mode" is of no use: write "listen unix:\/path" into it/);
bad('policy_socket_mode twice',
    socket_mode('policy_socket_mode 0660; policy_socket_mode 0660;'),
    qr/"policy_socket_mode" directive is duplicate/);
bad("policy_socket_mode$_", socket_mode("policy_socket_mode$_;"),
    qr/invalid number of arguments in "policy_socket_mode" directive/)
    for '', ' 0660 user=root group=root x';
bad('policy_socket_mode in a server of SMTP',
    smtp('policy on; policy_socket_mode 0660;'),
    qr/"policy_socket_mode" is for the questions of Postfix: write it in a s/,
    'server');

# one socket is one server's
bad('a socket of two servers', socket_mode('policy_socket_mode 0660;') x 2,
    qr/duplicate "unix:\S+" address and port pair/);

$t->done();


sub socket_mode {
    return "server { listen unix:%%DIR%%/policy.sock; protocol policy;
        $LIMIT $_[0] }\n";
}


# with and without a default of its own

sub map_of { return "map \$sender \$action { $_[0]; }\n" }

sub lookup {
    return "policy_redis redis://127.0.0.1:6379/0;
        policy_lookup \$action action:\$sender \"$_[0]\";\n";
}


# a server with "protocol policy" and the directives given

sub policy {
    my ($directives, $port) = @_;

    $port //= 'policy';

    return "server { listen 127.0.0.1:%%PORT_$port%%; protocol policy;
        $LIMIT $directives }\n";
}


# one of SMTP

sub smtp {
    return "server { listen 127.0.0.1:%%PORT_smtp%%; protocol smtp;
        policy_auth off; proxy_pass 127.0.0.1:25; $_[0] }\n";
}


sub good {
    my ($name, $mail) = @_;

    my ($passed, $output) = $t->check_conf("mail {\n$mail\n}\n");

    ok($passed && $output !~ /\[(?:warn|emerg|alert)\]/, "$name: good")
        or diag($output);
}


sub warned {
    my ($name, $mail, $expected) = @_;

    my ($passed, $output) = $t->check_conf("mail {\n$mail\n}\n");
    my @warn = grep { /\[(?:warn|emerg|alert)\]/ } split(/\n/, $output);

    ok($passed && @warn == 1 && $warn[0] =~ $expected, "$name: warned")
        or diag($output);
}


# exactly one line, with a place in a file; place "server": that of the server

sub bad {
    my ($name, $mail, $expected, $place) = @_;

    my ($passed, $output) = $t->check_conf("mail {\n$mail\n}\n");
    my @emerg = grep { /\[emerg\]/ } split(/\n/, $output);

    $place = defined $place ? qr/for server in \S+:\d+$/ : qr/in \S+:\d+$/;

    my $said = !$passed && @emerg == 1 && $emerg[0] =~ $expected
        && $emerg[0] =~ $place;

    ok($said, "$name: refused") or diag($output);
}
