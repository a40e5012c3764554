package MailPolicy::Relay;

# A scripted relay: an SMTP server in a process of its own that keeps what it
# was given and misbehaves as told.
#
#     my $relay = $t->run_relay(name => 'a', rcpt => '450 4.2.0 not now');
#     $relay->set(rcpt => { match => qr/bob@/, action => 'close' });
#     $relay->set(rcpt => undef);
#
# Stages: connect tls greeting ehlo starttls xclient auth mail rcpt data bdat body dot
# rset noop quit; auth is the last reply to AUTH, challenge one of its 334; bdat is the reply to a chunk, dot that to the end of the
# message, "BDAT n LAST" as well.  Actions:
#
#     '450 4.2.0 text'        that reply (421 closes behind it)
#     "250-a\n250 b"          a reply of several lines
#     'ok'                    what a good relay does
#     'close', 'rst'          FIN or RST, behind replies that are due
#     'hang'                  says nothing any more (body: reads no more)
#     'refuse'                connect only: does not listen
#     'garbage'               octets that are no reply
#     'notify'                under TLS: says goodbye to it, and no more
#     { send => octets }      those octets
#     { reply => '250 x', close => 'close' }     or 'rst', 'hang' behind it;
#                                                also with send
#     { delay => seconds, then => action }
#     { trickle => seconds, then => reply }      a pause before each octet
#     { match => regex, action => ... }          of the command's line
#     { times => n, action => ... }              the first n times only
#     { after => octets, action => ... }         body only: of the content,
#                                                DATA's or all chunks'; an action
#                             { delay => seconds, then => ... } does not read
#     [ rule, rule, ... ]                        the first that matches
#
# tls is where a handshake begins: what is done there is done in clear.
# starttls => { inject => octets } sends them in clear behind its 220;
# starttls => { along => octets } in the same segment as that.
#
# Where no rule matches, a good relay answers.  Further settings:
# extensions => [ 'PIPELINING', ... ] what its EHLO offers, hostname,
# store => 0 (keeps nothing, for speed), address => '127.0.0.2', certificate => { cert => file,
# key => file, at_once => 1, ... } for TLS, see MailPolicy::Relay::Tls; at_once
# is TLS without STARTTLS; proxy_protocol => 1: its header comes first;
# users => { name => password } for AUTH, which anybody may do without, and
# scram => { ... } for its faults, see MailPolicy::Relay::Sasl.
#
# What a connection may use is what its own EHLO was told, also where that
# was a rule's reply: BDAT, parameters, addresses that are not ASCII, and
# commands that do not wait, are faults without it.

use strict;
use warnings;

use Errno ();
use IO::Handle;
use IO::Socket::INET;
use JSON::PP ();
use Socket qw(AF_UNIX PF_UNSPEC SOCK_STREAM);
use Time::HiRes qw(sleep time);

use MailPolicy::Process qw(fork_server stop_process);
use MailPolicy::Relay::Journal;
use MailPolicy::Relay::Server;


sub new {
    my ($class, %option) = @_;

    my $self = bless {
        name => delete $option{name},
        port => delete $option{port},
        address => delete $option{address} // '127.0.0.1',
        dir  => delete $option{dir},
        journals => [],
    }, $class;

    $self->{behaviour} = { %option };
    $self->{store} = "$self->{dir}/relay-$self->{name}";
    mkdir $self->{store} or $!{EEXIST} or die "$self->{store}: $!\n";

    $self->start();
    return $self;
}


sub name { return $_[0]{name} }
sub port { return $_[0]{port} }
sub pid  { return $_[0]{pid} }


sub start {
    my ($self) = @_;

    socketpair(my $ours, my $theirs, AF_UNIX, SOCK_STREAM, PF_UNSPEC)
        or die "socketpair: $!\n";

    # one for each time that it is started
    my $journal = "$self->{store}/journal-" . @{ $self->{journals} };
    push @{ $self->{journals} }, MailPolicy::Relay::Journal->reader($journal);

    my $server = MailPolicy::Relay::Server->new(
        name    => $self->{name},
        port    => $self->{port},
        address => $self->{address},
        store   => $self->{store},
        control => $theirs,
        journal_file => $journal,
    );

    $server->listen();

    $self->{pid} = fork_server("$self->{store}/log",
        [ $theirs, $server->listener() ], sub { $server->run() });

    $server->unlisten();
    close($theirs);

    $ours->autoflush(1);
    $self->{control} = $ours;
    $self->set(%{ $self->{behaviour} });
}


