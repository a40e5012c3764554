#!/usr/bin/perl

# AUTH: PLAIN and LOGIN, users in a file and in Redis, the hashes of crypt(3);
# what is malformed, cancelled or cut off; and no secret in any log.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use MIME::Base64 qw(encode_base64);
use Test::More;
use Time::HiRes qw(time);

use MailPolicy;

my $t = MailPolicy->new();
my $relay = $t->run_relay(name => 'relay');
my $redis = $t->run_redis();

my %hash = (
    'bcrypt@example.com'   => $t->crypt('canary-b', '$2b$05$abcdefghijklmnopqrstuu'),
    'sha256@example.com'   => $t->crypt('canary-5', '$5$somesalt$'),
    'sha512@example.com'   => $t->crypt('canary-6', '$6$somesalt$'),
    'yescrypt@example.com' => $t->crypt('canary-y', '$y$j75$somesalt$'),
    'plain@example.com'    => '{PLAIN}canary-p',
);

$t->write_file('users', join('', map { "$_:$hash{$_}\n" } sort keys %hash));

$t->conf(<<'EOF');
thread_pool  default threads=2 max_queue=64;

mail {
    server_name  edge.example.com;

    policy_redis           redis://127.0.0.1:%%PORT_redis%% timeout=2s
                           on_error=closed;
    policy                 on;
    policy_auth_plaintext  on;
    proxy_pass             127.0.0.1:%%PORT_relay%%;
    access_log             %%DIR%%/access.log;
    max_errors             100;

    server {
        listen       127.0.0.1:%%PORT_file%%;
        protocol     smtp;
        policy_auth  file:%%DIR%%/users;
    }

    server {
        listen       127.0.0.1:%%PORT_records%%;
        protocol     smtp;
        policy_auth  redis;
    }

    server {
        listen       127.0.0.1:%%PORT_both%%;
        protocol     smtp;
        policy_auth  file:%%DIR%%/users redis;
    }

    server {
        listen       127.0.0.1:%%PORT_login%%;
        protocol     smtp;
        smtp_auth    login;
        policy_auth  redis;
    }

    server {
        listen               127.0.0.1:%%PORT_plain%%;
        protocol             smtp;
        policy_auth          redis;
        policy_auth_methods  plain;
    }
}
EOF
$t->run_nginx();

$redis->cmd('HSET', "mail:user:{$_}", 'password', $hash{$_}) for keys %hash;
$redis->cmd('HSET', 'mail:user:{gone@example.com}', 'password',
    $hash{'sha512@example.com'}, 'status', 'suspended');
$redis->cmd('HSET', 'mail:user:{only@example.com}', 'password',
    '{PLAIN}canary-o');

# every hash in both places, every mechanism

for my $port (qw(file records)) {
    for my $user (sort keys %hash) {
        my ($name) = split(/@/, $user);
        my %letter = (bcrypt => 'b', sha256 => 5, sha512 => 6,
            yescrypt => 'y', plain => 'p');
        my $password = "canary-$letter{$name}";

        my $c = session($port);
        like($c->auth_plain($user, "$password-not"), qr/^535 5\.7\.8 /,
            "$port: $name, wrong");
        like($c->auth_login($user, substr($password, 0, -1)),
            qr/^535 5\.7\.8 /, "$port: $name, a prefix");
        like($c->auth_plain($user, $password), qr/^235 2\.7\.0 /,
            "$port: $name, PLAIN");

        $c = session($port);
        like($c->auth_login($user, $password), qr/^235 2\.7\.0 /,
            "$port: $name, LOGIN");
    }
}

# AUTH-15 the same octets for whoever is not there

my $c = session('records');
my $wrong = $c->auth_plain('sha512@example.com', 'wrong');

is($c->auth_plain('nobody@example.com', 'canary-6'), $wrong,
    'AUTH-15 no such user');
is($c->auth_plain('gone@example.com', 'canary-6'),
    '535 5.7.13 Account suspended', 'suspended');
is($c->auth_plain('gone@example.com', 'canary-x'), $wrong,
    'suspended, and who has not the password is not told');
is($c->auth_plain('SHA512@example.com', 'canary-6'), $wrong,
    'a login has one spelling');
is($c->auth_plain("sha512\@example.com\r\nX", 'canary-6'), $wrong,
    'AUTH-1 control octets');
is($c->auth_plain("sha512\@example.com} ", 'canary-6'), $wrong,
    'AUTH-1 braces and a space');
is($c->auth_plain("\xff\xfe", 'canary-6'), $wrong, 'AUTH-1 no UTF-8');
is($c->auth_plain('x' x 300, 'canary-6'), $wrong, 'AUTH-1 too long');
is($c->auth_plain('sha512@example.com', 'canary-6', 'other@example.com'),
    $wrong, 'acting for another');
like($c->auth_plain('sha512@example.com', 'canary-6', 'sha512@example.com'),
    qr/^235 /, 'acting for oneself');

# providers in order

$c = session('both');
like($c->auth_plain('only@example.com', 'canary-o'), qr/^235 /,
    'known to the second provider only');

# AUTH-9, AUTH-4, AUTH-5, AUTH-6

$c = session('login');
like($c->ehlo(), qr/^250.AUTH LOGIN$/m, 'smtp_auth login: offered alone');
like($c->auth_plain('sha512@example.com', 'canary-6'), qr/^504 5\.5\.4 /,
    'AUTH-9 PLAIN is not enabled');
