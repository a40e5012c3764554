#!/usr/bin/perl

# A connection that was kept, and that the relay closes: while nobody uses
# it, when it is taken over, at MAIL.  The message goes all the same, once, by
# the same relay, which has not failed; but not when the client has heard of
# the first one.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Test::More;
use Time::HiRes qw(sleep time);

use MailPolicy;
use MailPolicy::Async;

my $t = MailPolicy->new();
my %relay = map { $_ => $t->run_relay(name => $_) } qw(a b);

$t->conf(<<'EOF_CONF');
mail {
    server_name    edge.example.com;
    access_log     %%DIR%%/access.log;
    policy         on;
    policy_auth    off;
    proxy_timeout  1s;

    # "b" gets what is passed to the next one
    upstream kept {
        server     127.0.0.1:%%PORT_a%%  weight=1000 fail_timeout=1h;
        server     127.0.0.1:%%PORT_b%%  backup;
        keepalive  1;
    }

    upstream fails {
        server     127.0.0.1:%%PORT_a%%  weight=1000 max_fails=0;
        server     127.0.0.1:%%PORT_b%%  backup;
        keepalive  1;
    }

    map $recipient_domain $lazy {
        default  kept;
    }

    server {
        listen      127.0.0.1:%%PORT_smtp%%;
        protocol    smtp;
        proxy_pass  kept;
    }

    server {
        listen      127.0.0.1:%%PORT_lazy%%;
        protocol    smtp;
        proxy_pass  $lazy;
    }

    server {
        listen      127.0.0.1:%%PORT_fails%%;
        protocol    smtp;
        proxy_pass  fails;
    }
}
EOF_CONF
$t->run_nginx();

my $async = MailPolicy::Async->new($t, $relay{a});
my $number = 0;


sub codes { return join(' ', map { substr($_, 0, 3) } @_) }


# a message in a session of its own

sub message {
    my (%option) = @_;

    my $c = $t->session($option{where} // 'smtp', from => $option{from},
        helo => $option{helo});
    my @replies = $c->send_mail('s' . ++$number . '@example.com',
        [ 'r@example.net' ], "x\n");
    $c->quit();
    return codes(@replies);
}


# the same in one piece

sub pipelined {
    my (%option) = @_;

    my $c = $t->session($option{where});
    my $from = 's' . ++$number . '@example.com';
    my @replies = $c->pipeline("MAIL FROM:<$from>", 'RCPT TO:<q@example.net>',
        'RCPT TO:<r@example.net>', 'DATA');
    push @replies, $c->cmd("x\r\n.") if $replies[-1] =~ /^354/;
    $c->quit();
    return codes(@replies);
}


sub stat_of { return $relay{ $_[0] }->stats()->{ $_[1] } }


# one connection at "a", which nobody uses

sub kept {
    my ($where, %behaviour) = @_;

    $relay{a}->stop();
    $relay{a}->start();
    $relay{a}->set((map { $_ => undef } qw(mail xclient ehlo rcpt dot)),
        extensions => [ 'PIPELINING', $behaviour{xclient} || $behaviour{ehlo}
                        ? 'XCLIENT ADDR HELO' : () ]);
    is(message(where => $where, from => '127.0.0.2'), '250 250 354 250',
        'one is kept');
    $relay{a}->set(%behaviour);
}


# how often each message of this test has come

sub twice {
    my %seen;

    $seen{ $_->{from} }++ for map { $_->messages() } values %relay;
    return grep { $seen{$_} > 1 } sort keys %seen;
}


# while nobody uses it

for my $how (qw(stop signal)) {
    kept('smtp');
    $how eq 'stop' ? $relay{a}->stop() : do {
        $relay{a}->signal('KILL');
        $relay{a}->stop();
    };
    $relay{a}->start();
    sleep(0.1);
    is(message(), '250 250 354 250', "closed while idle ($how): accepted");
    is(stat_of('a', 'total'), 1, "closed while idle ($how): a new one");
}

