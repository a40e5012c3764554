package MailPolicy::Client;

# An SMTP client for tests.  It never waits for ever: where a reply does not
# come, the reply is "TIMEOUT"; where the connection is gone, it is "CLOSED".
#
#     my $c = MailPolicy::Client->new(port => 2525);
#     like($c->read_reply, qr/^220 /);
#     like($c->cmd('EHLO client.example'), qr/^250 /m);
#
# A reply is one string: its lines as they came, without CRLF, joined by "\n".
#
# With record => 1, all octets are kept, for MailPolicy::Trace: record() is
#
#     { local, server => "address:port", events => [ [ when, who, octets ] ] }
#
# with who as "C" (sent) or "S" (received), and octets as inside of TLS.  When
# is the clock that the scripted relay has, too: before the octets were sent,
# or after they were received.

use strict;
use warnings;

use Errno ();
use IO::Socket::INET;
use IO::Socket::UNIX;
use MIME::Base64 qw(encode_base64);
use Socket qw(IPPROTO_TCP SOL_SOCKET SO_LINGER TCP_NODELAY);
use Time::HiRes qw(clock_gettime time CLOCK_MONOTONIC);

use MailPolicy::Secrets qw(remember);


# port or path; timeout (10 s), from (local address), tls => 1 (implicit),
# ssl => { IO::Socket::SSL options }, record => 1

sub new {
    my ($class, %option) = @_;

    my $self = bless {
        timeout => 10,
        host    => '127.0.0.1',
        ssl     => {},
        buffer  => '',
        %option,
    }, $class;

    my $tls = delete $self->{tls};
    my $record = delete $self->{record};

    $self->{socket} = $self->_connect();
    return $self unless $self->{socket};

    $self->{record} = new_record($self->{socket}) if $record;

    # reads and writes are only tried when select() says so, and may still
    # find nothing to do (a TLS record without content)
    $self->_tls() if $tls;
    $self->{socket}->blocking(0) if $self->{socket};

    return $self;
}


sub new_record {
    my ($socket) = @_;

    my %record = (events => []);

    if ($socket->can('sockport')) {
        $record{local} = $socket->sockhost() . ':' . $socket->sockport();
        $record{server} = $socket->peerhost() . ':' . $socket->peerport();
    }

    return \%record;
}


# one more event

