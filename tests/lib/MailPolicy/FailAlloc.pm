package MailPolicy::FailAlloc;

# An nginx whose allocations and system calls fail when told to: see
# FailAlloc.c, which is compiled here.
#
#     my $fail = MailPolicy::FailAlloc->new($t, 'nginx');    # starts it
#
#     $fail->arm('alloc', 3);             the third one fails
#     $fail->arm('alloc', 3, ENOMEM, 9);  and the eight behind it
#     my $times = $fail->disarm();        how often it did
#     $fail->worker();                    the pid
#     $fail->live();                      allocations that are not freed

use strict;
use warnings;

use Errno qw(ENOMEM);
use Fcntl qw(SEEK_SET);

use MailPolicy::Process qw(spawn wait_exit);

my %KIND = (
    alloc      => 0x001,
    recv       => 0x002,
    send       => 0x004,
    connect    => 0x008,
    socket     => 0x010,
    epoll_ctl  => 0x020,
    getsockopt => 0x040,
    setsockopt => 0x080,
    ioctl      => 0x100,
    accept     => 0x200,
    write      => 0x400,
);

# fail_order_t, as the library has it
use constant { FIELD => 4, KINDS => 1, FAILED => 5, LIVE => 6, FIELDS => 7 };


# why it cannot be used here, or undef

sub impossible {
    my ($t) = @_;

    my $found = `gcc --version 2>&1`;
    return 'gcc is not installed' unless defined $found && $? == 0;

    # allocations are its own
    for my $dir ('', split /:/, $ENV{PATH}) {
        my $binary = $dir eq '' ? $t->{binary} : "$dir/$t->{binary}";
        next unless $binary =~ m{^/} && -f $binary;
        return 'AddressSanitizer'
            if $t->read_file($binary) =~ /__asan_init/;
    }

    return undef;
}


sub new {
    my ($class, $t, $nginx) = @_;

    my $self = bless { t => $t, nginx => $nginx }, $class;

    my $file = $t->write_file("$nginx.fail", pack('l*', (0) x FIELDS));

    # the worker writes to its pages
    open($self->{order}, '+<:raw', $file) or die "$file: $!\n";

    local $ENV{LD_PRELOAD} = library($t);
    local $ENV{MAIL_POLICY_FAIL} = $file;

    # what is freed is overwritten: who uses it later is to be seen
    local $ENV{MALLOC_PERTURB_} = 165;

    $t->run_nginx($nginx);

    $self->found();
    return $self;
}


sub library {
    my ($t) = @_;

    my $library = $t->dir() . '/FailAlloc.so';
    return $library if -e $library;

    my $log = "$library.log";
    my $status = wait_exit(spawn($log, 'gcc', '-O1', '-g', '-Wall', '-Wextra',
        '-shared', '-fPIC', '-fno-builtin', '-o', $library,
        __FILE__ =~ s/pm$/c/r), 60);

    die "FailAlloc.c: " . $t->read_file($log) . "\n"
        if !defined $status || $status;
    return $library;
}


# the worker that there is: its calls are meant

sub found {
    my ($self) = @_;

    ($self->{worker}) = $self->{t}->worker_pids($self->{nginx});
    $self->put(0, $self->{worker});
}


sub worker { return $_[0]{worker} }


# A worker that crashed is a zombie, or gone

sub alive {
    my ($self) = @_;

    return $self->{t}->read_file("/proc/$self->{worker}/stat")
        =~ /^\d+ \(.*\) [^ZX] /;
}


sub arm {
    my ($self, $kind, $k, $error, $times) = @_;

    $self->put(KINDS, 0, $k, $times // 1, $error // ENOMEM, 0);
    $self->put(KINDS, $KIND{$kind} // die "kind $kind\n");
}


sub disarm {
    my ($self) = @_;

    $self->put(KINDS, 0);
    return $self->get(FAILED);
}


sub live { return $_[0]->get(LIVE) }


sub put {
    my ($self, $field, @values) = @_;

    sysseek($self->{order}, $field * FIELD, SEEK_SET);
    syswrite($self->{order}, pack('l*', @values)) == FIELD * @values
        or die "order: $!\n";
}


sub get {
    my ($self, $field) = @_;

    sysseek($self->{order}, $field * FIELD, SEEK_SET);
    sysread($self->{order}, my $value, FIELD) == FIELD or die "order: $!\n";
    return unpack('l', $value);
}


1;
