"""One coarse clock for everything that can take too long.

A timer per request costs more than the request's whole judgement, and deadlines
of seconds need no precision. So whatever has a deadline is *watched*, and once
per interval the ticker asks each watched thing to look at the clock. Nothing
watched, nothing scheduled.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Protocol

INTERVAL = 0.2
"""Seconds between two looks: the error of every deadline, small beside the smallest of them."""

log = logging.getLogger(__name__)


class Watched(Protocol):
    """Something with deadlines of its own."""

    def tick(self, now: float) -> None:
        """Look at the clock; called about every `INTERVAL` seconds while watched."""


class Ticker:
    """Calls `tick` on everything watched. One per event loop is enough."""

    __slots__ = ("_handle", "_interval", "_watched", "clock", "now")

    def __init__(self, *, interval: float = INTERVAL, clock: Callable[[], float] = time.monotonic) -> None:
        self._interval = interval
        self._watched: set[Watched] = set()
        self._handle: asyncio.TimerHandle | None = None
        self.clock = clock
        """Seconds that only go forward; deadlines are in its terms."""
        self.now = 0.0
        """The clock at the last look: right to an interval while anything is watched, and free."""

    def watch(self, thing: Watched) -> None:
        self._watched.add(thing)
        if self._handle is None:
            self.now = self.clock()
            self._handle = asyncio.get_running_loop().call_later(self._interval, self._fire)

    def unwatch(self, thing: Watched) -> None:
        self._watched.discard(thing)

    def tick(self) -> None:
        """Let everything look at the clock now. Things may come and go meanwhile."""
        self.now = now = self.clock()
        for thing in tuple(self._watched):
            if thing in self._watched:
                try:
                    thing.tick(now)
                except Exception:  # a defect in one must not stop the clock of all others
                    log.exception("%r failed to look at the clock", thing)

    def stop(self) -> None:
        """Forget everything; for the end of the process."""
        self._watched.clear()
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _fire(self) -> None:
        self._handle = asyncio.get_running_loop().call_later(self._interval, self._fire)
        self.tick()
        if not self._watched:
            self.stop()

    def __len__(self) -> int:
        return len(self._watched)

    def __repr__(self) -> str:
        return f"<Ticker watching {len(self)}, {'armed' if self._handle else 'at rest'}>"
