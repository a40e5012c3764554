#!/usr/bin/perl

# Many messages through a real Postfix that asks: by smtp-source on many
# connections, several nginx workers, out to smtp-sink.  What Redis has
# counted, what Postfix says it delivered and what the sink took is the same
# number; and a limit of half of them lets half of them through.
#
# TEST_MESSAGES: that many (300; 10000 take a minute).

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

BEGIN { $ENV{TEST_NGINX_TIMEOUT} //= 1800 if $ENV{TEST_MESSAGES} }

use Test::More;
use Time::HiRes qw(time);

use MailPolicy;
use MailPolicy::Limits qw(is_used lasting used_keys);
use MailPolicy::Postfix;
use MailPolicy::Process qw(spawn wait_exit);
use MailPolicy::Sink;

my $missing = MailPolicy::Postfix::missing();
plan(skip_all => $missing) if $missing;

my $MESSAGES = $ENV{TEST_MESSAGES} || 300;
my $AT_ONCE = 20;

my $t = MailPolicy->new();
my $redis = $t->run_redis();
my $dir = $t->dir();

my $sink = MailPolicy::Sink->new($t, port => 'sink');
my $ask = 'check_policy_service,inet:127.0.0.1:' . $t->port('policy');
my $unix = "check_policy_service,unix:$dir/policy.sock";

my $postfix = MailPolicy::Postfix->new($t,
    smtpd => {
        rcpt => [ "smtpd_recipient_restrictions=$ask" ],
        data => [ "smtpd_data_restrictions=$unix" ],
        end  => [ "smtpd_end_of_data_restrictions=$ask" ],
        all  => [ map { "smtpd_${_}_restrictions=$unix" }
            qw(recipient data end_of_data) ],
    },
    main => [
        'enable_long_queue_ids = yes',          # short ones come again
        'default_transport = smtp:[127.0.0.1]:' . $t->port('sink'),
        'default_process_limit = 100', 'smtp_connection_cache_on_demand = no',
        'default_destination_concurrency_limit = 20',
        'smtpd_client_connection_count_limit = 0',
        'smtpd_error_sleep_time = 0', 'smtpd_soft_error_limit = 100000',
        'smtpd_hard_error_limit = 100000',
    ]);

$t->conf(<<"END");
worker_processes  3;
error_log         $dir/error.log  notice;

mail {
    policy_redis  redis://127.0.0.1:%%PORT_redis%% timeout=10s
                  on_error=closed;
    policy_limit  sender  key=\$sender  messages=1000000/1d
                          recipients=10000000/1d;

    server {
        listen    127.0.0.1:%%PORT_policy%%;
        listen    unix:%%DIR%%/policy.sock;
        protocol  policy;
    }
}
END
$t->run_nginx();


# so many messages of one sender; all of them at once, where there are several

sub source {
    my (@jobs) = @_;

    my $begin = time();
    my @pids = map {
        my ($port, $from, $n, $recipients) = @$_;
        spawn("$dir/source.$from", 'smtp-source', '-A', '-N',
            '-s', $AT_ONCE / @jobs, '-m', $n, '-r', $recipients // 1,
            '-f', $from, '-t', 'r@example.net', '-l', 1000,
            '127.0.0.1:' . $t->port($port));
    } @jobs;

    is_deeply([ map { wait_exit($_, 1500) } @pids ], [ map { 0 } @pids ],
        'smtp-source');
    return time() - $begin;
}


# messages that the sink has taken since it was looked at last

my $taken = 0;

sub taken { return $sink->messages() - $taken }


sub is_delivered {
    my ($what, %expected) = @_;

    local $Test::Builder::Level = $Test::Builder::Level + 1;

    my $total = 0;
    $total += $_->[0] for values %expected;

    ok($t->wait_for(sub { !$postfix->queued() && taken() >= $total }, 600),
        "$what: nothing is left in the queue");
    is(taken(), $total, "$what: messages that the sink took");
    $taken += $total;

    for my $from (sort keys %expected) {
        my ($messages, $recipients) = @{ $expected{$from} };

        is(join(' ', $postfix->delivered($from)), "$messages $recipients",
            "$what: $from: delivered");
        is_used($redis, "$what: $from: charged", 'sender', $from,
            messages => $messages, recipients => $recipients, timeout => 2);
    }
}


# all of them; each stage a part, at the same time

my @STAGES = qw(all data end rcpt);
my $part = int($MESSAGES / @STAGES);

my $took = source(map { [ $_, "$_\@example.com", $part ] } @STAGES);
is_delivered('at once', map { ("$_\@example.com" => [ $part, $part ]) }
    @STAGES);
note(sprintf('%d messages in %.1f s: %.0f a second', $part * @STAGES, $took,
    $part * @STAGES / $took));

# half of them

$redis->cmd('HSET', 'mail:limit:sender:{half@example.com}',
    messages => int($MESSAGES / 2) . '/1d');
$took = source(map { [ $_, 'half@example.com', $part ] } @STAGES);
is_delivered('half', 'half@example.com' => [ (int($MESSAGES / 2)) x 2 ]);
note(sprintf('%d messages, half of them refused, in %.1f s', $part * @STAGES,
    $took));

# recipients: five a message, and a limit in the middle of one.  At RCPT what
# is left of it passes, and to nobody else; further messages end there.

my $n = int($MESSAGES / 10);
my $limit = 5 * int($n / 2);

for my $stage ('rcpt', 'end') {
    my $from = "few-$stage\@example.com";

    $redis->cmd('HSET', "mail:limit:sender:{$from}",
        recipients => $limit + 3 . '/1d');
    source([ $stage, $from, $n, 5 ]);
    ok($t->wait_for(sub { !$postfix->queued() }, 600), "$from: queue");

    my ($messages, $recipients) = $postfix->delivered($from);
    my $all = $stage eq 'rcpt' ? $limit + 3 : $limit;

    is($recipients, $all, "$from: delivered");
    is_used($redis, "$from: charged", 'sender', $from, timeout => 2,
        messages => $messages, recipients => $all);
    $taken += $messages;
}

is(taken(), 0, 'the sink took no more');
is(scalar(used_keys($redis)), @STAGES + 3, 'nothing else is counted');
is(join(' ', lasting($redis)), '', 'and nothing lasts');

# of clocks that differ it does, as they tick differently
is(join("\n", grep { !/file system clock|file time stamps/ }
    $postfix->log() =~ /^.*\b(?:warning|fatal|panic):.*$/mg), '',
    'Postfix: nothing to complain of');

$postfix->stop();
$sink->stop();
$t->done();
