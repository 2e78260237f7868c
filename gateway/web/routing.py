"""From path and method to a handler, with no second spelling of either.

Starlette matches the *decoded* path, so `/auth/%6cogin` would be `/auth/login`
to it while every log, cache and firewall in front saw something else. Here the
bytes on the wire are the path: an endpoint has exactly one spelling, and
anything else is a 404. There are no redirects, so no trailing slash either.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.errors import MethodNotAllowed, NotFound
from gateway.web.seen import seen

Handler = Callable[[Request], Awaitable[Response]]
"""Speaks HTTP and asks one service. Raises a GatewayError to refuse."""


class Endpoint:
    """One path and its methods. `label` names it in logs and metrics."""

    def __init__(self, path: str, label: str, handlers: Mapping[str, Handler]) -> None:
        self.path = path
        self.label = label
        self._handlers = dict(handlers)
        if "GET" in self._handlers:
            self._handlers["HEAD"] = self._handlers["GET"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        seen(scope).route = self.label
        handler = self._handlers.get(scope["method"])
        if handler is None:
            raise MethodNotAllowed(allow=tuple(sorted(self._handlers)))
        response = await handler(Request(scope, receive, send))
        await response(scope, receive, send)


def route(endpoints: list[Endpoint]) -> ASGIApp:
    """An ASGI application over `endpoints`; NotFound for every other path."""
    routes = [Route(endpoint.path, endpoint) for endpoint in endpoints]
    router = Router(routes, redirect_slashes=False, default=_nothing_here)

    async def routed(scope: Scope, receive: Receive, send: Send) -> None:
        if not _plain(scope):
            raise NotFound
        await router(scope, receive, send)

    return routed


def _plain(scope: Scope) -> bool:
    """The path arrived just as it reads: no escapes, nothing that could be decoded in two ways.

    Nor a control byte: the `$` of Starlette's patterns would let a newline follow.
    """
    raw: bytes | None = scope.get("raw_path")
    path: str = scope["path"]
    return (
        raw is not None and path.isascii() and path.isprintable() and "%" not in path and raw == path.encode()
    )


async def _nothing_here(scope: Scope, receive: Receive, send: Send) -> None:
    raise NotFound
