#!/usr/bin/perl

# "protocol policy" and clients that are not Postfix: OUT-5 bounds, OUT-6 what
# is missing, doubled, unknown or no text at all; requests in pieces, in
# floods, unfinished, unread.  Trouble is logged, and ends in a closed
# connection and no answer.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Errno ();
use Test::More;
use Time::HiRes qw(sleep time);

use MailPolicy;
use MailPolicy::Limits qw(is_used);
use MailPolicy::Policy;

my $t = MailPolicy->new();
my $redis = $t->run_redis();

$t->conf(<<'EOF');
mail {
    policy_redis  redis://127.0.0.1:%%PORT_redis%% timeout=5s on_error=closed;
    policy_limit  user  key=$sasl_username  messages=100000/1h
                        recipients=100000/1h;
    timeout       1s;

    server {
        listen    127.0.0.1:%%PORT_policy%%;
        listen    unix:%%DIR%%/policy.sock;
        protocol  policy;
    }

    server {
        listen    unix:%%DIR%%/small.sock sndbuf=4k;
        protocol  policy;
    }
}
EOF
$t->run_nginx();


sub policy { return MailPolicy::Policy->new($t, 'policy') }


# closed without a word, and logged

sub refused {
    my ($name, $octets, $logged) = @_;

    my $p = policy();
    my $known = length $t->error_log();

    $p->client()->send_raw($octets);
    ok($p->is_closed(), "$name: closed without an answer");
    like(substr($t->error_log(), $known), $logged, "$name: logged");
}

my $good = policy()->request();
my $lines = () = $good =~ /\n/g;

# OUT-5

sub filled {
    my ($size, $line) = @_;

    my $text = substr($good, 0, -1);
    $text .= 'x=' . ('y' x ($line - 3)) . "\n"
        while length($text) + $line + 3 < $size;

    return $text . 'z=' . ('y' x ($size - length($text) - 4)) . "\n\n";
}

sub answers {
    my ($name, $octets) = @_;

    my $p = policy();
    $p->client()->send_raw($octets);
    is($p->answer(), 'DUNNO', "$name: answered");
}

answers('OUT-5 a line of 4096', $good =~ s/^\n/'x=' . 'y' x 4093 . "\n\n"/mer);
refused('OUT-5 a line of 4097', $good =~ s/^\n/'x=' . 'y' x 4094 . "\n\n"/mer,
    qr/\[error\] .*request with a line of more than 4096 octets, closing/);
refused('OUT-5 a line without end', 'x=' . 'y' x 5000,
    qr/a line of more than 4096 octets/);
answers('OUT-5 128 attributes', ("x=\n" x (129 - $lines)) . $good);
refused('OUT-5 129 attributes', ("x=\n" x (130 - $lines)) . $good,
    qr/more than 128 attributes/);
answers('OUT-5 64 KiB', filled(65536, 1000));
refused('OUT-5 more than 64 KiB', filled(65537, 1000),
    qr/more than 65536 octets/);

# OUT-6

refused('OUT-6 no request=', $good =~ s/^request=.*\n//mr,
    qr/request without "request=smtpd_access_policy", closing/);
