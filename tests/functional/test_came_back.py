# SPDX-License-Identifier: MIT
"""Dials of our own that come in at our own listeners: chains, which are fine, and loops."""

import shutil
import subprocess
import time

import pytest

from deadline import deadline, eventually, pass_time
from helpers import python, slow_call
from netns import sysctl
from proxyheader import v1, v2
from ptrace import thread_named
from servers import echo
from sockets import (ask, connected, connections, crowd, fate, is_refused, recv_exactly,
                     recv_until_end)
from threads import stopped

workers = pytest.mark.parametrize("workers", [1, 4])

# A proxy that tells in a header of the PROXY protocol who its client is.
HEADER_PROXY = """
import socket, sys, threading
ours, theirs = int(sys.argv[1]), int(sys.argv[2])

def pump(source, sink):
    try:
        while data := source.recv(65536):
            sink.sendall(data)
    except OSError:
        pass
    for sock in (source, sink):
        try:
            sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass

def serve(client):
    try:
        server = socket.create_connection(("127.0.0.1", theirs))
        (host, port), (dest, at) = client.getpeername(), client.getsockname()
        server.sendall(f"PROXY TCP4 {host} {dest} {port} {at}\\r\\n".encode())
    except OSError:
        client.close()
        return
    threading.Thread(target=pump, args=(server, client), daemon=True).start()
    pump(client, server)

listener = socket.create_server(("127.0.0.1", ours))
print("ready", flush=True)
threading.Thread(target=lambda: (sys.stdin.read(), __import__("os")._exit(0)), daemon=True).start()
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
"""


