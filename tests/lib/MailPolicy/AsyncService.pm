package MailPolicy::AsyncService;

# The asynchronous matrix, where other policy servers are asked (A12): about a
# recipient, at DATA, at the first of several chunks, at the end of a message;
# or where it has to be looked up whether they are ("if").  The session, its
# relay, the answer and the worker end in any order.
#
#     my $s = MailPolicy::AsyncService->new(qw(rcpt if));
#     $s->matrix();
#     ...
#     $s->ends();
#
# Each of some test files has some of these points, as there is much to wait
# for: a file is to end in half a minute.

use strict;
use warnings;

use Test::More;
use Time::HiRes qw(sleep time);

use MailPolicy;
use MailPolicy::Async;
use MailPolicy::AsyncRedis;
use MailPolicy::PolicyServer;

my %ENDS = (E1 => 'close', E2 => 'reset');

# what is asked of the server there, and what a client is told
my %STATE = (rcpt => 'RCPT', data => 'DATA', chunk => 'DATA',
    end => 'END-OF-MESSAGE', if => 'Redis');
my %GOOD = (rcpt => '250', data => '354', chunk => '250', end => '250',
    if => '250');

# seconds, as the modes of Redis have it
use constant { LATE => MailPolicy::AsyncRedis::LATE,
               SOON => MailPolicy::AsyncRedis::SOON };

# connections are not kept, so that all of them are seen to go
my %THEN = (
    good  => { answer => 'DUNNO', then => 'close' },
    never => { then => 'hang' },
    late  => { answer => 'DUNNO', delay => LATE, then => 'close' },
    soon  => { answer => 'DUNNO', delay => SOON, then => 'close' },
    twice => { octets => "action=DUNNO\n\naction=REJECT\n\n",
               then => 'hang' },
    close => { then => 'close' },
    due   => { delay => LATE, then => 'reset' },
    going => { delay => SOON, then => 'reset' },
);


sub new {
    my ($class, @points) = @_;

    my $t = MailPolicy->new();
    my $self = bless { t => $t, points => \@points, number => 0 }, $class;

    $self->{relay} = $t->run_relay(name => 'relay',
        extensions => [ 'PIPELINING' ]);
    $self->{fake} = MailPolicy::AsyncRedis->new(dir => $t->dir(),
        port => $t->port('fake'));
    $self->{service} = MailPolicy::PolicyServer->new(dir => $t->dir(),
        name => 'service', port => $t->port('service'));

    push @{ $t->{servers} }, $self->{service};

    $self->conf('main', '', '10s');
    $self->{async} = MailPolicy::Async->new($t, $self->{relay}, 'main');
    $self->steady('to begin with');
    return $self;
}


# those that a policy server is asked at

sub served { return grep { $_ ne 'if' } @{ $_[0]{points} } }


# what a server does

sub then { return $THEN{$_[1]} }


sub server {
    my ($name, $rest) = @_;

    return "    server { listen 127.0.0.1:%%PORT_$name%%; protocol smtp;"
        . " $rest }\n";
}


sub conf {
    my ($self, $name, $main, $timeout) = @_;

    my $t = $self->{t};
    my $line = 'policy_service inet:127.0.0.1:%%PORT_service%% timeout='
        . "$timeout connections=4";
    my $all = join(' ', map { "$line at=$_;" } qw(rcpt data end));

    my $servers = join('', map { my $hurried = $_;
        my $client = $hurried ? 'timeout 500ms;' : '';
        server("$hurried$name", "$client $all"),
        server("${hurried}if_$name", "$client $line if=\$asks;")
    } '', 'hurried_');

    $t->conf($name, <<"EOF");
$main
mail {
    server_name    edge.example.com;

    map \$recipient \$closed {
        default        "";
        y\@example.net  y;
    }

    access_log     %%DIR%%/$name.access.log;
    policy_redis   redis://127.0.0.1:%%PORT_fake%% timeout=10s cache=0;
    policy_lookup  \$asks route:\$sender;
    policy_zone    512k;
    policy_limit   closed  key=\$closed  recipients=blocked;
    policy         on;
    policy_auth    off;
    proxy_pass     127.0.0.1:%%PORT_relay%%;

$servers
}
EOF
    $t->run_nginx($name);
}


