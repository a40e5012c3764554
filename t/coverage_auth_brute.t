#!/usr/bin/perl

# AUTH-21: who tries passwords. Refusals are held back, longer each time, and
# nobody else waits for that; so many errors end a session; so many failures
# of a client or for a login, and passwords are not looked at, whatever the
# mechanism; an attempt that is broken off counts.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use IO::Socket::INET;
use Test::More;
use Time::HiRes qw(sleep time);

use MailPolicy;
use MailPolicy::Sasl;

my @MECHANISMS = ('PLAIN', 'LOGIN', 'CRAM-MD5', 'SCRAM-SHA-256');
my $PASSWORD = 'canary-in-clear';
my $INVALID = qr/^535 5\.7\.8 /;
my $THROTTLED = qr/^454 4\.7\.0 Too many failed logins/;

my $monitor;
my $t = MailPolicy->new();
my $redis = $t->run_redis();

$t->secret($PASSWORD);
$t->write_file('users', "alice\@example.com:{PLAIN}$PASSWORD\n");

$t->conf(<<'EOF');
mail {
    server_name            edge.example.com;
    policy_redis           redis://127.0.0.1:%%PORT_redis%% timeout=5s;
    policy                 on;
    policy_auth            redis;
    policy_auth_plaintext  on;
    policy_auth_methods    plain login cram-md5 scram-sha-256;
    policy_auth_delay      0;
    proxy_pass             127.0.0.1:25;
    max_errors             1000;

    # what is there without "policy_auth_delay"
    server {
        listen             127.0.0.1:%%PORT_delay%%;
        protocol           smtp;
        policy_auth        file:%%DIR%%/users;
        policy_auth_delay  1s;
    }

    server {
        listen             127.0.0.1:%%PORT_doubled%%;
        protocol           smtp;
        policy_auth        file:%%DIR%%/users;
        policy_auth_delay  100ms;
    }

    server {
        listen       127.0.0.1:%%PORT_errors%%;
        protocol     smtp;
        max_errors   4;
    }

    server {
        listen        127.0.0.1:%%PORT_login%%;
        protocol      smtp;
        policy_limit  login key=$sasl_username auth_failures=2/15m;
    }

    server {
        listen        127.0.0.1:%%PORT_net%%;
        protocol      smtp;
        policy_limit  net key=$client_net auth_failures=3/15m;
    }
}
EOF
$t->run_nginx();

record($_) for 'alice', 'errors', map { lc } @MECHANISMS;

delays();
doubled();
errors();
locked($_) for @MECHANISMS;
aborted();
$t->done();


sub record {
    my ($name) = @_;

    $redis->cmd('HSET', "mail:user:{$name\@example.com}", 'password',
        "{PLAIN}$PASSWORD");
}


