#!/usr/bin/perl

# {SCRAM-SHA-256} as the hash of a login: passwords are verified against it,
# in a file and in Redis, and who is not there takes as long.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Digest::SHA qw(hmac_sha256 sha256);
use MIME::Base64 qw(decode_base64 encode_base64);
use Test::More;
use Time::HiRes qw(time);

use MailPolicy;

my $t = MailPolicy->new();
my $relay = $t->run_relay(name => 'relay');
my $redis = $t->run_redis();

my $prefix = '{SCRAM-SHA-256}';
my $keys = 'WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=,'
    . 'wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=';

my %user = (

    # RFC 7677
    'rfc@example.com' => [ 'pencil',
        "${prefix}4096,W22ZaJ0SNY7soEsUEjb6gQ==,$keys" ],

    # as doveadm(1) makes it
    'doveadm@example.com' => [ 'canary-s', "${prefix}4096,"
        . '+AzdqEXpVwuT2ld1UKj4XQ==,'
        . 'B2YIRk9EIpUOYBwVd1A7+UqtVvcaXr4GoNYGiytnPcE=,'
        . 'vrQQ/oweelAIE8UQxfc9qx2ILINTafzPb36o+xa/OXU=' ],

    map({ ("salt$_\@example.com" => [ "canary-$_", secret("canary-$_",
        5000, 's' x $_) ]) } 1, 2, 3, 63, 64),
    'utf8@example.com' => [ "canary-\xc3\xbc \xe2\x82\xac",
        secret("canary-\xc3\xbc \xe2\x82\xac", 4096, 'salt') ],
);

my $slow = secret('canary-slow', 400_000, 'saltsalt');

$t->write_file('users',
    join('', map { "$_:$user{$_}[1]:senders=\n" } sort keys %user));
$t->write_file('slow', "slow\@example.com:$slow\n");

$t->conf(<<'EOF');
mail {
    policy_redis           redis://127.0.0.1:%%PORT_redis%% timeout=2s;
    policy                 on;
    policy_auth_plaintext  on;
    policy_auth_cache      0;
    policy_auth_delay      0;
    proxy_pass             127.0.0.1:%%PORT_relay%%;
    max_errors             100;

    server {
        listen       127.0.0.1:%%PORT_file%%;
        protocol     smtp;
        policy_auth  file:%%DIR%%/users;
    }

    server {
        listen       127.0.0.1:%%PORT_redis_edge%%;
        protocol     smtp;
        policy_auth  redis;
    }

    server {
        listen       127.0.0.1:%%PORT_slow%%;
        protocol     smtp;
        policy_auth  file:%%DIR%%/slow;
    }
}
EOF
$t->run_nginx();

$redis->cmd('HSET', "mail:user:{$_}", 'password', $user{$_}[1])
    for keys %user;
$redis->cmd('HSET', 'mail:user:{slow@example.com}', 'password', $slow);

# not one octet may be another

my ($salt, $stored, $server) = (split /,/, $user{'rfc@example.com'}[1])[1 .. 3];
$redis->cmd('HSET', "mail:user:{$_->[0]\@example.com}", 'password',
    "$prefix$_->[1]")
    for [ count => "4097,$salt,$stored,$server" ],
        [ salt => "4096,X$salt,$stored,$server" =~ s/,XW/,X/r ],
        [ stored => "4096,$salt,X$stored,$server" =~ s/,XW/,X/r ],
        [ server => "4096,$salt,$stored,X$server" =~ s/,Xw/,X/r ];

for my $port (qw(file redis_edge)) {
    for my $login (sort keys %user) {
        my $password = $user{$login}[0];
        my $c = $t->session($port);

        for my $wrong ("$password-not", substr($password, 0, -1), '',
            "$password\0", uc($password))
        {
            like($c->auth_plain($login, $wrong), qr/^535 5\.7\.8 /,
                "$port: $login, wrong");
        }

        like($c->auth_plain($login, $password), qr/^235 2\.7\.0 /,
            "$port: $login, PLAIN");
        like($t->session($port)->auth_login($login, $password),
            qr/^235 2\.7\.0 /, "$port: $login, LOGIN");
    }
}

