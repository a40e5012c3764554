#!/usr/bin/perl

# connections and sessions: how many a client may open in a period, how many
# it, or a login, may have at a time; and that a session's place is free again
# however it ends.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Test::More;

use MailPolicy;
use MailPolicy::Limits qw(used);

# whether shared memory is tried, too
use constant LOCAL => 1;

my $t = MailPolicy->new();
my $redis = $t->run_redis();
my $relay = $t->run_relay(name => 'relay');

$t->certificate('edge');
$t->write_file('users', "alice\@example.com:{PLAIN}secret\n"
    . "bob\@example.com:{PLAIN}secret\n");

# what each server has, by its port; its limit is called like it

my %servers = (
    one      => [ 'key=$client_net sessions=1' ],
    two      => [ 'key=$client_net sessions=2', 'timeout 5s;' ],
    hasty    => [ 'key=$client_net sessions=1', 'timeout 300ms;' ],
    errors   => [ 'key=$client_net sessions=1', 'max_errors 2;' ],
    delay    => [ 'key=$client_net sessions=1', 'smtp_greeting_delay 50ms;' ],
    tls      => [ 'key=$client_net sessions=1', '', ' ssl' ],
    starttls => [ 'key=$client_net sessions=1', 'starttls on;' ],
    proxied  => [ 'key=$client_net sessions=1',
                  'set_real_ip_from 127.0.0.1;', ' proxy_protocol' ],
    open     => [ 'key=$client_net connections=3/1h' ],
    both     => [ 'key=$client_net connections=3/1h sessions=1' ],
    user     => [ 'key=$sasl_username sessions=1 connections=3/1h',
                  'policy_auth file:%%DIR%%/users; max_errors 9;
                   policy_limit client key=$client_net sessions=2;' ],
    told     => [ 'key=$client_net sessions=1 on_exceed=report' ],
    words    => [ 'key=$client_net sessions=1 "message=One is enough, (?#
                   )$client_net"' ],
    attempt  => [ 'key=$client_net sessions=1 charge=attempt' ],
    many     => [ 'key=$client_net sessions=5 connections=30/1h' ],
);


sub configure {
    my ($store, $line) = @_;

    my $servers = '';

    for my $name (sort keys %servers) {
        my ($limit, $more, $listen) =
            map { ($_ // '') =~ s/\(\?#\s*\)//r } @{ $servers{$name} }[0 .. 2];
        my $auth = $more =~ /policy_auth/ ? '' : 'policy_auth off;';

        $servers .= <<"EOF";
    server {
        listen        127.0.0.1:%%PORT_${store}_$name%%$listen;
        protocol      smtp;
        policy_limit  $name $limit;
        $auth $more
    }
EOF
    }

    $t->conf($store, <<"EOF");
worker_processes 2;

mail {
    $line
    policy                 on;
    policy_auth_plaintext  on;
    ssl_certificate        %%DIR%%/edge.crt;
    ssl_certificate_key    %%DIR%%/edge.key;
    proxy_pass             127.0.0.1:%%PORT_relay%%;
    $servers
}
EOF
    $t->run_nginx($store);
}


sub session {
    my ($where, %option) = @_;

    my $c = $t->client($where, %option);

    $c->greeting();
    $c->{hello} = $c->ehlo();
    return $c;
}


# 250 or 421; its session is over then

sub state {
    my ($where, %option) = @_;

    my $c = session($where, %option);
    my ($code) = $c->{hello} =~ /^(\d+|\w+)/;
    $c->close();
    return $code;
}


# a session as soon as there is room: what has ended is on its way to Redis

sub enter {
    my ($where, %option) = @_;

    my $c;
    $t->wait_for(sub { ($c = session($where, %option))->{hello} =~ /^250/ }, 5);
    return $c;
}


sub room {
    my ($name, $where, %option) = @_;

    local $Test::Builder::Level = $Test::Builder::Level + 1;

    my $c = enter($where, %option);
    like($c->{hello}, qr/^250/, "$name: there is room again");
    $c->close();
}


# each way to end: [ name, server, code ]

my @ends = (
    [ 'QUIT',         one    => sub { $_[0]->quit() } ],
    [ 'close',        one    => sub { $_[0]->close() } ],
    [ 'reset',        one    => sub { $_[0]->reset() } ],
    [ 'half close',   one    => sub { $_[0]->half_close() } ],
    [ 'mail, QUIT',   one    => sub { $_[0]->send_mail('a@example.com',
                                          [ 'b@example.net' ], "x\n");
                                      $_[0]->quit() } ],
    [ 'amid a body',  one    => sub { $_[0]->pipeline(
                                          'MAIL FROM:<a@example.com>',
                                          'RCPT TO:<b@example.net>', 'DATA');
                                      $_[0]->send_raw("x\r\n");
                                      $_[0]->close() } ],
    [ 'too early',    one    => sub { $_[0]->send_raw(
                                          "DATA\r\nx\r\n.\r\n") } ],
    [ 'HTTP',         errors => sub { $_[0]->send_raw(
                                          "GET / HTTP/1.1\r\nHost: x\r\n") } ],
    [ 'errors',       errors => sub { $_[0]->pipeline(('X') x 3) } ],
    [ 'asleep',       hasty  => sub { $_[0]->read_reply() } ],
    [ 'greeted late', delay  => sub { $_[0]->close() } ],
    [ 'TLS',          tls    => sub { $_[0]->close() }, tls => 1 ],
    [ 'TLS, reset',   tls    => sub { $_[0]->reset() }, tls => 1 ],
    [ 'STARTTLS',   starttls => sub { $_[0]->starttls(); $_[0]->ehlo();
                                      $_[0]->close() } ],
    [ 'no handshake', starttls => sub { $_[0]->cmd('STARTTLS');
                                        $_[0]->close() } ],
    [ 'bad handshake', starttls => sub { $_[0]->cmd('STARTTLS');
                                         $_[0]->send_raw('x' x 99) } ],
    [ 'an attempt',  attempt => sub { $_[0]->quit() } ],
);


sub sessions {
    my ($store, $name) = @_;

    my $p = "${store}_";
    my $many = qr/^421 4\.7\.0 Too many sessions \(limit "(\w+)"\)$/;

    # one at a time

    for my $end (@ends) {
        my ($how, $where, $code, %option) = @$end;

        my $c = enter("$p$where", %option);
        is(state("$p$where", %option), '421', "$name: $how: another one");
        $code->($c);
        room("$name: $how", "$p$where", %option);
        $c->close();
    }

    # how it is told: behind the greeting, whatever is said then

    my $c = enter("${p}one");
    my $d = $t->client("${p}one");
    like($d->greeting(), qr/^220 /, "$name: the greeting");
    like($d->read_reply(), $many, "$name: and then 421, unasked");
    ok($d->wait_close(), "$name: and closed");

    $d = $t->client("${p}one");
    $d->greeting();
    $d->send_raw("EHLO x\r\nMAIL FROM:<a\@example.com>\r\n");
    like($d->read_reply(), $many, "$name: commands are not looked at");
    ok($d->wait_close(), "$name: and closed, too");
    is(state("${p}one", from => '127.0.0.2'), '250', "$name: another client");
    is(state("${p}two"), '250', "$name: another limit");
    $c->close();
    room("$name: who was refused holds nothing", "${p}one");

    $c = session("${p}words");
    $d = $t->client("${p}words");
    $d->greeting();
    is($d->read_reply(), '421 4.7.0 One is enough, 127.0.0.1',
        "$name: message=");

    # by the address that the PROXY protocol brings

    my @proxied = map {
        my $c = $t->client("${p}proxied");
        $c->send_raw("PROXY TCP4 192.0.2.$_ 192.0.2.9 1024 25\r\n");
        $c->greeting();
        $c->{code} = substr($c->ehlo(), 0, 3);
        $c;
    } 1, 1, 2;

    is(join(' ', map { $_->{code} } @proxied), '250 421 250',
        "$name: PROXY");

    # a limit that reports holds what it has room for, and no more

    my @told = map { session("${p}told") } 1 .. 3;
    is(join(' ', map { substr($_->{hello}, 0, 3) } @told), '250 250 250',
        "$name: reported");

    if ($store eq 'redis') {
        is($redis->cmd('ZCARD', 'mail:lease:told:{127.0.0.1}'), 1,
            "$name: one of three has a lease");
        $_->quit() for @told[1, 2];
        is($redis->cmd('ZCARD', 'mail:lease:told:{127.0.0.1}'), 1,
            "$name: and it keeps it");
    }

    # connections: QUIT gives nothing back

    is(join(' ', map { state("${p}open") } 1 .. 5), '250 250 250 421 421',
        "$name: connections=3/1h");
    $d = $t->client("${p}open");
    $d->greeting();
    like($d->read_reply(),
        qr/^421 4\.7\.0 Rate limit "open" exceeded, retry in 3\d{3} s$/,
        "$name: connections=3/1h: 421");

    # both: all or nothing

    $c = session("${p}both");
    is(join(' ', map { state("${p}both") } 1 .. 5), '421 421 421 421 421',
        "$name: both: one session");
    is(used($redis, 'both', '127.0.0.1', 'connections'), 1,
        "$name: both: who is refused is no connection")
        if $store eq 'redis';
    $c->close();
    room("$name: both", "${p}both");
    $t->wait_for(sub { state("${p}both") eq '250' });
    is(state("${p}both"), '421', "$name: both: no more than three");

    # by login

    my $login = sub {
        my ($user) = @_;
        my $c = session("${p}user");
        $c->{reply} = $c->auth_plain("$user\@example.com", 'secret');
        return $c;
    };

    $c = $login->('alice');
    like($c->{reply}, qr/^235 /, "$name: alice");
    $d = $login->('alice');
    like($d->{reply}, $many, "$name: alice once more");
    ok($d->wait_close(), "$name: alice once more: closed");
    $d = $login->('bob');
    like($d->{reply}, qr/^235 /, "$name: bob");
    is(state("${p}user"), '421', "$name: a third session of the client");
    $c->reset();
    ok($t->wait_for(sub { $c = $login->('alice'); $c->{reply} =~ /^235 / }),
        "$name: alice, when the first is over");
    $c->close();
    $t->wait_for(sub { $c = $login->('alice'); $c->{reply} =~ /^235 / });
    $c->close();
    ok($t->wait_for(sub { $c = $login->('alice');
        $c->{reply} =~ /^421 4\.7\.0 Rate limit "user"/ }),
        "$name: alice has had three connections");

    # all at once, at both workers

    my @parallel = map { $t->client("${p}many") } 1 .. 20;
    $_->greeting() for @parallel;
    $_->send_raw("EHLO x\r\n") for @parallel;
    my %count;
    $count{substr($_->read_reply(), 0, 3)}++ for @parallel;
    is_deeply(\%count, { 250 => 5, 421 => 15 }, "$name: twenty at once");
    $_->close() for @parallel;
    room("$name: twenty gone", "${p}many");

    # the old worker's session counts for the new one

    $c = enter("${p}two");
    $d = enter("${p}two");
    $d->pipeline('MAIL FROM:<a@example.com>', 'RCPT TO:<b@example.net>',
        'DATA');
    $d->send_raw("x\r\n");
    ok($t->reload($store), "$name: reload");
    like($c->read_reply(), qr/^421 4\.3\.2 /, "$name: who is idle goes");
    $c = enter("${p}two");
    like($c->{hello}, qr/^250/, "$name: there is room for one");
    is(state("${p}two"), '421', "$name: and for no other");
    $d->send_raw(".\r\n");
    like($d->read_reply(), qr/^250 /, "$name: the message goes through");
    like($d->read_reply(), qr/^421 4\.3\.2 /, "$name: and then it goes");
    room("$name: it is over", "${p}two");
    $c->close();
}


configure('redis', 'policy_redis redis://127.0.0.1:%%PORT_redis%% timeout=5s;');
sessions('redis', 'Redis');

# nobody gets past the door before the answer

my $held = enter('redis_one');
$redis->signal('STOP');
my @doors = map { $t->client("redis_$_") } qw(one two);
$_->greeting() for @doors;
$_->send_raw("EHLO x\r\n") for @doors;
is(join(' ', map { $_->read_reply(0.2) } @doors), 'TIMEOUT TIMEOUT',
    'RES-8 Redis does not answer: nor do we');
$redis->signal('CONT');
is(join(' ', map { substr($_->read_reply(), 0, 3) } @doors), '421 250',
    'RES-8 Redis answers');

$_->close() for @{ $t->{clients} };
ok($t->wait_for(sub { !(my @leases = $redis->keys('mail:lease:*')) }),
    'no lease is left');
is_deeply([ grep { $_ ne 'mail:events' && $redis->cmd('PTTL', $_) < 0 }
    $redis->keys() ], [], 'no key without TTL');

if (LOCAL) {
    configure('local', '');
    sessions('local', 'shared memory');
}

$t->done(faults => 0);
