#!/usr/bin/perl

# What becomes of an excess: deferred, rejected, told in own words, reported
# only, sent by another relay; for a share of the keys, under a condition,
# counted by what was accepted or by what was tried; and all that in any
# mixture.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Test::More;

use MailPolicy;
use MailPolicy::Limits qw(lasting send_one used);

# whether shared memory is tried, too
use constant LOCAL => 1;

my $t = MailPolicy->new();
my $redis = $t->run_redis();
my $relay = $t->run_relay(name => 'relay', extensions => [ 'PIPELINING',
    'SIZE', '8BITMIME', 'SMTPUTF8', 'ENHANCEDSTATUSCODES' ]);
my $over = $t->run_relay(name => 'over');

# limits by the port of their server

my %servers = (
    defer  => 'policy_limit defer key=$sender messages=1/1h on_exceed=defer;',
    reject => 'policy_limit reject key=$sender messages=1/1h recipients=2/1h
                                   on_exceed=reject;',
    words  => 'policy_limit words key=$sender messages=1/1h
                   "message=$limit of $sender: $verdict, (?#
                   )$limit_remaining left, $retry_after s. 100%";',
    report => 'policy_limit report key=$sender messages=1/1h
                                   on_exceed=report;',
    mixed  => 'policy_limit r1 key=$sender messages=1/1h on_exceed=report;
               policy_limit h2 key=$sender messages=2/1h;
               policy_limit r3 key=$sender messages=3/1h on_exceed=report;
               policy_limit e0 key=$sender messages=1/1h enforce=0%
                               on_exceed=reject;',
    none   => 'policy_limit none key=$sender messages=1/1h enforce=0%;',
    third  => 'policy_limit third key=$sender messages=1/1h enforce=30%;',
    most   => 'policy_limit most key=$sender messages=1/1h enforce=70%;',
    if     => 'policy_limit if key=$client_net messages=2/1h if=$limited;',
    login  => 'policy_limit login key=$client_net messages=1/1h
                                  if=$sasl_username;',
    rcpt   => 'policy_limit rcpt key=$sender recipients=2/1h if=$counted;',
    tried  => 'policy_limit tried key=$sender messages=9/1h recipients=9/1h
                                  charge=attempt;',
    few    => 'policy_limit few key=$sender messages=1/1h recipients=2/1h
                                charge=attempt;
               policy_limit sum key=$sender messages=9/1h recipients=9/1h;',
);


