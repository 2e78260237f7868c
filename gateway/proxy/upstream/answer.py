"""What a backend's response head means for us: which lines go on, how the body ends, and whether the
connection may be used again. Pure.

A head is read whole. httptools (llhttp) splits it into lines and refuses what is not HTTP: control bytes,
bare LF, folded lines, Content-Length twice or beside Transfer-Encoding. Backends say the same again and
again, but for a Date that changes once a second, so short heads are remembered by their exact bytes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import lru_cache

import httptools

from gateway.http.head import Headers

MAX_HEAD = 64 * 1024
"""Bytes of a response head, interim answers included. Browsers stop at 256 KiB, nginx at 8 KiB."""
MAX_LINES = 200
"""Header lines of a response; twice what we take in a request."""
_REMEMBERED, _LONGEST_REMEMBERED = 512, 1024
"""Heads, and bytes of each."""


class Broken(Exception):
    """The backend's bytes can't be passed on. The message is for the log, never for the client."""


@dataclass(slots=True, eq=False)
class Answer:
    """A response head, ready to be passed on. The same one may stand for many responses: never change it."""

    status: int
    """100 to 599."""
    reason: bytes
    """The reason phrase as it arrived; often empty."""
    headers: Headers
    """End-to-end lines in order, names and values as they arrived."""
    length: int | None
    """Bytes of the body that Content-Length announces; None without one."""
    chunked: bool
    """The body comes in chunks."""
    bodiless: bool
    """Ends with its head: 204, 304. So does every answer to HEAD."""
    keep_alive: float | None
    """Seconds the backend will wait for a next request; inf if it names none, None if it will close."""
    upgrade: bytes = b""
    """The protocol that a 101 switches to, in small letters."""
    rendered: bytes = field(default=b"", repr=False)
    """Room for a port to keep the head as it writes it to the client."""
    lowered: Headers = field(default_factory=list, repr=False)
    """Room for a port to keep the lines with names in small letters."""
    edited: tuple[object, Answer] | None = field(default=None, repr=False)
    """Room for an exchange to keep what a route's edits made of it, and which edits these were."""


def read_answer(head: bytes) -> Answer:
    """`head` ends with its blank line. Raises Broken for anything that leaves a doubt about where
    the body ends (RFC 9112 §6.3)."""
    return _remembered(head) if len(head) <= _LONGEST_REMEMBERED else _read(head)


def _read(head: bytes) -> Answer:
    line = _STATUS_LINE.match(head)
    if line is None:  # llhttp takes blank lines before it, control bytes in the reason, and RTSP/1.0
        raise Broken(f"not HTTP/1.1: it begins {head[:40]!r}")
    parsed = _Parsed()
    try:
        httptools.HttpResponseParser(parsed).feed_data(head)
    except httptools.HttpParserUpgrade:
        pass  # a 101: the head was parsed all the same
    except httptools.HttpParserError as error:
        raise Broken(f"not HTTP/1.1: {error}") from None
    if not parsed.complete:
        raise Broken("not HTTP/1.1: the head does not end where it should")
    status = int(line[2])
    if len(parsed.lines) > MAX_LINES:
        raise Broken(f"{len(parsed.lines)} header lines")
    if status < 200:  # nothing in it frames or closes anything; which lines go on is the same question
        return _sorted_out(status, "1.1", line[3] or b"", parsed.lines)
    return _sorted_out(status, line[1].decode(), line[3] or b"", parsed.lines)


_remembered = lru_cache(maxsize=_REMEMBERED)(_read)


class _Parsed:
    """What llhttp finds in one head."""

    __slots__ = ("complete", "lines")

    def __init__(self) -> None:
        self.lines: Headers = []
        self.complete = False

    def on_header(self, name: bytes, value: bytes) -> None:
        self.lines.append((name, value))

    def on_headers_complete(self) -> None:
        self.complete = True


