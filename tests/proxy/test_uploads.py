"""Request bodies on their way to the backend: framed anew, counted, never finished on the client's behalf."""

from __future__ import annotations

import asyncio

import pytest

from gateway.errors import BadFraming, BodyTooLarge
from tests.support.backend import PATIENCE, Backend, Peer, Truncated, echo, response
from tests.support.forwarding import pool_for, talk, until

pytestmark = pytest.mark.anyio


async def test_a_body_with_a_length() -> None:
    async with Backend(echo) as backend:
        pool = pool_for(backend.url)
        asked = talk(pool, b"POST", body=10)
        assert asked.port.holds, "nothing is fed before a connection is in hand"
        await asked.port.may_feed.wait()
        asked.exchange.feed(b"hello")
        asked.exchange.feed(b"")
        asked.exchange.feed(b"world")
        asked.exchange.feed_end()
        port = await asked.ended()
        assert port.body.endswith(b"\r\n\r\nhelloworld")
        assert asked.record.bytes_in == 10
        assert pool.idle_count == 1
        pool.close()


async def test_a_chunked_body_is_chunked_by_us() -> None:
    async with Backend(echo) as backend:
        pool = pool_for(backend.url)
        asked = talk(pool, b"POST", body=None)
        await asked.port.may_feed.wait()
        for piece in (b"a" * 1000, b"", b"b", b"\r\n0\r\n\r\n"):
            asked.exchange.feed(piece)
        asked.exchange.feed_end()
        asked.exchange.feed_end()
        await asked.ended()
        [request] = backend.requests
        assert request.chunks == [b"a" * 1000, b"b", b"\r\n0\r\n\r\n"]
        assert request.raw_trailers == b""
        assert pool.idle_count == 1
        pool.close()


async def test_an_empty_chunked_body() -> None:
    async with Backend(echo) as backend:
        asked = talk(pool_for(backend.url), b"POST", body=None)
        await asked.port.may_feed.wait()
        asked.exchange.feed_end()
        assert (await asked.ended()).status == 200


@pytest.mark.parametrize("body", [10, None])
@pytest.mark.parametrize("leaves", ["leaves", "says it is done"])
async def test_an_aborted_upload_is_never_finished(body: int | None, leaves: str) -> None:
    if body is None and leaves != "leaves":
        return  # a chunked body is as long as it is
    got: list[bytes] = []

    async def script(peer: Peer) -> None:
        try:
            await peer.request()
        except Truncated as error:
            got.append(error.got)

    async with Backend(script) as backend:
        pool = pool_for(backend.url)
        asked = talk(pool, b"POST", body=body)
        await asked.port.may_feed.wait()
        asked.exchange.feed(b"half")
        await _arrived(backend)
        asked.exchange.client_gone() if leaves == "leaves" else asked.exchange.feed_end()
        assert asked.exchange.done
        asked.exchange.client_gone()
        asked.exchange.feed(b"late")
        asked.exchange.feed_end()
        async with asyncio.timeout(PATIENCE):
            await backend.peers[0].ended.wait()
        assert got in ([b"half"], [b""])  # a reset may overtake what was sent
        assert asked.done == [asked.record]
        assert (asked.record.status, asked.record.reason, asked.record.bytes_in) == (499, "client_gone", 4)
        assert (pool.idle_count, pool.busy_count) == (0, 0)


async def test_a_body_longer_than_its_length_is_cut_off() -> None:
    async with Backend(echo) as backend:
        asked = talk(pool_for(backend.url), b"POST", body=3)
        await asked.port.may_feed.wait()
        asked.exchange.feed(b"abcd")
        assert isinstance((await asked.ended()).error, BadFraming)


