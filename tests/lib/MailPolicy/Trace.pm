package MailPolicy::Trace;

# The trace checker: what must be true of any test, whatever went wrong in
# it, seen from what clients said and were told, what relays got, and what
# was logged.
#
#     my $t = MailPolicy->new(record => 1);
#     ...
#     is(join("\n", trace_violations($t, relays => [ $relay ])), '', 'TRACE');
#     $t->done();
#
#     order  no request is answered before it was there, and nothing else is
#     I2     for each 250 to the end of a message there is one message of its
#            own at a relay, answered with 2xx, before
#     I3     for each message that came to its end at a relay there is one of
#            its own of a client, with the same envelope and content, that
#            came to its end before
#     I5     for each transaction there is one line in the access log, which
#            says of it what its client was told; and at the most one for a
#            session that had none
#     I6     no secret in any log
#
# All clients of all relays have to be recorded.  Further arguments: clients
# (records as of MailPolicy::Client, all of $t by default), secrets (a list),
# log (the access log's name, "access.log"; undef for none), nginx (the
# instance's name), wait (seconds that last lines of the log may take, 5).
#
# I5 finds a client's lines by the number of its connection, which it takes
# from nginx's error log: at least the level "info" has to be logged.

use strict;
use warnings;

use Digest::MD5 qw(md5_hex);
use Exporter qw(import);
use MIME::Base64 qw(encode_base64);

use MailPolicy::Trace::Dialogue qw(exchanges transactions);

our @EXPORT_OK = qw(trace_violations);

# of the end of a message, by what the client was told of it
my %OUTCOME = (
    2 => [ qw(accepted delivered_unacked) ],
    4 => [ qw(deferred unknown) ],
    5 => [ qw(rejected) ],
);

my @ANY = qw(accepted delivered_unacked unknown deferred rejected aborted);


