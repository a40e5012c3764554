#!/usr/bin/perl

# The format "json", read by jq: fields of TLS, of relays, of several limits,
# of octets and times; and that a line is one, and valid, whatever clients and
# relays say.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use MIME::Base64 qw(encode_base64);
use Test::More;

use MailPolicy;

plan(skip_all => 'no jq') unless -x '/usr/bin/jq';

my $t = MailPolicy->new();
my ($crt, $key) = $t->certificate('edge.example.com');

my $tls = $t->run_relay(name => 'tls',
    extensions => [ 'PIPELINING', 'SIZE 52428800', '8BITMIME', 'STARTTLS' ],
    certificate => { cert => $crt, key => $key });
my $relay = $t->run_relay(name => 'relay');
my $bad = $t->run_relay(name => 'bad', connect => 'close');

$t->write_file('users',
    'alice@example.com:' . $t->crypt('canary-alice', '$5$somesalt$') . "\n");

$t->conf(<<"EOF");
mail {
    server_name            edge.example.com;
    policy                 on;
    policy_auth            off;
    policy_auth_plaintext  on;
    max_errors             100;
    ssl_certificate        $crt;
    ssl_certificate_key    $key;

    upstream both {
        server 127.0.0.1:%%PORT_bad%% max_fails=0;
        server 127.0.0.1:%%PORT_relay%% backup;
    }

    access_log  %%DIR%%/access.log json;

    server {
        listen       127.0.0.1:%%PORT_tls_in%% ssl;
        protocol     smtp;
        policy_auth  file:%%DIR%%/users;
        proxy_pass   127.0.0.1:%%PORT_tls%%;
        proxy_starttls  required;
        proxy_ssl_name  edge.example.com;
        proxy_ssl_trusted_certificate $crt;
    }

    server {
        listen       127.0.0.1:%%PORT_in%%;
        protocol     smtp;
        proxy_pass   both;

        policy_limit one   key=\$remote_addr if=\$limited recipients=1/1h;
        policy_limit two   key=\$sender if=\$limited recipients=1/2h;
        policy_limit three key=\$sender_domain if=\$limited recipients=1/1d
                           on_exceed=report;
    }

    map \$sender_domain \$limited { limited.example 1; }
}
EOF
$t->run_nginx();


# what jq makes of the log, a line each, or of the last line alone

sub jq {
    my ($filter, $last) = @_;

    open(my $fh, '-|', 'jq', $last ? ('-crs', ".[-1] | $filter")
                                   : ('-cr', $filter),
         $t->dir() . '/access.log')
        or die "jq: $!";

    my @lines = <$fh>;
    ok(close($fh), "jq '$filter'");
    chomp(@lines);

    return @lines;
}


sub last_line { return (jq($_[0], 1))[0] }


# TLS on both sides

my $c = $t->session('tls_in', tls => 1);
$c->auth_plain('alice@example.com', 'canary-alice');
$tls->set(dot => '250 2.0.0 Ok: queued as 4XyZ1k2m3n');
$c->send_mail('alice@example.com', [ 'b@example.net' ], "x\n");
$c->quit();

like(last_line('[.ssl_protocol, .ssl_cipher] | join(" ")'),
     qr/^TLSv1\.[23] \S*(?:AES|CHACHA)\S+$/, 'TLS');
like(last_line('[.upstream_ssl_protocol, .upstream_ssl_cipher] | join(" ")'),
     qr/^TLSv1\.[23] \S*(?:AES|CHACHA)\S+$/, "the relay's");
is(last_line('[.protocol, .sasl_method, .sasl_username, .outcome, .queue_id,
              .upstream_tries] | join(" ")'),
   'ESMTPSA PLAIN alice@example.com accepted 4XyZ1k2m3n 1', 'what it was');

# several relays

$c = $t->session('in');
$c->send_mail('a@example.org', [ 'b@example.net' ], "0123456789\n");
$c->quit();

is(last_line('[.upstream_tries, (.tries | length), .tries[0].addr,
               .tries[0].status, .tries[1].addr, .tries[1].status,
               .upstream_addr] | map(tostring) | join(" ")'),
   join(' ', 2, 2, "127.0.0.1:$bad->{port}", 'null',
        ("127.0.0.1:$relay->{port}", 250, "127.0.0.1:$relay->{port}")),
   'tries');
is(last_line('[.ssl_protocol, .upstream_ssl_protocol, .limits, .limit,
               .auth_failures] | map(tostring) | join(" ")'),
   'null null null null null', 'what is not there is left out');
is(last_line('[.tries[1].time, .transaction_time, .session_time]
              | map(type) | unique | join(" ")'), 'number', 'times');
is(last_line('.server'), '127.0.0.1:' . $t->port('in'), 'server');

# several limits at once

$c = $t->session('in');
$c->cmd('MAIL FROM:<a@limited.example>');
$c->cmd("RCPT TO:<$_\@example.net>") for qw(b c);
$c->quit();

is(last_line('[.limits[] | .limit, .action, .used, .max] | join(" ")'),
   'one defer 1 1 two defer 1 1 three report 1 1', 'several limits');
is(last_line('[.limit, .limit_action, .limit_used, .limit_max] | join(" ")'),
   'two defer 1 1', 'of which the client was told one');
like(last_line('[.limits[].retry_after] | join(" ")'),
     qr/^3[5-7]\d\d 7[1-3]\d\d 8[67]\d\d\d$/, 'when there is room again');

# whatever they say

my @octets = map { chr } 1 .. 255;

for my $o (@octets) {
    my $hex = sprintf('%02x', ord($o));

    $c = $t->client('in');
    $c->greeting();
    $c->cmd("EHLO h$hex${o}h") unless $o =~ /[\r\n]/;
    $c->ehlo('h');
    $c->cmd("MAIL FROM:<\"\\${o}a\"\@example.org>") unless $o =~ /[\r\n]/;
    $c->quit();
}

$relay->set(mail => join('', '550 5.1.1 ', grep { !/[\r\n]/ } @octets));
$c = $t->session('in');
$c->cmd('MAIL FROM:<a@example.org>');
$c->quit();
$relay->set(mail => undef);

my @lines = $t->read_file('access.log') =~ /^(.*\n)/mg;

is_deeply([ grep { /[\x00-\x09\x0b-\x1f\x7f]/ } @lines ], [], 'OUT-1 jq: no controls');
is(scalar(jq('.session')), scalar(@lines), 'each line is an object');
cmp_ok(scalar(@lines), '>', 100, scalar(@lines) . ' of them');

is(last_line('.reply | test("[[:cntrl:]]")'), 'false', 'nor by a relay');

# the lines of README.md for jq

my @printed = $t->read_file($t->root() . '/README.md')
    =~ m{^    (jq .* /var/log/nginx/mail-json\.log.*)$}mg;
my $log = $t->dir() . '/access.log';

is(scalar(@printed), 2, 'README.md has lines for jq');
like(qx(@{[ s{/var/log/nginx/mail-json\.log}{$log}r ]}),
    qr/^(?:\S+T\S+\t.*\t[45]\d\d |\s+1 (?:one|two|three) 127\.0\.0\.1$)/m, $_)
    for @printed;

$t->done();
