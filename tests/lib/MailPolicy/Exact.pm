package MailPolicy::Exact;

# What t/exact*.t do, each with another kind of Redis behind policy_redis: two
# nginx of two workers each, many clients, a relay that refuses some, clients
# that reset or go away; five limits.  Then it is asked that
#
#   no window and no bucket has let pass too much.  A charge is made at some
#   time between MAIL being sent and the last reply of its group, which the
#   client knows.  More accepted messages than a window may have, all of them
#   begun and replied to in less than its period, would be a fault for sure;
#
#   what is charged in Redis is what was accepted by the access logs and by
#   the relay, for each key and unit;
#
#   what is not used up is still granted, what is used up is not.
#
# TEST_EXACT: how many messages are sent.

use strict;
use warnings;

use List::Util qw(max min sum0);
use Test::More;
use Time::HiRes qw(sleep time);

use MailPolicy::ExactClient;
use MailPolicy::FastRelay;
use MailPolicy::Process qw(fork_server wait_exit);

use constant MESSAGES => $ENV{TEST_EXACT} || 4000;
use constant CLIENTS  => 16;
use constant SENDERS  => 1000;
use constant DOMAINS  => 20;
use constant TARGETS  => 10;

# the rates, so that many messages are refused by each
my %MAX = (
    messages   => max(8, int(MESSAGES / 2000)),
    recipients => max(17, int(MESSAGES / 1000)),
    bytes      => max(6000, int(MESSAGES * 0.4)),
    domain     => int(MESSAGES / 40),
    level      => int(MESSAGES / 20),
    to         => int(MESSAGES / 14),
);

use constant SHORT => { messages => [ 6, 2 ], recipients => [ 14, 3 ] };
use constant PACE  => { count => 120, period => 60, burst => 5 };
use constant DAYS  => 300;

# of one of the messages that are sent at the end, at most
use constant OCTETS => 30;


# t, redis => what policy_redis is told; cmd => sub { } a command about a key,
# where that is

sub new {
    my ($class, $t, %option) = @_;

    my $self = bless { t => $t, %option }, $class;

    $self->{relay} = MailPolicy::FastRelay->new($t);
    $self->_edge($_) for qw(a b);
    return $self;
}


sub _edge {
    my ($self, $edge) = @_;

    my ($short, $pace) = (SHORT, PACE);

    $self->{t}->conf($edge, <<"EOF");
worker_processes 2;
error_log %%DIR%%/$edge.error.log notice;
events { worker_connections 512; }
mail {
    policy_redis  $self->{redis} timeout=10s on_error=closed events=100;
    policy_auth   off;
    max_errors    1000000;
    proxy_pass    127.0.0.1:%%PORT_relay%%;
    access_log    %%DIR%%/$edge.log;

    policy_limit  short  key=\$sender
                  messages=$short->{messages}[0]/$short->{messages}[1]s
                  recipients=$short->{recipients}[0]/$short->{recipients}[1]s;
    policy_limit  hour   key=\$sender  messages=$MAX{messages}/1h
                  recipients=$MAX{recipients}/1h  bytes=$MAX{bytes}/1h;
    policy_limit  pace   key=\$sender
                  messages=$pace->{count}/$pace->{period}s,burst=$pace->{burst};
    policy_limit  dom    key=\$sender_domain  messages=$MAX{domain}/1h
                  recipients=$MAX{level}/${\DAYS}d,burst=$MAX{level};
    policy_limit  to     key=\$recipient_domain  recipients=$MAX{to}/1h;

    server {
        listen        127.0.0.1:%%PORT_$edge%%;
        protocol      smtp;
        policy        on;
    }
}
EOF
    $self->{t}->run_nginx($edge);
}


# a sender, through both edges, until Redis counts for both: workers that are
# not connected yet refuse with "closed"

sub wait_ready {
    my ($self) = @_;

    return $self->{t}->wait_for(sub {
        8 == grep { $self->_probe($_ % 2 ? 'a' : 'b') } 1 .. 8;
    }, 15);
}


sub _probe {
    my ($self, $edge) = @_;

    my $c = $self->{t}->client($edge);

    $c->greeting();
    $c->ehlo();
    my $reply = $c->cmd('MAIL FROM:<probe@probe.example>');
    $c->quit();
    return $reply =~ /^250/;
}