sub sasl {
    my ($mechanism, $user, $password) = @_;

    return MailPolicy::Sasl->new($mechanism, user => "$user\@example.com",
        password => $password // $PASSWORD);
}


# how often records were read since the last time; limits have keys of theirs

sub asked {
    my $seen = '';

    if (!$monitor) {
        $monitor = IO::Socket::INET->new(PeerAddr => '127.0.0.1',
            PeerPort => $redis->port()) or die "monitor: $!\n";
        print {$monitor} "MONITOR\r\n";
        sysread($monitor, my $ok, 5);
    }

    $redis->cmd('ECHO', 'until here');

    until ($seen =~ /until here/) {
        sysread($monitor, $seen, 65536, length $seen) or die "monitor: $!\n";
    }

    return scalar(() = $seen =~ /"mail:user:/g);
}


# one failure in three sessions at once: each waits its own second, and the
# other sessions none

sub delays {
    my @guessing = map { $t->session('delay') } 1 .. 3;
    my $other = $t->session('delay');
    my $plain = sasl('PLAIN', 'alice', 'canary-no')->command('PLAIN', 1);
    my $start = time();
    my $longest = 0;

    $_->send_raw("$plain\r\n") for @guessing;

    while (time() < $start + 0.8) {
        my $asked = time();
        like($other->cmd('NOOP'), qr/^250 /, 'AUTH-21 NOOP meanwhile');
        $longest = time() - $asked if time() - $asked > $longest;
        sleep(0.1);
    }

    is(scalar(grep { $_->read_some(0.01) } @guessing), 0,
        'AUTH-21 nobody is answered within 0.8 s');
    like($_->read_reply(), $INVALID, 'AUTH-21 a second later') for @guessing;

    my $took = time() - $start;
    cmp_ok($took, '>=', 0.99, 'AUTH-21 it is a second');
    cmp_ok($took, '<', 1.9, 'AUTH-21 at the same time for all');
    cmp_ok($longest, '<', 0.3, 'AUTH-21 other sessions do not wait');

    # who is right, and who has failed in another session, does not
    $start = time();
    like(sasl('PLAIN', 'alice')->login($other), qr/^235 /, 'AUTH-21 right');
    cmp_ok(time() - $start, '<', 0.5, 'AUTH-21 right: at once');
}


sub doubled {
    my $c = $t->session('doubled');
    my @took;

    for my $mechanism (@MECHANISMS) {
        my $start = time();
        like(sasl($mechanism, 'alice', 'canary-no')->login($c), $INVALID,
            "AUTH-21 $mechanism, wrong");
        push @took, time() - $start;
    }

    for my $n (0 .. $#took) {
        my $least = 0.1 * 2 ** $n;
        cmp_ok($took[$n], '>=', $least - 0.005,
            "AUTH-21 failure $n waits for $least s");
    }

    cmp_ok($took[2], '<', 0.8, 'AUTH-21 and not for more');

    my $next = $t->session('doubled');
    my $start = time();
    like(sasl('PLAIN', 'alice', 'canary-no')->login($next), $INVALID,
        'AUTH-21 another session');
    cmp_ok(time() - $start, '<', 0.5, 'AUTH-21 begins anew');
}


sub errors {
    my $c = $t->session('errors');

    like(sasl($_, 'errors', 'canary-no')->login($c), $INVALID,
        "AUTH-21 $_: an error") for @MECHANISMS[0 .. 2];
    like(sasl('SCRAM-SHA-256', 'errors')->login($c, cancel => 2), qr/^501 /,
        'AUTH-21 cancelled: an error, too');
    like(sasl('PLAIN', 'errors', 'canary-no')->login($c), qr/^421 4\.7\.0 /,
        'AUTH-21 the fifth is one too many');
    ok($c->wait_close(), 'AUTH-21 which ends the session');
}


# each mechanism: two failures, then no record is read

sub locked {
    my ($mechanism) = @_;

    asked();

    my $user = lc $mechanism;
    my $c = $t->session('login');

    like(sasl($mechanism, $user, "canary-no-$_")->login($c), $INVALID,
        "AUTH-21 $mechanism: failure $_") for 1, 2;

    is(asked(), 2, "AUTH-21 $mechanism: records were read for these");

    for my $tried (@MECHANISMS) {
        my $sasl = sasl($tried, $user);
        like($sasl->login($c), $THROTTLED,
            "AUTH-21 $mechanism failed: $tried is not looked at");
        my @texts = grep { /,s=/ } $sasl->challenges();
        is(scalar @texts, 0, "AUTH-21 $tried: no salt is told");
    }

    is(asked(), 0, "AUTH-21 $mechanism: no record was read");
    like(sasl('PLAIN', 'alice')->login($t->session('login')), qr/^235 /,
        'AUTH-21 another login is free');
}


# SCRAM that is left when the salt is known: as good as a wrong proof

sub aborted {
    asked();
    my $c = $t->session('net');

    like(sasl('SCRAM-SHA-256', 'alice')->login($c, cancel => 2), qr/^501 /,
        'AUTH-21 cancelled');
    sasl('SCRAM-SHA-256', 'alice')->login($c, cut => 2);

    $c = $t->session('net');
    like(sasl('SCRAM-SHA-256', 'alice')->login($c, say => { 2 => 'x' }),
        $INVALID, 'AUTH-21 spoilt');
    is(asked(), 3, 'AUTH-21 three records were read');
    like(sasl('PLAIN', 'alice')->login($c), $THROTTLED,
        'AUTH-21 these were three failures');
}
