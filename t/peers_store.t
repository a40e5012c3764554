#!/usr/bin/perl

# As peers.t, of what other limiters do wrong with Redis: keys that stay for
# ever, counters that are made again by what is given back, reservations of
# who has died, values that shut somebody out, waits.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use IO::Socket::INET;
use Test::More;
use Time::HiRes qw(sleep time);

use MailPolicy;
use MailPolicy::Limits qw(lasting send_one used);

my $t = MailPolicy->new();
my $redis = $t->run_redis();
my $relay = $t->run_relay(name => 'relay');
my $number = 0;

$t->write_file('users', "alice\@example.com:{PLAIN}secret\n");

my %limits = (
    hour   => 'policy_limit hour   key=$sender messages=3/1h
                                   recipients=9/1h bytes=1m/1h;
               policy_limit net    key=$client_net connections=1000/1h
                                   sessions=1000 auth_failures=1000/1h;
               policy_limit seen   key=$sender messages=1/1h
                                   on_exceed=report;',
    brief  => 'policy_limit brief  key=$sender messages=3/1s;',
    bucket => 'policy_limit bucket key=$sender messages=3/1s,burst=3;',
    login  => 'policy_limit guess  key=$client_net auth_failures=2/1h;',
);

my $servers = join('', map { <<"EOC" } sort keys %limits);
    server {
        listen      127.0.0.1:%%PORT_$_%%;
        protocol    smtp;
        $limits{$_}
    }
EOC

# the timeout is the one that there is by default
$t->conf(<<"EOC");
error_log  %%DIR%%/error.log warn;

mail {
    policy_redis           redis://127.0.0.1:%%PORT_redis%%;
    policy                 on;
    policy_auth            file:%%DIR%%/users redis;
    policy_auth_plaintext  on;
    max_errors             100;
    proxy_pass             127.0.0.1:%%PORT_relay%%;
    $servers
}
EOC
$t->run_nginx();
$t->allow(qr/exited on signal 9|zone "mail_policy" was locked by/);

no_key_for_ever();
not_made_again();
died();
shut_out();
provider_fails();
no_minute();

is_deeply([ lasting($redis) ], [], 'no key without TTL');
$t->done(faults => 0);


sub session {
    my ($where) = @_;

    my $c = $t->client($where);

    $c->greeting();
    $c->ehlo();
    $c->auth_plain('alice@example.com', 'secret');
    return $c;
}


sub sender { return 's' . ++$number . '@example.com' }

sub codes { return join(' ', map { substr($_, 0, 3) } @_) }

sub sent { my ($where, $sender, $count) = @_;
           return codes(map { send_one(session($where), $sender) }
               1 .. $count) }


# Haraka#1757: INCR, and EXPIRE only if one gets that far

sub no_key_for_ever {
    my $name = 'a key without TTL: INCR and EXPIRE are two steps';
    my $monitor = IO::Socket::INET->new(PeerAddr => '127.0.0.1',
        PeerPort => $t->port('redis')) or die "redis: $!\n";
    my ($seen, $sender) = ('', sender());

    print {$monitor} "MONITOR\r\n";
    sysread($monitor, my $ok, 5);

    my $c = session('hour');
    send_one($c, $sender, 'a@example.net', 'b@example.net') for 1 .. 4;
    $c->quit();
    session('login')->auth_plain('bob@example.com', 'x');
    $redis->cmd('ECHO', 'that is all');

    while ($seen !~ /that is all/) {
        sysread($monitor, $seen, 65536, length $seen) or last;
    }

    # [0 lua] is a script's
    my %command;
    $command{ lc $1 }++ while $seen =~ /^\+\S+ \[\d+ \d[^\]]*\] "(\w+)"/mg;
    delete @command{qw(echo monitor ping)};

    is(join(' ', sort keys %command), 'eval evalsha hmget xadd',
        "$name: one script makes both");

    my $key = "mail:used:hour:{$sender}";
    cmp_ok($redis->cmd('PTTL', $key), '>', 0, "$name: there is one");

    $sender = sender();
    $key = "mail:used:hour:{$sender}";
    sent('hour', $sender, 1);
    $redis->cmd('PERSIST', $key);
    sent('hour', $sender, 1);
    cmp_ok($redis->cmd('PTTL', $key), '>', 0, "$name: one that had none");
}


# hono-rate-limiter#67, haraka-plugin-limit PR#80: -1, and for ever

sub not_made_again {
    my $name = 'decremented after it has expired';
    my ($sender, $c) = (sender(), session('brief'));
    my $key = "mail:used:brief:{$sender}";

    $c->pipeline("MAIL FROM:<$sender>", 'RCPT TO:<x@example.net>');
    is($redis->cmd('EXISTS', $key), 1, "$name: MAIL");
    ok($t->wait_for(sub { !$redis->cmd('EXISTS', $key) }), "$name: expired");
    $c->cmd('RSET');
    sleep(0.1);
    is($redis->cmd('EXISTS', $key), 0, "$name: RSET makes none");
    is(sent('brief', $sender, 3), '250 250 250', "$name: three, as ever");

    for my $end (qw(RSET QUIT)) {
        $sender = sender();
        $key = "mail:used:hour:{$sender}";
        $c = session('hour');
        $c->pipeline("MAIL FROM:<$sender>", 'RCPT TO:<x@example.net>');
        $redis->cmd('DEL', $key);
        $c->cmd($end);
        sleep(0.1);
        is($redis->cmd('EXISTS', $key), 0, "$name: deleted, $end");
        is(sent('hour', $sender, 4), '250 250 250 450',
            "$name: deleted, $end: three");
    }
}


