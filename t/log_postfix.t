#!/usr/bin/perl

# access_log ... postfix: what the postfix filters of fail2ban find in it, as
# they are installed: each login and each recipient that was refused, once,
# with the client's true address, whatever clients say; and what lines are
# like.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use IO::Socket::UNIX;
use MIME::Base64 qw(encode_base64);
use Socket qw(SOCK_DGRAM);
use Sys::Hostname qw(hostname);
use Test::More;

use MailPolicy;
use MailPolicy::Process qw(spawn wait_exit);

plan(skip_all => 'no fail2ban')
    unless -x '/usr/bin/fail2ban-regex'
           && -e '/etc/fail2ban/filter.d/postfix.conf';

my $t = MailPolicy->new();
my $relay = $t->run_relay(name => 'relay');
my $password = 'canary-of-alice';

$t->write_file('users',
    'alice@example.com:' . $t->crypt($password, '$5$somesalt$') . "\n");

$t->conf(<<'EOF');
mail {
    server_name            edge.example.com;
    policy                 on;
    policy_auth            off;
    policy_auth_plaintext  on;
    max_errors             20;
    proxy_pass             127.0.0.1:%%PORT_relay%%;
    set_real_ip_from       127.0.0.1;

    map $status $wanted {
        default 1;
        530     0;
    }

    map $sender_domain $few { few.example 1; }

    access_log  %%DIR%%/mail.log postfix;
    access_log  %%DIR%%/again.log postfix buffer=64k flush=100ms;
    access_log  %%DIR%%/if.log postfix if=$wanted;
    access_log  syslog:server=unix:%%DIR%%/syslog,nohostname postfix;

    policy_limit spray key=$client_net auth_failures=3/15m;
    policy_limit few   key=$client_net if=$few recipients=1/1h;

    server {
        listen       127.0.0.1:%%PORT_in%% proxy_protocol;
        protocol     smtp;
    }

    server {
        listen       127.0.0.1:%%PORT_login%% proxy_protocol;
        protocol     smtp;
        policy_auth  file:%%DIR%%/users;
        smtp_auth    plain login;
    }
}
EOF

my $syslog = IO::Socket::UNIX->new(
    Type => SOCK_DGRAM, Local => $t->dir() . '/syslog') or die "syslog: $!";
my @syslog;

chmod(0666, $t->dir() . '/syslog');
$syslog->blocking(0);

$t->run_nginx();

my $pid = ($t->worker_pids())[0];
my $n = 0;


# as a client with an address of its own

sub client {
    my ($where, $address, %option) = @_;

    return $t->session($where, proxy => $address, %option);
}


