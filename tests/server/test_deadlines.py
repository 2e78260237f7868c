"""Slow clients, in time that passes only when the test says so."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from gateway.server.terms import Limits, Timeouts
from tests.support.raw import Closed, RawClient, connect, request
from tests.support.serving import Echo, Served, read_body, serving, until

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, bool]]:
    return "asyncio", {"use_uvloop": request.param == "uvloop"}


TIMEOUTS = Timeouts(headers=10, body_idle=30, keep_alive=75, linger=5)


class Clock:
    """Monotonic seconds that stand still until told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def passes(self, seconds: float, served: Served) -> None:
        self.now += seconds
        served.watch.look()


@pytest.fixture
def clock() -> Clock:
    return Clock()


def code(body: bytes) -> str:
    return str(json.loads(body)["code"])


async def connected(served: Served, count: int = 1) -> None:
    await until(lambda: len(served.state.connections) == count)


async def read_by_server(served: Served, size: int) -> None:
    """Until the server holds so many bytes of a head."""
    (one,) = served.state.connections
    await until(lambda: len(one._buffer) == size)  # type: ignore[union-attr]


async def test_a_client_that_says_nothing_is_closed_without_a_word(clock: Clock) -> None:
    async with serving(Echo(), timeouts=TIMEOUTS, clock=clock) as served, connect(served.address) as client:
        await connected(served)
        clock.passes(9.9, served)
        assert len(served.state.connections) == 1
        clock.passes(0.2, served)
        assert await client.closed() == b""
        assert served.refusals == []


async def test_dribbling_does_not_prolong_the_head(clock: Clock) -> None:
    """Slowloris: one byte every second, and yet the tenth second is the last."""
    app = Echo()
    async with serving(app, timeouts=TIMEOUTS, clock=clock) as served, connect(served.address) as client:
        for count in range(1, 11):
            await client.send(request()[count - 1 : count])
            await connected(served)
            await read_by_server(served, count)
            clock.passes(0.99, served)
        clock.passes(1, served)
        answer = await client.answer()
        assert (answer.status, code(answer.body)) == (408, "request_timeout")
        assert await client.closed() == b""
        assert app.seen == []
        assert (served.refusals[0].method, served.refusals[0].target) == ("GET", b"/")


async def test_the_second_head_has_its_own_deadline(clock: Clock) -> None:
    async with serving(Echo(), timeouts=TIMEOUTS, clock=clock) as served, connect(served.address) as client:
        await client.ask(request())
        clock.passes(70, served)
        await client.send(b"GET / HT")
        await read_by_server(served, 8)
        clock.passes(9, served)
        assert (await client.ask(request()[8:])).status == 200
        await client.send(b"GET")
        await read_by_server(served, 3)
        clock.passes(11, served)
        assert (await client.answer()).status == 408


async def test_an_idle_connection_is_closed_without_a_word(clock: Clock) -> None:
    async with serving(Echo(), timeouts=TIMEOUTS, clock=clock) as served, connect(served.address) as client:
        await client.ask(request())
        clock.passes(74, served)
        assert (await client.ask(request())).status == 200
        clock.passes(74, served)
        assert len(served.state.connections) == 1
        clock.passes(2, served)
        assert await client.closed() == b""


async def test_a_blank_line_does_not_begin_a_head(clock: Clock) -> None:
    """Some old clients send one behind a body: the connection is as idle as before."""
    async with serving(Echo(), timeouts=TIMEOUTS, clock=clock) as served, connect(served.address) as client:
        await client.ask(request(method="POST", body=b"x") + b"\r\n")
        clock.passes(60, served)
        assert (await client.ask(request())).status == 200


async def test_a_body_that_stops_is_a_408_and_a_disconnect(clock: Clock) -> None:
    app = Echo()
    async with serving(app, timeouts=TIMEOUTS, clock=clock) as served, connect(served.address) as client:
        await client.send(request(method="POST", content_length="10") + b"abc")
        await until(lambda: app.seen)
        for part in (b"d", b"e"):
            clock.passes(29, served)
            await client.send(part)
            await until(lambda: deadline(served) > clock.now + 29)
        clock.passes(31, served)
        answer = await client.answer()
        assert (answer.status, code(answer.body)) == (408, "request_timeout")
        assert await client.closed() == b""
        assert (app.disconnects, app.bodies) == (1, [])
        assert (served.refusals[0].method, served.refusals[0].target) == ("POST", b"/")


def deadline(served: Served) -> float:
    (one,) = served.state.connections
    return float(one.deadline)  # type: ignore[union-attr]


async def test_the_body_deadline_rests_while_the_app_is_not_waiting(clock: Clock) -> None:
    """Whoever stopped reading, it was not the client."""
    go_on = asyncio.Event()
    app = Echo()

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await go_on.wait()
        await app(scope, receive, send)

    async with serving(slow, timeouts=TIMEOUTS, clock=clock) as served, connect(served.address) as client:
        await client.send(request(method="POST", content_length="8") + b"abc")
        await until(lambda: served.state.tasks)
        await asyncio.sleep(0.02)
        clock.passes(1000, served)
        go_on.set()
        assert (await client.ask(b"defgh")).body == b"defgh"


async def test_after_the_answer_began_a_late_body_cuts_the_connection(clock: Clock) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"begun", "more_body": True})
        await read_body(receive)

    async with serving(app, timeouts=TIMEOUTS, clock=clock) as served, connect(served.address) as client:
        await client.send(request(method="POST", content_length="10"))
        await until(lambda: served.state.tasks and deadline(served) < float("inf"))
        clock.passes(31, served)
        with pytest.raises(Closed):
            await client.answer()
        await served.quiet()


BIG = b"x" * (8 * 1024 * 1024)


