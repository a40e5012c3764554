#!/usr/bin/perl

# RES-12: alloc_failure.t for "protocol policy": memory, or a call of the
# system, is refused at each place where nginx asks for it while it answers
# Postfix.  Who is not answered finds the connection closed; no answer is
# another one than usual, but a deferral; the worker goes on, with what it had
# open and allocated before.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Errno qw(:POSIX);
use Test::More;
use Time::HiRes qw(time);

use MailPolicy;
use MailPolicy::FailAlloc;
use MailPolicy::FailAlloc::Player qw(connected wait_connected);
use MailPolicy::Policy;

my $t = MailPolicy->new();
my $why = MailPolicy::FailAlloc::impossible($t);
plan(skip_all => $why) if $why;

alarm(600);

my $redis = $t->run_redis();
my $limits = <<'EOF';
    policy_limit  sender  key=$sender  messages=100000/1h  recipients=100000/1h
                          bytes=10g/1h;
    policy_limit  pair    key=$sender/$recipient  messages=100000/1h
                          bytes=10g/1h;
    policy_limit  try     key=$sasl_username  messages=100000/1h
                          charge=attempt;
    policy_limit  none    key=$blocked  recipients=blocked on_exceed=reject
                          "message=$recipient may not have $message_size";
EOF

# one that counts in shared memory, and one of Redis, with lookups

sub conf {
    my ($name, $main) = @_;

    my $log = $t->instance($name)->{log};

    $t->conf($name, <<"EOF");
error_log  $log notice;

mail {
    policy_zone  4m;
    $main

    map \$recipient_domain \$blocked { no.example  \$recipient; }

$limits

    server {
        listen    unix:%%DIR%%/$name.sock;
        protocol  policy;
    }
}
EOF
}

