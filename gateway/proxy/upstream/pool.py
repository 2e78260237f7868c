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
was not idle (RFC 9112 §9.3.1). Before that, the kernel is asked whether an idle
connection is silent: the event loop may not have heard yet of its end, or of bytes
that nobody asked for.

Several servers: `balance` says which one is next, `server` whether it is in or
out. If the next one has no idle connection and another has, the request goes
there, and the connection that was missing is opened for those who come after:
so a server that is slow to connect to, or silent, delays nobody. A connect that
fails is tried at the other servers, one after the other; one that takes long gets
company by another.

Everything is synchronous and on the event loop, except opening a connection,
which is one small task each, and health checks.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from collections import OrderedDict
from collections.abc import Iterable
from typing import Protocol

from gateway.errors import (
    BadGateway,
    GatewayError,
    Overloaded,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from gateway.proxy.upstream.address import Tls
from gateway.proxy.upstream.balance import Balancer, least_loaded
from gateway.proxy.upstream.connection import Connection
from gateway.proxy.upstream.health import HealthChecks
from gateway.proxy.upstream.server import Server
from gateway.proxy.upstream.settings import HealthCheck, Settings
from gateway.proxy.upstream.timers import Ticker

HEAD_START = 0.25
"""Seconds a connect has until another server is tried as well, as RFC 8305 §5 does it for addresses."""
RETRY_AFTER = 1
"""Seconds a client is told to wait when the queue is full or the backend is away."""

log = logging.getLogger(__name__)


class Waiter(Protocol):
    """Someone who wants a connection."""

    def connected(self, connection: Connection) -> None:
        """Here is one: yours until you release it."""

    def unavailable(self, error: GatewayError, why: str) -> None:
        """There is none to be had. `why` is for the log."""


class Pool:
    """All connections to one upstream. See the module."""

    def __init__(self, *, name: str, settings: Settings, ticker: Ticker | None = None) -> None:
        """Raises OSError that names a TLS file that can't be used."""
        self.name = name
        """The upstream's name in the configuration; for logs and metrics."""
        self.settings = settings
        """What it was made of. A reload that brings equal ones keeps the pool."""
        self.queue_timeout, self.response = settings.queue_timeout, settings.response
        """Seconds to wait: for a connection; for a response head."""
        self.idle, self.tunnel_idle = settings.idle, settings.tunnel_idle
        """Seconds to wait for the next bytes: of a body; of a tunnel."""
        self.ticker = Ticker() if ticker is None else ticker
        """The clock of every deadline of this upstream."""
        self.servers = [Server(address, settings.ejection) for address in settings.servers]
        """In the order of the configuration."""
        self._only = self.servers[0] if len(self.servers) == 1 else None
        """Most upstreams have one server, and then there is nothing to choose."""
        self._balancer = Balancer()
        tls = any(address.tls for address in settings.servers)
        self._context = (settings.tls or Tls()).context() if tls else None
        self._checks = HealthChecks(settings.health, self._context, self._checked)
        self._connections, self._keep_alive = settings.connections, settings.keep_alive
        self._open = 0
        """Connections to all servers, idle ones included."""
        self._waiting: OrderedDict[Waiter, None] = OrderedDict()
        self._opening: dict[Connection, asyncio.Task[None]] = {}
        """Attempts that have not ended, each with its connection, and who makes them."""
        self._dialing: set[Connection] = set()
        """Those of them that are not connected yet."""
        self._watched = self._closed = False

    # -- what exchanges ask for ----------------------------------------------------

    def acquire(self, waiter: Waiter, *, fresh: bool = False) -> None:
        """Answers by `connected` or `unavailable`, perhaps at once. `fresh`: none that was idle."""
        server = self._only
        if not fresh and not self._waiting:
            if server is None:
                server = self._balancer.pick(self.servers)
            connection = self._take_idle(server) if server.idle else None
            if connection is None and self._only is None:
                connection = self._borrow(server)
            if connection is not None:
                waiter.connected(connection)
                return
        self._wait(waiter, fresh, server)

    def release(self, connection: Connection, reusable: bool) -> None:
        """Give a connection back. It is closed unless both sides were exactly done with it."""
        if connection.closed:
            return
        if not reusable or self._closed or connection.keep_alive is None:
            connection.abort()
            return
        connection.resume()
        if self._waiting:
            self._pass_on(connection)
        elif self._only is None and connection.server.out and self.up:
            connection.abort()
        else:
            self._rest(connection, connection.keep_alive)

    def report(self, server: Server, ok: bool, why: str = "") -> None:
        """What a request says of its server: it answered, whatever that was, or it failed by its own fault.

        A stale connection and a client that leaves say nothing of the server.
        """
        if not ok:
            self._tell(server, server.failed(self.ticker.clock(), why))
        elif server.failures:
            alone = server.out and not self.up
            self._tell(server, server.answered(self.ticker.clock(), asked_while_out=alone))

    def leave(self, waiter: Waiter) -> None:
        """No longer interested. An attempt to connect that nobody waits for is given up."""
        self._waiting.pop(waiter, None)
        while len(self._opening) > len(self._waiting):
            self._call_off()

    # -- its life ------------------------------------------------------------------

    def start(self) -> None:
        """Begin the health checks, if there are any to make."""
        self._checks.start(self.servers)

    def retire(self) -> None:
        """For a pool that another took the place of: who uses it or waits is served, and nothing is kept."""
        self._keep_alive = 0.0
        self._checks.stop()
        self._close_idle(self.servers)

    def close(self) -> None:
        """Close what is idle, refuse who waits; exchanges under way finish on their own."""
        self._closed = True
        self.retire()
        while self._opening:
            self._call_off()
        while self._waiting:
            waiter = self._waiting.popitem(last=False)[0]
            waiter.unavailable(UpstreamUnavailable(retry_after=RETRY_AFTER), "the pool was closed")
        self._unwatch()

    @property
    def crowded(self) -> bool:
        """Somebody waits, and there is no room to open a connection for them."""
        return len(self._waiting) > len(self._opening)

    # -- for metrics and the curious -----------------------------------------------

    @property
    def up(self) -> bool:
        """Whether any server is in. If none is, they are tried all the same."""
        return any(not server.out for server in self.servers)

    @property
    def standing(self) -> list[tuple[str, bool]]:
        """Each server's address, and whether it is in."""
        return [(str(server), not server.out) for server in self.servers]

    @property
    def idle_count(self) -> int:
        return sum(len(server.idle) for server in self.servers)

    @property
    def busy_count(self) -> int:
        return self._open - self.idle_count

    @property
    def opening_count(self) -> int:
        return len(self._dialing)

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
        self._dialed(connection)
        connection.server.open += 1
        self._open += 1

    def gone(self, connection: Connection) -> None:
        server = connection.server
        server.open -= 1
        self._open -= 1
        with contextlib.suppress(ValueError):  # it was busy
            server.idle.remove(connection)
        if self._waiting:
            self._grow()

    def tick(self, now: float) -> None:
        """Close what has been idle for too long; let servers come back."""
        for server in self.servers:
            for connection in [each for each in server.idle if each.expires <= now]:
                connection.abort()
            self._tell(server, server.tick(now))
        if not any(server.idle or server.changing for server in self.servers):
            self._unwatch()

    # -- idle ones -----------------------------------------------------------------

    def _take_idle(self, server: Server) -> Connection | None:
        """The last used that is silent: bytes that wait in it were not asked for by whoever gets it."""
        idle = server.idle
        while idle:
            connection: Connection = idle.pop()
            if not connection.is_stale():
                return connection
            connection.abort()
        return None

    def _borrow(self, server: Server) -> Connection | None:
        """Another server's, while the one whose turn it is gets a connection for those who come after."""
        lenders = [each for each in self.servers if each.idle and each.out == server.out]
        while lenders:
            lender = least_loaded(lenders)
            connection = self._take_idle(lender)
            if connection is not None:
                if not server.opening and not self._has_no_room():
                    self._connect(server)
                return connection
            lenders.remove(lender)
        return None

    def _rest(self, connection: Connection, promised: float) -> None:
        # A second before the backend's own end, so that the two don't cross on the way.
        seconds = promised - 1.0
        if seconds > self._keep_alive:
            seconds = self._keep_alive
        if seconds <= 0.0:
            connection.abort()
            return
        connection.server.idle.append(connection)
        if not self._watched:
            self._watch()
        connection.expires = self.ticker.now + seconds

    def _pass_on(self, connection: Connection) -> None:
        """To who waits longest; if it is of no use, its end makes room for another."""
        if connection.is_stale() or (self._only is None and self._is_misplaced(connection.server)):
            connection.abort()
        else:
            self._hand_over(connection)

    def _hand_over(self, connection: Connection) -> None:
        if self._waiting:
            self._waiting.popitem(last=False)[0].connected(connection)
        else:
            self._rest(connection, connection.keep_alive or 0.0)

    def _is_misplaced(self, server: Server) -> bool:
        """Whether a server holds the room that another needs: one that is back finds all of it taken."""
        other = least_loaded(self.servers)
        if other is server or other.opening or not self._has_no_room():
            return False
        if server.out and not other.out:
            return True
        return 2 * (other.outstanding + 1) / other.weight <= server.outstanding / server.weight

    @staticmethod
    def _close_idle(servers: Iterable[Server]) -> None:
        for server in servers:
            for connection in tuple(server.idle):
                connection.abort()

    # -- new ones ------------------------------------------------------------------

    def _wait(self, waiter: Waiter, fresh: bool, server: Server | None) -> None:
        if self._closed:
            waiter.unavailable(UpstreamUnavailable(retry_after=RETRY_AFTER), "the pool is closed")
        elif self._has_no_room() and len(self._waiting) - len(self._opening) >= self.settings.queue:
            why = f"the queue is full ({self.settings.queue})"
            waiter.unavailable(Overloaded(retry_after=RETRY_AFTER), why)
        else:
            self._waiting[waiter] = None
            if fresh:
                self._waiting.move_to_end(waiter, last=False)
            self._grow(server)

    def _has_no_room(self) -> bool:
        return self._open + len(self._dialing) >= self._connections

    def _grow(self, server: Server | None = None) -> None:
        """One attempt for each who waits; the first of them to this server."""
        while len(self._opening) < len(self._waiting) and not self._has_no_room():
            self._connect(server or self._balancer.pick(self.servers))
            server = self._only

    def _connect(self, server: Server) -> None:
        connection, loop = Connection(self, server), asyncio.get_running_loop()
        self._set_out(connection, loop.create_task(self._attempt(connection)))
        if self._only is None:
            loop.call_later(HEAD_START, self._accompany, connection)

    def _accompany(self, connection: Connection) -> None:
        """It is still on its way, perhaps into the void: who waits gets a second chance."""
        others = [each for each in self.servers if each is not connection.server and not each.out]
        if connection in self._opening and self._waiting and others and not self._has_no_room():
            self._connect(self._balancer.pick(others))

    async def _attempt(self, connection: Connection) -> None:
        """Open this connection, or one to another server, and give it to whoever waits longest."""
        others = [server for server in self.servers if server is not connection.server]
        while True:
            try:
                await self._dial(connection)
            except Exception as failure:
                error, why = _explain(failure)
                self._ended(connection)
                self._could_not_connect(connection.server, why)
            else:
                self._ended(connection)
                connection.keep_alive = float("inf")
                self._hand_over(connection)
                return
            if not others or len(self._opening) >= len(self._waiting):
                break
            server = self._balancer.pick(others)
            others.remove(server)
            connection = Connection(self, server)
            self._set_out(connection, _this_task())
        self._give_up(error, why)

    async def _dial(self, connection: Connection) -> None:
        try:
            async with asyncio.timeout(self.settings.connect):
                await connection.server.address.open(lambda: connection, self._context)
        except BaseException:
            connection.abort()  # it may be connected although nobody waits for it any more
            raise
        if connection.closed or (not connection.server.address.tls and connection.is_stale()):
            connection.abort()
            raise _ClosedAtOnce("it closed the connection at once")

    def _set_out(self, connection: Connection, task: asyncio.Task[None]) -> None:
        self._opening[connection] = task
        self._dialing.add(connection)
        connection.server.opening += 1

    def _dialed(self, connection: Connection) -> None:
        """It is connected, or it never will be: from now on it counts as open or not at all."""
        if connection in self._dialing:
            self._dialing.remove(connection)
            connection.server.opening -= 1

    def _ended(self, connection: Connection) -> None:
        """So is the attempt: another may take its place."""
        self._opening.pop(connection, None)
        self._dialed(connection)

    def _call_off(self) -> None:
        """Give the latest attempt up."""
        connection, task = self._opening.popitem()
        self._dialed(connection)
        task.cancel()

    def _could_not_connect(self, server: Server, why: str) -> None:
        if not server.out:
            log.warning("upstream %s: can't connect to %s: %s", self.name, server, why)
        self.report(server, False, why)

    def _give_up(self, error: GatewayError, why: str) -> None:
        """No server took us. Who waits longest hears it, unless another attempt is there for them."""
        if len(self._waiting) > len(self._opening):
            self._waiting.popitem(last=False)[0].unavailable(error, why)
        self._grow()

    # -- servers that come and go --------------------------------------------------

    def _checked(self, server: Server, check: HealthCheck, why: str) -> None:
        self._tell(server, server.checked(self.ticker.clock(), check, why))

    def _tell(self, server: Server, change: str) -> None:
        """Log what changed, and follow it."""
        if not change:
            return
        log.log(
            logging.WARNING if server.out else logging.INFO, "upstream %s: %s %s", self.name, server, change
        )
        if self._only is None and self.up:
            self._close_idle([each for each in self.servers if each.out])
        if server.changing:
            self._watch()

    def _watch(self) -> None:
        self._watched = True
        self.ticker.watch(self)

    def _unwatch(self) -> None:
        self._watched = False
        self.ticker.unwatch(self)


class _ClosedAtOnce(Exception):
    """Accepted and closed before we could say a word, as a forwarder does with nothing behind it.

    With TLS only the end counts: a server may send session tickets at once (RFC 8446 §4.6.1).
    """


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
