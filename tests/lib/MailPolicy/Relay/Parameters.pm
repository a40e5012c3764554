package MailPolicy::Relay::Parameters;

# What a client may say in MAIL and RCPT to a relay that offered so much:
# path and parameters of a line, and what is wrong with them.

use strict;
use warnings;

use Exporter qw(import);

our @EXPORT_OK = qw(parameters path wrong_parameters);

# the extension that defines a parameter, by command
my %DEFINED_BY = (
    MAIL => {
        SIZE       => 'SIZE',           # RFC 1870
        BODY       => '8BITMIME',       # RFC 6152; BINARYMIME: RFC 3030
        SMTPUTF8   => 'SMTPUTF8',       # RFC 6531
        RET        => 'DSN',            # RFC 3461
        ENVID      => 'DSN',
        AUTH       => 'AUTH',           # RFC 4954
        REQUIRETLS => 'REQUIRETLS',     # RFC 8689
    },
    RCPT => {
        NOTIFY     => 'DSN',
        ORCPT      => 'DSN',
    },
);


# the address without its brackets, and the parameters

sub path {
    my ($line) = @_;

    $line =~ s/^\w+ \w+:\s*//;

    return ($1, $2)
        if $line =~ /^<((?:"(?:\\.|[^"\\])*"|[^>"])*)>\s*(.*)/;
    return ($line, '');
}


# pairs of a name in upper case and a value, in order

sub parameters {
    my ($text) = @_;

    return map {
        my ($name, $value) = split /=/, $_, 2;
        [ uc $name, $value ];
    } split ' ', $text;
}


# The faults of a line MAIL or RCPT: $offered is the set of extensions, and
# $utf8 says whether this transaction is one with SMTPUTF8.

sub wrong_parameters {
    my ($line, $offered, $utf8) = @_;

    my $verb = uc substr($line, 0, 4);
    my ($address, $text) = path($line);
    my (@wrong, %seen);

    push @wrong, "$verb: octets above 127 without SMTPUTF8"
        if !$utf8 && $address =~ /[^\x00-\x7f]/;

    for my $parameter (parameters($text)) {
        my ($name, $value) = @$parameter;
        my $extension = $DEFINED_BY{$verb}{$name};

        if (!$extension) {
            push @wrong, "$verb: unknown parameter $name";

        } elsif ($name eq 'BODY' && uc($value // '') eq 'BINARYMIME') {
            push @wrong, "$verb: BODY=BINARYMIME without $_"
                for grep { !$offered->{$_} } qw(BINARYMIME CHUNKING);

        } elsif (!$offered->{$extension}) {
            my $shown = $name eq 'BODY' ? "BODY=$value" : $name;
            push @wrong, "$verb: $shown without $extension";
        }

        push @wrong, "$verb: $name twice" if $seen{$name}++;
    }

    return @wrong;
}


1;
