#!/bin/bash
#
# Is each test one that can fail?  Each patch here breaks the module in one
# place, on purpose; the test that it names has to notice.  Prints TAP.
#
#     tests/mutants/run.sh             all of them, which takes minutes
#     tests/mutants/run.sh SMUG-1 ...  these
#
# A patch begins with
#
#     # id: what it is about, as in tests/COVERAGE.md, or a directive
#     # breaks: what is wrong with the module then
#     # caught by: t/name.t, build/unit/test_name or tests/lint.sh
#
# It is applied to a copy of the working tree, build/mutants/tree, in which
# all else has been compiled already.  What the test says is in
# build/mutants/NAME.log.

set -u
export LC_ALL=C

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd) || exit 1
WORK=$ROOT/build/mutants
TREE=$WORK/tree
CLEAN=$WORK/clean

COUNT=0
FAILED=0


# result passed name [text]: passed is 0 or not, as a command's status

result()
{
    COUNT=$((COUNT + 1))

    if [ "$1" -eq 0 ]; then
        echo "ok $COUNT - $2"
    else
        echo "not ok $COUNT - $2"
        FAILED=$((FAILED + 1))
    fi

    [ -z "${3:-}" ] || sed 's/^/#   /' <<<"$3"
}


# header patch word

header()
{
    sed -n "s/^# $2: *//p" "$1" | head -n 1
}


# the tree without a mutant, and without what depends on where it is

build_clean()
{
    rm -rf "$TREE" "$CLEAN"
    mkdir -p "$TREE"

    (
        cd "$ROOT" || exit 1
        cp -a .ci README.md build.sh config module policies t tests \
            "$TREE"
    )

    build_module && cp -a "$TREE" "$CLEAN"
}


build_module()
{
    bash "$TREE/build.sh" module >"$WORK/build.log" 2>&1
}


# Only what the patch touches is newer than its object.

mutate()
{
    rm -rf "$TREE"
    cp -a "$CLEAN" "$TREE"
    patch -d "$TREE" -p1 --no-backup-if-mismatch <"$1" >"$WORK/patch.log" 2>&1
}


build_unit()
{
    local name

    name=$(basename "$1")
    mkdir -p "$TREE/build/unit"

    gcc -std=c99 -O1 -g -fsanitize=address,undefined \
        -fno-sanitize-recover=undefined -I "$TREE/module/core" \
        -I "$TREE/tests/unit" -o "$TREE/build/unit/$name" \
        "$TREE/tests/unit/$name.c" "$TREE"/module/core/*.c \
        >"$WORK/build.log" 2>&1
}


build_for()
{
    case $1 in
        build/unit/*) build_unit "$1" ;;
        *.sh)         [ -e "$TREE/$1" ] ;;
        *)            [ -e "$TREE/$1" ] && build_module ;;
    esac
}


# Runs a test up to the first line that says "not ok", which is left in
# FIRST.  0: the test has passed, all of it.

run_test()
{
    local test=$1 log=$2 pid line command

    case $test in
        *.t)  command=perl ;;
        *.sh) command=bash ;;
        *)    command=env ;;
    esac

    exec 3< <(cd "$TREE" && exec env -u TEST_NGINX_BINARY \
        -u TEST_NGINX_GLOBALS "$command" "$test" 2>"$log.err")
    pid=$!
    FIRST=""
    : >"$log"

    while read -r -u 3 line; do
        echo "$line" >>"$log"

        case $line in
            "not ok"*)
                FIRST=${line#not ok * - }
                break ;;
            "1..0 # SKIP"*)
                FIRST="" ;;
        esac
    done

    # it cleans up then
    [ -z "$FIRST" ] || kill -TERM "$pid" 2>/dev/null

    cat <&3 >>"$log"
    exec 3<&-
    wait "$pid"
    STATUS=$?

    cat "$log.err" >>"$log"
    rm -f "$log.err"

    [ -z "$FIRST" ] && [ "$STATUS" -eq 0 ] && grep -q '^1\.\.[1-9]' "$log"
}


# a test that fails anyhow, or is skipped, catches nothing

check_test()
{
    local name

    name=$(basename "$1" .t)
    rm -rf "$TREE"
    cp -a "$CLEAN" "$TREE"

    build_for "$1" && run_test "$1" "$WORK/$name.log"
    result $? "$1 passes without a mutant" "${FIRST:-}"
}


check_mutant()
{
    local patch=$1 name id breaks test said

    name=$(basename "$patch" .patch)
    id=$(header "$patch" id)
    breaks=$(header "$patch" breaks)
    test=$(header "$patch" "caught by")
    said="$name is caught by $test"

    if [ -z "$id" ] || [ -z "$breaks" ] || [ -z "$test" ]; then
        result 1 "$name says what it is"
        return
    fi

    if ! mutate "$patch"; then
        result 1 "$said" "does not apply: $(tail -n 3 "$WORK/patch.log")"
        return
    fi

    if ! build_for "$test"; then
        result 1 "$said" "does not build: $(tail -n 5 "$WORK/build.log")"
        return
    fi

    FIRST=""

    # one that dies, and does not say what is wrong, has to do so twice
    if run_test "$test" "$WORK/$name.log" \
        || { [ -z "$FIRST" ] && run_test "$test" "$WORK/$name.log"; }
    then
        result 1 "$said" "$breaks"
        return
    fi

    result 0 "$said" "${FIRST:-ends with status $STATUS, twice}"
}


main()
{
    local patches=() name test

    for name in "$@"; do
        patches+=("$ROOT/tests/mutants/${name%.patch}.patch")
    done

    [ $# -ne 0 ] || patches=("$ROOT"/tests/mutants/*.patch)

    mkdir -p "$WORK"

    if ! build_clean; then
        tail -n 20 "$WORK/build.log" >&2
        echo "Bail out! the module does not build"
        exit 1
    fi

    for test in $(sed -n 's/^# caught by: *//p' "${patches[@]}" | sort -u); do
        check_test "$test"
    done

    for name in "${patches[@]}"; do
        check_mutant "$name"
    done

    rm -rf "$TREE" "$CLEAN"
    echo "1..$COUNT"
    [ "$FAILED" -eq 0 ]
}


main "$@"
