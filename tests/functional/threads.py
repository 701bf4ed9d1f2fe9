# SPDX-License-Identifier: MIT
"""The daemon's workers, each a thread: brought to a stand, and looked at from outside."""

import contextlib
import re

import pytest

from ptrace import standing_still, thread_named


def worker_thread(daemon, number):
    """The id of a worker's thread."""
    return thread_named(daemon.pid, f"worker {number}")


def naps(daemon, number):
    """How often has that worker slept and been woken? One that nobody wakes has not."""
    where = f"/proc/{daemon.pid}/task/{worker_thread(daemon, number)}/status"
    with open(where, encoding="ascii") as f:
        return int(re.search(r"^voluntary_ctxt_switches:\s+(\d+)", f.read(), re.M)[1])


@contextlib.contextmanager
def stopped(daemon, *workers):
    """These workers do nothing during the body."""
    with contextlib.ExitStack() as stack:
        for worker in workers:
            try:
                stack.enter_context(standing_still(worker_thread(daemon, worker)))
            except OSError as err:
                pytest.skip(f"no thread can be stopped here: {err}")
        yield
