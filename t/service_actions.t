#!/usr/bin/perl

# policy_service: each action of access(5), at each point at which a server
# can be asked.  What the client is told, what its relay sees, what is
# charged and what the log says.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Test::More;

use MailPolicy;
use MailPolicy::Limits qw(wait_used);
use MailPolicy::PolicyServer;

my $t = MailPolicy->new();
my $redis = $t->run_redis();
my $relay = $t->run_relay(name => 'relay');

my $server = MailPolicy::PolicyServer->new(dir => $t->dir(),
    name => 'service', port => $t->port('service'));

my @POINTS = qw(rcpt data end);
my %STATE = (rcpt => 'RCPT', data => 'DATA', end => 'END-OF-MESSAGE');

my $servers = join('', map { <<"EOF" } @POINTS);
    server {
        listen          127.0.0.1:%%PORT_$_%%;
        protocol        smtp;
        policy_service  inet:127.0.0.1:%%PORT_service%% at=$_;
    }
EOF

$t->conf(<<"EOF");
mail {
    policy_redis  redis://127.0.0.1:%%PORT_redis%% timeout=5s;
    policy_limit  s  key=\$sender  messages=1000/1h  recipients=5000/1h;
    policy_auth   off;
    policy        on;
    proxy_pass    127.0.0.1:%%PORT_relay%%;
    access_log    %%DIR%%/access.log json;

$servers
}
EOF
$t->run_nginx();

my $SENDER = 'alice@example.com';
my $BODY = "Subject: test\r\n\r\ntext\r\n";
my @used = (0, 0);
my %session;


# Actions: what is answered, what the client is told instead of 250 (undef:
# nothing), and what the log says at least.

my $failed = qr/451 4\.3\.5 Server configuration problem/;
my $postfix = qr/answered with what only a Postfix can do/;
my $wrong = qr/answered with what is no action/;

