#!/usr/bin/perl

# What show.lua says of counters, against arithmetic of this file's own.

use strict;
use warnings;

use File::Temp qw(tempdir);
use FindBin;
use List::Util qw(max min);
use Test::More;

use lib "$FindBin::Bin/../tests/lib";

use MailPolicy::Policies;
use MailPolicy::Port qw(free_port);
use MailPolicy::Redis;


plan skip_all => 'no redis-server'
    unless grep { -x "$_/redis-server" } split /:/, $ENV{PATH};

my $SEED = $ENV{TEST_SEED} // time();
my $NOW = 1_754_006_403_123_456;
my $SLOT = int($NOW / 56_250_000);

my %LETTER = (configuration => 'c', default => '*', 'a plan' => 'p',
    'domain @example.com' => '@', 'own entry' => 'k');

my $dir = tempdir('policy-test-XXXXXX', TMPDIR => 1, CLEANUP => 1);
my $redis = MailPolicy::Redis->new(port => free_port(), dir => $dir);
my $scripts = MailPolicy::Policies->new($redis, "$FindBin::Bin/..");

windows();
buckets();
unreadable();
random_counters();

$redis->stop();
done_testing();


sub key  { return "mail:$_[0]:user:{" . ($_[1] // 'alice@example.com') . '}' }

sub put {
    my ($kind, @fields) = @_;
    $redis->cmd('HSET', key($kind), @fields);
}

sub show { return join("\n", $scripts->run_at($NOW, 'show', key('used'))) }

sub fresh { $redis->cmd('FLUSHALL') }


sub windows {
    put(used => messages => "w 56250000 200 c " . ($SLOT - 40) . ':150 10:50');
    my ($first, $last) = map {
        seconds(($SLOT - $_ + 65) * 56_250_000 - $NOW) } 40, 30;

    is(show(), 'messages: 200 of 200 used, 0 left, blocked now; next in '
        . "$first s, all in $last s; 200/1h from configuration", 'a full one');

    for my $from (sort keys %LETTER) {
        put(used => messages => "w 56250000 200 $LETTER{$from} $SLOT:2");
        like(show(), qr/; 200\/1h from \Q$from\E$/, "from $from");
    }

    put(used => messages => "w 56250000 200 p $SLOT:2");
    put(limit => plan => 'gold');
    like(show(), qr/; 200\/1h from plan gold$/, 'the plan that it is on');

    put(used => messages => "w 56250000 200 c " . ($SLOT - 40) . ':150 10:50');
    put(limit => messages => '50/1h', plan => 'x');
    like(show(), qr/: 200 of 50 used, 0 left, blocked now; next in $last s, /,
        'a lower one: the second slot has to go, too');
    put(limit => messages => '51/1h');
    like(show(), qr/: 200 of 51 used, 0 left, blocked now; next in $first s, /,
        'the first is enough');
    put(limit => messages => '250/1h');
    like(show(), qr/: 200 of 250 used, 50 left; next in $first s, all in $last/,
        'a higher one');
    put(limit => messages => '250/1h,burst=10');
    like(show(), qr/: 0 of 10 used, 10 left; 250/, 'a bucket finds it empty');
    put(limit => messages => '250/1d');
    like(show(), qr/: 200 of 250 used, 50 left; next in [0-9]+ s/, 'of a day');

    fresh();
    put(used => messages => 'w 56250000 200 c ' . ($SLOT + 1000) . ':3');
    like(show(), qr/: 3 of 200 used, 197 left; next in 36\d\d s, /,
        'the future is now');
    put(used => messages => 'w 56250000 200 c ' . ($SLOT - 65) . ':3');
    like(show(), qr/: 0 of 200 used, 200 left; 200/, 'released');
    put(used => messages => 'w 56250000 200 c ' . ($SLOT - 64) . ':3');
    like(show(), qr/: 3 of 200 used/, 'not released');
    fresh();
}


sub buckets {
    # 10 an hour: one drains in 360 s
    my $rate = '10 3600000000 20';

    put(used => messages => 'b ' . ($NOW + 700_000_000) . " $rate c");
    is(show(), 'messages: 2 of 20 used, 18 left; next in 340 s, all in 700 s; '
        . '10/1h,burst=20 from configuration', 'a bucket');
    put(used => messages => 'b ' . ($NOW + 7_200_000_000) . " $rate k");
    is(show(), 'messages: 20 of 20 used, 0 left, blocked now; next in 360 s, '
        . 'all in 7200 s; 10/1h,burst=20 from own entry', 'a full one');
    put(used => messages => 'b ' . ($NOW + 99_200_000_000) . " $rate c");
    like(show(), qr/: 20 of 20 used, .* next in 360 s, all in 7200 s; /,
        'of the future');
    put(used => messages => "b $NOW $rate c");
    like(show(), qr/: 0 of 20 used, 20 left; 10/, 'empty');
    put(limit => messages => '10/1h');
    like(show(), qr/: 0 of 10 used, 10 left; 10\/1h /, 'a window finds it so');
    fresh();
}


sub unreadable {
    for my $text ('', 'x', 'w', 'w 0 200 c 1:1', "w 56250000 200 c$SLOT:1",
        "w 56250000 200 c $SLOT:1 ", "w 56250000 200 x $SLOT:1",
        "w 56250000 $SLOT:1", 'w 56250000 200 c 9007199254740992:1',
        "w 56250000 200 c $SLOT:9999999999999999999", 'b 1', "b $NOW",
        'b 9007199254740994 1 1000000 1 c', "b $NOW 0 1000000 1 c",
        "w 56250000 200 c $SLOT:1" . ' 0:1' x 600)
    {
        put(used => messages => $text);
        like(show(), qr/^nothing is counted/,
            '"' . substr($text, 0, 30) . '" is empty');
    }
    fresh();
}


# Counters at random: a window of another width than the rate's too, slots of
# the past and of the future.  Perl's integers have 64 bits.

sub random_counters {
    srand($SEED);
    my $wrong = 0;

    for (1 .. 1500) {
        my ($text, $own, $line) = rand(3) < 1 ? a_bucket() : a_window();

        $redis->cmd('DEL', key('limit'));
        put(used => messages => $text);
        put(limit => messages => $own) if defined $own;
        next if show() eq $line || $wrong++ > 3;
        is(show(), $line, "seed $SEED: $text, own entry " . ($own // 'none'));
    }

    is($wrong, 0, "1500 counters at random, seed $SEED");
    fresh();
}


sub line {
    my ($used, $of, $soon, $all, $rate) = @_;

    my $left = max(0, $of - $used);

    return "messages: $used of $of used, $left left"
        . ($left == 0 ? ', blocked now' : '')
        . ($used > 0 ? '; next in ' . seconds($soon) . ' s, all in '
            . seconds($all) . ' s' : '')
        . "; $rate";
}

sub seconds { return int(($_[0] + 999_999) / 1_000_000) }


sub a_window {
    my ($stored, $rated) = map { 1 + int(rand(5000)) } 1, 2;
    my ($count, $limit) = map { 1 + int(rand(100)) } 1, 2;
    my $other = rand() < 0.5;
    my $width = $stored * 15_625;
    my $at = int($NOW / $width) - int(rand(80));
    my (%slot, $text);

    for (1 .. 1 + int(rand(6))) {
        my $n = int(rand(40));
        my $d = $text ? int(rand(30)) : $at;

        $at += $d if $text;
        $text .= ($text ? ' ' : "w $width $count c ") . "$d:$n";
        $slot{$at} += $n;
    }

    ($rated, $limit) = ($stored, $count) unless $other;

    my $new = $rated * 15_625;
    my $present = int($NOW / $new);
    my @gone;

    for my $i (keys %slot) {
        my $k = $stored == $rated ? $i
            : int((($i + 1) * $width - 1) / $new);
        my $end = (min($k, $present) + 65) * $new;

        push @gone, ($end - $NOW) x $slot{$i} if $end > $NOW;
    }

    @gone = sort { $a <=> $b } @gone;
    my $used = @gone;
    my $soon = $used ? $gone[max(0, $used - $limit)] : 0;

    return ($text, $other ? "$limit/${rated}s" : undef,
        line($used, $limit, $soon, $gone[-1], "$limit/" . period($rated)
            . ($other ? ' from own entry' : ' from configuration')));
}


sub a_bucket {
    my ($count, $burst) = map { 1 + int(rand(100)) } 1, 2;
    my $seconds = 1 + int(rand(5000));
    my $period = $seconds * 1_000_000;

    my $cost = sub { return int(($_[0] * $period + $count - 1) / $count) };
    my $depth = $cost->($burst);
    my $tat = $NOW - 1000 + int(rand(1.3 * $depth));
    my $level = max(0, min($tat - $NOW, $depth));
    my $used = min($burst, int(($level * $count + $period - 1) / $period));
    my $soon = $level + $cost->($burst - $used + 1) - $depth;

    return ("b $tat $count $period $burst @", undef, line($used, $burst, $soon,
        $level, "$count/" . period($seconds) . ",burst=$burst from domain "
            . '@example.com'));
}


sub period {
    my ($n) = @_;

    return $n % 3600 == 0 ? $n / 3600 . 'h' : $n % 60 == 0 ? $n / 60 . 'm'
        : "${n}s";
}
