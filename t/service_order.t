#!/usr/bin/perl

# Several lines of policy_service: they are asked one after the other, and
# what one says may decide for the others, or wait for what they say.  Limits
# come first, conditions and inheritance are as with limits, and recipients
# that come together are asked about together.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Test::More;

use MailPolicy;
use MailPolicy::Limits qw(wait_used);
use MailPolicy::PolicyServer;

my $t = MailPolicy->new();
my $redis = $t->run_redis();
my $relay = $t->run_relay(name => 'relay');

my %service = map { $_ => MailPolicy::PolicyServer->new(dir => $t->dir(),
    name => $_, path => $t->dir() . "/$_.sock") } qw(a b c slow);

$t->conf(<<'EOF');
mail {
    policy_redis    redis://127.0.0.1:%%PORT_redis%% timeout=5s;
    policy_limit    s  key=$sender  messages=1000/1h  recipients=5000/1h;
    policy_auth     off;
    policy          on;
    proxy_pass      127.0.0.1:%%PORT_relay%%;
    policy_service  unix:%%DIR%%/a.sock timeout=5s;
    policy_service  unix:%%DIR%%/b.sock timeout=5s default_action=DUNNO;
    policy_service  unix:%%DIR%%/c.sock timeout=5s
                    "default_action=550 5.3.5 No c";

    map $sender $picky { picky@example.com 1; other@example.com 0; }

    server {
        listen    127.0.0.1:%%PORT_rcpt%%;
        protocol  smtp;
    }

    server {
        listen          127.0.0.1:%%PORT_points%%;
        protocol        smtp;
        policy_service  unix:%%DIR%%/c.sock at=end;
        policy_service  unix:%%DIR%%/b.sock at=data;
        policy_service  unix:%%DIR%%/a.sock;
    }

    server {
        listen          127.0.0.1:%%PORT_off%%;
        protocol        smtp;
        policy_service  off;
    }

    server {
        listen          127.0.0.1:%%PORT_if%%;
        protocol        smtp;
        policy_service  unix:%%DIR%%/a.sock if=$picky;
        policy_service  unix:%%DIR%%/b.sock at=end if=$picky;
    }

    server {
        listen          127.0.0.1:%%PORT_limit%%;
        protocol        smtp;
        policy_limit    one  key=$sender  messages=1/1h;
        policy_service  unix:%%DIR%%/a.sock;
    }

    server {
        listen          127.0.0.1:%%PORT_login%%;
        protocol        smtp;
        policy_auth     redis;
        policy_service  unix:%%DIR%%/a.sock;
    }

    server {
        listen          127.0.0.1:%%PORT_slow%%;
        protocol        smtp;
        policy_service  unix:%%DIR%%/slow.sock;
    }
}
EOF
$t->run_nginx();

my $SENDER = 'alice@example.com';
my $BODY = "Subject: test\r\n\r\ntext\r\n";
my %asked;


# which of them were asked since the last time

