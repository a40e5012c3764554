#!/usr/bin/perl

# XCLIENT to relays: only where offered and wanted, only attributes that the
# relay names, in xtext, in several commands where one is too short; a relay
# that refuses it gets no mail.  At the end a real Postfix as relay.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Test::More;

use MailPolicy;
use MailPolicy::Postfix;

my $t = MailPolicy->new();
my $relay = $t->run_relay(name => 'relay');

my $utf8 = "j\xc3\xb6rg\@example.com";
my $plus = ('+' x 230) . '@example.com';
my $hash = $t->crypt('secret');

# with the 256 octets of a long HELO, more than a line may have
my $long = ('l' x 240) . '@example.com';

$t->write_file('users', join('', map { "$_:$hash\n" } 'alice@example.com',
    'a+b=c@example.com', $utf8, $plus, $long));

$t->conf(<<'EOF');
mail {
    server_name            edge.example.com;
    policy                 on;
    policy_auth            file:%%DIR%%/users;
    policy_auth_plaintext  on;
    proxy_timeout          20s;

    server {
        listen      127.0.0.1:%%PORT_smtp%%;
        protocol    smtp;
        proxy_pass  127.0.0.1:%%PORT_relay%%;
    }

    server {
        listen      127.0.0.1:%%PORT_off%%;
        protocol    smtp;
        xclient     off;
        proxy_pass  127.0.0.1:%%PORT_relay%%;
    }

    server {
        listen                  127.0.0.1:%%PORT_required%%;
        protocol                smtp;
        proxy_pass              127.0.0.1:%%PORT_relay%%;
        proxy_xclient_required  on;
    }

    server {
        listen       127.0.0.1:%%PORT_open%%;
        protocol     smtp;
        policy_auth  off;
        proxy_pass   127.0.0.1:%%PORT_relay%%;
    }

    server {
        listen              127.0.0.1:%%PORT_proxied%%  proxy_protocol;
        listen              unix:%%DIR%%/smtp.sock;
        protocol            smtp;
        policy_auth         off;
        set_real_ip_from    127.0.0.1;
        proxy_pass          127.0.0.1:%%PORT_relay%%;
    }

    server {
        listen      127.0.0.1:%%PORT_postfix%%;
        protocol    smtp;
        proxy_pass  127.0.0.1:%%PORT_smtpd%%;
    }
}
EOF
$t->run_nginx();

my $ALL = 'XCLIENT NAME ADDR PROTO HELO REVERSE_NAME PORT LOGIN DESTADDR '
    . 'DESTPORT';

