"""One request as an ASGI conversation: the body on its way in, the answer on its way out."""

from __future__ import annotations

import asyncio
import logging
import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Protocol

from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT

from gateway.errors import GatewayError, InternalError
from gateway.http.cors import Lines
from gateway.http.head import STATE_CORS, STATE_REFUSED, STATE_REQUEST_ID, Headers
from gateway.server.answers import CONTINUE, status_line
from gateway.server.terms import NEVER, http_date

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping

    from uvicorn.protocols.http.flow_control import FlowControl

    Message = MutableMapping[str, Any]
    ASGIApp = Callable[[Any, Callable[[], Awaitable[Any]], Callable[[Any], Awaitable[None]]], Awaitable[None]]

log = logging.getLogger("gateway.server")


class Connection(Protocol):
    """What a cycle needs of the connection it came on."""

    transport: asyncio.Transport
    flow: FlowControl
    loop: asyncio.AbstractEventLoop
    deadline: float

    def expect_body(self) -> None: ...
    def read_on(self) -> None: ...
    def answered(self, cycle: Cycle) -> None: ...
    def refuse(
        self,
        error: GatewayError,
        *,
        method: str | None,
        target: bytes | None,
        request_id: str | None,
        cors: Lines,
    ) -> None: ...
    def cut(self) -> None: ...