like($t->session('redis_edge')->auth_plain("$_\@example.com", 'pencil'),
    qr/^535 5\.7\.8 /, "another $_") for qw(count salt stored server);

# AUTH-15, AUTH-13: as slow for whoever is not there; another goes on

for my $port (qw(slow redis_edge)) {
    my $c = $t->session($port);

    like($c->auth_plain('slow@example.com', 'wrong'), qr/^535 /,
        "$port: wrong, slow");

    my (%best, %reply);

    for my $login (('slow@example.com', 'nobody@example.com') x 5) {
        my $start = time();
        $reply{$login} = $c->auth_plain($login, 'wrong');
        my $took = time() - $start;
        $best{$login} = $took if $took < ($best{$login} // 60);
    }

    my ($wrong, $nobody) = @best{'slow@example.com', 'nobody@example.com'};
    my ($said, $same) = @reply{'slow@example.com', 'nobody@example.com'};

    is($same, $said, "AUTH-15 $port: the same reply");
    cmp_ok($nobody, '>', $wrong / 2, "AUTH-15 $port: and as late");
    cmp_ok($nobody, '<', $wrong * 2, "AUTH-15 $port: no later");

    my $other = $t->session($port);

    $c->send_raw('AUTH PLAIN '
        . encode_base64("\0slow\@example.com\0canary-slow", '') . "\r\n");

    my $start = time();
    like($other->cmd('NOOP'), qr/^250 /, "$port: NOOP meanwhile");
    my $noop = time() - $start;

    like($c->read_reply(), qr/^235 /, "$port: the slow one");
    cmp_ok($noop, '<', (time() - $start) / 2, "$port: nobody was held up");
}

# records that are none

for my $bad ("4095,$salt,$stored,$server", "1000001,$salt,$stored,$server",
    "4096,,$stored,$server", "4096,$salt,$stored", "4096,$salt,$stored,",
    "4096,$salt,$stored,$server,", "4096,$salt,AAAA,$server", '',
    '4096,' . encode_base64('s' x 65, '') . ",$stored,$server")
{
    $redis->cmd('HSET', 'mail:user:{bad@example.com}', 'password',
        "$prefix$bad");
    like($t->session('redis_edge')->auth_plain('bad@example.com', 'pencil'),
        qr/^454 4\.7\.0 /, "refused: $bad");

    $t->write_file('bad', "bad\@example.com:$prefix$bad\n");
    my ($good, $output) = $t->check_conf(<<'EOF');
mail {
    policy_auth  file:%%DIR%%/bad;
}
EOF
    like($output, qr/bad:1: unknown, incomplete or too costly password hash, (?#
        )expected .*"\{SCRAM-SHA-256\}\.\.\." or "\{PLAIN\}\.\.\."/,
        "in a file: $bad");
    ok(!$good, 'and nginx does not start');
}

my $log = $t->error_log();
unlike($log, qr/canary|pencil/, 'OUT-2 no password in the log');
unlike($log, qr/\Q$stored\E|\Q$server\E/, 'OUT-2 nor a key');

$t->done();


sub secret {
    my ($password, $iterations, $salt) = @_;

    my $block = hmac_sha256($salt . pack('N', 1), $password);
    my $salted = $block;

    # slow in Perl
    if ($iterations > 10_000) {
        open(my $fh, '-|', 'python3', '-c', 'import hashlib, sys; '
            . 'print(hashlib.pbkdf2_hmac("sha256", sys.argv[1].encode(), '
            . 'sys.argv[2].encode(), int(sys.argv[3])).hex())',
            $password, $salt, $iterations) or die "python3: $!\n";
        chomp(my $hex = <$fh>);
        $salted = pack('H*', $hex);

    } else {
        for (2 .. $iterations) {
            $block = hmac_sha256($block, $password);
            $salted ^= $block;
        }
    }

    return join(',', "${prefix}$iterations", encode_base64($salt, ''),
        encode_base64(sha256(hmac_sha256('Client Key', $salted)), ''),
        encode_base64(hmac_sha256('Server Key', $salted), ''));
}
