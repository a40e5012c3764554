#!/usr/bin/perl

# A Redis that answers look-ups and refuses to write: it is away, for as long
# as it refuses, and the log says so without "is back" in between.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Test::More;
use Time::HiRes qw(sleep);

use MailPolicy;
use MailPolicy::FakeRedis;

my $t = MailPolicy->new();
my $relay = $t->run_relay(name => 'relay');
my $hash = $t->crypt('secret');

my $fake = MailPolicy::FakeRedis->new(dir => $t->dir(),
    port => $t->port('redis'), modes => { good => sub {
        my ($command) = @_;

        return "+PONG\r\n" if $command eq 'PING';
        return "*5\r\n\$" . length($hash) . "\r\n$hash\r\n" . "\$-1\r\n" x 4
            if $command eq 'HMGET';
        return "-READONLY You can't write against a read only replica.\r\n";
    } });

$t->conf(<<'EOF');
mail {
    policy_redis  redis://127.0.0.1:%%PORT_redis%%;

    server {
        listen                 127.0.0.1:%%PORT_smtp%%;
        protocol               smtp;
        policy                 on;
        policy_auth            redis;
        policy_auth_plaintext  on;
        policy_limit           user  key=$sasl_username  messages=2/1h;
        proxy_pass             127.0.0.1:%%PORT_relay%%;
    }
}
EOF
$t->run_nginx();

my ($logins, @mails) = (0);

# the connections come and go in between

for (1 .. 5) {
    my $c = $t->client('smtp');

    $c->greeting();
    $c->ehlo();

    if ($c->auth_plain('alice@example.com', 'secret') =~ /^235/) {
        $logins++;
        push @mails, ($c->send_mail('alice@example.com',
            [ 'bob@example.net' ], "x\n"))[-1];
    }

    $c->quit();
    sleep(0.4);
}

cmp_ok($logins, '>', 2, 'RED-6 READONLY: logins are answered');
is(scalar(grep { /^250/ } @mails), 2, 'RED-6 READONLY: the local limit holds');

my $log = $t->error_log();
like($log, qr/is away/, 'RED-6 READONLY: it is away');
unlike($log, qr/is back/, 'RED-6 READONLY: and not back');

$fake->stop();
$t->done();
