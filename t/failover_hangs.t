#!/usr/bin/perl

# Sentinels: the master hangs while two edges count, its replica takes over,
# and the old one wakes up.  As t/failover.t.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Test::More;

use MailPolicy;
use MailPolicy::Failover;
use MailPolicy::Limits qw(send_one);
use MailPolicy::Sentinel;

my $t = MailPolicy->new();
my $sentinel = MailPolicy::Sentinel->new($t);
my ($old, $new) = @$sentinel{qw(a b)};
my $failover = MailPolicy::Failover->new($t, redis => $sentinel->urls());

# what lies in its sockets is carried out when it wakes up, before it is told
# that it is no master any more

$failover->run('RED-9 hangs', [ map { "$_\@hangs.example" }
        qw(busy k1 k2 k3) ],
    old   => $old,
    end   => sub { $old->signal('STOP') },
    new   => sub { return $sentinel->names($new) ? $new : undef },
    after => sub { $old->signal('CONT') });

# it is a master that others can be led astray by until Sentinels tell it

sleep(1);
ok($failover->is_back(), 'it is awake: nobody has gone astray');

my $c = $t->client('a');
$c->greeting();
$c->ehlo();
like(send_one($c, 'new@hangs.example'), qr/^250/, 'it is awake: a message');
is($failover->used_of($new, 'new@hangs.example'), 1,
    'it is awake: the new one counts');

$t->done();
