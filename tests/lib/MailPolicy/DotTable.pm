package MailPolicy::DotTable;

# The table of the final dot: fourteen stages, nine events, and for each of
# them what the client hears, whether another relay is asked, what is
# charged, what is logged.  t/dot_table*.t have the cells; this is what they
# are played and judged with.
#
#     my $table = MailPolicy::DotTable->new($t);
#     $table->cell('S5', '421', fault => { mail => '421 4.3.2 closing' },
#         where => 'mail', reply => '451 4\.4\.2 ', next => 1);
#     $table->complete(qw(S5 S6));
#
# A cell has
#
#     fault     rules of the relay
#     where     the command that hears of it: mail rcpt data dot; none: the
#               message is accepted
#     reply     what it hears, a regular expression
#     passed    commands that are accepted, by default those before "where"
#     outcome   of the access log (deferred)
#     charge    what stands, [ messages, recipients ] (all of an accepted
#               message, nothing of others)
#     next      1: another relay of the group takes over.  Then the cell is
#               played twice: with the relay alone, as above, and with
#               another one, where the client sees nothing
#     dead      1: the relay alone does not come back
#     slow      1: the deadlines are long
#     rcpts     recipients ([ 'a@example.net' ])
#     server    the first part of the name of the server it is played on
#     data      code that sends the message, called with client and the
#               message's last line; returns the reply to the dot, and the
#               seconds that were waited for it

use strict;
use warnings;

use Test::More;
use Time::HiRes qw(time);

use MailPolicy::Limits qw(wait_used);

use constant EVENTS => ('4xx', '5xx', '421', 'garbage', 'silence', 'FIN',
    'RST', 'slow', 'early reply');

# in seconds: those of the servers that are not slow; and what a reply may
# take longer
use constant { DEADLINE => 1, LONG_DEADLINE => 20, MARGIN => 1 };

# of all messages: the counters are compared with a base
use constant SENDER => 'alice@example.com';


# Runs Redis, the relays "a" and "b", and nginx.  For each [ name, port ] (of
# a relay, which "b" backs up) there are servers name_alone, name_pair, and
# name_slow, which is a pair with long deadlines;
# and relay_more, a pair with "proxy_next_upstream ... 4xx".

sub new {
    my ($class, $t, @servers) = @_;

    my $self = bless {
        t => $t, used => [ 0, 0 ], cells => {}, not => {}, number => 0,
    }, $class;

    $self->{relay}{$_} = $t->run_relay(name => $_) for qw(a b);
    $self->{redis} = $t->run_redis();

    my ($groups, $blocks) = ('', '');

    $blocks .= block('relay_more', 'relay', DEADLINE . 's',
        'proxy_next_upstream error timeout invalid_response setup 421 4xx;');

    for my $server ([ 'relay', 'a' ], @servers) {
        my ($name, $port) = @$server;
        my ($short, $long) = map { "${_}s" } DEADLINE, LONG_DEADLINE;

        $groups .= <<"EOF";
    upstream $name {
        server  127.0.0.1:%%PORT_$port%%  max_fails=0;
        server  127.0.0.1:%%PORT_b%%      max_fails=0  backup;
    }
EOF
        $blocks .= block("${name}_alone", "127.0.0.1:%%PORT_$port%%", $short)
            . block("${name}_pair", $name, $short)
            . block("${name}_slow", $name, $long);
    }

    $t->conf(<<"EOF");
error_log %%DIR%%/error.log info;
mail {
    server_name   edge.example.com;
    access_log    %%DIR%%/access.log;
    policy_redis  redis://127.0.0.1:%%PORT_redis%% timeout=5s;
    policy_limit  s  key=\$sender  messages=10000/1h  recipients=10000/1h;
    policy        on;
    policy_auth   off;

$groups
$blocks
}
EOF
    $t->run_nginx();

    return $self;
}


sub block {
    my ($name, $pass, $deadline, $more) = @_;

    $more //= '';

    return <<"EOF";
    server {
        listen                 127.0.0.1:%%PORT_$name%%;
        protocol               smtp;
        proxy_pass             $pass;
        proxy_connect_timeout  $deadline;
        proxy_timeout          $deadline;
        proxy_final_timeout    $deadline;
        $more
    }
EOF
}


