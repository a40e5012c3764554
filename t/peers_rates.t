#!/usr/bin/perl

# As peers.t, of what other limiters do wrong with rates: clocks, numbers, and
# what a new configuration makes of what was counted.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Test::More;
use Time::HiRes qw(sleep time);

use MailPolicy;
use MailPolicy::Limits qw(send_one);

# whether shared memory is tried, too
use constant LOCAL => 1;

my $t = MailPolicy->new();
my $redis = $t->run_redis();
my $relay = $t->run_relay(name => 'relay', store => 0);
my ($store, $number) = ('', 0);

# limits of each server, by its port

my %limits = (
    plain  => 'policy_limit plain  key=$sender messages=COUNT/1h;',
    bucket => 'policy_limit bucket key=$sender messages=10/1s,burst=1;',
    window => 'policy_limit window key=$sender messages=4/1s;',
    none   => 'policy_limit free   key=$sender messages=unlimited;
               policy_limit shut   key=$helo   messages=blocked if=$shut;',
    half   => 'policy_limit half   key=$sender messages=1/1h enforce=0%;',
);


# count: messages of the plain one

sub configure {
    my ($count) = @_;

    my $line = $store eq 'redis' ? 'policy_redis'
        . ' redis://127.0.0.1:%%PORT_redis%% timeout=5s;' : '';
    my $servers = join('', map { <<"EOC" } sort keys %limits);
    server {
        listen      127.0.0.1:%%PORT_${store}_$_%%;
        protocol    smtp;
        @{[ $limits{$_} =~ s,COUNT,$count,r ]}
    }
EOC

    $t->conf($store, <<"EOC");
worker_processes 2;

mail {
    $line
    policy       on;
    policy_auth  off;
    max_errors   10000;
    proxy_pass   127.0.0.1:%%PORT_relay%%;
    map \$helo \$shut { default 0; shut.example 1; }
    $servers
}
EOC
}


for (qw(redis), LOCAL ? 'memory' : ()) {
    $store = $_;
    configure(5);
    $t->run_nginx($store);

    no_clock_of_a_second();
    zero_and_unlimited();
    history_stays();

    $t->stop($store);
}

$t->done();


sub session {
    my ($where, $name) = @_;

    return $t->session("${store}_$where", helo => $name);
}


sub named { return "$store: $_[0]: $_[1]" }

# a sender that has sent nothing
sub sender { return 's' . ++$number . '@example.com' }

sub messages_left {
    my ($where, $sender) = @_;

    my $c = session($where);
    my $count = 0;

    $count++ while $count < 50 && send_one($c, $sender) =~ /^250/;
    $c->quit();
    return $count;
}


# KumoMTA's GCRA in Lua: all in a second have one time

sub no_clock_of_a_second {
    my $name = 'a clock of one second';

    for my $where (qw(bucket window)) {
        my ($sender, $c) = (sender(), session($where));
        my ($begin, @passed) = time();

        # at the earliest it was asked at $begin, and at the latest just now
        until (@passed == 8 || time() - $begin > 8) {
            push @passed, time() - $begin
                if send_one($c, $sender) =~ /^250/;
            sleep(0.005);
        }

        is(scalar @passed, 8, named($name, "$where: eight"));
        my @early = grep { $passed[$_]
            < ($where eq 'bucket' ? 0.1 * $_ : $_ < 4 ? 0 : 1) } 0 .. $#passed;
        is("@early", '', named($name, "$where: none too early"))
            or diag("@passed");
        note("$where: " . join(' ', map { sprintf('%.3f', $_) } @passed));
    }
}


# haraka-plugin-limit PR#80: unlimited taken for a wrong number; rspamd#4637: a
# factor that came down to 0

sub zero_and_unlimited {
    my $name = '0 and unlimited are not the same';
    my $sender = sender();

    is(messages_left('none', $sender), 50, named($name, 'unlimited'));
    like(send_one(session('none', 'shut.example'), $sender), qr/^450/,
        named($name, 'blocked'));
    is(messages_left('none', $sender), 50, named($name, 'unlimited again'));

    my ($good, $said) = $t->check_conf(<<'EOC');
mail { policy_limit a key=$sender messages=0;
server { listen 127.0.0.1:%%PORT_c%%; protocol smtp; policy on;
         policy_auth off; proxy_pass 127.0.0.1:25; } }
EOC
    ok(!$good, named($name, '0 is refused'));
    like($said, qr/blocked/, named($name, 'and it is said what to write'));

    is(messages_left('half', $sender), 50,
        named('a multiplier at 0 blocks for ever', 'a share of 0'));
}


# KumoMTA, Stalwart: the limit is in the key, a new one begins with nothing

sub history_stays {
    my $name = 'another limit forgets what was counted';
    my $sender = sender();
    send_one(session('plain'), $sender) for 1 .. 3;

    for my $count (3, 7, 4, 5) {
        $t->disconnect();
        configure($count);
        ok($t->reload($store), named($name, "$count: reload"));

        my $c = session('plain');
        my @replies = $c->pipeline(("MAIL FROM:<$sender>", 'RSET'));
        is(substr($replies[0], 0, 3), $count > 3 ? 250 : 450,
            named($name, "three of $count"));
    }

    is(messages_left('plain', $sender), 2, named($name, 'two are left of 5'));
}
