#!/usr/bin/perl

# policy_auth relay: the relay decides about a login, and a message goes on by
# the connection that has let the client in.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use MIME::Base64 qw(encode_base64);
use Test::More;
use Time::HiRes qw(sleep);

use MailPolicy;

my $t = MailPolicy->new();
my ($crt, $key) = $t->certificate('relay', 'relay.example.com');

my $LONG = 't' x 6000;
my $IN = qr/^235 2\.7\.0 Authentication successful$/;
my $LATER = qr/^454 4\.7\.0 Temporary authentication failure$/;
my $USUAL = qr/^535 5\.7\.8 Authentication credentials invalid$/;
my $WRONG = qr/^535 5\.7\.8 Error: authentication failed$/;

my %users = ('alice@example.com' => 'pass-of-alice',
    'bob@example.com' => 'pass-of-bob', 'edge' => 'pass-of-edge',
    'o=x,y' => 'token.of.o', 'long@example.com' => $LONG);

my %relay = map {
    $_ => $t->run_relay(name => $_, users => \%users,
        $_ eq 'clear' ? () : (certificate => { cert => $crt, key => $key }));
} qw(a b clear);

$t->write_file('users', 'carol@example.com:' . $t->crypt('in a file') . "\n");

my $redis = $t->run_redis();

$t->conf(<<'EOC');
mail {
    server_name            edge.example.com;
    policy                 on;
    policy_redis           redis://127.0.0.1:%%PORT_redis%%;
    policy_auth            relay;
    policy_auth_delay      0;
    policy_auth_methods    plain login xoauth2 oauthbearer;
    policy_auth_plaintext  on;
    proxy_ssl_verify       off;
    proxy_starttls         required;
    max_errors             100;

    policy_lookup  $home  home:$sasl_username  a;

    map $sasl_username $group {
        bob@example.com  b;
        default          a;
    }

    upstream a { server 127.0.0.1:%%PORT_a%%; }

    upstream b {
        server     127.0.0.1:%%PORT_b%%;
        keepalive  4;
    }

    upstream ours {
        server      127.0.0.1:%%PORT_a%%;
        proxy_auth  edge pass-of-edge;
        keepalive   4;
    }

    upstream spread {
        hash    $sasl_username consistent;
        server  127.0.0.1:%%PORT_a%%;
        server  127.0.0.1:%%PORT_b%%;
    }

    server {
        listen      127.0.0.1:%%PORT_one%%;
        protocol    smtp;
        proxy_pass  a;
    }

    server {
        listen      127.0.0.1:%%PORT_kept%%;
        protocol    smtp;
        proxy_pass  b;
    }

    server {
        listen      127.0.0.1:%%PORT_map%%;
        protocol    smtp;
        proxy_pass  $group;
    }

    server {
        listen      127.0.0.1:%%PORT_lookup%%;
        protocol    smtp;
        proxy_pass  $home;
    }

    server {
        listen      127.0.0.1:%%PORT_hash%%;
        protocol    smtp;
        proxy_pass  spread;
    }

    server {
        listen        127.0.0.1:%%PORT_divert%%;
        protocol      smtp;
        proxy_pass    a;
        policy_limit  few key=$sasl_username messages=1/1h on_exceed=relay:b;
    }

    server {
        listen      127.0.0.1:%%PORT_ours%%;
        protocol    smtp;
        proxy_pass  ours;
    }

    server {
        listen      127.0.0.1:%%PORT_server%%;
        protocol    smtp;
        proxy_pass  a;
        proxy_auth  edge pass-of-edge;
    }

    server {
        listen       127.0.0.1:%%PORT_both%%;
        protocol     smtp;
        policy_auth  file:%%DIR%%/users relay;
        proxy_pass   a;
    }

    server {
        listen        127.0.0.1:%%PORT_limited%%;
        protocol      smtp;
        proxy_pass    a;
        policy_limit  net key=$client_net auth_failures=2/15m;
    }

    server {
        listen          127.0.0.1:%%PORT_maybe%%;
        protocol        smtp;
        proxy_pass      127.0.0.1:%%PORT_clear%%;
        proxy_starttls  on;
    }

    server {
        listen                127.0.0.1:%%PORT_in_clear%%;
        protocol              smtp;
        proxy_pass            127.0.0.1:%%PORT_clear%%;
        proxy_starttls        off;
        proxy_auth_plaintext  on;
    }
}
EOC


