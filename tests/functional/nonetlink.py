#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""nonetlink.py COMMAND...: run COMMAND where there are no netlink sockets, as a sandbox may have it."""

import errno
import os
import socket
import sys

from seccomp import deny

if __name__ == "__main__":
    deny("socket", {0: socket.AF_NETLINK}, errno.EAFNOSUPPORT)
    os.execvp(sys.argv[1], sys.argv[1:])
