#!/usr/bin/perl

# The tables of tests/vectors/, which the unit tests of module/core/ read too,
# against policies/charge.lua and policies/giveback.lua in a real Redis.

use strict;
use warnings;

use File::Temp qw(tempdir);
use FindBin;
use Test::More;

use lib "$FindBin::Bin/../tests/lib";

use MailPolicy::Port qw(free_port);
use MailPolicy::Redis;
use MailPolicy::Scripts qw(used own);


my $NEVER = '9007199254740992';
my %KIND = (none => 0, window => 1, bucket => 2, unlimited => 3, blocked => 4);

plan skip_all => 'no redis-server'
    unless grep { -x "$_/redis-server" } split /:/, $ENV{PATH};

my $dir = tempdir('policy-test-XXXXXX', TMPDIR => 1, CLEANUP => 1);
my $redis = MailPolicy::Redis->new(port => free_port(), dir => $dir);
my $scripts = MailPolicy::Scripts->new($redis, "$FindBin::Bin/../policies");

counters('given');
counters('own entry');
rates();

$redis->stop();
done_testing();


sub lines {
    my ($name) = @_;

    my $dir = "$FindBin::Bin/../tests/vectors";
    my $text = MailPolicy::Scripts::slurp("$dir/$name");
    return grep { !/^(?:#|$)/ } split /\n/, $text;
}


sub rate_text {
    my ($kind, $count, $period, $burst) = @_;

    return $kind if $kind eq 'unlimited' || $kind eq 'blocked';
    my $text = sprintf('%s/%ds', $count, $period / 1e6);
    return $kind eq 'bucket' ? "$text,burst=$burst" : $text;
}


# tests/vectors/counters.txt, the rate being given or in the own entry

sub counters {
    my ($where) = @_;

    my ($case, @rate, $written);

    for my $line (lines('counters.txt')) {
        my ($op, @word) = split / +/, $line;
        @word = map { $_ eq 'never' ? $NEVER : $_ } @word;
        my $name = "$where: " . ($case // '') . ": $line";

        if ($op eq 'case') {
            $case = join ' ', @word;
            $redis->cmd('DEL', used('v'));

        } elsif ($op eq 'rate') {
            @rate = @word;
            $written = 0;
            $redis->cmd('DEL', own('v'));
            $redis->cmd('HSET', own('v'), 'messages', rate_text(@rate))
                if $where ne 'given' && $rate[0] ne 'none';

        } elsif ($op eq 'stored') {
            my ($text) = $line =~ /"(.*)"/;
            $redis->cmd('HSET', used('v'), 'messages', $text);

        } elsif ($op eq 'ask') {
            my ($now, $n, @want) = @word;
            my @given = $where eq 'given' ? @rate : ('none', 0, 0, 0);
            my $got = $scripts->charge($now,
                [ 'v', [ 'messages', @given, $n ] ]);

            is("@$got", "$want[0] $now 0 $want[0] $KIND{$rate[0]} "
                . "$rate[1] $rate[2] $rate[3] @want[1 .. 3]", $name);
            $written = 1 if $want[0] && $n;

        } elsif ($op eq 'back') {
            my ($now, $at, $n) = @word;
            $scripts->give_back($now, $at,
                [ 'v', [ 'messages', @rate, $n ] ]);

        } elsif ($op eq 'kept') {
            my ($want) = $line =~ /^kept (.*)/;
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


# tests/vectors/rates.txt, in own entries

sub rates {
    for my $line (lines('rates.txt')) {
        my ($want, $text) = $line =~ /^(.*?) *\| ?(.*)/s;
        my ($unit, $kind, @number) = split / +/, $want;
        $text =~ s/\\x(..)/chr hex $1/ge;

        $redis->cmd('HSET', own('r'), $unit, $text);

        my $got = $scripts->charge(0,
            [ 'r', [ $unit, 'none', 0, 0, 0, 0 ] ]);
        my ($bad, @rate) = @$got[2, 4 .. 7];

        is("$bad @rate", exists $KIND{$kind}
            ? join(' ', 0, $KIND{$kind}, (@number, 0, 0, 0)[0 .. 2])
            : '1 0 0 0 0', "own entry: $line");

        $redis->cmd('DEL', own('r'));
    }

    is($redis->cmd('DBSIZE'), 0, 'nothing is kept for an amount of 0');
}
