#!/usr/bin/perl

# AUTH-5: logins that are not brought to an end, of each mechanism: cancelled,
# spoilt, wrong, and left with a connection that is closed or reset. Nothing of
# them stays in memory.
#
# Environment: TEST_ABORTED (10000): of each mechanism; one of fifty is left
# with its connection.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Errno ();
use IO::Socket::INET;
use MIME::Base64 qw(encode_base64);
use Socket qw(SOL_SOCKET SO_LINGER);
use Test::More;
use Time::HiRes qw(sleep);

use MailPolicy;
use MailPolicy::Sasl;

my $COUNT = $ENV{TEST_ABORTED} // 10_000;
my $BATCH = 100;

my $t = MailPolicy->new();
my $redis = $t->run_redis();

# a secret of SCRAM, or a thread would make one for each
$t->write_file('users', "alice\@example.com:{PLAIN}canary-in-clear\n"
    . 'bob@example.com:'
    . MailPolicy::Sasl::secret('canary-of-bob', 'sixteen octets..', 4096)
    . "\n");

$t->conf(<<'EOF');
# what is written for each connection would be half of the work
error_log  %%DIR%%/error.log error;

mail {
    server_name            edge.example.com;
    policy_redis           redis://127.0.0.1:%%PORT_redis%% timeout=10s;
    policy                 on;
    policy_auth            file:%%DIR%%/users redis;
    policy_auth_plaintext  on;
    policy_auth_methods    plain login cram-md5 scram-sha-256;
    policy_zone            1m;
    policy_limit           net key=$client_net auth_failures=1000/1h
                           on_exceed=report;
    proxy_pass             127.0.0.1:25;
    access_log             off;
    max_errors             1000000;

    server {
        listen    127.0.0.1:%%PORT_smtp%%;
        protocol  smtp;
    }
}
EOF
$t->run_nginx();

my ($worker) = $t->worker_pids();

# AddressSanitizer keeps freed memory for a while
my $asan = $t->read_file("/proc/$worker/maps") =~ /asan/;

# what is said up to the last response, and one that is wrong
my %BEGIN = (
    'PLAIN'         => [ 'AUTH PLAIN', b64("\0alice\@example.com\0wrong") ],
    'LOGIN'         => [ 'AUTH LOGIN', b64('alice@example.com'),
        b64('wrong') ],
    'CRAM-MD5'      => [ 'AUTH CRAM-MD5',
        b64('alice@example.com ' . '0' x 32) ],
    'SCRAM-SHA-256' => [ 'AUTH SCRAM-SHA-256 '
        . b64('n,,n=bob@example.com,r=nonce'), b64('c=biws,r=wrong') ],
);

my $baseline = descriptors();

flat($_) for sort keys %BEGIN;

ok($t->wait_for(sub { descriptors() <= $baseline }), 'nothing is left open');
is(join(' ', $t->worker_pids()), $worker, 'AUTH-5 the worker is the same');
$t->done();


sub b64 { return encode_base64($_[0], '') }

sub descriptors { return scalar(() = glob("/proc/$worker/fd/*")) }


sub memory {
    my ($kb) = $t->read_file("/proc/$worker/status") =~ /^RssAnon:\s+(\d+)/m;
    return $kb;
}


sub flat {
    my ($mechanism) = @_;

    aborted($mechanism, $COUNT / 10);

    my $before = memory();
    my $done = aborted($mechanism, $COUNT);
    my $growth = memory() - $before;

    is($done, $COUNT, "AUTH-5 $mechanism: aborted");
    diag("$mechanism: $COUNT aborted, $before kB, and $growth kB more")
        if $ENV{TEST_ABORTED};

    SKIP: {
        skip('AddressSanitizer', 1) if $asan;
        cmp_ok($growth, '<', 300, "AUTH-5 $mechanism: memory is flat");
    }
}


# so many, a session for each batch of them; all but two end within it

sub aborted {
    my ($mechanism, $count) = @_;

    my $done = 0;
    my @end = ('*', 'QUJ', '', $BEGIN{$mechanism}[-1]);

    while ($done < $count) {
        my $socket = connection();

        for my $n (1 .. $BATCH - 2) {
            begin($socket, $mechanism);
            exchange($socket, $end[$n % @end]) =~ /^5(?:01|35) /
                or die "$mechanism: not aborted\n";
            $done++;
        }

        # one is left before its last response, one before the reply to it
        for my $other ($socket, connection()) {
            begin($other, $mechanism);
            print {$other} "$end[-1]\r\n" if $other != $socket;
            setsockopt($other, SOL_SOCKET, SO_LINGER, pack('ii', 1, 0))
                if $done % 4 < 2;
            close($other);
            $done++;
        }
    }

    return $done;
}


sub begin {
    my ($socket, $mechanism) = @_;

    my @lines = @{ $BEGIN{$mechanism} };

    for my $line (@lines[0 .. $#lines - 1]) {
        my $reply = exchange($socket, $line);
        die "$mechanism, \"$line\": $reply\n" unless $reply =~ /^334/;
    }
}


# the machine may be short of ports for a while: closed connections hold them

sub connection {
    for (1 .. 600) {
        my $socket = IO::Socket::INET->new(PeerAddr => '127.0.0.1',
            PeerPort => $t->port('smtp'));

        if ($socket) {
            reply($socket);
            exchange($socket, 'EHLO client.example');
            return $socket;
        }

        die "connect: $!\n" unless $!{EADDRNOTAVAIL};
        sleep(0.1);
    }

    die "connect: no free port\n";
}


sub exchange {
    my ($socket, $line) = @_;

    syswrite($socket, "$line\r\n");
    return reply($socket);
}


sub reply {
    my ($socket) = @_;

    my $reply = '';

    until ($reply =~ /^\d{3}(?: |\r\n\z)/m && $reply =~ /\n\z/) {
        sysread($socket, $reply, 4096, length $reply)
            or die "closed after: $reply\n";
    }

    return $reply;
}
