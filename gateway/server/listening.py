"""Connections from their acceptance to the end of the drain, over uvicorn's server.

uvicorn's `Server` is what its protocol and its connections know. How it begins
is ours, because of TLS (`tls.py`); and so is how it ends: uvicorn waits for tasks,
of which a proxied exchange has none, and cuts without saying what.
"""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from uvicorn import Server

from gateway.server.protocol import GatewayConfig, GatewayProtocol
from gateway.server.sockets import BACKLOG
from gateway.server.tls import Misled, TlsDoor

if TYPE_CHECKING:
    from gateway.server.certificates import Certificates
    from gateway.server.cycle import ASGIApp
    from gateway.server.passage import Lane
    from gateway.server.terms import Terms

_POLL_S = 0.02
"""Seconds between two looks at what is still in flight."""
_CUT_S = 1.0
"""Seconds for the loop to tell everyone whose connection was cut; it takes two rounds of the loop."""


class Listening(Server):
    """uvicorn's server, as its protocol and its connections know it; how it begins and ends is ours."""

    def __init__(
        self,
        asgi: ASGIApp,
        terms: Terms,
        *,
        lane: Lane | None = None,
        drain: float,
        certificates: Certificates | None = None,
    ) -> None:
        config = GatewayConfig(asgi, terms, lane=lane, drain=drain)
        config.load()
        super().__init__(config)
        self.lifespan = config.lifespan_class(config)
        self._config, self._terms, self._certificates = config, terms, certificates
        self._doors: list[TlsDoor] = []

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        loop = asyncio.get_running_loop()
        self.servers = []
        for one in sockets or ():
            if self._certificates is not None and one.family != socket.AF_UNIX:
                self._doors.append(self._door(one, self._certificates))
            else:
                connect = partial(self._protocol, GatewayProtocol)
                self.servers.append(await loop.create_server(connect, sock=one, backlog=BACKLOG))
        self.servers += self._doors  # type: ignore[arg-type]  # closed and waited for, no more is asked of them
        self.started = True

    async def end(self, sockets: list[socket.socket]) -> int:
        """Stop accepting, let what is in flight finish within the drain time, cut the rest: so many."""
        for server in self.servers:
            server.close()
        for one in sockets:
            one.close()
        for door in self._doors:
            await door.wait_closed()
        await self._finished()
        left, tasks = list(self.server_state.connections), list(self.server_state.tasks)
        for connection in left:
            connection.transport.abort()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._forgotten()
        return len(left)

    def forget(self) -> None:
        """What connections remember of heads, and with it the rules that they were judged by."""
        self._config.memory.forget()

    async def _finished(self) -> None:
        """Returns when nothing is in flight, when the drain time is over, or in a hurry."""
        told: set[object] = set()
        with suppress(TimeoutError):
            async with asyncio.timeout(self._config.drain):
                while not self.force_exit:
                    # Again and again, as one may have been accepted in the last moment.
                    for connection in self.server_state.connections - told:
                        told.add(connection)
                        connection.shutdown()
                    if not self.server_state.connections and not self.server_state.tasks:
                        return
                    await asyncio.sleep(_POLL_S)

    async def _forgotten(self) -> None:
        """Returns when the requests that were cut are accounted for."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_CUT_S):
                while self.server_state.connections:  # noqa: ASYNC110 (nobody sets an event for it)
                    await asyncio.sleep(0)

    def _door(self, listener: socket.socket, certificates: Certificates) -> TlsDoor:
        return TlsDoor(
            listener,
            certificates,
            secured=partial(self._protocol, GatewayProtocol),
            misled=partial(self._protocol, Misled),
            timeout=self._terms.timeouts.headers,
            has_room=self._has_room,
            backlog=BACKLOG,
        )

    def _protocol(self, kind: type[GatewayProtocol]) -> GatewayProtocol:
        return kind(self._config, self.server_state, self.lifespan.state)

    def _has_room(self) -> bool:
        greeting = sum(door.greeting for door in self._doors)
        return len(self.server_state.connections) + greeting < self._terms.limits.connections
