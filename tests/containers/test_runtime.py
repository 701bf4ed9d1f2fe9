# SPDX-License-Identifier: MIT
"""The image's files under runc, which is what Docker and Kubernetes run them with."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import threading

import pytest

from binary import BINARY_IS_SANITIZED
from conftest import IMAGE
from container import HOST
from deadline import deadline, eventually
from netns import is_real_root
from servers import line_echo
from sockets import ask, connected, is_refused, recv_all

LISTEN, SERVER = "127.0.0.1:7000", f"{HOST}:8000"
CONFIGURATION = f"""
[daemon]
access_log = all
workers = auto
[proxy web]
listen = 127.0.0.1:7000
server = {SERVER}
"""


class Runc:
    """A container of runc's, whose network is that of the calling thread."""

    def __init__(self, bundle, argv):
        self._name = f"redial-test-{os.getpid()}"
        self._runc = ["runc", "--root", f"{bundle}/state"]
        self.lines = []
        subprocess.run(["runc", "spec", "--bundle", bundle], check=True)
        self._edit(f"{bundle}/config.json", bundle, argv)
        self.process = subprocess.Popen([*self._runc, "run", "--bundle", bundle, self._name],
                                        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                        stderr=subprocess.PIPE, text=True)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @staticmethod
    def _edit(path, bundle, argv):
        with open(path, encoding="utf-8") as f:
            spec = json.load(f)
        uid, gid = map(int, IMAGE.last("USER").split(":"))
        spec["process"].update({
            "terminal": False, "user": {"uid": uid, "gid": gid}, "args": argv, "capabilities": {},
            "env": ["PATH=/usr/local/sbin:/usr/local/bin", *IMAGE.last("ENV").split()]})
        assert spec["root"]["readonly"] and spec["process"]["noNewPrivileges"]
        spec["mounts"] += [
            {"destination": "/etc/redial", "type": "bind", "source": f"{bundle}/etc",
             "options": ["bind", "ro"]},
            {"destination": "/run/redial", "type": "tmpfs", "source": "tmpfs",
             "options": ["mode=0700", f"uid={uid}", f"gid={gid}"]}]
        for namespace in spec["linux"]["namespaces"]:
            if namespace["type"] == "network":
                namespace["path"] = f"/proc/{os.getpid()}/task/{threading.get_native_id()}/ns/net"
        spec["linux"]["resources"] = {"memory": {"limit": 64 << 20}, "pids": {"limit": 16}}
        with open(path, "w", encoding="utf-8") as f:
            json.dump(spec, f)

    def _read(self):
        for line in self.process.stderr:
            self.lines.append(line)

    def wait_ready(self):
        """Whether it came to that; else lines tells why not."""
        eventually(lambda: any('"ready"' in line for line in self.lines)
                   or self.process.poll() is not None, 20)
        return self.process.poll() is None

    def signal(self, number):
        subprocess.run([*self._runc, "kill", self._name, str(int(number))], check=True)

    def wait_exit(self):
        status = self.process.wait(deadline(20))
        self._reader.join()
        return status

    def close(self):
        subprocess.run([*self._runc, "delete", "--force", self._name], check=False,
                       capture_output=True)
        self.process.wait(deadline(20))


@pytest.fixture
def runc(image, program, tmp_path):
    """A Runc that is ready; skipped where there can be none."""
    if not is_real_root() or not shutil.which("runc"):
        pytest.skip("needs real root and runc")
    if BINARY_IS_SANITIZED:
        pytest.skip("a sanitizer needs more memory than there is")
    shutil.copytree(image, tmp_path / "rootfs")
    os.chmod(tmp_path / "rootfs", 0o755)
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "rediald.conf").write_text(CONFIGURATION)
    made = Runc(str(tmp_path), [program("rediald"), "-c", "/etc/redial/rediald.conf"])
    with contextlib.closing(made):
        if not made.wait_ready():
            made.wait_exit()
            said = "".join(made.lines)
            if "runc run failed" in said and "exec: " not in said:  # that would be the image's fault
                pytest.skip(f"runc cannot run anything here: {said}")
        yield made


def test_what_engines_run_it_with(runc, serve):
    server = serve(line_echo(b"first"), SERVER)
    eventually(lambda: ask(LISTEN, b"hello\n") == b"first hello\n", 10)
    server.kill()
    with connected(LISTEN) as client:
        client.sendall(b"again\n")
        client.shutdown(socket.SHUT_WR)
        eventually(lambda: '"server_down"' in "".join(runc.lines), 10)
        serve(line_echo(b"second"), SERVER)
        assert recv_all(client) == b"second again\n"
    runc.signal(signal.SIGTERM)
    assert runc.wait_exit() == 0
    assert is_refused(LISTEN)
    events = [json.loads(line)["event"] for line in runc.lines]
    assert events[-1] == "stopped" and events.count("session") == 2
