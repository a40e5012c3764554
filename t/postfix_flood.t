#!/usr/bin/perl

# "protocol policy" and who asks without end, and does not wait for answers:
# others have their turn, and a worker that shuts down does not wait for it.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use POSIX ();
use Test::More;
use Time::HiRes qw(sleep time);

use MailPolicy;
use MailPolicy::Policy;

my $t = MailPolicy->new();

$t->conf(<<'EOF');
mail {
    policy_limit  user  key=$sasl_username  messages=1000000/1h;

    server {
        listen    127.0.0.1:%%PORT_policy%%;
        protocol  policy;
    }
}
EOF
$t->run_nginx();


# One process asks, another one reads the answers, until it is closed.  There
# is always one more request that has begun.

sub flood {
    my $p = MailPolicy::Policy->new($t, 'policy');
    my $socket = $p->client()->socket();
    my $request = $p->request(sasl_username => 'flood@example.com');
    my $octets = substr($request x 200, 10) . substr($request, 0, 10);

    $socket->blocking(1);
    syswrite($socket, substr($request, 0, 10));

    my @pids = map { child($_) }
        sub { 1 while syswrite($socket, $octets) },
        sub { 1 while sysread($socket, my $answers, 65536) };

    $p->client()->close();
    return @pids;
}


sub child {
    my ($code) = @_;

    my $pid = fork() // die "fork: $!\n";
    return $pid if $pid;

    $SIG{PIPE} = 'IGNORE';
    alarm(30);
    $code->();
    POSIX::_exit(0);
}


sub ask { return MailPolicy::Policy->new($t, 'policy')->ask(
    sasl_username => 'other@example.com') }

sub is_gone {
    my ($pid) = @_;

    return !kill(0, $pid) || $t->read_file("/proc/$pid/stat") =~ /\) Z /;
}


my ($worker) = $t->worker_pids();
my @pids = map { flood() } 1 .. 2;
my @times;

for (1 .. 50) {
    my $before = time();

    last if ask() ne 'DUNNO';
    push @times, time() - $before;
    sleep(0.01);
}

is(scalar(@times), 50, 'others are answered');
cmp_ok((sort { $a <=> $b } @times)[25] // 10, '<', 0.5, 'at once');

# what goes on for ever is not waited for

$t->reload();
ok($t->wait_for(sub { is_gone($worker) }, 5),
    'a reload: the old worker ends') or kill('KILL', @pids);
is(ask(), 'DUNNO', 'and the new one is there');

waitpid($_, 0) for @pids;
$t->done();
