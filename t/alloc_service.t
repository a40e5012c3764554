#!/usr/bin/perl

# RES-12, STATE-10: alloc_failure.t for what asks other policy servers, at
# RCPT, DATA and the end of a message: memory, or a call of the system, is
# refused at each place where nginx asks for it.  Whoever cannot be asked has
# not said yes: the message is deferred, and nothing of it is lost.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Errno qw(:POSIX);
use Test::More;

use MailPolicy;
use MailPolicy::FailAlloc;
use MailPolicy::FailAlloc::Player qw(rcpts chunk);
use MailPolicy::PolicyServer;

my $t = MailPolicy->new();
my $why = MailPolicy::FailAlloc::impossible($t);
plan(skip_all => $why) if $why;

my $ALL = ($ENV{TEST_ALLOC} // '') eq 'all';
alarm(1200);

my @PLAIN = ('PIPELINING', 'SIZE 52428800', '8BITMIME');
my %relay = (
    main => $t->run_relay(name => 'main', extensions => [ @PLAIN ]),
    bdat => $t->run_relay(name => 'bdat',
        extensions => [ @PLAIN, 'CHUNKING', 'BINARYMIME' ]),
);

# what a recipient, or the point, is told; in a message of its own each is
# told the same

my %says = (
    field  => 'PREPEND X-Field: of a recipient', if => 'DEFER_IF_PERMIT maybe',
    reject => 'REJECT no', warn => 'WARN about this',
    unless => 'DEFER_IF_REJECT later', ok => 'OK',
);

sub says {
    my ($request) = @_;

    my ($word) = $request->{recipient} =~ /^([a-z]+)_/;
    my $state = $request->{protocol_state};

    return $says{$word} // 'DUNNO' if $state eq 'RCPT';
    return 'PREPEND X-Data: of a message' if $state eq 'DATA';
    return 'DUNNO';
}

# the second server closes behind each answer: all of its connections are new

my %server = map { my $close = $_ eq 'new';
    $_ => MailPolicy::PolicyServer->new(dir => $t->dir(), name => $_,
        port => $t->port($_), handler => sub {
            my ($socket, $request) = @_;

            MailPolicy::PolicyServer::answer($socket, says($request));
            return !$close;
        }) } qw(kept new);

push @{ $t->{servers} }, values %server;

# what fails is not asked again, which would be a second later
my $LINE = 'policy_service inet:127.0.0.1:%%PORT_%s%% timeout=990ms'
    . ' connections=1 at=%s;';

sub services {
    my ($name) = @_;

    return join(' ', map { sprintf($LINE =~ s/%%PORT/%%%%PORT/r
        =~ s/%s%%/%s%%%%/r, $name, $_) } qw(rcpt data end));
}

sub server {
    my ($name, $rest) = @_;

    return "    server { listen 127.0.0.1:%%PORT_smtp_$name%%; protocol smtp;"
        . " $rest }\n";
}

my $servers = join('', server('kept', services('kept')),
    server('new', services('new')),
    server('two', services('kept') . services('new')),
    server('bdat', services('kept') . 'proxy_pass 127.0.0.1:%%PORT_bdat%%;'),
    server('normalize', services('kept')
        . 'policy_bare_newline normalize;'));
my $log = $t->instance('nginx')->{log};

$t->conf('nginx', <<"EOF2");
error_log  $log notice;

mail {
    server_name   edge.example.com;
    access_log    %%DIR%%/nginx.access.log;
    policy        on;
    policy_auth   off;
    policy_zone   1m;
    policy_limit  sender key=\$sender messages=9/1h recipients=90/1h
                  bytes=10m/1h;
    max_errors    40;
    proxy_pass    127.0.0.1:%%PORT_main%%;

$servers
}
EOF2

$t->allow(qr/\[emerg\] .*(?:malloc|posix_memalign)\(\d.*\) failed \(12: /,
    qr/\[alert\] .*no memory for a line of the access log/,
    qr/\[crit\] .*write\(\) to ".*access.log" failed \(28: /,
    qr/\[alert\] .*socket\(\) failed \(24: /,
    qr/\[alert\] .*setsockopt\((?:TCP_NODELAY|SO_KEEPALIVE)\) failed.* \(105: /,
    qr/\[alert\] .*ioctl\(FION(?:BIO|READ)\) failed \(9: /,
    qr/\[alert\] .*epoll_ctl\(.*\) failed \(28: /);

my $MAIL = "MAIL FROM:<s%ID%\@example.com>\r\n";
my $TEXT = "Subject: %ID%\r\n\r\none\r\n..two\r\n...\r\n.\r\n";
my @EHLO = [ "EHLO client.example\r\n" ];
my @QUIT = [ "QUIT\r\n" ];
my @CHUNKS = (chunk("Subject: %ID%\r\n\r\n.\r"), chunk("\n..\r\nx"),
    chunk("\r\n", 1));

sub to { return map { "RCPT TO:<$_\@example.net>\r\n" } @_ }

my @SCRIPTS = (
    [ 'a message', 'kept', [ @EHLO, [ $MAIL ], [ to('field_a') ],
        [ "DATA\r\n" ], [ $TEXT ], @QUIT ] ],
    [ 'new connections', 'new', [ @EHLO, [ $MAIL, to('field_a'),
        "DATA\r\n" ], [ $TEXT ], @QUIT ] ],
    [ 'two servers', 'two', [ @EHLO, [ $MAIL ], [ to('warn_a') ],
        [ "DATA\r\n" ], [ $TEXT ], @QUIT ] ],
    [ 'refused', 'two', [ @EHLO, [ $MAIL ], map({ [ to("${_}_a") ] }
        qw(reject if unless)), [ "RSET\r\n" ], @QUIT ] ],
    [ 'recipients', 'kept', [ @EHLO, [ $MAIL ], [ to(map { "${_}_a" }
        qw(a reject b c if d e f ok g h warn i)) ], [ "DATA\r\n" ],
        [ $TEXT ], @QUIT ] ],
    [ 'chunks', 'bdat', [ @EHLO, [ $MAIL, to('field_a'), @CHUNKS ], @QUIT ] ],
    [ 'chunks to DATA', 'kept', [ @EHLO, [ $MAIL ], [ to('field_a') ],
        (map { [ $_ ] } @CHUNKS), @QUIT ] ],
    [ 'normalized', 'normalize', [ @EHLO, [ $MAIL, to('field_a'),
        "DATA\r\n" ], [ "Subject: %ID%\n\n.\n..\rx\n\r\n.\r\n" ], @QUIT ] ],
    [ 'left', 'kept', [ @EHLO, [ $MAIL, to('a', 'b') ] ], leaves => 'close' ],
);

my @CALLS = (
    [ recv       => ECONNRESET ],
    [ send       => EPIPE ],
    [ connect    => ENETUNREACH ],
    [ socket     => EMFILE ],
    [ epoll_ctl  => ENOSPC ],
    [ getsockopt => ENOBUFS ],
    [ setsockopt => ENOBUFS ],
    [ ioctl      => EBADF ],
);

my $fail = MailPolicy::FailAlloc->new($t, 'nginx');
my $player = MailPolicy::FailAlloc::Player->new($t, $fail,
    relays => [ values %relay ], all => $ALL);

for my $script (@SCRIPTS) {
    my ($name, $server, $groups, %more) = @$script;

    $player->script(name => $name, port => $t->port("smtp_$server"),
        groups => $groups, retry => 1, %more);
}

$player->every('alloc');
$player->every('alloc', times => $player->FOR_EVER);
$player->every($_->[0], error => $_->[1]) for @CALLS;
$player->settle('nginx', 'nginx.access.log');

# a message has got its fields, or there is none: nobody goes unasked

my @messages = map { $_->messages() } values %relay;
my @unasked = grep {
    my $fields = (grep { /^field_/ } @{ $_->{rcpts} })
        ? "X-Field: of a recipient\r\nX-Data: of a message\r\n"
        : "X-Data: of a message\r\n";
    $_->{data} !~ /^$fields(?!X-)/;
} @messages;

is(scalar @unasked, 0, 'each message has its fields')
    or diag($unasked[0]{data});
cmp_ok(scalar @messages, '>', 1000, scalar(@messages) . ' messages');

cmp_ok($player->failures(), '>', 1000, $player->failures() . ' calls failed');

$t->done();
