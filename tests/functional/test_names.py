# SPDX-License-Identifier: MIT
"""Servers by name: looked up without waiting, kept fresh, and dialled address by address."""

import contextlib
import os
import signal
import resource
import socket
import subprocess
import sys
import time

import pytest

from deadline import deadline, eventually, pass_time
from dnsserver import A, AAAA, NOTIMP, NXDOMAIN, REFUSED, SERVFAIL, DnsServer
from netns import SynCounter
from servers import Server, echo, hang_up, line_echo
from sockets import (ask, close_reset, connected, crowd, fate, is_refused, recv_exactly,
                     recv_until_end)

HERE = os.path.dirname(os.path.abspath(__file__))
PORT = 8000
NAME = "db.test"
LISTEN = "127.0.0.1:7000"


class Files:
    """The daemon's own resolv.conf and hosts, which a test may write again."""

    def __init__(self, directory):
        self._resolv_conf = directory / "resolv.conf"
        self._hosts = directory / "hosts"
        self.resolv_conf("nameserver 127.0.0.1")
        self.hosts("127.0.0.1 localhost")
        for target in "/etc/resolv.conf", "/etc/hosts":
            if not os.path.exists(target):
                pytest.skip(f"there is no {target} to be stood in for")
        self.prefix = (sys.executable, os.path.join(HERE, "ownfiles.py"),
                       f"{self._resolv_conf}=/etc/resolv.conf", f"{self._hosts}=/etc/hosts", "--")

    def resolv_conf(self, *lines):
        self._resolv_conf.write_text("\n".join(lines) + "\n")

    def hosts(self, *lines):
        self._hosts.write_text("\n".join(lines) + "\n")


@pytest.fixture
def files(tmp_path):
    return Files(tmp_path)


@pytest.fixture
def dns():
    with DnsServer() as server:
        yield server


@pytest.fixture(params=[1, 4], ids=["1 worker", "4 workers"])
def workers(request):
    return request.param


@pytest.fixture
def start(rediald, files):
    """start(more="", server=..., workers=None): a daemon with one proxy before one server."""
    def start(more="", server=f"{NAME}:{PORT}", workers=None, listen=LISTEN, log_level="debug",
              **kwargs):
        keys = f"log_level = {log_level}\n" + (f"workers = {workers}" if workers else "")
        return rediald(f"[proxy web]\nlisten = {listen}\nserver = {server}\n{more}\n",
                       daemon_keys=keys, prefix=files.prefix, **kwargs)
    return start


def who_serves(address=LISTEN):
    with connected(address) as client:
        client.sendall(b"hello\n")
        with client.makefile("rb") as lines:
            return lines.readline().split(b" ")[0].decode()


def served(count=1):
    """Who serves so many clients at a time: of some workers each has one."""
    return set(crowd(count, lambda _n: who_serves(), width=16))


def gaps(queries):
    times = [q.at for q in queries]
    return [b - a for a, b in zip(times, times[1:])]


# Found

def test_server_is_found_by_its_name(start, dns, serve, workers):
    dns.set(NAME, "127.0.0.2")
    serve(line_echo(b"a"), f"127.0.0.2:{PORT}")
    daemon = start(workers=workers)
    daemon.wait_event("server_up", upstream="web", server=f"{NAME}:{PORT}")
    assert served(32) == {"a"}
    found = daemon.wait_event("server_addresses", server=f"{NAME}:{PORT}")
    assert found["addresses"] == f"127.0.0.2:{PORT}"
    assert found.level == "info"
    assert daemon.session()["server"] == f"{NAME}:{PORT}"
    assert not daemon.events("server_down")
    assert not daemon.events("server_addresses_changed")
    # One worker asks for all.
    assert len(dns.queries(NAME, A)) <= 1 + int(time.monotonic() - dns.queries()[0].at)


def test_literal_address_asks_nobody(start, dns, serve):
    server = serve(echo)
    daemon = start(server=server.address)
    daemon.wait_event("server_up")
    assert ask(LISTEN, b"hello") == b"hello"
    assert dns.queries() == []


