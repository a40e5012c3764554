#!/usr/bin/perl

# A session and its transactions, by their ids: what one leaves to the next
# (STATE-1, STATE-2, STATE-4), the null sender (RELAY-4), MAIL where it does not
# belong (STATE-5), DATA without recipients (STATE-8), control characters
# (STATE-12), who does not speak SMTP (STATE-9), limits that grant nothing
# (RELAY-8).

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Test::More;

use MailPolicy;

my $t = MailPolicy->new();
my $relay = $t->run_relay(name => 'relay');
my $other = $t->run_relay(name => 'other');

$t->write_file('users', "alice\@example.com:{PLAIN}secret\n");

$t->conf(<<'EOF');
mail {
    server_name   edge.example.com;
    access_log    %%DIR%%/access.log;
    policy        on;
    policy_auth   off;
    proxy_pass    127.0.0.1:%%PORT_relay%%;

    map $sender_domain $route {
        default        127.0.0.1:%%PORT_relay%%;
        other.example  127.0.0.1:%%PORT_other%%;
    }

    server {
        listen        127.0.0.1:%%PORT_smtp%%;
        protocol      smtp;
        proxy_pass    $route;
        policy_limit  twice  key=$sender  messages=2/1h  recipients=3/1h;
    }

    server {
        listen               127.0.0.1:%%PORT_plain%%;
        protocol             smtp;
        policy_message_size  200k;
        max_errors           100;
    }

    server {
        listen    127.0.0.1:%%PORT_strict%%;
        protocol  smtp;
    }

    server {
        listen                 127.0.0.1:%%PORT_auth%%;
        protocol               smtp;
        policy_auth            file:%%DIR%%/users;
        policy_auth_plaintext  on;
        policy_limit  all  key=$remote_addr  messages=unlimited
                           recipients=unlimited;
    }
}
EOF
$t->run_nginx();

my $MAIL = 'MAIL FROM:<a@example.com>';
my $RCPT = 'RCPT TO:<b@example.net>';


