#!/usr/bin/perl

# policies/examples/greylisting.conf as it is printed, with a real postgrey
# and a real policyd-spf, at other places: what they refuse, what passes, and
# what becomes of mail while they are away.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Test::More;
use Time::HiRes qw(sleep);

use MailPolicy;
use MailPolicy::Dnsmasq;
use MailPolicy::Example qw(at example_text run_example);
use MailPolicy::PolicydSpf;
use MailPolicy::Postgrey;

for my $package (qw(Postgrey PolicydSpf Dnsmasq)) {
    my $missing = "MailPolicy::$package"->can('missing')->();
    plan(skip_all => $missing) if $missing;
}

my $t = MailPolicy->new();

my $dns = MailPolicy::Dnsmasq->new($t,
    txt => { 'pass.example' => 'v=spf1 ip4:203.0.113.9 -all',
             'fail.example' => 'v=spf1 ip4:198.51.100.1 -all' },
    host => { 'mx.pass.example' => '203.0.113.9' });
my $spf = MailPolicy::PolicydSpf->new($t, name => at('127.0.0.1:10024'),
    dns => $dns);
my $postgrey = MailPolicy::Postgrey->new($t, name => at('127.0.0.1:10023'),
    delay => 2);

my $text = example_text($t, 'greylisting.conf');
my $nameserver = $dns->address();

ok($text =~ s/^ +resolver +\K127\.0\.0\.1;/$nameserver ipv6=off;/m
    && $text =~ s{unix:/run/policyd-spf}{inet:127.0.0.1:10024}, 'asks what is here');

# policyd-spf does not ask about clients of its own machine
ok($text =~ s/^ +listen +25\K;/ proxy_protocol; set_real_ip_from 127.0.0.1;/m,
    'believes who the client is');

my (undef, $relay) = run_example($t, $text);
my $mailboxes = $relay->{'10.0.2.11:25'};


# the replies to RCPT and what follows

sub mail {
    my ($from) = @_;

    my $c = $t->session('listen_25', proxy => '203.0.113.9');
    my @replies = $c->send_mail($from, [ 'bob@example.com' ],
        "Subject: x\n\nx\n");

    $c->quit();
    return @replies[1 .. $#replies];
}


like((mail('eve@fail.example'))[0], qr/^550 5\.7\.23 /, 'SPF refuses');
like((mail('x@pass.example'))[0], qr/^450 4\.2\.0 /, 'postgrey defers');

sleep(3);
like((mail('x@pass.example'))[-1], qr/^250 /, 'and lets pass');

my ($message) = $mailboxes->messages();

is(scalar $mailboxes->messages(), 1, 'one message has come');
is(join(' ', $message->{data} =~ /^(Received-SPF: Pass|X-Greylist: delayed)/mg),
    'Received-SPF: Pass X-Greylist: delayed', 'with the fields of both');


# away; a process of policyd-spf lives as long as its connection

my @pids = $spf->pids();

$spf->stop();
kill('KILL', @pids);
like((mail('eve@fail.example'))[0], qr/^450 4\.2\.0 /,
    'no policyd-spf: postgrey is asked');

$postgrey->stop();
like((mail('x@pass.example'))[0], qr/^451 4\.3\.5 /, 'no postgrey: not now');

$t->done();
