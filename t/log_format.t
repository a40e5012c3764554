#!/usr/bin/perl

# log_format and access_log: escapes, what is unknown, a line that stays one
# line, several logs on one level, inheritance, reopening.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use JSON::PP ();
use Test::More;

use MailPolicy;

my $t = MailPolicy->new();
my $relay = $t->run_relay(name => 'relay',
    extensions => [ 'PIPELINING', '8BITMIME', 'SMTPUTF8' ]);

$t->conf(<<'EOF');
mail {
    server_name  edge.example.com;
    policy       on;
    policy_auth  off;
    proxy_pass   127.0.0.1:%%PORT_relay%%;

    log_format  plain  '$helo|${sender}|"$recipients' '\\' "|$status|"
                       $sasl_username;
    log_format  json_  escape=json '{"helo":"$helo","reply":"$reply",'
                       '"login":"$sasl_username"}';
    log_format  none   escape=none '$reply|$sasl_username|$sender';
    log_format  fixed  'a message';

    access_log  %%DIR%%/plain.log plain;
    access_log  %%DIR%%/json.log  json_;
    access_log  %%DIR%%/none.log  none;
    access_log  %%DIR%%/fixed.log fixed;
    access_log  %%DIR%%/access.log;

    server {
        listen    127.0.0.1:%%PORT_inherits%%;
        protocol  smtp;
    }

    server {
        listen      127.0.0.1:%%PORT_own%%;
        protocol    smtp;
        access_log  %%DIR%%/own.log plain;
    }

    server {
        listen      127.0.0.1:%%PORT_off%%;
        protocol    smtp;
        access_log  off;
    }

    server {
        listen      127.0.0.1:%%PORT_both%%;
        protocol    smtp;
        access_log  %%DIR%%/both.log plain;
        access_log  %%DIR%%/both.log plain;
        access_log  %%DIR%%/both.log json;
    }
}
EOF
$t->run_nginx();


# the line is there when QUIT is answered

sub mail {
    my ($where, $from) = @_;

    my $c = $t->session($where, helo => 'client.example');

    $c->send_mail($from // 'a@example.com', [ 'b@example.net' ], "x\n");
    $c->quit();
}


# the lines of a log, which is then empty

sub taken {
    my ($name) = @_;

    my $file = $t->dir() . "/$name.log";
    my @lines = split(/(?<=\n)/, $t->read_file($file));

    truncate($file, 0) or die "$file: $!\n";
    return @lines;
}


$relay->set(dot => '250 2.0.0 Ok "quoted" \\ as 1');
mail('inherits');

is_deeply([ taken('plain') ],
    [ "client.example|a\@example.com|\"1\\|250|-\n" ],
    'default: what is unknown is "-", the text is as it is written');
is_deeply([ taken('none') ],
    [ "250 2.0.0 Ok \"quoted\" \\ as 1||a\@example.com\n" ],
    'none: nothing is escaped, what is unknown is empty');
is_deeply([ taken('fixed') ], [ "a message\n" ], 'no variable');

my ($json) = taken('json');
is_deeply(JSON::PP->new()->utf8()->decode($json),
    { helo => 'client.example', login => '',
      reply => '250 2.0.0 Ok "quoted" \\ as 1' }, 'json');
like($json, qr/\\"quoted\\" \\\\ as/, 'json: quote and backslash');

my ($access) = taken('access');
is(JSON::PP->new()->utf8()->decode($access)->{status}, 250,
    'the built-in JSON next to them');


# what a client chooses: quotes, UTF-8; a line stays one line

mail('inherits', '"a\"|b"@example.com');
is((taken('plain'))[0],
    "client.example|\\x22a\\x5C\\x22|b\\x22\@example.com|\"1\\|250|-\n",
    'default: quote and backslash');
is((taken('none'))[0] =~ s/.*\|\|//r, "\"a\\\"|b\"\@example.com\n",
    'none: quote and backslash');

{
    my $c = $t->session('inherits');
    $c->cmd("MAIL FROM:<\xc3\xa4\@example.com> SMTPUTF8");
    $c->cmd("RCPT TO:<b\@example.net>");
    $c->cmd('RSET');
    $c->quit();
}

is((taken('plain'))[0] =~ s/[^|]*\|([^|]*).*\n/$1/r, '\xC3\xA4@example.com',
    'default: octets outside of ASCII');
is((taken('none'))[0] =~ s/.*\|//r, "\xc3\xa4\@example.com\n",
    'none: octets outside of ASCII');

taken($_) for qw(json access fixed);


# its own, off, several of one file

mail('own');
is(scalar(taken('own')), 1, 'a server with a log of its own');
is(scalar(taken('plain')), 0, 'inherits none');

mail('off');
is(scalar(taken($_)), 0, "off: nothing in $_")
    for qw(plain json none fixed access own);

mail('both');
my @both = taken('both');
is(scalar(@both), 3, 'three logs into one file');
is($both[0], $both[1], 'in the order of the configuration');
like($both[2], qr/^\{"time":.*\}$/, 'one of them in JSON');


# reopened

rename($t->dir() . '/own.log', $t->dir() . '/own.old') or die "$!\n";
$t->instance()->signal('USR1');

ok($t->wait_for(sub { -e $t->dir() . '/own.log' }), 'USR1');
ok($t->wait_for(sub { mail('own'); -s $t->dir() . '/own.log' }),
    'USR1: the new file is written to');

$t->done();
