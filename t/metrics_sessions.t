#!/usr/bin/perl

# Sessions that are "active" in policy_status: none is, when clients are gone,
# wherever in a session they went, and however; nor is one of a worker that
# was killed.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use JSON::PP ();
use MIME::Base64 qw(encode_base64);
use Test::More;

use MailPolicy;

my $t = MailPolicy->new();
my $relay = $t->run_relay(name => 'relay');

$t->certificate('edge');
$t->write_file('users', 'u@example.com:' . $t->crypt('secret') . "\n");

$t->conf(<<'EOC');
worker_processes  2;

mail {
    server_name            edge.example.com;
    policy                 on;
    policy_auth            off;
    policy_auth_plaintext  on;
    max_errors             3;
    timeout                2s;
    starttls               on;
    ssl_certificate        edge.crt;
    ssl_certificate_key    edge.key;
    proxy_pass             127.0.0.1:%%PORT_relay%%;

    server {
        listen    127.0.0.1:%%PORT_smtp%%;
        protocol  smtp;
    }

    server {
        listen       127.0.0.1:%%PORT_login%%;
        protocol     smtp;
        policy_auth  file:%%DIR%%/users;
    }

    server {
        listen    127.0.0.1:%%PORT_tls%%  ssl;
        protocol  smtp;
    }

    server {
        listen         127.0.0.1:%%PORT_closed%%;
        protocol       smtp;
        policy_limit   closed  key=$remote_addr  sessions=blocked;
    }

    server {
        listen               127.0.0.1:%%PORT_late%%;
        protocol             smtp;
        smtp_greeting_delay  300ms;
    }

    server {
        listen     127.0.0.1:%%PORT_nobody_there%%;
        protocol   smtp;
        proxy_pass 127.0.0.1:%%PORT_nobody%%;
    }
}

http {
    server {
        listen  127.0.0.1:%%PORT_http%%;

        location / {
            policy_status  json;
        }
    }
}
EOC
$t->run_nginx();

my ($total, @left) = (0);

# all of a session, and each beginning of it

my @WHOLE = ('EHLO c.example', 'MAIL FROM:<a@example.com>',
    'RCPT TO:<r@example.net>', 'DATA', "x\r\n.", 'QUIT');
my @LOGIN = ('EHLO c.example', 'AUTH LOGIN',
    encode_base64('u@example.com', ''), encode_base64('secret', ''),
    'MAIL FROM:<a@example.com>');

for my $way (qw(close reset half_close)) {
    leave($way, 'smtp', @WHOLE[0 .. $_ - 1]) for 0 .. @WHOLE;
    leave($way, 'login', @LOGIN[0 .. $_ - 1]) for 1 .. @LOGIN;
    leave($way, 'login', $LOGIN[0], 'AUTH PLAIN '
        . encode_base64("\0u\@example.com\0wrong", ''));
    leave($way, 'nobody_there', @WHOLE[0 .. 2]);
    leave($way, 'closed');

    # not waited for
    now($way, 'smtp', '');
    now($way, 'smtp', join('', map { "$_\r\n" } @WHOLE[0 .. 3]));
    now($way, 'login', "EHLO c.example\r\nAUTH PLAIN "
        . encode_base64("\0u\@example.com\0secret", '') . "\r\n");
    now($way, 'late', '');
    now($way, 'late', "EHLO too.early\r\n");
    now($way, 'tls', '');
    now($way, 'tls', "\x16\x03\x01\x00\x05no TLS");

    # STARTTLS, and no handshake
    leave($way, 'smtp', 'EHLO c.example', 'STARTTLS');
    leave($way, 'smtp', 'EHLO c.example', 'STARTTLS', 'no handshake');
}

# what the edge ends

leave('wait_close', 'smtp', 'EHLO c.example', ('NONSENSE') x 3);
leave('wait_close', 'smtp', @WHOLE[0 .. 3]);
leave('wait_close', 'closed');

none_left('all have left');
cmp_ok(status('total'), '<=', $total, 'sessions that there were');
cmp_ok(status('total'), '>', $total - 20, 'but those without a greeting');

# TLS

for my $way (qw(close reset)) {
    my $c = $t->session('smtp');
    like($c->starttls(), qr/^220 /, 'STARTTLS');
    is(status('active'), 1, 'under TLS: one session');
    $c->$way();
    none_left("under TLS: $way");
}

# reload: those of old workers are there as long as they are

my @old = map { waiting() } 1 .. 3;
is(status('active'), 3, 'three are under way');
ok($t->reload(), 'reload');
my @new = map { waiting() } 1 .. 2;
is(status('active'), 5, 'reload: old and new ones');
$_->close() for @old;
ok($t->wait_for(sub { status('active') == 2 }), 'reload: the new ones');

# killed: the other worker's are there

my ($killed) = $t->worker_pids();
kill('KILL', $killed);
ok($t->wait_for(sub {
    my @now = $t->worker_pids();
    return @now == 2 && !grep { $_ == $killed } @now;
}), 'another worker comes');

my $open = grep { !$_->wait_close(0.3) } @new;
is(status('active'), $open, "killed: those of the other worker, $open");
$_->close() for @new;
none_left('killed');

$t->allow(qr/exited on signal 9/);
$t->done();


sub status {
    my ($name) = @_;

    return JSON::PP->new()->utf8()->decode($t->http_get('http', '/'))
        ->{sessions}{$name};
}


sub none_left {
    my ($name) = @_;

    $_->close() for splice(@left);
    ok($t->wait_for(sub { status('active') == 0 }), "$name: none is active")
        or diag(status('active'));
}


# leaves when the last command has its reply

sub leave {
    my ($way, $where, @commands) = @_;

    my $c = $t->client($where);

    $total++;
    $c->greeting();
    $c->cmd($_) for @commands;
    $c->$way();
    push @left, $c if $way eq 'half_close';
}


# leaves at once

sub now {
    my ($way, $where, $octets) = @_;

    my $c = $t->client($where);

    $total++;
    $c->send_raw($octets);
    $c->$way();
    push @left, $c if $way eq 'half_close';
}


# one that may stay

sub waiting {
    my $c = $t->session('smtp');

    $c->cmd($_) for @WHOLE[1 .. 3];
    return $c;
}
