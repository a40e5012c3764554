#!/usr/bin/perl

# A real Postfix that asks "protocol policy", and clients that would like to
# send more than they pay for: octets that they do not declare, recipients that
# come when DATA was refused by somebody else.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Test::More;
use Time::HiRes qw(sleep);

use MailPolicy;
use MailPolicy::Limits qw(is_used);
use MailPolicy::Postfix;

my $missing = MailPolicy::Postfix::missing();
plan(skip_all => $missing) if $missing;

my $t = MailPolicy->new();
my $redis = $t->run_redis();

$t->conf(<<'EOF');
mail {
    policy_redis  redis://127.0.0.1:%%PORT_redis%% timeout=5s;

    server {
        listen    127.0.0.1:%%PORT_policy%%;
        protocol  policy;
        policy_limit  user  key=$sender  messages=100/1h recipients=5/1h
                            bytes=100k/1h;
    }

    server {
        listen    127.0.0.1:%%PORT_gate%%;
        protocol  policy;
        policy_limit  gate  key=$sender  messages=1/1s;
    }
}
EOF
$t->run_nginx();

sub service { return 'check_policy_service,inet:127.0.0.1:' . $t->port($_[0]) }

my $policy = service('policy');
my $postfix = MailPolicy::Postfix->new($t, smtpd => {
    octets => [ "smtpd_recipient_restrictions=$policy",
                "smtpd_end_of_data_restrictions=$policy" ],
    data   => [ "smtpd_data_restrictions=$policy," . service('gate') ],
});

sub message { return "Subject: x\r\n\r\n" . ("x" x 98 . "\r\n") x $_[0] . '.' }


# octets that MAIL does not declare

my $c = $t->session('octets');
my $from = 'octets@example.com';
my @big = ("MAIL FROM:<$from>", 'RCPT TO:<a@example.net>', 'DATA',
    message(600));

like($c->cmd($_), qr/^[23]/, /^([A-Z]+)/ ? $1 : 'octets') for @big;
is_used($redis, 'they are charged', 'user', $from, messages => 1,
    recipients => 1, bytes => 60_014, timeout => 5);
like($c->cmd($_), qr/^[23]/, /^([A-Z]+)/ ? $1 : 'octets') for @big[0 .. 2];
like($c->cmd($big[3]), qr/^450 4\.7\.1 .*Rate limit "user" exceeded/,
    'no more of them than there may be');
is_used($redis, 'that message is not charged', 'user', $from, messages => 1,
    recipients => 1, bytes => 60_014, timeout => 5);
$c->cmd('RSET');
like($c->cmd($_), qr/^[23]/, /^([A-Z]+)/ ? $1 : 'octets') for @big[0 .. 2],
    message(300);
is_used($redis, 'one that fits is', 'user', $from, messages => 2,
    recipients => 2, bytes => 90_028, timeout => 5);


# recipients behind a DATA that another restriction refuses

$c = $t->session('data');

for my $case ([ 'few@example.com', 5, qr/^354/ ],
    [ 'many@example.com', 6, qr/^450 4\.7\.1 .*Rate limit "user" exceeded/ ])
{
    my ($from, $n, $expected) = @$case;

    $c->send_mail($from, [ 'r1@example.net' ], "x\n");

    # the other one has had its message of this second
    like($c->cmd("MAIL FROM:<$from>"), qr/^250/, "$from: another message");
    like($c->cmd('RCPT TO:<r1@example.net>'), qr/^250/, 'one recipient');
    like($c->cmd('DATA'), qr/^450 4\.7\.1 .*Rate limit "gate" exceeded/,
        'DATA is refused, by another one');
    is_used($redis, 'it was charged', 'user', $from, messages => 2,
        recipients => 2, timeout => 5);
    like($c->cmd("RCPT TO:<r$_\@example.net>"), qr/^250/, "recipient $_")
        for 2 .. $n - 1;
    sleep(1.5);
    like($c->cmd('DATA'), $expected, "DATA with $n recipients in all");
    like($c->cmd($n == 5 ? message(1) : 'RSET'), qr/^250/, 'that is it');
    is_used($redis, 'all are charged, or none of that message', 'user', $from,
        messages => $n == 5 ? 2 : 1, recipients => $n == 5 ? 5 : 1,
        timeout => 5);
}

$c->quit();

$postfix->stop();
$t->done();
