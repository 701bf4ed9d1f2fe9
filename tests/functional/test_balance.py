# SPDX-License-Identifier: MIT
"""Which server a client gets: least_conn and source_hash, with servers that go, return and are full."""

import collections
import contextlib

import pytest

from deadline import deadline, pass_time
from netns import SynCounter
from proxyheader import v1
from servers import Server, line_echo
from sockets import close_reset, connected, crowd, listening, recv_exactly

# Of neighbours, and of strangers.
CLIENTS = [f"127.0.0.{n}" for n in range(2, 22)] + [f"127.{n}.{7 * n}.9" for n in range(1, 21)]


@pytest.fixture
def address(port):
    return f"127.0.0.1:{port()}"


@pytest.fixture
def farm(serve):
    """farm("a", "b"): a server for each name, that answers with it."""
    def start(*names):
        return {name: serve(line_echo(name.encode())) for name in names}
    return start


def proxy(listen, *servers, more=""):
    lines = "\n".join(f"server = {server}" for server in servers)
    return f"[proxy web]\nlisten = {listen}\n{lines}\n{more}\n"


def lines_of(servers, options=""):
    return [f"{server.address} name={name} {options}" for name, server in servers.items()]


def wait_up(daemon, names, since=0):
    for name in names:
        daemon.wait_event("server_up", server=name, since=since)


def greet(sock):
    """The name of the server that answers a line."""
    sock.sendall(b"hello\n")
    with sock.makefile("rb") as lines:
        return lines.readline().split(b" ")[0].decode()


def who_serves(address, source=None):
    """The name of the server that a new client gets, from the IP address source."""
    with connected(address, source=source and (source, 0)) as client:
        return greet(client)


def homes(address, clients=tuple(CLIENTS)):
    """Which server each client gets."""
    return dict(zip(clients, crowd(len(clients), lambda n: who_serves(address, clients[n]), 8)))


def client_of(name, found):
    """An address whose clients go to that server."""
    return next(client for client, home in found.items() if home == name)


def placed(connect, address, count):
    """So many clients, and where they are. One by one: workers that choose at the same time may choose the same server."""
    clients, at = [], []
    for _ in range(count):
        clients.append(connect(address))
        at.append(greet(clients[-1]))
    return clients, at


# Least connections

def test_least_conn_fills_servers_by_weight(rediald, farm, connect, address):
    servers = farm("a", "b", "c")
    lines = lines_of(servers)
    lines[0] += "weight=3"
    daemon = rediald(proxy(address, *lines, more="balance = least_conn"),
                     daemon_keys="workers = 4")
    wait_up(daemon, servers)
    # What one worker gives away, the others count.
    assert collections.Counter(greet(connect(address)) for _ in range(40)) == {
        "a": 24, "b": 8, "c": 8}


def test_least_conn_goes_where_sessions_have_ended(rediald, farm, connect, address):
    servers = farm("a", "b")
    daemon = rediald(proxy(address, *lines_of(servers), more="balance = least_conn"))
    wait_up(daemon, servers)
    clients, at = placed(connect, address, 8)
    assert collections.Counter(at) == {"a": 4, "b": 4}
    for client, name in zip(clients, at):
        if name == "a":
            client.close()
    daemon.session(server="a", count=4)
    assert [greet(connect(address)) for _ in range(4)] == ["a"] * 4


def test_least_conn_spares_a_slow_server(rediald, serve, address):
    """Whoever takes long has many sessions, and gets few."""
    def slow(sock):
        data = sock.recv(100)
        pass_time(0.5)
        sock.sendall(b"slow " + data)
    servers = {"slow": serve(slow), "fast": serve(line_echo(b"fast"))}
    daemon = rediald(proxy(address, *lines_of(servers), more="balance = least_conn"))
    wait_up(daemon, servers)
    at = collections.Counter(crowd(150, lambda _n: who_serves(address), 10))
    # In turn each would have 75.
    assert 0 < at["slow"] < 40, at


