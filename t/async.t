#!/usr/bin/perl

# The asynchronous matrix, where nginx' own code waits: for the client's name
# in the DNS (A1), for a handshake of TLS (A8), for greeting_delay (A9).
# Clients leave, answers come late, twice, or at once with something else;
# and nothing is left of it.
#
# A5 is in async_lookup.t, A7 in async_relay_tls.t.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Test::More;
use Time::HiRes qw(sleep time);

use MailPolicy;
use MailPolicy::Async;
use MailPolicy::ScriptedDns;

eval { require IO::Socket::SSL };
plan(skip_all => 'IO::Socket::SSL is not installed') if $@;

my %ENDS = (E1 => 'close', E2 => 'reset');

my $t = MailPolicy->new();
my $relay = $t->run_relay(name => 'relay');
my $dns = MailPolicy::ScriptedDns->new(dir => $t->dir(),
    port => $t->port('dns'));
push @{ $t->{servers} }, $dns;

$t->certificate('edge');

# the clients' timeout, greeting_delay, resolver_timeout

sub conf {
    my ($name, $main, $timeout, $delay, $resolver) = @_;

    $t->conf($name, <<"EOF");
$main
mail {
    server_name          edge.example.com;
    ssl_certificate      %%DIR%%/edge.crt;
    ssl_certificate_key  %%DIR%%/edge.key;
    policy               on;
    policy_auth          off;
    proxy_pass           127.0.0.1:%%PORT_relay%%;
    timeout              $timeout;
    resolver_timeout     $resolver;

    server {
        listen    127.0.0.1:%%PORT_ptr_$name%%;
        protocol  smtp;
        resolver  127.0.0.1:%%PORT_dns%% ipv6=off;
    }

    server {
        listen    127.0.0.1:%%PORT_deaf_$name%%;
        protocol  smtp;
        resolver  127.0.0.1:%%PORT_nobody%% ipv6=off;
    }

    server {
        listen               127.0.0.1:%%PORT_delay_$name%%;
        protocol             smtp;
        smtp_greeting_delay  $delay;
    }

    server {
        listen    127.0.0.1:%%PORT_starttls_$name%%;
        protocol  smtp;
        starttls  on;
    }

    server {
        listen    127.0.0.1:%%PORT_tls_$name%% ssl;
        protocol  smtp;
    }
}
EOF
    $t->run_nginx($name);
}

conf('main', '', '1s', '400ms', '1s');
my $async = MailPolicy::Async->new($t, $relay, 'main');

# clients that wait, of each kind: [ name, code that makes one ]


my $number = 0;

