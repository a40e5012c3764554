package MailPolicy::PolicyNoise;

# What a "protocol policy" server may be sent: questions that are good, odd,
# broken and cut, and what is no question at all.
#
#     my $noise = MailPolicy::PolicyNoise->new($seed, 'a');
#     my @parts = $noise->connection();       # what is written in one go each
#     my $octets = $noise->good('login');     # a question that is answered
#
# All of it follows from the seed.  Logins begin with the name.

use strict;
use warnings;

my @GARBAGE = (
    "EHLO client.example\r\nMAIL FROM:<a\@b>\r\n", "GET / HTTP/1.1\r\n\r\n",
    "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" . "\x5a" x 40, "\n", "\n\n",
    "=\n\n", "=", "\r\n\r\n", "\0", "a=b", "request", "request=", "a\n",
    "request=smtpd_access_policy\r\n\r\n", "request=smtpd_access_policy",
    "REQUEST=smtpd_access_policy\n\n", "request =smtpd_access_policy\n\n",
    "request=smtpd_access_policy \n\n", "request=\nrequest=smtpd_access_policy\n\n",
    "PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n", "x" x 4096, "x" x 4097,
    "=" x 5000, "a=" x 40000, "a=\n" x 127 . "request=smtpd_access_policy\n\n",
    "a=\n" x 128 . "request=smtpd_access_policy\n\n", "\xff" x 300,
);


sub new {
    my ($class, $seed, $name) = @_;

    # its own, as rand() may be another one elsewhere
    return bless { state => $seed || 1, name => $name, instance => $name },
        $class;
}


sub random {
    my ($self, $n) = @_;

    # of 32 bits, the upper ones
    $self->{state} = ($self->{state} * 1664525 + 1013904223) & 0xffffffff;
    return int(($self->{state} >> 8) / (1 << 24) * $n);
}


sub one_of {
    my ($self, @what) = @_;

    return $what[ $self->random(scalar @what) ];
}


sub octets { return join('', map { chr($_[0]->random(256)) } 1 .. $_[1]) }


# a value that may be anything but the end of a line

sub value {
    my ($self) = @_;

    my $value = $self->one_of('', 'x', '=', '%s{}', '127.0.0.1', '::1',
        'a@example.net', '"a b"@example.net', 'x' x $self->random(600),
        $self->octets($self->random(40)), '0', '7', '-1', '9' x 30, 'RCPT');

    return $value =~ tr/\0\n/ab/r;
}


sub login {
    my ($self) = @_;

    return $self->one_of('', map { "$self->{name}$_\@example.com" }
        'no-', 'A', 0 .. 9) =~ s/^(\w+)no-/no-$1/r;
}


# attributes of a question, in order

sub attributes {
    my ($self) = @_;

    my $state = $self->one_of(qw(RCPT RCPT RCPT RCPT DATA END-OF-MESSAGE
        CONNECT EHLO MAIL VRFY rcpt), $self->value());

    my @all = (
        [ request         => 'smtpd_access_policy' ],
        [ protocol_state  => $state ],
        [ protocol_name   => $self->one_of('ESMTP', 'SMTP') ],
        [ instance        => $self->random(10) ? $self->{instance} : '' ],
        [ client_address  => '192.0.2.' . $self->random(256) ],
        [ client_name     => $self->one_of('unknown', 'a.example') ],
        [ client_port     => $self->random(70000) ],
        [ server_address  => $self->one_of('', '192.0.2.1') ],
        [ helo_name       => 'a.example' ],
        [ sender          => $self->one_of('', 'a@example.com') ],
        [ recipient       => $self->one_of('', 'a@example.net',
                                'b@example.net', 'c@example.net') ],
        [ recipient_count => $self->random(20) ],
        [ size            => $self->random(100000) ],
        [ sasl_method     => 'plain' ],
        [ sasl_username   => $self->login() ],
    );

    $self->{instance} = "$self->{name}" . ++$self->{next}
        unless $self->random(5);

    return @all;
}


