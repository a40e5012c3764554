package MailPolicy::OneShot;

# Clients that send one message a session, as fast as they can, each message
# as one of many identities: an address of 127.0.1.0/24, a HELO name, a login.
#
#     my $clients = MailPolicy::OneShot->new(identities => 50, clients => 4);
#     my $seconds = $clients->send($t->port('smtp'), 1000);
#
# Identity n is 127.0.1.n, hn.example, un@example.com (password "secret");
# its messages come from <sn@example.com>.
# Dies if one is not accepted.

use strict;
use warnings;

use MIME::Base64 qw(encode_base64);
use POSIX ();
use Socket qw(INADDR_LOOPBACK IPPROTO_TCP PF_INET SOCK_STREAM TCP_NODELAY
    inet_aton pack_sockaddr_in);
use Time::HiRes qw(time);

use constant TIMEOUT => 30;


sub new {
    my ($class, %option) = @_;

    return bless { identities => 50, clients => 4, sent => 0, %option },
        $class;
}


# to the port; at: message n has this identity, one at random by default.
# Returns how long that took.

sub send {
    my ($self, $port, $count, $at) = @_;

    my $begin = time();
    my @pids;

    for my $client (1 .. $self->{clients}) {
        my @ids = grep { $_ % $self->{clients} == $client - 1 }
            map { $self->{sent} + $_ } 1 .. $count;

        my $pid = fork() // die "fork: $!\n";
        push @pids, $pid;
        next if $pid;

        srand($self->{sent} + $client);
        my $good = eval {
            message($port, $at ? $at->($_)
                : 1 + int(rand($self->{identities})), $_) for @ids;
            1;
        };
        warn $@ unless $good;
        POSIX::_exit($good ? 0 : 1);
    }

    my $failed = 0;

    for my $pid (@pids) {
        waitpid($pid, 0);
        $failed ||= $?;
    }

    die "a client failed\n" if $failed;

    $self->{sent} += $count;
    return time() - $begin;
}


sub message {
    my ($port, $n, $id) = @_;

    # IO::Socket takes longer for this than the message takes
    socket(my $socket, PF_INET, SOCK_STREAM, 0) or die "socket: $!\n";
    setsockopt($socket, IPPROTO_TCP, TCP_NODELAY, 1);
    bind($socket, pack_sockaddr_in(0, inet_aton("127.0.1.$n")))
        && connect($socket, pack_sockaddr_in($port, INADDR_LOOPBACK))
        or die "connect: $!\n";

    my $in = '';
    my $plain = encode_base64("\0u$n\@example.com\0secret", '');

    for my $step ([ '', 1, qr/^220 / ], [ "EHLO h$n.example\r\n", 1, qr/^250/ ],
        [ "AUTH PLAIN $plain\r\n", 1, qr/^235 / ],
        [ "MAIL FROM:<s$n\@example.com>\r\nRCPT TO:<r\@example.net>\r\n"
          . "DATA\r\n", 3, qr/^354 / ],
        [ "Subject: $id\r\n\r\nx\r\n.\r\n", 1, qr/^250 / ],
        [ "QUIT\r\n", 1, qr/^221 / ])
    {
        my ($octets, $replies, $expected) = @$step;

        syswrite($socket, $octets) // die "write: $!\n" if $octets ne '';
        my $reply;
        $reply = reply($socket, \$in) for 1 .. $replies;
        die "message $id: $octets: $reply\n" unless $reply =~ $expected;
    }
}


sub reply {
    my ($socket, $in) = @_;

    while (1) {
        return $1 if $$in =~ s/^((?:\d{3}-.*\r\n)*\d{3} .*)\r\n//;

        my $vector = '';
        vec($vector, fileno($socket), 1) = 1;
        select($vector, undef, undef, TIMEOUT) > 0 or die "no reply\n";
        sysread($socket, $$in, 65536, length $$in) or die "closed\n";
    }
}


1;
