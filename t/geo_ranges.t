#!/usr/bin/perl

# geo with ranges: within one another, default, delete; the same as nginx's
# own geo of http for many addresses.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Test::More;

use MailPolicy;

my $t = MailPolicy->new();
my $relay = $t->run_relay(name => 'relay');

srand(1);

sub text { return join('.', unpack('C4', pack('N', $_[0]))) }

# ranges with gaps; some have others within them, at an end or not

my (@ranges, @ends);
my $at = 3;

for my $n (1 .. 150) {
    my $first = $at + int(rand(3)) * int(rand(1 << 22));
    my $last = $first + int(rand(3)) * int(rand(1 << 22));

    $at = $last + 1;
    push @ranges, [ $first, $last, "r$n" ];
    push @ends, $first, $last;

    my $size = $last - $first;
    next if $size < 10 || rand() < 0.5;

    my $from = $first + (0, 1, int(rand($size / 2)))[rand 3];
    my $to = $last - (0, 1, int(rand($size / 2 - 1)))[rand 3];

    next if $from == $first && $to == $last;
    push @ranges, [ $from, $to, "within$n" ];
    push @ends, $from, $to;
}

my $ranges = join('', map { text($_->[0]) . '-' . text($_->[1])
    . " $_->[2];\n" } @ranges);

$t->write_file('ranges', <<"EOF" . $ranges);
ranges;
default                      default;
240.0.0.0-240.0.0.9          old;
240.0.0.0-240.0.0.9          new;
240.1.0.0-240.1.0.9          deleted;
240.1.1.0-240.1.1.9          kept;
delete                       240.1.0.0-240.1.0.9;
239.0.0.0-239.0.0.0          one;
238.0.0.0-238.0.255.255      large;
238.0.0.1-238.0.0.1          small;
EOF

$t->conf(<<'EOF');
mail {
    server_name  edge.example.com;
    policy       on;
    policy_auth  off;
    max_errors   100000;
    proxy_pass   127.0.0.1:%%PORT_relay%%;

    map $sender_local $address { "~^\"?([^\"]*)\"?$" $1; }

    geo $address $geo { include %%DIR%%/ranges; }

    geo $address $top {
        ranges;
        255.255.255.254-255.255.255.255  top;
        0.0.0.0-0.0.0.1                  bottom;
        0.0.0.0-0.0.0.0                  zero;
    }

    geo $place {
        ranges;
        127.0.0.2-127.0.0.9  near;
        127.0.0.3-127.0.0.3  three;
    }

    log_format  geo '$geo|$top|$place';
    access_log  %%DIR%%/geo.log geo;

    server {
        listen    127.0.0.1:%%PORT_smtp%%;
        protocol  smtp;
    }
}

http {
    geo $arg_a $geo { include %%DIR%%/ranges; }

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


my @addresses = (qw(239.0.0.0 239.0.0.1 240.0.0.0 240.0.0.9 240.0.0.10
    240.1.0.0 240.1.1.0 238.0.0.0 238.0.0.1 238.0.0.2 238.0.255.255 238.1.0.0
    1.2.3 nonsense ::ffff:240.0.0.1 2001:db8::1),
    map { (text($_ - 1), text($_), text($_ + 1)) } @ends);

my @got = map { s/\|.*//r } logged(@addresses);

my $http = $t->client('http');
my @want = map {
    $http->send_raw("GET /?a=$_ HTTP/1.1\r\nHost: x\r\n\r\n");
    while (($http->read_line() // die "no answer\n") ne "\r\n") { }
    $http->read_line() =~ s/\n//r;
} @addresses;

is_deeply(\@got, \@want, scalar(@got) . ' addresses as in http');
cmp_ok(scalar(keys %{ { map { $_ => 1 } @got } }), '>', 150,
    'all kinds of ranges were hit');
is($got[2], 'new', 'a range twice: the last one');

is(join(' ', map { (split(/\|/))[1] } logged(qw(0.0.0.0 0.0.0.1 0.0.0.2
    255.255.255.253 255.255.255.254 255.255.255.255 nonsense))),
    'zero bottom - - top top top', 'the ends of the world');

for my $from (qw(127.0.0.1 127.0.0.2 127.0.0.3 127.0.0.9 127.0.0.10)) {
    my $c = $t->session('smtp', from => $from);
    $c->cmd('MAIL FROM:<>');
    $c->cmd('RSET');
}

is(join(' ', map { (split(/\|/))[2] }
    (split(/\n/, $t->read_file('geo.log')))[-5 .. -1]),
    '- near three near -', '$remote_addr');

$t->done();
