# SPDX-License-Identifier: MIT
"""Several workers: clients are spread over them, but limits, states and log lines are one daemon's."""

import collections
import contextlib
import os
import signal
import socket
import threading
import time

import pytest

import netns
from deadline import deadline, eventually, pass_time
from helpers import NO_PORT_RANGE
from netns import SynCounter
from servers import answer_after_eof, echo, line_echo
from sockets import (ask, close_reset, connected, crowd, fate, is_refused, recv_all, recv_exactly,
                     recv_until_end)

WORKERS = 4
TCP_LISTEN = "0A"


@pytest.fixture
def address(port):
    return f"127.0.0.1:{port()}"


@pytest.fixture
def dead(port):
    """The address of a server that is away."""
    return f"127.0.0.1:{port()}"


def proxy(listen, *servers, more="", daemon="", workers=WORKERS):
    lines = "\n".join(f"server = {server}" for server in servers)
    return f"""
[daemon]
workers = {workers}
access_log = all
{daemon}
[proxy web]
listen = {listen}
{lines}
{more}
"""


def port_of(address):
    return int(address.rpartition(":")[2])


def listeners(address):
    """The inodes of the sockets that listen on the IPv4 address."""
    with open("/proc/thread-self/net/tcp", encoding="ascii") as table:
        rows = [line.split() for line in table.readlines()[1:]]
    return {row[9] for row in rows
            if row[3] == TCP_LISTEN and int(row[1].rpartition(":")[2], 16) == port_of(address)}


def threads(daemon):
    return len(os.listdir(f"/proc/{daemon.pid}/task"))


def connected_or_refused(address):
    """A socket, or None: who is turned away so fast that connect(2) sees it."""
    with contextlib.suppress(ConnectionResetError):
        return connected(address)


def greet(sock):
    """One line to it, and its answer."""
    sock.sendall(b"hello\n")
    with sock.makefile("rb") as lines:
        return lines.readline()


class Watch:
    """A handler that notes how many are served at a time; each client is let go by its own end."""

    def __init__(self, pause=0.0):
        self.most = self.served = self._now = 0
        self._pause = pause
        self._lock = threading.Lock()

    def __call__(self, sock):
        # The daemon's probe says nothing, and is no session.
        data = sock.recv(1)
        if not data:
            return
        with self._lock:
            self._now += 1
            self.served += 1
            self.most = max(self.most, self._now)
        if self._pause:
            pass_time(self._pause)
        with self._lock:
            self._now -= 1
        sock.sendall(data)


# What they are

def test_ready_tells_how_many_and_each_is_a_thread(rediald, address, dead):
    daemon = rediald(proxy(address, dead))
    assert daemon.wait_event("ready")["workers"] == str(WORKERS)
    lone = rediald(proxy(f"127.0.0.2:{port_of(address)}", dead, workers=1))
    assert lone.wait_event("ready")["workers"] == "1"
    # A wrapper or a sanitizer may have threads of its own: the difference counts.
    assert threads(daemon) - threads(lone) == WORKERS - 1
    assert threads(lone) >= 3, "main, logger and worker"


def test_auto_is_the_cpus_of_the_affinity_mask(rediald, address, dead):
    one = {min(os.sched_getaffinity(0))}
    daemon = rediald(proxy(address, dead, workers="auto"),
                     preexec=lambda: os.sched_setaffinity(0, one))
    assert daemon.wait_event("ready")["workers"] == "1"


def test_auto_is_no_more_than_there_are_cpus(rediald, address, dead):
    daemon = rediald(proxy(address, dead, workers="auto"))
    assert 1 <= int(daemon.wait_event("ready")["workers"]) <= len(os.sched_getaffinity(0))


# Listening

def test_each_worker_has_a_socket_of_its_own(rediald, serve, address):
    server = serve(echo)
    daemon = rediald(proxy(address, server.address))
    found = listeners(address)
    assert len(found) == WORKERS
    assert {f"socket:[{inode}]" for inode in found} <= set(daemon.descriptors())


