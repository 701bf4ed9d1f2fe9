# SPDX-License-Identifier: MIT
"""strace at a running process and all its threads."""

import os
import re
import shutil
import signal
import subprocess

from deadline import deadline, eventually


class CannotTrace(Exception):
    """This machine does not let us; says why."""


class Strace:
    """While it is entered, strace follows the process with these options, -f among them."""

    def __init__(self, pid, *options):
        self._pid, self._options = pid, options
        self._process = None

    def __enter__(self):
        if not shutil.which("strace"):
            raise CannotTrace("strace is not installed")
        self._process = subprocess.Popen(
            ["strace", "-f", *self._options, "-p", str(self._pid)],
            stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        eventually(lambda: self._process.poll() is not None or self._is_attached(), 10)
        if self._process.poll() is not None:
            raise CannotTrace(self._process.stderr.read().strip())
        return self

    def __exit__(self, *_exc):
        self._process.send_signal(signal.SIGINT)
        self._process.communicate(timeout=deadline(20))

    def _is_attached(self):
        return all(_tracer(self._pid, task) for task in os.listdir(f"/proc/{self._pid}/task"))


def _tracer(pid, task):
    with open(f"/proc/{pid}/task/{task}/status", encoding="ascii") as f:
        return int(re.search(r"^TracerPid:\s+(\d+)", f.read(), re.M)[1])
