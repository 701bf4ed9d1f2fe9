# SPDX-License-Identifier: MIT
"""Listening sockets go from one rediald to the next: SIGUSR2, and what the service manager keeps."""

import contextlib
import hashlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading

import pytest

import admin
from binary import REDIALD, WRAP
from daemon import children
from deadline import deadline, eventually
from helpers import passing, passing_descriptors
from load import Load
from servers import echo, line_echo
from sockets import ask, connected, is_refused, listening, recv_exactly, recv_until_end

pytestmark = pytest.mark.skipif(bool(WRAP), reason="a tool around the daemon has its process id")


@pytest.fixture(params=[1, 4])
def workers(request):
    return request.param


@pytest.fixture
def address(port):
    return f"127.0.0.1:{port()}"


def proxy(listen, *servers, daemon="", workers=1, name="web", more=""):
    lines = "\n".join(f"server = {server}" for server in servers)
    return (f"[daemon]\nworkers = {workers}\naccess_log = all\n{daemon}\n"
            f"[proxy {name}]\nlisten = {listen}\n{lines}\n{more}\n")


class Upgraded:
    """The processes that a daemon has been, one after another; the last one is ended with the test."""

    def __init__(self):
        self.pids = []

    def upgrade(self, daemon, expect="upgraded"):
        since = daemon.mark()
        os.kill(self.pid(daemon), signal.SIGUSR2)
        line = daemon.wait_event(expect, since=since, timeout=15)
        if expect == "upgraded":
            self.pids.append(int(line["pid"]))
        return line

    def pid(self, daemon):
        return self.pids[-1] if self.pids else daemon.pid

    def end(self, number=signal.SIGTERM):
        for pid in self.pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        eventually(lambda: not any(is_alive(pid) for pid in self.pids), 15)


