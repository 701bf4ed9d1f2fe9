# SPDX-License-Identifier: MIT
"""Connections to a server that are there before a client is."""

import contextlib
import resource
import signal
import threading
import time

import pytest

from deadline import deadline, eventually, pass_time
from netns import SynCounter
from servers import echo, hang_up, line_echo
from sockets import (abort, ask, connected, crowd, fate, recv_exactly, recv_until_end)


@pytest.fixture
def address(port):
    return f"127.0.0.1:{port()}"


def proxy(listen, *servers, more="standby = auto"):
    lines = "\n".join(f"server = {server}" for server in servers)
    return f"[proxy web]\nlisten = {listen}\n{lines}\n{more}\n"


class Numbered:
    """A handler that answers each line with the number of its connection, and does with one what it is told."""

    def __init__(self, greeting=b""):
        self.greeting = greeting
        self.ends = []
        self._socks = []

    def on_accept(self, sock):
        self._socks.append(sock)

    def __call__(self, sock):
        n = self._socks.index(sock)
        if self.greeting:
            sock.sendall(self.greeting)
        with contextlib.suppress(OSError):
            while data := sock.recv(1 << 16):
                sock.sendall(b"%d " % n + data)
        self.ends.append(n)

    def end(self, n, how=abort):
        """End connection n, as the server."""
        eventually(lambda: len(self._socks) > n)
        how(self._socks[n])


def shut(sock):
    """FIN, as from a server that has had enough."""
    sock.shutdown(2)


def say(client, text=b"hello"):
    client.sendall(text)
    return client.recv(1 << 16)


# Kept ready

def test_client_is_served_without_a_dial(rediald, serve, connect, address):
    server = serve(Numbered())
    rediald(proxy(address, server.address), daemon_keys="workers = 1")
    server.wait_live(1)
    with SynCounter(server.port) as syns:
        client = connect(address)
        assert say(client) == b"0 hello"
        # It is replaced for the next one.
        server.wait_live(2)
        assert say(connect(address)) == b"1 hello"
        server.wait_live(3)
        assert syns.wait(2, deadline(5)) and syns.count == 2


def test_session_from_standby_is_told_without_an_attempt(rediald, serve, address):
    server = serve(Numbered())
    daemon = rediald(proxy(address, server.address), daemon_keys="workers = 1")
    server.wait_live(1)
    assert ask(address, b"hello") == b"0 hello"
    assert daemon.session(reason="client_closed").has({"attempts": 0, "connect_ms": 0})


@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize("number", [1, 2, 6])
def test_number_is_kept_by_all_workers_together(rediald, serve, address, workers, number):
    server = serve(Numbered())
    rediald(proxy(address, server.address, more=f"standby = {number}"),
            daemon_keys=f"workers = {workers}")
    server.wait_live(number)
    for _ in range(8):
        assert ask(address, b"hello").endswith(b" hello")
        server.wait_live(number)


def test_zero_is_none(rediald, serve, address):
    server = serve(Numbered())
    rediald(proxy(address, server.address, more="standby = 0"))
    server.wait_accepted(1)
    server.wait_live(0)
    assert ask(address, b"hello") == b"1 hello"
    server.wait_live(0)
    assert server.accepted == 2


def test_auto_is_none_where_a_proxy_header_is_sent(rediald, serve, address):
    server = serve(echo)
    daemon = rediald(proxy(address, server.address, more="send_proxy = v1"))
    daemon.wait_event("server_up")
    server.wait_accepted(1)
    server.wait_live(0)


def test_backup_is_kept_ready_too(rediald, serve, address):
    main, spare = serve(line_echo(b"main")), serve(line_echo(b"spare"))
    daemon = rediald(proxy(address, main.address, f"{spare.address} backup"))
    daemon.wait_event("server_up", count=2)
    main.wait_live(1)
    spare.wait_live(1)
    assert ask(address, b"x\n") == b"main x\n"


