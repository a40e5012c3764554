#!/usr/bin/perl

# The asynchronous matrix, where other policy servers are asked (A12): about a
# recipient; and what only that has.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Test::More;
use Time::HiRes qw(sleep);

use MailPolicy::AsyncRedis;
use MailPolicy::AsyncService;

use constant { LATE => MailPolicy::AsyncRedis::LATE,
               SOON => MailPolicy::AsyncRedis::SOON };

my $s = MailPolicy::AsyncService->new('rcpt');
my ($t, $relay, $service, $async) = @$s{qw(t relay service async)};

$s->matrix();

# the relay refuses MAIL while servers are asked

my $name = 'MAIL is refused meanwhile';
my @GROUP = ('MAIL FROM:<a@example.com>',
    map { "RCPT TO:<$_\@example.net>" } qw(x y z));

$s->mode('rcpt', 'late');
$relay->set(mail => { delay => 0.4, then => '550 5.1.0 No' });

my $c = $async->session('main');
is(join(' ', map { substr($_, 0, 3) } $c->pipeline(@GROUP)),
    '550 503 503 503', "$name: nobody is left");
$s->goes_on($c, $name);
sleep(LATE);
$c->close();
$relay->set(mail => undef);
$s->steady($name);

# 421 to a recipient, before MAIL has its reply; the limits have refused the
# one behind it: no more is said, and nobody looks at what was due

$name = '421 behind a refused MAIL';
$service->set({ recipient => qr/^x@/, answer => '421 4.7.0 bye', then => 'close' },
    { answer => 'REJECT no', then => 'close' });
$relay->set(mail => { delay => 0.4, then => '550 5.1.0 No' });
$c = $async->session('main');
$c->send_raw(join('', map { "$_\r\n" } @GROUP, 'NOOP', 'QUIT'));
like($c->read_reply(), qr/^550 /, "$name: 550");
is($c->read_reply(), '421 4.7.0 bye', "$name: 421");
is($c->read_reply(), 'CLOSED', "$name: nothing else");
$relay->set(mail => undef);
$s->steady($name);

# two answers in one loop turn: one ends its session

for my $last (qw(x z)) {
    $name = $s->cell('rcpt', 'E10', "421 to $last, and an answer");
    $service->set({ recipient => qr/^$last@/, answer => '421 4.7.0 bye',
        delay => SOON, then => 'close' }, $s->then('soon'));

    my $before = () = $service->requests();
    my @clients = map { $async->session('main') } 1 .. 2;

    $clients[$_]->send_raw("$GROUP[0]\r\n$GROUP[$_ ? 3 : 1]\r\nNOOP\r\n")
        for 0, 1;
    $t->wait_for(sub { (() = $service->requests()) == $before + 2 });
    $async->one_turn(sub { sleep(SOON + 0.05) });

    my ($bye, $other) = $last eq 'x' ? @clients : reverse @clients;
    is(join(' ', map { substr($bye->read_reply(), 0, 3) } 1 .. 3),
        '250 421 CLO', "$name: one is told");
    is(join(' ', map { substr($other->read_reply(), 0, 3) } 1 .. 3),
        '250 250 250', "$name: the other one goes on");
    $s->steady($name);
}

$s->ends();
