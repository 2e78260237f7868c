"""One request and its answer on their way through: the engine that moves bytes.

An exchange stands between a *client port* (whoever speaks with the client) and
a connection to the backend. All of it is plain calls on the event loop: no task,
no queue and no await, so every lane that can call `feed` and be called with
`write` is a gateway, and memory is bounded by what the transports buffer.

    port                          exchange                        upstream
    begin() ────────────────────▶ wants a connection ───────────▶ Pool.acquire
             ◀── resume_body() ──                ◀── connected() ──
    feed(), feed_end() ─────────▶ frames, counts ───────────────▶ Connection.write
             ◀──── pause_body() ─                ◀─ upload_paused()
             ◀── start(), write() ─              ◀─ answer_begins(), answer_data()
    pause(), resume() ──────────▶                ───────────────▶ pause/resume reading
             ◀───────── finish() ─               ◀─ answer_ends()

    switched() instead of start(): from then on feed() and write() carry the raw
    bytes of a tunnel, until one side ends it.

It ends exactly once, in one of four ways: `finish` (the whole answer went
through), `fail` (nothing was sent yet: the gateway answers), `abort` (the
answer had begun: cut the client's connection so that it sees the truncation),
or the client's leaving. Then the record is complete and `on_done` has it.

What came from the client is never finished on its behalf: a short upload closes
the connection to the backend (RFC 9112 §6.3, §8). And what lasts is asked about: a
stream or a tunnel whose session, user or rule has ended is cut by the clock.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from gateway.errors import (
    BadFraming,
    BadGateway,
    BodyTooLarge,
    GatewayError,
    InvalidToken,
    RequestTimeout,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from gateway.http.head import Headers
from gateway.http.header_edits import NO_EDITS
from gateway.proxy.upstream.answer import Answer, sound_trailers
from gateway.proxy.upstream.connection import Connection
from gateway.proxy.upstream.pool import RETRY_AFTER
from gateway.proxy.verdict import Forward

if TYPE_CHECKING:
    from gateway.telemetry.logs import Decided

BODY_IDLE = 30.0
"""Seconds we wait for the next bytes of a request body, if nobody says otherwise."""
CRAWLS_AFTER, CRAWLS_BELOW = 5.0, 2048.0
"""Seconds after which an upload is measured, and the bytes per second that it must bring where others wait
for its connection: half of what the slowest mobile networks do."""
CLIENT_GONE = 499
"""The status in the record of a client that left before it was answered (nginx's number)."""

_BODILESS = (b"GET ", b"HEAD ", b"DELETE ", b"OPTIONS ")
"""Methods whose body means nothing in general (RFC 9110 §9.3), so that some backends leave it where it is."""
_SUBPROTOCOL = b"sec-websocket-protocol"

log = logging.getLogger(__name__)


class ClientPort(Protocol):
    """Whoever speaks with the client. Called in order, never again after `finish`, `fail` or `abort`."""

    def interim(self, answer: Answer) -> None:
        """A 1xx of the backend (103, say); may be ignored."""

    def start(self, answer: Answer, data: bytes) -> None:
        """The final response head, and what of its body came with it. Framing is the port's."""

    def switched(self, answer: Answer) -> None:
        """The backend's 101: what is written from now on are the bytes of a tunnel. Only if `upgrade`
        was granted, which a port must have asked for."""

    def write(self, data: bytes) -> None:
        """A piece of the response body, or of a tunnel."""

    def finish(self, trailers: Headers) -> None:
        """The response is complete, or the backend has ended the tunnel."""

    def fail(self, error: GatewayError) -> None:
        """There is no response: answer with this. Only before `start`."""

    def abort(self) -> None:
        """The response broke off: make that visible. Only after `start`."""

    def pause_body(self) -> None:
        """Feed no more of the request body for now."""

    def resume_body(self) -> None:
        """Feed the request body. It is held back until this was called for the first time."""

    def tick(self) -> None:
        """The coarse clock, several times a second while the exchange lasts."""


class Exchange:
    """See the module."""

    __slots__ = (
        "_answered",
        "_began",
        "_body_idle",
        "_bytes_in",
        "_bytes_out",
        "_client_paused",
        "_connection",
        "_deadline",
        "_done",
        "_early",
        "_forward",
        "_looked",
        "_on_done",
        "_pool",
        "_port",
        "_retried",
        "_switched",
        "_unwritten_head",
        "_upload_paused",
        "_upload_stopped",
        "_uploaded",
        "_waited",
    )

    def __init__(
        self,
        forward: Forward,
        port: ClientPort,
        on_done: Callable[[Decided], None],
        body_idle: float = BODY_IDLE,
    ) -> None:
        self._forward, self._port, self._on_done, self._body_idle = forward, port, on_done, body_idle
        self._pool = forward.upstream
        self._uploaded = forward.body == 0
        self._connection: Connection | None = None
        self._unwritten_head = b""
        self._bytes_in = self._bytes_out = 0
        self._began = self._deadline = self._looked = self._waited = 0.0
        self._upload_paused = self._upload_stopped = self._client_paused = False
        self._answered = self._early = self._retried = self._done = self._switched = False

    # -- the port's side -----------------------------------------------------------

    @property
    def done(self) -> bool:
        """Over, in whichever way."""
        return self._done

    def begin(self) -> None:
        """Get a connection and go. The port may be called before this returns."""
        ticker = self._pool.ticker
        ticker.watch(self)
        self._began = ticker.clock()
        self._deadline = ticker.now + self._pool.queue_timeout
        self._pool.acquire(self)

    def feed(self, data: bytes) -> None:
        """A piece of the request body, as the client sent it but without its framing; or of a tunnel."""
        if self._done or not data:
            return
        self._bytes_in += len(data)
        forward = self._forward
        if self._switched:
            self._send([data])
        elif self._bytes_in > (forward.body_limit if forward.body is None else forward.body):
            too_much = BodyTooLarge if forward.body is None else BadFraming
            self._fail(too_much(close=True), f"more than {self._bytes_in - len(data)} bytes of body")
            return
        elif forward.body is None:
            self._send([b"%x\r\n" % len(data), data, b"\r\n"])
        else:
            self._send([data])
        self._touch()

    def feed_end(self) -> None:
        """The client's body is complete, says its framing. If it is short after all, nobody may finish it."""
        if self._done or self._uploaded:
            return
        if self._forward.body is not None and self._bytes_in != self._forward.body:
            self.client_gone()
            return
        self._uploaded = True
        if self._forward.body is None:
            self._send([b"0\r\n\r\n"])
        self._touch()

    def client_gone(self, refused: GatewayError | None = None) -> None:
        """The client left, or must be treated as if: give up, at whatever point.

        `refused` is what the server has answered it by itself, after the request was judged.
        """
        if self._switched and not self._done:  # how tunnels end; the backend gets what was under way to it
            connection, self._connection = self._connection, None
            self._end()
            if connection is not None:
                connection.end()
            self._on_done(self._forward.decided)
        elif not self._done:
            if not self._answered:
                self._forward.decided.status = CLIENT_GONE if refused is None else refused.status
            self._drop("client_gone" if refused is None else refused.code)
            self._on_done(self._forward.decided)

    def pause(self) -> None:
        """The client can't take more: stop reading the answer."""
        if self._connection is not None and not self._client_paused:
            self._client_paused = True
            self._connection.pause()

    def resume(self) -> None:
        """The client can take more."""
        if self._client_paused:
            self._client_paused = False
            if self._connection is not None:
                self._connection.resume()
                self._touch()

    # -- the pool's side -----------------------------------------------------------

    def connected(self, connection: Connection) -> None:
        forward = self._forward
        self._connection = connection
        self._looked = self._pool.ticker.now
        forward.decided.upstream = connection.address
        switches = forward.upgrade != b""
        if self._uploaded:
            self._deadline = self._pool.ticker.now + (forward.timeout or self._pool.response)
            connection.begin(self, forward.no_response_body, switches, forward.head)
        else:
            connection.begin(self, forward.no_response_body, switches)
            self._unwritten_head = forward.head  # goes out with the first bytes of the body
            self._touch()
            self._port.resume_body()

    def unavailable(self, error: GatewayError, why: str) -> None:
        self._fail(error, why)

    # -- the connection's side -----------------------------------------------------

    def interim(self, answer: Answer) -> None:
        edits = self._forward.edits
        self._port.interim(replace(answer, headers=edits.taken_out(answer.headers)) if edits else answer)

    def answer_begins(self, answer: Answer, data: bytes) -> None:
        self._answered = True
        self._forward.decided.status = answer.status
        self._bytes_out = len(data)
        self._deadline = self._pool.ticker.now + self._pool.idle
        if not self._uploaded:
            self._early = True
            if answer.status >= 400 or answer.keep_alive is None:
                self._upload_stopped = True  # it has made up its mind: the rest would only provoke a reset
                self._port.pause_body()
        edits = self._forward.edits
        self._port.start(answer if edits is NO_EDITS else self._edited(answer), data)

    def answer_data(self, data: bytes) -> None:
        self._bytes_out += len(data)
        self._deadline = self._pool.ticker.now + (
            self._pool.tunnel_idle if self._switched else self._pool.idle
        )
        self._port.write(data)

    def answer_ends(self, reusable: bool, trailers: Headers) -> None:
        connection, self._connection = self._connection, None
        self._end()
        if connection is not None:
            if connection.server.failures and not self._switched:
                self._pool.report(connection.server, True)
            clean = reusable and self._uploaded and not self._early
            self._pool.release(connection, clean and (self._forward.body == 0 or not self._had_odd_body()))
        if trailers:
            trailers = self._forward.edits.taken_out(sound_trailers(trailers))
        self._port.finish(trailers)
        self._on_done(self._forward.decided)

    def switched(self, answer: Answer, data: bytes) -> None:
        if answer.upgrade != self._forward.upgrade:
            self._fail(BadGateway(), "it switches to a protocol that nobody asked for")
            return
        self._answered = self._switched = True
        self._forward.decided.status = answer.status
        self._port.switched(self._edited(self._with_offer(answer)))
        self._touch()
        if data and not self._done:
            self.answer_data(data)

    def lost(self, why: str, *, stale: bool) -> None:
        connection, self._connection = self._connection, None
        harmless = self._unwritten_head or (stale and self._forward.replayable)
        if harmless and not self._retried and not self._answered:
            self._retried = True
            self._deadline = self._pool.ticker.now + self._pool.queue_timeout
            if not self._uploaded:
                self._port.pause_body()
            self._pool.acquire(self, fresh=True)
        else:
            if connection is not None and not stale and not self._switched:
                self._pool.report(connection.server, False, why)
            self._fail(BadGateway(), why)

    def upload_paused(self) -> None:
        self._upload_paused = True
        self._port.pause_body()

    def upload_resumed(self) -> None:
        self._upload_paused = False
        self._touch()
        if (not self._uploaded and not self._upload_stopped) or self._switched:
            self._port.resume_body()

    # -- the clock's side ----------------------------------------------------------

    def tick(self, now: float) -> None:
        if not self._uploaded and self._crawls(now) and self._pool.crowded:
            sentence = "The body came too slowly while others waited."
            self._fail(RequestTimeout(sentence, close=True), "the request body crawls, and others wait")
        elif now < self._deadline:
            standing = self._forward.standing
            if self._answered and standing is not None and not standing():
                self._fail(InvalidToken(close=True), "the right to it has ended", reason="access_ended")
            else:
                self._port.tick()
        elif self._connection is None:
            self._fail(UpstreamUnavailable(retry_after=RETRY_AFTER), "no connection became free in time")
        elif self._switched:
            self._fail(UpstreamTimeout(), "the tunnel was idle", reason="idle_timeout")
        elif self._waits_for_body() or self._may_owe_body():
            self._fail(RequestTimeout(close=True), "the request body stopped coming")
        elif self._client_paused:
            self._fail(RequestTimeout(close=True), "the client stopped reading")
        else:
            self._pool.report(self._connection.server, False, "nothing came in time")
            self._fail(UpstreamTimeout(), "nothing came in time")

    def _crawls(self, now: float) -> bool:
        """Whether the client sends so slowly that it holds its connection for next to nothing.

        What counts is the time in which the backend would have taken more, as the clock meets it.
        """
        waits = self._waits_for_body() and self._connection is not None
        self._waited += now - self._looked if waits else 0.0
        self._looked = now
        return waits and self._waited > CRAWLS_AFTER and self._bytes_in < self._waited * CRAWLS_BELOW

    def _touch(self) -> None:
        """Something moved: whoever is next has their whole time again."""
        if self._switched:
            patience = self._pool.tunnel_idle
        elif self._waits_for_body():
            patience = self._body_idle
        elif self._answered:
            patience = self._pool.idle
        else:
            patience = self._forward.timeout or self._pool.response
        self._deadline = self._pool.ticker.now + patience

    def _waits_for_body(self) -> bool:
        return not (self._uploaded or self._upload_paused or self._answered)

    def _may_owe_body(self) -> bool:
        """The backend answers while it reads: nobody can tell whose turn it is, so it is not its fault."""
        return self._early and not (self._uploaded or self._upload_paused or self._upload_stopped)

    # ------------------------------------------------------------------------------

    def _had_odd_body(self) -> bool:
        """The backend may not have read it, and take it for a request whose answer the next one would get."""
        return self._forward.head.startswith(_BODILESS)

    def _edited(self, answer: Answer) -> Answer:
        """As the route has it; the same answer is most often edited in the same way again."""
        edits = self._forward.edits
        if not edits:
            return answer
        last = answer.edited
        if last is None or last[0] is not edits:
            changed = edits.apply(answer.headers)
            fresh = replace(answer, headers=changed, rendered=b"", lowered=[], edited=None)
            answer.edited = last = (edits, fresh)
        return last[1]

    def _with_offer(self, answer: Answer) -> Answer:
        offer = self._forward.lone_offer
        if not offer or any(name.lower() == _SUBPROTOCOL for name, _ in answer.headers):
            return answer
        return replace(answer, headers=[*answer.headers, (_SUBPROTOCOL, offer)], lowered=[])

    def _send(self, pieces: list[bytes]) -> None:
        if self._connection is None:  # dropping them silently would forge another request
            raise RuntimeError("fed without being asked to")
        if self._unwritten_head:
            pieces.insert(0, self._unwritten_head)
            self._unwritten_head = b""
        if len(pieces) == 1:
            self._connection.write(pieces[0])
        else:
            self._connection.write_pieces(pieces)

    def _fail(self, error: GatewayError, why: str, *, reason: str = "") -> None:
        """The gateway's answer if none was begun, else a visible cut. Why stays in the log."""
        if self._done:
            return
        decided = self._forward.decided
        where = decided.upstream or "no connection"
        level = logging.INFO if reason else logging.WARNING  # a reason of its own is nobody's fault
        said = {"requestId": self._forward.request_id}
        log.log(level, "upstream %s (%s): %s", self._pool.name, where, why, extra=said)
        self._drop(reason or error.code)
        if self._answered:
            self._port.abort()
        else:
            decided.status = error.status
            self._port.fail(error)
        self._on_done(decided)

    def _drop(self, reason: str) -> None:
        """Both directions end here and now; a connection in the middle of anything is closed."""
        self._forward.decided.reason = reason
        connection, self._connection = self._connection, None
        self._end()
        if connection is not None:
            connection.abort()
        else:
            self._pool.leave(self)

    def _end(self) -> None:
        """Once: the clock stops and the record is filled in."""
        self._done = True
        ticker = self._pool.ticker
        ticker.unwatch(self)
        decided = self._forward.decided
        decided.bytes_in, decided.bytes_out = self._bytes_in, self._bytes_out
        decided.upstream_ms = (ticker.clock() - self._began) * 1000.0

    def __repr__(self) -> str:
        state = "done" if self._done else "answering" if self._answered else "asking"
        return f"<Exchange {self._forward.request_id} with {self._pool.name!r}, {state}>"
