# SPDX-License-Identifier: MIT
"""SIGUSR2 where the next process fails, hangs, or is asked for something else."""

import os
import resource
import signal

import pytest

from binary import WRAP
from daemon import children
from deadline import eventually, pass_time
from helpers import python
from servers import echo, reset_after
from sockets import ask, close_reset, connected, is_refused, listening, recv_exactly, recv_until_end
from strace import CannotTrace, Strace
from test_bind import OUTGOING
from test_upgrade import is_alive, proxy, upgraded  # noqa: F401 (a fixture)

pytestmark = pytest.mark.skipif(bool(WRAP), reason="a tool around the daemon has its process id")


@pytest.fixture
def address(port):
    return f"127.0.0.1:{port()}"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "rediald.conf"


@pytest.mark.parametrize("fault", ["at a listener", "after all"])
def test_unix_sockets_survive_a_program_that_fails(rediald, serve, port, upgraded, path, tmp_path, fault):
    """It had them already when it failed."""
    sock, fresh = tmp_path / "in.sock", tmp_path / "fresh.sock"
    first, taken = (f"127.0.0.1:{port()}" for _ in range(2))
    server = serve(echo).address
    path.write_text(proxy(f"{first} unix:{sock}", server))
    daemon = rediald(args=("-c", str(path)))
    daemon.allowed_errors |= {"upgrade_failed", "start_failed", "listen_failed"}
    with listening(taken):
        if fault == "at a listener":
            path.write_text(proxy(f"{first} unix:{sock}\nlisten = unix:{fresh} {taken}", server))
        else:
            # There are descriptors for the listening sockets, and then not for all workers.
            resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, (260, 260))
            path.write_text(proxy(f"{first}\nlisten = unix:{fresh}", server, workers=100))
        upgraded.upgrade(daemon, "upgrade_failed")
    assert not fresh.exists()
    for address in first, f"unix:{sock}":
        assert ask(address, b"hello") == b"hello"


@pytest.mark.parametrize("starts", [True, False])
def test_reload_during_an_upgrade_is_done_by_whoever_goes_on(rediald, serve, port, upgraded, path, starts):
    """The next process has read the configuration, and waits for a port, when another one is asked for."""
    first, held, added = (f"127.0.0.1:{port()}" for _ in range(3))
    server, other = serve(echo), serve(echo)
    path.write_text(proxy(first, server.address))
    daemon = rediald(args=("-c", str(path)))
    daemon.standby = 64
    daemon.allowed_errors |= {"upgrade_failed", "listen_failed"}
    with python(OUTGOING, held.rpartition(":")[2], other.port):
        path.write_text(proxy(f"{first} {held}", server.address, daemon="bind_retry = 60s"))
        daemon.signal(signal.SIGUSR2)
        pid = int(daemon.wait_event("upgrading")["pid"])
        daemon.wait_event("listen_retry")
        path.write_text(proxy(f"{first} {added}", server.address))
        daemon.signal(signal.SIGHUP)
        assert is_refused(added)
        if not starts:
            os.kill(pid, signal.SIGKILL)
            daemon.wait_event("reloaded")
            assert ask(added, b"hello") == b"hello"
            return
        upgraded.pids.append(pid)
        other.kill()  # with a reset: no TIME_WAIT is left of it
    daemon.wait_event("reloaded", timeout=15)
    assert daemon.wait_exit() == 0
    for address in first, added:
        assert ask(address, b"hello") == b"hello"
    assert is_refused(held)


def test_end_during_an_upgrade_is_that_of_both(rediald, serve, connect, port, path):
    first, held = (f"127.0.0.1:{port()}" for _ in range(2))
    server = serve(echo)
    path.write_text(proxy(first, server.address))
    daemon = rediald(args=("-c", str(path)))
    client = connect(first)
    client.sendall(b"x")
    assert client.recv(1) == b"x"
    with python(OUTGOING, held.rpartition(":")[2], server.port):
        path.write_text(proxy(f"{first} {held}", server.address, daemon="bind_retry = 60s"))
        daemon.signal(signal.SIGUSR2)
        pid = int(daemon.wait_event("upgrading")["pid"])
        daemon.wait_event("listen_retry")
        daemon.signal(signal.SIGTERM)
        eventually(lambda: not is_alive(pid), what="it ends at once, not when the last session does")
        client.sendall(b"y")
        assert client.recv(1) == b"y"


def test_sessions_end_while_an_upgrade_is_under_way(rediald, serve, port, path):
    """No other process has their sockets."""
    first, held = (f"127.0.0.1:{port()}" for _ in range(2))
    server = serve(reset_after(b"x"))
    path.write_text(proxy(first, server.address, more="standby = 0"))
    daemon = rediald(args=("-c", str(path)))
    with connected(first) as early, python(OUTGOING, held.rpartition(":")[2], server.port):
        server.wait_accepted(2)  # the probe, and this one
        path.write_text(proxy(f"{first} {held}", server.address, daemon="bind_retry = 60s"))
        daemon.signal(signal.SIGUSR2)
        daemon.wait_event("listen_retry")
        early.sendall(b"x")
        assert recv_until_end(early) == (b"x", "reset")
        daemon.signal(signal.SIGTERM)


def babble(sock):
    """Sends all the time, slowly."""
    while True:
        sock.sendall(b"x")
        pass_time(0.001)


def test_sessions_end_while_the_next_process_has_copies_of_their_sockets(rediald, serve, connect, address,
                                                                         upgraded):
    """Between fork(2) and execve(2): a close(2) does not end a connection then, and the kernel goes on to tell of it."""
    daemon = rediald(proxy(address, serve(babble).address))
    babbled = [connect(address) for _ in range(20)]
    for sock in babbled:
        recv_exactly(sock, 1)
    daemon.standby = 64
    held = Strace(daemon.pid, "-o", os.devnull, "-e", "trace=execve,close_range",
                  "-e", "inject=execve,close_range:delay_enter=500000")
    try:
        with held:
            daemon.signal(signal.SIGUSR2)
            eventually(lambda: children(daemon.pid), what="the next process is begun")
            for sock in babbled:
                close_reset(sock)
            with connected(address) as sock:  # has the number of one of those
                assert recv_exactly(sock, 100)
            upgraded.pids.append(int(daemon.wait_event("upgraded", timeout=15)["pid"]))
    except CannotTrace as err:
        pytest.skip(str(err))
    with connected(address) as sock:
        assert recv_exactly(sock, 1)
