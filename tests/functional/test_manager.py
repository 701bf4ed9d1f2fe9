# SPDX-License-Identifier: MIT
"""What the service manager hears: status, watchdog, lame duck and drain."""

import contextlib
import re
import signal
import socket
import time

import pytest

from binary import BINARY_IS_SANITIZED, WRAP
from deadline import SLOW, deadline, eventually, pass_time
from helpers import python
from ptrace import standing_still, thread_named
from servers import echo, line_echo
from sockets import (ask, close_reset, connected, is_refused, recv_all, recv_exactly,
                     recv_until_end)

# Long enough for a worker that is merely slow.
WATCHDOG_S = 0.6 * SLOW
# Holds port argv[1] by an outgoing connection, and lets go without TIME_WAIT.
HOLDER = """
import socket, struct, sys
s = socket.socket()
s.bind(("127.0.0.1", int(sys.argv[1])))
s.connect(("127.0.0.1", int(sys.argv[2])))
s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def address(port):
    return f"127.0.0.1:{port()}"


def proxy(listen, *servers, daemon="", more=""):
    lines = "\n".join(f"server = {server}" for server in servers)
    return f"[daemon]\naccess_log = all\n{daemon}\n[proxy web]\nlisten = {listen}\n{lines}\n{more}\n"


def figures(sessions, waiting, servers_up, servers):
    return (f"sessions: {sessions} (waiting: {waiting}), servers up: {servers_up} of {servers}")


def drink(sock):
    while sock.recv(1 << 16):
        pass


# Status

def test_status_tells_sessions_waiting_and_servers(rediald, serve, connect, address, port):
    first, dead = serve(echo), f"127.0.0.1:{port()}"
    daemon = rediald(proxy(address, first.address, dead))
    daemon.wait_notification("STATUS=" + figures(0, 0, 1, 2))
    clients = [connect(address) for _ in range(3)]
    daemon.wait_notification("STATUS=" + figures(3, 0, 1, 2))
    for client in clients:
        client.close()
    mark = daemon.mark_notifications()
    daemon.wait_notification("STATUS=" + figures(0, 0, 1, 2), since=mark)
    serve(echo, dead)
    daemon.wait_notification("STATUS=" + figures(0, 0, 2, 2))


def test_status_tells_who_waits(rediald, connect, address, port):
    daemon = rediald(proxy(address, f"127.0.0.1:{port()}", more="wait_timeout = 60s"))
    clients = [connect(address) for _ in range(2)]
    daemon.wait_notification("STATUS=" + figures(2, 2, 0, 1))
    for client in clients:
        close_reset(client)
    daemon.session(count=2, reason="client_reset")


def test_status_that_does_not_change_is_not_told_again(rediald, serve, address):
    daemon = rediald(proxy(address, serve(echo).address))
    daemon.wait_notification("STATUS=" + figures(0, 0, 1, 1))
    mark = daemon.mark_notifications()
    pass_time(2.5)
    assert daemon.mark_notifications() == mark


def test_ready_comes_with_a_status(rediald, serve, address):
    daemon = rediald(proxy(address, serve(echo).address))
    assert daemon.notifications[0] == "READY=1"
    assert daemon.notifications[1].startswith("STATUS=sessions: 0")


def test_waiting_for_a_port_is_told_with_the_time_it_may_take(rediald, serve, port):
    held, server = port(), serve(echo)
    with python(HOLDER, held, server.port):
        daemon = rediald(proxy(f"127.0.0.1:{held}", server.address, daemon="bind_retry = 200s"),
                         ready=False)
        assert f"127.0.0.1:{held} is held" in daemon.wait_notification("STATUS=waiting: ")
        wanted = int(daemon.wait_notification("EXTEND_TIMEOUT_USEC=").split("=")[1])
        assert 200e6 < wanted < 300e6
    daemon.wait_ready()


# Watchdog

def watchdog(rediald, configuration, **kwargs):
    return rediald(configuration, env={"WATCHDOG_USEC": str(int(WATCHDOG_S * 1e6))}, **kwargs)


def test_watchdog_is_fed_at_half_its_interval(rediald, serve, address):
    daemon = watchdog(rediald, proxy(address, serve(echo).address, daemon="workers = 3"))
    daemon.wait_notification("WATCHDOG=1")
    began, mark = time.monotonic(), daemon.mark_notifications()
    daemon.wait_notification("WATCHDOG=1", timeout=10, since=mark, count=6)
    assert 2.5 * WATCHDOG_S < time.monotonic() - began < 5 * WATCHDOG_S


@pytest.mark.parametrize("env", [{}, {"WATCHDOG_USEC": "100000", "WATCHDOG_PID": "1"}],
                         ids=["none", "of_another"])
def test_without_a_watchdog_nothing_is_fed(rediald, serve, address, env):
    daemon = rediald(proxy(address, serve(echo).address), env=env)
    pass_time(0.5)
    assert "WATCHDOG=1" not in daemon.notifications


@pytest.mark.skipif(bool(WRAP), reason="the thread is the wrapper's")
@pytest.mark.parametrize("worker", [0, 2])
def test_watchdog_is_not_fed_while_a_worker_stands_still(rediald, serve, address, worker):
    daemon = watchdog(rediald, proxy(address, serve(echo).address, daemon="workers = 3"))
    daemon.wait_notification("WATCHDOG=1")
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(standing_still(thread_named(daemon.pid, f"worker {worker}")))
        except OSError as err:
            pytest.skip(f"no thread can be stopped here: {err}")
        stalled = daemon.wait_event("worker_stalled")
        assert stalled["worker"] == str(worker)
        mark = daemon.mark_notifications()
        pass_time(3 * WATCHDOG_S)
        assert "WATCHDOG=1" not in daemon.notifications[mark:]
        assert len(daemon.events("worker_stalled")) == 1
    daemon.wait_notification("WATCHDOG=1", since=mark, count=3)


@pytest.mark.skipif(BINARY_IS_SANITIZED or bool(WRAP), reason="sanitizers slow the loop")
def test_busy_workers_feed_the_watchdog(rediald, serve, connect, address):
    daemon = watchdog(rediald, proxy(address, serve(drink).address))
    daemon.wait_notification("WATCHDOG=1")
    client, data = connect(address), bytes(1 << 20)
    end = time.monotonic() + 3 * WATCHDOG_S
    while time.monotonic() < end:
        client.sendall(data)
    client.close()
    assert not daemon.events("worker_stalled")
    assert daemon.notifications.count("WATCHDOG=1") >= 3


# Lame duck

def test_lame_duck_goes_on_accepting_and_then_drains(rediald, serve, connect, address):
    daemon = rediald(proxy(address, serve(echo).address,
                           daemon="lame_duck = 2s\ndrain_timeout = 30s"))
    began = time.monotonic()
    daemon.signal(signal.SIGTERM)
    assert daemon.wait_event("lame_duck")["lame_duck_ms"] == "2000"
    daemon.wait_notification("STOPPING=1")
    assert re.match(r"STATUS=ending soon, [12] s left; sessions: 0 ",
                    daemon.wait_notification("STATUS=ending soon"))
    client = connect(address)
    client.sendall(b"hello")
    assert recv_exactly(client, 5) == b"hello"
    assert not daemon.events("draining")
    assert daemon.wait_event("draining", timeout=10)["sessions"] == "1"
    assert time.monotonic() - began > 1.9
    eventually(lambda: is_refused(address))
    client.shutdown(socket.SHUT_WR)
    assert recv_all(client) == b""
    assert daemon.wait_exit() == 0
    assert daemon.wait_event("stopped")["sessions_cut"] == "0"
    assert daemon.notifications.count("STOPPING=1") == 1


def test_lame_duck_lasts_though_there_is_no_session(rediald, serve, address):
    daemon = rediald(proxy(address, serve(echo).address, daemon="lame_duck = 1s"))
    began = time.monotonic()
    daemon.signal(signal.SIGTERM)
    daemon.wait_event("lame_duck")
    assert ask(address, b"hello") == b"hello"
    assert daemon.wait_exit() == 0
    assert 0.9 < time.monotonic() - began < deadline(3)


def test_second_signal_ends_a_lame_duck_at_once(rediald, serve, connect, address):
    daemon = rediald(proxy(address, serve(echo).address,
                           daemon="lame_duck = 60s\ndrain_timeout = 60s"))
    client = connect(address)
    client.sendall(b"hello")
    assert recv_exactly(client, 5) == b"hello"
    daemon.signal(signal.SIGTERM)
    daemon.wait_event("lame_duck")
    began = time.monotonic()
    daemon.signal(signal.SIGTERM)
    assert daemon.wait_exit() == 0
    assert time.monotonic() - began < deadline(1)
    assert recv_until_end(client) == (b"", "reset")
    assert daemon.wait_event("stopped")["sessions_cut"] == "1"


def test_clients_of_a_lame_duck_wait_and_are_served(rediald, serve, address, port):
    dead = f"127.0.0.1:{port()}"
    daemon = rediald(proxy(address, dead, daemon="lame_duck = 1s\ndrain_timeout = 30s",
                           more="wait_timeout = 60s"))
    daemon.signal(signal.SIGTERM)
    daemon.wait_event("lame_duck")
    with connected(address) as client:
        client.sendall(b"hello\n")
        client.shutdown(socket.SHUT_WR)
        daemon.wait_event("draining")
        serve(line_echo(b"late"), dead)
        assert recv_all(client) == b"late hello\n"
    assert daemon.wait_exit() == 0


# Drain

def test_progress_of_a_drain_is_told(rediald, serve, connect, address):
    daemon = rediald(proxy(address, serve(echo).address, daemon="drain_timeout = 60s"))
    clients = [connect(address) for _ in range(2)]
    daemon.wait_notification("STATUS=" + figures(2, 0, 1, 1))
    daemon.signal(signal.SIGTERM)
    status = daemon.wait_notification("STATUS=draining, ")
    assert re.fullmatch(r"STATUS=draining, (60|59) s left; " + re.escape(figures(2, 0, 1, 1)),
                        status)
    mark = daemon.mark_notifications()
    daemon.wait_notification("EXTEND_TIMEOUT_USEC=15000000", since=mark, count=2)
    progress = daemon.wait_event("drain_progress", timeout=10, sessions=2, waiting=0)
    assert 40_000 < int(progress["left_ms"]) < 60_000
    clients[0].close()
    daemon.wait_event("drain_progress", timeout=10, sessions=1)
    clients[1].close()
    assert daemon.wait_exit() == 0


def test_last_line_tells_how_many_were_cut(rediald, serve, connect, address):
    daemon = rediald(proxy(address, serve(echo).address, daemon="drain_timeout = 1s"))
    clients = [connect(address) for _ in range(3)]
    daemon.wait_notification("STATUS=" + figures(3, 0, 1, 1))
    daemon.signal(signal.SIGTERM)
    assert [recv_until_end(client) for client in clients] == [(b"", "reset")] * 3
    assert daemon.wait_exit() == 0
    assert daemon.lines[-1].event == "stopped"
    assert daemon.lines[-1]["sessions_cut"] == "3"
