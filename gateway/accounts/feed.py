"""Cut-offs out of the database: how a change made by one process is felt in all the others.

`load` reads every cut-off that still matters, before the process is ready. `run`
then asks once a second for those recorded since. A row is stamped when its
transaction begins and seen when that commits, so each question goes back `OVERLAP_S`
seconds before the last one. Clocks may be set back, so rows with a higher number than
any before count as new whenever they are stamped. A backup may be restored, so now and
then everything is read again. Applying a cut-off twice changes nothing. After a mass of
cut-offs, the database only counts those of the last `OVERLAP_S` seconds, unless there are
more than were read: then some were committed late.

That bounds how late a cut-off may be. On PostgreSQL most are much earlier: who commits
one says so (NOTIFY), and `listen` looks at once (`catch_up`). Nothing depends on it.
On SQLite a file that nobody has changed is not read for it: that is one number in memory.

A session that merely runs out is no change, and nobody writes a cut-off. Its access tokens
end by themselves; but streams and tunnels outlive those, so each reading also asks which
sessions came to their end since the last, and cuts them off in this process.

While the database is away the feed is not `healthy` and keeps asking: tokens
that were verified go on being good, unless `Cutoffs.believed_until` says otherwise.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

from sqlalchemy import Connection

from gateway.accounts import trail
from gateway.accounts.database import WATCH_DEADLINE_S, Database
from gateway.accounts.store import PRUNED_AT_ONCE, Store
from gateway.errors import GatewayError
from gateway.identity.revocation import Cut

POLL_S: Final = 1.0
"""A change is felt everywhere within a second or two."""
OVERLAP_S: Final = 30.0
"""Longer than a transaction may take (see `database`)."""
OVERLAP_ROWS: Final = 100
"""How far `catch_up` goes back, for rows that were numbered before others and committed after them."""
CROWD: Final = 2000
"""More of the last `OVERLAP_S` are too many to be read again each second: 10 µs of processor time each."""
CROWDED_EVERY: Final = 5
"""Polls between two readings of all of them then; the others count them and read the newest."""
LOAD_DEADLINE_S: Final = 60.0
"""How long reading everything may take: there may be very many, on a machine that is busy."""
FULL_LOAD_EVERY: Final = 600
"""Polls between two readings of everything."""
BREATH: Final = 1000
"""Cut-offs applied in one go; then requests have their turn."""
PRUNE_EVERY: Final = 3600
"""Polls between two clean-ups."""
PRUNE_FIRST: Final = 60
"""Polls before the first: also a process that is started anew every hour cleans up."""
IN_FLIGHT_S: Final = 0.25
"""A session's end is left alone for so long: a refresh that came in time may not be committed yet."""
LEEWAY_S: Final = 360.0
"""A token of a session that ran out is let in no longer than that: the longest leeway, and a minute between
the clocks of two machines."""
KEEP_EXPIRED_S: Final = 86_400.0
"""A session's row stays a day after its last refresh token expired, for those who look into something."""

_log = logging.getLogger(__name__)


