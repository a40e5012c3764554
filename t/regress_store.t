#!/usr/bin/perl

# What once went wrong in a store, each with what it looked like.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use List::Util qw(shuffle);
use Test::More;

use MailPolicy;
use MailPolicy::Limits qw(send_one);

use constant SENDERS => 1050;
use constant WIDE    => 12;

my $t = MailPolicy->new();
my $relay = $t->run_relay(name => 'relay');

$t->conf(<<'CONF');
mail {
    policy_zone  1m;
    policy_auth  off;
    proxy_pass   127.0.0.1:%%PORT_relay%%;

    server {
        listen        127.0.0.1:%%PORT_narrow%%;
        protocol      smtp;
        policy        on;
        policy_limit  narrow  key=$sender  messages=100/1d;
    }

    server {
        listen        127.0.0.1:%%PORT_wide%%;
        protocol      smtp;
        policy        on;
        policy_limit  wide    key=$sender  messages=1/1d recipients=10/1d;
    }
}
CONF
$t->run_nginx();


sub session {
    my ($where) = @_;

    return $t->session($where);
}


# The name that stands in the log had no room for the longest number.  Only
# with AddressSanitizer this is seen.

my ($passed, $output) = $t->check_conf(<<'CONF');
mail {
    policy_redis  unix:/x  db=9223372036854775807;

    server {
        listen       127.0.0.1:%%PORT_check%%;
        protocol     smtp;
        policy       on;
        policy_auth  off;
        proxy_pass   127.0.0.1:%%PORT_relay%%;
    }
}
CONF
ok($passed, 'the largest number of a database') or diag($output);


# A zone that is full of keys with one counter, used last in any order, so
# that those that give way leave holes everywhere: a key with two counters
# needs more room than any hole has.

my $narrow = session('narrow');

srand(1);

for my $round (1 .. 3) {
    my @senders = shuffle(1 .. SENDERS);

    while (my @some = splice(@senders, 0, 50)) {
        $narrow->pipeline(map { ("MAIL FROM:<n$_\@example.com>", 'RSET') }
            @some);
    }
}

my $wide = session('wide');
my @replies = map { send_one($wide, "w$_\@example.com") }
    map { ($_) x 2 } 1 .. WIDE;

is(join(' ', map { substr($_, 0, 3) } @replies),
    join(' ', ('250 450') x WIDE),
    'a full zone: keys with two counters are counted, too');
unlike($t->error_log(), qr/policy_zone is too small/,
    'a full zone: nothing is lost');

$t->done();
