#!/usr/bin/perl

# What "policy_auth http:" asks a service is what nginx' own "auth_http" asks
# it, octet by octet: the same dialogues with both, the requests compared.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Digest::MD5 ();
use MIME::Base64 qw(decode_base64 encode_base64);
use Test::More;

use MailPolicy;
use MailPolicy::AuthService;
use MailPolicy::Dns;

my $t = MailPolicy->new();

$t->run_relay(name => 'relay');
$t->certificate();

my ($crt, $key) = $t->certificate('client', 'right.example.com');

my $service = MailPolicy::AuthService->new(dir => $t->dir(), name => 'auth',
    port => $t->port('auth'), handler => sub {
        my ($socket, $request) = @_;

        # nginx' own closes the session where it is not told to wait
        MailPolicy::AuthService::reply($socket, $request =~ /right/
            ? ('Auth-Status' => 'OK', 'Auth-Server' => '127.0.0.1',
               'Auth-Port' => $t->port('relay'))
            : ('Auth-Status' => 'Invalid login', 'Auth-Wait' => 1));
        return 1;
    });

my $dns = MailPolicy::Dns->new(dir => $t->dir(), port => $t->port('dns'),
    ptr => { '127.0.0.1' => 'host.example', '127.0.0.2' => 'other.example',
        '127.0.0.3' => "evil.example\r\nX-Evil: 1" },
    a => { 'host.example' => '127.0.0.1',
        "evil.example\r\nX-Evil: 1" => '127.0.0.3' });

push @{ $t->{servers} }, $service, $dns;

my $TLS = 'ssl_certificate %%DIR%%/localhost.crt;
        ssl_certificate_key %%DIR%%/localhost.key;';
my $CLIENT = "$TLS ssl_client_certificate %%DIR%%/client.crt;";

# name, after the port, further directives

