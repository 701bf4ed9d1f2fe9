# SPDX-License-Identifier: MIT
"""redialctl doctor: every message, provoked in a namespace of its own."""

import json
import re
import resource
import subprocess

import pytest

import fakeadmin
import netns
from binary import BINARY_IS_SANITIZED
from ctl import Terminal, redialctl, redialctl_of
from fakeadmin import FakeAdmin
from helpers import NO_NETLINK, NO_PROC, fake_proc, python
from servers import echo
from sockets import connected
from test_bind import HOLDER, OUTGOING

LOW, HIGH = 40000, 40019
# Ends a connection to itself as ordinary programs do, which leaves TIME_WAIT.
SELF_CONNECTED_AND_CLOSED = """
import socket, sys
s = socket.socket()
s.bind(("127.0.0.1", int(sys.argv[1])))
s.connect(("127.0.0.1", int(sys.argv[1])))
s.close()
print("ready", flush=True)
sys.stdin.read()
"""
CHECKS = ["configuration", "self_connected", "port_range", "port_held", "descriptors", "backlog",
          "pipes", "migration"]


def self_connected(port, host="127.0.0.1"):
    """A program that holds the port by a connection to itself."""
    return python(HOLDER, host, port, host, port)


@pytest.fixture(autouse=True)
def narrow_range(namespace):
    netns.sysctl("net.ipv4.ip_local_port_range", f"{LOW} {HIGH}")


@pytest.fixture
def examine(tmp_path):
    """examine(configuration, ...): (result, document): what the doctor says of it, with --json."""
    def start(configuration=None, *args, socket=None, **kwargs):
        arguments = list(args)
        if configuration is not None:
            path = tmp_path / "rediald.conf"
            path.write_text(configuration, encoding="utf-8")
            arguments += ["-c", path]
        result = redialctl("doctor", "--json", *arguments, socket=socket or f"{tmp_path}/no.sock", **kwargs)
        return result, json.loads(result.out)
    return start


def proxy(listen="127.0.0.1:7000", server="127.0.0.1:8000", daemon="", more=""):
    return f"[daemon]\n{daemon}\n[proxy web]\nlisten = {listen}\nserver = {server}\n{more}\n"


def findings(document, check, result=None):
    return [f for f in document["findings"]
            if f["check"] == check and result in (None, f["result"])]


def only(document, check, result):
    """The one finding of that check, which has that result."""
    found = findings(document, check)
    assert [f["result"] for f in found] == [result], found
    return found[0]


def test_nothing_to_find_ends_with_0(examine, tmp_path):
    result, document = examine(proxy())
    assert result.status == 0, result
    assert document["schema"] == 1 and document["ok"] is True
    assert [f["check"] for f in document["findings"]] == CHECKS
    assert {f["result"] for f in document["findings"]} == {"ok"}
    assert document["reserve"] is None
    plain = redialctl("doctor", "-c", tmp_path / "rediald.conf")
    assert plain.status == 0
    assert plain.out.endswith("\nnothing needs attention\n")


# The configuration

def test_without_a_configuration_the_host_is_examined(examine):
    result, document = examine()
    assert result.status == 0
    assert "only the host was examined" in only(document, "configuration", "advice")["what"]
    assert [f["check"] for f in document["findings"]] == CHECKS[:2]


def test_bad_configuration_is_told_with_status_78(examine):
    result, document = examine("[proxy web]\nlistn = x\n\x1b[2J\n")
    assert result.status == 78
    finding = only(document, "configuration", "problem")
    assert "unknown key" in finding["errors"][0] and "rediald.conf:2:" in finding["errors"][0]
    assert not re.search(r"[\x00-\x09\x0b-\x1f]", result.out)


def test_missing_file_is_told_with_status_78(tmp_path):
    result = redialctl("doctor", "-c", tmp_path / "none.conf")
    assert result.status == 78
    assert "none.conf" in result.out


# Sockets that are their own peers

