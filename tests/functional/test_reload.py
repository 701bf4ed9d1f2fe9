# SPDX-License-Identifier: MIT
"""SIGHUP: from one configuration to the next, without a client that notices."""

import contextlib
import hashlib
import os
import signal
import socket
import stat
import threading

import pytest

from binary import BINARY_IS_SANITIZED
from deadline import eventually, pass_time
from helpers import passing
from load import Load
from servers import Server, answer_after_eof, echo, line_echo
from sockets import (ask, backlogs, connected, fate, is_refused, listening, recv_exactly,
                     recv_until_end)


@pytest.fixture(params=[1, 4])
def workers(request):
    return request.param


class Configured:
    """A daemon whose file can be written anew."""

    def __init__(self, rediald, path, workers=1):
        self.path = path
        self.workers = workers
        self._start = rediald
        self.daemon = None

    def start(self, text, **kwargs):
        self.write(text)
        self.daemon = self._start(args=("-c", str(self.path)), **kwargs)
        self.daemon.standby = 64
        return self.daemon

    def write(self, text):
        if "[daemon]" not in text:
            text = f"[daemon]\nworkers = {self.workers}\naccess_log = all\n{text}"
        new = self.path.with_suffix(".new")
        new.write_text(text)
        new.replace(self.path)  # a reload that is under way reads the one or the other

    def reload(self, text=None, event="reloaded"):
        if text is not None:
            self.write(text)
        since = self.daemon.mark()
        self.daemon.signal(signal.SIGHUP)
        self.daemon.wait_event(event, since=since)
        return since

    def fail(self, text):
        """A reload that must fail; returns the lines that say why."""
        self.daemon.allowed_errors |= {"reload_fault", "reload_failed", "listen_failed",
                                       "listen_port_in_range"}
        since = self.reload(text, "reload_failed")
        return "\n".join(line.text for line in self.daemon.events("reload_fault", since=since))


@pytest.fixture
def configured(rediald, tmp_path, workers):
    return Configured(rediald, tmp_path / "rediald.conf", workers)


@pytest.fixture
def address(port):
    return f"127.0.0.1:{port()}"


def proxy(listen, *servers, name="web", more=""):
    lines = "\n".join(f"server = {server}" for server in servers)
    return f"[proxy {name}]\nlisten = {listen}\n{lines}\n{more}\n"


def says(sock, text):
    sock.sendall(text + b"\n")
    with sock.makefile("rb") as lines:
        return lines.readline()


# What is told

def test_reload_is_told_to_log_and_service_manager(configured, serve, address):
    text = proxy(address, serve(echo).address)
    daemon = configured.start(text)
    mark = daemon.mark_notifications()
    configured.reload()
    daemon.wait_notification("READY=1", since=mark)
    told = daemon.notifications[mark:]
    assert told[0] == "RELOADING=1"
    assert int(told[1].removeprefix("MONOTONIC_USEC=")) > 0
    assert told.index("READY=1") == 2
    assert ask(address, b"hello") == b"hello"


def test_many_signals_are_one_reload_or_a_few(configured, serve, address):
    daemon = configured.start(proxy(address, serve(echo).address))
    for _ in range(50):
        daemon.signal(signal.SIGHUP)
    daemon.wait_event("reloaded")
    assert ask(address, b"hello") == b"hello"


@pytest.mark.parametrize("bad,says_why", [
    ("[proxy web]\nlisten = 127.0.0.1\nserver = 127.0.0.1:1\n", "rediald.conf:5: [proxy web] listen: "),
    ("[proxy web\n", "rediald.conf:4: "),
    ("", "there is no proxy"),
])
def test_bad_file_changes_nothing(configured, serve, connect, address, bad, says_why):
    daemon = configured.start(proxy(address, serve(line_echo(b"a")).address))
    client = connect(address)
    assert says(client, b"1") == b"a 1\n"
    mark = daemon.mark_notifications()
    assert says_why in configured.fail(bad)
    daemon.wait_notification("READY=1", since=mark)
    assert says(client, b"2") == b"a 2\n"
    assert ask(address, b"3\n") == b"a 3\n"
    configured.reload(proxy(address, serve(line_echo(b"b")).address))
    assert ask(address, b"4\n") == b"b 4\n"


