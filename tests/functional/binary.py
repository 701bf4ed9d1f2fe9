# SPDX-License-Identifier: MIT
"""Which rediald is tested, and with what around it."""

import os
import shlex

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

REDIALD = os.environ.get("REDIALD") or os.path.join(
    os.environ.get("top_builddir") or TOP, "src", "rediald")
WRAP = shlex.split(os.environ.get("WRAP", ""))


def _holds(path, *marks):
    try:
        with open(path, "rb") as f:
            text = f.read()
    except OSError:
        return False
    return any(mark in text for mark in marks)


BINARY_IS_SANITIZED = _holds(REDIALD, b"__asan_init", b"__tsan_init", b"__ubsan_handle")
