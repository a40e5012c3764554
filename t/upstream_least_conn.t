#!/usr/bin/perl

# least_conn: the relay with the fewest connections of all workers, by weight,
# is next; max_conns: one that has so many gets no more.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Test::More;

use MailPolicy;

my $t = MailPolicy->new();
my %relay = map { $_ => $t->run_relay(name => $_) } qw(a b c);

my %GROUP = (
    least  => 'least_conn; server %a weight=2; server %b; server %c backup;',
    equal  => 'least_conn; server %a; server %b;',
    max    => 'server %a max_conns=2; server %b max_conns=1 backup;',
    spread => 'least_conn; server %a max_conns=1; server %b;',
    aside  => 'server %a max_conns=1; server %b fail_timeout=1h;',
);

my $groups = join('', map { "    upstream $_ { $GROUP{$_} }\n" }
    sort keys %GROUP);
$groups =~ s/%(\w)/127.0.0.1:%%PORT_$1%%/g;

my $servers = join('', map { <<"EOF" } sort keys %GROUP);
    server {
        listen      127.0.0.1:%%PORT_$_%%;
        protocol    smtp;
        proxy_pass  $_;
    }
EOF

$t->conf(<<"EOF");
worker_processes  3;

mail {
    server_name  edge.example.com;
    policy       on;
    policy_auth  off;

$groups
$servers
}
EOF
$t->run_nginx();


# sessions that stay where they are, in a transaction

sub open_ones {
    my ($where, $n) = @_;

    my @sessions;

    for (1 .. $n) {
        my $c = $t->session($where);
        $c->{said} = $c->cmd('MAIL FROM:<s@example.com>');
        push @sessions, $c;
    }

    return @sessions;
}


sub open_now {
    return join(' ', map { "$_=" . $relay{$_}->stats()->{open} }
        grep { $relay{$_}->stats()->{open} } sort keys %relay);
}


sub nothing_open {
    ok($t->wait_for(sub { open_now() eq '' }), 'all are closed');
}


my @c = open_ones('least', 9);
is(open_now(), 'a=6 b=3', 'least_conn: by weight');
$_->quit() for splice(@c, 0, 9);
nothing_open();

@c = open_ones('equal', 4);
is(open_now(), 'a=2 b=2', 'least_conn: equal weights');

# one of them has left

(shift @c)->quit();
ok($t->wait_for(sub { open_now() =~ /=1/ }), 'one is closed');
push @c, open_ones('equal', 1);
is(open_now(), 'a=2 b=2', 'the next one goes where one has left');
$_->quit() for splice(@c);
nothing_open();

# max_conns, and what it makes of the backup and of one too many

@c = open_ones('max', 3);
is(open_now(), 'a=2 b=1', 'max_conns: two, then the backup');
my ($no) = open_ones('max', 1);
like($no->{said}, qr/^451 4\.4\.1 /, 'all have as many as they may: 451');
(shift @c)->quit();
ok($t->wait_for(sub { open_now() eq 'a=1 b=1' }), 'one is closed');
like($no->cmd('MAIL FROM:<s@example.com>'), qr/^250 /, 'and another begins');
is(open_now(), 'a=2 b=1', 'in its place');
$_->quit() for $no, splice(@c);
nothing_open();

@c = open_ones('spread', 4);
is(open_now(), 'a=1 b=3', 'max_conns with least_conn');
$_->quit() for splice(@c);
nothing_open();

# that one has no more to give is no reason to ask one that is set aside

$relay{b}->set(greeting => 'close');
my ($one, $none) = open_ones('aside', 2);
is(open_now(), 'a=1', 'max_conns: one has as many as it may');
like($none->{said}, qr/^451 4\.4\.1 /, 'and the other has failed: 451');
my $asked = $relay{b}->stats()->{total};
like($none->cmd('MAIL FROM:<s@example.com>'), qr/^451 4\.4\.1 /,
    'the next one as well');
is($relay{b}->stats()->{total}, $asked, 'what is set aside is not asked');
$_->quit() for $one, $none;
$relay{b}->set(greeting => undef);
nothing_open();

# a worker that is killed gives back what it had counted

@c = open_ones('max', 3);
my $pids = join(' ', sort $t->worker_pids());
kill('KILL', $_) for $t->worker_pids();
ok($t->wait_for(sub { my @now = $t->worker_pids();
    @now == 3 && join(' ', sort @now) ne $pids
    && open_now() eq '' }), 'all workers are killed, and new ones there');
$t->disconnect($_) for @c;

@c = open_ones('max', 3);
is(open_now(), 'a=2 b=1', 'their connections are not counted any more');
$_->quit() for splice(@c);

$t->allow(qr/exited on signal 9/);
$t->done();
