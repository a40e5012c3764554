#!/usr/bin/perl

# What is right passes "nginx -t", without a word, or with a warning where
# something is legal and yet not what was meant.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Test::More;

use MailPolicy;

my $t = MailPolicy->new();

my $REDIS = 'policy_redis redis://127.0.0.1:6379/0;';
my $AUTH = 'auth_http http://127.0.0.1:9/auth;';

$t->write_file('users', 'alice:$6$saltsalt$' . 'x' x 86 . "\n");


good('the least that is needed', server(''));

good('all that there is',
    "policy_zone 8m; $REDIS
     policy_auth redis file:%%DIR%%/users; policy_auth_plaintext on;
     policy_sender own; policy_message_size 10m; policy_max_recipients 100;
     policy_max_messages 10; policy_min_data_rate 1k;
     policy_bare_newline normalize; policy_received on;
     proxy_next_upstream error timeout invalid_response setup 421 4xx;
     proxy_next_upstream_tries 3; proxy_next_upstream_timeout 30s;
     proxy_connect_timeout 5s; proxy_final_timeout 15m;
     access_log %%DIR%%/access.log json;
     upstream out { server 127.0.0.1:25 weight=3 max_fails=2 fail_timeout=5s;
                    server [::1]:25 down; server unix:/tmp/relay backup;
                    server localhost:25; }
     map \$sender_domain \$relay { default out; 'two words' 127.0.0.1:26;
                                   a.example ''; b.example \$other; volatile;
                                   \\default out; }
     map \$helo \$other { default unix:/tmp/other; x \${relay2}; }
     map \"\$recipient|\$protocol\" \$relay2 { include %%DIR%%/map; }
     policy_limit user key=\$sasl_username messages=200/1h
                       recipients=1000/1d on_exceed=defer;
     policy_limit pair key=\${client_net}/\$sender_domain messages=5/10m,burst=2
                       on_exceed=reject;
     policy_limit open key=\$sender messages=unlimited recipients=blocked;
     policy_limit read key=\$sender;
     xclient off; proxy_timeout 1m; timeout 5m;
     smtp_auth login plain; smtp_capabilities PIPELINING 'SIZE 1000'
         8bitmime ENHANCEDSTATUSCODES AUTH STARTTLS;\n"
    . bare('policy on; proxy_pass $relay;'));

