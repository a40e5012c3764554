package MailPolicy::Postfix;

# A real Postfix as relay: one of its own in the test's directory, with no
# more services than it needs.  It takes any mail from 127.0.0.1.
#
#     plan(skip_all => MailPolicy::Postfix::missing())
#         if MailPolicy::Postfix::missing();
#     my $postfix = MailPolicy::Postfix->new($t,
#         smtpd => { smtpd => [], other => [ 'smtpd_helo_required=yes' ] },
#         main  => [ 'default_transport = smtp:[127.0.0.1]:2525' ]);
#
#     smtpd      a listener for each port's name, and what is particular to
#                it (-o); "smtpd" alone by default
#     main       further lines of main.cf; mail is discarded unless they name
#                a default_transport
#     services   further lines of master.cf; "listens" is then the name of a
#                port by which it can be seen to have started, should there be
#                no smtpd
#     launch     a command that runs its master, which is given as arguments
#     name       of its directory: "postfix"
#     chroot     1: smtpd sees nothing but the queue's directory
#
# It ends with the test.

use strict;
use warnings;

use File::Find ();

use MailPolicy::Process qw(spawn stop_process wait_exit);


# why there cannot be one; empty if there can

sub missing {
    return 'a Postfix can be started by root only' if $>;
    return 'the package postfix is not installed'
        if !defined getpwnam('postfix')
        || !grep { -x "$_/postfix" } split /:/, $ENV{PATH};
    return '';
}


sub new {
    my ($class, $t, %option) = @_;

    my $self = bless {
        t        => $t,
        name     => 'postfix',
        smtpd    => { smtpd => [] },
        main     => [],
        services => [],
        launch   => [],
        chroot   => 0,
        %option,
    }, $class;

    $self->{dir} = $t->dir() . "/$self->{name}";

    mkdir $_ or die "$_: $!\n"
        for $self->{dir}, map { "$self->{dir}/$_" } qw(etc queue data);
    chown(scalar getpwnam('postfix'), -1, "$self->{dir}/data");

    $t->write_file("$self->{dir}/etc/main.cf", $self->main_cf());
    $t->write_file("$self->{dir}/etc/master.cf", $self->master_cf());

    # the test stops what is in this list, also when it dies
    push @{ $t->{servers} }, $self;
    $self->start();
    return $self;
}


sub main_cf {
    my ($self) = @_;

    my $dir = $self->{dir};

    return join('', map { "$_\n" } 'compatibility_level = 3.6',
        "queue_directory = $dir/queue", "data_directory = $dir/data",
        "maillog_file = $dir/mail.log", "maillog_file_prefixes = $dir",
        'inet_interfaces = 127.0.0.1', 'inet_protocols = ipv4',
        'myhostname = relay.example', 'mydestination =',
        'mynetworks = 127.0.0.0/8', 'alias_maps =',
        'local_recipient_maps =', 'smtpd_peername_lookup = no',
        'smtp_dns_support_level = disabled',
        'smtpd_relay_restrictions = permit_mynetworks, reject',

        grep({ /^default_transport/ } @{ $self->{main} })
            ? () : 'default_transport = discard',

        # or smtpd waits where mail comes in faster than it goes out
        'in_flow_delay = 0', @{ $self->{main} });
}


sub master_cf {
    my ($self) = @_;

    my $chroot = $self->{chroot} ? 'y' : 'n';
    my @smtpd = map {
        join(' ', '127.0.0.1:' . $self->{t}->port($_),
            "inet n - $chroot - - smtpd",
            map { "-o $_" } @{ $self->{smtpd}{$_} });
    } sort keys %{ $self->{smtpd} };

    return join('', map { "$_\n" } @smtpd,
        @{ $self->{services} },
        'cleanup unix n - n - 0 cleanup', 'qmgr unix n - n 300 1 qmgr',
        'rewrite unix - - n - - trivial-rewrite', 'smtp unix - - n - - smtp',
        'bounce unix - - n - 0 bounce', 'defer unix - - n - 0 bounce',
        'error unix - - n - - error', 'retry unix - - n - - error',
        'discard unix - - n - - discard', 'anvil unix - - n - 1 anvil',
        'tlsmgr unix - - n 1000? 1 tlsmgr',
        'postlog unix-dgram n - n - 1 postlogd');
}


sub start {
    my ($self) = @_;

    my ($t, $dir) = @$self{qw(t dir)};

    # makes the directories of the queue
    my $check = spawn("$dir/out", 'postfix', '-c', "$dir/etc", 'check');
    die 'postfix check: ' . $t->read_file("$dir/out")
        if wait_exit($check, 20) // 1;

    my ($daemons) = `postconf -c $dir/etc -h daemon_directory` =~ /(\S+)/;

    # it ends its children as a process group
    $self->{pid} = spawn("$dir/out", 'setsid', @{ $self->{launch} },
        "$daemons/master", '-c', "$dir/etc", '-d');

    die 'Postfix does not start: ' . $t->read_file("$dir/out") . $self->log()
        unless $t->wait_for(sub { $self->is_up() });
}


sub is_up {
    my ($self) = @_;

    my ($name) = sort keys %{ $self->{smtpd} };
    my $c = $self->{t}->client($name // $self->{listens});

    return 0 unless $c->connected();
    return $c->greeting() && $c->quit() =~ /^221/ if defined $name;

    $c->close();
    return 1;
}


sub stop {
    my ($self) = @_;

    my $pid = delete $self->{pid} or return;
    stop_process($pid, 'TERM', 10);
}


sub log { return $_[0]{t}->read_file("$_[0]{dir}/mail.log") }


# (messages, recipients) of a sender that were delivered, as its log says

sub delivered {
    my ($self, $sender) = @_;

    my $log = $self->log();
    my %of = map { $_ => 1 }
        $log =~ /: (\w+): from=<\Q$sender\E>, size=\d+, nrcpt=/g;
    my @sent = grep { $of{$_} }
        $log =~ /: (\w+): to=<[^>]*>, .*\bstatus=sent/g;
    my %sent = map { $_ => 1 } @sent;

    return (scalar keys %sent, scalar @sent);
}


# how many messages have not been delivered yet

sub queued {
    my ($self) = @_;

    my $count = 0;
    my @queues = grep { -d } map { "$self->{dir}/queue/$_" }
        qw(maildrop incoming active deferred hold);

    # a file may go while it is looked at
    File::Find::find({ no_chdir => 1, wanted => sub { $count++ if -f } },
        @queues);
    return $count;
}


1;