# relays that offer these mechanisms, and do nothing else out of the way

sub offer {
    my ($mechanisms, %other) = @_;

    $relay{$_}->set(auth => undef, scram => {}, extensions => [ 'PIPELINING',
        $_ eq 'clear' ? () : 'STARTTLS', "AUTH $mechanisms",
        'XCLIENT ADDR LOGIN' ], %other) for keys %relay;
}

offer('PLAIN');
$t->run_nginx();


sub mail {
    my ($c, $name) = @_;

    my @replies = $c->send_mail('a@example.com', [ 'b@example.net' ], "x\n");
    like($replies[-1], qr/^250 /, "$name: mail");
}

sub total { return $relay{ $_[0] }->stats()->{total} }

sub last_of { return ($relay{ $_[0] }->transcripts())[-1] }

sub auth_of { return ($relay{ $_[0] }->received())[-1]{auth} }

sub token {
    my ($c, $how, $user, $token) = @_;

    $user =~ s/=/=3D/g, $user =~ s/,/=2C/g if $how eq 'OAUTHBEARER';

    my $message = ($how eq 'XOAUTH2' ? "user=$user\1" : "n,a=$user,\1")
        . "auth=Bearer $token\1\1";
    my $reply = $c->cmd("AUTH $how " . encode_base64($message, ''));

    # why it is wrong
    return $reply =~ /^334 / ? $c->cmd($how eq 'XOAUTH2' ? '' : 'AQ==')
                             : $reply;
}


# a login and two messages are one connection

my $c = $t->session('one');
like($c->auth_plain('alice@example.com', 'pass-of-alice'), $IN, 'PLAIN: in');
mail($c, 'PLAIN');
mail($c, 'PLAIN, again');
$c->quit();

is(total('a'), 1, 'one connection');
is(auth_of('a'), 'alice@example.com', 'the relay knows the login');
is_deeply([ sort keys %{ ($relay{a}->received())[-1]{xclient} } ], [ 'ADDR' ],
    'XCLIENT: the address, and no login that is not proved yet');
is(scalar(() = last_of('a') =~ /^C: AUTH/mg), 1, 'one AUTH');
like(last_of('a'), qr/^C: QUIT$/m, 'and QUIT in the end');

# by LOGIN, as the client; by whatever the relay has

$c = $t->session('one');
like($c->auth_login('bob@example.com', 'pass-of-bob'), $IN, 'LOGIN: in');
mail($c, 'LOGIN');
$c->quit();
is(auth_of('a'), 'bob@example.com', 'LOGIN: the relay knows the login');

for my $mechanism (qw(LOGIN CRAM-MD5 SCRAM-SHA-256)) {
    offer($mechanism);
    $c = $t->session('one');
    like($c->auth_plain('alice@example.com', 'pass-of-alice'), $IN,
        "by $mechanism: in");
    like(last_of('a'), qr/^C: AUTH $mechanism\b/m, "by $mechanism: as offered");
    mail($c, "by $mechanism");
    $c->quit();

    $c = $t->session('one');
    like($c->auth_plain('alice@example.com', 'wrong'), $WRONG,
        "by $mechanism: wrong");
    $c->quit();
}

# wrong, wrong, right: a refused connection is not used again

offer('PLAIN');
my $before = total('a');
my $errors = () = $t->error_log() =~ /\[error\]/g;

$c = $t->session('one');
like($c->auth_plain('alice@example.com', 'wrong'), $WRONG, 'wrong');
like($c->auth_plain('nobody@example.com', 'x'), $WRONG, 'unknown');
like($c->cmd('MAIL FROM:<a@example.com>'), qr/^530 /, 'wrong: no mail');
like($c->auth_plain('alice@example.com', 'pass-of-alice'), $IN, 'then right');
like($c->auth_plain('alice@example.com', 'pass-of-alice'), qr/^503 /,
    'not twice');
mail($c, 'then right');
$c->quit();

