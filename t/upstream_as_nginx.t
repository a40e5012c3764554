#!/usr/bin/perl

# least_conn and round robin, with weights: as connections come and go, each
# new one goes where nginx's own upstream, which is asked here, sends it.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use IO::Select;
use IO::Socket::INET;
use JSON::PP ();
use Test::More;

use MailPolicy;

my $t = MailPolicy->new();

my %GROUP = (
    least    => 'least_conn; %a; %b weight=3; %c weight=2;',
    equal    => 'least_conn; %a; %b; %c;',
    weighted => '%a weight=5; %b; %c weight=2;',
);

# what comes and goes, the same for both: a number is the place, among those
# that are open, of the one that goes

srand(4711);

my @EVENTS = map { my $n = $_; map({ undef } 1 .. 4), map({ rand() } 1 .. 3),
    $n % 4 == 3 ? map({ rand() } 1 .. 3) : () } 1 .. 12;

my (%relay, %listener);

for (qw(a b c)) {
    $relay{$_} = $t->run_relay(name => $_);
    $listener{$_} = IO::Socket::INET->new(LocalAddr => '127.0.0.1',
        LocalPort => $t->port("http_$_"), Listen => 64, ReuseAddr => 1)
        or die "listen: $@\n";
}

sub group {
    my ($name, $ports) = @_;

    my $lines = $GROUP{$name} =~
        s/%(\w)/server 127.0.0.1:%%PORT_$ports$1%% max_fails=0/gr;
    return "    upstream $name { $lines }\n";
}

my $mail = join('', map { group($_, '') . <<"EOF" } sort keys %GROUP);
    server {
        listen      127.0.0.1:%%PORT_$_%%;
        protocol    smtp;
        proxy_pass  $_;
    }
EOF

my $http = join('', map { group($_, 'http_') . <<"EOF" } sort keys %GROUP);
    server {
        listen  127.0.0.1:%%PORT_front_$_%%;
        location / { proxy_pass http://$_; }
    }
EOF

$t->conf(<<"EOF");
mail {
    server_name  edge.example.com;
    policy       on;
    policy_auth  off;

$mail
}

http {
$http
    server {
        listen  127.0.0.1:%%PORT_status%%;
        location / { policy_status; }
    }
}
EOF
$t->run_nginx();

for my $name (sort keys %GROUP) {
    my $theirs = choices(\&http_open, \&http_close, $name);
    my $ours = choices(\&mail_open, \&mail_close, $name);

    is($ours, $theirs, "$name: as nginx chooses");
    like($ours, qr/a.*b|b.*a/, "$name: not always the same");
    cmp_ok(length($ours), '>=', 40, "$name: so many");
}

$_->close() for values %listener;
$t->done();


# plays the events: the names of those that were chosen, in order

sub choices {
    my ($open, $close, $name) = @_;

    my (@open, $chosen);

    for my $event (@EVENTS) {
        if (!defined $event) {
            push @open, $open->($name);
            $chosen .= $open[-1]{at};

        } elsif (@open) {
            $close->(splice(@open, $event * @open, 1), scalar @open);
        }
    }

    $close->(pop @open, scalar @open) while @open;
    return $chosen;
}


sub http_open {
    my ($name) = @_;

    my $client = IO::Socket::INET->new(PeerAddr => '127.0.0.1',
        PeerPort => $t->port("front_$name")) or die "http: $@\n";
    print $client "GET / HTTP/1.0\r\n\r\n";

    my ($ready) = IO::Select->new(values %listener)->can_read(5)
        or die "nobody was chosen\n";
    my ($at) = grep { $listener{$_} == $ready } keys %listener;

    return { at => $at, client => $client,
        server => scalar $ready->accept() };
}


sub http_close {
    my ($connection) = @_;

    my ($server, $client) = @$connection{qw(server client)};

    print $server "HTTP/1.0 200 OK\r\n\r\n";
    $server->close();

    # nginx has let go of the server before it closes this
    1 while defined readline($client);
    $client->close();
}


sub mail_open {
    my ($name) = @_;

    my %seen = map { $_ => $relay{$_}->stats()->{total} } keys %relay;
    my $c = $t->session($name);

    $c->cmd('MAIL FROM:<a@example.com>') =~ /^250/ or die "MAIL refused\n";

    my ($at) = grep { $relay{$_}->stats()->{total} > $seen{$_} } keys %relay;
    return { at => $at, client => $c, name => $name };
}


# left: so many others are open

sub mail_close {
    my ($connection, $left) = @_;

    $connection->{client}->quit();
    $t->wait_for(sub { active($connection->{name}) == $left })
        or die "connections are left\n";
}


sub active {
    my ($name) = @_;

    my $status = JSON::PP->new()->utf8()->decode($t->http_get('status', '/'));
    my ($group) = grep { $_->{name} eq $name } @{ $status->{upstreams} };
    my $sum = 0;

    $sum += $_->{active} for @{ $group->{peers} };
    return $sum;
}
