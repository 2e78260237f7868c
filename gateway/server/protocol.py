"""The hardened server side of one HTTP/1.1 connection: what stands in front of everything.

uvicorn's httptools protocol, with everything replaced that decides what a
request is and how long it may take. The life of a connection:

    head ──> body ──> answered ──> head …          one request at a time
      │        │          │
      │        └──────> tunnel: raw bytes, until one side ends it
      │                   │
      └───────────────────┴──> lingering ──> closed

*head*: bytes are collected up to the blank line, under one absolute deadline,
and read whole (`heads.py`). A bad head is answered and the connection lingers.
Then there is a *current* request: a passage to a backend (`passage.py`), or a cycle
that goes on as ASGI (`cycle.py`) where the application owns the path.
*body*: the bytes belong to the current request, counted here or unchunked
(`http/chunked.py`), so that the end of a request is never a parser's guess.
*answered*: only then is the next head read. What a client pipelines waits as
raw bytes in one bounded buffer: answers can't overtake each other, error
answers included, and a bad second request can't hurt the first one's answer.
*lingering*: half-closed, what still comes is thrown away for a bounded time, so
that the client reads its answer instead of a reset (RFC 9112 §9.6).

Deadlines are numbers that one coarse timer looks at (`terms.Watch`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import struct
import urllib.parse
from typing import TYPE_CHECKING, Any, Literal

from uvicorn import Config
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from gateway.errors import BodyTooLarge, GatewayError, Overloaded, RequestTimeout
from gateway.http.chunked import ChunkedBody
from gateway.http.cors import Lines
from gateway.http.head import Head
from gateway.server.answers import problem
from gateway.server.cycle import Cycle
from gateway.server.heads import HeadReader, Memory, RequestHead, check_partial, described
from gateway.server.passage import Lane, Passage
from gateway.server.terms import NEVER, Refusal, Terms, Watch, new_request_id

if TYPE_CHECKING:
    from gateway.server.cycle import ASGIApp

log = logging.getLogger("gateway.server")

_LINGER_BYTES = 16 * 1024 * 1024
"""What a refused client may still send; after that we stop reading and wait for the deadline."""
_AT_ONCE = 16
"""Pipelined requests that are begun in one go."""
_MUCH = 64 * 1024
"""Bytes of a chunked body; who sends more at once takes turns with the others."""
_TURNED_AWAY = 256
"""Connections beyond the limit that are told so at once; even more are cut without a word."""


class GatewayConfig(Config):
    """uvicorn's settings for a listener of ours, and the terms its connections share."""

    def __init__(self, app: ASGIApp, terms: Terms, *, lane: Lane | None = None, drain: float = 30.0) -> None:
        super().__init__(
            app,
            http=GatewayProtocol,
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            date_header=False,
        )
        self.terms = terms
        self.lane = lane
        """For what the app does not own; without one, the app answers everything."""
        self.memory = Memory()
        """Heads that the connections have met."""
        self.drain = drain
        self.timeout_graceful_shutdown = drain  # type: ignore[assignment]  # a float does as well
        self.watch: Watch | None = None

    def shared_watch(self, loop: asyncio.AbstractEventLoop) -> Watch:
        if self.watch is None:
            self.watch = Watch(loop, self.terms)
        return self.watch


