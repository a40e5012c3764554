#!/usr/bin/perl

# TLS that ends amid a message (TLS-7): with its close_notify, and with clear
# text, or more records, behind it; and clear text in the place of a record.
# Nothing of that is a message, or a command.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Test::More;

use MailPolicy;

BEGIN {
    plan(skip_all => 'IO::Socket::SSL is not installed')
        unless eval { require IO::Socket::SSL; require MailPolicy::RawTls };
}

my %VERSION = ('TLSv1.2' => 0x0303, 'TLSv1.3' => 0x0304);

my $t = MailPolicy->new();
my $relay = $t->run_relay(name => 'relay',
    extensions => [ 'PIPELINING', '8BITMIME', 'CHUNKING' ]);

$t->certificate('edge');

$t->conf(<<'EOF');
mail {
    server_name          edge.example.com;
    ssl_certificate      %%DIR%%/edge.crt;
    ssl_certificate_key  %%DIR%%/edge.key;
    ssl_protocols        TLSv1.2 TLSv1.3;
    access_log           %%DIR%%/access.log;
    policy               on;
    policy_auth          off;
    proxy_pass           127.0.0.1:%%PORT_relay%%;

    server {
        listen    127.0.0.1:%%PORT_tls%% ssl;
        protocol  smtp;
    }
}
EOF
$t->run_nginx();

# which nginx before 1.23 takes for a fault of OpenSSL's
$t->allow(qr/SSL_read\(\) failed .*decryption failed or bad record mac/);

my ($worker) = $t->worker_pids();
my $number = 0;


# after EHLO: (TLS, client)

sub session {
    my ($version) = @_;

    my $c = $t->client('tls');
    my $tls = MailPolicy::RawTls->new($c, version => $version);

    $tls->handshake() or die "no handshake\n";
    $tls->read_reply();
    $tls->cmd('EHLO client.example');
    return ($tls, $c);
}


sub outcome {
    my ($from) = @_;

    my $line;

    $t->wait_for(sub {
        ($line) = grep { ($_->{sender} // '') eq $from } $t->access_log();
    });
    return $line ? $line->{outcome} : 'none';
}


# what is sent instead of the rest, and what is smuggled with it

my %END = (
    'close_notify'               => sub { $_[0]->close_notify() },
    'close_notify, clear text'   => sub { $_[0]->close_notify() . $_[1] },
    'close_notify, records'      => sub { my $more = $_[0]->records($_[1]);
                                          $_[0]->close_notify() . $more },
    'clear text'                 => sub { $_[1] },
);

for my $version (sort keys %VERSION) {
    for my $end (sort keys %END) {
        for my $way (qw(DATA BDAT)) {
            my $name = "TLS-7 $version, $way, $end";
            my $from = 's' . ++$number . '@example.com';
            my ($tls, $c) = session($VERSION{$version});
            my $before = () = $relay->received();

            is($tls->version(), $VERSION{$version}, "$name: the version");
            $tls->cmd("MAIL FROM:<$from>");
            $tls->cmd('RCPT TO:<b@example.net>');

            if ($way eq 'DATA') {
                like($tls->cmd('DATA'), qr/^354 /, "$name: DATA");
                $tls->send("Subject: x\r\n\r\nfirst");
            } else {
                $tls->send("BDAT 100 LAST\r\nSubject: x\r\n\r\nfirst");
            }

            $c->send_raw($END{$end}->($tls,
                ('x' x 100) . "\r\n.\r\nMAIL FROM:<evil\@example.com>\r\n"));

            ok($c->wait_close(5), "$name: closed");
            is(outcome($from), 'aborted', "$name: logged");
            ok($t->wait_for(sub { !$relay->stats()->{open} }),
                "$name: the relay is cut off");
            is(scalar(() = $relay->received()), $before,
                "$name: and has no message");
        }
    }
}

is(scalar(grep { /evil/ } $relay->streams()), 0, 'TLS-7 nothing was smuggled');

is(join(' ', $t->worker_pids()), $worker, 'TLS-7 the worker is the same');

$t->done();