def test_clients_are_spread_over_the_workers(rediald, serve, address):
    server = serve(echo)
    daemon = rediald(proxy(address, server.address))
    daemon.wait_event("server_up")
    with contextlib.ExitStack() as stack:
        for _ in range(64):
            client = stack.enter_context(connected(address))
            client.sendall(b"x")
            assert recv_exactly(client, 1) == b"x"
        # A client's socket is watched by the epoll instance of its worker.
        shares = watched_sockets(daemon)
        assert len([count for count in shares if count >= 4]) >= WORKERS, shares


def watched_sockets(daemon):
    """How many descriptors each of the daemon's epoll instances watches."""
    shares = []
    for fd in os.listdir(f"/proc/{daemon.pid}/fd"):
        with contextlib.suppress(FileNotFoundError):
            if os.readlink(f"/proc/{daemon.pid}/fd/{fd}") == "anon_inode:[eventpoll]":
                with open(f"/proc/{daemon.pid}/fdinfo/{fd}", encoding="ascii") as info:
                    shares.append(sum(line.startswith("tfd:") for line in info))
    return shares


def test_unix_listener_serves_with_several_workers(rediald, serve, tmp_path):
    path = tmp_path / "in.sock"
    daemon = rediald(proxy(f"unix:{path}, unix:@redial-workers", serve(echo).address))
    daemon.wait_event("server_up")
    for address in (f"unix:{path}", "unix:@redial-workers"):
        assert crowd(100, lambda n, a=address: ask(a, b"%d" % n)) == [b"%d" % n for n in range(100)]
    daemon.terminate()
    assert list(tmp_path.glob("in.sock*")) == []


@pytest.mark.parametrize("workers", [1, WORKERS])
def test_second_daemon_on_the_address_gives_up_at_once(rediald, serve, address, workers):
    server = serve(echo)
    first = rediald(proxy(address, server.address))
    began = time.monotonic()
    second = rediald(proxy(address, server.address, workers=workers), ready=False)
    assert second.wait_exit(5) == 71
    assert time.monotonic() - began < deadline(3)
    assert f"of pid {first.pid} (" in second.wait_event("listen_failed").text
    assert not second.events("listen_retry")
    assert len(listeners(address)) == WORKERS
    assert ask(address, b"hello") == b"hello"


def test_unlisten_refuses_and_listens_again_on_every_socket(rediald, serve, connect, address, dead):
    daemon = rediald(proxy(address, dead, more="when_down = unlisten\nbackoff_max = 100ms\n"
                           "wait_timeout = 3s"))
    for n in range(1, 4):
        daemon.wait_event("unlistened", count=n)
        eventually(lambda: not listeners(address), 5, "no socket listens")
        assert all(is_refused(address) for _ in range(20))
        server = serve(line_echo(b"a"), dead)
        daemon.wait_event("relistened", count=n)
        eventually(lambda: len(listeners(address)) == WORKERS, 5, "every socket listens")
        assert crowd(20, lambda _n: ask(address, b"hello\n")) == [b"a hello\n"] * 20
        server.close()
        # One has to meet the dead server before anybody knows.
        connect(address)
    daemon.wait_event("unlistened", count=4)
    for event in ("server_down", "unlistened"):
        daemon.exactly(4, event)
    daemon.exactly(3, "relistened")


# Limits

def test_max_sessions_of_the_proxy_holds_for_the_process(rediald, serve, address):
    watch = Watch(0.01)
    server = serve(watch)
    daemon = rediald(proxy(address, server.address, more="max_sessions = 3"))
    daemon.wait_event("server_up")
    for _ in range(20):
        assert crowd(20, lambda _n: ask(address, b"x")) == [b"x"] * 20
    assert watch.served == 400
    assert 2 <= watch.most <= 3
    daemon.wait_event("accept_paused", limit="max_sessions")


def test_max_sessions_of_the_server_holds_for_the_process(rediald, serve, address):
    watch = Watch(0.01)
    server = serve(watch)
    daemon = rediald(proxy(address, f"{server.address} max_sessions=1"))
    daemon.wait_event("server_up")
    for _ in range(20):
        assert crowd(10, lambda _n: ask(address, b"x")) == [b"x"] * 10
    assert watch.served == 200
    assert watch.most == 1


