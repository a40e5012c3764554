package MailPolicy::Programs;

# SMTP clients that others wrote, as they are installed: swaks, curl, msmtp,
# Python's smtplib, Postfix' smtp-source, gsasl.  A job is told to them in the
# same words, each of them sends one message; certificates are verified.
#
#     my $programs = MailPolicy::Programs->new($t);
#     my ($code, $output) = $programs->send('curl', { mode => 'starttls',
#         port => $t->port('smtp'), method => 'LOGIN', from => 'a@example.com',
#         to => [ 'b@example.net' ], file => $file });
#
# In a job:
#
#     mode       plain, starttls, or tls (implicit)
#     port       on 127.0.0.1
#     method     PLAIN, LOGIN, or another mechanism that it speaks: methods()
#     user, password
#     token      in the place of a password, for XOAUTH2 and OAUTHBEARER
#     certificate  for EXTERNAL: the name in front of .crt and .key
#     from, to   the envelope
#     file       the message: CRLF, all headers that they would add
#     options    arguments in the place of the message
#     input      a file that is their standard input
#
# For smtplib there are further ones, see below.

use strict;
use warnings;

use Exporter qw(import);
use JSON::PP ();

use MailPolicy::Process qw(spawn wait_exit);

our @EXPORT_OK = qw(differs);

# program => its package on Debian
my %PACKAGE = (
    'swaks'       => 'swaks',
    'curl'        => 'curl',
    'msmtp'       => 'msmtp',
    'python3'     => 'python3',
    'smtp-source' => 'postfix',
    'gsasl'       => 'gsasl',
);

my %COMMAND = (
    swaks   => \&swaks,
    curl    => \&curl,
    msmtp   => \&msmtp,
    smtplib => \&smtplib,
);

# what each speaks, as far as we do; smtp-source none
my %METHODS = (
    swaks   => [ qw(PLAIN LOGIN CRAM-MD5) ],
    curl    => [ qw(PLAIN LOGIN CRAM-MD5 XOAUTH2 OAUTHBEARER EXTERNAL) ],
    msmtp   => [ qw(PLAIN LOGIN CRAM-MD5 SCRAM-SHA-256 XOAUTH2 OAUTHBEARER
        EXTERNAL) ],
    smtplib => [ qw(PLAIN LOGIN CRAM-MD5) ],
    gsasl   => [ qw(PLAIN LOGIN CRAM-MD5 SCRAM-SHA-256 SCRAM-SHA-256-PLUS
        EXTERNAL) ],
);


# the test with a certificate "edge", that others than itself may have signed

sub new {
    my ($class, $t, %option) = @_;

    for my $program (sort keys %PACKAGE) {
        die "$program is not there: install the package $PACKAGE{$program}\n"
            unless grep { -x "$_/$program" } split /:/, $ENV{PATH};
    }

    # what a user has set is not asked
    delete @ENV{ grep { /_proxy$|^(?:SWAKS|PYTHON|CURL|MSMTP)/i } keys %ENV };

    my $self = bless { t => $t, ca => $t->dir() . '/edge.crt', %option },
        $class;

    $self->{script} = $t->write_file('send.py', python());
    return $self;
}


sub names   { return sort keys %COMMAND }
sub methods { return @{ $METHODS{ $_[1] } } }


# (exit code, or -1; output)

sub send {
    my ($self, $name, $job) = @_;

    return $self->execute($job->{input}, $COMMAND{$name}->($self, $job));
}


sub execute {
    my ($self, $input, @command) = @_;

    my $log = $self->{t}->dir() . '/program.out';
    unlink($log);

    @command = ('sh', '-c', 'exec "$@" <"$0"', $input, @command)
        if defined $input;

    my $pid = spawn($log, @command);
    my $status = wait_exit($pid, 40);
    my $output = $self->{t}->read_file($log);

    if (!defined $status) {
        kill('KILL', $pid);
        wait_exit($pid, 5);
        return (-1, "$output(did not end)\n");
    }

    return ($status & 127 ? -1 : $status >> 8, $output);
}


# smtp-source has neither TLS nor logins; options are its own

sub source {
    my ($self, $port, @options) = @_;

    return $self->execute(undef, 'smtp-source', '-M', 'client.example',
        @options, "127.0.0.1:$port");
}


sub swaks {
    my ($self, $job) = @_;

    my %tls = (plain => [], starttls => [ '--tls' ],
        tls => [ '--tls-on-connect' ]);

    return ('swaks', '--server', '127.0.0.1', '--port', $job->{port},
        @{ $tls{ $job->{mode} } }, $job->{mode} eq 'plain' ? ()
            : ('--tls-verify', '--tls-ca-path', $self->{ca}),
        '--auth', $job->{method}, '--auth-user', $job->{user},
        '--auth-password', $job->{password}, '--ehlo', 'client.example',
        '--from', $job->{from}, '--to', join(',', @{ $job->{to} }),
        '--suppress-data', '--timeout', '30',
        $job->{options} ? @{ $job->{options} }
                        : ('--data', $self->open_ended($job->{file})));
}


# it puts CRLF and a dot behind a message

