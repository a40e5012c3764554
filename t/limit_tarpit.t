#!/usr/bin/perl

# on_exceed=tarpit: the answer waits until there is room, ten seconds at most,
# and nobody else waits with it.  Who goes away meanwhile, the client or nginx,
# leaves no charge.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Test::More;
use Time::HiRes qw(sleep time);

use MailPolicy;
use MailPolicy::Limits qw(is_used lasting);

# whether shared memory is tried, too
use constant LOCAL => 1;

my $t = MailPolicy->new();
my $redis = $t->run_redis();
my $relay = $t->run_relay(name => 'relay');

$t->write_file('users', "alice\@example.com:{PLAIN}secret\n");

# a limit of each server, called like it: one in half a second, where nothing
# else is said

my $half = '=120/1m,burst=1';
my %servers = (
    mail     => "key=\$sender messages$half on_exceed=tarpit",
    rcpt     => "key=\$sender recipients$half on_exceed=tarpit",
    to       => "key=\$recipient_domain messages$half on_exceed=tarpit",
    long     => 'key=$sender messages=1/1h on_exceed=tarpit',
    blocked  => 'key=$sender messages=blocked on_exceed=tarpit',
    gone     => "key=\$sender messages$half recipients=100/1h (?#
                )on_exceed=tarpit",
    end      => 'key=$sender bytes=120k/1m,burst=1000 on_exceed=tarpit',
    window   => 'key=$sender messages=1/1s on_exceed=tarpit',
    session  => 'key=$client_net sessions=1 on_exceed=tarpit',
    login    => 'key=$sasl_username sessions=1 on_exceed=tarpit;
                 policy_auth file:%%DIR%%/users',
    failures => 'key=$client_net auth_failures=1/1s on_exceed=tarpit;
                 policy_auth file:%%DIR%%/users',
    hard     => "key=\$sender messages$half on_exceed=tarpit;
                 policy_limit hard2 key=\$sender messages=1/1h",
    soft     => "key=\$sender messages$half on_exceed=tarpit;
                 policy_limit soft2 key=\$sender messages=1/1h
                              on_exceed=report",
    stop     => "key=\$sender messages$half on_exceed=tarpit",
);