sub run {
    my ($self) = @_;

    my $t = $self->{t};
    my @ports = map { $t->port($_) } qw(a b);
    my $begin = $self->{begin} = time();
    my @pids;

    for my $n (1 .. CLIENTS) {
        my $file = $t->dir() . "/client-$n";

        push @pids, fork_server("$file.err", [], sub {
            MailPolicy::ExactClient->run(number => $n, ports => \@ports,
                senders => SENDERS, domains => DOMAINS, targets => TARGETS,
                messages => int(MESSAGES / CLIENTS), file => $file);
        });
    }

    is(scalar(grep { !defined wait_exit($_, 900) } @pids), 0,
        'all clients came to their end');
    is(join('', map { $t->read_file("client-$_.err") } 1 .. CLIENTS), '',
        'and none was cut off');

    my $took = time() - $begin;
    note(sprintf('%d messages, %.1f s, %.0f a second', MESSAGES, $took,
        MESSAGES / $took));

    $self->_read_clients();
    $self->_read_logs();
}


sub _read_clients {
    my ($self) = @_;

    my $relay = $self->{accepted} = $self->{relay}->accepted();
    my (%codes, @wrong);

    for (map { split /\n/, $self->{t}->read_file("client-$_") } 1 .. CLIENTS) {
        my ($id, $i, $first, $asked, $end, $code) = split / /;

        $codes{$code}++;
        my $taken = $relay->{$id};
        push @wrong, "$id $code" if $code ne 'gone'
            && ($code eq '250-2.0.0') != defined $taken;

        # where the client did not wait, it is not known when it was asked
        push @{ $self->{sent}{$i} }, [ $first, $asked, $taken->[0] ]
            if $taken && $asked;
    }

    is(sum0(values %codes), CLIENTS * int(MESSAGES / CLIENTS),
        'each message came to an end');
    is(join(', ', @wrong), '', 'accepted is what the relay has');
    is(join(' ', grep { !/^(?:250|450|550|554|gone|rset)/ } sort keys %codes),
        '', 'and nobody was refused for another reason');
    note(join(', ', map { "$_: $codes{$_}" } sort keys %codes));
}


# access logs; sums by key and unit

