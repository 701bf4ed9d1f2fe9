#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""listenfds.py NAME=FD[,NAME=FD]... COMMAND...: run COMMAND with these descriptors as systemd passes sockets."""

import os
import sys

FIRST = 3

if __name__ == "__main__":
    names, fds = zip(*(word.split("=") for word in sys.argv[1].split(",")))
    # Out of the way first: one may have the place of another.
    fds = [os.dup2(int(fd), 100 + n) for n, fd in enumerate(fds)]
    for n, fd in enumerate(fds):
        os.dup2(fd, FIRST + n, inheritable=True)
        os.close(fd)
    os.closerange(FIRST + len(fds), 100)
    os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(fds)),
                      LISTEN_FDNAMES=":".join(names))
    os.execvp(sys.argv[2], sys.argv[2:])
