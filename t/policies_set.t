#!/usr/bin/perl

# set.lua writes what an edge can read, or nothing and says why; suspend.lua,
# resume.lua and reset.lua.

use strict;
use warnings;

use File::Temp qw(tempdir);
use FindBin;
use Test::More;

use lib "$FindBin::Bin/../tests/lib";

use MailPolicy::Policies qw(slurp);
use MailPolicy::Port qw(free_port);
use MailPolicy::Redis;


plan skip_all => 'no redis-server'
    unless grep { -x "$_/redis-server" } split /:/, $ENV{PATH};

my $ENTRY = 'mail:limit:user:{alice@example.com}';
my $USED = 'mail:used:user:{alice@example.com}';
my $PLAN = 'mail:plan:gold';
my $NOTHING = 'NOTHING WAS WRITTEN';

my %ERROR = (zero => qr/0 is ambiguous, write unlimited or blocked/,
    range => qr/number out of range: /, suffix => qr/k, m and g are for bytes/,
    syntax => qr/not a rate, write for example 500\/1h/,
    burst => qr/failed logins have no burst, write for example 10\/15m/,
    number => qr/not a number of sessions, write for example 20/);

my $dir = tempdir('policy-test-XXXXXX', TMPDIR => 1, CLEANUP => 1);
my $redis = MailPolicy::Redis->new(port => free_port(), dir => $dir);
my $scripts = MailPolicy::Policies->new($redis, "$FindBin::Bin/..");

rates();
units();
entries();
plans();
all_or_nothing();
keys_named();
suspended();
counters_reset();
wrong_types();

$redis->stop();
done_testing();


sub run   { return join("\n", $scripts->run(@_)) }
sub fresh { $redis->cmd('FLUSHALL') }


# tests/vectors/rates.txt, in which an edge believes, too

