package MailPolicy::Port;

# Free ports on 127.0.0.1 for test files that run side by side.

use strict;
use warnings;

use Exporter qw(import);
use IO::Socket::INET;
use Socket qw(AF_UNIX SOCK_STREAM pack_sockaddr_un);

our @EXPORT_OK = qw(free_port);

# below the range that the kernel takes for outgoing connections
use constant FIRST => 12000;
use constant LAST  => 31999;

my @reserved;


# A port that nobody listens on, and that no other test process will get
# while this one runs: the reservation is a socket in Linux' abstract
# namespace, which goes away with the process.

sub free_port {
    my $span = LAST - FIRST + 1;
    my $start = ($$ * 97 + @reserved) % $span;

    for my $n (0 .. $span - 1) {
        my $port = FIRST + ($start + $n) % $span;
        my $lock = reserve($port) or next;

        next unless bindable($port);

        push @reserved, $lock;
        return $port;
    }

    die "no free port\n";
}


sub reserve {
    my ($port) = @_;

    socket(my $lock, AF_UNIX, SOCK_STREAM, 0) or die "socket: $!\n";
    bind($lock, pack_sockaddr_un("\0mail-policy-test-port-$port")) or return;
    return $lock;
}


sub bindable {
    my ($port) = @_;

    my $socket = IO::Socket::INET->new(
        LocalAddr => '0.0.0.0',
        LocalPort => $port,
        Proto     => 'tcp',
        Listen    => 1,
        ReuseAddr => 1,
    ) or return 0;

    close($socket);
    return 1;
}


1;
