#!/usr/bin/perl

# Levels: what was wrong once, each with the least that shows it.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Test::More;
use Time::HiRes qw(sleep time);

use MailPolicy;
use MailPolicy::FakeRedis qw(is_charge integers);
use MailPolicy::Gate;
use MailPolicy::Limits qw(lasting send_one used);

my $t = MailPolicy->new();
my $redis = $t->run_redis();
my $relay = $t->run_relay(name => 'relay', store => 0);
my $gate = MailPolicy::Gate->new(dir => $t->dir(), port => $t->port('gate'),
    to => $redis->port());

my $conf = <<'EOF';
error_log %%DIR%%/NAME.log info;

mail {
    policy_redis  redis://127.0.0.1:%%PORT_SERVER%% cache=CACHE timeout=10s
                  connections=16;
    policy_auth   off;
    policy_max_recipients  300;
    proxy_pass    127.0.0.1:%%PORT_relay%%;

    server {
        listen        127.0.0.1:%%PORT_NAME%%;
        protocol      smtp;
        policy        on;
        policy_limit  a  key=$sender  messages=100000/1h;
    }

    server {
        listen        127.0.0.1:%%PORT_to_NAME%%;
        protocol      smtp;
        policy        on;
        policy_limit  to  key=$recipient  recipients=100000/1h;
    }

    server {
        listen        127.0.0.1:%%PORT_net_NAME%%;
        protocol      smtp;
        policy        on;
        policy_limit  net  key=$client_net  recipients=1000/1h;
    }

    server {
        listen        127.0.0.1:%%PORT_helo_NAME%%;
        protocol      smtp;
        policy        on;
        policy_limit  helo  key=$sender/$helo  messages=100/1h;
        policy_limit  map   key=$pair          messages=100/1h;
    }

    map $sender $pair { default "$sender/$helo"; }
}
EOF

for my $case ([ none => '0' ], [ long => '60s' ], [ many => '60s' ],
    [ held => '60s', 'gate' ], [ never => '60s', 'fake' ])
{
    my ($name, $cache, $server) = @$case;

    $server //= 'redis';
    $t->conf($name, $conf =~ s/NAME/$name/gr =~ s/CACHE/$cache/r
        =~ s/SERVER/$server/r);
}

$t->run_nginx('none');


sub session {
    my ($where, $helo) = @_;

    return $t->session($where, helo => $helo);
}


sub codes { return join(' ', map { substr($_, 0, 3) } @_) }

sub said { my ($name, $text) = @_; return scalar(() =
    $t->read_file("$name.log") =~ /$text/g) }


# A plan that an entry of a domain, or for all, names is in force for the
# first message that could know of it.

my $c = session('none');

for my $case ([ 'a:{@first.example}', 'first' ], [ 'a:{*}', 'all' ]) {
    my ($entry, $plan) = @$case;

    $redis->cmd('FLUSHDB');
    $redis->cmd('HSET', "mail:limit:$entry", 'plan', $plan);
    $redis->cmd('HSET', "mail:plan:$plan", 'a.messages', 'blocked');
    like(send_one($c, "a\@$plan.example"), qr/^450 /,
        "a plan that $entry names: the first message");
}

# Nor is it taken for what it once was, as others had named it.

$redis->cmd('FLUSHDB');
$redis->cmd('HSET', "mail:limit:a:{\@$_.example}", 'plan', 'once')
    for qw(before after);
send_one($c, 'a@before.example');
$redis->cmd('HSET', 'mail:plan:once', 'a.messages', 'blocked');
like(send_one($c, 'a@after.example'), qr/^450 /,
    'a plan that was read before: the first message');

# A key that is too long for its own name has a domain like others.

for my $local ('%' x 60, '{' x 64, 'x' x 64) {
    my $domain = ('d' x 60) . '.example';

    $redis->cmd('FLUSHDB');
    $redis->cmd('HSET', "mail:limit:a:{\@$domain}", 'suspended', 'yes');
    like(send_one($c, "a\@$domain"), qr/^450 /, 'a domain is suspended');
    like(send_one($c, "$local\@$domain"), qr/^450 /,
        'RED-2 and so is who has a long name there: '
        . substr($local, 0, 1));
}

# The domain is one of the key's, not what a client says behind it, be it by
# way of a map.

