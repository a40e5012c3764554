#!/usr/bin/perl

# Where TLS to relays is required there is no mail without it: each way in
# which a relay, or somebody on the way to it, can be without, gets 451 4.7.5
# when no other relay is left, and the relay has not seen a letter of it.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Test::More;

use MailPolicy;
use MailPolicy::Authority;

my $t = MailPolicy->new();

my $ca = MailPolicy::Authority->new($t, 'ca');
my $other_ca = MailPolicy::Authority->new($t, 'other_ca');

my @names = (names => [ 'DNS:relay.example.com' ]);
my %good = $ca->certificate('good', @names);
my %expired = $ca->certificate('expired', @names, expired => 1);
my %wrong = $ca->certificate('wrong', names => [ 'DNS:other.example.com' ]);
my %unknown = $other_ca->certificate('unknown', @names);
my %revoked = $ca->certificate('revoked', @names);
my %old = (%good, version => 0x0302);

$ca->revoke('revoked');

my @PLAIN = ('PIPELINING', 'SIZE 52428800', '8BITMIME', 'AUTH PLAIN');
my $EHLO = "250-injected.example\r\n250 AUTH PLAIN\r\n";
my $HANDSHAKE = qr/SSL_do_handshake\(\) failed|SSL handshak/;

# what is amiss, TLS at once or not, settings of the relay, what the log says

my @cases = (
    map({ my $once = $_;
        [ 'expired', $once, { certificate => \%expired },
            qr/cannot be verified: \(10:certificate has expired/ ],
        [ 'wrong name', $once, { certificate => \%wrong },
            qr/certificate is not for "relay\.example\.com"/ ],
        [ 'unknown CA', $once, { certificate => \%unknown },
            qr/cannot be verified: \(2[01]:/ ],
        [ 'revoked', $once, { certificate => \%revoked },
            qr/cannot be verified: \(23:certificate revoked/ ],
        [ 'old version', $once, { certificate => \%old }, $HANDSHAKE ],
        map([ "handshake: $_", $once, { tls => $_ }, $HANDSHAKE ],
            qw(close rst garbage)),
        [ 'handshake: hangs', $once, { tls => 'hang' },
            qr/handshake timed out/ ],
    } '', 1),

    [ 'TLS-4 stripped', '', { extensions => \@PLAIN },
        qr/does not offer STARTTLS/ ],
    [ 'no EHLO', '', { ehlo => '500 5.5.1 what?' }, qr/answered 500/,
        qr/^451 4\.4\.1 / ],

    map([ "TLS-4 STARTTLS: $_", '', { starttls => $_ },
        qr/answered \d+ at set-up/ ],
        '454 4.7.0 not now', '501 5.5.4 no', '502 5.5.1 what?',
        '421 4.3.2 later', '250 2.0.0 whatever', '354 go on'),
    map([ "TLS-4 STARTTLS: $_", '', { starttls => $_ },
        qr/prematurely closed|Connection reset/ ], 'close', 'rst'),

    [ 'TLS-3 injected with the reply', '',
        { starttls => { send => "220 go\r\n$EHLO" } },
        qr/sent an unexpected reply/ ],
    [ 'TLS-3 injected behind the reply', '',
        { starttls => { reply => '220 go', inject => $EHLO } },
        qr/SSL_do_handshake\(\) failed|unexpected reply/ ],
    [ 'TLS-3 half a reply injected, and TLS then', '',
        { starttls => { reply => '220 go', along => "250-injected.a\r\n" } },
        qr/sent an unexpected reply/ ],
    [ 'TLS-3 half a line injected', '',
        { starttls => { send => "220 go\r\n250" } },
        qr/sent an unexpected reply/ ],
    [ 'TLS-3 greeting in clear', 1, { tls => { send => "220 ready\r\n" } },
        $HANDSHAKE ],
    [ 'TLS-3 a dialogue in clear', 1, { tls =>
        { send => "220 a\r\n250 b\r\n250 c\r\n250 d\r\n" } }, $HANDSHAKE ],
);

my $bad = $t->run_relay(name => 'bad');
my $next = $t->run_relay(name => 'next');

$t->conf(<<'EOF');
mail {
    server_name                    edge.example.com;
    policy                         on;
    policy_auth                    off;
    proxy_connect_timeout          300ms;
    proxy_ssl_name                 relay.example.com;
    proxy_ssl_trusted_certificate  %%DIR%%/ca.crt;
    proxy_ssl_crl                  %%DIR%%/ca.crl;

    upstream both {
        server  127.0.0.1:%%PORT_bad%%   max_fails=0;
        server  127.0.0.1:%%PORT_next%%  backup;
    }

    server {
        listen          127.0.0.1:%%PORT_starttls%%;
        protocol        smtp;
        proxy_pass      127.0.0.1:%%PORT_bad%%;
        proxy_starttls  required;
    }

    server {
        listen      127.0.0.1:%%PORT_ssl%%;
        protocol    smtp;
        proxy_pass  127.0.0.1:%%PORT_bad%%;
        proxy_ssl   on;
    }

    server {
        listen          127.0.0.1:%%PORT_starttls_both%%;
        protocol        smtp;
        proxy_pass      both;
        proxy_starttls  required;
    }

    server {
        listen      127.0.0.1:%%PORT_ssl_both%%;
        protocol    smtp;
        proxy_pass  both;
        proxy_ssl   on;
    }
}
EOF
$t->run_nginx();


sub send_one {
    my ($where) = @_;

    my $c = $t->session($where);
    my @replies = $c->send_mail('a@example.com', [ 'b@example.net' ], "x\n");
    $c->quit();
    return $replies[-1];
}


# as a good relay, but for this

sub behave {
    my ($relay, $once, %other) = @_;

    $relay->set(starttls => undef, tls => undef, ehlo => undef,
        extensions => [ @PLAIN, 'STARTTLS' ], %other,
        certificate => { %{ $other{certificate} // \%good },
            at_once => $once });
}


my $heard = 0;

for my $case (@cases) {
    my ($name, $once, $settings, $log, $reply) = @$case;
    my $where = $once ? 'ssl' : 'starttls';

    behave($bad, $once, %$settings);
    behave($next, $once);

    my $before = length($t->error_log());

    like(send_one($where), $reply // qr/^451 4\.7\.5 /,
        "$where, $name: the client is told");
    like(substr($t->error_log(), $before), $log, "$where, $name: the log too");

    my @clear = $bad->said_in_clear();
    splice(@clear, 0, $heard);

    is(scalar(grep { /MAIL|RCPT|DATA|BDAT|AUTH|XCLIENT/ } @clear), 0,
        "$where, $name: not in clear") or diag(join("\n", @clear));
    like(send_one("${where}_both"), qr/^250 .*NEXT/,
        "$where, $name: the next relay takes it");

    $heard = () = $bad->said_in_clear();
}

is(scalar(grep { /^C: (?:MAIL|RCPT|DATA|AUTH|XCLIENT)/m }
    $bad->transcripts()), 0, 'no relay that is not trusted saw any mail');
is_deeply([ $bad->received() ], [], 'nor a message');

# the same relay, mended

for my $once ('', 1) {
    behave($bad, $once);
    like(send_one($once ? 'ssl' : 'starttls'), qr/^250 /, 'mended: accepted');
}

$t->done(faults => 0);
