#!/bin/bash
#
# Builds and tests ngx_mail_policy_module on Debian (12 and newer).  What it
# makes goes to build/, which may be deleted at any time.  "build.sh help"
# says what there is.  It can be called from anywhere; the path of the
# repository must have no white space in it, as nginx' own build cannot do
# with it.

set -eu

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
BUILD=$ROOT/build
NGINX_SRC=/usr/share/nginx/src
JOBS=$(nproc 2>/dev/null || echo 2)
CC=${CC:-gcc}

# nginx and postfix live there, which users do not have in their path
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
export PATH LC_ALL=C.UTF-8

PACKAGES_MODULE="nginx libnginx-mod-mail nginx-dev libhiredis-dev libssl-dev
    libjansson-dev libpcre2-dev zlib1g-dev libcrypt-dev dpkg-dev gcc make"
PACKAGES_TEST="redis-server postfix swaks msmtp curl python3 gsasl perl
    libio-socket-ssl-perl libnet-ssleay-perl openssl python3-jwt
    python3-cryptography dovecot-core postgrey postfix-policyd-spf-python
    dnsmasq-base jq fail2ban prometheus chromium fonts-dejavu-core
    logrotate"
PACKAGES_UNIT="gcc libc6-dev perl"
PACKAGES_LINT="gcc libc6-dev binutils perl"
PACKAGES_FUZZ="clang libclang-rt-dev"


help()
{
    cat <<'END'
usage: build.sh verb

  demo [--keep]     builds, and shows an edge at work: nginx, Redis,
                    three relays, a few mails; --keep leaves it running
  test              everything below that a change must pass: module, lint,
                    unit and the tests in t/
  module            the module for the installed nginx:
                    build/module/ngx_mail_policy_module.so
  module --nginx-source DIR [--static]
                    nginx and the module from a source tree, which is copied
                    first: build/source-NAME/, build/source-NAME-static/
  lint              rules of form and of dependency between folders
  unit              tests of module/core, and the seeds of the fuzz targets,
                    under sanitizers
  coverage          how much of module/core unit tests and seeds run
  fuzz [SECONDS [TARGET...]]
                    each fuzz target, or those named, for so many seconds (60);
                    "session" is the module within nginx, whose sources come
                    from Debian
  mutants [ID...]   breaks the module in many ways, and runs the tests that
                    should notice (some minutes)
  asan [--nginx-source DIR]
                    nginx and the module with AddressSanitizer, and t/ with
                    them, and the seeds of the fuzz target "session"; the
                    sources come from Debian unless given
  bench-policy [ROUNDS [SECONDS]]
                    questions of Postfix a second, beside postfwd
  bench-log [ROUNDS [MESSAGES [MODULE]]]
                    what the access log and the metrics cost a message;
                    MODULE is another build of the module, to compare with
  clean             removes build/
  help              this text

The environment may name another compiler for nginx and the module: CC=clang.

Packages that a verb needs are installed with apt.  No service is started or
enabled by that.
END
}


say()
{
    echo "build.sh: $*"
}


die()
{
    echo "build.sh: $*" >&2
    exit 1
}


# packages


need_packages()
{
    local package missing=""

    if ! command -v dpkg-query >/dev/null; then
        say "this is not a Debian; taken as installed:" "$@"
        return
    fi

    for package in "$@"; do
        case " $missing " in
            *" $package "*) continue ;;
        esac

        if ! is_installed "$package"; then
            missing="$missing $package"
        fi
    done

    if [ -n "$missing" ]; then
        # shellcheck disable=SC2086
        install_packages $missing
    fi
}


is_installed()
{
    local status

    status=$(dpkg-query -W -f '${Status}' "$1" 2>/dev/null) || return 1
    [ "$status" = "install ok installed" ]
}


install_packages()
{
    local package

    find_root_helper "$@"

    say "installing packages: $*"

    NEW_SERVICES=""

    for package in nginx redis-server postfix dovecot-core postgrey postfwd \
        fail2ban prometheus logrotate
    do
        if ! is_installed "$package"; then
            NEW_SERVICES="$NEW_SERVICES ${package%-core}"
        fi
    done

    forbid_services
    trap leave_services EXIT

    # not a mail server for anybody else, should somebody enable it later
    if ! is_installed postfix && command -v debconf-set-selections >/dev/null
    then
        echo "postfix postfix/main_mailer_type select Local only" \
            | as_root debconf-set-selections
    fi

    mkdir -p "$BUILD"

    say "apt-get update"
    logged "$BUILD/apt.log" as_root apt-get -q -y update

    say "apt-get install (this can take some minutes)"
    logged "$BUILD/apt.log" as_root env DEBIAN_FRONTEND=noninteractive \
        apt-get -q -y install --no-install-recommends "$@"

    leave_services
    trap - EXIT
}


