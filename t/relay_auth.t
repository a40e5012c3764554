#!/usr/bin/perl

# Logging in to relays: with credentials of the server or of the group, by
# each mechanism, the strongest first; with the client's own; and never in
# clear, nor with a relay that cannot prove that it knows the password.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Test::More;

use MailPolicy;

my $t = MailPolicy->new();
my ($crt, $key) = $t->certificate('relay', 'relay.example.com');

my $PASSWORD = 'se,c=ret ' . "j\xc3\xb6" . ('x' x 90);
my %users = ('edge,=1' => $PASSWORD, group => 'of the group',
    'alice@example.com' => 'secret', 'bob@example.com' => 'other',
    'dave@example.com' => 'x' x 500);

my $tls = $t->run_relay(name => 'tls', users => \%users,
    certificate => { cert => $crt, key => $key, at_once => 1 });
my $clear = $t->run_relay(name => 'clear', users => \%users);

$t->write_file('password', "$PASSWORD\r\nmore\n");
$t->write_file('users', join('',
    map { "$_->[0]:" . $t->crypt($_->[1]) . "\n" }
    [ 'alice@example.com', 'secret' ], [ 'bob@example.com', 'other' ],
    [ 'carol@example.com', 'unknown there' ],
    [ 'dave@example.com', 'x' x 500 ]));

$t->conf(<<'EOF');
mail {
    server_name       edge.example.com;
    policy            on;
    policy_auth       off;
    proxy_ssl_verify  off;
    proxy_auth        'edge,=1' file:%%DIR%%/password;

    upstream group {
        server      127.0.0.1:%%PORT_tls%%;
        proxy_auth  group 'of the group';
        keepalive   4;
    }

    server {
        listen      127.0.0.1:%%PORT_server%%;
        protocol    smtp;
        proxy_pass  127.0.0.1:%%PORT_tls%%;
        proxy_ssl   on;
    }

    server {
        listen      127.0.0.1:%%PORT_group%%;
        protocol    smtp;
        proxy_pass  group;
        proxy_ssl   on;
    }

    server {
        listen      127.0.0.1:%%PORT_off%%;
        protocol    smtp;
        proxy_pass  127.0.0.1:%%PORT_tls%%;
        proxy_ssl   on;
        proxy_auth  off;
    }

    server {
        listen              127.0.0.1:%%PORT_only%%;
        protocol            smtp;
        proxy_pass          127.0.0.1:%%PORT_tls%%;
        proxy_ssl           on;
        proxy_auth_methods  cram-md5 login;
    }

    server {
        listen      127.0.0.1:%%PORT_clear_edge%%;
        protocol    smtp;
        proxy_pass  127.0.0.1:%%PORT_clear%%;
    }

    server {
        listen                127.0.0.1:%%PORT_plaintext%%;
        protocol              smtp;
        proxy_pass            127.0.0.1:%%PORT_clear%%;
        proxy_auth_plaintext  on;
    }

    upstream kept {
        server     127.0.0.1:%%PORT_tls%%;
        keepalive  4;
    }

    server {
        listen                 127.0.0.1:%%PORT_client%%;
        protocol               smtp;
        policy_auth            file:%%DIR%%/users;
        policy_auth_plaintext  on;
        proxy_pass             kept;
        proxy_ssl              on;
        proxy_auth             off;
        proxy_smtp_auth        on;
    }
}
EOF
$t->run_nginx();


sub send_one {
    my ($where, $login, $password) = @_;

    my $c = $t->session($where);
    $c->auth_plain($login, $password) if defined $login;

    my @replies = $c->send_mail('a@example.com', [ 'b@example.net' ], "x\n");
    $c->quit();
    return $replies[-1];
}


