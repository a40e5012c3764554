#!/usr/bin/perl

# RES-12, STATE-10: memory or a system call is refused, at each place where
# nginx asks for it.  Of all sessions played here, each is played with its
# first call failing, with its second one, and so on; and so that all fail
# from the first one on, from the second one on, ...
#
# TEST_ALLOC=all plays them all; without it, those that lose Redis, and have
# to wait for it, are played for every second call, or fewer.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Errno qw(:POSIX);
use MIME::Base64 qw(encode_base64);
use Test::More;

use MailPolicy;
use MailPolicy::FailAlloc;
use MailPolicy::FailAlloc::Player qw(rcpts chunk connected wait_connected);
use MailPolicy::Limits qw(lasting);

my $t = MailPolicy->new();
my $why = MailPolicy::FailAlloc::impossible($t);
plan(skip_all => $why) if $why;

my $ALL = ($ENV{TEST_ALLOC} // '') eq 'all';
alarm(1200) if $ALL;

my @PLAIN = ('PIPELINING', 'SIZE 52428800', '8BITMIME', 'DSN', 'SMTPUTF8');
my %relay = (
    plain => $t->run_relay(name => 'plain', extensions => [ @PLAIN ],
        rcpt => [ { match => qr/<refused/, action => '550 5.1.1 Unknown' },
                  { match => qr/<later/, action => '450 4.2.1 Not now' } ]),
    never => $t->run_relay(name => 'never', dot => '554 5.7.1 Not this'),
    later => $t->run_relay(name => 'later', dot => '451 4.3.0 Not now',
        extensions => [ @PLAIN, 'CHUNKING' ]),
    bare  => $t->run_relay(name => 'bare', extensions => []),
    bdat  => $t->run_relay(name => 'bdat',
        extensions => [ @PLAIN, 'CHUNKING', 'BINARYMIME' ]),
    xclient => $t->run_relay(name => 'xclient', extensions => [ @PLAIN,
        'XCLIENT NAME ADDR PORT PROTO HELO LOGIN DESTADDR DESTPORT' ]),
    busy  => $t->run_relay(name => 'busy', greeting => '421 4.3.2 Busy'),
);
my $redis = $t->run_redis();

$t->write_file('users', 'alice@example.com:{PLAIN}secret' . "\n"
    . 'carol@example.com:' . $t->crypt('secret', '$5$rounds=1000$alloc$')
    . "\n");
$redis->cmd('HSET', 'mail:user:{alice@example.com}', 'password',
    '{PLAIN}secret');

sub server {
    my ($name, $rest) = @_;

    $rest .= ' policy_auth off;' unless $rest =~ /policy_auth /;
    $rest .= ' proxy_pass 127.0.0.1:%%PORT_plain%%;'
        unless $rest =~ /proxy_pass/;

    return "    server { listen 127.0.0.1:%%PORT_smtp_$name%%"
        . ($name eq 'proxied' ? ' proxy_protocol' : '')
        . "; protocol smtp; $rest }\n";
}


sub conf {
    my ($nginx, $main, %servers) = @_;

    my $blocks = join('', map { server($_, $servers{$_}) } sort keys %servers);
    my $log = $t->instance($nginx)->{log};

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

    upstream next {
        server  127.0.0.1:%%PORT_nobody%% max_fails=0;
        server  127.0.0.1:%%PORT_busy%% max_fails=0;
        server  127.0.0.1:%%PORT_plain%% max_fails=0 backup;
    }

    upstream kept {
        server             127.0.0.1:%%PORT_xclient%% max_fails=0;
        keepalive          1;
        keepalive_timeout  200ms;
    }

    map \$recipient_domain \$route {
        default       127.0.0.1:%%PORT_bare%%;
        plain.example 127.0.0.1:%%PORT_plain%%;
    }

$blocks
}
EOF
}

