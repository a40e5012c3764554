package MailPolicy::ExactClient;

# A client of t/exact*.t, in a process of its own: sends many messages, of
# senders some of which send most, and writes down what it knows of each:
#
#     id sender first asked replies end code
#
# first: the time before its MAIL was sent; asked: after the last reply to
# its group of MAIL, RCPT, DATA (0: not waited for); end: that of the reply to
# the message; code: of the reply that decided it, or "gone".

use strict;
use warnings;

use IO::Socket::INET;
use Socket qw(IPPROTO_TCP SOL_SOCKET SO_LINGER TCP_NODELAY);
use Time::HiRes qw(time);

use constant TIMEOUT => 30;


# number, ports, senders, domains, targets (domains of recipients), messages,
# file

sub run {
    my ($class, %option) = @_;

    my $self = bless { %option, left => 0 }, $class;

    srand(1000 + $self->{number});
    open($self->{out}, '>', $self->{file}) or die "$self->{file}: $!\n";

    my $next = $self->message(0);

    for my $n (1 .. $self->{messages}) {
        my $m = $next;
        $next = $n < $self->{messages} ? $self->message($n) : undef;
        $self->send($m, $next);
    }

    $self->say("QUIT\r\n") if $self->{socket};
    close($self->{out}) or die "$self->{file}: $!\n";
}


# what is to be sent, and how it ends

sub message {
    my ($self, $n) = @_;

    # the third power: a tenth of all from the first of a thousand
    my $i = int($self->{senders} * rand() ** 3);
    my $ends = rand();
    my $how = $ends < 0.03 ? 'unread' : $ends < 0.06 ? 'body'
        : $ends < 0.09 ? 'unanswered' : $ends < 0.14 ? 'rset'
        : $ends < 0.20 ? 'late' : 'ok';
    my $id = "$self->{number}-$n" . ($how eq 'late' ? '-late' : '');
    my $text = "X-Id: $id\r\n\r\n" . ('x' x 60 . "\r\n") x int(rand(20));

    my @rcpts = map { 'RCPT TO:<' . (rand() < 0.1 ? 'no' : 'yes')
        . "$_\@t" . int(rand($self->{targets})) . '.example>' }
        1 .. 1 + int(rand(3));

    # some do not say how large it is, or not the truth
    my $size = (rand() < 0.5) ? ' SIZE=' . int(length($text) * rand(1.5)) : '';
    my $end = $how eq 'rset' ? 'RSET' : 'DATA';

    return {
        id => $id, sender => $i, how => $how, text => $text,
        expect => 2 + @rcpts,
        group => join("\r\n", "MAIL FROM:<s$i\@d"
            . $i % $self->{domains} . ".example>$size", @rcpts, $end, ''),
    };
}


sub send {
    my ($self, $m, $next) = @_;

    $self->open() unless $self->{socket};

    # not yet there with the message before
    if (!$m->{first}) {
        $m->{first} = time();
        $self->say($m->{group});
    }

    return $self->leave($m, 'gone') if $m->{how} eq 'unread';

    my @replies = map { $self->read() } 1 .. $m->{expect};
    my ($refused) = grep { !/^[23]/ } @replies;
    $m->{asked} = time();

    if ($m->{how} eq 'rset') {
        return $self->note($m, 'rset');

    } elsif ($replies[-1] !~ /^354/) {
        $self->go_on($replies[0] =~ /^2/ ? "RSET\r\n" : '', $next);
        $self->read() if $replies[0] =~ /^2/;
        return $self->note($m, $refused);
    }

    return $self->leave($m, 'gone', substr($m->{text}, 0,
        int(rand(length $m->{text})))) if $m->{how} eq 'body';
    return $self->leave($m, 'gone', "$m->{text}.\r\n")
        if $m->{how} eq 'unanswered';

    $self->go_on("$m->{text}.\r\n", $next);
    my $reply = $self->read();
    $m->{end} = time();
    $self->note($m, $reply);
}


# and, in the same write, what is next

sub go_on {
    my ($self, $octets, $next) = @_;

    if ($next && ++$self->{count} % 90) {
        $next->{first} = time();
        $octets .= $next->{group};
    }

    $self->say($octets) if $octets ne '';

    # a session may not go on for ever
    $self->{last} = 1 if $next && !$next->{first};
}


sub note {
    my ($self, $m, $code) = @_;

    $code = substr($code, 0, 9) =~ s/ /-/gr if $code =~ /^\d/;

    print { $self->{out} } join(' ', $m->{id}, $m->{sender},
        map({ sprintf('%.6f', $_ // 0) } @$m{qw(first asked end)}), $code),
        "\n";

    $self->close() if delete $self->{last};
}


sub leave {
    my ($self, $m, $code, $octets) = @_;

    $self->say($octets) if defined $octets;

    # some politely
    setsockopt($self->{socket}, SOL_SOCKET, SO_LINGER, pack('ii', 1, 0))
        if rand() < 0.5;
    $self->close();
    $self->note($m, $code);
}


sub open {
    my ($self) = @_;

    my @ports = @{ $self->{ports} };

    $self->{socket} = IO::Socket::INET->new(PeerAddr => '127.0.0.1',
        PeerPort => $ports[rand @ports], Timeout => TIMEOUT)
        or die "connect: $!\n";
    setsockopt($self->{socket}, IPPROTO_TCP, TCP_NODELAY, 1);

    $self->{in} = '';
    $self->read();
    $self->say("EHLO client.example\r\n");
    $self->read();
}


sub close { my ($self) = @_; CORE::close(delete $self->{socket}) }

# small enough not to be stuck in the socket's buffer
sub say {
    my ($self, $octets) = @_;

    syswrite($self->{socket}, $octets) // die "write: $!\n";
}


sub read {
    my ($self) = @_;

    while (1) {
        return $1 if $self->{in} =~ s/^((?:\d{3}-.*\r\n)*\d{3} .*)\r\n//;

        my $vector = '';
        vec($vector, fileno($self->{socket}), 1) = 1;
        select($vector, undef, undef, TIMEOUT) > 0 or die "no reply\n";
        sysread($self->{socket}, $self->{in}, 65536, length $self->{in})
            or die "closed\n";
    }
}


1;
