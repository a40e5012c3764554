#!/usr/bin/perl

# What is counted under which key, when: every variable that a key may have,
# one message for each domain, all or nothing, buckets, the replies.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Test::More;
use Time::HiRes qw(sleep time);

use MailPolicy;
use MailPolicy::Limits qw(codes lasting logged_in send_one used used_keys
    wait_used);

my $t = MailPolicy->new();
my $redis = $t->run_redis();
my $relay = $t->run_relay(name => 'relay');

$t->write_file('users', 'alice@example.com:' . $t->crypt('secret') . "\n");

$t->conf(<<'EOF');
mail {
    policy_redis  redis://127.0.0.1:%%PORT_redis%% timeout=5s;
    proxy_pass    127.0.0.1:%%PORT_relay%%;
    access_log    %%DIR%%/access.log;
    policy_auth_plaintext  on;

    server {
        listen        127.0.0.1:%%PORT_all%%;
        protocol      smtp;
        policy        on;
        policy_auth   file:%%DIR%%/users;
        policy_limit  user     key=$sasl_username     messages=1000/1h;
        policy_limit  sender   key=$sender            messages=1000/1h;
        policy_limit  domain   key=$sender_domain     messages=1000/1h;
        policy_limit  net      key=$client_net        messages=1000/1h;
        policy_limit  addr     key=$remote_addr       messages=1000/1h;
        policy_limit  to       key=$recipient_domain  messages=1000/1h;
        policy_limit  both     key=$sasl_username/$client_net
                                                      messages=1000/1h;
        policy_limit  with     key=from:$sender       messages=1000/1h;
    }

    server {
        listen        127.0.0.1:%%PORT_proxied%% proxy_protocol;
        protocol      smtp;
        policy        on;
        policy_auth   off;
        set_real_ip_from  127.0.0.1;
        policy_limit  nets     key=$client_net        messages=2/1h;
        policy_limit  addrs    key=$remote_addr       messages=1000/1h;
    }

    server {
        listen        127.0.0.1:%%PORT_aon%%;
        protocol      smtp;
        policy        on;
        policy_auth   off;
        policy_limit  one      key=$sender            messages=3/1h;
        policy_limit  two      key=$sender_domain     messages=5/1d
                                                      recipients=6/1d;
        policy_limit  three    key=$client_net        messages=1000/1h;
    }

    server {
        listen        127.0.0.1:%%PORT_to%%;
        protocol      smtp;
        policy        on;
        policy_auth   off;
        policy_limit  rd       key=$recipient_domain  messages=3/1h
                                                      recipients=100/1h;
    }

    server {
        listen        127.0.0.1:%%PORT_burst%%;
        protocol      smtp;
        policy        on;
        policy_auth   off;
        policy_limit  burst    key=$sender            messages=60/1m,burst=3;
    }

    server {
        listen        127.0.0.1:%%PORT_reject%%;
        protocol      smtp;
        policy        on;
        policy_auth   off;
        policy_limit  hard     key=$sender            messages=1/1h
                                                      on_exceed=reject;
        policy_limit  rcpt     key=$recipient_domain  recipients=1/1d
                                                      on_exceed=reject;
    }
}
EOF
$t->run_nginx();


sub session { return logged_in($t, @_) }


# every variable

my $c = session('all', 'alice@example.com');

like(send_one($c, 'Sales@Example.COM', 'bob@Example.NET', 'carol@example.net',
        'dave@example.org'), qr/^250 /, 'a message');

my @all = sort(
    'user:{alice@example.com}',
    'sender:{sales@example.com}',
    'domain:{example.com}',
    'net:{127.0.0.1}',
    'addr:{127.0.0.1}',
    'to:{example.net}',
    'to:{example.org}',
    'both:{alice@example.com/127.0.0.1}',
    'with:{from:sales@example.com}',
);

is_deeply([ used_keys($redis) ], \@all,
    'a counter for each variable, in lower case');
is_deeply([ map { /^(\w+):\{(.*)\}$/; used($redis, $1, $2) } @all ],
    [ (1) x @all ], 'one message in each');

# the null sender has no counter

