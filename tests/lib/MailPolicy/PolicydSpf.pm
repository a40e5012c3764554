package MailPolicy::PolicydSpf;

# A real policyd-spf, as it is installed.  It speaks on its standard input and
# output, so a Postfix spawns one for each connection, as its manual says.
# What it asks of the DNS, it asks the name server of the test:
#
#     plan(skip_all => MailPolicy::PolicydSpf::missing())
#         if MailPolicy::PolicydSpf::missing();
#     my $spf = MailPolicy::PolicydSpf->new($t, dns => $dnsmasq);
#     ... "policy_service " . $spf->address()
#
#     name    of its port: "spf"
#     dns     a MailPolicy::Dnsmasq
#     conf    lines of its configuration
#
# It ends with the test.

use strict;
use warnings;

use MailPolicy::Postfix;
use MailPolicy::Process qw(children spawn wait_exit);


# why there cannot be one; empty if there can

sub missing {
    return 'the package postfix-policyd-spf-python is not installed'
        unless defined getpwnam('policyd-spf') && -x '/usr/bin/policyd-spf';

    my $missing = MailPolicy::Postfix::missing();
    return $missing if $missing;

    my $pid = spawn('/dev/null', own_resolver('/dev/null'), 'true');
    return 'processes cannot have a resolv.conf of their own here'
        if wait_exit($pid, 10) // 1;
    return '';
}


# what is in front of a command that is to ask another name server: a mount
# that nobody else sees, and that ends with it

sub own_resolver {
    my ($file) = @_;

    return ('unshare', '--mount', 'sh', '-c',
        'mount --bind "$0" /etc/resolv.conf && exec "$@"', $file);
}


sub new {
    my ($class, $t, %option) = @_;

    my $self = bless { t => $t, name => 'spf', conf => [],
        %option }, $class;

    my $listen = '127.0.0.1:' . $t->port($self->{name});
    my $conf = $t->write_file("$self->{name}.conf", join('',
        map { "$_\n" } 'debugLevel = 1', @{ $self->{conf} }));
    my $resolv = $t->write_file("$self->{name}.resolv",
        'nameserver ' . $self->{dns}->address() . "\n");

    $self->{postfix} = MailPolicy::Postfix->new($t,
        name     => "postfix-$self->{name}",
        smtpd    => {},
        services => [ "$listen inet n n n - 0 spawn user=policyd-spf"
            . " argv=/usr/bin/policyd-spf $conf" ],
        listens  => $self->{name},
        main     => [ "${listen}_time_limit = 3600" ],
        launch   => [ own_resolver($resolv) ]);

    return $self;
}


# as policy_service has it; MailPolicy::Policy has the name of the port

sub address { return 'inet:127.0.0.1:' . $_[0]{t}->port($_[0]{name}) }
sub where   { return $_[0]{name} }


# those that run now, each of which has one connection

sub pids {
    my ($self) = @_;

    my $master = $self->{postfix}{pid} or return ();
    return map { children($_) } children($master);
}


sub start { return $_[0]{postfix}->start() }
sub stop  { return $_[0]{postfix}->stop() }
sub log   { return $_[0]{postfix}->log() }


1;
