#!/usr/bin/perl

# "policy_edge", question by question: only exact values are an edge's, what
# a message is stays what it is, and what is inherited.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Test::More;

use MailPolicy;
use MailPolicy::Limits qw(is_used);
use MailPolicy::Policy;

my $t = MailPolicy->new();
my $redis = $t->run_redis();

$t->conf(<<'EOF');
mail {
    policy_redis  redis://127.0.0.1:%%PORT_redis%% timeout=5s;
    policy_limit  sender  key=$sender  messages=1000/1h  recipients=1000/1h;

    policy_edge  xclient;
    policy_edge  192.0.2.5 198.51.100.0/28 2001:db8:5::/48
                 server=203.0.113.1:25 server=203.0.113.2
                 server=[2001:db8::1]:25 server=2001:db8::2;

    server {
        listen    127.0.0.1:%%PORT_policy%%;
        protocol  policy;
    }

    server {
        listen       127.0.0.1:%%PORT_own%%;
        protocol     policy;
        policy_edge  192.0.2.7;
    }

    server {
        listen       127.0.0.1:%%PORT_none%%;
        protocol     policy;
        policy_edge  off;
    }
}
EOF
$t->run_nginx();

my $n = 0;

# all questions of one message of two recipients; whether it is charged

sub charged {
    my ($where, @attributes) = @_;

    my $sender = 's' . ++$n . '@example.com';
    my $p = MailPolicy::Policy->new($t, $where);

    for my $question ((map { [ recipient => "r$_\@example.net" ] } 1, 2, 2),
        map { [ protocol_state => $_, recipient => '', recipient_count => 2 ] }
            'DATA', 'END-OF-MESSAGE')
    {
        my $answer = $p->ask(sender => $sender, @attributes, @$question);
        return "no DUNNO: $answer" if $answer ne 'DUNNO';
    }

    $p->client()->close();

    my $used = join('+', map { MailPolicy::Limits::used($redis, 'sender',
        $sender, $_) } qw(messages recipients));

    return { '0+0' => 'no', '1+2' => 'yes' }->{$used} // $used;
}

sub is_charged {
    my ($expected, $what, @attributes) = @_;

    local $Test::Builder::Level = $Test::Builder::Level + 1;

    is(charged('policy', @attributes), $expected, "$what: charged, $expected");
}


# xclient

is_charged('yes', 'no login');
is_charged('no', 'XCLIENT', sasl_method => 'XCLIENT',
    sasl_username => 'alice@example.com');
is_charged('yes', "sasl_method=$_", sasl_method => $_,
    sasl_username => 'alice@example.com')
    for 'PLAIN', 'xclient', 'XClient', ' XCLIENT', 'XCLIENT ', 'XCLIENTX',
        'XCLIEN', "XCLIENT\t", 'XCLIENT PLAIN', '';
is_charged('yes', 'no sasl_method', sasl_method => undef);
is_charged('yes', 'its name elsewhere', sasl_username => 'XCLIENT',
    helo_name => 'XCLIENT', client_name => 'sasl_method=XCLIENT');
is_charged('yes', 'another case of the name', SASL_METHOD => 'XCLIENT');

# address, network

is_charged('no', "client $_", client_address => $_)
    for '192.0.2.5', '198.51.100.0', '198.51.100.15', '2001:db8:5::1',
        '::ffff:192.0.2.5', '2001:DB8:5:ffff::';
is_charged('yes', "client \"$_\"", client_address => $_)
    for '192.0.2.1', '192.0.2.50', '198.51.100.16', '2001:db8:6::1',
        'unknown', '', '192.0.2.5 ', ' 192.0.2.5', '192.0.2.5/32',
        '192.0.2.5:25', '192.0.2.05.1', '[192.0.2.5]', 'IPV6:2001:db8:5::1',
        '[2001:db8:5::1]', '192.0.2.5,192.0.2.1';
is_charged('yes', 'no client_address', client_address => undef);
is_charged('yes', 'an edge as the server', server_address => '192.0.2.5');