sub rates {
    my $vectors = slurp("$FindBin::Bin/../tests/vectors/rates.txt");
    my ($seen, %kinds) = (0);

    for my $line (grep { !/^(?:#|$)/ } split /\n/, $vectors) {
        my ($unit, $result, $text) = $line =~ /^(\w+) (.*?) *\| (.*)$/
            or next;
        my ($kind) = split / /, $result;

        $text =~ s/\\x([0-9a-fA-F]{2})/chr(hex($1))/ge;
        $redis->cmd('DEL', $ENTRY, $PLAN);
        my $said = run('set', $ENTRY, $unit, $text);
        my $plan = run('set', $PLAN, "user.$unit", $text);
        my $error = $ERROR{$kind};

        $seen++;
        $kinds{$kind}++;

        if ($error) {
            like($said, qr/\A\Q$unit\E [ -~]*: $error[ -~]*\n$NOTHING\z/,
                "$line: refused");
            like($plan, qr/$error.*\n$NOTHING\z/, "$line: of a plan, too");
            is($redis->cmd('EXISTS', $ENTRY, $PLAN), 0, "$line: not written");
        } else {
            like($said, qr/\A\Q$unit: $text\E, was not set\n/, $line);
            is($redis->cmd('HGET', $ENTRY, $unit), $text, "$line: written");
            is($redis->cmd('HGET', $PLAN, "user.$unit"), $text, 'of a plan');
        }
    }

    cmp_ok($seen, '>', 50, 'there are rates');
    ok($kinds{$_}, "there are some of $_") for qw(zero range suffix syntax
        window bucket unlimited blocked);
    fresh();
}


sub units {
    for my $good ([ sessions => '20' ], [ sessions => 'Unlimited' ],
        [ sessions => 'blocked' ], [ sessions => '1099511627776' ],
        [ auth_failures => '10/15m' ], [ auth_failures => 'unlimited' ],
        [ connections => '10/1s,burst=3' ], [ bytes => '10g/1d' ],
        [ recipients => '5/w' ], [ plan => 'Gold_1-x' ], [ plan => 'x' x 64 ],
        [ note => "anything 0 \x{e4}\n" ])
    {
        unlike(run('set', $ENTRY, @$good), qr/$NOTHING/, "@$good");
        is($redis->cmd('HGET', $ENTRY, $good->[0]), $good->[1], 'is written');
    }

    fresh();
    for my $bad ([ sessions => '0', 'sessions 0: 0 is ambiguous, ' ],
        [ sessions => '20/1h', 'not a number of sessions, write for ex' ],
        [ sessions => '1099511627777', 'number out of range' ],
        [ sessions => '5k', 'k, m and g are for bytes' ],
        [ auth_failures => '10', 'not a rate, write for example 500/1h, unl' ],
        [ auth_failures => '1/1h,burst=1', 'failed logins have no burst' ],
        [ auth_failures => '0/1h', '0 is ambiguous' ],
        [ connections => '1k/1h', 'k, m and g are for bytes' ],
        [ plan => 'a b', 'plan a b: not a name, write 1 to 64 letters' ],
        [ plan => '', 'not a name' ], [ plan => 'x' x 65, 'not a name' ],
        [ suspended => 'yes', 'suspend.lua and resume.lua do that' ],
        [ mesages => '1/1h', 'mesages: no such unit, did you mean messages?' ],
        [ MESSAGES => '1/1h', 'did you mean messages?' ],
        [ message => '1/1h', 'did you mean messages?' ],
        [ recipents => '1/1h', 'did you mean recipients?' ],
        [ rcpts => '1/1h', 'units are messages, recipients, bytes, conn' ],
        [ byte => '1/1h', 'did you mean bytes?' ],
        [ 'auth-failures' => '1/1h', 'did you mean auth_failures?' ],
        [ session => '5', 'did you mean sessions?' ],
        [ 'x' x 9999 => '5', 'units are' ], [ '' => '5', 'units are' ],
        [ 'user.messages' => '5/1h', 'write the unit only, the limit is na' ],
        [ "\e[2J" => "\a", '\x1B[2J: no such unit' ])
    {
        my ($field, $value, $text) = @$bad;
        my $said = run('set', $ENTRY, $field, $value);

        like($said, qr/\A[ -~]*\Q$text\E[ -~]*\n$NOTHING\z/,
            substr("$field $value", 0, 40) =~ s/[^ -~]/?/gr . ': refused');
        is($redis->cmd('DBSIZE'), 0, 'nothing is written');
    }
}


sub entries {
    is(run('set', $ENTRY, messages => '500/1h'), "messages: 500/1h, was not "
        . "set\nin force from the next message on", 'one is set');
    is(run('set', $ENTRY, messages => '600/1h', note => 'x'),
        "messages: 600/1h, was 500/1h\nnote: x, was not set\nin force from "
        . "the next message on", 'and changed');
    is($redis->cmd('PTTL', $ENTRY), -1, 'without TTL');
    $redis->cmd('EXPIRE', $ENTRY, 1000);
    run('set', $ENTRY, recipients => '5/1h');
    cmp_ok($redis->cmd('PTTL', $ENTRY), '>', 0, 'one that is there stays');
    like(run('set', $ENTRY, map { ($_ => '-') } qw(messages note recipients)),
        qr/^messages: taken away, was 600\/1h$/m, 'taken away');
    is($redis->cmd('EXISTS', $ENTRY), 0, 'nothing is left');
    like(run('set', $ENTRY, messages => '-'), qr/: taken away, was not set$/m,
        'and nothing is made');

    for my $tag ('*', '@example.com') {
        like(run('set', "mail:limit:user:{$tag}", messages => '5/1h'),
            qr/^in force within 2 seconds$/m, "$tag: as caches are");
    }
    fresh();
}


sub plans {
    is(run('set', $PLAN, 'user.messages' => '5/1h', 'a-B_9.sessions' => 3,
        note => 'x'), "user.messages: 5/1h, was not set\na-B_9.sessions: 3, "
        . "was not set\nnote: x, was not set\nin force within 2 seconds",
        'a plan');
    is_deeply($redis->hash($PLAN), { 'user.messages' => '5/1h', note => 'x',
        'a-B_9.sessions' => 3 }, 'is written');
    fresh();

    for my $bad ([ messages => '5/1h', 'messages: write <limit>.<unit>, for' ],
        [ '.messages' => '5/1h', 'write <limit>.<unit>' ],
        [ 'us er.messages' => '5/1h', 'write <limit>.<unit>' ],
        [ 'user.mesages' => '5/1h', 'did you mean messages?' ],
        [ 'user.plan' => 'x', 'no such unit' ],
        [ 'user.sessions' => '5/1h', 'user.sessions 5/1h: not a number' ],
        [ plan => 'x', 'write <limit>.<unit>' ])
    {
        like(run('set', $PLAN, @$bad[0, 1]), qr/\Q$bad->[2]\E.*\n$NOTHING\z/,
            "plan: @$bad[0, 1]: refused");
    }

    for my $name ('a b', 'x' x 65, "\xe4") {
        like(run('set', "mail:plan:$name", 'user.messages' => '5/1h'),
            qr/\Aplan .*: not a name, .*\n$NOTHING\z/, 'not a plan\'s name');
    }
    is($redis->cmd('DBSIZE'), 0, 'nothing is written');
}


sub all_or_nothing {
    my $said = run('set', $ENTRY, messages => '5/1h', bytes => 'x',
        recipents => '5/1h', plan => '*');
    is(scalar(() = $said =~ /\n/g), 3, 'a line for each that is wrong');
    is($redis->cmd('EXISTS', $ENTRY), 0, 'and the right one is not written');

    like(run('set', @$_), qr/\Awrite: set\.lua .*\n$NOTHING\z/s,
        'arguments missing, or the comma') for [ $ENTRY ],
        [ $ENTRY, 'messages' ], [ $ENTRY, 'messages', '5/1h', 'note' ], [ [] ],
        [ [ $ENTRY, 'messages', '5/1h' ] ], [ [ $ENTRY, ',messages' ], '5/1h' ];
    is($redis->cmd('DBSIZE'), 0, 'nothing is written');
}


sub keys_named {
    my %args = (set => [ messages => '5/1h' ], suspend => [], resume => [],
        reset => []);

    for my $script (sort keys %args) {
        for my $key ('mail:limit:user:alice', 'alice@example.com',
            'mail:limit:user:{Alice@example.com}', 'mail:limits:user:{x}',
            "mail:limit:user:{a\x00}", '')
        {
            like(run($script, $key, @{ $args{$script} }),
                qr/\ANo(?:t a)? key .*\nNOTHING WAS (?:WRITTEN|RESET)\z/s,
                "$script: \"" . $key =~ s/[^ -~]/?/gr . '" is refused');
        }
        like(run($script, [ $ENTRY, 'x' ], @{ $args{$script} }),
            qr/write.*one key.*\nNOTHING/s, "$script: two keys");
    }
    is($redis->cmd('DBSIZE'), 0, 'nothing is written');

    run('set', 'a.b:used:user:{x}', messages => '5/1h');
    is_deeply([ $redis->keys() ], [ 'a.b:limit:user:{x}' ],
        'the entry of a used key, with another prefix');
    fresh();
}


sub suspended {
    is(run('suspend', $ENTRY), 'suspended: alice@example.com, in force from '
        . 'the next message on', 'suspend');
    is_deeply($redis->hash($ENTRY), { suspended => 'yes' }, 'is written');
    is(run('suspend', $USED, 'password', "stolen\e"), "suspended: "
        . "alice\@example.com, in force from the next message on\nnote: "
        . 'password stolen\x1B', 'suspend, with a note, by another key');
    is_deeply($redis->hash($ENTRY), { suspended => 'yes', note =>
        "password stolen\e" }, 'is written');
    is($redis->cmd('PTTL', $ENTRY), -1, 'without TTL');
    run('suspend', $ENTRY);
    is($redis->cmd('HGET', $ENTRY, 'note'), "password stolen\e", 'note stays');

    is(run('resume', $ENTRY), "resumed: alice\@example.com, in force from the "
        . "next message on\nnote, which stays: password stolen\\x1B", 'resume');
    is_deeply($redis->hash($ENTRY), { note => "password stolen\e" },
        'is written');
    like(run('resume', $ENTRY), qr/\Awas not suspended: alice/, 'not twice');

    $redis->cmd('HSET', $ENTRY, 'messages', '5/1h');
    $redis->cmd('EXPIRE', $ENTRY, 1000);
    like(run('suspend', $ENTRY), qr/^the entry has a TTL and the suspension /m,
        'an entry that expires');
    $redis->cmd('DEL', $ENTRY);
    is(run('resume', $ENTRY), 'was not suspended: alice@example.com',
        'resume of nothing');
    is($redis->cmd('DBSIZE'), 0, 'makes nothing');

    for my $tag ('@example.com', '*') {
        is(run('suspend', "mail:limit:user:{$tag}"), "suspended: $tag, in "
            . 'force within 2 seconds', "suspend $tag");
        is(run('resume', "mail:limit:user:{$tag}"), "resumed: $tag, in force "
            . 'within 2 seconds', "resume $tag");
    }
    is($redis->cmd('DBSIZE'), 0, 'nothing is left');
}


sub counters_reset {
    my %zset = map { $_ => "mail:$_:user:{alice\@example.com}" }
        qw(lease failed exempt);
    my $fill = sub {
        $redis->cmd('HSET', $USED, map { ($_ => 'x') } qw(messages bytes));
        $redis->cmd('ZADD', $_, 1, 'a', 2, 'b') for values %zset;
    };

    $fill->();
    is(run('reset', $USED), "messages: counted from nothing again\nbytes: "
        . "counted from nothing again\nauth_failures: 2 forgotten", 'reset');
    is_deeply([ $redis->keys() ], [ sort @zset{qw(lease exempt)} ],
        'open sessions and who succeeded stay');

    $fill->();
    is(run('reset', $USED, 'messages'), 'messages: counted from nothing again',
        'reset of a unit');
    is_deeply($redis->hash($USED), { bytes => 'x' }, 'not of the other');
    is(run('reset', $zset{failed}, 'auth_failures', 'sessions'),
        "sessions: 2 forgotten\nauth_failures: 2 forgotten", 'reset of sets');
    is_deeply([ $redis->keys() ], [ sort $USED, $zset{exempt} ], 'is done');
    like(run('reset', $USED, 'bytes', 'mesages'),
        qr/\Amesages: no such unit, .*\nNOTHING WAS RESET\z/, 'no unit');
    is_deeply($redis->hash($USED), { bytes => 'x' }, 'nothing is reset');
    is(run('reset', $USED, 'messages'), 'nothing was counted: '
        . 'alice@example.com', 'nothing to do');

    $redis->cmd('HSET', $ENTRY, 'suspended', 1, 'messages', 'Blocked');
    is(run('reset', $USED), "bytes: counted from nothing again\nstill "
        . "suspended, resume.lua ends that\nmessages: still blocked by the own "
        . 'entry', 'what does not free him');
    is_deeply([ $redis->keys() ], [ sort $ENTRY, $zset{exempt} ],
        'the entry stays');
    fresh();
}


sub wrong_types {
    $redis->cmd('SET', $ENTRY, 'x');
    $redis->cmd('SET', $USED, 'x');
    $redis->cmd('SET', $PLAN, 'x');

    like(run(@$_), qr/is a string, not a hash: delete it first\n$NOTHING\z/,
        "$_->[0] of another type")
        for [ set => $ENTRY, messages => '5/1h' ], [ suspend => $ENTRY ],
            [ resume => $ENTRY ], [ set => $PLAN, 'user.messages' => '5/1h' ];
    like(run('reset', $USED), qr/used.* is a string, not a hash: it is left /,
        'reset of another type');
    is($redis->cmd('GET', $_), 'x', "$_: it is there") for $ENTRY, $USED, $PLAN;
    fresh();
}
