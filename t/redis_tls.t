#!/usr/bin/perl

# Redis behind TLS: the chain and the name of its certificate are verified,
# unless that is switched off; a server that is not the right one is away, and
# the log says why.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use IO::Socket::INET;
use Test::More;
use Time::HiRes qw(sleep time);

use MailPolicy;
use MailPolicy::Limits qw(lasting send_one used);
use MailPolicy::Process qw(fork_server stop_process);

use constant MARGIN => 3;

my $t = MailPolicy->new();
my $relay = $t->run_relay(name => 'relay', store => 0);

$t->certificate('redis', 'redis.example.com');
$t->certificate('other', 'redis.example.com');
$t->certificate('named', 'localhost');

my $tls = $t->run_redis(name => 'tls',
    tls => [ map { $t->dir() . "/redis.$_" } qw(crt key) ]);
my $named = $t->run_redis(name => 'named',
    tls => [ map { $t->dir() . "/named.$_" } qw(crt key) ]);
my $plain = $t->run_redis(name => 'plain');

# the same behind a Sentinel, and as a cluster of one

my $sentinel = $t->run_redis(name => 'sentinel', tls => $tls->{tls},
    sentinel => "sentinel monitor m 127.0.0.1 " . $tls->port() . " 1\n");
my $node = $t->run_redis(name => 'node', tls => $tls->{tls},
    bus => $t->port('bus'));

$node->cmd('CLUSTER', 'ADDSLOTSRANGE', 0, 16383);
$t->wait_for(sub { $node->cmd('CLUSTER', 'INFO') =~ /cluster_state:ok/ });

# no TLS at all

my $listener = IO::Socket::INET->new(LocalAddr => '127.0.0.1',
    LocalPort => $t->port('web'), Listen => 64, ReuseAddr => 1)
    or die "web: $!\n";

my $web = fork_server($t->dir() . '/web.out', [ $listener ], sub {
    while (my $socket = $listener->accept()) {
        sysread($socket, my $hello, 4096);
        syswrite($socket, "HTTP/1.1 400 Bad Request\r\n\r\n");
        close($socket);
    }
});

# takes connections, and says nothing
my $mute = IO::Socket::INET->new(LocalAddr => '127.0.0.1',
    LocalPort => $t->port('silent'), Listen => 64, ReuseAddr => 1)
    or die "mute: $!\n";

my $CA = 'policy_redis_ssl_trusted_certificate %%DIR%%/redis.crt;';

# name, URL, directives, what the log says if it is away

