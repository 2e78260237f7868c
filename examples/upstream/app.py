"""A backend without any authentication: it tells back, byte for byte, what reached it.

    python examples/upstream/app.py --port 9000
    python examples/upstream/app.py --unix /tmp/upstream.sock

Every path answers 200 with the request as JSON: request line, header lines in
order (duplicates stay two lines), body. Bytes are shown as latin-1, so nothing
is lost or prettified on the way. Three paths answer over time instead:

    /stream?lines=5&every=0.5   one chunk per line
    /sse?events=5&every=0.5     server-sent events
    /slow?seconds=2             the echo, after a while

A WebSocket on any path is told the same JSON as its first message; after that,
every message comes back.

Only the standard library: what a proxy sent is shown before any framework read it.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import hashlib
import json
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qs

HEAD_LIMIT = 64 * 1024
"""Bytes of one request head, and of one chunk-size line."""
SHOWN_BODY = 64 * 1024
"""Bytes of a body that are told back; length and SHA-256 always cover all of it."""
READ_SIZE = 64 * 1024
LONGEST_WAIT = 600.0
"""Seconds that a client may ask for, so that no typo holds a connection for a year."""
FRAME_LIMIT = 16 * 1024 * 1024
"""Bytes of one WebSocket frame."""
TEXT, CLOSE, PING, PONG = 0x1, 0x8, 0x9, 0xA
"""Opcodes of RFC 6455 §5.2."""
FINAL, MASKED = 0x80, 0x80


class Malformed(Exception):
    """What arrived is not HTTP/1.1; the message says why."""


class BadFrame(Exception):
    """A WebSocket frame that nobody should have sent: the code to close with, and why."""


@dataclass(slots=True)
class Request:
    """One request as received."""

    method: str
    target: str
    version: str
    headers: list[tuple[str, str]]
    shown: bytearray = field(default_factory=bytearray)
    length: int = 0
    digest: hashlib._Hash = field(default_factory=hashlib.sha256)
    trailers: list[tuple[str, str]] = field(default_factory=list)

    def values(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key.lower() == name]

    def number(self, name: str, default: float) -> float:
        """A number from the query, between 0 and LONGEST_WAIT."""
        given = parse_qs(self.target.partition("?")[2]).get(name, [""])[0]
        with contextlib.suppress(ValueError):
            default = float(given)
        return min(max(default, 0.0), LONGEST_WAIT) if default == default else 0.0

    @property
    def connection(self) -> set[str]:
        return {option.strip().lower() for option in ",".join(self.values("connection")).split(",")}

    @property
    def keep_alive(self) -> bool:
        options = self.connection
        return "close" not in options and (self.version == "HTTP/1.1" or "keep-alive" in options)

    @property
    def wants_websocket(self) -> bool:
        named = [value.lower() for value in self.values("upgrade")]
        return self.method == "GET" and named == ["websocket"] and "upgrade" in self.connection

    def take(self, data: bytes) -> None:
        """Account for a piece of the body; only its beginning is kept."""
        self.length += len(data)
        self.digest.update(data)
        self.shown += data[: SHOWN_BODY - len(self.shown)]

    def as_json(self) -> bytes:
        shown = bytes(self.shown)
        told = {
            "requestLine": f"{self.method} {self.target} {self.version}",
            "method": self.method,
            "target": self.target,
            "headers": self.headers,
            "body": shown.decode("latin-1"),
            "bodyBase64": base64.b64encode(shown).decode(),
            "bodyLength": self.length,
            "bodySha256": self.digest.hexdigest(),
            "trailers": self.trailers,
        }
        return json.dumps(told, indent=2).encode() + b"\n"


async def serve_connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One connection: its requests are answered one after the other."""
    try:
        while (request := await read_head(reader)) is not None:
            if request.wants_websocket:
                await talk(request, reader, writer)
                break
            await read_body(request, reader, writer)
            await answer(request, writer)
            if not request.keep_alive:
                break
    except Malformed as problem:
        text = f"{problem}\n".encode()
        writer.write(b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\nconnection: close\r\n")
        writer.write(b"content-length: %d\r\n\r\n%b" % (len(text), text))
    except (ConnectionError, asyncio.IncompleteReadError):
        writer.transport.abort()  # an upload that broke off gets no answer that could look complete
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def read_head(reader: asyncio.StreamReader) -> Request | None:
    """The next request without its body, or None when the client has left."""
    try:
        block = await reader.readuntil(b"\r\n\r\n")
    except asyncio.LimitOverrunError:
        raise Malformed("the head is too large") from None
    except asyncio.IncompleteReadError as left:
        if left.partial.strip():
            raise
        return None
    first, *lines = block[:-4].decode("latin-1").split("\r\n")
    parts = first.split(" ")
    if len(parts) != 3 or parts[2] not in ("HTTP/1.1", "HTTP/1.0"):
        raise Malformed("the request line is not `METHOD TARGET HTTP/1.1`")
    return Request(parts[0], parts[1], parts[2], [header(line) for line in lines])


def header(line: str) -> tuple[str, str]:
    name, colon, value = line.partition(":")
    if not colon or not name or name != name.strip():
        raise Malformed("a header line is not `Name: value`")
    return name, value.strip(" \t")


async def read_body(request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    lengths, codings = request.values("content-length"), request.values("transfer-encoding")
    if len(lengths) + len(codings) > 1:
        raise Malformed("the body's length is told more than once")
    if codings and codings[0].lower() != "chunked":
        raise Malformed("the only transfer coding understood is chunked")
    if lengths and not (lengths[0].isascii() and lengths[0].isdigit()):
        raise Malformed("the content-length is not a number")
    if (lengths or codings) and request.values("expect"):
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    if lengths:
        await read_exactly(request, reader, int(lengths[0]))
    elif codings:
        await read_chunks(request, reader)


async def read_exactly(request: Request, reader: asyncio.StreamReader, missing: int) -> None:
    while missing:
        data = await reader.read(min(missing, READ_SIZE))
        if not data:
            raise asyncio.IncompleteReadError(b"", missing)
        request.take(data)
        missing -= len(data)


async def read_chunks(request: Request, reader: asyncio.StreamReader) -> None:
    while size := chunk_size(await read_line(reader)):
        await read_exactly(request, reader, size)
        if await read_line(reader):
            raise Malformed("a chunk is longer than it said")
    while line := await read_line(reader):
        request.trailers.append(header(line))


async def read_line(reader: asyncio.StreamReader) -> str:
    try:
        return (await reader.readuntil(b"\r\n"))[:-2].decode("latin-1")
    except asyncio.LimitOverrunError:
        raise Malformed("a line of the chunked body is too long") from None


def chunk_size(line: str) -> int:
    digits = line.partition(";")[0].strip()
    if not digits or set(digits) - set("0123456789abcdefABCDEF"):
        raise Malformed("a chunk size is not a hexadecimal number")
    return int(digits, 16)


async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
    path = request.target.partition("?")[0]
    if path == "/slow":
        await asyncio.sleep(request.number("seconds", 1))
    if path == "/stream":
        await answer_pieces(request, writer, "text/plain; charset=utf-8", lines(request))
    elif path == "/sse":
        await answer_pieces(request, writer, "text/event-stream", events(request))
    else:
        body = request.as_json()
        writer.write(head(request, "application/json", f"content-length: {len(body)}"))
        writer.write(b"" if request.method == "HEAD" else body)
        await writer.drain()


async def answer_pieces(
    request: Request, writer: asyncio.StreamWriter, media_type: str, pieces: AsyncIterator[bytes]
) -> None:
    """Chunked for 1.1; for 1.0 the end of the connection ends the body."""
    chunked = request.version == "HTTP/1.1"
    framing = "transfer-encoding: chunked" if chunked else "cache-control: no-store"
    if not chunked:
        request.headers.append(("Connection", "close"))
    writer.write(head(request, media_type, framing))
    if request.method != "HEAD":
        async for piece in pieces:
            writer.write(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
            await writer.drain()
        writer.write(b"0\r\n\r\n" if chunked else b"")
    await writer.drain()


def head(request: Request, media_type: str, framing: str) -> bytes:
    connection = "keep-alive" if request.keep_alive else "close"
    lines = ["HTTP/1.1 200 OK", f"content-type: {media_type}", framing, f"connection: {connection}"]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


async def lines(request: Request) -> AsyncIterator[bytes]:
    for number in range(int(request.number("lines", 5))):
        await asyncio.sleep(request.number("every", 0.5) if number else 0)
        yield f"line {number + 1}\n".encode()


async def events(request: Request) -> AsyncIterator[bytes]:
    for number in range(int(request.number("events", 5))):
        await asyncio.sleep(request.number("every", 0.5) if number else 0)
        yield f'id: {number + 1}\nevent: tick\ndata: {{"n": {number + 1}}}\n\n'.encode()


# -- WebSocket (RFC 6455) ------------------------------------------------------------------------------------


async def talk(request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Tell the request, then send every frame back as it came, until the client closes."""
    writer.write(accept(request))
    writer.write(frame(FINAL | TEXT, request.as_json()))
    try:
        while True:
            await writer.drain()
            first, payload = await read_frame(reader)
            opcode = first & 0x0F
            if opcode != PONG:
                writer.write(frame(FINAL | PONG if opcode == PING else first, payload))
            if opcode == CLOSE:
                break
    except BadFrame as bad:
        code, why = bad.args
        writer.write(frame(FINAL | CLOSE, code.to_bytes(2, "big") + why.encode()))
    await writer.drain()


def accept(request: Request) -> bytes:
    """The 101. Of the subprotocols that the client offers, the first is chosen."""
    keys = request.values("sec-websocket-key")
    if len(keys) != 1 or request.values("sec-websocket-version") != ["13"]:
        raise Malformed("the WebSocket handshake lacks its key or its version")
    digest = hashlib.sha1(keys[0].encode("latin-1") + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
    lines = ["HTTP/1.1 101 Switching Protocols", "upgrade: websocket", "connection: Upgrade"]
    lines.append(f"sec-websocket-accept: {base64.b64encode(digest).decode()}")
    offered = ",".join(request.values("sec-websocket-protocol"))
    if offered:
        lines.append(f"sec-websocket-protocol: {offered.split(',')[0].strip()}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


async def read_frame(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """A frame's first byte (FIN and opcode) and what it says."""
    first, second = await reader.readexactly(2)
    length = second & 0x7F
    if length >= 126:
        length = int.from_bytes(await reader.readexactly(2 if length == 126 else 8), "big")
    if first & 0x70:
        raise BadFrame(1002, "no extension was agreed on")
    if not second & MASKED:
        raise BadFrame(1002, "a client's frame must be masked")
    if length > FRAME_LIMIT:
        raise BadFrame(1009, "the frame is too long")
    mask = await reader.readexactly(4)
    masked = await reader.readexactly(length)
    key = (mask * (length // 4 + 1))[:length]
    plain = int.from_bytes(masked, "big") ^ int.from_bytes(key, "big")
    return first, plain.to_bytes(length, "big")


def frame(first: int, payload: bytes) -> bytes:
    """As a server sends it: unmasked."""
    length = len(payload)
    if length < 126:
        return bytes([first, length]) + payload
    if length < 65536:
        return bytes([first, 126]) + length.to_bytes(2, "big") + payload
    return bytes([first, 127]) + length.to_bytes(8, "big") + payload


async def listen(*, host: str = "127.0.0.1", port: int = 9000, unix: Path | None = None) -> asyncio.Server:
    """A listening server; `port=0` takes any free one."""
    if unix is not None:
        return await asyncio.start_unix_server(serve_connection, path=unix, limit=HEAD_LIMIT)
    return await asyncio.start_server(serve_connection, host, port, limit=HEAD_LIMIT)


async def main() -> None:
    parser = argparse.ArgumentParser(description="A backend that tells back what reached it.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=9000)
    parser.add_argument("--unix", type=Path, metavar="PATH", help="listen on this socket instead of a port")
    options = parser.parse_args()
    server = await listen(host=options.host, port=options.port, unix=options.unix)
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    where = options.unix or "http://{}:{}".format(*server.sockets[0].getsockname()[:2])
    print(f"upstream listening on {where}", flush=True)
    await stop.wait()
    server.close()  # no wait: connections that still stream end with the process


if __name__ == "__main__":
    asyncio.run(main())
