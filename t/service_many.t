#!/usr/bin/perl

# One client that pipelines hundreds of recipients, and a policy server that
# takes its time for each, by one connection: none of them waits longer than a
# question may, and nobody else waits behind all of them.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Test::More;
use Time::HiRes qw(sleep);

use MailPolicy;
use MailPolicy::PolicyServer;

use constant { MANY => 1000, TIMEOUT => 1 };

my $t = MailPolicy->new();
my $relay = $t->run_relay(name => 'relay');

# 250 are due at a time, which is 1.25 s here; "no" is refused
my $server = MailPolicy::PolicyServer->new(dir => $t->dir(),
    name => 'service', port => $t->port('service'), handler => sub {
        my ($socket, $request) = @_;

        sleep(0.005);
        MailPolicy::PolicyServer::answer($socket,
            $request->{recipient} =~ /^no/ ? 'REJECT no'
                : $request->{recipient} =~ /^bye/ ? '421 4.7.0 bye'
                : 'DUNNO');
        return 1;
    });

push @{ $t->{servers} }, $server;

$t->conf(<<"EOF2");
mail {
    server_name            edge.example.com;
    access_log             %%DIR%%/access.log;
    policy_zone            512k;
    policy_limit           s key=\$sender messages=1000/1h
                           recipients=100000/1h;
    policy_limit           r key=\$recipient_domain messages=10000/1h;
    policy                 on;
    policy_auth            off;
    policy_max_recipients  1000;
    proxy_pass             127.0.0.1:%%PORT_relay%%;

    server {
        listen          127.0.0.1:%%PORT_smtp%%;
        protocol        smtp;
        policy_service  inet:127.0.0.1:%%PORT_service%% connections=1
                        timeout=@{[ TIMEOUT ]}s;
    }
}
EOF2
$t->run_nginx();

my @rcpts = map { ($_ % 10 ? 'r' : 'no') . "$_\@d" . $_ % 7 . '.example' }
    1 .. MANY;

my $c = $t->session('smtp');
$c->cmd('MAIL FROM:<many@example.com>');
$c->send_raw(join('', map { "RCPT TO:<$_>\r\n" } @rcpts) . "DATA\r\n");

ok($t->wait_for(sub { $server->texts() > 30 }), 'they are asked about');

# somebody else, meanwhile

my $other = $t->session('smtp');
my @replies = $other->send_mail('other@example.com', [ 'b@example.net' ],
    "x\n");

like($replies[-1], qr/^250 /, 'another one is served');
cmp_ok(scalar($server->texts()), '<', MANY, 'others are still asked about');
$other->quit();

my @many = map { $c->read_reply() } @rcpts;
my @wrong = grep { $many[$_] !~ ($rcpts[$_] =~ /^no/ ? qr/^554 5\.7\.1 no$/
    : qr/^250 2\.1\.5 /) } 0 .. $#rcpts;

is(scalar @wrong, 0, 'each has its answer, and none is the default action')
    or diag($many[$wrong[0]]);
like($c->read_reply(), qr/^354 /, 'DATA');
$c->send_raw("x\r\n.\r\n");
like($c->read_reply(), qr/^250 /, 'the message');
$c->quit();

my ($message) = grep { $_->{from} eq 'many@example.com' } $relay->messages();
is(scalar @{ $message->{rcpts} }, MANY * 0.9, 'for whom it is');
is(scalar($server->texts()), MANY + 1, 'each was asked about once');
is($server->connections(), 1, 'by one connection');

# The limits let the second wait for the first, so that the third is asked
# about before it, and that ends the session: behind the second one's reply.

$c = $t->session('smtp');
$c->send_raw(join('', map { "$_\r\n" } 'MAIL FROM:<few@example.com>',
    map { "RCPT TO:<$_.example>" } qw(a@x b@x bye@y c@x d@y)));
is(join(' ', map { substr($c->read_reply(), 0, 3) } 1 .. 5),
    '250 250 250 421 CLO', 'who is in front of a 421 has an answer');
is(join(' ', map { $_->{recipient} } ($server->requests())[-3 .. -1]),
    'a@x.example bye@y.example b@x.example', 'and nobody behind it is asked');

$t->done();
