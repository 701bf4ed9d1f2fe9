# SPDX-License-Identifier: MIT
"""SIGKILL: the next one starts within a second, and goes on with the sockets that the service manager keeps."""

import os
import random
import signal
import statistics
import time

import pytest

from binary import WRAP
from daemon import Rediald
from deadline import deadline, eventually, pass_time
from helpers import passing_descriptors
from load import Load
from servers import echo
from sockets import ask

pytestmark = pytest.mark.skipif(bool(WRAP), reason="a tool around the daemon has its process id")
KILLS = 100


class Killed:
    """One rediald after another, each with the sockets that the one before had kept."""

    def __init__(self, directory, args, sockets):
        self._directory = directory
        self._args = args
        self._sockets = sockets  # how many there are to be kept
        self._kept = []
        self.daemon = None

    def start(self):
        began = time.monotonic()
        kept = passing_descriptors(self._kept) if self._kept else {}
        self.daemon = Rediald(str(self._directory), self._args, env={"FDSTORE": "64"}, **kept)
        self.daemon.standby = 1  # to the only server
        self.daemon.wait_ready()
        took = time.monotonic() - began
        if not self._kept:
            eventually(lambda: len(self.daemon.kept) == self._sockets)
            self._kept = [(name, os.dup(fd)) for name, fd in self.daemon.kept]
        return took

    def kill(self):
        self.daemon.signal(signal.SIGKILL)
        assert self.daemon.wait_exit() == -signal.SIGKILL
        self.daemon.judge()
        self.daemon.finish()

    def close(self):
        self.daemon.finish()
        for _name, fd in self._kept:
            os.close(fd)


def test_killed_a_hundred_times_under_load(serve, port, tmp_path):
    """Who had a session is reset, nobody is refused, and after each start clients are served."""
    address, path, conf = f"127.0.0.1:{port()}", tmp_path / "in.sock", tmp_path / "rediald.conf"
    conf.write_text(f"[daemon]\nworkers = 2\n[proxy web]\nlisten = {address} unix:{path}\n"
                    f"server = {serve(echo).address}\n")
    chain = Killed(tmp_path, ["-c", str(conf)], sockets=4)
    chance, took = random.Random(5), []
    try:
        chain.start()
        with Load(address, 2) as load, Load(f"unix:{path}", 1) as unix:
            for _ in range(KILLS):
                pass_time(chance.uniform(0, 0.1))
                chain.kill()
                took.append(chain.start())
                for where in address, f"unix:{path}":
                    assert ask(where, b"hello") == b"hello"
        assert statistics.median(took) < deadline(1), took  # one may have met with a busy machine
        assert load.done > KILLS and unix.done > KILLS
        assert load.refused() == unix.refused() == []
        chain.daemon.terminate()
    finally:
        chain.close()