good('a server for Postfix alone',
    'policy_limit a key=$sender messages=1/h;
     server { listen 127.0.0.1:%%PORT_policy%%; protocol policy; }');

good('a server for Postfix, below directives for others',
    "$REDIS policy on; policy_auth redis; policy_sender own;
     proxy_pass 127.0.0.1:25; access_log %%DIR%%/access.log;
     upstream other { server 127.0.0.1:25; }
     policy_auth_plaintext on; proxy_ssl on; proxy_ssl_verify off;
     proxy_connect_timeout 5s; proxy_next_upstream off; proxy_bind off;
     policy_limit a key=\$sender messages=1/h on_exceed=relay:other;
     server { listen 127.0.0.1:%%PORT_smtp%%; protocol smtp; }
     server { listen unix:%%DIR%%/policy; protocol policy; policy off; }");

good('every variable',
    'policy_limit all key=' . join(',', map { "\$$_" } qw(
        remote_addr remote_port client_net client_host server_addr
        server_port server_name connection helo protocol sasl_method
        sasl_username sender sender_local sender_domain recipient
        recipient_domain recipients rejected_recipients message_size
        transaction limit limit_remaining retry_after verdict pid hostname
        msec time_iso8601)) . " messages=1/h;\n"
    . server(''));

my ($crt, $key) = $t->certificate();

good('a provider with TLS',
    "$REDIS policy_auth redis; policy on; proxy_pass 127.0.0.1:25;
     ssl_certificate $crt; ssl_certificate_key $key;\n"
    . bare('starttls only;') . "server { listen 127.0.0.1:%%PORT_ssl%% ssl;
     protocol smtp; }");

good('inherited', "policy on; policy_auth off; proxy_pass 127.0.0.1:25;\n"
    . bare(''));

good('a group behind its use',
    bare('policy on; policy_auth off; proxy_pass out;')
    . "\nupstream OUT { server 127.0.0.1:25; }");
good('a map behind its use',
    "policy_limit a key=\$later messages=1/h;\n" . server('')
    . "\nmap \$helo \$later { }");
good('a limit without a rate, policy_redis behind it',
    "policy_limit a key=\$sender;\n$REDIS\n" . server(''));
good("policy_redis $_", "policy_redis $_;\n" . server(''))
    for 'unix:/run/redis.sock db=3', 'redis://[::1]/2 prefix= connections=64',
        'redis://:a%2Fb%25@127.0.0.1:7000 timeout=10ms',
        'redis://127.0.0.1 sentinel=mymaster',
        'redis://u:p@127.0.0.1/1 redis://127.0.0.2 redis://u:p@127.0.0.3:1
         sentinel=mymaster on_error=open',
        'redis://127.0.0.1:7000 redis://:p@127.0.0.1:7001 cluster';
good('policy_redis with TLS',
    "policy_redis rediss://127.0.0.1 rediss://127.0.0.2:7000 cluster;
     policy_redis_ssl_verify on;
     policy_redis_ssl_trusted_certificate $crt;
     policy_redis_ssl_name redis.example.com;\n" . server(''));
good('policy_redis with TLS, not verified',
    "policy_redis_ssl_verify off;\n" . server('')
    . 'policy_redis rediss://127.0.0.1;');
good('a limit of the same name on another level',
    "policy_limit a key=\$sender messages=1/h;\n"
    . server('policy_limit a key=$sender messages=2/h;'));
good('a large map', 'map $sender $a { '
    . join(' ', map { "user$_\@example.com $_;" } 1 .. 3000)
    . ('long' x 200) . " 1; }\n" . server(''));
good('no limit of size', server('policy_message_size 0;'));
good('access_log off', "access_log %%DIR%%/access.log;\n"
    . server('access_log off;'));


# auth_http is asked of those who ask it, and of nobody else

good('auth_http behind policy on', server($AUTH));
good('auth_http in front of policy on',
    bare("$AUTH policy on; policy_auth off; proxy_pass 127.0.0.1:25;"));
good('policy off with its own auth_http',
    "policy on; policy_auth off; proxy_pass 127.0.0.1:25;\n"
    . bare('') . bare("policy off; $AUTH", 'other'));
good('policy off with an inherited auth_http behind policy on',
    "policy on; $AUTH policy_auth off; proxy_pass 127.0.0.1:25;\n"
    . bare('') . bare('policy off;', 'other'));
good('policy off with an inherited auth_http in front of policy on',
    "$AUTH policy on; policy_auth off; proxy_pass 127.0.0.1:25;\n"
    . bare('') . bare('policy off;', 'other'));


# with policy off nothing is missed

good('directives without policy',
    "policy_limit a key=\$sender; policy_auth_plaintext on; $AUTH\n"
    . "proxy_smtp_auth on; proxy_protocol on; smtp_auth none;\n"
    . bare('') . 'server { listen 127.0.0.1:%%PORT_imap%%; protocol imap; }');
good('mail without a server', '');
good('no mail', undef);

good('smtp_auth without plain and login',
    "$REDIS\n" . bare('policy on; policy_auth redis; smtp_auth cram-md5;
     policy_auth_plaintext on; proxy_pass 127.0.0.1:25;'));


# warnings

warned('a short proxy_final_timeout',
    "proxy_final_timeout 599s;\n" . server(''),
    qr/"proxy_final_timeout" of less than 10 minutes may deliver messages tw/);
warned('an extension that is not ours', server('smtp_capabilities XYZ SIZE;'),
    qr/smtp_capabilities "XYZ" is not supported by this version and is not/);
warned('external, and no certificates',
    "$REDIS\n" . bare('policy on; policy_auth redis; smtp_auth plain external;
     policy_auth_plaintext on; proxy_pass 127.0.0.1:25;'),
    qr/no client is offered EXTERNAL without "ssl_verify_client"/);
warned('a provider, and no TLS',
    "$REDIS\n" . bare('policy on; policy_auth redis;
     proxy_pass 127.0.0.1:25;'),
    qr/nobody can log in without TLS: set "starttls", "listen ... ssl", or "/);


$t->done();


sub bare {
    my ($directives, $port) = @_;

    $port //= 'smtp';

    return "server { listen 127.0.0.1:%%PORT_$port%%; protocol smtp;\n"
        . "$directives\n}";
}


sub server {
    return bare("policy on; policy_auth off; proxy_pass 127.0.0.1:25;\n"
        . $_[0]);
}


sub output {
    my ($mail) = @_;

    $t->write_file('map', "default '';\n");

    my ($passed, $output) = $t->check_conf(defined $mail
        ? "mail {\n$mail\n}\n" : '');

    return ($passed, $output, grep { /\[(?:warn|error|emerg|alert|crit)\]/ }
        split(/\n/, $output));
}


sub good {
    my ($name, $mail) = @_;

    my ($passed, $output, @said) = output($mail);

    ok($passed && !@said, $name) or diag($output);
}


sub warned {
    my ($name, $mail, $expected) = @_;

    my ($passed, $output, @said) = output($mail);

    ok($passed && @said == 1 && $said[0] =~ $expected, "warning: $name")
        or diag($output);
}
