#!/usr/bin/perl

# What a real Postfix does when nobody answers it: nginx was stopped, has
# crashed, hangs; Redis is away.  Its default action, 451 4.3.5 or what
# smtpd_policy_service_default_action says, and it goes on in the same session
# as soon as nginx is back.  What was not answered was not charged.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Test::More;
use Time::HiRes qw(sleep time);

use MailPolicy;
use MailPolicy::Limits qw(codes is_used used);
use MailPolicy::Postfix;

my $missing = MailPolicy::Postfix::missing();
plan(skip_all => $missing) if $missing;

my $t = MailPolicy->new();
my $redis = $t->run_redis();

my $unix = $t->dir() . '/postfix/queue/private/policy';
my $inet = 'check_policy_service,inet:127.0.0.1:' . $t->port('policy');
my $path = 'check_policy_service,unix:private/policy';

my %ASKS = (inet => "smtpd_recipient_restrictions=$inet",
    unix => "smtpd_recipient_restrictions=$path",
    data => "smtpd_data_restrictions=$path",
    end => "smtpd_end_of_data_restrictions=$inet");
my @HOW = sort keys %ASKS;

my $postfix = MailPolicy::Postfix->new($t, chroot => 1,
    smtpd => { map {
        ($_ => [ $ASKS{$_} ], "${_}_open" => [ $ASKS{$_},
            'smtpd_policy_service_default_action=DUNNO' ])
    } @HOW },
    main => [ 'smtpd_policy_service_timeout = 1s',
              'smtpd_policy_service_retry_delay = 1s',
              'smtpd_error_sleep_time = 0', 'smtpd_soft_error_limit = 100',
              'smtpd_hard_error_limit = 100' ]);

$t->conf(<<'END');
worker_processes 2;

mail {
    policy_redis  redis://127.0.0.1:%%PORT_redis%% timeout=500ms
                  on_error=closed;
    policy_limit  sender  key=$sender  messages=1000/1h  recipients=1000/1h;

    server {
        listen    127.0.0.1:%%PORT_policy%%;
        listen    unix:%%DIR%%/postfix/queue/private/policy;
        protocol  policy;
    }
}
END
$t->run_nginx();

my %session = map { $_ => $t->session($_) } map { ($_, "${_}_open") } @HOW;
my %passed;

sub mail {
    my ($port) = @_;

    my @replies = $session{$port}->send_mail("$port\@example.com",
        [ 'r@example.net' ], "Subject: x\n\nx\n");

    $session{$port}->cmd('RSET') if $replies[-1] !~ /^2/;
    return $replies[-1];
}

sub passes {
    my ($what, $charged) = @_;

    for my $port (sort keys %session) {
        is(codes(mail($port)), '250', "$what: $port: passes");
        is_used($redis, "$what: $port: charged", 'sender',
            "$port\@example.com", messages => ++$passed{$port},
            recipients => $passed{$port}, timeout => 5);
    }
}

# All sessions at once, as each of them has to wait.  Those that wait at the
# end of the message go first.

sub at_once {
    my @ports = sort { ($b =~ /end/) <=> ($a =~ /end/) } sort keys %session;
    my %last;

    $session{$_}->send_raw("MAIL FROM:<$_\@example.com>\r\n"
        . "RCPT TO:<r\@example.net>\r\nDATA\r\n") for @ports;

    for my $port (@ports) {
        my @replies = map { $session{$port}->read_reply() } 1 .. 3;

        ($last{$port}) = grep { !/^2/ } @replies;
        $session{$port}->send_raw("Subject: x\r\n\r\nx\r\n.\r\n")
            if $last{$port} =~ /^354/;
    }

    for my $port (@ports) {
        $last{$port} = $session{$port}->read_reply()
            if $last{$port} =~ /^354/;
        $session{$port}->cmd('RSET');
    }

    return %last;
}

sub defers {
    my ($what, $code, $text) = @_;

    my %last = at_once();

    for my $how (@HOW) {
        my $where = { data => '<DATA>', end => '<END-OF-MESSAGE>' }->{$how}
            // '<r@example.net>';

        like($last{$how}, qr/^\Q$code $where\E: .*rejected: \Q$text\E$/,
            "$what: $how: deferred");
    }

    return %last;
}

sub away {
    my ($what) = @_;

    my %last = defers($what, '451 4.3.5', 'Server configuration problem');

    like($last{"${_}_open"}, qr/^250 2\.0\.0 Ok: queued/,
        "$what: default action DUNNO: $_: passes") for @HOW;
}


passes('at first');

$t->stop();
away('nginx stopped');
$t->run_nginx();
passes('nginx is there again');

$t->instance()->crash();
away('nginx crashed');

# nginx does not bind to a socket that is left over
unlink($unix);
$t->run_nginx();
passes('nginx is there again');

$t->instance()->freeze('STOP');
away('nginx hangs');
$t->instance()->freeze('CONT');
sleep(0.5);

# Postfix has closed its first connection, but leaves the second one open, to
# look at later: what is answered there is charged

for my $port (sort keys %session) {
    my $used = used($redis, 'sender', "$port\@example.com");

    ok($used == $passed{$port} || $used == $passed{$port} + 1,
        "nginx goes on: $port: of two questions one is charged at most");
    $passed{$port} = $used;
}

passes('nginx goes on');


# the limit is asked with no Redis: that is an answer

my $closed = 'Temporary server problem, try again later';

$redis->signal('STOP');
my %last = defers('Redis hangs', '450 4.3.0', $closed);
like($last{"${_}_open"}, qr/^450 4\.3\.0 /,
    "Redis hangs: no default action: $_") for @HOW;
$redis->signal('CONT');
ok($t->wait_for(sub { mail('inet') =~ /^250/ && ++$passed{inet} }, 20),
    'Redis is back');
sleep(1.5);
passes('Redis is back');

$redis->kill();
defers('Redis crashed', '450 4.3.0', $closed);
$redis->start();
%passed = ();
ok($t->wait_for(sub { mail('inet') =~ /^250/ && ++$passed{inet} }, 20),
    'Redis is there again');
sleep(1.5);
passes('Redis is there again, and empty');


# a reload of nginx between two messages, and amid one

for my $port (sort keys %session) {
    my $c = $session{$port};

    is(codes($c->cmd("MAIL FROM:<$port\@example.com>"),
        $c->cmd('RCPT TO:<r@example.net>')), '250 250', "$port: begins");
}

ok($t->reload(), 'nginx reloads');

for my $port (sort keys %session) {
    my $c = $session{$port};

    is(codes($c->cmd('RCPT TO:<s@example.net>'), $c->cmd('DATA'),
        $c->cmd("x\r\n.")), '250 354 250', "$port: goes on");
    is_used($redis, "$port: one message", 'sender', "$port\@example.com",
        messages => ++$passed{$port}, recipients => $passed{$port} + 1,
        timeout => 5);
}

$_->quit() for values %session;
is_deeply([ $t->error_log() =~ /\[(?:error|crit)\] (?!.*(?:Redis|redis|store)).*/g ], [],
    'nothing else is logged');
$postfix->stop();
$t->done();
