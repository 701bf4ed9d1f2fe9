# SPDX-License-Identifier: MIT
"""The admin interface: what it answers, to whom, and that nobody can harm it, or others by it."""

import concurrent.futures
import contextlib
import json
import os
import random
import re
import select
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time

import pytest

import netns
from admin import Connection, ask
from binary import BINARY_IS_SANITIZED, WRAP
from deadline import deadline, eventually, pass_time
from servers import echo
from sockets import connected, crowd, is_refused, listening, recv_exactly, recv_until_end
from threads import naps, stopped

CONNS_MAX = 32
CHANGES = ("/reload", "/drain", "/servers/web/a/enable", "/servers/web/a/disable")
GET = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
LOOKS = ("/", "/healthz", "/readyz", "/status", "/metrics", "/sessions")


@pytest.fixture
def path(tmp_path):
    return f"unix:{tmp_path}/admin.sock"


@pytest.fixture
def start(rediald, serve, port):
    """start(admin, ...): a daemon with one proxy before an echo server; .proxy is where it listens."""
    def begin(*admins, server=None, daemon="", **kwargs):
        address = f"127.0.0.1:{port()}"
        lines = "\n".join(f"admin = {admin}" for admin in admins)
        started = rediald(f"[daemon]\naccess_log = all\n{lines}\n{daemon}\n[proxy web]\n"
                          f"listen = {address}\nserver = {server or serve(echo).address} name=a\n",
                          **kwargs)
        started.proxy = address
        return started
    return begin


def is_served(address):
    """Is a client of a proxy served?"""
    with connected(address) as client:
        client.sendall(b"hello")
        return recv_exactly(client, 5) == b"hello"


def in_memory(pid, key="VmRSS"):
    with open(f"/proc/{pid}/status", encoding="ascii") as f:
        return 1024 * int(re.search(rf"^{key}:\s+(\d+) kB", f.read(), re.M)[1])


def main_thread_seconds(pid):
    """The processor time that the main thread has used."""
    with open(f"/proc/{pid}/task/{pid}/schedstat", encoding="ascii") as f:
        return int(f.read().split()[0]) / 1e9


def readable(socks, count):
    """Those of them that can be read from, once there are so many."""
    found = set()

    def are_enough():
        found.update(select.select(socks - found, [], [], 0)[0])
        return len(found) >= count
    eventually(are_enough, 2 * STALL_S)
    assert len(found) == count
    return found


def answer(sock):
    """Its status and text, of an answer that is there."""
    head, _, text = sock.recv(1 << 16).decode().partition("\r\n\r\n")
    return int(head.split()[1]), text


# What it answers

@pytest.mark.parametrize("address", ["127.0.0.1:9100", "[::1]:9100", "*:9100", "unix:@admin", None])
def test_it_answers_on_every_kind_of_address(start, path, address):
    address = address or path
    start(address)
    asked = address.replace("*", "127.0.0.1")
    answer = ask(asked, "/healthz")
    assert (answer.status, answer.body) == (200, b"ok\n")
    assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_it_answers_on_several_addresses(start, path):
    addresses = ["127.0.0.1:9100", "127.0.0.1:9101", path, "unix:@admin"]
    start(f"{addresses[0]}, {addresses[1]}", *addresses[2:])
    for address in addresses:
        assert ask(address, "/healthz").status == 200


def test_one_connection_serves_many_requests(start, path):
    start(path)
    connection = Connection(path)
    for _ in range(100):
        assert connection.ask("/healthz").body == b"ok\n"
    connection.close()


