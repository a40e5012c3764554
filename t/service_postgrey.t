#!/usr/bin/perl

# "policy_service" and a real postgrey: what it defers and lets pass, its
# whitelists, its field in what the relay gets; its connections, which are
# kept; and what happens while it is away.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Test::More;
use Time::HiRes qw(sleep time);

use MailPolicy;
use MailPolicy::Dns;
use MailPolicy::Limits qw(codes is_used);
use MailPolicy::Postgrey;

plan(skip_all => MailPolicy::Postgrey::missing())
    if MailPolicy::Postgrey::missing();

my $DELAY = 5;
my $FRIEND = 'friend@example.net';
my $AWAY = '451 4.3.5 Server configuration problem';
my $GREY = qr{^450\ 4\.2\.0\ Greylisted,\ see
    \ http://postgrey\.schweikert\.ch/help/example\.net\.html$}x;

my $t = MailPolicy->new();
my $redis = $t->run_redis();
my $relay = $t->run_relay(name => 'relay');

# a name for one client
push @{ $t->{servers} }, MailPolicy::Dns->new(dir => $t->dir(),
    port => $t->port('dns'), ptr => { '198.51.100.9' => 'mx.big.example' },
    a => { 'mx.big.example' => '198.51.100.9' });

my $postgrey = MailPolicy::Postgrey->new($t,
    delay      => $DELAY,
    clients    => [ '203.0.113.0/24', 'big.example' ],
    recipients => [ $FRIEND, 'welcome@', 'open.example' ],
    args       => [ '--auto-whitelist-clients=0' ]);

# clients of which one message has passed are never asked to wait again
my $trusting = MailPolicy::Postgrey->new($t, name => 'trusting', unix => 1,
    delay => $DELAY, args => [ '--auto-whitelist-clients=1' ]);

my ($address, $socket) = ($postgrey->address(), $trusting->address());

$t->conf(<<"EOF");
mail {
    server_name       edge.example.com;
    policy_redis      redis://127.0.0.1:%%PORT_redis%% timeout=2s;
    policy            on;
    policy_auth       off;
    policy_received   on;
    proxy_pass        127.0.0.1:%%PORT_relay%%;
    set_real_ip_from  127.0.0.1;

    resolver          127.0.0.1:%%PORT_dns%% ipv6=off;

    policy_limit      client  key=\$remote_addr  messages=100/1h
                              recipients=100/1h;
    policy_service    $address;

    server {
        listen    127.0.0.1:%%PORT_smtp%% proxy_protocol;
        protocol  smtp;
    }

    server {
        listen          127.0.0.1:%%PORT_unix%% proxy_protocol;
        protocol        smtp;
        policy_service  $socket default_action=DUNNO;
    }

    server {
        listen          127.0.0.1:%%PORT_impatient%% proxy_protocol;
        protocol        smtp;
        policy_service  $address timeout=1s
                        "default_action=421 4.3.2 Come back";
    }

    server {
        listen          127.0.0.1:%%PORT_open%% proxy_protocol;
        protocol        smtp;
        policy_service  $address timeout=500ms default_action=DUNNO;
    }

    server {
        listen          127.0.0.1:%%PORT_off%% proxy_protocol;
        protocol        smtp;
        policy_service  off;
    }
}
EOF
$t->run_nginx();

# a message that says which it is; the replies to RCPT, and to its end if there
# is one

my $sent = 0;

sub mail {
    my ($c, $from, @rcpts) = @_;

    $sent++;
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

sub fields { return scalar(() = $_[0] =~ /^X-Greylist:/mg) }

# whether the relay was told of a recipient

sub told {
    my ($rcpt) = @_;
    return scalar grep { /^C: RCPT TO:<\Q$rcpt\E>/m } $relay->transcripts();
}


# the first time

my $first = time();
my $c = $t->session('smtp', proxy => '192.0.2.1');

my @replies = mail($c, 'a@example.com', 'one@example.net', 'two@example.net');
like($_, $GREY, 'deferred in its own words') for @replies[0, 1];
is(scalar(@replies), 2, 'and so is the message');
is_used($redis, 'nothing is charged', 'client', '192.0.2.1', messages => 0,
    recipients => 0, timeout => 5);
is(told('one@example.net') + told('two@example.net'), 0,
    'the relay has heard of no recipient');

my $unix = $t->session('unix', proxy => '192.0.2.50');

like((mail($unix, 'a@example.com', 'one@example.net'))[0], $GREY,
    'on a unix socket');
like((mail($c, 'a@example.com', 'one@example.net'))[0], $GREY,
    'again, too early');
like((mail($c, '<>', 'one@example.net'))[0], $GREY, 'another sender');
cmp_ok(time() - $first, '<', $DELAY, '(in time)');
is(scalar(grep { /^greylist/ } $postgrey->decisions()), 4,
    'postgrey was asked each time');

# some of the recipients

@replies = mail($c, 'a@example.com', 'three@example.net', $FRIEND,
    'welcome+more@example.org', 'x@sub.open.example', 'four@example.net');
is(codes(@replies), '450 250 250 250 450 354 250',
    'recipients that are whitelisted');
is_used($redis, 'are charged, no others', 'client', '192.0.2.1',
    messages => 1, recipients => 3, timeout => 5);
is(fields(delivered()), 0, 'without a field, as nobody waited');
is("@{ ($relay->messages())[-1]{rcpts} }",
    "$FRIEND welcome+more\@example.org x\@sub.open.example", 'and get it');

# clients that are whitelisted

for my $client ('203.0.113.7', '198.51.100.9') {
    my $known = $t->session('smtp', proxy => $client);
    is(codes(mail($known, 'a@example.com', 'one@example.net')),
        '250 354 250', "$client is whitelisted");
    is(fields(delivered()), 0, 'no field');
}

like($postgrey->log(), qr/client whitelist, client_name=mx\.big\.example,/,
    'one of them by its name');
is(codes(mail($t->session('off', proxy => '192.0.2.1'), 'a@example.com',
    'one@example.net')), '250 354 250', 'policy_service off');

# behind the delay, another host of the same network, too

my $wait = $first + $DELAY + 1.1 - time();
sleep($wait) if $wait > 0;

my $other = $t->session('smtp', proxy => '192.0.2.2');
is(codes(mail($other, 'a@example.com', 'one@example.net', 'two@example.net')),
    '250 250 354 250', 'they pass');
is(fields(delivered()), 1, 'with one field for both');
like(delivered(), qr/\AX-Greylist:\ delayed\ \d+\ seconds\ by\ postgrey-\S+
    \ at\ edge\.example\.com;\ [^\r\n]+\r\nReceived:\ /x,
    'in front of Received') or diag(delivered());
is_used($redis, 'and are charged', 'client', '192.0.2.2', messages => 1,
    recipients => 2, timeout => 5);

is(codes(mail($other, 'a@example.com', 'one@example.net', 'two@example.net',
    'new@example.net')), '250 250 450 354 250', 'the next one');
is(fields(delivered()), 0, 'has no field');

# refused by the relay, at DATA and after the message

$relay->set(rcpt => { match => qr/three/, action => '550 5.1.1 Nobody' });
is(codes(mail($c, 'a@example.com', 'three@example.net', 'four@example.net')),
    '550 250 354 250', 'a recipient that has waited, for nothing');
is(fields(delivered()), 1, 'its field is that of the message');
$relay->set(rcpt => undef);

# auto-whitelisted by what has passed

is(codes(mail($unix, 'a@example.com', 'one@example.net')), '250 354 250',
    'unix socket: passes');
is(fields(delivered()), 1, 'with its field');
is(codes(mail($unix, 'b@example.com', 'never@example.net')), '250 354 250',
    'auto-whitelisted: another sender, another recipient');
is(fields(delivered()), 0, 'nobody waited');
like(($trusting->decisions())[-1], qr/client AWL/, 'as postgrey says');
like((mail($t->session('unix', proxy => '192.0.2.51'), 'b@example.com',
    'never@example.net'))[0], $GREY, 'not so its neighbour');

# connections

is($_->accepted(), 1, 'one connection for all that')
    for $postgrey, $trusting;

my @many = map { $t->session('smtp', proxy => "203.0.113.$_") } 1 .. 30;
$_->send_raw("MAIL FROM:<a\@example.com>\r\n") for @many;
is(codes(map { $_->read_reply() } @many), '250 ' x 29 . '250', 'many at once');
$_->send_raw("RCPT TO:<all\@example.net>\r\n") for @many;
is(codes(map { $_->read_reply() } @many), '250 ' x 29 . '250',
    'are answered');
cmp_ok($postgrey->connections(), '<=', 20, 'over no more than connections=');

$_->send_raw("RSET\r\nMAIL FROM:<a\@example.com>\r\n"
    . "RCPT TO:<all\@example.net>\r\n") for @many;
is(codes(map { my $c = $_; map { $c->read_reply() } 1 .. 3 } @many),
    '250 ' x 89 . '250', 'once more');
cmp_ok($postgrey->accepted(), '<=', 20, 'over the same ones');
$_->quit() for @many;

# away amid sessions

my $open = $t->session('open', proxy => '192.0.2.3');
my $busy = $t->session('impatient', proxy => '192.0.2.4');

$_->cmd('MAIL FROM:<a@example.com>') for $c, $open, $busy;
like($c->cmd('RCPT TO:<five@example.net>'), $GREY, 'a session in which');
$postgrey->kill_now();
is($c->cmd("RCPT TO:<$FRIEND>"), $AWAY, 'postgrey is killed');
is(codes($open->cmd('RCPT TO:<five@example.net>')), '250',
    'default_action=DUNNO: passes');
is($busy->cmd('RCPT TO:<five@example.net>'), '421 4.3.2 Come back',
    'default_action=421');
ok($busy->wait_close(5), 'which closes the session');
is(codes($open->cmd("RCPT TO:<$FRIEND>")), '250', 'and another recipient');
is_used($redis, 'which is charged', 'client', '192.0.2.3', messages => 1,
    recipients => 2, timeout => 5);
is_used($redis, 'what is not answered is not', 'client', '192.0.2.4',
    messages => 0, recipients => 0, timeout => 5);

$postgrey->start();
is(codes($c->cmd("RCPT TO:<$FRIEND>")), '250', 'it is back, in that session');
like($c->cmd('RCPT TO:<six@example.net>'), $GREY, 'and makes others wait');
$_->cmd('RSET') for $c, $open;
is(codes(mail($c, 'a@example.com', 'one@example.net')), '250 354 250',
    'but not who has waited already');

# killed with a question, and back within a second, which it may need some
# attempts for

$_->cmd('MAIL FROM:<a@example.com>') for $c, $open;

for my $attempt (1 .. 5) {
    kill('STOP', $postgrey->pid());
    $c->send_raw("RCPT TO:<$FRIEND>\r\n"
        . "RCPT TO:<seven$attempt\@example.net>\r\n");
    $replies[0] = $c->read_reply(0.3);
    $postgrey->kill_now();
    $postgrey->start();
    @replies[1, 2] = ($c->read_reply(), $c->read_reply());
    last if $replies[1] ne $AWAY;
}

is($replies[0], 'TIMEOUT', 'a question that is not answered');
is(codes($replies[1]), '250', 'is asked again of the next one');
like($replies[2], $GREY, 'and so is the one behind it');

# does not answer; what it answers too late is nobody's

my $since = time();
kill('STOP', $postgrey->pid());
is(codes($open->cmd('RCPT TO:<eight@example.net>')), '250',
    'hangs: default_action behind the timeout');
cmp_ok(time() - $since, '<', 4, '(in time)');
kill('CONT', $postgrey->pid());
$open->cmd('RSET');
is(codes(mail($open, 'a@example.com', $FRIEND)), '250 354 250',
    'then answers again');
like((mail($open, 'a@example.com', 'nine@example.net'))[0], $GREY,
    'each what it was asked');

# a worker that goes closes what it kept

$_->quit() for $c, $open, $other, $unix;
cmp_ok($postgrey->connections(), '>', 0, 'kept, and nobody there');
$t->reload();
ok($t->wait_for(sub { $postgrey->connections() == 0 }),
    'a reload: not kept any more');
is(codes(mail($t->session('smtp', proxy => '192.0.2.1'), 'a@example.com',
    $FRIEND)), '250 354 250', 'the next worker asks over another one');

$t->done();
