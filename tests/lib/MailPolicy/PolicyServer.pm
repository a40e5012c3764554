package MailPolicy::PolicyServer;

# A scripted policy server (Postfix's policy delegation protocol), for what a
# real one does not do on demand.  It takes many connections at a time.
#
#     my $server = MailPolicy::PolicyServer->new(dir => $t->dir(),
#         name => 'spf', port => $t->port('spf'), handler => sub {
#             my ($socket, $request, $n) = @_;
#             MailPolicy::PolicyServer::answer($socket, 'DUNNO');
#             return 1;
#         });
#
# Instead of a port: path, of a unix socket that all may connect to.  address
# is 127.0.0.1, where it is not said.
#
# The handler has a process of its own for each connection; $request is a
# hash, $n counts the requests of this connection.  True: another one may
# come.  All that were read, in the order in which they were complete, are in
# requests(), as hashes; texts() has them as they came.

use strict;
use warnings;

use IO::Socket::IP;
use IO::Socket::UNIX;
use POSIX ();
use Socket qw(SOCK_STREAM);

use MailPolicy::Process qw(fork_server stop_process);


sub new {
    my ($class, %option) = @_;

    my $self = bless {
        address => '127.0.0.1',
        log => "$option{dir}/$option{name}.requests", %option,
    }, $class;

    $self->start();
    return $self;
}


sub start {
    my ($self) = @_;

    my $listener = $self->listener();

    $self->{pid} = fork_server("$self->{dir}/$self->{name}.out",
        [ $listener ], sub { $self->serve($listener) });
    close($listener);
}


sub listener {
    my ($self) = @_;

    my $listener;

    if (defined $self->{path}) {
        unlink($self->{path});

        $listener = IO::Socket::UNIX->new(Type => SOCK_STREAM,
            Local => $self->{path}, Listen => 128)
            or die "$self->{name}: $self->{path}: $!\n";
        chmod(0666, $self->{path});

    } else {
        $listener = IO::Socket::IP->new(LocalHost => $self->{address},
            LocalPort => $self->{port}, Type => SOCK_STREAM, Listen => 128,
            ReuseAddr => 1)
            or die "$self->{name}: $self->{address}:$self->{port}: $@\n";
    }

    return $listener;
}


# its connections are gone, too

sub stop {
    my ($self) = @_;

    my $pid = delete $self->{pid} or return;
    stop_process($pid, 'TERM', 5);
}


sub requests {
    my ($self) = @_;

    return map { { /^([^=\n]*)=(.*)$/mg } } $self->texts();
}


# octet by octet; how many connections were made, and how many have ended

sub texts       { return grep { !/\A[-+]\z/ } $_[0]->events() }
sub connections { return scalar(grep { $_ eq '+' } $_[0]->events()) }
sub ended       { return scalar(grep { $_ eq '-' } $_[0]->events()) }


sub events {
    my ($self) = @_;

    open(my $fh, '<:raw', $self->{log}) or return ();
    local $/;
    return map { pack('H*', $_) } split /\n/, scalar(<$fh>) // '';
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
            $self->note('-');
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

        while (($end = index($input, "\n\n")) < 0) {
            sysread($socket, $input, 65536, length $input) or return;
        }

        my $text = substr($input, 0, $end + 2, '');
        my %request = $text =~ /^([^=\n]*)=(.*)$/mg;

        $self->note($text);
        $self->{handler}->($socket, \%request, ++$n) or return;
    }
}


# what a well-behaved server says

sub answer {
    my ($socket, $action) = @_;

    syswrite($socket, "action=$action\n\n");
}


1;
