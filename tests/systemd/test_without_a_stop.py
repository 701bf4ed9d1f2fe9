# SPDX-License-Identifier: MIT
"""From one configuration, program and process to the next, in the unit, without a socket unit: nobody is refused.

The loads leave TIME_WAIT on many ports of the machine: pytest takes this file last.
"""

import os
import re
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from deadline import eventually, pass_time
from load import Load
from ptrace import standing_still, thread_named
from servers import echo, line_echo
from sockets import ask, connected, is_refused, recv_exactly, recv_until_end
from transfers import Transfers
from units import LISTEN, SERVER, SERVICE, exchange, proxy

WORKERS = "workers = 2"
OTHER = "127.0.0.1:8001"
RUN_SOCKET = "/run/redial/in.sock"


def stored(units):
    return int(units.show("NFileDescriptorStore"))


@pytest.fixture(name="notifying_units")
def units_that_notify_of_reloads(units):
    """The units, where systemd waits for the end of a reload."""
    version = int(re.match(r"systemd (\d+)", units.machine.systemctl("--version"))[1])
    if version < 253:
        pytest.skip(f"systemd 253 and later wait for the end of a reload: this is {version}")
    assert units.show("Type") == "notify-reload" and units.show("ExecReload") == ""
    return units


def served_since(load, before, count=50):
    eventually(lambda: load.done >= before + count, 20, "clients are served")


# Reload

def test_reload_serves_the_new_configuration(units, serve):
    serve(line_echo(b"a"), SERVER)
    serve(line_echo(b"b"), OTHER)
    units.configure(proxy(daemon=WORKERS))
    log = units.watched_log()
    units.start()
    pid = units.show("MainPID")
    with connected(LISTEN) as client:
        client.sendall(b"1\n")
        assert recv_exactly(client, 4) == b"a 1\n"
        units.configure(proxy(daemon=WORKERS, server=OTHER))
        units.machine.systemctl("reload", SERVICE)
        eventually(lambda: "event=reloaded" in log())
        assert ask(LISTEN, b"2\n") == b"b 2\n"
        client.sendall(b"3\n")
        assert recv_exactly(client, 4) == b"a 3\n"
    units.wait("ActiveState", "^active$")
    assert units.show("MainPID") == pid


def test_reload_of_a_faulty_configuration_changes_nothing(units, serve):
    serve(echo, SERVER)
    units.configure(proxy(daemon=WORKERS))
    log = units.watched_log()
    units.start()
    units.configure("[proxy web]\nlisten = nonsense\n")
    with Load(LISTEN, 2) as load:
        units.machine.systemctl("reload", SERVICE)
        eventually(lambda: "event=reload_failed" in log())
        units.wait("ActiveState", "^active$")
        served_since(load, load.done)
    assert load.faults == []
    assert "[proxy web] listen: 'nonsense'" in log()
    assert "event=reload_fault" in log()


def test_reload_command_returns_when_the_new_configuration_is_served(notifying_units, serve):
    units = notifying_units
    serve(line_echo(b"a"), SERVER)
    serve(line_echo(b"b"), OTHER)
    units.configure(proxy(daemon=WORKERS))
    units.start()
    tid = thread_named(units.machine.pid_outside(units.show("MainPID")), "worker 1")
    units.configure(proxy(daemon=WORKERS, server=OTHER))
    with ThreadPoolExecutor() as pool:
        with standing_still(tid):
            command = pool.submit(units.machine.systemctl, "reload", SERVICE)
            units.wait("SubState", "^reload-notify$")
            pass_time(0.5)
            assert units.show("SubState") == "reload-notify" and not command.done()
        command.result()
    assert [ask(LISTEN, b"1\n") for _ in range(20)] == [b"b 1\n"] * 20
    assert units.show("ReloadResult") == "success" and units.show("ActiveState") == "active"


def test_reload_command_returns_when_the_configuration_was_refused(notifying_units, serve):
    """It succeeds: there is no word for a reload that has failed (sd_notify(3))."""
    units = notifying_units
    serve(echo, SERVER)
    units.configure(proxy(daemon=WORKERS))
    units.start()
    units.configure("[proxy web]\nlisten = nonsense\n")
    units.machine.systemctl("reload", SERVICE)
    assert units.log().count("event=reload_failed") == 1
    assert units.show("ReloadResult") == "success" and units.show("ActiveState") == "active"
    assert ask(LISTEN, b"hello") == b"hello"
    units.configure(proxy("127.0.0.1:7001", daemon=WORKERS))
    units.machine.systemctl("reload", SERVICE)
    assert ask("127.0.0.1:7001", b"hello") == b"hello"


