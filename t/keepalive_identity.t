#!/usr/bin/perl

# Whom a relay is told of on a connection that is used again (TRUST-4): by
# XCLIENT, before MAIL, all that it takes; a connection on which that cannot
# be told anew is for clients of the same identity only.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Test::More;
use Time::HiRes qw(sleep);

use MailPolicy;

my $t = MailPolicy->new();
my $relay = $t->run_relay(name => 'relay');

# with the 256 octets of a long HELO, more than a line may have
my $long = ('l' x 230) . '@example.com';
my $hash = $t->crypt('secret');

$t->write_file('users', join('', map { "$_:$hash\n" } $long,
    map { "u$_\@example.com" } 1 .. 4));

$t->conf(<<'EOF_CONF');
mail {
    server_name            edge.example.com;
    policy                 on;
    policy_auth            file:%%DIR%%/users;
    policy_auth_plaintext  on;
    proxy_timeout          20s;

    upstream kept {
        server     127.0.0.1:%%PORT_relay%%;
        keepalive  8;
    }

    # with no room for another one
    upstream one {
        server     127.0.0.1:%%PORT_relay%%;
        keepalive  1;
    }

    server {
        listen      127.0.0.1:%%PORT_kept%%;
        protocol    smtp;
        proxy_pass  kept;
    }

    server {
        listen      127.0.0.1:%%PORT_one%%;
        listen      127.0.0.1:%%PORT_other%%;
        protocol    smtp;
        proxy_pass  one;
    }

    server {
        listen       127.0.0.1:%%PORT_open%%;
        protocol     smtp;
        policy_auth  off;
        proxy_pass   one;
    }

    server {
        listen       127.0.0.1:%%PORT_alone%%;
        protocol     smtp;
        policy_auth  off;
        proxy_pass   127.0.0.1:%%PORT_relay%%;
    }
}
EOF_CONF
$t->run_nginx();

my $ALL = 'XCLIENT NAME ADDR PROTO HELO REVERSE_NAME PORT LOGIN DESTADDR '
    . 'DESTPORT';


# a relay without connections

sub fresh {
    my (%behaviour) = @_;

    $relay->stop();
    $relay->start();
    $relay->set(ehlo => undef, xclient => undef,
        extensions => [ 'PIPELINING', $ALL ], %behaviour);
}


