#!/usr/bin/perl

# health_check: a relay that is not well gets no message, for no worker, until
# it is; each is asked by one worker at a time, backups as well.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Test::More;
use Time::HiRes qw(sleep);

use MailPolicy;

my $t = MailPolicy->new();
my %relay = map { $_ => $t->run_relay(name => $_) } qw(a b);

$t->conf(<<'EOF');
worker_processes  3;

mail {
    server_name  edge.example.com;
    access_log   %%DIR%%/access.log;
    policy       on;
    policy_auth  off;

    upstream relays {
        server        127.0.0.1:%%PORT_a%% max_fails=0;
        server        127.0.0.1:%%PORT_b%% max_fails=0 backup;
        health_check  interval=100ms timeout=300ms fails=2 passes=2;
    }

    server {
        listen      127.0.0.1:%%PORT_smtp%%;
        protocol    smtp;
        proxy_pass  relays;
    }
}
EOF

$relay{a}->set(extensions => [ 'SIZE 1000000' ]);
$t->run_nginx();

my (%seen, %tried);


# where n messages went, each with how many attempts it took

sub messages {
    my ($n) = @_;

    $seen{$_} = $relay{$_}->stats()->{messages} for keys %relay;
    my $lines = () = $t->access_log();

    for (1 .. $n) {
        my $c = $t->session('smtp');
        my @replies = $c->send_mail('s@example.com', [ 'r@example.net' ],
            "x\n");
        $c->quit();
        return $replies[0] if $replies[-1] !~ /^250 /;
    }

    $t->wait_for(sub { (() = $t->access_log()) >= $lines + $n });
    %tried = map { $_->{upstream_addr} => 1 }
        ($t->access_log())[$lines .. $lines + $n - 1];

    return join('', map { $_ x ($relay{$_}->stats()->{messages} - $seen{$_}) }
        sort keys %relay);
}


sub says {
    my ($name, $state, $n) = @_;

    my $port = $t->port($name);
    my $re = qr/relay "127\.0\.0\.1:$port" of upstream "relays" is $state/;
    return $t->wait_for(sub { (() = $t->error_log() =~ /$re/g) == $n }, 10);
}


# each of them by one worker

ok($t->wait_for(sub { $relay{b}->stats()->{total} }), 'a backup is checked');
my $before = $relay{a}->stats()->{total};
sleep(1);
my $checks = $relay{a}->stats()->{total} - $before;
cmp_ok($checks, '<=', 11, 'one check an interval, of three workers');
cmp_ok($checks, '>=', 4, 'and there are checks');

my $c = $t->client('smtp');
$c->greeting();
unlike($c->ehlo(), qr/8BITMIME/, 'what a relay offers is known without mail');
$c->quit();
is(messages(3), 'aaa', 'all is well');

# not well, in each way

my $n = 0;

for my $case ([ connect => 'refuse' ], [ greeting => '554 5.3.2 no' ],
    [ greeting => 'hang' ], [ ehlo => '421 4.3.2 closing' ],
    [ ehlo => 'close' ])
{
    my ($stage, $action) = @$case;

    $n++;
    $relay{a}->set($stage => $action);
    ok(says('a', 'unhealthy: .*', $n), "$stage $action: is found");
    is(messages(3), 'bbb', "$stage $action: messages go elsewhere");
    is(join(' ', keys %tried), '127.0.0.1:' . $t->port('b'),
        "$stage $action: and nowhere else before");

    if ($n == 1) {
        ok($t->reload(), 'a reload');
        is(messages(3), 'bbb', 'forgets nothing');
        kill('KILL', ($t->worker_pids())[0]);
    }

    $relay{a}->set($stage => undef);
    ok(says('a', 'healthy again', $n), "$stage $action: well again");
    is(messages(3), 'aaa', "$stage $action: messages come back");
}

# all of them

$relay{$_}->set(ehlo => '421 4.3.2 closing') for qw(a b);
ok(says('b', 'unhealthy: its reply to EHLO is not 250', 1), 'the backup');
ok(says('a', 'unhealthy: its reply to EHLO is not 250', 2), 'the other');
like(messages(1), qr/^451 4\.4\.1 /, 'nobody is well: 451');
$relay{b}->set(ehlo => undef);
is(messages(1), 'b', 'though all are asked all the same');

$t->allow(qr/exited on signal 9/);
$t->done();
