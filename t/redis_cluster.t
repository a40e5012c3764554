#!/usr/bin/perl

# A Redis Cluster: slots are moved, masters die and hang, nodes join, while
# mail flows.  What is counted is counted once, by the node that has the key;
# where on_error=local nobody is refused, and a replica that took over is used
# at most two seconds later.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use List::Util qw(sum0 uniq);
use Test::More;
use Time::HiRes qw(sleep time);

use MailPolicy;
use MailPolicy::Cluster;
use MailPolicy::Limits qw(lasting send_one used);
use MailPolicy::Load;

use constant { BACK => 2, MARGIN => 2 };

my $t = MailPolicy->new();
my $relay = $t->run_relay(name => 'relay', store => 0);
my $cluster = MailPolicy::Cluster->new($t);
my ($n1, $n2) = $cluster->nodes();


sub conf {
    my ($name, $on_error, @seeds) = @_;

    my $urls = join(' ', map { $_->url() } @seeds);

    $t->conf($name, <<"EOF");
error_log %%DIR%%/$name.error.log notice;
worker_processes 2;
mail {
    policy_redis  $urls cluster on_error=$on_error timeout=400ms;
    policy_auth   off;
    proxy_pass    127.0.0.1:%%PORT_relay%%;
    access_log    %%DIR%%/$name.access.log;

    server {
        listen        127.0.0.1:%%PORT_$name%%;
        protocol      smtp;
        policy        on;
        policy_limit  x  key=\$sender  messages=100000/1h;
    }

    # their keys are of different nodes
    server {
        listen        127.0.0.1:%%PORT_both_$name%%;
        protocol      smtp;
        policy        on;
        policy_limit  s  key=\$sender         messages=3/1h;
        policy_limit  d  key=\$sender_domain  messages=5/1h;
    }
}
EOF
    $t->run_nginx($name);
}


sub session {
    my ($where) = @_;

    return $t->session($where);
}


sub slot_of { my ($key) = @_; return $cluster->slot("mail:used:x:{$key}") }