def test_file_that_is_gone_changes_nothing(configured, serve, address):
    configured.start(proxy(address, serve(echo).address))
    configured.path.unlink()
    assert "rediald.conf" in configured.fail(None)
    assert ask(address, b"hello") == b"hello"


@pytest.mark.parametrize("key", ["workers = 2", "user = root", "group = root", "splice = off"])
def test_what_needs_a_restart_is_told(rediald, tmp_path, serve, address, key):
    configured = Configured(rediald, tmp_path / "rediald.conf")
    text = proxy(address, serve(echo).address)
    daemon = configured.start("[daemon]\nworkers = 1\n" + text)
    more = key if key.startswith("workers") else f"workers = 1\n{key}"
    since = configured.reload(f"[daemon]\n{more}\n{text}")
    daemon.wait_event("restart_needed", since=since, key=key.split()[0])
    assert ask(address, b"hello") == b"hello"


def test_log_level_and_access_log_change(configured, serve, address):
    server = serve(echo)
    daemon = configured.start(f"[daemon]\naccess_log = off\n{proxy(address, server.address)}")
    ask(address, b"hello")
    configured.reload(f"[daemon]\naccess_log = all\n{proxy(address, server.address)}")
    ask(address, b"hello")
    daemon.session(bytes_to_server=5)
    assert len(daemon.events("session")) == 1
    configured.reload(f"[daemon]\naccess_log = all\nlog_level = notice\n"
                      f"{proxy(address, server.address)}")
    ask(address, b"hello!")
    configured.reload(f"[daemon]\naccess_log = all\n{proxy(address, server.address)}")
    ask(address, b"again")
    daemon.session(bytes_to_server=5, count=2)
    assert not daemon.events("session", bytes_to_server=6)


def test_reload_while_ending_is_ignored(configured, serve, connect, address):
    daemon = configured.start(proxy(address, serve(echo).address))
    client = connect(address)
    client.sendall(b"x")
    assert client.recv(1) == b"x"
    daemon.signal(signal.SIGTERM)
    daemon.wait_event("draining")
    daemon.signal(signal.SIGHUP)
    daemon.wait_event("reload_ignored")
    client.sendall(b"y")
    assert client.recv(1) == b"y"


def test_command_line_is_a_configuration_too(rediald, serve, address):
    daemon = rediald(args=("--listen", address, "--server", serve(echo).address))
    daemon.signal(signal.SIGHUP)
    daemon.wait_event("reloaded")
    assert ask(address, b"hello") == b"hello"


# Listeners

def test_proxy_is_added_and_removed(configured, serve, port, tmp_path):
    first, second = (f"127.0.0.1:{port()}" for _ in range(2))
    path = tmp_path / "sock"
    server = serve(echo).address
    one, two = proxy(first, server), proxy(f"{second} unix:{path}", server, name="two")
    daemon = configured.start(one)
    assert is_refused(second)
    configured.reload(one + two)
    for address in first, second, f"unix:{path}":
        assert ask(address, b"hello") == b"hello"
    configured.reload(two)
    assert is_refused(first)
    assert ask(second, b"hello") == b"hello"
    configured.reload(one)
    assert is_refused(second) and not path.exists()
    assert ask(first, b"hello") == b"hello"
    daemon.terminate()


def test_listener_that_stays_is_the_same_socket(configured, serve, port):
    """Whatever changes around it: its proxy's options, name, servers, its place in the file."""
    address, other = (f"127.0.0.1:{port()}" for _ in range(2))
    server = serve(echo)
    daemon = configured.start(proxy(address, server.address))

    def listeners():
        at = int(address.rpartition(":")[2])
        with open("/proc/thread-self/net/tcp", encoding="ascii") as f:
            rows = [line.split() for line in f.readlines()[1:]]
        return {r[9] for r in rows if r[3] == "0A" and int(r[1].rpartition(":")[2], 16) == at}
    before = listeners()
    assert len(before) == configured.workers
    for text in (proxy(address, server.address, more="idle_timeout = 1h"),
                 proxy(address, server.address, name="other", more="backlog = 17"),
                 proxy(other, server.address) + proxy(address, server.address, name="last"),
                 proxy(f"{other} {address}", f"127.0.0.1:{server.port + 1}")):
        configured.reload(text)
        assert listeners() == before
    assert not daemon.events("listen_failed")


