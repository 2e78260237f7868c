"""A WebSocket server that says what it hears (`python -m benchmarks.echo PORT`), and a client that counts."""

from __future__ import annotations

import asyncio
import sys
import time

import uvloop
from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import InvalidHandshake, WebSocketException

from benchmarks.stage import Unfit

_MESSAGE = "x" * 64
_TIMEOUT = 5


def messages(port: int, token: str, *, connections: int, seconds: float) -> int:
    """Messages that came back. Raises Unfit if there is no WebSocket to be had."""
    try:
        return uvloop.run(_count(port, token, connections, seconds))
    except InvalidHandshake as error:
        raise Unfit(f"not available: {error}") from error
    except TimeoutError as error:
        raise Unfit(f"no echo within {_TIMEOUT} s") from error
    except (WebSocketException, OSError) as error:
        raise Unfit(f"a WebSocket broke: {error}") from error


async def _count(port: int, token: str, connections: int, seconds: float) -> int:
    headers = {"Authorization": f"Bearer {token}"}
    uri = f"ws://127.0.0.1:{port}/socket"
    opening = [
        connect(uri, additional_headers=headers, compression=None, open_timeout=_TIMEOUT, close_timeout=1)
        for _ in range(connections)
    ]
    sockets: list[ClientConnection] = []
    try:
        sockets += await asyncio.gather(*(_open(each) for each in opening))
        deadline = time.monotonic() + seconds
        async with asyncio.timeout(seconds + _TIMEOUT):
            return sum(await asyncio.gather(*(_talk(socket, deadline) for socket in sockets)))
    finally:
        # All at once: some proxies keep a closed connection for a second.
        await asyncio.gather(*(socket.close() for socket in sockets))


async def _open(opening: connect) -> ClientConnection:
    return await opening


async def _talk(socket: ClientConnection, deadline: float) -> int:
    count = 0
    while time.monotonic() < deadline:
        await socket.send(_MESSAGE)
        if await socket.recv() != _MESSAGE:
            raise Unfit("a message came back as another one")
        count += 1
    return count


async def _echo(socket: ServerConnection) -> None:
    async for message in socket:
        await socket.send(message)


async def _serve(port: int) -> None:
    async with serve(_echo, "127.0.0.1", port, compression=None) as server:
        await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(_serve(int(sys.argv[1])))
