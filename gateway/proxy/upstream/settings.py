"""Everything the configuration says of one upstream's connections and servers, as one value.

Equal settings make equal pools: a reload keeps the pool whose settings did not
change, with its connections and all it has learnt of its servers.
"""

from __future__ import annotations

from dataclasses import dataclass

from gateway.proxy.upstream.address import Address, Tls

KEEP_ALIVE = 4.0
"""Seconds an idle connection is kept: uvicorn, Node and Apache close theirs after five."""
QUEUE_TIMEOUT = 10.0
"""Seconds a request waits for a connection."""


@dataclass(frozen=True, slots=True)
class HealthCheck:
    """A GET that each server is asked now and then."""

    path: str
    """The request target."""
    host: str = "localhost"
    """The Host header, as requests have it."""
    interval: float = 5.0
    """Seconds between two checks of a server."""
    timeout: float = 2.0
    """Seconds for a whole check."""
    healthy: int = 2
    """Checks passed in a row that bring a server back."""
    unhealthy: int = 3
    """Checks failed in a row that take it out."""
    expect: tuple[int, int] = (200, 399)
    """The first and the last status that pass."""


@dataclass(frozen=True, slots=True)
class Ejection:
    """When a server that fails requests is taken out, and how it comes back."""

    failures: int = 5
    """Failures in a row; 0 for never."""
    seconds: float = 10.0
    """How long it is out the first time."""
    slow_start: float = 10.0
    """Seconds in which its share grows back to all of it."""


@dataclass(frozen=True, slots=True)
class Settings:
    """One upstream."""

    servers: tuple[Address, ...]
    """At least one, in the order of the configuration."""
    connections: int = 200
    """Open to all of them together, at once."""
    queue: int = 1000
    """Requests that wait for one."""
    queue_timeout: float = QUEUE_TIMEOUT
    """Seconds they wait."""
    connect: float = 5.0
    """Seconds for opening a connection."""
    response: float = 60.0
    """Seconds for a response head."""
    idle: float = 60.0
    """Seconds for the next bytes of a response body."""
    tunnel_idle: float = 300.0
    """Seconds for the next bytes of a tunnel, either way."""
    keep_alive: float = KEEP_ALIVE
    """Seconds an idle connection is kept."""
    ejection: Ejection = Ejection()
    """When a server that fails requests is taken out."""
    health: HealthCheck | None = None
    """How servers are checked, if they are."""
    tls: Tls | None = None
    """The files for TLS; None for the system's authorities."""
