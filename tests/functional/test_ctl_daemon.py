# SPDX-License-Identifier: MIT
"""redialctl and the daemon: what the one asks, the other answers."""

import pytest

from ctl import redialctl
from servers import echo
from sockets import ask, is_refused


@pytest.fixture
def started(rediald, port, tmp_path):
    """started(server, more): (daemon, where redialctl finds it, where clients do)."""
    def start(server, more=""):
        admin, listen = f"unix:{tmp_path}/admin.sock", f"127.0.0.1:{port()}"
        daemon = rediald(f"[daemon]\nadmin = {admin}, 127.0.0.1:{port()}\naccess_log = all\n"
                         f"[proxy web]\nlisten = {listen}\nserver = {server}\n{more}")
        return daemon, admin, listen
    return start


def configuration_of(daemon):
    return next(word for word in daemon.process.args if word.endswith(".conf"))


def test_ready_follows_the_server(started, serve, port):
    address = f"127.0.0.1:{port()}"
    daemon, admin, _ = started(address)
    daemon.wait_event("server_down")
    result = redialctl("ready", socket=admin)
    assert (result.status, result.out) == (1, "")
    assert result.err.startswith("redialctl: not ready: ") and "web" in result.err
    serve(echo, address)
    result = redialctl("ready", "--wait", "20s", socket=admin)
    assert (result.status, result.out, result.err) == (0, "ready\n", "")


def test_ready_is_found_in_the_runtime_directory(rediald, serve, tmp_path, port):
    server = serve(echo)
    rediald(f"[daemon]\n[proxy web]\nlisten = 127.0.0.1:{port()}\nserver = {server.address}\n",
            env={"RUNTIME_DIRECTORY": str(tmp_path)})
    result = redialctl("ready", "--wait", "20s", env={"RUNTIME_DIRECTORY": str(tmp_path)})
    assert result.status == 0, result


def test_reload_waits_until_the_new_configuration_is_in_use(started, serve, port):
    server, address = serve(echo), f"127.0.0.1:{port()}"
    daemon, admin, listen = started(server.address)
    path = configuration_of(daemon)
    with open(path, encoding="ascii") as f:
        text = f.read()
    with open(path, "w", encoding="ascii") as f:
        f.write(text.replace(f"listen = {listen}", f"listen = {address}"))
    result = redialctl("reload", socket=admin)
    assert (result.status, result.out, result.err) == (0, "the new configuration is in use\n", "")
    assert ask(address, b"hello") == b"hello"
    assert is_refused(listen)


def test_faults_of_the_new_configuration_are_shown(started, serve):
    server = serve(echo)
    daemon, admin, listen = started(server.address)
    daemon.allowed_errors |= {"reload_failed", "reload_fault"}
    path = configuration_of(daemon)
    with open(path, "a", encoding="ascii") as f:
        f.write("listn = 127.0.0.1:1\n")
    result = redialctl("reload", socket=admin)
    assert result.status == 78
    assert f"redialctl: {path}:" in result.err and "[proxy web] listn" in result.err
    assert result.err.endswith("redialctl: the new configuration was refused; nothing has changed\n")
    assert ask(listen, b"hello") == b"hello"


def test_changes_are_refused_over_tcp(started, serve):
    server = serve(echo)
    daemon, _, listen = started(server.address)
    tcp = next(word for word in open(configuration_of(daemon), encoding="ascii").read().split()
               if word.startswith("127.0.0.1:") and word not in (listen, server.address))
    result = redialctl("drain", socket=tcp)
    assert result.status == 1
    assert "UNIX sockets only" in result.err
    assert redialctl("ready", "--wait", "20s", socket=tcp).status == 0


def test_drain_ends_the_daemon(started, serve):
    server = serve(echo)
    daemon, admin, listen = started(server.address)
    assert redialctl("drain", socket=admin).status == 0
    assert daemon.wait_exit(10) == 0
    assert is_refused(listen)
    assert redialctl("ready", socket=admin).status == 2
