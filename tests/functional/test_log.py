# SPDX-License-Identifier: MIT
"""The log: a reader that stops, the access log, the journal's prefixes, JSON, one line an event."""

import fcntl
import json
import os
import re
import socket
import subprocess

import pytest

import netns
from deadline import deadline, eventually
from servers import Server, echo, silent
from sockets import ask, connected, crowd, fate, recv_exactly, recv_until_end

F_SETPIPE_SZ = 1031
F_GETPIPE_SZ = 1032
SESSION = ["proxy", "client", "upstream", "server", "reason", "bytes_to_server", "bytes_to_client",
           "wait_ms", "connect_ms", "attempts", "duration_ms"]
# The members of JSON that are numbers; all others are strings, or null.
NUMBERS = {"attempts", "bind_retry_ms", "bytes_to_client", "bytes_to_server", "connect_ms",
           "drain_timeout_ms", "duration_ms", "lines", "max", "port", "proxies", "range_high",
           "range_low", "sessions", "sessions_cut", "suppressed", "upstreams", "wait_ms", "workers"}


@pytest.fixture
def address(port):
    return f"127.0.0.1:{port()}"


def proxy(listen, server, daemon="access_log = all", more=""):
    return f"[daemon]\n{daemon}\n[proxy web]\nlisten = {listen}\nserver = {server}\n{more}\n"


def test_forwarding_goes_on_when_nobody_reads_the_log(rediald, serve, address):
    reader, writer = os.pipe()
    fcntl.fcntl(writer, F_SETPIPE_SZ, 4096)
    daemon = rediald(proxy(address, serve(echo).address), stderr=writer)
    os.close(writer)
    count = 6000  # more lines than the pipe and the ring together hold
    answers = crowd(count, lambda n: ask(address, b"%d" % n), 16)
    assert answers == [b"%d" % n for n in range(count)]
    with os.fdopen(reader, "rb") as stream:
        daemon.read_log(stream)
        dropped = daemon.wait_event("log_dropped", timeout=10)
        sessions = eventually(lambda: all_told(daemon, count), 10, "each line told or counted")
        assert sessions > 10
        assert int(dropped["lines"]) > 0
        assert all(line.event for line in daemon.lines), "no line is cut"
        daemon.terminate()


def all_told(daemon, count):
    written = len(daemon.events("session"))
    dropped = sum(int(line["lines"]) for line in daemon.events("log_dropped"))
    return written if written + dropped >= count else 0


def test_end_does_not_wait_for_a_log_that_nobody_reads(rediald, serve, address):
    reader, writer = os.pipe()
    fcntl.fcntl(writer, F_SETPIPE_SZ, 4096)
    daemon = rediald(proxy(address, serve(echo).address), stderr=writer)
    os.close(writer)
    crowd(500, lambda n: ask(address, b"x"), 8)
    daemon.process.terminate()
    assert daemon.process.wait(deadline(10)) == 0
    os.close(reader)


def test_reader_that_is_gone_ends_nothing(rediald, serve, address):
    reader, writer = os.pipe()
    daemon = rediald(proxy(address, serve(echo).address), stderr=writer)
    os.close(writer)
    os.close(reader)
    assert crowd(50, lambda n: ask(address, b"x"), 8) == [b"x"] * 50
    daemon.terminate()


def one_of_each_end(address, dead_address):
    """A clean session, and one that ends in a timeout."""
    assert ask(address, b"hello") == b"hello"
    assert fate(dead_address) == (b"", "reset")


@pytest.mark.parametrize("access_log, clean, failed", [
    ("access_log = all", 1, 1), ("access_log = errors", 0, 1), ("", 0, 1),
    ("access_log = off", 0, 0),
], ids=["all", "errors", "default", "off"])
def test_access_log(rediald, serve, port, access_log, clean, failed):
    good, bad, dead = (f"127.0.0.1:{port()}" for _ in range(3))
    daemon = rediald(f"""
[daemon]
{access_log}
[proxy good]
listen = {good}
server = {serve(echo).address}
[proxy bad]
listen = {bad}
server = {dead}
wait_timeout = 200ms
""")
    one_of_each_end(good, bad)
    daemon.terminate()
    assert len(daemon.events("session", proxy="good", reason="client_closed")) == clean
    assert len(daemon.events("session", proxy="bad", reason="wait_timeout")) == failed


