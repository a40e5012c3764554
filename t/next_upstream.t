#!/usr/bin/perl

# proxy_next_upstream: which failures of a relay are passed to the next one,
# each condition alone, all that is the default, and off; and that what the
# relay says of a message is not, unless it is asked for.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Test::More;

use MailPolicy;

my $t = MailPolicy->new();
my %relay = map { $_ => $t->run_relay(name => $_) } qw(a b);

my @CONDITIONS = qw(error timeout invalid_response setup 421 4xx);
my %DIRECTIVE = (default => '', off => 'proxy_next_upstream off;',
    inherited => '',
    map({ ("only_$_" => "proxy_next_upstream $_;") } @CONDITIONS));

my $servers = join('', map { <<"EOF" } sort keys %DIRECTIVE);
    server {
        listen    127.0.0.1:%%PORT_$_%%;
        protocol  smtp;
        $DIRECTIVE{$_}
    }
EOF

sub mail_block { return <<"EOF" }
mail {
    server_name            edge.example.com;
    access_log             %%DIR%%/$_[0].log;
    policy                 on;
    policy_auth            off;
    proxy_timeout          300ms;
    proxy_final_timeout    300ms;
    proxy_pass             group;
    $_[1]

    upstream group {
        server  127.0.0.1:%%PORT_a%%  max_fails=0;
        server  127.0.0.1:%%PORT_b%%  max_fails=0  backup;
    }
$_[2]
}
EOF

$t->conf(mail_block('nginx', '', $servers));
$t->run_nginx();

# what is said in mail{} holds in server{}
$t->conf('above', mail_block('above', 'proxy_next_upstream off;', <<'EOF'));
    server { listen 127.0.0.1:%%PORT_above%%; protocol smtp; }
    server { listen 127.0.0.1:%%PORT_again%%; protocol smtp;
             proxy_next_upstream error; }
EOF
$t->run_nginx('above');


# the codes of a message; and which relay has it

sub message {
    my ($where) = @_;

    my $before = $relay{b}->stats()->{messages};
    my $c = $t->session($where);
    my @replies = $c->send_mail('s@example.com', [ 'r@example.net' ], "x\n");

    $c->quit();
    return (join(' ', map { substr($_, 0, 3) } @replies),
        $relay{b}->stats()->{messages} - $before, $replies[-1]);
}


# [ rule of the relay, condition, what the client hears if it is not passed ]

my @FAILURES = (
    [ connect => 'refuse', error => '451 4.4.1' ],
    [ connect => 'rst', error => '451 4.4.1' ],
    [ greeting => 'close', error => '451 4.4.1' ],
    [ mail => 'rst', error => '451 4.4.2' ],
    [ greeting => 'hang', timeout => '451 4.4.1' ],
    [ mail => 'hang', timeout => '451 4.4.2' ],
    [ greeting => 'garbage', invalid_response => '451 4.4.1' ],
    [ ehlo => '354 what', invalid_response => '451 4.4.1' ],
    [ mail => '354 what', invalid_response => '451 4.4.2' ],
    [ greeting => '554 5.3.2 never', setup => '451 4.4.1' ],
    [ ehlo => '450 4.7.0 later', setup => '451 4.4.1' ],
    [ xclient => '550 5.7.0 not you', setup => '451 4.3.5' ],
    [ greeting => '421 4.3.2 closing', 421 => '451 4.4.1' ],
    [ mail => '421 4.3.2 closing', 421 => '451 4.4.2' ],
    [ mail => '450 4.1.8 later', '4xx' => '450 4.1.8' ],
    [ rcpt => '452 4.2.2 full', '4xx' => '452 4.2.2' ],
);

for my $case (@FAILURES) {
    my ($stage, $action, $condition, $reply) = @$case;
    my $name = "$stage $action";

    $relay{a}->set($stage => $action, extensions => [ 'PIPELINING',
        $stage eq 'xclient' ? 'XCLIENT ADDR' : () ]);

    for my $only ('default', 'off', map { "only_$_" } @CONDITIONS) {
        my $passed = $only eq "only_$condition"
            || ($only eq 'default' && $condition ne '4xx');
        my ($codes, $next, $last) = message($only);

        if ($passed) {
            is("$codes, $next", '250 250 354 250, 1', "$name, $only: the next");
        } else {
            like("$next $last", qr/^0 \Q$reply\E /, "$name, $only: $reply");
        }
    }

    $relay{a}->set($stage => undef);
}

# never: what is for good, and what comes when the client knows of the relay

for my $case ([ mail => '550 5.1.8 no' ], [ rcpt => '550 5.1.1 no' ],
    [ rcpt => 'close' ], [ data => '451 4.3.0 no' ], [ data => 'close' ],
    [ body => { after => 1, action => '452 4.3.1 full' } ],
    [ dot => '451 4.3.0 no' ], [ dot => 'close' ], [ dot => 'hang' ])
{
    my ($stage, $action) = @$case;
    my $name = "$stage " . (ref $action ? $action->{action} : $action);

    $relay{a}->set($stage => $action);

    for my $only ('default', 'only_4xx', 'only_error', 'only_timeout') {
        my ($codes, $next) = message($only);
        like("$next $codes", qr/^0 .*[45]\d\d$/, "$name, $only: not the next");
    }

    $relay{a}->set($stage => undef);
}

# inherited, and set again

$relay{a}->set(connect => 'refuse');
is((message('above'))[1], 0, 'off, from mail{}');
is((message('again'))[1], 1, 'error, instead of what mail{} says');
$relay{a}->set(connect => undef);

# a relay that lacks what the message needs has not failed

$_->set(extensions => [ 'PIPELINING', '8BITMIME' ]) for values %relay;
message('off');
my $c = $t->session('off');
$relay{a}->set(extensions => [ 'PIPELINING' ]);
my @replies = $c->send_mail('s@example.com', [ 'r@example.net' ], "x\n",
    parameters => 'BODY=8BITMIME');
like($replies[-1], qr/^250/, 'off: another relay that can, all the same');
$c->quit();

$t->done();
