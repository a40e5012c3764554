#!/usr/bin/perl

# Every mechanism at every provider that can serve it, in clear, with STARTTLS
# and implicit TLS: good, wrong, cancelled and cut off at each step.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use MIME::Base64 qw(encode_base64);
use Test::More;

use MailPolicy;
use MailPolicy::AuthMatrix;

my $t = MailPolicy->new();
my $relay = $t->run_relay(name => 'relay');
my $matrix = MailPolicy::AuthMatrix->new($t);

$t->conf($matrix->conf(<<'EOF'));

    proxy_pass    127.0.0.1:%%PORT_relay%%;
    access_log    %%DIR%%/access.log;
    max_errors    100;
EOF
$t->run_nginx();

my $DONE = '235 2.7.0 Authentication successful';
my $CANCELLED = '501 5.7.0 Authentication cancelled';

my $number = 0;
my %sent;


# a message, of a sender of its own

sub delivers {
    my ($c, $cell) = @_;

    my $from = 'f' . ++$number . '@example.com';
    my @replies = $c->send_mail($from, [ 'bob@example.net' ], "Subject: x\n");

    like($replies[-1], qr/^250 /, "$cell->{name}: a message");
    $sent{$from} = $cell;
}


sub offered {
    my ($c, $cell) = @_;

    my ($offered) = $c->{offered} =~ /^250.AUTH (.*)$/m;

    return join(' ', sort split / /, $offered // '');
}


# a Dovecot tells those who are wrong each half second only

sub slow {
    my ($cell) = @_;

    return $cell->{provider} eq 'dovecot'
        && "$cell->{mode} $cell->{mechanism}" !~ /^tls (?:CRAM-MD5|XOAUTH2)/;
}


for my $cell ($matrix->cells()) {
    my $name = $cell->{name};
    my $sasl = $matrix->sasl($cell);
    my $wrong = $matrix->wrong($cell);
    my $last = $matrix->last_step($cell);
    my $invalid = $matrix->invalid($cell);

    # AUTH-3, AUTH-4: wrong, wrong again, good, and a message

    my $c = $matrix->session($cell);
    is(offered($c, $cell), join(' ', sort grep {
        $cell->{mechanism} eq 'EXTERNAL' || $_ ne 'EXTERNAL'
    } $matrix->mechanisms(@$cell{qw(provider mode)})), "$name: is offered");

    is($wrong->login($c), $invalid, "AUTH-3 $name: wrong")
        unless slow($cell) && $cell->{mode} eq 'plain';
    is($wrong->login($c, initial => $wrong->has_initial()), $invalid,
        "AUTH-3 $name: wrong again") unless slow($cell);
    is($sasl->login($c), $DONE, "AUTH-3 $name: then good");
    ok($sasl->proved(), "$name: the server has the password, too")
        if $cell->{mechanism} =~ /^SCRAM/;
    delivers($c, $cell);
    $c->quit();

    # AUTH-5 cancelled at each step, then good

    $c = $matrix->session($cell);
    is($sasl->login($c, cancel => $_), $CANCELLED,
        "AUTH-5 $name: cancelled at $_") for 1 .. $sasl->steps();
    is($wrong->login($c, cancel => $last), $CANCELLED,
        "AUTH-5 $name: wrong, and cancelled") unless slow($cell);
    is($sasl->login($c, initial => $sasl->has_initial()), $DONE,
        "AUTH-5 $name: good in the same session");
    $c->quit();

    # AUTH-5 cut off before a response, and behind it; then good in another

    for my $how (qw(cut leave)) {
        is($sasl->login($matrix->session($cell), $how => $_), 'CUT',
            "AUTH-5 $name: $how at $_") for 1 .. $sasl->steps();
        is($wrong->login($matrix->session($cell), $how => $last),
            'CUT', "AUTH-5 $name: wrong, $how");
    }

    $c = $matrix->session($cell);
    is($sasl->login($c), $DONE, "AUTH-5 $name: good in another session");
    $c->quit();
}


# what is logged

my %line = map { ($_->{sender} // '') => $_ } $t->access_log();

for my $from (sort keys %sent) {
    my $cell = $sent{$from};

    is_deeply([ @{ $line{$from} // {} }{qw(protocol sasl_method
        sasl_username outcome)} ], [ $cell->{mode} eq 'plain' ? 'ESMTPA'
        : 'ESMTPSA', @$cell{qw(mechanism user)}, 'accepted' ],
        "$cell->{name}: log");
}


# what form of a record serves what

my %SERVES = (
    'scram@example.com' => qr/^SCRAM|PLAIN|LOGIN/,
    'crypt@example.com' => qr/^PLAIN|LOGIN/,
);

for my $cell (grep { $_->{provider} =~ /^(?:file|redis)$/ }
    $matrix->cells('tls'))
{
    next if $cell->{mechanism} eq 'EXTERNAL';

    for my $user (sort keys %SERVES) {
        my $serves = $cell->{mechanism} =~ $SERVES{$user};
        my $one = { %$cell, user => $user };

        is($matrix->sasl($one)->login($matrix->session($one)),
            $serves ? $DONE : $matrix->invalid($one),
            "$cell->{name}: $user");
        is($matrix->wrong($one)->login($matrix->session($one)),
            $matrix->invalid($one), "$cell->{name}: $user, wrong");
    }
}


$t->disconnect();
ok($t->wait_for(sub { !$relay->stats()->{open} }), 'no connection is left');

my $logs = $t->error_log() . $t->read_file('access.log');
is(scalar(grep { index($logs, $_) >= 0 || index($logs, encode_base64($_, ''))
    >= 0 } $matrix->secrets()), 0, 'OUT-2 no secret in a log');

$t->done();
