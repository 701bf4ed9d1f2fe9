# SPDX-License-Identifier: MIT
"""Standby connections to real servers: what they do for the clients, and what to the servers."""

import contextlib
import os
import re
import signal
import sys
import time

import pytest

from deadline import deadline, eventually, pass_time
from netns import SynCounter
from programs import as_user, me, postgresql, program, run, run_anyhow, ssh_options, sshd
from sockets import connected, connections, crowd, recv_all


@pytest.fixture
def at(port):
    """Addresses: of the server, of the proxy."""
    return port(), port()


@pytest.fixture
def before(rediald):
    """before(server's port, own port, more): a rediald before that server, of one worker, which has every standby connection."""
    def start(server_port, listen_port, more="standby = auto", host="127.0.0.1"):
        return rediald(f"[proxy front]\nlisten = 127.0.0.1:{listen_port}\n"
                       f"server = {host}:{server_port}\n{more}\n", daemon_keys="workers = 1")
    return start


def wait_standby(port, count=1):
    eventually(lambda: connections(port) == count, 10, f"{count} connections to port {port}")


# PostgreSQL

def select(psql, port):
    """What psql gets for a query."""
    return run_anyhow(psql, "-h", "127.0.0.1", "-p", str(port), "-U", "postgres", "-Atc",
                      "select 'served'").strip()


def wait_postgresql(psql, port):
    eventually(lambda: select(psql, port) == "served", 20)


def test_postgresql_serves_psql_by_standby(before, launch, tmp_path, at):
    psql = program("psql")
    postgresql(launch, tmp_path, at[0])
    wait_postgresql(psql, at[0])
    daemon = before(*at)
    for n in range(1, 6):
        wait_standby(at[0])
        assert select(psql, at[1]) == "served"
        assert daemon.session(count=n)["attempts"] == "0"
    assert not daemon.events("standby_off")


def test_postgresql_hangs_up_on_the_idle_and_auto_learns(before, launch, tmp_path, at):
    psql = program("psql")
    postgresql(launch, tmp_path, at[0], "authentication_timeout=2s")
    wait_postgresql(psql, at[0])
    daemon = before(*at)
    wait_standby(at[0])
    assert select(psql, at[1]) == "served"
    wait_standby(at[0])
    off = daemon.wait_event("standby_off", timeout=20)
    assert off["reason"] == "hangs_up"
    assert connections(at[0]) == 0
    assert select(psql, at[1]) == "served"
    assert daemon.session(count=2)["attempts"] == "1"
    assert not daemon.events("server_down")


def test_postgresql_and_a_standby_max_age_below_its_timeout(before, launch, tmp_path, at):
    """Never hung up on, and always ready."""
    psql = program("psql")
    server_log = tmp_path / "server.log"
    postgresql(launch, tmp_path, at[0], "authentication_timeout=3s", "log_connections=on")
    wait_postgresql(psql, at[0])
    daemon = before(*at, "standby = auto\nstandby_max_age = 1s")
    begin = server_log.read_text().count("connection received")
    eventually(lambda: server_log.read_text().count("connection received") >= begin + 5, 20)
    for n in range(1, 4):
        wait_standby(at[0])
        assert select(psql, at[1]) == "served"
        assert daemon.session(count=n)["attempts"] == "0"
    assert not daemon.events("standby_off")
    assert not re.search("timeout|incomplete|ERROR|FATAL:  (?!the database system is starting up)",
                         server_log.read_text())


def test_postgresql_stops_at_once_before_clients_who_are_not_there(before, launch, tmp_path, at):
    """While it stops it accepts, and waits for whomever it has accepted to say what they want."""
    psql = program("psql")
    server = postgresql(launch, tmp_path, at[0])
    wait_postgresql(psql, at[0])
    daemon = before(*at)
    wait_standby(at[0])
    began = time.monotonic()
    server.stop(signal.SIGINT)
    assert time.monotonic() - began < deadline(10)  # not for its authentication_timeout of 60 s
    daemon.wait_event("server_down")
    server.start()
    daemon.wait_event("server_up", count=2)
    eventually(lambda: select(psql, at[1]) == "served", 20)


# MariaDB

@pytest.fixture
def mariadb(launch, tmp_path):
    """mariadb(port): a server that blocks a host after two connections that came to nothing; a function that asks it."""
    def start(port):
        data = tmp_path / "mariadb"
        install, server, client = map(program, ("mariadb-install-db", "mariadbd", "mariadb"))
        drop = as_user("mysql", data)
        run(*drop, install, "--no-defaults", f"--datadir={data}/db", "--skip-test-db",
            "--auth-root-authentication-method=normal", cwd="/")
        launch([*drop, server, "--no-defaults", f"--datadir={data}/db", f"--port={port}",
                f"--socket={data}/socket", "--bind-address=*", "--performance-schema=on",
                "--max-connect-errors=2", "--skip-log-bin", "--innodb-flush-log-at-trx-commit=0"],
               f"127.0.0.1:{port}", cwd="/")

        def ask(query, *where):
            # From version 11.4 on it warns of what it cannot verify.
            return run(client, "--no-defaults", "--skip-ssl-verify-server-cert",
                       "--connect-timeout=10", "-uroot", "-N", "-B",
                       *(where or ("-S", f"{data}/socket")), "-e", query).split()
        ask("create user guest@'%'; grant select on *.* to guest@'%'")
        return ask
    return start


def errors(ask):
    """What the server holds against those who connect."""
    aborted = ask("show global status like 'Aborted_connects%'")
    return aborted, ask("select ip, sum_connect_errors, count_handshake_errors "
                        "from performance_schema.host_cache")


