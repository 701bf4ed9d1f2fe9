# SPDX-License-Identifier: MIT
"""Sessions in which one side fails or ends while the other does not take what is left for it."""

import contextlib
import os
import random
import signal
import socket

import pytest

import netns
from deadline import deadline, eventually, pass_time
from helpers import no_watch
from servers import echo, wait_sent
from sockets import close_reset, fate, listening, parse, recv_exactly, recv_until_end

# More than all the buffers on the way hold, with those below.
DATA = random.Random(2).randbytes(1 << 20) * 16
BUFFERS = {"net.ipv4.tcp_rmem": "4096 131072 1048576", "net.ipv4.tcp_wmem": "4096 16384 2097152"}
CLOSE_WAIT, LAST_ACK = 8, 9

both_modes = pytest.mark.parametrize("mode", ["copying", "splicing"])


@pytest.fixture
def pair(rediald, connect, port, tmp_path):
    """pair(...): a daemon, and the client's and the server's socket of a session through it."""
    for name, value in BUFFERS.items():
        netns.sysctl(name, value)
    with contextlib.ExitStack() as stack:
        def start(mode="splicing", *, more="", unix_server=False, unix_client=False,
                  client_buffer=None):
            listen = f"unix:{tmp_path}/in.sock" if unix_client else f"127.0.0.1:{port()}"
            behind = f"unix:{tmp_path}/out.sock" if unix_server else f"127.0.0.1:{port()}"
            listener = stack.enter_context(listening(behind))
            listener.settimeout(deadline(10))
            daemon = rediald(configuration(listen, behind, mode, more))
            probe, _ = listener.accept()
            with probe:
                assert probe.recv(1) == b""
            client = connected_slowly(listen, client_buffer) if client_buffer else connect(listen)
            stack.enter_context(client)
            server = stack.enter_context(listener.accept()[0])
            server.settimeout(deadline(20))
            return daemon, client, server
        yield start


def configuration(listen, server, mode, more):
    splice = "off" if mode == "copying" else "auto"
    return f"""
[daemon]
access_log = all
splice = {splice}
[proxy web]
listen = {listen}
server = {server}
standby = 0
{more}
"""


def connected_slowly(address, size):
    """A client that has room for size bytes, and leaves the rest in the daemon's kernel."""
    family, sockaddr = parse(address)
    client = socket.socket(family)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)
    client.settimeout(deadline(20))
    client.connect(sockaddr)
    return client


def fill(sock):
    """Send of DATA until no more is taken; how many bytes were."""
    view, sent = memoryview(DATA), 0
    sock.settimeout(0.3)
    with contextlib.suppress(TimeoutError):
        while sent < len(DATA):
            sent += sock.send(view[sent:sent + (1 << 18)])
    sock.settimeout(deadline(20))
    assert sent < len(DATA), "the sender was not stopped"
    return sent


def pipes(daemon):
    return sum(link.startswith("pipe:") for link in daemon.descriptors())


def warm(daemon, mode, source, sink):
    """Bring the direction to the way to move bytes that mode names."""
    before = pipes(daemon)

    def splices():
        sent = fill(source)
        spliced = pipes(daemon) > before
        assert recv_exactly(sink, sent) == DATA[:sent]
        return spliced
    if mode == "splicing":
        eventually(splices, 20, "what moves much is spliced")
    else:
        assert not splices()


def kernel_side(client):
    """The daemon's socket to a TCP client, as the kernel tells: its state, and bytes unread."""
    ours = [f"{port:04X}" for port in (client.getpeername()[1], client.getsockname()[1])]
    with open("/proc/thread-self/net/tcp", encoding="ascii") as table:
        rows = [line.split() for line in table][1:]
    for row in rows:
        if [end.rpartition(":")[2] for end in row[1:3]] == ours:
            return int(row[3], 16), int(row[4].rpartition(":")[2], 16)
    return None, 0


def is_unread(client):
    """Does the daemon leave the client's bytes in its kernel for a while?"""
    for _ in range(20):
        if kernel_side(client)[1] == 0:
            return False
        pass_time(0.01)
    return True


