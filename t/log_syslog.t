#!/usr/bin/perl

# access_log syslog:...: a datagram a line, over UDP and unix sockets, as nginx
# writes them; a server that is not there, does not read or comes back.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use IO::Select;
use IO::Socket::INET;
use IO::Socket::UNIX;
use JSON::PP ();
use Socket qw(SOCK_DGRAM);
use Sys::Hostname qw(hostname);
use Test::More;
use Time::HiRes qw(time);

use MailPolicy;

my $t = MailPolicy->new();
my $relay = $t->run_relay(name => 'relay');

# 80000 octets, more than UDP carries
my $long = join(' ', ("'" . 'x' x 4000 . "'") x 20);

my $CONF = <<"EOF";
error_log  %%DIR%%/error.log info;

http {
    server {
        listen    127.0.0.1:%%PORT_http%%;
        location  / { policy_status json; }
    }
}

mail {
    server_name  edge.example.com;
    policy       on;
    policy_auth  off;
    proxy_pass   127.0.0.1:%%PORT_relay%%;

    map \$sender_local \$wanted { default 1; no 0; }

    log_format   line  '\$sender "\$helo"';
    log_format   long  $long;

    server {
        listen      127.0.0.1:%%PORT_both%%;
        protocol    smtp;
        access_log  syslog:server=127.0.0.1:%%PORT_udp%%;
        access_log  syslog:server=unix:%%DIR%%/log,facility=mail,severity=notice,tag=edge_1,nohostname
                    if=\$wanted line;
        access_log  %%DIR%%/file.log line;
    }

    server {
        listen      127.0.0.1:%%PORT_unix%%;
        protocol    smtp;
        access_log  syslog:server=unix:%%DIR%%/log,nohostname line;
    }

    server {
        listen      127.0.0.1:%%PORT_postfix%%;
        protocol    smtp;
        access_log  syslog:server=unix:%%DIR%%/log,nohostname postfix;
        access_log  syslog:server=127.0.0.1:%%PORT_udp%%,nohostname,tag=mx postfix;
    }

    server {
        listen      127.0.0.1:%%PORT_long%%;
        protocol    smtp;
        access_log  syslog:server=127.0.0.1:%%PORT_udp%%,nohostname long;
    }

    server {
        listen      127.0.0.1:%%PORT_away%%;
        protocol    smtp;
        access_log  syslog:server=127.0.0.1:%%PORT_nobody%% line;
        access_log  syslog:server=unix:%%DIR%%/nobody line;
    }
}
EOF

