#!/usr/bin/perl

# Who may send where: source routes, routing in local parts, odd addresses,
# loops; and what the relay is told of the client.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Test::More;

use MailPolicy;

my $t = MailPolicy->new();
my $relay = $t->run_relay(name => 'relay', extensions => [ 'PIPELINING',
    '8BITMIME', 'SMTPUTF8', 'XCLIENT NAME ADDR PORT PROTO HELO LOGIN' ]);

$t->write_file('users', "alice\@example.com:{PLAIN}secret\n");

$t->conf(<<'EOF');
mail {
    server_name   edge.example.com;
    access_log    %%DIR%%/access.log;
    policy        on;
    policy_auth   off;
    max_errors    100;
    proxy_pass    127.0.0.1:%%PORT_relay%%;

    upstream circle {
        server  127.0.0.1:%%PORT_circle%%;
        server  127.0.0.1:%%PORT_relay%%  backup;
    }

    server {
        listen      127.0.0.1:%%PORT_smtp%%;
        protocol    smtp;
    }

    server {
        listen      127.0.0.1:%%PORT_auth%%;
        protocol    smtp;
        policy_auth            file:%%DIR%%/users;
        policy_auth_plaintext  on;
    }

    server {
        listen      127.0.0.1:%%PORT_self%%;
        protocol    smtp;
        proxy_pass  127.0.0.1:%%PORT_self%%;
    }

    server {
        listen      127.0.0.1:%%PORT_circle%%;
        protocol    smtp;
        proxy_pass  circle;
    }
}
EOF
$t->run_nginx();

