#!/usr/bin/perl

# "policy_action" and a real Postfix: FILTER takes mail elsewhere, PREPEND
# puts a field in front of it once, BCC sends one copy, what refuses is
# refused, and what would be OK grants no relaying.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Test::More;

use MailPolicy;
use MailPolicy::Limits qw(is_used);
use MailPolicy::Postfix;

my $missing = MailPolicy::Postfix::missing();
plan(skip_all => $missing) if $missing;

my $t = MailPolicy->new();
my $redis = $t->run_redis();
my %relay = map { $_ => $t->run_relay(name => $_) } qw(usual bulk);

$t->conf(<<'EOF');
mail {
    policy_redis  redis://127.0.0.1:%%PORT_redis%% timeout=5s cache=0;
    policy_limit  sender  key=$sender  messages=100/1h  recipients=1000/1h;

    policy_lookup  $action  action:$sender;
    policy_lookup  $class   class:$recipient_domain;

    map $class $field {
        ""       "";
        default  "PREPEND X-Class: $class";
    }

    server {
        listen         127.0.0.1:%%PORT_action%%;
        protocol       policy;
        policy_action  $action;
    }

    server {
        listen         127.0.0.1:%%PORT_fields%%;
        protocol       policy;
        policy_action  $field;
    }
}
EOF
$t->run_nginx();

# every restriction that may ask; spaces are commas in master.cf

sub smtpd {
    my ($name, @stages) = @_;

    my $ask = 'check_policy_service,inet:127.0.0.1:' . $t->port($name);

    return [ map { "smtpd_${_}_restrictions=" . ($_ eq 'relay'
        ? "$ask,reject_unauth_destination" : $ask) } @stages ];
}

my $postfix = MailPolicy::Postfix->new($t,
    smtpd => { all => smtpd('action', qw(client helo sender recipient data
                                         end_of_data)),
               data => smtpd('action', 'data'),
               end => smtpd('action', 'end_of_data'),
               field => smtpd('fields', qw(sender recipient)),
               relay => [ @{ smtpd('action', 'relay') }, 'mynetworks=' ] },
    main => [ 'smtpd_error_sleep_time = 0',
              'default_transport = smtp:[127.0.0.1]:' . $t->port('usual') ]);


# one message; the reply to its end, or the first that refuses it

sub send_one {
    my ($where, $sender, @to) = @_;

    my $c = $t->session($where);
    my @replies = $c->send_mail("$sender\@example.com",
        [ @to ? @to : map { "r$_\@example.net" } 1 .. 3 ],
        "Subject: $sender\n\nx\n");
    $c->quit();
    return (grep({ !/^[23]/ } @replies), $replies[-1])[0];
}

# sent on, once; what the relay of that name has got

sub arrives {
    my ($name, $sender) = @_;

    my @found;

    $t->wait_for(sub {
        @found = grep { $_->{from} eq "$sender\@example.com" }
            $relay{$name}->messages();
    });

    is(scalar(@found), 1, "$sender: one message for $name");

    my ($other) = grep { $_ ne $name } keys %relay;
    is(scalar(grep { $_->{from} eq "$sender\@example.com" }
        $relay{$other}->messages()), 0, "$sender: none for $other");

    return $found[0];
}

sub set {
    $redis->cmd('SET', "mail:action:$_[0]\@example.com", $_[1]);
}

# the fields that stand before Postfix's own
sub fields {
    my ($message) = @_;

    return $message->{raw} =~ /\A(.*?)^Received:/ms ? $1 =~ s/\r\n/\n/gr
        : 'none';
}


# where nothing is set

like(send_one('all', 'plain'), qr/^250 /, 'no action');
is(fields(arrives('usual', 'plain')), '', 'no field');

# another way

my $bulk = 'FILTER smtp:[127.0.0.1]:' . $t->port('bulk');

