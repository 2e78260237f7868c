"""Reads API tokens that a process does not know yet, so that no flood of them can hurt the database.

Requests with the same token wait for one reading. At most `AT_ONCE` readings run, so
logins always find a thread; `WAITING` more may wait, and the next one is told to come
back (503). Whatever goes wrong with the database is a 503 too: who knows a token goes on,
and nobody is let in, or turned away for good, on a guess.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

from gateway.errors import GatewayError, GatewayTimeout, Overloaded, Unavailable
from gateway.identity.known_tokens import KnownTokens
from gateway.identity.principal import Principal

AT_ONCE: Final = 2
"""Half of the threads that read (see `database`)."""
WAITING: Final = 256
"""As many as may wait for those threads at all."""
PATIENCE_S: Final = 5.0
"""For one token, the waiting included."""


class TokenLookup:
    """`read` gives whom a digest stands for now, or None."""

    def __init__(self, read: Callable[[bytes], Awaitable[Principal | None]], known: KnownTokens) -> None:
        self._read = read
        self._known = known
        self._room = asyncio.Semaphore(AT_ONCE)
        self._flights: dict[bytes, asyncio.Task[GatewayError | None]] = {}

    async def learn(self, digest: bytes) -> None:
        """Afterwards `KnownTokens.find` has an answer. Raises Unavailable."""
        flight = self._flights.get(digest)
        if flight is None:
            if len(self._flights) >= AT_ONCE + WAITING:
                raise Overloaded(retry_after=1)
            flight = self._flights[digest] = asyncio.create_task(self._fly(digest))
            flight.add_done_callback(partial(self._landed, digest))
        failure = await asyncio.shield(flight)  # a client that leaves takes nobody's answer away
        if failure is not None:
            raise failure

    async def close(self) -> None:
        """Let go of what is under way."""
        for flight in self._flights.values():
            flight.cancel()
        await asyncio.gather(*self._flights.values(), return_exceptions=True)

    async def _fly(self, digest: bytes) -> GatewayError | None:
        try:
            async with asyncio.timeout(PATIENCE_S), self._room:
                principal = await self._read(digest)
        except Unavailable as error:
            return error
        except (GatewayTimeout, TimeoutError):
            return Unavailable(retry_after=1)
        if principal is None:
            self._known.remember_unknown(digest)
        else:
            self._known.remember(digest, principal)
        return None

    def _landed(self, digest: bytes, _: object) -> None:
        del self._flights[digest]
