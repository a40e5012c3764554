#!/usr/bin/perl

# Routes that are no group but an address: "address:port", "[address]:port",
# "unix:/path" and "name:port", which a resolver is asked for.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Test::More;
use Time::HiRes qw(sleep);

use MailPolicy;
use MailPolicy::Dns;

my $t = MailPolicy->new();
my %relay = map { $_ => $t->run_relay(name => $_) } qw(a b);
my $redis = $t->run_redis();
my $dns = MailPolicy::Dns->new(dir => $t->dir(), port => $t->port('dns'),
    a => { 'b.relay.example' => '127.0.0.1', 'slow.example' => '127.0.0.1',
           'slow2.example' => '127.0.0.1', 'silent.example' => 'silent' },
    delay => 0.2);
push @{ $t->{servers} }, $dns;

$t->conf(<<'EOF');
mail {
    server_name    edge.example.com;
    policy_redis   redis://127.0.0.1:%%PORT_redis%% timeout=5s cache=0;
    access_log     %%DIR%%/access.log;
    policy         on;
    policy_auth    off;

    upstream outbound { server 127.0.0.1:%%PORT_a%%; }

    policy_lookup  $by_sender     route:$sender_domain     outbound;
    policy_lookup  $by_recipient  route:$recipient_domain  outbound;

    server {
        listen        127.0.0.1:%%PORT_sender%%;
        protocol      smtp;
        proxy_pass    $by_sender;
        resolver      127.0.0.1:%%PORT_dns%% ipv6=off;
        resolver_timeout  1s;
    }

    server {
        listen        127.0.0.1:%%PORT_recipient%%;
        protocol      smtp;
        proxy_pass    $by_recipient;
        resolver      127.0.0.1:%%PORT_dns%% ipv6=off;
        resolver_timeout  1s;
    }

    server {
        listen        127.0.0.1:%%PORT_plain%%;
        protocol      smtp;
        proxy_pass    $by_sender;
    }
}
EOF

$t->run_nginx();

my %seen;

