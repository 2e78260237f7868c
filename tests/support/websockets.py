"""WebSockets as they are spoken: a backend on the `websockets` library, and the way its clients come in.

    async with WebSocketBackend(listening) as backend:
        async with Door(backend.address).connect("/echo") as client: …
        backend.seen[0].closed_with

The same `Door` leads straight to the backend or through a gateway, so that one
test can say of both: no difference. What a connection does is chosen by the first
segment of the path that names a behaviour.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from websockets.asyncio import client
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

LARGEST = 16 * 2**20
"""Bytes of a message that both ends accept."""
SUBPROTOCOLS = ("chat.v2", "chat.v1")
"""What the backend speaks, the best first."""
BEARER = "gateway.bearer."
"""Before a token that is offered as a subprotocol."""


@dataclass(slots=True)
class Seen:
    """One WebSocket as the backend has it."""

    path: str
    headers: Headers
    """Of the handshake as it arrived."""
    subprotocol: str | None
    extensions: list[str]
    """Negotiated ones, by name."""
    messages: list[str | bytes] = field(default_factory=list)
    sent: int = 0
    """Messages that `pushes` has got rid of."""
    go_on: asyncio.Event = field(default_factory=asyncio.Event)
    """What `deaf` waits for before it reads."""
    closed_with: tuple[int | None, str | None] = (None, None)
    """Code and reason of the client's close frame; None if none came."""
    ended: asyncio.Event = field(default_factory=asyncio.Event)


