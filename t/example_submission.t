#!/usr/bin/perl

# policies/examples/submission.conf as it is printed: logins over TLS, their
# own addresses, and a limit for each.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Test::More;

use MailPolicy;
use MailPolicy::Example qw(commands example_text run_example);
use MailPolicy::Limits qw(is_used send_one);

my $t = MailPolicy->new();
my $text = example_text($t, 'submission.conf');
my ($redis, $relay) = run_example($t, $text);

my $hash = $t->crypt('secret', '$5$rounds=1000$mailpolicy$');

# the lines at its head, with a password already hashed

$redis->cmd(@$_) for commands($text, $hash);

is_deeply($redis->hash('mail:user:{alice@example.com}'),
    { password => $hash, senders => 'sales@example.com' }, 'a user');

$redis->cmd('HSET', 'mail:user:{bob@example.com}', password => $hash);


# nothing without TLS and a login

my $c = $t->session('listen_587');

like($c->auth_plain('alice@example.com', 'secret'), qr/^530 5\.7\.0 /,
    '587: no login in clear');

$c = session(587);

like($c->cmd('MAIL FROM:<alice@example.com>'), qr/^530 5\.7\.0 /,
    '587: no mail without login');
like($c->auth_plain('alice@example.com', 'guess'), qr/^535 5\.7\.8 /,
    'no login with another password');

# her own addresses

for my $port (587, 465) {
    $c = session($port, 'alice@example.com');

    like(send_one($c, $_), qr/^250 /, "$port: $_ passes")
        for 'alice@example.com', 'sales@example.com';
    like(send_one($c, 'bob@example.com'), qr/^553 5\.7\.1 /,
        "$port: somebody else is refused");
}

is_used($redis, 'each is counted once', 'user', 'alice@example.com',
    messages => 4, recipients => 4, timeout => 5);

my %sent = map { $_ => scalar $relay->{$_}->messages() } keys %$relay;

is($sent{'10.0.0.11:25'} + $sent{'10.0.0.12:25'}, 4, 'by the relays');
cmp_ok($sent{'10.0.0.11:25'}, '>', 0, 'most by the first');
is($sent{'10.0.0.13:25'}, 0, 'none by the one that is for a failure');


# her limit, which is not his

$redis->cmd('HSET', 'mail:limit:user:{alice@example.com}', messages => '5/1h');

$c = session(587, 'alice@example.com');

like(send_one($c, 'alice@example.com'), qr/^250 /, 'alice: the fifth');
like(send_one($c, 'alice@example.com'),
    qr/^450 4\.7\.1 Rate limit "user" exceeded, retry in \d+ s/,
    'alice: the sixth');

$c = session(465, 'bob@example.com');
like(send_one($c, 'bob@example.com'), qr/^250 /, 'bob');


# who guesses, from a network where nobody has logged in

my @replies;

for my $n (1 .. 4) {
    $c = session(465, undef, from => '127.0.0.2');
    push @replies, map { $c->auth_plain('bob@example.com', "$n-$_") } 1 .. 3;
}

is(scalar(grep { /^535 5\.7\.8 / } @replies), 10, 'ten passwords');
is(scalar(grep { /^454 4\.7\.0 Too many failed logins/ } @replies), 2,
    'and no more');
like(session(465)->auth_plain('bob@example.com', 'secret'), qr/^235 /,
    'others log in');


# the page

my $page = $t->http_get('listen_8080', '/?format=html');

like($page, qr/<!DOCTYPE html>/i, 'a page');
like($page, qr/alice\@example\.com/, 'with who is refused');

$t->done();


sub session {
    my ($port, $login, @option) = @_;

    my $client = $t->client("listen_$port", tls => $port == 465, @option);

    $client->greeting();
    $client->ehlo();

    if ($port == 587) {
        $client->starttls();
        $client->ehlo();
    }

    like($client->auth_plain($login, 'secret'), qr/^235 /,
        "$port: $login logs in") if defined $login;

    return $client;
}
