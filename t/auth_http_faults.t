#!/usr/bin/perl

# A service of "policy_auth http:" that fails in all the ways it can: nobody is
# let in by that, nobody waits for ever, and the next request finds its way.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use MIME::Base64 qw(encode_base64);
use Test::More;
use Time::HiRes qw(sleep time);

use MailPolicy;
use MailPolicy::AuthService;

use constant TIMEOUT => 1;

my $t = MailPolicy->new();

$t->run_relay(name => 'relay');

my $OK = MailPolicy::AuthService::text('Auth-Status' => 'OK');
my $NO = MailPolicy::AuthService::text('Auth-Status' => 'No');
my $BODY = 'x' x 3000;

# what is written for a user, what comes then (close, hang, more), and what
# the log says; a reference in between is a pause

my %says = (
    nothing  => [ [], 'close', qr/closed the connection$/m ],
    mute     => [ [], 'hang', qr/did not answer in time/ ],
    half     => [ [ substr($OK, 0, 40) ], 'close',
        qr/closed the connection within its answer/ ],
    stuck    => [ [ substr($OK, 0, -2) ], 'hang', qr/did not answer in time/ ],
    unended  => [ [ substr($OK, 0, -2) ], 'close', qr/within its answer/ ],
    garbage  => [ [ "220 relay.example.com ESMTP\r\n" ], 'hang',
        qr/sent what is no HTTP/ ],
    binary   => [ [ join('', map { chr } 0 .. 255) ], 'hang',
        qr/sent what is no HTTP/ ],
    nul      => [ [ "HTTP/1.0 200 OK\r\nAuth-Status: OK\0\r\n\r\n" ], 'hang',
        qr/sent what is no HTTP/ ],
    bare     => [ [ "Auth-Status: OK\r\n\r\n" ], 'hang',
        qr/sent what is no HTTP/ ],
    folded   => [ [ "HTTP/1.0 200 OK\r\nAuth-Status:\r\n OK\r\n\r\n" ],
        'hang', qr/sent what is no HTTP/ ],
    huge     => [ [ "HTTP/1.0 200 OK\r\nAuth-Status: OK\r\nX: "
        . ('x' x 20000) ], 'hang', qr/sent too long a header/ ],
    many     => [ [ "HTTP/1.0 200 OK\r\nAuth-Status: OK\r\n"
        . ("X-Y: z\r\n" x 4000) . "\r\n" ], 'hang', qr/too long a header/ ],
    failing  => [ [ "HTTP/1.1 500 Oops\r\nAuth-Status: OK\r\n"
        . "Content-Length: 0\r\n\r\n" ], 'more', qr/answered with status 500/ ],
    early    => [ [ "HTTP/1.1 100 Continue\r\n\r\n$OK" ], 'more',
        qr/answered with status 100/ ],
    moved    => [ [ "HTTP/1.1 302 x\r\nLocation: /\r\nAuth-Status: OK\r\n"
        . "Content-Length: 0\r\n\r\n" ], 'more', qr/status 302/ ],
    unsaid   => [ [ "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n" ], 'more',
        qr/answered with status 200 and no Auth-Status/ ],
    crawling => [ [ map { ($_, \0.1) } split //, $OK ], 'hang',
        qr/did not answer in time/ ],
);

# these are right; what is wrong with the connection is seen to later

my %right = (
    good      => [ [ $OK ], 'more' ],
    slow      => [ [ map { ($_, \0.002) } split //, $OK ], 'more' ],
    old       => [ [ "HTTP/1.0 200 OK\r\nAuth-Status: OK\r\n\r\nsome words" ],
        'close' ],
    endless   => [ [ "HTTP/1.0 200 OK\r\nAuth-Status: OK\r\n\r\n" ], 'hang' ],
    newlines  => [ [ $OK =~ s/\r//gr ], 'more' ],
    closing   => [ [ $OK ], 'close' ],
    body      => [ [ body($OK, 3000), substr($BODY, 0, 100), \0.05,
        substr($BODY, 100) ], 'more' ],
    cut       => [ [ body($OK, 3000), substr($BODY, 0, 100) ], 'close' ],
    waiting   => [ [ body($OK, 3000), substr($BODY, 0, 100) ], 'hang' ],
    long      => [ [ body($OK, 70000), 'x' x 70000 ], 'more' ],
    chunked   => [ [ $OK =~ s/Content-Length: 0/Transfer-Encoding: chunked/r,
        "0\r\n\r\n" ], 'more' ],
    twice     => [ [ $NO =~ s/No/Refused/r . $OK ], 'more' ],
    later     => [ [ $NO =~ s/No/Refused/r, \0.1, $OK ], 'more' ],
);


sub body { return $_[0] =~ s/Length: 0/Length: $_[1]/r }


my $service = MailPolicy::AuthService->new(dir => $t->dir(), name => 'auth',
    port => $t->port('auth'), handler => sub {
        my ($socket, $request, $n) = @_;
        my ($user) = $request =~ /^Auth-User: (\w+)/m;

        # on a connection that has been used
        if ($user =~ s/^second_//) {
            return $n == 1 ? MailPolicy::AuthService::reply($socket,
                'Auth-Status' => 'First') : say_it($socket, $user);
        }

        if ($user eq 'wrong') {
            return MailPolicy::AuthService::reply($socket,
                'Auth-Status' => 'No');
        }

        return say_it($socket, $user);
    });

push @{ $t->{servers} }, $service;


sub say_it {
    my ($socket, $user) = @_;

    my ($words, $then) = @{ $says{$user} // $right{$user} };

    for (@$words) {
        ref($_) ? sleep($$_) : syswrite($socket, $_);
    }

    sleep(60) if $then eq 'hang';
    return $then eq 'more';
}


$t->conf(<<"EOF");
thread_pool  default threads=2;
worker_shutdown_timeout  8s;

mail {
    server_name               edge.example.com;
    policy                    on;
    policy_auth_plaintext     on;
    policy_auth_delay         0;
    policy_auth_http_timeout  @{[ TIMEOUT ]}s;
    proxy_pass                127.0.0.1:%%PORT_relay%%;
    access_log                %%DIR%%/access.log;
    max_errors                100;

    server {
        listen       127.0.0.1:%%PORT_edge%%;
        protocol     smtp;
        policy_auth  http://127.0.0.1:%%PORT_auth%%/auth;
    }

    server {
        listen                    127.0.0.1:%%PORT_patient%%;
        protocol                  smtp;
        policy_auth               http://127.0.0.1:%%PORT_auth%%/auth;
        policy_auth_http_timeout  30s;
    }

    server {
        listen       127.0.0.1:%%PORT_nobody%%;
        protocol     smtp;
        policy_auth  http://127.0.0.1:%%PORT_unused%%/auth;
    }
}
EOF
$t->run_nginx();

my $LATER = qr/^454 4\.7\.0 /;
my $SUCCESS = qr/^235 2\.7\.0 /;
my $c = $t->session('edge');


sub login { return $c->auth_plain("$_[0]\@example.com", 'canary') }

sub message { return encode_base64("\0$_[0]\@example.com\0canary", '') }


# what the log has got since

my $read = 0;

sub news {
    my $log = $t->error_log();
    my $new = substr($log, $read);

    $read = length($log);
    return $new;
}


# each of them on a connection that is new, and on one that was kept

for my $user (sort keys %says) {
    my $begin = time();

    news();
    like(login($user), $LATER, "$user: cannot tell");
    cmp_ok(time() - $begin, '<', TIMEOUT + 2, "$user: in time");
    ok(news() =~ $says{$user}[2], "$user: the log says why");
    is(login('wrong'), '535 5.7.8 No', "$user: and then asks again");
}

for my $user (grep { $_ ne 'nothing' } sort keys %says) {
    is(login('wrong'), '535 5.7.8 No', "$user, kept: the first");
    like(login("second_$user") =~ s/^535 5.7.8 First$/
        login("second_$user")/er, $LATER, "$user, kept: cannot tell");
}

# one that is closed when it is to be used again is made anew, once

like(login('nothing'), $LATER, 'closed when used: none is kept');

my $connections = $service->connections();

is(login('wrong'), '535 5.7.8 No', 'closed when used: one is kept');
is(login('wrong'), '535 5.7.8 No', 'closed when used: it is used again');
is($service->connections(), $connections + 1, 'closed when used: the same');
like(login('nothing'), $LATER, 'closed when used: two times');
is($service->connections(), $connections + 2,
    'closed when used: it has been tried once more');
is(login('wrong'), '535 5.7.8 No', 'closed when used: goes on');

# what is right is right

for my $user (sort keys %right) {
    my $one = $t->session('edge');
    my $reply = $one->auth_plain("$user\@example.com", 'canary');

    like($reply, $user =~ /^(?:twice|later)$/ ? qr/^535 5\.7\.8 Refused$/
        : $SUCCESS, "$user: the answer");
    $one->quit();

    # what comes later still was not asked for, and closes it
    sleep(0.3) if $user eq 'later';

    is(login('wrong'), '535 5.7.8 No', "$user: what comes behind it is none");
}

# refused connections

$c = $t->session('nobody');
news();
like(login('good'), $LATER, 'nobody there: cannot tell');
ok(news() =~ /connect\(\) failed|cannot be connected to/,
    'nobody there: the log says why');

# the client does not wait for the answer

for my $how (qw(close reset quit)) {
    my @gone = map { $t->session('patient') } 1 .. 5;

    $_->send_raw('AUTH PLAIN ' . message('mute') . "\r\n") for @gone;
    ok($t->wait_for(sub {
        (() = grep { /Auth-User: mute/ } ($service->requests())[-5 .. -1])
            == 5 }), "$how: all are waited for");

    for (@gone) {
        $_->send_raw("QUIT\r\n") if $how eq 'quit';
        $how eq 'reset' ? $_->reset() : $_->close();
    }
}

$c = $t->session('edge');
is(login('wrong'), '535 5.7.8 No', 'clients that are gone: others are served');

# reload: who waits is answered by the old worker

my @waiting = map { $t->session('patient') } 1 .. 5;
my ($worker) = $t->worker_pids();
my $crawling = sub {
    scalar(() = grep { /Auth-User: crawling/ } $service->requests())
};
my $begun = $crawling->();

$_->send_raw('AUTH PLAIN ' . message('crawling') . "\r\n") for @waiting;
ok($t->wait_for(sub { $crawling->() - $begun >= 5 }),
    'reload: all are waited for');
ok($t->reload(), 'reload');

like($_->read_reply(20), $SUCCESS, 'reload: who waited is answered')
    for @waiting;
$_->quit() for @waiting;

$c->close();
ok($t->wait_for(sub { !grep { $_ == $worker }
    $t->instance()->all_worker_pids() }, 20), 'reload: the old worker is gone');

# the service is killed while twenty wait

my @many = map { $t->session('patient') } 1 .. 20;

$_->send_raw('AUTH PLAIN ' . message('mute') . "\r\n") for @many;
ok($t->wait_for(sub {
    (() = grep { /Auth-User: mute/ } ($service->requests())[-20 .. -1])
        == 20 }), 'killed: all are waited for');

my $begin = time();

$service->stop();
is(scalar(grep { $_->read_reply() =~ $LATER } @many), 20,
    'killed: all are told at once');
cmp_ok(time() - $begin, '<', 5, 'killed: and at once');

like($many[0]->auth_plain('good@example.com', 'canary'), $LATER,
    'killed: nobody is let in');
$service->start();
like($many[0]->auth_plain('good@example.com', 'canary'), $SUCCESS,
    'started again: who is right is let in');
$_->close() for @many;

# nobody but those who were right was let in

my %in = map { $_ => 1 } $t->error_log() =~ /logged in as "(\w+)\@/g;
my @bad = grep { exists $says{$_} && $_ ne 'crawling' } keys %in;
is_deeply(\@bad, [], 'nobody else is in');

ok($t->error_log() !~ /canary/, 'no secret in the log');

$t->done();
