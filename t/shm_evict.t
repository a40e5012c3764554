#!/usr/bin/perl

# What policy_zone forgets when it is full, and how much it can remember: a
# key takes at most 400 octets, and who is over his limit is not forgotten
# for those who are not, nor by a reload.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Test::More;

use MailPolicy;

use constant ZONE    => 256 * 1024;
use constant FITTING => int(ZONE / 400);
use constant FLOOD   => int(ZONE / 200);
use constant BATCH   => 50;

my $t = MailPolicy->new();
my $relay = $t->run_relay(name => 'relay', store => 0);

$t->conf(<<'EOF');
worker_processes 2;

mail {
    policy_zone  256k;
    policy_auth  off;
    proxy_pass   127.0.0.1:%%PORT_relay%%;

    server {
        listen        127.0.0.1:%%PORT_once%%;
        protocol      smtp;
        policy        on;
        policy_limit  once   key=$sender  messages=1/1h  recipients=100/1h;
    }

    server {
        listen        127.0.0.1:%%PORT_twice%%;
        protocol      smtp;
        policy        on;
        policy_limit  twice  key=$sender  messages=2/1h;
    }
}
EOF
$t->run_nginx();


sub session {
    my ($where) = @_;

    return $t->session($where);
}


# a message of each; how many were taken

sub send_all {
    my ($where, @senders) = @_;

    my $taken = 0;

    while (my @batch = splice(@senders, 0, BATCH)) {
        my $c = session($where);
        my @replies = $c->pipeline(map { ("MAIL FROM:<$_\@example.com>",
            'RCPT TO:<x@example.net>',
            "BDAT 17 LAST\r\nSubject: x\r\n\r\nx") } @batch);

        $taken += grep { $_ % 3 == 2 && $replies[$_] =~ /^250/ } 0 .. $#replies;
        $c->quit();
    }

    return $taken;
}


# how many of them may not send any more

sub refused {
    my ($where, @senders) = @_;

    my $refused = 0;

    # a session in which too much is refused comes to an end
    for my $sender (@senders) {
        my $c = session($where);
        $refused++ if $c->cmd("MAIL FROM:<$sender\@example.com>") =~ /^450/;
        $c->quit();
    }

    return $refused;
}


# all that there has to be room for

my @fitting = map { "somebody-with-a-name-$_" } 1 .. FITTING;

is(send_all('once', @fitting), FITTING, FITTING . ' keys');
is(refused('once', @fitting), FITTING, 'each of them is remembered');

# more than there is room for, and who is over his limit keeps quiet; those who
# are may have half of it

is(send_all('twice', 'evil', 'evil', 'evil'), 2, 'two of three');
is(send_all('twice', 'good'), 1, 'one of two');

is(send_all('twice', map { "flood-$_" } 1 .. FLOOD), FLOOD,
    FLOOD . ' more, all pass');

is(refused('twice', 'evil'), 1, 'who is over his limit stays there');
is(refused('once', @fitting[-20 .. -1]), 20, 'the others, too');
is(send_all('twice', 'good', 'good'), 2, 'who is not is forgotten');

my $last = 'flood-' . FLOOD;
is(send_all('twice', $last, $last), 1, 'but not the latest');

$t->disconnect();
ok($t->reload(), 'reload');
is(refused('twice', 'evil', $last), 2, 'nobody is forgotten by a reload');
is(refused('once', @fitting[-20 .. -1]), 20, 'the others, too');

unlike($t->error_log(), qr/policy_zone is too small/, 'nothing is lost');

$t->done();
