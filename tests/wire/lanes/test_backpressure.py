"""Nobody runs ahead: a slow client stops a fast backend, a slow backend a fast client."""

from __future__ import annotations

import asyncio

import pytest

from tests.support.backend import PATIENCE, Peer, response
from tests.support.lanes import H11, LANES, Yard
from tests.support.raw import RawClient, request

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("lane", [*LANES, H11])]

GET = request("/public")
BLOCK = b"x" * 65536
AHEAD = 32 * 1024 * 1024
"""What the kernel's buffers of two connections may take on the way, generously; the rest is the gateway's."""


async def test_a_fast_backend_waits_for_a_slow_client(lane: str, yard: Yard) -> None:
    written, stalled = 0, asyncio.Event()
    total = 4 * AHEAD

    async def script(peer: Peer) -> None:
        nonlocal written
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % total)
        while written < total:
            sending = asyncio.ensure_future(peer.send(BLOCK))
            done, _ = await asyncio.wait({sending}, timeout=0.2)
            if not done:
                stalled.set()
            await sending
            written += len(BLOCK)

    yard.plays(script)
    async with yard.connect(lane) as client:
        await client.send(request("/public", connection="close"))
        async with asyncio.timeout(PATIENCE):
            await stalled.wait()
        assert written < AHEAD
        await client.until(b"\r\n\r\n")
        assert len(await _everything(client)) == total


async def test_a_fast_client_waits_for_a_slow_backend(lane: str, big_yard: Yard) -> None:
    go, total, got = asyncio.Event(), 4 * AHEAD, 0

    async def script(peer: Peer) -> None:
        nonlocal got
        await peer.head()
        await go.wait()
        while got < total:
            got += len(await peer.read(1 << 20))
        await peer.send(response(b"all"))
        await peer.closed()

    big_yard.plays(script)
    async with big_yard.connect(lane) as client:
        await client.send(request("/public", method="POST", content_length=str(total)))
        written = 0
        while written < total:
            sending = asyncio.ensure_future(client.send(BLOCK))
            done, _ = await asyncio.wait({sending}, timeout=0.2)
            if not done:
                assert written < AHEAD
                go.set()
            await sending
            written += len(BLOCK)
        assert go.is_set(), "nobody ever waited"
        assert (await client.answer()).body == b"all"


async def _everything(client: RawClient) -> bytes:
    async with asyncio.timeout(PATIENCE):
        return await client.closed()


async def test_a_client_that_pipelines_without_reading_is_not_read_for_ever(lane: str, yard: Yard) -> None:
    """Large answers that nobody reads, and ever more requests: both stop."""
    yard.plays(_large)
    async with yard.connect(lane) as client:
        stalled = False
        for _ in range(2000):
            try:
                async with asyncio.timeout(0.3):
                    await client.send(GET * 1000)
            except TimeoutError:
                stalled = True
                break
        assert stalled
        asked = -1
        while asked != len(yard.backend.requests):  # as long as it goes on with what it has read
            asked = len(yard.backend.requests)
            assert asked * len(BLOCK) < AHEAD
            await asyncio.sleep(0.3)
        client.reset()


async def _large(peer: Peer) -> None:
    while True:
        await peer.request()
        await peer.send(response(BLOCK))
