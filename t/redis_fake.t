#!/usr/bin/perl

# A Redis that says what it should not: garbage, half a reply, wrong shapes,
# every error, more than anybody asked for, and the right thing too late.
# Whatever it is, the decision is made within the deadline, the worker lives,
# and the next good answer counts again.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Test::More;
use Time::HiRes qw(sleep time);

use MailPolicy;
use MailPolicy::FakeRedis qw(is_charge integers charged refused);

use constant MARGIN => 3;               # the timeout is 150 ms

my $CRLF = "\r\n";

# [ name, answer to a charge, what "closed" says then, what "local" says ];
# where nothing is said of the last two, it is no answer: 451 and 250

my @cases;

sub no_answer { push @cases, [ $_[0], $_[1], '451 4.3.0', '250 2.1.0' ] }
sub answer    { push @cases, [ @_ ] }

sub but {
    my ($change) = @_;
    return sub { my @i = charged(@_); $change->(\@i); return integers(@i) };
}

# no RESP at all
no_answer('garbage' => sub { "\x00\xff\x16\x03 no reply$CRLF" });
no_answer('HTTP' => sub { "HTTP/1.1 400 Bad Request$CRLF$CRLF" });
no_answer('an empty line' => sub { $CRLF });
no_answer('LF only' => sub { ":1\n" });

