#!/usr/bin/perl

# The asynchronous matrix, where a route is looked up in Redis (A5): at MAIL,
# at RCPT, and for a limit that waits for it.  The session, the answer and the
# worker end in any order.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Test::More;
use Time::HiRes qw(sleep time);

use MailPolicy;
use MailPolicy::Async;
use MailPolicy::AsyncRedis;

my %ENDS = (E1 => 'close', E2 => 'reset');
my @POINTS = qw(mail rcpt limit);

# seconds, as the modes of this Redis have it; policy_redis' timeout is longer
use constant { LATE => MailPolicy::AsyncRedis::LATE,
               SOON => MailPolicy::AsyncRedis::SOON };

my $t = MailPolicy->new();
my $relay = $t->run_relay(name => 'relay');
my $fake = MailPolicy::AsyncRedis->new(dir => $t->dir(),
    port => $t->port('fake'));


sub conf {
    my ($name, $main, $timeout) = @_;

    my $servers = '';

    for my $case ([ mail => '$by_sender' ], [ rcpt => '$by_recipient' ],
        [ limit => 'relay' ])
    {
        my ($point, $route) = @$case;

        for my $hurried ('', 'hurried_') {
            $servers .= "    server {\n"
                . "        listen 127.0.0.1:%%PORT_$hurried${point}_$name%%;\n"
                . "        protocol smtp;\n        proxy_pass $route;\n"
                . ($hurried ? "        timeout 500ms;\n" : '')
                . ($point eq 'limit' ? '        policy_limit x key=$key '
                    . "messages=1000/1h;\n" : '') . "    }\n";
        }
    }

    $t->conf($name, <<"EOF");
$main
mail {
    server_name   edge.example.com;
    access_log    %%DIR%%/$name.access.log;
    policy_redis  redis://127.0.0.1:%%PORT_fake%% timeout=$timeout
                  on_error=closed cache=0;
    policy        on;
    policy_auth   off;

    upstream relay { server 127.0.0.1:%%PORT_relay%%; }

    policy_lookup  \$by_sender     route:\$sender;
    policy_lookup  \$by_recipient  route:\$recipient;
    policy_lookup  \$key           route:\$sender  other;

$servers
}
EOF
    $t->run_nginx($name);
}

conf('main', '', '2s');
my $async = MailPolicy::Async->new($t, $relay, 'main');

my $number = 0;

# a client that has asked, and has no answer yet: (client, key); where Redis
# was just away, it may be that nobody is asked yet

sub waiting {
    my @how = @_;

    for (1 .. 10) {
        my ($c, $key) = ask(@how);
        return ($c, $key)
            if $t->wait_for(sub { $fake->asked('A5', $key) }, 1);
        $c->close();
    }

    die "Redis was not asked: @how\n";
}


sub ask {
    my ($point, $mode, $nginx, $hurried) = @_;

    my $key = 'k' . ++$number . '@example.com';

    $fake->mode('good');
    my $c = $async->session(($hurried // '') . $point . '_'
        . ($nginx // 'main'));

    $c->cmd('MAIL FROM:<s@example.com>') if $point eq 'rcpt';
    $fake->mode("A5 $mode");
    $c->send_raw($point eq 'rcpt' ? "RCPT TO:<$key>\r\n"
        : "MAIL FROM:<$key>\r\n");

    return ($c, $key);
}


sub steady {
    my ($name) = @_;

    local $Test::Builder::Level = $Test::Builder::Level + 1;

    $fake->mode('good');
    $async->steady($name, sub {
        my $reply;

        $t->wait_for(sub {
            my $c = $async->session('mail_main');
            $reply = ($c->send_mail('w@example.com', [ 'r@example.net' ],
                "x\n"))[-1];
            $c->quit();
            return $reply =~ /^250 /;
        });
        return $reply;
    });
}


sub cell {
    my ($point, $event, $what) = @_;

    return $async->cell('A5', $event, "$point, $what");
}


steady('to begin with');

# no route, or for the limit the default key, which is asked for in vain or
# not: Redis may be there again

my %AWAY = (mail => '451', rcpt => '451', limit => '(?:250|451)');

for my $point (@POINTS) {
    my ($c, $key, $name);

    for my $event (sort keys %ENDS) {
        my $method = $ENDS{$event};
        $name = cell($point, $event, $method);
        ($c) = waiting($point, 'never');
        $c->$method();
        steady($name);
    }

    # E3: the client owes nothing meanwhile

    $name = cell($point, 'E3', 'timeout');
    ($c) = waiting($point, 'late', 'main', 'hurried_');
    $async->is_reply($c, '250', $name);
    $c->close();
    steady($name);

    $name = cell($point, 'E4', 'it closes');
    ($c) = waiting($point, 'close');
    $async->is_reply($c, $AWAY{$point}, $name);
    $fake->mode('good');
    like($c->cmd('NOOP'), qr/^250 /, "$name: the session goes on");
    steady($name);

    for my $method (values %ENDS) {
        $name = cell($point, 'E5', "late, $method");
        ($c) = waiting($point, 'late');
        $c->$method();
        sleep(LATE + 0.1);
        steady($name);
    }

    $name = cell($point, 'E6', 'twice');
    ($c) = waiting($point, 'twice');
    $async->is_reply($c, '250', $name);
    $fake->mode('good');
    like($c->cmd('NOOP'), qr/^250 /, "$name: the session goes on");
    steady($name);

    $name = cell($point, 'E9', 'it closes');
    my @clients = map { (waiting($point, 'due'))[0] } 1 .. 8;
    is(scalar(grep { $_->read_reply() =~ /^$AWAY{$point} / } @clients),
        8, "$name: 8 times $AWAY{$point}");
    $_->close() for @clients;
    steady($name);

    for my $what ('soon', 'going') {
        for my $order ('client first', 'Redis first') {
            for my $method (values %ENDS) {
                $name = cell($point, 'E10', "$what, $method, $order");
                ($c) = waiting($point, $what);

                $async->one_turn(sub {
                    $c->$method() if $order eq 'client first';
                    sleep(SOON + 0.05);
                    $c->$method() if $order ne 'client first';
                });
                steady($name);
            }
        }
    }
}

# E7: reload, with all of it under way

conf('reload', '', '10s');
my @clients = map { [ $_, waiting($_, 'late', 'reload') ] } @POINTS;
ok($t->reload('reload'), 'ASYNC E7 reload');

for my $client (@clients) {
    my ($point, $c) = @$client;
    my $name = cell($point, 'E7', 'reload');

    $async->is_reply($c, '250', $name);
    $async->is_reply($c, '421 4\.3\.2', $name);
    ok($c->wait_close(), "$name: closed");
}

$async->old_gone('reload', 'ASYNC E7');

# E8: worker_shutdown_timeout, and no answers

conf('hasty', 'worker_shutdown_timeout 1s;', '10s');
@clients = map { [ $_, waiting($_, 'never', 'hasty') ] } @POINTS;

my $begin = time();
ok($t->reload('hasty'), 'ASYNC E8 reload');
ok($_->[1]->wait_close(5), cell($_->[0], 'E8', 'closed')) for @clients;
$async->old_gone('hasty', 'ASYNC E8');
cmp_ok(time() - $begin, '<', 5, 'ASYNC E8 in time');

steady('at the end');
$async->complete('A5');
$t->stop($_) for qw(main reload hasty);
$fake->stop();
$t->done();