def test_least_conn_uses_idle_servers_in_turn(rediald, farm, address):
    servers = farm("a", "b", "c")
    daemon = rediald(proxy(address, *lines_of(servers), more="balance = least_conn"),
                     daemon_keys="workers = 1")
    wait_up(daemon, servers)
    served = []
    for n in range(1, 13):
        served.append(who_serves(address))
        daemon.session(count=n)
    assert served == served[:3] * 4
    assert set(served[:3]) == set(servers)


def test_least_conn_serves_the_line(rediald, farm, connect, address):
    servers = farm("a", "b")
    daemon = rediald(proxy(address, *lines_of(servers, "max_sessions=2"),
                           more="balance = least_conn"))
    wait_up(daemon, servers)
    first, at = placed(connect, address, 4)
    assert collections.Counter(at) == {"a": 2, "b": 2}
    waiting = [connect(address) for _ in range(2)]
    for client, name in zip(first, at):
        if name == "b":
            client.close()
    assert [greet(client) for client in waiting] == ["b", "b"]


# Source hash

def test_source_hash_gives_a_client_the_same_server_each_time(rediald, farm, address, port):
    servers = farm("a", "b", "c")
    lines = lines_of(servers)
    daemon = rediald(proxy(address, *lines, more="balance = source_hash"))
    wait_up(daemon, servers)
    found = homes(address)
    assert set(found.values()) == set(servers)
    assert homes(address) == found
    # Another daemon with the same servers, in another order.
    other = f"127.0.0.1:{port()}"
    daemon = rediald(proxy(other, *reversed(lines), more="balance = source_hash"))
    wait_up(daemon, servers)
    assert homes(other) == found


def test_source_hash_holds_from_the_first_client_on(rediald, farm, address):
    servers = farm("a", "b", "c")
    configuration = proxy(address, *lines_of(servers), more="balance = source_hash")
    daemon = rediald(configuration)
    wait_up(daemon, servers)
    found = homes(address)
    for _ in range(3):
        daemon.terminate()
        daemon = rediald(configuration)
        assert homes(address) == found


def test_source_hash_moves_only_the_clients_of_a_server_that_goes(rediald, serve, farm, address):
    servers = farm("a", "b", "c", "d")
    daemon = rediald(proxy(address, *lines_of(servers),
                           more="balance = source_hash\nbackoff_max = 100ms"))
    wait_up(daemon, servers)
    found = homes(address)
    for name, server in servers.items():
        mark = daemon.mark()
        server.kill()
        without = homes(address)
        assert {c: s for c, s in without.items() if found[c] != name} == {
            c: s for c, s in found.items() if s != name}
        assert name not in without.values()
        serve(line_echo(name.encode()), server.address)
        wait_up(daemon, [name], since=mark)
        assert homes(address) == found


def test_source_hash_goes_by_the_name_of_a_server(rediald, farm, address, port):
    found = []
    for names in (("a", "b", "c"), ("c", "a", "b")):
        servers = farm(*names)
        listen = f"127.0.0.1:{port()}"
        daemon = rediald(proxy(listen, *lines_of(servers), more="balance = source_hash"))
        wait_up(daemon, servers)
        found.append(homes(listen))
    assert found[0] == found[1]


def test_source_hash_goes_by_the_client_that_a_header_names(rediald, farm, port):
    servers = farm("a", "b", "c")
    plain, behind = (f"127.0.0.1:{port()}" for _ in range(2))
    lines = proxy(plain, *lines_of(servers), more="balance = source_hash")
    daemon = rediald(lines + lines.replace("web", "behind").replace(plain, behind) +
                     "accept_proxy = on\n")
    for upstream in "web", "behind":
        daemon.wait_event("server_up", count=3, upstream=upstream)

    def named(client):
        with connected(behind) as proxy_before:
            proxy_before.sendall(v1((client, 1234), ("192.0.2.1", 80)))
            return greet(proxy_before)
    found = homes(plain)
    assert {client: named(client) for client in CLIENTS} == found
    assert set(found.values()) == set(servers)


