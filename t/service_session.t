#!/usr/bin/perl

# Policy servers that take their time, and what happens meanwhile: the client
# says more, or goes, or waits longer than its own timeout; the relay is
# lost.  Nothing is said out of turn, nothing is charged that is not
# delivered, and nothing is forgotten.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Test::More;
use Time::HiRes qw(sleep);

use MailPolicy;
use MailPolicy::Limits qw(wait_used);
use MailPolicy::PolicyServer;

my $t = MailPolicy->new();
my $redis = $t->run_redis();
my %relay = map { $_ => $t->run_relay(name => $_) } qw(relay other);
my $server = MailPolicy::PolicyServer->new(dir => $t->dir(),
    name => 'service', port => $t->port('service'));

my @POINTS = qw(rcpt data end);
my $servers = '';

for my $point (@POINTS) {
    for my $timeout (qw(60s 500ms)) {
        $servers .= <<"EOF";
    server {
        listen          127.0.0.1:%%PORT_${point}_$timeout%%;
        protocol        smtp;
        timeout         $timeout;
        policy_service  inet:127.0.0.1:%%PORT_service%% at=$point;
    }
EOF
    }
}

$t->conf(<<"EOF");
mail {
    policy_redis    redis://127.0.0.1:%%PORT_redis%% timeout=5s;
    policy_limit    s  key=\$sender  messages=1000/1h  recipients=5000/1h;
    policy_limit    b  key=\$sender  bytes=100k/1h;
    policy          on;
    policy_auth     off;
    proxy_timeout   5s;
    proxy_pass      127.0.0.1:%%PORT_relay%%;
    access_log      %%DIR%%/access.log;

    map \$recipient_domain \$where {
        example.net  127.0.0.1:%%PORT_relay%%;
        default      127.0.0.1:%%PORT_other%%;
    }

    server {
        listen               127.0.0.1:%%PORT_normalize%%;
        protocol             smtp;
        policy_bare_newline  normalize;
        policy_service       inet:127.0.0.1:%%PORT_service%%;
        policy_service       inet:127.0.0.1:%%PORT_service%% at=end;
    }

    server {
        listen               127.0.0.1:%%PORT_lazy%%;
        protocol             smtp;
        proxy_pass           \$where;
        policy_service       inet:127.0.0.1:%%PORT_service%%;
        policy_service       inet:127.0.0.1:%%PORT_service%% at=data;
    }

$servers
}
EOF
$t->run_nginx();

my $SENDER = 'alice@example.com';
my $MAIL = "MAIL FROM:<$SENDER>";
my $RCPT = 'RCPT TO:<bob@example.net>';
my $BODY = "Subject: test\r\n\r\ntext\r\n";
my $delivered = 0;


# charged is what is delivered, and that is so many messages more

sub delivered {
    my ($name, $more) = @_;

    local $Test::Builder::Level = $Test::Builder::Level + 1;

    $delivered += $more;
    is(scalar($relay{relay}->messages()), $delivered,
        "$name: delivered $more");

    my @expected = ($delivered, $delivered);
    is_deeply(wait_used($redis, 's', $SENDER, \@expected), \@expected,
        "$name: charged the same");
}


# up to where the server of this point is asked, and has not answered

sub begin_until {
    my ($point, $where) = @_;

    my $asked = () = $server->requests();
    my $c = $t->session($where);

    if ($point eq 'rcpt') {
        $c->cmd($MAIL);
        $c->send_raw("$RCPT\r\n");

    } else {
        $c->pipeline($MAIL, $RCPT);
        $c->send_raw("DATA\r\n");

        if ($point eq 'end') {
            $c->read_reply();
            $c->send_raw("$BODY.\r\n");
        }
    }

    ok($t->wait_for(sub { $server->requests() > $asked }),
        "$where: it is asked");
    return $c;
}


# the rest of it: the last reply

sub finish {
    my ($point, $c) = @_;

    my $reply = $c->read_reply();
    return $reply if $point eq 'end' || $reply !~ /^[23]/;

    $reply = $c->cmd('DATA') if $point eq 'rcpt';
    return $reply unless $reply =~ /^354/;

    $c->send_raw("$BODY.\r\n");
    return $c->read_reply();
}


