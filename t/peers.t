#!/usr/bin/perl

# What other limiters of mail have been found to do wrong, each as a test that
# is called by it; the ones named in comments are where it was found.  Here:
# what is counted, and when, whatever the store.  What is Redis' own is in
# peers_store.t, rates in peers_rates.t, logins and sessions in peers_sets.t.
#
# Of the dialogue: chunks that are offered and not parsed, bdat.t (EXT-4);
# XCLIENT to a relay without it, relay_xclient.t (TRUST-2); names of the DNS
# that are commands, stock.t (TRUST-5); commands behind STARTTLS, starttls.t
# (TLS-1); a dot between bare LFs, coverage_body.t (SMUG-1).

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Test::More;
use Time::HiRes qw(sleep time);

use MailPolicy;
use MailPolicy::Limits qw(send_one);
use MailPolicy::Policy;
use MailPolicy::Process qw(fork_server wait_exit);

# whether shared memory is tried, too
use constant LOCAL => 1;

my $t = MailPolicy->new();
my $redis = $t->run_redis();
my $relay = $t->run_relay(name => 'relay');
my ($store, $number) = ('', 0);

# limits of each server, by its port

my %limits = (
    plain  => 'policy_limit plain  key=$sender messages=5/1h
                                   recipients=10/1h;',
    size   => 'policy_limit size   key=$sender bytes=1000/1h;',
    other  => 'policy_limit mine   key=$sender messages=5/1h recipients=9/1h;
               policy_limit theirs key=$recipient_domain recipients=1/1h;',
    all    => 'policy_limit one    key=$sender messages=4/1h;
               policy_limit two    key=$sender recipients=4/1h;
               policy_limit three  key=$sender bytes=10k/1h;
               policy_limit four   key=$recipient_domain messages=4/1h;',
);


sub configure {
    my ($line) = @_;

    my $servers = join('', map { <<"EOC" } sort keys %limits);
    server {
        listen      127.0.0.1:%%PORT_${store}_$_%%;
        protocol    smtp;
        $limits{$_}
    }
EOC

    $t->conf($store, <<"EOC");
worker_processes 2;

mail {
    $line
    policy       on;
    policy_auth  off;
    max_errors   100;
    proxy_pass   127.0.0.1:%%PORT_relay%%;
    $servers

    server {
        listen    127.0.0.1:%%PORT_${store}_policy%%;
        protocol  policy;
        $limits{plain}
    }
}
EOC
}


for (qw(redis), LOCAL ? 'memory' : ()) {
    $store = $_;
    configure($store eq 'redis' ? 'policy_redis'
        . ' redis://127.0.0.1:%%PORT_redis%% timeout=5s;' : '');
    $t->run_nginx($store);

    checked_where_it_is_counted();
    recipients_once();
    released_when_others_refuse();
    no_batch_overshoots();
    one_step();
    all_buckets();
    trouble_is_no_message();
    policy_socket();

    $t->stop($store);
}

$t->done(faults => 0);


sub session {
    my ($where, $name) = @_;

    return $t->session("${store}_$where", helo => $name);
}


sub codes { return join(' ', map { substr($_, 0, 3) } @_) }

sub named { return "$store: $_[0]: $_[1]" }

# a sender that has sent nothing
sub sender { return 's' . ++$number . '@example.com' }


# how many more messages, or recipients, there is room for

sub messages_left {
    my ($where, $sender) = @_;

    my $c = session($where);
    my $count = 0;

    $count++ while $count < 99
        && send_one($c, $sender, "x\@left" . $number++ . '.example') =~ /^250/;
    $c->quit();
    return $count;
}


sub recipients_left {
    my ($sender) = @_;

    my $c = session('plain');
    my @replies = $c->pipeline("MAIL FROM:<$sender>",
        map { "RCPT TO:<left$_\@example.net>" } 1 .. 15);

    $c->cmd('RSET');
    $c->quit();
    return scalar(grep { /^250/ } @replies[1 .. 15]);
}


# Modoboa#2200

