"""One server of an upstream: what we have with it, and how it stands.

It stands *in* or *out*, and two judges have a say. Requests that it fails count,
and so many in a row eject it for a time (passive). Checks that it fails take it out
until it passes some again (active). It is in if both say so.

Who comes back is not trusted at once: its weight grows from a tenth to 1 (slow
start), and its failures stay counted until it has answered once, so that the first
new one ejects it again, for twice as long.

The clock is handed in, and each change is told once, as a sentence for the log.
"""

from __future__ import annotations

from typing import Any

from gateway.proxy.upstream.address import Address
from gateway.proxy.upstream.settings import Ejection, HealthCheck

LONGEST_EJECTION = 300.0
"""Seconds a server is out at most for relapsing, as with Envoy's `max_ejection_time`."""
LEAST_WEIGHT = 0.1
"""Where a slow start begins, as with Envoy's `min_weight_percent`."""


class Server:
    """See the module."""

    __slots__ = (
        "_checked",
        "_ejected_for",
        "_ejected_until",
        "_ejection",
        "_name",
        "_returned",
        "_streak",
        "_unhealthy",
        "address",
        "charged",
        "failures",
        "idle",
        "open",
        "opening",
        "out",
        "weight",
    )

    def __init__(self, address: Address, ejection: Ejection) -> None:
        self.address = address
        self.idle: list[Any] = []
        """Connections nobody uses, in the order they became idle; the last is reused first. (Connections
        know their server, so their type isn't known here.)"""
        self.open = 0
        """Connections, idle ones included."""
        self.opening = 0
        """Connections on their way."""
        self.charged = 0.0
        """The balancer's note."""
        self.out = False
        """Not to be asked while there is another."""
        self.weight = 1.0
        """Its part of a full share."""
        self.failures = 0
        """Requests and connects it failed in a row, since its last answer."""
        self._name = str(address)
        self._ejection = ejection
        self._ejected_until: float | None = None
        self._ejected_for = 0.0
        self._returned: float | None = None
        """When the slow start began, or the last one ended by itself; None: it was never out."""
        self._unhealthy = self._checked = False
        self._streak = 0
        """Checks in a row that speak against its present health."""

    @property
    def outstanding(self) -> int:
        """Requests under way with it, and connections that are opened for some."""
        return self.open - len(self.idle) + self.opening

    # -- the judges ----------------------------------------------------------------

    def failed(self, now: float, why: str) -> str:
        """A request or a connect failed by its fault. Returns what changed by that, or nothing."""
        self.failures += 1
        limit = self._ejection.failures
        if not limit or self.failures < limit or self._ejected_until is not None:
            return ""
        self._ejected_for = self._how_long(now)
        self._ejected_until = now + self._ejected_for
        self.out = True
        return f"is out for {self._ejected_for:g} s after {self.failures} failures in a row, the last: {why}"

    def answered(self, now: float, *, asked_while_out: bool) -> str:
        """It has answered. If it was asked because no other was left, that brings it back."""
        self.failures = 0
        if asked_while_out and self._ejected_until is not None:
            self._ejected_until = None
            return self._come_back(now, "it answers")
        return ""

    def checked(self, now: float, check: HealthCheck, why: str) -> str:
        """A health check passed, or failed for this reason. The first of all decides alone."""
        passed = not why
        needed = check.healthy if self._unhealthy else check.unhealthy
        if not self._checked:
            self._checked, needed = True, 1
        self._streak = self._streak + 1 if passed == self._unhealthy else 0
        if self._streak < needed:
            return ""
        self._streak, self._unhealthy = 0, not passed
        if passed:
            return self._come_back(now, "its health checks pass")
        self.out = True
        return f"is out until its health checks pass again: {why}"

    def tick(self, now: float) -> str:
        """Look at the clock: an ejection may be over, a slow start goes on."""
        if self._ejected_until is not None and now >= self._ejected_until:
            self._ejected_until = None
            return self._come_back(now, "its time is over")
        if self.weight < 1.0 and self._returned is not None:
            share = (now - self._returned) / self._ejection.slow_start
            self.weight = min(max(share, LEAST_WEIGHT), 1.0)
        return ""

    @property
    def changing(self) -> bool:
        """Whether the clock alone will change how it stands."""
        return self._ejected_until is not None or self.weight < 1.0

    # ------------------------------------------------------------------------------

    def _how_long(self, now: float) -> float:
        """Twice the last time for a relapse: no answer since it came back, or in for less than it was out."""
        first = self._ejection.seconds
        if self._returned is None:
            return first
        if self.failures == self._ejection.failures and now - self._returned > self._ejected_for:
            return first
        return min(max(self._ejected_for * 2, first), max(LONGEST_EJECTION, first))

    def _come_back(self, now: float, why: str) -> str:
        if self._ejected_until is not None or self._unhealthy:
            return ""  # the other judge still says no
        self.out = False
        self._returned = now
        self.weight = LEAST_WEIGHT if self._ejection.slow_start else 1.0
        return f"is back: {why}"

    def __str__(self) -> str:
        return self._name

    def __repr__(self) -> str:
        state = "out" if self.out else "in" if self.weight == 1.0 else f"back at {self.weight:.0%}"
        return f"<Server {self} {state}: {self.open} open, {len(self.idle)} idle, {self.opening} opening>"
