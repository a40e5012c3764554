#!/usr/bin/perl

# Lookups while Redis is away, hangs, or answers late or nonsense: what was last
# known, or the default; sessions go on.  Clients that do not wait for them.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Test::More;
use Time::HiRes qw(sleep time);

use MailPolicy;
use MailPolicy::FakeRedis qw(is_charge integers charged);

my $CRLF = "\r\n";
my $t = MailPolicy->new();
my %relay = map { $_ => $t->run_relay(name => $_) } qw(a b);
my $redis = $t->run_redis();

sub answer {
    my @words = @_;

    return "+PONG$CRLF" if $words[0] eq 'PING';
    return "\$4${CRLF}bulk$CRLF" if $words[0] eq 'GET';
    return integers(charged(@words)) if is_charge(@words);
    return integers(1);
}

my %odd = (
    soon    => [ \0.1, "\$4${CRLF}bulk$CRLF" ],
    late    => [ \0.8, "\$4${CRLF}bulk$CRLF" ],
    never   => [ \'HOLD' ],
    array   => [ "*1$CRLF\$4${CRLF}bulk$CRLF" ],
    number  => [ ":5$CRLF" ],
    status  => [ "+bulk$CRLF" ],
    noperm  => [ "-NOPERM this user has no permissions$CRLF" ],
    busy    => [ "-BUSY Redis is busy$CRLF" ],
    close   => [ 'CLOSE' ],
    huge    => [ "\$200000$CRLF" . 'x' x 200_000 . $CRLF ],
);

my $fake = MailPolicy::FakeRedis->new(dir => $t->dir(),
    port => $t->port('fake'), modes => {
        good => sub { answer(@_) },
        map { my $what = $_; ($what => sub {
            $_[0] eq 'GET' ? @{ $odd{$what} } : answer(@_) }) } keys %odd,
    });

my $mail = <<'EOF';
    server_name    edge.example.com;
    policy         on;
    policy_auth    off;

    upstream outbound { server 127.0.0.1:%%PORT_a%%; }
    upstream bulk     { server 127.0.0.1:%%PORT_b%%; }

    policy_lookup  $by_sender     route:$sender_domain     outbound;
    policy_lookup  $by_recipient  route:$recipient_domain  outbound;
    policy_lookup  $key           key:$sender;

    server {
        listen        127.0.0.1:%%PORT_NAME_sender%%;
        protocol      smtp;
        proxy_pass    $by_sender;
    }

    server {
        listen        127.0.0.1:%%PORT_NAME_recipient%%;
        protocol      smtp;
        proxy_pass    $by_recipient;
    }

    server {
        listen        127.0.0.1:%%PORT_NAME_limit%%;
        protocol      smtp;
        policy_limit  all  key=$key  messages=1000/1h;
        proxy_pass    outbound;
    }
}
EOF

for my $case ([ real => 'redis', 'cache=200ms' ],
    [ scripted => 'fake', 'timeout=500ms cache=200ms connections=1' ])
{
    my ($name, $port, $more) = @$case;

    $t->conf($name, "error_log %%DIR%%/$name.log info;\nmail {\n"
        . "    policy_redis  redis://127.0.0.1:%%PORT_$port%% $more"
        . " on_error=closed;\n" . $mail =~ s/NAME/$name/gr);
    $t->run_nginx($name);
}

my %seen;

