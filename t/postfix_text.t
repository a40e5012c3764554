#!/usr/bin/perl

# The answer to a policy request, whatever is in it: one line of printable
# ASCII and at most 512 octets with the empty line behind it, and never a
# status without text (CVE-2026-43964 of Postfix).

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use Test::More;

use MailPolicy;
use MailPolicy::Policy;

my $t = MailPolicy->new();

$t->conf(<<'EOF');
mail {
    map $sender_domain $empty  { empty.example   $sender; }
    map $sender_domain $plain  { plain.example   $sender; }
    map $sender_domain $reject { reject.example  $sender; }
    map $sender_domain $text   { default ""; words.example  "$recipient said so"; }

    policy_limit  plain   key=$plain   messages=1/1h;
    policy_limit  reject  key=$reject  messages=1/1h  on_exceed=reject
                          "message=$recipient";
    policy_limit  empty   key=$empty   messages=1/1h  "message=$text";

    server {
        listen    127.0.0.1:%%PORT_policy%%;
        protocol  policy;
    }
}
EOF
$t->run_nginx();

my $p = MailPolicy::Policy->new($t, 'policy');


sub answer {
    my (%attribute) = @_;

    return 'action=' . $p->message()->ask(%attribute) . "\n\n";
}


my %recipient = (
    'a plain one' => 'bob@example.net',
    'controls'    => "\"b\rob\t\e[31m\x7f\"\@example.net",
    'octets'      => "\xff\xfe\xc3\@example.net",
    'UTF-8'       => "b\xc3\xb6b\@example.net",
    'a long one'  => ('x' x 3000) . '@example.net',
    'blanks'      => '   ',
    'none'        => '',
);

for my $sender (qw(plain reject empty)) {
    my ($action, $class) = $sender eq 'reject' ? ('REJECT', 5)
        : ('DEFER_IF_PERMIT', 4);

    is(answer(sender => "one\@$sender.example"), "action=DUNNO\n\n",
        "$sender: the first message");

    for my $name (sort keys %recipient) {
        my $answer = answer(sender => "one\@$sender.example",
            recipient => $recipient{$name});

        like($answer, qr/\Aaction=$action $class\.\d\.\d+ [!-~][ -~]*\n\n\z/,
            "OUT-4 $sender: one line, of a status and a text: $name");
        cmp_ok(length($answer), '<=', 512, "OUT-4 $sender: short: $name");
    }
}

$t->done();
