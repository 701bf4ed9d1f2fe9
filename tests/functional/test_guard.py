# SPDX-License-Identifier: MIT
"""It never talks to itself: the guard against self-connection, seen from outside."""

import contextlib
import itertools
import json
import shutil
import signal
import socket
import struct
import subprocess
import sys

import pytest

import admin
import netns
import portprober
from deadline import deadline, eventually
from helpers import NO_PORT_RANGE, PortProber
from servers import Server, line_echo
from sockets import connected, crowd, is_bindable, parse, recv_exactly, recv_until_end

DESTINATIONS = {
    "ipv4": "127.0.0.1", "ipv6": "[::1]", "mapped": "[::ffff:127.0.0.1]",
    "any4": "0.0.0.0", "any6": "[::]",
}
MANY_DIALS = """
backoff_min = 1ms
backoff_max = 5ms
backoff_waiting = 5ms
"""
FEW_DIALS = """
backoff_min = 60s
backoff_max = 120s
backoff_waiting = 60s
"""
# A port may be taken for a moment while it is dialled; no server notices that.
BLOCKED_MAX_S = 0.1

either_way = pytest.mark.parametrize(
    "prefix", [(), NO_PORT_RANGE], ids=["prevention", "detection_alone"])


def has_port_range_option():
    """Has this kernel IP_LOCAL_PORT_RANGE (Linux 6.3)?"""
    with socket.socket() as sock:
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.IPPROTO_IP, 51, struct.pack("I", 0))
            return True
    return False


def bytes_that_came_back(address, count, source=None):
    """count clients side by side send a magic string each; what they got for it."""
    def client(n):
        magic = b"MAGIC-%d\n" % n
        with connected(address, source=source(n) if source else None) as sock:
            try:
                sock.sendall(magic)
            except OSError:
                return b""
            return recv_until_end(sock)[0]
    return [answer for answer in crowd(count, client, 50) if answer]


def self_connections(daemon):
    """How many self-connections the log tells of, those of the rate limit included."""
    lines = daemon.events("self_connect")
    return len(lines) + sum(int(line.fields.get("suppressed", 0)) for line in lines)


def never_blocked(report):
    """Could the port be had all the time, but for moments?"""
    return report["taken"] > report["tries"] / 2 and report["blocked_s"] < BLOCKED_MAX_S


def assert_never_blocked(report):
    assert report["tries"] > 100, report
    assert never_blocked(report), report


def settle(daemon, file, address):
    """Have it pause for long between its dials, and wait until it does; returns what it has of its server."""
    since = daemon.mark()
    file.write_text(file.read_text().replace(MANY_DIALS, FEW_DIALS))
    daemon.signal(signal.SIGHUP)
    daemon.wait_event("reloaded", since=since)

    def paused():
        server = json.loads(admin.ask(address, "/status").body)["upstreams"][0]["servers"][0]
        return server if (server["retry_in_ms"] or 0) > 1000 else None
    return eventually(paused, 10)


def assert_served(server_address, client_address, source=None):
    """A real server, without SO_REUSEADDR, starts on the port, and clients get to it."""
    family, sockaddr = parse(server_address)
    sock = socket.socket(family, socket.SOCK_STREAM)

    def is_bound():
        with contextlib.suppress(OSError):
            sock.bind(sockaddr)
            return True
    eventually(is_bound, 5, "the server can bind")
    with Server(server_address, line_echo(b"real"), sock=sock):
        with connected(client_address, source=source) as client:
            client.sendall(b"hello\n")
            assert recv_exactly(client, 11) == b"real hello\n"


@either_way
@pytest.mark.parametrize("host", DESTINATIONS.values(), ids=DESTINATIONS.keys())
def test_dead_server_in_the_range_never_answers(rediald, tmp_path, host, prefix):
    netns.sysctl("net.ipv4.ip_local_port_range", "40000 40019")
    client_address = f"unix:{tmp_path}/in.sock"
    with netns.SynCounter(40010) as syns, PortProber("bind", 40010) as prober:
        daemon = rediald(f"""
[proxy web]
listen = {client_address}
server = {host}:40010
wait_timeout = 1500ms
{MANY_DIALS}
""", prefix=prefix)
        assert bytes_that_came_back(client_address, 100) == []
        assert syns.wait(100, deadline(30)), f"only {syns.count} dials"
        if prefix:
            eventually(lambda: self_connections(daemon), 30, "a self-connection is logged")
        elif has_port_range_option():
            assert not daemon.events("self_connect"), "prevented, so never met"
        assert not daemon.events("server_up")
    assert_never_blocked(prober.report)
    assert_served(f"{host}:40010", client_address)
    assert daemon.wait_event("server_up")