def test_source_hash_takes_a_mapped_address_for_ipv4(rediald, farm, port):
    servers = farm("a", "b", "c")
    dual, plain = port(), port()
    lines = "\n".join(f"server = {line}" for line in lines_of(servers))
    daemon = rediald(f"""
[proxy dual]
listen = *:{dual}
upstream = all
[proxy plain]
listen = 127.0.0.1:{plain}
upstream = all
[upstream all]
{lines}
balance = source_hash
""")
    wait_up(daemon, servers)
    assert homes(f"127.0.0.1:{dual}") == homes(f"127.0.0.1:{plain}")


def test_source_hash_gives_unix_clients_the_servers_in_turn(rediald, farm, tmp_path):
    servers = farm("a", "b", "c")
    address = f"unix:{tmp_path}/in.sock"
    daemon = rediald(proxy(address, *lines_of(servers), more="balance = source_hash"),
                     daemon_keys="workers = 1")
    wait_up(daemon, servers)
    assert [who_serves(address) for _ in range(6)] == ["a", "b", "c"] * 2


def test_source_hash_passes_over_a_full_server_as_one_that_is_away(rediald, farm, connect, address):
    servers = farm("a", "b", "c")
    daemon = rediald(proxy(address, *lines_of(servers, "max_sessions=1"),
                           more="balance = source_hash"))
    wait_up(daemon, servers)

    def client():
        sock = connect(address, source=("127.0.0.2", 0))
        return sock, greet(sock)
    (first, home), (second, next_home), (third, last) = client(), client(), client()
    assert {home, next_home, last} == set(servers)
    first.close()
    daemon.session(server=home)
    first, again = client()
    assert again == home, "it has room once more"
    for sock in (first, second, third):
        sock.close()
    daemon.session(count=4)
    servers[home].kill()
    assert [client()[1], client()[1]] == [next_home, last]


def test_source_hash_all_full_makes_clients_wait(rediald, farm, connect, address):
    servers = farm("a", "b")
    daemon = rediald(proxy(address, *lines_of(servers, "max_sessions=1"),
                           more="balance = source_hash"))
    wait_up(daemon, servers)
    clients = {}
    for _ in servers:
        sock = connect(address)
        clients[greet(sock)] = sock
    assert set(clients) == set(servers)
    waiting = connect(address)
    waiting.sendall(b"hello\n")
    waiting.settimeout(0.3)
    with pytest.raises(TimeoutError):
        waiting.recv(1)
    waiting.settimeout(deadline(10))
    clients["b"].close()
    assert recv_exactly(waiting, 8) == b"b hello\n"


def test_source_hash_uses_backups_only_while_no_other_is_up(rediald, serve, farm, address):
    main, spare = farm("a", "b"), farm("x", "y")
    daemon = rediald(proxy(address, *lines_of(spare, "backup"), *lines_of(main),
                           more="balance = source_hash\nbackoff_max = 100ms"))
    wait_up(daemon, [*main, *spare])
    found = homes(address)
    assert set(found.values()) == set(main)
    main["a"].kill()
    assert set(homes(address).values()) == {"b"}
    main["b"].kill()
    backups = homes(address)
    assert set(backups.values()) == set(spare)
    assert homes(address) == backups
    mark = daemon.mark()
    serve(line_echo(b"a"), main["a"].address)
    serve(line_echo(b"b"), main["b"].address)
    wait_up(daemon, main, since=mark)
    assert homes(address) == found


# Source hash and the line

@contextlib.contextmanager
def deaf(address):
    """A listener without room: the kernel drops SYNs. Yields its socket, and a connection in it."""
    with contextlib.closing(listening(address, backlog=0)) as sock:
        sock.settimeout(deadline(20))
        with connected(address) as stop:
            yield sock, stop


def make_room(sock, stop):
    """Let one SYN into the deaf listener."""
    with stop:
        sock.accept()[0].close()


