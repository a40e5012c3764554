package MailPolicy::FailAlloc::Player;

# Plays sessions again and again, and each time another call fails in nginx.
#
#     my $player = MailPolicy::FailAlloc::Player->new($t, $fail,
#         relays => [ $relay, ... ]);
#     $player->script(name => 'a message', port => 'smtp', groups => [ ... ]);
#     $player->every('alloc');
#     $player->settle('memory', 'access.log');
#
# A script has
#
#     groups    what is sent in one write each: [ item, item, ... ], an item
#               being the octets that one reply is the answer to.  %ID% is a
#               number of six digits, another one each time; a message's
#               sender is a letter and that.  Or code that is called there
#     first     octets that go out before the greeting comes
#     leaves    how the client ends it, instead of QUIT: close or reset
#     before    code that is called before each session
#     auth      the AUTH command of a session on this server
#     fills     1: with this one OpenSSL has errors to be kept
#     retry     1: what failed may need a while to be there again
#     step      what takes long: some failures are left out
#
# What is asked of each run: replies are whole, and as they are when nothing
# fails; or 4xx, behind which 503 and 554 are no surprise; or the connection
# is closed.  A session that goes on can be used, as can the next one.  The
# worker lives, with what it had open and allocated before.  And of all of
# them, at the end: the relays have what was answered 250, each once and to
# the octet, and nothing of which the end was not sent; and the access log
# says so.

use strict;
use warnings;

use Exporter qw(import);
use Test::More;
use Time::HiRes qw(time);

use MailPolicy::Client;

our @EXPORT_OK = qw(rcpts chunk connected wait_connected);

# problems of a script that are shown, then it is given up
use constant { ENOUGH => 5, AGAIN => 3, FOR_EVER => 1 << 30 };

my $RECOVERY = 'recovery';
my $ids = 0;


# items of a group: so many RCPT commands; a chunk

sub rcpts {
    my ($n, $domain) = @_;

    return map { "RCPT TO:<r$_\@$domain>\r\n" } 1 .. $n;
}


sub chunk {
    my ($octets, $last) = @_;

    my $len = length($octets =~ s/%ID%/123456/r);
    return "BDAT $len" . ($last ? ' LAST' : '') . "\r\n$octets";
}


# nginx' connections to Redis; and there is one, as far as it comes back

sub connected {
    my ($redis) = @_;

    return grep { / cmd=(?!client|NULL)/ }
        split /\n/, $redis->cmd('CLIENT', 'LIST');
}


sub wait_connected {
    my ($t, $redis) = @_;

    return $t->wait_for(sub { connected($redis) }, 3);
}


sub new {
    my ($class, $t, $fail, %option) = @_;

    my $self = bless { t => $t, fail => $fail, sent => {}, scripts => {},
                       problems => [], %option }, $class;
    $self->{pid} = $fail->worker();
    return $self;
}


sub script {
    my ($self, %script) = @_;

    push @{ $self->{order} }, $script{name};
    $self->{scripts}{ $script{name} } = \%script;
}


# A script is learned: what it is answered, and what is left of it when
# nothing fails.

sub learn {
    my ($self, $script) = @_;

    # the first one may find things that have to be made once
    for (1 .. 2) {
        delete @$script{qw(normal after)};
        $script->{normal} = $self->session($script);
        $script->{after} = $self->recovery($script);
    }

    my @wrong = grep { !whole($_) && !/^CLOSED$/ }
        @{ $script->{normal}{replies} };
    die "$script->{name}: @wrong\n" if @wrong || $script->{after} =~ /[A-Z]/;
}


# All scripts are learned before the first call fails: some are the first to
# need what is then kept for ever.

sub learn_all {
    my ($self) = @_;

    return if $self->{live};

    $self->learn($_) for values %{ $self->{scripts} };
    $self->fill($_) for grep { $_->{fills} } values %{ $self->{scripts} };

    $self->idle();
    $_->{before} && $_->{before}->() for values %{ $self->{scripts} };
    $self->{live} = $self->{fail}->live();
    $self->{open} = $self->descriptors();
}


# OpenSSL keeps the last 16 errors of a thread, with their texts.

sub fill {
    my ($self, $script) = @_;

    my $fail = $self->{fail};

    for (1 .. 16) {
        for (my $k = 1; ; $k++) {
            $self->{now} = "alloc $k, at first";
            $fail->arm('alloc', $k);
            $self->session($script);
            last unless $fail->disarm();

            # it is told of when all this is asked
            return $self->renewed() unless $fail->alive();
        }
    }
}


