#!/usr/bin/perl

# policy_status: which format is given to whom, and with what headers; the
# fields that README.md describes are there, and keep their order; what is not
# there with "policy_metrics off".

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use JSON::PP ();
use Test::More;

use MailPolicy;

my $t = MailPolicy->new();
my $relay = $t->run_relay(name => 'relay');

my $http = <<'EOF';
http {
    charset  koi8-r;

    server {
        listen  127.0.0.1:%%PORT_http%%;

        location /            { policy_status; }
        location /json        { policy_status  json; }
        location /html        { policy_status  html; }
        location /prometheus  { policy_status  prometheus; }
    }
}
EOF

my $mail = <<'EOF';
mail {
    policy           on;
    policy_auth      off;
    policy_limit     each  key=$client_net  messages=100/1h;
    policy_service   unix:%%DIR%%/nobody  if=$spam;
    proxy_pass       127.0.0.1:%%PORT_relay%%;

    map $helo $spam { default 0; }

    server {
        listen    127.0.0.1:%%PORT_smtp%%;
        protocol  smtp;
    }
}
EOF

$mail =~ s/%%DIR%%/$t->dir()/ge;

$t->conf("worker_processes  2;\n" . $mail . $http);
$t->run_nginx();


# to whom

my $BROWSER = 'text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8';
my $PROMETHEUS = 'application/openmetrics-text;version=1.0.0,'
    . 'application/openmetrics-text;version=0.0.1;q=0.75,'
    . 'text/plain;version=0.0.4;q=0.5,*/*;q=0.1';

my @CASES = (
    # path, Accept, format
    [ '/', undef, 'json' ],
    [ '/', '*/*', 'json' ],
    [ '/', 'application/json, text/plain', 'json' ],
    [ '/', $BROWSER, 'html' ],
    [ '/', 'TEXT/HTML', 'html' ],
    [ '/', $PROMETHEUS, 'prometheus' ],
    [ '/', 'text/plain; version=0.0.4', 'prometheus' ],
    [ '/?format=json', $BROWSER, 'json' ],
    [ '/?format=html', $PROMETHEUS, 'html' ],
    [ '/?a=b&format=prometheus', $BROWSER, 'prometheus' ],
    [ '/?format=xml', undef, '400 format is json, html or prometheus' ],
    [ '/?format=', undef, '400 format is json, html or prometheus' ],
    [ '/?format=jso', undef, '400 format is json, html or prometheus' ],
    [ '/json', $BROWSER, 'json' ],
    [ '/json?format=json', $BROWSER, 'json' ],
    [ '/json?format=html', undef, '400 format is json here' ],
    [ '/html', '*/*', 'html' ],
    [ '/html?format=json', undef, '400 format is html here' ],
    [ '/prometheus', $BROWSER, 'prometheus' ],
    [ '/prometheus?format=json', undef, '400 format is prometheus here' ],
    [ '/prometheus?format=html', undef, '400 format is prometheus here' ],
);

my %TYPE = (
    json => 'application/json',
    html => 'text/html; charset=utf-8',
    prometheus => 'text/plain; version=0.0.4; charset=utf-8',
);

