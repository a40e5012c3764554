#!/usr/bin/perl

# Reloads under load: clients send all the time, slowly some of them, and the
# workers are replaced again and again.  No connection is refused, no message
# is broken off after 354, old workers go in time, no connection to a relay is
# left behind; and clients, relays, access log and Redis agree about every
# message.
#
# TEST_RELOADS: how often (100 for all of it, about a minute).

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Test::More;
use Time::HiRes qw(sleep time);

use MailPolicy;
use MailPolicy::FastRelay;
use MailPolicy::Limits qw(used);
use MailPolicy::Process qw(fork_server wait_exit);

use constant { CLIENTS => 6, SHUTDOWN => 5, KEEP => 3, WORKERS => 2 };

my $RELOADS = $ENV{TEST_RELOADS} || 5;

$ENV{TEST_NGINX_TIMEOUT} //= 60 + 5 * $RELOADS;

my $t = MailPolicy->new();
my $redis = $t->run_redis();
my %relay = map { $_ => MailPolicy::FastRelay->new($t, name => $_) } qw(a b);

$t->conf(<<"EOF");
error_log                %%DIR%%/error.log info;
worker_processes         @{[ WORKERS ]};
worker_shutdown_timeout  @{[ SHUTDOWN ]}s;

mail {
    server_name   edge.example.com;
    access_log    %%DIR%%/access.log;
    policy_redis  redis://127.0.0.1:%%PORT_redis%% timeout=5s;
    policy        on;
    policy_auth   off;
    policy_limit  all  key=\$sender_domain  messages=1000000/1h
                  recipients=1000000/1h;

    upstream group {
        server     127.0.0.1:%%PORT_a%%;
        server     127.0.0.1:%%PORT_b%%;
        keepalive  @{[ KEEP ]};
    }

    server {
        listen      127.0.0.1:%%PORT_smtp%%;
        protocol    smtp;
        proxy_pass  group;
    }
}
EOF
$t->run_nginx();

my @pids = map { start_client($_) } 1 .. CLIENTS;
sleep(0.3);

my ($done, $longest) = (0, 0);

for (1 .. $RELOADS) {
    my %old = map { $_ => 1 } $t->instance()->all_worker_pids();
    my $begin = time();

    $t->reload() or last;
    $t->wait_for(sub { !grep { $old{$_} } $t->instance()->all_worker_pids() },
        SHUTDOWN + 1) or last;

    my $took = time() - $begin;
    $longest = $took if $took > $longest;
    $done++;
    sleep(0.05 + rand(0.2));
}

is($done, $RELOADS, "$RELOADS reloads, and all old workers gone in time");
note(sprintf('the slowest took %.2f s', $longest));

sleep(0.3);
$t->write_file('stop', '');
is(scalar(grep { (wait_exit($_, 30) // 1) != 0 } @pids), 0,
    'all clients came to their end');

my (%client, %count);

for my $n (1 .. CLIENTS) {
    for (split /\n/, $t->read_file("client$n")) {
        my ($id, $what) = split / /, $_, 2;
        $count{$what}++;
        $client{$id} = 1 if $what eq 'accepted';
    }
}

note(join(', ', map { "$_: $count{$_}" } sort keys %count));

# what they saw

is($count{refused} // 0, 0, 'no connection was refused');
is($count{broken} // 0, 0, 'no message was broken off after 354');
is(join(' ', grep { !/^(?:accepted|421|refused|broken)$/ } sort keys %count),
    '', 'nothing but 421 between commands');
cmp_ok($count{accepted}, '>', 10 * $RELOADS, 'messages were accepted');
cmp_ok($count{421} // 0, '>', 0, 'sessions were open at the time');

# the same everywhere

my %taken = map { %{ $relay{$_}->accepted() } } sort keys %relay;
my %logged = map { $_->{outcome} => 1 } my @log = $t->access_log();
my @accepted = grep { $_->{outcome} eq 'accepted' } @log;

is_deeply([ sort keys %taken ], [ sort keys %client ],
    'the relays have what clients were told');
is_deeply([ sort map { $_->{sender} =~ s/@.*//r } @accepted ],
    [ sort keys %client ], 'the access log has it, too');
is(join(' ', grep { !/^(?:accepted|aborted)$/ } sort keys %logged), '',
    'and else only what was cut by 421');
is_deeply([ map { $t->wait_for(sub { used($redis, 'all', 'example.com', $_)
    == @accepted }); used($redis, 'all', 'example.com', $_) }
    qw(messages recipients) ], [ (scalar @accepted) x 2 ],
    'Redis has counted that');
cmp_ok(scalar(grep { @{ $_->{to} } } @accepted), '==', @accepted,
    'with its recipients');

# what is left

my $open;
$t->wait_for(sub { ($open = connections()) <= KEEP * WORKERS }, 5);
cmp_ok($open, '<=', KEEP * WORKERS, 'connections to relays: those of the pool');
$t->stop();
$t->wait_for(sub { connections() == 0 }, 5);
is(connections(), 0, 'connections to relays: none without nginx');
unlike($t->error_log(), qr/open socket #\d+ left|cancelled?d timer|exited on/,
    'nothing was left behind');

$t->done(faults => 0);


# one session after the other; a line for each message, "id what"

sub start_client {
    my ($n) = @_;

    my $file = $t->dir() . "/client$n";

    return fork_server("$file.err", [], sub {
        open(my $fh, '>', $file) or die "$file: $!\n";
        my $number = 0;

        srand($n);
        session($fh, $n, \$number) until -e $t->dir() . '/stop';
        close($fh);
    });
}


sub session {
    my ($fh, $n, $number) = @_;

    my $c = MailPolicy::Client->new(port => $t->port('smtp'));
    return print $fh "- refused\n" if !$c->connected();

    my $reply = $c->greeting();
    return print $fh "- refused\n" if $reply eq 'CLOSED';
    return print $fh '- ', substr($reply, 0, 3), "\n" if $reply !~ /^220/;
    $c->ehlo() =~ /^250/ or return print $fh "- 421\n";

    for (1 .. 1 + rand(30)) {
        my $id = "m$n-" . ++$$number;
        my $what = message($c, $id);

        print $fh "$id $what\n";
        return if $what ne 'accepted' || -e $t->dir() . '/stop';
        sleep(rand(0.02));
    }

    $c->quit();
}


sub message {
    my ($c, $id) = @_;

    for my $command ("MAIL FROM:<$id\@example.com>", 'RCPT TO:<r@example.net>',
        'DATA')
    {
        my $reply = $c->cmd($command);
        next if $reply =~ /^[23]/;
        return $reply =~ /^421 4\.3\.2 / ? '421' : $reply;
    }

    $c->send_raw("X-Id: $id\r\nSubject: x\r\n\r\n" . ('x' x 70 . "\r\n") x 10);
    sleep(rand(0.3)) if rand() < 0.3;
    $c->send_raw("y\r\n.\r\n");

    return $c->read_reply() =~ /^250/ ? 'accepted' : 'broken';
}


# those that nginx has to the relays, from the kernel: state 1 is established

sub connections {
    my %port = map { sprintf('%04X', $t->port($_)) => 1 } sort keys %relay;

    return scalar(grep { /^\s*\d+: \S+ [0-9A-F]{8}:([0-9A-F]{4}) 01 /
        && $port{$1} } split /\n/, $t->read_file('/proc/net/tcp'));
}
