#!/usr/bin/perl

# Postfix' smtp-source, which knows neither TLS nor logins: many sessions at
# a time, many messages in them.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Test::More;

use MailPolicy;
use MailPolicy::Programs qw(differs);

my $t = MailPolicy->new();
my $programs = MailPolicy::Programs->new($t);
my $relay = $t->run_relay(name => 'relay');

$t->conf(<<'EOF');
mail {
    server_name    edge.example.com;
    access_log     %%DIR%%/access.log;
    policy         on;
    policy_auth    off;
    proxy_timeout  20s;
    proxy_pass     127.0.0.1:%%PORT_relay%%;

    server {
        listen    127.0.0.1:%%PORT_smtp%%;
        protocol  smtp;
    }
}
EOF
$t->run_nginx();

my $sent = 0;


# (exit code, output, messages that are new at the relay)

sub source {
    my (@options) = @_;

    my $before = () = $relay->messages();
    my ($code, $output) = $programs->source($t->port('smtp'),
        '-f', 'from@example.com', '-t', 'to@example.net', @options);
    my @new = $relay->messages();

    splice(@new, 0, $before);
    $sent += @new;
    return ($code, $output, @new);
}


for my $case ([ 1, 1, 1 ], [ 10, 200, 1 ], [ 5, 100, 1, '-d' ], [ 3, 30, 20 ])
{
    my ($sessions, $count, $rcpts, @more) = @$case;
    my $name = "$count messages in $sessions sessions @more";
    my $connections = $relay->stats()->{total};
    my ($code, $output, @new) = source('-s', $sessions, '-m', $count,
        '-r', $rcpts, '-l', 5000, '-S', 'a test', @more);

    is($code, 0, "$name: exit code") or diag($output);
    is(scalar @new, $count, "$name: all are there");
    is(scalar(grep { $_->{from} eq 'from@example.com'
                     && @{ $_->{rcpts} } == $rcpts } @new), $count,
        "$name: envelopes");

    # to what it is told to send it adds CRLF
    is(scalar(grep { $_->{data} =~ /^Subject:\ a\ test\r\n
        \r\n((?:\d?X+\r\n)+)\z/mx && length($1) == 5002 } @new), $count,
        "$name: contents");

    is($relay->stats()->{total} - $connections, $sessions,
        "$name: as many connections to the relay") if @more;
}

my $HEADER = "From: <from\@example.com>\r\nSubject: a test\r\n\r\n";

my %MESSAGE = (
    dots    => ".\r\n..\r\n...\r\n.x\r\nx.\r\n . \r\n. \r\n\r\n.\r\n.\r\n",
    '8 bit' => "gr\xc3\xbc\xc3\x9fe\r\n.\xe4\r\n",
    'long'  => '.' . 'x' x 100_000 . "\r\n",
    'large' => join('', ('x' x 70 . "\r\n.\r\n") x 20_000),
);

for my $name (sort keys %MESSAGE) {
    my $message = $HEADER . $MESSAGE{$name};
    my $file = $t->write_file('source.eml', $message =~ s/\r\n/\n/gr);
    my ($code, $output, @new) = source('-s', 2, '-m', 6, '-F', $file);

    is($code, 0, "$name: exit code") or diag($output);
    is(scalar @new, 6, "$name: all are there");

    # CRLF, here too
    my @other = grep { $_->{data} ne "$message\r\n" } @new;
    is(scalar @other, 0, "$name: to the octet")
        or diag(differs($other[0]{data}, $message));
}

my @log = $t->access_log();
is(scalar @log, $sent, 'one line a message');
is(scalar(grep { $_->{outcome} eq 'accepted' } @log), $sent, 'all accepted');

$t->done();
