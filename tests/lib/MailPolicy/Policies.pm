package MailPolicy::Policies;

# The scripts of policies/ that operators give to "redis-cli --eval", in a
# Redis, and the lines of policies/README.md with which they do.

use strict;
use warnings;

use Exporter qw(import);

our @EXPORT_OK = qw(slurp recipes);

use constant TIME => "redis.call('TIME')";


# a MailPolicy::Redis, and the folder above policies/

sub new {
    my ($class, $redis, $root) = @_;

    my $self = bless { redis => $redis, root => $root }, $class;

    for my $name (qw(show top reset suspend resume set)) {
        my $text = slurp("$root/policies/$name.lua");

        $self->{text}{$name} = $text;
        $text =~ s/\bKEYS\b/GIVEN/g;
        $text =~ s/\Q${\TIME}\E/{ 0, KEYS[#KEYS] }/;
        $self->{timed}{$name} = 'local GIVEN = { unpack(KEYS, 1, #KEYS - 1) } '
            . $text;
    }

    return $self;
}


sub text { return $_[0]{text}{$_[1]} }


# the lines that a script answers: its name, the key or [ keys ], arguments

sub run {
    my ($self, $name, $keys, @args) = @_;

    my @keys = ref $keys ? @$keys : ($keys);

    return @{ $self->{redis}->cmd('EVAL', $self->{text}{$name},
        scalar(@keys), @keys, @args) };
}


# the same at a time of the test's own making, in microseconds

sub run_at {
    my ($self, $now, $name, $key, @args) = @_;

    return @{ $self->{redis}->cmd('EVAL', $self->{timed}{$name}, 2, $key,
        $now, @args) };
}


# A folder for commands that the lines of the page find in front of the
# system's: "redis-cli" asks this Redis, "openssl" does not ask for a password.

sub commands {
    my ($self, $dir) = @_;

    my $port = $self->{redis}->port();
    my ($cli, $openssl) = map { _program($_) } qw(redis-cli openssl);

    mkdir "$dir/bin" or die "$dir/bin: $!\n";
    _script("$dir/bin/redis-cli", qq{exec $cli -h 127.0.0.1 -p $port }
        . qq{\${AS:+--user "\$AS" --pass secret --no-auth-warning} "\$@"});
    _script("$dir/bin/openssl",
        qq{echo wonderland | $openssl "\$@" -stdin});
    $self->{bin} = "$dir/bin";
}


# What a line of the page prints, as the shell runs it in the folder that has
# policies/; for an ACL user whose password is "secret".

sub line {
    my ($self, $line, $user) = @_;

    local $ENV{PATH} = "$self->{bin}:$ENV{PATH}";
    local $ENV{AS} = $user // '';

    open(my $fh, '-|', 'sh', '-c', 'cd "$1" && eval "$2" 2>&1', 'sh',
        $self->{root}, $line) or die "sh: $!\n";
    local $/;
    my $answer = <$fh> // '';
    close($fh);

    return $? ? "status $?: $answer" : $answer;
}


sub _program {
    my ($name) = @_;

    my ($path) = grep { -x } map { "$_/$name" } split /:/, $ENV{PATH};
    return $path // die "no $name\n";
}


sub _script {
    my ($path, $text) = @_;

    open(my $fh, '>', $path) or die "$path: $!\n";
    print $fh "#!/bin/sh\n$text\n";
    close($fh) or die "$path: $!\n";
    chmod 0755, $path;
}


sub slurp {
    my ($name) = @_;

    open(my $fh, '<:raw', $name) or die "$name: $!\n";
    local $/;
    return scalar <$fh>;
}


# The commands of a section of policies/README.md: each is what stands after
# four spaces, with the lines that go on behind a "\".

sub recipes {
    my ($root, $section) = @_;

    my ($text) = slurp("$root/policies/README.md")
        =~ /^## \Q$section\E\n(.*?)(?=^## |\z)/ms
        or die "no section $section\n";

    return $text =~ /^    (redis-cli (?:.*\\\n)*.*)$/mg;
}


1;
