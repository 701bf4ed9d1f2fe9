#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""listenfds.py NAME=FD[,NAME=FD]... COMMAND...: run COMMAND with these descriptors as systemd passes sockets."""

import fcntl
import os
import sys

FIRST = 3

if __name__ == "__main__":
    names, fds = zip(*(word.split("=") for word in sys.argv[1].split(",")))
    # Out of the way first: one may have the place of another.
    fds = [fcntl.fcntl(int(fd), fcntl.F_DUPFD, FIRST + len(fds)) for fd in fds]
    for n, fd in enumerate(fds):
        os.dup2(fd, FIRST + n, inheritable=True)
    os.closerange(FIRST + len(fds), 1 << 20)
    os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(fds)),
                      LISTEN_FDNAMES=":".join(names))
    os.execvp(sys.argv[2], sys.argv[2:])