class WebSocketBackend:
    """Accepts on a socket that listens already, so that the port outlives the test."""

    def __init__(self, listening: socket.socket, *, tls: ssl.SSLContext | None = None) -> None:
        self.address: tuple[str, int] = listening.getsockname()[:2]
        self._listening, self._tls = listening, tls
        self.seen: list[Seen] = []
        """Open and past connections; handshakes that were denied are in `requests` only."""
        self.requests: list[Request] = []
        self._server: Server

    async def __aenter__(self) -> WebSocketBackend:
        self._server = await serve(
            self._handle,
            sock=self._listening.dup(),
            ssl=self._tls,
            process_request=self._process_request,
            select_subprotocol=_select_subprotocol,
            max_size=LARGEST,
            ping_interval=None,
            server_header=None,
            backlog=2048,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for connection in self._server.all_connections:
            connection.transport.abort()
        self._server.close(close_connections=False)
        await self._server.wait_closed()

    def _process_request(self, connection: ServerConnection, request: Request) -> Response | None:
        self.requests.append(request)
        query = _query(request.path)
        if _behaviour(request.path) != "denied":
            return None
        body = query.get("body", "No, thank you.\n").encode()
        headers = Headers([("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
        headers["X-Why"], headers["Set-Cookie"] = "because", "a=1"
        headers["Set-Cookie"] = "b=2"
        if "location" in query:
            headers["Location"] = query["location"]
        return Response(int(query["status"]), query.get("reason", "Because"), headers, body)

    async def _handle(self, connection: ServerConnection) -> None:
        request = connection.request
        assert request is not None
        names = [extension.name for extension in connection.protocol.extensions]
        seen = Seen(request.path, request.headers, connection.subprotocol, names)
        self.seen.append(seen)
        try:
            await _BEHAVIOURS[_behaviour(request.path)](connection, seen, _query(request.path))
            await connection.wait_closed()
        except ConnectionClosed:
            pass
        finally:
            close = connection.protocol.close_rcvd
            seen.closed_with = (close.code, close.reason) if close else (None, None)
            seen.ended.set()


def _select_subprotocol(_: ServerConnection, offered: Sequence[str]) -> str | None:
    return next((each for each in SUBPROTOCOLS if each in offered), None)


def _query(target: str) -> dict[str, str]:
    return dict(parse_qsl(urlsplit(target).query, keep_blank_values=True))


def _behaviour(target: str) -> str:
    named = (segment for segment in urlsplit(target).path.split("/") if segment in (*_BEHAVIOURS, "denied"))
    return next(named, "echo")


# -- behaviours ----------------------------------------------------------------------------------------------


async def _echo(connection: ServerConnection, seen: Seen, query: dict[str, str]) -> None:
    async for message in connection:
        seen.messages.append(message)
        await connection.send(message)


async def _closes(connection: ServerConnection, seen: Seen, query: dict[str, str]) -> None:
    await connection.close(int(query["code"]), query.get("reason", ""))


async def _pings(connection: ServerConnection, seen: Seen, query: dict[str, str]) -> None:
    """Ping the client; tell it when the pong has come."""
    await (await connection.ping(b"still there?"))
    await connection.send("the pong came")


async def _fragments(connection: ServerConnection, seen: Seen, query: dict[str, str]) -> None:
    """Answer one message, fragment by fragment, with the length of each of its fragments."""
    lengths = [str(len(piece)) async for piece in connection.recv_streaming()]
    await connection.send(lengths)


async def _pushes(connection: ServerConnection, seen: Seen, query: dict[str, str]) -> None:
    """Send messages that don't compress as fast as somebody takes them."""
    message = os.urandom(int(query["size"]))
    for _ in range(int(query["count"])):
        await connection.send(message)
        seen.sent += 1


async def _deaf(connection: ServerConnection, seen: Seen, query: dict[str, str]) -> None:
    """Read nothing until somebody says so."""
    await seen.go_on.wait()
    await _echo(connection, seen, query)


async def _tells(connection: ServerConnection, seen: Seen, query: dict[str, str]) -> None:
    """Send the header lines of the handshake, and wait for the client's close."""
    await connection.send(json.dumps(list(seen.headers.raw_items())))
    async for _ in connection:
        pass


_BEHAVIOURS: dict[str, Callable[[ServerConnection, Seen, dict[str, str]], Awaitable[None]]] = {
    "echo": _echo,
    "closes": _closes,
    "pings": _pings,
    "fragments": _fragments,
    "pushes": _pushes,
    "deaf": _deaf,
    "tells": _tells,
}


# -- clients -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Door:
    """Where clients come in."""

    address: tuple[str, int]
    token: str | None = None
    """What they show; None at the backend's own door."""
    tls: ssl.SSLContext | None = None

    def connect(
        self, path: str, *, as_subprotocol: bool = False, subprotocols: Sequence[str] = (), **options: Any
    ) -> client.connect:
        """A client of the `websockets` library; the token as Authorization, or as a browser must do it."""
        headers = {}
        if self.token is not None and as_subprotocol:
            subprotocols = [*subprotocols, BEARER + self.token]
        elif self.token is not None:
            headers["Authorization"] = f"Bearer {self.token}"
        host, port = self.address
        return _Connect(
            f"{'wss' if self.tls else 'ws'}://{host}:{port}{path}",
            ssl=self.tls,
            subprotocols=list(subprotocols) or None,
            additional_headers=headers,
            **{"proxy": None, "ping_interval": None, "max_size": LARGEST} | options,
        )


class _Connect(client.connect):
    """A redirect is an answer like any other."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        return exc


def handshake(
    target: str = "/",
    *,
    token: str | None = None,
    upgrade: str = "websocket",
    host: str = "gateway.test",
    **headers: str,
) -> bytes:
    """A well-formed handshake as bytes. `x_name="v"` becomes `x-name: v`; `connection=""` drops the line."""
    lines = {
        "host": host,
        "connection": "Upgrade",
        "upgrade": upgrade,
        "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
        "sec-websocket-version": "13",
    }
    if token is not None:
        lines["authorization"] = f"Bearer {token}"
    lines |= {name.replace("_", "-"): value for name, value in headers.items()}
    text = "".join(f"{name}: {value}\r\n" for name, value in lines.items() if value)
    return f"GET {target} HTTP/1.1\r\n{text}\r\n".encode()


ACCEPTED = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
)
"""A backend's answer to `handshake()`: RFC 6455 §1.3 has the same key."""
