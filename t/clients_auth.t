#!/usr/bin/perl

# Clients that others wrote log in with each mechanism that they speak, at
# each provider that can serve it: swaks, curl, msmtp and smtplib with a
# message behind it, and gsasl.  With STARTTLS and implicit TLS; with what is
# wrong they are refused, and report it.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use MIME::Base64 qw(encode_base64);
use Test::More;

use MailPolicy;
use MailPolicy::AuthMatrix;
use MailPolicy::Programs;

my $t = MailPolicy->new();
my $dir = $t->dir();
my $relay = $t->run_relay(name => 'relay');
my $matrix = MailPolicy::AuthMatrix->new($t);
my $programs = MailPolicy::Programs->new($t, ca => "$dir/ca.crt");

$t->conf($matrix->conf(<<'EOF'));

    proxy_pass     127.0.0.1:%%PORT_relay%%;
    proxy_timeout  20s;
    access_log     %%DIR%%/access.log;
EOF
$t->run_nginx();

my $MESSAGE = "From: <alice\@example.com>\r\nTo: <bob\@example.net>\r\n"
    . "Date: Fri, 13 Nov 2026 13:13:13 +0000\r\n"
    . "Message-ID: <x\@example.com>\r\nSubject: x\r\n\r\n.\r\nx\r\n";
my $file = $t->write_file('message.eml', $MESSAGE);

# exit codes for a login that was refused
my %REFUSED = (swaks => 28, curl => 67, msmtp => 77, smtplib => 1,
    gsasl => 1);

my $number = 0;
my %sent;


# what a client is told; somebody wrong has another password, another token,
# or a certificate that is a stranger's

sub job {
    my ($client, $cell, $wrong) = @_;

    my $method = $cell->{mechanism};
    my $job = { mode => $cell->{mode}, port => $matrix->port($cell),
        method => $method, file => $file,
        user => $cell->{client} // $cell->{user},
        password => $matrix->PASSWORD . ($wrong ? '-not' : ''),
        from => 'f' . ++$number . '@example.com',
        to => [ 'bob@example.net' ] };

    # has the choice, and does not give it to its user
    $job->{port} = $t->port("$cell->{provider}_$cell->{mode}_xoauth2")
        if $client eq 'curl' && $method eq 'XOAUTH2';

    $job->{token} = ($wrong ? 'not.' : '') . $matrix->token($cell)
        if $method =~ /OAUTH/;
    $job->{certificate} = $wrong ? 'mallory' : 'alice'
        if $method eq 'EXTERNAL';

    return $job;
}


sub execute {
    my ($client, $job) = @_;

    return $client eq 'gsasl' ? $programs->gsasl($job)
        : $programs->send($client, $job);
}


sub good {
    my ($client, $cell) = @_;

    my $name = "$client: $cell->{name}";
    my $job = job($client, $cell);
    my ($code, $output) = execute($client, $job);

    is($code, 0, $name) or diag($output);

    if ($client eq 'gsasl') {
        like($output, qr/^Client authentication finished/m, "$name: done");
        return;
    }

    $sent{ $job->{from} } = { %$cell, name => $name };
}


sub bad {
    my ($client, $cell) = @_;

    my $name = "$client: $cell->{name}, wrong";

    # it believes us
    return if "$cell->{provider} $cell->{mechanism}" eq 'dovecot EXTERNAL';

    my ($code, $output) = execute($client, job($client, $cell, 1));

    is($code, $REFUSED{$client}, $name) or diag($output);
}


# Over both; those that take long to start, and speak what others speak, too,
# over one of them.  What is wrong is tried at some providers.

my $turn = 0;

for my $client ($programs->names(), 'gsasl') {
    my $slow = $client =~ /^(?:swaks|smtplib)$/;

    for my $method ($programs->methods($client)) {
        my $tried = 0;

        for my $provider ($matrix->providers()) {
            my @cells = grep { $_->{mechanism} eq $method
                && $_->{provider} eq $provider } cells($client, $provider)
                or next;

            my $one = $cells[ $turn++ % @cells ];

            good($client, $_) for $slow ? $one : @cells;
            bad($client, $one) if $client eq 'curl' || $tried++ % 3 == 0;
        }
    }
}


# gsasl has no implicit TLS

sub cells {
    my ($client, $provider) = @_;

    return $matrix->cells(qw(starttls tls)) if $client ne 'gsasl';
    return $matrix->cells($provider eq 'file' ? 'plain' : (), 'starttls');
}


# it has no login to say, and says that as "=", which is not base64
good('curl', { %$_, client => '' })
    for grep { $_->{mechanism} eq 'EXTERNAL' } $matrix->cells('tls');


# what arrived, and what is logged

my %arrived = map { $_->{from} => $_->{data} } $relay->received(),
    $matrix->received();
my %line = map { ($_->{sender} // '') => $_ } $t->access_log();

for my $from (sort keys %sent) {
    my $cell = $sent{$from};

    ok(($arrived{$from} // '') eq $MESSAGE, "$cell->{name}: the message");
    is_deeply([ @{ $line{$from} // {} }{qw(sasl_method sasl_username
        outcome)} ], [ @$cell{qw(mechanism user)}, 'accepted' ],
        "$cell->{name}: log");
}

is_deeply([ grep { !$sent{$_} } keys %arrived ], [],
    'nothing of those who were refused');

my $logs = $t->error_log() . $t->read_file('access.log');
is(scalar(grep { index($logs, $_) >= 0 || index($logs, encode_base64($_, ''))
    >= 0 } $matrix->secrets()), 0, 'OUT-2 no secret in a log');

$t->done();