async def test_a_chunked_body_that_grows_too_large_is_413() -> None:
    got: list[bytes] = []

    async def script(peer: Peer) -> None:
        try:
            await peer.request()
        except Truncated as error:
            got.append(error.got)

    async with Backend(script) as backend:
        pool = pool_for(backend.url)
        asked = talk(pool, b"POST", body=None, body_limit=10)
        await asked.port.may_feed.wait()
        asked.exchange.feed(b"x" * 10)
        await _arrived(backend)
        asked.exchange.feed(b"y")
        port = await asked.ended()
        assert isinstance(port.error, BodyTooLarge)
        assert port.error.close
        async with asyncio.timeout(PATIENCE):
            await backend.peers[0].ended.wait()
        assert b"y" not in b"".join(got)
        assert (pool.idle_count, pool.busy_count) == (0, 0)


@pytest.mark.parametrize("status", [b"200 OK", b"413 Too Large"])
async def test_an_early_answer_is_passed_on_and_the_connection_closed(status: bytes) -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(response(b"enough", status=status))
        await peer.closed()

    async with Backend(script) as backend:
        pool = pool_for(backend.url)
        asked = talk(pool, b"POST", body=1_000_000)
        await asked.port.may_feed.wait()
        asked.exchange.feed(b"a little")
        port = await asked.ended()
        assert (port.status, port.body, port.outcome) == (int(status[:3]), b"enough", "finish")
        assert (pool.idle_count, pool.busy_count) == (0, 0)


async def test_a_backend_that_answers_while_it_reads() -> None:
    """Both directions at once work, but such a connection is not used again."""

    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while (data := await peer.read()) and not data.endswith(b"0\r\n\r\n"):
            await peer.send(b"2\r\nok\r\n")
        await peer.send(b"0\r\n\r\n")
        await peer.closed()

    async with Backend(script) as backend:
        pool = pool_for(backend.url)
        asked = talk(pool, b"POST", body=None)
        await asked.port.may_feed.wait()
        asked.exchange.feed(b"first")
        await asked.port.started.wait()
        assert not asked.port.holds
        asked.exchange.feed(b"second")
        asked.exchange.feed_end()
        assert (await asked.ended()).body.startswith(b"ok")
        assert (pool.idle_count, pool.busy_count) == (0, 0)


async def test_an_answer_while_the_request_is_still_on_its_way_out_is_early_too() -> None:
    """The client has said everything, but the backend answers before it has read it: not used again."""

    async def script(peer: Peer) -> None:
        await peer.head()
        await go.wait()
        await peer.send(response(b"ok"))
        await peer.closed()

    go, size = asyncio.Event(), 30_000_000
    async with Backend(script) as backend:
        pool = pool_for(backend.url)
        asked = talk(pool, b"POST", body=size)
        await asked.port.may_feed.wait()
        asked.exchange.feed(b"x" * size)
        asked.exchange.feed_end()
        go.set()
        assert (await asked.ended()).body == b"ok"
        assert (pool.idle_count, pool.busy_count) == (0, 0)


async def test_nobody_feeds_without_being_asked_to() -> None:
    async with Backend(echo) as backend:
        asked = talk(pool_for(backend.url), b"POST", body=None)
        with pytest.raises(RuntimeError):
            asked.exchange.feed(b"x")
        asked.exchange.client_gone()


async def test_a_client_that_leaves_in_the_middle_of_a_read() -> None:
    """Another lane's port may learn of it while it writes."""
    async with Backend(echo) as backend:
        pool = pool_for(backend.url)
        asked = talk(pool)

        def start(status: int, headers: object) -> None:
            asked.exchange.client_gone()

        asked.port.start = start  # type: ignore[method-assign]
        await until(lambda: asked.done)
        assert (asked.record.reason, asked.port.body, pool.idle_count) == ("client_gone", b"", 0)


async def test_an_early_refusal_stops_the_upload_for_good() -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(b"HTTP/1.1 413 Too Large\r\nContent-Length: 4\r\n\r\n")
        await peer.read()
        await peer.hang()

    async with Backend(script) as backend:
        asked = talk(pool_for(backend.url), b"POST", body=100_000_000)
        await asked.port.may_feed.wait()
        asked.exchange.feed(b"x")
        await asked.port.started.wait()
        assert asked.port.holds
        asked.exchange.upload_resumed()
        assert asked.port.holds
        asked.exchange.client_gone()


