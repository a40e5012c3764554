#!/usr/bin/perl

# Clients that others wrote: swaks, curl, msmtp, Python's smtplib.  In clear,
# with STARTTLS and implicit TLS, with PLAIN and LOGIN, they send what they are
# given, and it is at the relay to the octet.  (smtp-source: t/clients_source.t;
# what is refused: t/clients_refused.t)

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use JSON::PP ();
use MIME::Base64 qw(decode_base64 encode_base64);
use Test::More;

use MailPolicy;
use MailPolicy::Programs qw(differs);

my $t = MailPolicy->new();
my $programs = MailPolicy::Programs->new($t);
my $dir = $t->dir();
my $relay = $t->run_relay(name => 'relay', extensions => [ 'PIPELINING',
    'SIZE 52428800', '8BITMIME', 'SMTPUTF8', 'ENHANCEDSTATUSCODES' ]);

my $USER = 'alice@example.com';
my $PASSWORD = 'correct "horse" & \\staple';

$t->write_file('users', "$USER:"
    . $t->crypt($PASSWORD, '$5$rounds=1000$clients$') . "\n");
$t->certificate('edge');

$t->conf(<<'EOF');
# that nothing secret is in it is seen at debug, too
error_log  %%DIR%%/error.log debug;

mail {
    server_name            edge.example.com;
    access_log             %%DIR%%/access.log;
    ssl_certificate        %%DIR%%/edge.crt;
    ssl_certificate_key    %%DIR%%/edge.key;
    ssl_protocols          TLSv1.2 TLSv1.3;

    policy                 on;
    policy_auth            file:%%DIR%%/users;
    policy_auth_plaintext  on;
    policy_message_size    5m;
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
}
EOF
$t->run_nginx();


# the messages

srand(20263);

my $HEADER = join('', map { "$_\r\n" } "From: Alice <$USER>",
    'To: Bob <bob@example.net>', 'Date: Fri, 13 Nov 2026 13:13:13 +0000',
    'Message-ID: <x@example.com>', 'Subject: a test', '');
my $NOISE = join('', map { chr int rand 256 } 1 .. 1_048_576);

my %MESSAGE = (
    dots       => ".\r\n..\r\n...\r\n.x\r\nx.\r\n . \r\n. \r\n\r\n.\r\n.\r\n"
                  . "x\r\n",
    'last dot' => "x\r\n\r\n.\r\n",
    '8 bit'    => "gr\xc3\xbc\xc3\x9fe\r\n.\xe4\r\n"
                  . join('', map { chr } 128 .. 255) . "\r\n",
    'long'     => join('', map { '.' . 'x' x $_ . "\r\n" } 996 .. 1000,
                      4093 .. 4098, 8190, 8191, 8192, 16383, 100_000),
    attachment => encode_base64($NOISE, "\r\n"),
);

for my $name (keys %MESSAGE) {
    $MESSAGE{$name} = $HEADER . $MESSAGE{$name};
    $t->write_file("$name.eml", $MESSAGE{$name});
}

my $attach = $t->write_file('noise.bin', $NOISE);
my $number = 0;


# One message: (exit code, output, the job, messages that are new at the
# relay).  A job as in MailPolicy::Programs, with message (without .eml) in
# the place of file.

sub send_one {
    my ($client, %more) = @_;

    my $job = { mode => 'plain', method => 'PLAIN', user => $USER,
        password => $PASSWORD, from => 'f' . ++$number . '@example.com',
        to => [ 'bob@example.net' ], message => 'dots', %more };

    $job->{port} = $t->port($job->{mode});
    $job->{file} = "$dir/$job->{message}.eml";

    my $before = () = $relay->received();
    my ($code, $output) = $programs->send($client, $job);
    my @new = $relay->received();

    return ($code, $output, $job, splice(@new, $before));
}


# $expected: octets, or what looks at the message; $more{message} by default

