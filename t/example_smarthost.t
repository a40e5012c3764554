#!/usr/bin/perl

# policies/examples/smarthost.conf as it is printed: all mail to a provider,
# over TLS, with a login; counted before the provider counts it.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Test::More;

use MailPolicy;
use MailPolicy::Example qw(example_text run_example);
use MailPolicy::Limits qw(send_one);

my $t = MailPolicy->new();

# the provider; its certificate is of the one authority that is trusted

my ($crt, $key) = $t->certificate('smtp.example.net');
my ($foreign_crt, $foreign_key) = $t->certificate('foreign');

local $ENV{SSL_CERT_FILE} = $crt;

my %provider = (
    users       => { 'customer-4711' => 'of the provider' },
    certificate => { cert => $crt, key => $key },
    extensions  => [ 'PIPELINING', 'SIZE 52428800', '8BITMIME', 'STARTTLS',
                     'AUTH PLAIN LOGIN' ],
);

$t->write_file('smarthost.password', "of the provider\n");

my (undef, $relay) = run_example($t, example_text($t, 'smarthost.conf'),
    relay => \%provider);

my $smarthost = $relay->{'smtp.example.net:587'};


# mail goes out, over TLS, with the login

my $c = $t->session('listen_25');

like(send_one($c, 'printer@example.com'), qr/^250 /, 'a printer sends');
like(send_one($c, 'root@host.example.com'), qr/^250 /, 'a machine sends');
$c->quit();

my ($first, $second) = $smarthost->messages();

is($first->{auth}, 'customer-4711', 'with the login of the provider');
is($second->{from}, 'root@host.example.com', 'whoever it is of');
is($second->{connection}, $first->{connection}, 'on one connection');

my @clear = $smarthost->said_in_clear();

is(join(' ', @clear), 'EHLO mail.example.com STARTTLS',
    'no more than that in clear');

$c = $t->session('listen_25');
like(send_one($c, 'printer@example.com'), qr/^250 /, 'another session');
$c->quit();


# one machine may not have all of it

my @replies = map {
    my $session = $t->session('listen_25');
    my $reply = send_one($session, 'loop@example.com');

    $session->quit();
    $reply;
} 4 .. 21;

is(scalar(grep { /^250 / } @replies), 17, 'twenty at once');
like($replies[-1], qr/^450 4\.7\.1 Rate limit "host" exceeded/,
    'no more of this machine');

cmp_ok($smarthost->stats()->{total}, '<=', scalar(() = $t->worker_pids()),
    'on no more connections than there are workers');

$c = $t->client('listen_25', from => '127.0.0.2');
$c->greeting();
$c->ehlo();
like(send_one($c, 'other@example.com'), qr/^250 /, 'another machine sends');
$c->quit();


# never in clear, to nobody else, and not without the login

sub is_deferred {
    my ($name, %set) = @_;

    # not on a connection that is kept
    $smarthost->stop();
    $smarthost->start();
    $smarthost->set(%provider, %set);

    my $c = $t->client('listen_25', from => '127.0.0.3');
    $c->greeting();
    $c->ehlo();
    my $before = () = $smarthost->messages();

    like(send_one($c, 'a@example.com'), qr/^4\d\d /, "$name: deferred");
    is(scalar(() = $smarthost->messages()), $before, "$name: not sent");
    return join(' ', $smarthost->said_in_clear());
}

unlike(is_deferred('no STARTTLS', extensions => [ 'PIPELINING',
    'AUTH PLAIN LOGIN' ]), qr/AUTH/, 'no STARTTLS: no password in clear');
unlike(is_deferred('an unknown authority', certificate =>
    { cert => $foreign_crt, key => $foreign_key }), qr/AUTH/,
    'an unknown authority: no password');
is_deferred('the password has changed',
    users => { 'customer-4711' => 'another one' });

unlike($t->error_log(), qr/of the provider/, 'the password is in no log');

$t->done();
