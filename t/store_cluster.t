#!/usr/bin/perl

# The scripts in a Redis Cluster: a node that has the one slot of their keys
# and no other, and what they touch there; and how much memory a key takes.

use strict;
use warnings;

use File::Temp qw(tempdir);
use FindBin;
use IO::Socket::INET;
use Test::More;

use lib "$FindBin::Bin/../tests/lib";

use MailPolicy::Port qw(free_port);
use MailPolicy::Redis;
use MailPolicy::Scripts qw(used own lease failed exempt);


use constant NOW => 1754006400000000;

plan skip_all => 'no redis-server'
    unless grep { -x "$_/redis-server" } split /:/, $ENV{PATH};

my $dir = tempdir('policy-test-XXXXXX', TMPDIR => 1, CLEANUP => 1);

in_one_slot();
memory();

done_testing();


sub in_one_slot {
    my $redis = MailPolicy::Redis->new(port => free_port(), dir => $dir,
        args => [ '--cluster-enabled', 'yes', '--cluster-config-file',
            'nodes', '--cluster-require-full-coverage', 'no',
            '--cluster-port', free_port() ]);
    my $scripts = MailPolicy::Scripts->new($redis,
        "$FindBin::Bin/../policies");

    my $slot = $redis->cmd('CLUSTER', 'KEYSLOT', used('a'));
    $redis->cmd('CLUSTER', 'ADDSLOTS', $slot);

    my $ok;
    for (1 .. 100) {
        $ok = eval { $redis->cmd('SET', own('x'), 1); 1 } and last;
        select(undef, undef, undef, 0.05);
    }
    ok($ok, "it has slot $slot") or BAIL_OUT('no cluster');
    ok(!eval { $redis->cmd('SET', 'mail:used:a:{v}', 1); 1 }
        && $@ =~ /CLUSTERDOWN|MOVED/, 'and no other');
    $redis->cmd('DEL', own('x'));

    my $monitor = monitor($redis->port());
    all_calls($redis, $scripts);
    touched($redis, $monitor);

    $redis->stop();
}


# each script, in each way that makes it touch a key

sub all_calls {
    my ($redis, $scripts) = @_;

    my @units = (
        [ 'messages', 'window', 9, 64_000_000, 0, 1 ],
        [ 'recipients', 'bucket', 9, 9_000_000, 9, 1 ],
        [ 'bytes', 'none', 0, 0, 0, 1 ],
        [ 'connections', 'window', 9, 64_000_000, 0, 1 ],
        [ 'sessions', 'window', 3, 60_000_000, 0, 1, 'l1' ] );
    my @limits = ([ 'a', @units ], [ { name => 'b', soft => 1 }, @units ],
        [ 'c', [ 'auth_failures', 'window', 2, 60_000_000, 0, 1,
            '00aa 0001' ] ]);

    $redis->cmd('HSET', own('a'), 'messages', '5/64s', 'bytes', '1m/1h');
    $redis->cmd('HSET', own('b'), 'plan', 'gold');

    is($scripts->charge(NOW, @limits)->[0], 2, 'another plan');
    $limits[1][0]{plan} = 'gold';
    is($scripts->charge(NOW, @limits)->[0], 1, 'charged');

    $limits[0][5][6] = 'l2';
    $limits[2][1][6] = '00bb 0001';
    is($scripts->charge(NOW + 1, @limits)->[0], 1, 'and again');

    $limits[2][1][6] = '00cc 0001';
    is($scripts->charge(NOW + 2, @limits)->[0], 0, 'refused');
    is($scripts->charge(NOW - 9_000_000, @limits)->[0], 0, 'brought to now');

    $limits[2][1][6] = '00bb 0001';
    is("@{ $scripts->give_back(NOW + 3, NOW + 1, 1, @limits) }", 3,
        'given back');
    is("@{ $scripts->renew(NOW + 4, 60_000_000, [ a => 'l1' ],
        [ b => 'l3' ]) }", 2, 'renewed');
    is("@{ $scripts->merge(NOW + 5, 'a', messages => 'w 1000000 5 c '
        . NOW / 1000000 . ':1', recipients => 'b 1000000 9 9000000 9 c',
        auth_failures => NOW + 60_000_000 . ':00dd') }", 3, 'merged');

    my @last = ('d', $units[0], $units[1]);
    is($scripts->charge(NOW, \@last)->[0], 1, 'charged');
    is("@{ $scripts->give_back(NOW, NOW, 0, \@last) }", 1, 'nothing is left');
}


