#!/bin/sh
# SPDX-License-Identifier: MIT
#
# The checks in tools/ must be able to fail: each is run over small trees, sound ones and broken ones.
set -eu

tools=$(cd "${top_srcdir:-$(dirname "$0")/../..}/tools" && pwd)
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
failed=0

# A sound tree: `high' stands on `low', and the dialer connects.
fresh_tree() {
    rm -rf "$dir/tree"
    mkdir -p "$dir/tree/src" "$dir/tree/tools"
    cd "$dir/tree"
    printf '# bottom first\nlow\ndialer high\n' >src/LAYERS
    printf '/* SPDX-License-Identifier: MIT */\nint low;\n' >src/low.h
    printf '/* SPDX-License-Identifier: MIT */\n#include "low.h"\nint h;\n' >src/high.h
    printf '/* SPDX-License-Identifier: MIT */\n#include "high.h"\n#include "high_own.h"\n' >src/high.c
    printf '/* SPDX-License-Identifier: MIT */\n#include "low.h"\n' >src/high_own.h
    printf '/* SPDX-License-Identifier: MIT */\n#include <stdio.h>\nint d = connect(1, a, n);\n' >src/dialer.c
}

# expect CHECK STATUS TEXT: run it over the tree; it must end with STATUS and print TEXT.
expect() {
    status=0
    out=$(top_srcdir=$dir/tree "$tools/$1" 2>&1) || status=$?
    case $out in
    *"$3"*) ;;
    *) status="$status without '$3'" ;;
    esac
    if [ "$status" != "$2" ]; then
        printf 'FAIL: %s: status %s, expected %s with "%s"; it said:\n%s\n' "$1" "$status" "$2" "$3" "$out"
        failed=1
    fi
}

fresh_tree
expect check-layers 0 'keep the layers'
expect check-connect 0 'leave connect(2)'
expect check-files 0 'are complete'

echo '#include "high.h"' >>src/low.h
expect check-layers 1 'src/low.h:3: "high.h": high is not below low'

fresh_tree
printf 'int x;\n  #  include "high.h"\n' >>src/dialer.c
expect check-layers 1 'src/dialer.c:5: "high.h": high is not below dialer'

fresh_tree
echo '#include "high_own.h"' >>src/dialer.c
expect check-layers 1 'src/dialer.c:4: "high_own.h" is private to the module high'

fresh_tree
echo '#include "helpers.h"' >>src/dialer.c
expect check-layers 1 'src/dialer.c:4: "helpers.h" is no header of a module'

fresh_tree
echo 'int stray;' >src/stray.c
expect check-layers 1 'src/stray.c:1: this file belongs to no module'
expect check-files 1 'src/stray.c:1: the SPDX line is missing'
printf '\n\n/* SPDX-License-Identifier: MIT */\n' >src/stray.c
expect check-files 1 'src/stray.c:1: the SPDX line is missing'

fresh_tree
echo 'gone' >>src/LAYERS
expect check-layers 1 'src/LAYERS:4: module gone has no file'

fresh_tree
printf '%s\n' '/* connect(2) and' ' * connect(fd) */ int a; // connect()' 'char s[] = "connect(\"", c = '"'\"'"';' \
    'int reconnect(int); int b = s.connect(1) + s->connect(2);' >>src/high.c
expect check-connect 0 'leave connect(2)'
echo 'int e = s == "" ? connect(3) : 0;' >>src/high.c
expect check-connect 1 'src/high.c:8: connect(2) belongs in src/dialer.c'

fresh_tree
sed 's/high/high route/' src/LAYERS >LAYERS.new && mv LAYERS.new src/LAYERS
printf '/* SPDX-License-Identifier: MIT */\nint r = connect(socket(AF_INET, SOCK_DGRAM, 0));\n' >src/route.c
expect check-connect 0 'leave connect(2)'
echo 'int t = connect(socket(AF_INET, SOCK_STREAM, 0));' >>src/route.c
expect check-connect 1 'src/route.c:3: only datagram sockets'

for call in 'dial_with(&connect);' 'syscall(SYS_connect, fd);' '/* so */connect (fd);'; do
    fresh_tree
    echo "$call" >>src/high.h
    expect check-connect 1 'src/high.h:4: connect(2) belongs'
done

for mark in TO:DO FIX:ME XX:X; do
    fresh_tree
    printf '# SPDX-License-Identifier: MIT\n# %s\n' "$(echo $mark | tr -d :)" >tools/later
    expect check-files 1 'tools/later:2: unfinished: # '
done

[ $failed = 0 ] && echo 'the checks pass sound trees and fail broken ones'
exit $failed
