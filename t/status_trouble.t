#!/usr/bin/perl

# What the page of policy_status says is wrong, and what it does not: relays,
# Redis, lines of the log that are lost, refusals and logins that surge.
# nginx' clock is ahead of ours.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Test::More;

use MailPolicy;
use MailPolicy::FailAlloc;
use MailPolicy::Process qw(spawn wait_exit);

my $t = MailPolicy->new();

my $impossible = MailPolicy::FailAlloc::impossible($t);
plan(skip_all => $impossible) if $impossible;

my $library = $t->dir() . '/Clock.so';
my $status = wait_exit(spawn("$library.log", 'gcc', '-O1', '-g', '-Wall',
    '-Wextra', '-Werror', '-shared', '-fPIC', '-o', $library,
    $t->root() . '/tests/lib/MailPolicy/Clock.c', '-ldl'), 60);
die $t->read_file("$library.log") if !defined $status || $status != 0;

my $redis = $t->run_redis();
my $relay = $t->run_relay(name => 'relay');

$t->write_file('users', 'alice@example.com:'
    . $t->crypt('secret', '$5$rounds=1000$mailpolicy$') . "\n");

$t->conf(<<'EOF');
http {
    server {
        listen  127.0.0.1:%%PORT_http%%;

        location / {
            policy_status  html;
        }
    }
}

mail {
    server_name            edge.example.com;
    policy_redis           redis://127.0.0.1:%%PORT_redis%% connections=1;
    policy_auth_plaintext  on;
    policy_auth_delay      0;
    policy_limit           client  key=$client_net  messages=100000/1h;
    max_errors             1000;

    upstream outbound {
        server  127.0.0.1:%%PORT_relay%%;
        server  127.0.0.1:%%PORT_gone%%  max_fails=1 fail_timeout=9000s;
        server  127.0.0.1:%%PORT_off%%   down;
    }

    upstream alone {
        server  127.0.0.1:%%PORT_relay%%  max_conns=1;
    }

    server {
        listen       127.0.0.1:%%PORT_edge%%;
        protocol     smtp;
        policy       on;
        policy_auth  off;
        proxy_pass   outbound;
    }

    server {
        listen       127.0.0.1:%%PORT_alone%%;
        protocol     smtp;
        policy       on;
        policy_auth  file:%%DIR%%/users;
        proxy_pass   alone;
    }

    server {
        listen       127.0.0.1:%%PORT_full%%;
        protocol     smtp;
        policy       on;
        policy_auth  off;
        proxy_pass   outbound;
        access_log   /dev/full  json;
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

ok($t->wait_for(sub { verdict() eq 'All is well' }), 'all is well')
    or diag(verdict());


# relays

mail('edge') for 1 .. 2;
is(verdict(), '1 of 3 relays of outbound is ill', 'a relay does not answer');
like(trouble(), qr/127\.0\.0\.1:${\ $t->port('gone') } \(failed\)\./,
    'which one');
unlike(trouble(), qr/${\ $t->port('off') }/,
    'one that is down as it was written is no trouble');

my $busy = $t->session('alone');
like($busy->auth_plain('alice@example.com', 'secret'), qr/^235/, 'a login');
like($busy->cmd('MAIL FROM:<a@example.com>'), qr/^250/, 'a relay is full');
is(verdict(), 'No relay of alone can be used, and 1 more', 'that comes first');
like(trouble(), qr/class=bad>.*alone.*\(busy\).*class=warn>.*outbound/s,
    'in what way');
$busy->quit();
ok($t->wait_for(sub { verdict() =~ /^1 of 3/ }), 'it has room again');


# a surge: what is usual is none

refusals(10);
logins(10);
later(10);
later(1200);
refusals(29);
is(verdict(), '1 of 3 relays of outbound is ill', 'some refusals are none');
refusals(1);
is(verdict(), '1 of 3 relays of outbound is ill, and 1 more', 'a surge');
like(trouble(), qr/Refusals surge.* 30 in the last 5 minutes; before that, \d in/s,
    'of so many');
logins(40);
like(trouble(), qr/href="#logins">Refused logins surge/, 'and one of logins');
refusals(200);
later(10);
later(600);
unlike(trouble(), qr/surge/, 'ten minutes later there is none');
refusals(40);
unlike(trouble(), qr/surge/, 'nor is it one if it was so before');


# Redis

my $late = $t->session('edge');
$redis->signal('STOP');
$late->send_mail('a@example.com', [ 'bob@example.com' ], "x\n");
ok($t->wait_for(sub { trouble() =~ /Redis is away.*does not answer/s }),
    'Redis is away');
ok($t->wait_for(sub { trouble() =~ /left questions unanswered/ }),
    'and has left a question unanswered');
$redis->signal('CONT');
ok($t->wait_for(sub { trouble() !~ /is away/ }), 'it is back');
like(trouble(), qr/left questions unanswered.* [1-9]\d* in the last hour/s,
    'what it left is remembered');
$late->quit();


# the log

mail('full');
like(trouble(), qr/Lines of the access log were lost.* 1 in the last hour/s,
    'a line is lost');
later(10);
later(3700);
later(10);
unlike(trouble(), qr/lost|unanswered/, 'an hour later it is no trouble');
like($t->http_get('http', '/'), qr/id=total-log-lost>1\b/, 'but counted');

$t->allow(qr/\[error\].*connect\(\) failed/, qr/No space left|\/dev\/full/,
    qr/Redis|redis/);
$t->done();


# in place: it is mapped

sub later {
    my ($seconds) = @_;

    my $file = $t->dir() . '/clock';

    open(my $fh, -e $file ? '+<:raw' : '>:raw', $file) or die "$file: $!\n";
    syswrite($fh, pack('q', $now += $seconds));
    close($fh);

    return if !$seconds;

    # an event, so that it looks at its clock, and one behind its timers
    $t->session('edge')->quit() for 1 .. 2;
}


sub mail {
    my ($where) = @_;

    my $c = $t->session($where);

    $c->send_mail('a@example.com', [ 'bob@example.com' ], "x\n");
    $c->quit();
}


sub refusals {
    my ($n) = @_;

    my $c = $t->session('edge');

    $c->cmd('MAIL FROM:nobody') for 1 .. $n;
    $c->quit();
}


sub logins {
    my ($n) = @_;

    for (1 .. $n) {
        my $c = $t->session('alone');
        $c->auth_plain('alice@example.com', 'guess');
        $c->quit();
    }
}


sub verdict {
    return $t->http_get('http', '/') =~ /<h1[^>]*>(.*?)<\/h1>/s ? $1 : '';
}


sub trouble {
    return $t->http_get('http', '/') =~ /<div id=verdict(.*?)<\/div>/s
        ? $1 : '';
}
