#!/usr/bin/perl

# bytes: what MAIL declares is asked for there, what it did not at the end of
# the message; what counts in the end are the octets that there were.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Test::More;
use Time::HiRes qw(sleep);

use MailPolicy;
use MailPolicy::Bytes qw(relays run_edge is_charged octets mail data bdat @to);
use MailPolicy::Limits qw(lasting used);

# whether shared memory is tried, too
use constant LOCAL => 1;

my $t = MailPolicy->new();
my $redis = $t->run_redis();

my %relay = relays($t);

# port => [ relay, limits and more ]; the first limit is called like it

my %servers = (
    data    => [ data => 'key=$sender bytes=100k/1h messages=1000/1h' ],
    bdat    => [ bdat => 'key=$sender bytes=100k/1h messages=1000/1h' ],
    norm    => [ data => 'key=$sender bytes=100k/1h;
                          policy_bare_newline normalize' ],
);


sub configure {
    my ($store, $line) = @_;

    run_edge($t, $store, \%servers, $line);
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


sub counting {
    for my $where ('data', 'norm') {
        my $c = session($where);
        my $sum = 0;

        # [ declared, octets, charged at first ]

        for my $case ([ undef, 500, 1 ], [ 500, 500, 500 ], [ 3000, 20, 3000 ],
            [ 20, 3000, 20 ], [ 0, 40, 1 ], [ 1, 2, 1 ], [ '000500', 4, 500 ])
        {
            my ($declared, $octets, $first) = @$case;
            my $text = "$where: " . ($declared // 'none') . " of $octets";

            like(data($c, $declared, octets($octets), sub {
                charged("$text: at first", $where, $sum + $first) }),
                qr/^250 /, "$name: $text");
            $sum += $octets;
            charged($text, $where, $sum);
        }

        like(data($c, undef, ''), qr/^250 /, "$name: $where: nothing");
        charged("$where: nothing", $where, $sum);

        # dots and line ends as the relay has them

        like(data($c, undef, "..\r\n...\r\n"), qr/^250 /,
            "$name: $where: dots");
        charged("$where: dots", $where, $sum + 7);

        # whatever becomes of it, nothing else is charged

        $c->pipeline(mail(3000), @to);
        charged("$where: RSET: before", $where, $sum + 3007);
        $c->cmd('RSET');
        charged("$where: RSET", $where, $sum + 7);

        $relay{data}->set(dot => '554 5.7.1 spam');
        like(data($c, 10, octets(2000)), qr/^554 5\.7\.1 spam/,
            "$name: $where: the relay refuses it");
        charged("$where: the relay refuses it", $where, $sum + 7);
        $relay{data}->set(dot => 'close');
        like(data($c, 10, octets(2000)), qr/^451 4\.4\.2 /,
            "$name: $where: the relay is gone behind the dot");
        charged("$where: the relay is gone", $where, $sum += 2007);
        $relay{data}->set(dot => undef);

        $c = session($where);
        $c->pipeline(mail(4000), @to, 'DATA');
        $c->send_raw(octets(2000));
        charged("$where: cut off: before", $where, $sum + 4000);
        $c->reset();
        charged("$where: cut off", $where, $sum);
    }

    my $c = session('norm');
    my $before = $store eq 'redis'
        ? used($redis, 'norm', 'a@example.com', 'bytes') : 0;
    like(data($c, 2, "a\nb\rc\r\n"), qr/^250 /, "$name: normalized");
    charged('normalized', 'norm', $before + 7);
    like(bdat($c, 2, "a\nb\rc\r\n", 2, 5), qr/^250 /, "$name: normalized");
    charged('normalized, BDAT', 'norm', $before + 14);

    # chunks

    $c = session('bdat');
    my $sum = 0;

    for my $sizes ([ 500 ], [ 100, 400 ], [ 100, 0, 400 ], [ 500, 0 ]) {
        for my $declared (undef, 500, 10, 4000) {
            my $text = ($declared // 'none') . ", chunks of @$sizes";
            like(bdat($c, $declared, octets(500), @$sizes), qr/^250 /,
                "$name: $text");
            $sum += 500;
            charged($text, 'bdat', $sum);
        }
    }

    like(bdat($c, undef, '', 0), qr/^250 /, "$name: BDAT 0 LAST");
    charged('BDAT 0 LAST', 'bdat', $sum);
    $c->send_raw(mail(9) . "\r\n$to[0]\r\nBDAT 500\r\n" . octets(500));
    like((map { $c->read_reply() } 1 .. 3)[-1], qr/^250 /, "$name: a chunk");
    charged('a chunk', 'bdat', $sum + 9);
    $c->cmd('RSET');
    charged('a chunk, RSET', 'bdat', $sum);
    is(delivered('bdat'), 17, "$name: sixteen and an empty one are delivered")
        if $store eq 'redis';
}


configure('redis', 'policy_redis redis://127.0.0.1:%%PORT_redis%% timeout=5s;');
($store, $name) = ('redis', 'Redis');
counting();

# the client is gone, or the relay says no, while Redis is asked for the rest

my $sum = used($redis, 'data', 'a@example.com', 'bytes');
my $c = session('data');
my $before = delivered('data');

$c->pipeline(mail(10), @to, 'DATA');
$redis->signal('STOP');
$c->send_raw(octets(5000) . ".\r\n");
sleep(0.1);
$c->close();
is(delivered('data'), $before, 'the relay has to wait');
$redis->signal('CONT');
ok($t->wait_for(sub { delivered('data') > $before }), 'the client is gone');
charged('the client is gone', 'data', $sum += 5000);

$relay{data}->set(body => { after => 5,
    action => { delay => 0.2, then => '451 4.3.0 full' } });
$c = session('data');
$c->pipeline(mail(10), @to, 'DATA');
$c->send_raw(octets(100));
sleep(0.1);
$redis->signal('STOP');
$c->send_raw(octets(5000) . ".\r\n");
like($c->read_reply(2), qr/^451 4\.3\.0 full/, 'the relay says no');
$redis->signal('CONT');
charged('the relay says no', 'data', $sum);
$relay{data}->set(body => undef);

is_deeply([ lasting($redis) ], [], 'no key without TTL');

if (LOCAL) {
    configure('local', '');
    ($store, $name) = ('local', 'shared memory');
    counting();
}

$t->done(faults => 0);