def test_requests_in_one_go_are_answered_one_after_another(start, path):
    start(path)
    with connected(path) as sock:
        sock.sendall(300 * b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
                     + b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        said, end = recv_until_end(sock)
    assert (said.count(b"HTTP/1.1 200"), end) == (301, "eof")


def test_http_1_0_is_spoken(start, path):
    start(path)
    with connected(path) as sock:
        sock.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
        said, end = recv_until_end(sock)
    assert said.startswith(b"HTTP/1.1 200") and said.endswith(b"ok\n") and end == "eof"


@pytest.mark.parametrize("where", ["/", "/healthz", "/readyz"])
def test_head_is_get_without_a_body(start, path, where):
    start(path).wait_event("server_up")
    connection = Connection(path)
    got, head = connection.ask(where), connection.ask(where, "HEAD")
    connection.close()
    assert head.status == got.status == 200
    assert head.body == b"" and int(head.headers["Content-Length"]) == len(got.body) > 0


def test_page_needs_nothing_from_outside(start, path):
    start(path)
    page = ask(path, "/")
    assert page.status == 200
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]
    assert page.body.lower().startswith(b"<!doctype html>") and page.body.endswith(b"</html>\n")
    assert not re.search(rb"(src|href)=[\"']?(https?:)?//|@import|url\(", page.body)


@pytest.mark.parametrize("where", ["/nothing", "/healthz/", "//healthz", "/servers/web/a",
                                   "/servers/web/a/enable/", "/%68ealthz", "/servers/web/%00/enable"])
def test_unknown_paths_are_not_found(start, path, where):
    start(path, "127.0.0.1:9100")
    for address in (path, "127.0.0.1:9100"):
        for method in ("GET", "POST", "DELETE"):
            answer = ask(address, where, method)
            assert answer.status == 404 and answer.text.startswith("not found; there are ")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH", "get", "X"])
def test_reading_takes_get_and_head(start, path, method):
    start(path)
    for where in LOOKS:
        answer = ask(path, where, method)
        assert (answer.status, answer.headers["Allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS"])
def test_changing_takes_post(start, path, method):
    daemon = start(path)
    for where in CHANGES:
        answer = ask(path, where, method)
        assert (answer.status, answer.headers["Allow"]) == (405, "POST")
    assert is_served(daemon.proxy) and not daemon.events("admin_request")


# Ready

def test_ready_when_every_proxy_has_a_server_that_is_up(rediald, serve, path, port):
    first, second = f"127.0.0.1:{port()}", f"127.0.0.1:{port()}"
    daemon = rediald(f"[daemon]\nadmin = {path}\n"
                     f"[proxy web]\nlisten = 127.0.0.1:{port()}\nserver = {first}\n"
                     f"[proxy db]\nlisten = 127.0.0.1:{port()}\nupstream = two\n"
                     f"[upstream two]\nserver = {first}\nserver = {second}\n")
    daemon.wait_event("server_down", count=3)
    answer = ask(path, "/readyz")
    assert (answer.status, answer.text) == (
        503, "proxy web: no server of it is up\nproxy db: no server of two is up\n")
    assert ask(path, "/readyz", "HEAD").status == 503
    serve(echo, second)
    daemon.wait_event("server_up", upstream="two")
    answer = ask(path, "/readyz")
    assert (answer.status, answer.text) == (503, "proxy web: no server of it is up\n")
    serve(echo, first)
    daemon.wait_event("server_up", upstream="web")
    answer = ask(path, "/readyz")
    assert (answer.status, answer.text) == (200, "ok\n")


def test_not_ready_once_the_end_has_begun(start, connect, path):
    daemon = start(path, daemon="lame_duck = 1s\ndrain_timeout = 60s")
    daemon.wait_event("server_up")
    assert ask(path, "/readyz").status == 200
    client = connect(daemon.proxy)
    client.sendall(b"hello")
    assert recv_exactly(client, 5) == b"hello"
    daemon.signal(signal.SIGTERM)
    daemon.wait_event("lame_duck")
    answer = ask(path, "/readyz")
    assert (answer.status, answer.text) == (503, "it ends soon: clients should go elsewhere\n")
    daemon.wait_event("draining")
    answer = ask(path, "/readyz")
    assert (answer.status, answer.text) == (503, "it ends: no client is accepted any more\n")
    client.close()
    assert daemon.wait_exit() == 0


