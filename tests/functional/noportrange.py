#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""noportrange.py COMMAND...: run COMMAND where IP_LOCAL_PORT_RANGE does not exist.

As on a kernel before 6.3: nothing but the detection of self-connections is left.
"""

import errno
import os
import socket
import sys

from seccomp import deny

IP_LOCAL_PORT_RANGE = 51

if __name__ == "__main__":
    deny("setsockopt", {1: socket.IPPROTO_IP, 2: IP_LOCAL_PORT_RANGE}, errno.ENOPROTOOPT)
    os.execvp(sys.argv[1], sys.argv[1:])
