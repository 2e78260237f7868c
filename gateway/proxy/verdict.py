"""What the gate says about one request: pass it on like this, answer it like that, or wait for a limit."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from gateway.errors import GatewayError
from gateway.http.cors import CorsEdits, Lines
from gateway.http.header_edits import NO_EDITS, HeaderEdits

if TYPE_CHECKING:
    from gateway.proxy.upstream.pool import Pool
    from gateway.telemetry.logs import Decided


class Standing(Protocol):
    """Whether what was allowed still is; asked now and then while a stream or a tunnel lasts."""

    def __call__(self) -> bool: ...


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
    standing: Standing | None = None
    """Does the caller's right still hold? None: nothing could end it."""
    timeout: float | None = None
    """Seconds for the response head; None: as the upstream says."""
    edits: HeaderEdits | CorsEdits = NO_EDITS
    """What the route changes in the response's headers."""
    upgrade: bytes = b""
    """The protocol that was granted, in small letters; empty for an ordinary request."""
    lone_offer: bytes = b""
    """The one subprotocol that the client offered, if that was its token: what the backend never saw, it
    can't select, and browsers insist on an answer."""
    cors: Lines = ()
    """For the page of another origin that may be reading the gateway's own answer, should there be one."""


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
    cors: Lines = ()
    """For the page of another origin that may be reading the answer."""


@dataclass(slots=True)
class Preflight:
    """A browser asks whether a page may send a request. Answered 204 by the gateway, whoever it is."""

    cors: Lines
    """What the browser goes by."""
    request_id: str
    """Shown in the answer, written in the log."""
    decided: Decided
    """The decision line's record."""


@dataclass(slots=True)
class Wait:
    """A judgement that depends on what is counted elsewhere. Only this request's port awaits it."""

    judgement: Callable[[], Awaitable[Forward | Refuse]]
    """To be called once."""
    decided: Decided
    """The decision line's record, should the client leave meanwhile."""


Judgement = Forward | Refuse | Preflight | Wait
"""What `Gate.judge` returns."""
