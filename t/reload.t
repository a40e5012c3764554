#!/usr/bin/perl

# Reload: sessions hear 421 between commands, a message under way runs to its
# end, whatever is waited for is waited for or ends with its own timeout, and
# old workers go.  With worker_shutdown_timeout they go in any case.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Test::More;
use Time::HiRes qw(time);

use MailPolicy;

my $t = MailPolicy->new();
my $relay = $t->run_relay(name => 'relay');
my $redis = $t->run_redis();

sub conf {
    my ($name, $main, $timeout) = @_;

    $t->conf($name, <<"EOF");
$main
mail {
    server_name          edge.example.com;
    access_log           %%DIR%%/$name.access.log;
    policy_redis         redis://127.0.0.1:%%PORT_redis%% timeout=$timeout
                         on_error=closed;
    policy               on;
    policy_auth          off;
    proxy_timeout        60s;
    proxy_pass           127.0.0.1:%%PORT_relay%%;

    server {
        listen        127.0.0.1:%%PORT_$name%%;
        protocol      smtp;
    }

    server {
        listen        127.0.0.1:%%PORT_limit_$name%%;
        protocol      smtp;
        policy_limit  sender key=\$sender messages=100/1h;
    }
}
EOF
    $t->run_nginx($name);
}


# a session, as far as these commands

sub session {
    my ($where, @commands) = @_;

    my $c = $t->client($where);
    $c->greeting();
    $c->ehlo();
    $c->cmd($_) for @commands;
    return $c;
}


# one worker again: the reload is over

sub old_gone {
    my ($name, $timeout) = @_;

    my $nginx = $t->instance($name);

    return $t->wait_for(sub { my @all = $nginx->all_worker_pids();
        return @all == 1 && $nginx->worker_pids() == 1; }, $timeout);
}


sub outcomes {
    my ($name) = @_;

    return { map { $_->{sender} => $_->{outcome} }
        $t->access_log("$name.access.log") };
}


my $GOING = qr/^421 4\.3\.2 /;
my $TO = 'RCPT TO:<r@example.net>';

# each thing that a session can be doing

conf('patient', '', '2s');

my $warm = session('limit_patient', 'MAIL FROM:<warm@example.com>');
$warm->quit();

my $idle = session('patient');
my $silent = $t->client('patient');
$silent->greeting();
my $after = session('patient', 'MAIL FROM:<after@example.com>', $TO);

my $data = session('patient', 'MAIL FROM:<data@example.com>', $TO, 'DATA');
$data->send_raw("Subject: x\r\n\r\nfirst\r\n");

$relay->set(dot => { times => 1, delay => 1 },
    mail => { match => qr/slow/, delay => 1 },
    data => { times => 1, delay => 1 });
my $dot = session('patient', 'MAIL FROM:<dot@example.com>', $TO);
my $piped = session('patient');

# the delayed 354 is this one's, the delayed reply to the dot, too
$dot->send_raw("DATA\r\n");
like($dot->read_reply(), qr/^354/, 'a slow 354');
$dot->send_raw("x\r\n.\r\n");
my $mail = session('patient');
$mail->send_raw("MAIL FROM:<slow1\@example.com>\r\n$TO\r\n");
$piped->send_raw("MAIL FROM:<slow2\@example.com>\r\n$TO\r\nDATA\r\n");

my $store = session('limit_patient');
$redis->signal('STOP');
$store->send_raw("MAIL FROM:<store\@example.com>\r\n");

# a relay that is told QUIT and does not answer
$relay->set(quit => 'hang', rset => 'hang');
my $quit = session('patient', 'MAIL FROM:<quit@example.com>');
like($quit->quit(), qr/^221 /, 'QUIT while the relay hangs');

ok($t->reload('patient'), 'reload');

like($idle->read_reply(), $GOING, 'between commands');
like($silent->read_reply(), $GOING, 'a client that has only the greeting');
ok($idle->wait_close(), 'between commands: closed');
like($after->read_reply(), $GOING, 'between commands of a transaction');
ok($after->wait_close(), 'between commands of a transaction: closed');

like($dot->read_reply(), qr/^250 /, 'the reply to the dot is waited for');
like($dot->read_reply(), $GOING, '... and then 421');
like($mail->read_reply(), qr/^250 /, 'a slow relay: the reply to MAIL');
like($mail->read_reply(), qr/^250 /, 'a slow relay: and to RCPT');
like($mail->read_reply(), $GOING, 'a slow relay: then 421');
like($store->read_reply(), qr/^451 4\.3\.0 /, 'a hanging store: its timeout');
like($store->read_reply(), $GOING, 'a hanging store: then 421');

