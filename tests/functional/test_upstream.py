# SPDX-License-Identifier: MIT
"""Servers that are away, come back, flap, hang up or are full; and clients that wait for them."""

import collections
import concurrent.futures
import contextlib
import json
import socket
import threading
import time

import pytest

import admin
from deadline import deadline, eventually, pass_time
from helpers import PortProber
from netns import SynCounter
from servers import Server, answer_after_eof, echo, hang_up, line_echo, silent
from sockets import (ask, close_reset, connected, crowd, fate, is_refused, listening, recv_all,
                     recv_exactly, recv_until_end)


@pytest.fixture
def address(port):
    return f"127.0.0.1:{port()}"


@pytest.fixture
def dead(port):
    """The address of a server that is away."""
    return f"127.0.0.1:{port()}"


def proxy(listen, *servers, more=""):
    lines = "\n".join(f"server = {server}" for server in servers)
    return f"[proxy web]\nlisten = {listen}\n{lines}\n{more}\n"


def later(seconds, action):
    """Do action in so many seconds."""
    timer = threading.Timer(seconds, action)
    timer.daemon = True
    timer.start()
    return timer


def greet(sock):
    """One line to it, and its answer."""
    sock.sendall(b"hello\n")
    with sock.makefile("rb") as lines:
        return lines.readline()


def who_serves(address):
    """The name of the server that a new client gets."""
    with connected(address) as client:
        return greet(client).split(b" ")[0].decode()


# Away and back

def test_client_waits_for_a_server_that_is_away_at_the_start(rediald, serve, address, dead):
    daemon = rediald(proxy(address, dead))
    down = daemon.wait_event("server_down", upstream="web", server=dead)
    assert down["reason"] == "refused"
    assert "retry_in" in down.fields
    later(1, lambda: serve(echo, dead))
    began = time.monotonic()
    assert ask(address, b"hello") == b"hello"
    assert time.monotonic() - began > 0.9
    daemon.wait_event("server_up", upstream="web", server=dead)
    session = daemon.session(reason="client_closed")
    assert int(session["wait_ms"]) > 900


def test_each_transition_is_logged_once(rediald, serve, address, dead):
    daemon = rediald(proxy(address, dead, more="backoff_max = 100ms\nwait_timeout = 2s"))
    daemon.wait_event("server_down")
    for n in range(1, 4):
        server = serve(line_echo(b"a"), dead)
        daemon.wait_event("server_up", count=n)
        assert who_serves(address) == "a"
        server.kill()
        # It takes a dial to notice: a server that is up is not probed.
        with connected(address) as client:
            client.sendall(b"hello\n")
            daemon.wait_event("server_down", count=n + 1)
    daemon.exactly(4, "server_down")
    daemon.exactly(3, "server_up")


def test_server_that_is_up_is_not_probed(rediald, serve, address):
    server = serve(silent)
    with SynCounter(server.port) as syns:
        daemon = rediald(proxy(address, server.address, more="backoff_max = 100ms\nstandby = 0"))
        daemon.wait_event("server_up")
        server.wait_accepted(1)
        server.wait_live(0)  # the probe was let go
        pass_time(1.5)
        assert syns.count == 1
    assert server.accepted == 1


def test_server_killed_in_mid_session_resets_and_the_next_client_waits(rediald, serve, connect,
                                                                      address):
    server = serve(line_echo(b"old"))
    daemon = rediald(proxy(address, server.address))
    client = connect(address)
    assert greet(client) == b"old hello\n"
    server.kill()
    assert recv_until_end(client) == (b"", "reset")
    daemon.session(reason="server_reset")
    later(0.7, lambda: serve(line_echo(b"new"), server.address))
    assert greet(connect(address)) == b"new hello\n"


def test_flapping_server_never_gives_an_empty_answer(rediald, address, dead):
    daemon = rediald(proxy(address, dead, more="backoff_min = 10ms\nbackoff_max = 50ms"))
    over, closes = threading.Event(), []

    def flap():
        while not over.is_set():
            server = Server(dead, line_echo(b"flap"))
            over.wait(0.15)
            closes.append(server.close())
            over.wait(0.15)

    def client(n):
        answers = collections.Counter()
        end = time.monotonic() + 3
        while time.monotonic() < end:
            data, how = fate(address, b"%d\n" % n, half_close=True)
            answers["reset" if how == "reset" else data == b"flap %d\n" % n] += 1
        return answers

    flapper = threading.Thread(target=flap)
    flapper.start()
    try:
        answers = sum(crowd(8, client), collections.Counter())
    finally:
        over.set()
        flapper.join()
    assert answers[False] == 0, answers
    assert answers[True] > 20, answers
    # A connection in the backlog of a listener that closes is reset; the others are not.
    assert answers["reset"] <= 8 * len(closes), answers
    daemon.wait_event("server_up", count=3)


