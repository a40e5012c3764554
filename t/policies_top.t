#!/usr/bin/perl

# What top.lua says of many keys, in windows of an hour.

use strict;
use warnings;

use File::Temp qw(tempdir);
use FindBin;
use Test::More;

use lib "$FindBin::Bin/../tests/lib";

use MailPolicy::Policies;
use MailPolicy::Port qw(free_port);
use MailPolicy::Redis;


plan skip_all => 'no redis-server'
    unless grep { -x "$_/redis-server" } split /:/, $ENV{PATH};

my $NOW = 1_754_006_403_123_456;
my $SLOT = int($NOW / 56_250_000);

my $dir = tempdir('policy-test-XXXXXX', TMPDIR => 1, CLEANUP => 1);
my $redis = MailPolicy::Redis->new(port => free_port(), dir => $dir);
my $scripts = MailPolicy::Policies->new($redis, "$FindBin::Bin/..");

order();
own();
wrong_types();
sets();
bounds();

$redis->stop();
done_testing();


sub key { return "mail:$_[0]:user:{$_[1]}" }

sub top {
    my ($pattern, @args) = @_;
    return $scripts->run_at($NOW, 'top', $pattern, @args);
}

sub fresh { $redis->cmd('FLUSHALL') }


# units: [ count, used ], or the text of a counter

sub user {
    my ($name, %unit) = @_;

    $redis->cmd('HSET', key('used', $name), map { ($_ => ref $unit{$_}
        ? "w 56250000 $unit{$_}[0] c $SLOT:$unit{$_}[1]" : $unit{$_}) }
        keys %unit);
}

sub names { return [ map { /\{(.*)\}/ } @_ ] }


sub order {
    is_deeply([ top('mail:used:user:*') ], [ 'no key matches: '
        . 'mail:used:user:*' ], 'top of nothing');

    user("u$_", messages => [ 100, $_ ]) for 1 .. 60;
    user('full', messages => [ 10, 10 ], recipients => [ 100, 1 ]);
    user('over', messages => [ 10, 13 ]);
    user('bucket', messages => 'b ' . ($NOW + 30_000_000)
        . ' 60 60000000 40 p');
    user('old', messages => 'w 56250000 10 c ' . ($SLOT - 65) . ':10');
    $redis->cmd('HSET', 'mail:used:client:{x}', 'messages',
        "w 56250000 10 c $SLOT:10");

    is_deeply(names(top('mail:used:user:*', 5)),
        [ qw(over full bucket u60 u59) ], 'the fullest first');
    is_deeply([ top('mail:used:user:*', 3) ], [
        '130% messages: 13 of 10 used, blocked now; 10/1h from configuration'
            . '  mail:used:user:{over}',
        '100% messages: 10 of 10 used, blocked now; 10/1h from configuration'
            . '  mail:used:user:{full}',
        '75% messages: 30 of 40 used; 60/1m,burst=40 from plan'
            . '  mail:used:user:{bucket}' ], 'what is said of them');
    is(scalar(() = top('mail:used:user:*')), 10, 'ten unless said');
    is(scalar(() = top('mail:used:user:*', 1000)), 64,
        'each unit that counts');
    is_deeply(names(top('mail:used:user:{u1*', 3)), [ qw(u19 u18 u17) ],
        'a pattern');
    is_deeply([ $scripts->run('top', [], 'mail:used:user:{u1*', 3) ],
        [ 'nothing counts in 11 keys' ],
        'a pattern behind the comma; by the time of Redis they are old');
}


