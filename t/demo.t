#!/usr/bin/perl

# "build.sh demo": it ends well; with --keep what it prints can be used as it
# stands, and nothing is left behind when it is stopped as it says.

use strict;
use warnings;

use Cwd qw(abs_path);
use File::Temp qw(tempdir);
use FindBin;

use Test::More;
use Time::HiRes qw(sleep time);

my $ROOT = abs_path("$FindBin::Bin/..");
my @DEMO = ($^X, "$ROOT/tests/demo.pl");

# as in tests/lib/MailPolicy.pm
$ENV{ASAN_OPTIONS} //= 'detect_leaks=0:detect_odr_violation=0';

plan(skip_all => 'no swaks') unless grep { -x "$_/swaks" }
    split(/:/, $ENV{PATH});

my ($status, $output) = run(@DEMO);

is($status, 0, 'exit status') or diag($output);
like($output, qr/^All was as it should be\.$/m, 'says that all was well');
like($output, qr/^   ok +\S.* 450 4\.7\.1 Rate limit "user" exceeded/m,
    'the limit answered');
like($output, qr/ accepted +bulk c$/m, 'the second route');
like($output, qr/^   ok +nearest to it +alice\@example\.com$/m,
    'the status page');
unlike($output, qr/WRONG|\e/, 'nothing wrong, no colours in a pipe');
unlike($output, qr/ at \S+ line \d+/, 'no warning of Perl');

my ($dir) = $output =~ m{^ +access_log +(\S+)/access\.log;$}m;
ok(defined $dir && !-e $dir, 'its directory is removed');

($status, $output) = run(@DEMO, '--nonsense');
isnt($status, 0, 'an unknown argument');

# it can tell: the same with another limit than it expects

my $changed = slurp("$ROOT/tests/demo.pl");

$changed =~ s{messages=3/1h;}{messages=9/1h;} or die "no such limit\n";

my $copy = tempdir(CLEANUP => 1) . '/demo.pl';

open(my $fh, '>', $copy) or die "$copy: $!\n";
print $fh $changed;
close($fh);

{
    local $ENV{TEST_NGINX_GLOBALS} = $ENV{TEST_NGINX_GLOBALS}
        // "load_module /usr/lib/nginx/modules/ngx_mail_module.so;\n"
        . "load_module $ROOT/build/module/ngx_mail_policy_module.so;\n";

    ($status, $output) = run($^X, '-I', "$ROOT/tests/lib", $copy);
}

is($status, 1, 'what is not as it should be: exit status');
like($output, qr/^   WRONG +session 1, to erin@.* 250 2\.0\.0 /m,
    'what is not as it should be is said');
like($output, qr/^This was wrong:$/m, '... and said again at the end');

# left running

($status, $output) = run(@DEMO, '--keep');

is($status, 0, '--keep: exit status') or diag($output);

my ($swaks) = $output =~ /^ +(swaks .*?[^\\])\n/ms;
my ($raise) = $output =~ /^ +(redis-cli -p \d+ HSET '.* messages 100\/1h)$/m;
my ($usage) = $output =~ /^ +(redis-cli -p \d+ HGETALL .*)$/m;
my @curl = $output =~ /^ +(curl -s .*)$/mg;
my ($pid) = $output =~ /^ +kill (\d+)$/m;
($dir) = $output =~ /^In (\S+):$/m;

die "the demo says something else\n"
    unless $pid && $dir && $swaks && $raise && $usage && @curl == 2;

ok($pid && kill(0, $pid), '--keep: it runs');
like((run('sh', '-c', $swaks))[1], qr/^<.* 450 4\.7\.1 Rate limit "user"/m,
    '--keep: the swaks line, refused');
run('sh', '-c', $raise);
like((run('sh', '-c', $swaks))[1], qr/^<.* 250 2\.0\.0 Ok: queued/m,
    '--keep: the redis-cli line, and swaks again');
like((run('sh', '-c', $usage))[1], qr/^messages\nw 56250000 /m,
    '--keep: what was used');

like((run('sh', '-c', $curl[0]))[1], qr/"key": *"alice\@example\.com"/,
    '--keep: curl and jq');
like((run('sh', '-c', $curl[1]))[1],
    qr/^nginx_mail_policy_limit_decisions_total\{limit="user",/m,
    '--keep: curl, as Prometheus');

my @log = split(/\n/, slurp("$dir/access.log"));
like($log[-1], qr/"outcome":"accepted"/, '--keep: the log is where it says');
ok(glob("$dir/relay-*/*.transcript"), '--keep: so are the transcripts');

kill('TERM', $pid) if $pid;

my $end = time() + 10;
sleep(0.02) while (kill(0, $pid) || -e $dir) && time() < $end;

ok(!kill(0, $pid), '--keep: it is stopped');
ok(!-e $dir, '--keep: its directory is removed');
is((grep { readlink_or_none("$_/cwd") =~ /^\Q$dir\E/
           || slurp("$_/cmdline") =~ /\Q$dir\E/ } glob('/proc/[0-9]*'))[0],
    undef, '--keep: no process is left');

done_testing();


sub run {
    my (@command) = @_;

    my $child = open(my $fh, '-|') // die "fork: $!\n";

    if ($child == 0) {
        open(STDERR, '>&', \*STDOUT);
        exec { $command[0] } @command or die "$command[0]: $!\n";
    }

    my $output = do { local $/; <$fh> } // '';

    close($fh);
    return ($? >> 8 || $?, $output);
}


sub slurp {
    my ($file) = @_;

    open(my $fh, '<', $file) or return '';
    local $/;
    return scalar(<$fh>) // '';
}


sub readlink_or_none { return readlink($_[0]) // '' }