def waiting(socket_path):
    """How many clients wait, as the daemon itself tells."""
    return json.loads(admin.ask(f"unix:{socket_path}", "/status").body)["sessions"]["waiting"]


def test_five_hundred_clients_wait_for_one_server(rediald, serve, connect, address, dead, tmp_path):
    def answer(sock):
        request = recv_all(sock)
        sock.sendall(b"done " + request if request else b"")  # else a standby connection that was let go
    with SynCounter(int(dead.rpartition(":")[2])) as syns:
        daemon = rediald(proxy(address, dead, more="wait_timeout = 60s"),
                         daemon_keys=f"admin = unix:{tmp_path}/admin.sock")
        clients = [connect(address) for _ in range(500)]
        for n, client in enumerate(clients):
            client.sendall(b"request %d" % n)
            client.shutdown(socket.SHUT_WR)
        eventually(lambda: waiting(tmp_path / "admin.sock") == 500, what="all are in line")
        pass_time(6)
        assert waiting(tmp_path / "admin.sock") == 500
        assert 7 <= syns.count <= 60, "dials on the dead port"
        serve(answer, dead)
        assert [recv_all(client) for client in clients] == [b"done request %d" % n for n in range(500)]
    for session in daemon.exactly(500, "session", reason="client_closed"):
        assert int(session["wait_ms"]) >= 6000


def test_line_is_served_in_order(rediald, serve, address, dead):
    daemon = rediald(proxy(address, f"{dead} max_sessions=1"), daemon_keys="workers = 1")
    daemon.wait_event("server_down")
    served = []

    def note(sock):
        line = sock.makefile("rb").readline()
        if not line:
            return  # a standby connection that was let go
        served.append(int(line))
        sock.sendall(line)

    def wait_and_close(client):
        with client:
            return recv_until_end(client)
    with concurrent.futures.ThreadPoolExecutor(10) as pool:
        ends = []
        for n in range(10):
            client = connected(address)
            client.sendall(b"%d\n" % n)
            ends.append(pool.submit(wait_and_close, client))
        serve(note, dead)
        assert [end.result() for end in ends] == [(b"%d\n" % n, "eof") for n in range(10)]
    assert served == list(range(10))


def test_at_most_64_dials_of_the_line_at_a_time(rediald, address, dead):
    # Each worker has a line of its own.
    daemon = rediald(proxy(address, dead, more="connect_timeout = 20s"), daemon_keys="workers = 1")
    port = int(dead.rpartition(":")[2])
    daemon.wait_event("server_down")
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(connected(address)) for _ in range(200)]
        for client in clients:
            client.sendall(b"hello\n")
        # With no room in its backlog the kernel drops the SYNs: the dials hang.
        sock = listening(dead, backlog=0)
        with SynCounter(port) as syns:
            daemon.wait_event("server_up")
            eventually(lambda: len(set(syns.sources)) >= 60, 5, "the line is dialled for")
            pass_time(1)
            assert len(set(syns.sources)) <= 64 + 2, "the line's, and the probe's"
        stack.enter_context(Server(dead, line_echo(b"a"), sock=sock))
        for client in clients:
            assert recv_exactly(client, 8) == b"a hello\n"


def test_no_pause_is_longer_than_backoff_waiting_while_a_client_waits(rediald, serve, connect,
                                                                      address, dead):
    daemon = rediald(proxy(address, dead, more="backoff_min = 20s\nbackoff_max = 40s\n"
                           "backoff_waiting = 200ms"))
    daemon.wait_event("server_down")
    with SynCounter(int(dead.rpartition(":")[2])) as syns:
        pass_time(1)
        assert syns.count == 0, "nobody waits"
        client = connect(address)
        assert syns.wait(3, deadline(3)), "somebody waits"
        serve(line_echo(b"a"), dead)
        client.settimeout(deadline(3))
        assert greet(client) == b"a hello\n"


def test_connect_timeout_bounds_a_dial(rediald, address, dead):
    # One client in the backlog, the others' SYNs are dropped.
    with contextlib.closing(listening(dead, backlog=0)), contextlib.closing(connected(dead)):
        daemon = rediald(proxy(address, dead, more="connect_timeout = 300ms"))
        down = daemon.wait_event("server_down")
        assert down["reason"] == "timeout"


# Accepting, and then

