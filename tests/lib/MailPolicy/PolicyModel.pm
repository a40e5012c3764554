package MailPolicy::PolicyModel;

# What "protocol policy" is to answer to the octets of a connection, and what
# that costs: written from the README, of a server with
#
#     map  $sasl_username  $blocked  { ~^no-  $sasl_username; }
#     policy_limit  user   key=$sasl_username  messages=M recipients=M;
#     policy_limit  none   key=$blocked        messages=blocked;
#
# with M = MAX, which nothing but a large number of recipients exceeds.
#
#     my $model = MailPolicy::PolicyModel->new();
#     my ($answers, $end) = $model->connection($octets);
#     $model->used();       { key as in Redis => [ messages, recipients ] }
#
# The end is "bad" (closed, and logged), "part" (of a request) or "idle".

use strict;
use warnings;

use Digest::SHA qw(sha256_hex);

use constant {
    MAX   => '100000000/1h',
    MOST  => 100_000_000,
    DUNNO => "action=DUNNO\n\n",
    NONE  => qq{action=DEFER_IF_PERMIT 4.7.1 Rate limit "none" exceeded\n\n},
    MANY  => qq{action=DEFER_IF_PERMIT 4.7.1 Rate limit "user" exceeded\n\n},
};


sub new { return bless { used => {}, notes => {} }, $_[0] }


sub used { return $_[0]{used} }


sub connection {
    my ($self, $octets) = @_;

    my $answers = '';
    my $message;

    while (1) {
        my ($what, $attribute, $length) = request($octets);

        return ($answers, $what) if $what ne 'request';

        # first wins
        return ($answers, 'bad')
            if ($attribute->{request} // '') ne 'smtpd_access_policy';

        substr($octets, 0, $length, '');
        $answers .= $self->answer(\$message, $attribute);
    }
}


# ("request", attributes, octets), or the end

sub request {
    my ($octets) = @_;

    my (%attribute, $count);
    my $length = 0;

    while ($octets =~ /\G([^\n]*)(\n?)/gc) {
        my ($line, $end) = ($1, $2);

        $length += length($line) + length($end);

        return 'bad' if $line =~ /\0|^=/ || length($line) > 4095 + ($end eq '')
            || $length > 65536;
        return $length == 65536 ? 'bad' : $length ? 'part' : 'idle'
            if $end eq '';
        return ('request', \%attribute, $length) if $line eq '';

        my ($name, $value) = $line =~ /^([^=]+)=(.*)/s or return 'bad';

        return 'bad' if ++$count > 128;
        $attribute{$name} //= $value;
    }
}


sub answer {
    my ($self, $message, $attribute) = @_;

    my ($state, $instance, $recipient, $login, $count, $size)
        = map { $_ // '' } @$attribute{qw(protocol_state instance recipient
            sasl_username recipient_count size)};

    return DUNNO unless $state =~ /^(?:RCPT|DATA|END-OF-MESSAGE)\z/;

    $$message = $self->message($instance)
        if !$$message || $instance eq '' || $instance ne $$message->{instance};

    my $m = $$message;
    my $last = $m->{last};

    return $last->{answer}
        if $last && $last->{state} eq $state
        && $last->{recipient} eq $recipient
        && ($state eq 'RCPT' || $last->{answer} ne DUNNO);

    # that passed last, before other messages came between
    return DUNNO
        if $state eq 'RCPT' && defined $m->{heard} && $m->{heard} eq $recipient;

    my $due = 1;

    if ($state ne 'RCPT') {
        $due = number($count) || 1;
        $due = $due > $m->{recipients} ? $due - $m->{recipients} : 0;

        # octets that a message had not which came from elsewhere are asked for
        return DUNNO
            if $due == 0 && !($state eq 'END-OF-MESSAGE' && $m->{foreign}
                && number($size) > $m->{octets});
    }

    my $answer = $due ? $self->charge($login, $m->{paid} ? 0 : 1, $due)
        : DUNNO;

    $m->{last} = { state => $state, recipient => $recipient,
                   answer => $answer };

    if ($answer eq DUNNO) {
        $m->{octets} = number($size) || 1 if !$m->{paid};
        $m->{octets} = number($size)
            if $state eq 'END-OF-MESSAGE' && number($size) > $m->{octets};
        $m->{paid} = 1;
        $m->{recipients} += $due;
        delete $m->{heard};
        $self->{notes}{$instance} = [ @$m{qw(recipients octets)}, $recipient ]
            if $instance ne '';
    }

    return $answer;
}


# one that has been paid for is known, whatever came behind it

sub message {
    my ($self, $instance) = @_;

    my $note = $instance eq '' ? undef : $self->{notes}{$instance};

    return { instance => $instance, recipients => 0 } if !$note;
    return { instance => $instance, recipients => $note->[0],
             octets => $note->[1], heard => $note->[2], paid => 1,
             foreign => 1 };
}


sub number {
    my ($text) = @_;

    return 0 if $text =~ /\D/a || $text eq '';

    $text =~ s/^0+(?=.)//;
    return length($text) > 12 ? 1 << 40 : $text;
}


sub charge {
    my ($self, $login, $messages, $recipients) = @_;

    return DUNNO if $login eq '';

    my $used = $self->{used}{ key($login) } //= [ 0, 0 ];

    # of two that refuse, the first one says so
    return MANY if $used->[1] + $recipients > MOST;
    return NONE if $messages && $login =~ /^no-/;

    $used->[0] += $messages;
    $used->[1] += $recipients;
    return DUNNO;
}


sub key {
    my ($login) = @_;

    $login =~ tr/A-Z/a-z/;

    my $key = $login =~ s/([^!-z|~]|%)/sprintf('%%%02X', ord $1)/ger;
    return length($key) > 128 ? 'sha256-' . sha256_hex($login) : $key;
}


1;
