# SPDX-License-Identifier: MIT
"""Who used how much processor time: control groups for the benchmark and, inside, for the proxy."""

import os
import time

_HZ = os.sysconf("SC_CLK_TCK")


def read(path):
    with open(path, encoding="ascii", errors="replace") as f:
        return f.read()


def _v2_home():
    """The directory of our own group of cgroup v2, or None."""
    for line in read("/proc/self/mounts").splitlines():
        _, where, kind = line.split()[:3]
        if kind == "cgroup2":
            own = [g[3:] for g in read("/proc/self/cgroup").splitlines() if g.startswith("0::")]
            return where + own[0].rstrip("/") if own else where
    return None


class Account:
    """Counts the time of the benchmark and of one proxy at a time, ended children included.

    Without the right to make control groups it counts nothing: has_groups is False then.
    """

    def __init__(self):
        self.kind, self._home = "", None
        for kind, home in (
            ("cgroup v1 cpuacct", "/sys/fs/cgroup/cpuacct"),
            ("cgroup v2 cpu.stat", _v2_home()),
        ):
            if home and self._make(home):
                self.kind = kind
                return
        self.kind = "/proc/PID/stat, in ticks of 1/%d s" % _HZ

    @property
    def has_groups(self):
        return self._home is not None

    def enter(self):
        """Count the calling process, and what it starts."""
        self._enter(self._home)

    def enter_proxy(self):
        """Count the calling process, and what it starts, as the proxy."""
        self._enter(self._home and self._home + "/proxy")

    def proxy_seconds(self):
        return self._usage(self._home + "/proxy")

    def all_seconds(self):
        """The proxy's included."""
        return self._usage(self._home)

    def close(self):
        """Remove the groups; they are empty once the box has ended."""
        for group in (self._home + "/proxy", self._home) if self._home else ():
            for _ in range(100):
                try:
                    os.rmdir(group)
                    break
                except OSError:  # the last process is still on its way out
                    time.sleep(0.02)

    def _make(self, home):
        directory = f"{home}/redial-bench.{os.getpid()}"
        try:
            os.mkdir(directory)
            os.mkdir(directory + "/proxy")
            self._usage(directory)
        except OSError:
            return False
        self._home = directory
        return True

    @staticmethod
    def _enter(group):
        if group:
            with open(group + "/cgroup.procs", "w", encoding="ascii") as f:
                f.write("0")

    @staticmethod
    def _usage(group):
        if os.path.exists(group + "/cpuacct.usage"):
            return int(read(group + "/cpuacct.usage")) / 1e9
        return int(read(group + "/cpu.stat").split()[1]) / 1e6


def group_ticks(pids):
    """Seconds of these processes and of their ended children, from /proc."""
    ticks = 0
    for pid in pids:
        try:
            fields = read(f"/proc/{pid}/stat").rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        ticks += sum(map(int, fields[11:15]))
    return ticks / _HZ


def machine_busy():
    """Seconds in which the machine's processors did something, stolen time included."""
    fields = list(map(int, read("/proc/stat").split("\n", 1)[0].split()[1:9]))
    return (sum(fields) - fields[3] - fields[4]) / _HZ
