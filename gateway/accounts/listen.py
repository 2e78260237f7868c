"""Hearing of new cut-offs from PostgreSQL at once (LISTEN), instead of at the next poll.

A notice says only that there is something to read. What is true stands in the table:
anybody who may connect to the database may NOTIFY, and must not be able to end a session.

Nothing depends on it: the feed polls all the same. A connection may be half dead, and a pooler
in between (PgBouncer in transaction mode) swallows notices without a word. So the listener first
tells something to itself, through another connection, and believes in notices when it has heard
that. Until then it tries again and again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from functools import partial
from typing import TYPE_CHECKING, Final
from uuid import uuid4

from sqlalchemy import Connection, text

from gateway.accounts.database import Database
from gateway.accounts.store import CUTOFFS_CHANNEL
from gateway.errors import GatewayError

if TYPE_CHECKING:
    from psycopg import AsyncConnection

GAP_S: Final = 0.05
"""Between two looks. What comes meanwhile is one look together, so that a mass of logouts costs little."""
RETRY_S: Final = 5.0
"""Between two tries to connect."""
ECHO_S: Final = 5.0
"""How long what the listener tells itself may take to come."""
DEAF_RETRY_S: Final = 60.0
"""Between two tries where nothing came: that is a setting of somebody's, and no accident."""

_log = logging.getLogger(__name__)


class Listener:
    """Calls `hear` when there are new cut-offs. For PostgreSQL only."""

    def __init__(
        self, database: Database, hear: Callable[[], Awaitable[None]], *, echo: float = ECHO_S
    ) -> None:
        self._database = database
        self._hear = hear
        self._echo = echo
        self.connected = asyncio.Event()
        """Set while notices can come."""
        self.deaf = False
        """Whether a connection was there, and notices did not come."""

    async def run(self, *, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        """Until cancelled."""
        from psycopg import AsyncConnection, Error

        while True:
            try:
                connection = await AsyncConnection.connect(**self._database.dial(), autocommit=True)
                async with connection:
                    if await self._hears_itself(connection):
                        await self._listen(connection, sleep)
            except (Error, OSError, GatewayError) as error:
                if self.connected.is_set():
                    _log.info("no longer told of cut-offs at once: %s", str(error).partition("\n")[0])
            self.connected.clear()
            await sleep(DEAF_RETRY_S if self.deaf else RETRY_S)

    async def _hears_itself(self, connection: AsyncConnection[object]) -> bool:
        said = uuid4().hex
        try:
            async with asyncio.timeout(self._echo):
                await connection.execute(f"LISTEN {CUTOFFS_CHANNEL}")
                await self._database.write(partial(_tell, said=said))
                async with aclosing(connection.notifies()) as notices:
                    async for notice in notices:
                        if notice.payload == said:
                            break
        except TimeoutError:
            self._note(deaf=True)
            return False
        self._note(deaf=False)
        return True

    def _note(self, *, deaf: bool) -> None:
        if deaf and not self.deaf:
            _log.warning(
                "not told of cut-offs at once: notices of PostgreSQL do not arrive, as behind a pooler in"
                " transaction mode; cut-offs are asked for every second all the same"
            )
        elif self.deaf and not deaf:
            _log.info("told of cut-offs at once again")
        self.deaf = deaf

    async def _listen(
        self, connection: AsyncConnection[object], sleep: Callable[[float], Awaitable[None]]
    ) -> None:
        self.connected.set()
        while True:
            await self._hear()  # also of what was told before it listened
            await sleep(GAP_S)
            async for _ in connection.notifies(stop_after=1):
                pass


def _tell(connection: Connection, *, said: str) -> None:
    connection.execute(text("SELECT pg_notify(:channel, :said)"), {"channel": CUTOFFS_CHANNEL, "said": said})
