#!/usr/bin/perl

# Kept connections to a real Postfix, with XCLIENT: its log has the right
# client and login for each message.  One takes XCLIENT from our address only,
# so that nobody can be told anew behind the first one; the other from any.
#
# TEST_KEEPALIVE: that many messages, of 50 identities, and as many without
# keepalive, to see how much faster it is (10000: half a minute).

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

my $MESSAGES = $ENV{TEST_KEEPALIVE} || 60;
my $IDENTITIES = $ENV{TEST_KEEPALIVE} ? 50 : 6;
my $BATCH = $ENV{TEST_KEEPALIVE} ? 250 : 15;

my $t = MailPolicy->new();
my $postfix = MailPolicy::Postfix->new($t,
    smtpd => {
        once => [ 'smtpd_authorized_xclient_hosts=127.0.0.1' ],
        any  => [ 'smtpd_authorized_xclient_hosts=127.0.0.0/8' ],
    },
    main => [
        'enable_long_queue_ids = yes',
        'smtpd_client_connection_count_limit = 0',

        # what comes behind smtpd is not looked at
        'smtpd_data_restrictions = check_client_access static:DISCARD',
    ]);

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
error_log  @{[ $t->dir() ]}/error.log  notice;

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

my $clients = MailPolicy::OneShot->new(identities => $IDENTITIES,
    clients => 2);
my %rates;

sub batch {
    my ($server) = @_;

    push @{ $rates{$server} },
        $BATCH / $clients->send($t->port($server), $BATCH);
}


# the median, as others may use the machine, of all but the first batch

sub rate {
    my ($server) = @_;

    my (undef, @rates) = @{ $rates{$server} };
    return (sort { $a <=> $b } @rates)[@rates / 2] // $rates{$server}[0];
}

while ($clients->{sent} < 2 * $MESSAGES) {
    batch($_) for sort keys %PORT;
}

# what its log says of each message

my (%client, %end, @wrong);

for my $line (split /\n/, $postfix->log()) {
    my ($id, $rest) = $line =~ m,/smtpd\[\d+\]: (\w+): (.*), or next;

    $client{$id} = $1 if $rest =~ /^client=(.*)/;
    $end{$id} = $1 if $rest =~ /^discard: DATA from (.*)/;
}

for my $id (sort keys %client) {
    my ($n) = ($end{$id} // '') =~ /; from=<s(\d+)\@/;

    push @wrong, "$id $client{$id}: " . ($end{$id} // '')
        if !defined $n || $end{$id} !~ /helo=<h$n\.example>$/
        || $end{$id} !~ /^unknown\[127\.0\.1\.$n\]/
        || $client{$id} ne "unknown[127.0.1.$n], sasl_method=XCLIENT, "
            . "sasl_username=u$n\@example.com";
}

is(scalar keys %client, $clients->{sent}, 'Postfix: all messages');
is_deeply(\@wrong, [], 'TRUST-4 Postfix: each with its client and login');
unlike($postfix->log(), qr/warning|fatal|improper|reject/,
    'Postfix: nothing to complain of');

my %rate = map { $_ => rate($_) } keys %PORT;
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
