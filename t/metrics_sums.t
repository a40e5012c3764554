#!/usr/bin/perl

# What is counted adds up: clients do this and that at random, through two
# workers, and policy_status has what they know, what the access logs have,
# and what the relay has; also where workers are reloaded or killed meanwhile.
#
# TEST_TRANSACTIONS: how many (50000 for all of it); TEST_SEED: other ones.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use JSON::PP ();
use Test::More;
use Time::HiRes qw(sleep);

use MailPolicy;
use MailPolicy::FastRelay;
use MailPolicy::RandomMail;

use constant { CLIENTS => 4, RELOADS => 3, KILLED => 3 };

my $TRANSACTIONS = $ENV{TEST_TRANSACTIONS} || 1200;
my $SEED = $ENV{TEST_SEED} || 1;
my @OUTCOMES = map { "transactions.$_" } qw(accepted deferred rejected aborted
    unknown delivered_unacked);

$ENV{TEST_NGINX_TIMEOUT} //= 60 + $TRANSACTIONS / 50;

my $t = MailPolicy->new();
my $dir = $t->dir();
my $relay = MailPolicy::FastRelay->new($t, name => 'relay');

$t->certificate('edge');
$t->write_file('users', "u\@example.com:{PLAIN}secret\n");

$t->conf(<<"EOF");
error_log         $dir/error.log notice;
worker_processes  2;

mail {
    server_name            edge.example.com;
    policy                 on;
    policy_auth            off;
    policy_auth_plaintext  on;
    policy_zone            16m;
    max_errors             1000000;
    starttls               on;
    ssl_certificate        edge.crt;
    ssl_certificate_key    edge.key;
    proxy_pass             127.0.0.1:%%PORT_relay%%;

    map \$sender \$few      { default ""; ~^few      \$sender; }
    map \$sender \$watched  { default ""; ~^watched  \$sender; }

    policy_limit  few      key=\$few      messages=2/24h;
    policy_limit  watched  key=\$watched  messages=1/24h  enforce=0%;

    log_format  line  '\$connection \$status';
    access_log  $dir/access.log;
    access_log  $dir/line.log    line  buffer=16k  flush=100ms;

    server {
        listen    127.0.0.1:%%PORT_smtp%%;
        protocol  smtp;
    }

    server {
        listen       127.0.0.1:%%PORT_login%%;
        protocol     smtp;
        policy_auth  file:$dir/users;
    }

    server {
        listen      127.0.0.1:%%PORT_quiet%%;
        protocol    smtp;
        access_log  off;
    }
}

http {
    server {
        listen  127.0.0.1:%%PORT_http%%;

        location / {
            policy_status  json;
        }
    }
}
EOF
$t->run_nginx();

my ($status, $log, $read) = ({}, {}, 0);

# nothing happens to the workers

my %said = mail(1, $TRANSACTIONS / 2, ports => [ qw(smtp smtp login quiet) ]);
my %now = check('random', 0, %said);

my $relayed = keys %{ $relay->accepted() };
my $taken = $now{'transactions.accepted'}
    + $now{'transactions.delivered_unacked'};
my $unknown = $now{'transactions.unknown'}
    - $said{'transactions.unknown'};

cmp_ok($relayed, '>=', $taken, 'random: the relay has what was accepted');
cmp_ok($relayed, '<=', $taken + $unknown, 'random: and no more');

