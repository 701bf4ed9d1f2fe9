# SPDX-License-Identifier: MIT
"""Fixtures: one machine for all tests, and for each of them rediald's units as they were installed."""

import contextlib
import os
import sys

import pytest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "functional"))

# pylint: disable=wrong-import-position
from machine import BUILD, CannotBoot, Machine  # noqa: E402
from servers import Server  # noqa: E402
from units import Units  # noqa: E402


@pytest.fixture(scope="session", name="machine")
def booted_machine(tmp_path_factory):
    """A machine; all sockets that the tests make are in its network."""
    if not BUILD:
        pytest.skip("no build to be installed: make check-systemd")
    try:
        machine = Machine(tmp_path_factory.mktemp("machine"))
    except CannotBoot as why:
        pytest.skip(f"no systemd can be booted: {why}")
    machine.enter_network()
    yield machine
    machine.close()


@pytest.fixture
def units(machine):
    """What rediald's units are in this test; afterwards they are stopped, and as they were."""
    with contextlib.closing(Units(machine)) as made:
        yield made


@pytest.fixture
def serve(machine):  # pylint: disable=unused-argument
    """serve(handler, address): a Server in the machine's network, ended with the test."""
    with contextlib.ExitStack() as stack:
        yield lambda handler, address: stack.enter_context(Server(address, handler))
