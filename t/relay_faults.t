#!/usr/bin/perl

# A relay that is killed or faulty at each stage of its dialogue: the client
# hears what it should, never waits for long, is never told 250 for a message
# that no relay took, and its session goes on; the log has the outcome.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use IO::Socket::INET;
use Test::More;
use Time::HiRes qw(time);

use MailPolicy;
use MailPolicy::Oracle qw(oracle_disagreements);
use MailPolicy::Trace qw(trace_violations);

my $t = MailPolicy->new(record => 1);
my $relay = $t->run_relay(name => 'relay');

# "patient" is for faults that show by themselves, "hasty" for silence
$t->conf(<<'EOF');
mail {
    server_name            edge.example.com;
    access_log             %%DIR%%/access.log;
    policy                 on;
    policy_auth            off;
    proxy_pass             127.0.0.1:%%PORT_relay%%;

    server {
        protocol               smtp;
        listen                 127.0.0.1:%%PORT_patient%%;
        proxy_connect_timeout  20s;
        proxy_timeout          20s;
    }

    server {
        protocol               smtp;
        listen                 127.0.0.1:%%PORT_hasty%%;
        proxy_connect_timeout  400ms;
        proxy_timeout          400ms;
        proxy_final_timeout    400ms;
    }

    server {
        protocol               smtp;
        listen                 127.0.0.1:%%PORT_blackhole%%;
        proxy_connect_timeout  400ms;
        proxy_timeout          400ms;
        proxy_pass             127.0.0.1:%%PORT_nobody%%;
    }
}
EOF
$t->run_nginx();

my %GREAT = (extensions => [ 'PIPELINING', 'XCLIENT NAME ADDR HELO LOGIN' ]);
my %SMALL = (extensions => [ 'PIPELINING', '8BITMIME' ]);

my $AWAY = '451 4\.4\.1 ';
my $LOST = '451 4\.4\.2 ';
my $SETUP = '451 4\.3\.5 ';

# what each stage answers by itself is left out; {stage} is where the client
# hears of the fault
my @CASES;

for my $stage (qw(connect greeting ehlo)) {
    for my $action (qw(close rst hang), $stage eq 'connect' ? 'refuse'
        : ('garbage', '450 4.3.0 not now', '554 5.3.2 never',
           '421 4.3.2 closing', '354 what',
           { send => "220 a\r\n250 b\r\n" }))
    {
        push @CASES, [ $stage, $action, mail => $AWAY, 'deferred' ];
    }
}

for my $action (qw(close rst hang garbage), '421 4.3.2 closing',
    '450 4.3.0 not now', '550 5.7.0 not you', '530 5.7.0 who are you',
    { send => "220 a\r\n220 b\r\n" })
{
    push @CASES, [ 'xclient', $action, mail => $SETUP, 'deferred' ];
}

for my $stage (qw(mail rcpt data)) {
    for my $action (qw(close rst hang garbage), '421 4.3.2 closing',
        "250-one\n450 two", { send => "250 no end\n" },
        $stage eq 'data' ? '250 2.0.0 Ok' : '354 go on')
    {
        push @CASES, [ $stage, $action, $stage => $LOST, 'deferred' ];
    }

    push @CASES,
        [ $stage, '450 4.2.0 not now', $stage => '450 4\.2\.0 not now$',
            'deferred' ],
        [ $stage, '450', $stage => '450 4\.\d\.\d ', 'deferred' ],
        [ $stage, '550 5.2.0 never', $stage => '550 5\.2\.0 never$',
            'rejected' ],
        [ $stage, "550-one\n550 5.2.0 two", $stage => '550 5\.2\.0 two$',
            'rejected' ];
}

# replies before their time
push @CASES,
    [ 'mail', { send => "250 a\r\n250 b\r\n" }, rcpt => $LOST, 'deferred' ],
    [ 'rcpt', { send => "250 a\r\n354 b\r\n" }, data => $LOST, 'deferred' ],
    [ 'data', { send => "354 a\r\n250 b\r\n" }, dot => $LOST, 'deferred' ];

for my $action (qw(close rst garbage), '250 2.0.0 Ok', '354 go on',
    "250-one\n450 two")
{
    push @CASES, [ 'body', $action, dot => $LOST, 'deferred' ];
}

