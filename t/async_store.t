#!/usr/bin/perl

# The asynchronous matrix, where Redis is waited for: for the record of a
# login (A2), for the verdict of the limits (A3), for charges to be given back
# (A4).  Whoever asked may be gone when the answer comes, or the other way
# round.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use MIME::Base64 qw(encode_base64);
use Test::More;
use Time::HiRes qw(sleep time);

use MailPolicy;
use MailPolicy::Async;
use MailPolicy::AsyncRedis;

my %ENDS = (E1 => 'close', E2 => 'reset');
my @POINTS = qw(A2 A3 A4);

# seconds, as the modes of this Redis have it; policy_redis' timeout is longer
use constant { LATE => MailPolicy::AsyncRedis::LATE,
               SOON => MailPolicy::AsyncRedis::SOON };

my $t = MailPolicy->new();
my $relay = $t->run_relay(name => 'relay');
my $fake = MailPolicy::AsyncRedis->new(dir => $t->dir(),
    port => $t->port('fake'));


sub conf {
    my ($name, $main, $timeout) = @_;

    $t->conf($name, <<"EOF");
$main
mail {
    server_name   edge.example.com;
    access_log    %%DIR%%/$name.access.log;
    policy_redis  redis://127.0.0.1:%%PORT_fake%% timeout=$timeout
                  on_error=closed;
    policy        on;
    policy_auth   off;
    policy_limit  x  key=\$sender  messages=1000/1h;
    proxy_pass    127.0.0.1:%%PORT_relay%%;

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
        listen                 127.0.0.1:%%PORT_auth_$name%%;
        protocol               smtp;
        policy_auth            redis;
        policy_auth_plaintext  on;
    }

    server {
        listen                 127.0.0.1:%%PORT_hurried_auth_$name%%;
        protocol               smtp;
        policy_auth            redis;
        policy_auth_plaintext  on;
        timeout                500ms;
    }
}
EOF
    $t->run_nginx($name);
}

conf('main', '', '2s');
my $async = MailPolicy::Async->new($t, $relay, 'main');


sub asked { return $fake->asked(@_) }


my $number = 0;

# a client that is about to ask Redis: (client, key)

