"""What the gate says about one request: pass it on like this, or answer it like that."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gateway.errors import GatewayError

if TYPE_CHECKING:
    from gateway.proxy.upstream.pool import Pool
    from gateway.telemetry.logs import Decided


@dataclass(slots=True)
class Forward:
    """A judged request and everything the engine needs to carry it to the backend."""

    request_id: str
    """Sent to the backend, shown in the client's errors, written in the log."""
    upstream: Pool
    """Where it goes."""
    head: bytes
    """The whole request head as it is written upstream: blank line and framing headers included."""
    body: int | None
    """How the body is framed upstream: 0 = none, n > 0 = content-length n, None = chunked by us."""
    body_limit: int
    """Bytes. A chunked body that grows past it is answered 413."""
    no_response_body: bool
    """A HEAD request: its answer ends with its head, whatever its content-length says."""
    replayable: bool
    """No body and an idempotent method: may be sent once more if a reused connection was stale."""
    decided: Decided
    """The decision line's record. The engine adds status, upstream, times, bytes and a failure's reason."""


@dataclass(slots=True)
class Refuse:
    """A request the gateway answers by itself."""

    error: GatewayError
    """The answer."""
    token_sent: bool
    """Whether a credential came with it: chooses the words of `WWW-Authenticate`."""
    request_id: str
    """Shown in the answer, written in the log."""
    decided: Decided
    """The decision line's record."""


Judgement = Forward | Refuse
"""What `Gate.judge` returns."""
