#!/usr/bin/perl

# on_exceed=relay:NAME: what exceeds a limit goes another way, from MAIL or
# from a recipient on, and the relay that was asked first hears no more of it.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Test::More;
use Time::HiRes qw(sleep);

use MailPolicy;
use MailPolicy::Limits qw(codes lasting send_one used);

# whether shared memory is tried, too
use constant LOCAL => 1;

my $t = MailPolicy->new();
my $redis = $t->run_redis();
my %relay = map { ($_ => $t->run_relay(name => $_)) } qw(main over third);

my %servers = (
    mail   => 'policy_limit mail key=$sender messages=1/1h
                                 on_exceed=relay:over;',
    rcpt   => 'policy_limit rcpt key=$recipient_domain recipients=1/1h
                                 on_exceed=relay:over;',
    to     => 'policy_limit to key=$recipient messages=1/1h
                               on_exceed=relay:over;',
    two    => 'policy_limit two key=$sender messages=1/1h
                                on_exceed=relay:over;
               policy_limit hard key=$sender messages=2/1h recipients=9/1h;',
    chain  => 'policy_limit c1 key=$sender messages=1/1h
                               on_exceed=relay:over;
               policy_limit c2 key=$sender messages=2/1d
                               on_exceed=relay:third;',
    told   => 'policy_limit told key=$sender messages=1/1h
                                 on_exceed=relay:over;
               policy_limit t2 key=$sender messages=1/1m on_exceed=report;',
    same   => 'policy_limit same key=$sender messages=1/1h
                                 on_exceed=relay:main;',
    route  => 'policy_limit route key=$sender messages=1/1h
                                  on_exceed=relay:over;
               proxy_pass $by_recipient;',
    dead   => 'policy_limit dead key=$sender messages=1/1h
                                 on_exceed=relay:nobody;
               policy_limit beside key=$sender messages=9/1h
                                   recipients=9/1h;',
    bytes  => 'policy_limit bytes key=$sender bytes=1000/1h
                                  on_exceed=relay:over;',
    some   => 'policy_limit some key=$sender messages=1/1h enforce=0%
                                 on_exceed=relay:over;',
    longer => 'policy_limit l2 key=$sender messages=1/1d on_exceed=report;
               policy_limit longer key=$sender messages=1/1h
                                   on_exceed=relay:over;',
);


sub configure {
    my ($store, $line) = @_;

    my $servers = join('', map { <<"EOF" } sort keys %servers);
    server {
        listen    127.0.0.1:%%PORT_${store}_$_%%;
        protocol  smtp;
        @{[ $servers{$_} =~ /proxy_pass/ ? '' : 'proxy_pass main;' ]}
        $servers{$_}
    }
EOF

    $t->conf($store, <<"EOF");
mail {
    $line
    policy       on;
    policy_auth  off;
    access_log   %%DIR%%/$store.access.log;

    upstream main   { server 127.0.0.1:%%PORT_main%%; }
    upstream over   { server 127.0.0.1:%%PORT_over%%; }
    upstream third  { server 127.0.0.1:%%PORT_third%%; }
    upstream nobody { server 127.0.0.1:%%PORT_nobody%%; }

    map \$recipient_domain \$by_recipient {
        default       main;
        over.example  over;
    }
    $servers
}
EOF
    $t->run_nginx($store);
}


my ($store, $name);

sub session {
    my ($where) = @_;

    return $t->session("${store}_$where");
}


# messages at each relay since it was asked last

my %had = map { ($_ => 0) } keys %relay;

sub went {
    my ($text, %expected) = @_;

    local $Test::Builder::Level = $Test::Builder::Level + 1;

    my %went;

    for my $relay (keys %relay) {
        my $has = () = $relay{$relay}->messages();
        $went{$relay} = $has - $had{$relay} if $has != $had{$relay};
        $had{$relay} = $has;
    }

    is_deeply(\%went, \%expected, "$name: $text: where it went");
}


