#!/usr/bin/perl

# A Redis that hangs, dies, comes back, and loses its scripts, under load:
# nobody waits longer than policy_redis' timeout, no worker stalls, what
# on_error says is done meanwhile, and it all comes back by itself.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Test::More;
use Time::HiRes qw(sleep time);

use MailPolicy;
use MailPolicy::Limits qw(is_used lasting send_one used wait_used);
use MailPolicy::Process qw(fork_server wait_exit);

# longest wait for a reply that passes; the timeout is 300 ms, the machine
# may be busy, and a client that hangs would wait for 10 s
use constant MARGIN => 3;

my $t = MailPolicy->new();
my $redis = $t->run_redis();
my $relay = $t->run_relay(name => 'relay', store => 0);

for my $on_error (qw(local open closed)) {
    $t->conf($on_error, <<"EOF");
error_log %%DIR%%/$on_error.error.log notice;
worker_processes 2;
mail {
    policy_redis  redis://127.0.0.1:%%PORT_redis%% timeout=300ms
                  on_error=$on_error;
    policy_auth   off;
    proxy_pass    127.0.0.1:%%PORT_relay%%;
    access_log    %%DIR%%/$on_error.access.log;

    server {
        listen        127.0.0.1:%%PORT_$on_error%%;
        protocol      smtp;
        policy        on;
        policy_limit  few   key=\$sender         messages=5/1h;
        policy_limit  many  key=\$sender_domain  recipients=100000/1h;
    }

    server {
        listen        127.0.0.1:%%PORT_load_$on_error%%;
        protocol      smtp;
        policy        on;
        policy_limit  load  key=\$sender         messages=100000/1h;
    }
}
EOF
    $t->run_nginx($on_error);
}


# Clients that go on until they are told to stop; each writes the longest
# time that it waited for a reply, and how many of which reply it got.

sub start_load {
    my ($where, $n, $code) = @_;

    my $file = $t->dir() . "/load-$where-$n";
    my $port = $t->port($where);

    my $pid = fork_server("$file.err", [], sub {
        my ($c, $longest, $round, %count) = (undef, 0, 0);

        until (-e $t->dir() . '/stop') {

            # a session may not go on for ever without a message accepted
            if ($round++ % 40 == 0) {
                $c->quit() if $c;
                $c = MailPolicy::Client->new(port => $port);
                $c->greeting();
                $c->ehlo();
            }

            for my $reply ($code->($c, $n, \$longest)) {
                $count{ $reply =~ /^(\d{3})/ ? $1 : $reply }++;
            }
        }

        $t->write_file($file, join("\n", $longest, %count));
    });

    return { name => "$where $n", file => $file, pid => $pid };
}


sub timed {
    my ($longest, $c, $command) = @_;

    my $begin = time();
    my $reply = $c->cmd($command);
    my $took = time() - $begin;

    $$longest = $took if $took > $$longest;
    return $reply;
}


sub one_message {
    my ($c, $n, $longest) = @_;

    for my $command ("MAIL FROM:<l$n\@load.example>",
        'RCPT TO:<bob@example.net>', 'DATA')
    {
        my $reply = timed($longest, $c, $command);
        next if $reply =~ /^[23]/;
        return $reply, timed($longest, $c, 'RSET');
    }

    sleep(0.01);
    return timed($longest, $c, "x\r\n.");
}


sub noop {
    my ($c, $n, $longest) = @_;

    my $reply = timed($longest, $c, 'NOOP');
    sleep(0.01);
    return $reply;
}


sub session {
    my ($where) = @_;

    return $t->session($where);
}


sub codes { return join(' ', map { substr($_, 0, 9) } @_) }

sub away { my ($name) = @_; return scalar(() =
    $t->error_log($name) =~ /\[warn\] .* policy store \S+ is away: /g) }

sub back { my ($name) = @_; return scalar(() =
    $t->error_log($name) =~ /\[notice\] .* policy store \S+ is back$/gm) }


# every worker that is asked notices: sessions until all have been

sub all_away {
    my ($what, %before) = @_;

    local $Test::Builder::Level = $Test::Builder::Level + 1;

    for my $name (qw(local open closed)) {
        ok($t->wait_for(sub {
            my $c = session($name);
            $c->cmd('MAIL FROM:<probe@probe.example>');
            $c->cmd('RSET');
            $c->quit();
            return away($name) >= $before{$name} + 2;
        }, 15), "$what: both workers of $name have noticed");
    }
}


sub all_back {
    my ($what) = @_;

    local $Test::Builder::Level = $Test::Builder::Level + 1;

    for my $name (qw(local open closed)) {
        ok($t->wait_for(sub { back($name) == away($name) }, 20),
            "$what: both workers of $name are back");
    }
}


# what on_error says, while Redis is away

sub meanwhile {
    my ($what, $sender) = @_;

    local $Test::Builder::Level = $Test::Builder::Level + 1;

    my %expected = (
        local  => join(' ', ('250 2.0.0') x 5, ('450 4.7.1') x 2),
        open   => join(' ', ('250 2.0.0') x 7),
        closed => join(' ', ('451 4.3.0') x 7),
    );

    for my $name (qw(local open closed)) {
        my $begin = time();
        is(codes(map { send_one(session($name), $sender) } 1 .. 7),
            $expected{$name}, "$what: on_error=$name");
        cmp_ok(time() - $begin, '<', MARGIN, "$what: $name: without waiting");
    }
}


