#!/usr/bin/perl

# RES-12, STATE-10: alloc_failure.t for all that limits ask, with all their
# units and actions, of Redis and of shared memory: memory is refused at each
# place where nginx asks for it.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use MIME::Base64 qw(encode_base64);
use Test::More;

use MailPolicy;
use MailPolicy::FailAlloc;
use MailPolicy::FailAlloc::Player qw(rcpts chunk wait_connected);

my $t = MailPolicy->new();
my $why = MailPolicy::FailAlloc::impossible($t);
plan(skip_all => $why) if $why;

my $ALL = ($ENV{TEST_ALLOC} // '') eq 'all';
alarm(1200);

my @PLAIN = ('PIPELINING', 'SIZE 52428800', '8BITMIME', 'CHUNKING');
my %relay = map { ($_ => $t->run_relay(name => $_, extensions => [ @PLAIN ],
    rcpt => [ { match => qr/<refused/, action => '550 5.1.1 Unknown' } ])) }
    qw(main over);
my $redis = $t->run_redis();

$t->write_file('users', 'alice@example.com:{PLAIN}secret' . "\n");

my %servers = (
    all    => 'policy_auth file:%%DIR%%/users;
        policy_limit client key=$remote_addr connections=1000000/1h
            sessions=500;
        policy_limit login key=$sasl_username connections=1000000/1h
            sessions=500 messages=1000000/1h recipients=1000000/1h
            bytes=1g/1h;
        policy_limit sender key=$sender messages=9/1h recipients=90/1h
            bytes=10m/1h;
        policy_limit pair key=$sender/$recipient messages=9/1h,burst=5
            bytes=10m/1h,burst=9m;
        policy_limit guess key=$remote_addr auth_failures=900/1h
            "message=no more $sasl_username, $limit_remaining";',
    guess  => 'policy_auth file:%%DIR%%/users;
        policy_limit few key=$sasl_username auth_failures=blocked
            if=$sasl_method;
        policy_limit many key=$sasl_username/$client_net auth_failures=900/1h;',
    mail   => 'policy_limit mail key=$sender messages=blocked
                   on_exceed=relay:over;',
    rcpt   => 'policy_limit rcpt key=$recipient_domain recipients=blocked
                   on_exceed=relay:over;
               policy_limit to key=$recipient messages=1000000/1h;',
    tarpit => 'policy_limit slow key=$sender recipients=200/1s,burst=1
                   on_exceed=tarpit;',
    octets => 'policy_limit octets key=$sender bytes=10m/1h;
               policy_limit each key=$sender/$recipient bytes=10m/1h;',
    small  => 'policy_limit small key=$sender bytes=100/1h,burst=100;',
    report => 'policy_limit rep key=$sender messages=blocked
                   on_exceed=report; policy_limit not key=$sender
                   recipients=blocked enforce=0%;',
    reject => 'policy_limit rej key=$sender messages=blocked on_exceed=reject
                   "message=$sender may not send $retry_after $verdict";',
    try    => 'policy_limit try key=$sender messages=9/1h recipients=90/1h
                   bytes=10m/1h charge=attempt;',
    closed => 'policy_limit none key=$remote_addr sessions=blocked;',
);

sub conf {
    my ($nginx, $main) = @_;

    my $log = $t->instance($nginx)->{log};
    my $blocks = join('', map { <<"BLOCK" } sort keys %servers);
    server {
        listen    127.0.0.1:%%PORT_${nginx}_$_%%;
        protocol  smtp;
        @{[ $servers{$_} =~ /policy_auth / ? '' : 'policy_auth off;' ]}
        proxy_pass main;
        $servers{$_}
    }
BLOCK

    $t->conf($nginx, <<"EOF");
error_log  $log notice;
thread_pool  default  threads=1;

mail {
    server_name            edge.example.com;
    access_log             %%DIR%%/$nginx.access.log;
    policy                 on;
    policy_auth_plaintext  on;
    max_errors             40;
    proxy_timeout          20s;
    $main

    upstream main { server 127.0.0.1:%%PORT_main%% max_fails=0; }
    upstream over { server 127.0.0.1:%%PORT_over%% max_fails=0; }

$blocks
}
EOF
}

conf('nginx', 'policy_zone 1m;');
conf('redis', 'policy_zone 1m;
    policy_redis redis://127.0.0.1:%%PORT_redis%% connections=1 events=50;');

$t->allow(qr/\[emerg\] .*(?:malloc|posix_memalign)\(\d.*\) failed \(12: /,
    qr/\[alert\] .*no memory for a line of the access log/);

# entries of all levels
for (qw(sender login pair octets try)) {
    $redis->cmd('HSET', "mail:limit:$_:{*}", 'plan', 'gold', 'messages',
        '1000000/1h');
    $redis->cmd('HSET', "mail:limit:$_:{\@example.com}", 'plan', 'blue');
    $redis->cmd('HSET', 'mail:plan:blue', "$_.bytes", '11m/1h');
    $redis->cmd('HSET', 'mail:plan:gold', "$_.recipients", '1000000/1h');
}
$redis->cmd('HSET', 'mail:limit:login:{alice@example.com}', 'plan', 'own');
$redis->cmd('HSET', 'mail:plan:own', 'login.messages', '1000001/1h');

my $MAIL = "MAIL FROM:<s%ID%\@example.com>\r\n";
my $RCPT = "RCPT TO:<r\@example.net>\r\n";
my $TEXT = "Subject: %ID%\r\n\r\none\r\n..two\r\n...\r\n.\r\n";
my $LONG = "Subject: %ID%\r\n\r\n" . ("..long\r\n" . 'x' x 70 . "\r\n") x 500
    . ".\r\n";
my $AUTH = 'AUTH PLAIN ' . encode_base64("\0alice\@example.com\0secret", '');
my $WRONG = 'AUTH PLAIN ' . encode_base64("\0alice\@example.com\0x", '');

my @EHLO = [ "EHLO client.example\r\n" ];
my @QUIT = [ "QUIT\r\n" ];
my @AT_ONCE = [ $MAIL, $RCPT, "DATA\r\n" ];

my @CHUNKS = (chunk("Subject: %ID%\r\n\r\n.\r"), chunk("\n..\r\nx"),
    chunk("\r\n", 1));

sub wait_redis { wait_connected($t, $redis) }

my @SCRIPTS = (
    [ 'all units', 'all', [ @EHLO, [ "$AUTH\r\n" ], @EHLO, [ $MAIL,
        rcpts(3, 'example.net'), "DATA\r\n" ], [ $TEXT ], @QUIT ],
        fills => 1 ],
    [ 'all units, refused recipients', 'all', [ @EHLO, [ "$AUTH\r\n" ],
        [ $MAIL, "RCPT TO:<refused\@example.net>\r\n", $RCPT, "DATA\r\n" ],
        [ $TEXT ], @QUIT ] ],
    [ 'wrong', 'all', [ @EHLO, [ "$WRONG\r\n" ], [ "$AUTH\r\n" ], @QUIT ],
        fills => 1 ],
    [ 'wrong for two', 'guess', [ @EHLO, [ "$WRONG\r\n" ], @QUIT ] ],
    [ 'left at once', 'all', [ @EHLO, [ "$AUTH\r\n" ], [ $MAIL ] ],
        leaves => 'reset' ],
    [ 'diverted', 'mail', [ @EHLO, @AT_ONCE, [ $TEXT ], @QUIT ] ],
    [ 'diverted, by steps', 'mail', [ @EHLO, [ $MAIL ], [ $RCPT ],
        [ "DATA\r\n" ], [ $TEXT ], @QUIT ] ],
    [ 'a recipient diverts', 'rcpt', [ @EHLO, @AT_ONCE, [ $TEXT ], @QUIT ] ],
    [ 'recipients divert', 'rcpt', [ @EHLO, [ $MAIL ],
        [ rcpts(3, 'example.net') ], [ "DATA\r\n" ], [ $TEXT ], @QUIT ] ],
    [ 'tarpit', 'tarpit', [ @EHLO, [ $MAIL, rcpts(3, 'example.net'),
        "DATA\r\n" ], [ $TEXT ], @QUIT ] ],
    [ 'left in the tarpit', 'tarpit', [ @EHLO, [ $MAIL ], [ $RCPT ] ],
        leaves => 'close' ],
    [ 'octets', 'octets', [ @EHLO, [ $MAIL, rcpts(2, 'example.net'),
        "DATA\r\n" ], [ $LONG ], @QUIT ] ],
    [ 'octets in chunks', 'octets', [ @EHLO, [ $MAIL, $RCPT, @CHUNKS ],
        @QUIT ] ],
    [ 'too many octets', 'small', [ @EHLO, @AT_ONCE, [ $LONG ], @QUIT ] ],
    [ 'too many in chunks', 'small', [ @EHLO, [ $MAIL ], [ $RCPT ],
        [ chunk("Subject: %ID%\r\n\r\n" . 'x' x 200 . "\r\n") ],
        [ chunk('', 1) ], @QUIT ] ],
    [ 'reported', 'report', [ @EHLO, @AT_ONCE, [ $TEXT ], @QUIT ] ],
    [ 'rejected', 'reject', [ @EHLO, [ $MAIL ], @QUIT ] ],
    [ 'attempts', 'try', [ @EHLO, [ $MAIL, rcpts(3, 'example.net') ],
        [ "RSET\r\n" ], @QUIT ] ],
    [ 'no session', 'closed', [ @EHLO ] ],
);

my %only = map { ($_ => 1) } split /,/, $ENV{ONLY} // '';

sub player {
    my ($nginx) = @_;

    my $fail = MailPolicy::FailAlloc->new($t, $nginx);
    my $player = MailPolicy::FailAlloc::Player->new($t, $fail,
        relays => [ values %relay ], all => $ALL);

    for my $script (@SCRIPTS) {
        my ($name, $server, $groups, %more) = @$script;

        next if %only && !$only{$server};
        $more{auth} = $AUTH if $server =~ /^(?:all|guess)$/;
        @more{qw(retry before)} = (1, \&wait_redis) if $nginx eq 'redis';
        $player->script(name => "$nginx: $name",
            port => $t->port("${nginx}_$server"), groups => $groups, %more);
    }

    return $player;
}

for my $nginx ($ENV{STORE} ? $ENV{STORE} : qw(nginx redis)) {
    my $player = player($nginx);
    my $step = $nginx eq 'redis' ? 2 : 1;

    $player->every('alloc');
    $player->every('alloc', times => $player->FOR_EVER, step => $step);
    $player->settle($nginx, "$nginx.access.log");
    note($player->failures() . ' calls failed');
}

is_deeply([ grep { $redis->cmd('PTTL', $_) == -1
    && !/^mail:(?:limit|plan|events)/ } $redis->keys('*') ], [],
    'redis: no key stays for ever');
$t->done();