sub trace_violations {
    my ($t, %option) = @_;

    $t->disconnect();

    my @clients = map { client($_) } @{ $option{clients} // [ $t->records() ] };
    my @relayed = sort { $a->{ended} <=> $b->{ended} }
        map { $_->received() } @{ $option{relays} // [] };

    return (
        map({ order($_) } @clients),
        accepted_without_relay(\@clients, \@relayed),
        relayed_without_client(\@clients, \@relayed),
        exists $option{log} && !defined $option{log}
            ? () : log_violations($t, \@clients, %option),
        secrets($t, @{ $option{secrets} // [] }),
    );
}


sub client {
    my ($record) = @_;

    my @exchanges = exchanges($record);

    return {
        name         => $record->{name} // $record->{local} // 'a client',
        record       => $record,
        exchanges    => \@exchanges,
        transactions => [ transactions(@exchanges) ],
    };
}


sub order {
    my ($client) = @_;

    my ($greeting, @exchanges) = @{ $client->{exchanges} };
    my @wrong;

    for my $exchange (@exchanges) {
        my $reply = $exchange->{reply};
        my $what = "order: $client->{name}: \"" . ($reply // '') . '"';

        if (!defined $reply || $reply =~ /^421 /) {
            # may come at any time

        } elsif ($exchange->{verb} eq '') {
            push @wrong, "$what to nothing";

        } elsif ($exchange->{told} < $exchange->{sent}) {
            push @wrong, "$what before the end of $exchange->{verb}";

        } elsif ($reply !~ /\A(?:[2-5]\d\d-[ -~\t]*\n)*[2-5]\d\d [ -~\t]*\z/) {
            push @wrong, "$what is no reply";
        }
    }

    return @wrong;
}


# I2


sub accepted_without_relay {
    my ($clients, $relayed) = @_;

    my (%by_envelope, %by_queue_id, @wrong);

    for my $message (sort { $a->{answered} <=> $b->{answered} }
                     grep { taken($_) } @$relayed)
    {
        push @{ $by_envelope{ envelope($message) } }, $message;
        $by_queue_id{ $message->{queue_id} } = $message;
    }

    my %claimed;

    for my $told (sort { $a->{end}{told} <=> $b->{end}{told} }
                  told_accepted(@$clients))
    {
        my $envelope = envelope($told);
        my ($id) = $told->{end}{reply} =~ /queued as (\w+)/;
        my $same = $by_envelope{$envelope} // [];
        my $message = defined $id ? $by_queue_id{$id} : undef;

        shift @$same while @$same && $claimed{ $same->[0] };
        $message //= $same->[0];

        if (!$message || envelope($message) ne $envelope) {
            push @wrong, "I2: 250 to $envelope, and no relay took it";

        } elsif ($claimed{$message}++) {
            push @wrong, "I2: 250 to $envelope, and another one has its message";

        } elsif ($message->{answered} > $told->{end}{told}) {
            push @wrong, "I2: 250 to $envelope before the relay had said so";
        }
    }

    return @wrong;
}


sub taken {
    my ($message) = @_;

    return $message->{reply} ne ''
        && !grep { !/^2\d\d/ } split /\n/, $message->{reply};
}


sub told_accepted {
    return grep { $_->{end} && ($_->{end}{reply} // '') =~ /^2/ }
        map { @{ $_->{transactions} } } @_;
}


sub envelope {
    my ($message) = @_;

    return join(' ', map { "<$_>" } $message->{from}, @{ $message->{rcpts} });
}


# I3


sub relayed_without_client {
    my ($clients, $relayed) = @_;

    my (%sent, %envelopes, @wrong);

    for my $said (sort { $a->{end}{sent} <=> $b->{end}{sent} }
                  grep { $_->{end} } map { @{ $_->{transactions} } } @$clients)
    {
        $envelopes{ $said->{from} }++;
        push @{ $sent{ identity($said, $said->{content}) } }, $said;
    }

    for my $message (@$relayed) {
        my $said = shift @{ $sent{ identity($message, $message->{data}) } // [] };
        my $what = "I3: $message->{queue_id} of " . envelope($message);

        if (!$said) {
            push @wrong, $what . ($envelopes{ $message->{from} }
                ? ' is no content that its client sent once more'
                : ' is of nobody');

        } elsif ($said->{end}{sent} > $message->{ended}) {
            push @wrong, "$what ended before its client ended it";

        } elsif ($said->{bdat} && $message->{bdat}
                 && $said->{content} ne $message->{data})
        {
            push @wrong, "$what is not what was in its client's chunks";
        }
    }

    return @wrong;
}


# Envelope and content, the latter with line ends as a relay may get them:
# policy_bare_newline, and what becomes of chunks where there is no BDAT.

sub identity {
    my ($message, $content) = @_;

    $content =~ s/\r(?!\n)/ /g;
    $content =~ s/(?<!\r)\n/\r\n/g;
    $content .= "\r\n" unless $content =~ /(?:\A|\r\n)\z/;

    return envelope($message) . ' ' . md5_hex($content);
}


# I5


sub log_violations {
    my ($t, $clients, %option) = @_;

    my @wrong;

    # of clients that are gone, the last lines may still be to come
    $t->wait_for(sub {
        my %lines = lines($t, $option{log});
        my %number = connections($t, $option{nginx});

        @wrong = map { client_log($_, \%number, \%lines) } @$clients;

        return !@wrong;
    }, $option{wait} // 5);

    return @wrong;
}


# those of each connection, in order

sub lines {
    my ($t, $log) = @_;

    my %lines;

    push @{ $lines{ $_->{connection} } }, $_
        for sort { $a->{transaction} <=> $b->{transaction} }
            $t->access_log($log);

    return %lines;
}


# the numbers of the connections of "client server", in order

sub connections {
    my ($t, $nginx) = @_;

    my %number;

    open(my $log, '<', $t->instance($nginx)->{log}) or return;

    while (my $line = <$log>) {
        push @{ $number{"$2 $3"} }, $1
            if $line =~ /\*(\d+) client (\S+) connected to (\S+)$/;
    }

    return map { $_ => [ @{ $number{$_} } ] } keys %number;
}


sub client_log {
    my ($client, $number, $lines) = @_;

    my $record = $client->{record};
    my $numbers = $number->{"$record->{local} $record->{server}"} // [];
    my $connection = shift @$numbers;
    my @transactions = @{ $client->{transactions} };

    if (!defined $connection) {
        return @transactions
            ? "I5: $client->{name} is not in the error log" : ();
    }

    my $name = "I5: $client->{name} (connection $connection)";
    my @all = @{ $lines->{$connection} // [] };
    my @lines = grep { $_->{transaction} } @all;
    my @wrong;

    # a session that had none may have one of its own

    push @wrong, "$name: a line too many, of the session"
        if @all - @lines > (@lines ? 0 : 1);

    for my $transaction (@transactions) {
        my $what = "$name, " . envelope($transaction);

        # it may have come too late to be one
        next if $transaction->{unsure}
            && (!@lines || $lines[0]{sender} ne $transaction->{from});

        my $line = shift @lines;

        push @wrong, $line
            ? map({ "$what: $_" } line_violations($transaction, $line))
            : "$what: no line";
    }

    push @wrong, map { "$name: a line too many, of <$_->{sender}>" } @lines;
    return @wrong;
}


sub line_violations {
    my ($transaction, $line) = @_;

    my ($outcome, @wrong) = ($line->{outcome});
    my @allowed = outcomes($transaction);

    push @wrong, "sender <$line->{sender}>"
        if $line->{sender} ne $transaction->{from};

    push @wrong, "$outcome, and the client was told "
        . join(' ', @{ $transaction->{told} })
        unless grep { $_ eq $outcome } @allowed;

    my @rcpts = @{ $transaction->{rcpts} };
    splice(@rcpts, 100) if @rcpts > 100;

    push @wrong, "recipients @{ $line->{to} }"
        if !$transaction->{unsure} && "@{ $line->{to} }" ne "@rcpts";

    return @wrong;
}


# what may have become of it

sub outcomes {
    my ($transaction) = @_;

    my $end = $transaction->{end};
    my $mail = $transaction->{mail}{reply} // '250';

    return @ANY if $end && !defined $end->{reply};
    return @{ $OUTCOME{ substr($end->{reply}, 0, 1) } // [] }
        if $end && $end->{reply} !~ /^421/;
    return @{ $OUTCOME{ substr($mail, 0, 1) } // [] } if $mail !~ /^2/;

    # given up: with what was refused last, or without
    my %class = map { substr($_, 0, 1) => 1 } @{ $transaction->{told} };

    return ('aborted', $class{4} || $transaction->{unsure} ? 'deferred' : (),
        $class{5} || $transaction->{unsure} ? 'rejected' : ());
}


# I6


sub secrets {
    my ($t, @secrets) = @_;

    my @logs = grep { -f } map { glob($t->dir() . "/$_") } qw(*.log *.out);
    my @wrong;

    for my $file (@logs) {
        my $text = $t->read_file($file);
        my $name = substr($file, length($t->dir()) + 1);

        for my $secret (@secrets) {
            push @wrong, "I6: \"$secret\" is in $name"
                if grep { index($text, $_) >= 0 } forms($secret);
        }
    }

    return @wrong;
}


# as it is, and what base64 makes of it wherever it stands in a text

sub forms {
    my ($secret) = @_;

    my @forms = ($secret);

    for my $before (0 .. 2) {
        my $text = encode_base64("\0" x $before . $secret, '');

        # characters that hold octets of its neighbours as well
        my $head = (0, 2, 3)[$before];
        my $tail = (0, 3, 2)[ ($before + length $secret) % 3 ];

        push @forms, substr($text, $head, length($text) - $head - $tail);
    }

    return @forms;
}


1;