sub recorded {
    my ($record, $who, $octets, $when) = @_;

    push @{ $record->{events} },
        [ $when // clock_gettime(CLOCK_MONOTONIC), $who, $octets ];
}


sub record { return $_[0]{record} }


sub _connect {
    my ($self) = @_;

    return IO::Socket::UNIX->new(Peer => $self->{path}) if $self->{path};

    my $socket = IO::Socket::INET->new(
        PeerAddr => $self->{host},
        PeerPort => $self->{port},
        Proto    => 'tcp',
        Timeout  => $self->{timeout},
        $self->{from} ? (LocalAddr => $self->{from}) : (),
    ) or return;

    setsockopt($socket, IPPROTO_TCP, TCP_NODELAY, 1);
    return $socket;
}


sub _tls {
    my ($self) = @_;

    require IO::Socket::SSL;

    $self->{socket}->blocking(1);

    my $socket = IO::Socket::SSL->start_SSL($self->{socket},
        SSL_verify_mode => 0,
        Timeout         => $self->{timeout},
        %{ $self->{ssl} });

    if (!$socket) {
        $self->{tls_error} = IO::Socket::SSL::errstr();
        $self->close();
        return 0;
    }

    $socket->blocking(0);
    $self->{tls} = 1;
    return 1;
}


sub connected { return defined $_[0]{socket} }
sub socket    { return $_[0]{socket} }


# sends octets as they are; false if that was not possible in time

sub send_raw {
    my ($self, $octets) = @_;

    my $end = time() + $self->{timeout};
    my $sent = 0;

    local $SIG{PIPE} = 'IGNORE';

    while ($sent < length($octets)) {
        my $socket = $self->{socket} or return 0;
        my $vector = '';

        vec($vector, fileno($socket), 1) = 1;
        my $left = $end - time();
        return 0 if $left <= 0;
        select(undef, $vector, undef, $left) > 0 or return 0;

        my $when = clock_gettime(CLOCK_MONOTONIC);
        my $n = syswrite($socket, $octets, min(length($octets) - $sent, 16384),
            $sent);
        return 0 unless defined $n || $!{EAGAIN};

        recorded($self->{record}, 'C', substr($octets, $sent, $n), $when)
            if $n && $self->{record};
        $sent += $n // 0;
    }

    return 1;
}


# the next octets, or undef: $self->{state} is then TIMEOUT or CLOSED

sub read_some {
    my ($self, $timeout) = @_;

    my $end = time() + ($timeout // $self->{timeout});

    while (1) {
        my $socket = $self->{socket};

        if (!$socket) {
            $self->{state} = 'CLOSED';
            return undef;
        }

        my $pending = $self->{tls} && $socket->can('pending')
            && $socket->pending();

        if (!$pending) {
            my $left = $end - time();
            my $vector = '';

            vec($vector, fileno($socket), 1) = 1;

            if ($left <= 0
                || select($vector, undef, undef, $left) <= 0)
            {
                $self->{state} = 'TIMEOUT';
                return undef;
            }
        }

        my $n = sysread($socket, my $octets, 65536);

        next if !defined $n && $!{EAGAIN};

        if (!$n) {
            $self->{state} = 'CLOSED';
            return undef;
        }

        recorded($self->{record}, 'S', $octets) if $self->{record};
        return $octets;
    }
}


sub read_line {
    my ($self, $timeout) = @_;

    while ($self->{buffer} !~ /\n/) {
        my $octets = $self->read_some($timeout);
        return undef unless defined $octets;
        $self->{buffer} .= $octets;
    }

    $self->{buffer} =~ s/^(.*?\n)//s;
    return $1;
}


sub read_reply {
    my ($self, $timeout) = @_;

    my @lines;

    while (1) {
        my $line = $self->read_line($timeout);

        if (!defined $line) {
            return join("\n", @lines, $self->{state});
        }

        # kept if it is not CRLF: a reply that tests will not match
        $line =~ s/\r\n\z//;
        push @lines, $line;

        return join("\n", @lines) unless $line =~ /^\d{3}-/;
    }
}


# one command, one reply

sub cmd {
    my ($self, $command) = @_;

    $self->send_raw("$command\r\n");
    return $self->read_reply();
}


# all commands in one write; as many replies

sub pipeline {
    my ($self, @commands) = @_;

    $self->send_raw(join('', map { "$_\r\n" } @commands));
    return map { $self->read_reply() } @commands;
}


sub greeting {
    my ($self) = @_;

    $self->{greeting} //= $self->read_reply();
    return $self->{greeting};
}


sub ehlo {
    my ($self, $name) = @_;

    return $self->cmd('EHLO ' . ($name // 'client.example'));
}


# STARTTLS up to the finished handshake; the reply, then EHLO is the caller's

sub starttls {
    my ($self) = @_;

    my $reply = $self->cmd('STARTTLS');
    return $reply unless $reply =~ /^220/;

    $self->{injected} = $self->{buffer};
    $self->{buffer} = '';

    return $self->_tls() ? $reply : "TLS failed: $self->{tls_error}";
}


sub auth_plain {
    my ($self, $login, $password, $authzid) = @_;

    remember($password);

    my $message = join("\0", $authzid // '', $login, $password);
    return $self->cmd('AUTH PLAIN ' . encode_base64($message, ''));
}


sub auth_login {
    my ($self, $login, $password) = @_;

    remember($password);

    my $reply = $self->cmd('AUTH LOGIN');
    return $reply unless $reply =~ /^334/;

    $reply = $self->cmd(encode_base64($login, ''));
    return $reply unless $reply =~ /^334/;

    return $self->cmd(encode_base64($password, ''));
}


# A whole transaction.  Returns the replies to MAIL, to each RCPT, to DATA
# and to the final dot, as far as it got; where no recipient was accepted,
# RSET is sent, the reply to which is not in the list.  The message is given
# with "\n" or CRLF line ends, not dot-stuffed.

sub send_mail {
    my ($self, $from, $rcpts, $data, %option) = @_;

    $from = "<$from>" unless $from =~ /^</;
    my @rcpts = map { /^</ ? $_ : "<$_>" } @$rcpts;
    my $parameters = $option{parameters} ? " $option{parameters}" : '';

    my @replies = $self->cmd("MAIL FROM:$from$parameters");
    return @replies unless $replies[0] =~ /^250/;

    my @told = map { $self->cmd("RCPT TO:$_") } @rcpts;
    push @replies, @told;

    if (!grep { /^250/ } @told) {
        $self->cmd('RSET');
        return @replies;
    }

    push @replies, $self->cmd('DATA');
    return @replies unless $replies[-1] =~ /^354/;

    $self->send_raw(encode_body($data));
    push @replies, $self->read_reply();
    return @replies;
}


# line ends as CRLF, leading dots doubled, with the end of data

sub encode_body {
    my ($data) = @_;

    $data =~ s/\r?\n/\r\n/g;
    $data .= "\r\n" unless $data eq '' || $data =~ /\r\n\z/;
    $data =~ s/(\A|\r\n)\./$1../g;

    return "$data.\r\n";
}


# 1 if the other side closes within the timeout (what it sends is dropped)

sub wait_close {
    my ($self, $timeout) = @_;

    my $end = time() + ($timeout // $self->{timeout});

    while (1) {
        my $octets = $self->read_some(max($end - time(), 0));
        next if defined $octets;
        return $self->{state} eq 'CLOSED' ? 1 : 0;
    }
}


sub quit {
    my ($self) = @_;

    my $reply = $self->cmd('QUIT');
    $self->close();
    return $reply;
}


# no more octets from us; the other side may still send

sub half_close { shutdown($_[0]{socket}, 1) }


sub close {
    my ($self) = @_;

    my $socket = delete $self->{socket} or return;
    CORE::close($socket);
}


# RST instead of FIN

sub reset {
    my ($self) = @_;

    my $socket = delete $self->{socket} or return;

    setsockopt($socket, SOL_SOCKET, SO_LINGER, pack('ii', 1, 0));

    # IO::Socket::SSL would say goodbye first
    $socket->can('stop_SSL')
        ? $socket->close(SSL_no_shutdown => 1) : CORE::close($socket);
}


sub min { return $_[0] < $_[1] ? $_[0] : $_[1] }
sub max { return $_[0] > $_[1] ? $_[0] : $_[1] }


1;
