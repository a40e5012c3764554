#!/usr/bin/perl

# Files that are rotated while mail goes on: clients send by two workers, and
# the logs are renamed and opened anew again and again.  Over all files each
# transaction has exactly one line, and a line is whole, with a buffer and
# without.  Then the same by logrotate, as README.md has it.
#
# TEST_MESSAGES: how many transactions (50000 for all of it).

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Test::More;
use Time::HiRes qw(sleep time);

use MailPolicy;
use MailPolicy::FastRelay;
use MailPolicy::Process qw(fork_server spawn wait_exit);

use constant { CLIENTS => 4, WORKERS => 2, SESSION => 25 };

my $MESSAGES = $ENV{TEST_MESSAGES} || 2000;
my @FILES = qw(now buffer json);

$ENV{TEST_NGINX_TIMEOUT} //= 60 + $MESSAGES / 100;

my $t = MailPolicy->new();
my $dir = $t->dir();
my $relay = MailPolicy::FastRelay->new($t, name => 'relay');

$t->conf(<<"EOF");
error_log         $dir/error.log notice;
worker_processes  @{[ WORKERS ]};

mail {
    server_name  edge.example.com;
    policy       on;
    policy_auth  off;
    proxy_pass   127.0.0.1:%%PORT_relay%%;

    log_format   line  '\$pid \$connection \$sender \$status end';

    access_log   $dir/now.log     line;
    access_log   $dir/buffer.log  line  buffer=4k  flush=50ms;
    access_log   $dir/json.log    buffer=64k  flush=1s;

    server {
        listen    127.0.0.1:%%PORT_smtp%%;
        protocol  smtp;
    }
}
EOF
$t->run_nginx();


# A client sends its share, and more until the files were rotated often
# enough: most is accepted, some refused, some given up.  Into a file go
# "sender status", as the log should have it.

sub run_client {
    my ($name, $messages) = @_;

    return fork_server("$dir/$name.err", [], sub {
        my ($c, @said);

        for (my $n = 1; $n <= $messages || !-e "$dir/enough"; $n++) {
            if (!$c || $n % SESSION == 0) {
                $c->quit() if $c;
                $c = $t->client('smtp');
                $c->greeting();
                $c->ehlo();
            }

            my $from = "$name-$n\@example.com";
            push @said, "$from " . transaction($c, $from, $n) . "\n";
        }

        $c->quit();
        $t->write_file($name, join('', @said));
    });
}


# returns the status, "-" for one that was given up

sub transaction {
    my ($c, $from, $n) = @_;

    if ($n % 10 == 0) {
        $c->pipeline("MAIL FROM:<$from>", 'RCPT TO:<b@example.net>', 'RSET');
        return '-';
    }

    if ($n % 10 == 1) {
        my ($mail, $rcpt) = $c->pipeline("MAIL FROM:<$from>",
            'RCPT TO:<no@example.net>', 'RSET');
        return substr($rcpt, 0, 3);
    }

    $c->pipeline("MAIL FROM:<$from>", 'RCPT TO:<b@example.net>', 'DATA');
    $c->send_raw("X-Id: $from\r\n\r\nx\r\n.\r\n");
    return substr($c->read_reply(), 0, 3);
}


# which of the files a worker has open

