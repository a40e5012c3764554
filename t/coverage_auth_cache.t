#!/usr/bin/perl

# AUTH-19: what is remembered of a login that was right is good for nobody
# else, for no other password, and for no longer than it may.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Test::More;
use Time::HiRes qw(sleep time);

use MailPolicy;
use MailPolicy::Sasl;

my $INVALID = '535 5.7.8 Authentication credentials invalid';
my $DONE = '235 2.7.0 Authentication successful';

# slow enough to be told from none
my $SALT = '$2b$10$abcdefghijklmnopqrst';

my $t = MailPolicy->new();
my $redis = $t->run_redis();

$t->conf(<<'EOF');
mail {
    server_name            edge.example.com;
    policy_redis           redis://127.0.0.1:%%PORT_redis%% timeout=5s;
    policy                 on;
    policy_auth            redis;
    policy_auth_plaintext  on;
    policy_auth_cache      10m;
    proxy_pass             127.0.0.1:25;
    max_errors             1000;

    server {
        listen    127.0.0.1:%%PORT_cached%%;
        protocol  smtp;
    }

    server {
        listen             127.0.0.1:%%PORT_brief%%;
        protocol           smtp;
        policy_auth_cache  1s;
    }

    server {
        listen             127.0.0.1:%%PORT_never%%;
        protocol           smtp;
        policy_auth_cache  0;
    }
}
EOF
$t->run_nginx();

password('alice', 'canary-one', 'uu');
password('bob', 'canary-one', 'ue');
password('carol', 'canary-two', 'uu');

# each is hashed once; where what is remembered were taken for something else,
# one of these would be let in

is(login('alice', 'canary-one'), $DONE, 'AUTH-19 alice');
is(login('alice', 'canary-two'), $INVALID, 'AUTH-19 alice, wrong');
is(login('bob', 'canary-two'), $INVALID, 'AUTH-19 bob, wrong');
is(login('carol', 'canary-one'), $INVALID, 'AUTH-19 carol, wrong');
is(login('nobody', 'canary-one'), $INVALID, 'AUTH-19 nobody');
is(login('bob', 'canary-one'), $DONE, 'AUTH-19 bob has the same password');
is(login('carol', 'canary-two'), $DONE, 'AUTH-19 carol has another one');
is(login('alice', 'canary-one', 'LOGIN'), $DONE, 'AUTH-19 alice, LOGIN');
is(login('alice', 'canary-two', 'LOGIN'), $INVALID,
    'AUTH-19 alice, LOGIN, wrong');

# a record that changes is in force at once

password('alice', 'canary-new', 'uu');
is(login('alice', 'canary-one'), $INVALID, 'AUTH-19 the old password');
is(login('alice', 'canary-new'), $DONE, 'AUTH-19 the new one');
$redis->cmd('HSET', key('bob'), 'status', 'suspended');
is(login('bob', 'canary-one'), '535 5.7.13 Account suspended',
    'AUTH-19 suspended');
$redis->cmd('DEL', key('carol'));
is(login('carol', 'canary-two'), $INVALID, 'AUTH-19 gone');

# how long a login takes tells whether it was hashed: of several, the least

my $hashed = least(sub { login('alice', 'canary-new', 'PLAIN', 'never') });
my $known = least(sub { login('alice', 'canary-new') });

cmp_ok($known, '<', $hashed / 3, 'AUTH-19 what is known is not hashed')
    or diag("$known s, $hashed s");
cmp_ok(least(sub { login('alice', 'canary-bad') }), '>', $hashed / 3,
    'AUTH-19 a wrong password is, each time');

is(login('alice', 'canary-new', 'LOGIN', 'brief'), $DONE, 'AUTH-19 brief');
sleep(1.2);
my $start = time();
is(login('alice', 'canary-new', 'LOGIN', 'brief'), $DONE, 'AUTH-19 expired');
cmp_ok(time() - $start, '>', $hashed / 3, 'AUTH-19 expired: hashed again');

$t->done();


sub key { return "mail:user:{$_[0]\@example.com}" }


sub password {
    my ($user, $password, $salt) = @_;

    $redis->cmd('HSET', key($user), 'password',
        $t->crypt($password, $SALT . $salt));
}


sub login {
    my ($user, $password, $mechanism, $where) = @_;

    my $c = $t->session($where // 'cached');
    my $reply = MailPolicy::Sasl->new($mechanism // 'PLAIN',
        user => "$user\@example.com", password => $password)->login($c);

    $c->quit();
    return $reply;
}


sub least {
    my ($code) = @_;

    my @took = sort { $a <=> $b } map {
        my $start = time();
        $code->();
        time() - $start;
    } 1 .. 3;

    return $took[0];
}
