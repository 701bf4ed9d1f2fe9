# SPDX-License-Identifier: MIT
"""SIGHUP where things are full, late, or go different ways."""

import contextlib
import resource
import select
import signal

import pytest

from deadline import eventually
from ptrace import standing_still, thread_named
from servers import echo, line_echo
from sockets import ask, connected, recv_exactly, recv_until_end
from test_reload import Configured, proxy, says


@pytest.fixture(params=[1, 4])
def workers(request):
    return request.param


@pytest.fixture
def configured(rediald, tmp_path, workers):
    return Configured(rediald, tmp_path / "rediald.conf", workers)


@pytest.fixture
def address(port):
    return f"127.0.0.1:{port()}"


def test_place_goes_with_a_client_to_a_proxy_of_another_name(configured, serve, address, port):
    server = serve(line_echo(b"a")).address
    daemon = configured.start(proxy(address, f"127.0.0.1:{port()}", more="max_sessions = 2"))
    with connected(address) as client:
        client.sendall(b"1\n")
        daemon.wait_notification("STATUS=sessions: 1 (waiting: 1)")
        configured.reload(proxy(address, server, name="renamed", more="max_sessions = 2"))
        assert recv_exactly(client, 4) == b"a 1\n"
    daemon.session(proxy="renamed")
    with connected(address) as first:
        assert says(first, b"1") == b"a 1\n"
        with connected(address) as second:
            assert says(second, b"1") == b"a 1\n"
            with connected(address):
                daemon.wait_event("accept_paused", proxy="renamed", limit="max_sessions")


def test_place_that_an_old_session_had_is_given_to_who_waits(configured, serve, address):
    text = proxy(address, f"{serve(line_echo(b'a')).address} max_sessions=1")
    daemon = configured.start(text + "wait_timeout = 21s\n")
    with connected(address) as first:
        assert says(first, b"1") == b"a 1\n"
        configured.reload(text + "wait_timeout = 22s\n")
        with connected(address) as second:
            second.sendall(b"2\n")
            daemon.wait_notification("STATUS=sessions: 2 (waiting: 1)")
            first.close()
            assert recv_exactly(second, 4) == b"a 2\n"


def test_more_descriptors_are_for_those_in_the_backlog(rediald, tmp_path, serve, address, port):
    """The proxy itself does not change; another leaves it those of its standby connections."""
    configured = Configured(rediald, tmp_path / "rediald.conf")
    text = proxy(address, serve(echo).address, more="standby = 0")
    other, dead = (f"127.0.0.1:{port()}" for _ in range(2))
    most = 250

    def limit():
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    daemon = configured.start(text + proxy(other, dead, name="other", more="standby = 1000"), preexec=limit)
    with contextlib.ExitStack() as stack:
        def is_full():
            return daemon.events("accept_paused", limit="descriptors")
        while not is_full():
            client = stack.enter_context(connected(address))
            client.sendall(b"x")
            eventually(lambda: has_come(client) or is_full())
        configured.reload(text + proxy(other, dead, name="other", more="standby = 0"))
        assert recv_exactly(client, 1) == b"x"


def has_come(sock):
    return select.select([sock], [], [], 0)[0]


def test_clients_that_wait_go_no_other_way_than_their_listener(configured, serve, port):
    """Two proxies share the listeners of one that goes: who waits is served where it came in, or not at all."""
    first, second = (f"127.0.0.1:{port()}" for _ in range(2))
    a, b = serve(line_echo(b"a")).address, serve(line_echo(b"b")).address
    daemon = configured.start(proxy(f"{first} {second}", f"127.0.0.1:{port()}"))
    with connected(first) as one, connected(second) as two:
        for client in one, two:
            client.sendall(b"1\n")
        daemon.wait_notification("STATUS=sessions: 2 (waiting: 2)")
        configured.reload(proxy(first, a, name="a") + proxy(second, b, name="b"))
        assert recv_until_end_of_line(one) in (b"a 1\n", b"")
        assert recv_until_end_of_line(two) in (b"b 1\n", b"")


def recv_until_end_of_line(sock):
    try:
        return recv_exactly(sock, 4)
    except ConnectionResetError:
        return b""


def test_worker_that_is_late_is_told_where_a_new_server_is(rediald, tmp_path, serve, address):
    """The worker that looks its name up is the second; it has found it before the first one knows of the server."""
    configured = Configured(rediald, tmp_path / "rediald.conf", workers=2)
    daemon = configured.start(proxy(address, serve(line_echo(b"a")).address))
    server = serve(line_echo(b"b"))
    name = f"localhost:{server.port}"
    configured.write(proxy(address, name))
    try:
        late = standing_still(thread_named(daemon.pid, "worker 0"))
        with late:
            daemon.signal(signal.SIGHUP)
            daemon.wait_event("server_up", server=name)
    except OSError as err:
        pytest.skip(f"no thread can be brought to a stand: {err}")
    daemon.wait_event("reloaded")
    for _ in range(20):
        assert ask(address, b"1\n") == b"b 1\n"
