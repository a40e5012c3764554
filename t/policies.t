#!/usr/bin/perl

# The lines of policies/README.md do what it says there: each of them is run
# by a shell, with the rights that the page gives to whom it is for, and what
# is printed there as an answer is one.

use strict;
use warnings;

use File::Temp qw(tempdir);
use FindBin;
use Test::More;

use lib "$FindBin::Bin/../tests/lib";

use MailPolicy::Policies qw(slurp recipes);
use MailPolicy::Port qw(free_port);
use MailPolicy::Redis;


plan skip_all => 'no redis-server'
    unless grep { -x "$_/redis-server" } split /:/, $ENV{PATH};

my $ROOT = "$FindBin::Bin/..";
my $ENTRY = 'mail:limit:user:{alice@example.com}';

my $dir = tempdir('policy-test-XXXXXX', TMPDIR => 1, CLEANUP => 1);
my $redis = MailPolicy::Redis->new(port => free_port(), dir => $dir);
my $policies = MailPolicy::Policies->new($redis, $ROOT);
my $slot = int(time() / 56.25);

$policies->commands($dir);

rights();
tasks();
answers();
recipes_work();
commands_granted();

is_deeply($redis->cmd('ACL', 'LOG'), [], 'nobody was denied anything');
denied();

$redis->stop();
done_testing();


sub used {
    my ($who, @fields) = @_;
    $redis->cmd('HSET', "mail:used:user:{$who\@example.com}", @fields);
}


sub rights {
    my @lines = recipes($ROOT, 'What they may do');

    is(join(' ', map { / SETUSER (\w+) / } @lines), 'edge operator clerk',
        'rights of three');
    is($policies->line($_), "OK\n", (split ' ', $_)[3] . ': rights')
        for @lines;
}


# each line of the first section, and what it did

sub tasks {
    my ($raise, $plan, $give, $top, $show, $reset, @more) =
        recipes($ROOT, 'Three tasks');

    is(scalar @more, 0, 'six lines for three tasks');
    unlike($_, qr/\n/, 'each is one line')
        for $raise, $plan, $give, $top, $show, $reset;

    is($policies->line($raise, 'operator'), "messages: 500/1h, was not set\n"
        . "in force from the next message on\n", 'raise one user');
    is_deeply($redis->hash($ENTRY), { messages => '500/1h' }, 'is done');

    like($policies->line($plan, 'operator'),
        qr/\Auser\.messages: .*^in force /ms, 'set a plan');
    is_deeply($redis->hash('mail:plan:gold'), { 'user.messages' => '2000/1d',
        'user.recipients' => '5000/1d' }, 'is done');
    like($policies->line($give, 'operator'), qr/^plan: gold, was not set$/m,
        'put a user on it');
    is($redis->cmd('HGET', $ENTRY, 'plan'), 'gold', 'is done');

    used('bob', messages => 'w 56250000 200 c ' . ($slot - 20) . ':190 15:10');
    used('carol', messages => "w 56250000 200 c $slot:35");

    like($policies->line($top, 'operator'),
        qr/\A100% .*\{bob\@example\.com\}$/m, 'who is blocked');
    like($policies->line($show, 'operator'), qr/ blocked now; /, 'see');
    is($policies->line($reset, 'operator'),
        "messages: counted from nothing again\n", 'free him');
    is($redis->cmd('EXISTS', 'mail:used:user:{bob@example.com}'), 0, 'is done');
}


# what is printed as their answer, but for the numbers of seconds

sub answers {
    my (undef, undef, undef, @lines) = recipes($ROOT, 'Three tasks');
    my ($printed) = slurp("$ROOT/policies/README.md")
        =~ /^```text\n(.*?)^```$/ms;

    used('bob', messages => 'w 56250000 200 c ' . ($slot - 20) . ':190 15:10');

    my $got = join("\n", map { $policies->line($_, 'operator') } @lines);

    s/\b\d+ s\b/N s/g for $got, $printed;
    is($got, $printed, 'answers as they are printed');
}


