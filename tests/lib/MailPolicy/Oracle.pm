package MailPolicy::Oracle;

# What other parsers than the scripted relay would have made of the very
# octets that it got: four of them, from strict to careless, read the streams
# of its connections.  All must see the messages that the relay saw, with the
# same envelopes and as many lines, or something could be smuggled.
#
#     strict          a line ends with CRLF
#     lf-tolerant     with LF, or with CRLF
#     cr-tolerant     with CR, LF, or CRLF
#     stripping       NUL and CR are dropped, then with LF
#
# A chunk of BDAT is octets for all of them.  The tolerant ones take what is
# left at the end of a stream for a line, too.
#
# Whether a command was refused is known by its place in the stream.  Where a
# parser sees a command that the relay did not, it is taken to have passed.

use strict;
use warnings;

use Exporter qw(import);

use MailPolicy::Relay::Parameters qw(path);

our @EXPORT_OK = qw(oracle_disagreements oracle_messages oracle_parsers
    oracle_segments);

my %LINE = (
    'strict'      => qr/\G(.*?)\r\n/s,
    'lf-tolerant' => qr/\G(?|(.*?)\r?\n|(.+)\z)/s,
    'cr-tolerant' => qr/\G(?|(.*?)(?:\r\n|\r|\n)|(.+)\z)/s,
    'stripping'   => qr/\G(?|(.*?)\n|(.+)\z)/s,
);


sub oracle_parsers { return sort keys %LINE }


# The messages that a parser sees in streams, in order: { from, rcpts, lines
# (of the content, or) octets (of all chunks), stream (its number, from 0),
# code (of the reply to the end, as far as it is known) }.  A stream is a
# string, or [ octets, { position => code } ] as of Relay->answers.

sub oracle_messages {
    my ($parser, @streams) = @_;

    my @messages;

    for my $n (0 .. $#streams) {
        my $stream = $streams[$n];
        my ($octets, $answers) = ref $stream ? @$stream : ($stream, {});

        push @messages,
            map { { %$_, stream => $n } } read_stream($parser, $octets, $answers);
    }

    return @messages;
}


sub read_stream {
    my ($parser, $octets, $answers) = @_;

    my $line = $LINE{$parser} or die "no parser \"$parser\"\n";
    my %t = (rcpts => []);
    my @messages;

    while ($octets =~ /$line/gc) {
        my $text = $1;
        my $code = $answers->{ pos $octets };

        $text =~ tr/\0\r//d if $parser eq 'stripping';

        if (defined $t{lines}) {
            if ($text eq '.') {
                push @messages, { from => $t{from}, rcpts => $t{rcpts},
                    lines => $t{lines}, code => $code };
                %t = (rcpts => []);
            } else {
                $t{lines}++;
            }

        } elsif ($text =~ /^BDAT (\d+)( LAST)?$/i) {
            # pos() is kept when it is set beyond the end
            my $end = pos($octets) + $1;
            last if $end > length $octets;
            pos($octets) = $end;

            next if defined $code && $code eq 'refused';
            $t{octets} += $1;

            if ($2) {
                push @messages, { from => $t{from}, rcpts => $t{rcpts},
                    octets => $t{octets}, code => $answers->{$end} };
                %t = (rcpts => []);
            }

        } elsif (!defined $code || $code =~ /^[23]/) {
            command(\%t, $text);
        }
    }

    return @messages;
}


# one that passed

sub command {
    my ($t, $text) = @_;

    if ($text =~ /^MAIL FROM:/i) {
        %$t = (from => (path($text))[0], rcpts => []);

    } elsif ($text =~ /^RCPT TO:/i) {
        push @{ $t->{rcpts} }, (path($text))[0];

    } elsif ($text =~ /^DATA$/i) {
        $t->{lines} = 0;

    } elsif ($text =~ /^(?:RSET$|EHLO |HELO |XCLIENT )/i) {
        %$t = (rcpts => []);
    }
}


