# SPDX-License-Identifier: MIT
"""Listening: ports that others hold, UNIX paths, abstract names, the wildcards."""

import fcntl
import os
import pwd
import stat
import subprocess

import pytest

from helpers import NO_IPV6, python
from netns import is_real_root, sysctl
from servers import echo
from sockets import ask, backlogs, connected, is_refused, listening, recv_exactly

# Holds port argv[2] of address argv[1] by a connection from it to port argv[4] of argv[3] until stdin ends, and leaves no TIME_WAIT.
HOLDER = """
import socket, struct, sys
host, port, to_host, to_port = sys.argv[1:]
s = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
s.bind((host, int(port)))
s.connect((to_host, int(to_port)))
s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
print("ready", flush=True)
sys.stdin.read()
"""
# Holds port argv[1] by a connection to port argv[2] until stdin ends, and leaves TIME_WAIT.
OUTGOING = """
import socket, sys
s = socket.socket()
s.bind(("127.0.0.1", int(sys.argv[1])))
s.connect(("127.0.0.1", int(sys.argv[2])))
print("ready", flush=True)
sys.stdin.read()
s.shutdown(socket.SHUT_WR)
s.recv(1)
s.close()
"""


def proxy(listen, server="192.0.2.1:80", daemon="", more=""):
    return f"""
[daemon]
access_log = all
{daemon}
[proxy web]
listen = {listen}
server = {server}
{more}
"""


# Where a thief has bound, as whom it is seen then, and where it keeps us from listening.
THIEVES = [
    ("127.0.0.1", "127.0.0.1", "127.0.0.1"), ("127.0.0.1", "127.0.0.1", "0.0.0.0"),
    ("127.0.0.1", "127.0.0.1", "*"), ("0.0.0.0", "127.0.0.1", "127.0.0.1"),
    ("::1", "::1", "[::1]"), ("::1", "::1", "[::]"), ("::1", "::1", "*"), ("::", "::1", "[::1]"),
    ("::ffff:127.0.0.1", "::ffff:127.0.0.1", "127.0.0.1"),
    ("::ffff:127.0.0.1", "::ffff:127.0.0.1", "*"),
]


@pytest.mark.parametrize("bound, seen, host", THIEVES)
def test_port_held_by_a_self_connected_socket_is_waited_for(rediald, serve, port, bound, seen, host):
    held = port()
    daemon_serves = f"127.0.0.1:{held}" if "." in host or host == "*" else f"[::1]:{held}"
    server = serve(echo)
    with python(HOLDER, bound, held, seen, held) as thief:
        daemon = rediald(proxy(f"{host}:{held}", server.address), ready=False)
        retry = daemon.wait_event("listen_retry")
        assert f"{host}:{held} is held by a self-connected socket of pid {thief.pid} (python3" \
               in retry.text
        assert "READY=1" not in daemon.notifications
    daemon.wait_ready()
    assert ask(daemon_serves, b"hello") == b"hello"


@pytest.mark.parametrize("bound, seen, host", THIEVES)
def test_port_held_by_a_connection_is_waited_for(rediald, serve, port, bound, seen, host):
    held = port()
    to = "[::1]" if seen == "::1" else "127.0.0.1"
    server = serve(echo, f"{to}:{port()}")
    with python(HOLDER, bound, held, seen, server.port) as thief:
        daemon = rediald(proxy(f"{host}:{held}", server.address), ready=False)
        retry = daemon.wait_event("listen_retry")
        assert f"{host}:{held} is held by a connection to {server.address} of pid {thief.pid} " \
               "(python3" in retry.text
    daemon.wait_ready()


