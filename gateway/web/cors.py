"""Pages of other origins that call /auth: preflights are answered here, and all answers tell the browser."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.http.cors import Cors, CorsEdits, Page, read_page
from gateway.http.head import STATE_CORS
from gateway.http.header_edits import NO_EDITS
from gateway.web.seen import seen


class CrossOrigin:
    """Wraps the whole application, so that a page can read its refusals too: 401, 404, 405."""

    def __init__(self, app: ASGIApp, cors: Cors) -> None:
        self._app = app
        self._cors = cors

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        page = read_page(scope["headers"])
        if page is not None and page.method and scope["method"] == "OPTIONS":
            await self._preflight(page, scope, send)
            return
        edits = CorsEdits(NO_EDITS, self._cors.lines(page))
        scope.setdefault("state", {})[STATE_CORS] = edits.lines

        async def send_shared(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": edits.apply(list(message["headers"]))}
            await send(message)

        await self._app(scope, receive, send_shared)

    async def _preflight(self, page: Page, scope: Scope, send: Send) -> None:
        """The same for every path and method: what is there is the real request's business."""
        record = seen(scope)
        record.route = "auth:preflight"
        headers = [*self._cors.preflight(page), (b"x-request-id", record.request_id.encode())]
        await send({"type": "http.response.start", "status": 204, "headers": headers})
        await send({"type": "http.response.body", "body": b""})
