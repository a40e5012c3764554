#!/usr/bin/perl

# AUTH, by its ids: whom a login may name (AUTH-1), what half of a message
# leaves (AUTH-2), one attempt after another (AUTH-3, AUTH-4), and who else
# hears of what is no message (AUTH-7).

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use MIME::Base64 qw(encode_base64);
use Test::More;

use MailPolicy;
use MailPolicy::Sasl;

my @MECHANISMS = ('PLAIN', 'LOGIN', 'CRAM-MD5', 'SCRAM-SHA-256');
my $PASSWORD = 'canary-in-clear';
my $INVALID = qr/^535 5\.7\.8 /;

my $t = MailPolicy->new();
my $redis = $t->run_redis();
my $relay = $t->run_relay(name => 'relay', extensions => [ 'PIPELINING',
    'XCLIENT NAME ADDR PORT PROTO HELO LOGIN' ]);

$t->secret($PASSWORD);
$t->write_file('users', "alice\@example.com:{PLAIN}$PASSWORD\n");

$t->conf(<<'EOF');
mail {
    server_name            edge.example.com;
    policy_redis           redis://127.0.0.1:%%PORT_redis%% timeout=5s;
    policy                 on;
    policy_auth_plaintext  on;
    policy_auth_methods    plain login cram-md5 scram-sha-256;
    proxy_pass             127.0.0.1:%%PORT_relay%%;
    access_log             %%DIR%%/access.log json;
    max_errors             100000;

    server {
        listen       127.0.0.1:%%PORT_records%%;
        protocol     smtp;
        policy_auth  redis;
    }

    server {
        listen       127.0.0.1:%%PORT_file%%;
        protocol     smtp;
        policy_auth  file:%%DIR%%/users;
    }
}
EOF
$t->run_nginx();

record('alice@example.com');

identities();
sinks();
halves();
attempts();
pairs();
strangers();

# OUT-1: whatever was tried, a record is a line of text
unlike($t->error_log(), qr/[^\x0a\x20-\x7e\x80-\xff]/,
    'AUTH-1 no control octet in the error log');

$t->done();


sub b64 { return encode_base64($_[0], '') }


sub sasl {
    my ($mechanism, %option) = @_;

    return MailPolicy::Sasl->new($mechanism, user => 'alice@example.com',
        password => $PASSWORD, %option);
}


# a login's record in Redis, under its key as README has it

sub record {
    my ($login) = @_;

    my $key = $login =~ s/([^!-~]|[{}%])/sprintf('%%%02X', ord $1)/ger;

    $redis->cmd('HSET', "mail:user:{$key}", 'password', "{PLAIN}$PASSWORD");
}


# how often Redis was asked, by others than this test

sub asked {
    my $info = $redis->cmd('INFO', 'commandstats');
    my $calls = 0;

    $calls += $2 while $info =~ /^cmdstat_(hmget|hget\w*|eval\w*):calls=(\d+)/mg;
    return $calls;
}


# AUTH-1: each has a record, which nobody must get by it

sub identities {
    my %login = (
        'CR and LF'     => "alice\r\nX: y\@example.com",
        'a control'     => "al\x01ice\@example.com",
        'DEL'           => "alice\x7f\@example.com",
        'half of UTF-8' => "alice\xc3",
        'long UTF-8'    => "\xc0\xafalice\@example.com",
        'a surrogate'   => "\xed\xa0\x80\@example.com",
        'latin 1'       => "j\xf6rg\@example.com",
        'space, first'  => ' alice@example.com',
        'space, last'   => 'alice@example.com ',
        'too long'      => ('a' x 244) . '@example.com',
        'nothing'       => '',
    );

    record($_) for grep { $_ ne '' } values %login;

    my $before = asked();

    for my $what (sort keys %login) {
        for my $mechanism (@MECHANISMS) {
            my $c = $t->session('records');
            like(sasl($mechanism, user => $login{$what})->login($c), $INVALID,
                "AUTH-1 $mechanism: $what");
            like($c->cmd('MAIL FROM:<a@example.com>'), qr/^530 /,
                "AUTH-1 $mechanism: $what, not logged in");
        }

        like(sasl('PLAIN', authzid => $login{$what})
            ->login($t->session('records')), $INVALID,
            "AUTH-1 acting for: $what") unless $what eq 'nothing';
    }

    # "acting for" is a login of its own, whose record is looked for
    cmp_ok(asked() - $before, '<=', scalar keys %login,
        'AUTH-1 Redis was not asked for any of them');
}


# AUTH-1: what may be in a login is escaped wherever it goes

