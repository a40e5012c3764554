#!/usr/bin/perl

# Line ends in bodies and what may not be made of them, by their ids: no other
# end of a message than CRLF.CRLF (SMUG-1, SMUG-2), bare CR and LF refused or
# repaired (SMUG-3), repaired ones that begin a line with a dot (SMUG-4), long
# lines (SMUG-13), chunks that nobody can find the end of (EXT-4), and what is
# pipelined behind the end of a message (EXT-8).

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Test::More;

use MailPolicy;
use MailPolicy::Oracle qw(oracle_disagreements);

my $t = MailPolicy->new();

my %relay = (
    data => $t->run_relay(name => 'data',
        extensions => [ 'PIPELINING', '8BITMIME' ]),
    bdat => $t->run_relay(name => 'bdat',
        extensions => [ 'PIPELINING', '8BITMIME', 'CHUNKING' ]),
);

$t->certificate('edge');

my $servers = '';

for my $name (sort keys %relay) {
    for my $mode (qw(reject normalize)) {
        $servers .= "server { listen 127.0.0.1:%%PORT_${name}_$mode%%;"
            . " protocol smtp; policy_bare_newline $mode;"
            . " proxy_pass 127.0.0.1:%%PORT_$name%%; }\n";
    }
}

$t->conf(<<"EOF");
mail {
    server_name  edge.example.com;
    access_log   %%DIR%%/access.log;
    policy       on;
    policy_auth  off;

    $servers

    server {
        listen             127.0.0.1:%%PORT_without%%;
        protocol           smtp;
        smtp_capabilities  PIPELINING;
        proxy_pass         127.0.0.1:%%PORT_bdat%%;
    }

    server {
        listen               127.0.0.1:%%PORT_clear%%;
        protocol             smtp;
        starttls             only;
        proxy_pass           127.0.0.1:%%PORT_bdat%%;
        ssl_certificate      %%DIR%%/edge.crt;
        ssl_certificate_key  %%DIR%%/edge.key;
    }
}
EOF
$t->run_nginx();

my $MAIL = 'MAIL FROM:<a@example.com>';
my $RCPT = 'RCPT TO:<b@example.net>';


sub session {
    my ($where) = @_;

    return $t->session($where);
}


# a message with that in it, up to the true end of it: the reply

sub data {
    my ($c, $octets, $name) = @_;

    local $Test::Builder::Level = $Test::Builder::Level + 1;

    $c->pipeline($MAIL, $RCPT, 'DATA');
    $c->send_raw($octets);

    if ($octets !~ /\r\n\.\r\n\z/) {
        is($c->read_some(0.05), undef, "$name: no reply before its end");
        $c->send_raw("\r\n.\r\n");
    }

    return $c->read_reply();
}


sub shown { return $_[0] =~ s/\r/\\r/gr =~ s/\n/\\n/gr =~ s/\0/\\0/gr }


# SMUG-1, SMUG-2

my %END = (
    'SMUG-1' => [ "\n.\n", "\n.\r\n", "\r\n.\n" ],
    'SMUG-2' => [ "\n.\r", "\r.\n", "\r.\r", "\r.\r\n", "\r\n\0.\r\n",
                  "\r\n.\r\r\n", "\r\r\n.\r\r\n" ],
);
my $smuggled = "MAIL FROM:<evil\@example.com>\r\nRCPT TO:<v\@example.net>\r\n"
    . "DATA\r\nSubject: evil\r\n\r\nx";

for my $id (sort keys %END) {
    for my $end (@{ $END{$id} }) {
        my $name = "$id " . shown($end);
        my $c = session('data_reject');

        like(data($c, "Subject: x\r\n\r\nfirst$end$smuggled", $name),
            qr/^554 5\.6\.0 /, "$name: is no end of it");
        is(scalar(() = $relay{data}->received()), 0,
            "$name: and the relay has nothing");
        is($c->cmd('NOOP'), '250 2.0.0 Ok', "$name: nothing else was said");
        $c->quit();
    }
}

# SMUG-3, SMUG-4: what the relay has when they are repaired

my %REPAIRED = (
    "a\nb"        => "a\r\nb",
    "a\rb"        => 'a b',
    "a\r\r\nb"    => "a \r\nb",
    "a\n.\nb"     => "a\r\n..\r\nb",
    "a\n.\r\nb"   => "a\r\n..\r\nb",
    "a\n..\nb"    => "a\r\n...\r\nb",
    "a\n.b"       => "a\r\n..b",
    "a\r.\rb"     => 'a . b',
    "a\r\n.\rb"   => "a\r\n b",
    "a\n\n.\n\nb" => "a\r\n\r\n..\r\n\r\nb",
    "\n.\n"       => "\r\n..\r\n",
);