sub session {
    my ($where, $helo) = @_;

    return $t->session($where // 'smtp', helo => $helo);
}

my $c = session();
my $sure = session('auth');
$sure->auth_plain('alice@example.com', 'secret');

# recipients: what a stranger is told, what a user is, and what the relay gets

my $long = 'x' x 64;
my $domain = join('.', ('d' x 61) x 4);

my @RCPT = (
    [ 'RELAY-1', '<@a,@b:user@c.example>', 250, 250, 'user@c.example' ],
    [ 'RELAY-1', '<@a:@b:user@c.example>', 501, 501 ],
    [ 'RELAY-2', '<user%other@ours.example>', 550, 250,
        'user%other@ours.example' ],
    [ 'RELAY-2', '<other!user@ours.example>', 550, 250,
        'other!user@ours.example' ],
    [ 'RELAY-2', '<user@other@ours.example>', 501, 501 ],
    [ 'RELAY-3', '<"user@other"@ours.example>', 550, 250,
        '"user@other"@ours.example' ],
    [ 'RELAY-3', '<"us\\er\\@other"@ours.example>', 550, 250,
        '"us\\er\\@other"@ours.example' ],
    [ 'RELAY-3', '<"a b"@ours.example>', 250, 250, '"a b"@ours.example' ],
    [ 'RELAY-3', '<"a>b"@ours.example>', 250, 250, '"a>b"@ours.example' ],
    [ 'RELAY-3', '<""@ours.example>', 250, 250, '""@ours.example' ],
    [ 'RELAY-3', '<"a"b@ours.example>', 501, 501 ],
    [ 'RELAY-4', '<>', 501, 501 ],
    [ 'RELAY-5', '<postmaster>', 250, 250, 'postmaster' ],
    [ 'RELAY-5', '<PostMaster>', 250, 250, 'PostMaster' ],
    [ 'RELAY-5', '<Postmaster@Ours.Example>', 250, 250,
        'Postmaster@Ours.Example' ],
    [ 'RELAY-5', '<abuse>', 501, 501 ],
    [ 'RELAY-6', '<user@[192.0.2.1]>', 250, 250, 'user@[192.0.2.1]' ],
    [ 'RELAY-6', '<user@[IPv6:2001:db8::1]>', 250, 250,
        'user@[IPv6:2001:db8::1]' ],
    [ 'RELAY-6', '<user@[192.0.2.256]>', 501, 501 ],
    [ 'RELAY-6', '<user@ours.example.>', 501, 501 ],
    [ 'RELAY-6', '<user@>', 501, 501 ],
    [ 'RELAY-6', '<@ours.example>', 501, 501 ],
    [ 'RELAY-6', '<user@-ours.example>', 501, 501 ],
    [ 'RELAY-6', '<user@xn--bcher-kva.example>', 250, 250,
        'user@xn--bcher-kva.example' ],
    [ 'RELAY-7', "<$long\@c.example>", 250, 250, "$long\@c.example" ],
    [ 'RELAY-7', "<x$long\@c.example>", 501, 501 ],
    [ 'RELAY-7', "<u\@$domain>", 250, 250, "u\@$domain" ],
    [ 'RELAY-7', "<u\@$domain." . 'e' x 10 . '>', 501, 501 ],
    [ 'STATE-12', "<a\x01b\@c.example>", 501, 501 ],
    [ 'STATE-12', "<\"a\x7f\"\@c.example>", 501, 501 ],
    [ 'STATE-12', "<\"a\tb\"\@c.example>", 501, 501 ],
    [ 'STATE-12', '<a@c.example> <b@d.example>', 501, 501 ],
    [ 'STATE-12', 'a@c.example', 501, 501 ],
);

for my $case (@RCPT) {
    my ($id, $path, $stranger, $user, $arrives) = @$case;
    my $shown = $path =~ s/([^ -~])/sprintf('\\x%02x', ord $1)/ger;
    $shown = substr($shown, 0, 40);

    for my $who ([ $c, $stranger ], [ $sure, $user ]) {
        my ($client, $code) = @$who;
        my $name = "$id $shown: " . ($client == $c ? 'stranger' : 'user');

        $client->cmd('MAIL FROM:<a@example.com>');
        like($client->cmd("RCPT TO:$path"),
            $code == 501 ? qr/^501 5\.(?:1\.3|5\.[24]) /
            : $code == 550 ? qr/^550 5\.7\.1 / : qr/^250 /, $name);

        if ($code != 250) {
            $client->cmd('RSET');
            next;
        }

        $client->cmd('DATA');
        $client->cmd("x\r\n.");
        is(($relay->received())[-1]{rcpts}[0], $arrives, "$name, arrives");
    }
}

# hops

sub hops {
    my ($name, $fields, $expected, $head) = @_;

    like(($c->send_mail('a@example.com', [ 'b@example.net' ],
        ($head // '') . "Received: by x\n" x $fields . "\nReceived: no\n"))[-1],
        $expected, "TRUST-9 $name");
}

hops('ninety-nine hops', 99, qr/^250 /);
hops('a hundred hops', 100, qr/^554 5\.4\.6 /);
hops('a hundred, the first not', 99, qr/^554 5\.4\.6 /, "received  : by y\n");
hops('folded lines do not count', 99, qr/^250 /, "X: y\n Received: by z\n");
like($c->cmd('NOOP'), qr/^250 /, 'TRUST-9 the session goes on');

# a server that is its own relay

my $self = session('self');
like($self->cmd('MAIL FROM:<a@example.com>'), qr/^451 4\.4\.1 /,
    'TRUST-9 a server does not relay to itself');
$self->quit();
my $circle = session('circle');
like(($circle->send_mail('a@example.com', [ 'b@example.net' ], "x\n"))[-1],
    qr/^250 /, 'TRUST-9 but to another of the group');
$circle->quit();
like($t->error_log(), qr/relay 127\.0\.0\.1:\d+ is this very server/,
    'TRUST-9 logged');

# XCLIENT is not for clients

like($c->cmd('XCLIENT ADDR=192.0.2.1 LOGIN=root'), qr/^550 5\.7\.0 /,
    'TRUST-1 XCLIENT refused');
unlike($c->ehlo(), qr/XCLIENT/, 'TRUST-1 nor offered');
$c->send_mail('a@example.com', [ 'b@example.net' ], "x\n");
my $xclient = ($relay->received())[-1]{xclient};
is($xclient->{ADDR}, '127.0.0.1', 'TRUST-1 the client is who it is');
is($xclient->{LOGIN}, '[UNAVAILABLE]', 'TRUST-1 and has not logged in');

# the name in EHLO: what is no name is not passed on

for my $case ([ 'client.example', 'client.example' ],
    [ 'my_host', 'my_host' ], [ '[192.0.2.1]', '[192.0.2.1]' ],
    [ 'a>b', '' ], [ 'a=b+c', '' ], [ "caf\xc3\xa9", '' ], [ '"x"', '' ],
    [ '-', '-' ], [ 'x' x 256, '' ])
{
    my ($helo, $told) = @$case;
    my $shown = substr($helo, 0, 20) =~ s/[^ -~]/?/gr;

    my $c = session('smtp', $helo);
    like(($c->send_mail('a@example.com', [ 'b@example.net' ], "x\n"))[-1],
        qr/^250 /, "TRUST-5 EHLO $shown");
    my $message = ($relay->received())[-1];
    is($message->{xclient}{HELO}, $told || '[UNAVAILABLE]',
        "TRUST-5 EHLO $shown: XCLIENT");
    like($message->{helo}, qr/^(?:\Q$helo\E|edge\.example\.com)$/,
        "TRUST-5 EHLO $shown: or our own");
    unlike($message->{helo}, qr/[^][A-Za-z0-9._-]/,
        "TRUST-5 EHLO $shown: nothing odd in it");
}

$t->done();
