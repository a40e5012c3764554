#!/usr/bin/perl

# RES-12, STATE-10: alloc_failure.t for servers of "policy_service", whose
# connections are kept or not: memory is refused at each place where nginx
# asks for it, and system calls fail.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Errno qw(ECONNREFUSED ECONNRESET EINVAL EMFILE EPIPE);
use Test::More;

use MailPolicy;
use MailPolicy::FailAlloc;
use MailPolicy::FailAlloc::Player;
use MailPolicy::PolicyServer;

my $t = MailPolicy->new();
my $why = MailPolicy::FailAlloc::impossible($t);
plan(skip_all => $why) if $why;

alarm(600);

my $relay = $t->run_relay(name => 'relay',
    extensions => [ 'PIPELINING', 'SIZE 52428800', '8BITMIME' ]);

# to senders with a t it says more than it was asked, to those with an o it
# closes

my $service = MailPolicy::PolicyServer->new(dir => $t->dir(), name => 'spf',
    port => $t->port('spf'), handler => sub {
        my ($socket, $request) = @_;
        my $action = $request->{recipient} =~ /^bad/ ? 'REJECT 5.7.1 No'
                                                     : 'DUNNO';
        $action .= "\n\naction=DUNNO" if $request->{sender} =~ /^t/;

        MailPolicy::PolicyServer::answer($socket, $action);
        return $request->{sender} !~ /^o/;
    });

push @{ $t->{servers} }, $service;

my $SPF = 'inet:127.0.0.1:%%PORT_spf%%';

my %servers = (
    closed  => "policy_service $SPF timeout=1s;",
    open    => "policy_service $SPF timeout=1s default_action=DUNNO;",
    later   => "policy_service $SPF timeout=1s at=data;
                policy_service $SPF timeout=1s at=end;",
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

mail {
    server_name  edge.example.com;
    access_log   %%DIR%%/access.log;
    policy       on;
    policy_auth  off;
    proxy_pass   main;
    max_errors   40;

    upstream main { server 127.0.0.1:%%PORT_relay%% max_fails=0; }
$blocks
}
EOF

$t->allow(qr/\[emerg\] .*(?:malloc|posix_memalign)\(\d.*\) failed \(12: /,
    qr/\[alert\] .*no memory for a line of the access log/,
    qr/\[(?:alert|crit)\] .*(?:socket|epoll_ctl|getsockopt|setsockopt)\(.*failed/);

my @EHLO = [ "EHLO client.example\r\n" ];
my @QUIT = [ "QUIT\r\n" ];


# where it is passed over when it fails, nobody is refused but by it

sub message {
    my ($letter, $server) = @_;

    return ([ "MAIL FROM:<$letter%ID%\@example.com>\r\n" ],
        $server eq 'closed' ? [ "RCPT TO:<bad\@example.net>\r\n" ] : (),
        [ "RCPT TO:<r\@example.net>\r\n" ], [ "DATA\r\n" ],
        [ "Subject: %ID%\r\n\r\none\r\n.\r\n" ]);
}


my $fail = MailPolicy::FailAlloc->new($t, 'nginx');
my $player = MailPolicy::FailAlloc::Player->new($t, $fail,
    relays => [ $relay ]);

for my $server (qw(closed open later)) {
    for my $letter (qw(o t s)) {
        $player->script(name => "$server: $letter", port => $t->port($server),
            groups => [ @EHLO, message($letter, $server), @QUIT ]);
    }
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
