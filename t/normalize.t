#!/usr/bin/perl

# "policy_bare_newline normalize": line ends are repaired before dots are
# doubled, so that what was no end of a message does not become one.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Test::More;
use Time::HiRes qw(sleep);

use MailPolicy;
use MailPolicy::Oracle qw(oracle_disagreements);

my $t = MailPolicy->new();
my $relay = $t->run_relay(name => 'relay');

$t->conf(<<'EOF');
mail {
    server_name  edge.example.com;
    access_log   %%DIR%%/access.log;
    policy       on;
    policy_auth  off;
    proxy_pass   127.0.0.1:%%PORT_relay%%;
    policy_bare_newline  normalize;

    server {
        listen    127.0.0.1:%%PORT_smtp%%;
        protocol  smtp;
    }

    server {
        listen    127.0.0.1:%%PORT_small%%;
        protocol  smtp;
        policy_message_size  1000;
    }
}
EOF
$t->run_nginx();

sub session {
    return $t->session($_[0] // 'smtp', timeout => 20);
}


# what the client writes between 354 and the end, in two writes if cut

sub send_body {
    my ($c, $wire, $cut) = @_;

    $c->pipeline('MAIL FROM:<a@example.com>', 'RCPT TO:<b@example.net>',
        'DATA');
    $c->send_raw(substr($wire, 0, $cut // 0));
    sleep(0.001) if $cut;
    $c->send_raw(substr($wire, $cut // 0));
    return $c->read_reply();
}


# un-stuffed, then normalized: what it stands for

sub meaning {
    my ($wire) = @_;

    my $content = substr($wire, 0, -3);
    $content =~ s/(\A|\r\n)\./$1/g;
    $content =~ s/\r(?!\n)/ /g;
    $content =~ s/(?<!\r)\n/\r\n/g;
    return $content;
}

my $evil = "MAIL FROM:<evil\@example.com>\r\nRCPT TO:<v\@example.net>\r\n"
    . "DATA\r\nx\r\n";
my $c = session();

for my $end ("\n.\n", "\n.\r", "\r.\n", "\r.\r", "\n.\r\n", "\r.\r\n",
    "\r\n.\r\r\n", "\r\r\n.\r\r\n", "\n..\n", "\n\n.\n\n", "\r\n.\n")
{
    my $shown = $end =~ s/\r/\\r/gr =~ s/\n/\\n/gr;
    my $wire = "Subject: x\r\n\r\nfirst$end$evil.\r\n";
    my @wrong;

    for my $cut (0 .. length($wire) - length($evil)) {
        my $reply = send_body($c, $wire, $cut);
        my $message = ($relay->received())[-1];

        push @wrong, $cut if $reply !~ /^250 /
            || $message->{data} ne meaning($wire)
            || $c->cmd('RCPT TO:<v@example.net>') !~ /^503 /;
        last if @wrong > 3;
        if (@wrong || $cut % 5 == 0) {
            $c->quit();
            $c = session();
        }
    }

    is("@wrong", '', "SMUG-3 SMUG-4 $shown: one message, every split");
}

like(send_body($c, "a\r\n.\r\n"), qr/^250 /, 'nothing to repair');
is(($relay->received())[-1]{raw}, "a\r\n.\r\n", 'and nothing done');
like(send_body($c, ".\r\n"), qr/^250 /, 'an empty message');
is(($relay->received())[-1]{raw}, ".\r\n", 'stays empty');
like(send_body($c, "..\r\n...\r\n.x\r\n.\r\n"), qr/^250 /, 'dots');
is(($relay->received())[-1]{raw}, "..\r\n...\r\nx\r\n.\r\n", 'SMUG-8 dots');
like(send_body($c, "a\n\0\r\n.\r\n"), qr/^554 5\.6\.0 /, 'SMUG-2 NUL');

my $text = join('', map { ('x' x ($_ % 90)) . ($_ % 3 ? "\n" : "\r\n")
    . ($_ % 7 ? '' : ".\n") } 1 .. 30_000);
like(send_body($c, "$text.\r\n"), qr/^250 /, 'a large one');
ok(($relay->received())[-1]{data} eq meaning("$text.\r\n"), 'to the octet');
$c->quit();

# what counts is what the client has sent

$c = session('small');
like(send_body($c, "\n" x 998 . "\r\n.\r\n"), qr/^250 /, 'EXT-7 as allowed');
is(length(($relay->received())[-1]{data}), 1998, 'EXT-7 more at the relay');
like(send_body($c, "\n" x 999 . "\r\n.\r\n"), qr/^552 /, 'EXT-7 too large');
my @log = $t->access_log();
is($log[-2]{message_size}, 1000, 'EXT-7 logged');
$c->quit();

is(join("\n", oracle_disagreements($relay)), '',
    'SMUG-5 four parsers see the same');
is(scalar(grep { $_->{from} =~ /evil/ } $relay->received()), 0,
    'SMUG-5 nothing smuggled');

$t->done();
