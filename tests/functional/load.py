# SPDX-License-Identifier: MIT
"""Clients who ask again and again while something else happens."""

import errno
import threading

from sockets import ask

# How a client sees that its session was cut.
_CUT = ("ConnectionResetError", "BrokenPipeError", f"OSError({errno.ENOTCONN},", " bytes of ")


class Busy:
    """So many threads, each in its _run(n), during the body; at its end self._ends is set."""

    def __init__(self, threads):
        self._ends = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(n,)) for n in range(threads)]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_exc):
        self._ends.set()
        for thread in self._threads:
            thread.join()

    def _run(self, n):
        raise NotImplementedError


class Load(Busy):
    """So many threads ask at address, of servers that echo. What is not as it should be is in faults."""

    def __init__(self, address, threads):
        super().__init__(threads)
        self.address = address
        self.done = 0
        self.faults = []

    def refused(self):
        """The faults but those of clients whose session was cut."""
        return [fault for fault in self.faults if not any(kind in fault for kind in _CUT)]

    def _run(self, n):
        text = b"%d " % n * 200
        while not self._ends.is_set():
            try:
                got = ask(self.address, text)
                if got != text:
                    self.faults.append(f"{len(got)} bytes of {len(text)}")
            except OSError as err:
                self.faults.append(repr(err))
            self.done += 1