my @load = map { start_load("load_$_", 1, \&one_message),
                 start_load("load_$_", 2, \&one_message),
                 start_load("load_$_", 3, \&noop) } qw(local open closed);

ok($t->wait_for(sub { used($redis, 'load', 'l1@load.example') > 100 }),
    'there is load');

# Hangs for a moment: who asks waits for the timeout and no longer, and what
# Redis does then is taken back.  A session that is gone by then, too.

my %before = map { $_ => away($_) } qw(local open closed);
$redis->signal('STOP');

for my $name (qw(local open closed)) {
    session($name)->send_raw("MAIL FROM:<gone\@late.example>\r\n"
        . "RCPT TO:<bob\@example.net>\r\n");

    my $c = session($name);
    my $begin = time();
    my $reply = $c->cmd('MAIL FROM:<first@late.example>');

    like($reply, $name eq 'closed' ? qr/^451 4\.3\.0 / : qr/^250 /,
        "RED-7 hangs: the first answer of $name");
    cmp_ok(time() - $begin, '<', MARGIN, "RED-7 hangs: $name: in time");
    $t->disconnect();
}

$redis->signal('CONT');
all_back('hung for a moment');

for my $sender (qw(first@late.example gone@late.example)) {
    is_deeply(wait_used($redis, 'few', $sender, [ 0, 0 ]), [ 0, 0 ],
        "RED-8 the charge of $sender came too late, and is given back");
}

# hangs for longer

%before = map { $_ => away($_) } qw(local open closed);
$redis->signal('STOP');
all_away('hangs', %before);
meanwhile('hangs', 'm@hang.example');
$redis->signal('CONT');
all_back('hung');

is_deeply(wait_used($redis, 'few', 'm@hang.example', [ 5, 0 ]), [ 5, 0 ],
    'hung: what was counted meanwhile is handed over');

for my $name (qw(local open closed)) {
    my $c = session($name);
    is(codes(map { send_one($c, "$name\@hung.example") } 1 .. 6),
        join(' ', ('250 2.0.0') x 5, '450 4.7.1'),
        "hung: $name counts in Redis again");
    is(used($redis, 'few', "$name\@hung.example"), 5,
        "hung: $name: the counter");
}

# dies, and comes back empty

%before = map { $_ => away($_) } qw(local open closed);
$redis->kill();
all_away('killed', %before);
meanwhile('killed', 'm@kill.example');

my $down = time();
$redis->start();
all_back('restarted');
cmp_ok(time() - $down, '<', 10, 'restarted: back soon');

for my $name (qw(local open closed)) {
    my $c = session($name);
    is(codes(map { send_one($c, "$name\@restart.example") } 1 .. 6),
        join(' ', ('250 2.0.0') x 5, '450 4.7.1'),
        "restarted: $name counts in Redis again");
}

# loses its scripts, again and again: nobody notices, each message counts

my $answers = back('closed') + away('closed');

for my $n (1 .. 30) {
    $redis->cmd('SCRIPT', 'FLUSH');

    my $c = session('closed');
    my @replies = map { send_one($c, "flush$n\@flush.example") } 1 .. 2;
    like("@replies", qr/^250 .*250 /, "RED-6 SCRIPT FLUSH $n")
        unless codes(@replies) eq '250 2.0.0 250 2.0.0';
    $c->cmd("MAIL FROM:<flush$n\@flush.example>");
    $redis->cmd('SCRIPT', 'FLUSH');
    $c->quit();
}

is(scalar(grep { used($redis, 'few', "flush$_\@flush.example") != 2 }
        1 .. 29), 0, 'RED-6 SCRIPT FLUSH: each message counts once');
# what MAIL paid for a recipient is handed back after the session's end
is_used($redis, 'RED-6 SCRIPT FLUSH: each recipient, too',
    'many', 'flush.example', timeout => 5, recipients => 60);
is(back('closed') + away('closed'), $answers, 'RED-6 no reason to be away');

# connections are cut from its side

for (1 .. 5) {
    $redis->cmd('CLIENT', 'KILL', 'TYPE', 'normal', 'SKIPME', 'yes');
    sleep(0.1);
}

all_back('CLIENT KILL');

# the load saw nothing of all this but on_error

my $sum = 0;

$t->write_file('stop', '');

for my $load (@load) {
    is(wait_exit($load->{pid}, 20), 0, "load: $load->{name} came to its end");

    my ($longest, %count) = split /\n/, $t->read_file($load->{file});
    my @codes = sort keys %count;
    my $closed = $load->{name} =~ /closed [12]/;

    cmp_ok($longest // 99, '<', $load->{name} =~ /3$/ ? 1.5 : MARGIN,
        "load: $load->{name}: the longest wait");
    is("@codes", $closed ? '250 451' : '250',
        "load: $load->{name}: which replies");
    $sum += $count{250} // 0 if $load->{name} =~ /[12]$/;
}

cmp_ok($sum, '>', 500, 'load: there was enough of it');

$t->stop($_) for qw(local open closed);

is_deeply([ lasting($redis) ], [], 'no key without TTL');

$t->done();
