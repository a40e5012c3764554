#!/usr/bin/perl

# The tables of tests/vectors/, which the unit tests of module/core/ read too,
# against the scripts of policies/ in a real Redis; and thousands of random
# steps, which module/core/ takes first.  SEED repeats those that failed.

use strict;
use warnings;

use File::Temp qw(tempdir);
use FindBin;
use Test::More;

use lib "$FindBin::Bin/../tests/lib";

use MailPolicy::Port qw(free_port);
use MailPolicy::Redis;
use MailPolicy::Scripts qw(used own lease failed exempt);


my $NEVER = '9007199254740992';
my %KIND = (none => 0, window => 1, bucket => 2, unlimited => 3, blocked => 4);

plan skip_all => 'no redis-server'
    unless grep { -x "$_/redis-server" } split /:/, $ENV{PATH};

my $dir = tempdir('policy-test-XXXXXX', TMPDIR => 1, CLEANUP => 1);
my $redis = MailPolicy::Redis->new(port => free_port(), dir => $dir);
my $scripts = MailPolicy::Scripts->new($redis, "$FindBin::Bin/../policies");
my $core = "$FindBin::Bin/../module/core";

counters('given', lines('counters.txt'));
counters('own entry', lines('counters.txt'));
counters('walk', walk('counter', 10_000));
sets('given', lines('sets.txt'));
sets('own entry', lines('sets.txt'));
sets('walk', walk('set', 3_000)) if -e "$core/mpol_set.c";
rates();

$redis->stop();
done_testing();


