"""What a route changes in the headers that pass: some are set, some are removed.

In a request, names are compared as the most generous backend reads them (`fold`): a
backend that is told `X-Tenant` must not find the client's own `X_Tenant` beside it.
A response comes from a backend that is believed, so there names only lose their case.

What the gateway itself sets or takes away is no route's business: `request_mistake` and
`response_mistake` say so before anything is built.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from gateway.http.head import Headers
from gateway.http.identity_headers import fold, is_ours

_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}")
"""A token of RFC 9110 §5.6.2; nobody needs a longer one."""
_VALUE = re.compile(r"[!-~](?:[ \t!-~]*[!-~])?")
"""A field value of RFC 9110 §5.5 without obs-text: bytes beyond ASCII mean something else to everyone."""
_MEMO_SIZE, _MEMO_NAME = 1024, 64
"""Header names remembered per route, real traffic has a few dozen; and bytes of the longest of them."""


@dataclass(frozen=True, slots=True)
class HeaderEdits:
    """Compiled once per route; empty ones change nothing and cost nothing."""

    add: tuple[tuple[bytes, bytes], ...] = ()
    """Name and value. A header of the same name goes first."""
    remove: tuple[bytes, ...] = ()
    """Names."""

    _lines: tuple[bytes, ...] = field(init=False, repr=False, compare=False)
    _names: frozenset[bytes] = field(init=False, repr=False, compare=False)
    _folded: frozenset[bytes] = field(init=False, repr=False, compare=False)
    _memory: dict[bytes, bool] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        names = [*(name for name, _ in self.add), *self.remove]
        object.__setattr__(self, "_lines", tuple(b"%b: %b\r\n" % line for line in self.add))
        object.__setattr__(self, "_names", frozenset(name.lower() for name in names))
        object.__setattr__(self, "_folded", frozenset(map(fold, names)))

    @classmethod
    def of(cls, add: Mapping[str, str], remove: Iterable[str]) -> HeaderEdits:
        """From names and values that `request_mistake` or `response_mistake` found nothing wrong with."""
        lines = tuple((name.encode("ascii"), value.encode("ascii")) for name, value in add.items())
        return cls(lines, tuple(name.encode("ascii") for name in remove))

    def __bool__(self) -> bool:
        return bool(self._names)

    def apply_to_request(self, lines: list[bytes]) -> list[bytes]:
        """Rendered lines (`Name: value CRLF`) as they go upstream; the ones that are set come last."""
        goes = self._goes
        return [*(line for line in lines if not goes(line[: line.find(b":")])), *self._lines]

    def apply(self, headers: Headers) -> Headers:
        """The headers of a response as they go to the client."""
        return [*(line for line in headers if line[0].lower() not in self._names), *self.add]

    def taken_out(self, headers: Headers) -> Headers:
        """For what comes before or behind a response: early hints, trailers. Nothing is set there."""
        return [line for line in headers if line[0].lower() not in self._names]

    def _goes(self, name: bytes) -> bool:
        known = self._memory.get(name)
        if known is None:
            known = fold(name) in self._folded
            if len(name) > _MEMO_NAME:
                return known
            if len(self._memory) >= _MEMO_SIZE:
                # Only a client that invents names gets here; it pays, and memory stays bounded.
                self._memory.clear()
            self._memory[name] = known
        return known


NO_EDITS = HeaderEdits()
"""For routes that change nothing."""


def name_mistake(name: str) -> str:
    """Why this can't be the name of a header, or nothing."""
    if not _NAME.fullmatch(name) or not fold(name.encode("ascii")):
        return "is no header name: letters, digits and - like X-Api-Version"
    return ""


def value_mistake(value: str) -> str:
    """Why this can't be the value of a header, or nothing. Never quotes it: it may be a secret."""
    if not value:
        return "can't be empty; to drop a header, name it in remove"
    if any(character in "\r\n\0" for character in value):
        return "can't hold a line break or a zero byte"
    return "" if _VALUE.fullmatch(value) else "must be printable ASCII without blanks around it"


def request_mistake(name: str) -> str:
    """Why no route may touch this header of a request, or nothing."""
    folded = fold(name.encode("ascii"))
    if folded.startswith(_HANDSHAKE):
        return _NO_HANDSHAKE
    if is_ours(name.encode("ascii")):
        return "belongs to the gateway, which sets or removes it itself, however it is spelt"
    return ""


def response_mistake(name: str, *, add: bool) -> str:
    """Why no route may touch this header of a response, or nothing."""
    folded = fold(name.encode("ascii"))
    if folded.startswith(_HANDSHAKE):
        return _NO_HANDSHAKE
    if folded in _RESPONSE:
        return "belongs to the connection or to the gateway, not to the response"
    if add and folded == b"setcookie":
        return "can't be set for a whole route: it would replace the cookies of the backend"
    return ""


_HANDSHAKE = b"secwebsocket"
_NO_HANDSHAKE = "belongs to the WebSocket handshake, which passes as it is"
_RESPONSE = frozenset(
    map(
        fold,
        [
            b"Connection",
            b"Keep-Alive",
            b"Proxy-Connection",
            b"Proxy-Authenticate",
            b"Proxy-Authentication-Info",
            b"TE",
            b"Trailer",
            b"Transfer-Encoding",
            b"Upgrade",
            b"Content-Length",
            b"X-Gateway-Error",
        ],
    )
)
"""Framing (RFC 9112 §6), hop-by-hop (RFC 9110 §7.6.1), and the mark of our own errors."""
