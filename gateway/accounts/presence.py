"""Which processes serve from this database: each has a row, and renews it.

That answers two questions that nobody else asks while nothing happens. Is there
another process, so that limits counted in memory are counted apart? And can the
database still be written? A disk that is full or became read-only lets every
reader go on, and the first to notice would be somebody who logs in.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

from sqlalchemy import Connection, delete, func, insert, select, update

from gateway.accounts.database import Database
from gateway.accounts.ids import new_id
from gateway.accounts.tables import replicas
from gateway.errors import GatewayError

BEAT_S: Final = 30.0
"""Between two renewals."""
RETRY_S: Final = 5.0
"""After one that failed."""
GONE_S: Final = 3 * BEAT_S
"""Who was silent for so long is counted no more, and forgotten."""
LEAVING_S: Final = 2.0
"""How long a process that ends tries to say so."""

_log = logging.getLogger(__name__)


class Presence:
    """This process among the others on the same database."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._id = ""
        self._since = 0.0
        self.healthy = True
        """Whether the last renewal was written."""
        self.others = 0
        """Processes that have shown themselves since this one began."""

    async def run(self, *, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        """Renew until cancelled."""
        while True:
            await self.beat()
            await sleep(BEAT_S if self.healthy else RETRY_S)

    async def beat(self) -> None:
        """Never raises."""
        try:
            self.others = await self._database.write(self._renew)
        except Exception as error:
            if self.healthy:
                defect = None if isinstance(error, GatewayError) else error
                _log.warning("the database can't be written: %s", error, exc_info=defect)
            self.healthy = False
        else:
            self.healthy = True

    async def leave(self) -> None:
        """Don't let the others count who is gone. Never raises, and takes no longer than a moment."""
        gone = delete(replicas).where(replicas.c.id == self._id)
        with suppress(GatewayError):
            await self._database.write(lambda each: each.execute(gone).close(), deadline=LEAVING_S)

    def _renew(self, connection: Connection) -> int:
        now = self._database.now(connection)
        renewed = update(replicas).where(replicas.c.id == self._id).values(seen_at=now)
        if not self._id or connection.execute(renewed).rowcount == 0:
            self._id, self._since = new_id(now), now
            connection.execute(insert(replicas).values(id=self._id, seen_at=now))
        connection.execute(delete(replicas).where(replicas.c.seen_at < now - GONE_S))
        # Whoever was killed before this process began left a row and is not there.
        others = replicas.c.id != self._id, replicas.c.seen_at > self._since
        return int(connection.execute(select(func.count()).where(*others)).scalar_one())
