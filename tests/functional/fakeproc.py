#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""fakeproc.py FILE=TEXT... -- COMMAND...: run COMMAND where these files of /proc/sys have another content.

`/proc=' instead: where /proc is empty.
"""

import ctypes
import os
import sys
import tempfile

CLONE_NEWNS = 0x20000
MS_BIND, MS_REC, MS_PRIVATE = 4096, 16384, 1 << 18

_libc = ctypes.CDLL(None, use_errno=True)


def check(result):
    if result != 0:
        err = ctypes.get_errno()
        raise OSError(err, os.strerror(err))


def mount(source, target, flags, kind=None):
    check(_libc.mount(source.encode(), target.encode(), kind, ctypes.c_ulong(flags), None))


if __name__ == "__main__":
    end = sys.argv.index("--")
    check(_libc.unshare(CLONE_NEWNS))
    mount("none", "/", MS_REC | MS_PRIVATE)
    for word in sys.argv[1:end]:
        name, _, content = word.partition("=")
        if not content:
            mount("none", name, 0, b"tmpfs")
            continue
        with tempfile.NamedTemporaryFile("w") as f:  # the mount keeps it
            f.write(content + "\n")
            f.flush()
            mount(f.name, name, MS_BIND)
    os.execvp(sys.argv[end + 1], sys.argv[end + 1:])
