#!/usr/bin/perl

# Two doors, one ledger: Alice sends through an nginx edge, and through a
# Postfix that asks an nginx elsewhere, in any order and at once.  Exactly her
# limit passes in all; what operators change in Redis holds at both doors.
# The same without Redis, where both are one nginx.

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
use MailPolicy::Process qw(fork_server wait_exit);

my $missing = MailPolicy::Postfix::missing();
plan(skip_all => $missing) if $missing;

my $t = MailPolicy->new();
my $redis = $t->run_redis();
my $dir = $t->dir();

my @USERS = map { "$_\@example.com" } qw(alice bob first second turns few
    crowd many suspended raised domain local upper);
my $dovecot = MailPolicy::Dovecot->new(dir => $dir, mechanisms => 'plain login',
    users => { map { $_ => 'secret' } @USERS });
push @{ $t->{servers} }, $dovecot;

# each door asks at another point; "behind" is the relay of the edges
sub door {
    my ($stage, $service) = @_;

    return [ "smtpd_${stage}_restrictions=check_policy_service,$service",
        'smtpd_sasl_auth_enable=yes', 'smtpd_sasl_type=dovecot',
        'smtpd_sasl_path=' . $dovecot->socket(),
        'smtpd_relay_restrictions=permit_sasl_authenticated,reject' ];
}

my $inet = 'inet:127.0.0.1:' . $t->port('policy');

my $postfix = MailPolicy::Postfix->new($t,
    smtpd => {
        behind  => [],
        postfix => door('recipient', $inet),
        data    => door('data', $inet),
        end     => door('end_of_data', "unix:$dir/policy.sock"),
        local   => door('recipient', "unix:$dir/local.sock"),
    },
    main => [ 'smtpd_error_sleep_time = 0', 'smtpd_soft_error_limit = 1000',
              'smtpd_hard_error_limit = 1000',
              'smtpd_client_connection_count_limit = 0' ]);

my $LIMIT = 'policy_limit  user  key=$sasl_username  messages=20/1h
                  recipients=1000/1h';
my $REDIS = 'policy_redis  redis://127.0.0.1:%%PORT_redis%% timeout=5s';
my $EDGE = <<"END";
        protocol               smtp;
        policy                 on;
        policy_auth            dovecot:unix:@{[ $dovecot->socket() ]};
        policy_auth_plaintext  on;
        proxy_pass             127.0.0.1:%%PORT_behind%%;
        xclient                off;
END

# an edge, an nginx on another machine for Postfix, and both in one

$t->conf('edge', <<"END");
worker_processes 2;

mail {
    server_name  edge.example.com;
    $REDIS;
    $LIMIT;

    server {
        listen  127.0.0.1:%%PORT_edge%%;
$EDGE
    }
}
END

$t->conf('listener', <<"END");
worker_processes 2;

mail {
    $REDIS;
    $LIMIT;

    server {
        listen    127.0.0.1:%%PORT_policy%%;
        listen    unix:%%DIR%%/policy.sock;
        protocol  policy;
    }
}
END

$t->conf('single', <<"END");
worker_processes 2;

mail {
    server_name  edge.example.com;
    policy_zone  1m;
    $LIMIT;

    server {
        listen  127.0.0.1:%%PORT_edge_local%%;
$EDGE
    }

    server {
        listen    unix:%%DIR%%/local.sock;
        protocol  policy;
    }
}
END

$t->run_nginx($_) for qw(edge listener single);


sub door_of {
    my ($door, $user) = @_;

    my $c = $t->session($door);
    like($c->auth_plain("$user\@example.com", 'secret'), qr/^235 /,
        "$user logs in at $door");
    return $c;
}

# the replies to a message up to the one that decides: 250, or what refuses

