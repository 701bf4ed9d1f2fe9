# SPDX-License-Identifier: MIT
"""Beginning and end: readiness, signals, draining."""

import signal
import socket
import threading
import time

import pytest

from deadline import deadline, eventually, pass_time
from helpers import python
from servers import echo, line_echo, silent
from sockets import ask, connected, is_refused, recv_all, recv_exactly, recv_until_end

ENDING = pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["term", "int"])
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


def proxy(listen, server, daemon=""):
    return f"""
[daemon]
access_log = all
{daemon}
[proxy web]
listen = {listen}
server = {server}
"""


def exchange(client, data=b"hello"):
    client.sendall(data)
    assert recv_exactly(client, len(data)) == data


# Readiness

def test_ready_is_told_only_when_every_listener_is_bound(rediald, serve, port):
    first, held = port(), port()
    server = serve(echo)
    with python(HOLDER, held, server.port):
        daemon = rediald(proxy(f"127.0.0.1:{first}, 127.0.0.1:{held}", server.address),
                         ready=False)
        daemon.wait_event("listen_retry")
        pass_time(0.5)
        assert not [n for n in daemon.notifications if n.startswith("READY")]
        assert not daemon.events("ready")
    daemon.wait_ready()
    assert ask(f"127.0.0.1:{first}", b"x") == ask(f"127.0.0.1:{held}", b"x") == b"x"
    assert daemon.wait_event("ready")


def test_ready_does_not_wait_for_servers(rediald, address, port):
    rediald(proxy(address, f"127.0.0.1:{port()}") + "wait_timeout = 1s")
    assert not is_refused(address)


def test_one_proxy_without_a_file(rediald, serve, address):
    daemon = rediald(args=["--listen", address, "--server", serve(echo).address])
    assert ask(address, b"hello") == b"hello"
    daemon.terminate()


# The end

@ENDING
def test_without_sessions_it_ends_at_once(rediald, serve, address, number):
    daemon = rediald(proxy(address, serve(silent).address))
    assert ask(address, b"x") == b""
    daemon.session()
    began = time.monotonic()
    daemon.signal(number)
    assert daemon.wait_exit() == 0
    assert time.monotonic() - began < deadline(1)
    assert daemon.wait_notification("STOPPING=1")
    assert daemon.wait_event("stopped")
    assert is_refused(address)


@ENDING
def test_live_session_goes_on_and_its_end_is_the_daemons(rediald, serve, connect, address, number):
    server = serve(echo)
    daemon = rediald(proxy(address, server.address, "drain_timeout = 30s"))
    client = connect(address)
    exchange(client)
    daemon.signal(number)
    daemon.wait_notification("STOPPING=1")
    daemon.wait_event("draining")
    eventually(lambda: is_refused(address), 5)
    exchange(client, b"x" * 100_000)
    assert daemon.process.poll() is None
    client.shutdown(socket.SHUT_WR)
    assert recv_all(client) == b""
    assert daemon.wait_exit(5) == 0
    daemon.session(reason="client_closed", bytes_to_client=100_005)


def test_half_closed_session_is_drained_complete(rediald, serve, address):
    def handler(sock):
        recv_all(sock)
        go.wait(deadline(20))
        sock.sendall(b"answer")
    go = threading.Event()
    daemon = rediald(proxy(address, serve(handler).address, "drain_timeout = 30s"))
    with connected(address) as client:
        client.sendall(b"question")
        client.shutdown(socket.SHUT_WR)
        daemon.wait_event("server_up")
        daemon.signal(signal.SIGTERM)
        daemon.wait_event("draining")
        go.set()
        assert recv_all(client) == b"answer"
    assert daemon.wait_exit(5) == 0


def test_port_is_free_for_a_successor_while_it_drains(rediald, serve, connect, address):
    server = serve(echo)
    old = rediald(proxy(address, server.address, "drain_timeout = 30s"))
    client = connect(address)
    exchange(client)
    old.signal(signal.SIGTERM)
    old.wait_event("draining")
    eventually(lambda: is_refused(address), 5)
    rediald(proxy(address, server.address))
    exchange(client)
    exchange(connect(address))
    client.close()
    assert old.wait_exit(5) == 0


