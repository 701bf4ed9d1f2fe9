# SPDX-License-Identifier: MIT
"""The workloads: what is asked of each peer, and what is told of it."""

import dataclasses
import time

import calls
import loads
import memory
from account import machine_busy
from proxy import Failed, Proxy, max_sessions


@dataclasses.dataclass(frozen=True)
class Column:
    """A figure. better: 1 when more is better, -1 when less is, 0 when it is only told."""

    key: str
    title: str
    better: int = 0
    digits: int = 2


@dataclasses.dataclass
class Context:
    """What one measurement needs beside the peer."""

    loads: loads.Loads
    account: object
    directory: str
    seconds: float
    retries: int
    may_be_busy: float  # cores that others may use before a measurement is done again
    idle_sessions: int
    proxy_cpu: int = None
    tool: str = None  # that counts system calls


class Workload:
    """measure(peer, round, context) returns figures by the keys of columns."""

    columns = ()
    remark = None  # to be read with the table
    rounds = None  # at most so many

    def __init__(self, name, title):
        self.name, self.title = name, title

    def measure(self, peer, number, context):
        raise NotImplementedError

    def count_calls(self, peer, context):
        """System calls per unit, by name, or None."""
        return None


class _Timed(Workload):
    """A load for some seconds, told as a rate and as the proxy's time per unit.

    When others used the processors meanwhile it is done again; the least disturbed one counts.
    """

    server_port = loads.ANSWERS_PORT

    def load(self, port, context, seconds):
        """Run it: (units, figures)."""
        raise NotImplementedError

    def cost(self, cpu_seconds, units):
        raise NotImplementedError

    def measure(self, peer, number, context):
        best = None
        for _ in range(1 + context.retries):
            figures = self._measure(peer, context)
            if best is None or figures["others"] < best["others"]:
                best = figures
            if best["others"] <= context.may_be_busy:
                break
        return best

    def count_calls(self, peer, context):
        with Proxy(
            peer, self.server_port, context.account, context.directory, context.proxy_cpu
        ) as proxy:
            with calls.Counter(context.tool, proxy.pids()) as counter:
                units, _ = self.load(proxy.port, context, 1)
        return {name: n / units for name, n in counter.counts.items()}

    def _measure(self, peer, context):
        account = context.account
        with Proxy(peer, self.server_port, account, context.directory, context.proxy_cpu) as proxy:
            begin, busy = time.monotonic(), machine_busy()
            cpu = proxy.cpu_seconds()
            own = account.all_seconds() if account.has_groups else 0
            units, figures = self.load(proxy.port, context, context.seconds)
            cpu = proxy.cpu_seconds() - cpu
            others = (
                machine_busy() - busy - (account.all_seconds() - own) if account.has_groups else 0
            )
        if peer.command:
            figures["cpu"] = self.cost(cpu, units)
        figures["others"] = max(0, others) / (time.monotonic() - begin)
        return figures


class Bulk(_Timed):
    columns = (
        Column("gbps", "Gbit/s", 1),
        Column("cpu", "proxy s/GB", -1, 3),
        Column("calls", "calls/MB", -1, 1),
        Column("others", "others' cores"),
    )
    server_port = loads.BULK_PORT

    def __init__(self, name, title, streams):
        super().__init__(name, title)
        self.streams = streams

    def load(self, port, context, seconds):
        received = context.loads.bulk(port, streams=self.streams, seconds=seconds)
        return received["bytes"] / 1e6, {"gbps": received["bits_per_second"] / 1e9}

    def cost(self, cpu_seconds, units):
        return cpu_seconds / (units / 1e3)


