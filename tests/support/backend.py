"""A backend that does exactly what a test tells it to, byte by byte.

    async def script(peer: Peer) -> None:      # one call per connection
        request = await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\n\\r\\nhi")
        await peer.reset()

    async with Backend(script) as backend:
        ...  # backend.url, backend.requests, backend.peers

It is raw TCP (or TLS, or a unix socket) on asyncio, in the loop of the test. When
the script returns, the connection is closed. `answering(...)` and `echo` are
scripts for backends that behave.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

Script = Callable[["Peer"], Awaitable[None]]

PATIENCE = 30.0
"""Seconds after which a script that waits for the gateway gives up; only ever reached by a failing test."""


@dataclass(slots=True)
class Request:
    """One request as it came over the wire."""

    raw_head: bytes
    """Everything up to and including the blank line."""
    body: bytes = b""
    """Without its framing."""
    chunks: list[bytes] = field(default_factory=list)
    """The pieces of a chunked body; empty for other bodies."""
    raw_trailers: bytes = b""
    """Whatever stood between the last chunk and the end."""

    @property
    def line(self) -> bytes:
        return self.raw_head.partition(b"\r\n")[0]

    @property
    def method(self) -> bytes:
        return self.line.split(b" ")[0]

    @property
    def target(self) -> bytes:
        return self.line.split(b" ")[1]

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """Lines in order, names as sent."""
        lines = self.raw_head.split(b"\r\n")[1:-2]
        return [(name, value.strip()) for name, _, value in (line.partition(b":") for line in lines)]

    def all(self, name: bytes) -> list[bytes]:
        """Every value of a header, whatever its case."""
        return [value for each, value in self.headers if each.lower() == name.lower()]

    def one(self, name: bytes) -> bytes:
        """The value of a header that must be there once."""
        values = self.all(name)
        assert len(values) == 1, (name, values)
        return values[0]


class Truncated(Exception):
    """The gateway closed the connection in the middle of a request. `got` is what had arrived of the body."""

    def __init__(self, got: bytes = b"") -> None:
        super().__init__(f"{len(got)} bytes of body, then the end")
        self.got = got


class Peer:
    """One accepted connection, in the hands of a script."""

    def __init__(self, backend: Backend, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.backend, self.reader, self.writer = backend, reader, writer
        self.requests: list[Request] = []
        self.ended = asyncio.Event()
        """The script is done with it."""

    async def request(self) -> Request:
        """The next whole request. Raises EOFError between requests, Truncated inside one."""
        request = await self.head()
        if request.all(b"transfer-encoding"):
            await self._chunked(request)
        elif request.all(b"content-length"):
            request.body = await self._exactly(int(request.one(b"content-length")))
        return request

    async def head(self) -> Request:
        """The next request's head; its body is left unread."""
        try:
            raw = await self.reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError as error:
            raise EOFError(error.partial) from error
        request = Request(raw)
        self.requests.append(request)
        self.backend.requests.append(request)
        return request

    async def read(self, size: int = 65536) -> bytes:
        """Whatever came; b"" at the end."""
        return await self.reader.read(size)

    async def send(self, *pieces: bytes) -> None:
        """Each piece as a write of its own, as far as the kernel lets us have it so."""
        for piece in pieces:
            self.writer.write(piece)
            await self.writer.drain()

    async def trickle(self, data: bytes, size: int = 1) -> None:
        """The same bytes, a few at a time, each in a packet of its own."""
        for start in range(0, len(data), size):
            await self.send(data[start : start + size])
            await asyncio.sleep(0)

    async def closed(self) -> bytes:
        """Wait until the gateway closes the connection; returns what else it said before."""
        rest = b""
        with contextlib.suppress(ConnectionError):
            async with asyncio.timeout(PATIENCE):
                while more := await self.reader.read(65536):
                    rest += more
        return rest

    async def half_close(self) -> None:
        """FIN: no more from us, but we go on reading."""
        self.writer.write_eof()

    async def reset(self) -> None:
        """RST instead of FIN."""
        peer: socket.socket = self.writer.get_extra_info("socket")
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.abort()

    def abort(self) -> None:
        """Close at once, whatever was not sent yet. Nothing if it is closed."""
        with contextlib.suppress(AttributeError):  # asyncio's, when it is gone: agronholm/anyio#1250
            self.writer.transport.abort()

    async def hang(self) -> None:
        """Say nothing until the gateway gives up."""
        await self.closed()

    async def _exactly(self, size: int) -> bytes:
        try:
            return await self.reader.readexactly(size)
        except asyncio.IncompleteReadError as error:
            raise Truncated(error.partial) from error
        except ConnectionError as error:
            raise Truncated from error

    async def _line(self) -> bytes:
        try:
            return await self.reader.readuntil(b"\r\n")
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            raise Truncated from error

    async def _chunked(self, request: Request) -> None:
        try:
            while size := int(await self._line(), 16):  # strict: an extension would be a ValueError
                chunk = await self._exactly(size)
                request.chunks.append(chunk)
                request.body += chunk
                assert await self._exactly(2) == b"\r\n"
        except Truncated as error:
            raise Truncated(request.body + error.got) from error
        while (line := await self._line()) != b"\r\n":
            request.raw_trailers += line


