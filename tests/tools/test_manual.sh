#!/bin/sh
# SPDX-License-Identifier: MIT
#
# Do the manual pages format without a warning, and do rediald(8) and redialctl(1) know every option, command and exit status of --help? That
# rediald.conf(5) knows every key is seen by test_conf.
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
# check PROGRAM PAGE SECTION...: the page has these sections, and in those before ENVIRONMENT every option.
check() {
    program=$1 page=$2
    shift 2
    "src/$program" --help >"$work/help"
    sed 's/Fl Fl /--/g' "man/$page" >"$work/page"
    sed '/^\.Sh ENVIRONMENT/q' "$work/page" >"$work/head"
    options_of "$work/help" >"$work/1"
    options_of "$work/head" >"$work/2"
    diff "$work/1" "$work/2" || fault "options: < those of --help, > those of $page"

    statuses=$(sed -n '/^Exit status: /,$p' "$work/help" | grep -oE '[0-9]+')
    for status in $statuses; do
        sed '1,/^\.Sh EXIT STATUS/d' "$work/page" | grep -qx "\.It $status" || fault "$page: exit status $status is missing"
    done
    for section; do
        grep -q "^\.Sh $section" "$work/page" || fault "$page: there is no $section"
    done
}

check rediald rediald.8 NAME SYNOPSIS DESCRIPTION OPTIONS SIGNALS 'EXIT STATUS' ENVIRONMENT FILES EXAMPLES 'SEE ALSO'
check redialctl redialctl.1 NAME SYNOPSIS DESCRIPTION COMMANDS OPTIONS 'EXIT STATUS' ENVIRONMENT FILES EXAMPLES 'SEE ALSO'

# Commands of redialctl: the first word of the lines between the first blank line of --help and the second.
for command in $(src/redialctl --help | awk '/^$/ { blank++ } blank == 1 && NF { print $1 }'); do
    sed '/^\.Sh COMMANDS/,/^\.Sh OPTIONS/!d' man/redialctl.1 | grep -qE "^\.It Cm (.* )?$command\>" ||
        fault "redialctl.1: the command $command is missing"
done
[ "$faults" = 0 ]