is($now{$_}, $said{$_} // 0, "random: $_ of policy_status and of clients")
    for grep { !/^(?:transactions|bytes|log)\./ } sort keys %now;

# of some transactions clients do not know how they ended

my $open = $said{'transactions.open'};

for my $name (@OUTCOMES) {
    my $more = $now{$name} - ($said{$name} // 0);

    cmp_ok($more, '>=', 0, "random: $name of policy_status and of clients");
    $open -= $more;
}

is($open, 0, 'random: all outcomes of policy_status and of clients');
cmp_ok($now{'bytes.messages'}, '>=', $said{'bytes.messages'},
    'random: octets of messages');

# each reload has old workers go on with what is under way

my $mail = start(2, $TRANSACTIONS / 4);
my @held = map { held() } 1 .. RELOADS;

for my $c (@held) {
    ok($t->reload(), 'reload');
    sleep(0.2);
    $c->send_raw("x\r\n.\r\n");
    like($c->read_reply(), qr/^250 /, 'reload: an old worker ends a message');
    $c->close();
}

check('reload', 0, $mail->wait());

# what a worker that is killed has counted stays counted; at most, the line is
# missing that it was about to write

$mail = start(3, $TRANSACTIONS / 4);

for (1 .. KILLED) {
    my ($pid) = my @pids = $t->worker_pids();

    sleep(0.2);
    kill('KILL', $pid);
    ok($t->wait_for(sub {
        my @now = $t->worker_pids();
        return @now == 2 && !grep { $_ == $pid } @now;
    }), 'killed: another one comes');
}

check('killed', KILLED, $mail->wait());

$t->allow(qr/exited on signal 9/);
$t->done();


sub start {
    my ($seed, $transactions, %option) = @_;

    return MailPolicy::RandomMail->new($t, seed => $SEED * 10 + $seed,
        clients => CLIENTS, transactions => $transactions / CLIENTS,
        ports => [ qw(smtp login) ], interrupted => $seed > 1, %option);
}


sub mail { return start(@_)->wait() }


# a message that is half sent

sub held {
    my $c = $t->session('smtp');

    $c->cmd('MAIL FROM:<held@example.com>');
    $c->cmd('RCPT TO:<r@example.net>');
    $c->cmd('DATA');
    $c->send_raw('X-Id: held-' . ++$read . "\r\n\r\n");
    return $c;
}


# policy_status: name => value, as "transactions.accepted"

sub status {
    my $json = JSON::PP->new()->utf8()->decode($t->http_get('http', '/'));
    my %value;

    $json->{limits} = { map { $_->{name} => { %$_ } } @{ $json->{limits} } };
    delete @$_{qw(name near)} for values %{ $json->{limits} };

    flatten($_, $json->{$_}, \%value) for qw(sessions transactions recipients
        bytes refusals auth limits log);
    delete @value{qw(bytes.received bytes.sent)};

    return \%value;
}


sub flatten {
    my ($name, $value, $all) = @_;

    if (!ref $value) {
        $all->{$name} = $value;
        return;
    }

    flatten("$name.$_", $value->{$_}, $all) for keys %$value;
}


# the JSON log, by the same names

sub logged {
    my %sum = ('log.lines' => 0);

    for my $line ($t->access_log()) {
        $sum{'log.lines'}++;

        if (!$line->{transaction}) {
            $sum{'lines.sessions'}++;
            next;
        }

        $sum{"transactions.$line->{outcome}"}++;
        $sum{'recipients.accepted'} += $line->{recipients};
        $sum{'recipients.refused'} += $line->{rejected_recipients};
        $sum{'bytes.messages'} += $line->{message_size}
            if $line->{outcome} =~ /^(?:accepted|delivered_unacked)$/;
    }

    return \%sum;
}


# What came since the last call: policy_status and the log agree, but for so
# many lines that are missing.  Returns policy_status'.

sub check {
    my ($name, $missing, %client) = @_;

    ok($t->wait_for(sub { status()->{'sessions.active'} == 0 }),
        "$name: no session is left");

    my ($status_before, $log_before) = ($status, $log);
    ($status, $log) = (status(), logged());

    my %now = map { $_ => $status->{$_} - ($status_before->{$_} // 0) }
        keys %$status;
    my %line = map { $_ => $log->{$_} - ($log_before->{$_} // 0) } keys %$log;

    for my $n (@OUTCOMES, qw(recipients.accepted recipients.refused
        bytes.messages log.lines))
    {
        my $less = $now{$n} - ($client{"quiet.$n"} // 0) - ($line{$n} // 0);

        $missing
            ? cmp_ok($less, '>=', 0, "$name: $n and the log")
            : is($less, 0, "$name: $n and the log");
    }

    # the other log has a buffer, which who is killed takes along
    ok($t->wait_for(sub { $log->{'log.lines'}
        == ($t->read_file('line.log') =~ tr/\n//) }), "$name: all logs")
        unless $missing;

    is($line{'lines.sessions'}, $client{'lines.sessions'},
        "$name: lines of sessions") unless $client{interrupted};
    is($now{'sessions.total'}, $client{'sessions.total'},
        "$name: all sessions") unless $client{interrupted};
    cmp_ok($now{'log.lines'} - $line{'log.lines'}, '<=', $missing,
        "$name: lines");
    is($status->{'log.lost'}, 0, "$name: none is lost");

    return %now;
}
