package MailPolicy::FastRelay;

# A relay that is quick and knows little: it takes what has an "X-Id: id"
# first, and appends "id recipients octets" of each message that it accepts
# to a file.  A recipient "no..." is refused, one "later..." with 450; a message
# with an id "...late" is refused at its end, "...later" with 451, and for
# "...gone" the connection is closed there.
#
#     my $relay = MailPolicy::FastRelay->new($t, name => 'relay');
#     $relay->accepted();                 # { id => [ recipients, octets ] }

use strict;
use warnings;

use Errno ();
use IO::Select;
use IO::Socket::INET;
use Socket qw(IPPROTO_TCP TCP_NODELAY);

use MailPolicy::Nginx;
use MailPolicy::Process qw(fork_server stop_process);


sub new {
    my ($class, $t, %option) = @_;

    my $self = bless { name => 'relay', owner => $$, %option }, $class;
    my $file = $self->{file} = $t->dir() . "/$self->{name}.accepted";

    my $listener = IO::Socket::INET->new(LocalAddr => '127.0.0.1',
        LocalPort => $t->port($self->{name}), Proto => 'tcp', Listen => 1024,
        ReuseAddr => 1) or die "relay $self->{name}: $!\n";

    $self->{pid} = fork_server("$file.err", [ $listener ], sub {
        open(my $fh, '>', $file) or die "$file: $!\n";
        run($listener, $fh);
    });

    close($listener);
    return $self;
}


sub stop {
    my ($self) = @_;

    my $pid = delete $self->{pid} or return;
    stop_process($pid, 'TERM', 5);
}


sub DESTROY {
    my ($self) = @_;

    local ($?, $@);
    $self->stop() if $self->{owner} == $$;
}


sub accepted {
    my ($self) = @_;

    my %accepted;

    for (split /\n/, MailPolicy::Nginx::slurp($self->{file})) {
        my ($id, @rest) = split / /;
        die "message $id came twice\n" if $accepted{$id};
        $accepted{$id} = \@rest;
    }

    return \%accepted;
}


# the process


sub run {
    my ($listener, $fh) = @_;

    my $select = IO::Select->new($listener);
    my %connections;

    while (1) {
        for my $socket ($select->can_read()) {
            if ($socket == $listener) {
                my $new = $listener->accept() or next;
                setsockopt($new, IPPROTO_TCP, TCP_NODELAY, 1);
                $select->add($new);
                $connections{$new} = { in => '' };
                syswrite($new, "220 relay.example ESMTP\r\n");
                next;
            }

            my $c = $connections{$socket};
            my $out = sysread($socket, $c->{in}, 65536, length $c->{in})
                ? process($c, $fh) : undef;

            # small enough for the socket's buffer
            next if defined $out
                && ($out eq '' || defined syswrite($socket, $out));

            $select->remove($socket);
            delete $connections{$socket};
            close($socket);
        }
    }
}


sub process {
    my ($c, $fh) = @_;

    my $out = '';

    while (1) {
        if ($c->{data}) {
            $c->{in} =~ s/^(.*?\r\n)\.\r\n//s or return $out;
            $out .= message($c, $1, $fh) // return undef;

        } elsif ($c->{in} =~ s/^(.*?)\r\n//) {
            $out .= command($c, $1);

        } else {
            return $out;
        }
    }
}


sub command {
    my ($c, $line) = @_;

    return "250-relay.example\r\n250-PIPELINING\r\n250-8BITMIME\r\n"
        . "250-ENHANCEDSTATUSCODES\r\n250 SIZE 1000000\r\n"
        if $line =~ /^EHLO/;

    if ($line =~ /^(?:MAIL|RSET)/) {
        $c->{rcpts} = 0;
        return "250 2.1.0 Ok\r\n";
    }

    if ($line =~ /^RCPT/) {
        return "550 5.1.1 Unknown\r\n" if $line =~ /<no/;
        return "450 4.2.1 Not now\r\n" if $line =~ /<later/;
        $c->{rcpts}++;
        return "250 2.1.5 Ok\r\n";
    }

    if ($line eq 'DATA') {
        return "554 5.5.1 No recipients\r\n" unless $c->{rcpts};
        $c->{data} = 1;
        return "354 Go on\r\n";
    }

    return "250 2.0.0 Ok\r\n";
}


sub message {
    my ($c, $text, $fh) = @_;

    my ($id) = $text =~ /^X-Id: (\S+)\r\n/m;

    delete $c->{data};
    return "554 5.6.0 No\r\n" if !defined $id || $id =~ /late$/;
    return "451 4.3.0 Not now\r\n" if $id =~ /later$/;
    return undef if $id =~ /gone$/;

    # before it is answered
    syswrite($fh, "$id $c->{rcpts} " . length($text) . "\n");
    return "250 2.0.0 Ok\r\n";
}


1;
