#!/usr/bin/perl

# "protocol policy": each message that Postfix accepts is charged once, with
# all its recipients and all its octets, whatever was declared or refused
# before; and one that is refused at DATA or at its end is not.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Test::More;
use Time::HiRes qw(sleep);

use MailPolicy;
use MailPolicy::Limits qw(is_used used);
use MailPolicy::Policy;

my $t = MailPolicy->new();
my $redis = $t->run_redis();
my $relay = $t->run_relay(name => 'relay');

$t->conf(<<'EOF');
mail {
    policy_redis  redis://127.0.0.1:%%PORT_redis%% timeout=5s on_error=closed;

    policy_lookup  $class  class:$sasl_username;

    upstream elsewhere { server 127.0.0.1:%%PORT_relay%%; }

    map $sender_domain $tell    { tell.example    $sender; }
    map $sender_domain $relay   { relay.example   $sender; }
    map $sender_domain $slow    { slow.example    $sender; }
    map $sender_domain $attempt { attempt.example $sender; }

    server {
        listen    127.0.0.1:%%PORT_policy%%;
        listen    unix:%%DIR%%/policy.sock;
        protocol  policy;

        policy_limit  user  key=$sasl_username  messages=100/1h
                            recipients=10/1h bytes=1m/1h
                            "message=$class says no";
        policy_limit  pair  key=$sasl_username/$recipient  bytes=10m/1h;
        policy_limit  few   key=$sender/$recipient_domain  messages=1/1h;
        policy_limit  tell  key=$tell   bytes=1000/1h on_exceed=report;
        policy_limit  away  key=$relay  bytes=1000/1h on_exceed=relay:elsewhere;
        policy_limit  slow  key=$slow   bytes=4000/1s on_exceed=tarpit;
        policy_limit  try   key=$attempt  messages=9/1h recipients=90/1h
                            bytes=1m/1h charge=attempt;
    }

    server {
        listen    127.0.0.1:%%PORT_plain%%;
        protocol  policy;

        policy_limit  plain  key=$sasl_username  messages=100/1h
                             recipients=10/1h;
    }
}
EOF
$t->run_nginx();

my $p = MailPolicy::Policy->new($t, 'policy');
my $login;


# the questions of a message of $login

sub begin {
    my ($name) = @_;

    $login = "$name\@example.com";
    $p->message();
}

sub rcpt {
    my ($rcpt, %more) = @_;

    return $p->ask(sasl_username => $login, sender => '',
        recipient => "$rcpt\@example.net", %more);
}

sub later {
    my ($state, $count, $size, %more) = @_;

    return $p->ask(sasl_username => $login, sender => '',
        recipient => $count == 1 ? 'r1@example.net' : '',
        protocol_state => $state, recipient_count => $count, size => $size,
        %more);
}

sub data { return later('DATA', @_) }
sub end { return later('END-OF-MESSAGE', @_) }

sub is_charged {
    my ($messages, $recipients, $bytes, $what, %more) = @_;

    local $Test::Builder::Level = $Test::Builder::Level + 1;
    is_used($redis, "$login: $what", $more{limit} // 'user', $login,
        messages => $messages, recipients => $recipients, bytes => $bytes,
        timeout => 5);
}

my $deferred = qr/^DEFER_IF_PERMIT 4\.7\.1 /;


# octets that nobody declared

begin('none');
$redis->cmd('SET', "mail:class:$login", 'Gold');
is(rcpt("r$_"), 'DUNNO', "nothing declared, recipient $_") for 1, 2;
is_charged(1, 2, 1, 'an octet');
is(data(2, 0), 'DUNNO', 'DATA');
is_charged(1, 2, 1, 'no more');
is(end(2, 900_000), 'DUNNO', 'at the end it has some');
is_charged(1, 2, 900_000, 'all of them');
is(end(2, 900_000), 'DUNNO', 'another restriction asks');
is_charged(1, 2, 900_000, 'and nothing is charged');
is(used($redis, 'pair', "$login/r$_\@example.net", 'bytes'), 900_000,
    "for recipient $_, too") for 1, 2;

