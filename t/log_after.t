#!/usr/bin/perl

# What is refused behind a transaction is none of it: the envelope that
# "if=" sees is empty then, and not what is left of memory that was freed.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Test::More;

use MailPolicy;

my $t = MailPolicy->new();
$t->run_relay(name => 'relay');

$t->conf(<<'EOF');
mail {
    server_name  edge.example.com;
    policy       on;
    policy_auth  off;
    proxy_pass   127.0.0.1:%%PORT_relay%%;

    map $sender_domain$recipient_domain $of_it {
        default  1;
        ""       "";
    }

    access_log  %%DIR%%/all.log postfix;
    access_log  %%DIR%%/sender.log postfix if=$sender;
    access_log  %%DIR%%/map.log postfix if=$of_it;

    server {
        listen    127.0.0.1:%%PORT_in%%;
        protocol  smtp;
    }
}
EOF
$t->run_nginx();


sub lines {
    my ($file) = @_;

    return $t->read_file($file) =~ /: ((?:NOQUEUE|[0-9A-F]+): \w+)/g;
}


my $c = $t->session('in');

like($c->cmd('NONSENSE'), qr/^5/, 'refused in front of it');

like($c->cmd('MAIL FROM:<a@example.net>'), qr/^250 /, 'MAIL');
like($c->cmd('RCPT TO:<b@example.net>'), qr/^250 /, 'RCPT');
like($c->cmd('NONSENSE'), qr/^5/, 'refused within it');
like($c->cmd('RSET'), qr/^250 /, 'its end');

like($c->cmd('NONSENSE'), qr/^5/, 'refused behind it');
$c->quit();

my @within = ('NOQUEUE: reject', 'NOQUEUE: client');

is_deeply([ lines('all.log') ],
    [ 'NOQUEUE: reject', @within, 'NOQUEUE: reject' ], 'all of them');
is_deeply([ lines($_) ], \@within, "$_: those within it")
    for qw(sender.log map.log);

$t->done();
