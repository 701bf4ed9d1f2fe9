# SPDX-License-Identifier: MIT
"""Bytes between client and server: ends, resets, stalls, timeouts and limits."""

import contextlib
import errno
import hashlib
import os
import random
import resource
import signal
import socket
import subprocess
import threading
import time

import pytest

import netns
from binary import WRAP
from deadline import deadline, eventually, pass_time
from servers import answer_after_eof, echo, line_echo, reset_after, wait_sent
from sockets import (abort, ask, close_reset, connected, crowd, parse, recv_all, recv_exactly,
                     recv_until_end, send_in_chunks)

BIG = bytes(random.Random(1).randbytes(3 << 20))


@pytest.fixture
def address(port):
    return f"127.0.0.1:{port()}"


def proxy(listen, server, more=""):
    return f"[proxy web]\nlisten = {listen}\nserver = {server}\n{more}\n"


def is_quiet(sock, seconds):
    """Does nothing come, not even an end, for so long?"""
    sock.settimeout(seconds)
    try:
        sock.recv(1, socket.MSG_PEEK)
    except TimeoutError:
        return True
    finally:
        sock.settimeout(deadline(20))
    return False


# Half-close

@pytest.mark.parametrize("delay", [0, 0.2, 1.5, 5])
def test_answer_comes_after_the_clients_half_close(rediald, serve, address, delay):
    answer = BIG[:200_000]
    daemon = rediald(proxy(address, serve(answer_after_eof(delay, answer)).address))
    assert ask(address, b"question") == answer
    daemon.session(reason="client_closed", bytes_to_server=8, bytes_to_client=len(answer))


@pytest.mark.parametrize("delay", [0, 0.2, 1.5, 5])
def test_client_goes_on_after_the_servers_half_close(rediald, serve, connect, address, delay):
    received = []

    def half_close_first(sock):
        sock.sendall(b"greeting")
        sock.shutdown(socket.SHUT_WR)
        received.append(recv_all(sock))
    server = serve(half_close_first)
    daemon = rediald(proxy(address, server.address))
    client = connect(address)
    assert recv_all(client) == b"greeting"
    pass_time(delay)
    client.sendall(BIG[:200_000])
    client.close()
    daemon.session(reason="server_closed", bytes_to_server=200_000, bytes_to_client=8)
    server.wait_live(0)
    assert BIG[:200_000] in received


def test_half_close_is_passed_on_at_once(rediald, serve, connect, address):
    ended = threading.Event()

    def handler(sock):
        recv_all(sock)
        ended.set()
        pass_time(30)
    server = serve(handler)
    rediald(proxy(address, server.address))
    client = connect(address)
    client.shutdown(socket.SHUT_WR)
    assert ended.wait(deadline(2))
    assert is_quiet(client, 0.3)
    close_reset(client)


def test_ends_without_a_byte(rediald, serve, address):
    daemon = rediald(proxy(address, serve(echo).address))
    for _ in range(10):
        assert ask(address, b"") == b""
    daemon.session(count=10, reason="client_closed", bytes_to_server=0, bytes_to_client=0)


# Resets

@pytest.mark.parametrize("size", [0, 1, 70_000, len(BIG)])
def test_servers_reset_reaches_the_client_after_the_data(rediald, serve, connect, address, size):
    daemon = rediald(proxy(address, serve(reset_after(BIG[:size])).address))
    client = connect(address)
    client.sendall(b"x")
    assert recv_until_end(client) == (BIG[:size], "reset")
    daemon.session(reason="server_reset", bytes_to_client=size)


def test_servers_reset_reaches_a_unix_client_after_the_data(rediald, serve, connect):
    daemon = rediald(proxy("unix:@in", serve(reset_after(BIG)).address))
    client = connect("unix:@in")
    client.sendall(b"x")
    # There is no RST between UNIX sockets: it sees the end, and that is all it can see.
    assert recv_until_end(client)[0] == BIG
    daemon.session(reason="server_reset", bytes_to_client=len(BIG))