def is_alive(pid):
    """A process that nobody waits for is as good as gone."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as f:
            return f.read().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):  # before it was opened, or after
        return False


@pytest.fixture
def upgraded():
    chain = Upgraded()
    yield chain
    chain.end()


# SIGUSR2

def test_new_process_takes_over_and_the_old_one_drains(rediald, serve, connect, address, workers,
                                                       upgraded, tmp_path):
    path = tmp_path / "in.sock"
    daemon = rediald(proxy(f"{address} unix:{path} unix:@{address}", serve(line_echo(b"a")).address,
                           workers=workers))
    inode = path.stat().st_ino
    clients = [connect(where) for where in (address, f"unix:{path}", f"unix:@{address}")]
    for client in clients:
        client.sendall(b"1\n")
        assert recv_exactly(client, 4) == b"a 1\n"
    upgraded.upgrade(daemon)
    daemon.wait_notification(f"MAINPID={upgraded.pid(daemon)}")
    for where in address, f"unix:{path}", f"unix:@{address}":
        assert ask(where, b"2\n") == b"a 2\n"
    for client in clients:
        client.sendall(b"3\n")
        assert recv_exactly(client, 4) == b"a 3\n"
        client.close()
    assert daemon.wait_exit() == 0
    assert "STOPPING=1" not in daemon.notifications, "the service goes on"
    assert path.stat().st_ino == inode
    for where in address, f"unix:{path}", f"unix:@{address}":
        assert ask(where, b"4\n") == b"a 4\n"
    upgraded.end()
    assert is_refused(address) and not path.exists()


def test_admin_interface_goes_over(rediald, serve, connect, address, upgraded, tmp_path):
    places = [f"unix:{tmp_path}/admin.sock", "unix:@admin", "127.0.0.1:9100", "*:9101"]
    daemon = rediald(proxy(address, serve(echo).address, daemon=f"admin = {' '.join(places)}"))
    inode = (tmp_path / "admin.sock").stat().st_ino
    client = connect(address)
    client.sendall(b"1")
    assert recv_exactly(client, 1) == b"1"
    for _ in range(3):
        upgraded.upgrade(daemon)
        for place in places:
            assert admin.ask(place.replace("*", "127.0.0.1"), "/healthz").status == 200
        since = daemon.mark()
        assert admin.ask(places[0], "/reload", "POST").status == 200
        daemon.wait_event("reloaded", since=since)
    client.close()
    assert daemon.wait_exit() == 0
    assert (tmp_path / "admin.sock").stat().st_ino == inode
    upgraded.end()
    assert is_refused(places[0]) and not (tmp_path / "admin.sock").exists()


def test_nobody_is_refused_during_ten_upgrades(rediald, serve, address, workers, upgraded):
    daemon = rediald(proxy(address, serve(echo).address, workers=workers))
    size, sent, got = 4 << 20, hashlib.sha256(), hashlib.sha256()

    def send(sock):
        block = os.urandom(1 << 16)
        for _ in range(size // len(block)):
            sent.update(block)
            sock.sendall(block)
        sock.shutdown(socket.SHUT_WR)
    with Load(address, 3) as load, connected(address) as long:
        sender = threading.Thread(target=send, args=(long,))
        sender.start()
        for _ in range(10):
            upgraded.upgrade(daemon)
        while block := long.recv(1 << 16):
            got.update(block)
        sender.join()
    assert load.faults == []
    assert load.done > 20
    assert got.digest() == sent.digest()


def test_number_of_workers_may_change(rediald, serve, address, upgraded, tmp_path):
    path = tmp_path / "rediald.conf"
    server = serve(echo).address
    path.write_text(proxy(address, server, workers=4))
    daemon = rediald(args=("-c", str(path)))
    for workers in 1, 3, 2, 4:
        path.write_text(proxy(address, server, workers=workers))
        with Load(address, 2) as load:
            upgraded.upgrade(daemon)
        assert load.faults == []
        for _ in range(20):
            assert ask(address, b"hello") == b"hello"


def test_program_that_does_not_start_changes_nothing(rediald, serve, connect, address, upgraded,
                                                     tmp_path):
    path = tmp_path / "rediald.conf"
    server = serve(line_echo(b"a")).address
    path.write_text(proxy(address, server))
    daemon = rediald(args=("-c", str(path)))
    daemon.allowed_errors |= {"upgrade_failed"}
    client = connect(address)
    client.sendall(b"1\n")
    assert recv_exactly(client, 4) == b"a 1\n"
    path.write_text("nonsense\n")
    assert upgraded.upgrade(daemon, "upgrade_failed")["status"] == "78"
    client.sendall(b"2\n")
    assert recv_exactly(client, 4) == b"a 2\n"
    assert ask(address, b"3\n") == b"a 3\n"
    path.write_text(proxy(address, server))
    upgraded.upgrade(daemon)
    client.close()
    assert daemon.wait_exit() == 0
    assert ask(address, b"4\n") == b"a 4\n"


def test_program_that_is_not_there_changes_nothing(serve, address, tmp_path, rediald, monkeypatch):
    copy = tmp_path / "rediald"
    shutil.copy(REDIALD, copy)
    monkeypatch.setattr("daemon.REDIALD", str(copy))
    daemon = rediald(proxy(address, serve(echo).address))
    daemon.allowed_errors |= {"upgrade_failed"}
    copy.unlink()
    daemon.signal(signal.SIGUSR2)
    daemon.wait_event("upgrade_failed", status=127)
    assert ask(address, b"hello") == b"hello"


def test_listener_that_goes_with_the_upgrade_is_closed(rediald, serve, port, upgraded, tmp_path):
    path, sock = tmp_path / "rediald.conf", tmp_path / "in.sock"
    first, second, third = (f"127.0.0.1:{port()}" for _ in range(3))
    server = serve(echo).address
    path.write_text(proxy(f"{first} {second} unix:{sock}", server))
    daemon = rediald(args=("-c", str(path)))
    path.write_text(proxy(f"{first} {third}", server))
    upgraded.upgrade(daemon)
    daemon.wait_event("socket_dropped", address=second)
    assert daemon.wait_exit() == 0
    assert ask(first, b"hello") == ask(third, b"hello") == b"hello"
    assert is_refused(second) and not sock.exists()


def test_upgrade_that_fails_leaves_everything_in_its_place(rediald, serve, port, upgraded,
                                                           tmp_path):
    path, kept, dropped = (tmp_path / name for name in ("rediald.conf", "kept", "dropped"))
    taken, server = f"127.0.0.1:{port()}", serve(echo).address
    path.write_text(proxy(f"unix:{kept} unix:{dropped}", server))
    daemon = rediald(args=("-c", str(path)))
    daemon.allowed_errors |= {"upgrade_failed", "listen_failed"}
    with listening(taken):
        path.write_text(proxy(f"unix:{kept} {taken}", server))
        assert upgraded.upgrade(daemon, "upgrade_failed")["status"] == "71"
    for where in kept, dropped:
        assert ask(f"unix:{where}", b"hello") == b"hello"


def test_upgrade_that_fails_leaves_the_admin_interface(rediald, serve, port, upgraded, tmp_path):
    path, admin = tmp_path / "rediald.conf", tmp_path / "admin.sock"
    address, taken, server = f"127.0.0.1:{port()}", f"127.0.0.1:{port()}", serve(echo).address
    path.write_text(proxy(address, server, daemon=f"admin = unix:{admin}"))
    daemon = rediald(args=("-c", str(path)))
    daemon.allowed_errors |= {"upgrade_failed", "admin_failed"}
    with listening(taken):
        path.write_text(proxy(address, server, daemon=f"admin = unix:{admin} {taken}"))
        assert upgraded.upgrade(daemon, "upgrade_failed")["status"] == "71"
    with connected(f"unix:{admin}") as client:
        client.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
        assert client.recv(12) == b"HTTP/1.1 200"


def test_service_manager_hears_the_new_process_once_that_is_the_service(rediald, serve, port,
                                                                        upgraded, tmp_path):
    """NotifyAccess=main: what it told before would be lost."""
    path, sock = tmp_path / "rediald.conf", tmp_path / "in.sock"
    first, second, third = (f"127.0.0.1:{port()}" for _ in range(3))
    server = serve(echo).address
    path.write_text(proxy(f"{first} {second} unix:{sock}", server))
    daemon = rediald(args=("-c", str(path)), env=KEEPS)
    eventually(lambda: len(daemon.kept) == 4)
    path.write_text(proxy(f"{first} {third}", server))
    mark = daemon.mark_notifications()
    upgraded.upgrade(daemon)
    main = f"MAINPID={upgraded.pid(daemon)}"
    daemon.wait_notification(main, since=mark)
    daemon.wait_notification("READY=1", since=mark)
    eventually(lambda: {name for name, _fd in daemon.kept} ==
               {"redial/" + where.replace(":", ";") for where in (first, third)})
    told = daemon.notifications[mark:]
    assert not {"READY=1", "FDSTORE=1", "FDSTOREREMOVE=1"} & set(told[:told.index(main)])


def test_reload_that_the_old_process_is_asked_for_as_it_gives_way_is_done_by_the_new_one(
        rediald, serve, port, upgraded, tmp_path):
    """The service manager has not heard of the new process yet, and waits for the reload (Type=notify-reload)."""
    path = tmp_path / "rediald.conf"
    first, added = (f"127.0.0.1:{port()}" for _ in range(2))
    server = serve(echo).address
    path.write_text(proxy(first, server))
    daemon = rediald(args=("-c", str(path)))
    daemon.barriers = held = []
    mark = daemon.mark_notifications()
    daemon.signal(signal.SIGUSR2)
    upgraded.pids.append(int(daemon.wait_event("upgrading")["pid"]))
    daemon.wait_notification("BARRIER=1", since=mark)
    path.write_text(proxy(f"{first} {added}", server))
    daemon.signal(signal.SIGHUP)
    daemon.barriers = None
    for fd in held:
        os.close(fd)
    daemon.wait_event("reloaded")
    assert daemon.wait_exit() == 0
    assert ask(added, b"hello") == b"hello"
    told = [text for text in daemon.notifications[mark:] if text.partition("=")[0] in
            ("MAINPID", "READY", "RELOADING")]
    assert told == [f"MAINPID={upgraded.pid(daemon)}", "READY=1", "RELOADING=1", "READY=1"]


def test_new_process_is_no_child_of_the_old_one(rediald, serve, connect, address, upgraded):
    """systemd would take it for somebody else's."""
    daemon = rediald(proxy(address, serve(echo).address))
    client = connect(address)
    client.sendall(b"x")
    assert client.recv(1) == b"x"
    upgraded.upgrade(daemon)
    daemon.wait_notification(f"MAINPID={upgraded.pid(daemon)}")
    with open(f"/proc/{upgraded.pid(daemon)}/status", encoding="ascii") as f:
        parent = next(int(line.split()[1]) for line in f if line.startswith("PPid:"))
    assert parent != daemon.pid
    assert not children(daemon.pid)


