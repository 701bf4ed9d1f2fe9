# SPDX-License-Identifier: MIT
"""The command line: what is wrong with it is told in one line, with a status of its own."""

import resource
import subprocess

import pytest

from binary import BINARY_IS_SANITIZED, REDIALD, WRAP
from deadline import deadline

SERVER = ("--server", "127.0.0.1:8000")
LISTEN = ("--listen", "127.0.0.1:7000")


def run(*args, **kwargs):
    """What became of it: (status, stdout, stderr)."""
    done = subprocess.run([*WRAP, REDIALD, *args], stdin=subprocess.DEVNULL, capture_output=True,
                          text=True, check=False, timeout=deadline(20), **kwargs)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("args, what", [
    (LISTEN, "--listen and --server go together"),
    (SERVER, "--listen and --server go together"),
    ((*SERVER, "-c", "/nowhere"), "--listen and --server go together"),
    ((*LISTEN, *SERVER, "-c", "/nowhere"), "--listen and -c exclude each other"),
    ((*LISTEN, *SERVER, "--config=/nowhere"), "--listen and -c exclude each other"),
    ((*LISTEN, *LISTEN, *SERVER), "--listen may be given once"),
    (("/nowhere",), "unexpected argument: /nowhere"),
    (("--check", "-c", "/nowhere", "--", "-c"), "unexpected argument: -c"),
    (("--log-level", "loud", "-c", "/nowhere"),
     "--log-level takes error, warning, notice, info or debug, not: loud"),
    (("--log-level", "info", "--log-level=", *LISTEN, *SERVER),
     "--log-level takes error, warning, notice, info or debug, not: "),
])
def test_wrong_command_line_is_told_with_status_64(args, what):
    assert run(*args) == (64, "", f"rediald: {what}; see rediald --help\n")


@pytest.mark.parametrize("args, what", [
    (("--frob",), "unrecognized option '--frob'"),
    (("-x",), "invalid option -- 'x'"),
    (("--check=yes",), "option '--check' doesn't allow an argument"),
    (("-c",), "option requires an argument -- 'c'"),
    (("--listen",), "option '--listen' requires an argument"),
])
def test_wrong_option_is_told_with_status_64(args, what):
    assert run(*args) == (64, "", f"{REDIALD}: {what}\n")


def test_what_may_be_given_twice_counts_all_or_the_last():
    status, out, err = run(*LISTEN, *SERVER, "--server", "127.0.0.1:8001", "--dump", "--dump",
                           "--log-level", "error", "--log-level", "debug")
    assert (status, err) == (0, "")
    for line in "server = 127.0.0.1:8000 ", "server = 127.0.0.1:8001 ", "log_level = debug\n":
        assert line in out


def test_good_check_says_so():
    assert run("--check", *LISTEN, *SERVER) == (0, "the configuration is valid\n", "")


def test_check_does_not_call_a_port_at_risk_valid(tmp_path):
    path = tmp_path / "rediald.conf"
    path.write_text("[daemon]\nport_range_check = error\n"
                    "[proxy web]\nlisten = 127.0.0.1:40000\nserver = 127.0.0.1:8000\n")
    status, out, err = run("--check", "-c", path)
    assert (status, out) == (78, "")
    assert " event=listen_port_in_range " in err


def test_failure_of_its_own_is_told_with_status_70():
    if WRAP:
        pytest.skip("a wrapper wants more memory itself")
    # It begins with some 3 MB, and asks for as much again for so many arguments. A sanitizer has an account of its own.
    limits = "allocator_may_return_null=1:max_allocation_size_mb=1"
    env = {"ASAN_OPTIONS": limits, "TSAN_OPTIONS": limits}
    size = resource.RLIM_INFINITY if BINARY_IS_SANITIZED else 4 << 20
    status, out, err = run(*180000 * ["x"], env=env, preexec_fn=lambda: resource.setrlimit(
        resource.RLIMIT_DATA, (size, size)))
    assert (status, out) == (70, "")
    assert err.splitlines()[-1] == "rediald: out of memory"