def test_servers_reset_reaches_a_client_that_reads_late(rediald, serve, connect, address):
    daemon = rediald(proxy(address, serve(reset_after(BIG[:100_000])).address))
    client = connect(address)
    client.sendall(b"x")
    daemon.session(reason="server_reset", bytes_to_client=100_000)
    pass_time(0.5)
    assert recv_until_end(client) == (BIG[:100_000], "reset")


def test_servers_reset_reaches_a_slow_reader_complete(rediald, serve, address):
    # More than the buffers of both kernels' sides hold: the rest is read behind the RST.
    family, sockaddr = parse(address)
    daemon = rediald(proxy(address, serve(reset_after(BIG)).address))
    with socket.socket(family) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.settimeout(deadline(20))
        client.connect(sockaddr)
        client.sendall(b"x")
        pass_time(1)
        assert recv_until_end(client) == (BIG, "reset")
    daemon.session(reason="server_reset", bytes_to_client=len(BIG))


def test_clients_reset_reaches_the_server(rediald, serve, connect, address):
    ends = []
    server = serve(lambda sock: ends.append(recv_until_end(sock)))
    daemon = rediald(proxy(address, server.address, "standby = 0"))
    client = connect(address)
    client.sendall(BIG[:70_000])
    wait_sent(client)
    close_reset(client)
    daemon.session(reason="client_reset", bytes_to_server=70_000)
    server.wait_live(0)
    assert (BIG[:70_000], "reset") in ends


def test_reset_of_a_half_closed_client_ends_the_session(rediald, serve, connect, address):
    server = serve(answer_after_eof(30, b"late"))
    daemon = rediald(proxy(address, server.address))
    client = connect(address)
    client.shutdown(socket.SHUT_WR)
    pass_time(0.2)
    abort(client)
    daemon.session(reason="client_reset", timeout=10)


def test_reset_of_a_half_closed_server_ends_the_session(rediald, serve, connect, address):
    go = threading.Event()

    def handler(sock):
        sock.sendall(b"bye")
        sock.shutdown(socket.SHUT_WR)
        go.wait(deadline(20))
        close_reset(sock)
    daemon = rediald(proxy(address, serve(handler).address))
    client = connect(address)
    assert recv_all(client) == b"bye"
    go.set()
    daemon.session(reason="server_reset", timeout=10)
    with pytest.raises(OSError):
        eventually(lambda: client.sendall(b"x" * 1000), 5)


def test_client_gone_in_mid_answer_resets_the_server(rediald, serve, connect, address):
    def endless(sock):
        while True:
            sock.sendall(BIG[:100_000])
    server = serve(endless)
    daemon = rediald(proxy(address, server.address))
    client = connect(address)
    recv_exactly(client, 1_000_000)
    client.close()  # with unread data: the kernel sends RST
    daemon.session(reason="client_reset")
    server.wait_live(0)


# Stalls and amounts

def test_stalled_reader_stops_the_sender_and_goes_on(rediald, serve, connect, address):
    sent = []

    def count_sent(sock):
        for _ in range(64):
            sock.sendall(BIG[:1 << 20])
            sent.append(time.monotonic())
    daemon = rediald(proxy(address, serve(count_sent).address))
    client = connect(address)
    pass_time(3)
    stalled_at = len(sent)
    assert stalled_at < 40, "the sender was not stopped"
    before = daemon.cpu_seconds()
    pass_time(1)
    assert daemon.cpu_seconds() - before < 0.3, "it spins while the reader stalls"
    assert len(sent) == stalled_at
    data = recv_all(client)
    assert hashlib.sha256(data).digest() == hashlib.sha256(BIG[:1 << 20] * 64).digest()


