#!/usr/bin/perl

# One Redis is away: workers are replaced or killed meanwhile; many keys are
# to be handed back, and it goes away again while it is told of them.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use List::Util qw(sum0);
use Test::More;
use Time::HiRes qw(sleep time);

use MailPolicy;
use MailPolicy::Limits qw(BACK is_told kill_workers lasting send_one store_away
    store_back thinking used);

use constant MANY => $ENV{TEST_OUTAGE_KEYS} || 1000;

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


sub charged {
    local $Test::Builder::Level = $Test::Builder::Level + 1;

    is_told($redis, @_);
}


sub session {
    return $t->session('smtp');
}


# Workers: replaced, killed.

for my $how ('reload', 'kill') {
    my $sender = "$how\@worker.example";

    send_one(session(), $sender) for 1 .. 30;
    store_away($t, $redis);
    send_one(session(), $sender) for 1 .. 30;
    $t->disconnect();

    if ($how eq 'reload') {
        ok($t->reload(), 'reload: it is');

    } else {
        ok(kill_workers($t), 'kill: new ones');
    }

    my $c = session();
    is(scalar(grep { send_one($c, $sender) =~ /^250/ } 1 .. 45), 40,
        "$how: forty more, and not one more");
    $redis->signal('CONT');
    charged("$how: handed back", 's', $sender, messages => 100);
    ok($t->wait_for(sub { thinking($t, 'back') == 2 }, 5), "$how: back");
    $t->disconnect();
}

# Many keys, all at once; and Redis is not there any more while they are told.

sub burst {
    my ($name) = @_;

    my $c;

    for my $i (1 .. MANY / 50) {
        $c = session();
        for my $n (50 * $i - 49 .. 50 * $i) {
            $c->pipeline("MAIL FROM:<k$n\@$name.example>",
                'RCPT TO:<bob@example.net>', 'DATA');
            $c->cmd("x\r\n.");
        }
        $c->quit();
    }
}

sub sum_of { my ($name) = @_; return sum0(map {
    used($redis, 's', "k$_\@$name.example") } 1 .. MANY) }

store_away($t, $redis);
burst('many');
my $since = store_back($t, $redis, 'many');
ok($t->wait_for(sub { used($redis, 's', 'k' . MANY . '@many.example') == 1 },
    10), 'many keys: the last one is told');
note(sprintf('%d keys: %.1f s', MANY, time() - $since));
cmp_ok(time() - $since, '<', BACK + 1, 'many keys: soon');
is(sum_of('many'), MANY, 'many keys: each is told once');

store_away($t, $redis);
burst('flap');

my $told = 0;

for my $n (1 .. 3) {
    $redis->signal('CONT');
    $t->wait_for(sub { thinking($t, 'back') >= 1 }, 5);
    sleep(0.05 * $n);
    $told = used($redis, 's', 'k1@flap.example');
    $redis->signal('STOP');
    $t->wait_for(sub { send_one(session(), 'probe@probe.example');
        $t->disconnect(); thinking($t, 'away') == 2 }, 5);
}

cmp_ok($told, '>', 0, 'flapping: some are told in between');
store_back($t, $redis, 'flapping');
ok($t->wait_for(sub { used($redis, 's', 'k' . MANY . '@flap.example') >= 1 },
    10), 'flapping: the last one is told');
sleep(0.5);
my $sum = sum_of('flap');
cmp_ok($sum, '>=', MANY, 'flapping: nothing is lost');
cmp_ok($sum, '<=', MANY + 3 * 2 * 64, 'flapping: little is told twice');
note("$sum of " . MANY);

$t->stop();
is_deeply([ lasting($redis) ], [], 'no key without TTL');

$t->done();
