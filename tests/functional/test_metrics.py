# SPDX-License-Identifier: MIT
"""What is counted, against what was done; the state; sessions; servers that are taken out."""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import threading
import time
import urllib.parse

import pytest

import admin
import netns
from binary import BINARY_IS_SANITIZED, WRAP
from deadline import deadline, eventually, pass_time
from exposition import Metrics
from servers import Server, echo, line_echo, reset_after
from sockets import (ask, close_reset, connected, crowd, fate, is_refused, recv_exactly,
                     recv_until_end)
from threads import naps, stopped

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


@pytest.fixture(params=[1, 4])
def workers(request):
    return request.param


@pytest.fixture
def path(tmp_path):
    return f"unix:{tmp_path}/admin.sock"


@pytest.fixture
def address(port):
    return f"127.0.0.1:{port()}"


@pytest.fixture
def start(rediald, path, workers):
    """start(sections): a daemon with an admin interface."""
    def begin(sections, daemon="", **kwargs):
        return rediald(f"[daemon]\nworkers = {workers}\naccess_log = all\nadmin = {path}\n{daemon}\n"
                       + sections, **kwargs)
    return begin


def proxy(listen, *servers, name="web", more=""):
    lines = "\n".join(f"server = {server}" for server in servers)
    return f"[proxy {name}]\nlisten = {listen}\n{lines}\n{more}\n"


def scrape(path):
    answer = admin.ask(path, "/metrics")
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    return Metrics(answer.text)


def status(path):
    answer = admin.ask(path, "/status")
    assert (answer.status, answer.headers["Content-Type"]) == (200, "application/json")
    return json.loads(answer.body)


