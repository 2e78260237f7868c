"""What runs beside the requests: opening, the feed of cut-offs, the watch over dependencies, closing."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from contextlib import suppress

from gateway.accounts import schema
from gateway.accounts.database import Database
from gateway.accounts.feed import POLL_S, Feed
from gateway.accounts.listen import Listener
from gateway.accounts.passwords import Passwords
from gateway.accounts.presence import Presence
from gateway.accounts.token_keeper import TokenKeeper
from gateway.accounts.token_lookup import TokenLookup
from gateway.accounts.trail_writer import TrailWriter
from gateway.config.schema import Sessions
from gateway.errors import GatewayError, GatewayTimeout, Unavailable
from gateway.identity.keywatch import KeyWatch
from gateway.identity.revocation import Cutoffs
from gateway.proxy.upstream.pools import Pools
from gateway.ratelimit import RateLimiter
from gateway.telemetry.outlet import Outlet
from gateway.web.ops import Health

_log = logging.getLogger(__name__)

Clock = Callable[[], float]


class CannotStart(Exception):
    """Something the process needs to begin with is away. The text is for the operator."""


class Upkeep:
    """What runs beside the requests: opening, the feed of cut-offs, the watch over dependencies, closing."""

    def __init__(
        self,
        *,
        database: Database,
        feed: Feed,
        sessions: Sessions,
        passwords: Passwords,
        limiter: RateLimiter,
        pools: Pools,
        cutoffs: Cutoffs,
        keys: KeyWatch | None,
        health: Health,
        outlet: Outlet,
        writer: TrailWriter,
        clock: Clock,
        keeper: TokenKeeper,
        lookup: TokenLookup,
    ) -> None:
        self._database, self._feed, self._sessions = database, feed, sessions
        self._passwords, self._limiter, self._pools = passwords, limiter, pools
        self._cutoffs, self._keys, self._health = cutoffs, keys, health
        self._outlet, self._clock = outlet, clock
        self._writer, self._keeper, self._lookup = writer, keeper, lookup
        self._presence = Presence(database)
        self._listener = None if database.is_sqlite else Listener(database, feed.catch_up)
        self._warned = False
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """No request is answered before every cut-off is known: a logged-out token must not revive."""
        self._outlet.attach(asyncio.get_running_loop().call_later)
        try:
            await schema.prepare(self._database)
            await self._feed.load()
        except (Unavailable, GatewayTimeout) as error:
            why = _first_line(error.__cause__ or error) or str(error)  # a time-out says nothing
            raise CannotStart(f"the database can't be used: {why}") from error
        self._pools.start()
        self._writer.start()
        running = [self._feed.run(), self._presence.run(), self._run(), self._keeper.run()]
        if self._listener is not None:
            running.append(self._listener.run())
        if self._keys is not None:
            running.append(self._keys.run())
        self._tasks = [asyncio.create_task(each) for each in running]

    async def stop(self) -> None:
        await end(self._tasks)
        self._pools.close()
        await self._limiter.close()
        await self._passwords.close()
        await self._lookup.close()
        with suppress(GatewayError):
            await self._keeper.note_used()
        await self._writer.close()
        await self._presence.leave()
        await self._database.close()
        self._outlet.attach(None)
        self._outlet.flush()

    async def look_at_keys(self) -> None:
        """Take changed keys up now."""
        if self._keys is not None:
            await self._keys.look(patient=False)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(POLL_S)
            await self._look_around()

    async def _look_around(self) -> None:
        """One round; about once a second."""
        readable, writable = self._feed.healthy, self._presence.healthy
        what = "can't be written; most of /auth" if readable else "can't be read; /auth"
        self._note("database", readable and writable, f"{what} answers 503")
        age = self._feed.age
        self._note("cutoffs", age <= self._sessions.max_staleness, _stale(age, self._sessions.on_stale))
        told = self._listener is None or not self._listener.deaf
        self._note("notices", told, _NOT_TOLD)
        for name, pool in self._pools.by_name.items():
            self._note(f"upstreams.{name}", pool.up, "all its servers are out; they are tried all the same")
        self._note("rate_limits", await self._limiter.ping(), _LIMITS_AWAY)
        self._cutoffs.forget(self._clock())
        self._warn_of_others()

    def _warn_of_others(self) -> None:
        """Once, as long as it holds: N processes that count for themselves allow N times as much."""
        apart = self._presence.others > 0 and not self._limiter.shared
        if apart and not self._warned:
            _log.warning(
                "rate limits are counted by each process for itself: rate_limits.storage is memory://",
                extra={"count": self._presence.others + 1},
            )
        self._warned = apart

    @property
    def replicas(self) -> int:
        """Processes on this database, as far as they have shown themselves."""
        return self._presence.others + 1

    def _note(self, name: str, healthy: bool, why: str) -> None:
        if healthy:
            self._health.restore(name)
        else:
            self._health.degrade(name, why)


def _stale(age: float, on_stale: str) -> str:
    then = "go on" if on_stale == "allow" else "answer 503"
    return f"not read for {age:.0f} s; requests with a login {then}"


async def end(tasks: Iterable[asyncio.Task[None]]) -> None:
    """Cancel them until they are over.

    Once is not enough: a client library may take a cancellation that comes just as its own time is
    up for that time-out, and a loop around it goes on for ever.
    """
    alive = {task for task in tasks if not task.done()}
    while alive:
        for task in alive:
            task.cancel()
        _, alive = await asyncio.wait(alive, timeout=_CANCEL_AGAIN_S)


_CANCEL_AGAIN_S = 0.5
_NOT_TOLD = "those of PostgreSQL don't arrive; logouts elsewhere are felt within a second or two, not at once"
_LIMITS_AWAY = "can't be reached; limited calls answer 503, or with on_error: allow each process counts alone"


def _first_line(error: BaseException) -> str:
    """What a database driver says of itself first: hosts and files, never a value."""
    return str(getattr(error, "orig", None) or error).partition("\n")[0]
