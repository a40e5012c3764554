#!/usr/bin/perl

# The replayer: sessions are read as written, cut where told, and a server
# that minds how octets are cut is found out.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use IO::Socket::INET;
use Test::More;

use MailPolicy;
use MailPolicy::Process qw(fork_server stop_process);
use MailPolicy::Replay qw(load_session play positions);

my $t = MailPolicy->new();

my $session = load_session($t->write_file('one.txt', <<'EOF'));
# a comment

every 5
server good
S: 220
C: NOOP
C(bad): never
C(!bad)! \x4eOOP\r\n\0\\
C! \tx\n
S(bad): 999
S: 250 4x1
TLS
C:
EOF

is($session->{name}, 'one', 'name');
is($session->{every}, 5, 'every');
is_deeply($session->{tags}, [ 'good' ], 'server');
is_deeply([ map { $_->{send} // $_->{codes} // 'TLS' }
    MailPolicy::Replay::steps($session, 'good') ],
    [ '220', "NOOP\r\nNOOP\r\n\0\\\tx\n", '250 4x1', 'TLS', "\r\n" ], 'steps');
is(join(' ', positions($session)), join(' ', 1 .. 16, 18), 'positions');
ok(!eval { load_session($t->write_file('bad.txt', "S 220\n")); 1 },
    'what cannot be read');

# chunks, against a relay

my $relay = $t->run_relay(name => 'relay',
    rcpt => { match => qr/bob@/, action => '550 5.1.1 no bob' },
    extensions => [ 'PIPELINING', 'CHUNKING' ]);

for my $file (glob("$FindBin::Bin/../tests/sessions/bdat*.txt")) {
    my $bdat = load_session($file);
    my @runs = map { run($bdat, 'relay', $_) }
        undef, positions($bdat), 'octets';

    play(\@runs, 20, 10);

    my ($whole, @others) = map { told($_) } @runs;
    like($whole, qr/\n221 .*\n\nCLOSED\z/, "$bdat->{name}: to its end");
    is(scalar(grep { $_ ne $whole } @others), 0,
        "$bdat->{name}: " . @others . ' splits');
}

my %contents;
$contents{ "$_->{from} " . join(' ', $_->{data}, @{ $_->{chunks} // [] }) }++
    for $relay->messages();
is(scalar keys %contents, 6, 'each message always the same');
is($contents{"bdat-crlf\@example.com a\r\n.\r\n.\r\n..\r\nb 2 1 1 1 3 4 2"},
    2 + positions(load_session("$FindBin::Bin/../tests/sessions/bdat-crlf.txt")),
    'as often as it was played');

# a server that answers each of its reads

my $listener = IO::Socket::INET->new(LocalAddr => '127.0.0.1',
    LocalPort => $t->port('bad'), Listen => 100, ReuseAddr => 1);
my $bad = fork_server($t->dir() . '/bad.log', [ $listener ], sub {
    # should the test die
    alarm(60);

    while (my $c = $listener->accept()) {
        my $octets = '';
        syswrite($c, "220 x\r\n");
        while (sysread($c, $octets, 1000, length $octets)) {
            syswrite($c, "250 x\r\n");
            last if $octets =~ /QUIT\r\n\z/;
        }
    }
});
close($listener);

$session = load_session($t->write_file('two.txt',
    "S: 220\nC: NOOP\nC: QUIT\nS: 250\n"));
my @runs = map { run($session, 'bad', $_) } undef, positions($session);
play(\@runs, 1, 20);
is(told($runs[0]), "220 x\n\n250 x\n\nCLOSED", 'whole');
is(scalar(grep { told($_) ne told($runs[0]) } @runs), 11,
    'other replies at each split');

$session = load_session($t->write_file('three.txt', "S: 220\nC: QUIT\nS: 221\n"));
@runs = map { run($session, 'bad') } 1 .. 5;
play(\@runs, 1, 3);
is($runs[2]{failed}, 'three at bad, whole: "250 x|" instead of 221',
    'an unexpected reply');
is(scalar(grep { $_->{replies} } @runs), 3, 'given up after so many failures');

$session = load_session($t->write_file('four.txt',
    "S: 220\nC: QUIT\nS: 250\nS: 250\n"));
@runs = run($session, 'bad');
play(\@runs, 1, 1);
is($runs[0]{failed}, 'four at bad, whole: closed, instead of 250',
    'a reply that does not come');

stop_process($bad, 'TERM', 5);

$t->done(faults => 0);

sub run {
    my ($session, $server, $cut) = @_;

    return { session => $session, server => $server, tags => [], cut => $cut,
        port => $t->port($server) };
}

sub told { return join("\n", @{ $_[0]{replies} }) =~ s/queued as \w+//gr }