# Changes

def test_drain_is_what_sigterm_does(start, connect, path):
    daemon = start(path, daemon="drain_timeout = 60s")
    client = connect(daemon.proxy)
    client.sendall(b"hello")
    assert recv_exactly(client, 5) == b"hello"
    for _ in range(3):  # unlike a second SIGTERM, it does not cut sessions
        answer = ask(path, "/drain", "POST")
        assert (answer.status, answer.body) == (202, b'{"ok":true}\n')
        assert answer.headers["Content-Type"] == "application/json"
    daemon.wait_event("draining")
    assert daemon.events("admin_request", method="POST", path="/drain", uid=os.getuid(),
                         pid=os.getpid())
    eventually(lambda: is_refused(daemon.proxy))
    client.sendall(b"again")
    assert recv_exactly(client, 5) == b"again"
    client.close()
    assert daemon.wait_exit() == 0
    assert len(daemon.events("draining")) == 1
    assert daemon.wait_event("stopped")["sessions_cut"] == "0"


@pytest.fixture
def configured(rediald, serve, port, path, tmp_path):
    """A daemon that reads its file again; its admin addresses, and more lines, can be changed."""
    class Configured:
        def __init__(self):
            self.file = tmp_path / "own.conf"
            self.proxy, self.server = f"127.0.0.1:{port()}", serve(echo).address
            self.daemon = None

        def write(self, *admins, more=""):
            lines = "\n".join(f"admin = {admin}" for admin in admins)
            self.file.write_text(f"[daemon]\n{lines}\n[proxy web]\nlisten = {self.proxy}\n"
                                 f"server = {self.server}\n{more}\n")

        def start(self, *admins):
            self.write(*admins)
            self.daemon = rediald(args=("-c", str(self.file)))
            self.daemon.standby = 4
            return self.daemon
    return Configured()


def test_reload_is_answered_when_the_new_configuration_is_served(configured, path, port):
    daemon = configured.start(path)
    for _ in range(3):
        more = f"127.0.0.1:{port()}"
        configured.write(path, more=f"listen = {more}")
        answer = ask(path, "/reload", "POST")
        assert (answer.status, answer.body) == (200, b'{"ok":true}\n')
        assert is_served(more) and is_served(configured.proxy)
    daemon.exactly(3, "reloaded")


def test_reload_of_a_bad_file_is_answered_with_its_faults(configured, path):
    daemon = configured.start(path)
    daemon.allowed_errors |= {"reload_fault", "reload_failed"}
    configured.write(path, more="nodelay = maybe\nbacklog = 0")
    answer = ask(path, "/reload", "POST")
    assert answer.status == 422
    said = json.loads(answer.body)
    assert said["ok"] is False and len(said["errors"]) == 2
    assert said["errors"][0].endswith(
        ":6: [proxy web] nodelay: 'maybe' is not a switch; allowed are on, off, yes, no, true and false")
    assert said["errors"][1].endswith(
        ":7: [proxy web] backlog: '0' is out of range; allowed are 1 to 65535")
    assert is_served(configured.proxy)
    configured.write(path)
    assert ask(path, "/reload", "POST").status == 200


def test_many_who_ask_for_a_reload_are_all_answered(configured, path):
    daemon = configured.start(path)
    assert [answer.status for answer in crowd(20, lambda _: ask(path, "/reload", "POST"))] == 20 * [200]
    assert is_served(configured.proxy)
    daemon.wait_descriptors_back()


def test_who_hangs_up_during_a_reload_leaves_nothing(configured, path):
    daemon = configured.start(path)
    for _ in range(20):
        with connected(path) as sock:
            sock.sendall(b"POST /reload HTTP/1.1\r\nHost: x\r\n\r\n")
    assert ask(path, "/reload", "POST").status == 200
    daemon.wait_descriptors_back()


