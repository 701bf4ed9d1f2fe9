# SPDX-License-Identifier: MIT
"""Servers for rediald to dial: one thread that accepts, one for each connection."""

import contextlib
import fcntl
import socket
import sys
import termios
import threading

from deadline import deadline, eventually, pass_time
from sockets import abort, close_reset, listening, parse, recv_all, recv_exactly

TCP_CLOSE = b"\7"  # of the states in tcp(7)'s tcp_info


class Server:
    """Listens on address and runs handler(sock) for each connection until closed or killed.

    handler.on_accept(sock), where there is one, is called first, in the order of the connections.
    sock: bound already, for those who care how.
    """

    def __init__(self, address, handler, backlog=4096, sock=None):
        self.address = address
        self.accepted = 0
        self._handler = handler
        self._live = set()
        self._changed = threading.Condition()
        self._sock = sock or listening(address, backlog)
        self._sock.listen(backlog)
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    @property
    def port(self):
        return parse(self.address)[1][1]

    @property
    def live(self):
        with self._changed:
            return len(self._live)

    def wait_accepted(self, count, timeout=10):
        """Wait until count connections were accepted since the start."""
        with self._changed:
            assert self._changed.wait_for(lambda: self.accepted >= count, deadline(timeout)), \
                f"{self.accepted} of {count} connections accepted"

    def wait_live(self, count, timeout=10):
        """Wait until exactly count connections are open."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self._live) == count, deadline(timeout)), \
                f"{len(self._live)} connections open, {count} expected"

    def close(self):
        """Stop listening; connections go on."""
        if self._sock is None:
            return
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)  # wakes the accept(2) that waits on it
        self._thread.join()
        self._sock.close()
        self._sock = None

    def kill(self):
        """Stop listening, and end every connection with RST."""
        self.close()
        with self._changed:
            for sock in self._live:
                abort(sock)

    def __enter__(self):
        return self

    def __exit__(self, *_exc):
        self.kill()

    def _accept(self):
        while True:
            try:
                sock, _ = self._sock.accept()
            except OSError:
                return
            if hasattr(self._handler, "on_accept"):
                self._handler.on_accept(sock)
            with self._changed:
                self.accepted += 1
                self._live.add(sock)
                self._changed.notify_all()
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock):
        sock.settimeout(deadline(60))
        with contextlib.suppress(OSError):
            self._handler(sock)
        with self._changed:
            self._live.discard(sock)
            sock.close()
            self._changed.notify_all()


def echo(sock):
    """Sends back what comes; closes after the client's end."""
    while data := sock.recv(1 << 16):
        sock.sendall(data)


def silent(sock):
    """Reads all there is, and says nothing."""
    recv_all(sock)


def hang_up(_sock):
    """Accepts, and closes at once."""


def line_echo(name):
    """Answers each line with name and the line: tells servers apart."""
    def handle(sock):
        with sock.makefile("rb") as lines:
            for line in lines:
                sock.sendall(name + b" " + line)
    return handle


def answer_after_eof(delay, answer):
    """Reads to the client's end, and answers so many seconds after it."""
    def handle(sock):
        recv_all(sock)
        pass_time(delay)
        sock.sendall(answer)
    return handle


def reset_after(data, size=1):
    """Reads size bytes, sends data, and resets once the peer's kernel has it all."""
    def handle(sock):
        recv_exactly(sock, size)
        sock.sendall(data)
        wait_sent(sock)
        close_reset(sock)
    return handle


def wait_sent(sock):
    """Wait until the peer's kernel has taken everything that was written, or has reset."""
    def unsent():
        if sock.family != socket.AF_UNIX and \
                sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1) == TCP_CLOSE:
            return 0
        return int.from_bytes(fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4)), sys.byteorder)
    eventually(lambda: unsent() == 0, 30)
