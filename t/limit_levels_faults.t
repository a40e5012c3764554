#!/usr/bin/perl

# Redis hangs or goes away between what a message asks: entries, the charge,
# the charge once more as the own entry names another plan.  Nobody waits
# longer than the timeout, what was known of entries stays in force, and what
# was charged late, or for nobody, is given back.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Test::More;
use Time::HiRes qw(sleep time);

use MailPolicy;
use MailPolicy::Gate;
use MailPolicy::Limits qw(lasting send_one used wait_used);

use constant MARGIN => 2;               # behind a timeout of 200 ms

my $t = MailPolicy->new();
my $redis = $t->run_redis();
my $relay = $t->run_relay(name => 'relay');
my $gate = MailPolicy::Gate->new(dir => $t->dir(), port => $t->port('gate'),
    to => $redis->port());

for my $on_error (qw(local closed)) {
    $t->conf($on_error, <<"EOF");
error_log %%DIR%%/$on_error.log info;
mail {
    policy_redis  redis://127.0.0.1:%%PORT_gate%% connections=1 cache=0
                  timeout=200ms on_error=$on_error;
    policy_auth   off;
    proxy_pass    127.0.0.1:%%PORT_relay%%;

    server {
        listen        127.0.0.1:%%PORT_$on_error%%;
        protocol      smtp;
        policy        on;
        policy_limit  a  key=\$sender  messages=100/1h;
    }
}
EOF
    $t->run_nginx($on_error);
}


# no EHLO, which would ask what is left

sub session {
    my ($where) = @_;

    my $c = $t->client($where);

    $c->greeting();
    $c->cmd('HELO client.example');
    return $c;
}


sub said { my ($name, $text) = @_; return scalar(() =
    $t->read_file("$name.log") =~ /$text/g) }

sub back {
    my ($name) = @_;

    $gate->mode('pass');
    return $t->wait_for(sub {
        said($name, qr/ is back$/m) == said($name, qr/ is away/) });
}


# [ name, what the gate holds or cuts ]: all of it is asked by a message of
# a@c.example

my @STATES = (
    [ 'the entry of a domain', 'HMGET mail:limit:a:{@c.example}' ],
    [ 'the default',           'HMGET mail:limit:a:{*}' ],
    [ 'the charge',            'EVALSHA' ],
    [ 'a plan',                'HMGET mail:plan:new' ],
);


# The own entry and the domain's name plans that no worker has read: charge,
# plan, and charge again.

sub prepare {
    $redis->cmd('FLUSHDB');
    $redis->cmd('HSET', 'mail:limit:a:{a@c.example}', 'plan', 'new');
    $redis->cmd('HSET', 'mail:plan:new', 'a.messages', '9/1h');
    $redis->cmd('HSET', 'mail:limit:a:{@c.example}', 'plan', 'other');
}


# what a worker knows of plans is forgotten by another one; scripts are there

sub forget_plan {
    my ($c) = @_;

    $redis->cmd('FLUSHDB');
    $redis->cmd('HSET', 'mail:limit:a:{a@c.example}', 'plan', 'old');
    $c->cmd('MAIL FROM:<a@c.example>');
    $c->cmd('RSET');
    wait_used($redis, 'a', 'a@c.example', [ 0, 0 ]);
    prepare();
}


sub nothing_charged {
    my ($name) = @_;

    local $Test::Builder::Level = $Test::Builder::Level + 1;

    is_deeply(wait_used($redis, 'a', 'a@c.example', [ 0, 0 ]), [ 0, 0 ],
        "$name: nothing stays charged");
    is_deeply([ lasting($redis) ], [], "$name: no key without TTL");
}


for my $on_error (qw(local closed)) {
    my $c = session($on_error);

    for (1 .. 3) {
        like(send_one($c, 'a@c.example'), qr/^250 /, "$on_error: all is well");
    }
    $c->quit();

    for my $state (@STATES[$on_error eq 'local' ? 0 .. 3 : 3]) {
        my ($what, $text) = @$state;

        for my $how (qw(hold cut)) {
            my $name = "$on_error: $how: $what";

            $c = session($on_error);
            forget_plan($c);
            $gate->forget();
            $gate->mode("$how $text");

            my $begin = time();
            my $reply = $c->cmd('MAIL FROM:<a@c.example>');

            like($reply, $on_error eq 'local' ? qr/^250 2\.1\.0/
                                              : qr/^451 4\.3\.0/, $name);
            cmp_ok(time() - $begin, '<', MARGIN, "$name: in time");
            ok($gate->wait_for($text, 0), "$name: was asked");

            $c->cmd('RSET');
            ok(back($on_error), "$name: back");

            # an answer that was lost with its connection cannot be given back
            $redis->cmd('DEL', 'mail:used:a:{a@c.example}') if $how eq 'cut';
            nothing_charged($name);

            # and then as ever
            like(send_one($c, 'a@c.example'), qr/^250 /, "$name: afterwards");
            is(used($redis, 'a', 'a@c.example'), 1, "$name: is counted");
            like($redis->cmd('HGET', 'mail:used:a:{a@c.example}', 'messages'),
                qr/^w \d+ 9 p /, "$name: by the plan");
            $c->quit();
        }

        # the client goes while it waits, and while the answer is late

        for my $end (qw(close reset)) {
            my $name = "$on_error: $end: $what";

            $c = session($on_error);
            forget_plan($c);
            $gate->forget();
            $gate->mode("hold $text");
            $c->send_raw("MAIL FROM:<a\@c.example>\r\n");
            ok($gate->wait_for($text), "$name: was asked");
            $c->$end();
            sleep(0.05);
            ok(back($on_error), "$name: back");
            nothing_charged($name);
        }
    }
}

# Redis away: what was read of an entry is what is in force, whoever counts

my $c = session('local');
$redis->cmd('FLUSHDB');
$redis->cmd('HSET', 'mail:limit:a:{@known.example}', 'messages', 'blocked');
$redis->cmd('HSET', 'mail:limit:a:{@plan.example}', 'plan', 'none');
$redis->cmd('HSET', 'mail:plan:none', 'a.messages', 'blocked');
$redis->cmd('HSET', 'mail:limit:a:{@gone.example}', 'suspended', 'yes');

for my $domain (qw(known plan gone)) {
    send_one($c, "a\@$domain.example");
    like(send_one($c, "a\@$domain.example"), qr/^450 /, "$domain: refused");
}

for my $how ('hold HMGET', 'hold EVALSHA') {
    $gate->mode($how);
    like(send_one($c, "b\@$_.example"), qr/^450 /, "$how: $_ is as it was")
        for qw(known plan gone);
    like(send_one($c, 'b@other.example'), qr/^250 /, "$how: others pass");
    ok(back('local'), "$how: back");
}

# a reload while a message waits for a plan

$c->quit();
$c = session('local');
forget_plan($c);
$gate->forget();
$gate->mode('hold HMGET mail:plan:new');
$c->send_raw("MAIL FROM:<a\@c.example>\r\n");
ok($gate->wait_for('HMGET mail:plan:new'), 'a plan is asked for');
ok($t->reload('local'), 'reload');
like($c->read_reply(), qr/^(?:250|421) /, 'the client is answered');
$gate->mode('pass');
$c->cmd('QUIT');
$c->close();
is_deeply([ lasting($redis) ], [], 'reload: no key without TTL');

$t->disconnect();
$t->stop($_) for qw(local closed);
$gate->stop();

$t->done();