@pytest.mark.parametrize("balance", ["round_robin", "least_conn", "source_hash", "first"])
def test_every_policy_uses_them(rediald, serve, address, balance):
    servers = [serve(Numbered()) for _ in range(2)]
    rediald(proxy(address, *(s.address for s in servers), more=f"balance = {balance}"),
            daemon_keys="workers = 1")
    for server in servers:
        server.wait_live(1)
    assert ask(address, b"hello") == b"0 hello"


def test_unix_server(rediald, serve, address, tmp_path):
    server = serve(Numbered(), f"unix:{tmp_path}/server")
    rediald(proxy(address, server.address), daemon_keys="workers = 1")
    server.wait_live(1)
    assert ask(address, b"hello") == b"0 hello"


def test_too_old_is_replaced(rediald, serve, address):
    said = Numbered()
    server = serve(said)
    rediald(proxy(address, server.address, more="standby = 1\nstandby_max_age = 300ms"))
    server.wait_accepted(4)
    eventually(lambda: len(said.ends) >= 3)
    assert sorted(said.ends[:3]) == [0, 1, 2]
    server.wait_live(1)


def test_max_sessions_of_the_server_counts_them(rediald, serve, connect, address):
    most = []
    server = serve(lambda sock: (most.append(server.live), echo(sock)))
    daemon = rediald(proxy(address, f"{server.address} max_sessions=2", more="standby = 2"),
                     daemon_keys="workers = 1")
    server.wait_live(2)
    first = connect(address)
    assert say(first) == b"hello"
    assert say(connect(address)) == b"hello"
    first.close()
    daemon.session(reason="client_closed")
    server.wait_live(2)
    assert max(most) == 2


def test_place_that_another_worker_frees_is_filled(rediald, serve, address):
    said = Numbered()
    server = serve(said)
    rediald(proxy(address, f"{server.address} max_sessions=2"), daemon_keys="workers = 2")

    def client_of(worker_has_standby, live):
        """A session on the one worker that keeps a standby connection, or on the other."""
        while True:
            server.wait_live(live)
            newest = server.accepted - 1
            client = connected(address)
            number = int(say(client).split()[0])
            if (number == newest) == worker_has_standby:
                return client
            client.close()
            eventually(lambda: number in said.ends)
    with client_of(False, live=1) as other:
        with client_of(True, live=2):
            server.wait_live(2)  # two sessions, and no place for more
            pass_time(1.5)       # they come of age after 1 s: then places are looked for as well
            accepted = server.accepted
            other.close()
            server.wait_accepted(accepted + 1)


@pytest.mark.parametrize("workers", [1, 2])
def test_clients_find_descriptors_left(rediald, serve, connect, address, workers):
    server = serve(echo)
    most = 800

    def few():
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    # Alone, they would take all there are.
    daemon = rediald(proxy(address, server.address, more="standby = 1000"),
                     daemon_keys=f"workers = {workers}", preexec=few)
    told = daemon.wait_event("standby_limited", wanted=1000)
    allowed = int(told["allowed"])
    assert told.level == "warning" and 0 < allowed < most / 3
    server.wait_live(allowed)
    for n in range(1, 21):
        assert say(connect(address)) == b"hello"
        server.wait_live(allowed + n)
    assert not daemon.events("accept_paused")


def test_dial_for_a_client_that_is_ours_finds_room(rediald, serve, address, port):
    """It is given no standby connection, which must not keep it from a server that has but one place."""
    place = threading.Lock()

    def one_at_a_time(sock):
        with place:
            echo(sock)
    server = serve(one_at_a_time)
    outer = f"127.0.0.1:{port()}"
    rediald(f"[proxy inner]\nlisten = {address}\nserver = {server.address} max_sessions=1\n"
            f"standby = 1\n[proxy outer]\nlisten = {outer}\nserver = {address}\nstandby = 0\n",
            daemon_keys="workers = 1")
    server.wait_live(1)
    assert ask(outer, b"hello", timeout=5) == b"hello"


