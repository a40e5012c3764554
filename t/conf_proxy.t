#!/usr/bin/perl

# The directives about the connections to relays: each of their mistakes fails
# "nginx -t" with a line that says what to write instead.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Test::More;

use MailPolicy;

my $t = MailPolicy->new();

$t->certificate('relay', 'relay.example.com');
$t->certificate('other', 'relay.example.com');
$t->write_file('empty', "\nsecret\n");

my $DIR = '%%DIR%%';
my $SSL = 'proxy_ssl on;';

for my $case (

    # TLS

    [ 'proxy_ssl on; proxy_starttls on;',
        qr/write "proxy_starttls off;" or "proxy_ssl off;" for server in \S+/ ],
    [ 'proxy_ssl on; proxy_starttls required;',
        qr/write "proxy_starttls off;" or "proxy_ssl off;" for server in \S+/ ],
    [ 'proxy_ssl maybe;', qr/invalid value "maybe" in "proxy_ssl"/ ],
    [ 'proxy_starttls always;', qr/"always", write "off", "on" or "required"/ ],
    [ 'proxy_starttls on; proxy_starttls on;', qr/"proxy_starttls" .* dupl/ ],
    [ 'proxy_ssl_protocols TLSv4;', qr/invalid value "TLSv4"/ ],
    [ "$SSL proxy_ssl_ciphers NONE;", qr/"NONE"/ ],
    [ "$SSL proxy_ssl_conf_command Nonsense 1;", qr/Nonsense/ ],
    [ "$SSL proxy_ssl_certificate $DIR/relay.crt;",
        qr/"proxy_ssl_certificate_key" go together, write both for server/ ],
    [ "$SSL proxy_ssl_certificate_key $DIR/relay.key;",
        qr/"proxy_ssl_certificate_key" go together, write both for server/ ],
    [ "$SSL proxy_ssl_certificate $DIR/none; proxy_ssl_certificate_key x;",
        qr/none/ ],
    [ "$SSL proxy_ssl_certificate $DIR/relay.crt;
       proxy_ssl_certificate_key $DIR/other.key;", qr/key values mismatch/ ],
    [ "proxy_ssl_password_file $DIR/none;", qr/none/ ],
    [ "$SSL proxy_ssl_trusted_certificate $DIR/none;", qr/none/ ],
    [ "$SSL proxy_ssl_trusted_certificate $DIR/empty;", qr/empty/ ],
    [ "$SSL proxy_ssl_crl $DIR/none;", qr/none/ ],
    [ "proxy_ssl_verify_depth much;", qr/invalid number/ ],
    [ "$SSL proxy_ssl_name \$server_name;", qr/takes no variables here, write/ ],
    map([ "proxy_ssl_$_ maybe;", qr/invalid value "maybe"/ ],
        qw(verify server_name session_reuse)),
    [ "$SSL proxy_pass unix:/tmp/relay;",
        qr/has no name.*write "proxy_ssl_name/ ],

    [ 'proxy_timeout 0;', qr/gives relays no time: write "proxy_timeout 5m;"/ ],

    # logins

    [ 'proxy_auth edge;', qr/write "proxy_auth edge file:\/path;"/ ],
    [ "$SSL proxy_auth '' x;", qr/invalid name ""/ ],
    [ "$SSL proxy_auth ' edge' x;", qr/" edge" .*write "proxy_auth name file:/ ],
    [ "$SSL proxy_auth edge file:;", qr/no file .*"proxy_auth edge file:\/path;"/ ],
    [ "$SSL proxy_auth edge '';", qr/the password of "proxy_auth edge" is e/ ],
    [ "$SSL proxy_auth edge file:$DIR/none;", qr/open\(\) "\S+none" failed/ ],
    [ "$SSL proxy_auth edge file:$DIR/empty;", qr/password of .* is empty/ ],
    [ "$SSL proxy_auth edge x; proxy_auth off;", qr/"proxy_auth" .* dupl/ ],
    [ "$SSL proxy_auth_methods gssapi;", qr/invalid value "gssapi"/ ],
    [ 'proxy_auth edge x; proxy_auth_methods plain login;',
        qr/"proxy_auth" needs TLS .* write "proxy_starttls required;"/ ],
    [ 'proxy_smtp_auth on;',
        qr/"proxy_smtp_auth" needs TLS .*"proxy_auth_plaintext on;"/ ],
    [ "$SSL proxy_smtp_auth on; proxy_auth edge x;",
        qr/write "proxy_auth off;" or "proxy_smtp_auth off;"/ ],

    # where from, and for whom

    [ 'proxy_bind nowhere;', qr/invalid address "nowhere", write an addr/ ],
    [ 'proxy_bind 127.0.0.1 opaque;', qr/"opaque", write "transparent"/ ],
    [ 'proxy_bind off; proxy_bind off;', qr/"proxy_bind" .* duplicate/ ],
    [ 'proxy_bind $sender;', qr/\$sender" is not known when a relay is/ ],
    [ 'proxy_bind $nothing;', qr/unknown "nothing" variable/ ],
    [ 'proxy_protocol_version 3;', qr/invalid value "3", write "1" or "2"/ ],
    [ 'xclient off; proxy_xclient_required on;',
        qr/contradicts "xclient off": write "xclient on;" for server in/ ],

    # what all of them have in common

    map([ "proxy_$_ maybe;", qr/invalid value "maybe" in "proxy_$_" direc/ ],
        qw(auth_plaintext xclient_required)),
    map([ "proxy_$_;", qr/invalid number of arguments in "proxy_$_" direct/ ],
        qw(auth auth_methods auth_plaintext bind protocol_version ssl
           ssl_certificate ssl_certificate_key ssl_ciphers ssl_conf_command
           ssl_crl ssl_name ssl_password_file ssl_protocols ssl_server_name
           ssl_session_reuse ssl_trusted_certificate ssl_verify
           ssl_verify_depth starttls xclient_required)),
    map([ "proxy_$_; proxy_$_;", qr/"proxy_\w+" directive is duplicate/ ],
        'auth_plaintext on', 'protocol_version 2', 'ssl on',
        'ssl_certificate x', 'ssl_certificate_key x', 'ssl_ciphers HIGH',
        'ssl_crl x', 'ssl_name x', 'ssl_server_name on',
        'ssl_session_reuse on', 'ssl_trusted_certificate x', 'ssl_verify on',
        'ssl_verify_depth 1', 'xclient_required on'),
    [ "proxy_ssl_password_file $DIR/empty; proxy_ssl_password_file x;",
        qr/"proxy_ssl_password_file" directive is duplicate/ ],
) {
    my ($directives, $message) = @$case;

    my $pass = $directives =~ /proxy_pass/ ? '' : 'proxy_pass 127.0.0.1:25;';
    my ($good, $said) = $t->check_conf(<<"EOC");
mail {
    policy       on;
    policy_auth  off;

    server {
        listen    127.0.0.1:%%PORT_smtp%%;
        protocol  smtp;
        $pass
        $directives
    }
}
EOC
    my @emerg = grep { /\[emerg\]/ } split /\n/, $said;

    ok(!$good && @emerg == 1 && $emerg[0] =~ $message, $directives)
        or diag($said);
}

# of a group, in the server that uses it

for my $case (
    [ 'proxy_auth edge x', 'proxy_auth_methods plain login;',
        qr/\[emerg\].*"proxy_auth" needs TLS .*"proxy_starttls required;"/ ],
    [ 'health_check', 'proxy_ssl on;',
        qr/\[warn\].*"proxy_ssl on" says .*write "health_check port=25;"/ ],
    [ 'health_check', 'proxy_protocol on;',
        qr/\[warn\].*"proxy_protocol" says .*write "health_check port=25;"/ ],
    [ 'health_check port=26', 'proxy_ssl on; proxy_protocol on;', qr/^$/ ],
    [ 'health_check', 'proxy_starttls required;', qr/^$/ ],
) {
    my ($line, $directives, $message) = @$case;
    my ($good, $said) = $t->check_conf(<<"EOC");
mail {
    upstream u { server 127.0.0.1:25; $line; }

    server {
        listen       127.0.0.1:%%PORT_smtp%%;
        protocol     smtp;
        policy       on;
        policy_auth  off;
        proxy_pass   u;
        $directives
    }
}
EOC

    my $lines = join("\n", grep { /\[(?:emerg|warn)\]/ } split /\n/, $said);
    like($lines, $message, "upstream: $line; server: $directives")
        or diag($said);
}

# of a group

for my $case ([ 'proxy_auth edge;', qr/invalid number of arguments/ ],
    [ 'proxy_auth edge x; proxy_auth edge x;', qr/is duplicate/ ],
    [ "proxy_auth edge file:$DIR/none;", qr/open\(\) "\S+none" failed/ ])
{
    my ($line, $message) = @$case;
    my ($good, $said) = $t->check_conf(
        "mail { upstream u { server 127.0.0.1:25; $line } }\n");

    ok(!$good && $said =~ $message, "upstream: $line") or diag($said);
}

# what is right, and inherited

my ($good, $said) = $t->check_conf(<<"EOC");
mail {
    policy       on;
    policy_auth  off;
    proxy_pass   127.0.0.1:25;

    proxy_starttls                 on;
    proxy_ssl_protocols            TLSv1.2 TLSv1.3;
    proxy_ssl_ciphers              HIGH;
    proxy_ssl_conf_command         Options PrioritizeChaCha;
    proxy_ssl_certificate          $DIR/relay.crt;
    proxy_ssl_certificate_key      $DIR/relay.key;
    proxy_ssl_trusted_certificate  $DIR/other.crt;
    proxy_ssl_name                 relay.example.com;
    proxy_auth                     edge x;

    server { listen 127.0.0.1:%%PORT_a%%; protocol smtp; }
    server { listen 127.0.0.1:%%PORT_b%%; protocol smtp;
             proxy_starttls off; proxy_ssl on; }
    server { listen 127.0.0.1:%%PORT_c%%; protocol smtp;
             proxy_auth off; proxy_starttls off; }
    server { listen 127.0.0.1:%%PORT_d%%; protocol smtp;
             proxy_pass unix:/tmp/relay; }
}
EOC

ok($good, 'what is right') or diag($said);
unlike($said, qr/\[(?:warn|error)\]/, 'and nothing to warn of');

$t->done();
