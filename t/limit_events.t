#!/usr/bin/perl

# The stream of events: one entry for each time that a limit is exceeded, by
# whatever unit and with whatever action; nothing for what passes; what
# clients say as it is, but not without end; and mail goes on where the stream
# cannot be written.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Test::More;
use Time::HiRes qw(sleep time);

use MailPolicy;
use MailPolicy::Limits qw(lasting send_one used);

my $t = MailPolicy->new();
my $redis = $t->run_redis();
my $relay = $t->run_relay(name => 'relay');
my $other = $t->run_relay(name => 'other');

$t->write_file('users', 'alice@example.com:' . $t->crypt('secret') . "\n");

my @LIMITS = (
    defer   => 'key=$sender messages=1/1h',
    reject  => 'key=$sender recipients=1/1h on_exceed=reject',
    report  => 'key=$sender messages=1/1h on_exceed=report',
    relay   => 'key=$sender messages=1/1h on_exceed=relay:other',
    share   => 'key=$sender messages=1/1h enforce=0%',
    burst   => 'key=$sender messages=1/1h,burst=2',
    bytes   => 'key=$sender_domain bytes=1000/1d',
    unset   => 'key=$sender_domain messages=blocked',
    rcpt    => 'key=$recipient_domain recipients=1/1d',
    conns   => 'key=$client_net connections=1/1h',
    open    => 'key=$client_net sessions=1',
    guess   => 'key=$client_net auth_failures=1/1h',
    login   => 'key=$sasl_username connections=1/1h',
    odd     => 'key=$helo messages=1/1h',
    pair    => 'key=$sender/$helo messages=1/1h',
);

my %limit = @LIMITS;

my $servers = join('', map { <<"EOF" } sort keys %limit);
    server {
        listen        127.0.0.1:%%PORT_$_%%;
        protocol      smtp;
        policy        on;
        policy_auth   @{[ /guess|login/ ? 'file:%%DIR%%/users' : 'off' ]};
        policy_limit  $_  $limit{$_};
    }
EOF

for my $case ([ nginx => '' ], [ few => 'prefix=edge: events=5' ],
    [ none => 'prefix=quiet: events=0' ])
{
    my ($name, $more) = @$case;
    my $text = $servers;

    $text =~ s/PORT_(\w+)/PORT_${1}_$name/g;
    $t->conf($name, <<"EOF");
mail {
    policy_redis  redis://127.0.0.1:%%PORT_redis%% timeout=5s $more;
    proxy_pass    127.0.0.1:%%PORT_relay%%;
    access_log    %%DIR%%/$name.access.log;
    policy_auth_plaintext  on;
    upstream other { server 127.0.0.1:%%PORT_other%%; }
$text}
EOF
    $t->run_nginx($name);
}


sub session {
    my ($where, $helo) = @_;

    return $t->session("${where}_nginx", helo => $helo);
}


# what has come in since this was asked last: [ name, value, ... ] of each

my $last = '-';

sub events {
    my ($expected) = @_;

    my $entries;

    $t->wait_for(sub {
        $entries = $redis->cmd('XRANGE', 'mail:events', $last, '+');
        return @$entries >= $expected;
    }, 5) if $expected;

    # one more than expected would come at once
    sleep(0.05) unless $expected;
    $entries = $redis->cmd('XRANGE', 'mail:events', $last, '+');
    $last = "($entries->[-1][0]" if @$entries;
    return map { $_->[1] } @$entries;
}


# exactly one, of these values; undef: any number from 1

