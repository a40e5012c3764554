#!/usr/bin/perl

# A file of users that changes while nginx runs: what is in force, what is
# said of a file that is wrong, and that nobody is held up.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use MIME::Base64 qw(encode_base64);
use POSIX ();
use Test::More;
use Time::HiRes qw(sleep time);

use MailPolicy;

my $t = MailPolicy->new();
my $relay = $t->run_relay(name => 'relay');
my $other_relay = $t->run_relay(name => 'other');
my $file = $t->dir() . '/users';

my %hash = map { $_ => $t->crypt("canary-$_", '$6$rounds=1000$salt$') }
    qw(old new other);

put(alice => $hash{old}, bob => $hash{other});

sub conf {
    my ($name) = @_;

    $t->conf($name, <<"EOF");
thread_pool default threads=2;
mail {
    policy                 on;
    policy_auth_plaintext  on;
    policy_auth            file:users;
    policy_auth_cache      0;
    policy_auth_delay      0;
    proxy_pass             127.0.0.1:%%PORT_relay%%;
    max_errors             100000;
    timeout                60s;

    server {
        listen       127.0.0.1:%%PORT_$name%%;
        protocol     smtp;
    }

    server {
        listen       127.0.0.1:%%PORT_routed_$name%%;
        protocol     smtp;
        proxy_pass   \$auth_relay;
    }
}
EOF
}

conf('nginx');
$t->run_nginx();

# a password that changes, in place and by another file

my $open = $t->session('nginx');

is(login('alice', 'old'), '235', 'to begin with');
is(login('alice', 'new'), '535', 'and no other password');

put(alice => $hash{new}, bob => $hash{other});
sleep(1.1);
is(login('alice', 'old'), '535', 'changed in place: the old one is refused');
is(login('alice', 'new'), '235', 'changed in place: the new one is right');

replace(alice => $hash{old}, bob => $hash{other}, carol => $hash{other});
sleep(1.1);
is(login('alice', 'new'), '535', 'replaced: the old one is refused');
is(login('alice', 'old'), '235', 'replaced: the new one is right');
is(login('carol', 'other'), '235', 'replaced: somebody new');

replace(alice => $hash{old}, carol => $hash{other});
sleep(1.1);
is(login('bob', 'other'), '535', 'replaced: somebody is gone');

# twice within one look: the last one counts

for my $password (qw(new other old new)) {
    replace(alice => $hash{$password});
    login('alice', $password);
}

sleep(1.1);
is(login('alice', 'new'), '235', 'changed in haste');
is(login('alice', 'old'), '535', 'changed in haste, not to this');
like($open->cmd('NOOP'), qr/^250 /, 'a session goes on');

# of the same length and age

for my $password (qw(old new)) {
    my @stat = stat($file);
    put(alice => $hash{$password});
    utime($stat[8], $stat[9], $file);
    sleep(1.1);
    is(login('alice', $password), '235', 'changed, and as old as before');
}

# suspended, and what else stands in a line

put(alice => "$hash{old}:status=suspended",
    bob => "$hash{other}:1000:1000:Bob:status=closed"
        . ':message=Account closed, see https://help.example.com/: "mail"',
    carol => "$hash{other}:status=Active:relay=127.0.0.1:" . $t->port('other')
        . ':senders=carol@example.com',
    dave => "{PLAIN}canary-plain:status=active:relay=other",
    eve => ':status=active', frank => ':status=away:message=Gone');
sleep(1.1);

my $c = $t->session('nginx');
my $wrong = $c->auth_plain('alice', 'canary-not');

like($wrong, qr/^535 5\.7\.8 /, 'suspended, wrong: as ever');
like($c->auth_plain('alice', 'canary-old'), qr/^535 5\.7\.13 /,
    'suspended: is told so');
is($c->auth_plain('bob', 'canary-other'), '535 5.7.13 Account closed, '
    . 'see https://help.example.com/: "mail"', 'suspended, with a message');
is($c->auth_plain('bob', 'canary-not'), $wrong, 'that not all can read');
is($c->auth_plain('eve', 'canary-other'), $wrong, 'without a password');
is($c->auth_plain('eve', ''), $wrong, 'without a password, with none');
is($c->auth_plain('frank', 'x'), $wrong, 'the same, and suspended');
is(login('dave', 'plain'), '235', 'a password in clear, fields behind it');

$c = $t->session('routed_nginx');
like($c->auth_plain('carol', 'canary-other'), qr/^235 /, 'a login with a route');
is(($c->send_mail('carol@example.com', [ 'x@example.net' ], "x\n"))[-1] =~
    /^250 / && scalar($other_relay->messages()), 1, 'and there it goes');

# files that are wrong

