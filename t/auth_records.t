#!/usr/bin/perl

# Fields of records in Redis; records without a password; and what unknown
# logins are given, which is what those who are known have.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use MIME::Base64 ();
use Test::More;
use Time::HiRes qw(sleep);

use MailPolicy;
use MailPolicy::Sasl;

my $t = MailPolicy->new();
my $relay = $t->run_relay(name => 'relay');
my $other = $t->run_relay(name => 'other');
my $redis = $t->run_redis();
my $hash = $t->crypt('canary-right', '$6$rounds=1000$salt$');

$t->write_file('users', join('', map { "$_:$hash\n" } qw(both none away)));
$t->write_file('mixed', mixed(60, 60));
$t->write_file('hashes', "alice:$hash\n");

$t->conf(<<'EOF');
mail {
    policy_redis           redis://127.0.0.1:%%PORT_redis%% timeout=5s;
    policy                 on;
    policy_auth_plaintext  on;
    policy_auth_delay      0;
    policy_auth_methods    plain scram-sha-256 cram-md5;
    proxy_pass             $auth_relay;
    max_errors             1000;

    upstream other {
        server  127.0.0.1:%%PORT_other%%;
    }

    server {
        listen       127.0.0.1:%%PORT_records%%;
        protocol     smtp;
        policy_auth  redis;
    }

    server {
        listen       127.0.0.1:%%PORT_both%%;
        protocol     smtp;
        policy_auth  redis file:users;
    }

    server {
        listen       127.0.0.1:%%PORT_mixed%%;
        protocol     smtp;
        policy_auth  file:mixed;
    }

    server {
        listen       127.0.0.1:%%PORT_hashes%%;
        protocol     smtp;
        policy_auth  file:hashes;
    }
}
EOF
$t->run_nginx();

# SCRAM before any record was read

is(iterations('records', 'nobody'), 4096, 'nothing known: as most have it');
is(iterations('hashes', 'nobody'), 4096, 'nobody who could: the same');

# message

record('alice', password => $hash, status => 'suspended',
    message => 'Call +49 30 1234: "it" (us) is <open>');
is(plain('alice'), '535 5.7.13 Call +49 30 1234: "it" (us) is <open>',
    'a message');
my $wrong = plain('alice', 'wrong');
like($wrong, qr/^535 5\.7\.8 /, 'that only who has the password is told');

record('alice', status => '', message => 'Hello');
like(plain('alice'), qr/^235 /, 'a message to one who is not suspended');

for my $message ('x' x 201, "a\nb", "gr\xc3\xbcn") {
    record('alice', status => 'closed', message => $message);
    is(plain('alice'), '535 5.7.13 Account suspended', 'a message that is none');
}
record('alice', message => 'x' x 200);
is(plain('alice'), '535 5.7.13 ' . 'x' x 200, 'a long one');
like($t->error_log(), qr/\[error\] .*the record of login "alice" in Redis has (?#
    )a message that is not 1 to 200 printable characters/, 'is said');

# relay

for my $route ('other', '127.0.0.1:' . $t->port('other')) {
    record('bob', password => $hash, relay => $route);

    my $c = $t->session('records');
    my $count = () = $other->messages();

    like($c->auth_plain('bob', 'canary-right'), qr/^235 /, 'a relay');
    like(($c->send_mail('b@example.com', [ 'x@example.net' ], "x\n"))[-1],
        qr/^250 /, 'that takes a message');
    is(scalar(() = $other->messages()), $count + 1, "is $route");
}

for my $route ('a b', "a\x01", 'x' x 256) {
    record('bob', relay => $route);
    like(plain('bob'), qr/^454 4\.7\.0 /, 'a relay that is none');
}

# without a password

record('none', status => 'active');
record('away', status => 'away', message => 'Gone');
is(plain('none'), $wrong, 'no password');
is(plain('none', ''), $wrong, 'no password, none given');
like(plain('none', 'right', 'both'), qr/^235 /, 'the next one has it');
is(plain('away', 'right', 'both'), $wrong, 'unless it is suspended');
like(plain('both', 'right', 'both'), qr/^235 /, 'a login of the next one');

# what unknown logins are given with SCRAM, of records in Redis

record('scram', password => secret('x', 8192));
like(plain('scram', 'wrong'), qr/^535 /, 'one with 8192 iterations');
is(iterations('records', 'nobody'), 8192, 'unknown: as many');
is(iterations('records', 'scram'), 8192, 'known: as many');
is(iterations('records', 'alice'), 8192, 'another hash: as many');
is(code('records', 'nobody'), 535, 'and is refused');
is(code('records', 'alice'), 535, 'as is one with another hash');

# and in a file, in the same proportion

my @logins = map { "unknown-$_" } 1 .. 150;
my %before = map { $_ => iterations('mixed', $_) } @logins;
my %count;

$count{$_}++ for values %before;

is(join(' ', sort { $a <=> $b } keys %count), '4096 8192',
    'AUTH-14 as those who are known');
cmp_ok($count{4096}, '>', 40, 'AUTH-14 as many of the one');
cmp_ok($count{8192}, '>', 40, 'AUTH-14 as of the other');

is(scalar(grep { iterations('mixed', $_) != $before{$_} } @logins[0 .. 39]), 0,
    'AUTH-14 and always the same');

$t->write_file('mixed', mixed(62, 58));
sleep(1.1);
cmp_ok(scalar(grep { iterations('mixed', $_) != $before{$_} } @logins), '<',
    15, 'AUTH-14 and nearly always after some are others');
is(iterations('mixed', 'user1'), 4096, 'the file has changed, though');

my $log = $t->error_log();
unlike($log, qr/canary/, 'OUT-2 no password in the log');

$t->done();


sub record {
    my ($login, @fields) = @_;

    $redis->cmd('HSET', "mail:user:{$login}", @fields);
}


sub plain {
    my ($login, $password, $port) = @_;

    $password = 'canary-' . ($password // 'right') if ($password // 'x') ne '';
    return $t->session($port // 'records')->auth_plain($login, $password);
}


sub scram {
    my ($port, $login) = @_;

    my $sasl = MailPolicy::Sasl->new('SCRAM-SHA-256', user => $login,
        password => 'canary-right');

    return (substr($sasl->login($t->session($port)), 0, 3), $sasl);
}


sub code { return (scram(@_))[0] }


# what the server asks for

sub iterations {
    my ($code, $sasl) = scram(@_);

    my ($first) = grep { /^r=/ } $sasl->challenges();
    return ($first // '') =~ /,i=(\d+)$/ ? $1 : "none, $code";
}


sub secret {
    my ($salt, $iterations) = @_;

    return "{SCRAM-SHA-256}$iterations," . MIME::Base64::encode_base64($salt, '')
        . ',' . 'A' x 43 . '=,' . 'A' x 43 . '=';
}


# users with few and with many iterations, and others who do not count

sub mixed {
    my ($few, $many) = @_;

    return join('', (map { "user$_:" . secret("s$_", 4096) . "\n" } 1 .. $few),
        (map { "more$_:" . secret("m$_", 8192) . "\n" } 1 .. $many),
        map { "other$_:$hash\n" } 1 .. 50);
}
