#!/usr/bin/perl

# What once went wrong with clients: who found a way not to be counted, or not
# to be in a hurry; and with what they are offered.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Test::More;
use Time::HiRes qw(sleep time);

use MailPolicy;
use MailPolicy::ScriptedDns;

my @ALL = ('PIPELINING', '8BITMIME', 'SIZE', 'CHUNKING', 'SMTPUTF8',
    'ENHANCEDSTATUSCODES');

my $t = MailPolicy->new();
my $relay = $t->run_relay(name => 'relay', extensions => [ @ALL ]);
my $able = $t->run_relay(name => 'able', extensions => [ '8BITMIME' ]);
my $unable = $t->run_relay(name => 'unable', extensions => [ 'PIPELINING' ]);

my $dns = MailPolicy::ScriptedDns->new(dir => $t->dir(),
    port => $t->port('dns'));
push @{ $t->{servers} }, $dns;

# takes a good part of a second
$t->write_file('users', 'alice@example.com:'
    . $t->crypt('secret', '$6$rounds=900000$mailpolicytest$') . "\n");

$t->conf(<<'EOF');
mail {
    server_name    edge.example.com;
    access_log     %%DIR%%/access.log;
    policy         on;
    policy_auth    off;
    max_errors     5;
    proxy_timeout  20s;
    proxy_pass     127.0.0.1:%%PORT_relay%%;

    upstream mixed {
        server  127.0.0.1:%%PORT_unable%%;
        server  127.0.0.1:%%PORT_able%%;
    }

    map $recipient_domain $lazy { default mixed; }

    server {
        listen               127.0.0.1:%%PORT_smtp%%;
        protocol             smtp;
        policy_max_messages  12345678;
    }

    server {
        listen        127.0.0.1:%%PORT_limit%%;
        protocol      smtp;
        policy_limit  domain  key=$recipient_domain  recipients=1/1h;
    }

    server {
        listen                127.0.0.1:%%PORT_rate%%;
        protocol              smtp;
        timeout               2s;
        policy_min_data_rate  1000;
    }

    server {
        listen            127.0.0.1:%%PORT_ptr%%;
        protocol          smtp;
        resolver          127.0.0.1:%%PORT_dns%% ipv6=off;
        resolver_timeout  2s;
    }

    server {
        listen                 127.0.0.1:%%PORT_auth%%;
        protocol               smtp;
        timeout                5s;
        policy_auth            file:%%DIR%%/users;
        policy_auth_plaintext  on;
    }

    server {
        listen      127.0.0.1:%%PORT_mixed%%;
        protocol    smtp;
        proxy_pass  mixed;
    }

    server {
        listen      127.0.0.1:%%PORT_lazy%%;
        protocol    smtp;
        proxy_pass  $lazy;
    }

    server {
        listen      127.0.0.1:%%PORT_unable_only%%;
        protocol    smtp;
        proxy_pass  127.0.0.1:%%PORT_unable%%;
    }
}
EOF
$t->run_nginx();