sub is_open {
    my ($pid) = @_;

    my %open = map { (readlink($_) // '') => 1 } glob("/proc/$pid/fd/*");
    return !grep { !$open{"$dir/$_.log"} } @FILES;
}


# as logrotate does it; only then comes the next time

sub rotate {
    my ($n) = @_;

    rename("$dir/$_.log", "$dir/$_.log-$n") or die "$_: $!\n" for @FILES;
    $t->instance()->signal('USR1');
    return $t->wait_for(sub { !grep { !is_open($_) } $t->worker_pids() });
}


# lines of a file and of what it was before; all are whole

sub check_lines {
    my ($file, $expected) = @_;

    my (%lines, %pids, @torn);

    for my $text (map { read_any($_) } glob("$dir/$file.log*")) {
        for my $line (split(/(?<=\n)/, $text)) {
            if ($line =~ /^(\d+) \d+ (\S+) (\d\d\d|-) end\n\z/) {
                $lines{"$2 $3"}++;
                $pids{$1}++;

            } elsif ($line =~ /^\{"time":(?!.*"time":).*"outcome":"\w+".*\}\n\z/
                && $line =~ /,"sender":"([^"]+)",(?:.*"status":(\d+),)?/)
            {
                $lines{"$1 " . ($2 // '-')}++;

            } else {
                push @torn, $line;
            }
        }
    }

    MailPolicy::none("$file: all lines are whole", @torn);
    MailPolicy::none("$file: no line twice", grep { $lines{$_} > 1 }
        sort keys %lines);
    MailPolicy::none("$file: no line is missing", grep { !$lines{$_} }
        sort keys %$expected);
    is(scalar(keys %lines), scalar(keys %$expected), "$file: and no other");
    is(scalar(keys %pids), WORKERS, "$file: of all workers")
        unless $file eq 'json';
}


sub read_any {
    my ($file) = @_;

    return $t->read_file($file) unless $file =~ /\.gz$/;

    open(my $fh, '-|', 'zcat', $file) or die "zcat: $!\n";
    local $/;
    return scalar(<$fh>) // '';
}


# clients send, and the files are rotated until they are through; the number
# of times, or 0 if that failed

sub run_load {
    my ($name, $messages, $rotate) = @_;

    my $n = 0;

    unlink("$dir/enough");

    my @pids = map { run_client("$name$_", int($messages / CLIENTS)) }
        1 .. CLIENTS;

    while (@pids) {
        sleep(0.02);
        $rotate->(++$n) or return 0;
        $t->write_file('enough', '') if $n == 5;
        @pids = grep { !defined wait_exit($_, 0) } @pids;
    }

    return $n;
}


# the example of README.md, for this directory and this nginx

sub logrotate_conf {
    my ($conf) = $t->read_file($t->root() . '/README.md')
        =~ m{^(    /var/log/[^\n]+\{\n.*?^    \}\n)}ms;

    my $pid = "$dir/nginx.pid";

    $conf =~ s{/var/log/\S+/}{$dir/}g;
    $conf =~ s{/run/nginx\.pid}{$pid}g;
    $conf =~ s/^ *rotate \K\d+/1000/m;
    $conf =~ s/^ *create .*\n/    create 0644\n/m if $>;
    return $t->write_file('logrotate.conf', $conf);
}


sub logrotate {
    my ($conf) = @_;

    return wait_exit(spawn("$dir/logrotate.out", 'logrotate', '-f', '-s',
        "$dir/logrotate.state", $conf), 10) == 0;
}


my $begin = time();
my $times = run_load('a', $MESSAGES, \&rotate);
my $seconds = time() - $begin;

cmp_ok($times, '>=', 5, 'renamed and opened anew again and again');
note(sprintf('%d transactions in %.1f s, %d rotations', $MESSAGES, $seconds,
    $times));

my $conf = logrotate_conf();

cmp_ok(run_load('b', 0, sub { logrotate($conf) }), '>=', 5, 'by logrotate')
    or diag($t->read_file('logrotate.out'));
is($t->read_file('logrotate.out'), '', 'which has nothing to say');
cmp_ok(scalar(my @gz = glob("$dir/now.log.*.gz")), '>=', 3,
    'and compresses them');

is($t->stop(), 0, 'the end');

my %expected = map { $_ => 1 } map { split(/\n/, $t->read_file($_)) }
    map { ("a$_", "b$_") } 1 .. CLIENTS;

cmp_ok(scalar(keys %expected), '>=', CLIENTS * int($MESSAGES / CLIENTS),
    'all was sent');
is(join(' ', sort keys %{ { map { (split(/ /))[1] => 1 } keys %expected } }),
    '- 250 550', 'and answered as it should be');

check_lines($_, \%expected) for @FILES;

$t->done();
