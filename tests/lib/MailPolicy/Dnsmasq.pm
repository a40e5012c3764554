package MailPolicy::Dnsmasq;

# A real name server, dnsmasq, on port 53 of an address of its own in
# 127.0.0.0/8, as resolv.conf knows no other port.
#
#     plan(skip_all => MailPolicy::Dnsmasq::missing())
#         if MailPolicy::Dnsmasq::missing();
#     my $dns = MailPolicy::Dnsmasq->new($t,
#         txt    => { 'pass.example' => 'v=spf1 ip4:192.0.2.1 -all' },
#         host   => { 'mx.example' => '192.0.2.1' },     # A and PTR
#         silent => [ 'away.example' ]);
#
# What it does not know does not exist (NXDOMAIN); names below those in
# silent are not answered at all.  It ends with the test.

use strict;
use warnings;

use IO::Socket::INET;

use MailPolicy::Process qw(spawn stop_process);


# why there cannot be one; empty if there can

sub missing {
    return 'a name server on port 53 can be started by root only' if $>;
    return 'the package dnsmasq-base is not installed'
        unless grep { -x "$_/dnsmasq" } split /:/, $ENV{PATH};

    # an address of which nobody else can have the port, but who has them all
    return 'the port 53 of all addresses is taken'
        unless IO::Socket::INET->new(LocalAddr => '127.53.0.1',
            LocalPort => 53, Proto => 'udp');
    return '';
}


sub new {
    my ($class, $t, %option) = @_;

    my $self = bless { t => $t, name => 'dnsmasq', txt => {}, host => {},
        silent => [], %option }, $class;

    # what asks it is told no port, so a free one makes the address
    my $port = $t->port($self->{name});
    $self->{address} = sprintf('127.53.%d.%d', $port >> 8, $port & 255);
    $self->{log} = $t->dir() . "/$self->{name}.log";

    # hears all, says nothing
    $self->{deaf} = IO::Socket::INET->new(LocalAddr => '127.0.0.1',
        LocalPort => $port, Proto => 'udp') or die "udp port $port: $@\n";

    push @{ $t->{servers} }, $self;
    $self->start();
    return $self;
}


sub start {
    my ($self) = @_;

    my ($txt, $host) = @$self{qw(txt host)};
    my $deaf = '127.0.0.1#' . $self->{deaf}->sockport();

    $self->{pid} = spawn($self->{log}, 'dnsmasq', '--keep-in-foreground',
        '--conf-file=/dev/null', '--pid-file', '--log-facility=-',
        '--log-queries', '--no-hosts', '--no-resolv', '--bind-interfaces',
        "--listen-address=$self->{address}", '--local=/#/', '--cache-size=0',
        map({ "--txt-record=$_,$txt->{$_}" } sort keys %$txt),
        map({ "--host-record=$_,$host->{$_}" } sort keys %$host),
        map({ "--server=/$_/$deaf" } @{ $self->{silent} }));

    my $up = $self->{t}->wait_for(sub {
        return IO::Socket::INET->new(PeerAddr => $self->{address},
            PeerPort => 53, Proto => 'tcp');
    });

    die 'dnsmasq does not start: ' . $self->{t}->read_file($self->{log})
        unless $up;
}


sub stop {
    my ($self) = @_;

    my $pid = delete $self->{pid} or return;
    stop_process($pid, 'TERM', 5);
}


sub address { return $_[0]{address} }


# how often somebody asked for this name, by the type of its record

sub asked {
    my ($self, $type, $name) = @_;

    my $all = () = $self->{t}->read_file($self->{log})
        =~ /query\[$type\] \Q$name\E from /g;
    return $all;
}


1;
