package MailPolicy::FakeRedis;

# A Redis that answers as told, in a process of its own: what a real one
# would not say.  It knows PING, and charge.lua and giveback.lua as they are
# called (EVALSHA, EVAL).  Entries of domains, defaults and plans there are
# none, in any mode.
#
#     my $fake = MailPolicy::FakeRedis->new(dir => ..., port => ...,
#         modes => { good => sub { ... }, ... });
#     $fake->mode('good');
#
# A mode is called with the command's words and returns what is done: a list
# of octets to write, references to numbers (seconds to wait before what
# follows) or to 'HOLD' (until there is another mode), and 'CLOSE'.

use strict;
use warnings;

use Exporter qw(import);
use IO::Socket::INET;
use Time::HiRes qw(sleep time);

use MailPolicy::Process qw(fork_server stop_process);

our @EXPORT_OK = qw(is_charge is_entry integers charged refused nothing);


sub new {
    my ($class, %option) = @_;

    my $self = bless {
        log => "$option{dir}/fake.log", file => "$option{dir}/fake.mode",
        connections => {}, %option,
    }, $class;

    $self->{listener} = IO::Socket::INET->new(
        LocalAddr => '127.0.0.1', LocalPort => $self->{port},
        Proto => 'tcp', Listen => 64, ReuseAddr => 1)
        or die "fake redis: port $self->{port}: $!\n";

    $self->mode($self->{first} // 'good');
    $self->{pid} = fork_server("$self->{dir}/fake.out",
        [ $self->{listener} ], sub { $self->run() });
    close($self->{listener});

    return $self;
}


sub stop { stop_process($_[0]{pid}, 'TERM', 5) }


# in force for all that is read from then on

sub mode {
    my ($self, $mode) = @_;

    open(my $fh, '>', "$self->{file}.new") or die "$self->{file}: $!\n";
    print $fh $mode;
    close($fh);
    rename("$self->{file}.new", $self->{file}) or die "$self->{file}: $!\n";
}


# commands that came in: [ mode, word, word, ... ]

sub commands {
    my ($self) = @_;

    open(my $fh, '<', $self->{log}) or return ();
    return map { chomp; [ split /\t/, $_, -1 ] } grep { /\n\z/ } <$fh>;
}


# answers


sub is_charge { return $_[0] =~ /^EVAL/ && grep { /:limit:/ } @_[3 .. $#_] }

# the question for an entry of a domain, a default or a plan; and that there
# is none
sub is_entry { return $_[0] eq 'HMGET' && $_[1] =~ /:(?:limit|plan):/ }
sub nothing { return '*' . (@_ - 2) . "\r\n" . "\$-1\r\n" x (@_ - 2) }

sub integers { return '*' . @_ . "\r\n" . join('', map { ":$_\r\n" } @_) }


# what charge.lua would say, in integers: all is charged, or nothing

sub charged { return decided(1, @_) }
sub refused { return decided(0, @_) }

sub decided {
    my ($fits, undef, undef, $keys, @rest) = @_;

    my @answer = ($fits, int(time() * 1e6));
    splice(@rest, 0, $keys);

    for (1 .. shift @rest) {
        my ($flags, $plan, $units) = splice(@rest, 0, 3);

        push @answer, 0;

        for (1 .. $units) {
            my ($name, $kind, $count, $period, $burst, $from, $amount,
                $member) = splice(@rest, 0, 8);
            my $fit = $fits || !$kind;

            push @answer, $fit ? 1 : 0, $kind, $count, $period, $burst, $from,
                $fit ? (0, $count, 0) : ($count, 0, 60_000_000);
        }
    }

    return @answer;
}


# the process


sub run {
    my ($self) = @_;

    open($self->{out}, '>>', $self->{log}) or die "$self->{log}: $!\n";
    $self->{out}->autoflush(1);

    while (1) {
        my $readable = '';

        vec($readable, fileno($self->{listener}), 1) = 1;
        vec($readable, $_, 1) = 1 for keys %{ $self->{connections} };

        select($readable, undef, undef, $self->pause());

        if (vec($readable, fileno($self->{listener}), 1)) {
            my $socket = $self->{listener}->accept();
            $socket->blocking(0);
            $self->{connections}{ fileno($socket) } =
                { socket => $socket, in => '', due => [] };
        }

        for my $c (values %{ $self->{connections} }) {
            $self->read($c) if vec($readable, fileno($c->{socket}), 1);
        }

        $self->act($_) for values %{ $self->{connections} };
    }
}


sub current {
    my ($self) = @_;

    open(my $fh, '<', $self->{file}) or return 'good';
    return scalar <$fh> // 'good';
}


sub pause {
    my ($self) = @_;

    my $pause = 0.5;

    for my $c (values %{ $self->{connections} }) {
        next unless defined $c->{wake};
        my $left = $c->{wake} - time();
        $pause = $left > 0 ? $left : 0 if $left < $pause;
    }

    return $pause;
}


sub read {
    my ($self, $c) = @_;

    my $n = sysread($c->{socket}, $c->{in}, 65536, length $c->{in});

    return if !defined $n && $!{EAGAIN};
    return $self->close($c) unless $n;

    while ((my @words = words($c)) > 0) {
        my $mode = $self->current();

        print { $self->{out} } join("\t", $mode, map { printable($_) } @words),
            "\n";

        # held as long as this is the mode, whatever is read meanwhile
        push @{ $c->{due} },
            map { ref $_ && $$_ eq 'HOLD' ? [ $mode ] : $_ }
            is_entry(@words) ? nothing(@words)
                : $self->{modes}{$mode}->(@words);
    }
}


# the next command, if it is there

sub words {
    my ($c) = @_;

    my ($count) = $c->{in} =~ /^\*(\d+)\r\n/ or return;
    my $at = $+[0];
    my @words;

    for (1 .. $count) {
        substr($c->{in}, $at) =~ /^\$(\d+)\r\n/ or return;
        $at += $+[0];
        return if length($c->{in}) < $at + $1 + 2;
        push @words, substr($c->{in}, $at, $1);
        $at += $1 + 2;
    }

    substr($c->{in}, 0, $at) = '';
    return @words;
}


# scripts are long, and have tabs and line ends

sub printable {
    my ($word) = @_;

    return 'SCRIPT' if length($word) > 1000;
    return $word =~ s/([^ -~])/sprintf('\\x%02x', ord $1)/ger;
}


sub act {
    my ($self, $c) = @_;

    while (!$c->{gone} && @{ $c->{due} }) {

        if (defined $c->{wake}) {
            return if time() < $c->{wake};
            delete $c->{wake};
        }

        my $next = shift @{ $c->{due} };

        if (ref $next eq 'ARRAY') {

            if ($self->current() eq $next->[0]) {
                unshift @{ $c->{due} }, $next;
                $c->{wake} = time() + 0.02;
            }

        } elsif (ref $next) {
            $c->{wake} = time() + $$next;

        } elsif ($next eq 'CLOSE') {
            $self->close($c);

        } else {
            $self->write($c, $next);
        }
    }
}


# as much as the other side takes

sub write {
    my ($self, $c, $octets) = @_;

    my $n = syswrite($c->{socket}, $octets);

    if (!defined $n) {
        return $self->close($c) unless $!{EAGAIN};
        $n = 0;
    }

    unshift @{ $c->{due} }, \0.01, substr($octets, $n)
        if $n < length $octets;
}


sub close {
    my ($self, $c) = @_;

    $c->{gone} = 1;
    delete $self->{connections}{ fileno($c->{socket}) };
    close($c->{socket});
}


1;