class GatewayProtocol(HttpToolsProtocol):
    """One connection. Called by the loop, uvicorn's server, the watch and its cycle."""

    config: GatewayConfig

    def __init__(
        self,
        config: GatewayConfig,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.watch = config.shared_watch(self.loop)
        self.terms = config.terms
        self._lane = config.lane
        self.deadline = NEVER
        """When `expire` is called, by the watch's clock."""
        self.write_deadline = NEVER
        """The same, while the client does not take what was written."""
        self.current: Cycle | Passage | None = None
        """The request that is being answered."""
        self._heads = HeadReader(self.terms.limits, config.memory)
        self._known = config.memory.heads
        self._buffer = bytearray()
        """A head that is not whole yet, or what was pipelined."""
        self._seen = 0
        """How far the partial head in the buffer was looked at."""
        self._blank_line_skipped = False
        self._in_body = False
        """The current request's body is not whole yet."""
        self._left = 0
        """Bytes that a Content-Length still owes."""
        self._chunks: ChunkedBody | None = None
        self._tunnelling = False
        self._advancing = False
        """Heads are being read from the buffer just now, or as soon as everyone else had a turn."""
        self._lingering = False
        self._thrown_away = 0
        self._unwritten = 0
        """What waited to be written when writing stalled."""
        self._peer: str | None = None
        self._scheme: Literal["http", "https"] = "http"

    # The loop's side.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        self._peer = (self.client[0] if self.client else None) or None
        self._scheme = self.scheme or "http"
        self.watch.add(self)
        if self.client is None and not _is_unix(transport):
            transport.abort()  # it left at once, and without an address it would pass for a unix socket
            return
        excess = len(self.connections) - self.terms.limits.connections
        if excess > _TURNED_AWAY:
            transport.abort()
        elif excess > 0:
            self.refuse(Overloaded("Too many connections are open.", retry_after=1, close=True))
        else:
            self.deadline = self.watch.clock() + self.terms.timeouts.headers

    def connection_lost(self, exc: Exception | None) -> None:
        self.connections.discard(self)
        self.watch.discard(self)
        self._heads.forget()
        self.deadline = NEVER
        self._lingering = True
        self.flow.resume_writing()
        if self.current is not None:
            self.current.leave()

    def eof_received(self) -> None:
        """The client left: also when it only half-closed after a whole request (nginx does the same)."""
        if self.current is not None:
            self.current.leave()
        self._settle()

    def data_received(self, data: bytes) -> None:
        if self.current is None and not (self._buffer or self._lingering or self.flow.write_paused):
            self._fresh_head(data)
            return
        if self._lingering:
            self._throw_away(data)
            return
        if self._tunnelling and self.current is not None:
            self.current.feed(data)
            return
        if self._in_body:
            data = self._take_body(data)
            if not data or self._lingering:
                return
        self._pipeline(data)
        if self.current is None and not self.flow.write_paused:
            self._advance()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._unwritten = self.transport.get_write_buffer_size()
        self.write_deadline = self.watch.clock() + self.terms.timeouts.body_idle
        if self.current is not None:
            self.current.pause()

    def resume_writing(self) -> None:
        super().resume_writing()
        self.write_deadline = NEVER
        if self.current is not None:
            self.current.resume()
        elif not self._lingering:
            self._go_on()

    # uvicorn's side.

    def shutdown(self) -> None:
        """Drain: finish the answer that is under way, if there is one, and close."""
        if self.current is not None:
            self.current.keep_alive = False
        elif not self._lingering:
            self._close()

    # The watch's side.

    def expire(self, now: float) -> None:
        if self._lingering or self.write_deadline <= now:
            self._check_progress(now)
        elif self.current is not None:
            self.deadline = NEVER
            self.current.give_up(RequestTimeout("The body did not arrive in time.", close=True))
        elif self.flow.write_paused:
            self.deadline = NEVER  # it reads slowly, and `write_deadline` watches that
        elif self._buffer:
            self.refuse(RequestTimeout(close=True), **_described(self._buffer))
        else:
            self._close()

    def _check_progress(self, now: float) -> None:
        """A slow reader may be slow; one that takes nothing must not hold its answer in our memory."""
        unwritten = self.transport.get_write_buffer_size()
        if unwritten >= self._unwritten or not unwritten:
            if self.current is not None:
                self.current.give_up(RequestTimeout("The answer was not read.", close=True))
            self.cut()
            return
        self._unwritten = unwritten
        later = now + self.terms.timeouts.body_idle
        if self._lingering:
            self.deadline = later
        else:
            self.write_deadline = later

    # The current request's side.

    def expect_body(self) -> None:
        """The app waits for bytes of the body: the idle deadline runs."""
        self.deadline = self.watch.clock() + self.terms.timeouts.body_idle

    def read_on(self) -> None:
        """The app took what there was of the body. Only by reading can we notice that the client leaves."""
        if len(self._buffer) <= HIGH_WATER_LIMIT:
            self.flow.resume_reading()

    def tunnel(self) -> None:
        """From now on bytes pass as they are, also those that came before they were due."""
        self._tunnelling = True
        self.flow.resume_reading()  # before it is fed, since that may pause it
        if self._buffer and self.current is not None:
            early = bytes(self._buffer)
            self._buffer.clear()
            self.current.feed(early)

    def answered(self, current: Cycle | Passage) -> None:
        """The whole answer was handed to the transport."""
        self.current = None
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            self._lingering, self._in_body = True, False  # a write may be what told us that the client left
            return
        if not current.body_complete or not current.keep_alive:
            self._linger(read_whole=current.body_complete)
        else:
            self._go_on()

    def refuse(
        self,
        error: GatewayError,
        *,
        method: str | None = None,
        target: bytes | None = None,
        request_id: str | None = None,
        cors: Lines = (),
    ) -> None:
        """Answer by ourselves and be done with this connection.

        With `request_id`, the app knows the request by that name and accounts for it.
        """
        known, request_id = request_id is not None, request_id or new_request_id()
        answer, _ = problem(error, request_id=request_id, headless=method == "HEAD", cors=cors)
        self.transport.write(answer)
        self._linger()
        if known:
            return
        peer = self.client[0] if self.client else None
        self.terms.on_refused(Refusal(error, request_id, peer, method, target))

    def cut(self) -> None:
        """End the connection so that an answer that was cut short looks cut short."""
        if self not in self.connections:
            return  # an app may outlive it, and asyncio's transport cannot be aborted once it is gone
        if self.current is not None:
            if self.current.may_end_by_closing:
                self._will_reset()
            self.current.leave()
        self.transport.abort()

    def _will_reset(self) -> None:
        """RST instead of FIN, which would say that all was sent."""
        opened = self.transport.get_extra_info("socket")
        if opened is not None:
            with contextlib.suppress(OSError):  # it may be closed already
                opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)

    # Heads.

    def _fresh_head(self, data: bytes) -> None:
        """The usual case: a whole head in one piece, alone or with its body."""
        known = self._known.get(data) if data.endswith(b"\r\n\r\n") else None
        if known is not None:
            self._blank_line_skipped = False
            self._follow(known)
            return
        end = data.find(b"\r\n\r\n") + 4
        if end < 5 or data[0] == _CR:
            self._buffer += data
            self._advance()
        elif end == len(data):
            self._begin(data)
        else:
            self._begin(data[:end])
            self._take_rest(data[end:])

    def _take_rest(self, data: bytes) -> None:
        """What came in one piece with a head that has begun."""
        if self._in_body:
            data = self._take_body(data)
        if self._lingering:
            self._throw_away(data)
        elif data:
            self._pipeline(data)
            self._advance()

    def _pipeline(self, data: bytes) -> None:
        self._buffer += data
        if len(self._buffer) > HIGH_WATER_LIMIT:
            self.flow.pause_reading()

    def _go_on(self) -> None:
        """To the next request, if there is one; what is pipelined stays bounded, however many are done."""
        if self.flow.read_paused:
            self.read_on()
        self.deadline = self.watch.clock() + self.terms.timeouts.keep_alive
        if self._buffer:
            self._advance()

    def _advance(self) -> None:
        """Begins the requests in the buffer, one after the other: each when the one before is answered.

        Not by recursion, since requests may be answered as soon as they have begun; and not many in one
        go, since everyone else waits meanwhile. None is begun for a client that does not read what it was
        answered: its answers would pile up here.
        """
        if self._advancing:
            return
        self._advancing = True
        more = False
        try:
            more = self._begin_some()
        except Exception:  # it may have been the answer to somebody else that brought us here
            log.exception("a connection failed")
            self.cut()
        if more:
            self.loop.call_soon(self._advance_again)
        else:
            self._advancing = False

    def _advance_again(self) -> None:
        self._advancing = False
        self._advance()

    def _begin_some(self) -> bool:
        """Whether there may be more of them."""
        for _ in range(_AT_ONCE):
            if self.current is not None or self._lingering or self.flow.write_paused or not self._next_head():
                return False
        return True

    def _next_head(self) -> bool:
        """Begins the request at the front of the buffer. False if there is none, or not all of its head."""
        buffer = self._buffer
        if buffer.startswith(b"\r\n") and not self._blank_line_skipped:
            self._blank_line_skipped = True  # one is forgiven, RFC 9112 §2.2
            del buffer[:2]
        if not buffer:
            return False
        end = buffer.find(b"\r\n\r\n", max(self._seen - 3, 0))
        if end < 0:
            self._wait_for_more()
            return False
        head = bytes(buffer[: end + 4])
        del buffer[: end + 4]
        self._begin(head)
        if buffer and self._in_body:
            data = bytes(buffer)
            buffer.clear()
            buffer += self._take_body(data)
        return True

    def _wait_for_more(self) -> None:
        self.flow.resume_reading()  # a head has its own limits
        head = bytes(self._buffer)
        if self._seen == 0:
            self.deadline = self.watch.clock() + self.terms.timeouts.headers
        try:
            check_partial(head, self._seen, self.terms.limits)
        except GatewayError as error:
            self.refuse(error, **_described(head))
        self._seen = len(head)

    def _begin(self, raw: bytes) -> None:
        self._seen = 0
        self._blank_line_skipped = False
        try:
            head = self._heads.read(raw)
        except GatewayError as error:
            self.refuse(error, **_described(raw))
        else:
            self._follow(head)

    def _follow(self, head: RequestHead) -> None:
        """To whom it belongs."""
        self.deadline = NEVER
        lane, asked, body = self._lane, head.forwarded_as, head.lines.body
        if lane is None or (asked is None and lane.owns(head.target.partition(b"?")[0])):
            if body is not None and body > self.terms.limits.body:
                self.refuse(BodyTooLarge(close=True), method=head.method, target=head.target)
                return
            self._expect(body)
            self._begin_cycle(head)
            return
        if asked is None or asked.peer != self._peer or asked.scheme != self._scheme:
            asked = head.forwarded_as = self._for_the_gate(head)
        if body != 0:
            self._expect(body)
        passage = self.current = Passage(self, lane, asked, head.lines)
        passage.begin()

    def _expect(self, body: int | None) -> None:
        self._in_body = body != 0
        self._left = body or 0
        self._chunks = ChunkedBody() if body is None else None

    def _for_the_gate(self, head: RequestHead) -> Head:
        lines = head.lines
        return Head(
            head.method,
            head.target,
            lines.headers,
            head.http_version,
            self._scheme,
            self._peer,
            True,
            lines.known,
        )

    def _begin_cycle(self, head: RequestHead) -> None:
        lines = head.lines
        scope = self._scope_of(head)
        cycle = Cycle(self, scope, lines.body != 0, lines.keep_alive, lines.expects_continue)
        self.current = cycle
        task = self.loop.create_task(cycle.run(self.app))
        task.add_done_callback(self.tasks.discard)
        self.tasks.add(task)

    def _scope_of(self, head: RequestHead) -> dict[str, Any]:
        raw_path, _, query = head.target.partition(b"?")
        path = raw_path.decode("ascii")
        return {
            "type": "http",
            "asgi": _ASGI,
            "http_version": head.http_version,
            "server": self.server,
            "client": self.client,
            "scheme": self.scheme,
            "root_path": "",
            "headers": [(name.lower(), value) for name, value in head.lines.headers],
            "state": self.app_state.copy(),
            "method": head.method,
            "path": urllib.parse.unquote(path) if "%" in path else path,
            "raw_path": raw_path,
            "query_string": query,
        }

    # Bodies.

    def _take_body(self, data: bytes) -> bytes:
        """Hands the current request its bytes; returns what follows them."""
        current = self.current
        assert current is not None  # noqa: S101 (there is no body without a request)
        if self._chunks is None:
            body, rest = data[: self._left], data[self._left :]
            self._left -= len(body)
            self._in_body = self._left > 0
        else:
            body, rest = self._chunks.feed(data)
            if self._chunks.broken is not None:
                current.give_up(self._chunks.broken)
                return b""
            self._in_body = not self._chunks.done
            if self._in_body and len(data) > _MUCH:
                self._take_turns()
        if body:
            current.feed(body)
        if not self._in_body:
            current.feed_end()
        return rest

    def _take_turns(self) -> None:
        """Let everyone else have theirs: uvloop may read 32 times in one, and small chunks take time."""
        self.transport.pause_reading()
        self.loop.call_soon(self._my_turn)

    def _my_turn(self) -> None:
        if not self.flow.read_paused and not self.transport.is_closing():
            self.transport.resume_reading()

    # The end.

    def _linger(self, *, read_whole: bool = False) -> None:
        """Half-close, and let the client read what it was told before the reset that unread bytes cause."""
        if self._lingering or self.transport.is_closing():
            return
        self._buffer.clear()
        self._in_body = False
        self.flow.resume_reading()
        self._settle()
        if self.transport.can_write_eof():
            with contextlib.suppress(OSError):  # the client was faster and has left
                self.transport.write_eof()
            return
        # TLS transports have no half-close, and don't count what is unwritten below them.
        self.deadline = self.watch.clock() + self.terms.timeouts.body_idle
        if read_whole:
            self.transport.close()

    def _throw_away(self, data: bytes) -> None:
        self._thrown_away += len(data)
        if self._thrown_away > _LINGER_BYTES:
            self.flow.pause_reading()

    def _close(self) -> None:
        """Nothing is unread: an ordinary close, as soon as the client has taken what was written."""
        self._settle()
        self.transport.close()

    def _settle(self) -> None:
        """Nothing is read any more; what is written still gets out if the client takes it."""
        self._lingering = True
        self._unwritten = self.transport.get_write_buffer_size()
        timeouts = self.terms.timeouts
        self.write_deadline = NEVER
        self.deadline = self.watch.clock() + (timeouts.body_idle if self._unwritten else timeouts.linger)


def _is_unix(transport: asyncio.Transport) -> bool:
    opened = transport.get_extra_info("socket")
    return opened is not None and opened.family == socket.AF_UNIX


def _described(head: bytes | bytearray) -> dict[Literal["method", "target"], Any]:
    method, target = described(bytes(head))
    return {"method": method, "target": target}


_CR = 13
_LINGER_NOT = struct.pack("ii", 1, 0)
"""For SO_LINGER: what is unsent is thrown away, and the peer is reset."""
_ASGI = {"version": "3.0", "spec_version": "2.3"}