sub session {
    my ($where) = @_;

    return $t->session($where // 'plain');
}


sub codes { return join(' ', map { substr($_, 0, 3) } @_) }


sub message {
    my ($c, $from, @to) = @_;

    return codes($c->send_mail($from, @to ? \@to : [ 'b@example.net' ], "x\n"));
}


# STATE-1: whatever a message was told, and by whom

my $c = session();

for my $case ([ '250', "x\r\n" ], [ '450', "x\r\n" ], [ '554', "x\r\n" ],
    [ '554', "a\nb\r\n" ], [ '552', join('', ('x' x 998 . "\r\n") x 300) ])
{
    my ($code, $octets) = @$case;
    my $name = "STATE-1 $code to " . length($octets) . ' octets';

    $relay->set(dot => "$code 0.0.0 x") if $octets eq "x\r\n";
    $c->pipeline($MAIL, $RCPT, 'DATA');
    $c->send_raw("$octets.\r\n");
    like($c->read_reply(), qr/^$code /, $name);
    is(codes(map { $c->cmd($_) } $RCPT, 'DATA', 'RSET'), '503 503 250',
        "$name: no envelope is left");
    $relay->set(dot => undef);
}

# STATE-2: a chunk that is refused is the end of it

for my $last ('', ' LAST') {
    my $chunk = 'x' x 300_000;

    $c->pipeline($MAIL, $RCPT);
    $c->send_raw('BDAT ' . length($chunk) . "$last\r\n$chunk");
    like($c->read_reply(), qr/^552 5\.3\.4 /, "STATE-2 a chunk$last too large");
    is(codes(map { $c->cmd($_) } 'DATA', $RCPT, 'NOOP'), '503 503 250',
        "STATE-2 a chunk$last too large: no envelope is left");
    is(message($c, 'a@example.com'), '250 250 354 250',
        "STATE-2 a chunk$last too large: the next message");
}

$c->quit();

# STATE-4: verdicts, routes and counts are a transaction's

my $whole = '250 250 354 250';

$c = session('smtp');

is(message($c, 'a@example.com'), $whole, 'STATE-4 the first message');
is(message($c, 'a@example.com', map { "r$_\@example.net" } 1 .. 3),
    '250 250 250 450 354 250', 'STATE-4 of a second, a recipient is refused');
is(message($c, 'a@example.com'), '450', 'STATE-4 a third is refused');
is(message($c, 'b@example.com'), $whole, 'STATE-4 of another sender it is not');
is(message($c, 'a@other.example'), $whole, 'STATE-4 with another route');
is(message($c, 'c@example.com'), $whole, 'STATE-4 and back again');

$relay->set(rcpt => '550 5.1.1 no');
is(message($c, 'd@example.com'), '250 550', 'STATE-4 a refused recipient');
$relay->set(rcpt => undef, dot => '554 5.6.0 spam');
is(message($c, 'd@example.com'), '250 250 354 554',
    'STATE-4 a refused message');
$relay->set(dot => undef);
is(message($c, 'e@example.com'), $whole, 'STATE-4 have left nothing');
$c->quit();

my @log = grep { $_->{outcome} eq 'accepted' && $_->{sender} ne 'a@example.com' }
    $t->access_log();
is(scalar @log, 4, 'STATE-4 log: the other four');
is(scalar(grep { $_->{limit} || $_->{rejected_recipients}
    || $_->{recipients} != 1 || $_->{status} != 250 } @log), 0,
    'STATE-4 log: nothing of those before');
is(join(' ', map { $_->{from} } $other->received()), 'a@other.example',
    'STATE-4 one was for the other relay');

# RELAY-4: who has no address shares no counter with the others

$c = session('smtp');
is(message($c, '<>'), $whole, "RELAY-4 the null sender, message $_")
    for 1 .. 4;
is(scalar(grep { $_->{from} eq '' } $relay->received()), 4,
    'RELAY-4 the relay is told so');
$c->quit();

# STATE-5: the first MAIL stands; and headers as large as they like

$c = session();
is(codes(map { $c->cmd($_) } $MAIL, 'MAIL FROM:<x@example.com>', $RCPT,
    'MAIL FROM:<y@example.com>', 'RCPT TO:<c@example.net>', 'DATA'),
    '250 503 250 503 250 354', 'STATE-5 MAIL again, and behind RCPT');
my $head = join('', map { "X-$_: " . 'y' x 900 . "\r\n" } 1 .. 100);
like($c->cmd("$head\r\nx\r\n."), qr/^250 /, 'STATE-5 with a large header');
my $message = ($relay->received())[-1];
is("$message->{from} @{ $message->{rcpts} }",
    'a@example.com b@example.net c@example.net',
    'STATE-5 the envelope of the first');
is($message->{data}, "$head\r\nx\r\n", 'STATE-5 and the whole header');
$c->quit();

# STATE-8: nobody is left to send it to, and the client cannot know yet

$relay->set(rcpt => '550 5.1.1 no');
$c = session();
is(codes($c->pipeline($MAIL, $RCPT, $RCPT, 'DATA')), '250 550 550 554',
    'STATE-8 DATA behind refused recipients');
like($c->cmd('NOOP'), qr/^250 /, 'STATE-8 what follows is a command');
unlike(($relay->transcripts())[-1], qr/^C: DATA/m,
    'STATE-8 the relay is not told DATA');
$relay->set(rcpt => undef);
is(codes($c->cmd($RCPT), $c->cmd('DATA'), $c->cmd("x\r\n.")), '250 354 250',
    'STATE-8 and one that is accepted then');
$c->quit();

# STATE-12: C0 and DEL in any command, whatever it makes of its argument

my @lines = ('NOOP %s', 'EHLO a%sb', 'HELO %sa', 'VRFY a%s', 'MAIL FROM:<%s>',
    'MAIL FROM:<a@example.com>%sSIZE=1', 'MAIL FROM:<a@example.com> ENVID=a%sb',
    'MAIL %sFROM:<a@example.com>', 'RCPT TO:<"%s"@example.net>', 'RSET%s',
    'QUIT%s', 'AUTH PLAIN %s', '%s');

for my $octet (0 .. 9, 11 .. 31, 127) {
    my $char = chr $octet;
    my $shown = sprintf('\x%02x', $octet);

    $c = session();
    my @wrong = grep {
        $c->cmd(sprintf($_, $char)) !~ /^501 5\.5\.2 Control/;
    } @lines;
    is(join(' / ', @wrong), '', "STATE-12 $shown in commands");
    is(message($c, 'a@example.com'), $whole, "STATE-12 $shown: none has passed");
    $c->quit();
}

# STATE-9: HTTP ends at once, before its body is read for commands; others
# may err so often

my $messages = () = $relay->received();

for my $line ('GET / HTTP/1.1', 'POST / HTTP/1.1', 'post /x HTTP/1.0',
    'PUT / HTTP/1.1', 'CONNECT a:25 HTTP/1.1', 'OPTIONS * HTTP/1.1',
    'PRI * HTTP/2.0', 'Host: example.com', 'X-Anything: at all',
    'Subject: a body that nobody asked for')
{
    $c = session();
    $c->send_raw("$line\r\n$MAIL\r\n$RCPT\r\n");
    like($c->read_reply(), qr/^421 4\.7\.0 /, "STATE-9 $line");
    is($c->read_reply(), 'CLOSED', "STATE-9 $line: nothing else, and closed");
}

$c = session('strict');
my @replies = map { $c->cmd("WHAT $_") } 1 .. 4;
is(scalar(grep { /^500 5\.5\.1 / } @replies), 4, 'STATE-9 four errors');
like($c->cmd('WHAT'), qr/^500 5\.5\.1 /, 'STATE-9 max_errors');
like($c->read_reply(), qr/^421 4\.7\.0 /, 'STATE-9 max_errors: said');
ok($c->wait_close(), 'STATE-9 max_errors: closed');
is(scalar(() = $relay->received()), $messages, 'STATE-9 nothing was sent');

# RELAY-8: whatever limits say, who may relay is told by login and relay

$c = session('auth');
like($c->cmd($MAIL), qr/^530 5\.7\.0 /, 'RELAY-8 unlimited, without login');
like($c->cmd($RCPT), qr/^503 /, 'RELAY-8 and no recipient');
$c->auth_plain('alice@example.com', 'secret');
$relay->set(rcpt => '554 5.7.1 Relay access denied');
is(join(' / ', map { $c->cmd($_) } $MAIL, $RCPT, 'DATA'),
    '250 2.1.0 Ok / 554 5.7.1 Relay access denied'
    . ' / 554 5.5.1 No valid recipients',
    'RELAY-8 unlimited, the relay refuses');
$relay->set(rcpt => undef);
$c->quit();

$t->done();