@pytest.mark.parametrize("name", ["db", "db.test", "db.test."])
def test_search_domains_are_tried(start, dns, serve, files, name):
    files.resolv_conf("nameserver 127.0.0.1", "search nosuch.test test")
    dns.set(NAME, "127.0.0.2")
    serve(line_echo(b"a"), f"127.0.0.2:{PORT}")
    start(server=f"{name}:{PORT}").wait_event("server_up", server=f"{name}:{PORT}")
    assert who_serves() == "a"


@pytest.mark.parametrize("name,line", [("db.test", "127.0.0.2 db.test other"),
                                       ("other", "127.0.0.2 db.test other"),
                                       ("ip6", "::1 ip6"),
                                       ("localhost", "127.0.0.1 localhost")])
def test_hosts_file_comes_first(start, dns, files, serve, name, line):
    dns.set(NAME, "127.0.0.3")
    files.hosts(line)
    where = line.split()[0]
    serve(line_echo(b"a"), f"[{where}]:{PORT}" if ":" in where else f"{where}:{PORT}")
    start(server=f"{name}:{PORT}").wait_event("server_up")
    assert who_serves() == "a"
    assert dns.queries(name) == []


def test_hosts_file_is_read_again_after_resolve_max(start, files, serve):
    files.hosts(f"127.0.0.2 {NAME}")
    serve(line_echo(b"a"), f"127.0.0.2:{PORT}")
    serve(line_echo(b"b"), f"127.0.0.3:{PORT}")
    daemon = start("resolve_max = 2s")
    daemon.wait_event("server_up")
    began = time.monotonic()
    files.hosts(f"127.0.0.3 {NAME}")
    daemon.wait_event("server_addresses_changed", addresses=f"127.0.0.3:{PORT}")
    assert time.monotonic() - began > 1.5
    eventually(lambda: who_serves() == "b")


def test_resolv_conf_is_read_again_when_it_has_changed(start, dns, files, serve):
    dns.set(NAME, "127.0.0.2")
    serve(line_echo(b"a"), f"127.0.0.2:{PORT}")
    serve(line_echo(b"b"), f"127.0.0.3:{PORT}")
    daemon = start()
    daemon.wait_event("server_up")
    with DnsServer("127.0.0.53") as other:
        other.set(NAME, "127.0.0.3")
        dns.set(NAME, silent=True)  # a lookup may be under way with the old one
        files.resolv_conf("nameserver 127.0.0.53")
        daemon.wait_event("server_addresses_changed", timeout=15, addresses=f"127.0.0.3:{PORT}")
        asked = len(dns.queries())
        other.wait_queries(4, NAME, A)
        assert len(dns.queries()) == asked
    eventually(lambda: who_serves() == "b")


# Fresh

@pytest.mark.parametrize("ttl,keys,least,most", [
    (0, "", 1, 1.5), (1, "", 1, 1.5), (2, "", 2, 2.5), (0, "resolve_min = 2s", 2, 2.5),
    (3600, "resolve_max = 1s", 1, 1.5),
], ids=str)
def test_name_is_looked_up_when_the_ttl_ends(start, dns, serve, ttl, keys, least, most):
    dns.set(NAME, "127.0.0.2", ttl=ttl)
    serve(echo, f"127.0.0.2:{PORT}")
    daemon = start(keys)
    daemon.wait_event("server_up")
    found = gaps(dns.wait_queries(3, NAME, A))
    assert all(gap > least - 0.05 for gap in found), found
    assert min(found) < deadline(most), found


def test_shortest_ttl_of_a_chain_counts(start, dns, serve):
    dns.set(NAME, cname="real.test", ttl=1)
    dns.set("real.test", "127.0.0.2", ttl=3600)
    serve(echo, f"127.0.0.2:{PORT}")
    start().wait_event("server_up")
    dns.wait_queries(3, NAME, A)


