#!/usr/bin/perl

# "policy_clients": who may ask, and what others find (OUT-7).

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Test::More;

use MailPolicy;
use MailPolicy::Policy;

my $t = MailPolicy->new();

$t->conf(<<'EOF');
mail {
    policy_limit    sender  key=$sender  messages=1000/1h;
    policy_clients  127.0.0.2 127.0.1.0/24;
    policy_clients  127.0.0.3;

    server {
        listen    127.0.0.1:%%PORT_some%%;
        listen    unix:%%DIR%%/some.sock;
        protocol  policy;
    }

    server {
        listen          127.0.0.1:%%PORT_socket%%;
        listen          unix:%%DIR%%/socket.sock;
        protocol        policy;
        policy_clients  unix:;
    }

    server {
        listen          127.0.0.1:%%PORT_all%%;
        listen          unix:%%DIR%%/all.sock;
        protocol        policy;
        policy_clients  all;
    }
}
EOF
$t->run_nginx();

# an answer, or "closed"; a question is not waited for

sub ask {
    my ($where, %option) = @_;

    my $client = $t->client($where =~ /sock$/
        ? (undef, path => $t->dir() . "/$where") : ($where, %option));
    my $p = bless({ t => $t, client => $client, buffer => '' },
        'MailPolicy::Policy')->message();

    return $p->is_closed() ? 'closed' : 'open' if $option{silent};

    # it may be closed by now
    local $SIG{PIPE} = 'IGNORE';
    eval { $client->send_raw($p->request()) };

    my $answer = eval { $p->answer(5) } // '';
    return $answer eq '' && $p->is_closed() ? 'closed' : $answer;
}

is(ask('some', from => $_), 'DUNNO', "some: $_")
    for '127.0.0.2', '127.0.0.3', '127.0.1.7';
is(ask('some', from => $_), 'closed', "OUT-7 some: not $_")
    for '127.0.0.1', '127.0.0.4', '127.0.2.1';
is(ask('some', from => '127.0.0.1', silent => 1), 'closed',
    'nothing is waited for');
is(ask('some.sock'), 'closed', 'some: no socket');
is(ask('socket.sock'), 'DUNNO', 'a socket');
is(ask('socket', from => $_), 'closed', "a socket: not $_")
    for '127.0.0.1', '127.0.0.2';
is(ask($_), 'DUNNO', $_) for 'all', 'all.sock';

like($t->error_log(), qr/\[error\] .*policy client is not among (?#
    )"policy_clients", closing.*, client: 127\.0\.0\.4,/, 'it is logged');

$t->done();
