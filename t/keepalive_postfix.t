#!/usr/bin/perl

# Kept connections to a real Postfix, with XCLIENT: its log has the right
# client and login for each message.  One takes XCLIENT from our address only,
# so that nobody can be told anew behind the first one; the other from any.
#
# TEST_KEEPALIVE: that many messages, of 50 identities, and half of them
# without keepalive, to see how much faster it is (10000: two minutes).

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

BEGIN { $ENV{TEST_NGINX_TIMEOUT} //= 900 if $ENV{TEST_KEEPALIVE} }

use Test::More;

use MailPolicy;
use MailPolicy::OneShot;
use MailPolicy::Postfix;

plan(skip_all => MailPolicy::Postfix::missing())
    if MailPolicy::Postfix::missing();

my $MESSAGES = $ENV{TEST_KEEPALIVE} || 120;
my $IDENTITIES = $ENV{TEST_KEEPALIVE} ? 50 : 6;
my $BATCH = $ENV{TEST_KEEPALIVE} ? 250 : 20;

my $t = MailPolicy->new();
my $postfix = MailPolicy::Postfix->new($t,
    smtpd => {
        once => [ 'smtpd_authorized_xclient_hosts=127.0.0.1' ],
        any  => [ 'smtpd_authorized_xclient_hosts=127.0.0.0/8' ],
    },
    main => [ 'smtpd_client_connection_count_limit = 0' ]);

$t->write_file('users', join('', map { "u$_\@example.com:{PLAIN}secret\n" }
    1 .. $IDENTITIES));

my %PORT = (kept_once => 'once', kept_any => 'any', new_once => 'once',
    new_any => 'any');

my $servers = join('', map { <<"EOF_SERVER" } sort keys %PORT);
    upstream $_ {
        server  127.0.0.1:%%PORT_$PORT{$_}%%;
        @{[ /kept/ ? 'keepalive  64;' : '' ]}
    }

    server {
        listen      127.0.0.1:%%PORT_$_%%;
        protocol    smtp;
        proxy_pass  $_;
    }
EOF_SERVER

$t->conf(<<"EOF_CONF");
mail {
    server_name            edge.example.com;
    access_log             off;
    policy                 on;
    policy_auth            file:%%DIR%%/users;
    policy_auth_plaintext  on;

$servers
}
EOF_CONF
$t->run_nginx();

my $clients = MailPolicy::OneShot->new(identities => $IDENTITIES);
my (%seconds, %count);

sub batch {
    my ($server) = @_;

    $seconds{$server} += $clients->send($t->port($server), $BATCH);
    $count{$server} += $BATCH;
}

while ($clients->{sent} < $MESSAGES) {
    batch($_) for sort keys %PORT;
}

ok($t->wait_for(sub { !$postfix->queued() }, 120), 'all is delivered');

# what its log says of each message

my (%client, %from, @wrong);

for my $line (split /\n/, $postfix->log()) {
    my ($id, $rest) = $line =~ m,/(?:smtpd|qmgr)\[\d+\]: (\w+): (.*), or next;

    $client{$id} = $rest if $rest =~ /^client=/;
    $from{$id} = $1 if $rest =~ /^from=<(s\d+-\d+)\@/;
}

for my $id (sort keys %from) {
    my ($n) = $from{$id} =~ /^s(\d+)/;
    my $expected = "client=unknown[127.0.1.$n], sasl_method=XCLIENT, "
        . "sasl_username=u$n\@example.com";

    push @wrong, "$id $from{$id}: $client{$id}"
        if ($client{$id} // '') ne $expected;
}

is(scalar keys %from, $clients->{sent}, 'Postfix: all messages');
is_deeply(\@wrong, [], 'TRUST-4 Postfix: each with its client and login');
unlike($postfix->log(), qr/warning|fatal|improper|reject/,
    'Postfix: nothing to complain of');

my %rate = map { $_ => $count{$_} / $seconds{$_} } keys %PORT;
note(sprintf('%s: %.0f messages a second', $_, $rate{$_}))
    for sort keys %rate;

my $connections = () = $postfix->log() =~ /: disconnect from/g;
note("$connections connections to Postfix are over");

for my $how (qw(once any)) {
    my $ratio = $rate{"kept_$how"} / $rate{"new_$how"};
    my $name = sprintf('XCLIENT of %s: %.2f times as fast', $how, $ratio);

    $ENV{TEST_KEEPALIVE} ? cmp_ok($ratio, '>=', 1.4, $name) : note($name);
}

$t->stop();
$postfix->stop();
$t->done();
