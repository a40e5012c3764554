#!/usr/bin/perl

# auth_failures: how many distinct pairs of login and password a client, or
# anybody for a login, may try in vain before passwords are not looked at any
# more; who has been let in before has more room; and what Redis keeps of it
# tells no password.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Digest::SHA qw(sha1_hex);
use MIME::Base64 qw(encode_base64);
use Test::More;

use MailPolicy;

# whether shared memory is tried, too
use constant LOCAL => 1;

my $t = MailPolicy->new();
my $redis = $t->run_redis();

my %password = map { ("$_\@example.com" => "canary-$_") }
    qw(alice bob carol dave);

$t->write_file('users', join('', map {
    "$_:" . $t->crypt($password{$_}, '$5$somesalt$') . "\n"
} sort keys %password));

# limits of each server, by its port

my %limits = (
    net    => 'policy_limit net key=$client_net auth_failures=3/15m;',
    login  => 'policy_limit login key=$sasl_username auth_failures=3/15m;',
    both   => 'policy_limit b1 key=$client_net auth_failures=4/15m;
               policy_limit b2 key=$sasl_username auth_failures=2/1h;',
    same   => 'policy_limit same key=$client_net auth_failures=2/15m;',
    gone   => 'policy_limit gone key=$client_net auth_failures=3/15m;',
    many   => 'policy_limit many key=$client_net auth_failures=5/15m;',
    brief  => 'policy_limit brief key=$client_net auth_failures=2/2s;',
    odd    => 'policy_limit odd key=$client_net auth_failures=2/15m;',
    soft   => 'policy_limit soft key=$client_net auth_failures=1/15m
                            on_exceed=report;
               policy_limit hard key=$client_net auth_failures=3/15m;',
    words  => 'policy_limit words key=$client_net auth_failures=1/15m
                        "message=Not now, $sasl_username, for $retry_after s";',
    list   => 'policy_limit list key=$client_net auth_failures=3/15m;',
);


sub configure {
    my ($store, $line, $provider) = @_;

    my $servers = join('', map { <<"EOF" } sort keys %limits);
    server {
        listen       127.0.0.1:%%PORT_${store}_$_%%;
        protocol     smtp;
        $limits{$_}
    }
EOF

    $t->conf($store, <<"EOF");
worker_processes 2;
thread_pool  default threads=4 max_queue=256;

mail {
    $line
    policy                 on;
    policy_auth            file:%%DIR%%/users $provider;
    policy_auth_plaintext  on;
    max_errors             1000;
    proxy_pass             127.0.0.1:25;
    $servers
}
EOF
    $t->run_nginx($store);
}


sub session {
    my ($where, %option) = @_;

    return $t->session($where, %option);
}


# codes of logins, one word for each [ login, password ]

sub codes {
    my ($c, @pairs) = @_;

    return join(' ', map {
        substr($c->auth_plain("$_->[0]\@example.com", $_->[1]), 0, 3)
    } @pairs);
}

sub wrong { my ($login, @n) = @_; return map { [ $login, "wrong $_" ] } @n }
sub right { return map { [ $_, "canary-$_" ] } @_ }

sub looked {
    my ($store) = @_;
    return scalar(() = $t->error_log($store) =~ /failed to authenticate as/g);
}


# what a success gives back is on its way to Redis when the client hears of it

sub let_in {
    my ($store, $key) = @_;
    $t->wait_for(sub { $redis->cmd('EXISTS', "mail:exempt:$key") })
        if $store eq 'redis';
}


