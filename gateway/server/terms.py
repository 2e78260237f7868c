"""What holds for every connection: limits, timeouts, the shared timer, who hears of refusals."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import Protocol

from gateway.errors import GatewayError

NEVER = float("inf")
"""A deadline that does not come."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Bytes and counts. What is larger is refused before it is read."""

    target: int = 8 * 1024
    """Bytes of the request target: path and query. Above: 414."""
    headers: int = 32 * 1024
    """Bytes of the header lines together. Above: 431."""
    header_count: int = 100
    """Header lines. Above: 431."""
    body: int = 10 * 1024 * 1024
    """Bytes a Content-Length may announce. Above: 413."""
    connections: int = 10_000
    """Open at once. Above: 503."""


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds."""

    headers: float = 10.0
    """From the first byte of a head to its last, and from connecting to the first byte. Never prolonged."""
    body_idle: float = 30.0
    """Without a byte of the body while the app waits for one, or without a byte of the answer taken."""
    keep_alive: float = 75.0
    """Between two requests."""
    drain_delay: float = 0.0
    """Between the notice that we are about to leave and the closing of the listeners."""
    drain: float = 30.0
    """For the requests in flight after that."""
    linger: float = 5.0
    """For a refused client to read its answer (RFC 9112 §9.6)."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """An answer the server room made by itself, for the log and the metrics."""

    error: GatewayError
    """What was answered."""
    request_id: str
    """Shown in the answer."""
    peer: str | None
    """The socket peer's IP address; None on a unix socket."""
    method: str | None
    """As far as it could be read."""
    target: bytes | None
    """As far as it could be read, query included."""


def ignore(_refusal: Refusal) -> None:
    """For listeners whose refusals nobody counts."""


@dataclass(slots=True)
class Terms:
    """One per listener group; every connection holds a reference."""

    limits: Limits = field(default_factory=Limits)
    """See Limits."""
    timeouts: Timeouts = field(default_factory=Timeouts)
    """See Timeouts."""
    on_refused: Callable[[Refusal], None] = ignore
    """Called once for each answer made here."""
    clock: Callable[[], float] | None = None
    """Monotonic seconds; None is the loop's own clock."""


class Timed(Protocol):
    """A connection, as the watch sees it."""

    deadline: float
    write_deadline: float

    def expire(self, now: float) -> None: ...


class Watch:
    """One coarse timer for all connections: a look at every deadline, at most once a second.

    Arming a timer per request costs more than everything else this room adds;
    a connection only writes down a number, and nobody minds a second of delay
    on a deadline of ten.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, terms: Terms) -> None:
        self.clock = terms.clock or loop.time
        self._loop = loop
        timeouts = terms.timeouts
        shortest = min(timeouts.headers, timeouts.body_idle, timeouts.keep_alive, timeouts.linger)
        self._interval = min(1.0, max(shortest / 5, 0.01))
        self._watched: set[Timed] = set()
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._watched)

    def add(self, connection: Timed) -> None:
        self._watched.add(connection)
        if self._timer is None:
            self._timer = self._loop.call_later(self._interval, self._tick)

    def discard(self, connection: Timed) -> None:
        self._watched.discard(connection)

    def look(self) -> None:
        """Expire what is due."""
        now = self.clock()
        due = [one for one in self._watched if one.deadline <= now or one.write_deadline <= now]
        for connection in due:
            connection.expire(now)

    def _tick(self) -> None:
        self._timer = None
        self.look()
        if self._watched:
            self._timer = self._loop.call_later(self._interval, self._tick)


class _HttpDate:
    """The Date header's value, formatted once a second (RFC 9110 §6.6.1)."""

    def __init__(self) -> None:
        self._until = 0.0
        self._text = b""

    def __call__(self) -> bytes:
        now = time.time()
        if not self._until - 1 <= now < self._until:
            self._until = float(int(now) + 1)
            self._text = formatdate(now, usegmt=True).encode()
        return self._text


http_date = _HttpDate()


def new_request_id() -> str:
    """128 random bits. An identifier, not a secret."""
    return f"{random.getrandbits(128):032x}"
