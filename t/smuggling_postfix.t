#!/usr/bin/perl

# A Postfix that takes bare newlines for ends of lines, and trusts us, as
# relay (SMUG-6): whatever is sent, what it delivers are the messages that
# were answered with 250, with their envelopes, and whole.  Sent to it without
# an edge, the same list smuggles.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Test::More;
use Time::HiRes qw(sleep);

use MailPolicy;
use MailPolicy::Postfix;

plan(skip_all => MailPolicy::Postfix::missing())
    if MailPolicy::Postfix::missing();

my $t = MailPolicy->new();

# where Postfix delivers to
my $sink = $t->run_relay(name => 'sink');

my $postfix = MailPolicy::Postfix->new($t,
    smtpd => {
        chunking => [],
        plain    => [ 'smtpd_discard_ehlo_keywords=chunking' ],
    },
    main => [
        'smtpd_forbid_bare_newline = no',
        'smtpd_forbid_unauth_pipelining = no',
        'default_transport = smtp:[127.0.0.1]:' . $t->port('sink'),
    ]);

my ($normalize) = $t->check_conf(
    "mail {\n    policy_bare_newline normalize;\n}\n");

# "policy_bare_newline" (reject is the default), and the relay
my @SERVERS = (
    { port => 'reject_chunking', relay => 'chunking' },
    { port => 'reject_plain', relay => 'plain' },
    $normalize ? (
        { port => 'normalize_chunking', relay => 'chunking', normalize => 1 },
        { port => 'normalize_plain', relay => 'plain', normalize => 1 }) : (),
);

$t->conf(<<'EOF' . join('', map { server($_) } @SERVERS) . "}\n");
error_log  %%DIR%%/error.log info;

