# SPDX-License-Identifier: MIT
"""How often one dial is attempted, what is free after each attempt, and how much of it is told."""

import contextlib
import signal
import socket
import time

import pytest

import admin
import netns
from deadline import eventually
from exposition import Metrics
from helpers import no_port
from servers import echo
from sockets import ask, is_bindable

ATTEMPTS = 3  # of one dial, at most
LOG_LIMIT_S = 10
DESTINATIONS = {
    "ipv4": "127.0.0.1", "ipv6": "[::1]", "mapped": "[::ffff:127.0.0.1]",
    "any4": "0.0.0.0", "any6": "[::]",
}


@pytest.fixture
def listen(tmp_path):
    return f"unix:{tmp_path}/in.sock"


@pytest.fixture
def start(rediald, tmp_path, listen):
    """start(server, more): a daemon with one proxy; metrics() reads its counters."""
    admin_address = f"unix:{tmp_path}/admin.sock"

    def begin(server, more="", **kwargs):
        daemon = rediald(f"[proxy web]\nlisten = {listen}\nserver = {server}\n{more}\n",
                         daemon_keys=f"admin = {admin_address}", **kwargs)
        daemon.metrics = lambda: Metrics(admin.ask(admin_address, "/metrics").text)
        return daemon
    return begin


# Self-connections

@pytest.mark.parametrize("host", DESTINATIONS.values(), ids=DESTINATIONS.keys())
def test_dial_meets_itself_three_times_and_leaves_the_port_free(start, host):
    netns.sysctl("net.ipv4.ip_local_port_range", "40000 40000")
    with netns.SynCounter(40000) as syns:
        daemon = start(f"{host}:40000", "backoff_min = 60s\nbackoff_max = 120s")
        assert daemon.wait_event("server_down")["reason"] == "self_connect"
        # An attempt that kept the only port would have left none to the next, and none to us.
        assert is_bindable(f"{host}:40000"), "free at once"
        syns.settle()
        metrics = daemon.metrics()
        # The first dial that fails is followed by another at once; the next would be after backoff_min.
        assert metrics("dials_total", result="self_connect") == 2
        assert syns.sources == [40000] * 2 * ATTEMPTS
    assert metrics("self_connects_total") == 2 * ATTEMPTS


def test_many_self_connections_are_one_line_in_ten_seconds(start):
    netns.sysctl("net.ipv4.ip_local_port_range", "40000 40000")
    began = time.monotonic()
    daemon = start("127.0.0.1:40000", "backoff_min = 50ms\nbackoff_max = 50ms")

    def met():
        return daemon.metrics()("self_connects_total")
    before = eventually(lambda: met() > 30 and met())
    assert daemon.wait_event("self_connect")["suppressed"] == "0"
    second = daemon.wait_event("self_connect", count=2, timeout=2 * LOG_LIMIT_S)
    assert time.monotonic() - began >= LOG_LIMIT_S
    # It counts those that had no line.
    assert before < int(second["suppressed"]) + 2 <= met()


def test_reload_makes_no_new_line_of_self_connections(start, tmp_path):
    netns.sysctl("net.ipv4.ip_local_port_range", "40000 40000")
    daemon = start("127.0.0.1:40000", "backoff_min = 5ms\nbackoff_max = 5ms")
    file = tmp_path / "rediald-0.conf"
    text = file.read_text()
    for n in range(1, 4):
        file.write_text(text + f"connect_timeout = {n}s\n")
        daemon.signal(signal.SIGHUP)
        daemon.wait_event("reloaded", count=n)
        before = daemon.metrics()("self_connects_total")
        eventually(lambda start=before: daemon.metrics()("self_connects_total") > start + 2 * ATTEMPTS)
    daemon.exactly(1, "self_connect")


# No free local port

@contextlib.contextmanager
def held(ports):
    """Somebody has bound them: connect(2) is given none of them."""
    with contextlib.ExitStack() as stack:
        for port in ports:
            stack.enter_context(socket.socket()).bind(("127.0.0.1", port))
        yield


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
def test_without_a_free_port_the_range_is_named(start, serve, port, listen, host):
    netns.sysctl("net.ipv4.ip_local_port_range", "40000 40002")
    server = serve(echo, f"{host}:{port()}")
    with netns.SynCounter(server.port) as syns:
        with held(range(40000, 40003)):
            daemon = start(server.address)
            down = daemon.wait_event("server_down")
            assert down["reason"] == "no_port"
            assert "no free local port toward it in 40000-40002 " \
                   "(Cannot assign requested address)" in down.text
        daemon.wait_event("server_up")
        assert set(syns.sources) <= {40000, 40001, 40002}
    assert ask(listen, b"hello") == b"hello"


@pytest.mark.parametrize("refused, failed", [
    (ATTEMPTS - 1, 0), (ATTEMPTS, 1), (2 * ATTEMPTS - 1, 1), (2 * ATTEMPTS, 2)])
def test_port_that_is_free_a_moment_later_is_found(start, serve, listen, refused, failed):
    server = serve(echo)
    daemon = start(server.address, "standby = 0", prefix=no_port(refused))
    daemon.wait_event("server_up")
    assert ask(listen, b"hello") == b"hello"
    metrics = daemon.metrics()
    # Each dial that failed had three attempts; the last was within those of its dial.
    assert metrics("dials_total", result="no_port") == failed
    down = daemon.events("server_down")
    assert [line["reason"] for line in down] == ["no_port"] * (failed // 2)


def test_source_of_another_host_is_named_at_once(start, serve):
    server = serve(echo)
    daemon = start(server.address, "source = 192.0.2.9\nbackoff_min = 60s\nbackoff_max = 120s")
    down = daemon.wait_event("server_down")
    assert down["reason"] == "no_source"
    assert "the source address is not on this host" in down.text
    assert daemon.metrics()("dials_total", result="no_source") == 2
