#!/usr/bin/perl

# nginx in front of a real Postfix, and both ask the same limits: what has
# come through an edge is charged once, by the edge, and what has not, by the
# listener.  What Postfix says of each, and what its clients cannot make it
# say.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Test::More;

use MailPolicy;
use MailPolicy::Dovecot;
use MailPolicy::Limits qw(is_used);
use MailPolicy::PolicyServer;
use MailPolicy::Postfix;

my $missing = MailPolicy::Postfix::missing();
plan(skip_all => $missing) if $missing;

my $t = MailPolicy->new();
my $redis = $t->run_redis();
my $hash = $t->crypt('secret');

$t->write_file('users', join('', map { "$_\@example.com:$hash\n" }
    qw(alice bob proxied)));

$t->conf(<<'EOF');
mail {
    server_name            edge.example.com;
    policy_redis           redis://127.0.0.1:%%PORT_redis%% timeout=5s;
    policy_auth            file:%%DIR%%/users;
    policy_auth_plaintext  on;
    proxy_pass             127.0.0.1:%%PORT_smtpd%%;

    policy_limit  user  key=$sasl_username  messages=4/1h  recipients=100/1h;
    policy_limit  from  key=$sender         messages=100/1h;

    policy_edge  xclient  127.0.0.5  127.0.1.0/24
                 server=127.0.0.1:%%PORT_inbound%%;
    policy_edge  server=127.0.0.1:%%PORT_proxied%%;

    server {
        listen    127.0.0.1:%%PORT_submission%%;
        protocol  smtp;
        policy    on;
    }

    server {
        listen       127.0.0.1:%%PORT_inbound%%;
        protocol     smtp;
        policy       on;
        policy_auth  off;
    }

    # an edge that has not been told of
    server {
        listen       127.0.0.1:%%PORT_other%%;
        protocol     smtp;
        policy       on;
        policy_auth  off;
    }

    # without XCLIENT
    server {
        listen      127.0.0.1:%%PORT_bound%%;
        protocol    smtp;
        policy      on;
        xclient     off;
        proxy_bind  127.0.0.5;
    }

    server {
        listen      127.0.0.1:%%PORT_unknown%%;
        protocol    smtp;
        policy      on;
        xclient     off;
        proxy_bind  127.0.0.6;
    }

    # PROXY protocol instead
    server {
        listen          127.0.0.1:%%PORT_proxied%%;
        protocol        smtp;
        policy          on;
        xclient         off;
        proxy_protocol  on;
        proxy_pass      127.0.0.1:%%PORT_smtpd_proxy%%;
    }

    server {
        listen    127.0.0.1:%%PORT_policy%%;
        protocol  policy;
    }
}
EOF
$t->run_nginx();

my $dovecot = MailPolicy::Dovecot->new(dir => $t->dir(),
    users => { map { ("$_\@example.com" => 'secret') } qw(alice bob) });
my $recorder = MailPolicy::PolicyServer->new(dir => $t->dir(),
    name => 'recorder', port => $t->port('recorder'));

# spaces are commas in master.cf
my $ask = join(',', map { 'check_policy_service,inet:127.0.0.1:'
    . $t->port($_) } qw(recorder policy));
my @smtpd = map { "smtpd_${_}_restrictions=$ask" }
    qw(recipient data end_of_data);

my $postfix = MailPolicy::Postfix->new($t,
    smtpd => { smtpd => \@smtpd, smtpd_proxy => [ @smtpd,
        'smtpd_upstream_proxy_protocol=haproxy' ] },
    main => [ 'smtpd_authorized_xclient_hosts = 127.0.0.1',
              'smtpd_authorized_xforward_hosts = 127.0.0.8',
              'smtpd_error_sleep_time = 0', 'smtpd_sasl_auth_enable = yes',
              'smtpd_sasl_type = dovecot',
              'smtpd_sasl_path = ' . $dovecot->socket() ]);


# one session of one message, and what its first question said

