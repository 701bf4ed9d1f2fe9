# SPDX-License-Identifier: MIT
"""A link that takes its time, to another network namespace. The benchmark uses it, too.

A TUN device at either end, and between them a program of our own that holds each packet for a while: netem is not in every kernel.
"""

import collections
import contextlib
import fcntl
import os
import select
import struct
import subprocess
import sys
import time

from netns import another, enter

TUNSETIFF = 0x400454CA
IFF_TUN, IFF_NO_PI = 0x0001, 0x1000
NAME = "far"
HERE, THERE = "10.77.0.1", "10.77.0.2"


def _tun(address, peer):
    """A TUN device in the calling thread's namespace; its descriptor."""
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH14x", NAME.encode(), IFF_TUN | IFF_NO_PI))
    for words in (["address", "add", address, "peer", peer, "dev", NAME],
                  ["link", "set", NAME, "up"]):
        subprocess.run(["ip", *words], check=True)
    return fd


class FarLink:
    """From the calling thread's namespace, at HERE, to one more, at THERE; delay seconds each way.

    OSError where there is no TUN device, or no right to make one.
    """

    def __init__(self, delay):
        ends = [_tun(HERE, THERE)]
        try:
            with another():
                self._far = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
                ends.append(_tun(THERE, HERE))
            self._forwarder = subprocess.Popen(
                [sys.executable, "-B", __file__, *map(str, ends), str(delay)], pass_fds=ends,
                stdin=subprocess.PIPE)
        finally:
            for fd in ends:
                os.close(fd)

    @contextlib.contextmanager
    def there(self):
        """Run the body in the far namespace: what sockets it makes, and what programs it starts, are there."""
        home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            enter(self._far)
            yield
        finally:
            enter(home)
            os.close(home)

    def close(self):
        self._forwarder.communicate()
        os.close(self._far)

    def __enter__(self):
        return self

    def __exit__(self, *_exc):
        self.close()


def forward(ends, delay):
    """Take packets from one end to the other, each after so many seconds, until stdin ends."""
    other = {ends[0]: ends[1], ends[1]: ends[0]}
    held = collections.deque()  # due, where to, packet; the delay is the same for all
    while True:
        wait = max(0, held[0][0] - time.monotonic()) if held else None
        ready, _, _ = select.select([*ends, sys.stdin], [], [], wait)
        if sys.stdin in ready:
            return
        now = time.monotonic()
        for end in ready:
            with contextlib.suppress(BlockingIOError):
                while packet := os.read(end, 1 << 16):
                    held.append((now + delay, other[end], packet))
        while held and held[0][0] <= now:
            _, end, packet = held.popleft()
            with contextlib.suppress(OSError):  # full, or down: lost, as packets are
                os.write(end, packet)


if __name__ == "__main__":
    forward([int(sys.argv[1]), int(sys.argv[2])], float(sys.argv[3]))
