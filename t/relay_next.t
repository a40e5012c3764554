#!/usr/bin/perl

# Which relay a message goes to: the next one of a group where that is
# allowed, weights, backup, down, max_fails, routes from map; and the
# connection to a relay that a session keeps.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Test::More;

use MailPolicy;

my $t = MailPolicy->new();
my %relay = map { $_ => $t->run_relay(name => $_) } qw(a b c);
my $redis = $t->run_redis();

my %GROUP = (
    next   => "server %a max_fails=0; server %b max_fails=0 backup;",
    weight => "server %a weight=3; server %b;",
    down   => "server %a down; server %b; server %c backup;",
    fails  => "server %a weight=9 max_fails=2 fail_timeout=1h; server %b;",
    back   => "server %a weight=9 fail_timeout=1s; server %b;",
    all    => "server %a fail_timeout=1h; server %b fail_timeout=1h;",
    one    => "server %a;",
    other  => "server %b;",
);

my $groups = join('', map { "    upstream $_ { $GROUP{$_} }\n" }
    sort keys %GROUP);
$groups =~ s/%(\w)/127.0.0.1:%%PORT_$1%%/g;

my @routes = (sort(keys %GROUP),
    '$by_sender', '$by_recipient', '$sender_domain');

my $servers = join('', map { <<"EOF" } @routes);
    server {
        listen      127.0.0.1:%%PORT_@{[ $_ =~ s/\W//r ]}%%;
        protocol    smtp;
        proxy_pass  $_;
    }
EOF

$t->conf(<<"EOF");
mail {
    server_name    edge.example.com;
    access_log     %%DIR%%/access.log;
    policy_redis   redis://127.0.0.1:%%PORT_redis%% timeout=5s;
    policy         on;
    policy_auth    off;
    proxy_timeout  20s;

$groups
    map \$sender_domain \$by_sender {
        default            one;
        news.example.com   other;
    }

    map \$recipient_domain \$by_recipient {
        default            one;
        b.example          other;
        x.b.example        other;
        next.example       next;
    }

$servers
    server {
        listen        127.0.0.1:%%PORT_limit%%;
        protocol      smtp;
        proxy_pass    one;
        policy_limit  sender key=\$sender messages=1/1h;
    }
}
EOF
$t->run_nginx();

my %seen;

# the names of the relays that got a message since the last call

sub taken {
    my $taken = '';

    for my $name (sort keys %relay) {
        my $now = $relay{$name}->stats()->{messages};
        $taken .= $name x ($now - ($seen{$name} // 0));
        $seen{$name} = $now;
    }

    return $taken;
}


sub session {
    my ($where) = @_;

    return $t->session($where);
}


# the codes of a whole message in a session of its own

sub message {
    my ($where, $from, @to) = @_;

    my $c = session($where);
    my @replies = $c->send_mail($from // 's@example.com',
        @to ? \@to : [ 'r@example.net' ], "x\n");
    $c->quit();
    return join(' ', map { substr($_, 0, 3) } @replies);
}


# the next one of the group

for my $case ([ connect => 'refuse' ], [ connect => 'rst' ],
    [ greeting => '554 5.3.2 never' ], [ greeting => 'close' ],
    [ greeting => 'garbage' ], [ ehlo => '421 4.3.2 closing' ],
    [ ehlo => '550 5.0.0 no' ], [ mail => '421 4.3.2 closing' ],
    [ mail => 'rst' ], [ xclient => '550 5.7.0 not you' ])
{
    my ($stage, $action) = @$case;

    $relay{a}->set($stage => $action,
        extensions => [ $stage eq 'xclient' ? 'XCLIENT ADDR' : (),
                        'PIPELINING' ]);
    is(message('next'), '250 250 354 250', "$stage $action: the next relay");
    is(taken(), 'b', "$stage $action: has it");
    $relay{a}->set($stage => undef);
}

$relay{a}->set(mail => '421 4.3.2 closing', extensions => [ 'PIPELINING' ]);
my $c = session('next');
is(join(' ', map { substr($_, 0, 3) } $c->pipeline('MAIL FROM:<s@example.com>',
    'RCPT TO:<1@example.net>', 'RCPT TO:<2@example.net>', 'DATA')),
    '250 250 250 354', 'pipelined: the next relay gets all of it');
like($c->cmd("x\r\n."), qr/^250 /, 'pipelined: accepted');
is_deeply(($relay{b}->wait_messages(11))[-1]{rcpts},
    [ '1@example.net', '2@example.net' ], 'pipelined: both, and once');
$relay{a}->set(mail => undef);
taken();

# not the next one, once the client has heard of the first

for my $case ([ mail => '550 5.1.8 no', '550' ],
    [ mail => '450 4.1.8 later', '450' ], [ rcpt => 'close', '250 451' ],
    [ rcpt => '550 5.1.1 no', '250 550' ], [ data => 'close', '250 250 451' ],
    [ data => '554 5.0.0 no', '250 250 554' ],
    [ dot => 'close', '250 250 354 451' ],
    [ dot => '450 4.0.0 later', '250 250 354 450' ])
{
    my ($stage, $action, $codes) = @$case;

    $relay{a}->set($stage => $action);
    is(message('next'), $codes, "$stage $action: no next relay");
    is(taken(), '', "$stage $action: nobody has it");
    $relay{a}->set($stage => undef);
}

$relay{$_}->set(connect => 'refuse') for qw(a b);
is(message('next'), '451', 'both are away');
is(message('next'), '451', 'both are away still');
$relay{$_}->set(connect => undef) for qw(a b);

# weights, down, backup

message('weight') for 1 .. 8;
is(taken(), 'aaaaaabb', 'weight=3 against 1');
message('down') for 1 .. 3;
is(taken(), 'bbb', 'neither one that is down nor the backup');
$relay{b}->set(greeting => '421 4.3.2 closing');
message('down');
is(taken(), 'c', 'the backup, when no other is left');
$relay{b}->set(greeting => undef);

# max_fails, fail_timeout

sub tries { return $relay{a}->stats()->{total} }

$relay{a}->set(greeting => '554 5.3.2 never');
my $tries = tries();
is(message('fails'), '250 250 354 250', "max_fails=2: message $_") for 1 .. 6;
is(taken(), 'bbbbbb', 'max_fails=2: all at the other one');
is(tries() - $tries, 2, 'max_fails=2: two attempts');

$tries = tries();
message('back');
message('back');
is(tries() - $tries, 1, 'fail_timeout=1s: set aside');
$relay{a}->set(greeting => undef);
taken();
ok($t->wait_for(sub { message('back'); taken() =~ /a/ }),
    'fail_timeout=1s: back again');

$relay{$_}->set(greeting => '421 4.3.2 closing') for qw(a b);
is(message('all'), '451', 'all of a group fail');
$relay{$_}->set(greeting => undef) for qw(a b);
is(message('all'), '250 250 354 250', 'all set aside: asked all the same');
taken();

# routes

message('by_sender', 's@example.com');
is(taken(), 'a', '$sender_domain: default');
message('by_sender', 's@NEWS.example.com');
is(taken(), 'b', '$sender_domain: in the map');
message('by_sender', '');
is(taken(), 'a', '$sender_domain: null sender');
is(message('sender_domain', 's@one'), '250 250 354 250', 'a group by name');
is(message('sender_domain', 's@nobody'), '451', 'no such group');
taken();

$c = session('by_sender');
$c->send_mail("s\@$_", [ 'r@example.net' ], "x\n")
    for qw(example.com news.example.com example.com);
is(taken(), 'aab', '$sender_domain: by transaction');

$c = session('by_recipient');
my $elsewhere = qr/^452 4\.5\.3 .*separate transaction/;
like($c->cmd('MAIL FROM:<s@example.com>'), qr/^250 /, 'MAIL');
like($c->cmd('RCPT TO:<r@x.b.example>'), qr/^250 /, 'first recipient');
like($c->cmd('RCPT TO:<r@example.net>'), $elsewhere,
    'RELAY-9 a recipient with another route');
like($c->cmd('RCPT TO:<q@B.EXAMPLE>'), qr/^250 /, 'one with the same');
like($c->cmd('DATA'), qr/^354 /, 'DATA');
like($c->cmd("x\r\n."), qr/^250 /, 'accepted');
is(taken(), 'b', '$recipient_domain: route of the first');
is_deeply(($relay{b}->messages())[-1]{rcpts},
    [ 'r@x.b.example', 'q@B.EXAMPLE' ],
    'RELAY-9 no recipient of another route');

is(join(' ', map { substr($_, 0, 3) } $c->send_mail('s@example.com',
    [ 'r@example.net' ], "x\n")), '250 250 354 250', 'its own transaction');
is(taken(), 'a', 'RELAY-9 and by its own route');

$relay{a}->set(rcpt => '550 5.1.1 no');
is(join(' ', map { substr($_, 0, 3) } $c->send_mail('s@example.com',
    [ 'r@example.net', 'r@b.example' ], "x\n")), '250 550 250 354 250',
    'a refused recipient has not chosen for all');
is(taken(), 'b', 'a refused recipient: the relay of the other');
$relay{a}->set(rcpt => undef, mail => '550 5.1.8 no');
is(join(' ', map { substr($_, 0, 3) } $c->send_mail('s@example.com',
    [ 'r@example.net', 'r@b.example' ], "x\n")), '250 550 250 354 250',
    'MAIL refused: told to the recipients of that route');
is(taken(), 'b', 'MAIL refused: the relay of the other');
is(join(' ', map { substr($_, 0, 3) } $c->send_mail('s@example.com',
    [ 'r@example.net', 'q@example.net' ], "x\n")), '250 550 550',
    'MAIL refused: told to the next one as well');
is(join(' ', map { substr($_, 0, 3) } $c->send_mail('s@example.com',
    [ 'r@next.example', 'q@next.example' ], "x\n")), '250 550 550',
    'MAIL refused: no other relay is asked for the next one');
is(taken(), '', 'MAIL refused: nobody has it');
$relay{a}->set(mail => undef, rcpt => '550 5.1.1 no');
$c->cmd('MAIL FROM:<s@example.com>');
like($c->cmd('RCPT TO:<r@example.net>'), qr/^550 /, 'refused by one group');
$relay{a}->set(rcpt => undef, connect => 'refuse');
like($c->cmd('RCPT TO:<r@next.example>'), qr/^250 /,
    'what it said is no reason not to ask all of another group');
$c->cmd('RSET');
$relay{a}->set(connect => undef);
$c->quit();

# the connection is kept for the session

sub total { return $relay{a}->stats()->{total} }

my $total = total();
$c = session('one');
$c->send_mail('s@example.com', [ 'r@example.net' ], "x\n") for 1 .. 5;
is(total() - $total, 1, 'one connection for five messages');
$c->ehlo('other.example');
$c->send_mail('s@example.com', [ 'r@example.net' ], "x\n");
is(total() - $total, 2, 'TRUST-4 but not beyond EHLO');

for my $case ([ dot => { reply => '250 Ok', close => 1 } ],
    [ dot => '250 Ok', mail => { times => 1, action => 'close' } ],
    [ dot => '250 Ok', mail => { times => 1, action => 'rst' } ],
    [ dot => '250 Ok', mail => { times => 1, action => '421 4.4.2 idle' } ])
{
    my (undef, $dot, undef, $mail) = @$case;
    my $name = 'stale: ' . ($mail ? $mail->{action} : 'closed while idle');

    $c = session('one');
    $relay{a}->set(dot => $dot);
    $c->send_mail('s@example.com', [ 'r@example.net' ], "x\n");
    $relay{a}->set(dot => undef, mail => $mail);
    $total = total();
    is(join(' ', map { substr($_, 0, 3) } $c->send_mail('s@example.com',
        [ 'r@example.net' ], "x\n")), '250 250 354 250', $name);
    is(total() - $total, 1, "$name: a new connection");
    $c->quit();
}

$relay{a}->set(mail => undef);

# a MAIL that the limit refused, and that the relay refuses later; without
# the store's way back the relay would not have heard of it

$t->wait_for(sub { $redis->cmd('CLIENT', 'LIST') =~ tr/\n// > 1 });
$c = session('limit');
$c->send_mail('twice@example.com', [ 'r@example.net' ], "x\n");
$relay{a}->set(mail => { match => qr/twice/, delay => 0.3,
    then => '550 5.1.8 no' });
like($c->cmd('MAIL FROM:<twice@example.com>'), qr/^450 4\.7\.1 /, 'limit');
like($c->cmd('MAIL FROM:<b@example.com>'), qr/^250 /, 'the next MAIL');
is(scalar(grep { /MAIL FROM:<twice/ } split /\n/,
    ($relay{a}->transcripts())[-1]), 2, 'the relay has been asked');
like($c->cmd('RSET'), qr/^250 /, 'is taken back');
is(join(' ', map { substr($_, 0, 3) } $c->send_mail('c@example.com',
    [ 'r@example.net' ], "x\n")), '250 250 354 250',
    'STATE-11 the relay was told so');
$relay{a}->set(mail => undef);

# what the relay does not offer

$relay{a}->set(extensions => [ 'SIZE' ]);
$c = session('one');
is(join(' ', map { substr($_, 0, 3) } $c->pipeline('MAIL FROM:<s@example.com>',
    'RCPT TO:<1@example.net>', 'RCPT TO:<2@example.net>', 'DATA')),
    '250 250 250 354', 'no PIPELINING: one command at a time');
$c->cmd("x\r\n.");
like($c->cmd('MAIL FROM:<s@example.com> SIZE=7'), qr/^250 /, 'EXT-2 SIZE');
$c->quit();
my @said = grep { /BODY|SIZE=/ } map { split /\n/ } $relay{a}->transcripts();
is($said[-1], 'C: MAIL FROM:<s@example.com> SIZE=7',
    'EXT-1 a parameter that is offered');

like($t->error_log(), qr/relay "127.0.0.1:\d+" is set aside/, 'logged');
$t->done();
