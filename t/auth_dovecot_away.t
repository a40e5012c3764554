#!/usr/bin/perl

# A Dovecot that is not there, dies, hangs and comes back, at each step of a
# login; and a reload while it thinks.

use strict;
use warnings;

use FindBin qw($Bin);
use lib "$Bin/../tests/lib";

use MIME::Base64 qw(encode_base64);
use Test::More;
use Time::HiRes qw(sleep time);

use MailPolicy;
use MailPolicy::Dovecot;
use MailPolicy::Sasl;

my $t = MailPolicy->new();
my $alice = 'alice@example.com';
my $dovecot = MailPolicy::Dovecot->new(dir => $t->dir(), delay => 2,
    users => { $alice => 'canary-a' });

$dovecot->stop();

$t->conf(<<"EOF");
mail {
    policy                on;
    policy_sender         own;
    policy_auth           dovecot:unix:@{[ $dovecot->socket() ]};
    policy_auth_methods   plain cram-md5 scram-sha-256;
    policy_auth_plaintext on;
    policy_auth_delay     0;
    proxy_pass            127.0.0.1:1;
    server_name           edge.example;

    server { listen 127.0.0.1:%%PORT_smtp%%; protocol smtp; }
}
EOF
$t->run_nginx();

my $later = qr/^454 4\.7\.0 /;
my $message = 'AUTH PLAIN ' . b64("\0$alice\0canary-a") . "\r\n";

# not there yet

for (1 .. 3) {
    like($t->session('smtp')->auth_plain($alice, 'canary-a'), $later,
        'no Dovecot');
}

is(scalar(() = $t->error_log() =~ /\[warn\].* is away: connect failed/g), 1,
    'is said once');
$dovecot->start();
ok(eventually(), 'it comes');
like($t->error_log(), qr/\[notice\].*Dovecot at unix:\S+ is back/,
    'and is back');

# it restarts: its old process stays as long as its clients do

$dovecot->stop();
$dovecot->set($alice, 'canary-n');
$dovecot->start();
ok($t->wait_for(sub {
    $t->session('smtp')->auth_plain($alice, 'canary-n') =~ /^235 /
}, 30), 'a restart is seen before long');

my @waiting = map { $t->session('smtp') } 1 .. 3;
$dovecot->stop();
$dovecot->set($alice, 'canary-a');
$dovecot->start();

# somebody always waits: a refusal takes its time

my $seen = $t->wait_for(sub {
    push @waiting, $t->session('smtp');
    $waiting[-1]->send_raw('AUTH PLAIN ' . b64("\0$alice\0canary-w")
        . "\r\n");
    shift(@waiting)->close() if @waiting > 12;
    sleep(0.2);
    $t->session('smtp', timeout => 1)->auth_plain($alice, 'canary-a')
        =~ /^235 /
}, 40);
ok($seen, 'with logins pending all the time, too');
$_->close() for @waiting;

# it is gone at each step of a dialogue

for my $name ('CRAM-MD5', 'SCRAM-SHA-256') {
    my $s = MailPolicy::Sasl->new($name, user => $alice,
        password => 'canary-a');

    for my $n (1 .. $s->steps()) {

        # nothing was said to it yet
        next if $name =~ /SCRAM/ && $n == 1;

        for my $how (qw(kill)) {
            my $c = $t->session('smtp');
            my $reply = upto($s, $c, $n);
            like($reply, qr/^334 /, "$name, step $n");

            $dovecot->$how();
            sleep(0.2);
            like(answer($s, $c, $reply), $later, "$name, step $n: $how");
            $dovecot->start();
            ok(eventually(), 'and it is back');
            like($s->login($c), qr/^235 /, 'in the same session, too');
        }
    }
}

# it hangs

my $other = $t->session('smtp');
my $c = $t->session('smtp');

$dovecot->signal('STOP');
$c->send_raw($message);
sleep(0.3);
my $begin = time();
like($other->cmd('NOOP'), qr/^250 /, 'it hangs: others do not');
cmp_ok(time() - $begin, '<', 1, 'at once');
my $gone = $t->session('smtp');
$gone->send_raw($message);
sleep(0.3);
$gone->reset();
$dovecot->signal('CONT');
like($c->read_reply(), qr/^235 /, 'and goes on');

# it dies while somebody waits

$dovecot->signal('STOP');
$c = $t->session('smtp');
$c->send_raw($message);
sleep(0.3);
$dovecot->kill();
like($c->read_reply(), $later, 'it dies with a login pending');
$dovecot->start();
ok(eventually(), 'and comes back');

# it hangs at the greeting: patience ends after some seconds

$dovecot->kill();
$dovecot->start();
$dovecot->signal('STOP');
sleep(0.3);
$c = $t->session('smtp');
$begin = time();
$c->send_raw($message);
like($c->read_reply(), $later, 'no greeting');
cmp_ok(time() - $begin, '>', 4, 'after five seconds');
$dovecot->signal('CONT');
ok(eventually(), 'and comes back');

# a reload while Dovecot thinks: it delays what it refuses

my @old = $t->worker_pids();
$c = $t->session('smtp');
my $cram = MailPolicy::Sasl->new('CRAM-MD5', user => $alice,
    password => 'canary-a');
my $dialogue = $t->session('smtp');
my $challenge = upto($cram, $dialogue, 1);
$c->send_raw('AUTH PLAIN ' . b64("\0$alice\0canary-x") . "\r\n");
sleep(0.3);
$t->reload();
like($t->session('smtp')->auth_plain($alice, 'canary-a'), qr/^235 /,
    'a login with the new worker');
like($c->read_reply(), qr/^535 5\.7\.8 /, 'the pending one has its answer');
like(answer($cram, $dialogue, $challenge), qr/^(?:235|421) /,
    'a dialogue ends, too');
$_->close() for $c, $dialogue, $other;
ok($t->wait_for(sub { !grep { kill(0, $_) } @old }),
    'and the old worker is gone');

# and before a dialogue has begun, with nobody else to wait for

@old = $t->worker_pids();
$dovecot->signal('STOP');
$c = $t->session('smtp');
$c->send_raw("AUTH CRAM-MD5\r\n");
sleep(0.3);
$t->reload();
sleep(1);
$dovecot->signal('CONT');
like($c->read_reply(), qr/^334 /, 'a dialogue begins with the old worker');
like($c->cmd('*'), qr/^(?:501|421) /, 'and ends');
$c->close();
ok($t->wait_for(sub { !grep { kill(0, $_) } @old }), 'which is then gone');

unlike($t->error_log(), qr/canary/, 'OUT-2 no password in the log');

$t->disconnect();
$t->done();
$dovecot->stop();


# the reply to what was said before the n-th response

sub upto {
    my ($s, $c, $n) = @_;

    @$s{qw(step challenges proved)} = (0, [], 0);
    my $reply = $c->cmd($s->command());
    $reply = answer($s, $c, $reply) for 2 .. $n;
    return $reply;
}


sub answer {
    my ($s, $c, $reply) = @_;

    my ($challenge) = $reply =~ /^334 (.*)/;
    return $c->cmd(b64($s->respond(
        MIME::Base64::decode_base64($challenge // ''))));
}


sub eventually {
    return $t->wait_for(sub {
        $t->session('smtp')->auth_plain($alice, 'canary-a') =~ /^235 /
    });
}


sub b64 { return encode_base64($_[0], '') }