like(send_one($c, '<>', 'bob@example.net'), qr/^250 /, 'the null sender');
is_deeply([ used_keys($redis) ], \@all, 'no counter for the null sender');
is_deeply([ map { /^(\w+):\{(.*)\}$/; "$1 " . used($redis, $1, $2) } @all ],
    [ 'addr 2', 'both 2', 'domain 1', 'net 2', 'sender 1', 'to 2', 'to 1',
      'user 2', 'with 1' ], 'but in the others it counts');

# client networks

sub from {
    my ($address) = @_;

    my $c = $t->client('proxied');
    my ($family, $to) = $address =~ /:/ ? ('TCP6', '::1')
                                        : ('TCP4', '127.0.0.1');

    $c->send_raw("PROXY $family $address $to 40000 25\r\n");
    $c->greeting();
    $c->ehlo();
    my $reply = send_one($c, 'a@example.com');
    $c->quit();
    return substr($reply, 0, 9);
}

is(join(', ', map { from($_) } '192.0.2.1', '192.0.2.1', '192.0.2.2',
        '192.0.2.1'), '250 2.0.0, 250 2.0.0, 250 2.0.0, 450 4.7.1',
    '$client_net: an IPv4 address each');
is(join(', ', map { from($_) } '2001:db8::1', '2001:db8::ffff:1:2:3',
        '2001:db8:0:1::1', '2001:db8:0:0:1:2:3:4'),
    '250 2.0.0, 250 2.0.0, 250 2.0.0, 450 4.7.1',
    '$client_net: an IPv6 /64 each');
is_deeply([ grep { /^net/ } used_keys($redis) ], [ 'net:{127.0.0.1}',
    map { "nets:{$_}" } '192.0.2.1', '192.0.2.2', '2001:db8:0:1::/64',
        '2001:db8::/64' ], '$client_net: the keys');

# all or nothing: what one limit refuses, none of them counts

$c = session('aon');

is(codes(map { send_one($c, 'x@aon.example') } 1 .. 4), '250 250 250 450',
    'three of x, then refused');
is_deeply([ used($redis, one => 'x@aon.example'),
            used($redis, two => 'aon.example'),
            used($redis, three => '127.0.0.1') ], [ 3, 3, 3 ],
    'all or nothing: the first refuses, the others do not count');
is(codes(map { send_one($c, 'y@aon.example') } 1 .. 3), '250 250 450',
    'two of y, then their domain is refused');
is_deeply([ used($redis, one => 'y@aon.example'),
            used($redis, two => 'aon.example'),
            used($redis, three => '127.0.0.1') ], [ 2, 5, 5 ],
    'all or nothing: the second refuses, the others do not count');

# both refuse: the one that takes longer is told

my $reply = send_one($c, 'x@aon.example');
like($reply, qr/^450 4\.7\.1 Rate limit "two" exceeded, retry in \d+ s$/,
    'of two that refuse the one that takes longer');
my ($seconds) = $reply =~ /(\d+) s$/;
cmp_ok($seconds, '>', 86400 - 60, 'a day');
cmp_ok($seconds, '<=', 86400 + 86400 / 64 + 1, 'and not more than a slot');

($seconds) = send_one($c, 'x@other.example') =~ /(\d+)/;
is($seconds, 250, 'another domain');

# recipients at MAIL's side: none left for the second of two

$redis->cmd('DEL', 'mail:used:two:{aon.example}', 'mail:used:one:{z}');
is(codes($c->pipeline('MAIL FROM:<z@aon.example>',
        map { "RCPT TO:<$_\@example.net>" } 1 .. 8)),
    '250 250 250 250 250 250 250 450 450', 'recipients: six of eight');
$c->cmd('RSET');
is_deeply(wait_used($redis, 'two', 'aon.example', [ 0, 0 ]), [ 0, 0 ],
    'RSET: all of it is given back');

# one message for each domain of the recipients

$c = session('to');

like(send_one($c, 'a@example.com', '1@d1.example', '2@D1.Example',
        '3@d2.example', '4@d1.example'), qr/^250 /, 'domains: a message');
is_deeply(wait_used($redis, 'rd', 'd1.example', [ 1, 3 ]), [ 1, 3 ],
    'domains: once for each message, each recipient');
