package MailPolicy::Nginx;

# One running nginx.

use strict;
use warnings;

use Time::HiRes qw(sleep time);

use MailPolicy::Process qw(children spawn stop_process wait_exit);


# name, dir, binary; single => 1: it has "master_process off"

sub new {
    my ($class, %option) = @_;

    my $self = bless { %option }, $class;

    $self->{conf} = "$self->{dir}/$self->{name}.conf";
    $self->{pid_file} = "$self->{dir}/$self->{name}.pid";
    $self->{output} = "$self->{dir}/$self->{name}.out";
    $self->{log} = "$self->{dir}/"
        . ($self->{name} eq 'nginx' ? '' : "$self->{name}.") . 'error.log';

    return $self;
}


sub name { return $_[0]{name} }
sub pid  { return $_[0]{pid} }


sub command {
    my ($self, @more) = @_;

    return ($self->{binary}, '-p', "$self->{dir}/", '-c', $self->{conf},
        '-e', $self->{log}, @more);
}


# Starts it, and waits until its workers run: the kernel then accepts
# connections for them, no probe that would leave traces is needed.

sub start {
    my ($self) = @_;

    unlink($self->{pid_file});
    $self->{pid} = spawn($self->{output}, $self->command());
    delete $self->{status};

    my $end = time() + 20;

    until (-s $self->{pid_file} && ($self->{single} || $self->worker_pids())) {
        my $status = wait_exit($self->{pid}, 0.02);

        if (defined $status) {
            delete $self->{pid};
            $self->{status} = $status;
            die "nginx \"$self->{name}\" ended with status $status\n"
                . $self->last_words();
        }

        die "nginx \"$self->{name}\" does not start\n" . $self->last_words()
            if time() > $end;
    }

    return $self;
}


# workers that are not shutting down

sub worker_pids {
    my ($self) = @_;

    return grep { title($_) =~ /worker process$/ } children($self->{pid});
}


sub all_worker_pids {
    my ($self) = @_;

    return $self->_of($self->{pid});
}


sub title {
    my ($pid) = @_;

    open(my $fh, '<', "/proc/$pid/cmdline") or return '';
    my $title = <$fh> // '';
    $title =~ s/[\0\s]+\z//;
    return $title;
}


sub signal {
    my ($self, $signal) = @_;

    kill($signal, $self->{pid}) if $self->{pid};
}


# true when new workers run; false if the new configuration was refused

sub reload {
    my ($self) = @_;

    my %old = map { $_ => 1 } $self->all_worker_pids();
    my $emergencies = $self->count_emerg();
    my $end = time() + 20;

    $self->signal('HUP');

    while (time() < $end) {
        sleep(0.03);

        # the old ones are told to go only after the new ones run
        my @now = $self->worker_pids();
        return 1 if @now && !grep { $old{$_} } @now;
        return 0 if $self->count_emerg() > $emergencies;
    }

    return 0;
}


sub count_emerg {
    my ($self) = @_;

    my $count = () = $self->error_log() =~ /\[emerg\]/g;
    return $count;
}


sub error_log { return slurp($_[0]{log}) }


# Graceful, as it shows what was left behind.  Returns the exit status, or
# undef if it had to be killed.

sub stop {
    my ($self, $signal, $timeout) = @_;

    my $pid = delete $self->{pid} or return $self->{status};

    $self->{status} = stop_process($pid, $signal // 'QUIT', $timeout // 15);
    $self->{killed} = 1 unless defined $self->{status};
    return $self->{status};
}


# all of it, as it would crash: the master first, or it would start others

sub crash {
    my ($self) = @_;

    my $pid = delete $self->{pid} or return;
    my @workers = $self->_of($pid);

    kill('KILL', $pid, @workers);
    wait_exit($pid, 5);

    # they are nobody's children then
    sleep(0.01) while grep { kill(0, $_) && title($_) ne '' } @workers;
}


# it hangs, and goes on: STOP, CONT

sub freeze {
    my ($self, $signal) = @_;

    kill($signal, $self->{pid}, $self->_of($self->{pid}));
}


sub _of {
    my ($self, $pid) = @_;

    return grep { title($_) =~ /worker process/ } children($pid);
}


# no grace, for the end of a test that died

sub kill_now {
    my ($self) = @_;

    my $pid = delete $self->{pid} or return;
    stop_process($pid, 'TERM', 3);
}


# "nginx -t": (1 if the configuration is good, what nginx says)

sub check {
    my ($self) = @_;

    my $output = "$self->{dir}/$self->{name}.check";
    unlink($output);

    my $status = wait_exit(spawn($output, $self->command('-t')), 20);
    return (defined $status && $status == 0 ? 1 : 0, slurp($output));
}


sub last_words {
    my ($self) = @_;

    my @lines = grep { !/\[debug\]/ }
        split /\n/, slurp($self->{output}) . $self->error_log();
    splice(@lines, 0, -20) if @lines > 20;
    return join('', map { "  $_\n" } @lines);
}


sub slurp {
    my ($file) = @_;

    open(my $fh, '<:raw', $file) or return '';
    local $/;
    return scalar(<$fh>) // '';
}


1;
