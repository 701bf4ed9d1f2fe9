# SPDX-License-Identifier: MIT
"""A name server for tests, over UDP and TCP, that answers, errs and is silent as it is told."""

import dataclasses
import ipaddress
import socket
import struct
import threading
import time

from deadline import deadline
from sockets import recv_exactly

A, CNAME, AAAA = 1, 5, 28
NOERROR, FORMERR, SERVFAIL, NXDOMAIN, NOTIMP, REFUSED = range(6)
UDP_MAX = 512


@dataclasses.dataclass
class Entry:
    """What is said of a name."""
    addrs: tuple = ()
    ttl: int = 1
    rcode: int = NOERROR
    cname: str = ""           # the name is another one's
    silent: bool = False
    silent_types: tuple = ()  # to queries of these alone
    cut_types: tuple = ()     # an answer about these ends in the midst of a record
    truncated: bool = False   # over UDP: ask again over TCP
    garbage: bytes = None     # behind the query's number, in place of an answer


@dataclasses.dataclass
class Query:
    at: float
    name: str
    type: int
    tcp: bool


def _labels(name):
    return b"".join(bytes([len(label)]) + label.encode() for label in name.split(".")) + b"\0"


class DnsServer:
    """Answers at address, port 53, until closed. Names that it was not told of do not exist."""

    def __init__(self, address="127.0.0.1"):
        self.address = address
        self._entries, self._queries = {}, []
        self._changed = threading.Condition()
        self._udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._tcp = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        for sock in self._udp, self._tcp:
            sock.bind((address, 53))
        self._tcp.listen()
        for run in self._run_udp, self._run_tcp:
            threading.Thread(target=run, daemon=True).start()

    def set(self, name, *addrs, **entry):
        """What is said of name from now on: addresses, and fields of Entry."""
        with self._changed:
            self._entries[name.lower()] = Entry(addrs, **entry)

    def forget(self, name):
        """The name does not exist any more."""
        with self._changed:
            self._entries.pop(name.lower(), None)

    def queries(self, name=None, kind=None):
        """The queries so far, of that name and type."""
        with self._changed:
            return self._matching(name, kind)

    def wait_queries(self, count, name=None, kind=None, timeout=10):
        """Wait until so many came; returns them."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self._matching(name, kind)) >= count,
                                          deadline(timeout)), self._queries
            return self._matching(name, kind)

    def close(self):
        for sock in self._udp, self._tcp:
            try:
                sock.shutdown(socket.SHUT_RDWR)  # wakes the thread that waits on it
            except OSError:
                pass
            sock.close()

    def __enter__(self):
        return self

    def __exit__(self, *_exc):
        self.close()

    def _matching(self, name, kind):
        return [q for q in self._queries
                if name in (None, q.name) and kind in (None, q.type)]

    def _run_udp(self):
        while True:
            try:
                query, peer = self._udp.recvfrom(4096)
                if not query:
                    return
                answer = self._answer(query, False)
                if answer is not None:
                    self._udp.sendto(answer, peer)
            except OSError:
                return

    def _run_tcp(self):
        while True:
            try:
                sock, _ = self._tcp.accept()
            except OSError:
                return
            threading.Thread(target=self._serve_tcp, args=(sock,), daemon=True).start()

    def _serve_tcp(self, sock):
        with sock:
            sock.settimeout(deadline(10))
            try:
                while len(head := recv_exactly(sock, 2)) == 2:
                    answer = self._answer(recv_exactly(sock, struct.unpack("!H", head)[0]), True)
                    if answer is not None:
                        sock.sendall(struct.pack("!H", len(answer)) + answer)
            except OSError:
                pass

    def _note(self, name, kind, tcp):
        with self._changed:
            self._queries.append(Query(time.monotonic(), name, kind, tcp))
            self._changed.notify_all()
            return self._entries.get(name), dict(self._entries)

    def _answer(self, query, tcp):
        number, question, name, kind = self._parse(query)
        entry, entries = self._note(name, kind, tcp)
        if entry is None:
            return self._message(number, question, NXDOMAIN, [])
        if entry.silent or kind in entry.silent_types:
            return None
        if entry.garbage is not None:
            return number + entry.garbage
        records = self._records(name, kind, entries)
        if kind in entry.cut_types:
            records = [_labels(name) + struct.pack("!HH", kind, 1)]
        answer = self._message(number, question, entry.rcode, records)
        if not tcp and (entry.truncated or len(answer) > UDP_MAX):
            return self._message(number, question, entry.rcode, [], truncated=True)
        return answer

    @staticmethod
    def _parse(query):
        labels, at = [], 12
        while query[at]:
            labels.append(query[at + 1:at + 1 + query[at]].decode())
            at += 1 + query[at]
        kind, = struct.unpack_from("!H", query, at + 1)
        return query[:2], query[12:at + 5], ".".join(labels).lower(), kind

    @staticmethod
    def _message(number, question, rcode, records, truncated=False):
        flags = 0x8580 | rcode | (0x0200 if truncated else 0)
        return (number + struct.pack("!5H", flags, 1, len(records), 0, 0) + question
                + b"".join(records))

    @staticmethod
    def _records(name, kind, entries):
        """The chain of CNAMEs from name on, and the addresses at its end."""
        records, seen = [], set()
        while (entry := entries.get(name)) and entry.cname:
            data = _labels(entry.cname)
            records.append(_labels(name) + struct.pack("!HHIH", CNAME, 1, entry.ttl, len(data)) + data)
            name = entry.cname
            if name in seen:
                return records
            seen.add(name)
        for text in entry.addrs if entry else ():
            addr = ipaddress.ip_address(text)
            if (A if addr.version == 4 else AAAA) == kind:
                data = addr.packed
                records.append(_labels(name)
                               + struct.pack("!HHIH", kind, 1, entry.ttl, len(data)) + data)
        return records
