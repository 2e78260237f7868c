"""The rim of /auth: whatever happens inside, what leaves is a well-formed answer.

- An error of ours becomes problem+json; anything else becomes a 500 whose
  cause stands in the log and nowhere else.
- Answers are about people, so none may be stored (`Cache-Control: no-store`)
  unless an endpoint says otherwise, and none may be sniffed into another type.
- HEAD is answered like GET, without the body.
- The request id is on every answer.
"""

from __future__ import annotations

import logging
from typing import Any

from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.errors import GatewayError, InternalError
from gateway.http.head import Headers
from gateway.http.problem import render
from gateway.web.seen import Seen, seen

log = logging.getLogger(__name__)


class Answers:
    """Wraps an ASGI application; nothing but cancellation gets past it."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise NotImplementedError(f"/auth has no {scope['type']}")
        answer = _Answer(scope, send)
        try:
            await self.app(scope, receive, answer.send)
        except ClientDisconnect:
            return  # there is nobody to answer
        except GatewayError as error:
            await answer.refuse(error)
        except Exception:
            log.exception("defect while answering %s", answer.seen.route)
            await answer.refuse(InternalError())


class _Answer:
    """The one response to one request."""

    def __init__(self, scope: Scope, send: Send) -> None:
        self.seen: Seen = seen(scope)
        self._send = send
        self._head_only = scope["method"] == "HEAD"
        self._started = False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._started = True
            message["headers"] = self._complete(list(message["headers"]))
        elif self._head_only:
            message = {**message, "body": b""}
        await self._send(message)

    def _complete(self, headers: Headers) -> Headers:
        present = {name.lower() for name, _ in headers}
        defaults = (
            (b"cache-control", b"no-store"),
            (b"x-content-type-options", b"nosniff"),
            (b"x-request-id", self.seen.request_id.encode()),
        )
        return headers + [line for line in defaults if line[0] not in present]

    async def refuse(self, error: GatewayError) -> None:
        """Answer with `error`; after a response has begun, only cutting the connection is honest."""
        self.seen.refusal = error.code
        if self._started:
            raise error
        status, headers, body = render(
            error, request_id=self.seen.request_id, token_sent=self.seen.token_sent
        )
        await self.send({"type": "http.response.start", "status": status, "headers": headers})
        await self.send({"type": "http.response.body", "body": body})


def json_answer(value: Any, status: int = 200) -> Response:
    return JSONResponse(value, status)


def no_content() -> Response:
    return Response(status_code=204)
