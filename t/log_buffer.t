#!/usr/bin/perl

# access_log ... buffer= flush=: what is in a buffer is written when the next
# line does not fit, by its timer, on USR1, on reload and at the end of a
# worker, and no line is lost or out of order.  The same without a master
# process.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Test::More;
use Time::HiRes qw(time);

use MailPolicy;

my $t = MailPolicy->new();
my $relay = $t->run_relay(name => 'relay');

my $CONF = <<'EOF';
error_log  %%DIR%%/error.log info;

http {
    log_format  uri "$uri";

    server {
        listen      127.0.0.1:%%PORT_http%%;
        access_log  %%DIR%%/both.log uri;
        return      204;
    }
}

mail {
    server_name  edge.example.com;
    policy       on;
    policy_auth  off;
    proxy_pass   127.0.0.1:%%PORT_relay%%;

    map $sender_local $wanted { default 1; no 0; }

    log_format  line  '$sender';
    log_format  pair  '$sender $status';

    access_log  %%DIR%%/timed.log flush=400ms line buffer=64k;
    access_log  %%DIR%%/hour.log  line flush=1h buffer=64k;
    access_log  %%DIR%%/small.log buffer=64 line;
    access_log  %%DIR%%/pairs.log line;
    access_log  %%DIR%%/pairs.log pair buffer=4k if=$wanted;
    access_log  %%DIR%%/pairs.log buffer=4k if=$wanted line;
    access_log  %%DIR%%/both.log  line buffer=4k;
    access_log  %%DIR%%/json.log  buffer=1m;
    access_log  %%DIR%%/now.log   line;

    server {
        listen    127.0.0.1:%%PORT_smtp%%;
        protocol  smtp;
    }
}
EOF

# those of which a line is a transaction
my @FILES = qw(timed hour small json);


sub lines { return join('', map { "$_\n" } @_) }
sub text  { return $t->read_file("$_[0].log") }


# the log without a buffer has them, so that the others were told, too

sub logged {
    my @from = @_;

    $t->wait_for(sub {
        my %line = map { $_ => 1 } split(/\n/, text('now'));
        !grep { !$line{$_} } @from;
    }) or diag('not logged');
}


sub mail {
    my @from = @_;

    my $c = $t->session('smtp');

    $c->send_mail($_, [ 'b@example.net' ], "x\n") for @from;
    $c->quit();
    logged(@from);
}


# a message that waits for its text

sub begin {
    my ($from) = @_;

    my $c = $t->session('smtp');

    $c->cmd($_) for "MAIL FROM:<$from>", 'RCPT TO:<b@example.net>', 'DATA';
    return $c;
}


sub senders {
    my ($file) = @_;

    return join(' ', sort $file eq 'json'
        ? map { $_->{sender} } $t->access_log('json.log')
        : split(/\n/, text($file)));
}


# as logrotate does; the files are name.old then

sub reopen {
    my $dir = $t->dir();
    my $nginx = $t->instance();
    my @files = (@FILES, 'pairs', 'both');

    rename("$dir/$_.log", "$dir/$_.old") for @files;
    $nginx->signal('USR1');

    my @pids = $nginx->{single} ? $nginx->pid() : $nginx->all_worker_pids();

    ok($t->wait_for(sub {
        my @open = map { readlink($_) // () } map { glob("/proc/$_/fd/*") }
            @pids;
        my %open = map { $_ => 1 } @open;
        !grep { !$open{"$dir/$_.log"} } @files;
    }), 'USR1: the files are opened anew');
}


$t->conf($CONF);
$t->run_nginx();

# the timer

my $start = time();

mail('a@example.com');
is(text('timed'), '', 'a line stays in the buffer') if time() < $start + 0.3;
ok($t->wait_for(sub { text('timed') ne '' }, 5), 'flush= has it written');
cmp_ok(time() - $start, '>', 0.35, 'not before its time');
mail('b@example.com', 'c@example.com');
ok($t->wait_for(sub { text('timed') eq lines(map { "$_\@example.com" }
    'a' .. 'c') }, 5), 'and again');
is(text('hour'), '', 'of another file by its own time only');

# a buffer of 64 octets

my $long = 'x' x 60;

is(text('small'), '', 'a buffer that is not full');
mail('d@example.com', 'e@example.com');
is(text('small'), lines(map { "$_\@example.com" } 'a' .. 'd'),
    'what does not fit has the rest written');
mail("$long\@example.com", 'f@example.com');
is(text('small'), lines(map { "$_\@example.com" } 'a' .. 'e', $long),
    'a line that is longer than the buffer, in its place');

# several logs of one file, if=, http

mail('no@example.com');
is(text('pairs'), '', 'all logs of a file use its buffer');
$t->http_get('http', $_) for '/page', '/end';
is(text('both'), '', "nginx's own, too");

# USR1

my @all = map { "$_\@example.com" } 'a' .. 'e', $long, 'f', 'no';

reopen();

is($t->read_file("$_.old"), lines(@all), "USR1: $_.log is complete")
    for qw(timed hour small);
is($t->read_file('pairs.old'), lines(map { /^no/ ? $_ : ($_, "$_ 250", $_) }
    @all), 'in order, with if=');
is($t->read_file('both.old'), lines(@all, '/page', '/end'),
    'together with http');
is(scalar(() = $t->read_file('json.old') =~ /^\{.*\}\n/mg), scalar(@all),
    'JSON');
is(text($_), '', "and nothing in the new one, $_.log") for @FILES;

# reload, and the end of the worker

mail('g@example.com');
is(text('hour'), '', 'new lines are in the buffer');

my @c = map { begin("$_\@example.com") } qw(h i);

$t->reload();
is(text('hour'), '', 'an old worker keeps what it has');
mail('j@example.com');
$c[0]->cmd("x\r\n.");
logged('h@example.com');
is(text('hour'), lines('g@example.com', 'h@example.com'),
    'until its next line; a new one has a buffer of its own');
$c[1]->cmd("x\r\n.");
$_->close() for @c;

mail('k@example.com');
$start = time();
is($t->stop(), 0, 'the worker ends');
cmp_ok(time() - $start, '<', 5, 'it does not wait for flush=');
is(senders($_), join(' ', map { "$_\@example.com" } 'g' .. 'k'),
    "no line is lost: $_.log") for @FILES;

# without a master process

unlink(glob($t->dir() . '/*.old'), map { $t->dir() . "/$_.log" } @FILES,
    qw(pairs both now));

$t->instance()->{single} = 1;
$t->conf("master_process off;\n$CONF");
$t->run_nginx();

mail('a@example.com');
is(text('hour'), '', 'master_process off: in the buffer');
ok($t->wait_for(sub { text('timed') eq "a\@example.com\n" }, 5), 'flush=');
mail('b@example.com');
reopen();
is($t->read_file('hour.old'), lines('a@example.com', 'b@example.com'),
    'USR1');

mail('c@example.com');
my $old = begin('d@example.com');

$t->instance()->signal('HUP');
ok($t->wait_for(sub { text('hour') eq "c\@example.com\n" }, 5), 'reload');

# nginx takes no new sessions then

$old->cmd("x\r\n.");
logged('d@example.com');
$old->close();
is($t->stop(), 0, 'its end');
is(senders($_), 'c@example.com d@example.com',
    "$_.log: of a session before the reload, too") for qw(hour small json);

$t->done();
