#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""portprober.py MODE PORT: try to take PORT over and over; tell how it went at EOF of stdin.

bind   binds without SO_REUSEADDR, as a server does that is about to start, and lets go at once.
steal  binds with SO_REUSEADDR and listens, as another program does that wants the port.

It prints JSON. tries, taken: how often it tried, and got the port. blocked_s: the longest time in
which every try failed; a long pause between tries, on a busy machine, proves nothing and ends it.
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


def main():
    """Try until stdin ends."""
    steal, port = sys.argv[1] == "steal", int(sys.argv[2])
    tries = taken = 0
    blocked = 0.0
    since = last = None
    print("ready", flush=True)
    while not select.select([sys.stdin], [], [], 0 if steal else PAUSE_S)[0]:
        now = time.monotonic()
        tries += 1
        if attempt(port, steal):
            taken += 1
            since = None
        elif since is None or now - last > LATE_S:
            since = now
        else:
            blocked = max(blocked, now - since)
        last = now
    json.dump({"tries": tries, "taken": taken, "blocked_s": blocked}, sys.stdout)


if __name__ == "__main__":
    main()
