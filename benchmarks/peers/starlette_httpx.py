"""The obvious way: Starlette, PyJWT and httpx, as most in-house gateways are written."""

from __future__ import annotations

import os

import httpx
import jwt
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

SECRET = os.environ["JWT_ACCESS_SECRET"]
client = httpx.AsyncClient(base_url=os.environ["UPSTREAM"], limits=httpx.Limits(max_connections=200))


async def proxy(request: Request) -> Response:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    try:
        claims = (
            jwt.decode(token, SECRET, algorithms=["HS256"], issuer="gateway") if scheme == "Bearer" else None
        )
    except jwt.InvalidTokenError:
        claims = None
    if claims is None:
        return JSONResponse({"code": "not_logged_in"}, 401)
    if request.url.path.startswith("/admin") and not claims["isAdmin"]:
        return JSONResponse({"code": "forbidden"}, 403)
    headers = {k: v for k, v in request.headers.items() if k not in ("host", "authorization", "connection")}
    headers |= {"x-user-id": claims["sub"], "x-user-email": claims["email"]}
    upstream = client.build_request(
        request.method, httpx.URL(path=request.url.path, query=request.url.query.encode()), headers=headers
    )
    answer = await client.send(upstream, stream=True)
    return StreamingResponse(answer.aiter_raw(), answer.status_code, dict(answer.headers))


app = Starlette(routes=[Route("/{path:path}", proxy, methods=["GET", "POST", "PUT", "PATCH", "DELETE"])])
