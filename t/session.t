#!/usr/bin/perl

# A whole session: login, several transactions, what the client and the relay
# see; the order of commands; RSET, EHLO and QUIT clear exactly their scope.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Test::More;

use MailPolicy;

my $t = MailPolicy->new();
my $relay = $t->run_relay(name => 'relay',
    dot => '250 2.0.0 Ok: queued as ABC123');

$t->write_file('users', 'alice@example.com:' . $t->crypt('secret') . "\n");

$t->conf(<<'EOF');
mail {
    server_name  edge.example.com;

    access_log   %%DIR%%/access.log;

    server {
        listen                 127.0.0.1:%%PORT_smtp%%;
        protocol               smtp;
        policy                 on;
        policy_auth            file:%%DIR%%/users;
        policy_auth_plaintext  on;
        policy_message_size    1m;
        policy_max_recipients  3;
        proxy_pass             127.0.0.1:%%PORT_relay%%;
        max_errors             50;
    }

    server {
        listen                 127.0.0.1:%%PORT_errors%%;
        protocol               smtp;
        policy                 on;
        policy_auth            off;
        proxy_pass             127.0.0.1:%%PORT_relay%%;
    }
}
EOF
$t->run_nginx();

my $c = $t->client('smtp');

like($c->greeting(), qr/^220 edge\.example\.com ESMTP/, 'greeting');
like($c->cmd('MAIL FROM:<a@example.com>'), qr/^503 5\.5\.1 /, 'EHLO first');

my $ehlo = $c->ehlo();
like($ehlo, qr/^250-edge\.example\.com$/m, 'EHLO: our name');
like($ehlo, qr/^250.PIPELINING$/m, 'EHLO: PIPELINING');
like($ehlo, qr/^250.SIZE 1048576$/m, 'EHLO: SIZE');
like($ehlo, qr/^250.AUTH PLAIN LOGIN$/m, 'EHLO: AUTH');
like($ehlo, qr/^250.8BITMIME$/m, 'EHLO: 8BITMIME');
unlike($ehlo, qr/STARTTLS|BINARYMIME|XCLIENT/, 'EHLO: nothing else');

like($c->cmd('MAIL FROM:<a@example.com>'), qr/^530 5\.7\.0 /, 'AUTH first');
like($c->auth_plain('alice@example.com', 'wrong'), qr/^535 5\.7\.8 /,
    'wrong password');
like($c->auth_plain('nobody@example.com', 'secret'), qr/^535 5\.7\.8 /,
    'no such user');
like($c->auth_plain('alice@example.com', 'secret'), qr/^235 2\.7\.0 /,
    'right password');
like($c->auth_plain('alice@example.com', 'secret'), qr/^503 5\.5\.1 /,
    'AUTH once');
like($c->ehlo(), qr/^(?!.*AUTH)/s, 'EHLO: no AUTH any more');

like($c->cmd('RCPT TO:<b@example.net>'), qr/^503 5\.5\.1 /, 'MAIL first');
like($c->cmd('DATA'), qr/^503 5\.5\.1 /, 'MAIL before DATA');
like($c->cmd('MAIL FROM:<Alice@Example.com> SIZE=100 BODY=8BITMIME'),
    qr/^250 2\.1\.0 /, 'MAIL');
like($c->cmd('MAIL FROM:<a@example.com>'), qr/^503 5\.5\.1 /, 'nested MAIL');
like($c->cmd('DATA'), qr/^503 5\.5\.1 /, 'RCPT before DATA');
like($c->cmd('RCPT TO:<bob@example.net>'), qr/^250 2\.1\.5 /, 'RCPT');
like($c->cmd('RCPT TO:<@a.example,@b.example:carol@example.net>'),
    qr/^250 2\.1\.5 /, 'RCPT with a source route');
like($c->cmd('RCPT TO:<"d ave"@example.net>'), qr/^250 2\.1\.5 /,
    'RCPT, quoted');
like($c->cmd('RCPT TO:<eve@example.net>'), qr/^452 4\.5\.3 /,
    'too many recipients');
like($c->cmd('NOOP'), qr/^250 /, 'NOOP in a transaction');
like($c->cmd('DATA'), qr/^354 /, 'DATA');
$c->send_raw("Subject: one\r\n\r\n..dot\r\nend\r\n.\r\n");
is($c->read_reply(), '250 2.0.0 Ok: queued as ABC123', "the relay's reply");

like($c->cmd('RCPT TO:<b@example.net>'), qr/^503 5\.5\.1 /,
    'STATE-1 nothing is left of the transaction');

like($c->cmd('MAIL FROM:<big@example.com> SIZE=1048577'), qr/^552 5\.3\.4 /,
    'EXT-7 SIZE over the limit');

# RSET

