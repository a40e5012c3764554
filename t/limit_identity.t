#!/usr/bin/perl

# An identity makes exactly one key, whatever is in it: white space, "%",
# braces, octets of 8 bits, commands of Redis, three hundred octets.

use strict;
use warnings;
use utf8;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Digest::SHA qw(sha256_hex);
use Test::More;

use MailPolicy;
use MailPolicy::Limits qw(codes lasting logged_in send_one used_keys);

my $t = MailPolicy->new();
my $redis = $t->run_redis();
my $relay = $t->run_relay(name => 'relay');

my @odd = (
    'white space', '%s%n%x', '{alice@example.com}', 'a}:{b', '*', '-1',
    "na\x{ef}ve", "\x{1f4e7}", 'a:b', 'mail:used:user', "quo'te\"d", 'a\\nb',
    'a%20b', 'a b', '$1', 'EVAL', '0', ' '. 'x', 'l' x 120, 'L' x 121,
    'm' x 129, 'm' x 130, "\x{fc}" x 60, 'redis.call("FLUSHALL")',
);
utf8::encode($_) for @odd;

my $hash = $t->crypt('secret', '$5$rounds=1000$mailpolicy$');

$t->conf(<<'EOF');
mail {
    policy_redis  redis://127.0.0.1:%%PORT_redis%% timeout=5s;
    proxy_pass    127.0.0.1:%%PORT_relay%%;
    policy_auth_plaintext  on;

    server {
        listen        127.0.0.1:%%PORT_odd%%;
        protocol      smtp;
        policy        on;
        policy_auth   redis;
        policy_limit  odd      key=$sasl_username     messages=2/1h;
    }

    server {
        listen        127.0.0.1:%%PORT_sender%%;
        protocol      smtp;
        policy        on;
        policy_auth   off;
        policy_limit  odder    key=$sender            messages=1/1h;
    }
}
EOF
$t->run_nginx();


sub session { return logged_in($t, @_) }


# as keys have it
sub escaped { return $_[0] =~ s/([^!-~]|[{}%])/sprintf('%%%02X', ord $1)/ger }

sub user {
    $redis->cmd('HSET', 'mail:user:{' . escaped($_[0]) . '}',
        'password', $hash);
}


# odd logins: one key each, and each is at its own limit

my (%expected, $c);

for my $login (@odd) {
    (my $shown = substr($login, 0, 16)) =~ s/[^ -~]/?/g;
    user($login);
    $c = session('odd', $login);

    if (!ref $c) {
        # white space at an end, and the like
        like($c, qr/^5\d\d /, "RED-1 $shown: is no login");
        next;
    }

    my $key = escaped(lc $login);
    $key = 'sha256-' . sha256_hex(lc $login) if length $key > 128;
    $expected{"odd:{$key}"} = 1;

    is(codes(map { send_one($c, 'a@example.com') } 1 .. 3), '250 250 450',
        "RED-1 RED-2 $shown: has a limit of its own");
    $c->quit();
}

cmp_ok(scalar keys %expected, '>=', 20, 'RED-1 most of them are logins');
is_deeply([ grep { /^odd:/ } used_keys($redis) ], [ sort keys %expected ],
    'RED-1 RED-2 one key each');

for my $login ("a\r\nSET pwned 1", "a\0b", "a\tb", "a\x7f", "\xff\xfe", '') {
    user($login);
    (my $shown = $login) =~ s/[^ -~]/?/g;
    like(session('odd', $login), qr/^5\d\d /, "RED-1 \"$shown\": refused");
}

# odd senders

$c = session('sender');
my $count = () = $redis->keys('mail:used:odder:*');

for my $sender ('"a b"@example.com', '"%s%n"@example.com', '{x}@example.com',
    '"x}:{y"@example.com', 'a%b@example.com', '"a\\"b"@example.com',
    'x@[192.0.2.1]', 'x@[IPv6:2001:db8::1]', 'l' x 64 . '@example.com',
    'x@' . join('.', ('d' x 60) x 3))
{
    my $shown = substr($sender, 0, 24);

    is(codes(map { send_one($c, $sender) } 1 .. 2), '250 450',
        "RED-1 $shown: has a limit of its own");
    is(scalar(() = $redis->keys('mail:used:odder:*')), ++$count,
        "RED-2 $shown: one key more");
}

is_deeply([ grep { !/^mail:(?:used:|user:|events$)/ } $redis->keys() ], [],
    'RED-1 nothing else was written');
is_deeply([ grep { !/^mail:used:\w+:\{[!-z|~]+\}$/ }
        $redis->keys('mail:used:*') ], [],
    'RED-2 one pair of braces a key, no control octets');

$t->stop();

is_deeply([ lasting($redis) ], [], 'no key without TTL');

$t->done();
