# SPDX-License-Identifier: MIT
"""redialctl in a pipe: its answers, statuses and requests."""

import contextlib
import json
import os
import re
import tempfile
import threading

import pytest

import fakeadmin
import netns
from ctl import redialctl, redialctl_of
from deadline import eventually, pass_time
from fakeadmin import FakeAdmin
from sockets import is_bindable, listening

ESC = "\x1b"


@pytest.fixture
def address(tmp_path):
    return f"unix:{tmp_path}/admin.sock"


@pytest.fixture
def admin(address):
    """admin(documents={path: [document, ...]}, answers={request: (status, body)}): a FakeAdmin."""
    with contextlib.ExitStack() as stack:
        yield lambda documents=None, answers=None, at=None: stack.enter_context(
            FakeAdmin(at or address, documents, answers))


def rows(text):
    """The lines of a table as lists of cells, which have two blanks between them."""
    return [re.split(r" {2,}", line.strip()) for line in text.splitlines()]


def row_with(text, cell):
    found = [row for row in rows(text) if cell in row]
    assert len(found) == 1, text
    return found[0]


# The command line

def test_help_and_version_tell_and_end_well():
    assert "usage: redialctl" in redialctl("--help").out
    assert re.fullmatch(r"redialctl \d+\.\d+\.\d+\n", redialctl("--version").out)
    assert max(map(len, redialctl("--help").out.splitlines())) <= 80


@pytest.mark.parametrize("args, says", [
    ([], "a command is missing"),
    (["statsu"], "did you mean status?"),
    (["frobnicate"], "there is no command frobnicate"),
    (["status", "--wait", "1s"], "status takes no --wait"),
    (["reload", "--json"], "reload takes no --json"),
    (["top", "-c", "x"], "top takes no --config"),
    (["ready", "--wait", "5"], "a number needs its unit"),
    (["top", "-n", "0"], "allowed is at least 1"),
    (["top", "-n", "many"], "allowed are decimal digits"),
    (["top", "-d", "fast"], "ms, s, m, h or d"),
    (["top", "-d", "50ms"], "top draws at most every 100ms"),
    (["enable"], "UPSTREAM/SERVER is missing"),
    (["enable", "web"], "web is no UPSTREAM/SERVER"),
    (["enable", "/x"], "/x is no UPSTREAM/SERVER"),
    (["enable", "web/"], "web/ is no UPSTREAM/SERVER"),
    (["status", "more"], "more is too much"),
    (["enable", "web/x", "more"], "more is too much"),
    (["status", "--frob"], "--frob"),
    (["status", "--socket", "nonsense"], "nonsense is no address of a daemon"),
    (["status", "--socket", "unix:"], "a path has"),
    (["status", "--socket", "unix:/" + "x" * 107], "a path has"),
    (["status", "--socket", "127.0.0.1:99999"], "is no address of a daemon"),
])
def test_wrong_command_line_is_told_with_status_64(args, says):
    result = redialctl(*args)
    assert result.status == 64
    assert says in result.err
    assert result.out == ""


def test_output_that_cannot_be_written_is_a_failure(admin, address):
    admin({"/status": [fakeadmin.example()]})
    with open("/dev/full", "wb") as full:
        result = redialctl("status", socket=address, stdout=full)
    assert result.status == 71
    assert "the output cannot be written" in result.err


# Where the daemon is

def is_found(result):
    return result.status == 0 and "ready" in result.out


@pytest.mark.parametrize("how", ["option", "path", "relative", "environment", "runtime_directory"])
def test_socket_is_found(admin, tmp_path, address, how):
    admin(answers={"GET /readyz": (200, "ok\n")})
    path = address.removeprefix("unix:")
    elsewhere = {"REDIAL_ADMIN": "unix:/nowhere", "RUNTIME_DIRECTORY": "/nowhere"}
    results = {
        "option": lambda: redialctl("--socket", address, "ready", env=elsewhere),
        "path": lambda: redialctl("ready", "--socket", path, env=elsewhere),
        "relative": lambda: redialctl("ready", "--socket", "./admin.sock", cwd=tmp_path),
        "environment": lambda: redialctl("ready", env={**elsewhere, "REDIAL_ADMIN": address}),
        "runtime_directory": lambda: redialctl("ready", env={"RUNTIME_DIRECTORY": f"{tmp_path}:/x"}),
    }
    assert is_found(results[how]())


