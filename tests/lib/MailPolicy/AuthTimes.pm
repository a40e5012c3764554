package MailPolicy::AuthTimes;

# Logins that fail, and how long each reply takes: as an attacker measures it
# who wants to know which logins there are.
#
#     my $times = MailPolicy::AuthTimes->new($port, 4);
#     my ($said, $seconds) = $times->try('PLAIN', $login);
#
# said: all that the server said to it, as one text, with what is new each
# time (a challenge of CRAM-MD5; nonce and salt of SCRAM) in the place of
# which only its length is left.  seconds: from the last octet of what was
# sent to the reply, summed up where there are several.
#
# The sessions, so many, take turns.

use strict;
use warnings;

use Exporter qw(import);
use IO::Socket::INET;
use MIME::Base64 qw(decode_base64 encode_base64);
use Socket qw(IPPROTO_TCP TCP_NODELAY);
use Time::HiRes qw(clock_gettime CLOCK_MONOTONIC);

our @EXPORT_OK = qw(error_of median);

my %SAYS = (
    'PLAIN'         => \&plain,
    'LOGIN'         => \&login,
    'CRAM-MD5'      => \&cram_md5,
    'SCRAM-SHA-256' => \&scram,
);


sub new {
    my ($class, $port, $count) = @_;

    my $self = bless { sessions => [], tried => 0 }, $class;

    for (1 .. $count) {
        my $socket = IO::Socket::INET->new(PeerAddr => "127.0.0.1:$port")
            or die "connect: $!\n";

        setsockopt($socket, IPPROTO_TCP, TCP_NODELAY, 1);
        push @{ $self->{sessions} }, $socket;
        reply($socket);
        exchange($socket, 'EHLO client.example');
    }

    return $self;
}


sub try {
    my ($self, $mechanism, $login) = @_;

    my $sessions = $self->{sessions};

    $self->{socket} = $sessions->[ $self->{tried}++ % @$sessions ];
    $self->{said} = [];
    $self->{seconds} = 0;

    $SAYS{$mechanism}->($self, $login, 'wrong' . int(rand(1_000_000)));

    return (join("\n", @{ $self->{said} }), $self->{seconds});
}


# one exchange of it; the reply

sub say_line {
    my ($self, $line) = @_;

    my $start = clock_gettime(CLOCK_MONOTONIC);
    my $reply = exchange($self->{socket}, $line);

    $self->{seconds} += clock_gettime(CLOCK_MONOTONIC) - $start;
    push @{ $self->{said} }, $reply;
    return $reply;
}


sub exchange {
    my ($socket, $line) = @_;

    syswrite($socket, "$line\r\n") or die "write: $!\n";
    return reply($socket);
}


sub reply {
    my ($socket) = @_;

    my $reply = '';

    until ($reply =~ /^\d{3}(?: [^\n]*)?\r\n\z/m) {
        sysread($socket, $reply, 4096, length $reply)
            or die "closed after: $reply\n";
    }

    return $reply;
}


# mechanisms


sub plain {
    my ($self, $login, $password) = @_;

    $self->say_line('AUTH PLAIN ' . b64("\0$login\0$password"));
}


sub login {
    my ($self, $login, $password) = @_;

    $self->say_line('AUTH LOGIN');
    $self->say_line(b64($login));
    $self->say_line(b64($password));
}


sub cram_md5 {
    my ($self, $login) = @_;

    my $challenge = $self->say_line('AUTH CRAM-MD5');

    $self->{said}[-1] = 'challenge of ' . length($challenge);
    $self->say_line(b64("$login " . unpack('H*', octets(16))));
}


sub scram {
    my ($self, $login) = @_;

    my $first = $self->say_line('AUTH SCRAM-SHA-256 '
        . b64("n,,n=$login,r=clientclientclient"));
    my ($text) = $first =~ /^334 (\S+)\r\n\z/ or return;

    $text = decode_base64($text);

    my ($nonce, $salt) = $text =~ /^r=([^,]+),s=([^,]+),i=\d+\z/ or return;

    $self->{salt} = $salt;
    $text =~ s/([rs])=([^,]+)/"$1=" . length($2)/ge;
    $self->{said}[-1] = $text;

    $self->say_line(b64("c=biws,r=$nonce,p=" . b64(octets(32))));
}


# the salt that the last one of SCRAM was told

sub salt { return $_[0]{salt} }


sub octets { return join('', map { chr int rand 256 } 1 .. $_[0]) }

sub b64 { return encode_base64($_[0], '') }


# statistics


sub median {
    my @sorted = sort { $a <=> $b } @_;

    return $#sorted % 2 ? ($sorted[$#sorted / 2] + $sorted[@sorted / 2]) / 2
                        : $sorted[$#sorted / 2];
}


# The standard error of a median: of the ranks that enclose it at two of these
# errors on either side, so that no distribution is taken for granted.

sub error_of {
    my @sorted = sort { $a <=> $b } @_;

    my $middle = $#sorted / 2;
    my $away = sqrt(@sorted);
    my $low = $middle - $away < 0 ? 0 : $middle - $away;
    my $high = $middle + $away > $#sorted ? $#sorted : $middle + $away;

    return ($sorted[$high] - $sorted[$low]) / 4;
}


1;
