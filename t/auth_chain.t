#!/usr/bin/perl

# How long a session waits for its providers: one that a relay has refused is
# looked for in a file, in a worker that is to end meanwhile; and a service may
# take longer than a client.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use MIME::Base64 qw(encode_base64);
use Test::More;
use Time::HiRes qw(sleep);

use MailPolicy;
use MailPolicy::AuthService;

my $t = MailPolicy->new();

$t->run_relay(name => 'relay', extensions => [ 'PIPELINING', 'AUTH PLAIN' ],
    users => { 'alice@example.com' => 'canary-a' });

push @{ $t->{servers} }, MailPolicy::AuthService->new(dir => $t->dir(),
    name => 'slow', port => $t->port('slow'), handler => sub {
        my ($socket) = @_;

        sleep(3);
        return MailPolicy::AuthService::reply($socket, 'Auth-Status' => 'OK');
    });

# a hash that takes a good part of a second
$t->write_file('users', 'carol@example.com:'
    . $t->crypt('canary-c', '$6$rounds=1000000$salt$') . "\n");

$t->conf(<<'EOF');
thread_pool  default threads=1;

mail {
    policy                 on;
    policy_auth            relay file:%%DIR%%/users;
    policy_auth_cache      0;
    policy_auth_delay      0;
    policy_auth_plaintext  on;
    proxy_auth_plaintext   on;
    proxy_pass             127.0.0.1:%%PORT_relay%%;

    server {
        listen    127.0.0.1:%%PORT_smtp%%;
        protocol  smtp;
    }

    server {
        listen       127.0.0.1:%%PORT_hasty%%;
        protocol     smtp;
        policy_auth  http://127.0.0.1:%%PORT_slow%%;
        timeout      1s;
    }
}
EOF
$t->run_nginx();

like($t->session('smtp')->auth_plain('alice@example.com', 'canary-a'),
    qr/^235 /, 'the relay knows');

my @clients = map { $t->session('smtp') } 1 .. 4;
my @old = $t->worker_pids();

$_->send_raw('AUTH PLAIN '
    . encode_base64("\0carol\@example.com\0canary-c", '') . "\r\n")
    for @clients;

ok($t->wait_for(sub {
    4 <= (() = $t->error_log() =~ /does not let "carol\@example\.com" log in/g)
}), 'the relay does not know');

$t->reload();

like($_->read_reply(), qr/^235 /, 'the old worker waits for the file\'s')
    for @clients;

$_->close() for @clients;

ok($t->wait_for(sub { !grep { kill(0, $_) } @old }), 'and ends then');

# what "timeout" is for is the client's

my $c = $t->session('hasty');

like($c->auth_plain('alice@example.com', 'canary-a'), qr/^235 /,
    'a service that takes three seconds');
like($c->read_reply(), qr/^421 4\.4\.2 /, 'a client must not');

$t->done();
