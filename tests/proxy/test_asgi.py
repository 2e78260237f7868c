"""The ASGI port under a server that is nothing but two functions."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gateway.errors import BodyTooLarge
from gateway.http.head import Head
from gateway.proxy.asgi import OUTBOX_LIMIT, ProxyApp
from tests.support.backend import Backend, Peer, echo, once, response
from tests.support.forwarding import Clock, OpenGate, Record, pool_for, until

pytestmark = pytest.mark.anyio


class Server:
    """Speaks ASGI with the app: hands it these messages, then waits; keeps what it sends."""

    def __init__(self, *messages: dict[str, Any]) -> None:
        self.inbox: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        for message in messages:
            self.inbox.put_nowait(message)
        self.sent: list[Any] = []
        self.receives = 0
        self.takes = asyncio.Event()
        self.takes.set()

    async def receive(self) -> dict[str, Any]:
        self.receives += 1
        return await self.inbox.get()

    async def send(self, message: Any) -> None:
        await self.takes.wait()
        self.sent.append(message)

    @property
    def status(self) -> int:
        return int(self.sent[0]["status"])

    @property
    def headers(self) -> dict[bytes, bytes]:
        return dict(self.sent[0]["headers"])

    @property
    def body(self) -> bytes:
        return b"".join(message["body"] for message in self.sent[1:])

    @property
    def complete(self) -> bool:
        return bool(self.sent) and not self.sent[-1].get("more_body", False)


def scope(**changes: Any) -> dict[str, Any]:
    return {
        "type": "http",
        "method": "GET",
        "raw_path": b"/x",
        "path": "/x",
        "query_string": b"",
        "headers": [(b"host", b"app")],
        "http_version": "1.1",
        "scheme": "http",
        "client": ("192.0.2.1", 5),
    } | changes


def body(data: bytes, *, more: bool = False) -> dict[str, Any]:
    return {"type": "http.request", "body": data, "more_body": more}


GONE = {"type": "http.disconnect"}


def app_for(gate: Any, records: list[Record] | None = None) -> ProxyApp:
    return ProxyApp(gate, on_done=([] if records is None else records).append)  # type: ignore[arg-type]


async def test_a_quick_get_never_asks_the_server_for_anything() -> None:
    records: list[Record] = []
    async with Backend(echo) as backend:
        gate, server = OpenGate(pool_for(backend.url)), Server()
        await app_for(gate, records)(scope(query_string=b"a=b"), server.receive, server.send)
        assert (server.status, server.complete, server.receives) == (200, True, 0)
        assert backend.requests[0].target == b"/x?a=b"
        assert [message["type"] for message in server.sent] == ["http.response.start", "http.response.body"]
        assert [record.status for record in records] == [200]
        gate.pool.close()


async def test_header_names_are_lower_case_for_the_server() -> None:
    async with Backend(once(response(b"ok", (b"X-CaSe", b"VaLue")))) as backend:
        server = Server()
        await app_for(OpenGate(pool_for(backend.url)))(scope(), server.receive, server.send)
        assert server.headers == {b"x-case": b"VaLue", b"content-length": b"2"}


HOST = (b"host", b"app")
SPLIT = {
    "a header": ({"headers": [HOST, (b"x-a", b"b\r\nX-User-Id: root")]}, 400),
    "a request": ({"headers": [HOST, (b"x-a", b"b\r\n\r\nGET /admin HTTP/1.1\r\nHost: a")]}, 400),
    "a bare LF": ({"headers": [HOST, (b"x-a", b"b\nX-User-Id: root")]}, 400),
    "a bare CR": ({"headers": [HOST, (b"x-a", b"b\rX-User-Id: root")]}, 400),
    "a NUL": ({"headers": [HOST, (b"x-a", b"b\0c")]}, 400),
    "a line end in what is dropped": ({"headers": [HOST, (b"connection", b"close\r\nX: y")]}, 400),
    "a line end in a name": ({"headers": [HOST, (b"x-a: b\r\nx-user-id", b"root")]}, 400),
    "a colon in a name": ({"headers": [HOST, (b"x-user-id: root\tx", b"")]}, 400),
    "a blank in a name": ({"headers": [HOST, (b"x-user-id ", b"root")]}, 400),
    "no name": ({"headers": [HOST, (b"", b"root")]}, 400),
    "a name of HTTP/2": ({"headers": [HOST, (b":path", b"/admin")]}, 400),
    "a query that ends the line": ({"query_string": b"a HTTP/1.1\r\nX-User-Id: root\r\nX: "}, 400),
    "a blank in the query": ({"query_string": b"a b"}, 400),
    "a path that ends the line": ({"raw_path": b"/x HTTP/1.1\r\nX-User-Id: root\r\nX: "}, 400),
    "a blank in the path": ({"raw_path": b"/x /admin"}, 400),
    "a path of other bytes": ({"raw_path": b"/caf\xc3\xa9"}, 400),
    "no path at all": ({"raw_path": b"http://a/x"}, 400),
    "a method that ends the line": ({"method": "GET /admin HTTP/1.1\r\nX:"}, 501),
    "a method in small letters": ({"method": "get"}, 501),
}


@pytest.mark.parametrize("name", SPLIT)
async def test_what_would_be_more_than_one_line_is_never_written(name: str) -> None:
    """HTTP/2 has no lines, and its servers have handed on whatever stood in a field."""
    changes, status = SPLIT[name]
    records: list[Record] = []
    async with Backend(echo) as backend:
        gate, server = OpenGate(pool_for(backend.url)), Server()
        await app_for(gate, records)(scope(http_version="2", **changes), server.receive, server.send)
        assert (server.status, server.complete) == (status, True)
        assert (gate.heads, backend.requests) == ([], [])
        assert [record.status for record in records] == [status]


@pytest.mark.parametrize("client", [None, ("", 0), ("192.0.2.1", 5)])
async def test_the_head_is_what_the_server_says(client: Any) -> None:
    gate, server = OpenGate(pool_for("http://127.0.0.1:1")), Server()
    gate.refusal = BodyTooLarge()
    lines = [(b"host", b"app")]
    await app_for(gate)(
        scope(client=client, headers=lines, http_version="2", scheme="https"), server.receive, server.send
    )
    lines.append((b"x-user", b"a trailer, after the fact"))
    peer = client[0] if client and client[0] else None
    assert gate.heads == [Head("GET", b"/x", [(b"host", b"app")], "1.1", "https", peer)]
    assert b"connection" not in server.headers


@pytest.mark.parametrize(
    ("line", "closes"),
    [
        ((b"content-length", b"5"), True),
        ((b"content-length", b"0"), False),
        ((b"transfer-encoding", b"chunked"), True),
        ((b"x", b"y"), False),
    ],
)
@pytest.mark.parametrize("close", [True, False])
async def test_a_refusal_with_an_unread_body_closes(
    line: tuple[bytes, bytes], closes: bool, close: bool
) -> None:
    gate, server = OpenGate(pool_for("http://127.0.0.1:1")), Server(body(b"x", more=True), body(b"y"))
    gate.refusal = BodyTooLarge(close=close)
    await app_for(gate)(scope(headers=[line]), server.receive, server.send)
    assert server.status == 413
    assert [name for name, _ in server.sent[0]["headers"]].count(b"connection") == int(closes or close)
    assert server.receives == 2 * int(closes), "thrown away, so that no reset takes the answer with it"


async def test_connection_is_no_word_for_http_2() -> None:
    gate, server = OpenGate(pool_for("http://127.0.0.1:1")), Server(GONE)
    gate.refusal = BodyTooLarge(close=True)
    changes = {"http_version": "2", "headers": [(b"content-length", b"5")]}
    await app_for(gate)(scope(**changes), server.receive, server.send)
    assert b"connection" not in server.headers


async def test_a_server_without_the_raw_path_is_refused() -> None:
    for changes in ({"raw_path": None}, {"raw_path": b""}):
        server = Server()
        await app_for(None)(scope(**changes), server.receive, server.send)
        assert server.status == 501
        assert b'"not_implemented"' in server.body


async def test_a_defect_of_the_gate_is_a_plain_500(caplog: pytest.LogCaptureFixture) -> None:
    class Broken:
        def judge(self, head: Head) -> Any:
            raise ZeroDivisionError("secret")

    server = Server()
    await app_for(Broken())(scope(), server.receive, server.send)
    assert server.status == 500
    assert b"secret" not in server.body
    assert "ZeroDivisionError" in caplog.text


async def test_a_websocket_is_turned_away_in_words() -> None:
    handshake = {"type": "websocket.connect"}
    server = Server(handshake)
    await app_for(None)({"type": "websocket"}, server.receive, server.send)
    [close] = server.sent
    assert (close["type"], close["code"]) == ("websocket.close", 1008)
    assert "not support" in close["reason"]
    server = Server(handshake)
    ask = {"type": "websocket", "extensions": {"websocket.http.response": {}}}
    await app_for(None)(ask, server.receive, server.send)
    assert server.status == 501
    assert server.body
    with pytest.raises(NotImplementedError):
        await app_for(None)({"type": "lifespan"}, server.receive, server.send)


async def test_a_body_is_asked_for_once_there_is_a_connection() -> None:
    clock = Clock()
    async with Backend(echo) as backend:
        gate = OpenGate(pool_for(backend.url, clock=clock, connections=1))
        server = Server(body(b"he", more=True), body(b"llo"))
        headers = [(b"content-length", b"5"), (b"Expect", b"100-continue")]
        gate.pool._connections = 0  # no connection to be had for now
        task = asyncio.create_task(
            app_for(gate)(scope(method="POST", headers=headers), server.receive, server.send)
        )
        for _ in range(5):
            await asyncio.sleep(0)
            gate.pool.ticker.tick()
        assert server.receives == 0
        gate.pool._connections = 1
        gate.pool._grow()
        await task
        assert server.body.endswith(b"hello")
        gate.pool.close()


async def test_without_expect_the_body_is_taken_early_but_only_a_little_of_it() -> None:
    async with Backend(echo, limit=2**20) as backend:
        gate = OpenGate(pool_for(backend.url, clock=Clock(), connections=1))
        server = Server(*[body(b"x" * 30_000, more=number < 9) for number in range(10)])
        gate.pool._connections = 0
        task = asyncio.create_task(
            app_for(gate)(
                scope(method="POST", headers=[(b"content-length", b"300000")]), server.receive, server.send
            )
        )
        for _ in range(10):
            await asyncio.sleep(0)
            gate.pool.ticker.tick()
        assert server.receives == 3
        gate.pool._connections = 1
        gate.pool._grow()
        await task
        assert len(backend.requests[0].body) == 300_000
        gate.pool.close()


async def test_a_client_that_leaves_a_long_get_is_noticed_after_two_ticks() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.hang()

    records: list[Record] = []
    async with Backend(script) as backend:
        gate, server = OpenGate(pool_for(backend.url, clock=Clock())), Server(body(b""), GONE)
        task = asyncio.create_task(app_for(gate, records)(scope(), server.receive, server.send))
        await until(lambda: backend.requests)
        gate.pool.ticker.tick()
        await asyncio.sleep(0)
        assert server.receives == 0
        gate.pool.ticker.tick()
        gate.pool.ticker.tick()
        await task
        assert (server.sent, [record.reason for record in records]) == ([], ["client_gone"])
        assert len(gate.pool.ticker) == 0


async def test_a_cancelled_request_leaves_nothing_behind() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.hang()

    records: list[Record] = []
    async with Backend(script) as backend:
        gate, server = OpenGate(pool_for(backend.url)), Server()
        task = asyncio.create_task(app_for(gate, records)(scope(), server.receive, server.send))
        await until(lambda: backend.requests)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert [record.reason for record in records] == ["client_gone"]
        assert (gate.pool.busy_count, len(gate.pool.ticker)) == (0, 0)


async def test_a_server_that_fails_to_receive_counts_as_a_client_that_left(
    caplog: pytest.LogCaptureFixture,
) -> None:
    records: list[Record] = []

    class Failing(Server):
        async def receive(self) -> dict[str, Any]:
            raise RuntimeError("no such thing")

    async with Backend(echo) as backend:
        gate, server = OpenGate(pool_for(backend.url)), Failing()
        await app_for(gate, records)(
            scope(method="POST", headers=[(b"content-length", b"5")]), server.receive, server.send
        )
        assert [record.reason for record in records] == ["client_gone"]
        assert server.sent == []
        assert "no such thing" in caplog.text


async def test_a_truncated_answer_is_left_incomplete() -> None:
    async with Backend(once(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")) as backend:
        server = Server()
        await app_for(OpenGate(pool_for(backend.url)))(scope(), server.receive, server.send)
        assert (server.status, server.body, server.complete) == (200, b"half", False)


async def test_a_client_that_takes_nothing_stops_the_backend() -> None:
    total = 20_000_000
    sent = 0

    async def script(peer: Peer) -> None:
        nonlocal sent
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % total)
        while sent < total:
            await peer.send(b"x" * 100_000)
            sent += 100_000

    async with Backend(script) as backend:
        gate, server = OpenGate(pool_for(backend.url)), Server()
        server.takes.clear()
        task = asyncio.create_task(app_for(gate)(scope(), server.receive, server.send))
        stood_at = -1
        while stood_at != sent or not sent:
            stood_at = sent
            await asyncio.sleep(0.05)
        assert sent < total
        server.takes.set()
        await task
        assert len(server.body) == total
        assert max(len(message["body"]) for message in server.sent[1:]) < 2 * OUTBOX_LIMIT + 2**18
        gate.pool.close()