is_deeply(wait_used($redis, 'rd', 'd2.example', [ 1, 1 ]), [ 1, 1 ],
    'domains: the other one, too');

for my $how (qw(one_by_one pipelined)) {
    my @commands = ('MAIL FROM:<a@example.com>',
        map { "RCPT TO:<$_\@$how.example>" } 1 .. 4);
    my $run = sub {
        return $how eq 'pipelined' ? $c->pipeline(@_)
                                   : map { $c->cmd($_) } @_;
    };

    $relay->set(rcpt => { match => qr/<[12]@/, action => '550 5.1.1 no' });
    is(codes($run->(@commands)), '250 550 550 250 250',
        "domains, $how: the relay refuses the first two");
    is_deeply(wait_used($redis, 'rd', "$how.example", [ 1, 2 ]), [ 1, 2 ],
        "domains, $how: the third pays for the message");
    $c->cmd('DATA');
    $c->send_raw("x\r\n.\r\n");
    like($c->read_reply(), qr/^250 /, "domains, $how: accepted");
    is_deeply(wait_used($redis, 'rd', "$how.example", [ 1, 2 ]), [ 1, 2 ],
        "domains, $how: once");

    $relay->set(rcpt => '550 5.1.1 no');
    is(codes($run->(@commands)), '250 550 550 550 550',
        "domains, $how: the relay refuses all");
    is_deeply(wait_used($redis, 'rd', "$how.example", [ 1, 2 ]), [ 1, 2 ],
        "domains, $how: nobody pays");
    $c->cmd('RSET');
    $relay->set(rcpt => undef);

    # one domain is at its limit: the other's recipients are not refused

    like(send_one($c, 'a@example.com', "x\@$how.example"), qr/^250 /,
        "domains, $how: second of three") for 1 .. 2;
    my @mixed = ("x\@$how.example", "x\@free-$how.example",
        "y\@$how.example", "y\@free-$how.example");
    is(codes($run->('MAIL FROM:<a@example.com>',
            map { "RCPT TO:<$_>" } @mixed)), '250 450 250 450 250',
        "domains, $how: one is at its limit");
    $c->cmd('DATA');
    $c->send_raw("x\r\n.\r\n");
    like($c->read_reply(), qr/^250 /, "domains, $how: the rest is accepted");
    is_deeply(wait_used($redis, 'rd', "free-$how.example", [ 1, 2 ]),
        [ 1, 2 ], "domains, $how: the other one has paid");
    is_deeply(wait_used($redis, 'rd', "$how.example", [ 3, 4 ]), [ 3, 4 ],
        "domains, $how: the one at its limit has not");
}

# a bucket

$c = session('burst');

my $begin = time();
is(codes(map { send_one($c, 'a@example.com') } 1 .. 3), '250 250 250',
    'burst=3: three at once');
$reply = send_one($c, 'a@example.com');

SKIP: {
    skip 'this machine is too slow', 1 if time() - $begin > 0.9;
    is($reply, '450 4.7.1 Rate limit "burst" exceeded, retry in 1 s',
        'burst=3: not four');
}

ok($t->wait_for(sub { send_one($c, 'a@example.com') =~ /^250/ }, 5),
    'burst=3: one a second is let pass');
cmp_ok(time() - $begin, '>=', 0.9, 'burst=3: and not earlier');
ok($t->wait_for(sub { !$redis->cmd('EXISTS',
    'mail:used:burst:{a@example.com}') }, 10), 'burst=3: the counter expires');

# 550

$c = session('reject');
is(codes(map { send_one($c, 'a@example.com', $_) } 'b@r1.example'), '250',
    'on_exceed=reject: one');
like(send_one($c, 'a@example.com', 'b@r2.example'),
    qr/^550 5\.7\.1 Rate limit "hard" exceeded, retry in \d+ s$/,
    'on_exceed=reject: 550 at MAIL');
like(send_one($c, 'c@example.com', 'b@r1.example'),
    qr/^550 5\.7\.1 Rate limit "rcpt" exceeded, retry in \d+ s$/,
    'on_exceed=reject: 550 at RCPT');

$t->stop();

is_deeply([ lasting($redis) ], [], 'no key without TTL');

$t->done();