def test_old_process_drains_whoever_is_told_to_stop(rediald, serve, connect, address, upgraded):
    """systemd sends SIGTERM to every process of a service, and once more when the first has ended."""
    daemon = rediald(proxy(address, serve(echo).address))
    client = connect(address)
    client.sendall(b"x")
    assert client.recv(1) == b"x"
    upgraded.upgrade(daemon)
    for number in signal.SIGTERM, signal.SIGTERM:
        daemon.signal(number)
        daemon.signal(signal.SIGHUP)
        daemon.wait_event("reload_ignored", count=len(daemon.events("reload_ignored")) + 1)
        client.sendall(b"y")
        assert client.recv(1) == b"y"
    daemon.signal(signal.SIGINT)
    assert recv_until_end(client) == (b"", "reset")
    assert daemon.wait_exit() == 0


def test_passed_sockets_are_passed_on(rediald, serve, address, upgraded):
    with listening(address) as sock:
        daemon = rediald(proxy("systemd:web", serve(echo).address), **passing(("web", sock)))
        for _ in range(3):
            upgraded.upgrade(daemon)
            assert ask(address, b"hello") == b"hello"


def test_second_signal_while_it_ends_is_refused(rediald, serve, connect, address, upgraded):
    daemon = rediald(proxy(address, serve(echo).address))
    client = connect(address)
    client.sendall(b"x")
    assert client.recv(1) == b"x"
    upgraded.upgrade(daemon)
    daemon.signal(signal.SIGUSR2)
    daemon.wait_event("upgrade_refused")


