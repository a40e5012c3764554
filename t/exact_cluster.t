#!/usr/bin/perl

# As t/exact.t, with a Redis Cluster of three masters: the keys of a message
# are spread over them, and still all of them are charged or none.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Test::More;

use MailPolicy;
use MailPolicy::Cluster;
use MailPolicy::Exact;

$ENV{TEST_NGINX_TIMEOUT} //= 1800 if $ENV{TEST_EXACT};

my $t = MailPolicy->new();
my $cluster = MailPolicy::Cluster->new($t);
my @nodes = $cluster->nodes();

# slots do not move here
my @owner;

for my $range ($cluster->slots()) {
    @owner[ $range->[0] .. $range->[1] ]
        = ($cluster->by_port($range->[2])) x ($range->[1] - $range->[0] + 1);
}

my $exact = MailPolicy::Exact->new($t,
    redis => join(' ', map { $_->url() } @nodes[0, 1]) . ' cluster',
    cmd   => sub { return $owner[ $cluster->slot($_[1]) ]->cmd(@_) });

ok($exact->wait_ready(), 'both edges count');
$exact->run();
$exact->check_rates();
$exact->check_counters();
$exact->check_rest();

$t->stop($_) for qw(a b);

for my $node ($cluster->masters()) {
    is_deeply([ grep { $_ ne 'mail:events' && $node->cmd('PTTL', $_) == -1 }
        $node->keys() ], [], 'no key without TTL');
}

$t->done();
