#!/usr/bin/perl

# Two nginx with two workers each and one Redis: what many clients send at
# once is counted together, to the message.  The sum is taken in four places:
# replies, the relay, the access logs, the counter in Redis.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Test::More;

use MailPolicy;
use MailPolicy::Limits qw(lasting used wait_used);
use MailPolicy::Process qw(fork_server wait_exit);

use constant CLIENTS  => 16;
use constant MESSAGES => 50;
use constant LIMIT    => 100;

my $t = MailPolicy->new();
my $redis = $t->run_redis();
my $relay = $t->run_relay(name => 'relay');

$t->write_file('users', 'alice@example.com:' . $t->crypt('secret') . "\n");

# each server has an access log of its own

sub server {
    my ($edge, $name, $more) = @_;

    return <<"EOF";
    server {
        listen                 127.0.0.1:%%PORT_${name}_$edge%%;
        protocol               smtp;
        policy                 on;
        policy_auth_plaintext  on;
        proxy_pass             127.0.0.1:%%PORT_relay%%;
        access_log             %%DIR%%/$name.$edge.log;
        $more
    }
EOF
}

for my $edge (qw(a b)) {
    my $servers = join('', map { server($edge, @$_) } (
        [ 'one', 'policy_auth off;
                  policy_limit sender key=$sender messages=100/1h;' ],
        [ 'many', 'policy_auth file:%%DIR%%/users;
                   policy_limit user key=$sasl_username messages=100/1h;' ],
        [ 'rcpts', 'policy_auth off;
                    policy_limit rcpts key=$sender recipients=100/1h;' ],
        [ 'back', 'policy_auth off;
                   policy_limit back key=$sender messages=100/1h;' ],
    ));

    $t->conf($edge, "worker_processes 2;\nevents { worker_connections 512; }\n"
        . "mail {\n    policy_redis redis://127.0.0.1:%%PORT_redis%%"
        . " timeout=5s;\n$servers}\n");
    $t->run_nginx($edge);
}


# All clients at once, half of them at each nginx; what each returns, a list
# of lines, joined.

sub all_at_once {
    my ($server, $code) = @_;

    my @pids;

    for my $n (1 .. CLIENTS) {
        my $port = $t->port($server . ($n % 2 ? '_a' : '_b'));
        my $file = $t->dir() . "/client-$server-$n";

        push @pids, fork_server("$file.err", [], sub {
            my @lines = $code->($n, $port);
            open(my $fh, '>', $file) or die "$file: $!\n";
            print $fh map { s/\n/ /gr . "\n" } @lines;
        });
    }

    my $left = grep { !defined wait_exit($_, 60) } @pids;
    is($left, 0, "$server: all clients came to their end");

    return map { split /\n/, $t->read_file("client-$server-$_") }
        1 .. CLIENTS;
}


# a session, a message

sub one_per_session {
    my ($n, $port) = @_;

    return map {
        my $c = MailPolicy::Client->new(port => $port);
        $c->greeting();
        $c->ehlo();
        my @replies = $c->send_mail('alice@example.com',
            [ 'bob@example.net' ], "X-Id: $n-$_\n\nx\n");
        $c->quit();
        $replies[-1];
    } 1 .. MESSAGES;
}


# A session, all messages: what may be pipelined is, and the next message's
# commands go out with the body of the one before.

sub many_per_session {
    my ($n, $port) = @_;

    my $c = MailPolicy::Client->new(port => $port);
    my $group = "MAIL FROM:<alice\@example.com>\r\n"
        . "RCPT TO:<bob\@example.net>\r\nDATA\r\n";
    my @result;

    $c->greeting();
    $c->ehlo();
    $c->auth_plain('alice@example.com', 'secret');
    $c->send_raw($group);

    for my $i (1 .. MESSAGES) {
        my @replies = map { $c->read_reply() } 1 .. 3;
        my $next = $i < MESSAGES ? $group : '';

        if ($replies[2] =~ /^354/) {
            $c->send_raw("X-Id: $n-$i\r\n\r\nx\r\n.\r\n$next");
            push @result, $c->read_reply();
        } else {
            $c->send_raw($next);
            push @result, $replies[0];
        }
    }

    push @result, $c->quit();
    return @result;
}


sub tally {
    my (@replies) = @_;

    my %count;
    $count{ /^(\d{3} \d\.\d\.\d)/ ? $1 : $_ }++ for @replies;
    return \%count;
}


# what must be true of both ways to send

sub check_sums {
    my ($server, $limit, @replies) = @_;

    my @log = map { $t->access_log("$server.$_.log") } qw(a b);
    my @accepted = grep { $_->{outcome} eq 'accepted' } @log;
    my @limited = grep { $_->{outcome} eq 'deferred' } @log;

    my $text = qr/^450 4\.7\.1 Rate limit "$limit" exceeded, retry in \d+ s$/;

    is(scalar(grep { /^450/ && $_ !~ $text } @replies), 0,
        "$server: what the refused are told");
    is(scalar @accepted, LIMIT, "$server: log: accepted");
    is(scalar @limited, CLIENTS * MESSAGES - LIMIT, "$server: log: deferred");
    is(scalar @log, CLIENTS * MESSAGES, "$server: log: nothing else");
    is(scalar(grep { ($_->{limit} // '') ne $limit
                     || $_->{limit_used} != LIMIT
                     || $_->{limit_max} != LIMIT } @limited), 0,
        "$server: log: by which limit");
    is(used($redis, $limit, 'alice@example.com'), LIMIT,
        "$server: the counter");
}


# a worker that is not connected yet counts for itself: two each, in four

ok($t->wait_for(sub { 8 <= grep { /\bcmd=(?!client|NULL)/ }
    split /\n/, $redis->cmd('CLIENT', 'LIST') }), 'all are connected');

# one message per session

my @replies = all_at_once('one', \&one_per_session);

is_deeply(tally(@replies), { '250 2.0.0' => LIMIT, '450 4.7.1' => 700 },
    'one per session: exactly 100 of 800');

my @messages = $relay->wait_messages(LIMIT);

is(scalar @messages, LIMIT, 'one per session: the relay has them');
check_sums('one', 'sender', @replies);

# many per session, pipelined

@replies = all_at_once('many', \&many_per_session);

is_deeply(tally(@replies),
    { '250 2.0.0' => LIMIT, '450 4.7.1' => 700, '221 2.0.0' => CLIENTS },
    'many per session: exactly 100 of 800, no session was cut off');

@messages = $relay->wait_messages(2 * LIMIT);
is(scalar @messages, 2 * LIMIT, 'many per session: the relay has them');
check_sums('many', 'user', @replies);

my %once = map { $_->{data} => 1 } @messages[LIMIT .. $#messages];
is(scalar keys %once, LIMIT, 'many per session: none came twice');

# recipients: eight hundred of them, five a message

@replies = all_at_once('rcpts', sub {
    my ($n, $port) = @_;

    my $c = MailPolicy::Client->new(port => $port);
    my @result;

    $c->greeting();
    $c->ehlo();

    for (1 .. MESSAGES / 5) {
        my (undef, @rcpts) = $c->pipeline('MAIL FROM:<alice@example.com>',
            map { "RCPT TO:<$_\@example.net>" } 1 .. 5);
        push @result, @rcpts;

        if (!grep { /^250/ } @rcpts) {
            $c->cmd('RSET');
            next;
        }

        $c->cmd('DATA');
        $c->send_raw("x\r\n.\r\n");
        push @result, $c->read_reply() =~ /^250/ ? () : 'not accepted';
    }

    return @result;
});

# the first one is asked for with MAIL: where it does not fit, MAIL is refused

my $said = tally(@replies);
is(delete $said->{'250 2.1.5'}, LIMIT, 'recipients: exactly 100 of 800');
is_deeply([ grep { !/^(?:450 4\.7\.1|503 5\.5\.1)$/ } keys %$said ], [],
    'recipients: the others are refused');

my $total = 0;
$total += @{ $_->{rcpts} } for $relay->messages();
is($total, 2 * LIMIT + LIMIT, 'recipients: the relay has them');
is(used($redis, 'rcpts', 'alice@example.com', 'recipients'), LIMIT,
    'recipients: the counter');

# A relay that refuses many, clients that go away: never more than the limit,
# and at the end as much is charged as was accepted.

my $before = () = $relay->messages();

$relay->set(dot => { times => 60, action => '554 5.6.0 refused' });

@replies = all_at_once('back', sub {
    my ($n, $port) = @_;

    return map {
        my $c = MailPolicy::Client->new(port => $port);
        my @replies = ('gone');

        $c->greeting();
        $c->ehlo();

        if ($_ % 5 == 0) {
            # not even the replies are waited for
            $c->send_raw("MAIL FROM:<alice\@example.com>\r\n"
                . "RCPT TO:<bob\@example.net>\r\n");
            $_ % 2 ? $c->reset() : $c->close();
        } else {
            @replies = $c->send_mail('alice@example.com',
                [ 'bob@example.net' ], "x\n");
            $c->quit();
        }

        $replies[-1];
    } 1 .. MESSAGES / 2;
});

my $tally = tally(@replies);
my $accepted = $tally->{'250 2.0.0'} // 0;

cmp_ok($accepted, '<=', LIMIT, 'given back: never more than the limit');
cmp_ok($accepted, '>', 0, 'given back: but some');
is($tally->{'554 5.6.0'}, 60, 'given back: what the relay refused');

my $after = () = $relay->messages();

is($after - $before, $accepted, 'given back: the relay has as many');
is_deeply(wait_used($redis, 'back', 'alice@example.com', [ $accepted, 0 ]),
    [ $accepted, 0 ], 'given back: as much is charged as was accepted');

$t->stop($_) for qw(a b);

is(used($redis, 'back', 'alice@example.com'), $accepted, 'none comes late');
is_deeply([ grep { !/^mail:(?:events$|warned:)/ } $redis->keys() ],
    [ map { "mail:used:$_:{alice\@example.com}" } qw(back rcpts sender user) ],
    'no other keys');
is_deeply([ lasting($redis) ], [], 'no key without TTL');

$t->done();
