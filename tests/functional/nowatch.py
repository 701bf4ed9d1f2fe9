#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""nowatch.py EPOLL COMMAND...: run COMMAND where the epoll instance EPOLL takes no descriptor.

As if the user watched as many as fs.epoll.max_user_watches allows.
"""

import errno
import os
import sys

from seccomp import deny

EPOLL_CTL_ADD = 1

if __name__ == "__main__":
    deny("epoll_ctl", {0: int(sys.argv[1]), 1: EPOLL_CTL_ADD}, errno.ENOSPC)
    os.execvp(sys.argv[2], sys.argv[2:])
