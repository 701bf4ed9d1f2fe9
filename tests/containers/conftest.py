# SPDX-License-Identifier: MIT
"""Fixtures: the image's files, made once, and containers that run from them, each test in a network of its own."""

import contextlib
import os
import shutil
import subprocess
import sys

import pytest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "functional"))

# pylint: disable=wrong-import-position
import netns  # noqa: E402
from binary import REDIALD  # noqa: E402
from container import HOST, RUN, CannotContain, Container  # noqa: E402
from dockerfile import stages  # noqa: E402
from servers import Server  # noqa: E402

TOP = os.path.dirname(os.path.dirname(HERE))
BUILD = os.environ.get("top_builddir", "")
COLLECT = os.path.join(TOP, "containers", "collect")
# Where an engine mounts something.
PLACES = ("etc/redial", "run/redial", "proc", "dev", "sys/fs/cgroup")
FILES = ("etc/hosts", "etc/resolv.conf", "dev/null", "dev/zero", "dev/random", "dev/urandom")

# The image that `docker build .' makes.
IMAGE = stages(os.path.join(TOP, "Dockerfile"))[-1]

_cannot = None


def has_admin():
    """Does this rediald have an admin interface?"""
    dump = subprocess.run([REDIALD, "--listen", "unix:@a", "--server", "unix:@b", "--dump"],
                          stdout=subprocess.PIPE, text=True, check=True).stdout
    return "admin = " in dump


def pytest_configure(config):
    global _cannot
    try:
        if not hasattr(config, "workerinput"):
            netns.become_root()
        netns.enter_new()
    except OSError as err:
        _cannot = f"needs root or unprivileged user namespaces (unshare -rn): {err}"


@pytest.fixture(scope="session", name="stage")
def installed(tmp_path_factory):
    """What `make install' installs."""
    if not BUILD:
        pytest.skip("no build to be installed: make check-containers")
    stage = tmp_path_factory.mktemp("stage")
    subprocess.run([os.environ.get("MAKE", "make"), "-s", "-C", BUILD, "install", f"DESTDIR={stage}"],
                   check=True, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
    return str(stage)


@pytest.fixture(scope="session", name="image")
def collected(stage, tmp_path_factory):
    """The files of the minimal image."""
    image = str(tmp_path_factory.mktemp("image"))
    subprocess.run([COLLECT, stage, image], check=True)
    return image


@pytest.fixture
def root(image, tmp_path):
    """A container's root: the image, and what an engine adds to mount on."""
    made = str(tmp_path / "root")
    shutil.copytree(image, made)
    os.chmod(made, 0o755)
    for name in PLACES:
        os.makedirs(f"{made}/{name}", exist_ok=True)
    for name in FILES:
        open(f"{made}/{name}", "w", encoding="ascii").close()
    return made


@pytest.fixture
def program(image):
    """program(name): the path of one of ours in the image."""
    def find(name):
        for directory, _, names in os.walk(image):
            if name in names:
                return f"{directory[len(image):]}/{name}"
        return None
    return find


@pytest.fixture
def admin():
    """The key that says where the admin interface is."""
    if not has_admin():
        pytest.skip("this rediald has no admin interface")
    return "admin"


@pytest.fixture(autouse=True)
def network():
    """A network namespace of the test's own, which is the engine's side: servers at HOST may come before the container."""
    if _cannot:
        pytest.skip(_cannot)
    netns.enter_new()
    subprocess.run(["ip", "address", "add", HOST, "dev", "lo"], check=True)


@pytest.fixture
def serve():
    """serve(handler, address): a Server on the engine's side, ended with the test."""
    with contextlib.ExitStack() as stack:
        yield lambda handler, address: stack.enter_context(Server(address, handler))


@pytest.fixture
def contain(root, program, tmp_path):
    """contain(configuration, ...): a Container with rediald and that file; skips where there can be none."""
    with contextlib.ExitStack() as stack:
        def start(configuration, *, args=(), mounts=(), env=None, **kwargs):
            path = tmp_path / "etc"
            if isinstance(configuration, str):
                path.mkdir()
                (path / "rediald.conf").write_text(configuration)
            else:
                path = configuration
            given = [RUN, (str(path), "/etc/redial"), *mounts]
            argv = [program("rediald"), "-c", "/etc/redial/rediald.conf", *args]
            env = {"REDIAL_LOG_FORMAT": "json", **(env or {})}
            try:
                made = Container(root, argv, mounts=given, env=env, **kwargs)
            except CannotContain as why:
                pytest.skip(f"no container: {why}")
            return stack.enter_context(contextlib.closing(made))
        yield start