def test_clients_in_the_backlog_are_served(rediald, tmp_path, serve, address):
    """Nobody accepts, for the proxy is full; then its proxy becomes another."""
    configured = Configured(rediald, tmp_path / "rediald.conf")
    server = serve(line_echo(b"a"))
    configured.start(proxy(address, server.address, more="max_sessions = 1"))
    with connected(address) as first, connected(address) as second:
        assert says(first, b"1") == b"a 1\n"
        configured.reload(proxy(address, server.address, name="renamed"))
        assert says(second, b"2") == b"a 2\n"


def test_address_in_use_changes_nothing(configured, serve, port):
    first, taken = (f"127.0.0.1:{port()}" for _ in range(2))
    third = f"127.0.0.1:{port()}"
    server = serve(echo).address
    with listening(taken):
        configured.start(proxy(first, server))
        said = configured.fail(proxy(first, server) + proxy(third, server, name="third") +
                               proxy(taken, server, name="two"))
        assert taken in said and "use" in said
        assert ask(first, b"hello") == b"hello"
        assert is_refused(third)
    configured.reload()
    for address in first, taken, third:
        assert ask(address, b"hello") == b"hello"


def test_port_in_the_ephemeral_range_changes_nothing(configured, serve, address, port):
    server = serve(echo).address
    low = int(open("/proc/sys/net/ipv4/ip_local_port_range", encoding="ascii").read().split()[0])
    configured.start(proxy(address, server))
    said = configured.fail(f"[daemon]\nport_range_check = error\n"
                           f"{proxy(f'127.0.0.1:{low + 2}', server)}")
    assert "port_range_check" in said
    assert ask(address, b"hello") == b"hello"


def test_options_of_a_unix_socket_change(configured, serve, tmp_path):
    path, server = tmp_path / "sock", serve(echo).address
    configured.start(proxy(f"unix:{path}", server, more="unix_mode = 0600"))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    inode = path.stat().st_ino
    configured.reload(proxy(f"unix:{path}", server, more="unix_mode = 0666"))
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 and path.stat().st_ino == inode
    assert ask(f"unix:{path}", b"hello") == b"hello"


def test_backlog_changes(configured, address):
    server = "192.0.2.1:80"
    configured.start(proxy(address, server))
    assert backlogs() == [(address, 4096)] * configured.workers
    configured.reload(proxy(address, server, more="backlog = 77"))
    assert backlogs() == [(address, 77)] * configured.workers


def test_passed_socket_is_taken_and_let_go(configured, serve, port):
    address, other = (f"127.0.0.1:{port()}" for _ in range(2))
    server = serve(echo).address
    with listening(address) as sock:
        daemon = configured.start(proxy(other, server), **passing(("web", sock)))
        daemon.wait_event("socket_unused", socket="web")
        for _ in range(2):
            configured.reload(proxy(other, server) + proxy("systemd:web", server, name="two"))
            assert ask(address, b"hello") == b"hello"
            configured.reload(proxy(other, server))
            with connected(address) as client:  # its owner keeps it: it waits
                configured.reload(proxy(other, server) + proxy("systemd:web", server, name="two"))
                client.sendall(b"hello")
                assert recv_exactly(client, 5) == b"hello"


# Sessions

def test_sessions_go_on_as_they_began(configured, serve, connect, address, port):
    a, b = serve(line_echo(b"a")), serve(line_echo(b"b"))
    daemon = configured.start(proxy(address, a.address))
    clients = [connect(address) for _ in range(8)]
    assert {says(client, b"1") for client in clients} == {b"a 1\n"}
    configured.reload(proxy(address, b.address))
    assert {says(client, b"2") for client in clients} == {b"a 2\n"}
    assert ask(address, b"3\n") == b"b 3\n"
    configured.reload(proxy(f"127.0.0.1:{port()}", b.address, name="other"))
    assert {says(client, b"4") for client in clients} == {b"a 4\n"}
    for client in clients:
        client.shutdown(socket.SHUT_WR)
        assert client.recv(1) == b""
    daemon.session(count=8, reason="client_closed", proxy="web", upstream="web", server=a.address)


