#!/usr/bin/perl

# A server of "policy_service" that says all that it should not: what is done
# then is default_action, nobody waits for ever, and the next question finds
# its way.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Test::More;
use Time::HiRes qw(sleep time);

use MailPolicy;
use MailPolicy::PolicyServer;

use constant TIMEOUT => 1;

my $t = MailPolicy->new();

$t->run_relay(name => 'relay');

my $DUNNO = "action=DUNNO\n\n";
my $REJECT = "action=REJECT 5.7.1 Go away\n\n";

# what is written for a recipient, what comes then (close, hang, more), and
# what the log says; a reference in between is a pause

my $other = qr/sent what is no answer of a policy server: "/;
my $none = qr/answered with what is no action: "/;
my $postfix = qr/answered with what only a Postfix can do: "/;

my %says = (
    nothing  => [ [], 'close', qr/"inet:[\d.:]+" closed the connection, def/ ],
    mute     => [ [], 'hang', qr/did not answer in time, default_action is / ],
    half     => [ [ 'action=DUN' ], 'close',
        qr/closed the connection within its answer, default_action is taken/ ],
    unended  => [ [ "action=DUNNO\n" ], 'close', qr/within its answer/ ],
    stuck    => [ [ "action=DUNNO\n" ], 'hang', qr/did not answer in time/ ],
    crawling => [ [ map { ($_, \0.15) } split //, $DUNNO ], 'hang',
        qr/did not answer in time/ ],
    empty    => [ [ "\n" ], 'more', qr/answered without an action: "\\x0A"/ ],
    others   => [ [ "status=fine\nreason=none\n\n" ], 'more',
        qr/answered without an action: "status=fine\\x0Areason=none/ ],
    unsaid   => [ [ "action=\n\n" ], 'more', $none ],
    unknown  => [ [ "action=FROBNICATE now\n\n" ], 'more',
        qr/what is no action: "action=FROBNICATE now\\x0A\\x0A", default_act/ ],
    control  => [ [ "action=DUNNO \e[2J\a\n\n" ], 'more',
        qr/what is no action: "action=DUNNO \\x1B\[2J\\x07\\x0A\\x0A"/ ],
    field    => [ [ "action=PREPEND no field\n\n" ], 'more', $none ],
    hold     => [ [ "action=HOLD for a while\n\n" ], 'more', $postfix ],
    discard  => [ [ "action=DISCARD\n\n" ], 'more', $postfix ],
    filter   => [ [ "action=FILTER smtp:[127.0.0.1]:25\n\n" ], 'more',
        $postfix ],
    redirect => [ [ "action=REDIRECT root\@example.com\n\n" ], 'more',
        $postfix ],
    bcc      => [ [ "action=BCC root\@example.com\n\n" ], 'more', $postfix ],
    smtp     => [ [ "220 mx.example.com ESMTP\r\n" ], 'hang', $other ],
    http     => [ [ "HTTP/1.1 400 Bad Request\r\n\r\n" ], 'close', $other ],
    crlf     => [ [ "action=DUNNO\r\n\r\n" ], 'more', $other ],
    nul      => [ [ "action=DUNNO\0\n\n" ], 'more', $other ],
    binary   => [ [ join('', map { chr } 0 .. 255) ], 'hang', $other ],
    long     => [ [ 'action=DUNNO ' . ('x' x 100_000) . "\n\n" ], 'more',
        qr/sent what is no answer of a policy server: "action=DUNNO x{87}"/ ],
    many     => [ [ ("name=value\n" x 10_000) . $DUNNO ], 'more', $other ],
    large    => [ [ ('name=' . ('x' x 1000) . "\n") x 100, $DUNNO ], 'more',
        qr/sent too long an answer: "name=x/ ],
);

# these are right; what is wrong with the connection is seen to later

my %right = (
    good     => [ [ $DUNNO ], 'more' ],
    refusing => [ [ $REJECT ], 'more' ],
    lower    => [ [ "action=dunno\n\n" ], 'more' ],
    more     => [ [ "policy=x\naction=DUNNO\naction=REJECT\n\n" ], 'more' ],
    slow     => [ [ map { ($_, \0.002) } split //, $DUNNO ], 'more' ],
    closing  => [ [ $DUNNO ], 'close' ],
    twice    => [ [ $REJECT . $DUNNO ], 'more' ],
    later    => [ [ $REJECT, \0.1, $DUNNO ], 'more' ],
    behind   => [ [ "${DUNNO}action=" ], 'more' ],
    long_but => [ [ 'action=REJECT 5.7.1 Go away ' . ('x' x 3000) . "\n\n" ],
        'more' ],
    (map { ("cut_$_" => [ [ substr($REJECT, 0, $_), \0.004,
        substr($REJECT, $_) ], 'more' ]) } 1 .. length($REJECT) - 1),
);

my $service = MailPolicy::PolicyServer->new(dir => $t->dir(), name => 'spf',
    port => $t->port('spf'), handler => sub {
        my ($socket, $request) = @_;
        my ($name) = $request->{recipient} =~ /^(\w+)\@/;
        my ($words, $then) = @{ $says{$name} // $right{$name} };

        for (@$words) {
            ref($_) ? sleep($$_) : syswrite($socket, $_);
        }

        sleep(60) if $then eq 'hang';
        return $then eq 'more';
    });

push @{ $t->{servers} }, $service;


$t->conf(<<"EOF");
mail {
    server_name            edge.example.com;
    policy                 on;
    policy_auth            off;
    policy_max_recipients  10000;
    max_errors             10000;
    proxy_pass             127.0.0.1:%%PORT_relay%%;

    policy_service  inet:127.0.0.1:%%PORT_spf%% timeout=@{[ TIMEOUT ]}s;

    server {
        listen    127.0.0.1:%%PORT_edge%%;
        protocol  smtp;
    }

    server {
        listen          127.0.0.1:%%PORT_open%%;
        protocol        smtp;
        policy_service  inet:127.0.0.1:%%PORT_spf%% timeout=@{[ TIMEOUT ]}s
                        default_action=DUNNO;
    }

    server {
        listen          127.0.0.1:%%PORT_closed%%;
        protocol        smtp;
        policy_service  inet:127.0.0.1:%%PORT_spf%% timeout=@{[ TIMEOUT ]}s
                        "default_action=REJECT 5.3.5 Not today";
    }
}
EOF
$t->run_nginx();

my $LATER = '451 4.3.5 Server configuration problem';
my $OK = qr/^250 2\.1\.5 /;

my %session = map { $_ => begin($_) } qw(edge open closed);


sub begin {
    my $c = $t->session($_[0]);

    $c->cmd('MAIL FROM:<alice@example.com>');
    return $c;
}


sub rcpt {
    my ($name, $where) = @_;

    return $session{$where // 'edge'}->cmd("RCPT TO:<$name\@example.net>");
}


# what the log has got since

my $read = 0;

sub news {
    my $log = $t->error_log();
    my $new = substr($log, $read);

    $read = length($log);
    return $new;
}


# each of them on a connection that is new, and on one that was kept

for my $name (sort keys %says) {
    like(rcpt('closing'), $OK, "$name: none is kept");
    news();

    for my $kept ('', ', kept') {
        my $begin = time();

        is(rcpt($name), $LATER, "$name$kept: default_action");
        cmp_ok(time() - $begin, '<', TIMEOUT + 1, "$name$kept: in time");
        like(rcpt('good'), $OK, "$name$kept: and then asks again");
    }

    my $news = news();
    ok($news =~ $says{$name}[2], "$name: the log says why") or diag($news
        =~ /^(.*policy service.*)$/m);

    like(rcpt($name, 'open'), $OK, "$name: or passes");
}

is(rcpt($_, 'closed'), '554 5.3.5 Not today', "$_: or is refused")
    for qw(mute half unknown);

# what is right is right, wherever it is cut, and what comes behind is not the
# answer to the next question

for my $name (sort keys %right) {
    my $refused = $right{$name}[0][0] =~ /REJECT/ && $name ne 'more'
        || $name =~ /^cut_/;

    like(rcpt($name), $refused ? qr/^554 5\.7\.1 Go away/ : $OK,
        "$name: the answer");

    # later still was not asked for, and closes it
    sleep(0.3) if $name eq 'later';

    like(rcpt('good'), $OK, "$name: and the next");
    is(rcpt('refusing'), '554 5.7.1 Go away', "$name: and one more");
}

# one that is closed when it is used again is made anew, once

my $connections = $service->connections();

like(rcpt('good'), $OK, 'closed when used: one is kept');
like(rcpt('good'), $OK, 'closed when used: it is used again');
is($service->connections(), $connections, 'closed when used: the same');
is(rcpt('nothing'), $LATER, 'closed when used: two times');
is($service->connections(), $connections + 1,
    'closed when used: it has been tried once more');

# failures are told once a minute, and all else at a level of its own

my @told = $t->error_log() =~ /\[error\].*policy service "inet:/g;
my @counted = $t->error_log() =~ /\[info\].*default_action is taken/g;

cmp_ok(scalar(@told), '<=', 6, 'the log is not flooded');
cmp_ok(scalar(@counted), '>=', 3 * keys(%says) - 6, 'but told on request');

$_->quit() for values %session;
$t->done();
