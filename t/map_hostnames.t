#!/usr/bin/perl

# map with hostnames: *.example.com, .example.com, example.*; the longest one;
# the same as nginx's own map of http for many names.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Test::More;

use MailPolicy;

my $t = MailPolicy->new();
my $relay = $t->run_relay(name => 'relay');

$t->write_file('hosts', <<'EOF');
hostnames;
default          default;
example.com      exact;
*.example.com    below;
.example.net     "it and below";
*.a.example.com  "below a";
b.a.example.com  "exact b";
www.*            www;
mail.example.*   mail;
*.com            com;
\default         word;
x.org.           "with a full stop";
EOF

$t->conf(<<'EOF');
mail {
    server_name  edge.example.com;
    policy       on;
    policy_auth  off;
    max_errors   100000;
    proxy_pass   127.0.0.1:%%PORT_relay%%;

    map $sender_domain $by_host { include %%DIR%%/hosts; }
    map $helo          $by_helo { include %%DIR%%/hosts; }

    map $sender_domain $literal { *.example.com literal; default none; }

    log_format  maps '$by_host|$by_helo|$literal';
    access_log  %%DIR%%/maps.log maps;

    server {
        listen    127.0.0.1:%%PORT_smtp%%;
        protocol  smtp;
    }
}

http {
    map $arg_a $by_host { include %%DIR%%/hosts; }

    access_log off;

    server {
        listen 127.0.0.1:%%PORT_http%%;
        keepalive_requests 100000;

        location / { return 200 "$by_host\n"; }
    }
}
EOF
$t->run_nginx();


# what the log says of these domains

sub logged {
    my ($helo, @domains) = @_;

    my $c = $t->session('smtp', helo => $helo);

    for my $domain (@domains) {
        $c->cmd("MAIL FROM:<a\@$domain>");
        $c->cmd('RSET');
    }

    $c->quit();

    my @lines = split(/\n/, $t->read_file('maps.log'));
    return @lines[@lines - @domains .. $#lines];
}


for my $case (
    [ 'example.com', 'exact' ],
    [ 'EXAMPLE.com', 'exact' ],
    [ 'www.example.com', 'below' ],
    [ 'x.y.example.com', 'below' ],
    [ 'example.net', 'it and below' ],
    [ 'x.example.net', 'it and below' ],
    [ 'a.example.com', 'below' ],
    [ 'x.a.example.com', 'below a' ],
    [ 'b.a.example.com', 'exact b' ],
    [ 'x.b.a.example.com', 'below a' ],
    [ 'www.example.org', 'www' ],
    [ 'mail.example.org', 'mail' ],
    [ 'mail.example.co.uk', 'mail' ],
    [ 'other.com', 'com' ],
    [ 'www.other.com', 'com' ],
    [ 'notexample.com', 'com' ],
    [ 'notexample.net', 'default' ],
    [ 'org', 'default' ],
    [ 'default', 'word' ],
) {
    my ($domain, $expected) = @$case;
    my ($line) = logged('client.example', $domain);

    is($line, "$expected|default|none", $domain);
}

is((logged('www.example.com.', 'x.example'))[0], 'default|below|none',
    'a full stop at the end of a name is left out');


# names at random; what http says of them

my @labels = qw(a b c www mail example com net org x);
my @names;

srand(1);
push @names, join('.', map { $labels[rand @labels] } 1 .. 1 + rand 5)
    for 1 .. 400;

my @got = map { s/\|.*//r } logged('client.example', @names);

my $http = $t->client('http');
my @want = map {
    $http->send_raw("GET /?a=$_ HTTP/1.1\r\nHost: x\r\n\r\n");
    while (($http->read_line() // die "no answer\n") ne "\r\n") { }
    $http->read_line() =~ s/\n//r;
} @names;

is_deeply(\@got, \@want, '400 names at random as in http');
cmp_ok(scalar(keys %{ { map { $_ => 1 } @got } }), '>', 5,
    'most of the keys were hit');

$t->done();
