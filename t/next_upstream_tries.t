#!/usr/bin/perl

# Bounds of what a message may do to a group: proxy_next_upstream_tries and
# _timeout; a message on which relays break; what counts against a relay, and
# what does not; and an edge that has no connections left.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Test::More;
use Time::HiRes qw(time);

use MailPolicy;

my $t = MailPolicy->new();
my @names = qw(a b c d);
my %relay = map { $_ => $t->run_relay(name => $_) } @names;

my $peers = join('', map { "server 127.0.0.1:%%PORT_$_%% %s; " } @names);
my $away = $peers =~ s/%s/max_fails=0/gr;
my $fails = $peers =~ s/%s/max_fails=1 fail_timeout=1h/gr;
my @groups = ('fails1' .. 'fails9');

my $servers = join('', map { my ($name, $lines) = @$_; <<"EOF" }
    server {
        listen    127.0.0.1:%%PORT_$name%%;
        protocol  smtp;
        $lines
    }
EOF
    [ all => '' ], [ two => 'proxy_next_upstream_tries 2;' ],
    [ one => 'proxy_next_upstream_tries 1;' ],
    [ temporary => 'proxy_next_upstream error 4xx;' ],
    [ soon => 'proxy_next_upstream_timeout 500ms; proxy_timeout 300ms;' ],
    [ lazy => 'proxy_next_upstream error 4xx; proxy_pass $by_recipient;' ],
    map({ [ $_ => "proxy_pass $_; proxy_timeout 300ms;" ] } @groups));

my $groups = join('', map { "    upstream $_ { $fails }\n" } @groups);

$t->conf(<<"EOF");
worker_processes 1;
events { worker_connections 64; }
mail {
    server_name    edge.example.com;
    access_log     %%DIR%%/access.log;
    policy         on;
    policy_auth    off;
    proxy_pass     group;
    proxy_timeout  20s;

    upstream group { $away }
    map \$recipient_domain \$by_recipient { default group; other.example fails9; }
$groups
$servers
    server {
        listen      127.0.0.1:%%PORT_there%%;
        protocol    smtp;
        proxy_pass  127.0.0.1:%%PORT_back%%;
    }

    server {
        listen      127.0.0.1:%%PORT_back%%;
        protocol    smtp;
        proxy_pass  there;
    }

    upstream there { server 127.0.0.1:%%PORT_there%% fail_timeout=1h; }
}
EOF
$t->run_nginx();


sub all { my ($stage, $action) = @_; $_->set($stage => $action)
    for values %relay; }

sub codes { return join(' ', map { substr($_, 0, 3) } @_) }

sub message {
    my ($where) = @_;

    my $c = $t->session($where);
    my @replies = $c->send_mail('s@example.com', [ 'r@example.net' ], "x\n");
    $c->quit();
    return codes(@replies);
}


# how many relays have heard of it: connections, or commands, since then

my %seen;

