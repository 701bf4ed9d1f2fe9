# SPDX-License-Identifier: MIT
"""A stand-in for rediald's admin listener: the page, and a /status that the test writes."""

import copy
import http.server
import json
import os
import threading
import time

from binary import TOP

PAGE = os.path.join(TOP, "src", "page.html")
POLICY = ("default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
          "connect-src 'self'; img-src data:")


def server(name, state="up", **more):
    """A server as /status shows it; `for_s' is the age of its state."""
    up = state == "up"
    made = {"name": name, "address": name, "addresses": [name], "weight": 1, "backup": False, "state": state,
            "enabled": True, "since": time.time() - more.pop("for_s", 300), "reason": None if up else "refused",
            "retry_in_ms": None if up else 2000, "sessions": {"active": 0, "max": None, "total": 0},
            "bytes": {"to_server": 0, "to_client": 0},
            "standby": {"idle": int(up), "wanted": 1, "used": 0}, "dials": {"ok": 1}, "self_connects": 0}
    return {**made, **more}


def upstream(name, *servers, **more):
    made = {"name": name, "balance": "round_robin", "when_down": "wait", "waiting": 0, "max_waiting": 1024,
            "servers": list(servers)}
    return {**made, **more}


def proxy(name, listen, **more):
    made = {"name": name, "upstream": name, "listens": [{"address": listen, "in_ephemeral_range": False}],
            "sessions": {"active": 0, "max": None, "total": 0, "ended": {}},
            "bytes": {"to_server": 0, "to_client": 0}}
    return {**made, **more}


def event(message, level="notice", name="server_up", ago_s=1):
    return {"at": time.time() - ago_s, "level": level, "event": name, "message": message}


class Admin:
    """Serves on 127.0.0.1 while it is started; `status' may be changed between start and stop, by change()."""

    def __init__(self, port, proxies, upstreams, **more):
        self.url = f"http://127.0.0.1:{port}/"
        self.asked = 0
        self.policy = POLICY
        self._address = ("127.0.0.1", port)
        self._lock = threading.Lock()
        self._http = None
        began = time.time() - 4000
        self._status = {
            "schema": 1, "version": "0.1.0", "pid": 4711, "started_at": began, "phase": "serving", "workers": 2,
            "config": {"files": ["/etc/redial/rediald.conf"], "loaded_at": began, "reloads_ok": 0,
                       "reloads_failed": 0, "last_reload": None},
            "sessions": {"active": 0, "waiting": 0, "max": 4000}, "self_connects": 0, "log_dropped": 0,
            "proxies": list(proxies), "upstreams": list(upstreams), "events": [], **more}

    def change(self, do):
        """Let do(status) change what is told from now on."""
        with self._lock:
            do(self._status)

    def change_server(self, number, **fields):
        """Change that server of the first upstream."""
        self.change(lambda status: status["upstreams"][0]["servers"][number].update(
            {"since": time.time(), **fields}))

    def start(self):
        self._http = _Http(self._address, _Handler)
        self._http.admin = self
        threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self):
        if self._http:
            self._http.shutdown()
            self._http.server_close()
            self._http = None

    def answer(self, path):
        """Status, type and body."""
        if path == "/":
            with open(PAGE, "rb") as f:
                return 200, "text/html; charset=utf-8", f.read()
        if path == "/status":
            with self._lock:
                self.asked += 1
                status = copy.copy(self._status)
            status["now"] = time.time()
            return 200, "application/json", json.dumps(status).encode()
        return 404, "text/plain", b"not found\n"

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_exc):
        self.stop()


class _Http(http.server.ThreadingHTTPServer):
    daemon_threads = True
    admin = None


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        status, kind, body = self.server.admin.answer(self.path)
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        if self.server.admin.policy:
            self.send_header("Content-Security-Policy", self.server.admin.policy)
        self.send_header("X-Content-Type-Options", "nosniff")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_args):
        pass
