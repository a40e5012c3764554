#!/usr/bin/perl

# What a second look at connections to relays found: one that is still being
# set up when its session's next transaction comes; a relay that is asked
# again for the same message; a silence that was not in the log; connections
# that were not kept; an answer of our own that was told as the relay's.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Test::More;
use Time::HiRes qw(sleep);

use MailPolicy;
use MailPolicy::Async;

my $t = MailPolicy->new();
my %relay = map { $_ => $t->run_relay(name => $_,
    users => { edge => 'secret' }) } qw(a b);

$t->conf(<<'EOF');
mail {
    server_name    edge.example.com;
    log_format     tries  '$upstream_status';
    access_log     %%DIR%%/tries.log tries;
    policy         on;
    policy_auth    off;
    proxy_timeout  2s;

    upstream relays {
        server     127.0.0.1:%%PORT_a%%  max_fails=0;
        server     127.0.0.1:%%PORT_b%%  max_fails=0 backup;
        keepalive  4;
    }

    map $sender $no {
        no@example.com  x;
    }

    policy_limit  no  key=$no  messages=blocked  on_exceed=reject;

    server {
        listen      127.0.0.1:%%PORT_smtp%%;
        protocol    smtp;
        proxy_pass  relays;
    }

    server {
        listen               127.0.0.1:%%PORT_next%%;
        protocol             smtp;
        proxy_pass           relays;
        proxy_next_upstream  4xx;
    }

    server {
        listen                127.0.0.1:%%PORT_login%%;
        protocol              smtp;
        proxy_pass            relays;
        proxy_auth            edge secret;
        proxy_auth_plaintext  on;
    }
}
EOF
$t->run_nginx();

my $async = MailPolicy::Async->new($t, $relay{a});


sub start {
    my (%behaviour) = @_;

    for (values %relay) {
        $_->stop();
        $_->start();
        $_->set(map { $_ => undef } qw(greeting mail rcpt));
    }

    $relay{a}->set(%behaviour);
}


# a session whose first MAIL was refused by a limit

sub session {
    my $c = $t->session($_[0] // 'smtp');

    like($c->cmd('MAIL FROM:<no@example.com>'), qr/^550 /, 'a limit says no');
    $t->wait_for(sub { $relay{a}->stats()->{open} == 1 });
    return $c;
}


# the greeting, and MAIL, in one turn: it was taken for a stray reply

for my $order ('client first', 'relay first') {
    start(greeting => { delay => 0.5, then => 'ok' });
    my $c = session();

    $async->one_turn(sub {
        $c->send_raw("MAIL FROM:<s\@example.com>\r\n")
            if $order eq 'client first';
        sleep(0.7);
        $c->send_raw("MAIL FROM:<s\@example.com>\r\n")
            if $order ne 'client first';
    });
    like($c->read_reply(), qr/^250 /, "greeting and MAIL, $order");
    is($relay{a}->stats()->{total}, 1, "greeting and MAIL, $order: one");
    $c->quit();
}

# lost at set-up: it was asked again, as if it had been ready before

start(greeting => { delay => 0.5, then => 'close' });
my $c = session();
like($c->cmd('MAIL FROM:<s@example.com>'), qr/^250 /, 'no greeting: the next');
is($relay{a}->stats()->{total}, 1, 'no greeting: not the same one again');
is($relay{b}->stats()->{total}, 1, 'no greeting: by the next one');
$c->quit();

# the session's own relay was asked twice for one message

start();
$c = $t->session('next');
$c->send_mail('s@example.com', [ 'r@example.net' ], "x\n");
$relay{a}->set(mail => '450 4.7.1 no');
like($c->cmd('MAIL FROM:<s@example.com>'), qr/^250 /, '4xx: the next');
is(() = join('', $relay{a}->transcripts()) =~ /^S: 450 /mg, 1, '4xx: once');
$c->quit();

# one that is silent has failed, and the log has to say so

start();
$c = $t->session('smtp');
$c->send_mail('s@example.com', [ 'r@example.net' ], "x\n");
$relay{a}->set(mail => 'hang');
like($c->cmd('MAIL FROM:<q@example.com>'), qr/^250 /, 'silence: the next');
$c->quit();
is(() = join('', $relay{a}->transcripts()) =~ /^C: MAIL .*<q@/mg, 1,
    'silence: not the same one again');
like($t->error_log(), qr/\[error\] .*relay timed out/,
    'silence over a connection that was used before: an error');

# who is left behind with a 4xx was not kept, as his reply was still there

for my $stage ('mail', 'rcpt') {
    start($stage => '450 4.7.1 later');

    for (1, 2) {
        $c = $t->session('next');
        $c->send_mail('s@example.com', [ 'r@example.net' ], "x\n");
        $c->quit();
    }

    is($relay{b}->stats()->{messages}, 2, "$stage 4xx: the next has both");
    is($relay{a}->stats()->{total}, 1, "$stage 4xx: the first was kept");
}

# one that is to log in before mail was of no use until it had

start(greeting => { delay => 0.5, then => 'ok' },
    extensions => [ 'PIPELINING', 'AUTH PLAIN' ]);
$c = session('login');
like($c->cmd('MAIL FROM:<no@example.com>'), qr/^550 /, 'login: a limit again');
like($c->cmd('MAIL FROM:<s@example.com>'), qr/^250 /, 'login: then not');
is($relay{a}->stats()->{total}, 1, 'login: by one connection');
is(() = join('', $relay{a}->transcripts()) =~ /^C: AUTH /mg, 1,
    'login: which has logged in');
$c->quit();

# what is missing there: it is us who say so

start();
$_->set(extensions => [ 'PIPELINING', '8BITMIME' ]) for values %relay;
$t->session('smtp')->send_mail('s@example.com', [ 'r@example.net' ], "x\n");
my @clients = map { $t->session('smtp') } 1, 2;
$relay{a}->stop();
$relay{a}->start();
$relay{a}->set(extensions => [ 'PIPELINING' ]);

for (@clients) {
    $_->send_mail('s@example.com', [ 'r@example.net' ], "x\n",
        parameters => 'BODY=8BITMIME');
    $_->quit();
}

is($relay{b}->stats()->{messages}, 2, 'no 8BITMIME: the next has both');
is($relay{a}->stats()->{total}, 1, 'no 8BITMIME: the first was kept');
$t->wait_for(sub { $t->read_file("$t->{dir}/tries.log") =~ /(?:^-, 250\n){2}/m });
like($t->read_file("$t->{dir}/tries.log"), qr/^-, 250\n-, 250\n\z/m,
    'no 8BITMIME: $upstream_status says that the relay said nothing');

$t->done();