@pytest.mark.parametrize("prefix", [(), NO_NETLINK], ids=["sock_diag", "proc"])
def test_self_connected_sockets_are_named_with_their_process(examine, prefix):
    with self_connected(40001) as one, self_connected(40002, "::1") as two:
        result, document = examine(prefix=prefix)
    assert result.status == 1
    found = {f["what"]: f for f in findings(document, "self_connected", "problem")}
    assert len(found) == 2
    for process, address, port in ((one, "127.0.0.1:40001", 40001), (two, "[::1]:40002", 40002)):
        finding = next(f for what, f in found.items() if what.startswith(
            f"{address} is connected to itself, by pid {process.pid} (python3"))
        assert f"no server can listen on port {port}" in finding["means"]
        assert finding["commands"] == [f"kill {process.pid}"]


def test_the_command_ends_the_self_connection(examine):
    with self_connected(40001):
        _, document = examine()
        subprocess.run(only(document, "self_connected", "problem")["commands"][0].split(), check=True)
    result, document = examine()
    assert result.status == 0
    assert "no TCP socket is connected to itself" in only(document, "self_connected", "ok")["what"]


def test_what_a_self_connection_leaves_is_told(examine):
    with python(SELF_CONNECTED_AND_CLOSED, 40003):
        result, document = examine()
    assert result.status == 1
    finding = only(document, "self_connected", "warning")
    assert finding["what"].startswith("127.0.0.1:40003 is held by what is left of a socket")
    assert "up to 60 s" in finding["means"]


def test_process_of_another_user_is_told_as_out_of_sight(examine, tmp_path):
    if not netns.is_real_root():
        pytest.skip("needs root, to be two users")
    with self_connected(40001):
        result = redialctl_of("nobody", "doctor", "--json")
    finding = only(json.loads(result.out), "self_connected", "problem")
    assert "by a process of user 0 that is out of sight" in finding["what"]
    assert "as root" in finding["do"]


def test_other_connections_are_no_self_connections(examine, serve, port):
    server = serve(echo, f"127.0.0.1:{port()}")
    with connected(server.address), connected(server.address):
        _, document = examine()
    only(document, "self_connected", "ok")


def test_a_host_whose_sockets_cannot_be_seen_is_told(examine):
    if BINARY_IS_SANITIZED:
        pytest.skip("a sanitizer cannot do without /proc")
    result, document = examine(prefix=(*NO_PROC, *NO_NETLINK))
    assert "cannot be seen" in only(document, "self_connected", "advice")["what"]
    assert result.status == 0


# Ports in the range

def test_listen_port_in_the_range_is_told_with_the_cure(examine):
    netns.sysctl("net.ipv4.ip_local_reserved_ports", "8080,9000-9010")
    result, document = examine(proxy(f"127.0.0.1:{LOW}, *:{HIGH}, 127.0.0.1:{HIGH + 1}"))
    assert result.status == 1
    first, second = findings(document, "port_range", "warning")
    assert first["what"] == (f"proxy web listens on 127.0.0.1:{LOW}, whose port is in the ephemeral "
                             f"range {LOW}-{HIGH}")
    assert "rediald cannot start" in first["means"] and "reserve it" in first["do"]
    assert f"*:{HIGH}" in second["what"]
    ports = f"8080,9000-9010,{LOW},{HIGH}"
    assert document["reserve"] == {
        "ports": ports,
        "now": f"sysctl -w net.ipv4.ip_local_reserved_ports={ports}",
        "at_boot": f"echo 'net.ipv4.ip_local_reserved_ports = {ports}' >/etc/sysctl.d/60-redial.conf",
        "docker": f"docker run --sysctl net.ipv4.ip_local_reserved_ports={ports}",
        "kubernetes": "spec:\n  securityContext:\n    sysctls:\n"
                      "    - name: net.ipv4.ip_local_reserved_ports\n"
                      f"      value: \"{ports}\"",
    }


def test_port_of_the_admin_interface_counts_too(examine):
    result, document = examine(proxy(daemon=f"admin = unix:/run/x.sock, 127.0.0.1:{LOW + 1}"))
    assert result.status == 1
    assert only(document, "port_range", "warning")["what"].startswith(
        f"the admin interface listens on 127.0.0.1:{LOW + 1}, whose port is in the ephemeral range")
    assert document["reserve"]["ports"] == str(LOW + 1)


