# SPDX-License-Identifier: MIT
"""One thread of another process brought to a stand, while the others run."""

import contextlib
import ctypes
import os

from deadline import eventually

PTRACE_DETACH, PTRACE_SEIZE, PTRACE_INTERRUPT = 17, 0x4206, 0x4207
WALL = 0x40000000

_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
_libc.ptrace.restype = ctypes.c_long


def ptrace(request, tid, address=None, data=None):
    """The system call; raises OSError."""
    if _libc.ptrace(request, tid, address, data) == -1:
        err = ctypes.get_errno()
        raise OSError(err, f"ptrace: {os.strerror(err)}")


def thread_named(pid, name):
    """The id of the process's thread of that name, once it has told it."""
    def find():
        for task in os.listdir(f"/proc/{pid}/task"):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError), \
                    open(f"/proc/{pid}/task/{task}/comm", encoding="ascii") as f:  # or it has ended
                if f.read() == f"{name}\n":
                    return int(task)
        return None
    return eventually(find, what=f"{pid} has a thread '{name}'")


@contextlib.contextmanager
def standing_still(tid):
    """The thread tid does nothing during the body; raises OSError where that cannot be done."""
    ptrace(PTRACE_SEIZE, tid)
    try:
        ptrace(PTRACE_INTERRUPT, tid)
        os.waitpid(tid, WALL)
        yield
    finally:
        with contextlib.suppress(OSError):  # it may be gone
            ptrace(PTRACE_DETACH, tid)
