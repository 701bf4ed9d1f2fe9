# SPDX-License-Identifier: MIT
"""Counting what a running daemon does: its system calls, and the instructions of its own code."""

import os
import re
import shutil
import subprocess

from binary import REDIALD
from strace import CannotTrace, Strace

# One name for what one library or machine calls so and another otherwise.
ALIASES = {"epoll_pwait": "epoll_wait", "epoll_pwait2": "epoll_wait",
           "recv": "recvfrom", "send": "sendto"}


class CallCounter:
    """Counts a process's system calls while it is entered; calls has them by name."""

    def __init__(self, pid, path):
        self.calls = {}
        self._path = path
        self._strace = Strace(pid, "-c", "-U", "calls,name", "-o", path)

    def __enter__(self):
        self._strace.__enter__()
        return self

    def __exit__(self, *exc):
        self._strace.__exit__(*exc)
        with open(self._path, encoding="ascii") as f:
            for number, name in re.findall(r"^ *(\d+) (\w+)$", f.read(), re.M):
                name = ALIASES.get(name, name)
                self.calls[name] = self.calls.get(name, 0) + int(number)
        self.calls.pop("total", None)


def producer():
    """The daemon's compiler and its options; None without debugging information."""
    if not shutil.which("readelf"):
        raise CannotTrace("readelf is not installed")
    said = subprocess.run(["readelf", "--debug-dump=info", "--dwarf-depth=1", REDIALD],
                          capture_output=True, text=True, check=False, errors="replace").stdout
    found = re.search(r"DW_AT_producer.*: (\S+ C.*)", said)
    return found[1].strip() if found else None


def callgrind(path):
    """What to put before the daemon's command line to count its instructions into the file."""
    if not shutil.which("valgrind"):
        raise CannotTrace("valgrind is not installed")
    return ("valgrind", "--quiet", "--tool=callgrind", f"--callgrind-out-file={path}")


def own_instructions(path):
    """The instructions of the daemon's own code, libraries left out, in such a file."""
    own = total = 0
    in_own = called = False
    names = {}
    with open(path, encoding="utf-8") as f:
        for line in f:
            if match := re.match(r"(c?ob)=\((\d+)\)(?: (.*))?", line):
                names.setdefault(match[2], match[3])
                if match[1] == "ob":
                    in_own = os.path.basename(names[match[2]]) == os.path.basename(REDIALD)
            elif line.startswith("calls="):
                called = True  # the next line is what the callee took
            elif re.match(r"[-+*\d]", line):
                if not called:
                    total += int(line.split()[1])
                    own += in_own * int(line.split()[1])
                called = False
    assert 0 < own < total, f"{path}: cannot read it"
    return own