def test_a_reload_while_it_ends_is_refused(configured, connect, path):
    daemon = configured.start(path)
    client = connect(configured.proxy)
    client.sendall(b"hello")
    assert recv_exactly(client, 5) == b"hello"
    assert ask(path, "/drain", "POST").status == 202
    answer = ask(path, "/reload", "POST")
    assert (answer.status, json.loads(answer.body)["errors"]) == (
        422, ["ending: the configuration is not read any more"])
    client.close()
    assert daemon.wait_exit() == 0


def test_admin_addresses_change_with_a_reload(configured, path, tmp_path):
    other, tcp = f"unix:{tmp_path}/other.sock", "127.0.0.1:9100"
    daemon = configured.start(path, tcp)
    kept = Connection(path)
    assert kept.ask("/healthz").status == 200
    inode = os.stat(path[len("unix:"):]).st_ino
    configured.write(path, other)
    assert ask(path, "/reload", "POST").status == 200
    assert ask(other, "/healthz").status == 200 and is_refused(tcp)
    assert os.stat(path[len("unix:"):]).st_ino == inode
    assert kept.ask("/healthz").status == 200
    configured.write(tcp)
    assert kept.ask("/reload", "POST").status == 200  # on an address that goes with it
    assert kept.ask("/healthz").status == 200
    kept.close()
    assert ask(tcp, "/healthz").status == 200
    assert sorted(name for name in os.listdir(tmp_path) if "sock" in name) == []
    configured.write("off")
    daemon.signal(signal.SIGHUP)
    eventually(lambda: is_refused(tcp))
    configured.write(path)
    daemon.signal(signal.SIGHUP)
    eventually(lambda: not is_refused(path))
    assert ask(path, "/healthz").status == 200


def test_an_admin_address_in_use_changes_nothing(configured, path):
    daemon = configured.start(path)
    daemon.allowed_errors |= {"reload_fault", "reload_failed", "admin_failed"}
    daemon.standby += 4  # descriptors of an address that it has at its end, and not at its beginning
    with listening("127.0.0.1:9100"):
        configured.write("127.0.0.1:9101", "127.0.0.1:9100", path)
        answer = ask(path, "/reload", "POST")
    assert answer.status == 422
    assert "[daemon] admin: cannot listen on 127.0.0.1:9100: cannot " in json.loads(answer.body)["errors"][0]
    assert is_refused("127.0.0.1:9101") and ask(path, "/healthz").status == 200
    assert ask(path, "/reload", "POST").status == 200
    assert ask("127.0.0.1:9101", "/healthz").status == 200


@pytest.mark.parametrize("where", CHANGES)
def test_over_tcp_nothing_is_changed(start, where):
    daemon = start("127.0.0.1:9100")
    answer = ask("127.0.0.1:9100", where, "POST")
    assert answer.status == 403
    assert answer.text == ('{"ok":false,"errors":["changes are allowed on UNIX sockets only: their '
                           'file mode says who may"]}\n')
    assert is_served(daemon.proxy) and not daemon.events("admin_request")


POST = """
import os, socket, sys
os.setuid(int(sys.argv[2]))
sock = socket.socket(socket.AF_UNIX)
sock.connect("\\0" + sys.argv[1])
sock.sendall(b"POST /drain HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n\\r\\n")
while data := sock.recv(4096):
    sys.stdout.write(data.decode())
"""


def test_strangers_change_nothing_on_an_abstract_socket(start):
    if not netns.is_real_root():
        pytest.skip("needs root, to become somebody else")
    daemon = start("unix:@admin")
    done = subprocess.run([sys.executable, "-c", POST, "admin", "12345"], capture_output=True,
                          text=True, check=True, timeout=deadline(20))
    assert done.stdout.startswith("HTTP/1.1 403")
    assert "for root and the user of rediald only" in done.stdout
    assert is_served(daemon.proxy)
    done = subprocess.run([sys.executable, "-c", POST, "admin", "0"], capture_output=True,
                          text=True, check=True, timeout=deadline(20))
    assert done.stdout.startswith("HTTP/1.1 202")
    assert daemon.wait_exit() == 0