sub lines {
    my ($name) = @_;

    my $dir = "$FindBin::Bin/../tests/vectors";
    my $text = MailPolicy::Scripts::slurp("$dir/$name");
    return grep { !/^(?:#|$)/ } split /\n/, $text;
}


# a table that tests/unit/walk_counter.c or walk_set.c writes

sub walk {
    my ($name, $steps) = @_;

    my $seed = $ENV{SEED} // $$ + time();

    system('gcc', '-std=c99', '-O1', '-I', $core, '-o', "$dir/$name",
        "$FindBin::Bin/../tests/unit/walk_$name.c",
        glob("$core/mpol_*.c")) == 0 or BAIL_OUT('gcc failed');

    note("SEED=$seed");
    my @lines = `$dir/$name $seed $steps`;
    is($?, 0, "a random walk, $name");

    chomp @lines;
    return @lines;
}


sub rate_text {
    my ($kind, $count, $period, $burst) = @_;

    return $kind if $kind ne 'window' && $kind ne 'bucket';
    my $text = sprintf('%s/%ds', $count, $period / 1e6);
    return $kind eq 'bucket' ? "$text,burst=$burst" : $text;
}


# tests/vectors/counters.txt, the rate being given or in the own entry

sub counters {
    my ($where, @lines) = @_;

    my ($case, @rate, $written);

    for my $line (@lines) {
        my ($op, @word) = split / +/, $line;
        @word = map { $_ eq 'never' ? $NEVER : $_ } @word;
        my $name = "$where: " . ($case // '') . ": $line";

        if ($op eq 'case') {
            $case = join ' ', @word;
            $redis->cmd('DEL', used('v'));

        } elsif ($op eq 'rate') {
            @rate = @word;
            $written = 0;
            own_entry('messages', $where, rate_text(@rate));

        } elsif ($op eq 'stored') {
            my ($text) = $line =~ /"(.*)"/;
            $redis->cmd('HSET', used('v'), 'messages', $text);

        } elsif ($op eq 'ask') {
            my ($now, $n, @want) = @word;
            my @given = $where ne 'own entry' ? @rate : ('none', 0, 0, 0);
            my $got = $scripts->charge($now,
                [ 'v', [ 'messages', @given, $n ] ]);

            is("@$got", "$want[0] $now 0 $want[0] $KIND{$rate[0]} "
                . "@rate[1 .. 3] " . from($where, @rate)
                . " @want[1 .. 3]", $name);
            $written = 1 if $want[0] && $n;

        } elsif ($op eq 'back') {
            my ($now, $at, $n) = @word;
            $scripts->give_back($now, $at, 0,
                [ 'v', [ 'messages', @rate, $n ] ]);

        } elsif ($op eq 'kept') {
            my ($want) = $line =~ /^kept (.*)/;
            $want =~ s/ c\b/ k/ if $where eq 'own entry';
            is($redis->cmd('HGET', used('v'), 'messages') // '-', $want,
                $name);
            cmp_ok($redis->cmd('PTTL', used('v')), '!=', -1, "$name: TTL");

        } elsif ($op eq 'expires' && $written) {
            my ($now, $want) = @word;
            cmp_ok($redis->cmd('PTTL', used('v')) * 1000, '>=', $want - $now,
                $name) if $want;
        }
    }

    $redis->cmd('FLUSHALL');
}


# tests/vectors/sets.txt, the same way

sub sets {
    my ($where, @lines) = @_;

    my ($case, @rate);
    my %key = (leases => lease('v'), failed => failed('v'),
               exempt => exempt('v'));

    for my $line (@lines) {
        my ($op, @word) = split / +/, $line;
        @word = map { $_ eq 'never' ? $NEVER : $_ } @word;
        my $name = "$where: " . ($case // '') . ": $line";

        if ($op eq 'case') {
            $case = join ' ', @word;
            $redis->cmd('DEL', values %key, own('v'));

        } elsif ($op eq 'rate') {
            @rate = (@word, 0);
            own_entry('sessions', $where,
                $rate[0] eq 'window' ? $rate[1] : $rate[0]);
            own_entry('auth_failures', $where, rate_text(@rate));

        } elsif ($op =~ /^(?:lease|look|fail)$/) {
            my $unit = $op eq 'fail' ? 'auth_failures' : 'sessions';
            my $now = shift @word;
            my @member = splice @word, 0, { look => 0, lease => 1,
                                            fail => 2 }->{$op};
            my ($fits, @want) = @word;

            my @given = $where ne 'own entry' ? @rate : ('none', 0, 0, 0);
            $given[2] = $rate[2] if $unit eq 'sessions';

            my $got = $scripts->charge($now, [ 'v', [ $unit, @given,
                $op eq 'look' ? 0 : 1, "@member" ] ]);

            is("@$got", "$fits $now 0 $fits $KIND{$rate[0]} @rate[1 .. 3] "
                . from($where, @rate) . " @want", $name);

        } elsif ($op eq 'renew') {
            my ($now, $member) = @word;
            $scripts->renew($now, $rate[2], [ 'v', $member ]);

        } elsif ($op eq 'end') {
            my ($now, $member) = @word;
            $scripts->give_back($now, $now, 0,
                [ 'v', [ 'sessions', @rate, 1, $member ] ]);

        } elsif ($op eq 'back' || $op eq 'login') {
            my ($now, $at, @member) = @word;
            $scripts->give_back($now, $at, $op eq 'login' ? 1 : 0,
                [ 'v', [ 'auth_failures', @rate, 1, "@member" ] ]);

        } elsif ($op eq 'kept') {
            my ($set, $now, @want) = @word;
            is_deeply([ kept($key{$set}, $now) ],
                [ grep { $_ ne '-' } @want ], $name);
            cmp_ok($redis->cmd('PTTL', $key{$set}), '!=', -1, "$name: TTL");
        }
    }

    $redis->cmd('FLUSHALL');
}


sub kept {
    my ($key, $now) = @_;

    my @kept = @{ $redis->cmd('ZRANGE', $key, $now + 1, '+inf', 'BYSCORE',
        'WITHSCORES') };
    my @list;

    push @list, sprintf '%s:%d', splice @kept, 0, 2 while @kept;
    return @list;
}


# where the rate comes from
sub from { my ($where, $kind) = @_; return $kind ne 'none'
    && $where eq 'own entry' ? 4 : 0 }


sub own_entry {
    my ($unit, $where, $text) = @_;

    $redis->cmd('HDEL', own('v'), $unit);
    $redis->cmd('HSET', own('v'), $unit, $text)
        if $where eq 'own entry' && $text !~ /^none/;
}


# tests/vectors/rates.txt, in own entries

sub rates {
    for my $line (lines('rates.txt')) {
        my ($want, $text) = $line =~ /^(.*?) *\| ?(.*)/s;
        my ($unit, $kind, @number) = split / +/, $want;
        $text =~ s/\\x(..)/chr hex $1/ge;

        $redis->cmd('HSET', own('r'), $unit, $text);

        my $got = $scripts->charge(0,
            [ 'r', [ $unit, 'none', 0, 0, 0, 0, '1 2' ] ]);
        my ($bad, @rate) = @$got[2, 4 .. 8];

        is("$bad @rate", exists $KIND{$kind}
            ? join(' ', 0, $KIND{$kind}, (@number, 0, 0, 0)[0 .. 2], 4)
            : '1 0 0 0 0 0', "own entry: $line");

        $redis->cmd('DEL', own('r'));
    }

    is($redis->cmd('DBSIZE'), 0, 'nothing is kept for an amount of 0');
}
