package MailPolicy::RandomMail;

# Sessions of clients that do this and that, each process in an order of its
# own that a seed tells, and what they know of what became of it: a count for
# each name, as MailPolicy::Sums has them of policy_status.
#
#     my $mail = MailPolicy::RandomMail->new($t, seed => 1, clients => 4,
#         ports => [ 'smtp' ], transactions => 100);
#     my %count = $mail->wait();
#
# Who comes to a port "login" has to log in.  What goes to a port "quiet" is counted as "quiet..." a second time.  Where
# workers end meanwhile, interrupted => 1 takes 421, and a connection that is
# gone, for the end of a session; of those, clients know little.
# The relay is a MailPolicy::FastRelay.  Logins are u@example.com with
# "secret"; the limit "few" is two messages of a sender "few...", "watched"
# (enforce=0%) one of a sender "watched...".

use strict;
use warnings;

use JSON::PP ();
use MIME::Base64 qw(encode_base64);

use MailPolicy::Client;
use MailPolicy::Process qw(fork_server wait_exit);
use MailPolicy::Secrets ();

# how often in a hundred
my @TRANSACTIONS = (
    [ 40, \&accepted ], [ 6, \&refused_late ], [ 4, \&deferred_late ],
    [ 3, \&relay_gone ], [ 10, \&reset ], [ 10, \&refused_recipients ],
    [ 10, \&few ], [ 5, \&watched ], [ 6, \&pipelined ], [ 3, \&wrong ],
    [ 3, \&chunks ],
);
my @ENDS = (
    [ 40, \&quit ], [ 15, \&close_it ], [ 10, \&rst ], [ 10, \&gone_mail ],
    [ 10, \&gone_body ], [ 5, \&gone_dot ], [ 10, \&quit_amid ],
);
my @LOGINS = (
    [ 40, \&good_plain ], [ 15, \&good_login ], [ 20, \&bad_plain ],
    [ 10, \&bad_login ], [ 5, \&login_aborted ], [ 5, \&login_gone ],
    [ 5, \&login_unknown ],
);

my $number = 0;


sub new {
    my ($class, $t, %option) = @_;

    my $self = bless { t => $t, clients => 4, name => 'r' . ++$number,
                       %option }, $class;

    MailPolicy::Secrets::remember('secret', 'wrong');

    $self->{pids} = [ map { $self->_start($_) } 1 .. $self->{clients} ];
    return $self;
}


sub _file { return "$_[0]{t}{dir}/$_[0]{name}-$_[1]" }


sub _start {
    my ($self, $n) = @_;

    my $file = $self->_file($n);

    return fork_server("$file.err", [], sub {
        srand($self->{seed} * 1000 + $n);

        my $s = { %$self, name => "$self->{name}-$n", number => 0,
                  count => {} };

        while ($s->{number} < $self->{transactions}) {
            next if eval { session($s); 1 };
            die $@ unless $s->{interrupted} && $@ =~ /"(?:421|CLOSED|TLS failed)/;
            add($s, 'interrupted');
        }

        $self->{t}->write_file($file,
            JSON::PP->new()->encode($s->{count}));
    });
}


# the sums over all clients; one that died is no number

sub wait {
    my ($self) = @_;

    my %sum;

    for my $n (1 .. $self->{clients}) {
        my $status = wait_exit($self->{pids}[ $n - 1 ], 600);
        my $file = $self->_file($n);

        my $error = MailPolicy::Nginx::slurp("$file.err");
        die "$file: $error\n"
            if !defined $status || $status != 0 || $error ne '';

        my $count = JSON::PP->new()->decode(MailPolicy::Nginx::slurp($file));
        $sum{$_} += $count->{$_} for keys %$count;
    }

    return %sum;
}


# the process


sub add {
    my ($s, @names) = @_;

    for my $name ($s->{quiet} ? map { ($_, "quiet.$_") } @names : @names) {
        $s->{count}{$name}++;
    }
}


sub pick {
    my (@choices) = @_;

    my $n = rand(100);

    for (@choices) {
        $n -= $_->[0];
        return $_->[1] if $n < 0;
    }

    return $choices[0][1];
}


# a reply that is not this one is the end of all

