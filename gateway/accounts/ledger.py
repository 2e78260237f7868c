"""One unit of work: the queries of a transaction, and what the world must hear once it is committed.

A cut-off is written in the transaction of the change that causes it, so either
both exist or neither. After the commit the same cut-off is applied to this
process at once; other processes read it from the table (see `feed`). An audit event
is written in the same transaction, into the table of `trail`, and told to the log after the
commit: nothing is reported that did not happen, and nothing happened unreported.

Work returns its result. To refuse *and* keep what it changed (a reused token
ends its session), it returns the error; to refuse and undo, it raises it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import copy_context
from typing import Final, TypeVar

from sqlalchemy import Connection

from gateway.accounts import trail
from gateway.accounts.database import Database
from gateway.accounts.store import Store
from gateway.accounts.token_store import TokenStore
from gateway.errors import GatewayError
from gateway.identity.revocation import Cut
from gateway.telemetry.audit import Event, Recorded

T = TypeVar("T")

_MARGIN: Final = 60.0
"""Seconds a cut-off outlives the last token it concerns: clocks of two machines, a slow transaction."""


class Ledger:
    """Handed to every piece of work that may write."""

    def __init__(self, connection: Connection, *, now: float, access_life: float) -> None:
        self._connection = connection
        self.store = Store(connection)
        self.tokens = TokenStore(connection)
        self.now = now
        self.oldest_token = now - access_life
        """Sessions that expired before this have no living access token."""
        self.cuts: list[Cut] = []
        self.events: list[Recorded] = []
        self._until = now + access_life + _MARGIN

    def cut_session(self, session_id: str) -> None:
        """The session's access tokens are dead."""
        self._cut(Cut("session", session_id, 0, self._until))

    def cut_user(self, user_id: str, version: int) -> None:
        """The user's access tokens with a smaller `ver` are dead."""
        self._cut(Cut("user", user_id, version, self._until))

    def cut_token(self, token_id: str) -> None:
        """The API token is dead."""
        self._cut(Cut("token", token_id, 0, self._until))

    def _cut(self, cut: Cut) -> None:
        self.store.add_cut(cut, now=self.now)
        self.cuts.append(cut)

    def note(self, event: Event) -> None:
        """This happened, if the transaction commits."""
        recorded = Recorded.here(event, self.now)
        trail.add(self._connection, [recorded])
        self.events.append(recorded)


class Ledgers:
    """Opens a ledger per unit of work, and publishes it after the commit."""

    def __init__(
        self,
        database: Database,
        *,
        access_life: float,
        on_cut: Callable[[Cut], None],
        publish: Callable[[Recorded], None],
    ) -> None:
        """`publish` is told of events whose rows are committed."""
        self._database = database
        self._access_life = access_life
        self._on_cut = on_cut
        self._publish = publish
        self._running: set[asyncio.Task[object]] = set()

    async def read(self, work: Callable[[Store], T]) -> T:
        return await self._database.read(lambda connection: work(Store(connection)))

    async def read_at(self, work: Callable[[Store, float], T]) -> T:
        """Likewise; `work` is told what time it is by the database's clock."""
        return await self._database.read(
            lambda connection: work(Store(connection), self._database.now(connection))
        )

    async def write(self, work: Callable[[Ledger], T | GatewayError], *, deadline: float | None = None) -> T:
        """Do `work`, commit, publish. A caller who goes away meanwhile changes nothing about that."""
        task = asyncio.ensure_future(self._commit(work, deadline))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        result = await asyncio.shield(task)
        if isinstance(result, GatewayError):
            raise result
        return result

    async def _commit(
        self, work: Callable[[Ledger], T | GatewayError], deadline: float | None
    ) -> T | GatewayError:
        context = copy_context()  # so that the thread knows which request it works for
        ledger, result = await self._database.write(
            lambda connection: context.run(lambda: self._work(connection, work)), deadline=deadline
        )
        for cut in ledger.cuts:
            self._on_cut(cut)
        for event in ledger.events:
            self._publish(event)
        return result

    def _work(
        self, connection: Connection, work: Callable[[Ledger], T | GatewayError]
    ) -> tuple[Ledger, T | GatewayError]:
        now = self._database.now(connection)
        ledger = Ledger(connection, now=now, access_life=self._access_life)
        return ledger, work(ledger)
