"""The same application under another server, one that checks every byte it is asked to send (h11)."""

from __future__ import annotations

import pytest

from tests.support.backend import Backend, echo, once, response
from tests.support.forwarding import front

pytestmark = pytest.mark.anyio

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"
ANSWERS = {
    "with a length": response(b"ok"),
    "chunked": CHUNKED,
    "until the end": b"HTTP/1.1 200 OK\r\n\r\nok",
    "odd bytes": response(
        b"ok", (b"X-Odd", b"caf\xe9\xff \t~"), (b"Set-Cookie", b"a"), (b"Set-Cookie", b"b")
    ),
    "no content": b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n",
    "not modified": b"HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n",
}


@pytest.mark.parametrize("name", ANSWERS)
@pytest.mark.parametrize("method", [b"GET", b"HEAD"])
async def test_answers(name: str, method: bytes) -> None:
    raw = ANSWERS[name]
    if method == b"HEAD":
        raw = raw.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
    async with Backend(once(raw)) as backend, front(backend.url, http="h11") as gateway:
        answer = await gateway.get(method=method)
        assert answer.startswith(raw[:12])
        body = answer.partition(b"\r\n\r\n")[2]
        assert (b"ok" in body) == (method == b"GET" and raw.startswith(b"HTTP/1.1 200"))
        assert answer.count(b"set-cookie") == raw.count(b"Set-Cookie")


@pytest.mark.parametrize("framing", ["length", "chunked"])
async def test_uploads(framing: str) -> None:
    async with Backend(echo) as backend, front(backend.url, http="h11") as gateway:
        start = b"POST / HTTP/1.1\r\nHost: app\r\nConnection: close\r\nExpect: 100-continue\r\n"
        if framing == "length":
            answer = await gateway.say(start + b"Content-Length: 5\r\n\r\n", b"hello")
        else:
            answer = await gateway.say(
                start + b"Transfer-Encoding: chunked\r\n\r\n", b"5\r\nhello\r\n0\r\n\r\n"
            )
        assert b"hello" in answer
        assert backend.requests[0].body == b"hello"


TORN = {
    "truncated": (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf", 200, b"half"),
    "broken": (b"HTTP/1.1 200 OK\r\nContent-Length: -9\r\n\r\nhalf", 502, b"}"),
}


@pytest.mark.parametrize("name", TORN)
async def test_a_truncated_answer_and_a_broken_one(name: str) -> None:
    raw, status, end = TORN[name]
    async with Backend(once(raw)) as backend, front(backend.url, http="h11") as gateway:
        answer = await gateway.get()
        assert answer.startswith(b"HTTP/1.1 %d" % status)
        assert answer.endswith(end)