def test_stalled_server_stops_the_client_and_goes_on(rediald, serve, connect, address):
    go, digests = threading.Event(), []

    def handler(sock):
        go.wait(deadline(30))
        digests.append(hashlib.sha256(recv_all(sock)).digest())
    daemon = rediald(proxy(address, serve(handler).address))
    client = connect(address)
    client.settimeout(1)
    data, sent = BIG * 16, 0
    with contextlib.suppress(TimeoutError):
        while sent < len(data):
            sent += client.send(data[sent:sent + 65536])
    assert sent < len(data), "the client was not stopped"
    go.set()
    client.settimeout(deadline(20))
    client.sendall(data[sent:])
    client.shutdown(socket.SHUT_WR)
    assert recv_all(client) == b""
    daemon.session(reason="client_closed", bytes_to_server=len(data))
    assert hashlib.sha256(data).digest() in digests


@pytest.mark.parametrize("sessions, tiny_buffers", [(128, False), (16, True)])
def test_sessions_of_random_sizes_both_ways_at_once(rediald, serve, address, sessions,
                                                    tiny_buffers):
    if tiny_buffers:
        # Every write is a short one, and what is left over is itself written in parts.
        netns.sysctl("net.ipv4.tcp_wmem", "4096 4096 8192")
        netns.sysctl("net.ipv4.tcp_rmem", "4096 4096 8192")

    def handler(sock):
        order = recv_exactly(sock, 32)
        if not order:
            return  # the probe
        seed, size = map(int, order.split())
        digests = []
        reader = threading.Thread(
            target=lambda: digests.append(hashlib.sha256(recv_all(sock)).hexdigest()))
        reader.start()
        mine = send_in_chunks(sock, size, seed)
        reader.join()
        sock.sendall(f"{mine} {digests[0]}".encode())

    def client(n):
        rng = random.Random(n)
        size = rng.choice((0, 1, 1000, 65536, 262144, rng.randrange(1 << 20)))
        back = rng.choice((0, 1, 1000, 65536, 262144, rng.randrange(1 << 20)))
        with connected(address, timeout=60) as sock:
            sock.sendall(b"%-15d %-16d" % (n + 1000, back))
            digest = []

            def send():
                digest.append(send_in_chunks(sock, size, n))
                sock.shutdown(socket.SHUT_WR)
            sender = threading.Thread(target=send)
            sender.start()
            got = hashlib.sha256(recv_exactly(sock, back)).hexdigest()
            sender.join()
            theirs, heard = recv_all(sock).decode().split()
        return got == theirs and digest[0] == heard
    daemon = rediald(proxy(address, serve(handler).address))
    assert all(crowd(sessions, client))
    daemon.session(count=sessions, reason="client_closed")
    assert len(daemon.events("session")) == sessions


@pytest.mark.parametrize("listen, server", [
    ("unix:{dir}/in.sock", "127.0.0.1:8000"), ("127.0.0.1:7000", "unix:{dir}/out.sock"),
    ("unix:@in", "unix:@out"), ("[::1]:7000", "127.0.0.1:8000"), ("127.0.0.1:7000", "[::1]:8000"),
    ("*:7000", "[::ffff:127.0.0.1]:8000"),
], ids=["unix_to_tcp", "tcp_to_unix", "abstract", "ipv6_to_ipv4", "ipv4_to_ipv6", "dual_to_mapped"])
def test_every_kind_of_address(rediald, serve, tmp_path, listen, server):
    listen, server = listen.format(dir=tmp_path), server.format(dir=tmp_path)
    serve(echo, server)
    daemon = rediald(proxy(listen, server))
    client_side = listen.replace("*", "[::1]")
    with connected(client_side) as client:
        thread = threading.Thread(target=lambda: (client.sendall(BIG),
                                                  client.shutdown(socket.SHUT_WR)))
        thread.start()
        assert recv_all(client) == BIG
        thread.join()
    session = daemon.session(reason="client_closed", server=server, bytes_to_client=len(BIG))
    assert session["client"].startswith(client_side.split(":")[0])


def test_client_is_told_as_it_is(rediald, serve, port, address):
    daemon = rediald(proxy(address, serve(echo).address))
    mine = port()
    assert ask(address, b"x", source=("127.0.0.1", mine)) == b"x"
    session = daemon.session()
    assert session["client"] == f"127.0.0.1:{mine}"
    assert session["proxy"] == session["upstream"] == "web"
    assert int(session["duration_ms"]) < deadline(5000)