conf('nginx', 'policy_zone 512k;',
    plain     => '',
    bare      => 'proxy_pass 127.0.0.1:%%PORT_bare%%;',
    normalize => 'policy_bare_newline normalize;',
    bdat      => 'proxy_pass 127.0.0.1:%%PORT_bdat%%;',
    login     => 'policy_auth file:%%DIR%%/users;',
    xclient   => 'policy_auth file:%%DIR%%/users;'
        . ' proxy_pass 127.0.0.1:%%PORT_xclient%%;',
    kept      => 'policy_auth file:%%DIR%%/users; proxy_pass kept;',
    proxied   => 'set_real_ip_from 127.0.0.1;'
        . ' proxy_pass 127.0.0.1:%%PORT_xclient%%;',
    nobody    => 'proxy_pass 127.0.0.1:%%PORT_nobody%%;',
    next      => 'proxy_pass next;',
    route     => 'proxy_pass $route;',
    never     => 'proxy_pass 127.0.0.1:%%PORT_never%%;',
    later     => 'proxy_pass 127.0.0.1:%%PORT_later%%;',
    small     => 'policy_message_size 1000;',
    delayed   => 'smtp_greeting_delay 5ms;',
    zone      => 'policy_limit sender key=$sender messages=5/1h'
        . ' recipients=50/1h; policy_limit pair key=$sender/$recipient'
        . ' messages=9/1h,burst=3;',
    blocked   => 'policy_limit none key=$remote_addr messages=blocked;',
);
conf('redis', 'policy_redis redis://127.0.0.1:%%PORT_redis%% connections=1;',
    limited => 'policy_limit own key=$sender messages=9/1h recipients=50/1h;'
        . ' policy_limit pair key=$sender/$recipient messages=9/1h,burst=3;',
    logins  => 'policy_auth redis;',
    file    => 'policy_auth file:%%DIR%%/users;',
    over    => 'policy_limit none key=$remote_addr messages=blocked;',
);

