# SPDX-License-Identifier: MIT
"""A machine that systemd runs: a container over an overlay of this system's root, with rediald installed in it.

Nothing of it is written anywhere but in memory, and it has a network of its own. Its first process is that of a PID namespace: all of it
ends with that.

With SYSTEMD_ROOT it is over the root of another system, and what is installed is the build that lies in there, at SYSTEMD_BUILD.
"""

import contextlib
import ctypes
import os
import shutil
import subprocess
import time

HERE = os.path.dirname(os.path.abspath(__file__))
BUILD = os.environ.get("SYSTEMD_BUILD" if os.environ.get("SYSTEMD_ROOT") else "top_builddir", "")
NSPAWN = "systemd-nspawn"
BOOT_S = 60
CLONE_NEWNET = 0x40000000

_libc = ctypes.CDLL(None, use_errno=True)


class CannotBoot(Exception):
    """Such a machine cannot be had here, for the reason given."""


def _cgroup_mounts():
    """(mount point, type) of every hierarchy."""
    with open("/proc/mounts", encoding="utf-8") as f:
        mounts = [line.split() for line in f]
    return [(m[1], m[2]) for m in mounts if m[2] in ("cgroup", "cgroup2")]


def _own_cgroup2():
    """The directory of this process's cgroup in the unified hierarchy."""
    with open("/proc/self/cgroup", encoding="ascii") as f:
        path = next(line.split("::", 1)[1].strip() for line in f if line.startswith("0::"))
    mount = next(point for point, kind in _cgroup_mounts() if kind == "cgroup2")
    return mount + path.rstrip("/")


def _processes_in(cgroup):
    found = []
    for directory, _, _ in os.walk(cgroup):
        with contextlib.suppress(OSError):
            with open(f"{directory}/cgroup.procs", encoding="ascii") as f:
                found += [int(pid) for pid in f]
    return found


def _remove_cgroups(name):
    """nspawn leaves directories in every hierarchy."""
    for mount, _kind in _cgroup_mounts():
        for directory, names, _ in os.walk(mount):
            if name not in names:
                continue
            for below, _, _ in os.walk(f"{directory}/{name}", topdown=False):
                with contextlib.suppress(OSError):
                    os.rmdir(below)
            names.remove(name)


def _check_possible():
    with open("/proc/self/uid_map", encoding="ascii") as f:
        if os.geteuid() != 0 or f.read().split() != ["0", "0", "4294967295"]:
            raise CannotBoot("needs root")
    for tool in (NSPAWN, "unshare", "nsenter"):
        if not shutil.which(tool):
            raise CannotBoot(f"needs {tool}")
    try:
        os.listdir(_own_cgroup2())
    except (StopIteration, OSError):
        raise CannotBoot("needs the unified hierarchy of control groups") from None


class Machine:
    """Booted when made; close() ends it."""

    def __init__(self, directory):
        _check_possible()
        self._name = f"redial-test-{os.getpid()}"
        self._cgroup = f"{_own_cgroup2()}/{self._name}"
        self._log = f"{directory}/boot.log"
        try:
            os.mkdir(self._cgroup)
        except OSError as err:
            raise CannotBoot(f"no control group can be made: {err}") from None
        try:
            self._process = self._boot(directory)
            self._init = self._wait_init()
            self._wait_running()
        except BaseException:
            self.close()
            raise

    # What happens in it

    def run(self, *command, check=True):
        """Run a command in it; returns its output. It fails the test unless check=False."""
        result = subprocess.run(
            ["nsenter", "-t", str(self._init), "-m", "-u", "-i", "-n", "-p", "-C", "--", *command],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            timeout=60, check=False)
        assert not check or result.returncode == 0, \
            f"{' '.join(command)}: status {result.returncode}\n{result.stdout}"
        return result.stdout

    def systemctl(self, *args, **kwargs):
        return self.run("systemctl", "--no-pager", *args, **kwargs)

    def show(self, unit, name):
        """A property of a unit."""
        return self.systemctl("show", "--value", "-p", name, unit).rstrip("\n")

    def log(self, unit):
        """What the unit has logged since the machine was booted."""
        self.run("journalctl", "--sync")
        return self.run("journalctl", "--no-pager", "-o", "cat", "-u", unit)

    def write(self, path, text):
        os.makedirs(os.path.dirname(self.path(path)), exist_ok=True)
        with open(self.path(path), "w", encoding="utf-8") as f:
            f.write(text)

    def path(self, path):
        """A file of it, as it is seen from outside."""
        return f"/proc/{self._init}/root{path}"

    def enter_network(self):
        """Move the calling thread, and threads that it starts from now on, to its network."""
        fd = os.open(f"/proc/{self._init}/ns/net", os.O_RDONLY)
        try:
            if _libc.setns(fd, CLONE_NEWNET) != 0:
                raise OSError(ctypes.get_errno(), "setns")
        finally:
            os.close(fd)

    def pid_outside(self, pid):
        """The process that has this number inside."""
        for candidate in _processes_in(self._cgroup):
            with contextlib.suppress(OSError):
                with open(f"/proc/{candidate}/status", encoding="utf-8") as f:
                    status = dict(line.rstrip("\n").split(":\t", 1) for line in f if ":\t" in line)
                if status["NSpid"].split()[-1] == str(pid):
                    return candidate
        raise LookupError(f"the machine has no process {pid}")

    # Its beginning and end

    def _boot(self, directory):
        def join():
            with open(f"{self._cgroup}/cgroup.procs", "w", encoding="ascii") as f:
                f.write(str(os.getpid()))
        with open(self._log, "wb") as log:
            # pylint: disable-next=subprocess-popen-preexec-fn,consider-using-with
            return subprocess.Popen(
                ["unshare", "--mount", "--pid", "--fork", "--kill-child=SIGKILL", "--mount-proc",
                 "sh", f"{HERE}/boot.sh", str(directory), BUILD],
                env={**os.environ, "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"},
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, preexec_fn=join)

    def _wait(self, condition):
        end = time.monotonic() + BOOT_S
        while True:
            result = condition()
            if result:
                return result
            with open(self._log, encoding="utf-8", errors="replace") as f:
                said = f.read()
            if self._process.poll() is not None or time.monotonic() > end:
                assert "step: install" not in said.splitlines()[-5:], f"no installation:\n{said}"
                raise CannotBoot(f"{NSPAWN} does not boot here: {' / '.join(said.splitlines()[-3:])}")
            time.sleep(0.05)

    def _wait_init(self):
        def init():
            for pid in _processes_in(f"{self._cgroup}/payload/init.scope"):
                with contextlib.suppress(OSError):
                    with open(f"/proc/{pid}/comm", encoding="ascii") as f:
                        if f.read() == "systemd\n":
                            return pid
            return None
        return self._wait(init)

    def _wait_running(self):
        # `degraded' when a unit of the host's does not like it there.
        self._wait(lambda: self.systemctl("is-system-running", check=False).strip()
                   in ("running", "degraded"))

    def close(self):
        if getattr(self, "_process", None):
            self._process.kill()
            self._process.wait()
        end = time.monotonic() + 20
        while _processes_in(self._cgroup):
            assert time.monotonic() < end, "processes of the machine are left"
            time.sleep(0.05)
        _remove_cgroups(self._name)
