# SPDX-License-Identifier: MIT
"""rediald as a container's only program: PID 1, nobody's user, a root that holds nothing else and cannot be written."""

import os
import signal
import socket
import subprocess
import time

import pytest

import cgroups
from binary import BINARY_IS_SANITIZED
from conftest import IMAGE
from container import GUEST, HOST, UID
from deadline import deadline, eventually
from netns import is_real_root
from servers import echo, line_echo, silent
from sockets import ask, connected, is_refused, recv_all, recv_exactly, recv_until_end

LISTEN, SERVER = f"{GUEST}:7000", f"{HOST}:8000"
PROC = pytest.mark.parametrize("proc", ["readonly", "masked", pytest.param("none", marks=pytest.mark.skipif(
    BINARY_IS_SANITIZED, reason="a sanitizer needs /proc"))])


def proxy(server=SERVER, daemon="", more=""):
    return f"[daemon]\naccess_log = all\n{daemon}\n[proxy web]\nlisten = *:7000\nserver = {server}\n" \
           f"{more}\n"


def exchange(client, data=b"hello"):
    client.sendall(data)
    assert recv_exactly(client, len(data)) == data


def everything_in(root):
    """Path, kind, size and time of all that is in the directory."""
    found = {}
    for directory, names, files in os.walk(root):
        for name in names + files:
            st = os.lstat(f"{directory}/{name}")
            found[f"{directory}/{name}"] = (st.st_mode, st.st_size, st.st_mtime_ns)
    return found


# The files

def test_image_holds_programs_libraries_and_a_loader_alone(image):
    for directory, _, names in os.walk(image):
        for name in names:
            with open(f"{directory}/{name}", "rb") as f:
                assert f.read(4) == b"\x7fELF", f"{directory}/{name}"
            where = os.path.basename(directory)
            assert name in ("rediald", "redialctl") or ".so" in name, name
            assert (where in ("sbin", "bin")) == (".so" not in name), f"{directory}/{name}"