def big_answer(*headers: tuple[bytes, bytes]) -> Any:
    """An app that hands its whole answer over at once, and then waits if `more` is to come."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        length = (b"content-length", b"%d" % len(BIG))
        await send({"type": "http.response.start", "status": 200, "headers": [length, *headers]})
        more = scope["path"] == "/more"
        await send({"type": "http.response.body", "body": BIG, "more_body": more})
        if more:
            await send({"type": "http.response.body"})

    return app


async def stalled(client: RawClient, served: Served, path: str = "/") -> Any:
    """The connection, once the client's side is full."""
    await client.send(request(path))
    await connected(served)
    (one,) = served.state.connections
    await until(lambda: one.flow is not None and one.flow.write_paused)
    return one


async def take_some(client: RawClient, one: Any) -> bytes:
    """Reads until the server could write a little more."""
    waiting = one.transport.get_write_buffer_size()
    got = b""
    while one.transport.get_write_buffer_size() == waiting:
        got += await client.read(65536)
        await asyncio.sleep(0)
    return got


@pytest.mark.parametrize("path", ["/", "/more"])
async def test_a_client_that_never_reads_is_cut(clock: Clock, path: str) -> None:
    app = big_answer()
    async with serving(app, timeouts=TIMEOUTS, clock=clock) as served, connect(served.address) as client:
        one = await stalled(client, served, path)
        clock.passes(29, served)
        assert served.state.connections
        clock.passes(2, served)
        await served.quiet()
        assert one.transport.is_closing()


@pytest.mark.parametrize("path", ["/", "/more"])
async def test_a_client_that_reads_slowly_gets_everything(clock: Clock, path: str) -> None:
    """Whether or not the app is done, and whatever the deadline for the next request."""
    app = big_answer()
    async with serving(app, timeouts=TIMEOUTS, clock=clock) as served, connect(served.address) as client:
        one = await stalled(client, served, path)
        got = b""
        for _ in range(2):  # the kernel's buffers empty in large steps
            got += await take_some(client, one)
            clock.passes(29, served)
        got += await client.read(len(BIG) - len(got))
        assert got.startswith(b"HTTP/1.1 200 OK")


async def test_a_big_answer_outlives_its_close_as_long_as_it_is_taken(clock: Clock) -> None:
    """The answer was handed over whole and the connection is to close: no deadline may truncate it."""
    app = big_answer((b"connection", b"close"))
    async with serving(app, timeouts=TIMEOUTS, clock=clock) as served, connect(served.address) as client:
        one = await stalled(client, served)
        clock.passes(20, served)
        got = await take_some(client, one)
        clock.passes(11, served)
        got += await client.closed()
        assert len(got) > len(BIG)
        assert got.endswith(BIG)


async def test_an_untaken_answer_outlives_no_keep_alive(clock: Clock) -> None:
    timeouts = Timeouts(keep_alive=1, body_idle=30)
    app = big_answer()
    async with serving(app, timeouts=timeouts, clock=clock) as served, connect(served.address) as client:
        await stalled(client, served)
        clock.passes(2, served)
        assert served.state.connections
        clock.passes(31, served)
        await served.quiet()


async def test_lingering_ends(clock: Clock) -> None:
    """A refused client that neither reads nor leaves holds nothing for long."""
    async with serving(Echo(), timeouts=TIMEOUTS, clock=clock) as served, connect(served.address) as client:
        await client.ask(b"nonsense\r\n\r\n")
        assert len(served.state.connections) == 1
        clock.passes(4, served)
        assert len(served.state.connections) == 1
        clock.passes(2, served)
        await served.quiet()


async def test_lingering_ends_after_a_body_that_stopped(clock: Clock) -> None:
    app = Echo()
    async with serving(app, timeouts=TIMEOUTS, clock=clock) as served, connect(served.address) as client:
        await client.send(request(method="POST", content_length="10") + b"abc")
        await until(lambda: app.seen and deadline(served) < float("inf"))
        clock.passes(31, served)
        assert (await client.answer()).status == 408
        clock.passes(6, served)
        await served.quiet()


async def test_lingering_throws_away_a_bounded_amount(clock: Clock) -> None:
    async with serving(Echo(), timeouts=TIMEOUTS, clock=clock) as served, connect(served.address) as client:
        await client.ask(b"nonsense\r\n\r\n")
        (one,) = served.state.connections
        sending = asyncio.ensure_future(flood(client))
        await until(lambda: one.flow is not None and one.flow.read_paused)
        clock.passes(6, served)
        await served.quiet()
        await sending


async def flood(client: RawClient) -> None:
    try:
        for _ in range(4000):
            await client.send(b"x" * 65536)
    except ConnectionError:
        return


async def test_too_many_connections_are_told_so() -> None:
    async with serving(Echo(), limits=Limits(connections=2)) as served:
        async with connect(served.address) as first, connect(served.address) as second:
            await first.ask(request())
            await second.ask(request())
            async with connect(served.address) as third:
                answer = await third.answer()
                assert (answer.status, code(answer.body), answer["retry-after"]) == (503, "overloaded", "1")
                assert await third.closed() == b""
            await connected(served, 2)
            assert (await first.ask(request())).status == 200
        await connected(served, 0)
        async with connect(served.address) as fourth:
            assert (await fourth.ask(request())).status == 200


async def test_far_too_many_connections_are_cut_without_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.server.protocol._TURNED_AWAY", 0)
    async with serving(Echo(), limits=Limits(connections=0)) as served, connect(served.address) as client:
        assert await client.closed() == b""
        assert served.refusals == []


async def test_real_time_passes_too() -> None:
    async with serving(Echo(), timeouts=Timeouts(headers=0.05)) as served, connect(served.address) as client:
        await client.send(b"GET")
        assert (await client.answer()).status == 408