for my $limit ('helo', 'map') {
    $redis->cmd('FLUSHDB');
    $redis->cmd('HSET', "mail:limit:$limit:{*}", 'messages', 'blocked');
    $redis->cmd('HSET', "mail:limit:$limit:{\@rich.example}", 'messages',
        'unlimited');
    like(send_one(session('helo_none', 'x@rich.example'), 'a@poor.example'),
        qr/^450 /, "RED-2 $limit: nobody chooses his domain by EHLO");
}

# "no" in whatever case, at every level

for my $entry ('a:{a@case.example}', 'a:{@case.example}', 'a:{*}') {
    my @replies;

    $redis->cmd('FLUSHDB');

    for my $value ('no', 'No', 'NO') {
        $redis->cmd('HSET', "mail:limit:$entry", 'suspended', $value);
        push @replies, send_one($c, 'a@case.example');
    }

    is(codes(@replies), '250 250 250', "$entry: suspended no, No, NO");
}

# An entry that is no hash is skipped, as one that has nonsense in it: what it
# once said is over.  It is named in the log.

for my $entry ('limit:a:{@type.example}', 'limit:a:{*}', 'plan:type') {
    my $field = $entry =~ /plan/ ? 'a.messages' : 'messages';

    $redis->cmd('FLUSHDB');
    $redis->cmd('HSET', 'mail:limit:a:{@type.example}', 'plan', 'type')
        if $entry =~ /plan/;
    $redis->cmd('HSET', "mail:$entry", $field, 'blocked');
    send_one($c, 'a@type.example');
    like(send_one($c, 'a@type.example'), qr/^450 /, "$entry: blocked");
    $redis->cmd('DEL', "mail:$entry");
    $redis->cmd('SET', "mail:$entry", 'x');
    like(send_one($c, 'a@type.example'), qr/^250 /,
        "RED-3 $entry: of another type");
    is(said('none', qr/\[warn\] .*"mail:\Q$entry\E/), 1,
        "RED-3 $entry: said once, by name");
}

# What Redis is sent again, as it does not know a script, is behind nothing
# that was asked after it.

$redis->cmd('FLUSHDB');
$redis->cmd('HSET', 'mail:limit:a:{a@flush.example}', 'messages', '1/1h');
$c->cmd('MAIL FROM:<a@flush.example>');
$redis->cmd('SCRIPT', 'FLUSH');
like(send_one(session('none'), 'a@flush.example'), qr/^450 /,
    'a script that is sent');
is(codes($c->pipeline('RSET', 'MAIL FROM:<a@flush.example>')), '250 250',
    'RED-6 what RSET gives back is there for the next MAIL');

$c->quit();

# Many keys with plans: one question a message still.

$redis->cmd('FLUSHDB');
$redis->cmd('HSET', "mail:limit:a:{u$_\@plans.example}", 'plan',
    ('gold', 'silver', 'tin')[$_ % 3]) for 1 .. 1200;
$redis->cmd('HSET', 'mail:plan:gold', 'a.messages', '90/1h');
my @calls;

for my $round (1 .. 2) {
    for my $part (0 .. 59) {
        $c = session('none');
        $c->pipeline(map { ('MAIL FROM:<u' . ($part * 20 + $_)
            . '@plans.example>', 'RSET') } 1 .. 20);
        $c->quit();
    }
    push @calls, $redis->cmd('INFO', 'commandstats')
        =~ /cmdstat_evalsha:calls=(\d+)/;
}

# 1200 charges, as many given back, 60 EHLO
cmp_ok($calls[1] - $calls[0], '<', 2460 + 250,
    '1200 keys with plans: one question a message, mostly');

# All that comes in one turn of the event loop is asked, too.

my @clients = map { session('net_none') } 1 .. 18;
my ($worker) = $t->worker_pids('none');
my %count;

$_->cmd('MAIL FROM:<a@turn.example>') for @clients;
kill('STOP', $worker);
$_->send_raw(join('', map { "RCPT TO:<r$_\@turn.example>\r\n" } 1 .. 250))
    for @clients;
kill('CONT', $worker);

for my $client (@clients) {
    $count{ substr($client->read_reply(), 0, 3) }++ for 1 .. 250;
}

is_deeply(\%count, { 250 => 1000, 450 => 3500 },
    'a turn with 4500 questions: none was judged elsewhere');

$t->disconnect();
$t->stop('none');

# More entries on their way than are remembered, and plans in them.

$redis->cmd('FLUSHDB');
$redis->cmd('HSET', "mail:limit:to:{\@d$_.example}", 'plan', "p$_",
    'recipients', $_ % 2 ? 'blocked' : 'unlimited') for 1 .. 4500;

$t->run_nginx('many');
sleep(0.5);
like(send_one(session('to_many'), 'a@many.example'), qr/^250 /, 'the first');
@clients = map { session('to_many') } 1 .. 18;
$_->cmd('MAIL FROM:<a@many.example>') for @clients;
$redis->cmd('CONFIG', 'RESETSTAT');
$redis->signal('STOP');
my $begin = time();
my $n = 0;

for my $client (@clients) {
    $client->send_raw(join('', map { "RCPT TO:<r\@d$_.example>\r\n" }
        $n + 1 .. $n + 250));
    $n += 250;
    sleep(0.05);
}

sleep(0.3);
$redis->signal('CONT');
%count = ();

for my $client (@clients) {
    $count{ substr($client->read_reply(), 0, 3) }++ for 1 .. 250;
}

# charged as if there were no entry, given back, and charged by the entry
my $scripts = 0;
$scripts += $_ for $redis->cmd('INFO', 'commandstats')
    =~ /^cmdstat_eval(?:sha)?:calls=(\d+)/mg;

SKIP: {
    skip 'this machine is too slow', 2 if time() - $begin >= 10;
    is_deeply(\%count, { 250 => 2250, 450 => 2250 },
        '4500 entries on their way');
    is($scripts, 3 * 4500, 'none was forgotten before it was used');
}

is(said('many', qr/exited on signal/), 0, 'the worker lives');

$t->disconnect();
$t->stop('many');

# A plan that somebody else is just waiting for is not known yet.

$redis->cmd('FLUSHDB');
$redis->cmd('HSET', "mail:limit:a:{\@$_.example}", 'plan', 'slow')
    for qw(one two);
$redis->cmd('HSET', 'mail:plan:slow', 'a.messages', 'blocked');
$t->run_nginx('held');
@clients = map { session('held') } 1 .. 2;
$gate->mode('hold HMGET mail:plan:slow');
$clients[0]->send_raw("MAIL FROM:<a\@one.example>\r\n");
ok($gate->wait_for('HMGET mail:plan:slow'), 'a plan is asked for');
$clients[1]->send_raw("MAIL FROM:<a\@two.example>\r\n");
ok($gate->wait_for('HMGET mail:limit:a:{@two.example}'), 'by one domain');
sleep(0.3);
$gate->mode('pass');
is(codes(map { $_->read_reply() } @clients), '450 450', 'and by another one');

$t->disconnect();
$t->stop('held');
$gate->stop();

# A Redis that names another plan each time: what is in force, nobody knows.

my $plan = 0;
my $fake = MailPolicy::FakeRedis->new(dir => $t->dir(),
    port => $t->port('fake'), modes => { good => sub {
        is_charge(@_) ? sprintf("*3\r\n:2\r\n:1\r\n\$5\r\np%04d\r\n", ++$plan)
            : $_[0] eq 'PING' ? "+PONG\r\n" : integers(1) } });

$t->run_nginx('never');
like(send_one(session('never'), 'a@fake.example'), qr/^451 4\.3\.0 /,
    'another plan each time');
is(said('never', qr/ is away/), 0, 'and Redis is there');

$t->disconnect();
$t->stop('never');
$fake->stop();

# An entry that could not be read, as Redis was away, is read as soon as it is
# back: not only behind the cache time.

$redis->stop();
$t->run_nginx('long');
like(send_one(session('long'), 'a@away.example'), qr/^250 /, 'Redis is away');
$redis->start();
$redis->cmd('HSET', 'mail:limit:a:{@away.example}', 'messages', 'blocked');
ok($t->wait_for(sub { said('long', qr/ is back$/m) }), 'Redis is back');
$c = session('long');
ok($t->wait_for(sub { send_one($c, 'a@away.example') =~ /^450 / }, 5),
    'an entry that could not be read is read soon');

$t->disconnect();
$t->stop('long');

is_deeply([ lasting($redis) ], [], 'no counter without TTL');

$t->done();