# its connections are cut

sub stop {
    my ($self) = @_;

    my $pid = delete $self->{pid} or return;

    close(delete $self->{control});
    stop_process($pid, 'TERM', 5);
}


sub signal { kill($_[1], $_[0]{pid}) if $_[0]{pid} }


# Changes the behaviour: stage => action, ...; undef takes a rule away.  In
# force when this returns, for whatever the relay reads from then on.

sub set {
    my ($self, %change) = @_;

    for my $stage (keys %change) {
        $self->{behaviour}{$stage} = $change{$stage};
    }

    $self->_ask({ set => plain(\%change) });
}


# { open => connections now, total => connections ever, messages => accepted }

sub stats { return $_[0]->_ask({ stats => 1 }) }


sub _ask {
    my ($self, $question) = @_;

    my $control = $self->{control} or die "relay $self->{name} is stopped\n";
    my $vector = '';

    print $control JSON::PP::encode_json($question), "\n";

    vec($vector, fileno($control), 1) = 1;
    select($vector, undef, undef, 10) > 0
        or die "relay $self->{name} does not answer\n";

    my $answer = <$control>;
    die "relay $self->{name} is gone\n" unless defined $answer;
    return JSON::PP::decode_json($answer);
}


# regular expressions as strings, for the way through JSON

sub plain {
    my ($value) = @_;

    return "$value" if ref $value eq 'Regexp';
    return [ map { plain($_) } @$value ] if ref $value eq 'ARRAY';
    return { map { $_ => plain($value->{$_}) } keys %$value }
        if ref $value eq 'HASH';
    return $value;
}


# All message contents that came to their end, in order: { from, rcpts, data
# (decoded), raw (as received, with the end of data), helo, xclient, auth,
# mail_parameters, rcpt_parameters (a list, as rcpts), commands (since the
# message before), connection (number), reply, accepted, ended and answered
# (by the monotonic clock) }.  Of BDAT: bdat => 1, chunks => [ sizes ], data
# and raw are the octets.

sub received { return map { $_->messages() } @{ $_[0]{journals} } }


# those that were answered with 250

sub messages { return grep { $_->{accepted} } $_[0]->received() }


# waits until there are at least $count of them

sub wait_messages {
    my ($self, $count, $timeout) = @_;

    my $end = time() + ($timeout // 10);
    my @messages;

    while ((@messages = $self->messages()) < $count && time() < $end) {
        sleep(0.02);
    }

    return @messages;
}


# What was said on each connection, in order: lines "C: ...", "S: ...",
# "-- remark"; bodies as a remark.

sub transcripts {
    return map { $_->{transcript} } $_[0]->_connections();
}

# what came in on each connection, to the octet

sub streams {
    return map {
        my $journal = $_;
        map { $journal->stream($_) } $journal->connections();
    } @{ $_[0]{journals} };
}

# for each connection { position in the stream => code }: how what ended there
# was answered; "refused" where the command of a chunk ended that was taken
# for nothing

sub answers { return map { $_->{answers} } $_[0]->_connections() }

sub _connections { return map { $_->connections() } @{ $_[0]{journals} } }


# the commands that were given in clear, on all connections

sub said_in_clear {
    my ($self) = @_;

    return map { s/^-- TLS .*//msr =~ /^C: (.*)$/mg } $self->transcripts();
}

# where each connection came from, and what the PROXY protocol said of it:
# version, v2's command, addresses and ports

sub sources { return map { /^-- from (.*)$/mg } $_[0]->transcripts() }
sub proxied { return map { /^-- PROXY (.*)$/mg } $_[0]->transcripts() }

# what was agreed on, for each connection with TLS: "TLSv1.3 new name=...
# cipher=... client=..."

sub tls { return map { /^-- TLS (.*)$/mg } $_[0]->transcripts() }


# what clients did against the protocol

sub faults {
    my ($self) = @_;

    return map { /^-- fault: (.*)$/mg } $self->transcripts();
}


1;
