"""The gateway on a real uvicorn, with real sockets on both sides: bytes, clients that leave, memory."""

from __future__ import annotations

import asyncio
import gc
import os

import psutil
import pytest

from gateway.errors import BodyTooLarge, TooManyRequests
from tests.support.backend import PATIENCE, Backend, Peer, Truncated, answering, echo, once, response
from tests.support.forwarding import front, until

pytestmark = pytest.mark.anyio


def status_of(raw: bytes) -> int:
    return int(raw.split(b" ", 2)[1])


async def test_there_and_back_on_one_kept_connection() -> None:
    async with Backend(echo) as backend, front(backend.url) as gateway:
        reader, writer = await gateway.connect()
        for number in range(3):
            writer.write(b"GET /%d HTTP/1.1\r\nHost: app\r\n\r\n" % number)
            answer = await reader.readuntil(b"\r\n\r\n")
            assert status_of(answer) == 200
            length = int(answer.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            assert (await reader.readexactly(length)).startswith(b"GET /%d HTTP/1.1" % number)
        writer.close()
        assert len(backend.peers) == 1
        assert [record.status for record in await gateway.settled(3)] == [200, 200, 200]


async def test_the_target_and_the_header_bytes_arrive_as_they_left() -> None:
    async with Backend(echo) as backend, front(backend.url) as gateway:
        await gateway.say(
            b"GET /a%2fb//c;d?x=%00&y HTTP/1.1\r\nHost: app\r\nX-B: \xff\xfe\r\nConnection: close\r\n\r\n"
        )
        [request] = backend.requests
        assert request.line == b"GET /a%2fb//c;d?x=%00&y HTTP/1.1"
        assert request.one(b"x-b") == b"\xff\xfe"


async def test_the_answers_bytes_arrive_as_they_left() -> None:
    lines = ((b"Set-Cookie", b"a=1"), (b"Set-Cookie", b"b=2"), (b"X-Odd", b"caf\xe9\xff"), (b"Date", b"then"))
    async with Backend(answering(response(b"\x00\xff", *lines))) as backend, front(backend.url) as gateway:
        answer = await gateway.get()
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.split(b"\r\n")[1:-1] == [name.lower() + b": " + value for name, value in lines] + [
            b"content-length: 2"
        ]
        assert body == b"\x00\xff"


SHAPES = {
    "chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;x=y\r\nok\r\n0\r\nX-T: 1\r\n\r\n",
    "interim": b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + response(b"ok"),
}


@pytest.mark.parametrize("shape", SHAPES)
async def test_other_framings(shape: str) -> None:
    async with Backend(answering(SHAPES[shape])) as backend, front(backend.url) as gateway:
        answer = await gateway.get()
        assert status_of(answer) == 200
        assert b"ok" in answer.partition(b"\r\n\r\n")[2]
        assert b"x-t" not in answer.lower()


async def test_a_body_that_ends_with_the_connection() -> None:
    async with Backend(once(b"HTTP/1.1 200 OK\r\n\r\nall")) as backend, front(backend.url) as gateway:
        answer = await gateway.get()
        assert answer.endswith(b"3\r\nall\r\n0\r\n\r\n")


@pytest.mark.parametrize("status", [b"204 No Content", b"304 Not Modified"])
@pytest.mark.parametrize("length", [0, 7])
async def test_answers_without_a_body(status: bytes, length: int) -> None:
    raw = b"HTTP/1.1 %b\r\nContent-Length: %d\r\nETag: x\r\n\r\n" % (status, length)
    async with Backend(answering(raw)) as backend, front(backend.url) as gateway:
        answer = await gateway.get()
        assert status_of(answer) == int(status[:3])
        assert answer.endswith(b"\r\n\r\n")
        assert b"content-length" not in answer


async def test_head() -> None:
    raw = b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n"
    async with Backend(answering(raw)) as backend, front(backend.url) as gateway:
        for _ in range(2):
            answer = await gateway.get(method=b"HEAD")
            assert b"content-length: 500" in answer
            assert answer.endswith(b"\r\n\r\n")


@pytest.mark.parametrize(
    ("raw", "status"),
    [(b"", 502), (b"garbage\r\n\r\n", 502), (b"HTTP/1.1 999 X\r\nContent-Length: 0\r\n\r\n", 502)],
)
async def test_a_broken_backend_is_a_problem_document_and_the_connection_lives_on(
    raw: bytes, status: int
) -> None:
    async with Backend(once(raw)) as backend, front(backend.url) as gateway:
        reader, writer = await gateway.connect()
        for _ in range(2):
            writer.write(b"GET / HTTP/1.1\r\nHost: app\r\n\r\n")
            head = await reader.readuntil(b"\r\n\r\n")
            assert status_of(head) == status
            assert b"x-gateway-error: upstream_broken" in head
            length = int(head.split(b"content-length: ")[1].split(b"\r\n")[0])
            body = await reader.readexactly(length)
            assert b'"requestId": "r1"' in body
            assert b"127.0.0.1" not in body
        writer.close()


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
    ],
)
async def test_a_truncated_answer_is_seen_as_truncated(raw: bytes) -> None:
    async with Backend(once(raw)) as backend, front(backend.url) as gateway:
        answer = await gateway.say(b"GET / HTTP/1.1\r\nHost: app\r\n\r\n")
        assert status_of(answer) == 200
        assert b"half" in answer
        assert not answer.endswith(b"0\r\n\r\n")
        [record] = await gateway.settled()
        assert record.reason == "upstream_broken"