sub offers {
    my ($relay, $mechanisms, %other) = @_;

    $relay->set(auth => undef, scram => {}, extensions => [ 'PIPELINING',
        $mechanisms ne '' ? "AUTH $mechanisms" : (), @{ $other{more} // [] } ]);
    $relay->set(%{ $other{set} }) if $other{set};
}


# how the last connection logged in

sub mechanism {
    my ($relay) = @_;

    return (($relay->transcripts())[-1] =~ /^C: AUTH (\S+)/m)[0] // 'none';
}


# each mechanism, and the strongest of several

for my $case (
    [ 'PLAIN', 'PLAIN' ],
    [ 'LOGIN', 'LOGIN' ],
    [ 'CRAM-MD5', 'CRAM-MD5' ],
    [ 'SCRAM-SHA-256', 'SCRAM-SHA-256' ],
    [ 'LOGIN PLAIN', 'PLAIN' ],
    [ 'PLAIN CRAM-MD5 LOGIN', 'CRAM-MD5' ],
    [ 'GSSAPI PLAIN CRAM-MD5 SCRAM-SHA-256 SCRAM-SHA-1', 'SCRAM-SHA-256' ],
) {
    my ($offered, $wanted) = @$case;

    offers($tls, $offered);
    like(send_one('server'), qr/^250 /, "$offered: accepted");
    is(mechanism($tls), $wanted, "$offered: by $wanted");
    is(($tls->received())[-1]{auth}, 'edge,=1', "$offered: as we are called");
}

like(send_one('server'), qr/^250 /, 'SCRAM: again, with the keys known');

offers($tls, 'SCRAM-SHA-256', set => { scram =>
    { iterations => 20_000, salt => 'another' } });
like(send_one('server'), qr/^250 /, 'SCRAM: another salt, more iterations');

offers($tls, 'PLAIN SCRAM-SHA-256 LOGIN');
like(send_one('only'), qr/^250 /, 'proxy_auth_methods: accepted');
is(mechanism($tls), 'LOGIN', 'proxy_auth_methods: no other');

# whose

like(send_one('group'), qr/^250 /, "the group's: accepted");
is(($tls->received())[-1]{auth}, 'group', "the group's: goes first");
my $connections = $tls->stats()->{total};
like(send_one('group'), qr/^250 /, "the group's: kept");
is($tls->stats()->{total}, $connections, 'kept: the same connection');

like(send_one('off'), qr/^250 /, 'off: accepted');
is(mechanism($tls), 'none', 'off: no AUTH');

# not let in: the client hears nothing of it

sub refused {
    my ($name, $where, $log, @login) = @_;

    my $before = length($t->error_log());
    my $messages = () = $tls->received();

    like(send_one($where, @login),
        qr/^451 4\.3\.5 Relay configuration problem, try again later$/,
        "$name: refused");
    like(substr($t->error_log(), $before), $log, "$name: the log says why");
    is(scalar(() = $tls->received()), $messages, "$name: no mail");
}


for my $reply ('535 5.7.8 no', '454 4.7.0 later', '530 5.7.0 no', '250 ok',
    '334 more')
{
    offers($tls, 'PLAIN', set => { auth => $reply });
    refused("PLAIN: $reply", 'server', qr/does not let "edge,=1" log in.*rel/);
}

offers($tls, '');
refused('AUTH is not offered', 'server', qr/offers no way to log in/);
offers($tls, 'GSSAPI SCRAM-SHA-1');
refused('no mechanism of ours', 'server', qr/offers no way to log in/);

for my $fault (
    [ { signature => 'x' x 32 }, qr/does not know the password/ ],
    [ { signature => 'short' }, qr/does not know the password/ ],
    [ { final => 'e=other-error' }, qr/does not know the password/ ],
    [ { early => 1 }, qr/does not let/ ],
    [ { nonce => 'of its own' }, qr/invalid SCRAM message/ ],
    [ { first => 'm=x,r=y,s=QQ==,i=4096' }, qr/invalid SCRAM message/ ],
    [ { iterations => 4095 }, qr/invalid number of SCRAM iterations/ ],
    [ { first => undef, iterations => 1_000_001 },
        qr/invalid number of SCRAM iterations/ ],
) {
    my ($scram, $log) = @$fault;

    offers($tls, 'SCRAM-SHA-256', set => { scram => $scram });
    refused('SCRAM, ' . join(' ', sort keys %$scram), 'server', $log);
}

# in clear

offers($clear, 'PLAIN LOGIN');
refused('PLAIN in clear', 'clear_edge', qr/offers no way to log in/);
is(mechanism($clear), 'none', 'in clear: no AUTH');
like(send_one('plaintext'), qr/^250 /, 'proxy_auth_plaintext: accepted');
is(mechanism($clear), 'PLAIN', 'proxy_auth_plaintext: in clear');
offers($clear, 'PLAIN CRAM-MD5');
like(send_one('clear_edge'), qr/^250 /, 'CRAM-MD5 in clear: accepted');

# the client's own

offers($tls, 'SCRAM-SHA-256 PLAIN', more => [ 'XCLIENT ADDR LOGIN' ]);

for my $login ([ 'alice@example.com', 'secret' ],
    [ 'bob@example.com', 'other' ])
{
    like(send_one('client', @$login), qr/^250 /, "client's: accepted");
    is(($tls->received())[-1]{auth}, $login->[0], "client's: its name");
    is_deeply([ sort keys %{ ($tls->received())[-1]{xclient} } ], [ 'ADDR' ],
        "client's: not by XCLIENT");
}

offers($tls, 'PLAIN');
like(send_one('client', 'dave@example.com', 'x' x 500), qr/^250 /,
    "client's, a long password: accepted");
like(($tls->transcripts())[-1], qr/^C: AUTH PLAIN\nS: 334 \nC: /m,
    "client's, a long password: not with the command");

offers($tls, 'SCRAM-SHA-256');
like(send_one('client', 'bob@example.com', 'other'), qr/^250 /,
    "client's, SCRAM alone: accepted");
is(mechanism($tls), 'SCRAM-SHA-256', "client's, SCRAM alone: so by it");
offers($tls, 'SCRAM-SHA-256 LOGIN');
like(send_one('client', 'bob@example.com', 'other'), qr/^250 /,
    "client's, SCRAM and LOGIN: accepted");
is(mechanism($tls), 'LOGIN', "client's, SCRAM and LOGIN: no keys are made");

refused("client's, unknown to the relay", 'client', qr/does not let "carol/,
    'carol@example.com', 'unknown there');

# passwords are in no log

my $log = $t->error_log();
ok(index($log, $PASSWORD) < 0 && index($log, 'of the group') < 0,
    'no password in the log');

$t->done();