@pytest.mark.parametrize("listen", ["tcp", "unix"])
def test_place_that_ends_is_given_to_whoever_waits(rediald, serve, address, tmp_path, listen):
    """Sessions that end at once, on any worker: a wake-up that is lost leaves a client behind."""
    address = address if listen == "tcp" else f"unix:{tmp_path}/in.sock"
    watch = Watch()
    server = serve(watch)
    daemon = rediald(proxy(address, f"{server.address} max_sessions=2", more="max_sessions = 3"))
    daemon.wait_event("server_up")
    for _ in range(20):
        assert crowd(20, lambda _n: ask(address, b"x")) == [b"x"] * 20
    assert watch.most <= 2


def test_max_waiting_holds_for_the_process(rediald, address, dead):
    daemon = rediald(proxy(address, dead, more="max_waiting = 5\nwait_timeout = 2s"))
    daemon.wait_event("server_down")
    for n in (1, 2):
        assert crowd(20, lambda _n: fate(address)) == [(b"", "reset")] * 20
        daemon.session(count=15 * n, reason="queue_full")
        daemon.session(count=5 * n, reason="wait_timeout")
    assert len(daemon.events("session")) == 40


def test_waiting_client_that_goes_makes_room_for_another_worker(rediald, serve, address, dead):
    daemon = rediald(proxy(address, dead, more="max_waiting = 5"))
    daemon.wait_event("server_down")
    with contextlib.ExitStack() as stack:
        for n in range(1, 6):
            clients = [connected_or_refused(address) for _ in range(20)]
            daemon.session(count=15 * n, reason="queue_full")
            for client in filter(None, clients):
                close_reset(client)
            daemon.session(count=5 * n, reason="client_reset")
        clients = [stack.enter_context(connected(address)) for _ in range(5)]
        for client in clients:
            client.sendall(b"hello\n")
        serve(line_echo(b"a"), dead)
        assert [recv_exactly(client, 8) for client in clients] == [b"a hello\n"] * 5


# One line for each event

def test_each_change_of_a_server_is_logged_once(rediald, serve, address, dead):
    daemon = rediald(proxy(address, dead, more="backoff_max = 100ms\nwait_timeout = 30s"))
    daemon.wait_event("server_down")
    for n in range(1, 6):
        server = serve(line_echo(b"a"), dead)
        daemon.wait_event("server_up", count=n)
        assert crowd(16, lambda _n: ask(address, b"hello\n")) == [b"a hello\n"] * 16
        server.close()
        # Clients on every worker meet the dead server at once.
        clients = [connected(address) for _ in range(16)]
        daemon.wait_event("server_down", count=n + 1)
        for client in clients:
            close_reset(client)
    daemon.exactly(5, "server_up")
    daemon.exactly(6, "server_down")


def test_full_proxy_is_told_once_in_ten_seconds(rediald, serve, address):
    daemon = rediald(proxy(address, serve(Watch(0.02)).address, more="max_sessions = 3"))
    daemon.wait_event("server_up")
    began = time.monotonic()
    for _ in range(10):
        assert crowd(20, lambda _n: ask(address, b"x")) == [b"x"] * 20
    took = time.monotonic() - began
    daemon.wait_event("accept_paused")
    assert len(daemon.events("accept_paused")) <= 1 + took // 10


# Probes

def test_dead_server_is_probed_by_one_worker(rediald, serve, address, dead):
    daemon = rediald(proxy(address, dead, more="backoff_min = 400ms\nbackoff_max = 400ms\n"
                           "backoff_waiting = 400ms\nwait_timeout = 60s"))
    daemon.wait_event("server_down")
    # Pauses are drawn from the half of the backoff to the whole: a prober dials five times a second
    # at most, four of them do so ten times at least.

    def dials(seconds):
        before = syns.count
        pass_time(seconds)
        return syns.count - before
    with SynCounter(port_of(dead)) as syns, contextlib.ExitStack() as stack:
        assert 3 <= dials(2) <= 11
        clients = [stack.enter_context(connected(address)) for _ in range(40)]
        assert 3 <= dials(2) <= 11, "clients wait on every worker"
        for client in clients:
            client.sendall(b"hello\n")
        serve(line_echo(b"a"), dead)
        assert [recv_exactly(client, 8) for client in clients] == [b"a hello\n"] * 40


