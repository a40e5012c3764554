#!/usr/bin/perl

# A wrong configuration fails "nginx -t" with a line that says what to write
# instead: for each directive its mistakes, and what is said of them.  Those of
# policy_limit are in conf_limit.t, of upstream in conf_upstream.t, of
# variables and the log in conf_values.t.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Test::More;

use MailPolicy;

my $t = MailPolicy->new();

my $REDIS = "policy_redis redis://127.0.0.1:6379/0;";
my $LIMIT = 'policy_limit a key=$sender messages=1/1h;';


# the server as a whole

bad('no policy_auth',
    server('proxy_pass 127.0.0.1:25;'),
    qr/"policy_auth" is not set: name a provider, or write "policy_auth off;"/,
    'server');

bad('no proxy_pass',
    server('policy_auth off;'),
    qr/"proxy_pass" is not set: name a relay, as "proxy_pass /, 'server');

bad('policy on with IMAP',
    'server { listen 127.0.0.1:%%PORT_imap%%; protocol imap; policy on;
     policy_auth off; proxy_pass 127.0.0.1:25; }',
    qr/"policy on" works in a server with "protocol smtp"/, 'server');

bad('policy on twice', server('policy on;'), qr/"policy" directive is dupl/);
bad('policy maybe', 'policy maybe;', qr/invalid value "maybe"/);

bad('policy off inherits no auth_http',
    "policy on; policy_auth off; proxy_pass 127.0.0.1:25;\n"
    . server('policy off;', ''),
    qr/no "auth_http" is defined for server/, 'server');


# a server for Postfix's questions

bad("protocol policy without limits for messages: $_", policy($_),
    qr/"protocol policy" has no limits to ask: write a "policy_limit" with "m/,
    'server')
    for '', 'policy_limit a key=$client_net sessions=5 auth_failures=3/h;';
bad("$_ with protocol policy", policy("$LIMIT $_;"),
    qr/"@{[ (split)[0] ]}" is for sessions of SMTP: write it in a server with/,
    'server')
    for 'policy on', 'policy_auth off', 'policy_auth_plaintext on',
        'policy_sender own', 'proxy_pass 127.0.0.1:25',
        'policy_message_size 1m', 'policy_max_recipients 1',
        'policy_max_messages 1', 'policy_bare_newline reject',
        'policy_received off', 'policy_min_data_rate 1',
        'proxy_connect_timeout 1s', 'proxy_final_timeout 10m',
        'proxy_next_upstream off', 'proxy_next_upstream_tries 1',
        'proxy_next_upstream_timeout 1s', 'proxy_ssl off',
        'proxy_starttls off', 'proxy_ssl_protocols TLSv1.3',
        'proxy_ssl_ciphers DEFAULT', 'proxy_ssl_conf_command Options x',
        'proxy_ssl_certificate x', 'proxy_ssl_certificate_key x',
        'proxy_ssl_password_file /dev/null', 'proxy_ssl_name x',
        'proxy_ssl_server_name on', 'proxy_ssl_session_reuse on',
        'proxy_ssl_verify off', 'proxy_ssl_verify_depth 1',
        'proxy_ssl_trusted_certificate x', 'proxy_ssl_crl x',
        'proxy_bind off', 'proxy_protocol_version 2',
        'proxy_xclient_required on', 'proxy_auth off',
        'proxy_auth_methods plain', 'proxy_auth_plaintext off';
bad('auth_http is still asked for in other servers',
    "$LIMIT " . policy('') . 'server { listen 127.0.0.1:%%PORT_imap%%;
     protocol imap; }',
    qr/no "auth_http" is defined for server/, 'server');


# the store

bad('policy_zone twice', "policy_zone 1m; policy_zone 1m;",
    qr/"policy_zone" directive is duplicate/);
bad('policy_zone big', 'policy_zone big;',
    qr/"big" is no size, write "policy_zone 8m"/);
bad("policy_zone $_", "policy_zone $_;",
    qr/"$_" is too small, write at least "policy_zone 256k"/)
    for qw(0 1k 255k);

bad('policy_redis twice', "$REDIS\n$REDIS",
    qr/"policy_redis" directive is duplicate/);

