#!/usr/bin/perl

# upstream in "nginx -t": each line and parameter with what may be written,
# and with mistakes, of which the message says what is wrong.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Test::More;

use MailPolicy;

my $t = MailPolicy->new();

my $S = 'server 127.0.0.1:25';
my $R = 'resolver 127.0.0.1';

# what is right

good($_) for (
    "$S weight=3 max_fails=0 fail_timeout=1m max_conns=5 slow_start=30s;",
    "$S; server unix:/run/relay.sock backup;",
    "$S; server [::1]:25 down;",
    "$S; server 127.0.0.1:25;",
    "least_conn; $S; $S backup slow_start=1s;",
    "$S; $S backup; least_conn;",
    "hash \$sender_domain; $S max_conns=1;",
    "hash \$recipient consistent; $S; server 127.0.0.2:25 weight=2;",
    "hash static; $S;",
    "random; $S;",
    "random two; $S;",
    "random two least_conn; $S;",
    "$S; keepalive 4; keepalive_requests 10; keepalive_time 1h; "
        . 'keepalive_timeout 1m;',
    "$S; health_check;",
    "$S; health_check interval=500ms jitter=0 jitter=1s fails=3 passes=2 "
        . 'port=26 timeout=3s;',
    "$S resolve;",
    "$R; server relay.invalid:25 resolve;",
    "$R valid=30s ipv6=off; resolver_timeout 5s; server r.invalid:25 resolve;",
);

like(good('server relay.invalid:25 resolve;', "$R;"),
    qr/\[warn\].*host not found in upstream "relay.invalid:25"/,
    'a name that cannot be resolved yet is told');
like(good("random; hash x; $S;"),
    qr/\[warn\].*load balancing method redefined/, 'two methods: as in nginx');

$t->write_file('servers.conf', "$S;\n");
good("include $t->{dir}/servers.conf;");

# what is wrong

