# SPDX-License-Identifier: MIT
"""Real programs through rediald, their servers restarted under them."""

import collections
import contextlib
import hashlib
import itertools
import os
import re
import signal
import subprocess
import threading

import pytest

from deadline import deadline, eventually, pass_time
from programs import haproxy, me, postgresql, program, run, run_anyhow, ssh_options, sshd
from proxyheader import as_text, ends_of, v1
from servers import line_echo
from sockets import connected, crowd, fate, recv_all, recv_exactly


@contextlib.contextmanager
def meanwhile(action):
    """Do action beside the body; both must end well."""
    failures = []

    def guarded():
        try:
            action()
        except BaseException as err:  # told below
            failures.append(err)
    thread = threading.Thread(target=guarded)
    thread.start()
    try:
        yield
    finally:
        thread.join()
    assert not failures, failures


def proxy(listen, server):
    return f"""
[daemon]
access_log = all
[proxy front]
listen = {listen}
server = {server}
backoff_max = 500ms
wait_timeout = 60s
"""


def assert_clients_waited(daemon, away):
    """Some client came while the server was away, and was served."""
    waits = [int(line["wait_ms"]) for line in daemon.events("session")]
    assert max(waits) >= away * 500, f"the longest wait was {max(waits)} ms"
    assert not daemon.events("session", reason="wait_timeout")


def attempt(*argv):
    """Run to the end: (exit status, what it printed)."""
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=False,
                          stderr=subprocess.STDOUT, text=True, timeout=deadline(60))
    return done.returncode, done.stdout


def runs_across(restart, one):
    """Four at a time run one() again and again while restart(phases) is done, and some more.

    The results by when they began: `before', what restart() appends to phases, and `after'.
    """
    results, phases = collections.defaultdict(list), ["before"]

    def client(_n):
        while len(results["after"]) < 12:
            begun = results[phases[-1]]
            begun.append(one())

    def action():
        try:
            restart(phases)
        finally:
            phases.append("after")
    with meanwhile(action):
        crowd(4, client)
    return results


@contextlib.contextmanager
def cut_off(honest, *argv, **kwargs):
    """A program that runs when its server goes, in the body: it ends, and says why."""
    with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
                          stderr=subprocess.STDOUT, **kwargs) as process:
        try:
            yield process
            process.said, _ = process.communicate(timeout=deadline(20))
        finally:
            process.kill()
    assert process.returncode in (1, 2), process.said
    assert re.search(honest, process.said), process.said


def stop_for_a_second(server, phases, number=signal.SIGTERM):
    server.stop(number)
    phases.append("away")
    pass_time(1)
    server.start()


def test_redis_is_restarted_under_redis_benchmark(rediald, launch, port, tmp_path):
    # It keeps its keys in a file as it ends.
    argv = [program("redis-server"), "--bind", "127.0.0.1", "--save", "3600 1000000",
            "--dir", str(tmp_path)]
    benchmark, cli = program("redis-benchmark"), program("redis-cli")
    server_port, listen_port = port(), port()
    server = launch([*argv, "--port", str(server_port)], f"127.0.0.1:{server_port}")
    daemon = rediald(proxy(f"127.0.0.1:{listen_port}", f"127.0.0.1:{server_port}"))
    at_proxy = ["-h", "127.0.0.1", "-p", str(listen_port)]
    out = run(benchmark, *at_proxy, "-n", "5000", "-c", "50", "-P", "4", "-q", "-t", "set,get")
    assert re.search(r"GET: [\d.]+ requests per second", out)
    cut, serial = r"closed the connection|reset by peer", itertools.count()

    def ask_server(*words):
        return run_anyhow(cli, "-p", str(server_port), *words).split()

    def count(key):
        return int((ask_server("get", key) or [0])[0])

    def one():
        """It adds 1 to a key of its own 500 times: (key, exit status, what it printed)."""
        key = f"run-{next(serial)}"
        return key, *attempt(benchmark, *at_proxy, "-n", "500", "-c", "10", "-q", "incr", key)

    def restart(phases):
        with cut_off(cut, benchmark, *at_proxy, "-n", "100000000", "-c", "10", "-q", "incr", "long"):
            eventually(lambda: count("long") > 1000)
            stop_for_a_second(server, phases)
        eventually(lambda: ask_server("ping") == ["PONG"])
    results = runs_across(restart, one)
    assert_clients_waited(daemon, 1)
    for key, status, said in results["before"]:
        assert count(key) == 500 if status == 0 else count(key) <= 500 and re.search(cut, said), said
    for key, status, said in results["away"] + results["after"]:
        assert status == 0 and count(key) == 500, said


