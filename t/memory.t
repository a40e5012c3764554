#!/usr/bin/perl

# The worker's memory: no growth over 20,000 messages in one session, nor
# over 20,000 sessions.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Errno ();
use IO::Socket::INET;
use Test::More;
use Time::HiRes qw(sleep);

use MailPolicy;
use MailPolicy::Process qw(fork_server wait_exit);


my $t = MailPolicy->new();
my $relay = $t->run_relay(name => 'relay', store => 0);

$t->write_file('users', 'alice@example.com:'
    . $t->crypt('secret', '$5$rounds=1000$memory$') . "\n");

$t->conf(<<'EOF');
# what is written for each connection would be half of the work
error_log  %%DIR%%/error.log notice;

mail {
    server_name    edge.example.com;
    access_log     %%DIR%%/access.log;
    policy_zone    1m;
    policy_limit   sender key=$sender messages=1000000/1h recipients=1000000/1h;

    server {
        listen                 127.0.0.1:%%PORT_smtp%%;
        protocol               smtp;
        policy                 on;
        policy_auth            off;
        proxy_pass             127.0.0.1:%%PORT_relay%%;
    }

    server {
        listen                 127.0.0.1:%%PORT_auth%%;
        protocol               smtp;
        policy                 on;
        policy_auth            file:%%DIR%%/users;
        policy_auth_plaintext  on;
        proxy_pass             127.0.0.1:%%PORT_relay%%;
    }
}
EOF
$t->run_nginx();

my ($worker) = $t->worker_pids();

# AddressSanitizer keeps freed memory for a while
my $asan = $t->read_file("/proc/$worker/maps") =~ /asan/;
my $COUNT = $asan ? 2_000 : 20_000;

sub memory {
    my ($kb) = $t->read_file("/proc/$worker/status") =~ /^RssAnon:\s+(\d+)/m;
    return $kb;
}


sub descriptors { return scalar(() = glob("/proc/$worker/fd/*")) }

my $MESSAGE = "MAIL FROM:<a\@example.com>\r\nRCPT TO:<b\@example.net>\r\n"
    . "RCPT TO:<c\@example.net>\r\n";

# one that may be pipelined, and one with the wait for 354 in it
my $CHUNKED = $MESSAGE . "BDAT 17 LAST\r\nSubject: x\r\n\r\nx\r\n";
my @PLAIN = ("${MESSAGE}DATA\r\n", "Subject: x\r\n\r\nx\r\n.\r\n");

my $RESET = "MAIL FROM:<a\@example.com>\r\nRCPT TO:<b\@example.net>\r\n"
    . "RSET\r\n";

# AUTH PLAIN for alice@example.com and secret
my $AUTH = "AUTH PLAIN AGFsaWNlQGV4YW1wbGUuY29tAHNlY3JldA==\r\n";

# the machine may be short of ports for a while: closed connections hold them

sub connection {
    my ($where) = @_;

    my $socket;

    for (1 .. 600) {
        $socket = IO::Socket::INET->new(PeerAddr => '127.0.0.1',
            PeerPort => $t->port($where));
        return $socket if $socket;
        die "connect: $!\n" unless $!{EADDRNOTAVAIL};
        sleep(0.1);
    }

    die "connect: no free port\n";
}


# each group of commands when the greeting, or the one before it, is answered

sub exchange {
    my ($socket, @groups) = @_;

    my $all = '';

    for my $group ('', @groups) {
        syswrite($socket, $group) == length($group) or die "write: $!\n";
        my $replies = '';

        # the last of a group answers with one of these, nothing else does
        until ($replies =~ /^(?:220|250 HELP|235|354|221|250 .*queued)/m) {
            sysread($socket, $replies, 65536, length $replies)
                or return $all . $replies;
        }

        $all .= $replies;
    }

    return $all;
}


# $count messages in one session: what is asked and what is answered overlap

sub one_session {
    my ($count, $where) = @_;

    my $socket = connection($where);
    my $accepted = 0;

    exchange($socket, "EHLO client.example\r\n");

    for my $n (1 .. $count / 50) {
        my $expected = 50;
        my $octets = $CHUNKED x 50 . ($n % 10 ? '' : $RESET);

        syswrite($socket, $octets) == length($octets) or die "write: $!\n";

        while ($expected > 0) {
            my $line = <$socket> // die "closed after $accepted messages\n";
            next unless $line =~ /^250 .*queued/;
            $expected--;
            $accepted++;
        }
    }

    print {$socket} "QUIT\r\n";
    1 while defined <$socket>;
    print "accepted $accepted\n";
}


sub many_sessions {
    my ($count, $where, @auth) = @_;

    my $accepted = 0;
    my @groups = ("EHLO client.example\r\n", @auth, @PLAIN, "QUIT\r\n");

    for my $n (1 .. $count) {
        my $socket = connection($where);

        # every tenth leaves without a word, some in the middle of the body
        if ($n % 10 == 0) {
            my @some = @groups[0 .. $n / 10 % @groups];
            my $rest = pop @some;
            exchange($socket, @some);
            syswrite($socket, substr($rest, 0, $n % length($rest)));
            next;
        }

        $accepted++ if exchange($socket, @groups) =~ /^250 .*queued/m;
    }

    print "accepted $accepted\n";
}


# in as many processes at a time; the number of messages accepted

sub run {
    my ($processes, $code, @arguments) = @_;

    my @pids = map {
        my $file = $t->dir() . "/client$_";
        unlink($file);
        fork_server($file, [], sub { $code->(@arguments); STDOUT->flush() });
    } 1 .. $processes;

    wait_exit($_, 150) // kill('KILL', $_) for @pids;

    my $accepted = 0;
    for my $output (map { $t->read_file("client$_") }
        1 .. $processes) {
        $output =~ /^accepted (\d+)$/m ? $accepted += $1 : diag($output);
    }
    return $accepted;
}


# grows in the first messages: pools of the allocator, pages of the zone

sub flat {
    my ($name, $expected, $processes, $code, @rest) = @_;

    run($processes, $code, $COUNT / 20, @rest);
    my $before = memory();
    my $accepted = run($processes, $code, $COUNT / $processes, @rest);
    my $growth = memory() - $before;

    is($accepted, $expected, "$name: accepted");
    note("$name: $before kB, and $growth kB more");

    SKIP: {
        skip('AddressSanitizer', 1) if $asan;
        cmp_ok($growth, '<', 300, "$name: memory is flat");
    }

    ok($t->wait_for(sub { !$relay->stats()->{open} }), "$name: relays closed");
}


my $baseline = descriptors();

flat('messages in a session', $COUNT, 1, \&one_session, 'smtp');
flat('sessions', $COUNT * 0.9, 2, \&many_sessions, 'smtp');

# a tenth of them, as each has its hash
flat('sessions with a login', $COUNT * 0.09, 2,
    sub { many_sessions($_[0] / 10, @_[1, 2]) }, 'auth', $AUTH);

ok($t->wait_for(sub { descriptors() <= $baseline }), 'nothing is left open');
is(join(' ', $t->worker_pids()), $worker, 'the worker is the same');

$t->done();
