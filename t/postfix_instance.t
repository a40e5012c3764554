#!/usr/bin/perl

# One message is one charge, whatever the number of connections by which a
# real Postfix asks for it: one a question, one for each way in which the
# service is written, a new one amid a message that comes slowly, and after a
# reload.  Octets that were not declared are charged at the end.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Test::More;
use Time::HiRes qw(sleep);

use MailPolicy;
use MailPolicy::Limits qw(codes is_used used);
use MailPolicy::Policy;
use MailPolicy::Postfix;

my $missing = MailPolicy::Postfix::missing();
plan(skip_all => $missing) if $missing;

my $t = MailPolicy->new();
my $redis = $t->run_redis();
my $dir = $t->dir();

# spaces are commas in master.cf
my $inet = 'inet:127.0.0.1:' . $t->port('policy');
my $unix = "unix:$dir/policy.sock";

sub asks {
    my (%service) = @_;
    my %stage = (rcpt => 'recipient', data => 'data', end => 'end_of_data');

    return map { "smtpd_$stage{$_}_restrictions="
        . join(',', map { "check_policy_service,$_" }
            ref $service{$_} ? @{ $service{$_} } : $service{$_})
    } sort keys %service;
}

my @ALL = asks(rcpt => [ $inet, $inet ], data => $inet, end => $inet);

my $postfix = MailPolicy::Postfix->new($t,
    smtpd => {
        all     => \@ALL,
        each    => [ @ALL, 'smtpd_policy_service_request_limit=1' ],
        slow    => [ @ALL, 'smtpd_policy_service_max_idle=1s' ],
        old     => [ @ALL, 'smtpd_policy_service_max_ttl=1s' ],
        mixed   => [ asks(rcpt => $inet, data => $unix, end => $inet) ],
        context => [ '{' . (asks(rcpt => 'rcpt'))[0]
            =~ s/,rcpt$/ { $inet, policy_context=rcpt }/r =~ s/,/ /r . '}',
            asks(data => $unix, end => $inet) ],
        end     => [ asks(end => $unix) ],
    },
    main => [ 'smtpd_error_sleep_time = 0' ]);

$t->conf(<<"END");
worker_processes  2;
error_log         $dir/error.log  notice;

mail {
    policy_redis  redis://127.0.0.1:%%PORT_redis%% timeout=5s;

    policy_limit  sender  key=\$sender  messages=1000/1h  recipients=1000/1h
                          bytes=100k/1h;

    server {
        listen    127.0.0.1:%%PORT_policy%%;
        listen    unix:%%DIR%%/policy.sock;
        protocol  policy;
    }

    server {
        listen        127.0.0.1:%%PORT_other%%;
        protocol      policy;
        policy_limit  other  key=\$sender  messages=1000/1h;
        policy_limit  pair   key=\$sender/\$recipient  bytes=1m/1h;
    }
}
END
$t->run_nginx();

# a message to three, and what happens amid it: before its end, or often

