"""Hearing of new cut-offs from PostgreSQL at once (LISTEN), instead of at the next poll.

A notice says only that there is something to read. What is true stands in the table:
anybody who may connect to the database may NOTIFY, and must not be able to end a session.

Nothing depends on it. A pooler in between (PgBouncer in transaction mode) swallows
notices, a connection may be half dead; the feed polls all the same. So it is asked for
again and again, and nobody is troubled when it is missing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final

from gateway.accounts.database import Database
from gateway.accounts.store import CUTOFFS_CHANNEL

if TYPE_CHECKING:
    from psycopg import AsyncConnection

GAP_S: Final = 0.05
"""Between two looks. What comes meanwhile is one look together, so that a mass of logouts costs little."""
RETRY_S: Final = 5.0
"""Between two tries to connect."""

_log = logging.getLogger(__name__)


class Listener:
    """Calls `hear` when there are new cut-offs. For PostgreSQL only."""

    def __init__(self, database: Database, hear: Callable[[], Awaitable[None]]) -> None:
        self._database = database
        self._hear = hear
        self.connected = asyncio.Event()
        """Set while notices can come."""

    async def run(self, *, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        """Until cancelled."""
        from psycopg import AsyncConnection, Error

        while True:
            try:
                connection = await AsyncConnection.connect(**self._database.dial(), autocommit=True)
                async with connection:
                    await self._listen(connection, sleep)
            except (Error, OSError) as error:
                if self.connected.is_set():
                    _log.info("no longer told of cut-offs at once: %s", str(error).partition("\n")[0])
            self.connected.clear()
            await sleep(RETRY_S)

    async def _listen(
        self, connection: AsyncConnection[object], sleep: Callable[[float], Awaitable[None]]
    ) -> None:
        await connection.execute(f"LISTEN {CUTOFFS_CHANNEL}")
        self.connected.set()
        while True:
            await self._hear()  # also of what was told before it listened
            await sleep(GAP_S)
            async for _ in connection.notifies(stop_after=1):
                pass
