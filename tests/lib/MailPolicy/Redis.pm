package MailPolicy::Redis;

# A real redis-server on a port of its own, without persistence, and a small
# client for it.

use strict;
use warnings;

use IO::Socket::INET;
use Time::HiRes qw(sleep time);

use MailPolicy::Process qw(spawn stop_process wait_exit);


# port, dir, name; args => [ more arguments of redis-server ]

sub new {
    my ($class, %option) = @_;

    my $self = bless {
        name => 'redis', args => [], owner => $$, %option,
    }, $class;

    $self->start();
    return $self;
}


sub port { return $_[0]{port} }
sub pid  { return $_[0]{pid} }
sub url  { return "redis://127.0.0.1:$_[0]{port}" }


sub start {
    my ($self) = @_;

    $self->{pid} = spawn("$self->{dir}/$self->{name}.log",
        'redis-server',
        '--port', $self->{port}, '--bind', '127.0.0.1',
        '--dir', $self->{dir}, '--save', '', '--appendonly', 'no',
        @{ $self->{args} });

    my $end = time() + 10;

    until (eval { $self->cmd('PING') eq 'PONG' }) {
        my $status = wait_exit($self->{pid}, 0.02);
        die "redis-server ended with status $status\n" if defined $status;
        die "redis-server does not answer: $@\n" if time() > $end;
    }
}


# STOP and CONT make it hang and come back; see also kill()

sub signal {
    my ($self, $signal) = @_;

    CORE::kill($signal, $self->{pid}) if $self->{pid};
}


sub stop {
    my ($self) = @_;

    my $pid = delete $self->{pid} or return;

    $self->_disconnect();
    CORE::kill('CONT', $pid);
    stop_process($pid, 'TERM', 5);
}


# as it would crash; all data is gone

sub kill {
    my ($self) = @_;

    my $pid = delete $self->{pid} or return;

    $self->_disconnect();
    stop_process($pid, 'KILL', 5);
}


# of a test that died

sub DESTROY {
    my ($self) = @_;

    local ($?, $@);
    $self->kill() if $self->{owner} == $$;
}


sub restart {
    my ($self) = @_;

    $self->kill();
    $self->start();
}


# A command and its answer: a string, a number, undef, or an array of these.
# Dies with the text of an error.

sub cmd {
    my ($self, @command) = @_;

    my $socket = $self->_socket();

    my $request = '*' . @command . "\r\n";
    $request .= '$' . length($_) . "\r\n$_\r\n" for @command;

    my $answer = eval {
        local $SIG{PIPE} = 'IGNORE';
        syswrite($socket, $request) == length($request)
            or die "redis: write: $!\n";
        $self->_answer();
    };

    if ($@) {
        my $error = $@;
        # an error of the connection, not one of the command
        $self->_disconnect() if $error =~ /^redis: /;
        die $error;
    }

    return $answer;
}


# HGETALL as a hash
sub hash { my ($self, $key) = @_; return { @{ $self->cmd('HGETALL', $key) } } }

# all keys, sorted
sub keys { return sort @{ $_[0]->cmd('KEYS', $_[1] // '*') } }


sub _socket {
    my ($self) = @_;

    $self->{buffer} = '' unless $self->{socket};

    return $self->{socket} //= IO::Socket::INET->new(
        PeerAddr => '127.0.0.1', PeerPort => $self->{port}, Timeout => 5)
        || die "redis: connect: $!\n";
}


sub _disconnect {
    my ($self) = @_;

    my $socket = delete $self->{socket} or return;
    close($socket);
}


sub _more {
    my ($self) = @_;

    my $vector = '';
    vec($vector, fileno($self->{socket}), 1) = 1;
    select($vector, undef, undef, 10) > 0 or die "redis: timeout\n";

    sysread($self->{socket}, $self->{buffer}, 65536, length $self->{buffer})
        or die "redis: connection lost\n";
}


sub _line {
    my ($self) = @_;

    $self->_more() until $self->{buffer} =~ /\r\n/;
    $self->{buffer} =~ s/^(.*?)\r\n//s;
    return $1;
}


sub _answer {
    my ($self) = @_;

    my ($type, $rest) = $self->_line() =~ /^(.)(.*)/s;

    return $rest if $type eq '+' || $type eq ':';
    die "$rest\n" if $type eq '-';

    if ($type eq '$') {
        return undef if $rest < 0;
        $self->_more() until length $self->{buffer} >= $rest + 2;
        my $value = substr($self->{buffer}, 0, $rest, '');
        substr($self->{buffer}, 0, 2, '');
        return $value;
    }

    if ($type eq '*') {
        return undef if $rest < 0;
        return [ map { $self->_answer() } 1 .. $rest ];
    }

    die "redis: answer of type \"$type\"\n";
}


1;
