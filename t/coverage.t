#!/usr/bin/perl

# tests/COVERAGE.md is true: each id stands there once, with a file that
# exists and words that are in it, one of them with the id itself; and what
# tests/mutants/ breaks is one of these ids, or a directive, names a test that
# is there, and is to be found in the module as it is.

use strict;
use warnings;

use FindBin;

use Test::More;

my $ROOT = "$FindBin::Bin/..";

# how many of each there are
my @FAMILY = (
    [ 'SMUG-', 13 ], [ 'STATE-', 12 ], [ 'TLS-', 11 ], [ 'TRUST-', 9 ],
    [ 'RELAY-', 9 ], [ 'RES-', 12 ], [ 'EXT-', 8 ], [ 'S', 14 ], [ 'A', 12 ],
    [ 'RED-', 11 ], [ 'PEER-', 25 ], [ 'AUTH-', 22 ], [ 'OUT-', 8 ],
);
my @IDS = map { my ($name, $count) = @$_; map { "$name$_" } 1 .. $count }
    @FAMILY;

my %rows;

for my $line (split /\n/, read_file('tests/COVERAGE.md')) {
    my @cell = $line =~ /^\| ([A-Z]+-?\d+) \| (.+?) \| (.+) \|$/ or next;
    push @{ $rows{ shift @cell } }, \@cell;
}

for my $id (@IDS) {
    my $rows = delete $rows{$id} // [];

    is(scalar @$rows, 1, "$id stands there once") or next;
    my @wrong = wrong($id, @{ $rows->[0] });
    ok(!@wrong, "$id: tests that are there") or diag(join("\n", @wrong));
}

is(join(' ', sort keys %rows), '', 'no other ids');

my %known = map { $_ => 1 } @IDS,
    read_file('README.md') =~ /^### ([a-z_]+)$/mg;
my @mutants = glob("$ROOT/tests/mutants/*.patch");

for my $file (@mutants) {
    my $text = read_file($file);
    my ($name) = $file =~ m{([^/]+)\.patch$};
    my ($id) = $text =~ /^# id: (\S+)$/m;
    my ($test) = $text =~ /^# caught by: (\S+)$/m;

    $test =~ s{^build/unit/(\w+)$}{tests/unit/$1.c} if $test;
    ok($id && $known{$id} && $text =~ /^# breaks: \S/m && $test
        && -e "$ROOT/$test", "mutant $name: an id, and a test");
}

is(join(' ', grep { !applies($_) } @mutants), '', 'mutants apply');
cmp_ok(scalar @mutants, '>', 50, 'there are mutants');
done_testing();


# What is wrong with `file` `words`; `file` `words`.  A line that says it is
# as with another id may have tests with that one in their names; a test may be
# called by what is shown instead.

sub wrong {
    my ($id, $shown, $cell) = @_;

    my $ids = join('|', $id, $shown =~ /\bas ([A-Z]+-?\d+)/g);
    my $named = 0;
    my @wrong;

    for my $place (split /; /, $cell) {
        my ($file, $words) = $place =~ /^`(\S+)` `(.+)`$/
            or return "not a file and words: $place";

        # what a comment says is no test
        my $text = read_file($file) =~ s/^\s*#.*\n//mgr;

        push @wrong, "no $file" unless -e "$ROOT/$file";
        push @wrong, "no \"$words\" in $file" if index($text, $words) < 0;
        $named ||= $words eq $shown
            || $words =~ /(?<![\w-])(?:$ids)(?!\d)/;
    }

    push @wrong, 'no test has the id in its name' unless $named;
    return @wrong;
}


sub applies {
    my ($file) = @_;

    return system('patch', '-d', $ROOT, '-p1', '--dry-run', '-s', '-f', '-o',
        '/dev/null', '-r', '-', '-i', $file) == 0;
}


sub read_file {
    my ($name) = @_;

    my $file = $name =~ m{^/} ? $name : "$ROOT/$name";

    open(my $fh, '<', $file) or return '';
    local $/;
    return scalar <$fh>;
}