def test_changed_answer_is_logged_once_and_sessions_go_on(start, dns, serve, connect, workers):
    dns.set(NAME, "127.0.0.2")
    serve(line_echo(b"a"), f"127.0.0.2:{PORT}")
    serve(line_echo(b"b"), f"127.0.0.3:{PORT}")
    daemon = start(workers=workers)
    daemon.wait_event("server_up")
    client = connect(LISTEN)
    client.sendall(b"1\n")
    assert recv_exactly(client, 4) == b"a 1\n"
    dns.set(NAME, "127.0.0.3", "127.0.0.4")
    changed = daemon.wait_event("server_addresses_changed", upstream="web")
    assert changed.level == "notice"
    assert set(changed["addresses"].split(",")) == {f"127.0.0.3:{PORT}", f"127.0.0.4:{PORT}"}
    # The other workers hear of it a moment later.
    eventually(lambda: served(32) == {"b"})
    client.sendall(b"2\n")
    assert recv_exactly(client, 4) == b"a 2\n"
    assert len(daemon.events("server_addresses_changed")) == 1
    assert not daemon.events("server_down")


def test_another_order_is_no_change(start, dns, serve):
    serve(echo, f"127.0.0.2:{PORT}")
    dns.set(NAME, "127.0.0.2", "127.0.0.3")
    daemon = start()
    daemon.wait_event("server_up")
    dns.set(NAME, "127.0.0.3", "127.0.0.2")
    dns.wait_queries(len(dns.queries(NAME, A)) + 2, NAME, A)
    assert not daemon.events("server_addresses_changed")


def test_name_that_fails_keeps_its_addresses(start, dns, serve, workers):
    dns.set(NAME, "127.0.0.2")
    serve(line_echo(b"a"), f"127.0.0.2:{PORT}")
    daemon = start("resolve_max = 1s", workers=workers)
    daemon.wait_event("server_up")
    dns.forget(NAME)
    failed = daemon.wait_event("lookup_failed", upstream="web", host=NAME, addresses=1)
    assert failed.level == "warning" and failed["error"]
    dns.wait_queries(len(dns.queries(NAME, A)) + 2, NAME, A)
    assert served(16) == {"a"}
    assert not daemon.events("server_down")
    assert len(daemon.events("lookup_failed")) == 1
    dns.set(NAME, "127.0.0.2")
    daemon.wait_event("lookup_recovered", host=NAME)
    assert not daemon.events("server_addresses_changed")


def test_pauses_between_failing_lookups_grow(start, dns, serve):
    dns.set(NAME, "127.0.0.2")
    serve(echo, f"127.0.0.2:{PORT}")
    daemon = start()
    daemon.wait_event("server_up")
    dns.forget(NAME)
    daemon.wait_event("lookup_failed")
    seen = len(dns.queries(NAME, A))
    found = gaps(dns.wait_queries(seen + 2, NAME, A)[seen - 1:])
    assert found[0] > 0.95 and found[1] > 1.95, found


# Not found

def test_name_not_known_at_the_start_is_a_server_that_is_down(start, dns, serve, workers):
    serve(line_echo(b"a"), f"127.0.0.2:{PORT}")
    daemon = start(workers=workers)
    down = daemon.wait_event("server_down", server=f"{NAME}:{PORT}", reason="unresolved")
    assert down.level == "warning"
    daemon.wait_event("lookup_failed", addresses=0)
    with connected(LISTEN) as client:
        client.sendall(b"hello\n")
        seen = len(dns.queries(NAME, A))
        dns.wait_queries(seen + 1, NAME, A)
        dns.set(NAME, "127.0.0.2")
        assert recv_exactly(client, 8) == b"a hello\n"
    daemon.wait_event("server_up")
    assert served(16) == {"a"}
    assert all(gap > 0.95 for gap in gaps(dns.queries(NAME, A))), dns.queries(NAME, A)


def test_client_before_a_name_not_known_is_held_for_wait_timeout(start, dns):
    daemon = start("wait_timeout = 1s")
    daemon.wait_event("server_down", reason="unresolved")
    assert fate(LISTEN) == (b"", "reset")
    daemon.session(reason="wait_timeout")
    assert dns.queries(NAME)