# Where it listens

def test_without_a_runtime_directory_there_is_none(start):
    daemon = start()
    assert not daemon.events("admin_listening")


def test_the_default_is_in_the_runtime_directory(start, tmp_path):
    where = tmp_path / "admin.sock"
    daemon = start(env={"RUNTIME_DIRECTORY": f"{tmp_path}:/nowhere"})
    assert ask(f"unix:{where}", "/healthz").status == 200
    assert stat.S_IMODE(where.stat().st_mode) == 0o660
    daemon.terminate()
    assert not where.exists() and not where.with_name("admin.sock.lock").exists()


def test_off_is_off(start, tmp_path):
    start("off", env={"RUNTIME_DIRECTORY": str(tmp_path)})
    assert not (tmp_path / "admin.sock").exists()


def test_a_default_that_cannot_be_made_does_not_keep_from_starting(start):
    daemon = start(env={"RUNTIME_DIRECTORY": "/nonexistent"})
    assert daemon.wait_event("admin_failed").level == "warning"
    assert is_served(daemon.proxy)


@pytest.mark.parametrize("address", ["127.0.0.1:9100", None])
def test_an_address_that_is_in_use_ends_the_start(start, path, address):
    address = address or path
    with listening(address):
        daemon = start(address, ready=False)
        assert daemon.wait_exit() == 71
        daemon.allowed_errors.add("admin_failed")
        assert daemon.wait_event("admin_failed")["address"] == address
        daemon.judge()


def test_a_stale_socket_is_no_obstacle(start, path):
    listening(path).close()
    start(path)
    assert ask(path, "/healthz").status == 200


def test_the_socket_belongs_to_the_user_that_the_daemon_becomes(start):
    if not netns.is_real_root():
        pytest.skip("needs root, to become somebody else")
    with tempfile.TemporaryDirectory() as directory:
        os.chmod(directory, 0o777)
        daemon = start(f"unix:{directory}/admin.sock", daemon="user = 12345\ngroup = 12346")
        found = os.stat(f"{directory}/admin.sock")
        assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (12345, 12346, 0o660)
        daemon.terminate()
        assert os.listdir(directory) == []


def test_a_port_in_the_ephemeral_range_is_told(start):
    netns.sysctl("net.ipv4.ip_local_port_range", "30000 40000")
    daemon = start("127.0.0.1:30001")
    told = daemon.wait_event("listen_port_in_range", daemon="admin")
    assert "net.ipv4.ip_local_reserved_ports=30001" in told.text


# Health: the main loop turns, for it answers; do the workers'?

STALL_S = 10


def ask_health(path):
    """The status and the text."""
    answer = ask(path, "/healthz")
    assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
    return answer.status, answer.text


@pytest.mark.skipif(bool(WRAP), reason="the thread is the wrapper's")
def test_health_tells_which_worker_stands_still(start, path):
    """The first request is told so, as are all after it, until the worker goes on."""
    daemon = start(path, daemon="workers = 3")
    began = time.monotonic()
    with stopped(daemon, 1), contextlib.ExitStack() as stack:
        socks = [stack.enter_context(connected(path))]
        socks[0].sendall(GET)
        while not select.select(socks[:1], [], [], 1)[0]:  # those who ask meanwhile do not put it off
            assert len(socks) < 2 * STALL_S
            socks.append(stack.enter_context(connected(path)))
            socks[-1].sendall(GET)
            assert ask(path, "/status").status == 200  # and nobody else waits
        assert time.monotonic() - began >= STALL_S
        for said in [sock.recv(1 << 16).decode() for sock in socks]:
            assert said.startswith("HTTP/1.1 503 ")
            assert re.search(r"\r\n\r\nworker 1 has not turned for [1-9]\d s\n$", said)
        status, text = ask_health(path)
        assert status == 503 and re.fullmatch(r"worker 1 has not turned for [1-9]\d s\n", text)
        assert ask(path, "/healthz", "HEAD").status == 503
        assert daemon.wait_event("worker_stalled")["worker"] == "1"
    eventually(lambda: ask_health(path) == (200, "ok\n"))
    assert len(daemon.events("worker_stalled")) == 1


