# SPDX-License-Identifier: MIT
"""A daemon's admin interface without a daemon: what a test wants redialctl to see.

As a program: fakeadmin.py ADDRESS serves an example until it is ended, for a look at redialctl by hand.
"""

import contextlib
import copy
import json
import socket
import sys
import threading
import time
import urllib.parse

from sockets import listening

STARTED = 1764190000.125


def server(name, **more):
    """One server of an upstream."""
    document = {
        "name": name, "address": name, "addresses": [name], "weight": 1, "backup": False,
        "state": "up", "enabled": True, "since": STARTED + 1, "reason": None, "retry_in_ms": None,
        "sessions": {"active": 0, "max": None, "total": 0},
        "bytes": {"to_server": 0, "to_client": 0},
        "standby": {"idle": 1, "wanted": 1, "used": 0},
        "dials": {"ok": 1}, "self_connects": 0}
    return {**document, **more}


def upstream(name, servers, **more):
    """One upstream."""
    document = {"name": name, "balance": "round_robin", "when_down": "wait", "waiting": 0,
                "max_waiting": 1024, "servers": servers}
    return {**document, **more}


def proxy(name, addresses, **more):
    """One proxy."""
    document = {
        "name": name, "upstream": name,
        "listens": [{"address": a, "in_ephemeral_range": False} for a in addresses],
        "sessions": {"active": 0, "max": None, "total": 0, "ended": {}},
        "bytes": {"to_server": 0, "to_client": 0}}
    return {**document, **more}


def status(proxies, upstreams, **more):
    """The document of /status."""
    document = {
        "schema": 1, "version": "0.1.0", "pid": 4711, "started_at": STARTED,
        "now": STARTED + 5000, "phase": "serving", "workers": 2,
        "config": {"files": ["/etc/redial/rediald.conf"], "loaded_at": STARTED,
                   "reloads_ok": 0, "reloads_failed": 0, "last_reload": None},
        "sessions": {"active": 0, "waiting": 0, "max": 4000},
        "self_connects": 0, "log_dropped": 0,
        "proxies": proxies, "upstreams": upstreams, "events": []}
    return {**document, **more}


def session(client, **more):
    """One session of the document of /sessions."""
    document = {"id": 1, "proxy": "web", "client": client, "upstream": "web", "server": "127.0.0.1:8000",
                "state": "relaying", "age_ms": 1200, "idle_ms": 10,
                "bytes_to_server": 0, "bytes_to_client": 0}
    return {**document, **more}


def sessions(items, **more):
    """The document of /sessions."""
    return {"schema": 1, "pid": 4711, "started_at": STARTED, "now": STARTED + 5000,
            "truncated": False, "left_out": 0, "sessions": items, **more}


def example():
    """Something of everything."""
    db = [server("db1.internal:5432", state="down", reason="refused", retry_in_ms=740,
                 since=STARTED + 4988, address="10.0.0.7:5432", addresses=["10.0.0.7:5432"],
                 standby={"idle": 0, "wanted": 0, "used": 17}, self_connects=7),
          server("db2.internal:5432", weight=2, since=STARTED + 4700, enabled=False,
                 address="10.0.0.8:5432", addresses=["10.0.0.8:5432", "10.0.1.8:5432"],
                 sessions={"active": 3, "max": None, "total": 40}),
          server("db3.internal:5432", backup=True, since=STARTED + 4988, state="dialing",
                 address="10.0.0.9:5432", addresses=["10.0.0.9:5432"],
                 standby={"idle": 0, "wanted": 0, "used": 0})]
    listens = [{"address": "127.0.0.1:40000", "in_ephemeral_range": True},
               {"address": "unix:/run/redial/pg.sock", "in_ephemeral_range": False}]
    return status(
        [proxy("web", ["127.0.0.1:7000"],
               sessions={"active": 9, "max": None, "total": 1234, "ended": {"client_closed": 1225}},
               bytes={"to_server": 5_000_000, "to_client": 950_000_000}),
         proxy("postgres", [], upstream="db", listens=listens,
               sessions={"active": 6, "max": 100, "total": 77,
                         "ended": {"client_closed": 66, "no_server": 2, "wait_timeout": 3}},
               bytes={"to_server": 70_000, "to_client": 1_200_000})],
        [upstream("web", [server("127.0.0.1:8000", sessions={"active": 9, "max": None, "total": 1234},
                                 bytes={"to_server": 5_000_000, "to_client": 950_000_000},
                                 standby={"idle": 1, "wanted": 1, "used": 300})]),
         upstream("db", db, waiting=3)],
        sessions={"active": 15, "waiting": 3, "max": 4000}, self_connects=7,
        events=[{"at": STARTED + 4988 + i, "level": level, "event": "x", "message": message}
                for i, (level, message) in enumerate([
                    ("notice", "upstream db: server db1.internal:5432 is down: refused"),
                    ("warning", "upstream db: a connection to db1.internal:5432 was its own peer"),
                    ("notice", "upstream db: server db2.internal:5432 was disabled by hand"),
                    ("error", "the configuration was not reloaded")])])


