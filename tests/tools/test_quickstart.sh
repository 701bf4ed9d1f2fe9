#!/bin/bash
# SPDX-License-Identifier: MIT
#
# Ctrl-C ends tools/quickstart and all that it has started, whenever it comes. The quickstart runs in a tree of its own, where
# building is taking the rediald that is there, and its pauses are short.
set -eu

top=$(cd "${top_srcdir:-$(dirname "$0")/../..}" && pwd)
built=$PWD/src/rediald
for tool in python3 curl awk pgrep; do
    if ! command -v "$tool" >/dev/null; then
        echo "skipped: the quickstart needs $tool"
        exit 77
    fi
done
dir=$(mktemp -d)
faults=0
group=

clean_up() {
    [ -z "$group" ] || kill -KILL -- "-$group" 2>/dev/null || true
    rm -rf "$dir"
}
trap clean_up EXIT

# stub FILE TEXT: a program.
stub() {
    printf '#!/bin/sh\n%s\n' "$2" >"$1"
    chmod 755 "$1"
}

mkdir -p "$dir/tree/tools" "$dir/tree/conf" "$dir/bin" "$dir/tmp"
cp "$top/tools/quickstart" "$dir/tree/tools"
cp "$top/conf/quickstart.conf" "$dir/tree/conf"
stub "$dir/tree/tools/install-packages" ''
stub "$dir/tree/configure" 'mkdir -p src'
stub "$dir/bin/autoreconf" ''
stub "$dir/bin/make" "ln -sf '$built' src/rediald"
stub "$dir/bin/sleep" "exec $(command -v sleep) 0.05"

# Its ports are nobody else's in a network of its own, where that may be had.
own=()
alone=(unshare --user --map-root-user --net sh -c 'ip link set lo up && exec "$@"' sh)
! "${alone[@]}" true 2>/dev/null || own=("${alone[@]}")

# wait_until COMMAND...: for 30 s at most.
wait_until() {
    local end=$((SECONDS + 30))
    until "$@"; do
        [ $SECONDS -lt $end ] || return 1
        sleep 0.02
    done
}

fault() {
    printf 'FAIL: %s; the quickstart said:\n%s\n' "$1" "$(cat "$dir/said")"
    faults=$((faults + 1))
}

says() {
    grep -q "$1" "$dir/said"
}

has_nobody() {
    ! kill -0 -- "-$group" 2>/dev/null
}

# interrupt TEXT RUNNING WHO STATUS: once it has said TEXT, when so many of rediald and the server run, SIGINT to it or all of its
# group: it ends with STATUS, and nothing is left.
interrupt() {
    local text=$1 running=$2 who=$3 expected=$4 status=0

    : >"$dir/said"
    set -m # a process group of its own, as a terminal's shell makes it, and SIGINT is not ignored
    PATH=$dir/bin:$PATH TMPDIR=$dir/tmp "${own[@]}" "$dir/tree/tools/quickstart" >"$dir/said" 2>&1 </dev/null &
    group=$!
    set +m
    if ! wait_until says "$text"; then
        fault "it does not say '$text'"
    elif [ "$(pgrep -c -g "$group" 'rediald|python3')" != "$running" ]; then
        fault "after '$text' there run $(pgrep -a -g "$group")"
    fi
    case $who in
    all) kill -INT -- "-$group" || true ;;
    it) kill -INT "$group" || true ;;
    esac
    wait_until has_nobody || fault "interrupted after '$text' it leaves $(pgrep -a -g "$group")"
    wait "$group" || status=$?
    group=
    [ "$status" = "$expected" ] || fault "interrupted after '$text' it ends with status $status, expected $expected"
    [ -z "$(ls "$dir/tmp")" ] || fault "interrupted after '$text' it leaves $(ls "$dir/tmp")"
}

interrupt 'Ctrl-C ends all' 2 all 0
says 'Ended; nothing is left running.' || fault 'it does not say that it has ended'
interrupt 'Ctrl-C ends all' 2 it 0
interrupt 'the client waits: 1 s' 1 all 130
[ "$faults" = 0 ]
