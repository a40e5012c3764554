#!/usr/bin/perl

# An edge at work, for people: a real nginx with the module, a real Redis,
# three relays and two users; a few mails until a limit answers, the limit is
# raised while all runs, and what log and status page say of it.  Each step is
# checked; the exit status is 0 only if all was as it should be.
#
#     demo.pl [--keep]      --keep leaves it running and says how to stop it
#
# Called by "build.sh demo".  TEST_NGINX_BINARY and TEST_NGINX_GLOBALS are
# those of the tests.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Cwd qw(abs_path);
use File::Path qw(remove_tree);
use File::Temp qw(tempdir);
use HTTP::Tiny;
use JSON::PP ();
use POSIX ();
use Time::HiRes qw(sleep time);

use MailPolicy::Client;
use MailPolicy::Nginx;
use MailPolicy::Port qw(free_port);
use MailPolicy::Process qw(spawn wait_exit);
use MailPolicy::Redis;
use MailPolicy::Relay;

my $ROOT = abs_path("$FindBin::Bin/..");
my $ALICE = 'alice@example.com';
my $NEWS = 'news@example.com';
my %PASSWORD = ($ALICE => 'wonderland', $NEWS => 'headlines');
my $QUEUED = qr/^250 2\.0\.0 Ok: queued/;
my $EXCEEDED = qr/^450 4\.7\.1 Rate limit "user" exceeded, retry in \d+ s$/;

my $KEEP = @ARGV && $ARGV[0] eq '--keep' ? shift @ARGV : 0;

die "usage: demo.pl [--keep]\n" if @ARGV;

$| = 1;

my $READY = $KEEP ? go_behind() : undef;
my $OWNER = $$;
my $DIR = tempdir('mail-policy-demo-XXXXXXXX', TMPDIR => 1);
my %PORT = map { $_ => free_port() } qw(smtp redis http a b c);
my (%RELAY, $REDIS, $NGINX, @SESSION, @WRONG);

# workers are not root
chmod(0755, $DIR);

$SIG{PIPE} = 'IGNORE';
$SIG{$_} = sub { exit(1) } for qw(HUP INT TERM);
$SIG{ALRM} = sub { die "it takes too long, something hangs\n" };
alarm(120);

my $done = eval {
    start();
    log_in();
    use_up();
    refused_by_relay();
    raise_limit();
    look_at_log();
    look_at_page();
    look_at_relays();
    stop() unless $KEEP;
    quiet();
    1;
};

say_wrong($@) unless $done;

if (@WRONG) {
    last_words();
    exit(1);
}

text('', 'All was as it should be.');

if ($KEEP) {
    how_to_talk();

    print $READY "ready\n";
    close($READY);

    open(STDOUT, '>', '/dev/null');
    open(STDERR, '>', '/dev/null');
    alarm(0);
    $SIG{TERM} = sub { exit(0) };

    sleep(3600) while 1;
}

exit(0);


# steps


sub start {
    $REDIS = MailPolicy::Redis->new(dir => $DIR, port => $PORT{redis});

    for my $name (qw(a b c)) {
        $RELAY{$name} = MailPolicy::Relay->new(name => $name, dir => $DIR,
            port => $PORT{$name}, hostname => "relay-$name.example",
            extensions => [ 'PIPELINING', 'SIZE 52428800', '8BITMIME',
                'ENHANCEDSTATUSCODES', 'XCLIENT NAME ADDR LOGIN' ]);
    }

    certificate();

    my $conf = mail_block() . http_block();

    $NGINX = MailPolicy::Nginx->new(name => 'nginx', dir => $DIR,
        binary => $ENV{TEST_NGINX_BINARY} || 'nginx');

    write_file($NGINX->{conf}, head() . $conf);
    $NGINX->start();

    text('', 'ngx_mail_policy_module: an edge at work', '',
        "    nginx    127.0.0.1:$PORT{smtp}   the edge: logins, limits,"
        . ' routes',
        "    Redis    127.0.0.1:$PORT{redis}   users, limits and counters;"
        . ' nothing is kept on disk',
        "    relays   127.0.0.1:$PORT{a}   a \\",
        "             127.0.0.1:$PORT{b}   b / the group \"outbound\"",
        "             127.0.0.1:$PORT{c}   c   the group \"bulk\"",
        '', 'The configuration:', '', map { $_ eq '' ? '' : "    $_" }
            split(/\n/, $conf));
}


