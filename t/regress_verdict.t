#!/usr/bin/perl

# Verdicts: what was wrong once, each with the least that shows it.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Test::More;

use MailPolicy;
use MailPolicy::Limits qw(lasting);

my $t = MailPolicy->new();
my $redis = $t->run_redis();
my $relay = $t->run_relay(name => 'relay');

$t->write_file('users', 'alice@example.com:' . $t->crypt('secret') . "\n");

$t->conf(<<'EOF');
mail {
    policy_redis  redis://127.0.0.1:%%PORT_redis%% timeout=5s;
    proxy_pass    127.0.0.1:%%PORT_relay%%;
    policy_auth_plaintext  on;

    server {
        listen        127.0.0.1:%%PORT_rcpt%%;
        protocol      smtp;
        policy        on;
        policy_auth   off;
        policy_limit  rcpt  key=$recipient  messages=blocked
                            "message=not $recipient ($recipient_domain)";
    }

    server {
        listen        127.0.0.1:%%PORT_auth%%;
        protocol      smtp;
        policy        on;
        policy_auth   file:%%DIR%%/users;
        policy_limit  auth  key=$client_net  auth_failures=1/1h
                            "message=not $sasl_username";
    }
}
EOF
$t->run_nginx();


sub session {
    my ($where) = @_;

    return $t->session($where);
}


# recipients that are asked for together: each is told of itself

my $c = session('rcpt');

$c->cmd('MAIL FROM:<a@example.com>');
is(join(' / ', $c->pipeline(map { "RCPT TO:<$_\@$_.example>" } qw(a b c))),
    join(' / ', map { "450 4.7.1 not $_\@$_.example ($_.example)" } qw(a b c)),
    'the recipient in a message is the one that is refused');

# the login that is tried, for the operator and for the help desk

$c = session('auth');
like($c->auth_plain('alice@example.com', 'wrong'), qr/^535 /, 'wrong');
is($c->auth_plain('alice@example.com', 'wrong 2'),
    '454 4.7.0 not alice@example.com', 'the login in a message');

my $event;
ok($t->wait_for(sub { ($event) = grep { $_->{limit} eq 'auth' }
    map { +{ @{ $_->[1] } } }
    @{ $redis->cmd('XRANGE', 'mail:events', '-', '+') } }), 'an event');
is($event->{sasl_username}, 'alice@example.com', 'the login in an event');
unlike($c->cmd('MAIL FROM:<a@example.com>'), qr/^250/,
    'and it is not logged in for that');

# a stream that cannot be written is said somewhere

$redis->cmd('SET', 'mail:events', 'x');
$c = session('rcpt');
$c->pipeline('MAIL FROM:<a@example.com>', 'RCPT TO:<a@b.example>', 'RSET');
ok($t->wait_for(sub { $t->error_log()
    =~ /\[(?:error|warn)\] .*(?:mail:events|WRONGTYPE)/ }, 3),
    'events that cannot be written');

$t->disconnect();
$t->stop();

is_deeply([ lasting($redis) ], [], 'no counter without TTL');

$t->done();
