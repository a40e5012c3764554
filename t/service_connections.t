#!/usr/bin/perl

# Connections to a server of "policy_service": they are kept and used again,
# not more than there may be, to each address that the server has; and one
# that restarts, or is not there, is asked once more.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use IO::Socket::IP;
use Socket qw(SOCK_STREAM);
use Test::More;
use Time::HiRes qw(sleep time);

use MailPolicy;
use MailPolicy::PolicyServer;

my $t = MailPolicy->new();

$t->run_relay(name => 'relay');

my %server;


# a recipient says what is done: slow_N waits N tenths of a second

sub server {
    my ($name, %option) = @_;

    my $server = $server{$name} = MailPolicy::PolicyServer->new(
        dir => $t->dir(), name => $name, port => $t->port($name), %option,
        handler => \&talk);

    push @{ $t->{servers} }, $server;
    return $server;
}


sub talk {
    my ($socket, $request) = @_;
    my ($name) = $request->{recipient} =~ /^(\w+)\@/;

    sleep($1 / 10) if $name =~ /^slow_(\d+)/;
    MailPolicy::PolicyServer::answer($socket, 'DUNNO');

    if ($name eq 'later') {
        sleep(0.2);
        MailPolicy::PolicyServer::answer($socket, 'REJECT');
    }

    return $name ne 'last';
}


# a port that takes connections, and nothing else ever happens

my $silent = IO::Socket::IP->new(LocalHost => '127.0.0.1', LocalPort => 0,
    Type => SOCK_STREAM, Listen => 5);
my $SILENT = $silent->sockport();

my @CASES = (
    [ tcp      => 'inet:127.0.0.1:%%PORT_one%%' ],
    [ unix     => 'unix:%%DIR%%/two.socket' ],
    [ name     => 'inet:localhost:%%PORT_three%% timeout=10s' ],
    [ late     => 'inet:127.0.0.1:%%PORT_four%% timeout=10s' ],
    [ few      => 'inet:127.0.0.1:%%PORT_five%% connections=2' ],
    [ refused  => 'inet:127.0.0.1:%%PORT_nobody%% timeout=10s' ],
    [ open     => 'inet:127.0.0.1:%%PORT_nobody%% timeout=500ms (?#
        )default_action=OK' =~ s/\(\?#\s*\)//r ],
    [ missing  => 'unix:%%DIR%%/nobody.socket timeout=10s' ],
    [ silent   => "inet:127.0.0.1:$SILENT timeout=1s" ],
    [ narrow   => "inet:localhost:$SILENT timeout=1s connections=1" ],
    [ dark     => "inet:198.51.100.1:10023 timeout=1s" ],
);

$t->conf(<<"EOF");
mail {
    server_name   edge.example.com;
    policy        on;
    policy_auth   off;
    max_errors    1000;
    proxy_pass    127.0.0.1:%%PORT_relay%%;

@{[ map { <<"END" } @CASES ]}
    server {
        listen          127.0.0.1:%%PORT_$_->[0]%%;
        protocol        smtp;
        policy_service  $_->[1];
    }
END
}
EOF

my $LATER = '451 4.3.5 Server configuration problem';
my $OK = qr/^250 2\.1\.5 /;

server('one');
server('two', path => $t->dir() . '/two.socket');
server('three');
server('five');

$t->run_nginx();


sub begin {
    my $c = $t->session($_[0]);

    $c->cmd('MAIL FROM:<alice@example.com>');
    return $c;
}


sub rcpt { return $_[0]->cmd("RCPT TO:<$_[1]\@example.net>") }

sub ask { $_[0]->send_raw("RCPT TO:<$_[1]\@example.net>\r\n") }

sub again { return scalar(() = $t->error_log() =~ /it is asked again/g) }

sub errors { return scalar(() = $t->error_log() =~ /\[error\]/g) }


# one connection for one message after the other, of any session

