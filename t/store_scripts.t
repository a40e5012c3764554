#!/usr/bin/perl

# The contract of policies/charge.lua and policies/giveback.lua, in a real
# Redis; what they count is in store_vectors.t, and more in store_limits.t.

use strict;
use warnings;

use File::Temp qw(tempdir);
use FindBin;
use POSIX ();
use Test::More;
use Time::HiRes qw(time);

use lib "$FindBin::Bin/../tests/lib";

use MailPolicy::Port qw(free_port);
use MailPolicy::Redis;
use MailPolicy::Scripts qw(used own lease failed exempt charge_args
    back_args);


my $NEVER = '9007199254740992';

plan skip_all => 'no redis-server'
    unless grep { -x "$_/redis-server" } split /:/, $ENV{PATH};

my $dir = tempdir('policy-test-XXXXXX', TMPDIR => 1, CLEANUP => 1);
my $redis = MailPolicy::Redis->new(port => free_port(), dir => $dir);
my $scripts = MailPolicy::Scripts->new($redis, "$FindBin::Bin/../policies");

my %real = map { $_ => $redis->cmd('SCRIPT', 'LOAD', $scripts->text($_)) }
    qw(charge giveback renew merge);

texts();
answers();
all_or_nothing();
wrong_types();
times_to_live();
given_back();
odd_keys();
real_time();
many_edges();
permissions();

is($redis->cmd('PING'), 'PONG', 'the server is well');
$redis->stop();
done_testing();


sub charge    { return $scripts->charge(@_) }
sub give_back { return $scripts->give_back(@_) }


