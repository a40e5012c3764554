#!/usr/bin/perl

# What a client is told: message=, in one line behind code and enhanced code,
# with what variables are at that moment, made harmless; the words that are
# said without it.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Test::More;

use MailPolicy;
use MailPolicy::Limits qw(lasting send_one);

# the same without policy_redis, but what only an entry can do
use constant LOCAL => 1;

# sessions, auth_failures and limits that refuse nobody, there
use constant LOCAL_ALL => 1;

my $t = MailPolicy->new();
my $redis = $t->run_redis();
my $relay = $t->run_relay(name => 'relay',
    extensions => [ qw(PIPELINING SIZE 8BITMIME SMTPUTF8) ]);

$t->write_file('users', join('', map { "$_:" . $t->crypt('secret') . "\n" }
    'alice@example.com', "%s%n\xc3\xa4\@example.com"));

# name => [ what a limit has, its message, what a server has besides ]

my %SERVERS = (
    plain   => [ 'messages=blocked', 'No more of this.' ],
    reject  => [ 'messages=blocked on_exceed=reject', 'Call 555-0100; bye' ],
    limit   => [ 'messages=1/1h',
        'L=$limit R=$retry_after LEFT=$limit_remaining V=$verdict.' ],
    never   => [ 'messages=blocked', 'R=$retry_after V=$verdict.' ],
    reject2 => [ 'messages=1/1h on_exceed=reject',
        'V=$verdict ${retry_after}s' ],
    who     => [ 'messages=blocked',
        'S=$sender L=$sender_local D=$sender_domain H=$helo A=$remote_addr '
        . 'P=$protocol U=$sasl_username.' ],
    rcpt    => [ 'messages=blocked', 'not $recipient ($recipient_domain)' ],
    breaks  => [ 'messages=blocked', 'a${broken}b' ],
    empty   => [ 'messages=blocked', '$sasl_username' ],
    part    => [ 'messages=blocked', '[$sasl_username]' ],
    longest => [ 'messages=blocked', 'x' x 400 ],
    grows   => [ 'messages=blocked', '$sender$sender$sender$sender END' ],
    size    => [ 'bytes=1000/1d', 'SIZE=$message_size' ],
    conn    => [ 'connections=1/1h', 'H=$helo. once an hour' ],
    open    => [ 'sessions=1', 'one $limit' ],
    auth    => [ 'auth_failures=1/1h', '$limit, $retry_after s %s%n%d' ],
    report  => [ 'messages=1/1h on_exceed=report', 'never said' ],
    bare    => [ 'messages=1/1h' ],
    bare550 => [ 'messages=1/1h on_exceed=reject' ],
    odd     => [ 'messages=blocked',
        q{back\\\\slash "quotes" 'single' %s%n%d {x}; #$sender} ],
);

# nginx makes CR, LF and a tab of what is between the quotes

my $MAPS = qq{    map \$sender \$broken {
        default  "\\r\\n250 2.0.0 Ok\\r\\n\\t\1\x7f\xff";
    }
};


sub server {
    my ($name, $store) = @_;

    my ($limit, $message) = @{ $SERVERS{$name} };
    my $key = $name eq 'rcpt' ? '$recipient' : '$client_net';
    my $auth = $name eq 'auth' ? 'file:%%DIR%%/users' : 'off';

    $message = defined $message
        ? '"message=' . $message =~ s/"/\\"/gr . '"' : '';

    return "    server { listen 127.0.0.1:%%PORT_${name}_$store%%; "
        . "protocol smtp; policy on; policy_auth $auth;\n"
        . "        policy_limit $name key=$key $limit $message; }\n";
}


sub conf {
    my ($store, $redis) = @_;

    my $sets = $store eq 'redis' || LOCAL_ALL;
    my @names = grep { $sets || !/^(?:open|auth)$/ } sort keys %SERVERS;

    $t->conf($store, "error_log %%DIR%%/$store.error.log info;\n"
        . "mail {\n    $redis\n"
        . "    proxy_pass 127.0.0.1:%%PORT_relay%%;\n"
        . "    policy_auth_plaintext on;\n"
        . "    smtp_capabilities PIPELINING SIZE SMTPUTF8 8BITMIME;\n"
        . "    access_log %%DIR%%/$store.access.log;\n$MAPS"
        . join('', map { server($_, $store) } @names) . "}\n");
    $t->run_nginx($store);
}


sub session {
    my ($where, $helo) = @_;

    return $t->session($where, helo => $helo);
}


# the reply to MAIL, which is one line as it has to be on the wire

sub told {
    my ($where, $sender, %option) = @_;

    local $Test::Builder::Level = $Test::Builder::Level + 1;

    my $c = session($where, $option{helo});
    my $reply = $c->cmd('MAIL FROM:<' . ($sender // 'a@example.com') . '>'
        . ($option{parameters} // ''));

    on_wire("$where: " . substr($sender // '', 0, 9) =~ s/[^ -~]/?/gr, $reply);
    is($c->cmd('NOOP'), '250 2.0.0 Ok', "$where: in step with the client");
    $c->quit();
    return $reply;
}


sub on_wire {
    my ($name, $reply) = @_;

    local $Test::Builder::Level = $Test::Builder::Level + 1;

    ok($reply =~ /^[245]\d\d [245]\.\d+\.\d+ [ -~]*\z/
        && length($reply) + 2 <= 512, "$name: one line of a reply")
        or diag(length($reply), ': ', $reply);
}


conf(redis => 'policy_redis redis://127.0.0.1:%%PORT_redis%% timeout=5s;');
conf(local => '') if LOCAL;

for my $s ('redis', LOCAL ? 'local' : ()) {

    # code and enhanced code are not the operator's to choose

    is(told("plain_$s"), '450 4.7.1 No more of this.', "$s: defer");
    is(told("reject_$s"), '550 5.7.1 Call 555-0100; bye', "$s: reject");
    is(told("longest_$s"), '450 4.7.1 ' . 'x' x 400, "$s: 400 characters");
    is(told("odd_$s", 'x@example.com'), '450 4.7.1 back\\slash "quotes" '
        . q{'single' %s%n%d {x}; #x@example.com}, "$s: odd characters");

    # what the limit says of itself

    my $c = session("limit_$s");
    like(send_one($c, 'a@example.com'), qr/^250 /, "$s: the first");
    like($c->cmd('MAIL FROM:<a@example.com>'),
        qr/^450 4\.7\.1 L=limit R=3[56]\d\d LEFT=0 V=defer\.$/,
        "$s: \$limit and its like");
    like(told("never_$s"), qr/^450 4\.7\.1 R=0? V=defer\.$/,
        "$s: blocked, there is no time");
    $c = session("reject2_$s");
    send_one($c, 'a@example.com');
    like($c->cmd('MAIL FROM:<a@example.com>'),
        qr/^550 5\.7\.1 V=reject 3[56]\d\ds$/, "$s: \$verdict of reject");

    # what the client says of itself, of this transaction

    is(told("who_$s", 'Bob.X@Example.ORG', helo => 'h.example'),
        '450 4.7.1 S=Bob.X@Example.ORG L=Bob.X D=example.org H=h.example '
        . 'A=127.0.0.1 P=ESMTP U=.', "$s: variables");
    like(told("who_$s", ''), qr/ S= L= D= H=/, "$s: the null sender");

    for my $sender ('%s%n%999999d@example.com', '"a b\\"c"@example.com',
        '"<script>"@example.com', '"a\\\\"@example.com', '$limit@example.com',
        '"250-x"@example.com', 'a@[192.0.2.1]', q('`|{}~!#&*@example.com))
    {
        like(told("who_$s", $sender, helo => '%s%n\\r\\n'),
            qr/ S=\Q$sender\E L=.* H=%s%n\\r\\n /, "$s: as it is: $sender");
    }

    # not ASCII, RFC 6531: this is an answer to whom may not understand it
    like(told("who_$s", "\xc3\xa4\xe2\x82\xac\@example.com",
            parameters => ' SMTPUTF8'),
        qr/ S=\?+\@example\.com L=\?+ D=/, "$s: UTF-8 is not passed on");

    $c = session("rcpt_$s");
    $c->cmd('MAIL FROM:<a@example.com>');
    is($c->cmd("RCPT TO:<$_\@N$_.Example>"),
        "450 4.7.1 not $_\@N$_.Example (n$_.example)", "$s: RCPT: $_")
        for qw(a b);
    $c->quit();

    # a variable may bring anything: no line ends with it but ours

    is(told("breaks_$s"), '450 4.7.1 a??250 2.0.0 Ok?? ???b',
        "$s: CR LF of a map");

    # nothing, and too much

    is(told("empty_$s"), '450 4.7.1 Rate limit "empty" exceeded',
        "$s: where nothing is left, the usual words are");
    is(told("part_$s"), '450 4.7.1 []', "$s: a variable that is empty");

    my $long = ('l' x 64) . '@' . join('.', ('d' x 60) x 3);
    is(told("grows_$s", $long), '450 4.7.1 '
        . substr($long x 4, 0, 480), "$s: what is too long is cut");
    like(told("grows_$s", 'a@b.example'), qr/ END$/, "$s: what fits is not");

    # at the other points

    $c = session("size_$s");
    is($c->cmd('MAIL FROM:<a@example.com> SIZE=1234'),
        '552 5.3.4 SIZE=1234', "$s: more than ever passes");
    my @long = ('a@example.com', [ 'b@example.net' ], "x\n" x 600);
    is(($c->send_mail(@long))[-1], '552 5.3.4 SIZE=1800',
        "$s: the same at the end of the message");
    like(send_one($c, 'a@example.com'), qr/^250 /, "$s: a short one");
    is($c->cmd('MAIL FROM:<a@example.com> SIZE=999'), '450 4.7.1 SIZE=999',
        "$s: not now");
    $long[2] = 'x' x 997;
    is(($c->send_mail(@long))[-1], '450 4.7.1 SIZE=999',
        "$s: not now, at the end of the message");
    is($c->cmd('NOOP'), '250 2.0.0 Ok', "$s: in step behind it");

    session("conn_$s")->quit();
    $c = $t->client("conn_$s");
    $c->greeting();
    is($c->read_reply(), '421 4.7.0 H=. once an hour', "$s: connections");
    ok($c->wait_close(), "$s: connections: closed");

    # without message=

    $c = session("bare_$s");
    send_one($c, 'a@example.com');
    like($c->cmd('MAIL FROM:<a@example.com>'),
        qr/^450 4\.7\.1 Rate limit "bare" exceeded, retry in 3[56]\d\d s$/,
        "$s: the usual words");
    $c = session("bare550_$s");
    send_one($c, 'a@example.com');
    like($c->cmd('MAIL FROM:<a@example.com>'),
        qr/^550 5\.7\.1 Rate limit "bare550" exceeded, retry in \d+ s$/,
        "$s: the usual words, 550");

    next if $s eq 'local' && !LOCAL_ALL;

    $c = session("report_$s");
    like(send_one($c, 'a@example.com'), qr/^250 2\.0\.0 Ok/, "$s: report")
        for 1 .. 2;

    my $first = session("open_$s");
    $c = $t->client("open_$s");
    $c->greeting();
    is($c->read_reply(), '421 4.7.0 one open', "$s: sessions");
    $first->quit();

    $c = session("auth_$s");
    like($c->auth_plain('alice@example.com', 'wrong'), qr/^535 /, 'wrong');
    like($c->auth_plain('alice@example.com', 'secret'),
        qr/^454 4\.7\.0 auth, 3[56]\d\d s %s%n%d$/, "$s: auth_failures");
    is($c->cmd('NOOP'), '250 2.0.0 Ok', "$s: in step behind it");
}

# the log has the words as they were said

my ($line) = grep { ($_->{limit} // '') eq 'breaks' }
    $t->access_log('redis.access.log');
is($line->{reply}, '450 4.7.1 a??250 2.0.0 Ok?? ???b', 'the access log');
is(scalar(grep { /[\0-\x1f\x7f]/ }
        split /\n/, $t->read_file('redis.access.log')), 0,
    'OUT-1 no control octets in it');

$t->disconnect();
$t->stop('redis');
$t->stop('local') if LOCAL;

is_deeply([ lasting($redis) ], [], 'no counter without TTL');

$t->done();
