#!/usr/bin/perl

# access_log in a server of "protocol policy": a line for each question of
# Postfix, with what it was answered, and a counter; questions that are closed
# without an answer, too.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use JSON::PP qw(decode_json);
use Test::More;

use MailPolicy;
use MailPolicy::Policy;

my $t = MailPolicy->new();

$t->conf(<<'EOF');
mail {
    access_log    %%DIR%%/mail.log json;

    map $sender_domain $strict { strict.example $sender; }
    map $sender_domain $said   { default DUNNO; prepend.example "PREPEND X: y"; }

    log_format  line  '$transaction $protocol $sender $recipient $outcome $status $limit $reply';

    policy_limit  two     key=$sender  messages=2/1h;
    policy_limit  seen    key=$sender  messages=1/2h  on_exceed=report;
    policy_limit  strict  key=$strict  messages=1/1h  on_exceed=reject;

    server {
        listen         127.0.0.1:%%PORT_policy%%;
        protocol       policy;
        policy_edge    192.0.2.0/28;
        policy_action  $said;
        access_log     %%DIR%%/access.log json;
        access_log     %%DIR%%/line.log line;
        timeout        1s;
    }

    server {
        listen         127.0.0.1:%%PORT_silent%%;
        protocol       policy;
    }
}

http {
    server {
        listen  127.0.0.1:%%PORT_http%%;
        location / { policy_status json; }
    }
}
EOF
$t->run_nginx();

my $n = 0;
my %count = map { $_ => 0 } qw(pass edge defer reject none);


# they may be there a moment later than the answer

sub news {
    my ($wanted) = @_;

    my @lines;
    $t->wait_for(sub {
        @lines = $t->access_log();
        return @lines >= $n + ($wanted // 1);
    });

    my @new = splice(@lines, $n);
    $n += @new;

    return @new;
}


sub counters {
    return decode_json($t->http_get('http', '/'))->{postfix};
}


# limits pass, defer, reject; an edge; an action

my $p = MailPolicy::Policy->new($t, 'policy');
my %from = (client_address => '203.0.113.9');

is($p->ask(%from, sasl_username => 'alice', sasl_method => 'PLAIN'), 'DUNNO',
   'passes');
$count{pass}++;

my ($line, @more) = news();

is(scalar(@more), 0, 'a line for a question');
is_deeply({ map { ($_ => $line->{$_}) } qw(transaction protocol remote_addr
            client_host helo sender recipient state outcome reply
            sasl_username) },
    { transaction => 1, protocol => 'policy', remote_addr => '203.0.113.9',
      client_host => 'laptop.example.com', helo => 'laptop',
      sender => 'alice@example.com', recipient => 'bob@example.net',
      state => 'RCPT', outcome => 'accepted', reply => 'DUNNO',
      sasl_username => 'alice' }, 'what it was');
ok(!exists $line->{$_}, "no $_")
    for qw(to status limit transaction_time bytes_received upstream_addr);

# asked again: the answer is the same, and nothing had to be asked

is($p->ask(%from), 'DUNNO', 'again');
$count{pass}++;
($line) = news();
is_deeply([ @$line{qw(transaction outcome recipient)} ],
    [ 2, 'accepted', 'bob@example.net' ], 'a line for that, too');

is($p->ask(%from, protocol_state => 'CONNECT'), 'DUNNO', 'CONNECT');
$count{pass}++;
($line) = news();
is($line->{state}, 'CONNECT', 'of which nothing is asked');

is($p->message()->ask(%from), 'DUNNO', 'the second message');
$count{pass}++;
($line) = news();
is_deeply([ @$line{qw(outcome limit limit_action)} ],
    [ 'accepted', 'seen', 'report' ], 'a limit that only reports');

like($p->message()->ask(%from), qr/^DEFER_IF_PERMIT /, 'the third');
$count{defer}++;
($line) = news();
is_deeply([ @$line{qw(outcome status limit limit_action limit_used
                      limit_max)} ],
    [ 'deferred', 450, 'two', 'defer', 2, 2 ], 'deferred');
is(join(' ', map { $_->{limit} } @{ $line->{limits} }), 'two seen',
   'both limits');
like($line->{reply}, qr/^DEFER_IF_PERMIT 4\.7\.1 Rate limit "two" exceeded, /,
     'the answer');

is($p->message()->ask(%from, sender => 'a@strict.example'), 'DUNNO',
   'strict');
like($p->message()->ask(%from, sender => 'a@strict.example'), qr/^REJECT /,
     'rejected');
$count{pass}++;
$count{reject}++;
($line, my $rejected) = news(2);
is($rejected->{outcome}, 'rejected', 'rejected');
cmp_ok($rejected->{status}, '>=', 500, 'its status');

is($p->message()->ask(client_address => '192.0.2.3'), 'DUNNO', 'an edge');
$count{edge}++;
($line) = news();
is($line->{outcome}, 'accepted', 'charged there');

is($p->message()->ask(%from, sender => 'a@prepend.example'),
   'PREPEND X: y', 'an action');
$count{pass}++;
($line) = news();
is($line->{reply}, 'PREPEND X: y', 'what was said');

# whatever it says, lines are lines

$p->message()->ask(%from, sender => "\"a\e\x01|\x7f\xff\"\@x.example",
                   helo_name => "h\tx");
$count{pass}++;
news();
my ($last) = (split(/\n/, $t->read_file('access.log')))[-1];
unlike($last, qr/[\x00-\x1f\x7f]/, 'OUT-1 questions: no controls');

# no answer

$p->client()->send_raw("request=something_else\n\n");
ok($p->client()->wait_close(), 'not a request of ours');
$count{none}++;
($line) = news();
is_deeply([ @$line{qw(outcome transaction)} ], [ 'unknown', 11 ],
    'closed without an answer');

my $c = MailPolicy::Policy->new($t, 'policy')->client();
$c->send_raw("request=smtpd_access_policy\nnonsense\n\n");
ok($c->wait_close(), 'malformed');
$count{none}++;

$c = MailPolicy::Policy->new($t, 'policy')->client();
$c->send_raw("request=smtpd_access_policy\n");
ok($c->wait_close(), 'never ends');
$count{none}++;

MailPolicy::Policy->new($t, 'policy')->client()->close();
is(scalar(news(0)), 0, 'nothing could be read of these');

# another server: counted, and logged nowhere

is(MailPolicy::Policy->new($t, 'silent')->ask(%from,
   sender => 'b@example.com'), 'DUNNO', 'without a log');
$count{pass}++;

$t->wait_for(sub { counters()->{pass} >= $count{pass} });
is_deeply(counters(), \%count, 'counters');
is($t->read_file('mail.log'), '', 'the log of mail{} has none of it');

my @line = split(/\n/, $t->read_file('line.log'));
is($line[0], '1 policy alice@example.com bob@example.net accepted - seen DUNNO',
   'a format of its own');
is(scalar(@line), scalar($t->access_log()), 'as many');

# what is refused

my ($ok, $message) = $t->check_conf(<<'EOF');
mail {
    policy_limit  two  key=$sender  messages=2/1h;

    server {
        listen      127.0.0.1:%%PORT_policy%%;
        protocol    policy;
        access_log  %%DIR%%/x.log postfix;
    }
}
EOF
ok(!$ok, 'the format of SMTP');
like($message, qr/"postfix" has no lines for the questions of Postfix/,
     'what to write instead');

$t->allow(qr/policy client/);
$t->done();
