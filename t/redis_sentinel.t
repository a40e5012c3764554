#!/usr/bin/perl

# Redis behind three Sentinels: its master dies, hangs, or is replaced while
# mail flows.  No session is refused or hangs, and counters are in the new
# master's hands at most two seconds after it was named.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Test::More;
use Time::HiRes qw(sleep time);

use MailPolicy;
use MailPolicy::Limits qw(send_one used);
use MailPolicy::Load;

use constant { BACK => 2, MARGIN => 2 };

my $t = MailPolicy->new();
my $relay = $t->run_relay(name => 'relay', store => 0);

my %redis;
my @fast = ('--repl-diskless-sync-delay', 0, '--repl-timeout', 5);

$redis{a} = $t->run_redis(name => 'a', password => 'secret', args => \@fast);
$redis{b} = $t->run_redis(name => 'b', password => 'secret', args => [ @fast,
    '--replicaof', '127.0.0.1', $redis{a}->port() ]);

# the Sentinels themselves want no password

my %sentinel = map { $_ => $t->run_redis(name => $_, sentinel => <<"END") }
sentinel monitor mymaster 127.0.0.1 @{[ $redis{a}->port() ]} 2
sentinel auth-pass mymaster secret
sentinel down-after-milliseconds mymaster 700
sentinel failover-timeout mymaster 1000
END
    qw(s1 s2 s3);


sub conf {
    my ($name, $urls) = @_;

    $t->conf($name, <<"EOF");
error_log %%DIR%%/$name.error.log notice;
worker_processes 2;
mail {
    policy_redis  $urls sentinel=mymaster on_error=local timeout=300ms;
    policy_auth   off;
    proxy_pass    127.0.0.1:%%PORT_relay%%;
    access_log    %%DIR%%/$name.access.log;

    server {
        listen        127.0.0.1:%%PORT_$name%%;
        protocol      smtp;
        policy        on;
        policy_limit  x  key=\$sender  messages=100000/1h;
    }
}
EOF
    $t->run_nginx($name);
}


my $URLS = 'redis://:secret@127.0.0.1:%%PORT_s1%%'
    . ' redis://127.0.0.1:%%PORT_s2%% redis://127.0.0.1:%%PORT_s3%%';
my $number = 0;


# a message; true if that one has counted it

