# SPDX-License-Identifier: MIT
"""Before the first client: descriptors, privileges, threads, signals, and starts that fail."""

import contextlib
import fcntl
import os
import pwd
import resource
import signal
import socket
import subprocess
import sys

import pytest

from deadline import eventually
from helpers import NO_THREADS, python
from servers import Server, echo
from sockets import ask, connected, is_refused, listening, recv_all

CAP_NET_BIND_SERVICE = 1 << 10  # kept where it was there
# Holds port argv[1] by a connection to port argv[2] until stdin ends; leaves no TIME_WAIT.
HOLDER = """
import socket, struct, sys
s = socket.socket()
s.bind(("127.0.0.1", int(sys.argv[1])))
s.connect(("127.0.0.1", int(sys.argv[2])))
s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def address(port):
    return f"127.0.0.1:{port()}"


def proxy(listen, server="192.0.2.1:80", daemon=""):
    return f"""
[daemon]
access_log = all
{daemon}
[proxy web]
listen = {listen}
server = {server}
"""


def without(closed):
    """preexec: these descriptors are closed."""
    def close():
        for fd in closed:
            os.close(fd)
    return close


# Standard streams

@pytest.mark.parametrize("closed", [(2,), (1, 2), (0,), (0, 1, 2)],
                         ids=["stderr", "stdout_and_stderr", "stdin", "all"])
def test_closed_standard_streams_are_held(rediald, serve, address, tmp_path, closed):
    lock = tmp_path / "in.sock.lock"
    daemon = rediald(proxy(f"unix:{tmp_path}/in.sock, {address}", serve(echo).address),
                     preexec=without(closed))
    for fd in closed:
        assert os.readlink(f"/proc/{daemon.pid}/fd/{fd}") == "/dev/null"
    assert ask(f"unix:{tmp_path}/in.sock", b"hello") == b"hello"
    assert lock.read_bytes() == b"", "what was meant for the log"


def test_log_never_reaches_a_server_without_stderr(rediald, address, port):
    # A listener that took the place of stderr leaves it to a dial when it closes for the drain.
    dead = f"127.0.0.1:{port()}"
    daemon = rediald(proxy(address, dead, "drain_timeout = 30s\nlog_level = debug"),
                     preexec=without((2,)))
    received = []

    def collect(sock):
        received.append(recv_all(sock))
        sock.sendall(b"answer")
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(connected(address)) for _ in range(4)]
        for client in clients:
            client.sendall(b"hello")
        daemon.signal(signal.SIGTERM)
        eventually(lambda: is_refused(address))
        server = stack.enter_context(Server(dead, collect))
        server.wait_accepted(len(clients))
        for client in clients:
            client.shutdown(socket.SHUT_WR)
            assert recv_all(client) == b"answer"
    assert daemon.wait_exit(5) == 0
    assert [data for data in received if data] == [b"hello"] * len(clients)


# Privileges

def statuses(daemon):
    """/proc/PID/task/TID/status of each thread, as dictionaries."""
    found = []
    for task in os.listdir(f"/proc/{daemon.pid}/task"):
        with open(f"/proc/{daemon.pid}/task/{task}/status", encoding="ascii") as f:
            found.append(dict(line.rstrip("\n").split(":\t", 1) for line in f))
    return found


@pytest.mark.parametrize("key", ["user", "group"])
def test_every_thread_drops_privileges(rediald, serve, address, key):
    uid, gid = pwd.getpwnam("nobody")[2:4]
    if not is_id_known(uid):
        pytest.skip("needs real root: this one cannot become another user")
    daemon = rediald(proxy(address, serve(echo).address,
                           f"{key} = {uid if key == 'user' else gid}"))
    threads = statuses(daemon)
    assert len(threads) >= 3, "main, worker, logger"
    for status in threads:
        assert status["NoNewPrivs"] == "1"
        assert status["Uid"].split() == [str(uid if key == "user" else os.geteuid())] * 4
        assert status["Gid"].split() == [str(gid)] * 4
        for kind in ("CapEff", "CapPrm", "CapInh", "CapAmb"):
            assert int(status[kind], 16) & ~CAP_NET_BIND_SERVICE == 0, kind


def is_id_known(uid):
    """Is there such a user in this user namespace?"""
    with open("/proc/self/uid_map", encoding="ascii") as f:
        return any(int(first) <= uid < int(first) + int(count)
                   for first, _, count in map(str.split, f))


# Signals

@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR2], ids=["hup", "usr2"])
def test_signal_during_the_start_does_not_end_it(rediald, serve, port, number):
    held, server = port(), serve(echo)
    with python(HOLDER, held, server.port):
        daemon = rediald(proxy(f"127.0.0.1:{held}", server.address), ready=False)
        daemon.wait_event("listen_retry")
        daemon.signal(number)
    daemon.wait_ready()
    assert ask(f"127.0.0.1:{held}", b"hello") == b"hello"


# Starts that fail

def test_failed_start_leaves_no_lock_file(rediald, serve, tmp_path):
    path = tmp_path / "in.sock"
    serve(echo, f"unix:{path}")
    assert rediald(proxy(f"unix:{path}"), ready=False).wait_exit(5) == 71
    assert sorted(tmp_path.glob("in.sock*")) == [path]


def test_failed_start_on_a_file_that_is_no_socket_leaves_no_lock_file(rediald, tmp_path):
    path = tmp_path / "in.sock"
    path.write_text("precious")
    assert rediald(proxy(f"unix:{path}"), ready=False).wait_exit(5) == 71
    assert sorted(tmp_path.glob("in.sock*")) == [path]


def test_failed_start_leaves_the_lock_of_another(rediald, tmp_path):
    path = tmp_path / "in.sock"
    listening(f"unix:{path}").close()
    with open(f"{path}.lock", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert rediald(proxy(f"unix:{path}"), ready=False).wait_exit(5) == 71
        assert os.stat(f"{path}.lock").st_ino == os.fstat(lock.fileno()).st_ino


def test_start_without_threads_says_so(rediald, address):
    daemon = rediald(proxy(address), prefix=NO_THREADS, ready=False)
    assert daemon.wait_exit(5) == 71
    failed = daemon.wait_event("start_failed")
    assert failed.level == "error"
    assert os.strerror(11) in failed.text
    assert not daemon.notifications


def test_threads_can_be_taken_away():
    """nothreads.py does what it says."""
    code = "import threading; threading.Thread(target=print).start()"
    result = subprocess.run([*NO_THREADS, sys.executable, "-c", code], capture_output=True,
                            text=True, check=False)
    assert result.returncode == 1
    assert "can't start new thread" in result.stderr


# Limits

def test_soft_limit_of_descriptors_is_raised_before_binding(rediald, serve, port):
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 200:
        pytest.skip(f"the hard limit is {hard}")
    addresses = [f"127.0.0.1:{port()}" for _ in range(80)]
    lines = "\nlisten = ".join(" ".join(addresses[i:i + 8]) for i in range(0, 80, 8))
    rediald(proxy(lines, serve(echo).address),
            preexec=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard)))
    assert [ask(address, b"x") for address in addresses] == [b"x"] * 80