my $good = "alice:$hash{new}\n";
my @bad = (
    [ "$good\n# x\ncanary-bad\n", qr/:\d+: "login:hash" expected/ ],
    [ "$good$good", qr/:\d+: the same login as in line \d+/ ],
    [ "x:canary-bad\n", qr/:\d+: unknown, incomplete or too costly password / ],
    [ "x:\n", qr/:\d+: unknown, incomplete or too costly password / ],
    [ "x::status=a:status=b\n", qr/:\d+: a second "status="/ ],
    [ "x::message=\n", qr/:\d+: invalid message, expected 1 to 200 printable/ ],
    [ "x::message=canary-\xc3\xbc\n", qr/:\d+: invalid message/ ],
    [ "x::message=" . 'x' x 201 . "\n", qr/:\d+: invalid message/ ],
    [ "x::message=canary:status=suspended\n",
        qr/:\d+: "message=" goes to the end of the line/ ],
    [ "x::relay=canary bad\n", qr/:\d+: invalid relay, expected "host:port"/ ],
    [ "x::relay=\n", qr/:\d+: invalid relay/ ],
    [ "x:{PLAIN}canary:bad\n", qr/:\d+: a \{PLAIN\} password cannot have a / ],
);

put(alice => $hash{old});
sleep(1.1);
is(login('alice', 'old'), '235', 'good');

for my $n (1 .. @bad) {
    my $case = $bad[$n - 1];
    my ($text, $message) = @$case;
    my $before = () = errors();

    # the same mistake in the same line is not said again
    $t->write_file('users.new', ("\n" x $n) . $text);
    rename("$file.new", $file);
    sleep(1.1);
    is(login('alice', 'old'), '235', "wrong: the users stay, $message");
    is(login('alice', 'new'), '535', 'and no others');
    sleep(1.1) if $case == $bad[0];
    is(login('alice', 'old'), '235', 'still');

    my @errors = errors();
    like($errors[-1], qr/users$message.*, what was read before stays in force/,
        'is said');
    is(scalar(@errors), $before + 1, 'once');
}

