"""One proxied request on the connection it came on: the lane of `gateway run`.

The client port of an exchange, without a task, a queue or a scope: what the engine
says is written to the client's transport, and what the connection reads is fed to
the engine, all in plain calls. So memory is bounded by what the transports buffer,
and a slow side stops the other by pausing its reads.

Beside a `Cycle` (a request that goes on as ASGI) it is the second thing that can be a
connection's `current`: what is pipelined behind either waits for it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from gateway.errors import GatewayError, InternalError
from gateway.http.cors import Lines
from gateway.http.head import Head, Headers
from gateway.proxy.exchange import CLIENT_GONE, Exchange
from gateway.proxy.verdict import Forward, Judgement, Preflight, Refuse, Wait
from gateway.server.answers import CLOSE_LINE, CONTINUE, preflight, problem
from gateway.server.terms import http_date, new_request_id
from gateway.telemetry.logs import Decided

if TYPE_CHECKING:
    from uvicorn.protocols.http.flow_control import FlowControl

    from gateway.proxy.upstream.answer import Answer
    from gateway.server.heads import HeaderLines

log = logging.getLogger("gateway.server")

_COPIED = 32 * 1024
"""Bytes up to which a copy into one piece is cheaper than a second one."""


@dataclass(frozen=True, slots=True)
class Lane:
    """What all proxied requests of a listener share."""

    judge: Callable[[Head], Judgement]
    """The gate's."""
    owns: Callable[[bytes], bool]
    """Is this raw path answered by the application and not forwarded?"""
    began: Callable[[], None]
    """Called when a request begins."""
    on_done: Callable[[Decided], None]
    """Called when it is over."""
    body_idle: float
    """Seconds to wait for the next bytes of a request body."""


class Connection(Protocol):
    """What a passage needs of the connection it came on."""

    transport: asyncio.Transport
    flow: FlowControl
    loop: asyncio.AbstractEventLoop
    tasks: set[asyncio.Task[None]]

    def read_on(self) -> None: ...
    def answered(self, current: Passage) -> None: ...
    def tunnel(self) -> None: ...
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


