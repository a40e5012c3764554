#!/usr/bin/perl

# What one worker learns of a relay all know, and a reload forgets nothing of
# it; "random", and slow_start, which begins when a relay comes back.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Test::More;
use Time::HiRes qw(sleep time);

use MailPolicy;

my $t = MailPolicy->new();
my %relay = map { $_ => $t->run_relay(name => $_) } qw(a b c);

my %GROUP = (
    fails  => 'server %a weight=9 fail_timeout=1h; server %b;',
    random => 'random; server %a weight=4; server %b;',
    two    => 'random two; server %a; server %b; server %c;',
    slow   => 'server %a weight=9 fail_timeout=1s slow_start=6s; server %b;',
);

my $groups = join('', map { "    upstream $_ { $GROUP{$_} }\n" }
    sort keys %GROUP);
$groups =~ s/%(\w)/127.0.0.1:%%PORT_$1%%/g;

my $servers = join('', map { <<"EOF" } sort keys %GROUP);
    server {
        listen      127.0.0.1:%%PORT_$_%%;
        protocol    smtp;
        proxy_pass  $_;
    }
EOF

my $conf = <<"EOF";
worker_processes  4;

mail {
    server_name  edge.example.com;
    access_log   %%DIR%%/access.log;
    policy       on;
    policy_auth  off;

$groups
$servers
}
EOF

$t->conf($conf);
$t->run_nginx();


sub messages {
    my ($where, $n) = @_;

    my %seen = map { $_ => $relay{$_}->stats()->{messages} } keys %relay;

    for (1 .. $n) {
        my $c = $t->session($where);
        my @replies = $c->send_mail('s@example.com', [ 'r@example.net' ],
            "x\n");
        $c->quit();
        return $replies[0] if $replies[-1] !~ /^250 /;
    }

    return join('', map { $_ x ($relay{$_}->stats()->{messages} - $seen{$_}) }
        sort keys %relay);
}


sub tries { return $relay{a}->stats()->{total} }

# one failure, for all

$relay{a}->set(greeting => '554 5.3.2 never');
my $tries = tries();
is(messages('fails', 12), 'b' x 12, 'max_fails=1: all at the other');
is(tries() - $tries, 1, 'max_fails=1: one attempt, of four workers');

ok($t->reload(), 'reload');
is(messages('fails', 8), 'b' x 8, 'max_fails=1: new workers know');
is(tries() - $tries, 1, 'max_fails=1: no other attempt');

# which offered what

my $c = $t->client('fails');
$c->greeting();
like($c->ehlo(), qr/8BITMIME/, 'EHLO: an extension that relays have');
$c->quit();

$relay{b}->set(extensions => [ 'SIZE 1000000' ]);
messages('fails', 1);
my $known = 0;

for (1 .. 8) {
    $c = $t->client('fails');
    $c->greeting();
    $known++ if $c->ehlo() !~ /8BITMIME/;
    $c->quit();
}

is($known, 8, 'EHLO: all workers know that one does not');
$relay{b}->set(extensions => [ 'PIPELINING', '8BITMIME' ]);

# a new weight, and a server more, do not lose the rest

$t->conf($conf =~ s/weight=9 fail_timeout=1h;/weight=4 fail_timeout=1h;
        server 127.0.0.1:%%PORT_c%% weight=3;/r);
ok($t->reload(), 'reload: another server');
is(messages('fails', 8), 'bbcccccc', 'the failed one is still set aside');
is(tries() - $tries, 1, 'still one attempt');
$relay{a}->set(greeting => undef);

# by chance: each of these is off once in 10,000 times, at most

my $got = messages('random', 100);
cmp_ok($got =~ tr/a//, '>', $got =~ tr/b//, 'random: by weight') or diag($got);
cmp_ok($got =~ tr/b//, '>', 4, 'random: not always');
like(messages('two', 40), qr/^a+b+c+$/, 'random two: all of them');

$relay{$_}->set(connect => 'refuse') for qw(a b);
is(messages('two', 8), 'c' x 8, 'random two: the one that is left');
$relay{$_}->set(connect => undef) for qw(a b);

# slow_start: weight 9 of 10 comes little by little

like(messages('slow', 10), qr/^a{9}b$/, 'slow_start: before it');
$relay{a}->set(greeting => '554 5.3.2 never');
like(messages('slow', 4), qr/^b{4}$/, 'slow_start: a failure');
$relay{a}->set(greeting => undef);

my $start;

$t->wait_for(sub { $start = time(); messages('slow', 1) eq 'a' });
$got = messages('slow', 20);
my $took = time() - $start;

SKIP: {
    skip "too slow a machine: $took s", 1 if $took > 1;
    cmp_ok($got =~ tr/a//, '<=', 14, 'slow_start: less at first')
        or diag($got);
}

ok($t->wait_for(sub { sleep(0.1); messages('slow', 20) =~ /^a{18}bb$/ },
    12),
    'slow_start: all of it in the end');
cmp_ok(time() - $start, '>', 3, 'slow_start: but not at once');

$t->done();
