#!/usr/bin/perl

# One edge, and a Redis that hangs again and again under load: while it is
# away, at the very moment of its return, and behind it, nobody gets more than
# the limit; and what is charged in the end is what was accepted.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Test::More;
use Time::HiRes qw(sleep time);

use MailPolicy;
use MailPolicy::Limits qw(lasting send_one thinking used);
use MailPolicy::Load;

# what one worker asks may overtake what the other one is just telling
use constant { CLIENTS => 6, LIMIT => 100, OVERTAKE => 3 };

# of messages a window of seconds may have
my %SHORT = ('short@window.example' => [ 20, 2 ],
             'shorter@window.example' => [ 10, 1 ]);

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
    max_errors    100000;
    access_log    %%DIR%%/access.log;

    server {
        listen        127.0.0.1:%%PORT_hour%%;
        protocol      smtp;
        policy        on;
        policy_limit  hour   key=$sender  messages=100/1h;
    }

    server {
        listen        127.0.0.1:%%PORT_short%%;
        protocol      smtp;
        policy        on;
        policy_limit  short  key=$sender  messages=20/2s;
    }
}
EOF

$t->run_nginx();
$redis->cmd('HSET', 'mail:limit:short:{shorter@window.example}', 'messages',
    '10/1s');


sub away {
    my ($port) = @_;

    $redis->signal('STOP');
    return $t->wait_for(sub { thinking($t, 'away') == 2 });
}


# An hour's limit: used up while it is away, by many who go on asking.

my $hot = 'hot@hour.example';
my $c = $t->client('hour');

$c->greeting();
$c->ehlo();
is(scalar(grep { send_one($c, $hot) =~ /^250/ } 1 .. 60), 60, 'sixty');

my $load = MailPolicy::Load->new($t, port => 'hour', clients => CLIENTS,
    pool => [ $hot ], pause => 0.005);
ok(away(), 'it hangs');

# those that were asked for then may count twice
sleep(1.5);
$redis->signal('CONT');
my $back = time();
ok($t->wait_for(sub { thinking($t, 'back') == 2 }), 'it is back');
sleep(2);

my ($longest, %count) = $load->stop();
my $accepted = grep { $_->[0] eq $hot } $load->accepted();
my $late = grep { $_->[2] > $back } $load->accepted();

is(join(' ', sort keys %count), '250 450', 'hour: nothing but the limit');
cmp_ok($accepted, '>=', LIMIT - 60 - CLIENTS, 'hour: the rest is granted');

cmp_ok(60 + $accepted, '<=', LIMIT + OVERTAKE, 'hour: and no more')
    or diag("$late when it was back");

my $used = used($redis, 'hour', $hot);
cmp_ok($used, '>=', 60 + $accepted, 'hour: what was accepted is charged');
cmp_ok($used, '<=', 60 + $accepted + CLIENTS, 'hour: and nothing twice');

# Windows of seconds, while it comes and goes.

$load = MailPolicy::Load->new($t, port => 'short', clients => CLIENTS,
    pool => [ sort keys %SHORT ], pause => 0.005);

my @return;

for my $n (1 .. 4) {
    sleep(0.4 * $n);
    away();
    sleep(0.4 * (5 - $n));
    $redis->signal('CONT');
    push @return, time();
    $t->wait_for(sub { thinking($t, 'back') == 2 });
}

sleep(1);
($longest, %count) = $load->stop();
is(join(' ', sort keys %count), '250 450', 'short: nothing but the limit');
cmp_ok($longest, '<', 2, 'short: the longest wait');


# the most that were begun and accepted within the period

sub most {
    my ($period, @sent) = @_;

    my ($most, $where) = (0, 0);
    @sent = sort { $a->[1] <=> $b->[1] } @sent;

    for my $i (0 .. $#sent) {
        my $begin = $sent[$i][1];
        my $end = $begin + $period;
        my $n = grep { $_->[1] >= $begin && $_->[2] < $end } @sent;
        ($most, $where) = ($n, $begin) if $n > $most;
    }

    return ($most, $where);
}


for my $key (sort keys %SHORT) {
    my ($max, $period) = @{ $SHORT{$key} };
    my @sent = grep { $_->[0] eq $key } $load->accepted();
    my ($most, $where) = most($period, @sent);

    cmp_ok($most, '<=', $max + OVERTAKE, "short: $key: never more than $max")
        or diag(sprintf('%d from %.2f, returns %s', $most, $where,
            join(' ', map { sprintf('%.2f', $_) } @return)));

    cmp_ok(scalar @sent, '>', 2 * $max, "short: $key: there was enough");
    note(scalar(@sent) . " of $key, $most in $period s");
}

$t->stop();
is_deeply([ lasting($redis) ], [], 'no key without TTL');

$t->done();