# sends one message; what the relay then knew, and the commands it heard
sub send_one {
    my ($where, %option) = @_;

    my $c = $t->client($where, %{ $option{client} // {} });
    $c->send_raw($option{first}) if $option{first};
    $c->greeting();
    $option{verb} ? $c->cmd("$option{verb} client.example")
                  : $c->ehlo($option{helo});
    $c->auth_plain($option{login}, 'secret') if defined $option{login};

    my @replies = $c->send_mail('a@example.com', [ 'b@example.net' ], "x\n");
    $c->quit();
    return ($replies[-1], ($relay->received())[-1], $c->socket());
}


sub xclients { return grep { /^XCLIENT/ } @{ $_[0]{commands} } }

# not offered, or not wanted

my ($reply, $message) = send_one('smtp', login => 'alice@example.com');
like($reply, qr/^250 /, 'not offered: accepted');
is_deeply([ xclients($message) ], [], 'TRUST-2 not offered: not sent');
is($message->{helo}, 'edge.example.com', 'not offered: our own name');

$relay->set(extensions => [ 'PIPELINING', $ALL ]);
($reply, $message) = send_one('off', login => 'alice@example.com');
like($reply, qr/^250 /, 'xclient off: accepted');
is_deeply([ xclients($message) ], [], 'xclient off: not sent');

# all that we know

($reply, $message) = send_one('smtp', login => 'alice@example.com',
    client => { from => '127.0.0.7' });
like($reply, qr/^250 /, 'offered: accepted');
like(delete $message->{xclient}{PORT}, qr/^\d{4,5}$/,
    "offered: the client's port");
is_deeply($message->{xclient}, { NAME => '[UNAVAILABLE]', ADDR => '127.0.0.7',
    PROTO => 'ESMTP', HELO => 'client.example', LOGIN => 'alice@example.com',
    DESTADDR => '127.0.0.1', DESTPORT => $t->port('smtp') },
    'offered: what we know of the client');
is($message->{helo}, 'client.example', "offered: EHLO with the client's name");
is((grep { /^(?:EHLO|XCLIENT)/ } @{ $message->{commands} })[0],
    'EHLO edge.example.com', 'offered: EHLO before it is ours');
like((xclients($message))[0], qr/ADDR=\S+$/, 'TRUST-3 ADDR comes last');

($reply, $message) = send_one('open', verb => 'HELO');
is($message->{xclient}{PROTO}, 'SMTP', 'HELO: PROTO');
is($message->{xclient}{LOGIN}, '[UNAVAILABLE]', 'TRUST-4 no login: told so');

($reply, $message) = send_one('proxied',
    first => "PROXY TCP6 2001:db8::5 2001:db8::1 4711 25\r\n");
is($message->{xclient}{ADDR}, 'IPV6:2001:db8::5', 'IPv6, by PROXY protocol');
is($message->{xclient}{PORT}, '4711', 'port, by PROXY protocol');

# who comes by a socket has connected to no address

($reply, $message) = send_one(undef, client => {
    path => $t->dir() . '/smtp.sock' });
is_deeply([ @{ $message->{xclient} }{qw(ADDR PORT DESTADDR DESTPORT)} ],
    [ ('[UNAVAILABLE]') x 4 ], 'a unix socket: no addresses');

# some attributes only

for my $list ('ADDR', 'NAME LOGIN', 'LOGIN', 'NAME ADDR HELO', 'DESTPORT',
    'SOMETHING', '')
{
    $relay->set(extensions => [ "XCLIENT $list" ]);
    ($reply, $message) = send_one('smtp', login => 'alice@example.com');
    like($reply, qr/^250 /, "offered \"$list\": accepted");
    is(join(' ', sort keys %{ $message->{xclient} }),
        join(' ', sort grep { $_ ne 'SOMETHING' } split / /, $list),
        "TRUST-2 offered \"$list\": no other attribute");
}

# xtext, and commands that would be too long

$relay->set(extensions => [ 'PIPELINING', $ALL ]);

($reply, $message) = send_one('smtp', login => 'a+b=c@example.com');
is($message->{xclient}{LOGIN}, 'a+b=c@example.com', 'TRUST-3 + and =');
like((xclients($message))[0], qr/ LOGIN=a\+2Bb\+3Dc\@example\.com /,
    'TRUST-3 xtext');
($reply, $message) = send_one('smtp', login => $utf8);
is($message->{xclient}{LOGIN}, $utf8, 'TRUST-3 8 bit');
like((xclients($message))[0], qr/ LOGIN=j\+C3\+B6rg\@/, 'TRUST-3 xtext');

my $helo = join('.', ('h' x 60) x 4) . '.example';
($reply, $message) = send_one('smtp', login => $long, helo => $helo);
like($reply, qr/^250 /, 'TRUST-3 long values: accepted');
cmp_ok(scalar(xclients($message)), '>', 1, 'TRUST-3 several commands');
is($message->{xclient}{LOGIN}, $long, 'TRUST-3 long login');
is($message->{xclient}{HELO}, $helo, 'TRUST-3 long HELO');
is($message->{xclient}{ADDR}, '127.0.0.1', 'TRUST-3 nothing is left out');

# 720 octets in xtext are too many for any line
($reply, $message) = send_one('smtp', login => $plus);
is($message->{xclient}{LOGIN}, '[UNAVAILABLE]',
    'TRUST-3 a value that fits no line is not cut');

# refused; also the second of several

for my $action ('550 5.7.0 no', '503 5.5.1 no', '421 4.3.2 no', '450 4.0.0 no',
    { match => qr/ADDR=/, action => '550 5.7.0 no' })
{
    $relay->set(xclient => $action);
    my $before = $relay->stats()->{messages};
    my $name = ref $action ? 'the second' : $action;

    ($reply) = send_one('smtp', login => $long, helo => $helo);
    like($reply, qr/^451 4\.3\.5 /, "TRUST-2 refused ($name): 451");
    is($relay->stats()->{messages}, $before,
        "TRUST-2 refused ($name): no mail under our own name");
}

$relay->set(xclient => undef);

# where it has to be

for my $offered ([ 'PIPELINING' ], [ 'XCLIENT' ], [ 'XCLIENT NAME LOGIN' ]) {
    $relay->set(extensions => $offered);
    my $before = $relay->stats()->{messages};

    ($reply) = send_one('required', login => 'alice@example.com');
    like($reply, qr/^451 4\.3\.5 /, "required, offered \"@$offered\": 451");
    is($relay->stats()->{messages}, $before, 'required: no mail');
}

like($t->error_log(), qr/does not offer XCLIENT ADDR/, 'required: logged');
$relay->set(extensions => [ 'PIPELINING', $ALL ]);
($reply, $message) = send_one('required', login => 'alice@example.com');
like($reply, qr/^250 /, 'required, offered: accepted');
is($message->{xclient}{ADDR}, '127.0.0.1', 'required, offered: told');

# a login is never seen with the mail of another

my @clients = map { $t->client('smtp') } 1 .. 2;
my @logins = ('alice@example.com', $long);
$_->greeting(), $_->ehlo() for @clients;
$clients[$_]->auth_plain($logins[$_], 'secret') for 0, 1;

for my $n (1 .. 3) {
    for my $i (0, 1) {
        $clients[$i]->send_mail("from$i\@example.com", [ 'b@example.net' ],
            "x\n");
    }
}

is(scalar(grep { my $m = $_; $m->{from} =~ /^from(\d)/
                 && $m->{xclient}{LOGIN} eq $logins[$1] }
    $relay->wait_messages(1)), 6, 'TRUST-4 each message with its own login');
$_->quit() for @clients;

# Postfix

SKIP: {
    my $missing = MailPolicy::Postfix::missing();
    skip($missing, 5) if $missing;

    my $postfix = MailPolicy::Postfix->new($t,
        main => [ 'smtpd_authorized_xclient_hosts = 127.0.0.1' ]);

    my $c = $t->client('postfix', from => '127.0.0.9');
    $c->greeting();
    $c->ehlo('client.example');
    $c->auth_plain('a+b=c@example.com', 'secret');

    my @replies = $c->send_mail('a@example.com', [ 'b@example.net' ], "x\n");
    like($replies[-1], qr/^250 2\.0\.0 Ok: queued as (\w+)$/,
        'Postfix: accepted');
    my ($id) = $replies[-1] =~ /queued as (\w+)/;

    $t->wait_for(sub { $postfix->log() =~ /$id: .*status=sent/ });
    my $log = $postfix->log();

    like($log, qr/$id: client=unknown\[127\.0\.0\.9\]/, 'Postfix: the client');
    like($log, qr/$id: .*sasl_username=a\+b=c\@example\.com/,
        'Postfix: the login');
    unlike($log, qr/warning|fatal|improper/, 'Postfix: nothing to complain of');

    @replies = $c->send_mail('a@example.com', [ 'b@example.net' ], "x\n");
    like($replies[-1], qr/^250 2\.0\.0 Ok: queued as /, 'Postfix: once more');
    $c->quit();
    $postfix->stop();
}

$t->done();
