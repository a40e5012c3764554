#!/usr/bin/perl

# Nodes of a cluster and Sentinels that say what real ones do not: redirections
# that lead nowhere, maps that are none, masters that are not.  Whatever it is,
# the decision is made within the deadline, a request goes round five times at
# most, and the next good answer counts again.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Test::More;
use Time::HiRes qw(sleep time);

use MailPolicy;
use MailPolicy::FakeRedis qw(is_charge integers charged);

use constant MARGIN => 3;               # the timeout is 250 ms

my $CRLF = "\r\n";
my $ID = 'e7d1eecce10fd6bb5eb35b9f99a514335d9ba9ca';

my $t = MailPolicy->new();
my $relay = $t->run_relay(name => 'relay', store => 0);
my ($first, $second, $nobody) = map { $t->port($_) } qw(fake_a fake_b nobody);


# answers


sub bulk { return '$' . length($_[0]) . "$CRLF$_[0]$CRLF" }

# port => slots, ...: the map, of an epoch

sub nodes {
    my ($epoch, %slots) = @_;

    return bulk(join('', map {
        "$ID 127.0.0.1:$_\@1 master - 0 1 $epoch connected $slots{$_}\n"
    } sort keys %slots));
}

my $map = nodes(5, $first => '0-16383');
my $other = nodes(5, $second => '0-16383');

# the slot of a key, as the node says it itself: MOVED is of this one only

sub crc16 {
    my ($crc) = 0;

    for my $octet (unpack('C*', $_[0])) {
        $crc ^= $octet << 8;
        $crc = ($crc & 0x8000 ? ($crc << 1) ^ 0x1021 : $crc << 1) & 0xffff
            for 1 .. 8;
    }

    return $crc;
}

sub slot { my ($tag) = $_[3] =~ /\{(.*)\}/; return crc16($tag) % 16384 }

sub moved { my ($to) = @_; return sub { "-MOVED " . slot(@_) . " $to$CRLF" } }
sub ask   { my ($to) = @_; return sub { "-ASK " . slot(@_) . " $to$CRLF" } }
sub error { my ($text) = @_; return sub { "-$text$CRLF" } }
sub good  { return integers(charged(@_)) }

# "-$text" so often, and then it is well
# a script that was there, and is not any more: EVAL brings it along
sub forgets {
    return "-NOSCRIPT No matching script.\r\n" if $_[0] eq 'EVALSHA';
    return good(@_);
}


sub at_first {
    my ($n, $text) = @_;
    return sub { $n-- > 0 ? "-$text$CRLF" : good(@_) };
}


# name => [ what a says to a charge, what b says, the map, the reply ]; the
# fakes count by themselves, as they are processes

my %case = (
    'MOVED' => [ moved("127.0.0.1:$second"), \&good, $map, 250 ],
    'MOVED, without host' => [ moved(":$second"), \&good, $map, 250 ],
    'MOVED, then TRYAGAIN' => [ moved("127.0.0.1:$second"),
        at_first(1, 'TRYAGAIN x'), $other, 250 ],
    'MOVED, by a name' => [ moved("b.example:$second"), \&good, $other, 250 ],
    'MOVED, to a node without endpoint' => [ moved("?:$second"), \&good, $other,
        250 ],
    'MOVED, to and fro' => [ moved("127.0.0.1:$second"), moved("127.0.0.1:$first"),
        $map, 451 ],
    'MOVED, to itself' => [ moved("127.0.0.1:$first"), \&good, $map, 451 ],
    'MOVED, to nobody' => [ moved("127.0.0.1:$nobody"), \&good, $map, 451 ],
    'MOVED, by a name that stays' => [ moved("b.example:$second"), \&good, $map,
        451 ],
    'MOVED, of another slot' => [ error("MOVED 1 127.0.0.1:$second"), \&good, $map,
        451 ],
    'MOVED, of no slot' => [ error("MOVED 16384 127.0.0.1:$second"), \&good, $map,
        451 ],
    'MOVED, without words' => [ error('MOVED'), \&good, $map, 451 ],
    'MOVED, without an end' => [ error('MOVED '), \&good, $map, 451 ],
    'MOVED, without port' => [ moved('127.0.0.1'), \&good, $map, 451 ],
    'ASK' => [ ask("127.0.0.1:$second"), \&good, $map, 250 ],
    'ASK, then NOSCRIPT' => [ ask("127.0.0.1:$second"),
        \&forgets, $map, 250 ],
    'ASK, then MOVED back' => [ ask("127.0.0.1:$second"), moved("127.0.0.1:$first"),
        $map, 451 ],
    'ASK, nobody there' => [ ask("127.0.0.1:$nobody"), \&good, $map, 451 ],
    'ASK, malformed' => [ error('ASK 1'), \&good, $map, 451 ],
    'TRYAGAIN, three times' => [ at_first(3, 'TRYAGAIN x'), \&good, $map, 250 ],
    'TRYAGAIN, for ever' => [ error('TRYAGAIN x'), \&good, $map, 451 ],
    'CLUSTERDOWN' => [ error('CLUSTERDOWN The cluster is down'), \&good, $map,
        451 ],
    'CLUSTERDOWN, and an old map' => [ error('CLUSTERDOWN x'), \&good,
        nodes(4, $second => '0-16383'), 451 ],
    'CROSSSLOT' => [ error('CROSSSLOT x'), \&good, $map, 451 ],
);

