package MailPolicy::Sentinel;

# A real Redis with a replica, and three Sentinels that watch them.
#
#     my $sentinel = MailPolicy::Sentinel->new($t);
#     $sentinel->urls();          # what policy_redis is told
#     $sentinel->{a};             # the master at first; its replica is {b}

use strict;
use warnings;

use constant NAMES => qw(s1 s2 s3);


sub new {
    my ($class, $t, %option) = @_;

    my $self = bless { t => $t, args => [], %option }, $class;
    my @args = ('--repl-diskless-sync-delay', 0, '--repl-timeout', 5,
        @{ $self->{args} });

    $self->{a} = $t->run_redis(name => 'a_redis', args => \@args);
    $self->{b} = $t->run_redis(name => 'b_redis', args => [ @args,
        '--replicaof', '127.0.0.1', $self->{a}->port() ]);

    $self->{$_} = $t->run_redis(name => $_, sentinel => $self->_conf())
        for NAMES;

    $t->wait_for(sub { $self->is_well($self->{a}, $self->{b}) }, 20)
        or die "the Sentinels do not come up\n";

    return $self;
}


sub _conf {
    my ($self) = @_;

    return <<"EOF";
sentinel monitor mymaster 127.0.0.1 @{[ $self->{a}->port() ]} 2
sentinel down-after-milliseconds mymaster 700
sentinel failover-timeout mymaster 1000
EOF
}


sub urls {
    my ($self) = @_;

    return join(' ', map { $self->{$_}->url() } NAMES)
        . ' sentinel=mymaster';
}


# each Sentinel knows the others, this master, and this replica, which has all

sub is_well {
    my ($self, $master, $replica) = @_;

    return eval {
        return 0 if $master->cmd('INFO', 'replication') !~ /state=online/
            || $replica->cmd('ROLE')->[3] ne 'connected';

        for my $name (NAMES) {
            my $m = { @{ $self->{$name}->cmd('SENTINEL', 'master',
                'mymaster') } };
            return 0 if $m->{port} != $master->port()
                || $m->{flags} ne 'master' || $m->{'num-slaves'} != 1
                || $m->{'num-other-sentinels'} != 2;
        }

        1;
    };
}


# true if one of them names that master

sub names {
    my ($self, $redis) = @_;

    return scalar(grep { $redis->port() == eval {
        $self->{$_}->cmd('SENTINEL', 'get-master-addr-by-name',
            'mymaster')->[1] } // 0 } NAMES);
}


1;
