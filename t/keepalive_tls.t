#!/usr/bin/perl

# Kept connections with TLS: one handshake for many sessions, XCLIENT anew
# within it, and a relay that closes one is noticed.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Test::More;

use MailPolicy;

my $t = MailPolicy->new();
my ($crt, $key) = $t->certificate('relay', 'relay.example.com');
my %certificate = (cert => $crt, key => $key);
my @ALL = ('PIPELINING', 'XCLIENT NAME ADDR PROTO HELO PORT LOGIN');

my %relay = (
    tls => $t->run_relay(name => 'tls', extensions => [ @ALL ],
        certificate => { %certificate, at_once => 1 }),
    starttls => $t->run_relay(name => 'starttls',
        certificate => \%certificate, extensions => [ @ALL, 'STARTTLS' ]),
);

my %HOW = (tls => 'proxy_ssl on;', starttls => 'proxy_starttls required;');

my $servers = join('', map { <<"EOF_SERVER" } sort keys %HOW);
    upstream $_ {
        server     127.0.0.1:%%PORT_$_%%;
        keepalive  1;
    }

    server {
        listen      127.0.0.1:%%PORT_edge_$_%%;
        protocol    smtp;
        proxy_pass  $_;
        $HOW{$_}
    }
EOF_SERVER

$t->conf(<<"EOF_CONF");
mail {
    server_name                    edge.example.com;
    policy                         on;
    policy_auth                    off;
    proxy_ssl_name                 relay.example.com;
    proxy_ssl_trusted_certificate  %%DIR%%/relay.crt;

$servers
}
EOF_CONF
$t->run_nginx();


# a message in a session of its own: the reply, what the relay was told first

sub message {
    my ($how, $from) = @_;

    my $c = $t->session("edge_$how", from => $from);
    my @replies = $c->send_mail('s@example.com', [ 'r@example.net' ], "x\n");
    $c->quit();

    my $message = ($relay{$how}->messages())[-1];
    return ($replies[-1], $message->{xclient}{ADDR}, join(' ',
        map { /^(EHLO|STARTTLS|XCLIENT)/ } @{ $message->{commands} }));
}


for my $how (sort keys %HOW) {
    my $begin = $how eq 'tls' ? 'EHLO XCLIENT EHLO'
        : 'EHLO STARTTLS EHLO XCLIENT EHLO';

    for my $case ([ '127.0.0.2', $begin ], [ '127.0.0.2', '' ],
        [ '127.0.0.3', 'XCLIENT EHLO' ], [ '127.0.0.3', '' ],
        [ '127.0.0.2', 'XCLIENT EHLO' ])
    {
        my ($from, $expected) = @$case;
        my ($reply, $addr, $told) = message($how, $from);

        like($reply, qr/^250 /, "$how, $from: accepted");
        is($addr, $from, "TRUST-4 $how, $from: the address");
        is($told, $expected, "$how, $from: \"$expected\"");
    }

    is($relay{$how}->stats()->{total}, 1, "$how: one connection");

    for my $action (qw(close rst)) {
        $relay{$how}->set(mail => { times => 1, action => $action });
        my ($reply) = message($how, '127.0.0.2');
        like($reply, qr/^250 /, "$how, $action at MAIL: accepted");
    }

    is($relay{$how}->stats()->{total}, 3, "$how: each time a new one");

    # close_notify, while nobody uses it
    $relay{$how}->set(mail => undef);
    $relay{$how}->stop();
    $relay{$how}->start();
    my ($reply) = message($how, '127.0.0.2');
    like($reply, qr/^250 /, "$how, closed while idle: accepted");
}

$t->stop();
$t->done();
