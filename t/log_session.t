#!/usr/bin/perl

# Lines of a session that was refused something and had no transaction; and
# that lines are as many as transactions and such sessions.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use MIME::Base64 qw(encode_base64);
use Test::More;

use MailPolicy;

my $t = MailPolicy->new();
my $relay = $t->run_relay(name => 'relay');
$t->certificate('edge.example.com');

$t->write_file('users',
    'alice@example.com:' . $t->crypt('canary-alice', '$5$somesalt$') . "\n");

$t->conf(<<'EOF');
mail {
    server_name            edge.example.com;
    policy                 on;
    policy_auth            off;
    policy_auth_plaintext  on;
    max_errors             4;
    timeout                1s;
    proxy_pass             127.0.0.1:%%PORT_relay%%;

    log_format  line  '$transaction|$sender|$recipient|$recipients|$outcome|'
                      '$status|$reply|$auth_failures|$upstream_addr|$limit|'
                      '$queue_id|$bytes_received|$bytes_sent';

    log_format  addresses  '$server_addr $server_port $ssl_protocol';

    access_log  %%DIR%%/access.log json;
    access_log  %%DIR%%/line.log line;

    server {
        listen       127.0.0.1:%%PORT_in%%;
        protocol     smtp;
    }

    server {
        listen       127.0.0.1:%%PORT_login%%;
        protocol     smtp;
        policy_auth  file:%%DIR%%/users;
    }

    server {
        listen       127.0.0.1:%%PORT_few%%;
        protocol     smtp;
        policy_limit few key=$remote_addr connections=1/1h;
    }

    server {
        listen               %%PORT_tls%%;
        protocol             smtp;
        starttls             on;
        ssl_certificate      %%DIR%%/edge.example.com.crt;
        ssl_certificate_key  %%DIR%%/edge.example.com.key;
        access_log           %%DIR%%/access.log json;
        access_log           %%DIR%%/tls.log addresses;
    }

    server {
        listen       127.0.0.1:%%PORT_silent%%;
        protocol     smtp;
        access_log   off;
    }
}
EOF
$t->run_nginx();

my ($n, $transactions, $sessions) = (0, 0, 0);


# lines since the call before; a line is there once the client sees the end

sub news {
    my @lines = $t->access_log();

    my @new = splice(@lines, $n);
    $n += @new;

    return @new;
}


sub login {
    my ($c, $word) = @_;

    return $c->cmd('AUTH PLAIN '
                   . encode_base64("\0alice\@example.com\0$word", ''));
}


# without a refusal, and without a transaction

my $c = $t->session('in');
$c->cmd('NOOP');
$c->cmd('RSET');
$c->quit();

$t->client('in')->close();
is(scalar(news()), 0, 'nothing was refused');

# logins that failed

$c = $t->session('login', helo => 'bot');
like(login($c, 'canary-wrong'), qr/^535 /, 'a wrong password') for 1 .. 2;
like($c->cmd('MAIL FROM:<a@example.com>'), qr/^530 /, 'not logged in');
$c->quit();
$sessions++;

my ($line, @more) = news();
is(scalar(@more), 0, 'one line for the session');
is($line->{transaction}, 0, 'of no transaction');
is($line->{outcome}, 'rejected', 'its last refusal was 5xx');
is($line->{status}, 530, 'its status');
is($line->{reply}, '530 5.7.0 Authentication required', 'its reply');
is($line->{auth_failures}, 2, 'logins that failed');
is($line->{helo}, 'bot', 'who it said it is');
is($line->{server}, '127.0.0.1:' . $t->port('login'), 'server');
like($line->{session}, qr/^\d+-$line->{connection}$/, 'session');
ok(!exists $line->{$_}, "no $_")
    for qw(sender to recipients message_size transaction_time limit
           upstream_addr queue_id);
