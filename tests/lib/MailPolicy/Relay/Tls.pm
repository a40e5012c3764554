package MailPolicy::Relay::Tls;

# TLS of a scripted relay: the server's side of one connection, over memory;
# the sockets are its owner's.
#
#     my $context = MailPolicy::Relay::Tls::context({ cert => ..., key => ...,
#         ca => ..., version => 0x0303 });
#     my $tls = MailPolicy::Relay::Tls->new($context);
#
# ca: a certificate is asked of the client, and verified with it; version: no
# newer one.

use strict;
use warnings;

use Net::SSLeay ();


sub context {
    my ($option) = @_;

    Net::SSLeay::initialize();

    my $ctx = Net::SSLeay::CTX_new() or die "no context\n";

    Net::SSLeay::CTX_use_certificate_chain_file($ctx, $option->{cert}) == 1
        or die "$option->{cert}: no certificate\n";
    Net::SSLeay::CTX_use_PrivateKey_file($ctx, $option->{key}, 1) == 1
        or die "$option->{key}: no key\n";
    Net::SSLeay::CTX_set_max_proto_version($ctx, $option->{version})
        if $option->{version};
    Net::SSLeay::CTX_set_session_id_context($ctx, 'relay', 5);

    if ($option->{ca}) {
        Net::SSLeay::CTX_load_verify_locations($ctx, $option->{ca}, '');
        Net::SSLeay::CTX_set_verify($ctx, Net::SSLeay::VERIFY_PEER(), 0);
    }

    return $ctx;
}


sub new {
    my ($class, $context) = @_;

    my $self = bless { ssl => Net::SSLeay::new($context) }, $class;

    $self->{$_} = Net::SSLeay::BIO_new(Net::SSLeay::BIO_s_mem())
        for qw(in out);
    Net::SSLeay::set_bio($self->{ssl}, $self->{in}, $self->{out});
    Net::SSLeay::set_accept_state($self->{ssl});

    return $self;
}


sub DESTROY { Net::SSLeay::free($_[0]{ssl}) }


sub done { return $_[0]{done} }


# Takes octets of the client; the plain ones that were in them, or undef where
# it is no TLS.  There may be something to say() afterwards.

sub feed {
    my ($self, $octets) = @_;

    my $ssl = $self->{ssl};
    my $plain = '';

    Net::SSLeay::BIO_write($self->{in}, $octets);

    if (!$self->{done}) {
        my $rc = Net::SSLeay::do_handshake($ssl);

        if ($rc != 1) {
            return Net::SSLeay::get_error($ssl, $rc)
                == Net::SSLeay::ERROR_WANT_READ() ? '' : undef;
        }

        $self->{done} = 1;
    }

    while (defined(my $more = Net::SSLeay::read($ssl))) {
        last if $more eq '';
        $plain .= $more;
    }

    return $plain;
}


# records to be sent, plain octets among them

sub say {
    my ($self, $plain) = @_;

    my $records = '';

    Net::SSLeay::write($self->{ssl}, $plain)
        if defined $plain && $plain ne '';

    while (Net::SSLeay::BIO_pending($self->{out})) {
        $records .= Net::SSLeay::BIO_read($self->{out});
    }

    return $records;
}


# goodbye

sub close_notify {
    my ($self) = @_;

    Net::SSLeay::shutdown($self->{ssl});
    return $self->say();
}


# for the transcript

sub about {
    my ($self) = @_;

    my $ssl = $self->{ssl};
    my $x509 = Net::SSLeay::get_peer_certificate($ssl);
    my $subject = $x509 ? Net::SSLeay::X509_NAME_oneline(
        Net::SSLeay::X509_get_subject_name($x509)) : 'none';

    return join(' ', Net::SSLeay::get_version($ssl),
        Net::SSLeay::session_reused($ssl) ? 'resumed' : 'new',
        'name=' . (Net::SSLeay::get_servername($ssl) // ''),
        'cipher=' . Net::SSLeay::get_cipher($ssl), "client=$subject");
}


1;
