#!/usr/bin/perl

# A real Postfix that asks "protocol policy" at every stage: one charge a
# message and a recipient, refusals as it words them, many processes at a
# time, a unix socket, a reload, and an nginx that is not there.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Test::More;

use MailPolicy;
use MailPolicy::Limits qw(is_used);
use MailPolicy::Postfix;
use MailPolicy::Process qw(spawn wait_exit);

my $missing = MailPolicy::Postfix::missing();
plan(skip_all => $missing) if $missing;

my $t = MailPolicy->new();
my $redis = $t->run_redis();

$t->conf(<<'EOF');
worker_processes 2;

mail {
    policy_redis  redis://127.0.0.1:%%PORT_redis%% timeout=5s;

    map $sender_domain $strict { strict.example  $sender; }

    policy_limit  sender  key=$sender  messages=100/1h  recipients=1000/1h;
    policy_limit  strict  key=$strict  messages=1/1h  on_exceed=reject;

    server {
        listen    127.0.0.1:%%PORT_policy%%;
        listen    unix:%%DIR%%/policy.sock;
        protocol  policy;
    }
}
EOF
$t->run_nginx();

my $inet = 'check_policy_service inet:127.0.0.1:' . $t->port('policy');
my $unix = 'check_policy_service unix:' . $t->dir() . '/policy.sock';

sub stages {
    my ($service) = @_;

    return map { "smtpd_${_}_restrictions=$service" }
        qw(client helo sender relay recipient data end_of_data);
}

# spaces are commas in master.cf
my ($tcp, $socket) = map { [ map { s/ /,/r =~ s/relay_restrictions=\K/permit_mynetworks,reject_unauth_destination,/r }
    stages($_) ] } $inet, $unix;

my $postfix = MailPolicy::Postfix->new($t,
    smtpd => { inet => $tcp, unix => $socket,
               early => [ @$tcp, 'smtpd_delay_reject=no' ],
               end   => [ "smtpd_end_of_data_restrictions=" . $inet =~ s/ /,/r ] },
    main => [ 'smtpd_policy_service_retry_delay = 1s',
              'smtpd_recipient_limit = 100' ]);


# all stages, by TCP, by a unix socket, and as they come

for my $where ('inet', 'unix', 'early') {
    my $c = $t->session($where);

    for my $n (1 .. 2) {
        my @replies = $c->send_mail("$where\@example.com",
            [ map { "r$_\@example.net" } 1 .. 3 ], "Subject: x\n\nx\n");

        like($replies[-1], qr/^250 2\.0\.0 Ok: queued as /,
            "$where: message $n");
    }

    is_used($redis, "$where: one charge for each", 'sender',
        "$where\@example.com", messages => 2, recipients => 6, timeout => 5);
}

my $c = $t->session('end');
my @replies = $c->send_mail('end@example.com',
    [ map { "r$_\@example.net" } 1 .. 4 ], "Subject: x\n\nx\n");

like($replies[-1], qr/^250 /, 'end of data alone');
is_used($redis, 'end of data: all its recipients', 'sender',
    'end@example.com', messages => 1, recipients => 4, timeout => 5);


# refusals

$redis->cmd('HSET', 'mail:limit:sender:{few@example.com}',
    recipients => '2/1h');

$c = $t->session('inet');
@replies = $c->send_mail('few@example.com',
    [ map { "r$_\@example.net" } 1 .. 3 ], "Subject: x\n\nx\n");

like($replies[3], qr/^450 4\.7\.1 .*rejected: Rate limit "sender" exceeded,(?#
    ) retry in \d+ s$/, 'the third recipient is deferred');
like($replies[-1], qr/^250 /, 'the others have their mail');

like(($c->send_mail('few@example.com', [ 'r4@example.net' ], "x\n"))[-1],
    qr/^450 4\.7\.1 /, 'and no more');
like(($c->send_mail('a@strict.example', [ 'r4@example.net' ], "x\n"))[-1],
    qr/^250 /, 'one message');
like(($c->send_mail('a@strict.example', [ 'r4@example.net' ], "x\n"))[1],
    qr/^554 5\.7\.1 .*Rate limit "strict" exceeded/, 'the second is refused');
like(($c->send_mail('<>', [ 'r4@example.net' ], "x\n"))[-1], qr/^250 /,
    'a bounce has no limit');
$c->quit();

is_used($redis, 'refused recipients are not charged', 'sender',
    'few@example.com', messages => 1, recipients => 2, timeout => 5);


# many processes at a time, and the limit is exact

$redis->cmd('HSET', 'mail:limit:sender:{load@example.com}',
    messages => '40/1h');

my $pid = spawn($t->dir() . '/source', 'smtp-source', '-s', 8, '-m', 60, '-N',
    '-f', 'load@example.com', '-t', 'r@example.net', '-A',
    '127.0.0.1:' . $t->port('inet'));

wait_exit($pid, 60);

is_used($redis, 'forty of sixty', 'sender', 'load@example.com',
    messages => 40, recipients => 40, timeout => 5);
ok($t->wait_for(sub {
    40 == (() = $postfix->log() =~ /from=<load\@example\.com>, size=/g) }),
    'and Postfix has as many');


# a reload amid sessions

$c = $t->session('unix');
like(($c->send_mail('re@example.com', [ 'r@example.net' ], "x\n"))[-1],
    qr/^250 /, 'before a reload');
$t->reload();
like(($c->send_mail('re@example.com', [ 'r@example.net' ], "x\n"))[-1],
    qr/^250 /, 'behind it, in the same session');


# nginx is not there: Postfix tries again, then defers, and mail is not lost

$t->stop();
like($c->cmd('RSET'), qr/^250/, 'nginx stops');
@replies = $c->send_mail('re@example.com', [ 'r@example.net' ], "x\n");
like($replies[1], qr/^451 4\.3\.5 .*Server configuration problem/,
    'Postfix defers');
$t->run_nginx();
like(($c->send_mail('re@example.com', [ 'r@example.net' ], "x\n"))[-1],
    qr/^250 /, 'and goes on when it is back');
$c->quit();

$postfix->stop();
$t->done();
