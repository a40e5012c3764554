#!/usr/bin/perl

# Limits whose key, condition or text is looked up in Redis, at each point
# where there are limits: connections, logins, failed logins, EHLO, messages,
# recipients.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Test::More;
use Time::HiRes qw(sleep time);

use MailPolicy;
use MailPolicy::Limits qw(lasting send_one used);

my $t = MailPolicy->new();
my $redis = $t->run_redis();
my $relay = $t->run_relay(name => 'relay', store => 0,
    extensions => [ 'PIPELINING' ]);

# what is not there is asked for with each message

$t->conf(<<'EOF');
mail {
    server_name    edge.example.com;
    policy_redis   redis://127.0.0.1:%%PORT_redis%% timeout=5s cache=0;
    policy         on;
    policy_auth    file:%%DIR%%/users;
    policy_auth_plaintext  on;
    proxy_pass     127.0.0.1:%%PORT_relay%%;
    smtp_capabilities  PIPELINING LIMITS;

    policy_lookup  $customer  customer:$sender_domain;
    policy_lookup  $of_login  customer:$sasl_username;
    policy_lookup  $of_rcpt   customer:$recipient_domain;
    policy_lookup  $client    client:$remote_addr;
    policy_lookup  $strict    strict:$sender_domain  1;
    policy_lookup  $guess     guess:$sasl_username;
    policy_lookup  $words     words:$sender_domain   "no words";

    map $customer $outside { default 1; in-house 0; }

    server {
        listen        127.0.0.1:%%PORT_key%%;
        protocol      smtp;
        policy_auth   off;
        policy_limit  c  key=$customer  messages=2/1h  "message=$words, $customer";
    }

    server {
        listen        127.0.0.1:%%PORT_if%%;
        protocol      smtp;
        policy_auth   off;
        policy_limit  i  key=$sender  messages=1/1h  if=$strict;
        policy_limit  o  key=$sender  messages=5/1h  if=$outside;
    }

    server {
        listen        127.0.0.1:%%PORT_rcpt%%;
        protocol      smtp;
        policy_auth   off;
        policy_limit  r  key=$of_rcpt  recipients=2/1h  messages=100/1h;
    }

    server {
        listen        127.0.0.1:%%PORT_connect%%;
        protocol      smtp;
        policy_auth   off;
        policy_limit  n  key=$client  sessions=1;
    }

    server {
        listen        127.0.0.1:%%PORT_login%%;
        protocol      smtp;
        policy_limit  l  key=$of_login  sessions=1  messages=3/1h;
        policy_limit  g  key=$remote_addr  auth_failures=2/1h  if=$guess;
    }
}
EOF
$t->write_file('users', "ann:{PLAIN}secret\nbob:{PLAIN}secret\n");
$t->run_nginx();


sub codes { return join(' ', map { substr($_, 0, 3) } @_) }


# a key: two domains of one customer

my $c = $t->session('key');
$redis->cmd('SET', "mail:customer:$_.example", 'acme') for qw(a b);
is(codes(map { send_one($c, "x\@$_.example") } qw(a b a b none none none)),
    '250 250 450 450 250 250 250', 'a key: domains of one customer share');
is(used($redis, 'c', 'acme', 'messages'), 2, 'counted under its name');
$redis->cmd('SET', 'mail:customer:b.example', 'other');
is(codes(map { send_one($c, "x\@$_.example") } qw(a b)), '450 250',
    'moved to another customer: at once without a cache');
$redis->cmd('SET', 'mail:words:a.example', 'Call us');
like(send_one($c, 'x@a.example'), qr/^450 4\.7\.1 Call us, acme$/,
    'a text of what was looked up');
$redis->cmd('DEL', 'mail:words:a.example');
like(send_one($c, 'x@a.example'), qr/^450 4\.7\.1 no words, acme$/,
    'and its default');
$c->quit();

# a condition, also by a map

$c = $t->session('if');
$redis->cmd('SET', 'mail:strict:b.example', '0');
is(codes(map { send_one($c, "x\@$_.example") } qw(a a b b)),
    '250 450 250 250', 'a condition');
$redis->cmd('SET', 'mail:strict:b.example', 'yes');
is(codes(map { send_one($c, 'y@b.example') } 1 .. 2), '250 450', 'changed');
$redis->cmd('SET', 'mail:strict:in.example', '0');
$redis->cmd('SET', 'mail:customer:in.example', 'in-house');
is(codes(map { send_one($c, 'x@in.example') } 1 .. 7),
    '250 250 250 250 250 250 250', 'a condition by a map');
$c->quit();

# recipients, alone and at once

$c = $t->session('rcpt');
$redis->cmd('SET', "mail:customer:$_.example", 'big') for qw(p q);
is(codes($c->pipeline('MAIL FROM:<x@example.com>', 'RCPT TO:<1@p.example>',
    'RCPT TO:<2@free.example>', 'RCPT TO:<3@q.example>',
    'RCPT TO:<4@p.example>', 'RCPT TO:<5@free.example>', 'DATA')),
    '250 250 250 250 450 250 354', 'recipients of one customer share');
like($c->cmd("x\r\n."), qr/^250 /, 'accepted');
is(used($redis, 'r', 'big', 'recipients'), 2, 'so many recipients');
is(used($redis, 'r', 'big', 'messages'), 1, 'of one message');
$c->quit();

# sessions, of clients and of logins

$redis->cmd('SET', 'mail:client:127.0.0.1', 'office');
my $first = $t->session('connect');
my $second = $t->client('connect');
like($second->greeting(), qr/^220/, 'a second session');
like($second->read_reply(), qr/^421 4\.7\.0/, 'of the same client: 421');
$first->quit();
$redis->cmd('DEL', 'mail:client:127.0.0.1');
my @all = map { $t->session('connect') } 1 .. 3;
is(codes(map { $_->cmd('NOOP') } @all), '250 250 250',
    'no value, no limit');
$_->quit() for @all;

$redis->cmd('SET', "mail:customer:$_", 'acme') for qw(ann bob);
$first = $t->session('login');
like($first->auth_plain('ann', 'secret'), qr/^235/, 'a login');
like($first->ehlo(), qr/LIMITS .*MAILMAX=3/, 'EHLO says what is left');
$second = $t->session('login');
like($second->auth_plain('bob', 'secret'), qr/^421 4\.7\.0/,
    'another login of the same customer: 421');
like(send_one($first, 'x@a.example'), qr/^250/, 'the first may send');
is(used($redis, 'l', 'acme', 'messages'), 1, 'its messages');
$first->quit();

# failed logins: of the login that is tried

$redis->cmd('SET', 'mail:guess:ann', '1');

for my $case ([ bob => '535 535 535 535' ], [ ann => '535 535 454 454' ]) {
    my ($login, $expected) = @$case;

    is(codes(map {
        my $try = $t->session('login');
        my $reply = $try->auth_plain($login, "wrong$_");
        $try->quit();
        $reply;
    } 1 .. 4), $expected, "failed logins of $login");
}

is_deeply([ grep { !/^mail:(?:customer|client|strict|guess|words):/ }
    lasting($redis) ], [], 'no counter without TTL');

$t->done();