# too many of them

begin('none');
is(rcpt("r$_"), 'DUNNO', "the next message, recipient $_") for 1, 2;
is_charged(2, 4, 900_001, 'is charged to begin with');
like(end(2, 200_000), qr/^DEFER_IF_PERMIT 4\.7\.1 Gold says no$/,
    'its octets do not fit');
is_charged(1, 2, 900_000, 'it is given back');
is(used($redis, 'pair', "$login/r$_\@example.net", 'bytes'), 900_000,
    "recipient $_, too") for 1, 2;
like(end(2, 200_000), qr/ Gold says no$/, 'another restriction is told the same');
is_charged(1, 2, 900_000, 'nothing is charged');
is(data(2, 0), 'DUNNO', 'DATA again, without another MAIL');
is(end(2, 50_000), 'DUNNO', 'and octets that fit');
is_charged(2, 4, 950_000, 'are charged');

begin('none');
is(rcpt('r1'), 'DUNNO', 'another one that fits');
is(end(1, 50_000), 'DUNNO', 'passes');
is_charged(3, 5, 1_000_000, 'and is charged');

begin('huge');
is(rcpt('r1'), 'DUNNO', 'one that will never fit');
like(end(1, 2_000_000), qr/^REJECT 5\.3\.4 /, 'is rejected at its end');
is_charged(0, 0, 0, 'and given back');

# what was declared

begin('declared');
is(rcpt("r$_", size => 500), 'DUNNO', "500 octets declared, recipient $_")
    for 1 .. 3;
is_charged(1, 3, 500, 'and charged');
is(end(3, 1234), 'DUNNO', 'they are more');
is_charged(1, 3, 1234, 'the rest, too');

begin('declared');
is(rcpt('r1', size => 5000), 'DUNNO', '5000 octets declared');
is(end(1, 10), 'DUNNO', 'they are less');
is_charged(2, 4, 6234, 'what was declared stands');

begin('data');
is(data(3, 100), 'DUNNO', 'declared, and asked at DATA alone');
is(end(3, 700), 'DUNNO', 'and at the end');
is_charged(1, 3, 700, 'once');

# should a message go on that somebody else has refused at its end: Postfix
# accepts it once at the most

begin('again');
is(end(2, 300), 'DUNNO', 'the end alone');
is(data(2, 0), 'DUNNO', 'DATA again');
is(end(2, 400), 'DUNNO', 'and another end');
is(end(2, 350), 'DUNNO', 'and one with less');
is_charged(1, 2, 400, 'one message, of the most octets');
is(end(3, 500), 'DUNNO', 'one more recipient');
is_charged(1, 3, 500, 'is charged');
like(end(3, 2_000_000), qr/^REJECT 5\.3\.4 /, 'more than will ever fit');
is_charged(0, 0, 0, 'all is given back');
like(end(3, 500), qr/^REJECT 5\.3\.4 /, 'which holds for a while');


# recipients that were not asked for, and those that come when DATA was
# refused by somebody else

begin('more');
is(rcpt('r1'), 'DUNNO', 'one recipient is asked for');
is(data(3, 0), 'DUNNO', 'DATA has three');
is_charged(1, 3, 1, 'all are charged');
is(data(3, 0), 'DUNNO', 'asked again');
is_charged(1, 3, 1, 'but once');
is(data(5, 0), 'DUNNO', 'two more');
is_charged(1, 5, 1, 'are charged');
like(data(11, 0), $deferred, 'more than are left');
is_charged(0, 0, 0, 'it is not a message then');
is(rcpt('r1'), 'DUNNO', 'it tries again');
is(end(10, 100), 'DUNNO', 'with what there is room for');
is_charged(1, 10, 100, 'which is charged');

# where octets do not count, nothing is held

$p = MailPolicy::Policy->new($t, 'plain');

begin('plain');
is(rcpt("r$_"), 'DUNNO', "no octets, recipient $_") for 1, 2;
is(end(4, 5000), 'DUNNO', 'more of them at the end');
is_charged(1, 4, 0, 'are charged', limit => 'plain');

