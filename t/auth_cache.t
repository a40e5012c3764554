#!/usr/bin/perl

# AUTH-19: a password that was right is not hashed again for a while, and that
# is all: another login, mechanism, hash or password is another matter, and the
# record is looked up each time.  What is hashed is counted by the tasks of
# nginx' threads, which its log tells.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Test::More;
use Time::HiRes qw(sleep time);

use MailPolicy;
use MailPolicy::Sasl;

my $t = MailPolicy->new();
my $relay = $t->run_relay(name => 'relay');
my $redis = $t->run_redis();
my $salt = '$6$rounds=400000$salt$';
my %hash = map { $_ => $t->crypt("canary-$_", $salt) } qw(a b);

$t->conf(conf(4));
$t->run_nginx();

record($_, $hash{a}) for qw(alice bob);
record('carol', $hash{b});

plan(skip_all => 'an nginx that logs no tasks of threads')
    if tasks(sub { login('alice', 'a') }) == 0;

# the second time

my $start = time();
is(tasks(sub { is(login('alice', 'a'), '235', 'again') }), 0,
    'is not hashed again');
my $cached = time() - $start;

$start = time();
is(tasks(sub { is(login('alice', 'b'), '535', 'a wrong one') }), 1,
    'is hashed');
cmp_ok($cached, '<', (time() - $start) / 2, 'which takes its time');
is(tasks(sub { is(login('alice', 'b'), '535', 'the same wrong one') }), 1,
    'and is so each time');
is(tasks(sub { is(login('alice', 'a'), '235', 'the right one') }), 0,
    'is still known');

# who has the same hash, and who has not

is(tasks(sub { is(login('bob', 'a'), '235', 'AUTH-19 another, same hash') }),
    1, 'AUTH-19 is hashed');
is(tasks(sub { is(login('carol', 'a'), '535', 'AUTH-19 not her password') }),
    1, 'AUTH-19 though it is one that is known');
is(tasks(sub { is(login('nobody', 'a'), '535', 'AUTH-19 nor that of nobody') }),
    1, 'AUTH-19 which is hashed, too');
is(tasks(sub { is(login('Alice', 'a'), '535', 'AUTH-19 in other letters') }),
    1, 'AUTH-19 which is another login');
is(tasks(sub { is(login('alice', 'a', 'records', 'LOGIN'), '235',
    'AUTH-19 another mechanism') }), 1, 'AUTH-19 is hashed');
is(tasks(sub { is(login('alice', 'a', 'records', 'LOGIN'), '235',
    'AUTH-19 the same one') }), 0, 'AUTH-19 is known then');

# the record counts, at once

record('alice', $hash{b});
is(login('alice', 'a'), '535', 'a changed password: the old one is refused');
is(login('alice', 'b'), '235', 'a changed password: the new one is right');

$redis->cmd('HSET', 'mail:user:{alice}', 'status', 'suspended');
is(reply('alice', 'b') =~ /^535 5\.7\.13 / ? 1 : 0, 1, 'suspended at once');
$redis->cmd('HDEL', 'mail:user:{alice}', 'status');
is(tasks(sub { is(login('alice', 'b'), '235', 'no more') }), 0,
    'and was not forgotten for it');
$redis->cmd('DEL', 'mail:user:{alice}');
is(login('alice', 'b'), '535', 'gone at once');

# of another provider, with the same hash: it is the same login

$t->write_file('users', "bob:$hash{a}\n");
sleep(1.1);
is(login('bob', 'a', 'file'), '235', 'in a file');
$t->write_file('users', "bob:$hash{b}\n");
sleep(1.1);
is(login('bob', 'a', 'file'), '535', 'changed in a file: the old one');
is(login('bob', 'b', 'file'), '235', 'changed in a file: the new one');

# for how long

record('dave', $hash{a});
is(tasks(sub { login('dave', 'a', 'short') }), 1, 'for three seconds: once');
is(tasks(sub { login('dave', 'a', 'short') }), 0, 'for three seconds: twice');
sleep(3.3);
is(tasks(sub { is(login('dave', 'a', 'short'), '235', 'after it') }), 1,
    'is hashed');

