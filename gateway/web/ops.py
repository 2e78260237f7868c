"""What operators ask: does it live (/healthz), may it get traffic (/readyz), how does it do (/metrics).

These are served on their own listener, never on the public one, where they
would shadow the backend's paths and tell strangers how the gateway fares.

`Health` is the one memory of how ready the process is. It only moves forward:
starting, ready, draining. A dependency that is away makes it *degraded*, not
unready: requests with valid tokens go on without a database, so a load balancer
that took every replica out of service would turn a small outage into a whole one.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from enum import Enum
from typing import Protocol
from uuid import uuid4

from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.errors import GatewayError, MethodNotAllowed, NotFound
from gateway.http.head import Headers
from gateway.http.problem import render

PROMETHEUS_TEXT = b"text/plain; version=0.0.4; charset=utf-8"
"""The exposition format that every Prometheus since 2014 reads."""


class Phase(Enum):
    """The life of a process, in order."""

    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"


@dataclass(frozen=True, slots=True)
class Reload:
    """What came of reading the configuration again."""

    outcome: str
    """`applied`, or why it was not."""
    at: str
    """When, RFC 3339."""
    reason: str = ""
    """For operators; empty if it was applied."""
    problems: tuple[str, ...] = ()
    """The first of them, each with its place."""


class Health:
    """How ready this process is, and what it has to do without."""

    def __init__(self) -> None:
        self.phase = Phase.STARTING
        self.last_reload: Reload | None = None
        """None while the configuration is the one of the start."""
        self.enforcing = True
        """False while every rule only reports what it would refuse."""
        self._degraded: dict[str, str] = {}

    def __repr__(self) -> str:
        return f"<Health {self.phase.value} degraded={self._degraded}>"

    @property
    def ready(self) -> bool:
        return self.phase is Phase.READY

    @property
    def degraded(self) -> dict[str, str]:
        """What is away, by name, and why."""
        return dict(self._degraded)

    def start(self) -> None:
        """Everything needed is there. A process told to stop while it started stays draining."""
        if self.phase is Phase.STARTING:
            self.phase = Phase.READY

    def drain(self) -> None:
        """No new traffic, please: the process is about to end."""
        self.phase = Phase.DRAINING

    def degrade(self, name: str, why: str) -> None:
        """A dependency is away. `why` is for operators and holds no secret, so no connection URL."""
        self._degraded[name] = why

    def restore(self, name: str) -> None:
        """It is back (or was never away)."""
        self._degraded.pop(name, None)


class Rendering(Protocol):
    """What /metrics asks of the metrics."""

    def render(self) -> bytes: ...


Page = Callable[[], tuple[int, bytes, bytes]]
"""Makes one page: status, media type, body."""


def build_ops(health: Health, metrics: Rendering) -> ASGIApp:
    """The ASGI application of the ops listener."""
    pages: dict[bytes, Page] = {
        b"/healthz": lambda: _json(200, {"status": "alive"}),
        b"/readyz": lambda: _readiness(health),
        b"/metrics": lambda: (200, PROMETHEUS_TEXT, metrics.render()),
    }

    async def ops(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise NotImplementedError(f"the ops listener has no {scope['type']}")
        status, headers, body = _answer(pages, scope)
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})

    return ops


def _readiness(health: Health) -> tuple[int, bytes, bytes]:
    degraded = [{"name": name, "reason": why} for name, why in sorted(health.degraded.items())]
    told: dict[str, object] = {"status": health.phase.value, "degraded": degraded}
    if not health.enforcing:
        told["reportOnly"] = True
    if health.last_reload is not None:
        told["reload"] = asdict(health.last_reload)
    return _json(200 if health.ready else 503, told)


def _json(status: int, value: object) -> tuple[int, bytes, bytes]:
    return status, b"application/json", json.dumps(value).encode() + b"\n"


def _answer(pages: dict[bytes, Page], scope: Scope) -> tuple[int, Headers, bytes]:
    page = pages.get(scope.get("raw_path") or scope["path"].encode())
    if page is None:
        return _refuse(NotFound("Ask for /healthz, /readyz or /metrics."))
    if scope["method"] not in ("GET", "HEAD"):
        return _refuse(MethodNotAllowed(allow=("GET", "HEAD")))
    status, media_type, body = page()
    headers = [
        (b"content-type", media_type),
        (b"content-length", b"%d" % len(body)),
        (b"cache-control", b"no-store"),
    ]
    return status, headers, body


def _refuse(error: GatewayError) -> tuple[int, Headers, bytes]:
    return render(error, request_id=uuid4().hex)
