"""Takes audit events that belong to no transaction to the table, without anybody waiting for it.

A failed login must not cost a transaction of its own: a storm of them would hold up the one
writer of SQLite. So they wait here, and once a second all of them are written in one. What this
process has not written when it is killed is in the log only.

Anybody can make such events, so the table takes a bounded number of each kind: `BURST`, and then
`PER_SECOND`. By kind, so that a flood of failed logins hides no limit that was reached. What is
beyond that, or finds no room while the database is away, is in the log only as well. How many
that were is counted, and said now and then.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict, deque
from itertools import islice
from typing import Final

from gateway.accounts import trail
from gateway.accounts.database import Database
from gateway.errors import GatewayTimeout, Unavailable
from gateway.telemetry.audit import Recorded

BURST: Final = 1000
"""Events of one kind that are taken at once."""
PER_SECOND: Final = 1.0
"""Events of one kind that are taken for long: some 86,000 a day, 30 MB."""
ROOM: Final = 4 * BURST
"""Events that wait at the most."""
BATCH: Final = 250
"""Rows of one transaction."""
FLUSH_S: Final = 1.0
"""Between two looks at what waits."""
RETRY_S: Final = 10.0
"""After a failure."""
SAY_EVERY_S: Final = 60.0
"""Between two lines that say how many are only in the log."""
LAST_S: Final = 3.0
"""How long a process that stops tries to write what waits."""

log = logging.getLogger(__name__)


class TrailWriter:
    """A bounded queue in front of the table. `put` never waits and never fails."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiting: deque[Recorded] = deque()
        self._allowances: defaultdict[str, _Allowance] = defaultdict(_Allowance)
        self._closing = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._said, self._quiet_until = 0, 0.0
        self.dropped = 0
        """Events that are only in the log."""

    def put(self, recorded: Recorded) -> None:
        allowance = self._allowances[recorded.event.name]
        if len(self._waiting) >= ROOM or not allowance.take(recorded.time):
            self.dropped += 1
        else:
            self._waiting.append(recorded)

    def start(self) -> None:
        self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        """Write what waits, if that is possible soon. Call it before the database is closed."""
        self._closing.set()
        if self._task is not None:
            await self._task
        self._give_up(len(self._waiting))

    async def flush(self, *, deadline: float | None = None) -> None:
        """Write what waits. Raises what the database raises; then it still waits."""
        while batch := tuple(islice(self._waiting, BATCH)):
            await self._write(batch, deadline)
            for _ in batch:
                self._waiting.popleft()

    async def _write(self, batch: tuple[Recorded, ...], deadline: float | None) -> None:
        """After a time-out a batch may be there twice: better than not at all."""
        try:
            await self._database.write(lambda connection: trail.add(connection, batch), deadline=deadline)
        except (Unavailable, GatewayTimeout):
            raise
        except Exception:
            log.exception("audit events can't be written; they are only in the log")
            self.dropped += len(batch)

    async def _run(self) -> None:
        pause = FLUSH_S
        while not await self._is_closing(pause):
            pause = FLUSH_S if await self._try(None) else RETRY_S
        await self._try(LAST_S)

    async def _is_closing(self, within: float) -> bool:
        try:
            async with asyncio.timeout(within):
                return await self._closing.wait()
        except TimeoutError:
            return False

    async def _try(self, deadline: float | None) -> bool:
        try:
            await self.flush(deadline=deadline)
        except (Unavailable, GatewayTimeout):
            return False
        finally:
            self._say()
        return True

    def _give_up(self, count: int) -> None:
        self.dropped += count
        self._say()

    def _say(self) -> None:
        now = asyncio.get_running_loop().time()
        if self.dropped > self._said and (now >= self._quiet_until or self._closing.is_set()):
            log.warning("audit events are only in the log", extra={"count": self.dropped - self._said})
            self._said, self._quiet_until = self.dropped, now + SAY_EVERY_S


class _Allowance:
    """A bucket of `BURST` events that fills by `PER_SECOND`."""

    def __init__(self) -> None:
        self._left: float = BURST
        self._at = 0.0

    def take(self, now: float) -> bool:
        self._left = min(float(BURST), self._left + max(0.0, now - self._at) * PER_SECOND)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True
