# SPDX-License-Identifier: MIT
"""Clients whose transfers take their time while something else happens."""

import hashlib
import random

from deadline import pass_time
from load import Busy
from sockets import connected

PIECES, PIECE = 32, 1 << 16


class Transfers(Busy):
    """So many threads send 2 MB, in so many seconds, to servers that echo, again and again. What is not as it should be is in faults."""

    def __init__(self, address, threads, seconds):
        super().__init__(threads)
        self.address = address
        self.done = 0
        self.faults = []
        self._pause = seconds / PIECES

    def _run(self, seed):
        chance = random.Random(seed)
        while not self._ends.is_set():
            try:
                self._transfer(chance)
            except OSError as err:
                self.faults.append(repr(err))
            self.done += 1

    def _transfer(self, chance):
        sent, got, size = hashlib.sha256(), hashlib.sha256(), 0
        with connected(self.address) as sock:
            for _ in range(PIECES):
                piece = chance.randbytes(PIECE)
                sent.update(piece)
                sock.sendall(piece)
                for _ in range(PIECE // 4096):
                    part = sock.recv(4096)
                    got.update(part)
                    size += len(part)
                pass_time(self._pause)
            sock.shutdown(1)
            while part := sock.recv(1 << 16):
                got.update(part)
                size += len(part)
        if got.digest() != sent.digest():
            self.faults.append(f"{size} bytes of {PIECES * PIECE}, or not the right ones")