def test_server_that_accepts_and_hangs_up_is_dialled_ever_more_rarely(rediald, serve, address):
    server = serve(hang_up)
    daemon = rediald(proxy(address, server.address,
                           more="backoff_min = 20ms\nbackoff_max = 1s\nbackoff_waiting = 1s"))
    over = threading.Event()

    def client(_n):
        while not over.is_set():
            with contextlib.suppress(OSError), connected(address, timeout=10) as sock:
                sock.sendall(b"hello\n")
                recv_until_end(sock)

    def end():
        over.set()
        serve(lambda sock: sock.sendall(b"bye\n"), server.address)
    later(3, server.close)
    later(3.5, end)
    crowd(8, client)
    assert daemon.wait_event("server_down")["reason"] == "hung_up"
    # Three to find out, and those of the other clients meanwhile. Pauses that grew to half a second on average leave room for
    # a dozen more; pauses of 20 to 40 ms for a hundred.
    assert server.accepted <= 3 + 8 + 30, server.accepted
    assert server.accepted >= 4


# The backoff starts anew when a server has proved itself

def milliseconds(text):
    return int(text[:-2]) if text.endswith("ms") else 1000 * int(text[:-1])


@pytest.fixture
def fails_often(rediald, address, dead):
    """A daemon whose server has not been there for so many dials that its pauses are long."""
    with SynCounter(int(dead.rpartition(":")[2])) as syns:
        daemon = rediald(proxy(address, dead, more="backoff_min = 1ms\nbackoff_max = 1s\n"
                               "backoff_waiting = 1s\nstandby = 0"))
        assert syns.wait(10, deadline(10)), f"only {syns.count} dials"
    return daemon


def first_pause(daemon, serve, address, dead, handler, use):
    """The server comes, a client uses it, and it goes: how long is the first pause then, in ms?"""
    since = daemon.mark()
    server = serve(handler, dead)
    daemon.wait_event("server_up", since=since)
    with connected(address) as client:
        use(client, server)
        server.kill()
        daemon.session(since=since)
    with connected(address) as client:
        down = daemon.wait_event("server_down", since=since)
        close_reset(client)  # it waits no longer
    return milliseconds(down["retry_in"])


def test_mere_connect_does_not_clear_the_backoff(fails_often, serve, address, dead):
    def use(_client, server):
        server.wait_accepted(2)  # the probe, and this
    # Each pause is drawn from up to 256 ms at least: three as short as that are no accident.
    assert any(first_pause(fails_often, serve, address, dead, silent, use) > 2 for _ in range(3))


def test_byte_from_the_server_clears_the_backoff(fails_often, serve, address, dead):
    def use(client, _server):
        assert greet(client) == b"a hello\n"
    assert first_pause(fails_often, serve, address, dead, line_echo(b"a"), use) <= 2


def test_ten_seconds_clear_the_backoff(fails_often, serve, address, dead):
    def use(_client, server):
        server.wait_accepted(2)
        pass_time(10.1)
    assert first_pause(fails_often, serve, address, dead, silent, use) <= 2


def test_three_that_hung_up_count_while_their_clients_linger(rediald, serve, connect, address):
    server = serve(hang_up)
    daemon = rediald(proxy(address, server.address, more="standby = 0"))
    daemon.wait_event("server_up")
    for _ in range(3):
        # Each client sees the server's end, and keeps its own side open.
        assert connect(address).recv(1) == b""
    assert daemon.wait_event("server_down")["reason"] == "hung_up"


def test_server_that_answers_and_closes_at_once_is_fine(rediald, serve, address):
    server = serve(lambda sock: sock.sendall(b"time is up\n"))
    daemon = rediald(proxy(address, server.address))
    for _ in range(20):
        with connected(address) as client:
            assert recv_all(client) == b"time is up\n"
    daemon.session(count=20, reason="server_closed")
    assert not daemon.events("server_down")


def test_client_that_comes_and_goes_is_no_fault_of_the_server(rediald, serve, address):
    server = serve(silent)
    daemon = rediald(proxy(address, server.address))
    for _ in range(20):
        connected(address).close()
    daemon.session(count=20, reason="client_closed")
    assert not daemon.events("server_down")


def test_silent_server_keeps_its_session(rediald, serve, connect, address):
    server = serve(silent)
    daemon = rediald(proxy(address, server.address))
    client = connect(address)
    client.sendall(b"hello\n")
    client.settimeout(2)
    with pytest.raises(TimeoutError):
        client.recv(1)
    assert not daemon.events("server_down")
    assert not daemon.events("session")
    client.close()
    daemon.session(reason="client_closed", bytes_to_server=6, bytes_to_client=0)


# Several servers