# should apt fail half way, too: some may have been set up by then

leave_services()
{
    local service

    allow_services

    for service in $NEW_SERVICES; do
        if [ -e "/etc/init.d/$service" ] \
            || [ -e "/lib/systemd/system/$service.service" ]
        then
            disable_service "$service"
        fi
    done
}


find_root_helper()
{
    SUDO=""

    if [ "$(id -u)" -ne 0 ]; then
        if ! command -v sudo >/dev/null; then
            die "not root, and there is no sudo; install these first: $*"
        fi

        SUDO=sudo
    fi
}


as_root()
{
    $SUDO "$@"
}


# invoke-rc.d asks policy-rc.d whether a package may start its service

forbid_services()
{
    OUR_POLICY=""

    if [ -e /usr/sbin/policy-rc.d ]; then
        return
    fi

    OUR_POLICY=/usr/sbin/policy-rc.d
    printf '#!/bin/sh\nexit 101\n' | as_root tee "$OUR_POLICY" >/dev/null
    as_root chmod 755 "$OUR_POLICY"
}


allow_services()
{
    if [ -n "$OUR_POLICY" ]; then
        as_root rm -f "$OUR_POLICY"
        OUR_POLICY=""
    fi
}


# links of systemd and of init; neither of them needs to run

disable_service()
{
    local unit

    say "leaving the new service $1 disabled"

    if command -v deb-systemd-helper >/dev/null; then
        # it wants to be called by a package
        for unit in "$1.service" "$1.timer"; do
            as_root env DPKG_MAINTSCRIPT_PACKAGE="$1" \
                deb-systemd-helper disable "$unit" >/dev/null 2>&1 || true
        done
    fi

    if [ -e "/etc/init.d/$1" ]; then
        as_root update-rc.d "$1" disable >/dev/null 2>&1 || true
    fi
}


# the module for the installed nginx


build_module()
{
    # shellcheck disable=SC2086
    need_packages $PACKAGES_MODULE
    locked make_module
    say "build/module/ngx_mail_policy_module.so"
}


# one at a time, should somebody else be building in the same tree

locked()
{
    mkdir -p "$BUILD"
    (
        flock 9
        "$@"
    ) 9>"$BUILD/lock"
}


make_module()
{
    mkdir -p "$BUILD/module"

    if [ "$(module_stamp)" != "$(cat "$BUILD/module/stamp" 2>/dev/null)" ]; then
        say "configure for $(nginx -v 2>&1 | sed 's/.*: //') (10 s)"
        configure_module
        module_stamp >"$BUILD/module/stamp"
    fi

    say "make"
    logged "$BUILD/module/make.log" \
        make -s -j "$JOBS" -f "$BUILD/module/Makefile" -C "$NGINX_SRC" modules
    check_module
}


# a function that is nowhere defined shows only when nginx loads the module

check_module()
{
    cat >"$BUILD/module/check.conf" <<END
load_module /usr/lib/nginx/modules/ngx_mail_module.so;
load_module $BUILD/module/ngx_mail_policy_module.so;
pid         $BUILD/module/check.pid;
error_log   $BUILD/module/check.log;
events      { }
END

    logged "$BUILD/module/check.log" nginx -t -q -e stderr \
        -p "$BUILD/module" -c "$BUILD/module/check.conf"
}


# what the configuration depends on; make(1) knows the rest

module_stamp()
{
    {
        dpkg-query -W nginx nginx-dev libhiredis-dev libjansson-dev
        cat "$NGINX_SRC/conf_flags" "$ROOT/config"
        compiler_flags
        echo "$CC $ROOT"
    } | sha256sum
}


compiler_flags()
{
    echo "$(dpkg-buildflags --get CFLAGS) -fPIC" \
        "$(dpkg-buildflags --get CPPFLAGS)"
}


