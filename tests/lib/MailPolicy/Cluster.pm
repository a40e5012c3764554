package MailPolicy::Cluster;

# A real Redis Cluster: three masters, three replicas, and what tests do to
# it.
#
#     my $cluster = MailPolicy::Cluster->new($t);
#     my $node = $cluster->owner($cluster->slot('mail:used:x:{a}'));
#     $cluster->move($slot, $node, $other);

use strict;
use warnings;

use Time::HiRes qw(sleep time);

use MailPolicy::Process qw(spawn wait_exit);


sub new {
    my ($class, $t) = @_;

    my $self = bless { t => $t, nodes => [] }, $class;

    $self->add("n$_") for 1 .. 6;

    my $pid = spawn($t->dir() . '/cluster.log', 'redis-cli', '--cluster',
        'create', (map { '127.0.0.1:' . $_->port() } $self->nodes()),
        '--cluster-replicas', 1, '--cluster-yes');

    my $status = wait_exit($pid, 30);
    die 'redis-cli --cluster create: ' . $t->read_file('cluster.log')
        if !defined $status || $status != 0;

    $t->wait_for(sub { !grep { !$self->is_well($_) } $self->nodes() }, 20)
        or die "the cluster does not come up\n";

    return $self;
}


# a node of its own: it has met nobody

sub add {
    my ($self, $name) = @_;

    my $node = $self->{t}->run_redis(name => $name,
        bus => $self->{t}->port("bus_$name"));

    push @{ $self->{nodes} }, $node;
    return $node;
}


sub nodes { return @{ $_[0]{nodes} } }
sub alive { return grep { $_->pid() && !$_->{stopped} } $_[0]->nodes() }


sub is_well {
    my ($self, $node) = @_;

    return eval {
        $node->cmd('CLUSTER', 'INFO') =~ /cluster_state:ok/
            && $node->cmd('CLUSTER', 'NODES') !~ /fail|handshake|noaddr/
            && (() = $node->cmd('CLUSTER', 'NODES') =~ /\n/g)
                >= $self->nodes()
            && ($node->cmd('ROLE')->[0] eq 'master'
                || $node->cmd('ROLE')->[3] eq 'connected');
    };
}


sub slot { my ($self, $key) = @_;
    return ($self->alive())[0]->cmd('CLUSTER', 'KEYSLOT', $key) }

sub id { return $_[1]->cmd('CLUSTER', 'MYID') }


# [ first, last, port of the master ], as one of them sees it

sub slots {
    my ($self, $asked) = @_;

    $asked //= ($self->alive())[0];

    return map { [ $_->[0], $_->[1], $_->[2][1] ] }
        @{ $asked->cmd('CLUSTER', 'SLOTS') };
}


sub owner {
    my ($self, $slot, $asked) = @_;

    my ($range) = grep { $slot >= $_->[0] && $slot <= $_->[1] }
        $self->slots($asked) or return;

    return $self->by_port($range->[2]);
}


sub by_port { my ($self, $port) = @_;
    return (grep { $_->port() == $port } $self->nodes())[0] }


# the masters that have slots

sub masters {
    my ($self, $asked) = @_;

    my %port = map { $_->[2] => 1 } $self->slots($asked);
    return map { $self->by_port($_) } sort keys %port;
}


# from here on, the slot is on its way

sub begin {
    my ($self, $slot, $from, $to) = @_;

    $to->cmd('CLUSTER', 'SETSLOT', $slot, 'IMPORTING', $self->id($from));
    $from->cmd('CLUSTER', 'SETSLOT', $slot, 'MIGRATING', $self->id($to));
}


sub carry {
    my ($self, $slot, $from, $to) = @_;

    while (my @keys = @{ $from->cmd('CLUSTER', 'GETKEYSINSLOT', $slot, 100) })
    {
        $from->cmd('MIGRATE', '127.0.0.1', $to->port(), '', 0, 5000, 'KEYS',
            @keys);
    }
}


sub end {
    my ($self, $slot, $from, $to) = @_;

    for my $node ($to, $from) {
        eval {
            $node->cmd('CLUSTER', 'SETSLOT', $slot, 'NODE', $self->id($to));
            1;
        }
        # who gives its last slot away becomes a replica at once
        or $@ =~ /only with masters/ or die $@;
    }
}


sub move {
    my ($self, $slot, $from, $to) = @_;

    $self->begin($slot, $from, $to);
    $self->carry($slot, $from, $to);
    $self->end($slot, $from, $to);
    $self->settle($slot, $to);
}


# All know it, and the epoch in which it came to be: a node that does not
# would give the next slot the same one, and lose it again.

sub settle {
    my ($self, $slot, $to) = @_;

    $self->{t}->wait_for(sub {
        my %seen = map { $self->epoch($to, $_) => 1 } $self->alive();
        return keys %seen == 1
            && !grep { $self->owner($slot, $_) != $to } $self->alive();
    }) or die "slot $slot is not known to be moved\n";
}


# that of a node, as another one has it

sub epoch {
    my ($self, $node, $asked) = @_;

    my $id = $self->id($node);
    my ($epoch) = $asked->cmd('CLUSTER', 'NODES')
        =~ /^$id \S+ \S+ \S+ \S+ \S+ (\d+) /m;
    return $epoch // 'none';
}


# a command about a key, at the node that has it

sub cmd {
    my ($self, @command) = @_;

    my $node = $self->owner($self->slot($command[1]))
        or die "nobody has the slot of $command[1]\n";
    return $node->cmd(@command);
}


1;
