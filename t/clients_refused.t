#!/usr/bin/perl

# Clients that others wrote report what is refused: a login, a recipient, a
# message that is too large; by the exit codes that they document.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Test::More;

use MailPolicy;
use MailPolicy::Programs;

my $t = MailPolicy->new();
my $programs = MailPolicy::Programs->new($t);
my $relay = $t->run_relay(name => 'relay',
    rcpt => { match => qr/refused@/, action => '550 5.1.1 No such user' });

my $USER = 'alice@example.com';

$t->write_file('users', "$USER:"
    . $t->crypt('secret', '$5$rounds=1000$clients$') . "\n");
$t->certificate('edge');

$t->conf(<<'EOF');
mail {
    server_name            edge.example.com;
    ssl_certificate        %%DIR%%/edge.crt;
    ssl_certificate_key    %%DIR%%/edge.key;
    ssl_protocols          TLSv1.2 TLSv1.3;

    policy                 on;
    policy_auth            file:%%DIR%%/users;
    policy_auth_plaintext  on;
    policy_message_size    1000;
    policy_limit           sender key=$sender messages=1/1d;
    proxy_timeout          20s;
    proxy_pass             127.0.0.1:%%PORT_relay%%;

    server {
        listen    127.0.0.1:%%PORT_plain%%;
        protocol  smtp;
    }

    server {
        listen    127.0.0.1:%%PORT_starttls%%;
        protocol  smtp;
        starttls  only;
    }

    server {
        listen    127.0.0.1:%%PORT_tls%% ssl;
        protocol  smtp;
    }

    server {
        listen       127.0.0.1:%%PORT_open%%;
        protocol     smtp;
        policy_auth  off;
    }
}
EOF
$t->run_nginx();

my $HEADER = "From: <$USER>\r\nDate: Fri, 13 Nov 2026 13:13:13 +0000\r\n\r\n";
my $small = $t->write_file('small.eml', $HEADER . "x\r\n");
my $large = $t->write_file('large.eml', $HEADER . "x\r\n" x 1000);

# exit codes; of smtplib the exception, its exit code is our script's
my %REPORT = (
    swaks   => { login => 28, sender => 23, recipient => 24, size => 26 },
    curl    => { login => 67, sender => 55, recipient => 55, size => 55 },
    msmtp   => { login => 77, sender => 69, recipient => 65, size => 69 },
    smtplib => { login     => 'SMTPAuthenticationError 535',
                 sender    => 'SMTPSenderRefused 450',
                 recipient => 'SMTPRecipientsRefused',
                 size      => 'SMTPSenderRefused 552' },
);

my $number = 0;


sub send_one {
    my ($client, %more) = @_;

    my $job = { mode => 'plain', method => 'PLAIN', user => $USER,
        password => 'secret', from => 'f' . ++$number . '@example.com',
        to => [ 'bob@example.net' ], file => $small, %more };
    $job->{port} = $t->port($job->{mode});

    my $before = () = $relay->messages();
    my ($code, $output) = $programs->send($client, $job);
    my @new = $relay->messages();

    return ($code, $output, splice(@new, $before));
}


sub refused {
    my ($client, $what, %more) = @_;

    my $expected = $more{report} // $REPORT{$client}{$what};
    my ($code, $output, @new) = send_one($client, %more);
    my $name = join(' ', $client, $what, 'refused:');

    if ($expected =~ /^\d+$/) {
        is($code, $expected, "$name reported") or diag($output);
    } else {
        is($code, 1, "$name reported");
        like($output, qr/^$expected\b/m, "$name as what it is");
    }

    is(scalar @new, 0, "$name no mail");
}


for my $client ($programs->names()) {
    my ($code, $output, @new) = send_one($client);
    is($code, 0, "$client, a good message: exit code") or diag($output);
    is(scalar @new, 1, "$client, a good message: arrives");

    refused($client, 'login', mode => $_, password => 'wrong')
        for qw(plain starttls tls);
    refused($client, 'login', password => 'wrong', method => 'LOGIN');

    refused($client, 'recipient', to => [ 'refused@example.net' ],
        mode => $_) for qw(plain tls);
    refused($client, 'recipient',
        to => [ map { "refused\@$_.example.net" } 1 .. 3 ]);
    refused($client, 'size', file => $large, mode => $_) for qw(plain tls);

    # over the limit
    ($code) = send_one($client, from => "$client\@example.com");
    is($code, 0, "$client, the first message: exit code");
    refused($client, 'sender', from => "$client\@example.com");
}

# from a pipe it cannot say how large it is; the exit code is that of a reply
# that it did not expect
refused('curl', 'size', report => 8, input => $large,
    options => [ '--upload-file', '-' ]);

# some recipients only: who goes on, and who does not
my @SOME = ('bob@example.net', 'refused@example.net', 'cy@example.net');

for my $case ([ swaks => 0 ], [ curl => 55 ], [ msmtp => 65 ],
    [ curl => 0, '--mail-rcpt-allowfails' ], [ smtplib => 0 ])
{
    my ($client, $expected, @more) = @$case;
    my $name = join(' ', $client, @more) . ', one of three refused';
    my ($code, $output, @new) = send_one($client, to => \@SOME,
        @more ? (options => [ @more, '--upload-file', $small ]) : ());

    is($code, $expected, "$name: exit code") or diag($output);
    is_deeply([ map { @{ $_->{rcpts} } } @new ],
        $expected ? [] : [ @SOME[0, 2] ], "$name: the others");
    like($output, qr/^refused \["refused\@example\.net"\]$/m,
        "$name: it is told which") if $client eq 'smtplib';
}

# smtp-source: HELO is wanted by us, as is a login
for my $case ([ 'recipient', 'open', '-t', 'refused@example.net' ],
    [ 'size', 'open', '-l', 5000, '-t', 'to@example.net' ],
    [ 'message without login', 'plain', '-t', 'to@example.net' ],
    [ 'message without HELO', 'open', '-o', '-t', 'to@example.net' ])
{
    my ($what, $where, @options) = @$case;
    my $before = () = $relay->messages();
    my ($code) = $programs->source($t->port($where), '-f',
        's' . ++$number . '@example.com', @options);

    is($code, 1, "smtp-source $what refused: reported");
    is(scalar(() = $relay->messages()), $before,
        "smtp-source $what refused: no mail");
}

$t->done();