configure_module()
{
    rm -rf "$BUILD/module"
    mkdir -p "$BUILD/module"

    (
        cd "$NGINX_SRC"
        NGX_CONF_FLAGS=()
        . ./conf_flags
        logged "$BUILD/module/configure.log" ./configure --with-cc="$CC" \
            --with-cc-opt="$(compiler_flags)" \
            --with-ld-opt="$(dpkg-buildflags --get LDFLAGS) -fPIC" \
            "${NGX_CONF_FLAGS[@]}" \
            --add-dynamic-module="$ROOT" --builddir="$BUILD/module"
    )
}


# runs a command with its output in a file, which is shown if it fails

logged()
{
    local log=$1
    shift

    if ! "$@" >"$log" 2>&1; then
        cat "$log" >&2
        die "failed: $1 (the above is in $log)"
    fi
}


# nginx from sources


build_from_source()
{
    local source=$1 link=$2 name work

    # shellcheck disable=SC2086
    need_packages $PACKAGES_MODULE

    source=$(cd "$source" && pwd) || die "no such directory: $1"
    [ -e "$source/src/core/nginx.h" ] || die "not a source of nginx: $source"

    name=source-$(basename "$source")
    [ "$link" = dynamic-module ] || name=$name-static
    work=$BUILD/$name

    locked make_source "$source" "$work" "$link"

    say "build/$name/nginx"
    [ "$link" = module ] || say "build/$name/ngx_mail_policy_module.so"
}


make_source()
{
    local source=$1 work=$2 link=$3

    copy_source "$source" "$work/src"
    configure_source "$work" "--add-$link=$ROOT" \
        --with-cc-opt="-O2 -g" --with-ld-opt=""

    say "make (1 min)"
    logged "$work/make.log" make -s -j "$JOBS" -C "$work/src"

    cp "$work/src/objs/nginx" "$work/"

    if [ "$link" = dynamic-module ]; then
        cp "$work/src/objs/ngx_mail_policy_module.so" "$work/"
    fi
}


copy_source()
{
    mkdir -p "$2"
    cp -au "$1/." "$2/"
}


configure_source()
{
    local work=$1 configure=./configure stamp
    shift

    # a release has it at the top, the repository of nginx has not
    [ -e "$work/src/configure" ] || configure=auto/configure

    stamp=$(cat "$ROOT/config" - <<<"$CC $*" | sha256sum)

    if [ "$stamp" = "$(cat "$work/stamp" 2>/dev/null)" ]; then
        return
    fi

    say "configure $(sed -n 's/.*NGINX_VERSION *"\(.*\)"/\1/p' \
        "$work/src/src/core/nginx.h") (15 s)"

    (
        cd "$work/src"
        rm -rf objs
        logged "$work/configure.log" $configure --with-cc="$CC" \
            --prefix="$work/prefix" --with-debug --with-threads --with-mail \
            --with-mail_ssl_module --with-http_ssl_module "$@"
    )

    echo "$stamp" >"$work/stamp"
}


# AddressSanitizer


# each palloc is a malloc of its own, or an overrun would stay in the pool
ASAN_FLAGS="-fsanitize=address -DNGX_DEBUG_PALLOC=1"

# for the module's files only, as nginx' own would be reported too; copying
# no octets from NULL is nginx' custom
UBSAN_FLAGS="-fsanitize=undefined -fno-sanitize=nonnull-attribute"


build_asan()
{
    local source=$1 work=$BUILD/asan

    # shellcheck disable=SC2086
    need_packages $PACKAGES_MODULE $PACKAGES_TEST

    if [ -z "$source" ]; then
        fetch_nginx_source
        source=$NGINX_FETCHED
    fi

    locked make_asan "$source" "$work"
    say "build/asan/nginx"
}


make_asan()
{
    local source=$1 work=$2

    copy_source "$source" "$work/src"
    configure_source "$work" --add-module="$ROOT" \
        --with-cc-opt="$ASAN_FLAGS -fno-omit-frame-pointer -O1 -g" \
        --with-ld-opt="$ASAN_FLAGS -fsanitize=undefined"

    if ! grep -qe "$UBSAN_FLAGS" "$work/src/objs/Makefile"; then
        echo "objs/addon/%.o: CFLAGS += $UBSAN_FLAGS" \
            >>"$work/src/objs/Makefile"
    fi

    say "make with -fsanitize=address,undefined (1 min)"
    logged "$work/make.log" make -s -j "$JOBS" -C "$work/src"

    cp "$work/src/objs/nginx" "$work/"
}


