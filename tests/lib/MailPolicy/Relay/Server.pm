package MailPolicy::Relay::Server;

# The process behind MailPolicy::Relay: one select() loop over all
# connections.  A connection is either waiting for a command line, or in a
# message's body ("raw"), or in a chunk of BDAT ("chunk"); while a delayed or
# trickled reply is due ("resume" at "wake"), nothing further of it is read
# from the buffer.

use strict;
use warnings;

use Errno ();
use IO::Socket::INET;
use JSON::PP ();
use MIME::Base64 qw(decode_base64 encode_base64);
use Socket qw(AF_INET AF_INET6 inet_ntop IPPROTO_TCP SOL_SOCKET SO_LINGER
    TCP_NODELAY);
use Storable ();
use Time::HiRes qw(clock_gettime time CLOCK_MONOTONIC);

use MailPolicy::Relay::Journal;
use MailPolicy::Relay::Parameters qw(parameters path wrong_parameters);
use MailPolicy::Relay::Sasl;
use MailPolicy::Relay::Tls;

# the replies to these must be awaited, RFC 2920 section 3.1
my %LAST_OF_GROUP = map { $_ => 1 } qw(AUTH DATA EHLO HELO NOOP QUIT
    STARTTLS XCLIENT);

# what is kept as it is given
my @SETTINGS = qw(extensions hostname proxy_protocol scram users);

my %COMMANDS = (
    EHLO    => \&command_ehlo,
    HELO    => \&command_ehlo,
    STARTTLS => \&command_starttls,
    XCLIENT => \&command_xclient,
    AUTH    => \&command_auth,
    MAIL    => \&command_mail,
    RCPT    => \&command_rcpt,
    DATA    => \&command_data,
    BDAT    => \&command_bdat,
    RSET    => \&command_rset,
    NOOP    => \&command_noop,
    QUIT    => \&command_quit,
);


sub new {
    my ($class, %option) = @_;

    return bless {
        rules       => {},
        hostname    => 'relay.example',
        extensions  => [ 'PIPELINING', 'SIZE 52428800', '8BITMIME',
                         'ENHANCEDSTATUSCODES' ],
        keep        => 1,
        connections => {},              # by file descriptor
        total       => 0,
        stored      => 0,
        accepted    => 0,
        %option,
    }, $class;
}


sub listener { return $_[0]{listener} }
sub unlisten { close(delete $_[0]{listener}) if $_[0]{listener} }


sub listen {
    my ($self) = @_;

    $self->{listener} //= IO::Socket::INET->new(
        LocalAddr => $self->{address}, LocalPort => $self->{port},
        Proto => 'tcp', Listen => 1024, ReuseAddr => 1,
    ) || die "relay $self->{name}: port $self->{port}: $!\n";
}


sub run {
    my ($self) = @_;

    $self->open_files();

    while (1) {
        my ($readable, $writable) = ('', '');
        my $listener = $self->{listener};
        my $now = time();
        my $wait = 60;

        vec($readable, fileno($self->{control}), 1) = 1;
        vec($readable, fileno($listener), 1) = 1 if $listener;

        for my $c (values %{ $self->{connections} }) {
            vec($readable, $c->{fd}, 1) = 1 unless $c->{deaf};
            vec($writable, $c->{fd}, 1) = 1 if $self->waits($c);

            if (defined $c->{wake} && $c->{wake} - $now < $wait) {
                $wait = $c->{wake} > $now ? $c->{wake} - $now : 0;
            }
        }

        my $n = select($readable, $writable, undef, $wait);
        next if $n < 0;

        $self->wake_up();

        for my $c (values %{ $self->{connections} }) {
            $self->flush($c) if vec($writable, $c->{fd}, 1) && !$c->{gone};
            $self->read($c) if vec($readable, $c->{fd}, 1) && !$c->{gone};
        }

        $self->accept() if $listener && vec($readable, fileno($listener), 1);
        $self->obey() or return if vec($readable, fileno($self->{control}), 1);
    }
}


