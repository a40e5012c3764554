#!/usr/bin/perl

# policies/mail-policy-password: entries of each scheme log in, from a file and
# from Redis, by the mechanisms that it says; and what it refuses.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use POSIX ();
use Test::More;

use MailPolicy;
use MailPolicy::Sasl;

my $t = MailPolicy->new();
my $relay = $t->run_relay(name => 'relay');
my $redis = $t->run_redis();
my $command = $t->root() . '/policies/mail-policy-password';
my $password = "canary 'p\xc3\xa4\$\$w\`x\\rd\" %s";

my %mechanisms = (
    yescrypt        => [ qw(PLAIN LOGIN) ],
    sha512          => [ qw(PLAIN LOGIN) ],
    bcrypt          => [ qw(PLAIN LOGIN) ],
    'scram-sha-256' => [ qw(PLAIN LOGIN SCRAM-SHA-256) ],
    plain           => [ qw(PLAIN LOGIN SCRAM-SHA-256 CRAM-MD5) ],
);

# entries of each scheme, and of the default one

my $file = '';

for my $scheme (sort keys %mechanisms) {
    my ($line) = good($password, '--scheme', $scheme, '--file', '--login',
        "$scheme\@example.com");

    like($line, qr/\A\Q$scheme\E\@example\.com:[\$\{][!-\xff ]+\n\z/,
        "$scheme: a line");
    $file .= $line;

    # through a shell, as people use it
    my ($shell) = good($password, '--scheme', $scheme, '--redis', '--login',
        "it's {$scheme}\@example.com");

    like($shell, qr/\Aredis-cli HSET 'mail:user:\{it'\\''s%20%7B/,
        "$scheme: a command");

    $shell =~ s/^redis-cli/'redis-cli -p ' . $t->port('redis')/e;
    $t->write_file('command.sh', $shell);
    is(`sh '@{[ $t->dir() ]}/command.sh'`, "1\n", "$scheme: that Redis takes");
}

my ($default) = good($password);
like($default, qr/\A\$(y|6)\$/, 'the default is one of crypt(3)');
my ($other) = good($password);
isnt($default, $other, 'with a salt of its own');
($other) = good("$password\r\n");
chomp($default, $other);
is(verify($other, $password), 0, 'the end of the line is no part of it');

$t->write_file('users', $file);
$t->conf(<<'EOF');
mail {
    policy_redis           redis://127.0.0.1:%%PORT_redis%% timeout=2s;
    policy                 on;
    policy_auth_plaintext  on;
    policy_auth_methods    plain login cram-md5 scram-sha-256;
    proxy_pass             127.0.0.1:%%PORT_relay%%;

    server {
        listen       127.0.0.1:%%PORT_file%%;
        protocol     smtp;
        policy_auth  file:%%DIR%%/users;
    }

    server {
        listen       127.0.0.1:%%PORT_records%%;
        protocol     smtp;
        policy_auth  redis;
    }
}
EOF
$t->run_nginx();

for my $scheme (sort keys %mechanisms) {
    my %can = map { $_ => 1 } @{ $mechanisms{$scheme} };

    for my $mechanism (qw(PLAIN LOGIN SCRAM-SHA-256 CRAM-MD5)) {
        my $code = $can{$mechanism} ? 235 : 535;

        is(login('file', $mechanism, "$scheme\@example.com", $password),
            $code, "$scheme, file: $mechanism");
        is(login('records', $mechanism, "it's {$scheme}\@example.com",
            $password), $code, "$scheme, Redis: $mechanism");
        is(login('file', $mechanism, "$scheme\@example.com", "$password "),
            535, "$scheme: $mechanism, wrong");
    }
}

# --verify

for my $line (split /\n/, $file) {
    my ($login, $hash) = $line =~ /\A(.*?):(.*)\z/;

    is(verify($hash, $password), 0, "verify $login: right");
    is(verify($hash, "$password "), 1, "verify $login: wrong");
    is(verify($hash, ''), 1, "verify $login: empty");
}

is(verify('$5$somesalt$' . ($t->crypt('canary', '$5$somesalt$')
    =~ s/.*\$//r), 'canary'), 0, 'verify: a hash of another');
is(verify('$1$somesalt$x', 'canary'), 2, 'verify: one that is not known');

# costs

like((good($password, qw(--scheme bcrypt --cost 5)))[0], qr/\A\$2b\$05\$/,
    'a cost of bcrypt');
like((good($password, qw(--scheme sha512 --cost 1000)))[0],
    qr/\A\$6\$rounds=1000\$/, 'rounds of sha512');
like((good($password, qw(--scheme scram-sha-256 --cost 4096)))[0],
    qr/\A\{SCRAM-SHA-256\}4096,/, 'iterations of SCRAM');
like((good($password, qw(--redis --login a --prefix x:)))[0],
    qr/\Aredis-cli HSET 'x:user:\{a\}' /, 'a prefix of keys');

# what is refused, and says nothing of the password

for my $case (
    [ qr/a password is never one/, $password, 'secret' ],
    [ qr/unknown scheme "md5"/, $password, qw(--scheme md5) ],
    [ qr/no input/, '' ],
    [ qr/an empty password/, "\n" ],
    [ qr/has 72 octets at most/, 'x' x 73, qw(--scheme bcrypt) ],
    [ qr/has 511 octets at most/, 'x' x 512, qw(--scheme sha512) ],
    [ qr/no control characters, and is UTF-8/, "canary\x01" ],
    [ qr/no control characters, and is UTF-8/, "canary\xff" ],
    [ qr/a \{PLAIN\} password has no ":"/, 'canary:x',
        qw(--scheme plain --file --login a) ],
    [ qr/need --login/, $password, '--file' ],
    [ qr/need --login/, $password, '--redis' ],
    [ qr/--login needs --file or --redis/, $password, qw(--login a) ],
    [ qr/exclude each other/, $password, qw(--file --redis --login a) ],
    [ qr/a login has no ":"/, $password, qw(--file --login a:b) ],
    [ qr/a login has no ":"/, $password, qw(--file --login), '#a' ],
    map([ qr/a login has 1 to 255 octets/, $password, '--file', '--login',
        $_ ], '', ' a', "a\nb", "\xff", 'x' x 256),
    [ qr/the cost of "bcrypt" is 4 to 16/, $password,
        qw(--scheme bcrypt --cost 17) ],
    [ qr/the cost of "scram-sha-256" is 4096 to/, $password,
        qw(--scheme scram-sha-256 --cost 4095) ],
    [ qr/"yescrypt" has no --cost/, $password,
        qw(--scheme yescrypt --cost 9) ],
    [ qr/Unknown option: password/, $password, '--password', 'x' ],
    [ qr/--verify takes no other options/, $password,
        qw(--verify --scheme bcrypt) ],
) {
    my ($message, $input, @arguments) = @$case;
    my ($output, $errors, $status) = run($input, @arguments);

    is($status, 2, "refused: $message");
    like($errors, $message, 'says why');
    is($output, '', 'and nothing else');
    unlike($errors, qr/canary|x{72}/, 'not what was given');
}

# a terminal, which must not show it

SKIP: {
    skip('no python3', 4) if system('python3 -c "import pty" 2>/dev/null');

    my $seen = terminal('canary-typed', 'canary-typed');

    like($seen, qr/Password: .*Once more: .*\$(y|6)\$/s, 'asked twice');
    unlike($seen, qr/canary/, 'without echo');
    like(terminal('canary-typed', 'canary-tipped'), qr/two different ones/,
        'two that differ');
    unlike(terminal('canary-typed', 'canary-tipped'), qr/\$(y|6)\$/,
        'make no hash');
}

$t->done();


sub login {
    my ($port, $mechanism, $login, $secret) = @_;

    my $sasl = MailPolicy::Sasl->new($mechanism, user => $login,
        password => $secret);
    return substr($sasl->login($t->session($port)), 0, 3);
}


# (output, errors, status)

sub run {
    my ($input, @arguments) = @_;

    $t->write_file('input', $input);

    my $dir = $t->dir();
    my $pid = fork() // die "fork: $!\n";

    if ($pid == 0) {
        open(STDIN, '<', "$dir/input");
        open(STDOUT, '>', "$dir/output");
        open(STDERR, '>', "$dir/errors");
        exec($^X, $command, @arguments) or POSIX::_exit(127);
    }

    waitpid($pid, 0);
    return ($t->read_file('output'), $t->read_file('errors'), $? >> 8);
}


sub good {
    my ($input, @arguments) = @_;

    local $Test::Builder::Level = $Test::Builder::Level + 1;

    my ($output, $errors, $status) = run("$input\n", @arguments);

    is("$status$errors", '0', "runs: @arguments");
    return $output;
}


sub verify {
    my ($hash, $secret) = @_;

    return (run("$hash\n$secret\n", '--verify'))[2];
}


# what a terminal shows, on which these lines are typed when it asks

sub terminal {
    my @lines = @_;

    $t->write_file('terminal.py', <<'EOF');
import os, pty, select, sys
pid, fd = pty.fork()
if pid == 0:
    os.execv(sys.argv[1], sys.argv[1:2])
seen, lines = b"", sys.argv[2:]
while True:
    if not select.select([fd], [], [], 20)[0]:
        break
    try:
        data = os.read(fd, 4096)
    except OSError:
        break
    if not data:
        break
    seen += data
    if lines and seen.endswith(b": "):
        os.write(fd, lines.pop(0).encode() + b"\n")
os.waitpid(pid, 0)
sys.stdout.buffer.write(seen)
EOF

    open(my $fh, '-|', 'python3', $t->dir() . '/terminal.py', $command, @lines)
        or die "python3: $!\n";
    local $/;
    return scalar <$fh>;
}
