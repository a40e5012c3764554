#!/usr/bin/perl

# What other policy servers are asked: the attributes that a Postfix sends,
# and what is in them.  The one that is installed asks the same server.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Test::More;

use MailPolicy;
use MailPolicy::PolicyServer;
use MailPolicy::Postfix;

my $tls = eval { require IO::Socket::SSL };
my $t = MailPolicy->new();
my $relay = $t->run_relay(name => 'relay', extensions => [ 'PIPELINING',
    'SIZE 52428800', '8BITMIME', 'SMTPUTF8' ]);

my %service = map { $_ => MailPolicy::PolicyServer->new(dir => $t->dir(),
    name => $_, port => $t->port($_)) } qw(service postfix_service);
my $server = $service{service};

$t->write_file('users', 'alice@example.com:' . $t->crypt('secret') . "\n");
$t->certificate('edge');

$t->conf(<<'EOF');
mail {
    server_name          edge.example.com;
    ssl_certificate      %%DIR%%/edge.crt;
    ssl_certificate_key  %%DIR%%/edge.key;
    policy               on;
    policy_auth          off;
    proxy_pass           127.0.0.1:%%PORT_relay%%;
    policy_service       inet:127.0.0.1:%%PORT_service%%;
    policy_service       inet:127.0.0.1:%%PORT_service%% at=data;
    policy_service       inet:127.0.0.1:%%PORT_service%% at=end;

    server {
        listen    127.0.0.1:%%PORT_smtp%%;
        protocol  smtp;
    }

    server {
        listen       127.0.0.1:%%PORT_login%%;
        protocol     smtp;
        starttls     on;
        policy_auth  file:%%DIR%%/users;
    }

    server {
        listen            127.0.0.1:%%PORT_behind%% proxy_protocol;
        protocol          smtp;
        set_real_ip_from  127.0.0.1;
    }
}
EOF
$t->run_nginx();

my @NAMES = qw(request protocol_state protocol_name client_address
    client_name client_port reverse_client_name server_address server_port
    helo_name sender recipient recipient_count queue_id instance size
    etrn_domain stress sasl_method sasl_username sasl_sender ccert_subject
    ccert_issuer ccert_fingerprint ccert_pubkey_fingerprint
    encryption_protocol encryption_cipher encryption_keysize policy_context);
my @STATES = ('RCPT', 'DATA', 'END-OF-MESSAGE');
my $BODY = "Subject: test\r\n\r\ntext\r\n";


# the requests that this leads to

sub requests {
    my ($where, $code) = @_;

    my $before = () = $where->requests();
    $code->();
    my @requests = $where->requests();
    splice(@requests, 0, $before);

    return @requests;
}


sub states { return join(' ', map { $_->{protocol_state} } @_) }


# the values of a request that are not empty, and not those named

sub values_of {
    my ($request, @without) = @_;

    my %value = map { $_ => $request->{$_} }
        grep { $request->{$_} ne '' } keys %$request;

    delete @value{@without};
    return \%value;
}


# a plain message

my $c = $t->session('smtp');
my $port = $c->{socket}->sockport();
my @asked = requests($server, sub {
    $c->send_mail('Some.One@Example.com', [ 'Bob@Example.net' ], $BODY,
        parameters => 'SIZE=1234');
});

is(states(@asked), "@STATES", 'a message: asked at each point');
is_deeply([ sort keys %$_ ], [ sort @NAMES ], "$_->{protocol_state}: all "
    . 'attributes, and no other ones') for @asked;

my ($text) = $server->texts();
is(scalar(() = $text =~ /^[a-z_]+=[^\n]*\n/mg), scalar(@NAMES),
    'each of them once');
like($text, qr/\A(?:[^\n]+\n)+\n\z/, 'and an empty line');

my %all = (
    request             => 'smtpd_access_policy',
    protocol_name       => 'ESMTP',
    client_address      => '127.0.0.1',
    client_port         => $port,
    client_name         => 'unknown',
    reverse_client_name => 'unknown',
    server_address      => '127.0.0.1',
    server_port         => $t->port('smtp'),
    helo_name           => 'client.example',
    sender              => 'Some.One@Example.com',
    recipient           => 'Bob@Example.net',
    encryption_keysize  => 0,
);

for my $case ([ RCPT => 0, 1234 ], [ DATA => 1, 1234 ],
              [ 'END-OF-MESSAGE' => 1, length($BODY) ])
{
    my ($state, $count, $size) = @$case;

    is_deeply(values_of(shift @asked, 'instance'), { %all,
        protocol_state => $state, recipient_count => $count,
        size => $size }, "$state: its values");
}

# several recipients, of whom one is refused

$server->set({ recipient => qr/^no/, answer => 'REJECT no' });
@asked = requests($server, sub {
    $c->send_mail('<>', [ map { "$_\@example.net" } qw(a no b) ], $BODY);
});

is(states(@asked), 'RCPT RCPT RCPT DATA END-OF-MESSAGE', 'three recipients');
is(join(' ', map { "<$_->{recipient}>" } @asked),
    '<a@example.net> <no@example.net> <b@example.net> <> <>',
    'who they are; of all, nobody');
is(join(' ', map { $_->{recipient_count} } @asked), '0 0 0 2 2',
    'how many they are');
is($asked[0]{sender}, '', 'the null sender');
is($asked[0]{size}, 0, 'a size that was not declared');
is(scalar(keys %{ { map { $_->{instance} => 1 } @asked } }), 1,
    'one instance of all questions about a message');