@pytest.mark.parametrize("framing", ["length", "chunked"])
async def test_uploads(framing: str) -> None:
    async with Backend(echo) as backend, front(backend.url) as gateway:
        start = b"POST / HTTP/1.1\r\nHost: app\r\nConnection: close\r\n"
        if framing == "length":
            pieces = [start + b"Content-Length: 10\r\n\r\n", b"hello", b"world"]
        else:
            pieces = [
                start + b"Transfer-Encoding: chunked\r\n\r\n",
                b"5;a=b\r\nhello\r\n",
                b"5\r\nworld\r\n",
                b"0\r\nT: x\r\n\r\n",
            ]
        answer = await gateway.say(*pieces)
        assert status_of(answer) == 200
        [request] = backend.requests
        assert (request.body, request.raw_trailers) == (b"helloworld", b"")
        [record] = await gateway.settled()
        assert record.bytes_in == 10


@pytest.mark.parametrize("framing", [b"Content-Length: 10", b"Transfer-Encoding: chunked"])
async def test_an_aborted_upload_is_never_finished(framing: bytes) -> None:
    got: list[bytes] = []

    async def script(peer: Peer) -> None:
        try:
            await peer.request()
            got.append(b"whole")
        except Truncated:
            got.append(b"truncated")

    async with Backend(script) as backend, front(backend.url) as gateway:
        _, writer = await gateway.connect()
        writer.write(b"POST / HTTP/1.1\r\nHost: app\r\n" + framing + b"\r\n\r\n4\r\nhalf\r\n")
        await until(lambda: backend.requests)
        writer.transport.abort()
        [record] = await gateway.settled()
        assert record.reason == "client_gone"
        async with asyncio.timeout(PATIENCE):
            await backend.peers[0].ended.wait()
        assert got == [b"truncated"]
        assert await gateway.inside(lambda: gateway.gate.pool.idle_count) == 0


async def test_expect_is_answered_only_with_a_connection_in_hand() -> None:
    async with Backend(echo) as backend, front(backend.url) as gateway:
        reader, writer = await gateway.connect()
        writer.write(
            b"POST / HTTP/1.1\r\nHost: app\r\nConnection: close\r\n"
            b"Content-Length: 2\r\nExpect: 100-continue\r\n\r\n"
        )
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        assert len(await _opened(backend)) == 1
        writer.write(b"hi")
        assert (await reader.read()).endswith(b"hi")
        writer.close()


async def test_expect_is_not_answered_when_there_is_no_connection_or_no_permission() -> None:
    ask = b"POST / HTTP/1.1\r\nHost: app\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n"
    async with front("http://127.0.0.1:1") as gateway:
        answer = await gateway.say(ask)
        assert (status_of(answer), answer.count(b"HTTP/1.1")) == (503, 1)
        assert b"connection: close" in answer
        gateway.gate.refusal = TooManyRequests(retry_after=3)
        answer = await gateway.say(ask)
        assert (status_of(answer), answer.count(b"HTTP/1.1")) == (429, 1)
        assert b"connection: close" in answer


