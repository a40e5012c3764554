#!/usr/bin/perl

# "policy_service" and a real policyd-spf, a process for each connection,
# which asks a real name server: what the results of SPF are to a client and
# to the relay, several sessions at once, and what happens while there is no
# answer.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Test::More;
use Time::HiRes qw(sleep time);

use MailPolicy;
use MailPolicy::Dnsmasq;
use MailPolicy::Limits qw(codes is_used);
use MailPolicy::PolicydSpf;

for my $missing (map { "MailPolicy::$_"->missing() } qw(Dnsmasq PolicydSpf)) {
    plan(skip_all => $missing) if $missing;
}

my $CLIENT = '192.0.2.1';
my $AWAY = '451 4.3.5 Server configuration problem';

my $t = MailPolicy->new();
my $redis = $t->run_redis();
my $relay = $t->run_relay(name => 'relay');

my $dns = MailPolicy::Dnsmasq->new($t,
    txt => {
        'pass.example'    => "v=spf1 ip4:$CLIENT -all",
        'fail.example'    => 'v=spf1 ip4:198.51.100.1 -all',
        'soft.example'    => 'v=spf1 ~all',
        'neutral.example' => 'v=spf1 ?all',
        'broken.example'  => 'v=spf1 nothing:known -all',
        'include.example' => 'v=spf1 include:pass.example -all',
        'a.example'       => 'v=spf1 a:mx.a.example -all',
    },
    host => { 'mx.a.example' => $CLIENT },
    silent => [ 'away.example' ]);

my @strict = ('TempError_Defer = True', 'PermError_reject = True');

my $spf = MailPolicy::PolicydSpf->new($t, dns => $dns,
    conf => [ @strict, 'Lookup_Time = 1' ]);

# takes long for some answers, which have no recipient in them
my $slow = MailPolicy::PolicydSpf->new($t, name => 'slow', dns => $dns,
    conf => [ @strict, 'Lookup_Time = 3', 'Hide_Receiver = Yes' ]);

$t->conf(<<"EOF");
mail {
    server_name       edge.example.com;
    policy_redis      redis://127.0.0.1:%%PORT_redis%% timeout=2s;
    policy            on;
    policy_auth       off;
    policy_received   on;
    proxy_pass        127.0.0.1:%%PORT_relay%%;
    set_real_ip_from  127.0.0.1;

    policy_limit      from  key=\$sender_domain  messages=100/1h
                            recipients=100/1h;

    server {
        listen          127.0.0.1:%%PORT_smtp%% proxy_protocol;
        protocol        smtp;
        policy_service  ${\$spf->address()};
    }

    server {
        listen          127.0.0.1:%%PORT_few%% proxy_protocol;
        protocol        smtp;
        policy_service  ${\$slow->address()} connections=2 timeout=2s;
    }

    # once for a message
    server {
        listen          127.0.0.1:%%PORT_data%% proxy_protocol;
        protocol        smtp;
        policy_service  ${\$spf->address()} at=data;
    }
}
EOF
$t->run_nginx();

my $sent = 0;

sub session {
    my ($port, $address) = @_;

    return $t->session($port // 'smtp', proxy => $address // $CLIENT,
        helo => 'helo.example');
}

# the replies to RCPT, and what follows

sub mail {
    my ($c, $from, @rcpts) = @_;

    $sent++;
    @rcpts = ('one@example.net', 'two@example.org') unless @rcpts;
    my @replies = $c->send_mail($from, \@rcpts,
        "Subject: number $sent\n\nx\n");
    shift @replies;
    return @replies;
}

# the last message that the relay got, the whole of it

sub delivered {
    my ($message) = reverse $relay->messages();
    return $message->{data} if $message && $message->{data}
        =~ /^Subject: number $sent\r$/m;
    return '';
}

sub fields { return scalar(() = $_[0] =~ /^Received-SPF:/mg) }


# what passes, and says so

my $c = session();