for my $case (
    [ removed => sub { unlink($file) },
        qr/open\(\) "\S+" of "policy_auth" failed, .* \(2: / ],
    [ folder => sub { mkdir($file) },
        qr/"\S+" of "policy_auth" is not a regular file/ ],
    [ huge => sub { rmdir($file); put(); truncate($file, 65 << 20) },
        qr/"\S+" of "policy_auth" is larger than 64 megabytes/ ],
) {
    my ($name, $code, $message) = @$case;
    my $before = () = errors();

    $code->();
    sleep(1.1);
    is(login('alice', 'old'), '235', "$name: the users stay");
    sleep(1.1);
    is(login('alice', 'new'), '535', "$name: and no others");

    my @errors = errors();
    like($errors[-1], $message, "$name: is said");
    is(scalar(@errors), $before + 1, "$name: once");
}

put(alice => $hash{new});
sleep(1.1);
is(login('alice', 'new'), '235', 'good again');
like($t->error_log(), qr/\[notice\] .*users" of "policy_auth" was read again/,
    'is said');

# somebody takes his time to write it: no user is gone meanwhile

my $writer = fork();

if ($writer == 0) {
    for my $round (1 .. 4) {
        open(my $fh, '>', $file);
        $fh->autoflush(1);

        for my $line ((map { "user$_:$hash{other}\n" } 1 .. 15),
            "alice:$hash{new}\n")
        {
            print $fh $_ for substr($line, 0, 30), substr($line, 30);
            Time::HiRes::sleep(0.03);
        }
        close($fh);
        Time::HiRes::sleep(0.3);
    }
    POSIX::_exit(0);
}

my %replies;
my $end = time() + 3.5;

while (time() < $end) {
    $replies{login('alice', 'new')}++;
    sleep(0.02);
}

waitpid($writer, 0);
is(join(' ', keys %replies), '235', 'written slowly: nobody is locked out');
sleep(1.1);
is(login('user15', 'other'), '235', 'written slowly: then it is in force');

# many users, of whom another session feels nothing

my @many = map { ("user$_\@example.com" => "$hash{other}:senders=a$_\@x.org") }
    1 .. 100_000;

for my $round (1 .. 2) {
    replace(@many, alice => $hash{$round == 1 ? 'old' : 'new'});
    sleep(1.1);

    my $password = $round == 1 ? 'old' : 'new';
    my $reply = '';
    my @times;

    # on a machine with a lot to do, it takes longer than logins wait
    for my $try (1 .. 20) {
        $open->cmd('NOOP');
        $c = $t->session('nginx');
        send_login($c, 'alice', $password);
        push @times, noops($open, 0.7);
        $reply = $c->read_reply();
        last if $reply =~ /^235 /;
    }

    @times = sort { $a <=> $b } @times;

    like($reply, qr/^235 /, "100,000 users, $round: are in force");
    cmp_ok($times[@times / 2], '<=', 0.01,
        "100,000 users, $round: a NOOP takes 10 ms at most");
    cmp_ok($times[-1], '<=', 0.5, "100,000 users, $round: none takes long");
    diag(sprintf('%d NOOPs: median %.2f ms, max %.1f ms', scalar(@times),
        $times[@times / 2] * 1000, $times[-1] * 1000));
}

is(login('user77777@example.com', 'other'), '235',
    '100,000 users: one of them');

# sessions that end while they wait for the file

for my $n (1 .. 40) {
    utime(undef, undef, $file) if $n % 10 == 1;
    sleep(1.05) if $n % 10 == 1;

    $c = $t->session('nginx');
    send_login($c, 'alice', 'new');
    sleep(0.002 * ($n % 10));
    $n % 2 ? $c->reset() : $c->close();
}

is(login('alice', 'new'), '235', 'clients that do not wait: the next one can');

# a reload while it is looked at; and the end

utime(undef, undef, $file);
sleep(1.05);

my @waiting = map { $t->session('nginx') } 1 .. 3;
send_login($_, 'alice', 'new') for @waiting;
ok($t->reload(), 'reload while the file is read');
like($_->read_reply(), qr/^235 /, 'who waited is answered') for @waiting;
is(login('alice', 'new'), '235', 'after the reload');

utime(undef, undef, $file);
sleep(1.05);
@waiting = map { $t->session('nginx') } 1 .. 3;
send_login($_, 'alice', 'new') for @waiting;
sleep(0.02);
$_->reset() for @waiting;
is($t->stop(), 0, 'nginx ends while the file is read');

# threads that have a lot to do hold nobody up who needs none

put(alice => $hash{new}, slow => $t->crypt('canary-slow',
    '$6$rounds=1000000$salt$'));
$t->conf('busy', <<'EOF');
thread_pool default threads=1;
mail {
    policy                 on;
    policy_auth_plaintext  on;
    policy_auth            file:users;
    proxy_pass             127.0.0.1:%%PORT_relay%%;

    server {
        listen       127.0.0.1:%%PORT_busy%%;
        protocol     smtp;
    }
}
EOF
$t->run_nginx('busy');
is(login('alice', 'new', 'busy'), '235', 'busy: a login that is remembered');

my @slow = map { $t->session('busy') } 1 .. 12;
send_login($_, 'slow', 'slow') for @slow;
sleep(1.1);
$c = $t->session('busy');
my $start = time();
is(code($c->auth_plain('alice', 'canary-new')), '235', 'busy: is answered');
my $took = time() - $start;

is(code($_->read_reply(60)), '235', 'busy: and the others') for @slow;
cmp_ok($took, '<', 4, 'busy: in two seconds or so');
cmp_ok(time() - $start, '>', $took + 0.2, 'busy: before the others');
is(code($t->session('busy')->auth_plain('alice', 'canary-new')), '235',
    'busy: and when all is done');
$t->stop('busy');

my $log = $t->error_log() . $t->read_file('busy.error.log');
unlike($log, qr/canary/, 'OUT-2 no password in the log');
unlike($log, qr/\$salt\$/, 'OUT-2 nor a hash');

$t->done();


sub lines {
    my @users = @_;

    my $text = '';

    while (my ($login, $rest) = splice(@users, 0, 2)) {
        $text .= "$login:$rest\n";
    }
    return $text;
}


sub put     { $t->write_file('users', lines(@_)) }
sub replace { $t->write_file('users.new', lines(@_)); rename("$file.new", $file) }
sub errors  { return grep { /\[error\]/ } split /\n/, $t->error_log() }


sub login {
    my ($login, $password, $port) = @_;

    my $client = $t->session($port // 'nginx');
    my $reply = $client->auth_plain($login, "canary-$password");
    $client->close();
    return code($reply);
}


sub code { return substr($_[0], 0, 3) }


sub send_login {
    my ($client, $login, $password) = @_;

    $client->send_raw('AUTH PLAIN '
        . encode_base64("\0$login\0canary-$password", '') . "\r\n");
}


# how long each took

sub noops {
    my ($client, $seconds) = @_;

    my @times;
    my $until = time() + $seconds;

    while (time() < $until) {
        my $begun = time();
        $client->cmd('NOOP') =~ /^250 / or die "NOOP failed\n";
        push @times, time() - $begun;
        sleep(0.001);
    }

    return @times;
}
