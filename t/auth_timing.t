#!/usr/bin/perl

# AUTH-15: a login that is not there, and a wrong password of one that is:
# the same octets, and the same time, for each mechanism and for users in a
# file and in Redis; and where a file has hashes of several costs.
#
# The trials of both kinds take turns on the same sessions.  Environment:
# TEST_TIMING (200): trials of each kind; from 5000 on the medians are to be
# within 5 %, below also within four standard errors of their difference.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use List::Util qw(max shuffle);
use Test::More;

use MailPolicy;
use MailPolicy::AuthTimes qw(error_of median);
use MailPolicy::Sasl;

my $COUNT = $ENV{TEST_TIMING} // 200;
my $USERS = 20;
my $WITHIN = 0.05;

# a hash takes longer, an exchange without one does not: seconds
my $SLOW = 0.0005;

my $t = MailPolicy->new();
my $redis = $t->run_redis();

# hashes that are quick, so that what else differs would be seen

my %HASH = (
    sha    => $t->crypt('secret', '$5$rounds=1000$somesalt$'),
    bcrypt => $t->crypt('secret', '$2b$04$abcdefghijklmnopqrstuu'),
    clear  => '{PLAIN}secret',
    scram  => MailPolicy::Sasl::secret('secret', 'sixteen octets..', 4096),
);

# by password four of five are slow, so the median is one of theirs; by SCRAM
# two have records, and half of those who have none are slow
my @MIXED = qw(bcrypt clear bcrypt scram bcrypt);

my @CASES = (
    [ 'file',  'sha',    qw(PLAIN LOGIN) ],
    [ 'file',  'bcrypt', qw(PLAIN LOGIN) ],
    [ 'file',  'clear',  qw(CRAM-MD5 SCRAM-SHA-256) ],
    [ 'file',  'scram',  qw(SCRAM-SHA-256) ],
    [ 'file',  'mixed',  qw(PLAIN LOGIN CRAM-MD5 SCRAM-SHA-256) ],
    [ 'redis', 'sha',    qw(PLAIN LOGIN) ],
    [ 'redis', 'clear',  qw(CRAM-MD5 SCRAM-SHA-256) ],
    [ 'redis', 'scram',  qw(SCRAM-SHA-256) ],
);

my $servers = '';

for my $case (@CASES) {
    my ($provider, $kind) = @$case;

    $provider eq 'file' ? write_users($kind) : set_users($kind);

    my $where = $provider eq 'file' ? "file:%%DIR%%/$kind" : 'redis';

    $servers .= <<"EOF";
    server {
        listen       127.0.0.1:%%PORT_${provider}_$kind%%;
        protocol     smtp;
        policy_auth  $where;
    }
EOF
}

$t->conf(<<"EOF");
error_log  %%DIR%%/error.log error;

thread_pool  default threads=2 max_queue=64;

mail {
    server_name  edge.example.com;

    policy_redis           redis://127.0.0.1:%%PORT_redis%% timeout=10s;
    policy                 on;
    policy_auth_plaintext  on;
    policy_auth_methods    plain login cram-md5 scram-sha-256;
    proxy_pass             127.0.0.1:25;
    access_log             off;
    max_errors             1000000;

    $servers
}
EOF
$t->run_nginx();

for my $case (@CASES) {
    my ($provider, $kind, @mechanisms) = @$case;
    compare($provider, $kind, $_) for @mechanisms;
}

$t->done();


sub user {
    my ($n, $kind) = @_;

    return sprintf('user%06d%s@example.com', $n, $kind);
}


sub hash_of {
    my ($n, $kind) = @_;

    return $HASH{ $kind eq 'mixed' ? $MIXED[$n % @MIXED] : $kind };
}


sub write_users {
    my ($kind) = @_;

    $t->write_file($kind, join('', map {
        user($_, $kind) . ':' . hash_of($_, $kind) . "\n"
    } 1 .. $USERS));
}


sub set_users {
    my ($kind) = @_;

    $redis->cmd('HSET', 'mail:user:{' . user($_, $kind) . '}', 'password',
        hash_of($_, $kind)) for 1 .. $USERS;
}


sub compare {
    my ($provider, $kind, $mechanism) = @_;

    my $name = "AUTH-15 $provider $kind $mechanism";
    my $times = MailPolicy::AuthTimes->new($t->port("${provider}_$kind"), 4);
    my %seconds = (wrong => [], unknown => []);
    my %said;

    # connections of the store, a first record
    $times->try($mechanism, user($_, $kind)) for 1 .. 8;

    for my $n (1 .. $COUNT) {
        for my $what (shuffle(qw(wrong unknown))) {
            my $number = $what eq 'wrong' ? $n % $USERS + 1 : 100_000 + $n;
            my ($said, $spent) = $times->try($mechanism,
                user($number, $kind));

            push @{ $seconds{$what} }, $spent;
            $said{$said}++;
        }
    }

    is(scalar keys %said, 1, "$name: the same octets in each trial")
        or diag(explain(\%said));
    like((keys %said)[0], qr/^535 5\.7\.8 /m, "$name: a failure");

    if ($kind eq 'mixed' && $mechanism ne 'CRAM-MD5') {
        same_mixture($name, $mechanism, \%seconds);
        return;
    }

    same_time($name, $seconds{wrong}, $seconds{unknown});
}


# Two kinds of records, one quick and one slow: of each the time, and how many
# of the unknown are taken for which.  By SCRAM a hash of bcrypt is no record.

sub same_mixture {
    my ($name, $mechanism, $seconds) = @_;

    my %part;

    for my $what (qw(wrong unknown)) {
        push @{ $part{$what}{ $_ < $SLOW ? 'quick' : 'slow' } }, $_
            for @{ $seconds->{$what} };
    }

    same_time("$name, the $_", $part{wrong}{$_} // [ 0 ],
        $part{unknown}{$_} // [ 0 ]) for qw(quick slow);

    my $slow = @{ $part{unknown}{slow} // [] } / $COUNT;
    my $expected = $mechanism =~ /SCRAM/ ? 1 / 2 : 4 / 5;

    cmp_ok(abs($slow - $expected), '<', 0.05 + 2 / sqrt($COUNT),
        "$name: unknown ones are slow as often") or diag("$slow");
}


sub same_time {
    my ($name, $wrong, $unknown) = @_;

    my @median = map { median(@$_) } $wrong, $unknown;
    my $error = sqrt(error_of(@$wrong) ** 2 + error_of(@$unknown) ** 2);
    my $apart = abs($median[0] - $median[1]);
    my $bound = $WITHIN * $median[0];

    diag(sprintf('%s: wrong %.0f us, unknown %.0f us, %+.1f %%, of %d',
        $name, 1e6 * $median[0], 1e6 * $median[1],
        100 * ($median[1] / $median[0] - 1), scalar @$wrong))
        if $ENV{TEST_TIMING};

    $bound = max($bound, 4 * $error) if $COUNT < 5000;

    cmp_ok($apart, '<=', $bound, "$name: the same time")
        or diag("medians: @median, error: $error");
}
