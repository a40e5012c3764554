package MailPolicy::Bytes;

# Messages whose octets a limit counts, by DATA and by chunks; an edge that
# does, and what is charged then.

use strict;
use warnings;

use Exporter qw(import);

use MailPolicy::Limits qw(is_used);

our @EXPORT_OK = qw(relays run_edge is_charged octets mail data bdat @to);


# one that has DATA only, and one that has chunks

sub relays {
    my ($t) = @_;

    my @offers = ('PIPELINING', '8BITMIME', 'SIZE', 'ENHANCEDSTATUSCODES');

    return (
        data => $t->run_relay(name => 'data', extensions => [ @offers ]),
        bdat => $t->run_relay(name => 'bdat', extensions => [ @offers,
            'CHUNKING', 'BINARYMIME' ]),
    );
}


# an nginx for a store; servers: port => [ relay, limits and more ]

sub run_edge {
    my ($t, $store, $servers, $lines) = @_;

    my $blocks = join('', map { <<"EOF" } sort keys %$servers);
    server {
        listen        127.0.0.1:%%PORT_${store}_$_%%;
        protocol      smtp;
        proxy_pass    127.0.0.1:%%PORT_$servers->{$_}[0]%%;
        policy_limit  $_ $servers->{$_}[1];
    }
EOF

    $t->conf($store, <<"EOF");
mail {
    $lines
    policy               on;
    policy_auth          off;
    policy_message_size  200k;
$blocks
}
EOF
    $t->run_nginx($store);
}


# in Redis, within a moment: octets, and messages if they are told

sub is_charged {
    my ($redis, $what, $limit, $bytes, $messages, $key) = @_;

    local $Test::Builder::Level = $Test::Builder::Level + 1;

    is_used($redis, $what, $limit, $key // 'a@example.com', timeout => 5,
        bytes => $bytes, defined $messages ? (messages => $messages) : ());
}


# a body of so many octets
sub octets { my ($n) = @_; return 'x' x ($n - 2) . "\r\n" if $n < 900;
             return 'x' x 798 . "\r\n" . octets($n - 800) }

sub mail { my ($size) = @_;
           return 'MAIL FROM:<a@example.com>'
               . (defined $size ? " SIZE=$size" : '') }

our @to = ('RCPT TO:<b@example.net>');


# One message by DATA: the reply that decided it.  $at: called behind 354.

sub data {
    my ($c, $declared, $body, $at, @rcpts) = @_;

    for my $command (mail($declared), @rcpts ? @rcpts : @to, 'DATA') {
        my $reply = $c->cmd($command);
        next if $reply =~ /^[23]/;
        $c->cmd('RSET') unless $command =~ /^MAIL/;
        return $reply;
    }

    $at->() if $at;
    $c->send_raw("$body.\r\n");
    return $c->read_reply();
}


# the same by chunks of these sizes
sub bdat {
    my ($c, $declared, $body, @sizes) = @_;

    my $all = join('', mail($declared) . "\r\n", "$to[0]\r\n");
    my $pos = 0;

    for my $n (0 .. $#sizes) {
        $all .= "BDAT $sizes[$n]" . ($n == $#sizes ? ' LAST' : '') . "\r\n"
            . substr($body, $pos, $sizes[$n]);
        $pos += $sizes[$n];
    }

    $c->send_raw($all);

    my @replies = map { $c->read_reply() } 1 .. 2 + @sizes;
    return (grep({ !/^2/ } @replies), $replies[-1])[0];
}

1;