def test_reload_command_during_an_upgrade_returns_when_the_next_process_has_done_it(
        notifying_units, serve):
    units = notifying_units
    serve(echo, SERVER)
    units.configure(proxy(daemon=WORKERS))
    units.drop_in("[Unit]\nStartLimitIntervalSec=0\n")
    units.start()
    for n in range(10):
        before = units.show("MainPID")
        units.kill(signal.SIGUSR2)
        added = f"127.0.0.1:{7001 + n}"
        units.configure(proxy(f"{LISTEN} {added}", daemon=WORKERS))
        units.machine.systemctl("reload", SERVICE)
        assert ask(added, b"hello") == b"hello"
        units.wait("MainPID", f"^(?!{before}$)[1-9]")
    assert units.show("ReloadResult") == "success" and units.show("ActiveState") == "active"


def test_store_follows_the_configuration(units, serve):
    serve(echo, SERVER)
    units.configure(proxy(f"{LISTEN} 127.0.0.1:7001", daemon=WORKERS))
    log = units.watched_log()
    units.start()
    units.wait("NFileDescriptorStore", "^4$")
    units.configure(proxy(f"{LISTEN}", daemon=WORKERS))
    units.machine.systemctl("reload", SERVICE)
    units.wait("NFileDescriptorStore", "^2$")
    assert is_refused("127.0.0.1:7001")
    units.configure(proxy("127.0.0.1:7002", daemon=WORKERS))
    units.kill(signal.SIGUSR2)
    eventually(lambda: "event=upgraded" in log())
    eventually(lambda: is_refused(LISTEN))
    units.wait("NFileDescriptorStore", "^2$")
    units.machine.systemctl("restart", SERVICE)
    assert ask("127.0.0.1:7002", b"hello") == b"hello"
    assert is_refused(LISTEN)
    assert "event=listen_failed" not in log()


# Restart and stop

def test_restart_under_load_refuses_nobody(units, serve):
    serve(echo, SERVER)
    units.configure(proxy(daemon=WORKERS))
    units.drop_in("[Unit]\nStartLimitIntervalSec=0\n")
    units.start()
    units.wait("NFileDescriptorStore", "^2$")
    with Load(LISTEN, 8) as load:
        for _ in range(10):
            before = load.done
            units.machine.systemctl("restart", SERVICE)
            served_since(load, before)
    assert load.faults == []
    assert stored(units) == 2
    assert units.log().count("event=ready") == 11


def test_stop_lets_go(units, serve):
    serve(echo, SERVER)
    path = units.machine.path(RUN_SOCKET)
    units.configure(proxy(f"{LISTEN} unix:{RUN_SOCKET}", daemon=WORKERS))
    units.start()
    units.wait("NFileDescriptorStore", "^4$")
    for address in LISTEN, f"unix:{path}":
        assert ask(address, b"hello") == b"hello"
    units.machine.systemctl("stop", SERVICE)
    assert stored(units) == 0
    assert is_refused(LISTEN) and not os.path.exists(path)


def test_clients_who_come_while_it_stops_are_reset(units, serve):
    """systemd has the sockets until the last session has ended."""
    serve(echo, SERVER)
    units.configure(proxy(daemon=f"{WORKERS}\ndrain_timeout = 30s"))
    units.start()
    units.wait("NFileDescriptorStore", "^2$")
    with connected(LISTEN) as client:
        exchange(client)
        units.machine.systemctl("stop", "--no-block", SERVICE)
        units.wait("StatusText", "^draining")
        with connected(LISTEN) as late:
            exchange(client)
            client.close()
            assert recv_until_end(late) == (b"", "reset")
    units.wait("ActiveState", "^inactive$")