def test_next_server_at_once(rediald, serve, address, dead):
    live = serve(line_echo(b"live"))
    daemon = rediald(proxy(address, dead, live.address, more="balance = first"))
    daemon.wait_event("server_up", server=live.address)
    began = time.monotonic()
    assert who_serves(address) == "live"
    assert time.monotonic() - began < deadline(0.5)


def test_client_that_meets_a_server_just_died_gets_the_next(rediald, serve, address):
    first, second = serve(line_echo(b"first")), serve(line_echo(b"second"))
    daemon = rediald(proxy(address, first.address, second.address,
                           more="balance = first\nstandby = 0"))
    daemon.wait_event("server_up", server=first.address)
    daemon.wait_event("server_up", server=second.address)
    assert who_serves(address) == "first"
    first.close()
    began = time.monotonic()
    assert who_serves(address) == "second"
    assert time.monotonic() - began < deadline(0.5)
    session = daemon.session(server=second.address)
    assert session["attempts"] == "2"


def test_round_robin_by_weight(rediald, serve, address):
    servers = {name: serve(line_echo(name.encode())) for name in ("a", "b")}
    daemon = rediald(proxy(address, f"{servers['a'].address} weight=2 name=a",
                           f"{servers['b'].address} name=b"), daemon_keys="workers = 1")
    daemon.wait_event("server_up", server="a")
    daemon.wait_event("server_up", server="b")
    assert collections.Counter(who_serves(address) for _ in range(30)) == {"a": 20, "b": 10}
    daemon.session(count=20, server="a")


def test_backup_serves_only_when_no_other_is_up(rediald, serve, address):
    main, backup = serve(line_echo(b"main")), serve(line_echo(b"backup"))
    daemon = rediald(proxy(address, f"{main.address} name=main",
                           f"{backup.address} name=backup backup",
                           more="backoff_max = 100ms\nstandby = 0"))
    daemon.wait_event("server_up", server="main")
    daemon.wait_event("server_up", server="backup")
    assert {who_serves(address) for _ in range(10)} == {"main"}
    main.close()
    assert {who_serves(address) for _ in range(10)} == {"backup"}
    mark = daemon.mark()
    serve(line_echo(b"main"), main.address)
    daemon.wait_event("server_up", server="main", since=mark)
    assert {who_serves(address) for _ in range(10)} == {"main"}


def test_server_that_is_full_makes_the_next_client_wait(rediald, serve, connect, address):
    server = serve(line_echo(b"a"))
    daemon = rediald(proxy(address, f"{server.address} max_sessions=2"),
                     daemon_keys="workers = 1")
    first, second, third = connect(address), connect(address), connect(address)
    assert greet(first) == greet(second) == b"a hello\n"
    third.sendall(b"hello\n")
    third.settimeout(0.3)
    with pytest.raises(TimeoutError):
        third.recv(1)
    assert server.live == 2
    first.close()
    third.settimeout(deadline(5))
    assert recv_exactly(third, 8) == b"a hello\n"
    assert not daemon.events("server_down")


def test_full_server_passes_clients_to_the_next(rediald, serve, connect, address):
    first, second = serve(line_echo(b"first")), serve(line_echo(b"second"))
    daemon = rediald(proxy(address, f"{first.address} max_sessions=2", second.address,
                           more="balance = first"))
    daemon.wait_event("server_up", server=first.address)
    daemon.wait_event("server_up", server=second.address)
    assert [greet(connect(address)) for _ in range(4)] == [b"first hello\n"] * 2 + [
        b"second hello\n"] * 2


# The line

def test_wait_timeout_is_an_error_never_an_empty_answer(rediald, address, dead):
    daemon = rediald(proxy(address, dead, more="wait_timeout = 700ms"))
    began = time.monotonic()

    def client(n):
        return fate(address, b"hello" if n % 2 else b"", half_close=n % 3 == 0)
    assert crowd(12, client) == [(b"", "reset")] * 12
    assert 0.6 < time.monotonic() - began < deadline(3)
    daemon.session(count=12, reason="wait_timeout")


def test_wait_timeout_counts_dials_that_hang(rediald, address, dead):
    # One client in the backlog, the others' SYNs are dropped.
    with contextlib.closing(listening(dead, backlog=0)), contextlib.closing(connected(dead)):
        daemon = rediald(proxy(address, dead, more="wait_timeout = 1s\nconnect_timeout = 20s"))
        began = time.monotonic()
        assert fate(address) == (b"", "reset")
        assert 0.8 < time.monotonic() - began < deadline(4)
        daemon.session(reason="wait_timeout")