async def test_a_slow_backend_holds_the_upload_back() -> None:
    go = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.head()
        await go.wait()
        await peer.reader.readexactly(total)
        await peer.send(response(b"got it"))
        await peer.closed()

    total = 30_000_000
    async with Backend(script) as backend:
        pool = pool_for(backend.url)
        asked = talk(pool, b"POST", body=total, body_limit=total)
        await asked.port.may_feed.wait()
        sent = 0
        while not asked.port.holds:
            asked.exchange.feed(b"x" * 65_536)
            sent += 65_536
            assert sent < total, "nobody ever said stop"
            await asyncio.sleep(0)
        go.set()
        while sent < total:
            await asked.port.may_feed.wait()
            piece = min(65_536, total - sent)
            asked.exchange.feed(b"x" * piece)
            sent += piece
        asked.exchange.feed_end()
        assert (await asked.ended()).body == b"got it"
        assert pool.idle_count == 1
        pool.close()


async def test_a_fast_backend_is_held_back_by_a_slow_client() -> None:
    sent = 0

    async def script(peer: Peer) -> None:
        nonlocal sent
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 30000000\r\n\r\n")
        while sent < 30_000_000:
            await peer.send(b"x" * 100_000)
            sent += 100_000
        await peer.closed()

    async with Backend(script) as backend:
        pool = pool_for(backend.url)
        asked = talk(pool)
        await asked.port.started.wait()
        asked.exchange.pause()
        asked.exchange.pause()
        stood_at = -1
        while stood_at != sent:  # the kernel's buffers fill, then nothing moves
            stood_at = sent
            await asyncio.sleep(0.05)
        assert len(asked.port.body) < 2_000_000
        assert sent < 25_000_000
        asked.exchange.resume()
        asked.exchange.resume()
        assert len((await asked.ended()).body) == 30_000_000
        assert asked.record.bytes_out == 30_000_000
        pool.close()


async def test_a_connection_lost_before_the_first_byte_of_body_costs_nothing() -> None:
    """The head was not written yet, so even a POST can go out on another connection."""
    async with Backend(echo) as backend:
        pool = pool_for(backend.url)
        await talk(pool).ended()
        asked = talk(pool, b"POST", body=2)
        assert not asked.port.holds
        await backend.peers[0].reset()
        await until(lambda: asked.port.pauses)
        await asked.port.may_feed.wait()
        asked.exchange.feed(b"hi")
        asked.exchange.feed_end()
        assert (await asked.ended()).body.endswith(b"hi")
        pool.close()


async def test_it_is_tried_again_once_and_not_for_ever() -> None:
    """A backend that takes every connection and closes it a moment later."""

    async def script(peer: Peer) -> None:
        await until(lambda: not asked.port.holds or asked.port.outcome)  # it is in the request's hands

    async with Backend(script) as backend:
        pool = pool_for(backend.url)
        asked = talk(pool, b"POST", body=2)
        port = await asked.ended()
        assert (port.outcome, port.status) == ("fail", 502)
        assert len(backend.peers) == 2
        assert not backend.requests


async def test_what_came_before_the_first_byte_left_is_nobodys_answer() -> None:
    """A late answer to somebody else reaches the connection while its next owner still waits for a body."""
    late = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(response(b"first"))
        if peer is peer.backend.peers[0]:
            await late.wait()
            await peer.send(response(b"somebody else's"))
            await peer.closed()

    async with Backend(script) as backend:
        pool = pool_for(backend.url)
        assert (await talk(pool).ended()).body == b"first"
        asked = talk(pool, b"POST", body=2)
        assert not asked.port.holds
        late.set()
        await until(lambda: asked.port.pauses)
        await asked.port.may_feed.wait()
        asked.exchange.feed(b"hi")
        asked.exchange.feed_end()
        assert (await asked.ended()).body == b"first"
        assert len(backend.peers) == 2
        pool.close()


async def _arrived(backend: Backend) -> None:
    """Until the backend has read a request's head."""
    await until(lambda: backend.requests)
