#!/usr/bin/perl

# What once went wrong in a session, each with what it looked like.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use MIME::Base64 qw(encode_base64);
use Test::More;
use Time::HiRes qw(sleep time);

use MailPolicy;
use MailPolicy::Limits qw(wait_used);

eval { require IO::Socket::SSL };
plan(skip_all => 'IO::Socket::SSL is not installed') if $@;

my $t = MailPolicy->new();
my $redis = $t->run_redis();
my $relay = $t->run_relay(name => 'relay');

$t->certificate('edge');

# takes so long that a test can act meanwhile
$t->write_file('users', 'alice@example.com:'
    . $t->crypt('secret', '$6$rounds=600000$mailpolicytest$') . "\n");

$t->conf(<<'EOF');
worker_shutdown_timeout  5s;

mail {
    server_name          edge.example.com;
    ssl_certificate      %%DIR%%/edge.crt;
    ssl_certificate_key  %%DIR%%/edge.key;

    policy               on;
    policy_redis         redis://127.0.0.1:%%PORT_redis%% timeout=5s;
    policy_auth          off;
    proxy_pass           127.0.0.1:%%PORT_relay%%;

    server {
        listen    127.0.0.1:%%PORT_smtp%%;
        protocol  smtp;
        policy_limit  sender  key=$sender  messages=100/1h;
    }

    server {
        listen    127.0.0.1:%%PORT_tls%% ssl sndbuf=4k;
        protocol  smtp;
    }

    server {
        listen    127.0.0.1:%%PORT_auth%%;
        protocol  smtp;
        policy_auth            file:%%DIR%%/users;
        policy_auth_plaintext  on;
    }

    server {
        listen    127.0.0.1:%%PORT_hasty%%;
        protocol  smtp;
        timeout   200ms;
        policy_auth            file:%%DIR%%/users;
        policy_auth_plaintext  on;
    }
}
EOF
$t->run_nginx();

# with the counters of this machine, whose answers come in order

$t->conf('local', <<'EOF');
mail {
    policy       on;
    policy_auth  off;
    proxy_pass   127.0.0.1:%%PORT_relay%%;

    map $recipient $first {
        default          "";
        a@example.net    k;
        both@example.net k;
    }

    map $recipient $second {
        default          "";
        b@example.net    k;
        both@example.net k;
    }

    map $recipient_domain $nowhere { default dead; }

    upstream dead { server 127.0.0.1:1 down; }

    server {
        listen    127.0.0.1:%%PORT_keys%%;
        protocol  smtp;
        proxy_pass    $nowhere;
        policy_limit  one  key=$first   messages=blocked;
        policy_limit  two  key=$second  messages=100/1h;
    }

    server {
        listen    127.0.0.1:%%PORT_domain%%;
        protocol  smtp;
        policy_max_recipients  1000;
        policy_limit  domain  key=$recipient_domain  messages=100/1h;
    }
}
EOF
$t->run_nginx('local');


