#!/usr/bin/perl

# Where the numbers of connections, sessions and auth_failures come from: the
# same levels as those of messages (limit_levels.t).

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Test::More;
use Time::HiRes qw(sleep);

use MailPolicy;
use MailPolicy::Limits qw(lasting);

my $t = MailPolicy->new();
my $redis = $t->run_redis();
my $relay = $t->run_relay(name => 'relay', store => 0);
my $login = 'alice@example.com';

$t->write_file('users', "$login:{PLAIN}secret\n");

my $server = <<'EOF';
    server {
        listen        127.0.0.1:%%PORT_UNIT%%;
        protocol      smtp;
        policy        on;
        policy_auth   file:%%DIR%%/users;
        policy_limit  LIMIT  key=$sasl_username  UNIT=RATE;
    }

EOF

my %RATE = (connections => '/1h', sessions => '', auth_failures => '/1h');

my @servers = map {
    $server =~ s/UNIT=RATE/$_=3$RATE{$_}/r =~ s/UNIT/$_/r
        =~ s/LIMIT/limit_$_/r
} sort keys %RATE;

$t->conf(<<"EOF");
mail {
    policy_redis  redis://127.0.0.1:%%PORT_redis%% timeout=5s cache=0;
    proxy_pass    127.0.0.1:%%PORT_relay%%;
    policy_auth_plaintext  on;
    max_errors    1000;

@servers}
EOF
$t->run_nginx();


# the most specific first; each plan is named by the entry before it

sub levels {
    my ($unit) = @_;

    return (
        [ "mail:limit:limit_$unit:{$login}",         $unit ],
        [ 'mail:plan:own',                           "limit_$unit.$unit" ],
        [ "mail:limit:limit_$unit:{\@example.com}",  $unit ],
        [ 'mail:plan:domain',                        "limit_$unit.$unit" ],
        [ "mail:limit:limit_$unit:{*}",              $unit ],
        [ 'mail:plan:default',                       "limit_$unit.$unit" ],
    );
}


# How many pass of those tried; the reply to the first that does not.  What
# stays open is closed then, and its leases are gone.

sub passing {
    my ($unit, $tries) = @_;

    my (@open, $reply);
    my $n = 0;

    for (1 .. $tries) {
        my $c = $t->client($unit);
        $c->greeting();
        $c->ehlo();
        $reply = $c->auth_plain($login, $unit eq 'auth_failures' ? "no $_"
                                                                 : 'secret');
        push @open, $c;
        last if $reply !~ /^(?:235|535)/;
        $n++;
    }

    $_->close() for @open;
    $t->wait_for(sub { !$redis->keys('mail:lease:*') })
        if $unit eq 'sessions';
    $redis->cmd('DEL', $_) for $redis->keys('mail:used:*'),
        $redis->keys('mail:failed:*');
    return wantarray ? ($n, $reply) : $n;
}


sub set {
    my ($level, $value) = @_;

    $redis->cmd('HSET', @$level, $value);
}


sub clear {
    my @levels = @_;

    $redis->cmd('FLUSHDB');
    $redis->cmd('HSET', $levels[$_][0], 'plan',
        $levels[$_ + 1][0] =~ s/^mail:plan://r) for 0, 2, 4;
}


# Redis has to know all scripts before: one that it is sent comes later

my $c = $t->client('auth_failures');
$c->greeting();
$c->ehlo();
like($c->auth_plain($login, 'secret'), qr/^235 /, 'a right password');
like($c->cmd('RSET'), qr/^250 /, 'and on');
$c->quit();

for my $unit (sort keys %RATE) {
    my @levels = levels($unit);
    my $refused = $unit eq 'auth_failures' ? qr/^454 4\.7\.0 /
                                           : qr/^421 4\.7\.0 /;

    clear(@levels);
    my ($n, $reply) = passing($unit, 5);
    is($n, 3, "$unit: as the directive says");
    like($reply, $refused, "$unit: then refused");

    # from the least specific on: each is in force in spite of all before

    for my $i (reverse 0 .. 5) {
        my $count = 1 + $i % 2;

        set($levels[$i], $count . $RATE{$unit});
        is(scalar passing($unit, 4), $count, "$unit: $levels[$i][0]");
    }

    for my $i (0 .. 5) {
        my $key = $levels[$i][0];

        clear(@levels);
        set($levels[$i], 'unlimited');
        is(scalar passing($unit, 5), 5, "$unit: $key: unlimited");
        set($levels[$i], 'blocked');
        is(scalar passing($unit, 2), 0, "$unit: $key: blocked");

        set($levels[$i], $_)
            and is(scalar passing($unit, 5), 3, "$unit: $key: \"$_\"")
            for '0', 'many', $unit eq 'sessions' ? '5/1h' : '5',
                '5/1h,burst=' . ($unit eq 'connections' ? 0 : 5);

        next if $i % 2;
        $redis->cmd('HDEL', @{ $levels[$i] });
        $redis->cmd('HSET', $key, 'suspended', 'yes');
        is(scalar passing($unit, 2), 0, "$unit: $key: suspended");
    }
}

# what a session holds stands while its number changes

my @levels = levels('sessions');
clear(@levels);
set($levels[0], 2);

my @open = map { $t->client('sessions') } 1 .. 3;
$_->greeting(), $_->ehlo() for @open;
like($open[0]->auth_plain($login, 'secret'), qr/^235/, 'the first of two');
set($levels[0], 1);
like($open[1]->auth_plain($login, 'secret'), qr/^421/, 'one now: refused');
like($open[0]->cmd('NOOP'), qr/^250/, 'and the first goes on');
set($levels[0], 2);
like($open[2]->auth_plain($login, 'secret'), qr/^235/, 'two again');
set($levels[0], 'blocked');
like($open[0]->cmd('NOOP'), qr/^250/, 'blocked: those who are in go on');
cmp_ok($redis->cmd('PTTL', "mail:lease:limit_sessions:{$login}"), '>', 0,
    'and their leases have a TTL');

$t->disconnect();
$t->stop();

is_deeply([ grep { $redis->cmd('PTTL', $_) == -1 }
    grep { !/^mail:(?:limit|plan|events)/ } $redis->keys('*') ], [],
    'no key without TTL but those of operators');
is_deeply([ $redis->keys('mail:lease:*') ], [], 'no lease is left');

$t->done();