class Passage:
    """See the module. `body_complete` and `keep_alive` are read by the connection at the end."""

    __slots__ = (
        "_chunked",
        "_connection",
        "_continue",
        "_cors",
        "_decided",
        "_exchange",
        "_fed",
        "_head",
        "_held",
        "_inbox",
        "_lane",
        "_over",
        "_request_id",
        "_started",
        "body_complete",
        "keep_alive",
    )

    def __init__(
        self,
        connection: Connection,
        lane: Lane,
        head: Head,
        lines: HeaderLines,
    ) -> None:
        self.body_complete = lines.body == 0
        """The client's request is read to its end."""
        self.keep_alive = lines.keep_alive
        """There may be a next request on this connection."""
        self._connection, self._lane, self._head = connection, lane, head
        self._continue = lines.expects_continue
        self._exchange: Exchange | None = None
        self._request_id = ""
        self._decided: Decided | None = None
        """While the judgement waits."""
        self._cors: Lines = ()
        """Of the gateway's own answer, should there be one."""
        self._held = True
        """The engine takes no body just now."""
        self._inbox: list[bytes] | None = None
        """What came of the body while it was held: at most what was read at once."""
        self._fed = False
        """The body went on to its end."""
        self._started = self._chunked = self._over = False

    def begin(self) -> None:
        """Judge it and let it go. May be answered when this returns."""
        self._lane.began()
        try:
            judgement = self._lane.judge(self._head)
        except Exception:
            log.exception("the gate failed")
            judgement = self._failed()
        self._follow(judgement)

    # -- the connection's side -----------------------------------------------------

    @property
    def may_end_by_closing(self) -> bool:
        """HTTP/1.0 knows no chunks: without a length, the end of the connection is that of the answer."""
        return self._head.http_version == "1.0"

    def feed(self, data: bytes) -> None:
        """Bytes of the body, or of a tunnel."""
        self._continue = False  # RFC 9110 §10.1.1: no 100 once the body has begun
        if self._held or self._inbox:
            self._inbox = [*(self._inbox or ()), data]
        elif self._exchange is not None:
            self._exchange.feed(data)

    def feed_end(self) -> None:
        self.body_complete = True
        if not self._held and not self._inbox:
            self._feed_end()

    def leave(self) -> None:
        """The client is gone."""
        exchange = self._end()
        if exchange is not None:
            exchange.client_gone()
        elif self._decided is not None:
            self._account(CLIENT_GONE, "client_gone")

    def give_up(self, error: GatewayError) -> None:
        """Its body is late or malformed: answer with `error` if nothing was sent yet, else cut."""
        if self._over:
            return
        exchange = self._end()
        if exchange is not None:
            exchange.client_gone(error)
        elif self._decided is not None:
            self._account(error.status, error.code)
        if self._started:
            self._connection.cut()
        else:
            head = self._head
            self._connection.refuse(
                error,
                method=head.method,
                target=head.target,
                request_id=self._request_id,
                cors=self._cors,
            )

    def pause(self) -> None:
        """The client takes no more for now."""
        if self._exchange is not None:
            self._exchange.pause()

    def resume(self) -> None:
        if self._exchange is not None:
            self._exchange.resume()

    # -- the exchange's side: the response -----------------------------------------

    def interim(self, answer: Answer) -> None:
        """Early hints and the like (RFC 8297). A 100 is ours to say, and HTTP/1.0 knows none."""
        if self._head.http_version == "1.1" and answer.status != 100:
            self._connection.transport.write(_status_line(answer) + _lines(answer.headers) + b"\r\n")

    def start(self, answer: Answer, data: bytes) -> None:
        self._started = True
        head = answer.rendered if self.keep_alive else b""
        if not head or not self.body_complete or self._head.method == "HEAD":
            head = self._render(answer)
        elif answer.length is None and not answer.bodiless:
            self._chunked = True
        transport = self._connection.transport
        if not data:
            transport.write(head)
        elif self._chunked:
            transport.write(head)
            self.write(data)
        elif len(data) < _COPIED:
            transport.write(head + data)
        else:
            transport.write(head)
            transport.write(data)

    def switched(self, answer: Answer) -> None:
        self._started = True
        self.keep_alive = self._held = False
        lines = b"Connection: Upgrade\r\nUpgrade: %b\r\n\r\n" % answer.upgrade
        self._connection.transport.write(_status_line(answer) + _lines(answer.headers) + lines)
        self._connection.tunnel()

    def write(self, data: bytes) -> None:
        transport = self._connection.transport
        if not self._chunked:
            transport.write(data)
        elif not data:
            return
        elif len(data) < _COPIED:
            transport.write(b"%x\r\n%b\r\n" % (len(data), data))
        else:
            transport.writelines((b"%x\r\n" % len(data), data, b"\r\n"))

    def finish(self, trailers: Headers) -> None:
        if self._chunked:
            last = b"0\r\n%b\r\n" % _lines(trailers) if trailers else b"0\r\n\r\n"
            self._connection.transport.write(last)
        self._exchange, self._over = None, True
        self._connection.answered(self)

    def fail(self, error: GatewayError) -> None:
        self._answer(error, self._request_id, token_sent=False)
        self._end()
        self._connection.answered(self)

    def abort(self) -> None:
        self._end()
        self._connection.cut()

    # -- the exchange's side: the request body -------------------------------------

    def pause_body(self) -> None:
        if not self._held:
            self._held = True
            self._connection.flow.pause_reading()

    def resume_body(self) -> None:
        self._held = False
        if self._inbox:
            self._empty_inbox()
        if self._held:
            return
        if self.body_complete:
            self._feed_end()
        elif self._continue and not self._started:
            self._continue = False
            self._connection.transport.write(CONTINUE)
        self._connection.read_on()

    def tick(self) -> None:
        """The transport tells of a client that leaves."""

    # ------------------------------------------------------------------------------

    def _follow(self, judgement: Judgement) -> None:
        if isinstance(judgement, Forward):
            self._request_id = judgement.request_id
            self._cors = judgement.cors
            exchange = Exchange(judgement, self, self._lane.on_done, self._lane.body_idle)
            self._exchange = exchange
            exchange.begin()
            if self._held and not self.body_complete and not self._over:
                self._connection.flow.pause_reading()
        elif isinstance(judgement, Refuse):
            self._refuse(judgement)
        elif isinstance(judgement, Preflight):
            self._answer_preflight(judgement)
        else:
            self._request_id = judgement.decided.request_id
            self._decided = judgement.decided
            task = self._connection.loop.create_task(self._wait(judgement))
            self._connection.tasks.add(task)  # the loop itself holds tasks only weakly
            task.add_done_callback(self._connection.tasks.discard)
            if not self.body_complete:
                self._connection.flow.pause_reading()

    def _render(self, answer: Answer) -> bytes:
        """The head of an answer; kept with it where it will be the same for others."""
        headless = answer.bodiless or self._head.method == "HEAD"
        framing = b""
        if not headless and answer.length is None:
            self._chunked = self._head.http_version == "1.1"
            self.keep_alive = self.keep_alive and self._chunked  # RFC 9112 §6.1: 1.0 knows no chunks
            framing = b"Transfer-Encoding: chunked\r\n" if self._chunked else b""
        dated = any(len(name) == 4 and name.lower() == b"date" for name, _ in answer.headers)
        usual = self.keep_alive and self.body_complete
        self.keep_alive = usual
        # RFC 9110 §6.6.1: a backend's answer that lacks a date gets one.
        date = b"" if dated else b"Date: %b\r\n" % http_date()
        close = b"" if usual else CLOSE_LINE
        head = b"".join((_status_line(answer), _lines(answer.headers), framing, date, close, b"\r\n"))
        if usual and dated and self._head.method != "HEAD":
            answer.rendered = head
        return head

    def _refuse(self, refuse: Refuse) -> None:
        decided = refuse.decided
        decided.status = refuse.error.status
        self._cors = refuse.cors
        decided.bytes_out = self._answer(refuse.error, refuse.request_id, token_sent=refuse.token_sent)
        self._end()
        self._lane.on_done(decided)
        self._connection.answered(self)

    def _answer_preflight(self, asked: Preflight) -> None:
        self._started = True
        self.keep_alive = self.keep_alive and self.body_complete
        asked.decided.status = 204
        answer = preflight(asked.cors, request_id=asked.request_id, keep_alive=self.keep_alive)
        self._connection.transport.write(answer)
        self._end()
        self._lane.on_done(asked.decided)
        self._connection.answered(self)

    def _answer(self, error: GatewayError, request_id: str, *, token_sent: bool) -> int:
        """The gateway's own answer; the length of its body."""
        self._started = True
        self.keep_alive = self.keep_alive and self.body_complete and not error.close
        answer, length = problem(
            error,
            request_id=request_id,
            token_sent=token_sent,
            headless=self._head.method == "HEAD",
            keep_alive=self.keep_alive,
            cors=self._cors,
        )
        self._connection.transport.write(answer)
        return length

    async def _wait(self, wait: Wait) -> None:
        try:
            judgement: Judgement = await wait.judgement()
        except Exception:
            log.exception("the gate failed")
            judgement = self._failed(wait.decided)
        if self._decided is not None:  # else the client has left meanwhile, or was answered
            self._decided = None
            if not self.body_complete:
                self._connection.flow.resume_reading()
            self._follow(judgement)

    def _failed(self, decided: Decided | None = None) -> Refuse:
        head = self._head
        error = InternalError(close=True)
        if decided is None:
            decided = Decided(new_request_id(), head.peer or "unix", head.method, head.path)
        decided.verdict, decided.reason = "deny", error.code
        return Refuse(error, False, decided.request_id, decided)

    def _account(self, status: int, reason: str) -> None:
        """For a request that ended before it was judged."""
        decided, self._decided = self._decided, None
        assert decided is not None  # noqa: S101 - asked before
        decided.status, decided.reason = status, reason
        self._lane.on_done(decided)

    def _empty_inbox(self) -> None:
        """The engine may say stop in the middle of it."""
        waiting, self._inbox = self._inbox or [], None
        while waiting and not self._held and self._exchange is not None:
            self._exchange.feed(waiting.pop(0))
        if waiting:
            self._inbox = waiting

    def _feed_end(self) -> None:
        if not self._fed and self._exchange is not None:
            self._fed = True
            self._exchange.feed_end()

    def _end(self) -> Exchange | None:
        """Part with the exchange, which holds us as well: the collector need not come for every request."""
        exchange, self._exchange = self._exchange, None
        self._over = True
        self._inbox = None
        return exchange


def _status_line(answer: Answer) -> bytes:
    return b"HTTP/1.1 %d %b\r\n" % (answer.status, answer.reason)


def _lines(headers: Headers) -> bytes:
    return b"".join([b"%b: %b\r\n" % line for line in headers])
