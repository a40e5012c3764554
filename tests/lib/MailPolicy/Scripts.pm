package MailPolicy::Scripts;

# The scripts of policies/ in a Redis, as the module has them, at times of the
# test's own making.

use strict;
use warnings;

use Exporter qw(import);

our @EXPORT_OK = qw(used own lease failed exempt merged messages bytes session
    failure charge_args back_args);

use constant TIME => "redis.call('TIME')";

my %KIND = (none => 0, window => 1, bucket => 2, unlimited => 3, blocked => 4);


# a MailPolicy::Redis, and the folder of the scripts

sub new {
    my ($class, $redis, $dir) = @_;

    my $self = bless { redis => $redis }, $class;

    for my $name (qw(charge giveback renew merge)) {
        my $text = join '', map { slurp("$dir/$_.lua") } pieces($dir, $name);
        my $at = index($text, TIME);

        $self->{text}{$name} = $text;
        substr($text, $at, length TIME) = '{ ARGV[#ARGV - 1], ARGV[#ARGV] }';
        $self->{sha}{$name} = $redis->cmd('SCRIPT', 'LOAD', $text);
    }

    return $self;
}


# the files that a script is made of, as the module's "config" says

sub pieces {
    my ($dir, $name) = @_;

    slurp("$dir/../config") =~ /^ngx_mail_policy_lua_$name="(.*)"$/m
        or die "no $name in config\n";
    return split / /, $1;
}


# the script as it is loaded by the module; and what names the one that takes
# its time from its last two arguments
sub text { return $_[0]{text}{$_[1]} }
sub sha  { return $_[0]{sha}{$_[1]} }


sub slurp {
    my ($name) = @_;

    open(my $fh, '<:raw', $name) or die "$name: $!\n";
    local $/;
    return scalar <$fh>;
}


# the keys of a limit, for a key that is always the same

sub used   { return "mail:used:$_[0]:{u}" }
sub own    { return "mail:limit:$_[0]:{u}" }
sub lease  { return "mail:lease:$_[0]:{u}" }
sub failed { return "mail:failed:$_[0]:{u}" }
sub exempt { return "mail:exempt:$_[0]:{u}" }
sub merged { return "mail:merged:$_[0]:{u}" }


# units of a limit as charge() takes them

sub messages {
    my ($count, $amount) = @_;
    return [ 'messages', 'window', $count, 64_000_000, 0, $amount // 1 ];
}


sub bytes {
    my ($count, $amount) = @_;
    return [ 'bytes', 'bucket', $count, 64_000_000, $count, $amount // 1 ];
}


sub session {
    my ($count, $lease, $amount) = @_;
    return [ 'sessions', 'window', $count, 60_000_000, 0, $amount // 1,
        $lease ];
}


sub failure {
    my ($count, $tags) = @_;
    return [ 'auth_failures', 'window', $count, 3_600_000_000, 0, 1, $tags ];
}


# Both take [ limit, unit, unit... ]..., a unit being [ name, kind, count,
# period, burst, amount, member, from ], and return the answer as it is.  A
# limit is its name, or { name, soft, forced, plan }.

sub charge {
    my ($self, $now, @limits) = @_;

    return $self->_call('charge', $now, charge_args(@limits));
}


# ok: 1 if a login succeeded

sub give_back {
    my ($self, $now, $at, $ok, @limits) = @_;

    return $self->_call('giveback', $now, back_args($at, $ok, @limits));
}


# [ limit, lease ]...

sub renew {
    my ($self, $now, $period, @leases) = @_;

    return $self->_call('renew', $now, scalar(@leases),
        (map { lease($_->[0]) } @leases), $period, map { $_->[1] } @leases);
}


# the texts by unit; each merge is another one

sub merge {
    my ($self, $now, $limit, %text) = @_;

    return $self->merge_as('id-' . ++$self->{merges}, $now, $limit, %text);
}


sub merge_as {
    my ($self, $id, $now, $limit, %text) = @_;

    return $self->_call('merge', $now, 3, used($limit), failed($limit),
        merged($limit), scalar(keys %text),
        (map { ($_, $text{$_}) } sort keys %text), $id);
}


sub _call {
    my ($self, $script, $now, @args) = @_;

    return $self->{redis}->cmd('EVALSHA', $self->{sha}{$script}, @args,
        int($now / 1e6), $now % 1e6);
}


# what stands behind the name of the script: number of keys, keys, arguments

sub charge_args {
    my (@limits) = @_;

    my (@keys, @args);

    for (@limits) {
        my ($limit, @units) = @$_;
        $limit = { name => $limit } unless ref $limit;

        push @keys, used($limit->{name}), own($limit->{name});
        push @args, ($limit->{soft} ? 1 : 0) + ($limit->{forced} ? 2 : 0),
            $limit->{plan} // '', scalar(@units),
            map { my ($name, $kind, @rest) = @$_;
                  ($name, $KIND{$kind}, @rest[0 .. 2], $rest[5] // 0,
                   $rest[3], $rest[4] // '') } @units;
    }

    push @keys, _set_keys(@limits);
    return (scalar(@keys), @keys, scalar(@limits), @args);
}


sub back_args {
    my ($at, $ok, @limits) = @_;

    my (@keys, @args);

    for (@limits) {
        my ($limit, @units) = @$_;

        push @keys, used(ref $limit ? $limit->{name} : $limit);
        push @args, scalar(@units),
            map { my ($name, $kind, @rest) = @$_;
                  ($name, $KIND{$kind}, @rest[0 .. 3], $rest[4] // '') }
            @units;
    }

    push @keys, _set_keys(@limits);
    return (scalar(@keys), @keys, $at, $ok, scalar(@limits), @args);
}


sub _set_keys {
    my (@limits) = @_;

    my @keys;

    for (@limits) {
        my ($limit, @units) = @$_;
        $limit = $limit->{name} if ref $limit;

        for my $unit (@units) {
            push @keys, lease($limit) if $unit->[0] eq 'sessions';
            push @keys, failed($limit), exempt($limit)
                if $unit->[0] eq 'auth_failures';
        }
    }

    return @keys;
}


1;
