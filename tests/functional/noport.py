#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""noport.py COUNT COMMAND...: run COMMAND where the first COUNT connect(2)s over IPv4 find no free local port.

As if each had been free a moment later: EADDRNOTAVAIL.
"""

import errno
import os
import socket
import sys

from seccomp import answer, ask

SOCKADDR_IN_SIZE = 16


def supervise(sock, count):
    """Refuse so many, and let all others pass. Holds nothing open that somebody waits on."""
    _, fds, _, _ = socket.recv_fds(sock, 1, 1)
    null = os.open(os.devnull, os.O_RDWR)
    for fd in range(3):
        os.dup2(null, fd)
    errors = [0] + count * [errno.EADDRNOTAVAIL]
    answer(fds[0], lambda: errors.pop() if errors[1:] else 0)


def main():
    """COMMAND in this process; who answers is nobody's child."""
    ours, theirs = socket.socketpair()
    if os.fork() == 0:
        if os.fork() == 0:
            ours.close()
            supervise(theirs, int(sys.argv[1]))
        os._exit(0)
    os.wait()
    listener = ask("connect", {2: SOCKADDR_IN_SIZE})
    socket.send_fds(ours, [b"x"], [listener])
    os.close(listener)
    os.execvp(sys.argv[2], sys.argv[2:])


if __name__ == "__main__":
    main()
