#!/usr/bin/perl

# policy_limit in "nginx -t": each parameter with what may be written, and
# with mistakes, of which the message says what to write instead.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Test::More;

use MailPolicy;

my $t = MailPolicy->new();

my $REDIS = "policy_redis redis://127.0.0.1:6379/0;\n";


# what nginx says to a server with these directives

sub check {
    my ($limits, $mail) = @_;

    return $t->check_conf(<<"EOF");
mail {
    ${\ ($mail // $REDIS)}
    upstream slow { server 127.0.0.1:26; }

    server {
        listen       127.0.0.1:%%PORT_smtp%%;
        protocol     smtp;
        policy       on;
        policy_auth  off;
        proxy_pass   127.0.0.1:25;
        $limits
    }
}
EOF
}


# exactly one line, with a place in a file

sub bad {
    my ($limit, $expected, @mail) = @_;

    local $Test::Builder::Level = $Test::Builder::Level + 1;

    my ($passed, $output) = check($limit, @mail);
    my @emerg = grep { /\[emerg\]/ } split(/\n/, $output);

    my $name = substr($limit, 0, 100) =~ s/\s+/ /gr =~ s/[^ -~]/?/gr;

    ok(!$passed && @emerg == 1 && $emerg[0] =~ $expected
        && $emerg[0] =~ /in \S+:\d+$/, $name) or diag($output);
}


sub good {
    my ($limit, @mail) = @_;

    local $Test::Builder::Level = $Test::Builder::Level + 1;

    my ($passed, $output) = check("policy_limit a key=\$client_net $limit;",
        @mail);

    ok($passed && $output !~ /\[(?:warn|error|emerg)\]/, "good: $limit")
        or diag($output);
}


# name and key

for my $case (
    [ '', qr/invalid number of arguments in "policy_limit"/ ],
    [ 'a messages=1/h', qr/says nothing of what is counted: add "key="/ ],
    [ 'a key= messages=1/h', qr/has no variable/ ],
    [ 'a key=all messages=1/h',
        qr/"key=all" has no variable: all would share one counter/ ],
    [ 'a key=$sender key=$helo messages=1/h', qr/has more than one "key="/ ],
    [ 'a key=$nobody messages=1/h', qr/unknown "nobody" variable/ ],
    [ 'a key=x$ messages=1/h', qr/invalid variable name in "x\$"/ ],
    [ 'a key=$$sender messages=1/h', qr/invalid variable name in/ ],
    [ '"a" "key=${sender" messages=1/h',
        qr/the closing bracket in "sender" variable is missing/ ],
    [ 'a:b key=$sender messages=1/h', qr/invalid policy_limit name "a:b"/ ],
    [ '"" key=$sender messages=1/h', qr/invalid policy_limit name ""/ ],
    [ ('a' x 65) . ' key=$sender messages=1/h', qr/invalid policy_limit na/ ],
    [ 'a key=$sender messages=1/h color=red',
        qr/invalid parameter "color=red": policy_limit has key=, messages=/ ],
    [ 'a key=$sender session=5', qr/invalid parameter "session=5"/ ],
) {
    bad("policy_limit $case->[0];", $case->[1]);
}

bad('policy_limit a key=$sender;', qr/policy_limit "a" has no rate: add (?#
    )"messages=" or another unit, or set "policy_redis"/, '');
bad('policy_limit a key=$sasl_username sessions=4097;', qr/write (?#
    )"sessions=4096" at most, or set "policy_redis"/, '');
bad('policy_limit a key=$sender messages=1/h;
     policy_limit a key=$helo messages=2/h;', qr/duplicate policy_limit "a"/);

# units

my $form = qr/not a rate, write for example "500\/1h"/;
my $zero = qr/0 is ambiguous, write "unlimited" or "blocked"/;
my $number = qr/not a number of sessions, write for example "20", "unlimited"/;

for my $case (
    map([ "$_=", $form ], qw(messages recipients bytes connections
        auth_failures)),
    map([ "$_=5", $form ], qw(messages recipients bytes connections
        auth_failures)),
    map([ "$_=0/1h", $zero ], qw(messages recipients bytes connections
        auth_failures)),
    map([ "$_=5/1y", $form ], qw(messages recipients bytes connections
        auth_failures)),
    map([ "$_=5k/1h", qr/are for bytes only, write the number in full/ ],
        qw(messages recipients connections auth_failures)),
    [ 'messages=0', qr/"messages=0": 0 is ambiguous/ ],
    [ 'recipients=1/367d', qr/number out of range/ ],
    [ 'messages=1/h messages=2/h', qr/duplicate parameter "messages=2\/h"/ ],
    [ 'messages=unlimited messages=2/h', qr/duplicate parameter "messages=2/ ],
    [ 'bytes=10x/1h', $form ],
    [ 'bytes=10m', $form ],
    [ 'bytes=2048g/1h', qr/number out of range/ ],
    [ 'connections=5/1h,burst=0', qr/number out of range/ ],
    [ 'auth_failures=5/1h,burst=2',
        qr/no burst is possible here, write for example "20\/1h"/ ],
    [ 'sessions=', $number ],
    [ 'sessions=5/1h', $number ],
    [ 'sessions=-1', $number ],
    [ 'sessions=many', $number ],
    [ 'sessions=0', $zero ],
    [ 'sessions=5k', qr/are for bytes only/ ],
    [ 'sessions=1 sessions=2', qr/duplicate parameter "sessions=2"/ ],
    [ 'sessions=99999999999999', qr/number out of range/ ],
) {
    bad("policy_limit a key=\$client_net $case->[0];", $case->[1]);
}

for my $unit (qw(messages recipients bytes connections auth_failures)) {
    good("$unit=$_") for qw(5/1h 5/h 1/52w unlimited Blocked);
    good("$unit=5/1h,burst=2") unless $unit eq 'auth_failures';
}

good("sessions=$_") for qw(1 20 unlimited blocked);
good("bytes=$_") for '10k/1h', '10M/1h', '1g/1d,burst=100m', '5/1h';
good($_) for '', 'bytes=1g/1d messages=5/1h sessions=2 connections=9/1m '
    . 'auth_failures=3/15m recipients=unlimited';
good('sessions=5', '');

# what is known too late for a session

my $late = qr/policy_limit "a" counts connections, sessions or auth_failures (?#
    )under what is known with MAIL only: use variables as \$client_net/;

for my $unit (qw(connections=5/1h sessions=5 auth_failures=5/1h)) {
    bad("policy_limit a key=\$$_ $unit;", $late) for qw(sender helo protocol
        recipient transaction message_size sasl_username/$recipient_domain);
    bad("policy_limit a key=\$client_net messages=1/h if=\$sender $unit;",
        $late);
    bad("policy_limit a key=\$client_net if=\$later $unit;", $late,
        'map $recipient_domain $later { default 1; }');
    good("$unit if=\$$_") for qw(client_host sasl_username);
    good("$unit if=\$early", 'map $remote_addr $early { default 1; }');
}

# the others

for my $case (
    [ 'charge=', qr/write "charge=accepted" or "charge=attempt"/ ],
    [ 'charge=accept', qr/"charge=accept": write "charge=accepted" or/ ],
    [ 'charge=attempts', qr/"charge=attempts": write "charge=accepted" or/ ],
    [ 'charge=attempt charge=attempt', qr/has more than one "charge="/ ],

    map([ "enforce=$_", qr/invalid parameter "enforce=\Q$_\E": write 0/ ],
        '', '%', '50', '101%', '-1%', '5.5%', 'all', '1000000000000000000000%',
        '50%%', '0x10%'),
    [ 'enforce=1% enforce=1%', qr/has more than one "enforce="/ ],

    map([ "\"message=$_\"", qr/invalid "message=" of policy_limit "a": (?#
        )write 1 to 400 ASCII characters, without the reply code/ ],
        '', "a\nb", "a\r\nb", "\xc3\xa4", "a\tb", 'x' x 401),
    [ '"message=$nobody"', qr/unknown "nobody" variable/ ],
    [ '"message=5$ only"', qr/invalid variable name in "5\$ only"/ ],
    [ 'message=a message=b', qr/has more than one "message="/ ],

    map([ "if=$_", qr/"if=\Q$_\E" is not a variable: write as "if=\$limited"/ ],
        '', '1', 'on'),
    [ 'if=$nobody', qr/unknown "nobody" variable/ ],
    [ 'if=$helo if=$sender', qr/has more than one "if="/ ],

    map([ "on_exceed=$_", qr/"on_exceed=\Q$_\E": write defer, reject, (?#
        )tarpit, report or relay:NAME, NAME being an upstream/ ],
        '', 'shout', 'Defer', 'deferred', 'relay', 'relay:', 'relay=slow',
        'report:slow'),
    map([ "on_exceed=relay:$_", qr/relays to an upstream that is not there: (?#
        )add "upstream NAME/ ], qw(nobody slo slow2 $sender
        127.0.0.1:26)),
    [ 'on_exceed=defer on_exceed=reject', qr/has more than one "on_exceed="/ ],
    map([ "on_exceed=relay:slow $_", qr/which is for messages, recipients (?#
        )and bytes: write another policy_limit for the other units/ ],
        qw(sessions=5 connections=5/1h auth_failures=5/1h)),
) {
    bad("policy_limit a key=\$client_net messages=1/h $case->[0];",
        $case->[1]);
}

good("messages=1/h $_") for 'charge=attempt', 'charge=accepted', 'enforce=0%',
    'enforce=100%', 'enforce=7%', 'if=$sender', 'on_exceed=defer',
    'on_exceed=reject', 'on_exceed=tarpit', 'on_exceed=report',
    'on_exceed=relay:slow', '"message=' . 'x' x 400 . '"',
    '"message=$limit: wait $retry_after s; \"100%\" %s%n"',
    'charge=attempt on_exceed=report enforce=5% if=$sender message=x',
    '"message=5.000 a day"', 'message=5.', '"message=450: wait"';

# a limit's relay may stand behind it, and is looked for on all levels

bad("policy_limit a key=\$sender messages=1/h on_exceed=relay:behind;\n",
    qr/relays to an upstream that is not there/);
good('messages=1/h on_exceed=relay:behind',
    'upstream behind { server 127.0.0.1:27; }');
good('messages=1/h', 'policy_limit b key=$sender messages=1/h
    on_exceed=relay:slow;');

bad('policy_limit a key=$sender messages=1/h enforce=50;',
    qr/"enforce=50": write 0% to 100%, as "enforce=10%"/);
bad("policy_limit a key=\$sender messages=1/h \"message=$_\";",
    qr/without the reply code/) for '450 4.7.1 Slow down', '450 Slow down',
        '4.7.1 Slow down', '5.7.26 No';
bad("policy_limit a key=\$sender messages=1/h if=$_;",
    qr/is not a variable: write as "if=\$limited"/) for '!$sender', '$helo-1';
bad('policy_limit a key=$client_net auth_failures=1001/1h;',
    qr/more than can be told apart: write at most 1000 failed logins/);
good('auth_failures=1000/1h');

$t->done();
