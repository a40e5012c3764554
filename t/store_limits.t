#!/usr/bin/perl

# What charge.lua makes of several limits, and of own entries.

use strict;
use warnings;

use File::Temp qw(tempdir);
use FindBin;
use Test::More;

use lib "$FindBin::Bin/../tests/lib";

use MailPolicy::Port qw(free_port);
use MailPolicy::Redis;
use MailPolicy::Scripts qw(own used messages bytes session failure);


use constant {
    NEVER => '9007199254740992',
    PLAN  => 2 ** 29,
};

plan skip_all => 'no redis-server'
    unless grep { -x "$_/redis-server" } split /:/, $ENV{PATH};

my $dir = tempdir('policy-test-XXXXXX', TMPDIR => 1, CLEANUP => 1);
my $redis = MailPolicy::Redis->new(port => free_port(), dir => $dir);
my $scripts = MailPolicy::Scripts->new($redis, "$FindBin::Bin/../policies");

all_or_nothing();
soft_limits();
own_entries();
plans();
suspended();
forced();
unreadable();

is($redis->cmd('PING'), 'PONG', 'the server is well');
$redis->stop();
done_testing();


# Asks, and looks at the keys: each has a TTL but an own entry, and a refusal
# changes none.

sub charge {
    my ($now, @limits) = @_;

    my $before = all_keys();
    my $got = $scripts->charge($now, @limits);

    for my $key (grep { !/^mail:limit:/ } $redis->keys()) {
        next if $redis->cmd('TYPE', $key) eq 'string';
        my $ttl = $redis->cmd('PTTL', $key);
        ok(0, "TTL of $key is $ttl") if $ttl < 0;
    }

    is_deeply(all_keys(), $before, 'what is not charged changes nothing')
        if $got->[0] != 1;

    return $got;
}


sub all_keys { return { map { $_ => $redis->cmd('DUMP', $_) } $redis->keys() } }


# at time 0, from nothing
sub fresh {
    my (@limits) = @_;

    $redis->cmd('DEL', $_) for grep { !/^mail:limit:/ } $redis->keys();
    return charge(0, @limits);
}


sub is_charged {
    my ($limits, $name) = @_;

    my @got = map { /^mail:(?:used|lease|failed):(\w+):/ ? $1 : () }
        $redis->keys();
    is("@got", $limits, $name);
}


# rspamd#5480: only one of several buckets charged

sub all_or_nothing {
    my @fits = ([ 'a', messages(9), bytes(8) ], [ 'b', session(9, 's') ],
        [ 'c', failure(9, '00aa 0001') ], [ 'd', messages(9) ]);

    for my $no (messages(5, 6), bytes(5, 6), session(0, 's'),
        failure(0, '00aa 0001'),
        [ 'connections', 'blocked', 0, 0, 0, 1 ])
    {
        for my $where (0 .. 4) {
            my @limits = @fits;
            splice @limits, $where, 0, [ 'n', messages(9), $no ]
                if $no->[0] ne 'messages';
            splice @limits, $where, 0, [ 'n', $no ]
                if $no->[0] eq 'messages';

            is(fresh(@limits)->[0], 0, "$no->[0] refuses, limit $where of 5");
            is_charged('', 'only one of several buckets charged: none is');
        }
    }

    my $got = fresh(@fits);
    is($got->[0], 1, 'all fit');
    is_charged('c b a d', 'only one of several buckets charged: all are');
    is($redis->cmd('HLEN', used('a')), 2, 'with all their units');

    is(charge(1, $fits[0], [ 'b', session(1, 't') ])->[0], 0,
        'what is full refuses the others');
}


