#!/usr/bin/perl

# "policy_socket_mode": who may connect to the sockets of "protocol policy",
# from the moment on at which they listen, over reload and a new binary; and
# what nginx does when a socket is not there any more, or cannot be changed
# (OUT-7).

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use IO::Socket::UNIX;
use POSIX ();
use Test::More;
use Time::HiRes qw(sleep);

use MailPolicy;
use MailPolicy::FailAlloc;
use MailPolicy::Policy;
use MailPolicy::Process qw(spawn wait_exit);

plan(skip_all => 'only root may give sockets away') if $>;

my $t = MailPolicy->new();
my $dir = $t->dir();
chmod(0755, $dir);

my ($USER, $GROUP) = (scalar getpwnam('daemon'), scalar getgrnam('mail'));
plan(skip_all => 'no user "daemon", or group "mail"')
    unless defined $USER && defined $GROUP;

# a: as the server says, b: as mail{} says

sub conf {
    my ($mode, $more) = @_;

    return <<"EOF";
mail {
    policy_limit        sender  key=\$sender  messages=100/1h;
    policy_socket_mode  0600;

    server {
        listen              unix:$dir/a.sock;
        listen              unix:$dir/a2.sock;
        listen              127.0.0.1:%%PORT_a%%;
        protocol            policy;
        policy_socket_mode  $mode;
    }

    server {
        listen    unix:$dir/b.sock;
        protocol  policy;
    }

    @{[ $more // '' ]}
}
EOF
}

sub server { return "server { listen unix:$dir/$_[0]; protocol policy; }" }

sub is_mode {
    my ($what, $name, $expected) = @_;

    local $Test::Builder::Level = $Test::Builder::Level + 1;

    my @stat = lstat("$dir/$name");
    my $found = @stat ? sprintf('%04o %s %s', $stat[2] & 07777,
        scalar getpwuid($stat[4]), scalar getgrgid($stat[5])) : 'none';

    is($found, $expected, "$what: $name");
}

# 1 if somebody of these ids is connected

sub may_connect {
    my ($name, $user, $group) = @_;

    my $pid = fork() // die "fork: $!\n";

    if ($pid == 0) {
        $) = "$group $group";
        POSIX::setgid($group);
        POSIX::setuid($user);
        POSIX::_exit(IO::Socket::UNIX->new(Peer => "$dir/$name") ? 0 : 1);
    }

    waitpid($pid, 0);
    return $? == 0 ? 1 : 0;
}

sub answers {
    my ($name) = @_;
    return MailPolicy::Policy->new($t, "$dir/$name")->ask();
}

# nginx with tests/lib/MailPolicy/Listen.c in it

my $library = "$dir/Listen.so";
my $compiled = wait_exit(spawn("$dir/gcc.out", 'gcc', '-O1', '-Wall',
    '-shared', '-fPIC', '-o', $library,
    "$FindBin::Bin/../tests/lib/MailPolicy/Listen.c", '-ldl'), 60);
my $impossible = MailPolicy::FailAlloc::impossible($t)
    // ($compiled ? 'Listen.c cannot be compiled' : undef);


# a start, and who comes too early

{
    local $ENV{LD_PRELOAD} = $library if !$impossible;
    local $ENV{MAIL_POLICY_EARLY} = "$dir/early";

    $t->conf(conf('0660 user=daemon group=mail'));
    $t->run_nginx();
}

SKIP: {
    skip($impossible, 2) if $impossible;

    ok($t->wait_for(sub { $t->read_file("$dir/early") =~
        /^connected\n(?:end|Connection reset by peer)\n$/ }),
        'OUT-7 who connects before the mode is set is sent away')
        or diag($t->read_file("$dir/early"));
    like($t->error_log(), qr/\[notice\] .*"policy_socket_mode": a client that(?#
        ) came to "unix:\S+" before the mode was set is sent away/, 'noted');
}

is_mode('start', $_, '0660 daemon mail') for 'a.sock', 'a2.sock';
is_mode('start', 'b.sock', '0600 root root');
is(answers($_), 'DUNNO', "$_ answers") for 'a.sock', 'a2.sock', 'b.sock';

is(may_connect('a.sock', $USER, 65534), 1, 'the user');
is(may_connect('a.sock', 65534, $GROUP), 1, 'the group');
is(may_connect('a.sock', 65534, 65534), 0, 'and nobody else');
is(may_connect('b.sock', $USER, $GROUP), 0, 'another socket: nobody');

# a test changes nothing

my ($passed) = $t->check_conf(conf('0666 user=root group=root'));
ok($passed, 'nginx -t');
is_mode('nginx -t', 'a.sock', '0660 daemon mail');
is(answers('a.sock'), 'DUNNO', 'nginx -t: it answers');


# a reload, with a socket more

my $p = MailPolicy::Policy->new($t, "$dir/a.sock");

$t->conf(conf('0606 group=mail', server('c.sock')));
ok($t->reload(), 'reload');
is_mode('reload', 'a.sock', '0606 daemon mail');
is_mode('reload', 'c.sock', '0600 root root');
is(may_connect('a.sock', 65534, $GROUP), 0, 'reload: not the group');
is(may_connect('a.sock', 65534, 65534), 1, 'reload: but others');
is(answers($_), 'DUNNO', "reload: $_ answers") for 'a.sock', 'c.sock';

# without the directive it stays

$t->conf(conf('0606 group=mail', server('c.sock'))
    =~ s/policy_socket_mode  0600;//r);
ok($t->reload(), 'reload without it');
is_mode('without it', 'b.sock', '0600 root root');


# what is not a socket is left alone, and nginx works on

$t->write_file('victim', 'x');
chmod(0600, "$dir/victim");
unlink("$dir/a.sock", "$dir/a2.sock", "$dir/b.sock");
symlink('victim', "$dir/a.sock") or die "symlink: $!\n";
$t->write_file('b.sock', 'x');
chmod(0640, "$dir/b.sock");

$t->conf(conf('0660 user=daemon', server('c.sock')));
$t->instance()->signal('HUP');
ok($t->wait_for(sub { 3 == (() = $t->error_log() =~
    /"policy_socket_mode": .* failed/g) }), 'sockets that are gone: logged');
like($t->error_log(), $_, 'what is wrong') for
    qr/\[emerg\] .*policy_socket_mode": it is no socket: "\S+a\.sock" failed/,
    qr/policy_socket_mode": it is no socket: "\S+b\.sock" failed/,
    qr/policy_socket_mode": lstat\(\) "\S+a2\.sock" failed, in \S+:\d+ \(2: /;
is_mode('gone', 'victim', '0600 root root');
is_mode('gone', 'b.sock', '0640 root root');
is(answers('c.sock'), 'DUNNO', 'nginx works on');
is(MailPolicy::Policy->new($t, 'a')->ask(), 'DUNNO', 'in all its servers');

$t->stop();
unlink(map { "$dir/$_" } 'a.sock', 'a2.sock', 'b.sock', 'c.sock');
unlink("$dir/error.log");


# another binary, which inherits them: of a daemon

my $daemon = $t->instance('daemon');
my $of = $daemon->{pid_file};

sub daemon_conf {
    my $file = $t->conf('daemon', conf($_[0]));
    $t->write_file($file, $t->read_file($file) =~ s/daemon off/daemon on/r);
}

sub daemon_pid {
    my ($file) = @_;

    my $pid;
    $t->wait_for(sub { ($pid) = $t->read_file($file) =~ /^(\d+)$/m
        if -e $file; $pid });
    return $pid;
}

my ($binary, @arguments) = $daemon->command();

# it is executed as it was called
($binary) = grep { -x } map { "$_/$binary" } split /:/, $ENV{PATH}
    if $binary !~ m{/};

daemon_conf('0660 user=daemon group=mail');
wait_exit(spawn($daemon->{output}, $binary, @arguments), 20);

my $first = daemon_pid($of);
is_mode('a daemon', 'a.sock', '0660 daemon mail');

daemon_conf('0620 group=mail');
kill('USR2', $first);
ok($t->wait_for(sub { -e "$of.oldbin" }), 'another binary');

my $second = daemon_pid($of);
ok($t->wait_for(sub { (lstat("$dir/a.sock"))[2] % 01000 == 0620 }),
    'another binary: the mode is set');
is_mode('another binary', 'a.sock', '0620 daemon mail');
kill('QUIT', $first);
ok($t->wait_for(sub { !-e "$of.oldbin" }), 'the first one goes');
is(answers('a.sock'), 'DUNNO', 'the other one answers');
kill('QUIT', $second);
ok($t->wait_for(sub { !-e $of }), 'and goes');
is_mode('stopped', 'a.sock', 'none');
unlike($daemon->error_log(), qr/\[(?:alert|emerg|crit)\]/, 'quietly');


# nginx does not start with a socket that it cannot give away

SKIP: {
    skip($impossible, 3) if $impossible;

    local $ENV{LD_PRELOAD} = $library;
    local $ENV{MAIL_POLICY_LCHOWN} = 1;

    $t->allow(qr/"policy_socket_mode": chown\(\)/);
    $t->conf(conf('0660 user=daemon'));
    ok(!eval { $t->run_nginx(); 1 }, 'lchown() fails: no start');
    like($t->error_log(), qr/\[emerg\] .*"policy_socket_mode": chown\(\) (?#
        )"\S+a\.sock" failed, in \S+:\d+ \(1: /, 'and why');
    is_mode('lchown() fails', 'a.sock', 'none');
    unlink(map { "$dir/$_" } 'a2.sock', 'b.sock');
}

$t->conf(conf('0660 user=daemon'));
$t->run_nginx();
is_mode('the next start', 'a.sock', '0660 daemon root');

$t->done();
