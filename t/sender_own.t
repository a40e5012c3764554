#!/usr/bin/perl

# AUTH-22 policy_sender own: MAIL FROM is one of the login's addresses, or
# 553 5.7.1 before a limit is charged or a relay is told.  The addresses come
# from the login's record in Redis, or from its line in the file.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Test::More;

use MailPolicy;
use MailPolicy::Limits qw(is_used send_one);

my $t = MailPolicy->new();
my $redis = $t->run_redis();
my $relay = $t->run_relay(name => 'relay');

my $hash = $t->crypt('secret', '$5$rounds=1000$mailpolicy$');

$t->write_file('users', <<"EOF");
dora\@example.com:$hash
emil\@example.com:$hash:1000:100:Emil:/home/emil:senders=emil\@example.net,\@lists.example.com
frank:${hash}::senders=frank\@example.com
gina:${hash}:senders=gina+*\@example.com,\@*.example.net,*\@lists.example.com
hugo:${hash}:senders=*
EOF

$t->conf(<<'EOF');
mail {
    policy_redis           redis://127.0.0.1:%%PORT_redis%% timeout=2s;
    policy                 on;
    policy_auth_plaintext  on;
    policy_sender          own;
    proxy_pass             127.0.0.1:%%PORT_relay%%;
    access_log             %%DIR%%/access.log;
    max_errors             100;

    policy_limit  user  key=$sasl_username  messages=100/1h recipients=100/1h;

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

    server {
        listen         127.0.0.1:%%PORT_any%%;
        protocol       smtp;
        policy_auth    redis;
        policy_sender  any;
    }

    server {
        listen         127.0.0.1:%%PORT_open%%;
        protocol       smtp;
        policy_auth    off;
        policy_sender  any;
    }
}
EOF
$t->run_nginx();

user('alice@example.com');
user('bob@example.com',
    'bob@example.net, Sales@Example.COM,@lists.example.com');
user('carol', 'carol@example.com');
user('gina', 'gina+*@example.com @*.example.net, *@lists.example.com');
user('hugo', '*');

my $NOT_OWN = qr/^553 5\.7\.1 Sender address is not one of this login\b/;


# what is one's own

my $c = login('records', 'alice@example.com');

owns($c, 'alice@example.com', 'the login itself');
owns($c, 'Alice@EXAMPLE.com', 'in any case');
owns($c, '<>', 'and the null sender');
owns_not($c, 'bob@example.com', 'nobody else');
owns_not($c, $_) for 'alice@example.net', 'alice@mail.example.com',
    'malice@example.com', '"alice"@example.com', '"alice@example.com"@x.com';

$c = login('records', 'bob@example.com');

owns($c, $_) for 'bob@example.com', 'bob@example.net', 'sales@example.com',
    'SALES@example.com', 'anybody@lists.example.com', 'a@LISTS.example.com';
owns_not($c, $_) for 'alice@example.com', 'lists@example.com',
    'a@sub.lists.example.com', '"a@lists.example.com"@example.org';

$c = login('records', 'carol');

owns($c, 'carol@example.com', 'a login that is no address');
owns_not($c, 'carol@example.net');

$c = login('file', 'dora@example.com');

owns($c, 'dora@example.com', 'file: the login itself');
owns_not($c, 'emil@example.net', 'file: nobody else');

$c = login('file', 'emil@example.com');

owns($c, $_, "file: $_") for 'emil@example.com', 'emil@example.net',
    'x@lists.example.com';
owns_not($c, 'dora@example.com', 'file: another one');

$c = login('file', 'frank');

owns($c, 'frank@example.com', 'file: a login that is no address');
owns_not($c, 'frank@example.net');


# wildcards

for my $where (qw(records file)) {
    $c = login($where, 'gina');

    owns($c, $_, "$where: $_") for 'gina+news@example.com',
        'Gina+@Example.COM', 'x@mail.example.net', 'x@a.b.example.net',
        'gina@lists.example.com', '"x@example.org"@lists.example.com';
    owns_not($c, $_, "$where: not $_") for 'gina@example.com',
        'regina+x@example.com', 'gina+x@example.com.example.org',
        'gina+x@sub.example.com', 'x@example.net', 'x@badexample.net',
        'x@sub.lists.example.com', '"gina+x@example.com"@example.org',
        '"x@mail.example.net"@example.org';

    $c = login($where, 'hugo');

    owns($c, $_, "$where: any, $_") for 'x@example.org', '"a@b"@example.com';
}