my %bad = (
    ''                      => qr/no servers are inside upstream "u" in/,
    "$S backup;"            => qr/inside upstream "u", only backup servers/,
    'server 127.0.0.1;'     => qr/no port in upstream "127.0.0.1"/,
    'server 127.0.0.1 resolve;' => qr/no port in upstream "127.0.0.1"/,
    'server;'               => qr/invalid number of arguments in "server"/,
    "$S fast;"              => qr/invalid parameter "fast"/,
    'server r.invalid:25;'  => qr/host not found in upstream "r.invalid:25"/,
    'server 127.0.0.1:x resolve;' => qr/invalid port in upstream/,
    "$S; proxy_starttls required;" =>
        qr/"proxy_starttls" is not for an upstream, write it in the server/,
    'server smtps://relay.example:465;' =>
        qr/, write the host and the port alone; TLS is for "proxy_ssl" in/,
    'listen 25;'            => qr/unknown directive "listen" in an upstream/,
    "$S { }"                => qr/unexpected "\{"/,
    "$S;" x 257             => qr/upstream "u" has more than 256 addresses/,
    "least_conn 1; $S;"     => qr/invalid number of arguments in "least_conn"/,
    "hash; $S;"             => qr/invalid number of arguments in "hash"/,
    "hash x y; $S;"         => qr/invalid parameter "y"/,
    "hash x consistent z; $S;" => qr/invalid number of arguments in "hash"/,
    "hash \$nobody; $S;"    => qr/unknown "nobody" variable/,
    "hash \$status; $S;"    =>
        qr/"hash \$status" is not known when a relay is chosen: use variab/,
    "random three; $S;"     => qr/invalid parameter "three"/,
    "random two least_time; $S;" => qr/invalid parameter "least_time"/,
    "zone u 64k; $S;"       => qr/"zone" is not needed, remove it/,
    "ip_hash; $S;"          => qr/write "hash \$client_net consistent;"/,
    "$R; $R; $S;"           => qr/"resolver" directive is duplicate/,
    "resolver x.invalid; $S;" => qr/host not found in resolver "x.invalid"/,
    "resolver; $S;"         => qr/invalid number of arguments in "resolver"/,
    "resolver_timeout x; $S;" => qr/"x" is no time, write "resolver_timeout/,
    "resolver_timeout; $S;" => qr/invalid number of .* "resolver_timeout"/,
    "resolver_timeout 1; resolver_timeout 1; $S;" =>
        qr/"resolver_timeout" directive is duplicate/,
    "include $t->{dir}/nothing.conf;" =>
        qr/open\(\) "\S+nothing.conf" failed/,
    'server r.invalid:25 resolve;' =>
        qr/no resolver defined to resolve names at run time in upstream "u"/,
    map({ ("health_check $_; $S;" => qr/invalid parameter "$_"/) } qw(
        interval=0 interval=x jitter=x fails=0 passes=x port=0 port=65536
        timeout=0 uri=/x)),
    "health_check; health_check; $S;" => qr/"health_check" directive is dupl/,
    map({ ("$_; $S;" => qr/invalid value "\S+" in "keepalive\w*".*, write a number/) }
        'keepalive 0', 'keepalive_requests -1'),
    map({ ("$_; $S;" => qr/invalid value "\S+" in "keepalive\w*".*, write a time/) }
        'keepalive_time x', 'keepalive_timeout 0'),
    "keepalive 2; keepalive 3; $S;" => qr/"keepalive" directive is duplicate/,
    "keepalive 1 2; $S;"   => qr/invalid number of arguments in "keepalive"/,
    map({ ("$_; $_; $S;" => qr/"keepalive_\w+" directive is duplicate/) }
        'keepalive_requests 1', 'keepalive_time 1h', 'keepalive_timeout 1m'),
    map({ ("$_; $S;" => qr/invalid number of arguments in "$_" directive/) }
        qw(keepalive keepalive_requests keepalive_time keepalive_timeout)),
    map({ ("$S $_;" => qr/invalid parameter "$_"/) } qw(weight=0 weight=x
        weight=65536 max_fails=x fail_timeout=x max_conns=x slow_start=x)),
    map({ ("$_ 1; $S;" => qr/"$_" in an upstream is not supported by this/) }
        qw(least_time)),
);

bad($_, $bad{$_}) for sort keys %bad;

for my $method ('hash $sender', 'hash $sender consistent', 'random',
    'random two')
{
    bad("$method; $S; $S backup;",
        qr/balancing method does not support parameter "backup"/);
    bad("$S slow_start=5s; $method;",
        qr/balancing method does not support parameter "slow_start"/);
}

bad("$S; } upstream U { $S;", qr/duplicate upstream "U"/);

my ($passed, $output) = $t->check_conf("mail { server {\n"
    . "upstream u { $S; } } }\n");
like($output, qr/"upstream" directive is not allowed here/, 'in a server');

$t->done();


sub check {
    my ($lines, $mail) = @_;

    return $t->check_conf(<<"EOT");
mail {
    ${\ ($mail // '')}
    upstream u { $lines }

    server {
        listen       127.0.0.1:%%PORT_smtp%%;
        protocol     smtp;
        policy       on;
        policy_auth  off;
        proxy_pass   u;
    }
}
EOT
}


sub good {
    my ($lines, $mail) = @_;

    # the one that needs it and has none of its own
    $mail //= "$R;" if $lines eq "$S resolve;";

    my ($passed, $output) = check($lines, $mail);
    ok($passed, $lines) or diag($output);
    return $output;
}


# exactly one line, with a place in a file

sub bad {
    my ($lines, $expected) = @_;

    my ($passed, $output) = check($lines);
    my @emerg = grep { /\[emerg\]/ } split(/\n/, $output);

    ok(!$passed && @emerg == 1 && $emerg[0] =~ $expected
        && $emerg[0] =~ /in \S+:\d+$/, 'refused: ' . substr($lines, 0, 60))
        or diag($output);
}