def nft(text):
    """Run nft(8) with these commands."""
    path = shutil.which("nft", path="/usr/sbin:/sbin:/usr/bin")
    if not path:
        pytest.skip("nft(8) is not installed")
    return subprocess.run([path, "-f", "-"], input=text, text=True, check=False,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def redirect(rules):
    """Redirect what this host dials: {port: our listener's port}."""
    lines = "\n".join(f"tcp dport {port} redirect to :{to}" for port, to in rules.items())
    tables = "".join(f"""
table {family} loop {{
  chain output {{
    type nat hook output priority -100;
    {lines}
  }}
}}
""" for family in ("ip", "ip6"))
    result = nft(tables)
    if result.returncode != 0:
        pytest.skip(f"no NAT in this kernel, or not for us: {result.stdout}")


def stop_redirecting():
    """From now on. One rule is left: without any, the kernel would not translate for the connections that are there, whose ends would not hear of each other any more."""
    text = "".join(f"flush chain {family} loop output\n"
                   f"add rule {family} loop output tcp dport 9 redirect to :10\n"
                   for family in ("ip", "ip6"))
    assert nft(text).returncode == 0


def proxy(name, listen, server, *keys):
    lines = "\n".join(("backoff_max = 300ms", *keys))
    return f"[proxy {name}]\nlisten = {listen}\nserver = {server}\n{lines}\n"


def watch_sockets(daemon, seconds):
    """The most sockets that it has in so long a time."""
    most, end = 0, time.monotonic() + seconds
    while time.monotonic() < end:
        most = max(most, daemon.sockets())
        pass_time(0.02)
    return most


ADDRESSES = {"ipv4": ("127.0.0.1:6000", "127.0.0.1:8000"), "ipv6": ("[::1]:6000", "[::1]:8000"),
             "mapped": ("*:6000", "127.0.0.1:8000")}


@workers
@pytest.mark.parametrize("addresses", ADDRESSES.values(), ids=ADDRESSES.keys())
def test_redirected_dial_is_a_loop(rediald, serve, workers, addresses):
    listen, server = addresses
    redirect({8000: 6000})
    daemon = rediald(proxy("web", listen, server, "wait_timeout = 1s"),
                     daemon_keys=f"workers = {workers}")
    client = listen.replace("*", "127.0.0.1")
    fate(client, b"hello")
    down = daemon.wait_event("server_down", reason="loop")
    assert down["server"] == server and down["upstream"] == "web"
    loop = daemon.wait_event("loop", proxy="web", upstream="web", address=server)
    assert loop.level == "warning" and loop["client"].startswith(server.rpartition(":")[0])
    since = daemon.mark()
    base = daemon.sockets()
    assert set(crowd(20, lambda i: fate(client, b"hello"), 5)) == {(b"", "reset")}
    assert watch_sockets(daemon, 1) <= base + 4
    assert not daemon.events("server_up", since), "it was believed to be back"
    assert not daemon.events("server_down", since)
    assert not daemon.events("accept_paused")

    serve(echo, server)
    stop_redirecting()
    daemon.wait_event("server_up", timeout=10, since=since)
    assert ask(client, b"hello") == b"hello"


def test_name_whose_dial_comes_back_is_not_said_to_be_a_listener_of_ours(rediald):
    redirect({8000: 6000})
    daemon = rediald(proxy("web", "*:6000", "localhost:8000", "wait_timeout = 1s"))
    fate("127.0.0.1:6000", b"hello")
    daemon.wait_event("server_down", reason="loop")
    daemon.wait_event("loop", proxy="web")
    assert not daemon.events("loop", server="localhost:8000"), daemon.text()
    stop_redirecting()


@workers
def test_session_whose_dial_came_back_ends_as_a_loop(rediald, serve, workers):
    server = serve(echo, "127.0.0.1:8000")
    daemon = rediald(proxy("web", "127.0.0.1:6000", server.address, "wait_timeout = 1s",
                           "standby = 0"),
                     daemon_keys=f"workers = {workers}")
    assert ask("127.0.0.1:6000", b"hello") == b"hello"
    redirect({8000: 6000})
    assert fate("127.0.0.1:6000", b"hello") == (b"", "reset")
    # Where the accept was faster than the dialler, it took one more hop.
    daemon.session(reason="loop", bytes_to_client=0)
    assert daemon.wait_event("server_down")["reason"] == "loop"
    assert "leads back to this daemon" in daemon.events("server_down")[0].text


def test_probe_that_was_given_to_a_client_comes_back(rediald):
    daemon = rediald(proxy("web", "127.0.0.1:6000", "127.0.0.1:8000"), daemon_keys="workers = 1")
    daemon.wait_event("server_down", reason="refused")
    with connected("127.0.0.1:6000") as client:
        redirect({8000: 6000})
        assert recv_until_end(client) == (b"", "reset")
    daemon.session(reason="loop", attempts=0)
    stop_redirecting()


def test_other_server_is_used_when_one_leads_back(rediald, serve):
    good = serve(echo)
    redirect({8000: 6000})
    daemon = rediald(proxy("web", "127.0.0.1:6000", "127.0.0.1:8000 name=bad",
                           f"server = {good.address} name=good"))
    fate("127.0.0.1:6000", b"x", half_close=True)
    fate("127.0.0.1:6000", b"x", half_close=True)
    daemon.wait_event("server_down", server="bad", reason="loop")
    for _ in range(20):
        assert ask("127.0.0.1:6000", b"hello") == b"hello"


@workers
def test_circle_through_two_proxies_is_a_loop(rediald, workers):
    redirect({8001: 6002, 8002: 6001})
    daemon = rediald(proxy("a", "127.0.0.1:6001", "127.0.0.1:8001", "wait_timeout = 3s") +
                     proxy("b", "127.0.0.1:6002", "127.0.0.1:8002", "wait_timeout = 3s") +
                     "".join(proxy(f"other{i}", f"unix:@o{i}", "127.0.0.1:9999")
                             for i in range(30)), daemon_keys=f"workers = {workers}")
    for _ in range(3):
        assert fate("127.0.0.1:6001", b"hello") == (b"", "reset")
    daemon.wait_event("loop")
    daemon.wait_event("server_down", reason="loop")
    # With so many proxies it must not take as many hops.
    base = daemon.sockets()
    assert watch_sockets(daemon, 2) <= base + 12 * workers
    stop_redirecting()


def test_circle_is_not_closed_while_a_dialler_is_slow(rediald):
    # Accepted by one worker before the other has come back from connect(2), a dial is a stranger.
    # Given a standby connection, it might be the very one by which it has come: a circle for good.
    daemon = rediald(proxy("a", "127.0.0.1:6001", "127.0.0.1:8001", "wait_timeout = 1s") +
                     proxy("b", "127.0.0.1:6002", "127.0.0.1:8002", "wait_timeout = 1s"),
                     daemon_keys="workers = 2")
    daemon.wait_event("server_down", count=2)
    base = daemon.sockets()
    for n in range(2):
        with slow_call(thread_named(daemon.pid, f"worker {n}"), "connect", 0.02):
            redirect({8001: 6002, 8002: 6001})
            pass_time(3)
            stop_redirecting()
    # What was begun meanwhile ends, as there is nobody in it.
    eventually(lambda: daemon.sockets() <= base, 10)


def test_dial_in_the_queue_of_a_worker_that_stands_still_is_not_believed(rediald, serve):
    # Nobody takes it in, and so it lasts.
    redirect({8000: 6000})
    daemon = rediald(proxy("web", "127.0.0.1:6000", "127.0.0.1:8000", "wait_timeout = 1s"),
                     daemon_keys="workers = 2")  # the first of which dials
    daemon.wait_event("server_down", reason="loop")
    since = daemon.mark()
    with stopped(daemon, 1):
        pass_time(4)
    assert fate("127.0.0.1:6000", b"hello") == (b"", "reset")
    assert not daemon.events("server_up", since), "it was believed to be back"
    serve(echo, "127.0.0.1:8000")
    stop_redirecting()
    daemon.wait_event("server_up", timeout=10, since=since)
    assert ask("127.0.0.1:6000", b"hello") == b"hello"


def test_circle_beside_the_entry_is_a_loop(rediald, serve):
    # The client's own proxy is not in it: enter -> a -> b -> a.
    server = serve(echo, "127.0.0.1:8002")
    daemon = rediald(proxy("enter", "127.0.0.1:6000", "127.0.0.1:6001", "wait_timeout = 1s") +
                     proxy("a", "127.0.0.1:6001", "127.0.0.1:6002", "wait_timeout = 1s") +
                     proxy("b", "127.0.0.1:6002", server.address, "wait_timeout = 1s") +
                     "".join(proxy(f"other{i}", f"unix:@o{i}", "127.0.0.1:9999")
                             for i in range(30)), daemon_keys="workers = 1")
    assert ask("127.0.0.1:6000", b"hello") == b"hello"
    base = daemon.sockets()
    redirect({8002: 6001})
    assert fate("127.0.0.1:6000", b"hello") == (b"", "reset")
    assert int(daemon.wait_event("loop")["hops"]) <= 4
    assert watch_sockets(daemon, 1) <= base + 12
    stop_redirecting()


def test_probes_in_a_circle_are_not_given_to_each_other(rediald, serve):
    # Held for a second, as after hang-ups, each probe waits at the other's proxy. Given to each
    # other they would be a circle for good.
    servers = {name: serve(lambda sock: None, address)
               for name, address in (("a", "127.0.0.1:8001"), ("b", "127.0.0.1:8002"))}
    daemon = rediald(proxy("a", "127.0.0.1:6001", servers["a"].address, "wait_timeout = 5s") +
                     proxy("b", "127.0.0.1:6002", servers["b"].address, "wait_timeout = 5s"),
                     daemon_keys="workers = 1")
    for upstream in servers:
        daemon.wait_event("server_down", upstream=upstream, reason="hung_up")
    since = daemon.mark()
    redirect({8001: 6002, 8002: 6001})
    for upstream in servers:
        daemon.wait_event("server_up", timeout=10, since=since, upstream=upstream)
    stop_redirecting()
    daemon.wait_descriptors_back()


@workers
def test_chain_as_long_as_there_are_proxies_serves(rediald, serve, workers):
    server, count = serve(echo), 9
    links = [f"127.0.0.1:{6000 + i}" for i in range(count)] + [server.address]
    daemon = rediald("".join(proxy(f"p{i}", links[i], links[i + 1], "standby = 0")
                             for i in range(count)),
                     daemon_keys=f"workers = {workers}")
    answers = crowd(20, lambda i: ask(links[0], b"%d" % i), 5)
    assert answers == [b"%d" % i for i in range(20)]
    assert not daemon.events("loop") and not daemon.events("server_down")


@pytest.mark.parametrize("header", ["off", "v2"])
def test_chain_of_proxies_that_share_an_upstream_serves(rediald, serve, header):
    server = serve(echo)
    accept = "off" if header == "off" else "on"
    daemon = rediald(f"""
[proxy a]
listen = 127.0.0.1:6001
upstream = inner
[proxy b]
listen = 127.0.0.1:6002
upstream = inner
[upstream inner]
server = 127.0.0.1:6003
send_proxy = {header}
[proxy c]
listen = 127.0.0.1:6003
accept_proxy = {accept}
server = {server.address}
""")
    for _ in range(5):
        assert ask("127.0.0.1:6001", b"hello") == b"hello"
        assert ask("127.0.0.1:6002", b"hello") == b"hello"
    assert not daemon.events("loop") and not daemon.events("server_down")
    daemon.standby = 4  # what one keeps ready is a session of the next, with two ends


def test_redirect_from_one_proxy_to_another_serves(rediald, serve):
    server = serve(echo)
    redirect({8001: 6002})
    daemon = rediald(proxy("a", "127.0.0.1:6001", "127.0.0.1:8001") +
                     proxy("b", "127.0.0.1:6002", server.address))
    for _ in range(5):
        assert ask("127.0.0.1:6001", b"hello") == b"hello"
    assert not daemon.events("loop")
    daemon.standby = 4


def source_of_dial(server_port):
    """The local port of the connection to the server."""
    with open("/proc/thread-self/net/tcp", encoding="ascii") as f:
        for line in f:
            _, local, remote, state = line.split()[:4]
            if state == "01" and int(remote.rpartition(":")[2] or "0", 16) == server_port:
                return int(local.rpartition(":")[2], 16)
    return None


@pytest.mark.parametrize("tracked", [False, True], ids=["plain", "tracked"])
def test_client_that_shares_its_port_with_a_dial_is_served(rediald, serve, tracked):
    # The kernel gives one port to connections with different destinations.
    server = serve(echo, "127.0.0.1:8000")
    if tracked:
        redirect({9: 10})  # every connection is tracked from now on
    daemon = rediald(proxy("web", "127.0.0.1:6000", server.address))
    with connected("127.0.0.1:6000") as first:
        first.sendall(b"hello")
        assert recv_exactly(first, 5) == b"hello"
        shared = source_of_dial(8000)
        with connected("127.0.0.1:6000", source=("127.0.0.1", shared)) as second:
            second.sendall(b"again")
            assert recv_exactly(second, 5) == b"again"
    assert not daemon.events("loop")


def test_all_clients_and_dials_on_two_ports_are_served(rediald, serve):
    server = serve(echo, "127.0.0.1:8000")
    daemon = rediald(proxy("web", "127.0.0.1:6000", server.address))
    for first_port in (40000, 40002):
        sysctl("net.ipv4.ip_local_port_range", f"{first_port} {first_port + 1}")
        with connected("127.0.0.1:6000") as first, connected("127.0.0.1:6000") as second:
            for client in (first, second):
                client.sendall(b"hello")
                assert recv_exactly(client, 5) == b"hello"
            ports = {sock.getsockname()[1] for sock in (first, second)}
            assert ports == {first_port, first_port + 1}
    assert not daemon.events("loop")


def test_loop_that_a_header_names_is_refused(rediald, serve):
    daemon = rediald(proxy("web", "127.0.0.1:6000", "127.0.0.1:8000", "accept_proxy = on",
                           "wait_timeout = 1s"))
    daemon.wait_event("server_down", reason="refused")
    with python(HEADER_PROXY, 8000, 6000):
        daemon.wait_event("server_up")
        fate("127.0.0.1:6000", v1(("192.0.2.7", 1234), ("192.0.2.8", 80)) + b"hello")
        daemon.wait_event("loop", proxy="web", upstream="web", address="127.0.0.1:8000")
        daemon.session(reason="loop", attempts=0)
        daemon.wait_event("server_down", reason="loop")
        base = daemon.sockets()
        assert watch_sockets(daemon, 1) <= base + 4
    server = serve(echo, "127.0.0.1:8000")
    since = daemon.mark()
    daemon.wait_event("server_up", timeout=10, since=since)
    assert server.accepted > 0


@pytest.mark.parametrize("version", [v1, v2])
def test_header_names_a_dial_that_went_elsewhere(rediald, serve, version):
    server = serve(echo, "127.0.0.1:8000")
    daemon = rediald(proxy("web", "127.0.0.1:6000", server.address, "accept_proxy = on",
                           "standby = 0"))
    daemon.wait_event("server_up")
    eventually(lambda: connections(8000) == 0)  # the probe
    with connected("127.0.0.1:6000") as first:
        first.sendall(version(("192.0.2.7", 1234), ("192.0.2.8", 80)) + b"hello")
        assert recv_exactly(first, 5) == b"hello"
        dial = "127.0.0.1", source_of_dial(8000)
        # Its port alone proves nothing; both ends do.
        assert ask("127.0.0.1:6000", version(dial, ("127.0.0.1", 8001)) + b"again") == b"again"
        assert fate("127.0.0.1:6000", version(dial, ("127.0.0.1", 8000)) + b"never") == (
            b"", "reset")
    daemon.session(reason="loop")


def test_loop_through_another_proxy_ends_at_max_sessions(rediald, tmp_path):
    haproxy = shutil.which("haproxy", path="/usr/sbin:/usr/bin")
    if not haproxy:
        pytest.skip("haproxy is not installed")
    config = tmp_path / "haproxy.cfg"
    config.write_text("""
defaults
    mode tcp
    timeout connect 5s
    timeout client 60s
    timeout server 60s
listen back
    bind 127.0.0.1:8000
    server s 127.0.0.1:6000
""")
    process = subprocess.Popen([haproxy, "-db", "-f", str(config)], stdin=subprocess.DEVNULL,
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        eventually(lambda: not is_refused("127.0.0.1:8000"), 10)
        daemon = rediald(proxy("web", "127.0.0.1:6000", "127.0.0.1:8000", "max_sessions = 20",
                               "wait_timeout = 1s"))
        with connected("127.0.0.1:6000") as client:
            client.sendall(b"hello")
            full = daemon.wait_event("accept_paused", proxy="web", limit="max_sessions", max=20)
            assert "proxy web has no place left (max_sessions, 20):" in full.text
            assert watch_sockets(daemon, 1) <= 20 * 2 + 10
    finally:
        process.kill()
        process.wait(deadline(10))
