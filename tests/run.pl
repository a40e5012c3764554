#!/usr/bin/perl

# Runs tests that speak TAP (scripts, Perl, programs), two at a time, and
# ends with the line "N passed, N failed".  A file that died, or that did not
# run what it had planned, counts as one more that failed.

use strict;
use warnings;

use TAP::Harness;

die "usage: run.pl file...\n" unless @ARGV;

# nothing under test may depend on the terminal
$| = 1;

my $harness = TAP::Harness->new({
    jobs      => $ENV{TEST_JOBS} || 2,
    timer     => 1,
    verbosity => $ENV{TEST_VERBOSE} ? 1 : 0,
    merge     => 0,
    exec      => \&command,
});

my $results = $harness->runtests(@ARGV);

my $failed = $results->failed();
my $passed = $results->passed() - $results->skipped();

for my $parser ($results->parsers(@ARGV)) {
    $failed++ if $parser->has_problems() && !$parser->failed();
}

print 'skipped: ', scalar $results->skipped(), "\n" if $results->skipped();
print 'files with failures: ', join(' ', problems($results)), "\n" if $failed;
print "$passed passed, $failed failed\n";

exit($failed || !$passed ? 1 : 0);


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