for my $where (qw(all data end)) {
    set("filter-$where", $bulk);
    like(send_one($where, "filter-$where"), qr/^250 /, "FILTER at $where");
    is_deeply([ sort @{ arrives('bulk', "filter-$where")->{rcpts} } ],
        [ map { "r$_\@example.net" } 1 .. 3 ], 'to all its recipients');
}

is_used($redis, 'is charged once', 'sender', 'filter-all@example.com',
    messages => 1, recipients => 3, timeout => 5);

# a field, whatever the number of restrictions and recipients

for my $where (qw(all data)) {
    set("prepend-$where", 'PREPEND X-Policy: bulk; class=a');
    like(send_one($where, "prepend-$where"), qr/^250 /, "PREPEND at $where");
    is(fields(arrives('usual', "prepend-$where")),
        "X-Policy: bulk; class=a\n", 'there is one field');
}

set('prepend-end', 'PREPEND X-Policy: late');
like(send_one('end', 'prepend-end'), qr/^250 /, 'PREPEND, which is too late');
is(fields(arrives('usual', 'prepend-end')), '', 'there is none');

# one for each of several texts

$redis->cmd('SET', "mail:class:$_.example", $_) for qw(red blue);
like(send_one('field', 'classes', map({ ("$_\@red.example",
    "$_\@blue.example", "$_\@green.example") } 1 .. 3)), qr/^250 /,
    'fields by recipient');
is(fields(arrives('usual', 'classes')), "X-Class: red\nX-Class: blue\n",
    'one of each');

# nothing of what is in Redis is another field, or an answer

set('lines', "PREPEND X-A: b\r\nX-B: c");
set('answer', "HOLD\n\naction=OK");
like(send_one('all', $_), qr/^250 /, "$_: passes"),
    is(fields(arrives('usual', $_)), '', "$_: adds nothing")
    for 'lines', 'answer';

# a copy, another recipient, a quarantine

set('copy', 'BCC archive@example.org');
like(send_one('all', 'copy'), qr/^250 /, 'BCC');
$t->wait_for(sub { 4 == (() = $postfix->log() =~
    /to=<(?:r\d\@example\.net|archive\@example\.org)>, .*status=sent/g) });
my @to = map { @{ $_->{rcpts} } } grep { $_->{from} eq 'copy@example.com' }
    $relay{usual}->messages();
is(join(' ', sort @to), 'archive@example.org '
    . join(' ', map { "r$_\@example.net" } 1 .. 3), 'one copy');

set('elsewhere', 'REDIRECT one@example.org');
like(send_one('all', 'elsewhere'), qr/^250 /, 'REDIRECT');
is("@{ arrives('usual', 'elsewhere')->{rcpts} }", 'one@example.org',
    'to that one only');

set('hold', 'HOLD x');
like(send_one('all', 'hold'), qr/^250 /, 'HOLD');
is($postfix->queued(), 1, 'it is held');

# refusals, also of who says no more than a code

set('no', 'REJECT 5.7.2 not from you');
like(send_one('all', 'no'), qr/^554 5\.7\.2 .*: not from you$/, 'REJECT');
set('code', '550');
like(send_one('all', 'code'), qr/^550 5\.7\.1 .*: Access denied$/,
    'a code alone refuses');
set('later', 'DEFER_IF_PERMIT');
like(send_one('all', 'later'), qr/^450 4\.7\.1 .*: Try again later$/,
    'DEFER_IF_PERMIT');
is_used($redis, 'what is refused is not charged', 'sender', 'no@example.com',
    messages => 0, recipients => 0, timeout => 5);

# no permission

for my $action ('OK', ' OK', '12345', 'permit', 'DUNNO,OK', 'RELAY', $bulk) {
    set('relay', $action);
    like(send_one('relay', 'relay'), qr/^554 5\.7\.1 .*Relay access denied$/,
        "\"$action\" grants no relaying");
}

unlike($postfix->log(), qr/(?:warning|error|fatal|panic):(?!.* held)/,
    'nothing that Postfix complains of');

$postfix->stop();
$t->done();
