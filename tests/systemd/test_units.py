# SPDX-License-Identifier: MIT
"""rediald under a systemd of its own: started, activated, drained, restarted, watched, confined."""

import contextlib
import os
import re
import threading
import time

import pytest

from deadline import pass_time
from ptrace import WALL, standing_still, thread_named
from servers import echo
from sockets import ask, connected, fate, is_refused
from units import LISTEN, SERVER, SERVICE, SOCKET, STATUS_IDLE, exchange, proxy


# Start and status

def test_start_waits_for_readiness_and_the_status_follows(units, serve):
    serve(echo, SERVER)
    units.configure(proxy())
    units.start()
    assert ask(LISTEN, b"hello") == b"hello"
    assert units.show("ActiveState") == "active"
    units.wait("StatusText", STATUS_IDLE)
    with connected(LISTEN) as client:
        exchange(client)
        units.wait("StatusText", r"^sessions: 1 ")
    units.wait("StatusText", STATUS_IDLE)
    assert "sessions: 0" in units.machine.systemctl("status", SERVICE)


def test_journal_has_the_levels(units, serve):
    serve(echo, SERVER)
    units.configure(proxy("127.0.0.1:40000"))
    units.start()
    units.machine.run("journalctl", "--sync")

    def said(priority):
        return units.machine.run("journalctl", "-o", "cat", "-u", SERVICE, "--no-pager",
                                 "-p", f"{priority}..{priority}")
    assert "event=listen_port_in_range" in said("warning")
    assert "event=ready" in said("notice")
    assert "<5>" not in units.log()


def test_instance_has_a_configuration_of_its_own(units, serve):
    serve(echo, SERVER)
    units.configure(proxy())
    units.configure(proxy("127.0.0.1:7001 unix:/run/redial-other/in.sock"),
                    os.path.join(os.path.dirname(units.config), "other.conf"))
    units.start(SERVICE, "rediald@other.service")
    assert ask("127.0.0.1:7001", b"hello") == b"hello"
    units.machine.systemctl("stop", SERVICE)
    assert ask("127.0.0.1:7001", b"hello") == b"hello"
    assert is_refused(LISTEN)
    assert os.path.exists(units.machine.path("/run/redial-other/in.sock"))
    units.machine.systemctl("stop", "rediald@other.service")
    assert not os.path.exists(units.machine.path("/run/redial-other"))


# Sockets

def test_first_connection_starts_the_service_and_is_served(units, serve):
    serve(echo, SERVER)
    units.configure(proxy("systemd:web"))
    units.start(SOCKET)
    assert units.show("ActiveState") == "inactive"
    assert ask(LISTEN, b"hello") == b"hello"
    assert units.show("ActiveState") == "active"
    assert "socket=web" in units.log()


def test_several_sockets_of_a_unit(units, serve):
    serve(echo, SERVER)
    units.configure(proxy("systemd:web", daemon="workers = 2"))
    units.drop_in("[Socket]\nListenStream=[::1]:7000\nListenStream=/run/in.sock\n", SOCKET)
    units.start(SOCKET)
    path = f"unix:{units.machine.path('/run/in.sock')}"
    for address in (LISTEN, "[::1]:7000", path):
        assert ask(address, b"hello") == b"hello"
    units.machine.systemctl("stop", SERVICE)
    assert ask(path, b"again") == b"again"


def test_restart_under_load_with_a_socket_refuses_nobody(units, serve):
    serve(echo, SERVER)
    units.configure(proxy("systemd:web", daemon="workers = 2"))
    units.start(SOCKET)
    assert ask(LISTEN, b"hello") == b"hello"
    failures, served, done = [], [0] * 8, threading.Event()

    def client(n):
        while not done.is_set():
            try:
                assert ask(LISTEN, b"hello") == b"hello"
                served[n] += 1
            except (OSError, AssertionError) as err:
                failures.append(err)
    threads = [threading.Thread(target=client, args=(n,)) for n in range(len(served))]
    for thread in threads:
        thread.start()
    try:
        for _ in range(3):
            before = sum(served)
            units.machine.systemctl("restart", SERVICE)
            end = time.monotonic() + 20
            while sum(served) < before + 100 and time.monotonic() < end:
                time.sleep(0.01)
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert not failures
    assert all(served)
    assert len(re.findall("event=ready", units.log())) == 4


def test_name_that_the_unit_does_not_pass_fails_for_good(units):
    units.configure(proxy("systemd:other"))
    units.start(SOCKET)
    with connected(LISTEN):
        units.wait("ExecMainStatus", "^78$")
        units.wait("ActiveState", "^failed$")
    assert units.show("NRestarts") == "0"
    assert "passed were: 'web'" in units.log()


# The end

def test_stop_under_load_drains(units, serve):
    serve(echo, SERVER)
    units.configure(proxy(daemon="drain_timeout = 30s"))
    units.start()
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(connected(LISTEN)) for _ in range(20)]
        for client in clients:
            exchange(client)
        units.machine.systemctl("stop", "--no-block", SERVICE)
        units.wait("StatusText", r"^draining, \d+ s left; sessions: 20 ")
        assert units.show("ActiveState") == "deactivating"
        for client in clients:
            exchange(client)
    units.wait("ActiveState", "^inactive$")
    assert is_refused(LISTEN)
    assert units.show("Result") == "success"
    assert "ended; 0 sessions were cut" in units.log()