sub asked {
    my $text = '';

    for my $name (qw(a b c)) {
        my $now = () = $service{$name}->requests();
        $text .= $name x ($now - ($asked{$name} // 0));
        $asked{$name} = $now;
    }

    return $text;
}


sub answers {
    my (%answer) = @_;

    $service{$_}->set($answer{$_} // 'DUNNO') for qw(a b c);
}


# one recipient, one message: the last reply

sub send_one {
    my ($where, $sender) = @_;

    my $c = $t->session($where);
    my @replies = $c->send_mail($sender // $SENDER, [ 'bob@example.net' ],
        $BODY);

    $c->quit();
    return $replies[-1];
}


# [ answers, reply, who was asked ]

for my $case (
    [ [],                                   250, 'abc' ],
    [ [ a => 'OK', b => 'REJECT' ],         250, 'a' ],
    [ [ b => 'permit', c => 'REJECT' ],     250, 'ab' ],
    [ [ a => 'REJECT one', b => 'REJECT' ], '554 5.7.1 one', 'a' ],
    [ [ b => '450 two', c => 'REJECT' ],    '450 4.7.1 two', 'ab' ],

    [ [ a => 'DEFER_IF_PERMIT one' ],       '450 4.7.1 one', 'abc' ],
    [ [ b => 'DEFER_IF_PERMIT one', c => 'DEFER_IF_PERMIT two' ],
                                            '450 4.7.1 one', 'abc' ],
    [ [ a => 'DEFER_IF_PERMIT one', b => 'OK', c => 'REJECT' ],
                                            '450 4.7.1 one', 'ab' ],
    [ [ a => 'DEFER_IF_PERMIT one', c => 'REJECT three' ],
                                            '554 5.7.1 three', 'abc' ],
    [ [ a => 'DEFER_IF_PERMIT one', b => '421 4.3.2 two' ],
                                            '421 4.3.2 two', 'ab' ],
    [ [ a => 'DEFER_IF_PERMIT one', b => '451 4.3.0 two' ],
                                            '451 4.3.0 two', 'ab' ],

    [ [ a => 'DEFER_IF_REJECT one' ],       250, 'abc' ],
    [ [ a => 'DEFER_IF_REJECT one', b => 'OK' ], 250, 'ab' ],
    [ [ a => 'DEFER_IF_REJECT one', b => 'REJECT two' ],
                                            '450 4.7.1 one', 'ab' ],
    [ [ a => 'DEFER_IF_REJECT 4.3.0 one', b => 'DEFER_IF_REJECT two',
        c => '521 three' ],                 '450 4.3.0 one', 'abc' ],
    [ [ a => 'DEFER_IF_REJECT one', b => '451 4.3.0 two' ],
                                            '451 4.3.0 two', 'ab' ],
    [ [ a => 'REJECT one', b => 'DEFER_IF_REJECT two' ],
                                            '554 5.7.1 one', 'a' ],

    [ [ a => 'DEFER_IF_REJECT one', b => 'DEFER_IF_PERMIT two' ],
                                            '450 4.7.1 two', 'abc' ],
    [ [ a => 'DEFER_IF_PERMIT one', b => 'DEFER_IF_REJECT two',
        c => 'REJECT three' ],              '450 4.7.1 two', 'abc' ],

    [ [ a => 'INFO x', b => 'WARN x', c => 'REJECT three' ],
                                            '554 5.7.1 three', 'abc' ],
    [ [ a => 'PREPEND X-A: b', b => 'OK' ], 250, 'ab' ],

    # default_action of each of them
    [ [ a => 'FILTER x:y' ], '451 4.3.5 Server configuration problem', 'a' ],
    [ [ b => 'HOLD' ],                      250, 'abc' ],
    [ [ c => 'nonsense' ],                  '550 5.3.5 No c', 'abc' ],
    [ [ a => 'DEFER_IF_REJECT one', c => 'nonsense' ],
                                            '450 4.7.1 one', 'abc' ],
) {
    my ($answers, $expected, $asked) = @$case;
    my $name = join(', ', map { $answers->[$_ * 2] . ' '
        . $answers->[$_ * 2 + 1] } 0 .. @$answers / 2 - 1) || 'DUNNO';

    answers(@$answers);
    like(send_one('rcpt'), qr/^$expected(?:$| 2\.0\.0 )/, "$name: reply");
    is(asked(), $asked, "$name: asked");
}

# one after the other, in the order of the configuration

answers(a => { answer => 'DUNNO', delay => 0.5 });
my $c = $t->session('rcpt');
$c->pipeline("MAIL FROM:<$SENDER>");
$c->send_raw("RCPT TO:<bob\@example.net>\r\n");
ok($t->wait_for(sub { asked() eq 'a' }), 'the first one is asked');
is(asked(), '', 'and no other one before it answers');
like($c->read_reply(), qr/^250 /, 'nobody has anything against it');
is(asked(), 'bc', 'all have been asked then');
$c->quit();

# each at its point, whatever the order of the lines

answers(a => { answer => 'DEFER_IF_PERMIT later', recipient => qr/^bob/ });
$c = $t->session('points');
my @replies = $c->send_mail($SENDER, [ 'bob@example.net', 'eve@example.net' ],
    $BODY);
is(join(' ', map { substr($_, 0, 3) } @replies), '250 450 250 354 250',
    'deferred is a recipient, not what follows');
is(asked(), 'aabc', 'one is asked at each point');

for my $name (qw(b c)) {
    my ($request) = ($service{$name}->requests())[-1];

    is($request->{recipient}, 'eve@example.net', "$name: who is left");
    is($request->{recipient_count}, 1, "$name: counts");
}

answers(b => 'REJECT two');
like(send_one('points'), qr/^554 5\.7\.1 two$/, 'DATA refused');
is(asked(), 'ab', 'the end of it is not asked about');

# inheritance, conditions

like(send_one('off'), qr/^250 /, 'policy_service off');
is(asked(), '', 'asks nobody');

answers();

for my $case ([ $SENDER => '' ], [ 'other@example.com' => '' ],
              [ 'picky@example.com' => 'ab' ])
{
    like(send_one('if', $case->[0]), qr/^250 /, "if=: $case->[0]");
    is(asked(), $case->[1], "if=: $case->[0]: asked");
}

# limits come first, and who may not relay is not asked about

answers(a => 'OK');
like(send_one('limit', 'one@example.com'), qr/^250 /, 'within the limit');
is(asked(), 'a', 'a server is asked');
like(send_one('limit', 'one@example.com'), qr/^450 4\.7\.1 Rate limit "one"/,
    'OK does not lift a limit');
is(asked(), '', 'nor is it asked for');

like(send_one('login'), qr/^530 /, 'OK does not replace a login');
is(asked(), '', 'nor is it asked for');

# what one has refused is not charged, the others are

answers(b => { recipient => qr/^no/, answer => 'REJECT no' });
my $before = wait_used($redis, 's', 'some@example.com', [ 0, 0 ]);
$c = $t->session('rcpt');
@replies = $c->send_mail('some@example.com',
    [ map { "$_\@example.net" } qw(no1 a no2 b no3) ], $BODY);
is(join(' ', map { substr($_, 0, 3) } @replies),
    '250 554 250 554 250 554 354 250', 'three of five are refused');
is_deeply(wait_used($redis, 's', 'some@example.com', [ 1, 2 ]), [ 1, 2 ],
    'two are charged');
$c->quit();
asked();

# recipients in one write: asked about, answered and relayed in their order,
# one at a time, as a server may go by what it has heard before

my @rcpts = map { "r$_\@example.net" } 1 .. 20;

$service{slow}->set(
    { recipient => qr/^r[1-9]?[02468]@/, answer => 'REJECT even' },
    { answer => 'DUNNO', delay => 0.05 });

$c = $t->session('slow');
@replies = $c->pipeline("MAIL FROM:<$SENDER>",
    (map { "RCPT TO:<$_>" } @rcpts), 'DATA');

is(join(' ', map { substr($_, 0, 3) } @replies),
    '250 ' . '250 554 ' x 10 . '354', 'pipelined: replies in their order');
is_deeply([ map { $_->{recipient} } $service{slow}->requests() ], \@rcpts,
    'pipelined: asked about in their order');
$c->send_raw("$BODY.\r\n");
like($c->read_reply(), qr/^250 /, 'pipelined: the message');
is_deeply(($relay->messages())[-1]{rcpts}, [ grep { !/[02468]@/ } @rcpts ],
    'pipelined: for whom it is');
is($service{slow}->connections(), 1, 'pipelined: over one connection');

# 421 to one of them: those before it are answered, and no other one

$service{slow}->set({ recipient => qr/^r3@/, answer => '421 4.7.0 enough' },
    { answer => 'DUNNO', delay => 0.3 });

$c = $t->session('slow');
$c->send_raw(join('', map { "$_\r\n" } "MAIL FROM:<$SENDER>",
    (map { "RCPT TO:<r$_\@example.net>" } 1 .. 5), 'DATA', 'QUIT'));

my @lines = map { $c->read_reply() } 1 .. 4;
is(join(' ', map { substr($_, 0, 3) } @lines), '250 250 250 421',
    '421: what was before it, and it');
like($lines[3], qr/^421 4\.7\.0 enough$/, '421: its text');
is($c->read_reply(), 'CLOSED', '421: the session ends with it');
is(($service{slow}->requests())[-1]{recipient}, 'r3@example.net',
    '421: none of those behind it was asked about');

$t->done();
