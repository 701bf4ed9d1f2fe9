# SPDX-License-Identifier: MIT
"""Clients in line, and what becomes of them and of their server when dials hang."""

import contextlib
import socket

import pytest

from deadline import deadline, pass_time
from netns import SynCounter
from servers import Server, hang_up, line_echo
from sockets import close_reset, connected, crowd, fate, listening, recv_exactly, recv_until_end


@pytest.fixture
def address(port):
    return f"127.0.0.1:{port()}"


@pytest.fixture
def black_hole(port):
    """A server that was up, and then drops every SYN until it is cured."""
    with contextlib.ExitStack() as stack:
        hole = BlackHole(f"127.0.0.1:{port()}", stack)
        yield hole


class BlackHole:
    """A listener with no room in its backlog: the kernel drops the SYNs."""

    def __init__(self, address, stack):
        self.address = address
        self._stack = stack
        self._sock = listening(address, backlog=0)
        self._sock.settimeout(deadline(10))
        stack.callback(self._sock.close)

    def open(self, daemon):
        """Let the probe through by which daemon finds it up, and nothing from then on."""
        probe, _ = self._sock.accept()
        with probe:
            assert probe.recv(1) == b""
        daemon.wait_event("server_up", server=self.address)
        self._stack.enter_context(connected(self.address))

    def cure(self, name):
        """Room in the backlog, and a server."""
        self._sock.settimeout(None)
        return self._stack.enter_context(
            Server(self.address, line_echo(name), sock=self._sock))


def proxy(listen, *servers, more=""):
    lines = "\n".join(f"server = {server}" for server in servers)
    return f"[proxy web]\nlisten = {listen}\n{lines}\n{more}\n"


def is_quiet(sock, seconds):
    """Does nothing come, not even an end, for so long?"""
    sock.settimeout(seconds)
    try:
        sock.recv(1, socket.MSG_PEEK)
    except TimeoutError:
        return True
    finally:
        sock.settimeout(deadline(20))
    return False


def greeted(sock, name):
    """Is the line that it sent, or sends now, answered by the server of that name?"""
    return recv_exactly(sock, len(name) + 7) == name + b" hello\n"


# Dials that hang

def test_place_that_wait_timeout_frees_is_given_to_the_line(rediald, connect, address, black_hole):
    # The first SYN is lost, and the next follows after 1 s: too late.
    daemon = rediald(proxy(address, f"{black_hole.address} max_sessions=1",
                           more="standby = 0\nwait_timeout = 700ms\nconnect_timeout = 20s"))
    black_hole.open(daemon)
    port = int(black_hole.address.rpartition(":")[2])
    with SynCounter(port) as syns:
        first = connect(address)
        assert syns.wait(1, deadline(5))
        pass_time(0.4)
        second = connect(address)
        second.sendall(b"hello\n")
        black_hole.cure(b"a")
        assert recv_until_end(first) == (b"", "reset")
        assert greeted(second, b"a")
    daemon.session(reason="wait_timeout")
    assert not daemon.events("server_down"), "too short a silence to tell"


def test_server_that_swallows_dials_goes_down_though_wait_timeout_is_shorter(
        rediald, serve, address, black_hole):
    good = serve(line_echo(b"good"))
    daemon = rediald(proxy(address, black_hole.address, good.address,
                           more="standby = 0\nwait_timeout = 1200ms\nconnect_timeout = 2s"),
                     daemon_keys="workers = 1")
    black_hole.open(daemon)
    daemon.wait_event("server_up", server=good.address)

    def ask(_n):
        return fate(address, b"hello\n", half_close=True)
    served, lost = (b"good hello\n", "eof"), (b"", "reset")
    assert sorted(crowd(4, ask)) == [lost] * 2 + [served] * 2
    assert crowd(4, ask) == [served] * 4
    assert daemon.wait_event("server_down", server=black_hole.address)["reason"] == "timeout"


def test_dial_older_than_the_servers_return_is_no_news(rediald, connect, address, black_hole):
    # SYNs leave at 0 s and 1 s; the dials end at 2 s. The first one's failure makes a probe, which
    # connects; the others began while the server was away.
    daemon = rediald(proxy(address, black_hole.address, more="standby = 0\nconnect_timeout = 2s"))
    black_hole.open(daemon)
    clients = [connect(address)]
    pass_time(0.3)
    clients += [connect(address) for _ in range(8)]
    pass_time(1.35)
    black_hole.cure(b"a")
    for client in clients:
        client.sendall(b"hello\n")
    for client in clients:
        assert greeted(client, b"a")
    assert not daemon.events("server_down")


def test_client_whose_dial_failed_is_not_refused_for_those_behind_it(rediald, connect, address,
                                                                     black_hole):
    daemon = rediald(proxy(address, f"{black_hole.address} max_sessions=1",
                           more="standby = 0\nconnect_timeout = 900ms\nmax_waiting = 1"),
                     daemon_keys="workers = 1")
    black_hole.open(daemon)
    port = int(black_hole.address.rpartition(":")[2])
    with SynCounter(port) as syns:
        first = connect(address)
        assert syns.wait(1, deadline(5))
    second = connect(address)
    daemon.wait_event("server_down", reason="timeout")
    assert fate(address) == (b"", "reset")
    for client in (first, second):
        client.sendall(b"hello\n")
    black_hole.cure(b"a")
    assert greeted(first, b"a"), "who came first"
    assert is_quiet(second, 0.2)
    first.close()
    assert greeted(second, b"a")
    daemon.exactly(1, "session", reason="queue_full")


# The line and the servers

def test_backup_that_comes_up_is_not_used_while_a_primary_is_full(rediald, serve, connect, address,
                                                                  port):
    primary, backup = serve(line_echo(b"primary")), f"127.0.0.1:{port()}"
    daemon = rediald(proxy(address, f"{primary.address} max_sessions=1", f"{backup} backup",
                           more="backoff_max = 100ms"))
    daemon.wait_event("server_up", server=primary.address)
    daemon.wait_event("server_down", server=backup)
    first = connect(address)
    first.sendall(b"hello\n")
    assert greeted(first, b"primary")
    second = connect(address)
    second.sendall(b"hello\n")
    serve(line_echo(b"backup"), backup)
    daemon.wait_event("server_up", server=backup)
    assert is_quiet(second, 0.3)
    first.close()
    assert greeted(second, b"primary")


def test_server_down_tells_the_pause_that_is_made(rediald, serve, connect, address):
    server = serve(line_echo(b"a"))
    daemon = rediald(proxy(address, server.address, more="backoff_min = 3s\nbackoff_max = 9s\n"
                           "backoff_waiting = 100ms\nstandby = 0"))
    daemon.wait_event("server_up")
    server.close()
    client = connect(address)  # and waits
    assert daemon.wait_event("server_down")["retry_in"] == "100ms"
    close_reset(client)


# Hang-ups

def test_hang_ups_in_a_row_count_though_clients_stay_half_closed_for_long(rediald, serve, connect,
                                                                         address):
    server = serve(hang_up)
    daemon = rediald(proxy(address, server.address, more="standby = 0"))
    daemon.wait_event("server_up")
    for wait in (10.3, 0, 0):
        # 10 s of a session prove a server, but not of one that it left at once.
        assert connect(address).recv(1) == b""
        pass_time(wait)
    assert daemon.wait_event("server_down")["reason"] == "hung_up"
