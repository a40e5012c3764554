#!/usr/bin/perl

# The page of policy_status, in a real Chromium and under load: the same
# numbers as the JSON, on a phone and in the dark; it changes by itself, asks
# for nothing from elsewhere, works without scripts, and what clients say of
# themselves stays text.

use strict;
use warnings;
use utf8;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use JSON::PP ();
use Test::More;

use MailPolicy;
use MailPolicy::Browser;
use MailPolicy::Process qw(fork_server wait_exit);

my $t = MailPolicy->new();

{
    local $ENV{PATH} = $t->dir();
    ok(!eval { MailPolicy::Browser->new(dir => $t->dir()) }
        && $@ =~ /^there is no chromium: .* installs it/,
        'without chromium it is said what to do');
}

my $browser = MailPolicy::Browser->new(dir => $t->dir());
my $redis = $t->run_redis();
my $relay = $t->run_relay(name => 'relay');

$relay->set(rcpt => { match => qr/nobody\@/, action => '550 5.1.1 Unknown' });

my $hash = $t->crypt('secret', '$5$rounds=1000$mailpolicy$');
$t->write_file('users', "alice\@example.com:$hash\n");

my $http = <<'EOF';
http {
    server {
        listen  127.0.0.1:%%PORT_http%%;

        location / {
            policy_status;
        }
    }
}
EOF

my $mail = <<'EOF';
worker_processes  2;

mail {
    server_name            edge.example.com;
    policy_redis           redis://127.0.0.1:%%PORT_redis%%;
    policy_auth_plaintext  on;
    policy_auth            file:%%DIR%%/users;

    upstream outbound {
        server  127.0.0.1:%%PORT_relay%%;
        server  127.0.0.1:%%PORT_gone%%   max_fails=1 fail_timeout=600s;
    }

    policy_limit  sender  key=$sender      messages=5/1h;
    policy_limit  client  key=$client_net  messages=100000/1h;

    access_log  %%DIR%%/access.log  json;

    server {
        listen      127.0.0.1:%%PORT_smtp%%;
        protocol    smtp;
        policy      on;
        proxy_pass  outbound;
    }
}
EOF

$t->conf($mail . $http);
$t->run_nginx();
$t->allow(qr/\[error\].*connect\(\) failed/);

my $URL = 'http://127.0.0.1:' . $t->port('http') . '/';

