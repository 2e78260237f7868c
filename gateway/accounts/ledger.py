"""One unit of work: the queries of a transaction, and what the world must hear once it is committed.

A cut-off is written in the transaction of the change that causes it, so either
both exist or neither. After the commit the same cut-off is applied to this
process at once; other processes read it from the table (see `feed`). Audit events
wait for the commit as well: nothing is reported that did not happen.

Work returns its result. To refuse *and* keep what it changed (a reused token
ends its session), it returns the error; to refuse and undo, it raises it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, TypeVar

from sqlalchemy import Connection

from gateway.accounts.database import Database
from gateway.accounts.store import Store
from gateway.errors import GatewayError
from gateway.identity.revocation import Cut
from gateway.telemetry.audit import Event

T = TypeVar("T")

_MARGIN: Final = 60.0
"""Seconds a cut-off outlives the last token it concerns: clocks of two machines, a slow transaction."""


class Ledger:
    """Handed to every piece of work that may write."""

    def __init__(self, store: Store, *, now: float, access_life: float) -> None:
        self.store = store
        self.now = now
        self.oldest_token = now - access_life
        """Sessions that expired before this have no living access token."""
        self.cuts: list[Cut] = []
        self.events: list[Event] = []
        self._until = now + access_life + _MARGIN

    def cut_session(self, session_id: str) -> None:
        """The session's access tokens are dead."""
        self._cut(Cut("session", session_id, 0, self._until))

    def cut_user(self, user_id: str, version: int) -> None:
        """The user's access tokens with a smaller `ver` are dead."""
        self._cut(Cut("user", user_id, version, self._until))

    def _cut(self, cut: Cut) -> None:
        self.store.add_cut(cut, now=self.now)
        self.cuts.append(cut)

    def note(self, event: Event) -> None:
        self.events.append(event)


class Ledgers:
    """Opens a ledger per unit of work, and publishes it after the commit."""

    def __init__(
        self,
        database: Database,
        *,
        access_life: float,
        on_cut: Callable[[Cut], None],
        audit: Callable[[Event], None],
    ) -> None:
        self._database = database
        self._access_life = access_life
        self._on_cut = on_cut
        self._audit = audit
        self._running: set[asyncio.Task[object]] = set()

    async def read(self, work: Callable[[Store], T]) -> T:
        return await self._database.read(lambda connection: work(Store(connection)))

    async def read_at(self, work: Callable[[Store, float], T]) -> T:
        """Likewise; `work` is told what time it is by the database's clock."""
        return await self._database.read(
            lambda connection: work(Store(connection), self._database.now(connection))
        )

    async def write(self, work: Callable[[Ledger], T | GatewayError]) -> T:
        """Do `work`, commit, publish. A caller who goes away meanwhile changes nothing about that."""
        task = asyncio.ensure_future(self._commit(work))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        result = await asyncio.shield(task)
        if isinstance(result, GatewayError):
            raise result
        return result

    async def _commit(self, work: Callable[[Ledger], T | GatewayError]) -> T | GatewayError:
        ledger, result = await self._database.write(lambda connection: self._work(connection, work))
        for cut in ledger.cuts:
            self._on_cut(cut)
        for event in ledger.events:
            self._audit(event)
        return result

    def _work(
        self, connection: Connection, work: Callable[[Ledger], T | GatewayError]
    ) -> tuple[Ledger, T | GatewayError]:
        now = self._database.now(connection)
        ledger = Ledger(Store(connection), now=now, access_life=self._access_life)
        return ledger, work(ledger)
