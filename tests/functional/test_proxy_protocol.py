# SPDX-License-Identifier: MIT
"""The PROXY protocol: what servers are sent, and what clients may send."""

import itertools
import signal
import socket
import threading
import time

import pytest

from deadline import deadline, pass_time
from helpers import NO_HEADER
from proxyheader import (LOCAL, NOBODY, UNKNOWN, VERSIONS, as_text, ends_of, v1, v2, v2_raw,
                         wait_taken)
from servers import echo, silent
from sockets import (ask, close_reset, connected, crowd, fate, recv_all, recv_exactly,
                     recv_until_end)

CLAIMED = ("192.0.2.7", 1234), ("198.51.100.9", 443)
CLAIMED6 = ("2001:db8::7", 1234), ("2001:db8::9", 443)
GOOD = {
    "v1": v1(*CLAIMED), "v1_ipv6": v1(*CLAIMED6), "v1_unknown": UNKNOWN,
    "v2": v2(*CLAIMED), "v2_ipv6": v2(*CLAIMED6), "v2_local": LOCAL,
    "v2_tlvs": v2(*CLAIMED, b"\x04\0\x05noise\x03\0\x04\xde\xad\xbe\xef"),
}

HEADER_TIMEOUT_S = 5

both_versions = pytest.mark.parametrize("version", VERSIONS)


