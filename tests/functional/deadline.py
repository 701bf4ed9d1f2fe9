# SPDX-License-Identifier: MIT
"""Deadlines that stretch on slow ground, and the ways to wait for something that has to come."""

import os
import threading
import time

from binary import BINARY_IS_SANITIZED, WRAP

# How much slower than a plain build on an idle machine things may be.
SLOW = float(os.environ.get("SLOW", "1")) * (4 if BINARY_IS_SANITIZED else 1) * (8 if WRAP else 1)

_never = threading.Event()


def deadline(seconds):
    """So many seconds on a plain build; more under a sanitizer, under WRAP and with SLOW."""
    return seconds * SLOW


def pass_time(seconds):
    """A scenario's own time: a server that takes so long. Never a hope for something to be done."""
    _never.wait(seconds)


def eventually(condition, seconds=5, what=None):
    """Wait until condition() holds, and return what it returned; fail after deadline(seconds)."""
    end = time.monotonic() + deadline(seconds)
    while True:
        result = condition()
        if result:
            return result
        assert time.monotonic() < end, f"not within {deadline(seconds):g} s: {what or condition}"
        _never.wait(0.01)
