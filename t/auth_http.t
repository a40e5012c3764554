#!/usr/bin/perl

# "policy_auth http:" and "https:" with a real service: nginx, with maps for
# users.  What it may answer, what becomes of that, and that connections to it
# are kept.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Digest::MD5 ();
use MIME::Base64 qw(decode_base64 encode_base64);
use Test::More;
use Time::HiRes qw(sleep time);

use MailPolicy;
use MailPolicy::Sasl;

my $t = MailPolicy->new();

my $relay = $t->run_relay(name => 'relay');
my $other = $t->run_relay(name => 'other');

my ($crt, $key) = $t->certificate('service', 'service.example.com');
$t->certificate('stranger', 'service.example.com');

my $lender = $t->run_relay(name => 'lender',
    extensions => [ 'PIPELINING', 'AUTH PLAIN' ], users => {
    'alice@example.com' => 'canary', 'lent@example.com' => 'canary-lent' },
    certificate => { cert => $crt, key => $key, at_once => 1 });

my $SASL = encode_base64('{"status":"401","scheme":"Bearer"}', '');
my $LONG = 'x' x 300;

# user => headers that are not usual; all have the password "canary"

my %users = (
    'moved'    => { Server => '127.0.0.1', Port => $t->port('other') },
    'six'      => { Server => '::1', Port => $t->port('other') },
    'renamed'  => { User => 'new@example.com' },
    'misnamed' => { User => $LONG },
    'lent'     => { Pass => 'canary-lent' },
    'socket'   => { Server => 'unix:/tmp/x', Port => 25 },
    'named'    => { Server => 'localhost', Port => 25 },
    'noport'   => { Server => '127.0.0.1' },
    'badport'  => { Server => '127.0.0.1', Port => 65536 },
    'coded'    => { Status => 'Not now', Code => '454 4.7.0' },
    'short'    => { Status => 'Go away', Code => '550' },
    'closed'   => { Status => 'Come back later', Code => '421 4.7.0' },
    'miscoded' => { Status => 'Hello', Code => '250 2.0.0' },
    'odd'      => { Status => "\xc3\xa4\tb" },
    'long'     => { Status => $LONG },
    'lower'    => { Status => 'ok' },
    'slow'     => { Status => 'Slowly', Wait => 1 },
    'oauth'    => { Status => 'Expired', SASL => $SASL },
    'missasl'  => { Status => 'Expired', SASL => 'no base64' },
    'silent'   => { Status => '' },
);


sub service_map {
    my ($header, $default) = @_;

    return "    map \$http_auth_user \$reply_\L$header\E {\n"
        . "        default \"$default\";\n"
        . join('', map { "        $_\@example.com \"$users{$_}{$header}\";\n" }
            grep { exists $users{$_}{$header} } sort keys %users)
        . "    }\n";
}


my $maps = service_map(Status => 'OK')
    . join('', map { service_map($_, '') } qw(Server Port User Pass Wait Code
        SASL));

$t->conf('service', <<"EOF");
error_log  %%DIR%%/service.error.log warn;

