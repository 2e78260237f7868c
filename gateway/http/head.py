"""One request's head as it arrived: bytes, judged and forwarded without rewriting."""

from __future__ import annotations

from dataclasses import dataclass

Headers = list[tuple[bytes, bytes]]
"""Header lines in order: (name, value). Duplicates stay separate lines."""


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
