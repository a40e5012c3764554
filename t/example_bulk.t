#!/usr/bin/perl

# policies/examples/bulk.conf as it is printed: newsletters go out by relays
# of their own, with a limit for each of their domains.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Test::More;

use MailPolicy;
use MailPolicy::Example qw(commands example_text run_example);
use MailPolicy::Limits qw(is_used send_one);

my $t = MailPolicy->new();
my $text = example_text($t, 'bulk.conf');
my ($redis, $relay) = run_example($t, $text);

my %groups = (outbound => [ '10.0.0.11:25', '10.0.0.12:25' ],
              bulk     => [ '10.0.1.11:25', '10.0.1.12:25' ]);

$redis->cmd('HSET', 'mail:user:{alice@example.com}',
    password => $t->crypt('secret', '$5$rounds=1000$mailpolicy$'));


my $c = session();

for my $sender ('alice@example.com', 'alice@example.org', '<>') {
    like(send_one($c, $sender), qr/^250 /, "$sender passes");
}

is(sent('outbound'), ' alice@example.com alice@example.org',
    'everybody\'s mail by the relays for it');
is(sent('bulk'), '', 'none by those for newsletters');

for my $sender ('issue-1@news.example.com', 'issue-2@NEWS.example.com',
    'devel@lists.example.com')
{
    like(send_one($c, $sender), qr/^250 /, "$sender passes");
}

is(sent('outbound'), ' alice@example.com alice@example.org',
    'newsletters: not by these relays');
is(sent('bulk'), 'devel@lists.example.com issue-1@news.example.com '
    . 'issue-2@NEWS.example.com',
    'by their own');

is_used($redis, 'a domain that is none of them is not counted', 'campaign',
    'example.com', recipients => 0, timeout => 5);
is_used($redis, 'a campaign is counted', 'campaign', 'news.example.com',
    recipients => 2, timeout => 5);
is_used($redis, 'and so is the login', 'user', 'alice@example.com',
    messages => 6, timeout => 5);


# the limit of a domain

$redis->cmd('HSET', 'mail:limit:campaign:{news.example.com}',
    recipients => '3/1h');

$c = session();

is(join(' ', map { substr($_, 0, 9) } $c->send_mail('x@news.example.com',
    [ map { "reader-$_\@example.net" } 1 .. 3 ], "Subject: x\n\nx\n")),
    '250 2.1.0 250 2.1.5 450 4.7.1 450 4.7.1 354 End d 250 2.0.0',
    'three in an hour: the rest is deferred');
like(send_one($c, 'y@lists.example.com'), qr/^250 /, 'not the other domain\'s');
like(send_one($c, 'alice@example.com'), qr/^250 /, 'nor everybody\'s');

$redis->cmd(@$_) for commands($text);

like(send_one($c, 'x@news.example.com'), qr/^250 /,
    'a larger campaign, from the next message on');

$t->done();


# who sent by a group

sub sent {
    my ($group) = @_;

    my @from = sort map { $_->{from} }
        map { $relay->{$_}->messages() } @{ $groups{$group} };

    return join(' ', @from);
}


sub session {
    my $client = $t->session('listen_587');

    $client->starttls();
    $client->ehlo();

    like($client->auth_plain('alice@example.com', 'secret'), qr/^235 /,
        'logs in');
    return $client;
}