def test_old_timeouts_hold_for_old_sessions(configured, serve, connect, address):
    server = serve(echo).address
    daemon = configured.start(proxy(address, server, more="idle_timeout = 500ms"))
    client = connect(address)
    client.sendall(b"x")
    assert client.recv(1) == b"x"
    configured.reload(proxy(address, server, more="idle_timeout = 1h"))
    second = connect(address)
    second.sendall(b"x")
    assert second.recv(1) == b"x"
    assert recv_until_end(client) == (b"", "reset")
    daemon.session(reason="idle_timeout")
    second.sendall(b"y")
    assert second.recv(1) == b"y"


def test_drain_waits_for_sessions_of_old_configurations(configured, serve, connect, address):
    server = serve(answer_after_eof(1, b"late"))
    daemon = configured.start(proxy(address, server.address, more="standby = 0"))
    client = connect(address)
    client.sendall(b"x")
    server.wait_accepted(2)  # the probe, and this one
    configured.reload(proxy(address, serve(echo).address))
    client.shutdown(socket.SHUT_WR)
    daemon.signal(signal.SIGTERM)
    assert recv_until_end(client) == (b"late", "eof")
    assert daemon.wait_exit() == 0


def test_old_sessions_are_cut_at_the_end_of_the_drain(configured, serve, connect, address):
    more = f"[daemon]\nworkers = {configured.workers}\ndrain_timeout = 200ms\n"
    daemon = configured.start(more + proxy(address, serve(echo).address))
    client = connect(address)
    client.sendall(b"x")
    assert client.recv(1) == b"x"
    configured.reload(more + proxy(address, serve(echo).address, name="new"))
    daemon.signal(signal.SIGTERM)
    assert recv_until_end(client) == (b"", "reset")
    daemon.wait_event("stopped", sessions_cut=1)
    assert daemon.wait_exit() == 0


def test_max_sessions_counts_those_of_old_configurations(configured, serve, connect, address):
    server = serve(line_echo(b"a")).address
    daemon = configured.start(proxy(address, server, more="max_sessions = 2"))
    first, second = connect(address), connect(address)
    assert says(first, b"1") == says(second, b"1") == b"a 1\n"
    configured.reload(proxy(address, server, more="max_sessions = 2\nidle_timeout = 1h"))
    third = connect(address)
    third.sendall(b"3\n")
    daemon.wait_event("accept_paused", limit="max_sessions")
    second.close()
    assert recv_exactly(third, 4) == b"a 3\n"
    fourth = connect(address)
    fourth.sendall(b"4\n")
    configured.reload(proxy(address, server, more="max_sessions = 3\nidle_timeout = 1h"))
    assert recv_exactly(fourth, 4) == b"a 4\n"


# Servers

def test_unchanged_servers_keep_state_and_standby_connections(configured, serve, address, port):
    server, dead = serve(line_echo(b"a")), f"127.0.0.1:{port()}"
    text = proxy(address, server.address, dead)
    daemon = configured.start(text)
    daemon.wait_event("server_up", server=server.address)
    daemon.wait_event("server_down", server=dead)
    server.wait_accepted(1)
    more = proxy(f"127.0.0.1:{port()}", dead, name="two")
    for i in range(5):
        configured.reload(text if i % 2 else text + more)
    assert ask(address, b"1\n") == b"a 1\n"
    assert len(daemon.events("server_up", upstream="web")) == 1
    assert len(daemon.events("server_down", upstream="web")) == 1
    # That of the start was given to the client, and one took its place: none was dialled anew.
    server.wait_accepted(2)
    assert server.accepted == 2


def test_servers_of_a_changed_upstream_keep_their_state(configured, serve, address, port):
    server, dead = serve(line_echo(b"a")), f"127.0.0.1:{port()}"
    daemon = configured.start(proxy(address, server.address, dead, more="standby = 0"))
    daemon.wait_event("server_up", server=server.address)
    daemon.wait_event("server_down", server=dead)
    for i in range(5):
        configured.reload(proxy(address, dead, f"{server.address} weight={i + 1}",
                                more=f"standby = 0\nwait_timeout = {i + 1}s"))
        assert ask(address, b"1\n") == b"a 1\n"
    assert len(daemon.events("server_up")) == len(daemon.events("server_down")) == 1
    assert server.accepted == 6, "the probe of the start, and a dial for each client"


