package MailPolicy::Replay;

# Recorded sessions, played against servers as they are, or cut at an octet,
# or octet by octet; many at a time, in one process.
#
# A session is a text file:
#
#     # comment
#     every 13           of its splits only one in so many is worth a run
#     server login       a tag that the server must have
#     C: text            is sent, with CRLF
#     C! octets          is sent as it is; \r \n \t \0 \\ \xNN
#     S: 250             a reply is awaited, with one of these codes; "x" is
#     S: 250 5xx         any digit
#     TLS                the handshake of STARTTLS
#     S(reject): 554     this line only at servers with this tag, or without:
#     C(!reject): NOOP
#
# What stands between two "S" is one write.  After the last line the server
# has to close the connection.

use strict;
use warnings;

use Exporter qw(import);
use IO::Socket::INET;
use Socket qw(IPPROTO_TCP TCP_NODELAY);
use Time::HiRes qw(clock_gettime time CLOCK_MONOTONIC);

use MailPolicy::Client;

our @EXPORT_OK = qw(load_session play positions);

# long enough for a read of its own where the machine is not too busy
use constant PAUSE => 0.002;

my %ESCAPE = (r => "\r", n => "\n", t => "\t", 0 => "\0", '\\' => '\\');


# { name, tags, every, lines }

sub load_session {
    my ($file) = @_;

    my ($name) = $file =~ m{([^/]+)\.txt\z};
    my $session = { name => $name, tags => [], every => 1, lines => [] };

    open(my $fh, '<:raw', $file) or die "$file: $!\n";

    while (my $line = <$fh>) {
        chomp $line;
        next if $line =~ /^(?:#.*)?$/;

        if ($line =~ /^every (\d+)$/) {
            $session->{every} = $1;

        } elsif ($line =~ /^server (\S+)$/) {
            push @{ $session->{tags} }, $1;

        } else {
            push @{ $session->{lines} }, parsed($line)
                // die "$file, line $.: cannot be read\n";
        }
    }

    return $session;
}


sub parsed {
    my ($line) = @_;

    return { tls => 1 } if $line eq 'TLS';

    my ($who, $tag, $kind, $text) =
        $line =~ /^([CS])(?:\((!?[\w-]+)\))?([:!]) ?(.*)$/ or return;

    return { tag => $tag, send => "$text\r\n" } if "$who$kind" eq 'C:';
    return { tag => $tag, send => unescaped($text) } if "$who$kind" eq 'C!';
    return { tag => $tag, codes => $text } if "$who$kind" eq 'S:';
    return;
}


sub unescaped {
    my ($text) = @_;

    return $text =~ s/\\(?:x([0-9a-fA-F]{2})|(.))/
        defined $1 ? chr hex $1 : $ESCAPE{$2} \/\/ die "escape $2\n" /gerx;
}


# What is to be done at a server with these tags: a list of { send }, { codes }
# and { tls }, with one { send } where several lines follow each other.

sub steps {
    my ($session, @tags) = @_;

    my %tag = map { $_ => 1 } @tags;
    my @steps;

    for my $line (@{ $session->{lines} }) {
        my ($not, $tag) = ($line->{tag} // '') =~ /^(!?)(.*)$/;
        next if $tag ne '' && ($tag{$tag} xor !$not);

        if (defined $line->{send} && @steps && defined $steps[-1]{send}) {
            $steps[-1]{send} .= $line->{send};
        } else {
            push @steps, { %$line };
        }
    }

    return @steps;
}


# the positions among all octets of the client where a write can be cut

sub positions {
    my ($session, @tags) = @_;

    my $at = 0;
    my @positions;

    for my $step (grep { defined $_->{send} } steps($session, @tags)) {
        my $length = length $step->{send};
        push @positions, map { $at + $_ } 1 .. $length - 1;
        $at += $length;
    }

    return @positions;
}


# Plays runs, so many at a time, but none any more after so many failures.  A
# run has session, port, tls, tags, from (an address of its own), and cut: a
# position, 'octets', or undef.  It gets
#
#     replies     all of them, in order; then CLOSED or what went wrong
#     failed      what went wrong, if something did
#     record      as of MailPolicy::Client
#
# Those that were not played have none of these.

sub play {
    my ($runs, $parallel, $failures) = @_;

    my @waiting = @$runs;
    my @playing;
    my $failed = 0;

    local $SIG{PIPE} = 'IGNORE';

    while (@waiting || @playing) {
        while (@waiting && @playing < $parallel) {
            my $run = shift @waiting;
            begin($run);
            push @playing, $run;
        }

        turn(@playing);

        for my $run (grep { $_->{over} } @playing) {
            delete @$run{qw(socket steps pieces in)};
            $failed++ if defined $run->{failed};
        }

        @playing = grep { !$_->{over} } @playing;
        @waiting = () if $failed >= $failures;
    }
}


sub begin {
    my ($run) = @_;

    my $socket = IO::Socket::INET->new(
        PeerAddr => '127.0.0.1', PeerPort => $run->{port}, Proto => 'tcp',
        LocalAddr => $run->{from},
    ) or return over($run, "connect: $!");

    setsockopt($socket, IPPROTO_TCP, TCP_NODELAY, 1);

    $run->{record} = MailPolicy::Client::new_record($socket);
    $run->{record}{name} = name($run);
    $socket->blocking(0);

    @$run{qw(socket in replies)} = ($socket, '', []);
    $run->{steps} = [ steps($run->{session}, @{ $run->{tags} }) ];
    unshift @{ $run->{steps} }, { tls => 1 } if $run->{tls};
    $run->{at} = 0;
    alive($run);
    advance($run, 0);
}


sub name {
    my ($run) = @_;

    return "$run->{session}{name} at $run->{server}, "
        . (!defined $run->{cut} ? 'whole' : "cut at $run->{cut}");
}


sub alive { $_[0]{deadline} = time() + 10 }


sub over {
    my ($run, $failure) = @_;

    $run->{over} = 1;
    push @{ $run->{replies} }, $failure // 'CLOSED';
    $run->{failed} = name($run) . ": $failure" if defined $failure;

    my $socket = $run->{socket} or return;

    # no goodbye of TLS, which would block
    $socket->can('stop_SSL') ? $socket->close(SSL_no_shutdown => 1)
                             : close($socket);
}


# all that can be done now, after waiting for it

sub turn {
    my (@runs) = @_;

    my ($readable, $writable) = ('', '');
    my $now = time();
    my $wait = 1;

    for my $run (@runs) {
        next if $run->{over};

        my $want = wants($run, $now);

        vec($readable, fileno($run->{socket}), 1) = 1 unless $want eq 'write';
        vec($writable, fileno($run->{socket}), 1) = 1 if $want =~ /^write/;

        my $due = ($run->{wake} // $run->{deadline}) - $now;
        $wait = $due > 0 ? $due : 0 if $due < $wait;
    }

    select($readable, $writable, undef, $wait);
    $now = time();

    for my $run (grep { !$_->{over} } @runs) {
        my $fd = fileno($run->{socket});
        my ($can_read, $can_write) =
            (vec($readable, $fd, 1), vec($writable, $fd, 1));

        if ($can_read || $can_write || defined $run->{wake}) {
            delete $run->{wake} if defined $run->{wake} && $run->{wake} <= $now;
            advance($run, $can_read);

        } elsif ($run->{deadline} < $now) {
            over($run, 'TIMEOUT');
        }
    }
}


# a handshake says itself what it waits for

sub wants {
    my ($run, $now) = @_;

    return $run->{handshake} if $run->{handshake};
    return 'read' if defined $run->{wake} && $run->{wake} > $now;
    return $run->{pieces} && @{ $run->{pieces} } ? 'write or read' : 'read';
}


sub advance {
    my ($run, $can_read) = @_;

    receive($run) if $can_read && !$run->{handshake};

    until ($run->{over}) {
        my $step = $run->{steps}[0];

        if (!$step) {
            over($run) if $run->{closed};
            return;
        }

        my $finished = $step->{tls} ? handshake($run)
            : defined $step->{send} ? send_some($run, $step->{send})
            : reply_is($run, $step->{codes});

        return unless $finished;
        shift @{ $run->{steps} };
    }
}


sub receive {
    my ($run) = @_;

    while (1) {
        my $n = sysread($run->{socket}, my $octets, 65536);

        return if !defined $n && $!{EAGAIN};

        if (!$n) {
            $run->{closed} = 1;
            return;
        }

        MailPolicy::Client::recorded($run->{record}, 'S', $octets);
        $run->{in} .= $octets;
        alive($run);

        while ($run->{in} =~ s/\A((?:\d{3}-[^\n]*\n)*(?!\d{3}-)[^\n]*\n)//) {
            push @{ $run->{replies} }, $1 =~ s/\r\n/\n/gr;
        }

        # otherwise select() tells
        return unless $run->{socket}->can('pending')
            && $run->{socket}->pending();
    }
}


sub reply_is {
    my ($run, $codes) = @_;

    my $reply = $run->{replies}[ $run->{seen} // 0 ];

    if (!defined $reply) {
        over($run, "closed, instead of $codes") if $run->{closed};
        return 0;
    }

    my $pattern = join('|', split(' ', $codes =~ s/x/\\d/gr));

    if ($reply !~ /\A(?:$pattern)/) {
        over($run, "\"$reply\" instead of $codes" =~ s/\n/|/gr);
        return 0;
    }

    $run->{seen}++;
    return 1;
}


# what is sent to one that has closed is lost

sub send_some {
    my ($run, $octets) = @_;

    my $pieces = $run->{pieces} //= pieces($run, $octets);

    while (@$pieces && !$run->{closed}) {
        return 0 if defined $run->{wake};

        my $when = clock_gettime(CLOCK_MONOTONIC);
        my $n = syswrite($run->{socket}, $pieces->[0]);

        if (!defined $n) {
            return 0 if $!{EAGAIN};

            # there may be replies to read
            receive($run);
            $run->{closed} = 1;
            last;
        }

        MailPolicy::Client::recorded($run->{record}, 'C',
            substr($pieces->[0], 0, $n, ''), $when);
        alive($run);

        if ($pieces->[0] eq '') {
            shift @$pieces;
            $run->{wake} = time() + PAUSE if @$pieces;
        }
    }

    $run->{at} += length $octets;
    delete @$run{qw(pieces wake)};
    return 1;
}


sub pieces {
    my ($run, $octets) = @_;

    my $cut = $run->{cut};

    return [ $octets ] unless defined $cut;
    return [ split //, $octets ] if $cut eq 'octets';

    $cut -= $run->{at};
    return [ $octets ] if $cut <= 0 || $cut >= length $octets;
    return [ substr($octets, 0, $cut), substr($octets, $cut) ];
}


sub handshake {
    my ($run) = @_;

    require IO::Socket::SSL;

    if (!$run->{handshake}) {
        my $socket = IO::Socket::SSL->start_SSL($run->{socket},
            SSL_startHandshake => 0, SSL_reuse_ctx => context())
            or return over($run, 'TLS: ' . IO::Socket::SSL::errstr());
        $run->{socket} = $socket;
    }

    if ($run->{socket}->connect_SSL()) {
        delete $run->{handshake};
        alive($run);
        return 1;
    }

    no warnings "once";
    my $error = $IO::Socket::SSL::SSL_ERROR;

    $run->{handshake} = $error == IO::Socket::SSL::SSL_WANT_READ() ? 'read'
        : $error == IO::Socket::SSL::SSL_WANT_WRITE() ? 'write'
        : over($run, 'TLS: ' . IO::Socket::SSL::errstr());
    return 0;
}


my $context;

sub context {
    return $context //= IO::Socket::SSL::SSL_Context->new(
        SSL_verify_mode => 0);
}


1;
