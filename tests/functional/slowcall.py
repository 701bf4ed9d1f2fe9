# SPDX-License-Identifier: MIT
"""slowcall.py TID SYSCALL SECONDS: that thread comes back late from each such system call, until stdin ends.

As if the kernel had given the processor to somebody else just then. Says "ready" once it is so.
"""

import ctypes
import os
import struct
import sys
import threading
import time

from ptrace import WALL, ptrace
from seccomp import number_of

PTRACE_SYSCALL, PTRACE_GET_SYSCALL_INFO = 24, 0x420E
PTRACE_SEIZE, PTRACE_INTERRUPT = 0x4206, 0x4207
OPTION_SYSGOOD = 1
INFO_ENTRY, INFO_EXIT = 1, 2
INFO_SIZE, INFO_NR = 88, 24


def stopped_at(tid):
    """Where a system call stopped it: (entry or exit, its number at the entry)."""
    info = ctypes.create_string_buffer(INFO_SIZE)
    ptrace(PTRACE_GET_SYSCALL_INFO, tid, INFO_SIZE, ctypes.addressof(info))
    return info.raw[0], struct.unpack_from("Q", info, INFO_NR)[0]


def signal_of(status):
    """What is to be delivered to a thread that stopped so: signals, but not our own stops."""
    number = os.WSTOPSIG(status)
    return 0 if status >> 16 or number & 0x80 else number


def slow(tid, number, seconds):
    ptrace(PTRACE_SEIZE, tid, 0, OPTION_SYSGOOD)
    ptrace(PTRACE_INTERRUPT, tid)
    inside, is_ready = None, False
    while True:
        _, status = os.waitpid(tid, WALL)
        if not os.WIFSTOPPED(status):
            return
        if os.WSTOPSIG(status) & 0x80:
            where, nr = stopped_at(tid)
            if where == INFO_EXIT and inside == number:
                time.sleep(seconds)
            inside = nr if where == INFO_ENTRY else None
        ptrace(PTRACE_SYSCALL, tid, 0, signal_of(status))
        if not is_ready:
            print("ready", flush=True)
        is_ready = True


def main():
    tid, name, seconds = int(sys.argv[1]), sys.argv[2], float(sys.argv[3])
    # Whoever traced it lets go of it by ending.
    threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
    slow(tid, number_of(name), seconds)


main()