my %FORMAT = (
    json => qr/\A\{"time":"/,
    html => qr/\A<!DOCTYPE html>/i,
    prometheus => qr/\A# HELP nginx_mail_policy_info /,
);

for my $case (@CASES) {
    my ($path, $accept, $format) = @$case;
    my $what = "$path to " . ($accept // 'nobody');
    my $answer = get($path, '-H', defined $accept ? "Accept: $accept"
        : 'Accept:');

    if ($format =~ /^400 (.*)/) {
        is("$answer->{status} $answer->{body}", "400 $1\n", $what);
        like($answer->{header}{'content-type'}, qr/^text\/plain\b/,
            '  as a text');

    } else {
        is($answer->{header}{'content-type'}, $TYPE{$format}, $what);
        like($answer->{body}, $FORMAT{$format}, '  and so it is');
    }

    is($answer->{header}{'cache-control'}, 'no-store', '  not to be kept');
    is($answer->{header}{'x-content-type-options'}, 'nosniff',
        '  nor to be guessed');
}

for my $format (sort keys %TYPE) {
    my $head = get("/$format", '-I');

    is("$head->{status} $head->{body}", '200 ', "HEAD $format: no body");
    cmp_ok($head->{header}{'content-length'}, '>', 20, '  but a length');

    for my $method (qw(POST PUT DELETE OPTIONS)) {
        my $no = get("/$format", '-X', $method);
        is($no->{status}, 405, "$method $format");
        is($no->{header}{allow}, 'GET, HEAD', '  and what to do instead');
    }
}


# the page: what it may do

my %nonce;

for (1 .. 20) {
    my $page = get('/html');
    my $policy = $page->{header}{'content-security-policy'};

    my ($nonce) = $policy =~ /\Adefault-src\ 'none';
        \ style-src\ 'nonce-([0-9a-f]{32})';\ script-src\ 'nonce-\g{1}';
        \ connect-src\ 'self';\ img-src\ data:;\ base-uri\ 'none';\ form-action\ 'none';
        \ frame-ancestors\ 'none'\z/x
        or next;

    $nonce{$nonce}++;
    is($page->{header}{'referrer-policy'}, 'no-referrer', 'no referrer')
        if keys %nonce == 1;
}

is(scalar(keys %nonce), 20, 'a policy, with another nonce each time');
is(get('/json')->{header}{'content-security-policy'}, undef,
    'and none with JSON');


# what README.md describes is there

my $c = $t->session('smtp');

$c->cmd('MAIL FROM:<a@example.com>');
$c->cmd('RCPT TO:<b@example.net>');
$c->cmd('DATA');
$c->cmd("Subject: x\r\n\r\nx\r\n.");
$c->quit();

ok($t->wait_for(sub { json()->{sessions}{active} == 0 }), 'a message');

my $json = json();
my ($section) = $t->read_file($t->root() . '/README.md')
    =~ /^#### JSON\n(.*?)^#### /ms;
my @fields = map { /`([^`]+)`/g }
    $section =~ /^\| ((?:`[a-z_.\[\]]+`(?:, )?)+) \|/mg;

cmp_ok(scalar(@fields), '>', 30, 'README.md describes fields');

for my $field (@fields) {
    next if $field eq 'store.name';     # memory has none

    my @values = ($json);

    for my $name (split /\./, $field =~ s/\[\]//gr) {
        @values = map { $_->{$name} } map { ref($_) eq 'ARRAY' ? @$_ : $_ }
            @values;
    }

    ok(@values && !grep({ !defined } @values), "$field is there");
}

my %described = map { (s/[.\[].*//r => 1) } @fields;
is(join(' ', grep { !$described{$_} } sort keys %$json), '',
    'and there is nothing else');

my $text = get('/json')->{body};
my @order = $text =~ /"([a-z_]+)":/g;
my @again = get('/json')->{body} =~ /"([a-z_]+)":/g;

is("@again", "@order", 'always in the same order');
is($text =~ tr/\n//, 1, 'one line');
is(scalar(keys %{ $json->{auth} }), 9, 'mechanisms');
is(scalar(@{ $json->{minutes} }), 60, 'minutes');
is(join(' ', sort keys %{ $json->{minutes}[0] }),
    join(' ', sort keys %{ $json->{rate} }), 'by the same names as a rate');
is(scalar(@{ $json->{services} }), 1, 'a policy server');
is($json->{upstreams}[0]{peers}[0]{accepted}, 1, 'what a relay did');
is($json->{hour}{accepted}, 1, 'in the last hour');

my $minutes = 0;
$minutes += $_->{accepted} for @{ $json->{minutes} };
is($minutes, 1, 'and in its minutes');

ok($t->wait_for(sub { json()->{rate}{accepted} > 0 }, 5), 'now');


# the lines of README.md for jq

my @printed = $section =~ m{^    curl -s http://127\.0\.0\.1:8080/ \| (jq .*)$}mg;

is(scalar(@printed), 2, 'README.md has lines for jq');

$t->write_file('status.json',
    $text =~ s/("server":"[^"]*","address":"[^"]*","state":)"up"/$1"failed"/r);

for my $command (@printed) {
    my $file = $t->dir() . '/status.json';
    my $output = qx($command $file);

    is($?, 0, $command);
    like($output, qr/"(?:state": "failed"|refused": \d)/, '  says something');
}


# what is there without metrics

$t->conf('off', "mail {\n    policy_metrics  off;\n"
    . ($mail =~ s/^mail \{\n//r =~ s/PORT_smtp/PORT_other/r)
    . $http =~ s/PORT_http/PORT_off/r);
$t->run_nginx('off');

my $off = JSON::PP::decode_json($t->http_get('off', '/'));

is(join(' ', sort keys %$off),
    'mail metrics pid store time upstreams version', 'policy_metrics off');
is($off->{metrics}, JSON::PP::false, '  says so');
is($off->{store}{state}, 'up', '  but the store');
is(join(' ', sort keys %{ $off->{upstreams}[0]{peers}[0] }),
    'active address backup fails server state weight', '  and the relays');

my %family = map { ($_ => 1) } $t->http_get('off', '/prometheus')
    =~ /^nginx_mail_policy_(\w+)/mg;

is(join(' ', sort keys %family),
    'info store_up upstream_peer_active_connections upstream_peer_up',
    '  as metrics, too');
like($t->http_get('off', '/html'), qr/<!DOCTYPE html>/i, '  and a page');

$t->done();


sub json { return JSON::PP::decode_json($t->http_get('http', '/json')) }


sub get {
    my ($path, @options) = @_;

    my ($head, $body) = split /\r\n\r\n/,
        $t->http_get('http', $path, '-i', @options), 2;
    my ($status) = $head =~ m{^HTTP/1\.1 (\d+)};
    my %header;

    for ($head =~ /^([\w-]+: [^\r\n]*)/mg) {
        my ($name, $value) = split /: /, $_, 2;
        $name = lc($name);
        $header{$name} = defined $header{$name} ? "$header{$name}, $value"
            : $value;
    }

    return { status => $status, header => \%header, body => $body // '' };
}