def test_nginx_is_restarted_under_curl(rediald, launch, port, tmp_path):
    nginx, curl = program("nginx"), program("curl")
    server_port, listen_port = port(), port()
    content = os.urandom(3 << 20)
    (tmp_path / "file").write_bytes(content)
    config = tmp_path / "nginx.conf"
    config.write_text(f"""
user root;
daemon off;
master_process off;
pid {tmp_path}/nginx.pid;
error_log {tmp_path}/error.log;
events {{ }}
http {{
    access_log off;
    client_body_temp_path {tmp_path}; proxy_temp_path {tmp_path}; fastcgi_temp_path {tmp_path};
    uwsgi_temp_path {tmp_path}; scgi_temp_path {tmp_path};
    server {{ listen 127.0.0.1:{server_port}; root {tmp_path}; }}
}}
""")
    server = launch([nginx, "-c", str(config)], f"127.0.0.1:{server_port}")
    daemon = rediald(proxy(f"127.0.0.1:{listen_port}", f"127.0.0.1:{server_port}"))
    url = f"http://127.0.0.1:{listen_port}/file"

    def fetch(n):
        pass_time(n * 0.1)
        path = tmp_path / f"got-{n}"
        # --retry is not given: each must be served at the first try.
        done = subprocess.run([curl, "-sS", "--noproxy", "*", "-o", str(path), url], check=False)
        return done.returncode, path.exists() and path.read_bytes() == content
    # SIGQUIT: nginx finishes what it serves; the others wait for its return.
    with meanwhile(lambda: server.restart(1.5, signal.SIGQUIT)):
        results = crowd(30, fetch)
    assert results.count((0, True)) >= 28, results
    assert not [code for code, whole in results if code == 0 and not whole], "cut, and not told"
    assert_clients_waited(daemon, 1.5)


def test_postgresql_is_restarted_under_pgbench(rediald, launch, port, tmp_path):
    pgbench, psql = program("pgbench"), program("psql")
    server_port, listen_port = port(), port()
    server = postgresql(launch, tmp_path, server_port)
    daemon = rediald(proxy(f"127.0.0.1:{listen_port}", f"127.0.0.1:{server_port}"))
    at_server = ["-h", "127.0.0.1", "-p", str(server_port), "-U", "postgres"]
    at_proxy = ["-h", "127.0.0.1", "-p", str(listen_port), "-U", "postgres"]
    # The dying and the starting server turn some away, and say so.
    honest = r"terminat|shutting down|starting up|not yet accepting|closed the conn|reset by peer"

    def query(sql):
        return run_anyhow(psql, *at_server, "-Atc", sql).strip()

    def transactions(said):
        """How many a run did, as it says itself."""
        return int((re.search(r"actually processed: (\d+)", said) or [0, 0])[1])

    def one():
        """Two clients, with a new connection for each transaction."""
        return attempt(pgbench, *at_proxy, "-n", "-C", "-c", "2", "-t", "5", "postgres")
    eventually(lambda: query("select 1") == "1", 20)
    run(pgbench, *at_proxy, "-i", "-q", "-s", "1", "postgres")
    long_run = []

    def restart(phases):
        # Fast shutdown: sessions are ended, new ones wait until it is back.
        with cut_off(honest, pgbench, *at_proxy, "-n", "-c", "4", "-T", "600", "postgres",
                     env={**os.environ, "PGAPPNAME": "long"}) as process:
            eventually(lambda: query("select count(*) from pg_stat_activity"
                                     " where application_name = 'long'") == "4")
            stop_for_a_second(server, phases, signal.SIGINT)
        long_run.append((process.returncode, process.said))
        eventually(lambda: query("select 1") == "1", 20)
    results = runs_across(restart, one)
    assert_clients_waited(daemon, 1)
    for status, said in results["after"]:
        assert status == 0 and "processed: 10/10" in said and "failed transactions: 0 " in said, said
    others = results["before"] + results["away"]
    assert not [said for status, said in others if status != 0 and not re.search(honest, said)]
    done = sum(transactions(said) for _status, said in others + results["after"] + long_run)
    # A client that was cut off may not have heard of its last one.
    unheard = 4 + 2 * sum(status != 0 for status, _said in others)
    assert done <= int(query("select count(*) from pgbench_history")) <= done + unheard
    sums = [query(f"select sum({column}) from pgbench_{table}") for column, table in (
        ("delta", "history"), ("abalance", "accounts"), ("tbalance", "tellers"), ("bbalance", "branches"))]
    assert len(set(sums)) == 1, sums


def test_sshd_is_restarted_under_scp(rediald, launch, port, tmp_path):
    scp = program("scp")
    server_port, listen_port = port(), port()
    server = sshd(launch, tmp_path, server_port, "MaxStartups 100")
    daemon = rediald(proxy(f"127.0.0.1:{listen_port}", f"127.0.0.1:{server_port}"))
    content = os.urandom(8 << 20)
    digest = hashlib.sha256(content).digest()
    (tmp_path / "file").write_bytes(content)
    copy = [scp, *ssh_options(tmp_path), "-P", str(listen_port)]

    def fetch(n):
        pass_time(n * 0.3)
        path = tmp_path / f"got-{n}"
        done = subprocess.run([*copy, f"{me()}@127.0.0.1:{tmp_path}/file", str(path)], check=False,
                              stdin=subprocess.DEVNULL, capture_output=True, text=True)
        whole = path.exists() and hashlib.sha256(path.read_bytes()).digest() == digest
        return done.returncode, whole, done.stderr
    code, whole, said = fetch(0)
    if "not allowed" in said or "account" in said:
        pytest.skip(f"sshd lets nobody in here: {said}")
    assert (code, whole) == (0, True), said + (tmp_path / "server.log").read_text()
    # Its sessions are processes of their own, and survive it.
    with meanwhile(lambda: server.restart(1.5)):
        results = crowd(10, fetch)
    assert [result[:2] for result in results].count((0, True)) >= 9, results
    assert not [result for result in results if result[0] == 0 and not result[1]], results
    assert_clients_waited(daemon, 1.5)


