# SPDX-License-Identifier: MIT
"""What sessions cost the kernel: the slabs that sockets, descriptors and epoll are made of."""

import re

from account import read

SLABS = re.compile(r"TCP|sock_inode_cache|filp|dentry|eventpoll_\w+|ep_head|lsm_\w+|tcp_bind\w*")


def slabs():
    """Bytes of the objects in use, by slab. OSError: not ours to see.

    A kernel that merges slabs of one size shows some of them under other names, and so too little.
    """
    found = {}
    for line in read("/proc/slabinfo").splitlines()[2:]:
        fields = line.split()
        if SLABS.fullmatch(fields[0]):
            found[fields[0]] = int(fields[1]) * int(fields[3])
    return found


def growth(before, after):
    """The sum of what came between."""
    return sum(after.values()) - sum(before.values())