# A server's end

@pytest.mark.parametrize("number", ["auto", "3"])
def test_server_that_dies_is_down_before_a_client_asks(rediald, serve, address, number):
    server = serve(Numbered())
    daemon = rediald(proxy(address, server.address, more=f"standby = {number}"))
    server.wait_live(1 if number == "auto" else 3)
    server.kill()
    # Three connections that end within a second of their dials say so too.
    assert daemon.wait_event("server_down")["reason"] in ("refused", "hung_up")
    serve(Numbered(), server.address).wait_live(1 if number == "auto" else 3)


def test_all_are_let_go_with_a_fin_when_the_server_is_down(rediald, serve, address):
    ends = []
    server = serve(lambda sock: ends.append(recv_until_end(sock)))
    daemon = rediald(proxy(address, server.address, more="standby = 2"),
                     daemon_keys="workers = 1")
    server.wait_live(2)
    one = next(iter(server._live))
    server.close()
    abort(one)
    daemon.wait_event("server_down")
    eventually(lambda: (b"", "eof") in ends)


def test_all_are_let_go_with_a_fin_at_the_end(rediald, serve, address):
    ends = []
    server = serve(lambda sock: ends.append(recv_until_end(sock)))
    daemon = rediald(proxy(address, server.address, more="standby = 3"))
    server.wait_live(3)
    daemon.terminate()
    server.wait_live(0)
    assert ends == [(b"", "eof")] * 3


def test_all_are_let_go_while_sessions_drain(rediald, serve, connect, address):
    server = serve(Numbered())
    daemon = rediald(proxy(address, server.address, more="standby = 2"))
    server.wait_live(2)
    client = connect(address)
    assert say(client)
    server.wait_live(3)
    daemon.signal(signal.SIGTERM)
    server.wait_live(1)
    assert say(client).endswith(b"hello")
    client.close()
    assert daemon.wait_exit() == 0


def test_hangs_up_at_once_is_down_and_not_dialled_for_ever(rediald, serve, address):
    server = serve(hang_up)
    with SynCounter(server.port) as syns:
        daemon = rediald(proxy(address, server.address,
                               more="backoff_min = 200ms\nbackoff_max = 5s"))
        assert daemon.wait_event("server_down")["reason"] == "hung_up"
        pass_time(1)
        assert syns.count < 12


def test_says_something_and_hangs_up_is_not_dialled_for_ever(rediald, serve, address):
    # As a server without a free slot does.
    server = serve(lambda sock: sock.sendall(b"too many\n"))
    with SynCounter(server.port) as syns:
        daemon = rediald(proxy(address, server.address,
                               more="standby = 1\nbackoff_min = 200ms\nbackoff_max = 5s"))
        assert recv_until_end(connected(address)) == (b"too many\n", "eof")
        pass_time(1)
        assert syns.count < 12
        assert not daemon.events("server_down")


def test_what_replaces_one_that_was_ended_is_replaced_soon(rediald, serve, address):
    # The server may be about to stop, and wait for it.
    said = Numbered()
    server = serve(said)
    rediald(proxy(address, server.address, more="standby = 2"), daemon_keys="workers = 1")
    server.wait_live(2)
    pass_time(1.2)  # those that nobody has ended stay
    assert server.accepted == 2 and not said.ends
    said.end(0)
    began = time.monotonic()
    server.wait_accepted(4)
    assert time.monotonic() - began > 0.9
    eventually(lambda: said.ends == [0, 2])
    # The next one is kept for longer, and the other as long as ever.
    pass_time(1.5)
    assert server.accepted == 4 and said.ends == [0, 2]
    server.wait_accepted(5)
    assert time.monotonic() - began > 4.9


