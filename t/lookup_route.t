#!/usr/bin/perl

# Routes that are looked up in Redis: by sender, by login, by the domain of the
# recipient; others in a transaction of their own; in the order of commands;
# changed without a reload.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Test::More;
use Time::HiRes qw(sleep time);

use MailPolicy;

use constant CACHE => 1;

my $t = MailPolicy->new();
my %relay = map { $_ => $t->run_relay(name => $_) } qw(a b);
my $redis = $t->run_redis();

$t->conf(<<'EOF');
mail {
    server_name            edge.example.com;
    access_log             %%DIR%%/access.log;
    policy_redis           redis://127.0.0.1:%%PORT_redis%% timeout=5s cache=1s;
    policy_auth            file:%%DIR%%/users;
    policy_auth_plaintext  on;

    upstream outbound { server 127.0.0.1:%%PORT_a%%; }
    upstream bulk     { server 127.0.0.1:%%PORT_b%%; }

    policy_lookup  $by_recipient  route:$recipient_domain  outbound;
    policy_lookup  $by_sender     route:$sender_domain     outbound;
    policy_lookup  $by_login      relay-of:$sasl_username;
    policy_lookup  $class         class:$sender_domain;
    policy_lookup  $by_class      group:$class  $by_sender;

    map $class $by_map {
        default   outbound;
        bulky     bulk;
    }

    policy         on;
    policy_limit   all  key=$sender  messages=1000/1h;

    server {
        listen      127.0.0.1:%%PORT_recipient%%;
        protocol    smtp;
        policy_auth off;
        proxy_pass  $by_recipient;
    }

    server {
        listen      127.0.0.1:%%PORT_sender%%;
        protocol    smtp;
        policy_auth off;
        proxy_pass  $by_sender;
    }

    server {
        listen      127.0.0.1:%%PORT_login%%;
        protocol    smtp;
        proxy_pass  $by_login;
    }

    server {
        listen      127.0.0.1:%%PORT_class%%;
        protocol    smtp;
        policy_auth off;
        proxy_pass  $by_class;
    }

    server {
        listen      127.0.0.1:%%PORT_map%%;
        protocol    smtp;
        policy_auth off;
        proxy_pass  $by_map;
    }

    server {
        listen      127.0.0.1:%%PORT_divert%%;
        protocol    smtp;
        policy_auth off;
        proxy_pass  $by_sender;

        policy_limit  few  key=$sender  messages=1/1h  on_exceed=relay:bulk;
    }
}
EOF

$t->write_file('users', join('', map { "$_:{PLAIN}secret\n" } qw(ann bob)));
$t->run_nginx();

my %seen;

# the names of the relays that got a message since the last call