push @CASES,
    [ 'body', '421 4.3.2 closing', dot => '451 4\.3\.2 closing$', 'deferred' ],
    [ 'body', '452 4.3.1 full', dot => '452 4\.3\.1 full$', 'deferred' ],
    [ 'body', '554 5.6.0 spam', dot => '554 5\.6\.0 spam$', 'rejected' ],
    [ 'dot', '450 4.2.0 not now', dot => '450 4\.2\.0 not now$', 'deferred' ],
    [ 'dot', '554 5.6.0 spam', dot => '554 5\.6\.0 spam$', 'rejected' ],
    [ 'dot', '421 4.3.2 closing', dot => '451 4\.3\.2 closing$', 'deferred' ],
    [ 'dot', { reply => '250 2.0.0 Ok', close => 1 },
        dot => '250 2\.0\.0 Ok$', 'accepted' ],
    [ 'dot', '221 2.0.0 Ok', dot => '250 2\.0\.0 Ok$', 'accepted' ],
    map { [ 'dot', $_, dot => $LOST, 'unknown' ] }
        qw(close rst hang garbage), '354 go on', "250-one\n450 two",
        { send => "250 no end\n" };

my (%expected, $taken);

for my $n (0 .. $#CASES) {
    fault("case$n\@example.com", @{ $CASES[$n] });
}

