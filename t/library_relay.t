#!/usr/bin/perl

# The scripted relay and the client: what other tests rely on.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Test::More;
use Time::HiRes qw(sleep time);

use MailPolicy;

my $t = MailPolicy->new();
my $relay = $t->run_relay(name => 'relay');

my $c = session();

my @replies = $c->send_mail('a@example.com', [ 'b@example.net', 'c@d' ],
    "x\n.y\n");
is(scalar @replies, 5, 'a reply to each command and to the dot');
like($replies[-1], qr/^250 .*RELAY000001$/, 'queue id');

my ($message) = $relay->messages();
is($message->{from}, 'a@example.com', 'sender');
is_deeply($message->{rcpts}, [ 'b@example.net', 'c@d' ], 'recipients');
is($message->{raw}, "x\r\n..y\r\n.\r\n", 'content as received');
is($message->{data}, "x\r\n.y\r\n", 'content decoded');

# rules of a stage

$relay->set(
    mail => { times => 1, action => '451 4.3.0 once' },
    rcpt => [ { match => qr/bob@/, action => '450 4.2.0 no' },
              { match => qr/eve@/, action => 'close' } ]);

is($c->cmd('MAIL FROM:<>'), '451 4.3.0 once', 'the first time only');
like($c->cmd('MAIL FROM:<>'), qr/^250 /, 'and not the second');
@replies = $c->pipeline('RCPT TO:<bob@x>', 'RCPT TO:<al@x>', 'DATA');
is(join(' ', map { substr($_, 0, 3) } @replies), '450 250 354', 'by recipient');

# only CRLF.CRLF, however it is cut

$c->send_raw("a\nb\n.\nc\r\n.\n.\r");
is($c->read_reply(0.2), 'TIMEOUT', 'nothing else ends the content');
$c->send_raw("\n.\r\nRSET\r\n");
like($c->read_reply(), qr/^250 .*queued/, 'CRLF.CRLF does');
like($c->read_reply(), qr/^250 2\.0\.0 /, 'and what is behind is a command');
is(($relay->messages())[-1]{raw}, "a\nb\n.\nc\r\n.\n.\r\n.\r\n", 'to the octet');

$c->cmd('MAIL FROM:<>');
is($c->cmd('RCPT TO:<eve@x>'), 'CLOSED', 'closes at a recipient');
$relay->set(rcpt => undef);

# the final dot

my %outcome = (
    '452 4.3.1 full'              => qr/^452/,
    'close'                       => qr/^CLOSED$/,
    'rst'                         => qr/^CLOSED$/,
    '421 4.3.2 bye'               => qr/^421/,
);

for my $action (sort keys %outcome) {
    for my $delay (0, 0.2) {
        my $before = $relay->received();

        $relay->set(dot => $delay ? { delay => $delay, then => $action }
                                  : $action);
        $c = session();
        my $start = time();
        @replies = $c->send_mail('a@b', [ 'c@d' ], "x\n");

        like($replies[-1], $outcome{$action}, "dot: $action");
        cmp_ok(time() - $start, '>=', $delay, "after $delay s");
        is(scalar $relay->received(), $before + 1, 'received');
    }
}

is(scalar $relay->messages(), 2, 'and not accepted');

$relay->set(dot => 'hang');
$c = session();
$c->{timeout} = 0.3;
is(($c->send_mail('a@b', [ 'c@d' ], "x\n"))[-1], 'TIMEOUT', 'dot: hang');
$c->close();
$relay->set(dot => undef);

# in the content

$relay->set(body => { after => 100000, action => 'rst' });
is((session()->send_mail('a@b', [ 'c@d' ], 'x' x 300000))[-1], 'CLOSED',
    'body: rst');
$relay->set(body => { after => 10, delay => 0.3 });
like((session()->send_mail('a@b', [ 'c@d' ], 'x' x 3000))[-1], qr/^250/,
    'body: a pause');
$relay->set(body => undef);

# before the first command

$relay->set(greeting => { trickle => 0.01, then => "220-a\n220 b" });
is($t->client('relay')->greeting(), "220-a\n220 b", 'greeting: trickles');
$relay->set(greeting => 'garbage');
like($t->client('relay')->greeting(), qr/^\0\xff/, 'greeting: garbage');
$relay->set(greeting => '421 4.3.2 busy');
$c = $t->client('relay');
is($c->greeting(), '421 4.3.2 busy', 'greeting: 421');
ok($c->wait_close(), 'and the end');
$relay->set(greeting => undef, connect => 'refuse');
ok(!$t->client('relay')->connected(), 'connect: refused');
$relay->set(connect => undef);

# extensions

$relay->set(extensions => [ 'XCLIENT NAME LOGIN', 'AUTH PLAIN' ]);
$c = session();
like($c->cmd('XCLIENT LOGIN=a+40b NAME=[UNAVAILABLE]'), qr/^220/, 'XCLIENT');
$c->ehlo();
like($c->auth_plain('u', 'p'), qr/^235/, 'AUTH');
$c->send_mail('q@b', [ 'c@d' ], '');
$message = ($relay->messages())[-1];
is($message->{raw}, ".\r\n", 'a message without content');
is($message->{xclient}{LOGIN}, 'a@b', 'XCLIENT is decoded');
is($message->{auth}, 'AHUAcA==', 'the login is kept');

# a client that does not wait

is_deeply([ $relay->faults() ], [], 'no fault so far');
$c->pipeline('NOOP', 'NOOP');
$relay->set(data => { delay => 0.3, then => 'ok' });
$c->cmd('MAIL FROM:<>');
$c->cmd('RCPT TO:<a@b>');
$c->send_raw("DATA\r\n");
sleep(0.1);
$c->send_raw("x\r\n.\r\n");
like($c->read_reply(), qr/^354/, 'DATA');
is_deeply([ $relay->faults() ],
    [ 'octets before the reply to NOOP', 'octets before the reply to DATA' ],
    'commands without PIPELINING, content before 354');

$t->done(faults => 0);


sub session {
    my $client = $t->client('relay');

    $client->greeting();
    $client->ehlo();
    return $client;
}