class Backend:
    """Listens, and plays the script to every connection."""

    def __init__(
        self,
        script: Script,
        *,
        tls: ssl.SSLContext | None = None,
        unix: Path | None = None,
        listening: socket.socket | None = None,
        host: str = "127.0.0.1",
        limit: int = 2**16,
    ) -> None:
        self.script, self._tls, self._unix, self._host, self._limit = script, tls, unix, host, limit
        self._listening = listening
        self.requests: list[Request] = []
        """All requests, in order of arrival."""
        self.peers: list[Peer] = []
        """All connections ever accepted."""
        self.failures: list[BaseException] = []
        """What scripts raised, besides the gateway's leaving; checked when the backend stops."""
        self._server: asyncio.Server
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0

    @property
    def url(self) -> str:
        if self._unix is not None:
            return f"unix:{self._unix}"
        return f"{'https' if self._tls else 'http'}://{self._host}:{self.port}"

    async def __aenter__(self) -> Backend:
        if self._unix is not None:
            self._server = await asyncio.start_unix_server(self._accept, self._unix, limit=self._limit)
        elif self._listening is not None:  # whose port outlives us
            self.port = self._listening.getsockname()[1]
            self._server = await asyncio.start_server(
                self._accept, sock=self._listening.dup(), limit=self._limit, backlog=2048
            )
        else:
            self._server = await asyncio.start_server(
                self._accept, self._host, self.port, ssl=self._tls, limit=self._limit, backlog=2048
            )
            self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()
        if kind is None and self.failures:
            raise self.failures[0]

    async def stop(self) -> None:
        """Accept no more, and drop every connection."""
        self._server.close()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for peer in self.peers:
            peer.abort()

    @property
    def open(self) -> int:
        """Connections whose script still runs."""
        return sum(not peer.ended.is_set() for peer in self.peers)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = Peer(self, reader, writer)
        self.peers.append(peer)
        task = asyncio.get_running_loop().create_task(self._play(peer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _play(self, peer: Peer) -> None:
        try:
            await self.script(peer)
        except (EOFError, ConnectionError, Truncated):
            pass
        except Exception as error:
            self.failures.append(error)
        finally:
            peer.ended.set()
            peer.writer.close()


def response(
    body: bytes = b"", *headers: tuple[bytes, bytes], status: bytes = b"200 OK", length: bool = True
) -> bytes:
    """A well-formed response."""
    lines = [b"HTTP/1.1 " + status]
    lines += [name + b": " + value for name, value in headers]
    if length:
        lines.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def answering(*raw: bytes) -> Script:
    """For ever: read a request, send these pieces."""

    async def script(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.send(*raw)

    return script


def once(*raw: bytes) -> Script:
    """Read one request, send these pieces, close."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(*raw)

    return script


async def echo(peer: Peer) -> None:
    """For ever: answer with the request's own head, a blank line and its body."""
    while True:
        request = await peer.request()
        head = b"" if request.method == b"HEAD" else request.raw_head + request.body
        await peer.send(response(head) if request.method != b"HEAD" else response(length=False))