@pytest.mark.skipif(bool(WRAP), reason="the thread is the wrapper's")
def test_health_waits_for_a_worker_that_is_late(start, path):
    daemon = start(path, daemon="workers = 2")
    with connected(path) as sock:
        with stopped(daemon, 0, 1):
            sock.sendall(GET)
            assert ask(path, "/status").status == 200
            sock.setblocking(False)
            with pytest.raises(BlockingIOError):
                sock.recv(1)
        sock.settimeout(deadline(10))
        assert recv_exactly(sock, 12) == b"HTTP/1.1 200"
    assert not daemon.events("worker_stalled")


@pytest.mark.skipif(bool(WRAP), reason="the thread is the wrapper's")
def test_who_hangs_up_before_a_late_worker_has_answered_leaves_nothing(start, path):
    daemon = start(path, daemon="workers = 2")
    with stopped(daemon, 1):
        for _ in range(3):
            with connected(path) as sock:
                sock.sendall(GET)
        assert ask(path, "/status").status == 200
    assert ask_health(path) == (200, "ok\n")
    daemon.wait_descriptors_back()


@pytest.mark.skipif(bool(WRAP), reason="the thread is the wrapper's")
def test_a_daemon_ends_while_a_late_worker_is_waited_for(start, path):
    daemon = start(path, daemon="workers = 2")
    with connected(path) as sock:
        with stopped(daemon, 1):
            sock.sendall(GET)
            assert ask(path, "/status").status == 200
            daemon.signal(signal.SIGTERM)
            daemon.wait_event("draining")
        recv_until_end(sock)
    assert daemon.wait_exit() == 0


@pytest.mark.skipif(bool(WRAP), reason="the thread is the wrapper's")
def test_workers_are_asked_only_when_somebody_asks_and_not_too_often(start, path):
    daemon = start(path, daemon="workers = 2")
    daemon.wait_event("server_up")
    before = naps(daemon, 1)
    with connected(path) as sock:
        sock.sendall(500 * GET)
        answers = b""
        while answers.count(b"\r\n\r\nok\n") < 500:
            answers += sock.recv(1 << 16)
    woken = naps(daemon, 1) - before
    assert 1 <= woken < 100


