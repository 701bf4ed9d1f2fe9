# SPDX-License-Identifier: MIT
"""One random configuration after another, under load, with servers that die and come back.

STORM_SEED and STORM_RELOADS ask for another storm, or a longer one.
"""

import contextlib
import os
import random
import signal

import pytest

from deadline import eventually, pass_time
from load import Busy, Load
from servers import Server, echo
from sockets import ask, connected
from test_reload import Configured

SEED = int(os.environ.get("STORM_SEED", "1"))
RELOADS = int(os.environ.get("STORM_RELOADS", "60"))


class Weather:
    """Random configurations in which a proxy named whatever serves `steady', by servers that are always up, or never."""

    def __init__(self, rng, steady, others, safe, frail):
        self._rng = rng
        self._steady, self._others = steady, others
        self._safe, self._frail = safe, frail  # the first of the safe ones is up

    def configuration(self, workers):
        rng = self._rng
        others = rng.sample(self._others, rng.randrange(len(self._others) + 1))
        names = rng.sample([f"p{n}" for n in range(8)], 3)
        listens = [[self._steady], [], []]
        for address in others:
            rng.choice(listens[1:]).append(address)
        text = [f"[daemon]\nworkers = {workers}\naccess_log = {rng.choice(['all', 'errors'])}\n"
                f"port_range_check = off\nlog_level = {rng.choice(['info', 'notice'])}"]
        shared = rng.sample(["u0", "u1", "u2"], rng.randrange(3))
        sections = list(zip(names, listens))
        rng.shuffle(sections)
        for name, addresses in sections:
            if addresses:
                text += self._proxy(name, addresses, shared)
        for name in shared:
            text += [f"[upstream {name}]", *self._upstream(steady=True)]
        return "\n".join(text) + "\n"

    def _some(self, *lines):
        return [line for line in lines if self._rng.random() < 0.25]

    def _proxy(self, name, addresses, shared):
        rng, steady = self._rng, self._steady in addresses
        text = [f"[proxy {name}]"] + [f"listen = {address}" for address in addresses]
        text += self._some(f"max_sessions = {rng.randrange(3, 9)}",
                           f"backlog = {rng.choice([512, 4096])}",
                           f"keepalive = {rng.randrange(9, 11)}s", "nodelay = off")
        if not steady:
            text += self._some("accept_proxy = on", f"idle_timeout = {rng.randrange(200, 300)}ms")
            if any(not address.startswith("unix:") for address in addresses):
                text += self._some("deny = 127.0.0.0/8")
        if any(address.startswith("unix:/") for address in addresses):
            text += self._some(f"unix_mode = 0{rng.choice(['600', '660', '666'])}")
        if shared and rng.random() < 0.5:
            return text + [f"upstream = {rng.choice(shared)}"]
        unlistens = not any(address.startswith("unix:") for address in addresses)
        return text + self._upstream(steady, unlistens)

    def _upstream(self, steady, unlistens=False):
        rng = self._rng
        servers = rng.sample(self._safe[1:] if steady else self._frail, rng.randrange(0 if steady else 1, 4))
        servers += self._safe[:1] if steady else []
        rng.shuffle(servers)
        text = []
        for server in servers:
            if rng.random() < 0.3:
                server = server.replace("127.0.0.1", "localhost")
            words = self._some(f"weight={rng.randrange(1, 5)}", "backup",
                               f"max_sessions={rng.randrange(1, 4)}")
            text.append(" ".join([f"server = {server}", *words]))
        down = ["wait", "wait", "reset"] + (["unlisten"] if unlistens else [])
        ahead = f"standby = {rng.choice([0, 1, 3, 'auto'])}"
        return text + self._some(
            ahead if steady else rng.choice([ahead, "send_proxy = v1"]),
            f"balance = {rng.choice(['round_robin', 'least_conn', 'source_hash', 'first'])}",
            "wait_timeout = " + (f"{rng.randrange(40, 43)}s" if steady else "300ms"), f"backoff_max = {rng.randrange(1, 4)}s",
            f"max_waiting = {rng.randrange(900, 903) if steady else 1}", f"standby_max_age = {rng.randrange(50, 999)}ms",
            "source = 127.0.0.1", "resolve_max = 1s",
            *([] if steady else [f"when_down = {rng.choice(down)}"]))