my $HOST = lc(hostname());
my $TIME = qr/[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d/;


sub udp {
    return IO::Socket::INET->new(LocalAddr => '127.0.0.1', Proto => 'udp',
        LocalPort => $t->port('udp')) || die "udp: $!\n";
}


sub unix {
    my $path = $t->dir() . '/log';

    unlink($path);
    my $socket = IO::Socket::UNIX->new(Local => $path, Type => SOCK_DGRAM)
        or die "$path: $!\n";
    chmod(0666, $path);
    return $socket;
}


# the next datagram, or undef if none comes

sub datagram {
    my ($socket, $timeout) = @_;

    IO::Select->new($socket)->can_read($timeout // 5) or return undef;
    recv($socket, my $octets, 100000, 0);
    return $octets;
}


sub mail {
    my ($port, @from) = @_;

    my $c = $t->session($port);
    my @good = grep { ($c->send_mail($_, [ 'b@example.net' ], "x\n"))[-1]
        =~ /^250 / } @from;

    $c->quit();
    return scalar(@good);
}


sub said {
    my ($what) = @_;

    return scalar(() = $t->error_log() =~ /\[error\] .*$what/g);
}


sub lost {
    return JSON::PP::decode_json($t->http_get('http', '/'))->{log}{lost};
}


# what both of them get

sub both {
    my ($name, $udp, $unix) = @_;

    mail('both', 'a@example.com', 'no@example.com', 'z@example.com');

    for my $from (qw(a no z)) {
        like(datagram($udp), qr/^<190>$TIME $HOST nginx: \{"time":.*(?#
            )"sender":"$from\@example.com",.*\}\z/, "$name: UDP, $from");
    }

    for my $from (qw(a z)) {
        like(datagram($unix), qr/^<21>$TIME edge_1: $from\@example.com (?#
            )"client.example"\z/, "$name: unix, $from");
    }

    is(datagram($unix, 0), undef, "$name: not what if= leaves out");
}


my ($udp, $unix) = (udp(), unix());

$t->conf($CONF);
$t->run_nginx();

both('first', $udp, $unix);

# what looks for lines of Postfix finds them

mail('postfix', 'p@example.com');
like(datagram($unix), qr/^<190>$TIME postfix\/smtpd: \w+: client=(?#
    )\S+\[127.0.0.1\],.*[^\n]\z/, 'the name of Postfix');
like(datagram($udp), qr/^<190>$TIME mx: \w+: client=/, 'or another one');

# a line is cut where a datagram ends

mail('long', 'a@example.com');
my $datagram = datagram($udp);
like($datagram, qr/^<190>$TIME nginx: x{60000}/, 'a long line');
is(length($datagram), 65507, 'as much of it as UDP carries');

# the server is started again

close($unix);
$unix = unix();
is(mail('unix', 'b@example.com'), 1, 'another server');
like(datagram($unix) // '', qr/ b\@example.com /, 'has the next line');

$_->close() for $udp, $unix;
is(mail('both', map { "$_\@example.com" } 'a' .. 'f'), 6,
    'no server: clients do not notice');
$t->wait_for(sub { $t->read_file('file.log') =~ /^f\@/m });
is(said(qr/lost, syslog server "unix:\S+log" \(111: Connection refused\)/), 1,
    'it is said once');

($udp, $unix) = (udp(), unix());
both('they are back', $udp, $unix);

# one that never was there

my $start = time();

is(mail('away', map { "$_\@example.com" } 1 .. 9), 9, 'it never was');
cmp_ok(time() - $start, '<', 5, 'nothing waits for it');
is(said(qr/lost, syslog server "unix:\S+nobody" \(2: No such file/), 1,
    'said once, unix');
is(said(qr/lost, syslog server "127.0.0.1:@{[ $t->port('nobody') ]}" \(111: /),
    1, 'said once, UDP');

# it does not read

my $queue = $t->read_file('/proc/sys/net/unix/max_dgram_qlen') + 0;
my $n = $queue + 20;
my $lost = lost();

SKIP: {
    skip("a queue of $queue datagrams", 5) if $queue > 2000;

    is(mail('unix', map { "$_\@example.com" } 1 .. $n), $n,
        'it does not read: clients do not notice');
    is(said(qr/lost, syslog server "unix:\S+log" \(11: Resource tempo/), 1,
        'said once');

    my @got;
    while (defined(my $octets = datagram($unix, 0))) { push @got, $octets }

    cmp_ok(scalar(@got), '>=', $queue, 'it has what the queue holds');
    like($got[-1], qr/ @{[ scalar(@got) ]}\@example.com /, 'the first ones');
    is(lost() - $lost, $n - @got, 'the others are counted');
}

# reload, and no process but one

sub sockets {
    my ($pid) = @_;

    return scalar(grep { (readlink($_) // '') =~ /^socket:/ }
        glob("/proc/$pid/fd/*"));
}

$t->reload();
both('after a reload', $udp, $unix);

my ($worker) = $t->worker_pids();
my $sockets = sockets($worker);

mail('both', ('no@example.com') x 20);
ok($t->wait_for(sub { sockets($worker) <= $sockets }), 'a socket for each log');
while (defined(datagram($udp, 0))) { }

$t->stop();
$t->instance()->{single} = 1;
$t->conf("master_process off;\n$CONF");
$t->run_nginx();
both('master_process off', $udp, $unix);

$t->done();
