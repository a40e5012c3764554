#!/usr/bin/perl

# A real Postfix asks at RCPT, at DATA, at END-OF-MESSAGE, and at all of them,
# by TCP and, in a chroot, by a unix socket in its queue: limits are hit at
# the right message, recipient and octet, the client reads why, and what is
# delivered is what was charged.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Test::More;
use Time::HiRes qw(sleep);

use MailPolicy;
use MailPolicy::Limits qw(codes is_used used);
use MailPolicy::Postfix;

my $missing = MailPolicy::Postfix::missing();
plan(skip_all => $missing) if $missing;

my $t = MailPolicy->new();
my $redis = $t->run_redis();

my @STAGES = qw(rcpt data end all);
my %ASKS = (rcpt => [ 'recipient' ], data => [ 'data' ],
    end => [ 'end_of_data' ], all => [ qw(recipient data end_of_data) ]);

# where it asks at DATA, it does so twice; recipients that others refuse, in
# front of the question and behind it.  Spaces are commas in master.cf.

sub smtpd {
    my ($stage, $service) = @_;

    my $ask = "check_policy_service,$service";
    my %asks = (data => "$ask,$ask", end_of_data => $ask, recipient => $ask);
    my %told = map { $_ => $asks{$_} } @{ $ASKS{$stage} };

    $told{recipient} = join(',',
        'check_recipient_access', 'inline:{no@example.net=REJECT}',
        $told{recipient} // (),
        'check_recipient_access', 'inline:{late@example.net=REJECT}');

    return [ map { "smtpd_${_}_restrictions=$told{$_}" } sort keys %told ];
}

my %SERVICE = (unix => 'unix:private/policy',
    inet => 'inet:127.0.0.1:' . $t->port('policy'));

my $postfix = MailPolicy::Postfix->new($t, chroot => 1,
    smtpd => { map { my $stage = $_; map { ("${stage}_$_" =>
        smtpd($stage, $SERVICE{$_})) } keys %SERVICE } @STAGES },
    main => [ 'smtpd_error_sleep_time = 0', 'smtpd_soft_error_limit = 100',
              'smtpd_hard_error_limit = 100' ]);

$t->conf(<<'END');
worker_processes 2;

mail {
    policy_redis  redis://127.0.0.1:%%PORT_redis%% timeout=5s;

    map $sender_domain $strict { strict.example  $sender; }
    map $sender_domain $words  { words.example   $sender; }
    map $sender_domain $soon   { soon.example    $sender; }
    map $sender_domain $octets { octets.example  $sender; }

    policy_limit  sender  key=$sender  messages=1000/1h  recipients=1000/1h;
    policy_limit  strict  key=$strict  messages=1/1h  on_exceed=reject;
    policy_limit  words   key=$words   messages=1/1h
                          "message=Enough, $sender: see https://example.com/";
    policy_limit  soon    key=$soon    messages=1/3s;
    policy_limit  octets  key=$octets  bytes=10000/1h;

    server {
        listen    127.0.0.1:%%PORT_policy%%;
        listen    unix:%%DIR%%/postfix/queue/private/policy;
        protocol  policy;
    }
}
END
$t->run_nginx();