# what would run, close a tag, hide, or turn the line around
my @HOSTILE = (
    q{"<script>window.bad=1</script>"@example.com},
    q{"'><img/src=x/onerror=window.bad=1>"@example.com},
);
my @LOGINS = (
    q{"><svg onload=window.bad=1>}, "admin\xe2\x80\xaemoc.elpmaxe@",
    'x' x 120 . '@example.com',
);


# at first: nothing has happened

my $plain = $browser->page(scripts => 0);
$plain->open($URL);
is($plain->eval('document.querySelector("h1").textContent'), 'All is well',
    'a verdict, and without scripts');
like(text($plain, '#refused'), qr/Nobody was refused in the last hour/,
    'nobody is refused: in words');
like(text($plain, '#messages'), qr/No message came/, 'and no message came');
like(text($plain, '#logins'), qr/Nobody has tried/, 'nor a login');
ok($plain->eval('document.getElementById("pause").hidden'),
    'no button without scripts');

my $page = $browser->page();
$page->open($URL);
$page->eval('window.mark = 1');
is($page->eval('!document.getElementById("pause").hidden'), JSON::PP::true,
    'a button that stops it');


# under load

my $load = fork_server($t->dir() . '/load.log', [], \&load);

ok($page->wait_for(q{+document.getElementById('total-accepted').textContent
    > 20}), 'numbers change by themselves');
ok($page->wait_for(q{document.querySelector('h1').textContent
    == '1 of 2 relays of outbound is ill'}), 'a relay that fell ill is seen')
    or diag(text($page, '#verdict'));
like($page->eval('document.title'), qr/^1 of 2 relays of outbound is ill/,
    'and named by the tab');

my $dark = $browser->page(dark => 1);
my $phone = $browser->page(width => 360, height => 740, scale => 2,
    mobile => 1);

for ([ $page, 'light' ], [ $dark, 'dark' ], [ $phone, 'phone' ]) {
    my ($which, $name) = @$_;

    $which->open($URL) unless $which == $page;
    $which->screenshot($t->dir() . "/$name.png");
    ok(-s $t->dir() . "/$name.png" > 20000, "$name: a picture");
    is($which->eval('document.documentElement.scrollWidth'),
        $which->{width}, "$name: no wider than the screen");
    is_deeply($which->eval(contrast()), [],
        "$name: all text stands out from what is behind it");
    is_deeply($which->eval(form()), [], "$name: landmarks, headings, tables");
}

isnt($dark->eval('getComputedStyle(document.body).backgroundColor'),
    $page->eval('getComputedStyle(document.body).backgroundColor'),
    'it is dark');

is(wait_exit($load, 20), 0, 'the load has come to its end')
    or diag($t->read_file('load.log'));


# at rest it says what the JSON says

my $json;
$t->wait_for(sub { $json = status(); $json->{sessions}{active} == 0 });
ok($page->wait_for("document.getElementById('total-accepted').textContent.trim() == '"
    . grouped($json->{transactions}{accepted}) . "'"), 'all is shown');
$json = status();
$page->wait_for("document.getElementById('at').textContent > '"
    . substr($json->{time}, 11, 8) . "'");

my %shown = numbers();
my %said = said($json);
is_deeply(\%shown, \%said, 'numbers are those of the JSON');
cmp_ok($shown{$_}, '>', 0, "some: $_") for qw(total-accepted hour-accepted
    total-deferred total-rejected hour-refused hour-auth_failures
    total-sessions total-log-lines store-answers);

is_deeply(rows('#relays tbody tr:not(.group)'),
    [ map { [ @$_{qw(address state active fails tries failures accepted
                     deferred rejected)} ] } map { @{ $_->{peers} } }
        @{ $json->{upstreams} } ], 'relays');
is_deeply([ map { [ @$_[0 .. 3] ] } @{ rows('#limits tbody tr') } ],
    [ map { [ @$_{qw(name pass defer reject)} ] } @{ $json->{limits} } ],
    'limits');
is_deeply(rows('#logins tbody tr'),
    [ map { my $name = $_;
            [ $name, map { $json->{auth}{$name}{$_} }
                qw(success failure temporary aborted) ] }
        grep { my $l = $json->{auth}{$_}; grep { $_ } values %$l }
            qw(PLAIN LOGIN CRAM-MD5 unknown) ], 'logins');
is(scalar @{ rows('#refused tbody tr') }, scalar @{ $json->{refused} },
    'all who are refused');
is(scalar @{ rows('#near tbody tr') }, scalar @{ $json->{near} },
    'all keys near their limit');


# what clients said of themselves

my $refused = text($page, '#refused');
my $near = text($page, '#near');

like($near, qr/\Q$_\E/, "as text: $_") for map { lc } @HOSTILE;
like($refused, qr/\Q$LOGINS[0]\E/, 'as text: a login');
like($refused, qr/admin\\xE2\\x80\\xAEmoc/, 'what turns the line is seen');
is($page->eval('typeof window.bad'), 'undefined', 'nothing of it ran');
is($page->eval('document.querySelectorAll("main script, main img").length'),
    0, 'nor is there an element of it');


# what is ill and well again is seen; what the reader has opened stays open

$page->eval('document.getElementById("pause").click()');
my $at = text($page, '#at');
$dark->eval('document.querySelector("#messages details").open = true');
$redis->stop();
ok($dark->wait_for(q{document.querySelector('h1').textContent
    .startsWith('Redis is away')}), 'Redis is away');
is($dark->eval('document.getElementById("verdict").className'), 'bad',
    'which is grave');
like(text($dark, '#verdict'), qr/1 of 2 relays of outbound is ill/,
    'and not all');
is(text($page, '#at'), $at, 'what is paused stays as it is');
$page->eval('document.getElementById("pause").click()');
ok($page->wait_for(q{document.querySelector('h1').textContent
    .startsWith('Redis is away')}), 'until it is live again');
$redis->start();
ok($dark->wait_for(q{document.querySelector('h1').textContent
    .startsWith('1 of 2 relays')}), 'Redis is back');
ok($dark->eval('document.querySelector("#messages details").open'),
    'what was opened is open');


# all the time

is($page->eval('window.mark'), 1, 'the document is still the same one');
is($page->loads(), 1, 'it was loaded once');

for ([ $page, 'page' ], [ $dark, 'dark' ], [ $phone, 'phone' ],
    [ $plain, 'without scripts' ])
{
    my ($which, $name) = @$_;

    MailPolicy::none("$name: nothing on the console", $which->complaints());
    MailPolicy::none("$name: asks nobody else",
        grep { !/^\Q$URL\E$|^data:/ } $which->requests());
}

ok($browser->wait_for(sub { $plain->loads() > 1 }, 10),
    'without scripts it is loaded again');
like(text($plain, '#total-accepted'), qr/^[1-9]/, 'with numbers');

cmp_ok(length($t->http_get('http', '/?format=html')), '<', 60_000,
    'it is small');


# the server is gone: that is said, until it is back

$t->stop();
ok($page->wait_for('!document.getElementById("lost").hidden'),
    'a connection that is lost is told of');
like(text($page, '#lost'),
    qr/^Connection lost since [\d:]{8} .* was so at [\d:]{8}/, 'since when');
$t->run_nginx();
ok($page->wait_for('document.getElementById("lost").hidden'),
    'and no more when it is back');
$t->stop();
$browser->stop();


# what else the page may have to say

$t->conf(($mail =~ s/^mail \{/mail {\n    policy_metrics off;/mr) . $http);
$t->run_nginx();
my $html = $t->http_get('http', '/?format=html');
like($html, qr/Write <code>policy_metrics on;<\/code>/,
    'nothing is counted: what to write');
like($html, qr/<h2 id=relays-h>.*127\.0\.0\.1:/s, 'relays are shown anyhow');
$t->stop();

$t->conf('second', $http);
$t->run_nginx('second');
like($t->http_get('http', '/?format=html'),
    qr/No mail server here.*Write one of them/s, 'no mail: what to write');

$t->done();


# mails, some of which are refused, until enough has happened

sub load {
    my $c;

    for my $n (1 .. 6) {
        for my $sender (@HOSTILE, 'alice@example.com') {
            $c = $t->session('smtp');
            $c->auth_plain('alice@example.com', 'secret');
            $c->send_mail($sender, [ 'bob@example.com' ], "x\n");
            $c->quit();
        }
    }

    for my $n (1 .. 60) {
        $c = $t->session('smtp');
        $c->auth_plain('alice@example.com', 'secret');

        for my $k (1 .. 4) {
            $c->send_mail("n$n-$k\@example.com",
                [ 'bob@example.com', 'nobody@example.com' ], "x\n");
        }

        $c->send_mail("n$n\@example.com", [ 'nobody@example.com' ], "x\n");
        $c->quit();
        select(undef, undef, undef, 0.02);
    }

    for my $login (@LOGINS) {
        $c = $t->session('smtp');
        $c->auth_plain($login, 'guess');
        $c->quit();
    }
}


sub status {
    return JSON::PP->new()->utf8()->decode(
        $t->http_get('http', '/?format=json'));
}


sub grouped { return scalar reverse(reverse($_[0]) =~ s/(\d{3})(?=\d)/$1,/gr) }


sub text {
    my ($which, $selector) = @_;

    return $which->eval('document.querySelector('
        . JSON::PP->new()->allow_nonref()->encode($selector)
        . ').textContent');
}


# by id

sub numbers {
    my $found = $page->eval(q{Object.fromEntries([...document.querySelectorAll(
        '[id^=hour-], [id^=total-], [id^=store-], #sessions-active, #kept')]
        .filter(e => !e.id.endsWith('-h'))
        .map(e => [e.id, +e.textContent.replaceAll(',', '')]))});

    return %$found;
}


sub said {
    my ($j) = @_;

    my %said = (
        'sessions-active' => $j->{sessions}{active},
        'kept'            => $j->{kept_connections},
        'store-answers'   => $j->{store}{answers},
        'store-errors'    => $j->{store}{errors},
        'total-sessions'  => $j->{sessions}{total},
        'total-recipients-accepted' => $j->{recipients}{accepted},
        'total-recipients-refused'  => $j->{recipients}{refused},
        'total-log-lines'   => $j->{log}{lines},
        'total-log-lost'    => $j->{log}{lost},
        'total-events-lost' => $j->{log}{events_lost},
        'total-unacked'     => $j->{transactions}{delivered_unacked},
        map { ("total-$_" => $j->{transactions}{$_}) }
            qw(accepted deferred rejected aborted unknown),
    );

    $said{"hour-$_"} = $j->{hour}{$_} for qw(sessions accepted deferred
        rejected other recipients refused auth_failures store_errors);

    return %said;
}


# the first cells of each row that are of text or numbers; JSON has no commas

sub rows {
    my ($selector) = @_;

    my $rows = $page->eval("[...document.querySelectorAll('$selector')].map("
        . 'r => [...r.cells].slice(0, 9).map('
        . "c => c.textContent.trim().replace(/(\\d),(?=\\d{3})/g, '\$1')))");

    return $rows;
}


# text that is not 4.5 times as bright, or dark, as what is behind it

sub contrast {
    return q{(() => {
        const light = c => {
            const l = c.map(v => v / 255).map(v => v <= 0.04045
                ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
            return 0.2126 * l[0] + 0.7152 * l[1] + 0.0722 * l[2];
        };
        const parts = s => s.match(/[\d.]+/g).map(Number);
        const behind = e => {
            for (; e; e = e.parentElement) {
                const c = parts(getComputedStyle(e).backgroundColor);
                if (c.length == 3 || c[3] == 1) {
                    return c.slice(0, 3);
                }
            }
            return [255, 255, 255];
        };
        return [...document.querySelectorAll('body *')]
            .filter(e => [...e.childNodes].some(
                n => n.nodeType == 3 && n.data.trim()) && e.checkVisibility())
            .map(e => {
                const a = light(parts(getComputedStyle(e).color).slice(0, 3));
                const b = light(behind(e));
                const r = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
                return r < 4.5 ? e.outerHTML.slice(0, 60) + ' ' + r : null;
            })
            .filter(x => x);
    })()};
}


# what a reader of screens, and a keyboard, cannot do without

sub form {
    return q{(() => {
        const bad = [], all = s => [...document.querySelectorAll(s)];
        for (const s of ['header', 'main', 'footer', 'h1']) {
            if (all(s).length != 1) { bad.push('not one ' + s); }
        }
        for (const e of all('section, [role=region]')) {
            if (!document.getElementById(e.getAttribute('aria-labelledby'))) {
                bad.push('no name: ' + e.id);
            }
        }
        for (const e of all('table')) {
            if (!e.caption) { bad.push('no caption: ' + e.outerHTML); }
        }
        for (const e of all('th:not([scope])')) {
            bad.push('no scope: ' + e.outerHTML);
        }
        for (const e of all('svg')) {
            if (!e.getAttribute('aria-labelledby')
                && !e.getAttribute('aria-hidden')) { bad.push('svg'); }
        }
        for (const e of all('[style], [onclick]')) {
            bad.push(e.outerHTML);
        }
        for (const e of all('.scroll')) {
            if (e.tabIndex != 0) { bad.push('no keyboard: ' + e.outerHTML); }
        }
        for (const e of all('a')) {
            if (!document.querySelector(e.getAttribute('href'))) {
                bad.push('leads nowhere: ' + e.outerHTML);
            }
        }
        const ids = all('[id]').map(e => e.id);
        return bad.concat(ids.filter((x, i) => ids.indexOf(x) != i));
    })()};
}
