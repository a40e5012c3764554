package MailPolicy::Failover;

# What t/failover*.t ask where another Redis takes over while two edges count:
# nobody is refused but by the limit, nobody waits longer than the timeout, the
# new one counts soon after it is known to be the master, and of each key
#
#   meanwhile <= limit - before + lost + open       of each edge
#   accepted <= max(limit, before + meanwhile of both) + lost
#
#   before: what was accepted up to the end of the old one.  meanwhile: from
#   then until what was counted is handed back: each edge grants the rest that
#   it knows of, and two may grant it twice.  lost: writes that the old master
#   had answered and the new one does not have; at most those of the last
#   moment before the end of the old one.
#
#   used <= accepted + open,  used >= accepted - lost
#
#   open: messages that were on their way at the end of the old one; they may
#   be counted by it and, as the answer was lost, by the edge.

use strict;
use warnings;

use List::Util qw(max);
use Test::More;
use Time::HiRes qw(sleep time);

use MailPolicy::Limits qw(thinking used);
use MailPolicy::Load;

use constant {
    LIMIT   => 150,
    CLIENTS => 3,                       # at each edge
    TIMEOUT => 0.3,
    MARGIN  => 2,
    LAG     => 0.1,                     # of replication, at most
    BACK    => 2,                       # the new one counts after so long
    TOLD    => 1,                       # and is told what it does not know
};


# t, redis => what policy_redis is told

sub new {
    my ($class, $t, %option) = @_;

    my $self = bless { t => $t, %option }, $class;

    $t->run_relay(name => 'relay', store => 0);

    for my $edge (qw(a b)) {
        $t->conf($edge, <<"EOF");
worker_processes 2;
error_log %%DIR%%/$edge.error.log notice;
mail {
    policy_redis  $self->{redis} timeout=300ms on_error=local;
    policy_auth   off;
    max_errors    100000;
    proxy_pass    127.0.0.1:%%PORT_relay%%;
    access_log    %%DIR%%/$edge.log;

    server {
        listen        127.0.0.1:%%PORT_$edge%%;
        protocol      smtp;
        policy        on;
        policy_limit  x  key=\$sender  messages=${\LIMIT}/1h;
    }
}
EOF
        $t->run_nginx($edge);
    }

    return $self;
}


# keys: senders, the first of whom sends half of all, the first two being
# counted by the old master; old: that one; end: makes an end of it; new: who
# has taken over, or undef; is_back: true if all workers know; where: who has
# all counters then, if not the new one; after: called when it counts

sub run {
    my ($self, $what, $keys, %on) = @_;

    my $t = $self->{t};
    my ($busy, @keys) = @$keys;
    my ($new, $asked);

    $self->{load} = { map { $_ => MailPolicy::Load->new($t, port => $_,
        clients => CLIENTS, pool => [ ($busy) x 3, @keys ], pause => 0.02)
        } qw(a b) };

    ok($t->wait_for(sub { $self->used_of($on{old}, $busy) >= LIMIT / 2 }),
        "$what: there is load");

    my $end = time();
    $on{end}->();

    ok($t->wait_for(sub { $new = $on{new}->() }, 20),
        "$what: another one has taken over") or return;

    my $named = time();
    my $used = $self->used_of($new, $keys[0]);
    my $is_back = $on{is_back} // sub { return $self->is_back() };

    ok($t->wait_for(sub { $is_back->()
        && $self->used_of($new, $keys[0]) > $used }, 10),
        "$what: all count there");

    my $back = time();
    cmp_ok($back - $named, '<', BACK + 0.5, "$what: soon");
    note(sprintf('%s: taken over after %.1f s, counts after %.1f s more',
        $what, $named - $end, $back - $named));

    $on{after}->() if $on{after};
    $self->_stop($what, $on{where} // $new, @$keys);
    $self->_check($what, $on{where} // $new, $_, $end, $back + TOLD)
        for @$keys;
}


# true if all workers have a master

sub is_back {
    my ($self) = @_;

    return 4 == thinking($self->{t}, 'back', 'a')
        + thinking($self->{t}, 'back', 'b');
}


sub used_of {
    my ($self, $redis, $key) = @_;

    return eval { used($redis, 'x', $key) } // -1;
}


# nobody gets anything more

sub _stop {
    my ($self, $what, $where, @keys) = @_;

    ok($self->{t}->wait_for(sub {
        !grep { $self->used_of($where, $_) < LIMIT } @keys }, 20),
        "$what: all is used up");
    sleep(0.3);

    for my $edge (qw(a b)) {
        my ($longest, %count) = $self->{load}{$edge}->stop();

        is(join(' ', grep { !/^(?:250|450)$/ } sort keys %count), '',
            "$what: $edge: nobody was refused for another reason, or lost");
        cmp_ok($longest, '<', TIMEOUT + MARGIN, "$what: $edge: longest wait");
        note(sprintf('%s: %s: %.2f s, %s', $what, $edge, $longest,
            join(', ', map { "$_: $count{$_}" } sort keys %count)));
    }
}


# of one key; old: the end of the old one; back: when all is handed back

sub _check {
    my ($self, $what, $where, $key, $old, $back) = @_;

    my ($total, $before, $lost, %meanwhile) = (0, 0, 0, a => 0, b => 0);

    for my $edge (qw(a b)) {
        for ($self->{load}{$edge}->accepted()) {
            my ($sender, $begin, $end) = @$_;

            next if $sender ne $key;
            $total++;
            $lost++ if $end > $old - LAG && $begin < $old;
            $end < $old ? $before++ : $begin < $back && $meanwhile{$edge}++;
        }
    }

    my $open = 2 * CLIENTS;
    my $used = $self->used_of($where, $key);
    my $name = "$what: $key";

    for my $edge (qw(a b)) {
        cmp_ok($meanwhile{$edge}, '<=', LIMIT - $before + $lost + $open,
            "$name: $edge granted the rest");
    }

    cmp_ok($total, '<=', max(LIMIT, $before + $meanwhile{a} + $meanwhile{b})
        + $lost, "$name: not too many");
    cmp_ok($total, '>=', LIMIT - $open, "$name: nor too few");
    cmp_ok($used, '<=', $total + $open, "$name: counted at most once");
    cmp_ok($used, '>=', $total - $lost, "$name: and what was not lost");

    note("$name: accepted $total, $before before, meanwhile $meanwhile{a} and"
        . " $meanwhile{b}; used $used of ${\LIMIT}; at most $lost lost");
}


1;
