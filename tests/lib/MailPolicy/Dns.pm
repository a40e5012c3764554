package MailPolicy::Dns;

# A name server for tests, over UDP: PTR and A records as told, NXDOMAIN for
# all else.  The name in a PTR answer may hold any octets.
#
#     my $dns = MailPolicy::Dns->new(dir => $t->dir(), port => $port,
#         ptr => { '127.0.0.1' => 'host.example' },
#         a   => { 'host.example' => '127.0.0.1' });
#
# An address may be several, "127.0.0.1 127.0.0.2 ::1": A and AAAA records.
# They can be set while it runs, as can be that a name is not answered:
#
#     $dns->set('host.example' => '127.0.0.2', 'away.example' => 'silent');

use strict;
use warnings;

use IO::Socket::INET;
use Socket qw(AF_INET AF_INET6 inet_pton);
use Storable qw(retrieve store);
use Time::HiRes qw(sleep);

use MailPolicy::Process qw(fork_server stop_process);


sub new {
    my ($class, %option) = @_;

    my $self = bless { ptr => {}, a => {}, delay => 0, ttl => 60, %option },
        $class;
    $self->set(%{ $self->{a} });

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
        $self->read_names();
        my $answer = $self->answer($query);
        $self->{socket}->send($answer, 0, $peer) if length($answer);
    }
}


# the names, by way of a file, as another process answers

sub set {
    my ($self, %name) = @_;

    $self->{a} = { %{ $self->{a} }, %name };

    my $file = "$self->{dir}/dns.names";
    store($self->{a}, "$file.new");
    rename("$file.new", $file) or die "$file: $!\n";
}


sub read_names {
    my ($self) = @_;

    $self->{a} = retrieve("$self->{dir}/dns.names");
}


sub answer {
    my ($self, $query) = @_;

    my ($id) = unpack('n', $query);
    my ($question, $labels) = parse($query);
    my $type = unpack('n', substr($question, -4, 2));
    my @data;

    if ($type == 12) {
        my $address = join('.', reverse @$labels[0 .. 3]);
        my $name = $self->{ptr}{$address};
        @data = encode($name) if defined $name;

    } elsif ($type == 1 || $type == 28) {
        my $addresses = $self->{a}{lc(join('.', @$labels))} // '';
        return '' if $addresses eq 'silent';

        @data = map { inet_pton($type == 1 ? AF_INET : AF_INET6, $_) }
            grep { ($type == 28) == /:/ } split(/ /, $addresses);
    }

    # a name that exists has no record of another type, but it exists
    my $known = @data || length($self->{a}{lc(join('.', @$labels))} // '');

    my $header = pack('n6', $id, $known ? 0x8180 : 0x8183, 1, scalar(@data),
        0, 0);

    return $header . $question . join('', map { pack('n3 N n', 0xc00c, $type,
        1, $self->{ttl}, length($_)) . $_ } @data);
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