def in_memory(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as f:
        return 1024 * int(re.search(r"^VmRSS:\s+(\d+) kB", f.read(), re.M)[1])


def sessions(path):
    answer = admin.ask(path, "/sessions")
    assert (answer.status, answer.headers["Content-Type"]) == (200, "application/json")
    return json.loads(answer.body)


def wait_delivered(path, count):
    """A client may read what was sent to it before that is counted."""
    return eventually(
        lambda: (m := scrape(path))("bytes_total", direction="to_client") == count and m)


def change(path, upstream, server, what):
    return admin.ask(path, f"/servers/{upstream}/{urllib.parse.quote(server, safe='')}/{what}",
                     "POST")


def hello(client):
    client.sendall(b"hello")
    assert recv_exactly(client, 5) == b"hello"


# Figures

def test_sessions_and_bytes_are_those_of_the_load(start, serve, path, address):
    server = serve(echo)
    start(proxy(address, f"{server.address} name=a", more="standby = 0"))
    sizes = [random.Random(i).randrange(1, 300_000) for i in range(40)]
    crowd(40, lambda i: ask(address, bytes(sizes[i])), 8)
    metrics = eventually(lambda: (m := scrape(path))("sessions_total", proxy="web") == 40 and m)
    assert metrics("sessions_total", proxy="web", reason="client_closed") == 40
    assert metrics("sessions_active", proxy="web") == 0
    for name in ("bytes_total", "server_bytes_total"):
        assert metrics(name, direction="to_server") == sum(sizes)
        assert metrics(name, direction="to_client") == sum(sizes)
    assert metrics("server_sessions_total", upstream="web", server="a") == 40
    assert metrics("server_sessions_active", upstream="web", server="a") == 0
    assert metrics("dials_total", upstream="web", server="a", result="ok") == 41  # a probe
    assert metrics("dials_total") == 41
    assert metrics("dial_seconds_count", server="a") == 41
    assert metrics("wait_seconds_count", proxy="web") == 40
    assert metrics("server_up", server="a") == 1 and metrics("backoff_seconds", server="a") == 0


def reset_whoever_asks(sock):
    """A probe says nothing."""
    if recv_exactly(sock, 1):
        reset_after(b"x", 0)(sock)


def test_each_end_is_counted_by_its_reason(start, serve, path, port):
    clean, resets, dead = serve(echo), serve(reset_whoever_asks), f"127.0.0.1:{port()}"
    listen = {name: f"127.0.0.1:{port()}" for name in ("clean", "denied", "resets", "dead", "down")}
    daemon = start(proxy(listen["clean"], clean.address, name="clean")
                   + proxy(listen["denied"], clean.address, name="denied", more="deny = all")
                   + proxy(listen["resets"], resets.address, name="resets", more="standby = 0")
                   + proxy(listen["dead"], dead, name="dead", more="wait_timeout = 100ms")
                   + proxy(listen["down"], dead, name="down", more="when_down = reset"))
    daemon.standby = 2
    assert [fate(listen["denied"]) for _ in range(3)] == 3 * [(b"", "reset")]
    assert [fate(listen["resets"], b"x") for _ in range(4)] == 4 * [(b"x", "reset")]
    assert [fate(listen["dead"]) for _ in range(5)] == 5 * [(b"", "reset")]
    eventually(lambda: scrape(path)("dials_total", upstream="down", result="refused") > 1)
    assert [fate(listen["down"]) for _ in range(6)] == 6 * [(b"", "reset")]
    for _ in range(7):
        close_reset_after_hello(listen["clean"])
    wanted = {("denied", "denied"): 3, ("resets", "server_reset"): 4, ("dead", "wait_timeout"): 5,
              ("down", "no_server"): 6, ("clean", "client_reset"): 7}
    metrics = eventually(lambda: (m := scrape(path))("sessions_total") == 25 and m)
    for (name, reason), count in wanted.items():
        assert metrics("sessions_total", proxy=name, reason=reason) == count
        assert metrics("sessions_total", proxy=name) == count
    assert metrics("wait_seconds_count", proxy="dead") == 0
    said = {p["name"]: p["sessions"] for p in status(path)["proxies"]}
    for (name, reason), count in wanted.items():
        assert said[name] == {"active": 0, "max": None, "total": count, "ended": {reason: count}}


def close_reset_after_hello(address):
    with connected(address) as client:
        hello(client)
        close_reset(client)


def test_bytes_are_counted_while_they_move(start, serve, connect, path, address):
    start(proxy(address, serve(echo).address))
    client = connect(address)
    for sent in (5, 10, 15):
        hello(client)
        metrics = wait_delivered(path, sent)
        for name in ("bytes_total", "server_bytes_total"):
            assert metrics(name, direction="to_server") == sent
            assert metrics(name, direction="to_client") == sent
    assert metrics("sessions_active", proxy="web") == 1
    assert metrics("server_sessions_active", upstream="web") == 1


def test_big_streams_are_counted_to_the_byte(start, serve, path, address):
    start(proxy(address, serve(echo).address))
    size = (5 << 20) + 12345
    with connected(address) as client:
        sender = threading.Thread(target=lambda: client.sendall(bytes(size)))
        sender.start()
        assert len(recv_exactly(client, size)) == size
        sender.join()
    metrics = wait_delivered(path, size)
    assert metrics("bytes_total", direction="to_server") == size
    assert metrics("server_bytes_total", direction="to_client") == size


def test_refused_dials_are_those_that_left(start, path, address, port):
    dead = port()
    with netns.SynCounter(dead) as syns:
        start(proxy(address, f"127.0.0.1:{dead}", more="backoff_min = 50ms\nbackoff_max = 100ms"))
        assert syns.wait(12, deadline(10))
        eventually(lambda: (before := syns.count) == scrape(path)("dials_total", result="refused")
                   == syns.count == before)
    metrics = scrape(path)
    assert metrics("dials_total") == metrics("dials_total", result="refused")
    assert metrics("dial_seconds_count") == 0
    assert metrics("server_up") == 0 and 0.05 <= metrics("backoff_seconds") <= 0.1


def test_self_connections_are_counted(start, path, address):
    netns.sysctl("net.ipv4.ip_local_port_range", "40000 40000")
    start(proxy(address, "127.0.0.1:40000", more="backoff_min = 200ms\nbackoff_max = 200ms"),
          daemon="port_range_check = off")

    def three_each():
        metrics = scrape(path)
        dials = metrics("dials_total", result="self_connect")
        return dials > 3 and metrics("self_connects_total") == 3 * dials and metrics
    metrics = eventually(three_each)
    assert metrics("dials_total") == metrics("dials_total", result="self_connect")
    said = status(path)
    server = said["upstreams"][0]["servers"][0]
    assert said["self_connects"] >= metrics("self_connects_total")
    assert (server["state"], server["reason"]) == ("down", "self_connect")


def test_waits_are_measured(start, path, address, port):
    dead = f"127.0.0.1:{port()}"
    daemon = start(proxy(address, dead, more="standby = 0\nwait_timeout = 60s"))
    daemon.wait_event("server_down")
    clients = [connected(address) for _ in range(3)]
    try:
        eventually(lambda: scrape(path)("waiting", upstream="web") == 3)
        metrics = scrape(path)
        assert metrics("sessions_active") == 3 and metrics("server_sessions_active") == 0
        assert metrics("wait_seconds_count") == 0
        pass_time(0.6)
        with Server(dead, echo):
            for client in clients:
                hello(client)
            metrics = scrape(path)
            assert metrics("waiting", upstream="web") == 0
            assert metrics("wait_seconds_count", proxy="web") == 3
            assert metrics("wait_seconds_bucket", proxy="web", le="0.5") == 0
            assert 1.8 <= metrics("wait_seconds_sum", proxy="web") < deadline(15)
            for client in clients:
                client.close()
    finally:
        for client in clients:
            client.close()


def test_standby_connections_are_counted(start, serve, path, address, workers):
    server = serve(echo)
    start(proxy(address, f"{server.address} name=a", more=f"standby = {workers}"))
    for used in range(5):
        metrics = eventually(
            lambda: (m := scrape(path))("standby_connections", server="a") == workers and m)
        assert metrics("standby_wanted", server="a") == workers
        assert metrics("standby_used_total", server="a") == used
        assert metrics("dials_total", server="a", result="ok") == used + workers
        assert ask(address, b"hello") == b"hello"
    server.kill()
    eventually(lambda: scrape(path)("standby_connections", server="a") == 0)


def test_figures_survive_a_reload(rediald, serve, path, port, tmp_path, workers):
    first, second = serve(echo), serve(echo)
    listen, file = f"127.0.0.1:{port()}", tmp_path / "own.conf"

    def write(*servers, more=""):
        file.write_text(f"[daemon]\nworkers = {workers}\nadmin = {path}\n"
                        + proxy(listen, *servers, more=more))
    write(f"{first.address} name=a")
    daemon = rediald(args=("-c", str(file)))
    daemon.standby = 4
    daemon.allowed_errors |= {"reload_fault", "reload_failed"}
    for _ in range(6):
        assert ask(listen, b"hello") == b"hello"
    write(f"{first.address} name=a", more="max_waiting = 7\nidle_timeout = 1h")
    assert admin.ask(path, "/reload", "POST").status == 200
    metrics = eventually(lambda: (m := scrape(path))("sessions_total") == 6 and m)
    assert metrics("bytes_total") == metrics("server_bytes_total", server="a") == 60
    write(f"{first.address} name=a", f"{second.address} name=b", more="balance = first")
    assert admin.ask(path, "/reload", "POST").status == 200
    assert ask(listen, b"hello") == b"hello"
    metrics = eventually(lambda: (m := scrape(path))("sessions_total") == 7 and m)
    assert metrics("server_bytes_total", server="a") == 70
    assert metrics("server_sessions_total", server="b") == 0
    assert metrics("config_reloads_total", result="ok") == 2
    file.write_text("nonsense")
    assert admin.ask(path, "/reload", "POST").status == 422
    metrics = scrape(path)
    assert metrics("config_reload_success") == 0
    assert metrics("config_reloads_total", result="failed") == 1
    last = status(path)["config"]
    assert (last["reloads_ok"], last["reloads_failed"], last["last_reload"]["ok"]) == (2, 1, False)
    assert "nonsense" in last["last_reload"]["errors"][0]
    write(f"{second.address} name=a")
    assert admin.ask(path, "/reload", "POST").status == 200
    metrics = scrape(path)
    assert metrics("config_reload_success") == 1
    assert metrics("server_sessions_total", server="a") == 0, "another server of that name"
    assert time.time() - metrics("config_reload_timestamp_seconds") < deadline(10)


def test_ports_in_the_ephemeral_range_show(start, serve, path):
    netns.sysctl("net.ipv4.ip_local_port_range", "30000 40000")
    netns.sysctl("net.ipv4.ip_local_reserved_ports", "30001")
    listens = "127.0.0.1:30001, 127.0.0.1:30002, [::1]:7000, unix:@x"
    start(proxy(listens, serve(echo).address))
    metrics = scrape(path)
    values = {a: metrics("listen_port_in_ephemeral_range", proxy="web", address=a)
              for a in listens.split(", ")[:3]}
    assert list(values.values()) == [0, 1, 0]
    shown = {listen["address"]: listen["in_ephemeral_range"]
             for listen in status(path)["proxies"][0]["listens"]}
    assert shown == {**{a: bool(v) for a, v in values.items()}, "unix:@x": False}


def test_labels_are_escaped(start, serve, path, tmp_path):
    where = f'unix:{tmp_path}/a"b\\c'
    start(proxy(f"{where}, 127.0.0.1:7999", serve(echo, f"unix:{tmp_path}/s\"\\").address))
    assert ask(where, b"hello") == b"hello"
    metrics = scrape(path)
    assert metrics("server_up", server=f'unix:{tmp_path}/s"\\') == 1
    assert status(path)["proxies"][0]["listens"][0]["address"] == where


def test_metrics_are_those_of_the_manual(start, serve, path, address):
    start(proxy(address, serve(echo).address))
    metrics = scrape(path)
    with open(os.path.join(TOP, "man", "rediald.8.in"), encoding="utf-8") as f:
        text = f.read()
    table = {}
    for name, type_, labels, help_ in re.findall(
            r"^\.It Li redial_(\w+) Pq (\w+)(?:: (.*))?\n(.*)$", text, re.M):
        table["redial_" + name] = (type_, frozenset(labels.split(", ") if labels else ()), help_)
    shown = {name: (type_, metrics.labels[name], metrics.helps[name])
             for name, type_ in metrics.types.items()}
    assert shown == table


def test_metrics_please_promtool(start, serve, path, address, port):
    promtool = shutil.which("promtool")
    if not promtool:
        pytest.skip("promtool is not there")
    start(proxy(address, serve(echo).address) + proxy(f"127.0.0.1:{port()}",
                                                      f"127.0.0.1:{port()}", name="dead"))
    with connected(address) as client:
        hello(client)
        text = admin.ask(path, "/metrics").text
    said = subprocess.run([promtool, "check", "metrics"], input=text, text=True, check=False,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert (said.returncode, said.stdout) == (0, "")


# State

def test_status_has_what_the_manual_promises(start, serve, connect, path, address, port, workers):
    server, dead = serve(echo), f"127.0.0.1:{port()}"
    daemon = start(proxy(address, f"{server.address} name=a weight=3 max_sessions=9",
                         f"{dead} backup", more="max_sessions = 5"))
    daemon.wait_event("server_up")
    daemon.wait_event("server_down")
    hello(connect(address))
    wait_delivered(path, 5)
    said = status(path)
    assert {k: said[k] for k in ("schema", "pid", "phase", "workers", "self_connects", "log_dropped")} \
        == {"schema": 1, "pid": daemon.pid, "phase": "serving", "workers": workers,
            "self_connects": 0, "log_dropped": 0}
    assert said["started_at"] <= said["now"] and abs(said["now"] - time.time()) < deadline(5)
    assert said["config"]["last_reload"] is None and len(said["config"]["files"]) == 1
    assert said["sessions"]["active"] == 1 and said["sessions"]["waiting"] == 0
    assert said["proxies"] == [
        {"name": "web", "upstream": "web",
         "listens": [{"address": address, "in_ephemeral_range": False}],
         "sessions": {"active": 1, "max": 5, "total": 1, "ended": {}},
         "bytes": {"to_server": 5, "to_client": 5}}]
    upstream = said["upstreams"][0]
    up, down = upstream.pop("servers")
    assert upstream == {"name": "web", "balance": "round_robin", "when_down": "wait", "waiting": 0,
                        "max_waiting": 1024}
    assert {k: up[k] for k in ("name", "address", "addresses", "weight", "backup", "state",
                               "enabled", "reason", "retry_in_ms", "sessions", "bytes")} == {
        "name": "a", "address": server.address, "addresses": [server.address], "weight": 3,
        "backup": False, "state": "up", "enabled": True, "reason": None, "retry_in_ms": None,
        "sessions": {"active": 1, "max": 9, "total": 1}, "bytes": {"to_server": 5, "to_client": 5}}
    assert (down["name"], down["backup"], down["state"], down["reason"]) == (dead, True, "down",
                                                                             "refused")
    assert 0 <= down["retry_in_ms"] <= 5000 and list(down["dials"]) == ["refused"]
    assert said["started_at"] - 1 < down["since"] <= said["now"]
    names = [event["event"] for event in said["events"]]
    assert {"server_up", "server_down", "ready"} <= set(names) and "session" not in names
    event = said["events"][names.index("server_up")]
    assert event["level"] == "notice" and event["message"] == "upstream web: server a is up"


def test_phase_and_last_events_show(start, serve, connect, path, address, port):
    daemon = start(proxy(address, serve(echo).address, f"127.0.0.1:{port()}"),
                   daemon="lame_duck = 500ms\ndrain_timeout = 60s\nlog_level = error")
    client = connect(address)
    hello(client)
    for _ in range(70):
        assert change(path, "web", "x", "disable").status == 404  # each is an event
    events = eventually(lambda: (e := status(path)["events"])[-1]["event"] == "admin_request" and e)
    assert len(events) == 64
    assert events == sorted(events, key=lambda event: event["at"])
    assert not daemon.lines, "none of that is logged"
    daemon.signal(signal.SIGTERM)
    eventually(lambda: status(path)["phase"] == "lame_duck")
    eventually(lambda: status(path)["phase"] == "draining")
    eventually(lambda: status(path)["events"][-1]["event"] == "draining")
    client.close()
    assert daemon.wait_exit() == 0


# Sessions

def test_sessions_are_listed(start, serve, connect, path, port):
    good, bad = f"127.0.0.1:{port()}", f"127.0.0.1:{port()}"
    daemon = start(proxy(good, f"{serve(echo).address} name=a", name="good")
                   + proxy(bad, f"127.0.0.1:{port()}", name="bad", more="wait_timeout = 60s"))
    clients = [connect(good) for _ in range(5)]
    for client in clients:
        hello(client)
    wait_delivered(path, 25)
    waits = connect(bad)
    eventually(lambda: scrape(path)("waiting", upstream="bad") == 1)
    said = sessions(path)
    assert said["schema"] == 1 and said["truncated"] is False and said["left_out"] == 0
    assert {key: said[key] for key in ("pid", "started_at")} \
        == {key: status(path)[key] for key in ("pid", "started_at")}
    rows = {row["client"]: row for row in said["sessions"]}
    assert len(rows) == len(said["sessions"]) == 6
    for client in clients:
        row = rows.pop("%s:%d" % client.getsockname())
        assert 0 <= row.pop("idle_ms") <= row.pop("age_ms") < deadline(20) * 1000
        assert row == {"id": row["id"], "proxy": "good", "client": row["client"], "upstream": "good", "server": "a",
                       "state": "relaying", "bytes_to_server": 5, "bytes_to_client": 5}
    row = rows.pop("%s:%d" % waits.getsockname())
    assert (row["proxy"], row["server"], row["state"]) == ("bad", None, "waiting")
    close_reset(waits)
    daemon.session(reason="client_reset")
    eventually(lambda: len(sessions(path)["sessions"]) == 5)


def test_a_session_has_an_id_that_no_other_ever_has(start, serve, connect, path, port):
    ports = [f"127.0.0.1:{port()}" for _ in range(2)]
    server, seen = serve(echo), {}
    start("".join(proxy(where, f"{server.address} name=a", name=f"p{i}")
                  for i, where in enumerate(ports)))
    for number in range(1, 4):
        clients = [connect(where) for where in ports for _ in range(8)]
        for client in clients:
            hello(client)
        for row in sessions(path)["sessions"]:
            assert seen.setdefault(row["id"], row["client"]) == row["client"]
        assert len(seen) == 16 * number
        for client in clients[::2]:
            client.close()
        eventually(lambda: scrape(path)("sessions_active") == 8 * number)


def test_many_sessions_are_listed_while_they_come_and_go(start, serve, path, address):
    daemon = start(proxy(address, serve(echo).address))
    lasting = [connected(address) for _ in range(300)]
    stop = threading.Event()

    def come_and_go():
        while not stop.is_set():
            assert ask(address, b"hello") == b"hello"
    threads = [threading.Thread(target=come_and_go) for _ in range(2)]
    try:
        for client in lasting:
            hello(client)
        for thread in threads:
            thread.start()
        ours = {"%s:%d" % client.getsockname() for client in lasting}
        for said in [sessions(path) for _ in range(10)] + crowd(8, lambda _: sessions(path)):
            assert ours <= {row["client"] for row in said["sessions"]}
    finally:
        stop.set()
        for thread in threads:
            thread.join()
        for client in lasting:
            client.close()
    daemon.wait_descriptors_back()


def test_sessions_may_end_while_they_are_listed(start, serve, path, address):
    """A worker lists 256 in a turn of its loop; where it goes on may be gone by then."""
    daemon = start(proxy(address, serve(echo).address))
    for _ in range(3):
        clients = [connected(address) for _ in range(600)]
        eventually(lambda: scrape(path)("sessions_active") == 600)
        lists = threading.Thread(target=lambda: [sessions(path) for _ in range(20)])
        lists.start()
        for client in clients:
            close_reset(client)
        lists.join()
        eventually(lambda: scrape(path)("sessions_active") == 0)
    assert sessions(path)["sessions"] == []
    daemon.wait_descriptors_back()


def test_who_hangs_up_before_sessions_are_listed_leaves_nothing(start, serve, path, address):
    daemon = start(proxy(address, serve(echo).address))
    for _ in range(50):
        with connected(path) as sock:
            sock.sendall(b"GET /sessions HTTP/1.1\r\nHost: x\r\n\r\n")
    assert sessions(path)["sessions"] == []
    daemon.wait_descriptors_back()


def test_sessions_of_old_configurations_are_listed(rediald, serve, connect, path, port, tmp_path):
    first, second, file = f"127.0.0.1:{port()}", f"127.0.0.1:{port()}", tmp_path / "own.conf"
    server = serve(echo)
    text = f"[daemon]\nadmin = {path}\n"
    file.write_text(text + proxy(first, f"{server.address} name=a", name="old"))
    rediald(args=("-c", str(file))).standby = 4
    hello(connect(first))
    file.write_text(text + proxy(second, f"{server.address} name=b", name="new"))
    assert admin.ask(path, "/reload", "POST").status == 200
    hello(connect(second))
    assert sorted((row["proxy"], row["server"]) for row in sessions(path)["sessions"]) \
        == [("new", "b"), ("old", "a")]


# Servers that are taken out

def test_disabled_server_gets_no_new_clients(start, serve, connect, path, address):
    a, b = serve(line_echo(b"a")), serve(line_echo(b"b"))
    daemon = start(proxy(address, f"{a.address} name=a", f"{b.address} name=b"))
    daemon.wait_event("server_up", count=2)
    client = connect(address)
    client.sendall(b"1\n")
    mine = recv_exactly(client, 4)[:1].decode()
    other = {"a": "b", "b": "a"}[mine]
    answer = change(path, "web", mine, "disable")
    assert (answer.status, answer.body) == (200, b'{"ok":true}\n')
    daemon.wait_event("server_disabled", upstream="web", server=mine)
    eventually(lambda: scrape(path)("standby_connections", server=mine) == 0)
    for _ in range(8):
        assert ask(address, b"2\n") == f"{other} 2\n".encode()
    client.sendall(b"3\n")
    assert recv_exactly(client, 4) == f"{mine} 3\n".encode(), "its sessions go on"
    assert scrape(path)("server_enabled", server=mine) == 0
    assert scrape(path)("server_up", server=mine) == 1
    assert admin.ask(path, "/readyz").status == 200
    assert change(path, "web", mine, "enable").status == 200
    daemon.wait_event("server_enabled", upstream="web", server=mine)
    eventually(lambda: ask(address, b"4\n") == f"{mine} 4\n".encode())


def test_killed_sessions_are_reset(start, serve, connect, path, address):
    a, b = serve(line_echo(b"a")), serve(line_echo(b"b"))
    daemon = start(proxy(address, f"{a.address} name=a", f"{b.address} name=b",
                         more="balance = round_robin"))
    daemon.wait_event("server_up", count=2)
    clients = [connect(address) for _ in range(20)]
    names = []
    for client in clients:
        client.sendall(b"1\n")
        names.append(recv_exactly(client, 4)[:1])
    assert change(path, "web", "a", "disable?kill=1").status == 200
    for client, name in zip(clients, names):
        if name == b"a":
            assert recv_until_end(client) == (b"", "reset")
        else:
            client.sendall(b"2\n")
            assert recv_exactly(client, 4) == b"b 2\n"
    daemon.session(count=names.count(b"a"), reason="disabled", server="a")
    assert scrape(path)("sessions_total", reason="disabled") == names.count(b"a")


def test_clients_wait_while_every_server_is_taken_out(start, serve, connect, path, address):
    daemon = start(proxy(address, f"{serve(echo).address} name=a", more="wait_timeout = 60s"))
    daemon.wait_event("server_up")
    assert change(path, "web", "a", "disable").status == 200
    client = connect(address)
    client.sendall(b"hello")
    eventually(lambda: scrape(path)("waiting", upstream="web") == 1)
    answer = admin.ask(path, "/readyz")
    assert (answer.status, answer.text) == (
        503, "proxy web: no server of it is up but for 1 taken out by hand\n")
    pass_time(0.3)
    assert scrape(path)("waiting", upstream="web") == 1
    assert change(path, "web", "a", "enable").status == 200
    assert recv_exactly(client, 5) == b"hello"
    assert admin.ask(path, "/readyz").status == 200


@pytest.mark.parametrize("when_down", ["reset", "unlisten"])
def test_a_server_taken_out_counts_as_down(start, serve, path, address, when_down):
    daemon = start(proxy(address, f"{serve(echo).address} name=a", more=f"when_down = {when_down}\nwait_timeout = 200ms"))
    daemon.wait_event("server_up")
    assert ask(address, b"hello") == b"hello"
    assert change(path, "web", "a", "disable").status == 200

    def is_turned_away():
        try:
            return fate(address, b"hello", half_close=True) == (b"", "reset")
        except ConnectionRefusedError:
            return True
    eventually(lambda: is_refused(address) if when_down == "unlisten" else is_turned_away())
    assert change(path, "web", "a", "enable").status == 200
    eventually(lambda: not is_turned_away())


def test_a_server_that_is_down_may_be_taken_out_and_comes_back_so(start, path, connect, address, port):
    dead = f"127.0.0.1:{port()}"
    daemon = start(proxy(address, f"{dead} name=a", more="wait_timeout = 60s"))
    daemon.wait_event("server_down")
    assert change(path, "web", "a", "disable").status == 200
    client = connect(address)
    client.sendall(b"hello")
    with Server(dead, echo) as server:
        daemon.wait_event("server_up")
        pass_time(0.3)
        assert scrape(path)("waiting", upstream="web") == 1
        assert scrape(path)("standby_connections", server="a") == 0 and server.live == 0
        assert change(path, "web", "a", "enable").status == 200
        assert recv_exactly(client, 5) == b"hello"
        client.close()


def test_it_stays_out_over_a_reload(rediald, serve, path, port, tmp_path, workers):
    listen, server = f"127.0.0.1:{port()}", serve(echo)
    file = tmp_path / "own.conf"

    def write(more=""):
        file.write_text(f"[daemon]\nworkers = {workers}\nadmin = {path}\n"
                        + proxy(listen, f"{server.address} name=a", more=more))
    write()
    daemon = rediald(args=("-c", str(file)))
    daemon.standby = 4
    daemon.wait_event("server_up")
    assert change(path, "web", "a", "disable").status == 200
    for more in ("", "standby = 3", "when_down = reset"):
        write(more)
        assert admin.ask(path, "/reload", "POST").status == 200
        server_ = status(path)["upstreams"][0]["servers"][0]
        assert (server_["state"], server_["enabled"]) == ("up", False)
    eventually(lambda: fate(listen, b"hello", half_close=True) == (b"", "reset"))
    assert change(path, "web", "a", "enable").status == 200
    eventually(lambda: fate(listen, b"hello", half_close=True) == (b"hello", "eof"))


@pytest.mark.parametrize("upstream,server,why", [
    ("web", "b", "the upstream has no server of that name"),
    ("wbe", "a", "there is no upstream of that name")])
def test_unknown_servers_are_not_found(start, serve, path, address, upstream, server, why):
    start(proxy(address, f"{serve(echo).address} name=a"))
    for what in ("enable", "disable"):
        answer = change(path, upstream, server, what)
        assert (answer.status, json.loads(answer.body)) == (404, {"ok": False, "errors": [why]})


def test_names_with_slashes_are_found(start, serve, path, address, tmp_path):
    server = serve(echo, f"unix:{tmp_path}/s.sock")
    start(proxy(address, server.address)).wait_event("server_up")
    assert change(path, "web", server.address, "disable").status == 200
    assert scrape(path)("server_enabled", server=server.address) == 0


# Nobody is harmed

# What scrapes cost those who are served is measured by bench/scrape; here is why it is little: no worker has to do with counters that are read, and one that lists its
# sessions serves them meanwhile.

@pytest.mark.skipif(bool(WRAP), reason="such tools have threads wait for one another")
def test_reading_counters_wakes_no_worker(start, serve, connect, path, address, workers):
    start_naps = {}
    daemon = start(proxy(address, serve(echo).address, more="standby = 0"))
    hello(connect(address))
    wait_delivered(path, 5)
    for number in range(workers):
        start_naps[number] = naps(daemon, number)
    for _ in range(100):
        scrape(path)
        status(path)
    for number, before in start_naps.items():
        assert naps(daemon, number) - before < 20  # of 200: a timer may have run


@pytest.mark.skipif(bool(WRAP), reason="the thread is the wrapper's")
@pytest.mark.parametrize("what_first", ["list", "request"])
def test_a_worker_serves_sessions_while_it_lists_them(
        rediald, serve, connect, path, address, what_first):
    """A request that is there when the list begins is relayed before the last of 600 is listed."""
    daemon = rediald(f"[daemon]\nworkers = 1\nadmin = {path}\n"
                     + proxy(address, serve(echo).address, more="standby = 0"))
    for _ in range(600):
        connect(address)
    eventually(lambda: scrape(path)("sessions_active") == 600)
    client, asker = connect(address), admin.Connection(path)
    hello(client)
    wait_delivered(path, 5)

    def send_request():
        client.sendall(b"hello")

    def ask_for_list():
        asker.request("GET", "/sessions")
        status(path)  # the main thread has passed it on
        status(path)
    with stopped(daemon, 0):
        for act in (ask_for_list, send_request)[::1 if what_first == "list" else -1]:
            act()
    rows = json.loads(asker.getresponse().read())["sessions"]
    assert len(rows) == 601 and rows[-1]["client"] == "%s:%d" % client.getsockname()
    assert rows[-1]["bytes_to_server"] == 10
    assert recv_exactly(client, 5) == b"hello"
    asker.close()


def test_answers_that_nobody_reads_are_bounded(rediald, path, port):
    servers = "\n".join(f"server = 127.0.0.1:{port()} name={'n' * 40}{i}" for i in range(300))
    daemon = rediald(f"[daemon]\nadmin = {path}\nadmin = 127.0.0.1:9100\n[proxy web]\n"
                     f"listen = 127.0.0.1:{port()}\n{servers}\nstandby = 0\n")
    size = len(admin.ask(path, "/metrics").body)
    assert size > 1 << 20
    before = in_memory(daemon.pid)
    socks = []
    try:
        for _ in range(32):
            socks.append(connected("127.0.0.1:9100"))
            socks[-1].sendall(20 * b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        assert admin.ask(path, "/healthz").status == 200
        pass_time(1)
        assert admin.ask(path, "/healthz").status == 200
        if not BINARY_IS_SANITIZED:
            assert in_memory(daemon.pid) - before < (64 << 20) + 4 * size
    finally:
        for sock in socks:
            sock.close()
    daemon.wait_descriptors_back()
    assert len(admin.ask(path, "/metrics").body) > 1 << 20
