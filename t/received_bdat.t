#!/usr/bin/perl

# policy_received in front of a message that comes in chunks: to a relay that
# takes chunks it goes with the first of them, to any other one it is the
# beginning of DATA; what is behind it is the content to the octet.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Test::More;

use MailPolicy;

my $t = MailPolicy->new();

my %relay = (
    data => $t->run_relay(name => 'data',
        extensions => [ 'PIPELINING', '8BITMIME' ]),
    bdat => $t->run_relay(name => 'bdat', extensions => [ 'PIPELINING',
        '8BITMIME', 'CHUNKING', 'BINARYMIME' ]),
);

my @servers = map { my $name = $_; map { [ $name, $_ ] } qw(reject normalize) }
    sort keys %relay;

my $servers = join('', map { my ($name, $mode) = @$_; <<"EOF" } @servers);
    server {
        listen               127.0.0.1:%%PORT_${name}_$mode%%;
        protocol             smtp;
        proxy_pass           127.0.0.1:%%PORT_$name%%;
        policy_bare_newline  $mode;
    }
EOF

$t->conf(<<"EOF");
mail {
    server_name      edge.example.com;
    access_log       %%DIR%%/access.log;
    policy           on;
    policy_auth      off;
    policy_received  on;
    proxy_timeout    5s;
    $servers
}
EOF
$t->run_nginx();

my $FIELD = qr/Received: [^\r\n]+\r\n(?:\t[^\r\n]+\r\n)+/;


# chunks, the last one with LAST; the reply to it

sub chunks {
    my ($c, $mail, @chunks) = @_;

    $c->cmd($_) for "MAIL FROM:<s\@example.com>$mail",
        'RCPT TO:<r@example.net>';

    my $reply;

    for my $i (0 .. $#chunks) {
        $c->send_raw('BDAT ' . length($chunks[$i])
            . ($i == $#chunks ? ' LAST' : '') . "\r\n$chunks[$i]");
        $reply = $c->read_reply();
    }

    return $reply;
}


sub session { return $t->session($_[0]) }

for my $name (qw(data bdat)) {
    my $relay = $relay{$name};

    for my $mode (qw(reject normalize)) {
        my $c = session("${name}_$mode");
        my $what = "$name, $mode";

        # the relay has answered EHLO by now, and so the client is offered it
        $c->send_mail('s@example.com', [ 'r@example.net' ], "x\n");
        $c->ehlo('laptop');

        my $got = sub { return ($relay->received())[-1]{data} };

        for my $case ([ 'one chunk', "a: b\r\n\r\nc\r\n" ],
            [ 'three chunks', "a: b\r\n", "\r\n.c\r\n", "d\r\n" ],
            [ 'cut in a line end', "a\r", "\nb\r\n" ],
            [ 'an octet', 'a', "\r\n" ],
            [ 'nothing in the first', '', "a\r\n" ],
            [ 'nothing in the last', "a\r\n", '' ],
            [ 'more than a buffer', ('x' x 78 . "\r\n") x 1000, "y\r\n" ])
        {
            my ($which, @chunks) = @$case;
            like(chunks($c, '', @chunks), qr/^250/, "$what: $which");
            my $content = join('', @chunks);
            ok($got->() =~ /\A$FIELD(.*)\z/s && $1 eq $content,
                "$what: $which: the field, and the content");
        }

        like(chunks($c, '', ''), qr/^250/, "$what: an empty message");
        like($got->(), qr/\A$FIELD(?:\r\n)?\z/, "$what: an empty message");

        like(chunks($c, '', "a\r\n", "b\r\n"), qr/^250/, "$what: the next one");
        $c->quit();
        is(($t->access_log())[-1]{message_size}, 6,
            "$what: message_size is the client's");
    }
}

# binary

my $c = session('bdat_reject');
$c->ehlo('laptop');
my $binary = join('', map { chr } 0 .. 255) x 400;
like(chunks($c, ' BODY=BINARYMIME', $binary, "\n"), qr/^250/, 'BINARYMIME');
my $got = ($relay{bdat}->received())[-1];
ok($got->{data} =~ /\A$FIELD(.*)\z/s && $1 eq "$binary\n",
    'BINARYMIME: the field, and the content');
cmp_ok($got->{chunks}[0], '>', 1000, 'the field goes with the first chunk');

# a relay that refuses the first chunk, or is lost over it

for my $case ([ '452 4.3.1 full', qr/^452 4\.3\.1 full/ ],
    [ 'close', qr/^451 4\.4\.2 / ])
{
    my ($action, $reply) = @$case;

    $relay{bdat}->set(bdat => $action);
    my $last = chunks(session('bdat_reject'), '', "a\r\n", "b\r\n");
    like($last, qr/^(?:4|503)/, "first chunk: $action");
    $relay{bdat}->set(bdat => undef);
}

# a relay that is slow to take it: nothing is sent twice

$relay{data}->set(data => { trickle => 0.02, then => '354 go' },
    body => { after => 1, action => { delay => 0.3, then => 'ok' } });
$c = session('data_reject');
my $big = ('y' x 78 . "\r\n") x 20_000;
like(($c->send_mail('s@example.com', [ 'r@example.net' ], $big))[-1],
    qr/^250/, 'a slow relay');
ok(($relay{data}->received())[-1]{raw} =~ /\A$FIELD(.*)\.\r\n\z/s
    && $1 eq $big, 'a slow relay: the field, and the content');

$t->done();
