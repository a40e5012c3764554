#!/usr/bin/perl

# A log that cannot be written, or not whole: clients do not notice, the error
# log says so once a minute and no more, and what is written then begins a
# line of its own.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use JSON::PP ();
use Test::More;

use MailPolicy;

use constant LIMIT => 65536;

my $t = MailPolicy->new();

# its files do not grow above a limit, and are written as far as that

my $binary = $t->instance()->{binary};

$t->instance()->{binary} = $t->write_file('limited', <<"EOF");
#!/bin/sh
trap '' XFSZ
exec prlimit --fsize=@{[ LIMIT ]} $binary "\$@"
EOF
chmod(0755, $t->dir() . '/limited');

my $relay = $t->run_relay(name => 'relay');

$t->conf(<<'EOF');
error_log  %%DIR%%/error.log error;

http {
    server {
        listen    127.0.0.1:%%PORT_http%%;
        location  / { policy_status json; }
    }
}

mail {
    server_name  edge.example.com;
    policy       on;
    policy_auth  off;
    proxy_pass   127.0.0.1:%%PORT_relay%%;

    log_format   line  '$sender';

    server {
        listen      127.0.0.1:%%PORT_full%%;
        protocol    smtp;
        access_log  /dev/full line;
        access_log  %%DIR%%/other.log line;
    }

    server {
        listen      127.0.0.1:%%PORT_limit%%;
        protocol    smtp;
        access_log  %%DIR%%/now.log line;
        access_log  %%DIR%%/later.log line buffer=1k flush=200ms;
    }
}
EOF

# 12 octets are left, less than a line
my $before = ('x' x (LIMIT - 13)) . "\n";

$t->write_file("$_.log", $before) for qw(now later);
chmod(0666, map { $t->dir() . "/$_.log" } qw(now later));

$t->run_nginx();


sub mail {
    my ($port, @from) = @_;

    my $c = $t->session($port);

    for my $from (@from) {
        my @replies = $c->send_mail($from, [ 'b@example.net' ], "x\n");
        like($replies[-1], qr/^250 /, "$port: $from");
    }

    $c->quit();
}


sub said {
    my ($what) = @_;

    return scalar(() = $t->error_log() =~ /\[crit\] .*$what/g);
}


# lines that are lost, as policy_status has it

sub lost {
    return JSON::PP::decode_json($t->http_get('http', '/'))->{log}{lost};
}


# a full disk

my @from = map { "$_\@example.com" } 1 .. 20;

mail('full', @from);
ok($t->wait_for(sub { $t->read_file('other.log') eq join('',
    map { "$_\n" } @from) }), 'another log has all of them');
is(said('write\(\) to "\/dev\/full" failed \(28: No space left'), 1,
    'it is said once');
is(lost(), 20, 'and all are counted');

# a part of a line

mail('limit', map { "$_\@example.com" } qw(torn lost gone));

my $torn = "${before}torn\@example";

ok($t->wait_for(sub { said('later.log"') }), 'the buffer, too');
is($t->read_file("$_.log"), substr($torn, 0, LIMIT), "$_.log is full")
    for qw(now later);
is(said('write\(\) to "\S+now.log" was incomplete: 12 of 17 '), 1,
    'incomplete: is said once');
is(said('write\(\) to "\S+later.log" was incomplete: 12 of 51\n'), 1,
    'so it is of a buffer');

is(lost(), 20 + 3 + 3, 'a line that is cut is lost');

# there is room again

$t->write_file("$_.log", 'torn@example') for qw(now later);
mail('limit', 'whole@example.com', 'next@example.com');

for my $file (qw(now later)) {
    ok($t->wait_for(sub { $t->read_file("$file.log") =~ /next/ }),
        "$file.log is written again");
    is($t->read_file("$file.log"),
        "torn\@example\nwhole\@example.com\nnext\@example.com\n",
        'in lines of their own');
}

is(lost(), 26, 'no more');
is(said(''), 3, 'that is all the error log has of it');

$t->allow(qr/\[crit\] .*write\(\) to "/);
$t->done();
