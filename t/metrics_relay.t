#!/usr/bin/perl

# What relays are asked and how they answer, as policy_status counts it: each
# try comes to one thing, or, where the client or the edge ends it, to none;
# connections made, used again, kept; and the time that was spent waiting for
# the relay alone.  Likewise policy servers.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use JSON::PP ();
use Test::More;
use Time::HiRes qw(sleep);

use MailPolicy;
use MailPolicy::PolicyServer;

my $t = MailPolicy->new();
my %relay = map { $_ => $t->run_relay(name => $_,
    users => { 'alice@example.com' => 'pass-of-alice' }) } qw(a b);

my $service = MailPolicy::PolicyServer->new(dir => $t->dir(), name => 'spf',
    port => $t->port('spf'));
push @{ $t->{servers} }, $service;

$t->conf(<<'EOC');
worker_processes  1;

mail {
    server_name            edge.example.com;
    access_log             %%DIR%%/access.log;
    policy                 on;
    policy_auth            off;
    policy_auth_plaintext  on;
    proxy_auth_plaintext   on;
    policy_auth_delay      0;
    proxy_timeout          500ms;
    proxy_next_upstream    error timeout invalid_response setup 421;

    upstream group {
        server  127.0.0.1:%%PORT_a%%  weight=1000 max_fails=0;
        server  127.0.0.1:%%PORT_b%%  backup;
    }

    upstream kept {
        server     127.0.0.1:%%PORT_a%%  max_fails=0;
        keepalive  4;
    }

    upstream checked {
        server        127.0.0.1:%%PORT_a%%;
        health_check  interval=100ms timeout=300ms;
    }

    upstream login { server 127.0.0.1:%%PORT_a%%; }
    upstream slow  { server 127.0.0.1:%%PORT_a%%; }
    upstream named { server 127.0.0.1:%%PORT_a%%; }

    map $recipient_domain $by_recipient {
        at.example  127.0.0.1:%%PORT_b%%;
        default     named;
    }

    server { listen 127.0.0.1:%%PORT_group%%; protocol smtp;
             proxy_pass group; }
    server { listen 127.0.0.1:%%PORT_kept%%;  protocol smtp;
             proxy_pass kept; }
    server { listen 127.0.0.1:%%PORT_slow%%;  protocol smtp;
             proxy_pass slow; proxy_timeout 5s; }
    server { listen 127.0.0.1:%%PORT_login%%; protocol smtp;
             proxy_pass login; policy_auth relay; }
    server { listen 127.0.0.1:%%PORT_lazy%%;  protocol smtp;
             proxy_pass $by_recipient; }

    server { listen 127.0.0.1:%%PORT_theirs%%; protocol smtp;
             proxy_pass $recipient_domain:%%PORT_a%%; }

    server {
        listen          127.0.0.1:%%PORT_asks%%;
        protocol        smtp;
        proxy_pass      checked;
        policy_service  inet:127.0.0.1:%%PORT_spf%% timeout=300ms;
    }
}

http {
    server {
        listen  127.0.0.1:%%PORT_http%%;

        location / {
            policy_status  json;
        }
    }
}
EOC
$t->run_nginx();

# relays are lost, and a worker is

$t->allow(qr/\[error\]/, qr/\[alert\].*exited on signal 9/);

my @FIELDS = qw(tries failures accepted deferred rejected connects reused);


sub status {
    return JSON::PP->new()->utf8()->decode($t->http_get('http', '/'));
}


sub peer {
    my ($group, $name) = @_;

    my $status = status();
    my $address = '127.0.0.1:' . $t->port($name);

    my @found = grep { $_->{address} eq $address }
        map({ @{ $_->{peers} } } grep { $_->{name} eq $group }
            @{ $status->{upstreams} }),
        grep { $_->{upstream} eq $group } @{ $status->{other_relays} };

    return $found[0] // {};
}


my %before;

# what was counted of it since the last time; all are 0 at the start

