#!/usr/bin/perl

# Charged is what was accepted, and nothing else: wherever a message ends on
# its way, refused by the relay or by us, reset, cut off, the counters are
# afterwards where they were.  A base is charged first, so that what is given
# back twice would be missed.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Test::More;
use Time::HiRes qw(sleep);

use MailPolicy;
use MailPolicy::Limits qw(lasting send_one wait_used);

my $t = MailPolicy->new();
my $redis = $t->run_redis();
my $relay = $t->run_relay(name => 'relay');

$t->conf(<<'EOF');
mail {
    policy_redis   redis://127.0.0.1:%%PORT_redis%% timeout=5s;
    policy_limit   s  key=$sender  messages=1000/1h  recipients=5000/1h;
    policy_auth    off;
    policy_message_size    2k;
    policy_max_recipients  4;
    access_log     %%DIR%%/access.log;

    server {
        listen      127.0.0.1:%%PORT_smtp%%;
        protocol    smtp;
        policy      on;
        proxy_pass  127.0.0.1:%%PORT_relay%%;
    }

    server {
        listen      127.0.0.1:%%PORT_hasty%%;
        protocol    smtp;
        policy      on;
        timeout     400ms;
        proxy_pass  127.0.0.1:%%PORT_relay%%;
    }

    server {
        listen      127.0.0.1:%%PORT_nowhere%%;
        protocol    smtp;
        policy      on;
        proxy_pass  127.0.0.1:%%PORT_nobody%%;
    }

    server {
        listen                 127.0.0.1:%%PORT_final%%;
        protocol               smtp;
        policy                 on;
        proxy_final_timeout    300ms;
        proxy_pass             127.0.0.1:%%PORT_relay%%;
    }
}
EOF
$t->run_nginx();

my $sender = 'alice@example.com';
my $mail = "MAIL FROM:<$sender>";
my @used = (0, 0);