@pytest.mark.parametrize("listen, dialled", [
    ("127.0.0.1:{}", "127.0.0.1:{}"), ("[::1]:{}", "[::1]:{}"), ("127.0.0.1:{}", "localhost:{}"),
    ("127.0.0.1:{}", "0.0.0.0:{}"), ("[::1]:{}", "*:{}"), ("unix:@redial-{}", "unix:@redial-{}"),
])
def test_tcp_and_abstract_addresses_are_dialled(admin, port, listen, dialled):
    number = port()
    admin(answers={"GET /readyz": (200, "ok\n")}, at=listen.format(number))
    proxies = {"http_proxy": "http://192.0.2.1:1", "all_proxy": "http://192.0.2.1:1"}
    assert is_found(redialctl("ready", socket=dialled.format(number), env=proxies))


def test_default_socket_is_the_one_of_the_service():
    result = redialctl("status")
    assert result.status == 2
    assert "unix:/run/redial/admin.sock" in result.err


@pytest.mark.parametrize("command", [["status"], ["status", "--json"], ["sessions"], ["top", "-n", "1"],
                                     ["reload"], ["drain"], ["enable", "a/b"], ["ready"]])
def test_unreachable_daemon_is_told_with_status_2(tmp_path, command):
    result = redialctl(*command, socket=f"{tmp_path}/no.sock")
    assert result.status == 2
    assert result.err == (f"redialctl: cannot reach rediald at unix:{tmp_path}/no.sock: No such file or "
                          "directory; is rediald running, with this address in `admin ='?\n")
    assert result.out == ""


@pytest.mark.parametrize("body, says", [
    (b"<html>", "no JSON"), (b"\xff\xfe", "no JSON"), (b"", "no JSON"),
    ({"schema": 2}, "a form that this redialctl does not know"),
    ([1, 2], "a form that this redialctl does not know"),
])
def test_senseless_answer_is_told_with_status_2(admin, address, body, says):
    admin(answers={"GET /status": (200, body), "GET /sessions": (200, body)})
    for command in ("status", "sessions", "top"):
        result = redialctl(command, socket=address)
        assert result.status == 2
        assert says in result.err


def test_failing_daemon_is_told_with_its_status(admin, address):
    admin(answers={"GET /status": (500, "no\n")})
    result = redialctl("status", socket=address)
    assert result.status == 2
    assert "answers 500 to GET /status" in result.err


def test_silent_daemon_is_not_waited_for_without_end(address):
    sock = listening(address)
    with sock:
        result = redialctl("ready", "--wait", "100ms", socket=address)
    assert result.status == 2
    assert "does not answer in time" in result.err


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
def test_waiting_for_a_dead_port_never_takes_it(host):
    """With a single ephemeral port each dial of it meets itself."""
    netns.sysctl("net.ipv4.ip_local_port_range", "40000 40000")
    result = redialctl("ready", "--wait", "500ms", socket=f"{host}:40000")
    assert result.status == 2
    assert "the connection met itself" in result.err
    assert is_bindable(f"{host}:40000"), "no TIME_WAIT keeps the server from its port"


# status

def test_status_is_a_table_of_proxies_and_servers(admin, address):
    admin({"/status": [fakeadmin.example()]})
    result = redialctl("status", "-d", "0s", socket=address)
    assert result.status == 0 and result.err == ""
    assert "rediald 0.1.0  serving  up 1h 23m, pid 4711, 2 workers" in result.out
    assert "15 of 4000 sessions, 3 waiting, 2 of 4 servers up, 7 self-connections caught" in result.out
    assert row_with(result.out, "127.0.0.1:7000") == [
        "web", "127.0.0.1:7000", "web", "9", "-", "-", "-", "1234", "0"]
    assert row_with(result.out, "127.0.0.1:40000") == [
        "postgres", "127.0.0.1:40000", "db", "6/100", "-", "-", "-", "77", "5"]
    assert row_with(result.out, "unix:/run/redial/pg.sock") == ["unix:/run/redial/pg.sock"]
    assert row_with(result.out, "● 127.0.0.1:8000") == [
        "web", "0", "● 127.0.0.1:8000", "up", "1h 23m", "9", "1/1", "-", "-"]
    assert row_with(result.out, "● db1.internal:5432") == [
        "db", "3", "● db1.internal:5432", "down: refused", "12s", "740ms", "0", "0/0", "-", "-",
        "10.0.0.7:5432, 7 self-connections"]
    assert row_with(result.out, "● db2.internal:5432")[1] == "disabled"
    assert "10.0.0.8:5432 and 1 more, weight 2" in result.out
    assert "10.0.0.9:5432, backup" in result.out
    assert "1 listen port in the ephemeral range: see redialctl doctor" in result.out
    assert result.out.endswith("the configuration was not reloaded\n")
    assert not [line for line in result.out.splitlines() if line != line.rstrip()]


