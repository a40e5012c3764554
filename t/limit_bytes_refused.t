#!/usr/bin/perl

# A message with more octets than there is room for is refused where that is
# known, at MAIL or at its end, and delivered nowhere; nor is it counted.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Test::More;

use MailPolicy;
use MailPolicy::Bytes qw(relays run_edge is_charged octets mail data bdat @to);
use MailPolicy::Limits qw(lasting);

# whether shared memory is tried, too
use constant LOCAL => 1;

my $t = MailPolicy->new();
my $redis = $t->run_redis();

my %relay = relays($t);

# port => [ relay, limits and more ]; the first limit is called like it

my %servers = (
    small   => [ data => 'key=$sender bytes=1000/1h messages=1000/1h' ],
    chunks  => [ bdat => 'key=$sender bytes=1000/1h messages=1000/1h' ],
    pieces  => [ bdat => 'key=$sender bytes=1000/1h messages=1000/1h' ],
    encoded => [ data => 'key=$sender bytes=1000/1h messages=1000/1h' ],
    reject  => [ data => 'key=$sender bytes=1000/1h on_exceed=reject' ],
    report  => [ data => 'key=$sender bytes=1000/1h on_exceed=report' ],
    attempt => [ data => 'key=$sender bytes=5k/1h charge=attempt' ],
    bucket  => [ data => 'key=$sender bytes=60000/1m,burst=1000' ],
    two     => [ data => 'key=$sender bytes=1000/1h;
                policy_limit two2 key=$sender_domain bytes=1500/1d' ],
    rcpt    => [ data => 'key=$recipient_domain bytes=1000/1h' ],
    race    => [ data => 'key=$sender bytes=1000/1h' ],
);


sub configure {
    my ($store, $line) = @_;

    run_edge($t, $store, \%servers,
        "$line\n    access_log %%DIR%%/$store.access.log;");
}


my ($store, $name);

sub session {
    my ($where) = @_;

    return $t->session("${store}_$where");
}


# what is charged to a limit: octets, and messages if they are told

sub charged {
    my ($text, @charged) = @_;

    local $Test::Builder::Level = $Test::Builder::Level + 1;

    is_charged($redis, "$name: $text: charged", @charged)
        if $store ne 'local';
}


sub delivered { return scalar(my @messages = $relay{$_[0]}->received()) }


sub refusing {
    my $room = qr/^450 4\.7\.1 Rate limit "\w+" exceeded, retry in \d+ s$/;

    # by each way to bring it: [ server, relay, code ]

    for my $way ([ small => 'data', \&data ],
        [ chunks => 'bdat', sub { bdat(@_[0 .. 2], length $_[2]) } ],
        [ pieces => 'bdat', sub { bdat(@_[0 .. 2], 100,
                                       length($_[2]) - 100) } ],
        [ encoded => 'data', sub { bdat(@_[0 .. 2], 100, length($_[2]) - 100,
                                        0) } ])
    {
        my ($where, $relay, $send) = @$way;
        my $c = session($where);

        $redis->cmd('FLUSHALL');
        like($send->($c, 600, octets(600)), qr/^250 /, "$name: $where: 600");
        my $before = delivered($relay);

        like($send->($c, 401, octets(401)), $room, "$name: $where: declared");
        charged("$where: declared", $where, 600, 1);
        $c = session($where);

        for my $declared (undef, 0, 300) {
            my $text = "$where: " . ($declared // 'none') . ' of 401';
            like($send->($c, $declared, octets(401)), $room, "$name: $text");
            charged($text, $where, 600, 1);
        }

        is(delivered($relay), $before, "$name: $where: nothing is delivered");
        like($send->($c, 10, octets(400)), qr/^250 /,
            "$name: $where: to the last octet");
        charged("$where: to the last octet", $where, 1000, 2);
        like($send->($c, undef, octets(100)), $room, "$name: $where: full");
        charged("$where: full", $where, 1000, 2);
    }
}


sub actions {
    my $c = session('reject');
    my $full = qr/^550 5\.7\.1 Rate limit "reject" exceeded, retry in \d+ s$/;
    my $large = qr/^552 5\.3\.4 Message too big for limit "reject"$/;

    like(data($c, 1001, octets(10)), $large, "$name: it will never fit");
    like(data($c, undef, octets(1001)), $large, "$name: nor at the end");
    like(data($c, 10, octets(1001)), $large, "$name: nor the sum");
    like(data($c, 500, octets(500)), qr/^250 /, "$name: it fits");
    like(data($c, 600, octets(10)), $full, "$name: reject, at MAIL");
    like(data($c, 100, octets(600)), $full, "$name: reject, at the end");
    charged('reject', 'reject', 500);

    # beyond the limit nothing is charged, whatever was declared

    $c = session('report');
    like(data($c, undef, octets(900)), qr/^250 /, "$name: report");
    like(data($c, 100, octets(200)), qr/^250 /, "$name: report: at the end");
    charged('report: what was declared had room', 'report', 1000);
    like(data($c, 200, octets(200)), qr/^250 /, "$name: report: at MAIL");
    charged('report', 'report', 1000);

    # asked is charged, and nothing given back

    $c = session('attempt');
    $c->pipeline(mail(1000), @to, 'RSET');
    charged('attempt', 'attempt', 1000);
    $relay{data}->set(dot => '554 5.7.1 spam');
    like(data($c, 500, octets(1000)), qr/^554 /, "$name: attempt: refused");
    charged('attempt: refused', 'attempt', 2000);
    $relay{data}->set(dot => undef);
    like(data($c, undef, octets(4000)), qr/^450 /, "$name: attempt: no room");
    charged('attempt: no room', 'attempt', 2001);

    # a bucket never has room for more than its burst

    $c = session('bucket');
    like(data($c, undef, octets(1002)),
        qr/^552 5\.3\.4 Message too big for limit "bucket"$/,
        "$name: bucket: it will never fit");
    like(data($c, 100, octets(1000)), qr/^250 /, "$name: bucket: it fits");
    like(data($c, undef, octets(900)), qr/exceeded, retry in 1 s$/,
        "$name: bucket: full");
    ok($t->wait_for(sub { data($c, undef, octets(100)) =~ /^250/ }, 3),
        "$name: bucket: not for long");
}


sub several {

    # each of two says no in its turn, and the other one is not charged

    my $c = session('two');

    like(data($c, 10, octets(900)), qr/^250 /, "$name: two: 900");
    like(data($c, 10, octets(200)), qr/^450 .*"two"/, "$name: two: the first");
    charged('two: the first', 'two', 900);
    charged('two: the first', 'two2', 900, undef, 'example.com');

    my $other = sub { $c->pipeline('MAIL FROM:<c@example.com>', @to, 'DATA');
                      $c->send_raw(octets($_[0]) . ".\r\n");
                      return $c->read_reply() };

    like($other->(700), qr/^450 .*"two2"/, "$name: two: the second");
    charged('two: the second', 'two', 0, undef, 'c@example.com');
    charged('two: the second', 'two2', 900, undef, 'example.com');
    $c = session('two');
    like($other->(600), qr/^250 /, "$name: two: to the last octet");

    # under keys with the recipient: once for each

    my @rcpts = map { "RCPT TO:<$_>" } qw(a@example.net b@example.net
        a@example.org);

    $c = session('rcpt');
    like(data($c, 100, octets(400), sub {
        charged('recipients: at first', 'rcpt', 100, undef, $_)
            for qw(example.net example.org) }, @rcpts),
        qr/^250 /, "$name: recipients");
    charged('recipients', 'rcpt', 400, undef, $_)
        for qw(example.net example.org);
    like(data($c, undef, octets(500), undef, $rcpts[0]), qr/^250 /,
        "$name: recipients: one domain");
    like(data($c, undef, octets(200), undef, @rcpts), qr/^450 .*"rcpt"/,
        "$name: recipients: one of two is full");
    charged('recipients: one is full', 'rcpt', 900, undef, 'example.net');
    charged('recipients: the other', 'rcpt', 400, undef, 'example.org');

    $relay{data}->set(rcpt => { match => qr/example\.org/,
        action => '550 5.1.1 unknown' });
    $c = session('rcpt');
    $c->pipeline(mail(10), @rcpts[2, 0], 'DATA');
    $c->send_raw(octets(100) . ".\r\n");
    like($c->read_reply(), qr/^250 /, "$name: recipients: one is unknown");
    charged('recipients: one is unknown', 'rcpt', 1000, undef, 'example.net');
    charged('recipients: unknown', 'rcpt', 400, undef, 'example.org');
    $relay{data}->set(rcpt => undef);

    # of ten at once with room for two

    my @c = map { session('race') } 1 .. 10;
    $_->pipeline(mail(10), @to, 'DATA') for @c;
    $_->send_raw(octets(400) . ".\r\n") for @c;

    my %count;
    $count{substr($_->read_reply(), 0, 3)}++ for @c;
    is_deeply(\%count, { 250 => 2, 450 => 8 }, "$name: ten at once");
    charged('ten at once', 'race', 800);
}


configure('redis', 'policy_redis redis://127.0.0.1:%%PORT_redis%% timeout=5s;');
($store, $name) = ('redis', 'Redis');
refusing();

my $last = (grep { $_->{limit} } $t->access_log('redis.access.log'))[-1];
is_deeply([ @$last{qw(outcome limit limit_used limit_max)} ],
    [ 'deferred', 'encoded', 1000, 1000 ], 'the access log tells the limit');

actions();
several();

# operators' entries: between MAIL and the end

my $entry = 'mail:limit:small:{a@example.com}';
my $c = session('small');

$redis->cmd('FLUSHALL');
like(data($c, 10, octets(3000), sub { $redis->cmd('HSET', $entry, 'bytes',
    '3000/1h') }), qr/^250 /, 'HSET bytes 3000/1h amid a message');
charged('HSET', 'small', 3000);
$redis->cmd('HSET', $entry, 'bytes', '5k/1h');
like(data($c, 10, octets(1000), sub { $redis->cmd('HSET', $entry, 'bytes',
    'blocked') }), qr/^450 4\.7\.1 Rate limit "small" exceeded$/,
    'HSET bytes blocked amid a message');
charged('HSET blocked', 'small', 3000);
$redis->cmd('HSET', $entry, 'bytes', 'unlimited');
like(data($c, 10, octets(9000)), qr/^250 /, 'HSET bytes unlimited');
charged('HSET unlimited', 'small', 3000);

is_deeply([ lasting($redis) ], [], 'no key without TTL');

if (LOCAL) {
    configure('local', '');
    ($store, $name) = ('local', 'shared memory');
    refusing();
    actions();
    several();
}

$t->done(faults => 0);