# server=

sub server { return (server_address => $_[0], server_port => $_[1]) }

is_charged('no', "server $_->[0] $_->[1]", server(@$_))
    for [ '203.0.113.1', 25 ], [ '203.0.113.2', 25 ], [ '203.0.113.2', 465 ],
        [ '203.0.113.2', '' ], [ '2001:db8::1', 25 ], [ '2001:db8::2', 587 ];
is_charged('yes', "server \"$_->[0]\" \"$_->[1]\"", server(@$_))
    for [ '203.0.113.1', 587 ], [ '203.0.113.1', '' ], [ '203.0.113.1', 0 ],
        [ '203.0.113.1', 'x25' ], [ '203.0.113.1', 65561 ],
        [ '203.0.113.1', '25x' ], [ '203.0.113.3', 25 ],
        [ '203.0.113.1:25', 25 ], [ '2001:db8::1', 26 ], [ '', 25 ],
        [ 'unknown', 'unknown' ], [ '2001:db8::3', 25 ];
is_charged('yes', 'no server_port', server_address => '203.0.113.1');
is_charged('yes', 'an edge as the client', client_address => '203.0.113.2');

# inherited, replaced, none

is(charged('own', client_address => '192.0.2.7'), 'no', 'one of its own');
is(charged('own', client_address => '192.0.2.5'), 'yes', 'not that above');
is(charged('own', sasl_method => 'XCLIENT'), 'yes', 'nothing of that');
is(charged('none', client_address => '192.0.2.5', sasl_method => 'XCLIENT'),
    'yes', 'off');


# of two attributes the first one counts

my $p = MailPolicy::Policy->new($t, 'policy');
my $text = $p->request(sender => 'two@example.com');

for my $case ([ 1, "sasl_method=\n", "sasl_method=XCLIENT\n" ],
    [ 1, "sasl_method=XCLIENT\n", "sasl_method=\n" ])
{
    my ($expected, @both) = @$case;

    $p->message();
    ($text = $p->request(sender => 'two@example.com')) =~
        s/^sasl_method=\n/join('', @both)/me;
    $p->client()->send_raw($text);
    is($p->answer(), 'DUNNO', 'two methods');
    is_used($redis, 'the first one counts', 'sender', 'two@example.com',
        messages => $expected, timeout => 5);
}

# a message is what its first question said

my @EDGE = (sasl_method => 'XCLIENT', sasl_username => 'x@example.com');

$p->message();
is($p->ask(sender => 'once@example.com', @EDGE), 'DUNNO', 'by an edge');
is($p->ask(sender => 'once@example.com', recipient => 'b@example.net'),
    'DUNNO', 'the same instance');
is_used($redis, 'is not charged any more', 'sender', 'once@example.com',
    messages => 0, recipients => 0, timeout => 1);

$p->message();
is($p->ask(sender => 'once@example.com'), 'DUNNO', 'not by an edge');
is($p->ask(sender => 'once@example.com', recipient => 'b@example.net', @EDGE),
    'DUNNO', 'the same instance');
is_used($redis, 'is charged still', 'sender', 'once@example.com',
    messages => 1, recipients => 2, timeout => 5);

# without instance each question is one

is($p->ask(sender => 'no@example.com', instance => '',
    $_ ? @EDGE : ()), 'DUNNO', 'no instance') for 0, 1, 0;
is_used($redis, 'is charged where it is none', 'sender', 'no@example.com',
    messages => 2, recipients => 2, timeout => 5);

# other states have nothing to be charged

is($p->message()->ask(protocol_state => $_, @EDGE), 'DUNNO', $_)
    for qw(CONNECT EHLO MAIL VRFY);
is($p->ask(sender => 'other@example.com', recipient => 'b@example.net'),
    'DUNNO', 'and say nothing of a message');
is_used($redis, 'that comes behind', 'sender', 'other@example.com',
    messages => 1, timeout => 5);

$t->done();
