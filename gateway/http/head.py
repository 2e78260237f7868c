"""One request's head as it arrived: bytes, judged and forwarded without rewriting."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

Headers = list[tuple[bytes, bytes]]
"""Header lines in order: (name, value). Duplicates stay separate lines."""


METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
"""What an Allow header of ours names."""
REFUSED_METHODS = frozenset(["TRACE", "CONNECT"])
"""TRACE echoes the credential (RFC 9110 §9.3.8), CONNECT would make an open proxy."""

STATE_REQUEST_ID = "gateway.request_id"
"""In `scope["state"]`: the id under which the application accounts for the request."""
STATE_REFUSED = "gateway.refused"
"""In `scope["state"]`: the GatewayError that our server answered by itself, to a request already judged
whose body came late or malformed. One request has one line in the log."""

STATE_CORS = "gateway.cors"
"""In `scope["state"]`: the lines of `http.cors` that belong to whatever our server answers by itself."""


class Known:
    """Room for what was worked out from header lines.

    A client that keeps its connection sends the same lines with every request. A
    lane that meets the very same bytes again hands over the same `Known`, so that
    work which depends on nothing else is done once. What is in it belongs to the gate.
    """

    __slots__ = ("study",)

    def __init__(self) -> None:
        self.study: Any = None


@dataclass(slots=True)
class Head:
    """What every decision is made from. Filled by whichever lane received the request."""

    method: str
    """Upper-case ASCII, as on the request line."""
    target: bytes
    """The request target in origin-form, path and query, exactly as received."""
    headers: Headers
    """In order of arrival. Names in whatever case the lane received them."""
    http_version: str
    """"1.0" or "1.1"."""
    scheme: str
    """"http" or "https", of the connection to us."""
    peer: str | None
    """The socket peer's IP address; None on a unix socket."""
    can_switch: bool = False
    """The lane can tunnel bytes of another protocol, once one was agreed on."""
    known: Known = field(default_factory=Known, compare=False, repr=False)
    """See Known."""
    granted: Any = field(default=None, compare=False, repr=False)
    """Room for what the gate granted this head. A lane that meets the very same bytes, request line included,
    from the same peer hands over the very same head again."""

    @property
    def path(self) -> bytes:
        """The raw path: the target up to the first "?"."""
        return self.target.partition(b"?")[0]
