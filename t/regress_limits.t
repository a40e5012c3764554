#!/usr/bin/perl

# What a review of limits found: each of these was wrong once.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Test::More;
use Time::HiRes qw(sleep time);

use MailPolicy;
use MailPolicy::Limits qw(lasting send_one);

my $t = MailPolicy->new();
alarm(120);
my $redis = $t->run_redis();
my $relay = $t->run_relay(name => 'relay',
    extensions => [ 'PIPELINING', 'SIZE', '8BITMIME' ]);
my $over = $t->run_relay(name => 'over',
    extensions => [ 'PIPELINING', 'SIZE', '8BITMIME' ]);

$t->conf(<<'EOF');
mail {
    policy_redis  redis://127.0.0.1:%%PORT_redis%% timeout=5s on_error=closed;
    policy        on;
    policy_auth   off;
    proxy_pass    127.0.0.1:%%PORT_relay%%;

    server {
        listen        127.0.0.1:%%PORT_many%%;
        protocol      smtp;
        policy_limit  each  key=$recipient  bytes=1g/1h;
    }

    server {
        listen        127.0.0.1:%%PORT_try%%;
        protocol      smtp;
        policy_limit  try  key=$remote_addr  sessions=5  charge=attempt;
    }

    server {
        listen        127.0.0.1:%%PORT_slow%%;
        protocol      smtp;
        policy_limit  slow  key=$recipient_domain  messages=1/1h
                      on_exceed=tarpit;
    }

    upstream over {
        server  127.0.0.1:%%PORT_over%%;
    }

    server {
        listen        127.0.0.1:%%PORT_octets%%;
        protocol      smtp;
        policy_limit  octets  key=$sender  bytes=1000/1h
                      on_exceed=relay:over;
    }
}
EOF
$t->run_nginx();

sub session {
    my ($where) = @_;

    return $t->session($where, timeout => 40);
}


# The octets that were not declared are asked for once for each key, and the
# answer may have ten numbers for each of them.

for my $n (10, 400, 600, 1000) {
    my $c = session('many');
    my @rcpts = map { "RCPT TO:<r$_\@example.net>" } 1 .. $n;
    my $accepted = 0;

    $c->cmd('MAIL FROM:<alice@example.com>');

    while (my @some = splice(@rcpts, 0, 100)) {
        $accepted += grep { /^250 / } $c->pipeline(@some);
    }

    is($accepted, $n, "$n recipients are accepted");
    like($c->cmd('DATA'), qr/^354 /, "$n recipients: DATA");
    $c->send_raw("Subject: x\r\n\r\nsome octets\r\n.\r\n");
    like($c->read_reply(), qr/^250 /,
        "$n recipients of a size that was not said: by Redis, which is there");
    $c->quit();
}

unlike($t->error_log(), qr/policy store \S+ is away/,
    'Redis is not taken for away because of what it was asked');

# Octets that were not declared do not pass for ever: of a message that should
# have gone elsewhere either nothing passes, or the next ones do go there.

my $c = session('octets');
my $before = $relay->messages();

for (1 .. 6) {
    $c->send_mail('alice@example.com', [ 'bob@example.net' ],
        "Subject: x\n\n" . ('x' x 70 . "\n") x 11);
}

cmp_ok($relay->messages() - $before, '<', 3,
    'bytes, relay: who declares no size does not send 6 x 800 octets of 1000');
$c->quit();

# A tarpit is ten seconds, not ten seconds for each recipient.

$c = session('slow');
send_one($c, 'alice@example.com');

my $begin = time();
my @replies = $c->pipeline('MAIL FROM:<alice@example.com>',
    map { "RCPT TO:<r$_\@example.net>" } 1, 2);

is(scalar(grep { /^450 / } @replies), 2, 'tarpit: two recipients are refused');
cmp_ok(time() - $begin, '<', 14, 'tarpit: both within ten seconds');
$c->quit();

# A lease is of the session, whatever "charge=" says: it ends with it, also if
# Redis answers when the client is gone already.

sub leases { return $redis->cmd('ZCARD', 'mail:lease:try:{127.0.0.1}') }

$c = session('try');
is(leases(), 1, 'charge=attempt: a session has a lease');
$c->quit();
ok($t->wait_for(sub { leases() == 0 }, 3), 'charge=attempt: and gives it back');

$redis->signal('STOP');
my @told = map { $t->client('try') } 1 .. 3;
$_->read_reply() for @told;
$t->reload();
like($_->read_reply(), qr/^421 /, 'told to go before Redis answers')
    for @told;
$redis->signal('CONT');
sleep(0.5);
ok($t->wait_for(sub { leases() == 0 }, 3),
    'charge=attempt: sessions that end before the answer hold no lease')
    or diag(leases() . ' leases are left');

is_deeply([ lasting($redis) ], [], 'no counter stays for ever');
$t->done();