sub question {
    my ($self) = @_;

    my @all = $self->attributes();

    for (1 .. $self->one_of(0, 0, 0, 1, 3)) {
        my $at = $self->random(scalar @all);
        my $value = $self->value();

        # an instance of its own; and not what makes it a question
        my $odd = $self->random(4);
        $value = "$self->{name}$value"
            if $value ne '' && $all[$at][0] eq 'instance';

        $all[$at][1] = $value if $odd == 0 && $at;
        splice(@all, $at, 1) if $odd == 1 && $at;
        splice(@all, $at, 0, [ "x$value" =~ tr/=/-/r, $value ]) if $odd == 2;
        push @all, [ $all[$at][0], $value ] if $odd == 3;
    }

    # in any order
    @all = map { splice(@all, $self->random(scalar @all), 1) } 0 .. $#all
        if !$self->random(3) && !twice(@all);

    return join('', map { "$_->[0]=$_->[1]\n" } @all) . "\n";
}


sub twice {
    my %seen;
    return scalar grep { $seen{ $_->[0] }++ } @_;
}


# one that is good, of a message of its own

sub good {
    my ($self, $login, %more) = @_;

    my %attribute = map { @$_ } $self->attributes();

    %attribute = (%attribute, protocol_state => 'RCPT', sender => '',
        sasl_username => $login, recipient => 'a@example.net',
        instance => "$self->{name}g" . ++$self->{next}, %more);
    return join('', map { "$_=$attribute{$_}\n" } sort keys %attribute) . "\n";
}


# octets of it are others, gone, or more

sub broken {
    my ($self, $octets) = @_;

    for (1 .. $self->one_of(1, 1, 2, 5)) {
        my $at = $self->random(length($octets) + 1);
        my $what = $self->random(5);
        my $octet = $self->one_of("\n", "\0", '=', "\r", $self->octets(1));

        if ($what == 0) {
            substr($octets, $at, 0, $octet);
        } elsif ($what == 1) {
            substr($octets, $at, 1, '') if $at < length($octets);
        } elsif ($what == 2) {
            substr($octets, $at, 1, $octet) if $at < length($octets);
        } elsif ($what == 3) {
            substr($octets, $at, $self->random(50), '');
        } else {
            my $piece = substr($octets, $at, $self->random(50));
            substr($octets, $self->random(length($octets) + 1), 0, $piece);
        }
    }

    return $octets;
}


# as large as it may be, or an octet larger

sub large {
    my ($self) = @_;

    my $question = substr($self->question(), 0, -1);
    my $size = 65536 + $self->random(2);
    my $line = $self->one_of(1000, 4096, 4096, 4097);

    while (length($question) + $line + 10 < $size) {
        $question .= 'x=' . 'y' x ($line - 3) . "\n";
    }

    return $question . 'z=' . 'y' x ($size - length($question) - 4) . "\n\n";
}


sub cut { return substr($_[1], 0, $_[0]->random(length $_[1])) }


# the octets of a connection, in pieces

sub connection {
    my ($self) = @_;

    $self->{instance} = "$self->{name}" . ++$self->{next};

    my @questions = map { $self->question() }
        1 .. $self->one_of(1, 1, 1, 2, 3, 5, 10, 1 + $self->random(100));
    my $at = $self->random(scalar @questions);
    my $what = $self->random(12);

    if ($what < 3) {
        $questions[$at] = $self->broken($questions[$at]);
    } elsif ($what == 3) {
        $questions[-1] = $self->cut($questions[-1]);
    } elsif ($what == 4) {
        splice(@questions, $at, 0, $self->one_of(@GARBAGE));
    } elsif ($what == 5) {
        $questions[$at] =~ s/\n/\r\n/g;
    } elsif ($what == 6 && !$self->random(4)) {
        splice(@questions, $at, 0, $self->large());
    } elsif ($what == 7) {
        $questions[$at] = $self->octets($self->random(3000));
    }

    return $self->pieces(join('', @questions));
}


sub pieces {
    my ($self, $octets) = @_;

    my $most = $self->one_of(0, 0, 1 << 20, 5000, 300, 20, 1);
    return $octets if $most == 0 || length($octets) > 100 * $most;

    my @pieces;

    while ($octets ne '') {
        push @pieces, substr($octets, 0, 1 + $self->random($most), '');
    }

    return @pieces;
}


1;
