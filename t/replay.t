#!/usr/bin/perl

# Recorded sessions, tests/sessions: however their octets are cut, the client
# is told the same and the relay gets the same octets (SMUG-8); what four
# parsers make of these, and all traces, are as they should be.
#
# Each session is played whole, with each single split, and octet by octet;
# over TLS a write is a record, so records are cut.  There it is one split of
# seven, unless TEST_SPLITS=all.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Test::More;

use MailPolicy;
use MailPolicy::Oracle qw(oracle_disagreements oracle_segments);
use MailPolicy::Replay qw(load_session play positions);
use MailPolicy::Trace qw(trace_violations);

use constant { PARALLEL => 40, FAILURES => 20 };

my $t = MailPolicy->new();
my $all = ($ENV{TEST_SPLITS} // '') eq 'all';

alarm(900) if $all;

my %RULES = (rcpt => [ { match => qr/bob@/, action => '550 5.1.1 no bob' },
    { match => qr/later@/, action => '450 4.2.0 later' } ]);

# the relay is told the client's address, which is the run's
my %relay = (
    chunks => $t->run_relay(name => 'chunks', %RULES, extensions =>
        [ 'PIPELINING', '8BITMIME', 'SIZE', 'CHUNKING', 'XCLIENT ADDR' ]),
    lines  => $t->run_relay(name => 'lines', %RULES, extensions =>
        [ 'PIPELINING', '8BITMIME', 'XCLIENT ADDR' ]),
);

# name, relay, directives, TLS
my @SERVERS = (
    [ 'reject',        'chunks', '', 0 ],
    [ 'reject_ssl',    'lines',  '', 1 ],
    [ 'normalize',     'lines',  'policy_bare_newline normalize;', 0 ],
    [ 'normalize_ssl', 'chunks', 'policy_bare_newline normalize;', 1 ],
);

$t->write_file('users', "alice\@example.com:{PLAIN}kirsch-7\n");
$t->certificate('localhost');

my $servers = join('', map { server(@$_) } @SERVERS);

$t->conf(<<"EOF");
error_log %%DIR%%/error.log info;
events { worker_connections 1024; }

mail {
    server_name            edge.example.com;
    access_log             %%DIR%%/access.log;
    ssl_certificate        %%DIR%%/localhost.crt;
    ssl_certificate_key    %%DIR%%/localhost.key;
    policy                 on;
    policy_auth            off;
    policy_auth_plaintext  on;
    timeout                150s;
    proxy_timeout          150s;
    max_errors             50;

$servers
}
EOF
$t->run_nginx();

sub server {
    my ($name, $relay, $directives, $tls) = @_;

    my ($ssl, $starttls) = $tls ? (' ssl', '') : ('', 'starttls on;');
    my $common = "protocol smtp; $starttls $directives "
        . "proxy_pass 127.0.0.1:%%PORT_$relay%%;";

    return <<"EOF";
    server { listen 127.0.0.1:%%PORT_$name%%$ssl; $common }
    server { listen 127.0.0.1:%%PORT_login_$name%%$ssl; $common
             policy_auth file:%%DIR%%/users; }
EOF
}

my $number = 0;
my @runs;

for my $server (@SERVERS) {
    my @tags = tags(@$server);

    for my $file (sort glob("$FindBin::Bin/../tests/sessions/*.txt")) {
        my $session = load_session($file);

        push @runs, runs($session, $server, @tags)
            if !grep { my $tag = $_; !grep { $_ eq $tag } @tags }
                @{ $session->{tags} };
    }
}

# Makes the edge learn what the relays offer, which EHLO depends on.

sub tags {
    my ($name, $relay, $directives, $tls) = @_;

    for my $server ($name, "login_$name") {
        my $c = $t->client($server, tls => $tls);
        $c->greeting();
        $c->ehlo();
        $c->auth_plain('alice@example.com', 'kirsch-7') if $server ne $name;
        like($c->cmd('MAIL FROM:<first@example.com>'), qr/^250 /, $server);
        $c->quit();
    }

    my ($mode) = $name =~ /^([a-z]+)/;
    return ('login', $mode, $tls ? 'tls' : 'starttls');
}


# The first one is the one that the others have to be like.

sub runs {
    my ($session, $server, @tags) = @_;

    my ($name, $relay, $directives, $tls) = @$server;
    my $login = grep { $_ eq 'login' } @{ $session->{tags} };
    my @splits = positions($session, @tags);
    my $every = $all ? 1 : $session->{every} * ($tls ? 7 : 1);

    # not the same ones for all sessions
    my $first = length($session->{name}) % $every;
    @splits = grep { $_ % $every == $first } @splits if $every > 1;

    return map { {
        session => $session,
        server  => $name,
        port    => $t->port($login ? "login_$name" : $name),
        tls     => $tls,
        tags    => \@tags,
        cut     => $_,
        from    => address(),
    } } undef, @splits, 'octets';
}


sub address {
    $number++;
    return join('.', 127, 1 + ($number >> 16), ($number >> 8) & 255,
        $number & 255);
}


play(\@runs, PARALLEL, FAILURES);

is(some(map { $_->{failed} // () } @runs), '', 'SMUG-8 all were played');
@runs = grep { $_->{replies} } @runs;
note(scalar(@runs) . ' runs');

# what the relays got of each run

my %octets;

for my $relay (values %relay) {
    my @answers = $relay->answers();

    for my $stream ($relay->streams()) {
        my ($address) = $stream =~ /^XCLIENT ADDR=(\S+)\r$/m;
        my $same = joined($stream, shift @answers);

        push @{ $octets{ $address // 'nobody' } },
            $same =~ s/^XCLIENT ADDR=\S+/XCLIENT ADDR=x/mr;
    }
}

# where chunks are made anew, their sizes are those of what was read

sub joined {
    my ($stream, $answers) = @_;

    my $joined = '';
    my $command;

    for my $segment (oracle_segments($stream, $answers)) {
        my ($kind, $octets) = @$segment;

        if ($kind eq 'chunk') {
            $joined .= $octets;
            $joined .= "<end>\n" if $command =~ /LAST/;

        } else {
            $command = $octets;
            $joined .= $octets unless $octets =~ /^BDAT \d+(?: LAST)?\r\n\z/;
        }
    }

    return $joined;
}

is($octets{nobody}, undef, 'each relay knows its client');

my %group;
push @{ $group{"$_->{session}{name}, $_->{server}"} }, $_ for @runs;

for my $name (sort keys %group) {
    my ($whole, @others) = @{ $group{$name} };
    my ($told, $got) = (told($whole), got($whole));

    is(some(map { differs($_, $told, $got) } @others), '',
        "SMUG-8 $name: " . @others . ' splits');
}

sub some {
    my (@found) = @_;

    my $more = @found - 5;
    splice(@found, 5, $more, "and $more more") if $more > 0;
    return join("\n", @found);
}

sub told {
    my ($run) = @_;

    return join("\n", @{ $run->{replies} }) =~ s/queued as \w+/queued/gr;
}

# The QUIT of a connection that is left is only sent if nothing is due there.

sub got {
    my ($run) = @_;

    return join("\n--\n",
        map { s/QUIT\r\n\z//r } @{ $octets{ $run->{from} } // [] });
}

sub differs {
    my ($run, $told, $got) = @_;

    my @differs;

    push @differs, "cut at $run->{cut}, told: " . told($run) . "\ninstead of "
        . $told if told($run) ne $told;
    push @differs, "cut at $run->{cut}, relay: " . got($run) . "\ninstead of "
        . $got if !same(got($run), $got);
    return @differs;
}

# Where a message is refused amid its content, the relay may have got more or
# less of that, as it was read.

sub same {
    my ($some, $others) = @_;

    return 1 if $some eq $others;
    return 0 if grep { !/\r\nDATA\r\n(?!.*\r\n\.\r\n)/s } $some, $others;

    my $length = length($some) < length($others) ? length($some)
                                                 : length($others);
    return substr($some, 0, $length) eq substr($others, 0, $length);
}

my @relays = values %relay;

is(some(map { oracle_disagreements($_) } @relays), '', 'SMUG-5 ORACLE');
is(some(trace_violations($t, relays => \@relays,
    clients => [ map { $_->{record} } @runs ], secrets => [ 'kirsch' ])), '',
    'TRACE I2 I3 I5 I6');
is(scalar(grep { $_->{from} =~ /^evil/ } map { $_->received() } @relays), 0,
    'SMUG-1 SMUG-2 nothing smuggled');

$t->done();