sub own {
    my $entry = sub { my ($name, @fields) = @_;
        $redis->cmd('HSET', key('limit', $name), @fields) };

    $entry->(over => messages => '1000/1h');
    $entry->(u7 => messages => '5/1h');
    $entry->(u8 => suspended => 'yes');
    $entry->(u9 => messages => 'blocked');
    $entry->(u60 => messages => 'unlimited');
    $entry->(idle => suspended => '1', messages => '5/1h');
    $entry->(u59 => note => 'x', messages => 'nonsense');

    my $names = names(top('mail:used:user:*', 6));
    is("@$names[0, 1, 4, 5]", 'u7 full bucket u59', 'own entries go before');
    is("@{[ sort @$names[2, 3] ]}", 'u8 u9', 'who is blocked is full');

    my @lines = top('mail:limit:user:*', 4);
    is_deeply([ $lines[0], sort @lines[1 .. 3] ], [
        '140% messages: 7 of 5 used, blocked now; 5/1h from own entry'
            . '  mail:limit:user:{u7}',
        'every unit: blocked by own entry  mail:limit:user:{idle}',
        'every unit: blocked by own entry  mail:limit:user:{u8}',
        'messages: blocked by own entry  mail:limit:user:{u9}' ],
        'those that have an own entry');
    fresh();
}


sub sets {
    for my $n (1 .. 12) {
        $redis->cmd('ZADD', "mail:failed:client:{10.0.0.$n}", $NOW - 1, 'old',
            map { ($NOW + 1000, $_) } 1 .. $n);
    }
    $redis->cmd('HSET', 'mail:limit:client:{10.0.0.2}', 'auth_failures',
        '4/1h');
    is_deeply([ (top('mail:failed:client:*'))[0 .. 1] ], [
        '50% auth_failures: 2 of 4 used; 4/1h from own entry'
            . '  mail:failed:client:{10.0.0.2}',
        '12 of auth_failures  mail:failed:client:{10.0.0.12}' ],
        'sets, by their own entry and by how many');
    is_deeply([ top('mail:lease:client:*') ], [ 'no key matches: '
        . 'mail:lease:client:*' ], 'no leases');
    fresh();
}


sub wrong_types {
    $redis->cmd('SET', 'mail:used:user:{x}', 'x');
    $redis->cmd('RPUSH', 'mail:limit:user:{x}', 'x');
    $redis->cmd('SET', 'mail:lease:user:{x}', 'x');
    is_deeply([ top("mail:$_:user:*") ], [ 'nothing counts in 1 keys' ],
        "$_ keys of another type") for qw(used limit lease);
    fresh();
}


sub bounds {
    for my $wrong ([ 'mail:*' ], [ '*used:user:*' ], [ '' ],
        [ 'mail:used:*', 0 ], [ 'mail:used:*', 1001 ], [ 'mail:used:*', 'x' ],
        [ 'mail:used:*', 1, 0 ], [ 'mail:used:*', 1, 5, 'x' ])
    {
        like(join("\n", $scripts->run('top', @$wrong)), qr/\Awrite: top\.lua/,
            "@$wrong: how to write it");
    }
    like(join("\n", $scripts->run('top', [])), qr/\Awrite: /, 'nothing');

    user("u$_", messages => [ 10_000, $_ ]) for 1 .. 5000;

    my ($cursor, $parts, %seen) = (0, 0);

    do {
        my @lines = top('mail:used:user:*', 2, 2000, $cursor);

        $parts++;
        ($cursor) = $lines[-1] =~ /^NOT COMPLETE, stopped after about 2000 (?#
            )of 5000 keys; the others: 2 2000 (\d+) behind the comma$/;
        $seen{$_} = 1 for @{ names(@lines) };
    } while ($cursor && $parts < 10);

    is($parts, 3, 'in parts');
    ok($seen{u5000} && $seen{u4999}, 'the parts have the fullest of all');
    is_deeply(names(top('mail:used:user:*', 2, 100_000)), [ qw(u5000 u4999) ],
        'at once');
    # full windows take longer, so that there are fewer of them
    my $full = 'w 56250000 100000 c ' . ($SLOT - 64) . ':100' . ' 1:100' x 64;
    user("u$_", map { ($_ => $full) } qw(messages recipients bytes))
        for 1 .. 5000;
    like((top('mail:used:user:*', 2, 4500))[-1],
        qr/^NOT COMPLETE, stopped after about [12]000 /, 'long counters');
}