def test_server_that_dies_after_a_reload_is_down_and_comes_back(configured, serve, address):
    server = serve(line_echo(b"a"))
    daemon = configured.start(proxy(address, server.address))
    daemon.wait_event("server_up")
    configured.reload(proxy(address, server.address, more="wait_timeout = 20s"))
    server.kill()
    daemon.wait_event("server_down")
    since = daemon.mark()
    with connected(address) as client:
        client.sendall(b"1\n")
        configured.reload(proxy(address, server.address, more="wait_timeout = 21s"))
        with Server(server.address, line_echo(b"b")):
            assert recv_exactly(client, 4) == b"b 1\n"
            daemon.wait_event("server_up", since=since)
            # Before its server goes, and a session could end as anything.
            client.shutdown(socket.SHUT_WR)
            assert client.recv(1) == b""


def test_removed_server_is_not_dialled_any_more(configured, serve, address, port):
    server, dead = serve(echo), f"127.0.0.1:{port()}"
    daemon = configured.start(proxy(address, server.address, dead))
    daemon.wait_event("server_down", server=dead)
    configured.reload(proxy(address, server.address))
    with Server(dead, echo) as revived:
        pass_time(1.5)
        assert revived.accepted == 0
    assert not daemon.events("server_up", server=dead)


def test_standby_connections_of_a_changed_upstream_are_made_anew(configured, serve, address):
    server = serve(echo)
    configured.start(proxy(address, server.address, more="standby = 4"))
    server.wait_live(4)
    configured.reload(proxy(address, server.address, more="standby = 2"))
    server.wait_live(2)
    configured.reload(proxy(address, server.address, more="standby = 0"))
    server.wait_live(0)
    configured.reload(proxy(address, server.address, more="standby = 3"))
    server.wait_live(3)


# Clients that wait

def test_waiting_clients_go_to_the_new_servers(configured, serve, address, port):
    """The address was wrong: whoever was held meanwhile is served once it is right."""
    server = serve(line_echo(b"a"))
    daemon = configured.start(proxy(address, f"127.0.0.1:{port()}"))
    daemon.wait_event("server_down")
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(connected(address)) for _ in range(20)]
        for client in clients:
            client.sendall(b"1\n")
        daemon.wait_notification("STATUS=sessions: 20 (waiting: 20)")
        configured.reload(proxy(address, server.address))
        assert {recv_exactly(client, 4) for client in clients} == {b"a 1\n"}
        for client in clients:
            client.shutdown(socket.SHUT_WR)
            assert client.recv(1) == b""
    for line in [daemon.session(count=n + 1, server=server.address) for n in range(20)]:
        assert int(line["wait_ms"]) > 0


def test_waiting_clients_keep_their_deadline(configured, address, port):
    dead = f"127.0.0.1:{port()}"
    daemon = configured.start(proxy(address, dead, more="wait_timeout = 2s"))
    with connected(address) as client:
        daemon.wait_notification("STATUS=sessions: 1 (waiting: 1)")
        for n in range(4):
            configured.reload(proxy(address, dead, more=f"wait_timeout = 2s\nbackoff_max = {n + 5}s"))
        assert recv_until_end(client) == (b"", "reset")
    line = daemon.session(reason="wait_timeout")
    assert 1900 <= int(line["wait_ms"]) < 4000


def test_waiting_clients_of_a_proxy_that_goes_are_refused(configured, serve, address, port):
    other = f"127.0.0.1:{port()}"
    daemon = configured.start(proxy(address, f"127.0.0.1:{port()}"))
    with connected(address) as client:
        daemon.wait_notification("STATUS=sessions: 1 (waiting: 1)")
        configured.reload(proxy(other, serve(echo).address, name="other"))
        assert recv_until_end(client) == (b"", "reset")
    daemon.session(reason="no_server", proxy="web")