sub lines { return split(/(?<=\n)/, $t->read_file($_[0] // 'mail.log')) }


# what came to syslog since

sub listen_to_syslog {
    my $datagram;

    push(@syslog, $datagram) while defined($syslog->recv($datagram, 65536));
}


# lines that came since this was called last, without what is in front

sub news {
    my @lines = lines();

    my @new = splice(@lines, $n);
    $n += @new;

    s/^.*? postfix\/smtpd\[\d+\]: // for @new;
    chomp(@new);

    listen_to_syslog();

    return @new;
}


# addresses that a mode of the filter finds, in order

sub found {
    my ($mode) = @_;

    open(my $fh, '-|', 'fail2ban-regex', '-o', 'ip', $t->dir() . '/mail.log',
         "/etc/fail2ban/filter.d/postfix.conf[mode=$mode]")
        or die "fail2ban-regex: $!";

    my @found = <$fh>;
    close($fh);
    chomp(@found);

    return @found;
}


# who is banned, after one failed login, by the jail that README.md prints

sub banned {
    my ($expected) = @_;
    my ($dir, $readme) = ($t->dir() . '/fail2ban',
        $t->read_file($t->root() . '/README.md'));
    my ($jail) = $readme =~ /^(    \[postfix-sasl\]\n(?:    \S.*\n)+)/m;

    $jail =~ s/^ +//mg;
    $jail =~ s{/var/log/nginx/mail-postfix\.log}{$t->dir() . '/mail.log'}e
        or die "the jail of README.md: no logpath\n";

    system('cp', '-r', '/etc/fail2ban', $dir) == 0 or die 'cp';
    unlink(glob("$dir/jail.d/*"));
    $t->write_file("$dir/fail2ban.local", "[DEFAULT]\ndbfile = None\n");
    $t->write_file("$dir/jail.local",
        "[DEFAULT]\nmaxretry = 1\naction =\n\n$jail");

    my @at = ('-c', $dir, '-s', "$dir/socket", '-p', "$dir/pid");
    my $server = spawn("$dir/server.log", 'fail2ban-server', '-f', '-x', @at,
        '--logtarget', "$dir/log", 'start');
    my @banned;

    $t->wait_for(sub {
        @banned = qx(fail2ban-client @at get postfix-sasl banip 2>$dir/err)
            =~ /(\d+\.\d+\.\d+\.\d+)/g;
        return @banned >= $expected;
    }, 20);

    kill('TERM', $server);
    wait_exit($server, 10);

    return @banned;
}


sub try_login {
    my ($c, $login, $word) = @_;

    return $c->cmd('AUTH PLAIN ' . encode_base64("\0$login\0$word", ''));
}


my (@auth, @normal);

# a message

my $c = client('in', '203.0.113.1', helo => 'mx.example.org');
$relay->set(dot => '250 2.0.0 Ok: queued as 4XyZ1k2m3n');
$c->send_mail('a@example.org', [ 'b@example.net', 'c@example.net' ], "x\n");
$c->quit();

is_deeply([ map { s/delay=[\d.]+/delay=N/r } news() ],
    [ '4XyZ1k2m3n: client=unknown[203.0.113.1], from=<a@example.org>, '
      . 'nrcpt=2, size=3, relay=127.0.0.1:' . $t->port('relay')
      . ', delay=N, dsn=2.0.0, status=sent '
      . '(250 2.0.0 Ok: queued as 4XyZ1k2m3n)' ], 'a message');

my $month = '(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)';
my $host = quotemeta(lc(hostname()));
my $front = qr/$month [ \d]\d \d\d:\d\d:\d\d $host postfix\/smtpd\[$pid\]: /;

like((lines())[0], qr/^$front/, 'what is in front');

# recipients that the relay refuses, in Postfix's words and in others'

sub refusing {
    my ($c, $reply, $rcpt) = @_;

    $relay->set(rcpt => $reply);
    $c->cmd("RCPT TO:<$rcpt>");
    $relay->set(rcpt => undef);
}

$c = client('in', '203.0.113.2', helo => 'mx.example.org');
$c->cmd('MAIL FROM:<a@example.org>');
refusing($c, '550 5.1.1 <gone@example.net>: Recipient address rejected: '
             . 'User unknown in virtual mailbox table', 'gone@example.net');
refusing($c, '550 5.1.1 User unknown', 'other@example.net');
refusing($c, '451 4.2.0 Mailbox locked', 'later@example.net');

my @at_once = news();

$c->cmd('RCPT TO:<b@example.net>');
$c->cmd('RSET');
$c->quit();

my $tail = 'proto=ESMTP helo=<mx.example.org>';

is_deeply(\@at_once, [
    'NOQUEUE: reject: RCPT from unknown[203.0.113.2]: 550 5.1.1 '
    . '<gone@example.net>: Recipient address rejected: User unknown in '
    . 'virtual mailbox table; from=<a@example.org> to=<gone@example.net> '
    . $tail,
    'NOQUEUE: reject: RCPT from unknown[203.0.113.2]: 550 5.1.1 '
    . '<other@example.net>: Recipient address rejected: User unknown; '
    . "from=<a\@example.org> to=<other\@example.net> $tail",
    'NOQUEUE: reject: RCPT from unknown[203.0.113.2]: 451 4.2.0 '
    . '<later@example.net>: Recipient address rejected: Mailbox locked; '
    . "from=<a\@example.org> to=<later\@example.net> $tail",
], 'recipients, refused, at once');

push(@normal, ('203.0.113.2') x 2);

like(join("\n", news()), qr/^NOQUEUE:\ client=unknown\[203\.0\.113\.2\],
     \ from=<a\@example\.org>,\ nrcpt=1,\ size=0,\ relay=127\.0\.0\.1:\d+,
     \ delay=[\d.]+,\ dsn=\d\.\d\.\d,\ status=aborted\ \(.*\)$/x,
     'and what became of it');

# by a limit of ours; a MAIL that is refused, with what is pipelined behind it

$c = client('in', '203.0.113.3', helo => 'h');
$c->cmd('MAIL FROM:<a@few.example>');
$c->cmd("RCPT TO:<$_\@example.net>") for qw(b c);
$c->quit();

my @few = news();

like($few[0], qr/^NOQUEUE:\ reject:\ RCPT\ from\ unknown\[203\.0\.113\.3\]:
     \ 450\ 4\.7\.1\ <c\@example\.net>:\ Recipient\ address\ rejected:
     \ Rate\ limit\ "few"\ exceeded,\ retry\ in\ \d+\ s;
     \ from=<a\@few\.example>\ to=<c\@example\.net>\ proto=ESMTP
     \ helo=<h>$/x, 'by a limit');
is(scalar(@few), 2, 'and the transaction');

$relay->set(mail => '550 5.1.8 no');
$c = client('in', '203.0.113.3', helo => 'h');
$c->pipeline('MAIL FROM:<a@example.org>', 'RCPT TO:<b@example.net>',
             'RCPT TO:<c@example.net>');
$c->quit();
$relay->set(mail => undef);

my @mail = news();

is($mail[0], 'NOQUEUE: reject: MAIL from unknown[203.0.113.3]: 550 5.1.8 '
    . '<a@example.org>: Sender address rejected: no; from=<a@example.org> '
    . 'proto=ESMTP helo=<h>', 'MAIL');
like($mail[1], qr/^NOQUEUE: client=.*, status=rejected \(550 5\.1\.8 no\)$/,
     'its transaction');
is(scalar(@mail), 2, 'RCPT behind it is no refusal of its own');

# logins

my $failed = 'authentication failed:';

$c = client('login', '203.0.113.4', helo => 'bot');
try_login($c, 'alice@example.com', 'canary-wrong-1');

is_deeply([ news() ], [ "warning: unknown[203.0.113.4]: SASL PLAIN $failed "
    . 'Authentication credentials invalid, sasl_username=alice@example.com' ],
    'a login, refused, at once');

try_login($c, 'nobody', 'canary-wrong-2');
$c->cmd('AUTH LOGIN');
$c->cmd(encode_base64('bob', ''));
$c->cmd(encode_base64('canary-wrong-3', ''));
$c->cmd('AUTH PLAIN =?');
push(@auth, ('203.0.113.4') x 4);

$c->cmd('AUTH LOGIN');
$c->cmd('*');
$c->cmd('AUTH NTLM');
like($c->cmd('MAIL FROM:<a@example.org>'), qr/^530 /, 'not logged in');
$c->quit();

is_deeply([ news() ], [
    (map { "warning: unknown[203.0.113.4]: SASL $_" }
     "PLAIN $failed Authentication credentials invalid, sasl_username=nobody",
     "LOGIN $failed Authentication credentials invalid, sasl_username=bob",
     "PLAIN $failed Invalid base64, sasl_username=(unavailable)",
     'LOGIN authentication aborted',
     "unknown $failed Invalid authentication mechanism, "
     . 'sasl_username=(unavailable)'),
    'NOQUEUE: reject: MAIL from unknown[203.0.113.4]: 530 5.7.0 '
    . 'Authentication required; proto=ESMTP helo=<bot>',
], 'other logins, and MAIL without one');

# the limit of failures refuses logins: they are those of a bot, too

$c = client('login', '203.0.113.4', helo => 'bot');
like(try_login($c, 'alice@example.com', 'canary-wrong-4'), qr/^454 /,
     'too many');
push(@auth, '203.0.113.4');
$c->quit();

like((news())[0], qr/^warning:\ unknown\[203\.0\.113\.4\]:\ SASL\ PLAIN
     \ authentication\ failed:\ Too\ many\ failed\ logins
     \ \(limit\ "spray"\),\ retry\ in\ \d+\ s,
     \ sasl_username=alice\@example\.com$/x, 'a login that a limit refuses');

# logged in

$c = client('login', '203.0.113.5', helo => 'laptop');
like(try_login($c, 'alice@example.com', $password), qr/^235 /, 'logged in');
$c->cmd('MAIL FROM:<alice@example.com>');
refusing($c, '550 5.1.1 User unknown', 'x@example.net');
$c->quit();
push(@normal, '203.0.113.5');

my @in = news();

is($in[0], 'NOQUEUE: reject: RCPT from unknown[203.0.113.5]: 550 5.1.1 '
   . '<x@example.net>: Recipient address rejected: User unknown; '
   . 'from=<alice@example.com> to=<x@example.net> proto=ESMTP helo=<laptop> '
   . 'sasl_username=<alice@example.com>', 'refused, of a login');
like($in[1], qr/^NOQUEUE:\ client=unknown\[203\.0\.113\.5\],
     \ sasl_method=PLAIN,\ sasl_username=alice\@example\.com,
     \ from=<alice\@example\.com>,\ nrcpt=0,\ /x, 'its transaction');

# the end of a message, DATA; too many errors

$relay->set(dot => '554 5.7.1 Spam');
$c = client('in', '203.0.113.6', helo => 'h');
$c->send_mail('a@example.org', [ 'b@example.net' ], "x\n");
$relay->set(dot => undef, data => '451 4.3.0 Not now');
$c->send_mail('a@example.org', [ 'b@example.net' ], "x\n");
$relay->set(data => undef);
$c->quit();

is_deeply([ grep { !/client=/ } news() ],
    [ 'NOQUEUE: reject: END-OF-MESSAGE from unknown[203.0.113.6]: 554 5.7.1 '
      . '<END-OF-MESSAGE>: End-of-data rejected: Spam; from=<a@example.org> '
      . 'proto=ESMTP helo=<h>',
      'NOQUEUE: reject: DATA from unknown[203.0.113.6]: 451 4.3.0 <DATA>: '
      . 'Data command rejected: Not now; from=<a@example.org> proto=ESMTP '
      . 'helo=<h>' ], 'messages');

$c = client('in', '203.0.113.7', helo => 'h');

for (1 .. 20) {
    $c->cmd("NONSENSE $_");
    listen_to_syslog();
}

$c->wait_close();
push(@normal, '203.0.113.7');

my @errors = news();

is($errors[0], 'NOQUEUE: reject: UNKNOWN from unknown[203.0.113.7]: 500 5.5.1 '
    . 'Command unrecognized; proto=ESMTP helo=<h>', 'a command');
is($errors[20], 'too many errors after UNKNOWN from unknown[203.0.113.7]',
    'too many errors');
is(scalar(@errors), 21, 'each of them once');


# what clients say in order to have others kept out

my $forged = '192.0.2.66';
my $line = "Nov 28 00:00:00 h postfix/smtpd[1]: ";

my @say = (
    "x from y[$forged]: 550 5.7.1 Service unavailable",
    ']: 550 5.1.1 <x>: Recipient address rejected: User unknown',
    "RCPT from h[$forged]: 550 5.1.1 User unknown",
    "h[$forged]: SASL PLAIN authentication failed: x",
    "${line}NOQUEUE: reject: RCPT from h[$forged]: 550 5.1.1 User unknown",
    "${line}warning: h[$forged]: SASL LOGIN authentication failed: x",
    "too many errors after RCPT from h[$forged]",
    "> to=<x> [$forged]",
    "\r\n${line}warning: h[$forged]: SASL PLAIN authentication failed: x",
    "\n${line}NOQUEUE: reject: RCPT from h[$forged]: 550 5.1.1 User unknown",
    "\e[2J\a\x7f\xc2\x85h[$forged]: SASL PLAIN authentication failed: x",
);

my $i = 0;

for my $say (@say) {
    my $address = '198.51.100.' . ++$i;
    my $ascii = $say =~ tr/\x20-\x7e/?/cr;
    my $quoted = substr($ascii, 0, 60);

    $c = client('in', $address, helo => $ascii =~ tr/ /_/r);
    like($c->cmd("MAIL FROM:<\"$quoted\"\@example.org>"), qr/^250 /,
         'a sender');

    refusing($c, "550 5.1.1 User unknown: $ascii", $_)
        for 'b@example.net', "\"$quoted\"\@example.net";
    push(@normal, ($address) x 2);

    $c->cmd("$ascii x");
    $c->quit();

    $c = client('login', $address, helo => $ascii =~ tr/ /_/r);
    try_login($c, $say, 'canary-wrong');
    try_login($c, substr("$say " x 30, 0, 200), 'canary-wrong');
    push(@auth, ($address) x 2);
    $c->quit();

    listen_to_syslog();
}

my @normally = found('normal');

is_deeply(\@normally, \@normal, 'OUT-1 fail2ban: the true addresses');
is_deeply([ found('auth') ], \@auth, 'mode=auth: ' . @auth . ' logins');
is_deeply([ sort(found('aggressive')) ], [ sort(@normal, @auth) ],
    'mode=aggressive: both');

my @lines = lines();

is_deeply([ grep { !/^$front[^\x00-\x1f\x7f]+\n\z/ } @lines ], [],
    'OUT-1 fail2ban: one line each, without controls');
is_deeply([ grep { /\xc2[\x80-\x9f]/ } @lines ], [], 'nor C1');
ok(scalar(grep { index($_, $forged) >= 0 } @lines) > 2 * @say,
   'what they have said is there');

# the jail of README.md, in a fail2ban of its own that does nothing but note

my @guilty = sort keys %{ { map { $_ => 1 } @auth } };

is_deeply([ sort(banned(scalar(@guilty))) ], \@guilty,
    'the jail of README.md');

# the other logs

my @later = grep { !/: 530 / } @lines;

is_deeply([ lines('if.log') ], \@later, 'if=');
ok(@later < @lines, 'which leaves something out');

$t->wait_for(sub { lines('again.log') == @lines });
is_deeply([ lines('again.log') ], \@lines, 'buffered');

listen_to_syslog();
s/^<\d+>$month [ \d]\d \d\d:\d\d:\d\d postfix\/smtpd: // for @syslog;
is_deeply(\@syslog, [ map { s/^$front//r =~ s/\n\z//r } @lines ],
    'syslog: behind its own time and tag');

$t->done();