sub failures {
    my ($store, $name) = @_;

    my $p = "${store}_";
    my $throttled = qr/^454 4\.7\.0 Too many failed logins \(limit "net"\), (?#
        )retry in (\d+) s$/;

    # distinct pairs

    my $c = session("${p}net");
    my $before = looked($store);

    is(codes($c, wrong('alice', 1, 2), wrong('bob', 1), wrong('alice', 3)),
        '535 535 535 454', "$name: three pairs, and no fourth");
    is(looked($store) - $before, 3, "$name: three passwords were looked at");

    my @replies = map { $c->auth_plain("$_->[0]\@example.com", $_->[1]) }
        right('alice'), wrong('nobody', 1), wrong('alice', 1);

    like($replies[0], $throttled, "$name: right, but not now");
    my ($seconds) = $replies[0] =~ $throttled;
    cmp_ok($seconds // 0, '>=', 890, "$name: it takes what is left of 15m");
    cmp_ok($seconds // 0, '<=', 900, "$name: and no longer");

    s/\d+ s$// for @replies;
    is($replies[1], $replies[0], "$name: AUTH-15 the same for no such user");
    is($replies[2], $replies[0], "$name: and for a pair that has failed");
    is($c->auth_login('alice@example.com', 'canary-alice') =~ s/\d+ s$//r,
        $replies[0], "$name: and for LOGIN");
    is(looked($store) - $before, 3, "$name: none of them was looked at");
    like($c->cmd('MAIL FROM:<alice@example.com>'), qr/^530 5\.7\.0 /,
        "$name: nobody is logged in");

    is(codes(session("${p}net"), right('alice')), '454',
        "$name: nor in another session");
    is(codes(session("${p}net", from => '127.0.0.2'), wrong('alice', 1 .. 3),
        right('alice')), '535 535 535 454', "$name: another client has three");

    # a pair counts once

    $c = session("${p}same");
    is(codes($c, wrong('alice', (1) x 8)), join(' ', (535) x 8),
        "$name: one pair, again and again");
    is(codes($c, [ 'bob', 'wrong 1' ], wrong('carol', 1)), '535 454',
        "$name: another login is another pair");

    # Guessing of one login, from everywhere.  The pair that succeeds is
    # given back, and its client has twice the room from then on.

    is(codes(session("${p}login"), wrong('carol', 1, 2), right('carol')),
        '535 535 235', "$name: wrong, wrong, right");
    let_in($store, 'login:{carol@example.com}');
    is(codes(session("${p}login", from => '127.0.0.3'), wrong('carol', 3, 4),
        right('carol')), '535 454 454', "$name: guesses from elsewhere");
    is(codes(session("${p}login"), right('carol')), '235',
        "$name: do not lock out who was here before");
    is(codes(session("${p}login"), wrong('carol', 5 .. 7), right('carol')),
        '535 535 535 454', "$name: who has twice as many");
    is(codes(session("${p}login"), right('dave')), '235',
        "$name: another login has nothing to do with it");
    let_in($store, 'login:{dave@example.com}');

    # all or nothing: the login's limit says no, the client's is not charged

    is(codes(session("${p}both"), wrong('alice', 1 .. 5), wrong('bob', 1),
        wrong('carol', 1, 2)), '535 535 454 454 454 535 535 454',
        "$name: two limits");

    # a limit that reports refuses nobody, and a hard one does

    is(codes(session("${p}soft"), wrong('alice', 1 .. 4)), '535 535 535 454',
        "$name: a limit that reports");

    # not known, and not looked at: nothing that counts

    $c = session("${p}odd");
    like($c->cmd('AUTH PLAIN'), qr/^334/, "$name: PLAIN");
    like($c->cmd('*'), qr/^501/, "$name: cancelled");
    like($c->cmd('AUTH PLAIN !'), qr/^501/, "$name: no base64");
    is(codes($c, map { [ "x\x01$_", 'x' ] } 1 .. 3), '535 535 535',
        "$name: AUTH-1 no logins");
    is(codes($c, map { [ 'alice', '' ] } 1 .. 3), '535 535 535',
        "$name: no password");
    is(codes($c, wrong('alice', 1 .. 3)), '535 535 454',
        "$name: none of it was counted");

    # who does not wait for the answer has been answered nevertheless

    $before = looked($store);

    for my $n (1 .. 3) {
        $c = session("${p}gone");
        $c->send_raw('AUTH PLAIN '
            . encode_base64("\0alice\@example.com\0gone $n", '') . "\r\n");
        $n % 2 ? $c->reset() : $c->close();
    }

    ok($t->wait_for(sub { looked($store) - $before == 3 }),
        "$name: who hangs up has been looked at");
    is(codes(session("${p}gone"), right('bob')), '454',
        "$name: who hangs up is counted");

    # The words of the operator, in a session that goes on

    $c = session("${p}words");
    $c->auth_plain('alice@example.com', 'wrong');
    like($c->auth_plain('alice@example.com', 'other'),
        qr/^454 4\.7\.0 Not now, alice\@example\.com, for \d{3} s$/,
        "$name: message=");
    like($c->cmd('NOOP'), qr/^250 /, "$name: the session goes on");

    # guesses at the same time, of several sessions in both workers

    $before = looked($store);
    my @parallel = map { session("${p}many") } 1 .. 40;

    for my $n (0 .. 39) {
        $parallel[$n]->send_raw('AUTH PLAIN '
            . encode_base64("\0alice\@example.com\0guess $n", '') . "\r\n");
    }

    my %count;
    $count{substr($_->read_reply(), 0, 3)}++ for @parallel;

    is_deeply(\%count, { 535 => 5, 454 => 35 },
        "$name: forty guesses at once are five");
    is(looked($store) - $before, 5, "$name: five were looked at");

    # they expire

    $c = session("${p}brief");
    is(codes($c, wrong('alice', 1 .. 3)), '535 535 454', "$name: two in 2s");
    $c->auth_plain('alice@example.com', 'x') =~ /retry in (\d+) s$/;
    cmp_ok($1 // 0, '<=', 2, "$name: there is room soon");
    ok($t->wait_for(sub {
        codes($c, [ 'bob', 'canary-bob' ]) eq '235' }, 4),
        "$name: there is room again");
    let_in($store, 'brief:{127.0.0.1}');
    $t->disconnect();
}


configure('redis', 'policy_redis redis://127.0.0.1:%%PORT_redis%% timeout=5s;',
    'redis');
failures('redis', 'Redis');

# what is there of it

my @members = map { @{ $redis->cmd('ZRANGE', $_, 0, -1) } }
    grep { $redis->cmd('TYPE', $_) eq 'zset' } $redis->keys();

is_deeply([ grep { !/^[0-9a-f]{4}$/ } @members ], [],
    'members are of 16 bits: too few to find a password by');
is_deeply([ grep { !/^mail:(?:failed|exempt|events|warned)/ }
    $redis->keys() ], [], 'no other keys');
is_deeply([ grep { $_ ne 'mail:events' && $redis->cmd('PTTL', $_) < 0 }
    $redis->keys() ], [], 'no key without TTL');
is($redis->cmd('ZCARD', 'mail:failed:login:{carol@example.com}'), 6,
    'three, and three more of who was here before');
is_deeply([ map { s/^mail:exempt://r } $redis->keys('mail:exempt:*') ],
    [ 'brief:{127.0.0.1}', 'login:{carol@example.com}',
      'login:{dave@example.com}' ], 'who has been let in');
ok(!grep({ $_ eq 'password' || /canary|wrong/ }
    map { ref $_ ? @{ $_->[1] } : $_ }
    @{ $redis->cmd('XRANGE', 'mail:events', '-', '+') }),
    'no event has a password');

# What is kept of a pair is short, so many have it in common.  Who knows which
# could send a whole list of them, and only the first would count.

my ($first, @list) = ('');

for (my $n = 0; @list < 8; $n++) {
    my $tag = substr(sha1_hex("alice\@example.com\0list $n"), 0, 4);
    $first ||= $tag;
    push @list, "list $n" if $tag eq $first;
}

is(codes(session('redis_list'), map { [ 'alice', $_ ] } @list),
    '535 535 535 454 454 454 454 454', 'passwords chosen by their hash');

my $event;
$t->wait_for(sub {
    ($event) = map { +{ @{ $_->[1] } } }
        @{ $redis->cmd('XREVRANGE', 'mail:events', '+', '-', 'COUNT', 1) };
    return $event->{sasl_username} eq 'alice@example.com';
}, 5);
is($event->{sasl_username}, 'alice@example.com', 'events name the login');

# a provider that cannot tell is no failure

$redis->cmd('DEL', 'mail:failed:net:{127.0.0.1}');
$redis->cmd('SET', 'mail:user:{erin@example.com}', 'no record');
my $c = session('redis_net');
is(codes($c, wrong('erin', 1 .. 6)), join(' ', (454) x 6),
    'the provider cannot tell');
is_deeply([ $redis->keys('mail:failed:net:{127.0.0.1}') ], [],
    'that is not counted');
is(codes($c, right('alice')), '235', 'nor does it lock out others');

# operators' entries

my $entry = 'mail:limit:login:{bob@example.com}';

$redis->cmd('HSET', $entry, 'auth_failures', '1/1h');
is(codes(session('redis_login'), wrong('bob', 1, 2)), '535 454',
    'HSET auth_failures 1/1h');
$redis->cmd('HSET', $entry, 'auth_failures', 'unlimited');
is(codes(session('redis_login'), wrong('bob', 3 .. 8)),
    join(' ', (535) x 6), 'HSET auth_failures unlimited');
$redis->cmd('HSET', $entry, 'auth_failures', '9/1h,burst=2');
is(codes(session('redis_login'), wrong('bob', 2, 3, 9)), '535 535 454',
    'one with a burst is skipped: 3/15m');
$redis->cmd('HSET', $entry, 'suspended', 'yes', 'auth_failures', 'unlimited');
is(codes(session('redis_login'), right('bob')), '454', 'HSET suspended yes');

codes(session('redis_login'), wrong('dave', 1 .. 3));
$t->reload('redis');
is(codes(session('redis_login'), right('dave')), '235',
    'who was let in before a reload');

if (LOCAL) {
    configure('local', '', '');
    failures('local', 'shared memory');
}

for my $store ('redis', LOCAL ? 'local' : ()) {
    unlike($t->error_log($store), qr/canary-|wrong \d|guess \d/,
        "$store: no password in the log");
}

$t->done();