FAULTS = {
    "NXDOMAIN": {"rcode": NXDOMAIN},
    "SERVFAIL": {"rcode": SERVFAIL},
    "REFUSED": {"rcode": REFUSED},
    "NOTIMP": {"rcode": NOTIMP},
    "empty": {},
    "CNAME to nothing": {"cname": "nosuch.test"},
    "CNAME to itself": {"cname": NAME},
    "header alone": {"garbage": b"\x85\x80\0\1\0\1\0\0\0\0"},
    "two bytes": {"garbage": b""},
    "another question": {"garbage": b"\x85\x80\0\1\0\1\0\0\0\0\1x\0\0\1\0\1\1x\0\0\1\0\1\0\0\0\1\0\4\x7f\0\0\2"},
    "pointer to itself": {"garbage": b"\x85\x80\0\1\0\1\0\0\0\0\xc0\x0c\0\1\0\1"},
    "noise": {"garbage": bytes(range(256))},
    "cut": {"garbage": b"\x85\x80\0\1\0\1\0\0\0\0\2db\4test\0\0\1\0\1\xc0\x0c\0\1\0\1\0\0\0\1\0\4\x7f"},
    "silence": {"silent": True},
    "no host": {"addrs": ("0.0.0.0", "::")},
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
def test_bad_answer_is_a_failed_lookup(start, dns, serve, fault):
    serve(line_echo(b"a"), f"127.0.0.2:{PORT}")
    entry = dict(fault)
    dns.set(NAME, *entry.pop("addrs", ()), **entry)
    with SynCounter(PORT) as syns:
        daemon = start("connect_timeout = 1s")
        daemon.wait_event("server_down", reason="unresolved")
        daemon.wait_event("lookup_failed", timeout=20, host=NAME)
        assert syns.count == 0
    dns.set(NAME, "127.0.0.2")
    daemon.wait_event("server_up", timeout=20)
    assert who_serves() == "a"


def test_no_name_server_at_all(start, serve):
    serve(echo, f"127.0.0.2:{PORT}")
    daemon = start()
    daemon.wait_event("server_down", reason="unresolved")
    daemon.wait_event("lookup_failed")
    with DnsServer() as dns:
        dns.set(NAME, "127.0.0.2")
        daemon.wait_event("server_up", timeout=10)


def test_silence_holds_nobody_else_up(rediald, files, dns, serve):
    dns.set(NAME, silent=True)
    server = serve(echo)
    daemon = rediald(f"[proxy slow]\nlisten = 127.0.0.1:9001\nserver = {NAME}:{PORT}\n"
                     f"connect_timeout = 500ms\n"
                     f"[proxy web]\nlisten = {LISTEN}\nserver = {server.address}\n",
                     daemon_keys="workers = 1", prefix=files.prefix)
    daemon.wait_event("server_up", upstream="web")
    dns.wait_queries(1, NAME)
    for _ in range(20):
        began = time.monotonic()
        assert ask(LISTEN, b"hello") == b"hello"
        assert time.monotonic() - began < deadline(1)
    daemon.wait_event("server_down", upstream="slow", reason="unresolved")
    daemon.terminate(descriptors=False)  # in the midst of a lookup


def test_silence_about_one_family_leaves_the_other(start, dns, serve):
    dns.set(NAME, "127.0.0.2", silent_types=(AAAA,), ttl=3600)
    serve(line_echo(b"a"), f"127.0.0.2:{PORT}")
    start().wait_event("server_up", timeout=20)
    assert who_serves() == "a"


@pytest.mark.parametrize("good,addr,bad", [(A, "127.0.0.2", AAAA), (AAAA, "::1", A)],
                         ids=["ipv4", "ipv6"])
def test_bad_answer_about_one_family_leaves_the_other(start, dns, serve, good, addr, bad):
    dns.set(NAME, addr, cut_types=(bad,), ttl=3600)
    serve(line_echo(b"a"), f"[{addr}]:{PORT}" if good == AAAA else f"{addr}:{PORT}")
    daemon = start()
    daemon.wait_event("server_up")
    assert who_serves() == "a"
    assert not daemon.events("lookup_failed")


def test_resolv_conf_that_cannot_be_opened_now_is_read_later(start, dns, files, serve):
    dns.set(NAME, "127.0.0.2")
    serve(line_echo(b"a"), f"127.0.0.2:{PORT}")
    serve(line_echo(b"b"), f"127.0.0.3:{PORT}")
    daemon = start()
    daemon.wait_event("server_up")
    with DnsServer("127.0.0.53") as other:
        other.set(NAME, "127.0.0.3")
        # No descriptor is left for the file, nor for a query.
        limit = resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, (3, limit[1]))
        files.resolv_conf("nameserver 127.0.0.53")
        daemon.wait_event("lookup_failed")
        resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, limit)
        daemon.wait_event("server_addresses_changed", timeout=10, addresses=f"127.0.0.3:{PORT}")


