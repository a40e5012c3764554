#!/usr/bin/perl

# TLS, by its ids: none with relays (TLS-3 to TLS-5); with clients, sessions of
# TLS from another listener (TLS-6), where it is required (TLS-9), handshakes
# that do not end, or begin again (TLS-10), records that come in halves
# (TLS-11), ALPN (STATE-9), names in SNI (RES-10).

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use POSIX qw(mkfifo);
use Test::More;
use Time::HiRes qw(sleep time);

use MailPolicy;
use MailPolicy::Process qw(spawn wait_exit);

BEGIN {
    plan(skip_all => 'IO::Socket::SSL is not installed')
        unless eval { require IO::Socket::SSL; require MailPolicy::RawTls };
}

my %VERSION = ('TLSv1.2' => 0x0303, 'TLSv1.3' => 0x0304);

my $t = MailPolicy->new();
$t->run_relay(name => 'relay');

$t->certificate('edge');
$t->certificate('client');

$t->conf(<<'EOF');
mail {
    server_name          edge.example.com;
    ssl_certificate      %%DIR%%/edge.crt;
    ssl_certificate_key  %%DIR%%/edge.key;
    ssl_protocols        TLSv1.2 TLSv1.3;
    ssl_session_cache    shared:mail:1m;
    policy               on;
    policy_auth          off;
    proxy_pass           127.0.0.1:%%PORT_relay%%;

    server {
        listen    127.0.0.1:%%PORT_tls%% ssl;
        protocol  smtp;
    }

    server {
        listen                  127.0.0.1:%%PORT_verify%% ssl;
        protocol                smtp;
        ssl_verify_client       on;
        ssl_client_certificate  %%DIR%%/client.crt;
    }

    server {
        listen    127.0.0.1:%%PORT_hasty%% ssl;
        protocol  smtp;
        timeout   1s;
    }

    server {
        listen    127.0.0.1:%%PORT_starttls%%;
        protocol  smtp;
        starttls  on;
        timeout   1s;
    }

    server {
        listen    127.0.0.1:%%PORT_only%%;
        protocol  smtp;
        starttls  only;
    }
}
EOF
$t->run_nginx();

# what a client sends behind its close_notify, which older versions of nginx
# take for a fault of OpenSSL's
$t->allow(qr/SSL_shutdown\(\) failed .*application data after close notify/);

my ($worker) = $t->worker_pids();
my @BEGIN = ('MAIL FROM:<a@example.com>', 'RCPT TO:<b@example.net>');


# after EHLO: (TLS, client)