sub session {
    my ($n, %option) = @_;

    my $c = $t->client($option{where} // 'one', from => "127.0.0.$n");
    $c->greeting();
    $c->ehlo($option{helo} // "h$n.example");
    $c->auth_plain($option{login} // "u$n\@example.com", 'secret')
        unless ($option{where} // '') =~ /^(?:open|alone)$/;
    return $c;
}


# a message in a session of its own: the reply to it, what the relay knew,
# what it was told in front of MAIL since the last one

sub send_one {
    my ($n, %option) = @_;

    my $c = session($n, %option);
    my @replies = $c->send_mail("s$n\@example.com", [ 'b@example.net' ],
        "x\n");
    $c->quit();

    my $message = ($relay->messages())[-1];
    my $told = join(' ', grep { /^(?:EHLO|XCLIENT|RSET)$/ } map { (split)[0] }
        @{ $message->{commands} });
    return ($replies[-1], $message, $told);
}


sub is_client {
    my ($message, $n, $name, $where) = @_;

    local $Test::Builder::Level = $Test::Builder::Level + 1;

    is_deeply({ %{ $message->{xclient} }, EHLO => $message->{helo} }, {
        NAME => '[UNAVAILABLE]', ADDR => "127.0.0.$n", PROTO => 'ESMTP',
        HELO => "h$n.example", LOGIN => "u$n\@example.com",
        PORT => '[UNAVAILABLE]', DESTADDR => '127.0.0.1',
        DESTPORT => $t->port($where // 'one'), EHLO => "h$n.example" },
        "TRUST-4 $name: its own identity");
}


sub total { return $relay->stats()->{total} }

# a relay that can be told anew

fresh();

for my $case ([ 1, 'EHLO XCLIENT EHLO' ], [ 2, 'XCLIENT EHLO' ], [ 2, '' ],
    [ 1, 'XCLIENT EHLO' ])
{
    my ($n, $expected) = @$case;
    my ($reply, $message, $told) = send_one($n);
    like($reply, qr/^250 /, "client $n: accepted");
    is($told, $expected, "client $n: \"$expected\"");
    is_client($message, $n, "client $n");
}

is(total(), 1, 'all by one connection');

my ($reply, $message) = send_one(3, where => 'open', helo => 'h3.example');
is($message->{xclient}{LOGIN}, '[UNAVAILABLE]', 'TRUST-4 without a login');
($reply, $message) = send_one(2, login => $long, helo =>
    join('.', ('h' x 60) x 4) . '.example');
is($message->{xclient}{LOGIN}, $long, 'TRUST-4 by several commands');
is(scalar(grep { /^XCLIENT.* LOGIN=\S+ ADDR=/ } @{ $message->{commands} }), 1,
    'TRUST-3 login and address by the same one');
($reply, $message) = send_one(1, helo => 'other.example');
is($message->{xclient}{HELO}, 'other.example', 'TRUST-4 another HELO');
($reply, $message) = send_one(1, helo => '[127.0.0.1]');
is($message->{xclient}{HELO}, '[127.0.0.1]', 'TRUST-4 an address');

($reply, $message) = send_one(1, where => 'other');
is_client($message, 1, 'another port of the edge', 'other');

($reply, $message) = send_one(1, where => 'alone');
like($message->{xclient}{PORT}, qr/^\d+$/, 'without keepalive: the port');

# many, at random, some at the same time

fresh();
srand(42);
my $earlier = $relay->messages();
my @wrong;

for my $round (1 .. 25) {
    my @numbers = map { 1 + int(rand(4)) } 1 .. 3;
    my $where = $round % 2 ? 'one' : 'kept';
    my @clients = map { session($_, where => $where) } @numbers;

    for my $i (0 .. $#clients, 0 .. int(rand(3))) {
        $clients[$i]->send_mail("s$numbers[$i]\@example.com",
            [ 'b@example.net' ], "x\n");
    }

    $_->quit() for @clients;
}

my @messages = $relay->messages();
splice(@messages, 0, $earlier);
cmp_ok(scalar @messages, '>=', 100, 'at random: all have come');

for my $m (@messages) {
    my ($n) = $m->{from} =~ /^s(\d)/;
    push @wrong, "$m->{from} $m->{xclient}{LOGIN}"
        if $m->{xclient}{LOGIN} ne "u$n\@example.com"
        || $m->{xclient}{ADDR} ne "127.0.0.$n" || $m->{helo} ne "h$n.example";
}

is_deeply(\@wrong, [], 'TRUST-4 at random: each with its own identity');
cmp_ok(total(), '<', 50, 'at random: not one a session');

# Postfix asks the client's address, behind XCLIENT, whether it may be told
# anew

my %once = (ehlo => { match => qr/ h\d/, action => "250-x\n250 PIPELINING" });

fresh(%once);

for my $case ([ 1, 1, 'EHLO XCLIENT EHLO' ], [ 2, 2, 'EHLO XCLIENT EHLO' ],
    [ 1, 2, '' ], [ 2, 2, '' ], [ 3, 3, 'EHLO XCLIENT EHLO' ])
{
    my ($n, $count, $expected) = @$case;
    my (undef, $message, $told) = send_one($n, where => 'kept');
    is($told, $expected, "told once, client $n: \"$expected\"");
    is_client($message, $n, "told once, client $n", 'kept');
    is(total(), $count, "told once, client $n: connections");
}

# where there is room, a client that was here a moment ago may come again

fresh();
my $told;
$told = (send_one($_, where => 'kept'))[2] for 1, 2, 1;
is(total(), 2, 'another client, and room: a new connection');
is($told, '', 'and the first one finds its own');
sleep(1.1);
(undef, $message, $told) = send_one(3, where => 'kept');
is($told, 'XCLIENT EHLO', 'it is not waited for longer than a second');
is_client($message, 3, 'it is not waited for longer than a second', 'kept');

# attributes that it does not take any more

fresh(ehlo => { match => qr/ h1/, action => "250-x\n250 XCLIENT ADDR HELO" });
send_one(1);
(undef, $message) = send_one(2);
is_client($message, 2, 'other attributes than before');
is(total(), 2, 'other attributes than before: a new connection');

# refused

fresh(xclient => { match => qr/LOGIN=u2/, times => 1,
    action => '550 5.7.0 no' });
send_one(1);
($reply, $message) = send_one(2);
like($reply, qr/^250 /, 'refused on a used connection: accepted');
is_client($message, 2, 'refused on a used connection');
is(total(), 2, 'refused on a used connection: by a new one');

fresh(xclient => { match => qr/LOGIN=u2/, action => '550 5.7.0 no' });
send_one(1);
my $before = $relay->stats()->{messages};
($reply) = send_one(2);
like($reply, qr/^451 4\.3\.5 /, 'TRUST-2 refused each time: 451');
is($relay->stats()->{messages}, $before, 'TRUST-2 no mail as somebody else');

# the same session, with a login and without

fresh(%once);
my $c = $t->client('kept', from => '127.0.0.1');
$c->greeting();
$c->ehlo('h1.example');
$c->auth_plain('u1@example.com', 'secret');
$c->send_mail('s1@example.com', [ 'b@example.net' ], "x\n");
$c->ehlo('h1.example');
$c->send_mail('s1@example.com', [ 'b@example.net' ], "x\n");
$c->quit();
is_client(($relay->messages())[-1], 1, 'EHLO once more: the login stays',
    'kept');

# XCLIENT is not spoken

fresh(extensions => [ 'PIPELINING' ]);
my @told = map { (send_one($_))[2] } 1, 2, 1;
is_deeply(\@told, [ 'EHLO', '', '' ], 'not offered: nothing to be told');
is(total(), 1, 'not offered: one connection');

$t->done();
