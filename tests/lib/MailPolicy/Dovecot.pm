package MailPolicy::Dovecot;

# A real Dovecot that does nothing but authenticate, on a socket in the
# directory of the test.
#
#     my $dovecot = MailPolicy::Dovecot->new(dir => $t->dir(),
#         users => { 'alice@example.com' => 'secret' },
#         fields => { 'alice@example.com' => 'senders=bob@example.com' });
#     ... "policy_auth dovecot:unix:" . $dovecot->socket()
#
# mechanisms => "plain ..."; delay => seconds before a FAIL (0); conf => more
# lines of its configuration.  Passwords are kept in clear, so that all
# mechanisms work.  Of EXTERNAL it believes any name.  Tokens are JWT, see
# token().

use strict;
use warnings;

use Digest::SHA qw(hmac_sha256);
use File::Path qw(make_path);
use IO::Socket::UNIX;
use MIME::Base64 qw(encode_base64);
use Time::HiRes qw(sleep time);

use MailPolicy::Process qw(children spawn stop_process wait_exit);

my $MECHANISMS = 'plain login cram-md5 scram-sha-256 xoauth2 oauthbearer'
    . ' external';
my $KEY = 'k' x 32;


sub new {
    my ($class, %option) = @_;

    my $self = bless {
        name => 'dovecot', mechanisms => $MECHANISMS, delay => 0,
        users => {}, fields => {}, conf => '', owner => $$, file => 1,
        left => [], %option,
    }, $class;

    $self->{home} = "$self->{dir}/$self->{name}";
    make_path(map { "$self->{home}/$_" }
        'run', 'state', 'keys/default/HS256');

    $self->_write('keys/default/HS256/default', encode_base64($KEY, ''));
    $self->_write('oauth2.conf', <<"EOF");
introspection_mode = local
local_validation_key_dict = fs:posix:prefix=$self->{home}/keys/
username_attribute = sub
EOF

    $self->_users();
    $self->_configure();
    $self->start();
    return $self;
}


sub socket { return "$_[0]{home}/auth" }
sub pid    { return $_[0]{pid} }


# Another password, in another file: not before start() is it in force, and
# then for new processes only.

sub set {
    my ($self, $login, $password) = @_;

    $self->{users}{$login} = $password;
    $self->{file}++;
    $self->_users();
    $self->_configure();
}


sub _users {
    my ($self) = @_;

    $self->_write("users$self->{file}", join('', map {
        "$_:{PLAIN}$self->{users}{$_}::::::" . ($self->{fields}{$_} // '')
            . "\n"
    } sort keys %{ $self->{users} }));
}


sub _configure {
    my ($self) = @_;

    my ($home, $user) = ($self->{home}, '');

    # all its processes are the caller's where that is not root
    if ($> != 0) {
        my ($name, $group) = (scalar getpwuid($>), scalar getgrgid($) + 0));
        $user = "default_internal_user = $name\n"
            . "default_login_user = $name\n"
            . "default_internal_group = $group\n";
    }

    $self->_write('conf', $user . <<"EOF");
base_dir = $home/run
state_dir = $home/state
log_path = $home/log
auth_debug = yes
auth_verbose = yes
auth_username_chars =
auth_failure_delay = $self->{delay} secs
auth_mechanisms = $self->{mechanisms}
auth_ssl_username_from_cert = yes
protocols =
ssl = no
passdb {
  driver = oauth2
  mechanisms = xoauth2 oauthbearer
  args = $home/oauth2.conf
}
passdb {
  driver = static
  mechanisms = external
  args = nopassword
}
passdb {
  driver = passwd-file
  mechanisms = plain login cram-md5 scram-sha-256
  args = scheme=PLAIN username_format=%u $home/users$self->{file}
}
userdb {
  driver = static
  args = uid=65534 gid=65534 home=/nonexistent
}
service auth {
  unix_listener $home/auth {
    mode = 0666
  }
}
service anvil {
  unix_listener anvil-auth-penalty {
    mode = 0
  }
}
$self->{conf}
EOF
}


