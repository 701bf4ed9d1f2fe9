#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""portprober.py MODE PORT: try to take PORT over and over; tell how it went at EOF of stdin.

bind   binds without SO_REUSEADDR, as a server does that is about to start, and lets go at once.
steal  binds with SO_REUSEADDR and listens, as another program does that wants the port.

It prints JSON. tries, taken: how often it tried, and got the port. blocked_s: the longest time in
which every try failed; of a long pause between two tries, on a busy machine, LATE_S are counted.
"""

import errno
import json
import select
import socket
import sys
import time

PAUSE_S = 0.0005
LATE_S = 0.02


def attempt(port, steal):
    """Could the port be taken just now?"""
    with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as sock:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        if steal:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind(("::", port))
            if steal:
                sock.listen()
        except OSError as err:
            if err.errno != errno.EADDRINUSE:
                raise
            return False
    return True


class Tally:
    """What the tries have come to."""

    def __init__(self):
        self.tries = self.taken = 0
        self.blocked_s = 0.0
        self._row_s = self._last = None

    def add(self, now, taken):
        self.tries += 1
        if taken:
            self.taken += 1
            self._row_s = None
        elif self._row_s is None:
            self._row_s = 0.0
        else:
            self._row_s += min(now - self._last, LATE_S)
            self.blocked_s = max(self.blocked_s, self._row_s)
        self._last = now

    def report(self):
        return {"tries": self.tries, "taken": self.taken, "blocked_s": self.blocked_s}


def main():
    """Try until stdin ends."""
    steal, port = sys.argv[1] == "steal", int(sys.argv[2])
    tally = Tally()
    print("ready", flush=True)
    while not select.select([sys.stdin], [], [], 0 if steal else PAUSE_S)[0]:
        tally.add(time.monotonic(), attempt(port, steal))
    json.dump(tally.report(), sys.stdout)


if __name__ == "__main__":
    main()
