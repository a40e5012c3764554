#!/usr/bin/perl

# policies/examples/postfix-both.conf as it is printed, with a Postfix that has
# the lines at its head: one limit for mail that comes through nginx and for
# mail that comes to Postfix.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Test::More;

use MailPolicy;
use MailPolicy::Dovecot;
use MailPolicy::Example qw(commands example_text run_example);
use MailPolicy::Limits qw(is_used);
use MailPolicy::Postfix;

my $missing = MailPolicy::Postfix::missing();
plan(skip_all => $missing) if $missing;

my $t = MailPolicy->new();
my $text = example_text($t, 'postfix-both.conf');
my ($main) = $text =~ /main\.cf:\n#\n(.*?)^#\n/ms;

# all addresses are of this machine, and so ports are others

$text =~ s/server=203\.0\.113\.1:25/server=127.0.0.1:%%PORT_listen_25%%/;

my ($redis) = run_example($t, $text, without => [ '10.0.0.11:25' ]);
$redis->cmd(@$_) for commands($text, $t->crypt('secret'));
$redis->cmd('HSET', 'mail:limit:user:{alice@example.com}', messages => '4/1h');

my $policy = 'inet:127.0.0.1:' . $t->port('listen_10040');

$main =~ s/^#     (\S| +)/$1/mg;
$main =~ s/inet:10\.0\.0\.1:10040/$policy/g;
$main =~ s/= 10\.0\.0\.1$/= 127.0.0.1/m;

# as README.md says for who would rather have mail pass

my ($lenient) = $t->read_file($t->root() . '/README.md')
    =~ /(check_policy_service \{[^}]*\})/;

$lenient =~ s/inet:127\.0\.0\.1:10040/$policy/;
$lenient =~ s/\n/ /g;

my $dovecot = MailPolicy::Dovecot->new(dir => $t->dir(),
    users => { 'alice@example.com' => 'secret' });
my $postfix = MailPolicy::Postfix->new($t,
    smtpd => { at_10_0_0_11_25 => [],
               lenient => [ 'smtpd_recipient_restrictions=$lenient',
                            'smtpd_end_of_data_restrictions=' ] },
    main => [ split(/\n/, $main), "lenient = $lenient",
              'smtpd_sasl_type = dovecot',
              'smtpd_sasl_path = ' . $dovecot->socket(),
              'smtpd_error_sleep_time = 0', 'relay_domains = example.net' ]);

# the last reply, or that to a recipient

sub send_one {
    my ($where, $sender, $to, $login) = @_;

    # not from where the edge is
    my $c = $t->session($where, from => '127.0.0.9');

    if ($where eq 'listen_587') {
        $c->starttls();
        $c->ehlo();
    }

    $c->auth_plain($login, 'secret') if $login;
    my @replies = $c->send_mail($sender, [ $to ], "Subject: x\n\nx\n");
    $c->quit();
    return (grep({ !/^[23]/ } @replies), $replies[-1])[0];
}

my $ALICE = 'alice@example.com';

for my $way ('listen_587', 'at_10_0_0_11_25') {
    like(send_one($way, $ALICE, 'bob@example.org', $ALICE), qr/^250 /,
        "$way: message $_") for 1, 2;
}

is_used($redis, 'one for each', 'user', $ALICE, messages => 4, recipients => 4,
    timeout => 5);
like(send_one($_, $ALICE, 'bob@example.org', $ALICE),
    qr/^450 4\.7\.1 .*Rate limit "user" exceeded/, "$_: no more")
    for 'listen_587', 'at_10_0_0_11_25';

for my $way ('listen_25', 'at_10_0_0_11_25') {
    like(send_one($way, "$way\@example.org", 'bob@example.net'), qr/^250 /,
        "$way: without a login");
    is_used($redis, 'charged once', 'sender', "$way\@example.org",
        messages => 1, timeout => 5);
    like(send_one($way, "$way\@example.org", 'bob@example.org'),
        qr/^[45]54 .*Relay access denied/, "$way: no relaying");
    is_used($redis, 'is not charged', 'sender', "$way\@example.org",
        messages => 1, timeout => 5);
}


# nginx is away

$t->stop();

like(send_one('at_10_0_0_11_25', 'x@example.org', 'bob@example.net'),
    qr/^451 4\.3\.5 /, 'no nginx: not now');
like(send_one('lenient', 'x@example.org', 'bob@example.net'), qr/^250 /,
    'no nginx: passes, where that is wanted');

$postfix->stop();
$t->done();
