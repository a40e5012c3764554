#!/usr/bin/perl

# A Cluster: one of three masters is killed while two edges count, and its
# replica takes over.  As t/failover.t; what is said in
# tests/lib/MailPolicy/Failover.pm holds for keys of the other masters, too.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Test::More;

use MailPolicy;
use MailPolicy::Cluster;
use MailPolicy::Failover;

my $t = MailPolicy->new();
my $cluster = MailPolicy::Cluster->new($t);
my ($old, @others) = $cluster->masters();
my ($range) = grep { $_->[2] == $old->port() } $cluster->slots();

# the first one that is asked is the one that dies
my $failover = MailPolicy::Failover->new($t,
    redis => join(' ', map { $_->url() } $old, @others) . ' cluster');


# a key of that one

my $number = 0;

sub key_of {
    my ($node) = @_;

    my $key;

    do { $key = 'k' . ++$number . '@cluster.example' } until $cluster->owner(
        $cluster->slot("mail:used:x:{$key}"), $others[0]) == $node;

    return $key;
}

$failover->run('RED-9 killed', [ map { key_of($_) } $old, $old, @others ],
    old => $old,
    end => sub {
        $old->kill();
        $old->{stopped} = 1;
    },
    new => sub {
        my $new = $cluster->owner($range->[0], $others[0]);
        return $new == $old ? undef : $new;
    },
    is_back => sub {
        my $gone = $old->url() . ' has no part in the cluster any more';
        return !grep { 2 != (() = $t->error_log($_) =~ /\Q$gone\E/g) }
            qw(a b);
    },
    where => $cluster);

$t->done();