sub mode {
    my ($self, $point, $mode) = @_;

    $self->{fake}->mode($point eq 'if' && $mode ne 'good' ? "A5 $mode"
        : 'good');
    $self->{service}->set($point eq 'if' ? () : { protocol_state =>
        qr/^$STATE{$point}$/, %{ $THEN{$mode} } }, $THEN{good});
}


# a client that is about to ask: (client, key)

sub ready {
    my ($self, $point, $nginx, $hurried) = @_;

    my $key = 'k' . ++$self->{number} . '@example.com';

    $self->mode($point, 'good');
    my $c = $self->{async}->session(($hurried // '')
        . ($point eq 'if' ? 'if_' : '') . ($nginx // 'main'));

    $c->cmd("MAIL FROM:<$key>") if $point ne 'if';
    $c->cmd('RCPT TO:<r@example.net>') if $point =~ /data|chunk|end/;
    $c->cmd('DATA') if $point eq 'end';
    return ($c, $key);
}


sub ask {
    my ($self, $point, $c, $key) = @_;

    # this one is not waited for
    $c->cmd("MAIL FROM:<$key>") if $point eq 'if';

    $c->send_raw($point =~ /rcpt|if/ ? "RCPT TO:<r\@example.net>\r\n"
        : $point eq 'data' ? "DATA\r\n"
        : $point eq 'chunk' ? "BDAT 3\r\nx\r\n" : "x\r\n.\r\n");
}


# one that has asked, and has no answer yet

sub waiting {
    my ($self, $point, $mode, @where) = @_;

    my ($c, $key) = $self->ready($point, @where);

    $self->mode($point, $mode);
    $self->ask($point, $c, $key);
    $self->{t}->wait_for(sub { $self->asked($point, $key) })
        or die "$point, $mode: nobody was asked\n";
    return $c;
}


sub asked {
    my ($self, $point, $key) = @_;

    return $self->{fake}->asked('A5', $key) if $point eq 'if';
    return grep { ($_->{sender} // '') eq $key
        && $_->{protocol_state} eq $STATE{$point} }
        $self->{service}->requests();
}


sub steady {
    my ($self, $name) = @_;

    local $Test::Builder::Level = $Test::Builder::Level + 1;

    $self->mode('rcpt', 'good');
    $self->{async}->steady($name, sub {
        my $reply;

        $self->{t}->wait_for(sub {
            my $c = $self->{async}->session('main');
            $reply = ($c->send_mail('w@example.com', [ 'r@example.net' ],
                "x\n"))[-1];
            $c->quit();
            return $reply =~ /^250 /;
        });
        return $reply;
    });
}


sub cell {
    my ($self, $point, $event, $what) = @_;

    return $self->{async}->cell('A12', $event, "$point, $what");
}


# the session can be used

sub goes_on {
    my ($self, $c, $name) = @_;

    local $Test::Builder::Level = $Test::Builder::Level + 1;

    $self->mode('rcpt', 'good');
    like($c->cmd('NOOP'), qr/^250 /, "$name: the session goes on");
}


sub matrix {
    my ($self) = @_;

    $self->_point($_) for @{ $self->{points} };
    $self->_relay_goes($_) for $self->served();
}


sub _point {
    my ($self, $point) = @_;

    my $async = $self->{async};
    my ($c, $name);

    # who waits for what is behind a recipient is not read from

    for my $event (sort keys %ENDS) {
        my $method = $ENDS{$event};

        $name = $self->cell($point, $event, $method);
        $c = $self->waiting($point, $point eq 'rcpt' ? 'never' : 'soon');
        $c->$method();
        sleep(SOON) if $point ne 'rcpt';
        $self->steady($name);
    }

    # E3: the client owes nothing meanwhile

    $name = $self->cell($point, 'E3', 'timeout');
    $c = $self->waiting($point, 'late', 'main', 'hurried_');
    $async->is_reply($c, $GOOD{$point}, $name);
    $c->close();
    $self->steady($name);

    # asked again after a second, then default_action; without Redis nobody is

    $name = $self->cell($point, 'E4', 'it closes');
    $c = $self->waiting($point, 'close');
    $async->is_reply($c, $point eq 'if' ? '250' : '451 4\.3\.5', $name);
    $self->goes_on($c, $name);
    $self->steady($name);

    for my $method (values %ENDS) {
        $name = $self->cell($point, 'E5', "late, $method");
        $c = $self->waiting($point, 'late');
        $c->$method();
        sleep(LATE + 0.1);
        $self->steady($name);
    }

    $name = $self->cell($point, 'E6', 'twice');
    $c = $self->waiting($point, 'twice');
    $async->is_reply($c, $GOOD{$point}, $name);
    $self->goes_on($c, $name) if $point ne 'data';
    $c->close();
    $self->steady($name);

    for my $what ('soon', 'going') {
        for my $order ('client first', 'server first') {
            for my $method (values %ENDS) {
                $name = $self->cell($point, 'E10', "$what, $method, $order");
                $c = $self->waiting($point, $what);

                $async->one_turn(sub {
                    $c->$method() if $order eq 'client first';
                    sleep(SOON + 0.05);
                    $c->$method() if $order ne 'client first';
                });
                $self->steady($name);
            }
        }
    }

    # more questions than connections

    $name = $self->cell($point, 'E9', 'it closes, much is due');
    my @clients = map { [ $self->ready($point) ] } 1 .. 8;

    $self->mode($point, 'due');
    $self->ask($point, @$_) for @clients;
    @clients = map { $_->[0] } @clients;

    is(join(' ', map { substr($_->read_reply(), 0, 3) } @clients), join(' ',
        ($point eq 'if' ? '250' : '451') x 8), "$name: all are answered");
    $_->close() for @clients;
    $self->steady($name);
}


# the relay goes while a server is asked

sub _relay_goes {
    my ($self, $point) = @_;

    my $name = "$point: the relay goes";
    my $c = $self->waiting($point, 'late');

    $self->{relay}->stop();
    $self->{async}->is_reply($c, '451 4\.4\.[12]', $name);
    $self->{relay}->start();
    $self->goes_on($c, $name);
    $self->steady($name);
}


# the worker ends; and the test

sub ends {
    my ($self) = @_;

    $self->_reload();
    $self->_hasty();

    $self->steady('at the end');
    $self->{async}->complete('A12');
    $self->{t}->stop($_) for qw(main reload hasty);
    $self->{fake}->stop();
    $self->{t}->done();
}


# E7: reload, with all of it under way

sub _reload {
    my ($self) = @_;

    my ($t, $async) = @$self{qw(t async)};

    $self->conf('reload', '', '10s');
    my @clients = map { [ $_, $self->waiting($_, 'late', 'reload') ] }
        @{ $self->{points} };
    ok($t->reload('reload'), 'ASYNC E7 reload');

    for my $client (@clients) {
        my ($point, $c) = @$client;
        my $name = $self->cell($point, 'E7', 'reload');

        # what is half said is finished
        $async->is_reply($c, $GOOD{$point}, $name);
        $async->is_reply($c, '421 4\.3\.2', $name) if $point =~ /rcpt|end|if/;
        $c->close() if $point !~ /rcpt|end|if/;
        ok($c->wait_close(), "$name: closed");
    }

    $async->old_gone('reload', 'ASYNC E7');
}


# E8: worker_shutdown_timeout, and no answers

sub _hasty {
    my ($self) = @_;

    my ($t, $async) = @$self{qw(t async)};

    $self->conf('hasty', 'worker_shutdown_timeout 1s;', '60s');
    my @clients = map { [ $_, $self->waiting($_, 'never', 'hasty') ] }
        $self->served();

    my $begin = time();
    ok($t->reload('hasty'), 'ASYNC E8 reload');
    ok($_->[1]->wait_close(5), $self->cell($_->[0], 'E8', 'closed'))
        for @clients;
    $async->old_gone('hasty', 'ASYNC E8');
    cmp_ok(time() - $begin, '<', 5, 'ASYNC E8 in time');
}


1;