def test_session_line_tells_all(rediald, serve, address):
    server = serve(echo)
    daemon = rediald(proxy(address, f"{server.address} name=first", more="standby = 0"))
    ask(address, b"hello")
    session = daemon.session()
    assert list(session.fields) == SESSION
    assert session.has({"proxy": "web", "upstream": "web", "server": "first",
                        "reason": "client_closed", "bytes_to_server": 5, "bytes_to_client": 5,
                        "attempts": 1})
    assert re.match(r"127\.0\.0\.1:\d+$", session["client"])
    assert all(session[key].isdigit() for key in ("wait_ms", "connect_ms", "duration_ms"))


@pytest.mark.parametrize("how", ["option", "key"])
@pytest.mark.parametrize("level, expected", [
    ("error", {"error"}), ("warning", {"error", "warning"}),
    ("notice", {"error", "warning", "notice"}), ("info", {"error", "warning", "notice", "info"}),
])
def test_log_level(rediald, port, how, level, expected):
    good, dead = f"127.0.0.1:{port()}", f"127.0.0.1:{port()}"
    daemon = rediald(
        proxy(good, dead, f"access_log = all\n{f'log_level = {level}' if how == 'key' else ''}",
              "wait_timeout = 200ms"),
        args=["--log-level", level] if how == "option" else [])
    assert fate(good) == (b"", "reset")
    if "warning" in expected:
        daemon.session()
    daemon.terminate()
    assert {line.level for line in daemon.lines} <= expected
    if "info" in expected:
        assert {line.level for line in daemon.lines} >= {"info", "notice", "warning"}


def test_lines_are_text_with_a_time_by_default(rediald, serve, address):
    daemon = rediald(proxy(address, serve(silent).address))
    stamp = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"
    for line in daemon.lines:
        assert re.match(stamp + r" (notice|info|warning) \S.* event=\w+", line.text), line


def test_journal_prefixes_when_stderr_is_the_journal(rediald, serve, address):
    reader, writer = os.pipe()
    status = os.fstat(writer)
    daemon = rediald(proxy(address, serve(silent).address), stderr=writer,
                     env={"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"})
    os.close(writer)
    with os.fdopen(reader, "rb") as stream:
        daemon.read_log(stream)
        ready = daemon.wait_event("ready")
        assert ready.text.startswith("<5>")
        assert not re.search(r"\d{4}-\d\d-\d\dT", ready.text), "the journal knows the time"
        for line in daemon.lines:
            assert re.match(r"<[3-7]>\S.* event=\w+", line.text), line
        daemon.terminate()


def test_no_prefixes_when_the_journal_is_another_stream(rediald, serve, address):
    daemon = rediald(proxy(address, serve(silent).address), env={"JOURNAL_STREAM": "1:2"})
    assert not daemon.wait_event("ready").text.startswith("<")


def test_one_line_an_event_whatever_the_client_sends(rediald, serve, address, tmp_path):
    nasty = b'x\nevent=session proxy="evil"\r\n\0\x1b[31m%s%n"\\' * 50
    name = "@evil\n event=ready \"x\" \x1b"
    daemon = rediald(proxy(f"{address}, unix:{tmp_path}/in.sock", serve(echo).address))
    for listen in (address, f"unix:{tmp_path}/in.sock"):
        assert ask(listen, nasty) == nasty
    # A UNIX client may bind to a name of its own making.
    with socket.socket(socket.AF_UNIX) as client:
        client.bind("\0" + name)
        client.connect(str(tmp_path / "in.sock"))
        client.sendall(nasty)
        client.shutdown(socket.SHUT_WR)
        recv_until_end(client)
    daemon.session(count=3)
    daemon.terminate()
    assert len(daemon.events("ready")) == 1
    for line in daemon.lines:
        assert line.event and line.text.isprintable(), repr(line.text)


