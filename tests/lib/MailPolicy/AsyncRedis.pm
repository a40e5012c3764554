package MailPolicy::AsyncRedis;

# A Redis that misbehaves with the questions of one point of the asynchronous
# matrix (A2, A3, A4, A5, or "all" of them) and answers all others well:
#
#     $fake->mode('A3 late');
#
#     good           all is answered
#     A3 never       no answer, as long as this is the mode
#     A3 late        the answer, behind LATE seconds
#     A3 soon        the answer, behind SOON seconds
#     A3 twice       the answer, twice
#     A3 close       the connection is closed
#     A3 due         the same, behind LATE seconds, with what is due by then
#     A3 going       the same, behind SOON seconds

use strict;
use warnings;

use parent 'MailPolicy::FakeRedis';

use MailPolicy::FakeRedis qw(is_charge integers charged);

use constant { LATE => 1, SOON => 0.3 };

my $CRLF = "\r\n";

my %DO = (
    never => sub { (\'HOLD', $_[0]) },
    late  => sub { (\LATE, $_[0]) },
    soon  => sub { (\SOON, $_[0]) },
    twice => sub { ($_[0] x 2) },
    close => sub { 'CLOSE' },
    due   => sub { (\LATE, 'CLOSE') },
    going => sub { (\SOON, 'CLOSE') },
);


sub new {
    my ($class, %option) = @_;

    my %modes = (good => sub { (answer(@_))[1] });

    for my $point (qw(A2 A3 A4 A5 all)) {
        for my $what (keys %DO) {
            $modes{"$point $what"} = sub {
                my ($asked, $answer) = answer(@_);

                return $asked && ($asked eq $point || $point eq 'all')
                    ? $DO{$what}->($answer) : $answer;
            };
        }
    }

    return $class->SUPER::new(%option, modes => \%modes);
}


# the point that a command belongs to, and what a good Redis says; passwords
# are "secret"

sub answer {
    my @words = @_;

    return ('', "+PONG$CRLF") if $words[0] eq 'PING';
    return ('A2', "*" . (@words - 2) . "$CRLF\$13$CRLF\{PLAIN}secret$CRLF"
        . "\$-1$CRLF" x (@words - 3)) if $words[0] eq 'HMGET';
    return ('A5', "\$5${CRLF}relay$CRLF") if $words[0] eq 'GET';
    return ('A3', integers(charged(@words))) if is_charge(@words);
    return ('A4', integers(1));
}


# how often it was asked this about that key

sub asked {
    my ($self, $point, $key) = @_;

    return scalar grep {
        my (undef, @words) = @$_;
        my ($asked) = answer(@words);
        $asked eq $point
            && grep { /(?:\{|^mail:route:)\Q$key\E\}?$/ } @words;
    } $self->commands();
}


1;