like($c->cmd('AUTH CRAM-MD5'), qr/^504 5\.5\.4 /, 'AUTH-9 unknown mechanism');
like($c->auth_login('sha512@example.com', 'canary-6'), qr/^235 /, 'LOGIN');

$c = session('plain');
like($c->ehlo(), qr/^250.AUTH PLAIN$/m, 'policy_auth_methods plain: alone');
like($c->cmd('AUTH LOGIN'), qr/^504 5\.5\.4 /, 'AUTH-9 LOGIN is not enabled');
like($c->auth_plain('sha512@example.com', 'canary-6'), qr/^235 /, 'PLAIN');

$c = session('file');
like($c->cmd('AUTH'), qr/^501 /, 'no mechanism');
like($c->cmd('AUTH PLAIN'), qr/^334 $/, 'PLAIN, no initial response');
like($c->cmd('*'), qr/^501 5\.7\.0 /, 'AUTH-5 cancelled');
like($c->cmd('NOOP'), qr/^250 /, 'AUTH-5 the session goes on');
like($c->cmd('AUTH LOGIN'), qr/^334 VXNlcm5hbWU6$/, 'LOGIN');
like($c->cmd('!!!!'), qr/^501 5\.5\.2 /, 'AUTH-6 bad base64');
like($c->cmd('AUTH PLAIN ='), qr/^535 /, 'AUTH-6 empty initial response');
like($c->cmd('AUTH PLAIN AA=='), qr/^535 /, 'AUTH-6 one octet');
like($c->cmd('AUTH PLAIN ' . ('A' x 12288)), qr/^535 /,
    'AUTH-6 12,288 octets are read');
like($c->cmd('AUTH PLAIN ' . ('A' x 20000)), qr/^500 5\.5\.2 /,
    'AUTH-6 more are not');
like($c->cmd('AUTH LOGIN ' . b64('sha512@example.com')), qr/^334 UGFz/,
    'LOGIN with an initial response');
like($c->cmd("AUTH\0"), qr/^501 /, 'a control octet in a response');
like($c->cmd('NOOP'), qr/^250 /, 'and it is over');
like($c->auth_login('', 'x'), qr/^535 /, 'LOGIN: no login');
like($c->auth_login('sha512@example.com', ''), qr/^535 /, 'LOGIN: no password');
like($c->auth_plain('sha512@example.com', "canary-6\0x"), qr/^535 /,
    'NUL in a password');

# cut off in each state

for my $lines ([ 'AUTH PLAIN' ], [ 'AUTH LOGIN' ],
    [ 'AUTH LOGIN ' . b64('sha512@example.com') ],
    [ 'AUTH PLAIN ' . b64("\0sha512\@example.com\0canary-6") ])
{
    my $cut = session('records');
    $cut->send_raw(join('', map { "$_\r\n" } @$lines));
    $cut->reset();
}

# AUTH-10

like($c->auth_plain('sha512@example.com', 'canary-6'), qr/^235 /, 'login');
like($c->cmd('AUTH PLAIN'), qr/^503 /, 'AUTH-10 twice');
like($c->cmd('RSET'), qr/^250 /, 'RSET');
like($c->cmd('MAIL FROM:<a@example.com>'), qr/^250 /,
    'STATE-11 RSET keeps the login');

# a record that is none is said, once a minute, and is no wrong password

$redis->cmd('SET', 'mail:user:{string@example.com}', 'x');
like(session('records')->auth_plain('string@example.com', 'x'),
    qr/^454 4\.7\.0 /, 'a record of another type') for 1 .. 2;
is(scalar(() = $t->error_log() =~ /record of login "string\@example\.com" (?#
    )in Redis is not a hash/g), 1, 'is said once');

# a slow hash does not stop another session

$redis->cmd('HSET', 'mail:user:{slow@example.com}', 'password',
    $t->crypt('canary-s', '$2b$11$abcdefghijklmnopqrstuu'));

my $other = session('records');
my $slow = session('records');
$slow->send_raw('AUTH PLAIN ' . b64("\0slow\@example.com\0canary-s") . "\r\n");
my $start = time();
like($other->cmd('NOOP'), qr/^250 /, 'NOOP meanwhile');
my $noop = time() - $start;
like($slow->read_reply(), qr/^235 /, 'the slow one');
cmp_ok($noop, '<', (time() - $start) / 2, 'the loop was not blocked');

# Redis away

$redis->stop();
$c = session('records');
like($c->auth_plain('sha512@example.com', 'canary-6'), qr/^454 4\.7\.0 /,
    'Redis away: temporary');
like(session('file')->auth_plain('sha512@example.com', 'canary-6'),
    qr/^235 /, 'Redis away: a file needs none');

# OUT-2

my $log = $t->error_log() . ($t->read_file('access.log') // '');
unlike($log, qr/canary/, 'OUT-2 no password in the logs');
my @encoded = map { b64("\0$_\0canary") } keys %hash;
is(scalar(grep { index($log, substr($_, 8, 16)) >= 0 } @encoded), 0,
    'OUT-2 nor encoded');
unlike($log, qr/\$6\$somesalt/, 'OUT-2 no hash either');

$t->done();


sub session {
    my ($port) = @_;

    return $t->session($port);
}


sub b64 { return encode_base64($_[0], '') }