# nothing, or half
no_answer('it closes' => sub { 'CLOSE' });
no_answer('half, then it closes' => sub { "*10$CRLF:1$CRLF", 'CLOSE' });
no_answer('half, then nothing' => sub { "*10$CRLF:1$CRLF" });
no_answer('nothing' => sub { () });
no_answer('a drop now and then' =>
    sub { map { (\0.05, $_) } split //, integers(charged(@_)) });

# of another shape
no_answer("RED-5 shape: $_->[0]" => do { my $octets = $_->[1]; sub { $octets } })
    for [ status  => "+OK$CRLF" ],    [ integer => ":1$CRLF" ],
        [ bulk    => "\$2${CRLF}OK$CRLF" ], [ nil => "\$-1$CRLF" ],
        [ nils    => "*-1$CRLF" ],    [ empty   => "*0$CRLF" ],
        [ nested  => "*1$CRLF*1$CRLF:1$CRLF" ],
        [ deep    => "*1$CRLF" x 2000 ],
        [ push    => ">2$CRLF+foo$CRLF:1$CRLF" ],
        [ map     => "%1$CRLF+a$CRLF:1$CRLF" ],
        [ set     => "~1$CRLF+a$CRLF" ], [ double  => ",1.5$CRLF" ],
        [ bool    => "#t$CRLF" ],     [ null    => "_$CRLF" ],
        [ big     => "(1234567890123456789012345678901234567890$CRLF" ];

no_answer('RED-5 shape: one too few' => but(sub { pop @{ $_[0] } }));
no_answer('RED-5 shape: one too many' => but(sub { push @{ $_[0] }, 1 }));
no_answer('RED-5 shape: strings' => sub {
    my @i = charged(@_);
    '*' . @i . $CRLF . join('', map { "\$1${CRLF}1$CRLF" } @i) });
no_answer('RED-5 shape: a nil among them' => sub {
    integers(charged(@_)) =~ s/(.*):\d+\r\n\z/$1\$-1\r\n/sr });
no_answer('RED-5 shape: an error among them' => sub {
    integers(charged(@_)) =~ s/(.*):\d+\r\n\z/$1-ERR x\r\n/sr });

# numbers that cannot be
no_answer('RED-5 value: fits 2' => but(sub { $_[0][3] = 2 }));
no_answer('RED-5 value: kind 9' => but(sub { $_[0][4] = 9 }));
no_answer('RED-5 value: count 0' => but(sub { $_[0][5] = 0 }));
no_answer('RED-5 value: period 0' => but(sub { $_[0][6] = 0 }));
no_answer('RED-5 value: charged 7' => but(sub { $_[0][0] = 7 }));
no_answer('RED-5 value: charged, and does not fit' => but(sub { $_[0][3] = 0 }));
no_answer('RED-5 value: fits, and not charged' => but(sub { $_[0][0] = 0 }));
no_answer('RED-5 value: 20 digits' => but(sub { $_[0][5] = '9' x 20 }));

# lengths
no_answer("RED-5 length: $_" => do { my $text = $_; sub { "$text$CRLF" } })
    for qw(*2147483647 *4294967296 *9223372036854775807 *100000 *-5
           $2147483647 $9223372036854775807 $18446744073709551615 $-5 $x *x);

no_answer('RED-5 endless bulk' => sub { "\$1000000000$CRLF", ('x' x 65536) x 50 });
no_answer('RED-5 endless status' => sub { '+' . 'x' x 65536, ('x' x 65536) x 50 });
no_answer('RED-5 endless error' => sub { '-' . 'x' x 65536, ('x' x 65536) x 50 });

# errors
no_answer('RED-6 ' . s/[^ -~]/?/gr
        => do { my $text = $_; sub { "-$text$CRLF" } })
    for 'MOVED 3999 127.0.0.1:6381', 'ASK 3999 127.0.0.1:6381',
        'TRYAGAIN Multiple keys request during rehashing of slot',
        'CLUSTERDOWN The cluster is down', 'LOADING Redis is loading',
        'BUSY Redis is busy running a script.',
        "READONLY You can't write against a read only replica.",
        'MASTERDOWN Link with MASTER is down', 'NOREPLICAS Not enough good',
        'MISCONF Redis is configured to save RDB snapshots', 'OOM command',
        'NOAUTH Authentication required.', 'WRONGPASS invalid username',
        "NOPERM this user has no permissions to run 'evalsha'",
        "CROSSSLOT Keys in request don't hash to the same slot",
        'UNKILLABLE Sorry the script already executed write commands',
        'NOSCRIPT', 'NOSCRIPT No matching script. Please use EVAL.',
        "ERR unknown command 'EVALSHA', with args beginning with: 'secret'",
        'ERR %s%n%s %999999d', "ERR \x1b[31m\x00\x07", '', 'x';

# what is an answer
answer('NOSCRIPT once' => sub {
    $_[0] eq 'EVALSHA' ? "-NOSCRIPT No matching script.$CRLF"
                       : integers(charged(@_)) }, '250 2.1.0', '250 2.1.0');
answer('an octet at a time' => sub { split //, integers(charged(@_)) },
    '250 2.1.0', '250 2.1.0');
answer('refused' => sub { integers(refused(@_)) }, '450 4.7.1', '450 4.7.1');
answer('refused, with negative numbers' => sub {
    my @i = refused(@_); $i[10] = -5; integers(@i) },
    '450 4.7.1', '450 4.7.1');
answer('refused for ever' => sub {
    my @i = refused(@_); $i[10] = '9223372036854775807'; integers(@i) },
    '450 4.7.1', '450 4.7.1');
answer('two at once' => sub { integers(charged(@_)) x 2 },
    '250 2.1.0', '250 2.1.0');

my %modes = (
    good    => sub { integers(charged(@_)) },
    late    => sub { \0.4, integers(charged(@_)) },
    late_no => sub { \0.4, integers(refused(@_)) },
    map { $_->[0] => $_->[1] } @cases,
);

# commands that are no charge are answered well, but for the modes "ping ..."

for my $name (keys %modes) {
    my $code = $modes{$name};

    $modes{$name} = sub {
        return "+PONG$CRLF" if $_[0] eq 'PING';
        return is_charge(@_) ? $code->(@_) : integers(1);
    };
}

my %ping = (
    'ping garbage' => "\xff$CRLF", 'ping LOADING' => "-LOADING Redis$CRLF",
    'ping NOAUTH' => "-NOAUTH Authentication required.$CRLF",
    'ping close' => 'CLOSE', 'ping array' => "*1$CRLF:1$CRLF",
    'ping hang' => undef,
);

for my $name (keys %ping) {
    $modes{$name} = sub {
        return 'CLOSE' if $_[0] ne 'PING';
        return defined $ping{$name} ? $ping{$name} : ();
    };
}

my $t = MailPolicy->new();
my $relay = $t->run_relay(name => 'relay', store => 0);
my $fake = MailPolicy::FakeRedis->new(dir => $t->dir(),
    port => $t->port('fake'), modes => \%modes);

for my $on_error (qw(closed local)) {
    $t->conf($on_error, <<"EOF");
mail {
    policy_redis  redis://127.0.0.1:%%PORT_fake%%  timeout=150ms
                  connections=4  prefix=$on_error:  on_error=$on_error;

    server {
        listen        127.0.0.1:%%PORT_$on_error%%;
        protocol      smtp;
        policy        on;
        policy_auth   off;
        policy_limit  x  key=\$sender  messages=1000/1h;
        proxy_pass    127.0.0.1:%%PORT_relay%%;
    }
}
EOF
    $t->run_nginx($on_error);
}


sub session {
    my ($where) = @_;

    return $t->session($where);
}


my (%client, $asked);
my %pids = map { $_ => join(' ', $t->worker_pids($_)) } qw(closed local);


# the reply to MAIL in each nginx, and RSET behind it

sub ask {
    my ($sender) = @_;

    # a session may not go on for ever without a message
    %client = map { $_ => session($_) } qw(closed local)
        if $asked++ % 50 == 0;

    $_->send_raw("MAIL FROM:<$sender>\r\nRSET\r\n") for values %client;

    my %reply = map { $_ => $client{$_}->read_reply() } qw(closed local);
    $_->read_reply() for values %client;
    return @reply{qw(closed local)};
}


my $probes = 0;

# until all is well again: both nginx ask the store, and like its answer

sub recover {
    my ($name) = @_;

    local $Test::Builder::Level = $Test::Builder::Level + 1;

    $fake->mode('good');
    $t->wait_for(sub {
        my $sender = 'good' . ++$probes . '@example.com';
        my ($closed) = ask($sender);
        my %asked = map { $_->[0] eq 'good' && $_->[4] =~
            /^(\w+):used:x:\{\Q$sender\E\}$/ ? ($1 => 1) : () }
            grep { @$_ > 4 } $fake->commands();

        return $closed =~ /^250/ && keys %asked == 2;
    }, 10) or fail("$name: the next good answer counts");
}


recover('at the beginning');

for my $case (@cases) {
    my ($name, undef, $closed, $local) = @$case;
    my $begin = time();

    $fake->mode($name);

    my @replies = ask('a@example.com');
    my $took = time() - $begin;

    is(join(', ', map { substr($_, 0, 9) } @replies), "$closed, $local",
        $name);
    cmp_ok($took, '<', MARGIN, "$name: in time") if $took >= MARGIN;
    recover($name);
}

# PING, with which a connection begins

for my $name (sort keys %ping) {
    my $begin = time();

    $fake->mode($name);

    # the first of these finds a connection, which is closed then
    my @replies = map { ask('b@example.com') } 1 .. 6;

    is(join(', ', map { substr($_, 0, 9) } @replies),
        join(', ', ('451 4.3.0, 250 2.1.0') x 6), $name);
    cmp_ok(time() - $begin, '<', MARGIN, "$name: in time");
    recover($name);
}

# Too late: what was charged is taken back, with the time at which it was
# charged, exactly once; what was refused is not.

sub given_back {
    my ($sender) = @_;

    return grep { $_->[1] =~ /^EVAL/ && !is_charge(@$_[1 .. $#$_])
        && $_->[4] =~ /\{\Q$sender\E\}$/ } grep { @$_ > 5 } $fake->commands();
}

$fake->mode('late');
is(join(', ', map { substr($_, 0, 9) } ask('late@example.com')),
    '451 4.3.0, 250 2.1.0', 'RED-8 late: decided without it');
ok($t->wait_for(sub { given_back('late@example.com') >= 2 }),
    'RED-8 late: given back');
recover('late');
is(scalar(() = given_back('late@example.com')), 2,
    'RED-8 late: given back once by each');

my ($charge) = grep { @$_ > 5 && is_charge(@$_[1 .. $#$_])
    && $_->[4] =~ /\{late\@/ } $fake->commands();
my ($back) = given_back('late@example.com');

# name, kind, count, period, burst, [from,] amount, member, behind n and nunits
my @asked = @$charge[6 + 4 .. 6 + 11];
splice(@asked, 5, 1);
is(join(' ', @$back[9 .. 15]), join(' ', @asked),
    'RED-8 late: the same amount at the same rate');

$fake->mode('late_no');
is(join(', ', map { substr($_, 0, 9) } ask('late-no@example.com')),
    '451 4.3.0, 250 2.1.0', 'RED-8 late refusal: decided without it');
sleep(0.5);
recover('late refusal');
is(scalar(() = given_back('late-no@example.com')), 0,
    'RED-8 late refusal: nothing to give back');

# a client that does not wait for it

$fake->mode('late');

for my $where (qw(closed local)) {
    for my $how (qw(close reset)) {
        my $c = session($where);
        $c->send_raw("MAIL FROM:<gone\@example.com>\r\n");
        ok($t->wait_for(sub { grep { @$_ > 4
            && $_->[4] =~ /^$where:used:x:\{gone\@/ } $fake->commands() }),
            "ASYNC-A3 $where, $how: it is asked");
        $c->$how();
    }
}

ok($t->wait_for(sub { given_back('gone@example.com') >= 4 }),
    'ASYNC-A3 gone: each charge is given back');
recover('gone');
is(scalar(() = given_back('gone@example.com')), 4, 'ASYNC-A3 gone: once');

# all this time

is(join(' ', $t->worker_pids($_)), $pids{$_}, "the worker of $_ lives")
    for qw(closed local);

my $log = $t->error_log('closed');
like($log, qr/\[error\] .* policy store redis:\/\/\S+ answers: /,
    'the log has errors of the store');
unlike($log, qr/answers: [^\n]*[\x00-\x09\x0b-\x1f\x7f]/,
    'without control octets');
unlike($log, qr/'secret'/, 'without arguments');

$t->stop($_) for qw(closed local);
$fake->stop();
$t->done();