# what nginx says of what fails; and the module of a line of the access log
$t->allow(qr/\[emerg\] .*(?:malloc|posix_memalign)\(\d.*\) failed \(12: /,
    qr/\[alert\] .*no memory for a line of the access log/,
    qr/\[crit\] .*write\(\) to ".*access.log" failed \(28: /,
    qr/\[alert\] .*socket\(\) failed \(24: /,
    qr/\[alert\] .*setsockopt\((?:TCP_NODELAY|SO_KEEPALIVE)\) failed.* \(105: /,
    qr/\[alert\] .*ioctl\(FION(?:BIO|READ)\) failed \(9: /,
    qr/\[alert\] .*epoll_ctl\(.*\) failed \(28: /);

my $MAIL = "MAIL FROM:<s%ID%\@example.com>";
my $RCPT = "RCPT TO:<r\@example.net>\r\n";
my $TEXT = "Subject: %ID%\r\n\r\none\r\n..two\r\n...\r\n.\r\n";
my $LONG = "Subject: %ID%\r\n\r\n" . ("..long\r\n" . 'x' x 70 . "\r\n") x 500
    . ".\r\n";
my $AUTH = 'AUTH PLAIN ' . encode_base64("\0alice\@example.com\0secret", '');
my $HASHED = 'AUTH PLAIN ' . encode_base64("\0carol\@example.com\0secret", '');

my @EHLO = [ "EHLO client.example\r\n" ];
my @QUIT = [ "QUIT\r\n" ];
my @ONE = ([ "$MAIL\r\n" ], [ $RCPT ], [ "DATA\r\n" ]);
my @AT_ONCE = [ "$MAIL\r\n", $RCPT, "DATA\r\n" ];
my @AGAIN = [ "MAIL FROM:<t%ID%\@example.com>\r\n", $RCPT, "DATA\r\n" ];


sub login { return map { [ "$_\r\n" ] } 'AUTH LOGIN',
    map { encode_base64($_, '') } 'alice@example.com', 'secret' }

my @CHUNKS = (chunk("Subject: %ID%\r\n\r\n.\r"), chunk("\n..\r\nx"),
    chunk("\r\n", 1));
my $HALF = 'x' x 9000;

# nginx' connection to Redis, of which there is one

sub wait_redis { wait_connected($t, $redis) }

sub cut_redis { $redis->cmd('CLIENT', 'KILL', 'ID', /^id=(\d+)/)
    for connected($redis) }

# name, server, groups of commands, further of a script
my @SCRIPTS = (
    [ 'a message', 'plain', [ @EHLO, @ONE, [ $TEXT ], @QUIT ] ],
    [ 'pipelined', 'plain', [ @EHLO, @AT_ONCE, [ $TEXT ], @QUIT ] ],
    [ 'HELO', 'bare',
        [ [ "HELO client.example\r\n" ], @ONE, [ $TEXT ], @QUIT ] ],
    [ 'two messages', 'plain',
        [ @EHLO, @AT_ONCE, [ $TEXT ], @AGAIN, [ $TEXT ], @QUIT ] ],
    [ 'nothing but talk', 'plain', [ @EHLO, map { [ "$_\r\n" ] } 'NOOP',
        'VRFY x', 'HELP', 'EXPN x', 'FOO', 'DATA', 'RSET', 'QUIT' ] ],
    [ 'parameters', 'plain', [ @EHLO, [ "$MAIL SIZE=90 BODY=8BITMIME SMTPUTF8 "
        . "RET=HDRS ENVID=a+2Bb\r\n" ], [ "RCPT TO:<\xc3\xb6\@example.net> "
        . "NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;b+2B\@example.net\r\n" ],
        [ "DATA\r\n" ], [ $TEXT ], @QUIT ] ],
    [ 'a long body', 'plain', [ @EHLO, @AT_ONCE, [ $LONG ], @QUIT ] ],
    [ 'normalized', 'normalize', [ @EHLO, @AT_ONCE,
        [ "Subject: %ID%\n\n.\n..\rx\n\r\n.\r\n" ], @QUIT ] ],
    [ 'long and normalized', 'normalize',
        [ @EHLO, @AT_ONCE, [ $LONG =~ s{g\r}{g}gr ], @QUIT ] ],
    [ 'bare newlines', 'plain',
        [ @EHLO, @AT_ONCE, [ "a\nb\r\n.\r\n" ], @QUIT ] ],
    [ 'too big', 'small', [ @EHLO, @AT_ONCE, [ $LONG ], @QUIT ] ],
    [ 'chunks', 'bdat', [ @EHLO, [ "$MAIL BODY=BINARYMIME\r\n" ], [ $RCPT ],
        (map { [ $_ ] } @CHUNKS), @QUIT ] ],
    [ 'chunks to DATA', 'plain',
        [ @EHLO, [ "$MAIL\r\n", $RCPT, @CHUNKS ], @QUIT ] ],
    [ 'a long chunk to DATA', 'bare', [ @EHLO, [ "$MAIL\r\n" ], [ $RCPT ],
        [ chunk("Subject: %ID%\r\n\r\n$HALF\r\n.\r\n") ], [ chunk('', 1) ],
        @QUIT ] ],
    [ 'chunks given up', 'bdat', [ @EHLO, [ "$MAIL\r\n" ], [ $RCPT ],
        [ $CHUNKS[0] ], [ "RSET\r\n" ], @QUIT ] ],
    [ 'many recipients', 'plain', [ @EHLO, [ "$MAIL\r\n" ],
        [ rcpts(30, 'example.net') ],
        [ "DATA\r\n" ], [ $TEXT ], @QUIT ] ],
    [ 'many refused', 'plain', [ @EHLO, [ "$MAIL\r\n" ], [ map { $_,
        s/<r/<later/r, s/<r/<refused/r } rcpts(15, 'example.net') ],
        [ "DATA\r\n" ], [ $TEXT ], @QUIT ] ],
    [ 'nobody accepted', 'plain', [ @EHLO, [ "$MAIL\r\n",
        "RCPT TO:<refused\@example.net>\r\n", "DATA\r\n" ], @QUIT ] ],
    [ 'refused at the dot', 'never', [ @EHLO, @AT_ONCE, [ $TEXT ], @QUIT ] ],
    [ 'deferred at the dot', 'later', [ @EHLO, @AT_ONCE, [ $TEXT ], @QUIT ] ],
    [ 'deferred chunks', 'later',
        [ @EHLO, [ "$MAIL\r\n", $RCPT, @CHUNKS ], @QUIT ] ],
    [ 'routes', 'route', [ @EHLO, [ "$MAIL\r\n", rcpts(2, 'plain.example'),
        rcpts(2, 'other.example'), "DATA\r\n" ], [ $TEXT ], @QUIT ],
        may_pass => 1 ],
    [ 'no relay', 'nobody',
        [ @EHLO, [ "$MAIL\r\n", $RCPT, "DATA\r\n" ], @QUIT ] ],
    [ 'the next relay', 'next', [ @EHLO, @AT_ONCE, [ $TEXT ], @QUIT ] ],
    [ 'RSET', 'plain', [ @EHLO, [ "$MAIL\r\n" ], [ $RCPT ], [ "RSET\r\n" ],
        @AGAIN, [ $TEXT ], @QUIT ] ],
    [ 'EHLO again', 'plain', [ @EHLO, [ "$MAIL\r\n" ], @EHLO, @AGAIN,
        [ $TEXT ], @QUIT ] ],
    [ 'AUTH PLAIN', 'login', [ @EHLO, [ "$HASHED\r\n" ], @AT_ONCE, [ $TEXT ],
        @QUIT ] ],
    [ 'AUTH LOGIN', 'login', [ @EHLO, login(), @AT_ONCE, [ $TEXT ], @QUIT ],
        fills => 1 ],
    [ 'a wrong password', 'login', [ @EHLO, [ 'AUTH PLAIN '
        . encode_base64("\0carol\@example.com\0x", '') . "\r\n" ], @QUIT ] ],
    [ 'XCLIENT', 'xclient', [ @EHLO, [ "$AUTH\r\n" ], @AT_ONCE, [ $TEXT ],
        @QUIT ] ],
    [ 'a kept connection', 'kept', [ @EHLO, [ "$AUTH\r\n" ], @AT_ONCE,
        [ $TEXT ], @QUIT ] ],
    [ 'a kept connection of another client', 'kept', [
        [ "EHLO c%ID%.example\r\n" ], [ "$AUTH\r\n" ], @AT_ONCE, [ $TEXT ],
        @QUIT ] ],
    [ 'PROXY', 'proxied', [ @EHLO, @AT_ONCE, [ $TEXT ], @QUIT ],
        first => "PROXY TCP4 192.0.2.1 127.0.0.1 4711 25\r\n" ],
    [ 'a late greeting', 'delayed', [ @EHLO, @AT_ONCE, [ $TEXT ], @QUIT ] ],
    [ 'limits', 'zone', [ @EHLO, [ "$MAIL\r\n", rcpts(3, 'example.net'),
        "DATA\r\n" ], [ $TEXT ], map({ [ "MAIL FROM:<$_%ID%\@example.com>\r\n",
        $RCPT ], [ "RSET\r\n" ] } 't', 'u'), @QUIT ] ],
    [ 'blocked', 'blocked', [ @EHLO, [ "$MAIL\r\n" ], @QUIT ] ],
    [ 'left after RCPT', 'zone', [ @EHLO, [ "$MAIL\r\n" ], [ $RCPT ] ],
        leaves => 'close' ],
    [ 'reset in the body', 'zone', [ @EHLO, @AT_ONCE ], leaves => 'reset' ],
);

my @REDIS_SCRIPTS = (
    [ 'a login without Redis', 'file', [ @EHLO, [ "$AUTH\r\n" ], @QUIT ],
        fills => 1 ],
    [ 'Redis: limits', 'limited', [ @EHLO, [ "$MAIL\r\n",
        rcpts(3, 'example.net'), "DATA\r\n" ], [ $TEXT ], @QUIT ] ],
    [ 'Redis: given back', 'limited', [ @EHLO, [ "$MAIL\r\n",
        rcpts(2, 'example.net') ], [ "RSET\r\n" ], @QUIT ] ],
    [ 'Redis: left', 'limited', [ @EHLO, [ "$MAIL\r\n" ], [ $RCPT ] ],
        leaves => 'close' ],
    [ 'Redis: blocked', 'over', [ @EHLO, [ "$MAIL\r\n" ], @QUIT ] ],
    [ 'Redis: a login', 'logins', [ @EHLO, [ "$AUTH\r\n" ], @AT_ONCE, [ $TEXT ],
        @QUIT ] ],
    [ 'Redis: connecting', 'limited', [ \&cut_redis, @EHLO, \&wait_redis,
        [ "$MAIL\r\n", $RCPT, "DATA\r\n" ], [ $TEXT ], @QUIT ], step => 3 ],
);

sub player {
    my ($nginx, $scripts) = @_;

    my $fail = MailPolicy::FailAlloc->new($t, $nginx);
    my $player = MailPolicy::FailAlloc::Player->new($t, $fail,
        relays => [ values %relay ], all => $ALL);

    for my $script (@$scripts) {
        my ($name, $server, $groups, %more) = @$script;

        $more{auth} = $AUTH if $server =~ /login|xclient|kept|file/;
        @more{qw(retry before)} = (1, \&wait_redis) if $nginx eq 'redis';
        $player->script(name => $name, port => $t->port("smtp_$server"),
            groups => $groups, %more);
    }

    return $player;
}

my @CALLS = (
    [ recv       => ECONNRESET ],
    [ send       => EPIPE ],
    [ connect    => ENETUNREACH ],
    [ socket     => EMFILE ],
    [ epoll_ctl  => ENOSPC ],
    [ getsockopt => ENOBUFS ],
    [ setsockopt => ENOBUFS ],
    [ ioctl      => EBADF ],
    [ accept     => ECONNABORTED ],
    [ write      => ENOSPC ],
);

my %player = (nginx => player('nginx', \@SCRIPTS),
    redis => player('redis', \@REDIS_SCRIPTS));

for my $nginx (sort keys %player) {
    my $player = $player{$nginx};

    # each time that Redis is lost, it is not asked for a while
    my $step = $nginx eq 'redis' ? 2 : 1;

    $player->every('alloc');
    $player->every('alloc', times => $player->FOR_EVER, step => $step);
    $player->every($_->[0], error => $_->[1], step => $step) for @CALLS;
    $player->settle($nginx, "$nginx.access.log");
    cmp_ok($player->failures(), '>', $nginx eq 'redis' ? 300 : 2500,
        "$nginx: " . $player->failures() . ' calls failed');
}

cmp_ok(scalar(() = $redis->keys('mail:used:own:*')), '>', 100,
    'redis: it was Redis that counted');

is_deeply([ lasting($redis) ], [], 'redis: no counter stays for ever');
$t->done();