def assert_rests(daemon):
    """It has nothing to do, and does nothing."""
    before = daemon.cpu_seconds()
    pass_time(1)
    assert daemon.cpu_seconds() - before < 0.1, "it spins"


# A failed side, and one that lingers

def test_server_that_failed_after_its_answer_makes_no_spin(pair):
    daemon, client, server = pair(client_buffer=4096)
    answer = DATA[:60_000]
    server.sendall(answer)
    server.shutdown(socket.SHUT_WR)
    eventually(lambda: kernel_side(client)[0] not in (1, None), 5, "its end was passed on")
    server.close()
    for data in (b"a", b"b", b"c" * 1000):
        client.sendall(data)
        pass_time(0.1)
    assert_rests(daemon)
    assert recv_until_end(client)[0] == answer
    daemon.session(reason="server_reset", bytes_to_client=len(answer))


@both_modes
def test_server_that_failed_in_mid_answer_makes_no_spin(pair, mode):
    daemon, client, server = pair(mode)
    warm(daemon, mode, server, client)
    fill(server)
    server.close()
    for data in (b"a", b"b", b"c" * 1000):
        client.sendall(data)
        pass_time(0.1)
    assert_rests(daemon)
    got, how = recv_until_end(client)
    assert how == "reset"
    assert got and DATA.startswith(got)
    daemon.session(reason="server_reset")


def test_failed_client_makes_no_spin_while_its_server_goes_on(pair):
    daemon, client, server = pair(unix_server=True)
    client.sendall(b"question")
    client.shutdown(socket.SHUT_WR)
    eventually(lambda: kernel_side(client)[0] == CLOSE_WAIT)
    pass_time(0.1)
    close_reset(client)
    for data in (b"1", b"2", b"3" * 100):
        pass_time(0.1)
        with contextlib.suppress(BrokenPipeError):
            server.sendall(data)
    assert_rests(daemon)
    server.close()
    daemon.session(reason="client_reset")


@pytest.mark.parametrize("taken", ["by_the_kernel", "in_part"])
@both_modes
def test_half_close_timeout_bounds_the_lingering_of_a_client(pair, mode, taken):
    slow = 4096 if taken == "by_the_kernel" else None
    daemon, client, server = pair(mode, more="half_close_timeout = 1s", client_buffer=slow)
    if slow:
        server.sendall(DATA[:60_000])
        wait_sent(server)
    else:
        warm(daemon, mode, server, client)
        fill(server)
    close_reset(server)
    daemon.session(timeout=5)
    got, how = recv_until_end(client)
    assert how == "reset"
    assert DATA.startswith(got)


@both_modes
def test_whole_answer_arrives_when_the_server_closes_during_an_upload(pair, mode):
    # As HTTP servers do that answer 413: the answer, FIN, and RST for what they did not read.
    daemon, client, server = pair(mode, client_buffer=4096)
    warm(daemon, mode, client, server)
    while not is_unread(client):
        client.sendall(DATA[:1 << 16])
    client.shutdown(socket.SHUT_WR)
    eventually(lambda: kernel_side(client)[0] == CLOSE_WAIT, 5, "its FIN is there, unread")
    answer = DATA[:60_000]
    server.sendall(answer)
    server.shutdown(socket.SHUT_WR)
    eventually(lambda: kernel_side(client)[0] == LAST_ACK, 5, "the answer's end was passed on")
    server.close()
    pass_time(0.3)
    assert recv_until_end(client)[0] == answer
    daemon.session(bytes_to_client=len(answer))


# A side that is stalled

@both_modes
def test_reset_of_a_stalled_client_is_heard(pair, mode):
    daemon, client, server = pair(mode, more="half_close_timeout = 1s")
    warm(daemon, mode, client, server)
    fill(client)
    close_reset(client)
    daemon.session(timeout=6)
    got, how = recv_until_end(server)
    assert how == "reset"
    assert got and DATA.startswith(got)


@both_modes
def test_reset_of_a_stalled_server_is_heard(pair, mode):
    daemon, client, server = pair(mode, more="half_close_timeout = 1s")
    warm(daemon, mode, server, client)
    fill(server)
    close_reset(server)
    daemon.session(timeout=6)
    got, how = recv_until_end(client)
    assert how == "reset"
    assert got and DATA.startswith(got)