# in the turn in which it is taken

for my $order ('relay first', 'client first') {
    kept('smtp');
    my $c = $t->session('smtp');
    $async->one_turn(sub {
        $c->send_raw("MAIL FROM:<turn\@example.com>\r\n")
            if $order eq 'client first';
        $relay{a}->stop();
        $relay{a}->start();
        $relay{a}->set(extensions => [ 'PIPELINING' ]);
        $c->send_raw("MAIL FROM:<turn\@example.com>\r\n")
            if $order ne 'client first';
        sleep(0.05);
    });
    like($c->read_reply(), qr/^250 /, "ASYNC closed in that turn, $order");
    is(stat_of('a', 'total'), 1, "ASYNC closed in that turn, $order: once");
    $c->quit();
}

# at MAIL

for my $action ('close', 'rst', '421 4.4.2 idle', 'garbage') {
    for my $case ([ 'smtp', \&message, '250 250 354 250' ],
        [ 'smtp', \&pipelined, '250 250 250 354 250' ],
        [ 'lazy', \&pipelined, '250 250 250 354 250' ])
    {
        my ($where, $send, $expected) = @$case;
        my $name = "at MAIL: $action, $where, "
            . ($send == \&message ? 'one by one' : 'pipelined');

        kept($where, mail => { times => 1, action => $action });
        is($send->(where => $where), $expected, "$name: accepted");
        is(stat_of('a', 'total'), 2, "$name: by a new connection");
    }
}

# when it is told of another client

for my $case ([ xclient => 'close' ], [ xclient => 'rst' ],
    [ xclient => '421 4.3.2 no' ], [ ehlo => 'close' ], [ ehlo => 'rst' ])
{
    my ($stage, $action) = @$case;
    kept('smtp', $stage => { times => 1, match => qr/ADDR=127.0.0.3|h3/,
        action => $action });
    $relay{a}->set($stage => { times => 1, action => $action });
    is(message(from => '127.0.0.3', helo => 'h3.example'), '250 250 354 250',
        "taken over, $stage $action: accepted");
    is(stat_of('a', 'total'), 2, "taken over, $stage $action: a new one");
    is(($relay{a}->messages())[-1]{xclient}{ADDR}, '127.0.0.3',
        "TRUST-4 taken over, $stage $action: its own identity");
}

is(stat_of('b', 'total'), 0, 'all that time the next relay was not needed');

# the client goes while the relay is told of it

kept('smtp', xclient => { match => qr/0\.4/, delay => 0.5, then => 'ok' });
my $c = $t->session('smtp', from => '127.0.0.4');
$c->send_raw("MAIL FROM:<gone\@example.com>\r\n");
$t->wait_for(sub { ($relay{a}->transcripts())[-1] =~ /127\.0\.0\.4/ });
$c->close();
ok($t->wait_for(sub { stat_of('a', 'open') == 0 }),
    'ASYNC the client goes meanwhile: it is cut');
$relay{a}->set(xclient => undef);
is(message(from => '127.0.0.5'), '250 250 354 250', 'others are served');

# once the client has heard of it there is no other try

kept('fails', rcpt => { times => 1, action => 'close' });
is(message(where => 'fails'), '250 451', 'at RCPT: 451');
kept('fails', dot => { times => 1, action => 'close' });
is(message(where => 'fails'), '250 250 354 451', 'at the end: 451, outcome=unknown');
is(stat_of('b', 'total'), 0, 'and no other relay');

# one that says nothing has failed

kept('fails', mail => 'hang');
is(message(where => 'fails'), '250 250 354 250', 'no reply to MAIL: accepted');
is(stat_of('b', 'messages'), 1, 'no reply to MAIL: by the next relay');

is_deeply([ twice() ], [], 'no message came twice');
$t->stop();
$t->done();