sub ptr {
    my ($kind, $nginx) = @_;

    my $address = "127.0.$kind." . ++$number;
    my $c = $t->client('ptr_' . ($nginx // 'main'), from => $address);

    # nginx asks as soon as it has accepted the connection
    $t->wait_for(sub { $dns->asked($address) })
        or die "no question for $address\n";
    return $c;
}


sub delayed { return $t->client('delay_' . ($_[0] // 'main')) }


# in a handshake, which has not begun, or half of its first record is there

my $HALF = "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" . 'x' x 40;

sub handshake {
    my ($how, $octets, $nginx) = @_;

    my $c = $t->client("${how}_" . ($nginx // 'main'));

    if ($how eq 'starttls') {
        $c->greeting();
        $c->ehlo();
        $c->cmd('STARTTLS');
    }

    $c->send_raw($octets);
    return $c;
}


my %WAITING = (
    A1 => [ [ 'slow' => \&ptr, 10 ], [ 'twice' => \&ptr, 11 ],
            [ 'never' => \&ptr, 12 ], [ 'late' => \&ptr, 13 ] ],
    A8 => [ [ 'STARTTLS' => \&handshake, 'starttls', '' ],
            [ 'half of STARTTLS' => \&handshake, 'starttls', $HALF ],
            [ 'implicit' => \&handshake, 'tls', '' ],
            [ 'half of implicit' => \&handshake, 'tls', $HALF ] ],
    A9 => [ [ 'delay' => \&delayed ] ],
);
my @POINTS = sort keys %WAITING;

# all of a point's, in an nginx

sub waiting {
    my ($point, $nginx) = @_;

    return map { my ($name, $code, @args) = @$_;
        [ $name, $code->(@args, $nginx) ] } @{ $WAITING{$point} };
}


sub message {
    my ($where, @option) = @_;

    my $c = $t->client($where, @option);
    return "greeting: $c->{greeting}" unless $c->greeting() =~ /^220 /;
    return whole_message($c);
}


sub whole_message {
    my ($c) = @_;

    $c->ehlo();
    my @replies = $c->send_mail('a@example.com', [ 'b@example.net' ], "x\n");
    $c->quit();
    return $replies[-1];
}


sub steady { $async->steady($_[0], sub { message('starttls_main') }) }

# the resolvers keep their sockets

message($_, from => '127.0.1.1') for qw(ptr_main deaf_main);
steady('to begin with');

# E1, E2: the client leaves

for my $point (@POINTS) {
    for my $event (sort keys %ENDS) {
        my $method = $ENDS{$event};
        my @clients = waiting($point);

        $_->[1]->$method() for @clients;
        steady($async->cell($point, $event, $method));
    }
}

# E3: the timer of what is awaited, or the client's

my $begin = time();

like(ptr(12)->greeting(), qr/^220 /,
    $async->cell('A1', 'E3', 'resolver_timeout: greeted without a name'));
like(message('ptr_main', from => '127.0.12.250'), qr/^250 /,
    $async->cell('A1', 'E3', 'and served'));

my @stalled = (waiting('A8'), waiting('A9'));
my $silent = $t->client('delay_main');
like($silent->greeting(), qr/^220 /, 'ASYNC A9xE3 the delay is over');

is(join(', ', map { $_->[0] } grep { !$_->[1]->wait_close(5) } @stalled,
    [ 'silent', $silent ]), '',
    $async->cell('A8', 'E3', 'timeout: all are closed'));
cmp_ok(time() - $begin, '<', 8, $async->cell('A9', 'E3', 'and in time'));
steady('ASYNC E3');

# E4: nobody is there to answer

like(message('deaf_main'), qr/^250 /,
    $async->cell('A1', 'E4', 'no name server: served without a name'));
$t->client('deaf_main')->close();
$t->client('deaf_main')->reset();
steady('ASYNC A1xE4');

# E5, E6: an answer behind resolver_timeout; one, or the client's greeting,
# is there before the second

my $late = ptr(13);
like($late->greeting(), qr/^220 /, $async->cell('A1', 'E5', 'greeted'));
$late->close();
my $twice = ptr(11);
like($twice->greeting(), qr/^220 /, $async->cell('A1', 'E6', 'greeted'));
like(whole_message($twice), qr/^250 /, $async->cell('A1', 'E6', 'served'));
ok($t->wait_for(sub { $dns->idle() }), 'ASYNC A1xE5 the answer has come');
steady('ASYNC A1xE5 A1xE6');

# E10: in one loop turn

for my $method (values %ENDS) {
    for my $kind (10, 11) {
        my $c = ptr($kind);

        $async->one_turn(sub {
            $t->wait_for(sub { $dns->idle() });
            $c->$method();
        });
        steady($async->cell('A1', 'E10', "answer and $method"));
    }

    for my $how (qw(starttls tls)) {
        my @clients = map { handshake($how, $_) } '', $HALF, $HALF;

        $async->one_turn(sub {
            $clients[0]->send_raw($HALF);
            # the rest of the record, and one that is none
            $clients[1]->send_raw("\x00" x 600);
            $clients[2]->send_raw("QUIT\r\n");
            $_->$method() for @clients;
        });
    }
    steady($async->cell('A8', 'E10', "octets and $method"));

    # the delay is over while the worker stands still; who talks too early
    # leaves as well

    my @clients = map { delayed() } 1 .. 2;
    $async->one_turn(sub {
        sleep(0.5);
        $clients[0]->send_raw("EHLO early.example\r\n");
        $_->$method() for @clients;
    });
    steady($async->cell('A9', 'E10', "timer and $method"));
}

# E7: reload, with everything under way

conf('reload', '', '2s', '400ms', '1s');

my @clients = map { waiting($_, 'reload') } @POINTS;
my $goes_on = delayed('reload');

ok($t->reload('reload'), 'ASYNC E7 reload');
$async->cell($_, 'E7') for @POINTS;

# the greeting comes, and then the edge is still to be heard
like($goes_on->greeting(), qr/^220 /, 'ASYNC A9xE7 greeted');
like($goes_on->ehlo(), qr/^(?:250|421)[ -]/, 'ASYNC A9xE7 and heard');
gone('ASYNC E7', 'reload', 10, @clients);
like(message('ptr_reload', from => '127.0.10.251'), qr/^250 /,
    'ASYNC E7 the new worker serves');

# E8: worker_shutdown_timeout.  nginx' handlers do not look at it: a handshake
# ends with "timeout", the others with their own timer and then that; but all
# of it ends.

conf('hasty', 'worker_shutdown_timeout 1s;', '4s', '3s', '3s');
@clients = (waiting('A8', 'hasty'), waiting('A9', 'hasty'),
    [ 'never' => ptr(12, 'hasty') ]);
ok($t->reload('hasty'), 'ASYNC E8 reload');
$async->cell($_, 'E8') for @POINTS;
gone('ASYNC E8', 'hasty', 10, @clients);
like(message('starttls_hasty'), qr/^250 /, 'ASYNC E8 the new worker serves');

$async->complete(qw(A1 A7 A8 A9));
$t->done();


# the clients are closed, and the old worker ends

sub gone {
    my ($name, $nginx, $timeout, @clients) = @_;

    my $begin = time();

    for my $client (@clients) {
        my ($what, $c) = @$client;
        ok($c->wait_close($timeout), "$name $what: closed");
        diag(sprintf('%s %s: %.1f s', $name, $what, time() - $begin))
            if $ENV{TEST_TIMES};
    }

    $t->disconnect();
    ok($t->wait_for(sub {
        my @all = $t->instance($nginx)->all_worker_pids();
        return @all == 1;
    }, $timeout), "$name: the old worker is gone");
    diag(sprintf('%s: %.1f s', $name, time() - $begin)) if $ENV{TEST_TIMES};
}
