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

# chunks

my @MODERN = ('PIPELINING', 'SIZE', '8BITMIME', 'BINARYMIME', 'CHUNKING',
    'SMTPUTF8', 'DSN');

$relay->set(data => undef, extensions => \@MODERN);
$c = session();
$c->pipeline('MAIL FROM:<a@b> BODY=BINARYMIME RET=HDRS ENVID=x SIZE=99',
    'RCPT TO:<c@d> NOTIFY=NEVER', 'RCPT TO:<e@f>');
$c->send_raw("BDAT 9\r\n.\r\n\0\r\n.\r\nBDAT 1 LAST\r\n\nNOOP\r\n");
is(join(' ', map { substr($c->read_reply(), 0, 3) } 1 .. 3), '250 250 250',
    'a reply to each chunk, and a command behind the last');
$message = ($relay->messages())[-1];
is($message->{data}, ".\r\n\0\r\n.\r\n\n", 'BDAT: octets as they are');
ok($message->{bdat}, 'BDAT: said to be one');
is_deeply($message->{chunks}, [ 9, 1 ], 'BDAT: sizes');
is($message->{mail_parameters}, 'BODY=BINARYMIME RET=HDRS ENVID=x SIZE=99',
    'parameters of MAIL');
is_deeply($message->{rcpt_parameters}, [ 'NOTIFY=NEVER', '' ],
    'parameters of each RCPT');

envelope();
like($c->cmd('BDAT 0 LAST'), qr/^250 .*queued/, 'BDAT: no octets');
is(($relay->messages())[-1]{data}, '', 'BDAT: empty');

envelope();
$c->send_raw($_) for "BDAT 3\r\n", 'a', "\r", "\n", "BDAT 300000 LAST\r\n",
    'x' x 300_000;
$c->read_reply() for 1 .. 2;
is(length(($relay->messages())[-1]{data}), 300_003, 'BDAT: a large chunk');

# chunks that are refused are read all the same

my $count = $relay->received();
like($c->cmd("BDAT 6 LAST\r\nQUIT"), qr/^503 /, 'BDAT: no MAIL');
$c->cmd('MAIL FROM:<a@b>');
like($c->cmd("BDAT 6 LAST\r\nQUIT"), qr/^554 /, 'BDAT: no RCPT');
$c->cmd('RSET');

$relay->set(bdat => { match => qr/ 3$/, action => '452 4.3.1 full' });
envelope();
$c->send_raw("BDAT 2\r\n\r\nBDAT 3\r\nab\nBDAT 2\r\n\r\nBDAT 1 LAST\r\nx");
is(join(' ', map { substr($c->read_reply(), 0, 3) } 1 .. 4), '250 452 503 503',
    'BDAT: refused, and what was in the pipeline');
$c->cmd('RSET');
is(scalar $relay->received(), $count, 'and no message');

$relay->set(bdat => undef, dot => '554 5.6.0 no');
envelope();
is($c->cmd('BDAT 2 LAST' . "\r\n"), '554 5.6.0 no', 'the last: as the dot');
$relay->set(dot => undef);
is(scalar $relay->received(), $count + 1, 'BDAT: received');
ok(!($relay->received())[-1]{accepted}, 'BDAT: not accepted');

for my $action (qw(close rst)) {
    $relay->set(body => { after => 5, action => $action });
    envelope();
    $c->send_raw("BDAT 4\r\nab\r\nBDAT 4 LAST\r\nab\r\n");
    like($c->read_reply(), qr/^250 /, 'BDAT: the first chunk passes');
    is($c->read_reply(), 'CLOSED', "body of chunks: $action");
    $c = session();
}

$relay->set(body => { after => 5, delay => 0.2 });
envelope();
my $start = time();
$c->send_raw("BDAT 4\r\nab\r\nBDAT 4 LAST\r\nab\r\n");
like($c->read_reply(), qr/^250 .*4 octets/, 'body of chunks: a pause');
like($c->read_reply(), qr/^250 .*queued/, 'and the end');
cmp_ok(time() - $start, '>=', 0.2, 'behind it');
$relay->set(body => undef);