# A key that a script was not given may be on another node.  What it was given
# stands in the line before its commands.

sub touched {
    my ($redis, $monitor) = @_;

    $redis->cmd('ECHO', 'that was all');

    my ($script, %given, %scripts, %commands, @other) = ('');

    while (my $line = <$monitor>) {
        last if $line =~ /"that was all"/;
        my @word = $line =~ /"((?:[^"\\]|\\.)*)"/g;

        if ($line !~ / lua\] /) {
            next if $word[0] ne 'EVALSHA';
            $script = $word[1];
            %given = map { $_ => 1 } @word[3 .. 2 + $word[2]];
            next;
        }

        $scripts{$script} = 1;
        $commands{$word[0]} = 1;
        push @other, "@word" unless $given{ $word[1] };
    }

    is(scalar(keys %scripts), 4, 'four scripts were seen');
    is("@other", '', 'they touch no key but those they were given');
    is(join(' ', sort keys %commands), 'HDEL HMGET HSET PEXPIRE PTTL ZADD '
        . 'ZCOUNT ZRANGE ZREM ZREMRANGEBYSCORE ZSCORE',
        'by no command but these');
}


sub monitor {
    my ($port) = @_;

    my $socket = IO::Socket::INET->new(PeerAddr => '127.0.0.1',
        PeerPort => $port, Timeout => 5) or die "connect: $!\n";

    print $socket "MONITOR\r\n";
    <$socket> =~ /^\+OK/ or die "no MONITOR\n";
    return $socket;
}


# 10000 keys that have lived: what one takes of used_memory, with its share of
# the tables of keys and of times to live

sub memory {
    my $n = 10_000;
    my $redis = MailPolicy::Redis->new(port => free_port(), dir => $dir);
    my $scripts = MailPolicy::Scripts->new($redis,
        "$FindBin::Bin/../policies");

    my $used = sub { $redis->cmd('INFO', 'memory') =~ /^used_memory:(\d+)/m;
        $1 };

    my ($sha) = $scripts->sha('charge');
    my $before = $used->();

    for my $life (0 .. 2) {
        for my $i (1 .. $n) {
            # not all in one slot, nor with one address's length
            my $key = sprintf 'user%d@example%d.com', $i, $i % 100;
            my $time = NOW + $life * 1_400_000_000 + $i % 30 * 1_000_000;

            $redis->cmd('EVALSHA', $sha, 2, "mail:used:user:{$key}",
                "mail:limit:user:{$key}", 1, 0, '', 3,
                'messages', 1, 500, 3_600_000_000, 0, 0, 1, '',
                'recipients', 1, 2000, 86_400_000_000, 0, 0, 3, '',
                'bytes', 1, 1_073_741_824, 86_400_000_000, 0, 0,
                54_321 + $i, '', int($time / 1e6), $time % 1e6);
        }
    }

    my $each = int(($used->() - $before) / $n);
    my $key = 'mail:used:user:{user5000@example0.com}';
    my $value = $redis->hash($key);

    is($redis->cmd('DBSIZE'), $n, 'a key each, three units');
    like($value->{messages}, qr/^w 56250000 500 c \d+:1( \d+:1){2}$/,
        'three slots');
    is($redis->cmd('OBJECT', 'ENCODING', $key), 'listpack', 'kept small');
    cmp_ok($each, '<=', 400, "octets a key");
    note("$each octets a key, of these MEMORY USAGE says ",
        $redis->cmd('MEMORY', 'USAGE', $key));
    note(join ', ', map { "$_ $value->{$_}" } sort keys %$value);

    $redis->stop();
}