def members(line):
    """A line of JSON, checked: nothing twice, the four first, and each of its type."""
    def unique(pairs):
        assert len({key for key, _ in pairs}) == len(pairs), line
        return dict(pairs)
    event = json.loads(line.text, object_pairs_hook=unique, parse_constant=pytest.fail)
    assert list(event)[:4] == ["time", "level", "event", "message"], line
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", event["time"]), line
    assert event["level"] in ("error", "warning", "notice", "info", "debug"), line
    for key, value in event.items():
        assert re.fullmatch("[a-z][a-z0-9_]*", key), f"{key}: a name of its own, not one of the four"
        expected = int if key in NUMBERS else (str, type(None))
        assert isinstance(value, expected), f"{key} in {line}"
    return event


def test_json_of_a_whole_run(rediald, address, tmp_path):
    """Start, a server that comes and goes, sessions, a self-connection, drain."""
    netns.sysctl("net.ipv4.ip_local_port_range", "40000 40000")
    server, odd = f"unix:{tmp_path}/server.sock", f'unix:{tmp_path}/"\\\u00e9.sock'
    daemon = rediald(f"""
[daemon]
log_format = json
log_level = debug
access_log = all
drain_timeout = 100ms
[defaults]
backoff_max = 100ms
wait_timeout = 200ms
[proxy web]
listen = {address}, {odd}
server = {server} name=first
[proxy self]
listen = unix:{tmp_path}/self.sock
server = 127.0.0.1:40000
""")

    def wait(event, more=""):
        daemon.wait_line(f'"event":"{event}".*{more}', timeout=10)

    # Clients are from outside of the range, whose one port is not to be had.
    wait("server_down", '"server":"first"')
    wait("self_connect")
    assert fate(address, source=("127.0.0.1", 20001)) == (b"", "reset")
    wait("session", '"server":null,"reason":"wait_timeout"')
    with Server(server, echo):
        wait("server_up")
        assert ask(odd, b"hello") == b"hello"
        wait("session", '"client":"unix:".*client_closed')
        with connected(address, source=("127.0.0.1", 20002)) as live:
            live.sendall(b"x")
            assert recv_exactly(live, 1) == b"x"
            daemon.terminate(descriptors=False)
    events = [members(line) for line in daemon.lines]
    assert {"listening", "ready", "server_down", "server_up", "self_connect", "session", "draining",
            "stopped"} <= {event["event"] for event in events}
    assert odd in [event.get("address") for event in events]
    sessions = [event for event in events if event["event"] == "session"]
    assert [event["reason"] for event in sessions] == ["wait_timeout", "client_closed", "drain"]
    for session in sessions:
        assert list(session)[4:] == SESSION
    assert [session["bytes_to_client"] for session in sessions] == [0, 5, 1]
    assert not [event for event in events if event["level"] == "error"]


def test_stderr_stays_a_blocking_descriptor(rediald, serve, address):
    """stderr is shared with others, whose writes must not fail for it."""
    reader, writer = os.pipe()
    daemon = rediald(proxy(address, serve(silent).address), stderr=writer)
    assert not fcntl.fcntl(writer, fcntl.F_GETFL) & os.O_NONBLOCK
    os.close(writer)
    with os.fdopen(reader, "rb") as stream:
        daemon.read_log(stream)
        daemon.terminate()


def test_help_and_version_need_no_configuration():
    from binary import REDIALD
    for option, text in (("--help", "usage: rediald"), ("--version", "rediald ")):
        result = subprocess.run([REDIALD, option], capture_output=True, text=True, check=False)
        assert (result.returncode, result.stderr) == (0, "")
        assert result.stdout.startswith(text)