def test_ipv4_client_of_a_dual_listener_is_told_as_ipv4(rediald, serve, port):
    listen, mine = port(), port()
    daemon = rediald(proxy(f"*:{listen}", serve(echo).address))
    ask(f"127.0.0.1:{listen}", b"x", source=("127.0.0.1", mine))
    client = daemon.session()["client"]
    assert client in (f"127.0.0.1:{mine}", f"[::ffff:127.0.0.1]:{mine}")


def test_source_address(rediald, serve, address):
    peers = []
    server = serve(lambda sock: peers.append(sock.getpeername()[0]))
    daemon = rediald(proxy(address, server.address, "source = 127.0.0.9"))
    with connected(address) as client:
        recv_until_end(client)
    daemon.session()
    assert set(peers) == {"127.0.0.9"}


# Timeouts

def test_idle_timeout_resets_both_sides(rediald, serve, connect, address):
    ends = []
    server = serve(lambda sock: ends.append(recv_until_end(sock)))
    daemon = rediald(proxy(address, server.address, "idle_timeout = 1s\nstandby = 0"))
    daemon.wait_event("server_up")
    client = connect(address)
    began = time.monotonic()
    client.sendall(b"hello")
    assert recv_until_end(client) == (b"", "reset")
    assert 0.9 < time.monotonic() - began < deadline(3)
    daemon.session(reason="idle_timeout", bytes_to_server=5)
    server.wait_live(0)
    assert (b"hello", "reset") in ends


def test_bytes_either_way_keep_an_idle_timeout_off(rediald, serve, connect, address):
    def talk(sock):
        for _ in range(8):
            pass_time(0.4)
            sock.sendall(b"x")
    daemon = rediald(proxy(address, serve(talk).address, "idle_timeout = 1500ms"))
    assert recv_all(connect(address)) == b"x" * 8
    assert not daemon.events("session", reason="idle_timeout")


def test_half_close_timeout_bounds_the_other_side(rediald, serve, connect, address):
    daemon = rediald(proxy(address, serve(answer_after_eof(30, b"late")).address,
                           "half_close_timeout = 1s"))
    client = connect(address)
    began = time.monotonic()
    client.shutdown(socket.SHUT_WR)
    assert recv_until_end(client) == (b"", "reset")
    assert 0.9 < time.monotonic() - began < deadline(3)
    daemon.session(reason="half_close_timeout")


def test_session_without_an_idle_timeout_outlives_the_half_close_timeout(rediald, serve, connect,
                                                                        address):
    rediald(proxy(address, serve(echo).address, "half_close_timeout = 500ms"))
    client = connect(address)
    pass_time(1)
    client.sendall(b"x")
    assert recv_exactly(client, 1) == b"x"


# Limits

def test_max_sessions_pauses_accepting_and_goes_on(rediald, serve, connect, address):
    server = serve(line_echo(b"a"))
    daemon = rediald(proxy(address, server.address, "max_sessions = 2\nstandby = 0"),
                     daemon_keys="workers = 1")
    clients = [connect(address) for _ in range(5)]
    for client in clients:
        client.sendall(b"hello\n")
    assert recv_exactly(clients[0], 8) == recv_exactly(clients[1], 8) == b"a hello\n"
    assert is_quiet(clients[2], 0.3)
    daemon.wait_event("accept_paused", proxy="web")
    assert server.live == 2
    before = daemon.cpu_seconds()
    pass_time(1)
    assert daemon.cpu_seconds() - before < 0.3, "it spins while it is full"
    for n in range(3):
        clients[n].close()
        assert recv_exactly(clients[n + 2], 8) == b"a hello\n"
    daemon.session(count=3, reason="client_closed")


