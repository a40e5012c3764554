#!/usr/bin/perl

# What the access log and the metrics cost: the time of the processor that a
# worker spends for a message, with both off and with both on.
#
#     log.pl [ROUNDS [MESSAGES [MODULE]]]
#
# Two loads of smtp-source: all messages of a round in one session, and one
# session for each.  In each of ROUNDS (20) the sides take turns, with MESSAGES
# (1000) of 2 kB; the relay is smtp-sink, and one limit counts in shared
# memory.  What is printed are medians: microseconds for a message, and how
# much that is above "off" in the same round.  Workers and clients have a core
# of their own, where there are two.
#
#     off        policy_metrics off; access_log off;
#     metrics    policy_metrics on;  access_log off;
#     json       ...                 access_log file;
#     buffer     ...                 access_log file json buffer=64k flush=1s;
#     postfix    ...                 access_log file postfix;
#     other      MODULE, another build of the module: access_log off;
#
# Called by "build.sh bench-log".  The exit status is 0 only if "json" is at
# most 5 % above "off", with either load.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../lib";

use MailPolicy;
use MailPolicy::Sink;

use constant { MOST => 5, LENGTH => 2000 };

my $ROUNDS = $ARGV[0] // 20;
my $MESSAGES = $ARGV[1] // 1000;
my $OTHER = $ARGV[2];

my %LOG = (
    off     => 'access_log off; policy_metrics off;',
    metrics => 'access_log off;',
    json    => 'access_log %%DIR%%/json.log;',
    buffer  => 'access_log %%DIR%%/buffer.log json buffer=64k flush=1s;',
    postfix => 'access_log %%DIR%%/postfix.log postfix;',
    other   => 'access_log off;',
);
my @SIDES = (qw(off metrics json buffer postfix), defined $OTHER ? 'other' : ());

# what smtp-source is told: -d does not disconnect
my %LOADS = ('one session' => [ '-d' ], 'a session each' => []);

my $CORES = () = `nproc` =~ /^([2-9]|\d\d+)$/;
my @ELSEWHERE = $CORES ? qw(taskset -c 1) : ();

$| = 1;
$ENV{TEST_NGINX_TIMEOUT} //= 7200;

my $t = MailPolicy->new();
my $sink = MailPolicy::Sink->new($t, port => 'sink');

if ($CORES) {
    system("taskset -cp 1 $sink->{pid} >/dev/null") == 0 or die "taskset\n";
}

nginx($_) for @SIDES;

my %got;

for my $round (0 .. $ROUNDS) {
    for my $load (keys %LOADS) {

        # none of them is always the first
        push @SIDES, shift @SIDES;

        my %cpu = map { $_ => measure($_, $load) } @SIDES;

        # the first time is for what is done once
        next if $round == 0;

        for my $side (@SIDES) {
            push @{ $got{$load}{$side}{cpu} }, $cpu{$side};
            push @{ $got{$load}{$side}{above} },
                100 * ($cpu{$side} / $cpu{off} - 1);
        }
    }
}

exit(report());


sub nginx {
    my ($name) = @_;

    local $t->{globals} = MailPolicy::globals()
        =~ s{\S+/ngx_mail_policy_module\.so}{$OTHER}r if $name eq 'other';
    my $affinity = $CORES ? 'worker_cpu_affinity 01;' : '';

    $t->conf($name, <<"EOC");
$affinity
error_log  %%DIR%%/$name.error.log crit;

mail {
    server_name   edge.example.com;
    policy        on;
    policy_auth   off;
    policy_limit  client  key=\$client_net  messages=1000000000/1h;
    proxy_pass    127.0.0.1:%%PORT_sink%%;
    $LOG{$name}

    server {
        listen    127.0.0.1:%%PORT_$name%%;
        protocol  smtp;
    }
}
EOC
    $t->run_nginx($name);
}


# microseconds of the processor for a message

sub measure {
    my ($name, $load) = @_;

    my ($worker) = $t->worker_pids($name);
    my $before = cpu($worker);

    system(@ELSEWHERE, 'smtp-source', @{ $LOADS{$load} }, '-m', $MESSAGES,
        '-l', LENGTH, '-f', 'a@example.com', '-t', 'r@example.net',
        '127.0.0.1:' . $t->port($name)) == 0
        or die "smtp-source fails\n";

    # what ends sessions may come behind
    select(undef, undef, undef, 0.05);

    return (cpu($worker) - $before) / $MESSAGES / 1000;
}


# nanoseconds that a process has had

sub cpu {
    my ($pid) = @_;

    my ($spent) = $t->read_file("/proc/$pid/schedstat") =~ /^(\d+) /
        or die "no /proc/$pid/schedstat\n";
    return $spent;
}


sub median {
    my ($values, $part) = @_;

    my @sorted = sort { $a <=> $b } @$values;
    return $sorted[ @sorted * ($part // 0.5) ];
}


# the exit status

sub report {
    my $status = 0;

    printf("%-15s %-8s %8s %12s %20s\n", 'messages', '', 'CPU us',
        'above off %', 'half of the rounds');

    for my $load (sort keys %LOADS) {
        for my $side (sort { rank($a) <=> rank($b) } @SIDES) {
            my $of = $got{$load}{$side};
            my $above = median($of->{above});

            printf("%-15s %-8s %8.1f %12.1f %9.1f to %5.1f\n", $load, $side,
                median($of->{cpu}), $above,
                map { median($of->{above}, $_) } 0.25, 0.75);

            $status = 1 if $side eq 'json' && $above > MOST;
        }
    }

    return $status;
}


sub rank { return index('off metrics json buffer postfix other', $_[0]) }
