# SPDX-License-Identifier: MIT
"""Control groups with a limit, of either version."""

import contextlib
import os

import pytest

# Names that version 1 had for what version 2 calls so.
VERSION_1 = {"memory.max": "memory.limit_in_bytes"}


class Group:
    """A directory in which a process may be put."""

    def __init__(self, directory):
        self.directory = directory

    def take(self, pid):
        with open(f"{self.directory}/cgroup.procs", "w", encoding="ascii") as f:
            f.write(str(pid))


def _mounts():
    """(mount point, type, options) of every hierarchy."""
    with open("/proc/mounts", encoding="utf-8") as f:
        lines = [line.split() for line in f]
    return [(m[1], m[2], m[3].split(",")) for m in lines if m[2] in ("cgroup", "cgroup2")]


def _own(controller):
    """This process's path in the hierarchy of that controller of version 1; "" stands for version 2."""
    with open("/proc/self/cgroup", encoding="ascii") as f:
        for line in f:
            _, names, path = line.rstrip("\n").split(":", 2)
            if controller in names.split(","):
                return path
    return None


def _places(controller, name):
    """(directory to make a group in, the limit's file there)."""
    for mount, kind, options in _mounts():
        if kind == "cgroup2":
            yield mount + (_own("") or ""), name
            yield mount, name
        elif controller in options and name in VERSION_1:
            yield mount + (_own(controller) or ""), VERSION_1[name]


def _make(controller, name, value):
    """A Group, or the reason why there is none."""
    why = f"no hierarchy of control groups has {name}"
    for parent, file in _places(controller, name):
        directory = f"{parent.rstrip('/')}/redial-test-{os.getpid()}"
        try:
            os.mkdir(directory)
        except OSError as err:
            why = str(err)
            continue
        try:
            with open(f"{directory}/{file}", "r+", encoding="ascii") as f:
                f.write(value)
            return Group(directory)
        except OSError as err:
            why = str(err)
            os.rmdir(directory)
    return why


@contextlib.contextmanager
def limited(controller, name, value):
    """A Group with that limit, gone afterwards; the test is skipped where none can be made."""
    group = _make(controller, name, value)
    if isinstance(group, str):
        pytest.skip(f"no control group can be made: {group}")
    try:
        yield group
    finally:
        os.rmdir(group.directory)