is(total('a') - $before, 3, 'one connection for each attempt');
is(scalar(() = $t->error_log() =~ /\[error\]/g), $errors,
    'a wrong password is no error');
ok($t->error_log() =~ /\[info\].* failed to authenticate as "nobody/,
    'but told');

# what the relay has said, if it is fit to be told

for my $case (
    [ '535 5.7.8 no such thing', qr/^535 5\.7\.8 no such thing$/ ],
    [ '534 5.7.9 Write: a password', qr/^534 5\.7\.9 Write: a password$/ ],
    [ "535-5.7.8 a\n535 5.7.8 b", qr/^535 5\.7\.8 b$/ ],
    [ '535 no code', qr/^535 5\.7\.8 no code$/ ],
    [ '550 no code', qr/^550 5\.7\.0 no code$/ ],
    [ { send => "535 5.7.8 caf\xc3\xa9\r\n" }, $USUAL ],
    [ { send => "535 5.7.8 a\tb\r\n" }, $USUAL ],
    [ { send => "535 5.7.8 " . 'x' x 500 . "\r\n" }, $USUAL ],
    [ '535', $USUAL ],
    [ { trickle => 0.01, then => '535 5.7.8 slow' }, qr/^535 5\.7\.8 slow$/ ],
    [ { trickle => 0.01, then => '235 slow' }, $IN ],
    [ '454 4.7.0 The relay is not well', $LATER ],
    [ '421 4.7.0 Too many', $LATER ],
    [ '250 fine', $LATER ],
    [ '334 more', $LATER ],
    [ 'garbage', $LATER ],
    [ { send => "535 5.7.8 no\n" }, $LATER ],
    [ { send => "235 2.7.0 yes\r\n250 and more\r\n" }, $LATER ],
) {
    my ($reply, $wanted) = @$case;

    offer('PLAIN', auth => $reply);
    $c = $t->session('one');
    like($c->auth_plain('alice@example.com', 'pass-of-alice'), $wanted,
        'relay says ' . (ref $reply ? join(' ', %$reply) : $reply) =~ s/\s+/ /gr);
    $c->quit();
}

# tokens

for my $how (qw(XOAUTH2 OAUTHBEARER)) {
    offer('PLAIN XOAUTH2 OAUTHBEARER');

    $c = $t->session('one');
    like(token($c, $how, 'o=x,y', 'no.token'), $WRONG, "$how: wrong");
    like(token($c, $how, 'o=x,y', 'token.of.o'), $IN, "$how: in");
    mail($c, $how);
    like(last_of('a'), qr/^C: AUTH $how /m, "$how: as it came");
    is(auth_of('a'), 'o=x,y', "$how: the login");

    # the relay goes, and another connection logs in likewise

    $relay{a}->stop();
    $relay{a}->start();
    mail($c, "$how, another connection");
    like(last_of('a'), qr/^C: AUTH $how /m, "$how, another connection: again");
    is(auth_of('a'), 'o=x,y', "$how, another connection: the login");
    $c->quit();

    $c = $t->session('one');
    like(token($c, $how, 'long@example.com', $LONG), $IN, "$how: a long one");
    like(last_of('a'), qr/^C: AUTH $how\nS: 334 \n/m,
        "$how: a long one is not said with the command");
    mail($c, "$how: a long one");
    $c->quit();

    offer('PLAIN LOGIN');
    $c = $t->session('one');
    like(token($c, $how, 'o=x,y', 'token.of.o'), $LATER, "$how: not offered");
    $c->quit();
    unlike(last_of('a'), qr/^C: AUTH/m, "$how: not offered, so nothing is said");
}

$c = $t->session('one');
like($c->cmd('AUTH OAUTHBEARER '
    . encode_base64("n,,\1auth=Bearer token.of.o\1\1", '')), qr/^334 /,
    'a token without a login: refused');
$c->close();

# where it is asked: by the login, and by what is known of it elsewhere

offer('PLAIN');

for my $case ([ 'map', 'alice', 'a' ], [ 'map', 'bob', 'b' ]) {
    my ($where, $who, $to) = @$case;

    my $count = total($to);
    $c = $t->session($where);
    like($c->auth_plain("$who\@example.com", "pass-of-$who"), $IN,
        "$where, $who: in");
    mail($c, "$where, $who");
    $c->quit();
    is(total($to) - $count, 1, "$where, $who: at $to, by one connection");
    is(auth_of($to), "$who\@example.com", "$where, $who: as $who");
}