sub taken {
    my $taken = '';

    for my $name (sort keys %relay) {
        my $now = $relay{$name}->stats()->{messages};
        $taken .= $name x ($now - ($seen{$name} // 0));
        $seen{$name} = $now;
    }

    return $taken;
}


sub codes { return join(' ', map { substr($_, 0, 3) } @_) }


sub message {
    my ($where, $from, @to) = @_;

    my $c = ref $where ? $where : $t->session($where);
    my @replies = $c->send_mail($from, @to ? \@to : [ 'r@example.net' ],
        "x\n");
    $c->quit() unless ref $where;
    return codes(@replies) . ' ' . taken();
}


sub route { $redis->cmd('SET', "mail:route:$_[0]", $_[1]) }

my ($a, $b) = map { $t->port($_) } qw(a b);

# addresses

route('b.example', "127.0.0.1:$b");
is(message('sender', 's@b.example'), '250 250 354 250 b', 'address:port');
is(message('sender', 's@b.example'), '250 250 354 250 b', 'once more');
is(message('sender', 's@a.example'), '250 250 354 250 a', 'the default');
is(message('recipient', 's@x.example', 'r@b.example', 'q@b.example'),
    '250 250 250 354 250 b', 'of recipients');
is(message('recipient', 's@x.example', 'r@b.example', 'q@a.example'),
    '250 250 452 354 250 b', 'another one behind it');

my $c = $t->session('recipient');
route('c.example', "127.0.0.1:$b");
is(codes($c->pipeline('MAIL FROM:<s@x.example>', 'RCPT TO:<1@b.example>',
    'RCPT TO:<2@c.example>', 'RCPT TO:<3@a.example>', 'DATA')),
    '250 250 250 452 354', 'pipelined, two keys of one address');
like($c->cmd("x\r\n."), qr/^250 /, 'accepted');
is(taken(), 'b', 'by it');

for my $case ([ 'unix:/nowhere.sock' => '451 4.4.1' ],
    [ "[::1]:1" => '451 4.4.1' ], [ '127.0.0.1:1' => '451 4.4.1' ],
    [ '127.0.0.1' => '451 4.3.5' ], [ '127.0.0.1:' => '451 4.3.5' ],
    [ '127.0.0.1:99999' => '451 4.3.5' ], [ ":$b" => '451 4.3.5' ],
    [ "a b:$b" => '451 4.3.5' ], [ "127.0.0.1:$b\n" => '451 4.3.5' ],
    [ 'nowhere' => '451 4.3.5' ], [ '' => '451 4.3.5' ],
    [ 'unix:' => '451 4.3.5' ], [ '[::1' => '451 4.3.5' ])
{
    my ($route, $status) = @$case;

    route('bad.example', $route);
    my $other = $t->session('sender');
    like($other->cmd('MAIL FROM:<s@bad.example>'), qr/^\Q$status\E /,
        '"' . $route =~ s/\n/\\n/r . "\": $status");
    $other->quit();
}

# a server never relays to itself

route('us.example', '127.0.0.1:' . $t->port('sender'));
is(message('sender', 's@us.example'), '451 ', 'not to itself');

# names

route('name.example', "b.relay.example:$b");
is(message('sender', 's@name.example'), '250 250 354 250 b', 'name:port');
is(message('sender', 's@name.example'), '250 250 354 250 b', 'known');
route('other.example', "other.relay.example:$b");
is(message('plain', 's@other.example'), '451 ', 'no resolver: no route');

route('slow.example', "slow.example:$b");
is(codes($c->pipeline('MAIL FROM:<s@x.example>', 'RCPT TO:<1@slow.example>',
    'RCPT TO:<2@a.example>', 'RCPT TO:<3@slow.example>', 'DATA')),
    '250 250 452 250 354', 'a name is asked for: the first still decides');
like($c->cmd("x\r\n."), qr/^250 /, 'accepted');
is(taken(), 'b', 'by it');

route('unknown.example', "unknown.example:$b");
is(codes($c->pipeline('MAIL FROM:<s@x.example>', 'RCPT TO:<1@unknown.example>',
    'RCPT TO:<2@a.example>', 'RSET')), '250 451 250 250', 'no such name');
route('silent.example', "silent.example:$b");
is(codes($c->pipeline('MAIL FROM:<s@x.example>', 'RCPT TO:<1@silent.example>',
    'RCPT TO:<2@a.example>', 'RSET')), '250 451 250 250', 'no answer');
$c->quit();

# who does not wait for it

for my $end ('close', 'reset', "RSET\r\n", "QUIT\r\n") {
    my $other = $t->session('recipient');

    $other->send_raw("MAIL FROM:<s\@x.example>\r\nRCPT TO:<1\@silent.example>"
        . "\r\nRCPT TO:<2\@slow.example>\r\n");
    sleep(0.1);
    $end =~ /^[a-z]/ ? $other->$end() : $other->send_raw($end);
}

is(message('sender', 's@b.example'), '250 250 354 250 b', 'others are served');

# the log says where it went

like($t->read_file('access.log'),
    qr/"upstream_name":"127\.0\.0\.1:$b","upstream_addr":"127\.0\.0\.1:$b"/,
    'in the log');

# stopped meanwhile: sessions have their answer

my @waiting = map { $t->session('recipient') } 1 .. 2;
$_->send_raw("MAIL FROM:<s\@x.example>\r\nRCPT TO:<1\@silent.example>\r\n")
    for @waiting;
sleep(0.1);
$t->instance()->signal('QUIT');
is(codes(map { ($_->read_reply(), $_->read_reply()) } @waiting),
    '250 451 250 451', 'stopped gracefully');
$t->disconnect();
$t->allow(qr/connect\(\) to unix:/);
$t->done();
