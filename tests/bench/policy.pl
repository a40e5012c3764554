#!/usr/bin/perl

# How many questions of Postfix a second are answered, on one connection and
# on 50: by "protocol policy", counting in shared memory and in Redis, and by
# postfwd with the rule that says the same, a rate of messages per login.
#
#     policy.pl LOAD [ROUNDS [SECONDS]]
#
# LOAD is the program made of policy_load.c.  They take turns, ROUNDS (5)
# times for SECONDS (3) each; what is printed are medians, with the time of
# the processor that a question costs all processes of a side.  postfwd has
# one process for all (postfwd1), or some for the questions (postfwd2); what
# we are compared with is the quicker one.  nginx has one worker.
#
# Called by "build.sh bench-policy".  The exit status is 0 only if counting in
# shared memory is twenty times as fast, on one connection with many questions
# under way and on 50 with one each.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../lib";

use Time::HiRes qw(sleep time);

use MailPolicy;
use MailPolicy::Process qw(children);

use constant { USERS => 1000, TIMES => 20 };

die "usage: policy.pl LOAD [ROUNDS [SECONDS]]\n" unless @ARGV;

my $LOAD = $ARGV[0];
my $ROUNDS = $ARGV[1] // 5;
my $SECONDS = $ARGV[2] // 3;
my @SIDES = qw(shm redis postfwd1 postfwd2);
my @COLUMNS = qw(rate cpu p50 p99);

# connections, and questions under way on each: Postfix has one, and postfwd
# answers one
my @LOADS = ([ 1, 1 ], [ 1, 50 ], [ 50, 1 ]);

$| = 1;
$ENV{TEST_NGINX_TIMEOUT} //= 3600;

my $t = MailPolicy->new();
my $redis = $t->run_redis();
my @postfwd;

END {
    my $status = $?;
    kill('TERM', @postfwd) if @postfwd;
    $? = $status;
}

my %side = (
    shm => nginx('with_shm', ''),
    redis => nginx('with_redis',
        'policy_redis  redis://127.0.0.1:%%PORT_redis%%;', $redis->{pid}),
    postfwd1 => postfwd('postfwd1', '--daemon'),
    postfwd2 => postfwd('postfwd2', '--cache_port', $t->port('cache')),
);

my %got;

for my $round (0 .. $ROUNDS) {
    for my $load (@LOADS) {
        for my $name (sides($load)) {

            # the first time is for what is done once
            my %row = measure($side{$name}, $load->[0],
                $round ? $SECONDS : 1, $load->[1]);
            next if $round == 0;

            push @{ $got{"@$load"}{$name}{$_} }, $row{$_} for @COLUMNS;
        }
    }
}

exit(report());


sub sides {
    my ($load) = @_;

    return grep { $load->[1] == 1 || !/^postfwd/ } @SIDES;
}


# what is measured: where it listens, and its processes

sub nginx {
    my ($name, $store, @more) = @_;

    $t->conf($name, <<"EOF");
error_log  %%DIR%%/$name.error.log notice;

mail {
    $store
    policy_limit  user key=\$sasl_username messages=1000000000/1h;

    server {
        listen    127.0.0.1:%%PORT_$name%%;
        protocol  policy;
    }
}
EOF
    $t->run_nginx($name);

    return { where => '127.0.0.1:' . $t->port($name),
             pids => sub { $t->worker_pids($name), @more } };
}


sub postfwd {
    my ($name, @options) = @_;

    my $dir = $t->dir();
    my $pid_file = "/tmp/$name-$$.pid";
    my $rules = $t->write_file('postfwd.cf', 'id=USER; sasl_username=~/./; '
        . "action=rate(sasl_username/1000000000/3600/450 4.7.1 no more)\n");

    # neither of them asks the DNS, or logs
    system("cd / && $name --file $rules --interface 127.0.0.1 "
        . '--port ' . $t->port($name) . " --pidfile $pid_file --nodns "
        . "--perfmon --stdoutlog --user nobody --group nogroup @options "
        . ">$dir/$name.log 2>&1 &");

    $t->wait_for(sub { $t->client($name)->connected() }, 20)
        or die "$name does not run: " . $t->read_file("$name.log");
    $t->disconnect();

    my ($pid) = $t->read_file($pid_file) =~ /(\d+)/ or die "$pid_file?\n";
    unlink($pid_file);
    push @postfwd, $pid;

    return { where => '127.0.0.1:' . $t->port($name),
             pids => sub { tree($pid) } };
}


sub tree {
    my ($pid) = @_;

    return ($pid, map { tree($_) } children($pid));
}


# questions a second, microseconds of the processor for one, and percentiles

sub measure {
    my ($side, $connections, $seconds, $depth) = @_;

    my %before = map { $_ => cpu($_) } $side->{pids}->();
    my $said = `$LOAD $side->{where} $connections $seconds @{[ USERS ]} $depth`;
    my ($answers, $took, $p50, $p99) = split(' ', $said);

    die "no answers from $side->{where}\n" unless $answers;

    my $spent = 0;
    $spent += cpu($_) - ($before{$_} // 0) for $side->{pids}->();

    return (rate => $answers / $took, cpu => 1e6 * $spent / $answers,
            p50 => $p50, p99 => $p99);
}


# seconds that a process has had

sub cpu {
    my ($pid) = @_;

    my @field = split(/ /, $t->read_file("/proc/$pid/stat") =~ s/.*\) //r);
    return @field > 12 ? ($field[11] + $field[12]) / 100 : 0;
}


sub median {
    my ($values) = @_;

    my @sorted = sort { $a <=> $b } @$values;
    return $sorted[ @sorted / 2 ];
}


# the exit status

sub report {
    my $status = 0;

    printf("%11s %8s  %-9s %11s %9s %9s %9s\n", 'connections', 'at once', '',
        'questions/s', 'CPU us', 'p50 us', 'p99 us');

    for my $load (@LOADS) {
        my $of = $got{"@$load"};

        # the most that postfwd does on as many connections
        my $single = $got{"$load->[0] 1"};
        my %other = map { $_ => median($single->{$_}{rate}) }
            qw(postfwd1 postfwd2);
        my ($other) = sort { $other{$b} <=> $other{$a} } keys %other;

        for my $name (sides($load)) {
            my $times = median($of->{$name}{rate}) / $other{$other};
            my $ours = $name !~ /^postfwd/;

            printf("%11d %8d  %-9s %11.0f %9.1f %9.0f %9.0f%s\n", @$load,
                $name, map({ median($of->{$name}{$_}) } @COLUMNS),
                $ours ? sprintf('   %.1f x %s', $times, $other) : '');

            # one question at a time on one connection is the kernel's time
            $status = 1
                if $name eq 'shm' && "@$load" ne '1 1' && $times < TIMES;
        }
    }

    return $status;
}
