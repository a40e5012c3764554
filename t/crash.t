#!/usr/bin/perl

# Workers are killed, again and again, amid whatever they do: what Redis has
# of it afterwards is what the relay accepted, and what was under way at each
# kill; and all of it goes by itself.
#
# TEST_CRASHES: how often, and then the leases are waited for, too; without it
# as often as there is time for.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Test::More;
use Time::HiRes qw(sleep time);

use MailPolicy;
use MailPolicy::Limits qw(send_one used);
use MailPolicy::Process qw(fork_server wait_exit);

use constant {
    CLIENTS => 6,
    LEAST   => 40,      # kills
    SECONDS => 9,       # for them, if they are not counted
    LEASE   => 60,
    SHORT   => 10,      # the window of seconds
    BODY    => "Subject: x\r\n\r\n" . 'x' x 500 . "\r\n",
};

my $CRASHES = $ENV{TEST_CRASHES};

my $t = MailPolicy->new();
my $redis = $t->run_redis();
my $relay = $t->run_relay(name => 'relay',
    rcpt => { match => qr/<no@/, action => '550 5.1.1 unknown' });

$t->write_file('users', join('', map { "u$_\@example.com:{PLAIN}secret\n" }
    0 .. CLIENTS));

# "short" is one counter: that which reports is asked by the load
sub server { return <<"EOC" }
    server {
        listen        127.0.0.1:%%PORT_$_[0]%%;
        protocol      smtp;
        policy_limit  user   key=\$sasl_username  messages=1000000/1h
                             recipients=1000000/1h  bytes=100g/1h;
        policy_limit  open   key=\$sasl_username  sessions=1000;
        policy_limit  guess  key=\$sasl_username  auth_failures=1000/1h;
        policy_limit  net    key=\$client_net     connections=1000000/1h
                             sessions=1000;
        policy_limit  short  key=\$sender         messages=20/10s
                             on_exceed=$_[1];
    }
EOC

my $servers = server('smtp', 'report') . server('short', 'defer');

$t->conf(<<"EOC");
error_log         %%DIR%%/error.log warn;
worker_processes  2;

mail {
    policy_redis           redis://127.0.0.1:%%PORT_redis%% timeout=5s;
    policy                 on;
    policy_auth            file:%%DIR%%/users;
    policy_auth_plaintext  on;
    policy_message_size    1m;
    max_errors             1000;
    timeout                5m;
    proxy_pass             127.0.0.1:%%PORT_relay%%;
    $servers
}
EOC
$t->run_nginx();
# nginx does so, and says it
$t->allow(qr/exited on signal 9|zone "mail_policy" was locked by/);

my @pids = map { start_client($_) } 1 .. CLIENTS;
my $kills = kill_workers();

$t->write_file('stop', '');
is(scalar(grep { !defined wait_exit($_, 30) } @pids), 0,
    'all clients came to their end');

my $stopped = time();
my %told = map { $_ => told($_) } 1 .. CLIENTS;
my %sent = accepted_by_relay();