sub soft_limits {
    my $soft = { name => 's', soft => 1 };

    my $got = fresh([ $soft, messages(5, 6), bytes(8) ], [ 'a', messages(9) ]);
    is("@$got[0, 3, 12, 10, 19, 22]", '1 0 1 5 8 1',
        'a soft limit refuses nobody');
    is_charged('a', 'and is not charged, with none of its units');

    $got = fresh([ $soft, messages(5, 5), bytes(8) ], [ 'a', messages(9) ]);
    is("@$got[0, 10, 19]", '1 0 7', 'one that fits says what is left');
    is_charged('a s', 'and is charged');

    $got = charge(1, [ $soft, messages(5, 1) ], [ 'a', messages(9) ]);
    is("@$got[0, 3, 11]", '1 0 64999999', 'refuses: until when');

    is(fresh([ $soft, messages(5, 5) ], [ 'a', messages(5, 6) ])->[0], 0,
        'what another limit refuses');
    is_charged('', 'is not charged to a soft one either');

    $got = fresh([ $soft, [ 'messages', 'blocked', 0, 0, 0, 1 ] ],
        [ { name => 't', soft => 1 }, messages(1) ]);
    is("@$got[0, 3, 13]", '1 0 1', 'only soft ones');
    is_charged('t', 'those that fit are charged');

    $got = fresh([ $soft, session(0, 'l'), failure(0, '00aa 0001') ]);
    is($got->[0], 1, 'soft sets');
    is_charged('', 'the same');
}


sub plans {
    my @a = (messages(9), [ 'recipients', 'none', 0, 0, 0, 1 ]);

    $redis->cmd('HSET', own('b'), 'plan', 'gold', 'messages', '3/64s');

    is_deeply(fresh([ 'a', @a ], [ 'b', @a ]), [ 2, 0, '', 'gold' ],
        'another plan than was assumed: which one');
    is_charged('', 'and nothing is charged');

    my $got = fresh([ 'a', @a ], [ { name => 'b', plan => 'gold' }, @a ]);
    is("@$got[0, 21 .. 25, 28]", '1 0 1 1 3 64000000 0',
        'its own rate is before that of its plan');
    is($got->[27], 4, 'and is said to be its own');

    is_deeply(fresh([ { name => 'a', plan => 'gold' }, @a ]), [ 2, 0, '' ],
        'no plan any more');

    is_deeply(fresh([ { name => 'b', plan => 'gold', soft => 1 }, @a ],
        [ { name => 'c', plan => 'x', soft => 1 }, @a ]), [ 2, 0, 'gold', '' ],
        'soft limits too');

    for my $plan ('7', '007', '-', 'a' x 64, 'A_b-9', '9e9', '0x10') {
        $redis->cmd('HSET', own('b'), 'plan', $plan);
        is(fresh([ { name => 'b', plan => $plan }, @a ])->[2], 0,
            "plan $plan");
        is_deeply(fresh([ { name => 'b', plan => '8' }, @a ]), [ 2, 0, $plan ],
            'as it is written');
    }

    for my $plan ('', ' ', 'a b', 'a' x 65, "a\n", "a\0", 'a.b', "\xc3\xa4",
        'a:b', '{a}', '*', "\r\n")
    {
        $redis->cmd('HSET', own('b'), 'plan', $plan);
        $got = fresh([ 'b', @a ]);
        is("@$got[0, 2]", '1 ' . PLAN, 'what is no name of a plan is none');
    }

    $redis->cmd('FLUSHALL');
}


sub suspended {
    my @a = ('a', messages(9), [ 'recipients', 'none', 0, 0, 0, 0 ],
        [ 'bytes', 'unlimited', 0, 0, 0, 1 ], session(9, 's'),
        failure(9, '00aa 0001'));

    for my $value ('yes', '1', 'x', ' ', '00', 'none', "\0") {
        $redis->cmd('HSET', own('a'), 'suspended', $value, 'messages', '9/h');
        my $got = fresh(\@a);

        my @units = map { [ @$got[3 + 9 * $_ .. 11 + 9 * $_] ] } 0 .. 4;
        is_deeply([ $got->[0], $got->[2], @units ],
            [ 0, 0, ([ 0, 4, 0, 0, 0, 4, 0, 0, NEVER ]) x 5 ],
            'suspended: all units are blocked, also for an amount of 0');
        is_charged('', 'and nothing is charged');
    }

    for my $value ('', '0', 'no', 'No', 'NO') {
        $redis->cmd('HSET', own('a'), 'suspended', $value);
        is(fresh(\@a)->[0], 1, "suspended \"$value\" is not");
    }

    $redis->cmd('FLUSHALL');
}


