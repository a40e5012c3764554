#!/usr/bin/perl

# One worker knows that Redis hangs, and counts; the other one does not know
# it yet, and tells Redis what was counted.  Before that is answered, nothing
# happens, or workers are replaced, or killed: what was accepted is charged,
# and nobody gets more than the limit.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Test::More;
use Time::HiRes qw(sleep);

use MailPolicy;
use MailPolicy::Limits qw(BACK kill_workers lasting send_one thinking used);

use constant SESSIONS => 12;

my $t = MailPolicy->new();
my $relay = $t->run_relay(name => 'relay', store => 0);
my $redis = $t->run_redis();

$t->conf(<<'EOF');
error_log %%DIR%%/error.log notice;
worker_processes 2;
mail {
    policy_redis  redis://127.0.0.1:%%PORT_redis%% timeout=200ms
                  on_error=local;
    policy_auth   off;
    proxy_pass    127.0.0.1:%%PORT_relay%%;
    max_errors    1000;
    access_log    %%DIR%%/access.log;

    server {
        listen        127.0.0.1:%%PORT_smtp%%;
        protocol      smtp;
        policy        on;
        policy_limit  s  key=$sender  messages=100/1h;
    }
}
EOF
$t->run_nginx();


# all connect before one is served, so that both workers have some

sub sessions {
    my @sessions = map { $t->client('smtp') } 1 .. SESSIONS;

    for my $c (@sessions) {
        $c->greeting();
        $c->ehlo();
    }

    return @sessions;
}


# how many of so many are accepted, in turn

sub accepted {
    my ($sender, $n, @sessions) = @_;

    return scalar(grep {
        send_one($sessions[ $_ % @sessions ], $sender) =~ /^250/ } 1 .. $n);
}


sub end_workers {
    my ($how) = @_;

    $t->disconnect();
    return $how eq 'reload' ? $t->reload() : kill_workers($t);
}


for my $how (qw(nothing reload kill)) {
    my $sender = "$how\@told.example";
    my @sessions = sessions();

    is(accepted($sender, 60, @sessions), 60, "$how: sixty");

    $redis->signal('STOP');
    is(accepted($sender, 20, $sessions[0]), 20, "$how: twenty by a worker");
    is(thinking($t, 'away'), 1, "$how: which knows now that it hangs");

    # more of them, should these be the same worker's
    my $total = 80;

    for (1 .. 8) {
        $total += accepted($sender, 2, sessions());
        last if thinking($t, 'away') == 2;
    }

    is(thinking($t, 'away'), 2, "$how: both know");

    if ($how ne 'nothing') {
        ok(end_workers($how), "$how: it is done");
        $total += accepted($sender, 25, sessions());
        is($total, 100, "$how: the rest, and no more");
    }

    $t->disconnect();
    $redis->signal('CONT');
    $t->wait_for(sub { used($redis, 's', $sender) >= $total }, BACK);
    sleep(0.5);
    cmp_ok(used($redis, 's', $sender), '>=', $total, "$how: is charged");

    TODO: {
        local $TODO = 'what is told by a worker that ends is told again'
            if $how ne 'nothing';

        is(used($redis, 's', $sender), $total, "$how: once");
    }

    is(accepted($sender, 25, sessions()), 100 - $total, 
        "$how: and what is left is granted");
    $t->disconnect();
}

$t->stop();
is_deeply([ lasting($redis) ], [], 'no key without TTL');

$t->done();
