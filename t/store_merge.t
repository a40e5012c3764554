#!/usr/bin/perl

# merge.lua, renew.lua, and what giveback.lua makes of counters that have
# changed meanwhile.

use strict;
use warnings;

use File::Temp qw(tempdir);
use FindBin;
use Test::More;

use lib "$FindBin::Bin/../tests/lib";

use MailPolicy::Port qw(free_port);
use MailPolicy::Redis;
use MailPolicy::Scripts qw(used own lease failed exempt);


use constant NOW => 1754006400000000;

plan skip_all => 'no redis-server'
    unless grep { -x "$_/redis-server" } split /:/, $ENV{PATH};

my $dir = tempdir('policy-test-XXXXXX', TMPDIR => 1, CLEANUP => 1);
my $redis = MailPolicy::Redis->new(port => free_port(), dir => $dir);
my $scripts = MailPolicy::Scripts->new($redis, "$FindBin::Bin/../policies");

merged_windows();
merged_buckets();
merged_failures();
merged_garbage();
merged_charges();
merged_once();
renewed();
given_back_in_another_width();
given_back_twice();
times_to_live();

is($redis->cmd('PING'), 'PONG', 'the server is well');
$redis->stop();
done_testing();


# merges a text into a field (none if undef) at a time

sub merged {
    my ($now, $field, $text, $unit) = @_;

    $redis->cmd('FLUSHALL');
    $redis->cmd('HSET', used('m'), $unit // 'messages', $field)
        if defined $field;

    my $got = $scripts->merge($now, 'm', $unit // 'messages', $text);
    my $ttl = $redis->cmd('PTTL', used('m'));
    my $value = $redis->cmd('HGET', used('m'), $unit // 'messages') // '-';

    ok(0, "TTL of what was merged is $ttl") if "@$got" && $ttl == -1;
    return "@$got $value";
}


# slots are of a second, 1000 of them have begun

sub merged_windows {
    my $now = 1_000_500_000;

    my @case = (
        'nothing there' => undef, 'w 1000000 9 c 998:3 2:1',
            '1 w 1000000 9 c 998:3 2:1',
        'the same slots' => 'w 1000000 7 k 998:1 2:1',
            'w 1000000 9 c 998:3 2:1', '1 w 1000000 9 c 998:4 2:2',
        'slots before, between and behind' => 'w 1000000 7 k 990:1 4:1 4:1',
            'w 1000000 9 c 980:1 12:2 4:2 4:2',
            '1 w 1000000 9 c 980:1 10:1 2:2 2:1 2:2 2:1 2:2',
        'slots that count no more' => 'w 1000000 7 k 900:1 36:4',
            'w 1000000 9 c 900:5 35:1 1:2', '1 w 1000000 9 c 936:6',
        'slots of the future' => 'w 1000000 7 k 1000:1 50:1',
            'w 1000000 9 c 1010:5', '1 w 1000000 9 c 1000:7',
        'all of it counts no more' => undef, 'w 1000000 9 c 935:5', '0 -',
        'nor that into what is there' => 'w 1000000 7 k 990:1',
            'w 1000000 9 c 935:5', '0 w 1000000 7 k 990:1',
        'a narrow one into a wide one' => 'w 10000000 7 k 99:1 1:2',
            'w 1000000 9 c 989:3 1:4 10:5', '1 w 10000000 9 c 98:3 1:5 1:7',
        'a wide one into a narrow one' => 'w 1000000 7 k 990:1',
            'w 10000000 9 c 97:3 1:5 1:1 1:2', '1 w 1000000 9 c 979:3 10:5 1:1 '
            . '9:1 1:2',
        'a bucket gives way' => 'b 1001000000 1 1000000 5 k',
            'w 1000000 9 c 1000:1', '1 w 1000000 9 c 1000:1',
        'garbage gives way' => 'w 1000000 9 c 1000:x',
            'w 1000000 9 c 1000:1', '1 w 1000000 9 c 1000:1',
        'what is full gets fuller' => 'w 1000000 1 k 1000:1',
            'w 1000000 1 c 1000:1', '1 w 1000000 1 c 1000:2',
        'huge counts' => 'w 1000000 1099511627776 k 1000:1099511627776',
            'w 1000000 1099511627776 c 1000:1099511627776',
            '1 w 1000000 1099511627776 c 1000:2199023255552',
        'counts beyond all bounds' => 'w 1000000 1 k 1000:9007199254740992',
            'w 1000000 1 c 1000:9007199254740992',
            '1 w 1000000 1 c 1000:9007199254740992',
    );

    while (my ($name, $field, $text, $want) = splice @case, 0, 4) {
        is(merged($now, $field, $text), $want, "merge of windows: $name");
    }
}


sub merged_buckets {
    my $now = 1_000_000;

    my @case = (
        'nothing there' => undef, 'b 2000000 1 1000000 5 c',
            '1 b 3000000 1 1000000 5 c',
        'on top' => 'b 2500000 1 1000000 9 k', 'b 2000000 1 1000000 5 c',
            '1 b 4500000 1 1000000 5 c',
        'no more than full' => 'b 4500000 1 1000000 9 k',
            'b 2000000 1 1000000 5 c', '1 b 6000000 1 1000000 5 c',
        'an empty one' => 'b 900000 1 1000000 9 k', 'b 2000000 1 1000000 5 c',
            '1 b 3000000 1 1000000 5 c',
        'of the future' => 'b 9007199254740992 1 1000000 9 k',
            'b 1 1 1000000 5 c', '1 b 6000000 1 1000000 5 c',
        'a window gives way' => 'w 1000000 9 c 1:1', 'b 1 1 1000000 5 @',
            '1 b 1000001 1 1000000 5 @',
        'of nothing' => undef, 'b 0 1 1000000 5 c', '0 -',
    );

    while (my ($name, $field, $text, $want) = splice @case, 0, 4) {
        is(merged($now, $field, $text), $want, "merge of buckets: $name");
    }
}


sub merged_failures {
    $redis->cmd('FLUSHALL');
    $redis->cmd('ZADD', failed('m'), 900, '0001', 2000, '0002');

    is("@{ $scripts->merge(1000, 'm', auth_failures =>
        '3000:0001 3000:0002 1000:0003 1001:0004 4000:00ff') }", 1, 'failures');
    is("@{ $redis->cmd('ZRANGE', failed('m'), 0, -1, 'WITHSCORES') }",
        '0004 1001 0002 2000 0001 3000 00ff 4000',
        'those not there, that have not expired');
    cmp_ok($redis->cmd('PTTL', failed('m')), '>', 0, 'with a TTL');

    is("@{ $scripts->merge(1000, 'm', auth_failures => '3000:0002') }", 0,
        'nothing new');
    is("@{ $scripts->merge(1000, 'm', auth_failures => '1000:0005') }", 0,
        'nothing that counts');
    is("@{ $scripts->merge(1000, 'm', auth_failures =>
        '9999999999999999999999:0006') }", 0, 'no number');

    $redis->cmd('FLUSHALL');
    is("@{ $scripts->merge(1000, 'm', auth_failures => '') }", 0, 'none');
    is_deeply([ $redis->keys() ], [ 'mail:merged:m:{u}' ],
        'no counter is made for nothing');
}


sub merged_garbage {
    my $field = 'w 1000000 9 c 1:1';

    for my $text ('', 'x', 'w', 'b', 'w 1000000 1:1', 'w 1000000 9 c',
        'w 1000000 9 c 1:x', 'w 0 9 c 1:1', 'b 5 0 1000000 5 c', 'b 5',
        'b -5 1 1000000 5 c', 'w 1000000 9 c 1:1' . ' 0:1' x 600)
    {
        is(merged(1_500_000, $field, $text), "0 $field",
            'a text that is none changes nothing');
    }

    is(merged(1_500_000, 'w 1000000 9 c 1:1' . ' 0:1' x 600,
        'w 1000000 9 c 1:2'), '1 w 1000000 9 c 1:2', 'nor counts what is long');
}


# charged here and there, or all here: it is the same

sub merged_charges {
    my @units = ([ 'messages', 'window', 9, 64_000_000, 0 ],
        [ 'bytes', 'bucket', 10, 64_000_000, 100 ]);
    my $charge = sub {
        my ($now, $limit, $n) = @_;
        $scripts->charge($now, [ $limit, map { [ @$_, $n ] } @units ]);
    };

    $redis->cmd('FLUSHALL');
    $charge->(NOW, $_, 2) for 'here', 'both';
    $charge->(NOW + 3_000_000, $_, 3) for 'there', 'both';

    my $there = $redis->hash(used('there'));
    my $cost = (split / /, $there->{bytes})[1] - NOW - 3_000_000;
    $there->{bytes} =~ s/^b \d+/b $cost/;

    is("@{ $scripts->merge(NOW + 4_000_000, 'here', %$there) }", 2,
        'two units');
    is_deeply($redis->hash(used('here')), $redis->hash(used('both')),
        'charged in two places, as if in one');
    is_deeply($charge->(NOW + 5_000_000, 'here', 5),
        $charge->(NOW + 5_000_000, 'both', 5), 'and judged the same');
}


# what is not answered is sent again, and may have been done already

sub merged_once {
    my $text = 'w 10000000 90 c 100:5';

    $redis->cmd('FLUSHALL');

    is("@{ $scripts->merge_as('a-1', 1_000_500_000, 'm', messages => $text) }",
        1, 'merged');
    is("@{ $scripts->merge_as('a-1', 1_100_500_000, 'm', messages => $text) }",
        0, 'and not once more');
    is($redis->cmd('HGET', used('m'), 'messages'), $text, 'so it is there once');
    is("@{ $scripts->merge_as('a-2', 1_000_500_000, 'm', messages => $text) }",
        1, 'the next one is another one');
    cmp_ok($redis->cmd('PTTL', 'mail:merged:m:{u}'), '>', 0,
        'what is remembered has a TTL');
}


sub renewed {
    $redis->cmd('FLUSHALL');
    is("@{ $scripts->renew(NOW, 60_000_000, [ a => 's1' ], [ b => 's2' ]) }", 2,
        'two leases');
    is("@{ $scripts->renew(NOW + 1, 60_000_000, [ a => 's3' ]) }", 1, 'one');

    is("@{ $redis->cmd('ZRANGE', lease('a'), 0, -1) }", 's1 s3', 'are there');
    is($redis->cmd('ZSCORE', lease('a'), 's3'), NOW + 60_000_001, 'until');

    $scripts->renew(NOW + 60_000_000, 60_000_000, [ a => 's4' ]);
    is("@{ $redis->cmd('ZRANGE', lease('a'), 0, -1) }", 's3 s4',
        'what has expired is taken away');
    cmp_ok($redis->cmd('PTTL', lease('a')), '>', 60_000, 'TTL');

    $redis->cmd('SET', lease('c'), 'precious');
    is("@{ $scripts->renew(NOW, 60_000_000, [ c => 's1' ], [ d => 's2' ]) }", 1,
        'a key of another type is left alone');
    is($redis->cmd('GET', lease('c')), 'precious', 'as it was');
    is("@{ $scripts->renew(NOW, 60_000_000) }", 0, 'none');
}


# what was charged to slots of a second has by now been taken over by slots of
# ten, and the other way round

sub given_back_in_another_width {
    my $second = sub { [ 'messages', 'window', 99, 64_000_000, 0, $_[0] ] };
    my $ten = sub { [ 'messages', 'window', 99, 640_000_000, 0, $_[0] ] };
    my $field = sub { $redis->cmd('HGET', used('a'), 'messages') // '-' };

    $redis->cmd('FLUSHALL');
    $scripts->charge(999_000_000, [ 'a', $second->(5) ]);
    $scripts->charge(1_000_000_000, [ 'a', $ten->(3) ]);
    is($field->(), 'w 10000000 99 c 99:5 1:3', 'taken over');

    $scripts->give_back(1_000_000_001, 999_000_000, 0, [ 'a', $second->(2) ]);
    is($field->(), 'w 10000000 99 c 99:3 1:3', 'from the slot that has it');
    $scripts->give_back(1_000_000_001, 999_000_000, 0, [ 'a', $second->(9) ]);
    is($field->(), 'w 10000000 99 c 100:3', 'no more than it has');
    $scripts->give_back(1_000_000_001, 999_000_000, 0, [ 'a', $second->(1) ]);
    is($field->(), 'w 10000000 99 c 100:3', 'and from no other');

    $scripts->charge(1_009_999_999, [ 'a', $second->(1) ]);
    is($field->(), 'w 1000000 99 c 1009:4', 'taken over again');
    $scripts->give_back(1_011_000_000, 1_000_000_000, 0, [ 'a', $ten->(3) ]);
    is($field->(), 'w 1000000 99 c 1009:1', 'from the slot that has it');

    $scripts->charge(1_020_000_000,
        [ 'a', [ 'messages', 'bucket', 1, 1_000_000, 9, 2 ] ]);
    is("@{ $scripts->give_back(1_020_000_000, 1_009_999_999, 0,
        [ 'a', $second->(1) ]) }", 0, 'a bucket by now: nothing');
    is($field->(), 'b 1022000000 1 1000000 9 c', 'goes back');
}


sub given_back_twice {
    my @a = ('a', [ 'messages', 'window', 9, 64_000_000, 0, 2 ],
        [ 'sessions', 'window', 9, 60_000_000, 0, 1, 's' ],
        [ 'auth_failures', 'window', 9, 60_000_000, 0, 1, '00aa 0001' ]);

    $redis->cmd('FLUSHALL');
    $scripts->charge(NOW, \@a);
    is("@{ $scripts->give_back(NOW, NOW, 0, \@a) }", 1, 'given back');
    is($redis->cmd('DBSIZE'), 0, 'to the last');
    is("@{ $scripts->give_back(NOW, NOW, 0, \@a) }", 0, 'nothing is left');
    is($redis->cmd('DBSIZE'), 0, 'and no key is made');
}


# of all keys after each call

sub times_to_live {
    my $time = NOW;
    my @a = ('a', [ 'messages', 'window', 90, 64_000_000, 0, 2 ],
        [ 'bytes', 'bucket', 1, 1_000_000, 9, 2 ],
        [ 'sessions', 'window', 9, 60_000_000, 0, 1, 's' ],
        [ 'auth_failures', 'window', 9, 60_000_000, 0, 1, '00aa 0001' ]);

    my %call = (
        charge => sub { $scripts->charge($time, \@a) },
        give_back => sub { $scripts->give_back($time, NOW + 2_000_000, 0, [ 'a',
            [ @{ $a[1] }[0 .. 4], 1 ] ]) },
        succeeded => sub { $scripts->give_back($time, $time, 1, [ 'a',
            $a[4] ]) },
        renew => sub { $scripts->renew($time, 60_000_000, [ 'a', 't' ]) },
        merge => sub { $scripts->merge($time, 'a',
            messages => 'w 1000000 90 c ' . int($time / 1e6) . ':1',
            auth_failures => $time + 60_000_000 . ':00bb') },
    );

    $redis->cmd('FLUSHALL');

    for my $name (qw(charge give_back renew merge succeeded charge merge)) {
        $time += 2_000_000;
        $call{$name}->();

        my @keys = $redis->keys();
        is(scalar(grep { $redis->cmd('PTTL', $_) < 1000 } @keys), 0,
            "$name: each key has a TTL");

        # as somebody else may have taken it away
        $redis->cmd('PERSIST', $_) for @keys;
        $call{$name}->();
        my %left = map { $_ => 1 } grep { $redis->cmd('PTTL', $_) == -1 }
            $redis->keys();

        my %writes = (charge => [ used('a'), lease('a') ],
            give_back => [ used('a') ], renew => [ lease('a') ],
            merge => [ used('a') ], succeeded => [ exempt('a') ]);
        is(scalar(grep { $left{$_} } @{ $writes{$name} }), 0,
            "$name: a key that lost it gets one again");
        $redis->cmd('PEXPIRE', $_, 60_000) for CORE::keys %left;
    }
}
