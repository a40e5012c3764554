#!/usr/bin/perl

# Sentinels: the master is killed while two edges count, and its replica takes
# over.  How much may be accepted then is said in
# tests/lib/MailPolicy/Failover.pm; that all is counted in the new master soon
# after it was named, and handed back to it, too.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Test::More;

use MailPolicy;
use MailPolicy::Failover;
use MailPolicy::Sentinel;

my $t = MailPolicy->new();
my $sentinel = MailPolicy::Sentinel->new($t);
my ($old, $new) = @$sentinel{qw(a b)};
my $failover = MailPolicy::Failover->new($t, redis => $sentinel->urls());

$failover->run('RED-9 killed', [ map { "$_\@killed.example" }
        qw(busy k1 k2 k3) ],
    old  => $old,
    end  => sub { $old->kill() },
    new  => sub { return $sentinel->names($new) ? $new : undef });

$t->done();