sub taken {
    my $taken = '';

    for my $name (sort keys %relay) {
        my $now = $relay{$name}->stats()->{messages};
        $taken .= $name x ($now - ($seen{$name} // 0));
        $seen{$name} = $now;
    }

    return $taken;
}


sub codes { return join(' ', map { substr($_, 0, 3) } @_) }


sub message {
    my ($c, $domain, $to) = @_;

    my @replies = $c->send_mail("s\@$domain", [ $to // 'r@example.net' ],
        "x\n");
    return codes(@replies) . ' ' . taken();
}


# Redis is killed

$redis->cmd('SET', 'mail:route:known.example', 'bulk');
my $c = $t->session('real_sender');
is(message($c, 'known.example'), '250 250 354 250 b', 'there: the route');
$redis->kill();
sleep(0.4);
is(message($c, 'known.example'), '250 250 354 250 b', 'away: as last known');
is(message($c, 'other.example'), '250 250 354 250 a',
    'away, not known: the default');
my $other = $t->session('real_limit');
is(message($other, 'known.example'), '250 250 354 250 a',
    'away, no key: no limit');
$redis->restart();
$redis->cmd('SET', 'mail:route:other.example', 'bulk');
ok($t->wait_for(sub { message($c, 'other.example') =~ / b$/ }),
    'back: as Redis says');
is(message($c, 'known.example'), '250 250 354 250 a',
    'and that there is none now');
$_->quit() for $c, $other;

# it hangs

$redis->signal('STOP');
$c = $t->session('real_recipient');
my $since = time();
is(message($c, 'x.example', 'r@hang1.example'), '250 250 354 250 a',
    'hangs: the default');
cmp_ok(time() - $since, '<', 5, 'in time');
is(message($c, 'x.example', 'r@hang2.example'), '250 250 354 250 a',
    'the next one');
$redis->signal('CONT');
$c->quit();

# a Redis that says something else

my $n = 0;

for my $what (grep { $_ ne 'soon' } sort keys %odd) {
    my $domain = 'odd' . ++$n . '.example';

    ok($t->wait_for(sub {
        my $ready = $t->session('scripted_sender');
        my $took = message($ready, 'good' . ++$n . '.example');
        $ready->quit();
        return $took =~ / b$/;
    }), "$what: before it");

    $fake->mode($what);
    $c = $t->session('scripted_sender');
    is(message($c, $domain), '250 250 354 250 a', "$what: the default");
    $fake->mode('good');
    ok($t->wait_for(sub { message($c, $domain) =~ / b$/ }),
        "$what: the session goes on, and hears of it");
    $c->quit();
}

# clients that do not wait: at MAIL, at RCPT, at MAIL for a limit

for my $case ([ sender => "MAIL FROM:<s\@DOMAIN>$CRLF" ],
    [ recipient => "MAIL FROM:<s\@x.example>${CRLF}RCPT TO:<r\@DOMAIN>$CRLF"
        . "RCPT TO:<q\@DOMAIN>$CRLF" ],
    [ limit => "MAIL FROM:<s\@DOMAIN>$CRLF" ])
{
    my ($where, $command) = @$case;

    for my $end ('close', 'reset', "RSET$CRLF", "QUIT$CRLF",
        "EHLO again$CRLF")
    {
        my $domain = 'gone' . ++$n . '.example';

        $fake->mode('soon');
        $c = $t->session("scripted_$where");
        $c->send_raw($command =~ s/DOMAIN/$domain/gr);
        $t->wait_for(sub { grep { "@$_" =~ /\Q$domain/ } $fake->commands() })
            or fail("$where: it is asked, before " . substr($end, 0, 5));
        $c->$end() if $end =~ /^[a-z]/;
        $c->send_raw($end) if $end =~ /^[A-Z]/;
        $fake->mode('good');

        next if $end =~ /^[a-z]/;

        my $replies = () = $command =~ /\n/g;
        my @told = map { $c->read_reply() } 0 .. $replies;
        like($told[-1], qr/^2/, "$where: behind it " . substr($end, 0, 4));
        $c->close();
    }

    ok($t->wait_for(sub {
        $c = $t->session("scripted_$where");
        my $codes = message($c, 'last' . ++$n . '.example');
        $c->quit();
        return $codes =~ /^250 250 354 250/;
    }), "$where: others are served");
}

my $log = $t->read_file('scripted.log');
is(scalar(() = $log =~ /answers: NOPERM/g), 1, 'what an operator can mend');

$fake->stop();
$t->stop($_) for qw(real scripted);
$t->done();
