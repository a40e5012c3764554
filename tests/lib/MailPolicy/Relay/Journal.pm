package MailPolicy::Relay::Journal;

# What a scripted relay keeps, in one file that its process writes and the
# test reads while it grows: frames of a kind, the number of a connection, and
# octets.  A file for each connection would cost a test with thousands of them
# more than all else.
#
#     connection    it was accepted
#     note          a line of its transcript
#     stream        octets that came in
#     answer        "position code", see MailPolicy::Relay
#     message       one that came to its end, of Storable

use strict;
use warnings;

use Fcntl qw(SEEK_SET);
use Storable ();

my @KINDS = qw(connection note stream answer message);
my %CODE = map { $KINDS[$_] => $_ } 0 .. $#KINDS;

use constant HEAD => 9;


sub create {
    my ($class, $file) = @_;

    open(my $handle, '>:raw', $file) or die "$file: $!\n";
    return bless { file => $file, handle => $handle }, $class;
}


sub put {
    my ($self, $kind, $connection, $octets) = @_;

    my $frame = pack('CNN', $CODE{$kind}, $connection, length $octets)
        . $octets;

    # a frame is there as a whole, or at its end
    while ($frame ne '') {
        my $n = syswrite($self->{handle}, $frame)
            // die "$self->{file}: $!\n";
        substr($frame, 0, $n, '');
    }
}


# the reading side; the file may not be there yet

sub reader {
    my ($class, $file) = @_;

    return bless { file => $file, position => 0, connections => [],
        messages => [] }, $class;
}


# [ { transcript, answers, stream => [ [ position, length ], ... ] }, ... ]

sub connections { return @{ $_[0]->update()->{connections} } }

sub messages { return @{ $_[0]->update()->{messages} } }


# octets of a connection's stream

sub stream {
    my ($self, $connection) = @_;

    my $stream = '';

    for my $part (@{ $connection->{stream} }) {
        seek($self->{handle}, $part->[0], SEEK_SET);
        read($self->{handle}, $stream, $part->[1], length $stream);
    }

    return $stream;
}


# what came since it was read the last time

sub update {
    my ($self) = @_;

    my $handle = $self->{handle};

    if (!$handle) {
        open($handle, '<:raw', $self->{file}) or return $self;
        $self->{handle} = $handle;
    }

    my $size = -s $handle;
    seek($handle, $self->{position}, SEEK_SET);

    while ($size - $self->{position} >= HEAD) {
        read($handle, my $head, HEAD) == HEAD or last;
        my ($code, $number, $length) = unpack('CNN', $head);
        my $begin = $self->{position} + HEAD;

        last if $size - $begin < $length;
        $self->{position} = $begin + $length;
        $self->take($KINDS[$code], $number, $begin, $length);
    }

    return $self;
}


sub take {
    my ($self, $kind, $number, $begin, $length) = @_;

    my $c = $self->{connections}[$number - 1] //=
        { transcript => '', answers => {}, stream => [] };

    if ($kind eq 'stream') {
        # bodies may be large; they are not looked at before somebody asks
        push @{ $c->{stream} }, [ $begin, $length ];
        seek($self->{handle}, $self->{position}, SEEK_SET);
        return;
    }

    my $octets = '';
    read($self->{handle}, $octets, $length) if $length;

    if ($kind eq 'note') {
        $c->{transcript} .= "$octets\n";

    } elsif ($kind eq 'answer') {
        my ($position, $code) = split / /, $octets;
        $c->{answers}{$position} = $code;

    } elsif ($kind eq 'message') {
        push @{ $self->{messages} }, Storable::thaw($octets);
    }
}


1;
