#!/usr/bin/perl

# Without policy_redis the counters of policy_zone are the store: exact over
# the workers of one nginx, kept over a reload, and over a flood of senders.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Test::More;
use Time::HiRes qw(sleep time);

use MailPolicy;
use MailPolicy::Limits qw(codes send_one);
use MailPolicy::Process qw(fork_server wait_exit);

use constant CLIENTS  => 8;
use constant MESSAGES => 25;

my $t = MailPolicy->new();
my $relay = $t->run_relay(name => 'relay');

sub conf { return "worker_processes 2;\n" . <<"EOF" }
mail {
    policy_zone  256k;
    policy_auth  off;
    proxy_pass   127.0.0.1:%%PORT_relay%%;
    access_log   %%DIR%%/access.log;

    server {
        listen        127.0.0.1:%%PORT_smtp%%;
        protocol      smtp;
        policy        on;
        policy_limit  sender  key=\$sender         messages=$_[0];
        policy_limit  domain  key=\$sender_domain  recipients=1000/1h;
    }

    server {
        listen        127.0.0.1:%%PORT_burst%%;
        protocol      smtp;
        policy        on;
        policy_limit  burst   key=\$sender         messages=60/1m,burst=2;
        policy_limit  to      key=\$recipient_domain  messages=3/1d
                                                      on_exceed=reject;
    }

    server {
        listen        127.0.0.1:%%PORT_flood%%;
        protocol      smtp;
        policy        on;
        policy_limit  flood   key=\$sender         messages=2/1h;
    }
}
EOF

$t->conf(conf('100/1h'));
$t->run_nginx();


sub session {
    my ($where) = @_;

    return $t->session($where);
}


# All clients at once, each message in a session of its own, or all in one:
# both workers have a part in it.

my @pids;

for my $n (1 .. CLIENTS) {
    my $file = $t->dir() . "/client-$n";
    my $port = $t->port('smtp');

    push @pids, fork_server("$file.err", [], sub {
        my ($c, @replies);

        for (1 .. MESSAGES) {
            if (!$c || $n % 2) {
                $c->quit() if $c;
                $c = MailPolicy::Client->new(port => $port);
                $c->greeting();
                $c->ehlo();
            }
            push @replies, send_one($c, 'alice@example.com');
        }

        $c->quit();
        open(my $fh, '>', $file) or die "$file: $!\n";
        print $fh map { "$_\n" } @replies;
    });
}

is(scalar(grep { !defined wait_exit($_, 60) } @pids), 0,
    'all clients came to their end');

my %count;
$count{ substr($_, 0, 9) }++
    for map { split /\n/, $t->read_file("client-$_") } 1 .. CLIENTS;

is_deeply(\%count, { '250 2.0.0' => 100, '450 4.7.1' => 100 },
    'exactly 100 of 200, two workers');

my @messages = $relay->wait_messages(100);
is(scalar @messages, 100, 'the relay has them');

# what is refused later is given back

my $c = session('smtp');
$relay->set(dot => '554 5.6.0 no');
like(send_one($c, 'bob@example.com'), qr/^554/, 'refused by the relay')
    for 1 .. 3;
$relay->set(dot => undef);
$c->pipeline('MAIL FROM:<bob@example.com>', 'RCPT TO:<x@example.net>', 'RSET');
$c->pipeline('MAIL FROM:<bob@example.com>', 'RCPT TO:<x@example.net>');
$c->reset();

# a reload: the counters stay, another rate is in force

is(codes(send_one(session('smtp'), 'alice@example.com')), '450',
    'before the reload');
is(codes(map { send_one(session('smtp'), 'bob@example.com') } 1 .. 4),
    '250 250 250 250', 'four of bob');

$t->disconnect();
ok($t->reload(), 'reload');
is(codes(send_one(session('smtp'), 'alice@example.com')), '450',
    'the reload forgets nothing');

$t->disconnect();
$t->conf(conf('5/1h'));
ok($t->reload(), 'reload with a lower limit');
is(codes(map { send_one(session('smtp'), 'bob@example.com') } 1 .. 2),
    '250 450', 'four and one are five: nothing of the refused was counted');

$t->disconnect();
$t->conf(conf('103/1h'));
ok($t->reload(), 'reload with a higher limit');
is(codes(map { send_one(session('smtp'), 'alice@example.com') } 1 .. 4),
    '250 250 250 450', 'a hundred and three');

# a bucket; a key of the recipient; on_exceed=reject

$c = session('burst');

my $begin = time();
is(codes(map { send_one($c, 'a@example.com', "x\@d$_.example") } 1 .. 2),
    '250 250', 'burst=2: two at once');
my $reply = send_one($c, 'a@example.com', 'x@d3.example');

SKIP: {
    skip 'this machine is too slow', 1 if time() - $begin > 0.9;
    is($reply, '450 4.7.1 Rate limit "burst" exceeded, retry in 1 s',
        'burst=2: not three');
}

ok($t->wait_for(sub {
        send_one($c, 'a@example.com', 'x@d4.example') =~ /^250/ }, 5),
    'burst=2: one a second is let pass');
cmp_ok(time() - $begin, '>=', 0.9, 'burst=2: and not earlier');

is(codes(map { send_one($c, "s$_\@example.com", 'x@d.example',
        'y@d.example') } 1 .. 3), '250 250 250', 'a domain: three messages');
like(send_one($c, 's4@example.com', 'x@d.example'),
    qr/^550 5\.7\.1 Rate limit "to" exceeded, retry in \d+ s$/,
    'a domain: 550 for the fourth');

# A flood of senders, more than the zone has room for: whoever is at the
# limit and goes on being refused does not get away with it.

$c = session('flood');
is(codes(map { send_one($c, 'evil@example.com') } 1 .. 3), '250 250 450',
    'flood: at the limit');

my ($refused, $passed) = (0, 0);

for my $n (0 .. 29) {

    # many commands that lead to no message would end a session
    $c->quit();
    $c = session('flood');

    my @commands = map { ("MAIL FROM:<u$n-$_\@example.com>", 'RSET') } 1 .. 50;
    my @replies = $c->pipeline(@commands);

    $passed += grep { /^250 2\.1\.0/ } @replies;
    $refused++ if $c->cmd('MAIL FROM:<evil@example.com>') =~ /^450 4\.7\.1/;
    $c->cmd('RSET');
}

is($passed, 1500, 'flood: all of them pass');
is($refused, 30, 'flood: one at the limit stays there');
unlike($t->error_log(), qr/policy_zone is too small/,
    'flood: nothing is lost');

# of many that count there is room for the latest

for my $n (1 .. 400) {
    next if $n % 100;
    my @replies = map { send_one($c, "v$_\@example.com") } $n - 99 .. $n;
    is(scalar(grep { !/^250/ } @replies), 0, "flood: $n messages");
}

is(codes(send_one($c, 'v400@example.com'), send_one($c, 'v400@example.com')),
    '250 450', 'flood: the latest is counted');

$t->done();
