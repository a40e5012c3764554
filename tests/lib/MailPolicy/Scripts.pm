package MailPolicy::Scripts;

# policies/charge.lua and policies/giveback.lua in a Redis, at times of the
# test's own making.

use strict;
use warnings;

use Exporter qw(import);

our @EXPORT_OK = qw(used own rate_args);

use constant TIME => "redis.call('TIME')";

my %KIND = (none => 0, window => 1, bucket => 2, unlimited => 3, blocked => 4);


# a MailPolicy::Redis, and the folder of the scripts

sub new {
    my ($class, $redis, $dir) = @_;

    my $self = bless { redis => $redis }, $class;

    for my $name (qw(charge giveback)) {
        my $text = slurp("$dir/counter.lua") . slurp("$dir/$name.lua");
        my $at = index($text, TIME);

        $self->{text}{$name} = $text;
        substr($text, $at, length TIME) = '{ ARGV[#ARGV - 1], ARGV[#ARGV] }';
        $self->{sha}{$name} = $redis->cmd('SCRIPT', 'LOAD', $text);
    }

    return $self;
}


# the script as it is loaded by the module
sub text { return $_[0]{text}{$_[1]} }


sub slurp {
    my ($name) = @_;

    open(my $fh, '<:raw', $name) or die "$name: $!\n";
    local $/;
    return scalar <$fh>;
}


# the keys of a limit, for a key that is always the same

sub used { return "mail:used:$_[0]:{u}" }
sub own  { return "mail:limit:$_[0]:{u}" }


# Both take [ limit, unit, unit... ]..., a unit being [ name, kind, count,
# period, burst, amount ], and return the answer as it is.

sub charge {
    my ($self, $now, @limits) = @_;

    my @keys = map { used($_->[0]), own($_->[0]) } @limits;

    return $self->call('charge', \@keys,
        (map { units_args(@$_) } @limits), now_args($now));
}


sub give_back {
    my ($self, $now, $at, @limits) = @_;

    return $self->call('giveback', [ map { used($_->[0]) } @limits ],
        $at, (map { units_args(@$_) } @limits), now_args($now));
}


sub call {
    my ($self, $script, $keys, @args) = @_;

    return $self->{redis}->cmd('EVALSHA', $self->{sha}{$script},
        scalar(@$keys), @$keys, @args);
}


sub units_args {
    my ($limit, @units) = @_;

    return (scalar(@units), map { rate_args($_) } @units);
}


sub rate_args {
    my ($unit) = @_;

    my ($name, $kind, @rest) = @$unit;
    return ($name, $KIND{$kind}, @rest);
}


sub now_args { my ($now) = @_; return (int($now / 1e6), $now % 1e6) }


1;
