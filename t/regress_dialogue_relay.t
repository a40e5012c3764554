#!/usr/bin/perl

# What a second look at the dialogue found: a client that trickles behind the
# end of its chunks, a BDAT too long for its line, DATA for nobody, a group
# of which the one that could take a message is away.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Test::More;
use Time::HiRes qw(sleep time);

use MailPolicy;

my $t = MailPolicy->new();
my @CHUNKING = ('PIPELINING', '8BITMIME', 'SIZE', 'CHUNKING');

$t->run_relay(name => 'bdat', extensions => \@CHUNKING, bdat => 'hang');
$t->run_relay(name => 'good', extensions => \@CHUNKING,
    rcpt => { match => qr/bad@/, action => '550 5.1.1 no' });
$t->run_relay(name => 'able', extensions => [ '8BITMIME' ],
    connect => 'close');
$t->run_relay(name => 'unable', extensions => []);

$t->conf(<<'EOF');
mail {
    server_name  edge.example.com;
    policy       on;
    policy_auth  off;
    proxy_pass   127.0.0.1:%%PORT_good%%;

    upstream mixed {
        server  127.0.0.1:%%PORT_able%%    max_fails=0;
        server  127.0.0.1:%%PORT_unable%%  max_fails=0;
    }

    server {
        listen         127.0.0.1:%%PORT_hang%%;
        protocol       smtp;
        proxy_pass     127.0.0.1:%%PORT_bdat%%;
        proxy_timeout  1s;
    }

    server {
        listen      127.0.0.1:%%PORT_smtp%%;
        protocol    smtp;
    }

    server {
        listen      127.0.0.1:%%PORT_mixed%%;
        protocol    smtp;
        proxy_pass  mixed;
    }
}
EOF
$t->run_nginx();

sub session {
    my ($where) = @_;

    return $t->session($where);
}

# offered to both as long as no relay is known
my $mixed = session('mixed');

# each octet behind LAST began the relay's time anew

my $c = session('hang');
my $chunk = 'x' x 98 . "\r\n";

$c->pipeline('MAIL FROM:<a@example.com>', 'RCPT TO:<b@example.net>');
$c->send_raw("BDAT 100\r\n${chunk}BDAT 100 LAST\r\n$chunk");
$c->read_reply();

my $start = time();
my $octets;

while (time() - $start < 6) {
    $c->send_raw('N');
    $octets = $c->read_some(0.4);
    last if defined $octets;
}

like($octets // 'nothing', qr/^451 4\.4\.2 /,
    'RES-7 a chunk is not answered, the client trickles behind LAST');
cmp_ok(time() - $start, '<', 3, 'RES-7 in time');
$c->close();

# a line whose beginning was given up was not known for BDAT any more

for my $spaces (2036, 2037, 2048, 3000, 5000) {
    for my $cut (0, 1) {
        my $c = session('smtp');
        my $line = 'BDAT 80 LAST' . ' ' x $spaces;
        my $rest = "\r\nNOOP\r\nNOOP\r\n";

        $c->send_raw($line);
        sleep(0.03) if $cut;
        $c->send_raw($rest);

        my $name = "EXT-4 BDAT and $spaces spaces, cut $cut";

        like($c->read_reply(), qr/^501 5\.5\.2 /, $name);
        ok($c->wait_close(), "$name: closed");
    }
}

# DATA when all recipients were refused was for ever free

$c = session('smtp');
$c->pipeline('MAIL FROM:<a@example.com>', 'RCPT TO:<bad@example.net>');

my $count = 0;
$count++ while $count < 1000 && $c->cmd('DATA') =~ /^554 5\.5\.1 /;
cmp_ok($count, '<', 200, 'RES-4 DATA without a valid recipient ends');
cmp_ok($count, '>', 50, 'RES-4 but not at once');

# a permanent refusal, though a relay that could take it was only away

like($mixed->cmd('MAIL FROM:<a@example.com> BODY=8BITMIME'),
    qr/^451 4\.4\.1 /, 'EXT-2 the one of the group that is able is away');

$t->done();
