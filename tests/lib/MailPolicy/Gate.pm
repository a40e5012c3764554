package MailPolicy::Gate;

# A gate in front of a real Redis, in a process of its own: what is asked goes
# through, and answers are held back, or not given, as told.
#
#     my $gate = MailPolicy::Gate->new(dir => ..., port => ..., to => port);
#     $gate->mode('hold HMGET mail:plan:');
#
#     pass           all goes through; also what was held
#     hold TEXT      from the answer to a command on that begins with TEXT,
#                    a connection is silent
#     cut TEXT       it is closed instead
#
# A command is its words, joined by spaces.

use strict;
use warnings;

use IO::Socket::INET;
use Time::HiRes qw(time);

use MailPolicy::Process qw(fork_server stop_process);


sub new {
    my ($class, %option) = @_;

    my $self = bless {
        file => "$option{dir}/gate.mode", log => "$option{dir}/gate.log",
        pairs => [], %option,
    }, $class;

    $self->{listener} = IO::Socket::INET->new(
        LocalAddr => '127.0.0.1', LocalPort => $self->{port},
        Proto => 'tcp', Listen => 64, ReuseAddr => 1)
        or die "gate: port $self->{port}: $!\n";

    $self->mode('pass');
    $self->{pid} = fork_server("$self->{dir}/gate.out",
        [ $self->{listener} ], sub { $self->run() });
    close($self->{listener});

    return $self;
}


sub stop {
    my ($self) = @_;

    my $pid = delete $self->{pid} or return;
    stop_process($pid, 'TERM', 5);
}


sub mode {
    my ($self, $mode) = @_;

    open(my $fh, '>', "$self->{file}.new") or die "$self->{file}: $!\n";
    print $fh $mode;
    close($fh);
    rename("$self->{file}.new", $self->{file}) or die "$self->{file}: $!\n";
}


# commands that came in, in order

sub commands {
    my ($self) = @_;

    open(my $fh, '<', $self->{log}) or return ();
    return map { chomp; $_ } grep { /\n\z/ } <$fh>;
}


# true as soon as one that begins with the text has come in

sub wait_for {
    my ($self, $text, $timeout) = @_;

    my $end = time() + ($timeout // 5);

    while (1) {
        return 1 if grep { index($_, $text) == 0 } $self->commands();
        return 0 if time() > $end;
        select(undef, undef, undef, 0.01);
    }
}


# forgets what has come in

sub forget { truncate($_[0]{log}, 0) }


# the process


sub run {
    my ($self) = @_;

    open($self->{out}, '>>', $self->{log}) or die "$self->{log}: $!\n";
    $self->{out}->autoflush(1);

    while (1) {
        my $readable = '';

        vec($readable, fileno($_), 1) = 1
            for $self->{listener}, map { @$_{qw(client server)} }
                                       @{ $self->{pairs} };

        select($readable, undef, undef, 0.01);

        $self->accept() if vec($readable, fileno($self->{listener}), 1);

        for my $p (@{ $self->{pairs} }) {
            for my $side (qw(client server)) {
                $self->read($p, $side)
                    if !$p->{gone} && vec($readable, fileno($p->{$side}), 1);
            }
            $self->answer($p) unless $p->{gone};
        }

        $self->{pairs} = [ grep { !$_->{gone} } @{ $self->{pairs} } ];
    }
}


sub accept {
    my ($self) = @_;

    my $client = $self->{listener}->accept() or return;
    my $server = IO::Socket::INET->new(
        PeerAddr => '127.0.0.1', PeerPort => $self->{to}) or return;

    push @{ $self->{pairs} }, { client => $client, server => $server,
        asked => '', told => '', commands => [] };
}


sub current {
    my ($self) = @_;

    open(my $fh, '<', $self->{file}) or return ('pass', '');
    my ($mode, $text) = split(/ /, <$fh> // 'pass', 2);
    return ($mode, $text // '');
}


sub read {
    my ($self, $p, $side) = @_;

    my $buffer = $side eq 'client' ? 'asked' : 'told';

    sysread($p->{$side}, $p->{$buffer}, 65536, length $p->{$buffer})
        or return $self->close($p);

    return if $side eq 'server';

    while (my $size = size($p->{asked})) {
        my $octets = substr($p->{asked}, 0, $size, '');
        my $command = join(' ', $octets =~ /^\$\d+\r\n(.*?)\r$/msg);

        print { $self->{out} } substr($command, 0, 4000) =~ tr/ -~/?/cr, "\n";
        push @{ $p->{commands} }, $command;
        syswrite($p->{server}, $octets);
    }
}


# passes on what Redis has said, as far as it may be heard

sub answer {
    my ($self, $p) = @_;

    my ($mode, $text) = $self->current();

    while (my $size = size($p->{told})) {

        if ($mode ne 'pass' && index($p->{commands}[0], $text) == 0) {
            $self->close($p) if $mode eq 'cut';
            return;
        }

        shift @{ $p->{commands} };
        syswrite($p->{client}, substr($p->{told}, 0, $size, ''));
    }
}


sub close {
    my ($self, $p) = @_;

    $p->{gone} = 1;
    CORE::close($p->{$_}) for qw(client server);
}


# octets of the first whole value, 0 if it is not there yet

sub size {
    my ($buffer, $at) = @_;

    $at //= 0;
    my $end = index($buffer, "\r\n", $at);
    return 0 if $end < 0;

    my ($type, $n) = (substr($buffer, $at, 1),
        substr($buffer, $at + 1, $end - $at - 1));
    $end += 2;

    if ($type eq '$') {
        $end += $n + 2 if $n >= 0;

    } elsif ($type eq '*') {
        for (1 .. $n) {
            $end = size($buffer, $end) or return 0;
        }
    }

    return $end <= length($buffer) ? $end : 0;
}


1;
