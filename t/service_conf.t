#!/usr/bin/perl

# policy_service in "nginx -t": each parameter with what may be written, and
# with mistakes, of which the message says what to write instead; and which
# servers have which services.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Test::More;

use MailPolicy;

my $t = MailPolicy->new();


# what nginx says to a server with these directives

sub check {
    my ($server, $mail, $protocol) = @_;

    $mail //= '';
    $protocol //= "protocol smtp; policy on; policy_auth off;
        proxy_pass 127.0.0.1:25;";

    return $t->check_conf(<<"EOF");
mail {
    policy_redis  redis://127.0.0.1:6379/0;
    policy_limit  user key=\$sender messages=1/1h;

    map \$recipient_domain \$picky  { default 1; }
    map \$status           \$after  { default 1; }
    map \$client_net       \$near   { default 1; }

    policy_lookup \$grey   grey:\$sender;
    policy_lookup \$rgrey  grey:\$recipient;

    $mail

    server {
        listen  127.0.0.1:%%PORT_smtp%%;
        $protocol
        $server
    }
}
EOF
}


sub name {
    return substr(join(' ', grep { $_ } @_), 0, 100)
        =~ s/\s+/ /gr =~ s/[^ -~]/?/gr;
}


# exactly one line, with a place in a file

sub bad {
    my ($server, $expected, @rest) = @_;

    local $Test::Builder::Level = $Test::Builder::Level + 1;

    my ($passed, $output) = check($server, @rest);
    my @emerg = grep { /\[emerg\]/ } split(/\n/, $output);

    ok(!$passed && @emerg == 1 && $emerg[0] =~ $expected
        && $emerg[0] =~ /in \S+:\d+$/, 'bad: ' . name($server, @rest))
        or diag($output);
}


sub good {
    my ($server, @rest) = @_;

    local $Test::Builder::Level = $Test::Builder::Level + 1;

    my ($passed, $output) = check($server, @rest);

    ok($passed && $output !~ /\[(?:warn|error|emerg)\]/,
        'good: ' . name($server, @rest)) or diag($output);
}


# where it is

my $form = qr/: write "unix:\/path", "inet:host:port" or "off"/;
my $port = qr/no port in policy_service "inet:[^"]*": write "inet:host:port"/;

