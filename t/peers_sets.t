#!/usr/bin/perl

# As peers.t, of what other limiters do wrong with sessions and logins.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use MIME::Base64 qw(encode_base64);
use Test::More;
use Time::HiRes qw(sleep time);

use MailPolicy;
use MailPolicy::Limits qw(send_one);

# whether shared memory is tried, too
use constant LOCAL => 1;

my $t = MailPolicy->new();
my $redis = $t->run_redis();
my $relay = $t->run_relay(name => 'relay');
my $store;

$t->certificate();
$t->write_file('users', join('', map { "$_\@example.com:{PLAIN}secret\n" }
    qw(alice bob carol)));

my $AUTH = 'policy_auth file:%%DIR%%/users;';

# of each server, by its port

my %lines = (
    open  => 'policy_limit open  key=$client_net sessions=4;
              policy_auth off;',
    mine  => "policy_limit mine  key=\$sasl_username sessions=2; $AUTH",
    brief => 'policy_limit brief key=$client_net sessions=2;
              policy_auth off; timeout 400ms;',
    both  => 'policy_limit b1 key=$client_net sessions=9;
              policy_limit b2 key=$client_net connections=2/1h;
              policy_auth off;',
    probe => 'policy_limit probe key=$client_net connections=4/1h
                                 auth_failures=2/1h;
              policy_auth off; max_errors 3;',
    clear => "policy_limit clear key=\$client_net connections=4/1h
                                 auth_failures=2/1h;
              $AUTH max_errors 3; starttls on; policy_auth_plaintext off;",
    guess => "policy_limit guess key=\$client_net auth_failures=3/1h; $AUTH",
    user  => "policy_limit user  key=\$sasl_username auth_failures=3/1h;
              $AUTH",
    abort => "policy_limit abort key=\$client_net auth_failures=3/1h; $AUTH",
);


sub configure {
    my ($line) = @_;

    my $servers = join('', map { <<"EOC" } sort keys %lines);
    server {
        listen      127.0.0.1:%%PORT_${store}_$_%%;
        protocol    smtp;
        $lines{$_}
    }
EOC

    $t->conf($store, <<"EOC");
worker_processes  2;
error_log         %%DIR%%/$store.error.log warn;

mail {
    $line
    policy                 on;
    policy_auth_plaintext  on;
    ssl_certificate        %%DIR%%/localhost.crt;
    ssl_certificate_key    %%DIR%%/localhost.key;
    proxy_pass             127.0.0.1:%%PORT_relay%%;
    $servers
}
EOC
}


$t->allow(qr/exited on signal 9|zone "mail_policy" was locked by/);

for (qw(redis), LOCAL ? 'memory' : ()) {
    $store = $_;
    configure($store eq 'redis' ? 'policy_redis'
        . ' redis://127.0.0.1:%%PORT_redis%% timeout=5s;' : '');
    $t->run_nginx($store);

    given_back_once();
    others_refuse();
    not_offered();
    old_password();
    not_for_others();
    given_up();
    crash() if $store eq 'redis';

    $t->stop($store);
}

$t->done(faults => 0);


sub connected {
    my ($where) = @_;

    my $c = $t->client("${store}_$where");
    $c->greeting();
    return $c;
}


# the client, or the reply that it got instead

sub session {
    my ($where, $login) = @_;

    my $c = connected($where);

    return $c->greeting() if $c->greeting() !~ /^220/;
    my $reply = $c->ehlo();
    return $reply if $reply !~ /^250/;
    $reply = $c->auth_plain("$login\@example.com", 'secret') if $login;
    return $reply =~ /^2/ ? $c : $reply;
}


sub is_open { return grep { ref } @_ }

sub named { return "$store: $_[0]: $_[1]" }

sub try { my ($c, $login, $password) = @_;
          return substr($c->auth_plain("$login\@example.com", $password),
              0, 3) }


# how many are let in, at once; they leave again

sub room {
    my ($where, $login) = @_;

    my @clients = is_open(map { session($where, $login) } 1 .. 8);

    $_->quit() for @clients;
    return scalar @clients;
}


# apisix#12823, haraka-plugin-limit PR#80: given back never, twice, or more
# than there was

sub given_back_once {
    my $name = 'concurrency not given back, or twice';
    my %end = (
        quit     => sub { $_[0]->quit() },
        close    => sub { $_[0]->close() },
        reset    => sub { $_[0]->reset() },
        '421 me' => sub { $_[0]->send_raw("GET / HTTP/1.1\r\n\r\n");
                          $_[0]->wait_close(2) },
        message  => sub { send_one($_[0], 'a@example.com'); $_[0]->close() },
        body     => sub { $_[0]->pipeline('MAIL FROM:<a@example.com>',
                              'RCPT TO:<b@example.net>', 'DATA');
                          $_[0]->send_raw("x\r\n"); $_[0]->reset() },
    );

    for my $end (sort keys %end) {
        my @clients = is_open(map { session('open') } 1 .. 5);

        is(scalar @clients, 4, named($name, "$end: four of five"));
        $end{$end}->($_) for @clients;
        ok($t->wait_for(sub { room('open') == 4 }, 3),
            named($name, "$end: four again"));
    }

    is(scalar is_open(map { session('brief') } 1 .. 3), 2,
        named($name, 'asleep: two of three'));
    ok($t->wait_for(sub { room('brief') == 2 }, 3),
        named($name, 'asleep: two again'));

    my @clients = is_open(map { session('mine', 'alice') } 1 .. 3);
    is(scalar @clients, 2, named($name, 'a login: two of three'));
    is(room('mine', 'bob'), 2, named($name, 'a login: another'));
    $t->disconnect();
    ok($t->wait_for(sub { room('mine', 'alice') == 2 }, 3),
        named($name, 'a login: two again'));
}