sub sinks {
    for my $login ("o'dd \"user\" {x}%5D*\\ +=<>;,\@example.com",
        "j\xc3\xb6rg\@example.com")
    {
        my ($seen) = $login =~ /^(\w+)/;
        record($login);

        for my $mechanism (@MECHANISMS) {
            my $c = $t->session('records');
            my $name = "AUTH-1 $mechanism: $seen...";

            like(sasl($mechanism, user => $login)->login($c), qr/^235 /, $name);
            is(join(' ', map { substr($_, 0, 3) }
                $c->send_mail('a@example.com', ['b@example.net'], "x\n")),
                '250 250 354 250', "$name: a message");
            $c->quit();

            my $line = $t->wait_for(sub {
                my @lines = $t->access_log();
                return @lines && $lines[-1]{sasl_username} ? $lines[-1] : undef;
            });
            utf8::encode(my $logged = $line->{sasl_username} // '');
            is($logged, $login, "$name: in the access log");

            is(($relay->received())[-1]{xclient}{LOGIN}, $login,
                "$name: XCLIENT");
        }
    }
}


# AUTH-2

sub halves {
    my $c = $t->session('records');
    my $good = b64("\0alice\@example.com\0$PASSWORD");

    like($c->cmd("AUTH PLAIN $good!"), qr/^501 5\.5\.2 /, 'AUTH-2 PLAIN');
    like($c->cmd('AUTH LOGIN ' . b64('alice@example.com')), qr/^334 /,
        'AUTH-2 LOGIN: a name');
    like($c->cmd(b64($PASSWORD) . '='), qr/^501 5\.5\.2 /,
        'AUTH-2 LOGIN: no password');
    like($c->cmd('AUTH LOGIN'), qr/^334 VXNlcm5hbWU6$/,
        'AUTH-2 LOGIN: the name is forgotten');
    like($c->cmd('*'), qr/^501 /, 'AUTH-2 cancelled');

    # the name is known by the second message of SCRAM
    my $before = length $t->error_log();

    like(sasl('SCRAM-SHA-256', user => 'carol@example.com')
        ->login($c, cancel => 2), qr/^501 /, 'AUTH-2 SCRAM, cancelled');
    like($c->cmd('AUTH PLAIN AA=='), $INVALID, 'AUTH-2 a message of no login');
    is(join(' ', substr($t->error_log(), $before)
        =~ /failed to authenticate as "(.*?)"/g), '',
        'AUTH-2 is not the one of the login before');
    like($c->cmd('MAIL FROM:<a@example.com>'), qr/^530 /, 'AUTH-2 no login');
}


# AUTH-3

sub attempts {
    my $c = $t->session('records');
    my %challenge;

    for my $password ('canary-wrong-1', '', 'canary-wrong-2') {
        my $cram = sasl('CRAM-MD5', password => $password);
        like($cram->login($c), $INVALID, "AUTH-3 CRAM-MD5: \"$password\"");
        $challenge{$_}++ for $cram->challenges();
    }

    my $cram = sasl('CRAM-MD5');
    like($cram->login($c, cancel => 1), qr/^501 /, 'AUTH-3 cancelled');
    $challenge{$_}++ for $cram->challenges();

    like($cram->login($c), qr/^235 /, 'AUTH-3 the fifth is right');
    $challenge{$_}++ for $cram->challenges();
    is(scalar keys %challenge, 5, 'AUTH-3 a new challenge each time');
}


# AUTH-4

sub pairs {
    for my $first (@MECHANISMS) {
        for my $second (@MECHANISMS) {
            my $c = $t->session('file');
            my $name = "AUTH-4 $first, $second";

            like(sasl($first, password => 'canary-no')->login($c), $INVALID,
                "$name: wrong");
            like(sasl($first)->login($c, cancel => sasl($first)->steps()),
                qr/^501 5\.7\.0 /, "$name: cancelled at the last step");
            like(sasl($second)->login($c), qr/^235 /, "$name: right");
        }
    }
}


# What is said to a line in the place of a response; all of LOGIN's are asked
# for, as a name that is none is told with the password.

sub broken {
    my ($c, $mechanism, $step, $line) = @_;

    my $sasl = sasl($mechanism);
    my $reply = $c->cmd("AUTH $mechanism");

    for my $n (1 .. $sasl->steps()) {
        my ($challenge) = $reply =~ /^334 ?(.*)\z/ or last;
        my $response = b64($sasl->respond(
            MIME::Base64::decode_base64($challenge)));

        $reply = $c->cmd($n == $step ? $line : $response);
    }

    return $reply;
}


# AUTH-7: others have their login with the same connection to Redis

sub strangers {
    my $scram = sasl('SCRAM-SHA-256');
    my $other = $t->session('records');
    my $c = $t->session('records');
    my $before = asked();

    like(broken($c, 'LOGIN', 2, 'QUJ'), qr/^501 /, 'AUTH-7 LOGIN') for 1 .. 20;
    like(broken($c, 'CRAM-MD5', 1, '!!'), qr/^501 /, 'AUTH-7 CRAM-MD5');
    like(broken($c, 'SCRAM-SHA-256', 1, b64('n,,n=,r=')), $INVALID,
        'AUTH-7 SCRAM');
    is(asked(), $before, 'AUTH-7 Redis did not hear of it');
    like($scram->login($other), qr/^235 /, 'AUTH-7 another one logs in');
    is(asked(), $before + 1, 'AUTH-7 which is one question');
}