def test_store_can_be_switched_off(units, serve):
    serve(echo, SERVER)
    units.configure(proxy(daemon=f"{WORKERS}\ndrain_timeout = 30s"))
    units.drop_in("[Service]\nFileDescriptorStoreMax=0\nUnsetEnvironment=FDSTORE\n")
    units.start()
    with connected(LISTEN) as client:
        exchange(client)
        assert stored(units) == 0
        units.machine.systemctl("stop", "--no-block", SERVICE)
        units.wait("StatusText", "^draining")
        assert is_refused(LISTEN)


def test_unix_socket_is_there_again_after_a_restart(units, serve):
    serve(echo, SERVER)
    path = units.machine.path(RUN_SOCKET)
    units.configure(proxy(f"unix:{RUN_SOCKET}", daemon=WORKERS))
    units.start()
    for _ in range(2):
        units.wait("NFileDescriptorStore", "^2$")
        assert ask(f"unix:{path}", b"hello") == b"hello"
        units.machine.systemctl("restart", SERVICE)
    assert ask(f"unix:{path}", b"hello") == b"hello"


def test_killed_under_load_it_is_back_and_nobody_was_refused(units, serve):
    serve(echo, SERVER)
    units.configure(proxy(daemon=WORKERS))
    units.drop_in("[Service]\nRestartSec=50ms\n[Unit]\nStartLimitIntervalSec=0\n")
    units.start()
    units.wait("NFileDescriptorStore", "^2$")
    with Load(LISTEN, 4) as load:
        for n in range(10):
            units.kill(signal.SIGKILL)
            units.wait("NRestarts", f"^{n + 1}$")
            units.wait("ActiveState", "^active$")
            served_since(load, load.done)
    assert load.refused() == []


# Upgrade

def test_upgrade_in_the_unit(units, serve):
    serve(echo, SERVER)
    units.configure(proxy(f"{LISTEN} unix:{RUN_SOCKET}", daemon=WORKERS))
    units.drop_in("[Service]\nWatchdogSec=2s\n")
    log = units.watched_log()
    units.start()
    units.wait("NFileDescriptorStore", "^4$")
    path = units.machine.path(RUN_SOCKET)
    with connected(LISTEN) as old, Load(LISTEN, 4) as load, Load(f"unix:{path}", 1) as unix:
        exchange(old)
        for n in range(3):
            before = units.show("MainPID")
            units.machine.systemctl("kill", "-s", "USR2", "--kill-who=main", SERVICE)
            units.wait("MainPID", f"^(?!{before}$)[1-9]")
            served_since(load, load.done)
            served_since(unix, unix.done, 5)
            assert log().count("event=upgraded") == n + 1
            exchange(old)
        fed = units.show("WatchdogTimestampMonotonic")
        units.wait("WatchdogTimestampMonotonic", f"^(?!{fed}$)")
        pass_time(3)
    assert load.faults == unix.faults == []
    units.wait("StatusText", r"^sessions: 0 \(waiting: 0\)")
    assert units.show("ActiveState") == "active" and units.show("NRestarts") == "0"
    assert stored(units) == 4
    assert "Got notification message from PID" not in units.log()
    units.configure(proxy("127.0.0.1:7001", daemon=WORKERS))
    units.machine.systemctl("reload", SERVICE)
    eventually(lambda: is_refused(LISTEN))
    assert ask("127.0.0.1:7001", b"hello") == b"hello"


def test_stop_after_an_upgrade_lets_the_old_process_drain(units, serve):
    serve(echo, SERVER)
    units.configure(proxy(daemon=f"{WORKERS}\ndrain_timeout = 30s"))
    log = units.watched_log()
    units.start()
    with connected(LISTEN) as client:
        exchange(client)
        units.kill(signal.SIGUSR2)
        eventually(lambda: "event=upgraded" in log())
        units.machine.systemctl("stop", "--no-block", SERVICE)
        eventually(lambda: log().count("event=stopped") == 1)  # the new one, which has no session
        exchange(client)
    units.wait("ActiveState", "^inactive$")
    assert log().count("sessions_cut=0") == 2


def test_stop_after_an_upgrade_lets_the_new_process_drain(units, serve):
    """What is no child of systemd's is killed at once."""
    serve(echo, SERVER)
    units.configure(proxy(daemon=f"{WORKERS}\ndrain_timeout = 30s"))
    log = units.watched_log()
    units.start()
    units.kill(signal.SIGUSR2)
    eventually(lambda: "event=stopped" in log())  # the old one
    with connected(LISTEN) as client:
        exchange(client)
        units.machine.systemctl("stop", "--no-block", SERVICE)
        units.wait("StatusText", "^draining")
        exchange(client)
    units.wait("ActiveState", "^inactive$")
    assert units.show("Result") == "success"
    assert log().count("sessions_cut=0") == 2


