"""What is too slow, and who is told. Time passes only when a test says so."""

from __future__ import annotations

import asyncio

import pytest

from gateway.errors import RequestTimeout, UpstreamTimeout
from gateway.proxy.upstream.timers import Ticker
from tests.support.backend import Backend, Peer, echo, response
from tests.support.forwarding import Clock, pool_for, talk, until

pytestmark = pytest.mark.anyio

HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n"


async def test_a_backend_that_hangs_is_504() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.hang()

    clock = Clock()
    async with Backend(script) as backend:
        pool = pool_for(backend.url, clock=clock, response=60.0)
        asked = talk(pool)
        await until(lambda: backend.requests)
        clock.pass_by(59.0, pool)
        assert not asked.port.outcome
        assert asked.port.ticks == 1
        clock.pass_by(2.0, pool)
        port = await asked.ended()
        assert isinstance(port.error, UpstreamTimeout)
        assert (asked.record.status, asked.record.reason) == (504, "upstream_timeout")
        await until(lambda: backend.open == 0)
        assert (pool.busy_count, len(pool.ticker)) == (0, 0)


async def test_interim_answers_buy_no_time() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        await peer.hang()

    clock = Clock()
    async with Backend(script) as backend:
        pool = pool_for(backend.url, clock=clock, response=60.0)
        asked = talk(pool)
        await until(lambda: backend.requests)
        clock.pass_by(59.0, pool)
        await until(lambda: asked.port.interims)
        clock.pass_by(2.0, pool)
        assert (await asked.ended()).status == 504


async def test_a_body_that_stops_is_cut_off() -> None:
    more = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(HEAD + b"half")
        await more.wait()
        await peer.send(b"x")
        await peer.hang()

    clock = Clock()
    async with Backend(script) as backend:
        pool = pool_for(backend.url, clock=clock, idle=60.0)
        asked = talk(pool)
        await until(lambda: asked.port.body == b"half")
        clock.pass_by(59.0, pool)
        more.set()
        await until(lambda: asked.port.body == b"halfx")
        clock.pass_by(59.0, pool)
        assert not asked.port.outcome, "every byte buys the whole time again"
        clock.pass_by(2.0, pool)
        assert (await asked.ended()).outcome == "abort"
        assert (asked.record.status, asked.record.reason) == (200, "upstream_timeout")


async def test_a_client_that_stops_sending_is_408() -> None:
    clock = Clock()
    async with Backend(echo) as backend:
        pool = pool_for(backend.url, clock=clock)
        asked = talk(pool, b"POST", body=10, body_idle=30.0)
        await asked.port.may_feed.wait()
        asked.exchange.feed(b"half")
        clock.pass_by(29.0, pool)
        asked.exchange.feed(b"x")
        clock.pass_by(29.0, pool)
        assert not asked.port.outcome
        clock.pass_by(2.0, pool)
        port = await asked.ended()
        assert isinstance(port.error, RequestTimeout)
        assert port.error.close
        assert asked.record.reason == "request_timeout"
        assert pool.idle_count == 0


async def test_both_directions_at_once_and_then_silence_is_no_failure_of_the_server() -> None:
    """Nobody can tell who should go on; a server that is fine must not be left alone for it."""

    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(HEAD + b"half")
        await peer.hang()

    clock = Clock()
    async with Backend(script) as backend:
        pool = pool_for(backend.url, clock=clock, idle=60.0)
        asked = talk(pool, b"POST", body=10)
        await asked.port.may_feed.wait()
        asked.exchange.feed(b"half")
        await until(lambda: asked.port.body)
        clock.pass_by(61.0, pool)
        assert (await asked.ended()).outcome == "abort"
        assert asked.record.reason == "request_timeout"
        assert pool.servers[0].failures == 0


async def test_uploads_that_crawl_make_room_for_those_who_wait() -> None:
    """Each that waits costs one of them its connection, and only if there is no other way."""
    clock = Clock()
    async with Backend(echo) as backend:
        pool = pool_for(backend.url, clock=clock, connections=3)
        slow = [talk(pool, b"POST", body=10_000) for _ in range(2)]
        fast = talk(pool, b"POST", body=100_000)
        for upload, size in ((slow[0], 10), (slow[1], 10), (fast, 50_000)):
            await upload.port.may_feed.wait()
            upload.exchange.feed(b"x" * size)
        for _ in range(20):
            clock.pass_by(1.0, pool)
        assert not any(upload.port.outcome for upload in (*slow, fast)), "nobody waits"
        asked = talk(pool)
        clock.pass_by(0.2, pool)
        assert (await asked.ended()).status == 200
        assert sorted(upload.port.status for upload in slow) == [0, 408]
        cut = next(upload for upload in slow if upload.port.status)
        assert isinstance(cut.port.error, RequestTimeout)
        assert (cut.record.status, cut.record.reason) == (408, "request_timeout")
        assert not fast.port.outcome
        fast.exchange.feed(b"x" * 50_000)
        fast.exchange.feed_end()
        assert (await fast.ended()).status == 200
        for upload in slow:
            upload.exchange.client_gone()
        pool.close()


