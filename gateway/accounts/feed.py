"""Cut-offs out of the database: how a change made by one process is felt in all the others.

`load` reads every cut-off that still matters, before the process is ready. `run`
then asks once a second for those recorded since. A row is stamped when its
transaction begins and seen when that commits, and clocks may be set back; so each
question goes back `OVERLAP_S` seconds before the last one, and once a minute it
goes back to the beginning. Applying a cut-off twice changes nothing.

While the database is away the feed is not `healthy` and keeps asking: tokens
that were verified go on being good, which is what the gateway promises then.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from sqlalchemy import Connection

from gateway.accounts import trail
from gateway.accounts.database import Database
from gateway.accounts.store import PRUNED_AT_ONCE, Store
from gateway.errors import GatewayError
from gateway.identity.revocation import Cut

POLL_S: Final = 1.0
"""A change is felt everywhere within a second or two."""
OVERLAP_S: Final = 30.0
"""Longer than a transaction may take (see `database`)."""
FULL_LOAD_EVERY: Final = 60
"""Polls between two readings of everything."""
PRUNE_EVERY: Final = 3600
"""Polls between two clean-ups."""
KEEP_EXPIRED_S: Final = 86_400.0
"""A session's row stays a day after its last refresh token expired, for those who look into something."""

_log = logging.getLogger(__name__)


class Feed:
    """Hands every live cut-off to `apply`, on the event loop, at least once."""

    def __init__(
        self,
        database: Database,
        apply: Callable[[Cut], None],
        *,
        audit_retention: float | None = None,
    ) -> None:
        """Audit events are kept for `audit_retention` seconds; None is for ever."""
        self._database = database
        self._apply = apply
        self._audit_retention = audit_retention
        self._read_until = 0.0
        self._polls = 0
        self.healthy = False
        """Whether the last reading worked."""

    async def load(self) -> None:
        """Every live cut-off. Raises what the database raises: a process that can't must not be ready."""
        await self._read(since=0.0)

    async def poll(self) -> None:
        """What was recorded lately, or everything now and then. Never raises: the feed lives on."""
        self._polls += 1
        full = self._polls % FULL_LOAD_EVERY == 0 or not self.healthy
        try:
            await self._read(since=0.0 if full else self._read_until - OVERLAP_S)
            if self._polls % PRUNE_EVERY == 0:
                await self.prune()
        except Exception as error:
            if self.healthy:
                defect = None if isinstance(error, GatewayError) else error
                _log.warning("cut-offs can't be read: %s", error, exc_info=defect)
            self.healthy = False

    async def run(self, *, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        """Poll until cancelled."""
        while True:
            await sleep(POLL_S)
            await self.poll()

    async def prune(self) -> None:
        """Delete what no token can meet any more, and old audit events, a batch at a time."""
        while await self._database.write(self._prune) >= PRUNED_AT_ONCE:
            pass

    async def _read(self, *, since: float) -> None:
        now, cuts = await self._database.read(lambda connection: self._since(connection, since))
        for cut in cuts:
            self._apply(cut)
        self._read_until = now
        self.healthy = True

    def _since(self, connection: Connection, since: float) -> tuple[float, list[Cut]]:
        now = self._database.now(connection)
        return now, Store(connection).cuts(now=now, since=since)

    def _prune(self, connection: Connection) -> int:
        now = self._database.now(connection)
        pruned = Store(connection).prune(now=now, expired_before=now - KEEP_EXPIRED_S)
        if self._audit_retention is not None:
            pruned += trail.prune(connection, before=now - self._audit_retention)
        return pruned
