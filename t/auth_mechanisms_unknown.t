#!/usr/bin/perl

# SCRAM-SHA-256 with logins that nobody has: they are given a salt as others
# are, always the same one, and as many iterations.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Digest::SHA qw(hmac_sha256);
use MIME::Base64 qw(decode_base64);
use Test::More;

use MailPolicy;
use MailPolicy::Relay::Sasl;
use MailPolicy::Sasl;

my $t = MailPolicy->new();
my $relay = $t->run_relay(name => 'relay');
my $PASSWORD = 'a password';

# all of a kind, as a migration would have them
my @records = map { "u$_\@example.com:" . MailPolicy::Sasl::secret($PASSWORD,
    sprintf('16 octets no %3d', $_), 5000) . "\n" } 1 .. 8;

$t->write_file('alike', join('', @records));
$t->write_file('cheaper', 'v@example.com:'
    . MailPolicy::Sasl::secret($PASSWORD, 'another 16 octet', 4096) . "\n");

$t->conf(<<'EOF');
mail {
    server_name            localhost;
    policy                 on;
    policy_auth_plaintext  on;
    policy_auth_methods    scram-sha-256;
    proxy_pass             127.0.0.1:%%PORT_relay%%;

    server {
        listen       127.0.0.1:%%PORT_alike%%;
        protocol     smtp;
        policy_auth  file:%%DIR%%/alike;
    }

    server {
        listen       127.0.0.1:%%PORT_both%%;
        protocol     smtp;
        policy_auth  file:%%DIR%%/alike file:%%DIR%%/cheaper;
    }
}
EOF
$t->run_nginx();

my $INVALID = '535 5.7.8 Authentication credentials invalid';
my $DONE = '235 2.7.0 Authentication successful';


sub told {
    my ($user, $where) = @_;

    my $sasl = MailPolicy::Sasl->new('SCRAM-SHA-256',
        user => $user, password => $PASSWORD);
    my $reply = $sasl->login($t->session($where // 'alike'));
    my ($salt, $iterations) = ($sasl->challenges())[1] =~ /s=(.*),i=(\d+)$/;

    return { reply => $reply, salt => $salt, i => $iterations,
        len => length decode_base64($salt),
        challenges => scalar $sasl->challenges() };
}

my @known = map { told("u$_\@example.com") } 1 .. 3;
my @unknown = map { told("n$_\@example.com") } 1 .. 8;

is($_->{reply}, $DONE, 'AUTH-14 known') for @known;
is_deeply([ @$_{qw(reply i len challenges)} ], [ $INVALID, 5000, 16, 2 ],
    'AUTH-14 unknown: refused at the end, iterations and salt as of others')
    for @unknown;
is($_->{len}, 16, 'AUTH-14 known: as long') for @known;

my %salts = map { $_->{salt} => 1 } @known, @unknown;
is(scalar keys %salts, 11, 'AUTH-14 no two have the same salt');
is(told("n$_\@example.com")->{salt}, $unknown[$_ - 1]{salt},
    'AUTH-14 the same one each time') for 1 .. 8;


# nginx' ngx_murmur_hash2()

sub murmur {
    my ($text) = @_;

    my $M = 0x5bd1e995;
    my $h = length $text;

    while ($text =~ s/^(....)//s) {
        my $k = unpack('V', $1) * $M & 0xffffffff;

        $k = ($k ^ $k >> 24) * $M & 0xffffffff;
        $h = $h * $M & 0xffffffff ^ $k;
    }

    $h = ($h ^ unpack('V', pack 'a4', $text)) * $M & 0xffffffff
        if length $text;
    $h = ($h ^ $h >> 13) * $M & 0xffffffff;

    return $h ^ $h >> 15;
}

# where records are of two costs, nobody can tell which one is whose

my @logins = map { "n$_\@example.com" } 1 .. 24;
my @costs = map { told($_, 'both')->{i} } @logins;

is(murmur('abcde'), 1594468574, 'murmur');
is(join(' ', sort keys %{ { map { $_ => 1 } @costs } }), '4096 5000',
    'AUTH-14 two files: unknown logins look like those of both');
isnt("@costs", join(' ', map { (5000, 4096)[murmur($_) % 2] } @logins),
    'AUTH-14 two files: a client cannot know like those of which');
is_deeply([ map { told($_, 'both')->{i} } @logins ], \@costs,
    'AUTH-14 two files: the same each time');

# edges that share a Redis have the same, and it does not tell the password of
# Redis to somebody who tries a few millions

$t->conf('shared', <<'EOF');
mail {
    policy_redis           redis://:canary-redis@127.0.0.1:1;
    policy                 on;
    policy_auth            file:%%DIR%%/alike;
    policy_auth_methods    scram-sha-256;
    policy_auth_plaintext  on;
    policy_auth_delay      0;
    proxy_pass             127.0.0.1:%%PORT_relay%%;

    server {
        listen    127.0.0.1:%%PORT_shared%%;
        protocol  smtp;
    }
}
EOF
$t->run_nginx('shared');

my $shared = substr MailPolicy::Relay::Sasl::hi('canary-redis', 'mail_policy',
    100_000), 0, 20;

is(decode_base64(told('n1@example.com', 'shared')->{salt}),
    substr(hmac_sha256('n1@example.com',
        hmac_sha256('scram salt', $shared)), 0, 16),
    'AUTH-14 the same at all edges, and slow to try');

$t->reload();
is(told('n1@example.com')->{salt}, $unknown[0]{salt},
    'AUTH-14 and behind a reload');

$t->done();