def test_status_has_rates_between_two_answers(admin, address):
    before, now = fakeadmin.example(), fakeadmin.example()
    now["now"] += 2
    now["proxies"][0]["bytes"]["to_client"] += 9_600_000
    now["proxies"][0]["sessions"]["total"] += 5
    now["upstreams"][0]["servers"][0]["bytes"]["to_server"] += 2000
    fake = admin({"/status": [before, now]})
    result = redialctl("status", "-d", "10ms", socket=address)
    assert row_with(result.out, "127.0.0.1:7000")[4:7] == ["2.5/s", "0 B/s", "4.8 MB/s"]
    assert row_with(result.out, "● 127.0.0.1:8000")[-2:] == ["1.0 kB/s", "0 B/s"]
    assert fake.requests == ["GET /status"] * 2


@pytest.mark.parametrize("change", [{"pid": 4712}, {"started_at": 1764190001.0}, {"now": 1.0}])
def test_nothing_is_rated_over_a_restart_of_the_daemon(admin, address, change):
    before, now = fakeadmin.example(), fakeadmin.example()
    now["now"] += 1
    now["proxies"][0]["bytes"]["to_client"] += 1000
    admin({"/status": [before, {**now, **change}]})
    result = redialctl("status", "-d", "10ms", socket=address)
    assert row_with(result.out, "127.0.0.1:7000")[4:7] == ["-", "-", "-"]


def test_a_proxy_or_server_that_is_new_has_no_rates(admin, address):
    before, now = fakeadmin.example(), fakeadmin.example()
    now["now"] += 1
    before["proxies"][0]["name"] = before["upstreams"][0]["name"] = "other"
    admin({"/status": [before, now]})
    result = redialctl("status", "-d", "10ms", socket=address)
    assert row_with(result.out, "127.0.0.1:7000")[4:7] == ["-", "-", "-"]
    assert row_with(result.out, "127.0.0.1:40000")[4:7] == ["0.0/s", "0 B/s", "0 B/s"]


@pytest.mark.parametrize("phase, text", [("lame_duck", "ending: still accepting"),
                                         ("draining", "ending: no new clients"),
                                         ("cutting", "ending: sessions are cut"),
                                         ("of the moon", "of the moon")])
def test_status_tells_the_phase(admin, address, phase, text):
    admin({"/status": [{**fakeadmin.example(), "phase": phase}]})
    assert f"rediald 0.1.0  {text}  up" in redialctl("status", "-d", "0", socket=address).out


def test_status_tells_of_a_refused_reload_and_a_slow_log(admin, address):
    document = fakeadmin.example()
    document["log_dropped"] = 12
    document["config"]["last_reload"] = {"ok": False, "at": document["now"] - 50,
                                         "errors": ["a.conf:1: [proxy web] listn: unknown key", "b"]}
    admin({"/status": [document]})
    result = redialctl("status", "-d", "0", socket=address)
    assert "The reload 50s ago was refused, nothing has changed:\n    a.conf:1: [proxy web] listn: unknown key\n    b\n" \
        in result.out
    assert "12 lines of the log were dropped" in result.out


def test_status_json_is_the_document(admin, address):
    fake = admin({"/status": [fakeadmin.example()]})
    result = redialctl("status", "--json", socket=address)
    assert result.status == 0
    assert json.loads(result.out) == fakeadmin.example()
    assert "1764190000.125" in result.out
    assert fake.requests == ["GET /status"]