def test_what_is_made_when_a_server_is_back_is_replaced_soon(rediald, serve, address):
    # It may not be ready yet, and accept all the same.
    server = serve(Numbered())
    daemon = rediald(proxy(address, server.address), daemon_keys="workers = 1")
    daemon.wait_event("server_up")
    server.kill()
    daemon.wait_event("server_down")
    back = serve(Numbered(), server.address)
    back.wait_accepted(2)
    back.wait_live(1)


# What auto learns

def test_auto_keeps_none_to_a_server_that_speaks_first(rediald, serve, connect, address):
    server = serve(Numbered(b"welcome\n"))
    daemon = rediald(proxy(address, server.address))
    off = daemon.wait_event("standby_off", upstream="web", server=server.address)
    assert (off.level, off["reason"]) == ("notice", "speaks_first")
    server.wait_live(0)
    accepted = server.accepted
    client = connect(address)
    assert recv_exactly(client, 8) == b"welcome\n"
    server.wait_live(1)
    client.close()
    server.wait_live(0)
    assert server.accepted == accepted + 1
    daemon.exactly(1, "standby_off")


def test_number_keeps_them_to_a_server_that_speaks_first(rediald, serve, connect, address):
    server = serve(Numbered(b"welcome\n"))
    daemon = rediald(proxy(address, server.address, more="standby = 1"),
                     daemon_keys="workers = 1")
    server.wait_live(1)
    client = connect(address)
    assert recv_exactly(client, 8) == b"welcome\n"
    assert say(client) == b"0 hello"
    assert not daemon.events("standby_off")


class After:
    """Hangs up on a client that has said nothing for so long, and counts them."""

    def __init__(self, seconds):
        self.hung_up = 0
        self._seconds = seconds

    def __call__(self, sock):
        sock.settimeout(self._seconds)
        try:
            echo(sock)
        except TimeoutError:
            self.hung_up += 1


def test_auto_keeps_none_to_a_server_that_hangs_up_on_the_idle(rediald, serve, address):
    impatient = After(1.2)
    server = serve(impatient)
    daemon = rediald(proxy(address, server.address))
    off = daemon.wait_event("standby_off", timeout=15)
    assert off["reason"] == "hangs_up"
    assert impatient.hung_up == 3
    server.wait_live(0)
    accepted = server.accepted
    assert ask(address, b"hello") == b"hello"
    assert server.accepted == accepted + 1
    assert not daemon.events("server_down"), "it does no wrong"


def test_number_goes_on_with_a_server_that_hangs_up_on_the_idle(rediald, serve, address):
    server = serve(After(1.2))
    daemon = rediald(proxy(address, server.address, more="standby = 1"))
    server.wait_accepted(5, 20)
    assert not daemon.events("standby_off") and not daemon.events("server_down")


def test_restarts_do_not_turn_auto_off(rediald, serve, address):
    said = Numbered()
    server = serve(said)
    daemon = rediald(proxy(address, server.address, more="backoff_max = 100ms"))
    for n in range(1, 6):
        server.wait_live(1)
        pass_time(1.1)
        server.kill()
        daemon.wait_event("server_down", count=n)
        server = serve(said, server.address)
    server.wait_live(1)
    assert not daemon.events("standby_off")


# Dead before a byte was written to it

@pytest.fixture
def stale(rediald, serve, address):
    """A client that has got a standby connection, which is past the age at which it is trusted."""
    with contextlib.ExitStack() as stack:
        def start(number="auto"):
            said = Numbered()
            server = serve(said)
            daemon = rediald(proxy(address, server.address, more=f"standby = {number}"),
                             daemon_keys="workers = 1")
            server.wait_live(1)
            pass_time(0.1)
            client = stack.enter_context(connected(address))
            # Its replacement shows that it was taken.
            server.wait_live(2)
            return daemon, server, said, client
        yield start


@pytest.mark.parametrize("how", [shut, abort], ids=["fin", "reset"])
def test_client_of_a_dead_one_gets_another(stale, how):
    daemon, server, said, client = stale()
    said.end(0, how)
    # The next is one that was dialled for it, however many are kept.
    server.wait_accepted(3)
    assert say(client) == b"2 hello"
    client.close()
    assert daemon.session(reason="client_closed")["attempts"] == "1"