sub forced {
    my $a = { name => 'a', forced => 1 };

    $redis->cmd('HSET', own('a'), 'messages', 'unlimited', 'bytes', '1m/1h',
        'plan', 'gold', 'recipients', '1/h', 'sessions', '5');

    my @units = (messages(5), [ 'bytes', 'none', 0, 0, 0, 1 ],
        [ 'recipients', 'window', 7, 64_000_000, 0, 1, '', 3 ],
        session(1, 's'));
    my $got = fresh([ $a, @units ]);

    is("@$got[0, 2, 4, 5, 8]", '1 0 1 5 0', 'forced: the rate given');
    is("@$got[13, 23, 26, 32]", '0 7 3 1', 'for all units');
    is(charge(1, [ $a, messages(5, 5) ])->[0], 0, 'and it refuses');

    $redis->cmd('HSET', own('a'), 'messages', '0', 'plan', 'a b');
    is(fresh([ $a, @units ])->[2], 0, 'what is not looked at is not bad');
    is(fresh([ { %$a, plan => 'silver' }, @units ])->[0], 1,
        'nor is it another plan');

    $redis->cmd('HSET', own('a'), 'suspended', 'yes');
    is(fresh([ $a, @units ])->[0], 0, 'suspended is suspended');

    $redis->cmd('FLUSHALL');
}


sub own_entries {
    $redis->cmd('HSET', own('a'), 'messages', '2/64s', 'note', '500/1h',
        'recipients', '1k/1h', 'bytes', '1k/64s');

    my @units = (messages(10), [ 'recipients', 'window', 7, 64_000_000, 0, 1 ],
        [ 'bytes', 'none', 0, 0, 0, 1000 ]);
    my $got = fresh( [ 'a', @units ]);

    is_deeply($got, [
        1, 0,
        2, 1, 1, 2, 64_000_000, 0, 4, 0, 1, 0,
           1, 1, 7, 64_000_000, 0, 0, 0, 6, 0,
           1, 1, 1024, 64_000_000, 0, 4, 0, 24, 0 ],
        'own entry: replaces, is skipped where unreadable, adds a unit');

    $redis->cmd('HSET', own('a'), 'messages', '0', 'bytes', '');
    is(fresh( [ 'a', @units ])->[2], 7, 'all three unreadable');

    $redis->cmd('HSET', own('a'), 'messages', 'blocked');
    $redis->cmd('HDEL', own('a'), 'recipients', 'bytes');
    $got = fresh( [ 'a', @units ]);
    is("@$got[0, 2 .. 4]", '0 0 0 4', 'blocked from now on');

    $redis->cmd('HSET', own('a'), 'messages', 'unlimited');
    is(fresh( [ 'a', messages(1) ])->[0], 1, 'unlimited from now on');

    is($redis->cmd('PTTL', own('a')), -1, 'an own entry stays for ever');

    $redis->cmd('FLUSHALL');
}


sub unreadable {
    my @a = ('a', messages(9), [ 'recipients', 'none', 0, 0, 0, 1 ],
        bytes(8), session(9, 's'), failure(9, '00aa 0001'));

    $redis->cmd('HSET', own('a'), 'messages', '20', 'recipients', '1k/1h',
        'bytes', '', 'sessions', '5/1h', 'auth_failures', '5/1h,burst=2',
        'connections', 'x');

    my $got = fresh(\@a);
    is("@$got[0, 2]", '1 31', 'a bit for each unit that is unreadable');
    is("@$got[map { 4 + 9 * $_ } 0 .. 4]", '1 0 2 1 1',
        'what was given stays in force');
    is("@$got[map { 8 + 9 * $_ } 0 .. 4]", '0 0 0 0 0', 'and is said to be');

    $redis->cmd('HSET', own('a'), 'messages', '20/1h', 'sessions', '3');
    $got = fresh(\@a);
    is("@$got[0, 2, 5, 8, 32, 33, 35]", '1 22 20 4 3 60000000 4',
        'the others are read');

    $redis->cmd('DEL', own('a'));
    $redis->cmd('RPUSH', own('a'), 'messages', '1/h');
    $got = fresh(\@a);
    is("@$got[0, 2, 5]", '1 31 9', 'all bits: it is no hash');
    is_deeply(fresh([ { name => 'a', plan => 'gold' }, messages(9) ]),
        [ 2, 0, '' ], 'and names no plan');

    $redis->cmd('FLUSHALL');
}