for my $case (
    [ 'pass', 'Pass' ],
    [ 'soft', 'Softfail' ],
    [ 'neutral', 'Neutral' ],
    [ 'none', 'None' ],
    [ 'include', 'Pass' ],
    [ 'a', 'Pass' ],
) {
    my ($name, $result) = @$case;

    is(codes(mail($c, "a\@$name.example")), '250 250 354 250',
        "$name.example: passes");
    like(delivered(), qr/\AReceived-SPF:\ $result\ \(mailfrom\)
        \ identity=mailfrom;\ client-ip=\Q$CLIENT\E;\ helo=helo\.example;
        \ envelope-from=a\@$name\.example;\ receiver=example\.net
        \r\nReceived:\ from\ /x, "$name.example: its field, first of all")
        or diag(delivered());
    is(fields(delivered()), 1, "$name.example: once");
    is_used($redis, "$name.example: is charged", 'from', "$name.example",
        messages => 1, recipients => 2, timeout => 5);
}

# what does not

for my $case (
    [ 'fail', 'SPF fail - not authorized', '550 5.7.23', 'rejected' ],
    [ 'broken', 'SPF Permanent Error: ', '550 5.7.2[34]', 'rejected' ],
    [ 'away', 'SPF Temporary Error: ', '450 4.7.24', 'deferred' ],
) {
    my ($name, $why, $status, $what) = @$case;
    my $since = time();
    my @replies = mail($c, "a\@$name.example");

    like($_, qr/^$status Message $what due to: $why.*s=mfrom;id=a\@$name\./,
        "$name.example: in its own words") for @replies[0, 1];
    is(scalar(@replies), 2, "$name.example: no recipient is left");
    is_used($redis, "$name.example: nothing is charged", 'from',
        "$name.example", messages => 0, recipients => 0, timeout => 5);
    cmp_ok(time() - $since, '<', 4, "$name.example: in time");
}

unlike(join('', $relay->transcripts()), qr/FROM:<a\@(?:fail|broken|away)\..*
    S:.*\nC:\ RCPT/x, 'of which the relay has heard of no recipient');

is(codes(mail($c, 'a@pass.example')), '250 250 354 250',
    'the session goes on');
is(fields(delivered()), 1, 'a field again, as it is another message');

is(codes(mail($c, '<>')), '250 250 354 250', 'a bounce');
like(delivered(), qr/\AReceived-SPF: None .*envelope-from=<>;.*\r\nReceived:/,
    'is looked at by its HELO');

is(codes(mail(session('smtp', '198.51.100.1'), 'a@fail.example')),
    '250 250 354 250', 'who may send for it');
is(codes(mail(session('smtp', '198.51.100.1'), 'a@pass.example')),
    '550 550', 'and for another one not');

# asked at DATA

my $data = session('data');
is(codes(mail($data, 'a@pass.example')), '250 250 354 250', 'at=data: passes');
is(fields(delivered()), 1, 'at=data: a field');
like(join("\n", mail($data, 'a@fail.example')),
    qr/^250 .*\n250 .*\n550 5\.7\.23 Message rejected due to: SPF fail/,
    'at=data: 550 to DATA');
is_used($redis, 'at=data: nothing is charged', 'from', 'fail.example',
    messages => 1, recipients => 2, timeout => 5);

# one process has answered all that; several sessions at once

is(scalar($spf->pids()), 1, 'one connection, one process');

my @many = map { session() } 1 .. 8;
my $since = time();

$_->cmd('MAIL FROM:<a@away.example>') for @many;
$_->send_raw("RCPT TO:<a\@example.net>\r\n") for @many;
is(codes(mail($c, 'a@pass.example')), '250 250 354 250',
    'while eight others wait for the DNS');
is(codes(map { $_->read_reply() } @many), '450 ' x 7 . '450',
    'who are told in the end');
cmp_ok(time() - $since, '<', 6, '(in parallel)');

my @pids = $spf->pids();
cmp_ok(scalar(@pids), '>=', 8, 'each by a process of its own');

$_->send_raw("RSET\r\nMAIL FROM:<a\@soft.example>\r\n"
    . "RCPT TO:<a\@example.net>\r\nDATA\r\n") for @many;
is(codes(map { my $c = $_; map { $c->read_reply() } 1 .. 4 } @many),
    join(' ', ('250 250 250 354') x 8), 'again');
