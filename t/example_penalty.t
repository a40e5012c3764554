#!/usr/bin/perl

# policies/examples/penalty.conf as it is printed: who is over the limit goes
# out by another relay, and is refused in the end.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Test::More;

use MailPolicy;
use MailPolicy::Example qw(commands example_text run_example);
use MailPolicy::Limits qw(is_used send_one);

my $t = MailPolicy->new();
my $text = example_text($t, 'penalty.conf');
my ($redis, $relay) = run_example($t, $text);

for my $login ('alice@example.com', 'bob@example.com') {
    $redis->cmd('HSET', "mail:user:{$login}",
        password => $t->crypt('secret', '$5$rounds=1000$mailpolicy$'));
}

# the same with fewer messages; "most" stays larger than "user"

$redis->cmd('HSET', 'mail:limit:user:{alice@example.com}', messages => '2/1h');
$redis->cmd('HSET', 'mail:limit:most:{alice@example.com}', messages => '5/1d');

my $c = session('alice@example.com');

like(send_one($c, 'alice@example.com'), qr/^250 /, "message $_") for 1, 2;

is(outbound(), 2, 'within the limit: by the usual relays');
is(penalty(), 0, 'and not by the other one');

like(send_one($c, 'alice@example.com'), qr/^250 /, "message $_") for 3 .. 5;

is(outbound(), 2, 'over the limit: no more by the usual relays');
is(penalty(), 3, 'but by the other one');

my $other = session('bob@example.com');

like(send_one($other, 'bob@example.com'), qr/^250 /, 'somebody else');
is(outbound(), 3, 'goes where he went');

my @logged = grep { ($_->{limit_action} // '') eq 'relay' }
    $t->access_log('mail.log');

is(scalar @logged, 3, 'the log says which');
is_deeply([ @{ $logged[0] }{qw(limit upstream_name sasl_username outcome)} ],
    [ 'user', 'penalty', 'alice@example.com', 'accepted' ], 'and why');


# the end of it

like(send_one($c, 'alice@example.com'),
    qr/^450 4\.7\.1 Rate limit "most" exceeded/, 'too much is too much');

is_used($redis, 'all that passed is counted', 'most', 'alice@example.com',
    messages => 5, timeout => 5);


# and out of it again

$redis->cmd('DEL', 'mail:limit:most:{alice@example.com}');
$redis->cmd(@$_) for commands($text);

like(send_one($c, 'alice@example.com'), qr/^250 /, 'a larger limit');
is(outbound(), 4, 'by the usual relays again');
is(penalty(), 3, 'and not by the other one');

$t->done();


sub outbound {
    return scalar map { $relay->{$_}->messages() }
        '10.0.0.11:25', '10.0.0.12:25';
}


sub penalty { return scalar $relay->{'10.0.9.11:25'}->messages() }


sub session {
    my ($login) = @_;

    my $client = $t->session('listen_587');

    $client->starttls();
    $client->ehlo();

    like($client->auth_plain($login, 'secret'), qr/^235 /, "$login logs in");
    return $client;
}
