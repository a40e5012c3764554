package MailPolicy::AuthService;

# A scripted service for "auth_http" and "policy_auth http:", for what a real
# one does not do on demand.  It takes many connections at a time.
#
#     my $service = MailPolicy::AuthService->new(dir => $t->dir(),
#         name => 'auth', port => $t->port('auth'), handler => sub {
#             my ($socket, $request, $n) = @_;
#             MailPolicy::AuthService::reply($socket, 'Auth-Status' => 'OK');
#             return 1;
#         });
#
# The handler has a process of its own for each connection; $n counts its
# requests.  True: another request may come.  All that were read, in the order
# in which they were complete, are in requests(), as they came.

use strict;
use warnings;

use IO::Socket::INET;
use POSIX ();

use MailPolicy::Process qw(fork_server stop_process);


sub new {
    my ($class, %option) = @_;

    my $self = bless {
        log => "$option{dir}/$option{name}.requests", %option,
    }, $class;

    $self->start();
    return $self;
}


sub start {
    my ($self) = @_;

    my $listener = IO::Socket::INET->new(
        LocalAddr => '127.0.0.1', LocalPort => $self->{port},
        Proto => 'tcp', Listen => 128, ReuseAddr => 1)
        or die "$self->{name}: port $self->{port}: $!\n";

    $self->{pid} = fork_server("$self->{dir}/$self->{name}.out",
        [ $listener ], sub { $self->serve($listener) });
    close($listener);
}


sub stop {
    my ($self) = @_;

    my $pid = delete $self->{pid} or return;
    stop_process($pid, 'TERM', 5);
}


# requests, octet by octet; and how many connections were made

sub requests    { return grep { $_ ne '+' } $_[0]->events() }
sub connections { return scalar(grep { $_ eq '+' } $_[0]->events()) }


sub events {
    my ($self) = @_;

    open(my $fh, '<:raw', $self->{log}) or return ();
    local $/;
    return map { pack('H*', $_) } split /\n/, scalar(<$fh>) // '';
}


# of the last request, headers in order: [ name, value ]

sub last_headers {
    my ($self) = @_;

    my $request = ($self->requests())[-1] // '';
    my (undef, @lines) = split /\r\n/, $request;

    return map { [ /^([^:]*): ?(.*)$/s ] } @lines;
}


sub note {
    my ($self, $octets) = @_;

    open(my $fh, '>>:raw', $self->{log}) or die "$self->{log}: $!\n";
    syswrite($fh, unpack('H*', $octets) . "\n");
}


sub serve {
    my ($self, $listener) = @_;

    my %children;
    my $stopped = 0;
    my $parent = getppid();

    local $SIG{CHLD} = 'IGNORE';
    local $SIG{TERM} = sub { $stopped = 1 };

    while (!$stopped && getppid() == $parent) {
        my $vector = '';

        vec($vector, fileno($listener), 1) = 1;
        next if select($vector, undef, undef, 0.2) <= 0;

        my $socket = $listener->accept() or next;

        $self->note('+');

        my $pid = fork() // die "fork: $!\n";

        if ($pid == 0) {
            $SIG{TERM} = 'DEFAULT';
            close($listener);
            alarm(120);
            eval { $self->talk($socket); 1 } or print STDERR "died: $@";
            POSIX::_exit(0);
        }

        $children{$pid} = 1;
        close($socket);
    }

    kill('KILL', keys %children);
}


sub talk {
    my ($self, $socket) = @_;

    my $input = '';
    my $n = 0;

    while (1) {
        my $end;

        while (($end = index($input, "\r\n\r\n")) < 0) {
            sysread($socket, $input, 65536, length $input) or return;
        }

        my $request = substr($input, 0, $end + 4, '');

        $self->note($request);
        $self->{handler}->($socket, $request, ++$n) or return;
    }
}


# what a well-behaved service says; names may stand there several times

sub reply {
    my ($socket, @headers) = @_;

    syswrite($socket, text(@headers));
}


sub text {
    my (@headers) = @_;

    my $output = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n";

    while (my ($name, $value) = splice(@headers, 0, 2)) {
        $output .= "$name: $value\r\n";
    }

    return "$output\r\n";
}


1;
