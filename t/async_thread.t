#!/usr/bin/perl

# The asynchronous matrix, where a thread hashes a password (A11).  There is
# one thread, so that hashes queue up, and a login that is answered says that
# those before it are done.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use MIME::Base64 qw(encode_base64);
use Test::More;
use Time::HiRes qw(sleep time);

use MailPolicy;
use MailPolicy::Async;
use MailPolicy::AsyncRedis;

my %ENDS = (E1 => 'close', E2 => 'reset');

my $t = MailPolicy->new();
my $relay = $t->run_relay(name => 'relay');
my $fake = MailPolicy::AsyncRedis->new(dir => $t->dir(),
    port => $t->port('fake'));

# a quarter of a second or so, and some milliseconds

$t->write_file('users', join('', map { "$_->[0]\@example.com:"
    . $t->crypt('secret', "\$6\$rounds=$_->[1]\$salt\$") . "\n" }
    [ slow => 600_000 ], [ fast => 4_000 ]));


sub conf {
    my ($name, $main) = @_;

    $t->conf($name, <<"EOF");
$main
thread_pool default threads=1;
mail {
    policy_redis           redis://127.0.0.1:%%PORT_fake%% timeout=3s
                           on_error=closed;
    policy                 on;

    # of all servers, as the thread may be asked to look at a file, too
    policy_auth            file:%%DIR%%/users;
    policy_auth_plaintext  on;
    policy_auth_cache      0;
    policy_limit           x  key=\$sender  messages=1000/1h;
    proxy_pass             127.0.0.1:%%PORT_relay%%;

    server {
        listen       127.0.0.1:%%PORT_$name%%;
        protocol     smtp;
    }

    server {
        listen       127.0.0.1:%%PORT_hurried_$name%%;
        protocol     smtp;
        timeout      500ms;
    }

    server {
        listen       127.0.0.1:%%PORT_open_$name%%;
        protocol     smtp;
        policy_auth  off;
    }
}
EOF
    $t->run_nginx($name);
}

conf('main', '');
my $async = MailPolicy::Async->new($t, $relay, 'main');


sub login {
    my ($c, $who, $password) = @_;

    $c->send_raw('AUTH PLAIN ' . encode_base64("\0$who\@example.com\0"
        . ($password // 'secret'), '') . "\r\n");
}


# clients whose hash is under way, or waits for those before it

sub hashing {
    my ($count, $where) = @_;

    my @clients = map { $async->session($where // 'main') } 1 .. $count;
    login($_, 'slow') for @clients;
    return @clients;
}


sub steady {
    my ($name) = @_;

    local $Test::Builder::Level = $Test::Builder::Level + 1;

    $fake->mode('good');
    $async->steady($name, sub {
        my $reply;

        $t->wait_for(sub {
            my $c = $async->session('main');
            login($c, 'fast');
            return 0 if $c->read_reply() !~ /^235 /;
            $reply = ($c->send_mail('w@example.com', [ 'r@example.net' ],
                "x\n"))[-1];
            $c->quit();
            return $reply =~ /^250 /;
        });
        return $reply;
    });
}


steady('to begin with');

# E1, E2, E5: the client leaves; the end of its hash finds nobody

for my $event (sort keys %ENDS) {
    my $method = $ENDS{$event};
    my $name = $async->cell('A11', $event, $method);

    $async->cell('A11', 'E5');
    $_->$method() for hashing(3);
    steady("$name, ASYNC A11xE5");
}

# E3: the client's timer, as a thread has none

my $name = $async->cell('A11', 'E3', '"timeout"');
my @before = hashing(4);
my ($c) = hashing(1, 'hurried_main');

$async->is_reply($c, '421 4\.4\.2', $name);

# its hash is right, and nobody's: not that of who has come in the meantime
my @wrong = map { $async->session('main') } 1 .. 4;
login($_, 'fast', 'wrong') for @wrong;

$async->is_reply($_, '235', "$name, the others") for @before;
$async->is_reply($_, '535', "$name, those who came then") for @wrong;
steady($name);

# E9: what others have asked of Redis is lost

$name = $async->cell('A11', 'E9', 'Redis closes');
$fake->mode('A3 due');

my @asking = map { $async->session('open_main') } 1 .. 8;
$asking[$_]->send_raw("MAIL FROM:<e9-$_\@example.com>\r\n") for 0 .. 7;
$t->wait_for(sub { $fake->asked('A3', 'e9-7@example.com') });
my @clients = hashing(8);

$async->is_reply($_, '451 4\.3\.0', "$name, those who asked") for @asking;
$async->is_reply($_, '235', $name) for @clients;
steady($name);

# E10: a worker cannot be stopped without its threads, so at any time around
# the end of the hash

$name = $async->cell('A11', 'E10', 'at about the same time');

for my $n (1 .. 100) {
    my $method = (values %ENDS)[$n % 2];

    $c = $async->session('main');
    login($c, 'fast');
    sleep(0.0002 * ($n % 50));
    $c->$method();
}

steady($name);

# E7: reload

conf('reload', '');
$name = $async->cell('A11', 'E7', 'reload');
@clients = hashing(3, 'reload');
ok($t->reload('reload'), $name);

for my $client (@clients) {
    $async->is_reply($client, '235', $name);
    $async->is_reply($client, '421 4\.3\.2', $name);
}

$async->old_gone('reload', $name);

# E8: worker_shutdown_timeout, behind which the thread has still to do

conf('hasty', 'worker_shutdown_timeout 1s;');
$name = $async->cell('A11', 'E8', 'worker_shutdown_timeout');
@clients = hashing(8, 'hasty');

my $begin = time();
ok($t->reload('hasty'), $name);
is(scalar(grep { $_->wait_close(5) } @clients), 8, "$name: all are closed");
cmp_ok(time() - $begin, '<', 5, "$name: in time");
$async->old_gone('hasty', $name);

steady('at the end');
$async->complete('A11');
$t->stop($_) for qw(main reload hasty);
$fake->stop();
$t->done();
