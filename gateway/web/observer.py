"""Watches /auth from outside: the request's id, its one log line, its numbers.

The rim of the rim: it changes nothing, and whatever ends a request (an answer,
a client that left, a process that stops) ends in exactly one decided record.
"""

from __future__ import annotations

from collections.abc import Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.errors import GatewayError
from gateway.http.head import STATE_REFUSED, STATE_REQUEST_ID
from gateway.telemetry.logs import CLIENT, REQUEST_ID, Decided
from gateway.web.seen import Seen, seen


class Observer:
    """Wraps the application that `build_auth` made.

    `begin` starts the record of a request from its scope, with the id that the
    answer will carry; `on_done` takes it when the request is over.
    """

    def __init__(
        self, app: ASGIApp, *, begin: Callable[[Scope], Decided], on_done: Callable[[Decided], None]
    ) -> None:
        self._app = app
        self._begin = begin
        self._on_done = on_done

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        decided, record = self._begin(scope), seen(scope)
        record.request_id = decided.request_id
        state = scope.setdefault("state", {})
        state[STATE_REQUEST_ID] = decided.request_id

        async def counted_receive() -> Message:
            message = await receive()
            decided.bytes_in += len(message.get("body", b""))
            return message

        async def counted_send(message: Message) -> None:
            decided.status = message.get("status", decided.status)
            decided.bytes_out += len(message.get("body", b""))
            await send(message)

        request_id, client = REQUEST_ID.set(decided.request_id), CLIENT.set(decided.client)
        try:
            await self._app(scope, counted_receive, counted_send)
        finally:
            REQUEST_ID.reset(request_id)
            CLIENT.reset(client)
            _conclude(decided, record, state.get(STATE_REFUSED))
            self._on_done(decided)


def _conclude(decided: Decided, record: Seen, refused: GatewayError | None) -> None:
    """`refused` is what the server answered by itself: a body that came late or malformed."""
    decided.route, decided.user, decided.credential = record.route, record.user, record.credential
    if decided.status == 0 and refused is not None:
        decided.status, decided.verdict, decided.reason = refused.status, "deny", refused.code
    elif decided.status == 0:
        decided.verdict, decided.reason = "deny", "client_gone"
    elif record.refusal is not None:
        decided.verdict, decided.reason = "deny", record.refusal
    else:
        decided.verdict, decided.reason = "allow", "served"
