#!/usr/bin/perl

# hash and hash consistent: the same keys go to the same servers as with
# nginx's own upstream, which is asked here; what is down, or has failed, is
# stepped over as there; a session follows its key.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use IO::Socket::INET;
use Test::More;

use MailPolicy;

my $t = MailPolicy->new();

my %GROUP = (
    hash       => 'hash %key; %a; %b weight=3; %c weight=2; %d down;',
    consistent => 'hash %key consistent; %a; %b weight=3; %c weight=2; '
        . '%d down;',
);

# what HTTP and mail have in common

sub group {
    my ($name, $key) = @_;

    my $lines = $GROUP{$name} =~ s/%key/$key/r;
    $lines =~ s/%(\w)/server 127.0.0.1:%%PORT_$1%% max_fails=0/g;
    return "    upstream $name { $lines }\n";
}


my $mail = join('', map { group($_, '$sender_local') . <<"EOF" }
    server {
        listen      127.0.0.1:%%PORT_$_%%;
        protocol    smtp;
        proxy_pass  $_;
    }
EOF
    sort keys %GROUP);

my $http = join('', map { group($_, '$arg_key') . <<"EOF" }
    server {
        listen  127.0.0.1:%%PORT_http_$_%%;

        location / {
            proxy_pass           http://$_;
            proxy_next_upstream  off;
            access_log           %%DIR%%/http.log choice;
        }
    }
EOF
    sort keys %GROUP);

$t->conf(<<"EOF");
mail {
    server_name  edge.example.com;
    access_log   %%DIR%%/access.log;
    policy       on;
    policy_auth  off;

    upstream recipient {
        hash \$recipient consistent;
        server 127.0.0.1:%%PORT_a%%;
        server 127.0.0.1:%%PORT_b%%;
        server 127.0.0.1:%%PORT_c%%;
    }

    server {
        listen      127.0.0.1:%%PORT_recipient%%;
        protocol    smtp;
        proxy_pass  recipient;
    }

$mail
}

http {
    log_format  choice  '\$arg_key \$upstream_addr';

$http
}
EOF
$t->run_nginx();

my @KEYS = map { ("user$_", "u.$_-x") } 1 .. 150;

# nobody listens yet: nginx logs whom it has chosen all the same

my (%theirs, %relay);

for my $name (sort keys %GROUP) {
    my $before = () = $t->read_file('http.log') =~ /\n/g;

    for my $key (@KEYS) {
        my $socket = IO::Socket::INET->new(PeerAddr => '127.0.0.1',
            PeerPort => $t->port("http_$name")) or die "http: $@\n";
        print $socket "GET /?key=$key HTTP/1.0\r\n\r\n";
        1 while defined readline($socket);
    }

    $t->wait_for(sub { (() = $t->read_file('http.log') =~ /\n/g)
        == $before + @KEYS });
    my @lines = split(/\n/, $t->read_file('http.log'));
    $theirs{$name} = { map { split(/ /, $_) } @lines[$before .. $#lines] };
}

%relay = map { $_ => $t->run_relay(name => $_, store => 0) } qw(a b c d);

for my $name (sort keys %GROUP) {
    my $before = () = $t->access_log();
    my $c = $t->session($name);

    $c->send_mail("$_\@example.com", [ 'r@example.net' ], "x\n") for @KEYS;
    $c->quit();

    ok($t->wait_for(sub { (() = $t->access_log()) == $before + @KEYS }),
        "$name: all messages are logged");
    my @lines = ($t->access_log())[$before .. $before + $#KEYS];
    my %ours = map { ($_->{sender} =~ s/@.*//r) => $_->{upstream_addr} }
        @lines;

    is(scalar(keys %ours), scalar(@KEYS), "$name: " . @KEYS . ' keys');
    is_deeply(\%ours, $theirs{$name}, "$name: as nginx chooses");

    my %used = map { $_ => 1 } values %ours;
    is(scalar(keys %used), 3, "$name: all that are not down are used");
    is(scalar(grep { $_->{status} != 250 } @lines), 0, "$name: accepted");
}

# consistent: one that fails is made up for by others, and keeps its own

my ($first) = grep { $theirs{consistent}{$_} =~ /:@{[ $t->port('a') ]}$/ }
    @KEYS;
my ($other) = grep { $theirs{consistent}{$_} =~ /:@{[ $t->port('b') ]}$/ }
    @KEYS;


sub goes {
    my ($where, $sender, $recipient) = @_;

    my %before = map { $_ => $relay{$_}->stats()->{messages} } keys %relay;
    my $c = $t->session($where);
    $c->send_mail("$sender\@example.com", [ $recipient // 'r@example.net' ],
        "x\n");
    $c->quit();
    return join('', grep { $relay{$_}->stats()->{messages} > $before{$_} }
        sort keys %relay);
}


is(goes('consistent', $first), 'a', 'a key');
$relay{a}->set(connect => 'refuse');
like(goes('consistent', $first), qr/^[bc]$/, 'its server is away');
is(goes('consistent', $other), 'b', 'a key of another stays');
$relay{a}->set(connect => undef);
is(goes('consistent', $first), 'a', 'and it is back');

# a key of the recipient: MAIL is answered before a relay is asked

my %by = map { $_ => goes('recipient', 's', "$_\@example.net") } 1 .. 9;
is(goes('recipient', 's', "$_\@example.net"), $by{$_}, "recipient $_")
    for 1 .. 9;
cmp_ok(scalar(keys %{{ reverse %by }}), '>', 1, 'are not all at one');

$t->done();