sub log_in {
    step('Users live in Redis, and no password is taken in clear');
    text('');

    for my $login ($ALICE, $NEWS) {
        # what "openssl passwd -6" or mkpasswd print
        my $hash = crypt($PASSWORD{$login}, '$6$' . random_salt() . '$');

        redis_cli('HSET', "mail:user:{$login}", 'password', $hash);
    }

    my $c = MailPolicy::Client->new(port => $PORT{smtp});

    $c->greeting();
    $c->ehlo('laptop.example.com');

    text('');
    said('AUTH in clear', $c->auth_plain($ALICE, $PASSWORD{$ALICE}),
        qr/^530 5\.7\.0 /);
    said('STARTTLS', $c->starttls(), qr/^220 /);
    $c->ehlo('laptop.example.com');
    said('a wrong password', $c->auth_plain($ALICE, 'looking glass'),
        qr/^535 5\.7\.8 /);
    said('the right one', $c->auth_plain($ALICE, $PASSWORD{$ALICE}),
        qr/^235 2\.7\.0 /);
    $c->quit();
}


sub use_up {
    step('Alice has 3 messages an hour, in whatever session');

    @SESSION = (session($ALICE), session($ALICE));

    text('');
    mail(1, 'bob@example.net', $QUEUED);
    mail(2, 'carol@example.net', $QUEUED);
    mail(1, 'dave@example.org', $QUEUED);
    mail(1, 'erin@example.org', $EXCEEDED);
    mail(2, 'erin@example.org', $EXCEEDED);
    text('', '   The "250" is the relay\'s own; nothing is queued here.');
}


sub refused_by_relay {
    step('The newsletter takes another route, and pays only for what is'
        . ' accepted');

    $RELAY{c}->set(rcpt =>
        { match => 'nobody@', action => '550 5.1.1 No such user' });

    my $c = session($NEWS);

    text('');
    said('to ann@example.net', send_mail($c, 'news@lists.example.com',
        'ann@example.net'), $QUEUED);

    my $before = used($NEWS);

    said('to nobody@example.net', send_mail($c, 'news@lists.example.com',
        'nobody@example.net'), qr/^550 5\.1\.1 No such user/);
    $c->quit();

    # taken back without anybody waiting for it
    my $after = wait_for(sub { my $n = used($NEWS); $n == $before && $n });

    check('messages charged', ($after || used($NEWS)) . ' of 3',
        $before == 1 && $after);
}


sub raise_limit {
    step('The limit is raised while all runs; the sessions are still open');

    text('');
    redis_cli('HSET', "mail:limit:user:{$ALICE}", 'messages', '5/1h');

    text('');
    mail(1, 'erin@example.org', $QUEUED);
    mail(2, 'frank@example.org', $QUEUED);
    mail(1, 'grace@example.org', $EXCEEDED);
    check('messages charged', used($ALICE) . ' of 5', used($ALICE) == 5);

    $_->quit() for @SESSION;
}


