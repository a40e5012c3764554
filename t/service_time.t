#!/usr/bin/perl

# What takes minutes: how long connections to a server of "policy_service"
# are kept, and how often the log tells of its failures.  nginx' clock is
# ahead of ours.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Test::More;

use MailPolicy;
use MailPolicy::FailAlloc;
use MailPolicy::PolicyServer;
use MailPolicy::Process qw(spawn wait_exit);

my $t = MailPolicy->new();

my $impossible = MailPolicy::FailAlloc::impossible($t);
plan(skip_all => $impossible) if $impossible;

my $library = $t->dir() . '/Clock.so';
my $status = wait_exit(spawn("$library.log", 'gcc', '-O1', '-g', '-Wall',
    '-Wextra', '-Werror', '-shared', '-fPIC', '-o', $library,
    $t->root() . '/tests/lib/MailPolicy/Clock.c', '-ldl'), 60);
die $t->read_file("$library.log") if !defined $status || $status != 0;

$t->run_relay(name => 'relay');

my $server = MailPolicy::PolicyServer->new(dir => $t->dir(), name => 'spf',
    port => $t->port('spf'), handler => sub {
        my ($socket, $request) = @_;

        MailPolicy::PolicyServer::answer($socket,
            $request->{recipient} =~ /^bad/ ? 'MAYBE' : 'DUNNO');
        return 1;
    });

push @{ $t->{servers} }, $server;

$t->conf(<<'EOF');
mail {
    policy          on;
    policy_auth     off;
    proxy_pass      127.0.0.1:%%PORT_relay%%;
    policy_service  inet:127.0.0.1:%%PORT_spf%%;

    server {
        listen    127.0.0.1:%%PORT_edge%%;
        protocol  smtp;
    }
}
EOF

my $now = 0;

later(0);

{
    local $ENV{LD_PRELOAD} = $library;
    local $ENV{MAIL_POLICY_CLOCK} = $t->dir() . '/clock';

    $t->run_nginx();
}


# in place: it is mapped

sub later {
    my ($seconds) = @_;

    my $file = $t->dir() . '/clock';

    open(my $fh, -e $file ? '+<:raw' : '>:raw', $file) or die "$file: $!\n";
    syswrite($fh, pack('q', $now += $seconds));
    close($fh);

    # an event, so that it looks at its clock
    $t->session('edge')->quit() if $seconds;
}


sub rcpt {
    my ($name) = @_;

    my $c = $t->session('edge');

    $c->cmd('MAIL FROM:<alice@example.com>');

    my $reply = $c->cmd("RCPT TO:<$name\@example.net>");

    $c->quit();
    return $reply;
}


my $OK = qr/^250 2\.1\.5 /;

# 300 s without a question

like(rcpt('bob'), $OK, 'idle: answered');
later(295);
like(rcpt('bob'), $OK, 'idle: 295 s later');
is($server->connections(), 1, 'idle: over the same connection');
is($server->ended(), 0, 'idle: which is not closed');

later(301);
ok($t->wait_for(sub { $server->ended() == 1 }), 'idle: 301 s later it is');
like(rcpt('bob'), $OK, 'idle: answered');
is($server->connections(), 2, 'idle: over another one');

# 1000 s, however busy it is

for (1 .. 3) {
    later(250);
    like(rcpt('bob'), $OK, "old: after $_ times 250 s");
    is($server->connections(), 2, 'old: over the same connection');
}

later(251);
ok($t->wait_for(sub { $server->ended() == 2 }), 'old: then it is closed');
like(rcpt('bob'), $OK, 'old: answered');
is($server->connections(), 3, 'old: over another one');

# failures

my $first = qr/\[error\].*answered with what is no action: "action=MAYBE/;
my $more = qr/\[error\].*more failures of policy service "inet:[^"]*": 4, /;

sub told { return scalar(() = $t->error_log() =~ /$_[0]/g) }

like(rcpt('bad'), qr/^451 4\.3\.5 /, 'failures: default_action') for 1 .. 5;
is(told($first), 1, 'failures: the first is told at once');
is(told($more), 0, 'failures: the others are not');

later(61);
ok($t->wait_for(sub { told($more) }), 'failures: after a minute they are');
rcpt('bad');
is(told($first), 1, 'failures: and the next is counted');
later(61);
ok($t->wait_for(sub { told(qr/more failures of policy service .*: 1, /) }),
    'failures: and told after a minute');
later(61);
rcpt('bad');
is(told($first), 2, 'failures: after a minute without, at once again');
rcpt('bad') for 1 .. 2;

is($t->stop(), 0, 'stopped');
is(told(qr/more failures of policy service .*: 2, /), 1,
    'failures: the rest is told at the end');

$t->done();