# one limit of messages in a window of 64 s, whose slots are seconds
sub messages {
    my ($count, $amount) = @_;
    return [ 'messages', 'window', $count, 64_000_000, 0, $amount // 1 ];
}


sub texts {
    for my $name (sort keys %real) {
        my $text = $scripts->text($name);

        is(() = $text =~ /redis\.call\('TIME'\)/g, 1,
            "$name.lua asks for the time once");
        unlike($text, qr/error_reply|status_reply|loadstring/,
            "$name.lua is tame");
    }
}


sub answers {
    my $got = charge(1_500_000,
        [ 'a', [ 'messages', 'window', 10, 64_000_000, 0, 2, '', 2 ],
               [ 'recipients', 'bucket', 1, 1_000_000, 5, 3 ],
               [ 'bytes', 'unlimited', 0, 0, 0, 4000 ] ],
        [ 'b', [ 'bytes', 'none', 0, 0, 0, 4000 ] ]);

    is_deeply($got, [
        1, 1_500_000,
        0, 1, 1, 10, 64_000_000, 0, 2, 0, 8, 0,
           1, 2, 1, 1_000_000, 5, 0, 0, 2, 0,
           1, 3, 0, 0, 0, 0, 0, $NEVER, 0,
        0, 1, 0, 0, 0, 0, 0, 0, $NEVER, 0 ], 'answer of a charge');

    is_deeply($redis->hash(used('a')),
        { messages => 'w 1000000 10 p 1:2',
          recipients => 'b 4500000 1 1000000 5 c' },
        'one readable field a unit that is counted');

    $got = charge(2_500_000,
        [ 'a', messages(10, 2),
               [ 'recipients', 'bucket', 1, 1_000_000, 5, 4 ],
               [ 'bytes', 'blocked', 0, 0, 0, 0 ] ]);

    is_deeply($got, [
        0, 2_500_000,
        0, 1, 1, 10, 64_000_000, 0, 0, 2, 8, 0,
           0, 2, 1, 1_000_000, 5, 0, 2, 3, 1_000_000,
           0, 4, 0, 0, 0, 0, 0, 0, $NEVER ], 'answer of a refusal');

    is(scalar(grep { !defined || ref || !/^-?\d+$/ } @$got), 0,
        'flat, and integers only');

    is("@{ charge(7_000_005) }", '1 7000005', 'no limits');
    $redis->cmd('FLUSHALL');
}


sub all_or_nothing {
    my @fits = ([ 'a', messages(10) ], [ 'b', messages(10) ]);

    for my $where (0 .. 2) {
        my @limits = @fits;
        splice @limits, $where, 0, [ 'c', messages(10), [ 'recipients',
            'window', 5, 64_000_000, 0, 6 ] ];

        my $got = charge(0, @limits);
        is($got->[0], 0, "limit $where of 3 refuses");
        is($redis->cmd('DBSIZE'), 0, 'and nothing is charged');
    }

    is(charge(0, @fits)->[0], 1, 'all fit');
    is(join(' ', $redis->keys()), used('a') . ' ' . used('b'),
        'and all are charged');
    $redis->cmd('FLUSHALL');
}


sub wrong_types {
    my @units = (messages(10), [ 'bytes', 'window', 9, 64_000_000, 0, 1 ]);

    $redis->cmd('SET', own('a'), 'unlimited');
    my $got = charge(0, [ 'a', @units ], [ 'b', @units ]);

    is("@$got[0, 2 .. 5, 21]", '1 3 1 1 10 0',
        'own entry of another type: reported for each unit, skipped');

    $redis->cmd('FLUSHALL');
    $redis->cmd('SET', used('a'), 'precious');
    $got = charge(0, [ 'a', @units ], [ 'b', @units ]);

    is("@$got[0, 2 .. 11, 21]", '1 1073741824 1 1 10 64000000 0 0 0 9 0 0',
        'used key of another type: reported, judged as empty');
    is($redis->cmd('GET', used('a')), 'precious', 'left alone');
    is($redis->cmd('PTTL', used('a')), -1, 'without a TTL of ours');
    is($redis->cmd('EXISTS', used('b')), 1, 'the other limit is charged');

    $got = charge(0, [ 'a', messages(10, 11) ], [ 'b', @units ]);
    is($got->[0], 0, 'what does not fit an empty one is refused');

    is("@{ give_back(0, 0, 0, [ 'a', @units ], [ 'b', @units ]) }", '1',
        'give back leaves it alone too');
    is($redis->cmd('GET', used('a')), 'precious', 'as it was');

    $redis->cmd('FLUSHALL');
}


sub times_to_live {
    my $ttl = sub { $redis->cmd('PTTL', used('a')) };
    my $about = sub {
        my ($want, $name) = @_;
        my $got = $ttl->();
        ok($got > $want && $got <= $want + 1000, "$name: $got")
    };

    charge(500_000, [ 'a', messages(10) ]);
    $about->(64_500, 'TTL of a window');

    charge(1_500_000, [ 'a', [ 'bytes', 'bucket', 1, 1_000_000, 5, 5 ] ]);
    $about->(64_500, 'a shorter unit does not shorten it');

    charge(1_500_000,
        [ 'a', [ 'recipients', 'window', 9, 640_000_000, 0, 1 ] ]);
    $about->(648_500, 'a longer unit lengthens it');

    $redis->cmd('PERSIST', used('a'));
    charge(1_500_000, [ 'a', messages(10) ]);
    $about->(64_500, 'a key without TTL gets one');

    $redis->cmd('PERSIST', used('a'));
    give_back(1_500_000, 1_500_000, 0,
        [ 'a', [ 'bytes', 'bucket', 1, 1_000_000, 5, 1 ] ]);
    $about->(4_000, 'from give back too');

    $redis->cmd('DEL', used('a'));
    charge(1_500_000,
        [ 'a', [ 'recipients', 'window', 9, 640_000_000, 0, 1 ],
               messages(10) ]);
    $about->(648_500, 'the longest of two units');

    $redis->cmd('DEL', used('a'));
    $redis->cmd('HSET', used('a'), 'messages', 'w 1000000 10 p 9000:10');
    is(charge(500_000, [ 'a', messages(10) ])->[0], 0, 'future is full');
    is($redis->cmd('HGET', used('a'), 'messages'), 'w 1000000 10 p 0:10',
        'a refusal brings it to now');
    $about->(64_500, 'with a TTL');

    $redis->cmd('FLUSHALL');
}


sub given_back {
    my @a = ('a', messages(10, 2), [ 'bytes', 'bucket', 1, 1_000_000, 5, 2 ]);
    my @b = ('b', messages(10, 3));

    is("@{ give_back(0, 0, 0, \@a, \@b) }", '0', 'nothing to give back');
    is($redis->cmd('DBSIZE'), 0, 'no key is made');

    charge(0, \@a, \@b);
    is("@{ give_back(1, 0, 0, [ 'a', $a[1] ], \@b) }", '2', 'two limits');
    is_deeply($redis->hash(used('a')), { bytes => 'b 2000000 1 1000000 5 c' },
        'a field in which nothing is left is gone');
    is($redis->cmd('EXISTS', used('b')), 0, 'a key without fields is gone');

    is("@{ give_back(1, 0, 0, \@a, \@b) }", '1', 'what is left');
    is($redis->cmd('DBSIZE'), 0, 'nothing is left');
    is("@{ give_back(1, 0, 0, \@a, \@b) }", '0', 'nothing below 0');
    is($redis->cmd('DBSIZE'), 0, 'nothing at all');

    $redis->cmd('HSET', used('a'), 'messages', 'garbage', 'bytes', '-7');
    is("@{ give_back(1, 0, 0, \@a) }", '0', 'garbage is not touched');

    $redis->cmd('FLUSHALL');
}


sub odd_keys {
    for my $key ("a b", "%s%n", "\r\nFLUSHALL\r\n", "\0", "}{", "'\"`;]]--",
        "\xff\xfe", 'x' x 500)
    {
        my ($n, undef, undef, @args) = charge_args([ 'l', messages(2) ]);
        my @keys = ("mail:used:l:{$key}", "mail:limit:l:{$key}");
        my $got = $redis->cmd('EVALSHA', $real{charge}, $n, @keys, @args);

        (my $name = $key) =~ s/([^ -~])/sprintf '\\x%02x', ord $1/ge;
        is_deeply([ $got->[0], $redis->keys() ], [ 1, $keys[0] ],
            'one key: ' . substr($name, 0, 30));
        $redis->cmd('FLUSHALL');
    }
}


sub real_time {
    my @limit = ('a', [ 'messages', 'window', 3, 3_600_000_000, 0, 2 ]);
    my @args = charge_args(\@limit);

    my $before = time() * 1e6;
    my $got = $redis->cmd('EVALSHA', $real{charge}, @args);
    my $after = time() * 1e6;

    ok($got->[0] == 1
        && $got->[1] >= $before - 1e6 && $got->[1] <= $after + 1e6,
        'at the time of the store');
    is($redis->cmd('EVALSHA', $real{charge}, @args)->[0], 0,
        'and refused right after');
    is("@{ $redis->cmd('EVALSHA', $real{giveback},
        back_args($got->[1], 0, \@limit)) }", '1', 'given back');
    is($redis->cmd('DBSIZE'), 0, 'to the last');
}


