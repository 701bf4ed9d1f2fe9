#!/bin/sh
# SPDX-License-Identifier: MIT
#
# Where there is no apt, tools/install-packages names the packages, and goes on only with all that configure.ac requires. It runs
# with a PATH of our own: what it needs itself, and what a build needs as we please.
set -eu

top=$(cd "${top_srcdir:-$(dirname "$0")/../..}" && pwd)
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
faults=0
mkdir "$dir/bin"
for tool in dirname readlink sed sort tr; do
    ln -s "$(command -v "$tool")" "$dir/bin/$tool"
done

# program NAME: one in that PATH, whose text is on stdin.
program() {
    {
        echo '#!/bin/sh'
        cat
    } >"$dir/bin/$1"
    chmod 755 "$dir/bin/$1"
}

# expect STATUS TEXT SECTION...: it must end with STATUS, and print TEXT.
expect() {
    wanted=$1 text=$2 status=0
    shift 2
    out=$(PATH=$dir/bin "$top/tools/install-packages" "$@" 2>&1) || status=$?
    case $out in
    *"$text"*) ;;
    *) status="$status without '$text'" ;;
    esac
    if [ "$status" != "$wanted" ]; then
        printf 'FAIL: install-packages %s: status %s, expected %s with "%s"; it said:\n%s\n' "$*" "$status" "$wanted" "$text" "$out"
        faults=$((faults + 1))
    fi
}

going_on='the tools are there all the same: going on'
no_apt='this system has no apt; on Debian these packages would be needed:'

# Nothing is there: each package is named, in their order, and without a mark.
for section in build quickstart; do
    names=$(sed -n "s/^$section: *//p" "$top/tools/packages" | tr -s ' ' '\n' | tr -d '?' | LC_ALL=C sort -u | tr '\n' ' ')
    expect 1 "$no_apt
packages: $names" "$section"
done

# All is there. A library is missing when its name stands in a file.
for tool in make autoreconf automake python3 curl; do
    echo 'exit 0' | program "$tool"
done
program cc <<'END'
read -r line
[ "$line" = '#include <ev.h>' ]
END
: >"$dir/missing"
program pkg-config <<END
[ "\$1" = --exists ] || exit 1
shift
for spec; do
    printf '%s\n' "\$spec"
    while read -r name; do
        case \$spec in "\$name" | "\$name "*) exit 1 ;; esac
    done <'$dir/missing'
done >'$dir/asked'
END
expect 0 "$going_on" build
expect 0 "$going_on" build quickstart
expect 1 "$no_apt" build test

# It asks for what configure.ac requires, no less and no more: a module with nothing to do when it is not found.
sed -n 's/^PKG_CHECK_MODULES(\[[A-Z]*\], \[\([^]]*\)\])$/\1/p' "$top/configure.ac" | LC_ALL=C sort >"$dir/required"
LC_ALL=C sort "$dir/asked" | diff "$dir/required" - ||
    { echo 'FAIL: < what configure.ac requires, > what install-packages asks for'; faults=$((faults + 1)); }
while read -r library _; do
    echo "$library" >"$dir/missing"
    expect 1 "$no_apt" build
done <"$dir/required"
echo libsystemd >"$dir/missing"
expect 0 "$going_on" build
: >"$dir/missing"

for tool in cc make autoreconf automake pkg-config curl; do
    mv "$dir/bin/$tool" "$dir/$tool"
    expect 1 "$no_apt" build quickstart
    mv "$dir/$tool" "$dir/bin/$tool"
done
[ "$faults" = 0 ]