my @cases = (
    [ right => 'rediss://127.0.0.1:%%PORT_tls%%',
        "$CA policy_redis_ssl_name redis.example.com;" ],
    [ address => 'rediss://127.0.0.1:%%PORT_tls%%', $CA ],
    [ host => 'rediss://localhost:%%PORT_named%%',
        'policy_redis_ssl_trusted_certificate %%DIR%%/named.crt;' ],
    [ off => 'rediss://127.0.0.1:%%PORT_tls%%',
        'policy_redis_ssl_verify off; policy_redis_ssl_name x.example;' ],
    [ off_other => 'rediss://127.0.0.1:%%PORT_tls%%',
        'policy_redis_ssl_trusted_certificate %%DIR%%/other.crt;
         policy_redis_ssl_verify off;' ],

    [ sentinel => 'rediss://127.0.0.1:%%PORT_sentinel%%',
        "$CA policy_redis_ssl_name redis.example.com;", undef,
        'sentinel=m' ],
    [ sentinel_ip => 'rediss://127.0.0.1:%%PORT_sentinel%%', $CA, undef,
        'sentinel=m' ],
    [ cluster => 'rediss://127.0.0.1:%%PORT_node%%', $CA, undef, 'cluster' ],

    [ wrong_sentinel => 'rediss://127.0.0.1:%%PORT_sentinel%%',
        "$CA policy_redis_ssl_name other.example.com;",
        qr/no Sentinel can tell .*: its certificate is not for "other\./,
        'sentinel=m' ],
    [ wrong_cluster => 'rediss://localhost:%%PORT_node%%', $CA,
        qr/no node can tell .*: its certificate is not for "localhost"/,
        'cluster' ],
    [ garbage => 'rediss://127.0.0.1:%%PORT_web%%', $CA,
        qr/TLS handshake failed, wrong version number/ ],

    [ wrong_name => 'rediss://127.0.0.1:%%PORT_tls%%',
        "$CA policy_redis_ssl_name other.example.com;",
        qr/its certificate is not for "other\.example\.com"/ ],
    [ wrong_host => 'rediss://localhost:%%PORT_tls%%', $CA,
        qr/its certificate is not for "localhost"/ ],
    [ wrong_address => 'rediss://127.0.0.1:%%PORT_tls%%',
        "$CA policy_redis_ssl_name 127.0.0.2;",
        qr/its certificate is not for "127\.0\.0\.2"/ ],
    [ unknown_ca => 'rediss://127.0.0.1:%%PORT_tls%%',
        'policy_redis_ssl_trusted_certificate %%DIR%%/other.crt;',
        qr/its certificate cannot be verified, \w/ ],
    [ no_tls => 'rediss://127.0.0.1:%%PORT_plain%%', $CA,
        qr/no answer to the TLS handshake/ ],
    [ tls_only => 'redis://127.0.0.1:%%PORT_tls%%', '',
        qr/it closed the connection|the connection was lost/ ],
    [ mute => 'rediss://127.0.0.1:%%PORT_silent%%', $CA,
        qr/no answer to the TLS handshake/ ],
    [ refused => 'rediss://127.0.0.1:%%PORT_nobody%%', $CA,
        qr/connect failed/ ],
);

for my $case (@cases) {
    my ($name, $url, $directives, undef, $more) = @$case;

    $more //= '';

    $t->conf($name, <<"EOF");
mail {
    $directives
    policy_redis  $url $more on_error=closed timeout=2s;
    policy_auth   off;
    proxy_pass    127.0.0.1:%%PORT_relay%%;

    server {
        listen        127.0.0.1:%%PORT_edge_$name%%;
        protocol      smtp;
        policy        on;
        policy_limit  x  key=\$sender  messages=3/1h;
    }
}
EOF
    $t->run_nginx($name);
}


sub session {
    my ($where) = @_;

    return $t->session("edge_$where");
}


sub codes { return join(' ', map { substr($_, 0, 9) } @_) }


for my $case (@cases) {
    my ($name, $url, undef, $reason) = @$case;
    my $c = session($name);

    if (!$reason) {
        ok($t->wait_for(sub { send_one($c, "$name\@example.com") =~ /^250/ }),
            "$name: it counts");
        is(codes(map { send_one($c, "$name\@example.com") } 1 .. 3),
            '250 2.0.0 250 2.0.0 450 4.7.1', "$name: and limits");
        is(used($url =~ /named/ ? $named : $url =~ /node/ ? $node : $tls, 'x',
            "$name\@example.com"), 3, "$name: in Redis");
        next;
    }

    my $begin = time();

    is(codes(map { send_one($c, "$name\@example.com") } 1 .. 2),
        '451 4.3.0 451 4.3.0', "TLS-5 $name: it is away");
    cmp_ok(time() - $begin, '<', MARGIN, "$name: without waiting");

    ok($t->wait_for(sub { $t->error_log($name) =~ $reason }),
        "$name: the log says why") or diag($t->error_log($name) =~ /(.*away.*)/);
}

for my $name (map { $_->[0] } grep { $_->[3] } @cases) {
    is(scalar(() = $t->error_log($name) =~ / is away: /g), 1,
        "$name: the log says so once");
}

# it goes, and comes back

for my $name (qw(right off)) {
    my ($c) = session($name);
    $tls->kill() if $name eq 'right';
    ok($t->wait_for(sub {
        send_one($c, 'r@example.com') =~ /^451/ }), "$name: killed");
}

$tls->start();

for my $name (qw(right off)) {
    my ($c) = session($name);
    ok($t->wait_for(sub { send_one($c, "b$name\@example.com") =~ /^250/ }),
        "$name: back");
}

# it hangs, with what is asked in its buffers

$tls->signal('STOP');

my @clients = map { session('right') } 1 .. 8;
my $begin = time();

$_->send_raw("MAIL FROM:<h\@example.com>\r\n") for @clients;
is(scalar(grep { $_->read_reply() =~ /^451/ } @clients), 8,
    'hangs: nobody is answered');
cmp_ok(time() - $begin, '<', 2 + MARGIN, 'hangs: in time');

$tls->signal('CONT');

my $c = session('right');
ok($t->wait_for(sub { send_one($c, 'c@example.com') =~ /^250/ }),
    'hangs: back');

# much at once

my $many = session('right');
my $count = 20;

$many->send_raw(join('',
    map { "MAIL FROM:<m$_\@example.com>\r\nRSET\r\n" } 1 .. $count));
is(scalar(grep { /^250/ } map { $many->read_reply() } 1 .. 2 * $count),
    2 * $count, 'much at once: all is answered');

is_deeply([ lasting($tls) ], [], 'no key without TTL');

ok($t->reload('right'), 'reload');
$c = session('right');
ok($t->wait_for(sub { send_one($c, 'l@example.com') =~ /^250/ }),
    'reload: it counts');

stop_process($web, 'TERM', 5);
$t->done();