def test_port_held_by_a_connection_and_its_time_wait_is_waited_for(rediald, serve, port):
    held = port()
    server = serve(echo)
    with python(OUTGOING, held, server.port) as thief:
        daemon = rediald(proxy(f"127.0.0.1:{held}", server.address), ready=False)
        retry = daemon.wait_event("listen_retry")
        assert f"held by a connection to {server.address} of pid {thief.pid} (python3" in retry.text
    assert "TIME-WAIT" in sockets_on(held)
    later = rediald(proxy(f"0.0.0.0:{held}", server.address), ready=False)
    assert "TIME_WAIT" in later.wait_event("listen_retry").text
    later.process.kill()
    assert "READY=1" not in daemon.notifications
    # The minute of TIME_WAIT is over early where the kernel lets us end it (INET_DIAG_DESTROY).
    subprocess.run(["ss", "-K", "-tan", f"sport = :{held}"], check=False,
                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    daemon.wait_ready(10 if "TIME-WAIT" not in sockets_on(held) else 65)
    assert ask(f"127.0.0.1:{held}", b"hello") == b"hello"


def sockets_on(port):
    return subprocess.run(["ss", "-Htan", f"sport = :{port}"], check=True, text=True,
                          stdout=subprocess.PIPE).stdout


def test_port_held_by_a_listener_ends_the_start_at_once(rediald, serve):
    other = serve(echo)
    daemon = rediald(proxy(other.address), ready=False)
    assert daemon.wait_exit(5) == 71
    assert f"held by a listener of pid {os.getpid()} (" in daemon.text()
    assert other.address in daemon.text()
    assert not daemon.events("listen_retry")


@pytest.mark.parametrize("theirs, ours", [
    ("127.0.0.1", "*"), ("0.0.0.0", "127.0.0.1"), ("0.0.0.0", "*"), ("[::1]", "[::1]"),
    ("[::1]", "[::]"), ("[::1]", "*"), ("[::]", "127.0.0.1"), ("[::]", "0.0.0.0"),
    ("[::]", "[::1]"), ("[::]", "*"),
])
def test_listener_of_either_family_is_named(rediald, serve, port, theirs, ours):
    held = port()
    serve(echo, f"{theirs}:{held}")  # that on :: takes IPv4, too
    daemon = rediald(proxy(f"{ours}:{held}"), ready=False)
    assert daemon.wait_exit(5) == 71
    failed = daemon.wait_event("listen_failed")
    assert f"{ours}:{held}: " in failed.text
    assert f": held by a listener of pid {os.getpid()} (" in failed.text
    assert not daemon.events("listen_retry")


def test_second_rediald_on_a_port_ends_at_once_and_the_first_goes_on(rediald, serve, port):
    listen = f"127.0.0.1:{port()}"
    server = serve(echo)
    first = rediald(proxy(listen, server.address))
    second = rediald(proxy(listen, server.address), ready=False)
    assert second.wait_exit(5) == 71
    assert f"of pid {first.pid} (" in second.text()
    assert ask(listen, b"hello") == b"hello"


def test_bind_retry_bounds_the_wait(rediald, serve, port):
    held = port()
    server = serve(echo)
    with python(OUTGOING, held, server.port):
        daemon = rediald(proxy(f"127.0.0.1:{held}", daemon="bind_retry = 1s"), ready=False)
        daemon.wait_event("listen_retry")
        assert daemon.wait_exit(5) == 71
        assert "held by a connection to" in daemon.text()


def test_without_bind_retry_nothing_is_waited_for(rediald, serve, port):
    held = port()
    server = serve(echo)
    with python(OUTGOING, held, server.port):
        daemon = rediald(proxy(f"127.0.0.1:{held}", daemon="bind_retry = off"), ready=False)
        assert daemon.wait_exit(5) == 71
        assert not daemon.events("listen_retry")


def test_waiting_for_a_port_ends_with_sigterm(rediald, serve, port):
    held = port()
    with python(OUTGOING, held, serve(echo).port):
        daemon = rediald(proxy(f"127.0.0.1:{held}"), ready=False)
        daemon.wait_event("listen_retry")
        daemon.terminate(timeout=5)


def test_address_of_another_host_is_refused(rediald):
    daemon = rediald(proxy("192.0.2.7:7000"), ready=False)
    assert daemon.wait_exit(5) == 71
    assert "192.0.2.7:7000" in daemon.text()


def test_one_listener_that_fails_leaves_nothing_behind(rediald, serve, tmp_path):
    other = serve(echo)
    daemon = rediald(proxy(f"unix:{tmp_path}/in.sock, {other.address}"), ready=False)
    assert daemon.wait_exit(5) == 71
    assert not (tmp_path / "in.sock").exists()


# UNIX paths

@pytest.fixture
def path(tmp_path):
    return tmp_path / "in.sock"


def test_stale_unix_socket_is_taken_over(rediald, serve, path):
    listening(f"unix:{path}").close()
    assert path.is_socket()
    rediald(proxy(f"unix:{path}", serve(echo).address))
    assert ask(f"unix:{path}", b"hello") == b"hello"


def test_unix_socket_left_by_a_killed_rediald_is_taken_over(rediald, serve, path):
    text = proxy(f"unix:{path}", serve(echo).address)
    first = rediald(text)
    first.process.kill()
    first.wait_exit()
    first._judged = True
    assert path.is_socket()
    rediald(text)
    assert ask(f"unix:{path}", b"hello") == b"hello"


def test_unix_socket_of_a_live_program_is_left_alone(rediald, serve, path):
    serve(echo, f"unix:{path}")
    daemon = rediald(proxy(f"unix:{path}"), ready=False)
    assert daemon.wait_exit(5) == 71
    assert str(path) in daemon.text()
    assert ask(f"unix:{path}", b"hello") == b"hello"


def test_second_rediald_on_a_unix_path_leaves_the_first_alone(rediald, serve, path):
    text = proxy(f"unix:{path}", serve(echo).address)
    rediald(text)
    second = rediald(text, ready=False)
    assert second.wait_exit(5) == 71
    assert ask(f"unix:{path}", b"hello") == b"hello"


def test_lock_that_another_holds_is_respected(rediald, path):
    listening(f"unix:{path}").close()
    with open(f"{path}.lock", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        daemon = rediald(proxy(f"unix:{path}"), ready=False)
        assert daemon.wait_exit(5) == 71
    assert path.is_socket(), "only the holder of the lock may remove it"


def test_file_that_is_no_socket_is_left_alone(rediald, path):
    path.write_text("precious")
    daemon = rediald(proxy(f"unix:{path}"), ready=False)
    assert daemon.wait_exit(5) == 71
    assert path.read_text() == "precious"


def test_unix_mode_and_owner(rediald, path):
    if not is_real_root():
        pytest.skip("needs real root to give files away")
    rediald(proxy(f"unix:{path}", more="unix_mode = 0600\nunix_user = nobody\nunix_group = daemon"))
    status = path.stat()
    assert stat.S_IMODE(status.st_mode) == 0o600
    assert (status.st_uid, status.st_gid) == (pwd.getpwnam("nobody").pw_uid,
                                              pwd.getpwnam("daemon").pw_gid)


def test_unix_mode_by_default_whatever_the_umask(rediald, path):
    rediald(proxy(f"unix:{path}"), preexec=lambda: os.umask(0o077))
    assert stat.S_IMODE(path.stat().st_mode) == 0o660


def test_unix_socket_and_lock_are_gone_after_the_end(rediald, path):
    daemon = rediald(proxy(f"unix:{path}"))
    assert path.is_socket()
    daemon.terminate()
    assert list(path.parent.glob("in.sock*")) == []


def test_abstract_name_serves_and_is_refused_to_a_second(rediald, serve):
    text = proxy("unix:@redial-test", serve(echo).address)
    rediald(text)
    assert ask("unix:@redial-test", b"hello") == b"hello"
    assert rediald(text, ready=False).wait_exit(5) == 71
    assert ask("unix:@redial-test", b"hello") == b"hello"


# Wildcards

def test_star_takes_both_families(rediald, serve, port):
    listen = port()
    rediald(proxy(f"*:{listen}", serve(echo).address))
    assert ask(f"127.0.0.1:{listen}", b"four") == b"four"
    assert ask(f"[::1]:{listen}", b"six") == b"six"


def test_star_takes_ipv4_alone_where_there_is_no_ipv6(rediald, serve, port):
    listen = port()
    rediald(proxy(f"*:{listen}", serve(echo).address), prefix=NO_IPV6)
    assert ask(f"127.0.0.1:{listen}", b"four") == b"four"
    assert is_refused(f"[::1]:{listen}")


def test_ipv6_wildcard_leaves_ipv4_to_others(rediald, serve, port):
    listen = port()
    server = serve(echo)
    rediald(f"""
[proxy six]
listen = [::]:{listen}
server = {server.address}
""")
    assert is_refused(f"127.0.0.1:{listen}")
    assert ask(f"[::1]:{listen}", b"six") == b"six"
    four = rediald(proxy(f"0.0.0.0:{listen}", server.address))
    assert ask(f"127.0.0.1:{listen}", b"four") == b"four"
    assert four.session()["bytes_to_client"] == "4"


def test_several_listeners_of_one_proxy(rediald, serve, port, path):
    addresses = [f"127.0.0.1:{port()}", f"[::1]:{port()}", f"unix:{path}", "unix:@several"]
    rediald(proxy(", ".join(addresses), serve(echo).address))
    for address in addresses:
        with connected(address) as client:
            client.sendall(b"x")
            assert recv_exactly(client, 1) == b"x"


def test_listening_is_told(rediald, port):
    address = f"127.0.0.1:{port()}"
    daemon = rediald(proxy(address))
    assert daemon.wait_event("listening", proxy="web")["address"] == address


@pytest.mark.parametrize("line, somaxconn, expected", [
    ("", 60000, 4096),
    ("backlog = 50000", 60000, 50000),
    ("backlog = 77", 4096, 77),
    ("backlog = 500", 128, 128),
    ("", 128, 128),
], ids=["default", "more", "fewer", "capped", "default_capped"])
def test_kernel_is_told_the_backlog(rediald, port, tmp_path, line, somaxconn, expected):
    sysctl("net.core.somaxconn", somaxconn)
    tcp, tcp6, unix = f"127.0.0.1:{port()}", f"[::1]:{port()}", f"{tmp_path}/in"
    rediald(proxy(f"{tcp} {tcp6} unix:{unix}", daemon="workers = 2", more=line))
    assert backlogs() == [(address, expected) for address in sorted([tcp, tcp, tcp6, tcp6, unix])]