async def test_a_refusal_without_a_body_keeps_the_connection() -> None:
    async with front("http://127.0.0.1:1") as gateway:
        gateway.gate.refusal = TooManyRequests(retry_after=3)
        reader, writer = await gateway.connect()
        for _ in range(2):
            writer.write(b"GET / HTTP/1.1\r\nHost: app\r\n\r\n")
            head = await reader.readuntil(b"\r\n\r\n")
            assert status_of(head) == 429
            await reader.readexactly(int(head.split(b"content-length: ")[1].split(b"\r\n")[0]))
        writer.close()
        assert [record.status for record in gateway.records] == [429, 429]


async def test_an_early_answer_during_an_upload_closes_both_connections() -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(response(b"too much", status=b"413 Content Too Large"))
        await peer.closed()

    async with Backend(script) as backend, front(backend.url) as gateway:
        answer = await gateway.say(b"POST / HTTP/1.1\r\nHost: app\r\nContent-Length: 1000000\r\n\r\nx")
        assert status_of(answer) == 413
        assert answer.endswith(b"too much")
        assert b"connection: close" in answer
        async with asyncio.timeout(PATIENCE):
            await backend.peers[0].ended.wait()
        assert await gateway.inside(lambda: gateway.gate.pool.idle_count) == 0


async def test_a_chunked_body_over_the_limit_is_413() -> None:
    async with Backend(echo) as backend, front(backend.url, body_limit=10) as gateway:
        answer = await gateway.say(
            b"POST / HTTP/1.1\r\nHost: app\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"14\r\n" + b"x" * 20 + b"\r\n",
        )
        assert status_of(answer) == 413
        assert b"connection: close" in answer
        assert not backend.requests


async def test_a_client_that_leaves_ends_the_answer() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
        await peer.send(b"data: 1\n\n")
        await peer.closed()

    async with Backend(script) as backend, front(backend.url) as gateway:
        reader, writer = await gateway.connect()
        writer.write(b"GET / HTTP/1.1\r\nHost: app\r\n\r\n")
        await reader.readuntil(b"data: 1\n\n")
        writer.close()
        async with asyncio.timeout(PATIENCE):
            await backend.peers[0].ended.wait()
        [record] = await gateway.settled()
        assert (record.status, record.reason) == (200, "client_gone")


@pytest.mark.parametrize("body", [b"", b"Content-Length: 2\r\n"])
async def test_a_client_that_leaves_before_the_answer(body: bytes) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.closed()

    async with Backend(script) as backend, front(backend.url) as gateway:
        _reader, writer = await gateway.connect()
        writer.write(b"POST / HTTP/1.1\r\nHost: app\r\n" + body + b"\r\n" + (b"hi" if body else b""))
        await until(lambda: backend.requests)
        writer.close()
        async with asyncio.timeout(PATIENCE):
            await backend.peers[0].ended.wait()
        [record] = await gateway.settled()
        assert (record.status, record.reason) == (499, "client_gone")


@pytest.mark.parametrize("body", [b"", b"Content-Length: 2\r\n", b"Content-Length: 200000\r\n"])
async def test_a_client_that_leaves_the_queue(body: bytes) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.closed()

    async with Backend(script) as backend, front(backend.url, connections=1) as gateway:
        _, first = await gateway.connect()
        first.write(b"GET /first HTTP/1.1\r\nHost: app\r\n\r\n")
        await until(lambda: backend.requests)
        _, second = await gateway.connect()
        second.write(b"POST /second HTTP/1.1\r\nHost: app\r\n" + body + b"\r\nhi")
        await until(lambda: gateway.gate.pool.waiting_count)
        second.close()
        [record] = await gateway.settled()
        assert (record.status, record.reason) == (499, "client_gone")
        assert await gateway.inside(lambda: gateway.gate.pool.waiting_count) == 0
        first.close()
        await gateway.settled(2)
        assert len(backend.requests) == 1