sub taken {
    my $taken = '';

    for my $name (sort keys %relay) {
        my $now = $relay{$name}->stats()->{messages};
        $taken .= $name x ($now - ($seen{$name} // 0));
        $seen{$name} = $now;
    }

    return $taken;
}


sub codes { return join(' ', map { substr($_, 0, 3) } @_) }


# a message in a session of its own: the codes, and who has it

sub message {
    my ($where, $from, @to) = @_;

    my $c = ref $where ? $where : $t->session($where);
    my @replies = $c->send_mail($from, \@to, "x\n");
    $c->quit() unless ref $where;
    return codes(@replies) . ' ' . taken();
}


# by the domain of the recipient

$redis->cmd('SET', 'mail:route:b.example', 'bulk');

is(message('recipient', 's@example.com', 'r@b.example'),
    '250 250 354 250 b', 'the route of a recipient');
is(message('recipient', 's@example.com', 'r@B.Example'),
    '250 250 354 250 b', 'its domain in any case');
is(message('recipient', 's@example.com', 'r@other.example'),
    '250 250 354 250 a', 'no such key: the default');

my $c = $t->session('recipient');
is(message($c, 's@example.com', 'r@b.example', 'r@a.example', 'r2@b.example'),
    '250 250 452 250 354 250 b', 'another route: 452');
like($c->cmd('MAIL FROM:<s@example.com>'), qr/^250 /, 'a transaction');
like($c->cmd('RCPT TO:<r@a.example>'), qr/^250 /, 'of its own');
like($c->cmd('RCPT TO:<r@b.example>'),
    qr/^452 4\.5\.3 .*in a separate transaction$/, 'and the other way round');
like($c->cmd('RSET'), qr/^250 /, 'reset');

# all at once, and nothing of it is known: the first command decides

for my $round (1 .. 4) {
    my @domains = map { "p$round-$_.example" } 1 .. 6;
    my $first = $round % 2 ? 'bulk' : 'outbound';

    $redis->cmd('SET', "mail:route:$domains[$_]",
        $_ % 2 == 0 ? $first : $round % 2 ? 'outbound' : 'bulk') for 0 .. 5;

    is(codes($c->pipeline('MAIL FROM:<s@example.com>',
        (map { "RCPT TO:<r\@$_>" } @domains), 'DATA')),
        '250 250 452 250 452 250 452 354', "pipelined, $first");
    like($c->cmd("x\r\n."), qr/^250 /, 'accepted');
    is(taken(), $round % 2 ? 'b' : 'a', 'by whom the first one named');
}

# the second is known and the first is asked for: the first decides still

for my $n (1 .. 3) {
    is(message($c, 's@example.com', 'r@b.example'),
        '250 250 354 250 b', 'known now');
    is(codes($c->pipeline('MAIL FROM:<s@example.com>',
        "RCPT TO:<r\@new$n.example>", 'RCPT TO:<r@b.example>', 'DATA')),
        '250 250 452 354', 'a later one that is known sooner does not decide');
    like($c->cmd("x\r\n."), qr/^250 /, 'accepted');
    is(taken(), 'a', 'by the first one');
}

# what an "echo bulk | redis-cli -x" leaves in it is seen

$redis->cmd('SET', 'mail:route:line.example', "bulk\nx");
is(message('recipient', 's@example.com', 'r@line.example'),
    '250 451 ', 'a route with a line feed is none');
like($t->error_log(), qr/no upstream "bulk\\x0Ax", which "proxy_p/,
    'and is one line of the error log');

# one that is refused decides nothing

$redis->cmd('SET', 'mail:route:none.example', 'nowhere');
$redis->cmd('SET', 'mail:route:empty.example', '');
is(message('recipient', 's@example.com', 'r@none.example', 'r@empty.example',
    'r@b.example', 'r@a.example'), '250 451 451 250 452 354 250 b',
    'no such group, an empty route: 451, and the next one decides');
is(codes($c->pipeline('MAIL FROM:<s@example.com>', 'RCPT TO:<1@none.example>',
    'RCPT TO:<2@b.example>', 'RCPT TO:<3@a.example>', 'RSET')),
    '250 451 250 452 250', 'pipelined, too');
$c->quit();

# by the sender, and by the login

$redis->cmd('SET', 'mail:route:news.example', 'bulk');
is(message('sender', 's@news.example', 'r@a.example'),
    '250 250 354 250 b', 'the route of a sender');
is(message('sender', 's@example.com', 'r@b.example'),
    '250 250 354 250 a', 'without one');
is(message('sender', '<>', 'r@b.example'),
    '250 250 354 250 a', 'an empty variable in the key: the default');
$redis->cmd('SET', 'mail:route:gone.example', 'nowhere');
$c = $t->session('sender');
like($c->cmd('MAIL FROM:<s@gone.example>'), qr/^451 4\.3\.5 No route/,
    'no such group');
is(codes($c->pipeline('MAIL FROM:<s@gone.example>', 'RCPT TO:<r@a.example>',
    'MAIL FROM:<s@news.example>', 'RCPT TO:<r@a.example>', 'DATA')),
    '451 503 250 250 354', 'pipelined behind it');
like($c->cmd("x\r\n."), qr/^250 /, 'accepted');
is(taken(), 'b', 'as its sender says');
$c->quit();

$redis->cmd('SET', 'mail:relay-of:ann', 'outbound');
$redis->cmd('SET', 'mail:relay-of:bob', 'bulk');

for my $case ([ ann => 'a' ], [ bob => 'b' ]) {
    my ($login, $name) = @$case;

    $c = $t->session('login');
    like($c->auth_plain($login, 'secret'), qr/^235 /, "login $login");
    is(message($c, 's@example.com', 'r@a.example'), "250 250 354 250 $name",
        "the route of $login");
}

# a session lasts: it is the next transaction that takes another route

$redis->cmd('SET', 'mail:relay-of:bob', 'outbound');
my $changed = time();
ok($t->wait_for(sub {
    message($c, 's@example.com', 'r@a.example') =~ / a$/ }),
    'changed: the same session takes the new one');
cmp_ok(time() - $changed, '<', CACHE + 2, 'within the cache time');
$c->quit();

# lookups in lookups, and in maps

is(message('class', 's@news.example', 'r@a.example'),
    '250 250 354 250 b', 'no class: the default is another lookup');
$redis->cmd('SET', 'mail:class:shop.example', 'bulky');
$redis->cmd('SET', 'mail:group:bulky', 'bulk');
is(message('class', 's@shop.example', 'r@a.example'),
    '250 250 354 250 b', 'a key of what was looked up');
is(message('map', 's@shop.example', 'r@a.example'),
    '250 250 354 250 b', 'a map of what was looked up');
is(message('map', 's@else.example', 'r@a.example'),
    '250 250 354 250 a', 'its default');

# a limit that sends it elsewhere, whatever its route

is(message('divert', 's@d.example', 'r@a.example'),
    '250 250 354 250 a', 'within the limit');
is(message('divert', 's@d.example', 'r@a.example'),
    '250 250 354 250 b', 'on_exceed=relay:');
$redis->cmd('SET', 'mail:route:gone2.example', 'nowhere');
$c = $t->session('divert');
is(codes($c->cmd('MAIL FROM:<s@gone2.example>')), '451', 'no route');
$c->quit();

my $log = $t->read_file('error.log');
is(scalar(() = $log =~ /no upstream "nowhere", which "proxy_pass/g), 5,
    'each that has no route is said');

$t->done();