def test_upgrade_that_fails_changes_nothing(units, serve):
    serve(echo, SERVER)
    units.configure(proxy(daemon=WORKERS))
    log = units.watched_log()
    units.start()
    units.wait("NFileDescriptorStore", "^2$")
    pid = units.show("MainPID")
    units.configure("nonsense\n")
    units.kill(signal.SIGUSR2)
    eventually(lambda: "event=upgrade_failed" in log())
    assert ask(LISTEN, b"hello") == b"hello"
    assert units.show("MainPID") == pid and stored(units) == 2


# All of it

class Going:
    """The service under test, asked to go on in one way or the other."""

    def __init__(self, units):
        self._units = units
        self._log = units.watched_log()
        self._texts = [proxy(daemon=self.daemon()),
                       proxy(daemon=self.daemon(), more="standby = 3"),
                       proxy(f"{LISTEN} 127.0.0.1:7001", daemon=self.daemon(), server=OTHER),
                       proxy(daemon=self.daemon(), server=f"{SERVER}\nserver = {OTHER}")]
        self._reloads = 0

    @staticmethod
    def daemon():
        return f"{WORKERS}\ndrain_timeout = 30s"

    def start(self):
        self._units.configure(self._texts[0])
        self._units.start()

    def _grow(self, event, action):
        before = self._log().count(event)
        action()
        eventually(lambda: self._log().count(event) > before, 40, event)

    def reload(self, times):
        for n in range(times):
            self._units.configure(self._texts[(self._reloads + n + 1) % len(self._texts)])
            self._grow("event=reloaded", lambda: self._units.kill(signal.SIGHUP))
        self._reloads += times

    def upgrade(self):
        self._grow("event=upgraded", lambda: self._units.kill(signal.SIGUSR2))

    def restart(self):
        self._units.machine.systemctl("restart", SERVICE)

    def said(self):
        """The log, but for what is always there, and what systemd says of the service."""
        usual = "listening|ready|reloading|reloaded|upgrading|upgraded|draining|stopped|server_up"
        return "\n".join([line for line in self._log().splitlines()
                          if not re.search(f"event=({usual})", line)] + [self._units.log()])

    def outside(self):
        return self._units.machine.pid_outside(self._units.show("MainPID"))

    def resident(self):
        with open(f"/proc/{self.outside()}/status", encoding="ascii") as f:
            return next(int(line.split()[1]) for line in f if line.startswith("VmRSS:"))

    def descriptors(self):
        """How many it has when it is left alone, for longer than unused pipes are kept (2 s at most)."""
        last, since = None, time.monotonic()
        while True:
            now = len(os.listdir(f"/proc/{self.outside()}/fd"))
            if now != last:
                last, since = now, time.monotonic()
            elif time.monotonic() > since + 3:
                return now
            pass_time(0.05)


def test_two_hundred_reloads_ten_upgrades_and_ten_restarts(units, serve):
    """Short connections are all served, long transfers arrive whole, and nothing is left behind."""
    for address in SERVER, OTHER:
        serve(echo, address)
    going = Going(units)
    units.drop_in("[Unit]\nStartLimitIntervalSec=0\n")
    going.start()
    units.wait("NFileDescriptorStore", "^2$")
    before = going.descriptors()
    with Load(LISTEN, 3) as load, Transfers(LISTEN, 2, seconds=1.5) as transfers:
        going.reload(50)
        memory = going.resident()
        going.reload(50)
        assert going.resident() < memory + 2048, "kB"
    assert load.faults == transfers.faults == [], going.said()
    assert going.descriptors() == before
    with Load(LISTEN, 3) as load, Transfers(LISTEN, 2, seconds=1.5) as transfers:
        for _ in range(10):
            going.reload(5)
            going.upgrade()
            going.reload(5)
            going.restart()
    assert load.faults == transfers.faults == [], going.said()
    assert load.done > 400 and transfers.done > 10
    assert going.descriptors() == before
    assert stored(units) == 2