# The PROXY protocol

def haproxy_that_requires_headers(launch, tmp_path, address):
    """It answers, and logs, the addresses that the header gave; returns the log's path."""
    haproxy(launch, tmp_path, f"""
frontend front
 mode http
 log stdout format raw daemon
 log-format "client %ci %cp"
 bind {address} accept-proxy
 http-request return status 200 content-type text/plain lf-string "%[src] %[src_port] %[dst] %[dst_port]"
""", address)
    return tmp_path / "server.log"


def nginx_that_requires_headers(launch, tmp_path, address):
    """The same."""
    config = tmp_path / "nginx.conf"
    variables = " ".join(f"$proxy_protocol_{name}"
                         for name in ("addr", "port", "server_addr", "server_port"))
    config.write_text(f"""
user root;
daemon off;
master_process off;
pid {tmp_path}/nginx.pid;
error_log {tmp_path}/error.log;
events {{ }}
http {{
    log_format client "client $proxy_protocol_addr $proxy_protocol_port";
    access_log {tmp_path}/access.log client;
    client_body_temp_path {tmp_path}; proxy_temp_path {tmp_path}; fastcgi_temp_path {tmp_path};
    uwsgi_temp_path {tmp_path}; scgi_temp_path {tmp_path};
    server {{ listen {address} proxy_protocol; location / {{ return 200 "{variables}"; }} }}
}}
""")
    launch([program("nginx"), "-c", str(config)], address)
    return tmp_path / "access.log"


RECEIVERS = {"haproxy": haproxy_that_requires_headers, "nginx": nginx_that_requires_headers}


GET = b"GET / HTTP/1.1\r\nHost: any\r\nConnection: close\r\n\r\n"


def get(client):
    """The body of an HTTP answer."""
    client.sendall(GET)
    head, _, body = recv_all(client).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 "), head
    return body.decode()


@pytest.mark.parametrize("version", ["v1", "v2"])
@pytest.mark.parametrize("receiver", RECEIVERS)
def test_real_server_is_told_the_client_and_logs_it(rediald, launch, port, tmp_path, receiver,
                                                    version):
    address, listen_port = f"127.0.0.1:{port()}", port()
    log = RECEIVERS[receiver](launch, tmp_path, address)
    assert b" 200 " not in fate(address, GET)[0], "it does without a header"
    rediald(f"""
[proxy front]
listen = *:{listen_port} unix:@in
server = {address}
send_proxy = {version}
""")
    for at in f"127.0.0.1:{listen_port}", f"127.0.0.2:{listen_port}", f"[::1]:{listen_port}":
        with connected(at) as client:
            source, dest = ends_of(client)
            assert get(client) == f"{source[0]} {source[1]} {dest[0]} {dest[1]}"
            line = f"client {source[0]} {source[1]}"
            eventually(lambda: line in log.read_text().splitlines(), what=f"{line!r} in {log}")
    # One without an address is served all the same.
    with connected("unix:@in") as client:
        get(client)


@pytest.mark.parametrize("option", ["send-proxy", "send-proxy-v2",
                                    "send-proxy-v2 proxy-v2-options crc32c,unique-id"])
def test_real_proxy_tells_of_its_client(rediald, launch, serve, port, tmp_path, option):
    outer, middle, outer6 = (f"{host}:{port()}" for host in ("127.0.0.1", "127.0.0.1", "[::1]"))
    # The server is told the same again, in a line.
    daemon = rediald(f"""
[proxy middle]
listen = {middle}
accept_proxy = on
server = {serve(line_echo(b"server")).address}
send_proxy = v1
""")
    haproxy(launch, tmp_path, f"""
listen front
 mode tcp
 bind {outer}
 bind {outer6}
 unique-id-format %{{+X}}o%ci_%cp
 server redial {middle} {option} check check-send-proxy inter 50ms
""", outer)
    for at in outer, outer6:
        with connected(at) as client:
            source, dest = ends_of(client)
            expected = b"server " + v1(source, dest)
            assert recv_exactly(client, len(expected)) == expected
            client.sendall(b"hello\n")
            assert recv_exactly(client, 13) == b"server hello\n"
        daemon.session(client=as_text(source))
    # Its checks of our port are no faults.
    assert not daemon.events("bad_proxy_header")