sub fault {
    my ($sender, $stage, $action, $where, $reply, $outcome) = @_;

    my $shown = ref $action ? join(' ', %$action) : $action;
    $shown =~ s/([^ -~])/sprintf('\\x%02x', ord $1)/ge;
    my $name = "$stage: $shown";

    $expected{$sender} = [ $outcome, $name ];

    # a body goes wrong behind its first octets
    $relay->set($stage eq 'xclient' ? %GREAT : %SMALL,
        $stage => $stage eq 'body' ? { after => 1, action => $action }
                                   : $action);

    my $hangs = !ref $action && $action eq 'hang';
    my $c = $t->client($hangs ? 'hasty' : 'patient');
    my %reply;

    $c->greeting();
    $c->ehlo();
    talk($c, $sender, \%reply, $stage eq 'body' ? $action : undef);

    like($reply{$where} // '(none)', qr/^$reply/, "$name: reply at $where");

    # no stage before it was refused, and none behind it passed
    is(join(' ', grep { $reply{$_} =~ /^[23]/ } qw(mail rcpt data dot)),
        join(' ', passed($where), $outcome eq 'accepted' ? 'dot' : ()),
        "$name: what passed");

    $relay->set($stage => undef, %SMALL);

    like($c->cmd('RSET'), qr/^250 /, "$name: the session goes on");

    my @replies = $c->send_mail('good@example.com', [ 'a@example.net' ], "x\n");
    like($replies[-1], qr/^250 /, "$name: and the next message passes");
    $taken += 1 + ($outcome eq 'accepted');
    $c->quit();
}


sub passed {
    my ($where) = @_;

    my %stages = (mail => '', rcpt => 'mail', data => 'mail rcpt',
        dot => 'mail rcpt data');
    return split / /, $stages{$where};
}


sub talk {
    my ($c, $sender, $reply, $body) = @_;

    $reply->{$_} = '' for qw(mail rcpt data dot);

    $reply->{mail} = $c->cmd("MAIL FROM:<$sender>");
    $reply->{rcpt} = $c->cmd('RCPT TO:<a@example.net>');
    $reply->{data} = $c->cmd('DATA');
    return unless $reply->{data} =~ /^354/;

    if (defined $body) {
        my $before = errors();
        $c->send_raw("Subject: x\r\n\r\nfirst\r\n");

        # known before the dot, or a reply would pass for that to the dot
        $t->wait_for(sub { $body =~ /^[45]/ ? !$relay->stats()->{open}
                                            : errors() > $before });
    }

    $c->send_raw("last\r\n.\r\n");
    $reply->{dot} = $c->read_reply();
}


sub errors {
    my $count = () = $t->error_log() =~ /\[error\]/g;
    return $count;
}


# a relay that takes no more; 50 MB are more than sockets hold

$relay->set(body => { after => 1, action => 'hang' });

my $c = $t->client('hasty', timeout => 20);
$c->greeting();
$c->ehlo();
$c->pipeline('MAIL FROM:<stall@example.com>', 'RCPT TO:<a@example.net>',
    'DATA');
my $start = time();
my $line = 'x' x 998 . "\r\n";
$c->send_raw($line x 50_000 . ".\r\n");
like($c->read_reply(), qr/^$LOST/, 'body: a stalled relay');
cmp_ok(time() - $start, '<', 15, 'body: a stalled relay is not waited for');
$expected{'stall@example.com'} = [ 'deferred', 'body: stalled' ];
$relay->set(body => undef);
$c->quit();

# nobody answers the SYN: a listener whose queue is full

my $nobody = IO::Socket::INET->new(LocalAddr => '127.0.0.1',
    LocalPort => $t->port('nobody'), Listen => 1, ReuseAddr => 1);
my @queue = map { IO::Socket::INET->new(PeerAddr => '127.0.0.1', Blocking => 0,
    PeerPort => $t->port('nobody')) } 1 .. 4;

$c = $t->client('blackhole');
$c->greeting();
$c->ehlo();
$start = time();
like($c->cmd('MAIL FROM:<syn@example.com>'), qr/^$AWAY/, 'connect: no answer');
cmp_ok(time() - $start, '<', 5, 'connect: no answer is not waited for');
$expected{'syn@example.com'} = [ 'deferred', 'connect: no answer' ];
$c->quit();
close($_) for @queue, $nobody;

# pipelined commands

$relay->set(mail => 'close');
$c = $t->client('patient');
$c->greeting();
$c->ehlo();
is(codes($c->pipeline('MAIL FROM:<p1@example.com>', 'RCPT TO:<a@example.net>',
    'RCPT TO:<b@example.net>', 'DATA')), '451 503 503 503',
    'mail: close, pipelined');
$relay->set(mail => undef, rcpt => { match => qr/b@/, action => 'rst' });
is(codes($c->pipeline('MAIL FROM:<p2@example.com>', 'RCPT TO:<a@example.net>',
    'RCPT TO:<b@example.net>', 'RCPT TO:<c@example.net>', 'DATA')),
    '250 250 451 451 451', 'rcpt: rst, pipelined');
is(codes($c->pipeline('RSET', 'MAIL FROM:<p3@example.com>',
    'RCPT TO:<a@example.net>', 'DATA')), '250 250 250 354',
    'rcpt: rst, and again');
like($c->cmd("x\r\n."), qr/^250 /, 'rcpt: rst, accepted without it');
$taken++;
$relay->set(rcpt => undef);

# RSET: the client's is answered by us, and what the relay makes of it shows
# at most in a new connection

for my $action (qw(close rst hang garbage), '421 4.3.2 closing',
    '550 5.0.0 no', '354 go on')
{
    $relay->set(rset => $action);
    $c = $t->client($action eq 'hang' ? 'hasty' : 'patient');
    $c->greeting();
    $c->ehlo();
    $c->cmd('MAIL FROM:<reset@example.com>');
    like($c->cmd('RSET'), qr/^250 /, "rset: $action: reply");
    my @replies = $c->send_mail('good@example.com', [ 'a@example.net' ], "x\n");
    like($replies[-1], qr/^250 /, "rset: $action: the next message passes");
    $taken++;
    $c->quit();
}

$relay->set(rset => undef);

# what was counted

my %lines;
push @{ $lines{ $_->{sender} // '' } }, $_ for $t->access_log();

for my $sender (sort keys %expected) {
    my ($outcome, $name) = @{ $expected{$sender} };
    is(join(' ', map { $_->{outcome} } @{ $lines{$sender} // [] }), $outcome,
        "$name: one line, $outcome");
}

my @taken = grep { $_->{reply} =~ /\A2\d\d .*\z/ } $relay->received();
is(scalar @taken, $taken,
    'DOT as many messages at the relay as were answered with 250');
is(scalar(grep { !$_->{accepted} && $_->{raw} !~ /last\r\n\.\r\n\z/ }
    $relay->received()), 0, 'DOT no final dot that the client did not send');
like($t->error_log(), qr/outcome=unknown/, 'the error log tells of it, too');

is(join("\n", oracle_disagreements($relay)), '', 'SMUG-5 ORACLE');
is(join("\n", trace_violations($t, relays => [ $relay ])), '',
    'TRACE I2 I3 I5');

sub codes { return join(' ', map { substr($_, 0, 3) } @_) }

$t->done();