for my $case (
    [ '127.0.0.1:6379', qr/write "redis:/ ],
    [ 'rediss://127.0.0.1', qr/write "policy_redis_ssl_trusted_certificate/ ],
    [ 'http://127.0.0.1', qr/write "redis:/ ],
    [ 'redis://127.0.0.1:x', qr/invalid port, write "redis:/ ],
    [ 'redis://redis.invalid', qr/host not found, write "redis:/ ],
    [ 'redis://127.0.0.1/x', qr/no database number/ ],
    [ 'redis://127.0.0.1/1 db=2', qr/the database is set twice/ ],
    [ 'redis://127.0.0.1/0 db=2', qr/the database is set twice/ ],
    [ 'redis://user@127.0.0.1', qr/write "redis:\/\/user:password@/ ],
    [ 'redis://:@127.0.0.1', qr/the password is empty/ ],
    [ 'redis://:%zz@127.0.0.1', qr/two hexadecimal digits/ ],
    [ 'redis://127.0.0.1 redis://127.0.0.2',
        qr/write "sentinel=name" if they are Sentinels, "cluster" if/ ],
    [ 'redis://127.0.0.1 cluster sentinel=m', qr/Sentinels or a cluster/ ],
    [ 'redis://127.0.0.1 sentinel=', qr/as "sentinel=mymaster"/ ],
    [ 'redis://127.0.0.1 sentinel=' . 'x' x 65, qr/as "sentinel=mymaster"/ ],
    [ 'redis://127.0.0.1 clusters', qr/write "cluster"/ ],
    [ 'redis://127.0.0.1 prefix=x: redis://127.0.0.2', qr/the URLs first/ ],
    [ 'redis://127.0.0.1/1 cluster', qr/a cluster has no databases/ ],
    [ 'redis://127.0.0.1 db=1 cluster', qr/a cluster has no databases/ ],
    [ 'unix:/x cluster', qr/have addresses, write "redis:/ ],
    [ 'unix:/x sentinel=m', qr/have addresses, write "redis:/ ],
    [ 'redis://127.0.0.1 rediss://127.0.0.2 cluster',
        qr/"rediss:\/\/" in all of them or in none/ ],
    [ 'redis://u:secret@127.0.0.1 redis://v:secret@127.0.0.2 cluster',
        qr/users or passwords differ/ ],
    [ 'redis://:secret@127.0.0.1 redis://:other@127.0.0.2 cluster',
        qr/users or passwords differ/ ],
    [ 'redis://127.0.0.1/1 redis://127.0.0.2/2 sentinel=m',
        qr/databases differ/ ],
    [ 'redis://127.0.0.1/0 redis://127.0.0.2/1 sentinel=m',
        qr/databases differ/ ],
    [ 'redis://127.0.0.1 retry=3', qr/unknown parameter "retry=3"/ ],
    [ 'redis://127.0.0.1 db=1 db=1', qr/"db=" is set twice/ ],
    [ 'redis://127.0.0.1 db=one', qr/write the number of a database/ ],
    [ 'redis://127.0.0.1 timeout=5ms', qr/between 10ms and 10s/ ],
    [ 'redis://127.0.0.1 timeout=11s', qr/between 10ms and 10s/ ],
    [ 'redis://127.0.0.1 timeout=soon', qr/between 10ms and 10s/ ],
    map([ "redis://127.0.0.1 connections=$_", qr/opens, 1 to 64, as "conn/ ],
        qw(0 65 two)),
    [ 'redis://127.0.0.1 cache=soon', qr/as "cache=2s"/ ],
    [ 'redis://127.0.0.1 cache=', qr/as "cache=2s"/ ],
    [ 'redis://127.0.0.1 cache=61m', qr/at most an hour/ ],
    [ 'redis://127.0.0.1 cache=1s cache=2s', qr/"cache=" is set twice/ ],
    [ 'redis://127.0.0.1 events=all', qr/as "events=10000"/ ],
    [ 'redis://127.0.0.1 events=', qr/as "events=10000"/ ],
    [ 'redis://127.0.0.1 events=-1', qr/or 0 for none/ ],
    [ 'redis://127.0.0.1 events=10000001', qr/as "events=10000"/ ],
    map([ "redis://127.0.0.1 on_error=$_", qr/write "on_error=local"/ ],
        '', qw(retry Local)),
    map([ "redis://127.0.0.1 '$_'", qr/at most 64 printable characters w/ ],
        'prefix=' . 'x' x 65, 'prefix={x}:', 'prefix=a b:'),
    map([ "redis://127.0.0.1 $_ $_", qr/"\w+=?" is set twice in "policy_red/ ],
        qw(prefix=x: timeout=1s connections=1 events=0 on_error=open
           sentinel=m cluster)),
) {
    my ($value, $message) = @$case;
    # what is amiss with TLS shows where it is used
    bad("policy_redis $value", "policy_redis $value;\n"
        . ($value =~ /^rediss:/ ? server('proxy_pass 127.0.0.1:25;') : ''),
        $message);
}

# nginx says this itself, and not where

my ($good, $said) = $t->check_conf(
    "mail { policy_redis rediss://127.0.0.1;\n"
    . "policy_redis_ssl_trusted_certificate %%DIR%%/nothing.crt;\n"
    . server('policy_auth off; proxy_pass 127.0.0.1:25;') . "}\n");

ok(!$good && $said =~ /nothing\.crt/,
    'policy_redis_ssl_trusted_certificate that is not there') or diag($said);


($good, $said) = $t->check_conf("mail { policy_redis rediss://127.0.0.1;\n"
    . "policy_redis_ssl_trusted_certificate %%DIR%%/nginx.conf;\n"
    . server('policy_auth off; proxy_pass 127.0.0.1:25;') . "}\n");

ok(!$good && $said =~ /\[emerg\].*nginx\.conf/,
    'policy_redis_ssl_trusted_certificate that is none') or diag($said);

bad('policy_redis_ssl_verify maybe', 'policy_redis_ssl_verify maybe;',
    qr/invalid value "maybe" in "policy_redis_ssl_verify" directive/);
bad("policy_redis_ssl_$_ twice", "policy_redis_ssl_$_; policy_redis_ssl_$_;",
    qr/"policy_redis_ssl_\w+" directive is duplicate/)
    for 'verify on', 'trusted_certificate x.crt', 'name redis.example.com';


# policy_auth, and its stock neighbours

bad('policy_auth twice', whole('policy_auth off;'),
    qr/"policy_auth" directive is duplicate/);
bad("policy_auth $_", "policy_auth $_;",
    qr/unknown provider "$_" in "policy_auth", must be "redis", "file:/)
    for qw(ldap file: Redis);
bad("policy_auth $_", "policy_auth $_;",
    qr/provider "$_" in "policy_auth", it must be "dovecot:unix:\/path"/)
    for qw(dovecot: dovecot:/x dovecot:unix: dovecot:unix:x dovecot:inet:x);
bad('policy_auth dovecot, a long path', 'policy_auth dovecot:unix:/'
    . 'x' x 200 . ';', qr/too long path in the unix domain socket in "dovecot/);
bad("policy_auth $_", "$REDIS policy_auth $_;",
    qr/"policy_auth off" takes no providers/) for 'off redis', 'redis off';
bad('policy_auth redis redis', "$REDIS policy_auth redis redis;",
    qr/duplicate provider "redis" in "policy_auth"/);
bad('policy_auth redis without policy_redis',
    server('policy_auth redis; proxy_pass 127.0.0.1:25;'),
    qr/"policy_auth redis" needs the directive "policy_redis" in mail\{\}/);

bad('policy_auth of a file that is not there',
    'policy_auth file:%%DIR%%/nothing;',
    qr/open\(\) "\S+\/nothing" of "policy_auth" failed \(2: /);
bad('policy_auth of a folder', 'policy_auth file:%%DIR%%;',
    qr/"\S+" of "policy_auth" is not a regular file/);

my $hash = '$6$saltsalt$' . 'x' x 86;

for my $case (
    [ 'alice', qr/"login:hash" expected/ ],
    [ ":$hash", qr/invalid login, expected 1 to 255 octets/ ],
    [ " alice:$hash", qr/invalid login/ ],
    map([ "alice:$_", qr/unknown, incomplete or too costly password hash, e/ ],
        '', 'secret', '$1$saltsalt$' . 'x' x 22, '$6$saltsalt$x',
        '$2b$17$' . 'x' x 53, '$6$rounds=1000001$saltsalt$' . 'x' x 86,
        '$y$jET$saltsalt$' . 'x' x 43, '{PLAIN}'),
    [ 'alice:{PLAIN}a:b', qr/a \{PLAIN\} password cannot have a ":" in it/ ],
    [ "alice:$hash:senders=a\@x,alice",
        qr/invalid sender, expected addresses and "\@domain" behind/ ],
    [ "alice:$hash:senders=*a*\@x",
        qr/invalid sender, .*, each part with one "\*" at most/ ],
    [ "alice:$hash:senders=a\@x:senders=b\@x", qr/a second "senders="/ ],
    [ "alice:$hash:x:senders=" . 'a@x,' x 257,
        qr/too many senders, expected at most 256 in 8192 octets/ ],
    [ "alice:$hash\nbob:$hash\nalice:{PLAIN}x",
        qr/the same login as in line 2/ ],
) {
    my ($lines, $message) = @$case;

    $t->write_file('users', "# users\n$lines\n");
    bad('policy_auth of a file with ' . substr($lines, 0, 32),
        'policy_auth file:%%DIR%%/users;', qr/users:[24]: .*$message/);
}

bad('policy_auth_plaintext yes', 'policy_auth_plaintext yes;',
    qr/invalid value "yes"/);

bad('policy_sender theirs', 'policy_sender theirs;',
    qr/invalid value "theirs", write "any" or "own"/);
bad('policy_sender own without logins',
    'policy_sender own; ' . server('policy_auth off;
     proxy_pass 127.0.0.1:25;'),
    qr/"policy_sender own" needs logins, .* write "policy_sender any;"/,
    'server');

bad('smtp_auth none with a provider',
    "$REDIS\n" . server('policy_auth redis; smtp_auth none;
     proxy_pass 127.0.0.1:25;'),
    qr/"smtp_auth none" contradicts "policy_auth"/, 'server');
bad('smtp_auth of which nobody knows a thing',
    "$REDIS\n" . server('policy_auth relay; smtp_auth cram-md5;
     proxy_pass 127.0.0.1:25;'),
    qr/no provider of "policy_auth" can serve CRAM-MD5: leave that out of/,
    'server');

bad('smtp_capabilities SIZE x', whole('smtp_capabilities "SIZE ten";'),
    qr/invalid number in smtp_capabilities "SIZE ten"/, 'server');



# sizes, numbers, times

bad('policy_message_size big', 'policy_message_size big;', qr/invalid value/);
bad('policy_message_size -1', 'policy_message_size -1;', qr/invalid value/);
bad('policy_max_recipients 0', 'policy_max_recipients 0;',
    qr/value must be equal to or greater than 1/);
bad('policy_max_recipients x', 'policy_max_recipients x;', qr/invalid number/);
bad('policy_max_messages x', 'policy_max_messages x;', qr/invalid number/);
bad('policy_max_messages -1', 'policy_max_messages -1;', qr/invalid number/);
bad('policy_min_data_rate x', 'policy_min_data_rate fast;', qr/invalid value/);
bad('policy_received maybe', 'policy_received maybe;',
    qr/invalid value "maybe", write "off", "on" or "auto"/);
bad('policy_bare_newline on', 'policy_bare_newline on;',
    qr/invalid value "on", write "reject" or "normalize"/);

for my $directive (qw(proxy_connect_timeout proxy_final_timeout)) {
    bad("$directive soon", "$directive soon;", qr/invalid value/);
    bad("$directive 0", "$directive 0;", qr/must be greater than 0/);
}

bad("proxy_next_upstream $$_[0]", "proxy_next_upstream $$_[0];", $$_[1])
    for [ '5xx', qr/invalid value "5xx", write "off", or some of "error", / ],
        [ 'http_502', qr/invalid value "http_502", write "off", or some of / ],
        [ 'on', qr/invalid value "on", write "off", or some of "error", / ],
        [ 'error error', qr/duplicate value "error"/ ],
        [ 'error off', qr/"off" excludes all others, write "off" alone or / ];

bad('proxy_next_upstream_tries x', 'proxy_next_upstream_tries many;',
    qr/invalid number/);
bad('proxy_next_upstream_timeout x', 'proxy_next_upstream_timeout soon;',
    qr/invalid value/);

bad("$_ twice", "$_; $_;", qr/"\w+" directive is duplicate/)
    for 'proxy_next_upstream off', 'proxy_next_upstream_tries 1',
        'proxy_next_upstream_timeout 1s', 'policy_received on',
        'policy_message_size 1m', 'policy_max_recipients 1',
        'policy_max_messages 1', 'policy_min_data_rate 1',
        'policy_bare_newline reject', 'proxy_connect_timeout 1s',
        'proxy_final_timeout 10m', 'policy_auth_plaintext on',
        'policy_sender own';


# proxy_pass

bad('proxy_pass twice', whole('proxy_pass 127.0.0.1:26;'),
    qr/"proxy_pass" directive is duplicate/);
bad('proxy_pass empty', server('policy_auth off; proxy_pass "";'),
    qr/"proxy_pass" directive is empty/);
bad('proxy_pass to no group', server('policy_auth off; proxy_pass nowhere;'),
    qr/no upstream "nowhere" and no port in "nowhere"/);
bad('proxy_pass to a bad port',
    server('policy_auth off; proxy_pass 127.0.0.1:x;'),
    qr/invalid port in upstream "127.0.0.1:x"/);
bad('proxy_pass to an unknown host',
    server('policy_auth off; proxy_pass relay.invalid:25;'),
    qr/host not found in upstream "relay.invalid:25"/);
bad('proxy_pass to unix:', server('policy_auth off; proxy_pass unix:;'),
    qr/no path in the unix domain socket in upstream/);
bad('proxy_pass by an unknown variable',
    server('policy_auth off; proxy_pass $nobody;'),
    qr/unknown "nobody" variable/);
bad('proxy_pass by a map with a misspelled group',
    "upstream good { server 127.0.0.1:25; }\n"
    . "map \$sender_domain \$relay { default good; example.com god; }\n"
    . server('policy_auth off; proxy_pass $relay;'),
    qr/no upstream "god" and no port in "god"/);




# what each of them is written with, and where

bad("$_ alone", "$_;", qr/invalid number of arguments in "$_" directive/)
    for qw(policy policy_zone policy_redis policy_redis_ssl_verify
           policy_redis_ssl_trusted_certificate policy_redis_ssl_name
           policy_auth policy_auth_plaintext policy_sender policy_limit
           policy_message_size
           policy_max_recipients policy_max_messages policy_bare_newline
           policy_min_data_rate policy_received policy_lookup proxy_pass
           proxy_connect_timeout proxy_final_timeout proxy_next_upstream
           proxy_next_upstream_tries proxy_next_upstream_timeout
           access_log log_format policy_metrics
           map_hash_max_size map_hash_bucket_size);
bad("$_ alone", "$_ { }", qr/invalid number of arguments in "$_" directive/)
    for qw(upstream map geo);
bad('policy_metrics some', 'policy_metrics some;',
    qr/invalid value "some" in "policy_metrics" directive, it must be "on" or/);
bad("$_ in a server", "server { $_ }", qr/directive is not allowed here/)
    for 'policy_zone 8m;', 'policy_metrics off;', $REDIS,
        'policy_redis_ssl_verify off;',
        'policy_redis_ssl_trusted_certificate x.crt;',
        'policy_redis_ssl_name x;', 'map $helo $a { }',
        'map_hash_max_size 128;', 'map_hash_bucket_size 128;',
        "log_format a '\$sender';";


$t->done();


# a server with "protocol policy" and the directives given

sub policy {
    return "server { listen 127.0.0.1:%%PORT_policy%%; protocol policy;
        $_[0] }\n";
}


# "policy on" in a server of the directives given

sub server {
    my ($directives, $policy) = @_;

    $policy //= 'policy on;';

    return "server { listen 127.0.0.1:%%PORT_smtp%%; protocol smtp; $policy\n"
        . "$directives\n}";
}


# a server that is complete, and the directives given

sub whole {
    return server("policy_auth off; proxy_pass 127.0.0.1:25;\n$_[0]");
}


# exactly one line, with a place in a file; place "server": that of the server

sub bad {
    my ($name, $mail, $expected, $place) = @_;

    my ($passed, $output) = $t->check_conf("mail {\n$mail\n}\n");
    my @emerg = grep { /\[emerg\]/ } split(/\n/, $output);

    $place = defined $place ? qr/for server in \S+:\d+$/ : qr/in \S+:\d+$/;
    $place = qr// if $expected =~ /open\\\(\\\)/;

    my $said = !$passed && @emerg == 1 && $emerg[0] =~ $expected
        && $emerg[0] =~ $place;

    ok($said, $name) or diag($output);
}
