package MailPolicy::Policy;

# What Postfix would ask a policy server:
#
#     my $p = MailPolicy::Policy->new($t, 'postfix');     # a port or a path
#     is($p->ask(recipient => 'bob@example.net'), 'DUNNO', '...');
#
# Attributes that are not given are those of a message of alice@example.com
# that begins, at RCPT; undef leaves one out.  A new instance for each object
# and each call of message().

use strict;
use warnings;

use Time::HiRes qw(time);

my $INSTANCE = 0;

my @DEFAULT = (
    request         => 'smtpd_access_policy',
    protocol_state  => 'RCPT',
    protocol_name   => 'ESMTP',
    client_address  => '192.0.2.1',
    client_name     => 'laptop.example.com',
    client_port     => '40000',
    helo_name       => 'laptop',
    sender          => 'alice@example.com',
    recipient       => 'bob@example.net',
    recipient_count => 0,
    queue_id        => '',
    size            => 0,
    sasl_method     => '',
    sasl_username   => '',
);


sub new {
    my ($class, $t, $where) = @_;

    my $client = $t->client($where =~ m{^/} ? (undef, path => $where)
        : $where) or die "no connection\n";

    return (bless { t => $t, client => $client, buffer => '' },
        $class)->message();
}


sub client { return $_[0]{client} }


sub message {
    my ($self) = @_;

    $self->{instance} = sprintf('%x.%d', $$, ++$INSTANCE);
    return $self;
}


sub request {
    my ($self, %attribute) = @_;

    my @all = (@DEFAULT, instance => $self->{instance});
    my $text = '';

    while (my ($name, $value) = splice(@all, 0, 2)) {
        $value = delete $attribute{$name} if exists $attribute{$name};
        $text .= "$name=$value\n" if defined $value;
    }

    return $text . join('', map { "$_=$attribute{$_}\n" } sort keys %attribute)
        . "\n";
}


sub ask {
    my ($self, %attribute) = @_;

    $self->{client}->send_raw($self->request(%attribute));
    return $self->answer();
}


# the next answer without "action=", or '' if there is none

sub answer {
    my ($self, $timeout) = @_;

    my $end = time() + ($timeout // 10);

    until ($self->{buffer} =~ /\n\n/) {
        my $octets = $self->{client}->read_some($end - time());
        return '' if !defined $octets || $octets eq '' && time() > $end;
        $self->{buffer} .= $octets;
    }

    $self->{buffer} =~ s/\A(.*?)\n\n//s;
    my $answer = $1;

    return $answer =~ s/\Aaction=//r;
}


# 1 if nothing is left to read, and the connection is closed

sub is_closed {
    my ($self) = @_;

    return $self->{client}->wait_close() && $self->{buffer} eq '' ? 1 : 0;
}


1;
