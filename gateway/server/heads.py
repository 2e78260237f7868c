"""Reads one request's head, and refuses every head that two programs could read differently.

The connection cuts the head out of the stream at its first blank line and hands
it over whole; httptools (llhttp) splits it into lines. llhttp is strict about
most things, and where it is not, this file is: two spaces in the request line,
`RTSP/1.0`, no Host or two, a target that is no path, a Transfer-Encoding of
several codings or on HTTP/1.0, all pass llhttp (measured on httptools 0.9).
RFC 9112 and the smuggling advisories of llhttp, HAProxy, Go and h11 are where
the rules come from; a refused head always closes its connection.

A client sends the same header lines with request after request, and some send whole
heads again. What was read and found good is remembered by its exact bytes, with the
request line and without; meeting them again costs one look-up. All connections of a
listener share that memory.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache

import httptools

from gateway.errors import (
    BadFraming,
    BadHost,
    BadRequest,
    BadTarget,
    ExpectationFailed,
    GatewayError,
    HeadersTooLarge,
    MethodNotAllowed,
    NotImplementedHere,
    TargetTooLong,
)
from gateway.http.framing import MAX_HOST, body_length, valid_host
from gateway.http.head import METHODS, REFUSED_METHODS, Head, Headers, Known
from gateway.server.terms import Limits


@dataclass(slots=True)
class RequestHead:
    """A head that has exactly one meaning. The same one comes back for the same bytes."""

    method: str
    """As sent; one that llhttp knows, neither TRACE nor CONNECT."""
    target: bytes
    """Origin-form: begins with a slash."""
    http_version: str
    """"1.0" or "1.1"."""
    lines: HeaderLines
    """All the rest."""
    forwarded_as: Head | None = None
    """How the gate was asked about it the last time."""


@dataclass(frozen=True, slots=True)
class HeaderLines:
    """What header lines say."""

    headers: Headers
    """In order, names as they were sent, values without the white space around them."""
    body: int | None
    """The body's length in bytes, 0 for none, CHUNKED if it is sent in chunks."""
    keep_alive: bool
    """The client wants to go on afterwards."""
    expects_continue: bool
    """It waits for a 100 before it sends the body."""
    known: Known = field(default_factory=Known)
    """Goes with these very header lines, whenever they come again."""


class Memory:
    """What the connections of a listener have read of HTTP/1.1 requests, by its exact bytes."""

    __slots__ = ("heads", "lines")

    def __init__(self) -> None:
        self.heads: dict[bytes, RequestHead] = {}
        """Whole heads."""
        self.lines: dict[bytes, HeaderLines] = {}
        """Header lines, blank line included."""

    def forget(self) -> None:
        self.heads.clear()
        self.lines.clear()

    def keep(self, head: bytes, lines: bytes, read: RequestHead) -> None:
        """Full is emptied: it begins anew with those who are here now."""
        if len(self.lines) >= _REMEMBERED:
            self.lines.clear()
        if len(self.heads) >= _REMEMBERED:
            self.heads.clear()
        self.lines[lines] = read.lines
        self.heads[head] = read


_REMEMBERED, _LONGEST_REMEMBERED = 1024, 2048
"""Heads, blocks of header lines, and bytes of each; with all that is known of them some 15 MB."""