sub policy_socket {
    my $p = MailPolicy::Policy->new($t, "${store}_policy");

    is(join(' ', map { $p->message()->ask() } 1 .. 3), 'DUNNO DUNNO DUNNO',
        "$store: a socket of policies that closes after each reply");
    $p->client()->close();
}


# a condition that what is given back, soon, makes true
sub soon { my ($code) = @_; return $t->wait_for($code, 3) }


# Haraka's rate_rcpt_host, checked at connect, counted at RCPT

sub checked_where_it_is_counted {
    my $name = 'checked at a later event than counted';
    my $sender = sender();
    my $c = session('plain');
    my $before = transcripts();

    send_one($c, $sender) for 1 .. 4;
    is(codes($c->pipeline("MAIL FROM:<$sender>",
        map { "RCPT TO:<once$_\@example.net>" } 1 .. 8)),
        '250 250 250 250 250 250 250 450 450',
        named($name, 'RCPT, by the reply to it'));
    $c->cmd('DATA');
    $c->send_raw("x\r\n.\r\n");
    is(codes($c->read_reply()), 250, named($name, 'what was accepted goes'));
    is(codes($c->cmd("MAIL FROM:<$sender>")), 450,
        named($name, 'MAIL, by the reply to it'));

    my @said = $relay->transcripts();
    my $said = join('', splice(@said, $before));
    unlike($said, qr/once[78]@/, named($name, 'no relay hears of the rest'));
}


sub transcripts { return scalar(() = $relay->transcripts()) }


# rspamd#4104, PR#4448: n recipients by each of n

sub recipients_once {
    my $name = 'recipients added twice';

    for my $count (1, 2, 4) {
        for my $how (qw(pipelined one_by_one same)) {
            my $sender = sender();
            my $c = session('plain');
            my @commands = ("MAIL FROM:<$sender>", (map { "RCPT TO:<r"
                . ($how eq 'same' ? 0 : $_) . '@example.net>' } 1 .. $count),
                'DATA');

            $how eq 'one_by_one' ? map { $c->cmd($_) } @commands
                                 : $c->pipeline(@commands);
            $c->send_raw("x\r\n.\r\n");
            is(codes($c->read_reply()), 250, named($name, "$count, $how"));
            is(recipients_left($sender), 10 - $count,
                named($name, "$count, $how: once"));
        }
    }
}


# rspamd#4467: what was pending stays so when another filter rejects

sub released_when_others_refuse {
    my $name = 'pending never released when somebody else refuses';
    my $sender = sender();

    my %who = (
        'another limit' => [ 'other' ],
        'the relay, at RCPT' => [ 'other', rcpt => '550 5.1.1 unknown' ],
        'the relay, at the end' => [ 'other', dot => '554 5.7.1 spam' ],
    );

    for my $who (sort keys %who) {
        my ($where, @rule) = @{ $who{$who} };
        my $domain = 'd' . ++$number . '.example';

        send_one(session($where), sender(), "x\@$domain") unless @rule;
        $relay->set(@rule) if @rule;

        for (1 .. 8) {
            my $reply = send_one(session($where), $sender, "x\@$domain");
            like($reply, qr/^[45]5/, named($name, "$who refuses"))
                if $reply !~ /^[45]5/ || $_ == 8;
        }

        $relay->set($rule[0] => undef) if @rule;
    }

    is(messages_left('other', $sender), 5, named($name, 'all of it is there'));

    # the recipient that MAIL has paid for, when others have paid already

    my $c = session('plain');
    $sender = sender();
    $relay->set(rcpt => { match => qr/<r0@/, action => '550 5.1.1 unknown' });
    is(codes($c->pipeline("MAIL FROM:<$sender>",
        map({ "RCPT TO:<r$_\@example.net>" } 0 .. 2), 'DATA')),
        '250 550 250 250 354', named($name, 'the relay refuses the first'));
    $relay->set(rcpt => undef);
    $c->send_raw("x\r\n.\r\n");
    is(codes($c->read_reply()), 250, named($name, 'and takes the others'));
    is(recipients_left($sender), 8, named($name, 'the first is given back'));
}