@pytest.mark.parametrize("how", [shut, abort], ids=["fin", "reset"])
@pytest.mark.parametrize("first", ["server", "client"])
def test_byte_for_a_dead_one_goes_to_another(stale, how, first):
    daemon, _, said, client = stale()
    # While it does not look, both happen.
    daemon.freeze()
    if first == "client":
        client.sendall(b"hello")
    said.end(0, how)
    if first == "server":
        client.sendall(b"hello")
    daemon.signal(signal.SIGCONT)
    assert recv_exactly(client, 7) == b"2 hello"
    client.close()
    daemon.session(reason="client_closed")


def test_half_closed_client_of_a_dead_one_gets_another(stale):
    daemon, _, said, client = stale()
    daemon.freeze()
    client.sendall(b"hello")
    client.shutdown(1)
    said.end(0, shut)
    daemon.signal(signal.SIGCONT)
    assert recv_until_end(client) == (b"2 hello", "eof")
    daemon.session(reason="client_closed")


def test_client_that_comes_while_they_die_gets_another(rediald, serve, address):
    said = Numbered()
    server = serve(said)
    daemon = rediald(proxy(address, server.address, more="standby = 3"),
                     daemon_keys="workers = 1")
    server.wait_live(3)
    daemon.freeze()
    with connected(address) as client:
        client.sendall(b"hello")
        for n in range(3):
            said.end(n, shut)
        daemon.signal(signal.SIGCONT)
        assert client.recv(100).endswith(b" hello")
    assert daemon.session(reason="client_closed")


def test_after_a_byte_there_is_no_other(stale):
    daemon, server, said, client = stale()
    assert say(client) == b"0 hello"
    accepted = server.accepted
    said.end(0)
    assert recv_until_end(client) == (b"", "reset")
    daemon.session(reason="server_reset", bytes_to_server=5)
    assert server.accepted == accepted


def test_idle_client_sees_its_own_connection_end(rediald, serve, address):
    """It gets another once, not for ever: what the server thinks of its silence is its to hear."""
    server = serve(After(1.2))
    daemon = rediald(proxy(address, server.address, more="standby = 1"))
    server.wait_live(1)
    assert fate(address) == (b"", "eof")
    daemon.session(reason="server_closed")


# Under load

def test_servers_killed_and_restarted_under_load(rediald, serve, address):
    """Only who had sent something to the server that was killed may see an error."""
    servers = [serve(line_echo(b"s")) for _ in range(3)]
    daemon = rediald(proxy(address, *(s.address for s in servers),
                           more="standby = 4\nbackoff_max = 100ms\nwait_timeout = 60s"))
    for server in servers:
        server.wait_live(4)
    over = threading.Event()
    kills, done = [], [0]

    def restart():
        for n in range(6):
            at = n % 3
            began = time.monotonic()
            servers[at].kill()
            kills.append((began, time.monotonic()))
            pass_time(0.2)
            servers[at] = serve(line_echo(b"s"), servers[at].address)
            pass_time(0.2)
        over.set()

    def client(_n):
        failed = []
        while not over.is_set():
            with connected(address, timeout=deadline(60)) as sock:
                asked = time.monotonic()
                sock.sendall(b"x\n")
                try:
                    answer = sock.recv(100)
                except OSError:
                    answer = b""
                if answer != b"s x\n":
                    failed.append((asked, time.monotonic()))
                else:
                    done[0] += 1
        return failed

    killer = threading.Thread(target=restart)
    killer.start()
    failures = [failure for failed in crowd(50, client, width=50) for failure in failed]
    killer.join()
    assert done[0] > 100
    for asked, ended in failures:
        assert any(asked <= last and ended >= first for first, last in kills), \
            "a client failed that was talking to none of those killed"
    daemon.wait_descriptors_back()
