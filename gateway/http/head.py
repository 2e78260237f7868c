"""One request's head as it arrived: bytes, judged and forwarded without rewriting."""

from __future__ import annotations

from dataclasses import dataclass

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

    @property
    def path(self) -> bytes:
        """The raw path: the target up to the first "?"."""
        return self.target.partition(b"?")[0]
