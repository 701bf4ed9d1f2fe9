# SPDX-License-Identifier: MIT
"""What has to be there before anything is measured: packages, the load, rediald."""

import os
import subprocess

HERE = os.path.dirname(os.path.abspath(__file__))
TOP = os.path.dirname(HERE)
OUT = os.path.join(TOP, "build", "bench")


class Impossible(Exception):
    """It cannot be built; says why."""


def _run(log, *command, cwd=None):
    with open(log, "a", encoding="utf-8") as f:
        if subprocess.run(
            command, cwd=cwd, stdout=f, stderr=f, stdin=subprocess.DEVNULL, check=False
        ).returncode:
            raise Impossible(f"{' '.join(command)} failed; see {log}")


def packages():
    """Install the peers, if that is possible; a peer that is missing then is left out."""
    subprocess.run([os.path.join(TOP, "tools", "install-packages"), "bench"], check=False)


def program(name, directory):
    """Build bench/NAME.c; returns its path."""
    path = os.path.join(directory, name)
    _run(
        os.path.join(directory, "build.log"),
        "cc",
        "-std=gnu11",
        "-D_GNU_SOURCE",
        "-O2",
        "-Wall",
        "-Wextra",
        "-o",
        path,
        os.path.join(HERE, f"{name}.c"),
    )
    return path


def rediald(directory):
    """Build the tree's rediald with -O2, out of tree; returns its path."""
    if os.path.exists(os.path.join(TOP, "config.status")):
        raise Impossible(
            "the source tree is configured in place: run 'make distclean' there, or give --rediald"
        )
    log = os.path.join(directory, "build.log")
    where = os.path.join(directory, "rediald")
    os.makedirs(where, exist_ok=True)
    if not os.path.exists(os.path.join(TOP, "configure")):
        _run(log, "autoreconf", "-fi", cwd=TOP)
    if not os.path.exists(os.path.join(where, "Makefile")):
        _run(log, os.path.join(TOP, "configure"), "CFLAGS=-O2", cwd=where)
    _run(log, "make", f"-j{os.cpu_count()}", "src/rediald", cwd=where)
    return os.path.join(where, "src", "rediald")
