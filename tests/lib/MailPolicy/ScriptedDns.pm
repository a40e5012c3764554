package MailPolicy::ScriptedDns;

# A name server that knows each client of 127.0.0.0/16 by the name
# "127-0-1-2.example", forth and back, and answers as the third octet of the
# address says:
#
#     10    behind a while
#     11    twice
#     12    never
#     13    behind a resolver_timeout of one second
#
# and at once where it is something else.  No two clients should have the
# same address, as nginx remembers answers.

use strict;
use warnings;

use parent 'MailPolicy::Dns';

use Time::HiRes qw(time);

# seconds to each answer
my %SCRIPT = (10 => [ 0.3 ], 11 => [ 0.1, 0.1 ], 12 => [], 13 => [ 1.3 ]);


sub serve {
    my ($self) = @_;

    my @due;
    my $log = "$self->{dir}/dns.questions";
    open(my $fh, '>>', $log) or die "$log: $!\n";
    $fh->autoflush(1);

    while (1) {
        my $readable = '';
        my ($next) = sort { $a <=> $b } map { $_->[0] } @due;

        vec($readable, fileno($self->{socket}), 1) = 1;
        my $wait = defined $next ? $next - time() : undef;
        $wait = 0 if defined $wait && $wait < 0;

        if (select($readable, undef, undef, $wait) > 0) {
            my $peer = $self->{socket}->recv(my $query, 512);
            my $address = address($query);
            my ($kind) = $address =~ /^127\.0\.(\d+)/;

            print $fh "$address\n";
            push @due, map { [ time() + $_,
                $self->answer($query), $peer ] } @{ $SCRIPT{$kind} // [ 0 ] };
        }

        my $now = time();
        $self->{socket}->send($_->[1], 0, $_->[2])
            for grep { $_->[0] <= $now } @due;
        @due = grep { $_->[0] > $now } @due;
        print $fh "idle\n" unless @due;
    }
}


# the address in a question for its name, or for that of its name

sub address {
    my ($query) = @_;

    my (undef, $labels) = MailPolicy::Dns::parse($query);
    return join('.', reverse @$labels[0 .. 3]) if @$labels > 4;
    return $labels->[0] =~ tr/-/./r;
}


# "127-0-10-1.example", whatever is asked

sub answer {
    my ($self, $query) = @_;

    my $address = address($query);

    $self->{ptr} = { $address => $address =~ tr/./-/r . '.example' };
    $self->{a} = { $self->{ptr}{$address} => $address };
    return $self->SUPER::answer($query);
}


sub questions {
    my ($self) = @_;

    open(my $fh, '<', "$self->{dir}/dns.questions") or return ();
    return map { chomp; $_ } <$fh>;
}


# how often this address was asked for
sub asked { return scalar grep { $_ eq $_[1] } $_[0]->questions() }
# nothing is to be answered
sub idle { return (($_[0]->questions())[-1] // '') eq 'idle' }


1;
