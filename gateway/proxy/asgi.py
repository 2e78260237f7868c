"""The gateway under any ASGI server: a client port over `receive` and `send`.

One task per request, the server's own. It asks the gate, starts an exchange,
and then sends what the exchange has put into a small bounded outbox. A second
task that listens to `receive` is started only when it is needed: at once if the
request has a body (and then only when a connection to the backend is in hand,
because the first `receive` is what answers `Expect: 100-continue`), otherwise
when the exchange has lasted for two ticks of the coarse clock, to notice that
the client has left. So a quick GET costs no second task.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import uuid
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Protocol

from gateway.errors import GatewayError, InternalError, NotImplementedHere
from gateway.http.framing import check_lines
from gateway.http.head import STATE_CORS, STATE_REFUSED, STATE_REQUEST_ID, Head, Headers
from gateway.http.problem import render
from gateway.proxy.exchange import BODY_IDLE, Exchange
from gateway.proxy.upstream.answer import Answer
from gateway.proxy.verdict import Forward, Judgement, Preflight, Refuse, Wait
from gateway.telemetry.logs import Decided

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

OUTBOX_LIMIT = 256 * 1024
"""Bytes of response waiting for `send` before we stop reading the backend: one read of the event loop."""
INBOX_LIMIT = 64 * 1024
"""Bytes of request body taken from the server while the backend can't take them."""
LINGER_SECONDS, LINGER_BYTES = 1.0, 16 * 1024 * 1024
"""How long and how far an unwanted body is read and thrown away after an early answer, before the connection
is closed: closing with unread bytes resets it, and a reset takes the answer with it (RFC 9112 §9.6)."""
_NO_RAW_PATH = NotImplementedHere("This server does not hand on the path as it was sent.", close=True)
POLICY_VIOLATION = 1008
"""WebSocket close code (RFC 6455 §7.4.1)."""

_CLOSE = (b"connection", b"close")
_REMEMBERED, _LONGEST_REMEMBERED = 1024, 2048
"""Heads, and bytes of each: target, names and values."""

log = logging.getLogger(__name__)


class Judge(Protocol):
    """What we need of the gate."""

    def judge(self, head: Head) -> Judgement:
        """Never waits by itself."""


