"""What a backend's response head means for us: which lines go on, how the body ends, and whether the
connection may be used again. Pure; the parser has already refused what is not HTTP (control bytes, bare LF,
folded lines, Content-Length twice or beside Transfer-Encoding)."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.http.head import Headers

MAX_HEAD = 64 * 1024
"""Bytes of a response head, interim answers included. Browsers stop at 256 KiB, nginx at 8 KiB."""
MAX_LINES = 200
"""Header lines of a response; twice what we take in a request."""
LINE_OVERHEAD = 4
"""Bytes of ": " and CRLF, counted for each line."""


class Broken(Exception):
    """The backend's bytes can't be passed on. The message is for the log, never for the client."""


@dataclass(slots=True)
class Answer:
    """A response head, ready to be passed on."""

    status: int
    """200 to 599."""
    headers: Headers
    """End-to-end lines in order, names and values as they arrived."""
    bodiless: bool
    """Ends with its head: the answer to HEAD, 204, 304."""
    until_eof: bool
    """Its body ends where the connection ends."""
    keep_alive: float | None
    """Seconds the backend will wait for a next request; inf if it names none, None if it will close."""


def read_answer(status: int, version: str, lines: Headers, *, to_head: bool) -> Answer:
    """Raises Broken for anything that leaves a doubt about where the body ends (RFC 9112 §6.3)."""
    if not 200 <= status <= 599:
        raise Broken(f"status {status}")
    if version not in ("1.1", "1.0"):
        raise Broken(f"HTTP version {version}")
    if len(lines) > MAX_LINES:
        raise Broken(f"{len(lines)} header lines")
    kept: Headers = []
    hop: dict[bytes, list[bytes]] = {}
    sized = False
    for line in lines:
        name = line[0].lower()
        if name not in _SPECIAL:
            kept.append(line)
        elif name == b"content-length":
            kept.append(line)
            sized = True
        else:
            hop.setdefault(name, []).append(line[1])
    chunked = b"transfer-encoding" in hop and _is_chunked(version, hop[b"transfer-encoding"])
    bodiless = to_head or status in (204, 304)
    keep_alive: float | None = _FOREVER
    if version == "1.0":
        keep_alive, kept = _apply_connection(hop, None, kept)
    elif hop and hop != _NOTHING_SPECIAL:
        keep_alive, kept = _apply_connection(hop, keep_alive, kept)
    if status == 204 and sized:  # RFC 9110 §8.6: a 204 has no Content-Length
        kept = _without(kept, {b"content-length"})
    return Answer(status, kept, bodiless, not (bodiless or sized or chunked), keep_alive)


_FOREVER = float("inf")

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
_NO_NAMES = frozenset((b"close", b"keep-alive", b"content-length", b""))


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