cmp_ok($kills, '>=', $CRASHES // LEAST, 'enough kills');
note("$kills kills");
is(join(' ', $t->error_log() =~ /exited on signal (?!9\b)(\d+)/g), '',
    'none died of anything else');
cmp_ok(sum(map { $_->{cut} } values %told), '>=', $kills / 2,
    'sessions were open at the time');
cmp_ok(sum(map { $_->{accepted} } values %told), '>', 10 * $kills,
    'and messages accepted in between');

counted($_) for 1 .. CLIENTS;
ttl_of_all();
leases();
short_windows();

is(send_one(login('short', 1), 'new@example.com') =~ s/ .*//r, 250,
    'mail is sent as ever');

$t->done(faults => 0);


# the load: one session at a time, with a login of its own


sub start_client {
    my ($n) = @_;

    my $file = $t->dir() . "/client$n";

    return fork_server("$file.err", [], sub {
        my %told = map { $_ => 0 } qw(accepted cut wrong);

        srand($n);
        one_session($n, \%told) until -e $t->dir() . '/stop';
        $t->write_file($file, join("\n", %told));
    });
}


sub told { return { split /\n/, $t->read_file("client$_[0]") } }


sub one_session {
    my ($n, $told) = @_;

    my $c = MailPolicy::Client->new(port => $t->port('smtp'));
    my $login = "u$n\@example.com";

    $c->greeting();
    $c->ehlo();

    if (rand() < 0.2) {
        $told->{wrong}++ if $c->auth_plain($login, rand()) =~ /^535/;
    }

    my $going = $c->auth_plain($login, 'secret') =~ /^235/;

    for (1 .. 1 + rand(30)) {
        $going &&= one_message($c, $n, $told);
        last if !$going || -e $t->dir() . '/stop';
    }

    $told->{cut}++ if !$going;
    $going ? $c->quit() : $c->close();
}


# some to one, some to more, some to nobody, and some are not sent after all

sub one_message {
    my ($c, $n, $told) = @_;

    my @to = map { rand() < 0.2 ? "no\@example.net" : "r$_\@example.net" }
        1 .. 1 + rand(3);
    my @replies = $c->pipeline("MAIL FROM:<s$n\@example.com>",
        (map { "RCPT TO:<$_>" } @to), rand() < 0.1 ? 'RSET' : 'DATA');

    if ($replies[-1] =~ /^354/) {
        $c->send_raw(BODY . ".\r\n");
        push @replies, $c->read_reply();
        $told->{accepted}++ if $replies[-1] =~ /^250/;

    } elsif ($replies[-1] =~ /^5/) {
        push @replies, $c->cmd('RSET');
    }

    return $replies[-1] =~ /^250/;
}


# one worker or the other, some time after its predecessor was replaced

sub kill_workers {
    my ($count, $end) = (0, time() + SECONDS);

    sleep(0.3);

    while ($CRASHES ? $count < $CRASHES : $count < LEAST || time() < $end) {
        my @workers = $t->worker_pids();
        my $victim = $workers[ rand(@workers) ];

        kill('KILL', $victim);
        $count++;

        $t->wait_for(sub {
            my @now = $t->worker_pids();
            return @now == 2 && !grep { $_ == $victim } @now;
        }) or last;

        sleep(0.02 + rand(0.12));
    }

    return $count;
}


# what is left of it


# by sender: [ messages, recipients ]

sub accepted_by_relay {
    my %sent = map { $_ => [ 0, 0 ] } 1 .. CLIENTS;

    for my $message ($relay->messages()) {
        my ($n) = $message->{from} =~ /^<?s(\d+)@/ or next;
        $sent{$n}[0]++;
        $sent{$n}[1] += @{ $message->{rcpts} };
    }

    return %sent;
}


# At each cut it may have been in a transaction, and the one before not have
# been settled yet.

sub counted {
    my ($n) = @_;

    my ($accepted, $cut, $wrong) = @{ $told{$n} }{qw(accepted cut wrong)};
    my ($messages, $recipients) = @{ $sent{$n} };
    my %more = map { $_ => used($redis, 'user', "u$n\@example.com", $_) }
        qw(messages recipients bytes);

    cmp_ok($accepted, '<=', $messages, "$n: no 250 that is not the relay's");
    cmp_ok($messages, '<=', $accepted + $cut, "$n: and the relay has no more");

    $more{messages} -= $messages;
    $more{recipients} -= $recipients;
    $more{bytes} -= $messages * length BODY;

    between($more{messages}, 2 * $cut, "RED-10 $n: messages");
    between($more{recipients}, 6 * $cut, "RED-10 $n: recipients");
    between($more{bytes}, 2 * $cut * length BODY, "RED-10 $n: bytes");

    # those who were looked at; one whose answer was cut off is one more
    between($redis->cmd('ZCARD', "mail:failed:guess:{u$n\@example.com}")
        - $wrong, $cut + 1, "RED-10 $n: failed logins");
}


sub between {
    my ($more, $most, $name) = @_;

    # tags are short, and two passwords may have the same
    my $least = $name =~ /logins/ ? -5 : 0;

    ok($more >= $least && $more <= $most, "$name: what was under way")
        or diag("$more more, at most $most");
    note("$name: $more more of at most $most");
}


sub ttl_of_all {
    my %count;

    # a stream has so many entries instead
    for my $key (grep { $_ ne 'mail:events' } $redis->keys()) {
        my $ttl = $redis->cmd('PTTL', $key);

        $count{ $key =~ /^mail:(\w+)/ ? $1 : $key }++;
        ok($ttl > 0, "RED-10 $key: a TTL") or diag($ttl);
    }

    # not each run comes near a limit
    delete $count{warned};
    is(join(' ', sort keys %count), 'exempt failed lease used',
        'keys of all kinds');
}


sub members { my ($n) = @_;
              return { @{ $redis->cmd('ZRANGE',
                  "mail:lease:open:{u$n\@example.com}", 0, -1,
                  'WITHSCORES') } } }


# a session may have many that went before it, but none for longer than a lease

sub leases {
    my @open = map { login('short', 0) } 1 .. 3;
    my $left = 0;

    for my $n (0 .. CLIENTS) {
        my $lease = members($n);
        my $now = microseconds();

        $left += keys %$lease if $n;
        is(scalar(grep { $_ > $now + LEASE * 1e6 } values %$lease), 0,
            "RED-10 $n: no lease is for longer");
        cmp_ok($redis->cmd('PTTL', "mail:lease:open:{u$n\@example.com}"),
            '<=', 1000 * (LEASE + 1.1), "$n: nor is their key");
    }

    cmp_ok($left, '>', 0, 'there are leases of sessions that were killed');
    is(scalar keys %{ members(0) }, 3, 'and those of sessions that are open');

    return unless $CRASHES;

    $t->wait_for(sub { time() > $stopped + LEASE + 2 }, LEASE + 5);

    login('short', $_)->quit() for 1 .. CLIENTS;
    is(sum(map { $t->wait_for(sub { !%{ members($_) } }, 2) ? 0 : 1 }
        1 .. CLIENTS), 0, 'a minute later there are none');
    is(scalar keys %{ members(0) }, 3, 'but those of sessions that are open');
}


sub short_windows {
    my @clients = map { login('short', $_) } 1 .. CLIENTS;

    $t->wait_for(sub { time() > $stopped + SHORT + SHORT / 64 + 0.2 }, SHORT);

    for my $n (1 .. CLIENTS) {
        my @replies = map { $clients[ $n - 1 ]->cmd($_) }
            ("MAIL FROM:<s$n\@example.com>", 'RSET') x 20,
            "MAIL FROM:<s$n\@example.com>";
        is(scalar(grep { !/^250/ } @replies), 0,
            "RED-10 $n: a short window is free");
    }
}


sub login {
    my ($where, $n) = @_;

    my $c = $t->client($where);

    $c->greeting();
    $c->ehlo();
    like($c->auth_plain("u$n\@example.com", 'secret'), qr/^235/, "$n: login");
    return $c;
}


sub microseconds {
    my ($seconds, $rest) = @{ $redis->cmd('TIME') };
    return $seconds * 1e6 + $rest;
}


sub sum { my $sum = 0; $sum += $_ for @_; return $sum }
