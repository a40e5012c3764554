#!/usr/bin/perl

# The asynchronous matrix, where other policy servers are asked (A12): about a
# recipient, at DATA, at the first of several chunks, at the end of a message;
# or where it has to be looked up whether they are.  The session, its relay,
# the answer and the worker end in any order.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Test::More;
use Time::HiRes qw(sleep time);

use MailPolicy;
use MailPolicy::Async;
use MailPolicy::AsyncRedis;
use MailPolicy::PolicyServer;

my %ENDS = (E1 => 'close', E2 => 'reset');

# what is asked of the server there, and what a client is told
my %STATE = (rcpt => 'RCPT', data => 'DATA', chunk => 'DATA',
    end => 'END-OF-MESSAGE', if => 'Redis');
my %GOOD = (rcpt => '250', data => '354', chunk => '250', end => '250',
    if => '250');
my @POINTS = sort keys %STATE;
my @SERVED = grep { $_ ne 'if' } @POINTS;

# seconds, as the modes of Redis have it
use constant { LATE => MailPolicy::AsyncRedis::LATE,
               SOON => MailPolicy::AsyncRedis::SOON };

my $t = MailPolicy->new();
my $relay = $t->run_relay(name => 'relay', extensions => [ 'PIPELINING' ]);
my $fake = MailPolicy::AsyncRedis->new(dir => $t->dir(),
    port => $t->port('fake'));
my $service = MailPolicy::PolicyServer->new(dir => $t->dir(),
    name => 'service', port => $t->port('service'));

push @{ $t->{servers} }, $service;


sub server {
    my ($name, $rest) = @_;

    return "    server { listen 127.0.0.1:%%PORT_$name%%; protocol smtp;"
        . " $rest }\n";
}


sub conf {
    my ($name, $main, $timeout) = @_;

    my $line = 'policy_service inet:127.0.0.1:%%PORT_service%% timeout='
        . "$timeout connections=4";
    my $all = join(' ', map { "$line at=$_;" } qw(rcpt data end));

    my $servers = join('', map { my $hurried = $_;
        my $client = $hurried ? 'timeout 500ms;' : '';
        server("$hurried$name", "$client $all"),
        server("${hurried}if_$name", "$client $line if=\$asks;")
    } '', 'hurried_');

    $t->conf($name, <<"EOF2");
$main
mail {
    server_name    edge.example.com;

    map \$recipient \$closed {
        default        "";
        y\@example.net  y;
    }

    access_log     %%DIR%%/$name.access.log;
    policy_redis   redis://127.0.0.1:%%PORT_fake%% timeout=10s cache=0;
    policy_lookup  \$asks route:\$sender;
    policy_zone    512k;
    policy_limit   closed  key=\$closed  recipients=blocked;
    policy         on;
    policy_auth    off;
    proxy_pass     127.0.0.1:%%PORT_relay%%;

$servers
}
EOF2
    $t->run_nginx($name);
}


# connections are not kept, so that all of them are seen to go

my %THEN = (
    good  => { answer => 'DUNNO', then => 'close' },
    never => { then => 'hang' },
    late  => { answer => 'DUNNO', delay => LATE, then => 'close' },
    soon  => { answer => 'DUNNO', delay => SOON, then => 'close' },
    twice => { octets => "action=DUNNO\n\naction=REJECT\n\n",
               then => 'hang' },
    close => { then => 'close' },
    due   => { delay => LATE, then => 'reset' },
    going => { delay => SOON, then => 'reset' },
);

sub mode {
    my ($point, $mode) = @_;

    $fake->mode($point eq 'if' && $mode ne 'good' ? "A5 $mode" : 'good');
    $service->set($point eq 'if' ? () : { protocol_state =>
        qr/^$STATE{$point}$/, %{ $THEN{$mode} } }, $THEN{good});
}

conf('main', '', '10s');
my $async = MailPolicy::Async->new($t, $relay, 'main');

my $number = 0;

# a client that is about to ask: (client, key)