# rspamd#4467, of sessions: what one limit refuses, another has not counted

sub others_refuse {
    my $name = 'pending never released when somebody else refuses';
    my $key = 'mail:lease:b1:{127.0.0.1}';

    is(scalar is_open(map { session('both') } 1 .. 8), 2,
        named($name, 'a limit of connections refuses'));
    is($redis->cmd('ZCARD', $key), 2, named($name, 'and has no sessions'))
        if $store eq 'redis';
    $t->disconnect();
    ok($t->wait_for(sub { !$redis->cmd('ZCARD', $key) }, 3),
        named($name, 'nor later'));
}


# Mailu#2311: guesses at port 25, where there are no logins, were not counted.
# Here no password is looked at, the session ends, and is a connection.

sub not_offered {
    my $name = 'AUTH where it is not offered is not counted';

    for my $where (qw(probe clear)) {
        my %said;

        for (1 .. 4) {
            my $c = connected($where);
            $c->ehlo();

            my $count = 0;
            for my $password ('secret', 'wrong', '=', 'secret') {
                my $reply = $c->auth_plain('alice@example.com', $password);
                last if $reply =~ /^421|CLOSED/;
                $count++;
                $said{$reply}++;
            }
            is($count, 3, named($name, "$where: the session ends"));
        }

        my ($first) = keys %said;
        is(scalar keys %said, 1, named($name, "$where: one word for all"));
        like($first, $where eq 'probe' ? qr/^502 5\.5\.1/ : qr/^538 5\.7\.11/,
            named($name, "$where: and it is no"));
        like(session($where), qr/^421 4\.7\.0/,
            named($name, "$where: connections are counted"));
    }

    is(scalar(grep { $redis->cmd('EXISTS', "mail:failed:$_:{127.0.0.1}") }
        qw(probe clear)), 0, named($name, 'no guess was made'));
}


# Mailu counts distinct passwords; by attempts, a program with an old one locks
# its user out

sub old_password {
    my $name = 'an old password locks the user out';

    is(join(' ', map { try(session('user'), 'alice', 'old') } 1 .. 8),
        join(' ', (535) x 8), named($name, 'the same one, again and again'));
    is(try(session('user'), 'alice', 'secret'), 235,
        named($name, 'he is let in'));
    is(join(' ', map { try(session('user'), 'bob', "x$_") } 1 .. 5),
        '535 535 535 454 454', named($name, 'others: three are looked at'));
    is(try(session('user'), 'bob', 'secret'), 454,
        named($name, 'and not the right one'));
}


# by login alone, anybody can lock anybody out: who was let in before has more
# room

sub not_for_others {
    my $name = 'strangers lock the user out';

    is(try(session('user'), 'carol', 'secret'), 235, named($name, 'let in'));
    is(join(' ', map { try(session('user'), 'carol', "x$_") } 1 .. 4),
        '535 535 535 535', named($name, 'four of three'));
    is(try(session('user'), 'carol', 'secret'), 235,
        named($name, 'let in again'));
    is(join(' ', map { try(session('user'), 'carol', "y$_") } 1 .. 4),
        '535 535 454 454', named($name, 'twice as many, and not for ever'));
}


# many cancel or leave while a password is looked at: none of it is free

sub given_up {
    my $name = 'guesses that are given up are not counted';
    my $plain = sub { 'AUTH PLAIN '
        . encode_base64("\0alice\@example.com\0$_[0]", '') };

    for my $guess (1 .. 3) {
        my $c = session('abort');
        $c->send_raw($plain->("x$guess") . "\r\n");
        sleep(0.05);
        $c->reset();
    }

    sleep(0.1);
    is(try(session('abort'), 'alice', 'secret'), 454,
        named($name, 'three who did not wait for the answer'));

    my $c = session('guess');
    for (1 .. 8) {
        $c->cmd('AUTH LOGIN');
        $c->cmd(encode_base64('alice@example.com', ''));
        like($c->cmd('*'), qr/^501/, named($name, 'cancelled'));
        $c->quit();
        $c = session('guess');
    }
    is(join(' ', map { try(session('guess'), 'alice', "x$_") } 1 .. 4),
        '535 535 535 454', named($name, 'what has no password is no guess'));
}


# Haraka#896: a process dies, and what it had counted up is never counted down

sub crash {
    my $name = 'concurrency not given back on a crash';
    my $key = 'mail:lease:open:{127.0.0.1}';

    $redis->cmd('DEL', $key);
    is(scalar is_open(map { session('open') } 1 .. 5), 4, named($name, 'full'));

    kill('KILL', $_) for $t->worker_pids($store);
    ok($t->wait_for(sub { $t->worker_pids($store) == 2 }),
        named($name, 'killed'));
    is($redis->cmd('ZCARD', $key), 4, named($name, 'they are still there'));

    my %lease = @{ $redis->cmd('ZRANGE', $key, 0, -1, 'WITHSCORES') };
    cmp_ok((sort { $b <=> $a } values %lease)[0], '<=', (time() + 61) * 1e6,
        named($name, 'for a minute'));

    # which passes
    $redis->cmd('ZADD', $key, $lease{$_} - 60e6, $_) for keys %lease;
    is(room('open'), 4, named($name, 'and no longer'));
}