sub counts_in {
    my ($redis, $where) = @_;

    my $sender = 'p' . ++$number . '@probe.example';
    my $c = $t->client($where // 'edge');

    $c->greeting();
    $c->ehlo();
    my $reply = send_one($c, $sender);
    $c->quit();

    return $reply =~ /^250/ && eval { used($redis, 'x', $sender) == 1 };
}


# both workers: several in a row, of which each is counted there

sub all_count_in {
    my ($redis, $where) = @_;

    return 6 == grep { counts_in($redis, $where) } 1 .. 6;
}


# who is the master, as a Sentinel says

sub named {
    my ($sentinel) = @_;

    return eval { $sentinel->cmd('SENTINEL', 'get-master-addr-by-name',
        'mymaster')->[1] } // 0;
}


sub role { my ($redis) = @_; return eval { $redis->cmd('ROLE')->[0] } // '' }


# from when a Sentinel names that master until all is counted there

sub takes_over {
    my ($what, $redis, @sentinels) = @_;

    local $Test::Builder::Level = $Test::Builder::Level + 1;

    @sentinels = values %sentinel unless @sentinels;

    ok($t->wait_for(sub {
        grep { named($_) == $redis->port() } @sentinels }, 20),
        "$what: Sentinels name the new master") or return;

    my $begin = time();
    ok($t->wait_for(sub { all_count_in($redis) }, 10),
        "$what: the new master counts");
    my $took = time() - $begin;
    cmp_ok($took, '<', BACK + 0.5, "$what: soon") or diag("$took s");
    note("$what: $took s");
}


ok($t->wait_for(sub { my $info = $redis{a}->cmd('INFO', 'replication');
    $info =~ /state=online/ }), 'there is a replica');
ok($t->wait_for(sub {
    my $m = { @{ $sentinel{s1}->cmd('SENTINEL', 'master', 'mymaster') } };
    $m->{'num-slaves'} == 1 && $m->{'num-other-sentinels'} == 2 }, 20),
    'and three Sentinels that know of each other');

conf('edge', $URLS);

my $begin = time();
ok($t->wait_for(sub { all_count_in($redis{a}) }), 'the master counts');
cmp_ok(time() - $begin, '<', MARGIN, 'from the start');

my $load = MailPolicy::Load->new($t, port => 'edge', clients => 4);

# killed

sleep(0.5);
$redis{a}->kill();
takes_over('killed', $redis{b});

# the old one comes back, as a master first

$redis{a}->start();
ok($t->wait_for(sub { role($redis{a}) eq 'slave' }, 25),
    'the old master is a replica now');
ok(all_count_in($redis{b}), 'and the new one still counts');

# replaced without need, over and back

ok($t->wait_for(sub {
    $redis{b}->cmd('INFO', 'replication') =~ /state=online/ }, 10),
    'the replica is there');
ok($t->wait_for(sub { eval { $sentinel{s2}->cmd('SENTINEL', 'FAILOVER',
    'mymaster') eq 'OK' } }, 10), 'SENTINEL FAILOVER');
takes_over('replaced', $redis{a});

# hangs

ok($t->wait_for(sub { $redis{a}->cmd('INFO', 'replication')
    =~ /state=online/ }, 15), 'the replica is there again');
ok($t->wait_for(sub {
    my $m = { @{ $sentinel{s1}->cmd('SENTINEL', 'master', 'mymaster') } };
    $m->{flags} eq 'master' && $m->{'num-slaves'} >= 1
        && role($redis{b}) eq 'slave' }, 15), 'and known');
$redis{a}->signal('STOP');
takes_over('hangs', $redis{b});
$redis{a}->signal('CONT');
sleep(0.5);
ok(all_count_in($redis{b}), 'hung: the new one still counts');

my ($longest, %count) = $load->stop();

is(join(' ', sort keys %count), '250', 'load: nobody was refused, or lost');
cmp_ok($count{250} // 0, '>', 500, 'load: there was enough of it');
cmp_ok($longest, '<', 0.3 + MARGIN, 'load: the longest wait');

my $log = $t->error_log('edge');
my @away = $log =~ /policy store sentinel=mymaster is away: ([^\n]*)/g;
my @back = $log =~ /policy store sentinel=mymaster is back/g;

is(scalar @away, scalar @back, 'the log: back as often as away');
cmp_ok(scalar @away, '<=', 2 * 6, 'the log: not more often than it was')
    or diag(join("\n", @away));
like($log, qr/sentinel=mymaster: the master is redis:\/\/127\.0\.0\.1:$_\b/,
    "the log: the master is $_") for $redis{a}->port(), $redis{b}->port();

# the first Sentinel is dead, or hangs: the others are asked

$sentinel{s1}->signal('STOP');
conf('second', $URLS);
ok($t->wait_for(sub { all_count_in($redis{b}, 'second') }, 5),
    'the first Sentinel hangs: the second is asked');

$sentinel{s2}->kill();
conf('third', $URLS);
ok($t->wait_for(sub { all_count_in($redis{b}, 'third') }, 5),
    'and the second is dead: the third');

$sentinel{s3}->kill();
conf('nobody', $URLS);
ok($t->wait_for(sub { counts_in($redis{b}, 'nobody');
    $t->error_log('nobody') =~ /away: no Sentinel can tell/ }, 5),
    'none is there: it is away, and the log says why');

# what is up is used nevertheless
ok(all_count_in($redis{b}, 'third'), 'who knew before still counts');

$sentinel{s1}->signal('CONT');

# a name that they do not know

$t->conf('unknown', <<'EOF');
mail {
    policy_redis  redis://127.0.0.1:%%PORT_s1%% sentinel=other
                  on_error=closed;
    policy_auth   off;
    proxy_pass    127.0.0.1:%%PORT_relay%%;

    server {
        listen        127.0.0.1:%%PORT_unknown%%;
        protocol      smtp;
        policy        on;
        policy_limit  x  key=$sender  messages=10/1h;
    }
}
EOF
$t->run_nginx('unknown');
ok($t->wait_for(sub { $t->error_log('unknown')
    =~ /no Sentinel can tell \(127\.0\.0\.1:\d+: it knows no such master\)/ },
    5), 'a name that is not known: the log says so');

$t->done();
