#!/usr/bin/perl

# "Auth-Status: WAIT": a service that cannot say yet is asked again, as often
# as it says so, while the client has time; and nobody waits in its place.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Test::More;
use Time::HiRes qw(sleep time);

use MailPolicy;
use MailPolicy::AuthService;

my $t = MailPolicy->new();

$t->run_relay(name => 'relay');

# user => how often it is to wait, and what is said then

my %users = (
    once  => [ 1, 'OK' ],
    twice => [ 2, 'OK' ],
    never => [ 1, 'No' ],
    ever  => [ 1000, 'OK' ],
);

my $service = MailPolicy::AuthService->new(dir => $t->dir(), name => 'auth',
    port => $t->port('auth'), handler => sub {
        my ($socket, $request) = @_;

        my ($user) = $request =~ /^Auth-User: (\w+)/m;
        my $file = $t->dir() . "/asked.$user";

        open(my $fh, '>>', $file) or die "$file: $!\n";
        syswrite($fh, '.');

        my ($waits, $status) = @{ $users{$user} };
        my $wait = -s $file <= $waits;

        MailPolicy::AuthService::reply($socket,
            'Auth-Status' => $wait ? 'WAIT' : $status,
            $wait && $user ne 'once' ? ('Auth-Wait' => 1) : ());
        return 1;
    });

$t->conf(<<'EOF');
mail {
    policy_auth_plaintext  on;
    timeout                5s;

    server {
        listen       127.0.0.1:%%PORT_smtp%%;
        protocol     smtp;
        policy       on;
        policy_auth  http://127.0.0.1:%%PORT_auth%%/;
        proxy_pass   127.0.0.1:%%PORT_relay%%;
    }
}
EOF
$t->run_nginx();

my $begin = time();
my $c = session();

like($c->auth_plain('once', 'x'), qr/^235 /, 'once, without a time');
cmp_ok(time() - $begin, '>=', 0.9, 'after a second');
like($c->cmd('QUIT'), qr/^221 /, 'quit');

$begin = time();
$c = session();
like($c->auth_plain('twice', 'x'), qr/^235 /, 'twice');
cmp_ok(time() - $begin, '>=', 1.9, 'after two');

my @attempts = map { /^Auth-Login-Attempt: (\d+)/m } $service->requests();
is("@attempts", '1 1 1 1 1', 'it is the same attempt');

$c = session();
like($c->auth_plain('never', 'x'), qr/^535 5\.7\.8 No$/, 'in the end, no');

# a client that leaves meanwhile, and one that stays as long as it may

$c = session();
$c->send_raw("AUTH PLAIN AGV2ZXIAeA==\r\n");
$t->wait_for(sub { -s $t->dir() . '/asked.ever' });

my $other = session();
like($other->cmd('NOOP'), qr/^250 /, 'others do not wait');
$c->close();

$begin = time();
$c = session();
like($c->auth_plain('ever', 'x'), qr/^421 4\.4\.2 /, 'for ever');
cmp_ok(time() - $begin, '<', 8, 'which is "timeout"');

$service->stop();
$t->done();


sub session {
    my $client = $t->client('smtp');

    $client->greeting();
    $client->cmd('EHLO client.example.com');
    return $client;
}