def test_silent_name_server_is_passed_over(start, dns, files, serve):
    files.resolv_conf("nameserver 127.0.0.53", "nameserver 127.0.0.1")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.53", 53))
        dns.set(NAME, "127.0.0.2")
        serve(echo, f"127.0.0.2:{PORT}")
        start().wait_event("server_up", timeout=10)


# When a dial fails

def test_failed_dial_looks_the_name_up_at_once(start, dns, serve, workers):
    dns.set(NAME, "127.0.0.2", ttl=3600)
    old = serve(line_echo(b"a"), f"127.0.0.2:{PORT}")
    daemon = start("resolve_max = 1h", workers=workers)
    daemon.wait_event("server_up")
    assert served(16) == {"a"}
    old.kill()
    serve(line_echo(b"b"), f"127.0.0.3:{PORT}")
    dns.set(NAME, "127.0.0.3", ttl=3600)
    assert served(16) == {"b"}
    daemon.wait_event("server_addresses_changed", addresses=f"127.0.0.3:{PORT}")


def test_failing_dials_look_up_once_in_a_second(start, dns, workers):
    dns.set(NAME, "127.0.0.2", ttl=3600)
    daemon = start("resolve_max = 1h\nbackoff_min = 10ms\nbackoff_max = 20ms", workers=workers)
    daemon.wait_event("server_down", reason="refused")
    with connected(LISTEN) as client:
        found = gaps(dns.wait_queries(4, NAME, A))
        close_reset(client)  # or it would wait on, for all that can be told
    assert all(gap > 0.95 for gap in found), found
    assert min(found) < deadline(1.5), found


def test_new_address_is_dialled_without_a_pause(start, dns, serve):
    dns.set(NAME, "127.0.0.2")
    daemon = start("backoff_min = 1h\nbackoff_max = 1h\nbackoff_waiting = 1h")
    daemon.wait_event("server_down", reason="refused")
    serve(echo, f"127.0.0.3:{PORT}")
    dns.set(NAME, "127.0.0.3")
    daemon.wait_event("server_up")


def test_connections_kept_to_an_address_that_is_gone_are_let_go_with_a_fin(start, dns, serve,
                                                                           workers):
    ends = []
    dns.set(NAME, "127.0.0.2")
    old = serve(lambda sock: ends.append(recv_until_end(sock)), f"127.0.0.2:{PORT}")
    new = serve(line_echo(b"b"), f"127.0.0.3:{PORT}")
    daemon = start("standby = 2", workers=workers)
    old.wait_accepted(2)
    dns.set(NAME, "127.0.0.3")
    daemon.wait_event("server_addresses_changed", addresses=f"127.0.0.3:{PORT}")
    new.wait_accepted(2)
    old.wait_live(0)
    assert len(ends) >= 2 and set(ends) == {(b"", "eof")}, ends
    assert not daemon.events("server_down")
    assert who_serves() == "b"


def test_probe_that_was_held_is_not_kept_for_an_address_that_is_gone(start, dns, serve):
    # What is hung up on three times is held for a second before it is believed.
    dns.set(NAME, "127.0.0.2")
    with Server(f"127.0.0.2:{PORT}", hang_up) as bad:
        daemon = start("standby = 1\nbackoff_max = 100ms", workers=1)
        daemon.wait_event("server_down", reason="hung_up")
        bad.close()
        old = serve(line_echo(b"a"), bad.address)
        serve(line_echo(b"b"), f"127.0.0.3:{PORT}")
        old.wait_accepted(1)
        dns.set(NAME, "127.0.0.3")
        daemon.wait_event("server_addresses_changed", addresses=f"127.0.0.3:{PORT}")
    daemon.wait_event("server_up", count=2)
    assert who_serves() == "b"
    old.wait_live(0)