def test_control_characters_never_pass(admin, address):
    evil = f"a{ESC}[2J\x07\x9b31m\x7f\r\nb"
    document = fakeadmin.example()
    document["version"] = document["phase"] = evil
    document["config"]["files"] = [evil]
    document["config"]["last_reload"] = {"ok": False, "at": 1, "errors": [evil]}
    for item in (document["proxies"][0], document["upstreams"][0],
                 document["upstreams"][0]["servers"][0]):
        item["name"] = evil
    document["proxies"][0]["listens"][0]["address"] = evil
    document["upstreams"][0]["servers"][0].update(state=evil, reason=evil, addresses=[evil])
    document["events"][0].update(level=evil, message=evil)
    row = fakeadmin.session(evil, proxy=evil, server=evil, upstream=evil)
    waiting = fakeadmin.session(evil, server=None, state="waiting", upstream=evil)
    refusal = (422, {"ok": False, "errors": [evil]})
    admin({"/status": [document], "/sessions": [fakeadmin.sessions([row, waiting])]},
          {"POST /reload": refusal, "GET /readyz": (503, evil.encode())})
    commands = [["status", "-d", "0"], ["top", "-n", "1", "-d", "100ms"], ["sessions", "-d", "0"],
                ["status", "--json"], ["sessions", "--json"], ["reload"], ["ready"],
                ["disable", f"{evil}/x"]]
    for locale in ("C.UTF-8", "C"):
        for command in commands:
            result = redialctl(*command, socket=address, env={"LC_ALL": locale})
            text = result.out + result.err
            assert text, command
            assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", text), (command, text)
    assert json.loads(redialctl("status", "--json", socket=address).out) == document


@pytest.mark.parametrize("damage", ["strings", "numbers", "nulls", "lists", "missing"])
def test_a_document_of_other_types_is_survived(admin, address, damage):
    def damaged(value, depth=0):
        if isinstance(value, dict):
            return {key: damaged(item, depth + 1) for key, item in value.items()
                    if depth == 0 or damage != "missing"}
        if isinstance(value, list):
            return [damaged(item, depth + 1) for item in value]
        return {"strings": "x", "numbers": -1e300, "nulls": None, "lists": [[]], "missing": 1}[damage]

    documents = {}
    for path, document in (("/status", fakeadmin.example()),
                           ("/sessions", fakeadmin.sessions([fakeadmin.session("a")]))):
        documents[path] = [{**damaged(document), "schema": 1}]
    admin(documents)
    for command in (["status"], ["status", "--json"], ["sessions"], ["top", "-n", "1"]):
        assert redialctl(*command, "-d", "100ms", socket=address).status == 0 or "--json" in command


def test_without_utf8_the_marks_are_ascii(admin, address):
    admin({"/status": [fakeadmin.example()]})
    result = redialctl("status", "-d", "0", socket=address, env={"LC_ALL": "C"})
    assert result.out.isascii()
    assert "* 127.0.0.1:8000" in result.out


# top

def test_top_in_a_pipe_repeats_the_picture_without_a_terminals_codes(admin, address):
    documents = [fakeadmin.example() for _ in range(3)]
    for i, document in enumerate(documents):
        document["now"] += i
        document["proxies"][0]["bytes"]["to_client"] += i * i * 1000
    admin({"/status": documents})
    result = redialctl("top", "-n", "2", "-d", "100ms", socket=address)
    assert result.status == 0
    assert ESC not in result.out
    assert result.out.count("rediald 0.1.0") == 2
    assert "\n\n● rediald 0.1.0" in result.out
    rates = [row[6] for row in rows(result.out) if "127.0.0.1:7000" in row]
    assert rates == ["1.0 kB/s", "3.0 kB/s"]


def test_top_in_a_pipe_ends_when_the_daemon_does(admin, address):
    fake = admin({"/status": [fakeadmin.example()]})
    ended = []
    thread = threading.Thread(target=lambda: ended.append(redialctl("top", "-d", "1", socket=address)))
    thread.start()
    eventually(lambda: len(fake.requests) >= 1)
    fake.documents["/status"] = []
    thread.join()
    assert ended[0].status == 2
    assert "answers 404" in ended[0].err


# sessions

