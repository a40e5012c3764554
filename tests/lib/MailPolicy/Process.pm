package MailPolicy::Process;

# Child processes: programs and forked servers, always ended by their pid.

use strict;
use warnings;

use Exporter qw(import);
use POSIX ();
use Time::HiRes qw(sleep time);

# nginx and postfix live there, which users do not have in their path
$ENV{PATH} .= ':/usr/local/sbin:/usr/sbin:/sbin';

our @EXPORT_OK = qw(spawn fork_server wait_exit stop_process children);


# starts a program with its output in the file $log; returns its pid

sub spawn {
    my ($log, @command) = @_;

    my $pid = fork();
    die "fork: $!\n" unless defined $pid;
    return $pid if $pid;

    redirect($log);
    exec { $command[0] } @command
        or warn "exec $command[0]: $!\n";
    POSIX::_exit(127);
}


# runs $code in a child that keeps only the handles @$keep open: a socket
# that a child inherited by accident would never be seen to close

sub fork_server {
    my ($log, $keep, $code) = @_;

    my $pid = fork();
    die "fork: $!\n" unless defined $pid;
    return $pid if $pid;

    my %keep = map { fileno($_) => 1 } @$keep;

    $SIG{$_} = 'DEFAULT' for qw(ALRM CHLD HUP INT QUIT TERM);
    $SIG{PIPE} = 'IGNORE';
    alarm(0);

    end_with_parent();
    redirect($log);

    # not closed: Perl counts the handles of a descriptor, and would not
    # close a new one with the number of an old one it still counts
    for my $fd (open_descriptors()) {
        POSIX::dup2(0, $fd) unless $fd <= 2 || $keep{$fd};
    }

    eval { $code->(); 1 } or print STDERR "died: $@";

    # no END blocks, no destructors: they are the test's
    STDERR->flush();
    POSIX::_exit(0);
}


# A test that is killed ends nothing itself.  prctl(PR_SET_PDEATHSIG, SIGKILL),
# where its number is known.

sub end_with_parent {
    my %prctl = (x86_64 => 157, aarch64 => 167);
    my $number = $prctl{(POSIX::uname())[4]};

    syscall($number, 1, POSIX::SIGKILL()) if $number;
}


sub redirect {
    my ($log) = @_;

    open(STDIN, '<', '/dev/null') or POSIX::_exit(126);
    open(STDOUT, '>>', $log) or POSIX::_exit(126);
    open(STDERR, '>&', \*STDOUT) or POSIX::_exit(126);
}


sub open_descriptors {
    opendir(my $dir, '/proc/self/fd') or die "/proc/self/fd: $!\n";
    my @fds = grep { /^\d+$/ && $_ != fileno($dir) } readdir($dir);
    closedir($dir);
    return @fds;
}


# the exit status as in $?, or undef if it is still running

sub wait_exit {
    my ($pid, $timeout) = @_;

    my $end = time() + $timeout;

    while (1) {
        my $got = waitpid($pid, POSIX::WNOHANG());
        return $? if $got == $pid;
        return -1 if $got == -1;
        return undef if time() >= $end;
        sleep(0.01);
    }
}


# Asks it to end with $signal, and kills it if it does not within $timeout.
# Returns the exit status, or undef if it had to be killed.

sub stop_process {
    my ($pid, $signal, $timeout) = @_;

    kill($signal, $pid);

    my $status = wait_exit($pid, $timeout);
    return $status if defined $status;

    # workers first: they do not end with a killed master
    kill('KILL', children($pid), $pid);
    wait_exit($pid, 5);
    return undef;
}


# pids of the children of a process

sub children {
    my ($pid) = @_;

    my @children;

    for my $stat (glob('/proc/[0-9]*/stat')) {
        open(my $fh, '<', $stat) or next;
        my $line = <$fh>;
        next unless defined $line;
        push @children, $1
            if $line =~ /^(\d+) \(.*\) \S (\d+) /s && $2 == $pid;
    }

    return sort { $a <=> $b } @children;
}


1;
