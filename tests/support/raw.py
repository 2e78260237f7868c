"""A client that sends exactly the bytes it is told to, and reads what comes back."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

Address = tuple[str, int] | Path
"""Host and port, or the path of a unix socket."""

PATIENCE = 30.0
"""Seconds after which a test fails instead of waiting for ever."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One response as it was on the wire, its body unchunked."""

    status: int
    """Of the status line."""
    headers: list[tuple[str, str]]
    """Names in lower case, in order."""
    body: bytes
    """Without chunk framing."""
    head: bytes
    """The raw head, blank line included."""
    trailers: bytes = b""
    """The lines behind the last chunk, as they came."""

    @property
    def reason(self) -> bytes:
        return self.head.partition(b"\r\n")[0].split(b" ", 2)[2]

    @property
    def lines(self) -> list[bytes]:
        """The header lines, names and values as they came."""
        return self.head.split(b"\r\n")[1:-2]

    def __getitem__(self, name: str) -> str:
        """The one header of that name; KeyError if there is none, ValueError if there are several."""
        values = self.all(name)
        if not values:
            raise KeyError(name)
        (value,) = values
        return value

    def get(self, name: str) -> str | None:
        return next(iter(self.all(name)), None)

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key == name.lower()]


class Closed(Exception):
    """The connection ended where an answer was expected. `seen` is what came before."""

    def __init__(self, seen: bytes, *, reset: bool = False) -> None:
        super().__init__(f"closed{' by a reset' if reset else ''} after {seen!r}")
        self.seen = seen
        self.reset = reset


class RawClient:
    """One connection. Every wait is bounded by PATIENCE."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def send(self, data: bytes) -> None:
        self._writer.write(data)
        async with asyncio.timeout(PATIENCE):
            await self._writer.drain()

    async def dribble(self, data: bytes, *, step: int = 1) -> None:
        """In pieces that each reach the server as a read of their own, as far as a client can do that."""
        for at in range(0, len(data), step):
            await self.send(data[at : at + step])
            await asyncio.sleep(0)

    async def answer(self, *, method: str = "GET", informational: bool = False) -> Answer:
        """The next response. Interim ones (100) are skipped unless asked for. Raises Closed."""
        while True:
            answer = await self._one_answer(method)
            if answer.status >= 200 or informational:
                return answer

    async def ask(self, data: bytes, *, method: str = "GET") -> Answer:
        await self.send(data)
        return await self.answer(method=method)

    async def closed(self) -> bytes:
        """Everything up to the end of the connection."""
        seen = bytearray()
        async with asyncio.timeout(PATIENCE):
            with contextlib.suppress(ConnectionError):
                while part := await self._reader.read(65536):
                    seen += part
        return bytes(seen)

    async def read(self, amount: int) -> bytes:
        """Exactly so many bytes. Raises Closed."""
        try:
            async with asyncio.timeout(PATIENCE):
                return await self._reader.readexactly(amount)
        except asyncio.IncompleteReadError as error:
            raise Closed(error.partial) from None
        except ConnectionError:
            raise Closed(b"", reset=True) from None

    async def some(self) -> bytes:
        """Whatever came. Raises Closed at the end."""
        async with asyncio.timeout(PATIENCE):
            data = await self._reader.read(262_144)
        if not data:
            raise Closed(b"")
        return data

    def half_close(self) -> None:
        self._writer.write_eof()

    def reset(self) -> None:
        """Leave with a RST instead of a FIN."""
        raw = self._writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()

    async def close(self) -> None:
        self._writer.close()
        with contextlib.suppress(ConnectionError, TimeoutError):
            await self._writer.wait_closed()

    async def _one_answer(self, method: str) -> Answer:
        head = await self.until(b"\r\n\r\n")
        status_line, *lines = head[:-4].decode("latin-1").split("\r\n")
        split = [line.partition(":") for line in lines]
        headers = [(name.lower(), value.strip()) for name, _, value in split]
        status = int(status_line.split(" ")[1])
        bodyless = method == "HEAD" or status < 200 or status in (204, 304)
        body, trailers = (b"", b"") if bodyless else await self._body(dict(headers))
        return Answer(status, headers, body, head, trailers)

    async def _body(self, headers: dict[str, str]) -> tuple[bytes, bytes]:
        if headers.get("transfer-encoding") == "chunked":
            return await self._chunks()
        if "content-length" in headers:
            return await self.read(int(headers["content-length"])), b""
        return await self.closed(), b""

    async def _chunks(self) -> tuple[bytes, bytes]:
        parts, trailers = [], b""
        while size := int((await self.until(b"\r\n"))[:-2], 16):
            part = await self.read(size + 2)
            assert part.endswith(b"\r\n"), part
            parts.append(part[:-2])
        while (line := await self.until(b"\r\n")) != b"\r\n":
            trailers += line
        return b"".join(parts), trailers

    async def until(self, end: bytes) -> bytes:
        """Everything up to and with these bytes. Raises Closed."""
        try:
            async with asyncio.timeout(PATIENCE):
                return await self._reader.readuntil(end)
        except asyncio.IncompleteReadError as error:
            raise Closed(error.partial) from None
        except ConnectionError:
            raise Closed(b"", reset=True) from None


@contextlib.asynccontextmanager
async def connect(address: Address) -> AsyncIterator[RawClient]:
    """`async with connect(("127.0.0.1", port)) as client: …`"""
    if isinstance(address, Path):
        reader, writer = await asyncio.open_unix_connection(str(address))
    else:
        reader, writer = await asyncio.open_connection(*address)
    client = RawClient(reader, writer)
    try:
        yield client
    finally:
        await client.close()


def request(
    target: str = "/",
    *,
    method: str = "GET",
    host: str = "gateway.test",
    body: bytes | None = None,
    **headers: str,
) -> bytes:
    """A well-formed request. `x_name="v"` becomes `x-name: v`; a body gets its Content-Length."""
    lines = [f"{method} {target} HTTP/1.1", f"host: {host}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    if body is not None:
        lines.append(f"content-length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + (body or b"")
