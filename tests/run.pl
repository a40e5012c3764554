#!/usr/bin/perl

# Runs tests that speak TAP (scripts, Perl, programs), three at a time, and
# ends with the line "N passed, N failed".  A file that died, or that did not
# run what it had planned, counts as one more that failed.

use strict;
use warnings;

use TAP::Harness;

die "usage: run.pl file...\n" unless @ARGV;

# What takes longest, with half a minute to wait: first, or one of them would
# be left over at the end.
my @SLOW = qw(service_async async auth_file_reload auth_cache auth_chain
    auth_dovecot auth_jwt auth_load auth_relay_faults alloc clients replay
    memory smuggling client_gone slow_clients coverage_tls coverage_endless
    redis_sentinel redis_scout dot_table postfix_away postfix_instance
    limit_leases crash);
my %rank = map { $SLOW[$_] => $_ } 0 .. $#SLOW;

# nothing under test may depend on the terminal
$| = 1;

my $harness = TAP::Harness->new({
    # they wait much more than they work
    jobs      => $ENV{TEST_JOBS} || 3,
    timer     => 1,
    verbosity => $ENV{TEST_VERBOSE} ? 1 : 0,
    merge     => 0,
    exec      => \&command,
});

my @files = sort { rank($a) <=> rank($b) } @ARGV;
my $results = $harness->runtests(@files);

my $failed = $results->failed();
my $passed = $results->passed() - $results->skipped();

for my $parser ($results->parsers(@ARGV)) {
    $failed++ if $parser->has_problems() && !$parser->failed();
}

print 'skipped: ', scalar $results->skipped(), "\n" if $results->skipped();
print 'files with failures: ', join(' ', problems($results)), "\n" if $failed;
print "$passed passed, $failed failed\n";

exit($failed || !$passed ? 1 : 0);


# a file is as slow as the one whose name its own begins with; lint and unit
# tests are over at once

sub rank {
    my ($file) = @_;

    return -1 unless $file =~ m{(?:^|/)t/(\w+)\.t$};

    my ($begin) = grep { index($1, $_) == 0 } @SLOW;
    return defined $begin ? $rank{$begin} : scalar @SLOW;
}


sub problems {
    my ($results) = @_;

    my %seen;

    return grep { !$seen{$_}++ } sort $results->failed(), $results->exit(),
        $results->parse_errors(), $results->wait();
}


sub command {
    my ($harness, $file) = @_;

    return [ 'bash', $file ] if $file =~ /\.sh$/;
    return [ $^X, $file ] if $file =~ /\.t$/;
    return [ $file ];
}
