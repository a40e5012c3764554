#!/bin/bash
#
# Rules of form, and of who may know whom.  Prints TAP.

set -u
export LC_ALL=C

cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1

TMP=$(mktemp -d)
trap 'rm -rf "$TMP"' EXIT

COUNT=0

STRICT="-std=c99 -pedantic -Wall -Wextra -Wconversion -Wshadow -Werror"


# check name command...: passed if the command prints nothing; what it prints
# is what is wrong

check()
{
    local name=$1 found
    shift

    found=$("$@" 2>&1 | head -n 20)
    COUNT=$((COUNT + 1))

    if [ -z "$found" ]; then
        echo "ok $COUNT - $name"
    else
        echo "not ok $COUNT - $name"
        sed 's/^/# /' <<<"$found" >&2
    fi
}


c_files()
{
    find module tests -name '*.[ch]' | sort
}


lua_files()
{
    find module policies tests -name '*.lua' | sort
}


# every file begins with a line that names the module
without_copyright()
{
    grep -v 'Copyright (C)'
}


# the core


core_compiles()
{
    local compiler=$1 source

    mkdir -p "$TMP/$compiler"

    for source in module/core/*.c; do
        # shellcheck disable=SC2086
        "$compiler" $STRICT -O2 -I module/core -c \
            -o "$TMP/$compiler/$(basename "$source").o" "$source"
    done
}


core_calls()
{
    ld -r -o "$TMP/core.o" "$TMP"/gcc/*.o
    nm -u "$TMP/core.o" | grep -Ev '^ *U (mem[a-z]+|_GLOBAL_OFFSET_TABLE_)$'
}


core_knows_nginx()
{
    grep -rn 'ngx_\|NGX_' module/core | without_copyright
}


core_floats()
{
    grep -rnE '^[^*"]*\b(float|double) +\**[a-z]' module/core
}


# includes


room_of()
{
    find module -name "$1" -path 'module/*/*' -printf '%h\n' \
        | sed 's,module/,,' | head -n 1
}


# what each folder may include besides itself; headers of conf/ and the
# envelope are plain tables that all glue reads

allowed_rooms()
{
    case $1 in
        core)    echo "" ;;
        metrics) echo "core" ;;
        store)   echo "core metrics" ;;
        check)   echo "core metrics store conf" ;;
        auth)    echo "core metrics store conf" ;;
        relay)   echo "core metrics store conf" ;;
        service) echo "core metrics" ;;
        smtp)    echo "core metrics store conf check auth relay service status" ;;
        postfix) echo "core metrics store conf check auth relay status" ;;
        conf)    echo "core metrics store check auth relay service smtp"
                 echo "postfix status" ;;
        status)  echo "core metrics store check relay conf" ;;
        *)       echo "" ;;
    esac | tr '\n' ' '
}


includes()
{
    local file room header other

    find module -name '*.[ch]' | sort | while read -r file; do
        room=$(cut -d / -f 2 <<<"$file")

        sed -n 's/^# *include *"\(.*\)".*/\1/p' "$file" \
            | while read -r header
        do
            [ "$header" != ngx_mail_policy_envelope.h ] || continue
            other=$(room_of "$header")

            case " $(allowed_rooms "$room") $room " in
                *" $other "*) ;;
                *) [ -z "$other" ] || echo "$file includes $header of $other/" ;;
            esac
        done
    done
}


# files outside of $1 that include what matches $2

included_outside()
{
    grep -rnE "^# *include.*$2" module | grep -v "^$1"
}


# ngx_config.h decides what the system's headers show, so it comes first

core_first()
{
    find module -name '*.[ch]' -not -path 'module/core/*' -print0 \
        | xargs -0 grep -m 1 -H '^# *include' | grep '"mpol_'
}


# form


in_sources()
{
    { c_files; lua_files; } | xargs grep -nP "$1"
}


long_lines()
{
    in_sources '^.{81}' | cut -c 1-120
}


lua_errors()
{
    lua_files | xargs -r grep -n 'error_reply'
}


# A script for "redis-cli --eval" has all it needs in it.  What it shares with
# others stands between "-- shared" and "-- end", as it stands in show.lua.

lua_copies()
{
    perl -0777 -ne '
        my @marked = /^-- shared\n.*?^-- end\n/msg;
        my $rest = s/^-- shared\n.*?^-- end\n//msgr;
        $known{$_} //= $ARGV for @marked;
        print "$ARGV: not as in show.lua: ", /^(local .*)/m, "\n"
            for grep { $known{$_} ne "policies/show.lua" } @marked;
        if ($ARGV eq "policies/show.lua") {
            @names{ map { /^local function (\w+)/mg } @marked } = ();
            print "$ARGV: nothing is marked\n" if !@marked;
        }
        print "$ARGV: $_ is a copy without mark\n"
            for grep { exists $names{$_} } $rest =~ /^local function (\w+)/mg;
        print "$ARGV: marks do not match\n"
            if $rest =~ /^-- (?:shared|end)$/m;
    ' policies/{show,top,reset,suspend,resume,set}.lua
}


listed_in_config()
{
    local file

    find module -name '*.[ch]' | sort | while read -r file; do
        grep -q "/$(basename "$file")" config \
            || echo "$file is not in config"
    done
}


same_names()
{
    find module -name '*.[ch]' -printf '%f\n' | sort | uniq -d
}


scripts()
{
    local file

    for file in build.sh .ci/run $(find tests -name "*.sh"); do
        bash -n "$file" 2>&1
    done

    find tests t -name '*.p[lm]' -o -name '*.t' | sort | while read -r file; do
        perl -I tests/lib -wc "$file" 2>&1 | grep -v 'syntax OK$'
    done
}


check "core compiles alone with gcc" core_compiles gcc

if command -v clang >/dev/null; then
    check "core compiles alone with clang" core_compiles clang
fi

check "core calls nothing but mem*()" core_calls
check "core knows no nginx" core_knows_nginx
check "core has no floats" core_floats

check "includes go one way" includes
check "hiredis only in store/" \
    included_outside module/store/ngx_mail_policy_redis hiredis
check "jansson only in auth/ngx_mail_policy_jwt*" \
    included_outside module/auth/ngx_mail_policy_jwt jansson
check "nginx is included before core" core_first
check "ngx_http only in status/" included_outside module/status/ ngx_http

check "no tabs" in_sources '\t'
check "no trailing space" in_sources '[ \r]$'
check "no line above 80 columns" long_lines
check "Lua: no error_reply, RED-4" lua_errors
check "Lua: what is shared is the same everywhere" lua_copies

check "all sources are in config" listed_in_config
check "file names are unique" same_names
check "scripts have no syntax errors" scripts

echo "1..$COUNT"