# The upstream tarball of Debian's own source package, by way of a copy of
# the machine's apt sources in which deb-src is on.  Sets NGINX_FETCHED.

fetch_nginx_source()
{
    local version dir=$BUILD/download uri file sum

    version=$(nginx -v 2>&1 | sed 's,.*nginx/\([0-9.]*\).*,\1,')
    NGINX_FETCHED=$dir/nginx-$version

    if [ -d "$NGINX_FETCHED" ]; then
        return
    fi

    say "looking for the sources of nginx $version"
    source_lists "$dir"
    apt_in "$dir" -qq update || true

    # several versions may have the same upstream tarball
    read -r uri file sum < <(apt_in "$dir" -qq --print-uris --only-source \
        source "nginx=$(dpkg-query -W -f '${source:Version}' nginx)" \
        | sed -n "s/^'\(.*\)' \(nginx_${version}.orig.tar[^ ]*\) [0-9]* \
SHA256:\(.*\)/\1 \2 \3/p") || true

    [ -n "${sum:-}" ] || die "apt knows no source of nginx $version;" \
        "give one with --nginx-source DIR"

    say "downloading $uri"
    apt_helper_download "$dir" "$uri" "$file" "$sum"

    (cd "$dir" && echo "$sum  $file" | sha256sum --quiet -c)
    tar -C "$dir" -xf "$dir/$file"

    [ -d "$NGINX_FETCHED" ] || die "$file holds no nginx-$version"
}


source_lists()
{
    local list

    mkdir -p "$1/sources.list.d" "$1/lists/partial" "$1/cache/archives/partial"

    for list in /etc/apt/sources.list /etc/apt/sources.list.d/*.list; do
        if [ -e "$list" ]; then
            sed -n 's/^deb /deb-src /p' "$list" | grep -i debian \
                >"$1/sources.list.d/$(basename "$list" .list).list" || true
        fi
    done

    for list in /etc/apt/sources.list.d/*.sources; do
        if [ -e "$list" ] && grep -qi '^URIs:.*debian' "$list"; then
            sed 's/^Types:.*/Types: deb-src/' "$list" \
                >"$1/sources.list.d/$(basename "$list")"
        fi
    done
}


apt_in()
{
    local dir=$1
    shift

    apt-get -o Dir::Etc::SourceList=/dev/null \
        -o Dir::Etc::SourceParts="$dir/sources.list.d" \
        -o Dir::State::Lists="$dir/lists" -o Dir::Cache="$dir/cache" \
        -o APT::Sandbox::User=root "$@"
}


apt_helper_download()
{
    /usr/lib/apt/apt-helper -q -o APT::Sandbox::User=root \
        download-file "$2" "$1/$3" "SHA256:$4" >/dev/null \
        || die "could not download $2"
}


# tests


build_unit()
{
    # shellcheck disable=SC2086
    need_packages $PACKAGES_UNIT

    say "building the unit tests"
    locked make_unit
}


