#!/usr/bin/perl

# Sessions and failed logins, which are sets whose members expire, in a real
# Redis; what they mean is in store_vectors.t.

use strict;
use warnings;

use File::Temp qw(tempdir);
use FindBin;
use Test::More;

use lib "$FindBin::Bin/../tests/lib";

use MailPolicy::Port qw(free_port);
use MailPolicy::Redis;
use MailPolicy::Scripts qw(used own lease failed exempt messages bytes session
    failure);


use constant {
    NOW   => 1754006400000000,
    NEVER => 9007199254740992,
    TYPE  => 2 ** 30,
};

plan skip_all => 'no redis-server'
    unless grep { -x "$_/redis-server" } split /:/, $ENV{PATH};

my $dir = tempdir('policy-test-XXXXXX', TMPDIR => 1, CLEANUP => 1);
my $redis = MailPolicy::Redis->new(port => free_port(), dir => $dir);
my $scripts = MailPolicy::Scripts->new($redis, "$FindBin::Bin/../policies");

sessions();
failures();
wrong_types();
walk($ENV{SEED} // ($$ + time()) % 1_000_000, 3000);

is($redis->cmd('PING'), 'PONG', 'the server is well');
$redis->stop();
done_testing();


sub charge { return $scripts->charge(@_) }


# at time 0, from nothing
sub fresh {
    my (@limits) = @_;

    $redis->cmd('DEL', $_) for grep { !/^mail:limit:/ } $redis->keys();
    return charge(0, @limits);
}


sub sessions {
    my $got = fresh([ 'a', session(2, 's1') ], [ 'b', session(2, 's1'),
        messages(9) ]);
    is_deeply($got, [ 1, 0,
        0, 1, 1, 2, 60_000_000, 0, 0, 0, 1, 0,
        0, 1, 1, 2, 60_000_000, 0, 0, 0, 1, 0,
           1, 1, 9, 64_000_000, 0, 0, 0, 8, 0 ], 'sessions of two limits');
    is(join(' ', $redis->keys()), join(' ', lease('a'), lease('b'),
        used('b')), 'each has its set');

    $got = charge(1, [ 'a', session(2, 's2') ], [ 'b', session(1, 's2') ]);
    is("@$got[0, 3, 12]", '0 1 0', 'one of two is full');
    is($redis->cmd('ZCARD', lease('a')), 1, 'nothing is added to the other');

    $got = charge(1, [ 'a', session(1, 's1') ], [ 'b', session(1, 's2') ]);
    is($redis->cmd('ZSCORE', lease('a'), 's1'), 60_000_000,
        'nor is anything renewed there');

    $redis->cmd('HSET', own('a'), 'sessions', '1');
    $got = fresh([ 'a', [ 'sessions', 'none', 0, 60_000_000, 0, 1, 's1' ] ]);
    is("@$got[4 .. 11]", '1 1 60000000 0 4 0 0 0',
        'the own entry sets the number, not how long a lease lasts');

    is(charge(60_000_000, [ 'a', session(9, 's2') ])->[0], 1, 'a minute later');
    is("@{ $redis->cmd('ZRANGE', lease('a'), 0, -1) }", 's2',
        'what has expired is taken away');

    my $long = 'x' x 64;
    fresh([ 'b', session(1, $long) ]);
    is("@{ $redis->cmd('ZRANGE', lease('b'), 0, -1) }", $long, 'a long name');

    $redis->cmd('FLUSHALL');
}


sub failures {
    my $got = fresh([ 'a', failure(2, '00aa 0001'), messages(9) ]);
    is_deeply($got, [ 1, 0,
        0, 1, 1, 2, 3_600_000_000, 0, 0, 0, 1, 0,
           1, 1, 9, 64_000_000, 0, 0, 0, 8, 0 ], 'a login and a message');

    is("@{ $scripts->give_back(1, 0, 1, [ 'a', failure(2, '00aa 0001'),
        messages(9) ]) }", 1, 'it succeeded');
    is(join(' ', $redis->keys()), exempt('a'), 'and leaves only an exemption');
    cmp_ok($redis->cmd('PTTL', exempt('a')), '>', 3_590_000, 'for a while');

    is("@{ $scripts->give_back(1, 0, 1, [ 'a', [ @{ failure(2, '00bb 0002')
        }[0 .. 4], 0, '00bb 0002' ] ]) }", 0, 'of nothing, nothing');
    is($redis->cmd('ZCARD', exempt('a')), 1, 'and nobody is exempt');

    $redis->cmd('FLUSHALL');
}


sub wrong_types {
    my %limit = (used => [ 'a', messages(9), bytes(8) ],
        lease => [ 'a', session(9, 's') ],
        failed => [ 'a', failure(9, '00aa 0001') ],
        exempt => [ 'a', failure(9, '00aa 0001') ]);

    for my $kind (sort keys %limit) {
        my $key = "mail:$kind:a:{u}";
        my @limits = ($limit{$kind}, [ 'b', messages(9) ]);

        $redis->cmd('FLUSHALL');
        $redis->cmd('SET', $key, 'precious');

        my $got = charge(0, @limits);
        is("@$got[0, 2, 3, 5, 9, 10, 11]", '1 ' . TYPE . ' 1 9 0 8 0',
            "$kind of another type: said, judged as empty");
        is($redis->cmd('GET', $key), 'precious', 'left alone');
        is($redis->cmd('EXISTS', used('b')), 1, 'the others are charged');
        is($redis->cmd('EXISTS', failed('a')), 1, 'failures are counted')
            if $kind eq 'exempt';

        for my $ok (0, 1) {
            $scripts->give_back(0, 0, $ok, @limits);
            is($redis->cmd('GET', $key), 'precious', 'when given back, too');
        }

        is($redis->cmd('EXISTS', used('b')), 0, 'the others are given back');

        $scripts->renew(0, 60_000_000, [ 'a', 's' ]);
        $scripts->merge(0, 'a', messages => 'w 1000000 9 c 0:1',
            auth_failures => '3600000000:00aa');
        is($redis->cmd('GET', $key), 'precious', 'by all of them');
    }

    $redis->cmd('FLUSHALL');
}