sub one_event {
    my ($name, %expected) = @_;

    local $Test::Builder::Level = $Test::Builder::Level + 1;

    my @events = events(1);
    my @words = @{ $events[0] // [] };
    my %got = @words;

    is(scalar @events, 1, "$name: one event");
    is(join(' ', map { $words[2 * $_] // '' } 0 .. 9), 'limit key unit action '
        . 'used max retry client sasl_username sender', "$name: its fields");

    for my $field (sort keys %expected) {
        if (ref $expected{$field}) {
            my ($from, $to) = @{ $expected{$field} };
            ok(($got{$field} // '') =~ /^\d+$/ && $got{$field} >= $from
                && $got{$field} <= $to, "$name: $field is $from to $to")
                or diag($got{$field});
        } else {
            is($got{$field}, $expected{$field}, "$name: $field");
        }
    }
}


my %message = (client => '127.0.0.1', sasl_username => '',
    sender => 'a@example.com', key => 'a@example.com');
my $HOUR = [ 3550, 3657 ];

# every action

my $c = session('defer');
like(send_one($c, 'a@example.com'), qr/^250 /, 'what passes');
is(scalar(events()), 0, 'is no event');
like(send_one($c, 'A@Example.COM'), qr/^450 /, 'defer');
one_event('defer', %message, limit => 'defer', unit => 'messages',
    action => 'defer', used => 1, max => 1, retry => $HOUR,
    sender => 'A@Example.COM', key => 'A@Example.COM');
like(send_one($c, 'a@example.com'), qr/^450 /, 'defer again');
one_event('each time', action => 'defer');
like($c->ehlo(), qr/^250.LIMITS/m, 'EHLO asks what is left');
is(scalar(events()), 0, 'which is no event');

$c = session('reject');
like(send_one($c, 'a@example.com', 'x@example.net', 'y@example.net'),
    qr/^250 /, 'reject: the second recipient');
one_event('reject', %message, limit => 'reject', unit => 'recipients',
    action => 'reject', used => 1, max => 1, retry => $HOUR);
like(send_one($c, 'a@example.com'), qr/^550 /, 'reject: at MAIL');
one_event('reject, at MAIL', unit => 'recipients', action => 'reject');

$c = session('report');
like(send_one($c, 'a@example.com'), qr/^250 /, "report: $_") for 1 .. 2;
one_event('report', %message, limit => 'report', unit => 'messages',
    action => 'report', used => 1, max => 1, retry => $HOUR);

$c = session('share');
like(send_one($c, 'a@example.com'), qr/^250 /, "enforce=0%: $_") for 1 .. 2;
one_event('enforce=0%', limit => 'share', action => 'report');

$c = session('relay');
like(send_one($c, 'a@example.com'), qr/^250 /, "relay: $_") for 1 .. 2;
one_event('relay', limit => 'relay', action => 'relay', used => 1, max => 1);
is(scalar($other->wait_messages(1)), 1, 'relay: it went there');

# every unit

$c = session('burst');
like(send_one($c, 'a@example.com'), qr/^250 /, "burst: $_") for 1 .. 2;
like(send_one($c, 'a@example.com'), qr/^450 /, 'burst: not three');
one_event('burst', used => 2, max => 2, retry => [ 3500, 3600 ]);

$c = session('bytes');
like($c->cmd('MAIL FROM:<a@example.com> SIZE=2000'), qr/^552 /, 'SIZE');
one_event('more bytes than ever pass', limit => 'bytes', unit => 'bytes',
    used => 0, max => 1000, retry => 0, key => 'example.com');

for my $code (250, 450) {
    like(($c->send_mail('a@example.com', [ 'x@example.net' ], 'x' x 700))[-1],
        qr/^$code /, 'bytes that were not declared');
}

# the octet that MAIL took is among the used
one_event('bytes at the end', unit => 'bytes', sender => 'a@example.com',
    used => [ 702, 703 ], max => 1000, retry => [ 1, 87750 ]);

$c = session('unset');
like(send_one($c, 'a@example.com'), qr/^450 /, 'blocked');
one_event('blocked', used => 0, max => 0, retry => 0, action => 'defer');

$c = session('rcpt');
$c->cmd('MAIL FROM:<a@example.com>');
my @replies = $c->pipeline(map { "RCPT TO:<$_\@example.net>" } 1 .. 4);
is(scalar(grep { /^450/ } @replies), 3, 'three recipients refused');
my @events = events(3);
is(scalar @events, 3, 'three events');
is_deeply([ map { +{ @$_ }->{key} } @events ], [ ('example.net') x 3 ],
    'of the key that is counted');
$c->quit();

$c = session('conns');
$c->quit();
$c = $t->client('conns_nginx');
like($c->greeting(), qr/^220 /, 'connections: the greeting');
like($c->read_reply(), qr/^421 /, 'connections: and good-bye');
one_event('connections', limit => 'conns', unit => 'connections',
    action => 'defer', used => 1, max => 1, key => '127.0.0.1', sender => '');

$c = session('open');
my $second = $t->client('open_nginx');
$second->greeting();
like($second->read_reply(), qr/^421 /, 'sessions');
one_event('sessions', limit => 'open', unit => 'sessions', used => 1, max => 1,
    retry => [ 1, 60 ]);
$c->quit();

$c = session('guess');
like($c->auth_plain('alice@example.com', 'wrong'), qr/^535 /, 'a guess');
is(scalar(events()), 0, 'a wrong password is no event');
like($c->auth_plain('alice@example.com', 'wrong2'), qr/^454 /, 'another one');
one_event('auth_failures', limit => 'guess', unit => 'auth_failures',
    used => 1, max => 1, retry => $HOUR, sender => '');
my ($stream) = map { join(' ', map { @{ $_->[1] } } @$_) }
    $redis->cmd('XRANGE', 'mail:events', '-', '+');
unlike($stream, qr/wrong/, 'OUT-2 no password in the stream');

$c = session('login');
like($c->auth_plain('alice@example.com', 'secret'), qr/^235 /, 'login');
$c->quit();
$c = session('login');
like($c->auth_plain('alice@example.com', 'secret'), qr/^421 /, 'login: 421');
one_event('login', unit => 'connections', key => 'alice@example.com',
    sasl_username => 'alice@example.com');

# what clients say: as it is, to 256 octets

for my $helo ('%s%n%999999d', '"],[', "\xff\xfe\x80", '{*}', '$sender',
    '../\\', 'x' x 255)
{
    $c = session('odd', $helo);
    like(send_one($c, "$_\@example.com"), $_ eq 'a' ? qr/^250 / : qr/^450 /,
        'odd: ' . substr($helo, 0, 5) =~ s/[^ -~]/?/gr) for qw(a b);
    one_event('odd', key => substr($helo, 0, 256));
}

my $long = ('l' x 64) . '@' . join('.', ('d' x 62) x 3);

$c = session('pair', 'h' x 200);
like(send_one($c, $long), qr/^250 /, 'a long key');
like(send_one($c, $long), qr/^450 /, 'a long key again');
one_event('a long key', key => substr("$long/" . 'h' x 200, 0, 256),
    sender => $long);

# the same in the log, for those who have no Redis at hand

like($t->error_log(), qr/\[info\] .*limit "reject" of recipients exceeded, (?#
    )reject: 1 of 1 .*client: 127\.0\.0\.1/, 'a line in the error log');

# how many are kept; a prefix; none

my $few = $t->client('defer_few');
$few->greeting();
$few->ehlo();
send_one($few, 'a@example.com');

for (1 .. 12) {
    $few->pipeline(map { 'MAIL FROM:<a@example.com>' } 1 .. 20);
    $few->quit();
    $few = $t->client('defer_few');
    $few->greeting();
    $few->ehlo();
}

ok($t->wait_for(sub { $redis->cmd('XLEN', 'edge:events') >= 5 }),
    'a prefix, and not below what is to be kept');
cmp_ok($redis->cmd('XLEN', 'edge:events'), '<', 5 + 110, 'capped, about');

my $quiet = $t->client('defer_none');
$quiet->greeting();
$quiet->ehlo();
send_one($quiet, 'a@example.com') for 1 .. 3;
is($redis->cmd('EXISTS', 'quiet:events'), 0, 'events=0: none');
is(used($redis, 'defer', 'a@example.com'), 1, 'and all else as usual');

# a stream that is none: nobody who sends mail notices

$redis->cmd('DEL', 'mail:events');
$redis->cmd('SET', 'mail:events', 'x');
$c = session('defer');
like(send_one($c, 'a@example.com'), qr/^450 /, "no stream: $_") for 1 .. 3;
like(send_one($c, 'b@example.com'), qr/^250 /, 'no stream: what passes');
is($redis->cmd('GET', 'mail:events'), 'x', 'no stream: left alone');
unlike($t->error_log(), qr/ is away/, 'no stream: Redis is not away for it');

# Redis away: no events, and they go on when it is back

$redis->kill();
like(send_one($c, 'a@example.com'), qr/^[24]50 /, 'away: a message');
$redis->start();
ok($t->wait_for(sub { $t->error_log() =~ / is back/ }), 'Redis is back');
$last = '-';
$redis->cmd('HSET', 'mail:limit:defer:{a@example.com}', 'messages', 'blocked');
like(send_one($c, 'a@example.com'), qr/^450 /, 'back: refused');
one_event('back', limit => 'defer', max => 0);

$t->disconnect();
$t->stop($_) for qw(nginx few none);

is_deeply([ lasting($redis) ], [], 'no counter without TTL');

$t->done();
