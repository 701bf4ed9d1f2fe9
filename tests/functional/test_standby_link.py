# SPDX-License-Identifier: MIT
"""What standby connections are worth over a link with a round trip of 50 ms."""

import time

import pytest

import farlink
from deadline import eventually
from netns import SynCounter
from servers import echo
from sockets import connected, listening

ROUND_TRIP = 0.05
TRIES = 10


@pytest.fixture
def far_server(serve, port):
    """An echo server at the other end of the link."""
    try:
        link = farlink.FarLink(ROUND_TRIP / 2)
    except OSError as err:
        pytest.skip(f"no TUN device can be made here: {err}")
    with link:
        address = f"{farlink.THERE}:{port()}"
        with link.there():
            sock = listening(address)
        yield serve(echo, address, sock=sock)


def first_answer(address, syns):
    """How long it took from connect(2) to the first byte, in round trips, and how many dials left meanwhile."""
    dials, began = syns.count, time.monotonic()
    with connected(address) as client:
        client.sendall(b"hello")
        assert client.recv(100) == b"hello"
        return (time.monotonic() - began) / ROUND_TRIP, syns.count - dials


@pytest.mark.parametrize("standby, dials, least, most",
                         [("auto", 0, 1.0, 1.6), ("0", 1, 1.9, 3.0)])
def test_first_answer(rediald, far_server, port, standby, dials, least, most):
    address = f"127.0.0.1:{port()}"
    # With a place for one session, no other is dialled beside it that would be counted.
    daemon = rediald(f"""
[proxy web]
listen = {address}
server = {far_server.address} max_sessions=1
standby = {standby}
""", daemon_keys="workers = 1")
    daemon.wait_event("server_up")
    trips = []
    with SynCounter(far_server.port) as syns:
        for n in range(1, TRIES + 1):
            far_server.wait_live(1 - dials)
            trip, seen = first_answer(address, syns)
            assert seen == dials
            trips.append(trip)
            assert daemon.session(count=n)["attempts"] == str(dials)
            # The place is free again, and what fills it has been dialled.
            eventually(lambda n=n: syns.count == n, 10)
    # The link is never faster than it is; this machine may be slow at times, not at each.
    assert least <= min(trips) < most, trips
