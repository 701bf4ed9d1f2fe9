# SPDX-License-Identifier: MIT
"""A box for the benchmark: its own network, processes and mounts. Nothing outlives it."""

import ctypes
import fcntl
import os
import resource
import signal
import socket
import struct
import sys

CLONE_NEWNS, CLONE_NEWUSER = 0x00020000, 0x10000000
CLONE_NEWPID, CLONE_NEWNET = 0x20000000, 0x40000000
MS_REC, MS_PRIVATE = 0x4000, 0x40000
PR_SET_PDEATHSIG = 1
SIOCSIFFLAGS, IFF_UP_RUNNING = 0x8914, 0x41

SYSCTLS = {
    # Hosts differ in theirs, and some make bulk 2-4 times slower.
    "net.ipv4.tcp_congestion_control": "reno",
    "net.ipv4.ip_local_port_range": "10240 65535",
    "net.core.somaxconn": "65535",
    "net.ipv4.tcp_max_syn_backlog": "65535",
    "net.ipv4.tcp_syncookies": "0",
    "net.ipv4.tcp_max_tw_buckets": "262144",
}
_libc = ctypes.CDLL(None, use_errno=True)


def _call(name, *args):
    if getattr(_libc, name)(*args) != 0:
        err = ctypes.get_errno()
        raise OSError(err, f"{name}: {os.strerror(err)}")


def _unshare():
    uid, gid = os.geteuid(), os.getegid()
    if uid != 0:
        _call("unshare", CLONE_NEWUSER)
        for name, text in (
            ("setgroups", "deny"),
            ("uid_map", f"0 {uid} 1"),
            ("gid_map", f"0 {gid} 1"),
        ):
            with open(f"/proc/self/{name}", "w", encoding="ascii") as f:
                f.write(text)
    _call("unshare", CLONE_NEWNET | CLONE_NEWNS | CLONE_NEWPID)


def _furnish():
    _call("mount", None, b"/", None, MS_REC | MS_PRIVATE, None)
    _call("mount", b"proc", b"/proc", b"proc", 0, None)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        fcntl.ioctl(s, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", IFF_UP_RUNNING))
    for name, value in SYSCTLS.items():
        try:
            with open("/proc/sys/" + name.replace(".", "/"), "w", encoding="ascii") as f:
                f.write(value)
        except OSError as err:
            print(f"{name} = {value}: {err.strerror}", file=sys.stderr)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _be_first(body):
    """The first process of the box. When it ends, or its parent does, so do all others in there."""
    _call("prctl", PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    _furnish()
    return body()


def run(body):
    """Run body() in a box, in a child process; returns its exit status."""
    sys.stdout.flush()
    _unshare()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            status = _be_first(body) or 0
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else 1
        except KeyboardInterrupt:
            status = 130
        except BaseException:  # pylint: disable=broad-except
            sys.excepthook(*sys.exc_info())
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal sends it to the child as well
    signal.signal(signal.SIGTERM, lambda *_: os.kill(child, signal.SIGTERM))
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