make_unit()
{
    local test name

    mkdir -p "$BUILD/unit/core"
    build_core gcc "$BUILD/unit/core" "-fsanitize=address,undefined"

    for test in "$ROOT"/tests/unit/test_*.c; do
        make_core_test "$(basename "$test" .c)" "$test"
    done

    # the fuzz targets, each with its seeds

    for test in "$ROOT"/tests/fuzz/fuzz_*.c; do
        name=$(basename "$test" .c)
        name=${name#fuzz_}

        make_core_test "replay_$name" "$test" "$ROOT/tests/fuzz/replay.c" \
            -DREPLAY_CORPUS="\"$ROOT/tests/fuzz/corpus/$name\""
    done
}


# make_core_test name source [source] [flag]

make_core_test()
{
    local target=$BUILD/unit/$1
    shift

    if is_older "$target" "$ROOT"/tests/unit/*.[ch] "$ROOT"/tests/fuzz/*.[ch] \
        "$BUILD"/unit/core/*.o
    then
        # shellcheck disable=SC2046
        gcc $(core_flags) -fsanitize=address,undefined \
            -fno-sanitize-recover=undefined -I "$ROOT/tests/unit" \
            -I "$ROOT/tests/fuzz" -o "$target" "$@" "$BUILD"/unit/core/*.o
    fi
}


core_flags()
{
    echo -std=c99 -O1 -g -Wall -Wextra -Werror -fno-omit-frame-pointer \
        -I "$ROOT/module/core"
}


# build_core compiler directory flags

build_core()
{
    local source object

    for source in "$ROOT"/module/core/*.c; do
        object=$2/$(basename "$source" .c).o

        if is_older "$object" "$source" "$ROOT"/module/core/*.h; then
            # shellcheck disable=SC2046,SC2086
            "$1" $(core_flags) $3 -c -o "$object" "$source"
        fi
    done
}


# is_older file others...: true if one of them is newer, or there is no file

is_older()
{
    local file=$1 other
    shift

    for other in "$@"; do
        if [ ! -e "$file" ] || [ "$other" -nt "$file" ]; then
            return 0
        fi
    done

    return 1
}


run_fuzz()
{
    local seconds=$1 target
    shift

    # shellcheck disable=SC2086
    need_packages $PACKAGES_FUZZ

    if [ $# -eq 0 ]; then
        # shellcheck disable=SC2046
        set -- $(fuzz_targets) session
    fi

    for target in "$@"; do
        if [ "$target" = session ]; then
            build_session_fuzzer
        elif [ -e "$ROOT/tests/fuzz/fuzz_$target.c" ]; then
            build_core_fuzzer "$target"
        else
            die "no fuzz target \"$target\"; there are:" $(fuzz_targets) session
        fi

        say "fuzz_$target for $seconds s"
        fuzz_target "$target" "$seconds"
    done
}


fuzz_targets()
{
    local target

    for target in "$ROOT"/tests/fuzz/fuzz_*.c; do
        basename "$target" .c | cut -c 6-
    done
}


build_core_fuzzer()
{
    mkdir -p "$BUILD/fuzz/core"
    build_core clang "$BUILD/fuzz/core" "$FUZZ_SANITIZERS"

    # shellcheck disable=SC2046,SC2086
    clang $(core_flags) $FUZZ_SANITIZERS -fsanitize=fuzzer \
        -I "$ROOT/tests/unit" -I "$ROOT/tests/fuzz" \
        -o "$BUILD/fuzz/fuzz_$1" "$ROOT/tests/fuzz/fuzz_$1.c" \
        "$BUILD"/fuzz/core/*.o
}


build_session_fuzzer()
{
    # shellcheck disable=SC2086
    need_packages $PACKAGES_MODULE
    fetch_nginx_source

    say "nginx with libFuzzer (2 min)"
    bash "$ROOT/tests/fuzz/session/make.sh" "$NGINX_FETCHED" \
        "$BUILD/fuzz/session"

    cp -f "$BUILD/fuzz/session/fuzz_session" "$BUILD/fuzz/"
}


FUZZ_SANITIZERS="-fsanitize=fuzzer-no-link,address,undefined
    -fno-sanitize-recover=undefined"


fuzz_target()
{
    local name=$1 seconds=$2 seeds=$ROOT/tests/fuzz/corpus/$1 dictionary
    local corpus=$BUILD/fuzz/corpus-$1
    local arguments=(-max_total_time="$seconds" -print_final_stats=1
        -artifact_prefix="$BUILD/fuzz/$1-" -timeout=25 -rss_limit_mb=2000)

    for dictionary in "$ROOT/tests/fuzz/fuzz_$name.dict" \
        "$ROOT/tests/fuzz/$name/fuzz_$name.dict"
    do
        [ ! -e "$dictionary" ] || arguments+=(-dict="$dictionary")
    done

    # what it finds goes to the first
    mkdir -p "$corpus"
    arguments+=("$corpus")
    [ ! -d "$seeds" ] || arguments+=("$seeds")

    (
        cd "$ROOT"
        logged "$BUILD/fuzz/$name.log" "$BUILD/fuzz/fuzz_$name" \
            "${arguments[@]}"
    )

    grep -E 'number_of_executed_units|slowest_unit' "$BUILD/fuzz/$name.log"
}


run_tests()
{
    (cd "$ROOT" && exec perl tests/run.pl "$@")
}


unit_tests()
{
    local test

    for test in "$ROOT"/tests/unit/test_*.c; do
        echo "$BUILD/unit/$(basename "$test" .c)"
    done

    for test in "$ROOT"/tests/fuzz/fuzz_*.c; do
        echo "$BUILD/unit/replay_$(basename "$test" .c | cut -c 6-)"
    done
}


black_box_tests()
{
    (cd "$ROOT" && find t -name '*.t' | sort)
}


# verbs


verb_module()
{
    local source="" link=dynamic-module

    while [ $# -gt 0 ]; do
        case $1 in
            --nginx-source) source=${2:?--nginx-source needs a directory}
                            shift ;;
            --static)       link=module ;;
            *)              die "module: unknown argument \"$1\"" ;;
        esac
        shift
    done

    if [ -n "$source" ]; then
        build_from_source "$source" "$link"
    elif [ "$link" = module ]; then
        die "--static needs --nginx-source DIR"
    else
        build_module
    fi
}


verb_lint()
{
    # shellcheck disable=SC2086
    need_packages $PACKAGES_LINT
    run_tests tests/lint.sh
}


verb_unit()
{
    build_unit
    # shellcheck disable=SC2046
    run_tests $(unit_tests)
}


verb_test()
{
    # shellcheck disable=SC2086
    need_packages $PACKAGES_MODULE $PACKAGES_TEST $PACKAGES_LINT $PACKAGES_UNIT
    build_module
    build_unit
    # shellcheck disable=SC2046
    run_tests tests/lint.sh $(unit_tests) $(black_box_tests)
}


verb_fuzz()
{
    local seconds=${1:-60}
    [ $# -eq 0 ] || shift

    run_fuzz "$seconds" "$@"
}


verb_coverage()
{
    # shellcheck disable=SC2086
    need_packages $PACKAGES_UNIT
    bash "$ROOT/tests/coverage.sh"
}


verb_mutants()
{
    # shellcheck disable=SC2086
    need_packages $PACKAGES_MODULE $PACKAGES_TEST $PACKAGES_UNIT
    build_module
    build_unit
    bash "$ROOT/tests/mutants/run.sh" "$@"
}


verb_asan()
{
    local source=""

    if [ "${1:-}" = --nginx-source ]; then
        source=$(cd "${2:?--nginx-source needs a directory}" && pwd)
    fi

    build_asan "$source"

    # the module is built in
    export TEST_NGINX_BINARY=$BUILD/asan/nginx TEST_NGINX_GLOBALS=""

    # shellcheck disable=SC2086
    need_packages $PACKAGES_FUZZ
    build_session_fuzzer
    say "the seeds of fuzz_session"
    logged "$BUILD/fuzz/session-seeds.log" "$BUILD/fuzz/fuzz_session" \
        -runs=0 "$ROOT/tests/fuzz/corpus/session"

    # shellcheck disable=SC2046
    run_tests $(black_box_tests)
}


verb_bench_policy()
{
    # shellcheck disable=SC2086
    need_packages $PACKAGES_MODULE $PACKAGES_TEST postfwd
    build_module

    mkdir -p "$BUILD/bench"
    gcc -O2 -Wall -Wextra -Werror -o "$BUILD/bench/policy_load" \
        "$ROOT/tests/bench/policy_load.c"
    exec perl "$ROOT/tests/bench/policy.pl" "$BUILD/bench/policy_load" "$@"
}


verb_bench_log()
{
    # shellcheck disable=SC2086
    need_packages $PACKAGES_MODULE $PACKAGES_TEST
    build_module
    exec perl "$ROOT/tests/bench/log.pl" "$@"
}


verb_demo()
{
    # shellcheck disable=SC2086
    need_packages $PACKAGES_MODULE $PACKAGES_TEST
    build_module
    cd "$ROOT"
    exec perl tests/demo.pl "$@"
}


verb_clean()
{
    say "removing build/"
    rm -rf "$BUILD"
}


main()
{
    local verb=${1:-help}
    [ $# -eq 0 ] || shift

    case $ROOT in
        *[[:space:]]*) die "white space in the path: $ROOT" ;;
    esac

    case $verb in
        demo|test|module|lint|unit|coverage|fuzz|mutants|asan|clean)
            "verb_$verb" "$@" ;;
        bench-policy) verb_bench_policy "$@" ;;
        bench-log) verb_bench_log "$@" ;;
        help|-h|--help) help ;;
        *) help >&2; die "unknown verb \"$verb\"" ;;
    esac
}


main "$@"
