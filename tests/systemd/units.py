# SPDX-License-Identifier: MIT
"""rediald's units in the machine."""

import os
import re
import time

from sockets import recv_exactly

SERVICE, SOCKET = "rediald.service", "rediald.socket"
RUN = "/run/systemd/system"
LISTEN, SERVER = "127.0.0.1:7000", "127.0.0.1:8000"
STATUS_IDLE = r"^sessions: 0 \(waiting: 0\), servers up: 1 of 1$"


def proxy(listen=LISTEN, daemon="access_log = all", more="", server=SERVER):
    return f"[daemon]\n{daemon}\n[proxy web]\nlisten = {listen}\n" \
           f"server = {server}\n{more}\n"


def exchange(client, data=b"hello"):
    client.sendall(data)
    assert recv_exactly(client, len(data)) == data


class Units:
    """Configured, started and watched; close() stops them and takes away what was configured."""

    def __init__(self, machine):
        self.machine = machine
        self._dropped_in = set()
        text = machine.systemctl("cat", SERVICE)
        self.config = re.search(r"^ExecStart=.* -c (\S+)$", text, re.M)[1]
        self.docdir = re.search(r"(\S+)/examples/low-ports.conf$", text, re.M)[1]
        self._mark = len(self.machine.log(SERVICE))

    def configure(self, text, path=None):
        self.machine.write(path or self.config, text)

    def drop_in(self, text, unit=SERVICE):
        """Settings of this test's own."""
        self._dropped_in.add(unit)
        self.machine.write(f"{RUN}/{unit}.d/test-{len(text)}.conf", text)
        self.machine.systemctl("daemon-reload")

    def example(self, name):
        """A file of examples, as it was installed."""
        with open(self.machine.path(f"{self.docdir}/examples/{name}"), encoding="utf-8") as f:
            return f.read()

    def start(self, *units):
        self.machine.systemctl("start", *(units or (SERVICE,)))

    def show(self, name, unit=SERVICE):
        return self.machine.show(unit, name)

    def wait(self, name, pattern, unit=SERVICE, seconds=20):
        """Wait until a property of the unit matches, and return it."""
        end = time.monotonic() + seconds
        while not re.search(pattern, value := self.show(name, unit)):
            assert time.monotonic() < end, f"{name}={value}, not {pattern}\n{self.log()}"
            time.sleep(0.05)
        return value

    def watched_log(self):
        """From now on the service logs to a file; returns a function that reads it."""
        path = f"/run/{SERVICE}.log"
        self.machine.write(path, "")
        self.drop_in(f"[Service]\nStandardError=append:{path}\n")

        def read():
            with open(self.machine.path(path), encoding="utf-8") as f:
                return f.read()
        return read

    def kill(self, number):
        """Send a signal to its main process alone."""
        os.kill(self.machine.pid_outside(self.show("MainPID")), number)

    def log(self):
        """What the service has logged in this test."""
        return self.machine.log(SERVICE)[self._mark:]

    def close(self):
        self.machine.systemctl("stop", SOCKET, "rediald@*.service", SERVICE)
        self.machine.systemctl("reset-failed")
        for unit in self._dropped_in:
            self.machine.run("rm", "-rf", f"{RUN}/{unit}.d")
        self.machine.run("rm", "-f", self.config)
        self.machine.systemctl("daemon-reload")
