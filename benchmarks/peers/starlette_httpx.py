"""The obvious way: Starlette, PyJWT and httpx, as most in-house gateways are written."""

from __future__ import annotations

import os

import httpx
import jwt
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from benchmarks.peers.peer import ADMIN_PREFIX, Peer, Place, uvicorn

_METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE"]
_NOT_FORWARDED = ("host", "authorization", "connection", "x-user-id", "x-user-email", "x-user-admin")


def app() -> Starlette:
    secret = os.environ["JWT_ACCESS_SECRET"]
    client = httpx.AsyncClient(base_url=os.environ["UPSTREAM"], limits=httpx.Limits(max_connections=200))

    async def proxy(request: Request) -> Response:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        try:
            claims = jwt.decode(token, secret, algorithms=["HS256"]) if scheme == "Bearer" else None
        except jwt.InvalidTokenError:
            claims = None
        if claims is None:
            return JSONResponse({"code": "not_logged_in"}, 401)
        if request.url.path.startswith(ADMIN_PREFIX) and claims["isAdmin"] is not True:
            return JSONResponse({"code": "forbidden"}, 403)
        headers = {name: value for name, value in request.headers.items() if name not in _NOT_FORWARDED}
        headers |= {"x-user-id": claims["sub"], "x-user-email": claims["email"]}
        headers["x-user-admin"] = "true" if claims["isAdmin"] else "false"
        target = httpx.URL(path=request.url.path, query=request.url.query.encode())
        body = request.stream() if int(headers.get("content-length", 0)) else None
        upstream = client.build_request(request.method, target, headers=headers, content=body)
        answer = await client.send(upstream, stream=True)
        return StreamingResponse(answer.aiter_raw(), answer.status_code, dict(answer.headers))

    return Starlette(routes=[Route("/{path:path}", proxy, methods=_METHODS)])


def _start(place: Place) -> list[list[str]]:
    place.environ["UPSTREAM"] = f"http://127.0.0.1:{place.backend}"
    return [uvicorn("benchmarks.peers.starlette_httpx:app", place.port)]


PEER = Peer(name="starlette-httpx", what="the obvious way: Starlette, PyJWT and httpx", start=_start)