class ProxyApp:
    """An ASGI application: every request is judged, then forwarded or refused."""

    def __init__(
        self,
        gate: Judge,
        *,
        on_done: Callable[[Decided], None],
        body_idle: float = BODY_IDLE,
    ) -> None:
        self._gate = gate
        self._on_done = on_done
        self._body_idle = body_idle
        self._heads = _Heads()

    def forget(self) -> None:
        """What is remembered of heads, and with it the rules that they were judged by."""
        self._heads = _Heads()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await _turn_away(scope, receive, send)
            return
        if not scope["http_version"].startswith("1"):
            send = _without_connection(send)
        head = self._heads.of(scope)
        judgement = self._judge(head) if isinstance(head, Head) else _refuse(scope, head)
        if isinstance(judgement, Wait):
            judgement = await judgement.judgement()
        if isinstance(judgement, Forward) and isinstance(head, Head):
            state = scope.setdefault("state", {})
            state[STATE_REQUEST_ID], state[STATE_CORS] = judgement.request_id, judgement.cors
            await _AsgiPort(judgement, head, receive, send, self._on_done, self._body_idle, state).run()
        elif isinstance(judgement, Refuse):
            answer = render(judgement.error, request_id=judgement.request_id, token_sent=judgement.token_sent)
            await self._answer(judgement, answer, scope, receive, send)
        elif isinstance(judgement, Preflight):
            request_id: Headers = [(b"x-request-id", judgement.request_id.encode())]
            await self._answer(judgement, (204, request_id, b""), scope, receive, send)

    def _judge(self, head: Head) -> Judgement:
        try:
            return self._gate.judge(head)
        except Exception:
            log.exception("the gate failed")
            return _refuse({"method": head.method, "raw_path": head.path}, InternalError(close=True))

    async def _answer(
        self,
        judgement: Refuse | Preflight,
        answer: tuple[int, Headers, bytes],
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        status, headers, body = answer
        headers += judgement.cors
        judgement.decided.status, judgement.decided.bytes_out = status, len(body)
        self._on_done(judgement.decided)
        if _announces_body(scope["headers"]):
            _close_after(headers)
            await _answer_and_linger(receive, send, (status, headers, body), scope["headers"])
        else:
            await _answer(send, (status, headers, body))


class _AsgiPort:
    """The client port of one request. Everything but `run` and `_listen` is synchronous."""

    __slots__ = (
        "_aborted",
        "_exchange",
        "_finished",
        "_forward",
        "_head",
        "_held",
        "_inbox",
        "_inbox_size",
        "_listener",
        "_more",
        "_outbox",
        "_paused",
        "_receive",
        "_room",
        "_send",
        "_size",
        "_start",
        "_state",
        "_ticks",
        "_waker",
    )

    def __init__(
        self,
        forward: Forward,
        head: Head,
        receive: Receive,
        send: Send,
        on_done: Callable[[Decided], None],
        body_idle: float,
        state: MutableMapping[str, Any],
    ) -> None:
        self._state = state
        self._forward, self._head, self._receive, self._send = forward, head, receive, send
        self._exchange = Exchange(forward, self, on_done, body_idle)
        self._start: Message | None = None
        self._outbox: list[bytes] = []
        self._size = 0
        self._finished = self._aborted = self._paused = False
        self._waker: asyncio.Future[None] | None = None
        self._inbox: list[Message] = []
        self._inbox_size = 0
        self._held = True
        self._more = forward.body != 0
        self._room: asyncio.Future[None] | None = None
        self._listener: asyncio.Task[None] | None = None
        self._ticks = 0

    async def run(self) -> None:
        """From the first byte upstream to the last byte down. Returns early if the client must see a cut."""
        try:
            self._exchange.begin()
            await self._deliver()
        finally:
            self._exchange.client_gone(self._state.get(STATE_REFUSED))  # does nothing if the exchange is over
            if self._listener is not None:
                self._listener.cancel()
            del self._exchange  # it holds us: undo the circle, the collector need not come for every request

    async def _deliver(self) -> None:
        send = self._send
        while True:
            if (
                self._start is not None
            ):  # also of an answer that broke off already: a cut, and no 500 of the server's
                start, self._start = self._start, None
                await send(start)
            elif self._aborted:
                return
            elif self._outbox or self._finished:
                chunks, self._outbox, self._size = self._outbox, [], 0
                last = self._finished
                if last and self._more:
                    rest, chunks = b"".join(chunks), []
                    await send({"type": "http.response.body", "body": rest, "more_body": True})
                    await self._linger()
                body = chunks[0] if len(chunks) == 1 else b"".join(chunks)
                await send({"type": "http.response.body", "body": body, "more_body": not last})
                if last:
                    return
                if self._paused:
                    self._paused = False
                    self._exchange.resume()
            elif self._exchange.done:
                return  # the client is gone
            else:
                self._waker = asyncio.get_running_loop().create_future()
                await self._waker

    async def _linger(self) -> None:
        """The answer came before the end of the request: let the listener throw the rest away."""
        self._inbox.clear()
        self._inbox_size = 0
        if self._room is not None and not self._room.done():
            self._room.set_result(None)
        if self._listener is None and not _expects_100(self._head.headers):
            self._listen_from_now_on()
        if self._listener is not None:
            await asyncio.wait((self._listener,), timeout=LINGER_SECONDS)

    # -- the exchange's side: the response -----------------------------------------

    def interim(self, answer: Answer) -> None:
        """ASGI has no word for it."""

    def switched(self, answer: Answer) -> None:
        """Never: this lane says that it can't."""
        raise NotImplementedError

    def start(self, answer: Answer, data: bytes) -> None:
        if not answer.lowered:
            answer.lowered = [(name.lower(), value) for name, value in answer.headers]
        self._begin(answer.status, answer.lowered.copy())
        if data:
            self.write(data)

    def _begin(self, status: int, lines: Headers) -> None:
        """`lines`: names in small letters, as ASGI wants them; a list that nobody else has."""
        if status == 304:  # its length describes another answer; ASGI servers take it for this one's
            lines = [line for line in lines if line[0] != b"content-length"]
        if self._more:
            _close_after(lines)
        self._start = {"type": "http.response.start", "status": status, "headers": lines}
        self._wake()

    def write(self, data: bytes) -> None:
        self._outbox.append(data)
        self._size += len(data)
        if self._size > OUTBOX_LIMIT:
            self._paused = True
            self._exchange.pause()
        if self._waker is not None:
            self._wake()

    def finish(self, trailers: Headers) -> None:
        """Servers that take trailers are rare, and none of them says so in time: they are dropped."""
        self._finished = True
        if self._waker is not None:
            self._wake()

    def fail(self, error: GatewayError) -> None:
        status, headers, body = render(error, request_id=self._forward.request_id)
        self._begin(status, [*headers, *self._forward.cors])
        self._outbox.append(body)
        self.finish([])

    def abort(self) -> None:
        self._aborted = True
        self._wake()

    def _wake(self) -> None:
        waker, self._waker = self._waker, None
        if waker is not None and not waker.done():  # done: the task was cancelled
            waker.set_result(None)

    # -- the exchange's side: the request body -------------------------------------

    def pause_body(self) -> None:
        self._held = True

    def resume_body(self) -> None:
        self._held = False
        self._pump()
        if self._listener is None:
            self._listen_from_now_on()

    def tick(self) -> None:
        """Old enough to look whether the client is still there. `receive` would answer a pending Expect."""
        self._ticks += 1
        if (
            self._ticks >= 2
            and self._listener is None
            and not (self._more and _expects_100(self._head.headers))
        ):
            self._listen_from_now_on()

    def _listen_from_now_on(self) -> None:
        self._listener = asyncio.get_running_loop().create_task(self._listen())

    async def _listen(self) -> None:
        """Until the client leaves; a server that fails to say so is as good as gone."""
        try:
            await self._take_messages()
            if self._more:
                await _throw_away(self._receive)
        except Exception:
            log.exception("the server failed to hand on the request")
        if not self._exchange.done:
            self._exchange.client_gone(self._state.get(STATE_REFUSED))
            self._wake()

    async def _take_messages(self) -> None:
        """Take messages as long as there is room for them; returns when the client has left."""
        while not self._exchange.done:
            message = await self._receive()
            self._more = message.get("more_body", False)
            if message["type"] == "http.disconnect":
                return
            self._inbox.append(message)
            self._inbox_size += len(message.get("body", b""))
            self._pump()
            if self._inbox_size > INBOX_LIMIT:
                self._room = asyncio.get_running_loop().create_future()
                await self._room

    def _pump(self) -> None:
        """Feed what is in the inbox while the backend takes it."""
        while self._inbox and not self._held:
            message = self._inbox.pop(0)
            body = message.get("body", b"")
            self._inbox_size -= len(body)
            self._exchange.feed(body)
            if not message.get("more_body", False):
                self._exchange.feed_end()
        if self._room is not None and self._inbox_size <= INBOX_LIMIT and not self._room.done():
            self._room.set_result(None)


def _refuse(scope: Scope, error: GatewayError) -> Refuse:
    """For what the gate could not judge."""
    request_id = uuid.uuid4().hex
    path = scope.get("raw_path") or b""
    decided = Decided(request_id, "", scope["method"], path, verdict="deny", reason=error.code)
    return Refuse(error, token_sent=False, request_id=request_id, decided=decided)


class _Heads:
    """Heads that came before, by all that they consist of: the gate knows them again (see `Head.granted`)."""

    def __init__(self) -> None:
        self._known: dict[object, Head] = {}

    def of(self, scope: Scope) -> Head | GatewayError:
        """The error if the server keeps something to itself."""
        client = scope.get("client")
        headers = tuple(scope["headers"])
        key = (
            scope["method"], scope.get("raw_path"), scope["query_string"], scope["http_version"],
            scope["scheme"], client[0] if client else None, headers,
        )  # fmt: skip
        try:
            head = self._known.get(key)
        except TypeError:  # lines that are lists, as the specification allows
            return _head_of(scope)
        return head or self._keep(key, _head_of(scope))

    def _keep(self, key: object, head: Head | GatewayError) -> Head | GatewayError:
        if isinstance(head, Head) and _size(head) <= _LONGEST_REMEMBERED:
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            self._known[key] = head
        return head


def _size(head: Head) -> int:
    return len(head.target) + sum(len(name) + len(value) for name, value in head.headers)


def _head_of(scope: Scope) -> Head | GatewayError:
    """The head, byte for byte as far as ASGI has it. (An empty query's "?" is lost on the way here.)"""
    target: bytes | None = scope.get("raw_path")
    if not target:
        return _NO_RAW_PATH
    query = scope["query_string"]
    target = target + b"?" + query if query else target
    headers: Headers = [(name, value) for name, value in scope["headers"]]  # uvicorn adds trailers later
    try:
        check_lines(scope["method"], target, headers)
    except GatewayError as error:
        return error
    client = scope.get("client")
    return Head(
        method=scope["method"],
        target=target,
        headers=headers,
        http_version="1.0" if scope["http_version"] == "1.0" else "1.1",
        scheme=scope["scheme"],
        peer=client[0] if client and client[0] else None,
    )


def _expects_100(headers: Headers) -> bool:
    return any(name.lower() == b"expect" for name, _ in headers)


def _announces_body(headers: Headers) -> bool:
    return any(
        name.lower() == b"transfer-encoding" or (name.lower() == b"content-length" and value.strip() != b"0")
        for name, value in headers
    )


def _close_after(lines: Headers) -> None:
    """There is an unread body behind this request: the connection can't be used for a next one."""
    if _CLOSE not in lines:
        lines.append(_CLOSE)


def _without_connection(send: Send) -> Send:
    """HTTP/2 and HTTP/3 know no Connection header (RFC 9113 §8.2.2), should the server speak them."""

    async def send_without(message: Message) -> None:
        if _CLOSE in message.get("headers", ()):
            message = {**message, "headers": [line for line in message["headers"] if line != _CLOSE]}
        await send(message)

    return send_without


async def _answer(send: Send, answer: tuple[int, Headers, bytes]) -> None:
    status, headers, body = answer
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _answer_and_linger(
    receive: Receive, send: Send, answer: tuple[int, Headers, bytes], request: Headers
) -> None:
    """To a request whose body we don't want."""
    status, headers, body = answer
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": True})
    if not _expects_100(request):  # that client waits with its body, and now won't send it
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LINGER_SECONDS):
                await _throw_away(receive)
    await send({"type": "http.response.body", "body": b""})


async def _throw_away(receive: Receive) -> None:
    """Read the rest of a request for nothing, up to a limit."""
    left = LINGER_BYTES
    more = True
    while more and left > 0:
        message = await receive()
        left -= len(message.get("body", b""))
        more = message.get("more_body", False)


async def _turn_away(scope: Scope, receive: Receive, send: Send) -> None:
    """A WebSocket handshake: 501 where the server can say so, else close code 1008.

    Other types are no business of ours: an ASGI server takes an exception for "not supported".
    """
    if scope["type"] != "websocket":
        raise NotImplementedError(f"no {scope['type']!r} here")
    await receive()
    if "websocket.http.response" not in (scope.get("extensions") or {}):
        reason = NotImplementedHere.sentence
        await send({"type": "websocket.close", "code": POLICY_VIOLATION, "reason": reason})
        return
    status, headers, body = render(NotImplementedHere(close=True), request_id=uuid.uuid4().hex)
    await send({"type": "websocket.http.response.start", "status": status, "headers": headers})
    await send({"type": "websocket.http.response.body", "body": body})
