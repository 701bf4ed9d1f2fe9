# SPDX-License-Identifier: MIT
"""Clients whose transfers take their time while something else happens."""

import hashlib
import random
import threading

from deadline import pass_time
from sockets import connected

PIECES, PIECE = 32, 1 << 16


class Transfers:
    """So many threads send 2 MB, in so many seconds, to servers that echo, again and again. What is not as it should be is in faults."""

    def __init__(self, address, threads, seconds):
        self.address = address
        self.done = 0
        self.faults = []
        self._pause = seconds / PIECES
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