# WildDuck's ttlcounter: refused from the limit on, whatever is added to it

sub no_batch_overshoots {
    my $name = 'a batch overshoots';
    my $sender = sender();

    send_one(session('plain'), $sender, map { "r$_\@example.net" } 1 .. 8);
    is(recipients_left($sender), 2, named($name, 'two of fifteen recipients'));

    $sender = sender();
    my $c = session('size');
    is(codes($c->cmd("MAIL FROM:<$sender> SIZE=900"), $c->cmd('RSET'),
        $c->cmd("MAIL FROM:<$sender> SIZE=1001")), '250 250 552',
        named($name, 'octets that were declared: more than there ever are'));

    my $body = 'x' x 88 . "\r\n";
    $c->pipeline("MAIL FROM:<$sender>", 'RCPT TO:<x@example.net>', 'DATA');
    $c->send_raw($body x 10 . ".\r\n");
    is(codes($c->read_reply()), 250, named($name, '900 octets'));

    my $accepted = $relay->messages();
    $c->pipeline("MAIL FROM:<$sender>", 'RCPT TO:<x@example.net>', 'DATA');
    $c->send_raw($body x 2 . ".\r\n");
    is(codes($c->read_reply()), 450, named($name, '180 that were not said'));
    is(scalar(() = $relay->messages()), $accepted,
        named($name, 'no relay has them'));
    is(codes($c->cmd("MAIL FROM:<$sender> SIZE=101")), 450,
        named($name, 'a declared one too many'));
    is(codes($c->cmd("MAIL FROM:<$sender> SIZE=100")), 250,
        named($name, 'what is left is left'));
}


# Modoboa: a look, and a decrement later, by as many as look at once

sub one_step {
    my $name = 'checked, then decremented';
    my $sender = sender();
    my @clients = map { session('plain') } 1 .. 20;

    $_->send_raw("MAIL FROM:<$sender>\r\n") for @clients;
    my @replies = map { $_->read_reply() } @clients;

    is(scalar(grep { /^250/ } @replies), 5, named($name, 'five of twenty'));
    is(scalar(grep { /^450/ } @replies), 15, named($name, 'not the others'));
    $_->quit() for @clients;
    ok(soon(sub { messages_left('plain', $sender) }),
        named($name, 'which were not sent, and are there again'));
}


# rspamd#5480: only one of several buckets charged

sub all_buckets {
    my $name = 'only one of several buckets charged';
    my @who = map { [ sender(), 'd' . ++$number . '.example' ] } 1 .. 5;
    my ($sender, $domain) = @{ $who[0] };
    my $send = sub { codes(send_one(session('all'), @_)) };

    is(join(' ', map { $send->($sender, "x\@$domain") } 1 .. 4),
        '250 250 250 250', named($name, 'four messages'));
    is($send->($sender, 'x@fresh.example'), 450, named($name, 'the sender'));
    is($send->($who[1][0], "x\@$domain"), 450, named($name, 'the domain'));
    is($send->($who[1][0], map { "$_\@$who[1][1]" } 1 .. 4), 250,
        named($name, 'four recipients'));
    is($send->($who[1][0], "x\@$who[2][1]"), 450,
        named($name, 'are all, though no messages'));
}


# Mailu#3252: a lookup fails, mail is tried again, and the limit is reached;
# Postfix' anvil counts what is not accepted, too

sub trouble_is_no_message {
    my $name = 'a lookup that fails trips the limiter';
    my $sender = sender();

    for my $rule ([ greeting => '421 4.3.2 later' ], [ data => '451 4.3.0 no' ],
        [ connect => 'close' ])
    {
        $relay->set(@$rule);
        is(scalar(grep { send_one(session('plain'), $sender) !~ /^4/ } 1 .. 7),
            0, named($name, "$rule->[0]: tried again and again"));
        $relay->set($rule->[0] => undef);
    }

    is(messages_left('plain', $sender), 5, named($name, 'all of it is left'));
}