sub ready {
    my ($point, $nginx, $hurried) = @_;

    my $key = 'k' . ++$number . '@example.com';

    mode($point, 'good');
    my $c = $async->session(($hurried // '') . ($point eq 'if' ? 'if_' : '')
        . ($nginx // 'main'));

    $c->cmd("MAIL FROM:<$key>") if $point ne 'if';
    $c->cmd('RCPT TO:<r@example.net>') if $point =~ /data|chunk|end/;
    $c->cmd('DATA') if $point eq 'end';
    return ($c, $key);
}


sub ask {
    my ($point, $c, $key) = @_;

    # this one is not waited for
    $c->cmd("MAIL FROM:<$key>") if $point eq 'if';

    $c->send_raw($point =~ /rcpt|if/ ? "RCPT TO:<r\@example.net>\r\n"
        : $point eq 'data' ? "DATA\r\n"
        : $point eq 'chunk' ? "BDAT 3\r\nx\r\n" : "x\r\n.\r\n");
}


# one that has asked, and has no answer yet

sub waiting {
    my ($point, $mode, @where) = @_;

    my ($c, $key) = ready($point, @where);

    mode($point, $mode);
    ask($point, $c, $key);
    $t->wait_for(sub { asked($point, $key) })
        or die "$point, $mode: nobody was asked\n";
    return $c;
}


sub asked {
    my ($point, $key) = @_;

    return $fake->asked('A5', $key) if $point eq 'if';
    return grep { $_->{sender} eq $key
        && $_->{protocol_state} eq $STATE{$point} } $service->requests();
}


sub steady {
    my ($name) = @_;

    local $Test::Builder::Level = $Test::Builder::Level + 1;

    mode('rcpt', 'good');
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


sub cell {
    my ($point, $event, $what) = @_;

    return $async->cell('A12', $event, "$point, $what");
}


# the session can be used

sub goes_on {
    my ($c, $name) = @_;

    local $Test::Builder::Level = $Test::Builder::Level + 1;

    mode('rcpt', 'good');
    like($c->cmd('NOOP'), qr/^250 /, "$name: the session goes on");
}


steady('to begin with');

for my $point (@POINTS) {
    my ($c, $name);

    # who waits for what is behind a recipient is not read from

    for my $event (sort keys %ENDS) {
        my $method = $ENDS{$event};

        $name = cell($point, $event, $method);
        $c = waiting($point, $point eq 'rcpt' ? 'never' : 'soon');
        $c->$method();
        sleep(SOON) if $point ne 'rcpt';
        steady($name);
    }

    # E3: the client owes nothing meanwhile

    $name = cell($point, 'E3', 'timeout');
    $c = waiting($point, 'late', 'main', 'hurried_');
    $async->is_reply($c, $GOOD{$point}, $name);
    $c->close();
    steady($name);

    # asked again after a second, then default_action; without Redis nobody is

    $name = cell($point, 'E4', 'it closes');
    $c = waiting($point, 'close');
    $async->is_reply($c, $point eq 'if' ? '250' : '451 4\.3\.5', $name);
    goes_on($c, $name);
    steady($name);

    for my $method (values %ENDS) {
        $name = cell($point, 'E5', "late, $method");
        $c = waiting($point, 'late');
        $c->$method();
        sleep(LATE + 0.1);
        steady($name);
    }

    $name = cell($point, 'E6', 'twice');
    $c = waiting($point, 'twice');
    $async->is_reply($c, $GOOD{$point}, $name);
    goes_on($c, $name) if $point ne 'data';
    $c->close();
    steady($name);

    for my $what ('soon', 'going') {
        for my $order ('client first', 'server first') {
            for my $method (values %ENDS) {
                $name = cell($point, 'E10', "$what, $method, $order");
                $c = waiting($point, $what);

                $async->one_turn(sub {
                    $c->$method() if $order eq 'client first';
                    sleep(SOON + 0.05);
                    $c->$method() if $order ne 'client first';
                });
                steady($name);
            }
        }
    }

    # more questions than connections

    $name = cell($point, 'E9', 'it closes, much is due');
    my @clients = map { [ ready($point) ] } 1 .. 8;

    mode($point, 'due');
    ask($point, @$_) for @clients;
    @clients = map { $_->[0] } @clients;

    is(join(' ', map { substr($_->read_reply(), 0, 3) } @clients), join(' ',
        ($point eq 'if' ? '250' : '451') x 8), "$name: all are answered");
    $_->close() for @clients;
    steady($name);
}


# the relay goes, or refuses MAIL, while servers are asked

for my $point (@SERVED) {
    my $name = "$point: the relay goes";
    my $c = waiting($point, 'late');

    $relay->stop();
    $async->is_reply($c, '451 4\.4\.[12]', $name);
    $relay->start();
    goes_on($c, $name);
    steady($name);
}

my $name = 'MAIL is refused meanwhile';
my @GROUP = ('MAIL FROM:<a@example.com>',
    map { "RCPT TO:<$_\@example.net>" } qw(x y z));

mode('rcpt', 'late');
$relay->set(mail => { delay => 0.4, then => '550 5.1.0 No' });

my $c = $async->session('main');
is(join(' ', map { substr($_, 0, 3) } $c->pipeline(@GROUP)),
    '550 503 503 503', "$name: nobody is left");
goes_on($c, $name);
sleep(LATE);
$c->close();
$relay->set(mail => undef);
steady($name);

# 421 to a recipient, before MAIL has its reply; the limits have refused the
# one behind it: no more is said, and nobody looks at what was due

$name = '421 behind a refused MAIL';
$service->set({ recipient => qr/^x@/, answer => '421 4.7.0 bye', then => 'close' },
    { answer => 'REJECT no', then => 'close' });
$relay->set(mail => { delay => 0.4, then => '550 5.1.0 No' });
$c = $async->session('main');
$c->send_raw(join('', map { "$_\r\n" } @GROUP, 'NOOP', 'QUIT'));
like($c->read_reply(), qr/^550 /, "$name: 550");
is($c->read_reply(), '421 4.7.0 bye', "$name: 421");
is($c->read_reply(), 'CLOSED', "$name: nothing else");
$relay->set(mail => undef);
steady($name);

# two answers in one loop turn: one ends its session

for my $last (qw(x z)) {
    $name = cell('rcpt', 'E10', "421 to $last, and an answer");
    $service->set({ recipient => qr/^$last@/, answer => '421 4.7.0 bye',
        delay => SOON, then => 'close' }, $THEN{soon});

    my $before = () = $service->requests();
    my @clients = map { $async->session('main') } 1 .. 2;

    $clients[$_]->send_raw("$GROUP[0]\r\n$GROUP[$_ ? 3 : 1]\r\nNOOP\r\n")
        for 0, 1;
    $t->wait_for(sub { (() = $service->requests()) == $before + 2 });
    $async->one_turn(sub { sleep(SOON + 0.05) });

    my ($bye, $other) = $last eq 'x' ? @clients : reverse @clients;
    is(join(' ', map { substr($bye->read_reply(), 0, 3) } 1 .. 3),
        '250 421 CLO', "$name: one is told");
    is(join(' ', map { substr($other->read_reply(), 0, 3) } 1 .. 3),
        '250 250 250', "$name: the other one goes on");
    steady($name);
}

# E7: reload, with all of it under way

conf('reload', '', '10s');
my @clients = map { [ $_, waiting($_, 'late', 'reload') ] } @POINTS;
ok($t->reload('reload'), 'ASYNC E7 reload');

for my $client (@clients) {
    my ($point, $c) = @$client;
    $name = cell($point, 'E7', 'reload');

    # what is half said is finished
    $async->is_reply($c, $GOOD{$point}, $name);
    $async->is_reply($c, '421 4\.3\.2', $name) if $point =~ /rcpt|end|if/;
    $c->close() if $point !~ /rcpt|end|if/;
    ok($c->wait_close(), "$name: closed");
}

$async->old_gone('reload', 'ASYNC E7');

# E8: worker_shutdown_timeout, and no answers

conf('hasty', 'worker_shutdown_timeout 1s;', '60s');
@clients = map { [ $_, waiting($_, 'never', 'hasty') ] } @SERVED;

my $begin = time();
ok($t->reload('hasty'), 'ASYNC E8 reload');
ok($_->[1]->wait_close(5), cell($_->[0], 'E8', 'closed')) for @clients;
$async->old_gone('hasty', 'ASYNC E8');
cmp_ok(time() - $begin, '<', 5, 'ASYNC E8 in time');

steady('at the end');
$async->complete('A12');
$t->stop($_) for qw(main reload hasty);
$fake->stop();
$t->done();
