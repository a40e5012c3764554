package MailPolicy::RawTls;

# TLS of a client, with the records in the test's hand: they can be sent in
# halves, late, or not at all, and with anything behind them.
#
#     my $c = $t->client('tls');
#     my $tls = MailPolicy::RawTls->new($c, host => 'edge.example.com');
#     $tls->handshake() or die;
#     $c->send_raw(substr($tls->records("NOOP\r\n"), 0, 7));
#
# What comes is read with read_reply() of this, not of the client.

use strict;
use warnings;

use Net::SSLeay ();


# the client has a connection in clear; host (SNI), version (0x0303 for 1.2,
# the newest by default)

sub new {
    my ($class, $client, %option) = @_;

    Net::SSLeay::initialize();

    my $self = bless { client => $client, said => '' }, $class;

    my $ctx = $self->{ctx} = Net::SSLeay::CTX_new() or die "no context\n";

    Net::SSLeay::CTX_set_max_proto_version($ctx, $option{version})
        if $option{version};

    my $ssl = $self->{ssl} = Net::SSLeay::new($ctx) or die "no session\n";

    $self->{$_} = Net::SSLeay::BIO_new(Net::SSLeay::BIO_s_mem())
        for qw(in out);
    Net::SSLeay::set_bio($ssl, $self->{in}, $self->{out});
    Net::SSLeay::set_tlsext_host_name($ssl, $option{host}) if $option{host};
    Net::SSLeay::set_connect_state($ssl);

    return $self;
}


sub DESTROY {
    my ($self) = @_;

    # its BIOs are freed with it
    Net::SSLeay::free($self->{ssl}) if $self->{ssl};
    Net::SSLeay::CTX_free($self->{ctx}) if $self->{ctx};
}


sub version { return Net::SSLeay::version($_[0]{ssl}) }


# what OpenSSL has to say to the server

sub pending {
    my ($self) = @_;

    my $octets = '';

    while (Net::SSLeay::BIO_pending($self->{out})) {
        $octets .= Net::SSLeay::BIO_read($self->{out});
    }

    return $octets;
}


# octets of the server, for OpenSSL: false if none came

sub feed {
    my ($self, $timeout) = @_;

    my $octets = $self->{client}->read_some($timeout);

    return 0 unless defined $octets;
    Net::SSLeay::BIO_write($self->{in}, $octets);
    $self->{came} .= $octets;
    return 1;
}


sub handshake {
    my ($self) = @_;

    while (1) {
        my $rc = Net::SSLeay::do_handshake($self->{ssl});

        $self->{client}->send_raw($self->pending());
        return 1 if $rc == 1;
        return 0 unless $self->feed();
    }
}


# octets as records, which are not sent

sub records {
    my ($self, $octets) = @_;

    Net::SSLeay::write($self->{ssl}, $octets);
    return $self->pending();
}


sub send { return $_[0]{client}->send_raw($_[0]->records($_[1])) }


# the record that says goodbye

sub close_notify {
    my ($self) = @_;

    Net::SSLeay::shutdown($self->{ssl});
    return $self->pending();
}


# as a client's: "CLOSED" also where the server says goodbye

sub read_reply {
    my ($self, $timeout) = @_;

    until ($self->{said} =~ /^\d{3}(?: .*)?\r\n/m) {
        my $octets = Net::SSLeay::read($self->{ssl});

        if (defined $octets && $octets ne '') {
            $self->{said} .= $octets;
            next;
        }

        return "$self->{said}$self->{client}{state}"
            unless $self->feed($timeout);
    }

    $self->{said} =~ s/\A(.*?^\d{3}(?: [^\r]*)?)\r\n//ms;
    return $1 =~ s/\r//gr;
}


sub cmd {
    my ($self, $command) = @_;

    $self->send("$command\r\n");
    return $self->read_reply();
}


1;
