#!/usr/bin/perl

# The oracle: what each of its parsers makes of octets, and that it finds
# what is wrong in what a relay got.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Test::More;

use MailPolicy;
use MailPolicy::Oracle
    qw(oracle_disagreements oracle_messages oracle_parsers);

my $ENVELOPE = "MAIL FROM:<a\@b> SIZE=9\r\nRCPT TO:<c\@d>\r\n"
    . "RCPT TO:<\"e>\"\@f> NOTIFY=NEVER\r\n";
my $SMUGGLED = "MAIL FROM:<evil\@b>\r\nRCPT TO:<v\@d>\r\nDATA\r\nx\r\n.\r\n";

sub seen {
    my ($parser, @streams) = @_;

    return join(' ', map {
        "$_->{stream}:$_->{from}:" . join(',', @{ $_->{rcpts} }) . ':'
            . ($_->{lines} // "$_->{octets}b")
    } oracle_messages($parser, @streams));
}

for my $parser (oracle_parsers()) {
    is(seen($parser, "EHLO x\r\n${ENVELOPE}DATA\r\na\r\n..\r\n\r\n.\r\nQUIT\r\n"),
        '0:a@b:c@d,"e>"@f:3', "$parser: a message");
    is(seen($parser, "${ENVELOPE}BDAT 5\r\n\n.\n\r\nBDAT 0\r\n"
        . "BDAT 3 LAST\r\n\0\r.RSET\r\n", "${ENVELOPE}DATA\r\n.\r\n"),
        '0:a@b:c@d,"e>"@f:8b 1:a@b:c@d,"e>"@f:0', "$parser: chunks");
    is(seen($parser, "${ENVELOPE}DATA\r\nx\r\n.x\r\n"), '',
        "$parser: one without its end");
    is(seen($parser, "${ENVELOPE}BDAT 5 LAST\r\nabcd"), '',
        "$parser: a chunk without its end");
}

is(join(' ', grep { seen($_, "${ENVELOPE}DATA\r\nx\r\n.") } oracle_parsers()),
    'cr-tolerant lf-tolerant stripping', 'a dot at the end of the stream');

# which parsers are fooled by what

my %FOOLED = (
    "\n.\n"          => 'cr-tolerant lf-tolerant stripping',
    "\n.\r\n"        => 'cr-tolerant lf-tolerant stripping',
    "\r\n.\n"        => 'cr-tolerant lf-tolerant stripping',
    "\n.\r"          => 'cr-tolerant',
    "\r.\n"          => 'cr-tolerant',
    "\r.\r"          => 'cr-tolerant',
    "\r.\r\n"        => 'cr-tolerant',
    "\r\n\0.\r\n"    => 'stripping',
    "\r\n.\r\r\n"    => 'cr-tolerant stripping',
    "\r\r\n.\r\r\n"  => 'cr-tolerant stripping',
    "\r\n.x\r\n"     => '',
    "\r\n..\r\n"     => '',
);

for my $end (sort keys %FOOLED) {
    my $name = $end =~ s/\r/\\r/gr =~ s/\n/\\n/gr =~ s/\0/\\0/gr;
    my $stream = "${ENVELOPE}DATA\r\nfirst$end$SMUGGLED";

    is(join(' ', grep { seen($_, $stream) =~ /evil/ } oracle_parsers()),
        $FOOLED{$end}, "SMUG-5 fooled by $name");
}

# against a relay

my $t = MailPolicy->new();
my $relay = $t->run_relay(name => 'relay', extensions =>
    [ 'PIPELINING', 'CHUNKING', 'SIZE', 'BINARYMIME', '8BITMIME' ],
    rcpt => { match => qr/bob@/, action => '550 5.1.1 no' });

sub session {
    my (@pieces) = @_;

    my $c = $t->client('relay', timeout => 1);

    $c->greeting();
    $c->ehlo();

    for my $piece (@pieces) {
        $c->send_raw("$piece\r\n");
        1 while ($c->read_line(0.5) // 'end') =~ /^250-/;
    }

    $c->close();
}

sub wrong { return join("\n", oracle_disagreements($relay)) }

my @MAIL = ('MAIL FROM:<a@b>', 'RCPT TO:<bob@d>', 'RCPT TO:<c@d>');

session(@MAIL[0, 1], 'DATA', 'RSET', @MAIL, 'DATA', "DATA\r\n.", @MAIL,
    "BDAT 4\r\n\0\n", "BDAT 3 LAST\r\n\r", 'QUIT');
is(scalar $relay->messages(), 2, 'messages to look at');
is(wrong(), '', 'a good session');

$relay->set(bdat => '452 4.3.1 full');
session(@MAIL, "BDAT 4\r\nab", "BDAT 4 LAST\r\nab", 'RSET', 'MAIL FROM:<a@b>',
    "BDAT 0 LAST", 'RSET');
$relay->set(bdat => undef, dot => '452 4.3.1 full');
session(@MAIL, 'DATA', '.', @MAIL, 'BDAT 0 LAST');
$relay->set(dot => 'close');
session(@MAIL, 'DATA', '.');
$relay->set(dot => undef);
is(scalar $relay->received(), 5, 'messages that were refused');
is(wrong(), '', 'a session with refusals');

session(@MAIL, 'DATA', "x\n.\nRCPT TO:<v\@d>\r\n.");
like(wrong(), qr/connection 5, lf-tolerant: from <a\@b> to <c\@d> 1 lines answ/,
    'found: an end that is none');
like(wrong(), qr/connection 5, cr-tolerant: .* where the relay has seen/,
    'found: by another parser, too');
like(wrong(), qr/connection 5: bare LF/, 'found: bare LF');
unlike(wrong(), qr/strict/, 'the strict parser sees what the relay saw');

session(@MAIL, 'DATA', "x\ry\0z\r\n.");
like(wrong(), qr/connection 6, cr-tolerant: .* 2 lines .* 1 lines/,
    'found: another number of lines');
like(wrong(), qr/connection 6: NUL\n.*connection 6: bare CR/,
    'found: NUL, bare CR');

session(@MAIL, 'DATA', "first\r\n.\r");
like(wrong(), qr/connection 7, cr-tolerant: .* where the relay has seen nothing/,
    'found: an end without a dot line');

$t->done();
