#!/usr/bin/perl

# CHUNKING and BINARYMIME (RFC 3030), to relays with and without them: what
# arrives is the content to the octet, chunks are read whatever becomes of
# them, and a message counts only with its end.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Test::More;
use Time::HiRes qw(sleep);

use MailPolicy;
use MailPolicy::Oracle qw(oracle_disagreements);

my $t = MailPolicy->new();

my %relay = (
    data => $t->run_relay(name => 'data',
        extensions => [ 'PIPELINING', '8BITMIME', 'SIZE' ]),
    bdat => $t->run_relay(name => 'bdat', extensions => [ 'PIPELINING',
        '8BITMIME', 'SIZE', 'CHUNKING', 'BINARYMIME',
        'ENHANCEDSTATUSCODES' ]),
);

my $servers = '';

for my $name (qw(data bdat)) {
    for my $mode (qw(reject normalize)) {
        $servers .= "server { listen 127.0.0.1:%%PORT_smtp_${name}_$mode%%;"
            . " protocol smtp; policy_bare_newline $mode;"
            . " proxy_pass 127.0.0.1:%%PORT_$name%%; }\n";
    }
}

$t->conf(<<"EOF");
mail {
    server_name    edge.example.com;
    access_log     %%DIR%%/access.log;
    policy         on;
    policy_auth    off;
    proxy_timeout  20s;
    max_errors     20;
    proxy_pass     127.0.0.1:%%PORT_bdat%%;

    $servers

    server {
        listen               127.0.0.1:%%PORT_small%%;
        protocol             smtp;
        policy_message_size  1000;
    }

    server {
        listen               127.0.0.1:%%PORT_without%%;
        protocol             smtp;
        smtp_capabilities    PIPELINING;
    }

    server {
        listen               127.0.0.1:%%PORT_hasty%%;
        protocol             smtp;
        timeout              500ms;
    }
}
EOF
$t->run_nginx();

my $number = 0;

sub session {
    my ($where) = @_;

    return $t->session($where, timeout => 20);
}


# up to the recipient; gives the sender