# not asked

$c = login('any', 'alice@example.com');
owns($c, 'bob@example.com', 'policy_sender any');
owns($t->session('open'), 'bob@example.com', 'policy_sender any, no login');


# before limits and relay

is_used($redis, 'what was refused is not charged: alice', 'user',
    'alice@example.com', messages => 4,
    recipients => 4, timeout => 5);
is_used($redis, 'what was refused is not charged: dora', 'user',
    'dora@example.com', messages => 1,
    recipients => 1, timeout => 5);

my @told = map { ref ? @$_ : $_ } $relay->transcripts();

is(scalar(grep { /malice/ } @told), 0, 'AUTH-22 the relay is not told');

my ($logged) = grep { $_->{sender} eq 'malice@example.com' }
    $t->access_log();

is_deeply([ @$logged{qw(outcome status sasl_username upstream_name)} ],
    [ 'rejected', 553, 'alice@example.com', undef ], 'it is in the log');
like($t->error_log(),
    qr/login "alice\@example\.com" may not send as "malice\@example\.com"/,
    'and who it was');


# a refused MAIL in a pipeline

$c = login('records', 'alice@example.com');

my @replies = $c->pipeline('MAIL FROM:<x@example.com>',
    'RCPT TO:<y@example.com>', 'MAIL FROM:<alice@example.com>');

like($replies[0], $NOT_OWN, 'pipelined: MAIL');
like($replies[1], qr/^503 5\.5\.1 /, 'pipelined: its recipient');
like($replies[2], qr/^250 /, 'pipelined: the next one');

$c->cmd('RSET');


# a change in Redis is in force with the next login

user('alice@example.com', 'new@example.com');

owns_not($c, 'new@example.com', 'a change: not in this session');

$c = login('records', 'alice@example.com');

owns($c, 'new@example.com', 'a change: with the next login');
owns($c, 'alice@example.com', 'a change: the login stays its own');

$redis->cmd('HDEL', 'mail:user:{alice@example.com}', 'senders');

owns_not(login('records', 'alice@example.com'), 'new@example.com',
    'a change: taken away again');


# records that are not right

user('alice@example.com', 'x, new@example.com *a*@example.com @');

$c = login('records', 'alice@example.com');

owns($c, 'new@example.com', 'what is no address is skipped');
owns_not($c, $_) for 'x@example.com', 'aa@example.com';

is(scalar(grep { /the record of login "alice\@example\.com" in Redis/
    && /has a sender that is neither an address nor "\@domain"/ }
    split(/\n/, $t->error_log())), 1, 'and said');

user('alice@example.com', join(' ', map { "a$_\@example.com" } 1 .. 256));

owns(login('records', 'alice@example.com'), 'a256@example.com',
    'as many as there may be');

for my $many (join(' ', map { "a$_\@example.com" } 1 .. 257),
    '@example.com' . ' ' x 8192)
{
    user('alice@example.com', $many);

    $c = login('records', 'alice@example.com');

    owns($c, 'alice@example.com', 'more: the login has its own address');
    owns_not($c, 'a1@example.com', 'more: and no other');
}

$t->done();


sub user {
    my ($login, $senders) = @_;

    $redis->cmd('HSET', "mail:user:{$login}", 'password', $hash,
        defined $senders ? (senders => $senders) : ());
}


sub login {
    my ($where, $login) = @_;

    my $client = $t->session($where);

    like($client->auth_plain($login, 'secret'), qr/^235 /, "$login logs in");
    return $client;
}


sub owns {
    my ($client, $sender, $name) = @_;

    like(send_one($client, $sender), qr/^250 /, $name // "owns $sender");
}


sub owns_not {
    my ($client, $sender, $name) = @_;

    like($client->cmd("MAIL FROM:<$sender>"), $NOT_OWN,
        $name // "does not own $sender");
}
