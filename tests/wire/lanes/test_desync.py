"""A backend that loses count, and somebody who makes it: nobody else gets what it says then."""

from __future__ import annotations

import pytest

from tests.support.backend import Peer, response
from tests.support.lanes import H11, LANES, Yard
from tests.support.raw import request

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("lane", [*LANES, H11])]

HIDDEN = b"GET /hidden HTTP/1.1\r\nHost: a\r\n\r\n"


async def careless(peer: Peer) -> None:
    """It does not read the body, and so takes it for a request: one that takes its time to answer."""
    await peer.head()
    await peer.send(response(b"first"))
    while True:
        if (await peer.reader.readexactly(len(HIDDEN))) == HIDDEN:
            await peer.head()  # the next one, by somebody else
            await peer.send(response(b"for whoever asks next"))


@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE", "OPTIONS"])
async def test_a_body_that_backends_do_not_expect_is_the_last_on_its_connection(
    lane: str, method: str, yard: Yard
) -> None:
    """What is known as CL.0: the backend takes the body for the next request."""

    async def script(peer: Peer) -> None:
        if len(yard.backend.peers) == 1:
            await careless(peer)
        while True:
            await peer.request()
            await peer.send(response(b"mine"))

    yard.plays(script)
    async with yard.connect(lane) as attacker, yard.connect(lane) as other:
        answer = await attacker.ask(request("/public", method=method, body=HIDDEN), method=method)
        assert answer.body == (b"" if method == "HEAD" else b"first")
        assert (await other.ask(request("/public/mine"))).body == b"mine"
