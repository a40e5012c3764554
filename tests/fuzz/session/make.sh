#!/bin/bash
#
# usage: make.sh SRC_DIR WORK_DIR
#
# Builds WORK_DIR/fuzz_session: nginx of SRC_DIR with the module in it, and
# libFuzzer's main() in the place of nginx' own.  SRC_DIR is copied, not
# written to.  Called again it builds what is older than its sources.
#
# The module is what the fuzzer is to see: its files alone are instrumented
# for coverage and by UBSan.  AddressSanitizer is in all of them, and each
# palloc is a malloc of its own.

set -eu

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
ROOT=$(cd "$HERE/../../.." && pwd)

CC=${CC:-clang}
JOBS=${JOBS:-$(nproc 2>/dev/null || echo 2)}

ASAN_FLAGS="-fsanitize=address -DNGX_DEBUG_PALLOC=1"

# copying no octets from NULL, and adding nothing to it, is nginx' custom
MODULE_FLAGS="-fsanitize=fuzzer-no-link,undefined
    -fno-sanitize=nonnull-attribute,pointer-overflow
    -fno-sanitize-recover=undefined"

# what the driver has instead of the network, the threads and the store
WRAPPED="socket connect bind listen setsockopt getsockopt epoll_wait
    ngx_thread_task_post ngx_mail_policy_ask_send ngx_mail_policy_ask_keep
    ngx_mail_policy_ask_give_back ngx_mail_policy_ask_settle"


die()
{
    echo "make.sh: $*" >&2
    exit 1
}


logged()
{
    local log=$1
    shift

    if ! "$@" >"$log" 2>&1; then
        cat "$log" >&2
        die "failed: $1 (the above is in $log)"
    fi
}


configure_nginx()
{
    local work=$1 configure=./configure stamp
    local -a options=(--with-cc="$CC" --prefix="$work/prefix" --with-threads
        --with-mail --with-mail_ssl_module --without-http
        --add-module="$ROOT"
        --with-cc-opt="$ASAN_FLAGS -fno-omit-frame-pointer -O1 -g"
        --with-ld-opt="$ASAN_FLAGS")

    # a release has it at the top, the repository of nginx has not
    [ -e "$work/src/configure" ] || configure=auto/configure

    stamp=$(cat "$ROOT/config" "$HERE/make.sh" - \
        <<<"${options[*]} $(echo "$HERE"/*.c)" \
        | sha256sum)

    if [ "$stamp" = "$(cat "$work/stamp" 2>/dev/null)" ]; then
        return
    fi

    rm -rf "$work/src/objs" "$work/stamp"

    (
        cd "$work/src"
        logged "$work/configure.log" $configure "${options[@]}"
    )

    add_rules "$work" >>"$work/src/objs/Makefile"

    echo "$stamp" >"$work/stamp"
}


# nginx' rule for its binary links the driver as well, and so makes ours

add_rules()
{
    local source name objects="" wrap="" flags

    for name in $WRAPPED; do
        wrap="$wrap -Wl,--wrap=$name"
    done

    # all in one line
    # shellcheck disable=SC2086,SC2116
    flags=$(echo $MODULE_FLAGS)

    cat <<RULES

objs/src/core/nginx.o: CFLAGS += -Dmain=ngx_main

objs/addon/%.o: CFLAGS += $flags
RULES

    for source in "$HERE"/*.c; do
        name=objs/fuzz_$(basename "$source" .c).o
        objects="$objects $name"

        cat <<RULES

$name: $source $(echo "$HERE"/*.h) \$(MAIL_DEPS) \$(ADDON_DEPS)
	\$(CC) -c \$(CFLAGS) -std=gnu99 -Wall -Wextra -Wno-unused-parameter \\
	    -Werror \$(CORE_INCS) \$(MAIL_INCS) -I $HERE -o \$@ $source
RULES
    done

    cat <<RULES

objs/nginx: $objects

objs/nginx: LINK = \$(CC) -fsanitize=fuzzer,undefined$wrap $objects
RULES
}


main()
{
    local source work

    [ $# -eq 2 ] || die "usage: make.sh SRC_DIR WORK_DIR"

    [ -e "$1/src/core/nginx.h" ] || die "not a source of nginx: $1"
    source=$(cd "$1" && pwd)

    mkdir -p "$2"
    work=$(cd "$2" && pwd)

    mkdir -p "$work/src"
    cp -au "$source/." "$work/src/"

    configure_nginx "$work"

    logged "$work/make.log" make -s -j "$JOBS" -C "$work/src" -f objs/Makefile \
        objs/nginx

    cp -u "$work/src/objs/nginx" "$work/fuzz_session"
}


main "$@"