sub _read_logs {
    my ($self) = @_;

    my (%sum, %by, $accepted);

    for (map { split /\n/, $self->{t}->read_file("$_.log") } qw(a b)) {
        $by{$1}++ if /"limit":"(\w+)"/;
        next unless /"outcome":"(?:accepted|delivered_unacked)"/;

        my ($sender, $domain, $to, $octets)
            = /"sender":"(\S+?@(\S+?))","to":\[(.*?)\].*"message_size":(\d+)/
            or die "log: $_\n";
        my @to = $to =~ /@([^"]+)"/g;

        $accepted++;
        $sum{$sender}{messages}++;
        $sum{$sender}{recipients} += @to;
        $sum{$sender}{bytes} += $octets;
        $sum{$domain}{messages}++;
        $sum{$domain}{level} += @to;
        $sum{$_}{to}++ for @to;
    }

    $self->{sum} = \%sum;
    is($accepted, scalar keys %{ $self->{accepted} },
        'the logs say accepted where the relay does');
    is(sum0(map { $_->{recipients} // 0 } values %sum),
        sum0(map { $_->[0] } values %{ $self->{accepted} }),
        'and as many recipients');
    note("accepted $accepted, refused by " . join(', ', map { "$_ $by{$_}" }
        sort keys %by));
    cmp_ok(scalar keys %by, '>=', 3, 'most limits have refused some');
}


# Rates.


# the most that surely passed within a time shorter than the period, for any
# sender

sub _most {
    my ($self, $period, $weight) = @_;

    my $most = 0;

    for my $sent (values %{ $self->{sent} }) {
        my @sent = sort { $a->[0] <=> $b->[0] } @$sent;

        for my $i (0 .. $#sent) {
            my ($sum, $end) = (0, $sent[$i][0] + $period);

            for (@sent[$i .. $#sent]) {
                last if $_->[0] >= $end;
                $sum += $weight ? $_->[2] : 1 if $_->[1] < $end;
            }

            $most = $sum if $sum > $most;
        }
    }

    return $most;
}


sub check_rates {
    my ($self) = @_;

    my ($short, $pace) = (SHORT, PACE);

    for my $unit (sort keys %$short) {
        my ($count, $period) = @{ $short->{$unit} };
        my $most = $self->_most($period, $unit eq 'recipients');

        cmp_ok($most, '<=', $count, "no $period s had more $unit");
        note("$unit in $period s: $most of $count");
    }

    # a bucket: in any time at most the burst, and what flowed out
    for my $period (0.3, 1, 3, 10, 30) {
        my $max = $pace->{burst} + $period * $pace->{count} / $pace->{period};
        cmp_ok($self->_most($period), '<=', $max,
            "no $period s had more than the bucket lets pass");
    }
}


# Counters.


sub _window {
    my ($self, $limit, $key, $unit) = @_;

    my $value = $self->{cmd}->('HGET', "mail:used:$limit:{$key}", $unit)
        // return 0;
    return "\"$value\"" unless $value =~ /^w /;
    return sum0($value =~ /:(\d+)/g);
}


# Of a bucket that nearly nothing flows out of: how many times what one costs
# it is above the time of the first.

sub _level {
    my ($self, $limit, $key, $unit) = @_;

    my $value = $self->{cmd}->('HGET', "mail:used:$limit:{$key}", $unit)
        // return 0;
    my ($tat, $count, $period) = $value =~ /^b (\d+) (\d+) (\d+) /
        or return "\"$value\"";

    return int(($tat - $self->{begin} * 1e6) / ($period / $count));
}


sub _expected {
    my ($self) = @_;

    my $sum = $self->{sum};
    my @expected;

    for my $i (0 .. SENDERS - 1) {
        my $key = "s$i\@d" . $i % DOMAINS . '.example';
        push @expected, map { [ \&_window, 'hour', $key, $_,
            $sum->{$key}{$_} // 0 ] } qw(messages recipients bytes);
    }

    for my $d (map { "d$_.example" } 0 .. DOMAINS - 1) {
        push @expected, [ \&_window, 'dom', $d, 'messages',
            $sum->{$d}{messages} // 0 ];
        push @expected, [ \&_level, 'dom', $d, 'recipients',
            $sum->{$d}{level} // 0 ];
    }

    return @expected, map { [ \&_window, 'to', "t$_.example", 'recipients',
        $sum->{"t$_.example"}{to} // 0 ] } 0 .. TARGETS - 1;
}


sub check_counters {
    my ($self) = @_;

    my ($wrong, @wrong) = (0);

    for ($self->_expected()) {
        my ($get, $limit, $key, $unit, $expected) = @$_;
        my $now;

        # what is given back last may still be on its way
        $self->{t}->wait_for(sub {
            $now = $self->$get($limit, $key, $unit);
            return $now eq $expected;
        }, $wrong++ ? 0 : 3) and $wrong--;

        push @wrong, "$limit $key $unit: $now, not $expected"
            if $now ne $expected;
    }

    is(scalar @wrong, 0, 'each counter is what was accepted')
        or diag(join("\n", @wrong > 20 ? @wrong[0 .. 19] : @wrong));

    my $over = grep { my (undef, $limit, $key, $unit, $n) = @$_;
        $n > $MAX{ $limit eq 'hour' ? $unit : $limit eq 'to' ? 'to'
            : $unit eq 'messages' ? 'domain' : 'level' } } $self->_expected();
    is($over, 0, 'and none is over its limit');
}


# how many messages to one recipient each are left of what is long

sub _left {
    my ($self, $sender) = @_;

    my ($of, $domain) = ($self->{sum}{$sender},
        $self->{sum}{ $sender =~ s/.*@//r });

    return min($MAX{messages} - ($of->{messages} // 0),
        $MAX{recipients} - ($of->{recipients} // 0),
        int(($MAX{bytes} - ($of->{bytes} // 0)) / OCTETS),
        $MAX{domain} - ($domain->{messages} // 0),
        $MAX{level} - ($domain->{level} // 0));
}


# Afterwards all that is left is granted, and nothing more: each of the
# busiest who has nothing left, or no more than a burst.

sub check_rest {
    my ($self) = @_;

    my ($n, @wrong, %seen) = (0);

    # windows and buckets of seconds are empty then
    sleep(4);

    for my $i (0 .. SENDERS - 1) {
        my $sender = "s$i\@d" . $i % DOMAINS . '.example';
        my $left = $self->_left($sender);

        # the others of a domain would have to be counted, too
        next if $left >= PACE->{burst} || $left < 0 || $seen{ $i % DOMAINS }++;

        my $c = $self->{t}->client($i % 2 ? 'a' : 'b');
        $c->greeting();
        $c->ehlo();

        my @codes = map { substr(($c->send_mail($sender,
            [ 'x@rest.example' ], "X-Id: rest-$i-$_\n"))[-1], 0, 3) }
            0 .. $left;
        $c->quit();

        $n++;
        push @wrong, "$sender: $left left: @codes"
            if "@codes" ne join(' ', (250) x $left, 450);
    }

    is(join("\n", @wrong), '', 'what is left is granted, and no more');
    cmp_ok($n, '>', 5, 'of enough senders');
    note("$n senders");
}


1;
