#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""noipv6.py COMMAND...: run COMMAND where there is no IPv6 (ipv6.disable=1)."""

import errno
import os
import socket
import sys

from seccomp import deny

if __name__ == "__main__":
    deny("socket", {0: socket.AF_INET6}, errno.EAFNOSUPPORT)
    os.execvp(sys.argv[1], sys.argv[1:])