# Several addresses

def test_next_address_is_dialled_when_one_refuses(start, dns, serve, workers):
    dns.set(NAME, "127.0.0.1", "127.0.0.2")
    serve(line_echo(b"b"), f"127.0.0.2:{PORT}")
    daemon = start(workers=workers)
    daemon.wait_event("server_up")
    assert served(32) == {"b"}
    assert not daemon.events("server_down")
    failed = daemon.wait_event("dial_failed", server=f"{NAME}:{PORT}", reason="refused")
    assert failed["address"] == f"127.0.0.1:{PORT}" and failed.level == "debug"


@contextlib.contextmanager
def silent_listener(address):
    """Accepts nothing, and its backlog is full: the SYNs of others are dropped."""
    host, _, port = address.rpartition(":")
    with contextlib.ExitStack() as stack:
        sock = stack.enter_context(socket.socket())
        sock.bind((host, int(port)))
        sock.listen(0)
        for _ in range(3):
            client = stack.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex((host, int(port)))
        yield


def test_silent_address_does_not_use_up_the_time(start, dns, serve):
    dns.set(NAME, "127.0.0.1", "127.0.0.2", "127.0.0.3")
    serve(line_echo(b"c"), f"127.0.0.3:{PORT}")
    with silent_listener(f"127.0.0.1:{PORT}"), silent_listener(f"127.0.0.2:{PORT}"):
        began = time.monotonic()
        daemon = start("connect_timeout = 3s")
        daemon.wait_event("server_up", timeout=10)
        assert 1.5 < time.monotonic() - began < deadline(3)
        assert len(daemon.events("dial_failed", reason="timeout")) == 2
        assert not daemon.events("server_down")


def test_all_addresses_share_connect_timeout(start, dns):
    dns.set(NAME, "127.0.0.1", "127.0.0.2", ttl=3600)
    with silent_listener(f"127.0.0.1:{PORT}"), silent_listener(f"127.0.0.2:{PORT}"):
        began = time.monotonic()
        daemon = start("connect_timeout = 1s")
        daemon.wait_event("server_down", reason="timeout", timeout=10)
        # Two dials: the first, and the immediate retry.
        assert 1.9 < time.monotonic() - began < deadline(4)


def test_ipv6_comes_before_ipv4(start, dns, serve):
    dns.set(NAME, "127.0.0.1", "::1")
    serve(line_echo(b"six"), f"[::1]:{PORT}")
    four = serve(line_echo(b"four"), f"127.0.0.1:{PORT}")
    daemon = start()
    found = daemon.wait_event("server_addresses")
    assert found["addresses"] == f"[::1]:{PORT},127.0.0.1:{PORT}"
    daemon.wait_event("server_up")
    assert served(4) == {"six"}
    assert four.accepted == 0


def test_ipv6_alone(start, dns, serve):
    dns.set(NAME, "::1")
    serve(line_echo(b"six"), f"[::1]:{PORT}")
    start().wait_event("server_up")
    assert who_serves() == "six"


def test_source_address_decides_about_the_family(start, dns, serve):
    dns.set(NAME, "::1", "127.0.0.2")
    serve(line_echo(b"four"), f"127.0.0.2:{PORT}")
    start("source = 127.0.0.9").wait_event("server_up")
    assert who_serves() == "four"
    assert dns.queries(NAME, AAAA) == []


def test_truncated_answer_is_asked_for_over_tcp(start, dns, serve):
    dns.set(NAME, "127.0.0.2", truncated=True)
    serve(line_echo(b"a"), f"127.0.0.2:{PORT}")
    start().wait_event("server_up")
    assert who_serves() == "a"
    assert any(q.tcp for q in dns.queries(NAME, A))