# together they never pass more than the limit

sub many_edges {
    my @args = charge_args([ 'm', [ 'messages', 'window', 100, 3_600_000_000,
        0, 1 ] ]);
    my @pipes;

    for my $edge (1 .. 4) {
        pipe(my $in, my $out) or die "pipe: $!\n";
        my $pid = fork() // die "fork: $!\n";

        if (!$pid) {
            my $client = bless { port => $redis->port() }, 'MailPolicy::Redis';
            my $passed = grep { $client->cmd('EVALSHA', $real{charge},
                @args)->[0] } 1 .. 60;
            syswrite($out, $passed);
            POSIX::_exit(0);
        }

        push @pipes, [ $pid, $in ];
    }

    my $sum = 0;

    for my $pipe (@pipes) {
        waitpid($pipe->[0], 0);
        sysread($pipe->[1], my $passed, 16);
        $sum += $passed;
    }

    is($sum, 100, '240 questions of 4 edges, 100 pass');
    $redis->cmd('FLUSHALL');
}


# what is forbidden is an error, not an empty counter

sub permissions {
    my @commands = qw(evalsha time hmget hset hdel pttl pexpire zadd zcount
        zrange zrem zremrangebyscore zscore);

    $redis->cmd('ACL', 'SETUSER', 'edge', 'on', '>edge',
        (map { "+$_" } @commands),
        map { "~mail:$_:*" } qw(used limit lease failed exempt merged));

    $redis->cmd('AUTH', 'edge', 'edge');

    my @limits = ([ 'a', messages(1),
        [ 'sessions', 'window', 1, 60_000_000, 0, 1, 's' ],
        [ 'auth_failures', 'window', 1, 60_000_000, 0, 1, '00aa 0001' ] ]);

    is(eval { charge(0, @limits)->[0] }, 1, "RED-11 @commands are enough");
    is(charge(1, @limits)->[0], 0, 'for a refusal too');
    is("@{ give_back(1, 0, 1, @limits) }", 1, 'and to give back');
    is("@{ $scripts->renew(1, 60_000_000, [ 'a', 's' ]) }", 1, 'to renew');
    is("@{ $scripts->merge(1, 'a', messages => 'w 1000000 1 c 0:1',
        auth_failures => '1000:00bb') }", 2, 'to merge');

    $redis->cmd('AUTH', 'default', '');

    for my $less ('-hmget', '-hset', 'resetkeys') {
        $redis->cmd('ACL', 'SETUSER', 'edge', $less);
        $redis->cmd('AUTH', 'edge', 'edge');
        ok(!eval { charge(0, [ 'b', messages(1) ]) }, "RED-11 $less is an error");
        $redis->cmd('AUTH', 'default', '');
        $redis->cmd('ACL', 'SETUSER', 'edge', '+hmget', '+hset');
    }

    is($redis->cmd('EXISTS', used('b')), 0, 'and nothing is charged');
    $redis->cmd('FLUSHALL');
}