sub arrives {
    my ($client, $name, %more) = @_;

    my $expected = delete $more{expected};
    my ($code, $output, $job, @new) = send_one($client, %more);

    $expected //= $MESSAGE{ $job->{message} };
    $name = "$client, $job->{mode}, $job->{method}, $name";

    is($code, 0, "$name: exit code") or diag($output);
    is(scalar @new, 1, "$name: one message") or return;

    my ($message) = @new;
    is_deeply([ @$message{qw(from rcpts)} ], [ @$job{qw(from to)} ],
        "$name: envelope");

    if (ref $expected) {
        $expected->($message, $name);
    } else {
        ok($message->{data} eq $expected, "$name: to the octet")
            or diag(differs($message->{data}, $expected));
    }

    my ($line) = grep { ($_->{sender} // '') eq $job->{from} } $t->access_log();
    is_deeply([ @$line{qw(protocol sasl_method sasl_username outcome)} ],
        [ $job->{mode} eq 'plain' ? 'ESMTPA' : 'ESMTPSA', $job->{method},
            $USER, 'accepted' ], "$name: log");
}


# the file in a message

sub attached {
    my ($message, $name) = @_;

    my ($part) = $message->{data} =~ /^Content-[^\n]*name="?noise\.bin.*?
        \r\n\r\n([A-Za-z0-9+\/=\r\n]*)/msx;
    ok(decode_base64($part // '') eq $NOISE, "$name: the attachment");
}


for my $client ($programs->names()) {
    for my $mode (qw(plain starttls tls)) {
        arrives($client, 'dots', mode => $mode, method => $_)
            for qw(PLAIN LOGIN);
        arrives($client, $_, mode => $mode, message => $_)
            for 'long', 'attachment';
        arrives($client, '8 bit, several recipients', mode => $mode,
            message => '8 bit', method => 'LOGIN',
            to => [ map { "r$_\@example.net" } 1 .. 5 ]);
    }
}

# what is particular to them; swaks takes a last dot for the end

arrives($_, 'last dot', message => 'last dot') for qw(curl msmtp smtplib);

arrives('curl', 'initial response', method => $_,
    options => [ '--sasl-ir', '--upload-file', "$dir/dots.eml" ])
    for qw(PLAIN LOGIN);

arrives('curl', 'from a pipe', message => 'attachment',
    input => "$dir/attachment.eml", options => [ '--upload-file', '-' ]);

arrives('curl', 'MIME', mode => 'tls', expected => \&attached, options => [
    '-F', '=a text;type=text/plain', '-F',
    "file=\@$attach;filename=noise.bin;encoder=base64",
    '-H', 'Subject: a test', '-H', "From: $USER" ]);

arrives('swaks', 'MIME', mode => 'starttls', expected => \&attached,
    options => [ '--header', 'Subject: a test', '--body', "a text\n.\n",
        '--attach-name', 'noise.bin', '--attach', "\@$attach" ]);

arrives('swaks', 'pipelining', to => [ map { "r$_\@example.net" } 1 .. 20 ],
    options => [ '--pipeline', '--data',
        $programs->open_ended("$dir/dots.eml") ]);

# smtplib

arrives('smtplib', 'no initial response', initial => JSON::PP::false,
    method => $_) for qw(PLAIN LOGIN);
arrives('smtplib', 'login()', how => 'login');

arrives('smtplib', 'send_message()', mode => 'starttls',
    how => 'send_message', attach => $attach, expected => sub {
        my ($message, $name) = @_;
        attached($message, $name);
        like($message->{data}, qr/^\.\r\n\.\.\r\nna\xc3\xafve\r\n\.\r\n/m,
            "$name: the text");
        like($message->{data}, qr/^Subject: =\?utf-8\?q\?gr=C3=BC=C3=9Fe/m,
            "$name: the subject");
    });

for my $option ('8BITMIME', '7BIT') {
    my $expected = $option eq '7BIT' ? '(?:BODY=7BIT)?' : 'BODY=8BITMIME';

    arrives('smtplib', $option, message => '8 bit',
        mail_options => [ "BODY=$option" ], expected => sub {
            my ($message, $name) = @_;
            like($message->{mail_parameters}, qr/(?:^|\s)$expected(?:\s|$)/,
                "$name: the relay is told");
            ok($message->{data} eq $MESSAGE{'8 bit'}, "$name: to the octet");
        });
}

# addresses that are not ASCII


sub offers_utf8 {
    my $c = $t->client('plain');

    $c->greeting();
    my $ehlo = $c->ehlo();
    $c->quit();
    return $ehlo =~ /^250.SMTPUTF8$/m;
}


sub octets {
    my ($text) = @_;

    utf8::encode($text);
    return $text;
}


SKIP: {
    skip('SMTPUTF8 is not offered', 10) unless offers_utf8();

    my $sender = "j\x{f6}rg\@b\x{fc}cher.example";
    my $recipient = "\x{3b4}\x{3bf}\x{3ba}@\x{3c0}\x{3b1}.example";
    my @to = ($recipient, 'bob@example.net');

    for my $how ('sendmail', 'send_message') {
        my ($code, $output, $job, $message) = send_one('smtplib',
            how => $how, attach => $attach, message => '8 bit',
            from => $sender, to => \@to, mail_options =>
                $how eq 'sendmail' ? [ 'SMTPUTF8', 'BODY=8BITMIME' ] : []);
        my $name = "smtplib, $how, SMTPUTF8";

        is($code, 0, "$name: exit code") or diag($output);
        is($message->{from}, octets($sender), "$name: sender");
        is_deeply($message->{rcpts}, [ map { octets($_) } @to ],
            "$name: recipients");
        like($message->{mail_parameters}, qr/(?:^|\s)SMTPUTF8(?:\s|$)/,
            "$name: the relay is told");

        $how eq 'sendmail'
            ? ok($message->{data} eq $MESSAGE{'8 bit'}, "$name: to the octet")
            : like($message->{data}, qr/^Subject: gr\xc3\xbc\xc3\x9fe\r$/m,
                "$name: the subject");
    }
}

$t->disconnect();
ok($t->wait_for(sub { !$relay->stats()->{open} }), 'no connection is left');

# neither the password nor what was said of it
my @secrets = ($PASSWORD, encode_base64($PASSWORD, ''),
    encode_base64("\0$USER\0$PASSWORD", ''));
my $logs = $t->error_log() . $t->read_file('access.log');
is(scalar(grep { index($logs, $_) >= 0 } @secrets), 0, 'OUT-2 no secret');

$t->done();
