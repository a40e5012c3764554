#!/bin/bash
#
# How much of module/core the unit tests and the corpora of the fuzz targets
# run: a line for each file, with the lines of it that never ran, and the
# total, which is to be 95 % at least.  Builds in build/coverage/.
#
#     coverage.sh [percent]
#
# Needs gcc (which gcov comes with), libc6-dev and perl.

set -eu
export LC_ALL=C

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
BUILD=$ROOT/build/coverage
WANTED=${1:-95}

FLAGS=(-std=c99 -O0 -g -Wall -Wextra -Werror -I "$ROOT/module/core"
    -I "$ROOT/tests/unit")


die()
{
    echo "coverage.sh: $*" >&2
    exit 1
}


need()
{
    command -v "$1" >/dev/null || die "$1 is needed: install the package $2"
}


# the tests are not instrumented: of interest is what they reach

build()
{
    local source name

    mkdir -p "$BUILD/core"

    for source in "$ROOT"/module/core/*.c; do
        name=$(basename "$source" .c)
        gcc "${FLAGS[@]}" --coverage -c -o "$BUILD/core/$name.o" "$source"
    done

    for source in "$ROOT"/tests/unit/test_*.c; do
        name=$(basename "$source" .c)
        gcc "${FLAGS[@]}" -o "$BUILD/$name" "$source" "$BUILD"/core/*.o -lgcov
    done

    for source in "$ROOT"/tests/fuzz/fuzz_*.c; do
        name=$(basename "$source" .c)
        gcc "${FLAGS[@]}" -o "$BUILD/$name" "$source" \
            "$ROOT/tests/fuzz/replay.c" "$BUILD"/core/*.o -lgcov
    done
}


# what a failed test has run tells nothing, so all have to pass

run()
{
    local program name

    for program in "$BUILD"/test_* "$BUILD"/fuzz_*; do
        name=$(basename "$program")

        case $name in
            *.log)  continue ;;
            test_*) set -- ;;
            fuzz_*) set -- "$ROOT/tests/fuzz/corpus/${name#fuzz_}"
                    [ -d "$1" ] || continue ;;
        esac

        (cd "$ROOT" && "$program" "$@") > "$BUILD/$name.log" 2>&1 \
            || die "$name failed, see $BUILD/$name.log"
    done
}


# count:line:text, where count is "-" for what is no code, and "#####" or
# "=====" for what never ran

report()
{
    local source name

    cd "$BUILD"

    for source in "$ROOT"/module/core/*.c; do
        name=$(basename "$source" .c)

        # of the notes, as a file that is never called has no counters
        gcov -o core "core/$name.gcno" >/dev/null 2>&1 \
            || die "gcov cannot read $BUILD/core/$name.gcno"

        [ -s "$name.c.gcov" ] || die "gcov says nothing of $name.c"
    done

    perl -e '
        my ($wanted, @files) = @ARGV;
        my ($all, $run) = (0, 0);
        my $line = "%-18s %5s %5s %7s  %s\n";

        printf $line, "file", "lines", "run", "%", "never run";

        for my $file (sort @files) {
            my ($n, @never) = (0);

            open(my $gcov, "<", $file) or die "$file: $!\n";

            while (<$gcov>) {
                my ($count, $number) = /^\s*([^:]+?)\s*:\s*(\d+):/ or next;

                next if $number == 0 || $count eq "-";

                $n++;
                push @never, $number if $count =~ /^[#=]/;
            }

            $file =~ s/\.gcov$//;
            $all += $n;
            $run += $n - @never;

            printf $line, $file, $n, $n - @never,
                sprintf("%.2f", 100 * ($n - @never) / ($n || 1)), "@never";
        }

        die "no lines\n" unless $all;

        printf $line, "total", $all, $run,
            sprintf("%.2f", 100 * $run / $all), "";

        if (100 * $run < $wanted * $all) {
            print STDERR "coverage.sh: below $wanted %\n";
            exit 1;
        }
    ' "$WANTED" mpol_*.c.gcov
}


case $WANTED in
    ""|*[!0-9.]*) die "usage: coverage.sh [percent]" ;;
esac

need gcc gcc
need gcov gcc
need perl perl

# counters of an earlier run, or of files that are gone, would be added
rm -rf "$BUILD"

build
run
report
