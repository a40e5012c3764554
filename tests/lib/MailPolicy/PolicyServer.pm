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
#
# Without a handler the first rule is followed that fits; DUNNO, if none does.
# Rules are in force for what is read when set() has returned:
#
#     $server->set({ recipient => qr/^bob@/, answer => 'REJECT no' }, 'OK');
#
#     an action         is what all are told
#     attribute         a regular expression that its value must match
#     nth               of this connection's requests, from 1, only that
#     answer            the action
#     octets            these instead of an answer
#     delay             seconds before it
#     cut               positions in its octets, or 'all', at which it is cut:
#                       a packet each
#     then              behind it 'close', 'reset' or 'hang' (says nothing any
#                       more); without an answer and octets instead of it

use strict;
use warnings;

use IO::Socket::IP;
use IO::Socket::UNIX;
use JSON::PP ();
use POSIX ();
use Socket qw(IPPROTO_TCP SOCK_STREAM SOL_SOCKET SO_LINGER TCP_NODELAY);
use Time::HiRes qw(sleep);

use MailPolicy::Process qw(fork_server stop_process);


sub new {
    my ($class, %option) = @_;

    my $self = bless {
        address => '127.0.0.1',
        log => "$option{dir}/$option{name}.requests",
        rules => "$option{dir}/$option{name}.rules", %option,
    }, $class;

    $self->{handler} //= sub { $self->follow(@_) };

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


# rules, which other processes read


sub set {
    my ($self, @rules) = @_;

    @rules = map {
        my $rule = ref $_ ? $_ : { answer => $_ };
        +{ map { $_ => ref $rule->{$_} eq 'Regexp' ? "$rule->{$_}"
            : $rule->{$_} } keys %$rule };
    } @rules;

    open(my $fh, '>:raw', "$self->{rules}.new") or die "$self->{rules}: $!\n";
    print $fh JSON::PP->new()->latin1()->encode(\@rules);
    close($fh) or die "$self->{rules}: $!\n";
    rename("$self->{rules}.new", $self->{rules})
        or die "$self->{rules}: $!\n";
}


sub rules {
    my ($self) = @_;

    open(my $fh, '<:raw', $self->{rules}) or return ();
    local $/;
    return @{ JSON::PP->new()->latin1()->decode(scalar(<$fh>)) };
}


my %WORDS = map { $_ => 1 } qw(answer cut delay nth octets then);

sub fits {
    my ($rule, $request, $n) = @_;

    return 0 if defined $rule->{nth} && $rule->{nth} != $n;

    return !grep { ($request->{$_} // '') !~ $rule->{$_} }
        grep { !$WORDS{$_} } keys %$rule;
}


sub follow {
    my ($self, $socket, $request, $n) = @_;

    my ($rule) = grep { fits($_, $request, $n) } $self->rules();
    $rule //= { answer => 'DUNNO' };

    my $then = $rule->{then} // '';
    my $octets = $rule->{octets} // (defined $rule->{answer}
        ? "action=$rule->{answer}\n\n" : '');

    sleep($rule->{delay}) if $rule->{delay};
    send_cut($socket, $octets, $rule->{cut});

    return 1 if $then eq '';

    if ($then eq 'hang') {
        1 while sysread($socket, my $ignored, 65536);

    } elsif ($then eq 'reset') {
        setsockopt($socket, SOL_SOCKET, SO_LINGER, pack('ii', 1, 0));
    }

    return 0;
}


sub send_cut {
    my ($socket, $octets, $cut) = @_;

    my $at = 0;
    my @ends = ref $cut ? @$cut : $cut ? (1 .. length($octets) - 1) : ();

    # fails on a unix socket, which has nothing to put together
    setsockopt($socket, IPPROTO_TCP, TCP_NODELAY, 1) if @ends;

    for my $end (@ends, length $octets) {
        syswrite($socket, substr($octets, $at, $end - $at)) or return;
        sleep(0.005) if $end < length $octets;
        $at = $end;
    }
}


# what a well-behaved server says

sub answer {
    my ($socket, $action) = @_;

    syswrite($socket, "action=$action\n\n");
}


1;
