"""The small service that nginx `auth_request` and Caddy `forward_auth` ask about every request.

As quick as plain ASGI allows: a token that was verified is remembered until it expires.
"""

from __future__ import annotations

import os
import time
from typing import Any

import jwt

from benchmarks.peers.peer import ADMIN_PREFIX, uvicorn

_REMEMBERED = 10_000
Lines = list[tuple[bytes, bytes]]


def app() -> Any:
    secret = os.environ["JWT_ACCESS_SECRET"]
    known: dict[bytes, tuple[float, bool, Lines]] = {}

    def verify(credential: bytes) -> tuple[float, bool, Lines]:
        claims = jwt.decode(credential.removeprefix(b"Bearer "), secret, algorithms=["HS256"])
        if len(known) >= _REMEMBERED:
            known.clear()
        known[credential] = (claims["exp"], claims["isAdmin"] is True, _lines(claims))
        return known[credential]

    def judge(scope: Any) -> tuple[int, Lines]:
        headers = dict(scope["headers"])
        credential = headers.get(b"authorization", b"")
        try:
            expires, is_admin, lines = known.get(credential) or verify(credential)
        except jwt.InvalidTokenError:
            return 401, []
        if expires < time.time():
            return 401, []
        if headers.get(b"x-forwarded-uri", b"").startswith(ADMIN_PREFIX.encode()) and not is_admin:
            return 403, []
        return 200, lines

    async def answer(scope: Any, receive: Any, send: Any) -> None:
        status, lines = judge(scope)
        headers = [*lines, (b"content-length", b"0")]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body"})

    return answer


def command(port: int) -> list[str]:
    return uvicorn("benchmarks.peers.verifier:app", port)


def _lines(claims: dict[str, Any]) -> Lines:
    is_admin = b"true" if claims["isAdmin"] is True else b"false"
    return [
        (b"x-user-id", claims["sub"].encode()),
        (b"x-user-email", claims["email"].encode()),
        (b"x-user-admin", is_admin),
    ]