def test_no_more_than_sixteen_addresses_are_kept(start, dns, serve):
    addrs = [f"127.0.1.{n}" for n in range(1, 101)]
    for addr in addrs:
        serve(echo, f"{addr}:{PORT}")
    dns.set(NAME, *addrs)
    daemon = start()
    found = daemon.wait_event("server_addresses")["addresses"].split(",")
    assert len(set(found)) == 16
    daemon.wait_event("server_up")
    # The rest in another order: those that were kept are still there.
    dns.set(NAME, *addrs[:40][::-1])
    dns.wait_queries(len(dns.queries(NAME, A)) + 4, NAME, A)
    assert not daemon.events("server_addresses_changed")


# The guard

def test_name_that_leads_back_is_not_dialled(start, dns, workers):
    dns.set(NAME, "127.0.0.1")
    with SynCounter(7000) as syns:
        daemon = start("wait_timeout = 1s", server=f"{NAME}:7000", listen="127.0.0.1:7000",
                       workers=workers)
        daemon.wait_event("server_down", reason="loop")
        loop = daemon.wait_event("loop", server=f"{NAME}:7000")
        assert loop["address"] == "127.0.0.1:7000"
        assert syns.count == 0


def test_name_on_another_address_of_this_host_is_dialled(start, dns, serve):
    dns.set(NAME, "127.0.0.2")
    serve(line_echo(b"a"), "127.0.0.2:7000")
    start(server=f"{NAME}:7000", listen="127.0.0.1:7000").wait_event("server_up")
    assert who_serves() == "a"


def test_wildcard_listener_is_led_back_to_from_each_address(start, dns):
    subprocess.run(["ip", "address", "add", "10.9.9.9/32", "dev", "lo"], check=True)
    dns.set(NAME, "10.9.9.9")
    daemon = start(server=f"{NAME}:7000", listen="*:7000")
    daemon.wait_event("server_down", reason="loop")


def test_address_that_leads_back_is_passed_over(start, dns, serve):
    dns.set(NAME, "127.0.0.1", "127.0.0.2")
    serve(line_echo(b"a"), "127.0.0.2:7000")
    daemon = start(server=f"{NAME}:7000", listen="127.0.0.1:7000")
    daemon.wait_event("server_up")
    assert who_serves() == "a"
    daemon.wait_event("dial_failed", address="127.0.0.1:7000", reason="loop")


def test_loop_of_two_proxies_by_name_is_refused(rediald, files, dns):
    dns.set(NAME, "127.0.0.1")
    daemon = rediald(f"[proxy a]\nlisten = 127.0.0.1:7000\nserver = {NAME}:7001\n"
                     f"[proxy b]\nlisten = 127.0.0.1:7001\nserver = {NAME}:7000\n",
                     prefix=files.prefix)
    daemon.wait_event("server_down", upstream="a", reason="loop")
    daemon.wait_event("server_down", upstream="b", reason="loop")


def test_chain_of_proxies_by_name_serves(rediald, files, dns, serve):
    dns.set(NAME, "127.0.0.1")
    server = serve(line_echo(b"end"))
    daemon = rediald(f"[proxy a]\nlisten = 127.0.0.1:7000\nserver = {NAME}:9001\n"
                     f"[proxy b]\nlisten = 127.0.0.1:9001\nserver = {server.address}\n",
                     prefix=files.prefix)
    daemon.wait_event("server_up", upstream="a")
    assert who_serves() == "end"
    daemon.standby = 4  # what one keeps ready is a session of the next, with two ends


def test_self_connection_of_a_name_is_told(start, dns, files):
    # One port for all: the dial gets it, and meets itself. The name comes from a file, as no query can be sent.
    files.hosts(f"127.0.0.1 {NAME}")
    with open("/proc/sys/net/ipv4/ip_local_port_range", "w", encoding="ascii") as f:
        f.write("40000 40000")
    daemon = start(server=f"{NAME}:40000")
    daemon.wait_event("server_down", reason="self_connect")
    daemon.wait_event("self_connect", server=f"{NAME}:40000")
    assert dns.queries(NAME) == []


# With the rest

def test_proxy_header_goes_to_a_server_by_name(start, dns, serve):
    dns.set(NAME, "127.0.0.2")
    serve(echo, f"127.0.0.2:{PORT}")
    start("send_proxy = v1").wait_event("server_up")
    with connected(LISTEN) as client:
        where = client.getsockname()
        client.sendall(b"x")
        expected = f"PROXY TCP4 127.0.0.1 127.0.0.1 {where[1]} 7000\r\nx".encode()
        assert recv_exactly(client, len(expected)) == expected


