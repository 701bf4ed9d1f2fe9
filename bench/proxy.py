# SPDX-License-Identifier: MIT
"""A proxy that runs: started alone in its process group, measured, ended."""

import os
import re
import resource
import signal
import subprocess
import time

from account import group_ticks, read

DESCRIPTORS_KEPT = 200  # of those that a process may have; the others serve sessions, two each


class Failed(Exception):
    """A peer or a load did not do what it should."""


def max_sessions():
    return (resource.getrlimit(resource.RLIMIT_NOFILE)[1] - DESCRIPTORS_KEPT) // 2


def is_listening(port):
    """Does somebody listen there? Asked of the kernel: a connection would be a session."""
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in read(table).splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port:
                return True
    return False


def wait_listening(port, seconds=10, alive=lambda: True):
    end = time.monotonic() + seconds
    while not is_listening(port):
        if time.monotonic() > end or not alive():
            raise Failed(f"nobody listens on port {port}")
        time.sleep(0.02)


def group_pids(leader):
    """The processes of a group, which also those belong to that a proxy forks."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            if int(read(f"/proc/{name}/stat").rpartition(")")[2].split()[2]) == leader:
                found.append(int(name))
        except (FileNotFoundError, ProcessLookupError):
            pass
    return found


class Proxy:
    """One peer between the clients' port and the server's, which are the same for no proxy."""

    _next_port = 6000

    def __init__(self, peer, server_port, account, directory, cpu=None):
        self.peer, self._account = peer, account
        self.port, self._leader = server_port, None
        if peer.command is None:
            return
        Proxy._next_port += 1
        self.port = Proxy._next_port
        self._directory = os.path.join(directory, peer.name)
        os.makedirs(self._directory, exist_ok=True)
        self._start(self._fields(server_port), cpu)
        try:
            wait_listening(self.port, alive=lambda: os.path.exists(f"/proc/{self._leader}/exe"))
            time.sleep(0.2)  # nginx and others go on starting
        except Failed as err:
            self.stop()
            raise Failed(f"{err}: {read(self._directory + '/log')[-400:].strip()}") from None

    def __enter__(self):
        return self

    def __exit__(self, *_exc):
        self.stop()

    def pids(self):
        return group_pids(self._leader) if self._leader else []

    def cpu_seconds(self):
        """Processor time so far."""
        if not self._leader:
            return 0.0
        return (
            self._account.proxy_seconds() if self._account.has_groups else group_ticks(self.pids())
        )

    def memory(self, kind="Pss"):
        """Bytes of its memory; what it shares with others by its share, or, with "Rss", whole."""
        total = 0
        for pid in self.pids():
            try:
                total += (
                    int(re.search(rf"^{kind}:\s+(\d+)", read(f"/proc/{pid}/smaps_rollup"), re.M)[1])
                    * 1024
                )
            except (OSError, TypeError):
                pass
        return total

    def stop(self):
        if not self._leader:
            return
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self._leader, number)
            except ProcessLookupError:
                break
            if self._wait_gone(3):
                break
        self._leader = None

    def _fields(self, server_port):
        fields = {
            "listen": f"127.0.0.1:{self.port}",
            "listen_port": self.port,
            "server": f"127.0.0.1:{server_port}",
            "server_port": server_port,
            "config": self._directory + "/config",
            "directory": self._directory,
            "sessions": max_sessions(),
            "descriptors": resource.getrlimit(resource.RLIMIT_NOFILE)[1],
        }
        with open(fields["config"], "w", encoding="ascii") as f:
            f.write(self.peer.config.format(**fields))
        return fields

    def _start(self, fields, cpu):
        def settle():
            self._account.enter_proxy()
            if cpu is not None:
                os.sched_setaffinity(0, {cpu})

        with open(self._directory + "/log", "w", encoding="ascii") as log:
            self._leader = subprocess.Popen(
                [word.format(**fields) for word in self.peer.command],
                preexec_fn=settle,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            ).pid

    def _wait_gone(self, seconds):
        """We are the box's first process: whoever loses his parent becomes our child."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                while os.waitpid(-self._leader, os.WNOHANG) != (0, 0):
                    pass
            except ChildProcessError:
                if not group_pids(self._leader):
                    return True
            time.sleep(0.01)
        return False
