#!/usr/bin/perl

# policy_received: the trace field in front of a message, where the relay was
# not told the client, or always, or never; whatever the client is called, it
# is one field, and the message behind it is what the client has sent.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Test::More;

use MailPolicy;

my $t = MailPolicy->new();
my $relay = $t->run_relay(name => 'relay');
my $hash = $t->crypt('secret');

$t->certificate('edge');
$t->write_file('users', "alice\@example.com:$hash\n");

my $servers = join('', map { my ($name, $lines) = @$_; <<"EOF" }
    server {
        listen    127.0.0.1:%%PORT_$name%%;
        protocol  smtp;
        $lines
    }
EOF
    [ auto => '' ], [ on => 'policy_received on;' ],
    [ off => 'policy_received off;' ],
    [ quiet => 'xclient off;' ],
    [ users => 'policy_auth file:%%DIR%%/users; policy_auth_plaintext on;
        starttls on;' ],
    [ normalize => 'policy_bare_newline normalize; policy_received on;' ],
    [ small => 'policy_message_size 100; policy_received on;' ],
    [ limit => 'policy_limit s key=$sender bytes=100/1h;' ]);

$t->conf(<<"EOF");
env TZ;
mail {
    server_name          edge.example.com;
    access_log           %%DIR%%/access.log;
    ssl_certificate      %%DIR%%/edge.crt;
    ssl_certificate_key  %%DIR%%/edge.key;
    policy               on;
    policy_auth          off;
    policy_received      auto;
    proxy_pass           127.0.0.1:%%PORT_relay%%;

$servers
    server {
        listen               127.0.0.1:%%PORT_proxied%%  proxy_protocol;
        protocol             smtp;
        set_real_ip_from     127.0.0.1;
        smtp_greeting_delay  1ms;
    }

    server {
        listen    unix:%%DIR%%/socket;
        protocol  smtp;
    }
}
EOF

$ENV{TZ} = 'UTC-5:45';
$t->run_nginx();

my $DATE = qr/(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun),\ [0-3]\d\ [A-Z][a-z][a-z]\ 20\d\d
              \ [0-2]\d:[0-5]\d:[0-5]\d\ \+0545/x;


# the last message, without the final dot

sub last_raw {
    my $raw = ($relay->received())[-1]{raw};
    return $raw =~ s/^\.\r\n\z//mr;
}


sub greeted {
    my ($where, $helo, %option) = @_;

    my $c = $t->client($where, %option);
    $c->greeting();
    $c->ehlo($helo // 'laptop');
    return $c;
}


# a message in a session of its own: what the relay got of it

sub sent {
    my ($c, $text, @rcpts) = @_;

    my @replies = $c->send_mail('s@example.com',
        @rcpts ? \@rcpts : [ 'r@example.net' ], $text);
    $c->quit();
    return $replies[-1] =~ /^250/ ? last_raw() : $replies[-1];
}


my $TEXT = "Subject: x\r\n\r\n.dot\r\n";
my $WIRE = "Subject: x\r\n\r\n..dot\r\n";

# who is told of it

my $FIELD = qr/Received:\ from\ laptop\ \(\[127\.0\.0\.1\]\)\r\n
    \tby\ edge\.example\.com\ with\ ESMTP\ id\ \d+-1;\r\n\t$DATE\r\n/x;

like(sent(greeted('auto'), $TEXT), qr/\A$FIELD\Q$WIRE\E\z/,
    'auto: a relay without XCLIENT');
is(sent(greeted('off'), $TEXT), $WIRE, 'off: as the client has sent it');
$relay->set(extensions => [ 'PIPELINING', 'XCLIENT ADDR NAME HELO' ]);
is(sent(greeted('auto'), $TEXT), $WIRE, 'auto: a relay that took XCLIENT');
like(sent(greeted('on'), $TEXT), qr/\A$FIELD\Q$WIRE\E\z/, 'on: always');
like(sent(greeted('quiet'), $TEXT), qr/\A$FIELD/,
    'auto: a relay that was not told, as "xclient off"');
$relay->set(extensions => [ 'PIPELINING', 'XCLIENT HELO LOGIN' ]);
like(sent(greeted('auto'), $TEXT), qr/\A$FIELD/,
    'auto: a relay that does not want the address');
$relay->set(extensions => [ 'PIPELINING', '8BITMIME', 'SMTPUTF8' ]);

# once, whatever comes of the client

like(sent(greeted('auto'), ''), qr/\A$FIELD\z/, 'an empty message');
my $c = greeted('auto');
$c->cmd($_) for 'MAIL FROM:<s@example.com>', 'RCPT TO:<a@example.net>',
    'RCPT TO:<b@example.net>', 'DATA';
$c->send_raw($_) && select(undef, undef, undef, 0.02)
    for split(//, "A: b\r\n\r\nc\r\n."), "\r\n";
like($c->read_reply(), qr/^250/, 'an octet at a time');
like(last_raw(), qr/\A${FIELD}A: b\r\n\r\nc\r\n\z/, 'an octet at a time');
unlike(last_raw(), qr/example\.net/, 'no recipient is told of another');
$c->send_mail('s@example.com', [ 'r@example.net' ], "x\n");
like(last_raw(), qr/ id \d+-2;/, 'the number of the transaction');
my ($id) = last_raw() =~ / id (\d+-\d+);/;
$c->quit();
is(join('-', @{ ($t->access_log())[-1] }{qw(connection transaction)}), $id,
    'the id is that of the access log');

my $big = "Subject: big\r\n\r\n" . ('x' x 70 . "\r\n") x 20_000;
my $got = sent(greeted('auto'), $big);
ok($got =~ s/\A$FIELD// && $got eq $big, 'a large message');
like(sent(greeted('normalize'), "a\r\n.b\r\n"), qr/\A${FIELD}a\r\n\.\.b\r\n\z/,
    'policy_bare_newline normalize');

# it is none of the client's octets

is(substr(sent(greeted('small'), 'x' x 98), 0, 9), 'Received:',
    'does not count for policy_message_size');
$c = greeted('limit');
my @replies = map { ($c->send_mail('s@example.com', [ 'r@example.net' ],
    'x' x 48))[-1] } 1 .. 2;
is(join(' ', map { substr($_, 0, 3) } @replies), '250 250',
    'does not count for bytes=');
$c->quit();
is(($t->access_log())[-1]{message_size}, 50, 'nor for message_size');
like(sent(greeted('auto'), "Received: x\n" x 99),
    qr/\A$FIELD(?:Received: x\r\n){99}/, 'does not count as a hop here');
like(sent(greeted('auto'), "Received: x\n" x 100), qr/^554 5\.4\.6 /,
    'TRUST-9 a hundred hops');

# how the client came in

$c = greeted('users');
$c->auth_plain('alice@example.com', 'secret');
$got = sent($c, $TEXT);
like($got, qr/ with ESMTPA id /, 'with a login');
unlike($got, qr/alice/, 'which is nobody\'s business');
$c = $t->client('users');
$c->greeting();
$c->ehlo('laptop');
$c->starttls();
$c->ehlo('laptop');
$c->auth_plain('alice@example.com', 'secret');
$c->cmd('MAIL FROM:<s@example.com> SMTPUTF8');
$c->cmd($_) for 'RCPT TO:<r@example.net>', 'DATA';
like($c->cmd("x\r\n."), qr/^250/, 'SMTPUTF8, TLS, login');
like(last_raw(), qr/ with UTF8SMTPSA id /, 'SMTPUTF8, TLS, login: with');
$c->quit();
$c = $t->client('auto');
$c->greeting();
$c->cmd('HELO laptop');
like(sent($c, $TEXT), qr/ with SMTP id /, 'HELO');

# what it is called

my $by = qr/\r\n\tby edge\.example\.com /;

for my $case ([ '[192.0.2.9]', '[192.0.2.9]' ], [ 'a_b.example', 'a_b.example' ],
    [ 'a(b', 'unknown' ], [ "a\xc3\xa4", 'unknown' ], [ 'a b', 'unknown' ],
    [ 'a;b', 'unknown' ])
{
    my ($helo, $name) = @$case;
    my $c = $t->client('auto');
    $c->greeting();
    SKIP: {
        skip("EHLO $helo is refused", 1) if $c->ehlo($helo) !~ /^250/;
        like(sent($c, $TEXT),
            qr/\AReceived: from \Q$name\E \(\[127\.0\.0\.1\]\)$by/,
            "TRUST-5 EHLO $helo");
    }
}

my $long = join('.', ('l' x 60) x 4);
$got = sent(greeted('auto', $long), $TEXT);
like($got, qr/\AReceived: from\r\n\t$long\r\n\t\(\[127\.0\.0\.1\]\)$by/,
    'a long name');
cmp_ok($_, '<=', 250, 'no line is long') for map { length } split /\r\n/, $got;

$c = $t->client('proxied');
$c->send_raw("PROXY TCP6 2001:db8::7 2001:db8::1 4711 25\r\n");
$c->greeting();
$c->ehlo('laptop');
like(sent($c, $TEXT), qr/\AReceived: from laptop \(\[IPv6:2001:db8::7\]\)$by/,
    'an IPv6 address, by way of a proxy');

$c = $t->client(undef, path => $t->dir() . '/socket');
$c->greeting();
$c->ehlo('laptop');
like(sent($c, $TEXT), qr/\AReceived: from laptop$by/, 'a unix socket');

$t->done();
