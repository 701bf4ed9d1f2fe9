#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""nothreads.py COMMAND...: run COMMAND where no thread can be made, as at a limit of tasks."""

import errno
import os
import sys

from seccomp import deny

# What pthread_create(3) of glibc asks clone(2) for: VM, FS, FILES, SIGHAND, THREAD, SYSVSEM,
# SETTLS, PARENT_SETTID, CHILD_CLEARTID. Where it knows clone3(2), it asks that first.
THREAD_FLAGS = 0x003D0F00

if __name__ == "__main__":
    deny("clone", {0: THREAD_FLAGS}, errno.EAGAIN)
    deny("clone3", {}, errno.EAGAIN)
    os.execvp(sys.argv[1], sys.argv[1:])