sub message {
    my ($c, $user, $n) = @_;

    my @replies = $c->send_mail("$user\@example.com",
        [ map { "r$_\@example.net" } 1 .. $n // 1 ], "Subject: x\n\nx\n");

    $c->cmd('RSET') if $replies[-1] !~ /^2/;
    return @replies;
}

sub passes {
    my ($c, $user, $times) = @_;

    local $Test::Builder::Level = $Test::Builder::Level + 1;

    is(join(' ', map { codes((message($c, $user))[-1]) } 1 .. $times),
        join(' ', (250) x $times), "$user: $times pass");
}

sub refuses {
    my ($c, $user, $what) = @_;

    local $Test::Builder::Level = $Test::Builder::Level + 1;

    like((message($c, $user))[-1],
        qr/^450 4\.7\.1 .*Rate limit "user" exceeded/, "$user: $what");
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

sub rates {
    my ($key, @rates) = @_;

    $redis->cmd('HSET', "mail:limit:user:{$key}", @rates);
}


# half by the one, half by the other

for my $case ([ 'alice', 'edge', 'postfix' ], [ 'first', 'postfix', 'edge' ],
    [ 'second', 'edge', 'end' ])
{
    my ($user, $one, $other) = @$case;
    my ($c, $d) = map { door_of($_, $user) } $one, $other;

    passes($c, $user, 10);
    passes($d, $user, 10);
    refuses($d, $user, "no more at $other");
    refuses($c, $user, "no more at $one");
    is_sent($user, 20, 20);
}

# in turns

my %door = map { $_ => door_of($_, 'turns') } qw(edge postfix data end);

for my $n (1 .. 5) {
    passes($door{$_}, 'turns', 1) for sort keys %door;
}

refuses($door{$_}, 'turns', "no more at $_") for sort keys %door;
is_sent('turns', 20, 20);

# all of it by the one, and nothing is left for the other

for my $case ([ 'bob', 'edge', 'postfix' ], [ 'upper', 'end', 'edge' ]) {
    my ($user, $one, $other) = @$case;

    passes(door_of($one, $user), $user, 20);
    refuses(door_of($other, $user), $user, "nothing is left at $other");
    is_sent($user, 20, 20);
}

# her name in capitals is she

my $c = $t->session('postfix');
like($c->auth_plain('UPPER@Example.COM', 'secret'), qr/^235 /,
    'a login in capitals');
refuses($c, 'upper', 'is the same one');


# recipients: the last ones of a message are too many

rates('few@example.com', recipients => '13/1h');
%door = map { $_ => door_of($_, 'few') } qw(edge postfix end);
is(codes(message($door{$_}, 'few', 3)), '250 250 250 250 354 250',
    "three recipients by $_") for qw(edge postfix end edge);
is(codes(message($door{end}, 'few', 2)), '250 250 250 354 450',
    'two are too many: none of them');
is(codes(message($door{postfix}, 'few', 2)), '250 250 450 354 250',
    'two are too many: one of them');
is(codes(message($door{edge}, 'few', 1)), '450',
    'one is too many: an edge says so at MAIL');
is_sent('few', 5, 13);


# at once: clients that go on until each has sent so many, or is refused
# often enough; how many messages and recipients they were told of

sub crowd {
    my ($user, $recipients, @doors) = @_;
    my $n = 0;

    my @pids = map { my $door = $_; my $file = "$dir/$user." . $n++;
        [ $file, fork_server("$file.err", [], sub {
            my $c = MailPolicy::Client->new(port => $t->port($door));
            my ($messages, $accepted, $refused) = (0, 0, 0);

            $c->greeting();
            $c->ehlo();
            $c->auth_plain("$user\@example.com", 'secret');

            while ($refused < 5 && $messages < 100) {
                my @replies = message($c, $user, $recipients);

                $refused++, next if $replies[-1] !~ /^250/;
                $messages++;
                $accepted += grep { /^250/ } @replies[ 1 .. $recipients ];
            }

            $t->write_file($file, "$messages $accepted");
        }) ] } @doors;

    my @sum = (0, 0);

    for my $pid (@pids) {
        is(wait_exit($pid->[1], 60), 0, 'a client ends');
        my @told = split / /, $t->read_file($pid->[0]);
        $sum[$_] += $told[$_] // 1000 for 0, 1;
    }

    return @sum;
}

rates('crowd@example.com', messages => '80/1h');
is(join(' ', crowd('crowd', 1, (qw(edge postfix data end)) x 2)), '80 80',
    'at once: exactly the limit of messages');
is_sent('crowd', 80, 80);

rates('many@example.com', messages => '1000/1h', recipients => '200/1h');
my ($messages, $recipients) = crowd('many', 3, (qw(edge postfix)) x 4);
is($recipients, 200, 'at once: exactly the limit of recipients');
is_sent('many', $messages, 200);


# what operators change holds at both doors, in sessions that are open

%door = map { $_ => door_of($_, 'suspended') } qw(edge postfix end);

passes($door{$_}, 'suspended', 2) for sort keys %door;
rates('suspended@example.com', suspended => 'yes');
like((message($door{$_}, 'suspended'))[-1], qr/^450 4\.7\.1 /,
    "suspended: refused at $_") for sort keys %door;
$redis->cmd('HDEL', 'mail:limit:user:{suspended@example.com}', 'suspended');
passes($door{$_}, 'suspended', 1) for sort keys %door;
is_sent('suspended', 9, 9);

%door = map { $_ => door_of($_, 'raised') } qw(edge postfix end);
rates('raised@example.com', messages => '3/1h');
passes($door{$_}, 'raised', 1) for sort keys %door;
refuses($door{$_}, 'raised', "no more at $_") for sort keys %door;
rates('raised@example.com', messages => '9/1h');
passes($door{$_}, 'raised', 2) for sort keys %door;
refuses($door{$_}, 'raised', "no more at $_") for sort keys %door;
$redis->cmd('DEL', 'mail:used:user:{raised@example.com}');
passes($door{$_}, 'raised', 3) for sort keys %door;

# a domain's rate is known a little later
rates('@example.com', messages => '2/1h');
%door = map { $_ => door_of($_, 'domain') } qw(edge postfix);
ok($t->wait_for(sub {
    $redis->cmd('DEL', 'mail:used:user:{domain@example.com}');
    return join(' ', map { codes((message($_, 'domain'))[-1]) }
        @door{qw(edge postfix edge postfix)}) eq '250 250 450 450';
}, 10), 'a rate of the domain holds at both doors');


# without Redis, where both doors are one nginx

my ($edge, $direct) = (door_of('edge_local', 'local'),
    door_of('local', 'local'));

for (1 .. 10) {
    passes($_, 'local', 1) for $edge, $direct;
}

refuses($_, 'local', 'no Redis: no more') for $edge, $direct;
ok($t->wait_for(sub { "20 20" eq join(' ',
    $postfix->delivered('local@example.com')) }), 'no Redis: delivered');

$postfix->stop();
$t->done();