$redis->cmd('SET', 'mail:home:bob@example.com',
    '127.0.0.1:' . $t->port('b'));

for my $case ([ 'alice', 'a' ], [ 'bob', 'b' ]) {
    my ($who, $to) = @$case;

    my $count = total($to);
    $c = $t->session('lookup');
    like($c->auth_plain("$who\@example.com", "pass-of-$who"), $IN,
        "lookup, $who: in");
    mail($c, "lookup, $who");
    $c->quit();
    is(total($to) - $count, 1, "lookup, $who: at $to, by one connection");
}

$redis->cmd('SET', 'mail:home:edge', 'gone');
$c = $t->session('lookup');
like($c->auth_plain('edge', 'pass-of-edge'), $LATER, 'no such group: later');
ok($t->error_log() =~ /no upstream "gone", which "proxy_pass \$home" gave/,
    'no such group: the log says so');
$c->quit();

for my $who (qw(alice bob)) {
    my $count = total('a') + total('b');
    $c = $t->session('hash');
    like($c->auth_plain("$who\@example.com", "pass-of-$who"), $IN,
        "hash, $who: in");
    mail($c, "hash, $who");
    $c->quit();
    is(total('a') + total('b') - $count, 1, "hash, $who: one connection");
}

# a message that goes elsewhere: logged in there, and the first one is left

$c = $t->session('divert');
like($c->auth_plain('alice@example.com', 'pass-of-alice'), $IN, 'divert: in');
mail($c, 'divert, the first one');
$c->quit();
my @count = map { total($_) } qw(a b);
$c = $t->session('divert');
like($c->auth_plain('alice@example.com', 'pass-of-alice'), $IN, 'divert: in');
mail($c, 'divert, the second one');
is(auth_of('b'), 'alice@example.com', 'divert: logged in there as well');
ok($t->wait_for(sub { last_of('a') =~ /^C: QUIT$/m }), 'divert: a is left');
is_deeply([ total('a') - $count[0], total('b') - $count[1] ], [ 1, 1 ],
    'divert: one connection to each');
$c->quit();

# nobody else gets a connection that has a login

$before = total('b');

for my $who (qw(alice alice bob)) {
    $c = $t->session('kept');
    like($c->auth_plain("$who\@example.com", "pass-of-$who"), $IN,
        "keepalive, $who: in");
    mail($c, "keepalive, $who");
    is(auth_of('b'), "$who\@example.com", "keepalive, $who: as $who");
    $c->quit();
}

is(total('b') - $before, 3, 'keepalive: one connection for each session');

# the relay closes before the first message: another one

$before = total('a');
$c = $t->session('one');
like($c->auth_plain('alice@example.com', 'pass-of-alice'), $IN, 'lost: in');
$relay{a}->stop();
$relay{a}->start();
mail($c, 'lost before the first message');
is(auth_of('a'), 'alice@example.com', 'lost: logged in again');
$c->quit();

# relays that are logged in to with something else have the client's login
# only to be asked

for my $where (qw(ours server)) {
    $c = $t->session($where);
    like($c->auth_plain('alice@example.com', 'wrong'), $WRONG,
        "$where: the client's own is asked for");
    like($c->auth_plain('alice@example.com', 'pass-of-alice'), $IN,
        "$where: in");
    ok($t->wait_for(sub { last_of('a') =~ /^C: QUIT$/m }),
        "$where: that connection is done with");
    mail($c, $where);
    is(auth_of('a'), 'edge', "$where: mail goes under another login");
    $c->quit();
}

# these connections are everybody's, once their client has left them alone

sleep(1.1);
$before = total('a');
$c = $t->session('ours');
like($c->auth_plain('bob@example.com', 'pass-of-bob'), $IN, 'ours, bob: in');
mail($c, 'ours, bob');
$c->quit();
is(total('a') - $before, 1, 'ours, bob: asked, and no more');
is(auth_of('a'), 'edge', 'ours, bob: by the one that was kept');

