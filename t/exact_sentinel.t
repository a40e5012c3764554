#!/usr/bin/perl

# As t/exact.t, with a Redis that Sentinels name, and a replica of it, which
# has the same in the end.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Test::More;

use MailPolicy;
use MailPolicy::Exact;
use MailPolicy::Sentinel;

$ENV{TEST_NGINX_TIMEOUT} //= 1800 if $ENV{TEST_EXACT};

my $t = MailPolicy->new();
my $sentinel = MailPolicy::Sentinel->new($t);
my $master = $sentinel->{a};
my $exact = MailPolicy::Exact->new($t, redis => $sentinel->urls(),
    cmd => sub { return $master->cmd(@_) });

ok($exact->wait_ready(), 'both edges count');
$exact->run();
$exact->check_rates();
$exact->check_counters();

is($master->cmd('WAIT', 1, 5000), 1, 'the replica has all');
$master = $sentinel->{b};
$exact->check_counters();

$exact->check_rest();

$t->stop($_) for qw(a b);
$t->done();
