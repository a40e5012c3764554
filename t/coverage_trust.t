#!/usr/bin/perl

# Whom the edge believes, by its ids: headers of the PROXY protocol, good,
# broken and from strangers (TRUST-6); a name server whose answer comes when
# the client is gone (TRUST-7); variables, each computed once (TRUST-8).

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Test::More;
use Time::HiRes qw(time);

use MailPolicy;
use MailPolicy::ScriptedDns;

my $t = MailPolicy->new();
my $redis = $t->run_redis();
my $relay = $t->run_relay(name => 'relay',
    extensions => [ 'PIPELINING', 'XCLIENT ADDR PORT' ]);
my $dns = MailPolicy::ScriptedDns->new(dir => $t->dir(),
    port => $t->port('dns'));
push @{ $t->{servers} }, $dns;

$t->conf(<<'EOF');
mail {
    server_name   edge.example.com;
    access_log    %%DIR%%/access.log;
    policy_redis  redis://127.0.0.1:%%PORT_redis%% timeout=5s;
    policy        on;
    policy_auth   off;
    proxy_pass    127.0.0.1:%%PORT_relay%%;

    map $sender $twice {
        volatile;
        default  "$once+$once";
    }

    map $helo $once {
        volatile;
        default  "$sender_local.$recipient_domain.$sender_local";
    }

    server {
        listen            127.0.0.1:%%PORT_proxy%% proxy_protocol;
        protocol          smtp;
        timeout           1s;
        set_real_ip_from  127.0.0.1;
    }

    server {
        listen    127.0.0.1:%%PORT_nobody%% proxy_protocol;
        protocol  smtp;
    }

    server {
        listen            127.0.0.1:%%PORT_ptr%%;
        protocol          smtp;
        resolver          127.0.0.1:%%PORT_dns%% ipv6=off;
        resolver_timeout  1s;
    }

    server {
        listen        127.0.0.1:%%PORT_keys%%;
        protocol      smtp;
        policy_limit  twice  key=$twice:$twice  messages=100/1h;
    }
}
EOF
$t->run_nginx();

my ($worker) = $t->worker_pids();


# TRUST-6