sub expect {
    my ($c, $pattern, $command) = @_;

    is_reply(defined $command ? $c->cmd($command) : $c->read_reply(),
        $pattern, $command // 'then');
}


sub is_reply {
    my ($reply, $pattern, $name) = @_;

    die "$name: \"$reply\" is not $pattern\n" unless $reply =~ /^$pattern/;
}


sub session {
    my ($s) = @_;

    my $port = $s->{ports}[ rand(@{ $s->{ports} }) ];
    my $c = MailPolicy::Client->new(port => $s->{t}->port($port));

    @$s{qw(c quiet transactions refused authenticated)}
        = ($c, $port eq 'quiet', 0, 0, 0);

    add($s, 'sessions.total');
    expect($c, 220);
    expect($c, 250, 'EHLO client.example');

    if (rand() < 0.2) {
        is_reply($c->starttls(), 220, 'STARTTLS');
        expect($c, 250, 'EHLO client.example');
    }

    if ($port eq 'login') {
        while ($s->{c} && !$s->{authenticated}) {
            last if rand() < 0.2;
            pick(@LOGINS)->($s);
        }

        if ($s->{c} && !$s->{authenticated}) {
            no_login($s) if rand() < 0.3;
            quit($s);
        }
    }

    for (1 .. rand(6)) {
        last unless $s->{c};
        pick(@TRANSACTIONS)->($s);
    }

    pick(@ENDS)->($s) if $s->{c};

    # a line of its own
    add($s, 'lines.sessions')
        if !$s->{transactions} && $s->{refused} && !$s->{quiet};

    # ends also if there is little to count
    $s->{number}++;
}


sub refused {
    my ($s, @names) = @_;

    add($s, @names);
    $s->{refused}++;
}


sub ended {
    my ($s, $outcome, @names) = @_;

    add($s, "transactions.$outcome", @names);

    # octets of a message, the end of it not counted
    add($s, ('bytes.messages') x $s->{size}) if $outcome eq 'accepted';
    $s->{transactions}++;
}


sub id { return "$_[0]{name}-" . ++$_[0]{number} }


# transactions


# MAIL, and recipients that are accepted

sub begin {
    my ($s, $n, $from) = @_;

    my $id = id($s);

    $from //= "$id\@example.com";
    expect($s->{c}, 250, "MAIL FROM:<$from>");

    for (1 .. $n) {
        expect($s->{c}, 250, "RCPT TO:<r$_\@example.net>");
        add($s, 'recipients.accepted');
    }

    return $id;
}


sub message {
    my ($s, $id, $code) = @_;

    my $text = text($id);

    $s->{size} = length($text);
    $s->{c}->send_raw("$text.\r\n");
    expect($s->{c}, $code);
}


sub text { return "X-Id: $_[0]\r\n\r\n" . ("x\r\n" x rand(50)) }


sub accepted {
    my ($s) = @_;

    my $id = begin($s, 1 + rand(3));

    expect($s->{c}, 354, 'DATA');
    message($s, $id, 250);
    ended($s, 'accepted');
}


sub refused_late {
    my ($s) = @_;

    my $id = begin($s, 1);

    expect($s->{c}, 354, 'DATA');
    message($s, "$id-late", 554);
    refused($s, 'refusals.end_of_data.rejected');
    ended($s, 'rejected');
}


sub deferred_late {
    my ($s) = @_;

    my $id = begin($s, 1);

    expect($s->{c}, 354, 'DATA');
    message($s, "$id-later", 451);
    refused($s, 'refusals.end_of_data.deferred');
    ended($s, 'deferred');
}


sub relay_gone {
    my ($s) = @_;

    my $id = begin($s, 1);

    expect($s->{c}, 354, 'DATA');
    message($s, "$id-gone", 451);
    refused($s, 'refusals.end_of_data.deferred');
    ended($s, 'unknown');
}


sub reset {
    my ($s) = @_;

    begin($s, rand(3));
    expect($s->{c}, 250, rand() < 0.5 ? 'RSET' : 'EHLO again.example');
    ended($s, 'aborted');
}


sub refused_recipients {
    my ($s) = @_;

    my $good = int(rand(2));
    my $id = begin($s, $good);
    my $last;

    for (1 .. 1 + rand(3)) {
        my ($name, $code) = rand() < 0.5 ? ('no', 550) : ('later', 450);

        expect($s->{c}, $code, "RCPT TO:<$name$_\@example.net>");
        $last = $code == 550 ? 'rejected' : 'deferred';
        refused($s, "refusals.rcpt.$last", 'recipients.refused');
    }

    if ($good) {
        expect($s->{c}, 354, 'DATA');
        message($s, $id, 250);
        ended($s, 'accepted');
        return;
    }

    expect($s->{c}, 250, 'RSET');
    ended($s, $last);
}


# the limits

sub few {
    my ($s) = @_;

    my $from = "few-$s->{name}-" . int(rand(1000)) . '@example.com';
    my $passed = ++$s->{few}{$from} <= 2;

    if ($passed) {
        my $id = begin($s, 1, $from);

        add($s, 'limits.few.pass');
        expect($s->{c}, 354, 'DATA');
        message($s, $id, 250);
        ended($s, 'accepted');
        return;
    }

    id($s);
    expect($s->{c}, 450, "MAIL FROM:<$from>");
    refused($s, 'limits.few.defer', 'refusals.mail.deferred');
    ended($s, 'deferred');
}


sub watched {
    my ($s) = @_;

    my $from = "watched-$s->{name}-" . int(rand(20)) . '@example.com';
    my $id = begin($s, 1, $from);

    add($s, 'limits.watched.'
        . ($s->{watched}{$from}++ ? 'would_reject' : 'pass'));
    expect($s->{c}, 354, 'DATA');
    message($s, $id, 250);
    ended($s, 'accepted');
}


sub pipelined {
    my ($s) = @_;

    my $id = id($s);
    my $good = rand() < 0.7;
    my @rcpts = ($good ? ('r') : (), 'no', 'later');

    $s->{c}->send_raw("MAIL FROM:<$id\@example.com>\r\n"
        . join('', map { "RCPT TO:<$_\@example.net>\r\n" } @rcpts)
        . "DATA\r\n");

    expect($s->{c}, 250);
    expect($s->{c}, 250) if $good;
    expect($s->{c}, 550);
    expect($s->{c}, 450);

    add($s, 'recipients.accepted') if $good;
    refused($s, 'refusals.rcpt.rejected', 'refusals.rcpt.deferred',
        map { 'recipients.refused' } 1, 2);

    if ($good) {
        expect($s->{c}, 354);
        message($s, $id, 250);
        ended($s, 'accepted');
        return;
    }

    # as all are refused, DATA is no refusal of its own
    expect($s->{c}, '[45]');
    expect($s->{c}, 250, 'RSET');
    ended($s, 'deferred');
}


# commands that are none

sub wrong {
    my ($s) = @_;

    id($s);
    expect($s->{c}, 501, 'MAIL FROM:<a@>');
    expect($s->{c}, 50, 'NONSENSE');
    refused($s, 'refusals.mail.rejected', 'refusals.other.rejected');
}


sub chunks {
    my ($s) = @_;

    my $id = begin($s, 1);
    my $text = text($id);

    $s->{c}->send_raw('BDAT ' . length($text) . "\r\n$text");
    expect($s->{c}, 250);
    $s->{size} = length($text) + 3;
    $s->{c}->send_raw("BDAT 3 LAST\r\nx\r\n");
    expect($s->{c}, 250);
    ended($s, 'accepted');
}


# logins


sub good_plain {
    my ($s) = @_;

    is_reply($s->{c}->auth_plain('u@example.com', 'secret'), 235, 'AUTH');
    add($s, 'auth.PLAIN.success');
    $s->{authenticated} = 1;
}


sub good_login {
    my ($s) = @_;

    is_reply($s->{c}->auth_login('u@example.com', 'secret'), 235, 'AUTH');
    add($s, 'auth.LOGIN.success');
    $s->{authenticated} = 1;
}


sub bad_plain {
    my ($s) = @_;

    is_reply($s->{c}->auth_plain('u@example.com', 'wrong'), 535, 'AUTH');
    refused($s, 'auth.PLAIN.failure', 'refusals.auth.rejected');
}


sub bad_login {
    my ($s) = @_;

    is_reply($s->{c}->auth_login('nobody@example.com', 'wrong'), 535, 'AUTH');
    refused($s, 'auth.LOGIN.failure', 'refusals.auth.rejected');
}


sub login_aborted {
    my ($s) = @_;

    expect($s->{c}, 334, 'AUTH PLAIN');
    expect($s->{c}, 501, '*');
    refused($s, 'auth.PLAIN.aborted', 'refusals.auth.rejected');
}


sub login_gone {
    my ($s) = @_;

    expect($s->{c}, 334, 'AUTH LOGIN');
    expect($s->{c}, 334, encode_base64('u@example.com', ''));
    $s->{c}->close();
    delete $s->{c};
    add($s, 'auth.LOGIN.aborted');
}


sub no_login {
    my ($s) = @_;

    expect($s->{c}, 530, 'MAIL FROM:<a@example.com>');
    refused($s, 'refusals.mail.rejected');
}


sub login_unknown {
    my ($s) = @_;

    expect($s->{c}, 504, 'AUTH GSSAPI');
    refused($s, 'auth.unknown.failure', 'refusals.auth.rejected');
}


# ends


sub quit {
    my ($s) = @_;

    expect($s->{c}, 221, 'QUIT');
    delete($s->{c})->close();
}


sub close_it { $_[0]{c}->close() }


sub rst { $_[0]{c}->reset() }


sub gone_mail {
    my ($s) = @_;

    begin($s, rand(3));
    rand() < 0.5 ? $s->{c}->close() : $s->{c}->reset();
    ended($s, 'aborted');
}


sub quit_amid {
    my ($s) = @_;

    begin($s, rand(3));
    quit($s);
    ended($s, 'aborted');
}


sub gone_body {
    my ($s) = @_;

    begin($s, 1);
    expect($s->{c}, 354, 'DATA');
    $s->{c}->send_raw("Subject: half\r\n\r\nx");
    $s->{c}->close();
    ended($s, 'aborted');
}


# it may be accepted or not, and is written down as what it is

sub gone_dot {
    my ($s) = @_;

    # which is only seen in a log
    return quit($s) if $s->{quiet};

    my $id = begin($s, 1);

    expect($s->{c}, 354, 'DATA');
    $s->{c}->send_raw(text($id) . ".\r\n");
    $s->{c}->close();
    ended($s, 'open');
}


1;
