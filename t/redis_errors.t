#!/usr/bin/perl

# Each error of Redis and what is done about it: whether the connection is
# kept or made anew, whether the store is away by that, and what the log says.
# What follows for mail is in redis_fake.t; in a cluster, redis_scout.t.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Test::More;
use Time::HiRes qw(sleep);

use MailPolicy;
use MailPolicy::FakeRedis qw(is_charge integers charged);

# code, text, "anew" or "kept", a hint in the log

my @errors = (
    [ 'MOVED', '3999 127.0.0.1:6381', 'kept', qr/write "cluster"/ ],
    [ 'ASK', '3999 127.0.0.1:6381', 'kept', qr/write "cluster"/ ],
    [ 'TRYAGAIN', 'Multiple keys request', 'kept', qr/write "cluster"/ ],
    [ 'CLUSTERDOWN', 'The cluster is down', 'kept', qr/write "cluster"/ ],
    [ 'CROSSSLOT', "Keys don't hash to the same slot", 'kept',
        qr/write "cluster"/ ],
    [ 'LOADING', 'Redis is loading the dataset in memory', 'anew' ],
    [ 'READONLY', "You can't write against a read only replica.", 'anew' ],
    [ 'MASTERDOWN', 'Link with MASTER is down', 'anew' ],
    [ 'NOAUTH', 'Authentication required.', 'anew' ],
    [ 'BUSY', 'Redis is busy running a script.', 'kept' ],
    [ 'NOREPLICAS', 'Not enough good replicas to write.', 'kept' ],
    [ 'MISCONF', 'Redis is configured to save RDB snapshots', 'kept' ],
    [ 'OOM', "command not allowed when used memory > 'maxmemory'.", 'kept' ],
    [ 'WRONGPASS', 'invalid username-password pair', 'kept' ],
    [ 'NOPERM', "this user has no permissions to run 'evalsha'", 'kept' ],
    [ 'ERR', 'anything else', 'kept' ],
);

my %modes = (
    good => sub { integers(charged(@_)) },
    map { my ($code, $text) = @$_; $code => sub { "-$code $text\r\n" } }
        @errors,
);

# what is no charge is answered well

for my $mode (values %modes) {
    my $charge = $mode;

    $mode = sub {
        return "+PONG\r\n" if $_[0] eq 'PING';
        return is_charge(@_) ? $charge->(@_) : integers(1);
    };
}

my $t = MailPolicy->new();
my $relay = $t->run_relay(name => 'relay', store => 0);
my $fake = MailPolicy::FakeRedis->new(dir => $t->dir(),
    port => $t->port('fake'), modes => \%modes);

$t->conf(<<'EOF');
error_log %%DIR%%/error.log notice;
mail {
    policy_redis  redis://127.0.0.1:%%PORT_fake%% connections=1
                  on_error=closed;
    policy_auth   off;
    proxy_pass    127.0.0.1:%%PORT_relay%%;

    server {
        listen        127.0.0.1:%%PORT_smtp%%;
        protocol      smtp;
        policy        on;
        policy_limit  x  key=$sender  messages=1000/1h;
    }
}
EOF
$t->run_nginx();

my $number = 0;


sub ask {
    my ($c) = @_;

    my $reply = $c->cmd('MAIL FROM:<a' . ++$number . '@example.com>');
    $c->cmd('RSET');
    return $reply;
}


sub greetings { return scalar(() = grep { $_->[1] eq 'PING' }
    $fake->commands()) }

sub lines { my ($what) = @_; return scalar(() = $t->error_log() =~ /$what/g) }


my $c;

for my $error (@errors) {
    my ($code, $text, $conn, $hint) = @$error;

    $fake->mode('good');
    $c = $t->client('smtp');
    $c->greeting();
    $c->ehlo();
    ok($t->wait_for(sub { ask($c) =~ /^250/ }), "RED-6 $code: before it")
        or next;

    my ($greeted, $away) = (greetings(), lines('is away'));

    $fake->mode($code);
    like(ask($c), qr/^451 4\.3\.0 /, "RED-6 $code: no answer");

    if ($conn eq 'anew') {
        ok($t->wait_for(sub { greetings() > $greeted }),
            "RED-6 $code: another connection is made");
        like(ask($c), qr/^451 4\.3\.0 /, "RED-6 $code: which is no better");
        is(lines('is away'), $away + 1, "RED-6 $code: it is away");
        like($t->error_log(), qr/is away: $code /,
            "RED-6 $code: the log says why");

    } else {
        ask($c) for 1 .. 5;
        sleep(0.3);
        is(greetings(), $greeted, "RED-6 $code: the connection is kept");
        is(lines('is away'), $away, "RED-6 $code: it is not away");
    }

    # NOAUTH and its like come again with each connection
    is(lines("\\[error\\] [^\\n]* answers: $code "), 1,
        "RED-6 $code: the log has it once");
    like($t->error_log(), qr/answers: $code [^\n]*$hint/,
        "RED-6 $code: and a hint") if $hint;

    $fake->mode('good');
    ok($t->wait_for(sub { ask($c) =~ /^250/ }), "RED-6 $code: behind it");
    $c->quit();
}

is(lines('is away'), lines('is back'), 'away and back');

# NOSCRIPT is none of these: redis_fake.t, and real ones in redis_faults.t

$t->stop();
$fake->stop();
$t->done();
