package MailPolicy::Trace::Dialogue;

# What a recorded client said and was told, as pairs of a request and its
# reply, and as transactions.
#
# A request is a command, a response to 334, a message's content behind 354,
# or a chunk behind BDAT with its command.  Lines end with LF here: what ends
# in bare LF is answered, too.  Replies that the client did not read are
# assumed to be good ones; what rests on them is "unsure".

use strict;
use warnings;

use Exporter qw(import);

use MailPolicy::Relay::Parameters qw(path);

our @EXPORT_OK = qw(exchanges transactions);


# Of a record of MailPolicy::Client: a list of
#
#     { verb, line, content, sent, reply, told }
#
# in order.  verb: of a command, in upper case; RESPONSE; CONTENT for what is
# behind 354.  content: that, or a chunk; its end included where it is a dot.
# sent: when its last octet was; reply: its lines, joined by "\n", or undef;
# told: when it was there.  The greeting is the first, without a request; so
# is a reply that nothing was sent for.

sub exchanges {
    my ($record) = @_;

    my ($octets, $sent) = stream($record, 'C');
    my @replies = replies(stream($record, 'S'));
    my $state = { octets => $octets, at => 0, expects => 'COMMAND' };
    my @exchanges;

    push @exchanges, { verb => '', %{ shift @replies } } if @replies;

    while (my $request = request($state)) {
        my $reply = shift @replies;

        $request->{sent} = when($sent, $state->{at} - 1);
        @$request{qw(reply told)} = @$reply{qw(reply told)} if $reply;
        push @exchanges, $request;

        last if ($request->{reply} // '') =~ /^(?:421|221)/;
        expect($state, $request);
    }

    push @exchanges, map { { verb => '', %$_ } } @replies;
    return @exchanges;
}


# all octets of a direction, and [ where they begin, when ] for each event

sub stream {
    my ($record, $who) = @_;

    my $octets = '';
    my @times;

    for my $event (grep { $_->[1] eq $who } @{ $record->{events} }) {
        push @times, [ length($octets), $event->[0] ];
        $octets .= $event->[2];
    }

    return ($octets, \@times);
}


sub when {
    my ($times, $position) = @_;

    my ($low, $high) = (0, $#$times);

    while ($low < $high) {
        my $middle = int(($low + $high + 1) / 2);
        $times->[$middle][0] <= $position ? ($low = $middle)
                                          : ($high = $middle - 1);
    }

    return $times->[$low][1];
}


sub replies {
    my ($octets, $times) = @_;

    my @replies;

    while ($octets =~ /\G((?:\d{3}-[^\n]*\n)*(?!\d{3}-)[^\n]*\n)/gc) {
        my $end = pos($octets);
        my $reply = $1 =~ s/\r\n/\n/gr =~ s/\n\z//r;
        push @replies, { reply => $reply, told => when($times, $end - 1) };
    }

    return @replies;
}


# the next one that is complete

sub request {
    my ($state) = @_;

    pos($state->{octets}) = $state->{at};

    my $request = $state->{expects} eq 'CONTENT' ? content($state)
                                                 : line($state);

    $state->{at} = pos($state->{octets}) if $request;
    return $request;
}


sub content {
    my ($state) = @_;

    # the first line may be the dot
    return unless $state->{octets} =~ /\G(\.\r\n|.*?\r\n\.\r\n)/gcs;
    return { verb => 'CONTENT', line => '', content => $1 };
}


sub line {
    my ($state) = @_;

    return unless $state->{octets} =~ /\G([^\n]*\n)/gc;
    my $line = $1;

    return { verb => 'RESPONSE', line => $line =~ s/\r\n\z//r }
        if $state->{expects} eq 'RESPONSE';

    my ($verb) = $line =~ /^([^\s]*)/;
    my %request = (verb => uc $verb, line => $line =~ s/\r\n\z//r);

    if ($line =~ /^BDAT (\d{1,15})( LAST)?\r\n\z/i) {
        my $at = pos($state->{octets});
        return if $1 > length($state->{octets}) - $at;

        $request{content} = substr($state->{octets}, $at, $1);
        $request{last} = defined $2;
        pos($state->{octets}) = $at + $1;
    }

    return \%request;
}


sub expect {
    my ($state, $request) = @_;

    my $reply = $request->{reply} // assumed($request);

    $state->{expects} = $reply =~ /^354/ ? 'CONTENT'
        : $reply =~ /^334/ ? 'RESPONSE' : 'COMMAND';
}


# what a good server would have said; the second response of LOGIN cannot be
# told from a command then, which does no harm

sub assumed {
    my ($request) = @_;

    return '354' if $request->{verb} eq 'DATA';
    return '334' if $request->{line} =~ /^AUTH \S+$/i;
    return '250';
}


# The transactions among exchanges: those whose MAIL was not refused for its
# syntax or its place.
#
#     { from, rcpts, mail (exchange), end (exchange of the end of the message,
#       if it was sent), content (with chunks as one, dots removed), bdat,
#       told (all codes that were told in it), unsure }

sub transactions {
    my (@exchanges) = @_;

    my @all;
    my $t;

    for my $exchange (@exchanges) {
        my $verb = $exchange->{verb};
        next if $verb eq '';

        my $reply = $exchange->{reply} // assumed($exchange);

        if ($verb eq 'MAIL') {
            next if misplaced($reply);
            push @all, $t = begun($exchange, $reply);
            undef $t if $reply !~ /^2/;
            next;
        }

        next unless $t;

        $t->{unsure} = 1 unless defined $exchange->{reply};
        push @{ $t->{told} }, substr($reply, 0, 3);
        undef $t if advanced($t, $exchange, $reply);
    }

    return @all;
}


# Refused before it became a transaction.  A relay's refusal with one of these
# codes would be taken for ours.

sub misplaced {
    my ($reply) = @_;

    return $reply =~ /^(?:421|50[0-4]|530|538|555|553 5\.6\.7)/;
}


sub begun {
    my ($exchange, $reply) = @_;

    return {
        from   => address($exchange->{line}),
        rcpts  => [],
        mail   => $exchange,
        told   => [ substr($reply, 0, 3) ],
        unsure => !defined $exchange->{reply},
    };
}


# without a source route, which nobody is told

sub address {
    my ($line) = @_;

    my ($address) = path($line);
    $address =~ s/^\@[^:]*://;
    return $address;
}


# true at its end

sub advanced {
    my ($t, $exchange, $reply) = @_;

    my $verb = $exchange->{verb};
    my $good = $reply =~ /^2/;

    if ($verb eq 'RCPT') {
        push @{ $t->{rcpts} }, address($exchange->{line}) if $good;

    } elsif ($verb eq 'CONTENT') {
        $t->{end} = $exchange;
        $t->{content} = undotted($exchange->{content});

    } elsif ($verb eq 'BDAT' && defined $exchange->{content}) {
        # the place of one that is refused so is none in the message
        return 0 if $reply =~ /^50/;

        $t->{bdat} = 1;
        $t->{content} .= $exchange->{content};
        $t->{end} = $exchange if $exchange->{last};
    }

    return 1 if $t->{end};
    return $good && $verb =~ /^(?:RSET|EHLO|HELO|QUIT|STARTTLS)$/;
}


sub undotted {
    my ($content) = @_;

    $content =~ s/(\A|\r\n)\./$1/g;
    return substr($content, 0, -2);
}


1;
