#!/usr/bin/perl

# The three tasks of policies/README.md with an edge at work: it has the rights
# that the page gives to edges, who runs the lines those of an operator, and
# what the lines promise is what the next messages meet.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Test::More;
use Time::HiRes qw(sleep time);

use MailPolicy;
use MailPolicy::Limits qw(send_one lasting);
use MailPolicy::Policies qw(recipes);

my $t = MailPolicy->new();
my $redis = $t->run_redis();
my $relay = $t->run_relay(name => 'relay');
my $bulk = $t->run_relay(name => 'bulk');
my $policies = MailPolicy::Policies->new($redis, $t->root());

$policies->commands($t->dir());
$policies->line($_) for recipes($t->root(), 'What they may do');

$redis->cmd('HSET', "mail:user:{$_\@example.com}", 'password',
    $t->crypt('secret')) for qw(alice bob carol dave);

$t->conf(<<'EOF');
mail {
    policy_redis  redis://edge:secret@127.0.0.1:%%PORT_redis%% timeout=5s;

    server {
        listen                 127.0.0.1:%%PORT_smtp%%;
        protocol               smtp;
        policy                 on;
        policy_auth            redis;
        policy_auth_plaintext  on;
        policy_limit           user  key=$sasl_username  messages=3/1h;
        proxy_pass             $relay;
    }

    policy_lookup  $relay  route:$recipient_domain  outbound;

    upstream outbound { server 127.0.0.1:%%PORT_relay%%; }
    upstream bulk     { server 127.0.0.1:%%PORT_bulk%%; }
}
EOF
$t->run_nginx();

my ($raise, $plan, $give, $top, $show, $reset) =
    recipes($t->root(), 'Three tasks');
my ($suspend) = grep { /suspend\.lua/ } recipes($t->root(), 'Recipes');
my ($resume) = grep { /resume\.lua/ } recipes($t->root(), 'Recipes');

my %session = map { $_ => login($_) } qw(alice bob carol);

raised();
freed();
seen();
planned();
suspended();
routed();

is_deeply($redis->cmd('ACL', 'LOG'), [], 'nobody was denied anything');
unlike($t->error_log(), qr/NOPERM|is away/, 'nor does the edge say so');

$t->stop();
is_deeply([ lasting($redis) ], [], 'no counter without TTL');
$t->done();


sub login {
    my ($name) = @_;

    my $c = $t->client('smtp');

    $c->greeting();
    $c->ehlo();
    like($c->auth_plain("$name\@example.com", 'secret'), qr/^235 /,
        "$name logs in");
    return $c;
}


# how many are accepted before one is refused, of so many

sub accepted {
    my ($name, $most) = @_;

    for my $n (1 .. $most) {
        return $n - 1
            if send_one($session{$name}, "$name\@example.com") !~ /^250/;
    }

    return $most;
}


sub line { return $policies->line($_[0], 'operator') }


# what the charges of this edge leave behind says which rate was in force

sub raised {
    is(accepted(alice => 9), 3, 'alice has three');
    like(line($raise), qr/^messages: 500\/1h/, 'raise one user');
    is(accepted(alice => 9), 9, 'at once, in an open session, she has more');
    is(accepted(carol => 9), 3, 'carol has not');
}


sub freed {
    is(accepted(bob => 9), 3, 'bob has three');
    is(accepted(bob => 1), 0, 'and no more');
    is(line($reset), "messages: counted from nothing again\n", 'free him');
    is(accepted(bob => 9), 3, 'he has three again');
}


sub seen {
    {

        my $answer = line($top);

        like($answer, qr/\A100% messages: 3 of 3 used, blocked now; (?#
            )3\/1h from configuration  \S+\{(?:bob|carol)\@example\.com\}$/m,
            'who is blocked');
        like($answer, qr/^2% messages: 12 of 500 used; 500\/1h from own (?#
            )entry  \S+\{alice\@example\.com\}$/m, 'who is not');
        like(line($show), qr/\Amessages: 3 of 3 used, 0 left, blocked now; (?#
            )next in 36\d\d s, all in 36\d\d s; 3\/1h from configuration$/m,
            'bob');
        like(line($show =~ s/bob/alice/r), qr/\Amessages: 12 of 500 used, (?#
            )488 left; .*; 500\/1h from own entry$/m, 'alice');
    }
}


sub planned {
    {

        is(accepted(carol => 1), 0, 'carol has none left');
        like(line($plan), qr/^user\.messages: 2000\/1d/, 'a plan is set');
        like(line($give =~ s/alice/carol/r), qr/^plan: gold/, 'carol is on it');

        # what edges know of a plan may be two seconds old
        my $end = time() + 3;
        sleep(0.1) until accepted(carol => 1) || time() > $end;
        is(accepted(carol => 3), 3, 'she has more');
        like(line($show =~ s/bob/carol/r), qr/; 2000\/1d from plan gold$/m,
            'by that plan');
    }
}


sub suspended {
    {

        like(line($suspend), qr/\Asuspended: alice/, 'suspend alice');
        is(accepted(alice => 1), 0, 'nothing passes');
        like(line($show =~ s/bob/alice/r), qr/\Asuspended: every unit is /,
            'it is said');
        like(line($top), qr/^every unit: blocked by own entry  \S+alice/m,
            'by top too');
        like(line($resume), qr/\Aresumed: alice/, 'resume');
        is(accepted(alice => 3), 3, 'she may send again');
    }
}


# the relay that has a message to this domain

sub taken {
    my ($domain) = @_;

    my $c = login('dave');
    my %before = map { $_ => $_->stats()->{messages} } $relay, $bulk;
    my $reply = send_one($c, 'dave@example.com', "r\@$domain");
    $c->quit();

    return 'nobody' if $reply !~ /^250/;
    return $bulk->stats()->{messages} > $before{$bulk} ? 'bulk' : 'outbound';
}


sub routed {
    my ($set, $address, $get, $delete, $hour, $list) =
        recipes($t->root(), 'Routes');

    $redis->cmd('HSET', 'mail:limit:user:{dave@example.com}', 'messages',
        'unlimited');
    is(taken('example.com'), 'outbound', 'no route yet');

    is(line($set), "OK\n", 'a route is set');
    ok($t->wait_for(sub { taken('example.com') eq 'bulk' }), 'it is taken');
    is(line($get), "bulk\n", 'and told');
    is(line($address =~ s/10\.0\.0\.7:25/'127.0.0.1:' . $bulk->port()/er),
        "OK\n", 'an address is set');
    ok($t->wait_for(sub { taken('example.org') eq 'bulk' }), 'it is taken');
    is(join(' ', sort split(/\n/, line($list))),
        'mail:route:example.com mail:route:example.org', 'both are listed');
    is(line($delete), "1\n", 'deleted');
    ok($t->wait_for(sub { taken('example.org') eq 'outbound' }), 'so it is');
    is(line($hour), "OK\n", 'for an hour');
    cmp_ok($redis->cmd('TTL', 'mail:route:example.com'), '>', 3500, 'so long');
    $redis->cmd('DEL', 'mail:route:example.com');
}