sub _write {
    my ($self, $name, $text) = @_;

    my $file = "$self->{home}/$name";

    open(my $fh, '>:raw', $file) or die "$file: $!\n";
    print $fh $text;
    close($fh) or die "$file: $!\n";
}


sub start {
    my ($self) = @_;

    $self->{pid} = spawn("$self->{home}/out", 'dovecot', '-F', '-c',
        "$self->{home}/conf");

    my $end = time() + 20;

    until ($self->_answers()) {
        my $status = wait_exit($self->{pid}, 0.05);
        die "dovecot ended with status $status\n" . $self->output()
            if defined $status;
        die "dovecot does not answer\n" . $self->output() if time() > $end;
    }
}


sub _answers {
    my ($self) = @_;

    my $socket = IO::Socket::UNIX->new(Peer => $self->socket()) or return 0;
    my $in = '';

    # the greeting of version 2.4 comes after ours
    syswrite($socket, "VERSION\t1\t2\nCPID\t$$\n");

    while ($in !~ /^DONE\n/m) {
        my $vector = '';
        vec($vector, fileno($socket), 1) = 1;
        select($vector, undef, undef, 2) > 0 or return 0;
        sysread($socket, $in, 4096, length $in) or return 0;
    }

    return 1;
}


sub stop {
    my ($self) = @_;

    my $pid = delete $self->{pid} or return;
    return if $self->{owner} != $$;

    # who serves clients stays until they are gone
    my @children = children($pid);
    push @{ $self->{left} }, @children;

    CORE::kill('CONT', @children, $pid);
    stop_process($pid, 'TERM', 10);
    unlink($self->socket());
}


sub DESTROY { $_[0]->stop() }


# all of it, as it would crash

sub kill {
    my ($self) = @_;

    my $pid = delete $self->{pid} or return;

    # the master first, or it would start others
    my @children = children($pid);
    CORE::kill('KILL', $pid, @children, grep { is_ours($_) }
        splice @{ $self->{left} });
    wait_exit($pid, 5);
    unlink($self->socket(), "$self->{home}/run/master.pid");
}


sub is_ours {
    my ($pid) = @_;

    open(my $fh, '<', "/proc/$pid/cmdline") or return 0;
    return (<$fh> // '') =~ /^dovecot\/auth/;
}


# STOP and CONT make it hang and come back

sub signal {
    my ($self, $signal) = @_;

    CORE::kill($signal, $self->{pid}, children($self->{pid}));
}


sub log    { return $_[0]->_slurp('log') }
sub output { return $_[0]->_slurp('out') . $_[0]->_slurp('log') }

sub _slurp {
    my ($self, $name) = @_;

    open(my $fh, '<:raw', "$self->{home}/$name") or return '';
    local $/;
    return <$fh> // '';
}


# how many requests it was sent that begin with this word: AUTH, CONT, CANCEL

sub requests {
    my ($self, $word) = @_;

    $word = $word eq 'CANCEL' ? "CANCEL\t" : $word;
    return scalar(() = $self->log() =~ /client in: $word/g);
}


# a token of a login; key => another one, expired => 1

sub token {
    my ($self, $login, %option) = @_;

    my $now = time();
    my $claims = sprintf('{"sub":"%s","iss":"https://example.com",'
        . '"iat":%d,"exp":%d}', $login, $now - 60,
        $option{expired} ? $now - 30 : $now + 600);
    my $signed = _url('{"alg":"HS256","typ":"JWT"}') . '.' . _url($claims);

    return "$signed." . _url(hmac_sha256($signed, $option{key} // $KEY));
}


sub _url {
    my ($octets) = @_;

    my $text = encode_base64($octets, '');
    $text =~ tr{+/}{-_};
    $text =~ s/=+\z//;
    return $text;
}


1;
