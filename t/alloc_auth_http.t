#!/usr/bin/perl

# RES-12, STATE-10: alloc_failure.t for services of "policy_auth http:", whose
# connections are kept or not, and with TLS: memory is refused at each place
# where nginx asks for it, and system calls fail.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Errno qw(ECONNREFUSED ECONNRESET EINVAL EMFILE EPIPE);
use MIME::Base64 qw(encode_base64);
use Test::More;

use MailPolicy;
use MailPolicy::AuthService;
use MailPolicy::FailAlloc;
use MailPolicy::FailAlloc::Player;

my $t = MailPolicy->new();
my $why = MailPolicy::FailAlloc::impossible($t);
plan(skip_all => $why) if $why;

alarm(600);

my $relay = $t->run_relay(name => 'relay',
    extensions => [ 'PIPELINING', 'SIZE 52428800', '8BITMIME' ]);

$t->certificate('service', 'service.example.com');

my $service = MailPolicy::AuthService->new(dir => $t->dir(), name => 'auth',
    port => $t->port('auth'), handler => sub {
        my ($socket, $request) = @_;
        my $keep = $request !~ /^X-Keep: no/m;

        MailPolicy::AuthService::reply($socket,
            $request =~ /^Auth-Pass: secret\r/m ? ('Auth-Status' => 'OK',
                'Auth-User' => 'new@example.com',
                'Auth-Pass' => 'secret-of-relay',
                'Auth-Server' => '127.0.0.1',
                'Auth-Port' => $t->port('relay'))
            : ('Auth-Status' => 'No', 'Auth-Error-Code' => '535 5.7.9'),
            Connection => $keep ? 'keep-alive' : 'close');
        return $keep;
    });

push @{ $t->{servers} }, $service;

# TLS for it

$t->conf('front', <<'EOF');
error_log  %%DIR%%/front.error.log warn;

http {
    server {
        listen               127.0.0.1:%%PORT_front%% ssl;
        ssl_certificate      %%DIR%%/service.crt;
        ssl_certificate_key  %%DIR%%/service.key;

        location / {
            proxy_pass  http://127.0.0.1:%%PORT_auth%%;
        }
    }
}
EOF
$t->run_nginx('front');

my %servers = (
    once => 'policy_auth http://127.0.0.1:%%PORT_auth%%/auth;
        policy_auth_http_header X-Keep no;',
    kept => 'policy_auth http://127.0.0.1:%%PORT_auth%%/auth;',
    tls  => 'policy_auth https://127.0.0.1:%%PORT_front%%/auth;
        policy_auth_ssl_trusted_certificate %%DIR%%/service.crt;
        policy_auth_http_header X-Keep no;',
);

my $blocks = join('', map { "
    server {
        listen    127.0.0.1:%%PORT_$_%%;
        protocol  smtp;
        $servers{$_}
    }
" } sort keys %servers);

$t->conf(<<"EOF");
error_log  @{[ $t->instance()->{log} ]} notice;
thread_pool  default  threads=1;

mail {
    server_name            edge.example.com;
    access_log             %%DIR%%/access.log;
    policy                 on;
    policy_auth_plaintext  on;
    policy_auth_delay      0;
    proxy_pass             main;
    max_errors             40;

    upstream main { server 127.0.0.1:%%PORT_relay%% max_fails=0; }
$blocks
}
EOF

$t->allow(qr/\[emerg\] .*(?:malloc|posix_memalign)\(\d.*\) failed \(12: /,
    qr/\[alert\] .*no memory for a line of the access log/,
    qr/\[(?:alert|crit)\] .*(?:socket|epoll_ctl|getsockopt|setsockopt)\(.*failed/,
    qr/\[crit\] .*SSL_\w+\(\) failed \(SSL: .*malloc failure/);

my $AUTH = 'AUTH PLAIN ' . encode_base64("\0alice\@example.com\0secret", '');
my $WRONG = 'AUTH PLAIN ' . encode_base64("\0alice\@example.com\0x", '');

my @EHLO = [ "EHLO client.example\r\n" ];
my @QUIT = [ "QUIT\r\n" ];
my @MAIL = ([ "MAIL FROM:<s%ID%\@example.com>\r\n",
    "RCPT TO:<r\@example.net>\r\n", "DATA\r\n" ],
    [ "Subject: %ID%\r\n\r\none\r\n.\r\n" ]);

my $fail = MailPolicy::FailAlloc->new($t, 'nginx');
my $player = MailPolicy::FailAlloc::Player->new($t, $fail,
    relays => [ $relay ]);

for my $server (sort keys %servers) {
    $player->script(name => "$server: right", port => $t->port($server),
        auth => $AUTH, groups => [ @EHLO, [ "$AUTH\r\n" ], @MAIL, @QUIT ]);
    $player->script(name => "$server: wrong, then right",
        port => $t->port($server), auth => $AUTH,
        groups => [ @EHLO, [ "$WRONG\r\n" ], [ "$AUTH\r\n" ], @QUIT ]);
}

$player->every('alloc');
$player->every('alloc', times => $player->FOR_EVER);
$player->every('recv', error => ECONNRESET);
$player->every('send', error => EPIPE);
$player->every('connect', error => ECONNREFUSED);
$player->every('socket', error => EMFILE);
$player->every('epoll_ctl', error => EINVAL);
$player->every('getsockopt', error => EINVAL);
$player->every('setsockopt', error => EINVAL);
$player->settle('nginx', 'access.log');
note($player->failures() . ' calls failed');

$t->done();