sub relay { return $_[0]{relay}{ $_[1] // 'a' } }


# a client after EHLO; the log knows it by this name

sub session {
    my ($self, $where, $helo) = @_;

    my $c = $self->{t}->client($where, timeout => 30);
    $c->greeting();
    $c->ehlo($helo);
    return $c;
}


sub new_helo { return 'c' . ++$_[0]{number} . '.example' }


# the counters are now what they were, and this much more

sub charged {
    my ($self, $name, $messages, $recipients) = @_;

    local $Test::Builder::Level = $Test::Builder::Level + 1;

    my $used = $self->{used};
    my @expected = ($used->[0] + $messages, $used->[1] + $recipients);

    $self->{used} = wait_used($self->{redis}, 's', SENDER, \@expected);

    is("@{ $self->{used} }", "@expected", "$name: charged "
        . ($messages || $recipients ? "$messages and $recipients" : 'nothing'));
}


sub logged {
    my ($self, $name, $helo, @outcomes) = @_;

    local $Test::Builder::Level = $Test::Builder::Level + 1;

    my @found;

    $self->{t}->wait_for(sub {
        @found = map { $_->{outcome} } grep { ($_->{helo} // '') eq $helo }
            $self->{t}->access_log();
        return @found >= @outcomes;
    });

    is("@found", "@outcomes", "$name: outcome $outcomes[0]");
}


# how many MAIL commands the other relay has had

sub asked {
    my ($self) = @_;

    return scalar(() = map { /^C: MAIL /mg } $self->relay('b')->transcripts());
}


sub cell {
    my ($self, $stage, $event, %cell) = @_;

    local $Test::Builder::Level = $Test::Builder::Level + 1;

    my $name = "DOT $stage $event";
    my $server = $cell{server} // 'relay';

    $self->{cells}{"$stage $event"}++;

    if ($cell{next}) {
        $self->play("$name, alone", "${server}_alone", %cell);
        $self->play("$name, another relay", "${server}_pair", %cell,
            where => undef, passed => undef, asked => 1);

    } else {
        $self->play($name, $server . ($cell{slow} ? '_slow' : '_pair'), %cell);
    }
}


sub play {
    my ($self, $name, $server, %cell) = @_;

    local $Test::Builder::Level = $Test::Builder::Level + 1;

    my $relay = $self->relay();
    my $where = $cell{where};
    my $asked = $self->asked();
    my $helo = $self->new_helo();

    $relay->set(%{ $cell{fault} // {} });
    my $c = $self->session($server, $helo);
    my ($reply, $longest) = $self->talk($c, $helo, %cell);
    $relay->set(extensions => [ 'PIPELINING', '8BITMIME' ],
        map { $_ => undef } grep { $_ ne 'extensions' }
        keys %{ $cell{fault} // {} });

    like($reply->{ $where // 'dot' } // '(none)',
        defined $where ? qr/^$cell{reply}/ : qr/^250 /,
        "$name: reply" . (defined $where ? " to $where" : ''));
    is(join(' ', grep { ($reply->{$_} // '') =~ /^[23]/ }
        qw(mail rcpt data dot)), $cell{passed} // passed($where),
        "$name: what passed");
    cmp_ok($longest, '<', MARGIN + ($cell{slow} ? LONG_DEADLINE : DEADLINE),
        "$name: in time");
    is($self->asked() - $asked, $cell{asked} // 0,
        "$name: another relay is told MAIL, or is not");
    # whatever became of it

    like($c->cmd('RSET'), qr/^250 /, "$name: the session goes on");
    $self->charged($name, @{ $cell{charge} // (defined $where ? [ 0, 0 ]
        : [ 1, scalar @{ $cell{rcpts} // [ 1 ] } ]) });

    my @outcomes = defined $where ? $cell{outcome} // 'deferred' : 'accepted';

    if (!$cell{dead} || $cell{asked}) {
        my @good = $c->send_mail(SENDER, [ 'a@example.net' ], "good $helo\n");
        like($good[-1], qr/^250 /, "$name: and its next message passes");
        $self->charged("$name: the next message", 1, 1);
        push @outcomes, 'accepted';
    }

    $c->quit();
    $self->logged($name, $helo, @outcomes);
}


sub passed {
    my ($where) = @_;

    return 'mail rcpt data dot' unless defined $where;
    return { mail => '', rcpt => 'mail', data => 'mail rcpt',
             dot => 'mail rcpt data' }->{$where};
}


# The dialogue: the replies, and the longest time that one took.  Commands
# are sent whatever the replies; of several recipients the last one counts.

sub talk {
    my ($self, $c, $helo, %cell) = @_;

    my %reply;
    my $longest = 0;

    my @commands = ([ mail => 'MAIL FROM:<' . SENDER . '>' ],
        (map { [ rcpt => "RCPT TO:<$_>" ] }
            @{ $cell{rcpts} // [ 'a@example.net' ] }),
        [ data => 'DATA' ]);

    for my $command (@commands) {
        my ($verb, $line) = @$command;
        my $begin = time();

        $reply{$verb} = $c->cmd($line);
        $longest = max($longest, time() - $begin);
    }

    if ($reply{data} =~ /^354/) {
        my $send = $cell{data} // \&small;

        ($reply{dot}, my $took) = $send->($c, "last $helo");
        $longest = max($longest, $took);
    }

    return (\%reply, $longest);
}


sub small {
    my ($c, $last) = @_;

    return end_of_data($c, "Subject: x\r\n\r\n$last\r\n.\r\n");
}


# sends the last octets of a message: the reply, and the time it took

sub end_of_data {
    my ($c, $octets) = @_;

    my $begin = time();

    $c->send_raw($octets);
    return ($c->read_reply(), time() - $begin);
}


sub max { return $_[0] > $_[1] ? $_[0] : $_[1] }


# one that cannot be

sub no_cell {
    my ($self, $stage, $event, $why) = @_;

    local $Test::Builder::Level = $Test::Builder::Level + 1;

    ok(!$self->{cells}{"$stage $event"},
        "DOT $stage $event: not applicable: $why");
    $self->{not}{"$stage $event"} = 1;
}


# every cell of these stages was played, or cannot be; and no relay has a
# message to the end of which its client did not come

sub complete {
    my ($self, @stages) = @_;

    local $Test::Builder::Level = $Test::Builder::Level + 1;

    my @all = map { my $stage = $_; map { "$stage $_" } EVENTS } @stages;

    is_deeply([ sort keys %{ $self->{cells} }, keys %{ $self->{not} } ],
        [ sort @all ], 'DOT all ' . @all . " cells of @stages");

    my @messages = map { $_->received() } values %{ $self->{relay} };

    is(scalar(grep { $_->{raw} !~ /^(?:last|good) c\d+\.example\r\n\.\r\n\z/m }
        @messages), 0, 'DOT no dot at a relay that its client did not send');
    cmp_ok(scalar @messages, '>', 9, 'DOT and there were some');
}


1;
