package MailPolicy::FakeDovecot;

# A Dovecot that answers as told, in a process of its own: what a real one
# would not say.
#
#     my $fake = MailPolicy::FakeDovecot->new(dir => ..., name => ...,
#         modes => { late => { AUTH => sub { my ($id, $line) = @_; ... } } });
#     $fake->mode('late');
#
# A mode has a greeting, and what is done to AUTH, CONT and CANCEL: each is
# called with the id and returns octets to write, references to numbers
# (seconds to wait) and 'CLOSE'.  What it has not is as in the mode "good",
# which greets with all mechanisms, accepts who asks first as
# alice@example.com, and says nothing to the rest.  A change of the mode ends
# the connections there are.

use strict;
use warnings;

use IO::Socket::UNIX;
use Socket qw(SOCK_STREAM);
use Time::HiRes qw(sleep time);

use MailPolicy::Process qw(fork_server stop_process);

our $GREETING = "VERSION\t1\t2\n"
    . join('', map { "MECH\t$_\tplaintext\n" }
        qw(PLAIN LOGIN CRAM-MD5 SCRAM-SHA-256 XOAUTH2 OAUTHBEARER EXTERNAL))
    . "SPID\t1\nCUID\t1\nCOOKIE\t00\nDONE\n";

my %GOOD = (
    greeting => $GREETING,
    AUTH     => sub { return "OK\t$_[0]\tuser=alice\@example.com\n" },
    CONT     => sub { return () },
    CANCEL   => sub { return () },
);


sub new {
    my ($class, %option) = @_;

    my $self = bless { name => 'fake', modes => {}, connections => {},
        current => 'good', %option }, $class;

    $self->{file} = "$self->{dir}/$self->{name}";
    $self->{listener} = IO::Socket::UNIX->new(Type => SOCK_STREAM,
        Local => $self->socket(), Listen => 64)
        or die $self->socket() . ": $!\n";
    chmod(0666, $self->socket());

    $self->{pid} = fork_server("$self->{file}.out", [ $self->{listener} ],
        sub { $self->run() });
    close($self->{listener});

    return $self;
}


sub socket { return "$_[0]{file}.socket" }
sub stop   { stop_process($_[0]{pid}, 'TERM', 5) }


# returns when it is in force

sub mode {
    my ($self, $mode) = @_;

    my $seen = grep { /^-- mode/ } $self->lines();

    open(my $fh, '>', "$self->{file}.new") or die "$self->{file}: $!\n";
    print $fh $mode . ' ' . ++$self->{changes};
    close($fh);
    rename("$self->{file}.new", "$self->{file}.mode")
        or die "$self->{file}: $!\n";

    my $end = time() + 10;
    while ((grep { /^-- mode/ } $self->lines()) == $seen) {
        die "no mode $mode\n" if time() > $end;
        sleep(0.01);
    }
}


# what came in

sub lines {
    my ($self) = @_;

    open(my $fh, '<', "$self->{file}.log") or return ();
    return map { chomp; $_ } grep { /\n\z/ } <$fh>;
}


# the process


sub run {
    my ($self) = @_;

    open($self->{log}, '>>', "$self->{file}.log") or die "log: $!\n";
    $self->{log}->autoflush(1);

    while (1) {
        my $vector = '';

        vec($vector, fileno($_), 1) = 1
            for $self->{listener}, values %{ $self->{connections} };
        select($vector, undef, undef, 0.02);
        $self->change();

        if (vec($vector, fileno($self->{listener}), 1)) {
            my $c = $self->{listener}->accept();
            $self->{connections}{ fileno($c) } = $c;
            ${*$c}{in} = '';
            $self->say($c, $self->part('greeting'));
        }

        for my $c (values %{ $self->{connections} }) {
            $self->read($c) if vec($vector, fileno($c), 1);
        }
    }
}


sub part {
    my ($self, $name) = @_;

    return $self->{modes}{ $self->{current} }{$name} // $GOOD{$name};
}


sub change {
    my ($self) = @_;

    open(my $fh, '<', "$self->{file}.mode") or return;
    my $mode = <$fh> // return;
    return if $mode eq ($self->{told} // '');

    $self->{told} = $mode;
    ($self->{current}) = split / /, $mode;
    $self->end($_) for values %{ $self->{connections} };
    $self->{log}->print("-- mode $mode\n");
}


sub read {
    my ($self, $c) = @_;

    my $n = sysread($c, ${*$c}{in}, 65536, length ${*$c}{in});
    return $self->end($c) unless $n;

    while (${*$c}{in} =~ s/^([^\n]*)\n//) {
        my $line = $1;
        my ($command, $id) = split /\t/, $line;

        $self->{log}->print("$line\n");
        next unless $command =~ /^(?:AUTH|CONT|CANCEL)$/;

        $self->say($c, $self->part($command)->($id, $line));
        return unless $self->{connections}{ fileno($c) // -1 };
    }
}


sub say {
    my ($self, $c, @what) = @_;

    for my $what (@what) {
        if (ref $what) {
            sleep($$what);
        } elsif ($what eq 'CLOSE') {
            return $self->end($c);
        } else {
            syswrite($c, $what);
        }
    }
}


sub end {
    my ($self, $c) = @_;

    delete $self->{connections}{ fileno($c) };
    close($c);
}


1;