def test_watchdog_is_fed_by_whoever_has_taken_over(rediald, serve, address, upgraded):
    script = (sys.executable, "-c", "import os, sys; os.environ['WATCHDOG_PID'] = str(os.getpid());"
              " os.execvp(sys.argv[1], sys.argv[1:])")
    daemon = rediald(proxy(address, serve(echo).address), prefix=script,
                     env={"WATCHDOG_USEC": str(int(deadline(0.4) * 1e6))})
    daemon.wait_notification("WATCHDOG=1")
    upgraded.upgrade(daemon)
    assert daemon.wait_exit() == 0
    daemon.wait_notification("WATCHDOG=1", since=daemon.mark_notifications(), count=2)


def test_process_one_refuses(serve, address, tmp_path):
    """With it everything would end."""
    conf = tmp_path / "rediald.conf"
    conf.write_text(proxy(address, serve(echo).address))
    argv = ["unshare", "--pid", "--fork", "--kill-child", REDIALD, "-c", str(conf)]
    with subprocess.Popen(argv, stderr=subprocess.PIPE, text=True) as process:
        try:
            eventually(lambda: not is_refused(address))
            inner = children(process.pid)[0]
            os.kill(inner, signal.SIGUSR2)
            line = next(line for line in process.stderr if "event=upgrade_refused" in line)
            assert "process 1" in line
            assert ask(address, b"hello") == b"hello"
            os.kill(inner, signal.SIGTERM)
            process.communicate(timeout=deadline(10))
        finally:
            process.kill()


