#!/usr/bin/perl

# geo: networks, the longest one, default, include, delete; the same as
# nginx's own geo of http for many addresses; clients' own addresses.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Test::More;

use MailPolicy;

my $t = MailPolicy->new();
my $relay = $t->run_relay(name => 'relay');

srand(1);

sub ipv4 { return join('.', map { int(rand(256)) } 1 .. 4) }

sub ipv6 {
    return join(':', '2001', 'db8', map { sprintf('%x', rand(4)) } 1 .. 6);
}

my %network;

while (keys %network < 300) {
    my $bits = 1 + int(rand(32));
    $network{ipv4() . "/$bits"} = "v4-" . keys %network;
    $network{ipv6() . '/' . (20 + int(rand(108)))} = "v6-" . keys %network;
}

# addresses without their low bits, each once

my $networks = join('', map { "$_ $network{$_};\n" } sort keys %network);

$t->write_file('networks', <<"EOF" . $networks);
10.0.0.0/8        ten;
10.1.0.0/16       "ten one";
10.1.2.3          host;
10.2.0.0/16       deleted;
10.2.3.0/24       kept;
delete            10.2.0.0/16;
192.0.2.0/24      old;
192.0.2.0/24      new;
2001:db8::/32     doc;
2001:db8:1::/48   "doc one";
::1               loopback;
255.255.255.255   none;
0.0.0.0/1         "\$half";
EOF

$t->conf(<<'EOF');
mail {
    server_name  edge.example.com;
    policy       on;
    policy_auth  off;
    max_errors   100000;
    proxy_pass   127.0.0.1:%%PORT_relay%%;

    map $sender_local $address { "~^\"?([^\"]*)\"?$" $1; }

    geo $address $geo { default default; include %%DIR%%/networks; }
    geo $address $no_default { 10.0.0.0/8 ten; }
    geo $place { default out; 127.0.0.0/24 near; 127.0.0.2 two; }

    map $place $says { two "it is two"; default $place; }

    log_format  geo '$geo|$no_default|$place|$says';
    access_log  %%DIR%%/geo.log geo;

    server {
        listen    127.0.0.1:%%PORT_smtp%%;
        listen    unix:%%DIR%%/socket;
        protocol  smtp;
    }

    server {
        listen            127.0.0.1:%%PORT_proxied%% proxy_protocol;
        protocol          smtp;
        set_real_ip_from  127.0.0.1;
        access_log        %%DIR%%/proxied.log geo;
    }
}

http {
    geo $arg_a $geo { default default; include %%DIR%%/networks; }

    access_log off;

    server {
        listen 127.0.0.1:%%PORT_http%%;
        keepalive_requests 100000;

        location / { return 200 "$geo\n"; }
    }
}
EOF
$t->run_nginx();


# what the log says of these addresses

sub logged {
    my @addresses = @_;

    my $c = $t->session('smtp');

    for my $address (@addresses) {
        $c->cmd("MAIL FROM:<\"$address\"\@example.com>");
        $c->cmd('RSET');
    }

    $c->quit();

    my @lines = split(/\n/, $t->read_file('geo.log'));
    return @lines[@lines - @addresses .. $#lines];
}


sub http {
    my $http = $t->client('http');

    return map {
        $http->send_raw("GET /?a=$_ HTTP/1.1\r\nHost: x\r\n\r\n");
        while (($http->read_line() // die "no answer\n") ne "\r\n") { }
        $http->read_line() =~ s/\n//r;
    } @_;
}


is((logged('10.9.9.9'))[0], 'ten|ten|near|near', 'a network');
is((logged('11.0.0.0'))[0] =~ s/.*?\|//r, '-|near|near', 'no default');

my @addresses = (qw(10.0.0.0 10.255.255.255 10.1.0.1 10.1.2.3 10.1.2.4
    10.2.0.1 10.2.3.4 192.0.2.7 128.0.0.1 255.255.255.255 2001:db8::
    2001:db8:1::5 2001:db8:2::5 ::1 ::2 ::ffff:10.1.2.3 ::ffff:192.0.2.1
    nonsense 10.1.2 10.1.2.3.4 1:2), map({ (ipv4(), ipv6()) } 1 .. 250),
    map({ s{/.*}{}r } sort keys %network));

my @got = map { s/\|.*//r } logged(@addresses);
my @want = http(@addresses);

is_deeply(\@got, \@want, scalar(@got) . ' addresses as in http');
cmp_ok(scalar(keys %{ { map { $_ => 1 } @got } }), '>', 100,
    'many of the networks were hit');
is($got[7], 'new', 'a network twice: the last one');
is($got[5], 'ten', 'a network that was deleted');


# clients' own addresses

for my $from (qw(127.0.0.1 127.0.0.2 127.0.1.1)) {
    my $c = $t->session('smtp', from => $from);
    $c->cmd('MAIL FROM:<>');
    $c->cmd('RSET');
}

is($t->read_file('geo.log') =~ s/.*\n(?=(?:.*\n){3}\z)//sr,
    "none|-|near|near\nnone|-|two|it is two\nnone|-|out|out\n",
    '$remote_addr');

my $c = $t->session(undef, path => $t->dir() . '/socket');
$c->cmd('MAIL FROM:<>');
$c->cmd('RSET');
like($t->read_file('geo.log'), qr/\|out\|out\n\z/, 'a client at a unix socket');

$c = $t->client('proxied');
$c->send_raw("PROXY TCP4 127.0.0.2 127.0.0.1 1 2\r\n");
$c->greeting();
$c->ehlo();
$c->cmd('MAIL FROM:<>');
$c->cmd('RSET');
like($t->read_file('proxied.log'), qr/\|two\|it is two\n\z/,
    'behind a proxy: the client itself');

like($t->error_log(), qr/duplicate network "192\.0\.2\.0\/24"/,
    'a network twice is a warning');

$t->done();
