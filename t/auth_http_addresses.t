#!/usr/bin/perl

# A service of "policy_auth http:" with several addresses: where one cannot be
# reached, the next one is tried, and the one that was reached is the first the
# next time.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use IO::Socket::INET;
use Test::More;
use Time::HiRes qw(time);

use MailPolicy;
use MailPolicy::AuthService;
use MailPolicy::FailAlloc;
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
    LocalPort => $t->port('auth'), Listen => 1, ReuseAddr => 1)
    or die "listen: $!\n";

my @queue = map { IO::Socket::INET->new(PeerAddr => '127.0.0.3',
    PeerPort => $t->port('auth'), Proto => 'tcp', Blocking => 0) } 1 .. 8;

my $service = MailPolicy::AuthService->new(dir => $t->dir(), name => 'auth',
    port => $t->port('auth'), handler => sub {
        my ($socket, $request) = @_;

        MailPolicy::AuthService::reply($socket, 'Auth-Status' =>
            $request =~ /^Auth-User: alice/m ? 'OK' : 'No');

        return $request !~ /^Auth-User: last/m;
    });

push @{ $t->{servers} }, $service;

my %server = (mixed => 'several.test:%%PORT_auth%%',
    dead => 'several.test:%%PORT_nobody%%');

my $servers = join('', map { "
    server {
        listen       127.0.0.1:%%PORT_$_%%;
        protocol     smtp;
        policy_auth  http://$server{$_}/auth;
    }
" } sort keys %server);

$t->conf(<<"EOF");
thread_pool  default threads=2;

mail {
    policy                    on;
    policy_auth_plaintext     on;
    policy_auth_delay         0;
    policy_auth_http_timeout  @{[ TIMEOUT ]}s;
    proxy_pass                127.0.0.1:%%PORT_relay%%;
$servers
}
EOF

{
    local $ENV{LD_PRELOAD} = $library;
    local $ENV{MAIL_POLICY_ADDRESSES} = '127.0.0.2 127.0.0.3 127.0.0.1';

    $t->run_nginx();
}

my $c = $t->session('mixed');


sub login { return $c->auth_plain("$_[0]\@example.com", 'canary') }


my $begin = time();
is(login('last'), '535 5.7.8 No', 'the third address answers');
my $took = time() - $begin;

cmp_ok($took, '>=', TIMEOUT / 2 - 0.2, 'the second had its part of the time');
cmp_ok($took, '<', TIMEOUT, 'and no more');

my $log = $t->error_log();
ok($log =~ /127\.0\.0\.2:\d+ cannot be connected|connect\(\) to 127\.0\.0\.2/,
    'the log says so of the first');
ok($log =~ /auth service 127\.0\.0\.3:\d+ could not be connected to in time/,
    'and of the second');

# that connection was closed

$begin = time();
is(login('last'), '535 5.7.8 No', 'again');
cmp_ok(time() - $begin, '<', TIMEOUT / 2 - 0.2,
    'the one that was reached is asked first');

like(login('alice'), qr/^235 /, 'right');
is($service->connections(), 3, 'each time on a connection of its own');

$c = $t->session('dead');
like(login('alice'), qr/^454 /, 'none can be reached');

$t->done();