class FakeAdmin:
    """Serves documents over HTTP on a UNIX or TCP address, one thread for each connection.

    documents maps "/status" and "/sessions" to a list of documents, of which the last is given again and again.
    answers maps "METHOD /path?query" to (status, body); all else is 404. requests has every request line.
    """

    def __init__(self, address, documents=None, answers=None):
        self.address = address
        self.requests = []
        self.documents = {path: list(docs) for path, docs in (documents or {}).items()}
        self.answers = dict(answers or {})
        self._live = set()
        self._sock = listening(address)
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def close(self):
        """As when the daemon ends: nobody listens, and connections are over."""
        if self._sock:
            with contextlib.suppress(OSError):
                self._sock.shutdown(socket.SHUT_RDWR)
            self._thread.join()
            self._sock.close()
            self._sock = None
        for sock in list(self._live):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def __enter__(self):
        return self

    def __exit__(self, *_exc):
        self.close()

    def answer(self, method, target):
        """The (status, body) of a request."""
        if (answer := self.answers.get(f"{method} {target}")) is not None:
            return answer
        documents = self.documents.get(target) if method == "GET" else None
        if not documents:
            return 404, {"ok": False, "errors": [f"there is no {urllib.parse.unquote(target)}"]}
        return 200, documents.pop(0) if len(documents) > 1 else documents[0]

    def _accept(self):
        while True:
            try:
                sock, _ = self._sock.accept()
            except OSError:
                return
            self._live.add(sock)
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock):
        with sock, sock.makefile("rb") as lines, contextlib.suppress(OSError):
            while line := lines.readline():
                while lines.readline() not in (b"\r\n", b""):
                    pass
                method, target, _ = line.decode().split(" ", 2)
                self.requests.append(f"{method} {target}")
                code, body = self.answer(method, target)
                if not isinstance(body, (str, bytes)):
                    body = json.dumps(body)
                body = body.encode() if isinstance(body, str) else body
                head = f"HTTP/1.1 {code} X\r\nContent-Length: {len(body)}\r\n\r\n"
                sock.sendall(head.encode() + body)
        self._live.discard(sock)


class Moving(FakeAdmin):
    """The example, with clocks and counters that go on."""

    def __init__(self, address):
        self._begin = time.time()
        super().__init__(address, answers={
            "GET /readyz": (503, "upstream db: no server is up\n"),
            "POST /drain": (202, {"ok": True}), "POST /reload": (422, {"ok": False, "errors": [
                "/etc/redial/rediald.conf:7: [proxy web] listn: unknown key; did you mean listen?"]})})

    def answer(self, method, target):
        gone = time.time() - self._begin
        if (method, target) == ("GET", "/status"):
            document = copy.deepcopy(example())
            document["now"] += gone
            for item in (document["proxies"][0], document["upstreams"][0]["servers"][0]):
                item["bytes"]["to_server"] += int(gone * 12_345)
                item["bytes"]["to_client"] += int(gone * 4_800_000)
                item["sessions"]["total"] += int(gone * 31)
            document["upstreams"][1]["servers"][0]["retry_in_ms"] = int(5000 - gone * 1000 % 5000)
            return 200, document
        if (method, target) == ("GET", "/sessions"):
            return 200, sessions([
                session("127.0.0.1:40210", id=12, age_ms=int(4000 + gone * 1000),
                        bytes_to_client=int(1e6 + gone * 48_000), bytes_to_server=int(gone * 300)),
                session("unix:", id=3, proxy="postgres", upstream="db", server="db2.internal:5432",
                        age_ms=int(61000 + gone * 1000), bytes_to_client=812, bytes_to_server=99),
                session("[2001:db8:1:2:3:4:5:6]:51123", id=13, proxy="postgres", upstream="db",
                        server=None, state="waiting", age_ms=int(100 + gone * 1000))], now=STARTED + 5000 + gone)
        return super().answer(method, target)


if __name__ == "__main__":
    with Moving(sys.argv[1]):
        threading.Event().wait()
