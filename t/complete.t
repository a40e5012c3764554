#!/usr/bin/perl

# The complete configuration of README.md, as it is printed there: logins and
# limits in Redis, senders that are the login's, TLS on both sides, two groups
# of relays, kept connections, a log of its own format, and what Postfix asks.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use JSON::PP ();
use Test::More;

use MailPolicy;
use MailPolicy::Example qw(complete_text run_example);
use MailPolicy::Limits qw(is_used send_one);
use MailPolicy::Policy;

my $t = MailPolicy->new();

# certificates are for 127.0.0.1, too, as relays are named by addresses; the
# system's authorities are one

my ($crt, $key) = $t->certificate('relay');
my ($foreign_crt, $foreign_key) = $t->certificate('foreign');

local $ENV{SSL_CERT_FILE} = $crt;

my @PLAIN = ('PIPELINING', 'SIZE 52428800', '8BITMIME',
    'ENHANCEDSTATUSCODES');

my ($redis, $relay) = run_example($t, complete_text($t),
    relay => { certificate => { cert => $crt, key => $key },
               extensions => [ @PLAIN, 'STARTTLS' ] });

my ($first, $second, $backup, $bulk) = @$relay{map { "$_:25" }
    qw(10.0.0.11 10.0.0.12 10.0.0.13 10.0.1.11)};

$redis->cmd('HSET', 'mail:user:{alice@example.com}', password =>
    $t->crypt('secret', '$5$rounds=1000$mailpolicy$'),
    senders => '@news.example.com');


# STARTTLS only

my $c = $t->session('listen_587');

like($c->cmd('MAIL FROM:<alice@example.com>'), qr/^530 5\.7\.0 /,
    'in clear: no mail');
like($c->auth_plain('alice@example.com', 'secret'), qr/^530 5\.7\.0 /,
    'in clear: no login');

$c = session();

like($c->cmd('MAIL FROM:<alice@example.com>'), qr/^530 5\.7\.0 /,
    'without login: no mail');
like($c->auth_plain('alice@example.com', 'guess'), qr/^535 5\.7\.8 /,
    'another password');
like($c->auth_plain('alice@example.com', 'secret'), qr/^235 2\.7\.0 /,
    'a login from Redis');

like(send_one($c, 'bob@example.com'), qr/^553 5\.7\.1 /, 'another sender');


# outbound: by weight, on connections that are kept

like(send_one($c, 'alice@example.com'), qr/^250 /, 'message 1');
$c->quit();

for my $n (2 .. 8) {
    $c = login();
    like(send_one($c, 'alice@example.com'), qr/^250 /, "message $n");
    $c->quit();
}

is(join(' ', map { scalar $_->messages() } $first, $second, $backup), '6 2 0',
    'three to one, and none to the backup');
is(join(' ', map { $_->stats()->{total} } $first, $second), '1 1',
    'on one connection each');

for my $who ($first, $second) {
    is_deeply([ $who->said_in_clear() ],
        [ 'EHLO mail.example.com', 'STARTTLS' ], 'nothing more in clear');
}


# bulk: a relay that lacks TLS, or is another one, does not get the message

$bulk->set(extensions => \@PLAIN);

$c = login();

like(send_one($c, 'issue@news.example.com'), qr/^4\d\d /,
    'bulk: no STARTTLS, no mail');

$bulk->set(extensions => [ @PLAIN, 'STARTTLS' ],
    certificate => { cert => $foreign_crt, key => $foreign_key });

like(send_one($c, 'issue@news.example.com'), qr/^4\d\d /,
    'bulk: an unknown authority, no mail');

$bulk->set(certificate => { cert => $crt, key => $key });

like(send_one($c, 'issue@news.example.com'), qr/^250 /,
    'bulk: with TLS and the right certificate');
is(join(' ', map { $_->{from} } $bulk->messages()), 'issue@news.example.com',
    'bulk: it has that one alone');

is_used($redis, 'what was not sent is not counted', 'user',
    'alice@example.com', messages => 9, recipients => 9, timeout => 5);


# without its relays outbound has the backup

$_->stop() for $first, $second;

like(send_one($c, 'alice@example.com'), qr/^250 /, 'both relays are gone');
is(scalar $backup->messages(), 1, 'the backup has it');


# limits

$redis->cmd('HSET', 'mail:limit:user:{alice@example.com}',
    messages => '11/1h');

like(send_one($c, 'alice@example.com'), qr/^250 /, 'message 11 of 11');
like(send_one($c, 'alice@example.com'),
    qr/^450 4\.7\.1 Rate limit "user" exceeded, retry in \d+ s/,
    'and one too many');

my $postfix = MailPolicy::Policy->new($t, 'listen_10040');

like($postfix->ask(sasl_username => 'alice@example.com'),
    qr/^DEFER_IF_PERMIT 4\.7\.1 Rate limit "user" exceeded, retry in \d+ s$/,
    'Postfix is told the same');
is($postfix->message()->ask(sasl_username => 'bob@example.com'), 'DUNNO',
    'and nothing of others');

$t->disconnect();

ok($t->wait_for(sub { $redis->cmd('ZCARD', 'mail:lease:client:{127.0.0.1}')
    == 0 }), 'all sessions are over');

my @sessions = map { my $s = $t->client('listen_587'); $s->greeting();
    $s } 1 .. 21;
my @replies = map { $_->cmd('EHLO client.example') } @sessions;

is(scalar(grep { /^250/ } @replies), 20, 'twenty sessions of a network');
is(scalar(grep { /^421 4\.7\.0 Too many sessions \(limit "client"\)/ }
    @replies), 1, 'and no more');


# the state

my $status = JSON::PP->new()->utf8()->decode($t->http_get('listen_8080', '/'));

is($status->{store}{state}, 'up', 'policy_status: Redis is there');
like(join(' ', map { $_->{state} } @{ $status->{upstreams}[0]{peers} }),
    qr/^\w+ failed up$/, 'policy_status: the relays');


# the log

my @log = split(/\n/, $t->read_file('mail.log'));
my %at = map { $_ => '127\.0\.0\.1:' . $relay->{"$_:25"}->port() }
    qw(10.0.0.11 10.0.0.12 10.0.0.13 10.0.1.11);

my $alice = 'alice@example\.com';

like($log[0], qr/^127\.0\.0\.1 $alice bob\@example\.com 0 553 - -$/,
    'log: a refusal');
like($log[1], qr/^127\.0\.0\.1 $alice $alice 1 250 \w+ $at{'10.0.0.11'}$/,
    'log: a message');
is(scalar(grep { / $at{'10.0.1.11'}$/ } @log), 3, 'log: bulk');
is(scalar(grep { /^127\.0\.0\.1 $alice $alice 0 450 user / } @log), 1,
    'log: a limit');

$t->done();


sub session {
    my $client = $t->session('listen_587');

    like($client->starttls(), qr/^220 /, 'STARTTLS');
    $client->ehlo();
    return $client;
}


sub login {
    my $client = session();

    $client->auth_plain('alice@example.com', 'secret');
    return $client;
}
