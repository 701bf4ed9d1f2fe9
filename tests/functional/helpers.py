# SPDX-License-Identifier: MIT
"""Programs that a test runs beside rediald."""

import contextlib
import json
import os
import subprocess
import sys

from deadline import deadline

HERE = os.path.dirname(os.path.abspath(__file__))
# Prefixes of a command line.
NO_IPV6 = (sys.executable, os.path.join(HERE, "noipv6.py"))
NO_THREADS = (sys.executable, os.path.join(HERE, "nothreads.py"))
NO_PORT_RANGE = (sys.executable, os.path.join(HERE, "noportrange.py"))
NO_NETLINK = (sys.executable, os.path.join(HERE, "nonetlink.py"))
NO_HEADER = (sys.executable, os.path.join(HERE, "noheader.py"))


def no_port(count):
    """A prefix: the first so many connect(2)s over IPv4 fail for want of a local port."""
    return sys.executable, os.path.join(HERE, "noport.py"), str(count)


def no_watch(epoll):
    """A prefix: nothing more can be watched by the epoll instance of that number."""
    return sys.executable, os.path.join(HERE, "nowatch.py"), str(epoll)


def fake_proc(**files):
    """A prefix: files of /proc/sys have another content; fake_proc(net__core__somaxconn=128)."""
    words = [f"/proc/sys/{name.replace('__', '/')}={text}" for name, text in files.items()]
    return (sys.executable, os.path.join(HERE, "fakeproc.py"), *words, "--")


NO_PROC = (sys.executable, os.path.join(HERE, "fakeproc.py"), "/proc=", "--")


def passing(*sockets):
    """Arguments for the rediald fixture: these (name, socket) are passed to it as systemd does."""
    return passing_descriptors([(name, sock.fileno()) for name, sock in sockets])


def passing_descriptors(named):
    """The same for (name, descriptor)s."""
    words = ",".join(f"{name}={fd}" for name, fd in named)
    return {"prefix": (sys.executable, os.path.join(HERE, "listenfds.py"), words),
            "pass_fds": [fd for _name, fd in named]}


class PortProber:
    """portprober.py in the background; its report after the body."""

    def __init__(self, mode, port, user=None):
        self.report = None
        self._process = subprocess.Popen(
            [sys.executable, os.path.join(HERE, "portprober.py"), mode, str(port)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, user=user)

    def __enter__(self):
        assert self._process.stdout.readline() == "ready\n"
        return self

    def __exit__(self, *_exc):
        out, _ = self._process.communicate(timeout=deadline(10))
        self.report = json.loads(out)


def python(code, *args):
    """A python program that prints a line when it is ready, and ends when its stdin does."""
    return _running("-c", code, *args)


def slow_call(tid, name, seconds):
    """During the body the thread tid of another process comes back late from each such system call."""
    return _running(os.path.join(HERE, "slowcall.py"), tid, name, seconds)


@contextlib.contextmanager
def _running(*args):
    process = subprocess.Popen([sys.executable, *map(str, args)], stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline(), "the helper did not start"
        yield process
    finally:
        with contextlib.suppress(BrokenPipeError):
            process.communicate(timeout=deadline(10))