sub open_ended {
    my ($self, $file) = @_;

    my $text = $self->{t}->read_file($file);
    return '@' . $self->{t}->write_file('swaks.eml', $text =~ s/\r\n\z//r);
}


sub curl {
    my ($self, $job) = @_;

    my $scheme = $job->{mode} eq 'tls' ? 'smtps' : 'smtp';

    return ('curl', '-q', '--silent', '--show-error', '--noproxy', '*',
        '--max-time', '30', '--cacert', $self->{ca},
        $job->{mode} eq 'starttls' ? '--ssl-reqd' : (),
        "$scheme://127.0.0.1:$job->{port}/client.example",
        '--user', "$job->{user}:" . ($job->{token} || $job->{certificate}
            ? '' : $job->{password}),
        $job->{token} ? ('--oauth2-bearer', $job->{token}) : (),
        $self->certificate($job, qw(--cert --key)),
        '--login-options', "AUTH=$job->{method}", '--mail-from', $job->{from},
        map({ ('--mail-rcpt', $_) } @{ $job->{to} }),
        $job->{options} ? @{ $job->{options} }
                        : ('--upload-file', $job->{file}));
}


# two options for its two files

sub certificate {
    my ($self, $job, $cert, $key) = @_;

    my $name = $job->{certificate} // return;
    my $file = $self->{t}->dir() . "/$name";

    return $cert =~ /=\z/ ? ("$cert$file.crt", "$key$file.key")
        : ($cert, "$file.crt", $key, "$file.key");
}


sub msmtp {
    my ($self, $job) = @_;

    $job->{input} //= $job->{file};

    # in a shell; it takes no password from its command line
    my $password = ($job->{token} // $job->{password}) =~ s/'/'\\''/gr;

    return ('msmtp', '--file=/dev/null', '--host=localhost',
        "--port=$job->{port}", '--timeout=30', '--domain=client.example',
        '--tls=' . ($job->{mode} eq 'plain' ? 'off' : 'on'),
        '--tls-starttls=' . ($job->{mode} eq 'starttls' ? 'on' : 'off'),
        "--tls-trust-file=$self->{ca}", '--auth=' . lc($job->{method}),
        "--user=$job->{user}", "--passwordeval=printf %s '$password'",
        $self->certificate($job, '--tls-cert-file=', '--tls-key-file='),
        "--from=$job->{from}", @{ $job->{options} // [] },
        '--', @{ $job->{to} });
}


# Only logs in, and knows no implicit TLS.  Where it could bind a channel, it
# takes SCRAM without that for an attack.

sub gsasl {
    my ($self, $job) = @_;

    return $self->execute(undef, 'gsasl', '--smtp',
        '--connect', "localhost:$job->{port}", '--mechanism', $job->{method},
        '--authentication-id', $job->{user}, '--password', $job->{password},
        $job->{method} eq 'EXTERNAL' ? ('--authorization-id', '') : (),
        $job->{method} =~ /-PLUS\z/ ? () : ('--no-cb'),
        $job->{mode} eq 'starttls' ? '--starttls' : '--no-starttls',
        '--x509-ca-file', $self->{ca},
        $self->certificate($job, qw(--x509-cert-file --x509-key-file)),
        @{ $job->{options} // [] });
}


# how: sendmail (default), send_message (a message of its own, with the file
# "attach"), login (by login(), which chooses the method).  initial: whether
# the response comes with AUTH; mail_options.

sub smtplib {
    my ($self, $job) = @_;

    my @told = grep { $_ ne 'expected' } keys %$job;
    my %told = (ca => $self->{ca}, map { ($_ => $job->{$_}) } @told);

    return ('python3', '-I', $self->{script}, JSON::PP::encode_json(\%told));
}


sub python {
    return <<'END';
import email.message, email.policy, json, smtplib, ssl, sys

job = json.loads(sys.argv[1])
context = ssl.create_default_context(cafile=job["ca"])
how = job.get("how", "sendmail")

def message():
    m = email.message.EmailMessage(policy=email.policy.SMTP)
    m["From"] = job["from"]
    m["To"] = ", ".join(job["to"])
    m["Subject"] = "gr\u00fc\u00dfe"
    m.set_content(".\n..\nna\u00efve\n.\n", cte="8bit")
    with open(job["attach"], "rb") as f:
        m.add_attachment(f.read(), maintype="application",
                         subtype="octet-stream", filename="noise.bin")
    return m

def content():
    with open(job["file"], "rb") as f:
        return f.read()

def method(s, name):
    return getattr(s, "auth_" + name.lower().replace("-", "_"))

def send(s):
    if job["mode"] == "starttls":
        s.starttls(context=context)

    if how == "login":
        s.login(job["user"], job["password"])
    else:
        s.ehlo()
        s.user, s.password = job["user"], job["password"]
        s.auth(job["method"], method(s, job["method"]),
               initial_response_ok=job.get("initial", True))

    options = job.get("mail_options", [])

    if how == "send_message":
        return s.send_message(message(), job["from"], job["to"], options)

    return s.sendmail(job["from"], job["to"], content(), options)

try:
    more = {"local_hostname": "client.example", "timeout": 30}

    if job["mode"] == "tls":
        s = smtplib.SMTP_SSL("127.0.0.1", job["port"], context=context, **more)
    else:
        s = smtplib.SMTP("127.0.0.1", job["port"], **more)

    with s:
        print("refused", json.dumps(sorted(send(s))))

except smtplib.SMTPException as e:
    print(type(e).__name__, getattr(e, "smtp_code", ""), e)
    sys.exit(1)
END
}


# where two messages differ, for people

sub differs {
    my ($got, $expected) = @_;

    my $n = 0;
    $n++ while $n < length($got)
        && substr($got, $n, 1) eq substr($expected, $n, 1);

    return sprintf('%d octets of %d, differ at %d: %s', length($got),
        length($expected), $n, unpack('H*', substr($got, $n, 20)));
}


1;