sub recipes_work {
    my @lines = recipes($ROOT, 'Recipes');
    my %seen;

    cmp_ok(scalar @lines, '>', 25, 'there are recipes');

    for my $line (@lines) {
        my $who = $line =~ /mail:user:/ ? 'clerk' : 'operator';

        prepare();
        my $answer = $policies->line($line, $who);
        my ($script) = $line =~ m{policies/(\w+)\.lua};

        $seen{$script // 'redis-cli'}++;
        unlike($answer, qr/ERR|NOPERM|NOTHING WAS|^write|^No(?:t a)? key|(?#
            )no such unit|^\z/m, $line);
        is(done($line), '', 'is done');
    }

    ok($seen{$_}, "there are some of $_")
        for qw(show top set reset suspend resume redis-cli);
}


# something of everything

sub prepare {
    $redis->cmd('FLUSHALL');
    used('alice', messages => "w 56250000 200 c $slot:35", bytes => 'x');
    $redis->cmd('HSET', $ENTRY, messages => '7/1h', note => 'x',
        suspended => 'yes');
    $redis->cmd('HSET', 'mail:plan:gold', 'user.messages', '5/1h');
    $redis->cmd('HSET', 'mail:user:{alice@example.com}', status => 'x',
        senders => 'x');
    $redis->cmd('XADD', 'mail:events', '*', limit => 'user');
    $redis->cmd('ZADD', "mail:$_:client:{192.0.2.1}", (time() + 60) * 1e6, 'a')
        for qw(failed lease);
}


# what a line should have done and has not, for those that write

sub done {
    my ($line) = @_;

    my ($key) = $line =~ /(mail:[^' ]*)/;
    my $hash = $key =~ /^mail:(?:limit|plan|user):/
        ? $redis->hash($key) : {};
    my @wrong;

    if ($line =~ m{/set\.lua '?\S+ , (.*)} || $line =~ / HSET \S+ (.*)/) {
        my %set = map { s/^'|'$//gr } $1 =~ /("[^"]*"|'[^']*'|\S+)/g;

        for my $field (sort keys %set) {
            my $is = $hash->{$field} // '-';
            $is = '"$(openssl passwd -6)"' if $is =~ /^\$6\$[^ ]+\z/;
            push @wrong, "$field is $is" if $is ne $set{$field};
        }

    } elsif ($line =~ /suspend\.lua/) {
        push @wrong, 'not suspended' if ($hash->{suspended} // '') ne 'yes'
            || $hash->{note} ne 'password stolen';

    } elsif ($line =~ /resume\.lua/ || $line =~ / HDEL \S+ status/) {
        push @wrong, 'still suspended'
            if exists $hash->{suspended} || exists $hash->{status};

    } elsif ($line =~ / HDEL \S+ senders/) {
        push @wrong, 'still there' if exists $hash->{senders};

    } elsif ($line =~ m{/reset\.lua '\S+'( , \S+)?| DEL }) {
        my $part = $1 && $key =~ /used/ ? 1 : 0;
        my $left = $redis->cmd('EXISTS', $key);

        push @wrong, 'all is there, or gone' if $left != $part;
        push @wrong, 'messages left'
            if $left && $redis->cmd('HEXISTS', $key, 'messages');

    } elsif ($line =~ / EXPIRE /) {
        push @wrong, 'no TTL' if $redis->cmd('PTTL', $key) < 604_000_000;

    } elsif ($line !~ /show\.lua|top\.lua| --scan | XREVRANGE /) {
        push @wrong, 'not known what it should do';
    }

    return join(', ', @wrong);
}


# every command that a script calls is in the rights of who runs it

sub commands_granted {
    my %operator = map { $_ => 1 } qw(show top reset suspend resume set);

    for my $file (sort glob("$ROOT/policies/*.lua")) {
        my ($name) = $file =~ m{(\w+)\.lua$};
        my $who = $operator{$name} ? 'operator' : 'edge';
        my %rights = map { s/\|.*//r => 1 }
            { @{ $redis->cmd('ACL', 'GETUSER', $who) } }->{commands}
                =~ /\+(\S+)/g;
        my %words = map { lc($_) => 1 } slurp($file) =~ /'([A-Z]{3,})'/g;
        my @commands = grep { defined $redis->cmd('COMMAND', 'INFO', $_)->[0] }
            sort keys %words;

        is_deeply([ grep { !$rights{$_} } @commands ], [],
            "$name: @commands for $who");
    }
}


# a line of each that is not theirs

sub denied {
    my %line = (
        edge => [ 'XRANGE mail:events - +', 'HSET mail:plan:gold a b', "KEYS '*'",
            'HSET mail:user:{x} password x', 'DEL mail:used:user:{x}',
            'SET mail:route:x a', 'FLUSHALL', "CONFIG GET '*'",
            'SCRIPT FLUSH', 'CLUSTER RESET', 'HSET other a b' ],
        operator => [ 'HGETALL mail:user:{x}', 'HSET mail:user:{x} a b',
            'ZADD mail:exempt:user:{x} 1 a', "XADD mail:events '*' a b",
            "KEYS '*'", 'FLUSHALL', "CONFIG GET '*'", 'HSET other a b' ],
        clerk => [ 'HGETALL mail:user:{x}', 'HSET mail:limit:user:{x} a b',
            'EVAL return 0', 'FLUSHALL' ],
    );

    for my $who (sort keys %line) {
        like($policies->line("redis-cli $_", $who), qr/^NOPERM /,
            "$who: $_: denied") for @{ $line{$who} };
    }
}
