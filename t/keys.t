#!/usr/bin/perl

# Many keys in Redis: what each takes, and that a decision among a million
# takes no longer than one among a thousand.
#
# TEST_KEYS: how many, 20,000 without it.

use strict;
use warnings;

use File::Temp qw(tempdir);
use FindBin;
use Test::More;

use lib "$FindBin::Bin/../tests/lib";

use MailPolicy::Port qw(free_port);
use MailPolicy::Redis;
use MailPolicy::Scripts qw(charge_args);


use constant {
    FEW    => 1000,
    ROUNDS => 31,       # odd: the one in the middle is the median
    CALLS  => 500,      # of each
    MEMORY => 400,      # octets of a key with three units
    BATCH  => 500,
    HOUR   => 3_600_000_000,
};

plan skip_all => 'no redis-server'
    unless grep { -x "$_/redis-server" } split /:/, $ENV{PATH};

my $KEYS = $ENV{TEST_KEYS} // 20_000;

my $dir = tempdir('policy-test-XXXXXX', TMPDIR => 1, CLEANUP => 1);
my %redis = map { $_ => MailPolicy::Redis->new(port => free_port(),
    dir => $dir, name => $_) } qw(few many);
my %count = (few => FEW, many => $KEYS);
my (%sha, %before);

for my $name (sort keys %redis) {
    my $redis = $redis{$name};
    my $scripts = MailPolicy::Scripts->new($redis, "$FindBin::Bin/../policies");

    $sha{$name} = $redis->cmd('SCRIPT', 'LOAD', $scripts->text('charge'));

    # what the first call makes is not of a key
    calls($name, 0 .. 9);
    $redis->cmd('FLUSHDB');
    $before{$name} = memory($redis);
}

for my $name (sort keys %redis) {
    my $bad = 0;

    for (my $n = 0; $n < $count{$name}; $n += BATCH) {
        $bad += calls($name, $n .. $n + BATCH - 1);
    }

    is($bad, 0, "$name: each is charged");
    is($redis{$name}->cmd('DBSIZE'), $count{$name}, "$name: a key for each");
    is($redis{$name}->cmd('INFO', 'keyspace') =~ /keys=(\d+),expires=\1,/, 1,
        "$name: and each has a TTL");
    is_small($name);
}

is_as_quick();
takes();

# more parts of the window

calls('few', (0 .. FEW - 1)) for 1 .. 3;
is($redis{few}->cmd('OBJECT', 'ENCODING', key(7)), 'listpack',
    'a hash stays a small one');

is($redis{$_}->cmd('PING'), 'PONG', "$_: the server is well"),
    $redis{$_}->stop() for sort keys %redis;
done_testing();


sub key { return sprintf('mail:used:user:{user%07d@example.com}', $_[0]) }


# What the module asks for a message of each of these logins, in one write:
# how many were not charged.

sub calls {
    my ($name, @numbers) = @_;

    my $redis = $redis{$name};
    my @unit = ([ 'messages', 'window', 1_000_000, HOUR, 0, 1 ],
        [ 'recipients', 'window', 5_000_000, 24 * HOUR, 0, 2 ],
        [ 'bytes', 'window', 10_000_000_000, 24 * HOUR, 0, 123_456 ]);
    my ($nkeys, undef, undef, @args) = charge_args([ 'user', @unit ]);

    my @requests = map {
        my $key = key($_);
        [ 'EVALSHA', $sha{$name}, $nkeys, $key, $key =~ s/used/limit/r, @args ]
    } @numbers;

    return scalar grep { $_->[0] ne '1' } $redis->pipeline(@requests);
}


sub memory {
    my ($redis) = @_;

    my ($used) = $redis->cmd('INFO', 'memory') =~ /^used_memory:(\d+)/m;
    return $used;
}


sub is_small {
    my ($name) = @_;

    my $each = (memory($redis{$name}) - $before{$name}) / $count{$name};

    cmp_ok($each, '<=', MEMORY, "$name: the memory of a key");
    note(sprintf('%s: %.0f octets a key', $name, $each));
}


# how long the recipe "top" keeps Redis from serving others

sub takes {
    open(my $fh, '<:raw', "$FindBin::Bin/../policies/top.lua") or die $!;
    my $script = do { local $/; <$fh> };

    for my $keys (10_000, 100_000) {
        last if $keys > $KEYS;

        my $begin = cpu($redis{many});
        $redis{many}->cmd('EVAL', $script, 0, 'mail:used:user:*', 10, $keys);
        note(sprintf('top: %.2f s for %d keys',
            (cpu($redis{many}) - $begin) / 1e6, $keys));
    }
}


# microseconds

sub cpu {
    my ($redis) = @_;

    my $sum = 0;
    $sum += $_ for $redis->cmd('INFO', 'cpu')
        =~ /^used_cpu_(?:user|sys):([\d.]+)/mg;
    return 1e6 * $sum;
}


# The processor's time for a call, in rounds by turns, so that whatever else
# this machine does is in the way of both.

sub is_as_quick {
    my %took = (few => [], many => []);

    for my $round (1 .. ROUNDS) {
        for my $name (sort keys %took) {
            my $begin = cpu($redis{$name});

            calls($name, map { int(rand($count{$name})) } 1 .. CALLS);
            push @{ $took{$name} }, (cpu($redis{$name}) - $begin) / CALLS;
        }
    }

    my ($few, $many) = map { (sort { $a <=> $b } @$_)[ ROUNDS / 2 ] }
        @took{qw(few many)};

    cmp_ok($many, '<=', $few * 1.3, 'a decision takes no longer');
    note(sprintf('%.0f microseconds among %d, %.0f among %d', $few,
        $count{few}, $many, $count{many}));
}