# Random steps, judged as the list at the top of tests/vectors/sets.txt says, in
# hashes of its own.

sub walk {
    my ($seed, $steps) = @_;

    note("SEED=$seed");
    srand($seed);

    my ($now, $retry, %set, @rate, @passed) = (0, 0);
    my $wrong = 0;

    for my $step (1 .. $steps) {
        if ($step % 60 == 1) {
            $redis->cmd('FLUSHALL');
            %set = map { $_ => {} } qw(lease failed exempt);
            ($now, @passed) = (int(rand(2)) * NOW);
        }

        @rate = ('window', 1 + int(rand(6)), (1, 3, 60)[rand 3] * 1_000_000, 0)
            if $step % 60 == 1 || rand() < 0.05;

        $now += (0, 1, $retry, $retry - 1, int(rand($rate[2])),
                 int(rand($rate[2] / 9)))[rand 6] if $retry < NEVER;
        $now -= int(rand(2 * $rate[2])) if rand() < 0.03;
        $now = 0 if $now < 0;

        my $what = (qw(lease lease fail fail fail back renew))[rand 7];
        my $before = join ' ', map { "$_=" . _text($set{$_}) } sort keys %set;
        my ($got, $want) = _step($what, $now, \%set, \@rate, \@passed,
            \$retry);

        for my $kind (sort keys %set) {
            $got .= " $kind=" . _text({ @{ $redis->cmd('ZRANGE',
                "mail:$kind:w:{u}", $now + 1, '+inf', 'BYSCORE',
                'WITHSCORES') } });
            $want .= " $kind=" . _text({ _left($set{$kind}, $now) });
        }

        next if $got eq $want;
        diag("SEED=$seed step $step, $what at $now, @rate\n$before\n",
            "got:  $got\nwant: $want");
        last if ++$wrong == 3;
    }

    is($wrong, 0, "$steps random steps");
}


# one step: the answer, and what the model says

sub _step {
    my ($what, $now, $set, $rate, $passed, $retry) = @_;

    if ($what eq 'renew') {
        my $member = sprintf '%04x', rand 8;
        $scripts->renew($now, $rate->[2], [ 'w', $member ]);
        %{ $set->{lease} } = (_left($set->{lease}, $now),
            $member => $now + $rate->[2]);
        return ('', '');
    }

    if ($what eq 'back') {
        my ($at, $unit) = @{ $passed->[rand @$passed] // return ('', '') };
        my $ok = int(rand(2));
        $scripts->give_back($now, $at, $ok, [ 'w', $unit ]);
        _model_back($set, $now, $at, $ok, @$unit);
        return ('', '');
    }

    my $amount = rand() < 0.9 ? 1 : 0;
    my $tag = sprintf '%04x', rand 8;
    my $client = sprintf '%04x', rand 3;
    my $unit = $what eq 'lease'
        ? [ 'sessions', @$rate, $amount, $tag ]
        : [ 'auth_failures', @$rate, $amount, "$tag $client" ];

    my @want = _model($set, $now, $what, $rate, $amount, $tag, $client);
    push @$passed, [ $now, $unit ] if $want[0];
    $$retry = $want[3];

    my $got = charge($now, [ 'w', $unit ]);
    return ("@$got[3, 9 .. 11]", "@want");
}


# fits, used, remaining, retry

sub _model {
    my ($sets, $now, $what, $rate, $amount, $tag, $client) = @_;

    my (undef, $count, $period) = @$rate;
    my $set = $sets->{ $what eq 'lease' ? 'lease' : 'failed' };
    my $last = $now + $period;

    %$set = _left($set, $now);
    $_ = $_ > $last ? $last : $_ for values %$set;

    my $used = keys %$set;
    my $there = exists $set->{$tag};
    my $exempt = $what eq 'fail' && ($sets->{exempt}{$client} // 0) > $now;
    my $room = $exempt ? 2 * $count : $count;
    my $left = $used < $room ? $room - $used : 0;

    if ($amount && $used >= $room && !($what eq 'lease' && $there)) {
        my @end = sort { $a <=> $b } values %$set;
        return (0, $used, $left, $end[$used - $room] - $now);
    }

    return (1, $used, $left, 0) if !$amount;
    $set->{$tag} = $last if $what eq 'lease' || !$there;
    return (1, $used, $there ? $left : $left - 1, 0);
}


sub _model_back {
    my ($sets, $now, $at, $ok, $name, undef, undef, $period, undef, $amount,
        $member) = @_;

    return if !$amount;
    return delete $sets->{lease}{$member} if $name eq 'sessions';

    my ($tag, $client) = split / /, $member;
    my $expires = $sets->{failed}{$tag} // 0;
    delete $sets->{failed}{$tag}
        if $expires > $now && ($ok || $expires == $at + $period);
    %{ $sets->{exempt} } = (_left($sets->{exempt}, $now),
        $client => $now + $period) if $ok;
}


# what has not expired

sub _left {
    my ($set, $now) = @_;
    return map { ($_ => $set->{$_}) } grep { $set->{$_} > $now } keys %$set;
}


sub _text {
    my ($set) = @_;
    return join ',', map { sprintf '%s:%.0f', $_, $set->{$_} } sort keys %$set;
}