for my $case (
    [ '', qr/invalid number of arguments in "policy_service"/ ],
    [ '""', $form ],
    [ 'on', $form ],
    [ '127.0.0.1:10023', $form ],
    [ 'unix:', $form ],
    [ 'unix:private/policy', $form ],
    [ 'inet:', $form ],
    [ 'INET:127.0.0.1:10023', $form ],
    [ 'http://127.0.0.1:10023/', $form ],
    [ 'inet:127.0.0.1', $port ],
    [ 'inet:[::1]', $port ],
    [ 'inet:127.0.0.1:0', qr/invalid port in policy_service "inet:127/ ],
    [ 'inet:127.0.0.1:65536', qr/invalid port in policy_service/ ],
    [ 'inet:127.0.0.1:postgrey', qr/invalid port in policy_service/ ],
    [ 'inet::10023', qr/no host in policy_service "inet::10023"/ ],
    [ 'inet:[::1:10023', qr/invalid host in policy_service/ ],
    [ 'inet:127.0.0.1:10023/path', qr/invalid \w+ in policy_service/ ],
    [ 'inet:nobody.invalid:10023',
        qr/host not found in policy_service "inet:nobody.invalid:10023"/ ],
    [ 'unix:/' . ('x' x 200), qr/too long path in the unix domain socket in / ],
) {
    bad("policy_service $case->[0];", $case->[1]);
}

good("policy_service $_;") for 'unix:/var/spool/postfix/private/policy',
    'inet:127.0.0.1:10023', 'inet:[::1]:10023', 'inet:localhost:10023', 'off';

# parameters

my $text = qr/: write DUNNO, OK, REJECT, DEFER, DEFER_IF_PERMIT, or a code/;
my $time = qr/: write 10ms to 5m, as "timeout=30s"/;
my $many = qr/: write 1 to 1000, so many at a time and worker/;
my $point = qr/: write "at=rcpt", "at=data" or "at=end"/;

for my $case (
    [ 'color=red', qr/invalid parameter "color=red": policy_service has at=/ ],
    [ 'rcpt', qr/invalid parameter "rcpt": policy_service has at=, default/ ],
    [ 'AT=rcpt', qr/invalid parameter "AT=rcpt"/ ],
    [ 'at=', $point ],
    [ 'at=mail', qr/invalid parameter "at=mail"$point/ ],
    [ 'at=RCPT', $point ],
    [ 'at=rcpt at=data', qr/has more than one "at="/ ],
    [ 'default_action=', $text ],
    [ 'default_action=maybe', qr/"default_action=maybe"$text/ ],
    [ '"default_action=PREPEND X-Policy: away"', $text ],
    [ 'default_action=DEFER_IF_REJECT', $text ],
    [ 'default_action=HOLD', $text ],
    [ 'default_action=DISCARD', $text ],
    [ '"default_action=FILTER smtp:[127.0.0.1]:10025"', $text ],
    [ '"default_action=WARN away"', $text ],
    [ '"default_action=INFO away"', $text ],
    [ 'default_action=451 4.3.0 Later', qr/"4.3.0": .* needs quotes around t/ ],
    [ 'default_action=OK default_action=OK', qr/more than one "default_act/ ],
    [ 'timeout=', $time ],
    [ 'timeout=0', $time ],
    [ 'timeout=9ms', $time ],
    [ 'timeout=301s', qr/invalid parameter "timeout=301s"$time/ ],
    [ 'timeout=soon', $time ],
    [ 'timeout=-1', $time ],
    [ 'timeout=1s timeout=1s', qr/has more than one "timeout="/ ],
    [ 'connections=', $many ],
    [ 'connections=0', qr/invalid parameter "connections=0"$many/ ],
    [ 'connections=-1', $many ],
    [ 'connections=1001', $many ],
    [ 'connections=many', $many ],
    [ 'connections=1 connections=1', qr/has more than one "connections="/ ],
    [ 'if=', qr/"if=" is not a variable: write as "if=\$limited"/ ],
    [ 'if=1', qr/"if=1" is not a variable/ ],
    [ 'if=x$near', qr/"if=x\$near" is not a variable/ ],
    [ 'if=$nobody', qr/unknown "nobody" variable/ ],
    [ 'if=$near if=$near', qr/has more than one "if="/ ],
    [ 'if=$status', qr/"if=\$status" of policy_service "inet:127.0.0.1:1" (?#
        )is not known before the end of a transaction/ ],
    [ 'if=$after', qr/"if=\$after" of .* is not known before the end/ ],
    [ 'at=data if=$recipient', qr/is of a recipient, and the service is (?#
        )asked about a whole message: write "at=rcpt"/ ],
    [ 'at=end if=$picky', qr/"if=\$picky" of .* is of a recipient/ ],
    [ 'at=end if=$rgrey', qr/"if=\$rgrey" of .* is of a recipient/ ],
) {
    bad("policy_service inet:127.0.0.1:1 $case->[0];", $case->[1]);
}

good("policy_service inet:127.0.0.1:1 $_;") for
    qw(at=rcpt at=data at=end timeout=10ms timeout=5m timeout=90
        connections=1 connections=1000 default_action=DUNNO
        default_action=dunno default_action=OK default_action=reject
        default_action=DEFER default_action=DEFER_IF_PERMIT
        default_action=450 if=$picky if=$recipient if=$grey if=$rgrey),
    'at=data if=$near', 'at=end if=$grey', 'at=end if=$sender_domain',
    '"default_action=451 4.3.0 Later"', '"default_action=550 No"',
    '"default_action=REJECT 5.7.1 No"', '"default_action=421 4.3.0 Away"',
    'at=end "default_action=DEFER 4.3.0 a" timeout=1s connections=5 if=$near';

# one service in several lines

good('policy_service unix:/a at=rcpt; policy_service unix:/a at=end;');
good('policy_service unix:/a connections=5; policy_service unix:/a at=end;');
good('policy_service unix:/a; policy_service unix:/a connections=5 at=end;');
bad('policy_service unix:/a connections=5;
     policy_service unix:/a connections=6;', qr/"connections=6" of (?#
    )policy_service "unix:\/a" is 5 in another line: they are the same/);

# levels

bad('policy_service off; policy_service unix:/a;',
    qr/stands beside "policy_service off": leave one of them out/);
bad('policy_service unix:/a; policy_service off;',
    qr/"off" stands beside another one: leave one of them out/);
bad('policy_service off; policy_service off;', qr/is duplicate/);
bad('policy_service off at=rcpt;', qr/"policy_service off" has none/);

good('policy_service off;', 'policy_service unix:/a;');
good('policy_service unix:/a;', 'policy_service off;');
good('', 'policy_service off;');

# what is inherited is looked at where it is used

bad('', qr/"if=\$status" of policy_service "unix:\/a"/,
    'policy_service unix:/a if=$status;');
good('policy_service off;', 'policy_service unix:/a if=$status;');
good('policy_service unix:/a;', 'policy_service unix:/b if=$status;');

# servers that ask nobody

for my $line ('policy_service unix:/a;', 'policy_service off;') {
    bad($line, qr/"policy_service" is for sessions of SMTP: write it in a (?#
        )server with "protocol smtp"/, '', 'protocol policy;');
}

good('', 'policy_service unix:/a;', 'protocol policy;');
good('', 'policy_service unix:/a if=$status;', 'protocol policy;');

$t->done();
