#!/bin/sh
# SPDX-License-Identifier: MIT
#
# Do the manual pages format without a warning, and does rediald(8) know every option and exit status of `rediald --help'? That rediald.conf(5)
# knows every key is seen by test_conf.
set -eu

top=${top_srcdir:-$(dirname "$0")/../..}
faults=0

fault() {
    echo "$*"
    faults=$((faults + 1))
}

if command -v groff >/dev/null; then
    # As they are written: an installation's paths may be too long for a line.
    for page in "$top"/man/*.in; do
        said=$(groff -mandoc -Tutf8 -ww -z "$page" 2>&1)
        [ -z "$said" ] || fault "$said"
    done
else
    echo "skipped: no groff to format the pages"
fi

# options_of FILE: each option once, in the way of --help.
options_of() {
    grep -oE -- '--[a-z][a-z-]*' "$1" | LC_ALL=C sort -u
}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
src/rediald --help >"$work/help"
sed 's/Fl Fl /--/g' man/rediald.8 >"$work/page"
sed '/^\.Sh ENVIRONMENT/q' "$work/page" >"$work/head"
options_of "$work/help" >"$work/1"
options_of "$work/head" >"$work/2"
diff "$work/1" "$work/2" || fault "options: < those of --help, > those of rediald(8)"

statuses=$(sed -n 's/^Exit status: //p' "$work/help" | grep -oE '[0-9]+')
for status in $statuses; do
    sed '1,/^\.Sh EXIT STATUS/d' "$work/page" | grep -qx "\.It $status" || fault "exit status $status is missing"
done
for section in NAME SYNOPSIS DESCRIPTION OPTIONS SIGNALS 'EXIT STATUS' ENVIRONMENT FILES EXAMPLES 'SEE ALSO'; do
    grep -q "^\.Sh $section" "$work/page" || fault "there is no $section"
done
[ "$faults" = 0 ]
