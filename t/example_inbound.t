#!/usr/bin/perl

# policies/examples/inbound.conf as it is printed: mail of anybody, for the
# domains that Redis knows, to the relay that Redis names.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Test::More;

use MailPolicy;
use MailPolicy::Example qw(at commands example_text run_example);
use MailPolicy::Limits qw(send_one);

my $t = MailPolicy->new();
my $text = example_text($t, 'inbound.conf');
my ($redis, $relay) = run_example($t, $text);

my $mailboxes = $relay->{'10.0.2.11:25'};
my $customer = $t->run_relay(name => 'customer');

my $DENIED = qr/^450 4\.7\.1 Relay access denied\b/;


# a domain is not there, comes, and goes, without a reload

my $c = $t->session('listen_25');

like(rcpt($c, 'bob@example.com'), $DENIED, 'a domain that is not there');

for (commands($text)) {
    my ($command, $key, $value) = @$_;

    next if $command ne 'SET';
    $value = '127.0.0.1:' . $t->port('customer') if $value =~ /:25\z/;
    $redis->cmd($command, $key, $value);
}

ok($t->wait_for(sub { rcpt($c, 'bob@example.com') =~ /^250 / }),
    'is there within the time of the cache');

$c = $t->session('listen_25');

like(send_one($c, 'x@sender.example', 'bob@example.com'), qr/^250 /,
    'a domain with a group');
like(send_one($c, 'x@sender.example', 'bob@Example.COM'), qr/^250 /,
    'in any case');

is(scalar $mailboxes->messages(), 2, 'goes to the group');
is(scalar $customer->messages(), 0, 'and nowhere else');

like(send_one($c, 'x@sender.example', 'eve@customer.example'), qr/^250 /,
    'a domain with an address');
like(send_one($c, '<>', 'eve@customer.example'), qr/^250 /,
    'a bounce to it');

is(scalar $customer->messages(), 2, 'goes there');
is(scalar $mailboxes->messages(), 2, 'and nowhere else');


# recipients of one message

like($c->cmd('MAIL FROM:<x@sender.example>'), qr/^250 /, 'one message');
like($c->cmd('RCPT TO:<bob@example.com>'), qr/^250 /, 'the first decides');
like($c->cmd('RCPT TO:<carol@example.com>'), qr/^250 /, 'the same relay');
like($c->cmd('RCPT TO:<eve@customer.example>'), qr/^452 4\.5\.3 /,
    'another relay');
like($c->cmd('RCPT TO:<x@elsewhere.example>'), $DENIED, 'no relay');
like($c->cmd('DATA'), qr/^354 /, 'DATA');

$c->send_raw("Subject: x\r\n\r\nx\r\n.\r\n");
like($c->read_reply(), qr/^250 /, 'is accepted');

is_deeply([ map { $_->{rcpts} } ($mailboxes->messages())[-1] ],
    [ [ 'bob@example.com', 'carol@example.com' ] ], 'for its two');


# gone again

$redis->cmd(@$_) for grep { $_->[0] eq 'DEL' } commands($text);

ok($t->wait_for(sub { rcpt($c, 'eve@customer.example') =~ $DENIED }),
    'a domain goes within the time of the cache');
like(rcpt($c, 'bob@example.com'), qr/^250 /, 'the other one stays');



# a worker that cannot ask yet bounces nothing

$redis->stop();
$t->reload();
$c = $t->session('listen_25');

like(rcpt($c, 'bob@example.com'), qr/^4/, 'no Redis: not now');
like(rcpt($c, 'x@elsewhere.example'), qr/^4/, 'whatever it is');

$t->done();


# what becomes of a recipient of a message that is not sent

sub rcpt {
    my ($client, $rcpt) = @_;

    $client->cmd('MAIL FROM:<x@sender.example>');
    my $reply = $client->cmd("RCPT TO:<$rcpt>");
    $client->cmd('RSET');

    return $reply;
}