for my $point (@POINTS) {

    # longer than the client may be silent

    $server->set({ delay => 1.2, answer => 'DUNNO' });
    my $c = begin_until($point, "${point}_500ms");
    like(finish($point, $c), qr/^250 /, "$point: a slow server");
    delivered("$point: a slow server", 1);
    $c->quit();

    # the client goes; it is not waited for

    for my $how (qw(close reset)) {
        $server->set({ delay => 0.6, answer => 'DUNNO' });
        my $count = $relay{relay}->messages();
        $c = begin_until($point, "${point}_60s");
        $c->$how();
        sleep(0.9);

        my $more = $relay{relay}->messages() - $count;
        is($more, 0, "$point: $how: nothing is sent on") if $point ne 'end';
        delivered("$point: $how", $more);
    }

    # the relay goes

    $server->set({ delay => 0.6, answer => 'DUNNO' });
    $c = begin_until($point, "${point}_60s");
    $relay{relay}->stop();
    like(finish($point, $c), qr/^451 4\.4\.\d /, "$point: no relay any more");
    $relay{relay}->start();
    $c->cmd('RSET');
    delivered("$point: no relay any more", 0);

    $server->set('DUNNO');
    my @replies = $c->send_mail($SENDER, [ 'bob@example.net' ], $BODY);
    like($replies[-1], qr/^250 /, "$point: the session is good for more");
    delivered("$point: the session is good for more", 1);
    $c->quit();
}

# commands in one write with a recipient that is asked about

$server->set({ delay => 0.3, answer => 'REJECT no' });
my $c = $t->session('rcpt_60s');
my @replies = $c->pipeline($MAIL, $RCPT, $RCPT, 'RSET', 'NOOP', $MAIL, $RCPT,
    'DATA');
is(join(' ', map { substr($_, 0, 3) } @replies),
    '250 554 554 250 250 250 554 554', 'pipelined: replies in order');
$c->cmd('RSET');
delivered('pipelined', 0);

$c->send_raw("$MAIL\r\n$RCPT\r\nQUIT\r\n");
@replies = map { $c->read_reply() } 1 .. 3;
is(join(' ', map { substr($_, 0, 3) } @replies), '250 554 221',
    'pipelined: QUIT waits');
ok($c->wait_close(), 'pipelined: QUIT closes');
delivered('pipelined: QUIT', 0);

# a body that does not wait for 354 is no body, whatever the server says

for my $answer ('DUNNO', 'REJECT no') {
    $server->set({ delay => 0.3, answer => $answer });
    $c = $t->session('data_60s');
    $c->pipeline($MAIL, $RCPT);
    $c->send_raw("DATA\r\n${BODY}.\r\n$MAIL\r\n$RCPT\r\nQUIT\r\n");
    1 while $c->read_reply() =~ /^\d/;
    $c->close();
    delivered("a body behind DATA, $answer", 0);
}

# repaired line ends, and those that are not

$server->set({ protocol_state => qr/RCPT/, answer => 'PREPEND X: y' });
$c = $t->session('normalize');
$c->pipeline($MAIL, $RCPT, 'DATA');
$c->send_raw("a\nb\rc\r\n.\nd\r\n.\r\n");
like($c->read_reply(), qr/^250 /, 'bare line ends');
like(($relay{relay}->messages())[-1]{data}, qr/\AX: y\r\na\r\nb/,
    'bare line ends: repaired behind the field');
is(($server->requests())[-1]{protocol_state}, 'END-OF-MESSAGE',
    'bare line ends: asked about at the end');
delivered('bare line ends', 1);

my $asked = () = $server->requests();
$c = $t->session('end_60s');
$c->pipeline($MAIL, $RCPT, 'DATA');
$c->send_raw("a\nb\r\n.\r\n");
like($c->read_reply(), qr/^554 5\.6\.0 /, 'bare line ends: refused');
is(scalar(() = $server->requests()), $asked,
    'a message that is refused anyhow is not asked about');

$c->pipeline($MAIL, $RCPT, 'DATA');
$c->send_raw('x' x 70 . "\r\n") for 1 .. 1600;
$c->send_raw(".\r\n");
like($c->read_reply(), qr/^552 5\.3\.4 Message too big for limit "b"/,
    'more octets than there are left');
is(scalar(() = $server->requests()), $asked, 'is not asked about, either');
delivered('refused without a question', 0);

# a route that the recipient decides

$server->set({ recipient => qr/^no/, answer => 'REJECT no' });
$c = $t->session('lazy');
@replies = $c->pipeline($MAIL, 'RCPT TO:<no@example.net>', $RCPT, 'DATA');
is(join(' ', map { substr($_, 0, 3) } @replies), '250 554 250 354',
    'routed by recipient: one is refused');
$c->send_raw("$BODY.\r\n");
like($c->read_reply(), qr/^250 /, 'routed by recipient: the message');
delivered('routed by recipient', 1);

$t->done();
