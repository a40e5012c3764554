#!/usr/bin/perl

# "policy_action": what is said of mail that passes, from maps and from Redis,
# at each stage and to each of several restrictions; what would let mail pass
# by itself, lose it, or is no line, never gets out.

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

$t->conf(<<'EOF');
mail {
    policy_redis  redis://127.0.0.1:%%PORT_redis%% timeout=5s cache=0
                  on_error=closed;

    policy_limit  sender  key=$sender  messages=3/1h  recipients=9/1h;
    policy_edge   192.0.2.5;

    policy_lookup  $action  action:$sender  "INFO none is set";
    policy_lookup  $class   class:$sasl_username  none;
    policy_lookup  $route   route:$recipient_domain;

    map $class $by_class {
        none     "";
        red      "HOLD by class";
        default  "PREPEND X-Class: $class";
    }

    map $route $filter {
        ""       "";
        default  "FILTER smtp:$route";
    }

    policy_action  $action;

    server {
        listen    127.0.0.1:%%PORT_lookup%%;
        protocol  policy;
    }

    server {
        listen         127.0.0.1:%%PORT_class%%;
        protocol       policy;
        policy_action  $by_class;
    }

    server {
        listen         127.0.0.1:%%PORT_filter%%;
        protocol       policy;
        policy_action  $filter;
    }

    server {
        listen         127.0.0.1:%%PORT_field%%;
        protocol       policy;
        policy_action  "PREPEND X-From: <$sender> $client_host";
    }

    policy_lookup  $long  long:$sasl_username;

    server {
        listen         127.0.0.1:%%PORT_long%%;
        protocol       policy;
        policy_action  "PREPEND X-Long:$long$long$long$long";
    }

    server {
        listen         127.0.0.1:%%PORT_none%%;
        protocol       policy;
        policy_action  "";
    }

    server {
        listen         127.0.0.1:%%PORT_octets%%;
        protocol       policy;
        policy_limit   octets  key=$sender  bytes=10000/1h;
    }
}
EOF
$t->run_nginx();

my $n = 0;

# what is answered to a first question where Redis says this

sub says {
    my ($action, %attributes) = @_;

    my $sender = 's' . ++$n . '@example.com';
    $redis->cmd('SET', "mail:action:$sender", $action);

    my $p = MailPolicy::Policy->new($t, 'lookup');
    my $answer = $p->ask(sender => $sender, %attributes);
    $p->client()->close();
    return $answer;
}

sub is_counted {
    my ($count) = @_;

    local $Test::Builder::Level = $Test::Builder::Level + 1;

    is_used($redis, "and is charged $count", 'sender', "s$n\@example.com",
        messages => $count, recipients => $count, timeout => 5);
}