def test_drain_may_last_longer_than_the_units_time_to_stop(units, serve):
    serve(echo, SERVER)
    units.configure(proxy(daemon="lame_duck = 1s\ndrain_timeout = 5s"))
    units.drop_in("[Service]\nTimeoutStopSec=2s\n")
    units.start()
    began = time.monotonic()
    with connected(LISTEN) as client:
        exchange(client)
        units.machine.systemctl("stop", SERVICE)
    assert time.monotonic() - began > 5.9
    assert units.show("Result") == "success"
    assert "ended; 1 sessions were cut" in units.log()


# Failures

def test_faulty_configuration_is_not_tried_again(units):
    units.configure("[proxy web]\nlisten = nonsense\n")
    units.machine.systemctl("start", SERVICE, check=False)
    assert units.show("ActiveState") == "failed"
    assert units.show("ExecMainStatus") == "78"
    assert units.show("NRestarts") == "0"
    assert "[proxy web] listen: 'nonsense'" in units.log()


def test_port_that_is_taken_is_tried_until_it_is_free(units, serve):
    holder = serve(echo, LISTEN)
    serve(echo, SERVER)
    units.configure(proxy())
    units.drop_in("[Service]\nRestartSec=100ms\n[Unit]\nStartLimitIntervalSec=0\n")
    units.machine.systemctl("start", "--no-block", SERVICE)
    units.wait("NRestarts", "^[1-9]")
    assert "status=71/OSERR" in units.log()
    holder.close()
    units.wait("ActiveState", "^active$")
    assert ask(LISTEN, b"hello") == b"hello"


def test_worker_that_hangs_is_killed_by_the_watchdog_and_rediald_restarted(units, serve):
    serve(echo, SERVER)
    units.configure(proxy(daemon="workers = 2"))
    units.drop_in("[Service]\nWatchdogSec=2s\nRestartSec=100ms\nLimitCORE=0\n")
    units.start()
    before = units.show("MainPID")
    tid = thread_named(units.machine.pid_outside(before), "worker 1")
    with standing_still(tid):
        end = time.monotonic() + 20
        while os.waitpid(tid, WALL | os.WNOHANG) == (0, 0):  # dead, it still has to be waited for
            assert time.monotonic() < end, units.log()
            time.sleep(0.05)
    units.wait("NRestarts", "^1$")
    units.wait("ActiveState", "^active$")
    assert units.show("MainPID") != before
    assert "event=worker_stalled worker=1" in units.log()
    assert ask(LISTEN, b"hello") == b"hello"


def test_watchdog_lets_a_healthy_rediald_live(units, serve):
    serve(echo, SERVER)
    units.configure(proxy(daemon="workers = 2"))
    units.drop_in("[Service]\nWatchdogSec=1s\n")
    units.start()
    fed = units.show("WatchdogTimestampMonotonic")
    units.wait("WatchdogTimestampMonotonic", f"^(?!{fed}$)")
    pass_time(3)
    assert units.show("NRestarts") == "0"
    assert units.show("ActiveState") == "active"


# The sandbox

@pytest.mark.parametrize("unit", [SERVICE, "rediald@x.service"])
def test_exposure_is_low(units, unit):
    text = units.machine.run("systemd-analyze", "security", "--no-pager", unit)
    score = float(re.search(r"Overall exposure level for \S+: ([\d.]+)", text)[1])
    assert score <= 1.5, text


@pytest.mark.parametrize("unit", [SERVICE, SOCKET, "rediald@x.service"])
def test_units_hold_nothing_that_systemd_does_not_know(units, unit):
    assert units.machine.run("systemd-analyze", "verify", "--man=no", unit) == ""


def test_sandbox_leaves_the_guard_its_eyes(units, serve):
    """The range of ports and the holder of a port are seen; nothing is refused by the filter."""
    serve(echo, SERVER)
    units.configure(proxy("127.0.0.1:40000, unix:/run/redial/in.sock"))
    units.start()
    log = units.log()
    assert "event=listen_port_in_range" in log and "event=port_range_assumed" not in log
    assert ask(f"unix:{units.machine.path('/run/redial/in.sock')}", b"hello") == b"hello"
    pid = units.machine.pid_outside(units.show("MainPID"))
    with open(f"/proc/{pid}/status", encoding="utf-8") as f:
        status = f.read()
    assert re.search(r"^CapBnd:\t0+$", status, re.M) and re.search(r"^CapEff:\t0+$", status, re.M)
    assert "\nNoNewPrivs:\t1\n" in status and "\nSeccomp:\t2\n" in status


def test_low_port_needs_the_drop_in(units, serve):
    serve(echo, SERVER)
    low = "127.0.0.1:80"
    units.configure(proxy(low))
    units.machine.systemctl("start", SERVICE, check=False)
    assert "event=listen_failed" in units.log()
    units.machine.systemctl("stop", SERVICE)
    units.drop_in(units.example("low-ports.conf"))
    units.start()
    assert ask(low, b"hello") == b"hello"


def test_group_of_a_unix_listener_needs_the_drop_in(units, serve):
    serve(echo, SERVER)
    units.configure(proxy("unix:/run/redial/in.sock", more="unix_group = www-data"))
    units.machine.systemctl("start", SERVICE, check=False)
    assert "event=listen_failed" in units.log()
    units.machine.systemctl("stop", SERVICE)
    units.drop_in(units.example("unix-group.conf"))
    units.start()
    path = units.machine.path("/run/redial/in.sock")
    assert os.stat(path).st_gid == int(units.machine.run("id", "-g", "www-data"))
    assert ask(f"unix:{path}", b"hello") == b"hello"


def test_denied_client_is_reset(units, serve):
    serve(echo, SERVER)
    units.configure(proxy("systemd:web", more="deny = all"))
    units.start(SOCKET)
    assert fate(LISTEN, b"hello") == (b"", "reset")