class HeadReader:
    """One per connection."""

    def __init__(self, limits: Limits, memory: Memory | None = None) -> None:
        self._limits = limits
        self._memory = memory or Memory()
        self._certainly_small = min(limits.target, limits.headers)
        self._parser: httptools.HttpRequestParser | None = None
        self._target = b""
        self._headers: Headers = []
        self._decisive: Headers = []
        self._complete = False

    def read(self, head: bytes) -> RequestHead:
        """`head` ends with its blank line. Raises the GatewayError to answer with."""
        return self._memory.heads.get(head) or self._read_line(head)

    def _read_line(self, head: bytes) -> RequestHead:
        """One whose header lines may have come before, below another request line."""
        line_end = head.find(b"\r\n")
        block = head[line_end + 2 :]
        lines = self._memory.lines.get(block)
        line = _USUAL_LINE.fullmatch(head, 0, line_end) if lines is not None else None
        if lines is not None and line is not None and len(line[2]) <= self._limits.target:
            read = RequestHead(_METHOD_NAMES[line[1]], line[2], "1.1", lines)
        else:
            read = self._read_anew(head, line_end)
        if read.http_version == "1.1" and len(head) <= _LONGEST_REMEMBERED:
            self._memory.keep(head, block, read)
        return read

    def _read_anew(self, head: bytes, line_end: int) -> RequestHead:
        if len(head) > self._certainly_small:
            self._check_size(head, line_end)
        _check_bytes(head)
        self._split(head)
        line = head[:line_end]
        method = _METHOD_NAMES.get(line[: line.find(b" ")])
        version = _VERSIONS.get(line[-9:])
        target = self._target
        # llhttp forgives a second space and takes RTSP/1.0: the line must be these three and nothing else.
        if method is None or version is None or len(line) != len(method) + len(target) + 10:
            raise why(head)
        if method in REFUSED_METHODS:
            raise MethodNotAllowed(allow=METHODS, close=True)
        if target[:1] != b"/" or b"#" in target:
            raise BadTarget(close=True)
        if len(self._headers) > self._limits.header_count:
            raise HeadersTooLarge(close=True)
        if self._parser is not None and not self._parser.should_keep_alive():
            self._parser = None  # it has seen a `Proxy-Connection: close`, and would take no further head
        return RequestHead(method, target, version, self._lines(version))

    def _lines(self, version: str) -> HeaderLines:
        decisive = self._decisive
        if len(decisive) != 1 or version != "1.1" or decisive[0][0] != b"host":
            return self._decide(version)
        if not sound_host(decisive[0][1]):
            raise BadHost(close=True)
        return HeaderLines(self._headers, 0, True, False)

    def forget(self) -> None:
        """The connection is gone: part with the parser, which refers back to us."""
        self._parser = None

    # What llhttp calls: public names by its convention.

    def on_url(self, part: bytes) -> None:
        self._target += part

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name, value))
        lower = name.lower()
        if lower in _DECISIVE:
            self._decisive.append((lower, value))

    def on_headers_complete(self) -> None:
        self._complete = True

    def _check_size(self, head: bytes, line_end: int) -> None:
        limits = self._limits
        if line_end > limits.target and len(_target_of(head[:line_end])) > limits.target:
            raise TargetTooLong(close=True)
        if len(head) - line_end - 4 > limits.headers:
            raise HeadersTooLarge(close=True)

    def _split(self, head: bytes) -> None:
        parser = self._parser
        if parser is None:
            parser = self._parser = httptools.HttpRequestParser(self)
        self._target, self._headers, self._complete = b"", [], False
        self._decisive.clear()
        try:
            parser.feed_data(head)
        except httptools.HttpParserUpgrade:
            self._parser = None
        except httptools.HttpParserError as error:
            self._parser = None
            raise why(head) from error
        if not self._complete:
            self._parser = None
            raise why(head)
        if b" \r\n" in head or b"\t\r\n" in head:
            # llhttp leaves white space behind a value where it is.
            self._headers = [(name, value.rstrip(b" \t")) for name, value in self._headers]
            self._decisive = [(name, value.rstrip(b" \t")) for name, value in self._decisive]

    def _decide(self, version: str) -> HeaderLines:
        """The less usual: whatever else the decisive headers say."""
        host: bytes | None = None
        upgrade = expects = False
        lengths: list[bytes] = []
        codings: list[bytes] = []
        options: set[bytes] = set()
        for name, value in self._decisive:
            if name == b"host":
                if host is not None:
                    raise BadHost(close=True)
                host = value
            elif name == b"connection":
                options.update(option.strip() for option in value.lower().split(b","))
            elif name == b"upgrade":
                upgrade = True
            elif name == b"expect":
                expects = _expects_continue(value, version)
            elif name == b"content-length":
                lengths.append(value)
            else:
                codings.append(value)
        if (host is None and version == "1.1") or (host is not None and not sound_host(host)):
            raise BadHost(close=True)
        body = body_length(lengths, codings, version)
        # What follows a wish to switch protocols may be that protocol: it is never read as a request.
        switches = upgrade and b"upgrade" in options
        keep_alive = version == "1.1" and b"close" not in options and not switches
        if body != 0 or not keep_alive or switches:
            self._parser = None  # it waits for the body, which the connection counts by itself
        return HeaderLines(self._headers, body, keep_alive, expects and body != 0)


def check_partial(head: bytes, fresh: int, limits: Limits) -> None:
    """Refuse a head that can't become a good one any more; `fresh` is where the unseen bytes begin.

    Without this, a head with bare LF line ends would only be refused at its
    deadline, and an endless one never.
    """
    _check_piece(head[max(fresh - 1, 0) :], first=fresh == 0)
    line_end = head.find(b"\r\n")
    if line_end < 0:
        if not _BEGINNING.fullmatch(head):
            raise BadRequest(close=True)
        if len(head) > limits.target + _LINE_ROOM:
            raise TargetTooLong(close=True)
    elif not _REQUEST_LINE.fullmatch(head, 0, line_end):
        raise why(head)
    elif len(head) - line_end - 4 > limits.headers:
        raise HeadersTooLarge(close=True)


def _check_piece(piece: bytes, *, first: bool) -> None:
    """`piece` begins with the last byte that was checked already, whose successor was not known then."""
    start = 1 if piece[:1] == b"\n" and not first else 0
    end = len(piece) - 1 if piece.endswith(b"\r") else len(piece)
    if piece.translate(None, _HEAD_BYTES) or _BARE_LINE_END.search(piece[:end], start):
        raise BadFraming(close=True)


