#!/usr/bin/perl

# What EHLO offers, and what is done with it: SMTPUTF8, DSN, 8BITMIME, LIMITS,
# enhanced codes; parameters that are not offered; relays without them.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Test::More;

use MailPolicy;

my $t = MailPolicy->new();

my @ALL = ('PIPELINING', 'SIZE 5000', '8BITMIME', 'SMTPUTF8', 'DSN',
    'CHUNKING', 'BINARYMIME', 'ENHANCEDSTATUSCODES');

my $all = $t->run_relay(name => 'all', extensions => [ @ALL ]);
my $none = $t->run_relay(name => 'none', extensions => [ 'HELP' ]);
my $few = $t->run_relay(name => 'few',
    extensions => [ 'PIPELINING', 'LIMITS MAILMAX=2 RCPTMAX=10' ]);

$t->conf(<<'EOF');
mail {
    server_name    edge.example.com;
    access_log     %%DIR%%/access.log;
    policy         on;
    policy_auth    off;
    max_errors     40;
    proxy_pass     127.0.0.1:%%PORT_all%%;

    upstream both {
        server  127.0.0.1:%%PORT_all%%;
        server  127.0.0.1:%%PORT_none%%;
    }

    map $sender_domain $relay {
        default      127.0.0.1:%%PORT_all%%;
        none.example 127.0.0.1:%%PORT_none%%;
    }

    server {
        listen      127.0.0.1:%%PORT_smtp_all%%;
        protocol    smtp;
        policy_message_size    10k;
        policy_max_recipients  7;
    }

    server {
        listen      127.0.0.1:%%PORT_smtp_none%%;
        protocol    smtp;
        proxy_pass  127.0.0.1:%%PORT_none%%;
    }

    server {
        listen      127.0.0.1:%%PORT_smtp_few%%;
        protocol    smtp;
        proxy_pass  127.0.0.1:%%PORT_few%%;
    }

    server {
        listen      127.0.0.1:%%PORT_smtp_both%%;
        protocol    smtp;
        proxy_pass  both;
    }

    server {
        listen      127.0.0.1:%%PORT_smtp_map%%;
        protocol    smtp;
        proxy_pass  $relay;
    }

    server {
        listen      127.0.0.1:%%PORT_smtp_limits%%;
        protocol    smtp;
        policy_max_messages  2;
    }

    server {
        listen      127.0.0.1:%%PORT_smtp_own%%;
        protocol    smtp;
        smtp_capabilities  DSN SMTPUTF8 BINARYMIME;
    }
}
EOF
$t->run_nginx();

sub session {
    my ($where, $helo) = @_;

    my $c = $t->client($where);
    $c->greeting();
    $helo ? $c->cmd("HELO $helo") : $c->ehlo();
    return $c;
}