@either_way
def test_two_hundred_tcp_clients_never_hear_themselves(rediald, port, prefix):
    netns.sysctl("net.ipv4.ip_local_port_range", "40000 40019")
    client_address = f"127.0.0.1:{port()}"
    daemon = rediald(f"""
[proxy web]
listen = {client_address}
server = 127.0.0.1:40010
wait_timeout = 1s
{MANY_DIALS}
""", prefix=prefix)
    with PortProber("bind", 40010) as prober:
        # From ports outside the range: within it there would be none left for the dials.
        answers = bytes_that_came_back(client_address, 200, lambda n: ("127.0.0.1", 20000 + n))
    assert answers == []
    assert_never_blocked(prober.report)
    assert not daemon.events("server_up")
    assert_served("127.0.0.1:40010", client_address, source=("127.0.0.1", 20999))


@either_way
@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
def test_every_self_connection_is_met_in_a_range_of_one_port(rediald, tmp_path, host, prefix):
    netns.sysctl("net.ipv4.ip_local_port_range", "40000 40000")
    client_address, admin_address = f"unix:{tmp_path}/in.sock", f"unix:{tmp_path}/admin.sock"
    with netns.SynCounter(40000) as syns:
        daemon = rediald(f"""
[proxy web]
listen = {client_address}
server = {host}:40000
wait_timeout = 1s
{MANY_DIALS}
""", daemon_keys=f"admin = {admin_address}", prefix=prefix)
        # The prober comes after it: while it holds the only port, a dial fails for want of one.
        assert daemon.wait_event("server_down")["reason"] == "self_connect"
        with PortProber("bind", 40000) as prober:
            assert bytes_that_came_back(client_address, 20) == []
            assert syns.wait(100, deadline(30)), f"only {syns.count} dials"
        server = settle(daemon, tmp_path / "rediald-0.conf", admin_address)
        assert is_bindable(f"{host}:40000"), "free at once"
        syns.settle()
        # Nobody else can have sent them: each that left met itself.
        assert server["self_connects"] == syns.count
    assert self_connections(daemon) > 0
    assert not daemon.events("server_up")
    assert_never_blocked(prober.report)
    daemon.terminate()
    assert is_bindable(f"{host}:40000"), "free at once"


def test_the_same_clients_catch_a_proxy_without_a_guard(tmp_path):
    """The proof that these tests can fail: HAProxy echoes, and blocks the port."""
    haproxy = shutil.which("haproxy", path="/usr/sbin:/usr/bin")
    if not haproxy:
        pytest.skip("haproxy is not installed")
    netns.sysctl("net.ipv4.ip_local_port_range", "40000 40000")
    config = tmp_path / "haproxy.cfg"
    config.write_text(f"""
defaults
    mode tcp
    timeout connect 1s
    timeout client 1s
    timeout server 1s
listen web
    bind unix@{tmp_path}/in.sock
    server s 127.0.0.1:40000
""")
    process = subprocess.Popen([haproxy, "-db", "-f", str(config)], stdin=subprocess.DEVNULL,
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        eventually((tmp_path / "in.sock").exists, 10)
        with PortProber("bind", 40000) as prober:
            answers = bytes_that_came_back(f"unix:{tmp_path}/in.sock", 20)
        assert answers and answers[0].startswith(b"MAGIC")
        assert not never_blocked(prober.report), prober.report
        assert prober.report["blocked_s"] > BLOCKED_MAX_S, prober.report
        assert not is_bindable("127.0.0.1:40000"), "still blocked when all is over"
    finally:
        process.kill()
        process.wait()


def test_the_option_can_be_taken_away():
    """noportrange.py does what it says: without this the detection alone would go untested."""
    code = ("import socket, struct; s = socket.socket();"
            "s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1);"
            "s.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 64);"
            "s.setsockopt(socket.IPPROTO_IP, 51, struct.pack('I', 0))")
    result = subprocess.run([*NO_PORT_RANGE, sys.executable, "-c", code], capture_output=True,
                            text=True, check=False)
    assert result.returncode == 1
    assert "Errno 92" in result.stderr


def report_of(tries):
    """What the prober tells of tries: (seconds since the one before, taken)."""
    tally, now = portprober.Tally(), 0.0
    for pause, taken in tries:
        now += pause
        tally.add(now, taken)
    return tally.report()


@pytest.mark.parametrize("pause_s", [0.0006, 0.015, 0.03, 0.3], ids=lambda s: f"{s * 1000:g}ms")
def test_the_prober_sees_a_port_that_is_blocked(pause_s):
    """However late the machine lets it try."""
    assert not never_blocked(report_of([(pause_s, False)] * 200)), "throughout"
    some = [(pause_s, True)] * 500 + [(pause_s, False)] * 200 + [(pause_s, True)] * 500
    assert not never_blocked(report_of(some)), "for a while"


@pytest.mark.parametrize("pause_s", [0.0006, 0.015, 0.03, 0.3], ids=lambda s: f"{s * 1000:g}ms")
def test_the_prober_forgives_moments(pause_s):
    moments = itertools.cycle([True, False, True, True, False, False, True])
    assert never_blocked(report_of((pause_s, next(moments)) for _ in range(500)))