$_->send_raw("Subject: many\r\n\r\nx\r\n.\r\n") for @many;
is(codes(map { $_->read_reply() } @many), '250 ' x 7 . '250', 'messages');
is(scalar(grep { fields($_->{data}) == 1 }
    grep { $_->{data} =~ /^Subject: many\r$/m } $relay->messages()), 8,
    'each with a field');
is(join(' ', grep { my $pid = $_; !grep { $_ == $pid } @pids } $spf->pids()),
    '', 'by the same processes');
$_->quit() for @many;

# recipients in one write: of one process, which knows what it has said, as
# its field names the domain of a recipient

my $at_once = session();
my @rcpts = map { "RCPT TO:<a\@$_.example>" } 'a' .. 'h';
is(codes($at_once->pipeline('MAIL FROM:<a@pass.example>', @rcpts, 'DATA')),
    '250 ' x 9 . '354', 'recipients in one write');
$at_once->send_raw("Subject: at once\r\n\r\nx\r\n.\r\n");
is(codes($at_once->read_reply()), '250', 'are taken');
like(($relay->messages())[-1]{data}, qr/\AReceived-SPF: Pass .*\r\nReceived: /,
    'one field for all of them');

# a process that is killed; all of them

kill('KILL', @pids);
ok($t->wait_for(sub { $spf->pids() == 0 }), 'all are killed');
is(codes(mail($c, 'a@pass.example')), '250 250 354 250', 'there is another');
is(fields(delivered()), 1, 'with its field');

# the DNS is away, and back

$dns->stop();
$since = time();
like((mail($c, 'a@pass.example'))[0], qr/^450 4\.7\.24 .*Temporary Error/,
    'without DNS');
cmp_ok(time() - $since, '<', 4, '(in time)');
$dns->start();
is(codes(mail($c, 'a@pass.example')), '250 250 354 250', 'with it');

# no more than connections=, the rest wait for their turn

my $asked = $dns->asked('TXT', 'away.example');
my $few = session('few');

@many = map { session('few') } 1 .. 10;
$_->cmd('MAIL FROM:<a@pass.example>') for @many;
$_->send_raw("RCPT TO:<a\@example.net>\r\n") for @many;
is(codes(map { $_->read_reply() } @many), '250 ' x 9 . '250', 'ten at once');
cmp_ok(scalar($slow->pids()), '<=', 2, 'over two connections');
$_->quit() for @many;

# the second recipient of a message is asked about of another process, as
# another session keeps the first one busy

my $busy = session('few');
$busy->cmd('MAIL FROM:<a@away.example>');
$few->cmd('MAIL FROM:<a@pass.example>');
is(codes($few->cmd('RCPT TO:<a@a.example>')), '250', 'one process');
$since = time();
$busy->send_raw("RCPT TO:<x\@example.net>\r\n");
ok($t->wait_for(sub { $dns->asked('TXT', 'away.example') > $asked }),
    'is waiting for the DNS');
is(codes($few->cmd('RCPT TO:<b@b.example>')), '250', 'another one');
is(scalar($slow->pids()), 2, '(two)');
$few->cmd('DATA');
$few->send_raw("Subject: both\r\n\r\nx\r\n.\r\n");
is(codes($few->read_reply()), '250', 'have their say');
like(($relay->messages())[-1]{data}, qr/\AReceived-SPF:\ Pass\ [^\r]*
    \ receiver=<UNKNOWN>\r\nReceived:\ /x, 'which is the same');

# less patience than the daemon has

is($busy->read_reply(), $AWAY, 'timeout: default_action');
cmp_ok(time() - $since, '<', 5, '(in time)');
is(codes(mail($few, 'a@pass.example')), '250 250 354 250',
    'what comes too late is no answer to the next one');

# no daemon at all

@pids = $spf->pids();
$spf->stop();
kill('KILL', @pids);
is((mail($c, 'a@pass.example'))[0], $AWAY, 'its Postfix is stopped');
$spf->start();
is(codes(mail($c, 'a@pass.example')), '250 250 354 250', 'and back');

# a worker that goes does not leave a process

$t->disconnect();
cmp_ok(scalar($spf->pids()), '>', 0, 'a process for nobody, but kept');
$t->reload();
ok($t->wait_for(sub { $spf->pids() == 0 }), 'ends with a reload');

$t->done();