def test_the_cure_cures(examine):
    configuration = proxy(f"127.0.0.1:{LOW}", f"127.0.0.1:{LOW + 3}")
    _, document = examine(configuration)
    name, value = re.search(r"sysctl -w (\S+)=(\S+)", document["reserve"]["now"]).groups()
    netns.sysctl(name, value)
    result, document = examine(configuration)
    assert result.status == 0
    assert document["reserve"] is None
    assert [f["what"] for f in findings(document, "port_range", "ok")] == [
        f"proxy web: port {LOW} of 127.0.0.1:{LOW} is in the ephemeral range, but reserved",
        f"upstream web: port {LOW + 3} of 127.0.0.1:{LOW + 3} is in the ephemeral range, but reserved"]


@pytest.mark.parametrize("server, risky", [
    (f"127.0.0.1:{LOW}", True), (f"[::1]:{LOW}", True), (f"localhost:{LOW}", True),
    (f"127.0.0.1:{LOW - 1}", False), (f"192.0.2.1:{LOW}", False), ("unix:/run/x.sock", False),
])
def test_server_port_in_the_range_is_told_when_it_is_on_this_host(examine, server, risky):
    result, document = examine(proxy(server=server))
    assert result.status == (1 if risky else 0)
    if risky:
        finding = only(document, "port_range", "warning")
        assert f"upstream web has a server on this host, {server}, whose port" in finding["what"]
        assert "talks to itself" in finding["means"]
        assert document["reserve"]["ports"] == str(LOW)
    else:
        assert "no configured port is in the ephemeral range" in only(document, "port_range", "ok")["what"]


def test_name_that_cannot_be_looked_up_is_told(examine):
    result, document = examine(proxy(server=f"no-such-name.invalid:{LOW}"))
    assert result.status == 0
    finding = findings(document, "port_range", "advice")[0]
    assert "upstream web: no-such-name.invalid cannot be looked up: " in finding["what"]
    assert f"Port {LOW} is in the ephemeral range" in finding["means"]


def test_socket_of_systemds_is_told(examine):
    result, document = examine(proxy(listen="systemd:web"))
    assert result.status == 0
    finding = findings(document, "port_range", "advice")[0]
    assert "proxy web listens on systemd:web, whose port is not known here" in finding["what"]
    assert f"outside {LOW}-{HIGH}" in finding["do"]


def test_range_that_cannot_be_read_is_told(examine):
    _, document = examine(proxy(), prefix=fake_proc(net__ipv4__ip_local_port_range="broken"))
    finding = findings(document, "port_range", "advice")[0]
    assert "net.ipv4.ip_local_port_range cannot be read: 32768-60999 is assumed" in finding["what"]
    assert "holds for that range" in finding["means"]


# Ports that are held

@pytest.mark.parametrize("kind, user", [("listen", "rediald"), ("server", "the server")])
def test_port_held_by_a_self_connection_is_a_problem(examine, port, kind, user):
    held = port()
    with self_connected(held) as thief:
        result, document = examine(proxy(**{kind: f"127.0.0.1:{held}"}))
    assert result.status == 1
    finding = only(document, "port_held", "problem")
    section = "proxy" if kind == "listen" else "upstream"
    assert finding["what"].startswith(
        f"{section} web: nobody listens on 127.0.0.1:{held}, and the port is held by a self-connected "
        f"socket of pid {thief.pid} (python3")
    assert finding["means"] == f"Until that is closed {user} cannot listen there."


def test_port_held_by_an_outgoing_connection_is_warned_of(examine, serve, port):
    held, other = port(), serve(echo)
    with python(OUTGOING, held, other.port) as thief:
        result, document = examine(proxy(server=f"127.0.0.1:{held}"))
        assert result.status == 1
        finding = only(document, "port_held", "warning")
        assert f"held by a connection to {other.address} of pid {thief.pid} (python3" in finding["what"]
        assert "Have that process close it" in finding["do"]
    result, document = examine(proxy(server=f"127.0.0.1:{held}"))
    assert result.status == 0
    finding = only(document, "port_held", "advice")
    assert "held by a connection in TIME_WAIT" in finding["what"]
    assert "For up to 60 s the server cannot listen there, unless it sets SO_REUSEADDR" in finding["means"]


