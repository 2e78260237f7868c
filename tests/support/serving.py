"""The hardened server around any ASGI app, in the test's own loop, on a port of its own.

async with serving(app) as served:
    async with connect(served.address) as client: …
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

from uvicorn.server import ServerState

from gateway.server.protocol import GatewayConfig, GatewayProtocol
from gateway.server.terms import Limits, Refusal, Terms, Timeouts, Watch
from tests.support.raw import PATIENCE


@dataclass(slots=True)
class Served:
    """A running server."""

    address: tuple[str, int]
    """Where it listens."""
    refusals: list[Refusal]
    """What the server room answered by itself."""
    state: ServerState
    """uvicorn's: open connections, running tasks."""
    watch: Watch
    """`watch.look()` expires what is due by the clock that was handed in."""

    @property
    def host(self) -> str:
        return self.address[0]

    @property
    def port(self) -> int:
        return self.address[1]

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    async def quiet(self) -> None:
        """Returns when no connection is open and no app is running."""
        await until(lambda: not self.state.connections and not self.state.tasks)


@contextlib.asynccontextmanager
async def serving(
    app: Any, *, limits: Limits | None = None, timeouts: Timeouts | None = None, clock: Any = None
) -> AsyncIterator[Served]:
    """Serves until the block ends; what is still running then is cancelled."""
    refusals: list[Refusal] = []
    terms = Terms(limits or Limits(), timeouts or Timeouts(), refusals.append, clock)
    config = GatewayConfig(app, terms)
    config.load()
    state = ServerState()
    loop = asyncio.get_running_loop()
    watch = config.shared_watch(loop)
    server = await loop.create_server(lambda: GatewayProtocol(config, state, {}), "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()[:2]
    try:
        yield Served((host, port), refusals, state, watch)
    finally:
        server.close()
        await _end(state)


async def _end(state: ServerState) -> None:
    for connection in list(state.connections):
        connection.transport.abort()
    tasks = list(state.tasks)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await until(lambda: not state.connections)


async def until(true: Callable[[], object]) -> None:
    """Lets the loop run until `true()`; fails after ten seconds."""
    async with asyncio.timeout(PATIENCE):
        while not true():  # noqa: ASYNC110 (what is awaited sets no event)
            await asyncio.sleep(0.001)


@dataclass(slots=True)
class Echo:
    """An app that answers 200 with the body it got, and remembers every request it saw."""

    seen: list[dict[str, Any]] = field(default_factory=list)
    """Scopes."""
    bodies: list[bytes] = field(default_factory=list)
    """Whole bodies, in the order they were complete."""
    disconnects: int = 0
    """How often a client was gone before its body was complete."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.seen.append(scope)
        body = await read_body(receive)
        if body is None:
            self.disconnects += 1
            return
        self.bodies.append(body)
        headers = [(b"content-length", b"%d" % len(body)), (b"x-path", scope["raw_path"])]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})


async def read_body(receive: Any) -> bytes | None:
    """The whole body, or None if the client left before its end."""
    body = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        body += message["body"]
        if not message["more_body"]:
            return body
