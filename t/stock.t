#!/usr/bin/perl

# What stays nginx' own in a server with "policy on": PTR look-up, greeting,
# greeting delay, PROXY protocol, the real address; and what of it reaches
# limits, relay and log.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Test::More;
use Time::HiRes qw(time);

use MailPolicy;
use MailPolicy::Dns;

my $t = MailPolicy->new();
my $relay = $t->run_relay(name => 'relay',
    extensions => [ 'PIPELINING', 'XCLIENT NAME ADDR PORT HELO LOGIN PROTO' ]);

my %ptr = (
    '127.0.0.1' => 'host.example',
    '127.0.0.2' => "evil\r\nXCLIENT\x00 x.example",
    '127.0.0.3' => 'liar.example',
);
my $dns = MailPolicy::Dns->new(dir => $t->dir(), port => $t->port('dns'),
    ptr => \%ptr,
    a => { 'host.example' => '127.0.0.1', 'liar.example' => '192.0.2.1',
           lc($ptr{'127.0.0.2'}) => '127.0.0.2' });
push @{ $t->{servers} }, $dns;

$t->conf(<<'EOF');
mail {
    server_name  edge.example.com;

    policy       on;
    policy_auth  off;
    proxy_pass   127.0.0.1:%%PORT_relay%%;
    access_log   %%DIR%%/access.log;

    server {
        listen        127.0.0.1:%%PORT_ptr%%;
        protocol      smtp;
        resolver      127.0.0.1:%%PORT_dns%%;
    }

    server {
        listen               127.0.0.1:%%PORT_delay%%;
        protocol             smtp;
        smtp_greeting_delay  500ms;
    }

    server {
        listen             127.0.0.1:%%PORT_proxy%% proxy_protocol;
        protocol           smtp;
        set_real_ip_from   127.0.0.1;
        policy_limit       client  key=$client_net  messages=1/1h;
    }
}
EOF
$t->run_nginx();

# PTR

for my $case ([ '127.0.0.1', 'host.example', 'host.example' ],
    [ '127.0.0.3', undef, '[UNAVAILABLE]' ],
    [ '127.0.0.4', undef, '[UNAVAILABLE]' ])
{
    my ($from, $name, $xclient) = @$case;
    my $c = $t->client('ptr', from => $from);

    like($c->greeting(), qr/^220 edge\.example\.com /, "PTR of $from");
    $c->ehlo();
    like(($c->send_mail('a@example.com', [ 'b@example.net' ], "x\n"))[-1],
        qr/^250 /, 'mail');
    $c->quit();

    my ($log) = reverse $t->access_log();
    is($log->{client_host}, $name, 'log: client_host');
    is($log->{remote_addr}, $from, 'log: remote_addr');

    my ($said) = reverse grep { /^C: XCLIENT/m } $relay->transcripts();
    like($said, qr/^C: XCLIENT.* NAME=\Q$xclient\E( |\r?$)/m, 'XCLIENT NAME');
    like($said, qr/^C: XCLIENT.* ADDR=\Q$from\E\r?$/m,
        'XCLIENT ADDR, the last');
}

# TRUST-5 CVE-2026-28753; newer nginx refuses such a name by itself

my $c = $t->client('ptr', from => '127.0.0.2');
$c->greeting();
$c->ehlo();
like(($c->send_mail('a@example.com', [ 'b@example.net' ], "x\n"))[-1],
    qr/^250 /, 'TRUST-5 mail');
my ($said) = reverse $relay->transcripts();
like($said, qr/^C: XCLIENT.* NAME=\[(UN|TEMPUN)AVAIL/m,
    'TRUST-5 no such name is passed on');

# greeting delay

$c = $t->client('delay');
my $start = time();
like($c->greeting(), qr/^220 /, 'greeting');
cmp_ok(time() - $start, '>', 0.4, 'delayed');
like($c->ehlo(), qr/^250 /m, 'then a session');
$c->quit();

$c = $t->client('delay');
$c->send_raw("EHLO early.example\r\n");
# by nginx, or, if it is there before anything else, by us
like($c->read_reply(), qr/^(?:503|554) /, 'SMUG-10 who talks too early');
ok($c->wait_close(), 'SMUG-10 is dismissed');

# PROXY protocol

for my $address ('192.0.2.7', '192.0.2.8') {
    $c = $t->client('proxy');
    $c->send_raw("PROXY TCP4 $address 198.51.100.1 4711 25\r\n");
    like($c->greeting(), qr/^220 /, "PROXY from $address");
    $c->ehlo();
    like(($c->send_mail('a@example.com', [ 'b@example.net' ], "x\n"))[-1],
        qr/^250 /, 'its first message');
    like(($c->send_mail('a@example.com', [ 'b@example.net' ], "x\n"))[-1],
        qr/^450 4\.7\.1 Rate limit "client"/, 'the limit counts that address');
    $c->quit();

    my ($log) = reverse $t->access_log();
    is($log->{remote_addr}, $address, 'log: the real address');
}

my ($last) = reverse grep { /^C: XCLIENT/m } $relay->transcripts();
like($last, qr/ADDR=192\.0\.2\.8/, 'XCLIENT: the real address');
like($last, qr/PORT=4711/, 'XCLIENT: the real port');

$t->done();