record('eve', $hash{a});
is(tasks(sub { login('eve', 'a', 'off') for 1 .. 3 }), 3, 'not at all');
is(tasks(sub { login('eve', 'a') for 1 .. 3 }), 1,
    'where it is off, nothing is remembered');
is(tasks(sub { login('eve', 'a', 'off') for 1 .. 3 }), 3, 'nor looked up');

# all workers, and those after a reload

record('frank', $hash{a});

my @sessions = map { $t->session('records') } 1 .. 60;
is(tasks(sub {
    is(substr($_->auth_plain('frank', 'canary-a'), 0, 3), '235', 'frank')
        for @sessions;
}), 1, 'hashed by one worker');
cmp_ok(workers(), '>', 1, 'known to others');
$_->close() for @sessions;

$t->conf(conf(2));
ok($t->reload(), 'reload');

# those that end give their threads a task for that, too
$t->wait_for(sub {
    $t->instance()->all_worker_pids() == $t->worker_pids() });

is(tasks(sub { is(login('frank', 'a'), '235', 'after a reload') }), 0,
    'is known');
is(login('alice', 'b'), '535', 'who is gone is gone');

# many logins of some users

my @users = map { "user$_" } 1 .. 30;
record($_, $t->crypt('canary-a', '$6$rounds=1000$' . "$_\$")) for @users;

is(tasks(sub {
    for my $round (1 .. 200) {
        my @wrong = grep { login($_, 'a') ne '235' } @users;
        fail("@wrong are refused") if @wrong;
    }
}), 30, '6,000 logins of 30 users: 30 are hashed');

# a restart forgets, as the secret is gone

$t->stop();
$t->conf('again', conf(1));
$t->run_nginx('again');
is(tasks(sub { is(login('frank', 'a'), '235', 'after a restart') }, 'again'),
    1, 'is hashed');

my $log = $t->error_log() . $t->error_log('again');
unlike($log, qr/canary/, 'OUT-2 no password in the log');
unlike($log, qr/\$salt\$/, 'OUT-2 nor a hash');

$t->done();


sub conf {
    my ($workers) = @_;

    $t->write_file('users', "nobody-else:$hash{a}\n")
        unless -e $t->dir() . '/users';

    return <<"EOF";
worker_processes $workers;
events { worker_connections 256; accept_mutex off; }
mail {
    policy_redis           redis://127.0.0.1:%%PORT_redis%% timeout=5s;
    policy                 on;
    policy_auth_plaintext  on;
    policy_auth            redis;
    policy_auth_delay      0;
    proxy_pass             127.0.0.1:%%PORT_relay%%;

    server {
        listen       127.0.0.1:%%PORT_records%%;
        protocol     smtp;
    }

    server {
        listen       127.0.0.1:%%PORT_file%%;
        protocol     smtp;
        policy_auth  file:users;
    }

    server {
        listen             127.0.0.1:%%PORT_short%%;
        protocol           smtp;
        policy_auth_cache  3s;
    }

    server {
        listen             127.0.0.1:%%PORT_off%%;
        protocol           smtp;
        policy_auth_cache  0;
    }
}
EOF
}


sub record {
    my ($login, $hash) = @_;

    $redis->cmd('HSET', "mail:user:{$login}", 'password', $hash);
}


sub reply {
    my ($login, $password, $port, $mechanism) = @_;

    my $client = $t->session($port // 'records');
    my $sasl = MailPolicy::Sasl->new($mechanism // 'PLAIN', user => $login,
        password => "canary-$password");
    my $reply = $sasl->login($client);

    $client->close();
    return $reply;
}


sub login { return substr(reply(@_), 0, 3) }


# how many tasks the threads were given while that was done

sub tasks {
    my ($code, $name) = @_;

    my $file = $t->dir() . '/' . ($name ? "$name." : '') . 'error.log';
    my $size = -s $file;

    $code->();

    open(my $fh, '<', $file) or die "$file: $!\n";
    seek($fh, $size, 0);

    my $count = 0;
    while (<$fh>) {
        $count++ if /task #\d+ added to thread pool/;
    }
    return $count;
}


# how many workers have had clients

sub workers {
    my %pids = map { $_ => 1 }
        $t->error_log() =~ /\[info\] (\d+)#.* client .* connected to/g;

    return scalar(keys %pids);
}