sub look_at_log {
    my @expected = ('535 -', '250 outbound', '250 outbound', '250 outbound',
        '450 outbound', '450 outbound', '250 bulk', '550 bulk',
        '250 outbound', '250 outbound', '450 outbound');

    my @log = @{ wait_for(sub {
        my @lines = access_log();
        return @lines >= @expected && \@lines;
    }) || [ access_log() ] };

    step('What the access log says: a line of JSON each, here as a table');

    my $form = '   %-22s  %-20s  %-8s  %-10s  %s';

    text('', sprintf($form, 'sender', 'accepted for', 'outcome', 'relay',
        'limit'));
    text(sprintf($form, log_columns($_))) for @log;
    text('', '   A relay is asked while Redis is; where a limit refuses, it is'
        . ' told RSET.', '');

    my @found = map { ($_->{status} // '-') . ' '
        . ($_->{upstream_name} // '-') } @log;

    check('lines in the log', scalar @log, "@found" eq "@expected");
    check('login in each of them', 'yes',
        !grep { !$PASSWORD{ $_->{sasl_username} // '' } } @log);
    check('all of them under TLS', 'ESMTPSA',
        !grep { ($_->{protocol} // '') ne 'ESMTPSA' } @log);
}


sub look_at_page {
    step("What the status page says: http://127.0.0.1:$PORT{http}/");
    text('');

    my $says = status();
    my @counts = @{ $says->{transactions} }{qw(accepted deferred rejected)};
    my ($near) = grep { $_->{unit} eq 'messages' } @{ $says->{near} };

    check('accepted, deferred, rejected', "@counts", "@counts" eq '6 3 1');
    check('PLAIN, refused', $says->{auth}{PLAIN}{failure},
        $says->{auth}{PLAIN}{failure} == 1);
    check('refused by the limit "user"', $says->{limits}[0]{defer},
        $says->{limits}[0]{defer} == 3);
    check('nearest to it', $near->{key} // 'nobody',
        ($near->{key} // '') eq $ALICE);
    check('Redis', $says->{store}{state}, $says->{store}{state} eq 'up');
}


sub look_at_relays {
    step('What the relays have');
    text('');

    my @outbound = map { $RELAY{$_}->messages() } qw(a b);
    my @bulk = $RELAY{c}->messages();

    check('messages at a and b, in turn',
        join(' and ', map { scalar($RELAY{$_}->messages()) } qw(a b)),
        @outbound == 5 && !grep { !$RELAY{$_}->messages() } qw(a b));
    check('all of them from Alice', 'yes',
        !grep { $_->{from} ne $ALICE } @outbound);
    check('messages at c, the newsletter', scalar @bulk, @bulk == 1
        && $bulk[0]{from} eq 'news@lists.example.com');

    my %login = map { ($_->{xclient}{LOGIN} // '-') => 1 } @outbound;

    check('they know the login, by XCLIENT', join(' ', sort keys %login),
        keys %login == 1 && $login{$ALICE});

    my @faults = map { $RELAY{$_}->faults() } qw(a b c);

    check('faults in what they were told', @faults ? "@faults" : 'none',
        !@faults);
}


sub stop {
    my $status = $NGINX->stop();

    check('nginx ended', 'in peace', defined $status && $status == 0);
}


sub quiet {
    my @lines = $NGINX->error_log() =~ /^(.*\[(?:alert|emerg|crit)\].*)$/mg;

    check('alerts in its error log', @lines ? "@lines" : 'none', !@lines);
}


sub how_to_talk {
    my $redis = "redis-cli -p $PORT{redis}";

    text('', 'It goes on running.  Send a mail; Alice has used up hers, so it'
        . ' is refused:', '',
        "    swaks --server 127.0.0.1:$PORT{smtp} --tls --auth PLAIN \\",
        "        --auth-user $ALICE --auth-password $PASSWORD{$ALICE} \\",
        "        --from $ALICE --to bob\@example.net", '',
        'Give her more, and send it again; look at what she has used:', '',
        "    $redis HSET 'mail:limit:user:{$ALICE}' messages 100/1h",
        "    $redis HGETALL 'mail:used:user:{$ALICE}'", '',
        'See all of it in a browser, or as JSON, or as Prometheus does:', '',
        "    http://127.0.0.1:$PORT{http}/",
        "    curl -s http://127.0.0.1:$PORT{http}/ | jq .near",
        "    curl -s 'http://127.0.0.1:$PORT{http}/?format=prometheus'", '',
        "In $DIR:", '',
        '    access.log              one line for each transaction, and for a'
            . ' session refused before one',
        "    nginx.conf              after a change: kill -HUP $NGINX->{pid}",
        '    relay-*/*.transcript    what the relays were told', '',
        'Stop all of it, and remove that directory:', '',
        "    kill $$", '');
}


# mails


sub session {
    my ($login) = @_;

    my $c = MailPolicy::Client->new(port => $PORT{smtp});

    $c->greeting();
    $c->ehlo('laptop.example.com');
    $c->starttls();
    $c->ehlo('laptop.example.com');

    my $reply = $c->auth_plain($login, $PASSWORD{$login});

    die "$login cannot log in: $reply\n" unless $reply =~ /^235/;
    return $c;
}


# the reply that decided, be it to MAIL, to RCPT or to the message

sub send_mail {
    my ($c, $from, $to) = @_;

    my @replies = $c->send_mail($from, [ $to ],
        "From: <$from>\nTo: <$to>\nSubject: hello\n\nHello.\n");

    return $replies[-1];
}


# from Alice, in one of her sessions

sub mail {
    my ($number, $to, $expected) = @_;

    said("session $number, to $to",
        send_mail($SESSION[$number - 1], $ALICE, $to), $expected);
}


# what a window has charged; see policies/README.md

sub used {
    my ($login) = @_;

    my $counter = $REDIS->cmd('HGET', "mail:used:user:{$login}", 'messages')
        // '';
    my $sum = 0;

    $sum += $1 while $counter =~ /:(\d+)/g;
    return $sum;
}


sub access_log {
    my $json = JSON::PP->new()->utf8();

    return map { $json->decode($_) }
        split(/\n/, MailPolicy::Nginx::slurp("$DIR/access.log"));
}


sub status {
    my $answer = HTTP::Tiny->new(timeout => 10)
        ->get("http://127.0.0.1:$PORT{http}/");

    die "the status page: $answer->{status} $answer->{reason}\n"
        unless $answer->{success};

    return JSON::PP->new()->utf8()->decode($answer->{content});
}


sub log_columns {
    my ($line) = @_;

    my %name = map { ("127.0.0.1:$PORT{$_}" => $_) } qw(a b c);
    my $relay = $name{ $line->{upstream_addr} // '' } // '-';
    my $limit = $line->{limit}
        ? "$line->{limit} $line->{limit_used}/$line->{limit_max}" : '';

    # a session without a transaction has no sender
    return ($line->{sender} // '(login refused)', $line->{to}[0] // '-',
        ($line->{outcome} // '-'), ($line->{upstream_name} // '-')
        . " $relay", $limit);
}


# what people read


sub text { print map { s/ +$//r . "\n" } @_ }


{
    my $number = 0;

    sub step {
        my $line = ++$number . ". $_[0]";

        $line = "\e[1m$line\e[0m" if -t STDOUT && !exists $ENV{NO_COLOR};
        text('', $line);
    }
}


# a reply of the edge, and whether it is the right one

sub said {
    my ($what, $reply, $expected) = @_;

    $reply //= 'no reply';
    check($what, (split(/\n/, $reply))[-1], scalar($reply =~ $expected),
        "expected /$expected/");
}


# a scalar each: a match that fails is nothing at all in a list

sub check {
    my ($what, $value, $right, $expected) = @_;

    die "check: $what\n" unless @_ == 3 || @_ == 4 && $expected =~ /^expected/;

    text(sprintf('   %-5s  %-32s  %s', $right ? 'ok' : 'WRONG', $what,
        $value));

    push @WRONG, "$what: $value" . ($expected ? " ($expected)" : '')
        unless $right;
}


sub say_wrong {
    my ($why) = @_;

    chomp($why);
    push @WRONG, $why;
}


sub last_words {
    text('', 'This was wrong:', '', map { "   $_" } @WRONG);

    # what did not start has said so already
    my $words = $NGINX && $NGINX->pid() ? $NGINX->last_words() : '';
    text('', 'The end of the error log of nginx:', '', $words) if $words;
}


# runs a command of an operator, and shows it

sub redis_cli {
    my @command = ('redis-cli', '-p', $PORT{redis}, @_);
    my $line = join(' ', map { /[^\w\/.:@-]/ ? "'$_'" : $_ } @command);

    # of a hash its beginning is enough
    $line =~ s/(\$6\$\w{4})[^']*/$1.../;

    open(my $fh, '-|', @command) or die "redis-cli: $!\n";
    my $answer = do { local $/; <$fh> } // '';
    close($fh) or die "redis-cli: $answer\n";

    text("   \$ $line");
}


# what runs


sub head {
    my $globals = $ENV{TEST_NGINX_GLOBALS}
        // "load_module /usr/lib/nginx/modules/ngx_mail_module.so;\n"
        . "load_module $ROOT/build/module/ngx_mail_policy_module.so;\n";

    return <<"EOF";
${globals}daemon            off;
worker_processes  1;
pid               $DIR/nginx.pid;
error_log         $DIR/error.log info;
events            { worker_connections 256; }

EOF
}


sub mail_block {
    return <<"EOF";
mail {
    server_name      edge.example.com;
    ssl_certificate      $DIR/edge.crt;
    ssl_certificate_key  $DIR/edge.key;

    policy_redis     redis://127.0.0.1:$PORT{redis}/0;
    access_log       $DIR/access.log;

    upstream outbound {
        server  127.0.0.1:$PORT{a};
        server  127.0.0.1:$PORT{b};
    }

    upstream bulk {
        server  127.0.0.1:$PORT{c};
    }

    map \$sender_domain \$relay {
        default            outbound;
        lists.example.com  bulk;
    }

    policy_limit  user  key=\$sasl_username  messages=3/1h;

    server {
        listen       127.0.0.1:$PORT{smtp};
        protocol     smtp;
        starttls     only;

        policy       on;
        policy_auth  redis;
        proxy_pass   \$relay;
    }
}
EOF
}


sub http_block {
    return <<"EOF";

http {
    access_log  off;

    server {
        listen  127.0.0.1:$PORT{http};
        location / { policy_status; }
    }
}
EOF
}


sub certificate {
    my $log = "$DIR/openssl.log";
    my $status = wait_exit(spawn($log, 'openssl', 'req', '-x509', '-newkey',
        'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '30',
        '-subj', '/CN=edge.example.com', '-keyout', "$DIR/edge.key",
        '-out', "$DIR/edge.crt"), 20);

    die "openssl makes no certificate:\n" . MailPolicy::Nginx::slurp($log)
        unless defined $status && $status == 0;
}


sub random_salt {
    my @letters = ('a' .. 'z', 'A' .. 'Z', 0 .. 9);

    return join('', map { $letters[rand @letters] } 1 .. 16);
}


sub write_file {
    my ($name, $text) = @_;

    open(my $fh, '>', $name) or die "$name: $!\n";
    print $fh $text;
    close($fh) or die "$name: $!\n";
}


sub wait_for {
    my ($code) = @_;

    my $end = time() + 10;

    while (1) {
        my $result = $code->();
        return $result if $result || time() >= $end;
        sleep(0.02);
    }
}


# With --keep all runs in a child that has left the terminal, so that it
# stays when the terminal goes; the parent waits until it is ready, or gone.
# Returns where the child is to say that it is ready.

sub go_behind {
    pipe(my $read, my $write) or die "pipe: $!\n";

    my $pid = fork();
    die "fork: $!\n" unless defined $pid;

    if ($pid == 0) {
        close($read);
        POSIX::setsid();
        return $write;
    }

    close($write);
    $SIG{$_} = sub { kill('TERM', $pid) } for qw(HUP INT TERM);

    exit(0) if defined readline($read);

    waitpid($pid, 0);
    exit($? ? 1 : 0);
}


END {
    if (defined $OWNER && $OWNER == $$) {
        my $status = $?;

        alarm(0);
        $NGINX->kill_now() if $NGINX;
        $RELAY{$_} && $RELAY{$_}->stop() for qw(a b c);
        $REDIS->stop() if $REDIS;
        remove_tree($DIR);

        $? = $status;
    }
}