# two providers

$before = total('a');
$c = $t->session('both');
like($c->auth_plain('carol@example.com', 'in a file'), $IN, 'both: a file');
is(total('a'), $before, 'both: whom the file knows no relay is asked for');
$c->quit();
$c = $t->session('both');
like($c->auth_plain('alice@example.com', 'pass-of-alice'), $IN,
    'both: the relay');
mail($c, 'both');
$c->quit();

# who has failed too often does not get as far as the relay

$c = $t->session('limited');
like($c->auth_plain('alice@example.com', "wrong $_"), $WRONG, "limited: $_")
    for 1 .. 2;
$before = total('a');
like($c->auth_plain('alice@example.com', 'wrong 3'), qr/^4/, 'limited: enough');
is(total('a'), $before, 'limited: no relay is asked');
$c->quit();

# in clear

for my $mechanisms ('PLAIN LOGIN XOAUTH2 OAUTHBEARER', 'GSSAPI') {
    offer($mechanisms);
    $c = $t->session('maybe');
    like($c->auth_plain('alice@example.com', 'pass-of-alice'), $LATER,
        "in clear, $mechanisms: later");
    like(token($c, 'XOAUTH2', 'o=x,y', 'token.of.o'), $LATER,
        "in clear, $mechanisms: no token either");
    $c->quit();
}

unlike(join('', $relay{clear}->transcripts()), qr/^C: AUTH/m,
    'in clear: nothing is said');

offer('PLAIN XOAUTH2');
$c = $t->session('in_clear');
like($c->auth_plain('alice@example.com', 'pass-of-alice'), $IN,
    'proxy_auth_plaintext: in');
mail($c, 'proxy_auth_plaintext');
$c->quit();

# nothing that is secret is in the log, at its debug level

my $log = $t->error_log();

for my $secret (qw(pass-of-alice pass-of-bob token.of.o), substr($LONG, 0, 99))
{
    my $plain = index($log, $secret) < 0;
    my $coded = !grep { index($log, $_) >= 0 }
        map { substr(encode_base64(('x' x $_) . $secret, ''), 4, 12) } 0 .. 2;
    ok($plain && $coded, 'not in the log: ' . substr($secret, 0, 20));
}

# what cannot work

sub refused {
    my ($name, $text, $wanted) = @_;

    my ($good, $out) = $t->check_conf("mail {
        policy               on;
        policy_auth          relay;
        upstream a { server 127.0.0.1:25; }
        upstream hashed { hash \$sender; server 127.0.0.1:25; }
        $text
    }");

    ok(!$good, "$name: refused");
    like($out, $wanted, "$name: and said why");
}

my $server = 'server { listen 127.0.0.1:%%PORT_one%%; protocol smtp; '
    . 'proxy_starttls required; proxy_ssl_verify off; ';

for my $variable (qw($sender_domain $recipient)) {
    refused("proxy_pass $variable", "map $variable \$x { default a; } "
        . "$server proxy_pass \$x; }",
        qr/"policy_auth relay" asks a relay before .* "proxy_pass \$x" needs: write .*\$sasl_username/);
}

refused('hash $sender', "$server proxy_pass hashed; }",
    qr/"hash \$sender" of upstream "hashed" needs: write "hash \$sasl_username;"/);
refused('no TLS', "server { listen 127.0.0.1:%%PORT_one%%; protocol smtp; "
    . "proxy_pass a; }", qr/"policy_auth relay" needs TLS to send a password/);
refused('no TLS, with proxy_auth', "server { listen 127.0.0.1:%%PORT_one%%; "
    . "protocol smtp; proxy_pass a; proxy_auth a b; }",
    qr/"policy_auth relay" needs TLS to send a password/);
refused('SCRAM', "policy_auth_methods plain scram-sha-256; "
    . "$server proxy_pass a; }", qr/no provider of "policy_auth" can serve SCRAM-SHA-256/);
refused('SCRAM of another provider', "policy_auth_methods plain scram-sha-256; "
    . "$server policy_auth file:%%DIR%%/users relay; proxy_pass a; }",
    qr/logs in by SCRAM-SHA-256 says no password .* write "proxy_auth/);

$t->done(faults => 0);