sub ready {
    my ($point, $nginx, $hurried) = @_;

    my $key = 'k' . ++$number . '@example.com';
    my $c = $async->session(($hurried // '') . ($point eq 'A2' ? 'auth_' : '')
        . ($nginx // 'main'));

    $c->cmd("MAIL FROM:<$key>") if $point eq 'A4';
    return ($c, $key);
}


sub ask {
    my ($point, $c, $key) = @_;

    $c->send_raw('AUTH PLAIN ' . encode_base64("\0$key\0secret", '')
        . "\r\n")
        if $point eq 'A2';
    $c->send_raw("MAIL FROM:<$key>\r\n") if $point eq 'A3';

    # this is not waited for
    $c->cmd('RSET') if $point eq 'A4';

    $t->wait_for(sub { asked($point, $key) })
        or die "Redis was not asked: $point, $key\n";
}


# one of each point in the same nginx

sub all_waiting {
    my ($mode, $nginx) = @_;

    $fake->mode('good');
    my @clients = map { [ $_, ready($_, $nginx) ] } @POINTS;

    $fake->mode("all $mode");
    ask(@$_) for @clients;
    return @clients;
}


# one that has asked, and has no answer yet

sub waiting {
    my ($point, $mode, @where) = @_;

    $fake->mode('good');
    my ($c, $key) = ready($point, @where);

    $fake->mode("$point $mode");
    ask($point, $c, $key);
    return ($c, $key);
}


# all that was charged is given back, and once; where Redis went away
# meanwhile, it stands

sub given_back {
    my ($name, $key) = @_;

    local $Test::Builder::Level = $Test::Builder::Level + 1;

    $t->wait_for(sub { asked('A4', $key) });
    is(asked('A4', $key), 1, "$name: the charge is given back, once");
}


# others are served as soon as both connections are there again

sub steady {
    my ($name) = @_;

    local $Test::Builder::Level = $Test::Builder::Level + 1;

    $fake->mode('good');
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


steady('to begin with');

my %ANSWER = (A2 => '235', A3 => '250');
my %AWAY = (A2 => '454', A3 => '451');

for my $point (@POINTS) {

    # E1, E2: the client leaves, and there is no answer

    for my $event (sort keys %ENDS) {
        my $method = $ENDS{$event};
        my $name = $async->cell($point, $event, $method);
        my ($c) = waiting($point, 'never');
        $c->$method();
        steady($name);
    }

    # E3: the client's timer.  It runs while a thread may take its time, and
    # so with a login, and between commands; not where the client owes
    # nothing.

    my ($c, $key) = waiting($point, 'late', 'main', 'hurried_');
    my $name = $async->cell($point, 'E3', 'timeout');
    $async->is_reply($c, $point eq 'A3' ? '250' : '421', $name);
    $c->close();
    given_back($name, $key) if $point ne 'A2';
    sleep(LATE);
    steady($name);

    # E4: Redis closes

    $name = $async->cell($point, 'E4', 'it closes');
    ($c, $key) = waiting($point, 'close');
    $async->is_reply($c, $AWAY{$point}, $name) if $AWAY{$point};
    $fake->mode('good');
    like($c->cmd('NOOP'), qr/^250 /, "$name: the session goes on");
    steady($name);

    # E5: the answer comes when the session is gone

    for my $method (values %ENDS) {
        $name = $async->cell($point, 'E5', "late, $method");
        ($c, $key) = waiting($point, 'late');
        $c->$method();
        sleep(LATE + 0.1);
        given_back($name, $key) if $point ne 'A2';
        steady($name);
    }

    # E6: it comes twice

    $name = $async->cell($point, 'E6', 'twice');
    ($c, $key) = waiting($point, 'twice');
    $async->is_reply($c, $ANSWER{$point}, $name) if $ANSWER{$point};
    $fake->mode('good');
    like($c->cmd('NOOP'), qr/^250 /, "$name: the session goes on");
    $c->close();
    given_back($name, $key) if $point ne 'A2';
    steady($name);

    # E9: Redis closes with much to be answered

    $name = $async->cell($point, 'E9', 'it closes');
    my @clients = map { [ ready($point) ] } 1 .. 8;
    $fake->mode("$point due");
    ask($point, @$_) for @clients;
    is(scalar(grep { $_->[0]->read_reply() =~ /^$AWAY{$point} / } @clients),
        8, "$name: 8 times $AWAY{$point}") if $AWAY{$point};
    $_->[0]->close() for @clients;
    sleep(LATE) unless $AWAY{$point};
    steady($name);

    # E10: an answer, or the end of the connection, and the client's

    for my $what ('soon', 'going') {
        for my $order ('client first', 'Redis first') {
            for my $method (values %ENDS) {
                $name = $async->cell($point, 'E10', "$what, $method, $order");
                ($c, $key) = waiting($point, $what);

                $async->one_turn(sub {
                    $c->$method() if $order eq 'client first';
                    sleep(SOON + 0.05);
                    $c->$method() if $order ne 'client first';
                });

                given_back($name, $key)
                    if $point ne 'A2' && $what eq 'soon';
                steady($name);
            }
        }
    }
}

# E7: reload, with all of it under way

conf('reload', '', '10s');
my @clients = all_waiting('late', 'reload');
ok($t->reload('reload'), 'ASYNC E7 reload');

for my $client (@clients) {
    my ($point, $c, $key) = @$client;
    my $name = $async->cell($point, 'E7', 'reload');

    $async->is_reply($c, $ANSWER{$point}, $name) if $ANSWER{$point};
    $async->is_reply($c, '421 4\.3\.2', $name);
    ok($c->wait_close(), "$name: closed");
    given_back($name, $key) if $point ne 'A2';
}

$async->old_gone('reload', 'ASYNC E7');

# E8: worker_shutdown_timeout, and no answers

conf('hasty', 'worker_shutdown_timeout 1s;', '10s');
@clients = all_waiting('never', 'hasty');

my $begin = time();
ok($t->reload('hasty'), 'ASYNC E8 reload');

for my $client (@clients) {
    my ($point, $c) = @$client;
    ok($c->wait_close(5), $async->cell($point, 'E8', 'closed'));
}

$async->old_gone('hasty', 'ASYNC E8');
cmp_ok(time() - $begin, '<', 5, 'ASYNC E8 in time');

steady('at the end');
$async->complete(@POINTS);
$t->stop($_) for qw(main reload hasty);
$fake->stop();
$t->done();