async def test_an_event_stream_arrives_event_by_event() -> None:
    next_one = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
        for number in range(3):
            await peer.send(b"data: %d\n\n" % number)
            await next_one.wait()
            next_one.clear()

    async with Backend(script) as backend, front(backend.url) as gateway:
        reader, writer = await gateway.connect()
        writer.write(b"GET / HTTP/1.1\r\nHost: app\r\nConnection: close\r\n\r\n")
        for number in range(3):
            async with asyncio.timeout(PATIENCE):
                await reader.readuntil(b"data: %d\n\n" % number)
            next_one.set()
        assert (await reader.read()).endswith(b"0\r\n\r\n")
        writer.close()


BIG = 64 * 1024 * 1024
GROWTH = 8 * 1024 * 1024


def _resident() -> int:
    gc.collect()
    return psutil.Process(os.getpid()).memory_info().rss


async def test_a_large_download_to_a_slow_reader_needs_no_memory() -> None:
    block = b"x" * 262_144

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % BIG)
        for _ in range(BIG // len(block)):
            await peer.send(block)

    async with Backend(script) as backend, front(backend.url) as gateway:
        reader, writer = await gateway.connect()
        writer.write(b"GET / HTTP/1.1\r\nHost: app\r\nConnection: close\r\n\r\n")
        await reader.readuntil(b"\r\n\r\n")
        before, most, got, since = _resident(), 0, 0, 0
        while data := await reader.read(262_144):
            got += len(data)
            since += len(data)
            if since > BIG // 20:
                since = 0
                await asyncio.sleep(0.005)  # the backend runs ahead as far as it is let
                most = max(most, _resident())
        writer.close()
        assert got == BIG
        assert most - before < GROWTH, f"{(most - before) / 2**20:.1f} MiB"


@pytest.mark.parametrize("framing", ["length", "chunked"])
async def test_a_large_upload_to_a_slow_reader_needs_no_memory(framing: str) -> None:
    block = b"x" * 262_144
    got = 0

    async def script(peer: Peer) -> None:
        nonlocal got
        await peer.head()
        since = 0
        while got < BIG and (data := await peer.read(262_144)):
            got += len(data)
            since += len(data)
            if since > BIG // 20:
                since = 0
                await asyncio.sleep(0.005)
        await peer.send(response(b"got it", (b"Connection", b"close")))
        await peer.closed()

    async with Backend(script) as backend, front(backend.url, body_limit=2 * BIG) as gateway:
        reader, writer = await gateway.connect()
        size = b"Content-Length: %d" % BIG if framing == "length" else b"Transfer-Encoding: chunked"
        writer.write(b"POST / HTTP/1.1\r\nHost: app\r\nConnection: close\r\n" + size + b"\r\n\r\n")
        before, most = _resident(), 0
        for number in range(BIG // len(block)):
            writer.write(block if framing == "length" else b"%x\r\n%b\r\n" % (len(block), block))
            await writer.drain()
            if number % 40 == 0:
                most = max(most, _resident())
        if framing == "chunked":
            writer.write(b"0\r\n\r\n")
        answer = await reader.read()
        writer.close()
        assert status_of(answer) == 200
        assert got >= BIG
        assert most - before < GROWTH, f"{(most - before) / 2**20:.1f} MiB"


async def _opened(backend: Backend) -> list[Peer]:
    await until(lambda: backend.peers)
    return backend.peers


@pytest.mark.parametrize("who", ["backend", "gate", "limit"])
async def test_an_answer_before_the_end_of_a_long_upload_is_not_lost_in_a_reset(who: str) -> None:
    """A client that sends its whole body before it reads still gets the answer."""

    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(response(b"no", status=b"413 Content Too Large"))
        await peer.closed()

    size = 8_000_000
    async with Backend(script) as backend, front(backend.url, body_limit=1000) as gateway:
        if who == "gate":
            gateway.gate.refusal = BodyTooLarge(close=True)
        length = b"Transfer-Encoding: chunked" if who == "limit" else b"Content-Length: %d" % size
        body = b"%x\r\n%b\r\n0\r\n\r\n" % (size, b"x" * size) if who == "limit" else b"x" * size
        answer = await gateway.say(b"POST / HTTP/1.1\r\nHost: app\r\n" + length + b"\r\n\r\n" + body)
        assert status_of(answer) == 413
        assert b"connection: close" in answer
        assert answer.endswith(b"no" if who == "backend" else b"}")