http {
    client_header_timeout  5s;
    keepalive_timeout      60s;

    log_format  asked  '\$connection \$http_auth_method \$http_auth_user'
                       ' \$http_x_auth_key';

$maps
    map \$http_auth_pass \$verdict {
        default          "Invalid login or password";
        ""               \$reply_status;
        canary           \$reply_status;
        "~^[0-9a-f]{32}\$"  \$reply_status;
    }

    server {
        listen               127.0.0.1:%%PORT_service%%;
        listen               127.0.0.1:%%PORT_service_tls%% ssl;
        ssl_certificate      %%DIR%%/service.crt;
        ssl_certificate_key  %%DIR%%/service.key;
        access_log           %%DIR%%/asked.log asked;

        add_header  Auth-Status      \$verdict       always;
        add_header  Auth-Server      \$reply_server  always;
        add_header  Auth-Port        \$reply_port    always;
        add_header  Auth-User        \$reply_user    always;
        add_header  Auth-Pass        \$reply_pass    always;
        add_header  Auth-Wait        \$reply_wait    always;
        add_header  Auth-Error-Code  \$reply_code    always;
        add_header  Auth-Error-SASL  \$reply_sasl    always;

        location = /auth       { return 200 "some words"; }
        location = /auth204    { return 204; }
        location = /auth403    { return 403; }
        location = /auth500    { return 500; }
        location = /elsewhere  { return 302 http://127.0.0.1/auth; }
    }
}
EOF
$t->run_nginx('service');

my $SERVICE = 'http://127.0.0.1:%%PORT_service%%';
my $SECURE = 'https://127.0.0.1:%%PORT_service_tls%%/auth';

# name, URL, further directives

my @edges = (
    [ plain     => "$SERVICE/auth", '' ],
    [ code204   => "$SERVICE/auth204", '' ],
    [ code403   => "$SERVICE/auth403", '' ],
    [ code500   => "$SERVICE/auth500", '' ],
    [ elsewhere => "$SERVICE/elsewhere", '' ],
    [ missing   => "$SERVICE/nothing", '' ],
    [ mine      => "$SERVICE/auth",
        'policy_auth_http_header X-Auth-Key key-of-mine;' ],

    [ secure    => undef, '' ],
    [ address   => undef, 'policy_auth_ssl_name 127.0.0.1;' ],
    [ anyone    => undef, 'policy_auth_ssl_verify off;
        policy_auth_ssl_name x.example.com;' ],
    [ misplaced => undef, 'policy_auth_ssl_name other.example.com;' ],
    [ strange   => undef,
        'policy_auth_ssl_trusted_certificate %%DIR%%/stranger.crt;' ],
    [ public    => $SECURE, 'policy_auth_ssl_trusted_certificate "";' ],
    [ clear     => 'https://127.0.0.1:%%PORT_service%%/auth', '' ],
    [ hidden    => 'http://127.0.0.1:%%PORT_service_tls%%/auth', '' ],

    [ chain     => "$SERVICE/auth file:%%DIR%%/users", '' ],
    [ unrouted  => "$SERVICE/auth", 'proxy_pass $auth_relay;' ],
    [ lending   => "$SERVICE/auth",
        'proxy_pass 127.0.0.1:%%PORT_lender%%; proxy_smtp_auth on;
        proxy_ssl on; proxy_ssl_verify off;' ],
);

$t->write_file('users', "file\@example.com:{PLAIN}canary-file\n");

my $servers = '';

for (@edges) {
    my ($name, $url, $more) = @$_;

    $servers .= "
    server {
        listen    127.0.0.1:%%PORT_$name%%;
        protocol  smtp;
        " . ($url ? "policy_auth $url;" : '') . "
        $more
    }
";
}

$t->conf(<<"EOF");
thread_pool  default threads=2;

mail {
    server_name            edge.example.com;
    policy_auth_methods    plain login cram-md5 xoauth2 oauthbearer;
    policy                 on;
    policy_auth            $SECURE;
    policy_auth_plaintext  on;
    policy_auth_delay      0;

    policy_auth_http_header              X-Auth-Key key-of-all;
    policy_auth_ssl_trusted_certificate  %%DIR%%/service.crt;
    policy_auth_ssl_name                 service.example.com;

    map \$auth_relay \$route {
        ""       127.0.0.1:%%PORT_relay%%;
        default  \$auth_relay;
    }

    proxy_pass  \$route;
    log_format  who '\$sasl_username \$auth_relay';
    access_log  %%DIR%%/access.log who;
    max_errors  100;
$servers
}
EOF
$t->run_nginx();

my $LATER = qr/^454 4\.7\.0 /;
my $SUCCESS = qr/^235 2\.7\.0 /;


# one login, in a session of its own

sub login {
    my ($where, $user, $password) = @_;

    my $c = $t->session($where);
    my $reply = $c->auth_plain("$user\@example.com", $password // 'canary');

    $c->quit();
    return $reply;
}


# a service writes to its log when it has answered

sub asked {
    my ($log, $before) = ('', undef);

    until (defined $before && $log eq $before) {
        $before = $log;
        sleep(0.1);
        $log = $t->read_file('asked.log');
    }

    return split /\n/, $log;
}


# what clients are told

like(login('plain', 'alice'), $SUCCESS, 'right');
is(login('plain', 'alice', 'wrong'), '535 5.7.8 Invalid login or password',
    'wrong: the text is the service\'s');

my %told = (
    coded    => '454 4.7.0 Not now',
    short    => '550 5.7.0 Go away',
    miscoded => '535 5.7.8 Hello',
    odd      => '535 5.7.8 ?? b',
    long     => '535 5.7.8 ' . ('x' x 200),
    lower    => '535 5.7.8 ok',
);

is(login('plain', $_), $told{$_}, "$_: the reply") for sort keys %told;

my $begin = time();
my $closed = $t->session('plain');
is($closed->auth_plain('closed@example.com', 'canary'),
    '421 4.7.0 Come back later', 'Auth-Error-Code: 421');
ok($closed->wait_close(), '421 closes');

is(login('plain', 'slow'), '535 5.7.8 Slowly', 'Auth-Wait: the reply');
cmp_ok(time() - $begin, '>=', 0.9, 'Auth-Wait: waited for');

like(login('plain', $_), $LATER, "$_: that cannot be true")
    for qw(misnamed socket named noport badport silent);

# nothing but 2xx is "yes", and "no" may be a 403, too

like(login('code204', 'alice'), $SUCCESS, '204: right');
is(login('code204', 'alice', 'no'), '535 5.7.8 Invalid login or password',
    '204: wrong');
like(login('code403', 'alice'), $LATER, '403: not right');
is(login('code403', 'alice', 'no'), '535 5.7.8 Invalid login or password',
    '403: wrong');
like(login($_, 'alice'), $LATER, "$_: neither")
    for qw(code500 elsewhere missing);
like(login($_, 'alice', 'no'), $LATER, "$_: nor so")
    for qw(code500 elsewhere missing);

# mechanisms

for my $mechanism (qw(PLAIN LOGIN CRAM-MD5 XOAUTH2 OAUTHBEARER)) {
    my @who = (user => 'alice@example.com', password => 'canary');
    my $sasl = MailPolicy::Sasl->new($mechanism, @who, token => 'canary');

    like($sasl->login($t->session('plain')), $SUCCESS, "$mechanism: right");

    next if $mechanism eq 'CRAM-MD5';

    $sasl = MailPolicy::Sasl->new($mechanism, @who, password => 'no',
        token => 'no');
    like($sasl->login($t->session('plain')), qr/^535 5\.7\.8 Invalid login/,
        "$mechanism: wrong");
}

is_deeply([ map { (split)[1] } (asked())[-9 .. -1] ],
    [ qw(plain plain plain plain cram-md5 xoauth2 xoauth2 oauthbearer
         oauthbearer) ], 'what the service is told of them');

for (
    [ 'oauth', '{"status":"401","scheme":"Bearer"}' ],
    [ 'missasl', '{"status":"invalid_token"}' ],
) {
    my ($user, $error) = @$_;
    my $sasl = MailPolicy::Sasl->new('OAUTHBEARER',
        user => "$user\@example.com", token => 'canary');

    is($sasl->login($t->session('plain')), '535 5.7.8 Expired',
        "$user: refused");
    is(($sasl->challenges())[-1], $error, "$user: the client is told why");
}

# another login, a relay, a password for it

sub mail_of {
    my ($where, $user, $mechanism) = @_;

    my $c = $t->session($where);
    my $sasl = MailPolicy::Sasl->new($mechanism // 'PLAIN',
        user => "$user\@example.com", password => 'canary');

    like($sasl->login($c), $SUCCESS, "$user: login");

    my @replies = $c->send_mail("$user\@example.com", [ 'to@example.com' ],
        "Subject: $user\n\nx\n");
    $c->quit();
    return $replies[-1];
}


sub last_log { return (split /\n/, $t->read_file('access.log'))[-1] }


like(mail_of('plain', 'alice'), qr/^250 /, 'no route: sent');
is(last_log(), 'alice@example.com -', 'no route: none');
like(mail_of('plain', 'renamed'), qr/^250 /, 'Auth-User: sent');
is(last_log(), 'new@example.com -', 'Auth-User: is who it is');

# many clients say their login as authorization identity, too

sub acts {
    my ($authzid) = @_;

    my $c = $t->session('plain');
    my $reply = MailPolicy::Sasl->new('PLAIN', user => 'renamed@example.com',
        password => 'canary', authzid => $authzid)->login($c);

    $c->quit();
    return $reply;
}

like(acts("$_\@example.com"), $SUCCESS, "Auth-User: may act as $_")
    for qw(renamed new);
like(acts('other@example.com'), qr/^535 5\.7\.8 /,
    'Auth-User: may not act as other');

like(mail_of('plain', 'moved'), qr/^250 /, 'Auth-Server: sent');
is(last_log(), 'moved@example.com 127.0.0.1:' . $t->port('other'),
    'Auth-Server: is the route');
like(mail_of('unrouted', 'moved'), qr/^250 /, 'Auth-Server: sent by itself');
is(scalar($other->messages()), 2, 'Auth-Server: is where it went');
is(scalar($relay->messages()), 2, 'no route: where the others went');

mail_of('plain', 'six');
is(last_log(), 'six@example.com [::1]:' . $t->port('other'),
    'Auth-Server: IPv6');

# who has said none can have one, too

like(mail_of('lending', 'lent', 'CRAM-MD5'), qr/^250 /,
    'Auth-Pass: the relay is given it');
like(mail_of('lending', 'alice'), qr/^250 /,
    'without Auth-Pass: it is given the client\'s');
like(mail_of('lending', 'alice', 'CRAM-MD5'), qr/^451 /, 'with neither');
is_deeply([ map { $_->{auth} } $lender->messages() ],
    [ map { "$_\@example.com" } qw(lent alice) ],
    'Auth-Pass: the relay knows it');

# other providers behind it

like(login('chain', 'file', 'canary-file'), $SUCCESS, 'the next one knows');
like(login('chain', 'alice'), $SUCCESS, 'the first one knows');
is(login('chain', $_, 'no'), '535 5.7.8 Invalid login or password',
    "AUTH-15 $_: refused in the same words") for qw(file nobody);

# TLS

like(login($_, 'alice'), $SUCCESS, "TLS-5 $_: asked")
    for qw(secure address anyone secure);

my %why = (
    misplaced => qr/certificate that is not for "other\.example\.com"/,
    strange   => qr/certificate that cannot be verified: self.signed/,
    public    => qr/certificate that cannot be verified: self.signed/,
    clear     => qr/failed in the TLS handshake/,
    hidden    => qr/answered with status 400 and /,
);

my $count = () = asked();

for my $name (sort keys %why) {
    like(login($name, 'alice'), $LATER, "TLS-5 $name: not asked");
    ok($t->error_log() =~ $why{$name}, "$name: the log says why");
}

is(scalar(() = asked()), $count + 2,
    'of these the service has seen those that it could not read');

# headers

like(login('mine', 'alice'), $SUCCESS, 'a key of its own');
like((asked())[-1], qr/ key-of-mine$/, 'a key of its own: sent');
like(login('plain', 'alice'), $SUCCESS, 'an inherited key');
like((asked())[-1], qr/ key-of-all$/, 'an inherited key: sent');

# connections are kept

my $before = (split / /, (asked())[-1])[0];

my $c = $t->session('plain');
$c->auth_plain('alice@example.com', 'no') for 1 .. 20;
$c->quit();

is_deeply([ map { (split)[0] } (asked())[-20 .. -1] ], [ ($before) x 20 ],
    'twenty attempts, one connection');

# all of them at once have one each, and those are kept, too

my @clients = map { $t->session('secure') } 1 .. 10;

for my $round (1, 2) {
    $_->send_raw('AUTH PLAIN ' . encode_base64("\0alice\@example.com\0no", '')
        . "\r\n") for @clients;
    is(scalar(grep { $_->read_reply() =~ /^535 / } @clients), 10,
        "ten at once, round $round");
}

# a machine with a lot to do may have needed fewer than ten of them
my %used = map { (split)[0] => 1 } (asked())[-20 .. -1];

cmp_ok(scalar keys %used, '<=', 10, 'ten at once: kept for the next round');

# the service is restarted: what was kept is of no use, and nobody notices

is($t->stop('service'), 0, 'service: stopped');
$t->run_nginx('service');
is(login('plain', 'alice', 'no'), '535 5.7.8 Invalid login or password',
    'service: restarted');
is(login('secure', 'alice', 'no'), '535 5.7.8 Invalid login or password',
    'service: restarted, TLS');

# reload: old workers go, with what they have kept

ok($t->reload(), 'reload');
like(login('secure', 'alice'), $SUCCESS, 'reload: right');
ok($t->wait_for(sub { $t->instance()->all_worker_pids() == 1 }),
    'reload: the old worker is gone');

ok($t->error_log() . $t->read_file('access.log') !~ /canary|key-of/,
    'no secret in a log');

$t->done();