my @servers = (
    [ plain   => '', '' ],
    [ tls     => '', "$TLS starttls on;" ],
    [ cert    => '', "$CLIENT starttls on; ssl_verify_client optional;" ],
    [ smtps   => 'ssl', "$CLIENT ssl_verify_client optional;
        %%AUTH%%_pass_client_cert on;" ],
    [ proxied => 'proxy_protocol', '' ],
    [ named   => '', 'resolver 127.0.0.1:%%PORT_dns%%;' ],
);

my $servers = '';

for my $who (qw(stock ours)) {
    my $own = $who eq 'stock' ? 'policy off; xclient off; auth_http'
        : 'policy on; policy_auth';
    my $auth = $who eq 'stock' ? 'auth_http' : 'policy_auth_http';

    for (@servers) {
        my ($name, $listen, $more) = @$_;

        $servers .= "
    server {
        listen    127.0.0.1:%%PORT_${who}_$name%% $listen;
        protocol  smtp;

        $own http://127.0.0.1:%%PORT_auth%%/mail/auth?a=b;
        ${auth}_header  X-Auth-Key \"very secret\";
        ${auth}_header  X-Other    \"\";
        $more
    }
" =~ s/%%AUTH%%/$auth/gr;
    }
}

$t->conf(<<"EOF");
thread_pool  default threads=2;

mail {
    server_name            edge.example.com;
    smtp_auth              plain login cram-md5 external;
    policy_auth_plaintext  on;
    proxy_pass             127.0.0.1:%%PORT_relay%%;
$servers
}
EOF
$t->run_nginx();


# the dialogue with both, and what the service was asked in the end

sub compare {
    my ($name, $where, $dialogue, %option) = @_;

    my %asked;

    for my $who (qw(stock ours)) {
        my $before = $service->requests();
        my $c = $t->client("${who}_$where", %{ $option{client} // {} });

        $c->send_raw($option{proxy}) if $option{proxy};
        $c->greeting();
        $c->ehlo();

        if ($option{starttls}) {
            $c->starttls();
            $c->ehlo();
        }

        like($dialogue->($c), $option{like} // qr/^235 /,
            "$name: $who says so");

        my @requests = $service->requests();

        is(scalar(@requests), $before + ($option{count} // 1),
            "$name: $who asks once each time");
        $asked{$who} = $requests[-1] // '';
        $c->close();
    }

    my ($stock, $ours) = @asked{qw(stock ours)};

    ok($ours =~ s/^Connection: keep-alive\r\n//m, "$name: ours keeps it");

    if ($option{blur}) {
        $_ = $option{blur}->($_) for $stock, $ours;
    }

    is(shown($ours), shown($stock), "$name: it is the same request");
    return $asked{ours};
}


sub shown { return join("\n", split /\r\n/, "$_[0](end)") }


sub plain {
    my ($login, $password) = @_;

    return sub { $_[0]->auth_plain($login, $password) };
}


sub login {
    my ($login, $password) = @_;

    return sub { $_[0]->auth_login($login, $password) };
}


sub cram {
    my ($login, $password) = @_;

    return sub {
        my ($c) = @_;

        my $challenge = $c->cmd('AUTH CRAM-MD5');
        $challenge =~ s/^334 // or return $challenge;

        return $c->cmd(encode_base64("$login "
            . hmac_md5_hex(decode_base64($challenge), $password), ''));
    };
}


sub hmac_md5_hex {
    my ($data, $secret) = @_;

    $secret .= "\0" x (64 - length $secret);
    return Digest::MD5::md5_hex(($secret ^ ("\x5c" x 64))
        . Digest::MD5::md5(($secret ^ ("\x36" x 64)) . $data));
}


my $asked = compare('PLAIN', 'plain', plain('right@example.com', 'secret'));

like($asked, qr{^GET /mail/auth\?a=b HTTP/1\.0\r\nHost: 127\.0\.0\.1\r\n},
    'the request line, and the host');
like($asked, qr/^Auth-Method:\ plain\r\n
    Auth-User:\ right\@example\.com\r\n
    Auth-Pass:\ secret\r\n
    Auth-Protocol:\ smtp\r\n
    Auth-Login-Attempt:\ 1\r\n
    Client-IP:\ 127\.0\.0\.1\r\n/mx, 'who it is') or diag(shown($asked));
like($asked, qr/^X-Auth-Key: very secret\r\nX-Other: \r\n\r\n\z/m,
    'own headers come last');

compare('LOGIN', 'plain', login('right@example.com', 'secret'));
compare('a refusal', 'plain', plain('wrong@example.com', 'secret'),
    like => qr/^535 5\.7\.\d Invalid login$/);

# escaped as there

my %passwords = (
    percent => '100%25',
    space   => ' a  b ',
    plus    => 'a+b&c=d',
    utf8    => "\xc3\xa4\xe2\x82\xac",
    quotes  => '"\'\\',
    crlf    => "a\r\nX-Admin: 1",
    tab     => "a\tb",
    all     => join('', map { chr } 1 .. 126),
);

for my $name (sort keys %passwords) {
    my @credentials = ('right@example.com', $passwords{$name});

    compare("PLAIN, $name", 'plain', plain(@credentials));
    compare("LOGIN, $name", 'plain', login(@credentials));
}

for my $login ('right 100%@example.com', "right\xc3\xa4\@example.com") {
    compare('a login', 'plain', plain($login, 'secret'));
}

# another attempt, and what is left of the one before

compare('second attempt', 'plain', sub {
    my ($c) = @_;

    $c->auth_plain('wrong@example.com', 'first');
    return $c->auth_login('right@example.com', 'second');
}, count => 2);

$asked = compare('third attempt', 'tls', sub {
    my ($c) = @_;

    $c->auth_plain('wrong@example.com', 'first');
    $c->auth_login('wrong@example.com', 'second');
    return $c->auth_plain('right@example.com', 'third');
}, starttls => 1, count => 3);

like($asked, qr/^Auth-Login-Attempt: 3\r$/m, 'third attempt: counted');

# the challenge of each is its own, and so is what answers it

$asked = compare('CRAM-MD5', 'plain', cram('right@example.com', 'secret'),
    blur => sub {
        $_[0] =~ s/^(Auth-Salt: <)\S+(>\r)$/$1...$2/mr
              =~ s/^(Auth-Pass: )[0-9a-f]{32}(\r)$/$1...$2/mr;
    });

my ($digest) = $asked =~ /^Auth-Pass: (.*)\r$/m;
my ($salt) = $asked =~ /^Auth-Salt: (.*)\r$/m;

is($digest, hmac_md5_hex($salt, 'secret'),
    'CRAM-MD5: what the service is told fits together');

# TLS, and who the client is there

compare('STARTTLS', 'tls', plain('right@example.com', 'secret'),
    starttls => 1);

my %known = (ssl => { SSL_use_cert => 1, SSL_cert_file => $crt,
    SSL_key_file => $key });

my $external = sub {
    return $_[0]->cmd('AUTH EXTERNAL '
        . encode_base64('right.example.com', ''));
};

$asked = compare('no certificate', 'cert',
    plain('right@example.com', 'secret'), starttls => 1);
like($asked, qr/^Auth-SSL-Verify: NONE\r$/m, 'no certificate: it says so');

$asked = compare('a certificate', 'cert',
    plain('right@example.com', 'secret'), starttls => 1, client => \%known);
like($asked, qr/^Auth-SSL-Verify: SUCCESS\r$/m, 'a certificate: it says so');
unlike($asked, qr/^Auth-SSL-Cert:/m, 'a certificate: and does not show it');

compare('EXTERNAL', 'cert', $external, starttls => 1, client => \%known);

$asked = compare('EXTERNAL, implicit TLS', 'smtps', $external,
    client => { %known, tls => 1 });
like($asked, qr/^Auth-Method:\ external\r\n
    Auth-User:\ right\.example\.com\r\n
    Auth-Pass:\ \r\n/mx, 'EXTERNAL: who it is');
like($asked, qr/^Auth-SSL-Subject: CN=right\.example\.com\r$/m,
    'EXTERNAL: the subject');
like($asked, qr/^Auth-SSL-Cert: -----BEGIN%20CERTIFICATE-----%0A/m,
    'EXTERNAL: the certificate itself');

compare('implicit TLS', 'smtps', login('right@example.com', 'secret'),
    client => { tls => 1 });

# what its name is

for (
    [ '127.0.0.1', 'host.example' ],
    [ '127.0.0.2', '[UNAVAILABLE]' ],
) {
    my ($from, $name) = @$_;

    $asked = compare("from $from", 'named',
        plain('right@example.com', 'secret'), client => { from => $from });
    is(($asked =~ /^Client-Host: (.*)\r$/m)[0], $name, "from $from: its name");
}

# AUTH-1, and this nginx' own may be told

my $evil = $t->session('ours_named', from => '127.0.0.3');
like($evil->auth_plain('right@example.com', 'secret'), qr/^235 /,
    'AUTH-1 a name of several lines: logs in');
is(scalar(grep { $_->[0] =~ /Evil/ || $_->[1] =~ /evil/ }
    $service->last_headers()), 0, 'AUTH-1 a name of several lines: is none');
like((map { $_->[1] } grep { $_->[0] eq 'Client-Host' }
    $service->last_headers())[0], qr/^\[(?:UNAVAILABLE|TEMPUNAVAIL)\]$/,
    'AUTH-1 a name of several lines: as nginx says it');

# behind a balancer

$asked = compare('PROXY protocol', 'proxied',
    plain('right@example.com', 'secret'),
    proxy => "PROXY TCP4 192.0.2.1 192.0.2.2 4711 587\r\n");
like($asked, qr/^Proxy-Protocol-Addr:\ 192\.0\.2\.1\r\n
    Proxy-Protocol-Port:\ 4711\r\n
    Proxy-Protocol-Server-Addr:\ 192\.0\.2\.2\r\n
    Proxy-Protocol-Server-Port:\ 587\r\n/mx, 'PROXY protocol');

ok($t->error_log() !~ /very secret|third/, 'no secret in the log');

$t->done();