like($c->cmd('MAIL FROM:<a@example.com>'), qr/^250 /, 'second transaction');
like($c->cmd('RCPT TO:<b@example.net>'), qr/^250 /, 'RCPT');
like($c->cmd('RSET'), qr/^250 2\.0\.0 /, 'RSET');
like($c->cmd('DATA'), qr/^503 5\.5\.1 /, 'STATE-11 RSET clears the envelope');
like($c->cmd('MAIL FROM:<>'), qr/^250 /, 'the null sender; still logged in');
like($c->cmd('RCPT TO:<b@example.net>'), qr/^250 /, 'RCPT');

# EHLO

like($c->ehlo(), qr/^250 /m, 'EHLO in a transaction');
like($c->cmd('DATA'), qr/^503 5\.5\.1 /, 'EHLO clears the envelope');

my @replies = $c->send_mail('', [ 'b@example.net' ], "Subject: two\n\nx\n");
like($replies[-1], qr/^250 2\.0\.0 Ok/, 'third transaction');
like($c->quit(), qr/^221 2\.0\.0 /, 'QUIT');
ok($c->wait_close(), 'the connection is closed');

my @messages = $relay->wait_messages(2);
is(scalar @messages, 2, 'the relay has both messages');
is($messages[0]{from}, 'Alice@Example.com', 'sender as written');
is_deeply($messages[0]{rcpts},
    [ 'bob@example.net', 'carol@example.net', '"d ave"@example.net' ],
    'recipients as written, without source route');
is($messages[0]{raw}, "Subject: one\r\n\r\n..dot\r\nend\r\n.\r\n",
    'body to the octet');
is($messages[1]{from}, '', 'null sender');

# pipelining

$c = $t->client('smtp');
$c->greeting();
$c->ehlo();
$c->auth_login('alice@example.com', 'secret');

@replies = $c->pipeline('MAIL FROM:<a@example.com>', 'RCPT TO:<b@example.net>',
    'RCPT TO:<bad address>', 'RCPT TO:<c@example.net>', 'NOOP', 'DATA');
is(join(' ', map { substr($_, 0, 3) } @replies), '250 250 501 250 250 354',
    'PIPELINING: replies in order');
$c->send_raw("x\r\n.\r\nMAIL FROM:<d\@example.com>\r\nRSET\r\nQUIT\r\n");
like($c->read_reply(), qr/^250 2\.0\.0 Ok: queued/, 'the message');
like($c->read_reply(), qr/^250 2\.1\.0 /, 'EXT-8 behind the dot: MAIL');
like($c->read_reply(), qr/^250 /, 'RSET');
like($c->read_reply(), qr/^221 /, 'QUIT');

# errors

$c = $t->client('errors');
$c->greeting();
like($c->cmd('AUTH PLAIN AGEAYg=='), qr/^502 5\.5\.1 /, 'policy_auth off');
like($c->cmd('BLURDYBLOOP'), qr/^500 5\.5\.1 /, 'unknown command');
like($c->cmd('QUIT now'), qr/^501 5\.5\.4 /, 'QUIT with an argument');
like($c->cmd('STARTTLS'), qr/^502 5\.5\.1 /, 'no STARTTLS');
like($c->cmd('EXPN x'), qr/^502 5\.5\.1 /, 'EXPN');
like($c->read_reply(), qr/^421 4\.7\.0 /, 'too many errors');
ok($c->wait_close(), 'closed');

$c = $t->client('errors');
$c->greeting();
like($c->cmd('GET / HTTP/1.1'), qr/^421 /, 'STATE-9 HTTP');
ok($c->wait_close(), 'closed');

$c = $t->client('errors');
$c->greeting();
$c->ehlo();
$c->send_raw("NOOP\nMAIL FROM:<a\@example.com>\r\nRCPT TO:<b\@example.com>\r\n");
like($c->read_reply(), qr/^500 5\.5\.2 /, 'SMUG-7 bare LF');
like($c->read_reply(), qr/^500 5\.5\.2 /, 'SMUG-7 and what follows it');
like($c->read_reply(), qr/^503 /, 'SMUG-7 was not executed');
like($c->cmd("MAIL FROM:<a\0\@example.com>"), qr/^501 5\.5\.2 /,
    'STATE-12 NUL');
$c->close();

# the log

my @log = $t->access_log();
my ($first) = grep { ($_->{recipients} // 0) == 3 } @log;

is($first->{outcome}, 'accepted', 'log: outcome');
is($first->{sasl_username}, 'alice@example.com', 'log: login');
is($first->{sasl_method}, 'PLAIN', 'log: method');
is($first->{status}, 250, 'log: status');
is($first->{sender}, 'Alice@Example.com', 'log: sender');
is($first->{message_size}, 27, 'log: size');
is($first->{protocol}, 'ESMTPA', 'log: protocol');
is($first->{upstream_addr}, '127.0.0.1:' . $t->port('relay'), 'log: relay');
is(scalar(grep { $_->{outcome} eq 'aborted' } @log), 3, 'log: aborted ones');
is(scalar(grep { $_->{outcome} eq 'accepted' } @log), 3, 'log: accepted ones');
is(join(' ', map { $_->{outcome} } grep { ($_->{sender} // '') =~ /^big/ } @log),
    'rejected', 'log: the one that was too big');

$t->done();