sub configure {
    my ($store, $line) = @_;

    my $servers = '';

    for my $name (sort keys %servers) {
        my $limits = $servers{$name} =~ s/\(\?#\s*\)//r;
        my $auth = $limits =~ /policy_auth/ ? '' : 'policy_auth off;';

        $servers .= <<"EOF";
    server {
        listen        127.0.0.1:%%PORT_${store}_$name%%;
        protocol      smtp;
        policy_limit  $name $limits;
        $auth
    }
EOF
    }

    $t->conf($store, <<"EOF");
mail {
    $line
    policy                 on;
    policy_auth_plaintext  on;
    proxy_pass             127.0.0.1:%%PORT_relay%%;
    access_log             %%DIR%%/$store.access.log;
    $servers
}
EOF
    $t->run_nginx($store);
}


my ($store, $name);

sub session {
    my ($where) = @_;

    return $t->session("${store}_$where");
}


my %began;
my $mail = "MAIL FROM:<a\@example.com>\r\n";

sub ask {
    my ($c, $octets) = @_;

    $began{$c} = time();
    $c->send_raw($octets);
    return $c;
}


# the reply, which comes after so many seconds
sub after {
    my ($text, $c, $pattern, $low, $high) = @_;

    local $Test::Builder::Level = $Test::Builder::Level + 1;

    my $reply = $c->read_reply(15);
    my $took = time() - $began{$c};

    like($reply, $pattern, "$name: $text");
    cmp_ok($took, '>=', $low, "$name: $text: not before");
    cmp_ok($took, '<', $high, "$name: $text: and not later");
    return $reply;
}


# Those that wait for the whole time, while all others go on.  What is to be
# looked at then.

sub begin {
    my @long = map { session($_) } qw(long long blocked);
    my $held = session('session');

    like($long[0]->cmd('MAIL FROM:<a@example.com>'), qr/^250 /,
        "$name: the first");
    ask($_, $mail) for @long[1, 2];

    my $waits = $t->client("${store}_session");
    like($waits->greeting(), qr/^220 /, "$name: the greeting does not wait");
    ask($waits, "EHLO x\r\n");

    my $login = session('login');
    like($login->auth_plain('alice@example.com', 'secret'), qr/^235 /,
        "$name: a session");
    my $second = ask(session('login'),
        "AUTH PLAIN AGFsaWNlQGV4YW1wbGUuY29tAHNlY3JldA==\r\n");

    return (
        [ 'no room', $long[1],
          qr/^450 4\.7\.1 Rate limit "long" exceeded, retry in 3\d{3} s$/ ],
        [ 'blocked', $long[2],
          qr/^450 4\.7\.1 Rate limit "blocked" exceeded$/ ],
        [ 'a session', $waits,
          qr/^421 4\.7\.0 Too many sessions \(limit "session"\)$/ ],
        [ 'a login', $second,
          qr/^421 4\.7\.0 Too many sessions \(limit "login"\)$/ ],
    );
}


sub delays {

    # until there is room

    my $c = session('mail');
    like($c->cmd('MAIL FROM:<a@example.com>'), qr/^250 /, "$name: one");
    my $d = ask(session('mail'), $mail);
    my $e = session('mail');
    my $begin = time();
    like($e->cmd('MAIL FROM:<b@example.com>'), qr/^250 /,
        "$name: another sender");
    cmp_ok(time() - $begin, '<', 0.3, "$name: does not wait");
    after('a message', $d, qr/^250 2\.1\.0 /, 0.3, 1.3);

    # two wait: both get their turn

    $d = ask(session('mail'), $mail);
    $e = ask(session('mail'), $mail);
    my @took = sort { $a <=> $b } map {
        like($_->read_reply(15), qr/^250 /, "$name: two wait");
        time() - $began{$_};
    } $d, $e;
    cmp_ok($took[1], '>=', 0.7, "$name: two wait: one after the other");
    cmp_ok($took[1], '<', 2.5, "$name: two wait: not for ever");

    # pipelined: replies in their order

    $c = session('rcpt');
    ask($c, "${mail}RCPT TO:<b\@example.net>\r\nRCPT TO:<c\@example.net>\r\n"
        . "NOOP\r\n");
    after('MAIL', $c, qr/^250 2\.1\.0/, 0, 0.5);
    after('the first recipient', $c, qr/^250 2\.1\.5/, 0, 0.5);
    after('the second', $c, qr/^250 2\.1\.5/, 0.3, 1.3);
    like($c->read_reply(), qr/^250 /, "$name: NOOP behind it");

    # the second recipient of a domain waits for the first, and costs nothing

    $c = session('to');
    like($c->cmd('MAIL FROM:<x@example.com>'), qr/^250 /, "$name: to");
    like($c->cmd('RCPT TO:<a@example.net>'), qr/^250 /, "$name: to: one");
    $d = session('to');
    ask($d, "MAIL FROM:<y\@example.com>\r\nRCPT TO:<a\@example.net>\r\n"
        . "RCPT TO:<b\@example.net>\r\n");
    after('to: MAIL', $d, qr/^250 /, 0, 0.5);
    after('to: one after the other', $d, qr/^250 /, 0.3, 1.3);
    after('to: of the same domain', $d, qr/^250 /, 0.3, 1.3);

    # octets that were not declared, at the end

    $c = session('end');
    $c->send_mail('a@example.com', [ 'b@example.net' ], 'x' x 900 . "\n");
    $c->pipeline('MAIL FROM:<a@example.com>', 'RCPT TO:<b@example.net>',
        'DATA');
    ask($c, 'x' x 900 . "\r\n.\r\n");
    after('octets', $c, qr/^250 /, 0.2, 1.3);

    # a window, and what else there is

    $c = session('window');
    like($c->cmd('MAIL FROM:<a@example.com>'), qr/^250 /, "$name: a window");
    $d = ask(session('window'), $mail);

    $e = session('failures');
    $e->auth_plain('alice@example.com', 'wrong');
    $began{$e} = time();
    like($e->auth_plain('alice@example.com', 'secret'), qr/^235 /,
        "$name: AUTH");
    cmp_ok(time() - $began{$e}, '>=', 0.6, "$name: AUTH: it waited");
    after('a window', $d, qr/^250 /, 0.7, 2.5);

    # limits that say no at once are told at once, others are not heard

    $c = session('hard');
    $c->cmd('MAIL FROM:<a@example.com>');
    after('a limit that defers', ask(session('hard'), $mail),
        qr/^450 4\.7\.1 Rate limit "hard2" /, 0, 0.5);
    $c = session('soft');
    $c->cmd('MAIL FROM:<a@example.com>');
    after('a limit that reports', ask(session('soft'), $mail), qr/^250 /,
        0.3, 1.3);

    # the client does not wait

    $c = session('gone');
    $c->send_mail('a@example.com', [ 'b@example.net' ], "x\n");

    for my $how (qw(close reset)) {
        $c = ask(session('gone'), "${mail}RCPT TO:<b\@example.net>\r\n");
        sleep(0.1);
        $c->$how();
    }

    sleep(0.8);
    is_used($redis, "$name: gone: the first is charged", 'gone',
        'a@example.com', recipients => 1, timeout => 5) if $store eq 'redis';
    ok($t->wait_for(sub {
        session('gone')->cmd('MAIL FROM:<a@example.com>') =~ /^250 / }, 5),
        "$name: gone: there is room");
}


# nginx does not wait either, but for who is not between commands

sub reload {
    my $c = session('stop');
    $c->cmd('MAIL FROM:<a@example.com>');
    my $d = ask(session('stop'), "${mail}RCPT TO:<b\@example.net>\r\n");
    sleep(0.1);
    ok($t->reload($store), "$name: reload");
    like($c->read_reply(), qr/^421 4\.3\.2 /,
        "$name: reload: between commands");
    after('reload', $d, qr/^250 /, 0.2, 1.5);
    like($d->read_reply(), qr/^250 /, "$name: reload: a recipient");
    like($d->read_reply(), qr/^421 4\.3\.2 /, "$name: reload: and then 421");
}


configure('redis', 'policy_redis redis://127.0.0.1:%%PORT_redis%% timeout=5s;');
configure('local', '') if LOCAL;

my @stores = ([ 'redis', 'Redis' ], LOCAL ? [ 'local', 'shared memory' ] : ());
my @long;

for (@stores) {
    ($store, $name) = @$_;
    push @long, map { [ $name, @$_ ] } begin();
}

for (@stores) {
    ($store, $name) = @$_;
    delays();
}

is_deeply([ lasting($redis) ], [], 'no key without TTL');

# those that have waited for ten seconds

for (@long) {
    ($name, my @asked) = @$_;
    after(@asked, 9.5, 18);
}

for (@stores) {
    ($store, $name) = @$_;
    reload();
}

# Of a worker that may not wait its sessions are closed in their tarpits; it
# lives until the last timer is gone.

$t->conf('hasty', <<'EOF');
worker_shutdown_timeout 200ms;

mail {
    policy_redis  redis://127.0.0.1:%%PORT_redis%% timeout=5s;

    server {
        listen        127.0.0.1:%%PORT_hasty%%;
        protocol      smtp;
        policy        on;
        policy_auth   off;
        proxy_pass    127.0.0.1:%%PORT_relay%%;
        policy_limit  hasty key=$client_net connections=60/1m,burst=1
                            on_exceed=tarpit;
    }
}
EOF
$t->run_nginx('hasty');

my ($worker) = $t->worker_pids('hasty');
my $first = $t->client('hasty');
$first->greeting();
$first->ehlo();
my $other = $t->client('hasty');
$other->greeting();
$other->send_raw("EHLO x\r\n");
sleep(0.1);
ok($t->reload('hasty'), 'reload amid a tarpit');
ok($other->wait_close(), 'closed');
ok($t->wait_for(sub { !kill(0, $worker) }), 'the worker is gone');

is(scalar(() = $t->error_log('hasty') =~ /$worker exited on signal/g), 0,
    'by itself');

$t->done(faults => 0);
