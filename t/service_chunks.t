#!/usr/bin/perl

# Policy servers, and messages that come in chunks: they are asked with the
# first chunk and behind the last one, whatever is refused is read to its
# end, and the relay is left with nothing.  What comes meanwhile waits.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Test::More;
use Time::HiRes qw(sleep);

use MailPolicy;
use MailPolicy::Limits qw(wait_used);
use MailPolicy::PolicyServer;

my $t = MailPolicy->new();
my $redis = $t->run_redis();

my %relay = (
    data => $t->run_relay(name => 'data',
        extensions => [ 'PIPELINING', '8BITMIME' ]),
    bdat => $t->run_relay(name => 'bdat', extensions => [ 'PIPELINING',
        '8BITMIME', 'CHUNKING', 'BINARYMIME' ]),
);

my $server = MailPolicy::PolicyServer->new(dir => $t->dir(),
    name => 'service', port => $t->port('service'));

my @ways = map { my $relay = $_; map { [ $relay, $_ ] } qw(reject normalize) }
    qw(data bdat);

my $servers = join('', map { my ($relay, $mode) = @$_; <<"EOF" } @ways);
    server {
        listen               127.0.0.1:%%PORT_${relay}_$mode%%;
        protocol             smtp;
        proxy_pass           127.0.0.1:%%PORT_$relay%%;
        policy_bare_newline  $mode;
    }
EOF

$t->conf(<<"EOF");
mail {
    policy_redis    redis://127.0.0.1:%%PORT_redis%% timeout=5s;
    policy_limit    s  key=\$sender  messages=1000/1h  recipients=5000/1h
                    bytes=100m/1h;
    policy          on;
    policy_auth     off;
    policy_service  inet:127.0.0.1:%%PORT_service%% at=data;
    policy_service  inet:127.0.0.1:%%PORT_service%% at=end;
    access_log      %%DIR%%/access.log;

$servers
}
EOF
$t->run_nginx();

my $SENDER = 'alice@example.com';
my @BEGIN = ("MAIL FROM:<$SENDER>", 'RCPT TO:<bob@example.net>',
    'RCPT TO:<eve@example.net>');
my @CHUNKS = ("Subject: x\r\n", "\r\ntext\r\n", 'x' x 20000 . "\r\n");
my @used = (0, 0);


sub bdat {
    my ($octets, $last) = @_;

    return 'BDAT ' . length($octets) . ($last ? ' LAST' : '') . "\r\n$octets";
}


# all of them in one write, and NOOP

