#!/usr/bin/perl

# Connections to relays that are kept for other sessions: how many, for how
# many transactions, for how long; and that a session which does not need its
# connection does not hold it.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Test::More;
use Time::HiRes qw(sleep time);

use MailPolicy;

my $t = MailPolicy->new();
my $relay = $t->run_relay(name => 'relay');
my $other = $t->run_relay(name => 'other');

my %GROUP = (
    off      => '',
    one      => 'keepalive 1;',
    two      => 'keepalive 2;',
    requests => 'keepalive 4; keepalive_requests 3;',
    time     => 'keepalive 4; keepalive_time 3s;',
    timeout  => 'keepalive 4; keepalive_timeout 2s;',
    pair     => 'server 127.0.0.1:%%PORT_other%%; keepalive 4;',
);

my $groups = join('', map { "    upstream $_ { server 127.0.0.1:%%PORT_relay%%;"
    . " $GROUP{$_} }\n" } sort keys %GROUP);

my $servers = join('', map { <<"EOF_SERVER" } sort keys %GROUP);
    server {
        listen      127.0.0.1:%%PORT_$_%%;
        protocol    smtp;
        proxy_pass  $_;
    }
EOF_SERVER

$t->conf(<<"EOF_CONF");
mail {
    server_name    edge.example.com;
    access_log     %%DIR%%/access.log;
    policy         on;
    policy_auth    off;
    proxy_timeout  20s;

$groups
$servers
    server {
        listen      127.0.0.1:%%PORT_twin%%;
        protocol    smtp;
        proxy_pass  two;
    }
}
EOF_CONF
$t->run_nginx();


sub message {
    my ($c, $to) = @_;

    return join(' ', map { substr($_, 0, 3) } $c->send_mail('s@example.com',
        [ $to // 'r@example.net' ], "x\n"));
}


# messages, each in a session of its own: how many connections that took

sub sessions {
    my ($where, $count) = @_;

    my $before = total();

    for (1 .. $count) {
        my $c = $t->session($where);
        is(message($c), '250 250 354 250', "$where: accepted");
        $c->quit();
    }

    return total() - $before;
}


sub total { return $relay->stats()->{total} + $other->stats()->{total} }
sub left  { return $relay->stats()->{open} }

sub closed {
    my ($name) = @_;

    ok($t->wait_for(sub { left() == 0 }), "$name: nothing is left");
}


is(sessions('off', 3), 3, 'without keepalive: one connection a session');
closed('without keepalive');

is(sessions('one', 5), 1, 'one connection for five sessions');
is(left(), 1, 'it is kept');
is_deeply([ grep { /^(?:EHLO|XCLIENT|RSET|NOOP)/ }
    @{ ($relay->messages())[-1]{commands} } ], [],
    'nothing is said before MAIL');

# two at the same time

my @clients = map { $t->session('two') } 1 .. 3;
$_->cmd('MAIL FROM:<s@example.com>') for @clients;
is(left(), 4, 'as many as there are transactions');
$_->quit() for @clients;
ok($t->wait_for(sub { left() == 3 }), 'of three two are kept');
is(sessions('two', 2), 0, 'and used again');
is_deeply([ ($relay->transcripts())[-1] =~ /^C: (RSET|QUIT)/mg ],
    [ 'RSET' ], 'RSET, as a transaction had begun');

is(sessions('twin', 1), 1, 'not for another server {}');

# directives

is(sessions('requests', 7), 3, 'keepalive_requests 3');
is(sessions('time', 2), 1, 'keepalive_time: not yet');
sleep(3.1);
is(sessions('time', 1), 0, 'keepalive_time: for the last time');
is(sessions('time', 1), 1, 'keepalive_time: it is too old now');
is(sessions('timeout', 2), 1, 'keepalive_timeout: used again');
my $before = left();
ok($t->wait_for(sub { left() == $before - 1 }), 'keepalive_timeout: closed');
like(join("\n", $relay->transcripts()), qr/^C: QUIT\n/m, 'with QUIT');
is(sessions('timeout', 1), 1, 'keepalive_timeout: a new one');

$relay->set(extensions => [ 'PIPELINING', 'LIMITS MAILMAX=2' ]);
$relay->stop();
$relay->start();
is(sessions('one', 5), 3, 'RFC 9422 the relay takes two transactions');
$relay->set(extensions => [ 'PIPELINING' ]);

# what is balanced is not changed by what is kept

sessions('pair', 6);
is($other->stats()->{messages}, 3, 'each relay of a group has its part');
is($other->stats()->{total}, 1, 'by one connection');

# a session that goes on without mail

my $c = $t->session('two');
message($c);
$before = total();
message($c);
is(total() - $before, 0, 'a session has its own');
sleep(1.2);
is(sessions('two', 1), 0, 'and leaves it to others when it does not need it');
is(message($c), '250 250 354 250', 'and gets it back');
is(total() - $before, 0, 'all that by one connection');
$c->quit();

# not one that is in the middle of a message, or that said too much

for my $case ([ 'body', sub { $_[0]->cmd('DATA'); $_[0]->send_raw("x\r\n") } ],
    [ 'DATA', sub { $_[0]->send_raw("DATA\r\n"); sleep(0.1) } ])
{
    my ($name, $sub) = @$case;

    $relay->set(data => { delay => 0.5, then => 'ok' }) if $name eq 'DATA';
    $c = $t->session('two');
    $c->cmd('MAIL FROM:<s@example.com>');
    $c->cmd('RCPT TO:<r@example.net>');
    $before = left();
    $sub->($c);
    $c->close();
    ok($t->wait_for(sub { left() == $before - 1 }),
        "a client that goes, $name: the connection is cut");
    $relay->set(data => undef);
}

$relay->set(dot => { send => "250 2.0.0 Ok\r\n250 2.0.0 Ok\r\n" });
sessions('two', 1);
$relay->set(dot => undef);
is(sessions('two', 1), 1, 'a reply that nobody has asked for: not used again');

$t->stop();
closed('nginx stops');
$t->done();