def test_server_with_clients_does_not_hold_its_own_port(examine, serve, port):
    server = serve(echo, f"127.0.0.1:{port()}")
    with connected(server.address):
        result, document = examine(proxy(server=server.address))
    assert result.status == 0
    only(document, "port_held", "ok")


# Limits

def limited(soft, hard=None):
    return lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard or soft))


def test_few_descriptors_are_told_against_max_sessions(examine):
    configuration = proxy(more="max_sessions = 4000\nstandby = 100")
    result, document = examine(configuration, preexec_fn=limited(500, 2000))
    assert result.status == 1
    finding = only(document, "descriptors", "warning")
    assert re.match(r"a rediald that is started from here may have 2000 descriptors: room for \d+ sessions "
                    r"and 100 standby connections, where max_sessions and standby ask for 4000 and 100$",
                    finding["what"])
    assert "the backlog" in finding["means"]
    needed = int(re.search(r"LimitNOFILE=(\d+)", finding["commands"][0])[1])
    assert finding["commands"][1] == f"docker run --ulimit nofile={needed}:{needed}"
    assert finding["commands"][2] == f"ulimit -Hn {needed}"
    result, document = examine(configuration, preexec_fn=limited(needed))
    assert result.status == 0
    only(document, "descriptors", "ok")


def test_standby_connections_that_do_not_fit_are_told(examine):
    result, document = examine(proxy(more="standby = 1024"), preexec_fn=limited(1024))
    assert result.status == 1
    assert "where max_sessions and standby ask for 0 and 1024" in \
        only(document, "descriptors", "warning")["what"]


def test_few_descriptors_are_told_without_max_sessions(examine):
    result, document = examine(proxy(), preexec_fn=limited(1024))
    assert result.status == 1
    finding = only(document, "descriptors", "warning")
    assert "may have 1024 descriptors: room for " in finding["what"]
    assert "sessions at once, no more" in finding["what"]
    assert "LimitNOFILE=65536" in finding["commands"][0]


def test_limit_is_that_of_the_daemon_that_runs(examine, tmp_path):
    with subprocess.Popen(["sleep", "60"], preexec_fn=limited(1500)) as other:
        try:
            document = {**fakeadmin.example(), "pid": other.pid}
            with FakeAdmin(f"unix:{tmp_path}/a.sock", {"/status": [document]}):
                result, document = examine(proxy(), socket=f"{tmp_path}/a.sock")
        finally:
            other.kill()
    assert result.status == 1
    assert f"rediald (pid {other.pid}) may have 1500 descriptors" in \
        only(document, "descriptors", "warning")["what"]


def test_backlog_beyond_somaxconn_is_told(examine):
    netns.sysctl("net.core.somaxconn", 128)
    two = "[proxy two]\nlisten = 127.0.0.1:7001\nserver = 127.0.0.1:8000\nbacklog = 200\n"
    small = "[proxy small]\nlisten = 127.0.0.1:7002\nserver = 127.0.0.1:8000\nbacklog = 128\n"
    passed = "[proxy passed]\nlisten = systemd:web\nserver = 127.0.0.1:8000\n"
    configuration = proxy() + two + small + passed
    result, document = examine(configuration)
    assert result.status == 1
    first, second = findings(document, "backlog", "warning")
    assert first["what"] == "proxy web has a backlog of 4096, which net.core.somaxconn cuts to 128"
    assert "retransmissions" in first["means"]
    assert "proxy two has a backlog of 200" in second["what"]
    assert second["commands"] == ["sysctl -w net.core.somaxconn=4096"]
    netns.sysctl("net.core.somaxconn", 4096)
    _, document = examine(configuration)
    only(document, "backlog", "ok")


def test_small_pipes_are_told(examine):
    result, document = examine(proxy(), prefix=fake_proc(**{"fs__pipe-max-size": "65536"}))
    assert result.status == 1
    finding = only(document, "pipes", "warning")
    assert finding["what"] == "fs.pipe-max-size is 65536, but rediald asks for pipes of 262144"
    assert finding["commands"] == ["sysctl -w fs.pipe-max-size=262144"]


