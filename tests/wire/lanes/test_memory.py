"""What the lane of `gateway run` remembers of heads changes nothing: it sends what the other lane sends.

The lane keeps judged header lines and rendered answers by their exact bytes. So the same few blocks are sent
over and over, in any order, on several connections, by several people.
"""

from __future__ import annotations

import contextlib
import random

import pytest

from tests.support.backend import Peer, Request
from tests.support.lanes import ASGI, RUN, Yard
from tests.support.raw import RawClient

pytestmark = pytest.mark.anyio

LINES = [
    "GET /public/1",
    "GET /public/2?a=b",
    "HEAD /public/1",
    "DELETE /public/1",
    "GET /private",
    "GET /admin/x",
]
LINES += [
    "POST /public/1",
    "PUT /private",
    "GET /auth/me",
    "OPTIONS /public/1",
    "GET /PUBLIC/1",
    "GET /hasty/1",
]
BLOCKS = [
    b"Host: a\r\n",
    b"Host: b\r\n",
    b"host: a\r\n",
    b"Host: a\r\nAccept: */*\r\n",
    b"Accept: */*\r\nHost: a\r\n",
    b"Host: a\r\nX-A: 1\r\nX-A: 2\r\n",
    b"Host: a\r\nX-A: 2\r\nX-A: 1\r\n",
    b"Host: a\r\nConnection: X-A\r\nX-A: 1\r\n",
    b"Host: a\r\nConnection: keep-alive\r\nX-A: 1\r\n",
    b"Host: a\r\nX-User-Id: 1\r\nX-Forwarded-For: 1.2.3.4\r\n",
    b"Host: a\r\nX-Request-Id: abcdefgh\r\n",
    b"Host: a\r\nContent-Length: 0\r\n",
    b"Host: a\r\nExpect: 100-continue\r\n",
    b"Host: a\r\nUpgrade: h2c\r\n",
    b"Host: a\r\nAuthorization: Basic YTpi\r\n",
    b"Host: a\r\nAuthorization: Bearer ada\r\n",
    b"Host: a\r\nAuthorization: Bearer bob\r\n",
    b"Host: a\r\nauthorization: bearer bob\r\n",
    b"Host: a\r\nAuthorization: Bearer root\r\n",
    b"Host: a\r\nAuthorization: Bearer old\r\n",
    b"Host: a\r\nAuthorization: Bearer ada\r\nAuthorization: Bearer root\r\n",
    b"Host: a\r\nX-Authorization: Bearer root\r\n",
]
OWN = (b"x-request-id", b"traceparent", b"date", b"host")
"""Of each request, or of each backend."""


async def tell(peer: Peer) -> None:
    """For ever: one of a few answers, by the path and the method."""
    while True:
        seen = await peer.request()
        shape = b"Content-Length: 2\r\n\r\n" if seen.target.startswith(b"/public") else b"X: y\r\n\r\n"
        if shape.startswith(b"X"):
            shape = b"Transfer-Encoding: chunked\r\n\r\n"
        body = b"ok" if shape.startswith(b"C") else b"2\r\nok\r\n0\r\n\r\n"
        dated = b"Date: Tue, 15 Nov 1994 08:12:31 GMT\r\n" if seen.method != b"DELETE" else b""
        await peer.send(b"HTTP/1.1 200 OK\r\n" + dated + shape + (b"" if seen.method == b"HEAD" else body))


def told(request: Request) -> list[tuple[bytes, bytes]]:
    """What went up, without what is new each time."""
    lines = [(name.lower(), value) for name, value in request.headers if name.lower() not in OWN]
    return [(b"", request.line), *sorted(lines)]


async def ask(client: RawClient, yard: Yard, line: str, block: bytes) -> list[object]:
    """Everything that both sides saw of one request; the ids apart."""
    before = len(yard.backend.requests)
    method = line.split(" ")[0]
    answer = await client.ask(
        f"{line} HTTP/1.1\r\n".encode() + _with_tokens(yard, block) + b"\r\n", method=method
    )
    up = [told(request) for request in yard.backend.requests[before:]]
    down = sorted((name, value) for name, value in answer.headers if name not in ("date", "x-request-id"))
    # The gateway's own answers close a connection alike, but say so in other lines.
    body = b"" if "x-gateway-error" in dict(answer.headers) else answer.body
    return [answer.status, [line for line in down if line[0] != "content-length" or body], body, up]


def _with_tokens(yard: Yard, block: bytes) -> bytes:
    mint = yard.mint
    tokens = {
        b"earer ada": mint.access(),
        b"earer bob": mint.access(sub="user-2", email="bob@example.com", roles=[], sid="session-2"),
        b"earer root": mint.access(sub="user-3", email="root@example.com", isAdmin=True, sid="session-3"),
        b"earer old": mint.access(exp=mint.now - 60),
    }
    for name, token in tokens.items():
        block = block.replace(name, b"earer " + token)
    return block


async def test_every_request_is_a_stranger(yard: Yard) -> None:
    """Each of the combinations three times or so, shuffled over three connections."""
    yard.plays(tell)
    chance = random.Random(11)
    expected: dict[tuple[str, bytes], list[object]] = {}
    combinations = [(line, block) for line in LINES for block in BLOCKS]
    for each in combinations:
        async with yard.connect(ASGI) as client:
            expected[each] = await ask(client, yard, *each)
    async with contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(yard.connect(RUN)) for _ in range(3)]
        for _ in range(len(combinations) * 3):
            line, block = chance.choice(combinations)
            at = chance.randrange(3)
            assert await ask(clients[at], yard, line, block) == expected[line, block], (line, block)


async def test_the_same_answer_to_get_head_and_old_clients(yard: Yard) -> None:
    """One head of a backend means another framing for each of them."""
    yard.plays(tell)
    for target in ("/public", "/hasty"):
        for version, method in [
            ("1.1", "GET"),
            ("1.1", "HEAD"),
            ("1.0", "GET"),
            ("1.1", "GET"),
            ("1.0", "HEAD"),
        ] * 2:
            for close in ("", "Connection: close\r\n"):
                async with yard.connect(RUN) as client:
                    raw = f"{method} {target} HTTP/{version}\r\nHost: a\r\n{close}\r\n".encode()
                    answer = await client.ask(raw, method=method)
                    assert answer.status == 200
                    assert answer.body == (b"" if method == "HEAD" else b"ok")
                    chunked = target == "/hasty" and (version, method) == ("1.1", "GET")
                    assert ("transfer-encoding" in dict(answer.headers)) == chunked
                    stays = version == "1.1" and not close
                    assert (answer.get("connection") == "close") != stays
                    if stays:
                        assert (await client.ask(raw, method=method)).status == 200
                    else:
                        assert await client.closed() == b""
