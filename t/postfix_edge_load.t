#!/usr/bin/perl

# nginx in front of a Postfix that asks the same limits, with much mail at
# once, by the edge and not: what is delivered is charged once, exactly the
# limit passes, and what Postfix refuses is charged nowhere.  Without
# policy_edge all of it is charged twice.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Test::More;

use MailPolicy;
use MailPolicy::Client;
use MailPolicy::Dovecot;
use MailPolicy::Limits qw(codes is_used);
use MailPolicy::Postfix;
use MailPolicy::Process qw(fork_server spawn wait_exit);

my $missing = MailPolicy::Postfix::missing();
plan(skip_all => $missing) if $missing;

my $t = MailPolicy->new();
my $redis = $t->run_redis();
my $dir = $t->dir();

my @USERS = qw(alice crowd refused twice);
my $dovecot = MailPolicy::Dovecot->new(dir => $dir, mechanisms => 'plain login',
    users => { map { ("$_\@example.com" => 'secret') } @USERS });
push @{ $t->{servers} }, $dovecot;

# what it refuses at each point, in front of the question and behind it;
# spaces are commas in master.cf

sub smtpd {
    my ($port) = @_;

    my $ask = 'check_policy_service,inet:127.0.0.1:' . $t->port($port);
    my $refuse = sub { "check_$_[0]_access,inline:{$_[1]\@example.net=REJECT}" };

    return [
        'smtpd_recipient_restrictions=' . join(',',
            $refuse->('recipient', 'no'), $ask, $refuse->('recipient', 'late')),
        'smtpd_data_restrictions=' . join(',', $ask,
            $refuse->('sender', 'data')),
        'smtpd_end_of_data_restrictions=' . join(',', $ask,
            $refuse->('sender', 'end')),
        'smtpd_sasl_auth_enable=yes', 'smtpd_sasl_type=dovecot',
        'smtpd_sasl_path=' . $dovecot->socket(),
        'smtpd_authorized_xclient_hosts=127.0.0.1',
        'smtpd_relay_restrictions=permit_sasl_authenticated,'
            . 'permit_mynetworks,reject',
    ];
}

my $postfix = MailPolicy::Postfix->new($t,
    smtpd => { smtpd => smtpd('policy'), smtpd_twice => smtpd('policy_twice') },
    main => [ 'smtpd_error_sleep_time = 0', 'smtpd_soft_error_limit = 1000',
              'smtpd_hard_error_limit = 1000',
              'smtpd_client_connection_count_limit = 0' ]);

$t->conf(<<"END");
worker_processes  2;
error_log         $dir/error.log  info;

mail {
    server_name            edge.example.com;
    policy_redis           redis://127.0.0.1:%%PORT_redis%% timeout=5s;
    policy_auth            dovecot:unix:@{[ $dovecot->socket() ]};
    policy_auth_plaintext  on;

    policy_limit  user  key=\$sasl_username  messages=1000/1h
                        recipients=1000/1h;
    policy_limit  from  key=\$sender         messages=1000/1h  bytes=100m/1h;

    upstream kept {
        server     127.0.0.1:%%PORT_smtpd%%;
        keepalive  8;
    }

    server {
        listen      127.0.0.1:%%PORT_edge%%;
        protocol    smtp;
        policy      on;
        proxy_pass  127.0.0.1:%%PORT_smtpd%%;
    }

    server {
        listen      127.0.0.1:%%PORT_edge_kept%%;
        protocol    smtp;
        policy      on;
        proxy_pass  kept;
    }

    server {
        listen       127.0.0.1:%%PORT_inbound%%;
        protocol     smtp;
        policy       on;
        policy_auth  off;
        proxy_pass   kept;
    }

    server {
        listen      127.0.0.1:%%PORT_edge_twice%%;
        protocol    smtp;
        policy      on;
        proxy_pass  127.0.0.1:%%PORT_smtpd_twice%%;
    }

    server {
        listen       127.0.0.1:%%PORT_policy%%;
        protocol     policy;
        policy_edge  xclient  server=127.0.0.1:%%PORT_inbound%%;
    }

    server {
        listen    127.0.0.1:%%PORT_policy_twice%%;
        protocol  policy;
    }
}
END
$t->run_nginx();


sub door_of {
    my ($door, $user) = @_;

    my $c = $t->session($door);
    like($c->auth_plain("$user\@example.com", 'secret'), qr/^235 /,
        "$user logs in at $door");
    return $c;
}

sub message {
    my ($c, $from, @to) = @_;

    my @replies = $c->send_mail($from =~ /@/ ? $from : "$from\@example.com",
        [ map { "$_\@example.net" } @to ], "Subject: x\n\nx\n");

    $c->cmd('RSET') if $replies[-1] !~ /^2/;
    return @replies;
}