def _sorted_out(status: int, version: str, reason: bytes, lines: Headers) -> Answer:
    kept: Headers = []
    hop: dict[bytes, list[bytes]] = {}
    length: int | None = None
    for line in lines:
        name = line[0].lower()
        if name not in _SPECIAL:
            kept.append(line)
        elif name == b"content-length":
            length = _length(line[1])
            kept.append(line)
        else:
            hop.setdefault(name, []).append(line[1])
    chunked = b"transfer-encoding" in hop and _is_chunked(version, hop[b"transfer-encoding"])
    keep_alive: float | None = _FOREVER
    if version == "1.0":
        keep_alive, kept = _apply_connection(hop, None, kept)
    elif hop and hop != _NOTHING_SPECIAL:
        keep_alive, kept = _apply_connection(hop, keep_alive, kept)
    if length is not None and (status == 204 or status < 200):  # RFC 9110 §8.6: they have none
        kept = _without(kept, {b"content-length"})
    if any(line[0].lower() in _LOGINS and _BINDING.search(line[1]) for line in kept):
        keep_alive = None  # it goes by the connection, and would take the next one on it for this one
    if (status == 204 and (length or chunked)) or (status == 304 and chunked):
        keep_alive = None  # it may send that body all the same, a moment later
    upgrade = b",".join(hop.get(b"upgrade", ())).strip().lower() if status == 101 else b""
    return Answer(status, reason, kept, length, chunked, status in (204, 304), keep_alive, upgrade)


_STATUS_LINE = re.compile(rb"HTTP/(1\.[01]) ([1-5][0-9]{2})(?: ([\t\x20-\x7e\x80-\xff]*))?\r\n")
_FOREVER = float("inf")

_LOGINS = frozenset((b"www-authenticate", b"persistent-auth"))
_BINDING = re.compile(rb"(?:^|,)\s*(?:ntlm|negotiate|true)\b", re.IGNORECASE)
"""Schemes that log a connection in and not a request (RFC 4559 §6); and what IIS says of one that is."""

_NOTHING_SPECIAL = {b"connection": [b"keep-alive"]}
"""What most backends say; in HTTP/1.1 it means nothing."""

# Not passed on (RFC 9110 §7.6.1), except the length, which frames the body for us too. `x-gateway-error` is
# ours alone: a client must be able to trust who speaks.
_SPECIAL = frozenset(
    (
        b"content-length",
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        b"x-gateway-error",
    )
)

# Options of Connection that are no header names; Content-Length frames the body whatever Connection says.
_NO_NAMES = frozenset((b"close", b"keep-alive", b"upgrade", b"content-length", b""))


def sound_trailers(trailers: Headers) -> Headers:
    """Those that may follow a body: nothing that frames, routes or speaks for us (RFC 9110 §6.5.1)."""
    return [line for line in trailers if line[0].lower() not in _NO_TRAILER] if trailers else trailers


_NO_TRAILER = _SPECIAL | {b"set-cookie", b"content-type", b"content-encoding", b"content-range", b"location"}


def _length(value: bytes) -> int:
    value = value.strip()
    if not value.isdigit() or len(value) > 18:
        raise Broken(f"content-length {value!r}")
    return int(value)


def _is_chunked(version: str, values: list[bytes]) -> bool:
    if version == "1.0" or len(values) != 1 or values[0].strip().lower() != b"chunked":
        raise Broken(f"transfer-encoding {values!r} in HTTP/{version}")
    return True


def _apply_connection(
    hop: dict[bytes, list[bytes]], keep_alive: float | None, kept: Headers
) -> tuple[float | None, Headers]:
    options = {option.strip().lower() for value in hop.get(b"connection", ()) for option in value.split(b",")}
    if b"close" in options:
        keep_alive = None
    elif b"keep-alive" in options and keep_alive is None:
        keep_alive = _FOREVER
    if keep_alive is not None and b"keep-alive" in hop:
        keep_alive = _promised(hop[b"keep-alive"])
    names = options - _NO_NAMES
    return keep_alive, _without(kept, names) if names else kept


def _promised(values: list[bytes]) -> float:
    """The seconds of `Keep-Alive: timeout=5, max=100`."""
    for parameter in b",".join(values).split(b","):
        name, _, value = parameter.strip().lower().partition(b"=")
        if name.strip() == b"timeout" and value.strip().isdigit():
            return float(value.strip()[:9])
    return _FOREVER


def _without(lines: Headers, names: set[bytes]) -> Headers:
    return [line for line in lines if line[0].lower() not in names]