sub send_chunks {
    my ($c) = @_;

    $c->pipeline(@BEGIN);
    $c->send_raw(join('', map { bdat($CHUNKS[$_], $_ == $#CHUNKS) }
        0 .. $#CHUNKS) . "NOOP\r\n");

    my @replies = map { $c->read_reply() } 0 .. @CHUNKS;
    return @replies;
}


sub charged {
    my ($name, $messages, $recipients) = @_;

    local $Test::Builder::Level = $Test::Builder::Level + 1;

    my @expected = ($used[0] + $messages, $used[1] + $recipients);

    is_deeply(wait_used($redis, 's', $SENDER, \@expected), \@expected,
        "$name: charged $messages and $recipients");
    @used = @expected;
}


for my $way (@ways) {
    my ($relay, $mode) = @$way;
    my $what = "$relay, $mode";
    my $c = $t->session("${relay}_$mode");
    my $content = join('', @CHUNKS);

    $server->set('DUNNO');
    my $before = () = $server->requests();
    my @replies = send_chunks($c);
    my @requests = $server->requests();
    splice(@requests, 0, $before);

    is(join(' ', map { substr($_, 0, 3) } @replies), '250 250 250 250',
        "$what: accepted");
    ok(($relay{$relay}->messages())[-1]{data} eq $content,
        "$what: as it was");
    is(join(' ', map { $_->{protocol_state} } @requests),
        'DATA END-OF-MESSAGE', "$what: asked twice");
    is($requests[0]{instance}, $requests[1]{instance},
        "$what: of the same message");
    is($requests[1]{size}, length($content), "$what: of its size");
    charged("$what: accepted", 1, 2);

    # refused at the beginning, at the end; the rest of it is no message

    for my $case ([ DATA => 'REJECT no', '554 554 554 250' ],
                  [ DATA => '451 later', '451 451 451 250' ],
                  [ 'END-OF-MESSAGE' => 'REJECT no', '250 250 554 250' ],
                  [ 'END-OF-MESSAGE' => 'DEFER', '250 250 450 250' ])
    {
        my ($state, $action, $expected) = @$case;
        my $name = "$what: $state: $action";

        $server->set({ protocol_state => qr/^$state$/, answer => $action });
        @replies = send_chunks($c);

        my $codes = join(' ', map { substr($_, 0, 3) } @replies);

        # chunks behind one that was refused may be out of sequence
        $codes =~ s/^(\d+) 503 503/$1 $1 $1/;

        is($codes, $expected, "$name: replies");
        charged($name, 0, 0);
        is(scalar(grep { $_->{accepted} } $relay{$relay}->received()),
            scalar($relay{$relay}->messages()), "$name: the relay has none");

        $server->set('DUNNO');
        $c->cmd('RSET');
        my $count = () = $relay{$relay}->messages();
        @replies = send_chunks($c);
        is(join(' ', map { substr($_, 0, 3) } @replies), '250 250 250 250',
            "$name: the next one passes");
        is(scalar($relay{$relay}->messages()), $count + 1,
            "$name: and is the only one");
        charged("$name: the next one", 1, 2);
    }

    # while it is asked nothing else is done

    $server->set({ delay => 0.3, answer => 'DUNNO' });
    @replies = send_chunks($c);
    is(join(' ', map { substr($_, 0, 3) } @replies), '250 250 250 250',
        "$what: a slow server");
    ok(($relay{$relay}->messages())[-1]{data} eq $content,
        "$what: a slow server: nothing is lost or said twice");
    charged("$what: a slow server", 1, 2);

    # an empty message

    $server->set('DUNNO');
    $c->pipeline(@BEGIN);
    like($c->cmd('BDAT 0 LAST'), qr/^250 /, "$what: BDAT 0 LAST");
    is(($server->requests())[-1]{size}, 0, "$what: of size 0");
    charged("$what: BDAT 0 LAST", 1, 2);
    $c->quit();

    # the session ends

    for my $state ('DATA', 'END-OF-MESSAGE') {
        $server->set({ protocol_state => qr/^$state$/,
            answer => '421 4.7.0 bye' });
        $c = $t->session("${relay}_$mode");
        $c->pipeline(@BEGIN);
        $c->send_raw(bdat("a\r\n", $state ne 'DATA'));
        is($c->read_reply(), '421 4.7.0 bye', "$what: $state: 421");
        ok($c->wait_close(), "$what: $state: 421: closed");
        charged("$what: $state: 421", 0, 0);
    }
}

# the client goes while it is asked about: charged is what is delivered

for my $state ('DATA', 'END-OF-MESSAGE') {
    for my $how (qw(close reset)) {
        my $name = "$state: $how while it is asked";
        my $asked = () = $server->requests();
        my $count = () = $relay{bdat}->messages();
        my $c = $t->session('bdat_reject');

        $server->set({ protocol_state => qr/^$state$/, delay => 0.5,
            answer => 'DUNNO' });
        $c->pipeline(@BEGIN);
        $c->send_raw(bdat("a\r\n", $state ne 'DATA'));
        ok($t->wait_for(sub {
            my @requests = $server->requests();
            return @requests > $asked
                && $requests[-1]{protocol_state} eq $state;
        }), "$name: it is asked");
        $c->$how();
        sleep(0.8);

        my $more = $relay{bdat}->messages() - $count;

        is($more, 0, "$name: half a message goes nowhere")
            if $state eq 'DATA';
        charged($name, $more, $more * 2);
    }
}

$server->set('DUNNO');
my $c = $t->session('bdat_reject');
is(join(' ', map { substr($_, 0, 3) } send_chunks($c)), '250 250 250 250',
    'all is well afterwards');
charged('all is well afterwards', 1, 2);

$t->done();
