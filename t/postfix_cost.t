#!/usr/bin/perl

# What questions of Postfix cost: one question to Redis for each recipient,
# and none for what is known; on as many connections as a busy Postfix has.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Test::More;

use MailPolicy;
use MailPolicy::Limits qw(used wait_used);
use MailPolicy::Policy;

use constant { CONNECTIONS => 50, MESSAGES => 40 };
use constant ALL => CONNECTIONS * MESSAGES;

my $t = MailPolicy->new();
my $redis = $t->run_redis();

# at info, as two thousand questions are a lot of lines
$t->conf(<<'EOF');
error_log  %%DIR%%/error.log info;

mail {
    policy_redis  redis://127.0.0.1:%%PORT_redis%% timeout=5s;
    policy_limit  user key=$sasl_username messages=1000000/1h
                       recipients=1000000/1h;
    policy_limit  net  key=$client_net messages=1000000/1h;

    server {
        listen    127.0.0.1:%%PORT_policy%%;
        protocol  policy;
    }
}
EOF
$t->run_nginx();

my @policy = map { MailPolicy::Policy->new($t, 'policy') } 1 .. CONNECTIONS;
my @user = map { "u$_\@example.com" } 1 .. CONNECTIONS;

# the first one may find Redis without the script, or not connected yet
ok($t->wait_for(sub {
    $policy[0]->message()->ask(sasl_username => 'first@example.com');
    return used($redis, 'user', 'first@example.com') > 0;
}), 'Redis counts');

my $before = scripts();
is(all(sub { $_[0]->message(); return () }), ALL, ALL . ' messages: DUNNO');
is(scripts() - $before, ALL, 'one question to Redis for each of them');
is(counted(1), CONNECTIONS, 'which all are counted');

# the next restriction, and the stages that come behind RCPT

$before = scripts();
is(all(sub { () }), ALL, 'the same recipient again: DUNNO');
is(all(sub { protocol_state => 'DATA' }), ALL, 'DATA: DUNNO');
is(all(sub { protocol_state => 'END-OF-MESSAGE', recipient_count => 1,
    size => 1000 }), ALL, 'END-OF-MESSAGE: DUNNO');
is(scripts(), $before, 'what is paid is not asked for');

# further recipients

my $n = 0;
is(all(sub { recipient => 'r' . ++$n . '@example.net' }), ALL,
    'other recipients: DUNNO');
is(scripts() - $before, ALL, 'one question for each of them, too');
is(counted(2), CONNECTIONS, 'which all are counted');

$t->done();


# All connections put a question at once, again and again: how many have been
# answered DUNNO.  The code says what is to be asked that is not usual.

sub all {
    my ($code) = @_;

    my $dunno = 0;

    for (1 .. MESSAGES) {
        for my $i (0 .. $#policy) {
            my $p = $policy[$i];
            my @other = $code->($p);

            $p->client()->send_raw($p->request(sasl_username => $user[$i],
                @other));
        }

        $dunno += grep { $_->answer() eq 'DUNNO' } @policy;
    }

    return $dunno;
}


# of how many logins all is there: the recipients are so many a message

sub counted {
    my ($times) = @_;

    my @expected = (MESSAGES, MESSAGES * $times);

    return scalar grep {
        "@{ wait_used($redis, 'user', $_, \@expected) }" eq "@expected"
    } @user;
}


sub scripts {
    my $calls = 0;

    $calls += $_ for $redis->cmd('INFO', 'commandstats')
        =~ /^cmdstat_eval(?:sha)?:calls=(\d+)/mg;
    return $calls;
}
