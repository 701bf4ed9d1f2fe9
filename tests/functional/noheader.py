#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""noheader.py COMMAND...: run COMMAND where no PROXY header of version 2 for IPv4 can be sent.

As if the server had reset the connection just before.
"""

import errno
import os
import sys

from seccomp import deny

HEADER_LEN = 28

if __name__ == "__main__":
    deny("sendto", {2: HEADER_LEN}, errno.ECONNRESET)
    os.execvp(sys.argv[1], sys.argv[1:])
