package MailPolicy::Http;

# A small HTTP server in a process of its own, for "auth_http" and the like.
#
#     my $http = $t->run_http(name => 'auth', sub {
#         my ($request) = @_;             # { line, headers => {}, body }
#         return { status => 200, headers => { 'Auth-Status' => 'OK' } };
#     });
#
# One request a connection, one connection at a time.

use strict;
use warnings;

use IO::Socket::INET;

use MailPolicy::Process qw(fork_server stop_process);


sub new {
    my ($class, %option) = @_;

    my $self = bless { %option }, $class;

    my $listener = IO::Socket::INET->new(
        LocalAddr => '127.0.0.1', LocalPort => $self->{port},
        Proto => 'tcp', Listen => 128, ReuseAddr => 1,
    ) or die "http $self->{name}: port $self->{port}: $!\n";

    # its other end goes away with the test
    pipe(my $alive, my $ours) or die "pipe: $!\n";

    $self->{alive} = $ours;
    $self->{pid} = fork_server("$self->{dir}/http-$self->{name}.log",
        [ $listener, $alive ],
        sub { serve($listener, $alive, $self->{handler}) });

    close($listener);
    close($alive);
    return $self;
}


sub port { return $_[0]{port} }


sub stop {
    my ($self) = @_;

    my $pid = delete $self->{pid} or return;
    stop_process($pid, 'TERM', 5);
}


sub serve {
    my ($listener, $alive, $handler) = @_;

    while (1) {
        my $vector = '';

        vec($vector, fileno($_), 1) = 1 for $listener, $alive;
        next if select($vector, undef, undef, undef) < 0;
        return if vec($vector, fileno($alive), 1);

        my $client = $listener->accept() or next;
        answer($client, $handler);
        close($client);
    }
}


sub answer {
    my ($client, $handler) = @_;

    my $input = '';
    my %headers;

    until ($input =~ /\r\n\r\n/) {
        sysread($client, $input, 65536, length $input) or return;
    }

    my ($head, $body) = split /\r\n\r\n/, $input, 2;
    my ($line, @headers) = split /\r\n/, $head;

    for (@headers) {
        my ($name, $value) = split /:\s*/, $_, 2;
        $headers{ lc $name } = $value;
    }

    while (length $body < ($headers{'content-length'} // 0)) {
        sysread($client, $body, 65536, length $body) or return;
    }

    my $answer = $handler->({
        line => $line, headers => \%headers, body => $body,
    });

    my $content = $answer->{body} // '';
    my $output = 'HTTP/1.0 ' . ($answer->{status} // 200) . " x\r\n"
        . 'Content-Length: ' . length($content) . "\r\nConnection: close\r\n";

    for my $name (sort keys %{ $answer->{headers} // {} }) {
        $output .= "$name: $answer->{headers}{$name}\r\n";
    }

    syswrite($client, "$output\r\n$content");
}


1;
