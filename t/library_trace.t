#!/usr/bin/perl

# The trace checker: true of a good session, and it finds what is made wrong
# in the traces of one.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use MIME::Base64 qw(encode_base64);
use Storable qw(dclone);
use Test::More;

use MailPolicy;
use MailPolicy::Trace qw(trace_violations);
use MailPolicy::Trace::Dialogue qw(exchanges transactions);

# what is made of a dialogue

sub record {
    my $time = 0;

    return { local => '127.0.0.1:1', server => '127.0.0.1:25', events => [
        map { [ ++$time, split(/: /, $_, 2) ] } @_ ] };
}

sub said {
    return join(' ', map { "$_->{verb}:"
        . substr($_->{reply} // '-', 0, 3) } exchanges(record(@_)));
}

sub made {
    return join(' ', map {
        my $t = $_;
        "$t->{from}>" . join(',', @{ $t->{rcpts} }) . '='
            . ($t->{end} ? $t->{content} =~ s/\r\n/|/gr : 'none')
            . ($t->{unsure} ? '?' : '');
    } transactions(exchanges(record(@_))));
}

my @BEGIN = ("S: 220 x\r\n", "C: EHLO a\r\n", "S: 250-x\r\n250 y\r\n");
my @MAIL = ("C: MAIL FROM:<a> X=y\r\nRCPT TO:<\@r:b>\r\nRCPT TO:<c>\r\n",
    "S: 250 a\r\n250 b\r\n550 c\r\n");

is(said(@BEGIN, "C: AUTH LOGIN\r\nMQ==\r\n", "S: 334 \r\n", "S: 334 \r\n",
    "C: MAIL\r\n", "S: 235 x\r\n", "C: NOOP\nEH", "S: 500 x\r\n", "C: LO\r\n",
    "S: 500 x\r\n421 x\r\n"),
    ':220 EHLO:250 AUTH:334 RESPONSE:334 RESPONSE:235 NOOP:500 EHLO:500 :421',
    'AUTH, bare LF, a reply to nothing');
is(said(@BEGIN, @MAIL, "C: DATA\r\n", "S: 354 x\r\n", "C: .x\r\n.\r", "C: \nQUIT",
    "S: 250 x\r\n", "C: \r\nNOOP\r\n", "S: 221 x\r\n"),
    ':220 EHLO:250 MAIL:250 RCPT:250 RCPT:550 DATA:354 CONTENT:250 QUIT:221',
    'a message, and nothing behind QUIT');
is(said("C: BDAT 5\r\nQUIT\nRS", "C: ET\r\nBDAT 2\r\n\n"), 'BDAT:- RSET:-',
    'chunks, nothing read');

is(made(@BEGIN, @MAIL, "C: DATA\r\n", "S: 354 x\r\n",
    "C: ..a\r\n\r\n..\r\n.b\r\n.\r\n", "S: 250 x\r\n"), 'a>b=.a||.|b|',
    'dots are removed');
is(made(@BEGIN, @MAIL, "C: DATA\r\n.\r\n"), 'a>b=?', 'no reply to DATA');
is(made(@BEGIN, @MAIL, "C: BDAT 3\r\n.\r\nBDAT 0\r\nBDAT 2 LAST\r\n..",
    "S: 250 x\r\n250 x\r\n451 x\r\n"), 'a>b=.|..', 'chunks are one content');
is(made(@BEGIN, @MAIL, "C: RSET\r\n", "S: 250 x\r\n", "C: DATA\r\n",
    "S: 503 x\r\n", @MAIL, "C: QUIT\r\n", "S: 221 x\r\n"), 'a>b=none a>b=none',
    'given up');
is(made("C: MAIL FROM:<a>\r\nMAIL FROM:<b>\r\nMAIL FROM:<c>\r\n",
    "S: 220 x\r\n503 x\r\n452 x\r\n250 x\r\n"), 'b>=none c>=none',
    'refused, for its place and otherwise');

# a real one

my $t = MailPolicy->new(record => 1);
my $relay = $t->run_relay(name => 'relay', rcpt =>
    [ { match => qr/bob@/, action => '550 5.1.1 no' },
      { match => qr/eve@/, action => '450 4.2.0 no' } ]);

$t->write_file('users', 'alice@example.com:' . $t->crypt('kirsch-7') . "\n");

$t->conf(<<'EOF');
mail {
    server_name  edge.example.com;
    access_log   %%DIR%%/access.log;

    server {
        listen                 127.0.0.1:%%PORT_smtp%%;
        protocol               smtp;
        policy                 on;
        policy_auth            file:%%DIR%%/users;
        policy_auth_plaintext  on;
        policy_message_size    1000;
        proxy_pass             127.0.0.1:%%PORT_relay%%;
    }
}
EOF
$t->run_nginx();

my $number = 0;

for my $end ('quit', 'close', 'reset') {
    my $c = $t->client('smtp');
    my $from = 'a' . ++$number . '@example.com';

    $c->greeting();
    $c->ehlo();
    $c->auth_login('alice@example.com', 'kirsch-7');
    $c->cmd('MAIL FROM:<a@example.com> SIZE=1001');
    $c->cmd('RCPT TO:<c@example.net>');
    $c->send_mail($from, [ 'bob@d', 'c@d' ], ".x\n..\n");
    $c->send_mail($from, [ 'bob@d', 'eve@d' ], "x\n");
    $c->send_mail($from, [ 'c@d' ], "a\rb\n");

    $relay->set(dot => '452 4.3.1 full');
    $c->send_mail('full@b', [ 'c@d', 'd@d' ], "y\n");
    $relay->set(dot => 'close');
    $c->send_mail('lost@b', [ 'c@d' ], "y\n");
    $relay->set(dot => undef);

    $c->pipeline("MAIL FROM:<$from>", 'RCPT TO:<c@d>', 'RSET');
    $c->cmd('MAIL FROM:<over@b>');
    $c->cmd('EHLO x');

    $c->pipeline("MAIL FROM:<$from>", 'RCPT TO:<c@d>', 'DATA');
    $c->send_raw("z\r\n.\r\n");
    $c->read_reply() if $end eq 'quit';
    $c->$end();
}

my @clients = $t->records();
my @received = $relay->received();

sub violations {
    my (%option) = @_;

    return join("\n", trace_violations($t, relays => [ $relay ], %option));
}

is(violations(secrets => [ 'kirsch-7' ]), '', 'TRACE nothing wrong');

# made wrong

sub clients {
    my ($change) = @_;

    my $clients = dclone(\@clients);
    $change->($_->{events}) for @$clients;
    return clients => $clients;
}

like(violations(relays => [], log => undef),
    qr/\AI2: 250 to <a1\@example\.com> <c\@d>, and no relay took it\n/,
    'I2 no relay has it');
is(() = violations(clients => [ @clients, $clients[0] ], log => undef)
    =~ /I2: .*another one has its message/g, 2, 'I2 250 twice');
like(violations(log => undef, clients(sub {
    $_->[0] -= $_->[1] eq 'S' && $_->[2] =~ /queued/ && 1000 for @{ $_[0] };
})), qr/I2: .* before the relay had said so/, 'I2 250 too early');
like(violations(log => undef, clients(sub {
    $_->[2] =~ s/^452 4.3.1 full/250 2.0.0 Ok/ for @{ $_[0] };
})), qr/\AI2: 250 to <full\@b> <c\@d> <d\@d>, and no/, 'I2 250 for 452');
like(violations(clients => [ @clients[1, 2] ], log => undef),
    qr/\AI3: RELAY000001 of <a1\@example\.com> <c\@d> is of nobody\n/,
    'I3 of no client');
like(violations(log => undef, clients(sub {
    $_->[2] =~ s/^y\r\n/y\r\n\r\n/ for @{ $_[0] };
})), qr/\AI3: RELAY\d+ of <full\@b> <c\@d> <d\@d> is no content/,
    'I3 other content');
like(violations(log => undef, clients(sub {
    $_->[0] += $_->[1] eq 'C' && $_->[2] =~ /^y\r\n/ && 1000 for @{ $_[0] };
})), qr/^I3: .* ended before its client ended it/m, 'I3 too early');
like(violations(log => undef, clients(sub {
    $_->[2] =~ s/\r\n\.\r\n/\r\n/ for @{ $_[0] };
})), qr/^I3: /m, 'I3 a dot that was not sent');
like(violations(log => undef, clients(sub {
    $_->[2] =~ s/^221/250 x\r\n221/ for @{ $_[0] };
})), qr/order: \S+ "221 .*" to nothing/, 'order: a reply too many');

my $log = $t->read_file('access.log');

sub with_log {
    my ($change) = @_;

    local $_ = $log;
    $change->();
    die "nothing was changed\n" if $_ eq $log;
    $t->write_file('access.log', $_);

    return violations(wait => 0);
}

like(with_log(sub { s/^.*full\@b.*\n//m }),
    qr/^I5: .*, <full\@b> .*: sender <lost\@b>$/m, 'I5 a line is not there');
like(with_log(sub { s/^.*"transaction":9.*\n//m }),
    qr/\AI5: .*, <a1\@example.com> <c\@d>: no line\z/, 'I5 nor the last one');
like(with_log(sub { s/^(.*\n)/$1$1/ }),
    qr/I5: .*: a line too many, of <a1/, 'I5 twice');
like(with_log(sub { s/"unknown"/"rejected"/ }),
    qr/\AI5: .*<lost\@b> <c\@d>: rejected, and the .* 250 250 354 451\z/,
    'I5 another outcome');
like(with_log(sub { s/"aborted"/"accepted"/ }), qr/\AI5: .*: accepted, and /,
    'I5 accepted without an end');
like(with_log(sub { s/\["c\@d","d\@d"\]/["c\@d"]/ }),
    qr/\AI5: .*<full\@b> .*: recipients c\@d\z/, 'I5 a recipient is missing');
$t->write_file('access.log', $log);

is(violations(secrets => [ 'edge.example' ]) ? 'found' : '', '',
    'I6 not in a log');

for my $before ('', 'x', 'xy') {
    $t->write_file('other.log', encode_base64("${before}Mirabelle-$_", ''))
        && is(violations(secrets => [ 'Mirabelle' ]),
            'I6: "Mirabelle" is in other.log', 'I6 in base64')
        for '', '1', '12';
}

unlink($t->dir() . '/other.log');
like(violations(secrets => [ 'over@b' ]), qr/^I6: "over\@b" is in access.log$/m,
    'I6 in a log');

$t->done();
