package MailPolicy::Secrets;

# No secret is in any log, at no level: what tests log in with is noted here,
# and done() of MailPolicy looks for it in all that nginx has written.
#
#     remember('a password');          # MailPolicy's secret() is the same
#     my @found = leaks($file);        # forms of secrets that are in there
#
# A secret may be there as it is, in base64 (wherever in what was encoded it
# was), in hex, or with %XX or +XX for what is special in it.  One of less
# than SHORTEST octets, or of three letters again and again, is not noted: it
# would be found in anything.  Of a long one its beginning will do.

use strict;
use warnings;

use Exporter qw(import);
use File::Temp ();
use MIME::Base64 qw(encode_base64);

our @EXPORT_OK = qw(remember leaks);

use constant { SHORTEST => 6, LONGEST => 64 };

my %FORMS;


sub remember {
    for my $secret (@_) {
        next if !defined $secret || length($secret) < SHORTEST;

        my %letters = map { $_ => 1 } split(//, $secret);
        next if keys %letters < 4;

        my $begin = substr($secret, 0, LONGEST);

        # what has a line end in it is found in its other forms
        $FORMS{$_} //= $begin for grep { !/[\n\0]/ } forms($begin);
    }
}


sub forms {
    my ($secret) = @_;

    my $hex = unpack('H*', $secret);
    my @forms = ($secret, $hex, uc $hex, map { inside($secret, $_) } 0 .. 2);

    for my $sign ('%', '+') {
        for my $case ('%02X', '%02x') {
            push @forms, $secret =~ s/([^A-Za-z0-9._~-])/
                $sign . sprintf($case, ord $1)/gexr;
        }
    }

    return @forms;
}


# base64 of it behind so many octets: the digits that are its own

sub inside {
    my ($secret, $before) = @_;

    my $text = encode_base64("\0" x $before . $secret, '');
    my $first = int(($before * 8 + 5) / 6);
    my $last = int(($before + length $secret) * 8 / 6);

    return substr($text, $first, $last - $first);
}


# one pass, however many there are, by a program that can do that

sub leaks {
    my ($file) = @_;

    return unless %FORMS && -s $file;

    my $forms = File::Temp->new();
    print {$forms} map { "$_\n" } keys %FORMS;
    close($forms);

    local $ENV{LC_ALL} = 'C';
    open(my $grep, '-|', 'grep', '-aoFf', "$forms", '--', $file)
        or die "grep: $!\n";

    my %found;

    while (my $line = <$grep>) {
        chomp($line);
        $found{$line}++;
    }

    close($grep);
    die "grep: status $?\n" if $? >> 8 > 1 || $? & 127;

    return map { "$_ (" . ($FORMS{$_} // '') . ')' } sort keys %found;
}


1;
