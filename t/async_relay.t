#!/usr/bin/perl

# The asynchronous matrix, where the relay is waited for: the connection to
# it (A6), its reply to the final dot (A10).

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use IO::Socket::INET;
use Test::More;
use Time::HiRes qw(sleep time);

use MailPolicy;
use MailPolicy::Async;
use MailPolicy::AsyncRedis;

my %ENDS = (E1 => 'close', E2 => 'reset');
my $TO = 'RCPT TO:<r@example.net>';

my $t = MailPolicy->new();
my $relay = $t->run_relay(name => 'relay');
my $fake = MailPolicy::AsyncRedis->new(dir => $t->dir(),
    port => $t->port('fake'));


sub conf {
    my ($name, $main) = @_;

    $t->conf($name, <<"EOF");
$main
mail {
    server_name            edge.example.com;
    access_log             %%DIR%%/$name.access.log;
    policy_redis           redis://127.0.0.1:%%PORT_fake%% timeout=3s
                           on_error=closed;
    policy                 on;
    policy_auth            off;
    policy_limit           x  key=\$sender  messages=1000/1h;
    proxy_pass             127.0.0.1:%%PORT_relay%%;
    proxy_connect_timeout  2500ms;
    proxy_final_timeout    2s;

    server {
        listen    127.0.0.1:%%PORT_$name%%;
        protocol  smtp;
    }

    server {
        listen    127.0.0.1:%%PORT_hurried_$name%%;
        protocol  smtp;
        timeout   500ms;
    }

    server {
        listen      127.0.0.1:%%PORT_connect_$name%%;
        protocol    smtp;
        proxy_pass  127.0.0.1:%%PORT_nobody%%;
        timeout     1s;
    }
}
EOF
    $t->run_nginx($name);
}

conf('main', '');
my $async = MailPolicy::Async->new($t, $relay, 'main');


my $number = 0;

# a client that waits for each of them: (client, sender)