def why(head: bytes) -> GatewayError:
    """The refusal for a head that did not parse."""
    line = _REQUEST_LINE.match(head)
    if line is None or head[line.end() : line.end() + 2] not in (b"\r\n", b""):
        return BadRequest("Send a request line of a method, a path and HTTP/1.1.", close=True)
    if line[1] not in _METHOD_NAMES:
        return NotImplementedHere("The gateway does not know this method.", close=True)
    if line[1].decode() in REFUSED_METHODS:
        return MethodNotAllowed(allow=METHODS, close=True)
    if line[2].translate(None, _TARGET_BYTES) or line[2][:1] != b"/":
        return BadTarget(close=True)
    return BadFraming(close=True)


def described(head: bytes) -> tuple[str | None, bytes | None]:
    """Method and target of a refused head, as far as they can be told; for the log."""
    line = _LOOSE_LINE.match(head)
    return (line[1].decode(), line[2]) if line else (None, None)


def sound_host(value: bytes) -> bool:
    """uri-host [":" port] as RFC 3986 §3.2 has it, brackets only around a real IPv6 address."""
    return len(value) <= MAX_HOST and _is_sound(value)


@lru_cache(maxsize=1024)
def _is_sound(value: bytes) -> bool:
    if not valid_host(value):
        return False
    name, colon, port = value.rpartition(b":")
    if not colon or value.endswith(b"]"):
        name, port = value, b""
    if port and int(port) > _HIGHEST_PORT:
        return False
    return not name.startswith(b"[") or _is_ipv6(name[1:-1])


def _is_ipv6(text: bytes) -> bool:
    try:
        ipaddress.IPv6Address(text.decode())
    except ValueError:
        return False
    return True


def _expects_continue(value: bytes, version: str) -> bool:
    """RFC 9110 §10.1.1: nothing else may be expected, and HTTP/1.0 expects nothing."""
    if version == "1.0":
        return False
    if value.lower() != b"100-continue":
        raise ExpectationFailed(close=True)
    return True


def _check_bytes(head: bytes) -> None:
    """Every line ends with CRLF, and no control byte stands anywhere (RFC 9112 §2.2, RFC 9110 §5.5)."""
    special = head.translate(None, _PLAIN_BYTES)
    if len(special) != 2 * head.count(b"\r\n") or special.translate(None, b"\r\n"):
        raise BadFraming(close=True) if _REQUEST_LINE.match(head) else why(head)


def _target_of(line: bytes) -> bytes:
    return line.split(b" ", 1)[-1].rpartition(b" ")[0]


def _all_but(first: int, last: int, excluded: Iterable[int] = (), also: bytes = b"") -> bytes:
    return bytes(byte for byte in range(first, last + 1) if byte not in set(excluded)) + also


_KNOWN_METHODS = frozenset(
    re.findall(
        r"\S+",
        """GET HEAD POST PUT PATCH DELETE OPTIONS TRACE CONNECT QUERY COPY LOCK MKCOL MOVE PROPFIND PROPPATCH
        SEARCH UNLOCK BIND REBIND UNBIND ACL REPORT MKACTIVITY CHECKOUT MERGE M-SEARCH NOTIFY SUBSCRIBE
        UNSUBSCRIBE PURGE MKCALENDAR LINK UNLINK""",
    )
)
"""llhttp's methods for HTTP (llhttp 9, without RTSP's, ICE's SOURCE and the PRI of HTTP/2)."""
_METHOD_NAMES = {name.encode(): name for name in _KNOWN_METHODS}
_VERSIONS = {b" HTTP/1.1": "1.1", b" HTTP/1.0": "1.0"}
_DECISIVE = frozenset(
    [b"host", b"content-length", b"transfer-encoding", b"connection", b"upgrade", b"expect"]
)
_PLAIN_BYTES = _all_but(0x20, 0xFF, [0x7F], b"\t")
_HEAD_BYTES = _PLAIN_BYTES + b"\r\n"
_TARGET_BYTES = _all_but(0x21, 0x7E, b"#")
_HIGHEST_PORT = 65535
_LINE_ROOM = 64
"""Bytes a request line needs besides its target."""
_BARE_LINE_END = re.compile(rb"(?<!\r)\n|\r(?!\n)")
_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,32}"
_BEGINNING = re.compile(_TOKEN + rb"(?: [^ \r]*(?: [HTP/1.0]{0,8}\r?)?)?|\r")
_REQUEST_LINE = re.compile(rb"(" + _TOKEN + rb") ([^ \r\n]+) HTTP/1\.[01]")
_USUAL_LINE = re.compile(
    b'(%b) (/[!-"$-~]*) HTTP/1\\.1'
    % b"|".join(name.encode() for name in sorted(_KNOWN_METHODS - REFUSED_METHODS))
)
_LOOSE_LINE = re.compile(rb"(" + _TOKEN + rb") ([!-~\x80-\xff]{1,8192})")
