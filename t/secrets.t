#!/usr/bin/perl

# OUT-2: no secret is in any log, at level debug, nor in an access log with
# all the variables there are: what clients log in with, of each mechanism at
# each provider; what the edge itself logs in with at relays and at Redis; and
# what records and key sets hold.
#
# done() of MailPolicy looks for it, here as at the end of every other test;
# that it would find it is shown first.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use MIME::Base64 qw(encode_base64);
use Test::More;

use MailPolicy;
use MailPolicy::AuthMatrix;
use MailPolicy::Secrets qw(leaks remember);

BEGIN {
    plan(skip_all => 'IO::Socket::SSL is not installed')
        unless eval { require IO::Socket::SSL };
}

my $OWN = 'canary, "of" the=edge';
my $REDIS = 'canary-of-redis';
my @METHODS = qw(plain login cram-md5 scram-sha-256);

my $t = MailPolicy->new();

self_test();

my $relay = $t->run_relay(name => 'relay');
my $matrix = MailPolicy::AuthMatrix->new($t);
my $keeper = $t->run_redis(name => 'keeper');

$t->run_relay(name => 'users', extensions => [ 'PIPELINING',
    'AUTH PLAIN LOGIN CRAM-MD5 SCRAM-SHA-256' ], users => { edge => $OWN,
    MailPolicy::AuthMatrix::USER() => MailPolicy::AuthMatrix::PASSWORD() });
$t->secret($OWN, $REDIS, $matrix->secrets());
$t->write_file('own', "$OWN\n");
$keeper->cmd('CONFIG', 'SET', 'requirepass', $REDIS);

my @variables = $t->read_file($t->root() . '/README.md')
    =~ /^\| (`\$.*?) \|/mg;
my $all = join(' ', map { /`(\$\w+)`/g } @variables);

my $own = join('', map { <<"EOF" } @METHODS);
    server {
        listen              127.0.0.1:%%PORT_${\ port($_) }%%;
        protocol            smtp;
        policy_auth         off;
        proxy_pass          127.0.0.1:%%PORT_users%%;
        proxy_auth          edge file:%%DIR%%/own;
        proxy_auth_methods  $_;
    }
EOF

$t->conf($matrix->conf(<<"EOF"));

    log_format  default  '$all';
    log_format  none     escape=none '$all';
    log_format  objects  escape=json '$all';
    access_log  %%DIR%%/default.access.log default;
    access_log  %%DIR%%/none.access.log none;
    access_log  %%DIR%%/objects.access.log objects;
    access_log  %%DIR%%/access.log json;

    proxy_pass            127.0.0.1:%%PORT_relay%%;
    proxy_auth_plaintext  on;
    policy_limit          net key=\$client_net auth_failures=1000/1h;
    max_errors            100;
$own
    server {
        listen           127.0.0.1:%%PORT_passed%%;
        protocol         smtp;
        policy_auth      file:%%DIR%%/users;
        proxy_pass       127.0.0.1:%%PORT_users%%;
        proxy_smtp_auth  on;
    }
EOF
$t->conf('keeper', <<"EOF");
mail {
    server_name   edge.example.com;
    policy        on;
    policy_auth   off;
    policy_redis  redis://:$REDIS\@127.0.0.1:%%PORT_keeper%% timeout=5s;
    policy_limit  net key=\$client_net messages=100/1h;
    proxy_pass    127.0.0.1:%%PORT_relay%%;
    access_log    %%DIR%%/keeper.access.log;

    server {
        listen    127.0.0.1:%%PORT_keeps%%;
        protocol  smtp;
    }
}
EOF
$t->run_nginx();
$t->run_nginx('keeper');

SKIP: {
    skip('nginx is not built --with-debug', 1)
        unless $t->error_log() =~ /\[debug\]/;
    like($t->error_log(), qr/\[debug\] .* epoll add event/,
        'the log is at level debug');
}

logged_in($_) for $matrix->cells('tls');
passed_on();

for my $port ((map { port($_) } @METHODS), 'keeps') {
    is(mail($t->session($port)), '250 250 354 250', "a message by $port");
}

for my $log (qw(default none objects)) {
    my $lines = $t->read_file("$log.access.log");
    cmp_ok(scalar(() = $lines =~ /\n/g), '>', 10, "$log: lines in the log");
}

cmp_ok(scalar(split / /, $all), '>', 40, 'all variables');
$t->done();


sub port { return 'own' . $_[0] =~ tr/a-z0-9//cdr }


# all forms of one, amid others; and what is none

sub self_test {
    my $secret = 'for/this=test only?';

    remember($secret);
    is(found("a line without it, for/this=test\n"), 0, 'no secret');

    my %forms = (
        'as it is'  => $secret,
        'hex'       => unpack('H*', $secret),
        'HEX'       => uc unpack('H*', $secret),
        'in URLs'   => 'for%2Fthis%3Dtest%20only%3F',
        'in xtext'  => 'for+2Fthis+3Dtest+20only+3F',
        map { ("in base64, behind $_ octets" => encode_base64(('x' x $_)
            . "$secret, and more", '')) } 0 .. 3,
    );

    is(found("2026\n[info] x$forms{$_}y\n"), 1, "a secret $_")
        for sort keys %forms;
}


sub found { return scalar(() = leaks($t->write_file('a.log', $_[0]))) }


# right, wrong, spoilt and left

sub logged_in {
    my ($cell) = @_;

    my $sasl = $matrix->sasl($cell);
    my $name = $cell->{name};
    my $c = $matrix->session($cell);

    like($matrix->wrong($cell)->login($c), qr/^535 /, "$name: wrong");
    like($sasl->login($c, cancel => $sasl->steps()), qr/^501 /,
        "$name: cancelled");
    $sasl->login($matrix->session($cell), leave => 1);
    like($sasl->login($c), qr/^235 /, "$name: right");
    is(mail($c), '250 250 354 250', "$name: a message");

    # what no parser takes, with the secret in it
    my $all = join('', map { $_ // '' } @$sasl{qw(user password token)});
    $c = $matrix->session($cell);
    $c->cmd("AUTH $cell->{mechanism} $all");
    $c->cmd("AUTH $cell->{mechanism} " . encode_base64("\1$all", '') . '!');
    $c->cmd(encode_base64($all, ''));
    $c->cmd($all);
}


# the client's own name and password, at the relay

sub passed_on {
    my $c = $t->session('passed');

    like($c->auth_plain(MailPolicy::AuthMatrix::USER(),
        MailPolicy::AuthMatrix::PASSWORD()), qr/^235 /, 'passed on: logged in');
    is(mail($c), '250 250 354 250', 'passed on: a message');
}


sub mail {
    my ($c) = @_;

    my @replies = $c->send_mail('alice@example.com', [ 'bob@example.net' ],
        "x\n");
    $c->quit();
    return join(' ', map { substr($_, 0, 3) } @replies);
}
