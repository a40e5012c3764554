#!/usr/bin/perl

# "protocol policy": what Postfix asks, and is told.  A message is charged
# once, each recipient once, whatever the number of questions; all or nothing;
# and the variables that limits have in their keys.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Test::More;
use Time::HiRes qw(sleep);

use MailPolicy;
use MailPolicy::Limits qw(is_used);
use MailPolicy::Policy;

my $t = MailPolicy->new();
my $redis = $t->run_redis();
my $relay = $t->run_relay(name => 'relay');

$t->conf(<<'EOF');
mail {
    server_name   edge.example.com;
    policy_redis  redis://127.0.0.1:%%PORT_redis%% timeout=2s;

    map $sender_local $hard   { hard  $sender; }
    map $sender_local $tell   { tell  $sender; }
    map $sender_local $other  { other $sender; }

    upstream elsewhere { server 127.0.0.1:%%PORT_relay%%; }

    policy_lookup  $class  class:$sasl_username;
    policy_limit   user    key=$sasl_username  messages=3/1h  recipients=5/1h;

    server {
        listen    127.0.0.1:%%PORT_policy%%;
        listen    unix:%%DIR%%/policy.sock;
        protocol  policy;
    }

    server {
        listen    unix:%%DIR%%/other.sock;
        protocol  policy;

        policy_limit  what  "key=$remote_addr,$client_net,$client_host,$helo,$protocol,$sender_local,$sender_domain,$recipient_domain,$message_size,$server_addr"
                            messages=100/1h;
        policy_limit  net   key=$client_net        messages=100/1h;
        policy_limit  pair  key=$sender/$recipient_domain  messages=1/1h;
        policy_limit  size  key=$sender            bytes=1m/1h;
        policy_limit  try   key=try-$sasl_username recipients=4/1h charge=attempt;
        policy_limit  hard  key=$hard              messages=1/1h
                            on_exceed=reject  "message=No, $recipient";
        policy_limit  tell  key=$tell              messages=1/1h
                            on_exceed=report;
        policy_limit  other key=$other             messages=1/1h
                            on_exceed=relay:elsewhere;
        policy_limit  class key=$class             messages=1/1h;
    }

    server {
        listen                 127.0.0.1:%%PORT_smtp%%;
        protocol               smtp;
        policy                 on;
        policy_auth            redis;
        policy_auth_plaintext  on;
        proxy_pass             127.0.0.1:%%PORT_relay%%;
    }
}
EOF
$t->run_nginx();

my @ALICE = (sasl_method => 'plain', sasl_username => 'alice@example.com');


# one message

my $p = MailPolicy::Policy->new($t, 'policy');

is($p->ask(protocol_state => $_), 'DUNNO', "$_: nothing to say")
    for qw(CONNECT EHLO HELO MAIL VRFY ETRN);

is($p->ask(@ALICE, recipient => "r$_\@example.net"), 'DUNNO', "recipient $_")
    for 1 .. 3;
is($p->ask(@ALICE, protocol_state => $_, recipient_count => 3,
    recipient => ''), 'DUNNO', $_) for 'DATA', 'END-OF-MESSAGE';

is_used($redis, 'one message, three recipients', 'user', 'alice@example.com',
    messages => 1, recipients => 3, timeout => 5);

# several restrictions ask the same

$p->message();

is($p->ask(@ALICE, recipient => 'r4@example.net'), 'DUNNO', "time $_")
    for 1 .. 3;
is_used($redis, 'is charged once', 'user', 'alice@example.com',
    messages => 2, recipients => 4, timeout => 5);

# the limit

$p->message();

is($p->ask(@ALICE, recipient => 'r5@example.net'), 'DUNNO', 'the last one');

my $exceeded = qr/^DEFER_IF_PERMIT 4\.7\.1 Rate limit "user" exceeded, retry in \d+ s$/;

like($p->ask(@ALICE, recipient => 'r6@example.net'), $exceeded,
    'too many recipients') for 1, 2;
is($p->ask(@ALICE, protocol_state => 'DATA', recipient_count => 1), 'DUNNO',
    'the message goes to the others');

like($p->message()->ask(@ALICE), $exceeded, 'too many messages');
is($p->message()->ask(), 'DUNNO', 'who has not logged in has no such limit');

is_used($redis, 'what was refused is not charged', 'user',
    'alice@example.com', messages => 3, recipients => 5, timeout => 5);

# a limit that has room again: not for the restrictions that follow, as Postfix
# defers that recipient whatever they are told, but for who tries it later

my @LATE = (sasl_username => 'late@example.com');
my $late = MailPolicy::Policy->new($t, 'policy');

is($late->ask(@LATE, recipient => "r$_\@example.net"), 'DUNNO',
    "recipient $_ of five") for 1 .. 5;
like($late->ask(@LATE, recipient => 'r6@example.net'), $exceeded,
    'a sixth one');
$redis->cmd('HSET', 'mail:limit:user:{late@example.com}',
    recipients => '7/1h');
like($late->ask(@LATE, recipient => 'r6@example.net'), $exceeded,
    'the next restriction has the same answer');
is_used($redis, 'and costs nothing', 'user', 'late@example.com',
    messages => 1, recipients => 5, timeout => 5);
sleep(5.5);
is($late->ask(@LATE, recipient => 'r6@example.net'), 'DUNNO',
    "the same recipient, later: time $_") for 1, 2;
is_used($redis, 'is charged once', 'user', 'late@example.com',
    messages => 1, recipients => 6, timeout => 5);

# asked behind DATA for the first time