sub is_said {
    my ($action, $expected) = @_;

    local $Test::Builder::Level = $Test::Builder::Level + 1;

    my $name = substr($action, 0, 60) =~ s/[^ -~]/?/gr;

    is(says($action), $expected // $action, "\"$name\"");
}


# what passes is charged

my @PASS = ('FILTER smtp:[127.0.0.1]:25', 'REDIRECT bob@example.net',
    'BCC bob@example.net', 'HOLD', 'HOLD for later', 'INFO x', 'WARN',
    'PREPEND X-A: b', 'PREPEND X-A:', "PREPEND X-A : b\tc", 'filter x:y',
    "PREPEND X-A: \xc3\xa4", 'DUNNO', 'PREPEND X-Long: ' . 'x' x 1008);

for my $action (@PASS) {
    is_said($action);
    is_counted(1);
}

is_said('DUNNO whatever', 'DUNNO');
is_said(" \t FILTER x:y ", 'FILTER x:y ');
is_said('', 'DUNNO');
is_said('  ', 'DUNNO');
is_said('DEFER_IF_REJECT x', 'DEFER_IF_REJECT 4.7.1 x');
is_counted(1);

# what refuses is not; it has a status and a text, as "550" alone is OK, and
# 512 octets in all (OUT-4)

for my $case ([ 'REJECT' => 'REJECT 5.7.1 Access denied' ],
    [ 'REJECT no' => 'REJECT 5.7.1 no' ],
    [ 'reject 5.7.2' => 'reject 5.7.2 Access denied' ],
    [ 'REJECT 5.7.2 no' => 'REJECT 5.7.2 no' ],
    [ 'DEFER later' => 'DEFER 4.7.1 later' ],
    [ 'DEFER_IF_PERMIT' => 'DEFER_IF_PERMIT 4.7.1 Try again later' ],
    [ '550' => '550 5.7.1 Access denied' ],
    [ ' 550 ' => '550 5.7.1 Access denied' ],
    [ '550 no' => '550 5.7.1 no' ], [ '421 4.3.2 x' => '421 4.3.2 x' ],
    [ '450' => '450 4.7.1 Try again later' ],
    [ "REJECT n\xc3\xa4" => 'REJECT 5.7.1 n??' ],
    [ 'REJECT ' . 'x' x 600 => 'REJECT 5.7.1 ' . 'x' x 490 ],
    [ 'defer_if_permit ' . 'x' x 600 => 'defer_if_permit 4.7.1 ' . 'x' x 481 ])
{
    is_said(@$case);
    is_counted(0);
}


# what must not get out

sub is_wrong {
    my ($action, $why) = @_;

    local $Test::Builder::Level = $Test::Builder::Level + 1;

    is_said($action, 'DUNNO');
    is_counted(1);
}

is_wrong($_) for 'OK', 'ok', ' OK', "\tOK", 'OK fine', 'permit', 'PERMIT',
    'RELAY', '1', '250', '5500', '12345678901234567890', 'DISCARD',
    'discard x', 'permit_mynetworks', 'permit_sasl_authenticated',
    'reject_unauth_destination', 'DUNNO,OK', 'OK,REJECT', ',OK', 'x OK',
    'FILTER', 'FILTER x', 'BCC x', 'REDIRECT', 'PREPEND', 'PREPEND x',
    'PREPEND : x', 'PREPEND X A: b', 'HANGUP', 'DELAY 1h', 'greylist',
    "DUNNO\n\naction=OK", "HOLD\n\naction=OK", "PREPEND A: b\nB: c",
    "PREPEND A: b\r\n", "PREPEND A: b\rB: c", "HOLD\0", "OK\0", "HOLD \x7f",
    "HOLD \x1b[2J", "HOLD \xe4", "HOLD \xc3", "HOLD \xc2\x85",
    "HOLD \xed\xa0\x80";

my @said = $t->error_log() =~ /\[error\] .*(policy_action gave .*)/g;

is(scalar(@said), 1, 'it is logged, once a minute');
like($said[0], qr/^policy_action gave "OK", which would let mail pass that (?#
    )Postfix would not, answering DUNNO instead, in \S+:\d+ while /,
    'with what, why and where');


# of the same recipient, and of others

my $p = MailPolicy::Policy->new($t, 'lookup');

sub set {
    $redis->cmd('SET', 'mail:action:a@example.com', $_[0]);
    $redis->cmd('DEL', 'mail:used:sender:{a@example.com}');
    $p->message();
}

sub ask {
    my ($recipient, %more) = @_;
    return $p->ask(sender => 'a@example.com', recipient => $recipient, %more);
}

sub end {
    my ($state, $count) = @_;
    return ask('', protocol_state => $state, recipient_count => $count);
}

for my $action ('FILTER x:y', 'HOLD x', 'REDIRECT x@example.net') {
    set($action);
    is(ask($_), $action, "$action: to $_") for qw(a@b a@b c@b c@b a@b);
    is(end($_, 2), 'DUNNO', "$action: not at $_") for 'DATA',
        'END-OF-MESSAGE';
    is(ask('d@b'), $action, "$action: to another one");
}

for my $action ('PREPEND X: y', 'BCC x@example.net') {
    set($action);
    is(ask('a@b'), $action, "$action: once");
    is(ask($_), 'DUNNO', "$action: not to $_") for qw(a@b c@b c@b a@b);
    $redis->cmd('SET', 'mail:action:a@example.com', 'PREPEND X: z');
    is(ask('e@b'), 'PREPEND X: z', "$action: another text");
    is(ask('f@b'), 'DUNNO', "$action: which is said once, too");
    is(end('DATA', 5), 'DUNNO', "$action: not at DATA");

    $redis->cmd('SET', 'mail:action:a@example.com',
        lc($1) . " \t$2") if $action =~ /(\S+) (.*)/;
    is(ask('g@b'), 'DUNNO', "$action: as it is said otherwise");

    set($action);
    is(ask('a@b'), $action, "$action: in another message");
}

# over several connections, as Postfix may have; and where the answer is lost

sub elsewhere {
    my (%attributes) = @_;

    my $other = MailPolicy::Policy->new($t, 'lookup');
    $other->{instance} = $p->{instance};
    my $answer = $other->ask(sender => 'a@example.com', %attributes);
    $other->client()->close();
    return $answer;
}

set('PREPEND X: y');
is(ask('a@b'), 'PREPEND X: y', 'PREPEND, and another connection');
is(elsewhere(recipient => $_), 'DUNNO', 'it is not said again')
    for 'a@b', 'c@b', 'c@b';
is_used($redis, 'and charged once', 'sender', 'a@example.com',
    messages => 1, recipients => 2, timeout => 5);

set('FILTER x:y');
is(ask('a@b'), 'FILTER x:y', 'FILTER, and another connection');
is(elsewhere(recipient => $_), 'FILTER x:y', 'it is said again')
    for 'a@b', 'c@b', 'c@b';
is(elsewhere(protocol_state => $_, recipient_count => 2, recipient => ''),
    'DUNNO', "not at $_") for 'DATA', 'END-OF-MESSAGE';
is_used($redis, 'and charged once', 'sender', 'a@example.com',
    messages => 1, recipients => 2, timeout => 5);

set('PREPEND X: y');

my $gone = MailPolicy::Policy->new($t, 'lookup');
$gone->{instance} = $p->{instance};

$redis->signal('STOP');
$gone->client()->send_raw($gone->request(sender => 'a@example.com',
    recipient => 'a@b'));
sleep(0.1);
$gone->client()->reset();
sleep(0.1);
$redis->signal('CONT');

is(ask('a@b'), 'PREPEND X: y', 'an answer that is lost is said again');
is(ask('c@b'), 'DUNNO', 'and that one is not');

# where it is asked behind the recipients for the first time

for my $state ('DATA', 'END-OF-MESSAGE') {
    for my $action ('FILTER x:y', 'PREPEND X: y', 'HOLD') {
        set($action);
        is(end($state, 3), $state eq 'END-OF-MESSAGE' && $action =~ /PREP/
            ? 'DUNNO' : $action, "$action: at $state");
        is(end($state, 3), 'DUNNO', "$action: once at $state");
    }

    set('REJECT 5.7.2 x');
    is(end($state, 3), 'REJECT 5.7.2 x', "REJECT at $state") for 1, 2;
    MailPolicy::Limits::is_used($redis, 'charges nothing', 'sender',
        'a@example.com', timeout => 5, recipients => 0);
}

# a limit comes first; no other state is told; an edge's mail is

set('HOLD');
$p->message(), is(ask('a@b'), 'HOLD', "message $_") for 1 .. 3;
$p->message();
like(ask('a@b'), qr/^DEFER_IF_PERMIT 4\.7\.1 Rate limit/, 'a limit is first');
is($p->message()->ask(sender => 'a@example.com', protocol_state => $_),
    'DUNNO', "$_: nothing") for 'CONNECT', 'EHLO', 'MAIL', 'VRFY';

set('PREPEND X: y');
my @EDGE = (client_address => '192.0.2.5');
is(ask('a@b', @EDGE), 'PREPEND X: y', 'by an edge');
is(ask($_, @EDGE), 'DUNNO', 'by an edge: once') for 'a@b', 'c@b';
is(ask('', protocol_state => 'DATA', @EDGE), 'DUNNO', 'by an edge: at DATA');
$p->message();
is(ask('', protocol_state => 'DATA', @EDGE), 'PREPEND X: y',
    'by an edge: at DATA for the first time');
is_used($redis, 'by an edge: not charged', 'sender', 'a@example.com',
    messages => 0, timeout => 1);


# maps, several lookups, a field with variables, none

$redis->cmd('SET', 'mail:class:red@example.com', 'red');
$redis->cmd('SET', 'mail:class:blue@example.com', 'blue');
$redis->cmd('SET', 'mail:class:bad@example.com', "x\r\nX-Spam: no");
$redis->cmd('SET', 'mail:route:example.net', '[192.0.2.25]:2525');

sub at {
    my ($where, %attributes) = @_;
    return MailPolicy::Policy->new($t, $where)->ask(
        sender => 'x' . ++$n . '@example.com', %attributes);
}

is(at('class', sasl_username => "$_->[0]\@example.com"), $_->[1],
    "class of $_->[0]") for [ red => 'HOLD by class' ],
    [ blue => 'PREPEND X-Class: blue' ], [ green => 'DUNNO' ],
    [ bad => 'DUNNO' ];
is(at('filter', recipient => $_->[0]), $_->[1], "route of $_->[0]")
    for [ 'a@example.net' => 'FILTER smtp:[192.0.2.25]:2525' ],
        [ 'a@EXAMPLE.NET' => 'FILTER smtp:[192.0.2.25]:2525' ],
        [ 'a@example.org' => 'DUNNO' ], [ '' => 'DUNNO' ];
like(at('field'), qr/^PREPEND X-From: <x\d+\@example\.com> laptop\.example\.(?#
    )com$/, 'variables of the request');

# a line has 4096 octets at most

for my $case ([ 1018 => 'PREPEND X-Long:' . 'x' x 4072 ], [ 1019 => 'DUNNO' ])
{
    my ($octets, $expected) = @$case;

    $redis->cmd('SET', "mail:long:l$octets", 'x' x $octets);
    ok(at('long', sasl_username => "l$octets") eq $expected,
        "a field of 4 x $octets octets");
}

is(at('none'), 'DUNNO', 'none in this server');
is(at('lookup'), 'INFO none is set', 'the default of a lookup');

# octets that are charged at the end, and refused by nobody

$p = MailPolicy::Policy->new($t, 'octets');
set('HOLD');
is(ask('a@b', size => 10), 'HOLD', 'with octets');
is(ask('', protocol_state => 'END-OF-MESSAGE', recipient_count => 1,
    size => 9000), 'DUNNO', 'the rest of them');
is(MailPolicy::Limits::used($redis, 'octets', 'a@example.com', 'bytes'),
    9000, 'is charged');

# who is gone while a lookup is awaited, and no limit; and nginx that goes

for my $how ('reset', 'close') {
    my $waits = MailPolicy::Policy->new($t, 'lookup');

    $redis->signal('STOP');
    $waits->client()->send_raw($waits->request(@EDGE,
        sender => "$how\@example.com"));
    sleep(0.1);
    $waits->client()->$how();
    sleep(0.1);
    $redis->signal('CONT');
    is(at('lookup', @EDGE), 'INFO none is set', "$how: others are answered");
}

my $waits = MailPolicy::Policy->new($t, 'lookup');

$redis->signal('STOP');
$waits->client()->send_raw($waits->request(@EDGE,
    sender => 'reload@example.com'));
sleep(0.1);
ok($t->reload(), 'a reload while a lookup is awaited');
$redis->signal('CONT');
is($waits->answer(), 'INFO none is set', 'it is answered');

# the store is away: what is known, and defaults

$redis->cmd('SET', 'mail:action:known@example.com', 'HOLD');
is(at('lookup', @EDGE, sender => 'known@example.com'), 'HOLD', 'known');
$redis->stop();
is(at('lookup', @EDGE), 'INFO none is set', 'no Redis: the default');
like(at('lookup'), qr/^DEFER_IF_PERMIT 4\.3\.0 /, 'no Redis: limits');

$t->done();
