# SPDX-License-Identifier: MIT
"""Sockets by the addresses of rediald's configuration, and what tests do with them."""

import concurrent.futures
import ctypes
import errno
import hashlib
import os
import random
import re
import socket
import struct
import subprocess

from deadline import deadline

_libc = ctypes.CDLL(None, use_errno=True)


def parse(address):
    """'127.0.0.1:80', '[::1]:80', 'unix:/path' or 'unix:@name' as (family, sockaddr)."""
    if address.startswith("unix:"):
        path = address[len("unix:"):]
        return socket.AF_UNIX, "\0" + path[1:] if path.startswith("@") else path
    host, _, port = address.rpartition(":")
    if host.startswith("["):
        return socket.AF_INET6, (host[1:-1], int(port))
    return socket.AF_INET, (host, int(port))


def connected(address, source=None, timeout=20):
    """A socket connected to address; source = (host, port) to connect from."""
    family, sockaddr = parse(address)
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.settimeout(deadline(timeout))
        if source:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(source)
        sock.connect(sockaddr)
    except BaseException:
        sock.close()
        raise
    return sock


def listening(address, backlog=4096):
    """A listening socket on address, made as servers make theirs."""
    family, sockaddr = parse(address)
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        if family != socket.AF_UNIX:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        elif sockaddr[0] != "\0" and os.path.exists(sockaddr):
            os.unlink(sockaddr)
        sock.bind(sockaddr)
        sock.listen(backlog)
    except BaseException:
        sock.close()
        raise
    return sock


def recv_exactly(sock, size):
    """size bytes, or fewer when the stream ends before."""
    parts, left = [], size
    while left:
        part = sock.recv(min(left, 1 << 16))
        if not part:
            break
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


def recv_all(sock):
    """Everything up to a clean end; a reset raises ConnectionResetError."""
    parts = []
    while part := sock.recv(1 << 16):
        parts.append(part)
    return b"".join(parts)


def recv_until_end(sock):
    """What came, and how it ended: (bytes, 'eof' or 'reset')."""
    parts = []
    try:
        while part := sock.recv(1 << 16):
            parts.append(part)
    except (ConnectionResetError, BrokenPipeError):
        return b"".join(parts), "reset"
    return b"".join(parts), "eof"


def fate(address, data=b"", half_close=False, **kwargs):
    """What becomes of a client that sends data: as recv_until_end(), from connect(2) on."""
    try:
        with connected(address, **kwargs) as sock:
            sock.sendall(data)
            if half_close:
                sock.shutdown(socket.SHUT_WR)
            return recv_until_end(sock)
    except OSError as err:
        if err.errno not in (errno.ECONNRESET, errno.EPIPE, errno.ENOTCONN):
            raise
        return b"", "reset"


def ask(address, data, **kwargs):
    """Connect, send data, half-close, and return the whole answer."""
    with connected(address, **kwargs) as sock:
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
        return recv_all(sock)


def close_reset(sock):
    """Close with RST."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def abort(sock):
    """RST now, whoever still waits on the socket: connect(AF_UNSPEC), tcp(7)."""
    _libc.connect(sock.fileno(), struct.pack("H14x", socket.AF_UNSPEC), 16)


def is_refused(address):
    """Does nobody listen there?"""
    try:
        connected(address).close()
    except (ConnectionRefusedError, FileNotFoundError):
        return True
    except ConnectionResetError:
        pass  # it was in the backlog when the listener was closed
    return False


def is_bindable(address):
    """May another program bind it now, without SO_REUSEADDR?"""
    family, sockaddr = parse(address)
    with socket.socket(family, socket.SOCK_STREAM) as sock:
        try:
            sock.bind(sockaddr)
        except OSError as err:
            if err.errno != errno.EADDRINUSE:
                raise
            return False
    return True


def connections(port):
    """How many connections from this namespace to that port are open, as their diallers see it. IPv4."""
    found = 0
    with open("/proc/thread-self/net/tcp", encoding="ascii") as f:
        for line in f.readlines()[1:]:
            fields = line.split()
            found += fields[3] == "01" and int(fields[2].rpartition(":")[2], 16) == port
    return found


def backlogs():
    """What the kernel has taken as the backlog of each listening socket: sorted (address, Send-Q of ss(8))s."""
    out = subprocess.run(["ss", "-Hltxn"], check=True, capture_output=True, text=True).stdout
    found = re.findall(r" LISTEN +\d+ +(\d+) +(\S+)", out)
    return sorted((address, int(backlog)) for backlog, address in found)


def crowd(count, one, width=None):
    """Run one(0) ... one(count - 1) side by side, and return their results."""
    with concurrent.futures.ThreadPoolExecutor(width or count) as pool:
        return list(pool.map(one, range(count)))


def send_in_chunks(sock, size, seed):
    """Send size random bytes in random chunks; returns their sha256."""
    rng, digest = random.Random(seed), hashlib.sha256()
    while size:
        chunk = rng.randbytes(min(size, rng.choice((1, 7, 100, 1460, 4096, 30000, 65536))))
        digest.update(chunk)
        sock.sendall(chunk)
        size -= len(chunk)
    return digest.hexdigest()
