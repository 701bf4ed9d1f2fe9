# SPDX-License-Identifier: MIT
"""Who may come in: allow and deny, by the address that a client comes from."""

import itertools
import time

import pytest

from deadline import eventually
from proxyheader import v1
from servers import echo
from sockets import ask, close_reset, connected, crowd, fate

DENIED = (b"", "reset")
LOG_LIMIT_S = 10


@pytest.fixture
def start(rediald, serve, port):
    """start(lines): a daemon with these lines in its proxy, and listen for the port of both."""
    class Started:
        def __init__(self, lines, listen="127.0.0.1:{}", **kwargs):
            self.port = port()
            self.address = f"127.0.0.1:{self.port}"
            self.server = serve(echo)
            self.daemon = rediald(f"[proxy web]\nlisten = {listen.format(self.port)}\n"
                                  f"server = {self.server.address}\nstandby = 0\n{lines}\n",
                                  **kwargs)
            # Its one probe: from now on the server hears of clients alone.
            self.daemon.wait_event("server_up")
            self.server.wait_accepted(1)

        def fate(self, source, host="127.0.0.1"):
            """What becomes of a client that comes from there and wants its word back."""
            return fate(f"{host}:{self.port}", b"word", half_close=True, source=(source, 0))

    return Started


SERVED = (b"word", "eof")
CASES = {
    "no list": ("", {"127.0.0.1": SERVED, "127.0.0.2": SERVED}),
    "allow alone": ("allow = 127.0.0.2", {"127.0.0.1": DENIED, "127.0.0.2": SERVED}),
    "deny alone": ("deny = 127.0.0.2", {"127.0.0.1": SERVED, "127.0.0.2": DENIED}),
    "longest prefix": ("deny = 127.0.0.2/31 127.0.0.0/9\nallow = 127.0.0.0/24, 127.0.0.3",
                       {"127.0.0.1": SERVED, "127.0.0.2": DENIED, "127.0.0.3": SERVED,
                        "127.0.1.1": DENIED, "127.200.0.1": DENIED}),
    "nobody": ("deny = all", {"127.0.0.1": DENIED}),
    "all but one": ("allow = all\ndeny = 127.0.0.2", {"127.0.0.1": SERVED, "127.0.0.2": DENIED}),
    "another version": ("allow = ::/0", {"127.0.0.1": DENIED}),
}


@pytest.mark.parametrize("lines, clients", CASES.values(), ids=CASES.keys())
def test_address_decides(start, lines, clients):
    web = start(lines)
    assert {source: web.fate(source) for source in clients} == clients
    served = sum(end == SERVED for end in clients.values())
    assert web.server.accepted == 1 + served, "the server heard of who was denied"


def test_dual_stack_listener_tells_ipv4_from_ipv6(start):
    web = start("allow = 127.0.0.2, ::1", listen="*:{}")
    assert web.fate("127.0.0.2") == SERVED
    assert web.fate("127.0.0.1") == DENIED
    assert web.fate("::1", "[::1]") == SERVED
    line = web.daemon.session(reason="denied")
    assert line["client"].startswith("127.0.0.1:"), "an IPv4 client, and no mapped one"


@pytest.mark.parametrize("lines, four, six", [
    ("deny = 0.0.0.0/0", DENIED, SERVED), ("deny = ::/0", SERVED, DENIED),
    ("allow = 0.0.0.0/0", SERVED, DENIED), ("allow = ::/0", DENIED, SERVED),
    ("deny = all", DENIED, DENIED), ("allow = all", SERVED, SERVED),
])
def test_whole_versions_on_a_dual_stack_listener(start, lines, four, six):
    web = start(lines, listen="*:{}")
    assert (web.fate("127.0.0.1"), web.fate("::1", "[::1]")) == (four, six)


def test_unix_clients_are_always_served(start, tmp_path):
    path = f"unix:{tmp_path}/sock"
    web = start("deny = all", listen=f"127.0.0.1:{{}} {path} unix:@access")
    assert web.fate("127.0.0.1") == DENIED
    assert ask(path, b"path") == b"path"
    assert ask("unix:@access", b"abstract") == b"abstract"


def test_each_proxy_has_its_own_lists(rediald, serve, port):
    server, ports = serve(echo), [port() for _ in range(3)]
    more = ("", "allow = all", "deny = none\nallow = 127.0.0.3")
    rediald("[daemon]\naccess_log = all\n[defaults]\nallow = 127.0.0.2\ndeny = 127.0.0.1\n" +
            "".join(f"[proxy p{listen}]\nlisten = 127.0.0.1:{listen}\nserver = {server.address}\n"
                    f"{lines}\n" for listen, lines in zip(ports, more)))
    expected = (("127.0.0.2",), ("127.0.0.2", "127.0.0.3"), ("127.0.0.3",))
    for listen, served in zip(ports, expected):
        for source in ("127.0.0.1", "127.0.0.2", "127.0.0.3"):
            assert fate(f"127.0.0.1:{listen}", b"x", half_close=True, source=(source, 0)) == (
                (b"x", "eof") if source in served else DENIED), (listen, source)


