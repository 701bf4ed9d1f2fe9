# SPDX-License-Identifier: MIT
"""Listening sockets that the service manager passes: listen = systemd:NAME."""

import contextlib
import os
import signal
import socket
import subprocess

import pytest

import netns
from binary import REDIALD
from deadline import eventually
from helpers import passing
from servers import echo
from sockets import ask, connected, crowd, fate, listening, recv_exactly


@pytest.fixture
def address(port):
    return f"127.0.0.1:{port()}"


@pytest.fixture
def passed():
    """passed(address): a listening socket as systemd has it, which it keeps."""
    with contextlib.ExitStack() as stack:
        yield lambda address: stack.enter_context(listening(address))


def proxy(listen, server="192.0.2.1:80", more="", daemon=""):
    return f"[daemon]\naccess_log = all\n{daemon}\n[proxy web]\nlisten = {listen}\n" \
           f"server = {server}\n{more}\n"


def name_of(sock):
    """As Rediald.descriptors() calls it."""
    return f"socket:[{os.fstat(sock.fileno()).st_ino}]"


# Serving

@pytest.mark.parametrize("workers", [1, 3])
def test_every_socket_of_a_name_is_served(rediald, serve, passed, port, tmp_path, workers):
    addresses = [f"127.0.0.1:{port()}", f"[::1]:{port()}", f"unix:{tmp_path}/in.sock",
                 "unix:@redial-passed", f"127.0.0.1:{port()}"]
    sockets = [passed(each) for each in addresses]
    own = f"127.0.0.1:{port()}"
    daemon = rediald(proxy(f"systemd:web, {own}, systemd:other", serve(echo).address,
                           daemon=f"workers = {workers}"),
                     **passing(*zip(("web", "web", "web", "web", "other"), sockets)))
    for each in (*addresses, own):
        assert crowd(12, lambda _n, a=each: ask(a, b"hello")) == [b"hello"] * 12
    for each in addresses:
        assert daemon.wait_event("listening", address=each)
    assert daemon.wait_event("listening", socket="other", address=addresses[4])
    daemon.terminate()
    assert os.path.exists(f"{tmp_path}/in.sock"), "whoever made it removes it"
    assert not os.path.exists(f"{tmp_path}/in.sock.lock")


def test_all_workers_serve_one_socket(rediald, serve, passed, address):
    daemon = rediald(proxy("systemd:web", serve(echo).address, daemon="workers = 4"),
                     **passing(("web", passed(address))))
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(connected(address)) for _ in range(100)]
        for client in clients:
            client.sendall(b"x")
        assert [recv_exactly(client, 1) for client in clients] == [b"x"] * 100
        assert daemon.sockets() >= 200


def test_clients_wait_in_the_socket_from_one_daemon_to_the_next(rediald, serve, passed, address):
    sock, server = passed(address), serve(echo)
    first = rediald(proxy("systemd:web", server.address), **passing(("web", sock)))
    assert ask(address, b"one") == b"one"
    first.terminate()
    with connected(address) as client:
        client.sendall(b"two")
        rediald(proxy("systemd:web", server.address), **passing(("web", sock)))
        assert recv_exactly(client, 3) == b"two"


def test_blocking_socket_does_not_block(rediald, serve, passed, address):
    sock = passed(address)
    sock.setblocking(True)
    daemon = rediald(proxy("systemd:web", serve(echo).address), **passing(("web", sock)))
    assert ask(address, b"hello") == b"hello"
    daemon.terminate()


def test_socket_options_are_the_proxys(rediald, serve, passed, address):
    sock = passed(address)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 1234)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)

    def options():
        return [bool(sock.getsockopt(level, option)) for level, option in (
            (socket.IPPROTO_TCP, socket.TCP_NODELAY), (socket.SOL_SOCKET, socket.SO_KEEPALIVE),
            (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT))]
    rediald(proxy("systemd:web", serve(echo).address,
                  more="keepalive = off"), **passing(("web", sock))).terminate()
    assert options() == [True, False, False]
    rediald(proxy("systemd:web", serve(echo).address,
                  more="nodelay = off\nuser_timeout = 1s"), **passing(("web", sock))).terminate()
    assert options() == [False, True, True]


def test_access_lists_hold_for_tcp_and_not_for_unix(rediald, serve, passed, address, tmp_path):
    path = f"unix:{tmp_path}/in.sock"
    rediald(proxy("systemd:web", serve(echo).address, more="deny = all"),
            **passing(("web", passed(address)), ("web", passed(path))))
    assert fate(address, b"hello") == (b"", "reset")
    assert ask(path, b"hello") == b"hello"


def test_accept_proxy_holds(rediald, serve, passed, address):
    rediald(proxy("systemd:web", serve(echo).address, more="accept_proxy = on"),
            **passing(("web", passed(address))))
    assert ask(address, b"PROXY TCP4 192.0.2.9 192.0.2.8 1 2\r\nhello") == b"hello"


def test_port_in_the_ephemeral_range_is_warned_of(rediald, serve, passed):
    netns.sysctl("net.ipv4.ip_local_port_range", "40000 40099")
    sock = passed("127.0.0.1:40007")
    daemon = rediald(proxy("systemd:web", serve(echo).address), **passing(("web", sock)))
    warning = daemon.wait_event("listen_port_in_range", port=40007)
    assert warning.level == "warning"
    daemon.terminate()
    refused = rediald(proxy("systemd:web", daemon="port_range_check = error"), ready=False,
                      **passing(("web", sock)))
    assert refused.wait_exit() == 78


