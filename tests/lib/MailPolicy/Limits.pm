package MailPolicy::Limits;

# What tests of limits ask of Redis: how much is used, and what must be true
# of every counter there.

use strict;
use warnings;

use Exporter qw(import);
use Test::More;
use Time::HiRes qw(sleep time);

our @EXPORT_OK = qw(used wait_used is_used is_told used_keys lasting codes
    send_one logged_in thinking store_away store_back kill_workers BACK);

# seconds until what was counted in an outage is in Redis
use constant BACK => 2;


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


# that this is charged to these units, within timeout seconds

sub is_used {
    my ($redis, $what, $limit, $key, %expected) = @_;

    local $Test::Builder::Level = $Test::Builder::Level + 1;

    my $now = '';
    my $timeout = delete $expected{timeout};
    my $wanted = join(' ', map { "$_=$expected{$_}" } sort keys %expected);
    my $end = time() + $timeout;

    while (1) {
        $now = join(' ', map { "$_=" . used($redis, $limit, $key, $_) }
            sort keys %expected);
        last if $now eq $wanted || time() > $end;
        sleep(0.02);
    }

    is($now, $wanted, $what);
}


# the same, within what an outage may take to be told

sub is_told {
    my ($redis, $what, $limit, $key, %expected) = @_;

    local $Test::Builder::Level = $Test::Builder::Level + 1;

    is_used($redis, $what, $limit, $key, timeout => BACK + 0.5, %expected);
}


# the keys of counters, without the prefix

sub used_keys {
    my ($redis) = @_;

    return map { s/^mail:used://r } $redis->keys('mail:used:*');
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


# Redis hangs, and both workers of "smtp" know it; then it is back, since when

sub store_away {
    my ($t, $redis) = @_;

    local $Test::Builder::Level = $Test::Builder::Level + 1;

    $redis->signal('STOP');
    ok($t->wait_for(sub {
        my $c = $t->session('smtp');
        $c->cmd('MAIL FROM:<probe@probe.example>');
        $c->quit();
        return thinking($t, 'away') == 2;
    }), 'both workers know that it is away');
}


sub store_back {
    my ($t, $redis, $what) = @_;

    local $Test::Builder::Level = $Test::Builder::Level + 1;

    $redis->signal('CONT');
    my $since = time();
    ok($t->wait_for(sub { thinking($t, 'back') == 2 }, 5),
        "$what: both workers are back");
    return $since;
}


# both workers are killed: true as soon as there are two others

sub kill_workers {
    my ($t) = @_;

    my @pids = $t->worker_pids();

    $t->allow(qr/worker process \d+ exited on signal 9/);
    kill('KILL', @pids);

    return $t->wait_for(sub {
        my %new = map { $_ => 1 } $t->worker_pids();
        return keys %new == 2 && !grep { $new{$_} } @pids;
    });
}


# a session, with a login if there is one; or the reply, if that fails

sub logged_in {
    my ($t, $where, $login) = @_;

    my $c = $t->session($where);

    if (defined $login) {
        my $reply = $c->auth_plain($login, 'secret');
        return $reply unless $reply =~ /^235/;
    }

    return $c;
}


# what replies have in front

sub codes { return join(' ', map { substr($_, 0, 3) } @_) }


# one message to one or more recipients: the reply that decided it

sub send_one {
    my ($client, $from, @rcpts) = @_;

    @rcpts = ('bob@example.net') unless @rcpts;

    my @replies = $client->send_mail($from, \@rcpts, "Subject: x\n\nx\n");
    return $replies[-1];
}


1;