def test_drain_timeout_cuts_with_rst_and_status_0(rediald, serve, connect, address):
    ends = []
    server = serve(lambda sock: ends.append(recv_until_end(sock)))
    daemon = rediald(proxy(address, server.address, "drain_timeout = 1s"))
    daemon.wait_event("server_up")
    client = connect(address)
    client.sendall(b"hello")
    server.wait_accepted(2)
    began = time.monotonic()
    daemon.signal(signal.SIGTERM)
    assert recv_until_end(client) == (b"", "reset")
    assert 0.9 < time.monotonic() - began < deadline(3)
    assert daemon.wait_exit(5) == 0
    daemon.session(reason="drain")
    server.wait_live(0)
    assert (b"hello", "reset") in ends


@pytest.mark.parametrize("first", [signal.SIGTERM, signal.SIGINT], ids=["term", "int"])
@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT], ids=["term", "int"])
def test_second_signal_ends_at_once(rediald, serve, connect, address, first, second):
    daemon = rediald(proxy(address, serve(echo).address, "drain_timeout = 60s"))
    client = connect(address)
    exchange(client)
    daemon.signal(first)
    daemon.wait_event("draining")
    began = time.monotonic()
    daemon.signal(second)
    assert daemon.wait_exit(5) == 0
    assert time.monotonic() - began < deadline(1)
    assert recv_until_end(client) == (b"", "reset")
    daemon.session(reason="drain")


def test_drain_timeout_of_0_cuts_at_once(rediald, serve, connect, address):
    daemon = rediald(proxy(address, serve(echo).address, "drain_timeout = 0"))
    client = connect(address)
    exchange(client)
    began = time.monotonic()
    daemon.signal(signal.SIGTERM)
    assert daemon.wait_exit(5) == 0
    assert time.monotonic() - began < deadline(1)
    assert recv_until_end(client) == (b"", "reset")


def test_clients_who_wait_are_cut_at_the_drain_timeout(rediald, connect, address, port):
    daemon = rediald(proxy(address, f"127.0.0.1:{port()}", "drain_timeout = 1s"))
    clients = [connect(address) for _ in range(10)]
    for client in clients:
        client.sendall(b"hello")
    daemon.wait_event("server_down")
    daemon.signal(signal.SIGTERM)
    assert [recv_until_end(client) for client in clients] == [(b"", "reset")] * 10
    assert daemon.wait_exit(5) == 0
    daemon.session(count=10, reason="drain")


def test_clients_who_wait_are_served_by_a_server_that_comes_back_meanwhile(rediald, serve, connect,
                                                                         address, port):
    dead = f"127.0.0.1:{port()}"
    daemon = rediald(proxy(address, dead, "drain_timeout = 30s"))
    client = connect(address)
    client.sendall(b"hello\n")
    client.shutdown(socket.SHUT_WR)
    daemon.wait_event("server_down")
    daemon.signal(signal.SIGTERM)
    daemon.wait_event("draining")
    serve(line_echo(b"late"), dead)
    assert recv_all(client) == b"late hello\n"
    assert daemon.wait_exit(5) == 0
    daemon.session(reason="client_closed")


def test_clients_in_the_backlog_at_the_signal_are_served(rediald, serve, connect, address):
    daemon = rediald(proxy(address, serve(echo).address, "drain_timeout = 30s"))
    daemon.wait_event("server_up")
    # Stopped, it cannot accept: they are in the backlog when it hears the signal.
    daemon.freeze()
    # So many that it does not come to accept them all before it hears.
    clients = [connect(address) for _ in range(400)]
    for client in clients:
        client.sendall(b"hello")
        client.shutdown(socket.SHUT_WR)
    daemon.signal(signal.SIGTERM)
    daemon.signal(signal.SIGCONT)
    assert [recv_all(client) for client in clients] == [b"hello"] * 400
    assert daemon.wait_exit(5) == 0


def test_sigpipe_and_sighup_end_nothing(rediald, serve, address):
    daemon = rediald(proxy(address, serve(echo).address))
    daemon.signal(signal.SIGPIPE)
    daemon.signal(signal.SIGHUP)
    daemon.wait_event("reloaded")
    assert ask(address, b"hello") == b"hello"