class Requests(_Timed):
    columns = (
        Column("rate", "k/s", 1, 1),
        Column("cpu", "proxy us", -1, 1),
        Column("p50", "p50 ms"),
        Column("p99", "p99 ms", -1),
        Column("calls", "calls each", -1, 1),
        Column("failed", "failed", 0, 0),
        Column("others", "others' cores"),
    )

    def __init__(self, name, title, **how):
        super().__init__(name, title)
        self.how = how

    def load(self, port, context, seconds):
        said = context.loads.requests(port, seconds=seconds, **self.how)
        if not said["total"]:
            raise Failed("no request was answered")
        return said["total"], {
            "rate": said["rate"] / 1e3,
            "p50": said["p50_us"] / 1e3,
            "p99": said["p99_us"] / 1e3,
            "failed": said["failed"],
        }

    def cost(self, cpu_seconds, units):
        return cpu_seconds * 1e6 / units


class Idle(Workload):
    """Sessions that have asked once, and then say nothing."""

    columns = (
        Column("user", "user bytes/session", -1, 0),
        Column("kernel", "kernel bytes/session", -1, 0),
        Column("sessions", "sessions", 0, 0),
    )
    rounds = 2

    def measure(self, peer, number, context):
        sessions = min(context.idle_sessions, peer.idle_limit, max_sessions())
        with Proxy(peer, loads.ANSWERS_PORT, context.account, context.directory) as proxy:
            said = context.loads.requests(proxy.port, clients=4, seconds=0.1, warm_up=0)
            if not said["total"]:
                raise Failed("no request was answered")
            time.sleep(0.5)
            user, kernel = proxy.memory(), self._slabs()
            with context.loads.idle(proxy.port, sessions, min(sessions, peer.at_once)):
                time.sleep(1)  # what was freed meanwhile goes back behind an RCU grace period
                figures = {"sessions": sessions}
                if kernel:
                    figures["kernel"] = memory.growth(kernel, self._slabs()) / sessions
                if peer.command:
                    figures["user"] = (proxy.memory() - user) / sessions
        time.sleep(0.5)
        return figures

    @staticmethod
    def _slabs():
        try:
            return memory.slabs()
        except OSError:
            return {}


class Recover(Workload):
    """Clients come while the server is down: from its listen() to the first byte of each."""

    remark = (
        "A proxy that waits for a server tries again at times of its own: HAProxy after 1 s,\n"
        "socat as configured here after 0.1 s, rediald after at most its backoff_waiting of 1 s."
    )

    columns = (
        Column("first", "first ms", 0, 1),
        Column("median", "median ms", -1, 1),
        Column("last", "last ms", -1, 1),
        Column("failed", "failed", 0, 0),
    )

    def __init__(self, name, title, clients):
        super().__init__(name, title)
        self.clients = clients

    def measure(self, peer, number, context):
        # Peers try again at times of their own: no round meets all of them at the same one.
        outage = 2 + number * 0.37 % 1
        with Proxy(peer, loads.RECOVER_PORT, context.account, context.directory) as proxy:
            said = context.loads.recover(proxy.port, clients=self.clients, outage=outage)
        if not said["total"]:
            raise Failed(f"{said['failed']} of {self.clients} clients failed, and none was served")
        return {
            "first": said["min_us"] / 1e3,
            "median": said["p50_us"] / 1e3,
            "last": said["max_us"] / 1e3,
            "failed": self.clients - said["total"],
        }


ALL = [
    Bulk("bulk1", "bulk, 1 stream (iperf3)", 1),
    Bulk("bulk8", "bulk, 8 streams (iperf3)", 8),
    Requests("rr64", "64 connections, requests of 64 B, answers of 64 B"),
    Requests("rr16k", "64 connections, requests of 64 B, answers of 16 kB", answer=16384),
    Requests("rr64k", "64 connections, requests of 64 B, answers of 64 kB", answer=65536),
    Requests("crr", "64 clients, a new connection for each request of 64 B", new_connections=True),
    Idle("idle", "idle sessions"),
    Recover(
        "recover1",
        "recovery, 1 client waits: from the server's listen() to the client's first byte",
        1,
    ),
    Recover("recover500", "recovery, 500 clients wait", 500),
]
