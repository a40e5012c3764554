#!/usr/bin/perl

# What show.lua says is what charge.lua decides: mail is charged at random, and
# after each charge both are asked, at the same time.

use strict;
use warnings;

use File::Temp qw(tempdir);
use FindBin;
use Test::More;

use lib "$FindBin::Bin/../tests/lib";

use MailPolicy::Policies;
use MailPolicy::Port qw(free_port);
use MailPolicy::Redis;
use MailPolicy::Scripts;


plan skip_all => 'no redis-server'
    unless grep { -x "$_/redis-server" } split /:/, $ENV{PATH};
plan skip_all => 'charge.lua keeps no rates yet'
    unless -e "$FindBin::Bin/../policies/renew.lua";

my $SEED = $ENV{TEST_SEED} // time();
my @FROM = ('configuration', 'default', 'a plan', 'domain');

my $dir = tempdir('policy-test-XXXXXX', TMPDIR => 1, CLEANUP => 1);
my $redis = MailPolicy::Redis->new(port => free_port(), dir => $dir);
my $policies = MailPolicy::Policies->new($redis, "$FindBin::Bin/..");
my $charges = MailPolicy::Scripts->new($redis, "$FindBin::Bin/../policies");

srand($SEED);
counters();
sets();

$redis->stop();
done_testing();


sub pick { return $_[rand @_] }

sub show {
    my ($now, $kind) = @_;
    return join("\n",
        $policies->run_at($now, 'show', "mail:$kind:v:{u}"));
}


# [ kind, count, period, burst ], and how it is shown

sub a_rate {
    my ($n, $seconds, $burst) = (1 + int(rand(50)), pick(1, 7, 64, 3600, 90),
        1 + int(rand(30)));
    my $text = "$n/" . ($seconds == 3600 ? '1h' : "${seconds}s");

    return rand() < 0.5 ? ([ 'window', $n, $seconds * 1e6, 0 ], $text)
        : ([ 'bucket', $n, $seconds * 1e6, $burst ], "$text,burst=$burst");
}


# fits, used, remaining, retry

sub ask {
    my ($now, $rate, $from, $amount) = @_;

    my $answer = $charges->charge($now, [ 'v', [ 'messages', @$rate, $amount,
        '', $from ] ]);

    return @$answer[3, 9 .. 11];
}


# what show should say of the rate, by what charge.lua answers

sub expected {
    my ($now, $rate, $text, $from) = @_;

    my ($used, $left) = (ask($now, $rate, $from, 0))[1, 2];
    my $of = $rate->[$rate->[0] eq 'bucket' ? 3 : 1];
    my $retry = $used ? (ask($now, $rate, $from, $left + 1))[3] : 0;

    return "messages: $used of $of used, $left left"
        . ($left == 0 ? ', blocked now' : '')
        . ($used > 0 ? sprintf('; next in %d s, all in N s',
            int(($retry + 999_999) / 1e6)) : '') . "; $text";
}


sub counters {
    my ($wrong, $seen) = (0, 0);

    for my $life (1 .. 60) {
        my $now = 1_754_006_403_123_456 + int(rand(1e9));
        my ($rate, $text) = a_rate();

        $redis->cmd('FLUSHALL');

        for (1 .. 25) {
            my $from = int(rand(4));
            my $own;

            ($rate, $text) = a_rate() if rand() < 0.1;
            $now += int(rand(pick(1, 1e5, 2e6, 3e8)));
            $now -= 1_000_000 if rand() < 0.1;

            my ($fits) = ask($now, $rate, $from, 1 + int(rand(5)));
            next unless $fits;

            my $where = $FROM[$from];

            if (rand() < 0.2) {
                ($own, $where) = ($text, 'own entry');
                $redis->cmd('HSET', 'mail:limit:v:{u}', 'messages', $own);
            }

            my $said = show($now, 'used') =~ s/all in \d+ s/all in N s/r;
            my $want = expected($now, $rate, "$text from $where", $from);

            $redis->cmd('DEL', 'mail:limit:v:{u}');
            $seen++;
            is($said, $want, "seed $SEED") if $said ne $want && $wrong++ < 4;
        }
    }

    is($wrong, 0, "show says what charge.lua decides, seed $SEED");
    cmp_ok($seen, '>', 200, "$seen times");
    $redis->cmd('FLUSHALL');
}


sub sets {
    my %case = (sessions => [ lease => 'id', 30e6, '3' ],
        auth_failures => [ failed => '00ff 0001', 60e6, '3/1m' ]);

    for my $unit (sort keys %case) {
        my ($kind, $member, $period, $own) = @{ $case{$unit} };
        my $now = 1_754_006_403_123_456;

        $redis->cmd('HSET', 'mail:limit:v:{u}', $unit, $own);

        for my $n (1 .. 5) {
            my $answer = $charges->charge($now, [ 'v', [ $unit, 'window', 9,
                $period, 0, 1, $n . $member, 0 ] ]);
            my ($used, $left, $retry) = @$answer[9 .. 11];

            $used++ if $answer->[0];
            my $blocked = $left ? '' : ', blocked now';

            is($answer->[0], $n < 4 ? 1 : 0, "$unit: number $n");
            like(show($now, $kind), qr/^$unit: $used of 3 used, $left left(?#
                )$blocked; next in \d+ s, all in \d+ s; $own from own entry$/,
                'show says the same');
            like(show($now, $kind), qr/next in (??{ int($retry \/ 1e6 + 1) }) /,
                'and when') unless $answer->[0];
            $now += 1_500_001;
        }
        $redis->cmd('FLUSHALL');
    }
}
