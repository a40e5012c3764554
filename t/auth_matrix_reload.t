#!/usr/bin/perl

# A reload amid a login: each mechanism at each provider, stopped at each step,
# is gone on with once new workers are there.  The old one ends with its last
# client.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Test::More;

use MailPolicy;
use MailPolicy::AuthMatrix;

my $t = MailPolicy->new();
my $relay = $t->run_relay(name => 'relay');
my $matrix = MailPolicy::AuthMatrix->new($t);

$t->conf($matrix->conf(<<'EOF'));

    proxy_pass  127.0.0.1:%%PORT_relay%%;
    access_log  off;
EOF
$t->run_nginx();

my @stopped;

for my $cell ($matrix->cells('tls')) {
    for my $n (1 .. $matrix->sasl($cell)->steps()) {
        for my $right (1, 0) {
            my $sasl = $right ? $matrix->sasl($cell) : $matrix->wrong($cell);
            next if !$right && $n > $matrix->last_step($cell);

            # a Dovecot takes half a second for each
            next if !$right && $cell->{provider} eq 'dovecot' && $n > 1;

            is($sasl->login($matrix->session($cell), stop => $n), 'STOPPED',
                "$cell->{name}: stopped at $n");
            push @stopped, [ $cell, $right, $sasl, $n ];
        }
    }
}

my ($old) = $t->worker_pids();
$t->reload();

for (@stopped) {
    my ($cell, $right, $sasl, $n) = @$_;

    is($sasl->go_on(), $right ? '235 2.7.0 Authentication successful'
        : $matrix->invalid($cell), "$cell->{name}: gone on with at $n, "
        . ($right ? 'right' : 'wrong'));
}

ok(kill(0, $old), 'it was the old worker');
$t->disconnect();
ok($t->wait_for(sub { !kill(0, $old) }), 'which ends');

$t->done();
