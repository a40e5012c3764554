package MailPolicy;

# What every t/*.t begins with: a directory, free ports, a real nginx with
# the module, a real redis-server, scripted relays and SMTP clients; and at
# the end the questions that every file asks.
#
#     use MailPolicy;
#     use Test::More;
#
#     my $t = MailPolicy->new();
#     my $relay = $t->run_relay(name => 'a');
#
#     $t->conf(<<'EOF');
#     mail {
#         server {
#             listen      127.0.0.1:%%PORT_smtp%%;
#             protocol    smtp;
#             policy      on;
#             proxy_pass  127.0.0.1:%%PORT_a%%;
#             access_log  %%DIR%%/access.log json;
#         }
#     }
#     EOF
#     $t->run_nginx();
#
#     my $c = $t->client('smtp');
#     like($c->greeting, qr/^220 /, 'greeting');
#     ...
#     $t->done();
#
# A configuration gets "daemon off", pid, error_log, events{} and the modules
# in front; what it says itself of worker_processes, events, user, error_log
# is left as it is.  Where it has "policy on" and no policy_received, that is
# off: what relays get is compared with what was sent.  Where it has no
# policy_auth_delay, logins that fail are answered at once.
#
#     %%DIR%%          the test's directory
#     %%PORT_name%%    a free port, the same as $t->port('name')
#     %%GLOBALS%%      the load_module lines, where they are to stand
#                      elsewhere than at the top
#
# Environment: TEST_NGINX_BINARY (nginx), TEST_NGINX_GLOBALS (the load_module
# lines; may be empty), TEST_NGINX_LEAVE (keeps the directory),
# TEST_NGINX_TIMEOUT (seconds that a test file may take, 180).

use strict;
use warnings;

use Cwd qw(abs_path);
use File::Basename qw(dirname);
use File::Temp ();
use JSON::PP ();
use Test::More ();
use Time::HiRes qw(sleep time);

use MailPolicy::Client;
use MailPolicy::Http;
use MailPolicy::Nginx;
use MailPolicy::Port qw(free_port);
use MailPolicy::Redis;
use MailPolicy::Relay;
use MailPolicy::Secrets ();

my $ROOT = abs_path(dirname(__FILE__) . '/../..');
my @TESTS;


sub new {
    my ($class, %option) = @_;

    my $dir = File::Temp::tempdir('mail-policy-XXXXXXXX', TMPDIR => 1);

    # workers are not root
    chmod(0755, $dir);

    my $self = bless {
        dir       => $dir,
        ports     => {},
        instances => {},
        servers   => [],
        clients   => [],
        records   => [],
        allowed   => [],
        owner     => $$,
        binary    => $ENV{TEST_NGINX_BINARY} || 'nginx',
        %option,
    }, $class;

    push @TESTS, $self;

    $SIG{PIPE} = 'IGNORE';
    $SIG{$_} = sub { exit(1) } for qw(HUP INT TERM);
    $SIG{ALRM} = sub { die "the test takes too long\n" };
    alarm($ENV{TEST_NGINX_TIMEOUT} || 180);

    # workers have given up root, so that the search for leaks cannot run
    $ENV{ASAN_OPTIONS} //= 'detect_leaks=0';
    $ENV{UBSAN_OPTIONS} //= 'print_stacktrace=1';

    return $self;
}


sub dir  { return $_[0]{dir} }
sub root { return $ROOT }


sub port {
    my ($self, $name) = @_;

    return $self->{ports}{$name} //= free_port();
}


sub write_file {
    my ($self, $name, $text) = @_;

    my $file = $name =~ m{^/} ? $name : "$self->{dir}/$name";

    open(my $fh, '>:raw', $file) or die "$file: $!\n";
    print $fh $text;
    close($fh) or die "$file: $!\n";
    return $file;
}


sub read_file {
    my ($self, $name) = @_;

    return MailPolicy::Nginx::slurp($name =~ m{^/} ? $name
                                                   : "$self->{dir}/$name");
}