sub offers {
    my ($c) = @_;

    my (undef, @lines) = map { s/^250.//r } split /\n/, $c->ehlo();
    return join(' / ', @lines);
}


sub send_one {
    my ($c, $mail, @rcpt) = @_;

    my @replies = map { $c->cmd($_) } "MAIL FROM:$mail",
        map { "RCPT TO:$_" } @rcpt;
    push @replies, $c->cmd('DATA'), $c->cmd("x\r\n.");
    return $replies[-1];
}

# before a relay has been asked, what most of them offer; after it, what it does

my $c = session('smtp_all');
is(offers($c), 'PIPELINING / SIZE 10240 / ENHANCEDSTATUSCODES / 8BITMIME'
    . ' / SMTPUTF8 / DSN / CHUNKING / LIMITS RCPTMAX=7 / HELP',
    'EXT-1 EHLO, the relay not yet known');
like(send_one($c, '<a@example.com>', '<b@example.net>'), qr/^250 /, 'a message');
is(offers($c), 'PIPELINING / SIZE 5000 / ENHANCEDSTATUSCODES / 8BITMIME'
    . ' / SMTPUTF8 / DSN / CHUNKING / BINARYMIME / LIMITS RCPTMAX=7 / HELP',
    'EXT-1 EHLO, as the relay');

$c = session('smtp_none');
like($c->cmd('MAIL FROM:<a@example.com> BODY=8BITMIME'), qr/^554 5\.6\.3 /,
    'EXT-2 8BITMIME, the relay not yet known');
like($c->cmd('MAIL FROM:<a@example.com> SMTPUTF8'), qr/^550 5\.6\.7 /,
    'EXT-2 SMTPUTF8');
like($c->cmd("MAIL FROM:<\xc3\xa9\@example.com> SMTPUTF8"), qr/^550 5\.6\.7 /,
    'EXT-2 SMTPUTF8, needed');
like(send_one($c, '<a@example.com> RET=FULL ENVID=x', '<b@example.net> '
    . 'NOTIFY=NEVER ORCPT=rfc822;b@example.net'), qr/^250 /,
    'DSN to a relay without it: passes');
is(($none->received())[-1]{mail_parameters}, '', 'DSN: left out');
is(offers($c), 'PIPELINING / SIZE / ENHANCEDSTATUSCODES / CHUNKING'
    . ' / LIMITS RCPTMAX=1000 / HELP', 'EXT-1 EHLO, a relay with nothing');

for my $parameter (qw(BODY=8BITMIME BODY=7BIT SMTPUTF8 RET=FULL ENVID=x)) {
    like($c->cmd("MAIL FROM:<a\@example.com> $parameter"), qr/^555 5\.5\.4 /,
        "STATE-6 $parameter is not offered");
}

# a group: what all of them offer; a route: what all groups do

my $both = 'PIPELINING / SIZE 5000 / ENHANCEDSTATUSCODES / CHUNKING'
    . ' / LIMITS RCPTMAX=1000 / HELP';

for (1 .. 2) {
    $c = session('smtp_both');
    like(send_one($c, '<a@example.com>', '<b@example.net>'), qr/^250 /,
        'a group');
}

is(offers($c), $both, 'EXT-1 a group');
$c = session('smtp_map');
like(send_one($c, "<$_>", '<b@example.net>'), qr/^250 /, 'a route')
    for 'a@example.com', 'a@none.example';
is(offers($c), $both, 'EXT-1 a route');

# HELO: nothing

$c = session('smtp_all', 'client.example');

for my $parameter (qw(SIZE=1 BODY=8BITMIME SMTPUTF8 RET=FULL ENVID=x AUTH=<>)) {
    like($c->cmd("MAIL FROM:<a\@example.com> $parameter"), qr/^555 5\.5\.4 /,
        "STATE-12 HELO, $parameter");
}

like($c->cmd('MAIL FROM:<a@example.com>'), qr/^250 /, 'STATE-12 HELO, MAIL');
like($c->cmd('RCPT TO:<b@example.net> NOTIFY=NEVER'), qr/^555 5\.5\.4 /,
    'STATE-12 HELO, NOTIFY');
$c->send_raw("BDAT 3\r\nabc");
like($c->read_reply(), qr/^502 /, 'STATE-12 HELO, BDAT');

# what passes, and how

$c = session('smtp_all');

my $message;

sub passes {
    my ($name, $mail, $rcpts, $parameters, @rcpt_parameters) = @_;

    like(send_one($c, $mail, @$rcpts), qr/^250 /, "$name: accepted");
    $message = ($all->received())[-1];
    is($message->{mail_parameters}, $parameters, "$name: to the relay");
    is_deeply($message->{rcpt_parameters}, \@rcpt_parameters, "$name: RCPT")
        if @rcpt_parameters;
}

passes('8BITMIME', '<a@example.com> body=8bitmime', [ '<b@example.net>' ],
    'BODY=8BITMIME');
passes('SIZE', '<a@example.com> SIZE=100 BODY=7BIT', [ '<b@example.net>' ],
    'SIZE=100 BODY=7BIT');
passes('DSN', '<a@example.com> RET=hdrs ENVID=QQ314+2B159', [
    '<b@example.net> NOTIFY=success,delay ORCPT=rfc822;b+2Bx@example.net',
    '<c@example.net> NOTIFY=NEVER', '<d@example.net> ORCPT=x-400;abc' ],
    'RET=HDRS ENVID=QQ314+2B159',
    'NOTIFY=SUCCESS,DELAY ORCPT=rfc822;b+2Bx@example.net', 'NOTIFY=NEVER',
    'ORCPT=x-400;abc');
passes('SMTPUTF8', "<\xc3\xa9lise\@ex\xc3\xa4mple.com> SMTPUTF8 BODY=8BITMIME",
    [ "<j\xc3\xb6rg\@example.net>", '<b@example.net>' ],
    'BODY=8BITMIME SMTPUTF8');
is($message->{from}, "\xc3\xa9lise\@ex\xc3\xa4mple.com", 'SMTPUTF8: sender');
is($message->{rcpts}[0], "j\xc3\xb6rg\@example.net", 'SMTPUTF8: recipient');

# and what does not: the transaction stands, or none has begun

for my $bad ([ 'SIZE=-1', 501 ], [ 'SIZE=', 501 ], [ 'SIZE', 501 ],
    [ 'SIZE=1 SIZE=1', 501 ], [ 'BODY=9BIT', 501 ], [ 'BODY', 501 ],
    [ 'RET=SOME', 501 ], [ 'RET=FULL RET=FULL', 501 ], [ 'ENVID=', 501 ],
    [ 'ENVID=+00', 501 ], [ 'ENVID=a+0D+0Ab', 501 ], [ 'ENVID=a=b', 501 ],
    [ 'ENVID=+zz', 501 ], [ 'ENVID=' . 'x' x 101, 501 ], [ 'SMTPUTF8=1', 501 ],
    [ 'REQUIRETLS', 555 ], [ 'MT-PRIORITY=3', 555 ], [ 'XYZ', 555 ],
    [ 'AUTH=<>', 555 ], [ 'NOTIFY=NEVER', 555 ], [ '=x', 501 ])
{
    my ($parameter, $code) = @$bad;
    like($c->cmd("MAIL FROM:<a\@example.com> $parameter"),
        qr/^$code 5\.5\.4 /, "STATE-6 STATE-7 MAIL $parameter");
}

like($c->cmd("MAIL FROM:<\xc3\xa9\@example.com>"), qr/^553 5\.6\.7 /,
    'STATE-3 UTF-8 without SMTPUTF8');
like($c->cmd("MAIL FROM:<\xc3\@example.com> SMTPUTF8"), qr/^501 5\.1\.7 /,
    'STATE-3 no UTF-8');
$c->quit();

$c = session('smtp_all');
$c->cmd('MAIL FROM:<a@example.com>');

for my $bad ([ 'NOTIFY=', 501 ], [ 'NOTIFY=NEVER,DELAY', 501 ],
    [ 'NOTIFY=DELAY,DELAY', 501 ], [ 'NOTIFY=ALWAYS', 501 ],
    [ 'ORCPT=b@example.net', 501 ], [ 'ORCPT=rfc822;', 501 ],
    [ 'ORCPT=rfc822;a+0Ab', 501 ], [ 'ORCPT=rfc822;' . 'x' x 500, 501 ],
    [ 'RET=FULL', 555 ], [ 'SIZE=1', 555 ], [ 'XYZ=1', 555 ])
{
    my ($parameter, $code) = @$bad;
    like($c->cmd("RCPT TO:<b\@example.net> $parameter"),
        qr/^$code 5\.5\.4 /, "STATE-6 STATE-7 RCPT $parameter");
}

like($c->cmd("RCPT TO:<\xc3\xa9\@example.net>"), qr/^553 5\.6\.7 /,
    'STATE-3 UTF-8 in RCPT, MAIL without SMTPUTF8');
like($c->cmd('RCPT TO:<b@example.net>'), qr/^250 /, 'STATE-3 state unchanged');
like($c->cmd('DATA'), qr/^354 /, 'STATE-3 DATA');
like($c->cmd("x\r\n."), qr/^250 /, 'STATE-3 accepted');

# LIMITS

$c = session('smtp_limits');
like($c->ehlo(), qr/^250.LIMITS MAILMAX=2 RCPTMAX=1000$/m, 'LIMITS');
like(send_one($c, '<a@example.com>', '<b@example.net>'), qr/^250 /, 'first');
like(send_one($c, '<a@example.com>', '<b@example.net>'), qr/^250 /, 'second');
like($c->cmd('MAIL FROM:<a@example.com>'), qr/^451 4\.5\.3 /, 'MAILMAX kept');
$c->quit();

$c = session('smtp_few');
like(send_one($c, '<a@example.com>', '<b@example.net>'), qr/^250 /,
    'a relay with LIMITS') for 1 .. 5;
$c->quit();
is($few->stats()->{total}, 3, "a relay's MAILMAX is kept");

# smtp_capabilities: what is listed, and no more

$c = session('smtp_own');
is(offers($c), 'DSN / HELP',
    'EXT-1 smtp_capabilities, as they hang together');
like($c->cmd('MAIL FROM:<a@example.com> SIZE=1'), qr/^555 /, 'nothing else');

# every reply has its enhanced code but those that must not

$c = session('smtp_all');

my @replies = map { $c->cmd($_) } 'NOOP', 'NOOP x', 'VRFY', 'VRFY x', 'EXPN',
    'EXPN x', 'HELP', 'HELP x', 'RSET', 'RSET x', 'DATA', 'RCPT TO:<b@c>',
    'MAIL', 'MAIL FROM:', 'MAIL FROM:<a', 'MAIL TO:<a@b>', 'XCLIENT NAME=x',
    'STARTTLS', 'AUTH PLAIN', 'EHLO', 'EHLO a b', 'BLURB',
    'MAIL FROM:<a@example.com>', 'RCPT TO:<b@example.net>', 'RCPT FROM:<b@c>',
    'DATA x', 'VRFY ' . 'x' x 5000;
@replies = grep { !/^([245])\d\d \1\.\d{1,3}\.\d{1,3} ./ } @replies;
is("@replies", '', 'ENHANCEDSTATUSCODES in every reply');
like($c->cmd('VRFY x'), qr/^252 2\./, 'VRFY');
like($c->cmd('HELP'), qr/^214 2\./, 'HELP');
like($c->cmd('EXPN x'), qr/^502 5\.5\.1 /, 'EXPN');
like($c->quit(), qr/^221 2\.0\.0 /, 'QUIT');

$t->done();
