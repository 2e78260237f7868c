"""One connection to a backend, and how it ends."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest

from gateway.proxy.upstream.address import Address
from gateway.proxy.upstream.connection import Connection
from gateway.proxy.upstream.server import Server
from gateway.proxy.upstream.settings import Ejection
from tests.support.backend import Backend, Peer
from tests.support.forwarding import until

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, bool]]:
    return "asyncio", {"use_uvloop": request.param == "uvloop"}


class Home:
    """Counts what is open."""

    def __init__(self) -> None:
        self.connections = 0

    def opened(self, connection: Connection) -> None:
        self.connections += 1

    def gone(self, connection: Connection) -> None:
        self.connections -= 1


async def test_the_last_words_are_delivered_and_their_deadline_finds_nothing_left_to_close() -> None:
    size, got, go_on = 16 * 1024 * 1024, 0, asyncio.Event()

    async def script(peer: Peer) -> None:
        nonlocal got
        await go_on.wait()
        while data := await peer.read():
            got += len(data)

    async with Backend(script) as backend:
        home, address = Home(), Address.from_url(backend.url)
        connection = Connection(home, Server(address, Ejection()))
        transport = cast(asyncio.Transport, await address.open(lambda: connection, None))
        connection.write(b"x" * size)
        connection.end()
        assert home.connections == 0
        assert transport.get_write_buffer_size() > 0
        go_on.set()
        await until(lambda: got == size)
        await backend.peers[0].ended.wait()
        connection.abort()
        assert connection.is_stale()


async def test_one_that_has_just_broken_is_ended_in_peace() -> None:
    async def script(peer: Peer) -> None:
        await peer.closed()

    async with Backend(script) as backend:
        home, address = Home(), Address.from_url(backend.url)
        connection = Connection(home, Server(address, Ejection()))
        transport = cast(asyncio.Transport, await address.open(lambda: connection, None))
        transport.abort()  # as when a read or a write fails: `connection_lost` comes a moment later
        connection.end()
        assert home.connections == 0
        await backend.peers[0].ended.wait()