# nobody's connections are left

sub idle {
    my ($self) = @_;

    return $self->{t}->wait_for(sub {
        !grep { $_->stats()->{open} } @{ $self->{relays} };
    });
}


sub descriptors { return scalar(() = glob("/proc/$_[0]{pid}/fd/*")) }


# The n-th call fails, for n = 1, 2, ... until none does.  A "step", and that
# of the script, leave some out, if not "all" is set.  "times" is how many
# fail.

sub every {
    my ($self, $kind, %option) = @_;

    $self->learn_all();

    for my $name (@{ $self->{order} }) {
        $self->every_of($kind, $name, %option);
    }
}


sub every_of {
    my ($self, $kind, $name, %option) = @_;

    my $script = $self->{scripts}{$name};
    my $times = $option{times} // 1;
    my $step = $self->{all} ? 1 : ($option{step} // 1) * ($script->{step} // 1);
    my ($runs, $failures, $quiet) = (0, 0, 0);
    my $begin = time();
    my $more;

    $self->{problems} = [];

    # what is kept once, as by OpenSSL, is not left again and again
    for (1 .. AGAIN) {
        for (my $k = 1; ; $k += $step) {
            my $failed = $self->run($script, $kind, $k, $option{error}, $times);
            $runs++;
            $failures += $failed;

            # what is lost for a while asks for nothing
            $quiet = $failed ? 0 : $quiet + 1;
            last if $quiet > ($script->{retry} // 0)
                || @{ $self->{problems} } >= ENOUGH;
        }

        $more = $self->more($script);
        last unless $more;
        note("$name: $more allocations more than before");
    }

    $self->problem("$more allocations are left") if $more;

    my $what = $times == 1 ? 'one fails' : 'all fail from one on';
    MailPolicy::none(sprintf('RES-12 %s: %s, %s (%d runs)', $name, $kind,
        $what, $runs), @{ $self->{problems} });
    note(sprintf('%d failures, %.1f s', $failures, time() - $begin));
    $self->{failures} += $failures;
}


sub failures { return $_[0]{failures} }


sub run {
    my ($self, $script, $kind, $k, $error, $times) = @_;

    my $fail = $self->{fail};

    $self->{now} = "$kind $k";
    $script->{before}->() if $script->{before};
    $fail->arm($kind, $k, $error, $times);

    my $session = $self->session($script);
    my $failed = $fail->disarm();

    $self->judge($script, $session);
    $self->recover($script, $session) if $failed;

    return $failed if $fail->alive();

    $self->problem('the worker is gone');
    $self->renewed();

    # a new one knows nothing of relays
    delete $self->{live};
    $self->learn_all();
    return $failed;
}


# another worker takes the place of one that is gone

sub renewed {
    my ($self) = @_;

    my ($t, $fail) = @$self{qw(t fail)};

    $t->wait_for(sub {
        my ($pid) = $t->worker_pids($fail->{nginx});
        return $pid && $pid != $self->{pid};
    });
    $fail->found();
    $self->{pid} = $fail->worker();
}


sub problem { push @{ $_[0]{problems} }, "$_[0]{now}: $_[1]" }


# How many allocations are left, which then count as usual

sub more {
    my ($self, $script) = @_;

    my ($t, $fail) = @$self{qw(t fail)};
    my ($more, $open);

    $self->{now} = 'afterwards';
    $script->{before}->() if $script->{before};
    $self->idle() or $self->problem('connections to relays are left');

    $t->wait_for(sub { ($open = $self->descriptors()) <= $self->{open} }, 3)
        or $self->problem("$open descriptors, there were $self->{open}");
    $t->wait_for(sub { ($more = $fail->live() - $self->{live}) <= 0 }, 1);

    $self->{live} = $fail->live();
    return $more > 0 ? $more : 0;
}


# sessions


# Plays a script as far as it goes.  Returns { replies, id, client (if it is
# to go on), authenticated }.

sub session {
    my ($self, $script) = @_;

    my $c = MailPolicy::Client->new(port => $script->{port}, timeout => 5);
    my $session = { replies => [], id => sprintf('%06d', ++$ids),
                    client => $c };
    my $normal = $script->{normal};

    $c->send_raw($script->{first}) if $script->{first};
    $session->{replies} = [ $c->read_reply() ];

    for my $group (@{ $script->{groups} }) {
        if (ref $group eq 'CODE') {
            $group->();
            next;
        }

        $self->group($session, $script->{name}, $group) or last;

        # what comes next may have no sense any more
        my $last = $#{ $session->{replies} };

        if ($normal && code($session->{replies}[$last])
            ne code($normal->{replies}[$last] // ''))
        {
            $session->{deviates} = 1;
            last;
        }
    }

    $self->leave($session, $script);
    return $session;
}


# false at the end of the connection

sub group {
    my ($self, $session, $name, $group) = @_;

    my $c = $session->{client};
    my @items = map { s/%ID%/$session->{id}/gr } @$group;

    for my $item (@items) {
        $session->{message} = $self->{sent}{$1}
            = { name => $name, now => $self->{now} // '' }
            if $item =~ /^MAIL FROM:<(\w+)\@/;
        $session->{message}{ended} = 1 if ends($item);
    }

    my $message = $session->{message};

    $c->send_raw(join('', @items));

    for my $item (@items) {
        my $reply = $c->read_reply();

        push @{ $session->{replies} }, $reply;
        $message->{accepted} = 1 if ends($item) && $reply =~ /^250 /;
        $session->{authenticated} = 1 if $reply =~ /^235 /;

        return 0 if $reply =~ /(?:CLOSED|TIMEOUT)$/;
    }

    return 1;
}


# octets that end a message

sub ends {
    my ($item) = @_;

    return $item =~ /^BDAT \d+ LAST\r\n/ if $item =~ /^BDAT /;
    return $item =~ /(?:\A|\r\n)\.\r\n\z/;
}


sub leave {
    my ($self, $session, $script) = @_;

    my $c = $session->{client};
    my $replies = $session->{replies};
    my $last = $replies->[-1];

    if ($last =~ /CLOSED$/) {
        # part of a line that never came to its end
        $replies->[-1] .= " behind \"$c->{buffer}\"" if $c->{buffer} ne '';
        delete $session->{client};

    } elsif ($last =~ /^(?:421|221) /) {
        push @$replies, $c->read_reply();
        delete $session->{client};

    } elsif ($script->{leaves} && !$session->{deviates}) {
        my $how = $script->{leaves};

        $c->$how();
        delete $session->{client};

        # the worker has seen it when it has greeted another one
        my $other = MailPolicy::Client->new(port => $script->{port},
            timeout => 5);
        $other->send_raw($script->{first}) if $script->{first};
        push @$replies, $other->read_reply();
        $other->close();

    } elsif ($last =~ /^354 /) {
        # not expected: there is no message to be sent
        $c->close();
        delete $session->{client};
    }
}


# A message in the session that goes on, or in a new one: the codes of the
# replies, from that to EHLO on.

sub recovery {
    my ($self, $script, $old) = @_;

    my $id = sprintf('%06d', ++$ids);
    my $c = $old && $old->{client};
    my @groups = ([ "EHLO again.example\r\n" ]);
    my $session = { replies => [], id => $id };

    if ($c) {
        unshift @groups, [ "RSET\r\n" ];

    } else {
        $c = MailPolicy::Client->new(port => $script->{port}, timeout => 5);
        $c->send_raw($script->{first}) if $script->{first};
        push @{ $session->{replies} }, $c->read_reply();
    }

    $session->{client} = $c;

    push @groups, [ "$script->{auth}\r\n" ]
        if $script->{auth} && !($old && $old->{authenticated});
    push @groups, [ "MAIL FROM:<s%ID%\@example.com>\r\n",
                    "RCPT TO:<r\@example.net>\r\n", "DATA\r\n" ],
        [ "Subject: recovery %ID%\r\n\r\n..\r\n.\r\n" ], [ "QUIT\r\n" ];

    for my $group (@groups) {
        $self->group($session, $RECOVERY, $group) or last;
        last if $session->{replies}[-1] !~ /^[23]/;
    }

    $c->close();

    # that a session is authenticated already is as good as being told
    my ($first, @codes) = map { code($_) } @{ $session->{replies} };
    return $first unless $first =~ /^2/;

    splice(@codes, 1, 0, 235) if $old && $old->{authenticated};
    return join(' ', @codes);
}


# verdicts


sub code { return $_[0] =~ /^(\d{3})/ ? $1 : $_[0] }


# a reply that is complete

sub whole {
    my ($reply) = @_;

    my ($code) = $reply =~ /^(\d{3})/ or return 0;
    return $reply =~ /^(?:$code-[ -~]*\n)*$code [ -~]*\z/;
}


sub judge {
    my ($self, $script, $session) = @_;

    my @normal = @{ $script->{normal}{replies} };
    my $temporary = 0;

    for my $i (0 .. $#{ $session->{replies} }) {
        my $reply = $session->{replies}[$i];
        my $expected = $normal[$i] // 'nothing';

        next if code($reply) eq code($expected)
            && status($reply) eq status($expected);
        next if $reply eq 'CLOSED';

        # what the relay said may have lost its text, not more
        next if $reply eq '250 2.0.0 Ok' && $expected =~ /^2/;
        next if $reply eq '554 5.0.0 Refused' && $expected =~ /^5/;

        # another recipient did not get its route
        next if $temporary && $script->{may_pass} && $reply =~ /^250 /;

        if (whole($reply) && $reply =~ /^4/) {
            $temporary = 1;
            next;
        }

        next if $temporary && whole($reply)
            && $reply =~ /^(?:503|554) 5\.5\.1 /;

        my @before = @{ $session->{replies} }[0 .. $i - 1];
        $self->problem("\"$reply\" instead of \"$expected\" behind "
            . join(' ', map { code($_) } @before));
        last;
    }
}


sub status { return $_[0] =~ /^\d{3} (\d\.\d+\.\d+) / ? $1 : '' }


# The session goes on where it can, with a message that is answered as usual;
# or there is another one.

sub recover {
    my ($self, $script, $session) = @_;

    my $after = $script->{after};
    my $codes;

    if ($session->{client}) {
        $codes = $self->recovery($script, $session);

        return if $codes eq $after;

        # nginx' own 451 is followed by the end of the connection
        $self->problem("then in the same session: $codes, not $after")
            unless $codes eq 'CLOSED' || $script->{retry};
    }

    $self->{t}->wait_for(sub {
        $script->{before}->() if $script->{before};
        $codes = $self->recovery($script);
        return $codes eq $after;
    }, $script->{retry} ? 5 : 0)
        or $self->problem("the next session: $codes, not $after");
}


# What came of all that was sent: of a relay's message, the octets are those of
# the first one of its script, but for the number; and the access log knows.

sub settle {
    my ($self, $name, $log) = @_;

    my (%text, %times, @lost, @false, @other, @untrue);
    my %outcome = $self->outcomes($log);

    for my $message (map { $_->messages() } @{ $self->{relays} }) {
        my ($from, $letter, $id) = $message->{from} =~ /^((\w)(\d{6}))\@/
            or next;
        my $sent = $self->{sent}{$from} or next;
        my $kind = "$sent->{name} $letter";
        my $data = $message->{data} =~ s/$id/ID/gr;

        $text{$kind} //= $data;
        push @other, about($from, $sent) if $data ne $text{$kind};
        push @false, about($from, $sent) unless $sent->{ended};
        $times{$from}++;
    }

    for my $from (sort keys %{ $self->{sent} }) {
        my $sent = $self->{sent}{$from};
        my $times = $times{$from} // 0;
        my $outcome = $outcome{$from} // '';

        push @lost, about($from, $sent) . ": $times times"
            if $times > 1 || $sent->{accepted} && !$times;

        # where the log has no line, nginx says so
        my $true = !$times ? qr/^(?:|deferred|rejected|aborted|unknown)$/
            : $sent->{accepted} ? qr/^(?:|accepted)$/
            : qr/^(?:|delivered_unacked|unknown)$/;

        # a connection on which sending fails once is not one that is lost
        $true = qr/^(?:|accepted|delivered_unacked|unknown)$/
            if $times && $sent->{now} =~ /^send/;

        push @untrue, about($from, $sent) . ": $outcome" if $outcome !~ $true;
    }

    MailPolicy::none("$name: 250 only of the relay's, and each once", @lost);
    MailPolicy::none("$name: nothing came to an end by itself", @false);
    MailPolicy::none("$name: to the octet", @other);
    MailPolicy::none("$name: the access log knows, in one line", @untrue);
}


sub about {
    my ($from, $sent) = @_;

    return "$from: $sent->{name}, $sent->{now}";
}


# by the local parts of senders

sub outcomes {
    my ($self, $log) = @_;

    my %outcome;

    for my $line ($self->{t}->access_log($log)) {
        my ($from) = ($line->{sender} // '') =~ /^(\w+)\@/ or next;
        $outcome{$from} .= (defined $outcome{$from} ? ' and ' : '')
            . $line->{outcome};
    }

    return %outcome;
}


1;