# rspamd#4467, Haraka#896: what a process has reserved goes with it

sub died {
    my $name = 'reserved by somebody who has died';
    my $sender = sender();
    my @clients = map { session('brief') } 1 .. 3;

    is(codes(map { $_->cmd("MAIL FROM:<$sender>") } @clients),
        '250 250 250', "$name: before");

    my ($worker) = $t->worker_pids();
    kill('KILL', $worker);
    $t->wait_for(sub { my ($pid) = $t->worker_pids();
                       $pid && $pid != $worker });

    ok($t->wait_for(sub { sent('brief', $sender, 1) eq '250' }, 3),
        "$name: free again, when the window is over");

    my $key = 'mail:lease:net:{127.0.0.1}';
    cmp_ok($redis->cmd('PTTL', $key) // 0, '<=', 61_100,
        "$name: and his session");
    $redis->cmd('DEL', $key);
}


# rspamd#4637, and any value that is no good: nobody is shut out by it

sub shut_out {
    my $name = 'a multiplier at 0 blocks for ever';
    my @bad = ('w 15625 3 c 9007199254740991:3', 'w 1 3 c 9007199254740991:3',
        'w 15625 3 c 900719925474:9007199254740991', 'w 0 0 c 0:0',
        'b 9007199254740991 3 1000000 3 c', 'b 9007199254740991 0 0 0 c', '',
        'b -1 -1 -1 -1 c', "w 1 \0", 'w 15625 3 c' . ' 1:1' x 500, '0');
    my %sender;

    for my $where (qw(brief bucket)) {
        for my $bad (@bad) {
            my $key = "mail:used:$where:{" . ($sender{"$where $bad"}
                = sender()) . '}';
            $redis->cmd('HSET', $key, 'messages', $bad);
            sent($where, $sender{"$where $bad"}, 1);
        }
    }

    sleep(1.1);

    for (sort keys %sender) {
        my ($where, $bad) = split / /, $_, 2;
        is(sent($where, $sender{$_}, 3), '250 250 250',
            "$name: $where: " . substr($bad =~ s/\0/NUL/r, 0, 40));
    }

    my $sender = sender();
    my $entry = "mail:limit:hour:{$sender}";

    for my $blocked ([ 'messages', 'blocked' ], [ 'suspended', 'yes' ]) {
        $redis->cmd('HSET', $entry, @$blocked);
        is(sent('hour', $sender, 1), 450, "$name: @$blocked");
        $redis->cmd('DEL', $entry);
        is(sent('hour', $sender, 1), 250, "$name: @$blocked, and not any more");
    }

    for my $zero (qw(0 0/1h -1 0/0 1e3/1h)) {
        $sender = sender();
        $redis->cmd('HSET', "mail:limit:hour:{$sender}", 'messages', $zero);
        is(sent('hour', $sender, 4), '250 250 250 450',
            "$name: an entry of $zero is skipped");
    }
}


# Mailu#3252, of logins: a record that cannot be read is no wrong password

sub provider_fails {
    my $name = 'a lookup that fails trips the limiter';
    my $user = 'mail:user:{carol@example.com}';
    my $try = sub { my ($password) = @_;
        my $c = $t->client('login');
        $c->greeting();
        $c->ehlo();
        return substr($c->auth_plain('carol@example.com', $password), 0, 3);
    };

    $redis->cmd('DEL', 'mail:failed:guess:{127.0.0.1}');
    $redis->cmd('SET', $user, 'no hash');
    is(join(' ', map { $try->("x$_") } 1 .. 5), '454 454 454 454 454',
        "$name: not known");
    is($redis->cmd('EXISTS', 'mail:failed:guess:{127.0.0.1}'), 0,
        "$name: not counted");

    $redis->cmd('DEL', $user);
    $redis->cmd('HSET', $user, 'password', '{PLAIN}right');
    is(join(' ', map { $try->("x$_") } 1 .. 2), '535 535',
        "$name: two are looked at");
    is($try->('x3'), 454, "$name: and not three");
}


# james#5174: mail waited for Redis, for a minute

sub no_minute {
    my $name = 'the default timeout is a minute';
    my $sender = sender();
    my $c = session('hour');

    $redis->signal('STOP');
    my $begin = time();
    my $reply = $c->cmd("MAIL FROM:<$sender>");
    my $took = time() - $begin;
    $redis->signal('CONT');

    is(codes($reply), 250, "$name: Redis hangs");
    cmp_ok($took, '<', 1.5, "$name: not for mail");
    note("$took s");
    $c->cmd('RSET');
}