def test_source_hash_goes_by_the_name_not_by_the_address(rediald, files, dns):
    names = [f"s{n}.test" for n in range(4)]
    servers = {}
    with contextlib.ExitStack() as stack:
        for n, name in enumerate(names):
            for net in 2, 3:
                address = f"127.0.{net}.{n + 1}:{PORT}"
                servers[address] = stack.enter_context(Server(address, line_echo(name.encode())))
            dns.set(name, f"127.0.2.{n + 1}")
        lines = "\n".join(f"server = {name}:{PORT}" for name in names)
        daemon = rediald(f"[proxy web]\nlisten = {LISTEN}\n{lines}\nbalance = source_hash\n",
                         prefix=files.prefix)
        daemon.wait_event("server_up", count=4)

        def owner(n):
            with connected(LISTEN, source=(f"127.0.5.{n + 1}", 0)) as client:
                client.sendall(b"x\n")
                with client.makefile("rb") as answer:
                    return answer.readline()
        before = crowd(20, owner)
        for n, name in enumerate(names):
            dns.set(name, f"127.0.3.{n + 1}")
        daemon.wait_event("server_addresses_changed", count=4)
        assert crowd(20, owner) == before
    assert len(set(before)) > 1


def test_many_names(rediald, files, dns, workers):
    names = [f"s{n}.test" for n in range(100)]
    for n, name in enumerate(names):
        dns.set(name, f"127.0.4.{n + 1}", ttl=3600)
    with contextlib.ExitStack() as stack:
        for n in range(len(names)):
            stack.enter_context(Server(f"127.0.4.{n + 1}:{PORT}", line_echo(b"%d" % n)))
        lines = "\n".join(f"server = {name}:{PORT}" for name in names)
        daemon = rediald(f"[proxy web]\nlisten = {LISTEN}\n{lines}\n",
                         daemon_keys=f"workers = {workers}", prefix=files.prefix)
        daemon.wait_event("server_up", count=100, timeout=20)
        assert len(served(300)) > 50
    # Each is asked for by one worker, once; where this machine is slow, once more.
    asked = [query.name for query in dns.queries(kind=A)]
    assert max(map(asked.count, asked)) <= 2 and len(set(asked)) == 100


@pytest.mark.parametrize("policy,how", [("reset", "reset"), ("unlisten", "refused")])
def test_when_down_is_kept_while_a_name_is_not_known(start, dns, policy, how):
    daemon = start(f"when_down = {policy}")
    daemon.wait_event("server_down", reason="unresolved")
    if how == "refused":
        eventually(lambda: is_refused(LISTEN))
    else:
        assert fate(LISTEN) == (b"", "reset")
        daemon.session(reason="no_server")
    assert dns.queries(NAME)


def test_sockets_of_lookups_do_not_stay(start, dns, serve):
    dns.set(NAME, "127.0.0.2", ttl=3600)
    serve(echo, f"127.0.0.2:{PORT}")
    daemon = start("resolve_max = 1h")
    daemon.wait_event("server_up")
    daemon.wait_descriptors_back()
    pass_time(0.1)
    assert dns.queries(NAME)


def test_reload_hurries_lookups_that_are_too_far_off(start, dns, serve, tmp_path):
    """The answer was good for an hour; resolve_max was one, too, and is a second now."""
    dns.set(NAME, "127.0.0.2", ttl=3600)
    for name, host in (b"a", 2), (b"b", 3):
        serve(line_echo(name), f"127.0.0.{host}:{PORT}")
    daemon = start("resolve_max = 1h")
    daemon.wait_event("server_up")
    assert served() == {"a"}
    dns.set(NAME, "127.0.0.3", ttl=3600)
    path = tmp_path / "rediald-0.conf"
    path.write_text(path.read_text().replace("resolve_max = 1h", "resolve_max = 1s"))
    daemon.signal(signal.SIGHUP)
    daemon.wait_event("server_addresses_changed")
    assert served() == {"b"}