def test_waiting_client_that_resets_makes_room(rediald, serve, connect, address, dead):
    daemon = rediald(proxy(address, dead, more="max_waiting = 2"), daemon_keys="workers = 1")
    daemon.wait_event("server_down")
    first, second = connect(address), connect(address)
    first.sendall(b"hello\n")
    # One listener: who comes third is accepted third.
    assert is_turned_away(address)
    daemon.session(reason="queue_full")
    close_reset(second)
    daemon.session(reason="client_reset")
    third = connect(address)
    third.sendall(b"hello\n")
    serve(line_echo(b"a"), dead)
    assert recv_exactly(first, 8) == recv_exactly(third, 8) == b"a hello\n"


def is_turned_away(address):
    """Is a client reset within moments?"""
    try:
        return fate(address, timeout=0.2) == (b"", "reset")
    except TimeoutError:
        return False


def test_waiting_client_that_resets_with_unread_data_leaves_the_line(rediald, connect, address,
                                                                    dead):
    daemon = rediald(proxy(address, dead))
    daemon.wait_event("server_down")
    client = connect(address)
    client.sendall(b"x" * 100000)
    close_reset(client)
    daemon.session(reason="client_reset")


def test_waiting_client_that_half_closed_is_served(rediald, serve, connect, address, dead):
    daemon = rediald(proxy(address, dead))
    client = connect(address)
    client.sendall(b"question")
    client.shutdown(socket.SHUT_WR)
    daemon.wait_event("server_down")
    later(1, lambda: serve(answer_after_eof(0, b"answer"), dead))
    assert recv_all(client) == b"answer"
    daemon.session(reason="client_closed", bytes_to_server=8, bytes_to_client=6)


def test_waiting_clients_bytes_all_arrive(rediald, serve, connect, address, dead):
    data = bytes(range(256)) * 400
    daemon = rediald(proxy(address, dead))
    client = connect(address)
    client.sendall(data)
    daemon.wait_event("server_down")
    serve(echo, dead)
    assert recv_exactly(client, len(data)) == data


def test_max_waiting_refuses_the_next_with_an_error(rediald, address, dead):
    daemon = rediald(proxy(address, dead, more="max_waiting = 3\nwait_timeout = 2s"))
    daemon.wait_event("server_down")
    assert crowd(10, lambda _n: fate(address)) == [(b"", "reset")] * 10
    daemon.session(count=7, reason="queue_full")
    daemon.session(count=3, reason="wait_timeout")


# when_down

def test_when_down_reset_refuses_at_once(rediald, serve, address, dead):
    daemon = rediald(proxy(address, dead, more="when_down = reset\nbackoff_max = 100ms"))
    daemon.wait_event("server_down")
    began = time.monotonic()
    assert [fate(address) for _ in range(5)] == [(b"", "reset")] * 5
    assert time.monotonic() - began < deadline(1)
    daemon.session(count=5, reason="no_server")
    serve(line_echo(b"a"), dead)
    daemon.wait_event("server_up")
    assert who_serves(address) == "a"


def test_when_down_unlisten_refuses_and_keeps_the_port(rediald, serve, connect, address, dead):
    port = int(address.rpartition(":")[2])
    daemon = rediald(proxy(address, dead,
                           more="when_down = unlisten\nbackoff_min = 10ms\nbackoff_max = 50ms"))
    unlucky = []
    with PortProber("steal", port) as prober:
        for n in range(1, 6):
            daemon.wait_event("unlistened", count=n)
            eventually(lambda: is_refused(address), 5)
            assert is_refused(address)
            server = serve(line_echo(b"a"), dead)
            daemon.wait_event("relistened", count=n)
            assert who_serves(address) == "a"
            server.close()
            # One has to meet the dead server before anybody knows. It is held, or told; or it has
            # come too late, after a standby connection that was just being dialled.
            with contextlib.suppress(ConnectionRefusedError, ConnectionResetError, BrokenPipeError):
                client = connect(address)
                unlucky.append(client)
                client.sendall(b"hello\n")
        serve(line_echo(b"a"), dead)
        for client in unlucky:
            with contextlib.suppress(OSError):  # it was told
                client.shutdown(socket.SHUT_WR)
            assert recv_until_end(client) in ((b"a hello\n", "eof"), (b"", "reset"))
    assert prober.report["tries"] > 100
    assert prober.report["taken"] == 0, "another process took the port"


def test_when_down_unlisten_is_refused_for_unix_listeners(rediald, tmp_path, dead):
    daemon = rediald(proxy(f"unix:{tmp_path}/in.sock", dead, more="when_down = unlisten"),
                     ready=False)
    assert daemon.wait_exit() == 78
    assert "unlisten" in daemon.text()