# of that node, as the first of them sees it
sub count { my ($key) = @_; return eval { used($cluster, 'x', $key) } // -1 }

my $number = 0;


# messages of senders whose keys are that node's: true if it counts them

sub counts {
    my ($where, $node) = @_;

    for (1 .. 4) {
        my ($c, $sender) = session($where);

        do { $sender = 'p' . ++$number . '@probe.example' }
            until $cluster->owner(slot_of($sender), $node) == $node;

        my $reply = send_one($c, $sender);
        $c->quit();
        return 0 unless $reply =~ /^250/ && used($node, 'x', $sender) == 1;
    }

    return 1;
}


sub soon {
    my ($what, $where, $node) = @_;

    local $Test::Builder::Level = $Test::Builder::Level + 1;

    my $begin = time();
    ok($t->wait_for(sub { counts($where, $node) }, 10), "$what: it counts");
    my $took = time() - $begin;
    cmp_ok($took, '<', BACK + 0.5, "$what: soon");
    note("$what: $took s");
}


# what was charged to the senders of a load

sub charged {
    my ($load, $clients) = @_;

    return sum0(map { my $n = $_;
        map { count("l$_\@$load->{name}-$n.example") }
            0 .. $load->{senders} - 1 } 1 .. $clients);
}


conf('closed', 'closed', $n1, $n2);
conf('local', 'local', $n2);

# keys of many

my @senders = map { "u$_\@many.example" } 1 .. 60;

ok($t->wait_for(sub { send_one(session('closed'), 'first@many.example')
    =~ /^250/ }), 'the cluster is found');

for my $where (qw(closed local)) {
    my $c;

    for my $n (0 .. $#senders) {
        $c = session($where) if $n % 20 == 0;
        my $reply = send_one($c, $senders[$n]);
        like($reply, qr/^250 /, "$where: $senders[$n]")
            unless $reply =~ /^250 /;
    }
}

is(scalar(grep { count($_) == 2 } @senders), 60,
    'each key is counted once by each edge, where it belongs');
is(scalar(uniq(map { $cluster->owner(slot_of($_))->port() } @senders)), 3,
    'they are spread over three masters');

# several limits, of different nodes: all are charged, or none

for my $n (1 .. 6) {
    my $domain = "both$n.example";
    my @replies = map { my $sender = "$_\@$domain";
        map { substr(send_one(session('both_closed'), $sender), 0, 3) } 1 .. 4
    } qw(a b);

    is("@replies", '250 250 250 450 250 250 450 450',
        "$domain: two limits of different nodes");
    is(join(' ', map { used($cluster, @$_) } [ d => $domain ],
        [ s => "a\@$domain" ], [ s => "b\@$domain" ]), '5 3 2',
        "$domain: all are charged, or none");
}

# the stream of events is moved, and nothing else tells of its slot: what is
# read of the map at the start has been read by now

sleep(1);

my $stream = $cluster->slot('mail:events');
my $had = $cluster->owner($stream);
my ($has) = grep { $_ != $had } $cluster->masters();

$cluster->move($stream, $had, $has);
my $events = $has->cmd('XLEN', 'mail:events');

ok($t->wait_for(sub {
    send_one(session('both_closed'), 'b@both6.example');
    return $has->cmd('XLEN', 'mail:events') > $events;
}), 'events: they follow their stream');

# slots are moved, under load: each to and fro, keys and all

my $load = MailPolicy::Load->new($t, port => 'closed', clients => 3,
    senders => 5);
my @moving = map { my $n = $_; map { "l$_\@$load->{name}-$n.example" } 0 .. 4 }
    1 .. 3;

ok($t->wait_for(sub { !grep { count($_) < 1 } @moving }), 'there is load');

my $moves = 0;

for my $key (@moving, @moving) {
    my $slot = slot_of($key);
    my $from = $cluster->owner($slot);
    my ($to) = grep { $_ != $from } $cluster->masters();

    $cluster->move($slot, $from, $to);
    $moves++;
}

my ($longest, %count) = $load->stop();

is($moves, 30, 'RED-6 MOVED: slots were moved');
is(join(' ', sort keys %count), '250',
    'RED-6 MOVED: nobody was refused with on_error=closed');
is(charged($load, 3), $count{250}, 'RED-6 MOVED: each message counts once');
cmp_ok($longest, '<', 0.4 + MARGIN, 'RED-6 MOVED: the longest wait');

# a slot that is on its way: keys that are there already (ASK), keys of which
# some are there (TRYAGAIN)

my $there = 'there@ask.example';
my $slot = slot_of($there);
my $from = $cluster->owner($slot);
my ($to) = grep { $_ != $from } $cluster->masters();

$cluster->cmd('HSET', "mail:limit:x:{$there}", 'note', 'for both to exist');
like(send_one(session('closed'), $there), qr/^250 /, 'before the slot moves');
$cluster->begin($slot, $from, $to);
like(send_one(session('closed'), $there), qr/^250 /, 'before the key moves');
is(used($from, 'x', $there), 2, 'the old node counts');

$cluster->carry($slot, $from, $to);
like(send_one(session('closed'), $there), qr/^250 /, 'RED-6 ASK');

$to->cmd('ASKING');
is(used($to, 'x', $there), 3, 'RED-6 ASK: the new node counts');

# a script is not there, either
$to->cmd('SCRIPT', 'FLUSH');
like(send_one(session('closed'), $there), qr/^250 /,
    'RED-6 ASK and NOSCRIPT: the script is sent');
$to->cmd('ASKING');
is(used($to, 'x', $there), 4, 'RED-6 ASK and NOSCRIPT: it counts');

# its own entry is gone, so one key of two is there

$to->cmd('ASKING');
$to->cmd('DEL', "mail:limit:x:{$there}");

my $begin = time();
my $c = session('closed');
my $reply = send_one($c, $there);
like($reply, qr/^451 /, 'RED-6 TRYAGAIN: nobody answers in time');
cmp_ok(time() - $begin, '<', 0.4 + MARGIN, 'RED-6 TRYAGAIN: in time');

$c->send_raw("MAIL FROM:<$there>\r\n");
sleep(0.15);
$cluster->end($slot, $from, $to);
$cluster->settle($slot, $to);
like($c->read_reply(), qr/^250 /, 'RED-6 TRYAGAIN: until the slot is there');
$c->cmd('RSET');
like(send_one($c, $there), qr/^250 /, 'RED-6 TRYAGAIN: and then');
ok($t->wait_for(sub { count($there) == 5 }), 'RED-6 TRYAGAIN: it counts once')
    or diag(count($there));

# a node joins

my $new = $cluster->add('n7');
$new->cmd('CLUSTER', 'MEET', '127.0.0.1', $n1->port(), $n1->{bus});
ok($t->wait_for(sub { !grep { !$cluster->is_well($_) } $cluster->nodes() },
    20), 'a node has joined');

$from = $cluster->owner($slot);
$cluster->move($slot, $from, $new);
like(send_one(session('closed'), $there), qr/^250 /, 'joined: it has a slot');
is(used($new, 'x', $there), 6, 'joined: it counts');
ok($t->wait_for(sub { $t->error_log('closed')
    =~ /policy store redis:\/\/127\.0\.0\.1:@{[ $new->port() ]} has a part/ }),
    'joined: the log says so');

# and leaves

$cluster->move($slot, $new, $from);
like(send_one(session('closed'), $there), qr/^250 /, 'left: another counts');
is(used($from, 'x', $there), 7, 'left: it counts');

# a master is killed, one hangs: a replica takes over

sub taken_over {
    my ($what, $old) = @_;

    local $Test::Builder::Level = $Test::Builder::Level + 1;

    my ($range) = grep { $_->[2] == $old->port() } $cluster->slots();
    my $witness = (grep { $_ != $old } $cluster->masters())[0];

    $old->{stopped} = 1;
    $what eq 'killed' ? $old->kill() : $old->signal('STOP');

    my $replica;
    ok($t->wait_for(sub {
        $replica = $cluster->owner($range->[0], $witness);
        return $replica != $old;
    }, 20), "$what: a replica has taken over") or return;

    soon($what, 'local', $replica);
    return $replica;
}

$load = MailPolicy::Load->new($t, port => 'local', clients => 4);
sleep(0.5);

my @masters = grep { $_ != $new } $cluster->masters();
my $killed = taken_over('killed', $masters[0]);
my $hung = taken_over('hangs', $masters[1]);

$masters[1]->signal('CONT');
delete $masters[1]{stopped};
sleep(0.5);

soon('hung', 'local', $hung);

($longest, %count) = $load->stop();

is(join(' ', sort keys %count), '250', 'load: nobody was refused, or lost');
cmp_ok($count{250} // 0, '>', 300, 'load: there was enough of it');
cmp_ok($longest, '<', 0.4 + MARGIN, 'load: the longest wait');

# "closed" learns by itself, too, and needs no seed for that

ok($t->wait_for(sub { counts('closed', $killed) }, 5),
    'the other edge knows, too');

# the log: once for each worker and node

my $log = $t->error_log('local');
my $url = $masters[0]->url();
my $away = () = $log =~ /policy store \Q$url\E is away: /g;
is($away, 2, 'the log: the node is away, said once by each worker');
like($log, qr/policy store \Q$url\E has no part in the cluster any more/,
    'the log: it has no part any more');

# a start with a seed that is dead

conf('start', 'closed', $masters[0], $hung);
ok($t->wait_for(sub { counts('start', $hung) }, 5),
    'a seed is dead: the next one is asked');

is_deeply([ map { lasting($_) } $cluster->masters($hung) ], [],
    'no key without TTL');

$t->done();
