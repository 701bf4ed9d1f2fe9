# SPDX-License-Identifier: MIT
"""The warning about ports that the kernel gives to outgoing connections."""

import re
import subprocess

import pytest

import netns

LOW, HIGH = 40000, 40019


@pytest.fixture(autouse=True)
def narrow_range(namespace):
    netns.sysctl("net.ipv4.ip_local_port_range", f"{LOW} {HIGH}")


@pytest.fixture
def started(rediald):
    """A daemon whose log is there as far as ready, when all checks are done."""
    def start(configuration):
        daemon = rediald(configuration)
        daemon.wait_event("ready")
        return daemon
    return start


def proxy(listen, server="unix:/nowhere/server.sock", check=None):
    """A configuration with one proxy."""
    daemon = f"port_range_check = {check}" if check else ""
    return f"[daemon]\n{daemon}\n[proxy web]\nlisten = {listen}\nserver = {server}\n"


LISTEN_CASES = {
    "below": (f"127.0.0.1:{LOW - 1}", False),
    "lowest": (f"127.0.0.1:{LOW}", True),
    "highest": (f"127.0.0.1:{HIGH}", True),
    "above": (f"127.0.0.1:{HIGH + 1}", False),
    "any": (f"0.0.0.0:{LOW + 5}", True),
    "dual": (f"*:{LOW + 5}", True),
    "ipv6_lowest": (f"[::1]:{LOW}", True),
    "ipv6_highest": (f"[::]:{HIGH}", True),
    "ipv6_below": (f"[::1]:{LOW - 1}", False),
    "ipv6_above": (f"[::1]:{HIGH + 1}", False),
}


@pytest.mark.parametrize("listen, risky", LISTEN_CASES.values(), ids=LISTEN_CASES.keys())
def test_listen_port_in_the_range_is_warned_of(started, listen, risky):
    daemon = started(proxy(listen))
    warnings = daemon.events("listen_port_in_range")
    assert len(warnings) == (1 if risky else 0), daemon.text()
    if risky:
        port = listen.rpartition(":")[2]
        assert warnings[0].level == "warning"
        assert warnings[0].has({"proxy": "web", "port": port})
        assert f"{LOW}-{HIGH}" in warnings[0].text
        assert "a port outside the range" in warnings[0].text
        assert f"sysctl -w net.ipv4.ip_local_reserved_ports={port}" in warnings[0].text
    assert not daemon.events("server_port_in_range")


def test_sysctl_line_keeps_what_is_reserved_already(started):
    netns.sysctl("net.ipv4.ip_local_reserved_ports", "8080,9000-9010")
    daemon = started(proxy(f"127.0.0.1:{LOW}"))
    warning = daemon.wait_event("listen_port_in_range")
    assert f"net.ipv4.ip_local_reserved_ports=8080,9000-9010,{LOW}" in warning.text


def test_sysctl_line_of_the_warning_cures_it(started):
    warning = started(proxy(f"127.0.0.1:{LOW}")).wait_event("listen_port_in_range")
    name, value = re.search(r"sysctl -w (\S+)=(\S+)", warning.text).groups()
    netns.sysctl(name, value)
    daemon = started(proxy(f"[::1]:{LOW}"))
    assert [line.level for line in daemon.events("listen_port_in_range")] == ["notice"]


@pytest.mark.parametrize("reserved, listened", [(400, 2), (0, 180)])
def test_sysctl_lines_cure_when_the_list_is_too_long_for_the_log(started, reserved, listened):
    path = "net.ipv4.ip_local_reserved_ports"
    netns.sysctl("net.ipv4.ip_local_port_range", "40000 42000")
    netns.sysctl(path, ",".join(str(2 * n + 1001) for n in range(reserved)))

    def lines(host):
        listens = (f"{host}:{2 * n + 40000}" for n in range(listened))
        return started(proxy("\nlisten = ".join(listens))).events("listen_port_in_range")
    warnings = lines("127.0.0.1")
    assert [line.level for line in warnings] == ["warning"] * listened
    commands = [re.search(r" reserve it: (sysctl .*) event=", line.text)[1] for line in warnings]
    subprocess.run("\n".join(commands), shell=True, check=True, stdout=subprocess.DEVNULL)
    with open(f"/proc/sys/{path.replace('.', '/')}", encoding="ascii") as f:
        assert len(f.read().split(",")) == reserved + listened, "what was there, and these"
    assert [line.level for line in lines("[::1]")] == ["notice"] * listened