def test_sessions_are_listed_with_their_rates(admin, address):
    def both(seconds):
        ms = seconds * 1000
        return fakeadmin.sessions([
            fakeadmin.session("127.0.0.1:40001", id=40, age_ms=61_000 + ms, idle_ms=10,
                              bytes_to_server=1000 + 300 * seconds, bytes_to_client=2_000_000),
            # Clients of a UNIX socket look alike, and these came together: their ids tell them apart, in any order.
            *(fakeadmin.session("unix:", id=number, proxy="pg", server="10.0.0.1:5432",
                                age_ms=5_000 + ms, bytes_to_client=rate * seconds)
              for number, rate in ((38, 500), (39, 7000))[::-1 if seconds else 1]),
            fakeadmin.session("[::1]:5", id=41, proxy="pg", upstream="db", server=None, state="waiting", age_ms=50 + ms),
        ], now=fakeadmin.STARTED + 5000 + seconds)

    admin({"/sessions": [both(0), both(2)]})
    result = redialctl("sessions", "-d", "10ms", socket=address)
    assert result.status == 0
    assert rows(result.out) == [
        ["PROXY", "CLIENT", "SERVER", "AGE", "IDLE", "TO SERVER", "RATE", "TO CLIENT", "RATE"],
        ["pg", "unix:", "10.0.0.1:5432", "7.0s", "10ms", "0 B", "0 B/s", "1.0 kB", "500 B/s"],
        ["pg", "unix:", "10.0.0.1:5432", "7.0s", "10ms", "0 B", "0 B/s", "14 kB", "7.0 kB/s"],
        ["pg", "[::1]:5", "waiting for db", "2.0s", "10ms", "0 B", "0 B/s", "0 B", "0 B/s"],
        ["web", "127.0.0.1:40001", "127.0.0.1:8000", "1m 3s", "10ms", "1.6 kB", "300 B/s", "2.0 MB", "0 B/s"],
        [""],
        ["4 sessions, 1 waiting"],
    ]


@pytest.mark.parametrize("before, now", [
    ({"id": 7}, {"id": 8}), ({"id": 8}, {"id": 7}), ({"id": 7}, {}), ({}, {"id": 7}), ({}, {})],
    ids=["newer", "older", "none_now", "none_before", "none"])
def test_another_session_of_the_same_client_has_no_rate(admin, address, before, now):
    """Nor has one of a daemon that gives no ids."""
    def one(ids, seconds):
        row = {**fakeadmin.session("127.0.0.1:1", bytes_to_client=9000), "id": None, **ids}
        return fakeadmin.sessions([{key: value for key, value in row.items() if value is not None}],
                                  now=fakeadmin.STARTED + seconds)

    admin({"/sessions": [one(before, 10), one(now, 11)]})
    result = redialctl("sessions", "-d", "10ms", socket=address)
    assert row_with(result.out, "127.0.0.1:1")[5:] == ["0 B", "-", "9.0 kB", "-"]


@pytest.mark.parametrize("more", [{"pid": 4712}, {"started_at": fakeadmin.STARTED + 9}])
def test_sessions_of_another_process_are_others(admin, address, more):
    rows_ = [fakeadmin.session("127.0.0.1:1", id=7, bytes_to_client=9000)]
    admin({"/sessions": [fakeadmin.sessions(rows_),
                         fakeadmin.sessions(rows_, now=fakeadmin.STARTED + 5001, **more)]})
    result = redialctl("sessions", "-d", "10ms", socket=address)
    assert row_with(result.out, "127.0.0.1:1")[5:] == ["0 B", "-", "9.0 kB", "-"]


def test_no_sessions_and_too_many_are_told(admin, address):
    admin({"/sessions": [fakeadmin.sessions([])]})
    assert redialctl("sessions", socket=address).out == "0 sessions, 0 waiting\n"
    assert json.loads(redialctl("sessions", "--json", socket=address).out)["sessions"] == []


@pytest.mark.parametrize("left_out, says", [
    (23456, "23456 more are not shown"), (None, "there are more than are shown")])
def test_a_list_that_was_cut_says_so_with_status_1(admin, address, left_out, says):
    document = fakeadmin.sessions([fakeadmin.session("a")], truncated=True, left_out=left_out)
    admin({"/sessions": [document]})
    result = redialctl("sessions", socket=address)
    assert (result.status, result.err) == (1, "")
    assert result.out.endswith(f"1 session, 0 waiting; {says}\n")
    result = redialctl("sessions", "--json", socket=address)
    assert (result.status, json.loads(result.out)) == (1, document)


# Changes

def test_reload_waits_and_says_that_it_is_done(admin, address):
    fake = admin(answers={"POST /reload": (200, {"ok": True})})
    result = redialctl("reload", socket=address)
    assert (result.status, result.out, result.err) == (0, "the new configuration is in use\n", "")
    assert fake.requests == ["POST /reload"]