my @ACTIONS = (
    [ 'DUNNO' ],
    [ 'dunno but this' ],
    [ 'OK' ],
    [ 'permit' ],
    [ 'RELAY' ],
    [ '1700000000' ],
    [ 'DEFER_IF_REJECT nothing rejects it' ],
    [ 'INFO seen',         undef, qr/\[info\] .* says: "seen"/ ],
    [ 'info',              undef, qr/\[info\] .* says: "-"/ ],
    [ "WARN beware \"\xe4\"",
      undef, qr/\[warn\] .* warns: "beware \\x22\\xE4\\x22"/ ],

    [ 'REJECT',            qr/554 5\.7\.1 Access denied/ ],
    [ 'reject no, thanks', qr/554 5\.7\.1 no, thanks/ ],
    [ 'REJECT 5.1.8 who?', qr/554 5\.1\.8 who\?/ ],
    [ 'REJECT 4.1.8 who?', qr/554 5\.1\.8 who\?/ ],
    [ 'REJECT 5.1.8',      qr/554 5\.1\.8 Access denied/ ],
    [ "REJECT \xc3\xa4\tx", qr/554 5\.7\.1 \?\? x/ ],
    [ 'REJECT ' . 'x' x 3000, qr/554 5\.7\.1 x{500}/ ],
    [ '550 5.7.26 unsigned', qr/550 5\.7\.26 unsigned/ ],
    [ '599 text',          qr/599 5\.7\.1 text/ ],
    [ '550',               qr/550 5\.7\.1 Access denied/ ],

    [ 'DEFER',             qr/450 4\.7\.1 Try again later/ ],
    [ 'defer not now',     qr/450 4\.7\.1 not now/ ],
    [ '451 4.3.0 broken',  qr/451 4\.3\.0 broken/ ],
    [ '450 5.3.0 class',   qr/450 4\.3\.0 class/ ],
    [ '450',               qr/450 4\.7\.1 Try again later/ ],
    [ 'DEFER_IF_PERMIT',   qr/450 4\.7\.1 Try again later/ ],
    [ 'defer_if_permit 4.2.0 Greylisted', qr/450 4\.2\.0 Greylisted/ ],

    [ '421 4.7.0 go away', qr/421 4\.7\.0 go away/ ],
    [ '521 go away',       qr/521 5\.7\.1 go away/ ],

    [ 'HOLD',              $failed, qr/$postfix: "action=HOLD\\x0A\\x0A"/ ],
    [ 'DISCARD',           $failed, $postfix ],
    [ 'FILTER smtp:[127.0.0.1]', $failed, $postfix ],
    [ 'REDIRECT a@b.example', $failed, $postfix ],
    [ 'BCC a@b.example',   $failed, $postfix ],
    [ 'FILTER',            $failed, $wrong ],
    [ 'PREPEND',           $failed, $wrong ],
    [ 'PREPEND no field',  $failed, $wrong ],
    [ 'REJEKT',            $failed, qr/$wrong: "action=REJEKT\\x0A\\x0A"/ ],
    [ '250 fine',          $failed, $wrong ],
    [ '',                  $failed, $wrong ],
    [ "REJECT a\rb",       $failed, qr/$wrong: "action=REJECT a\\x0Db/ ],
    [ "DUNNO\r",           $failed, $wrong ],
);


# a session of each server stays as long as it may

sub session {
    my ($point) = @_;

    return $session{$point} //= $t->session($point);
}


sub charged {
    my ($name, $messages, $recipients) = @_;

    local $Test::Builder::Level = $Test::Builder::Level + 1;

    my @expected = ($used[0] + $messages, $used[1] + $recipients);
    my $now = wait_used($redis, 's', $SENDER, \@expected);

    is_deeply($now, \@expected, "$name: charged "
        . ($messages ? "$messages and $recipients" : 'nothing'));
    @used = @$now;
}


# everything that must be the same of each refusal and each permission

sub try_action {
    my ($point, $action, $refusal, $log) = @_;

    my $name = "$point: '" . ($action =~ s/([^ -~])/sprintf('\\x%02x',
        ord $1)/ger =~ s/^(.{40}).+/$1.../r) . "'";
    my $messages = $relay->received();
    my $logged = length($t->error_log());
    my $asked = () = $server->requests();

    $server->set($action);

    my $c = session($point);
    my @replies = $c->send_mail($SENDER, [ 'bob@example.net' ], $BODY);
    my %at = (rcpt => 1, data => 2, end => 3);

    is(scalar(@replies), $refusal ? $at{$point} + 1 : 4,
        "$name: all the replies");
    like($replies[-1], $refusal ? qr/^$refusal$/ : qr/^250 2\.0\.0 /,
        "$name: the last one");

    my @requests = $server->requests();

    is(@requests - $asked, 1, "$name: asked once");
    is($requests[-1]{protocol_state}, $STATE{$point}, "$name: at its point");

    my @received = $relay->received();

    if ($refusal) {
        is(scalar(@received), $messages, "$name: the relay got no message");
        charged($name, 0, 0);

    } else {
        is(scalar(@received), $messages + 1, "$name: the relay got it");
        is($received[-1]{data}, $BODY, "$name: as it was");
        charged($name, 1, 1);
    }

    my @lines = grep { /policy service/ && !/\[debug\]/ }
        split /\n/, substr($t->error_log(), $logged);

    $log //= qr/policy service refused: "$refusal"/ if $refusal;
    $log ? like("@lines", $log, "$name: logged")
        : is("@lines", '', "$name: not worth a line");

    if ($action =~ /^[45]21/) {
        ok($c->wait_close(), "$name: and the session ends");
        delete($session{$point})->close();

    } else {
        like($c->cmd('NOOP'), qr/^250 /, "$name: the session goes on");
    }

    my $reply = $refusal // qr/250 2\.0\.0 Ok: .*/;

    ok($t->wait_for(sub { ($t->access_log())[-1]{reply} =~ /^$reply$/ }),
        "$name: access log");
}


for my $point (@POINTS) {
    try_action($point, @$_) for @ACTIONS;
}

# what relays get of a recipient, and of a message, that was refused

my ($transcript) = grep { /no-relay/ } $relay->transcripts();
ok(!defined $transcript, 'nothing of it yet');

$server->set({ recipient => qr/^no-relay/, answer => 'REJECT no' });
my @told = session('rcpt')->send_mail($SENDER,
    [ 'no-relay@example.net', 'bob@example.net', 'no-relay2@example.net' ],
    $BODY);

like("@told[1 .. 3]", qr/^554 5\.7\.1 no 250 .* 554 5\.7\.1 no$/,
    'one of three recipients');
is_deeply(($relay->received())[-1]{rcpts}, [ 'bob@example.net' ],
    'is all that the relay was given');
ok(!grep({ /no-relay/ } $relay->transcripts()),
    'it was never told of the others');
charged('one of three', 1, 1);

$t->done();
