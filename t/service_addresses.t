#!/usr/bin/perl

# A server of "policy_service" with several addresses: where one cannot be
# reached, the next one is tried, and the one that was reached is the first
# the next time.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use IO::Socket::INET;
use Test::More;
use Time::HiRes qw(time);

use MailPolicy;
use MailPolicy::FailAlloc;
use MailPolicy::PolicyServer;
use MailPolicy::Process qw(spawn wait_exit);

use constant TIMEOUT => 3;

my $t = MailPolicy->new();

my $impossible = MailPolicy::FailAlloc::impossible($t);
plan(skip_all => $impossible) if $impossible;

my $library = $t->dir() . '/Addresses.so';
my $status = wait_exit(spawn("$library.log", 'gcc', '-O1', '-g', '-Wall',
    '-Wextra', '-Werror', '-shared', '-fPIC', '-o', $library,
    $t->root() . '/tests/lib/MailPolicy/Addresses.c', '-ldl'), 60);
die $t->read_file("$library.log") if !defined $status || $status != 0;

$t->run_relay(name => 'relay');

# nothing listens on 127.0.0.2; the queue of 127.0.0.3 is full, so that what
# comes is dropped

my $full = IO::Socket::INET->new(LocalAddr => '127.0.0.3',
    LocalPort => $t->port('spf'), Listen => 1, ReuseAddr => 1)
    or die "listen: $!\n";

my @queue = map { IO::Socket::INET->new(PeerAddr => '127.0.0.3',
    PeerPort => $t->port('spf'), Proto => 'tcp', Blocking => 0) } 1 .. 8;

my $service = MailPolicy::PolicyServer->new(dir => $t->dir(), name => 'spf',
    port => $t->port('spf'), handler => sub {
        my ($socket, $request) = @_;

        MailPolicy::PolicyServer::answer($socket, 'DUNNO');
        return $request->{recipient} !~ /^last/;
    });

push @{ $t->{servers} }, $service;

my %port = (mixed => 'spf', dead => 'nobody');

$t->conf(<<"EOF");
mail {
    policy       on;
    policy_auth  off;
    proxy_pass   127.0.0.1:%%PORT_relay%%;

@{[ map { <<"END" } sort keys %port ]}
    server {
        listen          127.0.0.1:%%PORT_$_%%;
        protocol        smtp;
        policy_service  inet:several.test:%%PORT_$port{$_}%%
                        timeout=@{[ TIMEOUT ]}s;
    }
END
}
EOF

{
    local $ENV{LD_PRELOAD} = $library;
    local $ENV{MAIL_POLICY_ADDRESSES} = '127.0.0.2 127.0.0.3 127.0.0.1';

    $t->run_nginx();
}

my $c = begin('mixed');


sub begin {
    my $c = $t->session($_[0]);

    $c->cmd('MAIL FROM:<alice@example.com>');
    return $c;
}


sub rcpt { return $c->cmd("RCPT TO:<$_[0]\@example.net>") }


my $OK = qr/^250 2\.1\.5 /;
my $begin = time();

like(rcpt('last'), $OK, 'the third address answers');

my $took = time() - $begin;

cmp_ok($took, '>=', TIMEOUT / 2 - 0.2, 'the second had its part of the time');
cmp_ok($took, '<', TIMEOUT, 'and no more');

like($t->error_log(), qr/cannot be connected to at 127\.0\.0\.2:\d+, its next (?#
    )address is tried \(111: /, 'the log says so of the first');
like($t->error_log(), qr/cannot be connected to at 127\.0\.0\.3:\d+, its next (?#
    )address is tried \(110: /, 'and of the second');

# that connection was closed

$begin = time();
like(rcpt('last'), $OK, 'again');
cmp_ok(time() - $begin, '<', TIMEOUT / 2 - 0.2,
    'the one that was reached is asked first');

like(rcpt('bob'), $OK, 'and one more');
is($service->connections(), 3, 'each time on a connection of its own');
$c->quit();

# 127.0.0.1 is refused, then 127.0.0.2, as nobody is there; 127.0.0.3 as well

$c = begin('dead');
$begin = time();
is(rcpt('bob'), '451 4.3.5 Server configuration problem',
    'none can be reached');
cmp_ok(time() - $begin, '>=', 0.9, 'all have been tried again');
cmp_ok(time() - $begin, '<', TIMEOUT, 'once');
is((() = $t->error_log() =~ /to at 127\.0\.0\.2:$t->{ports}{nobody}, /g), 2,
    'two times each');
$c->quit();

$t->done();
