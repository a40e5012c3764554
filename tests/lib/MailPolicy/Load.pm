package MailPolicy::Load;

# Clients that send mail until they are told to stop, each in a process of its
# own, and what they saw: which replies, and how long they waited at most.
#
#     my $load = MailPolicy::Load->new($t, port => 'smtp', clients => 4);
#     ...
#     my ($longest, %count) = $load->stop();
#     for ($load->accepted()) { my ($sender, $begin, $end) = @$_; ... }

use strict;
use warnings;

use Time::HiRes qw(sleep time);

use MailPolicy::Client;
use MailPolicy::Process qw(fork_server wait_exit);

my $number = 0;


# port: its name; clients: how many; senders: how many each has; or pool:
# senders that all of them have, in turn; pause: between messages

sub new {
    my ($class, $t, %option) = @_;

    my $self = bless {
        t => $t, clients => 4, senders => 20, pause => 0.01, name => 'load' . $number++,
        %option,
    }, $class;

    $self->{flag} = $t->dir() . "/$self->{name}.stop";
    $self->{pids} = [ map { $self->_start($_) } 1 .. $self->{clients} ];

    return $self;
}


sub _file { return $_[0]{t}->dir() . "/$_[0]{name}.$_[1]" }


sub _start {
    my ($self, $n) = @_;

    my $port = $self->{t}->port($self->{port});
    my $file = $self->_file($n);

    return fork_server("$file.err", [], sub {
        open(my $accepted, '>', "$file.accepted") or die "$file: $!\n";
        my ($c, $round, $longest, %count) = (undef, 0, 0);

        until (-e $self->{flag}) {

            # a session may not go on for ever
            if ($round++ % 40 == 0) {
                $c->quit() if $c;
                $c = MailPolicy::Client->new(port => $port);
                $c->greeting();
                $c->ehlo();
            }

            my $sender = $self->_sender($n, $round);
            my $begin = time();
            my ($reply, $took) = _message($c, $sender);

            print $accepted join(' ', $sender, $begin, time()), "\n"
                if $reply =~ /^250/;

            $count{ $reply =~ /^(\d{3})/ ? $1 : $reply }++;
            $longest = $took if $took > $longest;
            sleep($self->{pause});
        }

        close($accepted);
        $self->{t}->write_file($file, join("\n", $longest, %count));
    });
}


sub _sender {
    my ($self, $n, $round) = @_;

    return 'l' . ($round % $self->{senders}) . "\@$self->{name}-$n.example"
        unless $self->{pool};

    # not all of them the same at the same time
    return $self->{pool}[ ($round + $n) % @{ $self->{pool} } ];
}


# the reply that decided it, and the longest wait

sub _message {
    my ($c, $sender) = @_;

    my $longest = 0;

    for my $command ("MAIL FROM:<$sender>", 'RCPT TO:<bob@example.net>',
        'DATA', "x\r\n.")
    {
        my $begin = time();
        my $reply = $c->cmd($command);
        my $took = time() - $begin;

        $longest = $took if $took > $longest;

        if ($reply !~ /^[23]/) {
            $c->cmd('RSET');
            return ($reply, $longest);
        }

        return ($reply, $longest) if $command =~ /\.$/;
    }
}


# the longest wait in seconds, and how many there were of each code; a client
# that did not come to its end is "lost"

sub stop {
    my ($self) = @_;

    my ($longest, %count) = (0);

    $self->{t}->write_file($self->{flag}, '');

    for my $n (1 .. $self->{clients}) {
        my $status = wait_exit($self->{pids}[ $n - 1 ], 20);
        my ($took, %seen) = split /\n/, $self->{t}->read_file(
            $self->_file($n));

        if (!defined $status || !defined $took) {
            $count{lost}++;
            next;
        }

        $longest = $took if $took > $longest;
        $count{$_} += $seen{$_} for keys %seen;
    }

    return ($longest, %count);
}


# of each message that was accepted: the sender, and the times before and
# after it; for a load that has stopped

sub accepted {
    my ($self) = @_;

    return map { [ split / / ] } map { split /\n/ } map {
        $self->{t}->read_file($self->_file($_) . '.accepted')
    } 1 .. $self->{clients};
}


1;