def test_waiting_clients_go_to_whoever_has_their_listener(configured, serve, address, port):
    server = serve(line_echo(b"a"))
    daemon = configured.start(proxy(address, f"127.0.0.1:{port()}"))
    with connected(address) as client:
        client.sendall(b"1\n")
        daemon.wait_notification("STATUS=sessions: 1 (waiting: 1)")
        configured.reload(proxy(address, server.address, name="renamed"))
        assert recv_exactly(client, 4) == b"a 1\n"
    daemon.session(proxy="renamed")


def test_when_down_follows_the_configuration(configured, serve, address, port):
    dead = f"127.0.0.1:{port()}"
    daemon = configured.start(proxy(address, dead, more="when_down = unlisten"))
    eventually(lambda: is_refused(address))
    configured.reload(proxy(address, dead, more="when_down = reset"))
    eventually(lambda: not is_refused(address))
    assert fate(address) == (b"", "reset")
    configured.reload(proxy(address, dead, more="when_down = unlisten"))
    eventually(lambda: is_refused(address))
    configured.reload(proxy(address, dead, more="when_down = unlisten\nbacklog = 100"))
    eventually(lambda: is_refused(address))
    server = serve(echo)
    configured.reload(proxy(address, server.address, more="when_down = unlisten"))
    eventually(lambda: not is_refused(address))
    assert ask(address, b"hello") == b"hello"
    daemon.wait_event("relistened")
    # Each change once, however often the configuration was.
    assert [line.event for line in daemon.lines if line.event in ("unlistened", "relistened")] == \
        ["unlistened", "relistened", "unlistened", "relistened"]


# Under load

def test_hundreds_of_reloads_refuse_nobody_and_leak_nothing(configured, serve, address, port):
    server, other = serve(echo), serve(echo)
    texts = [proxy(address, server.address),
             proxy(address, server.address, other.address, more="standby = 2"),
             proxy(address, other.address, name="renamed"),
             proxy(address, other.address) + proxy(f"127.0.0.1:{port()}", server.address, name="b"),
             f"[proxy web]\nlisten = {address}\nupstream = u\n[upstream u]\n"
             f"server = {server.address}\n"]
    daemon = configured.start(texts[0])
    size, digest, got = 8 << 20, hashlib.sha256(), hashlib.sha256()

    def send(sock):
        block = os.urandom(1 << 16)
        for _ in range(size // len(block)):
            digest.update(block)
            sock.sendall(block)
        sock.shutdown(socket.SHUT_WR)
    with Load(address, 4) as load, connected(address) as long:
        sender = threading.Thread(target=send, args=(long,))
        sender.start()
        for n in range(200):
            configured.reload(texts[n % len(texts)])
            if n == 100:  # the threads' heaps have found their sizes
                memory = resident(daemon)
        while block := long.recv(1 << 16):
            got.update(block)
        sender.join()
    assert load.faults == []
    assert load.done > 200
    assert got.digest() == digest.digest()
    configured.reload(texts[0])
    daemon.wait_descriptors_back()
    if not BINARY_IS_SANITIZED:  # what they hold in quarantine counts
        assert resident(daemon) < memory + 2048, "kB"


def resident(daemon):
    with open(f"/proc/{daemon._real_pid()}/status", encoding="ascii") as f:
        return next(int(line.split()[1]) for line in f if line.startswith("VmRSS:"))


def test_what_auto_learned_holds_until_its_section_changes(configured, serve, address, port):
    """standby = auto turns itself off before a server that speaks first."""
    def greeter(sock):
        sock.sendall(b"welcome\n")
        echo(sock)
    server, other = serve(greeter), f"127.0.0.1:{port()}"
    text = proxy(address, server.address)
    daemon = configured.start(text)
    daemon.wait_event("standby_off", server=server.address)
    accepted = server.accepted
    configured.reload(text + proxy(other, serve(echo).address, name="two"))
    daemon.wait_event("server_up", upstream="two")
    assert server.accepted == accepted and len(daemon.events("standby_off")) == 1
    configured.reload(proxy(address, server.address, more="wait_timeout = 9s"))
    daemon.wait_event("standby_off", server=server.address, count=2)