async def test_an_upload_that_its_backend_holds_back_does_not_crawl() -> None:
    go = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.head()
        await go.wait()
        await peer.hang()

    clock = Clock()
    async with Backend(script) as backend:
        pool = pool_for(backend.url, clock=clock, connections=1, response=100.0)
        upload = talk(pool, b"POST", body=None, body_limit=10**9)
        await upload.port.may_feed.wait()
        while not upload.port.pauses:
            upload.exchange.feed(b"x" * 65536)
        upload.exchange._bytes_in = 1  # however little it was
        asked = talk(pool)
        for _ in range(8):
            clock.pass_by(1.0, pool)
        assert not upload.port.outcome
        upload.exchange.client_gone()
        asked.exchange.client_gone()
        go.set()
        pool.close()


async def test_a_backend_that_stops_reading_is_504() -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await asyncio.Event().wait()

    clock = Clock()
    async with Backend(script) as backend:
        pool = pool_for(backend.url, clock=clock, response=60.0)
        asked = talk(pool, b"POST", body=None, body_limit=10**9, body_idle=30.0)
        await asked.port.may_feed.wait()
        while not asked.port.holds:
            asked.exchange.feed(b"x" * 100_000)
            await asyncio.sleep(0)
        clock.pass_by(31.0, pool)
        assert not asked.port.outcome, "it is not the client who is slow"
        clock.pass_by(30.0, pool)
        assert isinstance((await asked.ended()).error, UpstreamTimeout)


async def test_a_client_that_stops_reading_is_cut_off() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(HEAD + b"half")
        await peer.hang()

    clock = Clock()
    async with Backend(script) as backend:
        pool = pool_for(backend.url, clock=clock, idle=60.0)
        asked = talk(pool)
        await until(lambda: asked.port.body)
        asked.exchange.pause()
        clock.pass_by(61.0, pool)
        assert (await asked.ended()).outcome == "abort"
        assert asked.record.reason == "request_timeout"
        asked.exchange.resume()


async def test_an_answer_in_time_is_an_answer_in_time() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await go.wait()
        await peer.send(response(b"ok"))
        await peer.closed()

    clock, go = Clock(), asyncio.Event()
    async with Backend(script) as backend:
        pool = pool_for(backend.url, clock=clock, response=60.0)
        asked = talk(pool)
        await until(lambda: backend.requests)
        clock.pass_by(59.0, pool)
        go.set()
        assert (await asked.ended()).body == b"ok"
        assert asked.record.upstream_ms == 59_000.0
        assert repr(asked.exchange) == "<Exchange r1 with 'app', done>"
        pool.close()


class Thing:
    def __init__(self, ticker: Ticker, *, leaves: bool = False, breaks: bool = False) -> None:
        self.ticker, self.leaves, self.breaks, self.seen = ticker, leaves, breaks, 0

    def tick(self, now: float) -> None:
        self.seen += 1
        if self.leaves:
            self.ticker.unwatch(self)
        if self.breaks:
            raise ZeroDivisionError


async def test_the_ticker_runs_while_there_is_something_to_watch() -> None:
    ticker = Ticker(interval=0.001)
    assert repr(ticker) == "<Ticker watching 0, at rest>"
    thing = Thing(ticker)
    ticker.watch(thing)
    ticker.watch(thing)
    assert repr(ticker) == "<Ticker watching 1, armed>"
    await until(lambda: thing.seen >= 3)
    ticker.unwatch(thing)
    await until(lambda: "at rest" in repr(ticker))
    ticker.watch(thing)
    ticker.stop()
    ticker.stop()
    assert repr(ticker) == "<Ticker watching 0, at rest>"


async def test_things_may_leave_while_the_ticker_goes_round() -> None:
    ticker = Ticker()
    things = [Thing(ticker, leaves=True) for _ in range(5)]

    class Ender(Thing):
        def tick(self, now: float) -> None:
            for thing in things:
                self.ticker.unwatch(thing)

    for thing in [*things, Ender(ticker)]:
        ticker.watch(thing)
    ticker.tick()
    assert all(thing.seen <= 1 for thing in things)
    assert len(ticker) == 1
    ticker.stop()


async def test_one_broken_thing_does_not_stop_the_clock_of_the_others(
    caplog: pytest.LogCaptureFixture,
) -> None:
    ticker = Ticker(interval=0.001)
    things = [Thing(ticker, breaks=number == 2) for number in range(5)]
    for thing in things:
        ticker.watch(thing)
    await until(lambda: all(thing.seen >= 2 for thing in things))
    ticker.stop()
    assert "ZeroDivisionError" in caplog.text