is(join(' ', map { substr($piped->read_reply(), 0, 3) } 1 .. 3), '250 250 354',
    'pipelined: all of the group');
$piped->send_raw("x\r\n.\r\nNOOP\r\n");
like($piped->read_reply(), qr/^250 /, 'pipelined: the message');
like($piped->read_reply(), qr/^250 |$GOING/, 'pipelined: what is behind it');
$piped->wait_close();

$redis->signal('CONT');

$data->send_raw("last\r\n.\r\n");
like($data->read_reply(), qr/^250 /, 'DATA runs to its end');
like($data->read_reply(), $GOING, 'DATA: then 421');
ok($data->wait_close(), 'DATA: closed');
is(($relay->wait_messages(3))[-1]{data},
    "Subject: x\r\n\r\nfirst\r\nlast\r\n", 'DATA: all of it');

my $start = time();
ok(old_gone('patient', 20), 'the old worker is gone');
cmp_ok(time() - $start, '<', 12, 'a relay that hangs does not keep it');

$relay->set(quit => undef, rset => undef, dot => undef, mail => undef,
    data => undef);
my $new = session('limit_patient');
my @replies = $new->send_mail('new@example.com', [ 'r@example.net' ], "x\n");
like($replies[-1], qr/^250 /, 'the new worker serves');
$new->quit();

is_deeply(outcomes('patient'), { 'warm@example.com' => 'aborted',
    'after@example.com' => 'aborted', 'data@example.com' => 'accepted',
    'dot@example.com' => 'accepted', 'slow1@example.com' => 'aborted',
    'slow2@example.com' => 'accepted', 'store@example.com' => 'deferred',
    'quit@example.com' => 'aborted', 'new@example.com' => 'accepted' },
    'one line each, with its outcome');

# nothing ends by itself: worker_shutdown_timeout

conf('hasty', 'worker_shutdown_timeout 1s;', '10s');
session('limit_hasty', 'MAIL FROM:<warm@example.com>')->quit();

my %open;

$open{data} = session('hasty', 'MAIL FROM:<data@example.com>', $TO, 'DATA');
$open{data}->send_raw("Subject: x\r\n\r\nfirst\r\n");

$relay->set(dot => 'hang', mail => { match => qr/hang/, action => 'hang' },
    rcpt => { match => qr/hang/, action => 'hang' });
$open{dot} = session('hasty', 'MAIL FROM:<dot@example.com>', $TO, 'DATA');
$open{dot}->send_raw("x\r\n.\r\n");
$open{mail} = session('hasty');
$open{mail}->send_raw("MAIL FROM:<hang\@example.com>\r\n");
$open{rcpt} = session('hasty', 'MAIL FROM:<rcpt@example.com>');
$open{rcpt}->send_raw("RCPT TO:<hang\@example.com>\r\n");
$open{store} = session('limit_hasty');
$redis->signal('STOP');
$open{store}->send_raw("MAIL FROM:<store\@example.com>\r\n");
$open{partial} = session('hasty');
$open{partial}->send_raw('MAIL FROM:<');

# so that all of it is under way
ok($t->wait_for(sub { 2 <= grep { /hangs/ } $relay->transcripts() }),
    'hanging');

ok($t->reload('hasty'), 'worker_shutdown_timeout: reload');
$start = time();
$open{$_}->wait_close() for sort keys %open;
is(join(' ', grep { ($open{$_}{state} // '') ne 'CLOSED' } sort keys %open),
    '', 'worker_shutdown_timeout: all are closed');
cmp_ok(time() - $start, '<', 6, 'worker_shutdown_timeout: in time');
ok(old_gone('hasty', 10), 'worker_shutdown_timeout: the old worker is gone');
$redis->signal('CONT');

my $log = outcomes('hasty');
is($log->{'data@example.com'}, 'aborted', 'cut in DATA: aborted');
is($log->{'dot@example.com'}, 'unknown', 'DOT cut behind the dot: unknown');
is($log->{'hang@example.com'}, 'aborted', 'cut at MAIL: aborted');
is(scalar(grep { $_->{from} eq 'data@example.com' } $relay->received()), 1,
    'SMUG-12 cut in DATA: no dot for the relay');

$t->done();
