package MailPolicy::Example;

# Configurations that are printed somewhere, and run as they are.  Only what
# a test's machine has not is changed, without looking at what it means:
#
#     load_module, error_log      left out, the test has its own
#     /etc/nginx/ and the like    the test's directory
#     listen 587                  listen 127.0.0.1:%%PORT_listen_587%%
#     10.0.0.11:25, name:25       127.0.0.1:%%PORT_at_10_0_0_11_25%%, wherever
#                                 it stands
#
# So a relay for 10.0.0.11:25 is $t->run_relay(name => 'at_10_0_0_11_25').

use strict;
use warnings;

use Exporter qw(import);

our @EXPORT_OK = qw(at commands complete_text example_text run_example
    runnable);


sub at { return 'at_' . $_[0] =~ s/\W/_/gr }


# the configuration that README.md prints whole

sub complete_text {
    my ($t) = @_;

    my ($text) = $t->read_file($t->root() . '/README.md')
        =~ /^## A complete example\n.*?^```nginx\n(.*?)^```$/ms;

    return $text;
}


sub example_text {
    my ($t, $name) = @_;

    return $t->read_file($t->root() . "/policies/examples/$name");
}


sub runnable {
    my ($text) = @_;

    $text =~ s{^(?:load_module|error_log) .*\n}{}mg;
    $text =~ s{/(?:etc/nginx|etc/ssl/certs|var/log/nginx)/}{%%DIR%%/}g;

    $text =~ s{^(\s*listen +)(?:[\d.]+:)?(\d+)}
              {$1 . "127.0.0.1:%%PORT_listen_$2%%"}mge;

    $text =~ s{^(?!\s*(?:\#|listen ))(.*)}{addresses($1)}mge;

    return $text;
}


sub addresses {
    my ($line) = @_;

    return $line =~ s{\b((?:\w[\w-]*\.)+\w+:\d+)\b}
                     {'127.0.0.1:%%PORT_' . at($1) . '%%'}gre;
}


# Writes the configuration, with a Redis and a relay for each address in it,
# but for those in option "without", and runs nginx: the Redis, and relays by
# their printed addresses.  relay => { ... }: what they are, see
# MailPolicy::Relay.

sub run_example {
    my ($t, $printed, %option) = @_;

    my $text = $printed;
    my %without = map { $_ => 1 } @{ $option{without} || [] };
    my ($redis, %relay);

    if ($text =~ m{redis://(?:[^\s/]*@)?([\w.]+:\d+)}) {
        $redis = $t->run_redis(name => at($1));
    }

    $text =~ s/^\s*#.*//mg;

    for my $address ($text =~ /\b(?:server|proxy_pass) +([\w.-]+:\d+)/g) {
        $relay{$address} //= $t->run_relay(name => at($address),
                %{ $option{relay} || {} })
            unless $without{$address};
    }

    $t->certificate('mail') if $text =~ m{/mail\.crt};
    $t->conf(runnable($printed));
    $t->run_nginx();

    return ($redis, \%relay);
}


# the lines of redis-cli at its head, as words; hash: of the password that is
# asked for

sub commands {
    my ($text, $hash) = @_;

    my @lines = $text =~ /^#     redis-cli ((?:.*\\\n#)*.*)/mg;

    return map {
        [ map { /openssl/ ? $hash : s/^(['"])(.*)\1\z/$2/r }
            s/\\\n# +//gr =~ /'[^']*'|"[^"]*"|\S+/g ]
    } grep { !/^--eval/ } @lines;
}


1;