sub is_sent {
    my ($user, $messages, $recipients) = @_;

    local $Test::Builder::Level = $Test::Builder::Level + 1;

    my $sent;
    $t->wait_for(sub {
        $sent = join(' ', $postfix->delivered("$user\@example.com"));
        return $sent eq "$messages $recipients";
    });

    is($sent, "$messages $recipients", "$user: delivered");
    is_used($redis, "$user: charged", 'user', "$user\@example.com",
        messages => $messages, recipients => $recipients, timeout => 5);
}

sub limit {
    my ($limit, $key, @rates) = @_;

    $redis->cmd('HSET', "mail:limit:$limit:{$key}", @rates);
}


# by the one, by the other

my %door = map { $_ => door_of($_, 'alice') } qw(edge edge_kept smtpd);

for my $n (1 .. 3) {
    is(codes(message($door{$_}, 'alice', 'a', 'b')), '250 250 250 354 250',
        "alice by $_") for sort keys %door;
}

is_sent('alice', 9, 18);


# what Postfix refuses is given back by the edge, at any point

$_->quit() for values %door;
%door = map { $_ => door_of($_, 'refused') } qw(edge edge_kept);

for my $door (map { $door{$_} } sort keys %door) {
    is(codes(message($door, 'refused', 'no')), '250 554', 'a recipient');
    is(codes(message($door, 'refused', 'late')), '250 554', 'and behind it');
    is(codes(message($door, 'data@example.net', 'a')), '250 250 554', 'DATA');
    is((message($door, 'end@example.net', 'a'))[-1] =~ s/ .*//r, '554',
        'the end of a message');
}

is_used($redis, 'nothing of that is charged', 'user', 'refused@example.com',
    messages => 0, recipients => 0, timeout => 5);
is_used($redis, "$_: nothing", 'from', "$_\@example.net", messages => 0,
    timeout => 5) for qw(data end);

is(codes(message($door{edge}, 'refused', qw(no a late b no))),
    '250 554 250 554 250 554 354 250', 'some recipients');
is_sent('refused', 1, 2);


# by all doors at once: exactly the limit, and each of them once

sub crowd {
    my ($user, @doors) = @_;
    my ($n, $sum) = (0, 0);

    my @pids = map { my $door = $_; my $file = "$dir/$user." . $n++;
        [ $file, fork_server("$file.err", [], sub {
            my $c = MailPolicy::Client->new(port => $t->port($door));
            my ($sent, $refused) = (0, 0);

            $c->greeting();
            $c->ehlo();
            $c->auth_plain("$user\@example.com", 'secret');

            while ($refused < 3 && $sent < 100) {
                (message($c, $user, 'a'))[-1] =~ /^250/ ? $sent++ : $refused++;
            }

            $t->write_file($file, $sent);
        }) ] } @doors;

    for my $pid (@pids) {
        is(wait_exit($pid->[1], 60), 0, 'a client ends');
        $sum += $t->read_file($pid->[0]) || 0;
    }

    return $sum;
}

limit('user', 'crowd@example.com', messages => '90/1h');
is(crowd('crowd', (qw(edge edge_kept smtpd)) x 2), 90,
    'at once: exactly the limit');
is_sent('crowd', 90, 90);
is_used($redis, 'the other limit', 'from', 'crowd@example.com',
    messages => 90, timeout => 5);

# without a login, and half of it refused

limit('from', 'mx@example.com', messages => '50/1h');

my @source = map { my $port = $_; spawn("$dir/source.$port", 'smtp-source',
    '-A', '-N', '-s', 8, '-m', 50, '-f', 'mx@example.com',
    '-t', 'r@example.net', '127.0.0.1:' . $t->port($port)) }
    qw(inbound smtpd);

is_deeply([ map { wait_exit($_, 60) } @source ], [ 0, 0 ], 'smtp-source');
ok($t->wait_for(sub { "50 50" eq join(' ',
    $postfix->delivered('mx@example.com')) }), 'without a login: delivered');
is_used($redis, 'without a login: charged once', 'from', 'mx@example.com',
    messages => 50, timeout => 5);


# without policy_edge: twice

my $c = door_of('edge_twice', 'twice');
is(codes(message($c, 'twice', 'a')), '250 250 354 250', 'without policy_edge');
is_used($redis, 'charged twice', 'user', 'twice@example.com', messages => 2,
    recipients => 2, timeout => 5);

limit('user', 'twice@example.com', messages => '3/1h');
is(codes(message($c, 'twice', 'a')), '250 450',
    'and refused by Postfix as soon as there is no room for both');
is_used($redis, 'which the edge gives back', 'user', 'twice@example.com',
    messages => 2, recipients => 2, timeout => 5);

$postfix->stop();
$t->done();