class Recorder:
    """A server handler that keeps what each connection brought, however it ended."""

    def __init__(self):
        self._said = []
        self._changed = threading.Condition()

    def __call__(self, sock):
        data, _ = recv_until_end(sock)
        with self._changed:
            self._said.append(data)
            self._changed.notify_all()

    @property
    def said(self):
        """What was brought by those that brought something."""
        with self._changed:
            return [data for data in self._said if data]

    def wait(self, count=1):
        """Wait until there are so many of them; what they said."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.said) >= count, deadline(10)), self._said
            return self.said


def proxy(listen, server, *keys):
    lines = "\n".join(keys)
    return f"[proxy web]\nlisten = {listen}\nserver = {server}\n{lines}\n"


@pytest.fixture
def address(port):
    return f"127.0.0.1:{port()}"


@pytest.fixture
def receiver(rediald, serve, address):
    """A daemon that requires headers at the address, before an echo server."""
    return rediald(proxy(address, serve(echo).address, "accept_proxy = on"))


def say(address, data):
    """A client that sends data and is done; its ends as a header tells them."""
    with connected(address) as client:
        ends = ends_of(client)
        client.sendall(data)
        client.shutdown(socket.SHUT_WR)
        assert recv_all(client) == b""
    return ends


# Sent

@both_versions
@pytest.mark.parametrize("listen, at", [
    ("127.0.0.1:{port}", "127.0.0.1:{port}"), ("[::1]:{port}", "[::1]:{port}"),
    ("*:{port}", "127.0.0.1:{port}"), ("*:{port}", "[::1]:{port}"),
    ("0.0.0.0:{port}", "127.0.0.3:{port}")],
    ids=["ipv4", "ipv6", "dual_from_ipv4", "dual_from_ipv6", "wildcard"])
def test_server_is_told_the_client_and_where_it_connected_to(rediald, serve, port, version, listen,
                                                             at):
    number, server = port(), Recorder()
    daemon = rediald(proxy(listen.format(port=number), serve(server).address,
                           f"send_proxy = {version}"))
    ends = say(at.format(port=number), b"hello")
    assert server.wait() == [VERSIONS[version](*ends) + b"hello"]
    assert daemon.session(client=as_text(ends[0]))["bytes_to_server"] == "5"


@both_versions
def test_unix_client_has_no_address_to_tell(rediald, serve, version):
    server = Recorder()
    rediald(proxy("unix:@in", serve(server).address, f"send_proxy = {version}"))
    with connected("unix:@in") as client:
        client.sendall(b"hello")
        client.shutdown(socket.SHUT_WR)
        assert recv_all(client) == b""
    assert server.wait() == [NOBODY[version] + b"hello"]


@both_versions
def test_unix_server_is_told_as_well(rediald, serve, address, version):
    server = Recorder()
    rediald(proxy(address, serve(server, "unix:@out").address, f"send_proxy = {version}"))
    ends = say(address, b"hello")
    assert server.wait() == [VERSIONS[version](*ends) + b"hello"]


@both_versions
def test_header_does_not_wait_for_the_clients_first_byte(rediald, serve, connect, address,
                                                         version):
    def greet(sock):
        sock.sendall(b"220 " + sock.recv(200))
        silent(sock)
    rediald(proxy(address, serve(greet).address, f"send_proxy = {version}"))
    client = connect(address)
    greeting = b"220 " + VERSIONS[version](*ends_of(client))
    assert recv_exactly(client, len(greeting)) == greeting


@both_versions
def test_clients_that_waited_are_told_of_once(rediald, serve, port, address, version):
    """Some of them get the connection of the probe that found the server again."""
    behind, server = f"127.0.0.1:{port()}", Recorder()
    daemon = rediald(proxy(address, behind, f"send_proxy = {version}", "backoff_max = 100ms"),
                     daemon_keys="workers = 1")
    daemon.wait_event("server_down")
    clients = [connected(address) for _ in range(5)]
    expected = [VERSIONS[version](*ends_of(client)) + b"%d" % n
                for n, client in enumerate(clients)]
    for n, client in enumerate(clients):
        client.sendall(b"%d" % n)
        client.shutdown(socket.SHUT_WR)
    serve(server, behind)
    for client in clients:
        assert recv_all(client) == b""
        client.close()
    assert sorted(server.wait(5)) == sorted(expected)
    daemon.session(attempts=0)


def test_probe_says_nothing(rediald, serve, address):
    seen = []
    server = serve(lambda sock: seen.append(recv_all(sock)))
    daemon = rediald(proxy(address, server.address, "send_proxy = v1"))
    daemon.wait_event("server_up")
    server.wait_accepted(1)
    server.wait_live(0)
    assert seen == [b""]


def test_header_that_cannot_be_sent_is_the_servers_failure(rediald, serve, address):
    recorder = Recorder()
    server = serve(recorder)
    daemon = rediald(proxy(address, server.address, "send_proxy = v2"), prefix=NO_HEADER)
    assert fate(address, b"hello") == (b"", "reset")
    assert daemon.session(reason="server_reset")["bytes_to_server"] == "0"
    server.wait_live(0)
    assert not recorder.said, "the server could take it for the header"


@both_versions
def test_server_that_resets_at_once(rediald, serve, address, version):
    daemon = rediald(proxy(address, serve(close_reset).address, f"send_proxy = {version}",
                           "when_down = reset"))
    for _ in range(50):
        assert fate(address, b"hello") == (b"", "reset")
    daemon.session(count=50)
    assert {line["reason"] for line in daemon.events("session")} <= {
        "server_reset", "client_reset", "no_server"}


# Required

@pytest.mark.parametrize("header", GOOD.values(), ids=GOOD)
def test_header_is_taken_and_not_a_byte_more(receiver, address, header):
    del receiver
    assert ask(address, header + b"payload") == b"payload"
    assert ask(address, header + header) == header
    assert ask(address, header) == b""


@pytest.mark.parametrize("header", GOOD.values(), ids=GOOD)
def test_header_cut_in_two_anywhere(receiver, address, header):
    del receiver

    def send(n):
        with connected(address) as client:
            client.sendall(header[:n])
            wait_taken(client)
            client.sendall(header[n:] + b"payload")
            client.shutdown(socket.SHUT_WR)
            return recv_all(client)

    def cut(n):
        began = time.monotonic()
        try:
            return send(n)
        except OSError:
            # Not in time for the daemon: this machine has much else to do.
            assert time.monotonic() - began > HEADER_TIMEOUT_S
            return send(n)
    assert crowd(len(header), cut, 8) == len(header) * [b"payload"]


@pytest.mark.parametrize("header", GOOD.values(), ids=GOOD)
def test_header_byte_by_byte(receiver, connect, address, header):
    client = connect(address)
    for n in range(len(header)):
        client.sendall(header[n:n + 1])
        wait_taken(client)
    client.sendall(b"payload")
    assert recv_exactly(client, 7) == b"payload"
    client.close()
    receiver.session()


def test_half_a_header_does_not_spin_the_loop(receiver, connect, address):
    client = connect(address)
    client.sendall(GOOD["v1"][:20])
    wait_taken(client)
    before = receiver.cpu_seconds()
    pass_time(1)
    assert receiver.cpu_seconds() - before < 0.3, "it spins"
    client.sendall(GOOD["v1"][20:] + b"payload")
    assert recv_exactly(client, 7) == b"payload"


def test_tlvs_of_the_greatest_size(receiver, connect, address):
    del receiver
    header = v2(*CLAIMED, (0xffff - 12) * b"\0")
    assert len(header) == 16 + 0xffff
    assert ask(address, header + b"payload") == b"payload"
    client = connect(address)
    for at in range(0, len(header), 9000):
        client.sendall(header[at:at + 9000])
        wait_taken(client)
    client.sendall(b"payload")
    assert recv_exactly(client, 7) == b"payload"


def test_unix_client_may_be_a_proxy(rediald, serve):
    daemon = rediald(proxy("unix:@in", serve(echo).address, "accept_proxy = on"))
    with connected("unix:@in") as client:
        for byte in GOOD["v2_tlvs"]:
            client.sendall(bytes([byte]))
        client.sendall(b"payload")
        assert recv_exactly(client, 7) == b"payload"
    daemon.session(client=as_text(CLAIMED[0]))


@pytest.mark.parametrize("header, client", [
    (GOOD["v1"], CLAIMED[0]), (GOOD["v1_ipv6"], CLAIMED6[0]), (GOOD["v2"], CLAIMED[0]),
    (GOOD["v2_ipv6"], CLAIMED6[0]), (v1(("::ffff:192.0.2.7", 9), CLAIMED6[1]), ("192.0.2.7", 9)),
], ids=["v1", "v1_ipv6", "v2", "v2_ipv6", "mapped"])
def test_log_has_the_client_of_the_header(receiver, address, header, client):
    ask(address, header + b"payload")
    assert receiver.session(client=as_text(client))["bytes_to_server"] == "7"


@pytest.mark.parametrize("header", [
    UNKNOWN, b"PROXY UNKNOWN 192.0.2.7 ...\r\n", LOCAL, v2_raw(0, 0x11, v2(*CLAIMED)[16:]),
    v2_raw(1, 0, b""), v2_raw(1, 0x12, v2(*CLAIMED)[16:]), v2_raw(1, 0x31, 216 * b"/")],
    ids=["unknown", "unknown_with_more", "local", "local_with_more", "unspec", "udp", "unix"])
def test_header_without_a_client_leaves_the_connections_own(rediald, serve, address, header):
    server = Recorder()
    daemon = rediald(proxy(address, serve(server).address, "accept_proxy = on", "send_proxy = v1"))
    ends = say(address, header + b"payload")
    assert server.wait() == [v1(*ends) + b"payload"]
    daemon.session(client=as_text(ends[0]))


@pytest.mark.parametrize("source, dest", [CLAIMED, CLAIMED6], ids=["ipv4", "ipv6"])
@pytest.mark.parametrize("came, goes", itertools.product(VERSIONS, VERSIONS))
def test_what_came_is_sent_on(rediald, serve, address, came, goes, source, dest):
    server = Recorder()
    rediald(proxy(address, serve(server).address, "accept_proxy = on", f"send_proxy = {goes}"))
    say(address, VERSIONS[came](source, dest) + b"payload")
    assert server.wait() == [VERSIONS[goes](source, dest) + b"payload"]


@both_versions
def test_chain_of_two_keeps_the_client(rediald, serve, port, address, version):
    middle, server = f"127.0.0.1:{port()}", Recorder()
    second = rediald(proxy(middle, serve(server).address, "accept_proxy = on",
                           f"send_proxy = {version}"))
    rediald(proxy(address, middle, f"send_proxy = {version}"))
    ends = say(address, b"hello")
    assert server.wait() == [VERSIONS[version](*ends) + b"hello"]
    second.session(client=as_text(ends[0]))


def test_chain_inside_one_daemon(rediald, serve, port, address):
    middle, server = f"127.0.0.1:{port()}", Recorder()
    rediald(f"""