sub send_one {
    my ($where, $sender, %option) = @_;

    my $before = () = $recorder->requests();
    my $c = $t->client($where, from => $option{from} // '127.0.0.9');

    $c->greeting();
    $c->ehlo($option{helo} // 'client.example');
    $c->auth_plain("$option{login}\@example.com", 'secret')
        if $option{login};
    is($c->cmd($_->[0]), $_->[1], "$sender: $_->[0]")
        for @{ $option{first} // [] };

    my @replies = $c->send_mail("$sender\@example.com",
        [ map { "r$_\@example.net" } 1 .. 3 ], "Subject: x\n\nx\n");
    like($replies[-1], $option{reply} // qr/^250 2\.0\.0 Ok: queued as /,
        "$sender: the message");
    $c->quit();

    return ($recorder->requests())[$before];
}

sub is_told {
    my ($asked, $what, %expected) = @_;

    local $Test::Builder::Level = $Test::Builder::Level + 1;

    is_deeply({ map { $_ => $asked->{$_} } keys %expected }, \%expected,
        "$what: what Postfix says");
}

sub is_charged {
    my ($sender, $times) = @_;

    local $Test::Builder::Level = $Test::Builder::Level + 1;

    is_used($redis, "$sender: charged $times", 'from',
        "$sender\@example.com", messages => $times, timeout => 5);
}

sub from_edge {
    my ($name) = @_;

    return (client_address => '127.0.0.9', server_address => '127.0.0.1',
        server_port => $t->port($name));
}


# with a login, and XCLIENT

my $asked = send_one('submission', 'alice', login => 'alice');

is_told($asked, 'XCLIENT LOGIN', from_edge('submission'),
    sasl_method => 'XCLIENT', sasl_username => 'alice@example.com',
    protocol_state => 'RCPT');
is_charged('alice', 1);
is_used($redis, 'alice: her limit', 'user', 'alice@example.com',
    messages => 1, recipients => 3, timeout => 5);

# one limit for both ways: by the edge, by Postfix, and by the edge again

$asked = send_one('smtpd', 'alice', login => 'alice');
is_told($asked, 'a login at Postfix', client_address => '127.0.0.9',
    server_port => $t->port('smtpd'), sasl_method => 'PLAIN',
    sasl_username => 'alice@example.com');
is_used($redis, 'alice: both ways are one', 'user', 'alice@example.com',
    messages => 2, recipients => 6, timeout => 5);

send_one('submission', 'alice', login => 'alice');
send_one('smtpd', 'alice', login => 'alice');
is_used($redis, 'alice: exactly her limit', 'user', 'alice@example.com',
    messages => 4, recipients => 12, timeout => 5);
send_one($_, 'alice', login => 'alice', reply => qr/^450 4\.7\.1 /)
    for 'submission', 'smtpd';
is_charged('alice', 4);


# without a login

$asked = send_one('inbound', 'mx');
is_told($asked, 'XCLIENT without LOGIN', from_edge('inbound'),
    sasl_method => '', sasl_username => '');
is_charged('mx', 1);

send_one('other', 'other');
is_charged('other', 2);

# without XCLIENT

$asked = send_one('bound', 'bob', login => 'bob');
is_told($asked, 'an edge without XCLIENT', client_address => '127.0.0.5',
    server_port => $t->port('smtpd'), sasl_method => '');
is_charged('bob', 1);

send_one('unknown', 'unknown', login => 'bob');
is_charged('unknown', 2);

# PROXY protocol

$asked = send_one('proxied', 'proxied', login => 'proxied');
is_told($asked, 'PROXY protocol', from_edge('proxied'), sasl_method => '');
is_charged('proxied', 1);


# Postfix itself: what a client says makes it no edge

my $no_xclient = '550 5.7.0 Error: insufficient authorization';

send_one('smtpd', 'direct');
is_charged('direct', 1);

$asked = send_one('smtpd', 'xclient', first => [
    map { [ "XCLIENT $_" => $no_xclient ] } 'LOGIN=eve@example.com',
        'DESTADDR=127.0.0.1 DESTPORT=' . $t->port('inbound'),
        'ADDR=127.0.0.5' ]);
is_told($asked, 'XCLIENT of others', client_address => '127.0.0.9',
    server_port => $t->port('smtpd'), sasl_method => '');
is_charged('xclient', 1);

$asked = send_one('smtpd', 'sasl', first => [ [ 'AUTH XCLIENT ZXZl' =>
    '535 5.7.8 Error: authentication failed: '
    . 'Invalid authentication mechanism' ] ]);
is_told($asked, 'a mechanism of this name', sasl_method => '');
is_charged('sasl', 1);

# who may forward, for the log, cannot say where mail is from

$asked = send_one('smtpd', 'xforward', from => '127.0.0.8', first => [
    [ 'XFORWARD NAME=edge.example.com ADDR=127.0.0.5 PROTO=ESMTP' =>
      '250 2.0.0 Ok' ] ]);
is_told($asked, 'XFORWARD', client_address => '127.0.0.8');
is_charged('xforward', 1);

# no attribute comes out of another one

$asked = send_one('smtpd', 'helo', helo => "x\x0bsasl_method=XCLIENT");
is_told($asked, 'a name of HELO', sasl_method => '');
is_charged('helo', 1);
$asked = send_one('smtpd', 'from', helo => "[x\rsasl_method=XCLIENT\r]");
is_told($asked, 'a name of HELO with CR', sasl_method => '');
is_charged('from', 1);

$postfix->stop();
$t->done();