def test_client_on_any_worker_hurries_the_prober(rediald, serve, address, dead):
    daemon = rediald(proxy(address, dead, more="backoff_min = 40s\nbackoff_max = 80s\n"
                           "backoff_waiting = 100ms\nwait_timeout = 3s"))
    for n in range(1, 13):
        daemon.wait_event("server_down", count=n)
        with connected(address) as client:
            client.sendall(b"hello\n")
            server = serve(line_echo(b"a"), dead)
            client.settimeout(deadline(5))
            assert recv_exactly(client, 8) == b"a hello\n"
        server.close()
        close_reset(connected(address))  # who meets the dead server
        with connected(address):
            daemon.wait_event("server_down", count=n + 1)


def test_five_hundred_clients_on_all_workers_are_served_within_moments(rediald, serve, address,
                                                                       dead):
    daemon = rediald(proxy(address, dead, more="wait_timeout = 60s"))
    daemon.wait_event("server_down")
    with contextlib.ExitStack() as stack:
        clients = []
        for n in range(500):
            client = stack.enter_context(connected(address))
            client.sendall(b"request %d" % n)
            client.shutdown(socket.SHUT_WR)
            clients.append(client)
        with SynCounter(port_of(dead)) as syns:
            serve(answer_after_eof(0, b"done"), dead)
            daemon.wait_event("server_up")
            began = time.monotonic()
            assert [recv_all(client) for client in clients] == [b"done"] * 500
            assert time.monotonic() - began < deadline(3)
            assert len(set(syns.sources)) <= 500 + 5
    daemon.session(count=500, reason="client_closed", timeout=10)


def test_worker_does_not_dial_again_before_the_prober_has_answered(rediald, serve, address):
    first, second = serve(line_echo(b"first")), serve(line_echo(b"second"))
    daemon = rediald(proxy(address, first.address, second.address,
                           more="balance = first\nbackoff_max = 100ms\nstandby = 0"))
    daemon.wait_event("server_up", server=second.address)
    for n in range(1, 13):
        daemon.wait_event("server_up", server=first.address, count=n)
        mark = daemon.mark()
        first.close()
        # Mostly on another worker than the prober's.
        assert crowd(4, lambda _n: ask(address, b"hello\n")) == [b"second hello\n"] * 4
        daemon.session(count=4, since=mark)
        attempts = {line["attempts"] for line in daemon.events("session", mark)}
        assert attempts <= {"1", "2"}, attempts
        daemon.wait_event("server_down", server=first.address, count=n)
        first = serve(line_echo(b"first"), first.address)


def test_dead_server_among_two_costs_a_client_one_dial(rediald, serve, address):
    first, second = serve(line_echo(b"first")), serve(line_echo(b"second"))
    daemon = rediald(proxy(address, first.address, second.address,
                           more="balance = first\nbackoff_min = 10s\nbackoff_max = 20s\n"
                           "standby = 0"))
    daemon.wait_event("server_up", server=first.address)
    daemon.wait_event("server_up", server=second.address)
    assert ask(address, b"hello\n") == b"first hello\n"
    mark = daemon.mark()
    with SynCounter(first.port) as syns:
        first.close()
        assert crowd(40, lambda _n: ask(address, b"hello\n")) == [b"second hello\n"] * 40
        daemon.session(count=40, since=mark, server=second.address)
        attempts = collections.Counter(
            line["attempts"] for line in daemon.events("session", mark, server=second.address))
        assert set(attempts) <= {"1", "2"}, attempts
        assert attempts["2"] >= 1
        # Each client's dial, and the prober's.
        assert syns.count <= attempts["2"] + 2
        daemon.wait_event("server_down", server=first.address)
        spent = syns.count
        assert crowd(40, lambda _n: ask(address, b"hello\n")) == [b"second hello\n"] * 40
        assert syns.count == spent, "every worker knows"


# The end

def sessions_on_workers(daemon, address, stack, count=16):
    clients = [stack.enter_context(connected(address)) for _ in range(count)]
    for client in clients:
        assert greet(client) == b"a hello\n"
    shares = watched_sockets(daemon)
    assert len([share for share in shares if share >= 2]) >= 2, shares
    return clients