sub begin {
    my ($c, $parameters) = @_;

    my $from = 's' . ++$number . '@example.com';
    my ($mail, $rcpt) = $c->pipeline("MAIL FROM:<$from>" . ($parameters // ''),
        'RCPT TO:<r@example.net>');
    die "$mail $rcpt\n" unless $rcpt =~ /^250/;
    return $from;
}


sub bdat {
    my ($octets, $last) = @_;

    return 'BDAT ' . length($octets) . ($last ? ' LAST' : '') . "\r\n$octets";
}


sub outcome {
    my ($from) = @_;

    my $outcome;

    $t->wait_for(sub {
        ($outcome) = map { $_->{outcome} }
            grep { ($_->{sender} // '') eq $from } $t->access_log();
    });
    return $outcome // 'none';
}


# the chunks of a message in one write; the replies

sub chunks {
    my ($c, @chunks) = @_;

    my $last = pop @chunks;

    $c->send_raw(join('', map { bdat($_) } @chunks) . bdat($last, 1));
    return map { $c->read_reply() } @chunks, $last;
}


sub codes { return join(' ', map { substr($_, 0, 3) } @_) }

# what arrives

my %content = (
    'one line'       => [ "x\r\n" ],
    'two chunks'     => [ "Subject: x\r\n\r\n", "body\r\n" ],
    'dots'           => [ ".\r\n..\r\n.x\r\n", ".\r\n", "x.\r\n.\r\n" ],
    'a dot each'     => [ '.', '.', "\r", "\n", '.', "\r\n", '' ],
    'CR and LF cut'  => [ "a\r", "\nb\r", "\n" ],
    'LAST is empty'  => [ "a\r\n", '' ],
    'all is empty'   => [ '' ],
    'empty chunks'   => [ '', "a\r\n", '', '' ],
    'octets above'   => [ join('', map { chr } 128 .. 255) . "\r\n" ],
    'commands in it' => [ "\r\n.\r\nQUIT\r\nMAIL FROM:<e\@example.com>\r\n" ],
    '100 kB'         => [ (".line\r\n" x 10_000), ('x' x 30_001) . "\r\n" ],
);

for my $name (sort keys %relay) {
    my $relay = $relay{$name};

    for my $mode (qw(reject normalize)) {
        my $c = session("smtp_${name}_$mode");

        for my $case (sort keys %content) {
            my @chunks = @{ $content{$case} };
            my $what = "$name $mode: $case";

            begin($c);
            my @replies = chunks($c, @chunks);
            is(codes(@replies), codes(map { '250' } @chunks),
                "$what: accepted");
            is($replies[0], '250 2.0.0 ' . length($chunks[0])
                . ' octets received', "$what: reply to a chunk") if @chunks > 1;
            ok(($relay->received())[-1]{data} eq join('', @chunks),
                "SMUG-9 $what: to the octet");
        }

        # the end of the content is no end of a line
        begin($c);
        is(codes(chunks($c, 'no end')), '250', "$name $mode: no CRLF at its end");
        is(($relay->received())[-1]{data}, $name eq 'bdat' ? 'no end'
            : "no end\r\n", "$name $mode: DATA has one added");

        # cut at each octet
        my $text = bdat("..\r\n.\r") . bdat("\n") . bdat(".x\r\n", 1);
        my @wrong = grep {
            my $cut = $_;
            begin($c);
            $c->send_raw(substr($text, 0, $cut));
            sleep(0.001);
            $c->send_raw(substr($text, $cut));
            codes(map { $c->read_reply() } 1 .. 3) ne '250 250 250'
                || ($relay->received())[-1]{data} ne "..\r\n.\r\n.x\r\n";
        } 1 .. length($text) - 1;
        is("@wrong", '', "SMUG-8 $name $mode: every split");

        bare($c, $name, $mode, $_) for "a\nb\r\n", "a\n.\nb\r\n",
            "a\r.\r\nb\r\n", "a\r\r\n", "a\n.\r\nb\r\n", "a\n", "a\r";

        begin($c);
        like((chunks($c, "a\r\n\0\r\n"))[0], qr/^554 5\.6\.0 /,
            "SMUG-2 $name $mode: NUL");
        is($c->cmd('NOOP'), '250 2.0.0 Ok', "$name $mode: the session goes on");
        $c->quit();
    }
}


sub bare {
    my ($c, $name, $mode, $content) = @_;

    my $relay = $relay{$name};
    my $shown = $content =~ s/\r/\\r/gr =~ s/\n/\\n/gr;
    my $before = () = $relay->received();

    begin($c);
    my ($reply) = chunks($c, $content);

    if ($mode eq 'reject') {
        like($reply, qr/^554 5\.6\.0 /, "EXT-6 $name $shown: refused");
        is(scalar(() = $relay->received()), $before,
            "EXT-6 $name $shown: not at the relay");
        return;
    }

    my $good = $content =~ s/\r(?!\n)/ /gr =~ s/(?<!\r)\n/\r\n/gr;
    like($reply, qr/^250 /, "EXT-6 $name $shown: normalized");
    is(($relay->received())[-1]{data} =~ s/\r\n\z//r, $good =~ s/\r\n\z//r,
        "SMUG-4 $name $shown: with CRLF");
}

is(join("\n", map { oracle_disagreements($_) } values %relay), '',
    'SMUG-5 four parsers see the same');

# the command itself

for my $bad ('BDAT', 'BDAT ', 'BDAT x', 'BDAT -1', 'BDAT 1 2', 'BDAT 1 LAS',
    'BDAT 1 LAST x', 'BDAT 18446744073709551616', 'BDAT 9223372036854775808')
{
    my $c = session('smtp_data_reject');
    begin($c);
    $c->send_raw("$bad\r\nQUIT\r\n");
    like($c->read_reply(), qr/^(?:501 5\.5\.4|552 5\.3\.4) /, "RES-9 $bad");
    ok($c->wait_close(), "EXT-4 $bad: closed");
}

my $c = session('without');
begin($c);
$c->send_raw("BDAT 6\r\nQUIT\r\n");
like($c->read_reply(), qr/^502 5\.5\.1 /, 'EXT-4 not offered');
ok($c->wait_close(), 'EXT-4 not offered: closed');

# in the wrong place: read, and then refused

$c = session('smtp_bdat_reject');
$c->send_raw("BDAT 6\r\nQUIT\r\nNOOP\r\n");
like($c->read_reply(), qr/^503 5\.5\.1 /, 'EXT-4 without MAIL');
is($c->read_reply(), '250 2.0.0 Ok', 'EXT-4 its octets are no command');

$c->cmd('MAIL FROM:<a@example.com>');
$c->send_raw(bdat("QUIT\r\n", 1));
like($c->read_reply(), qr/^503 5\.5\.1 /, 'EXT-4 without RCPT');
like($c->cmd('RCPT TO:<r@example.net>'), qr/^503 /,
    'STATE-2 and no transaction any more');

$relay{bdat}->set(rcpt => '550 5.1.1 no');
$c->send_raw("MAIL FROM:<n\@example.com>\r\nRCPT TO:<r\@example.net>\r\n"
    . bdat("QUIT\r\n") . bdat("QUIT\r\n", 1) . "NOOP\r\n");
is(codes(map { $c->read_reply() } 1 .. 5), '250 550 554 503 250',
    'STATE-8 no valid recipient, all of it pipelined');
is(outcome('n@example.com'), 'rejected', 'STATE-8 logged');
$relay{bdat}->set(rcpt => undef);

my $from = begin($c);
$c->send_raw(bdat("a\r\n"));
like($c->read_reply(), qr/^250 /, 'a chunk');
like($c->cmd('DATA'), qr/^503 5\.5\.1 /, 'EXT-5 DATA after BDAT');
like($c->cmd('RCPT TO:<q@example.net>'), qr/^503 5\.5\.1 /, 'RCPT after BDAT');
like($c->cmd('MAIL FROM:<q@example.net>'), qr/^503 5\.5\.1 /, 'MAIL after BDAT');
is($c->cmd('NOOP'), '250 2.0.0 Ok', 'NOOP between chunks');
$c->send_raw(bdat("b\r\n", 1));
like($c->read_reply(), qr/^250 /, 'LAST');
is(($relay{bdat}->received())[-1]{data}, "a\r\nb\r\n", 'EXT-5 and the message');
$c->quit();

# RSET between chunks; clients that leave

for my $name (sort keys %relay) {
    my $c = session("smtp_${name}_reject");
    my $from = begin($c);
    $c->send_raw(bdat("a\r\n"));
    $c->read_reply();
    like($c->cmd('RSET'), qr/^250 /, "$name: RSET between chunks");
    is(outcome($from), 'aborted', "$name: RSET, logged");
    begin($c);
    like((chunks($c, "b\r\n"))[0], qr/^250 /, "$name: the next message");
    is(($relay{$name}->received())[-1]{data}, "b\r\n", "$name: it alone");
    $c->quit();

    for my $end (qw(close reset half_close)) {
        leaves($name, $end, $_) for bdat("a\r\n"),
            bdat("a\r\n", 1) =~ s/\n\z//r,
            bdat('x' x 100_000) . "BDAT 10 LAST\r\n123456789";
    }
}


sub leaves {
    my ($name, $end, $sent) = @_;

    my $c = session("smtp_${name}_reject");
    my $from = begin($c);
    my $what = "SMUG-12 $name: $end after " . length($sent);

    $c->send_raw($sent);
    $c->$end();
    is(outcome($from), 'aborted', "$what: logged");
    ok($t->wait_for(sub { !$relay{$name}->stats()->{open} }),
        "$what: relay cut");

    my ($said) = grep { /<$from>/ } $relay{$name}->transcripts();
    unlike($said, qr/LAST|RSET|QUIT|-- body of/, "$what: no end of any kind");
}

# sizes

$c = session('small');
begin($c);
$c->send_raw(bdat('x' x 1001, 1));
like($c->read_reply(), qr/^552 5\.3\.4 /, 'EXT-7 one chunk too large');
begin($c);
$c->send_raw(bdat('x' x 600) . bdat('x' x 401) . bdat("\r\n", 1));
is(codes(map { $c->read_reply() } 1 .. 3), '250 552 503',
    'EXT-7 too large together');
begin($c);
$c->send_raw(bdat('x' x 600) . bdat('x' x 398) . bdat("\r\n", 1));
is(codes(map { $c->read_reply() } 1 .. 3), '250 250 250', 'EXT-7 as allowed');
begin($c);
$c->send_raw("BDAT 100000000000\r\nabc");
like($c->read_reply(), qr/^552 5\.3\.4 /, 'RES-9 a huge chunk');
like($c->read_reply(), qr/^421 /, 'RES-9 is not read for nothing');
ok($c->wait_close(), 'RES-9 closed');

# silence within a chunk, and between chunks

$c = session('hasty');
$from = begin($c);
$c->send_raw("BDAT 10\r\nabc");
ok($c->wait_close(5), 'RES-5 a client that stops in a chunk');
is(outcome($from), 'aborted', 'RES-5 logged');

$c = session('hasty');
$from = begin($c);
$c->send_raw(bdat("abc\r\n"));
$c->read_reply();
like($c->read_reply(5), qr/^421 4\.4\.2 /, 'RES-5 or between chunks');
is(outcome($from), 'aborted', 'RES-5 logged');

# tiny chunks

$c = session('smtp_bdat_reject');
begin($c);
$c->send_raw(bdat('x') x 200);
my @replies = $c->read_reply();
push @replies, $c->read_reply() while $replies[-1] =~ /^250/;
like($replies[-1], qr/^421 4\.7\.0 /, 'RES-4 tiny chunks are not for ever');
cmp_ok(scalar @replies, '>', 100, 'RES-4 but some are');

# the relay refuses a chunk, or goes away

my $LOST = '451 4.4.2 Connection to relay lost, try again later';

fault(@$_) for [ '452 4.3.1 full', '452 4.3.1 full', 'deferred' ],
    [ '552 5.3.4 too big', '552 5.3.4 too big', 'rejected' ],
    [ '421 4.3.2 closing', '451 4.3.2 closing', 'deferred' ],
    map { [ $_, $LOST, 'deferred' ] } qw(close rst garbage), '354 what';


sub fault {
    my ($action, $reply, $outcome) = @_;

    $relay{bdat}->set(bdat => $action);

    my $c = session('smtp_bdat_reject');
    my $from = begin($c);
    my $open = $relay{bdat}->stats()->{open};

    $c->send_raw(bdat("first\r\n"));
    $c->read_reply();
    ok($t->wait_for(sub { $relay{bdat}->stats()->{open} < $open }),
        "bdat: $action: the relay is left");
    $c->send_raw(bdat("second\r\n") . bdat("third\r\n", 1));
    is($c->read_reply(), $reply, "DOT S8 bdat: $action");
    like($c->read_reply(), qr/^503 /, "STATE-2 bdat: $action: void");
    like($c->cmd('DATA'), qr/^503 /, "STATE-2 bdat: $action: DATA");
    is(outcome($from), $outcome, "DOT S8 bdat: $action: logged");

    $relay{bdat}->set(bdat => undef);
    begin($c);
    like((chunks($c, "x\r\n", "y\r\n"))[-1], qr/^250 /,
        "bdat: $action: the next message");
    $c->quit();
}

# a chunk is refused when LAST is out already: the first refusal counts

$relay{bdat}->set(bdat => { delay => 0.3, then => '452 4.3.1 full' },
    dot => '503 5.5.1 no');
$c = session('smtp_bdat_reject');
$from = begin($c);
is((chunks($c, "x\r\n", "y\r\n"))[-1], '452 4.3.1 full',
    'DOT S12 a chunk refused, LAST a consequence');
is(outcome($from), 'deferred', 'DOT S12 logged');
$relay{bdat}->set(bdat => undef, dot => undef);

for my $action ('450 4.2.0 no', '554 5.6.0 spam') {
    $relay{bdat}->set(dot => $action);
    $from = begin($c);
    is((chunks($c, "x\r\n", "y\r\n"))[-1], $action, "DOT S12 LAST: $action");
}

for my $action (qw(close rst garbage)) {
    $relay{bdat}->set(dot => $action);
    $from = begin($c);
    is((chunks($c, "x\r\n"))[-1], $LOST, "DOT S10 LAST: $action");
    is(outcome($from), 'unknown', "DOT S10 LAST: $action, logged");
}

$relay{bdat}->set(dot => undef);

# DATA is refused or never answered: the chunk is read all the same

for my $action ('450 4.2.0 no', '554 5.6.0 no', 'close') {
    $relay{data}->set(data => $action);
    $c = session('smtp_data_reject');
    begin($c);
    $c->send_raw(bdat("QUIT\r\n", 1) . "NOOP\r\n");
    is($c->read_reply(), $action eq 'close' ? $LOST : $action,
        "DOT S7 $action");
    is($c->read_reply(), '250 2.0.0 Ok', "EXT-4 $action: read");
    $relay{data}->set(data => undef);
}

# BINARYMIME

my $octets = join('', map { chr } 0 .. 255) x 300 . "\n.\n\r.\r";

$c = session('smtp_bdat_reject');
like($c->ehlo(), qr/^250.BINARYMIME$/m, 'EXT-1 BINARYMIME offered');
begin($c, ' BODY=BINARYMIME');
like($c->cmd('DATA'), qr/^503 5\.5\.1 /, 'EXT-3 DATA for BINARYMIME');
is(codes(chunks($c, substr($octets, 0, 40_000), substr($octets, 40_000))),
    '250 250', 'BINARYMIME');
my $message = ($relay{bdat}->received())[-1];
ok($message->{data} eq $octets, 'BINARYMIME to the octet');
is($message->{mail_parameters}, 'BODY=BINARYMIME', 'BINARYMIME told');

$c = session('smtp_data_reject');
unlike($c->ehlo(), qr/BINARYMIME/, 'EXT-1 BINARYMIME not offered');
like($c->ehlo(), qr/^250.CHUNKING$/m, 'EXT-1 CHUNKING is');
like($c->cmd('MAIL FROM:<a@example.com> BODY=BINARYMIME'), qr/^501 5\.5\.4 /,
    'EXT-3 BINARYMIME refused');

# a large one does not stay in memory

sub memory {
    my ($worker) = $t->worker_pids();

    return $t->read_file("/proc/$worker/status") =~ /^RssAnon:\s+(\d+)/m && $1;
}

for my $name (sort keys %relay) {
    my $c = session("smtp_${name}_reject");
    my $big = ('x' x 98 . "\r\n") x 50_000;
    my $before = memory();

    begin($c);
    $c->send_raw(bdat($big) . bdat($big, 1));
    is(codes($c->read_reply(), $c->read_reply()), '250 250', "$name: 10 MB");
    ok(($relay{$name}->received())[-1]{data} eq $big . $big,
        "$name: 10 MB to the octet");

    my ($worker) = $t->worker_pids();
    next if $t->read_file("/proc/$worker/maps") =~ /asan/;
    cmp_ok(memory() - $before, '<', 2000, "RES-7 $name: 10 MB are not kept");
}

$t->done();
