# SPDX-License-Identifier: MIT
"""A proxy is never its own server."""

import re
import subprocess

import pytest

from deadline import eventually
from netns import SynCounter
from servers import line_echo
from sockets import fate, recv_exactly


def config(**proxies):
    """name=(listen, server) for each proxy; the server may be several."""
    text = ""
    for name, (listen, *servers) in proxies.items():
        lines = "\n".join(f"server = {server}" for server in servers)
        text += f"[proxy {name}]\nlisten = {listen}\n{lines}\nwait_timeout = 1s\n"
    return text


LOOPS = {
    "itself": config(a=("127.0.0.1:7000", "127.0.0.1:7000")),
    "itself_ipv6": config(a=("[::1]:7000", "[::1]:7000")),
    "itself_unix": config(a=("unix:/nowhere/a.sock", "unix:/nowhere/a.sock")),
    "itself_abstract": config(a=("unix:@a", "unix:@a")),
    "wildcard": config(a=("0.0.0.0:7000", "127.0.0.1:7000")),
    "wildcard_other_loopback": config(a=("0.0.0.0:7000", "127.0.0.2:7000")),
    "wildcard_own_address": config(a=("0.0.0.0:7000", "10.1.1.1:7000")),
    "wildcard_ipv6": config(a=("[::]:7000", "[::1]:7000")),
    "dual": config(a=("*:7000", "127.0.0.1:7000")),
    "dual_ipv6": config(a=("*:7000", "[::1]:7000")),
    "to_wildcard": config(a=("127.0.0.1:7000", "0.0.0.0:7000")),
    "mapped": config(a=("127.0.0.1:7000", "[::ffff:127.0.0.1]:7000")),
    "second_server": config(a=("127.0.0.1:7000", "127.0.0.1:8000", "127.0.0.1:7000")),
    "second_listener": config(a=("127.0.0.1:7001, 127.0.0.1:7000", "127.0.0.1:7000")),
    "two": config(a=("127.0.0.1:7000", "127.0.0.1:7001"), b=("127.0.0.1:7001", "127.0.0.1:7000")),
    "two_mixed": config(a=("0.0.0.0:7000", "unix:@b"), b=("unix:@b", "127.0.0.1:7000")),
    "three": config(a=("127.0.0.1:7000", "127.0.0.1:7001"), b=("127.0.0.1:7001", "127.0.0.1:7002"),
                    c=("127.0.0.1:7002", "127.0.0.1:7000")),
    "beside_a_good_one": config(good=("127.0.0.1:7005", "127.0.0.1:8000"),
                                a=("127.0.0.1:7000", "127.0.0.1:7000")),
}


@pytest.mark.parametrize("text", LOOPS.values(), ids=LOOPS.keys())
def test_cycle_is_a_configuration_error(rediald, text):
    subprocess.run(["ip", "address", "add", "10.1.1.1/32", "dev", "lo"], check=True)
    daemon = rediald(text, ready=False)
    assert daemon.wait_exit() == 78, daemon.text()
    assert not daemon.notifications
    assert re.search(r":\d+: \[proxy [abc]\] server: .*loop", daemon.text()), daemon.text()


def test_cycle_through_an_upstream_section_is_found(rediald):
    daemon = rediald("""
[proxy a]
listen = 127.0.0.1:7000
upstream = u
[upstream u]
server = 127.0.0.1:7000
""", ready=False)
    assert daemon.wait_exit() == 78, daemon.text()


NO_LOOPS = {
    "another_address": config(a=("127.0.0.1:7000", "127.0.0.2:7000")),
    "another_port": config(a=("0.0.0.0:7000", "127.0.0.1:7001")),
    "another_family": config(a=("[::]:7000", "127.0.0.1:7000")),
    "elsewhere": config(a=("0.0.0.0:7000", "192.0.2.1:7000")),
    "a_chain": config(a=("127.0.0.1:7000", "127.0.0.1:7001"), b=("127.0.0.1:7001", "unix:@c"),
                      c=("unix:@c", "127.0.0.1:8000")),
    "two_into_one": config(a=("127.0.0.1:7000", "127.0.0.1:7002"),
                           b=("127.0.0.1:7001", "127.0.0.1:7002"),
                           c=("127.0.0.1:7002", "127.0.0.1:8000")),
}


@pytest.mark.parametrize("text", NO_LOOPS.values(), ids=NO_LOOPS.keys())
def test_what_only_looks_like_a_cycle_starts(rediald, text):
    rediald(text)


def test_chained_proxies_serve(rediald, serve, connect):
    server = serve(line_echo(b"end"))
    daemon = rediald(config(a=("127.0.0.1:7000", "[::1]:7001"), b=("[::1]:7001", "unix:@c"),
                            c=("unix:@c", server.address)))
    client = connect("127.0.0.1:7000")
    client.sendall(b"hello\n")
    assert recv_exactly(client, 10) == b"end hello\n"
    client.close()
    daemon.standby = 9  # what one keeps ready is a session of the next, with two ends
    for name in "abc":
        # The probes of the ones before it are sessions, too: without a byte.
        daemon.session(proxy=name, bytes_to_client=10)


def test_loop_that_a_new_address_makes_is_refused_at_the_dial(rediald):
    # 10.9.9.9 is elsewhere, and cannot be reached, until the host gets that address.
    daemon = rediald("""
[proxy web]
listen = 0.0.0.0:7000
server = 10.9.9.9:7000
wait_timeout = 2s
backoff_max = 200ms
""")
    daemon.wait_event("server_down", reason="unreachable")
    subprocess.run(["ip", "address", "add", "10.9.9.9/32", "dev", "lo"], check=True)
    with SynCounter(7000) as syns:
        assert fate("127.0.0.1:7000", b"MAGIC") == (b"", "reset")
        assert syns.count == 1, "the client's own"
    assert not daemon.events("server_up")
    daemon.exactly(1, "session")
    eventually(lambda: daemon.events("loop") or daemon.events("server_down", reason="loop"), 5)
