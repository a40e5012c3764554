#!/usr/bin/perl

# What limits decide is counted: of each answer about a limit exactly one of
# its counters goes up, by two workers, at both front doors, and over a
# reload; and the boards say who was refused, and which keys are near.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use JSON::PP ();
use Test::More;
use Time::HiRes qw(sleep);

use MailPolicy;
use MailPolicy::Limits qw(send_one);
use MailPolicy::Policy;

my $t = MailPolicy->new();
my $redis = $t->run_redis();
my $relay = $t->run_relay(name => 'relay');
my $other = $t->run_relay(name => 'other');

$t->write_file('users', 'alice@example.com:' . $t->crypt('secret') . "\n");

# of each server; "wide" stands beside another one that refuses

my %servers = (
    defer   => 'policy_limit defer key=$sender messages=2/1h;
                policy_limit wide  key=$sender messages=100/1h;',
    reject  => 'policy_limit reject key=$sender recipients=2/1h
                             on_exceed=reject;',
    tarpit  => 'policy_limit tarpit key=$sender messages=120/1m,burst=1
                             on_exceed=tarpit;
                policy_limit beside key=$sender messages=100/1h;',
    long    => 'policy_limit long key=$sender messages=1/1h on_exceed=tarpit;',
    report  => 'policy_limit report key=$sender messages=1/1h on_exceed=report;
                policy_limit share  key=$sender messages=1/1h enforce=0%;',
    relay   => 'policy_limit relay key=$sender messages=1/1h
                             on_exceed=relay:other;',
    bytes   => 'policy_limit bytes key=$sender bytes=1000/1d;',
    conns   => 'policy_limit conns key=$client_net connections=2/1h;',
    guess   => 'policy_limit guess key=$client_net auth_failures=1/1h;
                policy_auth file:%%DIR%%/users;',
    one     => '',
    two     => '',
    if      => 'policy_limit if key=$sender messages=1/1h if=$sasl_username;
                policy_limit empty key=$sasl_username messages=1/1h;',
);

sub servers {
    my ($edge, @names) = @_;

    return join('', map { <<"EOF" } @names);
    server {
        listen       127.0.0.1:%%PORT_${_}_$edge%%;
        protocol     smtp;
        policy       on;
        policy_auth  off;
        $servers{$_}
    }
EOF
}

sub conf {
    my ($edge, $redis, @names) = @_;

    my $servers = servers($edge, @names)
        =~ s/policy_auth  off;(?=[^}]*policy_auth)//gr;

    $t->conf($edge, <<"EOF");
worker_processes 2;
events { worker_connections 256; accept_mutex off; }
http {
    server {
        listen 127.0.0.1:%%PORT_http_$edge%%;
        location / { policy_status json; }
    }
}
mail {
    policy_redis           $redis;
    proxy_pass             127.0.0.1:%%PORT_relay%%;
    policy_auth_plaintext  on;
    policy_auth_delay      0;
    access_log             off;
    upstream other { server 127.0.0.1:%%PORT_other%%; }
    policy_limit           all key=\$sender messages=3/1h;

$servers
    server {
        listen        127.0.0.1:%%PORT_policy_$edge%%;
        protocol      policy;
        policy_limit  postfix key=\$sender messages=1/1h;
    }
}
EOF
    $t->run_nginx($edge);
}

conf('nginx', 'redis://127.0.0.1:%%PORT_redis%% timeout=5s', sort keys %servers);
conf('open', 'redis://127.0.0.1:%%PORT_gone%% timeout=200ms on_error=open',
    'defer');
conf('closed', 'redis://127.0.0.1:%%PORT_gone%% timeout=200ms on_error=closed',
    'defer');


