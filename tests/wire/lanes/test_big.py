"""Two hundred megabytes either way, through both lanes, in a few megabytes of memory."""

from __future__ import annotations

import gc
import os

import psutil
import pytest

from tests.support.backend import Peer, response
from tests.support.lanes import LANES, Yard
from tests.support.raw import request

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("lane", LANES)]

BIG = 200 * 1024 * 1024
BLOCK = b"x" * 262_144
GROWTH = 16 * 1024 * 1024
"""Bytes. The test's own client and backend are in this process too, and buffer as well."""


class Memory:
    """The most this process held since the beginning."""

    def __init__(self) -> None:
        gc.collect()
        self._process = psutil.Process(os.getpid())
        self._before = self._process.memory_info().rss
        self.growth = 0

    def look(self) -> None:
        self.growth = max(self.growth, self._process.memory_info().rss - self._before)


@pytest.mark.parametrize("framing", ["length", "chunked", "until the end"])
async def test_a_download(framing: str, lane: str, big_yard: Yard) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        line = {"length": b"Content-Length: %d\r\n" % BIG, "chunked": b"Transfer-Encoding: chunked\r\n"}
        await peer.send(b"HTTP/1.1 200 OK\r\n" + line.get(framing, b"") + b"\r\n")
        for _ in range(BIG // len(BLOCK)):
            await peer.send(b"%x\r\n%b\r\n" % (len(BLOCK), BLOCK) if framing == "chunked" else BLOCK)
        if framing == "chunked":
            await peer.send(b"0\r\n\r\n")

    big_yard.plays(script)
    async with big_yard.connect(lane) as client:
        await client.send(request("/public"))
        head = (await client.until(b"\r\n\r\n")).lower()
        memory, got = Memory(), 0
        if framing == "length":
            while got < BIG:
                got += len(await client.some())
                memory.look()
        else:
            assert b"transfer-encoding: chunked" in head
            while size := int(await client.until(b"\r\n"), 16):
                await client.read(size + 2)
                got += size
                memory.look()
            assert await client.until(b"\r\n") == b"\r\n"
        assert got == BIG
    assert memory.growth < GROWTH, f"{memory.growth / 2**20:.1f} MiB"


@pytest.mark.parametrize("framing", ["length", "chunked"])
async def test_an_upload(framing: str, lane: str, big_yard: Yard) -> None:
    got = 0

    async def script(peer: Peer) -> None:
        nonlocal got
        seen = await peer.head()
        if seen.all(b"transfer-encoding"):
            while size := int(await peer.reader.readuntil(b"\r\n"), 16):
                got += len(await peer.reader.readexactly(size + 2)) - 2
            assert await peer.reader.readexactly(2) == b"\r\n"
        else:
            while got < BIG and (data := await peer.read(262_144)):
                got += len(data)
        await peer.send(response(b"got it"))
        await peer.closed()

    big_yard.plays(script)
    async with big_yard.connect(lane) as client:
        size = {"content_length": str(BIG)} if framing == "length" else {"transfer_encoding": "chunked"}
        await client.send(request("/public", method="POST", **size))
        memory = Memory()
        for _ in range(BIG // len(BLOCK)):
            await client.send(BLOCK if framing == "length" else b"%x\r\n%b\r\n" % (len(BLOCK), BLOCK))
            memory.look()
        if framing == "chunked":
            await client.send(b"0\r\n\r\n")
        assert (await client.answer()).body == b"got it"
    assert got == BIG
    assert memory.growth < GROWTH, f"{memory.growth / 2**20:.1f} MiB"