def test_out_of_descriptors_waits_without_spinning(rediald, serve, connect, address):
    server = serve(line_echo(b"a"))
    daemon = rediald(proxy(address, server.address, "standby = 0"))
    daemon.wait_event("server_up")
    server.wait_live(0)
    room = 20
    used = len(daemon.descriptors())
    resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, (used + room, used + room))
    clients = [connect(address) for _ in range(60)]
    for client in clients:
        client.sendall(b"hello\n")
    eventually(lambda: len(daemon.descriptors()) >= used + room - 1, 10, "no room left")
    before = daemon.cpu_seconds()
    pass_time(1)
    assert daemon.cpu_seconds() - before < 0.3, "it spins for want of descriptors"
    assert daemon.process.poll() is None
    # Each client in turn, as the ones before it leave.
    waiting = set(clients)

    def one_more():
        for client in list(waiting):
            client.settimeout(0.01)
            with contextlib.suppress(TimeoutError):
                assert recv_exactly(client, 8) == b"a hello\n"
                client.close()
                waiting.discard(client)
        return not waiting
    eventually(one_more, 30, "all are served")
    daemon.session(count=60, reason="client_closed")


def test_want_of_descriptors_is_told_once_and_so_is_its_end(rediald, serve, connect, address):
    daemon = rediald(proxy(address, serve(line_echo(b"a")).address, "standby = 0"),
                     daemon_keys="workers = 1")
    daemon.wait_event("server_up")
    limit = resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE)
    for times in 1, 2:
        resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, (3, limit[1]))
        clients = [connect(address) for _ in range(5)]
        for client in clients:
            client.sendall(b"hello\n")
        paused = daemon.wait_event("accept_paused", count=times)
        assert paused.level == "warning"
        assert paused.has({"proxy": "web", "limit": "system", "error": os.strerror(errno.EMFILE)})
        pass_time(0.4)  # some more attempts
        daemon.exactly(times, "accept_paused")
        assert len(daemon.events("accept_resumed")) == times - 1
        resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, limit)
        for client in clients:
            assert recv_exactly(client, 8) == b"a hello\n"
        assert daemon.exactly(times, "accept_resumed", proxy="web")[-1].level == "notice"
    daemon.exactly(2, "accept_paused")


def test_limit_of_descriptors_bounds_the_sessions(rediald, serve, connect, address):
    server = serve(line_echo(b"a"))
    daemon = rediald(proxy(address, server.address), daemon_keys="workers = 1",
                     preexec=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (80, 80)))
    clients = [connect(address) for _ in range(60)]
    for client in clients:
        client.sendall(b"hello\n")
    daemon.wait_event("accept_paused")
    for client in clients:
        assert recv_exactly(client, 8) == b"a hello\n"
        client.close()
    daemon.session(count=60, reason="client_closed")


def test_soft_limit_of_descriptors_is_raised(rediald, serve, connect, address):
    if WRAP:
        pytest.skip("valgrind keeps the soft limit that it began with")
    server = serve(line_echo(b"a"))
    rediald(proxy(address, server.address),
            preexec=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (40, 1000)))
    clients = [connect(address) for _ in range(100)]
    for client in clients:
        client.sendall(b"hello\n")
    for client in clients:
        assert recv_exactly(client, 8) == b"a hello\n"


# Socket options

def socket_state(*filters):
    return subprocess.run(["ss", "-Htnoi", *filters], check=True, text=True,
                          stdout=subprocess.PIPE).stdout


@pytest.mark.parametrize("more, sides", [("", 2), ("keepalive = off", 0), ("keepalive = 5s", 2)])
def test_keepalive_on_both_sides(rediald, serve, connect, address, more, sides):
    server = serve(echo)
    rediald(proxy(address, server.address, f"{more}\nstandby = 0"))
    client = connect(address)
    client.sendall(b"x")
    recv_exactly(client, 1)

    def timers():
        text = (socket_state(f"sport = :{address.rpartition(':')[2]}")
                + socket_state(f"dport = :{server.port}"))
        return text.count("timer:(keepalive") == sides
    # On the server's side it may be put on a session that has lived for a while.
    eventually(timers, 15 if sides else 1)