# what is no map; nothing is known before

my %no_map = (
    'garbage' => bulk("what is this\n"),
    'empty' => bulk(''),
    'half a line' => bulk("$ID 127.0.0.1:$first\@1 master - 0 1 5"),
    'a slot too many' => nodes(5, $first => '0-16384'),
    'no slots' => nodes(5, $first => ''),
    'replicas only' => bulk("$ID 127.0.0.1:$first\@1 slave $ID 0 1 5 connected\n"),
    'an integer' => ":1$CRLF",
    'an array' => "*1$CRLF:1$CRLF",
    'nil' => "\$-1$CRLF",
    'an error' => "-ERR This instance has cluster support disabled$CRLF",
    'too long' => '$700000' . $CRLF . 'x' x 650000,
    'nothing' => '',
    'NOAUTH' => "-NOAUTH Authentication required.$CRLF",
);

# nodes of the same cluster that nobody needs, and a slot on its way
my $long = bulk(join('', map {
    "$ID 10.0.0.1:$_\@1 slave $ID 0 1 5 connected\n" } 1 .. 4000)
    . "$ID :$first\@1 myself,master - 0 1 5 connected 0-16383 [7->-$ID]\n");


sub modes {
    my ($n) = @_;

    # b sends those home that a case before has led to it
    my %modes = (good => [ \&good, moved("127.0.0.1:$first"), $map ],
        long => [ (\&good) x 2, $long ], %case,
        map { ("map $_" => [ (\&good) x 2, $no_map{$_} ]) } keys %no_map);

    return map {
        my ($charge, $nodes) = @{ $modes{$_} }[ $n, 2 ];

        $_ => sub {
            return "+PONG$CRLF" if $_[0] eq 'PING';
            return "+OK$CRLF" if $_[0] eq 'ASKING';
            return $nodes if $_[0] eq 'CLUSTER';
            return is_charge(@_) ? $charge->(@_) : integers(1);
        };
    } keys %modes;
}


my %fake = (
    a => MailPolicy::FakeRedis->new(dir => $t->dir(), port => $first,
        log => $t->dir() . '/a.log', file => $t->dir() . '/a.mode',
        modes => { modes(0) }),
    b => MailPolicy::FakeRedis->new(dir => $t->dir(), port => $second,
        log => $t->dir() . '/b.log', file => $t->dir() . '/b.mode',
        modes => { modes(1) }),
);

sub mode { my ($mode) = @_; $_->mode($mode) for values %fake }


sub conf {
    my ($name, $redis) = @_;

    $t->conf($name, <<"EOF");
error_log %%DIR%%/$name.error.log notice;
mail {
    policy_redis  $redis timeout=250ms connections=1 on_error=closed;
    policy_auth   off;
    proxy_pass    127.0.0.1:%%PORT_relay%%;

    server {
        listen        127.0.0.1:%%PORT_$name%%;
        protocol      smtp;
        policy        on;
        policy_limit  x  key=\$sender  messages=1000/1h;
    }
}
EOF
    $t->run_nginx($name);
}


my (%client, $number);

# a sender of its own, and the reply to it

sub try_one {
    my ($where) = @_;

    my $sender = 's' . ++$number . '@example.com';

    # a session may not go on for ever without a message
    if ($number % 40 == 0 || !$client{$where}) {
        $client{$where} = $t->client($where);
        $client{$where}->greeting();
        $client{$where}->ehlo();
    }

    $client{$where}->send_raw("MAIL FROM:<$sender>\r\nRSET\r\n");
    my $reply = $client{$where}->read_reply();
    $client{$where}->read_reply();

    return (substr($reply, 0, 3), $sender);
}


