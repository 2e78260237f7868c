"""A TLS listener's door: who has connected but not yet said hello properly.

asyncio shows a connection only when its handshake is over, and until then counts
nothing. Here each one is accepted by hand, so that handshakes count towards the limit of
connections, end with the listener, and fail without a word: a scanner, a client that
doesn't trust the certificate, a health check that connects and leaves are everyday.
Plain HTTP is recognised by its first byte and gets an answer in plain HTTP.

Looks to uvicorn like an asyncio server: it has `close` and `wait_closed`.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from gateway.errors import BadRequest
from gateway.server.protocol import GatewayProtocol

if TYPE_CHECKING:
    from gateway.server.certificates import Certificates

_HANDSHAKE = 0x16
"""The content type that every TLS connection begins with (RFC 8446 §5.1)."""
_AT_ONCE = 64
"""Connections accepted in one go, before those that are open get their turn."""
_BREATHER_S = 1.0
"""Seconds to wait when the system has no more files to give; asyncio waits as long."""
_CLOSING_S = 30.0
"""Seconds for a client to take the last bytes and say goodbye (close_notify); asyncio's own number."""

log = logging.getLogger("gateway.server")

Factory = Callable[[], asyncio.Protocol]


class Misled(GatewayProtocol):
    """A connection that speaks plain HTTP where TLS is spoken: told so, and nothing of it is read."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        if not self._lingering:
            self.refuse(BadRequest("This port speaks HTTPS: begin the address with https://.", close=True))


class TlsDoor:
    """Accepts on one bound socket, and lets in who completes a handshake."""

    def __init__(
        self,
        listener: socket.socket,
        certificates: Certificates,
        *,
        secured: Factory,
        misled: Factory,
        timeout: float,
        has_room: Callable[[], bool],
        backlog: int,
    ) -> None:
        """`secured` makes the protocol of a connection, `misled` that of one which speaks plain HTTP.

        `timeout` (seconds) is for a whole handshake. `has_room` says whether one more may begin.
        """
        self._loop = asyncio.get_running_loop()
        self._listener, self._context = listener, certificates.context
        self._secured, self._misled = secured, misled
        self._timeout, self._has_room = timeout, has_room
        self._greeting: set[asyncio.Task[None]] = set()
        self._resting: asyncio.TimerHandle | None = None
        listener.listen(backlog)
        self._open()

    @property
    def greeting(self) -> int:
        """Handshakes under way."""
        return len(self._greeting)

    def close(self) -> None:
        """No more connections; unfinished handshakes end. What is open stays open."""
        self._loop.remove_reader(self._listener)
        if self._resting is not None:
            self._resting.cancel()
        for task in self._greeting:
            task.cancel()

    async def wait_closed(self) -> None:
        await asyncio.gather(*self._greeting, return_exceptions=True)

    def _open(self) -> None:
        self._loop.add_reader(self._listener, self._accept)

    def _accept(self) -> None:
        for _ in range(_AT_ONCE):
            try:
                connection, _ = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                log.error("can't accept connections: %s", error.strerror)
                self._loop.remove_reader(self._listener)
                self._resting = self._loop.call_later(_BREATHER_S, self._open)
                return
            if self._has_room():
                self._greet(connection)
            else:
                connection.close()

    def _greet(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        task = self._loop.create_task(self._let_in(connection))
        self._greeting.add(task)
        task.add_done_callback(self._greeting.discard)

    async def _let_in(self, connection: socket.socket) -> None:
        handed_over = False
        try:
            async with asyncio.timeout(self._timeout):
                first = await self._first_byte(connection)
                handed_over = bool(first)
                if first == _HANDSHAKE:
                    await self._secure(connection)
                elif first:
                    await self._loop.connect_accepted_socket(self._misled, connection)
        except OSError as error:  # TimeoutError and ssl.SSLError are some
            log.debug("a handshake failed", exc_info=error)
        finally:
            if not handed_over:
                connection.close()

    async def _secure(self, connection: socket.socket) -> None:
        await self._loop.connect_accepted_socket(
            self._secured,
            connection,
            ssl=self._context,
            ssl_handshake_timeout=self._timeout,
            ssl_shutdown_timeout=_CLOSING_S,
        )

    async def _first_byte(self, connection: socket.socket) -> int:
        """Looked at and left where it is; 0 from a client that left."""
        while True:
            with suppress(BlockingIOError):
                first = connection.recv(1, socket.MSG_PEEK)
                return first[0] if first else 0
            readable = self._loop.create_future()
            self._loop.add_reader(connection, _wake, readable)
            try:
                await readable
            finally:
                self._loop.remove_reader(connection)


def _wake(readable: asyncio.Future[None]) -> None:
    if not readable.done():
        readable.set_result(None)
