#!/usr/bin/perl

# Two nginx of two workers each, one Redis: not one message too many, and
# each counter is what was accepted.  What is asked, and how, is said in
# tests/lib/MailPolicy/Exact.pm.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Test::More;

use MailPolicy;
use MailPolicy::Exact;

$ENV{TEST_NGINX_TIMEOUT} //= 1800 if $ENV{TEST_EXACT};

my $t = MailPolicy->new();
my $redis = $t->run_redis();
my $exact = MailPolicy::Exact->new($t,
    redis => 'redis://127.0.0.1:%%PORT_redis%%',
    cmd   => sub { return $redis->cmd(@_) });

ok($exact->wait_ready(), 'both edges count');
$exact->run();
$exact->check_rates();
$exact->check_counters();
$exact->check_rest();

$t->stop($_) for qw(a b);
is_deeply([ grep { $_ ne 'mail:events' && $redis->cmd('PTTL', $_) == -1 }
    $redis->keys() ], [], 'no key without TTL');

$t->done();
