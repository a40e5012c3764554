#!/usr/bin/perl

# policy_auth relay: relays that fail at each step of the question, and the
# next one that is asked; clients that leave meanwhile, workers that are told
# to go; and many logins.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Test::More;
use Time::HiRes qw(sleep time);

use MailPolicy;

# how many logins are to leave nothing behind
my $LOGINS = $ENV{TEST_NGINX_LOGINS} || 600;

my $t = MailPolicy->new();
my ($crt, $key) = $t->certificate('relay', 'relay.example.com');
my %tls = (cert => $crt, key => $key);
my %users = (alice => 'secret');

my $IN = qr/^235 /;
my $LATER = qr/^454 4\.7\.0 /;

my %relay = map {
    $_ => $t->run_relay(name => $_, users => \%users, certificate => { %tls });
} qw(a b);
my $clear = $t->run_relay(name => 'clear', users => \%users, store => 0);

$t->conf(<<'EOC');
worker_shutdown_timeout 2s;

mail {
    server_name            edge.example.com;
    policy                 on;
    policy_auth            relay;
    policy_auth_delay      0;
    policy_auth_plaintext  on;
    proxy_ssl_verify       off;
    proxy_starttls         required;
    timeout                2s;
    max_errors             100;

    upstream alone { server 127.0.0.1:%%PORT_a%% max_fails=0; }

    upstream two {
        server  127.0.0.1:%%PORT_a%% max_fails=0;
        server  127.0.0.1:%%PORT_b%% backup;
    }

    upstream counted {
        server  127.0.0.1:%%PORT_a%% max_fails=2 fail_timeout=1h;
        server  127.0.0.1:%%PORT_b%% backup;
    }

    server {
        listen      127.0.0.1:%%PORT_alone%%;
        protocol    smtp;
        proxy_pass  alone;
    }

    server {
        listen               127.0.0.1:%%PORT_secure%% ssl;
        protocol             smtp;
        proxy_pass           alone;
        ssl_certificate      %%DIR%%/relay.crt;
        ssl_certificate_key  %%DIR%%/relay.key;
    }

    server {
        listen      127.0.0.1:%%PORT_two%%;
        protocol    smtp;
        proxy_pass  two;
    }

    server {
        listen                     127.0.0.1:%%PORT_once%%;
        protocol                   smtp;
        proxy_pass                 two;
        proxy_next_upstream_tries  1;
    }

    server {
        listen      127.0.0.1:%%PORT_counted%%;
        protocol    smtp;
        proxy_pass  counted;
    }

    server {
        listen                 127.0.0.1:%%PORT_brief%%;
        protocol               smtp;
        proxy_pass             two;
        proxy_timeout          500ms;
        proxy_connect_timeout  500ms;
    }

    server {
        listen                127.0.0.1:%%PORT_fast%%;
        protocol              smtp;
        proxy_pass            127.0.0.1:%%PORT_clear%%;
        proxy_starttls        off;
        proxy_auth_plaintext  on;
    }
}
EOC


my @STAGES = qw(connect greeting ehlo starttls tls challenge auth);

sub behave {
    my (%other) = @_;

    my %well = (extensions => [ 'PIPELINING', 'STARTTLS', 'AUTH LOGIN' ],
        map { $_ => undef } @STAGES);

    $relay{a}->set(%well, %other);
    $relay{b}->set(%well);
}

behave();
$clear->set(extensions => [ 'PIPELINING', 'AUTH PLAIN' ]);
$t->run_nginx();