sub v2 {
    my ($command, $family, $octets, $length) = @_;

    return "\r\n\r\n\0\r\nQUIT\n"
        . pack('CCn', $command, $family, $length // length($octets)) . $octets;
}


my $INET = pack('C4 C4 n n', 192, 0, 2, 7, 198, 51, 100, 1, 4711, 25);
my $INET6 = "\x20\x01\x0d\xb8" . "\0" x 11 . "\7" . "\xfe\x80" . "\0" x 13
    . "\1" . pack('n n', 4711, 25);

my @BROKEN = (
    [ 'no header, but a command' => "EHLO client.example\r\n" ],
    [ 'garbage'                  => join('', map { chr 255 - $_ } 1 .. 60) ],
    [ 'a few octets'             => 'PROXY' ],
    [ 'not TCP'                  => "PROXY UDP4 192.0.2.7 192.0.2.8 1 2\r\n" ],
    [ 'in lower case'            => "proxy TCP4 192.0.2.7 192.0.2.8 1 2\r\n" ],
    [ 'no ports'                 => "PROXY TCP4 192.0.2.7 192.0.2.8\r\n" ],
    [ 'a port too high'          =>
        "PROXY TCP4 192.0.2.7 192.0.2.8 65536 2\r\n" ],
    [ 'a negative port'          => "PROXY TCP4 192.0.2.7 192.0.2.8 -1 2\r\n" ],
    [ 'no address'               => "PROXY TCP4 host.example 192.0.2.8 1 2\r\n" ],
    [ 'no LF'                    => "PROXY TCP4 192.0.2.7 192.0.2.8 1 2\r" ],
    [ 'a bare LF'                => "PROXY TCP4 192.0.2.7 192.0.2.8 1 2\n" ],
    [ 'no end in 5000 octets'    => 'PROXY UNKNOWN ' . 'x' x 5000 . "\r\n" ],
    [ 'v2, half of it'           => v2(0x21, 0x11, '', 12) . substr($INET, 0, 6) ],
    [ 'v2, short for IPv4'       => v2(0x21, 0x11, substr($INET, 0, 11)) ],
    [ 'v2, empty for IPv4'       => v2(0x21, 0x11, '') ],
    [ 'v2, short for IPv6'       => v2(0x21, 0x21, $INET) ],
    [ 'v2, longer than it is'    => v2(0x21, 0x11, $INET, 65535) ],
    [ 'v2, version 1'            => v2(0x11, 0x11, $INET) ],
    [ 'v2, version 3'            => v2(0x31, 0x11, $INET) ],
    [ 'v2, half of its signature' => "\r\n\r\n\0\r\nQU" ],
);

# 107 octets are the longest; newer nginx reads on to 4096
my ($minor) = `$t->{binary} -v 2>&1` =~ m{nginx/1\.(\d+)};
push @BROKEN, [ '108 octets' => 'PROXY UNKNOWN ' . 'x' x 92 . "\r\n" ]
    if $minor < 23;

for my $case (@BROKEN) {
    my ($name, $octets) = @$case;
    my $c = $t->client('proxy');

    $c->send_raw($octets);
    is($c->read_reply(5), 'CLOSED', "TRUST-6 $name: closed without a word");
}

my $start = time();
is($t->client('proxy')->read_reply(8), 'CLOSED', 'TRUST-6 nothing at all');
cmp_ok(time() - $start, '<', 6, 'TRUST-6 nothing at all: has its deadline');

# [ name, server, from, header, address ]

my $v1 = "PROXY TCP4 192.0.2.7 198.51.100.1 4711 25\r\n";

for my $case (
    [ 'v1' => 'proxy', '127.0.0.1', $v1, '192.0.2.7' ],
    [ 'v1, IPv6' => 'proxy', '127.0.0.1',
        "PROXY TCP6 2001:db8::7 fe80::1 4711 25\r\n", '2001:db8::7' ],
    [ 'v1, UNKNOWN' => 'proxy', '127.0.0.1', "PROXY UNKNOWN\r\n", '127.0.0.1' ],
    [ 'v1, 107 octets' => 'proxy', '127.0.0.1',
        'PROXY UNKNOWN ' . 'x' x 91 . "\r\n", '127.0.0.1' ],
    [ 'v1, an address that is none' => 'proxy', '127.0.0.1',
        "PROXY TCP4 999.1.2.3 198.51.100.1 4711 25\r\n", '127.0.0.1' ],
    [ 'v2' => 'proxy', '127.0.0.1', v2(0x21, 0x11, $INET), '192.0.2.7' ],
    [ 'v2, more behind it' => 'proxy', '127.0.0.1',
        v2(0x21, 0x11, $INET . "\4\0\1x"), '192.0.2.7' ],
    [ 'v2, IPv6' => 'proxy', '127.0.0.1', v2(0x21, 0x21, $INET6),
        '2001:db8::7' ],
    [ 'v2, LOCAL' => 'proxy', '127.0.0.1', v2(0x20, 0x11, $INET),
        '127.0.0.1' ],
    [ 'v2, LOCAL and nothing else' => 'proxy', '127.0.0.1', v2(0x20, 0, ''),
        '127.0.0.1' ],
    [ 'v2, UDP' => 'proxy', '127.0.0.1', v2(0x21, 0x12, $INET), '127.0.0.1' ],
    [ 'v1, a stranger' => 'proxy', '127.0.0.9', $v1, '127.0.0.9' ],
    [ 'v2, a stranger' => 'proxy', '127.0.0.9', v2(0x21, 0x11, $INET),
        '127.0.0.9' ],
    [ 'v1, nobody is trusted' => 'nobody', '127.0.0.1', $v1, '127.0.0.1' ],
) {
    my ($name, $server, $from, $header, $address) = @$case;
    my $c = $t->client($server, from => $from);

    $c->send_raw($header);
    like($c->greeting(), qr/^220 /, "TRUST-6 $name: greeted");
    $c->ehlo();
    like(($c->send_mail('a@example.com', [ 'b@example.net' ], "x\n"))[-1],
        qr/^250 /, "TRUST-6 $name: a message");
    $c->quit();

    my ($log) = reverse $t->access_log();
    is($log->{remote_addr}, $address, "TRUST-6 $name: logged");
    is(($relay->received())[-1]{xclient}{ADDR} =~ s/^IPV6://r, $address,
        "TRUST-6 $name: and the relay is told so");
}

my $c = $t->client('proxy');
$c->send_raw("${v1}EHLO client.example\r\n");
like($c->read_reply(), qr/^554 5\.5\.0 /,
    'TRUST-6 SMUG-10 a command behind the header, before the greeting');
ok($c->wait_close(), 'TRUST-6 SMUG-10 closed');

# TRUST-7: answers that are late find nobody (127.0.13.x: see ScriptedDns)

my %FROM = (close => 1, reset => 11);

for my $method (sort keys %FROM) {
    my @from = map { "127.0.13.$_" } $FROM{$method} .. $FROM{$method} + 9;
    my @clients = map { $t->client('ptr', from => $_) } @from;

    ok($t->wait_for(sub { 10 == grep { $dns->asked($_) } @from }),
        "TRUST-7 $method: the questions are out");
    $_->$method() for @clients;
    ok($t->wait_for(sub { $dns->idle() }), "TRUST-7 $method: answered late");

    $c = $t->client('ptr');
    like($c->greeting(), qr/^220 /, "TRUST-7 $method: the next is greeted");
    $c->ehlo();
    like(($c->send_mail('a@example.com', [ 'b@example.net' ], "x\n"))[-1],
        qr/^250 /, "TRUST-7 $method: and served");
    $c->quit();
}

# TRUST-8: of values that depend on each other, in a key: no part is from
# another recipient, none is cut or too long

$c = $t->client('keys');
$c->greeting();
$c->ehlo();

my @domains = map { 'd' x (7 * $_) . '.example' } 1 .. 6;
my @expected = sort map { my $one = "s.$_.s"; my $two = "$one+$one";
    'mail:used:twice:{' . key("$two:$two") . '}' } @domains;

$c->pipeline('MAIL FROM:<s@example.com>', map { "RCPT TO:<r\@$_>" } @domains);
like($c->cmd('DATA'), qr/^354 /, 'TRUST-8 six recipients, pipelined');
like($c->cmd("x\r\n."), qr/^250 /, 'TRUST-8 accepted');
is(join("\n", sort $redis->keys()), join("\n", @expected),
    'TRUST-8 each key is its recipient\'s');
$c->quit();

is(join(' ', $t->worker_pids()), $worker, 'TRUST-7 the worker is the same');
$t->done();


sub key {
    my ($value) = @_;

    require Digest::SHA;
    return length($value) > 128 ? 'sha256-' . Digest::SHA::sha256_hex($value)
                                : $value;
}
