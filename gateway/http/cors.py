"""Cross-origin requests (Fetch Standard § 3.2, "CORS protocol"): which pages may call, and how they are told.

The browser asks, the server only answers: a preflight by an allowed page gets the lines
that let the real request out, every answer to such a page gets the lines that let it
read them. A page that is not allowed gets no line at all, and the browser stops it. So
nothing here decides who may do what; that is the real request's business.

Where the answer depends on the origin, `Vary` says so to caches, also in answers to
requests without one: a stored copy of those would lack the lines for a page.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple

from gateway.http.head import REFUSED_METHODS, Headers
from gateway.http.header_edits import HeaderEdits

Lines = tuple[tuple[bytes, bytes], ...]
"""Header lines, names in small letters."""
ANY_ORIGIN = ANY_HEADER = b"*"
_PREFIX = b"access-control-"


class Page(NamedTuple):
    """Where a browser's request comes from, and what it asks beforehand."""

    origin: bytes
    """As sent. `null` is a page that hides where it is from."""
    method: str
    """What it wants to send; empty unless an OPTIONS request with it is a preflight."""
    headers: tuple[bytes, ...]
    """Which request headers it wants to set, in small letters."""


def read_page(headers: Headers) -> Page | None:
    """The page that sends these; None without an Origin, and with several."""
    origins = [value for name, value in headers if len(name) == 6 and name.lower() == b"origin"]
    if len(origins) != 1:
        return None
    methods = _values(headers, b"access-control-request-method")
    method = methods[0].decode() if len(methods) == 1 and _METHOD.fullmatch(methods[0]) else ""
    names = b",".join(_values(headers, b"access-control-request-headers")).lower().split(b",")
    wanted = tuple(name.strip() for name in names if name.strip())
    return Page(origins[0], "" if method in REFUSED_METHODS else method, wanted)


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
            origin.startswith(scheme)
            and origin.endswith(domain)
            and _NAMES.fullmatch(origin, len(scheme), len(origin) - len(domain))
            for scheme, domain in self.origin_suffixes
        )

    def grants(self, page: Page) -> bool:
        """Whether the browser will send what this page asks for."""
        return self.admits(page.origin) and (
            ANY_HEADER in self.headers or all(name in self.headers for name in page.headers)
        )

    def preflight(self, page: Page) -> Lines:
        """What a preflight is answered with."""
        if not self.admits(page.origin):
            return (_VARY_PREFLIGHT,)
        headers = self._headers(page)
        return (
            _VARY_PREFLIGHT,
            *self._allowed(page.origin),
            (b"access-control-allow-methods", page.method.encode()),
            *(((b"access-control-allow-headers", headers),) if headers else ()),
            (b"access-control-max-age", b"%d" % self.max_age),
        )

    def lines(self, page: Page | None) -> Lines:
        """What every answer carries, the gateway's own too, whether a page has asked or not."""
        if ANY_ORIGIN in self.origins:
            return (*self._allowed(ANY_ORIGIN), *self._exposed())
        if page is None or not self.admits(page.origin):
            return (_VARY,)
        return (_VARY, *self._allowed(page.origin), *self._exposed())

    def _allowed(self, origin: bytes) -> Lines:
        """The browser compares the bytes, so the origin goes back as it came."""
        origin = ANY_ORIGIN if ANY_ORIGIN in self.origins else origin
        line = (b"access-control-allow-origin", origin)
        return (line, (b"access-control-allow-credentials", b"true")) if self.credentials else (line,)

    def _headers(self, page: Page) -> bytes:
        """By name also where all may be set: `*` would not mean Authorization (Fetch Standard § 4.9)."""
        if ANY_HEADER not in self.headers:
            return b", ".join(sorted(self.headers))
        return b", ".join(name for name in page.headers if _NAME.fullmatch(name))

    def _exposed(self) -> Lines:
        return ((b"access-control-expose-headers", b", ".join(self.expose)),) if self.expose else ()


NO_PAGES = Cors()
"""For a path that may mean several routes which don't agree."""


@dataclass(frozen=True, slots=True, eq=False)
class CorsEdits:
    """What becomes of a response's headers: the route's own edits, then these lines for the backend's."""

    edits: HeaderEdits
    """The route's."""
    lines: Lines
    """See `Cors.lines`."""

    def apply(self, headers: Headers) -> Headers:
        """The headers of a response as they go to the client."""
        kept = _without_cors(self.edits.apply(headers))
        return [*_varying(kept), *self.lines[1:]] if _VARY in self.lines else [*kept, *self.lines]

    def taken_out(self, headers: Headers) -> Headers:
        """For what comes before or behind a response: early hints, trailers."""
        return _without_cors(self.edits.taken_out(headers))


def _without_cors(headers: Headers) -> Headers:
    return [line for line in headers if not line[0].lower().startswith(_PREFIX)]


def _varying(headers: Headers) -> Headers:
    """With `Origin` among what the response varies by."""
    last = -1
    for index, (name, value) in enumerate(headers):
        if len(name) == 4 and name.lower() == b"vary":
            if not _VARIES.isdisjoint(map(bytes.strip, value.lower().split(b","))):
                return headers
            last = index
    if last < 0:
        return [*headers, _VARY]
    name, value = headers[last]
    return [*headers[:last], (name, value + b", Origin" if value else b"Origin"), *headers[last + 1 :]]


def _values(headers: Headers, wanted: bytes) -> list[bytes]:
    size = len(wanted)
    return [value for name, value in headers if len(name) == size and name.lower() == wanted]


_METHOD = re.compile(rb"[A-Z][A-Z-]{0,31}")
"""What can be asked for. A `patch` in small letters is no method that anybody serves."""
_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9a-z-]{1,128}")
_NAMES = re.compile(rb"[a-z0-9_-]+(?:\.[a-z0-9_-]+)*")
"""What may stand for the `*` of `https://*.example.com`."""
_VARY = (b"vary", b"Origin")
_VARY_PREFLIGHT = (b"vary", b"Origin, Access-Control-Request-Method, Access-Control-Request-Headers")
_VARIES = frozenset([b"origin", b"*"])
