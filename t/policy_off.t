#!/usr/bin/perl

# "policy off", and no policy directive at all, leave nginx' own SMTP proxy as
# it is without the module: the same octets to the client, to the relay and
# to the service of "auth_http".

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Test::More;

use MailPolicy;

my $MAIL = "load_module /usr/lib/nginx/modules/ngx_mail_module.so;\n";

my $t = MailPolicy->new();
my $relay = $t->run_relay(name => 'relay', dot => '250 2.0.0 Ok',
    extensions => [ 'PIPELINING', 'SIZE 10000000', '8BITMIME',
                    'XCLIENT NAME ADDR LOGIN' ]);
my $requests = "$t->{dir}/requests";
my $http = $t->run_http(name => 'auth', \&auth_http);

# built in, it cannot be left out
my $stock = defined $ENV{TEST_NGINX_GLOBALS} && $t->globals() eq ''
    ? undef : run('stock', $MAIL, '');
my $silent = run('silent', $t->globals(), '');
my $off = run('off', $t->globals(), 'policy  off;');

like($silent->{client}, qr/^235 .*^354 .*^250 .*^221 /ms,
    'the session went through');
like($silent->{relay}, qr/^XCLIENT .*^MAIL FROM:<alice\@example\.com>/ms,
    'nginx spoke to the relay');
is(scalar $relay->messages(), defined $stock ? 3 : 2,
    'the relay has all messages');

SKIP: {
    skip 'the module is built in', 6 unless defined $stock;

    for my $side (qw(client relay http)) {
        is($silent->{$side}, $stock->{$side}, "no directive: $side side");
        is($off->{$side}, $stock->{$side}, "policy off: $side side");
    }
}

is_deeply($off, $silent, '"policy off" is the default');

$t->done();


# what each side was sent, to the octet

sub run {
    my ($name, $globals, $directive) = @_;

    local $t->{globals} = $globals;

    $t->conf($name, <<"EOC");
mail {
    server_name  edge.example.com;
    auth_http    127.0.0.1:%%PORT_auth%%/;

    server {
        listen             127.0.0.1:%%PORT_$name%%;
        protocol           smtp;
        smtp_auth          plain login;
        smtp_capabilities  PIPELINING 8BITMIME "SIZE 10000000";
        xclient            on;
        $directive
    }
}
EOC
    $t->run_nginx($name);

    my $streams = () = $relay->streams();
    unlink($requests);

    my @replies = (errors($name), session($name), early($name));

    $t->instance($name)->stop();

    my @streams = $relay->streams();

    return {
        client => join("\n", @replies),
        relay  => join("\n--\n", @streams[$streams .. $#streams]),
        http   => $t->read_file('requests'),
    };
}


sub session {
    my ($name) = @_;

    my $c = $t->client($name);

    return (
        $c->greeting(),
        $c->ehlo(),
        $c->auth_plain('alice@example.com', 'secret'),
        $c->send_mail('alice@example.com', [ 'bob@example.net' ],
            "Subject: x\n\n.dot\n..\nend\n"),
        $c->cmd('NOOP'),
        $c->cmd('xyzzy'),
        $c->cmd('RSET'),
        $c->quit(),
    );
}


# what nginx answers by itself

sub errors {
    my ($name) = @_;

    my $c = $t->client($name);
    return (
        $c->greeting(),
        $c->cmd('HELO client.example'),
        $c->cmd('xyzzy'),
        $c->cmd('MAIL FROM:<alice@example.com>'),
        $c->cmd('RCPT TO:<bob@example.net>'),
        $c->cmd('AUTH CRAM-SHA9'),
        $c->cmd('NOOP'),
        $c->cmd('RSET'),
        $c->cmd('STARTTLS'),
        $c->ehlo(),
        $c->auth_login('mallory', 'wrong'),
        $c->quit(),
    );
}


# commands in one write with AUTH: the buffer changes hands

sub early {
    my ($name) = @_;

    my $c = $t->client($name);
    my @replies = ($c->greeting(), $c->pipeline('EHLO a.example', 'NOOP'));

    push @replies, $c->auth_plain('bob', 'secret'), $c->quit();
    return @replies;
}


sub auth_http {
    my ($request) = @_;

    my $headers = $request->{headers};

    # the port of auth_http is in it, and nothing else that differs
    open(my $fh, '>>', $requests) or die "$requests: $!\n";
    print $fh "$request->{line}\n",
        map { "$_: $headers->{$_}\n" } sort keys %$headers;
    close($fh);

    return { headers => {
        'Auth-Status' => 'Invalid login or password',
        'Auth-Wait'   => 1,
    } } if $headers->{'auth-pass'} ne 'secret';

    return { headers => {
        'Auth-Status' => 'OK',
        'Auth-Server' => '127.0.0.1',
        'Auth-Port'   => $relay->port(),
    } };
}