sub session {
    my ($where) = @_;

    return $t->session($where // 'smtp');
}


# what is charged now is the base and this much more

sub charged {
    my ($name, $messages, $recipients) = @_;

    local $Test::Builder::Level = $Test::Builder::Level + 1;

    my @expected = ($used[0] + $messages, $used[1] + $recipients);
    my $now = wait_used($redis, 's', $sender, \@expected);

    is_deeply($now, \@expected, "$name: charged "
        . ($messages || $recipients ? "$messages and $recipients" : 'nothing'))
        # one that is wrong should not make all others wait
        or @used = ($now->[0] - $messages, $now->[1] - $recipients);
}


sub charged_for_good {
    my ($name, $messages, $recipients) = @_;

    local $Test::Builder::Level = $Test::Builder::Level + 1;

    charged($name, $messages, $recipients);
    $used[0] += $messages;
    $used[1] += $recipients;
}


# the base

my $c = session();

like(send_one($c, $sender), qr/^250 /, 'a message');
charged_for_good('a message', 1, 1);
like(send_one($c, $sender, map { "$_\@example.net" } 1 .. 3), qr/^250 /,
    'a message to three');
charged_for_good('three recipients', 1, 3);

$relay->set(rcpt => { match => qr/<(?:b|d)@/, action => '550 5.1.1 unknown' });
like(send_one($c, $sender, map { "$_\@example.net" } qw(a b c d)), qr/^250 /,
    'a message to four, two of whom are unknown');
charged_for_good('two unknown', 1, 2);
$relay->set(rcpt => undef);

# refused by the relay, at each stage: [ stage, action, expected, delta ]

for my $case (
    [ mail => '550 5.7.1 not you',   qr/^550 5\.7\.1 not you/ ],
    [ mail => '451 4.3.0 later',     qr/^451 4\.3\.0 later/ ],
    [ mail => '421 4.3.2 closing',   qr/^4[25]1 / ],
    [ mail => 'close',               qr/^451 / ],
    [ mail => 'garbage',             qr/^451 / ],
    [ rcpt => '550 5.1.1 not here',  qr/^550 5\.1\.1 not here/ ],
    [ rcpt => '450 4.2.1 full',      qr/^450 4\.2\.1 full/ ],
    [ rcpt => '421 4.3.2 closing',   qr/^4[25]1 / ],
    [ rcpt => 'rst',                 qr/^451 / ],
    [ data => '554 5.5.1 no',        qr/^554 5\.5\.1 no/ ],
    [ data => '451 4.3.0 later',     qr/^451 4\.3\.0 later/ ],
    [ data => '250 2.0.0 what?',     qr/^[45]\d\d / ],
    [ data => 'close',               qr/^451 / ],
    [ dot  => '554 5.7.1 spam',      qr/^554 5\.7\.1 spam/ ],
    [ dot  => '451 4.7.1 greylist',  qr/^451 4\.7\.1 greylist/ ],
    [ dot  => '421 4.3.2 closing',   qr/^4[25]1 / ],
) {
    my ($stage, $action, $expected) = @$case;
    my $name = "$stage: " . ($action =~ /^(\d+)/ ? $1 : $action);

    $relay->set($stage => $action);
    $c = session();
    like(send_one($c, $sender, 'a@example.net', 'b@example.net'), $expected,
        "$name: refused");
    charged($name, 0, 0);
    $relay->set($stage => undef);
    $c->close();
}

for my $action ('close', '451 4.3.0 full') {
    $relay->set(body => { after => 1, action => $action });
    $c = session();
    $c->pipeline($mail, 'RCPT TO:<a@example.net>', 'DATA');
    charged("body: $action: before", 1, 1);
    $c->send_raw("Subject: x\r\n");
    ok($t->wait_for(sub { ($relay->transcripts())[-1] =~ /^-- body rule/m }),
        "body: $action: in the midst of it");
    $c->send_raw("\r\nx\r\n.\r\n");
    like($c->read_reply(), qr/^451 4\./, "body: $action: refused");
    charged("body: $action", 0, 0);
    $relay->set(body => undef);
    $c->close();
}

$c = session('nowhere');
like(send_one($c, $sender), qr/^451 4\.4\.1 /, 'no relay: refused');
charged('no relay', 0, 0);

# by the client

$c = session();

for my $end ('RSET', 'EHLO again.example') {
    my ($verb) = $end =~ /^(\w+)/;

    like($c->cmd($mail), qr/^250 /, "$verb: MAIL");
    charged("$verb: MAIL, and its first recipient", 1, 1);
    like($c->cmd($end), qr/^250 /m, "$verb behind MAIL");
    charged("$verb behind MAIL", 0, 0);

    $c->pipeline($mail, 'RCPT TO:<a@example.net>', 'RCPT TO:<b@example.net>');
    charged("$verb: MAIL and RCPT", 1, 2);
    like($c->cmd($end), qr/^250 /m, "$verb behind RCPT");
    charged("$verb behind RCPT", 0, 0);
}

$c->pipeline($mail, 'RCPT TO:<a@example.net>');
charged('QUIT: before', 1, 1);
$c->quit();
charged('QUIT in a transaction', 0, 0);

# cut off, at each stage, both ways

for my $how (qw(close reset)) {
    my @stages = (
        [ 'MAIL',         sub { $_[0]->cmd($mail) }, 1, 1 ],
        [ 'RCPT',         sub { $_[0]->pipeline($mail,
                                    'RCPT TO:<a@example.net>') }, 1, 1 ],
        [ 'DATA',         sub { $_[0]->pipeline($mail,
                                    'RCPT TO:<a@example.net>', 'DATA') },
                          1, 1 ],
        [ 'half a body',  sub { $_[0]->pipeline($mail,
                                    'RCPT TO:<a@example.net>', 'DATA');
                                $_[0]->send_raw("Subject: x\r\n\r\nab") },
                          1, 1 ],
        [ 'body, no dot', sub { $_[0]->pipeline($mail,
                                    'RCPT TO:<a@example.net>', 'DATA');
                                $_[0]->send_raw("x\r\n.\r") }, 1, 1 ],
    );

    for my $stage (@stages) {
        my ($name, $code, @before) = @$stage;

        $c = session();
        $code->($c);
        charged("$how behind $name: before", @before);
        $c->$how();
        charged("$how behind $name", 0, 0);
    }
}

# gone while we wait: for the store, for the relay

for my $stage (qw(connect greeting ehlo mail rcpt)) {
    $relay->set($stage => { delay => 0.3 });
    $c = session();
    $c->send_raw("$mail\r\nRCPT TO:<a\@example.net>\r\n"
        . "RCPT TO:<b\@example.net>\r\nDATA\r\n");
    charged("gone at the relay's $stage: before", 1, 2);
    $c->close();
    charged("gone at the relay's $stage", 0, 0);
    $relay->set($stage => undef);
}

for my $pause (0, 0.0005, 0.001, 0.002, 0.004) {
    for my $how (qw(close reset)) {
        $c = session();
        $c->send_raw("$mail\r\nRCPT TO:<a\@example.net>\r\nDATA\r\n");
        sleep($pause);
        $c->$how();
    }
}

charged('gone at once, ten times', 0, 0);

# a client that falls asleep

$c = session('hasty');
$c->pipeline($mail, 'RCPT TO:<a@example.net>');
charged('asleep behind RCPT: before', 1, 1);
like($c->read_reply(), qr/^421 4\.4\.2 /, 'asleep behind RCPT: 421');
charged('asleep behind RCPT', 0, 0);

$c = session('hasty');
$c->pipeline($mail, 'RCPT TO:<a@example.net>', 'DATA');
$c->send_raw("Subject: x\r\n");
charged('asleep in the body: before', 1, 1);
ok($c->wait_close(), 'asleep in the body: closed');
charged('asleep in the body', 0, 0);

# refused by us

$c = session();
like($c->cmd("$mail SIZE=3000"), qr/^552 5\.3\.4 /, 'declared too big');
charged('declared too big', 0, 0);

for my $case (
    [ 'too big',   'x' x 990 . "\r\n" . 'x' x 990 . "\r\n" . 'x' x 990,
      qr/^552 5\.3\.4 / ],
    [ 'bare LF',   "a\nb",     qr/^554 5\.6\.0 / ],
    [ 'bare CR',   "a\rb",     qr/^554 5\.6\.0 / ],
    [ 'NUL',       "a\0b",     qr/^554 5\.6\.0 / ],
) {
    my ($name, $body, $expected) = @$case;

    $c->pipeline($mail, 'RCPT TO:<a@example.net>', 'DATA');
    charged("$name: before", 1, 1);
    $c->send_raw("$body\r\n.\r\n");
    like($c->read_reply(), $expected, "$name: refused");
    charged($name, 0, 0);
}

$c = session();
$c->cmd($mail);
like(join(' ', map { substr($_, 0, 9) }
        $c->pipeline(map { "RCPT TO:<$_\@example.net>" } 1 .. 6)),
    qr/^(?:250 2\.1\.5 ){4}452 4\.5\.3 452 4\.5\.3/, 'too many recipients');
charged('too many recipients', 1, 4);
like($c->cmd('RCPT TO:<not an address>'), qr/^[45]\d\d /, 'no address');
charged('no address', 1, 4);
like($c->cmd('RSET'), qr/^250 /, 'RSET');
charged('too many recipients, RSET', 0, 0);

# The relay has the dot: from there on it may have taken the message, and the
# charge stands.

$relay->set(dot => 'close');
$c = session();
like(send_one($c, $sender), qr/^451 4\.4\.2 /, 'lost behind the dot');
charged_for_good('DOT lost behind the dot', 1, 1);

$relay->set(dot => 'hang');
$c = session('final');
like(send_one($c, $sender), qr/^451 4\.4\.2 /, 'no answer to the dot');
charged_for_good('DOT no answer to the dot', 1, 1);

my $messages = () = $relay->messages();

$relay->set(dot => { delay => 0.3, then => 'ok' });
$c = session();
$c->pipeline($mail, 'RCPT TO:<a@example.net>', 'DATA');
$c->send_raw("x\r\n.\r\n");
ok($t->wait_for(sub { ($relay->transcripts())[-1] =~ /^-- body of 6/m }),
    'the relay has the dot');
$c->close();
$relay->wait_messages($messages + 1);
charged_for_good('DOT gone before the reply', 1, 1);
$relay->set(dot => undef);

# accepted ones count as many as there were: the sum over the log

$c = session();
like(send_one($c, $sender, 'a@example.net', 'b@example.net'), qr/^250 /,
    'a last message');
charged_for_good('a last message', 1, 2);

$t->stop();

charged('when all is over', 0, 0);

my @kept = grep { $_->{outcome} =~ /^(?:accepted|unknown|delivered_unacked)$/ }
    $t->access_log();
my $recipients = 0;
$recipients += $_->{recipients} for @kept;

is_deeply([ scalar @kept, $recipients ], \@used,
    'the access log has the same sum');
is_deeply([ $redis->keys() ], [ "mail:used:s:{$sender}" ], 'no other keys');
is_deeply([ lasting($redis) ], [], 'no key without TTL');

$t->done(faults => 0);