def test_silent_client_is_reset_before_it_says_anything(start):
    web = start("deny = 127.0.0.2")
    assert fate(web.address, source=("127.0.0.2", 0)) == DENIED
    line = web.daemon.session(reason="denied")
    assert line.level == "notice"
    assert line["client"].startswith("127.0.0.2:")
    assert (line["proxy"], line["upstream"], line["server"]) == ("web", "web", "-")
    assert (line["bytes_to_server"], line["attempts"], line["suppressed"]) == ("0", "0", "0")


@pytest.mark.parametrize("lines", ["deny = 127.0.0.2", "allow = 127.0.0.1"])
def test_who_connects_is_meant_not_whom_its_header_names(start, lines):
    web = start(f"{lines}\naccept_proxy = on")
    dest = "127.0.0.9", 80

    def end(peer, client):
        header = v1((client, 1234), dest)
        return fate(web.address, header + b"word", half_close=True, source=(peer, 0))
    assert end("127.0.0.1", "127.0.0.2") == SERVED
    assert end("127.0.0.2", "127.0.0.1") == DENIED
    assert web.daemon.session(reason="denied")["client"].startswith("127.0.0.2:")


def test_denied_client_needs_no_server(rediald, port):
    address = f"127.0.0.1:{port()}"
    daemon = rediald(f"[proxy web]\nlisten = {address}\nserver = 127.0.0.1:{port()}\n"
                     "deny = 127.0.0.2\nmax_waiting = 1\n")
    with connected(address) as waiting:
        assert fate(address, source=("127.0.0.2", 0)) == DENIED
        daemon.session(reason="denied")
        assert not daemon.events("session", reason="queue_full")
        close_reset(waiting)


def test_denied_clients_keep_no_place(start):
    web = start("deny = 127.0.0.2\nmax_sessions = 2")
    assert crowd(20, lambda _: web.fate("127.0.0.2")) == 20 * [DENIED]
    with connected(web.address) as one, connected(web.address) as two:
        for sock in (one, two):
            sock.sendall(b"x")
            assert sock.recv(1) == b"x"
        # Beyond max_sessions nobody is accepted, whoever it is; it is denied when there is room.
    assert web.fate("127.0.0.2") == DENIED


def test_denials_are_told_in_few_lines(start):
    web = start("deny = 127.0.0.2", daemon_keys="workers = 1")
    ports = itertools.count(20000)

    def deny():
        assert fate(web.address, source=("127.0.0.2", next(ports))) == DENIED
        return web.daemon.events("session", reason="denied")

    began = time.monotonic()
    first = eventually(deny)[0]
    for _ in range(100):
        deny()
    assert ask(web.address, b"x") == b"x"
    web.daemon.session(reason="client_closed")  # what was told before it is here by now
    told = len(deny())
    assert told <= 1 + (time.monotonic() - began) / LOG_LIMIT_S
    # The next line counts those that had none.
    second = eventually(lambda: deny()[told:], 2 * LOG_LIMIT_S)[0]
    before = web.daemon.events("session", reason="denied")[told - 1]
    numbers = [int(line["client"].rpartition(":")[2]) for line in (before, second)]
    assert int(second["suppressed"]) == numbers[1] - numbers[0] - 1
    assert (first["client"], first["suppressed"]) == ("127.0.0.2:20000", "0")


def test_no_line_without_an_access_log(rediald, port):
    address = f"127.0.0.1:{port()}"
    daemon = rediald(f"[daemon]\naccess_log = off\n[proxy web]\nlisten = {address}\n"
                     f"server = 127.0.0.1:{port()}\ndeny = all\n")
    assert fate(address) == DENIED
    daemon.terminate()
    assert not daemon.events("session")


def test_thousands_of_ranges(start):
    lines = "\n".join(f"{'allow' if i % 2 else 'deny'} = 127.{i // 250}.{i % 250}.0/24"
                      for i in range(5000))
    web = start(lines)
    for i in (0, 1, 1234, 2501, 4998, 4999):
        assert web.fate(f"127.{i // 250}.{i % 250}.7") == (SERVED if i % 2 else DENIED), i
    assert web.fate("127.200.0.1") == DENIED
