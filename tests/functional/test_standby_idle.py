# SPDX-License-Identifier: MIT
"""What standby connections cost while nobody comes."""

import pytest

from binary import BINARY_IS_SANITIZED, WRAP
from deadline import eventually, pass_time
from sockets import connections, listening

SERVERS = 1000
WINDOW_S = 10
MOST_CPU = 0.001  # of a core
# The main thread looks once a second whether the service manager is to be told something.
MOST_WAKEUPS = 3 + WINDOW_S


@pytest.mark.skipif(BINARY_IS_SANITIZED or bool(WRAP), reason="tools have threads of their own")
def test_a_thousand_at_rest_cost_nothing(rediald, port):
    at = port()
    # One socket, and the kernel, are all of these servers: nobody needs to accept.
    with listening(f"0.0.0.0:{at}"):
        servers = "\n".join(f"server = 127.1.{n >> 8}.{n & 255}:{at}" for n in range(SERVERS))
        daemon = rediald(f"[proxy web]\nlisten = 127.0.0.1:{port()}\n{servers}\n")
        eventually(lambda: connections(at) == SERVERS, 20)
        seen = []

        def at_rest():
            """So long, in which nothing was done. The first time they come of age, that is, at 10 s."""
            began = daemon.activity()
            pass_time(WINDOW_S)
            cpu, wakeups = (now - then for now, then in zip(daemon.activity(), began))
            seen.append((cpu, wakeups))
            return cpu < MOST_CPU * WINDOW_S * 1e9 and wakeups <= MOST_WAKEUPS
        try:
            eventually(at_rest, 5 * WINDOW_S)
        except FileNotFoundError:
            pytest.skip("this kernel does not tell when a thread ran (schedstat)")
        except AssertionError as err:
            raise AssertionError(f"ns and wake-ups in {WINDOW_S} s: {seen}") from err
        assert connections(at) == SERVERS
        daemon.terminate()
