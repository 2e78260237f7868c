"""Takes the chunked coding off a body, strictly (RFC 9112 §7.1): a client's, or a backend's.

Chunk extensions are dropped: nothing in the house reads them. Trailers are kept
apart for whoever may pass them on: those of a request are dropped, since a trailer that
became a header would be a way around every check of the head. Both are bounded,
extensions also in sum: one-byte chunks with long extensions make us read far more
than we hand on (Go, CVE-2023-39326).
"""

from __future__ import annotations

import re

from gateway.errors import BadFraming
from gateway.http.head import Headers

MAX_LINE = 1024
"""Bytes of a size line with its extensions, or of one trailer."""
MAX_TRAILERS = 8 * 1024
"""Bytes of the trailer section."""
MAX_WASTE = 16 * 1024
"""Bytes of size lines beyond 16 a chunk and a copy of what the chunks hold: Go's measure."""


class ChunkedBody:
    """The state of one body. Feed it bytes until it is `done` or `broken`."""

    def __init__(self) -> None:
        self.done = False
        """The last byte was seen."""
        self.broken: BadFraming | None = None
        """Why there is nothing more to be read. What stood before it was handed out."""
        self.trailers: Headers = []
        """What stood behind the last chunk."""
        self._line = b""
        self._left = 0
        self._waste = 0
        self._trailer_bytes = 0
        self._on_line = self._on_size

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """The body's bytes in `data`, and what follows the body."""
        parts: list[bytes] = []
        at = 0
        try:
            while at < len(data) and not self.done:
                if self._left:
                    part = data[at : at + self._left]
                    parts.append(part)
                    at += len(part)
                    self._left -= len(part)
                elif self._expects_size() and (after := _take_small(data, at, parts)) != at:
                    at = after
                else:
                    at = self._take_line(data, at)
        except BadFraming as error:
            self.broken = error
        return parts[0] if len(parts) == 1 else b"".join(parts), data[at:]

    def _expects_size(self) -> bool:
        return not self._line and not self._waste and self._on_line == self._on_size

    def _take_line(self, data: bytes, at: int) -> int:
        """Collects a line that may come in pieces; where to go on."""
        end = data.find(b"\n", at, at + MAX_LINE + 2)
        stop = end + 1 if end >= 0 else len(data)
        line = self._line + data[at:stop]
        if len(line) > MAX_LINE + 2:
            raise _broken("A line of the chunked body is too long.")
        if end < 0:
            self._line = line
            return stop
        if not line.endswith(b"\r\n"):
            raise _broken("A line of the chunked body does not end with CRLF.")
        self._line = b""
        self._on_line(line[:-2])
        return stop

    def _on_size(self, line: bytes) -> None:
        match = _SIZE.fullmatch(line)
        if match is None:
            raise _broken("A chunk's size is not a hexadecimal number.")
        self._left = int(match[1], 16)
        self._waste = max(self._waste + len(line) - 16 - 2 * self._left, 0)
        if self._waste > MAX_WASTE:
            raise _broken("The chunks carry more extensions than data.")
        self._on_line = self._on_chunk_end if self._left else self._on_trailer

    def _on_chunk_end(self, line: bytes) -> None:
        if line:
            raise _broken("A chunk is longer than its size says.")
        self._on_line = self._on_size

    def _on_trailer(self, line: bytes) -> None:
        if not line:
            self.done = True
            return
        self._trailer_bytes += len(line)
        trailer = _TRAILER.fullmatch(line)
        if self._trailer_bytes > MAX_TRAILERS or trailer is None:
            raise _broken("The trailers are malformed or too large.")
        self.trailers.append((trailer[1], trailer[2].strip(b" \t")))


def _take_small(data: bytes, at: int, parts: list[bytes]) -> int:
    """Whole chunks of up to 255 bytes without extensions; where to go on.

    Somebody may send a megabyte in chunks of one byte, and everyone else waits meanwhile.
    """
    while True:
        begin = at + 3
        size = _SMALL.get(data[at:begin])
        if size is None:
            begin = at + 4
            size = _SMALL.get(data[at:begin])
            if size is None:
                return at
        end = begin + size
        if data[end : end + 2] != b"\r\n":
            return at
        parts.append(data[begin:end])
        at = end + 2


def _broken(sentence: str) -> BadFraming:
    return BadFraming(sentence, close=True)


_SMALL = {form % size: size for form in (b"%x\r\n", b"%X\r\n") for size in range(1, 256)}
"""Size lines, and what they say."""
_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})(?:;[\t\x20-\x7e\x80-\xff]*)?")
_TRAILER = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):([\t\x20-\x7e\x80-\xff]*)")
