"""Which server gets the next request: the one with the least to do, in turn among equals. Pure.

The one with the fewest requests under way for its *weight* is next. The weight is 1,
or less while a server that was out comes back, so that it isn't run over.

Among equals it goes by turns. Each request charges its server 1/weight, and the one
charged least is next: equal weights take turns, and a weight of 0.1 gets a tenth of
the turns of the others. Nobody saves turns up: a server that was passed over for an
hour is charged from now on, as the others are (start-time fair queueing, Goyal et al. 1996).

A server that is *out* gets nothing, unless all of them are: then they are all
tried, since a refusal is certain to fail and a request is not.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar


class Candidate(Protocol):
    """A server, as far as it matters here."""

    out: bool
    """To be left alone."""
    weight: float
    """Above 0, at most 1."""
    charged: float
    """The balancer's note: how far its turns have been used up."""

    @property
    def outstanding(self) -> int:
        """Requests under way."""


C = TypeVar("C", bound=Candidate)


class Balancer:
    """Chooses among the servers of one upstream."""

    __slots__ = ("_now",)

    def __init__(self) -> None:
        self._now = 0.0
        """Where the turn is: what the last one chosen had been charged."""

    def pick(self, servers: Sequence[C]) -> C:
        """The next one, charged for it. There must be one at least."""
        server = least_loaded(servers)
        self._now = max(self._now, server.charged)
        server.charged = self._now + 1.0 / server.weight
        return server


def least_loaded(servers: Sequence[C]) -> C:
    """The one with the least to do for its weight; among equals the one charged least, then the first."""
    best, least = None, 0.0
    for server in servers:
        if server.out:
            continue
        load = server.outstanding / server.weight
        if best is None or load < least or (load == least and server.charged < best.charged):
            best, least = server, load
    return best if best is not None else min(servers, key=_least_asked)


def _least_asked(server: Candidate) -> tuple[int, float]:
    return server.outstanding, server.charged
