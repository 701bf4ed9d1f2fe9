# SPDX-License-Identifier: MIT
"""The guard where the administrator has changed what local ports and addresses are."""

import subprocess

import pytest

import netns
from servers import echo
from sockets import ask


@pytest.mark.parametrize("reserved, port", [("40004-40010", 40003), ("40000-40006", 40007)],
                         ids=["above", "below"])
@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
def test_server_is_reached_when_the_larger_part_of_the_range_is_reserved(rediald, serve, tmp_path,
                                                                       host, reserved, port):
    # Around the server's port the guard takes the larger part, which has no port to give.
    netns.sysctl("net.ipv4.ip_local_port_range", "40000 40010")
    netns.sysctl("net.ipv4.ip_local_reserved_ports", reserved)
    server = serve(echo, f"{host}:{port}")
    listen = f"unix:{tmp_path}/in.sock"
    daemon = rediald(f"""
[daemon]
port_range_check = off
[proxy web]
listen = {listen}
server = {server.address}
wait_timeout = 3s
""")
    daemon.wait_event("server_up")
    assert ask(listen, b"hello") == b"hello"
    assert not daemon.events("server_down")


def ip(*words):
    subprocess.run(["ip", *words], check=True)


@pytest.mark.parametrize("family, ours, theirs", [
    ("ipv4", "10.1.1.1/32", "10.0.0.5"), ("ipv6", "fd00:1::1/128", "fd00::5"),
], ids=["ipv4", "ipv6"])
def test_nonlocal_bind_makes_no_loop_of_a_server_elsewhere(rediald, port, family, ours, theirs):
    # It lets everybody bind any address: being able to does not make it one of this host.
    netns.sysctl(f"net.{family}.ip_nonlocal_bind", 1)
    # Without nodad an IPv6 address is tentative for a moment, and no route may name it.
    ip("address", "add", ours, "dev", "lo", *(["nodad"] if family == "ipv6" else []))
    ip("route", "add", theirs, "dev", "lo", "src", ours.partition("/")[0])
    number = port()
    host = f"[{theirs}]" if family == "ipv6" else theirs
    daemon = rediald(f"""
[proxy web]
listen = *:{number}
server = {host}:{number}
connect_timeout = 300ms
""")
    assert daemon.wait_event("server_down")["reason"] != "loop"
    assert not daemon.events("loop")


def test_nonlocal_bind_hides_no_loop(rediald, port):
    netns.sysctl("net.ipv4.ip_nonlocal_bind", 1)
    ip("address", "add", "10.1.1.1/32", "dev", "lo")
    number = port()
    daemon = rediald(f"""
[proxy web]
listen = *:{number}
server = 10.1.1.1:{number}
""", ready=False)
    assert daemon.wait_exit() == 78
    assert "loop" in daemon.text()
