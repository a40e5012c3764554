#!/usr/bin/perl

# policy_status: the store, and the relays with what all workers know of them,
# as JSON; what it says as relays go away and come back.  Which format is given
# to whom, and with what headers, is in status_format.t.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use JSON::PP ();
use Test::More;

use MailPolicy;

my $t = MailPolicy->new();
my $redis = $t->run_redis();
my $relay = $t->run_relay(name => 'relay');

my $http = <<'EOF';
http {
    server {
        listen  127.0.0.1:%%PORT_http%%;

        location / {
            policy_status;
        }

        location /named {
            policy_status  json;
        }
    }
}
EOF

$t->conf(<<'EOF' . $http);
worker_processes  2;

mail {
    server_name   edge.example.com;
    policy_redis  redis://127.0.0.1:%%PORT_redis%%;

    upstream outbound {
        server  127.0.0.1:%%PORT_relay%%  weight=3 max_conns=5;
        server  127.0.0.1:%%PORT_gone%%   max_fails=1 fail_timeout=60s;
        server  127.0.0.1:%%PORT_spare%%  backup;
        server  127.0.0.1:%%PORT_down%%   down;
    }

    policy_limit  client  key=$client_net  messages=100/1h;

    server {
        listen       127.0.0.1:%%PORT_smtp%%;
        protocol     smtp;
        policy       on;
        policy_auth  off;
        proxy_pass   outbound;
    }
}
EOF
$t->run_nginx();

my $status = status();

is($status->{mail}, JSON::PP::true, 'there is mail');
like($status->{time}, qr/^\d{4}-\d\d-\d\dT/, 'the time');

ok($t->wait_for(sub { status()->{store}{state} eq 'up' }), 'Redis is up');
is(status()->{store}{name}, 'redis://127.0.0.1:' . $t->port('redis'),
    'and has a name');

is_deeply([ map { $_->{name} } @{ $status->{upstreams} } ], [ 'outbound' ],
    'one group');

my %peers = peers();
is($peers{relay}{weight}, 3, 'weight');
is($peers{relay}{server}, '127.0.0.1:' . $t->port('relay'), 'server');
is($peers{spare}{backup}, JSON::PP::true, 'a backup');
is($peers{relay}{backup}, JSON::PP::false, 'none');
is($peers{$_->[0]}{state}, $_->[1], "$_->[0] is $_->[1]")
    for [ 'relay', 'up' ], [ 'gone', 'up' ], [ 'spare', 'up' ],
        [ 'down', 'down' ];

my @clients = map { $t->session('smtp') } 1 .. 5;

for my $c (@clients) {
    like($c->cmd('MAIL FROM:<a@example.com>'), qr/^250 /, 'MAIL');
}

%peers = peers();
is($peers{relay}{active}, 5, 'connections in use');
is($peers{relay}{state}, 'busy', 'and no more are allowed');
is($peers{gone}{state}, 'failed', 'one does not answer');
is($peers{gone}{fails}, 1, 'has failed once');
is(status()->{sessions}{active}, 5, 'sessions');

$_->quit() for @clients;

ok($t->wait_for(sub { my %p = peers(); $p{relay}{active} == 0 }),
    'none is in use any more');
is({ peers() }->{relay}{state}, 'up', 'and it can be used again');

$redis->stop();

ok($t->wait_for(sub { status()->{store}{state} eq 'away' }), 'Redis is away');

is(status('/named')->{mail}, JSON::PP::true, 'policy_status json');
like($t->http_get('http', '/', '-I'),
    qr/^HTTP\/1.1\ 200.*^Content-Type:\ application\/json/xms,
    'HEAD');
like($t->http_get('http', '/', '-i', '-d', 'x'), qr/^HTTP\/1.1 405/, 'not POST');

$t->allow(qr/\[error\].*connect\(\) failed/);
$t->stop();

# without mail, and bad configuration

$t->conf('second', $http);
$t->run_nginx('second');
is(status()->{mail}, JSON::PP::false, 'no mail{}: that is said');

like($t->http_get('http', '/?format=prometheus'),
    qr/\A(?:\#.*\n)*nginx_mail_policy_info\{.*\}\ 1\n\z/x,
    'Prometheus knows that nginx is there');

my ($good, $output) = $t->check_conf($http =~ s/policy_status;/policy_status xml;/r);
ok(!$good, 'an unknown format');
like($output, qr/"policy_status xml" is unknown, write .* "json", "html" or/,
    'and what to write instead');

($good, $output) = $t->check_conf($http =~ s/policy_status;/policy_status; policy_status html;/r);
ok(!$good, 'two in a location');
like($output, qr/"policy_status" directive is duplicate/, 'that is said');

$t->done();


sub status {
    my ($path) = @_;

    return JSON::PP->new()->utf8()->decode($t->http_get('http', $path // '/'));
}


# by the names of their ports

sub peers {
    my %name = map { ('127.0.0.1:' . $t->port($_) => $_) }
        qw(relay gone spare down);

    return map { ($name{ $_->{address} } => $_) }
        @{ status()->{upstreams}[0]{peers} };
}
