#!/usr/bin/perl

# Each variable in a line of the log, for one message that has all of them;
# what there is not is empty.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Test::More;

use Socket qw(inet_aton);
use Sys::Hostname ();

use MailPolicy;

eval { require IO::Socket::SSL };
plan(skip_all => 'IO::Socket::SSL is not installed') if $@;

my @ALL = qw(remote_addr remote_port client_net client_host server_addr
    server_port server_name connection helo protocol sasl_method sasl_username
    sender sender_local sender_domain recipient recipient_domain recipients
    rejected_recipients message_size status reply outcome limit limit_remaining
    retry_after verdict upstream_addr upstream_name upstream_status
    upstream_response_time queue_id session_time transaction bytes_received
    bytes_sent ssl_protocol ssl_cipher ssl_client_verify ssl_client_s_dn
    ssl_client_fingerprint msec time_local time_iso8601 pid hostname);

my $t = MailPolicy->new();
my $relay = $t->run_relay(name => 'relay');
$t->run_relay(name => 'down', connect => 'refuse');

$t->write_file('users', 'Alice:' . $t->crypt('secret') . "\n");
$t->certificate('edge');
my ($crt, $key) = $t->certificate('laptop');

my $format = join(',', map { qq("$_":"\${$_}") } @ALL);

$t->conf(<<"EOF");
worker_processes 1;
mail {
    server_name             edge.example.com;
    ssl_certificate         %%DIR%%/edge.crt;
    ssl_certificate_key     %%DIR%%/edge.key;
    ssl_verify_client       optional;
    ssl_client_certificate  $crt;

    log_format  all  escape=json '{$format}';
    access_log  %%DIR%%/access.log all;

    upstream group {
        server 127.0.0.1:%%PORT_down%% weight=100 max_fails=0;
        server 127.0.0.1:%%PORT_relay%%;
    }

    policy        on;
    proxy_pass    group;
    policy_limit  hourly key=\$client_net messages=3/h;

    server {
        listen       127.0.0.1:%%PORT_tls%% ssl;
        protocol     smtp;
        policy_auth  file:%%DIR%%/users;
    }

    server {
        listen       127.0.0.1:%%PORT_clear%%;
        protocol     smtp;
        policy_auth  off;
        server_name  inside.example.com;
    }

    server {
        listen       unix:%%DIR%%/socket;
        protocol     smtp;
        policy_auth  off;
        policy_limit none key=\$sasl_username messages=3/h;
    }
}
EOF
$t->run_nginx();


# the next lines; one may be written behind the reply

my $seen = 0;

sub lines {
    my ($n) = @_;

    $t->wait_for(sub { $t->access_log() >= $seen + $n });
    my @lines = $t->access_log();
    my @new = @lines[$seen .. $#lines];

    $seen = @lines;
    return @new;
}


sub session_ok {
    my ($line) = @_;

    like($line->{msec}, qr/^\d{10}\.\d{3}$/, '$msec');
    cmp_ok(abs($line->{msec} - time()), '<', 20, '$msec is now');
    like($line->{time_local},
        qr{^\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4}$},
        '$time_local');
    like($line->{time_iso8601},
        qr/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d\d:\d\d$/, '$time_iso8601');
    is($line->{pid}, ($t->worker_pids())[0], '$pid');
    is($line->{hostname}, lc Sys::Hostname::hostname(), '$hostname');
    like($line->{session_time}, qr/^\d\.\d{3}$/, '$session_time');
    like($line->{connection}, qr/^\d+$/, '$connection');
}


# a login under TLS with a certificate; the second recipient is refused

$relay->set(rcpt => { match => qr/nobody/, action => '550 5.1.1 Unknown' },
    dot => '250 2.0.0 Ok: queued as 4XyZ1k2m3nzDbk');

my %ssl = (ssl => { SSL_use_cert => 1, SSL_cert_file => $crt,
    SSL_key_file => $key });

my $c = $t->client('tls', tls => 1, %ssl);
my $port = $c->socket()->sockport();
my $got = length($c->greeting()) + 2;
my $sent = 0;