sub login {
    my ($where, $password) = @_;

    my $c = $t->session($where);
    my $reply = $c->auth_plain('alice', $password // 'secret');
    return ($reply, $c);
}

sub total { return $relay{ $_[0] }->stats()->{total} }

sub descriptors {
    return scalar map { glob("/proc/$_/fd/*") } $t->worker_pids();
}


# at each step, in each way: alone it is 454, with another one that is asked

for my $stage (@STAGES) {
    my @faults = $stage eq 'connect' ? ('refuse', 'close', 'rst')
        : $stage eq 'tls' ? ('close', 'rst', 'garbage')
        : ('close', 'rst', 'garbage', '421 4.3.2 going', '451 4.3.0 not now',
            $stage eq 'challenge' || $stage eq 'auth' ? () : '554 5.3.0 never');

    for my $fault (@faults) {
        my $name = "$stage: $fault";

        behave($stage => $fault);

        my ($reply, $c) = login('alone');
        like($reply, $LATER, "$name: alone");

        behave();
        like($c->auth_plain('alice', 'secret'), $IN, "$name: then well");
        $c->quit();

        behave($stage => $fault);
        ($reply, $c) = login('two');
        like($reply, $IN, "$name: the next one");

        my @replies = $c->send_mail('a@example.com', [ 'b@example.net' ], "x\n");
        like($replies[-1], qr/^250 /, "$name: mail");
        is(($relay{b}->received())[-1]{auth}, 'alice', "$name: goes there");
        $c->quit();
    }
}

# what is told by each step, octet by octet

behave(map { $_ => { trickle => 0.003, then => 'ok' } }
    qw(greeting ehlo starttls challenge auth));
like((login('alone'))[0], $IN, 'octet by octet: in');
like((login('alone', 'wrong'))[0], qr/^535 /, 'octet by octet: wrong');

# no is no, and nobody else is asked; nor where one try is all

behave(auth => '535 5.7.8 no');
my $before = total('b');
like((login('two'))[0], qr/^535 5\.7\.8 no$/, 'a no: told');
is(total('b'), $before, 'a no: nobody else is asked');

behave(auth => '454 4.7.0 not now');
like((login('once'))[0], $LATER, 'proxy_next_upstream_tries 1: later');
is(total('b'), $before, 'proxy_next_upstream_tries 1: nobody else');

# whom nobody waits for in vain

for my $stage (qw(greeting ehlo starttls tls challenge auth)) {
    behave($stage => 'hang');
    my $start = time();
    like((login('brief'))[0], $IN, "$stage hangs: the next one");
    cmp_ok(time() - $start, '<', 2, "$stage hangs: as soon as it is clear");
}

# what a client says does not make a relay unfit; what it does by itself does

for my $fault ('454 4.7.0 no', '421 4.7.0 too many') {
    behave(auth => $fault);
    login('counted') for 1 .. 4;
}

behave(auth => '535 5.7.8 no');
login('counted') for 1 .. 4;

behave();
$before = total('a');
like((login('counted'))[0], $IN, 'refusals do not count: in');
is(total('a') - $before, 1, 'refusals do not count: a is asked');

behave(greeting => '421 4.3.2 going');
login('counted') for 1 .. 2;
behave();
$before = total('a');
like((login('counted'))[0], $IN, 'failures count: in');
is(total('a') - $before, 0, 'failures count: a is not asked any more');

# the client's own time does not run while a relay is asked

behave(auth => { delay => 3, then => 'ok' });
my ($reply, $c) = login('alone');
like($reply, $IN, 'a slow relay: in');
$c->quit();

# clients that leave while a relay is asked

behave();
login('alone');
$t->disconnect();
sleep(0.2);
my $base = descriptors();

for my $case ((map { [ $_, 'alone' ] } qw(greeting ehlo tls challenge auth)),
    [ 'auth', 'secure', tls => 1 ])
{
    my ($stage, $where, @option) = @$case;

    for my $how (qw(close reset half_close)) {
        behave($stage => 'hang');

        my @clients = map { $t->session($where, @option) } 1 .. 3;
        $before = total('a');
        $_->send_raw("AUTH PLAIN AGFsaWNlAHNlY3JldA==\r\n") for @clients;
        $t->wait_for(sub { total('a') >= $before + 3 });
        sleep(0.05);
        $_->$how() for @clients;

        ok($t->wait_for(sub { descriptors() <= $base }),
            "$stage, $where, client: $how: nothing is left")
            or diag(descriptors() . " descriptors, $base before");
        $t->disconnect();
    }
}

behave();
like((login('alone'))[0], $IN, 'and the next one gets in');

# one that stays and says more has its answer first

for my $where (qw(alone secure)) {
    behave(auth => { delay => 0.5, then => 'ok' });
    $c = $t->session($where, tls => $where eq 'secure');
    $c->send_raw("AUTH PLAIN AGFsaWNlAHNlY3JldA==\r\n");
    sleep(0.2);
    $c->send_raw("NOOP\r\n");
    like($c->read_reply(), $IN, "$where, more is said: in");
    like($c->read_reply(), qr/^250 /, "$where, more is said: then that");
    $c->quit();
}

# a relay that is killed while it is asked

behave(auth => 'hang');
my @clients = map { $t->session('two') } 1 .. 3;
$before = total('a');
$_->send_raw("AUTH PLAIN AGFsaWNlAHNlY3JldA==\r\n") for @clients;
$t->wait_for(sub { total('a') >= $before + 3 });
sleep(0.1);
$relay{a}->stop();
is(scalar(grep { $_->read_reply() =~ $IN } @clients), 3,
    'killed: the next one is asked');
$relay{a}->start();
$t->disconnect();

# a reload while it is asked: answered by the old worker, which then leaves

behave(auth => { delay => 1, then => 'ok' });
$c = $t->session('alone');
$c->send_raw("AUTH PLAIN AGFsaWNlAHNlY3JldA==\r\n");
sleep(0.3);
my @old = $t->worker_pids();
$t->reload();
like($c->read_reply(), $IN, 'reload: in');
like($c->read_reply(), qr/^421 /, 'reload: and told to come again');
ok($t->wait_for(sub { !grep { kill(0, $_) } @old }), 'reload: the worker went');

# the end of the old worker's time

behave(auth => 'hang');
@clients = map { $t->session('alone') } 1 .. 3;
$_->send_raw("AUTH PLAIN AGFsaWNlAHNlY3JldA==\r\n") for @clients;
sleep(0.3);
@old = $t->worker_pids();
$t->reload();
ok($t->wait_for(sub { !grep { kill(0, $_) } @old }), 'cut: the worker went');
$t->disconnect();

# one after the other, right and wrong: nothing grows

sub memory {
    my ($pid) = $t->worker_pids();

    return ($t->read_file("/proc/$pid/status") =~ /^RssAnon:\s+(\d+)/m)[0];
}

sub logins {
    my ($count) = @_;

    my $good = 0;

    for my $n (1 .. $count) {
        my ($reply, $c) = login('fast', $n % 2 ? 'wrong' : 'secret');
        $good += $n % 2 ? $reply =~ /^535 / : $reply =~ $IN;
        $n % 3 ? $c->quit() : $c->close();
    }

    return $good;
}

logins(100);
my $memory = memory();
is(logins($LOGINS), $LOGINS, "$LOGINS logins: each as it should be");

SKIP: {
    my ($pid) = $t->worker_pids();

    skip('a sanitizer keeps what is freed', 1)
        if $t->read_file("/proc/$pid/maps") =~ /asan/;

    cmp_ok(memory() - $memory, '<', 200, "$LOGINS logins: no growth (KB)");
}

$t->done(faults => 0);