sub recover {
    my ($where, $name) = @_;

    my $well = 0;

    mode('good');
    $t->wait_for(sub {
        my ($reply, $sender) = try_one($where);
        my @by = map { $_->[0] } asked($sender);

        # at once, so with the right map, and not by chance
        $well = $reply == 250 && @by == 1 ? $well + 1 : 0;
        return $well >= 3;
    }, 10) or fail("$name: the next good answer counts");
}


# charges of a sender: [ fake, command, ... ]

sub asked {
    my ($sender) = @_;

    return map {
        my $name = $_;
        map { [ $name, @$_[1 .. $#$_] ] }
            grep { @$_ > 5 && is_charge(@$_[1 .. $#$_])
                && $_->[4] =~ /\{\Q$sender\E\}/ } $fake{$name}->commands();
    } sort keys %fake;
}


conf('cluster', "redis://127.0.0.1:$first redis://127.0.0.1:$second cluster");
recover('cluster', 'at the beginning');

my ($pid) = $t->worker_pids('cluster');

for my $name (sort keys %case) {
    my ($mode, $begin) = ($case{$name}, time());

    mode($name);
    my ($reply, $sender) = try_one('cluster');
    my $took = time() - $begin;

    is($reply, $mode->[3], "RED-6 $name");
    cmp_ok($took, '<', MARGIN, "RED-6 $name: in time") if $took >= MARGIN;
    my @asked = asked($sender);
    my $most = $name =~ /^TRYAGAIN|stays/ ? 12 : 6;
    ok(@asked >= 1 && @asked <= $most, "RED-6 $name: asked "
        . @asked . ' times, no more than ' . $most);
    recover('cluster', $name);
}

# ASK is said to b, and each time that something is asked behind it

my @behind = map { $_->[1] } grep { $_->[0] eq 'ASK, then NOSCRIPT' }
    $fake{b}->commands();
like(join(' ', grep { !/^(?:PING|CLUSTER|AUTH|HMGET)$/ } @behind),
    qr/^(?:ASKING EVALSHA )?ASKING EVAL$/, 'RED-6 ASK: before each command');

# whoever asked is gone while it waits to be sent again: it is not

mode('TRYAGAIN, for ever');

for my $how (qw(close reset)) {
    my $c = $t->client('cluster');
    my $sender = "gone.$how\@example.com";

    $c->greeting();
    $c->ehlo();
    $c->send_raw("MAIL FROM:<$sender>\r\n");
    ok($t->wait_for(sub { asked($sender) }), "ASYNC-A3 parked, $how: asked");
    $c->$how();
    sleep(0.3);
    my $before = () = asked($sender);
    sleep(0.3);
    is(scalar(() = asked($sender)), $before, "ASYNC-A3 parked, $how: dropped");
}

recover('cluster', 'parked');

# a node that is not in the map any more: what is under way ends there

mode('MOVED');
try_one('cluster');
mode('good');
ok($t->wait_for(sub { $t->error_log('cluster')
    =~ /redis:\/\/127\.0\.0\.1:$second has no part in the cluster any more/ }),
    'a node without slots is given up');
recover('cluster', 'given up');

# reload while requests are parked

mode('TRYAGAIN, for ever');
my @clients = map { my $c = $t->client('cluster'); $c->greeting(); $c->ehlo();
    $c->send_raw("MAIL FROM:<r$_\@example.com>\r\n"); $c } 1 .. 5;
is(join(' ', $t->worker_pids('cluster')), $pid, 'the worker lives');
ok($t->reload('cluster'), 'reload, while requests wait to be sent again');
is(scalar(grep { $_->read_reply() =~ /^451 / } @clients), 5,
    'reload: each is answered');
%client = ();
recover('cluster', 'reload');

# maps, at the start of a cluster

for my $name (sort keys %no_map) {
    mode("map $name");
    my $where = 'map' . ++$number;

    conf($where, "redis://127.0.0.1:$first cluster");
    my $begin = time();
    is((try_one($where))[0], 451, "map: $name: it is away");
    cmp_ok(time() - $begin, '<', MARGIN, "map: $name: without waiting");
    ok($t->wait_for(sub { $t->error_log($where)
        =~ /away: no node can tell \(127\.0\.0\.1:$first: ./ }, 5),
        "map: $name: the log says why") or diag($t->error_log($where));
    recover($where, "map: $name");
    is($t->stop($where), 0, "map: $name: the end");
}

mode('long');
conf('long', "redis://127.0.0.1:$second cluster");
ok($t->wait_for(sub { (try_one('long'))[0] == 250 }, 5),
    'a map of 4000 lines, and an address that is asked for')
    or diag($t->error_log('long'));
$t->stop('long');
$t->stop('cluster');

# Sentinels: a is one, b the master

my $says = sub { my ($host, $port) = @_;
    return "*2$CRLF" . bulk($host) . bulk($port) };
my $role = "# Replication${CRLF}role:%s${CRLF}connected_slaves:0$CRLF";
my $unwilling = "-ERR AUTH <password> called without any password configured"
    . " for the default user.$CRLF";

# [ what the Sentinel says, what the log says ]

my %sentinel = (
    'nil' => [ "*-1$CRLF", qr/it knows no such master/ ],
    'garbage' => [ "\xff\x00$CRLF", qr/an answer is malformed/ ],
    'an integer' => [ ":1$CRLF", qr/an answer is not as expected/ ],
    'one word' => [ "*1$CRLF" . bulk('x'), qr/an answer is not as expected/ ],
    'two integers' => [ "*2$CRLF:1$CRLF:2$CRLF",
        qr/an answer is not as expected/ ],
    'a name' => [ $says->('redis.example.com', $second),
        qr/by a host name, set "sentinel announce-hostnames no"/ ],
    'port 0' => [ $says->('127.0.0.1', 0), qr/an answer is not as expected/ ],
    'port 65536' => [ $says->('127.0.0.1', 65536),
        qr/an answer is not as expected/ ],
    'NOAUTH' => [ "-NOAUTH Authentication required.$CRLF", qr/NOAUTH/ ],
    'nothing' => [ '', qr/no answer/ ],
);

my %roles = (
    'a replica' => [ bulk(sprintf($role, 'slave')), qr/it is not the master/ ],
    'no role' => [ bulk('nothing'), qr/it is not the master/ ],
    'NOPERM' => [ "-NOPERM this user has no permissions to run the 'info'"
        . " command$CRLF", qr/NOPERM/ ],
    'an integer' => [ ":1$CRLF", qr/an answer is not as expected/ ],
);

my %sentinel_modes = (
    good => sub { $says->('127.0.0.1', $second) },
    map { my $case = $_; ($_ => sub { $sentinel{$case}[0] }) } keys %sentinel,
);
my %master_modes = (
    good => bulk(sprintf($role, 'master')),
    map { ($_ => $roles{$_}[0]) } keys %roles,
);

$_->stop() for values %fake;

%fake = (
    a => MailPolicy::FakeRedis->new(dir => $t->dir(), port => $first,
        log => $t->dir() . '/sa.log', file => $t->dir() . '/sa.mode',
        modes => { map { my $mode = $sentinel_modes{$_};
            $_ => sub { $_[0] eq 'AUTH' ? $unwilling : $mode->() }
        } keys %sentinel_modes }),
    b => MailPolicy::FakeRedis->new(dir => $t->dir(), port => $second,
        log => $t->dir() . '/sb.log', file => $t->dir() . '/sb.mode',
        modes => { map { my $answer = $master_modes{$_};
            $_ => sub {
                return "+PONG$CRLF" if $_[0] eq 'PING';
                return "+OK$CRLF" if $_[0] eq 'AUTH';
                return $answer if $_[0] eq 'INFO';
                return is_charge(@_) ? good(@_) : integers(1);
            }
        } keys %master_modes }),
);

for my $case ((map { [ 'a', $_, @{ $sentinel{$_} } ] } sort keys %sentinel),
    (map { [ 'b', $_, @{ $roles{$_} } ] } sort keys %roles))
{
    my ($who, $name, undef, $reason) = @$case;
    my $where = 'sentinel' . ++$number;

    $name = "RED-6 $name of a master" if $who eq 'b';
    $name = "Sentinel: $name" if $who eq 'a';

    mode('good');
    $fake{$who}->mode($case->[1]);
    conf($where, "redis://:secret\@127.0.0.1:$first sentinel=m");
    is((try_one($where))[0], 451, "$name: it is away");
    ok($t->wait_for(sub { $t->error_log($where) =~ /away: [^\n]*$reason/ }, 5),
        "$name: the log says why") or diag($t->error_log($where));
    is(scalar(() = $t->error_log($where) =~ /is away:/g), 1,
        "$name: and that it is away once");
    recover($where, $name);
    is($t->stop($where), 0, "$name: the end");
}

# one that lost its place, with all of its connections: they were up

conf('was', "redis://127.0.0.1:$first sentinel=m");
recover('was', 'a master');
$fake{b}->mode('a replica');
$fake{a}->mode('garbage');
sleep(1.5);
is((try_one('was'))[0], 250, 'what is up is used while no Sentinel can tell');

$_->stop() for values %fake;
$t->done();