def ping(talker, listener):
    """Two small writes, the second when the first has arrived; then an answer. Seconds."""
    began = time.monotonic()
    talker.sendall(b"x")
    assert recv_exactly(listener, 1) == b"x"
    talker.sendall(b"y")
    assert recv_exactly(listener, 1) == b"y"
    took = time.monotonic() - began
    listener.sendall(b"z")
    assert recv_exactly(talker, 1) == b"z"
    return took


def send_urgent(sock):
    """Three urgent bytes, each with one behind it."""
    for size in (0, 1, 100_000):
        sock.sendall(b"a" * size + b"b", socket.MSG_OOB)
        sock.sendall(b"c")
        recv_exactly(sock, 1)


@pytest.mark.parametrize("talks", ["client", "server"])
def test_urgent_byte_arrives_in_its_place(rediald, serve, connect, address, talks):
    def listen(sock):
        for size in (0, 1, 100_000):
            received.append(recv_exactly(sock, size + 2))
            sock.sendall(b".")
    received, done = [], threading.Event()

    def server(sock):
        if recv_exactly(sock, 1):  # else it is the probe
            (listen if talks == "client" else send_urgent)(sock)
            done.set()
    rediald(proxy(address, serve(server).address))
    client = connect(address)
    client.sendall(b"!")
    (send_urgent if talks == "client" else listen)(client)
    assert done.wait(deadline(20))
    assert received == [b"a" * size + b"bc" for size in (0, 1, 100_000)]


def test_urgent_byte_in_a_stream_that_splices(rediald, serve, connect, address):
    rediald(proxy(address, serve(echo).address))
    client = connect(address)
    sender = threading.Thread(target=lambda: [client.sendall(part, flags) for part, flags in (
        (BIG, 0), (b"!", socket.MSG_OOB), (BIG, 0))])
    sender.start()
    assert recv_exactly(client, 2 * len(BIG) + 1) == BIG + b"!" + BIG
    sender.join()


def test_bytes_behind_a_passed_descriptor_are_read_as_well(rediald, serve, connect, tmp_path):
    # One read of a UNIX socket ends where its peer passed a descriptor, though more is there.
    path = f"unix:{tmp_path}/listen"
    daemon = rediald(proxy(path, serve(echo).address))
    client = connect(path)
    daemon.freeze()
    socket.send_fds(client, [b"one"], [0])
    client.sendall(b"two")
    daemon.signal(signal.SIGCONT)
    assert recv_exactly(client, 6) == b"onetwo"


@pytest.mark.parametrize("talks", ["client", "server"])
@pytest.mark.parametrize("more, quick", [("", True), ("nodelay = off", False)])
def test_small_writes_are_not_held_back(rediald, serve, connect, address, more, quick, talks):
    ours, done = [], threading.Event()

    def hand_over(sock):
        if recv_exactly(sock, 1):  # else it is the probe
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            ours.append(sock)
            done.wait(deadline(20))
    rediald(proxy(address, serve(hand_over).address, more))
    client = connect(address)
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    client.sendall(b"!")
    eventually(lambda: ours)
    ends = (client, ours[0]) if talks == "client" else (ours[0], client)
    # Nagle's algorithm holds the second until the first is acknowledged: 40 ms later.
    rounds = sorted(ping(*ends) for _ in range(31))
    done.set()
    assert (rounds[len(rounds) // 2] < 0.03) == quick


def test_user_timeout_ends_a_session_whose_peer_is_gone(rediald, serve, connect, address):
    def ip_address(verb):
        subprocess.run(["ip", "address", verb, "10.5.5.5/32", "dev", "lo"], check=True)
    ip_address("add")
    daemon = rediald(proxy(address, serve(echo, "10.5.5.5:8000").address, "user_timeout = 1s"))
    client = connect(address)
    client.sendall(b"x")
    assert recv_exactly(client, 1) == b"x"
    ip_address("del")
    client.sendall(b"y")
    assert recv_until_end(client) == (b"", "reset")
    daemon.session(reason="timed_out", bytes_to_client=1)
