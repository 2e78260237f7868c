"""Cross-origin requests (Fetch Standard § 3.2, "CORS protocol"): which pages may call, and how they are told.

The browser asks, the server only answers: a preflight by an allowed page gets the lines
that let the real request out, every answer to such a page gets the lines that let it
read them. A page that is not allowed gets no line at all, and the browser stops it. So
nothing here decides who may do what; that is the real request's business.
"""

from __future__ import annotations

from dataclasses import dataclass

ANY_ORIGIN = b"*"


@dataclass(frozen=True, slots=True)
class Cors:
    """Which pages may do what from a browser. Compiled once per route."""

    origins: frozenset[bytes] = frozenset()
    """`https://app.example.com`, in small letters, or `*` for every page."""
    origin_suffixes: tuple[tuple[bytes, bytes], ...] = ()
    """`https://*.example.com` as (`https://`, `.example.com`)."""
    headers: frozenset[bytes] = frozenset()
    """Request headers, in small letters, that a page may set besides the harmless ones; `*` for all."""
    expose: tuple[bytes, ...] = ()
    """Response headers that a page may read besides the harmless ones."""
    credentials: bool = False
    """The browser may send cookies and client certificates along. Never together with `*`."""
    max_age: int = 0
    """Seconds for which a browser may remember the answer to a preflight."""

    def admits(self, origin: bytes) -> bool:
        """Whether pages of this origin may call."""
        origin = origin.lower()
        if origin in self.origins or ANY_ORIGIN in self.origins:
            return True
        return any(
            origin.startswith(scheme) and origin.endswith(domain) and len(origin) > len(scheme + domain)
            for scheme, domain in self.origin_suffixes
        )