sub heard {
    my ($what) = @_;

    my $count = 0;
    for my $name (@names) {
        my $now = $what ? () = join('', $relay{$name}->transcripts())
            =~ /^C: $what/mg : $relay{$name}->stats()->{total};
        $count += $now - ($seen{ $name . ($what // '') } // 0);
        $seen{ $name . ($what // '') } = $now;
    }
    return $count;
}


sub aside { return scalar(() = $t->error_log() =~ /is set aside/g) }


# tries

all(greeting => '554 5.3.2 never');
heard();
is(message('all'), '451', 'all refuse');
is(heard(), 4, 'no limit of tries: all were asked');
is(message('two'), '451', 'proxy_next_upstream_tries 2');
is(heard(), 2, 'proxy_next_upstream_tries 2: two were');
is(message('one'), '451', 'proxy_next_upstream_tries 1');
is(heard(), 1, 'proxy_next_upstream_tries 1: one was');
all(greeting => undef);

# a connection that was kept and is dead is no try

my $c = $t->session('one');
is(codes($c->send_mail('s@example.com', [ 'r@example.net' ], "x\n")),
    '250 250 354 250', 'a first message');
all(mail => { times => 1, action => 'close' });
is(codes($c->send_mail('s@example.com', [ 'r@example.net' ], "x\n")),
    '250 250 354 250', 'a kept connection that is dead is no try');
all(mail => undef);
$c->quit();

# time

all(greeting => 'hang');
heard();
my $begin = time();
is(message('soon'), '451', 'proxy_next_upstream_timeout 500ms');
is(heard(), 2, 'proxy_next_upstream_timeout 500ms: two of 300 ms');
cmp_ok(time() - $begin, '<', 2, 'proxy_next_upstream_timeout 500ms: in time');
all(greeting => undef);

# what counts: of one message on which relays break, one; two are asked

my ($aside, $group) = (aside(), 0);

for my $case ([ greeting => 'close', 4, 4 ], [ mail => 'close', 2, 1 ],
    [ mail => 'rst', 2, 1 ], [ mail => '421 4.3.2 closing', 4, 0 ],
    [ rcpt => 'close', 1, 1 ], [ rcpt => '421 4.7.0 too many errors', 1, 0 ],
    [ data => 'close', 1, 1 ])
{
    my ($stage, $action, $asked, $count) = @$case;
    my $name = "$stage $action";
    my $where = $groups[ $group++ ];

    all($stage => $action);
    heard($stage eq 'greeting' ? undef : 'MAIL');
    like(message($where), qr/4\d\d$/, "$name: told so");
    is(heard($stage eq 'greeting' ? undef : 'MAIL'), $asked,
        "$name: $asked were asked");
    is(aside() - $aside, $count, "$name: $count set aside");
    $aside = aside();
    all($stage => undef);
}

all(rcpt => 'hang');
like(message('fails8'), qr/^250 451/, 'rcpt hang: told so');
is(aside() - $aside, 1, 'rcpt hang: a relay that is waited for counts');
all(rcpt => undef);

# 4xx

all(mail => '450 4.1.8 later');
heard('MAIL');
is(message('temporary'), '450', 'MAIL: 4xx of all');
is(heard('MAIL'), 4, 'MAIL: 4xx: all were asked');
all(mail => undef);
all(rcpt => '450 4.2.0 later');
heard('MAIL');
is(message('temporary'), '250 450', 'RCPT: 4xx of all');
is(heard('MAIL'), 4, 'RCPT: 4xx: all were asked');
is(message('lazy'), '250 450', 'RCPT: 4xx, where the recipient has the route');
is(heard('MAIL'), 4, 'RCPT: 4xx, where the recipient has the route: all');
all(rcpt => { match => qr/<no@/, action => '450 4.2.0 later' });

$c = $t->session('temporary');
is(codes($c->pipeline('MAIL FROM:<s@example.com>', 'RCPT TO:<no@example.net>',
    'RCPT TO:<r@example.net>', 'DATA')), '250 450 250 354',
    'RCPT: 4xx, others on their way: no other relay');
is(heard('MAIL'), 1, 'RCPT: 4xx, others on their way: one was asked');
like($c->cmd('.'), qr/^250/, 'RCPT: 4xx, others on their way: accepted');
is(codes(map { $c->cmd($_) } 'MAIL FROM:<s@example.com>',
    'RCPT TO:<r@example.net>', 'RCPT TO:<no@example.net>', 'DATA', '.'),
    '250 250 450 354 250', 'RCPT: 4xx behind one that stands');
is(heard('MAIL'), 1, 'RCPT: 4xx behind one that stands: no mixing');
is(codes(map { $c->cmd($_) } 'MAIL FROM:<s@example.com>',
    'RCPT TO:<no@example.net>', 'RCPT TO:<r@example.net>', 'DATA', '.'),
    '250 450 250 354 250', 'RCPT: 4xx of all, and the next recipient');
$c->quit();

all(rcpt => undef);
$relay{$_}->set(rcpt => '450 4.2.0 later', mail => undef) for qw(a b);
$relay{$_}->set(mail => '451 4.3.0 full') for qw(c);
$c = $t->session('temporary');
is(codes(map { $c->cmd($_) } 'MAIL FROM:<s@example.com>',
    'RCPT TO:<r@example.net>', 'RCPT TO:<q@example.net>', 'DATA', '.'),
    '250 250 250 354 250', '4xx here and there, until one takes it');
$c->quit();
is_deeply(($relay{d}->messages())[-1]{rcpts},
    [ 'r@example.net', 'q@example.net' ], 'that one has both recipients');
all($_ => undef) for qw(rcpt mail);

# no connections left, which is nobody's failure

my @full;
$aside = aside();
$c = $t->session('fails9');

while (@full < 64) {
    push @full, $t->client('all');
    last if $full[-1]->greeting() !~ /^220/;
}

like($c->cmd('MAIL FROM:<s@example.com>'), qr/^451 4\.3\.0 /,
    'no connections left: told so');
is(aside(), $aside, 'no connections left: no relay is set aside');
like($t->error_log(), qr/no connection can be made/, 'logged');
$_->close() for @full;
ok($t->wait_for(sub { $c->cmd('MAIL FROM:<s@example.com>') =~ /^250/ }),
    'and when there are some, mail is taken');
$c->quit();

# two servers that relay to each other go round until then

$c = $t->session('there');
like($c->cmd('MAIL FROM:<s@example.com>'), qr/^451 4\.[34]\.\d /,
    'TRUST-9 a loop ends');
$c->quit();
$t->wait_for(sub { message('all') eq '250 250 354 250' });
is(message('all'), '250 250 354 250', 'TRUST-9 and other mail is sent');

$t->allow(qr/worker_connections are not enough/);
$t->done();