[proxy outer]
listen = {address}
server = {middle}
send_proxy = v2
[proxy inner]
listen = {middle}
server = {serve(server).address}
accept_proxy = on
send_proxy = v1
""")
    ends = crowd(20, lambda _n: say(address, b"hello"))
    assert sorted(server.wait(20)) == sorted(v1(*each) + b"hello" for each in ends)


# Refused

@pytest.mark.parametrize("data, error", [
    (b"GET / HTTP/1.1\r\n\r\n", "it does not begin with a PROXY header"),
    (b"PROXY UNKNOWN" + 95 * b" ", "the line of version 1 is longer than 107 bytes"),
    (GOOD["v1"][:-2] + b"\n", "the line of version 1 does not end with CRLF"),
    (b"PROXY TCP4 192.0.2.7 192.0.2.8 1 65536\r\n",
     "the line of version 1 is not `PROXY TCP4', or TCP6, with two addresses and two ports"),
    (b"\r\n\r\n\0\r\nQUIT\n\x11\x11\0\0", "the version is not 2, or the command neither LOCAL "
     "nor PROXY"),
    (v2_raw(1, 0x11, b"short"), "the header of version 2 is too short for its addresses"),
], ids=["none", "overlong", "lf", "port", "version", "short"])
def test_bad_header_is_reset_and_told(rediald, serve, address, data, error):
    recorder = Recorder()
    server = serve(recorder)
    daemon = rediald(proxy(address, server.address, "accept_proxy = on", "standby = 0"))
    assert fate(address, data + b"payload") == (b"", "reset")
    line = daemon.wait_event("bad_proxy_header", proxy="web", error=error, suppressed=0)
    assert line.level == "warning"
    assert daemon.session(reason="bad_proxy_header", client=line["client"])["attempts"] == "0"
    server.wait_live(0)
    assert not recorder.said


@pytest.mark.parametrize("header", [GOOD["v1"], GOOD["v2"], GOOD["v2_tlvs"]],
                         ids=["v1", "v2", "v2_tlvs"])
def test_end_inside_a_header_is_a_bad_one(receiver, address, header):
    for n in 1, len(header) - 1:
        assert fate(address, header[:n], half_close=True) == (b"", "reset")
    receiver.session(reason="bad_proxy_header", count=2)
    receiver.wait_event("bad_proxy_header", error="the client closed before its end")


def test_many_bad_headers_are_one_line(rediald, serve, address):
    daemon = rediald(proxy(address, serve(echo).address, "accept_proxy = on"),
                     daemon_keys="workers = 1")
    for _ in range(50):
        assert fate(address, b"GET / HTTP/1.1\r\n\r\n") == (b"", "reset")
    daemon.session(reason="bad_proxy_header", count=50)
    assert len(daemon.events("bad_proxy_header")) == 1


def test_silence_is_reset_after_five_seconds(receiver, address):
    began = time.monotonic()

    def be_silent(n):
        with connected(address) as client:
            client.sendall(GOOD["v2_tlvs"][:n])
            return recv_until_end(client), time.monotonic() - began
    results = crowd(len(GOOD["v2_tlvs"]), be_silent)
    assert {end for end, _ in results} == {(b"", "reset")}
    assert min(after for _, after in results) >= 4.9
    receiver.wait_event("bad_proxy_header", error="no complete header in time")
    receiver.session(reason="bad_proxy_header", count=len(results))


def test_deadline_is_for_the_header_alone(receiver, connect, address):
    del receiver
    client = connect(address)
    client.sendall(GOOD["v2"])
    pass_time(6)
    client.sendall(b"payload")
    assert recv_exactly(client, 7) == b"payload"


def test_who_only_looks_whether_the_port_is_open_is_no_fault(receiver, address):
    connected(address).close()
    receiver.session(reason="client_closed", attempts=0)
    assert not receiver.events("bad_proxy_header")


def test_client_that_resets_instead_of_a_header(receiver, address):
    client = connected(address)
    client.sendall(GOOD["v1"][:10])
    wait_taken(client)
    close_reset(client)
    receiver.session(reason="client_reset", attempts=0)
    assert not receiver.events("bad_proxy_header")


def test_drain_cuts_clients_without_a_header(rediald, serve, connect, address):
    daemon = rediald("[daemon]\naccess_log = all\ndrain_timeout = 100ms\n" +
                     proxy(address, serve(echo).address, "accept_proxy = on"))
    client = connect(address)
    client.sendall(GOOD["v1"][:10])
    wait_taken(client)
    daemon.signal(signal.SIGTERM)
    assert recv_until_end(client) == (b"", "reset")
    daemon.session(reason="drain")
    daemon.terminate(descriptors=False)


def test_many_clients_on_many_workers(rediald, serve, address):
    server = Recorder()
    rediald(proxy(address, serve(server).address, "accept_proxy = on", "send_proxy = v2"),
            daemon_keys="workers = 4")
    ends = [((f"192.0.2.{n}", 1 + n), CLAIMED[1]) for n in range(200)]
    crowd(200, lambda n: say(address, v1(*ends[n]) + b"%d" % n), 16)
    assert sorted(server.wait(200)) == sorted(v2(*each) + b"%d" % n for n, each in enumerate(ends))
