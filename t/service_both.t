#!/usr/bin/perl

# "policy_service": a real policyd-spf and a real postgrey for one server, in
# this order and in the other one; and who is not asked to wait.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Test::More;
use Time::HiRes qw(sleep time);

use MailPolicy;
use MailPolicy::Dnsmasq;
use MailPolicy::Limits qw(codes is_used);
use MailPolicy::PolicydSpf;
use MailPolicy::Postgrey;

for my $missing (map { "MailPolicy::$_"->missing() }
                 qw(Dnsmasq PolicydSpf Postgrey))
{
    plan(skip_all => $missing) if $missing;
}

my $CLIENT = '192.0.2.1';
my $DELAY = 5;
my $FRIEND = 'friend@example.net';
my $GREY = qr/^450 4\.2\.0 Greylisted, see /;
my $FAIL = qr/^550 5\.7\.23 Message rejected due to: SPF fail/;

my $t = MailPolicy->new();
my $redis = $t->run_redis();
my $relay = $t->run_relay(name => 'relay');

my $dns = MailPolicy::Dnsmasq->new($t, txt => {
    'pass.example' => "v=spf1 ip4:$CLIENT -all",
    'fail.example' => 'v=spf1 -all',
});
my $spf = MailPolicy::PolicydSpf->new($t, dns => $dns);

my ($postgrey, $later, $hard) = map { MailPolicy::Postgrey->new($t,
    delay => $DELAY, recipients => [ $FRIEND ], name => $_->[0],
    args => [ '--auto-whitelist-clients=0', @$_[1 .. $#$_] ]) }
    [ 'postgrey' ], [ 'later' ], [ 'never', '--greylist-action=451' ];

$t->secret('canary-alice');
$t->write_file('users', "alice\@pass.example:{PLAIN}canary-alice\n");

$t->conf(<<"EOF");
mail {
    server_name       edge.example.com;
    policy_redis      redis://127.0.0.1:%%PORT_redis%% timeout=2s;
    policy            on;
    policy_received   on;
    proxy_pass        127.0.0.1:%%PORT_relay%%;
    set_real_ip_from  127.0.0.1;

    map \$sasl_username \$guest {
        ""       1;
        default  0;
    }

    policy_limit      from  key=\$sender  messages=100/1h;

    policy_service    ${\$spf->address()} if=\$guest;
    policy_service    ${\$postgrey->address()} if=\$guest;

    server {
        listen       127.0.0.1:%%PORT_smtp%% proxy_protocol;
        protocol     smtp;
        policy_auth  off;
    }

    server {
        listen                 127.0.0.1:%%PORT_submission%% proxy_protocol;
        protocol               smtp;
        policy_auth            file:%%DIR%%/users;
        policy_auth_plaintext  on;
    }

    server {
        listen          127.0.0.1:%%PORT_other%% proxy_protocol;
        protocol        smtp;
        policy_auth     off;
        policy_service  ${\$later->address()};
        policy_service  ${\$spf->address()};
    }

    server {
        listen          127.0.0.1:%%PORT_hard%% proxy_protocol;
        protocol        smtp;
        policy_auth     off;
        policy_service  ${\$hard->address()};
        policy_service  ${\$spf->address()};
    }
}
EOF
$t->run_nginx();

my $sent = 0;

sub session {
    my ($port) = @_;

    return $t->session($port, proxy => $CLIENT, helo => 'helo.example');
}

# the replies to RCPT, and what follows

sub mail {
    my ($c, $from, @rcpts) = @_;

    $sent++;
    my @replies = $c->send_mail($from, \@rcpts,
        "Subject: number $sent\n\nx\n");
    shift @replies;
    return @replies;
}

# the names of the fields of the last message that the relay got

sub fields {
    my ($message) = reverse $relay->messages();
    return '' unless $message && $message->{data}
        =~ /^Subject: number $sent\r$/m;
    return join(' ', $message->{data} =~ /^([\w-]+):/mg);
}


# SPF, then postgrey

my $first = time();
my $c = session('smtp');

like((mail($c, 'a@fail.example', 'one@example.net'))[0], $FAIL,
    'SPF refuses');
is(scalar($postgrey->decisions()), 0, 'and postgrey is not asked');
like((mail($c, 'a@pass.example', 'one@example.net'))[0], $GREY,
    'SPF lets pass what postgrey defers');
like((mail($c, 'a@none.example', 'one@example.net'))[0], $GREY,
    'so it does without a record');
is_used($redis, 'nothing is charged', 'from', "a\@$_.example", messages => 0,
    timeout => 5) for qw(fail pass none);

# SPF says its field with the first recipient, which does not get it

is(codes(mail($c, 'a@pass.example', 'two@example.net', $FRIEND)),
    '450 250 354 250', 'one recipient is deferred, another one is not');
is(fields(), 'Received-SPF Received Subject', 'the field is that of both');

# postgrey, then SPF

my $other = session('other');

like((mail($other, 'a@fail.example', 'one@example.net'))[0], $FAIL,
    'what SPF refuses is not only deferred by who is asked before');
is(scalar($later->decisions()), 1, 'who was asked');
like((mail($other, 'a@pass.example', 'one@example.net'))[0], $GREY,
    'what SPF lets pass is');

# where postgrey says 451, that is it

my $hard_one = session('hard');
like((mail($hard_one, 'a@fail.example', 'one@example.net'))[0],
    qr/^451 4\.\d\.\d Greylisted, see /, 'what is deferred for good');

# those who have logged in

my $alice = session('submission');
like($alice->auth_plain('alice@pass.example', 'canary-alice'), qr/^235 /,
    'a login');
my $asked = $postgrey->decisions();
is(codes(mail($alice, 'alice@fail.example', 'one@example.net')),
    '250 354 250', 'is asked neither for SPF nor to wait');
is(fields(), 'Received Subject', 'and nothing is added');
is(scalar($postgrey->decisions()), $asked, 'nor is postgrey asked');

# behind the delay

my $wait = $first + $DELAY + 1.5 - time();
sleep($wait) if $wait > 0;

is(codes(mail($c, 'a@pass.example', 'one@example.net', 'two@example.net')),
    '250 250 354 250', 'both let pass');
is(fields(), 'Received-SPF X-Greylist Received Subject',
    'with the fields of both, once, in their order');
is_used($redis, 'and it is charged', 'from', 'a@pass.example', messages => 2,
    timeout => 5);

is(codes(mail($other, 'a@pass.example', 'one@example.net')), '250 354 250',
    'in the other order, too');
is(fields(), 'X-Greylist Received-SPF Received Subject', 'with both fields');
like((mail($other, 'a@fail.example', 'one@example.net'))[0], $FAIL,
    'who has waited is still refused by SPF');

# the recipe in README.md

my ($recipe) = $t->read_file($t->root() . '/README.md')
    =~ /^### Greylisting and SPF\n(.*?)^### /ms;
my ($server, $guests) = $recipe =~ /^```nginx\n(.*?)^```$/msg;
$server =~ s/\b25;/127.0.0.1:%%PORT_recipe%%;/;

my ($good, $output) = $t->check_conf(
    "mail {\n    server_name mx.example.com;\n"
    . "upstream mailboxes { server 127.0.0.1:%%PORT_relay%%; }\n"
    . "$guests$server}\n");
ok($good, 'README.md: what it says is a configuration') or diag($output);

$t->done();