def test_errors_of_a_refused_reload_are_shown_with_status_78(admin, address):
    errors = ["a.conf:3: [proxy web] listn: unknown key", "a.conf:9: [upstream x] is not used"]
    admin(answers={"POST /reload": (422, {"ok": False, "errors": errors})})
    result = redialctl("reload", socket=address)
    assert result.status == 78
    assert result.err == "".join(f"redialctl: {line}\n" for line in [
        *errors, "the new configuration was refused; nothing has changed"])
    assert result.out == ""


def test_drain_is_asked_for(admin, address):
    fake = admin(answers={"POST /drain": (202, {"ok": True})})
    result = redialctl("drain", socket=address)
    assert result.status == 0
    assert "ending" in result.out
    assert fake.requests == ["POST /drain"]


@pytest.mark.parametrize("args, request_, says", [
    (["enable", "web/127.0.0.1:8000"], "POST /servers/web/127.0.0.1%3A8000/enable",
     "web/127.0.0.1:8000 is enabled\n"),
    (["disable", "db/unix:/run/x y.sock"], "POST /servers/db/unix%3A%2Frun%2Fx%20y.sock/disable",
     "db/unix:/run/x y.sock is disabled, its sessions may go on\n"),
    (["disable", "--kill", "db/größe"], "POST /servers/db/gr%C3%B6%C3%9Fe/disable?kill=1",
     "db/größe is disabled, its sessions are reset\n"),
])
def test_servers_are_named_percent_encoded(admin, address, args, request_, says):
    fake = admin(answers={request_: (200, {"ok": True})})
    result = redialctl(*args, socket=address)
    assert fake.requests == [request_]
    assert (result.status, result.out, result.err) == (0, says, "")


@pytest.mark.parametrize("code, body, says", [
    (404, {"ok": False, "errors": ["there is no upstream x"]}, "redialctl: there is no upstream x\n"),
    (403, {"ok": False, "errors": ["changes are allowed on UNIX sockets only"]}, "UNIX sockets only"),
    (500, "oops", "answers with status 500 and no reason"),
])
def test_refused_change_is_told_with_status_1(admin, address, code, body, says):
    admin(answers={"POST /servers/x/y/enable": (code, body)})
    result = redialctl("enable", "x/y", socket=address)
    assert result.status == 1
    assert says in result.err
    assert result.out == ""


# ready

def test_ready_says_why_not(admin, address):
    admin(answers={"GET /readyz": (503, "upstream db: no server is up\nupstream x: neither\n")})
    result = redialctl("ready", socket=address)
    assert result.status == 1
    assert result.err == ("redialctl: not ready: upstream db: no server is up\n"
                          "redialctl: not ready: upstream x: neither\n")


def test_ready_waits_for_the_socket_and_then_for_the_servers(address):
    ended = []
    thread = threading.Thread(
        target=lambda: ended.append(redialctl("ready", "--wait", "1m", socket=address)))
    thread.start()
    pass_time(0.3)  # the daemon takes so long to start
    with FakeAdmin(address, answers={"GET /readyz": (503, "upstream web: no server is up\n")}) as fake:
        eventually(lambda: len(fake.requests) >= 3, 10)
        assert not ended
        fake.answers["GET /readyz"] = (200, "ok\n")
        thread.join()
    assert (ended[0].status, ended[0].out, ended[0].err) == (0, "ready\n", "")


@pytest.mark.parametrize("served, status, says", [(True, 1, "not ready: upstream web"), (False, 2, "cannot reach")])
def test_ready_gives_up_and_tells_the_last_reason(admin, address, served, status, says):
    if served:
        admin(answers={"GET /readyz": (503, "upstream web: no server is up\n")})
    result = redialctl("ready", "--wait", "300ms", socket=address)
    assert result.status == status
    assert says in result.err and result.err.count("\n") == 1


def test_without_wait_ready_asks_once(admin, address):
    fake = admin(answers={"GET /readyz": (503, "no\n")})
    redialctl("ready", socket=address)
    assert fake.requests == ["GET /readyz"]


def test_socket_that_may_not_be_opened_is_told(admin):
    if not netns.is_real_root():
        pytest.skip("needs root, to be somebody who may not")
    with tempfile.TemporaryDirectory() as directory:
        os.chmod(directory, 0o755)
        admin(answers={"GET /readyz": (200, "ok\n")}, at=f"unix:{directory}/admin.sock")
        os.chmod(f"{directory}/admin.sock", 0o600)
        result = redialctl_of("nobody", "ready", socket=f"{directory}/admin.sock")
    assert result.status == 2
    assert "Permission denied; the mode of the socket says who may" in result.err
