package MailPolicy::Bytes;

# Messages whose octets a limit counts, by DATA and by chunks.

use strict;
use warnings;

use Exporter qw(import);

our @EXPORT_OK = qw(octets mail data bdat @to);


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
