# SPDX-License-Identifier: MIT
"""Network namespaces of a test's own, and what can be seen and set in them."""

import contextlib
import ctypes
import fcntl
import os
import select
import socket
import struct
import threading

from deadline import deadline

CLONE_NEWUSER = 0x10000000
CLONE_NEWNET = 0x40000000
SIOCSIFFLAGS = 0x8914
IFF_UP_RUNNING = 0x41
ETH_P_ALL = 0x0003
PACKET_OUTGOING = 4
TCP_SYN, TCP_ACK = 0x02, 0x10
MARK_PORT = 1  # the source of a dial of our own

_libc = ctypes.CDLL(None, use_errno=True)


def _call(name, *args):
    if getattr(_libc, name)(*args) != 0:
        err = ctypes.get_errno()
        raise OSError(err, f"{name}: {os.strerror(err)}")


def become_root():
    """Root by a user namespace of this process's own, when it is not root. Before any thread."""
    uid, gid = os.geteuid(), os.getegid()
    if uid == 0:
        return
    _call("unshare", CLONE_NEWUSER)
    maps = {"setgroups": "deny", "uid_map": f"0 {uid} 1", "gid_map": f"0 {gid} 1"}
    for name, text in maps.items():
        with open(f"/proc/self/{name}", "w", encoding="ascii") as f:
            f.write(text)


def is_real_root():
    """Root outside of our user namespace, too: one who may become any other user?"""
    with open("/proc/self/uid_map", encoding="ascii") as f:
        inside, outside, _count = f.readline().split()
    return os.geteuid() == 0 and inside == outside == "0"


def enter_new():
    """Move the calling thread, and what it starts from now on, to a new namespace with lo up."""
    _call("unshare", CLONE_NEWNET)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        fcntl.ioctl(s, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", IFF_UP_RUNNING))


def enter(fd):
    """Move the calling thread to the namespace that fd was opened for."""
    _call("setns", fd, CLONE_NEWNET)


@contextlib.contextmanager
def another():
    """Run the body in one more namespace, and come back."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        enter_new()
        yield
    finally:
        enter(home)
        os.close(home)


def sysctl(name, value):
    """Set one of the namespace's sysctls: sysctl("net.ipv4.ip_local_port_range", "40000 40019")."""
    with open("/proc/sys/" + name.replace(".", "/"), "w", encoding="ascii") as f:
        f.write(str(value))


class Ports:
    """Ports outside the ephemeral range. The namespace is the test's own: each of them is free."""

    def __init__(self, first=7000):
        self._next = first

    def __call__(self):
        self._next += 1
        return self._next


class SynCounter:
    """Counts the dials of one port that leave: TCP SYN without ACK; notes their ports."""

    def __init__(self, port):
        self.port = port
        self.sources = []
        self._seen = threading.Condition()
        self._stop_r, self._stop_w = os.pipe()
        self._sock = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_ALL))
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    @property
    def count(self):
        return len(self.sources)

    def wait(self, count, timeout):
        """Wait until count dials were seen; returns whether they were."""
        with self._seen:
            return self._seen.wait_for(lambda: len(self.sources) >= count, timeout)

    def settle(self):
        """Wait until all that have left so far are counted. Nobody may listen on the port, on 127.0.0.1."""
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", MARK_PORT))
            sock.connect_ex(("127.0.0.1", self.port))
        with self._seen:
            assert self._seen.wait_for(lambda: MARK_PORT in self.sources, deadline(5))
            self.sources.remove(MARK_PORT)

    def close(self):
        os.write(self._stop_w, b"x")
        self._thread.join()
        self._sock.close()
        os.close(self._stop_r)
        os.close(self._stop_w)

    def __enter__(self):
        return self

    def __exit__(self, *_exc):
        self.close()

    def _run(self):
        while True:
            ready, _, _ = select.select([self._sock, self._stop_r], [], [])
            if self._stop_r in ready:
                return
            packet, where = self._sock.recvfrom(2048)
            # Each on lo is seen twice: as it leaves and as it comes back.
            if where[2] != PACKET_OUTGOING:
                continue
            source = self._source_of_syn(packet)
            if source is not None:
                with self._seen:
                    self.sources.append(source)
                    self._seen.notify_all()

    def _source_of_syn(self, packet):
        version = packet[0] >> 4
        if version == 4 and packet[9] == socket.IPPROTO_TCP:
            tcp = (packet[0] & 15) * 4
        elif version == 6 and packet[6] == socket.IPPROTO_TCP:
            tcp = 40
        else:
            return None
        source, dest = struct.unpack_from("!HH", packet, tcp)
        flags = packet[tcp + 13]
        if dest == self.port and flags & (TCP_SYN | TCP_ACK) == TCP_SYN:
            return source
        return None