sub cmd {
    my ($cmd) = @_;

    $sent += length($cmd) + 2;
    my $reply = $c->cmd($cmd);
    $got += length($reply) + 2 + ($reply =~ tr/\n//);
    return $reply;
}

cmd('EHLO laptop.example');
cmd('AUTH PLAIN AEFsaWNlAHNlY3JldA==');
cmd('MAIL FROM:<Alice.B@Example.ORG> SIZE=99');
cmd('RCPT TO:<bob@example.NET>');
cmd('RCPT TO:<nobody@Example.com>');
cmd('DATA');
my $body = "Subject: x\r\n\r\ntext\r\n";
$sent += length($body);
$c->send_raw($body);
cmd('.');

my ($line) = lines(1);
my %is = (
    remote_addr => '127.0.0.1', remote_port => $port,
    client_net => '127.0.0.1', client_host => '', server_addr => '127.0.0.1',
    server_port => $t->port('tls'), server_name => 'edge.example.com',
    helo => 'laptop.example', protocol => 'ESMTPSA', sasl_method => 'PLAIN',
    sasl_username => 'Alice', sender => 'Alice.B@Example.ORG',
    sender_local => 'Alice.B', sender_domain => 'example.org',
    recipient => 'nobody@Example.com', recipient_domain => 'example.com',
    recipients => 1, rejected_recipients => 1, message_size => length($body),
    status => 250, outcome => 'accepted', reply => '250 2.0.0 Ok: queued as 4XyZ1k2m3nzDbk',
    limit => 'hourly', limit_remaining => 2, retry_after => 0,
    verdict => 'pass', upstream_name => 'group',
    upstream_addr => '127.0.0.1:' . $t->port('down') . ', 127.0.0.1:'
        . $t->port('relay'),
    upstream_status => '-, 250', queue_id => '4XyZ1k2m3nzDbk',
    transaction => 1, bytes_received => $sent, bytes_sent => $got,
    ssl_client_verify => 'SUCCESS', ssl_client_s_dn => 'CN=laptop',
);

is($line->{$_}, $is{$_}, "\$$_") for sort keys %is;

like($line->{upstream_response_time}, qr/^\d\.\d{3}, \d\.\d{3}$/,
    '$upstream_response_time');
like($line->{ssl_protocol}, qr/^TLSv1\.[23]$/, '$ssl_protocol');
is($line->{ssl_protocol}, $c->socket()->get_sslversion() =~ s/_/./r,
    '$ssl_protocol is the one');
is($line->{ssl_cipher}, $c->socket()->get_cipher(), '$ssl_cipher');
is($line->{ssl_client_fingerprint},
    (`openssl x509 -in $crt -noout -fingerprint -sha1`
        =~ s/.*=//r =~ s/:|\s//gr =~ tr/A-F/a-f/r),
    '$ssl_client_fingerprint');
session_ok($line);
is(join(' ', sort keys %$line), join(' ', sort @ALL), 'no other');


# another message of the session; octets are those since the line before

my $number = $line->{connection};

($got, $sent) = (0, 0);
cmd('MAIL FROM:<>');
cmd('RSET');

($line) = lines(1);
is($line->{connection}, $number, 'the same connection');
is($line->{transaction}, 2, '$transaction');

# RSET and the reply to it are in the next one

is($line->{bytes_received}, $sent - length("RSET\r\n"),
    '$bytes_received of this one');
is($line->{bytes_sent}, length("250 2.1.0 Ok\r\n"), '$bytes_sent');
is($line->{$_}, '', "\$$_ of a message that did not come about")
    for qw(sender sender_local sender_domain recipient recipient_domain status
    reply queue_id);
is($line->{outcome}, 'aborted', '$outcome of one that did not come about');
$c->quit();


# no login, no TLS, no certificate

$c = $t->session('clear', helo => 'plain.example');
$c->send_mail('a@example.com', [ 'b@example.net' ], "x\n");

($line) = lines(1);
is($line->{protocol}, 'ESMTP', '$protocol in clear');
is($line->{server_name}, 'inside.example.com', '$server_name of its own');
is($line->{$_}, '', "\$$_ in clear")
    for qw(sasl_method sasl_username ssl_protocol ssl_cipher ssl_client_verify
    ssl_client_s_dn ssl_client_fingerprint);

# the limit of three an hour

$c->cmd('MAIL FROM:<a@example.com>');
$c->cmd('RSET');
$c->send_mail('a@example.com', [ 'b@example.net' ], "x\n");
my $reply = $c->cmd('MAIL FROM:<a@example.com>');
like($reply, qr/^450 4\.7\.1 /, 'over the limit');

(undef, undef, $line) = lines(3);
is($line->{limit}, 'hourly', '$limit that was exceeded');
is($line->{limit_remaining}, 0, '$limit_remaining of it');
is($line->{verdict}, 'defer', '$verdict of it');
is($line->{retry_after}, $reply =~ /retry in (\d+) s/ ? $1 : '-',
    '$retry_after of it');
is($line->{status}, 450, '$status of a refusal');
is($line->{outcome}, 'deferred', '$outcome of a refusal');
is($line->{reply}, $reply, '$reply of a refusal');


# a client at a unix socket; a limit that does not apply

$c = $t->session(undef, path => $t->dir() . '/socket');
$c->send_mail('a@example.com', [ 'b@example.net' ], "x\n");

($line) = lines(1);
is($line->{remote_addr}, 'unix:', '$remote_addr of a unix socket');
is($line->{client_net}, 'unix', '$client_net of a unix socket');
is($line->{$_}, '', "\$$_ of a unix socket") for qw(remote_port server_port);
is($line->{$_}, '', "\$$_ where no limit applies")
    for qw(limit limit_remaining retry_after);

$t->done();