def test_mariadb_is_left_alone_once_it_has_spoken(before, mariadb, at):
    # It blocks no client of the loopback network, hence another address.
    run(program("ip"), "address", "add", "192.0.2.1/32", "dev", "lo")
    ask = mariadb(at[0])
    daemon = before(*at, host="192.0.2.1")
    assert daemon.wait_event("standby_off")["reason"] == "speaks_first"
    through = ("-h127.0.0.1", f"-P{at[1]}", "-uguest")
    assert ask("select 'served'", *through) == ["served"]
    assert daemon.session()["attempts"] == "1"
    wait_standby(at[0], 0)
    before_idle = errors(ask)
    assert before_idle[1], "the server does not count, and the test tells nothing"
    with SynCounter(at[0]) as syns:
        pass_time(3)
        assert syns.count == 0
    assert errors(ask) == before_idle
    # Far more than it forgives in a row.
    assert crowd(20, lambda _: ask("select 'served'", *through), width=4) == [["served"]] * 20
    assert errors(ask) == before_idle


# sshd

def greeted(port, number):
    """How many of so many connections at the same time it greets."""
    with contextlib.ExitStack() as stack:
        socks = [stack.enter_context(connected(f"127.0.0.1:{port}")) for _ in range(number)]
        return sum(sock.recv(100).startswith(b"SSH-2.0-") for sock in socks)


def scan(port):
    """Does ssh-keyscan get the server's key?"""
    return "ssh-ed25519" in run_anyhow(program("ssh-keyscan"), "-t", "ed25519", "-p", str(port),
                                       "127.0.0.1")


def test_sshd_has_its_slots_back(before, launch, tmp_path, at):
    scp = program("scp")
    sshd(launch, tmp_path, at[0], "MaxStartups 2:100:2")
    daemon = before(*at)
    assert daemon.wait_event("standby_off")["reason"] == "speaks_first"
    wait_standby(at[0], 0)
    # sshd takes a moment to see that one whom it has greeted is gone, here and below.
    eventually(lambda: greeted(at[0], 3) == 2, 10, "both slots are free")
    eventually(lambda: scan(at[0]), 20)
    eventually(lambda: scan(at[1]), 20)
    content = os.urandom(1 << 20)
    (tmp_path / "file").write_bytes(content)

    def copied():
        return run_anyhow(scp, *ssh_options(tmp_path), "-P", str(at[1]),
                          f"{me()}@127.0.0.1:{tmp_path}/file", str(tmp_path / "got")) == ""
    eventually(copied, 20)
    assert (tmp_path / "got").read_bytes() == content


# Redis

def redis(launch, tmp_path, port, *options):
    return launch([program("redis-server"), "--bind", "127.0.0.1", "--save", "", "--dir",
                   str(tmp_path), "--port", str(port), *options], f"127.0.0.1:{port}")


def echoes(port):
    """Is redis-cli served there?"""
    return run_anyhow(program("redis-cli"), "-h", "127.0.0.1", "-p", str(port), "echo",
                      "hello") == "hello\n"


def test_redis_is_down_when_it_dies(before, launch, tmp_path, at):
    server = redis(launch, tmp_path, at[0])
    daemon = before(*at)
    for n in range(1, 6):
        wait_standby(at[0])
        assert echoes(at[1])
        assert daemon.session(count=n)["attempts"] == "0"
    wait_standby(at[0])
    server.stop(signal.SIGKILL)
    # No client has asked.
    assert daemon.wait_event("server_down")["reason"] == "refused"
    server.start()
    daemon.wait_event("server_up", count=2)
    wait_standby(at[0])
    assert echoes(at[1])
    assert daemon.session(count=6)["attempts"] == "0"
    assert not daemon.events("standby_off")


def test_redis_with_a_timeout_is_learned(before, launch, tmp_path, at):
    redis(launch, tmp_path, at[0], "--timeout", "1")
    daemon = before(*at)
    wait_standby(at[0])
    assert echoes(at[1])
    # By its clock of whole seconds: the ages differ, and it may take more than three.
    assert daemon.wait_event("standby_off", timeout=30)["reason"] == "hangs_up"
    assert connections(at[0]) == 0
    for _ in range(3):
        assert echoes(at[1])
    assert daemon.session(count=4)["attempts"] == "1"
    assert not daemon.events("server_down")


# One that serves one connection at a time

ONE_BY_ONE = """
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"served")
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


def http_get(sock):
    sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
    return recv_all(sock).rpartition(b"\r\n")[2]


def one_by_one(launch, port):
    return launch([sys.executable, "-c", ONE_BY_ONE, str(port)], f"127.0.0.1:{port}")


def test_server_of_one_at_a_time_is_held_by_auto(before, launch, at):
    """What the manual warns of: it serves who comes through us, and nobody else."""
    one_by_one(launch, at[0])
    daemon = before(*at)
    wait_standby(at[0])
    for _ in range(5):
        with connected(f"127.0.0.1:{at[1]}") as client:
            assert http_get(client) == b"served"
    wait_standby(at[0])
    with connected(f"127.0.0.1:{at[0]}") as direct:
        direct.sendall(b"GET / HTTP/1.0\r\n\r\n")
        direct.settimeout(2)
        with pytest.raises(TimeoutError):
            direct.recv(100)
        direct.settimeout(deadline(20))
        daemon.terminate()
        assert recv_all(direct).endswith(b"served")


def test_server_of_one_at_a_time_is_free_with_zero(before, launch, at):
    one_by_one(launch, at[0])
    daemon = before(*at, "standby = 0")
    daemon.wait_event("server_up")
    for where in at * 5:
        with connected(f"127.0.0.1:{where}") as client:
            assert http_get(client) == b"served"