def test_many_workers_pipes_are_told(examine):
    soft = fake_proc(**{"fs__pipe-user-pages-soft": "16384"})
    result, document = examine(proxy(daemon="workers = 16"), prefix=soft)
    assert result.status == 1
    finding = only(document, "pipes", "warning")
    assert finding["what"] == ("16 workers may use 32768 pages in pipes, fs.pipe-user-pages-soft is 16384")
    assert finding["commands"] == ["sysctl -w fs.pipe-user-pages-soft=32768"]
    for harmless, prefix in ((proxy(daemon="workers = 8"), soft),
                             (proxy(daemon="workers = 16\nsplice = off"), soft),
                             (proxy(daemon="workers = 16"), fake_proc(**{"fs__pipe-user-pages-soft": "0"}))):
        only(examine(harmless, prefix=prefix)[1], "pipes", "ok")


def test_migration_is_advised_for_several_workers(examine):
    netns.sysctl("net.ipv4.tcp_migrate_req", 0)
    result, document = examine(proxy(daemon="workers = 2"))
    assert result.status == 0
    finding = only(document, "migration", "advice")
    assert "net.ipv4.tcp_migrate_req is off, and each of 2 workers" in finding["what"]
    assert finding["commands"] == ["sysctl -w net.ipv4.tcp_migrate_req=1"]
    for listen, workers in (("127.0.0.1:7000", 1), ("unix:/run/x.sock", 2), ("systemd:web", 2)):
        _, document = examine(proxy(listen=listen, daemon=f"workers = {workers}"))
        assert "may be off" in only(document, "migration", "ok")["what"]
    netns.sysctl("net.ipv4.tcp_migrate_req", 1)
    _, document = examine(proxy(daemon="workers = 2"))
    assert "tcp_migrate_req is on" in only(document, "migration", "ok")["what"]


# For people

def test_findings_are_told_in_order_with_what_to_do(examine, tmp_path):
    netns.sysctl("net.ipv4.ip_local_reserved_ports", "8080")
    with self_connected(LOW + 1) as thief:
        _, document = examine(proxy(f"127.0.0.1:{LOW}"))
        result = redialctl("doctor", "-c", tmp_path / "rediald.conf")
    assert result.status == 1
    assert f"""
problem  127.0.0.1:{LOW + 1} is connected to itself, by pid {thief.pid} (python3""" in "\n" + result.out
    assert f"           kill {thief.pid}\n" in result.out
    assert f"""
To reserve these ports, so that no outgoing connection is given one (those that are reserved already stay so):
  now           sysctl -w net.ipv4.ip_local_reserved_ports=8080,{LOW}
  at each boot  echo 'net.ipv4.ip_local_reserved_ports = 8080,{LOW}' >/etc/sysctl.d/60-redial.conf
  Docker        docker run --sysctl net.ipv4.ip_local_reserved_ports=8080,{LOW}
  Kubernetes    spec:
                  securityContext:
                    sysctls:
                    - name: net.ipv4.ip_local_reserved_ports
                      value: "8080,{LOW}"

1 problem, 1 warning
""" in result.out
    for finding in document["findings"]:
        assert re.search(rf"^{finding['result']} +{re.escape(finding['what'])}$", result.out, re.M)


def test_findings_are_wrapped_in_a_terminal_and_commands_are_not(tmp_path):
    path = tmp_path / "rediald.conf"
    path.write_text(proxy(f"127.0.0.1:{LOW}"))
    ports = ",".join(map(str, range(1001, 1040, 2)))
    netns.sysctl("net.ipv4.ip_local_reserved_ports", ports)
    with Terminal(tmp_path, 60, 60) as terminal:
        terminal.run(f"clear; $redialctl doctor -c {path}")
        screen = terminal.wait("1 warning")
    assert f"sysctl -w net.ipv4.ip_local_reserved_ports={ports},{LOW}" in "".join(screen)
    text = [line for line in screen if line.startswith("         ") and "=" not in line]
    assert text and max(map(len, text)) <= 60
