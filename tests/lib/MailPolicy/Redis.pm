package MailPolicy::Redis;

# A real redis-server on a port of its own, without persistence, and a small
# client for it.
#
# port, dir, name; args => [ more arguments ]; tls => [ certificate, key ] for
# TLS and nothing else; password => that of its only user; sentinel => "lines
# of a Sentinel's configuration"; bus => port, for a node of a cluster.

use strict;
use warnings;

use IO::Socket::INET;
use IO::Socket::SSL;
use Time::HiRes qw(sleep time);

use MailPolicy::Process qw(spawn stop_process wait_exit);


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
sub name { return $_[0]{name} }

sub url {
    my ($self) = @_;

    return ($self->{tls} ? 'rediss' : 'redis') . "://127.0.0.1:$self->{port}";
}


sub start {
    my ($self) = @_;

    $self->{pid} = spawn("$self->{dir}/$self->{name}.log",
        'redis-server', $self->_args(), @{ $self->{args} });

    my $end = time() + 10;

    until (eval { $self->cmd('PING') eq 'PONG' }) {
        my $status = wait_exit($self->{pid}, 0.02);
        die "redis-server ended with status $status\n" if defined $status;
        die "redis-server does not answer: $@\n" if time() > $end;
    }
}


sub _args {
    my ($self) = @_;

    my @port = $self->{tls}
        ? ('--port', 0, '--tls-port', $self->{port},
            '--tls-cert-file', $self->{tls}[0],
            '--tls-key-file', $self->{tls}[1],
            '--tls-ca-cert-file', $self->{tls}[0], '--tls-auth-clients', 'no',
            '--tls-replication', 'yes', '--tls-cluster', 'yes')
        : ('--port', $self->{port});

    push @port, '--bind', '127.0.0.1', '--dir', $self->{dir};

    # a Sentinel writes into its configuration, and begins anew with it
    if ($self->{sentinel}) {
        my $file = "$self->{dir}/$self->{name}.conf";
        open(my $fh, '>', $file) or die "$file: $!\n";
        print $fh $self->{sentinel};
        close($fh);
        return ($file, '--sentinel', @port);
    }

    push @port, '--requirepass', $self->{password},
        '--masterauth', $self->{password} if $self->{password};

    push @port, '--cluster-enabled', 'yes', '--cluster-port', $self->{bus},
        '--cluster-config-file', "$self->{name}.nodes",
        '--cluster-node-timeout', 1000, '--repl-diskless-sync-delay', 0
        if $self->{bus};

    return (@port, '--save', '', '--appendonly', 'no');
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

    my $fresh = !$self->{socket};
    my $socket = $self->_socket();

    $self->cmd('AUTH', $self->{password}) if $fresh && $self->{password};

    my $request = request(@command);

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


sub request {
    my (@command) = @_;

    return '*' . @command . "\r\n"
        . join('', map { '$' . length($_) . "\r\n$_\r\n" } @command);
}


# Many commands, lists of words, with one wait for all: a list of answers.  So
# few that they and the answers fit into the buffers of the connection.

sub pipeline {
    my ($self, @commands) = @_;

    $self->cmd('PING');
    print { $self->_socket() } map { request(@$_) } @commands;
    $self->_socket()->flush();

    return map { $self->_answer() } @commands;
}


# HGETALL as a hash
sub hash { my ($self, $key) = @_; return { @{ $self->cmd('HGETALL', $key) } } }

# all keys, sorted
sub keys { return sort @{ $_[0]->cmd('KEYS', $_[1] // '*') } }


sub _socket {
    my ($self) = @_;

    $self->{buffer} = '' unless $self->{socket};

    return $self->{socket} //= $self->_connect()
        || die "redis: connect: $!\n";
}


sub _connect {
    my ($self) = @_;

    my @to = (PeerAddr => '127.0.0.1', PeerPort => $self->{port},
        Timeout => 5);

    return $self->{tls}
        ? IO::Socket::SSL->new(@to, SSL_verify_mode => SSL_VERIFY_NONE)
        : IO::Socket::INET->new(@to);
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
    $self->{tls} && $self->{socket}->pending()
        or select($vector, undef, undef, 10) > 0
        or die "redis: timeout\n";

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
