#!/usr/bin/perl

# LIMITS of RFC 9422: what EHLO offers is not above what the limits have left,
# and one at least; to those only who may send; at no cost but one question,
# which nobody waits for when Redis is away.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Test::More;
use Time::HiRes qw(sleep time);

use MailPolicy;
use MailPolicy::Limits qw(codes lasting send_one used);

# the same without policy_redis: what counts there is policy_zone
use constant LOCAL => 1;

my $t = MailPolicy->new();
my $redis = $t->run_redis();
my $relay = $t->run_relay(name => 'relay', store => 0);

$t->write_file('users', 'alice@example.com:' . $t->crypt('secret') . "\n");
$t->certificate('localhost');

my @SERVERS = (
    auth   => 'policy_auth file:%%DIR%%/users;
        policy_limit  user  key=$sasl_username  messages=10/1h
                            recipients=20/1h;',
    tls    => 'policy_auth file:%%DIR%%/users;
        starttls only; ssl_certificate %%DIR%%/localhost.crt;
        ssl_certificate_key %%DIR%%/localhost.key;
        policy_limit  user  key=$sasl_username  messages=10/1h
                            recipients=20/1h;',
    net    => 'policy_limit  net  key=$client_net  messages=4/1h
                            recipients=6/1h;',
    less   => 'policy_max_messages 3; policy_max_recipients 5;
        policy_limit  less  key=$client_net  messages=10/1h  recipients=10/1h;',
    two    => 'policy_limit  two_a  key=$client_net   messages=9/1h
                            recipients=30/1h;
        policy_limit  two_b  key=$remote_addr  messages=7/1d  recipients=40/1d;
        policy_limit  two_c  key=$client_net   messages=2/1h  recipients=2/1h
                            on_exceed=report;
        policy_limit  two_d  key=$client_net   messages=2/1h  recipients=2/1h
                            enforce=0%;
        policy_limit  two_e  key=$client_host  messages=1/1h  recipients=1/1h;
        policy_limit  two_f  key=$client_net   if=$never  messages=1/1h;',
    later  => 'policy_limit  later_a  key=$sender     messages=1/1h;
        policy_limit  later_b  key=$recipient  recipients=1/1h;
        policy_limit  later_c  key=$helo       messages=1/1h;',
    many   => 'policy_max_recipients 1000000;
        policy_limit  many  key=$client_net  messages=1000000/1h
                            recipients=1000000/1h;',
    digits => 'policy_max_recipients 1000000;
        policy_limit  digits  key=$client_net  messages=999999/1h
                            recipients=999999/1h;',
    bucket => 'policy_limit  bucket  key=$client_net  messages=1/1h,burst=3
                            recipients=2/1h,burst=9;',
    bytes  => 'policy_limit  bytes  key=$client_net  bytes=1/1h;',
    mute   => 'smtp_capabilities PIPELINING;
        policy_limit  mute  key=$client_net  messages=1/1h;',
    closed => 'policy_limit  closed  key=$client_net  messages=8/1h;',
);


# the servers of one nginx, each with a port of its own

sub servers {
    my ($name) = @_;

    my $text = '';

    for (my $i = 0; $i < @SERVERS; $i += 2) {
        my $auth = $SERVERS[$i + 1] =~ /policy_auth/ ? ''
                                                     : 'policy_auth off;';
        $text .= "    server { listen 127.0.0.1:%%PORT_$SERVERS[$i]_$name%%; "
            . "protocol smtp; policy on; $auth\n$SERVERS[$i + 1] }\n";
    }

    return $text;
}

my $REDIS = 'policy_redis redis://127.0.0.1:%%PORT_redis%% timeout';

