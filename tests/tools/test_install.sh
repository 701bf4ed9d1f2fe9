#!/bin/sh
# SPDX-License-Identifier: MIT
#
# Does `make install' put everything in its place, and `make uninstall' take it away? In a directory of our own (DESTDIR).
set -eu

unset MAKEFLAGS MFLAGS MAKELEVEL
top=${top_srcdir:-$(dirname "$0")/../..}
dest=$(mktemp -d)
trap 'rm -rf "$dest"' EXIT
faults=0

fault() {
    echo "$*"
    faults=$((faults + 1))
}

# The value of a variable of the Makefile.
of_make() {
    # shellcheck disable=SC2016 # the dollars are make's
    printf 'include Makefile\nshow-it:\n\t@echo "$(%s)"\n' "$1" | "${MAKE:-make}" -s -f - show-it
}

check_there() {
    [ -f "$dest$1" ] || fault "$1 is not installed"
}

bindir=$(of_make bindir)
sbindir=$(of_make sbindir)
sysconfdir=$(of_make sysconfdir)
docdir=$(of_make docdir)
unitdir=$(of_make systemdsystemunitdir)

"${MAKE:-make}" -s install DESTDIR="$dest" >/dev/null

check_there "$sbindir/rediald"
check_there "$bindir/redialctl"
for example in rediald.conf quickstart.conf low-ports.conf unix-group.conf; do
    check_there "$docdir/examples/$example"
done
mandir=$(of_make mandir)
for page in man1/redialctl.1 man8/rediald.8 man5/rediald.conf.5; do
    check_there "$mandir/$page"
    ! grep -n '@[A-Za-z]*@' "$dest$mandir/$page" || fault "$page: not every path was put in"
done
cmp "$top/conf/rediald.conf" "$dest$docdir/examples/rediald.conf" || fault "the reference is another"
[ ! -e "$dest$sysconfdir/redial" ] || fault "something is in $sysconfdir, which is the user's"
for program in "$sbindir/rediald" "$bindir/redialctl"; do
    "$dest$program" --version >/dev/null || fault "$program, as it is installed, does not run"
done

if [ -n "$unitdir" ]; then
    for unit in rediald.service rediald@.service rediald.socket; do
        check_there "$unitdir/$unit"
        ! grep -n '@[A-Za-z]*@' "$dest$unitdir/$unit" || fault "$unit: not every path was put in"
    done
    grep -qx "ExecStart=$sbindir/rediald -c $sysconfdir/redial/rediald.conf" "$dest$unitdir/rediald.service" ||
        fault "rediald.service starts something else"
    grep -qx "ExecStart=$sbindir/rediald -c $sysconfdir/redial/%i.conf" "$dest$unitdir/rediald@.service" ||
        fault "rediald@.service starts something else"
    for unit in rediald.service rediald@.service; do
        # shellcheck disable=SC2016 # the dollar is systemd's
        reload='ExecReload=/bin/kill -HUP $MAINPID'
        [ "$(of_make SYSTEMD_VERSION)" -lt 253 ] || reload=Type=notify-reload
        grep -qxF "$reload" "$dest$unitdir/$unit" || fault "$unit lacks $reload"
        grep -qx 'DynamicUser=yes' "$dest$unitdir/$unit" || fault "$unit lacks what both have in common"
    done
else
    echo "this build installs no units"
fi

# The user's own file, in a place where ours might be.
mkdir -p "$dest$sysconfdir/redial"
echo mine >"$dest$sysconfdir/redial/rediald.conf"
"${MAKE:-make}" -s install DESTDIR="$dest" >/dev/null
grep -qx mine "$dest$sysconfdir/redial/rediald.conf" || fault "the user's configuration was overwritten"
"${MAKE:-make}" -s uninstall DESTDIR="$dest" >/dev/null
[ "$(find "$dest" -type f -o -type l)" = "$dest$sysconfdir/redial/rediald.conf" ] ||
    fault "left after uninstall: $(find "$dest" -type f -o -type l)"
[ "$faults" = 0 ]