# What the service manager keeps

KEEPS = {"FDSTORE": "64"}


def test_kept_sockets_come_back(rediald, serve, address, workers, tmp_path):
    path, server = tmp_path / "in.sock", serve(line_echo(b"a")).address
    text = proxy(f"{address} unix:{path}", server, workers=workers)
    first = rediald(text, env=KEEPS)
    eventually(lambda: len(first.kept) == workers + 2, what="the workers', the UNIX one, its lock")
    first.terminate()
    assert path.exists()
    with connected(address) as early, connected(f"unix:{path}") as unix:
        for client in early, unix:
            client.sendall(b"1\n")
        second = rediald(text, env=KEEPS, **passing_descriptors(first.kept))
        for client in early, unix:
            assert recv_exactly(client, 4) == b"a 1\n"
    assert not second.events("socket_unused")
    for where in address, f"unix:{path}":
        assert ask(where, b"2\n") == b"a 2\n"


def test_kept_sockets_of_more_workers_are_all_served(rediald, serve, address):
    server = serve(echo).address
    first = rediald(proxy(address, server, workers=4), env=KEEPS)
    eventually(lambda: len(first.kept) == 4)
    first.terminate()
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(connected(address)) for _ in range(40)]
        for client in clients:
            client.sendall(b"x")
        rediald(proxy(address, server, workers=1), env=KEEPS, **passing_descriptors(first.kept))
        assert {recv_exactly(client, 1) for client in clients} == {b"x"}


def test_kept_socket_whose_path_is_gone_is_made_anew(rediald, serve, tmp_path):
    """With the directory that systemd makes for each start."""
    directory = tmp_path / "run"
    directory.mkdir()
    path, server = directory / "in.sock", serve(echo).address
    first = rediald(proxy(f"unix:{path}", server), env=KEEPS)
    eventually(lambda: len(first.kept) == 2)
    first.terminate()
    shutil.rmtree(directory)
    directory.mkdir()
    second = rediald(proxy(f"unix:{path}", server), env=KEEPS, **passing_descriptors(first.kept))
    assert ask(f"unix:{path}", b"hello") == b"hello"
    told = second.notifications
    eventually(lambda: len(second.kept) == 2)
    assert told.index("FDSTOREREMOVE=1") < told.index("FDSTORE=1")


def test_listener_that_is_dropped_is_forgotten(rediald, serve, port, tmp_path):
    first, second = (f"127.0.0.1:{port()}" for _ in range(2))
    path, server = tmp_path / "rediald.conf", serve(echo).address
    path.write_text(proxy(f"{first} {second}", server))
    daemon = rediald(args=("-c", str(path)), env=KEEPS)
    eventually(lambda: len(daemon.kept) == 2)
    path.write_text(proxy(first, server))
    daemon.signal(signal.SIGHUP)
    daemon.wait_event("reloaded")
    eventually(lambda: [name for name, _fd in daemon.kept] == ["redial/" + first.replace(":", ";")])
    path.write_text(proxy(f"{first} {second}", server))
    daemon.signal(signal.SIGHUP)
    daemon.wait_event("reloaded", count=2)
    eventually(lambda: len(daemon.kept) == 2)


def test_without_a_store_nothing_is_kept(rediald, serve, address):
    daemon = rediald(proxy(address, serve(echo).address))
    assert ask(address, b"hello") == b"hello"
    daemon.terminate()
    assert not daemon.kept