for my $case ([ redis => "$REDIS=5s;" ], [ local => '' ],
    map({ [ $_ => "$REDIS=300ms on_error=$_;" ] } qw(closed open)))
{
    my ($name, $store) = @$case;

    $t->conf($name, <<"EOF" . servers($name) . "}\n");
error_log %%DIR%%/$name.error.log info;
mail {
    $store
    proxy_pass    127.0.0.1:%%PORT_relay%%;
    policy_auth_plaintext  on;
    map \$remote_addr \$never { default 0; }
EOF
    $t->run_nginx($name);
}


sub session {
    my ($where) = @_;

    my $c = $t->client($where);

    $c->greeting();
    return $c;
}


# the LIMITS line, or ''; RFC 9422, section 3: names, at most once each, and
# numbers of one to six digits

sub limits {
    my ($reply) = @_;

    my @lines = $reply =~ /^250[- ](LIMITS\b.*)$/mg;

    return '' unless @lines;
    return "not one line: @lines" if @lines > 1;
    return "malformed: $lines[0]"
        unless $lines[0] =~ /^LIMITS(?: (?:MAILMAX|RCPTMAX)=[1-9]\d{0,5})+$/;
    return "twice: $lines[0]" if $lines[0] =~ / (\w+)=.* \1=/;
    return $lines[0] =~ s/^LIMITS //r;
}

sub offered { return limits(session($_[0])->ehlo()) }


for my $store ('redis', LOCAL ? 'local' : ()) {
    my $c = session("auth_$store");

    # a client that is unknown is told what the server allows

    is(limits($c->ehlo()), 'RCPTMAX=1000', "$store: before the login");
    like($c->auth_plain('alice@example.com', 'secret'), qr/^235 /, 'login');
    is(limits($c->ehlo()), 'MAILMAX=10 RCPTMAX=20', "$store: behind it");
    like(send_one($c, 'a@example.com', map { "$_\@example.net" } 1 .. 3),
        qr/^250 /, "$store: three recipients");
    is(limits($c->ehlo()), 'MAILMAX=10 RCPTMAX=17',
        "$store: a message of this session counts for MAILMAX");

    my $other = session("auth_$store");
    $other->ehlo();
    $other->auth_plain('alice@example.com', 'secret');
    is(limits($other->ehlo()), 'MAILMAX=9 RCPTMAX=17', "$store: of another");
    like($other->cmd('HELO client.example'), qr/^250 \S+$/, "$store: HELO");

    $c = session("tls_$store");
    is(limits($c->ehlo()), 'RCPTMAX=1000', "$store: before STARTTLS");
    $c->starttls();
    is(limits($c->ehlo()), 'RCPTMAX=1000', "$store: behind STARTTLS");
    $c->auth_plain('alice@example.com', 'secret');
    is(limits($c->ehlo()), 'MAILMAX=9 RCPTMAX=17', "$store: TLS and a login");
    $c->close();

    # No login is asked for.  What is offered passes, and no more.  Redis has
    # to know all scripts before: one that it is sent comes later.

    $c = session("later_$store");
    $c->ehlo();
    $c->pipeline('MAIL FROM:<a@example.com>', 'RSET');
    $c->quit();

    $c = session("net_$store");
    is(limits($c->ehlo()), 'MAILMAX=4 RCPTMAX=6', "$store: a network");
    is(limits($c->ehlo()), 'MAILMAX=4 RCPTMAX=6', "$store: again, at no cost");
    is(codes($c->pipeline('MAIL FROM:<a@example.com>',
            map { "RCPT TO:<$_\@example.net>" } 1 .. 7)),
        '250 250 250 250 250 250 250 450', "$store: RCPTMAX pass");
    is(limits($c->ehlo()), 'MAILMAX=5 RCPTMAX=6',
        "$store: EHLO, which resets, gives back first");
    is(codes(map { send_one($c, 'a@example.com') } 1 .. 4), '250 250 250 250',
        "$store: MAILMAX pass, in spite of one that was reset");
    is(limits(session("net_$store")->ehlo()), 'MAILMAX=1 RCPTMAX=2',
        "$store: none is left: one is offered");
    like(send_one(session("net_$store"), 'a@example.com'), qr/^503 /,
        "$store: MAIL needs EHLO still");
    $c = session("net_$store");
    $c->ehlo();
    like(send_one($c, 'a@example.com'), qr/^450 4\.7\.1 /,
        "$store: and MAIL says that none is");

    # the least of several; what refuses nobody, or does not apply, is none

    is(offered("less_$store"), 'MAILMAX=3 RCPTMAX=5',
        "$store: the server allows less");
    $c = session("less_$store");
    $c->ehlo();
    send_one($c, 'a@example.com') for 1 .. 2;
    is(limits($c->ehlo()), 'MAILMAX=3 RCPTMAX=5', "$store: less, later on");
    is(offered("two_$store"), 'MAILMAX=7 RCPTMAX=30',
        "$store: several limits");
    is(offered("later_$store"), 'RCPTMAX=1000',
        "$store: keys that are not known yet");
    is(offered("bytes_$store"), 'RCPTMAX=1000', "$store: octets");

    # six digits

    is(offered("many_$store"), '', "$store: seven digits are not offered");
    is(offered("digits_$store"), 'MAILMAX=999999 RCPTMAX=999999',
        "$store: six are");
    is(offered("bucket_$store"), 'MAILMAX=3 RCPTMAX=9', "$store: buckets");

    is(offered("mute_$store"), '', "$store: not listed, not offered");
}

# entries: at once

for my $case (
    [ { messages => '3/1h' }, 'MAILMAX=3 RCPTMAX=20' ],
    [ { messages => 'unlimited' }, 'RCPTMAX=20' ],
    [ { messages => 'unlimited', recipients => 'unlimited' },
        'RCPTMAX=1000' ],
    [ { messages => 'blocked', recipients => 'blocked' },
        'MAILMAX=1 RCPTMAX=1' ],
    [ { suspended => 'yes', messages => 'unlimited' },
        'MAILMAX=1 RCPTMAX=1' ],
    [ { messages => '5/1h,burst=2' }, 'MAILMAX=2 RCPTMAX=20' ],
    [ { messages => 'nonsense' }, 'MAILMAX=10 RCPTMAX=20' ],
    [ { messages => '1099511627776/1h' }, 'RCPTMAX=20' ],
) {
    my ($entry, $expected) = @$case;

    $redis->cmd('FLUSHDB');
    $redis->cmd('HSET', 'mail:limit:user:{alice@example.com}', %$entry);

    my $c = session('auth_redis');
    $c->ehlo();
    $c->auth_plain('alice@example.com', 'secret');
    is(limits($c->ehlo()), $expected,
        'an entry: ' . join(' ', map { "$_ $entry->{$_}" } sort keys %$entry));
}

# what it costs: one question where there is something to be asked, and no key

sub questions { return $redis->cmd('INFO', 'commandstats')
    =~ /cmdstat_evalsha:calls=(\d+)/ ? $1 : 0 }

for my $case ([ net => 1 ], [ two => 1 ], [ mute => 0 ], [ later => 0 ],
    [ auth => 0 ], [ tls => 0 ])
{
    my ($where, $expected) = @$case;

    $redis->cmd('FLUSHDB');

    my $c = session("${where}_redis");
    my $before = questions();

    $c->ehlo();
    is(questions() - $before, $expected, "$where: EHLO asks $expected times");
    is_deeply([ $redis->keys('*') ], [], "$where: and counts nothing");
    $before = questions();
    $c->cmd('HELO client.example');
    is(questions() - $before, 0, "$where: HELO asks nothing");
}

# A client that does not wait, once and again, each way; one that goes on, as
# it may not; and Redis hanging meanwhile.

$redis->signal('STOP');

for my $how (qw(close reset half_close)) {
    for (1 .. 3) {
        my $c = session('net_redis');
        $c->send_raw("EHLO client.example\r\n");
        $c->$how();
    }
}

my $hasty = session('net_redis');
$hasty->send_raw("EHLO client.example\r\n");
sleep(0.1);
$hasty->send_raw("NOOP\r\n");
is($hasty->read_reply(0.2), 'TIMEOUT', 'nothing is said before EHLO is');
$redis->signal('CONT');
is(limits($hasty->read_reply()), 'MAILMAX=4 RCPTMAX=6', 'then EHLO is');
like($hasty->read_reply(), qr/^250 2\.0\.0 /, 'and NOOP');
$hasty->quit();
is_deeply([ $redis->keys('mail:used:*') ], [], 'nothing is counted');

# without Redis: in time, and mail is not refused for it

$redis->signal('STOP');

for my $name (qw(closed open)) {
    for my $n (1 .. 2) {
        my $c = session("closed_$name");
        my $begin = time();
        is(limits($c->ehlo()), 'RCPTMAX=1000', "on_error=$name: EHLO $n");
        cmp_ok(time() - $begin, '<', 3, "on_error=$name: in time");
        $c->quit();
    }
}

# a worker that shuts down while somebody waits for EHLO

my $late = session('net_redis');
$late->send_raw("EHLO client.example\r\n");
sleep(0.2);
$redis->signal('CONT');
ok($t->reload('redis'), 'reload');
like($late->read_reply(), qr/^250-/, 'EHLO is answered');

$t->disconnect();
$t->stop($_) for qw(redis local closed open);

is_deeply([ lasting($redis) ], [], 'no counter without TTL');

$t->done();