sub session {
    my ($where, %option) = @_;

    my $c = $t->client($where // 'tls');
    my $tls = MailPolicy::RawTls->new($c, %option);

    $tls->handshake() or die "no handshake\n";
    $tls->read_reply();
    $tls->cmd('EHLO client.example');
    return ($tls, $c);
}


# TLS-9: where nobody has to log in, TLS is required all the same

my $clear = $t->client('only');
$clear->greeting();
like($clear->ehlo(), qr/^250.STARTTLS$/m, 'TLS-9 offered');

for my $command (@BEGIN, 'DATA', 'RSET', 'VRFY x', 'EXPN x', 'HELP', 'AUTH x',
    'HELO client.example', 'XCLIENT ADDR=192.0.2.1', 'WHAT')
{
    my $c = $t->client('only');
    $c->greeting();
    $c->ehlo();
    like($c->cmd($command), qr/^530 5\.7\.0 Must issue a STARTTLS/,
        "TLS-9 $command");
    $c->close();
}

$clear->send_raw("BDAT 6 LAST\r\nNOOP\r\n");
like($clear->read_reply(), qr/^530 5\.7\.0 /, 'TLS-9 BDAT');
is($clear->read_reply(), 'CLOSED', 'TLS-9 BDAT: its octets are no command');

# TLS-10: handshakes octet by octet

for my $port (qw(hasty starttls)) {
    my $c = $t->client($port);

    if ($port eq 'starttls') {
        $c->greeting();
        $c->ehlo();
        $c->cmd('STARTTLS');
    }

    my $tls = MailPolicy::RawTls->new($c);
    my $start = time();

    Net::SSLeay::do_handshake($tls->{ssl});

    for my $octet (split //, $tls->pending()) {
        $c->send_raw($octet) or last;
        last if defined $c->read_some(0.1) || $c->{state} eq 'CLOSED'
            || time() - $start > 5;
    }

    is($c->{state}, 'CLOSED', "TLS-10 $port: a handshake without end");
    cmp_ok(time() - $start, '<', 4, "TLS-10 $port: has its deadline");
}

# and another one within the session

my ($tls, $c) = session('tls', version => $VERSION{'TLSv1.2'});

Net::SSLeay::renegotiate($tls->{ssl});
Net::SSLeay::do_handshake($tls->{ssl});
$tls->{came} = '';
my $hello = $tls->pending();
like($hello, qr/^\x16/, 'TLS-10 another handshake is asked for');
$c->send_raw($hello);
$tls->feed(2);
unlike($tls->{came}, qr/^\x16/, 'TLS-10 no renegotiation');
$c->close();

# and data before it

my $session = $t->dir() . '/session';

like(s_client('tls', '-sess_out', $session), qr/^221 /m,
    'TLS-10 a session to be resumed');
my $output = s_client('tls', '-sess_in', $session, '-early_data',
    $t->write_file('early', "NOOP\r\n"));
like($output, qr/^Reused, TLSv1\.3/m, 'TLS-10 it is resumed');
unlike($output, qr/Early data was accepted/, 'TLS-10 no early data');

# TLS-6

for my $version (sort keys %VERSION) {
    my $option = '-' . lc($version) =~ tr/v.//r =~ s/v//r =~ s/\./_/r;

    like(s_client('tls', $option, '-sess_out', $session), qr/^221 /m,
        "TLS-6 $version: a session");
    $output = s_client('verify', $option, '-sess_in', $session);
    unlike($output, qr/^Reused/m,
        "TLS-6 $version: is nothing to a listener with other rules");
    unlike($output, qr/^2\d\d[ -]/m, "TLS-6 $version: which serves nobody then");
}

like(s_client('verify', '-cert', $t->dir() . '/client.crt', '-key',
    $t->dir() . '/client.key'), qr/^221 /m, 'TLS-6 but those with a certificate');

($tls, $c) = session();
like($tls->cmd('AUTH EXTERNAL ='), qr/^50[24] 5\.5\./,
    'TLS-6 EXTERNAL is not for those who need not log in');
$c->close();

# TLS-3, TLS-4, TLS-5 are of relays: relay_tls.t, relay_tls_refused.t

# TLS-11: half a record is nothing to read: the worker sleeps, others are
# served, and with the other half it goes on

for my $version (sort keys %VERSION) {
    my %half = (
        command => [ [], "NOOP\r\n", qr/^250 / ],
        body    => [ [ @BEGIN, 'DATA' ], "x\r\n.\r\n", qr/^250 / ],
        chunk   => [ [ @BEGIN ], "BDAT 3 LAST\r\nx\r\n", qr/^250 / ],
        auth    => [ [ @BEGIN ], "RCPT TO:<c\@example.net>\r\nDATA\r\n",
                     qr/^250 / ],
    );
    my @waiting;

    for my $where (sort keys %half) {
        my ($before, $octets, $reply) = @{ $half{$where} };
        my ($tls, $c) = session('tls', version => $VERSION{$version});

        $tls->cmd($_) for @$before;
        my $record = $tls->records($octets);
        my $cut = int(length($record) / 2);
        $c->send_raw(substr($record, 0, $cut));
        push @waiting, [ $where, $tls, $c, substr($record, $cut), $reply ];
    }

    sleep(0.1);
    my $spent = cpu();
    my $start = time();
    my ($other) = session();

    like($other->cmd('NOOP'), qr/^250 /, "TLS-11 $version: others are served");
    cmp_ok(time() - $start, '<', 1, "TLS-11 $version: at once");
    sleep(0.7);
    cmp_ok(cpu() - $spent, '<', 0.3, "TLS-11 $version: nothing spins");

    for my $client (@waiting) {
        my ($where, $tls, $c, $rest, $reply) = @$client;

        $c->send_raw($rest);
        like($tls->read_reply(), $reply, "TLS-11 $version, $where: goes on");
        $c->close();
    }
}

# STATE-9: ALPN

for my $case ([ 'http/1.1' => 0 ], [ 'h2', 'http/1.1' => 0 ], [ 'imap' => 0 ],
    [ 'h2', 'smtp' => 1 ], [ 'smtp' => 1 ], [ 1 ])
{
    my $good = pop @$case;
    my $c = $t->client('tls', tls => 1, ssl => @$case
        ? { SSL_alpn_protocols => $case } : {});

    is($c->connected() && $c->greeting() =~ /^220 / ? 1 : 0, $good,
        "STATE-9 ALPN @$case: " . ($good ? 'accepted' : 'refused'));
    $c->quit() if $c->connected();
}

# RES-10

SKIP: {
    skip('a sanitizer keeps what is freed', 1)
        if $t->read_file("/proc/$worker/maps") =~ /asan/;

    my $before;

    for my $n (1 .. 300) {
        my $host = join('.', ("n$n" . 'x' x 50) x 4);
        my ($tls, $c) = session('tls', host => $host);
        $c->close();
        $before = memory() if $n == 100;
    }

    cmp_ok(memory() - $before, '<', 400, 'RES-10 two hundred names in SNI');
}

is(join(' ', $t->worker_pids()), $worker, 'TLS-11 the worker is the same');

$t->done();


# s_client's own words, with a session's in them

sub s_client {
    my ($where, @options) = @_;

    my ($log, $fifo) = map { $t->dir() . "/s_client$_" } '', '.in';

    unlink($log, $fifo);
    mkfifo($fifo, 0600) or die "$fifo: $!\n";
    open(my $input, '+<', $fifo) or die "$fifo: $!\n";

    my $pid = spawn($log, 'sh', '-c', 'exec openssl s_client "$@" <"$0"',
        $fifo, '-crlf', '-ign_eof', '-connect',
        '127.0.0.1:' . $t->port($where), @options);
    my $status;

    # not before the greeting, which not all of them get
    $t->wait_for(sub { defined($status = wait_exit($pid, 0))
        || $t->read_file($log) =~ /^220 /m });

    if (!defined $status) {
        syswrite($input, "NOOP\nQUIT\n");
        wait_exit($pid, 10) // kill('KILL', $pid);
    }

    return $t->read_file($log) =~ s/\r//gr;
}


# seconds that the worker has had

sub cpu {
    my @field = split(/ /, $t->read_file("/proc/$worker/stat") =~ s/.*\) //r);

    return ($field[11] + $field[12]) / 100;
}


sub memory {
    return $t->read_file("/proc/$worker/status") =~ /^RssAnon:\s+(\d+)/m && $1;
}
