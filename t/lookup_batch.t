#!/usr/bin/perl

# What lookups cost: at each point they go out with the question of the limits,
# in one write; those that are asked at the same time are one; a server that
# needs none asks none; a limit that needs one is asked behind it.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use MIME::Base64 qw(encode_base64);
use Test::More;
use Time::HiRes qw(sleep);

use MailPolicy;
use MailPolicy::FakeRedis qw(is_charge integers charged);

my $CRLF = "\r\n";
my $t = MailPolicy->new();
my $relay = $t->run_relay(name => 'relay', store => 0);

my $fake = MailPolicy::FakeRedis->new(dir => $t->dir(),
    port => $t->port('fake'), modes => {
        good => sub { answer(@_) },
        hold => sub { is_charge(@_) || $_[0] eq 'GET'
            ? (\0.3, answer(@_)) : answer(@_) },
    });

sub answer {
    my @words = @_;

    return "+PONG$CRLF" if $words[0] eq 'PING';
    return "\$-1$CRLF" if $words[0] eq 'GET';
    return integers(charged(@words)) if is_charge(@words);
    return integers(1);
}

$t->conf(<<'EOF');
mail {
    server_name   edge.example.com;
    policy_redis  redis://127.0.0.1:%%PORT_fake%% timeout=5s connections=1
                  cache=1h events=0;

    upstream outbound { server 127.0.0.1:%%PORT_relay%%; }

    policy_lookup  $client  client:$remote_addr;
    policy_lookup  $login   login:$sasl_username;
    policy_lookup  $from    sender:$sender;
    policy_lookup  $relay   route:$recipient_domain  outbound;
    policy_lookup  $again   route:$recipient_domain  outbound;
    policy_lookup  $strict  strict:$sender           yes;

    map "$client$login$from$again" $all {
        default  $relay;
    }

    policy         on;
    policy_auth    file:%%DIR%%/users;
    policy_auth_plaintext  on;
    policy_limit   all  key=$remote_addr    messages=1000/1h connections=1000/1h;
    policy_limit   who  key=$sasl_username  messages=1000/1h connections=1000/1h;
    policy_limit   to   key=$recipient      recipients=1000/1h;

    server {
        listen        127.0.0.1:%%PORT_all%%;
        protocol      smtp;
        smtp_capabilities  PIPELINING;
        proxy_pass    $all;
    }

    server {
        listen        127.0.0.1:%%PORT_plain%%;
        protocol      smtp;
        policy_auth   off;
        proxy_pass    outbound;
    }

    server {
        listen        127.0.0.1:%%PORT_behind%%;
        protocol      smtp;
        smtp_capabilities  PIPELINING;
        policy_auth   off;
        policy_limit  some  key=$sender  if=$strict  messages=1000/1h;
        proxy_pass    outbound;
    }
}
EOF

$t->write_file('users', "ann:{PLAIN}secret\n");
$t->run_nginx();

my $read = 0;

# what was asked since the last call, but for entries of limits and what is
# given back: "CHARGE" or the key of a GET

sub asked {
    my @now = $fake->commands();
    my @asked = map {
        my (undef, @words) = @$_;
        $words[0] eq 'GET' ? $words[1] =~ s/^mail://r
            : is_charge(@words) ? 'CHARGE' : ();
    } @now[$read .. $#now];

    $read = @now;
    return join(' ', sort @asked);
}


sub codes { return join(' ', map { substr($_, 0, 3) } @_) }

# all that one point asks is asked before any of it is answered

sub point {
    my ($name, $expected, $code) = @_;

    $t->wait_for(sub { asked() eq '' });
    $fake->mode('hold');
    $code->();

    my $all = '';
    $t->wait_for(sub {
        $all = join(' ', sort split(/ /, "$all " . asked())) =~ s/^ +//r;
        return $all eq $expected }, 0.25);
    is($all, $expected, $name);
    $fake->mode('good');
}


my $c;

point('at the beginning', 'CHARGE client:127.0.0.1', sub {
    $c = $t->client('all');
    $c->greeting();
});
like($c->ehlo(), qr/^250/, 'EHLO');

point('with the login', 'CHARGE login:ann', sub {
    $c->send_raw('AUTH PLAIN ' . encode_base64("\0ann\0secret", '') . $CRLF);
});
like($c->read_reply(), qr/^235 /, 'AUTH');

point('at MAIL', 'CHARGE sender:s@example.com', sub {
    $c->send_raw("MAIL FROM:<s\@example.com>$CRLF");
});
like($c->read_reply(), qr/^250 /, 'MAIL');

point('at RCPT, one key of two lookups', 'CHARGE route:a.example', sub {
    $c->send_raw("RCPT TO:<1\@a.example>$CRLF");
});
like($c->read_reply(), qr/^250 /, 'RCPT');

point('pipelined', 'CHARGE CHARGE CHARGE CHARGE route:b.example '
    . 'route:c.example', sub {
    $c->send_raw(join('', map { "RCPT TO:<$_>$CRLF" } '2@a.example',
        '3@b.example', '4@b.example', '5@c.example'));
});
is(codes(map { $c->read_reply() } 1 .. 4), '250 250 250 250', 'all at once');
like($c->cmd('RSET'), qr/^250 /, 'RSET');

point('remembered: the limits only', 'CHARGE CHARGE', sub {
    $c->pipeline('MAIL FROM:<s@example.com>', 'RCPT TO:<6@b.example>');
});
$c->quit();

# many sessions at the same time, one question

my @many = map { $t->session('all') } 1 .. 5;
like($_->auth_plain('ann', 'secret'), qr/^235 /, 'AUTH') for @many;
$t->wait_for(sub { asked() eq '' });
$fake->mode('hold');
$_->send_raw("MAIL FROM:<many\@example.com>$CRLF") for @many;
is(codes(map { $_->read_reply() } @many), '250 250 250 250 250', 'five MAIL');
is(asked(), 'CHARGE CHARGE CHARGE CHARGE CHARGE sender:many@example.com',
    'are one lookup');
$fake->mode('good');
$_->quit() for @many;

# no lookups

$t->wait_for(sub { asked() eq '' });
$c = $t->session('plain');
$c->send_mail('s@example.com', [ 'r@plain.example' ], "x\n");
$c->quit();
like(asked(), qr/^CHARGE(?: CHARGE)+$/, 'a server without a lookup asks none');

# a limit that needs one

point('behind a lookup', 'strict:s@example.com', sub {
    $c = $t->session('behind');
    $c->send_raw("MAIL FROM:<s\@example.com>$CRLF");
});
like($c->read_reply(), qr/^250 /, 'it is asked');
is(asked(), 'CHARGE', 'then, and once');
$c->quit();

$fake->stop();
$t->done();