sub configure {
    my ($store, $line) = @_;

    my $servers = join('', map { <<"EOF" } sort keys %servers);
    server {
        listen    127.0.0.1:%%PORT_${store}_$_%%;
        protocol  smtp;
        @{[ $servers{$_} =~ s/\(\?#\s*\)//r ]}
    }
EOF

    $t->conf($store, <<"EOF");
mail {
    $line
    policy       on;
    policy_auth  off;
    proxy_pass   127.0.0.1:%%PORT_relay%%;
    access_log   %%DIR%%/$store.access.log;

    map \$sender_domain \$limited {
        default       1;
        free.example  0;
        none.example  "";
        zero.example  00;
    }

    map \$recipient_domain \$counted {
        default       yes;
        free.example  "";
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


# codes of messages of these senders, in one session

sub codes {
    my ($where, @senders) = @_;

    my $c = session($where);
    return join(' ', map { substr(send_one($c, $_), 0, 3) } @senders);
}

# the last record, which may come a little later than the reply

sub recorded {
    my ($text, @expected) = @_;

    local $Test::Builder::Level = $Test::Builder::Level + 1;

    my @now;

    $t->wait_for(sub {
        my $record = ($t->access_log("$store.access.log"))[-1];
        @now = map { $_ // '' }
            @$record{qw(outcome limit limit_action limit_used limit_max)};
        "@now" eq "@expected";
    }, 3);

    is_deeply(\@now, \@expected, "$name: $text: the access log");
}


sub charged {
    my ($text, $limit, $messages, $recipients, $key) = @_;

    local $Test::Builder::Level = $Test::Builder::Level + 1;

    return if $store eq 'local';

    my $used = sub { join(' ', map { used($redis, $limit,
        $key // 'a@example.com', $_) }
        qw(messages recipients)[0 .. defined $recipients]) };
    my $expected = join(' ', $messages, $recipients // ());

    $t->wait_for(sub { $used->() eq $expected }, 3);
    is($used->(), $expected, "$name: $text: charged");
}


sub refusals {
    my $mail = 'MAIL FROM:<a@example.com>';

    is(codes('defer', ('a@example.com') x 3), '250 450 450', "$name: defer");
    recorded('defer', 'deferred', 'defer', 'defer', 1, 1);
    is(codes('reject', ('a@example.com') x 3), '250 550 550',
        "$name: reject");
    recorded('reject', 'rejected', 'reject', 'reject', 1, 1);
    like((session('reject')->pipeline('MAIL FROM:<b@example.com>',
            map { "RCPT TO:<$_\@example.net>" } 1 .. 3))[-1],
        qr/^550 5\.7\.1 Rate limit "reject" exceeded, retry in 3\d{3} s$/,
        "$name: reject: a recipient");

    # own words, and what senders put into them

    my $c = session('words');

    for my $case ([ 'a@example.com', 'a@example.com' ],
        [ '"x\" y"@example.com', '"x\" y"@example.com' ],
        [ '$limit%s%n@example.com', '$limit%s%n@example.com' ],
        [ "\xc3\xa4\@example.com", qr/.{1,2}\@example.com/ ])
    {
        my ($sender, $shown) = @$case;
        $shown = quotemeta($shown) unless ref $shown;
        my $more = $sender =~ /[^ -~]/ ? ' SMTPUTF8' : '';

        for my $n (1, 2) {
            $c->cmd("MAIL FROM:<$sender>$more") =~ /^250/ or last;
            $c->cmd('RCPT TO:<b@example.net>');
            $c->cmd('DATA');
            $c->send_raw("x\r\n.\r\n");
            $c->read_reply();
        }

        like($c->cmd("MAIL FROM:<$sender>$more"), qr/^450 4\.7\.1 words of (?#
            )$shown: defer, 0 left, 3[56]\d\d s\. 100%$/,
            "$name: message= of $sender");
    }

    # counted as far as there is room, and told

    is(codes('report', ('a@example.com') x 3), '250 250 250',
        "$name: report");
    recorded('report', 'accepted', 'report', 'report', 1, 1);
    charged('report', 'report', 1);
    is(codes('report', 'b@example.com'), '250', "$name: report: within");
    recorded('report: within', 'accepted', '', '', '', '');

    # each limit for itself, but none is charged for what one refuses

    is(codes('mixed', ('a@example.com') x 4), '250 250 450 450',
        "$name: mixed");
    recorded('mixed', 'deferred', 'h2', 'defer', 2, 2);
    charged('mixed', @$_) for [ r1 => 1 ], [ h2 => 2 ], [ r3 => 2 ],
        [ e0 => 1 ];

    # a share of the keys, always the same ones

    my @senders = map { "user$_\@example.com" } 1 .. 60;
    my %refused;

    is(codes('none', @senders[0 .. 2, 0 .. 2]), '250 250 250 250 250 250',
        "$name: enforce=0%");
    recorded('enforce=0%', 'accepted', 'none', 'report', 1, 1);

    for my $share ('third', 'most') {
        codes($share, @$_) for [ @senders[0 .. 29] ], [ @senders[30 .. 59] ];
        my @codes = map { split / /, codes($share, @$_) }
            [ @senders[0 .. 29] ], [ @senders[30 .. 59] ];
        $refused{$share} = { map { $codes[$_] eq '450' ? ($_ => 1) : () }
            0 .. $#codes };
    }

    my ($third, $most) = map { scalar keys %{ $refused{$_} } } qw(third most);
    cmp_ok($third, '>=', 9, "$name: enforce=30%: of 60, $third");
    cmp_ok($third, '<=', 27, "$name: enforce=30%: and not more");
    cmp_ok($most, '>=', 33, "$name: enforce=70%: of 60, $most");
    cmp_ok($most, '<=', 51, "$name: enforce=70%: and not more");
    is(scalar(grep { !$refused{most}{$_} } keys %{ $refused{third} }), 0,
        "$name: enforce=: a greater share has all of a smaller one");
    is(codes('third', $senders[(keys %{ $refused{third} })[0]]), '450',
        "$name: enforce=: again");
    is(codes('third', uc $senders[(keys %{ $refused{third} })[0]]), '450',
        "$name: enforce=: in capitals");

    # conditions

    is(codes('if', map { "a\@$_" } qw(free.example none.example) x 2,
        qw(x.example FREE.example x.example x.example free.example)),
        '250 250 250 250 250 250 250 450 250', "$name: if=");
    is(codes('if', 'a@zero.example'), '450', "$name: if=: 00 is a value");
    charged('if=', 'if', 2, undef, '127.0.0.1');
    is(codes('login', ('a@example.com') x 3), '250 250 250',
        "$name: if=: empty");
    is(join(' ', map { substr($_, 0, 3) } session('rcpt')->pipeline($mail,
        map { "RCPT TO:<a\@$_>" } qw(x.example free.example free.example
        x.example x.example free.example))),
        '250 250 250 250 250 450 250', "$name: if=: by the recipient");

    # tried is tried

    $c = session('tried');
    $c->cmd($mail);
    charged('attempt: MAIL', 'tried', 1, 0);
    $c->cmd('RSET');
    charged('attempt: RSET', 'tried', 1, 0);
    $relay->set(rcpt => { match => qr/unknown/, action => '550 5.1.1 no' });
    $c->pipeline($mail, map { "RCPT TO:<$_\@x.example>" } qw(unknown a));
    charged('attempt: RCPT', 'tried', 2, 2);
    $c->close();
    $relay->set(rcpt => undef, mail => '550 5.7.1 not you');
    is(codes('tried', 'a@example.com'), '550', "$name: attempt: refused");
    charged('attempt: refused', 'tried', 3, 2);
    $relay->set(mail => undef, dot => '554 5.7.1 spam');
    is(codes('tried', 'a@example.com'), '554', "$name: attempt: spam");
    charged('attempt: spam', 'tried', 4, 3);
    $relay->set(dot => undef);
    is(codes('tried', 'a@example.com'), '250', "$name: attempt: accepted");
    charged('attempt: accepted', 'tried', 5, 4);

    # what a limit refuses is no attempt, also where another one counts those

    $c = session('few');
    my @replies = $c->pipeline($mail,
        map { "RCPT TO:<$_\@x.example>" } 1 .. 4);
    is(join(' ', map { substr($_, 0, 3) } @replies), '250 250 250 450 450',
        "$name: attempt: two recipients");
    charged('attempt: no more', 'few', 1, 2);
    charged('accepted: beside it', 'sum', 1, 2);
    $c->cmd('RSET');
    charged('attempt: RSET', 'few', 1, 2);
    charged('accepted: RSET', 'sum', 0, 0);
    like($c->cmd($mail), qr/^450 .*"few"/, "$name: attempt: no second");
    charged('accepted: no second', 'sum', 0, 0);
}


configure('redis', 'policy_redis redis://127.0.0.1:%%PORT_redis%% timeout=5s;');
($store, $name) = ('redis', 'Redis');
refusals();
is_deeply([ lasting($redis) ], [], 'no key without TTL');

if (LOCAL) {
    configure('local', '');
    ($store, $name) = ('local', 'shared memory');
    refusals();
}

$t->done(faults => 0);