# nginx


# conf(text) writes nginx.conf; conf(name, text) that of another instance

sub conf {
    my $self = shift;
    my $text = pop;
    my $nginx = $self->instance(shift);

    return $self->write_file($nginx->{conf}, $self->_complete($nginx, $text));
}


sub globals {
    return $ENV{TEST_NGINX_GLOBALS} if defined $ENV{TEST_NGINX_GLOBALS};

    return "load_module /usr/lib/nginx/modules/ngx_mail_module.so;\n"
        . "load_module $ROOT/build/module/ngx_mail_policy_module.so;\n";
}


sub _complete {
    my ($self, $nginx, $text) = @_;

    my $globals = $self->{globals} // globals();
    my $head = '';

    $head .= $globals unless $text =~ /%%GLOBALS%%/;
    $head .= "daemon off;\npid $nginx->{pid_file};\n";
    $head .= "error_log $nginx->{log} debug;\n"
        unless $text =~ /^error_log\s/m;
    $head .= "worker_processes 1;\n" unless $text =~ /^worker_processes\s/m;
    $head .= "events { worker_connections 1024; }\n"
        unless $text =~ /^events\s/m;

    # what http{} would otherwise create in directories of the system
    my $paths = join('', map { "    ${_}_temp_path $self->{dir}/$_;\n" }
        qw(client_body proxy fastcgi uwsgi scgi));
    $text =~ s/^(\s*http\s*\{)$/$1\n$paths    access_log off;/m;

    $text =~ s/^(\s*mail\s*\{)/$1\n    policy_received off;/m
        if $text =~ /\bpolicy\s+on;/ && $text !~ /\bpolicy_received\b/;
    $text =~ s/^(\s*mail\s*\{)/$1\n    policy_auth_delay 0;/m
        if $text =~ /\bpolicy\s+on;/ && $text !~ /\bpolicy_auth_delay\b/;

    $text = $head . $text;
    $text =~ s/%%GLOBALS%%/$globals/g;
    $text =~ s/%%DIR%%/$self->{dir}/g;
    $text =~ s/%%PORT_(\w+)%%/$self->port($1)/ge;

    die "unknown word $1 in the configuration\n" if $text =~ /(%%\w*%%)/;
    return $text;
}


# further ones share directory, ports and modules

sub instance {
    my ($self, $name) = @_;

    $name //= 'nginx';

    return $self->{instances}{$name} //= MailPolicy::Nginx->new(
        name => $name, dir => $self->{dir}, binary => $self->{binary});
}


sub run_nginx {
    my ($self, $name) = @_;

    return $self->instance($name)->start();
}


sub reload      { return $_[0]->instance($_[1])->reload() }
sub worker_pids { return $_[0]->instance($_[1])->worker_pids() }
sub error_log   { return $_[0]->instance($_[1])->error_log() }


# stops one, which must be graceful: its clients should be gone

sub stop { return $_[0]->instance($_[1])->stop() }


# what "nginx -t" says to a configuration: (good or not, output)

sub check_conf {
    my ($self, $text) = @_;

    my $nginx = MailPolicy::Nginx->new(name => 'check', dir => $self->{dir},
        binary => $self->{binary});

    $self->write_file($nginx->{conf}, $self->_complete($nginx, $text));
    return $nginx->check();
}


# an access log in JSON, decoded

sub access_log {
    my ($self, $name) = @_;

    my $json = JSON::PP->new()->utf8();

    # the last line may be only half written
    return map { $json->decode($_) }
        $self->read_file($name // 'access.log') =~ /^(.*)\n/mg;
}


# other servers and clients


sub run_redis {
    my ($self, @args) = @_;

    # $t->run_redis(name => 'b', args => [ ... ]), or arguments as they are
    my %option = @args && $args[0] =~ /^-/ ? (args => \@args) : @args;
    my $name = $option{name} // 'redis';

    my $redis = MailPolicy::Redis->new(dir => $self->{dir},
        port => $self->port($name), %option, name => $name);

    push @{ $self->{servers} }, $redis;
    return $redis;
}


sub run_relay {
    my ($self, %option) = @_;

    my $name = $option{name} //= 'relay';

    $option{port} //= $self->port($name);

    my $relay = MailPolicy::Relay->new(dir => $self->{dir}, %option);

    push @{ $self->{servers} }, $relay;
    return $relay;
}


# $t->run_http(name => 'auth', sub { ... })

sub run_http {
    my $self = shift;
    my $handler = pop;
    my %option = @_;
    my $name = $option{name} // 'http';

    my $http = MailPolicy::Http->new(dir => $self->{dir}, name => $name,
        port => $option{port} // $self->port($name), handler => $handler);

    push @{ $self->{servers} }, $http;
    return $http;
}


# A connected client; nothing is read yet.  $where is a port's name or its
# number.  With MailPolicy->new(record => 1) all clients are recorded, for
# MailPolicy::Trace.

sub client {
    my ($self, $where, %option) = @_;

    if (defined $where) {
        $option{port} = $where =~ /^\d+$/ ? $where : $self->port($where);
    }

    my $client = MailPolicy::Client->new(
        record => $self->{record}, %option);

    push @{ $self->{clients} }, $client;
    push @{ $self->{records} }, $client->record() if $client->record();
    return $client;
}


# a client that has said EHLO, as helo says; where may be a port's name; proxy
# is its address, for a server that takes the PROXY protocol's word for that

sub session {
    my ($self, $where, %option) = @_;

    my $helo = delete $option{helo};
    my $address = delete $option{proxy};
    my $client = $self->client($where, %option);

    $client->send_raw("PROXY TCP4 $address 198.51.100.1 40000 25\r\n")
        if defined $address;
    $client->greeting();
    $client->ehlo($helo);
    return $client;
}


# what curl gets from http{}; options are curl's

sub http_get {
    my ($self, $port, $path, @options) = @_;

    open(my $fh, '-|', 'curl', '-s', '--max-time', '5', @options,
        'http://127.0.0.1:' . $self->port($port) . $path)
        or die "curl: $!\n";

    local $/;
    return scalar <$fh>;
}


# what was recorded, of all clients so far

sub records { return @{ $_[0]{records} } }


sub disconnect {
    my ($self) = @_;

    $_->close() for splice @{ $self->{clients} };
}


# tools


# true as soon as the code returns true, false after the timeout

sub wait_for {
    my ($self, $code, $timeout) = @_;

    my $end = time() + ($timeout // 10);

    while (1) {
        my $result = $code->();
        return $result if $result || time() >= $end;
        sleep(0.02);
    }
}


sub crypt {
    my ($self, $password, $salt) = @_;

    my $hash = CORE::crypt($password, $salt // '$6$mailpolicytest$');

    die "crypt() does not know this salt\n"
        if !defined $hash || $hash =~ /^\*/;

    $self->secret($password, $hash);
    return $hash;
}


# what is to be in no log, in no form; passwords that clients say are so
# anyhow, see MailPolicy::Secrets

sub secret {
    my ($self, @secrets) = @_;

    MailPolicy::Secrets::remember(@secrets);
}


# A certificate signed by itself: (file of the certificate, file of the key),
# %%DIR%%/name.crt and .key

sub certificate {
    my ($self, $name, @hosts) = @_;

    $name //= 'localhost';
    @hosts = ($name, 'localhost') unless @hosts;

    my $file = "$self->{dir}/$name";
    my $hosts = join(',', map { "DNS:$_" } @hosts);

    my $pid = MailPolicy::Process::spawn("$file.openssl", 'openssl', 'req',
        '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256',
        '-nodes', '-days', '2', '-subj', "/CN=$hosts[0]",
        '-addext', "subjectAltName=$hosts,IP:127.0.0.1",
        '-keyout', "$file.key", '-out', "$file.crt");

    my $status = MailPolicy::Process::wait_exit($pid, 20);

    die 'openssl: ' . $self->read_file("$file.openssl")
        if !defined $status || $status != 0;
    return ("$file.crt", "$file.key");
}


# the end


# lines of error.log that this test provokes: not counted as alerts

sub allow {
    my ($self, @patterns) = @_;

    push @{ $self->{allowed} }, @patterns;
}


# Stops everything, asks what every test file asks, and ends the test.
# faults => 0: relays were meant to be treated badly.

sub done {
    my ($self, %option) = @_;

    local $Test::Builder::Level = $Test::Builder::Level + 1;

    $self->disconnect();

    $self->_check_nginx($_) for map { $self->{instances}{$_} }
        sort keys %{ $self->{instances} };

    $self->_check_secrets();
    $self->_check_relays() unless exists $option{faults} && !$option{faults};

    $self->{passed} = Test::More->builder->is_passing();
    $self->_clean_up();
    Test::More::done_testing();
}


sub _check_nginx {
    my ($self, $nginx) = @_;

    my $name = $nginx->name();
    my $was_started = $nginx->{pid} || defined $nginx->{status}
        || $nginx->{killed};

    return unless $was_started;

    my $status = $nginx->stop();

    Test::More::is($status, 0, "$name: shut down gracefully");

    my $log = $nginx->error_log() . $self->read_file($nginx->{output});
    my $allowed = $self->{allowed};
    my @lines = grep {
        my $line = $_;
        !grep { $line =~ $_ } @$allowed;
    } split /\n/, $log;

    for my $level (qw(alert emerg crit)) {
        none("$name: no [$level]", grep { /\[$level\]/ } @lines);
    }

    none("$name: no sanitizer report",
        grep { /Sanitizer|runtime error:/ } @lines);
    none("$name: nothing left open or leaked",
        grep { /open socket #?\d* ?left|leaked/ } @lines);
}


# all that the configurations have nginx write, and what it says at its start

sub _check_secrets {
    my ($self) = @_;

    my @nginx = values %{ $self->{instances} };
    my %files = map { $_ => 1 } map { @$_{qw(log output)} } @nginx;

    for my $nginx (@nginx) {
        my $conf = $self->read_file($nginx->{conf});
        $files{$_} = 1 for $conf =~ /^\s*(?:access|error)_log\s+(\/[^\s;]+)/mg;
    }

    none('no secret in any log', map {
        my $file = $_;
        map { "$file: $_" } MailPolicy::Secrets::leaks($file);
    } sort keys %files);
}


sub none {
    my ($name, @found) = @_;

    Test::More::ok(!@found, $name) and return;

    splice(@found, 10) if @found > 10;
    Test::More::diag("  $_") for @found;
}


sub _check_relays {
    my ($self) = @_;

    for my $relay (grep { $_->isa('MailPolicy::Relay') }
                   @{ $self->{servers} })
    {
        none('relay ' . $relay->name() . ': was spoken to correctly',
            $relay->faults());
    }
}


sub _clean_up {
    my ($self) = @_;

    return if $self->{owner} != $$ || $self->{cleaned}++;

    $self->disconnect();
    $_->kill_now() for values %{ $self->{instances} };
    $_->stop() for @{ $self->{servers} };

    if ($ENV{TEST_NGINX_LEAVE}) {
        Test::More::diag("left: $self->{dir}");
        return;
    }

    require File::Path;
    File::Path::remove_tree($self->{dir});
}


# a test that died

END {
    my $status = $?;

    for my $test (@TESTS) {
        next if $test->{owner} != $$ || $test->{cleaned};

        alarm(0);
        $test->_last_words();
        $test->_clean_up();
    }

    $? = $status;
}


sub _last_words {
    my ($self) = @_;

    for my $nginx (values %{ $self->{instances} }) {
        my $words = $nginx->last_words();
        Test::More::diag($nginx->name() . ":\n$words") if $words ne '';
    }
}


1;