sub session {
    my ($where) = @_;

    return $t->session($where // 'smtp', tls => ($where // '') eq 'tls');
}


sub auth {
    my ($c) = @_;

    $c->send_raw('AUTH PLAIN '
        . encode_base64("\0alice\@example.com\0secret", '') . "\r\n");
}


my $mail = 'MAIL FROM:<alice@example.com>';
my $rcpt = 'RCPT TO:<bob@example.net>';

# a 3xx other than 354 was passed on; the client's body were commands then

$relay->set(data => '355 go on');

my $c = session();
$c->pipeline($mail, $rcpt);
like($c->cmd('DATA'), qr/^451 4\.4\.2 /, 'OUT-3 DATA answered with 355');
like($c->cmd('DATA'), qr/^503 /, 'OUT-3 no body is awaited');
$c->quit();
$relay->set(data => undef);

# with replies due, the last one was thrown away with them

$relay->set(mail => { delay => 0.5, then => 'ok' });

$c = session();
$c->send_raw("$mail\r\n" . "RCPT TO:<bad\r\n" x 5);
is($c->read_reply(), '421 4.7.0 Too many errors',
    'STATE-9 too many errors while MAIL is due');
ok($c->wait_close(), 'STATE-9 closed');

$c = session();
$c->send_raw("$mail\r\nRCPT TO:<" . 'x' x 70000);
like($c->read_reply(), qr/^421 4\.7\.0 /,
    'RES-1 an endless line while MAIL is due');
$relay->set(mail => undef);

# a recipient that waited for the key of a later one was never answered

$c = session('keys');
my @replies = $c->pipeline($mail, map { "RCPT TO:<$_\@example.net>" }
    qw(a both b));
is(join(' ', map { substr($_, 0, 3) } @replies), '250 450 450 451',
    'each recipient is answered, whichever of them waits for another');
$c->quit();

# each that waited was asked for again whenever any other got on

my ($pid) = $t->worker_pids('local');
$relay->set(rcpt => '550 5.1.1 no such user');

$c = session('domain');
my $before = rss($pid);
@replies = $c->pipeline($mail, map { "RCPT TO:<u$_\@example.net>" } 1 .. 1000);
is(scalar(grep { /^550 5\.1\.1 / } @replies), 1000,
    'a thousand recipients under one key');

SKIP: {
    skip('a sanitizer keeps what is freed', 1)
        if MailPolicy::Nginx::slurp("/proc/$pid/maps") =~ /asan/;

    cmp_ok(rss($pid) - $before, '<', 4000, 'they need no megabytes to wait');
}

$c->quit();
$relay->set(rcpt => undef);

# OpenSSL refused a write that was tried again from a buffer that had moved

my $reply = '550 5.1.1 ' . 'x' x 390;
$relay->set(rcpt => $reply);

$c = session('tls');
$c->cmd($mail);
my $sent = 0;

for (1 .. 25) {
    $c->send_raw("$rcpt\r\n" x 40) or last;
    $sent += 40;
    sleep(0.002);
}

my $same = 0;
$same++ while $same < $sent && $c->read_reply() eq $reply;
is($same, 1000, 'a client over TLS that reads late gets every reply');
$c->quit();
$relay->set(rcpt => undef);

# the time of a thread that hashes was not limited

$c = session('hasty');
auth($c);
like($c->read_reply(), qr/^421 4\.4\.2 /, 'AUTH takes too long');

# a worker exited although a password was being hashed, or 421 was not out

my $idle = session();
$idle->pipeline($mail, $rcpt);
is_deeply(wait_used($redis, 'sender', 'alice@example.com', [ 1, 0 ]),
    [ 1, 0 ], 'a message is charged');

$c = session('auth');
auth($c);
sleep(0.05);
ok($t->reload(), 'reload');

is($idle->read_reply(), '421 4.3.2 Service shutting down', 'E7 idle: 421');
like($c->read_reply(), qr/^235 /, 'E7 AUTH is answered');
like($c->read_reply(), qr/^421 4\.3\.2 /, 'E7 then 421');
is_deeply(wait_used($redis, 'sender', 'alice@example.com', [ 0, 0 ]),
    [ 0, 0 ], 'E7 what was charged is given back');

# a charge that was given up while Redis was slow was never given back

$redis->cmd('CLIENT', 'PAUSE', 600);
$c = session();
$c->send_raw("$mail\r\n");
sleep(0.1);
$c->close();

($pid) = $t->worker_pids();
ok($t->reload(), 'reload');
ok($t->wait_for(sub { !kill(0, $pid) }), 'the worker exits');
$redis->cmd('PING') for 1 .. 2;
is_deeply(wait_used($redis, 'sender', 'alice@example.com', [ 0, 0 ], 1),
    [ 0, 0 ], 'E9 what was charged late is given back');

# worker_shutdown_timeout cut the store first: nothing was given back

$relay->set(rcpt => 'hang');
my @held = map { session() } 1 .. 3;
$_->send_raw("$mail\r\n$rcpt\r\n") for @held;
is_deeply(wait_used($redis, 'sender', 'alice@example.com', [ 3, 0 ]),
    [ 3, 0 ], 'messages are charged');

($pid) = $t->worker_pids();
ok($t->reload(), 'reload');
ok($t->wait_for(sub { !kill(0, $pid) }), 'worker_shutdown_timeout: it exits');
is_deeply(wait_used($redis, 'sender', 'alice@example.com', [ 0, 0 ]),
    [ 0, 0 ], 'E8 what was charged is given back');

$t->done();


sub rss {
    my ($pid) = @_;

    return MailPolicy::Nginx::slurp("/proc/$pid/status") =~ /^RssAnon:\s+(\d+)/m
        ? $1 : 0;
}