begin('plain');
is(rcpt('r1'), 'DUNNO', 'another message');
like(end(7, 5000), $deferred, 'of too many at the end');
is_charged(2, 5, 0, 'what was answered before stands', limit => 'plain');

$p = MailPolicy::Policy->new($t, $t->dir() . '/policy.sock');


# limits that do not refuse

begin('tell');
my @TELL = (sender => 'a@tell.example');
is(rcpt('r1', @TELL), 'DUNNO', 'octets that are only reported');
is(end(1, 5000, @TELL), 'DUNNO', 'pass');
is_charged(1, 1, 5000, 'under the others');

begin('away');
my @AWAY = (sender => 'a@relay.example');
is(rcpt('r1', @AWAY), 'DUNNO', 'octets that should go elsewhere');
is(end(1, 5000, @AWAY), 'DUNNO', 'pass');
is_used($redis, 'what was left is charged', 'away', 'a@relay.example',
    timeout => 5, bytes => 1000);

begin('slow');
my @SLOW = (sender => 'a@slow.example');
is(rcpt('r1', size => 3000, @SLOW), 'DUNNO', 'octets that fit');
is(rcpt('r2', size => 500, @SLOW, instance => 'slow',
    recipient => 'r2@example.org'), 'DUNNO', 'and more');
is(end(1, 2000, @SLOW, instance => 'slow'), 'DUNNO', 'wait, and pass');
is_charged(2, 2, 5000, 'under the others');


# a refused recipient, then another one: one attempt

begin('attempt');
my @TRY = (sender => 'a@attempt.example');
is(rcpt('r1', @TRY), 'DUNNO', 'a message');
begin('attempt');
like(rcpt("r$_", @TRY), $deferred, "the next one, recipient $_") for 1 .. 3;
is(rcpt('r4', @TRY, recipient => 'r4@example.org'), 'DUNNO', 'another domain');
is_used($redis, 'attempts: two messages', 'try', 'a@attempt.example',
    messages => 2, recipients => 2, timeout => 5);
is(end(1, 1000, @TRY), 'DUNNO', 'its end');
is_used($redis, 'attempts: octets, and those that were not accepted', 'try',
    'a@attempt.example', messages => 2, recipients => 2, bytes => 1004,
    timeout => 5);


# the answer at the end does not get there: it is not accepted

for my $how ('reset', 'close') {
    begin("lost-$how");
    is(rcpt("r$_"), 'DUNNO', "$how: recipient $_") for 1, 2;
    is_charged(1, 2, 1, 'charged');

    $redis->signal('STOP');
    $p->client()->send_raw($p->request(sasl_username => $login,
        recipient => '', sender => '', protocol_state => 'END-OF-MESSAGE',
        recipient_count => 2, size => 5000));
    sleep(0.1);
    $p->client()->$how();
    sleep(0.1);
    $redis->signal('CONT');

    is_charged(0, 0, 0, 'gone at its end: given back');
    $p = MailPolicy::Policy->new($t, $t->dir() . '/policy.sock');
}

# who goes away between two questions may have sent it

begin('left');
is(rcpt('r1'), 'DUNNO', 'a message');
$p->client()->close();
sleep(0.2);
is_charged(1, 1, 1, 'who goes away without a word: it stands');

# so it does when another one begins, or nginx reloads

$p = MailPolicy::Policy->new($t, 'policy');
begin('next');
is(rcpt('r1'), 'DUNNO', 'a message');
$p->message();
is(end(1, 10), 'DUNNO', 'and the end of another one');
is_charged(2, 2, 11, 'both stand');
$p->message();
is(rcpt('r1'), 'DUNNO', 'a third one');
$t->reload();
ok($p->is_closed(), 'nginx reloads');
is_charged(3, 3, 12, 'all stand');

# no memory of it behind the end: Redis has nothing to give back later

is_deeply([ grep { $redis->cmd('PTTL', $_) == -1 && /^mail:used/ }
    $redis->keys('*') ], [], 'no counter stays for ever');

$t->done();
