#!/usr/bin/perl

# What show.lua says of all that can be under a key; more of counters is in
# policies_counters.t.

use strict;
use warnings;

use File::Temp qw(tempdir);
use FindBin;
use List::Util qw(max);
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

words();
any_kind();
entries();
sets();
wrong_types();
hostile();
nothing_is_written();

$redis->stop();
done_testing();


sub key  { return "mail:$_[0]:user:{" . ($_[1] // 'alice@example.com') . '}' }

sub put {
    my ($kind, @fields) = @_;
    $redis->cmd('HSET', key($kind), @fields);
}

sub show { return join("\n", $scripts->run_at($NOW, 'show', key('used'))) }

sub fresh { $redis->cmd('FLUSHALL') }


sub words {
    is(show(), 'nothing is counted, and there is no own entry: '
        . 'alice@example.com', 'nothing');

    put(limit => messages => '500/60m', plan => 'gold', note => 'by phone',
        sessions => 3, recipients => 'Unlimited', connections => 'blocked',
        bytes => '10m/1d,burst=1m', auth_failures => '5/15m');

    is(show(), <<'EOF' =~ s/\n\z//r, 'an entry, and no counter');
plan: gold
note: by phone
messages: 0 of 500 used, 500 left; 500/1h from own entry
recipients: unlimited from own entry
bytes: 0 of 1048576 used, 1048576 left; 10485760/1d,burst=1048576 from own entry
connections: blocked from own entry
sessions: 0 of 3 used, 3 left; 3 from own entry
auth_failures: 0 of 5 used, 5 left; 5/15m from own entry
EOF

    for my $word ('yes', '1', 'x', 'YES') {
        put(limit => suspended => $word);
        like(show(), qr/^suspended: every unit is blocked$/m, "$word: is so");
    }
    for my $word ('', '0', 'no', 'No') {
        put(limit => suspended => $word);
        unlike(show(), qr/^suspended/m, "\"$word\": is not so");
    }

    fresh();
    my %text = ('7/1w' => '7/1w', '7/14d' => '7/2w', '7/24h' => '7/1d',
        '7/36h' => '7/36h', '7/90m' => '7/90m', '7/3600s' => '7/1h',
        '7/61s' => '7/61s', '7/s' => '7/1s', '7/366d' => '7/366d');
    for my $rate (sort keys %text) {
        put(limit => messages => $rate);
        is(show(), "messages: 0 of 7 used, 7 left; $text{$rate} from own "
            . 'entry', "$rate is shown as $text{$rate}");
    }
    fresh();
}


sub any_kind {
    put(limit => messages => '5/1h');

    for my $kind (qw(used limit lease failed exempt)) {
        is(join('', $scripts->run('show', key($kind))),
            'messages: 0 of 5 used, 5 left; 5/1h from own entry',
            "asked by the $kind key");
    }

    # other prefixes, also those that look like a kind
    for my $prefix ('', 'x', 'limit:', 'used:limit:', 'a.b[c]*:') {
        $redis->cmd('HSET', "${prefix}limit:user:{x}", 'messages', '6/1h');
        is(join('', $scripts->run('show', "${prefix}used:user:{x}")),
            'messages: 0 of 6 used, 6 left; 6/1h from own entry',
            "prefix \"$prefix\"");
    }

    for my $key ('mail:used:user:alice@example.com', 'mail:used:{x}', '',
        'mail:uses:user:{x}', 'mail:used:user:{}', 'mail:used:us er:{x}',
        'mail:used:user:{x}y', 'mail:used:user:{{x}}')
    {
        like(join("\n", $scripts->run('show', $key)),
            qr/\ANot a key of a limit, write it as [^\n]*\z/,
            "\"$key\": is no key");
    }

    for my $key ('Alice@example.com', 'a b', "a\x01", "\xc3\xa4", 'a%2fb',
        'a%', 'x' x 129)
    {
        like(join("\n", $scripts->run('show', "mail:used:user:{$key}")),
            qr/\ANo key has this form: [ -~]*\z/, 'not how a key is written');
    }

    like(join('', $scripts->run('show', 'mail:used:user:{Alice@example.com}')),
        qr/: alice\@example\.com$/, 'and how it is');
    like(join('', $scripts->run('show', "mail:used:user:{$_}")), qr/^nothing/,
        "$_: is a key") for 'a%20b', '*', '@example.com', '2001:db8::', 'a[b]',
        '~!|$&', 'sha256-' . 'a' x 64;

    like(join('', $scripts->run('show', [])), qr/^Not a key/, 'no key');
    fresh();
}


sub entries {
    put(limit => messages => 0, bytes => '5 / h', sessions => '3/1h',
        auth_failures => '5/1h,burst=3', recipients => '1k/1h', plan => 'a b',
        mesages => '5/1h', connections => '7/400d');

    my @skipped = (
        [ plan => 'a b', 'not a name, write 1 to 64 letters, digits, _ and -' ],
        [ messages => '0', '0 is ambiguous, write unlimited or blocked' ],
        [ recipients => '1k/1h', 'k, m and g are for bytes only, write the '
            . 'number in full' ],
        [ bytes => '5 / h', 'not a rate, write for example 500/1h, '
            . '500/1h,burst=20, unlimited or blocked' ],
        [ connections => '7/400d', 'number out of range: counts are 1 to 2^40, '
            . 'a period is 1 second to 366 days, a burst refills within 142 '
            . 'years' ],
        [ sessions => '3/1h', 'not a number of sessions, write for example 20, '
            . 'unlimited or blocked' ],
        [ auth_failures => '5/1h,burst=3', 'failed logins have no burst, write '
            . 'for example 10/15m' ]);

    is(show(), join("\n", (map { "$_->[0]: $_->[1] is skipped: $_->[2]" }
        @skipped), 'mesages: unknown field, it limits nothing; units are '
        . 'messages, recipients, bytes, connections, sessions, auth_failures'),
        'entries that cannot be read');
    fresh();
}


sub sets {
    $redis->cmd('ZADD', key('lease'), $NOW, 'gone',
        map { ($NOW + $_ * 1_000_000, "m$_") } 10, 20, 30);
    is(show(), 'sessions: 3 used; next in 10 s, all in 30 s; the limit is '
        . 'that of the edges, no own entry', 'leases');

    for my $case ([ 4 => '3 of 4 used, 1 left; next in 10' ],
        [ 3 => '3 of 3 used, 0 left, blocked now; next in 10' ],
        [ 2 => '3 of 2 used, 0 left, blocked now; next in 20' ],
        [ 1 => '3 of 1 used, 0 left, blocked now; next in 30' ])
    {
        put(limit => sessions => $case->[0]);
        is(show(), "sessions: $case->[1] s, all in 30 s; $case->[0] from own "
            . 'entry', "leases, sessions $case->[0]");
    }

    put(limit => sessions => 'unlimited');
    is(show(), 'sessions: unlimited from own entry', 'unlimited');

    fresh();
    $redis->cmd('ZADD', key('failed'),
        map { ($NOW + $_ * 1_000_000, "000$_") } 1 .. 5);
    $redis->cmd('ZADD', key('exempt'), $NOW - 5, 'ffff', $NOW + 5, 'fffe');
    put(limit => auth_failures => '3/4s');
    is(show(), "auth_failures: 5 of 3 used, 0 left, blocked now; next in 3 s, "
        . "all in 4 s; 3/4s from own entry\n"
        . 'auth_failures: twice as many for logins that succeeded from a '
        . 'client: 1', 'failed logins; none counts longer than from now on');

    $redis->cmd('DEL', key('failed'), key('exempt'));
    $redis->cmd('ZADD', key('failed'), $NOW, 'a');
    is(show(), 'auth_failures: 0 of 3 used, 3 left; 3/4s from own entry',
        'expired ones');
    fresh();
}


sub wrong_types {
    $redis->cmd('SET', key('used'), 'x');
    $redis->cmd('SET', key('lease'), 'x');
    $redis->cmd('RPUSH', key('limit'), 'x');
    $redis->cmd('HSET', key('failed'), 'x', 'y');
    $redis->cmd('SADD', key('exempt'), 'x');

    my @lines = split /\n/, show();
    is(scalar @lines, 5, 'keys of other types: a line for each');
    like($lines[0], qr/limit:user.* is a list, not a hash: it is left alone/,
        'and what to do');
    fresh();
}


# whatever somebody wrote, a terminal gets letters

sub hostile {
    put(limit => "x\n\e[2J", "y", messages => "\e]0;x\a", note => "a\r\nb",
        plan => "\x9b", "y" x 5000, 'z');
    my $text = show();
    unlike($text, qr/[^ -~\n]/, 'no control characters');
    like($text, qr/^note: a\\x0D\\x0Ab$/m, 'they are to be seen');
    cmp_ok(max(map { length } split /\n/, $text), '<', 400, 'lines end');
    fresh();
}


sub nothing_is_written {
    put(used => messages => 'w 56250000 200 c ' . ($SLOT + 1000) . ':3');
    $redis->cmd('PEXPIRE', key('used'), 100_000);
    $redis->cmd('ZADD', key('lease'), 1, 'gone');
    my $changes = sub { return ($redis->cmd('INFO', 'persistence')
        =~ /rdb_changes_since_last_save:(\d+)/)[0] };
    my $before = $changes->();
    show();
    $scripts->run('top', 'mail:used:user:*');
    is($changes->(), $before, 'nothing is written');
    fresh();
}
