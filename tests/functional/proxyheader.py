# SPDX-License-Identifier: MIT
"""Headers of the PROXY protocol as the specification has them, and what tests do with them."""

import socket
import struct

from deadline import eventually

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
UNKNOWN = b"PROXY UNKNOWN\r\n"


def v2_raw(command, family, body):
    """A header of version 2 of these parts."""
    return SIGNATURE + bytes((0x20 | command, family)) + struct.pack("!H", len(body)) + body


LOCAL = v2_raw(0, 0, b"")


def v1(source, dest):
    """A header of version 1 for a client at source that connected to dest, both (host, port)."""
    protocol = "TCP6" if ":" in source[0] else "TCP4"
    return f"PROXY {protocol} {source[0]} {dest[0]} {source[1]} {dest[1]}\r\n".encode()


def v2(source, dest, tlvs=b""):
    """The same of version 2."""
    family = socket.AF_INET6 if ":" in source[0] else socket.AF_INET
    hosts = b"".join(socket.inet_pton(family, end[0]) for end in (source, dest))
    return v2_raw(1, 0x11 if family == socket.AF_INET else 0x21,
                  hosts + struct.pack("!HH", source[1], dest[1]) + tlvs)


VERSIONS = {"v1": v1, "v2": v2}
NOBODY = {"v1": UNKNOWN, "v2": LOCAL}


def ends_of(client):
    """What a header says of this client: its own address and the one that it connected to."""
    return client.getsockname()[:2], client.getpeername()[:2]


def as_text(end):
    """An address as the log has it."""
    return f"[{end[0]}]:{end[1]}" if ":" in end[0] else f"{end[0]}:{end[1]}"


def _proc_address(host, port):
    return f"{struct.unpack('=I', socket.inet_aton(host))[0]:08X}:{port:04X}"


def wait_taken(client):
    """Wait until the program at the other end of an IPv4 connection has read all that was sent."""
    ends = [_proc_address(*client.getpeername()), _proc_address(*client.getsockname())]

    def unread():
        with open("/proc/thread-self/net/tcp", encoding="ascii") as f:
            queues = [line.split()[4] for line in f if line.split()[1:3] == ends]
        assert queues, "the connection has ended: the log says why"
        return int(queues[0].split(":")[1], 16) == 0
    eventually(unread, 10, "what was sent is read")