def test_drain_lasts_as_long_as_the_last_session_of_any_worker(rediald, serve, address):
    daemon = rediald(proxy(address, serve(line_echo(b"a")).address, daemon="drain_timeout = 60s"))
    with contextlib.ExitStack() as stack:
        clients = sessions_on_workers(daemon, address, stack)
        daemon.signal(signal.SIGTERM)
        assert daemon.wait_event("draining")["sessions"] == "16"
        eventually(lambda: is_refused(address), 5)
        assert not listeners(address)
        for n, client in enumerate(clients):
            assert daemon.process.poll() is None, f"ended with {len(clients) - n} sessions"
            assert greet(client) == b"a hello\n"
            client.shutdown(socket.SHUT_WR)
            assert recv_all(client) == b""
        assert daemon.wait_exit(5) == 0
    assert daemon.wait_event("stopped")["sessions_cut"] == "0"
    daemon.session(count=16, reason="client_closed")


def test_second_signal_cuts_the_sessions_of_every_worker(rediald, serve, address):
    daemon = rediald(proxy(address, serve(line_echo(b"a")).address, daemon="drain_timeout = 60s"))
    with contextlib.ExitStack() as stack:
        clients = sessions_on_workers(daemon, address, stack)
        daemon.signal(signal.SIGTERM)
        daemon.wait_event("draining")
        daemon.signal(signal.SIGTERM)
        assert [recv_until_end(client) for client in clients] == [(b"", "reset")] * 16
        assert daemon.wait_exit(5) == 0
    assert daemon.wait_event("stopped")["sessions_cut"] == "16"
    daemon.session(count=16, reason="drain")


def test_clients_who_wait_on_every_worker_are_cut_at_the_drain_timeout(rediald, address, dead):
    daemon = rediald(proxy(address, dead, daemon="drain_timeout = 1s"))
    daemon.wait_event("server_down")
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(connected(address)) for _ in range(20)]
        daemon.signal(signal.SIGTERM)
        assert [recv_until_end(client) for client in clients] == [(b"", "reset")] * 20
    assert daemon.wait_exit(5) == 0
    daemon.session(count=20, reason="drain")


def test_clients_who_wait_on_every_worker_are_served_while_it_drains(rediald, serve, address, dead):
    daemon = rediald(proxy(address, dead, daemon="drain_timeout = 60s"))
    daemon.wait_event("server_down")
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(connected(address)) for _ in range(20)]
        for client in clients:
            client.sendall(b"hello\n")
            client.shutdown(socket.SHUT_WR)
        daemon.signal(signal.SIGTERM)
        daemon.wait_event("draining")
        serve(line_echo(b"late"), dead)
        assert [recv_all(client) for client in clients] == [b"late hello\n"] * 20
    assert daemon.wait_exit(5) == 0


# The guard

@pytest.mark.parametrize("prefix", [(), NO_PORT_RANGE], ids=["prevention", "detection_alone"])
def test_no_worker_ever_talks_to_itself(rediald, tmp_path, prefix):
    netns.sysctl("net.ipv4.ip_local_port_range", "40000 40019")
    address = f"unix:{tmp_path}/in.sock"
    with SynCounter(40010) as syns:
        daemon = rediald(proxy(address, "127.0.0.1:40010", more="wait_timeout = 1500ms\n"
                               "backoff_min = 1ms\nbackoff_max = 5ms\nbackoff_waiting = 5ms"),
                         prefix=prefix)
        answers = crowd(200, lambda n: fate(address, b"MAGIC-%d\n" % n)[0], 50)
        assert set(answers) == {b""}
        assert syns.wait(100, deadline(30)), f"only {syns.count} dials"
    assert not daemon.events("server_up")


# Nothing is left

def test_descriptors_come_back_from_every_worker(rediald, serve, address):
    server = serve(echo)
    daemon = rediald(proxy(address, server.address))
    daemon.wait_event("server_up")
    data = os.urandom(300_000)
    before = daemon.sockets()
    assert crowd(100, lambda _n: ask(address, data), 20) == [data] * 100
    daemon.session(count=100)
    daemon.wait_descriptors_back()
    assert daemon.sockets() <= before
