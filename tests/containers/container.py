# SPDX-License-Identifier: MIT
"""A container that a test runs, with a network of its own behind a pair of virtual Ethernet devices."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time

from deadline import deadline, eventually
from netns import is_real_root

HERE = os.path.dirname(os.path.abspath(__file__))
UID = 65532
DEVICE = "redial-test"
HOST, GUEST = "10.88.0.1", "10.88.0.2"
RUN = ("tmpfs:mode=0700", "/run/redial")


class CannotContain(Exception):
    """Such a container cannot be had here, for the reason given."""


class Container:
    """Runs when made; its stderr is read by a thread. Only one at a time in a network namespace of the test's.

    sysctls: of its network. proc, mounts, closed, nofile: see contain.py. on_start(pid) is called before anything of it runs.
    """

    def __init__(self, root, argv, *, mounts=(RUN,), env=None, read_only=True, proc="readonly",
                 sysctls=None, closed=(), nofile=None, on_start=None):
        self.events = []
        self.text = ""
        self._changed = threading.Condition()
        self._control, theirs = socket.socketpair()
        spec = {"root": root, "read_only": read_only, "mounts": list(mounts), "proc": proc,
                "uid": UID, "closed": list(closed), "nofile": nofile, "argv": argv,
                "env": {"PATH": "/usr/local/sbin:/usr/local/bin", **(env or {})},
                "control": theirs.fileno()}
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, os.path.join(HERE, "contain.py"), json.dumps(spec)],
                pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        try:
            self._start(sysctls or {}, on_start)
        except BaseException:
            self.close()
            raise

    def _start(self, sysctls, on_start):
        self._control.settimeout(deadline(20))
        if self._control.recv(64) != b"unshared\n":
            self.process.wait()
            self._reader.join()
            raise CannotContain(f"no namespaces: {self.text.strip()}")
        outside = self.process.pid
        owner = UID if is_real_root() else 0
        for kind in ("gid", "uid"):
            with open(f"/proc/{outside}/{kind}_map", "w", encoding="ascii") as f:
                f.write(f"{UID} {owner} 1")
        self._connect(outside, sysctls)
        if on_start:
            on_start(outside)
        self._control.send(b"g")
        self.pid = int(self._control.recv(64))

    @staticmethod
    def _connect(pid, sysctls):
        """A network, as the engine's bridge is one."""
        inside = ["nsenter", f"--net=/proc/{pid}/ns/net"]
        for words in (f"ip link add {DEVICE} type veth peer name eth0 netns {pid}",
                      f"ip address add {HOST}/24 dev {DEVICE}", f"ip link set {DEVICE} up"):
            subprocess.run(words.split(), check=True)
        for words in ("ip link set lo up", f"ip address add {GUEST}/24 dev eth0",
                      "ip link set eth0 up"):
            subprocess.run([*inside, *words.split()], check=True)
        for name, value in sysctls.items():
            subprocess.run([*inside, "sh", "-c", f"echo '{value}' >/proc/sys/{name.replace('.', '/')}"],
                           check=True)

    # What it says

    def wait_event(self, name, count=1, timeout=10, **fields):
        """Wait for the event, for count of them; returns the last of these."""
        def there():
            return self._matching(name, fields)[count - 1:count]
        end = time.monotonic() + deadline(timeout)
        with self._changed:
            while not (found := there()):
                left = end - time.monotonic()
                assert left > 0 and (self._reader.is_alive() or there()), \
                    f"no event={name} {fields} x{count}\n{self.text}"
                self._changed.wait(min(left, 0.2))
        return found[0]

    def has(self, name, **fields):
        """Has it told such an event?"""
        with self._changed:
            return bool(self._matching(name, fields))

    def _matching(self, name, fields):
        return [event for event in self.events if event.get("event") == name
                and all(event.get(key) == value for key, value in fields.items())]

    def _read(self):
        for raw in iter(self.process.stderr.readline, b""):
            with self._changed:
                self.text += raw.decode("utf-8", "backslashreplace")
                try:
                    self.events.append(json.loads(raw))
                except ValueError:
                    pass  # all_json() is what judges
                self._changed.notify_all()

    def all_json(self):
        """Is every line an object with the members that each has?"""
        lines = self.text.splitlines()
        return len(lines) == len(self.events) and all(
            {"time", "level", "event", "message"} <= event.keys() for event in self.events)

    # What it is

    def status(self):
        """/proc/PID/status as a dictionary."""
        with open(f"/proc/{self.pid}/status", encoding="ascii") as f:
            return dict(line.rstrip("\n").split(":\t", 1) for line in f)

    def threads(self, name):
        """How many of its threads have that name, or one that begins with it."""
        found = 0
        for task in os.listdir(f"/proc/{self.pid}/task"):
            with open(f"/proc/{self.pid}/task/{task}/comm", encoding="ascii") as f:
                found += f.read().startswith(name)
        return found

    def run(self, *argv):
        """Run one more program in it, as its user: a health check. Returns status and output."""
        # Without real root we are its user already, and may not change groups.
        user = ["-S", str(UID), "-G", str(UID)] if is_real_root() else ["--preserve-credentials"]
        result = subprocess.run(
            ["nsenter", "-t", str(self.pid), "-U", "-m", "-p", "-n", "-i", "-u", *user, "--", *argv],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            timeout=deadline(60), check=False)
        return result.returncode, result.stdout

    # Its end

    def signal(self, number):
        os.kill(self.pid, number)

    def wait_exit(self, timeout=10):
        """Wait for its end; returns the exit status."""
        status = self.process.wait(deadline(timeout))
        self._reader.join(deadline(5))
        return status

    def stop(self, timeout=10):
        """SIGTERM, as an engine begins with; returns status and seconds."""
        began = time.monotonic()
        self.signal(signal.SIGTERM)
        return self.wait_exit(timeout), time.monotonic() - began

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self._control.close()
        # The device goes with the network at its other end, when the kernel comes to it.
        eventually(lambda: DEVICE not in [name for _, name in socket.if_nameindex()], 10)
