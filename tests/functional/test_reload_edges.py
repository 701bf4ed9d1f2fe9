# SPDX-License-Identifier: MIT
"""SIGHUP where things are full, late, or go different ways."""

import contextlib
import resource
import select
import signal

import pytest

from binary import BINARY_IS_SANITIZED
from deadline import eventually
from ptrace import standing_still, thread_named
from servers import echo, line_echo
from sockets import ask, connected, recv_exactly
from test_reload import Configured, proxy, resident, says


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
    """Two proxies share the listeners of one that goes: who waits is served where it came in."""
    first, second = (f"127.0.0.1:{port()}" for _ in range(2))
    a, b = serve(line_echo(b"a")).address, serve(line_echo(b"b")).address
    daemon = configured.start(proxy(f"{first} {second}", f"127.0.0.1:{port()}"))
    with connected(first) as one, connected(second) as two:
        for client in one, two:
            client.sendall(b"1\n")
        daemon.wait_notification("STATUS=sessions: 2 (waiting: 2)")
        configured.reload(proxy(first, a, name="a") + proxy(second, b, name="b"))
        assert recv_exactly(one, 4) == b"a 1\n"
        assert recv_exactly(two, 4) == b"b 1\n"


def test_clients_that_wait_follow_their_listener_and_not_a_name(configured, serve, port, tmp_path):
    """Names are exchanged; and once more, before there is a server."""
    dead = f"127.0.0.1:{port()}"
    listens = [f"127.0.0.1:{port()}", f"*:{port()}", f"unix:{tmp_path}/sock"]
    places = [listens[0], "127.0.0.1:" + listens[1].rpartition(":")[2], listens[2]]
    servers = [serve(line_echo(name)).address for name in (b"a", b"b", b"c")]

    def text(names, upstreams):
        return "".join(proxy(*both, name=name) for name, both in zip(names, zip(listens, upstreams)))
    daemon = configured.start(text("xyz", [dead] * 3))
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(connected(place)) for place in places]
        for client in clients:
            client.sendall(b"1\n")
        daemon.wait_notification("STATUS=sessions: 3 (waiting: 3)")
        configured.reload(text("yzx", [dead] * 3))
        configured.reload(proxy("\nlisten = ".join(listens), dead, name="one"))
        configured.reload(text("zxy", [dead] * 3))
        configured.reload(text("xyz", servers))
        assert [recv_exactly(client, 4) for client in clients] == [b"a 1\n", b"b 1\n", b"c 1\n"]


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


def test_servers_keep_their_standby_connections_when_others_come(configured, serve, address):
    server, other = serve(echo), serve(echo)
    daemon = configured.start(proxy(address, server.address, more="standby = 8"))
    server.wait_live(8)
    configured.reload(proxy(address, other.address, f"{server.address} weight=2",
                            more="standby = 8\nwait_timeout = 31s"))
    other.wait_live(8)
    daemon.wait_event("server_up", server=other.address)
    assert server.accepted == server.live == 8


def test_old_configurations_are_let_go_though_most_of_them_stays(rediald, tmp_path, serve, port):
    """Each reload changes another one of many proxies."""
    configured = Configured(rediald, tmp_path / "rediald.conf")
    server, places = serve(echo), [f"127.0.0.1:{port()}" for _ in range(200)]

    def text(n):
        return "".join(proxy(place, server.address, name=f"p{i}", more=f"idle_timeout = {1 + n * (n % 200 == i)}h")
                       for i, place in enumerate(places))
    daemon = configured.start(text(0))
    daemon.standby = 200
    server.wait_live(200)
    for n in range(1, 80):
        configured.reload(text(n))
        if n == 20:
            memory = resident(daemon)
    assert server.accepted == server.live == 200, "each has its connection still"
    if not BINARY_IS_SANITIZED:
        assert resident(daemon) < memory + 4096, "kB"
