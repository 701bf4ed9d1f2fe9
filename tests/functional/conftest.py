# SPDX-License-Identifier: MIT
"""Fixtures: a network namespace for each test, and rediald, servers and clients in it."""

import contextlib
import os
import pathlib
import re
import shutil
import signal
import tempfile

import pytest

import netns
from binary import REDIALD
from daemon import Rediald
from programs import Program
from servers import Server
from sockets import connected

_cannot = None
_directory = None


def pytest_configure(config):
    """The first process becomes root of a user namespace, if need be; its workers inherit that."""
    global _cannot, _directory
    if not hasattr(config, "workerinput") and not config.option.basetemp:
        # The directory that all of pytest's sessions share is closed to others when one begins,
        # and some servers run as users of their own.
        _directory = tempfile.mkdtemp(prefix="rediald-")
        config.option.basetemp = f"{_directory}/tests"
    if not os.access(REDIALD, os.X_OK):
        raise pytest.UsageError(f"no rediald at {REDIALD}: build it, or set REDIALD")
    try:
        if not hasattr(config, "workerinput"):
            netns.become_root()
        netns.enter_new()
    except OSError as err:
        _cannot = f"needs root or unprivileged user namespaces (unshare -rn): {err}"


def pytest_sessionfinish(exitstatus):
    """What failed tests have left is kept."""
    if _directory and exitstatus == 0:
        shutil.rmtree(_directory, ignore_errors=True)


@pytest.fixture(autouse=True)
def namespace():
    """A network namespace of the test's own: all its ports and sysctls."""
    if _cannot:
        pytest.skip(_cannot)
    netns.enter_new()


@pytest.fixture
def port():
    """Gives free ports, none of them in the ephemeral range."""
    return netns.Ports()


@pytest.fixture
def serve(port):
    """serve(handler, address=None): a Server, ended with the test."""
    with contextlib.ExitStack() as stack:
        def start(handler, address=None, **kwargs):
            return stack.enter_context(
                Server(address or f"127.0.0.1:{port()}", handler, **kwargs))
        yield start


def with_daemon_keys(configuration):
    """The configuration with the keys of $DAEMON_KEYS, `workers=4,splice=off' say, that it lacks."""
    for key in filter(None, os.environ.get("DAEMON_KEYS", "").split(",")):
        name, value = key.split("=")
        if f"{name} =" not in configuration:
            configuration = configuration.replace(
                "[daemon]\n", f"[daemon]\n{name} = {value}\n", 1)
    return configuration


def standby_connections(configuration):
    """How many standby connections the configuration may keep at most."""
    each = [int(n) for n in re.findall(r"^standby = (\d+)", configuration, re.M)]
    return len(re.findall(r"^server = ", configuration, re.M)) * max(each, default=1)


def texts_of(args):
    """What stands in the files that are given by -c."""
    paths = [path for option, path in zip(args, args[1:]) if option == "-c" and os.path.isfile(path)]
    return [pathlib.Path(path).read_text(encoding="utf-8", errors="replace") for path in paths]


@pytest.fixture
def rediald(serve, tmp_path):
    """rediald(configuration): a daemon that is ready; ready=False for one that need not become so.

    Without a [daemon] section every session gets an access line, and daemon_keys are set. At the end of the test it is
    terminated and judged.
    """
    daemons = []

    def start(configuration=None, *, ready=True, args=(), daemon_keys="", **kwargs):
        arguments = list(args)
        if configuration is not None:
            if "[daemon]" not in configuration:
                configuration = f"[daemon]\naccess_log = all\n{daemon_keys}\n" + configuration
            configuration = with_daemon_keys(configuration)
            path = tmp_path / f"rediald-{len(daemons)}.conf"
            path.write_text(configuration)
            arguments = ["-c", str(path), *arguments]
        daemon = Rediald(str(tmp_path), arguments, **kwargs)
        texts = [configuration or "", *texts_of(args)]
        daemon.standby = sum(map(standby_connections, texts)) + list(args).count("--server")
        daemons.append(daemon)
        return daemon.wait_ready() if ready else daemon

    yield start
    with contextlib.ExitStack() as stack:
        for daemon in daemons:
            stack.callback(daemon.finish)


@pytest.fixture
def connect(rediald):
    """connect(address): a connected socket, closed with the test and before the daemon's end."""
    with contextlib.ExitStack() as stack:
        yield lambda address, **kwargs: stack.enter_context(connected(address, **kwargs))


@pytest.fixture
def launch(tmp_path):
    """launch(argv, address): a Program that listens; stopped with the test."""
    with contextlib.ExitStack() as stack:
        def start(argv, address, **kwargs):
            server = Program(argv, address, tmp_path / "server.log", **kwargs)
            stack.callback(server.stop, signal.SIGKILL)
            server.start()
            server.wait_listening()
            return server
        yield start