@pytest.mark.skipif(bool(WRAP), reason="the thread is the wrapper's")
def test_who_asks_for_the_sessions_of_a_worker_that_stands_still_leaves_room(start, path):
    """Half of the places at most, and not for ever; the others are for /healthz."""
    daemon = start(path, daemon="workers = 2")
    with stopped(daemon, 1), contextlib.ExitStack() as stack:
        socks = {stack.enter_context(connected(path)) for _ in range(CONNS_MAX - 8)}
        for sock in socks:
            sock.sendall(GET.replace(b"healthz", b"sessions"))
        refused = readable(socks, len(socks) - CONNS_MAX // 2)
        assert {answer(sock) for sock in refused} == {(503, "too many ask for the sessions at once\n")}
        assert ask(path, "/status").status == 200
        status, text = ask_health(path)
        assert status == 503 and text.startswith("worker 1 ")
        waiting = socks - refused
        assert {answer(sock) for sock in readable(waiting, len(waiting))} == {
            (503, "a worker does not answer: see /healthz\n")}
    eventually(lambda: ask(path, "/sessions").status == 200)
    with connected(path) as sock:
        with stopped(daemon, 1):
            sock.sendall(GET.replace(b"healthz", b"sessions"))
            assert ask(path, "/status").status == 200
            pass_time(0.2)
            assert not select.select([sock], [], [], 0)[0]  # the patience is as long as before
        assert recv_exactly(sock, 12) == b"HTTP/1.1 200"


# Hostile clients

@pytest.mark.parametrize("request_, statuses", [
    (b"GET /" + 100_000 * b"x" + b" HTTP/1.1\r\n\r\n", (414, 0)),
    (b"GET / HTTP/1.1\r\n" + b"X: " + 100_000 * b"x" + b"\r\n\r\n", (431, 0)),
    (b"GET / HTTP/1.1\r\n" + 10_000 * b"X: x\r\n" + b"\r\n", (431, 0)),
    (b"GET / HTTP/1.1\r\n" + 100_000 * b"x", (431, 0)),
    (b"POST /drain HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n" + 100_000 * b"x", (413, 0)),
    (b"POST /drain HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
     + 1000 * (b"40\r\n" + 64 * b"x" + b"\r\n"), (413, 0)),
    (b"POST /drain HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", (400, 0)),
    (b"POST /drain HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", (400, 0)),
    (b"POST /drain HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n", (400, 413, 0)),
    (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + 500 * b"\x00" + b"\r\n\r\n", (400, 0)),
    (b"\x00\xff\r\n\r\n\r\n", (400, 0)),
    (b"GET / HTTP/9.9\r\n\r\n", (400, 505, 0)),
    (b"GET\r\n\r\n", (400, 0)),
    (1000 * b"\r\n" + b"x\r\n\r\n", (400, 0)),
    (b"GET / HTTP/1.1\r\n\x00: \x00\r\n\r\n", (200, 400, 0)),
    (b"GET /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n0123456789", (200,)),
], ids=lambda value: None if isinstance(value, tuple) else value[:24].decode("latin-1")
    .encode("unicode_escape").decode())
def test_faulty_requests_are_refused(start, path, request_, statuses):
    daemon = start(path)
    with connected(path) as sock:
        try:
            sock.sendall(request_)
            sock.shutdown(socket.SHUT_WR)
        except (BrokenPipeError, ConnectionResetError):
            pass
        said, _ = recv_until_end(sock)
    status = int(said.split()[1]) if said else 0  # a reset may overtake the answer
    assert status in statuses, said
    assert ask(path, "/healthz").status == 200
    assert is_served(daemon.proxy) and not daemon.events("admin_request")


def test_random_requests_are_survived(start, path):
    daemon = start(path)
    rng = random.Random(20261126)
    seeds = [GET, b"POST /x?kill=1 HTTP/1.1\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\nhello",
             b"GET /readyz HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"]
    for _ in range(300):
        request = bytearray(rng.choice(seeds) * rng.randrange(1, 4))
        for _ in range(rng.randrange(1, 8)):
            at = rng.randrange(len(request))
            request[at:at + rng.randrange(3)] = rng.randbytes(rng.randrange(4))
        with connected(path) as sock:
            try:
                sock.sendall(request)
                sock.shutdown(socket.SHUT_WR)
            except (BrokenPipeError, ConnectionResetError):
                pass
            recv_until_end(sock)
    assert ask(path, "/healthz").status == 200 and is_served(daemon.proxy)
    daemon.wait_descriptors_back()


@pytest.mark.parametrize("part", [0, 1, 10, len(GET) - 2])
def test_half_requests_leave_nothing(start, path, part):
    daemon = start(path, "127.0.0.1:9100")
    for address in (path, "127.0.0.1:9100"):
        for _ in range(100):
            with connected(address) as sock:
                sock.sendall(GET[:part])
    assert ask(path, "/healthz").status == 200
    daemon.wait_descriptors_back()


def test_clients_that_hang_up_before_the_answer_leave_nothing(start, path):
    daemon = start(path)
    for _ in range(200):
        with connected(path) as sock:
            sock.sendall(GET + GET)
    assert ask(path, "/healthz").status == 200
    daemon.wait_descriptors_back()


def test_slow_requests_end(start, path):
    daemon = start(path)
    began = time.monotonic()
    with connected(path, timeout=60) as silent, connected(path, timeout=60) as drips, \
            connected(path, timeout=60) as done:
        done.sendall(GET)
        assert recv_exactly(done, 12) == b"HTTP/1.1 200"
        try:
            for byte in GET * 1000:
                drips.sendall(bytes([byte]))
                pass_time(0.5)
        except (BrokenPipeError, ConnectionResetError):
            pass
        took = time.monotonic() - began
        assert 9 < took < deadline(13)
        assert recv_until_end(silent)[0] == b""
        recv_until_end(done)
    assert is_served(daemon.proxy)
    daemon.wait_descriptors_back()


def held(address, count):
    """So many connections that say nothing; those that are refused or closed count, too."""
    family = socket.AF_UNIX if address.startswith("unix:") else socket.AF_INET
    socks = []
    for _ in range(count):
        sock = socket.socket(family)
        sock.setblocking(False)
        host, _, number = address.rpartition(":")
        try:
            sock.connect((host, int(number)))
        except BlockingIOError:
            pass
        socks.append(sock)
    return socks


def test_thousands_of_connections_harm_nobody(start, path):
    daemon = start(path, "127.0.0.1:9100")
    before, descriptors = in_memory(daemon.pid), len(daemon.descriptors())
    socks = held("127.0.0.1:9100", 3000)
    try:
        eventually(lambda: len(daemon.descriptors()) >= descriptors + CONNS_MAX - 4)
        began = time.monotonic()
        assert ask(path, "/healthz").status == 200 and is_served(daemon.proxy)
        assert time.monotonic() - began < deadline(1)
        assert len(daemon.descriptors()) <= descriptors + CONNS_MAX + 2 + daemon.standby
        if not BINARY_IS_SANITIZED:
            assert in_memory(daemon.pid) - before < 4 << 20
    finally:
        for sock in socks:
            sock.close()
    eventually(lambda: ask("127.0.0.1:9100", "/healthz").status == 200)
    daemon.wait_descriptors_back()


def test_connections_that_stand_still_make_room(start, path):
    daemon = start(path)
    socks = [connected(path) for _ in range(CONNS_MAX)]
    try:
        eventually(lambda: daemon.sockets() >= CONNS_MAX)
        began = time.monotonic()
        assert ask(path, "/healthz").status == 200
        assert time.monotonic() - began < deadline(5)
    finally:
        for sock in socks:
            sock.close()


@pytest.mark.skipif(BINARY_IS_SANITIZED or bool(WRAP), reason="such tools take time themselves")
def test_busy_clients_get_a_fifth_of_a_processor(start, path):
    daemon = start(path)
    end = time.monotonic() + 2
    before = main_thread_seconds(daemon.pid)

    def hammer(_):
        asked = 0
        with connected(path) as sock:
            while time.monotonic() < end:
                sock.sendall(20 * GET)
                answers = b""
                while answers.count(b"\r\n\r\nok\n") < 20:
                    answers += sock.recv(1 << 16)
                asked += 20
        return asked

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        results = [pool.submit(hammer, i) for i in range(8)]
        worst = 0
        while time.monotonic() < end:
            began = time.monotonic()
            assert is_served(daemon.proxy)
            worst = max(worst, time.monotonic() - began)
        used = main_thread_seconds(daemon.pid) - before
        assert all(result.result() for result in results)
    assert used < 0.3 * 2
    assert worst < 1


def test_a_daemon_that_ends_hangs_up(start, path):
    daemon = start(path)
    with connected(path) as idle, connected(path) as busy:
        busy.sendall(GET[:10])
        eventually(lambda: daemon.sockets() >= 4)
        daemon.terminate(descriptors=False)
        assert recv_until_end(idle)[0] == b"" and recv_until_end(busy)[0] == b""
