#!/usr/bin/perl

# The scripts for operators in a Redis Cluster of two nodes: redis-cli -c finds
# the node of a key, all that a script touches is there, and top says what is
# on the node that it is given to.

use strict;
use warnings;

use File::Temp qw(tempdir);
use FindBin;
use Test::More;
use Time::HiRes qw(sleep time);

use lib "$FindBin::Bin/../tests/lib";

use MailPolicy::Policies;
use MailPolicy::Port qw(free_port);
use MailPolicy::Redis;


plan skip_all => 'no redis-server'
    unless grep { -x "$_/redis-server" } split /:/, $ENV{PATH};

my $dir = tempdir('policy-test-XXXXXX', TMPDIR => 1, CLEANUP => 1);
my @nodes = map { node($_) } 'a', 'b';

plan skip_all => 'no Redis Cluster here' unless joined();

my $policies = MailPolicy::Policies->new($nodes[0], "$FindBin::Bin/..");
my @users = map { "u$_\@example.com" } 1 .. 40;
my $slot = int(time() / 56.25);

$policies->commands($dir);

everyone();
top();

$_->stop() for @nodes;
done_testing();


sub node {
    my ($name) = @_;

    return MailPolicy::Redis->new(port => free_port(), dir => $dir,
        name => $name, args => [ '--cluster-enabled', 'yes',
            '--cluster-config-file', "$name.conf",
            '--cluster-port', free_port() ]);
}


# half of the slots each

sub joined {
    my ($first, $second) = @nodes;
    my ($bus) = $second->cmd('CLUSTER', 'NODES') =~ /:\d+@(\d+)/;

    $first->cmd('CLUSTER', 'ADDSLOTS', 0 .. 8191);
    $second->cmd('CLUSTER', 'ADDSLOTS', 8192 .. 16383);
    $second->cmd('CONFIG', 'SET', 'cluster-announce-ip', '127.0.0.1');
    $first->cmd('CLUSTER', 'MEET', '127.0.0.1', $second->port(), $bus);

    my $end = time() + 20;

    while (time() < $end) {
        return 1 if 2 == grep { $_->cmd('CLUSTER', 'INFO')
            =~ /cluster_state:ok.*cluster_slots_ok:16384/s } @nodes;
        sleep(0.05);
    }

    return 0;
}


sub cli {
    my ($options, $script, $rest) = @_;
    return $policies->line("redis-cli $options --eval policies/$script.lua "
        . $rest);
}


sub everyone {
    my %on;

    for my $user (@users) {
        my $key = sub { return "'mail:$_[0]:user:{$user}'" };
        my ($where) = grep { $_->cmd('CLUSTER', 'KEYSLOT', $user) < 8192
            ? $_ == $nodes[0] : $_ == $nodes[1] } @nodes;

        $on{$where->port()}++;
        $where->cmd('HSET', "mail:used:user:{$user}", 'messages',
            "w 56250000 10 c $slot:7");

        is(cli('-c', 'set', $key->('limit') . ' , messages 20/1h'), "messages: "
            . "20/1h, was not set\nin force from the next message on\n",
            "$user: set");
        like(cli('-c', 'suspend', $key->('limit')), qr/\Asuspended: /,
            'suspend');
        like(cli('-c', 'show', $key->('used')), qr/\Asuspended: .*^messages: (?#
            )7 of 20 used, .* from own entry$/ms, 'show');
        like(cli('-c', 'resume', $key->('limit')), qr/\Aresumed: /, 'resume');
        like(cli('-c', 'reset', $key->('used')), qr/\Amessages: counted /,
            'reset');
        is_deeply([ $where->keys("*{$user}") ], [ "mail:limit:user:{$user}" ],
            'all of it on its node');
    }

    is(scalar keys %on, 2, 'users are on both nodes');
    like(cli('-c', 'set', 'mail:plan:gold , user.messages 5/1h'),
        qr/^user\.messages: 5\/1h/, 'a plan is where it belongs');
}


sub top {
    my %seen;

    for my $user (@users) {
        my $slot_of = $nodes[0]->cmd('CLUSTER', 'KEYSLOT', $user);

        $nodes[$slot_of < 8192 ? 0 : 1]->cmd('HSET', "mail:used:user:{$user}",
            'messages', "w 56250000 10 c $slot:7");
    }

    for my $node (@nodes) {
        my $answer = cli('-p ' . $node->port(), 'top',
            q{, 'mail:used:user:*' 100});
        my @names = $answer =~ /^35% messages: 7 of 20 used; .*\{(.*)\}$/mg;

        is(scalar @names, scalar(() = $node->keys('mail:used:*')),
            'top of a node: its keys');
        $seen{$_}++ for @names;
    }

    is_deeply([ sort keys %seen ], [ sort @users ], 'all of them');
}