# what was not offered

my $faults = 2;

is(new_faults(), '', 'BDAT: nothing of that was a fault');
envelope();
$c->cmd("BDAT 0");
like($c->cmd('RCPT TO:<e@f>'), qr/^503 /, 'RCPT after BDAT');
like($c->cmd('DATA'), qr/^503 /, 'DATA after BDAT');
like($c->cmd('BDAT 0 LAST'), qr/^503 /, 'which fails the transaction');
$c->cmd('RSET');
$c->pipeline('MAIL FROM:<a@b> BODY=BINARYMIME', 'RCPT TO:<c@d>');
like($c->cmd('DATA'), qr/^503 /, 'DATA with BINARYMIME');
like($c->cmd('BDAT x'), qr/^501 /, 'BDAT without a size');
is($c->read_reply(), 'CLOSED', 'and the end');
is(new_faults(), 'RCPT after BDAT, DATA after BDAT, DATA with BINARYMIME, '
    . 'BDAT that cannot be read', 'faults of order');

$relay->set(extensions => [ 'CHUNKING' ]);
$c = session();
$c->cmd($_) for 'MAIL FROM:<a@b>', 'RCPT TO:<c@d>';
$c->send_raw("BDAT 2\r\n\r\nBDAT 2 LAST\r\n\r\n");
$c->read_reply() for 1 .. 2;
is(new_faults(), 'octets before the reply to BDAT', 'BDAT in a pipeline');

$relay->set(extensions => []);
$c = session();
like($c->cmd("BDAT 6\r\nQUIT"), qr/^503 /, 'BDAT not offered');

for my $parameters ('BODY=8BITMIME', 'BODY=BINARYMIME', 'SMTPUTF8 SMTPUTF8',
    'SIZE=1', 'RET=FULL', 'ENVID=x', 'AUTH=<>', 'X=y')
{
    $c->cmd("MAIL FROM:<a\@b> $parameters");
    $c->cmd('RSET');
}

$c->cmd("RCPT TO:<a\@b> $_") for 'NOTIFY=NEVER', 'ORCPT=rfc822;x';

is(new_faults(), join(', ', 'BDAT without CHUNKING',
    map({ "MAIL: $_" } 'BODY=8BITMIME without 8BITMIME',
        'BODY=BINARYMIME without BINARYMIME',
        'BODY=BINARYMIME without CHUNKING',
        ('SMTPUTF8 without SMTPUTF8') x 2, 'SMTPUTF8 twice',
        'SIZE without SIZE', 'RET without DSN', 'ENVID without DSN',
        'AUTH without AUTH', 'unknown parameter X'),
    'RCPT: NOTIFY without DSN', 'RCPT: ORCPT without DSN'),
    'parameters that were not offered');

$relay->set(extensions => \@MODERN);
$c = session();
$c->pipeline("MAIL FROM:<\xc3\xa4\@b>", "RCPT TO:<\xc3\xa4\@b>", 'RSET');
is(new_faults(), 'MAIL: octets above 127 without SMTPUTF8, '
    . 'RCPT: octets above 127 without SMTPUTF8', 'addresses: not ASCII');
$c->pipeline("MAIL FROM:<\xc3\xa4\@b> SMTPUTF8", "RCPT TO:<\xc3\xa4\@b>");
is(new_faults(), '', 'addresses: with SMTPUTF8');

$t->done(faults => 0);


sub envelope { $c->pipeline('MAIL FROM:<a@b>', 'RCPT TO:<c@d>') }

sub new_faults {
    my @faults = $relay->faults();
    my @new = @faults[$faults .. $#faults];

    $faults = @faults;
    return join(', ', @new);
}


sub session {
    return $t->session('relay');
}