refused('OUT-6 another request', $good =~ s/^request=/$&x/mr, qr/without "req/);
refused('OUT-6 nothing at all', "\n", qr/without "request=/);
refused('OUT-6 a NUL', $good =~ s/^helo_name=/$&\0/mr, qr/request with a NUL/);
refused('OUT-6 no name', $good =~ s/^helo_name//mr, qr/no "name=value"/);
refused('OUT-6 no value', $good =~ s/^(helo_name)=.*/$1/mr,
    qr/no "name=value"/);
refused('OUT-6 CRLF', $good =~ s/\n/\r\n/gr, qr/no "name=value"/);
refused('OUT-6 SMTP', "EHLO client.example\r\nMAIL FROM:<a\@b>\r\n",
    qr/no "name=value"/);
refused('OUT-6 HTTP', "GET / HTTP/1.1\r\n\r\n", qr/no "name=value"/);

my $p = policy();

is($p->ask(sasl_username => "first\@example.com\nsasl_username=second"),
    'DUNNO', 'OUT-6 a doubled attribute');
is_used($redis, 'OUT-6 the first one counts', 'user', 'first@example.com',
    messages => 1, timeout => 5);
is($p->message()->ask(no_such_attribute => '=', stress => 'yes'), 'DUNNO',
    'OUT-6 unknown ones');

for my $odd ('protocol_state', 'instance', 'client_address', 'sender',
    'recipient', 'protocol_name', 'helo_name')
{
    is($p->message()->ask($odd => $_), 'DUNNO', "OUT-6 an odd $odd")
        for undef, '', "\xff\x01 %s {x}", 'y' x 4000;
}

is($p->message()->ask(sasl_username => 'big@example.com', size => $_,
    recipient_count => $_, protocol_state => 'DATA'), 'DUNNO',
    "OUT-6 a number that is none: $_") for -1, 'x', '';
like($p->message()->ask(sasl_username => 'huge@example.com', size => $_,
    recipient_count => $_, protocol_state => 'DATA'), qr/^DEFER_IF_PERMIT 4\.7\.1 /,
    "OUT-6 a number that is large: $_") for '9' x 30, '18446744073709551617';


# in pieces, and many at once

my $request = $p->message()->request(sasl_username => 'pieces@example.com');

for my $cut (1 .. length($request) - 1) {
    $p->client()->send_raw(substr($request, 0, $cut));
    sleep(0.001) if $cut % 8 == 0;
    $p->client()->send_raw(substr($request, $cut));
    $p->answer() eq 'DUNNO' or fail("cut at $cut");
}

pass('cut in two anywhere');

for my $octet (split //, $request) {
    $p->client()->send_raw($octet);
}

is($p->answer(), 'DUNNO', 'an octet at a time');
is_used($redis, 'the same message all the time', 'user', 'pieces@example.com',
    messages => 1, timeout => 5);

my $many = join('', map { $p->message()->request(
    sasl_username => 'many@example.com') } 1 .. 500);

$p->client()->send_raw($many);
is(scalar(grep { $p->answer() eq 'DUNNO' } 1 .. 500), 500,
    '500 requests at once');
is_used($redis, 'each is charged', 'user', 'many@example.com',
    messages => 500, timeout => 5);


# who asks for a message again and again

$p->message();
is(scalar(grep { $p->ask(sasl_username => 'same@example.com',
    recipient => "r$_\@example.net") ne 'DUNNO' } 1 .. 4200), 0,
    'questions without end for one message');
is_used($redis, 'are for another one after 4096', 'user', 'same@example.com',
    messages => 2, recipients => 4200, timeout => 5);


# large ones: what a question needs is not kept for those that follow

my ($worker) = $t->worker_pids();

sub memory {
    my ($kb) = $t->read_file("/proc/$worker/status") =~ /^RssAnon:\s+(\d+)/m;
    return $kb;
}

sub large {
    my ($class, $n) = @_;

    return scalar(grep { $p->ask(sasl_username => "$class\@example.com",
        sender => 'a@' . 'y' x 3900, recipient => "r$_@" . 'x' x 3900)
        ne 'DUNNO' } 1 .. $n);
}

SKIP: {
    skip('AddressSanitizer', 2)
        if $t->read_file("/proc/$worker/maps") =~ /asan/;

    large('large', 100);
    my $first = memory();
    is(large('large', 2000), 0, 'large questions for one message');
    cmp_ok(memory() - $first, '<', 2048, 'which do not add up');
}


# who does not finish, and who goes away

my $before = time();
$p = policy();
$p->client()->send_raw(substr($request, 0, 50));

for (1 .. 4) {
    sleep(0.2);
    $p->client()->send_raw('x');
}

ok($p->is_closed(), 'a request that does not end: closed');
cmp_ok(time() - $before, '<', 3, 'in time, though octets come');

$redis->signal('STOP');

for my $how ('reset', 'close') {
    $p = policy();
    $p->client()->send_raw($p->request(sasl_username => "$how\@example.com"));
    sleep(0.1);
    $p->client()->$how();
}

is(policy()->ask(), 'DUNNO', 'who asks nothing of Redis does not wait for it');
$redis->signal('CONT');
is(policy()->ask(sasl_username => 'x@example.com'), 'DUNNO',
    'nor for those who have gone');


# who is gone before the answer is written pays nothing

$p = policy();
is($p->ask(sasl_username => 'gone@example.com'), 'DUNNO', 'a message');

for my $case ('reset', 'close', 'close unix') {
    my ($how, $unix) = split / /, $case;

    $redis->signal('STOP');
    $p = $unix ? MailPolicy::Policy->new($t, $t->dir() . '/policy.sock')
        : policy();
    $p->client()->send_raw($p->request(sasl_username => 'gone@example.com'));
    sleep(0.1);
    $p->client()->$how();
    sleep(0.1);
    $redis->signal('CONT');
    sleep(0.3);

    is_used($redis, "$case: the answer does not get there, nothing is charged",
        'user', 'gone@example.com', messages => 1, recipients => 1,
        timeout => 2);
}

# who shuts down one side waits for it

$p = policy();
$p->client()->send_raw($p->request(sasl_username => 'half@example.com'));
shutdown($p->client()->socket(), 1);
is($p->answer(), 'DUNNO', 'a client that has no more to ask');
is_used($redis, 'is charged', 'user', 'half@example.com', messages => 1,
    recipients => 1, timeout => 5);


# who does not read

my $plain = policy()->request();
$p = MailPolicy::Policy->new($t, $t->dir() . '/small.sock');

for (my $end = time() + 10; time() < $end; sleep(0.001)) {
    last if !defined syswrite($p->client()->socket(), $plain x 100)
        && !$!{EAGAIN};
}

ok($!{ECONNRESET} || $!{EPIPE}, 'who does not read is closed after a while')
    or diag("$!");


# a reload: who waits is let go, and asks again

my @idle = map { policy() } 1 .. 3;
is($_->ask(), 'DUNNO', 'before a reload') for @idle;

$t->reload();
ok($_->is_closed(), 'a reload closes what is idle') for @idle;
is(policy()->ask(), 'DUNNO', 'and answers what comes');

# one that waits for Redis has its answer

$p = policy();
is($p->ask(sasl_username => 'w@example.com'), 'DUNNO', 'Redis is there');
$redis->signal('STOP');
$p->client()->send_raw($p->message()->request(
    sasl_username => 'w@example.com'));
sleep(0.1);
$t->reload();
is($p->answer(0.1), '', 'a reload: a question that waits goes on to wait');
$redis->signal('CONT');
is($p->answer(), 'DUNNO', 'and has its answer');
ok($p->is_closed(), 'then the connection is closed');


# Redis away

$redis->stop();
like(policy()->ask(sasl_username => 'a@example.com'),
    qr/^DEFER_IF_PERMIT 4\.3\.0 Temporary server problem/,
    'no Redis, on_error=closed');
is(policy()->ask(), 'DUNNO', 'no Redis, no limit');

$t->done();
