"""The ceiling of an ASGI server: it answers by itself, proxies nothing and looks at no token."""

from __future__ import annotations

from typing import Any

from benchmarks.backend import ANSWER
from benchmarks.peers.peer import Peer, uvicorn

HEADERS = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(ANSWER))]


def app() -> Any:
    async def hello(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
        await send({"type": "http.response.body", "body": ANSWER})

    return hello


PEER = Peer(
    name="asgi-ceiling",
    what="uvicorn, httptools and uvloop answering by themselves: no proxy, no token",
    start=lambda place: [uvicorn("benchmarks.peers.ceiling:app", place.port)],
    judges=False,
)