sub open_files {
    my ($self) = @_;

    $self->{journal} = MailPolicy::Relay::Journal->create(
        $self->{journal_file} // "$self->{store}/journal");

    # for people
    my $file = "$self->{store}/connections.transcript";
    open($self->{transcript}, '>>:raw', $file) or die "$file: $!\n";
    $self->{transcript}->autoflush(1);
}


# orders of the test; false at their end

sub obey {
    my ($self) = @_;

    my $control = $self->{control};

    # one question at a time: nothing is left in the handle's buffer
    my $line = <$control>;
    return 0 unless defined $line;

    my $order = JSON::PP::decode_json($line);
    my $answer = { ok => 1 };

    $self->configure($order->{set}) if $order->{set};

    if ($order->{stats}) {
        $answer = {
            open     => scalar keys %{ $self->{connections} },
            total    => $self->{total},
            messages => $self->{accepted},
        };
    }

    syswrite($control, JSON::PP::encode_json($answer) . "\n");
    return 1;
}


sub configure {
    my ($self, $set) = @_;

    for my $name (keys %$set) {
        my $value = $set->{$name};

        if (grep { $name eq $_ } @SETTINGS) {
            $self->{$name} = $value;
        } elsif ($name eq 'certificate') {
            $self->{certificate} = $value;
            $self->{context} = MailPolicy::Relay::Tls::context($value);
        } elsif ($name eq 'store') {
            $self->{keep} = $value;
        } elsif (defined $value) {
            $self->{rules}{$name} = ref $value eq 'ARRAY' ? $value : [ $value ];
        } else {
            delete $self->{rules}{$name};
        }
    }

    my ($connect) = @{ $self->{rules}{connect} // [] };
    my $refuse = defined $connect && $connect eq 'refuse';
    $refuse ? $self->unlisten() : $self->listen();
}


# connections


sub accept {
    my ($self) = @_;

    my $socket = $self->{listener}->accept() or return;

    $socket->blocking(0);
    setsockopt($socket, IPPROTO_TCP, TCP_NODELAY, 1);

    my $number = ++$self->{total};

    my $c = {
        socket   => $socket,
        fd       => fileno($socket),
        number   => $number,
        in       => '',
        out      => '',
        wire     => '',                 # of out, as it is sent
        octets   => 0,                  # that came in
        offered  => {},
        commands => [],
        xclient  => {},
        awaited  => 'nothing (no greeting yet)',
    };

    $self->journal($c, 'connection', '');
    $self->note($c, '-- from ' . $socket->peerhost());
    $self->{connections}{ $c->{fd} } = $c;

    $self->begin_tls($c)
        if $self->{certificate} && $self->{certificate}{at_once};

    $self->answer($c, 'connect', '', undef, sub {
        $self->answer($c, 'greeting', '', "220 $self->{hostname} ESMTP");
    });
}


sub note {
    my ($self, $c, $text) = @_;

    $self->journal($c, 'note', $text);
    print { $self->{transcript} } "$c->{number} $text\n"
        if $self->{keep};
}


sub journal {
    my ($self, $c, $kind, $octets) = @_;

    $self->{journal}->put($kind, $c->{number}, $octets) if $self->{keep};
}


sub fault { my ($self, $c, $text) = @_; $self->note($c, "-- fault: $text") }


sub read {
    my ($self, $c) = @_;

    my $n = sysread($c->{socket}, my $octets, 262144);

    return if !defined $n && ($!{EAGAIN} || $!{EINTR});

    if ($n && $self->{proxy_protocol} && !$c->{proxied}) {
        $octets = $self->proxy_header($c, $octets);
        $n = length $octets;
        return if !$n;
    }

    if ($n && $c->{tls}) {
        $octets = $self->decrypt($c, $octets) // return;
        $n = length $octets;
        return if !$n;
    }

    if (!$n) {
        $self->note($c, '-- ' . (defined $n ? 'closed' : 'reset')
            . ' by client' . where($c));
        $self->finalize($c);
        return;
    }

    $self->journal($c, 'stream', $octets);

    if (defined $c->{wake} && $c->{awaited}) {
        $self->fault($c, "octets before the reply to $c->{awaited}");
    }

    $c->{in} .= $octets;
    $c->{octets} += $n;
    $self->process($c);
}


sub where {
    my ($c) = @_;

    return ' in the body after ' . length($c->{raw}) . ' octets'
        if defined $c->{raw} && !$c->{complete};
    return " in a chunk, $c->{chunk}{left} octets before its end"
        if $c->{chunk};
    return defined $c->{content} ? ' between chunks' : '';
}


sub flush {
    my ($self, $c) = @_;

    if (!$c->{tls}) {
        $c->{wire} .= $c->{out};
        $c->{out} = '';

    } elsif ($c->{tls}->done()) {
        $c->{wire} .= $c->{tls}->say($c->{out});
        $c->{out} = '';
    }

    if ($c->{wire} ne '') {
        my $n = syswrite($c->{socket}, $c->{wire});

        if (defined $n) {
            substr($c->{wire}, 0, $n, '');

        } elsif (!$!{EAGAIN} && !$!{EINTR}) {
            $self->note($c, '-- reset by client');
            $self->finalize($c);
            return;
        }
    }

    $self->shut($c) if $c->{closing} && $c->{out} eq '' && $c->{wire} eq '';
}


# true if there is something that can be sent

sub waits {
    my ($self, $c) = @_;

    return $c->{wire} ne ''
        || ($c->{out} ne '' && (!$c->{tls} || $c->{tls}->done()));
}


# the header of the PROXY protocol, of either version; what is behind it

sub proxy_header {
    my ($self, $c, $octets) = @_;

    $octets = ($c->{head} // '') . $octets;

    if ($octets =~ s/^PROXY ([^\r\n]*)\r\n//) {
        $c->{proxied} = "1 $1";

    } elsif ($octets =~ /^\r\n\r\n\0\r\nQUIT\n(.)(.)(..)/s
             && length($octets) >= 16 + unpack('n', $3))
    {
        my ($command, $family, $length) = (ord $1, ord $2, unpack('n', $3));
        my $at = $family == 0x11 ? 'a4a4nn' : 'a16a16nn';
        my ($source, $destination, @ports) =
            unpack($at, substr($octets, 16, $length));
        my $kind = $family == 0x11 ? AF_INET : AF_INET6;

        $c->{proxied} = "2 $command " . ($family
            ? join(' ', inet_ntop($kind, $source),
                inet_ntop($kind, $destination), @ports) : 'none');
        substr($octets, 0, 16 + $length, '');

    } else {
        $c->{head} = $octets;
        return '';
    }

    $self->note($c, "-- PROXY $c->{proxied}");
    return $octets;
}


# TLS


sub begin_tls {
    my ($self, $c, $injected) = @_;

    die "relay $self->{name}: no certificate\n" if !$self->{context};

    $c->{tls} = MailPolicy::Relay::Tls->new($self->{context});
    $c->{wire} .= $injected // '';
}


# the plain octets; undef where the connection is not to be read any more

sub decrypt {
    my ($self, $c, $octets) = @_;

    my $tls = $c->{tls};
    my $done = $tls->done();

    if (!$c->{hello}++) {
        my $action = $self->rule('tls', '');

        if (ref $action || $action ne 'ok') {
            # of all that it says nothing is TLS
            delete $c->{tls};
            $c->{out} = '';
            $c->{hung} = 1;
            $self->act($c, $action, undef, sub { });
            $self->flush($c) unless $c->{gone};
            return undef;
        }
    }

    my $plain = $tls->feed($octets);
    $c->{wire} .= $tls->say();

    if (!defined $plain) {
        $self->note($c, '-- no TLS');
        $c->{out} = '';
        delete $c->{tls};
        $c->{closing} = 'no TLS';
        $self->flush($c);
        return undef;
    }

    $self->note($c, '-- TLS ' . $tls->about()) if $tls->done() && !$done;
    $self->flush($c);
    return $c->{gone} ? undef : $plain;
}


sub shut {
    my ($self, $c) = @_;

    if ($c->{closing} eq 'hang') {
        delete $c->{closing};
        $self->act($c, 'hang');
        return;
    }

    if ($c->{closing} eq 'rst') {
        setsockopt($c->{socket}, SOL_SOCKET, SO_LINGER, pack('ii', 1, 0));
    }

    # the end of a good relay
    syswrite($c->{socket}, $c->{tls}->close_notify())
        if $c->{tls} && $c->{closing} eq 'quit';

    $self->note($c, "-- closed by relay ($c->{closing})");
    $self->finalize($c);
}


sub finalize {
    my ($self, $c) = @_;

    return if $c->{gone}++;

    # a message that was never answered; there before the end is seen
    (delete $c->{unanswered})->('') if $c->{unanswered};

    delete $self->{connections}{ $c->{fd} };
    close(delete $c->{socket});

    # the closures in it hold the connection
    delete $c->{resume};
    delete $c->{wake};
}


sub wake_up {
    my ($self) = @_;

    my $now = time();

    for my $c (values %{ $self->{connections} }) {
        next if !defined $c->{wake} || $c->{wake} > $now;

        delete $c->{wake};
        (delete $c->{resume})->();
        $self->process($c);
    }
}


sub later {
    my ($self, $c, $seconds, $code) = @_;

    $c->{wake} = time() + $seconds;
    $c->{resume} = $code;
}


# what is in the buffer, as far as it may be looked at

sub process {
    my ($self, $c) = @_;

    until ($c->{gone} || $c->{closing} || $c->{hung} || defined $c->{wake}) {
        if ($c->{chunk}) {
            # may have its end without further octets
            $self->chunk($c) or last;

        } elsif ($c->{in} eq '') {
            last;

        } elsif (defined $c->{raw}) {
            $self->body($c) or last;

        } else {
            $c->{in} =~ s/^(.*?)\r\n//s or last;
            $self->command($c, $1);
        }
    }

    $self->flush($c) unless $c->{gone};
}


# answers


# Does what the rules of a stage say, or gives the default reply; then calls
# $done with the reply that was given.

sub answer {
    my ($self, $c, $stage, $line, $default, $done) = @_;

    my $action = $self->rule($stage, $line);
    my $position = $c->{octets} - length($c->{in});

    $self->act($c, $action, $default, sub {
        my ($reply) = @_;
        delete $c->{awaited};
        $self->answered($c, $position, $reply);
        $done->($reply) if $done;
    });
}


# where in the stream the command, or the content, ended that was answered so

sub answered {
    my ($self, $c, $position, $reply) = @_;

    my ($code) = $reply =~ /^(\w+)/;
    $self->journal($c, 'answer', "$position " . ($code // 'none'));
}


sub rule {
    my ($self, $stage, $line) = @_;

    for my $rule (@{ $self->{rules}{$stage} // [] }) {
        return $rule if ref $rule ne 'HASH';

        next if defined $rule->{match} && $line !~ /$rule->{match}/;
        next if defined $rule->{times} && $rule->{times}-- <= 0;

        return exists $rule->{action} && !exists $rule->{after}
            ? $rule->{action} : $rule;
    }

    return 'ok';
}


sub act {
    my ($self, $c, $action, $default, $done) = @_;

    if (ref $action eq 'HASH') {
        $self->act_complex($c, $action, $default, $done);

    } elsif ($action eq 'ok') {
        $self->reply($c, $default) if defined $default;
        $done->($default // '');

    } elsif ($action eq 'close' || $action eq 'rst') {
        $c->{closing} = $action;
        $self->flush($c);

    } elsif ($action eq 'hang') {
        $self->note($c, '-- hangs');
        $c->{hung} = 1;

    } elsif ($action eq 'notify') {
        $self->note($c, '-- says goodbye to TLS');
        $self->flush($c);
        $c->{wire} .= $c->{tls}->close_notify() if $c->{tls};
        $c->{hung} = 1;

    } elsif ($action eq 'garbage') {
        $self->emit($c, "\x00\xff\x16\x03 this is no reply\r\n");

    } else {
        $self->reply($c, $action);
        $done->($action);
    }
}


sub act_complex {
    my ($self, $c, $action, $default, $done) = @_;

    my $then = $action->{then} // $action->{action} // 'ok';

    if (defined $action->{delay}) {
        $self->later($c, $action->{delay},
            sub { $self->act($c, $then, $default, $done) });

    } elsif (defined $action->{trickle}) {
        my $reply = $then eq 'ok' ? $default : $then;
        $self->trickle($c, $action->{trickle}, $reply, $done);

    } elsif (defined $action->{send}) {
        $self->emit($c, $action->{send});
        $c->{closing} = $action->{close} if $action->{close};

    } else {
        my $reply = $action->{reply} // $default;
        $self->reply($c, $reply);
        $c->{closing} = $action->{close} if $action->{close};
        $done->($reply);
    }
}


sub trickle {
    my ($self, $c, $pause, $reply, $done) = @_;

    $self->note($c, "S: $_") for split /\n/, $reply;

    my @octets = split //, wire($reply);
    my $next;

    $next = sub {
        $c->{out} .= shift @octets;
        $self->flush($c);
        return if $c->{gone};

        if (@octets) {
            $self->later($c, $pause, $next);
        } else {
            undef $next;
            $done->($reply);
        }
    };

    $self->later($c, $pause, $next);
}


sub reply {
    my ($self, $c, $reply) = @_;

    $self->note($c, "S: $_") for split /\n/, $reply;
    $c->{out} .= wire($reply);
    $c->{closing} = 'close' if $reply =~ /^421/;
}


sub emit {
    my ($self, $c, $octets) = @_;

    my $shown = $octets;
    $shown =~ s/([^ -~])/sprintf('\\x%02x', ord $1)/ge;
    $self->note($c, "S: [$shown]");
    $c->{out} .= $octets;
}


sub wire { return join('', map { "$_\r\n" } split /\r?\n/, $_[0]) }


# commands


sub command {
    my ($self, $c, $line) = @_;

    $self->note($c, "C: $line");
    push @{ $c->{commands} }, $line;

    my $verb = uc(($line =~ /^(\S*)/)[0]);

    $self->fault($c, 'control octets in a command')
        if $line =~ /[\x00-\x1f\x7f]/;
    $self->fault($c, 'a command of more than 512 octets')
        if length($line) > 510 && $verb !~ /^(?:MAIL|RCPT)$/
            && !$c->{auth_wanted};

    delete $c->{awaited};

    # behind BDAT comes its chunk, and what is behind that is looked at there
    if ($verb ne 'BDAT'
        && ($LAST_OF_GROUP{$verb} || !$c->{offered}{PIPELINING}))
    {
        $self->awaits($c, $verb);
    }

    if ($c->{auth_wanted}) {
        $self->auth_answer($c, $line);
        return;
    }

    my $handler = $COMMANDS{$verb};

    if (!$handler) {
        $self->answer($c, 'unknown', $line, '500 5.5.2 Command unknown');
        return;
    }

    $handler->($self, $c, $line);
}


sub awaits {
    my ($self, $c, $what) = @_;

    $c->{awaited} = $what;
    $self->fault($c, "octets before the reply to $what") if $c->{in} ne '';
}


sub reset_transaction {
    my ($c) = @_;

    delete @$c{qw(from mail_parameters binary content chunks failed)};
    $c->{rcpts} = [];
    $c->{rcpt_parameters} = [];
}


sub command_ehlo {
    my ($self, $c, $line) = @_;

    my ($verb, $name) = $line =~ /^(\S+)\s*(.*)/;
    my @lines = ($self->{hostname});
    push @lines, grep { !$c->{tls} || $_ ne 'STARTTLS' }
        @{ $self->{extensions} } if uc $verb eq 'EHLO';
    my $last = pop @lines;
    my $reply = join('', map { "250-$_\n" } @lines) . "250 $last";

    $self->answer($c, 'ehlo', $line, $reply, sub {
        my ($reply) = @_;
        return unless $reply =~ /^250/;
        $c->{helo} = $name;
        $c->{offered} = uc $verb eq 'EHLO' ? offered($reply) : {};
        reset_transaction($c);
    });
}


# the names of the extensions, as they were told

sub offered {
    my ($reply) = @_;

    my ($first, @lines) = split /\r?\n/, $reply;
    return { map { /^250[- ](\S+)/ ? (uc $1 => 1) : () } @lines };
}


sub command_xclient {
    my ($self, $c, $line) = @_;

    my $default = "220 $self->{hostname} ESMTP";

    $default = '550 5.7.0 Error: insufficient authorization'
        unless $c->{offered}{XCLIENT};
    $default = '503 5.5.1 Error: MAIL transaction in progress'
        if defined $c->{from};

    $self->answer($c, 'xclient', $line, $default, sub {
        return unless $_[0] =~ /^2/;

        for my $attribute (split ' ', $line =~ s/^\S+\s*//r) {
            my ($name, $value) = split /=/, $attribute, 2;
            $value =~ s/\+([0-9A-F]{2})/chr hex $1/ge;
            $c->{xclient}{ uc $name } = $value;
        }

        delete $c->{helo};
        reset_transaction($c);
    });
}


# RFC 3207: what was said before is forgotten

sub command_starttls {
    my ($self, $c, $line) = @_;

    my $default = '220 2.0.0 Ready to start TLS';

    if (!$c->{offered}{STARTTLS}) {
        $self->fault($c, 'STARTTLS is not offered');
        $default = '502 5.5.1 Error: command not implemented';
    }

    my $rule = $self->rule('starttls', $line);
    my ($injected, $along) = ref $rule eq 'HASH'
        ? @$rule{qw(inject along)} : ();

    $self->answer($c, 'starttls', $line, $default, sub {
        return unless $_[0] =~ /^220/;

        $c->{out} .= $along // '';

        # the reply itself goes out in clear
        $self->flush($c);
        return if $c->{gone};

        delete @$c{qw(helo auth)};
        $c->{offered} = {};
        $c->{xclient} = {};
        reset_transaction($c);
        $self->begin_tls($c, $injected);
    });
}


sub command_auth {
    my ($self, $c, $line) = @_;

    my ($mechanism, $initial) = $line =~ /^AUTH\s+(\S+)\s*(\S*)$/i;

    if ($self->{users} && !$c->{offered}{AUTH}) {
        $self->fault($c, 'AUTH is not offered');
    }

    if (!$self->{users}) {
        # anybody may log in
        $c->{auth_wanted} = 1;
        $initial ne '' ? $self->auth_answer($c, $initial)
                       : $self->reply($c, '334 ');
        return;
    }

    $c->{sasl} = MailPolicy::Relay::Sasl->new($mechanism,
        users => $self->{users}, scram => $self->{scram} // {});

    if (!$c->{sasl}) {
        $self->answer($c, 'auth', $line, '504 5.5.4 Unknown mechanism');
        return;
    }

    $c->{auth_wanted} = 1;
    $self->auth_answer($c, $initial eq '' ? undef : $initial);
}


sub auth_answer {
    my ($self, $c, $response) = @_;

    my $reply = '235 2.7.0 Authentication successful';
    my $user = $response;

    if ($c->{sasl}) {
        my ($what, $text) = $c->{sasl}->take(
            defined $response ? decode_base64($response) : undef);

        $self->fault($c, $c->{sasl}{fault}) if $c->{sasl}{fault};

        if ($what eq 'challenge') {
            $self->answer($c, 'challenge', $response // '',
                '334 ' . encode_base64($text, ''));
            return;
        }

        $user = $text;
        $reply = '535 5.7.8 Error: authentication failed' if $what ne 'yes';
    }

    delete $c->{auth_wanted};
    delete $c->{sasl};

    $self->answer($c, 'auth', $response // '', $reply,
        sub { $c->{auth} = $user if $_[0] =~ /^235/ });
}


sub command_mail {
    my ($self, $c, $line) = @_;

    my $default = '250 2.1.0 Ok';
    my ($from, $text) = path($line);
    my %parameter = map { @$_ } parameters($text);

    # for its recipients, which may come before it is answered
    $c->{utf8} = exists $parameter{SMTPUTF8};
    $self->fault($c, $_)
        for wrong_parameters($line, $c->{offered}, $c->{utf8});

    $default = '503 5.5.1 Error: nested MAIL command' if defined $c->{from};
    $default = '503 5.5.1 Error: send HELO/EHLO first'
        unless defined $c->{helo};

    $self->answer($c, 'mail', $line, $default, sub {
        return unless $_[0] =~ /^250/;
        reset_transaction($c);
        ($c->{from}, $c->{mail_parameters}) = ($from, $text);
        $c->{binary} = uc($parameter{BODY} // '') eq 'BINARYMIME';
    });
}


sub command_rcpt {
    my ($self, $c, $line) = @_;

    my $default = defined $c->{from}
        ? '250 2.1.5 Ok' : '503 5.5.1 Error: need MAIL command';

    $self->fault($c, $_)
        for wrong_parameters($line, $c->{offered}, $c->{utf8});

    if (defined $c->{content}) {
        $self->fault($c, 'RCPT after BDAT');
        $default = '503 5.5.1 Error: RCPT after BDAT';
    }

    $self->answer($c, 'rcpt', $line, $default, sub {
        return unless $_[0] =~ /^25/;
        my ($to, $parameters) = path($line);
        push @{ $c->{rcpts} }, $to;
        push @{ $c->{rcpt_parameters} }, $parameters;
    });
}


sub command_data {
    my ($self, $c, $line) = @_;

    my $default = '354 End data with <CR><LF>.<CR><LF>';

    $default = '554 5.5.1 Error: no valid recipients'
        unless @{ $c->{rcpts} // [] };
    $default = '503 5.5.1 Error: need RCPT command' unless defined $c->{from};

    # RFC 3030: after either the transaction is good for nothing but RSET
    if (defined $c->{content} || $c->{binary}) {
        my $why = defined $c->{content} ? 'DATA after BDAT'
                                        : 'DATA with BINARYMIME';
        $self->fault($c, $why);
        $c->{failed} = 1;
        $default = "503 5.5.1 Error: $why";
    }

    $self->answer($c, 'data', $line, $default, sub {
        return unless $_[0] =~ /^354/;
        $c->{raw} = '';
        delete $c->{complete};
        $c->{body_rule} = $self->rule('body', '');
    });
}


sub command_rset {
    my ($self, $c, $line) = @_;

    $self->answer($c, 'rset', $line, '250 2.0.0 Ok',
        sub { reset_transaction($c) });
}


sub command_noop {
    my ($self, $c, $line) = @_;

    $self->answer($c, 'noop', $line, '250 2.0.0 Ok');
}


sub command_quit {
    my ($self, $c, $line) = @_;

    $self->answer($c, 'quit', $line, '221 2.0.0 Bye', sub {
        $c->{closing} = 'quit';
    });
}


# BDAT: the octets are taken whatever the reply will be


sub command_bdat {
    my ($self, $c, $line) = @_;

    if ($line !~ /^BDAT (\d{1,18})( LAST)?$/i) {
        # nobody knows where its chunk ends
        $self->fault($c, 'BDAT that cannot be read');
        $self->reply($c, '501 5.5.4 Syntax: BDAT size [LAST]');
        $c->{closing} = 'close';
        return;
    }

    $c->{chunk} = {
        line    => $line,
        left    => $1,
        size    => $1,
        last    => defined $2,
        refusal => $self->chunk_refusal($c),
        command => $c->{octets} - length($c->{in}),
    };

    if (!$c->{chunk}{refusal} && !defined $c->{content}) {
        $c->{content} = '';
        $c->{chunks} = [];
        $c->{body_rule} = $self->rule('body', '');
    }
}


# the reply to a chunk that has no place here

sub chunk_refusal {
    my ($self, $c) = @_;

    if (!$c->{offered}{CHUNKING}) {
        $self->fault($c, 'BDAT without CHUNKING');
        return '503 5.5.1 Error: CHUNKING is not offered';
    }

    # chunks behind a refused one may have been in the pipeline
    if ($c->{failed}) {
        $self->fault($c, 'BDAT after a refused chunk')
            unless $c->{offered}{PIPELINING};
        return '503 5.5.1 Error: the transaction has failed';
    }

    return '503 5.5.1 Error: need RCPT command' unless defined $c->{from};
    return '554 5.5.1 Error: no valid recipients' unless @{ $c->{rcpts} };
    return undef;
}


# false if more is needed, or a rule stops the reading

sub chunk {
    my ($self, $c) = @_;

    my $chunk = $c->{chunk};
    my $octets = substr($c->{in}, 0, $chunk->{left}, '');

    $chunk->{left} -= length($octets);

    if (!$chunk->{refusal}) {
        $c->{content} .= $octets;
        return 0 if $self->body_rule($c);
    }

    return 0 if $chunk->{left};

    delete $c->{chunk};
    $self->note($c, "-- chunk of $chunk->{size} octets");
    $self->awaits($c, 'BDAT') unless $c->{offered}{PIPELINING};
    $self->end_of_chunk($c, $chunk);
    return 1;
}


sub end_of_chunk {
    my ($self, $c, $chunk) = @_;

    if ($chunk->{refusal}) {
        # no rule makes it good
        delete $c->{awaited};
        $self->answered($c, $chunk->{command}, 'refused');
        $self->reply($c, $chunk->{refusal});
        return;
    }

    push @{ $c->{chunks} }, $chunk->{size};

    if ($chunk->{last}) {
        my %content = (bdat => 1, chunks => $c->{chunks},
            raw => $c->{content}, data => $c->{content});
        $self->end_of_content($c, $chunk->{line}, %content);
        return;
    }

    $self->answer($c, 'bdat', $chunk->{line},
        "250 2.0.0 $chunk->{size} octets received",
        sub { $c->{failed} = 1 unless $_[0] =~ /^2/ });
}


# the body: only CRLF "." CRLF ends it


sub body {
    my ($self, $c) = @_;

    # the end may have begun in what is there already
    my $from = length($c->{raw}) > 4 ? length($c->{raw}) - 4 : 0;

    $c->{raw} .= $c->{in};
    $c->{in} = '';

    return 0 if $self->body_rule($c);

    my $end = -1;

    if ($from == 0 && substr($c->{raw}, 0, 3) eq ".\r\n") {
        $end = 3;
    } else {
        my $at = index($c->{raw}, "\r\n.\r\n", $from);
        $end = $at + 5 if $at >= 0;
    }

    return 0 if $end < 0;

    $c->{in} = substr($c->{raw}, $end);
    $c->{raw} = substr($c->{raw}, 0, $end);
    $c->{complete} = 1;

    $c->{awaited} = 'the end of data' unless $c->{offered}{PIPELINING};
    $self->end_of_content($c, '',
        raw => $c->{raw}, data => decoded($c->{raw}));
    return 1;
}


# true if a rule stops the reading

sub body_rule {
    my ($self, $c) = @_;

    my $rule = $c->{body_rule};
    return 0 if ref $rule ne 'HASH' && $rule eq 'ok';

    my $after = ref $rule eq 'HASH' ? $rule->{after} // 0 : 0;
    my $size = length($c->{raw} // $c->{content});
    return 0 if $size < $after;

    my $action = ref $rule eq 'HASH'
        ? $rule->{action} // { delay => $rule->{delay} } : $rule;

    $c->{body_rule} = 'ok';
    $self->note($c, "-- body rule after $size octets");

    if (ref $action eq 'HASH' && defined $action->{delay}) {
        # what is there already is looked at again then
        $c->{deaf} = 1;
        ($c->{in}, $c->{raw}) = ($c->{raw}, '') if defined $c->{raw};
        $self->later($c, $action->{delay}, sub {
            delete $c->{deaf};
            $self->act($c, $action->{then}, undef, sub { })
                if defined $action->{then};
        });
        return 1;
    }

    $c->{deaf} = 1 if $action eq 'hang';
    $self->act($c, $action, undef, sub { });

    return $c->{gone} || $c->{closing} || $c->{hung} ? 1 : 0;
}


sub end_of_content {
    my ($self, $c, $line, %content) = @_;

    my $queue_id = sprintf('%s%06d', uc $self->{name}, $self->{stored} + 1);

    $self->note($c, '-- body of ' . length($content{raw}) . ' octets');

    my $message = {
        from            => $c->{from},
        mail_parameters => $c->{mail_parameters},
        rcpts           => [ @{ $c->{rcpts} } ],
        rcpt_parameters => [ @{ $c->{rcpt_parameters} } ],
        %content,
        ended           => clock_gettime(CLOCK_MONOTONIC),
        helo            => $c->{helo},
        xclient         => { %{ $c->{xclient} } },
        auth            => $c->{auth},
        commands        => $c->{commands},
        connection      => $c->{number},
        queue_id        => $queue_id,
        accepted        => 0,
        reply           => '',
    };

    $c->{commands} = [];
    reset_transaction($c);

    # reads commands again, but not before the reply
    delete $c->{raw};

    $c->{unanswered} = sub {
        my ($reply) = @_;
        $message->{reply} = $reply;
        $message->{answered} = clock_gettime(CLOCK_MONOTONIC);
        $message->{accepted} = $reply ne ''
            && !(grep { !/^250/ } split /\n/, $reply) ? 1 : 0;
        $self->store($c, $message);
    };

    # a reply is flushed later, so the message is there when it is seen
    $self->answer($c, 'dot', $line, "250 2.0.0 Ok: queued as $queue_id", sub {
        (delete $c->{unanswered})->($_[0]);
    });

    (delete $c->{unanswered})->('') if $c->{hung} && $c->{unanswered};
}


sub decoded {
    my ($raw) = @_;

    my $data = substr($raw, 0, -3);
    $data =~ s/(\A|\r\n)\./$1/g;
    return $data;
}


sub store {
    my ($self, $c, $message) = @_;

    $self->{stored}++;
    $self->{accepted}++ if $message->{accepted};
    $self->journal($c, 'message', Storable::nfreeze($message))
        if $self->{keep};
}


1;
