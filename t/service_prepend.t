#!/usr/bin/perl

# Fields that policy servers put in front of a message: wherever it comes
# from (DATA or chunks) and goes to (a relay with CHUNKING or without), each
# is there once, in the order of the answers, in front of Received, and what
# is behind them is the message to the octet.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Test::More;

use MailPolicy;
use MailPolicy::PolicyServer;

my $t = MailPolicy->new();

my %relay = (
    data => $t->run_relay(name => 'data',
        extensions => [ 'PIPELINING', '8BITMIME' ]),
    bdat => $t->run_relay(name => 'bdat', extensions => [ 'PIPELINING',
        '8BITMIME', 'CHUNKING', 'BINARYMIME' ]),
);

my %service = map { $_ => MailPolicy::PolicyServer->new(dir => $t->dir(),
    name => $_, path => $t->dir() . "/$_.sock") } qw(rcpt second data end);

my @ways = map { my $relay = $_; map { my $mode = $_;
    map { [ $relay, $mode, $_ ] } qw(on off) } qw(reject normalize) }
    qw(data bdat);

my $servers = join('', map { my ($relay, $mode, $trace) = @$_; <<"EOF" } @ways);
    server {
        listen               127.0.0.1:%%PORT_${relay}_${mode}_$trace%%;
        protocol             smtp;
        proxy_pass           127.0.0.1:%%PORT_$relay%%;
        policy_bare_newline  $mode;
        policy_received      $trace;
    }
EOF

$t->conf(<<"EOF");
mail {
    server_name          edge.example.com;
    access_log           %%DIR%%/access.log json;
    policy               on;
    policy_auth          off;
    policy_received      off;
    policy_message_size  300000;
    proxy_pass           127.0.0.1:%%PORT_data%%;
    policy_service       unix:%%DIR%%/rcpt.sock;
    policy_service       unix:%%DIR%%/second.sock;
    policy_service       unix:%%DIR%%/data.sock at=data;
    policy_service       unix:%%DIR%%/end.sock at=end;

$servers
}
EOF
$t->run_nginx();

my $FROM = 'MAIL FROM:<s@example.com>';
my $RECEIVED = qr/Received: [^\r\n]+\r\n(?:\t[^\r\n]+\r\n)+/;


sub answers {
    my (%answer) = @_;

    for my $name (keys %service) {
        my $rules = $answer{$name} // 'DUNNO';
        $service{$name}->set(ref $rules eq 'ARRAY' ? @$rules : $rules);
    }
}


sub by_data {
    my ($c, $body, @rcpts) = @_;

    $c->pipeline($FROM, (map { "RCPT TO:<$_\@example.net>" } @rcpts), 'DATA');
    $c->send_raw(MailPolicy::Client::encode_body($body));
    return $c->read_reply();
}


# in chunks of so many octets; all in one write

sub by_bdat {
    my ($c, $body, $size, $parameters, @rcpts) = @_;

    $c->pipeline("$FROM$parameters", map { "RCPT TO:<$_\@example.net>" }
        @rcpts);

    my $octets = '';
    my $count = 0;

    do {
        my $chunk = substr($body, 0, $size, '');
        $octets .= 'BDAT ' . length($chunk) . ($body eq '' ? ' LAST' : '')
            . "\r\n$chunk";
        $count++;
    } while ($body ne '');

    $c->send_raw($octets);
    my @replies = map { $c->read_reply() } 1 .. $count;

    like($_, qr/^250 /, '  a chunk') for @replies[0 .. $count - 2];
    return $replies[-1];
}


# what it got of the last message: fields, "Received", content