@pytest.mark.parametrize("reserved", [str(LOW + 5), f"{LOW}-{HIGH}", f"1,{LOW + 5}-{LOW + 6}"])
def test_reserved_listen_port_gets_a_notice(started, reserved):
    netns.sysctl("net.ipv4.ip_local_reserved_ports", reserved)
    daemon = started(proxy(f"127.0.0.1:{LOW + 5}"))
    assert [line.level for line in daemon.events("listen_port_in_range")] == ["notice"]


def test_other_reserved_ports_are_no_comfort(started):
    netns.sysctl("net.ipv4.ip_local_reserved_ports", f"{LOW + 4},{LOW + 6}")
    daemon = started(proxy(f"127.0.0.1:{LOW + 5}"))
    assert [line.level for line in daemon.events("listen_port_in_range")] == ["warning"]


SERVER_CASES = {
    "loopback": (f"127.0.0.1:{LOW}", True),
    "loopback_ipv6": (f"[::1]:{HIGH}", True),
    "any": (f"0.0.0.0:{LOW + 5}", True),
    "own_address": (f"10.1.1.1:{LOW + 5}", True),
    "mapped": (f"[::ffff:127.0.0.1]:{LOW + 5}", True),
    "below": (f"127.0.0.1:{LOW - 1}", False),
    "above": (f"127.0.0.1:{HIGH + 1}", False),
    "elsewhere": (f"192.0.2.1:{LOW + 5}", False),
    "elsewhere_ipv6": (f"[2001:db8::1]:{LOW + 5}", False),
    "unix": (f"unix:/nowhere/{LOW + 5}", False),
}


@pytest.mark.parametrize("server, risky", SERVER_CASES.values(), ids=SERVER_CASES.keys())
def test_port_of_a_server_on_this_host_is_warned_of(started, tmp_path, server, risky):
    subprocess.run(["ip", "address", "add", "10.1.1.1/32", "dev", "lo"], check=True)
    daemon = started(proxy(f"unix:{tmp_path}/in.sock", server))
    warnings = daemon.events("server_port_in_range")
    assert len(warnings) == (1 if risky else 0), daemon.text()
    if risky:
        port = server.rpartition(":")[2]
        assert warnings[0].level == "warning"
        assert warnings[0].has({"upstream": "web", "address": server, "port": port})
        assert f"{LOW}-{HIGH}" in warnings[0].text
        assert f"sysctl -w net.ipv4.ip_local_reserved_ports={port}" in warnings[0].text
    assert not daemon.events("listen_port_in_range")


def test_reserved_server_port_gets_a_notice(started, tmp_path):
    netns.sysctl("net.ipv4.ip_local_reserved_ports", LOW + 5)
    daemon = started(proxy(f"unix:{tmp_path}/in.sock", f"127.0.0.1:{LOW + 5}"))
    assert [line.level for line in daemon.events("server_port_in_range")] == ["notice"]


@pytest.mark.parametrize("listen, server", [
    (f"127.0.0.1:{LOW + 5}", "unix:/nowhere/server.sock"),
    ("127.0.0.1:7000", f"127.0.0.1:{LOW + 5}"),
], ids=["listen", "server"])
def test_error_turns_the_warning_into_a_refusal(rediald, listen, server):
    daemon = rediald(proxy(listen, server, check="error"), ready=False)
    assert daemon.wait_exit() == 78
    assert "net.ipv4.ip_local_reserved_ports" in daemon.text()
    assert str(LOW + 5) in daemon.text()
    assert not daemon.notifications


def test_error_lets_harmless_and_reserved_ports_pass(started):
    netns.sysctl("net.ipv4.ip_local_reserved_ports", LOW + 5)
    started(proxy(f"127.0.0.1:{LOW + 5}", f"127.0.0.1:{HIGH + 1}", check="error"))


def test_off_says_nothing(started):
    daemon = started(proxy(f"127.0.0.1:{LOW + 5}", f"127.0.0.1:{LOW + 6}", check="off"))
    assert not daemon.events("listen_port_in_range")
    assert not daemon.events("server_port_in_range")


def test_every_proxy_is_named(started):
    daemon = started(f"""
[proxy one]
listen = 127.0.0.1:{LOW + 1}
server = 192.0.2.1:80
[proxy two]
listen = 127.0.0.1:{LOW + 2}, 127.0.0.1:7000
server = 192.0.2.1:80
""")
    warned = [(line["proxy"], line["port"]) for line in daemon.events("listen_port_in_range")]
    assert warned == [("one", str(LOW + 1)), ("two", str(LOW + 2))]
