package MailPolicy::Async;

# The matrix of what a session may wait for (A1 to A12) and what may happen
# meanwhile (E1 to E10): names, which cells there are, and what must be true
# behind each group of them.
#
#     A1   the client's name in the DNS     E1   FIN of the client
#     A2   the provider of logins           E2   RST of the client
#     A3   the limits' verdict              E3   a timer
#     A4   charges given back               E4   the other side closes
#     A5   route or name of a relay         E5   an answer comes too late
#     A6   the connection to a relay        E6   it comes twice
#     A7   TLS with a relay                 E7   reload
#     A8   TLS with the client              E8   worker_shutdown_timeout
#     A9   greeting_delay                   E9   Redis closes, much is due
#     A10  the reply to the final dot       E10  two at once
#     A11  the thread that hashes
#     A12  other policy servers
#
#     my $async = MailPolicy::Async->new($t, $relay);
#     $async->steady('to begin with');
#     ok(..., $async->cell('A3', 'E1'));
#     $async->complete('A3');

use strict;
use warnings;

use Test::More;

use constant EVENTS => map { "E$_" } 1 .. 10;

# cells that there are not

my %NOT = (
    'A1 E9'  => 'nothing is asked of Redis before the greeting',
    'A6 E6'  => 'a connection is made once',
    (map { ("A7 $_" => 'there is no TLS to relays') } EVENTS),
    (map { ("A8 $_" => 'the other side is the client') } qw(E4 E5 E6)),
    'A8 E9'  => 'nothing is due from Redis in a handshake',
    (map { ("A9 $_" => 'there is no other side') } qw(E4 E5 E6)),
    'A9 E9'  => 'nothing is asked of Redis before the greeting',
    'A11 E4' => 'a thread does not close',
    'A11 E6' => 'a thread ends once',
);


# nginx is the instance whose worker must live

sub new {
    my ($class, $t, $relay, $nginx) = @_;

    my ($worker) = $t->worker_pids($nginx);

    return bless { t => $t, relay => $relay, nginx => $nginx, cells => {},
                   worker => $worker }, $class;
}


sub worker { return $_[0]{worker} }


# the name of a cell that is tested

sub cell {
    my ($self, $point, $event, $what) = @_;

    $self->{cells}{"$point $event"}++;
    return "ASYNC ${point}x$event" . (defined $what ? " $what" : '');
}


# Stops the worker, until both of what the code does have happened: the
# worker finds them in one turn of its loop.

sub one_turn {
    my ($self, $code) = @_;

    kill('STOP', $self->{worker});
    $self->{t}->wait_for(sub {
        $self->{t}->read_file("/proc/$self->{worker}/stat") =~ /\) T /;
    });
    $code->();
    kill('CONT', $self->{worker});
}


sub descriptors { return scalar(() = glob("/proc/$_[0]{worker}/fd/*")) }


# Nobody's connections are left, neither here nor at the relay, and the
# worker is the one that it was; the first call says how many descriptors
# there are when nothing happens.  $serves is code that sees to others.

sub steady {
    my ($self, $name, $serves) = @_;

    local $Test::Builder::Level = $Test::Builder::Level + 1;

    my $t = $self->{t};

    $t->disconnect();
    like($serves->(), qr/^250 /, "$name: others are served");
    $t->disconnect();

    if (!defined $self->{baseline}) {
        # sessions that are just closing
        my $last = 0;
        $t->wait_for(sub {
            my $now = $self->descriptors();
            my $same = $now == $last;
            $last = $now;
            select(undef, undef, undef, 0.2);
            return $same;
        });
        $self->{baseline} = $last;
    }

    ok($t->wait_for(sub { $self->descriptors() <= $self->{baseline} }),
        "$name: descriptors as before")
        or diag($self->descriptors() . " > $self->{baseline}");
    ok($t->wait_for(sub { !$self->{relay}->stats()->{open} }),
        "$name: the relay has no connection") if $self->{relay};
    is(join(' ', $t->worker_pids($self->{nginx})), $self->{worker},
        "$name: the worker lives");
}


# a client after EHLO

sub session {
    my ($self, $where) = @_;

    my $c = $self->{t}->client($where);
    $c->greeting();
    $c->ehlo();
    return $c;
}


# the next reply that a client gets

sub is_reply {
    my ($self, $c, $code, $name) = @_;

    local $Test::Builder::Level = $Test::Builder::Level + 1;

    like($c->read_reply(), qr/^$code /, "$name: " . ($code =~ tr/\\//dr));
}


# a reload is over

sub old_gone {
    my ($self, $nginx, $name) = @_;

    local $Test::Builder::Level = $Test::Builder::Level + 1;

    ok($self->{t}->wait_for(sub {
        return 1 == $self->{t}->instance($nginx)->all_worker_pids();
    }), "$name: the old worker is gone");
}


# the cells that there are not; all others of these points were tested

sub complete {
    my ($self, @points) = @_;

    local $Test::Builder::Level = $Test::Builder::Level + 1;

    my @missing;

    for my $cell (map { my $point = $_; map { "$point $_" } EVENTS } @points) {
        my $name = 'ASYNC ' . ($cell =~ s/ /x/r);

        if ($NOT{$cell}) {
            ok(!$self->{cells}{$cell}, "$name: not applicable: $NOT{$cell}");
        } elsif (!$self->{cells}{$cell}) {
            push @missing, $name;
        }
    }

    is("@missing", '', "ASYNC every cell of @points that there is");
}


1;