sub charged {
    my ($text, $limit, $unit, $expected, $key) = @_;

    local $Test::Builder::Level = $Test::Builder::Level + 1;

    return if $store eq 'local';

    my $used = sub { used($redis, $limit, $key // 'a@example.com', $unit) };
    $t->wait_for(sub { $used->() eq $expected }, 3);
    is($used->(), $expected, "$name: $text: charged");
}


my $mail = 'MAIL FROM:<a@example.com>';


# one message in commands of their own, and one with all in one write

sub body { my ($c) = @_; $c->send_raw("x\r\n.\r\n"); return $c->read_reply() }

sub one_by_one { my ($c, @to) = @_;
    return codes(map({ $c->cmd($_) } $mail, map({ "RCPT TO:<$_>" } @to),
        'DATA'), body($c)) }

sub at_once { my ($c, @to) = @_;
    return codes($c->pipeline($mail, map({ "RCPT TO:<$_>" } @to), 'DATA'),
        body($c)) }


sub diversions {

    # at MAIL, in one session and in others

    my $c = session('mail');

    is(one_by_one($c, 'b@example.net'), '250 250 354 250', "$name: within");
    went('within', main => 1);
    is(one_by_one($c, 'b@example.net'), '250 250 354 250', "$name: beyond");
    is(at_once($c, 'b@example.net', 'c@example.org'), '250 250 250 354 250',
        "$name: beyond, in one write");
    is(at_once(session('mail'), 'b@example.net'), '250 250 354 250',
        "$name: beyond, in another session");
    went('beyond', over => 3);
    charged('beyond', 'mail', 'messages', 1);
    is(codes(send_one($c, 'b@example.com')), '250', "$name: another sender");
    went('another sender', main => 1);

    my $record = (grep { $_->{limit} }
        $t->access_log("$store.access.log"))[-1];
    is_deeply([ @$record{qw(outcome limit limit_action upstream_name)} ],
        [ 'accepted', 'mail', 'relay', 'over' ], "$name: the access log");

    # by the recipient: the first one chooses the group

    $c = session('rcpt');
    is(one_by_one($c, 'a@x.example'), '250 250 354 250', "$name: rcpt");
    is(one_by_one($c, 'b@x.example', 'c@x.example', 'd@y.example'),
        '250 250 250 250 354 250', "$name: rcpt: beyond, beyond, within");
    is(one_by_one($c, 'e@z.example', 'c@x.example', 'f@w.example'),
        '250 250 452 250 354 250', "$name: rcpt: within, beyond, within");
    went('rcpt', main => 2, over => 1);
    charged('rcpt: x', 'rcpt', 'recipients', 1, 'x.example');
    charged("rcpt: $_", 'rcpt', 'recipients', 1, "$_.example") for qw(w y z);

    $c = session('to');
    at_once($c, 'a@x.example');
    is(at_once($c, 'a@x.example'), '250 250 354 250', "$name: to");
    went('to', main => 1, over => 1);

    # together with others: hard ones, soft ones, a second way

    $c = session('two');
    is(join(',', map { at_once($c, 'b@example.net') } 1 .. 2),
        '250 250 354 250,250 250 354 250', "$name: two");
    like($c->cmd($mail), qr/^450 4\.7\.1 Rate limit "hard"/,
        "$name: two: the hard one");
    went('two', main => 1, over => 1);
    charged('two', 'two', 'messages', 1);
    charged('two: the hard one', 'hard', 'messages', 2);

    at_once($c = session('chain'), 'b@example.net') for 1 .. 4;
    went('chain: the first that relays', main => 1, over => 3);

    at_once($c = session('told'), 'b@example.net') for 1 .. 3;
    went('told', main => 1, over => 2);

    at_once($c = session('same'), 'b@example.net') for 1 .. 3;
    went('same', main => 3);

    $c = session('route');
    is(join(',', map { at_once($c, "b\@$_") } qw(x.example over.example
        x.example)), join(',', ('250 250 354 250') x 3), "$name: route");
    went('route', main => 1, over => 2);

    # the other relay says no, or is not there

    $relay{over}->set(mail => '550 5.7.1 not you');
    $c = session('mail');
    like(send_one($c, 'a@example.com'), qr/^550 5\.7\.1 not you/,
        "$name: the other one refuses MAIL");
    $relay{over}->set(mail => undef, dot => '451 4.3.0 later');
    like(send_one($c, 'a@example.com'), qr/^451 4\.3\.0 later/,
        "$name: the other one defers");
    $relay{over}->set(dot => undef);
    is(codes(send_one($c, 'a@example.com')), '250', "$name: and takes it");
    went('the other one', over => 1);

    $c = session('dead');
    is(codes(map { send_one($c, 'a@example.com') } 1 .. 3), '250 451 451',
        "$name: nobody there");
    charged('nobody there', 'beside', 'messages', 1);
    charged('nobody there', 'beside', 'recipients', 1);
    went('nobody there', main => 1);

    # octets: as declared, and no more when the message is on its way

    $c = session('bytes');
    for my $size (800, 100, 300) {
        is(codes($c->cmd("$mail SIZE=$size"), $c->cmd('RCPT TO:<b@x.example>'),
            $c->cmd('DATA'), $c->send_raw('x' x 498 . "\r\n.\r\n")
            && $c->read_reply()), '250 250 354 250', "$name: SIZE=$size");
    }
    went('octets', main => 2, over => 1);
    charged('octets', 'bytes', 'bytes', 1000);

    # for a share of the keys; beside others that take longer, but do not relay

    at_once($c = session('some'), 'b@example.net') for 1 .. 3;
    went('enforce=0%', main => 3);
    at_once($c = session('longer'), 'b@example.net') for 1 .. 3;
    went('longer', main => 1, over => 2);

    # all of them beyond

    send_one(session('rcpt'), 'a@example.com', 'a@v.example');
    is(at_once(session('rcpt'), map { "$_\@v.example" } 1 .. 4),
        '250 250 250 250 250 354 250', "$name: recipients in one write");
    went('recipients in one write', main => 1, over => 1);
}


configure('redis', 'policy_redis redis://127.0.0.1:%%PORT_redis%% timeout=5s;');
($store, $name) = ('redis', 'Redis');
diversions();
is_deeply([ lasting($redis) ], [], 'no key without TTL');

# What the relay says that was asked first does not matter, also where the
# limits are later.

for my $action ('550 5.7.1 no', '421 4.3.2 no', 'close', 'refuse') {
    $relay{main}->set($action eq 'refuse' ? 'connect' : 'mail' => $action);
    my $c = session('mail');
    $redis->signal('STOP');
    $c->send_raw("$mail\r\n");
    sleep(0.1);
    $redis->signal('CONT');
    is(codes($c->read_reply()), '250', "the first one: $action");
    $c->close();
    $relay{main}->set(mail => undef, connect => undef);
}

if (LOCAL) {
    configure('local', '');
    ($store, $name) = ('local', 'shared memory');
    $had{$_} = () = $relay{$_}->messages() for keys %relay;
    diversions();
}

$t->done(faults => 0);
