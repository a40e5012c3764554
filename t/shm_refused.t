#!/usr/bin/perl

# A zone that is full of keys which are over a limit: those below theirs are
# counted all the same.  Otherwise who tries a thousand logins, once each,
# switches all limits off for as long as those attempts count.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Test::More;

use MailPolicy;
use MailPolicy::Limits qw(send_one);

use constant LOGINS => 1500;

my $t = MailPolicy->new();
my $relay = $t->run_relay(name => 'relay', store => 0);

$t->write_file('users', "u\@example.com:{PLAIN}secret\n");

$t->conf(<<'EOC');
mail {
    policy_zone            256k;
    policy                 on;
    policy_auth_plaintext  on;
    max_errors             1000000;
    proxy_pass             127.0.0.1:%%PORT_relay%%;

    server {
        listen        127.0.0.1:%%PORT_login%%;
        protocol      smtp;
        policy_auth   file:%%DIR%%/users;
        policy_limit  guess   key=$sasl_username  auth_failures=1/1h;
    }

    server {
        listen        127.0.0.1:%%PORT_smtp%%;
        protocol      smtp;
        policy_auth   off;
        policy_limit  sender  key=$sender         messages=3/1h;
    }
}
EOC
$t->run_nginx();


sub session {
    my ($where) = @_;

    return $t->session($where);
}


my $c = session('login');
my %count;

$count{ substr($c->auth_plain("n$_", 'x'), 0, 3) }++ for 1 .. LOGINS;
is_deeply(\%count, { 535 => LOGINS }, 'as many logins as the zone has no '
    . 'room for, each at its limit');
is(substr($c->auth_plain('n' . LOGINS, 'y'), 0, 3), 454, 'and over it');

$c = session('smtp');
my @replies;

for my $n (1 .. 6) {
    push @replies, substr(send_one($c, 'alice@example.com'), 0, 3);
    send_one($c, "other$n\@example.com");
}

is("@replies", '250 250 250 450 450 450', 'a sender is counted nevertheless');

$t->done();