my $c = session('data_normalize');

for my $octets (sort keys %REPAIRED) {
    my $id = $octets =~ /\n\./ ? 'SMUG-4' : 'SMUG-3';
    my $name = "$id " . shown($octets);

    like(data($c, $octets, $name), qr/^250 /, "$name: is repaired");
    is(shown(($relay{data}->received())[-1]{raw}),
        shown("$REPAIRED{$octets}\r\n.\r\n"), "$name: as it should be");
}

like(data($c, "a\r\n\0.\r\nb", 'SMUG-3 NUL'), qr/^554 5\.6\.0 /,
    'SMUG-3 NUL is not repaired');
$c->quit();

# SMUG-13: never cut, whatever the way to the relay; a dot in them is text

my @LONG = ('x' x 998, 'x' x 999 . '.', 'x' x 2048 . '.y', '.' x 1999,
    'x.' x 35_000, 'x' x 32_767 . '.' . 'x' x 32_767 . '.');

for my $name (sort keys %relay) {
    for my $mode (qw(reject normalize)) {
        $c = session("${name}_$mode");

        for my $line (@LONG) {
            my $what = "SMUG-13 $name $mode, " . length($line) . ' octets';
            my $text = "x\r\n$line\r\n$line\r\n";

            like(data($c, MailPolicy::Client::encode_body($text)), qr/^250 /,
                "$what: DATA");
            ok(($relay{$name}->received())[-1]{data} eq $text,
                "$what: DATA, whole");

            $c->pipeline($MAIL, $RCPT);
            $c->send_raw('BDAT ' . length($text) . " LAST\r\n$text");
            like($c->read_reply(), qr/^250 /, "$what: BDAT");
            ok(($relay{$name}->received())[-1]{data} eq $text,
                "$what: BDAT, whole");
        }

        $c->quit();
    }
}

# EXT-4: where the octets of a chunk cannot be told from commands, it ends

for my $case ([ 'without', 'BDAT 12', '502' ],
    [ 'without', 'BDAT 12 LAST', '502' ], [ 'clear', 'BDAT 12 LAST', '530' ],
    [ 'bdat_reject', 'BDAT', '501' ], [ 'bdat_reject', 'BDAT 12 LOST', '501' ],
    [ 'bdat_reject', 'BDAT +12', '501' ],
    [ 'bdat_reject', "BDAT 12\0LAST", '501' ],
    [ 'bdat_reject', "BDAT 12\nLAST", '501' ],
    [ 'bdat_reject', 'BDAT 18446744073709551628', '552' ])
{
    my ($where, $command, $code) = @$case;

    $c = session($where);
    $c->pipeline($MAIL, $RCPT);
    $c->send_raw("$command\r\nNOOP\r\nNOOP\r\n");
    my $name = "EXT-4 $where, " . shown($command);
    like($c->read_reply(), qr/^$code 5\./, "$name: refused");
    is($c->read_reply(), 'CLOSED', "$name: its octets are no commands");
}

# EXT-8: what follows in the same octets is the next command's

for my $name (sort keys %relay) {
    my $before = () = $relay{$name}->received();

    $c = session("${name}_reject");
    $c->send_raw("$MAIL\r\n$RCPT\r\nBDAT 5 LAST\r\na\r\n\r\n"
        . "$MAIL\r\n$RCPT\r\nBDAT 3\r\nb\r\nBDAT 0 LAST\r\nNOOP\r\n"
        . "$MAIL\r\n$RCPT\r\nDATA\r\n");
    is(join(' ', map { substr($c->read_reply(), 0, 3) } 1 .. 11),
        '250 250 250 250 250 250 250 250 250 250 354',
        "EXT-8 $name: behind BDAT LAST");
    $c->send_raw("c\r\n.\r\n$MAIL\r\n$RCPT\r\nBDAT 3 LAST\r\nd\r\nQUIT\r\n");
    is(join(' ', map { substr($c->read_reply(), 0, 3) } 1 .. 5),
        '250 250 250 250 221', "EXT-8 $name: behind the dot");

    my @new = $relay{$name}->received();
    is(join(' / ', map { shown($_->{data}) } splice(@new, $before)),
        'a\r\n\r\n / b\r\n / c\r\n / d\r\n', "EXT-8 $name: each its own");
}

is(join("\n", map { oracle_disagreements($_) } values %relay), '',
    'SMUG-5 four parsers see what the relay saw, and no stray octets');

$t->done();
