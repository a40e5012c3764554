package MailPolicy::Dns;

# A name server for tests, over UDP: PTR and A records as told, NXDOMAIN for
# all else.  The name in a PTR answer may hold any octets.
#
#     my $dns = MailPolicy::Dns->new(dir => $t->dir(), port => $port,
#         ptr => { '127.0.0.1' => 'host.example' },
#         a   => { 'host.example' => '127.0.0.1' });

use strict;
use warnings;

use IO::Socket::INET;
use Time::HiRes qw(sleep);

use MailPolicy::Process qw(fork_server stop_process);


sub new {
    my ($class, %option) = @_;

    my $self = bless { ptr => {}, a => {}, delay => 0, %option }, $class;

    $self->{socket} = IO::Socket::INET->new(LocalAddr => '127.0.0.1',
        LocalPort => $self->{port}, Proto => 'udp')
        or die "udp port $self->{port}: $@\n";

    $self->{pid} = fork_server("$self->{dir}/dns.log", [ $self->{socket} ],
        sub { $self->serve() });

    return $self;
}


sub stop {
    my ($self) = @_;

    my $pid = delete $self->{pid} or return;
    stop_process($pid, 'TERM', 5);
}


sub serve {
    my ($self) = @_;

    while (defined(my $peer = $self->{socket}->recv(my $query, 512))) {
        sleep($self->{delay}) if $self->{delay};
        $self->{socket}->send($self->answer($query), 0, $peer);
    }
}


sub answer {
    my ($self, $query) = @_;

    my ($id) = unpack('n', $query);
    my ($question, $labels) = parse($query);
    my $type = unpack('n', substr($question, -4, 2));
    my $data;

    if ($type == 12) {
        my $address = join('.', reverse @$labels[0 .. 3]);
        my $name = $self->{ptr}{$address};
        $data = encode($name) if defined $name;

    } elsif ($type == 1) {
        my $address = $self->{a}{lc(join('.', @$labels))};
        $data = pack('C4', split(/\./, $address)) if defined $address;
    }

    # a name that exists has no record of another type, but it exists
    my $known = defined $data || exists $self->{a}{lc(join('.', @$labels))};

    my $header = pack('n6', $id, $known ? 0x8180 : 0x8183, 1,
        defined $data ? 1 : 0, 0, 0);

    return $header . $question unless defined $data;
    return $header . $question
        . pack('n3 N n', 0xc00c, $type, 1, 60, length($data)) . $data;
}


sub parse {
    my ($query) = @_;

    my ($position, @labels) = (12);

    while (my $length = unpack('C', substr($query, $position, 1))) {
        push @labels, substr($query, $position + 1, $length);
        $position += 1 + $length;
    }

    return (substr($query, 12, $position + 5 - 12), \@labels);
}


sub encode {
    my ($name) = @_;

    return join('', map { pack('C/a*', $_) } split(/\./, $name)) . "\0";
}


1;
