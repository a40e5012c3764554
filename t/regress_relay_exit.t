#!/usr/bin/perl

# A worker that has to go, and whose QUIT to a kept connection fails: it left
# with the last timer, and the connection was still open.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Errno qw(EPIPE);
use Test::More;

use MailPolicy;
use MailPolicy::FailAlloc;

my $t = MailPolicy->new();
my $why = MailPolicy::FailAlloc::impossible($t);
plan(skip_all => $why) if defined $why;

my $relay = $t->run_relay(name => 'relay');

$t->conf('nginx', <<'EOF');
mail {
    server_name  edge.example.com;
    access_log   off;
    policy       on;
    policy_auth  off;

    upstream kept {
        server     127.0.0.1:%%PORT_relay%%;
        keepalive  8;
    }

    server {
        listen      127.0.0.1:%%PORT_smtp%%;
        protocol    smtp;
        proxy_pass  kept;
    }
}
EOF

my $fail = MailPolicy::FailAlloc->new($t, 'nginx');

for my $kind ([ send => EPIPE ], [ 'alloc' ]) {
    my $c = $t->session('smtp');

    $c->send_mail('s@example.com', [ 'r@example.net' ], "x\n");
    $c->quit();
    ok($t->wait_for(sub { $t->error_log() =~ /connection is kept/ }),
        "$kind->[0]: one is kept");

    $fail->arm($kind->[0], 1, $kind->[1]);
    ok($t->reload('nginx'), "$kind->[0]: reload");
    ok($t->wait_for(sub {
        $t->instance('nginx')->all_worker_pids() == 1
            && $relay->stats()->{open} == 0;
    }), "$kind->[0]: the old worker and its connection are gone");
    is($fail->disarm(), 1, "$kind->[0]: QUIT failed");
    $fail->found();
}

$t->allow(qr/\[emerg\] .*(?:malloc|posix_memalign)\(\d.*\) failed \(12: /);
$t->done();