class Frail(Busy):
    """Servers that a thread kills and starts again until the end of the body."""

    def __init__(self, addresses, seed):
        super().__init__(1)
        self._addresses = addresses
        self._rng = random.Random(seed)

    def _run(self, _n):
        servers = {address: Server(address, echo) for address in self._addresses}
        while not self._ends.wait(0.03):
            address = self._rng.choice(self._addresses)
            if address in servers:
                servers.pop(address).kill()
            else:
                with contextlib.suppress(OSError):  # a connection of the last one is on it
                    servers[address] = Server(address, echo)
        for server in servers.values():
            server.kill()


class Passers(Busy):
    """Clients of addresses that may serve them, or not: they are told no lie, and leave when they like."""

    def __init__(self, addresses, seed):
        super().__init__(len(addresses))
        self._addresses = addresses
        self._seed = seed
        self.lies = []

    def _run(self, n):
        address, seed = self._addresses[n], self._seed + n
        rng = random.Random(seed)
        while not self._ends.wait(rng.random() * 0.02):
            with contextlib.suppress(OSError), connected(address) as sock:
                sock.settimeout(rng.choice([0.001, 0.05, 0.3]))
                sent = rng.choice([b"", b"PROXY TCP4 1.2.3.4 1.2.3.4 5 6\r\n"]) + b"%d" % seed * 50
                sock.sendall(sent)
                got = sock.recv(1 << 16)
                if got and sent[-len(got):] != got[-len(sent):] and not got.startswith(b"PROXY") \
                        and not sent.endswith(got) and not sent.startswith(got):
                    self.lies.append((sent, got))


@pytest.mark.parametrize("workers", [1, 4])
def test_storm_of_reloads_harms_nobody(rediald, tmp_path, serve, port, workers):
    rng = random.Random(SEED)
    steady = f"127.0.0.1:{port()}"
    others = [f"127.0.0.1:{port()}" for _ in range(4)] + [f"unix:{tmp_path}/{n}" for n in range(2)] + ["unix:@storm"]
    frail, dead = [f"127.0.0.1:{port()}" for _ in range(3)], f"127.0.0.1:{port()}"
    safe = serve(echo)
    weather = Weather(rng, steady, others, [safe.address, serve(echo).address, serve(echo).address, dead], frail)
    configured = Configured(rediald, tmp_path / "rediald.conf", workers)
    daemon = configured.start(weather.configuration(workers))
    calm = (f"[daemon]\nworkers = {workers}\n[proxy last]\nlisten = {steady}\nmax_sessions = 1\n"
            f"server = {safe.address} max_sessions=1\n")
    with Load(steady, 4) as load, Passers(others, SEED) as passers, Frail(frail, SEED):
        for n in range(RELOADS):
            configured.write(weather.configuration(workers))
            daemon.signal(signal.SIGHUP)
            if rng.random() < 0.7:
                eventually(lambda: len(daemon.events("reloaded")) > n * 0.3, 20)
            pass_time(rng.random() * 0.06)
        before = load.done
        eventually(lambda: load.done > before + 20, 30, "they are served still")
    assert load.faults == [], daemon.text()
    assert passers.lies == []
    configured.reload(calm)
    eventually(lambda: configured.reload() and daemon.notifications[-1] ==
               "STATUS=sessions: 0 (waiting: 0), servers up: 1 of 1", 20)
    for _ in range(5):  # no place was lost, and none is one too many
        assert ask(steady, b"hello") == b"hello"
    assert not daemon.events("reload_failed")