@both_modes
def test_stalled_side_that_was_not_reset_goes_on(pair, mode):
    daemon, client, server = pair(mode, more="half_close_timeout = 1s")
    sent = fill(client)
    pass_time(2.5)  # a watch was put on it meanwhile
    assert recv_exactly(server, sent) == DATA[:sent]
    server.sendall(b"answer")
    assert recv_exactly(client, 6) == b"answer"
    assert not daemon.events("session")


# UNIX peers close without a FIN

def test_plain_close_of_a_unix_server_is_no_reset(pair):
    daemon, client, server = pair(unix_server=True)
    client.sendall(b"question")
    assert recv_exactly(server, 8) == b"question"
    server.sendall(b"answer")
    server.close()
    assert recv_until_end(client) == (b"answer", "eof")
    pass_time(1.5)
    assert client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
    assert not daemon.events("session", reason="server_reset")
    client.close()
    daemon.session(reason="server_closed")


def test_plain_close_of_a_unix_client_is_no_reset(pair):
    daemon, client, server = pair(unix_client=True)
    client.sendall(b"line" * 10)
    client.close()
    pass_time(1.5)
    assert recv_until_end(server) == (b"line" * 10, "eof")
    server.close()
    daemon.session(reason="client_closed", bytes_to_server=40)


# Nothing more can be watched

def idle_epolls(daemon):
    """The numbers of the daemon's epoll instances that watch nothing."""
    idle = []
    for fd in os.listdir(f"/proc/{daemon.pid}/fd"):
        with contextlib.suppress(FileNotFoundError):
            with open(f"/proc/{daemon.pid}/fdinfo/{fd}", encoding="ascii") as info:
                if (os.readlink(f"/proc/{daemon.pid}/fd/{fd}") == "anon_inode:[eventpoll]"
                        and "tfd:" not in info.read()):
                    idle.append(fd)
    return idle


@pytest.fixture
def watching_nothing(rediald, serve, port):
    """watching_nothing(more): a daemon that cannot watch a session's socket, its address and its server."""
    def start(more):
        address, server = f"127.0.0.1:{port()}", serve(echo)

        def daemon(more, **kwargs):
            started = rediald(f"[daemon]\nworkers = 1\naccess_log = all\n[proxy web]\n"
                              f"listen = {address}\nserver = {server.address}\n{more}\n", **kwargs)
            started.wait_event("server_up")
            return started
        # The set of these sockets has the same number in every daemon that begins alike.
        first = daemon("standby = 0")
        eventually(lambda: len(idle_epolls(first)) == 1)
        epoll, = idle_epolls(first)
        first.terminate()
        return daemon(more, prefix=no_watch(epoll)), address, server
    return start


def test_session_that_cannot_be_watched_is_reset(watching_nothing):
    daemon, address, _ = watching_nothing("standby = 0")
    daemon.allowed_errors.add("session")
    for n in range(1, 4):
        assert fate(address, b"hello") == (b"", "reset")
        daemon.wait_event("session", count=n, reason="internal")


def test_standby_that_cannot_be_watched_is_not_dialled_for_ever(watching_nothing):
    daemon, address, server = watching_nothing("standby = 1")
    before = server.accepted
    pass_time(1)
    assert server.accepted < before + 5
    daemon.allowed_errors.add("session")
    assert fate(address, b"hello") == (b"", "reset")


# The machine pauses

def test_bytes_that_came_in_a_pause_of_the_machine_count_as_life(pair):
    daemon, client, server = pair(more="idle_timeout = 1s")
    client.sendall(b"x")
    assert recv_exactly(server, 1) == b"x"
    daemon.freeze()
    client.sendall(b"hello")
    server.sendall(b"answer")
    pass_time(1.5)
    daemon.signal(signal.SIGCONT)
    assert recv_exactly(server, 5) == b"hello"
    assert recv_exactly(client, 6) == b"answer"
    daemon.session(reason="idle_timeout")