conf('local', '');
conf('remote', 'policy_redis redis://127.0.0.1:%%PORT_redis%% connections=1;
    policy_lookup $class class:$sender;
    policy_limit class key=$class messages=100000/1h "message=$class";');
$redis->cmd('SET', "mail:class:s$_\@example.com", 'gold') for 0 .. 9;

$t->allow(qr/\[emerg\] .*(?:malloc|posix_memalign)\(\d.*\) failed \(12: /,
    qr/\[alert\] .*socket\(\) failed \(24: /,
    qr/\[alert\] .*setsockopt\((?:TCP_NODELAY|SO_KEEPALIVE)\) failed.* \(105: /,
    qr/\[alert\] .*ioctl\(FION(?:BIO|READ)\) failed \(9: /,
    qr/\[alert\] .*epoll_ctl\(.*\) failed \(28: /);

# questions of one connection, which they share an instance on

my %RCPT = (recipient => 'a@example.net');
my %SECOND = (recipient => 'b@example.net', size => 10);
my %DATA = (protocol_state => 'DATA', recipient => '', recipient_count => 3);
my %END = (%DATA, protocol_state => 'END-OF-MESSAGE', size => 5000);

my @SCRIPTS = (
    [ 'a recipient', \%RCPT ],
    [ 'two recipients, asked twice', \%RCPT, \%RCPT, \%SECOND ],
    [ 'all of a message', \%RCPT, \%SECOND, \%DATA, \%END ],
    [ 'the end alone', \%END ],
    [ 'a refused recipient', { recipient => 'a@no.example' }, \%RCPT, \%END ],
    [ 'too large', \%RCPT, { %END, size => 1 << 39 } ],
    [ 'a long one', { %RCPT, x => 'y' x 4000, z => 'y' x 4000 } ],
    [ 'addresses', { %RCPT, server_address => '2001:db8::1',
        server_port => 25, sender => '', sasl_username => 'a@example.com' } ],
    [ 'nothing to be asked', { protocol_state => 'CONNECT' } ],
    [ 'none', { request => 'x' } ],
);

my ($number, @problems) = (0);


# a connection's answers

sub session {
    my ($where, @questions) = @_;

    my $p = eval { MailPolicy::Policy->new($t, $where) } or return 'CLOSED';
    my @answers;
    my $sender = 's' . $number++ % 10 . '@example.com';

    for my $question (@questions) {
        my $answer = $p->ask(sender => $sender, sasl_username => 'try',
            %$question) || 'CLOSED';

        push @answers, $answer =~ s/, retry in \d+ s//r;
        last if $answer eq 'CLOSED';
    }

    $p->client()->close();
    return join('|', @answers);
}


sub descriptors { return scalar(() = glob("/proc/$_[0]/fd/*")) }


# as usual, or a deferral instead, up to a connection that is closed

sub judge {
    my ($what, $got, $normal) = @_;

    my @normal = split /\|/, $normal;

    for my $answer (split /\|/, $got) {
        my $expected = shift(@normal) // 'nothing';

        # a long text has to be made
        next if $answer eq $expected || $answer eq 'CLOSED'
            || $answer =~ /^DEFER_IF_PERMIT 4\.3\.0 [ -~]+\z/
            || $expected =~ /^REJECT 5\.7\.1 / && $answer =~ /^REJECT 5\.7\.1 /
            || $expected =~ /^REJECT 5\.3\.4 / && $answer =~ /^REJECT 5\.3\.4 /;

        push @problems, "$what: \"$answer\" instead of \"$expected\"";
    }
}


sub every {
    my ($fail, $nginx, $script, $kind, $error, $times, $step) = @_;

    my ($name, @questions) = @$script;
    my $where = $t->dir() . "/$nginx.sock";
    my $ready = $nginx eq 'remote' ? sub { wait_connected($t, $redis) }
        : sub { };
    my ($failures, $quiet) = (0, 0);

    $ready->();
    my $normal = session($where, @questions);

    for (my $k = 1; $quiet < 2 && @problems < 5; $k += $step) {
        $ready->();
        $fail->arm($kind, $k, $error, $times);
        my $got = session($where, @questions);
        my $failed = $fail->disarm();

        $failures += $failed;
        $quiet = $failed ? 0 : $quiet + 1;
        judge("$name, $kind $k", $got, $normal);

        if (!$fail->alive()) {
            push @problems, "$name, $kind $k: the worker is gone";
            last;
        }

        next if !$failed;

        $t->wait_for(sub { $ready->(); session($where, @questions) eq $normal },
            5) or push @problems, "$name, $kind $k: the next one differs";
    }

    return $failures;
}


for my $nginx ('local', 'remote') {
    my $fail = MailPolicy::FailAlloc->new($t, $nginx);
    my $pid = $fail->worker();
    my $where = $t->dir() . "/$nginx.sock";
    my $failures = 0;

    # what is made once, and what stays as long as it is of use
    for my $round (1 .. 3) {
        session($where, @$_[1 .. $#$_]) for @SCRIPTS;
    }

    my ($open, $live) = (descriptors($pid), $fail->live());
    my $step = $nginx eq 'remote' ? 2 : 1;

    for my $script (@SCRIPTS) {
        $failures += every($fail, $nginx, $script, 'alloc', ENOMEM, 1, $step);
        $failures += every($fail, $nginx, $script, 'alloc', ENOMEM, 1 << 30,
            $step);
    }

    for my $call ([ recv => ECONNRESET ], [ send => EPIPE ],
        [ epoll_ctl => ENOSPC ], [ getsockopt => ENOBUFS ],
        [ setsockopt => ENOBUFS ], [ ioctl => EBADF ],
        [ accept => ECONNABORTED ])
    {
        $failures += every($fail, $nginx, $SCRIPTS[2], @$call, 1, $step);
    }

    MailPolicy::none("RES-12 $nginx: $failures calls failed", @problems);
    @problems = ();
    cmp_ok($failures, '>', 300,
        'as many as there are');

    ok($t->wait_for(sub { descriptors($pid) <= $open }, 5),
        "$nginx: no descriptor is left") or diag("$open, "
        . descriptors($pid));
    session($where, @$_[1 .. $#$_]) for @SCRIPTS;
    $t->wait_for(sub { $fail->live() <= $live + 8 }, 2);
    cmp_ok($fail->live(), '<=', $live + 8, "$nginx: nor memory, of $live");
}

is_deeply([ grep { $redis->cmd('PTTL', $_) == -1 && /^mail:used/ }
    $redis->keys('*') ], [], 'no counter stays for ever');

$t->done();
