package MailPolicy::Sink;

# smtp-sink of Postfix: takes all mail, and says how many messages that were.
#
#     my $sink = MailPolicy::Sink->new($t, port => 'sink');
#     $sink->messages();
#
# It ends with the test.

use strict;
use warnings;

use IO::Socket::INET;

use MailPolicy::Nginx;
use MailPolicy::Process qw(spawn stop_process);


sub new {
    my ($class, $t, %option) = @_;

    my $self = bless { %option }, $class;
    my $port = $t->port($self->{port});

    $self->{file} = $t->dir() . "/$self->{port}.out";
    $self->{pid} = spawn($self->{file}, 'smtp-sink', '-c',
        $> ? () : ('-u', 'nobody'), "127.0.0.1:$port", 1000);

    # the test stops what is in this list, also when it dies
    push @{ $t->{servers} }, $self;

    my $up = $t->wait_for(sub { IO::Socket::INET->new(
        PeerAddr => '127.0.0.1', PeerPort => $port) });

    die 'smtp-sink does not start: '
        . MailPolicy::Nginx::slurp($self->{file}) unless $up;

    return $self;
}


sub messages {
    my ($self) = @_;

    my ($last) = MailPolicy::Nginx::slurp($self->{file})
        =~ /.* mesg=(\d+)/s;
    return $last // 0;
}


sub stop {
    my ($self) = @_;

    my $pid = delete $self->{pid} or return;
    stop_process($pid, 'TERM', 5);
}


1;