mail {
    server_name    edge.example.com;
    access_log     %%DIR%%/access.log;
    policy         on;
    policy_auth    off;
    max_errors     100;
    xclient        off;
    proxy_timeout  20s;
EOF
$t->run_nginx();


sub server {
    my ($server) = @_;

    my $newline = $server->{normalize} ? 'policy_bare_newline  normalize;' : '';

    return <<"EOF";

    server {
        listen      127.0.0.1:%%PORT_$server->{port}%%;
        protocol    smtp;
        proxy_pass  127.0.0.1:%%PORT_$server->{relay}%%;
        $newline
    }
EOF
}


# What is no end of data: lines with a dot between all that could be taken for
# the end of a line; NUL, spaces and CRs where they could be dropped; and dots
# that are one too many only as long as lines end as they should.

my @NEWLINE = ("\r\n", "\n", "\r");
my @ENDS = grep { $_ ne "\r\n.\r\n" }
    map { my $before = $_; map { "$before.$_" } @NEWLINE } @NEWLINE;

push @ENDS, "\r\n\0.\r\n", "\r\n.\0\r\n", "\n\0.\n", "\r\n.\r\r\n",
    "\r\r\n.\r\r\n", "\r\r\n.\n", "\n\r.\r\n", "\r\n.\n\r", "\n.\r\r\n",
    "\n\n.\n\n", "\r\n..\n", "\n..\n", "\n..\r\n", "\r..\r", "\r\n..\r";

my $number = 0;
my (@answered, %whole);


sub shown {
    return $_[0] =~ s/\r/\\r/gr =~ s/\n/\\n/gr =~ s/\0/\\0/gr;
}


# commands that must not be read as such; a message of their own, one that
# ends as oddly, and one for those who take LF for the end of a line

sub smuggled {
    my ($id, $end) = @_;

    my $text = "MAIL FROM:<evil$id\@example.com>\r\n"
        . "RCPT TO:<victim$id\@example.net>\r\nDATA\r\nSubject: evil\r\n\r\nx";

    return ("$text\r\n", "$text$end", "$text\r\n" =~ s/\r\n/\n/gr);
}


# All contents for an end: [ octets, places to cut at ]

sub contents {
    my ($id, $end) = @_;

    my $head = "Subject: x\r\n\r\nfirst";
    my @contents = map { [ "$head$end$_\r\nlast\r\n" ] } smuggled($id, $end);

    # also behind the end, and in the first command
    push @{ $contents[0] }, map { length($head) + $_ } 0 .. length($end) + 1;
    return @contents;
}


sub session {
    my ($where, %option) = @_;

    my $c = $t->client($where, timeout => 20, %option);
    $c->greeting();
    $c->{ehlo} = $c->ehlo();
    return $c;
}


# a message in its pieces: the reply to its end

sub send_pieces {
    my ($c, $verb, $from, $to, @pieces) = @_;

    my ($refused) = grep { !/^250 / }
        $c->pipeline("MAIL FROM:<$from>", map { "RCPT TO:<$_>" } @$to);

    if (defined $refused) {
        $c->cmd('RSET');
        return $refused;
    }

    if ($verb eq 'BDAT') {
        my @replies;

        for my $n (0 .. $#pieces) {
            $c->send_raw('BDAT ' . length($pieces[$n])
                . ($n == $#pieces ? ' LAST' : '') . "\r\n$pieces[$n]");
            push @replies, $c->read_reply();
        }

        # once one is refused, the others are out of place
        return (grep({ !/^250 / } @replies), $replies[-1])[0];
    }

    my $reply = $c->cmd('DATA');
    return $reply if $reply !~ /^354 /;

    for my $piece (@pieces[0 .. $#pieces - 1]) {
        $c->send_raw($piece);
        # for a read of its own
        sleep(0.001);
    }

    $c->send_raw("$pieces[-1].\r\n");
    return $c->read_reply();
}


# ... with an envelope that is remembered if the answer is 250

sub send_one {
    my ($c, $verb, @pieces) = @_;

    my $id = ++$number;
    my ($from, @to) = ("s$id\@example.com", map { "r$id$_\@example.net" }
        1 .. 1 + $id % 3);
    my $reply = send_pieces($c, $verb, $from, \@to, @pieces);

    if ($reply =~ /^250 /) {
        push @answered, envelope($from, @to);
        $whole{$from} = 1 if $pieces[-1] =~ /last\r\n\z/;
    }

    return $reply;
}


sub envelope {
    my ($from, @to) = @_;

    return "$from to " . join(' ', sort @to);
}


# the whole list through one server

sub smuggle {
    my ($server, $verb) = @_;

    my %count = (sent => 0, 250 => 0, 554 => 0);
    my (@wrong, @told);

    for my $n (0 .. $#ENDS) {
        my $c = session($server->{port});

        for my $content (contents("-$server->{port}-$n", $ENDS[$n])) {
            my ($octets, @cuts) = @$content;

            for my $cut (undef, @cuts) {
                my @pieces = defined $cut ? (substr($octets, 0, $cut),
                    substr($octets, $cut)) : ($octets);
                my $reply = send_one($c, $verb, @pieces);

                $count{sent}++;
                $count{ substr($reply, 0, 3) }++;

                # what was sent has one reply, and no more
                push @told, shown($ENDS[$n])
                    if $c->cmd('NOOP') ne '250 2.0.0 Ok'
                    || $c->cmd('DATA') !~ /^503 /;
            }
        }

        push @wrong, shown($ENDS[$n])
            if send_one($c, $verb, "x\r\n.x\r\nlast\r\n") !~ /^250 /;
        $c->quit();
    }

    my $name = "SMUG-6 $server->{port}, $verb";
    is("@told", '', "$name: one reply each, STATE-1 and no envelope");
    is("@wrong", '', "$name: a good one between is accepted");
    is($count{250} + $count{554}, $count{sent}, "$name: 250 or 554")
        or diag(explain(\%count));
    note("$name: $count{sent} sent, $count{250} accepted");
    return %count;
}


for my $server (@SERVERS) {
    my %count = smuggle($server, 'DATA');
    my $kind = $server->{normalize} ? 250 : 554;

    cmp_ok($count{$kind}, '>=', $server->{normalize} ? 100 : $count{sent},
        "SMUG-3 $server->{port}, DATA: $kind");
}

SKIP: {
    skip('CHUNKING is not offered', 1)
        if session('reject_chunking')->{ehlo} !~ /^250.CHUNKING$/m;
    smuggle($_, 'BDAT') for @SERVERS;
}

# commands: what a lenient parser would find in one line (STATE-12)

my $EVIL = 'RCPT TO:<victim@example.net>';
my @MAIL = map { "MAIL FROM:$_" }
    "<a\@example.com>\n$EVIL", "<a\@example.com> \r$EVIL",
    "<a\@example.com> BODY=8BITMIME\n$EVIL", "<a\@example.com\n$EVIL",
    "<\"a\r\n$EVIL\r\n\"\@example.com>", "<\"a\n$EVIL\n\"\@example.com>",
    "<\"a\\\n$EVIL\n\"\@example.com>", "<a\@example.com> SIZE=10\n$EVIL",
    "<a\@example.com> SIZE=10\0\n$EVIL", "<a\@exa\0mple.com>\n$EVIL",
    "<a\@example.com> AUTH=<>\n$EVIL", "<a\@example.com> RET=HDRS\r$EVIL";
my @RCPT = map { "RCPT TO:$_" }
    "<b\@example.net>\n$EVIL", "<b\@example.net>\r$EVIL",
    "<b\@example.net>\n\n$EVIL", "<b\@example.net\n$EVIL",
    "<\"b\n$EVIL\n\"\@example.net>",
    "<\"b\\\n$EVIL\n\"\@example.net>", "<\"b\\\r$EVIL\r\"\@example.net>",
    "<b\@example.net> NOTIFY=NEVER\n$EVIL", "<b\@example.net>\0\n$EVIL",
    "<b\@example.net> ORCPT=rfc822;b\n$EVIL",
    "<b\@example.net>\nDATA\nSubject: evil\n\nx\n.\n",
    "<b\@example.net>\nRSET\nMAIL FROM:<evil\@example.com>\n$EVIL\nDATA";
my @OTHER = map { "$_\n$EVIL" } 'EHLO a', 'HELO a', 'NOOP', 'NOOP x', 'RSET',
    'VRFY x', "EHLO a\nMAIL FROM:<evil\@example.com>",
    "EHLO a\0", 'DATA', 'HELP';

# A bare LF has an error of its own, as has what is behind it; true if all
# replies are 5xx, and there is one for each LF.

sub refused {
    my ($c, $line) = @_;

    $c->send_raw("$line\r\n");
    my @replies = map { $c->read_reply() } 1 .. "$line\r\n" =~ tr/\n//;

    return $c->cmd('NOOP') eq '250 2.0.0 Ok'
        && !grep { !/^5\d\d / } @replies;
}


# where it stands in a session: before MAIL, behind it, behind a RCPT

sub command {
    my ($server, $line, $rcpts) = @_;

    my $c = session($server->{port});
    my $id = ++$number;
    my $from = "s$id\@example.com";
    my @to = map { "r$id$_\@example.net" } 1 .. 2;
    my $ok = 1;

    my @commands = ("MAIL FROM:<$from>", map { "RCPT TO:<$_>" } @to);

    for my $n (0 .. $#commands) {
        $ok = refused($c, $line) && $ok if $n == $rcpts;
        $ok = $c->cmd($commands[$n]) =~ /^250 / && $ok;
    }

    $ok = refused($c, $line) && $ok if $rcpts == 3;
    $ok = $c->cmd('DATA') =~ /^354 / && $ok;
    $c->send_raw("Subject: x\r\n\r\nlast\r\n.\r\n");

    if ($c->read_reply() =~ /^250 /) {
        push @answered, envelope($from, @to);
        $whole{$from} = 1;
    } else {
        $ok = 0;
    }

    $c->quit();
    return $ok;
}


for my $server (@SERVERS[0, -1]) {
    my @wrong;

    for my $case (map({ [ $_, 0 ] } @MAIL), map({ my $line = $_;
        map { [ $line, $_ ] } 1 .. 3 } @RCPT), map({ my $line = $_;
        map { [ $line, $_ ] } 0, 1, 3 } @OTHER))
    {
        push @wrong, shown($case->[0]) . " at $case->[1]"
            unless command($server, @$case);
    }

    is(join("\n", @wrong), '',
        "STATE-12 SMUG-7 $server->{port}: no command within another");
}

# behind a true end is a message of its own

my $c = session('reject_plain');
my $next = "MAIL FROM:<FROM>\r\nRCPT TO:<t\@example.net>\r\nDATA\r\n";
my @replies;

for my $from ('p1@example.com', 'p2@example.com') {
    my $end = @replies ? "last\r\n.\r\n" : '';
    $c->send_raw($end . $next =~ s/FROM>/$from>/r);
    push @replies, map { $c->read_reply() } 1 .. ($end ? 4 : 3);
    push @answered, envelope($from, 't@example.net');
}

$c->send_raw("last\r\n.\r\n");
push @replies, $c->read_reply();
is(join(' ', map { substr($_, 0, 3) } @replies),
    '250 250 354 250 250 250 354 250', 'EXT-8 two messages, two answers');
$c->quit();


# What was delivered

sub delivered {
    ok($t->wait_for(sub { !$postfix->queued() }, 30), "$_[0]: all delivered");
    return $sink->messages();
}


# what is in one list more often than in the other

sub differ {
    my ($delivered, $answered) = @_;

    my %balance;
    $balance{$_}++ for @$delivered;
    $balance{$_}-- for @$answered;
    return map { "$balance{$_} $_" } grep { $balance{$_} } sort keys %balance;
}


my @delivered = delivered('SMUG-6');
my @envelopes = map { envelope($_->{from}, @{ $_->{rcpts} }) } @delivered;

cmp_ok(scalar @answered, '>', 100, 'SMUG-6 messages to look at');
is(scalar @delivered, scalar @answered,
    'SMUG-6 as many delivered as answered with 250');
is(join("\n", differ(\@envelopes, \@answered)), '',
    'SMUG-6 and with their envelopes');
is(scalar(grep { /evil|victim/ } @envelopes), 0, 'SMUG-6 nothing smuggled');
is(scalar(grep { $whole{ $_->{from} } && $_->{data} !~ /^last\r\n\z/m }
    @delivered), 0, 'SMUG-6 each is whole');

my @log = grep { $_->{outcome} eq 'accepted' } $t->access_log();
is(scalar @log, scalar @answered, 'SMUG-6 one line each in the log');

# The same without an edge: this Postfix is as lenient as can be, or the above
# would show nothing

for my $n (0 .. $#ENDS) {
    my ($content) = contents("-direct-$n", $ENDS[$n]);
    my $c = session('plain');

    send_pieces($c, 'DATA', "direct$n\@example.com", [ 'r@example.net' ],
        $content->[0]);
    $c->send_raw("QUIT\r\n");
    $c->wait_close();
}

for my $line ($MAIL[0], "MAIL FROM:<direct\@example.com>\r\n$RCPT[0]") {
    my $c = session('plain');
    $c->send_raw("$line\r\nDATA\r\nx\r\n.\r\nQUIT\r\n");
    $c->wait_close();
}

my @control = delivered('control');
splice(@control, 0, scalar @delivered);

my @smuggled = map { shown($ENDS[$_]) } map { $_->{from} =~ /^evil-direct-(\d+)/ }
    @control;
is(scalar(grep { $_ eq '\n.\n' || $_ eq '\n.\r\n' } @smuggled), 2,
    'control: ends of data smuggle');
is(scalar(grep { "@{ $_->{rcpts} }" =~ /victim\@/ } @control), 2,
    'control: commands smuggle');
note("control: @smuggled");

$t->done();
