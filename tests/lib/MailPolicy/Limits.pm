package MailPolicy::Limits;

# What tests of limits ask of Redis: how much is used, and what must be true
# of every counter there.

use strict;
use warnings;

use Exporter qw(import);
use Time::HiRes qw(sleep time);

our @EXPORT_OK = qw(used wait_used lasting send_one thinking);


# What is charged to a window: the sum of its slots.  Nothing is released in
# the time that a test takes, so the slots need not be looked at one by one.

sub used {
    my ($redis, $limit, $key, $unit) = @_;

    my $value = $redis->cmd('HGET', "mail:used:$limit:{$key}",
        $unit // 'messages');

    return 0 unless defined $value;

    my ($slots) = $value =~ /^w \d+ \d+ \S((?: \d+:\d+)+)$/
        or return "\"$value\"";

    my $sum = 0;
    $sum += $_ for $slots =~ /:(\d+)/g;
    return $sum;
}


# [ messages, recipients ] as soon as they are what is expected, or what they
# are after the timeout

sub wait_used {
    my ($redis, $limit, $key, $expected, $timeout) = @_;

    my $end = time() + ($timeout // 5);
    my $now;

    while (1) {
        $now = [ map { used($redis, $limit, $key, $_) }
            qw(messages recipients) ];

        return $now if "@$now" eq "@$expected" || time() > $end;
        sleep(0.02);
    }
}


# counters that would stay for ever

sub lasting {
    my ($redis) = @_;

    return grep { $redis->cmd('PTTL', $_) == -1 } $redis->keys('mail:used:*');
}


# how many workers of an nginx take the store for "away", or "back", as the
# error log says

sub thinking {
    my ($t, $what, $name) = @_;

    my %last = $t->error_log($name)
        =~ /(\d+)#\d+: .*policy store \S+ is (away|back)/g;

    return scalar grep { ($last{$_} // 'back') eq $what }
        $t->worker_pids($name);
}


# one message to one or more recipients: the reply that decided it

sub send_one {
    my ($client, $from, @rcpts) = @_;

    @rcpts = ('bob@example.net') unless @rcpts;

    my @replies = $client->send_mail($from, \@rcpts, "Subject: x\n\nx\n");
    return $replies[-1];
}


1;