sub is_relayed {
    my ($name, $relay, $fields, $trace, $body) = @_;

    local $Test::Builder::Level = $Test::Builder::Level + 1;

    my $got = ($relay{$relay}->messages())[-1]{data};
    my $front = join('', map { "$_\r\n" } @$fields);

    ok($got =~ s/\A\Q$front\E//, "$name: its fields")
        or diag(substr($got, 0, 400));
    ok($got =~ s/\A$RECEIVED//, "$name: Received behind them")
        if $trace eq 'on';
    ok($got eq $body, "$name: the message") or diag(substr($got, 0, 400));
}


my @FIELDS = ('X-First: of rcpt', "X-Second:\tof second", 'X-Third: of data');
my $LINES = join('', map { "line $_ of it\r\n" } 1 .. 10000);

my %BODIES = (
    short  => "Subject: x\r\n\r\ntext\r\n",
    dots   => ".Subject: x\r\n\r\n.\r\n..\r\n.",
    empty  => '',
    large  => "Subject: large\r\n\r\n$LINES",
);

answers(rcpt => "PREPEND $FIELDS[0]", second => "prepend  $FIELDS[1] ",
    data => "PREPEND $FIELDS[2]");

for my $way (@ways) {
    my ($relay, $mode, $trace) = @$way;
    my $where = "${relay}_${mode}_$trace";
    my $c = $t->session($where);

    for my $name (sort keys %BODIES) {
        my $body = $BODIES{$name};
        my $what = "$relay, $mode, Received $trace, $name";
        my $whole = $body eq '' || $body =~ /\n\z/ ? $body : "$body\r\n";

        like(by_data($c, $body, 'bob'), qr/^250 /, "$what, DATA");
        is_relayed("$what, DATA", $relay, \@FIELDS, $trace, $whole);
        is(($service{end}->requests())[-1]{size}, length($whole),
            "$what, DATA: its size is the client's");

        for my $size (7, 4096, 1 << 20) {
            next if length($body) / $size > 100;

            like(by_bdat($c, $body, $size, '', 'bob'), qr/^250 /,
                "$what, chunks of $size");

            # in DATA there is no message that does not end with CRLF
            is_relayed("$what, chunks of $size", $relay, \@FIELDS, $trace,
                $relay eq 'bdat' ? $body : $whole);
        }
    }

    $c->quit();
}

for my $way (grep { $_->[0] eq 'bdat' } @ways) {
    my ($relay, $mode, $trace) = @$way;
    my $c = $t->session("${relay}_${mode}_$trace");
    my $body = "Subject: x\r\n\r\n\0a\nb\rc\xff" x 1000;

    for my $size (1000, 1 << 20) {
        like(by_bdat($c, $body, $size, ' BODY=BINARYMIME', 'bob'),
            qr/^250 /, "$mode, Received $trace, BINARYMIME, by $size");
        is_relayed("$mode, Received $trace, BINARYMIME, by $size", $relay,
            \@FIELDS, $trace, $body);
    }

    $c->quit();
}

# each text once in a message; those of refused recipients are there, too

my $c = $t->session('data_reject_off');
my $short = $BODIES{short};

answers(rcpt => [ { recipient => qr/^[ab]/, answer => 'PREPEND X: 1' },
                  'PREPEND X: 2' ],
    second => { recipient => qr/^c/, answer => 'REJECT no' },
    data => 'PREPEND X: 1');
like(by_data($c, $short, qw(a b)), qr/^250 /, 'the same text thrice');
is_relayed('the same text thrice', 'data', [ 'X: 1' ], 'off', $short);

# one after the other, as the order of what is asked at once is not ours
$c->cmd($_) for $FROM, map { "RCPT TO:<$_\@example.net>" } qw(c a d);
$c->cmd('DATA');
$c->send_raw("$short.\r\n");
like($c->read_reply(), qr/^250 /, 'one of three refused');
is_relayed('one of three refused', 'data', [ 'X: 2', 'X: 1' ], 'off',
    $short);

# not of the message before

answers(rcpt => 'PREPEND X: 1');
$c->pipeline($FROM, 'RCPT TO:<a@example.net>', 'RSET');
answers();
like(by_data($c, $short, 'a'), qr/^250 /, 'behind RSET');
is_relayed('behind RSET', 'data', [], 'off', $short);

# how long one may be, and all of them; at the end it is too late

for my $case ([ 998, 250 ], [ 999, '451 4.3.5' ]) {
    my ($length, $expected) = @$case;
    my $field = 'X: ' . 'y' x ($length - 3);

    answers(rcpt => "PREPEND $field");
    my ($reply) = ($c->pipeline($FROM, 'RCPT TO:<a@example.net>'))[1];
    like($reply, qr/^$expected /, "a field of $length octets");

    if ($expected eq '250') {
        $c->cmd('DATA');
        $c->send_raw("$short.\r\n");
        like($c->read_reply(), qr/^250 /, 'is relayed');
        is_relayed('the longest one', 'data', [ $field ], 'off', $short);
    } else {
        $c->cmd('RSET');
        like($t->error_log(), qr/\[error\] .*sock" asks for a field that is too long/,
            'one that is too long: logged');
    }
}

answers(rcpt => [ map { { recipient => qr/^r$_@/,
    answer => "PREPEND X-$_: " . 'y' x 900 } } 1 .. 12 ]);
my @replies = $c->pipeline($FROM,
    map { "RCPT TO:<r$_\@example.net>" } 1 .. 12);
is(scalar(grep { /^250 2\.1\.5/ } @replies), 9, 'as many as 8k have room for');
is(scalar(grep { /^451 4\.3\.5/ } @replies), 3, 'no more than that');
$c->cmd('RSET');

answers(end => 'PREPEND X: late');
like(by_data($c, $short, 'a'), qr/^250 /, 'a field at the end');
is_relayed('a field at the end', 'data', [], 'off', $short);
like($t->error_log(), qr/\[warn\] .*end\.sock" asks too late for a field: "X: late"/,
    'a field at the end: logged');

# the largest message that there may be is not too large with them

answers(rcpt => "PREPEND $FIELDS[0]");
my $large = 'x' x 70 . "\r\n";
$large = substr($large x 5000, -300000);
like(by_data($c, $large, 'a'), qr/^250 /, 'the largest message');
is_relayed('the largest message', 'data', [ $FIELDS[0] ], 'off', $large);
like(by_data($c, "x$large", 'a'), qr/^552 /, 'a larger one');

$t->done();