def homes_by_name(rediald, farm, port, *names):
    """Where clients go when all servers of these names are up."""
    servers = farm(*names)
    address = f"127.0.0.1:{port()}"
    daemon = rediald(proxy(address, *lines_of(servers), more="balance = source_hash"))
    wait_up(daemon, servers)
    found = homes(address)
    daemon.terminate()
    return found


def test_source_hash_client_waits_for_a_first_dial_and_lets_others_pass(
        rediald, farm, connect, address, port):
    found = homes_by_name(rediald, farm, port, "a", "b")
    late, later = f"127.0.0.1:{port()}", f"127.0.0.1:{port()}"
    clients = {name: [client for client, home in found.items() if home == name] for name in "ab"}
    with deaf(late) as (sock_a, stop_a), deaf(later) as (sock_b, stop_b), \
            contextlib.ExitStack() as servers:
        daemon = rediald(proxy(address, f"{late} name=a", f"{later} name=b",
                               *lines_of(farm("c"), "backup"),
                               more="balance = source_hash\nconnect_timeout = 60s\n"
                               "wait_timeout = 100s"))
        wait_up(daemon, "c")
        # The clients of the one that comes later are in front.
        patient = [connect(address, source=(client, 0)) for client in clients["b"]]
        others = [connect(address, source=(client, 0)) for client in clients["a"]]
        make_room(sock_a, stop_a)
        servers.enter_context(Server(late, line_echo(b"a"), sock=sock_a))
        assert {greet(client) for client in others} == {"a"}
        assert set(homes(address, clients["a"]).values()) == {"a"}
        make_room(sock_b, stop_b)
        servers.enter_context(Server(later, line_echo(b"b"), sock=sock_b))
        assert {greet(client) for client in patient} == {"b"}
        for client in patient + others:
            client.close()
        daemon.wait_descriptors_back()


def test_source_hash_client_goes_elsewhere_once_a_first_dial_has_failed(
        rediald, farm, connect, address, port):
    found = homes_by_name(rediald, farm, port, "a", "b")
    live, dead = farm("a")["a"], f"127.0.0.1:{port()}"
    with deaf(dead):
        daemon = rediald(proxy(address, f"{live.address} name=a", f"{dead} name=b",
                               more="balance = source_hash\nconnect_timeout = 3s"))
        assert greet(connect(address, source=(client_of("b", found), 0))) == "a"
        assert not daemon.events("server_down"), "the second dial is under way"


def test_source_hash_client_in_line_waits_for_its_own_server_and_lets_others_pass(
        rediald, farm, connect, address, port):
    found = homes_by_name(rediald, farm, port, "a", "b")
    live, dead = farm("a")["a"], f"127.0.0.1:{port()}"
    with deaf(dead) as (sock, stop):
        daemon = rediald(proxy(address, f"{live.address} name=a", f"{dead} name=b",
                               more="balance = source_hash\nconnect_timeout = 60s\n"
                               "wait_timeout = 100s\nstandby = 0"), daemon_keys="workers = 1")
        wait_up(daemon, "a")
        crowded, other = client_of("b", found), client_of("a", found)
        clients = [connect(address, source=(crowded, 0)) for _ in range(100)]
        for client in clients:
            client.sendall(b"hello\n")
        with SynCounter(int(dead.rpartition(":")[2])) as syns:
            # Room for one more: the probe, which finds it up.
            make_room(sock, stop)
            daemon.wait_event("server_up", server="b", timeout=20)
            assert [who_serves(address, other) for _ in range(5)] == ["a"] * 5
            # The probe's port, too, and no more than the line's share.
            assert syns.wait(65, deadline(10))
            assert len(set(syns.sources)) == 65
        with Server(dead, line_echo(b"b"), sock=sock):
            for client in clients:
                assert recv_exactly(client, 8) == b"b hello\n"
                close_reset(client)
            daemon.wait_descriptors_back()