def test_image_asks_for_nothing_that_it_lacks(image, program):
    """The loader of the image itself, with nothing but the image to look in."""
    loader = next(f"{d}/{n}" for d, _, names in os.walk(image) for n in names if n.startswith("ld-"))
    for name in filter(program, ("rediald", "redialctl")):
        result = subprocess.run(["chroot", image, loader[len(image):], "--list", program(name)],
                                capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stdout + result.stderr
        assert "libc.so" in result.stdout and "not found" not in result.stdout


# What it is there for

@PROC
def test_server_that_restarts_costs_a_wait(contain, serve, proc):
    server = serve(line_echo(b"first"), SERVER)
    container = contain(proxy(), proc=proc)
    container.wait_event("server_up")
    assert ask(LISTEN, b"hello\n") == b"first hello\n"
    server.kill()
    container.wait_event("server_down")
    with connected(LISTEN) as client:
        client.sendall(b"again\n")
        client.shutdown(socket.SHUT_WR)
        serve(line_echo(b"second"), SERVER)
        assert recv_all(client) == b"second again\n"
    container.wait_event("session", count=2, reason="client_closed")
    # Without its sysctls the range of ports is a guess, and that is told.
    assert container.has("port_range_assumed") == (proc != "readonly")
    status, seconds = container.stop()
    assert status == 0 and seconds < deadline(2)
    assert container.wait_event("stopped")["sessions_cut"] == 0
    assert container.all_json(), container.text


def test_it_is_process_1_and_may_nothing(contain, serve, program):
    serve(echo, SERVER)
    container = contain(proxy())
    container.wait_event("ready")
    status = container.status()
    assert status["NSpid"].split()[-1] == "1"
    outside = str(UID if is_real_root() else 0)
    assert status["Uid"].split() == status["Gid"].split() == [outside] * 4
    assert status["NoNewPrivs"] == "1"
    for kind in ("CapEff", "CapPrm", "CapInh", "CapBnd", "CapAmb"):
        assert int(status[kind], 16) == 0, kind
    assert container.run(program("rediald"), "--version")[0] == 0
    assert container.run("/bin/sh", "-c", "true")[0] == 127


def test_nothing_is_written_where_it_could_be(contain, serve, root):
    """A root that is not read-only, and belongs to its user."""
    serve(echo, SERVER)
    if is_real_root():
        for directory, names, files in os.walk(root):
            for name in [".", *names, *files]:
                os.chown(f"{directory}/{name}", UID, UID)
    before = everything_in(root)
    container = contain(proxy(), read_only=False)
    container.wait_event("server_up")
    assert ask(LISTEN, b"hello") == b"hello"
    assert container.stop()[0] == 0
    assert everything_in(root) == before


def test_unix_listener_in_memory_beside_a_read_only_root(contain, serve):
    """What an admin socket, or an application beside it, needs."""
    serve(echo, SERVER)
    container = contain(proxy(more="listen = unix:/run/redial/in.sock"))
    container.wait_event("ready")
    assert ask(f"unix:/proc/{container.pid}/root/run/redial/in.sock", b"hello") == b"hello"


def test_unix_listener_without_a_place_to_write_says_so(contain):
    container = contain(proxy(more="listen = unix:/etc/in.sock"))
    assert container.wait_exit() == 71
    assert "Read-only file system" in container.wait_event("listen_failed")["message"]


def test_server_that_the_engine_names(contain, serve, tmp_path):
    """/etc/hosts and /etc/resolv.conf come from the engine; there is no nsswitch.conf."""
    serve(echo, SERVER)
    (tmp_path / "hosts").write_text(f"127.0.0.1 localhost\n{HOST} db\n")
    (tmp_path / "resolv.conf").write_text(f"nameserver {HOST}\noptions ndots:0\n")
    container = contain(proxy("db:8000"), mounts=[(str(tmp_path / name), f"/etc/{name}")
                                                  for name in ("hosts", "resolv.conf")])
    container.wait_event("server_up")
    assert ask(LISTEN, b"hello") == b"hello"


def put_map(directory, name, text):
    """What the kubelet does: a new directory, and a link to it in the place of the old one."""
    (directory / name).mkdir(parents=True)
    (directory / name / "rediald.conf").write_text(text)
    os.symlink(name, directory / "..new")
    os.rename(directory / "..new", directory / "..data")


def test_configuration_as_kubernetes_mounts_and_changes_it(contain, serve, tmp_path):
    serve(line_echo(b"first"), SERVER)
    serve(line_echo(b"second"), f"{HOST}:8001")
    put_map(tmp_path / "map", "..1", proxy())
    os.symlink("..data/rediald.conf", tmp_path / "map" / "rediald.conf")
    container = contain(tmp_path / "map")
    container.wait_event("server_up")
    assert ask(LISTEN, b"hello\n") == b"first hello\n"
    put_map(tmp_path / "map", "..2", proxy(f"{HOST}:8001"))
    container.signal(signal.SIGHUP)
    container.wait_event("reloaded")
    eventually(lambda: ask(LISTEN, b"hello\n") == b"second hello\n")
    assert container.stop()[0] == 0
    assert container.all_json(), container.text


# Health

@pytest.fixture
def health(program):
    """The image's health check, at its place in this build."""
    command = IMAGE.arguments("HEALTHCHECK")
    place = program(os.path.basename(command[0]))
    if not place:
        pytest.skip("this build has no redialctl")
    return [place, *command[1:]]


def test_health_check_tells_whether_there_is_a_server(contain, serve, health):
    """With the image's environment, and nothing said about an admin socket."""
    environment = dict(word.split("=") for word in IMAGE.last("ENV").split())
    container = contain(proxy(), env=environment)
    container.wait_event("server_down")
    assert container.run(*health)[0] == 1
    serve(echo, SERVER)
    assert container.run(*health, "--wait", "20s")[0] == 0
    container.wait_event("server_up")
    assert container.run(*health)[0] == 0
    assert container.stop()[0] == 0


def http_status(path, port=9127):
    """The status of the answer to a GET."""
    request = f"GET {path} HTTP/1.1\r\nHost: {GUEST}\r\nConnection: close\r\n\r\n"
    with connected(f"{GUEST}:{port}") as client:
        client.sendall(request.encode())
        return int(recv_all(client).split()[1])


def test_probes_by_http(contain, serve, admin):
    container = contain(proxy(daemon=f"{admin} = unix:/run/redial/admin.sock, *:9127\nlame_duck = 1m"))
    container.wait_event("server_down")
    assert http_status("/healthz") == 200
    assert http_status("/readyz") == 503
    serve(echo, SERVER)
    container.wait_event("server_up")
    assert http_status("/readyz") == 200
    container.signal(signal.SIGTERM)
    container.wait_event("lame_duck")
    assert http_status("/healthz") == 200
    assert http_status("/readyz") == 503
    assert ask(LISTEN, b"hello") == b"hello"


# Its end

@PROC
def test_sigterm_lets_sessions_end(contain, serve, proc):
    serve(echo, SERVER)
    container = contain(proxy(daemon="drain_timeout = 60s"), proc=proc)
    container.wait_event("server_up")
    with connected(LISTEN) as client:
        exchange(client)
        container.signal(signal.SIGTERM)
        container.wait_event("draining")
        eventually(lambda: is_refused(LISTEN))
        exchange(client)
    assert container.wait_exit() == 0
    assert container.wait_event("stopped")["sessions_cut"] == 0


def test_status_is_0_even_when_sessions_have_to_be_cut(contain, serve):
    server = serve(silent, SERVER)
    container = contain(proxy(daemon="drain_timeout = 1s"))
    container.wait_event("server_up")
    with connected(LISTEN) as client:
        client.sendall(b"hello")
        server.wait_accepted(2)  # its session has the standby connection, and there is a new one
        status, seconds = container.stop()
        assert recv_until_end(client) == (b"", "reset")
    assert status == 0 and 0.9 < seconds < deadline(4)
    assert container.wait_event("stopped")["sessions_cut"] == 1


def test_lame_duck_accepts_until_its_end(contain, serve):
    serve(echo, SERVER)
    container = contain(proxy(daemon="lame_duck = 1s"))
    container.wait_event("server_up")
    began = time.monotonic()
    container.signal(signal.SIGTERM)
    container.wait_event("lame_duck")
    assert ask(LISTEN, b"hello") == b"hello"
    assert container.wait_exit() == 0
    assert 0.9 < time.monotonic() - began


def test_process_1_is_not_replaced(contain, serve):
    serve(echo, SERVER)
    container = contain(proxy())
    container.wait_event("server_up")
    container.signal(signal.SIGUSR2)
    eventually(lambda: container.has("signal_unsupported") or container.has("upgrade_refused"))
    assert ask(LISTEN, b"hello") == b"hello"
    assert container.status()["NSpid"].split()[-1] == "1"
    assert container.stop()[0] == 0


# What an engine may leave out

@pytest.mark.parametrize("closed", [(1,), (0, 1), (0,), (2,), (0, 1, 2)],
                         ids=["stdout", "stdin_and_stdout", "stdin", "stderr", "all"])
def test_standard_streams_may_be_closed(contain, serve, closed):
    serve(echo, SERVER)
    container = contain(proxy(), closed=closed)
    if 2 in closed:
        eventually(lambda: not is_refused(LISTEN), 10)
    else:
        container.wait_event("ready")
    assert ask(LISTEN, b"hello") == b"hello"
    for fd in closed:
        assert os.readlink(f"/proc/{container.pid}/fd/{fd}") == "/dev/null"
    assert container.stop()[0] == 0
    assert container.all_json()


def test_few_descriptors(contain, serve):
    serve(echo, SERVER)
    container = contain(proxy(), nofile=64)
    container.wait_event("server_up")
    assert [ask(LISTEN, b"hello") for _ in range(100)] == [b"hello"] * 100


# Limits

@pytest.mark.parametrize("quota, workers", [("max 100000", None), ("100000 100000", 1), ("50000 100000", 1)])
def test_workers_follow_the_quota_that_is_seen(contain, tmp_path, quota, workers):
    """In its own namespace of control groups the root is the container's."""
    (tmp_path / "cpu.max").write_text(quota + "\n")
    (tmp_path / "cgroup").mkdir()
    os.rename(tmp_path / "cpu.max", tmp_path / "cgroup" / "cpu.max")
    cpus = len(os.sched_getaffinity(0))
    if cpus < 2:
        pytest.skip("one CPU: a quota makes no difference")
    container = contain(proxy(daemon="workers = auto"),
                        mounts=[(str(tmp_path / "cgroup"), "/sys/fs/cgroup")])
    assert container.wait_event("ready")["workers"] == (workers or cpus)


def test_workers_follow_the_quota_of_a_control_group(contain):
    with cgroups.limited("cpu", "cpu.max", "100000 100000") as group:
        container = contain(proxy(daemon="workers = auto"), on_start=group.take,
                            mounts=[(group.directory, "/sys/fs/cgroup")])
        assert container.wait_event("ready")["workers"] == 1
        container.close()


def test_little_memory_is_enough(contain, serve):
    if BINARY_IS_SANITIZED:
        pytest.skip("a sanitizer needs much memory")
    serve(echo, SERVER)
    with cgroups.limited("memory", "memory.max", str(16 << 20)) as group:
        container = contain(proxy(), on_start=group.take)
        container.wait_event("server_up")
        assert [ask(LISTEN, b"x" * 100_000) for _ in range(20)] == [b"x" * 100_000] * 20
        assert container.stop()[0] == 0
        container.close()