for my $case ([ tcp => 'one' ], [ unix => 'two' ], [ name => 'three' ]) {
    my ($where, $name) = @$case;
    my $server = $server{$name};

    for my $session (1 .. 3) {
        my $c = begin($where);

        is((() = grep { rcpt($c, "user_$_") =~ $OK } 1 .. 5), 5,
            "$where: session $session is answered");
        $c->quit();
    }

    is($server->connections(), 1, "$where: one connection has been used");
    is($server->texts(), 15, "$where: for all questions");

    # two at a time are two
    my ($one, $other) = map { begin($where) } 1 .. 2;

    ask($one, 'slow_4');
    ok($t->wait_for(sub { $server->texts() == 16 }), "$where: one is asked");
    like(rcpt($other, 'fast'), $OK, "$where: another does not wait for it");
    like($one->read_reply(), $OK, "$where: nor is the first one forgotten");
    is($server->connections(), 2, "$where: two at a time are two");
    $_->quit() for $one, $other;

    # it restarts: kept connections are gone, and nobody notices
    $server->stop();
    $server->start();

    my $c = begin($where);

    like(rcpt($c, 'after'), $OK, "$where: restarted: is answered");
    is(again(), 0, "$where: restarted: at once");
    is($server->connections(), 3, "$where: restarted: by a new connection");

    # it closes one, and another says more than it was asked
    like(rcpt($c, 'last'), $OK, "$where: closed: is answered");
    like(rcpt($c, 'next'), $OK, "$where: closed: and goes on");
    is($server->connections(), 4, "$where: closed: by a new one");

    like(rcpt($c, 'later'), $OK, "$where: unasked: is answered");
    sleep(0.4);
    like(rcpt($c, 'next'), $OK, "$where: unasked: is no answer to the next");
    is($server->connections(), 5, "$where: unasked: the connection is not");
    $c->quit();
}

is(errors(), 0, 'there is no error until here');

# it comes up within a second

my $c = begin('late');
my $begin = time();

ask($c, 'bob');
ok($t->wait_for(sub { $t->error_log() =~ /"inet:127[^"]*" cannot be (?#
    )connected to, it is asked again/ }), 'late: is asked again');
server('four');
like($c->read_reply(), $OK, 'late: and answered then');
cmp_ok(time() - $begin, '>', 0.9, 'late: after a second');
is(errors(), 0, 'late: that is no error');
$c->quit();

# it does not come up: one second, and default_action

for my $where (qw(refused missing)) {
    my $c = begin($where);
    my $begin = time();

    is(rcpt($c, 'bob'), $LATER, "$where: default_action");
    cmp_ok(time() - $begin, '>', 0.9, "$where: asked again after a second");
    cmp_ok(time() - $begin, '<', 3, "$where: and no more");
    $c->quit();
}

is((() = $t->error_log() =~ /\[error\].*default_action is taken \(111: /g), 1,
    'refused: the log says why');
is((() = $t->error_log() =~ /\[error\].*default_action is taken \(2: /g), 1,
    'missing: the log says why');

my $again = again();

$c = begin('open');
like(rcpt($c, 'bob'), $OK, 'open: no time for that: passes');
is(again(), $again, 'open: at once');
$c->quit();

# it does not answer, or cannot be reached, or nothing comes of it

for my $where (qw(silent dark)) {
    my $c = begin($where);
    my $begin = time();

    is(rcpt($c, 'bob'), $LATER, "$where: default_action");
    cmp_ok(time() - $begin, '<', 2, "$where: in time");
    $c->quit();
}

# more questions than connections

my $five = $server{five};
my @many = map { begin('few') } 1 .. 8;

$begin = time();

for my $i (0 .. $#many) {
    ask($many[$i], "slow_2_$i");
    $i < 2 ? $t->wait_for(sub { $five->texts() > $i }) : sleep(0.02);
}

is((() = grep { $_->read_reply() =~ $OK } @many), 8, 'few: all are answered');
is($five->connections(), 2, 'few: by two connections');
cmp_ok(time() - $begin, '>', 0.7, 'few: two at a time');

is_deeply([ sort map { $_->{recipient} =~ /_(\d)\@/ } ($five->requests())
        [2, 3] ], [ 2, 3 ], 'few: those who came first are asked first');

# some of them go away while they wait

ask($_, 'slow_5') for @many;
ok($t->wait_for(sub { $five->texts() == 10 }), 'few: all wait again');
$_->close() for @many[0 .. 6];
like($many[7]->read_reply(), $OK, 'few: the last one has not been forgotten');
$many[7]->quit();

# there is none within the time

@many = map { begin('narrow') } 1 .. 3;
$begin = time();
ask($_, 'bob') for @many;
is((() = grep { $_->read_reply() eq $LATER } @many), 3, 'narrow: all hear it');
cmp_ok(time() - $begin, '<', 2.5, 'narrow: in time');
like($t->error_log(), qr/had no free connection in time, default_action is /,
    'narrow: the log says why');
$_->quit() for @many;

$t->done();
