#!/usr/bin/perl

# One Redis that hangs, or dies and comes back with its data: an edge goes on
# from what it knew, grants the rest of a limit and not the whole of it, and
# hands back what it counted.  With two edges each may grant at most the rest
# that it knew of.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Test::More;
use Time::HiRes qw(sleep time);

use MailPolicy;
use MailPolicy::Limits qw(lasting send_one used);

# seconds from the time that Redis is back
use constant BACK => 2;

my $t = MailPolicy->new();
my $relay = $t->run_relay(name => 'relay', store => 0);
my $redis = $t->run_redis(args => [ '--appendonly', 'yes', '--appendfsync',
    'always' ]);

for my $edge (qw(a b)) {
    $t->conf($edge, <<"EOF");
error_log %%DIR%%/$edge.error.log notice;
worker_processes 2;
mail {
    policy_redis  redis://127.0.0.1:%%PORT_redis%% timeout=200ms
                  on_error=local;
    policy_auth   off;
    proxy_pass    127.0.0.1:%%PORT_relay%%;
    max_errors    1000;
    access_log    %%DIR%%/$edge.log;

    server {
        listen        127.0.0.1:%%PORT_$edge%%;
        protocol      smtp;
        policy        on;
        policy_limit  s  key=\$sender  messages=100/1h  recipients=200/1h
                         bytes=100k/1h;
    }

    server {
        listen        127.0.0.1:%%PORT_bucket_$edge%%;
        protocol      smtp;
        policy        on;
        policy_limit  b  key=\$sender  messages=100/1d,burst=30;
    }
}
EOF
    $t->run_nginx($edge);
}


sub session {
    my ($where) = @_;

    return $t->session($where);
}


# sends so many, in sessions of ten, so that both workers have a part in it;
# returns how many were accepted

sub sends {
    my ($where, $sender, $n, @rcpts) = @_;

    my ($c, $accepted) = (undef, 0);

    for my $i (0 .. $n - 1) {
        if ($i % 5 == 0) {
            $c->quit() if $c;
            $c = session($where);
        }
        $accepted++ if send_one($c, $sender, @rcpts) =~ /^250/;
    }

    $c->quit();
    return $accepted;
}


sub count_of { my ($edge, $what) = @_;
    return scalar(() = $t->error_log($edge) =~ /policy store \S+ is $what/g) }

# all workers know each other

sub connected {
    return $t->wait_for(sub { 8 <= grep { /\bcmd=(?!client|NULL)/ }
        split /\n/, eval { $redis->cmd('CLIENT', 'LIST') } // '' });
}


sub away {
    my ($kind) = @_;

    $kind eq 'hangs' ? $redis->signal('STOP') : $redis->kill();
}


sub back {
    my ($kind) = @_;

    $kind eq 'hangs' ? $redis->signal('CONT') : $redis->start();
    return time();
}


# waits until it is counted so, and says how long that took since then

sub handed_back {
    my ($what, $since, $limit, $sender, %expected) = @_;

    local $Test::Builder::Level = $Test::Builder::Level + 1;

    my $now = '';
    my $wanted = join(' ', map { "$_=$expected{$_}" } sort keys %expected);

    $t->wait_for(sub {
        $now = eval { join(' ', map { "$_="
            . used($redis, $limit, $sender, $_) } sort keys %expected) } // '';
        return $now eq $wanted;
    }, 6);

    my $took = time() - $since;

    is($now, $wanted, "$what: the counters");
    cmp_ok($took, '<', BACK + 0.3, "$what: in time");
    note(sprintf('%s: %.1f s', $what, $took));
}


ok(connected(), 'all are connected');

for my $kind ('hangs', 'is killed') {
    my $name = $kind =~ s/ /-/gr;

    # one edge

    my $alone = "alone\@$name.example";
    is(sends('a', $alone, 60), 60, "$kind: sixty");
    is(used($redis, 's', $alone), 60, "$kind: are counted");

    # two edges, in turn: each knows what Redis said to it last

    my $both = "both\@$name.example";
    is(sends('a', $both, 30) + sends('b', $both, 30), 60,
        "$kind: thirty by each");

    # and a sender that only one of them has seen, or none

    my $other = "other\@$name.example";
    is(sends('a', $other, 90), 90, "$kind: ninety by one of them");

    away($kind);

    is(sends('a', $alone, 45), 40, "$kind: forty more, and not one more");

    my $a = sends('a', $both, 75);
    my $b = sends('b', $both, 45);
    is($a, 70, "$kind: two edges: the first one knew of thirty");
    is($b, 40, "$kind: two edges: the second one knew of sixty");

    is(sends('b', $other, 101), 100, "$kind: never seen: a budget of its own");

    my $since = back($kind);

    handed_back("$kind: one edge", $since, 's', $alone,
        messages => 100, recipients => 100);
    handed_back("$kind: two edges", $since, 's', $both,
        messages => 30 + 30 + $a + $b);
    handed_back("$kind: never seen", $since, 's', $other, messages => 190);

    ok($t->wait_for(sub {
        count_of('a', 'back') == count_of('a', 'away')
            && count_of('b', 'back') == count_of('b', 'away') }),
        "$kind: all are back");

    for my $edge (qw(a b)) {
        is(sends($edge, $_, 4), 0, "$kind: $edge grants nothing more of $_")
            for $alone, $both, $other;
    }

    handed_back("$kind: one edge, later", time(), 's', $alone,
        messages => 100, recipients => 100);
}

# Who was refused knows that nothing is left, whoever had it: the last ones
# that were granted are not what counts.

my $seen = 'seen@refused.example';
is(sends('a', $seen, 60) + sends('b', $seen, 45), 100, 'refused: hundred');
is(sends('a', $seen, 5), 0, 'refused: the first edge has seen it');
away('hangs');
is(sends('a', $seen, 50), 0, 'refused: it grants nothing of its own');
is(sends('b', $seen, 50), 0, 'refused: nor does the second one');
back('hangs');

$t->stop($_) for qw(a b);
is_deeply([ lasting($redis) ], [], 'no key without TTL');

$t->done();
