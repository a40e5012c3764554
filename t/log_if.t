#!/usr/bin/perl

# access_log ... if=: what is empty or 0 is not logged; maps on what came of a
# transaction; one evaluation for all of a line.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Test::More;

use MailPolicy;

my $t = MailPolicy->new();
my $relay = $t->run_relay(name => 'relay');

$t->conf(<<'EOF');
mail {
    server_name  edge.example.com;
    policy       on;
    policy_auth  off;
    proxy_pass   127.0.0.1:%%PORT_relay%%;

    map $status $refused {
        default  1;
        250      0;
        ""       "";
    }

    map $sender_domain $wanted {
        zero.example   0;
        one.example    1;
        other.example  00;
    }

    map $msec $moment  { volatile; default "$msec"; }
    map $moment $again { volatile; default "$moment"; }

    log_format  line   '$sender $status';
    log_format  times  '$msec $moment $again $moment$again';

    access_log  %%DIR%%/refused.log line if=$refused;
    access_log  %%DIR%%/wanted.log  line if=$wanted;
    access_log  %%DIR%%/joined.log  line if=$refused$wanted;
    access_log  %%DIR%%/all.log     line;
    access_log  %%DIR%%/json.log    if=$refused;
    access_log  %%DIR%%/times.log   times;

    server {
        listen    127.0.0.1:%%PORT_smtp%%;
        protocol  smtp;
    }
}
EOF
$t->run_nginx();


sub mail {
    my ($from) = @_;

    my $c = $t->session('smtp');

    $c->send_mail($from, [ 'b@example.net' ], "x\n");
    $c->quit();
}


sub lines { return split(/(?<=\n)/, $t->read_file("$_[0].log")) }


mail($_) for qw(a@zero.example a@one.example a@other.example a@x.example);

$relay->set(mail => '550 5.1.8 no');
mail($_) for qw(r@zero.example r@one.example r@x.example);

$relay->set(mail => undef);

my $c = $t->session('smtp');
$c->cmd('MAIL FROM:<r@rset.example>');
$c->cmd('RSET');
$c->quit();

is(join('', lines('all')), <<'EOF', 'no condition');
a@zero.example 250
a@one.example 250
a@other.example 250
a@x.example 250
r@zero.example 550
r@one.example 550
r@x.example 550
r@rset.example -
EOF

is(join('', lines('refused')), <<'EOF', 'by what came of it');
r@zero.example 550
r@one.example 550
r@x.example 550
EOF

is(join('', lines('wanted')), <<'EOF', 'empty and 0 are not logged, 00 is');
a@one.example 250
a@other.example 250
r@one.example 550
EOF

is(scalar(lines('joined')), 6, 'several variables are one text');
is(scalar($t->access_log('json.log')), 3, 'the built-in JSON');

for my $line (lines('times')) {
    like($line, qr/^(\S+) \1 \1 \1\1$/, 'the same everywhere in a line');
}

$t->done();