for my $state ('DATA', 'END-OF-MESSAGE') {
    my $login = lc($state) . '@example.com';

    is($p->message()->ask(sasl_username => $login, protocol_state => $state,
        recipient_count => 4, recipient => ''), 'DUNNO', "$state alone");
    is_used($redis, "$state: all its recipients", 'user', $login,
        messages => 1, recipients => 4, timeout => 5);
    like($p->message()->ask(sasl_username => $login, recipient_count => 2,
        protocol_state => $state, recipient => ''), $exceeded,
        "$state: more than are left");
    is_used($redis, "$state: none of them", 'user', $login,
        messages => 1, recipients => 4, timeout => 5);
}

# sessions of SMTP count against the same limit

$redis->cmd('HSET', 'mail:user:{alice@example.com}', password => '{PLAIN}x');

my $c = $t->session('smtp');
$c->auth_plain('alice@example.com', 'x');
like($c->cmd('MAIL FROM:<alice@example.com>'), qr/^450 4\.7\.1 /,
    'SMTP: what Postfix has sent counts');

# without instance each question is a message

is($p->ask(sasl_username => 'no@example.com', instance => $_,
    recipient => 'x'), 'DUNNO', 'no instance') for undef, '', undef;
is_used($redis, 'is charged each time', 'user', 'no@example.com',
    messages => 3, recipients => 3, timeout => 5);


# a unix socket, and another one

$p = MailPolicy::Policy->new($t, $t->dir() . '/policy.sock');
like($p->ask(@ALICE), $exceeded, 'a unix socket');

$p = MailPolicy::Policy->new($t, $t->dir() . '/other.sock');

is($p->ask(@ALICE, encryption_protocol => 'TLSv1.3', size => 1000,
    sender => 'Alice@Example.COM', recipient => 'bob@EXAMPLE.net',
    server_address => '192.0.2.25', server_port => 25), 'DUNNO',
    'another unix socket, with limits of its own');

is($redis->cmd('EXISTS', 'mail:used:what:{192.0.2.1,192.0.2.1,'
    . 'laptop.example.com,laptop,esmtpsa,alice,example.com,example.net,1000,'
    . '192.0.2.25}'), 1, 'variables of what Postfix tells')
    or diag(join("\n", $redis->keys('mail:used:what*')));

# one recipient of each domain; the message is paid for where its key is new

like($p->ask(@ALICE, recipient => 'carol@example.net',
    sender => 'Alice@Example.COM'), qr/^DUNNO$/, 'the same domain again');
is($p->ask(@ALICE, recipient => 'x@example.org',
    sender => 'Alice@Example.COM'), 'DUNNO', 'another domain');

$p->message();
like($p->ask(@ALICE, sender => 'Alice@Example.COM'),
    qr/^DEFER_IF_PERMIT 4\.7\.1 Rate limit "pair" exceeded/,
    'another message to it');
is_used($redis, 'what one limit refuses, no other is charged', 'net',
    '192.0.2.1', messages => 1, timeout => 5);

# addresses

is($p->message()->ask(client_address => '2001:db8:1:2:3:4:5:6',
    sender => 'six@example.com'), 'DUNNO', 'IPv6');
is_used($redis, 'its network', 'net', '2001:db8:1:2::/64', messages => 1,
    timeout => 5);
is($p->message()->ask(client_address => $_, sender => "no$_\@example.com"),
    'DUNNO', 'an address that is none') for 'unknown', '';
is(join(' ', grep { !/192\.0\.2\.1|2001/ } $redis->keys('mail:used:net*')),
    '', 'makes no key');

# octets, attempts, words, reports

is($p->message()->ask(sender => 'big@example.com', size => 900_000), 'DUNNO',
    'a large message');
like($p->message()->ask(sender => 'big@example.com', size => 200_000,
    recipient => 'x@example.org'), qr/^DEFER_IF_PERMIT 4\.7\.1 .*"size"/,
    'and another one');
like($p->message()->ask(sender => 'huge@example.com', size => 2_000_000),
    qr/^REJECT 5\.3\.4 Message too big for limit "size"$/,
    'one that will never fit');

$p->message();
is($p->ask(sender => '', sasl_username => 'try@example.com',
    recipient => "x$_\@example.net"), 'DUNNO', "attempt $_") for 1 .. 4;
like($p->ask(sender => '', sasl_username => 'try@example.com',
    recipient => 'x5@example.net'), qr/^DEFER_IF_PERMIT .*"try"/,
    'attempts count, too');

$p->message()->ask(sender => 'hard@example.com', recipient => 'a@a.example');
is($p->message()->ask(sender => "hard\@example.com",
    recipient => "b\x{e4}\t\@b.example"), 'REJECT 5.7.1 No, b? @b.example',
    'words of one\'s own, made harmless');

for my $what ('tell', 'other') {
    is($p->message()->ask(sender => "$what\@example.com", recipient => $_),
        'DUNNO', "$what: passes") for 'a@a.example', 'b@b.example';
}

like(join(' ', map { $_->[1][7] } @{ $redis->cmd('XREVRANGE', 'mail:events',
    '+', '-', 'COUNT', 2) }), qr/^relay report$/, 'but is said') or diag(
    explain($redis->cmd('XREVRANGE', 'mail:events', '+', '-', 'COUNT', 2)));


# a lookup in a key

$redis->cmd('SET', 'mail:class:red@example.com', 'red');
is($p->message()->ask(sasl_username => 'red@example.com', sender => ''),
    'DUNNO', 'a key from Redis');
like($p->message()->ask(sasl_username => 'red@example.com', sender => '',
    recipient => 'x@example.org'), qr/^DEFER_IF_PERMIT .*"class" exceeded/,
    'counts');

$t->done();