sub since {
    my ($group, $name) = @_;

    my $now = peer($group, $name);
    my $before = $before{"$group $name"} // {};
    $before{"$group $name"} = $now;

    return join(' ', map { ($now->{$_} // 0) - ($before->{$_} // 0) }
        @FIELDS);
}


sub all {
    my ($c, @commands) = @_;

    return join(' ', map { substr($c->cmd($_) // '', 0, 3) } @commands);
}


sub message {
    my ($where, @rcpts) = @_;

    my $c = $t->session($where);
    my @replies = $c->send_mail('s@example.com',
        [ @rcpts ? @rcpts : 'r@example.net' ], "Subject: x\n\nx\n");
    $c->quit();
    return join(' ', map { substr($_, 0, 3) } @replies);
}


# the same while a is told to misbehave

sub while_a {
    my ($stage) = @_;

    $relay{a}->set(%$stage);
    my $codes = message('group', 'bad@example.net', 'r@example.net');
    $relay{a}->set(map { $_ => undef } keys %$stage);
    return $codes;
}


# each way that a try can end: of a, and of b where it is asked instead

is(peer('group', 'a')->{tries}, 0, 'there from the start');

my $MORE = '1 0 1 0 0 1 0';
my $NONE = '0 0 0 0 0 0 0';
my $bad = sub { { match => 'bad', action => $_[0] } };

for my $case (
    #                               tries failures 2xx 4xx 5xx connects reused
    [ {},                                     '1 0 1 0 0 1 0', $NONE ],
    [ { rcpt => $bad->('550 5.1.1 no') },     '1 0 1 0 0 1 0', $NONE ],
    [ { rcpt => '550 5.1.1 no' },             '1 0 0 0 1 1 0', $NONE ],
    [ { rcpt => '450 4.2.1 later' },          '1 0 0 1 0 1 0', $NONE ],
    [ { mail => '451 4.3.0 later' },          '1 0 0 1 0 1 0', $NONE ],
    [ { mail => '554 5.7.1 no' },             '1 0 0 0 1 1 0', $NONE ],
    [ { data => '452 4.3.1 full' },           '1 0 0 1 0 1 0', $NONE ],
    [ { dot => '451 4.3.0 later' },           '1 0 0 1 0 1 0', $NONE ],
    [ { dot => '421 4.3.2 going' },           '1 0 0 1 0 1 0', $NONE ],
    [ { dot => '554 5.6.0 spam' },            '1 0 0 0 1 1 0', $NONE ],
    [ { body => { after => 3, action => '552 5.3.4 no' } },
                                              '1 0 0 0 1 1 0', $NONE ],
    [ { dot => 'close' },                     '1 1 0 0 0 1 0', $NONE ],
    [ { dot => 'rst' },                       '1 1 0 0 0 1 0', $NONE ],
    [ { data => 'close' },                    '1 1 0 0 0 1 0', $NONE ],
    [ { rcpt => $bad->('close') },            '1 1 0 0 0 1 0', $NONE ],
    [ { mail => 'close' },                    '1 1 0 0 0 1 0', $MORE ],
    [ { mail => 'garbage' },                  '1 1 0 0 0 1 0', $MORE ],
    [ { mail => '421 4.3.2 going' },          '1 0 0 1 0 1 0', $MORE ],
    [ { ehlo => 'hang' },                     '1 1 0 0 0 1 0', $MORE ],
    [ { greeting => '554 5.3.2 never' },      '1 1 0 0 0 1 0', $MORE ],
    [ { greeting => '421 4.3.2 going' },      '1 1 0 0 0 1 0', $MORE ],
    [ { connect => 'refuse' },                '1 1 0 0 0 0 0', $MORE ],
) {
    my ($stage, $a, $b) = @$case;
    my $name = JSON::PP->new()->canonical()->encode($stage);
    my $codes = while_a($stage);

    is(since('group', 'a'), $a, "$name: tries and what they came to, $codes");
    is(since('group', 'b'), $b, "$name: and of the next one");
}


# what the client ends

my $c = $t->session('group');
is(all($c, 'MAIL FROM:<s@example.com>', 'RCPT TO:<r@example.net>', 'RSET'),
    '250 250 250', 'RSET');
is(since('group', 'a'), '1 0 0 0 0 1 0', 'neither a failure nor a reply');

is(all($c, 'MAIL FROM:<s@example.com>', 'RCPT TO:<r@example.net>', 'DATA'),
    '250 250 354', 'the same connection');
is(since('group', 'a'), '1 0 0 0 0 0 1', 'is one used again');
$c->send_raw("half a mess");
$c->close();
ok($t->wait_for(sub { $t->read_file('access.log')
    =~ /"aborted"[^\n]*\n\z/ }), 'the client goes');
is(since('group', 'a'), $NONE, 'that is no failure either');

# chunks

$c = $t->session('group');
is(all($c, 'MAIL FROM:<s@example.com>', 'RCPT TO:<r@example.net>'), '250 250',
    'MAIL, RCPT');
$c->send_raw("BDAT 3\r\nx\r\nBDAT 3 LAST\r\ny\r\n");
is(substr($c->read_reply(), 0, 3) . substr($c->read_reply(), 0, 3), '250250',
    'BDAT');
$c->quit();
is(since('group', 'a'), '1 0 1 0 0 1 0', 'BDAT');


# kept ones: used again, closed by the relay, lost with it

is(message('kept'), '250 250 354 250', 'one');
ok($t->wait_for(sub { status()->{kept_connections} == 1 }), 'one is kept');
is(message('kept'), '250 250 354 250', 'another');
is(since('kept', 'a'), '2 0 2 0 0 1 1', 'by the same connection');
is(status()->{kept_connections}, 1, 'which is still kept');

$relay{a}->set(mail => { times => 1, action => 'close' });
is(message('kept'), '250 250 354 250', 'one that was closed');
is(since('kept', 'a'), '1 0 1 0 0 1 1', 'is one try, and no failure');
$relay{a}->set(mail => undef);

$c = $t->session('kept');
is(all($c, 'MAIL FROM:<s@example.com>'), '250', 'one is used');
is(status()->{kept_connections}, 0, 'and not kept now');
$c->quit();
ok($t->wait_for(sub { status()->{kept_connections} == 1 }), 'kept again');

ok($t->reload(), 'reload');
ok($t->wait_for(sub { status()->{kept_connections} == 0 }),
    'the old worker keeps none');
is(since('kept', 'a'), '1 0 0 0 0 0 1', 'the counters stay');

is(message('kept'), '250 250 354 250', 'one more');
ok($t->wait_for(sub { status()->{kept_connections} == 1 }), 'kept');
kill('KILL', $t->worker_pids());
ok($t->wait_for(sub { eval { status()->{kept_connections} == 0 } }),
    'nor does one that was killed');
is(since('kept', 'a'), '1 0 1 0 0 1 0', 'the counters stay');

is(message('kept'), '250 250 354 250', 'one more');
ok($t->wait_for(sub { status()->{kept_connections} == 1 }), 'kept');
$relay{a}->stop();
ok($t->wait_for(sub { status()->{kept_connections} == 0 }),
    'the relay is killed');
$relay{a}->start();


# logins and health checks are no tries

$relay{a}->set(extensions => [ 'PIPELINING', 'AUTH PLAIN' ]);
$c = $t->session('login');
like($c->auth_plain('alice@example.com', 'wrong'), qr/^535 /, 'a login');
like($c->auth_plain('alice@example.com', 'pass-of-alice'), qr/^235 /,
    'another');
$c->quit();
is(since('login', 'a'), '0 0 0 0 0 2 0', 'connections, and no tries');
is(since('checked', 'a'), $NONE, 'health checks are neither');


# groups that nobody has defined, and addresses that were never asked

is(message('lazy', 'r@at.example'), '250 250 354 250', 'an address');
my $address = '127.0.0.1:' . $t->port('b');
is(since($address, 'b'), $MORE, 'is counted as one');
is(since('named', 'a'), $NONE, 'not the other one');


# clients that have a say in what relays are called

for my $third (1 .. 3) {
    $c = $t->session('theirs');
    $c->pipeline(map { ('MAIL FROM:<s@example.com>',
        "RCPT TO:<r\@127.1.$third.$_>", 'RSET') } 1 .. 100);
    $c->quit();
}

my @others = @{ status()->{other_relays} };
my ($rest) = grep { $_->{upstream} eq 'other' } @others;
cmp_ok(scalar(@others), '<=', 128, 'OUT-8 no end of names is made by them');
cmp_ok($rest->{tries}, '>=', 300 - @others, 'OUT-8 the others are one');


# time: the relay's, and not the client's

$relay{a}->set(dot => { delay => 0.3, then => 'ok' });
$c = $t->session('slow');
for ('MAIL FROM:<s@example.com>', 'RCPT TO:<r@example.net>', 'DATA') {
    like($c->cmd($_), qr/^(?:250|354) /, $_);
    sleep(0.3);
}
like($c->cmd("x\r\n."), qr/^250 /, 'a slow client, and a relay that is slow');
$c->quit();
$relay{a}->set(dot => undef);

my $seconds = peer('slow', 'a')->{seconds};
cmp_ok($seconds, '>=', 0.3, 'what the relay has taken');
cmp_ok($seconds, '<', 0.6, 'and not the client');


# policy servers

sub service { return status()->{services}[0] }

is(service()->{passed}, 0, 'a policy server');
is(service()->{name}, 'inet:127.0.0.1:' . $t->port('spf'), 'by its name');

$service->set({ recipient => qr/^no/, answer => 'REJECT no' },
    { recipient => qr/^later/, answer => 'DEFER_IF_PERMIT later' },
    { recipient => qr/^odd/, answer => 'MAYBE' },
    { recipient => qr/^silent/, then => 'hang' },
    { recipient => qr/^slow/, delay => 0.1, answer => 'DUNNO' });

message('asks', "$_\@example.net") for qw(a slow no later odd silent);

my $counted = service();
is(join(' ', @$counted{qw(passed refused default)}), '2 2 2',
    'answers, refusals, and what default_action decides');
cmp_ok($counted->{seconds}, '>=', 0.025, 'the time of answers');
cmp_ok($counted->{seconds}, '<', 0.2, 'of nothing else');

$t->done(faults => 0);