sub send_to {
    my ($c, $from, $to, %option) = @_;

    my @rcpts = map { "$_\@example.net" } ref $to ? @$to
        : map { "r$_" } 1 .. $to;
    my @replies = $c->send_mail($from, \@rcpts,
        $option{text} // "Subject: x\n\nx\n", %option);

    # it goes on with the recipients that it has
    $c->cmd('RSET') if $replies[-1] !~ /^2/;
    return @replies;
}

sub limit {
    my ($sender, @rates) = @_;

    $redis->cmd('HSET', "mail:limit:sender:{$sender}", @rates);
}

# what of it was delivered, and what Redis has of it

sub is_charged {
    my ($what, $sender, $messages, $recipients) = @_;

    local $Test::Builder::Level = $Test::Builder::Level + 1;

    my $sent;
    $t->wait_for(sub {
        $sent = join(' ', $postfix->delivered($sender));
        return $sent eq "$messages $recipients";
    }, 5);

    is($sent, "$messages $recipients", "$what: delivered");
    is_used($redis, "$what: charged", 'sender', $sender, timeout => 5,
        messages => $messages, recipients => $recipients);
}

# what Postfix puts around what it is told

my %AROUND = (
    rcpt => '<%s@example.net>: Recipient address rejected: ',
    data => '<DATA>: Data command rejected: ',
    end  => '<END-OF-MESSAGE>: End-of-data rejected: ',
);
$AROUND{all} = $AROUND{rcpt};

sub refusal {
    my ($stage, $code, $text, $recipient) = @_;

    return "$code " . ($AROUND{$stage} =~ s/%s/$recipient \/\/ 'r1'/er)
        . $text;
}

sub exceeded {
    my ($stage, $limit, $recipient) = @_;

    my $text = quotemeta(refusal($stage, '450 4.7.1',
        "Rate limit \"$limit\" exceeded, retry in ", $recipient));
    return qr/^$text(?:3[56]\d\d|[1-4]) s$/;
}

# how many replies a message with one recipient has, if it is refused
my %REPLIES = (rcpt => 2, all => 2, data => 3, end => 4);


sub messages {
    my ($stage, $port, $c) = @_;

    my $from = "m-$port\@example.com";

    limit($from, messages => '3/1h');
    is(codes(send_to($c, $from, 1)), '250 250 354 250', "$port: message $_")
        for 1 .. 3;

    my @replies = send_to($c, $from, 1);
    is(scalar @replies, $REPLIES{$stage}, "$port: the fourth one ends early");
    like($replies[-1], exceeded($stage, 'sender'), "$port: and is deferred");
    is_charged("$port, three messages", $from, 3, 3);
}


sub recipients {
    my ($stage, $port, $c) = @_;

    my $from = "r-$port\@example.com";

    limit($from, recipients => '5/1h');
    is(codes(send_to($c, $from, 3)), '250 250 250 250 354 250',
        "$port: three recipients");
    my @replies = send_to($c, $from, 3);

    if ($stage eq 'data' || $stage eq 'end') {
        like($replies[-1], exceeded($stage, 'sender'),
            "$port: three more are too many");
        is_charged("$port, none of them", $from, 1, 3);
        is(codes(send_to($c, $from, 2)), '250 250 250 354 250',
            "$port: two are not");

    } else {
        is(codes(@replies), '250 250 250 450 354 250', "$port: two more");
        like($replies[3], exceeded($stage, 'sender', 'r3'),
            "$port: the third one is deferred");
    }

    is_charged("$port, five recipients", $from, 2, 5);
}


# recipients that other restrictions refuse: Postfix does not say so of those
# that were asked for before

sub others {
    my ($stage, $port, $c) = @_;

    my $from = "o-$port\@example.com";
    my $late = $stage eq 'rcpt' || $stage eq 'all';

    is(codes(send_to($c, $from, [ qw(no a no b no c) ])),
        '250 554 250 554 250 554 250 354 250', "$port: some are refused");
    is_charged("$port, refused in front", $from, 1, 3);

    is(codes(send_to($c, $from, [ 'a', 'late' ])), '250 250 554 354 250',
        "$port: one is refused behind it");
    is_used($redis, "$port, refused behind it: charged", 'sender', $from,
        messages => 2, recipients => $late ? 5 : 4, timeout => 5);

    # what a client does not send after all
    is(codes(send_to($c, $from, [ 'no' ]), send_to($c, $from, [])),
        '250 554 250', "$port: nobody is left");
    is_used($redis, "$port, nobody is left: not charged", 'sender', $from,
        messages => 2, recipients => $late ? 5 : 4, timeout => 5);
}


sub words {
    my ($stage, $port, $c) = @_;

    my $from = "w$port\@strict.example";

    is(codes((send_to($c, $from, 1))[-1]), '250', "$port: strict, one");
    my $reply = (send_to($c, $from, 1))[-1];
    is($reply =~ s/, retry in \d+ s$//r, refusal($stage, '554 5.7.1',
        'Rate limit "strict" exceeded'), "$port: the second one is refused");

    $from = "w$port\@words.example";
    is(codes((send_to($c, $from, 1))[-1]), '250', "$port: words, one");
    is((send_to($c, $from, 1))[-1], refusal($stage, '450 4.7.1',
        "Enough, $from: see https://example.com/"), "$port: words of a limit");
}


# octets: Postfix tells what was declared, at the end what there was

sub octets {
    my ($stage, $port, $c) = @_;

    my $from = "o$port\@octets.example";
    my $text = sub { 'Subject: x' . "\n\n" . ('x' x 78 . "\n") x $_[0] };
    my $charged = sub { used($redis, 'octets', $from, 'bytes') };

    # with what Postfix puts in front
    is(codes((send_to($c, $from, 1, text => $text->(75),
        parameters => 'SIZE=6014'))[-1]), '250', "$port: 6000 octets");
    my $first = $charged->();
    cmp_ok(abs($first - 6150), '<', $stage =~ /end/ ? 150 : 200,
        "$port: are charged");

    my @replies = send_to($c, $from, 1, text => $text->(75),
        parameters => 'SIZE=6014');
    is(scalar @replies, $REPLIES{$stage}, "$port: 6000 more end early");
    like($replies[-1], exceeded($stage, 'octets'), "$port: and do not fit");
    is($charged->(), $first, "$port: and cost nothing");

    is(codes((send_to($c, $from, 1, text => $text->(30),
        parameters => 'SIZE=2414'))[-1]), '250', "$port: 2400 do");
    like((send_to($c, $from, 1, text => "x\n", parameters => 'SIZE=20000'))[1],
        $stage =~ /rcpt|all/ ? qr/^554 5\.3\.4 / : qr/^250 /,
        "$port: 20000 never will");
}


for my $port (map { my $stage = $_; map { "${stage}_$_" } sort keys %SERVICE }
    @STAGES)
{
    my ($stage) = $port =~ /^([a-z]+)/;
    my $c = $t->session($port);

    messages($stage, $port, $c);
    recipients($stage, $port, $c);
    others($stage, $port, $c);
    words($stage, $port, $c);
    octets($stage, $port, $c);
    like($c->quit(), qr/^221/, "$port: the session goes on");
}


# a window that moves on

my $longest = 0;
my %soon = map { $_ => $t->session("${_}_inet") } @STAGES;
my @SOON = map { [ $soon{$_}, "$_\@soon.example", 1 ] } @STAGES;

is(codes((send_to(@$_))[-1]), '250', "$_->[1]: one") for @SOON;

for my $stage (@STAGES) {
    my $reply = (send_to($soon{$stage}, "$stage\@soon.example", 1))[-1];

    like($reply, exceeded($stage, 'soon'), "$stage: another one is too soon");
    my ($wait) = $reply =~ /(\d+) s$/;
    $longest = $wait if ($wait // 0) > $longest;
}

sleep($longest);
is(codes((send_to(@$_))[-1]), '250', "$_->[1]: later it is not") for @SOON;

$postfix->stop();
$t->done();
