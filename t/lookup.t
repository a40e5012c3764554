#!/usr/bin/perl

# policy_lookup: the string under a key in Redis; what the key is made of, how
# it is escaped; the default; how long it is remembered, also that there is
# none; what cannot be used is said once.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Digest::SHA qw(sha256_hex);
use Test::More;
use Time::HiRes qw(sleep time);

use MailPolicy;

use constant CACHE => 0.6;

my $t = MailPolicy->new();
my $redis = $t->run_redis();
my $relay = $t->run_relay(name => 'relay', store => 0,
    extensions => [ 'SMTPUTF8', '8BITMIME', 'PIPELINING' ]);

$t->conf(<<'EOF');
error_log %%DIR%%/error.log info;

mail {
    server_name   edge.example.com;
    policy_redis  redis://127.0.0.1:%%PORT_redis%% timeout=5s cache=600ms
                  prefix=edge:;

    policy_lookup  $flag    flag;
    policy_lookup  $tag     tag:$sender         none;
    policy_lookup  $own     own:$sender_domain  "of $sender_domain";
    policy_lookup  $tagged  "{t}:$sender_domain";
    policy_lookup  $unused  unused:$sender;
    policy_lookup  $said    said:$recipient     "nobody: $flag";

    log_format     what  '$sender: $flag|$tag|$own|$tagged|$said';
    access_log     %%DIR%%/what.log  what;

    # what only the log needs is not waited for
    policy_limit   wait  key=$recipient  messages=unlimited
                   "message=$flag$tag$own$tagged$said";

    policy         on;
    policy_auth    off;
    proxy_pass     127.0.0.1:%%PORT_relay%%;

    server {
        listen    127.0.0.1:%%PORT_smtp%%;
        protocol  smtp;
    }
}
EOF
$t->run_nginx();

my $lines = 0;
my $c = $t->session('smtp');

# what the log says of a message: flag|tag|own|tagged|said; empty is "-"

sub what {
    my ($from, $to) = @_;

    my ($last) = reverse $c->send_mail($from, [ $to // 'r@example.net' ],
        "x\n", $from =~ /[^ -~]/ ? (parameters => 'SMTPUTF8') : ());
    return $last if $last !~ /^250/;

    $lines++;
    my @log;
    $t->wait_for(sub {
        @log = split(/\n/, $t->read_file('what.log'));
        return @log >= $lines;
    });
    return $log[-1] =~ s/^.*?: //r;
}


sub forgotten { sleep(CACHE + 0.1) }

is(what('s@example.com'), '-|none|of example.com|-|nobody: ', 'nothing there');
$redis->cmd('SET', 'edge:flag', 'up');
$redis->cmd('SET', 'edge:tag:s@example.com', 'gold');
is(what('s@example.com'), '-|none|of example.com|-|nobody: ',
    'that there is nothing is remembered');
forgotten();
is(what('s@example.com'), 'up|gold|of example.com|-|nobody: up', 'not forever');
$redis->cmd('SET', 'edge:own:example.com', 'theirs');
$redis->cmd('SET', 'edge:said:r@example.net', 'his');
is(what('s@example.com'), 'up|gold|of example.com|-|nobody: up', 'remembered');
forgotten();
is(what('s@example.com'), 'up|gold|theirs|-|his', 'each has its own');
is(what('t@example.com', 'q@example.net'), 'up|none|theirs|-|nobody: up',
    'by another key');
$redis->cmd('SET', 'edge:tag:s@example.com', '');
$redis->cmd('DEL', 'edge:flag');
forgotten();
is(what('s@example.com'), '-|-|theirs|-|his', 'an empty string is one');

# an empty variable: nothing is asked, the default

my $gets = $redis->cmd('INFO', 'commandstats') =~ /cmdstat_get:calls=(\d+)/
    ? $1 : 0;
forgotten();
is(what('<>'), '-|none|of |-|his', 'no sender: defaults');
my $now = $redis->cmd('INFO', 'commandstats') =~ /cmdstat_get:calls=(\d+)/
    ? $1 : 0;
is($now - $gets, 2, 'and only the others are asked for');

# the key: letters in lower case, quoted, a long one by its digest; braces in
# the text of the key stand

for my $case ([ 'S@Example.COM' => 's@example.com' ],
    [ '"a b"@example.com' => '"a%20b"@example.com' ],
    [ '"{a}%"@example.com' => '"%7Ba%7D%25"@example.com' ],
    [ "j\xc3\xb6\@example.com" => 'j%C3%B6@example.com' ],
    [ ('a' x 60) . '@' . ('b' x 60) . '.' . ('c' x 20) . '.example' ])
{
    my ($sender, $key) = @$case;

    $key //= 'sha256-' . sha256_hex($sender);
    my ($domain) = lc($sender) =~ /@(.*)/;
    $redis->cmd('SET', "edge:tag:$key", "of $key");
    $redis->cmd('SET', "edge:{t}:$domain", 'slot');
    forgotten();
    is((split /\|/, what("<$sender>"))[1], 'of ' . $key =~ s/"/\\x22/gr,
        "the key $key");
}

is((split /\|/, what('s@example.com'))[3], 'slot', 'a hash tag in the key');

# what is no string, or too long

$redis->cmd('HSET', 'edge:tag:h@example.com', 'a', 'b');
$redis->cmd('SET', 'edge:tag:m@example.com', 'x' x 1024);
$redis->cmd('SET', 'edge:tag:l@example.com', 'x' x 1025);

is((split /\|/, what('h@example.com'))[1], 'none', 'a hash: the default');
is((split /\|/, what('l@example.com'))[1], 'none', 'too long: the default');
is((split /\|/, what('m@example.com'))[1], 'x' x 1024, 'just right');
forgotten();
what("$_\@example.com") for qw(h l);

my $log = $t->read_file('error.log');

is(scalar(() = $log =~
    /\[warn\] .*"edge:tag:h\@example.com" in Redis is not a string, skipped/g),
    1, 'a hash: said once');
is(scalar(() = $log =~
    /\[warn\] .*"edge:tag:l\@example.com" in Redis is longer than 1024 oct/g),
    1, 'too long: said once');

# what comes out of Redis is written as one line

$redis->cmd('SET', 'edge:tag:x@example.com', "a\r\nb\0\"");
is((split /\|/, what('x@example.com'))[1], 'a\x0D\x0Ab\x00\x22',
    'control characters');

is_deeply([ grep { !/^edge:(?:flag|tag|own|said|\{t\}):?/ } $redis->keys() ],
    [], 'nothing is written');

# more keys than are remembered

for my $round (0 .. 9) {
    $redis->pipeline(map { [ 'SET', "edge:tag:$_\@many.example", "v$_" ] }
        map { $round * 500 + $_ } 1 .. 500);
}

my @wrong;

for my $n (map { ($_, $_) } map { $_ * 100 } 1 .. 45) {
    my $said = (split /\|/, what("$n\@many.example"))[1];
    push @wrong, "$n: $said" if $said ne "v$n";
}

is_deeply(\@wrong, [], 'many keys');
$c->quit();

$t->done();