sub status {
    my ($edge) = @_;

    return JSON::PP::decode_json($t->http_get('http_' . ($edge // 'nginx'),
        '/'));
}


# "name=count ..." of those that are not 0

sub counts {
    my ($limit, $edge) = @_;

    my @found = grep { $_->{name} eq $limit } @{ status($edge)->{limits} };

    return scalar(@found) . ' of that name' if @found != 1;
    return join(' ', map { "$_=$found[0]{$_}" }
        grep { $_ !~ /^name$/ && $found[0]{$_} } sort keys %{ $found[0] });
}


sub is_counted {
    my ($limit, $expected, $what, $edge) = @_;

    local $Test::Builder::Level = $Test::Builder::Level + 1;

    is(counts($limit, $edge), $expected, "$limit: $what");
}


sub session { return $t->session("$_[0]_" . ($_[1] // 'nginx')) }


my $NAMES = 'all beside bytes conns defer empty guess if long postfix reject '
    . 'relay report share tarpit wide';

sub names { join(' ', sort map { $_->{name} } @{ status()->{limits} }) }

is(names(), $NAMES, 'all are there from the start, once');
is_counted($_, '', 'with 0') for qw(all defer postfix);

# each action; a session asks at EHLO what is left, which is no decision

my $c = session('defer');
send_one($c, 'a@example.com') for 1 .. 4;
$c->quit();
is_counted('defer', 'defer=2 pass=2', 'each MAIL');
is_counted('wide', 'pass=4', 'by its own answer');

$c = session('reject');
send_one($c, 'a@example.com', map { "r$_\@example.net" } 1 .. 4);
is_counted('reject', 'pass=2 reject=2', 'each RCPT that it is asked for');

$c = session('tarpit');
send_one($c, 'a@example.com') for 1 .. 2;
is_counted('tarpit', 'pass=1 tarpit=1', 'a delay, and then it passes');
is_counted('beside', 'pass=2', 'once, too');

$c = session('long');
send_one($c, 'a@example.com');
$c->send_raw("MAIL FROM:<a\@example.com>\r\n");
ok($t->wait_for(sub { counts('long') =~ /tarpit/ }), 'long: it waits');
$c->close();
sleep(0.1);
is_counted('long', 'pass=1 tarpit=1', 'a client that does not wait for it');

$c = session('report');
send_one($c, 'a@example.com') for 1 .. 3;
is_counted('report', 'pass=1 would_reject=2', 'nobody is refused');
is_counted('share', 'pass=1 would_reject=2', 'nor outside of enforce=');

$c = session('relay');
send_one($c, 'a@example.com') for 1 .. 3;
is_counted('relay', 'pass=1 relay=2', 'goes elsewhere');

# other points

$c = session('bytes');
$c->send_mail('a@example.com', [ 'x@example.net' ], 'x' x 600) for 1 .. 2;
is_counted('bytes', 'defer=1 pass=3', 'the end of a message is one, too');

for (1 .. 3) {
    $c = $t->client('conns_nginx');
    $c->greeting();
    $c->read_reply() if $_ == 3;
    $c->close();
}
is_counted('conns', 'defer=1 pass=2', 'connections');

for my $password (qw(wrong wrong2)) {
    $c = session('guess');
    $c->auth_plain('alice@example.com', $password);
    $c->quit();
}
is_counted('guess', 'defer=1 pass=1', 'logins');

$c = session('if');
send_one($c, 'a@example.com');
is_counted($_, '', 'does not apply') for qw(if empty);

# a limit of all servers is one

for my $server (qw(one two one two)) {
    $c = session($server);
    send_one($c, 'all@example.com');
    $c->quit();
}
is_counted('all', 'defer=1 pass=3', 'of several servers');

my $p = MailPolicy::Policy->new($t, 'policy_nginx');
is($p->ask(), 'DUNNO', 'Postfix asks');
$p->message();
like($p->ask(), qr/^DEFER/, 'and is told');
is_counted('postfix', 'defer=1 pass=1', 'what Postfix asks');

# the boards

my $status = status();
my %refused = map { ("$_->{reason} $_->{who}" => $_->{count}) }
    @{ $status->{refused} };

is($refused{'limit defer a@example.com'}, 2, 'board: who is refused');
is($refused{'limit reject a@example.com'}, 2, 'board: another reason');
is($refused{'limit postfix alice@example.com'}, 1, 'board: by Postfix');
ok(!exists $refused{'limit report a@example.com'}, 'board: not what passes');
ok(!exists $refused{'limit tarpit a@example.com'}, 'board: nor what waited');

my ($near) = grep { $_->{limit} eq 'defer' } @{ $status->{near} };
is("$near->{unit} $near->{key} $near->{used}/$near->{max}",
    'messages a@example.com 2/2', 'board: what is full');
is(scalar(grep { $_->{limit} eq 'wide' } @{ $status->{near} }), 0,
    'board: not what is far');

# who comes again after a reload finds the same counters

$t->reload();
ok($t->wait_for(sub {
    my $s = session('defer');
    my $reply = send_one($s, 'b@example.com');
    $s->quit();
    return $reply =~ /^250/ && counts('defer') eq 'defer=2 pass=3';
}), 'reload: they go on');

is(names(), $NAMES, 'OUT-8 nothing that clients say is a name of a counter');

# nobody to ask

for my $edge (qw(open closed)) {
    $c = session('defer', $edge);
    like(send_one($c, 'a@example.com'), $edge eq 'open' ? qr/^250/ : qr/^451/,
        "$edge: as on_error says");
    is_counted('defer', 'error=1', "on_error=$edge", $edge);
    is(scalar @{ status($edge)->{near} }, 0, "$edge: nothing is near");
}

$t->disconnect();
$t->stop($_) for qw(nginx open closed);
$t->done();
