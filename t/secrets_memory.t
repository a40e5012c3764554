#!/usr/bin/perl

# OUT-2: what a client has logged in with is wiped: once its session is over,
# a worker's memory, of which a core would be a copy, does not have it any
# more, wherever it has been on its way: read, decoded, asked about at Redis
# and at services, hashed in threads.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Test::More;
use Time::HiRes qw(sleep);

use MailPolicy;
use MailPolicy::AuthMatrix;
use MailPolicy::Secrets qw(leaks);

BEGIN {
    plan(skip_all => 'IO::Socket::SSL is not installed')
        unless eval { require IO::Socket::SSL };
    plan(skip_all => 'memory of other processes cannot be read here')
        unless open(my $fh, '<', '/proc/1/mem') || $> == 0;
}

my $t = MailPolicy->new();
my $relay = $t->run_relay(name => 'relay');

# a file of users stays in memory, and has what this looks for
my $matrix = MailPolicy::AuthMatrix->new($t,
    providers => [ qw(redis http jwt relay) ]);

$t->conf($matrix->conf(<<'EOF'));

    proxy_pass  127.0.0.1:%%PORT_relay%%;
    max_errors  100;
EOF
$t->run_nginx();

my ($worker) = $t->worker_pids();

plan(skip_all => 'AddressSanitizer keeps what is freed')
    if $t->read_file("/proc/$worker/maps") =~ /asan/;

my @waiting;

for my $cell ($matrix->cells()) {
    my $c = $matrix->session($cell);

    like($matrix->wrong($cell)->login($c), qr/^535 /, "$cell->{name}: wrong");
    like($matrix->sasl($cell)->login($c), qr/^235 /, "$cell->{name}: right");
    $c->quit();

    $matrix->sasl($cell)->login($matrix->session($cell), leave => 1);
}

# one that is amid its login has said it: this would be found
my $cell = { provider => 'redis', mode => 'plain', mechanism => 'PLAIN' };
my $c = $matrix->session($cell);
my $half = MailPolicy::Sasl->new('PLAIN', user => 'x@example.com',
    password => 'canary-that-is-there')->command('PLAIN', 1);

$c->send_raw($half);
ok($t->wait_for(sub { grep { /canary-that/ } in_memory() }),
    'what was read, and is no line yet, is there');
$c->close();

sleep(0.5);
is(join("\n", in_memory()), '', 'OUT-2 nothing is left of any other');

$t->done();


# forms of secrets in what the worker may write to

sub in_memory {
    my $copy = '';

    open(my $memory, '<:raw', "/proc/$worker/mem") or die "memory: $!\n";

    for my $line (split /\n/, $t->read_file("/proc/$worker/maps")) {
        my ($begin, $end) = $line =~ /^(\w+)-(\w+) rw/ or next;
        $_ = eval { no warnings qw(portable); hex } for $begin, $end;
        sysseek($memory, $begin, 0) or next;

        while ($begin < $end) {
            my $n = sysread($memory, $copy, $end - $begin, length $copy)
                or last;
            $begin += $n;
        }
    }

    my $file = $t->write_file('memory', $copy);
    my @found = leaks($file);
    unlink($file);
    return @found;
}
