package MailPolicy::Postgrey;

# A real postgrey, as it is installed, with a database of its own in the
# directory of the test.
#
#     plan(skip_all => MailPolicy::Postgrey::missing())
#         if MailPolicy::Postgrey::missing();
#     my $postgrey = MailPolicy::Postgrey->new($t, delay => 2);
#     ... "policy_service " . $postgrey->address()
#
#     name        of its port, and of its directory: "postgrey"
#     unix        1: on a socket in that directory
#     delay       seconds: 300, as postgrey has it
#     clients     lines of its whitelist of clients
#     recipients  lines of that of recipients
#     args        further arguments
#
# What is in its database stays when it is stopped and started again.  It
# ends with the test.

use strict;
use warnings;

use MailPolicy::Process qw(spawn stop_process);


# why there cannot be one; empty if there can

sub missing {
    return 'the package postgrey is not installed'
        unless grep { -x "$_/postgrey" } split /:/, $ENV{PATH};
    return '';
}


sub new {
    my ($class, $t, %option) = @_;

    my $self = bless {
        t          => $t,
        name       => 'postgrey',
        delay      => 300,
        clients    => [],
        recipients => [],
        args       => [],
        %option,
    }, $class;

    $self->{home} = $t->dir() . "/$self->{name}";
    $self->{log} = "$self->{home}.log";
    mkdir "$self->{home}" or die "$self->{home}: $!\n";

    # where it is started by root, it wants to be somebody else
    ($self->{user}, $self->{group}) = $> == 0 ? ('postgrey', 'postgrey')
        : (scalar getpwuid($>), scalar getgrgid($)));
    chown(scalar getpwnam($self->{user}), -1, $self->{home}) if $> == 0;

    # there have to be such files, or it takes those of the machine
    $t->write_file("$self->{home}/$_",
        join('', map { "$_\n" } @{ $self->{$_} })) for qw(clients recipients);

    # the test stops what is in this list, also when it dies
    push @{ $t->{servers} }, $self;
    $self->start();
    return $self;
}


sub start {
    my ($self) = @_;

    my $home = $self->{home};

    $self->{pid} = spawn($self->{log}, 'postgrey', '--verbose',
        "--dbdir=$home", "--user=$self->{user}", "--group=$self->{group}",
        "--delay=$self->{delay}", "--whitelist-clients=$home/clients",
        "--whitelist-recipients=$home/recipients",
        '--hostname=edge.example.com',
        $self->{unix} ? "--unix=$home/socket"
            : '--inet=127.0.0.1:' . $self->{t}->port($self->{name}),
        @{ $self->{args} });

    my $up = $self->{t}->wait_for(sub {
        my $c = $self->{unix}
            ? $self->{t}->client(undef, path => $self->where())
            : $self->{t}->client($self->where());
        my $connected = $c->connected();
        $c->close();
        return $connected;
    });

    die 'postgrey does not start: ' . $self->log() unless $up;

    $self->{t}->wait_for(sub { $self->connections() == 0 });
    $self->{ours}++;
}


sub stop {
    my ($self, $signal) = @_;

    my $pid = delete $self->{pid} or return;
    stop_process($pid, $signal // 'TERM', 5);
}


sub kill_now { return $_[0]->stop('KILL') }

sub pid { return $_[0]{pid} }
sub log { return $_[0]{t}->read_file($_[0]{log}) }


# as policy_service has it

sub address {
    my ($self) = @_;

    return $self->{unix} ? "unix:$self->{home}/socket"
        : 'inet:127.0.0.1:' . $self->{t}->port($self->{name});
}


# as MailPolicy::Policy has it

sub where {
    my ($self) = @_;

    return $self->{unix} ? "$self->{home}/socket" : $self->{name};
}


# how many connections it has taken since it was first started, but for those
# of start()

sub accepted {
    my ($self) = @_;

    my $all = () = $self->log() =~ / CONNECT /g;
    return $all - $self->{ours};
}


# how many are open; one socket is that on which it listens

sub connections {
    my ($self) = @_;

    my $pid = $self->{pid} or return 0;
    my @sockets = grep { (readlink($_) // '') =~ /^socket:/ }
        glob("/proc/$pid/fd/*");

    return @sockets - 1;
}


# what it decided, as its log says: "greylist, reason=new"

sub decisions {
    my ($self) = @_;

    my @decisions = $self->log() =~ /^action=(\w+, reason=[\w -]+)/mg;
    return @decisions;
}


1;