sub waiting {
    my ($point, $nginx, $hurried) = @_;

    my $from = 's' . ++$number . '@example.com';
    my $where = ($hurried // '') . ($point eq 'A6' ? 'connect_' : '')
        . ($nginx // 'main');
    my $c = $async->session($where);

    if ($point eq 'A6') {
        $c->send_raw("MAIL FROM:<$from>\r\n$TO\r\n");
        # asked at the same time
        $t->wait_for(sub { $fake->asked('A3', $from) });

    } else {
        $c->cmd($_) for "MAIL FROM:<$from>", $TO, 'DATA';
        $c->send_raw("x\r\n.\r\n");
        $t->wait_for(sub {
            grep { /<\Q$from\E>.*^-- body of/ms } $relay->transcripts();
        });
    }

    return ($c, $from);
}


sub steady {
    my ($name) = @_;

    local $Test::Builder::Level = $Test::Builder::Level + 1;

    $fake->mode('good');
    $relay->set(dot => undef);
    $async->steady($name, sub {
        my $reply;

        $t->wait_for(sub {
            my $c = $async->session('main');
            $reply = ($c->send_mail('w@example.com', [ 'r@example.net' ],
                "x\n"))[-1];
            $c->quit();
            return $reply =~ /^250 /;
        });
        return $reply;
    });
}


sub outcome {
    my ($name, $from, $expected) = @_;

    local $Test::Builder::Level = $Test::Builder::Level + 1;

    my @found;

    $t->wait_for(sub {
        @found = map { $_->{outcome} } grep { $_->{sender} eq $from }
            $t->access_log('main.access.log');
    });
    like("@found", qr/^(?:$expected)$/, "$name: outcome $expected");
}


# A listener that takes no more connections; when it is freed, the kernel
# sends a SYN again behind a second.

my %queue = (clients => []);

sub fill_queue {
    $queue{listener} //= IO::Socket::INET->new(LocalAddr => '127.0.0.1',
        LocalPort => $t->port('nobody'), Listen => 1, ReuseAddr => 1,
        Blocking => 0) or die "port of nobody: $!\n";
    push @{ $queue{clients} }, map { IO::Socket::INET->new(PeerAddr => '127.0.0.1',
        Blocking => 0, PeerPort => $t->port('nobody')) } 1 .. 4;
}


sub free_queue {
    close($_) for splice @{ $queue{clients} };
    while (my $socket = $queue{listener}->accept()) { close($socket) }
}


# then it is answered with RST

sub close_queue {
    close(delete $queue{listener});
    close($_) for splice @{ $queue{clients} };
}


fill_queue();
steady('to begin with');

# A6

for my $event (sort keys %ENDS) {
    my $method = $ENDS{$event};
    my $name = $async->cell('A6', $event, $method);
    my ($c, $from) = waiting('A6');
    $c->$method();
    outcome($name, $from, 'aborted');
    steady($name);
}

my ($c, $from) = waiting('A6');
$async->is_reply($c, '451 4\.4\.1', $async->cell('A6', 'E3',
    'proxy_connect_timeout, not "timeout"'));
$c->close();

my $name = $async->cell('A6', 'E4', 'refused behind a while');
($c, $from) = waiting('A6');
close_queue();
$async->is_reply($c, '451 4\.4\.1', $name);
steady($name);

for my $method (values %ENDS) {
    $name = $async->cell('A6', 'E5', "connected too late, $method");
    fill_queue();
    ($c, $from) = waiting('A6');
    $c->$method();
    free_queue();
    outcome($name, $from, 'aborted');
    sleep(1.1);
    steady($name);

    $name = $async->cell('A6', 'E10', "connected, and $method");
    fill_queue();
    ($c, $from) = waiting('A6');
    free_queue();
    $async->one_turn(sub { sleep(1.2); $c->$method() });
    outcome($name, $from, 'aborted');
    free_queue();
    steady($name);

    for my $order ('client first', 'relay first') {
        $name = $async->cell('A6', 'E10', "refused, and $method, $order");
        fill_queue();
        ($c, $from) = waiting('A6');
        close_queue();
        $async->one_turn(sub {
            $c->$method() if $order eq 'client first';
            sleep(1.2);
            $c->$method() if $order ne 'client first';
        });
        outcome($name, $from, 'aborted|deferred');
        steady($name);
    }
}

# A10

for my $event (sort keys %ENDS) {
    my $method = $ENDS{$event};

    for my $case ([ hang => 'unknown' ], [ close => 'unknown' ],
        [ '451 4.3.0 later' => 'deferred' ],
        [ ok => $event eq 'E2' ? 'delivered_unacked' : 'accepted' ])
    {
        my ($action, $outcome) = @$case;
        $name = $async->cell('A10', $event, "$method, $action");
        $relay->set(dot => { delay => 0.3, then => $action });
        ($c, $from) = waiting('A10');
        $c->$method();
        outcome($name, $from, $outcome);
        steady($name);
    }
}

$name = $async->cell('A10', 'E3', 'the client owes nothing');
$relay->set(dot => { delay => 0.8, then => 'ok' });
($c, $from) = waiting('A10', 'main', 'hurried_');
$async->is_reply($c, '250', $name);
steady($name);

for my $action (qw(close rst)) {
    $name = $async->cell('A10', 'E4', $action);
    $relay->set(dot => { delay => 0.1, then => $action });
    ($c, $from) = waiting('A10');
    $async->is_reply($c, '451 4\.4\.2', $name);
    outcome($name, $from, 'unknown');
    steady($name);
}

$name = $async->cell('A10', 'E5', 'behind proxy_final_timeout');
$relay->set(dot => { delay => 2.3, then => 'ok' });
($c, $from) = waiting('A10');
$async->is_reply($c, '451 4\.4\.2', $name);
outcome($name, $from, 'unknown');
sleep(0.4);
like($c->cmd('NOOP'), qr/^250 /, "$name: not one reply too many");
steady($name);

$name = $async->cell('A10', 'E6', 'twice');
$relay->set(dot => { send => "250 2.0.0 Ok\r\n250 2.0.0 Ok\r\n" });
($c, $from) = waiting('A10');
$async->is_reply($c, '250', $name);
like($c->cmd('VRFY x'), qr/^252 /, "$name: not one reply too many");
outcome($name, $from, 'accepted');
steady($name);

for my $action ('ok', 'rst') {
    for my $method (values %ENDS) {
        for my $order ('client first', 'relay first') {
            $name = $async->cell('A10', 'E10', "$action, $method, $order");
            $relay->set(dot => { delay => 0.2, then => $action });
            ($c, $from) = waiting('A10');
            $async->one_turn(sub {
                $c->$method() if $order eq 'client first';
                sleep(0.25);
                $c->$method() if $order ne 'client first';
            });
            outcome($name, $from, $action eq 'rst' ? 'unknown'
                : 'accepted|delivered_unacked');
            steady($name);
        }
    }
}

# E9: Redis is lost with what others have asked

fill_queue();
$relay->set(dot => { delay => 0.3 + MailPolicy::AsyncRedis::LATE,
    then => 'ok' });
($c, $from) = waiting('A10');
$fake->mode('A3 due');
my @connecting = map { (waiting('A6'))[0] } 1 .. 8;

$async->is_reply($_, '451 4\.3\.0', $async->cell('A6', 'E9', 'Redis closes'))
    for @connecting;
$async->is_reply($c, '250', $async->cell('A10', 'E9', 'Redis closes'));
steady('ASYNC E9');

# E7, E8

my %LATER = (A6 => '451 4\.4\.1', A10 => '250');
my @POINTS = sort keys %LATER;

conf('reload', '');
$relay->set(dot => { delay => 1, then => 'ok' });
my @clients = map { [ $_, waiting($_, 'reload') ] } @POINTS;
ok($t->reload('reload'), 'ASYNC E7 reload');

for my $client (@clients) {
    my ($point, $c) = @$client;
    $name = $async->cell($point, 'E7', 'reload');

    $async->is_reply($c, $LATER{$point}, $name);
    # of A6, that to RCPT
    $c->read_reply() if $point eq 'A6';
    $async->is_reply($c, '421 4\.3\.2', $name);
}

$async->old_gone('reload', 'ASYNC E7');

conf('hasty', 'worker_shutdown_timeout 1s;');
$relay->set(dot => 'hang');
@clients = map { [ $_, waiting($_, 'hasty') ] } @POINTS;
my $begin = time();
ok($t->reload('hasty'), 'ASYNC E8 reload');
ok($_->[1]->wait_close(5), $async->cell($_->[0], 'E8', 'closed'))
    for @clients;
$async->old_gone('hasty', 'ASYNC E8');
cmp_ok(time() - $begin, '<', 6, 'ASYNC E8 in time');

steady('at the end');
$async->complete(@POINTS);
$t->stop($_) for qw(main reload hasty);
$fake->stop();
close_queue();
$t->done();
