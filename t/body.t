#!/usr/bin/perl

# Message bodies on their way to the relay: to the octet, however they come
# in; limits of size; and nothing that any parser could take for the end of
# a message but the one true end.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Test::More;
use Time::HiRes qw(sleep);

use MailPolicy;
use MailPolicy::Oracle qw(oracle_disagreements);
use MailPolicy::Trace qw(trace_violations);

my $t = MailPolicy->new(record => 1);
my $relay = $t->run_relay(name => 'relay',
    extensions => [ 'PIPELINING', '8BITMIME', 'SIZE' ]);

$t->conf(<<'EOF');
mail {
    server_name    edge.example.com;
    access_log     %%DIR%%/access.log;
    policy         on;
    policy_auth    off;
    proxy_timeout  20s;
    proxy_pass     127.0.0.1:%%PORT_relay%%;

    server {
        listen               127.0.0.1:%%PORT_smtp%%;
        protocol             smtp;
        policy_message_size  0;
    }

    server {
        listen               127.0.0.1:%%PORT_small%%;
        protocol             smtp;
        policy_message_size  1000;
    }
}
EOF
$t->run_nginx();

my $number = 0;

# a session, up to the 354

sub begin {
    my ($c, $parameters) = @_;

    my $from = 's' . ++$number . '@example.com';

    $c->pipeline('MAIL FROM:<' . $from . '>' . ($parameters // ''),
        'RCPT TO:<r@example.net>');
    my $reply = $c->cmd('DATA');
    die "DATA: $reply\n" unless $reply =~ /^354/;
    return $from;
}


sub session {
    my ($where) = @_;

    return $t->session($where // 'smtp', timeout => 20);
}


# what a relay gets: the octets of the client, with the end of data

sub arrives {
    my ($c, $name, $expected, @pieces) = @_;

    begin($c);

    for my $piece (@pieces) {
        $c->send_raw($piece);
        # for a read of its own; if it is not, it is another case
        sleep(0.001) if @pieces > 1;
    }

    my $reply = $c->read_reply();
    my $raw = ($relay->received())[-1]{raw};

    return $reply =~ /^250/ && $raw eq $expected if !defined $name;

    like($reply, qr/^250 /, "$name: accepted");
    ok($raw eq $expected, "$name: to the octet");
}


srand(20261);

sub noise {
    my ($lines) = @_;

    my $text = '';

    for (1 .. $lines) {
        my $line = join('', map { chr(1 + int rand 255) } 1 .. rand 200);
        $line =~ s/[\r\n]/ /g;
        $text .= ('.' x (rand() < 0.2 ? rand 4 : 0)) . "$line\r\n";
    }

    return $text;
}


my $c = session();

my %body = (
    'empty'              => '',
    'one empty line'     => "\r\n",
    'two empty lines'    => "\r\n\r\n",
    'no header'          => "x\r\n",
    'leading dots'       => ".\r\n..\r\n...\r\n.x\r\n..x\r\nx.\r\n. \r\n",
    'dots at both ends'  => ".\r\n\r\n.\r\n",
    'looks like SMTP'    => "\r\nQUIT\r\nMAIL FROM:<>\r\n. \r\nRSET\r\n",
    'noise'              => noise(2000),
    'every other octet'  => join('', grep { !/[\r\n\0]/ } map { chr } 0 .. 255)
                            . "\r\n",
    'line of 998'        => 'x' x 998 . "\r\n",
    'line of 100000'     => 'x' x 100_000 . "\r\n.\r\n",
    'a dot at 32768'     => 'x' x 32764 . "\r\n.\r\n.\r\n",
);

for my $name (sort keys %body) {
    my $wire = MailPolicy::Client::encode_body($body{$name});
    arrives($c, $name, $wire, $wire);
    ok(($relay->received())[-1]{data} eq $body{$name}, "$name: decoded");
}

# a dot that the client did not double is no content, RFC 5321, 4.5.2
arrives($c, 'dots not doubled', "x\r\ny\r\n.\r\n", ".x\r\n.y\r\n.\r\n");

my $big = noise(1000) x 120;
$big = substr($big, 0, 10_000_000 - 2) . "\r\n";
$big =~ s/\r\r\n\z/x\r\n/;
my $wire = MailPolicy::Client::encode_body($big);

sub memory {
    my ($worker) = $t->worker_pids();

    return $t->read_file("/proc/$worker/status") =~ /^RssAnon:\s+(\d+)/m && $1;
}

my $before = memory();
arrives($c, '10 MB', $wire, $wire);
$relay->set(body => { after => 100_000, delay => 0.4 });
arrives($c, '10 MB to a relay that pauses', $wire, $wire);
$relay->set(body => undef);

SKIP: {
    my ($worker) = $t->worker_pids();
    skip('a sanitizer keeps what is freed', 1)
        if $t->read_file("/proc/$worker/maps") =~ /asan/;

    cmp_ok(memory() - $before, '<', 2000, 'RES-7 the body is not kept');
}

# however it is cut

my $small = "Subject: x\r\n\r\n..\r\n..a\r\n\r\n...b\r\n.";
$small .= ".\r\n\r\n.\r\n";
my @wrong = grep {
    !arrives($c, undef, $small, substr($small, 0, $_), substr($small, $_));
} 1 .. length($small) - 1;
is("@wrong", '', 'SMUG-8 every split');
arrives($c, 'SMUG-8 one octet at a time', $small, split(//, $small));
my $stuffed = MailPolicy::Client::encode_body(noise(3));
arrives($c, 'SMUG-8 noise, one octet at a time', $stuffed, split(//, $stuffed));
$c->quit();

# sizes

$c = session('small');
like($c->cmd('MAIL FROM:<a@example.com> SIZE=1001'), qr/^552 5\.3\.4 /,
    'EXT-7 declared too large');
like($c->cmd('RCPT TO:<r@example.net>'), qr/^503 /, 'EXT-7 no transaction');
like($c->cmd('MAIL FROM:<a@example.com> SIZE=18446744073709551616'),
    qr/^(?:501|552) /, 'RES-9 more than 64 bits');

my $lines = ('x' x 98 . "\r\n") x 9;
my $fits = $lines . '.' . 'x' x 97 . "\r\n";
begin($c, ' SIZE=1000');
$c->send_raw(MailPolicy::Client::encode_body($fits));
like($c->read_reply(), qr/^250 /, 'EXT-7 as large as allowed');
is(length(($relay->received())[-1]{data}), 1000, 'EXT-7 all of it');

for my $more ("x$fits", $fits x 1000) {
    begin($c, ' SIZE=10');
    $c->send_raw(MailPolicy::Client::encode_body($more));
    like($c->read_reply(), qr/^552 5\.3\.4 /, 'EXT-7 larger than declared');
}

$c->cmd("MAIL FROM:<a\@example.com>");
like($c->cmd('RSET'), qr/^250 /, 'EXT-7 the session goes on');
$c->quit();

# ends of data that are none

my @ENDS = ("\n.\n", "\n.\r", "\r.\n", "\r.\r", "\n.\r\n", "\r.\r\n",
    "\r\n\0.\r\n", "\r\n.\r\r\n", "\r\r\n.\r\r\n");

my $smuggled = "MAIL FROM:<evil\@example.com>\r\nRCPT TO:<v\@example.net>\r\n"
    . "DATA\r\nSubject: evil\r\n\r\nx\r\n.\r\n";

my $logged = () = $t->access_log();

for my $end (@ENDS) {
    my $name = $end =~ s/\r/\\r/gr =~ s/\n/\\n/gr =~ s/\0/\\0/gr;
    my $text = "Subject: x\r\n\r\nfirst$end$smuggled";
    my $from = length($text) - length($smuggled) - length($end);

    $c = session();

    # whole, and cut within the sequence
    for my $cut (0, map { $from + $_ } 0 .. length $end) {
        begin($c);
        $c->send_raw(substr($text, 0, $cut));
        sleep(0.001) if $cut;
        $c->send_raw(substr($text, $cut));

        like($c->read_reply(), qr/^554 5\.6\.0 /, "SMUG $name at $cut: refused")
            or last;
        $logged++;
    }

    is($c->cmd('NOOP'), '250 2.0.0 Ok', "SMUG $name: one reply");
    like($c->cmd('RCPT TO:<v@example.net>'), qr/^503 /,
        "STATE-1 $name: no envelope");
    arrives($c, "SMUG $name: the next message", "x\r\n.\r\n", "x\r\n.\r\n");
    $logged++;
    $c->quit();
}

is(scalar(my @log = $t->access_log()), $logged, 'SMUG one line a message');
is(scalar(grep { $_->{sender} =~ /evil/ } @log), 0, 'SMUG nothing smuggled');

# the client is gone before its dot

for my $end ('close', 'reset', 'half_close') {
    for my $body ('', "Subject: x\r\n\r\nfirst\r\n", "first\r\n.",
        "first\r\n.\r", 'x' x 300_000)
    {
        $c = session();
        my $from = begin($c);
        $c->send_raw($body);
        $c->$end();

        my $name = "SMUG-12 $end after " . length($body);
        ok($t->wait_for(sub { !$relay->stats()->{open} }), "$name: relay cut");

        my $said = (grep { /<$from>/ } $relay->transcripts())[-1];
        unlike($said, qr/QUIT|RSET|-- body of/, "$name: no end of any kind");
        ok($t->wait_for(sub { grep { $_->{sender} eq $from
            && $_->{outcome} eq 'aborted' } $t->access_log() }),
            "$name: logged");
    }
}

$c = session();
begin($c);
$c->send_raw("x\r\n.\r\n");
$c->half_close();
like($c->read_reply(), qr/^250 /, 'half-closed behind the dot: still told');

# four parsers of what the relay got must see the same

cmp_ok(scalar $relay->messages(), '>', 50, 'SMUG-5 messages to look at');
is(join("\n", oracle_disagreements($relay)), '',
    'SMUG-5 four parsers see what the relay saw, and no stray octets');
is(join("\n", trace_violations($t, relays => [ $relay ])), '',
    'TRACE I2 I3 I5');

$t->done();