class Cycle:
    """What uvicorn calls a request-response cycle; the connection has at most one that is unanswered."""

    # How every cycle begins. Class attributes: setting a dozen of them per request costs a microsecond.
    disconnected = False
    """The client is gone, or we gave up on it."""
    begun = False
    """The app has seen the request."""
    started = False
    """The answer's head was written."""
    complete = False
    """The whole answer was written."""
    _buffered = 0
    _waiter: asyncio.Future[None] | None = None
    _chunked = False
    _bodyless = False
    _held = b""
    """The head of the answer, for the moment until the first piece of the body: they leave in one write."""
    _left: int | None = None
    """Bytes of the answer still owed to its Content-Length; None without one."""

    def __init__(
        self,
        connection: Connection,
        scope: Any,
        has_body: bool,
        keep_alive: bool,
        expects_continue: bool,
    ) -> None:
        self.connection = connection
        self.scope = scope
        self.keep_alive = keep_alive
        self.body_complete = not has_body
        self._continue = expects_continue
        self._parts: list[bytes] = [] if has_body else [b""]

    async def run(self, app: ASGIApp) -> None:
        """A defect of the app is a 500 for this client and a traceback in the log, nothing more."""
        self.begun = True
        try:
            await app(self.scope, self.receive, self.send)
        except asyncio.CancelledError:
            self.connection.cut()
            raise
        except Exception as error:
            log.error("the application failed", exc_info=error)
            self.give_up(InternalError(close=True))
        else:
            if self.complete or self.disconnected:
                return
            if self.started:
                # An app that knows its answer can't be finished returns: the client must see the cut.
                log.info("an answer was cut short")
                self.connection.cut()
            else:
                log.error("the application returned without an answer")
                self.give_up(InternalError(close=True))

    # The connection's side.

    @property
    def may_end_by_closing(self) -> bool:
        """See `Passage`."""
        return bool(self.scope["http_version"] == "1.0")

    def feed(self, data: bytes) -> None:
        """Bytes of the body."""
        self._parts.append(data)
        self._buffered += len(data)
        self._continue = False  # RFC 9110 §10.1.1: no 100 once the body has begun
        if self._buffered > HIGH_WATER_LIMIT:
            self.connection.flow.pause_reading()
        self._wake()

    def feed_end(self) -> None:
        self.body_complete = True
        if not self._parts:
            self._parts.append(b"")
        self._wake()

    def leave(self) -> None:
        """The client is gone: the app hears http.disconnect, and what it still sends goes nowhere."""
        self.disconnected = True
        self._wake()

    def give_up(self, error: GatewayError) -> None:
        """Answer with `error` if nothing was sent yet, else cut. The app hears a disconnect."""
        if self.complete or self.disconnected:
            return
        if not self.begun:
            # It came in one piece with its broken body. The app is to know of it, to account for it.
            self.connection.loop.call_soon(self.give_up, error)
            return
        self.leave()
        if self.started:
            self.connection.cut()
        else:
            scope = self.scope
            state = scope["state"]
            state[STATE_REFUSED] = error
            self.connection.refuse(
                error,
                method=scope["method"],
                target=scope["raw_path"],
                request_id=state.get(STATE_REQUEST_ID),
                cors=state.get(STATE_CORS, ()),
            )

    def pause(self) -> None:
        """The client takes no more for now: the flow control knows."""

    def resume(self) -> None:
        """See `pause`."""

    # The app's side.

    async def receive(self) -> Message:
        """The body in the pieces it arrived in; then http.disconnect, once there is one."""
        while not self.disconnected and not self.complete:
            if self._parts:
                return self._message()
            await self._wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        connection = self.connection
        if connection.flow.write_paused and not self.disconnected:
            await connection.flow.drain()
        if self.disconnected:
            return
        kind = message["type"]
        if not self.started and kind == "http.response.start":
            self._start(message["status"], message.get("headers", ()))
        elif self.started and not self.complete and kind == "http.response.body":
            self._body(message.get("body", b""), message.get("more_body", False))
        else:
            raise RuntimeError(f"{kind} can't be sent now")

    def _message(self) -> Message:
        body = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        self._parts.clear()
        self._buffered = 0
        self.connection.read_on()
        return {"type": "http.request", "body": body, "more_body": not self.body_complete}

    async def _wait(self) -> None:
        """For the body's next bytes, within the idle deadline; after the body, for the client to leave."""
        connection = self.connection
        if not self.body_complete:
            if self._continue and not self.started:
                self._continue = False
                connection.transport.write(CONTINUE)
            connection.expect_body()
        waiter = self._waiter
        if waiter is None or waiter.done():
            waiter = self._waiter = connection.loop.create_future()
        await waiter

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None:
            self.connection.deadline = NEVER
            if not waiter.done():  # else the app gave up waiting
                waiter.set_result(None)

    def _start(self, status: int, headers: Headers) -> None:
        keep_alive = self.keep_alive
        if not self.body_complete and status >= _FIRST_REFUSAL:
            keep_alive = False  # a refusal with an unread body: what follows can't be told from it
        self._bodyless = status in _BODYLESS or self.scope["method"] == "HEAD"
        lines = [status_line(status)]
        dated = False
        for name, value in headers:
            beginning, meaning = _known(name)
            if meaning is None:
                lines.append(beginning + value)
            elif meaning == b"connection":
                keep_alive = keep_alive and b"close" not in value.lower()
            elif meaning == b"content-length" and self._left is None and status != _NO_CONTENT:
                self._left = int(value)
                lines.append(beginning + value)
            elif meaning == b"date":
                dated = True
                lines.append(beginning + value)
        if not dated:
            # RFC 9110 §6.6.1: our own answers need one, and so does a backend's that lacks it.
            lines.append(b"date: " + http_date())
        if self._left is None and not self._bodyless:
            keep_alive = self._frame(lines, keep_alive)
        if not keep_alive:
            lines.append(b"connection: close")
        self._write_head(lines)
        self.keep_alive = keep_alive
        self.started = True

    def _frame(self, lines: list[bytes], keep_alive: bool) -> bool:
        """In chunks, or by closing for a client that knows no chunks (RFC 9112 §6.1)."""
        if self.scope["http_version"] == "1.0":
            return False
        self._chunked = True
        lines.append(b"transfer-encoding: chunked")
        return keep_alive

    def _write_head(self, lines: list[bytes]) -> None:
        block = b"\r\n".join(lines) + b"\r\n\r\n"
        ends = len(lines) + 1
        if not block.count(b"\n") == ends == block.count(b"\r"):
            raise RuntimeError("a header of the answer holds a line end")
        self._held = block
        self.connection.loop.call_soon(self._release)

    def _release(self) -> None:
        """A body that lets wait for itself does not delay the head."""
        held, self._held = self._held, b""
        if held and not self.disconnected:
            self.connection.transport.write(held)

    def _body(self, body: bytes, more: bool) -> None:
        if self._bodyless:
            self._release()
        else:
            self._write(body, more)
        if not more:
            self.complete = True
            self._wake()
            self.connection.answered(self)

    def _write(self, body: bytes, more: bool) -> None:
        if self._chunked:
            body = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
            body = body if more else body + b"0\r\n\r\n"
        elif self._left is not None:
            self._left -= len(body)
            if self._left < 0 or (self._left and not more):
                raise RuntimeError("the answer's length is not its Content-Length")
        if self._held:
            body, self._held = self._held + body, b""
        if body:
            self.connection.transport.write(body)


@lru_cache(maxsize=1024)
def _known(name: bytes) -> tuple[bytes, bytes | None]:
    """How a line of that name begins; and the name, if the line means something here."""
    if not _NAME.fullmatch(name):
        raise RuntimeError(f"{name!r} is no header name")
    name = name.lower()
    return name + b": ", name if name in _MEANINGFUL else None


_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_MEANINGFUL = frozenset([b"connection", b"keep-alive", b"transfer-encoding", b"content-length", b"date"])
"""How the answer is framed, and whether the connection lives on, is decided here and not by the app."""
_FIRST_REFUSAL = 400
_NO_CONTENT = 204
_NOT_MODIFIED = 304
_BODYLESS = frozenset([_NO_CONTENT, _NOT_MODIFIED])
