"""The connections to one upstream: how many, which one next, and who waits.

Theory of operation. An exchange *acquires*: it gets an idle connection at once,
or it waits in one bounded queue. Whoever waits causes a connection to be opened
(as long as `connections` allows), but that connection belongs to nobody: when
it is open, or when another exchange *releases* one, the first in the queue gets
it. So a slow connect delays nobody whom a finished request could have served,
and a client that leaves leaves nothing behind.

The idle ones are reused last in, first out: under falling load the rest grow
old and are closed. A backend may close an idle connection in the very moment
we use it; the exchange then asks once more with `fresh=True` and gets one that
was not idle (RFC 9112 §9.3.1). What can't be asked twice is only sent on an
idle connection that the kernel says is silent.

Several servers: the one with the fewest requests in flight, in turn among equals,
a server that just refused a connection last.

Everything is synchronous and on the event loop, except opening a connection,
which is one small task each.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections import OrderedDict
from collections.abc import Sequence
from typing import Protocol

from gateway.errors import (
    BadGateway,
    GatewayError,
    Overloaded,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from gateway.proxy.upstream.connection import Connection
from gateway.proxy.upstream.server import Server, tls_context
from gateway.proxy.upstream.timers import Ticker

KEEP_ALIVE = 4.0
"""Seconds an idle connection is kept: uvicorn, Node and Apache close theirs after five."""
FAILED_FOR = 5.0
"""Seconds a server that refused a connection is tried after all others."""
QUEUE_TIMEOUT = 10.0
"""Seconds a request waits for a connection to become free."""
RETRY_AFTER = 1
"""Seconds a client is told to wait when the queue is full or the backend is away."""

log = logging.getLogger(__name__)


class Waiter(Protocol):
    """Someone who wants a connection."""

    @property
    def replayable(self) -> bool:
        """May be sent twice, so an idle connection needs no second look."""

    def connected(self, connection: Connection) -> None:
        """Here is one: yours until you release it."""

    def unavailable(self, error: GatewayError, why: str) -> None:
        """There is none to be had. `why` is for the log."""


class Pool:
    """All connections to one upstream. See the module."""

    def __init__(
        self,
        *,
        name: str,
        servers: Sequence[Server],
        connections: int = 200,
        queue: int = 1000,
        queue_timeout: float = QUEUE_TIMEOUT,
        connect: float = 5.0,
        response: float = 60.0,
        idle: float = 60.0,
        keep_alive: float = KEEP_ALIVE,
        ssl_context: ssl.SSLContext | None = None,
        ticker: Ticker | None = None,
    ) -> None:
        self.name = name
        """The upstream's name in the configuration; for logs and metrics."""
        self.queue_timeout, self.response, self.idle = queue_timeout, response, idle
        """Seconds to wait: for a connection; for a response head; for the next bytes of a body."""
        self.ticker = Ticker() if ticker is None else ticker
        """The clock of every deadline of this upstream."""
        self._connections, self._queue = connections, queue
        self._connect, self._keep_alive = connect, keep_alive
        if ssl_context is None and any(server.tls for server in servers):
            ssl_context = tls_context()
        self._context = ssl_context
        self._targets = [_Target(server) for server in servers]
        """One for each server, in the order of the configuration."""
        self._by_server = {target.server: target for target in self._targets}
        self._turn = 0
        self._waiting: OrderedDict[Waiter, None] = OrderedDict()
        self._opening: dict[asyncio.Task[None], None] = {}
        self._closed = False

    # -- what exchanges ask for ----------------------------------------------------

    def acquire(self, waiter: Waiter, *, fresh: bool = False) -> None:
        """Answers by `connected` or `unavailable`, perhaps at once. `fresh`: none that was idle."""
        if not fresh and not self._waiting:
            connection = self._take_idle(waiter.replayable)
            if connection is not None:
                waiter.connected(connection)
                return
        if self._closed:
            waiter.unavailable(UpstreamUnavailable(retry_after=RETRY_AFTER), "the pool is closed")
        elif self._has_no_room() and len(self._waiting) - len(self._opening) >= self._queue:
            waiter.unavailable(Overloaded(retry_after=RETRY_AFTER), f"the queue is full ({self._queue})")
        else:
            self._waiting[waiter] = None
            if fresh:
                self._waiting.move_to_end(waiter, last=False)
            self._grow()

    def release(self, connection: Connection, *, reusable: bool) -> None:
        """Give a connection back. It is closed unless both sides were exactly done with it."""
        if connection.closed:
            return
        if not reusable or self._closed or connection.keep_alive is None:
            connection.abort()
            return
        connection.resume()
        if self._waiting and connection.is_stale():
            connection.abort()  # something came after the answer; whoever waits gets a new one
        elif self._waiting:
            self._waiting.popitem(last=False)[0].connected(connection)
        else:
            self._rest(connection)

    def leave(self, waiter: Waiter) -> None:
        """No longer interested. An attempt to connect that nobody waits for is given up."""
        self._waiting.pop(waiter, None)
        while len(self._opening) > len(self._waiting):
            self._opening.popitem()[0].cancel()

    def close(self) -> None:
        """Close what is idle, refuse who waits; exchanges under way finish on their own."""
        self._closed = True
        for task in self._opening:
            task.cancel()
        self._opening.clear()
        while self._waiting:
            waiter = self._waiting.popitem(last=False)[0]
            waiter.unavailable(UpstreamUnavailable(retry_after=RETRY_AFTER), "the pool was closed")
        for target in self._targets:
            for connection in tuple(target.idle):
                connection.abort()
        self.ticker.unwatch(self)

    # -- for metrics and the curious -----------------------------------------------

    @property
    def idle_count(self) -> int:
        return sum(len(target.idle) for target in self._targets)

    @property
    def busy_count(self) -> int:
        return sum(target.open for target in self._targets) - self.idle_count

    @property
    def opening_count(self) -> int:
        return len(self._opening)

    @property
    def waiting_count(self) -> int:
        return len(self._waiting)

    def __repr__(self) -> str:
        return (
            f"<Pool {self.name!r}: {self.busy_count} busy, {self.idle_count} idle, "
            f"{self.opening_count} opening, {self.waiting_count} waiting>"
        )

    # -- what connections and the clock say ----------------------------------------

    def opened(self, connection: Connection) -> None:
        self._by_server[connection.server].open += 1

    def gone(self, connection: Connection) -> None:
        target = self._by_server[connection.server]
        target.open -= 1
        target.idle.pop(connection, None)
        if self._waiting:
            self._grow()

    def tick(self, now: float) -> None:
        """Close what has been idle for too long."""
        for target in self._targets:
            for connection in [each for each in target.idle if each.expires <= now]:
                connection.abort()
        if not self.idle_count:
            self.ticker.unwatch(self)

    # -- idle ones -----------------------------------------------------------------

    def _take_idle(self, replayable: bool) -> Connection | None:
        for target in self._preferred() if len(self._targets) > 1 else self._targets:
            while target.idle:
                connection = target.idle.popitem()[0]
                if replayable or not connection.is_stale():
                    return connection
                connection.abort()
        return None

    def _rest(self, connection: Connection) -> None:
        promised = connection.keep_alive or 0.0
        # A second before the backend's own end, so that the two don't cross on the way.
        seconds = min(self._keep_alive, promised - 1.0)
        if seconds <= 0.0:
            connection.abort()
            return
        self._by_server[connection.server].idle[connection] = None
        self.ticker.watch(self)
        connection.expires = self.ticker.now + seconds

    # -- new ones ------------------------------------------------------------------

    def _has_no_room(self) -> bool:
        return sum(target.open for target in self._targets) + len(self._opening) >= self._connections

    def _grow(self) -> None:
        while len(self._opening) < len(self._waiting) and not self._has_no_room():
            task = asyncio.get_running_loop().create_task(self._open())
            self._opening[task] = None

    async def _open(self) -> None:
        """Open one connection, to whichever server takes it, and give it to whoever waits longest."""
        error: GatewayError = UpstreamUnavailable()
        why = "no server"
        for target in self._preferred():
            target.opening += 1
            try:
                connection = await self._dial(target.server)
            except Exception as failure:
                error, why = _explain(failure)
                target.failed_until = self.ticker.clock() + FAILED_FOR
                log.warning("upstream %s: can't connect to %s: %s", self.name, target.server, why)
            else:
                self._arrived(connection)
                return
            finally:
                target.opening -= 1
        self._gave_up(error, why)

    async def _dial(self, server: Server) -> Connection:
        connection = Connection(self, server)
        try:
            async with asyncio.timeout(self._connect):
                await server.open(lambda: connection, self._context)
        except BaseException:
            connection.abort()  # it may be connected although nobody waits for it any more
            raise
        if connection.closed:
            raise _ClosedAtOnce("it closed the connection at once")
        return connection

    def _arrived(self, connection: Connection) -> None:
        self._opening.pop(_this_task(), None)
        connection.keep_alive = float("inf")
        self.release(connection, reusable=True)

    def _gave_up(self, error: GatewayError, why: str) -> None:
        self._opening.pop(_this_task(), None)
        if self._waiting:
            self._waiting.popitem(last=False)[0].unavailable(error, why)

    def _preferred(self) -> list[_Target]:
        """Those that failed lately last, then the fewest requests in flight, then in turn."""
        now = self.ticker.clock()
        self._turn = (self._turn + 1) % len(self._targets)
        in_turn = self._targets[self._turn :] + self._targets[: self._turn]
        return sorted(in_turn, key=lambda target: (target.failed_until > now, target.outstanding))


class _Target:
    """One server and what we have with it."""

    __slots__ = ("failed_until", "idle", "open", "opening", "server")

    def __init__(self, server: Server) -> None:
        self.server = server
        self.idle: dict[Connection, None] = {}
        """In the order they became idle; the last is reused first."""
        self.open = 0
        """Connections, idle ones included."""
        self.opening = 0
        self.failed_until = 0.0

    @property
    def outstanding(self) -> int:
        return self.open - len(self.idle) + self.opening


class _ClosedAtOnce(Exception):
    """Accepted and closed before we could say a word."""


def _explain(failure: Exception) -> tuple[GatewayError, str]:
    """The client's error and the log's sentence. TLS errors are OSErrors too, so they come first."""
    if isinstance(failure, ssl.SSLError):
        return BadGateway(), f"TLS: {failure}"
    if isinstance(failure, TimeoutError):
        return UpstreamTimeout(), "it did not answer in time"
    if isinstance(failure, OSError):
        return UpstreamUnavailable(retry_after=RETRY_AFTER), str(failure)
    return BadGateway(), f"{failure}"


def _this_task() -> asyncio.Task[None]:
    task = asyncio.current_task()
    assert task is not None  # noqa: S101 - only called from the tasks that open connections
    return task