cmp_ok($line->{bytes_received}, '>', 80, 'octets received');
cmp_ok($line->{bytes_sent}, '>', 200, 'octets sent');
like($line->{session_time}, qr/^\d+(?:\.\d+)?$/, 'time');

my @line = split(/\n/, $t->read_file('line.log'));
like($line[0], qr/^0\|-\|-\|0\|rejected\|530\|530\ 5\.7\.0\ Authentication
                  \ required\|2\|-\|-\|-\|$line->{bytes_received}
                  \|$line->{bytes_sent}$/x, 'in a format of its own');

# one that was logged in at last

$c = $t->session('login');
login($c, 'canary-wrong');
like(login($c, 'canary-alice'), qr/^235 /, 'logged in');
$c->send_mail('alice@example.com', [ 'b@example.net' ], "x\n");
$c->quit();
$transactions++;

($line, @more) = news();
is(scalar(@more), 0, 'a transaction: no line for the session');
is($line->{auth_failures}, 1, 'but what failed before');
is($line->{transaction}, 1, 'it is one');

# a limit of connections

my $first = $t->session('few');
$c = $t->client('few');
$c->greeting();
like($c->read_reply(), qr/^421 /, 'one too many');
$c->wait_close();
$sessions++;

($line, @more) = news();
is_deeply([ @$line{qw(outcome status limit limit_action limit_used
                      limit_max)}, scalar(@more) ],
    [ 'deferred', 421, 'few', 'defer', 1, 1, 0 ], 'a limit of connections');
is($line->{limits}[0]{limit}, 'few', 'in the list, too');
$first->quit();
is(scalar(news()), 0, 'the one that was let in');

# commands that are none; what is left to the last one

$c = $t->session('in');
$c->cmd('NONSENSE');
$c->cmd('RCPT TO:<a@example.com>');
$c->close();
$sessions++;

$t->wait_for(sub { my @l = $t->access_log(); @l > $n });
($line) = news();
is($line->{status}, 503, 'the last one, and the client is gone');
ok(!exists $line->{auth_failures}, 'none that failed: left out');

# a client that is sent away for its silence was refused nothing

$c = $t->session('in');
like($c->read_reply(), qr/^421 4\.4\.2 /, 'timed out');
$c->wait_close();
is(scalar(news()), 0, 'no line');

# MAIL that the relay refuses is a transaction

$relay->set(mail => '451 4.7.1 no');
$c = $t->session('in');
$c->pipeline('MAIL FROM:<a@example.com>', 'RCPT TO:<b@example.net>', 'DATA');
$c->quit();
$relay->set(mail => undef);
$transactions++;

($line, @more) = news();
is_deeply([ @$line{qw(transaction outcome status)}, scalar(@more) ],
    [ 1, 'deferred', 451, 0 ], 'MAIL, refused');

# a handshake that fails: nginx closes the connection, not we

$c = $t->session('tls');
$c->cmd('NONSENSE');
like($c->cmd('STARTTLS'), qr/^220 /, 'STARTTLS');
$c->send_raw("no handshake\r\n");
$c->wait_close();
$sessions++;

$t->wait_for(sub { my @l = $t->access_log(); @l > $n });
($line, @more) = news();
is_deeply([ @$line{qw(outcome status)}, scalar(@more) ],
    [ 'rejected', 500, 0 ], 'a handshake that fails');

# nothing is logged

$c = $t->session('silent');
$c->cmd('NONSENSE');
$c->quit();
is(scalar(news()), 0, 'access_log off');

# a worker that is told to go while sessions are there

$c = $t->session('in');
$c->cmd('NONSENSE');
$t->reload();
$c->wait_close();
$sessions++;

$t->wait_for(sub { my @l = $t->access_log(); @l > $n });
($line) = news();
is($line->{status}, 500, 'reload: its line is of the refusal');

is(scalar(my @all = $t->access_log()), $transactions + $sessions,
    'lines: transactions and sessions');

$t->done();