sub mail {
    my ($c, $from, %option) = @_;

    my $pause = $option{pause} // sub {};
    my $often = $option{often} // 1;
    my @codes = codes($c->cmd("MAIL FROM:<$from>"
        . (defined $option{size} ? " SIZE=$option{size}" : '')));

    for my $n (1 .. 3) {
        push @codes, codes($c->cmd("RCPT TO:<r$n\@example.net>"));
        $pause->() if $n == 1 && $often;
    }

    $pause->() if $often;
    push @codes, codes($c->cmd('DATA'));
    $pause->();
    push @codes, codes($c->cmd("Subject: x\r\n\r\n" . ('x' x 78 . "\r\n")
        x ($option{lines} // 1) . '.'));

    return "@codes";
}


my %PAUSE = (slow => sub { sleep(2.1) }, old => sub { sleep(1.1) });

for my $port (qw(all each mixed context end slow old)) {
    my $c = $t->session($port);
    my $from = "$port\@example.com";

    for my $n (1, 2) {
        is(mail($c, $from, pause => $PAUSE{$port},
            often => 0),
            '250 250 250 250 354 250', "$port: message $n");
        is_used($redis, "$port: message $n is charged once", 'sender', $from,
            messages => $n, recipients => 3 * $n, timeout => 5);
        last if $PAUSE{$port};
    }

    $c->quit();
}

# reloads amid a message

for my $port (qw(all each mixed)) {
    my $c = $t->session($port);
    my $from = "reload-$port\@example.com";

    is(mail($c, $from, pause => sub { $t->reload() }),
        '250 250 250 250 354 250', "$port: reloads");
    is_used($redis, "$port: reloads: charged once", 'sender', $from,
        messages => 1, recipients => 3, timeout => 5);
    $c->quit();
}


# octets: what was not declared is asked for at the end, once

for my $port (qw(all each end)) {
    for my $declared (undef, 1000, 60_000) {
        my $c = $t->session($port);
        my $from = ($declared // 'no') . "-$port\@example.com";

        is(mail($c, $from, lines => 500, size => $declared),
            '250 250 250 250 354 250', "$from: a message of 40000 octets");

        my $bytes = used($redis, 'sender', $from, 'bytes');
        my $large = ($declared // 0) > 40_000 && $port ne 'end';
        my $expected = $large ? $declared : 40_200;

        cmp_ok(abs($bytes - $expected), '<', 300, "$from: is charged")
            or diag($bytes);
        $c->quit(), next if $large;

        is(mail($c, $from, lines => 500, size => $declared),
            '250 250 250 250 354 250', "$from: another one");
        $bytes = used($redis, 'sender', $from, 'bytes');
        is((mail($c, $from, lines => 500) =~ /(\d+)$/)[0], '450',
            "$from: the third one is deferred at its end");

        # what another connection has charged stands
        is_used($redis, "$from: and costs nothing", 'sender', $from,
            bytes => $bytes + ($port eq 'each' ? 1 : 0), timeout => 5);
        $c->quit();
    }
}


# other limits are another ledger; no instance, no memory

my $p = MailPolicy::Policy->new($t, 'policy');
my $other = MailPolicy::Policy->new($t, 'other');
my @ONE = (instance => 'one', sender => 'one@example.com');

for my $ask ($p, $other, $p, $other, MailPolicy::Policy->new($t, 'policy')) {
    is($ask->ask(@ONE, protocol_state => 'DATA', recipient_count => 2),
        'DUNNO', 'one message, two ledgers');
}

is_used($redis, 'is charged in the one', 'sender', 'one@example.com',
    messages => 1, recipients => 2, timeout => 5);
is_used($redis, 'and in the other', 'other', 'one@example.com',
    messages => 1, timeout => 5);

for (1 .. 3) {
    is(MailPolicy::Policy->new($t, 'policy')->ask(instance => '',
        sender => 'none@example.com'), 'DUNNO', 'no instance');
}

is_used($redis, 'each is one', 'sender', 'none@example.com', messages => 3,
    recipients => 3, timeout => 5);

# two ways at once: each of them asks about each recipient, and at the end

{
    my ($q, $r) = map { MailPolicy::Policy->new($t, $_) } 'policy',
        "$dir/policy.sock";
    my @BOTH = (instance => 'both', sender => 'both@example.com');

    for my $to (qw(a b c)) {
        is($_->ask(@BOTH, recipient => $to), 'DUNNO', "both: $to") for $q, $r;
    }

    for my $state ('DATA', 'END-OF-MESSAGE') {
        is($_->ask(@BOTH, protocol_state => $state, recipient_count => 3,
            recipient => '', size => $state eq 'DATA' ? 0 : 5000), 'DUNNO',
            "both: $state") for $r, $q;
    }

    is_used($redis, 'both: charged once', 'sender', 'both@example.com',
        messages => 1, recipients => 3, bytes => 5000, timeout => 5);
}

# a recipient that was refused is asked for again, another one is charged

my @FEW = (instance => 'few', sender => 'few@example.com');
$redis->cmd('HSET', 'mail:limit:sender:{few@example.com}',
    recipients => '2/1h');

is(join(' ', map { MailPolicy::Policy->new($t, 'policy')
    ->ask(@FEW, recipient => $_) =~ s/ .*//r } qw(a a b b c c a)),
    'DUNNO DUNNO DUNNO DUNNO DEFER_IF_PERMIT DEFER_IF_PERMIT DEFER_IF_PERMIT',
    'each question by a connection of its own');
is_used($redis, 'two are charged', 'sender', 'few@example.com', messages => 1,
    recipients => 2, timeout => 5);


# what was paid is given back with an answer that does not get out, and nobody
# takes it for paid

for my $paid (0, 1) {
    my @GONE = (instance => "gone$paid", sender => "gone$paid\@example.com");
    my $gone = MailPolicy::Policy->new($t, 'policy');

    is($gone->ask(@GONE, recipient => 'a'), 'DUNNO', 'a recipient') if $paid;
    $redis->signal('STOP');
    $gone->client()->send_raw($gone->request(@GONE, recipient => 'b'));
    sleep(0.2);
    $gone->client()->reset();
    sleep(0.2);
    $redis->signal('CONT');
    is_used($redis, "gone: $paid is charged", 'sender', $GONE[3],
        messages => $paid, recipients => $paid, timeout => 2);

    for (1, 2) {
        is(MailPolicy::Policy->new($t, 'policy')->ask(@GONE,
            recipient => 'b'), 'DUNNO', 'gone: another connection');
    }

    is_used($redis, 'gone: is charged', 'sender', $GONE[3], messages => 1,
        recipients => 1 + $paid, timeout => 2);
}


# so it is at the end: what others take for paid stands

{
    my @END = (instance => 'last', sender => 'last@example.com');
    my @AT = (protocol_state => 'END-OF-MESSAGE', recipient => '',
        recipient_count => 4, size => 5000);
    my ($first, $gone) = map { MailPolicy::Policy->new($t, 'other') } 1, 2;

    is($first->ask(@END, recipient => 'a'), 'DUNNO', 'end: a recipient');
    is($gone->ask(@END, recipient => 'b'), 'DUNNO', 'end: another one');
    is($gone->ask(@END, recipient => 'c'), 'DUNNO', 'end: and a third one');

    $redis->signal('STOP');
    $gone->client()->send_raw($gone->request(@END, @AT));
    sleep(0.2);
    $gone->client()->reset();
    sleep(0.2);
    $redis->signal('CONT');

    is(MailPolicy::Policy->new($t, 'other')->ask(@END, @AT), 'DUNNO',
        'end: once more');
    is_used($redis, "end: $_ is charged", 'pair', "last\@example.com/$_",
        timeout => 5, bytes => 1) for qw(a b c);
}


# what is remembered has bounds: the oldest are forgotten, and charged anew

sub asked {
    my ($p, @instances) = @_;

    my $n = 0;

    while (my @some = splice(@instances, 0, 200)) {
        $p->client()->send_raw(join('', map { $p->request(instance => $_,
            protocol_state => 'DATA', sender => 'many@example.com',
            client_address => '', recipient_count => 1) } @some));
        $n += grep { $p->answer() eq 'DUNNO' } @some;
    }

    return $n;
}

$redis->cmd('HSET', 'mail:limit:sender:{many@example.com}',
    messages => '1000000/1h', recipients => '1000000/1h');

{
    my $count = $ENV{TEST_INSTANCES} // 40_000;

    is(asked($p, map { "m$_" } 1 .. $count), $count, 'very many messages');

    my $before = used($redis, 'sender', 'many@example.com');
    is($before, $count, 'are charged');

    $p = MailPolicy::Policy->new($t, 'policy');
    asked($p, map { 'm' . ($count - $_) } 0 .. 999);
    is(used($redis, 'sender', 'many@example.com'), $count,
        'the last ones are known');
    asked($p, map { "m$_" } 1 .. 1000);
    cmp_ok(used($redis, 'sender', 'many@example.com') - $count, '>', 500,
        'most of the first ones are not');
}

$postfix->stop();
$t->done();