# The texts of all that is wrong: where a parser sees other messages than the
# relay, or the same with another reply to them; and, outside of chunks, NUL,
# bare CR and bare LF.

sub oracle_disagreements {
    my ($relay) = @_;

    my @octets = $relay->streams();
    my @answers = $relay->answers();
    my @streams = map { [ $octets[$_], $answers[$_] ] } 0 .. $#octets;
    my (%seen, @wrong);

    push @{ $seen{ $_->{connection} - 1 } }, relayed($_)
        for $relay->received();

    for my $n (0 .. $#streams) {
        my @relay = @{ $seen{$n} // [] };
        my $where = $relay->name() . ', connection ' . ($n + 1);

        for my $parser (oracle_parsers()) {
            my @parser = map { shown($_) }
                oracle_messages($parser, $streams[$n]);

            push @wrong, difference("$where, $parser", \@relay, \@parser);
        }

        push @wrong, map { "$where: $_" } stray_octets(@{ $streams[$n] });
    }

    return @wrong;
}


sub shown {
    my ($m) = @_;

    my $code = $m->{code} // 'none';
    my $size = defined $m->{octets} ? "$m->{octets} octets"
                                    : "$m->{lines} lines";

    return join(' ', 'from', '<' . ($m->{from} // 'nobody') . '>', 'to',
        map({ "<$_>" } @{ $m->{rcpts} }), $size, "answered $code");
}


# a message of the relay in these terms

sub relayed {
    my ($message) = @_;

    my %m = (from => $message->{from}, rcpts => $message->{rcpts});

    ($m{code}) = $message->{reply} =~ /^(\w+)/;

    if ($message->{bdat}) {
        $m{octets} = length $message->{data};
    } else {
        $m{lines} = () = $message->{raw} =~ /\r\n/g;
        $m{lines}--;
    }

    return shown(\%m);
}


sub difference {
    my ($where, $relay, $parser) = @_;

    my $last = @$relay > @$parser ? $#$relay : $#$parser;

    for my $n (0 .. $last) {
        my ($ours, $theirs) = map { $_ // 'nothing' }
            ($relay->[$n], $parser->[$n]);

        # behind the first one all others may be shifted
        return "$where: $theirs, where the relay has seen $ours"
            if $ours ne $theirs;
    }

    return;
}


sub stray_octets {
    my ($octets, $answers) = @_;

    my $outside = join('', map { $_->[0] eq 'line' ? $_->[1] : () }
        oracle_segments($octets, $answers));
    my @wrong;

    push @wrong, 'NUL' if $outside =~ /\0/;
    push @wrong, 'bare CR' if $outside =~ /\r(?!\n)/;
    push @wrong, 'bare LF' if $outside =~ /(?<!\r)\n/;
    return @wrong;
}


# A stream as [ kind, octets ] in order: "line" with its end, a command or one
# of a content, or what is left; and "chunk", behind its command.

sub oracle_segments {
    my ($octets, $answers) = @_;

    my @segments;
    my $in_body = 0;

    while ($octets =~ /\G(.*?\r\n)/gcs) {
        my $line = $1;
        my $code = $answers->{ pos $octets } // '';

        push @segments, [ 'line', $line ];

        if ($in_body) {
            $in_body = 0 if $line eq ".\r\n";

        } elsif ($line =~ /^DATA\r\n\z/i) {
            $in_body = 1 if $code =~ /^(?:3..)?$/;

        } elsif ($line =~ /^BDAT (\d+)(?: LAST)?\r\n\z/i) {
            # or what came of it
            my $chunk = substr($octets, pos $octets, $1);
            push @segments, [ 'chunk', $chunk ];
            pos($octets) += length $chunk;
        }
    }

    my $rest = substr($octets, pos($octets) // 0);
    push @segments, [ 'line', $rest ] if $rest ne '';
    return @segments;
}


1;