sub session {
    my ($where, @more) = @_;

    return $t->session($where // 'smtp', timeout => 15, @more);
}


my $RCPT = 'RCPT TO:<b@example.net>';

sub begin {
    my ($c) = @_;

    return $c->pipeline('MAIL FROM:<a@example.com>', $RCPT);
}


# chunks that are too slow, each of which began the client's time anew

sub chunks {
    my ($size, $pause, $count) = @_;

    my $c = session('rate');
    my ($alive, $reply) = (0);

    begin($c);

    for (1 .. $count) {
        $c->send_raw("BDAT $size\r\n");
        sleep($pause);
        $c->send_raw('x' x ($size - 2) . "\r\n");
        $reply = $c->read_reply();
        last if $reply !~ /^250 /;
        sleep($pause);
        $alive++;
    }

    $c->close();
    return ($alive, $reply);
}

my ($alive, $reply) = chunks(64, 0.25, 14);
cmp_ok($alive, '<', 9, 'RES-5 chunks at 128 octets a second');
like($reply, qr/^421 4\.4\.2 |CLOSED/, 'RES-5 chunks: cut off');
($alive) = chunks(3000, 0.1, 15);
is($alive, 15, 'RES-5 chunks at 15000 octets a second');

# input before the greeting, which waits for the client's name

for my $kind ([ 13, 'which comes' ], [ 12, 'which does not come' ]) {
    my $from = "127.0.$kind->[0].1";
    my $c = $t->client('ptr', from => $from, timeout => 15);

    $t->wait_for(sub { $dns->asked($from) });
    $c->send_raw("EHLO client.example\r\n");

    my $name = "SMUG-10 during the look-up of a name, $kind->[1]";
    like($c->read_reply(), qr/^(?:503|554) 5\.5\.0 /, $name);
    ok($c->wait_close(), "$name: closed");
}

like($t->client('ptr', from => '127.0.10.2', timeout => 15)->greeting(),
    qr/^220 /, 'SMUG-10 who waits is greeted');

# the same domain in other letters had a limit of its own

my $c = session('limit');
$c->cmd('MAIL FROM:<a@example.com> SMTPUTF8');
like($c->cmd('RCPT TO:<b@example.com>'), qr/^250 /, 'RELAY-6 a domain');
like($c->cmd('RCPT TO:<c@EXAMPLE.com>'), qr/^450 /, 'RELAY-6 its limit');

# U+FF45, U+2024, U+FE52
for my $domain ("\xef\xbd\x85xample.com", "example\xe2\x80\xa4com",
    "example\xef\xb9\x92com")
{
    like($c->cmd("RCPT TO:<d\@$domain>"), qr/^501 5\.1\.3 /,
        "RELAY-6 RCPT to $domain");
    $c->cmd('RSET');
    like($c->cmd("MAIL FROM:<a\@$domain> SMTPUTF8"), qr/^501 5\.1\.7 /,
        "RELAY-6 MAIL from $domain");

    $c = session('limit');
    $c->cmd('MAIL FROM:<a@example.com> SMTPUTF8');
}

$c->quit();

# a huge chunk that turned out to be faulty was read for nothing

$c = session();
begin($c);
$c->send_raw("BDAT 100000000000 LAST\r\nSubject: x\nx\r\n");
like($c->read_reply(), qr/^554 5\.6\.0 /, 'RES-9 a huge chunk, at fault');
like($c->read_reply(), qr/^421 4\.7\.0 /, 'RES-9 a huge chunk, at fault: 421');
ok($c->wait_close(), 'RES-9 a huge chunk, at fault: closed');

$relay->set(body => { times => 1, after => 100, action => '452 4.3.1 full' });
$c = session();
begin($c);
$c->send_raw("BDAT 100000000000\r\n" . 'x' x 200);
like($c->read_reply(), qr/^452 4\.3\.1 /, 'RES-9 a huge chunk, refused');
like($c->read_reply(), qr/^421 4\.7\.0 /, 'RES-9 a huge chunk, refused: 421');
$relay->set(body => undef);

# BDAT that is no command: its octets were

my $CHUNK = "MAIL FROM:<chunk\@example.com>\r\nRCPT TO:<c\@example.net>\r\n";

for my $line ("BDAT\t60 LAST\r\n", "BDAT 60 LAST\n", "bdat 60\0LAST\r\n",
    "BDAT 60 LAST\r\r\n", "NOOP\nBDAT 60 LAST\r\n")
{
    my $shown = $line =~ s/([^ -~])/sprintf('\\x%02x', ord $1)/ger;

    $c = session();
    $c->send_raw($line . $CHUNK);
    my @replies = map { $c->read_reply() } 1 .. ($line =~ /^NOOP/ ? 2 : 1);
    like($replies[-1], qr/^501 5\.5\.2 /, "EXT-4 $shown");
    is($c->read_reply(), 'CLOSED', "EXT-4 $shown: closed");
}

is(scalar(grep { /chunk\@/ } $relay->transcripts()), 0,
    'EXT-4 no chunk was a command');

# what leads nowhere was not counted: the replies up to the last one

sub until_closed {
    my ($c, $max, @commands) = @_;

    my @replies;

    for (1 .. $max) {
        for my $command (@commands) {
            push @replies, $c->cmd($command);
            return @replies if $replies[-1] !~ /^[2345]\d\d /
                || $replies[-1] =~ /^421 /;
        }
    }

    return @replies;
}

$relay->set(mail => { match => qr/bad@/, action => '550 5.1.8 no' },
    rcpt => { match => qr/bad@/, action => '550 5.1.1 no' });

my $BAD = 'MAIL FROM:<bad@example.com>';

for my $case ([ 'MAIL refused', 80, 300, $BAD ],
    [ 'RCPT refused, and BDAT', 100, 300, 'MAIL FROM:<a@example.com>',
      'RCPT TO:<bad@example.net>', 'BDAT 0 LAST' ])
{
    my ($name, $some, $max, @commands) = @$case;
    my @replies = until_closed(session(), $max, @commands);

    is($replies[-1], '421 4.7.0 Too many errors', "RES-4 $name: ends in 421");
    cmp_ok(scalar @replies, '>', $some, "RES-4 $name: some are allowed");
}

# what may follow a refused MAIL, as it was in the pipeline

$c = session();
my @replies = $c->pipeline($BAD, ($RCPT) x 20);
is(scalar(grep { /^503 / } @replies), 20,
    'STATE-11 RCPT behind a refused MAIL');
$c->ehlo();
@replies = until_closed($c, 20, $RCPT);
is($replies[-1], '421 4.7.0 Too many errors', 'STATE-11 but not behind EHLO');
cmp_ok(scalar @replies, '<', 8, 'STATE-11 but not behind EHLO: each is one');
$relay->set(mail => undef, rcpt => undef);

# RFC 9422: six digits

$c = session();
like($c->ehlo(), qr/^250[ -]LIMITS RCPTMAX=1000$/m,
    'EXT-1 LIMITS: no number of more than six digits');
$c->quit();

# the time that AUTH took was taken from the next command

$c = session('auth');
my $start = time();
like($c->auth_plain('alice@example.com', 'secret'), qr/^235 /, 'AUTH');
my $took = time() - $start;
$start = time();
like($c->read_reply(), qr/^421 4\.4\.2 /, 'RES-5 AUTH, and then nothing');
cmp_ok(time() - $start, '>', 5 - $took / 2,
    'RES-5 AUTH is not on account of the next');
cmp_ok($took, '>', 0.2, 'RES-5 AUTH has taken its time');
$c->close();

# The first relay of a group has no 8BITMIME, but the second one has.  Once
# this is known, EHLO does not offer it any more.

my $early = session('unable_only');
my @sessions = map { session($_) } ('mixed') x 3, ('lazy') x 2;

for my $n (1 .. @sessions) {
    my @replies = $sessions[$n - 1]->send_mail("m$n\@example.com",
        [ 'b@example.net' ], "x\n", parameters => 'BODY=8BITMIME');

    is(join(' ', map { substr($_, 0, 3) } @replies), '250 250 354 250',
        "EXT-2 one of two relays: session $n");
    $sessions[$n - 1]->quit();
}

is(scalar(() = $able->messages()), scalar @sessions,
    'EXT-2 the one that is able');
cmp_ok($unable->stats()->{total}, '>', 1, 'EXT-2 the other was met');
like($early->cmd('MAIL FROM:<a@example.com> BODY=8BITMIME'),
    qr/^554 5\.6\.3 /, 'EXT-2 where there is no other');
$early->quit();

$t->done();
