# SPDX-License-Identifier: MIT
"""What a request, a connection and a megabyte cost: counts, not times, on machines that are busy.

One client, one thing after another, on one CPU: the counts are the same each time, within 1 %.
cost.json says what they were, and how far from that they may be: a tenth, or the slack. To record
what a change was meant to do: $RECORD_COST, below, and commit cost.json.
"""

import json
import os

import pytest

import netns
from binary import BINARY_IS_SANITIZED, WRAP
from cost import CallCounter, callgrind, own_instructions, producer
from servers import echo
from sockets import connected, recv_exactly
from strace import CannotTrace

EXPECTED = os.path.join(os.path.dirname(os.path.abspath(__file__)), "cost.json")
RECORD = bool(os.environ.get("RECORD_COST"))
HOW_TO_RECORD = """If that is meant, in a build with the default CFLAGS:
RECORD_COST=1 make check-functional PYTESTFLAGS='-k test_cost'; then commit cost.json."""
CHUNK = 4 << 20
# What is counted: how often the script does it, and how many units that is.
UNITS = {"request": (500, 500), "connection": (200, 200), "megabyte": (16, 16 * CHUNK / 1e6)}


@pytest.fixture(autouse=True)
def one_cpu():
    """Two processes on two CPUs race; on one they take turns."""
    cpus = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cpus)})
    yield
    os.sched_setaffinity(0, cpus)


@pytest.fixture(autouse=True)
def room_for_a_chunk(namespace):
    """The kernel grows buffers by the speed of the reader, which is not always the same."""
    netns.sysctl("net.ipv4.tcp_congestion_control", "reno")
    netns.sysctl("net.ipv4.tcp_moderate_rcvbuf", 0)
    for name in ("net.ipv4.tcp_rmem", "net.ipv4.tcp_wmem"):
        netns.sysctl(name, f"4096 {2 * CHUNK} {2 * CHUNK}")


def acknowledge(sock):
    """Answers a byte to each chunk."""
    while len(recv_exactly(sock, CHUNK)) == CHUNK:
        sock.sendall(b"x")


class Script:
    """The traffic: always the same, one thing after another."""

    def __init__(self, serve, port):
        self._echo, self._bulk = f"127.0.0.1:{port()}", f"127.0.0.1:{port()}"
        self.configuration = (
            "[daemon]\nworkers = 1\nsplice = auto\naccess_log = off\n"
            f"[proxy echo]\nlisten = {self._echo}\nserver = {serve(echo).address}\n"
            f"[proxy bulk]\nlisten = {self._bulk}\nserver = {serve(acknowledge).address}\n")

    def run(self, what, number):
        getattr(self, what)(number)

    def request(self, number):
        with connected(self._echo) as sock:
            for _ in range(number):
                sock.sendall(b"x" * 64)
                assert len(recv_exactly(sock, 64)) == 64

    def connection(self, number):
        for _ in range(number):
            self.request(1)

    def megabyte(self, chunks):
        data = bytes(CHUNK)
        with connected(self._bulk) as sock:
            for _ in range(chunks):
                sock.sendall(data)
                assert sock.recv(1) == b"x"

    def warm_up(self):
        for what in UNITS:
            self.run(what, 2)


@pytest.fixture
def script(serve, port):
    return Script(serve, port)


def load():
    with open(EXPECTED, encoding="ascii") as f:
        return json.load(f)


def record(**parts):
    """Write what was got instead of what was expected."""
    all_parts = {**load(), **parts}
    with open(EXPECTED, "w", encoding="ascii") as f:
        json.dump(all_parts, f, indent=2)
        f.write("\n")


# How many events one call brings depends on who gets the CPU next: shown, not judged.
SCHEDULED = ("epoll_wait",)
TRIES = 3


def compare(unit, got, expected, slack):
    """Rows that are further than a tenth and the slack from what was expected."""
    rows, wrong = [], False
    for name in sorted({*got, *expected}):
        have, want = got.get(name, 0), expected.get(name, 0)
        bad = abs(have - want) > max(0.1 * want, slack) and name not in SCHEDULED
        wrong |= bad
        rows.append(f"{unit:12} {name:20} {have:10.2f} {want:10.2f}  {'<--' if bad else ''}")
    return rows if wrong else []


def judge(rows):
    if rows:
        head = f"{'per':12} {'what':20} {'got':>10} {'expected':>10}"
        pytest.fail("\n".join([head, *rows, HOW_TO_RECORD]), pytrace=False)


def count_calls(script, daemon, path):
    """The system calls of each unit, by name."""
    got = {}
    for what, (number, units) in UNITS.items():
        with CallCounter(daemon.pid, str(path / what)) as counter:
            script.run(what, number)
            if what == "connection":
                daemon.wait_descriptors_back()
        got[what] = {name: round(n / units, 2) for name, n in counter.calls.items()}
        got[what]["all"] = round(sum(n for name, n in counter.calls.items()
                                     if name not in SCHEDULED) / units, 2)
    return got


@pytest.mark.skipif(bool(WRAP), reason="under a tool, the tool's system calls would count")
def test_system_calls_stay_what_they_were(script, rediald, tmp_path):
    daemon = rediald(script.configuration)
    script.warm_up()
    for _ in range(TRIES):
        try:
            got = count_calls(script, daemon, tmp_path)
        except CannotTrace as err:
            pytest.skip(str(err))
        if RECORD:
            record(calls={what: {name: calls[name] for name in sorted(calls) if calls[name] >= 0.05}
                          for what, calls in got.items()})
        expected = load()
        rows = [row for what, calls in got.items()
                for row in compare(what, calls, expected["calls"][what], expected["slack"][what])]
        if not rows:
            break
    judge(rows)


@pytest.mark.skipif(bool(WRAP), reason="under a tool, that tool's instructions would count")
@pytest.mark.skipif(BINARY_IS_SANITIZED, reason="a sanitizer adds instructions")
def test_own_instructions_stay_what_they_were(script, rediald, tmp_path):
    expected = load()["instructions"]
    try:
        compiled = producer()
        if not RECORD and compiled != expected["producer"]:
            pytest.skip(f"recorded for {expected['producer']}, this is {compiled}")
        counts = {what: own(script, rediald, what, tmp_path / what)
                  for what in ("warm-up alone", *UNITS)}
    except CannotTrace as err:
        pytest.skip(str(err))
    got = {what: round((counts[what] - counts["warm-up alone"]) / units)
           for what, (_, units) in UNITS.items()}
    if RECORD:
        record(instructions={"producer": compiled, **got})
        expected = load()["instructions"]
    judge([row for what in got for row in compare(
        what, {"own instructions": got[what]}, {"own instructions": expected[what]}, 0)])


def own(script, rediald, what, path):
    """All instructions of one life of the daemon, with so much of what, or only the warm-up."""
    daemon = rediald(script.configuration, ready=False, prefix=callgrind(path)).wait_ready(30)
    script.warm_up()
    if what in UNITS:
        script.run(what, UNITS[what][0])
    daemon.terminate(30)
    return own_instructions(path)