def test_name_of_a_socket_unit_will_do(rediald, serve, passed, address):
    rediald(proxy("systemd:rediald.socket", serve(echo).address),
            **passing(("rediald.socket", passed(address))))
    assert ask(address, b"hello") == b"hello"


def test_drain_leaves_the_socket_to_its_owner(rediald, serve, connect, passed, address):
    sock = passed(address)
    daemon = rediald(proxy("systemd:web", serve(echo).address, daemon="drain_timeout = 30s"),
                     **passing(("web", sock)))
    client = connect(address)
    client.sendall(b"x")
    assert recv_exactly(client, 1) == b"x"
    daemon.signal(signal.SIGTERM)
    daemon.wait_event("draining")
    eventually(lambda: name_of(sock) not in daemon.descriptors(), what="every worker lets go")
    with connected(address) as late:
        late.sendall(b"later")
        client.close()
        assert daemon.wait_exit() == 0
        other, _ = sock.accept()
        with other:
            assert recv_exactly(other, 5) == b"later"


def test_dump_has_a_name_once(passed, port, tmp_path):
    path = tmp_path / "a.conf"
    path.write_text(proxy("systemd:web, systemd:other"))
    launch = passing(*(("web", passed(f"127.0.0.1:{port()}")) for _ in range(3)))
    text = subprocess.run([*launch["prefix"], REDIALD, "-c", str(path), "--dump"], check=True,
                          pass_fds=launch["pass_fds"], stdout=subprocess.PIPE, text=True).stdout
    assert [line for line in text.splitlines() if line.startswith("listen")] == \
        ["listen = systemd:web", "listen = systemd:other"]


# Faults

def test_name_that_was_not_passed(rediald, passed, port):
    sockets = [passed(f"127.0.0.1:{port()}") for _ in range(2)]
    daemon = rediald(proxy("systemd:web"), ready=False,
                     **passing(("one", sockets[0]), ("two", sockets[1])))
    assert daemon.wait_exit() == 78
    failed = daemon.wait_event("listen_failed", socket="web")
    assert "passed were: 'one', 'two'" in failed.text
    assert failed.level == "error"


def test_no_socket_was_passed(rediald):
    daemon = rediald(proxy("systemd:web"), ready=False)
    assert daemon.wait_exit() == 78
    assert "passed were: none" in daemon.wait_event("listen_failed").text


def test_environment_of_another_process_is_not_ours(rediald):
    daemon = rediald(proxy("systemd:web"), ready=False,
                     env={"LISTEN_PID": "1", "LISTEN_FDS": "1", "LISTEN_FDNAMES": "web"})
    assert daemon.wait_exit() == 78
    assert "passed were: none" in daemon.wait_event("listen_failed").text


def test_environment_that_is_garbage(rediald):
    daemon = rediald(proxy("systemd:web"), ready=False,
                     env={"LISTEN_PID": "x", "LISTEN_FDS": "1"})
    assert daemon.wait_exit() == 71
    assert daemon.wait_line("LISTEN_FDS cannot be taken")


def datagram(port):
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("127.0.0.1", port()))
    return sock


def bound_only(port):
    sock = socket.socket()
    sock.bind(("127.0.0.1", port()))
    return sock


def no_socket(_port):
    return open("/dev/null", "rb")  # pylint: disable=consider-using-with


def netlink(_port):
    return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)


@pytest.mark.parametrize("make", [datagram, bound_only, no_socket, netlink])
def test_what_is_no_listening_stream_socket(rediald, port, make):
    with make(port) as sock:
        daemon = rediald(proxy("systemd:web"), ready=False, **passing(("web", sock)))
        assert daemon.wait_exit() == 78
    assert "no listening stream socket" in daemon.wait_event("listen_failed").text


def test_socket_that_nobody_wants_is_warned_of(rediald, serve, passed, port):
    addresses = [f"127.0.0.1:{port()}" for _ in range(2)]
    wanted, other = (passed(each) for each in addresses)
    daemon = rediald(proxy("systemd:web", serve(echo).address),
                     **passing(("spare", other), ("web", wanted)))
    warning = daemon.wait_event("socket_unused", socket="spare", address=addresses[1])
    assert warning.level == "warning"
    assert ask(addresses[0], b"hello") == b"hello"


def test_loop_through_a_passed_socket_is_refused(rediald, passed, address):
    daemon = rediald(proxy("systemd:web", address), ready=False,
                     **passing(("web", passed(address))))
    assert daemon.wait_exit() == 78
    assert daemon.wait_line("leads back to this daemon in a loop")


def test_two_sockets_on_one_address_are_both_served(rediald, serve, port):
    where = ("127.0.0.1", port())
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(2)]
        for sock in sockets:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            sock.bind(where)
            sock.listen()
        rediald(proxy("systemd:web", serve(echo).address),
                **passing(*(("web", sock) for sock in sockets)))
        assert crowd(40, lambda _n: ask(f"127.0.0.1:{where[1]}", b"x")) == [b"x"] * 40