like($asked[0]{instance}, qr/^[!-~]+$/, 'an instance');

# instances: each message its own

my %instance = ($asked[0]{instance} => 1);
my $messages = 1;

for (1 .. 3) {
    for my $client ($c, $t->session('smtp')) {
        my ($request) = requests($server, sub {
            $client->pipeline('MAIL FROM:<a@example.com>',
                'RCPT TO:<b@example.net>', 'RSET');
        });
        $instance{ $request->{instance} } = 1;
        $messages++;
    }
}

$t->reload();
my $other = $t->session('smtp');
my ($after) = requests($server, sub {
    $other->send_mail('a@example.com', [ 'b@example.net' ], $BODY);
});
$instance{ $after->{instance} } = 1;
is(scalar(keys %instance), $messages + 1, 'each message has its own instance');

# HELO, and addresses that are not ASCII

$c = $t->client('smtp');
$c->greeting();
$c->cmd('HELO [127.0.0.1]');
my ($request) = requests($server, sub {
    $c->pipeline('MAIL FROM:<"a b"@example.com>', 'RCPT TO:<b@example.net>');
});
is($request->{protocol_name}, 'SMTP', 'HELO');
is($request->{helo_name}, '[127.0.0.1]', 'HELO: its name');
like($request->{sender}, qr/^"?a b"?\@example\.com$/, 'a quoted sender');
$c->quit();

$c = $t->session('smtp');
($request) = requests($server, sub {
    $c->pipeline("MAIL FROM:<gr\xc3\xbc\xc3\x9fe\@example.com> SMTPUTF8",
        "RCPT TO:<\xc3\xa4\@example.net>");
});
is($request->{sender}, "gr\xc3\xbc\xc3\x9fe\@example.com", 'SMTPUTF8');
is($request->{recipient}, "\xc3\xa4\@example.net", 'SMTPUTF8: recipient');
$c->quit();

# behind a balancer it is the client that counts

for my $case ([ 'TCP4 192.0.2.7 192.0.2.1 4321 25', '192.0.2.7' ],
              [ 'TCP6 2001:db8::7 2001:db8::1 4321 25', '2001:db8::7' ])
{
    my ($header, $address) = @$case;

    $c = $t->client('behind');
    $c->send_raw("PROXY $header\r\n");
    $c->greeting();
    $c->ehlo();
    ($request) = requests($server, sub {
        $c->pipeline('MAIL FROM:<a@example.com>', 'RCPT TO:<b@example.net>');
    });
    is($request->{client_address}, $address, 'PROXY protocol');
    is($request->{client_port}, 4321, 'PROXY protocol: port');
    $c->quit();
}

# a login, and TLS

SKIP: {
    skip('IO::Socket::SSL is not installed', 5) unless $tls;

    $c = $t->session('login');
    like($c->starttls(), qr/^220 /, 'TLS');
    $c->ehlo('laptop');
    like($c->auth_plain('alice@example.com', 'secret'), qr/^235 /, 'a login');

    ($request) = requests($server, sub {
        $c->send_mail('alice@example.com', [ 'b@example.net' ], $BODY);
    });

    is(lc("$request->{sasl_method} $request->{sasl_username}"),
        'plain alice@example.com', 'a login: its attributes');
    is("$request->{encryption_protocol} $request->{encryption_cipher}",
        $c->{socket}->get_sslversion() =~ s/_/./r . ' '
        . $c->{socket}->get_cipher(), 'TLS: its attributes');
    like($request->{encryption_keysize}, qr/^(?:128|256)$/, 'TLS: key size');
    $c->quit();
}

# Postfix

SKIP: {
    my $missing = MailPolicy::Postfix::missing();
    skip($missing, 7) if $missing;

    my $ask = 'check_policy_service inet:127.0.0.1:'
        . $t->port('postfix_service');

    MailPolicy::Postfix->new($t, smtpd => { postfix => [] }, main => [
        "smtpd_recipient_restrictions = $ask, permit",
        "smtpd_data_restrictions = $ask",
        "smtpd_end_of_data_restrictions = $ask" ]);

    my @rcpts = map { "$_\@example.net" } qw(a no b);
    my %questions;

    $service{postfix_service}->set({ recipient => qr/^no/,
        answer => 'REJECT no' });

    for my $which ([ smtp => 'service' ], [ postfix => 'postfix_service' ]) {
        my ($port, $name) = @$which;
        my $client = $t->session($port);

        $questions{$name} = [ requests($service{$name}, sub {
            $client->send_mail('alice@example.com', \@rcpts, $BODY,
                parameters => 'SIZE=1234');
        }) ];
        $client->quit();
    }

    my ($ours, $theirs) = @questions{qw(service postfix_service)};

    # since 3.8, of which we are none
    delete @$_{qw(mail_version compatibility_level)} for @$theirs;

    is(states(@$ours), states(@$theirs), 'Postfix asks when we do');

    for my $i (0 .. $#$theirs) {
        my $name = "$i, $theirs->[$i]{protocol_state}";

        is_deeply([ sort keys %{ $ours->[$i] } ],
            [ sort keys %{ $theirs->[$i] } ], "$name: the same names");

        # what it calls itself, and it
        my @own = qw(client_port instance queue_id server_port);
        is_deeply(values_of($ours->[$i], @own),
            values_of($theirs->[$i], @own), "$name: the same values");
    }
}

$t->done();