class Feed:
    """Hands every live cut-off to `apply`, on the event loop, at least once.

    `stopwatch` counts the seconds of this process; `on_read` hears, after each reading,
    when by that clock it was begun: everything committed before is known now.
    Audit events are kept for `audit_retention` seconds; None is for ever.
    """

    def __init__(
        self,
        database: Database,
        apply: Callable[[Cut], None],
        *,
        on_read: Callable[[float], None] = lambda begun: None,
        stopwatch: Callable[[], float] = time.monotonic,
        audit_retention: float | None = None,
    ) -> None:
        self._database = database
        self._apply = apply
        self._on_read = on_read
        self._stopwatch = stopwatch
        self._audit_retention = audit_retention
        self._read_until = 0.0
        self._highest = 0
        self._polls = 0
        self._crowded = False
        self._window = 0.0
        self._counted = 0
        self._read_at = stopwatch()
        self.healthy = False
        """Whether the last reading worked."""

    @property
    def age(self) -> float:
        """Seconds since the last reading that worked was begun."""
        return self._stopwatch() - self._read_at

    async def load(self) -> None:
        """Every live cut-off. Raises what the database raises: a process that can't must not be ready."""
        await self._read(self._everything)

    async def poll(self) -> None:
        """What was recorded lately, or everything now and then. Never raises: the feed lives on."""
        self._polls += 1
        full = self._polls % FULL_LOAD_EVERY == 0 or not self.healthy
        brief = self._crowded and self._polls % CROWDED_EVERY
        question = self._everything if full else self._briefly if brief else self._lately
        await self._try(self._read, question)
        if self._polls % PRUNE_EVERY == PRUNE_FIRST % PRUNE_EVERY:
            await self._try(self.prune)

    async def catch_up(self) -> None:
        """What came since the last reading, as cheaply as that can be known. Never raises."""
        await self._try(self._read, self._newest if self.healthy else self._everything)

    async def run(self, *, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        """Poll until cancelled."""
        while True:
            await sleep(POLL_S)
            await self.poll()

    async def prune(self) -> None:
        """Delete what no token can meet any more, and old audit events, a batch at a time."""
        while await self._database.write(self._prune) >= PRUNED_AT_ONCE:
            pass

    async def _try(self, work: Callable[..., Awaitable[None]], *arguments: object) -> None:
        try:
            await work(*arguments)
        except Exception as error:
            if self.healthy:
                defect = None if isinstance(error, GatewayError) else error
                _log.warning("cut-offs can't be read: %s", error, exc_info=defect)
            self.healthy = False

    async def _read(self, question: Callable[[Connection], _Found]) -> None:
        begun = self._stopwatch()
        deadline = LOAD_DEADLINE_S if question == self._everything else WATCH_DEADLINE_S
        found, over = await self._database.watch(partial(self._ask, question), deadline=deadline)
        for number, cut in enumerate([*(cut for _, cut in found.cuts), *over]):
            self._apply(cut)
            if number % BREATH == BREATH - 1:
                await asyncio.sleep(0)
        if found.window is not None:
            self._window, self._counted = found.window, len(found.cuts)
            self._crowded = len(found.cuts) > CROWD
        else:
            self._counted += sum(seq > self._highest for seq, _ in found.cuts)
        self._read_until = found.now
        self._highest = max((seq for seq, _ in found.cuts), default=found.highest)
        self._read_at = begun
        self.healthy = True
        self._on_read(begun)

    def _ask(
        self, question: Callable[[Connection], _Found], connection: Connection
    ) -> tuple[_Found, list[Cut]]:
        """Its answer, and the sessions that ran out since the last reading."""
        found = question(connection)
        since = self._read_until or found.now
        if question == self._everything:
            since -= LEEWAY_S
        over = Store(connection).run_out(since=since - IN_FLIGHT_S, until=found.now - IN_FLIGHT_S)
        return found, [Cut("session", id, 0, found.now + LEEWAY_S) for id in over]

    def _everything(self, connection: Connection) -> _Found:
        now = self._database.now(connection)
        self._database.changed(connection)  # since now
        return _Found(now, Store(connection).cuts(now=now))

    def _lately(self, connection: Connection) -> _Found:
        now, highest = self._database.now(connection), self._highest
        since = self._read_until - OVERLAP_S
        if not self._database.changed(connection):
            return _Found(now, [], highest, since)
        return _Found(now, Store(connection).cuts(now=now, since=since, beyond=highest), highest, since)

    def _briefly(self, connection: Connection) -> _Found:
        # Counted first: what is committed between this and the reading is then one too many next time.
        known = Store(connection).count_cuts(since=self._window, until=self._highest)
        return self._newest(connection) if known == self._counted else self._lately(connection)

    def _newest(self, connection: Connection) -> _Found:
        now, highest = self._database.now(connection), self._highest
        return _Found(now, Store(connection).cuts(now=now, beyond=highest - OVERLAP_ROWS), highest)

    def _prune(self, connection: Connection) -> int:
        now = self._database.now(connection)
        pruned = Store(connection).prune(now=now, expired_before=now - KEEP_EXPIRED_S)
        if self._audit_retention is not None:
            pruned += trail.prune(connection, before=now - self._audit_retention)
        return pruned


@dataclass(frozen=True, slots=True)
class _Found:
    """What one question brought."""

    now: float
    """When it was asked, by the database's clock."""
    cuts: list[tuple[int, Cut]]
    """With the number of each row."""
    highest: int = 0
    """The highest number before."""
    window: float | None = None
    """Since when these are all that were recorded; None for some of them."""
